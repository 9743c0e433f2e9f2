//! What an instruction set provides: a few operations on 8 lanes, and the GEMM tile.
//!
//! The operations (`*/simd.rs`) are written once over [`Isa`]. A value of an `Isa` type is a CPU token, so whoever calls a method holds the proof that the
//! instructions exist; [`Isa::call`] is the one place where code compiled for an instruction set is entered.
//!
//! Everything below `call` is `#[inline(always)]`, so that it is compiled inside the function that enables the instructions. For the same reason
//! vector values do not pass through closures or iterator adapters.
#![allow(
    clippy::needless_range_loop,
    reason = "arrays of registers: a loop with an index is surely unrolled"
)]

#[cfg(target_arch = "x86_64")]
mod avx2;
#[cfg(target_arch = "x86_64")]
mod avx512_vnni;
#[cfg(target_arch = "x86_64")]
mod avx_vnni;
mod dispatch;
#[cfg(all(target_arch = "aarch64", target_feature = "neon"))]
mod neon;
#[cfg(all(target_arch = "aarch64", target_feature = "neon"))]
mod neon_dotprod;
#[cfg(all(target_arch = "aarch64", target_feature = "neon"))]
mod neon_i8mm;
mod routine;
#[cfg(target_arch = "x86_64")]
mod vnni;

pub(crate) use dispatch::{Reference, Vectorised, dispatch};
pub(crate) use routine::{Gains, Routine};

use crate::attention::simd::workspace::Workspace;
use crate::attention::simd::{Group, Part};
use crate::gemm::simd::{Panels, Rows};
use crate::gemm::{GROUP, NR, PAIRED};
use crate::requantise::simd::Form;

/// An instruction set. Vectors have 8 lanes, whatever the registers; float operations round to nearest even, one at a time.
pub(crate) trait Isa: Copy {
    /// 16 × i8.
    type I8: Copy;
    /// 8 × i16.
    type I16: Copy;
    /// 8 × i32.
    type I32: Copy;
    /// 8 × f32.
    type F32: Copy;
    /// What [`Isa::round_offset`] adds.
    type Offset: Copy;
    /// Depthwise weights of 16 channels.
    type Taps: Copy;
    /// A column of a 3×3 depthwise window: three rows of 16 channels, or with two `LINES` four rows of 8.
    type Column: Copy;
    /// Weights of a 3×3 depthwise window, 16 / `LINES` channels.
    type Window: Copy;
    /// Output rows that share the columns of a 3×3 depthwise window: 1 or 2.
    const LINES: usize = 1;
    /// Rows of the largest tile: 8 or 4.
    const ROWS: usize;
    /// Whether `tile_wide` is better than a tile of all rows.
    const WIDE: bool = false;
    /// Whether `round_offset` is for sums below 2¹⁵ and even offsets only, and there is something to be had from `round_near`.
    const ROUNDS_BY_ADDING: bool = false;

    /// Whether the GEMM packs rows, [`GROUP`] at a time, for `tile_packed`.
    const PACKED: bool = false;
    /// Rows of the GEMM's largest groups.
    const GROUP: usize = if Self::PACKED { GROUP } else { Self::ROWS };

    /// Up to so many keys `weigh` is better than the tile of two planes; 0 if it never is.
    const WHOLE_KEYS: usize = 0;

    /// Runs `routine` as a function of its own: hot loops get all registers, and loops around them cannot spoil them.
    fn call<R: Routine>(self, routine: R) -> R::Output;

    /// `v`, whose origin the optimiser is not to know, so that it does not turn one offset into many moving addresses.
    fn opaque(self, v: isize) -> isize;

