//! Shifts by lane.

use core::arch::x86_64::*;

/// `(a + (1 << n >> 1)) >> n` per lane, a ≥ 0, n in 0..=15.
///
/// # Safety
/// The CPU has AVX-512 BW and VL.
#[inline(always)]
pub(in crate::isa) unsafe fn shift_right_round(a: __m128i, n: __m128i) -> __m128i {
    // SAFETY: the caller's promise.
    unsafe {
        let half = _mm_srli_epi16::<1>(_mm_sllv_epi16(_mm_set1_epi16(1), n));
        _mm_srlv_epi16(_mm_add_epi16(a, half), n)
    }
}
