//! An element-wise product of two tensors, of which the second may have fewer rows (a gate) and more columns.

mod scalar;
mod simd;

use core::ops::Range;

use crate::error::{at_least, length, row_range, rule, size, values};
use crate::gemm::{DIM_MAX, TENSOR_MAX};
use crate::isa::dispatch;
use crate::requantise::{CONVERTIBLE, SCALE_MIN};
use crate::{In, InType, Kernel, Out, Output, ParamError, SizeError};

/// The first operand.
#[derive(Clone, Copy, Debug)]
pub struct Factor {
    /// Its type, s8 or s16.
    pub element: InType,
    /// What stands for 0; 0 if it is s16.
    pub zero_point: i8,
}

/// The second operand, and which of its elements meet the first's: element c of row r meets `b[row][offset + c]`.
#[derive(Clone, Copy, Debug)]
pub struct Gate<'a> {
    /// Its type, s8 or s16.
    pub element: InType,
    /// What stands for 0; 0 if it is s16.
    pub zero_point: i8,
    /// Its rows.
    pub rows: usize,
    /// Elements of its rows.
    pub stride: usize,
    /// The column that meets column 0 of the first operand.
    pub offset: usize,
    /// The row for each row of the first operand. None: the one row, or (if there are as many) the row of the same number.
    pub table: Option<&'a [u32]>,
}

/// `y = round((a − zero_a)·(b − zero_b)·scale)` per element, then the output's form; see "Mul" in `docs/numerics.md`.
#[derive(Clone, Copy, Debug)]
pub struct Mul<'a> {
    pub(crate) rows: usize,
    pub(crate) channels: usize,
    pub(crate) a: Factor,
    pub(crate) b: Gate<'a>,
    pub(crate) scale: &'a [f32],
    pub(crate) output: Output<'a>,
}

impl<'a> Mul<'a> {
    /// `scale` has one number per channel: the product of the operands' scales ÷ the output's.
    ///
    /// # Errors
    /// A size, length or number is outside the contract's bounds.
    pub fn new(
        rows: usize,
        channels: usize,
        a: Factor,
        b: Gate<'a>,
        scale: &'a [f32],
        output: Output<'a>,
    ) -> Result<Self, ParamError> {
        let mul = Self::new_verified(rows, channels, a, b, scale, output)?;
        mul.check_elements()?;
        Ok(mul)
    }

    /// The part of `new` that reads the arrays' elements.
    ///
    /// # Errors
    /// Those of `new` that are about elements.
    pub fn check_elements(&self) -> Result<(), ParamError> {
        let Self { a, b, .. } = self;
        let reach = reach(a.element, a.zero_point) * reach(b.element, b.zero_point);
        values(
            "scale",
            "at least 2^-100, and below 2^31 / largest product",
            self.scale,
            |s| s >= SCALE_MIN && reach * s < CONVERTIBLE,
        )?;
        values(
            "rows of b",
            "a row of the second operand",
            b.table.unwrap_or(&[]),
            |row| (row as usize) < b.rows,
        )
    }

    /// As `new`, for arrays it has accepted before: reads no element (see the crate's documentation).
    ///
    /// # Errors
    /// Those of `new` that are not about elements.
    pub fn new_verified(
        rows: usize,
        channels: usize,
        a: Factor,
        b: Gate<'a>,
        scale: &'a [f32],
        output: Output<'a>,
    ) -> Result<Self, ParamError> {
        size("rows", rows, DIM_MAX)?;
        size("channels", channels, DIM_MAX)?;
        size("tensor", rows.saturating_mul(channels), TENSOR_MAX)?;
        size("rows of b", b.rows, DIM_MAX)?;
        size("columns of b", b.stride, DIM_MAX)?;
        size("b", b.rows.saturating_mul(b.stride), TENSOR_MAX)?;
        rule(
            "the second operand has the columns that the product asks for",
            b.offset.saturating_add(channels) <= b.stride,
        )?;
        match b.table {
            Some(table) => length("rows of b", table.len(), rows)?,
            None => rule(
                "without a table the second operand has one row, or as many as the first",
                b.rows == 1 || b.rows == rows,
            )?,
        }
        for (element, zero_point) in [(a.element, a.zero_point), (b.element, b.zero_point)] {
            rule(
                "a product's operands are s8, or s16 with zero point 0",
                match element {
                    InType::S8 => true,
                    InType::S16 => zero_point == 0,
                    InType::S32 => false,
                },
            )?;
        }
        length("scale", scale.len(), channels)?;
        output.check()?;
        Ok(Self {
            rows,
            channels,
            a,
            b,
            scale,
            output,
        })
    }

    /// Token rows, or pixels.
    #[must_use]
    pub fn rows(&self) -> usize {
        self.rows
    }

    /// Elements of a row.
    #[must_use]
    pub fn channels(&self) -> usize {
        self.channels
    }

    /// The first operand.
    #[must_use]
    pub fn a(&self) -> Factor {
        self.a
    }

    /// The second operand.
    #[must_use]
    pub fn b(&self) -> Gate<'a> {
        self.b
    }

    /// Factor per channel.
    #[must_use]
    pub fn scale(&self) -> &'a [f32] {
        self.scale
    }

    /// The output's form.
    #[must_use]
    pub fn output(&self) -> Output<'a> {
        self.output
    }

    /// Elements of a and of y.
    #[must_use]
    pub fn input_len(&self) -> usize {
        self.rows * self.channels
    }

    /// Elements of b.
    #[must_use]
    pub fn b_len(&self) -> usize {
        self.b.rows * self.b.stride
    }

    /// Scratch bytes `run` needs: none.
    #[must_use]
    pub fn scratch_len(&self) -> usize {
        0
    }

    /// Multiply-accumulates: none worth counting.
    #[must_use]
    pub fn macs(&self) -> u64 {
        0
    }

    /// Computes `rows` from the whole of `a` and `b` into `out`, which holds only those rows.
    ///
    /// # Errors
    /// A buffer or the row range does not fit; nothing was written.
    pub fn run(
        &self,
        kernel: Kernel,
        rows: Range<usize>,
        a: In<'_>,
        b: In<'_>,
        out: Out<'_>,
        scratch: &mut [i8],
    ) -> Result<(), SizeError> {
        row_range(&rows, self.rows)?;
        a.check("a", self.a.element, self.input_len())?;
        b.check("b", self.b.element, self.b_len())?;
        self.output.check_out(&out, rows.len() * self.channels)?;
        at_least("scratch", scratch.len(), self.scratch_len())?;
        dispatch(kernel, self, rows, (a, b), out, scratch)
    }

    /// Index of the element of b that meets element 0 of row `row` of a.
    fn gate_start(&self, row: usize) -> usize {
        let b_row = match self.b.table {
            // A table that was never verified reads some row of b.
            Some(table) => (table[row] as usize).min(self.b.rows - 1),
            None if self.b.rows == 1 => 0,
            None => row,
        };
        b_row * self.b.stride + self.b.offset
    }
}

/// Largest magnitude of an operand less its zero point.
fn reach(element: InType, zero_point: i8) -> f32 {
    element.reach() + f32::from(zero_point).abs()
}
