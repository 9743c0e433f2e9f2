//! Chromium, and its protocol (<https://chromedevtools.github.io/devtools-protocol/>).
//!
//! It is spoken over two pipes, which Chromium has as its descriptors 3 and 4: JSON messages, each ended by a NUL. When the pipes close,
//! Chromium ends, so none is left behind even if this program is killed.

use std::fs::{self, File};
use std::io::{BufRead as _, BufReader, Write as _};
use std::path::{Path, PathBuf};
use std::process::{ChildStdin, ChildStdout, Command, Stdio};
use std::sync::mpsc::{self, Receiver, Sender};
use std::thread;
use std::time::Instant;

use anyhow::{Context as _, Result, bail, ensure};
use serde_json::{Value, json};
use xshell::cmd;

use super::{PATIENCE, Process};
use crate::project::Project;
use crate::setup;

/// Gives Chromium its pipes: std can set standard input and output only. What it prints goes where errors go.
const PIPES: &str = r#"exec "$@" 3<&0 4>&1 0</dev/null 1>&2"#;
/// A window of its own, no tests of the network, no updates, and no shared memory that containers have little of.
const FLAGS: [&str; 11] = [
    "--headless=new",
    "--remote-debugging-pipe",
    "--no-startup-window",
    "--no-first-run",
    "--no-default-browser-check",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-dev-shm-usage",
    "--disable-gpu",
    "--hide-scrollbars",
    "--force-color-profile=srgb",
];
/// What is asked inside of every page.
const IN_PAGE: &str = include_str!("in_page.js");

/// A browser that runs, with one page at a time. Dropped, it is killed.
pub(super) struct Browser {
    /// Before the folder: that is removed when nobody writes there any more.
    _process: Process,
    folder: Folder,
    to: Sender<String>,
    from: Receiver<Value>,
    last_id: u64,
    /// It did not answer once, and is not waited for again.
    silent: bool,
    page: Option<Page>,
    heard: Heard,
}

/// A page and the window it is in: they share nothing with other pages.
struct Page {
    context: String,
    session: String,
}

/// What a page did that nobody asked it to.
#[derive(Default)]
pub(super) struct Heard {
    pub(super) problems: Vec<Problem>,
    /// Addresses of all that it asked for.
    pub(super) requests: Vec<String>,
}

/// A line on the console.
pub(super) struct Problem {
    pub(super) text: String,
    /// The server refused or was not there: what a page tries again cannot avoid.
    pub(super) is_failed_load: bool,
}

impl Browser {
    pub(super) fn start(project: &Project) -> Result<Self> {
        let program = setup::chromium(project)
            .context("there is no Chromium: `cargo xtask setup --full` installs it")?;
        // Chromium's sandbox wants not to be root's.
        let root = cmd!(project.sh, "id -u").quiet().read()? == "0";
        let folder = Folder::new(project.scratch()?.join("chromium"))?;
        let log = File::create(folder.log())?;
        let mut child = Command::new("sh")
            .args(["-c", PIPES, "sh", program])
            .args(FLAGS)
            .args(root.then_some("--no-sandbox"))
            .arg(format!("--user-data-dir={}", folder.0.display()))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(log)
            .spawn()
            .context("sh cannot be run")?;
        let input = child.stdin.take().context("Chromium's input")?;
        let output = child.stdout.take().context("Chromium's output")?;
        let mut browser = Self {
            _process: Process(child),
            folder,
            to: writer(input),
            from: reader(output),
            last_id: 0,
            silent: false,
            page: None,
            heard: Heard::default(),
        };
        browser.call("Browser.getVersion", &json!({}))?;
        Ok(browser)
    }

    /// Opens a page in a window of its own, with nothing remembered. `scripts` run before the page's own.
    pub(super) fn open(&mut self, address: &str, scripts: &[&str]) -> Result<()> {
        self.close()?;
        let context = self.call("Target.createBrowserContext", &json!({}))?;
        let context = text(&context, "browserContextId")?;
        let blank = json!({"url": "about:blank", "browserContextId": context});
        let target = self.call("Target.createTarget", &blank)?;
        let attach = json!({"targetId": target["targetId"], "flatten": true});
        let session = text(&self.call("Target.attachToTarget", &attach)?, "sessionId")?;
        self.page = Some(Page { context, session });
        for domain in ["Page", "Runtime", "Log", "Network"] {
            self.call(&format!("{domain}.enable"), &json!({}))?;
        }
        // Or it counts as a page that nobody sees.
        let focus = json!({"enabled": true});
        self.call("Emulation.setFocusEmulationEnabled", &focus)?;
        for source in [IN_PAGE].iter().chain(scripts) {
            let source = json!({"source": source});
            self.call("Page.addScriptToEvaluateOnNewDocument", &source)?;
        }
        self.size(1440, 900)?;
        self.go(address)
    }

