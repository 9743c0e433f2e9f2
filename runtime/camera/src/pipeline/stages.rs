//! The threads beside the caller's: capture, and preprocessing where it has a thread of its own.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use vitlet::{Frame, Photo, Preprocessor};

use super::Notice;
use super::shared::{CloseOnPanic, Ready, Shared, lock};
use crate::{CameraError, CameraFrame, Source, Step};

/// How long the threads are given to end. One that waits for a pipe may not.
const PATIENCE: Duration = Duration::from_secs(1);

pub(super) fn spawn(
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
pub(super) fn wait_for(threads: impl IntoIterator<Item = JoinHandle<()>>) {
    let start = Instant::now();
    for thread in threads {
        while !thread.is_finished() && start.elapsed() < PATIENCE {
            thread::sleep(Duration::from_millis(2));
        }
    }
}

/// The first thread: from the source into the slot.
pub(super) fn capture(mut source: Box<dyn Source>, live: bool, shared: &Shared) {
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
pub(super) fn preprocess(mut preprocessor: Preprocessor, shared: &Shared) {
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
    with_pixels(frame, |pixels| preprocessor.run(pixels, image))?.map_err(|error| error.to_string())
}

/// Gives `work` a frame's pixels, decoded if need be; or says why there are none.
pub(super) fn with_pixels<R>(
    frame: &CameraFrame,
    work: impl FnOnce(&Frame<'_>) -> R,
) -> Result<R, String> {
    match frame.pixels() {
        Some(Ok(pixels)) => Ok(work(&pixels)),
        Some(Err(error)) => Err(error.to_string()),
        None => {
            let photo = Photo::decode(&frame.bytes).map_err(|error| error.to_string())?;
            let pixels = photo.frame().map_err(|error| error.to_string())?;
            Ok(work(&pixels))
        }
    }
}
