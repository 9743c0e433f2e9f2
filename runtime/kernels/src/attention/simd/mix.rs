//! Planes times values. A query row's two planes are two rows of a tile, so that both sums are in registers when they are joined.

use super::weights::ZEROS;
use super::workspace::Workspace;
use super::{Group, Part};
use crate::gemm::{K_STEP, NR, padded_k};
use crate::isa::{Isa, Routine, unroll};
use crate::requantise::simd::quantise8;

/// Blocks of P / 2 query rows, whose planes and whose values of a slot are in `work`: P rows of a tile.
pub(super) struct Mix<'w, 's, 'g, 'a, 'p, 'o, const P: usize> {
    pub(super) group: &'w Group<'g, 'a>,
    pub(super) work: &'w mut Workspace<'s>,
    pub(super) part: &'p mut Part<'o>,
    /// Counted over all groups.
    pub(super) slot: usize,
    /// The first query row, counted in the group.
    pub(super) query: usize,
    /// Its row of the planes.
    pub(super) row: usize,
    pub(super) blocks: usize,
}

impl<const P: usize> Routine for Mix<'_, '_, '_, '_, '_, '_, P> {
    type Output = ();

    #[inline(always)]
    fn simd<I: Isa>(mut self, isa: I) {
        for _ in 0..self.blocks {
            let y = self.rows();
            // SAFETY: `rows` gives rows that can be written; planes and values are in `work`.
            unsafe { self.block(isa, y) };
            self.query += P / 2;
            self.row += P / 2;
        }
    }
}

impl<const P: usize> Mix<'_, '_, '_, '_, '_, '_, P> {
    /// The head's first element in each row of the output, or of a spare one.
    #[inline(always)]
    fn rows(&mut self) -> [*mut i8; P] {
        let (op, part) = (self.group.op, &mut *self.part);
        let first = self.slot * op.shape.queries + self.query;
        let table = op.out.rows.map(|rows| &rows[first..][..P / 2]);
        // What lies in the part lies in `out`, and the heads within a row (`new`).
        let out = part.out.as_mut_ptr();
        let out = out.wrapping_add(op.out.view.at(self.group.head.index, 0));
        let (start, count) = (part.rows.start, part.rows.len());
        let mut y = [self.work.spare.as_mut_ptr(); P];
        unroll!(P, r, {
            if r < P / 2 {
                let row = table.map_or(first + r, |rows| rows[r] as usize);
                let row = row.wrapping_sub(start);
                if row < count {
                    y[r] = out.wrapping_add(row * op.out.view.row_stride);
                }
            }
        });
        y
    }

    /// # Safety
    /// `y` are P / 2 rows of the head; planes and values are in `work`.
    #[inline(always)]
    unsafe fn block<I: Isa>(&self, isa: I, y: [*mut i8; P]) {
        let op = self.group.op;
        let (head_dim, keys) = (op.shape.head_dim, op.shape.keys);
        let pitch = padded_k(keys);
        // SAFETY: there are P planes and P / 2 factors from `row` on, a panel of values for every 8 channels, and `head_dim` channels of every row of y.
        unsafe {
            let panel = Panel::<P> {
                planes: self.work.planes.as_ptr().add(2 * self.row * pitch),
                pitch,
                keys: keys.next_multiple_of(K_STEP),
                factors: self.work.factors.as_ptr().add(self.row),
                zero_point: op.quantisation.zero_point,
                min: op.quantisation.min,
            };
            let mut values = self.work.values.as_ptr();
            let mut d = 0;
            while d + NR <= head_dim {
                let q = panel.mix(isa, values);
                unroll!(P, r, {
                    if r < P / 2 {
                        isa.store_sat8(y[r].add(d), q[r]);
                    }
                });
                values = values.add(NR * pitch);
                d += NR;
            }
            if d < head_dim {
                let q = panel.mix(isa, values);
                let mut rows = [[0; NR]; P];
                unroll!(P, r, {
                    isa.store_sat8(rows[r].as_mut_ptr(), q[r]);
                });
                for r in 0..P / 2 {
                    core::ptr::copy_nonoverlapping(rows[r].as_ptr(), y[r].add(d), head_dim - d);
                }
            }
        }
    }
}

/// What the panels of a block have in common.
struct Panel<const P: usize> {
    planes: *const i8,
    pitch: usize,
    /// Rounded up to 4.
    keys: usize,
    factors: *const f32,
    zero_point: i8,
    min: i8,
}

impl<const P: usize> Panel<P> {
    /// 8 channels of P / 2 rows, in the first half of the result.
    ///
    /// # Safety
    /// `planes` are P rows and `values` a panel of `keys`; there are P / 2 factors.
    #[inline(always)]
    unsafe fn mix<I: Isa>(&self, isa: I, values: *const i8) -> [I::I16; P] {
        let zero_point = isa.splat_i16(i16::from(self.zero_point));
        let min = isa.splat_i16(i16::from(self.min));
        let mut q = [zero_point; P];
        // SAFETY: the caller's promise.
        unsafe {
            let (init, planes) = (ZEROS.as_ptr(), self.planes);
            let acc = isa.tile_ragged::<P>(init, planes, self.pitch, self.keys, values);
            unroll!(P, r, {
                if r < P / 2 {
                    // P is 2 at least: the remainders are only for the compiler.
                    let (high, low) = (acc[2 * r % P], acc[(2 * r + 1) % P]);
                    let mixed = isa.add_f32(isa.to_f32(high), isa.to_f32_by_128(low));
                    let scaled = isa.mul_f32(mixed, isa.splat_f32(*self.factors.add(r)));
                    q[r] = quantise8(isa, scaled, zero_point, min);
                }
            });
        }
        q
    }
}
