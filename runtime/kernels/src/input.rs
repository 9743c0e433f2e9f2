//! Operands whose type is a matter of the params.

use crate::SizeError;
use crate::error::exact;
use crate::requantise::scalar::ROUND_MAX;

/// The type of an operand.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum InType {
    /// s8.
    S8,
    /// s16, symmetric.
    S16,
    /// s32, symmetric, of magnitude below 2²² (logits).
    S32,
}

/// The whole of an operand.
#[derive(Clone, Copy, Debug)]
pub enum In<'a> {
    /// For [`InType::S8`].
    S8(&'a [i8]),
    /// For [`InType::S16`].
    S16(&'a [i16]),
    /// For [`InType::S32`].
    S32(&'a [i32]),
}

impl InType {
    /// Largest magnitude.
    pub(crate) fn reach(self) -> f32 {
        match self {
            Self::S8 => 128.0,
            Self::S16 => 32768.0,
            Self::S32 => ROUND_MAX,
        }
    }
}

impl In<'_> {
    /// Operand `what` has this type and `expected` elements.
    pub(crate) fn check(
        &self,
        what: &'static str,
        element: InType,
        expected: usize,
    ) -> Result<(), SizeError> {
        match (self, element) {
            (Self::S8(x), InType::S8) => exact(what, x.len(), expected),
            (Self::S16(x), InType::S16) => exact(what, x.len(), expected),
            (Self::S32(x), InType::S32) => exact(what, x.len(), expected),
            _ => Err(SizeError::InType { what }),
        }
    }

    /// Element `index`.
    #[inline]
    pub(crate) fn at(&self, index: usize) -> i32 {
        match self {
            Self::S8(x) => i32::from(x[index]),
            Self::S16(x) => i32::from(x[index]),
            Self::S32(x) => x[index],
        }
    }

    /// Element `index` as f32, clamped to ±(2²²−1): exact.
    #[inline]
    pub(crate) fn value(&self, index: usize) -> f32 {
        (self.at(index) as f32).clamp(-ROUND_MAX, ROUND_MAX)
    }
}
