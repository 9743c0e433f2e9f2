//! Looking at a page, and using its mouse and keys.

use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use xshell::cmd;

use super::PATIENCE;
use super::browser::Browser;
use crate::project::Project;

/// How often a condition is looked at.
const LOOK: Duration = Duration::from_millis(50);

/// A key, by the names that the protocol and pages have for it.
#[derive(Clone, Copy)]
pub(super) struct Key {
    key: &'static str,
    code: &'static str,
    number: u8,
    /// What it types.
    text: &'static str,
}

impl Key {
    pub(super) const SPACE: Self = Self::new(" ", "Space", b' ', " ");
    pub(super) const TAB: Self = Self::new("Tab", "Tab", 9, "");
    pub(super) const P: Self = Self::new("p", "KeyP", b'P', "p");
    pub(super) const S: Self = Self::new("s", "KeyS", b'S', "s");

    const fn new(key: &'static str, code: &'static str, number: u8, text: &'static str) -> Self {
        Self {
            key,
            code,
            number,
            text,
        }
    }
}

/// Keys held while another one is pressed, as the protocol counts them.
#[derive(Clone, Copy)]
pub(super) enum Held {
    Nothing = 0,
    Alt = 1,
    Control = 2,
}

impl Browser {
    pub(super) fn go(&mut self, address: &str) -> Result<()> {
        let answer = self.call("Page.navigate", &json!({"url": address}))?;
        match answer["errorText"].as_str() {
            Some(error) => bail!("{address}: {error}"),
            None => Ok(()),
        }
    }

    /// The size of the window's inside, in CSS pixels.
    pub(super) fn size(&mut self, width: u32, height: u32) -> Result<()> {
        let size =
            json!({"width": width, "height": height, "deviceScaleFactor": 1, "mobile": false});
        self.call("Emulation.setDeviceMetricsOverride", &size)
            .map(drop)
    }

    /// What the system prefers: `prefers-color-scheme`, say.
    pub(super) fn prefer(&mut self, features: &[(&str, &str)]) -> Result<()> {
        let features: Vec<Value> = features
            .iter()
            .map(|(name, value)| json!({"name": name, "value": value}))
            .collect();
        let media = json!({"features": features});
        self.call("Emulation.setEmulatedMedia", &media).map(drop)
    }

    /// The value of an expression, in the page. A promise is waited for.
    pub(super) fn evaluate(&mut self, expression: &str) -> Result<Value> {
        let params = json!({"expression": expression, "awaitPromise": true, "returnByValue": true});
        let mut answer = self.call("Runtime.evaluate", &params)?;
        match answer.get("exceptionDetails") {
            Some(thrown) => {
                let what = thrown["exception"]["description"].as_str();
                bail!("{expression}: {}", what.unwrap_or("threw something"))
            }
            None => Ok(answer["result"]["value"].take()),
        }
    }

    /// The same, as what it must be.
    pub(super) fn ask<T: DeserializeOwned>(&mut self, expression: &str) -> Result<T> {
        let value = self.evaluate(expression)?;
        let shown = value.to_string();
        serde_json::from_value(value).with_context(|| format!("{expression} is {shown:.200}"))
    }

    /// Waits until a condition holds in the page. It may be a promise.
    pub(super) fn wait_for(&mut self, what: &str, condition: &str) -> Result<()> {
        let deadline = Instant::now() + PATIENCE;
        loop {
            // A page that is being loaded has nothing to ask yet.
            let asked = format!("(async () => Boolean(await ({condition})))()");
            let last = match self.evaluate(&asked) {
                Ok(Value::Bool(true)) => return Ok(()),
                Ok(_) => String::new(),
                Err(error) => format!(" ({error:#})"),
            };
            if Instant::now() > deadline {
                let state: Value = self
                    .evaluate("document.documentElement?.dataset.state")
                    .unwrap_or_default();
                bail!("waited {PATIENCE:?} for {what}; the page's state is {state}{last}");
            }
            thread::sleep(LOOK);
        }
    }

    pub(super) fn wait_for_state(&mut self, state: &str) -> Result<()> {
        let condition = format!("inPage.state() === '{state}'");
        self.wait_for(&format!("the state '{state}'"), &condition)
    }

    /// Clicks into the middle of an element, whatever is there.
    pub(super) fn click(&mut self, id: &str) -> Result<()> {
        let (x, y): (f64, f64) = self.ask(&format!("inPage.middle('{id}')"))?;
        for kind in ["mousePressed", "mouseReleased"] {
            let event = json!({"type": kind, "x": x, "y": y, "button": "left", "clickCount": 1});
            self.call("Input.dispatchMouseEvent", &event)?;
        }
        Ok(())
    }

    pub(super) fn press(&mut self, key: Key, held: Held) -> Result<()> {
        // A held key makes a command of it, which types nothing.
        let text = if matches!(held, Held::Nothing) {
            key.text
        } else {
            ""
        };
        for kind in ["keyDown", "keyUp"] {
            let event = json!({
                "type": kind, "key": key.key, "code": key.code, "windowsVirtualKeyCode": key.number,
                "text": text, "modifiers": held as u8
            });
            self.call("Input.dispatchKeyEvent", &event)?;
        }
        Ok(())
    }

    /// What the window shows, as a PNG.
    pub(super) fn picture(&mut self, project: &Project) -> Result<Vec<u8>> {
        self.evaluate("inPage.settled()")?;
        let answer = self.call("Page.captureScreenshot", &json!({"format": "png"}))?;
        let base64 = answer["data"].as_str().context("a picture without data")?;
        let decoded = cmd!(project.sh, "base64 --decode")
            .stdin(base64)
            .quiet()
            .output()?;
        Ok(decoded.stdout)
    }
}