    /// Loads 16 values.
    ///
    /// # Safety
    /// `p` is valid for reading 16 elements.
    unsafe fn load_i8(self, p: *const i8) -> Self::I8;
    /// Loads 8 values.
    ///
    /// # Safety
    /// `p` is valid for reading 8 elements.
    unsafe fn load_i8_wide(self, p: *const i8) -> Self::I16;
    /// # Safety
    /// `p` is valid for reading 8 elements.
    unsafe fn load_i16(self, p: *const i16) -> Self::I16;
    /// # Safety
    /// `p` is valid for reading 8 elements.
    unsafe fn load_i32(self, p: *const i32) -> Self::I32;
    /// # Safety
    /// `p` is valid for reading 8 elements.
    unsafe fn load_f32(self, p: *const f32) -> Self::F32;
    /// Loads 16 values of each of two arrays, and moves on to the next.
    ///
    /// # Safety
    /// Both are valid for reading 16 elements.
    #[inline(always)]
    unsafe fn next_f32_pairs(self, p: [&mut *const f32; 2]) -> [[Self::F32; 2]; 2] {
        p.map(|p| {
            // SAFETY: the caller's promise.
            unsafe {
                let pair = [self.load_f32(*p), self.load_f32(p.add(8))];
                *p = p.add(16);
                pair
            }
        })
    }
    /// # Safety
    /// `p` is valid for writing 16 elements.
    unsafe fn store_i8(self, p: *mut i8, v: Self::I8);
    /// # Safety
    /// `p` is valid for writing 8 elements.
    unsafe fn store_i16(self, p: *mut i16, v: Self::I16);
    /// # Safety
    /// `p` is valid for writing 8 elements.
    unsafe fn store_i32(self, p: *mut i32, v: Self::I32);
    /// Stores `sat8` of 8 values.
    ///
    /// # Safety
    /// `p` is valid for writing 8 elements.
    unsafe fn store_sat8(self, p: *mut i8, v: Self::I16);

    /// Splits values of 14 bits: the upper 7 bits to `high`, the lower to `low`.
    ///
    /// # Safety
    /// Both are valid for writing 8 elements.
    unsafe fn store_halves(self, high: *mut i8, low: *mut i8, v: Self::I16);
    /// As `store_halves` for 16 values.
    ///
    /// # Safety
    /// Both are valid for writing 16 elements.
    unsafe fn store_halves_pair(self, high: *mut i8, low: *mut i8, v: [Self::I16; 2]);

    fn splat_i16(self, v: i16) -> Self::I16;
    fn splat_i32(self, v: i32) -> Self::I32;
    fn splat_f32(self, v: f32) -> Self::F32;

    fn max_i8(self, a: Self::I8, b: Self::I8) -> Self::I8;

    fn add_i16(self, a: Self::I16, b: Self::I16) -> Self::I16;
    /// Saturating sum.
    fn add_sat_i16(self, a: Self::I16, b: Self::I16) -> Self::I16;
    fn max_i16(self, a: Self::I16, b: Self::I16) -> Self::I16;
    fn widen_i16(self, a: Self::I16) -> Self::I32;
    /// `a·b`, which fits.
    fn mul_wide_i16(self, a: Self::I16, b: Self::I16) -> Self::I32;
    fn and_i16(self, a: Self::I16, b: Self::I16) -> Self::I16;
    /// `a & !b`.
    fn and_not_i16(self, a: Self::I16, b: Self::I16) -> Self::I16;
    fn shift_left_i16<const BITS: i32>(self, a: Self::I16) -> Self::I16;
    /// Arithmetic shift.
    fn shift_right_i16<const BITS: i32>(self, a: Self::I16) -> Self::I16;
    /// `(a·b + 2¹⁴) >> 15`; not both −2¹⁵.
    fn mulr_i16(self, a: Self::I16, b: Self::I16) -> Self::I16;
    /// `(a + (1 << −n >> 1)) >> −n` per lane, 0 ≤ a < 2¹⁴, n in −15..=0. Below that, if this instruction set takes it, 0.
    fn shift_round_i16(self, a: Self::I16, n: Self::I16) -> Self::I16;

