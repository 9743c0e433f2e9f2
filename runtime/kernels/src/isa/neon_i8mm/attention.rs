//! Attention of 12 query rows, in pairs of rows from the logits to the output.
//!
//! SMMLA leaves the sums of two rows and 8 columns in 4 blocks of 2 × 2. Nothing up to the exponentials looks at more than one sum, so logits stay in
//! blocks, and the maximum of a row is that of its half of the blocks: the rows are split where 16-bit lanes are left of them.
//!
//! Logits start at the bits of 1.5·2²³ (`ORIGIN`), which saves their conversion.
//!
//! Exponentials of 14 bits are split into bytes by UZP1 and UZP2, which takes no arithmetic: USMMLA multiplies unsigned bytes by signed ones (Arm
//! Architecture Reference Manual, C7.2, "USMMLA (vector)"). The sums of the upper bytes, times 256, are where those of the lower bytes start: what is
//! left is Σ E·v, of which `attention/simd/mix.rs` says why it gives the contract's bits.

use core::arch::aarch64::*;
use core::arch::asm;

use super::super::neon::Pair;
use super::super::{Isa, unroll};
use super::{blocks, load_i32_pairs, pack_group, split_i16, tile_packed_keys};
use crate::attention::simd::mix::OutputRows;
use crate::attention::simd::pack::query_rows;
use crate::attention::simd::weights::{ZEROS, plain_exponential};
use crate::attention::simd::workspace::Workspace;
use crate::attention::simd::{Group, Head, Part};
use crate::gemm::{GROUP, NR, padded_k};
use crate::{NeonI8mm, SMALL};

/// Pairs of rows.
const PAIRS: usize = GROUP / 2;
/// Logits of a group and 8 keys: `[pairs][4 blocks][2 rows][2 keys]`.
const PANEL: usize = GROUP * NR;

/// 1.5·2²³ as the bits of an f32. Added to an integer below 2²² in magnitude it makes the bits of their sum in f32, so logits that start here are
/// subtracted as f32 without being converted; their order as integers stays the same.
const ORIGIN: i32 = 0x4B40_0000;
const ORIGINS: [i32; 2 * NR] = [ORIGIN; 2 * NR];

/// Below this scale (128 times the contract's) a mean of values, at most 127 in magnitude, stays so far below 2¹⁵ that the mix needs no saturation to 16
/// bits ([`Isa::round_near`]).
const OUT_SCALE_MAX: f32 = 32_000.0;

/// 12 queries of a head, and where everything lies. Whoever makes one promises that there is all the fields say.
struct Twelve<'h> {
    head: &'h Head,
    /// A multiple of 16.
    head_dim: usize,
    keys: usize,
    /// As [`pack_group`] packs them.
    queries: *const i8,
    /// A joined panel for every 8 keys, and for every 8 channels.
    packed_keys: *const i8,
    packed_values: *const i8,
    /// Elements of a panel of values.
    value_panel: usize,
    /// Room for 12 logits for every key, rounded up to 8 keys.
    logits: *mut i32,
    /// Room for two bytes for each logit.
    bytes: *mut i8,
    zero_point: i8,
    min: i8,
    outputs: [*mut i8; GROUP],
}

/// See [`Isa::attend`].
///
/// ```text
/// for each 12 queries:
///     pack them; logits of each 8 keys to memory, and the largest of each row
///     for each pair of rows, for each 8 keys: exponentials, split into rows and then into bytes
///     for each 8 channels: exponentials times values, requantised
/// ```
///
/// # Safety
/// As there.
#[inline(always)]
pub(in crate::isa) unsafe fn attend(
    token: NeonI8mm,
    group: &Group<'_, '_>,
    q: &[i8],
    part: &mut Part<'_>,
    work: &mut Workspace<'_>,
) -> usize {
    let (op, shape) = (group.op, &group.op.shape);
    if !op.has_whole_groups() || group.head.out_scale >= OUT_SCALE_MAX {
        return 0;
    }
    let count = group.queries.len() / GROUP * GROUP;
    let outputs = OutputRows::<GROUP, true>::new(group, part, work);
    for query in (group.queries.start..).step_by(GROUP).take(count / GROUP) {
        let rows = query_rows(group, q, query, GROUP, work);
        let twelve = Twelve {
            head: group.head,
            head_dim: shape.head_dim,
            keys: shape.keys,
            queries: work.packed_queries.as_ptr(),
            packed_keys: work.keys.as_ptr(),
            packed_values: work.values.as_ptr(),
            value_panel: NR * padded_k(shape.keys),
            logits: work.logits.as_mut_ptr(),
            bytes: work.planes.as_mut_ptr(),
            zero_point: op.quantisation.zero_point,
            min: op.quantisation.min,
            outputs: outputs.get(group.group * shape.queries + query),
        };
        // SAFETY: there is room for 12 rows (`Sizes`); the caller promises the rest.
        unsafe {
            let to = work.packed_queries.as_mut_ptr();
            pack_group(rows.first, rows.stride, shape.head_dim, to);
            let maxima = logits(&twelve);
            let factors = exponentials(token, &twelve, &maxima);
            if !SMALL && twelve.min == i8::MIN && twelve.zero_point % 2 == 0 {
                mix::<true>(token, &twelve, &factors);
            } else {
                mix::<false>(token, &twelve, &factors);
            }
        }
    }
    count
}

