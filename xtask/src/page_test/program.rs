//! `vitlet camera` with its test pattern, and what it says on standard output.

use std::io::{BufRead as _, BufReader};
use std::path::Path;
use std::process::{ChildStdout, Command, Stdio};
use std::sync::mpsc::{self, Receiver};
use std::thread;
use std::time::Instant;

use anyhow::{Context as _, Result, bail, ensure};
use serde_json::Value;

use super::{PATIENCE, Process};

/// A program that runs. Dropped, it is killed.
pub(super) struct Program {
    process: Process,
    /// All events but the frames.
    events: Receiver<Value>,
    pub(super) port: u16,
    /// The query of its address: empty, or the token.
    query: String,
}

impl Program {
    /// Starts it, and waits until it serves the page at `address`, whose port may be 0.
    pub(super) fn start(path: &Path, address: &str) -> Result<Self> {
        let arguments = ["camera", "test:", "--json", "--fps", "30", "--preview"];
        let mut child = Command::new(path)
            .args(arguments)
            .arg(address)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()
            .with_context(|| format!("{}: cannot be run", path.display()))?;
        let output = child.stdout.take().context("the program's output")?;
        let mut program = Self {
            process: Process(child),
            events: events_of(output),
            port: 0,
            query: String::new(),
        };
        let start = program.event("start")?;
        let page = start["preview"]
            .as_str()
            .with_context(|| format!("its start event has no preview: {start}"))?;
        (program.port, program.query) =
            port_and_query(page).with_context(|| format!("its preview's address: {page}"))?;
        Ok(program)
    }

    /// The page's address, for this machine.
    pub(super) fn address(&self) -> String {
        format!("http://127.0.0.1:{}/{}", self.port, self.query)
    }

    /// What the page's requests must have in their addresses; empty without a token.
    pub(super) fn token(&self) -> &str {
        self.query.trim_start_matches('?')
    }

    /// Asks it to end, as a terminal or a service manager does, and waits until it has: its last event.
    pub(super) fn end(&mut self) -> Result<Value> {
        let id = self.process.0.id().to_string();
        let sent = Command::new("kill").args(["-TERM", &id]).status()?;
        ensure!(sent.success(), "kill -TERM {id} failed");
        let end = self.event("end")?;
        let deadline = Instant::now() + PATIENCE;
        while Instant::now() < deadline {
            if let Some(status) = self.process.0.try_wait()? {
                ensure!(status.success(), "asked to end, it ended with {status}");
                return Ok(end);
            }
            thread::sleep(PATIENCE / 1000);
        }
        bail!("it said that it ends, and still runs after {PATIENCE:?}");
    }

    pub(super) fn has_ended(&mut self) -> Result<bool> {
        Ok(self.process.0.try_wait()?.is_some())
    }

    /// Kills it: nobody is told.
    pub(super) fn kill(&mut self) -> Result<()> {
        self.process.0.kill()?;
        self.process.0.wait()?;
        Ok(())
    }

    /// Waits for the next event, which must be this one.
    fn event(&mut self, name: &str) -> Result<Value> {
        let event = self.events.recv_timeout(PATIENCE).with_context(|| {
            let ended = self.process.0.try_wait().ok().flatten();
            let ended = ended.map_or_else(|| "it runs".to_owned(), |status| status.to_string());
            format!("vitlet camera printed no event '{name}' within {PATIENCE:?} ({ended})")
        })?;
        ensure!(event["event"] == name, "not the event '{name}': {event}");
        Ok(event)
    }
}

/// Reads the program's output, so that it never waits for a reader. The thread ends with the program.
fn events_of(output: ChildStdout) -> Receiver<Value> {
    let (sender, receiver) = mpsc::channel();
    thread::spawn(move || {
        for line in BufReader::new(output).lines().map_while(Result::ok) {
            let event = serde_json::from_str(&line).unwrap_or(Value::String(line));
            if event["event"] != "frame" && sender.send(event).is_err() {
                break;
            }
        }
    });
    receiver
}

/// `8080` and `?token=ab` of `http://10.0.0.1:8080/?token=ab`.
fn port_and_query(address: &str) -> Option<(u16, String)> {
    let rest = address.strip_prefix("http://")?;
    let (host, query) = rest.split_once('/')?;
    let (_, port) = host.rsplit_once(':')?;
    Some((port.parse().ok()?, query.to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_taken_apart() {
        let taken = |port, query: &str| Some((port, query.to_owned()));
        assert_eq!(port_and_query("http://127.0.0.1:80/"), taken(80, ""));
        assert_eq!(
            port_and_query("http://[::1]:8080/?token=ab"),
            taken(8080, "?token=ab")
        );
        assert_eq!(port_and_query("http://127.0.0.1/"), None);
    }
}