    fn add_i32(self, a: Self::I32, b: Self::I32) -> Self::I32;
    fn sub_i32(self, a: Self::I32, b: Self::I32) -> Self::I32;
    fn max_i32(self, a: Self::I32, b: Self::I32) -> Self::I32;
    fn min_i32(self, a: Self::I32, b: Self::I32) -> Self::I32;
    /// `yes` where a = b, else `no`.
    fn select_equal(self, a: Self::I32, b: Self::I32, yes: Self::I32, no: Self::I32) -> Self::I32;
    /// `a` for a < 2¹⁵, but if that is below `floor` any value of at most `floor` that [`Isa::shift_round_i16`] takes.
    fn narrow_floored(self, a: Self::I32, floor: i16) -> Self::I16;
    /// The largest lane, in all lanes.
    fn splat_max(self, a: Self::I32) -> Self::I32;
    /// Sum of the lanes.
    fn reduce_add(self, a: Self::I32) -> i32;
    /// Adds the lanes of `v` to lanes of `sum`, which ones is left open: only [`Isa::reduce_add`] of the result has a meaning.
    fn accumulate(self, sum: Self::I32, v: Self::I16) -> Self::I32;
    /// `acc + x·c` per lane.
    fn mul_add_i16(self, acc: Self::I32, x: Self::I16, c: i16) -> Self::I32;

    fn to_f32(self, a: Self::I32) -> Self::F32;
    /// `f32(a)·2⁻⁷`.
    fn to_f32_by_128(self, a: Self::I32) -> Self::F32;
    fn add_f32(self, a: Self::F32, b: Self::F32) -> Self::F32;
    fn mul_f32(self, a: Self::F32, b: Self::F32) -> Self::F32;
    fn min_f32(self, a: Self::F32, b: Self::F32) -> Self::F32;
    fn max_f32(self, a: Self::F32, b: Self::F32) -> Self::F32;
    /// `round` of the contract for |a| < 2³¹, without its clamp.
    fn round_i32(self, a: Self::F32) -> Self::I32;
    /// `sat16(round(a))` for |a| < 2³¹.
    fn round_sat16(self, a: Self::F32) -> Self::I16;
    /// `round(a)` for |a| < 2¹⁵ − 1.
    #[inline(always)]
    fn round_near(self, a: Self::F32) -> Self::I16 {
        self.round_sat16(a)
    }
    /// `by` for `round_offset`.
    fn offset(self, by: i16) -> Self::Offset;
    /// `sat16(sat16(round(a)) + by)` for |a| < 2³¹; see [`Isa::ROUNDS_BY_ADDING`].
    fn round_offset(self, a: Self::F32, by: Self::Offset) -> Self::I16;
    /// `round(a)` for a ≤ 0, but if that is below `floor` any value of at most `floor` that [`Isa::shift_round_i16`] takes.
    fn round_floored(self, a: Self::F32, floor: i16) -> Self::I16;

    /// The f64 square root, correctly rounded.
    fn sqrt(self, v: f64) -> f64;

    /// `v.isqrt()` for v ≥ 2⁶², a tenth of its instructions. The f64 root is off by less than 1, so one step up or down gives the floor; conversion saturates.
    #[inline(always)]
    fn root(self, v: u64) -> u32 {
        let root = self.sqrt(v as f64) as u32;
        let square = u64::from(root) * u64::from(root);
        // Of magnitude below 2³³.
        let rest = v.wrapping_sub(square) as i64;
        root + u32::from(rest > 2 * i64::from(root)) - (rest as u64 >> 63) as u32
    }

    /// Sum and sum of squares of `n` values, n a multiple of 8 and at most 16384.
    ///
    /// # Safety
    /// `p` is valid for reading `n` elements.
    unsafe fn sum_and_squares(self, p: *const i16, n: usize) -> (i32, u64);

    /// Replaces each of `n` bytes by its table entry.
    ///
    /// # Safety
    /// `p` is valid for reading and writing `n` elements.
    unsafe fn look_up(self, table: &[i8; 256], p: *mut i8, n: usize);

    /// Loads the depthwise weights of 16 channels.
    ///
    /// # Safety
    /// `p` is valid for reading 16 elements.
    unsafe fn load_taps(self, p: *const i8) -> Self::Taps;
    /// `acc + x·w` for 16 channels.
    ///
    /// # Safety
    /// `x` is valid for reading 16 elements.
    unsafe fn tap(self, acc: [Self::I32; 2], x: *const i8, w: Self::Taps) -> [Self::I32; 2];
    /// `acc + x[0]·w[0] + x[1]·w[1]` for 16 channels, no weight −128.
    ///
    /// # Safety
    /// `x` are valid for reading 16 elements.
    unsafe fn tap_pair(
        self,
        acc: [Self::I32; 2],
        x: [*const i8; 2],
        w: [Self::Taps; 2],
    ) -> [Self::I32; 2];

