//! Keys and values of a head are packed once into the GEMM's blocked layout; then, for up to 8 query rows at a time:
//!
//! 1. logits: the tile over the packed keys. Columns past the last key start at `PAST_END`, so that they are never the maximum;
//! 2. exponentials: 8 at a time, split into the two planes. Lanes past the last key are masked to 0, and whole vectors past it stay 0 from the start;
//! 3. output: the tile over the packed values, once for each plane.

use core::ops::Range;

use super::Attention;
use super::exp2::{POLYNOMIAL, T_MAX};
use super::view::View;
use crate::gemm::simd::Rows;
use crate::gemm::{K_STEP, NR, ROWS, packed_index, padded_k, padded_n};
use crate::isa::{Isa, Reference, Routine, Vectorised, unroll};
use crate::requantise::simd::quantise8;
use crate::scratch::carve;
use crate::{Out, SizeError};

/// Where sums start.
const ZEROS: [i32; NR] = [0; NR];
/// Below every logit (|logit| ≤ 512·2¹⁴), and far enough from overflow.
const PAST_END: i32 = -(1 << 29);

/// The pieces of scratch, for one head at a time.
struct Workspace<'s> {
    /// Packed keys: N = keys, K = head size.
    keys: &'s mut [i8],
    /// Packed values: N = head size, K = keys.
    values: &'s mut [i8],
    /// Query rows padded to the packed K, if they cannot be read in place.
    queries: &'s mut [i8],
    /// `[rows][padded keys]`.
    logits: &'s mut [i32],
    /// The exponentials' upper 7 bits, `[rows][padded keys]`.
    high: &'s mut [i8],
    /// The lower 7 bits.
    low: &'s mut [i8],
}

impl<'s> Workspace<'s> {
    fn new(op: &Attention<'_>, scratch: &'s mut [i8]) -> Result<Self, SizeError> {
        let (keys, dim) = (padded_k(op.shape.keys), padded_k(op.shape.head_dim));
        let (packed_keys, rest) = carve(scratch, keys * dim)?;
        let (values, rest) = carve(rest, keys * padded_n(op.shape.head_dim))?;
        let (queries, rest) = carve(rest, ROWS * dim)?;
        let (logits, rest) = carve(rest, ROWS * keys)?;
        let (high, rest) = carve(rest, ROWS * keys)?;
        let (low, _) = carve(rest, ROWS * keys)?;
        let mut this = Self {
            keys: packed_keys,
            values,
            queries,
            logits,
            high,
            low,
        };
        // Paddings: never written again.
        for piece in [
            &mut this.keys,
            &mut this.values,
            &mut this.queries,
            &mut this.high,
            &mut this.low,
        ] {
            piece.fill(0);
        }
        Ok(this)
    }

    fn pack(&mut self, op: &Attention<'_>, head: usize, k: &[i8], v: &[i8]) {
        let dim = padded_k(op.shape.head_dim);
        for j in 0..op.shape.keys {
            let key = &k[op.k.view.at(head, j)..][..op.shape.head_dim];
            let first = packed_index(j, 0, dim);
            let steps = self.keys[first..].chunks_mut(NR * K_STEP);
            for (key, step) in key.chunks(K_STEP).zip(steps) {
                match (key.first_chunk::<K_STEP>(), step.first_chunk_mut()) {
                    (Some(key), Some(step)) => *step = *key,
                    _ => step[..key.len()].copy_from_slice(key),
                }
            }
        }
        for j in (0..op.shape.keys).step_by(K_STEP) {
            self.pack_values(op, head, j, v);
        }
    }

    /// The values of up to 4 keys from `j` on: a column's lie side by side.
    fn pack_values(&mut self, op: &Attention<'_>, head: usize, j: usize, v: &[i8]) {
        let row = |j: usize| &v[op.v.view.at(head, j)..][..op.shape.head_dim];
        let panels = self.values.chunks_exact_mut(NR * padded_k(op.shape.keys));
        let blocks = panels.map(|panel| &mut panel[j * NR..][..NR * K_STEP]);
        if j + K_STEP > op.shape.keys {
            for (block, d) in blocks.zip((0..).step_by(NR)) {
                for (index, j) in (j..op.shape.keys).enumerate() {
                    for (column, &value) in row(j)[d..].iter().take(NR).enumerate() {
                        block[column * K_STEP + index] = value;
                    }
                }
            }
            return;
        }
        let rows = [row(j), row(j + 1), row(j + 2), row(j + 3)];
        for (block, d) in blocks.zip((0..).step_by(NR)) {
            let columns = block.chunks_exact_mut(K_STEP).take(op.shape.head_dim - d);
            for (column, d) in columns.zip(d..) {
                for (value, row) in column.iter_mut().zip(rows) {
                    *value = row[d];
                }
            }
        }
    }

