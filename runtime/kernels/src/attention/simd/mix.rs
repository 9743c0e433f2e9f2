//! Planes times values, for up to 8 query rows.

use super::weights::{ZEROS, plane_row};
use super::workspace::Workspace;
use super::{Group, Part};
use crate::gemm::{K_STEP, NR, padded_k};
use crate::isa::{Isa, Routine, unroll};
use crate::requantise::simd::quantise8;

/// R query rows of a group, whose planes and whose values of a slot are in `work`.
pub(super) struct Mix<'w, 's, 'g, 'a, const R: usize> {
    group: &'w Group<'g, 'a>,
    work: &'w Workspace<'s>,
    /// The head's first element in each row of the output, or of a spare one.
    y: [*mut i8; R],
    /// The first row of the planes.
    row: usize,
}

impl<'w, 's, 'g, 'a, const R: usize> Mix<'w, 's, 'g, 'a, R> {
    /// Query rows `query..query + R` for a slot, counted over all groups.
    #[inline(always)]
    pub(super) fn new(
        group: &'w Group<'g, 'a>,
        slot: usize,
        query: usize,
        part: &mut Part<'_>,
        work: &'w mut Workspace<'s>,
    ) -> Self {
        let (out, head) = (&group.op.out, group.head.index);
        let first = slot * group.op.shape.queries + query;
        let mut y = [work.spare.as_mut_ptr(); R];
        for (r, y) in y.iter_mut().enumerate() {
            let row = out.row(first + r).wrapping_sub(part.rows.start);
            if row < part.rows.len() {
                // The row is in the part, and the heads lie within a row (`new`).
                *y = part.out.as_mut_ptr().wrapping_add(out.view.at(head, row));
            }
        }
        Self {
            group,
            work,
            y,
            row: plane_row(group, query),
        }
    }
}

impl<const R: usize> Routine for Mix<'_, '_, '_, '_, R> {
    type Output = ();

    #[inline(always)]
    fn simd<I: Isa>(self, isa: I) {
        let (op, work, row) = (self.group.op, self.work, self.row);
        let (head_dim, keys) = (op.shape.head_dim, op.shape.keys);
        let pitch = padded_k(keys);
        // Keys in tiles of 16, and the last few in steps of 4.
        let (whole, steps) = match (keys & !15, (keys & 15).div_ceil(K_STEP)) {
            (0, _) | (_, 4) => (pitch, 0),
            split => split,
        };
        let factors = &work.factors[row..][..R];
        let weight = isa.splat_f32(128.0);
        let zero_point = isa.splat_i16(i16::from(op.quantisation.zero_point));
        let min = isa.splat_i16(i16::from(op.quantisation.min));
        let mut d = 0;
        while d < head_dim {
            // SAFETY: planes have R rows from `row` on; `d` is a multiple of 8 below the padded head size; y has the columns that there are.
            unsafe {
                let values = work.values.as_ptr().add(d * pitch);
                let rest = values.add(NR * whole);
                let plane = work.high.as_ptr().add(row * pitch);
                let high = isa.tile::<R>(ZEROS.as_ptr(), plane, pitch, whole, values);
                let high = isa.tile_steps::<R>(high, plane.add(whole), pitch, steps, rest);
                let plane = work.low.as_ptr().add(row * pitch);
                let low = isa.tile::<R>(ZEROS.as_ptr(), plane, pitch, whole, values);
                let low = isa.tile_steps::<R>(low, plane.add(whole), pitch, steps, rest);
                unroll!(R, r, {
                    let high = isa.mul_f32(isa.to_f32(high[r]), weight);
                    let mixed = isa.add_f32(high, isa.to_f32(low[r]));
                    let scaled = isa.mul_f32(mixed, isa.splat_f32(factors[r]));
                    let q = quantise8(isa, scaled, zero_point, min);
                    store_columns(isa, self.y[r].add(d), q, head_dim - d);
                });
            }
            d += NR;
        }
    }
}

/// Stores the first `count` values, at most 8.
///
/// # Safety
/// `y` is valid for writing that many.
#[inline(always)]
unsafe fn store_columns<I: Isa>(isa: I, y: *mut i8, v: I::I16, count: usize) {
    // SAFETY: the caller's promise; the buffer has 8 elements.
    unsafe {
        if count >= NR {
            isa.store_sat8(y, v);
        } else {
            let mut buffer = [0; NR];
            isa.store_sat8(buffer.as_mut_ptr(), v);
            core::ptr::copy_nonoverlapping(buffer.as_ptr(), y, count);
        }
    }
}
