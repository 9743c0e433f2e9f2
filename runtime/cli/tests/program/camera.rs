//! `vitlet camera` on what every machine has: files, folders, pipes, the test picture, signals, the preview's port. (Devices are
//! tested on a system of its own: `cargo xtask system-test`.)

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::process::{Child, Command};

use serde_json::Value;

use crate::sandbox::{Ran, Sandbox};

const SIDE: u16 = 24;

/// Pixels of a picture, by number.
fn rgb(number: u32) -> Vec<u8> {
    (0..u32::from(SIDE) * u32::from(SIDE) * 3)
        .map(|i| (i * (3 + number) / 5 + 40 * number) as u8)
        .collect()
}

fn jpeg(number: u32) -> Vec<u8> {
    let mut bytes = vec![];
    jpeg_encoder::Encoder::new(&mut bytes, 90)
        .encode(&rgb(number), SIDE, SIDE, jpeg_encoder::ColorType::Rgb)
        .unwrap();
    bytes
}

/// The output hash of a photo by `vitlet classify`.
fn hash(sandbox: &Sandbox, photo: &str) -> Value {
    let ran = sandbox.run(&format!("classify --json -m tiny.vitlet {photo}"));
    ran.succeeded().record()["output_hash"].clone()
}

fn events(ran: &Ran, event: &str) -> Vec<Value> {
    let mut records = ran.records();
    records.retain(|record| record["event"] == event);
    records
}

fn hashes(ran: &Ran) -> Vec<Value> {
    let frames = events(ran, "frame");
    frames
        .iter()
        .map(|frame| frame["output_hash"].clone())
        .collect()
}

fn end(ran: &Ran) -> Value {
    events(ran, "end").pop().unwrap()
}

#[test]
fn a_folder_shows_what_classify_sees() {
    let sandbox = Sandbox::new();
    for (number, name) in ["b", "a", "c"].iter().enumerate() {
        sandbox.photo(&format!("photos/{name}.png"), number as u32);
    }
    let ran = sandbox
        .run("camera photos --json -m tiny.vitlet -k 2")
        .succeeded();
    let wanted = ["a", "b", "c"].map(|name| hash(&sandbox, &format!("photos/{name}.png")));
    assert_eq!(hashes(&ran), wanted);
    let frames = events(&ran, "frame");
    assert_eq!(frames[0]["top"].as_array().unwrap().len(), 2);
    let end = end(&ran);
    assert_eq!((&end["reason"], &end["frames"]), (&"end".into(), &3.into()));
    assert_eq!(end["dropped"], 0);
    assert!(end["ms"]["inference"]["p99"].as_f64().unwrap() > 0.0);

    let again = sandbox
        .run("camera photos --json -m tiny.vitlet --loop --frames 7")
        .succeeded();
    assert_eq!(hashes(&again)[3..6], wanted);
    // Played as a camera would: in order, and perhaps not all.
    let played = sandbox
        .run("camera photos --json -m tiny.vitlet --fps 2000 --loop --frames 5")
        .succeeded();
    assert_eq!(hashes(&played).len(), 5);
}

#[test]
fn a_clip_of_jpegs_shows_what_classify_sees() {
    let sandbox = Sandbox::new();
    let mut clip = vec![];
    let mut wanted = vec![];
    for number in 0..4 {
        let name = format!("{number}.jpg");
        sandbox.write(&name, &jpeg(number));
        wanted.push(hash(&sandbox, &name));
        clip.extend(jpeg(number));
    }
    sandbox.write("clip.mjpeg", &clip);
    let path = sandbox.path("clip.mjpeg");
    for uri in ["clip.mjpeg", &format!("file://{}", path.display())] {
        let ran = sandbox
            .run(&format!("camera {uri} --json -m tiny.vitlet"))
            .succeeded();
        assert_eq!(hashes(&ran), wanted);
        assert_eq!(events(&ran, "start")[0]["format"], "MJPG");
    }
    // A pipe is live: what comes while a frame is classified may be dropped, but never the last.
    let ran = sandbox
        .run_piped(&clip, "camera - --json -m tiny.vitlet")
        .succeeded();
    assert_eq!(hashes(&ran).last(), wanted.last());
    let end = end(&ran);
    let count = |name: &str| end[name].as_u64().unwrap();
    assert_eq!(count("frames") + count("dropped"), 4);

    // A damaged frame of a file is reported, the others are classified, and the exit status says so.
    let cut = [&jpeg(0)[..], &jpeg(1)[..jpeg(1).len() - 3], &jpeg(2)[..]].concat();
    sandbox.write("cut.mjpeg", &cut);
    let ran = sandbox.run("camera cut.mjpeg --json -m tiny.vitlet");
    assert_eq!(ran.status, 1);
    assert_eq!(hashes(&ran), [wanted[0].clone(), wanted[2].clone()]);
    assert!(
        ran.stderr.contains("warning: a frame cannot be used"),
        "{}",
        ran.stderr
    );
}

