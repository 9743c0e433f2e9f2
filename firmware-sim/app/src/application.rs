//! The loop: wait for a frame, make it the model's image, run the model, smooth, report.

use core::fmt;

use vitlet_preprocess::PreprocessError;

use crate::{Captured, Classifier, ClassifierError, FrameSetError, Smoothed, Smoothing, Stage};

/// What the loop needs of a board.
pub trait Board<'f> {
    /// Microseconds since the camera's start.
    fn now_us(&mut self) -> u64;
    /// Instructions so far, of a counter that wraps.
    fn instructions(&mut self) -> u32;
    /// The frame that has waited longest, if one waits.
    fn take_frame(&mut self) -> Option<Captured<'f>>;
    /// Whether no frame will ever come again: a simulation's end.
    fn is_over(&mut self) -> bool;
    /// Sleeps until an interrupt.
    fn sleep(&mut self);
    /// A stage begins, for the watchdog.
    fn enter(&mut self, stage: Stage);
    /// A stage is done.
    fn leave(&mut self, stage: Stage);
    /// Something happened.
    fn report(&mut self, event: &Event);
}

/// What happened to a frame.
#[derive(Clone, Copy, PartialEq, Debug)]
pub enum Event {
    /// It was classified.
    Classified {
        /// Its number.
        frame: u32,
        /// The SHA-256 of its logits.
        output_hash: [u8; 32],
        /// Classes and confidences.
        smoothed: Smoothed,
        /// Instructions of the inference.
        instructions: u32,
        /// Microseconds of preprocessing, of inference, and from delivery to this report.
        us: [u64; 3],
    },
    /// It was not what it said.
    BadFrame {
        /// Its number.
        frame: u32,
        /// What was wrong.
        why: BadFrame,
    },
    /// The model failed, or has too many classes.
    Failed {
        /// The frame's number.
        frame: u32,
        /// What was wrong; `None` if the model has too many classes to smooth.
        why: Option<ClassifierError>,
    },
}

/// What can be wrong with a frame.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum BadFrame {
    /// It does not hold together.
    Frame(FrameSetError),
    /// It cannot be resized in the memory there is.
    Preprocess(PreprocessError),
}

impl fmt::Display for BadFrame {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Frame(why) => why.fmt(f),
            Self::Preprocess(why) => why.fmt(f),
        }
    }
}

/// Counts of a run.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Summary {
    /// Frames with a result.
    pub classified: u32,
    /// Frames that were not what they said.
    pub bad: u32,
    /// Frames for which the model failed.
    pub failed: u32,
}

/// A classifier and what is kept from frame to frame.
#[derive(Debug)]
pub struct Application<'a, 'p, 'm> {
    classifier: Classifier<'p, 'm>,
    smoothing: &'a mut Smoothing,
}

impl<'a, 'p, 'm> Application<'a, 'p, 'm> {
    /// Before the first frame.
    pub fn new(classifier: Classifier<'p, 'm>, smoothing: &'a mut Smoothing) -> Self {
        Self {
            classifier,
            smoothing,
        }
    }

    /// Classifies frames until none will come again.
    pub fn run<'f>(&mut self, board: &mut impl Board<'f>) -> Summary {
        let mut summary = Summary::default();
        loop {
            let Some(captured) = board.take_frame() else {
                if board.is_over() {
                    return summary;
                }
                board.sleep();
                continue;
            };
            let event = self.classify(board, &captured);
            match event {
                Event::Classified { .. } => summary.classified += 1,
                Event::BadFrame { .. } => summary.bad += 1,
                Event::Failed { .. } => summary.failed += 1,
            }
            board.report(&event);
        }
    }

    fn classify<'f>(&mut self, board: &mut impl Board<'f>, captured: &Captured<'f>) -> Event {
        let frame = captured.index;
        let start = board.now_us();
        board.enter(Stage::Preprocess);
        let done = captured
            .frame()
            .map_err(BadFrame::Frame)
            .and_then(|pixels| {
                self.classifier
                    .preprocess(&pixels)
                    .map_err(BadFrame::Preprocess)
            });
        board.leave(Stage::Preprocess);
        if let Err(why) = done {
            return Event::BadFrame { frame, why };
        }
        let ready = board.now_us();
        board.enter(Stage::Inference);
        let before = board.instructions();
        let outcome = self.classifier.infer();
        let instructions = board.instructions().wrapping_sub(before);
        board.leave(Stage::Inference);
        let end = board.now_us();
        let outcome = match outcome {
            Ok(outcome) => outcome,
            Err(why) => {
                let why = Some(why);
                return Event::Failed { frame, why };
            }
        };
        match self.smoothing.add(outcome.logits, outcome.scale) {
            Some(smoothed) => Event::Classified {
                frame,
                output_hash: outcome.hash(),
                smoothed,
                instructions,
                us: [
                    ready.saturating_sub(start),
                    end.saturating_sub(ready),
                    end.saturating_sub(captured.at_us),
                ],
            },
            None => Event::Failed { frame, why: None },
        }
    }
}

