//! A linear layer: s8 `[rows][k]` to `[rows][n]`.

mod scalar;
mod simd;

use core::ops::Range;

use crate::error::{at_least, exact, row_range, size};
use crate::gemm::{DIM_MAX, TENSOR_MAX, group_scratch_len, padded_k};
use crate::isa::dispatch;
use crate::{Gemm, Kernel, Out, ParamError, SizeError};

/// `y[row] = requantise(x[row] · weights)`. Layout: x is `[rows][k]` s8, y `[rows][n]`.
#[derive(Clone, Copy, Debug)]
pub struct Linear<'a> {
    pub(crate) rows: usize,
    pub(crate) gemm: Gemm<'a>,
}

impl<'a> Linear<'a> {
    /// # Errors
    /// No rows, or too many.
    pub fn new(rows: usize, gemm: Gemm<'a>) -> Result<Self, ParamError> {
        size("rows", rows, DIM_MAX)?;
        size("input", rows.saturating_mul(gemm.k), TENSOR_MAX)?;
        size("output", rows.saturating_mul(gemm.n), TENSOR_MAX)?;
        Ok(Self { rows, gemm })
    }

    /// Token rows.
    #[must_use]
    pub fn rows(&self) -> usize {
        self.rows
    }

    /// The weights.
    #[must_use]
    pub fn gemm(&self) -> &Gemm<'a> {
        &self.gemm
    }

    /// Elements of x.
    #[must_use]
    pub fn input_len(&self) -> usize {
        self.rows * self.gemm.k
    }

    /// Elements of y.
    #[must_use]
    pub fn output_len(&self) -> usize {
        self.rows * self.gemm.n
    }

    /// Scratch bytes `run` needs.
    #[must_use]
    pub fn scratch_len(&self) -> usize {
        let packing = self.gemm.packing_len(self.rows);
        if self.is_read_in_place() {
            packing
        } else {
            packing + group_scratch_len(self.gemm.k)
        }
    }

    /// Whether rows need no padding.
    fn is_read_in_place(&self) -> bool {
        self.gemm.k == padded_k(self.gemm.k)
    }

    /// Multiply-accumulates of the whole operation.
    #[must_use]
    pub fn macs(&self) -> u64 {
        (self.rows as u64)
            .saturating_mul(self.gemm.k as u64)
            .saturating_mul(self.gemm.n as u64)
    }

    /// Computes `rows` from the whole of `x` into `out`, which holds only those rows.
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
        row_range(&rows, self.rows)?;
        exact("x", x.len(), self.input_len())?;
        self.gemm
            .requantise
            .check_out(&out, rows.len() * self.gemm.n)?;
        at_least("scratch", scratch.len(), self.scratch_len())?;
        dispatch(kernel, self, rows, x, out, scratch)
    }
}
