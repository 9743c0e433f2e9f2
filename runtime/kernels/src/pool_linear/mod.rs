//! Global average pool and classifier head in one: nothing is rounded between them.

mod scalar;

use core::ops::Range;

use crate::error::{at_least, exact, row_range, rule, size};
use crate::gemm::{DIM_MAX, TENSOR_MAX};
use crate::scratch::space;
use crate::{Gemm, Kernel, Out, Output, ParamError, Requantise, SizeError};

/// `y = requantise((Σ_rows x[row]) · weights)`, s32. Layout: x is `[rows][k]` s8, y `[n]` s32; 1/rows is in the scale.
#[derive(Clone, Copy, Debug)]
pub struct PoolLinear<'a> {
    pub(crate) rows: usize,
    pub(crate) gemm: Gemm<'a>,
}

impl<'a> PoolLinear<'a> {
    /// # Errors
    /// A bound does not hold for the sum of `rows` rows, or the output is not [`Output::S32`].
    pub fn new(rows: usize, gemm: Gemm<'a>) -> Result<Self, ParamError> {
        let pool = Self::new_verified(rows, gemm)?;
        pool.check_elements()?;
        Ok(pool)
    }

    /// The part of `new` that reads the arrays' elements.
    ///
    /// # Errors
    /// Those of `new` that are about elements.
    pub fn check_elements(&self) -> Result<(), ParamError> {
        self.gemm.check_elements()?;
        self.gemm.check_reach(128 * self.rows as u64)
    }

    /// As `new`, for arrays it has accepted before: reads no element (see the crate's documentation).
    ///
    /// # Errors
    /// Those of `new` that are not about elements.
    pub fn new_verified(rows: usize, gemm: Gemm<'a>) -> Result<Self, ParamError> {
        size("rows", rows, DIM_MAX)?;
        size("input", rows.saturating_mul(gemm.k), TENSOR_MAX)?;
        rule(
            "a pooled linear layer's output is s32",
            matches!(gemm.requantise.output, Output::S32),
        )?;
        Ok(Self { rows, gemm })
    }

    /// Rows that are pooled.
    #[must_use]
    pub fn pooled_rows(&self) -> usize {
        self.rows
    }

    /// Output rows: one.
    #[must_use]
    pub fn rows(&self) -> usize {
        1
    }

    /// The weights.
    #[must_use]
    pub fn gemm(&self) -> &Gemm<'a> {
        &self.gemm
    }

    /// The requantisation.
    #[must_use]
    pub fn requantise(&self) -> &Requantise<'a> {
        &self.gemm.requantise
    }

    /// Elements of x.
    #[must_use]
    pub fn input_len(&self) -> usize {
        self.rows * self.gemm.k
    }

    /// Scratch bytes `run` needs: one sum per channel.
    #[must_use]
    pub fn scratch_len(&self) -> usize {
        space::<i32>(self.gemm.k)
    }

    /// Multiply-accumulates of the whole operation.
    #[must_use]
    pub fn macs(&self) -> u64 {
        (self.gemm.k as u64).saturating_mul(self.gemm.n as u64)
    }

    /// Computes all of it, or nothing if `rows` is empty: there is one output row.
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
        row_range(&rows, 1)?;
        exact("x", x.len(), self.input_len())?;
        self.gemm
            .requantise
            .check_out(&out, rows.len() * self.gemm.n)?;
        at_least("scratch", scratch.len(), self.scratch_len())?;
        if rows.is_empty() {
            return Ok(());
        }
        // The head is a thousandth of a network's work: the reference serves every kernel.
        let _ = kernel;
        self.run_scalar(x, out, scratch)
    }
}