#[cfg(test)]
mod tests {
    use std::vec;
    use std::vec::Vec;

    use vitlet_kernels::Kernel;
    use vitlet_plan::{AlignedBytes, Plan, testing};
    use vitlet_preprocess::PixelFormat;

    use super::*;
    use crate::{Buffers, FrameQueue, FrameSet, Shot, write_frame_set};

    /// A board whose inferences take 100 ms and whose frames come by its film.
    struct Simulated<'f> {
        film: FrameSet<'f>,
        next: u32,
        queue: FrameQueue<Captured<'f>, 2>,
        now_us: u64,
        events: Vec<Event>,
    }

    impl Simulated<'_> {
        fn deliver(&mut self) {
            while let Some(frame) = self.film.get(self.next).filter(|f| f.at_us <= self.now_us) {
                self.queue.push(frame);
                self.next += 1;
            }
        }
    }

    impl<'f> Board<'f> for Simulated<'f> {
        fn now_us(&mut self) -> u64 {
            self.now_us
        }
        fn instructions(&mut self) -> u32 {
            // Wraps between two readings.
            u32::MAX.wrapping_add(self.now_us as u32 / 1000)
        }
        fn take_frame(&mut self) -> Option<Captured<'f>> {
            self.deliver();
            self.queue.pop()
        }
        fn is_over(&mut self) -> bool {
            self.next == self.film.count() && self.queue.is_empty()
        }
        fn sleep(&mut self) {
            self.now_us += 1000;
        }
        fn enter(&mut self, _: Stage) {}
        fn leave(&mut self, stage: Stage) {
            if stage == Stage::Inference {
                self.now_us += 100_000;
            }
            self.deliver();
        }
        fn report(&mut self, event: &Event) {
            self.events.push(*event);
        }
    }

    fn shot(at_us: u32, bytes: usize) -> Shot {
        Shot {
            at_us,
            format: PixelFormat::Grey8,
            width: 16,
            height: 16,
            data: vec![at_us as u8; bytes],
        }
    }

    fn run(shots: &[Shot]) -> (Summary, u32, Vec<Event>) {
        let film = write_frame_set(33_000, shots);
        let bytes = testing::tiny_plan(5);
        let plan = Plan::parse(&bytes).expect("a plan");
        let mut arena = AlignedBytes::zeroed(plan.arena_len(1));
        let (mut image, mut scratch) = (vec![0; 768], vec![0; 50_000]);
        let buffers = Buffers {
            arena: &mut arena,
            image: &mut image,
            scratch: &mut scratch,
        };
        let classifier = Classifier::new(&plan, Kernel::SCALAR, buffers).expect("large enough");
        let mut smoothing = Smoothing::new();
        let mut board = Simulated {
            film: FrameSet::parse(&film).expect("frames"),
            next: 0,
            queue: FrameQueue::new(),
            now_us: 0,
            events: Vec::new(),
        };
        let summary = Application::new(classifier, &mut smoothing).run(&mut board);
        (summary, board.queue.dropped(), board.events)
    }

    #[test]
    fn every_frame_of_a_slow_camera_is_classified() {
        let shots: Vec<Shot> = (0..5).map(|n| shot(200_000 * n, 256)).collect();
        let (summary, dropped, events) = run(&shots);
        assert_eq!((summary.classified, dropped, events.len()), (5, 0, 5));
        let Event::Classified { us, .. } = events[4] else {
            panic!("{:?}", events[4]);
        };
        assert_eq!(us, [0, 100_000, 100_000]);
    }

    #[test]
    fn of_a_burst_the_newest_frames_are_classified() {
        let shots: Vec<Shot> = (0..20).map(|n| shot(10_000 * n, 256)).collect();
        let (summary, dropped, events) = run(&shots);
        assert_eq!(summary.classified + dropped, 20);
        assert!(dropped >= 14, "{dropped} dropped");
        let last = events.last().expect("a frame");
        assert!(
            matches!(last, Event::Classified { frame: 19, .. }),
            "{last:?}"
        );
    }

    #[test]
    fn a_frame_of_wrong_size_is_reported_and_the_next_one_classified() {
        let (summary, _, events) = run(&[shot(0, 255), shot(1000, 256)]);
        let expected = Summary {
            classified: 1,
            bad: 1,
            failed: 0,
        };
        assert_eq!(summary, expected);
        assert!(matches!(events[0], Event::BadFrame { frame: 0, .. }));
        assert!(matches!(events[1], Event::Classified { frame: 1, .. }));
    }
}
