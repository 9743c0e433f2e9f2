//! A convolution over an NHWC image (batch 1, no dilation, one group): patches of the image times a weight matrix.

mod scalar;
mod shape;
mod simd;

use core::ops::Range;

pub use shape::ConvShape;

use crate::error::{at_least, exact, length, row_range};
use crate::gemm::rows_scratch_len;
use crate::isa::dispatch;
use crate::{Gemm, Kernel, Out, ParamError, SizeError};

/// `y[oy][ox] = requantise(patch(oy, ox) · weights)`, patch order (ky, kx, channel). Outside the image lies `pad`, one byte per input channel.
#[derive(Clone, Copy, Debug)]
pub struct Conv<'a> {
    pub(crate) shape: ConvShape,
    pub(crate) pad: &'a [i8],
    pub(crate) gemm: Gemm<'a>,
}

impl<'a> Conv<'a> {
    /// # Errors
    /// The shape contradicts itself, the weights or `pad`.
    pub fn new(shape: ConvShape, pad: &'a [i8], gemm: Gemm<'a>) -> Result<Self, ParamError> {
        shape.check()?;
        length("pad", pad.len(), shape.in_c as usize)?;
        length(
            "a weight row",
            gemm.k,
            shape.taps().saturating_mul(shape.in_c as usize),
        )?;
        length("out channels of the weights", gemm.n, shape.out_c as usize)?;
        Ok(Self { shape, pad, gemm })
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

    /// The pad byte of every input channel.
    #[must_use]
    pub fn pad(&self) -> &'a [i8] {
        self.pad
    }

    /// The weights.
    #[must_use]
    pub fn gemm(&self) -> &Gemm<'a> {
        &self.gemm
    }

    /// Scratch bytes `run` needs: room for some padded patches.
    #[must_use]
    pub fn scratch_len(&self) -> usize {
        rows_scratch_len(self.gemm.k)
    }

    /// Multiply-accumulates of the whole operation.
    #[must_use]
    pub fn macs(&self) -> u64 {
        (self.shape.output_len() as u64).saturating_mul(self.gemm.k as u64)
    }

    /// Computes pixel rows `rows` from the whole image `x` into `out`, which holds only those rows.
    ///
    /// # Errors
    /// A buffer or the row range does not fit; nothing was written.
    pub fn run(
        &self,
        kernel: Kernel,
        rows: Range<usize>,
        x: &[i8],
        out: Out<'_>,
        scratch: &mut [i8],
    ) -> Result<(), SizeError> {
        row_range(&rows, self.rows())?;
        exact("x", x.len(), self.shape.input_len())?;
        self.gemm
            .requantise
            .check_out(&out, rows.len() * self.shape.out_row_len())?;
        at_least("scratch", scratch.len(), self.scratch_len())?;
        dispatch(kernel, self, rows, x, out, scratch)
    }
}
