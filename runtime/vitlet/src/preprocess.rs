//! Photos and frames to the model's pixels, reusing the working memory.

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
        let need = self.settings.scratch_len(frame.width(), frame.height());
        let len = need.ok_or(PreprocessError::Scratch { have: 0, need })?;
        if self.scratch.len() < len {
            self.scratch.resize(len, 0);
        }
        self.settings.run(frame, &mut self.scratch, image)
    }
}