/// Writes the logits `[panels]`[`PANEL`]; returns the largest of each pair, of which some lanes are left: `[row][2]`.
///
/// # Safety
/// As [`Twelve`] says.
#[inline(always)]
unsafe fn logits(group: &Twelve<'_>) -> [int32x4_t; PAIRS] {
    let panels = group.keys.div_ceil(NR);
    let mut maxima = [vdup(i32::MIN); PAIRS];
    // SAFETY: there are `panels` panels of keys and of logits.
    unsafe {
        let mut last = ORIGINS;
        for (to, pair) in last
            .chunks_exact_mut(NR)
            .zip(load_i32_pairs(group.head.past_end[NR..].as_ptr()))
        {
            vst1q_s32(to.as_mut_ptr(), vaddq_s32(pair.0, vdup(ORIGIN)));
            vst1q_s32(to[4..].as_mut_ptr(), vaddq_s32(pair.1, vdup(ORIGIN)));
        }
        let (mut keys, mut to) = (group.packed_keys, group.logits);
        for left in (0..panels).rev() {
            let init = if left == 0 {
                last.as_ptr()
            } else {
                ORIGINS.as_ptr()
            };
            let blocks = tile_packed_keys(init, group.queries, group.head_dim, keys);
            unroll!(PAIRS, pair, {
                let [Pair(b0, b1), Pair(b2, b3)] = blocks[pair];
                let to = to.add(2 * NR * pair);
                vst1q_s32(to, b0);
                vst1q_s32(to.add(4), b1);
                vst1q_s32(to.add(8), b2);
                vst1q_s32(to.add(12), b3);
                let max = vmaxq_s32(vmaxq_s32(b0, b1), vmaxq_s32(b2, b3));
                maxima[pair] = vmaxq_s32(maxima[pair], max);
            });
            keys = keys.add(NR * group.head_dim);
            to = to.add(PANEL);
        }
    }
    maxima
}

/// Writes the exponentials' upper bytes `[panels][pairs][2 rows][8]`, and then the lower bytes alike; returns output scale ÷ their sum: `[row][2]`.
///
/// # Safety
/// As [`Twelve`] says, and logits are written.
#[inline(always)]
unsafe fn exponentials(
    token: NeonI8mm,
    group: &Twelve<'_>,
    maxima: &[int32x4_t; PAIRS],
) -> [float32x4_t; PAIRS] {
    let (whole, panels) = (group.keys / NR, group.keys.div_ceil(NR));
    let mut factors = [vdup(0); PAIRS].map(to_f32);
    // SAFETY: there are `panels` panels of logits, and two of bytes for each.
    unsafe {
        let mask = vreinterpretq_s32_s16(vld1q_s16(group.head.mask.as_ptr()));
        let mask = [
            vreinterpretq_s16_s32(vzip1q_s32(mask, mask)),
            vreinterpretq_s16_s32(vzip2q_s32(mask, mask)),
        ];
        for pair in (0..PAIRS).step_by(2) {
            let mut two = Two {
                token,
                from: group.logits.add(2 * NR * pair),
                upper: group.bytes.add(2 * NR * pair),
                lower: panels * PANEL,
                scale: vdupq_n_f32(group.head.logit_scale),
                maxima: [row_maxima(maxima[pair]), row_maxima(maxima[pair + 1])],
                sums: [vdup(0); 2],
            };
            for _ in 0..whole {
                two.eight_keys(None);
            }
            if whole < panels {
                two.eight_keys(Some(mask));
            }
            for (factor, sum) in factors[pair..].iter_mut().zip(two.sums) {
                // A, B, A', B' to A, B, A, B to A, A, B, B.
                let sum = vaddq_s32(sum, vextq_s32::<2>(sum, sum));
                let sum = vcvtq_f32_s32(vzip1q_s32(sum, sum));
                *factor = vdivq_f32(vdupq_n_f32(group.head.out_scale), sum);
            }
        }
    }
    factors
}

/// A, A', B, B' to A, A, B, B.
#[inline(always)]
fn row_maxima(max: int32x4_t) -> float32x4_t {
    // SAFETY: register operations of the baseline instruction set.
    unsafe {
        let max = vpmaxq_s32(max, max);
        to_f32(vzip1q_s32(max, max))
    }
}

