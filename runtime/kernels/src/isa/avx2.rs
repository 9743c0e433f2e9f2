//! x86-64 with AVX2: workstations, so that calibration and accuracy runs are quick and honest.
//!
//! The tile widens bytes to 16 bits and uses PMADDWD, which is exact (PMADDUBSW would saturate): for 4 columns × 4 steps of K, a row's 4 values are repeated
//! for every column; neighbouring sums are joined at the end. 4 rows take 8 accumulators of 16 registers.

use core::arch::x86_64::*;

use super::{Isa, Routine};
use crate::Avx2;

/// Methods that compute in registers.
macro_rules! avx2_ops {
    ($(fn $name:ident($($arg:ident: $type:ty),*) -> $result:ty { $($body:tt)* })*) => {
        $(
            #[inline(always)]
            fn $name(self, $($arg: $type),*) -> $result {
                // SAFETY: the token proves that the CPU has the instructions.
                unsafe { $($body)* }
            }
        )*
    };
}

impl Isa for Avx2 {
    type I8 = __m128i;
    type I16 = __m128i;
    type I32 = __m256i;
    type F32 = __m256;
    /// Widened to 16 × i16.
    type Taps = __m256i;
    /// Where the three rows are: there are too few registers for a window.
    type Column = [*const i8; 3];
    type Window = [__m256i; 9];
    const ROWS: usize = 4;

    #[inline(always)]
    fn call<R: Routine>(self, routine: R) -> R::Output {
        #[inline(never)]
        #[target_feature(enable = "avx2")]
        fn enabled<R: Routine>(token: Avx2, routine: R) -> R::Output {
            routine.simd(token)
        }
        // SAFETY: the token proves that the CPU has the instructions that the callee enables.
        unsafe { enabled(self, routine) }
    }

    /// Two operands and few registers: any choice of addresses will do.
    #[inline(always)]
    fn opaque(self, v: isize) -> isize {
        v
    }

    #[inline(always)]
    unsafe fn load_i8(self, p: *const i8) -> __m128i {
        // SAFETY: the caller's promise.
        unsafe { _mm_loadu_si128(p.cast()) }
    }
    #[inline(always)]
    unsafe fn load_i8_wide(self, p: *const i8) -> __m128i {
        // SAFETY: the caller's promise.
        unsafe { _mm_cvtepi8_epi16(_mm_loadl_epi64(p.cast())) }
    }
    #[inline(always)]
    unsafe fn load_i16(self, p: *const i16) -> __m128i {
        // SAFETY: the caller's promise.
        unsafe { _mm_loadu_si128(p.cast()) }
    }
    #[inline(always)]
    unsafe fn load_i32(self, p: *const i32) -> __m256i {
        // SAFETY: the caller's promise.
        unsafe { _mm256_loadu_si256(p.cast()) }
    }
    #[inline(always)]
    unsafe fn load_f32(self, p: *const f32) -> __m256 {
        // SAFETY: the caller's promise.
        unsafe { _mm256_loadu_ps(p) }
    }
    #[inline(always)]
    unsafe fn store_i8(self, p: *mut i8, v: __m128i) {
        // SAFETY: the caller's promise.
        unsafe { _mm_storeu_si128(p.cast(), v) }
    }
    #[inline(always)]
    unsafe fn store_i16(self, p: *mut i16, v: __m128i) {
        // SAFETY: the caller's promise.
        unsafe { _mm_storeu_si128(p.cast(), v) }
    }
    #[inline(always)]
    unsafe fn store_i32(self, p: *mut i32, v: __m256i) {
        // SAFETY: the caller's promise.
        unsafe { _mm256_storeu_si256(p.cast(), v) }
    }
    #[inline(always)]
    unsafe fn store_sat8(self, p: *mut i8, v: __m128i) {
        // SAFETY: the caller's promise.
        unsafe { _mm_storel_epi64(p.cast(), _mm_packs_epi16(v, v)) }
    }

    #[inline(always)]
    unsafe fn store_halves(self, high: *mut i8, low: *mut i8, v: __m128i) {
        // SAFETY: the caller's promise.
        unsafe {
            self.store_sat8(high, _mm_srai_epi16::<7>(v));
            self.store_sat8(low, _mm_and_si128(v, _mm_set1_epi16(127)));
        }
    }
    #[inline(always)]
    unsafe fn store_halves_pair(self, high: *mut i8, low: *mut i8, v: [__m128i; 2]) {
        // SAFETY: the caller's promise.
        unsafe {
            self.store_halves(high, low, v[0]);
            self.store_halves(high.add(8), low.add(8), v[1]);
        }
    }

