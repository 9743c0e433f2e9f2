//! Planes times values. A query row's two planes are two rows of a tile, so that both sums are in registers when they are joined.

use super::super::AttentionShape;
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
    fn simd<I: Isa>(self, isa: I) {
        let (op, work) = (self.group.op, self.work);
        let AttentionShape {
            head_dim,
            queries,
            keys,
            ..
        } = op.shape;
        let pitch = padded_k(keys);
        let rows = OutputRows::<P> {
            table: op.out.rows,
            start: self.part.rows.start,
            count: self.part.rows.len(),
            // What lies in the part lies in `out`, and the heads within a row (`new`).
            first: (self.part.out.as_mut_ptr())
                .wrapping_add(op.out.view.at(self.group.head.index, 0)),
            stride: op.out.view.row_stride,
            spare: work.spare.as_mut_ptr(),
        };
        let mut panel = Panel::<P> {
            planes: work.planes.as_ptr().wrapping_add(2 * self.row * pitch),
            pitch,
            keys: keys.next_multiple_of(K_STEP),
            factors: work.factors.as_ptr().wrapping_add(self.row),
            zero_point: op.quantisation.zero_point,
            min: op.quantisation.min,
        };
        let values = work.values.as_ptr();
        let mut element = self.slot * queries + self.query;
        for _ in 0..self.blocks {
            let y = rows.get(element);
            // SAFETY: there are P planes and P / 2 factors for every block, a panel of values for every 8 channels, and `head_dim` channels of every row of y.
            unsafe { panel.block(isa, values, head_dim, y) };
            element += P / 2;
            panel.planes = panel.planes.wrapping_add(P * pitch);
            panel.factors = panel.factors.wrapping_add(P / 2);
        }
    }
}

/// Where the head lies in the rows of the output.
struct OutputRows<'p, const P: usize> {
    table: Option<&'p [u32]>,
    /// The rows that `first` is the first of.
    start: usize,
    count: usize,
    first: *mut i8,
    stride: usize,
    /// Room for other rows.
    spare: *mut i8,
}

impl<const P: usize> OutputRows<'_, P> {
    /// Those of P / 2 elements, in the first half of the result.
    #[inline(always)]
    fn get(&self, element: usize) -> [*mut i8; P] {
        let mut rows = [0; P];
        if let Some(table) = self.table {
            let table = &table[element..][..P / 2];
            unroll!(P, r, {
                if r < P / 2 {
                    rows[r] = table[r] as usize;
                }
            });
        } else {
            unroll!(P, r, {
                rows[r] = element + r;
            });
        }
        let mut y = [self.spare; P];
        unroll!(P, r, {
            let row = rows[r].wrapping_sub(self.start);
            if r < P / 2 && row < self.count {
                y[r] = self.first.wrapping_add(row * self.stride);
            }
        });
        y
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
    /// All channels of P / 2 rows.
    ///
    /// # Safety
    /// As `mix` for every panel of `values`; `y` is valid for writing `head_dim` elements of each row.
    #[inline(always)]
    unsafe fn block<I: Isa>(
        &self,
        isa: I,
        mut values: *const i8,
        head_dim: usize,
        y: [*mut i8; P],
    ) {
        // SAFETY: the caller's promise.
        unsafe {
            let mut d = 0;
            while d + NR <= head_dim {
                let q = self.mix(isa, values);
                unroll!(P, r, {
                    if r < P / 2 {
                        isa.store_sat8(y[r].add(d), q[r]);
                    }
                });
                values = values.wrapping_add(NR * self.pitch);
                d += NR;
            }
            if d < head_dim {
                let q = self.mix(isa, values);
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
            let acc = isa.tile_planes::<P>(init, planes, self.pitch, self.keys, values);
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
