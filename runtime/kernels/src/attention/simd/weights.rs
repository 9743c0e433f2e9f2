//! Logits and exponentials of up to 8 query rows.
//!
//! Without bias and mask the logits' maximum is taken, then differences are scaled. With them, logits are scaled, rounded and biased in place while the
//! maximum is taken; what is masked or past the last key becomes `PAST_END`, whose exponential is 0.

use super::super::exp2::{POLYNOMIAL, T_MAX as CAP};
use super::bias::BiasRows;
use super::workspace::Workspace;
use super::{Group, Head, PAST_END};
use crate::gemm::simd::Rows;
use crate::gemm::{NR, padded_k};
use crate::isa::{Gains, Isa, Routine, unroll};

/// Beyond this the exponential is 0.
const T_MAX: i16 = CAP as i16;
/// Where sums start.
pub(crate) const ZEROS: [i32; 2 * NR] = [0; 2 * NR];

/// The logits of R query rows of a group, whose keys are packed in `work`.
pub(super) struct Logits<'w, 's, 'g, 'a, const R: usize> {
    pub(super) group: &'w Group<'g, 'a>,
    pub(super) work: &'w mut Workspace<'s>,
    /// Readable to the padded head size.
    pub(super) queries: Rows,
    /// The first row of the logits.
    pub(super) row: usize,
}

impl<const R: usize> Routine for Logits<'_, '_, '_, '_, R> {
    type Output = ();

    #[inline(always)]
    fn simd<I: Isa>(self, isa: I) {
        let (shape, queries) = (&self.group.op.shape, self.queries);
        let (dim, pitch) = (padded_k(shape.head_dim), padded_k(shape.keys));
        let panel = NR * dim;
        let mut packed = self.work.keys.as_ptr();
        let mut logits = self.work.logits[self.row * pitch..].as_mut_ptr();
        let mut key = 0;
        // SAFETY: `queries` are R rows; there is room for 8 packed ones; keys are packed in panels of 8; there are logits for 8 rows of `pitch`, a multiple
        // of 16, so two panels have room in a row.
        unsafe {
            let shifts = isa.shifts::<R>(queries.first, queries.stride, dim);
            let to = self.work.packed_queries.as_mut_ptr();
            let (first, stride) = isa.pack_queries::<R>(queries.first, queries.stride, dim, to);
            while I::WIDE && R == 4 && key + NR < shape.keys {
                let init = self.initial(key, 2 * NR).as_ptr();
                let [left, right] = isa.tile_wide(init, first, stride, dim, packed, panel);
                unroll!(R, r, {
                    isa.store_i32(logits.add(r * pitch), left[r % 4]);
                    isa.store_i32(logits.add(r * pitch + NR), right[r % 4]);
                });
                packed = packed.add(2 * panel);
                logits = logits.add(2 * NR);
                key += 2 * NR;
            }
            while key < shape.keys {
                let init = self.initial(key, NR)[NR..].as_ptr();
                let acc = isa.tile_queries::<R>(init, &shifts, first, stride, dim, packed);
                unroll!(R, r, {
                    isa.store_i32(logits.add(r * pitch), acc[r]);
                });
                packed = packed.add(panel);
                logits = logits.add(NR);
                key += NR;
            }
        }
    }
}

impl<const R: usize> Logits<'_, '_, '_, '_, R> {
    /// Where the sums of two panels start, of which the last ends with key `key + count`.
    #[inline(always)]
    fn initial(&self, key: usize, count: usize) -> &[i32; 2 * NR] {
        if key + count > self.group.op.shape.keys {
            &self.group.head.past_end
        } else {
            &ZEROS
        }
    }
}

/// What is done to logits before exponentials are taken.
pub(super) const PLAIN: u8 = 0;
/// They are scaled, rounded and biased.
pub(super) const BIASED: u8 = 1;
/// And the keys of other labels are masked.
pub(super) const MASKED: u8 = 2;

/// The planes of `count` query rows, whose logits are in `work`, and their factors. If WHOLE, exponentials take the room of both planes (see `mix`).
pub(super) struct Softmax<'w, 's, 'g, 'a, const FORM: u8, const WHOLE: bool> {
    pub(super) group: &'w Group<'g, 'a>,
    pub(super) work: &'w mut Workspace<'s>,
    /// The first row, counted in the group.
    pub(super) query: usize,
    pub(super) count: usize,
    /// The first row of the planes.
    pub(super) row: usize,
}

impl<const FORM: u8, const WHOLE: bool> Routine for Softmax<'_, '_, '_, '_, FORM, WHOLE> {
    type Output = ();
    const GAINS: Gains = Gains::LAYOUT;