    avx2_ops! {
        fn round_floored(a: __m256, floor: i16) -> __m128i {
            let r = _mm256_cvtps_epi32(_mm256_max_ps(a, _mm256_set1_ps(f32::from(floor))));
            _mm_packs_epi32(_mm256_castsi256_si128(r), _mm256_extracti128_si256::<1>(r))
        }
        fn sqrt(v: f64) -> f64 {
            let v = _mm_set_sd(v);
            _mm_cvtsd_f64(_mm_sqrt_sd(v, v))
        }
        fn splat_i16(v: i16) -> __m128i { _mm_set1_epi16(v) }
        fn splat_i32(v: i32) -> __m256i { _mm256_set1_epi32(v) }
        fn splat_f32(v: f32) -> __m256 { _mm256_set1_ps(v) }
        fn max_i8(a: __m128i, b: __m128i) -> __m128i { _mm_max_epi8(a, b) }
        fn add_i16(a: __m128i, b: __m128i) -> __m128i { _mm_add_epi16(a, b) }
        fn add_sat_i16(a: __m128i, b: __m128i) -> __m128i { _mm_adds_epi16(a, b) }
        fn max_i16(a: __m128i, b: __m128i) -> __m128i { _mm_max_epi16(a, b) }
        fn widen_i16(a: __m128i) -> __m256i { _mm256_cvtepi16_epi32(a) }
        fn mul_wide_i16(a: __m128i, b: __m128i) -> __m256i {
            // Pairs of a value and 0 times pairs of a value and its sign.
            _mm256_madd_epi16(_mm256_cvtepu16_epi32(a), _mm256_cvtepi16_epi32(b))
        }
        fn and_not_i16(a: __m128i, b: __m128i) -> __m128i { _mm_andnot_si128(b, a) }
        fn and_i16(a: __m128i, b: __m128i) -> __m128i { _mm_and_si128(a, b) }
        fn mulr_i16(a: __m128i, b: __m128i) -> __m128i { _mm_mulhrs_epi16(a, b) }
        fn shift_round_i16(a: __m128i, n: __m128i) -> __m128i { shift_right_round(a, _mm_sub_epi16(_mm_setzero_si128(), n)) }
        fn add_i32(a: __m256i, b: __m256i) -> __m256i { _mm256_add_epi32(a, b) }
        fn sub_i32(a: __m256i, b: __m256i) -> __m256i { _mm256_sub_epi32(a, b) }
        fn max_i32(a: __m256i, b: __m256i) -> __m256i { _mm256_max_epi32(a, b) }
        fn min_i32(a: __m256i, b: __m256i) -> __m256i { _mm256_min_epi32(a, b) }
        fn select_equal(a: __m256i, b: __m256i, yes: __m256i, no: __m256i) -> __m256i {
            _mm256_blendv_epi8(no, yes, _mm256_cmpeq_epi32(a, b))
        }
        fn narrow_floored(a: __m256i, floor: i16) -> __m128i {
            let a = _mm_packs_epi32(_mm256_castsi256_si128(a), _mm256_extracti128_si256::<1>(a));
            _mm_max_epi16(a, _mm_set1_epi16(floor))
        }
        fn splat_max(a: __m256i) -> __m256i {
            let a = _mm256_max_epi32(a, _mm256_permute2x128_si256::<1>(a, a));
            let a = _mm256_max_epi32(a, _mm256_shuffle_epi32::<0b01_00_11_10>(a));
            _mm256_max_epi32(a, _mm256_shuffle_epi32::<0b10_11_00_01>(a))
        }
        fn reduce_add(a: __m256i) -> i32 {
            let a = _mm_add_epi32(_mm256_castsi256_si128(a), _mm256_extracti128_si256::<1>(a));
            let a = _mm_add_epi32(a, _mm_shuffle_epi32::<0b01_00_11_10>(a));
            _mm_cvtsi128_si32(_mm_add_epi32(a, _mm_shuffle_epi32::<0b10_11_00_01>(a)))
        }
        fn accumulate(sum: __m256i, v: __m128i) -> __m256i { _mm256_add_epi32(sum, _mm256_cvtepi16_epi32(v)) }
        fn mul_add_i16(acc: __m256i, x: __m128i, c: i16) -> __m256i {
            _mm256_add_epi32(acc, _mm256_mullo_epi32(_mm256_cvtepi16_epi32(x), _mm256_set1_epi32(i32::from(c))))
        }
        fn to_f32(a: __m256i) -> __m256 { _mm256_cvtepi32_ps(a) }
        fn to_f32_by_128(a: __m256i) -> __m256 {
            _mm256_mul_ps(_mm256_cvtepi32_ps(a), _mm256_set1_ps(1.0 / 128.0))
        }
        fn add_f32(a: __m256, b: __m256) -> __m256 { _mm256_add_ps(a, b) }
        fn mul_f32(a: __m256, b: __m256) -> __m256 { _mm256_mul_ps(a, b) }
        fn min_f32(a: __m256, b: __m256) -> __m256 { _mm256_min_ps(a, b) }
        fn max_f32(a: __m256, b: __m256) -> __m256 { _mm256_max_ps(a, b) }
        fn round_i32(a: __m256) -> __m256i { _mm256_cvtps_epi32(a) }
        fn round_sat16(a: __m256) -> __m128i {
            let r = _mm256_cvtps_epi32(a);
            _mm_packs_epi32(_mm256_castsi256_si128(r), _mm256_extracti128_si256::<1>(r))
        }
    }

