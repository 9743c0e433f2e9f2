//! [`Shared`]: what the threads have in common.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::Duration;

use super::{Notice, Observer};
use crate::latest::Slot;
use crate::{CameraError, CameraFrame};

/// Notices that wait for the observer at most.
const NOTICES: usize = 64;

/// What the threads have in common.
pub(super) struct Shared {
    pub(super) frames: Slot<CameraFrame>,
    pub(super) images: Slot<Ready>,
    /// Frames whose memory can be used again.
    pub(super) spare_frames: Mutex<Vec<CameraFrame>>,
    pub(super) spare_images: Mutex<Vec<Vec<u8>>>,
    pub(super) notices: Mutex<VecDeque<Told>>,
    pub(super) captured: AtomicU64,
    pub(super) dropped: AtomicU64,
    pub(super) damaged: AtomicU64,
    pub(super) stopped: AtomicBool,
}

/// What a thread has to tell.
pub(super) enum Told {
    Notice(Notice),
    /// There will be no more frames, and not because the source ended.
    Failed(CameraError),
}

/// A frame with the model's image of it.
pub(super) struct Ready {
    pub(super) frame: CameraFrame,
    /// The number of its take out of the slot.
    pub(super) take: u64,
    pub(super) image: Vec<u8>,
    pub(super) preprocess: Duration,
}

impl Shared {
    pub(super) fn new() -> Self {
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

    pub(super) fn close(&self) {
        self.stopped.store(true, Ordering::Relaxed);
        self.frames.close();
        self.images.close();
    }

    pub(super) fn spare_frame(&self) -> CameraFrame {
        let spare = lock(&self.spare_frames).pop();
        spare.unwrap_or_default()
    }

    pub(super) fn recycle(&self, frame: CameraFrame) {
        lock(&self.spare_frames).push(frame);
    }

    pub(super) fn note(&self, notice: Notice) {
        let mut notices = lock(&self.notices);
        // A camera that comes and goes while an inference runs must not fill the memory.
        if notices.len() < NOTICES {
            notices.push_back(Told::Notice(notice));
        }
    }

    pub(super) fn fail(&self, error: CameraError) {
        lock(&self.notices).push_back(Told::Failed(error));
    }

    pub(super) fn damaged(&self, why: String) {
        let before = self.damaged.fetch_add(1, Ordering::Relaxed);
        self.note(Notice::Damaged(why, before));
    }

    /// Tells the observer what happened.
    pub(super) fn tell<O: Observer>(&self, observer: &mut O) -> Result<(), O::Error> {
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
pub(super) struct CloseAll<'a>(pub(super) &'a Shared);

impl Drop for CloseAll<'_> {
    fn drop(&mut self) {
        self.0.close();
    }
}

/// Closes the slots when its thread panics.
pub(super) struct CloseOnPanic<'a>(pub(super) &'a Shared);

impl Drop for CloseOnPanic<'_> {
    fn drop(&mut self) {
        if thread::panicking() {
            self.0.close();
        }
    }
}

pub(super) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
