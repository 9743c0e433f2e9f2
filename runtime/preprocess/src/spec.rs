//! What is to be done to every frame: the model's input size, how the frame is fitted to it, and the filter.

use crate::{MAX_SIDE, PreprocessError};

/// How a frame of another shape is fitted to the model's input.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Resize {
    /// The whole frame is resized to the model's input, whatever that does to its proportions.
    Squash,
    /// The frame is resized, proportions kept, until its short side has this many pixels; then the centre is cropped
    /// (torchvision's `Resize(n)` and `CenterCrop`). Only the pixels inside the crop are ever computed.
    ShortSide(u32),
}

/// The resampling filter, widened by the reduction factor when the image shrinks (antialiasing), as Pillow does it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Interpolation {
    /// The triangle of radius 1.
    Bilinear,
    /// The cubic of radius 2 with a = -0.5 (Catmull-Rom).
    Bicubic,
}

/// Turns frames of any size and format into the model's input image.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Preprocess {
    width: u32,
    height: u32,
    resize: Resize,
    interpolation: Interpolation,
}

impl Preprocess {
    /// Preprocessing for a model whose input is `width` × `height` pixels.
    ///
    /// # Errors
    /// If a side is zero or above [`MAX_SIDE`], or if [`Resize::ShortSide`] is shorter than the longer side of the
    /// input (the crop would not fit) or above [`MAX_SIDE`].
    pub const fn new(
        width: u32,
        height: u32,
        resize: Resize,
        interpolation: Interpolation,
    ) -> Result<Self, PreprocessError> {
        if width == 0 || height == 0 || width > MAX_SIDE || height > MAX_SIDE {
            return Err(PreprocessError::InputSize { width, height });
        }
        if let Resize::ShortSide(short_side) = resize
            && (short_side < width || short_side < height || short_side > MAX_SIDE)
        {
            return Err(PreprocessError::ShortSide {
                short_side,
                width,
                height,
            });
        }
        Ok(Self {
            width,
            height,
            resize,
            interpolation,
        })
    }

    /// Width of the model's input, in pixels.
    pub const fn width(&self) -> u32 {
        self.width
    }

    /// Height of the model's input, in pixels.
    pub const fn height(&self) -> u32 {
        self.height
    }

    /// How a frame is fitted to the model's input.
    pub const fn resize(&self) -> Resize {
        self.resize
    }

    /// The resampling filter.
    pub const fn interpolation(&self) -> Interpolation {
        self.interpolation
    }
}
