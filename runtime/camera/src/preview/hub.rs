//! What there is to see. The pipeline writes, the server reads, and neither waits for the other.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use hyper::body::Bytes;
use serde::Serialize;
use tokio::sync::watch;

use super::flow;
use crate::latest::Slot;
use crate::pipeline::per_s;
use crate::record::milliseconds;
use crate::{CameraFrame, Classified, Meters, Milliseconds, Notice, Readings, Top};

/// What does not change while a preview is served.
#[derive(Clone, Debug, Serialize)]
pub struct Hello {
    /// The plan.
    pub model: String,
    /// The kernel it runs with.
    pub kernel: String,
    /// Threads of an inference.
    pub threads: usize,
    /// Classes of the plan.
    pub classes: usize,
    /// Height and width of the model's image, in pixels.
    pub input: (u32, u32),
    /// Where the frames come from.
    pub source: String,
    /// What they are: `YUYV 640x480`.
    pub format: String,
    /// vitlet's version.
    pub version: String,
}

/// What is shown of a frame.
#[derive(Clone, Debug, Serialize)]
pub(super) struct Shown {
    frame: u64,
    state: State,
    top: Vec<Top<String>>,
    age_ms: f64,
    ms: Milliseconds,
    camera_per_s: f64,
    classified_per_s: f64,
    dropped: u64,
    #[serde(flatten)]
    readings: Readings,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
enum State {
    Live,
    Waiting,
}

/// How often the sensors are read.
const READINGS: Duration = Duration::from_secs(1);

/// From one picture to the next at least: of a camera of 30 frames/s every one is shown, of one of 60 every other. A picture of 640×480
/// takes milliseconds of a CPU that inference may need, and eyes do not see more of them.
const PICTURES: Duration = Duration::from_millis(25);

/// Where the pipeline and the server meet.
#[derive(Debug)]
pub(super) struct Hub {
    pub(super) hello: Hello,
    /// The newest result.
    shown: watch::Sender<Option<Arc<Shown>>>,
    /// The newest picture: the bytes of a JPEG, and as a part of a stream.
    pictures: watch::Sender<Option<Picture>>,
    /// Why there will be nothing more.
    ended: watch::Sender<Option<Arc<str>>>,
    /// A viewer has asked for a picture since the last.
    wanted: AtomicBool,
    /// For the thread that makes pictures.
    frames: Slot<CameraFrame>,
    spare: Mutex<Vec<CameraFrame>>,
    counts: Mutex<Counts>,
}

/// A picture in the two forms it is sent in.
#[derive(Clone, Debug)]
pub(super) struct Picture {
    pub(super) jpeg: Bytes,
    pub(super) part: Bytes,
}

/// Everything that is counted.
#[derive(Debug)]
pub(super) struct Counts {
    pub(super) meters: Meters,
    pub(super) classified: u64,
    pub(super) late: u64,
    pub(super) dropped: u64,
    pub(super) damaged: u64,
    /// Frames of the source so far: the last number and one.
    pub(super) captured: u64,
    pub(super) connected: bool,
    pub(super) readings: Readings,
    read: Option<Instant>,
    /// When a frame was last given to the picture maker.
    pictured: Option<Instant>,
    rates: Rates,
}

impl Hub {
    pub(super) fn new(hello: Hello) -> Self {
        Self {
            hello,
            shown: watch::Sender::new(None),
            pictures: watch::Sender::new(None),
            ended: watch::Sender::new(None),
            wanted: AtomicBool::new(false),
            frames: Slot::new(),
            spare: Mutex::default(),
            counts: Mutex::new(Counts {
                meters: Meters::default(),
                classified: 0,
                late: 0,
                dropped: 0,
                damaged: 0,
                captured: 0,
                connected: true,
                readings: Readings::default(),
                read: None,
                pictured: None,
                rates: Rates::default(),
            }),
        }
    }

    /// The pipeline's: a frame was classified.
    pub(super) fn frame(
        &self,
        classified: &Classified<'_>,
        frame: CameraFrame,
    ) -> Option<CameraFrame> {
        let now = Instant::now();
        let shown = self.counts().add(classified, now);
        self.shown.send_replace(Some(Arc::new(shown)));
        if self.is_picture_due(now) {
            return self.frames.replace(frame).or_else(|| self.spare_frame());
        }
        Some(frame)
    }

    /// Whether a viewer waits for a picture, and the last one was made long enough ago. If so, that was the last one.
    fn is_picture_due(&self, now: Instant) -> bool {
        let pictured = &mut self.counts().pictured;
        let rests = pictured.is_some_and(|last| now.saturating_duration_since(last) < PICTURES);
        let due = !rests && self.wanted.swap(false, Ordering::Relaxed);
        if due {
            *pictured = Some(now);
        }
        due
    }

    /// The pipeline's: something happened beside frames.
    pub(super) fn notice(&self, notice: &Notice) {
        let state = match notice {
            Notice::Lost(_) => State::Waiting,
            Notice::Found => State::Live,
            Notice::Damaged(..) => {
                self.counts().damaged += 1;
                return;
            }
        };
        self.counts().connected = state == State::Live;
        self.shown.send_modify(|shown| {
            if let Some(shown) = shown {
                *shown = Arc::new(Shown {
                    state,
                    ..Shown::clone(shown)
                });
            }
        });
    }

    /// The pipeline's: the end. Only the first reason counts.
    pub(super) fn end(&self, reason: &str) {
        self.ended.send_if_modified(|ended| {
            let first = ended.is_none();
            if first {
                *ended = Some(reason.into());
            }
            first
        });
        self.frames.close();
    }