    #[inline(always)]
    fn shift_left_i16<const BITS: i32>(self, a: __m128i) -> __m128i {
        // SAFETY: the token proves that the CPU has the instruction.
        unsafe { _mm_slli_epi16::<BITS>(a) }
    }
    #[inline(always)]
    fn shift_right_i16<const BITS: i32>(self, a: __m128i) -> __m128i {
        // SAFETY: the token proves that the CPU has the instruction.
        unsafe { _mm_srai_epi16::<BITS>(a) }
    }

    #[inline(always)]
    unsafe fn sum_and_squares(self, p: *const i16, n: usize) -> (i32, u64) {
        // SAFETY: i stays below n, and the caller promises n elements.
        unsafe {
            let (mut sum, mut squares) = (_mm256_setzero_si256(), _mm256_setzero_si256());
            let mut i = 0;
            while i < n {
                let x = _mm_loadu_si128(p.add(i).cast());
                sum = self.accumulate(sum, x);
                // A sum of two squares is at most 2³¹: it fits 32 bits without a sign.
                squares = _mm256_add_epi64(squares, _mm256_cvtepu32_epi64(_mm_madd_epi16(x, x)));
                i += 8;
            }
            let mut lanes = [0_u64; 4];
            _mm256_storeu_si256(lanes.as_mut_ptr().cast(), squares);
            (
                self.reduce_add(sum),
                lanes[0] + lanes[1] + lanes[2] + lanes[3],
            )
        }
    }

    #[inline(always)]
    unsafe fn look_up(self, table: &[i8; 256], p: *mut i8, n: usize) {
        // SAFETY: i stays below n, and the caller promises n elements.
        unsafe {
            let mut i = 0;
            while i < n {
                *p.add(i) = table[usize::from(*p.add(i) as u8)];
                i += 1;
            }
        }
    }

    #[inline(always)]
    unsafe fn load_taps(self, p: *const i8) -> __m256i {
        // SAFETY: the caller's promise.
        unsafe { load_wide(p) }
    }
    #[inline(always)]
    unsafe fn tap(self, acc: [__m256i; 2], x: *const i8, w: __m256i) -> [__m256i; 2] {
        // SAFETY: the caller's promise.
        unsafe { add_wide(acc, _mm256_mullo_epi16(load_wide(x), w)) }
    }
    #[inline(always)]
    unsafe fn tap_pair(
        self,
        acc: [__m256i; 2],
        x: [*const i8; 2],
        w: [__m256i; 2],
    ) -> [__m256i; 2] {
        // SAFETY: the caller's promise.
        unsafe {
            let first = _mm256_mullo_epi16(load_wide(x[0]), w[0]);
            let second = _mm256_mullo_epi16(load_wide(x[1]), w[1]);
            add_wide(acc, _mm256_add_epi16(first, second))
        }
    }

