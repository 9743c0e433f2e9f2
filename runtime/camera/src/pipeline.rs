//! Capture, preprocessing and inference side by side.
//!
//! ```text
//!  thread capture         thread preprocess          the caller's thread (and the session's own)
//!  ──────────────         ─────────────────          ───────────────────────────────────────────
//!  next frame ──▶ [slot] ──▶ decode, crop, resize ──▶ [hand-over] ──▶ network ──▶ observer
//!                  │ live: the frame that                │ preprocessing takes the next frame only
//!                  │ nobody took is dropped              │ when the network has begun with this one
//! ```
//!
//! **How old a frame is.** Let the network begin with frame n-1 at time t, and with n at t'. Preprocessing took n from the slot after
//! t, and n was the latest then: the frame after it came into the slot later than t. Call the time from the dequeueing of n to the
//! coming of the next one a frame interval. Then n was dequeued later than t minus one frame interval, and at t' it is younger than
//! t' - t + one frame interval: one inference period and one frame interval. That is how [`Classified::late`] is told, and why it
//! never should be true.
//!
//! Memory: six frames at most (one being captured, one in the slot, one preprocessed, one classified, and two in the preview), used again
//! and again, and two images of the model's size.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use vitlet::{Class, Digest, Photo, Preprocessor, Session};

use crate::latest::{Slot, Taken};
use crate::meter::Meter;
use crate::smoothing::Smoothing;
use crate::{CameraError, CameraFrame, Source, Step};

/// How long the caller's thread waits for a frame before it looks whether it shall stop.
const IDLE: Duration = Duration::from_millis(50);
/// How long the threads are given to end. One that waits for a pipe may not.
const PATIENCE: Duration = Duration::from_secs(1);
/// Notices that wait for the observer at most.
const NOTICES: usize = 64;

/// What is to be done with frames.
#[derive(Clone, Copy, Debug)]
pub struct PipelineOptions {
    /// How many of the best classes are reported.
    pub k: usize,
    /// Classes with a smaller score are not reported, 0 to 1.
    pub threshold: f32,
    /// Scores are averaged over about so many frames; 1 is not at all.
    pub smoothing: f32,
    /// Stop after so many classified frames.
    pub frames: Option<u64>,
}

impl Default for PipelineOptions {
    fn default() -> Self {
        Self {
            k: 5,
            threshold: 0.0,
            smoothing: 1.0,
            frames: None,
        }
    }
}

/// How long a frame took.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Times {
    /// Reading it.
    pub capture: Duration,
    /// Decoding, cropping and resizing it.
    pub preprocess: Duration,
    /// The network.
    pub inference: Duration,
    /// From its dequeueing to its classes.
    pub end_to_end: Duration,
}

/// What a frame shows.
#[derive(Clone, Debug)]
pub struct Classified<'m> {
    /// The frame's number, from 0; those that were dropped count.
    pub number: u64,
    /// The best classes, best first, and none below the threshold.
    pub top: Vec<Class<'m>>,
    /// Of this frame's logits: as [`Session::output_hash`].
    pub output_hash: Digest,
    /// From the frame's dequeueing to the beginning of its inference.
    pub age: Duration,
    /// Whether a live frame was older than one inference period and one frame interval; see the module's description.
    pub late: bool,
    /// Live frames that were dropped so far, since later ones came before they were taken.
    pub dropped: u64,
    /// How long it took.
    pub times: Times,
}

/// What happens beside frames.
#[derive(Debug)]
pub enum Notice {
    /// The camera has gone, and is waited for.
    Lost(CameraError),
    /// The camera is back.
    Found,
    /// A frame could not be used; why, and how many before it.
    Damaged(String, u64),
}

/// Who is told of frames.
pub trait Observer {
    /// Why it has had enough.
    type Error: From<CameraError>;

    /// A frame was classified. What is returned is used for other frames.
    ///
    /// # Errors
    /// Whatever ends the pipeline.
    fn frame(
        &mut self,
        classified: &Classified<'_>,
        frame: CameraFrame,
    ) -> Result<Option<CameraFrame>, Self::Error>;

    /// Something else happened.
    ///
    /// # Errors
    /// Whatever ends the pipeline.
    fn notice(&mut self, notice: Notice) -> Result<(), Self::Error>;
}

/// Asks a pipeline to stop, from any thread or a signal handler.
#[derive(Clone, Debug, Default)]
pub struct Stop(Arc<AtomicBool>);

