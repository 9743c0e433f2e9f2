//! The preview as a browser, a scraper and an attacker meet it: over sockets.
#![allow(clippy::unwrap_used)]

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use serde_json::Value;
use vitlet::{Model, Options, Photo, Session};
use vitlet_camera::{
    CameraError, CameraFrame, Classified, Hello, Notice, Observer, PipelineOptions, Preview,
    SourceSettings, Stop, Summary, Uri,
};
use vitlet_plan::testing::tiny_plan;

const TOKEN: &str = "a-token-of-some-length";

struct Show<'a> {
    preview: &'a Preview,
    frames: usize,
}

impl Observer for Show<'_> {
    type Error = CameraError;

    fn frame(
        &mut self,
        classified: &Classified<'_>,
        frame: CameraFrame,
    ) -> Result<Option<CameraFrame>, CameraError> {
        self.frames += 1;
        Ok(self.preview.frame(classified, frame))
    }

    fn notice(&mut self, notice: Notice) -> Result<(), CameraError> {
        self.preview.notice(&notice);
        Ok(())
    }
}

/// Serves a preview of the test picture, classified by a tiny model, while `test` runs.
fn served(
    address: &str,
    token: Option<&str>,
    test: impl FnOnce(SocketAddr, &Preview) + Send,
) -> Summary {
    let model = Model::from_bytes(&tiny_plan(3), "tiny \"quoted\"");
    let plan = model.plan().unwrap();
    let mut session = Session::new(&plan, &Options::default()).unwrap();
    let hello = Hello {
        model: model.name().to_owned(),
        kernel: "scalar".to_owned(),
        threads: 1,
        classes: 10,
        input: (16, 16),
        source: "test:".to_owned(),
        format: "RGB3 320x240".to_owned(),
        version: "0".to_owned(),
    };
    let preview = Preview::start(&address.parse().unwrap(), token, hello).unwrap();
    let url = preview.url();
    let host = url.strip_prefix("http://").unwrap();
    let port: u16 = host[..host.find('/').unwrap()]
        .rsplit_once(':')
        .unwrap()
        .1
        .parse()
        .unwrap();
    let server = SocketAddr::from(([127, 0, 0, 1], port));
    let settings = SourceSettings {
        size: Some((320, 240)),
        per_s: Some(200.0),
        ..SourceSettings::default()
    };
    let source = vitlet_camera::open(&Uri::Pattern, &settings).unwrap();
    let stop = Stop::new();
    thread::scope(|scope| {
        let (preview, stopped) = (&preview, stop.clone());
        scope.spawn(move || {
            // Also when the test fails.
            struct StopOnDrop(Stop);
            impl Drop for StopOnDrop {
                fn drop(&mut self) {
                    self.0.request();
                }
            }
            let _stop = StopOnDrop(stopped);
            test(server, preview);
        });
        let mut show = Show { preview, frames: 0 };
        let options = PipelineOptions::default();
        let summary = vitlet_camera::run(source, &mut session, &options, &stop, &mut show).unwrap();
        preview.end("signal");
        summary
    })
}

fn connect(server: SocketAddr) -> TcpStream {
    let stream = TcpStream::connect(server).unwrap();
    stream
        .set_read_timeout(Some(Duration::from_secs(20)))
        .unwrap();
    stream
}

fn send(server: SocketAddr, request: &str) -> TcpStream {
    let mut stream = connect(server);
    stream.write_all(request.as_bytes()).unwrap();
    stream
}

/// A request whose connection ends with its response.
fn get(server: SocketAddr, target: &str, headers: &str) -> (u16, String, Vec<u8>) {
    let request =
        format!("GET {target} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n{headers}\r\n");
    answer(send(server, &request))
}

fn answer(mut stream: TcpStream) -> (u16, String, Vec<u8>) {
    let mut bytes = vec![];
    // A server that closes while we still send resets the connection.
    match stream.read_to_end(&mut bytes) {
        Ok(_) => {}
        Err(error) if error.kind() == io::ErrorKind::ConnectionReset => {}
        Err(error) => unreachable!("{error}"),
    }
    let Some(end) = bytes.windows(4).position(|window| window == b"\r\n\r\n") else {
        return (0, String::new(), bytes);
    };
    let head = String::from_utf8(bytes[..end].to_vec()).unwrap();
    let status = head.split(' ').nth(1).unwrap().parse().unwrap();
    (status, head.to_lowercase(), bytes[end + 4..].to_vec())
}

