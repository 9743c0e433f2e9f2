//! A 256-entry table, which an activation function becomes, on 16 bytes at a time.

use core::arch::aarch64::*;

/// Looks bytes up in four tables of 64: TBL gives 0 outside its table, TBX leaves what is there; the index is moved down by 64 from table to table.
///
/// # Safety
/// `p` is valid for reading and writing `n` elements.
#[inline(always)]
pub(super) unsafe fn look_up(table: &[i8; 256], p: *mut i8, n: usize) {
    // SAFETY: i + 32 or i + 16 ≤ n in the loops, and the table has 256 entries.
    unsafe {
        let quarters = [0, 64, 128, 192].map(|first| table.as_ptr().add(first));
        let tables = [
            vld1q_s8_x4(quarters[0]),
            vld1q_s8_x4(quarters[1]),
            vld1q_s8_x4(quarters[2]),
            vld1q_s8_x4(quarters[3]),
        ];
        let mut i = 0;
        while i + 32 <= n {
            let at = p.add(i);
            let index = [vld1q_s8(at), vld1q_s8(at.add(16))];
            vst1q_s8(at, entries(&tables, index[0]));
            vst1q_s8(at.add(16), entries(&tables, index[1]));
            i += 32;
        }
        while i + 16 <= n {
            vst1q_s8(p.add(i), entries(&tables, vld1q_s8(p.add(i))));
            i += 16;
        }
        while i < n {
            *p.add(i) = table[usize::from(*p.add(i) as u8)];
            i += 1;
        }
    }
}

/// The entries of 16 bytes.
#[inline(always)]
fn entries(tables: &[int8x16x4_t; 4], bytes: int8x16_t) -> int8x16_t {
    // SAFETY: register operations of the baseline instruction set.
    unsafe {
        let (mut index, step) = (vreinterpretq_u8_s8(bytes), vdupq_n_u8(64));
        let mut y = vqtbl4q_s8(tables[0], index);
        index = vsubq_u8(index, step);
        y = vqtbx4q_s8(y, tables[1], index);
        index = vsubq_u8(index, step);
        y = vqtbx4q_s8(y, tables[2], index);
        index = vsubq_u8(index, step);
        vqtbx4q_s8(y, tables[3], index)
    }
}