    #[inline(always)]
    unsafe fn load_column(self, rows: [*const i8; 3]) -> [*const i8; 3] {
        rows
    }
    #[inline(always)]
    unsafe fn load_window(self, w: *const i8, channels: usize) -> [__m256i; 9] {
        // SAFETY: the caller's promise.
        unsafe {
            let mut taps = [_mm256_setzero_si256(); 9];
            for tap in 0..9 {
                taps[tap] = load_wide(w.add(tap * channels));
            }
            taps
        }
    }
    #[inline(always)]
    unsafe fn window(
        self,
        mut acc: [__m256i; 2],
        [x0, x1, x2]: [[*const i8; 3]; 3],
        w: &[__m256i; 9],
    ) -> [__m256i; 2] {
        // SAFETY: what columns point to can be read, as `load_column`'s caller promised.
        unsafe {
            acc = self.tap_pair(acc, [x0[0], x1[0]], [w[0], w[1]]);
            acc = self.tap_pair(acc, [x2[0], x0[1]], [w[2], w[3]]);
            acc = self.tap_pair(acc, [x1[1], x2[1]], [w[4], w[5]]);
            acc = self.tap_pair(acc, [x0[2], x1[2]], [w[6], w[7]]);
            self.tap(acc, x2[2], w[8])
        }
    }

    #[inline(always)]
    unsafe fn pack_keys(self, rows: [*const i8; 4], to: *mut i8) {
        // SAFETY: the caller's promise.
        unsafe {
            let word = |row: *const i8| _mm_loadu_si128(row.cast());
            let rows = [word(rows[0]), word(rows[1]), word(rows[2]), word(rows[3])];
            let upper = [
                _mm_unpacklo_epi32(rows[0], rows[1]),
                _mm_unpackhi_epi32(rows[0], rows[1]),
            ];
            let lower = [
                _mm_unpacklo_epi32(rows[2], rows[3]),
                _mm_unpackhi_epi32(rows[2], rows[3]),
            ];
            for half in 0..2 {
                let to = to.add(64 * half);
                let words = _mm_unpacklo_epi64(upper[half], lower[half]);
                _mm_storeu_si128(to.cast(), words);
                let words = _mm_unpackhi_epi64(upper[half], lower[half]);
                _mm_storeu_si128(to.add(32).cast(), words);
            }
        }
    }
    #[inline(always)]
    unsafe fn pack_values(self, rows: [*const i8; 4], to: [*mut i8; 2]) {
        // SAFETY: the caller's promise.
        unsafe {
            let bytes = |row: *const i8| _mm_loadu_si128(row.cast());
            let rows = [
                bytes(rows[0]),
                bytes(rows[1]),
                bytes(rows[2]),
                bytes(rows[3]),
            ];
            let upper = [
                _mm_unpacklo_epi8(rows[0], rows[1]),
                _mm_unpackhi_epi8(rows[0], rows[1]),
            ];
            let lower = [
                _mm_unpacklo_epi8(rows[2], rows[3]),
                _mm_unpackhi_epi8(rows[2], rows[3]),
            ];
            for half in 0..2 {
                let columns = _mm_unpacklo_epi16(upper[half], lower[half]);
                _mm_storeu_si128(to[half].cast(), columns);
                let columns = _mm_unpackhi_epi16(upper[half], lower[half]);
                _mm_storeu_si128(to[half].add(16).cast(), columns);
            }
        }
    }

    #[inline(always)]
    unsafe fn tile<const R: usize>(
        self,
        init: *const i32,
        a: *const i8,
        stride: usize,
        k: usize,
        b: *const i8,
    ) -> [__m256i; R] {
        // SAFETY: i stays below k; the caller promises k elements of every row, 8·k weights and 8 initial values.
        unsafe {
            let init = self.load_i32(init);
            let mut acc = [[_mm256_setzero_si256(); 2]; R];
            let mut i = 0;
            while i < k {
                let mut rows = [_mm256_setzero_si256(); R];
                for r in 0..R {
                    rows[r] = load_wide(a.add(r * stride + i));
                }
                let w = b.add(i * 8);
                acc = step::<R, 0x00>(acc, rows, w);
                acc = step::<R, 0x55>(acc, rows, w.add(32));
                acc = step::<R, 0xaa>(acc, rows, w.add(64));
                acc = step::<R, 0xff>(acc, rows, w.add(96));
                i += 16;
            }
            let mut sums = [init; R];
            for r in 0..R {
                sums[r] = _mm256_add_epi32(init, join(acc[r][0], acc[r][1]));
            }
            sums
        }
    }

