//! 8 channels at a time, s16 less its zero point, which is 0, like s8. The last block overlaps its neighbour; rows of fewer than 8 channels are the reference's.

use core::ops::Range;

use super::Mul;
use crate::gemm::NR;
use crate::isa::{Gains, Isa, Reference, Vectorised};
use crate::requantise::simd::{Form, Target, row_groups, with_form};
use crate::{In, Out, SizeError};

impl Vectorised for Mul<'_> {
    const GAINS: Gains = Gains::LANES;

    #[inline(always)]
    fn run_simd<I: Isa>(
        &self,
        isa: I,
        rows: Range<usize>,
        operands: (In<'_>, In<'_>),
        out: &mut Out<'_>,
        scratch: &mut [i8],
    ) -> Result<(), SizeError> {
        if self.channels < NR {
            return self.run_scalar(rows, operands, out, scratch);
        }
        let target = Target::new(isa, &self.output, || false, out);
        for group in row_groups(rows.len(), self.channels) {
            let first = group.start * self.channels;
            let count = group.len() * self.channels;
            let group = rows.start + group.start..rows.start + group.end;
            // SAFETY: `run` checked that the operands hold all their rows, and `out` those of `rows`.
            unsafe {
                with_form!(target, form => self.rows_simd(isa, form, operands, group, first));
                target.look_up(isa, &self.output, first, count);
            }
        }
        Ok(())
    }
}

impl Mul<'_> {
    /// Some rows, to element `to` of the form and those after it. Blocks of channels outside, rows inside: the factors, and a single row of b, stay in
    /// registers.
    ///
    /// # Safety
    /// Operands and form have these rows, of at least 8 channels.
    #[inline(always)]
    unsafe fn rows_simd<I: Isa, F: Form>(
        &self,
        isa: I,
        form: F,
        (a, b): (In<'_>, In<'_>),
        rows: Range<usize>,
        to: usize,
    ) {
        let zero_a = isa.splat_i16(-i16::from(self.a.zero_point));
        let zero_b = isa.splat_i16(-i16::from(self.b.zero_point));
        for block in 0..self.channels.div_ceil(NR) {
            let c = (block * NR).min(self.channels - NR);
            let (mut from, mut to) = (rows.start * self.channels + c, to + c);
            // SAFETY: c + 8 lies within the channels; there are that many factors, and columns of b from its offset on (`new`).
            unsafe {
                let scale = isa.load_f32(self.scale.as_ptr().add(c));
                if self.b.rows == 1 {
                    let b = isa.add_i16(value(isa, b, self.b.offset + c), zero_b);
                    for _ in rows.clone() {
                        let a = isa.add_i16(value(isa, a, from), zero_a);
                        form.store(isa, [isa.mul_wide_i16(a, b)], scale, to, 0);
                        from += self.channels;
                        to += self.channels;
                    }
                } else {
                    let mut gate = self.gate_start(rows.start);
                    for row in rows.clone() {
                        if self.b.table.is_some() {
                            gate = self.gate_start(row);
                        }
                        let a = isa.add_i16(value(isa, a, from), zero_a);
                        let b = isa.add_i16(value(isa, b, gate + c), zero_b);
                        gate += self.b.stride;
                        form.store(isa, [isa.mul_wide_i16(a, b)], scale, to, 0);
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
unsafe fn value<I: Isa>(isa: I, x: In<'_>, index: usize) -> I::I16 {
    // SAFETY: the caller's promise.
    unsafe {
        match x {
            In::S8(x) => isa.load_i8_wide(x.as_ptr().add(index)),
            In::S16(x) => isa.load_i16(x.as_ptr().add(index)),
            // `run` refuses it.
            In::S32(_) => isa.splat_i16(0),
        }
    }
}
