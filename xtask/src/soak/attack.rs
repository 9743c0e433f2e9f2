//! Viewers that look on, and attackers that come and go.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use anyhow::{Context as _, Result};

/// Connections of a wave: many more than a server keeps.
const WAVE: usize = 1000;
const PATIENCE: Duration = Duration::from_secs(2);

/// What attackers send. None of it may be answered with anything that is seen or known here.
const REQUESTS: [&str; 6] = [
    // Slowloris: a head that never ends.
    "GET / HTTP/1.1\r\nX-",
    "GET /../../../etc/passwd HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n",
    "GET /stream.mjpg HTTP/1.1\r\nHost: evil.example\r\nConnection: close\r\n\r\n",
    "POST /snapshot.jpg HTTP/1.1\r\nHost: localhost\r\nContent-Length: 999999999\r\nConnection: close\r\n\r\n",
    "\u{0}\u{1}\u{2}\u{3} / HTTP/1.1\r\n\r\n",
    "GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\nTransfer-Encoding: chunked\r\nContent-Length: 5\r\n\r\n",
];

/// Everyone who connects.
pub(super) struct Traffic {
    shared: Arc<Shared>,
    threads: Vec<JoinHandle<()>>,
}

#[derive(Default)]
struct Shared {
    stopped: AtomicBool,
    attacking: AtomicBool,
    pictures: AtomicU64,
    attacks: AtomicU64,
    wrong: AtomicU64,
}

/// What came of it.
pub(super) struct Served {
    pub(super) pictures: u64,
    pub(super) attacks: u64,
    pub(super) wrong: u64,
}

impl Traffic {
    /// Two viewers, one that reads and one that does not, and an attacker who waits.
    pub(super) fn start(url: &str) -> Result<Self> {
        let address = url
            .strip_prefix("http://")
            .and_then(|rest| rest.split('/').next())
            .with_context(|| format!("{url} is no address"))?
            .to_owned();
        let shared = Arc::new(Shared::default());
        let spawn = |body: fn(&str, &Shared)| {
            let (address, shared) = (address.clone(), Arc::clone(&shared));
            thread::spawn(move || {
                while !shared.stopped.load(Ordering::Relaxed) {
                    body(&address, &shared);
                }
            })
        };
        Ok(Self {
            threads: vec![spawn(viewer), spawn(sleeper), spawn(attacker)],
            shared,
        })
    }

    pub(super) fn attack(&self, attack: bool) {
        self.shared.attacking.store(attack, Ordering::Relaxed);
    }

    pub(super) fn stop(self) -> Served {
        self.shared.stopped.store(true, Ordering::Relaxed);
        for thread in self.threads {
            // A panic of it was printed.
            let _ = thread.join();
        }
        let count = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        Served {
            pictures: count(&self.shared.pictures),
            attacks: count(&self.shared.attacks),
            wrong: count(&self.shared.wrong),
        }
    }
}

fn open(address: &str, request: &str) -> Option<TcpStream> {
    let mut stream = TcpStream::connect(address).ok()?;
    stream.set_read_timeout(Some(PATIENCE)).ok()?;
    stream.set_write_timeout(Some(PATIENCE)).ok()?;
    stream.write_all(request.as_bytes()).ok()?;
    Some(stream)
}

/// Looks at the pictures until the connection ends.
fn viewer(address: &str, shared: &Shared) {
    let request = "GET /stream.mjpg HTTP/1.1\r\nHost: localhost\r\n\r\n";
    let Some(mut stream) = open(address, request) else {
        return thread::sleep(Duration::from_millis(200));
    };
    let mut buffer = vec![0; 1 << 16];
    while !shared.stopped.load(Ordering::Relaxed) {
        match stream.read(&mut buffer) {
            Ok(len) if len > 0 => {
                let ends = buffer[..len].windows(2).filter(|two| *two == [0xFF, 0xD9]);
                shared
                    .pictures
                    .fetch_add(ends.count() as u64, Ordering::Relaxed);
            }
            _ => return,
        }
    }
}

/// Asks for pictures and takes none.
fn sleeper(address: &str, shared: &Shared) {
    let stream = open(
        address,
        "GET /stream.mjpg HTTP/1.1\r\nHost: localhost\r\n\r\n",
    );
    for _ in 0..150 {
        if shared.stopped.load(Ordering::Relaxed) {
            return;
        }
        thread::sleep(Duration::from_millis(100));
    }
    drop(stream);
}

/// A wave of connections with bad requests, and some that say nothing at all.
fn attacker(address: &str, shared: &Shared) {
    if !shared.attacking.load(Ordering::Relaxed) {
        return thread::sleep(Duration::from_millis(100));
    }
    let mut open_ones = vec![];
    for index in 0..WAVE {
        let request = REQUESTS.get(index % (REQUESTS.len() + 1)).unwrap_or(&"");
        if let Some(stream) = open(address, request) {
            shared.attacks.fetch_add(1, Ordering::Relaxed);
            open_ones.push(stream);
        }
    }
    let header = format!("GET / HTTP/1.1\r\nX: {}\r\n\r\n", "a".repeat(1 << 20));
    open_ones.extend(open(address, &header));
    // They are held until the server is tired of them, or for some seconds.
    for _ in 0..30 {
        if !shared.attacking.load(Ordering::Relaxed) {
            break;
        }
        thread::sleep(Duration::from_millis(100));
    }
    for mut stream in open_ones {
        let _ = stream.set_read_timeout(Some(Duration::from_millis(1)));
        let mut answer = [0; 256];
        let Ok(len) = stream.read(&mut answer) else {
            continue;
        };
        let refused = len == 0
            || answer[..len].starts_with(b"HTTP/1.1 4")
            || answer.starts_with(b"HTTP/1.0 4");
        shared
            .wrong
            .fetch_add(u64::from(!refused), Ordering::Relaxed);
    }
}