    /// Loads a column from its rows, of which the last is only used with two `LINES`.
    ///
    /// # Safety
    /// `rows` are valid for reading 16 / `LINES` elements.
    unsafe fn load_column(self, rows: [*const i8; 4]) -> Self::Column;
    /// Loads 9 taps of 16 / `LINES` channels that lie `channels` apart.
    ///
    /// # Safety
    /// All of them can be read.
    unsafe fn load_window(self, w: *const i8, channels: usize) -> Self::Window;
    /// `acc + window · columns` for 16 channels, or for 8 channels of two output rows; no weight is −128.
    ///
    /// # Safety
    /// What `columns` were loaded from has not changed.
    unsafe fn window(
        self,
        acc: [Self::I32; 2],
        columns: [Self::Column; 3],
        window: &Self::Window,
    ) -> [Self::I32; 2];

    /// Requantises 16 accumulators to the 16 elements from `index` on.
    ///
    /// # Safety
    /// Those elements lie in the output of `form`.
    #[inline(always)]
    unsafe fn store_pair<F: Form>(
        self,
        form: F,
        acc: [Self::I32; 2],
        scale: [Self::F32; 2],
        index: usize,
    ) {
        // SAFETY: the caller's promise.
        unsafe {
            form.store(self, [acc[0]], scale[0], index, 0);
            form.store(self, [acc[1]], scale[1], index + NR, 0);
        }
    }

    /// Packs 16 of K for 4 columns of a panel of 8, one column in each row: 4 of K for the 4 columns take 16 bytes in every 32 of `to`.
    ///
    /// # Safety
    /// Rows are valid for reading 16 elements; `to` is for writing 16, and so are 32, 64 and 96 behind it.
    unsafe fn pack_keys(self, rows: [*const i8; 4], to: *mut i8);
    /// Packs 4 of K for 16 columns, one K in each row: to a panel of 8 columns each.
    ///
    /// # Safety
    /// Rows are valid for reading 16 elements; both of `to` for writing 32.
    unsafe fn pack_values(self, rows: [*const i8; 4], to: [*mut i8; 2]);

    /// Requantises the leading columns of R ≤ [`Isa::ROWS`] rows, as many as there is a tile of several panels for; returns how many that is. Row r of
    /// the output begins at `first + r·columns`.
    ///
    /// # Safety
    /// The rows are readable to the padded K, and R rows of `columns` elements lie in the output of `form`.
    #[inline(always)]
    unsafe fn wide_columns<F: Form, const R: usize>(
        self,
        _panels: Panels,
        _x: Rows,
        _columns: usize,
        _form: F,
        _first: usize,
    ) -> usize {
        0
    }
    /// What [`Isa::tile_shifted`] has to know of R ≤ [`Isa::ROWS`] rows besides their bytes: the same for all panels.
    ///
    /// # Safety
    /// As `tile`, for the rows.
    #[inline(always)]
    unsafe fn shifts<const R: usize>(self, _a: *const i8, _stride: usize, _k: usize) -> [i32; R] {
        [0; R]
    }
    /// As `tile`, with the rows' `shifts`: for instruction sets that multiply unsigned bytes by signed ones only, and have to make one operand unsigned.
    ///
    /// # Safety
    /// As `tile`.
    #[inline(always)]
    unsafe fn tile_shifted<const R: usize>(
        self,
        init: *const i32,
        _shifts: &[i32; R],
        a: *const i8,
        stride: usize,
        k: usize,
        b: *const i8,
    ) -> [Self::I32; R] {
        // SAFETY: the caller's promise.
        unsafe { self.tile(init, a, stride, k, b) }
    }
    /// `Σ_j e[j]·v[j]` for R ≤ 8 rows of 16-bit factors, `pitch` apart, and 8 channels of the values, `[keys][8]`.
    ///
    /// # Safety
    /// Every row is valid for reading `keys` elements rounded up to 8, those past the end are 0; `v` is for as many times 8.
    #[inline(always)]
    unsafe fn weigh<const R: usize>(
        self,
        e: *const i16,
        pitch: usize,
        keys: usize,
        v: *const i8,
    ) -> [Self::I32; R] {
        let mut acc = [self.splat_i32(0); R];
        for j in 0..keys {
            // SAFETY: the caller's promise.
            unsafe {
                let v = self.load_i8_wide(v.add(8 * j));
                unroll!(R, r, {
                    acc[r] = self.mul_add_i16(acc[r], v, *e.add(r * pitch + j));
                });
            }
        }
        acc
    }