#[test]
fn raw_video_shows_what_classify_sees() {
    let sandbox = Sandbox::new();
    sandbox.png("photo.png", [SIDE.into(), SIDE.into()], &rgb(7));
    let wanted = hash(&sandbox, "photo.png");
    let options = "--json -m tiny.vitlet --width 24 --height 24";
    let swapped: Vec<u8> = rgb(7)
        .as_chunks::<3>()
        .0
        .iter()
        .flat_map(|[r, g, b]| [*b, *g, *r])
        .collect();
    for (format, bytes) in [("RGB3", rgb(7)), ("bgr3", swapped)] {
        let ran = sandbox
            .run_piped(&bytes, &format!("camera - {options} --format {format}"))
            .succeeded();
        assert_eq!(hashes(&ran), std::slice::from_ref(&wanted), "{format}");
    }
    // Grey of any kind is grey, limited range or not.
    sandbox.png("grey.png", [24, 24], &[130; 24 * 24 * 3]);
    let grey = hash(&sandbox, "grey.png");
    let luma = [(130.0_f64 * 219.0 / 255.0 + 16.0).round() as u8; 24 * 24];
    let chroma = [128; 12 * 12];
    let planes = [&luma[..], &chroma, &chroma].concat();
    let ran = sandbox
        .run_piped(&planes, &format!("camera - {options} --format YU12"))
        .succeeded();
    assert_eq!(hashes(&ran), std::slice::from_ref(&grey));
    let y4m = [b"YUV4MPEG2 W24 H24 F25:1 C420jpeg\nFRAME\n", &planes[..]].concat();
    sandbox.write("clip.y4m", &y4m);
    let ran = sandbox
        .run("camera clip.y4m --json -m tiny.vitlet")
        .succeeded();
    assert_eq!(hashes(&ran), [grey]);
    assert_eq!(events(&ran, "start")[0]["fps"], 25.0);
}

#[test]
fn the_test_picture_for_people_and_for_scripts() {
    let sandbox = Sandbox::new();
    let options = "-m tiny.vitlet --frames 30 --fps 500 --width 64 --height 48";
    let ran = sandbox
        .run(&format!("camera test: --json {options}"))
        .succeeded();
    let start = &events(&ran, "start")[0];
    assert_eq!(
        (&start["width"], &start["format"]),
        (&64.into(), &"RGB3".into())
    );
    assert!(start["preview"].is_null());
    let frames = events(&ran, "frame");
    assert_eq!(frames.len(), 30);
    assert!(frames.iter().all(|frame| frame["late"] == false));
    let end = end(&ran);
    assert_eq!(
        (&end["reason"], &end["late"]),
        (&"frames".into(), &0.into())
    );
    #[cfg(target_os = "linux")]
    assert!(end["rss_bytes"].as_u64().unwrap() > 100_000);

    let text = sandbox
        .run(&format!("camera test: {options}"))
        .succeeded()
        .stdout;
    for part in [
        "RGB3 64x48",
        "tiny.vitlet",
        "frames/s",
        "end to end ms",
        "30 classified",
    ] {
        assert!(text.contains(part), "no '{part}' in: {text}");
    }
    let quiet = sandbox
        .run(&format!("camera test: --headless {options}"))
        .succeeded()
        .stdout;
    assert!(!quiet.contains("frames/s  inference"), "{quiet}");
}

/// The start record of a camera that goes on; the rest is in the reader.
fn started(child: &mut Child) -> (Value, impl std::io::Read + use<>) {
    let mut reader = BufReader::new(child.stdout.take().unwrap());
    let mut line = String::new();
    reader.read_line(&mut line).unwrap();
    (serde_json::from_str(&line).unwrap(), reader)
}

#[test]
fn signals_stop_it_with_a_summary() {
    let sandbox = Sandbox::new();
    for round in 0..10 {
        let signal = ["INT", "TERM"][round % 2];
        let mut child = sandbox.start("camera test: --json -m tiny.vitlet --fps 1000");
        let (_, mut rest) = started(&mut child);
        let killed = Command::new("kill")
            .args(["-s", signal, &child.id().to_string()])
            .status()
            .unwrap();
        assert!(killed.success());
        let mut text = String::new();
        rest.read_to_string(&mut text).unwrap();
        assert_eq!(child.wait().unwrap().code(), Some(0), "{signal}");
        let last: Value = serde_json::from_str(text.lines().last().unwrap()).unwrap();
        assert_eq!(
            (&last["event"], &last["reason"]),
            (&"end".into(), &"signal".into())
        );
    }
}

