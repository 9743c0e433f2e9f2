//! Layer normalisation of s16 rows.

pub(crate) mod scalar;
pub(crate) mod simd;

use core::ops::Range;

use scalar::Affine;

use crate::error::{at_least, exact, length, row_range, rule, size, values};
use crate::gemm::{DIM_MAX, TENSOR_MAX};
use crate::isa::dispatch;
use crate::requantise::largest;
use crate::scratch::{carve, space};
use crate::{Kernel, Out, ParamError, SizeError};

/// C·x and sums of C values of s16 stay below 2²⁹.
const CHANNELS_MAX: usize = 16384;

/// The type of a norm's output; gamma and beta carry its scale and zero point.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NormOutput {
    /// For a GEMM.
    S8,
    /// For the residual stream.
    S16,
}

/// Where the rows come from, if not one after the other: row r is the segments `table[r][..]` of the input side by side, each an input row of
/// `channels / segments` elements (patch merging).
#[derive(Clone, Copy, Debug)]
pub struct Gather<'a> {
    /// Input rows, `[rows][segments]`.
    pub table: &'a [u32],
    /// Input rows in a row.
    pub segments: usize,
    /// Rows of the input.
    pub input_rows: usize,
}

impl Gather<'_> {
    /// Puts row `row` together.
    fn join(&self, x: &[i16], row: usize, into: &mut [i16]) {
        let segment = into.len() / self.segments;
        let table = &self.table[row * self.segments..][..self.segments];
        for (into, &from) in into.chunks_exact_mut(segment).zip(table) {
            // A table that was never verified reads some row of the input.
            let from = (from as usize).min(self.input_rows - 1);
            into.copy_from_slice(&x[from * segment..][..segment]);
        }
    }
}

/// `y = (x − mean) / sqrt(variance + eps) · gamma + beta` per row; see "LayerNorm" in `docs/numerics.md`.
#[derive(Clone, Copy, Debug)]
pub struct LayerNorm<'a> {
    pub(crate) rows: usize,
    pub(crate) channels: usize,
    pub(crate) eps: u64,
    pub(crate) gamma: &'a [f32],
    pub(crate) beta: &'a [f32],
    pub(crate) output: NormOutput,
    pub(crate) gather: Option<Gather<'a>>,
}

impl<'a> LayerNorm<'a> {
    /// `eps` is E of the contract: `round(eps·C²/s²)`, at least 1.
    ///
    /// # Errors
    /// A size or an array element is outside the contract's bounds.
    pub fn new(
        rows: usize,
        channels: usize,
        eps: u64,
        gamma: &'a [f32],
        beta: &'a [f32],
        output: NormOutput,
    ) -> Result<Self, ParamError> {
        let norm = Self::new_verified(rows, channels, eps, gamma, beta, output)?;
        norm.check_elements()?;
        Ok(norm)
    }

    /// The part of `new` and `with_gather` that reads the arrays' elements.
    ///
    /// # Errors
    /// Those of `new` and `with_gather` that are about elements.
    pub fn check_elements(&self) -> Result<(), ParamError> {
        check_affine(self.gamma, self.beta)?;
        self.check_gather()
    }

    /// As `new`, for arrays it has accepted before: reads no element (see the crate's documentation).
    ///
    /// # Errors
    /// Those of `new` that are not about elements.
    pub fn new_verified(
        rows: usize,
        channels: usize,
        eps: u64,
        gamma: &'a [f32],
        beta: &'a [f32],
        output: NormOutput,
    ) -> Result<Self, ParamError> {
        size("rows", rows, DIM_MAX)?;
        size("channels", channels, CHANNELS_MAX)?;
        size("input", rows.saturating_mul(channels), TENSOR_MAX)?;
        values("eps", "1 to 2^62", &[eps], |e| (1..=1 << 62).contains(&e))?;
        length("gamma", gamma.len(), channels)?;
        length("beta", beta.len(), channels)?;
        Ok(Self {
            rows,
            channels,
            eps,
            gamma,
            beta,
            output,
            gather: None,
        })
    }

    /// The same over rows that are put together from rows of the input.
    ///
    /// # Errors
    /// The table has not `segments` rows of the input for each row, or `segments` does not divide the channels.
    pub fn with_gather(self, gather: Gather<'a>) -> Result<Self, ParamError> {
        let norm = self.with_gather_verified(gather)?;
        norm.check_gather()?;
        Ok(norm)
    }

    fn check_gather(&self) -> Result<(), ParamError> {
        let Some(gather) = &self.gather else {
            return Ok(());
        };
        values("gather", "a row of the input", gather.table, |row| {
            (row as usize) < gather.input_rows
        })
    }

    /// As `with_gather`, for a table it has accepted before: reads no element (see the crate's documentation).
    ///
    /// # Errors
    /// Those of `with_gather` that are not about elements.
    pub fn with_gather_verified(self, gather: Gather<'a>) -> Result<Self, ParamError> {
        size("segments", gather.segments, self.channels)?;
        rule(
            "segments divide the channels",
            self.channels.is_multiple_of(gather.segments),
        )?;
        size("input rows", gather.input_rows, DIM_MAX)?;
        let elements = gather.input_rows.saturating_mul(self.channels);
        size("input", elements / gather.segments, TENSOR_MAX)?;
        let expected = self.rows.saturating_mul(gather.segments);
        length("gather", gather.table.len(), expected)?;
        Ok(Self {
            gather: Some(gather),
            ..self
        })
    }