    /// `init + a·b` for R ≤ [`Isa::ROWS`] rows and one panel of 8 columns. Rows or weights must not hold −128 both.
    ///
    /// # Safety
    /// `k` is a positive multiple of 16; every row `a + r·stride` is valid for reading `k` elements, `b` for 8·k, and `init` for 8.
    unsafe fn tile<const R: usize>(
        self,
        init: *const i32,
        a: *const i8,
        stride: usize,
        k: usize,
        b: *const i8,
    ) -> [Self::I32; R];
    /// `acc + a·b` for `steps` times 4 of K, as `tile`; no byte of the rows is negative.
    ///
    /// # Safety
    /// Every row `a + r·stride` is valid for reading 4·steps elements, and `b` for 32·steps.
    unsafe fn tile_steps<const R: usize>(
        self,
        acc: [Self::I32; R],
        a: *const i8,
        stride: usize,
        steps: usize,
        b: *const i8,
    ) -> [Self::I32; R];
    /// As `tile` for any positive multiple of 4 as `k`; no byte of the rows is negative.
    ///
    /// # Safety
    /// As `tile`.
    #[inline(always)]
    unsafe fn tile_ragged<const R: usize>(
        self,
        init: *const i32,
        a: *const i8,
        stride: usize,
        k: usize,
        b: *const i8,
    ) -> [Self::I32; R] {
        // SAFETY: the caller's promise.
        unsafe { tile_and_steps(self, init, a, stride, k, b) }
    }
    /// As `tile` for 4 rows and two panels, `panel` bytes apart, if that is better than 8 rows and one: 16 values of `init`.
    ///
    /// # Safety
    /// As `tile`, for both panels.
    #[inline(always)]
    unsafe fn tile_wide(
        self,
        init: *const i32,
        a: *const i8,
        stride: usize,
        k: usize,
        b: *const i8,
        panel: usize,
    ) -> [[Self::I32; 4]; 2] {
        // SAFETY: the caller's promise.
        unsafe {
            [
                self.tile::<4>(init, a, stride, k, b),
                self.tile::<4>(init.add(8), a, stride, k, b.add(panel)),
            ]
        }
    }
    /// As `tile_wide` for any positive multiple of 4 as `k`.
    ///
    /// # Safety
    /// As `tile_wide`.
    #[inline(always)]
    unsafe fn tile_wide_ragged(
        self,
        init: *const i32,
        a: *const i8,
        stride: usize,
        k: usize,
        b: *const i8,
        panel: usize,
    ) -> [[Self::I32; 4]; 2] {
        // SAFETY: the caller's promise.
        unsafe {
            [
                self.tile_ragged::<4>(init, a, stride, k, b),
                self.tile_ragged::<4>(init.add(8), a, stride, k, b.add(panel)),
            ]
        }
    }
    /// Packs [`GROUP`] rows as `tile_packed` wants them.
    ///
    /// # Safety
    /// As `tile` for the rows; `to` is valid for writing `GROUP`·`k` elements.
    #[inline(always)]
    unsafe fn pack_group(self, a: *const i8, stride: usize, k: usize, to: *mut i8) {
        for row in 0..GROUP {
            // SAFETY: the caller's promise.
            unsafe { core::ptr::copy_nonoverlapping(a.add(row * stride), to.add(row * k), k) };
        }
    }
    /// As `tile` for [`GROUP`] rows that `pack_group` has packed, after which `packed` is left: pairs of rows, whose lanes are in an order that only
    /// `split_i32`, `load_f32_pairs`, `pair_values` and the `put_rows` know.
    ///
    /// # Safety
    /// As `tile`; `packed` is valid for reading `GROUP`·`k` elements.
    #[inline(always)]
    unsafe fn tile_packed(
        self,
        init: *const i32,
        packed: &mut *const i8,
        k: usize,
        b: *const i8,
    ) -> [[Self::I32; 2]; GROUP / 2] {
        let rows = *packed;
        *packed = rows.wrapping_add(GROUP * k);
        // SAFETY: the caller's promise.
        [0, 2, 4, 6, 8, 10].map(|row| unsafe { self.tile(init, rows.add(row * k), k, k, b) })
    }
    /// As `tile_packed` for a panel as `gemm::simd::Join` makes it: also its scales.
    ///
    /// # Safety
    /// As `tile_packed`; `panel` is such a panel of `k`.
    #[inline(always)]
    unsafe fn tile_joined(
        self,
        packed: &mut *const i8,
        panel: *const i8,
        k: usize,
    ) -> ([[Self::I32; 2]; GROUP / 2], [Self::F32; 2]) {
        // SAFETY: the caller's promise.
        unsafe {
            let weights = panel.add(PAIRED);
            let scale = weights.add(NR * k).cast::<f32>();
            let acc = self.tile_packed(panel.cast(), packed, k, weights);
            (acc, [self.load_f32(scale), self.load_f32(scale.add(NR))])
        }
    }
    /// Copies a panel of weights as `tile_joined` wants it.
    ///
    /// # Safety
    /// `from` is valid for reading `len` elements, a multiple of 128, and `to` for writing them.
    #[inline(always)]
    unsafe fn join_panel(self, from: *const i8, to: *mut i8, len: usize) {
        // SAFETY: the caller's promise.
        unsafe { core::ptr::copy_nonoverlapping(from, to, len) };
    }
    /// Stores `sat8` of two pairs of rows, `pitch` apart from `y` on, and moves `y` to the row behind.
    ///
    /// # Safety
    /// Those rows are valid for writing 8 elements.
    #[inline(always)]
    unsafe fn put_rows_sat8(self, y: &mut *mut i8, pitch: usize, pairs: [[Self::I16; 2]; 2]) {
        put_rows(y, pitch, pairs, |y, row| {
            // SAFETY: the caller's promise.
            unsafe { self.store_sat8(y, row) }
        });
    }
    /// As `put_rows_sat8`, of all bits.
    ///
    /// # Safety
    /// As `put_rows_sat8`.
    #[inline(always)]
    unsafe fn put_rows_i16(self, y: &mut *mut i16, pitch: usize, pairs: [[Self::I16; 2]; 2]) {
        put_rows(y, pitch, pairs, |y, row| {
            // SAFETY: the caller's promise.
            unsafe { self.store_i16(y, row) }
        });
    }
    /// As `put_rows_i16`, added to what is there.
    ///
    /// # Safety
    /// As `put_rows_sat8`, for reading, too.
    #[inline(always)]
    unsafe fn add_rows_i16(self, y: &mut *mut i16, pitch: usize, pairs: [[Self::I16; 2]; 2]) {
        put_rows(y, pitch, pairs, |y, row| {
            // SAFETY: the caller's promise.
            unsafe { self.store_i16(y, self.add_sat_i16(row, self.load_i16(y))) }
        });
    }
    /// As `put_rows_i16`.
    ///
    /// # Safety
    /// As `put_rows_sat8`.
    #[inline(always)]
    unsafe fn put_rows_i32(self, y: &mut *mut i32, pitch: usize, pairs: [[Self::I32; 2]; 2]) {
        let [upper, lower] = pairs;
        put_rows(
            y,
            pitch,
            [self.split_i32(upper), self.split_i32(lower)],
            |y, row| {
                // SAFETY: the caller's promise.
                unsafe { self.store_i32(y, row) }
            },
        );
    }
    /// Rearranges panels of weights, keys or values in place, for `tile_packed`, `tile_queries` and `tile_planes`.
    ///
    /// # Safety
    /// `panels` is valid for reading and writing `len` elements, a multiple of 128.
    #[inline(always)]
    unsafe fn join(self, _panels: *mut i8, _len: usize) {}
    /// R rows and their stride as `tile_queries` wants them, where they are or in `to`.
    ///
    /// # Safety
    /// As `tile` for the rows; `to` is valid for writing `K` elements for each of 2 rows or more.
    #[inline(always)]
    unsafe fn pack_queries<const R: usize>(
        self,
        a: *const i8,
        stride: usize,
        _k: usize,
        _to: *mut i8,
    ) -> (*const i8, usize) {
        (a, stride)
    }
    /// As `tile_shifted` for rows from `pack_queries` and a panel that was joined.
    ///
    /// # Safety
    /// As `tile`.
    #[inline(always)]
    unsafe fn tile_queries<const R: usize>(
        self,
        init: *const i32,
        shifts: &[i32; R],
        a: *const i8,
        stride: usize,
        k: usize,
        b: *const i8,
    ) -> [Self::I32; R] {
        // SAFETY: the caller's promise.
        unsafe { self.tile_shifted(init, shifts, a, stride, k, b) }
    }
    /// Attends for the leading queries of a group, as many as there is a better way for; returns how many these are.
    ///
    /// # Safety
    /// `work` has the packed keys and values of the group, whose attention has one slot.
    #[inline(always)]
    unsafe fn attend(
        self,
        _group: &Group<'_, '_>,
        _q: &[i8],
        _part: &mut Part<'_>,
        _work: &mut Workspace<'_>,
    ) -> usize {
        0
    }
    /// Splits 8 values from `j` on of a row of planes as `store_halves`. A row takes 2·`pitch` elements.
    ///
    /// # Safety
    /// `planes` is a row of planes, and `j` a multiple of 8 below `pitch`.
    #[inline(always)]
    unsafe fn store_planes(self, planes: *mut i8, pitch: usize, j: usize, v: Self::I16) {
        // SAFETY: the caller's promise.
        unsafe { self.store_halves(planes.add(j), planes.add(pitch + j), v) }
    }
    /// As `store_planes` for 16 values.
    ///
    /// # Safety
    /// As `store_planes`, and `j` + 8 is below `pitch`, too.
    #[inline(always)]
    unsafe fn store_planes_pair(self, planes: *mut i8, pitch: usize, j: usize, v: [Self::I16; 2]) {
        // SAFETY: the caller's promise.
        unsafe { self.store_halves_pair(planes.add(j), planes.add(pitch + j), v) }
    }
    /// As `tile_ragged` for R / 2 rows of planes and a panel that was joined: upper half, lower half, upper half of the next row and so on.
    ///
    /// # Safety
    /// As `tile` for `k` rounded up to 16, for the panel has anything past `k`, but the planes have 0.
    #[inline(always)]
    unsafe fn tile_planes<const R: usize>(
        self,
        init: *const i32,
        planes: *const i8,
        pitch: usize,
        k: usize,
        b: *const i8,
    ) -> [Self::I32; R] {
        // SAFETY: the caller's promise.
        unsafe { self.tile_ragged(init, planes, pitch, k, b) }
    }
    /// Copies values of 8 columns as they lie in a pair of rows: 16 values.
    ///
    /// # Safety
    /// `from` is valid for reading 8 elements, `to` for writing 16.
    #[inline(always)]
    unsafe fn pair_values(self, from: *const i32, to: *mut i32) {
        // SAFETY: the caller's promise.
        unsafe {
            let values = self.load_i32(from);
            self.store_i32(to, values);
            self.store_i32(to.add(8), values);
        }
    }
    /// The values of 8 columns, as they lie in a pair of rows.
    ///
    /// # Safety
    /// `p` is valid for reading 8 elements.
    #[inline(always)]
    unsafe fn load_f32_pairs(self, p: *const f32) -> [Self::F32; 2] {
        // SAFETY: the caller's promise.
        [unsafe { self.load_f32(p) }; 2]
    }
    /// The rows of a pair.
    #[inline(always)]
    fn split_i32(self, pair: [Self::I32; 2]) -> [Self::I32; 2] {
        pair
    }
}

