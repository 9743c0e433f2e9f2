//! A command that is run when the label changes.

use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use vitlet_camera::Top;

use crate::failure;

/// How long the program's end waits for the command.
const PATIENCE: Duration = Duration::from_secs(2);

/// Runs a shell command at each change of the best class, one at a time: what changes while it runs is told when it has ended, and
/// then only the newest.
pub(super) struct OnChange {
    command: String,
    child: Option<Child>,
    /// The class that the command was told last; `None` before the first frame.
    told: Option<Option<usize>>,
}

impl OnChange {
    pub(super) fn new(command: &str) -> Self {
        Self {
            command: command.to_owned(),
            child: None,
            told: None,
        }
    }

    /// A frame's best class; `None` if no score reaches the threshold.
    pub(super) fn best(&mut self, best: Option<&Top<&str>>) {
        let class = best.map(|top| top.class);
        if self.told == Some(class) || self.is_running() {
            return;
        }
        // At the start, nothing to see is no change.
        if self.told.is_none() && class.is_none() {
            return;
        }
        self.told = Some(class);
        match self.spawn(best) {
            Ok(child) => self.child = Some(child),
            Err(error) => failure::warn(format_args!("--on-change: sh: {error}")),
        }
    }

    fn spawn(&self, best: Option<&Top<&str>>) -> std::io::Result<Child> {
        let class = best.map_or_else(String::new, |top| top.class.to_string());
        let label = best.and_then(|top| top.label).unwrap_or("");
        let score = best.map_or(0.0, |top| top.score);
        Command::new("sh")
            .arg("-c")
            .arg(&self.command)
            .env("VITLET_LABEL", label)
            .env("VITLET_CLASS", class)
            .env("VITLET_SCORE", format!("{score:.4}"))
            .stdin(Stdio::null())
            // Standard output is for our own lines.
            .stdout(Stdio::from(std::io::stderr()))
            .spawn()
    }

    fn is_running(&mut self) -> bool {
        let Some(child) = &mut self.child else {
            return false;
        };
        match child.try_wait() {
            Ok(None) => true,
            Ok(Some(status)) => {
                if !status.success() {
                    failure::warn(format_args!("--on-change: the command ended with {status}"));
                }
                self.child = None;
                false
            }
            Err(_) => {
                self.child = None;
                false
            }
        }
    }
}

impl Drop for OnChange {
    /// A command that was told of the last change may finish with it. One that takes long is left to itself.
    fn drop(&mut self) {
        let start = Instant::now();
        while self.is_running() && start.elapsed() < PATIENCE {
            thread::sleep(Duration::from_millis(5));
        }
    }
}
