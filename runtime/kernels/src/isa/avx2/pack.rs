//! Keys and values of an attention to the blocked layout.

use core::arch::x86_64::*;

/// See [`Isa::pack_keys`](crate::isa::Isa::pack_keys).
#[inline(always)]
pub(super) unsafe fn pack_keys(rows: [*const i8; 4], to: *mut i8) {
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

/// See [`Isa::pack_values`](crate::isa::Isa::pack_values).
#[inline(always)]
pub(super) unsafe fn pack_values(rows: [*const i8; 4], to: [*mut i8; 2]) {
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
