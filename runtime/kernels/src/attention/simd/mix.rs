//! Exponentials E times values v.
//!
//! E has 14 bits. Its two planes, 7 bits each, are two rows of a tile, so that both sums are in registers when they are joined; that takes two products
//! of 8 bits. WHOLE takes one of 16 bits: on ARMv8.0 that is 4 products for an instruction, and 8/3 with planes (SMULL, SMLAL and SADALP for each).
//!
//! Both give the same bits. Contract: `f32(H)·128 + f32(L)`, H and L the planes' sums, 128·H + L = Σ E·v. Up to [`WHOLE_KEYS_MAX`](super::WHOLE_KEYS_MAX)
//! keys f32 holds H and L, so the sum is the correctly rounded Σ E·v, which is what converting Σ E·v gives. (The factor 128 is in the scale.)

use super::super::AttentionShape;
use super::weights::ZEROS;
use super::workspace::Workspace;
use super::{Group, Part};
use crate::gemm::{K_STEP, NR, padded_k};
use crate::isa::{Isa, Routine, unroll};
use crate::requantise::simd::quantise8;

/// Blocks of P / 2 query rows, whose planes and whose values of a slot are in `work`: P rows of a tile. If WHOLE, blocks of P query rows.
pub(super) struct Mix<'w, 's, 'g, 'a, 'p, 'o, const P: usize, const WHOLE: bool> {
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

impl<const P: usize, const WHOLE: bool> Routine for Mix<'_, '_, '_, '_, '_, '_, P, WHOLE> {
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
        let rows = OutputRows::<P, WHOLE>::new(self.group, self.part, work);
        let mut panel = Panel::<P, WHOLE> {
            planes: work.planes.as_ptr().wrapping_add(2 * self.row * pitch),
            pitch,
            keys: if WHOLE {
                keys
            } else {
                keys.next_multiple_of(K_STEP)
            },
            factors: work.factors.as_ptr().wrapping_add(self.row),
            zero_point: op.quantisation.zero_point,
            min: op.quantisation.min,
        };
        let values = work.values.as_ptr();
        let mut element = self.slot * queries + self.query;
        for _ in 0..self.blocks {
            let y = rows.get(element);
            // SAFETY: there are two planes and a factor for every query row of every block, a panel of values for every 8 channels, and `head_dim` channels of every row of y.
            unsafe { panel.block(isa, values, head_dim, y) };
            let count = queries_of(P, WHOLE);
            element += count;
            panel.planes = panel.planes.wrapping_add(2 * count * pitch);
            panel.factors = panel.factors.wrapping_add(count);
        }
    }
}

/// Query rows of a block.
pub(super) const fn queries_of(rows: usize, whole: bool) -> usize {
    if whole { rows } else { rows / 2 }
}

/// Where the head lies in the rows of the output.
pub(crate) struct OutputRows<'p, const P: usize, const WHOLE: bool> {
    table: Option<&'p [u32]>,
    /// The rows that `first` is the first of.
    start: usize,
    count: usize,
    first: *mut i8,
    stride: usize,
    /// Room for other rows.
    spare: *mut i8,
}

impl<'p, const P: usize, const WHOLE: bool> OutputRows<'p, P, WHOLE> {
    #[inline(always)]
    pub(crate) fn new(
        group: &Group<'_, 'p>,
        part: &mut Part<'_>,
        work: &mut Workspace<'_>,
    ) -> Self {
        let out = &group.op.out;
        Self {
            table: out.rows,
            start: part.rows.start,
            count: part.rows.len(),
            // What lies in the part lies in `out`, and the heads within a row (`new`).
            first: (part.out.as_mut_ptr()).wrapping_add(out.view.at(group.head.index, 0)),
            stride: out.view.row_stride,
            spare: work.spare.as_mut_ptr(),
        }
    }

