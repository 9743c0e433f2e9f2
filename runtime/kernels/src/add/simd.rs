//! 8 channels at a time. The last block overlaps its neighbour. Rows of fewer than 8 channels are the reference's, and so are s32: only logits
//! are, one row, and loops for every pair of types and every form of output would make the largest function of all.

use core::ops::Range;

use super::Add;
use crate::gemm::NR;
use crate::isa::{Gains, Isa, Reference, Vectorised};
use crate::requantise::simd::{Form, Target, match_form, row_groups};
use crate::{In, Out, SizeError};

/// A type of operand: its loop is compiled for it alone.
trait Operand: Copy {
    /// 8 elements from `index` on.
    ///
    /// # Safety
    /// They lie within the operand.
    unsafe fn value<I: Isa>(self, isa: I, index: usize) -> I::F32;
}

impl Operand for *const i8 {
    #[inline(always)]
    unsafe fn value<I: Isa>(self, isa: I, index: usize) -> I::F32 {
        // SAFETY: the caller's promise.
        isa.to_f32(isa.widen_i16(unsafe { isa.load_i8_wide(self.add(index)) }))
    }
}

impl Operand for *const i16 {
    #[inline(always)]
    unsafe fn value<I: Isa>(self, isa: I, index: usize) -> I::F32 {
        // SAFETY: the caller's promise.
        isa.to_f32(isa.widen_i16(unsafe { isa.load_i16(self.add(index)) }))
    }
}

/// `$body` with `$operand` bound to the first element of `$x`: compiled once for each type but s32.
macro_rules! with_operand {
    ($x:expr, $operand:ident => $body:expr) => {
        match $x {
            In::S8(x) => {
                let $operand = x.as_ptr();
                $body
            }
            In::S16(x) => {
                let $operand = x.as_ptr();
                $body
            }
            In::S32(_) => {}
        }
    };
}

/// `count` rows: from element `from` of the operands, to element `to` of the form.
#[derive(Clone, Copy)]
struct Group {
    count: usize,
    from: usize,
    to: usize,
}

impl Vectorised for Add<'_> {
    const GAINS: Gains = Gains::LANES;

    #[inline(always)]
    fn run_simd<I: Isa>(
        &self,
        isa: I,
        rows: Range<usize>,
        (a, b): (In<'_>, Option<In<'_>>),
        out: &mut Out<'_>,
        scratch: &mut [i8],
    ) -> Result<(), SizeError> {
        let is_s32 = |x| matches!(x, In::S32(_));
        if self.channels < NR || is_s32(a) || b.is_some_and(is_s32) || matches!(out, Out::S32(_)) {
            return self.run_scalar(rows, (a, b), out, scratch);
        }
        let target = Target::new(isa, &self.output, || self.fits_i16(), out);
        for group in row_groups(rows.len(), self.channels) {
            let first = group.start * self.channels;
            let group = Group {
                count: group.len(),
                from: rows.start * self.channels + first,
                to: first,
            };
            // SAFETY: `run` checked that the operands hold all rows, and `out` those of `rows`.
            unsafe {
                match_form!(own target, form => with_operand!(a, a => match self.second(b) {
                    None => self.scale_rows(isa, form, a, group),
                    Some((b, scale)) => with_operand!(b, b => self.add_rows(isa, form, a, (b, scale), group)),
                }));
                target.look_up(isa, &self.output, first, group.count * self.channels);
            }
        }
        Ok(())
    }
}

impl Add<'_> {
    /// Some rows of two operands. Blocks of channels outside, rows inside: the numbers per channel stay in registers.
    ///
    /// # Safety
    /// Operands and form have these rows, of at least 8 channels; there is a factor per channel.
    #[inline(always)]
    unsafe fn add_rows<I: Isa, F: Form>(
        &self,
        isa: I,
        form: F,
        a: impl Operand,
        (b, scale): (impl Operand, &[f32]),
        group: Group,
    ) {
        for block in 0..self.channels.div_ceil(NR) {
            let c = (block * NR).min(self.channels - NR);
            // SAFETY: c + 8 lies within the channels, and there are that many factors and biases (`new`).
            unsafe {
                let factors = Factors {
                    a: isa.load_f32(self.a.scale.as_ptr().add(c)),
                    b: isa.load_f32(scale.as_ptr().add(c)),
                    bias: isa.load_f32(self.bias.as_ptr().add(c)),
                };
                let (mut from, mut to) = (group.from + c, group.to + c);
                // Two rows a turn.
                for _ in 0..group.count / 2 {
                    form.put(isa, factors.sum(isa, a, b, from), to);
                    let next = factors.sum(isa, a, b, from + self.channels);
                    form.put(isa, next, to + self.channels);
                    from += 2 * self.channels;
                    to += 2 * self.channels;
                }
                if !group.count.is_multiple_of(2) {
                    form.put(isa, factors.sum(isa, a, b, from), to);
                }
            }
        }
    }

    /// As `add_rows` for one operand.
    ///
    /// # Safety
    /// As `add_rows`.
    #[inline(always)]
    unsafe fn scale_rows<I: Isa, F: Form>(&self, isa: I, form: F, a: impl Operand, group: Group) {
        for block in 0..self.channels.div_ceil(NR) {
            let c = (block * NR).min(self.channels - NR);
            // SAFETY: as in `add_rows`.
            unsafe {
                let bias = isa.load_f32(self.bias.as_ptr().add(c));
                let scale = isa.load_f32(self.a.scale.as_ptr().add(c));
                let (mut from, mut to) = (group.from + c, group.to + c);
                for _ in 0..group.count {
                    let scaled = isa.mul_f32(a.value(isa, from), scale);
                    form.put(isa, isa.add_f32(scaled, bias), to);
                    from += self.channels;
                    to += self.channels;
                }
            }
        }
    }
}

/// The numbers of 8 channels.
struct Factors<V> {
    a: V,
    b: V,
    bias: V,
}

impl<V: Copy> Factors<V> {
    /// 8 sums, from element `index` of the operands on.
    ///
    /// # Safety
    /// They lie within the operands.
    #[inline(always)]
    unsafe fn sum<I: Isa<F32 = V>>(
        &self,
        isa: I,
        a: impl Operand,
        b: impl Operand,
        index: usize,
    ) -> V {
        // SAFETY: the caller's promise.
        let (a, b) = unsafe { (a.value(isa, index), b.value(isa, index)) };
        let sum = isa.add_f32(isa.mul_f32(a, self.a), isa.mul_f32(b, self.b));
        isa.add_f32(sum, self.bias)
    }
}
