//! Logits and exponentials of up to 8 query rows.
//!
//! Without bias and mask the logits' maximum is taken, then differences are scaled. With them, logits are scaled, rounded and biased in place while the
//! maximum is taken; what is masked or past the last key becomes `PAST_END`, whose exponential is 0.

use super::super::exp2::{POLYNOMIAL, T_MAX};
use super::bias::bias_row;
use super::pack::{gather_queries, in_place};
use super::workspace::Workspace;
use super::{Group, Head, PAST_END};
use crate::gemm::simd::Rows;
use crate::gemm::{NR, padded_k, padded_n};
use crate::isa::{Isa, Routine, unroll};

/// Where sums start.
pub(super) const ZEROS: [i32; NR] = [0; NR];

/// R query rows of a group, whose keys are packed in `work`.
pub(super) struct Weights<'w, 's, 'g, 'a, const R: usize> {
    group: &'w Group<'g, 'a>,
    work: &'w mut Workspace<'s>,
    /// Readable to the padded head size.
    queries: Rows,
    /// The first row, counted in the group.
    query: usize,
    /// Whether the group has labels that differ, in `work`.
    labels: bool,
}

impl<'w, 's, 'g, 'a, const R: usize> Weights<'w, 's, 'g, 'a, R> {
    /// Query rows `query..query + R`.
    #[inline(always)]
    pub(super) fn new(
        group: &'w Group<'g, 'a>,
        q: &[i8],
        query: usize,
        labels: bool,
        work: &'w mut Workspace<'s>,
    ) -> Self {
        let (shape, view) = (&group.op.shape, group.op.q.view);
        let dim = padded_k(shape.head_dim);
        let queries = if in_place(group) {
            let row = group.group * shape.queries + query;
            Rows {
                first: q[view.at(group.head.index, row)..].as_ptr(),
                stride: view.row_stride,
            }
        } else {
            gather_queries(group, q, query, &mut work.queries[..R * dim]);
            Rows {
                first: work.queries.as_ptr(),
                stride: dim,
            }
        };
        Self {
            group,
            work,
            queries,
            query,
            labels,
        }
    }
}

impl<const R: usize> Routine for Weights<'_, '_, '_, '_, R> {
    type Output = ();

    #[inline(always)]
    fn simd<I: Isa>(self, isa: I) {
        let (op, head) = (self.group.op, self.group.head);
        let keys = op.shape.keys;
        let pitch = padded_k(keys);
        let row = plane_row(self.group, self.query);
        let queries = self.queries;
        let work = self.work;
        // SAFETY: `queries` are R rows; keys are packed; `work` has logits for 8 rows of `pitch`, and planes for those from `row` on.
        unsafe {
            logits::<I, R>(isa, self.group, queries, work);
            for r in 0..R {
                let first = work.logits.as_mut_ptr().add(r * pitch);
                let high = work.high.as_mut_ptr().add((row + r) * pitch);
                let low = work.low.as_mut_ptr().add((row + r) * pitch);
                let sum = if op.is_biased() {
                    let bias = bias_row(op, head.index, self.query + r, work.bias);
                    let labels = self
                        .labels
                        .then(|| (work.labels.as_ptr(), work.labels[self.query + r]));
                    let max = bias_logits(isa, head, first, keys, bias, labels);
                    exponentials::<I, true>(isa, head, first, keys, max, high, low)
                } else {
                    let max = max_logit(isa, first, keys);
                    exponentials::<I, false>(isa, head, first, keys, max, high, low)
                };
                work.factors[row + r] = head.out_scale / sum as f32;
            }
        }
    }
}

/// The row of the planes that query row `query` goes to.
#[inline(always)]
pub(super) fn plane_row(group: &Group<'_, '_>, query: usize) -> usize {
    if group.op.shape.slots > 1 { query } else { 0 }
}