    /// Those of a block's elements, first of the result.
    #[inline(always)]
    pub(crate) fn get(&self, element: usize) -> [*mut i8; P] {
        let count = queries_of(P, WHOLE);
        let mut rows = [0; P];
        if let Some(table) = self.table {
            let table = &table[element..][..count];
            unroll!(P, r, {
                if r < count {
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
            if r < count && row < self.count {
                y[r] = self.first.wrapping_add(row * self.stride);
            }
        });
        y
    }
}

/// What the panels of a block have in common.
struct Panel<const P: usize, const WHOLE: bool> {
    planes: *const i8,
    pitch: usize,
    /// For planes, rounded up to 4.
    keys: usize,
    factors: *const f32,
    zero_point: i8,
    min: i8,
}

impl<const P: usize, const WHOLE: bool> Panel<P, WHOLE> {
    /// All channels of a block's rows.
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
        let count = queries_of(P, WHOLE);
        // SAFETY: the caller's promise.
        unsafe {
            let mut d = 0;
            while I::WIDE && !WHOLE && P == 4 && d + 2 * NR <= head_dim {
                let q = self.mix_wide(isa, values);
                unroll!(P, r, {
                    if r < P / 2 {
                        isa.store_sat8(y[r].add(d), q[0][r]);
                        isa.store_sat8(y[r].add(d + NR), q[1][r]);
                    }
                });
                values = values.wrapping_add(2 * NR * self.pitch);
                d += 2 * NR;
            }
            while d + NR <= head_dim {
                let q = self.mix(isa, values);
                unroll!(P, r, {
                    if r < count {
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
                for r in 0..count {
                    core::ptr::copy_nonoverlapping(rows[r].as_ptr(), y[r].add(d), head_dim - d);
                }
            }
        }
    }

    /// 8 channels of a block's rows, first of the result.
    ///
    /// # Safety
    /// `planes` are two rows, and `values` a panel, of `keys`; there is a factor, for each of the block's rows.
    #[inline(always)]
    unsafe fn mix<I: Isa>(&self, isa: I, values: *const i8) -> [I::I16; P] {
        // SAFETY: the caller's promise.
        unsafe { self.scaled(isa, self.sums(isa, values)) }
    }

    /// As `mix` for 2 rows and 16 channels: two panels.
    ///
    /// # Safety
    /// As `mix`, for 4 rows of `planes`.
    #[inline(always)]
    unsafe fn mix_wide<I: Isa>(&self, isa: I, values: *const i8) -> [[I::I16; P]; 2] {
        // SAFETY: the caller's promise.
        unsafe {
            let (init, planes) = (ZEROS.as_ptr(), self.planes);
            let panel = NR * self.pitch;
            isa.tile_wide_ragged(init, planes, self.pitch, self.keys, values, panel)
                .map(|acc| self.scaled(isa, join(isa, core::array::from_fn(|r| acc[r % 4]))))
        }
    }

    /// The sums of a block's rows times their factors, requantised.
    ///
    /// # Safety
    /// There is a factor for each of the block's rows.
    #[inline(always)]
    unsafe fn scaled<I: Isa>(&self, isa: I, sums: [I::F32; P]) -> [I::I16; P] {
        let zero_point = isa.splat_i16(i16::from(self.zero_point));
        let min = isa.splat_i16(i16::from(self.min));
        let mut q = [zero_point; P];
        // SAFETY: the caller's promise.
        unsafe {
            unroll!(P, r, {
                if r < queries_of(P, WHOLE) {
                    let scaled = isa.mul_f32(sums[r], isa.splat_f32(*self.factors.add(r)));
                    q[r] = quantise8(isa, scaled, zero_point, min);
                }
            });
        }
        q
    }

    /// Σ E·v in units of 128, rounded once, as `mix`.
    ///
    /// # Safety
    /// As `mix`.
    #[inline(always)]
    unsafe fn sums<I: Isa>(&self, isa: I, values: *const i8) -> [I::F32; P] {
        let mut sums = [isa.splat_f32(0.0); P];
        // SAFETY: the caller's promise; whole exponentials take the room of two planes.
        unsafe {
            if WHOLE {
                let acc = isa.weigh::<P>(self.planes.cast(), self.pitch, self.keys, values);
                unroll!(P, r, {
                    sums[r] = isa.to_f32_by_128(acc[r]);
                });
            } else {
                let (init, planes) = (ZEROS.as_ptr(), self.planes);
                let acc = isa.tile_planes::<P>(init, planes, self.pitch, self.keys, values);
                sums = join(isa, acc);
            }
        }
        sums
    }
}

/// The sums of P / 2 rows, first of the result, from those of their planes.
#[inline(always)]
fn join<I: Isa, const P: usize>(isa: I, acc: [I::I32; P]) -> [I::F32; P] {
    let mut sums = [isa.splat_f32(0.0); P];
    unroll!(P, r, {
        if r < P / 2 {
            // P is 2 at least: the remainders are only for the compiler.
            let (high, low) = (acc[2 * r % P], acc[(2 * r + 1) % P]);
            sums[r] = isa.add_f32(isa.to_f32(high), isa.to_f32_by_128(low));
        }
    });
    sums
}
