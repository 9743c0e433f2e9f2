//! A file or folder played at a camera's rate.

use std::thread;
use std::time::{Duration, Instant};

use super::{Description, Source, Step};
use crate::{CameraError, CameraFrame};

/// When frames are due that come at a steady rate.
#[derive(Debug)]
pub(super) struct Pace {
    interval: Duration,
    due: Option<Instant>,
}

impl Pace {
    pub(super) fn new(per_s: f64) -> Self {
        // From a frame in ten seconds to one in ten microseconds.
        let seconds = 1.0 / per_s.clamp(0.1, 1e5);
        Self {
            interval: Duration::from_secs_f64(seconds),
            due: None,
        }
    }

    /// Waits until the next frame is due. One that is late does not make the following ones early.
    pub(super) fn wait(&mut self) {
        let now = Instant::now();
        let due = self.due.unwrap_or(now);
        if let Some(time) = due.checked_duration_since(now) {
            thread::sleep(time);
        }
        self.due = Some((due + self.interval).max(now));
    }
}

/// A source whose frames come at a steady rate.
pub(super) struct Paced {
    source: Box<dyn Source>,
    per_s: f64,
    pace: Pace,
}

impl Paced {
    pub(super) fn new(source: Box<dyn Source>, per_s: f64) -> Self {
        Self {
            source,
            per_s,
            pace: Pace::new(per_s),
        }
    }
}

impl Source for Paced {
    fn description(&self) -> Description {
        Description {
            per_s: Some(self.per_s),
            live: true,
            ..self.source.description()
        }
    }

    fn next(&mut self, frame: &mut CameraFrame) -> Result<Step, CameraError> {
        let step = self.source.next(frame)?;
        if matches!(step, Step::Frame) {
            self.pace.wait();
            // A camera's frame is there when it is due, and not when the file was read.
            frame.dequeued = Instant::now();
        }
        Ok(step)
    }
}