    /// The rows of q from `row` on, each readable to the padded head size.
    fn query_rows(
        &mut self,
        view: View,
        q: &[i8],
        head: usize,
        row: usize,
        count: usize,
        head_dim: usize,
    ) -> Rows {
        let dim = padded_k(head_dim);
        if dim == head_dim {
            return Rows {
                first: q[view.at(head, row)..].as_ptr(),
                stride: view.row_stride,
            };
        }
        for (index, copy) in self.queries.chunks_exact_mut(dim).take(count).enumerate() {
            copy[..head_dim].copy_from_slice(&q[view.at(head, row + index)..][..head_dim]);
        }
        Rows {
            first: self.queries.as_ptr(),
            stride: dim,
        }
    }
}

/// One head's constants.
struct Head {
    logit_scale: f32,
    out_scale: f32,
    /// Initial logits of the last, partial vector of keys; 0 where there is a key.
    past_end: [i32; NR],
    /// All ones where the last vector of keys has a key.
    mask: [i16; NR],
}

impl Vectorised for Attention<'_> {
    #[inline(always)]
    fn run_simd<I: Isa>(
        &self,
        isa: I,
        rows: Range<usize>,
        [q, k, v]: [&[i8]; 3],
        out: &mut Out<'_>,
        scratch: &mut [i8],
    ) -> Result<(), SizeError> {
        let Out::S8(out) = out else {
            return Err(SizeError::OutType);
        };
        if !self.is_plain() {
            return self.run_scalar(rows, [q, k, v], &mut Out::S8(out), scratch);
        }
        let mut work = Workspace::new(self, scratch)?;
        for head in 0..self.shape.heads {
            work.pack(self, head, k, v);
            let constants = self.head(head);
            let mut row = rows.start;
            while row < rows.end {
                let count = tile_rows::<I>(rows.end - row);
                let queries =
                    work.query_rows(self.q.view, q, head, row, count, self.shape.head_dim);
                let first = self.out.view.at(head, row - rows.start);
                // SAFETY: `new` checked that the heads lie within a row of the output, and `run` that `out` holds `rows`.
                let y = unsafe { out.as_mut_ptr().add(first) };
                let (op, work, head) = (self, &mut work, &constants);
                match count {
                    8 => isa.call(Group::<8> {
                        op,
                        work,
                        head,
                        queries,
                        y,
                    }),
                    4 => isa.call(Group::<4> {
                        op,
                        work,
                        head,
                        queries,
                        y,
                    }),
                    2 => isa.call(Group::<2> {
                        op,
                        work,
                        head,
                        queries,
                        y,
                    }),
                    _ => isa.call(Group::<1> {
                        op,
                        work,
                        head,
                        queries,
                        y,
                    }),
                }
                row += count;
            }
        }
        Ok(())
    }
}

impl Attention<'_> {
    fn is_plain(&self) -> bool {
        let operands = [self.q, self.k, self.v, self.out];
        let plain = operands
            .iter()
            .all(|o| o.rows.is_none() && o.constants.is_empty());
        plain && !self.is_biased() && self.shape.groups * self.shape.slots == 1
    }

    fn head(&self, head: usize) -> Head {
        let (mut past_end, mut mask) = ([0; NR], [-1; NR]);
        if !self.shape.keys.is_multiple_of(NR) {
            past_end[self.shape.keys % NR..].fill(PAST_END);
            mask[self.shape.keys % NR..].fill(0);
        }
        Head {
            logit_scale: self.quantisation.logit_scale[head],
            out_scale: self.quantisation.out_scale[head],
            past_end,
            mask,
        }
    }
}