impl Stop {
    /// Not asked yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// Asks. The pipeline stops after the inference that runs.
    pub fn request(&self) {
        self.0.store(true, Ordering::Relaxed);
    }

    /// The flag itself, for signal handlers: `true` asks.
    pub fn flag(&self) -> Arc<AtomicBool> {
        Arc::clone(&self.0)
    }

    fn is_requested(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }
}

/// Why a pipeline ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reason {
    /// As many frames as were asked for.
    Frames,
    /// It was asked to stop.
    Stopped,
    /// The source has no more.
    End,
}

/// What a pipeline did.
#[derive(Debug)]
pub struct Summary {
    /// Why it ended.
    pub reason: Reason,
    /// Frames that were classified.
    pub frames: u64,
    /// Frames that were captured.
    pub captured: u64,
    /// Live frames that were dropped.
    pub dropped: u64,
    /// Frames that could not be used.
    pub damaged: u64,
    /// Frames that were [`Classified::late`].
    pub late: u64,
    /// From the start of the first inference to the start of the last.
    pub elapsed: Duration,
    /// Times of all frames.
    pub meters: Meters,
}

impl Summary {
    /// Classified frames per second.
    pub fn per_s(&self) -> f64 {
        per_s(self.frames.saturating_sub(1), self.elapsed)
    }
}

/// `count` by `time`; 0 of nothing.
pub(crate) fn per_s(count: u64, time: Duration) -> f64 {
    if time.is_zero() {
        return 0.0;
    }
    count as f64 / time.as_secs_f64()
}

/// Times of all frames so far.
#[derive(Debug, Default)]
pub struct Meters {
    /// See [`Times::capture`].
    pub capture: Meter,
    /// See [`Times::preprocess`].
    pub preprocess: Meter,
    /// See [`Times::inference`].
    pub inference: Meter,
    /// See [`Times::end_to_end`].
    pub end_to_end: Meter,
    /// See [`Classified::age`].
    pub age: Meter,
}

impl Meters {
    /// Adds a frame.
    pub fn add(&mut self, classified: &Classified<'_>) {
        self.capture.add(classified.times.capture);
        self.preprocess.add(classified.times.preprocess);
        self.inference.add(classified.times.inference);
        self.end_to_end.add(classified.times.end_to_end);
        self.age.add(classified.age);
    }

    /// With their names.
    pub fn named(&self) -> [(&'static str, &Meter); 5] {
        [
            ("capture", &self.capture),
            ("preprocess", &self.preprocess),
            ("inference", &self.inference),
            ("end_to_end", &self.end_to_end),
            ("age", &self.age),
        ]
    }
}

/// Classifies a source's frames until it ends, the frames asked for are done, the observer has had enough, or `stop` is requested.
///
/// # Errors
/// The observer's; or the source's or the network's, as the observer's.
pub fn run<O: Observer>(
    source: Box<dyn Source>,
    session: &mut Session<'_>,
    options: &PipelineOptions,
    stop: &Stop,
    observer: &mut O,
) -> Result<Summary, O::Error> {
    let live = source.description().live;
    let shared = Arc::new(Shared::new());
    let _close = CloseAll(&shared);
    let preprocessor = Preprocessor::new(session.plan().preprocess());
    let threads = [
        spawn("capture", &shared, move |shared| {
            capture(source, live, shared);
        })?,
        spawn("preprocess", &shared, move |shared| {
            preprocess(preprocessor, shared);
        })?,
    ];
    let mut inference = Inference {
        session,
        shared: &shared,
        smoothing: Smoothing::new(options.smoothing),
        options: *options,
        live,
        last_start: None,
        first_start: None,
        frames: 0,
        late: 0,
        meters: Meters::default(),
    };
    let reason = inference.run(stop, observer)?;
    shared.close();
    wait_for(threads);
    shared.tell(observer)?;
    let elapsed = inference.first_start.zip(inference.last_start);
    Ok(Summary {
        reason,
        frames: inference.frames,
        captured: shared.captured.load(Ordering::Relaxed),
        dropped: shared.dropped.load(Ordering::Relaxed),
        damaged: shared.damaged.load(Ordering::Relaxed),
        late: inference.late,
        elapsed: elapsed.map_or(Duration::ZERO, |(first, last)| last - first),
        meters: inference.meters,
    })
}

fn spawn(
    purpose: &'static str,
    shared: &Arc<Shared>,
    body: impl FnOnce(&Shared) + Send + 'static,
) -> Result<JoinHandle<()>, CameraError> {
    let shared = Arc::clone(shared);
    thread::Builder::new()
        .name(purpose.to_owned())
        .spawn(move || {
            // Should it panic, nobody shall wait for it.
            let _close = CloseOnPanic(&shared);
            body(&shared);
        })
        .map_err(|error| CameraError::Thread { purpose, error })
}

/// Gives the threads time to put their devices down.
fn wait_for(threads: impl IntoIterator<Item = JoinHandle<()>>) {
    let start = Instant::now();
    for thread in threads {
        while !thread.is_finished() && start.elapsed() < PATIENCE {
            thread::sleep(Duration::from_millis(2));
        }
    }
}

/// What the threads have in common.
struct Shared {
    frames: Slot<CameraFrame>,
    images: Slot<Ready>,
    /// Frames whose memory can be used again.
    spare_frames: Mutex<Vec<CameraFrame>>,
    spare_images: Mutex<Vec<Vec<u8>>>,
    notices: Mutex<VecDeque<Told>>,
    captured: AtomicU64,
    dropped: AtomicU64,
    damaged: AtomicU64,
    stopped: AtomicBool,
}

/// What a thread has to tell.
enum Told {
    Notice(Notice),
    /// There will be no more frames, and not because the source ended.
    Failed(CameraError),
}

/// A frame with the model's image of it.
struct Ready {
    frame: CameraFrame,
    /// The number of its take out of the slot.
    take: u64,
    image: Vec<u8>,
    preprocess: Duration,
}

impl Shared {
    fn new() -> Self {
        Self {
            frames: Slot::new(),
            images: Slot::new(),
            spare_frames: Mutex::default(),
            spare_images: Mutex::default(),
            notices: Mutex::default(),
            captured: AtomicU64::new(0),
            dropped: AtomicU64::new(0),
            damaged: AtomicU64::new(0),
            stopped: AtomicBool::new(false),
        }
    }

