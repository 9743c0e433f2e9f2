//! AVX2 with the VEX form of VPDPBUSD: processors for laptops and desktops, which have no AVX-512.

use core::arch::x86_64::*;

pub(super) use super::avx2::{
    Column, Window, load_column, load_window, look_up, shift_right_round, window,
};
use super::vnni::Dot;
pub(super) use super::vnni::{tile, tile_ragged, tile_steps};
use crate::AvxVnni;

impl Dot for AvxVnni {
    #[inline(always)]
    fn dot(self, acc: __m256i, u: __m256i, s: __m256i) -> __m256i {
        // SAFETY: the token proves that the CPU has the instruction.
        unsafe { _mm256_dpbusd_avx_epi32(acc, u, s) }
    }
}
