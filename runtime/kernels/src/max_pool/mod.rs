//! The maximum under a window over an NHWC image; a window of all rows gives the maximum over them.

mod scalar;
mod simd;

use core::ops::Range;

use crate::error::{at_least, exact, row_range, rule};
use crate::isa::dispatch;
use crate::{ConvShape, In, InType, Kernel, Out, ParamError, SizeError};

/// `y[oy][ox][c] = max_taps x[..][c]`, in the input's type and on its grid. Taps outside the image do not count.
#[derive(Clone, Copy, Debug)]
pub struct MaxPool {
    pub(crate) shape: ConvShape,
    pub(crate) element: InType,
}

impl MaxPool {
    /// `element` is the type of input and output, s8 or s16.
    ///
    /// # Errors
    /// The shape contradicts itself, or the type is s32.
    pub fn new(shape: ConvShape, element: InType) -> Result<Self, ParamError> {
        // With padding smaller than the window, every window has a tap inside the image.
        shape.check()?;
        rule("max pooling keeps its channels", shape.in_c == shape.out_c)?;
        rule(
            "max pooling reads s8 or s16",
            matches!(element, InType::S8 | InType::S16),
        )?;
        Ok(Self { shape, element })
    }

    /// Pixel rows of the output.
    #[must_use]
    pub fn rows(&self) -> usize {
        self.shape.out_h as usize
    }

    /// The geometry.
    #[must_use]
    pub fn shape(&self) -> &ConvShape {
        &self.shape
    }

    /// The type of input and output.
    #[must_use]
    pub fn element(&self) -> InType {
        self.element
    }

    /// Scratch bytes `run` needs: none.
    #[must_use]
    pub fn scratch_len(&self) -> usize {
        0
    }

    /// Multiply-accumulates: none.
    #[must_use]
    pub fn macs(&self) -> u64 {
        0
    }

    /// Computes pixel rows `rows` from the whole image `x` into `out`, which holds only those rows.
    ///
    /// # Errors
    /// A buffer or the row range does not fit; nothing was written.
    pub fn run(
        &self,
        kernel: Kernel,
        rows: Range<usize>,
        x: In<'_>,
        out: Out<'_>,
        scratch: &mut [i8],
    ) -> Result<(), SizeError> {
        row_range(&rows, self.rows())?;
        x.check("x", self.element, self.shape.input_len())?;
        match (&out, self.element) {
            (Out::S8(_), InType::S8) | (Out::S16(_), InType::S16) => {}
            _ => return Err(SizeError::OutType),
        }
        exact("out", out.len(), rows.len() * self.shape.out_row_len())?;
        at_least("scratch", scratch.len(), self.scratch_len())?;
        dispatch(kernel, self, rows, x, out, scratch)
    }
}
