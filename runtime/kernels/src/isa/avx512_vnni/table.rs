//! A 256-entry table, which an activation function becomes, on 64 bytes at a time.

use core::arch::x86_64::*;

/// See [`Isa::look_up`](crate::isa::Isa::look_up). VPERMI2B looks 7 bits of an index up in two registers, so there are two of them for the two
/// halves of the table, and the index's top bit chooses.
///
/// # Safety
/// As [`Isa::look_up`](crate::isa::Isa::look_up); the CPU has AVX-512 BW and VBMI.
#[inline(always)]
pub(in crate::isa) unsafe fn look_up(table: &[i8; 256], p: *mut i8, n: usize) {
    // SAFETY: the table has 256 entries; i + 64 ≤ n, or the mask names the last elements below n.
    unsafe {
        let quarter = |first: usize| _mm512_loadu_si512(table.as_ptr().add(first).cast());
        let table = [quarter(0), quarter(64), quarter(128), quarter(192)];
        let mut i = 0;
        while i + 64 <= n {
            let at = p.add(i).cast();
            _mm512_storeu_si512(at, entries(table, _mm512_loadu_si512(at.cast())));
            i += 64;
        }
        if i < n {
            let mask = (1 << (n - i)) - 1;
            let index = _mm512_maskz_loadu_epi8(mask, p.add(i));
            _mm512_mask_storeu_epi8(p.add(i), mask, entries(table, index));
        }
    }
}

/// # Safety
/// The CPU has AVX-512 BW and VBMI.
#[inline(always)]
unsafe fn entries(table: [__m512i; 4], index: __m512i) -> __m512i {
    // SAFETY: the caller's promise.
    unsafe {
        let low = _mm512_permutex2var_epi8(table[0], index, table[1]);
        let high = _mm512_permutex2var_epi8(table[2], index, table[3]);
        _mm512_mask_blend_epi8(_mm512_movepi8_mask(index), low, high)
    }
}
