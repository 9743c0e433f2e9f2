//! A depthwise convolution over an NHWC image: every channel has its own window.

mod scalar;
mod simd;

use core::ops::Range;

use crate::error::{at_least, exact, length, row_range, rule, values};
use crate::isa::{Isa, dispatch};
use crate::scratch::space;
use crate::{ConvShape, Kernel, Out, Output, ParamError, Requantise, SizeError};

/// `y[oy][ox][c] = requantise(Σ_taps x[..][c] · weights[tap][c])`, s8 or s16 out. Outside the image lies `pad`, one byte per channel.
#[derive(Clone, Copy, Debug)]
pub struct Depthwise<'a> {
    pub(crate) shape: ConvShape,
    pub(crate) weights: &'a [i8],
    pub(crate) pad: &'a [i8],
    pub(crate) requantise: Requantise<'a>,
}

impl<'a> Depthwise<'a> {
    /// `weights` are `[kh][kw][c]`; `requantise` has one bias and scale per channel, without padding.
    ///
    /// # Errors
    /// The shape contradicts itself or the arrays, a weight is −128, or an accumulator could leave its bounds.
    pub fn new(
        shape: ConvShape,
        weights: &'a [i8],
        pad: &'a [i8],
        requantise: Requantise<'a>,
    ) -> Result<Self, ParamError> {
        let depthwise = Self::new_verified(shape, weights, pad, requantise)?;
        depthwise.check_elements()?;
        Ok(depthwise)
    }

    /// The part of `new` that reads the arrays' elements, those of the requantisation included.
    ///
    /// # Errors
    /// Those of `new` that are about elements.
    pub fn check_elements(&self) -> Result<(), ParamError> {
        self.requantise.check_elements()?;
        values("weights", "at least -127", self.weights, |w| w != i8::MIN)?;
        self.requantise.check_reach(self.reach())
    }

    /// As `new`, for arrays it has accepted before: reads no element (see the crate's documentation).
    ///
    /// # Errors
    /// Those of `new` that are not about elements.
    pub fn new_verified(
        shape: ConvShape,
        weights: &'a [i8],
        pad: &'a [i8],
        requantise: Requantise<'a>,
    ) -> Result<Self, ParamError> {
        shape.check()?;
        rule(
            "a depthwise convolution keeps its channels",
            shape.in_c == shape.out_c,
        )?;
        rule(
            "a depthwise convolution's output is s8 or s16",
            !matches!(requantise.output, Output::S32),
        )?;
        let channels = shape.in_c as usize;
        length(
            "weights",
            weights.len(),
            shape.taps().saturating_mul(channels),
        )?;
        length("pad", pad.len(), channels)?;
        length("bias", requantise.bias.len(), channels)?;
        Ok(Self {
            shape,
            weights,
            pad,
            requantise,
        })
    }

    /// Largest magnitude of an accumulator without bias.
    fn reach(&self) -> u64 {
        (self.shape.taps() as u64).saturating_mul(127 * 128)
    }

    /// See [`Requantise::fits_i16`].
    fn fits_i16<I: Isa>(&self, isa: I) -> bool {
        self.requantise.fits_i16(isa, self.reach(), self.pad.len())
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

    /// The weights, `[kh][kw][c]`.
    #[must_use]
    pub fn weights(&self) -> &'a [i8] {
        self.weights
    }

    /// The pad byte of every channel.
    #[must_use]
    pub fn pad(&self) -> &'a [i8] {
        self.pad
    }

    /// The requantisation.
    #[must_use]
    pub fn requantise(&self) -> &Requantise<'a> {
        &self.requantise
    }

    /// Elements of a row of the image's width, all of it padding.
    pub(crate) fn pad_row_len(&self) -> usize {
        self.shape.in_w as usize * self.shape.in_c as usize
    }

    /// Scratch bytes `run` needs: a row of padding, and one pixel's window.
    #[must_use]
    pub fn scratch_len(&self) -> usize {
        space::<i8>(self.pad_row_len()).saturating_add(space::<i8>(self.weights.len()))
    }

    /// Multiply-accumulates of the whole operation.
    #[must_use]
    pub fn macs(&self) -> u64 {
        (self.shape.output_len() as u64).saturating_mul(self.shape.taps() as u64)
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
        self.requantise
            .check_out(&out, rows.len() * self.shape.out_row_len())?;
        at_least("scratch", scratch.len(), self.scratch_len())?;
        dispatch(kernel, self, rows, x, out, scratch)
    }
}