/// R query rows of one head. Whoever makes one promises: `queries` are R rows readable to the padded head size; `work` is that of `op`, with the
/// head packed; `y` is the head's first element of the first of R rows of the output.
struct Group<'g, 's, 'a, const R: usize> {
    op: &'g Attention<'a>,
    work: &'g mut Workspace<'s>,
    head: &'g Head,
    queries: Rows,
    y: *mut i8,
}

impl<const R: usize> Routine for Group<'_, '_, '_, R> {
    type Output = ();

    #[inline(always)]
    fn simd<I: Isa>(self, isa: I) {
        let pitch = padded_k(self.op.shape.keys);
        // SAFETY: as promised; `work` has 8 rows of `pitch` logits and plane bytes, and R ≤ 8.
        unsafe {
            self.op
                .logits::<I, R>(isa, self.work, self.head, self.queries);
            let mut factors = [0.0; R];
            for (r, factor) in factors.iter_mut().enumerate() {
                let sum = self.op.softmax_row(isa, self.work, self.head, r * pitch);
                *factor = self.head.out_scale / sum as f32;
            }
            self.op.mix::<I, R>(isa, self.work, factors, self.y);
        }
    }
}

impl Attention<'_> {
    /// # Safety
    /// As `Group`.
    #[inline(always)]
    unsafe fn logits<I: Isa, const R: usize>(
        &self,
        isa: I,
        work: &mut Workspace<'_>,
        head: &Head,
        queries: Rows,
    ) {
        let (dim, pitch) = (padded_k(self.shape.head_dim), padded_k(self.shape.keys));
        let mut key = 0;
        while key < self.shape.keys {
            let partial = key + NR > self.shape.keys;
            // SAFETY: the caller's promises; `key` is a multiple of 8 below the padded number of keys.
            unsafe {
                let init = if partial { &head.past_end } else { &ZEROS };
                let acc = isa.tile::<R>(
                    init.as_ptr(),
                    queries.first,
                    queries.stride,
                    dim,
                    work.keys.as_ptr().add(key * dim),
                );
                unroll!(R, r, {
                    isa.store_i32(work.logits.as_mut_ptr().add(r * pitch + key), acc[r]);
                });
            }
            key += NR;
        }
    }

    /// Splits the exponentials of the logits at `first` into the planes; returns their sum.
    ///
    /// # Safety
    /// As `Group`; `first` is the start of a row.
    #[inline(always)]
    unsafe fn softmax_row<I: Isa>(
        &self,
        isa: I,
        work: &mut Workspace<'_>,
        head: &Head,
        first: usize,
    ) -> i32 {
        // SAFETY: `j + 16`, and `j + 8` for the last vector, never exceed the padded number of keys, the length of a row.
        unsafe {
            let logits = work.logits.as_ptr().add(first);
            let (high, low) = (
                work.high.as_mut_ptr().add(first),
                work.low.as_mut_ptr().add(first),
            );
            let scale = isa.splat_f32(head.logit_scale);
            let max = isa.splat_i32(max_logit(isa, logits, self.shape.keys));
            let (mut sum, mut j) = (isa.splat_i32(0), 0);
            while j + 2 * NR <= self.shape.keys {
                let e = [
                    exponentials(isa, logits.add(j), max, scale),
                    exponentials(isa, logits.add(j + NR), max, scale),
                ];
                sum = isa.accumulate(isa.accumulate(sum, e[0]), e[1]);
                isa.store_halves_pair(high.add(j), low.add(j), e);
                j += 2 * NR;
            }
            while j < self.shape.keys {
                let mut e = exponentials(isa, logits.add(j), max, scale);
                if j + NR > self.shape.keys {
                    e = isa.and_i16(e, isa.load_i16(head.mask.as_ptr()));
                }
                sum = isa.accumulate(sum, e);
                isa.store_halves(high.add(j), low.add(j), e);
                j += NR;
            }
            isa.reduce_add(sum)
        }
    }

    /// # Safety
    /// As `Group`.
    #[inline(always)]
    unsafe fn mix<I: Isa, const R: usize>(
        &self,
        isa: I,
        work: &Workspace<'_>,
        factors: [f32; R],
        y: *mut i8,
    ) {
        let pitch = padded_k(self.shape.keys);
        // Keys in tiles of 16, and the last few in steps of 4.
        let (whole, steps) = match (
            self.shape.keys & !15,
            (self.shape.keys & 15).div_ceil(K_STEP),
        ) {
            (0, _) | (_, 4) => (pitch, 0),
            split => split,
        };
        let weight = isa.splat_f32(128.0);
        let zero_point = isa.splat_i16(i16::from(self.quantisation.zero_point));
        let min = isa.splat_i16(i16::from(self.quantisation.min));
        let mut d = 0;
        while d < self.shape.head_dim {
            // SAFETY: the caller's promises; `d` is a multiple of 8 below the padded head size.
            unsafe {
                let values = work.values.as_ptr().add(d * pitch);
                let rest = values.add(NR * whole);
                let plane = work.high.as_ptr();
                let high = isa.tile::<R>(ZEROS.as_ptr(), plane, pitch, whole, values);
                let high = isa.tile_steps::<R>(high, plane.add(whole), pitch, steps, rest);
                let plane = work.low.as_ptr();
                let low = isa.tile::<R>(ZEROS.as_ptr(), plane, pitch, whole, values);
                let low = isa.tile_steps::<R>(low, plane.add(whole), pitch, steps, rest);
                unroll!(R, r, {
                    let high = isa.mul_f32(isa.to_f32(high[r]), weight);
                    let mixed = isa.add_f32(high, isa.to_f32(low[r]));
                    let scaled = isa.mul_f32(mixed, isa.splat_f32(factors[r]));
                    let q = quantise8(isa, scaled, zero_point, min);
                    store_columns(
                        isa,
                        y.add(r * self.out.view.row_stride + d),
                        q,
                        self.shape.head_dim - d,
                    );
                });
            }
            d += NR;
        }
    }
}

