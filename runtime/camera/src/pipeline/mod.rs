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
//! That is [`Preprocessing::Beside`]. It needs a CPU that inference leaves free: where each has a thread of the session, all of these
//! wait for the one whose CPU prepares a frame. There preprocessing is done [between](Preprocessing::Between) inferences, by them all:
//!
//! ```text
//!  thread capture         the caller's thread and the session's own
//!  ──────────────         ───────────────────────────────────────────
//!  next frame ──▶ [slot] ──▶ decode ──▶ crop, resize ──▶ network ──▶ observer
//! ```
//!
//! **How old a frame is.** Let the network begin with frame n-1 at time t, and with n at t'. n was taken from the slot after
//! t, and n was the latest then: the frame after it came into the slot later than t. Call the time from the dequeueing of n to the
//! coming of the next one a frame interval. Then n was dequeued later than t minus one frame interval, and at t' it is younger than
//! t' - t + one frame interval: one inference period and one frame interval. That is how [`Classified::late`] is told, and why it
//! never should be true.
//!
//! Memory: six frames at most (one being captured, one in the slot, one preprocessed, one classified, and two in the preview), used again
//! and again, and two images of the model's size. Between inferences one frame less, and the session's own image.
//!
//! | module | says | touches |
//! |---|---|---|
//! | `stages` | what the threads beside the caller's do | the source, preprocessing; never the session or the observer |
//! | `inference` | what the caller's does | the session, the observer; never the source |
//! | `shared` | what they have in common: slots, spare memory, notices, counters | nothing that can block but the slots |

mod inference;
mod shared;
mod stages;

use std::num::NonZero;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use vitlet::{Class, Digest, Preprocessor, Session};

use self::inference::Inference;
use self::shared::{CloseAll, Shared};
use crate::meter::Meter;
use crate::{CameraError, CameraFrame, Source};

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
    /// Where frames are decoded, cropped and resized. Without it, [`Preprocessing::for_threads`] says.
    pub preprocessing: Option<Preprocessing>,
}

impl Default for PipelineOptions {
    fn default() -> Self {
        Self {
            k: 5,
            threshold: 0.0,
            smoothing: 1.0,
            frames: None,
            preprocessing: None,
        }
    }
}

/// Where frames are decoded, cropped and resized. Classes do not depend on it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Preprocessing {
    /// On a thread of its own, while the frame before is classified.
    Beside,
    /// On the session's threads, before the frame is classified.
    Between,
}

impl Preprocessing {
    /// The one for so many threads of an inference: beside it, if one of the CPUs that the calling thread may use is left.
    pub fn for_threads(threads: usize) -> Self {
        // Where the system does not tell, the threads asked for are all there are.
        let cpus = thread::available_parallelism().map_or(threads, NonZero::get);
        if threads < cpus {
            Self::Beside
        } else {
            Self::Between
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
    let preprocessing = options.preprocessing;
    let preprocessing =
        preprocessing.unwrap_or_else(|| Preprocessing::for_threads(session.threads()));
    let shared = Arc::new(Shared::new());
    let _close = CloseAll(&shared);
    let mut threads = vec![stages::spawn("capture", &shared, move |shared| {
        stages::capture(source, live, shared);
    })?];
    if preprocessing == Preprocessing::Beside {
        let preprocessor = Preprocessor::new(session.plan().preprocess());
        threads.push(stages::spawn("preprocess", &shared, move |shared| {
            stages::preprocess(preprocessor, shared);
        })?);
    }
    let mut inference = Inference::new(session, &shared, options, preprocessing, live);
    let reason = inference.run(stop, observer)?;
    shared.close();
    stages::wait_for(threads);
    shared.tell(observer)?;
    Ok(inference.summary(reason))
}