    /// Token rows.
    #[must_use]
    pub fn rows(&self) -> usize {
        self.rows
    }

    /// Elements of a row.
    #[must_use]
    pub fn channels(&self) -> usize {
        self.channels
    }

    /// E of the contract.
    #[must_use]
    pub fn eps(&self) -> u64 {
        self.eps
    }

    /// Factor per channel.
    #[must_use]
    pub fn gamma(&self) -> &'a [f32] {
        self.gamma
    }

    /// Summand per channel.
    #[must_use]
    pub fn beta(&self) -> &'a [f32] {
        self.beta
    }

    /// The output's type.
    #[must_use]
    pub fn output(&self) -> NormOutput {
        self.output
    }

    /// Where the rows come from, if not one after the other.
    #[must_use]
    pub fn gather(&self) -> Option<Gather<'a>> {
        self.gather
    }

    /// Elements of x.
    #[must_use]
    pub fn input_len(&self) -> usize {
        match self.gather {
            None => self.rows * self.channels,
            Some(gather) => gather.input_rows * (self.channels / gather.segments),
        }
    }

    /// Scratch bytes `run` needs: none, or a row that is put together.
    #[must_use]
    pub fn scratch_len(&self) -> usize {
        self.gather.map_or(0, |_| space::<i16>(self.channels))
    }

    /// Multiply-accumulates: none worth counting.
    #[must_use]
    pub fn macs(&self) -> u64 {
        0
    }

    /// Computes `rows` from the whole of `x` into `out`, which holds only those rows.
    ///
    /// # Errors
    /// A buffer or the row range does not fit; nothing was written.
    pub fn run(
        &self,
        kernel: Kernel,
        rows: Range<usize>,
        x: &[i16],
        out: Out<'_>,
        scratch: &mut [i8],
    ) -> Result<(), SizeError> {
        row_range(&rows, self.rows)?;
        exact("x", x.len(), self.input_len())?;
        check_out(&out, self.output, rows.len() * self.channels)?;
        at_least("scratch", scratch.len(), self.scratch_len())?;
        dispatch(kernel, self, rows, x, out, scratch)
    }

    /// Scratch for a row that is put together; empty without a gather.
    fn joined<'s>(&self, scratch: &'s mut [i8]) -> Result<&'s mut [i16], SizeError> {
        match self.gather {
            None => Ok(&mut []),
            Some(_) => Ok(carve(scratch, self.channels)?.0),
        }
    }

    /// Whether every result surely stays below 2¹⁵ − 1: no value of a row is more than √(C − 1) deviations from its mean (Samuelson's inequality). A
    /// thousandth stands for what rounding adds.
    fn fits_i16(&self) -> bool {
        let deviations = 1.001 * (self.channels.isqrt() + 1) as f32;
        deviations * largest(self.gamma) + largest(self.beta) < f32::from(i16::MAX - 1)
    }

    /// What follows the statistics.
    fn affine(&self) -> Affine<'a> {
        Affine {
            factor: self.channels as i32,
            gamma: self.gamma,
            beta: self.beta,
        }
    }

    /// `C·Q − S² + E` from a row's sum S and sum of squares Q, shifted up to 2⁶²..2⁶⁴; and the shift, which is even.
    #[inline]
    pub(super) fn variance(&self, sum: i32, squares: u64) -> (u64, u32) {
        let square = (i64::from(sum) * i64::from(sum)) as u64;
        let v = self.channels as u64 * squares - square + self.eps;
        let z = v.leading_zeros() & !1;
        (v << z, z)
    }
}

/// Gamma and beta keep the contract's bounds: what is rounded stays below 2³¹.
pub(crate) fn check_affine(gamma: &[f32], beta: &[f32]) -> Result<(), ParamError> {
    values("gamma", "at most 2^14 in magnitude", gamma, |g| {
        g.abs() <= 16384.0 && !g.is_subnormal()
    })?;
    values("beta", "at most 2^20 in magnitude", beta, |b| {
        b.abs() <= 1_048_576.0 && !b.is_subnormal()
    })
}

/// The output has the type and `expected` elements.
pub(crate) fn check_out(
    out: &Out<'_>,
    output: NormOutput,
    expected: usize,
) -> Result<(), SizeError> {
    match (out, output) {
        (Out::S8(_), NormOutput::S8) | (Out::S16(_), NormOutput::S16) => {
            exact("out", out.len(), expected)
        }
        _ => Err(SizeError::OutType),
    }
}

/// The reciprocal of the deviation: from the root of the shifted variance, and the shift.
#[inline]
fn rstd(root: u32, shift: u32) -> f32 {
    (1.0 / root as f32) * f32::from_bits((127 + shift / 2) << 23)
}