    /// The picture maker's: the next frame that a viewer wants to see; `None` at the end.
    pub(super) fn take_frame(&self) -> Option<CameraFrame> {
        self.frames.take().map(|(frame, _)| frame)
    }

    /// The picture maker's: the frame's memory can be used again.
    pub(super) fn recycle(&self, frame: CameraFrame) {
        let mut spare = lock(&self.spare);
        if spare.is_empty() {
            spare.push(frame);
        }
    }

    /// The picture maker's: a picture is ready.
    pub(super) fn show(&self, jpeg: Vec<u8>) {
        let part = flow::part(&jpeg);
        let jpeg = Bytes::from(jpeg);
        self.pictures.send_replace(Some(Picture { jpeg, part }));
    }

    /// A viewer's: the next picture, whenever there is one.
    pub(super) async fn next_picture(
        &self,
        pictures: &mut watch::Receiver<Option<Picture>>,
    ) -> Option<Picture> {
        loop {
            self.wanted.store(true, Ordering::Relaxed);
            pictures.changed().await.ok()?;
            if let Some(picture) = pictures.borrow_and_update().clone() {
                return Some(picture);
            }
        }
    }

    pub(super) fn pictures(&self) -> watch::Receiver<Option<Picture>> {
        let mut pictures = self.pictures.subscribe();
        // One made for another viewer may be old.
        pictures.mark_unchanged();
        pictures
    }

    pub(super) fn results(&self) -> watch::Receiver<Option<Arc<Shown>>> {
        let mut results = self.shown.subscribe();
        // The newest is sent at once.
        results.mark_changed();
        results
    }

    pub(super) fn result(&self) -> Option<Arc<Shown>> {
        self.shown.borrow().clone()
    }

    pub(super) fn ended(&self) -> watch::Receiver<Option<Arc<str>>> {
        self.ended.subscribe()
    }

    pub(super) fn counts(&self) -> MutexGuard<'_, Counts> {
        lock(&self.counts)
    }

    fn spare_frame(&self) -> Option<CameraFrame> {
        lock(&self.spare).pop()
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Counts {
    fn add(&mut self, classified: &Classified<'_>, now: Instant) -> Shown {
        self.meters.add(classified);
        self.classified += 1;
        self.late += u64::from(classified.late);
        self.dropped = classified.dropped;
        self.captured = classified.number + 1;
        self.connected = true;
        self.rates.add(now, classified.number);
        let fresh = self.read.is_some_and(|read| now - read < READINGS);
        if !fresh {
            self.readings = Readings::now();
            self.read = Some(now);
        }
        Shown {
            frame: classified.number,
            state: State::Live,
            top: classified
                .top
                .iter()
                .map(|class| Top::from(class).into_owned())
                .collect(),
            age_ms: milliseconds(classified.age),
            ms: Milliseconds::from(&classified.times),
            camera_per_s: self.rates.camera(),
            classified_per_s: self.rates.classified(),
            dropped: classified.dropped,
            readings: self.readings,
        }
    }
}

/// Rates over the last two seconds.
#[derive(Debug, Default)]
struct Rates(VecDeque<(Instant, u64)>);

impl Rates {
    const WINDOW: Duration = Duration::from_secs(2);
    /// Of a tiny model thousands fit into the window; so many are enough.
    const MOST: usize = 256;

    fn add(&mut self, now: Instant, number: u64) {
        self.0.push_back((now, number));
        while self.0.len() > Self::MOST
            || self
                .0
                .front()
                .is_some_and(|(time, _)| now - *time > Self::WINDOW)
        {
            self.0.pop_front();
        }
    }

    /// Time and frames of the source between the first and the last.
    fn span(&self) -> Option<(Duration, u64)> {
        let ((first, from), (last, to)) = self.0.front().zip(self.0.back())?;
        Some((*last - *first, to.saturating_sub(*from)))
    }

    fn camera(&self) -> f64 {
        self.span()
            .map_or(0.0, |(time, frames)| per_s(frames, time))
    }

    fn classified(&self) -> f64 {
        let frames = self.0.len().saturating_sub(1) as u64;
        self.span().map_or(0.0, |(time, _)| per_s(frames, time))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pictures_are_made_when_they_are_wanted_and_not_too_often() {
        let hub = Hub::new(Hello {
            model: String::new(),
            kernel: String::new(),
            threads: 1,
            classes: 1,
            input: (1, 1),
            source: String::new(),
            format: String::new(),
            version: String::new(),
        });
        let start = Instant::now();
        let at = |time: f64| start + PICTURES.mul_f64(time);
        let due = |time, wanted| {
            hub.wanted.fetch_or(wanted, Ordering::Relaxed);
            hub.is_picture_due(at(time))
        };
        assert!(!due(0.0, false), "nobody looks");
        assert!(due(0.1, true), "the first is made at once");
        assert!(!due(0.2, true), "too soon");
        assert!(!due(1.0, false), "still too soon");
        assert!(due(1.2, false), "still wanted");
        assert!(!due(9.0, false), "nobody looks any more");
    }

    #[test]
    fn rates_are_of_the_last_seconds() {
        let mut rates = Rates::default();
        let start = Instant::now();
        assert_eq!(rates.classified(), 0.0);
        for index in 0..100_u32 {
            rates.add(
                start + Duration::from_millis(100) * index,
                u64::from(index) * 3,
            );
        }
        assert!((rates.classified() - 10.0).abs() < 0.01);
        assert!((rates.camera() - 30.0).abs() < 0.01);
        assert!(rates.0.len() <= 21);
    }
}
