//! As the reference does it.

use core::ops::Range;

use super::Mul;
use crate::isa::{Isa, Reference, Vectorised};
use crate::{In, Out, SizeError};

impl Vectorised for Mul<'_> {
    #[inline(always)]
    fn run_simd<I: Isa>(
        &self,
        _: I,
        rows: Range<usize>,
        x: (In<'_>, In<'_>),
        out: &mut Out<'_>,
        scratch: &mut [i8],
    ) -> Result<(), SizeError> {
        self.run_scalar(rows, x, out, scratch)
    }
}