/// The first bytes of a response without end, until they hold `what` so often.
fn until(mut stream: TcpStream, what: &[u8], times: usize) -> Vec<u8> {
    let mut bytes = vec![];
    let mut buffer = [0; 65536];
    loop {
        let found = bytes
            .windows(what.len())
            .filter(|window| *window == what)
            .count();
        if found >= times {
            return bytes;
        }
        let len = stream.read(&mut buffer).unwrap();
        assert!(
            len > 0,
            "the response ended: {}",
            String::from_utf8_lossy(&bytes)
        );
        bytes.extend_from_slice(&buffer[..len]);
    }
}

fn request(target: &str) -> String {
    format!("GET {target} HTTP/1.1\r\nHost: localhost\r\n\r\n")
}

#[test]
fn everything_is_there() {
    served("127.0.0.1:0", None, |server, _| {
        let (status, head, page) = get(server, "/", "");
        assert_eq!(status, 200);
        assert!(head.contains("text/html") && head.contains("content-security-policy"));
        assert!(head.contains("cross-origin-resource-policy: same-origin"));
        assert!(page.starts_with(b"<!doctype html>"));

        let (status, head, picture) = get(server, "/snapshot.jpg", "");
        assert_eq!(status, 200);
        assert!(head.contains("image/jpeg") && head.contains("no-store"));
        let photo = Photo::decode(&picture).unwrap();
        assert_eq!((photo.width, photo.height), (320, 240));

        let stream = until(
            send(server, &request("/stream.mjpg")),
            b"\xFF\xD9\r\n--frame",
            3,
        );
        let head = String::from_utf8_lossy(&stream[..1200]).to_lowercase();
        assert!(
            head.contains("multipart/x-mixed-replace; boundary=frame"),
            "{head}"
        );
        assert!(head.contains("content-type: image/jpeg"));

        let events = until(send(server, &request("/events")), b"event: result", 3);
        let events = String::from_utf8_lossy(&events);
        let data = |name: &str| -> Value {
            let start = events.find(&format!("event: {name}\ndata: ")).unwrap();
            let line = events[start..].lines().nth(1).unwrap();
            serde_json::from_str(line.strip_prefix("data: ").unwrap()).unwrap()
        };
        assert_eq!(data("hello")["model"], "tiny \"quoted\"");
        let result = data("result");
        assert_eq!(result["state"], "live");
        assert_eq!(result["top"].as_array().unwrap().len(), 5);
        for stage in ["capture", "preprocess", "inference", "end_to_end"] {
            assert!(result["ms"][stage].is_number(), "{result}");
        }
        let (_, _, status) = get(server, "/status.json", "");
        let status: Value = serde_json::from_slice(&status).unwrap();
        assert_eq!(status["hello"]["classes"], 10);
        assert!(status["result"]["frame"].is_number());

        let (_, _, metrics) = get(server, "/metrics", "");
        let metrics = String::from_utf8(metrics).unwrap();
        assert!(
            metrics.contains("model=\"tiny \\\"quoted\\\"\""),
            "{metrics}"
        );
        for line in metrics.lines().filter(|line| !line.starts_with('#')) {
            let value: f64 = line.rsplit_once(' ').unwrap().1.parse().unwrap();
            assert!(value.is_finite(), "{line}");
        }
        assert!(metrics.contains("vitlet_frames_late_total 0"));
        assert!(metrics.contains("vitlet_camera_up 1"));
    });
}

#[test]
fn the_end_is_told() {
    served("127.0.0.1:0", None, |server, preview| {
        let events = send(server, &request("/events"));
        let reader = thread::spawn(move || until(events, b"event: end", 1));
        thread::sleep(Duration::from_millis(200));
        preview.end("frames");
        let events = reader.join().unwrap();
        assert!(String::from_utf8_lossy(&events).contains("{\"reason\":\"frames\"}"));
    });
}