    fn close(&self) {
        self.stopped.store(true, Ordering::Relaxed);
        self.frames.close();
        self.images.close();
    }

    fn spare_frame(&self) -> CameraFrame {
        let spare = lock(&self.spare_frames).pop();
        spare.unwrap_or_default()
    }

    fn recycle(&self, frame: CameraFrame) {
        lock(&self.spare_frames).push(frame);
    }

    fn note(&self, notice: Notice) {
        let mut notices = lock(&self.notices);
        // A camera that comes and goes while an inference runs must not fill the memory.
        if notices.len() < NOTICES {
            notices.push_back(Told::Notice(notice));
        }
    }

    fn fail(&self, error: CameraError) {
        lock(&self.notices).push_back(Told::Failed(error));
    }

    fn damaged(&self, why: String) {
        let before = self.damaged.fetch_add(1, Ordering::Relaxed);
        self.note(Notice::Damaged(why, before));
    }

    /// Tells the observer what happened.
    fn tell<O: Observer>(&self, observer: &mut O) -> Result<(), O::Error> {
        loop {
            // The lock is not held while the observer has the word.
            let told = lock(&self.notices).pop_front();
            match told {
                None => return Ok(()),
                Some(Told::Notice(notice)) => observer.notice(notice)?,
                Some(Told::Failed(error)) => return Err(error.into()),
            }
        }
    }
}

/// Closes the slots when it is dropped.
struct CloseAll<'a>(&'a Shared);

impl Drop for CloseAll<'_> {
    fn drop(&mut self) {
        self.0.close();
    }
}

/// Closes the slots when its thread panics.
struct CloseOnPanic<'a>(&'a Shared);

