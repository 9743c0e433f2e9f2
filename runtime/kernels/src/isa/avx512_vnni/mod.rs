//! AVX-512 with VNNI and VBMI: servers since Ice Lake, Zen 4. What is not here or in the other files is done on 256 bits, as AVX2 does it.

mod columns;
mod depthwise;
mod lanes;
mod shift;
mod table;

use core::arch::x86_64::*;

pub(super) use self::columns::wide_columns;
pub(super) use self::depthwise::{Column, Window, load_column, load_window, store_pair, window};
pub(super) use self::shift::shift_right_round;
pub(super) use self::table::look_up;
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