    #[inline(always)]
    fn simd<I: Isa>(self, isa: I) {
        let (op, head, work) = (self.group.op, self.group.head, self.work);
        let keys = op.shape.keys;
        let pitch = padded_k(keys);
        let mut bias = BiasRows::new(op, head.index, self.query, work.bias);
        // SAFETY: `work` has logits for 8 rows of `pitch`, two planes and a factor for every row from `row` on, and labels for every query of the group.
        unsafe {
            let mut logits = work.logits.as_mut_ptr();
            let mut planes = work.planes.as_mut_ptr().add(2 * self.row * pitch);
            let factors = work.factors.as_mut_ptr().add(self.row);
            let labels = work.labels.as_ptr();
            for r in 0..self.count {
                let max = if FORM == PLAIN {
                    max_logit(isa, logits, keys)
                } else {
                    let query = match FORM {
                        MASKED => *labels.add(self.query + r),
                        _ => 0,
                    };
                    let row = Row {
                        logits,
                        bias: bias.next(),
                        labels,
                        query: isa.splat_i32(query),
                    };
                    row.bias_logits::<I, FORM>(isa, head, keys)
                };
                let sum = exponentials::<I, FORM, WHOLE>(isa, head, logits, keys, max, planes);
                *factors.add(r) = head.out_scale / sum as f32;
                logits = logits.add(pitch);
                planes = planes.add(2 * pitch);
            }
        }
    }
}

/// The largest of `keys` logits, in all lanes.
///
/// # Safety
/// `logits` is valid for reading `keys` rounded up to 8; those past the end are below all others.
#[inline(always)]
unsafe fn max_logit<I: Isa>(isa: I, mut logits: *const i32, keys: usize) -> I::I32 {
    // SAFETY: the caller's promise.
    unsafe {
        let (mut max, vectors) = ([isa.splat_i32(i32::MIN); 2], keys.div_ceil(NR));
        for _ in 0..vectors / 4 {
            let two = isa.max_i32(isa.load_i32(logits), isa.load_i32(logits.add(NR)));
            max[0] = isa.max_i32(max[0], two);
            let (third, fourth) = (logits.add(2 * NR), logits.add(3 * NR));
            let two = isa.max_i32(isa.load_i32(third), isa.load_i32(fourth));
            max[1] = isa.max_i32(max[1], two);
            logits = logits.add(4 * NR);
        }
        for _ in 0..vectors % 4 {
            max[0] = isa.max_i32(max[0], isa.load_i32(logits));
            logits = logits.add(NR);
        }
        isa.splat_max(isa.max_i32(max[0], max[1]))
    }
}

/// A row of logits, and what is added to them.
struct Row<V> {
    logits: *mut i32,
    bias: *const i32,
    /// Labels of the keys, and the query's in all lanes.
    labels: *const i32,
    query: V,
}

impl<V: Copy> Row<V> {
    /// Scales, rounds, biases and masks the logits; returns the largest, in all lanes.
    ///
    /// # Safety
    /// Logits and bias are valid for `keys` rounded up to 8, and so are labels if FORM needs them.
    #[inline(always)]
    unsafe fn bias_logits<I: Isa<I32 = V>, const FORM: u8>(
        self,
        isa: I,
        head: &Head,
        keys: usize,
    ) -> V {
        // SAFETY: the caller's promise.
        unsafe {
            let scale = isa.splat_f32(head.logit_scale);
            let none = isa.splat_i32(i32::MAX);
            let (mut max, mut j) = ([isa.splat_i32(PAST_END); 2], 0);
            while j + 2 * NR <= keys {
                max[0] = isa.max_i32(max[0], self.eight::<I, FORM>(isa, j, scale, none));
                max[1] = isa.max_i32(max[1], self.eight::<I, FORM>(isa, j + NR, scale, none));
                j += 2 * NR;
            }
            if keys & NR != 0 {
                max[0] = isa.max_i32(max[0], self.eight::<I, FORM>(isa, j, scale, none));
                j += NR;
            }
            if j < keys {
                let cap = isa.load_i32(head.cap.as_ptr());
                max[1] = isa.max_i32(max[1], self.eight::<I, FORM>(isa, j, scale, cap));
            }
            isa.splat_max(isa.max_i32(max[0], max[1]))
        }
    }

    /// 8 logits from `j` on, at most `cap`; they are returned, too.
    ///
    /// # Safety
    /// As `bias_logits`.
    #[inline(always)]
    unsafe fn eight<I: Isa<I32 = V>, const FORM: u8>(
        &self,
        isa: I,
        j: usize,
        scale: I::F32,
        cap: V,
    ) -> V {
        // SAFETY: the caller's promise.
        unsafe {
            let logits = self.logits.add(j);
            let scaled = isa.mul_f32(isa.to_f32(isa.load_i32(logits)), scale);
            let l = isa.add_i32(isa.round_i32(scaled), isa.load_i32(self.bias.add(j)));
            let mut l = isa.min_i32(l, cap);
            if FORM == MASKED {
                let labels = isa.load_i32(self.labels.add(j));
                l = isa.select_equal(labels, self.query, l, isa.splat_i32(PAST_END));
            }
            isa.store_i32(logits, l);
            l
        }
    }
}

