//! 8 channels at a time. The last block overlaps its neighbour; rows of fewer than 8 channels are the reference's.

use core::ops::Range;

use super::Add;
use crate::gemm::NR;
use crate::isa::{Isa, Reference, Vectorised};
use crate::requantise::scalar::ROUND_MAX;
use crate::requantise::simd::{Form, Target, row_groups, with_form};
use crate::{In, Out, SizeError};

/// The operands, and a factor per channel for each.
#[derive(Clone, Copy)]
struct Terms<'r> {
    a: (In<'r>, &'r [f32]),
    b: Option<(In<'r>, &'r [f32])>,
}

impl Vectorised for Add<'_> {
    #[inline(always)]
    fn run_simd<I: Isa>(
        &self,
        isa: I,
        rows: Range<usize>,
        (a, b): (In<'_>, Option<In<'_>>),
        out: &mut Out<'_>,
        scratch: &mut [i8],
    ) -> Result<(), SizeError> {
        if self.channels < NR {
            return self.run_scalar(rows, (a, b), out, scratch);
        }
        let terms = Terms {
            a: (a, self.a.scale),
            b: self.second(b),
        };
        let target = Target::new(&self.output, out);
        for group in row_groups(rows.len(), self.channels) {
            // SAFETY: `run` checked that the operands hold all rows, and `out` those of `rows`.
            unsafe {
                for index in group.clone() {
                    with_form!(target, form => self.row(isa, form, terms, rows.start + index, index));
                }
                let first = group.start * self.channels;
                target.look_up(isa, &self.output, first, group.len() * self.channels);
            }
        }
        Ok(())
    }
}

impl Add<'_> {
    /// Row `row` of the operands, to row `index` of the form.
    ///
    /// # Safety
    /// They have these rows, of at least 8 channels.
    #[inline(always)]
    unsafe fn row<I: Isa, F: Form>(
        &self,
        isa: I,
        form: F,
        terms: Terms<'_>,
        row: usize,
        index: usize,
    ) {
        let (from, to) = (row * self.channels, index * self.channels);
        for block in 0..self.channels.div_ceil(NR) {
            let c = (block * NR).min(self.channels - NR);
            // SAFETY: c + 8 lies within the channels, and there are that many factors and biases (`new`).
            unsafe {
                let mut sum = product(isa, terms.a, from, c);
                if let Some(b) = terms.b {
                    sum = isa.add_f32(sum, product(isa, b, from, c));
                }
                let sum = isa.add_f32(sum, isa.load_f32(self.bias.as_ptr().add(c)));
                form.put(isa, sum, to + c);
            }
        }
    }
}

/// 8 channels from `c` on, of the row that starts at element `from`, times their factors.
///
/// # Safety
/// `from + c + 8` lies within the operand, and `c + 8` within the factors.
#[inline(always)]
unsafe fn product<I: Isa>(isa: I, (x, scale): (In<'_>, &[f32]), from: usize, c: usize) -> I::F32 {
    // SAFETY: the caller's promise.
    unsafe {
        let value = match x {
            In::S8(x) => isa.to_f32(isa.widen_i16(isa.load_i8_wide(x.as_ptr().add(from + c)))),
            In::S16(x) => isa.to_f32(isa.widen_i16(isa.load_i16(x.as_ptr().add(from + c)))),
            In::S32(x) => {
                let x = isa.to_f32(isa.load_i32(x.as_ptr().add(from + c)));
                let x = isa.max_f32(x, isa.splat_f32(-ROUND_MAX));
                isa.min_f32(x, isa.splat_f32(ROUND_MAX))
            }
        };
        isa.mul_f32(value, isa.load_f32(scale.as_ptr().add(c)))
    }
}