#[test]
fn a_reader_that_goes_ends_it() {
    let sandbox = Sandbox::new();
    let mut child = sandbox.start("camera test: --json -m tiny.vitlet --fps 1000");
    drop(started(&mut child));
    assert_eq!(child.wait().unwrap().code(), Some(0));
}

#[test]
fn a_change_runs_a_command() {
    let sandbox = Sandbox::new();
    sandbox.photo("photos/a.png", 1);
    let mut child = Command::new(crate::sandbox::PROGRAM)
        .current_dir(sandbox.path("."))
        .args(["camera", "photos", "--json", "-m", "tiny.vitlet", "--loop"])
        .args(["--frames", "20", "--on-change"])
        .arg("echo \"$VITLET_CLASS,$VITLET_LABEL,$VITLET_SCORE\" >> log; echo out")
        .stdout(std::process::Stdio::piped())
        .stderr(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    let mut stdout = String::new();
    child
        .stdout
        .take()
        .unwrap()
        .read_to_string(&mut stdout)
        .unwrap();
    assert!(child.wait().unwrap().success());
    // The command's own output is no record.
    assert!(stdout.lines().all(|line| line.starts_with('{')), "{stdout}");
    // The same photo twenty times is one change.
    let log = std::fs::read_to_string(sandbox.path("log")).unwrap();
    assert_eq!(log.lines().count(), 1, "{log}");
    let first: Value = serde_json::from_str(stdout.lines().nth(1).unwrap()).unwrap();
    assert!(
        log.starts_with(&format!("{},", first["top"][0]["class"])),
        "{log}"
    );
}

#[test]
fn the_preview_is_where_the_start_record_says() {
    let sandbox = Sandbox::new();
    let mut child = sandbox.start("camera test: --json -m tiny.vitlet --preview 127.0.0.1:0");
    let (start, rest) = started(&mut child);
    // Somebody must read on, or the program waits for its standard output.
    let reader = std::thread::spawn(move || std::io::copy(&mut { rest }, &mut std::io::sink()));
    let url = start["preview"].as_str().unwrap();
    let address = url.strip_prefix("http://").unwrap().trim_end_matches('/');
    let mut stream = TcpStream::connect(address).unwrap();
    stream
        .write_all(b"GET / HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
        .unwrap();
    let mut page = String::new();
    stream.read_to_string(&mut page).unwrap();
    assert!(
        page.starts_with("HTTP/1.1 200 OK") && page.contains("<title>"),
        "{page}"
    );
    child.kill().unwrap();
    child.wait().unwrap();
    reader.join().unwrap().unwrap();
}

#[test]
fn refusals() {
    let sandbox = Sandbox::new();
    sandbox.write("text", b"no video");
    std::fs::create_dir(sandbox.path("empty")).unwrap();
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let taken = taken.local_addr().unwrap();
    for (arguments, parts) in [
        (
            "rtsp://host/stream",
            &["rtsp://host/stream: no such source", "/dev/video0"][..],
        ),
        ("/dev/video-none", &["/dev/video-none: no such device"]),
        (
            "/dev/null",
            &["/dev/null: does not capture video", "camera list"],
        ),
        ("missing.mjpeg", &["missing.mjpeg: cannot be read"]),
        ("text", &["text: neither MJPEG nor Y4M", "ffmpeg"]),
        ("empty", &["empty: has no photos"]),
        ("text --format NV12", &["give --width and --height"]),
        ("test: --format NV12", &["leave --format out"]),
        ("test: --width 64", &["--height"]),
        ("test: --preview /dev/video0", &["before --preview"]),
        ("test: --fps 0", &["frames per second"]),
        ("test: --smoothing 0", &["frames"]),
        ("test: --threshold 2", &["0 to 1"]),
        ("test: --format H264", &["YUYV"]),
        ("", &["URI"]),
        (&format!("test: --preview {taken}"), &["in use", "port 0"]),
    ] {
        sandbox
            .run(&format!("camera {arguments} -m tiny.vitlet"))
            .failed(2, parts);
    }
    sandbox
        .run_with(
            ("VITLET_PREVIEW_TOKEN", "short"),
            "camera test: --preview 0 -m tiny.vitlet",
        )
        .failed(2, &["token has 16"]);
    sandbox
        .run_piped(b"", "camera - -m tiny.vitlet")
        .failed(2, &["standard input: empty"]);
    sandbox
        .run_piped(b"", "camera - --loop -m tiny.vitlet")
        .failed(2, &["--loop"]);
}

#[test]
fn the_list_needs_no_camera() {
    let sandbox = Sandbox::new();
    sandbox.run("camera list").succeeded();
    sandbox.run("camera list --json").succeeded().records();
}