/// Puts the exponentials of the logits to `planes`; returns their sum. If FORM is not plain, logits are scaled and rounded.
///
/// # Safety
/// `logits` and planes are valid for `keys` rounded up to 8.
#[inline(always)]
unsafe fn exponentials<I: Isa, const FORM: u8, const WHOLE: bool>(
    isa: I,
    head: &Head,
    mut logits: *const i32,
    keys: usize,
    max: I::I32,
    planes: *mut i8,
) -> i32 {
    let planes = Planes::<WHOLE> {
        first: planes,
        pitch: padded_k(keys),
    };
    // SAFETY: the caller's promise; the last vector begins below `keys`.
    unsafe {
        let scale = isa.splat_f32(head.logit_scale);
        // Differences from the maximum are 0 or less, so what is added to them for `exp2_neg` can be subtracted from the maximum.
        let max = match FORM {
            PLAIN => max,
            _ => isa.sub_i32(max, isa.splat_i32(i32::from(FRACTION))),
        };
        let (mut sum, mut j) = (isa.splat_i32(0), 0);
        while j + 2 * NR <= keys {
            let e = [
                exponential::<I, FORM>(isa, logits, max, scale),
                exponential::<I, FORM>(isa, logits.add(NR), max, scale),
            ];
            sum = isa.accumulate(isa.accumulate(sum, e[0]), e[1]);
            planes.store_pair(isa, j, e);
            logits = logits.add(2 * NR);
            j += 2 * NR;
        }
        if keys & NR != 0 {
            let e = exponential::<I, FORM>(isa, logits, max, scale);
            sum = isa.accumulate(sum, e);
            planes.store(isa, j, e);
            logits = logits.add(NR);
            j += NR;
        }
        if !keys.is_multiple_of(NR) {
            let mut e = exponential::<I, FORM>(isa, logits, max, scale);
            if FORM == PLAIN {
                e = isa.and_i16(e, isa.load_i16(head.mask.as_ptr()));
            }
            sum = isa.accumulate(sum, e);
            planes.store(isa, j, e);
        }
        isa.reduce_add(sum)
    }
}

/// Where the exponentials of a row go: split into planes, or all 14 bits of them.
struct Planes<const WHOLE: bool> {
    first: *mut i8,
    pitch: usize,
}

impl<const WHOLE: bool> Planes<WHOLE> {
    /// 8 exponentials, of the keys from `j` on.
    ///
    /// # Safety
    /// `j` + 8 ≤ `pitch`, and there are two planes.
    #[inline(always)]
    unsafe fn store<I: Isa>(&self, isa: I, j: usize, e: I::I16) {
        // SAFETY: the caller's promise.
        unsafe {
            if WHOLE {
                isa.store_i16(self.first.cast::<i16>().add(j), e);
            } else {
                isa.store_planes(self.first, self.pitch, j, e);
            }
        }
    }

    /// As `store` for 16 keys.
    ///
    /// # Safety
    /// `j` + 16 ≤ `pitch`, and there are two planes.
    #[inline(always)]
    unsafe fn store_pair<I: Isa>(&self, isa: I, j: usize, e: [I::I16; 2]) {
        if WHOLE {
            // SAFETY: the caller's promise.
            unsafe {
                self.store(isa, j, e[0]);
                self.store(isa, j + NR, e[1]);
            }
        } else {
            // SAFETY: the caller's promise.
            unsafe { isa.store_planes_pair(self.first, self.pitch, j, e) };
        }
    }
}

/// The exponentials of 8 logits.
///
/// # Safety
/// `logits` is valid for reading 8.
#[inline(always)]
unsafe fn exponential<I: Isa, const FORM: u8>(
    isa: I,
    logits: *const i32,
    max: I::I32,
    scale: I::F32,
) -> I::I16 {
    // SAFETY: the caller's promise.
    let below = isa.sub_i32(unsafe { isa.load_i32(logits) }, max);
    if FORM == PLAIN {
        plain_exponential(isa, isa.mul_f32(isa.to_f32(below), scale))
    } else {
        exp2_neg(isa, isa.narrow_floored(below, FRACTION - T_MAX))
    }
}

/// The exponentials of 8 scaled differences from the maximum, in units of 2⁻¹⁰ octave.
#[inline(always)]
pub(crate) fn plain_exponential<I: Isa>(isa: I, below: I::F32) -> I::I16 {
    let t = isa.round_floored(below, -T_MAX);
    exp2_neg(isa, isa.add_i16(t, isa.splat_i16(FRACTION)))
}

/// The bits of t that are its fraction.
const FRACTION: i16 = 1023;

/// As [`exp2_neg`](super::super::exp2::exp2_neg) of t = 1023 − w, 8 lanes. So −(t >> 10) is w >> 10, and the fraction's bits are those of !w.
#[inline(always)]
fn exp2_neg<I: Isa>(isa: I, w: I::I16) -> I::I16 {
    let [p0, p1, p2, p3] = POLYNOMIAL;
    let minus_n = isa.shift_right_i16::<10>(w);
    let g = isa.and_not_i16(isa.splat_i16(FRACTION << 5), isa.shift_left_i16::<5>(w));
    let m = isa.add_i16(isa.splat_i16(p2), isa.mulr_i16(isa.splat_i16(p3), g));
    let m = isa.add_i16(isa.splat_i16(p1), isa.mulr_i16(m, g));
    let m = isa.add_i16(isa.splat_i16(p0), isa.mulr_i16(m, g));
    isa.shift_round_i16(m, minus_n)
}