#[test]
fn a_lost_camera_is_shown_as_waiting() {
    served("127.0.0.1:0", None, |server, preview| {
        get(server, "/snapshot.jpg", "");
        let gone = CameraError::Gone {
            device: "/dev/video0".into(),
        };
        // The next frame makes it live again, so it is looked for often.
        let waiting = (0..1000).any(|_| {
            preview.notice(&Notice::Lost(CameraError::Gone {
                device: "/dev/video0".into(),
            }));
            let (_, _, status) = get(server, "/status.json", "");
            String::from_utf8_lossy(&status).contains("\"waiting\"")
        });
        assert!(waiting, "{gone}");
    });
}

#[test]
fn nothing_without_the_token() {
    served("0.0.0.0:0", Some(TOKEN), |server, preview| {
        assert!(preview.url().ends_with(&format!("/?token={TOKEN}")));
        let paths = [
            "/",
            "/stream.mjpg",
            "/snapshot.jpg",
            "/events",
            "/status.json",
            "/metrics",
            "/nothing",
        ];
        for path in paths {
            let wrong = [
                String::new(),
                "?token=".to_owned(),
                format!("?token={}", &TOKEN[1..]),
                format!("?token={TOKEN}x"),
                format!("?Token={TOKEN}"),
            ];
            for query in wrong {
                let (status, head, body) = get(server, &format!("{path}{query}"), "");
                assert_eq!(status, 401, "{path}{query}");
                assert!(head.contains("www-authenticate: bearer"));
                assert!(!body.windows(6).any(|bytes| bytes == b"vitlet{") && body.len() < 200);
            }
        }
        let (status, ..) = get(server, &format!("/?token={TOKEN}"), "");
        assert_eq!(status, 200);
        let bearer = format!("Authorization: Bearer {TOKEN}\r\n");
        assert_eq!(get(server, "/metrics", &bearer).0, 200);
        assert_eq!(
            get(server, "/metrics", "Authorization: Bearer x\r\n").0,
            401
        );
    });
    // One is made where none is given.
    served("0.0.0.0:0", None, |server, preview| {
        assert_eq!(get(server, "/", "").0, 401);
        let token = preview.url().rsplit_once("/?").unwrap().1;
        assert_eq!(get(server, &format!("/?{token}"), "").0, 200);
    });
}

#[test]
fn names_of_other_machines_do_not_lead_here() {
    served("127.0.0.1:0", None, |server, _| {
        for (host, status) in [
            ("localhost:8080", 200),
            ("127.0.0.1", 200),
            ("[::1]:80", 200),
            ("evil.example", 421),
            ("evil.example:8080", 421),
            ("localhost.evil.example", 421),
            ("", 421),
        ] {
            let request =
                format!("GET /status.json HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n");
            assert_eq!(answer(send(server, &request)).0, status, "{host}");
        }
    });
}

#[test]
fn paths_lead_nowhere_else_and_methods_are_few() {
    served("127.0.0.1:0", None, |server, _| {
        for path in [
            "/../../etc/passwd",
            "/..%2f..%2fetc%2fpasswd",
            "//etc/passwd",
            "/page.html",
            "/stream.mjpg/",
            "/%00",
            "/index.html%00",
        ] {
            let (status, _, body) = get(server, path, "");
            assert_eq!(status, 404, "{path}");
            assert!(body.len() < 200);
        }
        for method in ["POST", "PUT", "DELETE", "OPTIONS", "PATCH"] {
            let request = format!(
                "{method} / HTTP/1.1\r\nHost: localhost\r\nContent-Length: 5\r\nConnection: close\r\n\r\nhello"
            );
            assert_eq!(answer(send(server, &request)).0, 405, "{method}");
        }
        for request in [
            "\r\n\r\n\r\n",
            "GET\r\n\r\n",
            "GET / HTTP/9.9\r\n\r\n",
            "GET / HTTP/1.1\r\nA b: c\r\n\r\n",
            "\u{0}\u{1}\u{2}\r\n\r\n",
            "GET / HTTP/1.1\r\nHost: localhost\r\nContent-Length: x\r\n\r\n",
        ] {
            let mut stream = send(server, request);
            stream.shutdown(std::net::Shutdown::Write).unwrap();
            let mut bytes = vec![];
            let _ = stream.read_to_end(&mut bytes);
            let text = String::from_utf8_lossy(&bytes);
            assert!(
                bytes.is_empty() || text.starts_with("HTTP/1.1 400"),
                "{text}"
            );
        }
        assert_eq!(get(server, "/", "").0, 200);
    });
}