/// Two pairs of rows on their way from key to key.
struct Two {
    token: NeonI8mm,
    from: *const i32,
    upper: *mut i8,
    /// From the upper bytes to the lower ones.
    lower: usize,
    scale: float32x4_t,
    maxima: [float32x4_t; 2],
    sums: [int32x4_t; 2],
}

impl Two {
    /// Exponentials of the next 8 keys, of those in `mask`.
    ///
    /// # Safety
    /// There are so many logits, and room for the bytes.
    #[inline(always)]
    unsafe fn eight_keys(&mut self, mask: Option<[int16x8_t; 2]>) {
        // SAFETY: the caller's promise.
        unsafe {
            let bytes = [self.bytes(0, mask), self.bytes(1, mask)];
            for pair in 0..2 {
                let [upper, lower] = bytes[pair];
                let to = self.upper.add(2 * NR * pair);
                vst1q_s8(to, upper);
                vst1q_s8(to.add(self.lower), lower);
            }
            self.from = self.from.add(PANEL);
            self.upper = self.upper.add(PANEL);
        }
    }

    /// Upper and lower bytes of a pair of rows; adds the exponentials to their sums.
    ///
    /// # Safety
    /// As `eight_keys`.
    #[inline(always)]
    unsafe fn bytes(&mut self, pair: usize, mask: Option<[int16x8_t; 2]>) -> [int8x16_t; 2] {
        // SAFETY: the caller's promise.
        unsafe {
            let mut e = self.exponentials(pair);
            if let Some(mask) = mask {
                e = [vandq_s16(e[0], mask[0]), vandq_s16(e[1], mask[1])];
            }
            self.sums[pair] = vpadalq_s16(vpadalq_s16(self.sums[pair], e[0]), e[1]);
            let [a, b] = split_i16(e).map(|row| vreinterpretq_s8_s16(row));
            [vuzp2q_s8(a, b), vuzp1q_s8(a, b)]
        }
    }

    /// Exponentials of 8 keys of a pair of rows, in pairs of keys.
    ///
    /// # Safety
    /// As `eight_keys`.
    #[inline(always)]
    unsafe fn exponentials(&self, pair: usize) -> [int16x8_t; 2] {
        // SAFETY: the caller's promise.
        unsafe {
            let logits = self.from.add(2 * NR * pair);
            let scaled = |block: usize| {
                let below = vsubq_f32(to_f32(vld1q_s32(logits.add(4 * block))), self.maxima[pair]);
                vmulq_f32(below, self.scale)
            };
            [
                plain_exponential(self.token, Pair(scaled(0), scaled(1))),
                plain_exponential(self.token, Pair(scaled(2), scaled(3))),
            ]
        }
    }
}

/// Exponentials times values, requantised. If BY_ADDING, the output's minimum is −128, which saturation brings about, and its zero point is even.
///
/// # Safety
/// As [`Twelve`] says, and the bytes are written.
#[inline(always)]
unsafe fn mix<const BY_ADDING: bool>(
    token: NeonI8mm,
    group: &Twelve<'_>,
    factors: &[float32x4_t; PAIRS],
) {
    let panels = group.keys.div_ceil(NR);
    let (mut values, mut d) = (group.packed_values, 0);
    while d < group.head_dim {
        // SAFETY: there is a panel of values for every 8 channels, and every row of the output has `head_dim`.
        unsafe {
            let (offset, min) = (i16::from(group.zero_point), i16::from(group.min));
            let (zero_point, min) = (vdupq_n_s16(offset), vdupq_n_s16(min));
            let offset = token.offset(offset);
            let blocks = weigh(group.bytes, panels, values);
            unroll!(PAIRS, pair, {
                let factor = factors[pair];
                let scaled = |block| vmulq_f32(vcvtq_n_f32_s32::<7>(block), factor);
                let quantised = |blocks: Pair<int32x4_t>| {
                    let scaled = Pair(scaled(blocks.0), scaled(blocks.1));
                    if BY_ADDING {
                        token.round_offset(scaled, offset)
                    } else {
                        vmaxq_s16(vqaddq_s16(token.round_near(scaled), zero_point), min)
                    }
                };
                let [left, right] = blocks[pair];
                let rows = split_i16([quantised(left), quantised(right)]);
                vst1_s8(group.outputs[2 * pair].add(d), vqmovn_s16(rows[0]));
                vst1_s8(group.outputs[2 * pair + 1].add(d), vqmovn_s16(rows[1]));
            });
        }
        values = values.wrapping_add(group.value_panel);
        d += NR;
    }
}