impl Drop for CloseOnPanic<'_> {
    fn drop(&mut self) {
        if thread::panicking() {
            self.0.close();
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
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

/// The first thread: from the source into the slot.
fn capture(mut source: Box<dyn Source>, live: bool, shared: &Shared) {
    while !shared.stopped.load(Ordering::Relaxed) {
        let mut frame = shared.spare_frame();
        match source.next(&mut frame) {
            Ok(Step::Frame) => {
                shared.captured.fetch_add(1, Ordering::Relaxed);
                if live {
                    if let Some(old) = shared.frames.replace(frame) {
                        shared.dropped.fetch_add(1, Ordering::Relaxed);
                        shared.recycle(old);
                    }
                } else if shared.frames.put(frame).is_err() {
                    break;
                }
                continue;
            }
            Ok(Step::Nothing) => {}
            Ok(Step::Damaged) => {
                shared.captured.fetch_add(1, Ordering::Relaxed);
                shared.damaged("cut off, or marked as damaged by its source".to_owned());
            }
            Ok(Step::Lost(error)) => shared.note(Notice::Lost(error)),
            Ok(Step::Found) => shared.note(Notice::Found),
            Ok(Step::End) => break,
            Err(error) => {
                shared.fail(error);
                break;
            }
        }
        shared.recycle(frame);
    }
    shared.frames.close();
}

/// The second thread: from the slot to the model's image.
fn preprocess(mut preprocessor: Preprocessor, shared: &Shared) {
    while let Some((frame, take)) = shared.frames.take() {
        let start = Instant::now();
        let spare = lock(&shared.spare_images).pop();
        let mut image = spare.unwrap_or_else(|| vec![0; preprocessor.image_len()]);
        match prepare(&mut preprocessor, &frame, &mut image) {
            Ok(()) => {
                let preprocess = start.elapsed();
                let ready = Ready {
                    frame,
                    take,
                    image,
                    preprocess,
                };
                if shared.images.hand_over(ready).is_err() {
                    break;
                }
            }
            Err(why) => {
                shared.damaged(why);
                shared.recycle(frame);
                lock(&shared.spare_images).push(image);
            }
        }
    }
    shared.images.close();
}

/// Decodes, crops and resizes.
fn prepare(
    preprocessor: &mut Preprocessor,
    frame: &CameraFrame,
    image: &mut [u8],
) -> Result<(), String> {
    let run = |preprocessor: &mut Preprocessor, frame, image| {
        preprocessor
            .run(frame, image)
            .map_err(|error| error.to_string())
    };
    match frame.pixels() {
        Some(Ok(pixels)) => run(preprocessor, &pixels, image),
        Some(Err(error)) => Err(error.to_string()),
        None => {
            let photo = Photo::decode(&frame.bytes).map_err(|error| error.to_string())?;
            let pixels = photo.frame().map_err(|error| error.to_string())?;
            run(preprocessor, &pixels, image)
        }
    }
}

/// The caller's thread: from the model's image to classes.
struct Inference<'a, 'm> {
    session: &'a mut Session<'m>,
    shared: &'a Shared,
    smoothing: Smoothing,
    options: PipelineOptions,
    live: bool,
    last_start: Option<Instant>,
    first_start: Option<Instant>,
    frames: u64,
    late: u64,
    meters: Meters,
}

impl<'m> Inference<'_, 'm> {
    fn run<O: Observer>(&mut self, stop: &Stop, observer: &mut O) -> Result<Reason, O::Error> {
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
            match self.shared.images.take_within(IDLE) {
                Taken::Value(ready, start) => {
                    let classified = self.classify(&ready, start).map_err(CameraError::from)?;
                    lock(&self.shared.spare_images).push(ready.image);
                    if let Some(frame) = observer.frame(&classified, ready.frame)? {
                        self.shared.recycle(frame);
                    }
                }
                Taken::Nothing => {}
                Taken::Closed => {
                    self.shared.tell(observer)?;
                    return Ok(Reason::End);
                }
            }
        }
    }

    fn classify(&mut self, ready: &Ready, start: Instant) -> Result<Classified<'m>, vitlet::Error> {
        let frame = &ready.frame;
        let age = start.saturating_duration_since(frame.dequeued);
        let last_start = self.last_start.replace(start);
        let next = self.shared.frames.came_after(ready.take);
        let late =
            self.live && last_start.is_some_and(|last| is_late(frame, start, start - last, next));
        self.session.run(&ready.image)?;
        let end = Instant::now();
        self.first_start.get_or_insert(start);
        self.frames += 1;
        self.late += u64::from(late);
        let classified = Classified {
            number: frame.number,
            top: self.top(),
            output_hash: self.session.output_hash(),
            age,
            late,
            dropped: self.shared.dropped.load(Ordering::Relaxed),
            times: Times {
                capture: frame.capture,
                preprocess: ready.preprocess,
                inference: end - start,
                end_to_end: end.saturating_duration_since(frame.dequeued),
            },
        };
        self.meters.add(&classified);
        Ok(classified)
    }

    /// The classes to report.
    fn top(&mut self) -> Vec<Class<'m>> {
        let mut classes = self.session.top(usize::MAX);
        self.smoothing.smooth(&mut classes);
        classes.truncate(self.options.k);
        classes.retain(|class| class.score >= self.options.threshold);
        classes
    }
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
