//! The reference: rounding, saturation and the three output forms.

use super::{Out, Output, Requantise};

/// Largest magnitude that `round` returns.
pub(crate) const ROUND_MAX: f32 = 4_194_303.0;
/// 1.5·2²³: adding it leaves no fraction bits, and the addition rounds ties to even.
pub(crate) const MAGIC: f32 = 12_582_912.0;

/// To the nearest integer, ties to even, clamped to ±(2²²−1).
#[inline]
pub(crate) fn round(x: f32) -> i32 {
    ((x.clamp(-ROUND_MAX, ROUND_MAX) + MAGIC) - MAGIC) as i32
}

/// Clamps to the range of i16.
#[inline]
pub(crate) fn sat16(v: i32) -> i16 {
    v.clamp(i32::from(i16::MIN), i32::from(i16::MAX)) as i16
}

/// Clamps to the range of i8.
#[inline]
pub(crate) fn sat8(v: i32) -> i8 {
    v.clamp(i32::from(i8::MIN), i32::from(i8::MAX)) as i8
}

/// `max(sat8(sat16(r) + zero_point), min)`.
#[inline]
pub(crate) fn s8(r: i32, zero_point: i8, min: i8) -> i8 {
    sat8(i32::from(sat16(r)) + i32::from(zero_point)).max(min)
}

impl Requantise<'_> {
    /// Requantises accumulator `acc` (without bias) of `channel` into element `index` of `out`. `out` has the form's type (`check_out`).
    #[inline]
    pub(crate) fn store(&self, acc: i32, channel: usize, out: &mut Out<'_>, index: usize) {
        let r = round((acc + self.bias[channel]) as f32 * self.scale[channel]);
        self.output.store(r, out, index);
    }
}

impl Output<'_> {
    /// Puts a rounded value into element `index` of `out`, which has the form's type (`check_out`).
    #[inline(always)]
    pub(crate) fn store(&self, r: i32, out: &mut Out<'_>, index: usize) {
        match (out, self) {
            (
                Out::S8(y),
                Output::S8 {
                    zero_point,
                    min,
                    table,
                },
            ) => {
                let q = s8(r, *zero_point, *min);
                y[index] = table.map_or(q, |table| table[usize::from(q as u8)]);
            }
            (Out::S16(y), _) => y[index] = sat16(r),
            (Out::S16Add(y), _) => y[index] = sat16(i32::from(sat16(r)) + i32::from(y[index])),
            (Out::S32(y), _) => y[index] = r,
            (Out::S8(_), _) => {}
        }
    }
}