/// Stores two pairs of rows, `pitch` apart from `y` on, and moves `y` to the row behind.
#[inline(always)]
fn put_rows<T, V>(y: &mut *mut T, pitch: usize, pairs: [[V; 2]; 2], store: impl Fn(*mut T, V)) {
    for row in pairs.into_iter().flatten() {
        store(*y, row);
        *y = y.wrapping_add(pitch);
    }
}

/// [`Isa::tile_ragged`] as a tile, if there are 16 of K, and steps.
///
/// # Safety
/// As [`Isa::tile_ragged`].
#[inline(always)]
unsafe fn tile_and_steps<I: Isa, const R: usize>(
    isa: I,
    init: *const i32,
    a: *const i8,
    stride: usize,
    k: usize,
    b: *const i8,
) -> [I::I32; R] {
    let whole = k & !15;
    // SAFETY: the caller's promise, for the first `whole` elements and for the rest.
    unsafe {
        let acc = if whole == 0 {
            [isa.load_i32(init); R]
        } else {
            isa.tile::<R>(init, a, stride, whole, b)
        };
        let steps = (k - whole) / 4;
        isa.tile_steps::<R>(acc, a.add(whole), stride, steps, b.add(8 * whole))
    }
}

/// Repeats a block for r = 0..R with constant `r`, so that arrays of vectors stay in registers. (A loop over an array of accumulators may or may not be
/// unrolled; if not, the whole tile lives on the stack.)
macro_rules! unroll {
    ($rows:ident, $r:ident, $body:block) => {
        unroll!(@ $rows, $r, $body, 0 1 2 3 4 5 6 7 8 9 10 11)
    };
    (@ $rows:ident, $r:ident, $body:block, $($index:literal)*) => {{
        const { assert!($rows <= 12) };
        $(if $index < $rows {
            let $r: usize = $index;
            $body
        })*
    }};
}
pub(crate) use unroll;