    #[inline(always)]
    unsafe fn tile_steps<const R: usize>(
        self,
        mut acc: [__m256i; R],
        a: *const i8,
        stride: usize,
        steps: usize,
        b: *const i8,
    ) -> [__m256i; R] {
        // SAFETY: the caller promises 4 elements of every row and 32 weights for each step.
        unsafe {
            for i in 0..steps {
                let (w0, w1) = (load_wide(b.add(32 * i)), load_wide(b.add(32 * i + 16)));
                for r in 0..R {
                    let bytes = a.add(r * stride + 4 * i).cast::<i32>().read_unaligned();
                    let x = _mm256_cvtepi8_epi16(_mm_set1_epi32(bytes));
                    acc[r] = _mm256_add_epi32(
                        acc[r],
                        join(_mm256_madd_epi16(x, w0), _mm256_madd_epi16(x, w1)),
                    );
                }
            }
            acc
        }
    }
}

/// Sums of neighbours, for columns 0–3 and 4–7.
#[inline(always)]
unsafe fn join(low: __m256i, high: __m256i) -> __m256i {
    // SAFETY: only register operations, of instructions the callers' tokens prove.
    unsafe {
        // Columns 0, 1, 4, 5, 2, 3, 6, 7.
        let joined = _mm256_hadd_epi32(low, high);
        _mm256_permute4x64_epi64::<0b11_01_10_00>(joined)
    }
}

/// 16 bytes as 16 × i16.
///
/// # Safety
/// `p` is valid for reading 16 elements.
#[inline(always)]
unsafe fn load_wide(p: *const i8) -> __m256i {
    // SAFETY: the caller's promise; the callers' tokens prove the instructions.
    unsafe { _mm256_cvtepi8_epi16(_mm_loadu_si128(p.cast())) }
}

/// Adds 16 × i16 to 16 × i32.
#[inline(always)]
unsafe fn add_wide(acc: [__m256i; 2], v: __m256i) -> [__m256i; 2] {
    // SAFETY: only register operations, of instructions the callers' tokens prove.
    unsafe {
        let low = _mm256_cvtepi16_epi32(_mm256_castsi256_si128(v));
        let high = _mm256_cvtepi16_epi32(_mm256_extracti128_si256::<1>(v));
        [
            _mm256_add_epi32(acc[0], low),
            _mm256_add_epi32(acc[1], high),
        ]
    }
}

/// 4 steps of K for all rows: the quarter of `rows` that `PICK` repeats.
///
/// # Safety
/// `w` is valid for reading 32 elements.
#[inline(always)]
unsafe fn step<const R: usize, const PICK: i32>(
    mut acc: [[__m256i; 2]; R],
    rows: [__m256i; R],
    w: *const i8,
) -> [[__m256i; 2]; R] {
    // SAFETY: the caller promises 32 weights; the callers' tokens prove the instructions.
    unsafe {
        let (w0, w1) = (load_wide(w), load_wide(w.add(16)));
        for r in 0..R {
            let x = _mm256_permute4x64_epi64::<PICK>(rows[r]);
            acc[r][0] = _mm256_add_epi32(acc[r][0], _mm256_madd_epi16(x, w0));
            acc[r][1] = _mm256_add_epi32(acc[r][1], _mm256_madd_epi16(x, w1));
        }
        acc
    }
}

/// There is no 16-bit shift by lane: PMULHRSW by 2^(15−n) rounds alike. 2¹⁵ does not fit, so n = 0 is picked apart.
#[inline(always)]
unsafe fn shift_right_round(a: __m128i, n: __m128i) -> __m128i {
    // SAFETY: only register operations, of instructions the callers' tokens prove.
    unsafe {
        // Byte tables of 2^(15−n): low bytes for n ≥ 8, high bytes for n < 8; n = 0 is replaced below.
        let low = _mm_setr_epi8(0, 0, 0, 0, 0, 0, 0, 0, i8::MIN, 64, 32, 16, 8, 4, 2, 1);
        let high = _mm_setr_epi8(0, 64, 32, 16, 8, 4, 2, 1, 0, 0, 0, 0, 0, 0, 0, 0);
        // The odd bytes of the index have their top bit set, which makes PSHUFB give 0.
        let index = _mm_or_si128(n, _mm_set1_epi16(i16::MIN));
        let power = _mm_or_si128(
            _mm_shuffle_epi8(low, index),
            _mm_slli_epi16::<8>(_mm_shuffle_epi8(high, index)),
        );
        let shifted = _mm_mulhrs_epi16(a, power);
        _mm_blendv_epi8(shifted, a, _mm_cmpeq_epi16(n, _mm_setzero_si128()))
    }
}
