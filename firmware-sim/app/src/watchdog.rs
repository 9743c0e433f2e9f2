//! Notices a stage that takes too long. Stages say when they begin and end; the timer's interrupt asks.
//!
//! Atomics only, so that the interrupt can look at any moment.

use core::sync::atomic::{AtomicU64, Ordering};

/// What is watched.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Stage {
    /// Waiting for the camera's next frame.
    Camera,
    /// A frame becomes the model's image.
    Preprocess,
    /// The model.
    Inference,
}

impl Stage {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Camera, Self::Preprocess, Self::Inference];

    /// For logs.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Camera => "camera",
            Self::Preprocess => "preprocess",
            Self::Inference => "inference",
        }
    }
}

/// A stage is late.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Stall {
    /// Which.
    pub stage: Stage,
    /// Microseconds since it began.
    pub for_us: u64,
}

/// Not begun, or for ever: 0, so that a static takes no room in an image.
const NONE: u64 = 0;

/// Every stage's start and how long it may take, in microseconds.
#[derive(Debug)]
pub struct Watchdog {
    /// Plus 1.
    started: [AtomicU64; 3],
    limits: [AtomicU64; 3],
}

impl Watchdog {
    /// No stage has begun; each may take for ever.
    pub const fn new() -> Self {
        Self {
            started: [const { AtomicU64::new(NONE) }; 3],
            limits: [const { AtomicU64::new(NONE) }; 3],
        }
    }

    /// How long a stage may take; 0: for ever.
    pub fn set_limit(&self, stage: Stage, limit_us: u64) {
        self.limit(stage).store(limit_us, Ordering::Relaxed);
    }

    /// A stage begins, at microsecond `now_us`.
    pub fn enter(&self, stage: Stage, now_us: u64) {
        let started = now_us.saturating_add(1);
        self.start(stage).store(started, Ordering::Relaxed);
    }

    /// A stage is done.
    pub fn leave(&self, stage: Stage) {
        self.start(stage).store(NONE, Ordering::Relaxed);
    }

    /// The first stage that has taken longer than it may. It is reported once: its clock starts again.
    pub fn check(&self, now_us: u64) -> Option<Stall> {
        Stage::ALL.into_iter().find_map(|stage| {
            let started = self.start(stage).load(Ordering::Relaxed).checked_sub(1)?;
            let for_us = now_us.saturating_sub(started);
            let limit = self.limit(stage).load(Ordering::Relaxed);
            if limit == NONE || for_us <= limit {
                return None;
            }
            self.enter(stage, now_us);
            Some(Stall { stage, for_us })
        })
    }

    fn start(&self, stage: Stage) -> &AtomicU64 {
        &self.started[stage as usize]
    }

    fn limit(&self, stage: Stage) -> &AtomicU64 {
        &self.limits[stage as usize]
    }
}

impl Default for Watchdog {
    fn default() -> Self {
        Self::new()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stage_that_takes_too_long_is_reported_once_in_each_period() {
        let watchdog = Watchdog::new();
        watchdog.set_limit(Stage::Inference, 100);
        assert_eq!(watchdog.check(1_000_000), None);
        watchdog.enter(Stage::Inference, 1000);
        assert_eq!(watchdog.check(1100), None);
        let stall = Stall {
            stage: Stage::Inference,
            for_us: 101,
        };
        assert_eq!(watchdog.check(1101), Some(stall));
        assert_eq!(watchdog.check(1102), None);
        assert_eq!(watchdog.check(1202), Some(stall));
        watchdog.leave(Stage::Inference);
        assert_eq!(watchdog.check(u64::MAX - 1), None);
    }

    #[test]
    fn a_stage_without_a_limit_may_take_for_ever() {
        let watchdog = Watchdog::default();
        watchdog.enter(Stage::Camera, 0);
        assert_eq!(watchdog.check(u64::MAX - 1), None);
    }
}
