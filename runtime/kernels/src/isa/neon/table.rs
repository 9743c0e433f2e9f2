//! A 256-entry table, which an activation function becomes, on 16 bytes at a time.

use core::arch::aarch64::*;

/// Looks bytes up in four tables of 64: TBL gives 0 outside its table, TBX leaves what is there; the index is moved down by 64 from table to table.
///
/// # Safety
/// `p` is valid for reading and writing `n` elements.
#[inline(always)]
pub(super) unsafe fn look_up(table: &[i8; 256], mut p: *mut i8, n: usize) {
    // SAFETY: n / 64 times 64 bytes, then 16 at a time, then one at a time are n; the table has 256 entries.
    unsafe {
        let quarters = [0, 64, 128, 192].map(|first| table.as_ptr().add(first));
        let tables = [
            vld1q_s8_x4(quarters[0]),
            vld1q_s8_x4(quarters[1]),
            vld1q_s8_x4(quarters[2]),
            vld1q_s8_x4(quarters[3]),
        ];
        for _ in 0..n / 64 {
            let int8x16x4_t(b0, b1, b2, b3) = vld1q_s8_x4(p);
            let entries = int8x16x4_t(
                entries(&tables, b0),
                entries(&tables, b1),
                entries(&tables, b2),
                entries(&tables, b3),
            );
            vst1q_s8_x4(p, entries);
            p = p.add(64);
        }
        for _ in 0..n % 64 / 16 {
            vst1q_s8(p, entries(&tables, vld1q_s8(p)));
            p = p.add(16);
        }
        for _ in 0..n % 16 {
            *p = table[usize::from(*p as u8)];
            p = p.add(1);
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
