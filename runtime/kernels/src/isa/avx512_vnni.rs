//! AVX-512 with VNNI and VBMI: servers since Ice Lake, Zen 4.

use core::arch::x86_64::*;

pub(super) use super::avx2::{
    Column, Window, load_column, load_window, look_up, shift_right_round, window,
};
use super::vnni::Dot;
pub(super) use super::vnni::{tile, tile_ragged, tile_steps};
use crate::Avx512Vnni;

impl Dot for Avx512Vnni {
    #[inline(always)]
    fn dot(self, acc: __m256i, u: __m256i, s: __m256i) -> __m256i {
        // SAFETY: the token proves that the CPU has the instruction.
        unsafe { _mm256_dpbusd_epi32(acc, u, s) }
    }
}
