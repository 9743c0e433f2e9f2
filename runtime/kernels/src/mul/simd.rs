//! 8 channels at a time. The last block overlaps its neighbour; rows of fewer than 8 channels are the reference's.

use core::ops::Range;

use super::Mul;
use crate::gemm::NR;
use crate::isa::{Isa, Reference, Vectorised};
use crate::requantise::simd::{Form, Target, row_groups, with_form};
use crate::{In, Out, SizeError};

/// An operand, from some row on, and its zero point.
#[derive(Clone, Copy)]
struct Operand<'r> {
    x: In<'r>,
    first: usize,
    zero_point: i8,
}

impl Vectorised for Mul<'_> {
    #[inline(always)]
    fn run_simd<I: Isa>(
        &self,
        isa: I,
        rows: Range<usize>,
        (a, b): (In<'_>, In<'_>),
        out: &mut Out<'_>,
        scratch: &mut [i8],
    ) -> Result<(), SizeError> {
        if self.channels < NR {
            return self.run_scalar(rows, (a, b), out, scratch);
        }
        let target = Target::new(&self.output, out);
        for group in row_groups(rows.len(), self.channels) {
            let first = group.start * self.channels;
            let count = group.len() * self.channels;
            for index in group {
                let row = rows.start + index;
                let a = Operand {
                    x: a,
                    first: row * self.channels,
                    zero_point: self.a.zero_point,
                };
                let b = Operand {
                    x: b,
                    first: self.gate_start(row),
                    zero_point: self.b.zero_point,
                };
                // SAFETY: `run` checked that the operands hold all their rows, and `out` those of `rows`; `new` the columns of b.
                unsafe {
                    with_form!(target, form => self.row(isa, form, [a, b], index * self.channels));
                }
            }
            // SAFETY: rows of `out`, as above.
            unsafe { target.look_up(isa, &self.output, first, count) };
        }
        Ok(())
    }
}

impl Mul<'_> {
    /// A row, to element `to` of the form and those after it.
    ///
    /// # Safety
    /// Operands and form have as many elements there as there are channels, at least 8.
    #[inline(always)]
    unsafe fn row<I: Isa, F: Form>(&self, isa: I, form: F, [a, b]: [Operand<'_>; 2], to: usize) {
        for block in 0..self.channels.div_ceil(NR) {
            let c = (block * NR).min(self.channels - NR);
            // SAFETY: c + 8 lies within the channels, and there are that many factors (`new`).
            unsafe {
                let product = isa.mul_wide_i16(a.centred(isa, c), b.centred(isa, c));
                let scale = isa.load_f32(self.scale.as_ptr().add(c));
                form.store(isa, [product], scale, to + c, 0);
            }
        }
    }
}

impl Operand<'_> {
    /// 8 channels from `c` on, less the zero point.
    ///
    /// # Safety
    /// The operand has them.
    #[inline(always)]
    unsafe fn centred<I: Isa>(self, isa: I, c: usize) -> I::I16 {
        // SAFETY: the caller's promise.
        unsafe {
            match self.x {
                In::S8(x) => {
                    let x = isa.load_i8_wide(x.as_ptr().add(self.first + c));
                    isa.add_i16(x, isa.splat_i16(-i16::from(self.zero_point)))
                }
                In::S16(x) => isa.load_i16(x.as_ptr().add(self.first + c)),
                // `run` refuses it.
                In::S32(_) => isa.splat_i16(0),
            }
        }
    }
}
