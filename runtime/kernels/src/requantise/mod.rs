//! From i32 accumulators to what the next operation reads; see "Requantise" in `docs/numerics.md`.

mod lanes;
pub(crate) mod scalar;
pub(crate) mod simd;

use crate::error::{exact, length, rule, values};
use crate::{ParamError, SizeError};

/// Smallest scale: its products with any non-zero i32 are normal numbers.
pub(crate) const SCALE_MIN: f32 = f32::from_bits((127 - 100) << 23);
/// 2³¹: products stay below it, so that every CPU converts them alike.
pub(crate) const CONVERTIBLE: f32 = 2_147_483_648.0;

/// What becomes of the rounded value.
#[derive(Clone, Copy, Debug)]
pub enum Output<'a> {
    /// `max(sat8(sat16(r) + zero_point), min)`, then the table, if any.
    S8 {
        /// Added after scaling.
        zero_point: i8,
        /// −128, or −127 for q, k and v.
        min: i8,
        /// An activation function: entry `q as u8` replaces q.
        table: Option<&'a [i8; 256]>,
    },
    /// `sat16(r)`, into [`Out::S16`] or added to [`Out::S16Add`].
    S16,
    /// r itself.
    S32,
}

impl Output<'_> {
    /// The params do not contradict each other.
    pub(crate) fn check(&self) -> Result<(), ParamError> {
        let low = matches!(self, Self::S8 { min, .. } if *min > -127);
        rule("an s8 output's minimum is -128 or -127", !low)
    }

    /// `out` has the type, without a residual, and `expected` elements.
    pub(crate) fn check_out(&self, out: &Out<'_>, expected: usize) -> Result<(), SizeError> {
        match (self, out) {
            (Self::S8 { .. }, Out::S8(_)) | (Self::S16, Out::S16(_)) | (Self::S32, Out::S32(_)) => {
                exact("out", out.len(), expected)
            }
            _ => Err(SizeError::OutType),
        }
    }
}

/// The rows of the output tensor that `run` computes.
#[derive(Debug)]
pub enum Out<'a> {
    /// For [`Output::S8`].
    S8(&'a mut [i8]),
    /// For [`Output::S16`].
    S16(&'a mut [i16]),
    /// For [`Output::S16`]: holds the residual on entry, the saturated sum on return.
    S16Add(&'a mut [i16]),
    /// For [`Output::S32`].
    S32(&'a mut [i32]),
}

impl Out<'_> {
    pub(crate) fn len(&self) -> usize {
        match self {
            Self::S8(y) => y.len(),
            Self::S16(y) | Self::S16Add(y) => y.len(),
            Self::S32(y) => y.len(),
        }
    }
}

/// Bias and scale per output channel, and the output's form.
#[derive(Clone, Copy, Debug)]
pub struct Requantise<'a> {
    pub(crate) bias: &'a [i32],
    pub(crate) scale: &'a [f32],
    pub(crate) output: Output<'a>,
}

impl<'a> Requantise<'a> {
    /// `bias` and `scale` hold one number per output channel; those of a GEMM are padded to [`crate::padded_n`] (padding: bias 0, scale 1).
    ///
    /// # Errors
    /// Lengths differ, a scale is not finite, normal and ≥ 2⁻¹⁰⁰, or `min` is neither −128 nor −127.
    pub fn new(bias: &'a [i32], scale: &'a [f32], output: Output<'a>) -> Result<Self, ParamError> {
        let this = Self::new_verified(bias, scale, output)?;
        this.check_elements()?;
        Ok(this)
    }

    /// The part of `new` that reads the arrays' elements.
    ///
    /// # Errors
    /// Those of `new` that are about elements.
    pub fn check_elements(&self) -> Result<(), ParamError> {
        values("scale", "finite and at least 2^-100", self.scale, |s| {
            s.is_finite() && s >= SCALE_MIN
        })
    }

    /// As `new`, for arrays it has accepted before: reads no element (see the crate's documentation).
    ///
    /// # Errors
    /// Those of `new` that are not about elements.
    pub fn new_verified(
        bias: &'a [i32],
        scale: &'a [f32],
        output: Output<'a>,
    ) -> Result<Self, ParamError> {
        length("scale", scale.len(), bias.len())?;
        output.check()?;
        Ok(Self {
            bias,
            scale,
            output,
        })
    }

    /// One bias per output channel, padding included.
    #[must_use]
    pub fn bias(&self) -> &'a [i32] {
        self.bias
    }

    /// One scale per output channel, padding included.
    #[must_use]
    pub fn scale(&self) -> &'a [f32] {
        self.scale
    }

    /// What becomes of the rounded value.
    #[must_use]
    pub fn output(&self) -> Output<'a> {
        self.output
    }

    /// Accumulators of magnitude up to `reach` plus bias stay in i32, and scaled below 2³¹. Rounding is monotonic, so checking the largest in
    /// f32 checks all.
    pub(crate) fn check_reach(&self, reach: u64) -> Result<(), ParamError> {
        let largest = |bias: i32| reach.saturating_add(u64::from(bias.unsigned_abs()));
        values(
            "bias",
            "small enough for 32-bit accumulators",
            self.bias,
            |b| largest(b) < 1 << 31,
        )?;
        let scaled = |index: usize| largest(self.bias[index]) as f32 * self.scale[index];
        match (0..self.bias.len()).find(|&index| scaled(index) >= CONVERTIBLE) {
            None => Ok(()),
            Some(index) => Err(ParamError::Value {
                what: "scale",
                index,
                bound: "below 2^31 / largest accumulator",
            }),
        }
    }

    /// `out` has the form's type and `expected` elements.
    pub(crate) fn check_out(&self, out: &Out<'_>, expected: usize) -> Result<(), SizeError> {
        if let (Output::S16, Out::S16Add(y)) = (&self.output, out) {
            return exact("out", y.len(), expected);
        }
        self.output.check_out(out, expected)
    }
}

/// The largest magnitude of finite numbers.
pub(crate) fn largest(numbers: &[f32]) -> f32 {
    // Bits of positive floats are in the order of the floats.
    let bits = numbers.iter().map(|number| number.abs().to_bits()).max();
    f32::from_bits(bits.unwrap_or(0))
}
