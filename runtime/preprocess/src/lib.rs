//! From a camera frame or a decoded photo to the `u8` RGB image a model takes: pixel format, crop and antialiased
//! resize in one pass over the frame.
//!
//! The arithmetic is integers only, so the bytes are the same on every instruction set, with or without an operating
//! system. The resampling is Pillow's (`Image.resize` with `BILINEAR` or `BICUBIC`) and the geometry is torchvision's
//! (`Resize` then `CenterCrop`), because models are trained behind those two; see the `filter` module for the definition.
//!
//! The code is portable. On x86-64, where programs are compiled for SSE2, it runs as AVX2 if the CPU has that (`resample`).
//!
//! Nothing is allocated: the caller asks [`Preprocess::scratch_len`] how much working memory a frame size needs.
//!
//! ```
//! use vitlet_preprocess::{Frame, Interpolation, PixelFormat, Preprocess, Resize};
//!
//! let preprocess = Preprocess::new(4, 4, Resize::ShortSide(5), Interpolation::Bicubic)?;
//! let frame = Frame::new(PixelFormat::Grey8, 16, 9, 16, &[200; 16 * 9])?;
//! let mut scratch = vec![0; preprocess.scratch_len(frame.width(), frame.height()).unwrap()];
//! let mut rgb = [0; 4 * 4 * 3];
//! preprocess.run(&frame, &mut scratch, &mut rgb)?;
//! assert_eq!(rgb, [200; 4 * 4 * 3]);
//! # Ok::<(), vitlet_preprocess::PreprocessError>(())
//! ```
#![no_std]
#![forbid(unsafe_code)]

mod error;
mod filter;
mod frame;
mod resample;
mod spec;

pub use error::PreprocessError;
pub use frame::{Frame, PixelFormat};
pub use spec::{Interpolation, Preprocess, Resize};

/// Longest side, in pixels, of a frame, of a model's input and of [`Resize::ShortSide`].
///
/// With it, every product in this crate is known not to overflow.
pub const MAX_SIDE: u32 = 16384;