#[test]
fn huge_heads_are_refused() {
    served("127.0.0.1:0", None, |server, _| {
        let long = format!("X: {}\r\n", "a".repeat(1_000_000));
        let mut stream = connect(server);
        let request = format!("GET / HTTP/1.1\r\nHost: localhost\r\n{long}\r\n");
        // The server may close before it has seen all.
        let _ = stream.write_all(request.as_bytes());
        let (status, ..) = answer(stream);
        assert!(matches!(status, 0 | 431), "{status}");
        let many: String = (0..1000).map(|i| format!("X{i}: a\r\n")).collect();
        let (status, ..) = get(server, "/", &many);
        assert_eq!(status, 431);
        let target = format!("/?{}", "a".repeat(100_000));
        let mut stream = connect(server);
        let _ = stream.write_all(request_bytes(&target).as_slice());
        let (status, ..) = answer(stream);
        assert!(matches!(status, 0 | 414 | 431), "{status}");
        assert_eq!(get(server, "/", "").0, 200);
    });
}

fn request_bytes(target: &str) -> Vec<u8> {
    request(target).into_bytes()
}

/// A thousand connections that send nothing, and ones whose heads never end: they are closed, and the page is served.
#[test]
fn a_thousand_connections_and_slow_ones() {
    let ended = AtomicBool::new(false);
    let summary = served("127.0.0.1:0", None, |server, _| {
        let mut slow: Vec<TcpStream> = (0..20)
            .map(|_| send(server, "GET / HTTP/1.1\r\nX: "))
            .collect();
        let mut idle = vec![];
        for _ in 0..1000 {
            // The system's own limit of open files may be reached before.
            match TcpStream::connect(server) {
                Ok(stream) => idle.push(stream),
                Err(_) => break,
            }
        }
        assert!(idle.len() >= 900, "{}", idle.len());
        thread::scope(|scope| {
            scope.spawn(|| {
                // A byte a second keeps nobody's place.
                while !ended.load(Ordering::Relaxed) {
                    for stream in &mut slow {
                        let _ = stream.write_all(b"a");
                    }
                    thread::sleep(Duration::from_millis(500));
                }
            });
            // Those that were accepted are let go after the time for a head; then there is room.
            let served = (0..40).any(|_| {
                let (status, ..) = answer(send(
                    server,
                    "GET / HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n",
                ));
                thread::sleep(Duration::from_millis(250));
                status == 200
            });
            ended.store(true, Ordering::Relaxed);
            assert!(served);
        });
        drop(idle);
    });
    assert_eq!(summary.late, 0);
}

/// Viewers that never read: the pictures they do not take are not kept for them.
#[test]
#[cfg(target_os = "linux")]
fn viewers_that_do_not_read_cost_no_memory() {
    served("127.0.0.1:0", None, |server, _| {
        let rss = || vitlet_camera::resident_bytes().unwrap();
        until(send(server, &request("/stream.mjpg")), b"--frame", 5);
        let before = rss();
        let viewers: Vec<TcpStream> = (0..30)
            .map(|_| send(server, &request("/stream.mjpg")))
            .collect();
        // Another one that does read sees the pictures go on.
        until(send(server, &request("/stream.mjpg")), b"--frame", 200);
        let after = rss();
        // 200 pictures of 10 KB for 30 viewers would be 60 MB; buffers of connections are 16 KB and a picture.
        assert!(after < before + 8_000_000, "{before} to {after} bytes");
        drop(viewers);
    });
}
