//! An element-wise sum of two tensors, of a tensor and a constant, or one tensor in another type.

mod scalar;
mod simd;

use core::ops::Range;

use crate::error::{at_least, length, row_range, size, values};
use crate::gemm::{DIM_MAX, TENSOR_MAX};
use crate::isa::dispatch;
use crate::requantise::{CONVERTIBLE, SCALE_MIN, largest};
use crate::{In, InType, Kernel, Out, Output, ParamError, SizeError};

/// An operand and its factors.
#[derive(Clone, Copy, Debug)]
pub struct Term<'a> {
    /// The operand's type.
    pub element: InType,
    /// One factor per channel: the operand's scale ÷ the output's.
    pub scale: &'a [f32],
}

/// What is added to the first operand.
#[derive(Clone, Copy, Debug)]
pub enum Addend<'a> {
    /// Nothing: the operation converts.
    None,
    /// A tensor of the same shape.
    Tensor(Term<'a>),
    /// Numbers of the plan.
    Constant {
        /// `[rows][channels]`.
        values: &'a [i16],
        /// One factor per channel.
        scale: &'a [f32],
    },
}

/// `y = round(a·scale_a + b·scale_b + bias)` per element, then the output's form; see "Add" in `docs/numerics.md`.
#[derive(Clone, Copy, Debug)]
pub struct Add<'a> {
    pub(crate) rows: usize,
    pub(crate) channels: usize,
    pub(crate) a: Term<'a>,
    pub(crate) b: Addend<'a>,
    pub(crate) bias: &'a [f32],
    pub(crate) output: Output<'a>,
}

impl<'a> Addend<'a> {
    /// The factors, and the largest magnitude that they meet.
    fn scaled(&self) -> Option<(&'a [f32], f32)> {
        match *self {
            Self::None => None,
            Self::Tensor(Term { element, scale }) => Some((scale, element.reach())),
            Self::Constant { scale, .. } => Some((scale, InType::S16.reach())),
        }
    }
}

impl<'a> Add<'a> {
    /// `bias` has one number per channel, which carries the operands' zero points.
    ///
    /// # Errors
    /// A size, length or number is outside the contract's bounds.
    pub fn new(
        rows: usize,
        channels: usize,
        a: Term<'a>,
        b: Addend<'a>,
        bias: &'a [f32],
        output: Output<'a>,
    ) -> Result<Self, ParamError> {
        let add = Self::new_verified(rows, channels, a, b, bias, output)?;
        add.check_elements()?;
        Ok(add)
    }

    /// The part of `new` that reads the arrays' elements.
    ///
    /// # Errors
    /// Those of `new` that are about elements.
    pub fn check_elements(&self) -> Result<(), ParamError> {
        let bound = "0, or from 2^-100 to 2^31 in magnitude";
        values("scale of a", bound, self.a.scale, is_factor)?;
        if let Some((scale, _)) = self.b.scaled() {
            values("scale of b", bound, scale, is_factor)?;
        }
        values("bias", bound, self.bias, is_factor)?;
        self.check_reach()
    }

    /// As `new`, for arrays it has accepted before: reads no element (see the crate's documentation).
    ///
    /// # Errors
    /// Those of `new` that are not about elements.
    pub fn new_verified(
        rows: usize,
        channels: usize,
        a: Term<'a>,
        b: Addend<'a>,
        bias: &'a [f32],
        output: Output<'a>,
    ) -> Result<Self, ParamError> {
        size("rows", rows, DIM_MAX)?;
        size("channels", channels, DIM_MAX)?;
        size("tensor", rows.saturating_mul(channels), TENSOR_MAX)?;
        length("scale of a", a.scale.len(), channels)?;
        if let Some((scale, _)) = b.scaled() {
            length("scale of b", scale.len(), channels)?;
        }
        if let Addend::Constant { values, .. } = b {
            length("constant", values.len(), rows * channels)?;
        }
        length("bias", bias.len(), channels)?;
        output.check()?;
        Ok(Self {
            rows,
            channels,
            a,
            b,
            bias,
            output,
        })
    }

    /// Sums stay below 2³¹. Rounding is monotonic, so checking the largest in f32 checks all.
    fn check_reach(&self) -> Result<(), ParamError> {
        let largest = |c: usize| {
            let first = self.a.element.reach() * self.a.scale[c].abs();
            let second = self.b.scaled();
            let second = second.map_or(0.0, |(scale, reach)| reach * scale[c].abs());
            first + second + self.bias[c].abs()
        };
        match (0..self.channels).find(|&c| largest(c) >= CONVERTIBLE) {
            None => Ok(()),
            Some(index) => Err(ParamError::Value {
                what: "scale of a",
                index,
                bound: "so small that with b and the bias no sum reaches 2^31",
            }),
        }
    }

    /// Whether no sum, zero point included, reaches 2¹⁵. The largest numbers of all channels stand for those of one.
    fn fits_i16(&self) -> bool {
        let first = self.a.element.reach() * largest(self.a.scale);
        let second = self.b.scaled();
        let second = second.map_or(0.0, |(scale, reach)| reach * largest(scale));
        first + second + largest(self.bias) < f32::from(i16::MAX - 128)
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
    pub fn a(&self) -> Term<'a> {
        self.a
    }

    /// What is added to it.
    #[must_use]
    pub fn b(&self) -> Addend<'a> {
        self.b
    }

    /// Summand per channel.
    #[must_use]
    pub fn bias(&self) -> &'a [f32] {
        self.bias
    }

    /// The output's form.
    #[must_use]
    pub fn output(&self) -> Output<'a> {
        self.output
    }

    /// Elements of a, of b and of y.
    #[must_use]
    pub fn input_len(&self) -> usize {
        self.rows * self.channels
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

    /// Computes `rows` from the whole of `a`, and of `b` if it is a tensor, into `out`, which holds only those rows.
    ///
    /// # Errors
    /// A buffer or the row range does not fit; nothing was written.
    pub fn run(
        &self,
        kernel: Kernel,
        rows: Range<usize>,
        a: In<'_>,
        b: Option<In<'_>>,
        out: Out<'_>,
        scratch: &mut [i8],
    ) -> Result<(), SizeError> {
        row_range(&rows, self.rows)?;
        a.check("a", self.a.element, self.input_len())?;
        match (self.b, &b) {
            (Addend::Tensor(term), Some(b)) => b.check("b", term.element, self.input_len())?,
            (Addend::None | Addend::Constant { .. }, None) => {}
            _ => return Err(SizeError::InType { what: "b" }),
        }
        self.output.check_out(&out, rows.len() * self.channels)?;
        at_least("scratch", scratch.len(), self.scratch_len())?;
        dispatch(kernel, self, rows, (a, b), out, scratch)
    }

    /// The second operand with its factors: `b`, if it is a tensor, or the constant.
    fn second<'s>(&self, b: Option<In<'s>>) -> Option<(In<'s>, &'a [f32])>
    where
        'a: 's,
    {
        match self.b {
            Addend::None => None,
            Addend::Tensor(term) => b.map(|b| (b, term.scale)),
            Addend::Constant { values, scale } => Some((In::S16(values), scale)),
        }
    }
}

/// Products and sums with it are 0 or normal.
fn is_factor(v: f32) -> bool {
    v == 0.0 || (SCALE_MIN..=CONVERTIBLE).contains(&v.abs())
}