/// The largest of `keys` logits.
///
/// # Safety
/// `logits` is valid for reading `keys` rounded up to 8; those past the end are below all others.
#[inline(always)]
unsafe fn max_logit<I: Isa>(isa: I, logits: *const i32, keys: usize) -> i32 {
    // SAFETY: the caller's promise.
    unsafe {
        let (mut max, mut j) = (isa.load_i32(logits), NR);
        while j + NR < keys {
            let two = isa.max_i32(
                isa.load_i32(logits.add(j)),
                isa.load_i32(logits.add(j + NR)),
            );
            max = isa.max_i32(max, two);
            j += 2 * NR;
        }
        if j < keys {
            max = isa.max_i32(max, isa.load_i32(logits.add(j)));
        }
        isa.reduce_max(max)
    }
}

/// The exponentials of 8 logits.
///
/// # Safety
/// `logits` is valid for reading 8.
#[inline(always)]
unsafe fn exponentials<I: Isa>(isa: I, logits: *const i32, max: I::I32, scale: I::F32) -> I::I16 {
    // SAFETY: the caller's promise.
    let below = isa.sub_i32(max, unsafe { isa.load_i32(logits) });
    let t = isa.round_capped(isa.mul_f32(isa.to_f32(below), scale), T_MAX as i16);
    exp2_neg(isa, t)
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

/// Rows of the next group.
#[inline(always)]
fn tile_rows<I: Isa>(left: usize) -> usize {
    match left {
        8.. if I::ROWS == 8 => 8,
        4.. => 4,
        2.. => 2,
        _ => 1,
    }
}

/// As [`super::exp2::exp2_neg`], 8 lanes.
#[inline(always)]
fn exp2_neg<I: Isa>(isa: I, t: I::I16) -> I::I16 {
    let [p0, p1, p2, p3] = POLYNOMIAL;
    let n = isa.shift_right_i16::<10>(t);
    let g = isa.shift_left_i16::<5>(isa.and_i16(t, isa.splat_i16(1023)));
    let m = isa.add_i16(isa.splat_i16(p2), isa.mulr_i16(isa.splat_i16(p3), g));
    let m = isa.add_i16(isa.splat_i16(p1), isa.mulr_i16(m, g));
    let m = isa.add_i16(isa.splat_i16(p0), isa.mulr_i16(m, g));
    isa.shift_right_round_i16(m, n)
}