/// # Safety
/// `queries` are R rows, and the group's keys are packed.
#[inline(always)]
unsafe fn logits<I: Isa, const R: usize>(
    isa: I,
    group: &Group<'_, '_>,
    queries: Rows,
    work: &mut Workspace<'_>,
) {
    let shape = &group.op.shape;
    let (dim, pitch) = (padded_k(shape.head_dim), padded_k(shape.keys));
    let mut key = 0;
    while key < shape.keys {
        let partial = key + NR > shape.keys;
        // SAFETY: the caller's promises; `key` is a multiple of 8 below the padded number of keys.
        unsafe {
            let init = if partial {
                &group.head.past_end
            } else {
                &ZEROS
            };
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

/// Scales, rounds, biases and masks the logits of a row; returns the largest. `labels` are those of the keys and the query's.
///
/// # Safety
/// `logits` is valid for `keys` rounded up to 8, labels too; `bias` has at least `keys` elements.
#[inline(always)]
unsafe fn bias_logits<I: Isa>(
    isa: I,
    head: &Head,
    logits: *mut i32,
    keys: usize,
    bias: &[i32],
    labels: Option<(*const i32, i32)>,
) -> i32 {
    // SAFETY: the caller's promise; `tail` has a vector.
    unsafe {
        let scale = isa.splat_f32(head.logit_scale);
        let past_end = isa.splat_i32(PAST_END);
        let (mut max, mut j) = (past_end, 0);
        while j < keys {
            let l = isa.round_i32(isa.mul_f32(isa.to_f32(isa.load_i32(logits.add(j))), scale));
            let mut l = if j + NR <= keys {
                isa.add_i32(l, isa.load_i32(bias.as_ptr().add(j)))
            } else {
                let tail = bias_tail(isa, bias, j, keys);
                isa.min_i32(isa.add_i32(l, tail), isa.load_i32(head.cap.as_ptr()))
            };
            if let Some((keys, query)) = labels {
                let same = isa.load_i32(keys.add(j));
                l = isa.select_equal(same, isa.splat_i32(query), l, past_end);
            }
            isa.store_i32(logits.add(j), l);
            max = isa.max_i32(max, l);
            j += NR;
        }
        isa.reduce_max(max)
    }
}

/// The bias of the last, partial vector of keys, followed by anything.
///
/// # Safety
/// `bias` has at least `keys` elements, and `j` < `keys`.
#[inline(always)]
unsafe fn bias_tail<I: Isa>(isa: I, bias: &[i32], j: usize, keys: usize) -> I::I32 {
    // SAFETY: a whole vector is read only if it is there; else `keys − j` < 8 elements.
    unsafe {
        if bias.len() >= padded_n(keys) {
            return isa.load_i32(bias.as_ptr().add(j));
        }
        let mut tail = ZEROS;
        core::ptr::copy_nonoverlapping(bias.as_ptr().add(j), tail.as_mut_ptr(), keys - j);
        isa.load_i32(tail.as_ptr())
    }
}

/// Splits the exponentials of the logits into the planes; returns their sum. BIASED: they are scaled and rounded.
///
/// # Safety
/// `logits` and planes are valid for `keys` rounded up to 8.
#[inline(always)]
unsafe fn exponentials<I: Isa, const BIASED: bool>(
    isa: I,
    head: &Head,
    logits: *const i32,
    keys: usize,
    max: i32,
    high: *mut i8,
    low: *mut i8,
) -> i32 {
    // SAFETY: `j + 16`, and `j + 8` for the last vector, never exceed the number of keys rounded up to 8.
    unsafe {
        let scale = isa.splat_f32(head.logit_scale);
        let max = isa.splat_i32(max);
        let (mut sum, mut j) = (isa.splat_i32(0), 0);
        while j + 2 * NR <= keys {
            let e = [
                exponential::<I, BIASED>(isa, logits.add(j), max, scale),
                exponential::<I, BIASED>(isa, logits.add(j + NR), max, scale),
            ];
            sum = isa.accumulate(isa.accumulate(sum, e[0]), e[1]);
            isa.store_halves_pair(high.add(j), low.add(j), e);
            j += 2 * NR;
        }
        while j < keys {
            let mut e = exponential::<I, BIASED>(isa, logits.add(j), max, scale);
            if !BIASED && j + NR > keys {
                e = isa.and_i16(e, isa.load_i16(head.mask.as_ptr()));
            }
            sum = isa.accumulate(sum, e);
            isa.store_halves(high.add(j), low.add(j), e);
            j += NR;
        }
        isa.reduce_add(sum)
    }
}

/// The exponentials of 8 logits.
///
/// # Safety
/// `logits` is valid for reading 8.
#[inline(always)]
unsafe fn exponential<I: Isa, const BIASED: bool>(
    isa: I,
    logits: *const i32,
    max: I::I32,
    scale: I::F32,
) -> I::I16 {
    // SAFETY: the caller's promise.
    let below = isa.sub_i32(max, unsafe { isa.load_i32(logits) });
    let t = if BIASED {
        isa.narrow_capped(below, T_MAX as i16)
    } else {
        isa.round_capped(isa.mul_f32(isa.to_f32(below), scale), T_MAX as i16)
    };
    exp2_neg(isa, t)
}

/// As [`exp2_neg`](super::super::exp2::exp2_neg), 8 lanes.
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
