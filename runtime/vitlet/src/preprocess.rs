//! Photos and frames to the model's pixels, reusing the working memory.

use std::ops::Range;

use vitlet_engine::{Serial, Threads};
use vitlet_plan::MAX_THREADS;
use vitlet_preprocess::{Frame, Preprocess, PreprocessError};

use crate::Photo;

/// [`Preprocess`] with the memory it works in.
#[derive(Clone, Debug)]
pub struct Preprocessor {
    settings: Preprocess,
    scratch: Vec<u8>,
}

impl Preprocessor {
    /// For these settings: a plan's ([`Plan::preprocess`](crate::Plan::preprocess)) or others.
    pub const fn new(settings: Preprocess) -> Self {
        Self {
            settings,
            scratch: Vec::new(),
        }
    }

    /// What is done to every frame.
    pub const fn settings(&self) -> &Preprocess {
        &self.settings
    }

    /// Bytes of a result: height × width × 3.
    pub const fn image_len(&self) -> usize {
        self.settings.width() as usize * self.settings.height() as usize * 3
    }

    /// The model's image of a photo: RGB, rows from the top.
    ///
    /// # Errors
    /// If the photo's sides are not within 1 to 16384 pixels.
    pub fn photo(&mut self, photo: &Photo) -> Result<Vec<u8>, PreprocessError> {
        let mut image = vec![0; self.image_len()];
        self.run(&photo.frame()?, &mut image)?;
        Ok(image)
    }

    /// Writes the model's image of a frame; `image` has [`image_len`](Self::image_len) bytes.
    ///
    /// # Errors
    /// If `image` has another length, or the frame is too large for this machine's memory.
    pub fn run(&mut self, frame: &Frame<'_>, image: &mut [u8]) -> Result<(), PreprocessError> {
        self.run_on(&Serial, frame, image)
    }

    /// As [`run`](Self::run), each thread making some of the image's rows.
    pub(crate) fn run_on<T: Threads>(
        &mut self,
        threads: &T,
        frame: &Frame<'_>,
        image: &mut [u8],
    ) -> Result<(), PreprocessError> {
        self.check(image)?;
        let need = self.settings.scratch_len(frame.width(), frame.height());
        let len = need.ok_or(PreprocessError::Scratch { have: 0, need })?;
        let height = self.settings.height();
        let rows_each = height.div_ceil(threads.count().clamp(1, MAX_THREADS) as u32);
        let row_len = self.settings.width() as usize * 3;
        let parts = height.div_ceil(rows_each) as usize;
        if self.scratch.len() < len * parts {
            self.scratch.resize(len * parts, 0);
        }
        let mut jobs = [const { None }; MAX_THREADS];
        let images = image.chunks_mut(rows_each as usize * row_len);
        let starts = (0..height).step_by(rows_each as usize);
        for (job, ((start, image), scratch)) in jobs
            .iter_mut()
            .zip(starts.zip(images).zip(self.scratch.chunks_exact_mut(len)))
        {
            *job = Some(Part {
                rows: start..height.min(start + rows_each),
                image,
                scratch,
                result: Ok(()),
            });
        }
        let settings = self.settings;
        threads.for_each(&mut jobs[..parts], |job| {
            if let Some(part) = job {
                let rows = part.rows.clone();
                part.result = settings.run_rows(frame, rows, part.scratch, part.image);
            }
        });
        jobs.iter().flatten().try_for_each(|part| part.result)
    }

    fn check(&self, image: &[u8]) -> Result<(), PreprocessError> {
        let have = image.len();
        let need = self.image_len();
        if have == need {
            return Ok(());
        }
        let need = Some(need);
        Err(PreprocessError::Output { have, need })
    }
}

/// What one thread does of an image.
struct Part<'a> {
    rows: Range<u32>,
    image: &'a mut [u8],
    scratch: &'a mut [u8],
    result: Result<(), PreprocessError>,
}
