//! The last things that went wrong, in a ring of fixed size: what a technician reads out.

use heapless::Deque;

/// How many are kept.
const KEPT: usize = 16;

/// What went wrong.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum FaultKind {
    /// A slot's plan was rejected; detail: 0 = A, 1 = B.
    PlanRejected,
    /// A frame was not what it said; detail: its number.
    BadFrame,
    /// A frame gave way to newer ones; detail: its number.
    FrameDropped,
    /// The camera did not deliver; detail: milliseconds.
    CameraStalled,
    /// A stage took too long; detail: milliseconds.
    StageStalled,
    /// An inference failed; detail: the frame's number.
    Inference,
}

impl FaultKind {
    /// For logs.
    pub const fn name(self) -> &'static str {
        match self {
            Self::PlanRejected => "plan rejected",
            Self::BadFrame => "bad frame",
            Self::FrameDropped => "frame dropped",
            Self::CameraStalled => "camera stalled",
            Self::StageStalled => "stage stalled",
            Self::Inference => "inference failed",
        }
    }
}

/// One of them.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Fault {
    /// Milliseconds since boot.
    pub at_ms: u32,
    /// What.
    pub kind: FaultKind,
    /// More about it; see [`FaultKind`].
    pub detail: u32,
    /// How often it came one after the other; time and detail are those of the first.
    pub times: u32,
}

/// The last 16 faults, and how many there were. Those of one kind that follow each other are one, so that a burst does not push out what
/// came before it.
#[derive(Debug)]
pub struct FaultLog {
    ring: Deque<Fault, KEPT>,
    total: u32,
}

impl FaultLog {
    /// None yet.
    pub const fn new() -> Self {
        Self {
            ring: Deque::new(),
            total: 0,
        }
    }

    /// One more.
    pub fn add(&mut self, at_ms: u32, kind: FaultKind, detail: u32) {
        self.total = self.total.saturating_add(1);
        if let Some(last) = self.ring.back_mut().filter(|last| last.kind == kind) {
            last.times = last.times.saturating_add(1);
            return;
        }
        if self.ring.is_full() {
            self.ring.pop_front();
        }
        let pushed = self.ring.push_back(Fault {
            at_ms,
            kind,
            detail,
            times: 1,
        });
        debug_assert!(pushed.is_ok(), "there is room now");
    }

    /// Those that are kept, the oldest first.
    pub fn kept(&self) -> impl Iterator<Item = &Fault> {
        self.ring.iter()
    }

    /// All there were since boot.
    pub fn total(&self) -> u32 {
        self.total
    }
}

impl Default for FaultLog {
    fn default() -> Self {
        Self::new()
    }
}

#[cfg(test)]
mod tests {
    use std::vec::Vec;

    use super::*;

    #[test]
    fn the_last_faults_are_kept() {
        let mut log = FaultLog::new();
        for detail in 0..20 {
            let kinds = [FaultKind::BadFrame, FaultKind::Inference];
            log.add(detail, kinds[detail as usize % 2], detail);
        }
        let kept: Vec<u32> = log.kept().map(|fault| fault.detail).collect();
        assert_eq!(kept, (4..20).collect::<Vec<_>>());
        assert_eq!(log.total(), 20);
    }

    #[test]
    fn a_burst_is_one_entry() {
        let mut log = FaultLog::new();
        log.add(1, FaultKind::BadFrame, 7);
        for frame in 0..100 {
            log.add(2 + frame, FaultKind::FrameDropped, frame);
        }
        let kept: Vec<_> = log
            .kept()
            .map(|f| (f.at_ms, f.kind, f.detail, f.times))
            .collect();
        assert_eq!(
            kept,
            [
                (1, FaultKind::BadFrame, 7, 1),
                (2, FaultKind::FrameDropped, 0, 100)
            ]
        );
        assert_eq!(log.total(), 101);
    }
}
