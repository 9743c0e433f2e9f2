//! [`Inference`]: the caller's thread, from frames to classes.

use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use vitlet::{Class, Session};

use super::shared::{Ready, Shared, lock};
use super::stages::with_pixels;
use super::{
    Classified, Meters, Observer, PipelineOptions, Preprocessing, Reason, Stop, Summary, Times,
};
use crate::latest::Taken;
use crate::smoothing::Smoothing;
use crate::{CameraError, CameraFrame};

/// How long a frame is waited for before it is looked whether to stop.
const IDLE: Duration = Duration::from_millis(50);

/// The caller's thread.
pub(super) struct Inference<'a, 'm> {
    session: &'a mut Session<'m>,
    shared: &'a Shared,
    smoothing: Smoothing,
    options: PipelineOptions,
    preprocessing: Preprocessing,
    live: bool,
    last_start: Option<Instant>,
    first_start: Option<Instant>,
    frames: u64,
    late: u64,
    meters: Meters,
}

/// What came of waiting for a frame.
enum Next {
    Inferred(Inferred),
    /// Nothing so far, or nothing of use.
    Nothing,
    /// Nothing, and nothing will come.
    End,
}

/// A frame whose logits the session has.
struct Inferred {
    frame: CameraFrame,
    /// The number of its take out of the slot.
    take: u64,
    preprocess: Duration,
    /// Of the network.
    start: Instant,
    end: Instant,
}

impl<'a, 'm> Inference<'a, 'm> {
    pub(super) fn new(
        session: &'a mut Session<'m>,
        shared: &'a Shared,
        options: &PipelineOptions,
        preprocessing: Preprocessing,
        live: bool,
    ) -> Self {
        Self {
            session,
            shared,
            smoothing: Smoothing::new(options.smoothing),
            options: *options,
            preprocessing,
            live,
            last_start: None,
            first_start: None,
            frames: 0,
            late: 0,
            meters: Meters::default(),
        }
    }

    pub(super) fn run<O: Observer>(
        &mut self,
        stop: &Stop,
        observer: &mut O,
    ) -> Result<Reason, O::Error> {
        loop {
            if stop.is_requested() {
                return Ok(Reason::Stopped);
            }
            if self
                .options
                .frames
                .is_some_and(|frames| self.frames >= frames)
            {
                return Ok(Reason::Frames);
            }
            self.shared.tell(observer)?;
            let next = match self.preprocessing {
                Preprocessing::Beside => self.infer_image(),
                Preprocessing::Between => self.infer_frame(),
            };
            match next.map_err(CameraError::from)? {
                Next::Inferred(inferred) => {
                    let classified = self.classified(&inferred);
                    if let Some(frame) = observer.frame(&classified, inferred.frame)? {
                        self.shared.recycle(frame);
                    }
                }
                Next::Nothing => {}
                Next::End => {
                    self.shared.tell(observer)?;
                    return Ok(Reason::End);
                }
            }
        }
    }

    /// Runs the network on the next image that the other thread has made.
    fn infer_image(&mut self) -> Result<Next, vitlet::Error> {
        let (ready, start) = match self.shared.images.take_within(IDLE) {
            Taken::Value(ready, _, start) => (ready, start),
            Taken::Nothing => return Ok(Next::Nothing),
            Taken::Closed => return Ok(Next::End),
        };
        let Ready {
            frame,
            take,
            image,
            preprocess,
        } = ready;
        self.session.run(&image)?;
        let end = Instant::now();
        lock(&self.shared.spare_images).push(image);
        Ok(Next::Inferred(Inferred {
            frame,
            take,
            preprocess,
            start,
            end,
        }))
    }

    /// Makes the image of the latest frame, too, and runs the network on it.
    fn infer_frame(&mut self) -> Result<Next, vitlet::Error> {
        let (frame, take, begin) = match self.shared.frames.take_within(IDLE) {
            Taken::Value(frame, take, begin) => (frame, take, begin),
            Taken::Nothing => return Ok(Next::Nothing),
            Taken::Closed => return Ok(Next::End),
        };
        let classified = with_pixels(&frame, |pixels| self.session.classify_frame(pixels, 0));
        let why = match classified {
            Ok(Ok(classification)) => {
                let end = Instant::now();
                let start = end
                    .checked_sub(classification.inference)
                    .map_or(begin, |start| start.max(begin));
                return Ok(Next::Inferred(Inferred {
                    frame,
                    take,
                    preprocess: start - begin,
                    start,
                    end,
                }));
            }
            Ok(Err(vitlet::Error::Preprocess(error))) => error.to_string(),
            Ok(Err(error)) => return Err(error),
            Err(why) => why,
        };
        self.shared.damaged(why);
        self.shared.recycle(frame);
        Ok(Next::Nothing)
    }

    fn classified(&mut self, inferred: &Inferred) -> Classified<'m> {
        let Inferred {
            frame, start, end, ..
        } = inferred;
        let last_start = self.last_start.replace(*start);
        let next = self.shared.frames.came_after(inferred.take);
        let late =
            self.live && last_start.is_some_and(|last| is_late(frame, *start, *start - last, next));
        self.first_start.get_or_insert(*start);
        self.frames += 1;
        self.late += u64::from(late);
        let classified = Classified {
            number: frame.number,
            top: self.top(),
            output_hash: self.session.output_hash(),
            age: start.saturating_duration_since(frame.dequeued),
            late,
            dropped: self.shared.dropped.load(Ordering::Relaxed),
            times: Times {
                capture: frame.capture,
                preprocess: inferred.preprocess,
                inference: *end - *start,
                end_to_end: end.saturating_duration_since(frame.dequeued),
            },
        };
        self.meters.add(&classified);
        classified
    }

    /// The classes to report.
    fn top(&mut self) -> Vec<Class<'m>> {
        let mut classes = self.session.top(usize::MAX);
        self.smoothing.smooth(&mut classes);
        classes.truncate(self.options.k);
        classes.retain(|class| class.score >= self.options.threshold);
        classes
    }

    /// What has been done.
    pub(super) fn summary(self, reason: Reason) -> Summary {
        let elapsed = self.first_start.zip(self.last_start);
        Summary {
            reason,
            frames: self.frames,
            captured: self.shared.captured.load(Ordering::Relaxed),
            dropped: self.shared.dropped.load(Ordering::Relaxed),
            damaged: self.shared.damaged.load(Ordering::Relaxed),
            late: self.late,
            elapsed: elapsed.map_or(Duration::ZERO, |(first, last)| last - first),
            meters: self.meters,
        }
    }
}

/// Whether a frame is older than an inference period and one frame interval: the time from its dequeueing to the coming of the next.
fn is_late(frame: &CameraFrame, start: Instant, period: Duration, next: Option<Instant>) -> bool {
    let Some(next) = next else {
        // There is no later one yet: the interval is longer than the age.
        return false;
    };
    let interval = next.saturating_duration_since(frame.dequeued);
    start.saturating_duration_since(frame.dequeued) > period + interval
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_queue_would_make_frames_late() {
        let ms = Duration::from_millis;
        let start = Instant::now() + ms(1000);
        let frame = |age| CameraFrame {
            dequeued: start - ms(age),
            ..CameraFrame::default()
        };
        // A camera of 30 ms before a network of 100: 130 ms are allowed.
        let late = |age| is_late(&frame(age), start, ms(100), Some(start - ms(age) + ms(30)));
        assert!(!late(5) && !late(130));
        assert!(late(131) && late(230));
        // Without a later frame, this one is as fresh as can be.
        assert!(!is_late(&frame(900), start, ms(100), None));
    }
}