/// USMMLA of the pair `$x` of rows, times the joined weights v4, v0, v2 and v1.
macro_rules! usmmlas {
    ($x:literal, $($acc:literal $w:literal)*) => {
        concat!($("usmmla ", $acc, ".4s, ", $x, ".16b, ", $w, ".16b\n",)*)
    };
}

/// 8 keys for 12 rows × 8 channels.
macro_rules! weigh_step {
    () => {
        concat!(
            "ldp q4, q0, [{w}], #32\n",
            "ldp q2, q1, [{w}], #32\n",
            "ldp q5, q6, [{x}], #32\n",
            "ldp q7, q3, [{x}], #32\n",
            usmmlas!("v5", "v8" "v4" "v9" "v0" "v10" "v2" "v11" "v1"),
            usmmlas!("v6", "v12" "v4" "v13" "v0" "v14" "v2" "v15" "v1"),
            "ldp q5, q6, [{x}], #32\n",
            usmmlas!("v7", "v16" "v4" "v17" "v0" "v18" "v2" "v19" "v1"),
            usmmlas!("v3", "v20" "v4" "v21" "v0" "v22" "v2" "v23" "v1"),
            usmmlas!("v5", "v24" "v4" "v25" "v0" "v26" "v2" "v27" "v1"),
            usmmlas!("v6", "v28" "v4" "v29" "v0" "v30" "v2" "v31" "v1"),
        )
    };
}

/// All blocks times 256.
macro_rules! times_256 {
    ($($block:literal)*) => {
        concat!($("shl ", $block, ".4s, ", $block, ".4s, #8\n",)*)
    };
}

/// `Σ_j E[j]·v[j]` for 12 rows and 8 channels, whose values are joined: `panels` times 8 keys.
///
/// ```text
/// blocks of each pair of rows = 0
/// for each 8 keys: for each pair of rows: USMMLA of the upper bytes with 4 pairs of channels
/// blocks = 256 · blocks
/// for each 8 keys: the same with the lower bytes, which lie behind the upper ones
/// ```
/// 1. 24 accumulators serve both halves of the bytes, one after the other: the values are read twice, but 12 rows share what is read.
/// 2. Two turns of a loop at a time; if their number is odd, the first begins in the middle.
///
/// | v0, v1, v2, v4 | v5–v7, v3 | v8–v31 |
/// |---|---|---|
/// | values | bytes of rows: two pairs, and the next two | blocks, 4 for each pair of rows |
///
/// # Safety
/// `bytes` is valid for reading `panels` times 192 elements, `values` for 64; `panels` is not 0.
#[inline(always)]
unsafe fn weigh(
    bytes: *const i8,
    panels: usize,
    values: *const i8,
) -> [[Pair<int32x4_t>; 2]; PAIRS] {
    // SAFETY: reads what the caller promises; its token proves USMMLA.
    unsafe {
        blocks!(
            [
                "ldp q8, q9, [{zeros}]", "ldp q10, q11, [{zeros}]", "ldp q12, q13, [{zeros}]", "ldp q14, q15, [{zeros}]",
                "ldp q16, q17, [{zeros}]", "ldp q18, q19, [{zeros}]", "ldp q20, q21, [{zeros}]", "ldp q22, q23, [{zeros}]",
                "ldp q24, q25, [{zeros}]", "ldp q26, q27, [{zeros}]", "ldp q28, q29, [{zeros}]", "ldp q30, q31, [{zeros}]",
                "tbnz {panels}, #0, 3f",
                "2:",
                weigh_step!(),
                "3:",
                weigh_step!(),
                "cmp {w}, {end}",
                "b.ne 2b",
                times_256!("v8" "v9" "v10" "v11" "v12" "v13" "v14" "v15" "v16" "v17" "v18" "v19"
                    "v20" "v21" "v22" "v23" "v24" "v25" "v26" "v27" "v28" "v29" "v30" "v31"),
                "mov {w}, {values}",
                "tbnz {panels}, #0, 5f",
                "4:",
                weigh_step!(),
                "5:",
                weigh_step!(),
                "cmp {w}, {end}",
                "b.ne 4b",
            ],
            zeros = in(reg) ZEROS.as_ptr(),
            x = inout(reg) bytes => _,
            w = inout(reg) values => _,
            values = in(reg) values,
            end = in(reg) values.wrapping_add(8 * NR * panels),
            panels = in(reg) panels,
            out("v0") _, out("v1") _, out("v2") _, out("v3") _,
        )
    }
}

/// The same bits.
#[inline(always)]
fn to_f32(bits: int32x4_t) -> float32x4_t {
    // SAFETY: no instruction at all.
    unsafe { vreinterpretq_f32_s32(bits) }
}

/// All lanes alike.
#[inline(always)]
fn vdup(v: i32) -> int32x4_t {
    // SAFETY: a register operation of the baseline instruction set.
    unsafe { vdupq_n_s32(v) }
}