#[cfg(test)]
mod tests {
    use std::ops::Range;
    use std::vec::Vec;

    use super::{Isa, Reference, Vectorised, dispatch};
    use crate::{Kernel, Out, SizeError};

    /// Compares roots with `isqrt`; has neither input nor output.
    struct Roots(Vec<u64>);

    impl Reference for Roots {
        type Input<'r> = ();

        fn run_scalar(
            &self,
            _: Range<usize>,
            (): (),
            _: &mut Out<'_>,
            _: &mut [i8],
        ) -> Result<(), SizeError> {
            Ok(())
        }
    }

    impl Vectorised for Roots {
        #[inline(always)]
        fn run_simd<I: Isa>(
            &self,
            isa: I,
            _: Range<usize>,
            (): (),
            _: &mut Out<'_>,
            _: &mut [i8],
        ) -> Result<(), SizeError> {
            for &v in &self.0 {
                assert_eq!(isa.root(v), v.isqrt() as u32, "root of {v}");
            }
            Ok(())
        }
    }

    /// Squares and their neighbours, where a rounded root could land on the wrong side.
    #[test]
    fn root_is_isqrt() -> Result<(), SizeError> {
        let near = |m: u64| {
            [
                (m * m).saturating_sub(1).max(1 << 62),
                m * m,
                m * m + 1,
                m * m + 2 * m,
            ]
        };
        let ends = (1 << 31..(1 << 31) + 1000_u64).chain((1 << 32) - 1000..1 << 32);
        let steps = (1 << 31..1 << 32).step_by(40_009);
        let roots = Roots(ends.chain(steps).flat_map(near).chain([u64::MAX]).collect());
        Kernel::available()
            .try_for_each(|kernel| dispatch(kernel, &roots, 0..0, (), Out::S8(&mut []), &mut []))
    }
}