    /// Closes the page: what was heard of it.
    pub(super) fn close(&mut self) -> Result<Heard> {
        if self.page.is_none() {
            return Ok(Heard::default());
        }
        let heard = self.heard();
        if let Some(Page { context, .. }) = self.page.take() {
            let context = json!({"browserContextId": context});
            self.call("Target.disposeBrowserContext", &context)?;
        }
        heard
    }

    /// What was heard of the page since it was asked last.
    pub(super) fn heard(&mut self) -> Result<Heard> {
        // What the page did before this answer was told before it.
        self.evaluate("0")?;
        Ok(std::mem::take(&mut self.heard))
    }

    /// Files that the page saves go into this folder.
    pub(super) fn save_to(&mut self, folder: &Path) -> Result<()> {
        let page = self.page.as_ref().context("there is no page")?;
        let behavior = json!({
            "behavior": "allow", "browserContextId": page.context, "downloadPath": folder
        });
        self.exchange(None, "Browser.setDownloadBehavior", &behavior)
            .map(drop)
    }

    /// Calls a method, of the page if there is one.
    pub(super) fn call(&mut self, method: &str, params: &Value) -> Result<Value> {
        let session = self.page.as_ref().map(|page| page.session.clone());
        self.exchange(session, method, params)
    }

    /// Calls a method, of the browser where there is no session.
    fn exchange(&mut self, session: Option<String>, method: &str, params: &Value) -> Result<Value> {
        ensure!(!self.silent, "{method}: Chromium did not answer before");
        let deadline = Instant::now() + PATIENCE;
        self.last_id += 1;
        let mut message = json!({"id": self.last_id, "method": method, "params": params});
        if let Some(session) = session {
            message["sessionId"] = session.into();
        }
        // Whether it could be sent shows when the answer comes, or does not.
        let _ = self.to.send(message.to_string());
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            let Ok(mut message) = self.from.recv_timeout(left) else {
                self.silent = true;
                bail!("{method}: {}", self.last_words());
            };
            if message["id"] == self.last_id {
                return match message.get("error") {
                    Some(error) => bail!("{method}: {}", error["message"]),
                    None => Ok(message["result"].take()),
                };
            }
            self.hear(&message);
        }
    }

    /// Keeps what an event tells of the page. There may be late ones of the page before.
    fn hear(&mut self, event: &Value) {
        let session = event["sessionId"].as_str();
        if self.page.as_ref().map(|page| page.session.as_str()) == session {
            self.heard.hear(event);
        }
    }

    /// Why nothing may come any more.
    fn last_words(&self) -> String {
        let log = fs::read_to_string(self.folder.log()).unwrap_or_default();
        let last: Vec<&str> = log.lines().rev().take(3).collect();
        format!(
            "Chromium does not answer within {PATIENCE:?}; it said last: {}",
            last.join(" / ")
        )
    }
}

impl Heard {
    fn hear(&mut self, message: &Value) {
        let params = &message["params"];
        let problem = match message["method"].as_str() {
            Some("Network.requestWillBeSent") => {
                let address = params["request"]["url"].as_str().unwrap_or_default();
                self.requests.push(address.to_owned());
                return;
            }
            Some("Runtime.consoleAPICalled") if params["type"] != "log" => &params["args"],
            Some("Runtime.exceptionThrown") => &params["exceptionDetails"],
            Some("Log.entryAdded") => &params["entry"],
            _ => return,
        };
        self.problems.push(Problem {
            text: problem.to_string(),
            is_failed_load: problem["source"] == "network",
        });
    }
}

fn text(value: &Value, key: &str) -> Result<String> {
    let text = value[key].as_str();
    Ok(text
        .with_context(|| format!("no {key} in {value}"))?
        .to_owned())
}

/// Writes in a thread of its own: a browser that reads nothing is to be found by the deadline.
fn writer(mut input: ChildStdin) -> Sender<String> {
    let (sender, receiver) = mpsc::channel::<String>();
    thread::spawn(move || {
        for message in receiver {
            if input
                .write_all(message.as_bytes())
                .and_then(|()| input.write_all(&[0]))
                .is_err()
            {
                break;
            }
        }
    });
    sender
}

/// Reads until the browser ends.
fn reader(output: ChildStdout) -> Receiver<Value> {
    let (sender, receiver) = mpsc::channel();
    thread::spawn(move || {
        for message in BufReader::new(output).split(0).map_while(Result::ok) {
            let message = serde_json::from_slice(&message).unwrap_or_default();
            if sender.send(message).is_err() {
                break;
            }
        }
    });
    receiver
}

/// The browser's own folder, removed at the end.
struct Folder(PathBuf);

impl Folder {
    fn new(path: PathBuf) -> Result<Self> {
        // One that was killed may have left it.
        let folder = Self(path);
        folder.remove();
        fs::create_dir_all(&folder.0).with_context(|| folder.0.display().to_string())?;
        Ok(folder)
    }

    fn log(&self) -> PathBuf {
        self.0.join("stderr")
    }

    fn remove(&self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        self.remove();
    }
}
