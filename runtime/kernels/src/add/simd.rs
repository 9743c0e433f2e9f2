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
            let first = group.start * self.channels;
            let from = (rows.start + group.start) * self.channels;
            let count = group.len();
            // SAFETY: `run` checked that the operands hold all rows, and `out` those of `rows`.
            unsafe {
                with_form!(target, form => self.rows_simd(isa, form, terms, count, from, first));
                target.look_up(isa, &self.output, first, count * self.channels);
            }
        }
        Ok(())
    }
}

impl Add<'_> {
    /// `count` rows: from element `from` of the operands, to element `to` of the form. Blocks of channels outside, rows inside: the numbers per
    /// channel stay in registers.
    ///
    /// # Safety
    /// They have these rows, of at least 8 channels.
    #[inline(always)]
    unsafe fn rows_simd<I: Isa, F: Form>(
        &self,
        isa: I,
        form: F,
        terms: Terms<'_>,
        count: usize,
        from: usize,
        to: usize,
    ) {
        for block in 0..self.channels.div_ceil(NR) {
            let c = (block * NR).min(self.channels - NR);
            // SAFETY: c + 8 lies within the channels, and there are that many factors and biases (`new`).
            unsafe {
                let bias = isa.load_f32(self.bias.as_ptr().add(c));
                let (a, scale_a) = (terms.a.0, isa.load_f32(terms.a.1.as_ptr().add(c)));
                let (mut from, mut to) = (from + c, to + c);
                if let Some((b, scale_b)) = terms.b {
                    let scale_b = isa.load_f32(scale_b.as_ptr().add(c));
                    for _ in 0..count {
                        let first = isa.mul_f32(value(isa, a, from), scale_a);
                        let second = isa.mul_f32(value(isa, b, from), scale_b);
                        let sum = isa.add_f32(first, second);
                        form.put(isa, isa.add_f32(sum, bias), to);
                        from += self.channels;
                        to += self.channels;
                    }
                } else {
                    for _ in 0..count {
                        let first = isa.mul_f32(value(isa, a, from), scale_a);
                        form.put(isa, isa.add_f32(first, bias), to);
                        from += self.channels;
                        to += self.channels;
                    }
                }
            }
        }
    }
}

/// 8 elements from `index` on.
///
/// # Safety
/// They lie within the operand.
#[inline(always)]
unsafe fn value<I: Isa>(isa: I, x: In<'_>, index: usize) -> I::F32 {
    // SAFETY: the caller's promise.
    unsafe {
        match x {
            In::S8(x) => isa.to_f32(isa.widen_i16(isa.load_i8_wide(x.as_ptr().add(index)))),
            In::S16(x) => isa.to_f32(isa.widen_i16(isa.load_i16(x.as_ptr().add(index)))),
            In::S32(x) => {
                let x = isa.to_f32(isa.load_i32(x.as_ptr().add(index)));
                let x = isa.max_f32(x, isa.splat_f32(-ROUND_MAX));
                isa.min_f32(x, isa.splat_f32(ROUND_MAX))
            }
        }
    }
}
