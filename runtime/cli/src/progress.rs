//! A progress bar for long work: on standard error, and only if that is a terminal.

use indicatif::{ProgressBar, ProgressStyle};

use crate::failure;

/// A bar that disappears when it is dropped. Several threads may move it.
pub(crate) struct Progress(ProgressBar);

impl Progress {
    /// A bar for `len` steps of `what`.
    pub(crate) fn new(len: usize, what: &'static str) -> Self {
        let bar = ProgressBar::new(len as u64).with_message(what);
        if let Ok(style) = ProgressStyle::with_template("{msg} {wide_bar} {pos}/{len} {eta:>4}") {
            bar.set_style(style);
        }
        Self(bar)
    }

    /// A bar of whose steps some were taken long ago: they do not count when the time that is left is guessed.
    pub(crate) fn resumed(done: usize, len: usize, what: &'static str) -> Self {
        let progress = Self::new(len, what);
        progress.0.set_position(done as u64);
        progress.0.reset_eta();
        progress
    }

    pub(crate) fn step(&self) {
        self.0.inc(1);
    }

    /// A warning above the bar.
    #[cfg(feature = "compiler")]
    pub(crate) fn warn(&self, message: impl std::fmt::Display) {
        self.0.suspend(|| failure::warn(message));
    }

    /// An error above the bar, about one of many inputs.
    pub(crate) fn report(&self, error: &anyhow::Error) {
        self.0.suspend(|| failure::report(error));
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        self.0.finish_and_clear();
    }
}
