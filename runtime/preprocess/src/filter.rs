//! The resampling filter along one axis, in integers.
//!
//! This is the definition of Pillow's `src/libImaging/Resample.c` (`precompute_coeffs`, `normalize_coeffs_8bpc`). With
//! `I` pixels in and `O` out, and the filter widened by `max(I/O, 1)`:
//!
//! - output pixel `o` looks at the input from its centre `(o + 1/2)·I/O`;
//! - its window holds the input pixels from `⌊centre − support + 1/2⌋` up to `⌊centre + support + 1/2⌋` (not included),
//!   clipped to the image, where `support` is the filter's radius times the widening;
//! - each weight is the filter at the distance of the pixel's centre, divided by the widening; the window's weights are
//!   divided by their sum and rounded, halves away from zero, to [`PRECISION_BITS`] fractional bits.
//!
//! The horizontal pass comes first and rounds to bytes. Pillow 11 always did that; Pillow 13 makes the vertical pass
//! first for some frames whose height shrinks more than their width, and there its bytes differ a little from these.
//!
//! Pillow computes this in `double`. Here every distance is a whole number of `1/(2·O)` pixels and every weight a whole
//! number times a factor common to the window, so the only rounding is the last one.

use crate::Interpolation;
use core::ops::Range;

/// Fractional bits of a weight: 32, less 8 for the pixel, less 2 for the sign and the overshoot of the cubic.
///
/// The weights of a window sum to 1 in absolute value for the triangle and to less than 1.5 for the cubic, so a
/// weighted sum of bytes stays below 2^31 in absolute value.
pub(crate) const PRECISION_BITS: u32 = 32 - 8 - 2;

/// Half of a weight's unit: a weighted sum starts from it, so that the shift down rounds to nearest.
pub(crate) const HALF: i32 = 1 << (PRECISION_BITS - 1);

/// A weighted sum that started from [`HALF`], as a byte.
#[inline(always)]
pub(crate) fn to_byte(sum: i32) -> u8 {
    (sum >> PRECISION_BITS).clamp(0, 255) as u8
}

/// One axis of a resize: `input` pixels become `resized` ones, of which `output` are kept, from `offset` on.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Axis {
    pub(crate) interpolation: Interpolation,
    pub(crate) input: u32,
    pub(crate) resized: u32,
    pub(crate) offset: u32,
    pub(crate) output: u32,
}

impl Axis {
    /// The filter's radius before widening, in pixels.
    fn radius(&self) -> i64 {
        match self.interpolation {
            Interpolation::Bilinear => 1,
            Interpolation::Bicubic => 2,
        }
    }

    /// The unit of the filter's argument, widening included, counted in `1/(2·O)` pixels.
    fn unit(&self) -> i64 {
        2 * i64::from(self.input.max(self.resized))
    }

    /// Centre of output pixel `index`, counted in `1/(2·O)` pixels. `index` is relative to `offset`.
    fn centre(&self, index: u32) -> i64 {
        (2 * (i64::from(self.offset) + i64::from(index)) + 1) * i64::from(self.input)
    }

    /// Input pixels that output pixel `index` is made of: at least one, at most [`Self::max_taps`].
    pub(crate) fn window(&self, index: u32) -> Range<usize> {
        let pixel = 2 * i64::from(self.resized);
        let support = self.radius() * self.unit();
        let centre = self.centre(index) + pixel / 2;
        let clip =
            |position: i64| position.div_euclid(pixel).clamp(0, i64::from(self.input)) as usize;
        clip(centre - support)..clip(centre + support)
    }

    /// Pixels in the longest window.
    pub(crate) fn max_taps(&self) -> usize {
        // ⌊a + s⌋ − ⌊a⌋ ≤ ⌈s⌉ for every a, where s is the window's width in pixels.
        let width = 2 * self.radius() * self.unit();
        let taps = (width as u64).div_ceil(2 * u64::from(self.resized));
        taps.min(u64::from(self.input)) as usize
    }

    /// Writes the weights of output pixel `index`, one for each pixel of `window`.
    pub(crate) fn write_weights(&self, index: u32, window: Range<usize>, weights: &mut [Word]) {
        let first = (2 * window.start as i64 + 1) * i64::from(self.resized) - self.centre(index);
        let step = 2 * i64::from(self.resized);
        let unit = self.unit();
        let raw =
            |tap: usize| raw_weight(self.interpolation, (first + step * tap as i64).abs(), unit);

        // The pixel nearest to the centre lies in every window and outweighs the negative lobes, so the sum is positive.
        let sum: i128 = (0..window.len()).map(raw).sum();
        for (tap, weight) in weights.iter_mut().enumerate().take(window.len()) {
            let raw = raw(tap);
            let rounded = ((raw.abs() << (PRECISION_BITS + 1)) + sum) / (2 * sum);
            *weight = to_word((rounded * raw.signum()) as i32);
        }
    }
}

/// The filter at `distance / unit`, times a constant of the filter and the unit.
///
/// Distances reach 2^30 and units 2^29 (a 16384-pixel short side of a 1-pixel-wide frame), so the cubic needs i128.
fn raw_weight(interpolation: Interpolation, distance: i64, unit: i64) -> i128 {
    let (d, s) = (i128::from(distance), i128::from(unit));
    match interpolation {
        Interpolation::Bilinear => (s - d).max(0),
        // (3/2 t³ − 5/2 t² + 1) inside 1, (−1/2 t³ + 5/2 t² − 4 t + 2) up to 2, times 2 s³.
        Interpolation::Bicubic if d < s => (3 * d - 5 * s) * d * d + 2 * s * s * s,
        Interpolation::Bicubic if d < 2 * s => ((5 * s - d) * d - 8 * s * s) * d + 4 * s * s * s,
        Interpolation::Bicubic => 0,
    }
}

/// A 32-bit number in the caller's byte scratch, whatever its alignment.
pub(crate) type Word = [u8; 4];

/// Stores a weight or an index.
pub(crate) fn to_word(value: i32) -> Word {
    value.to_ne_bytes()
}

/// Loads what [`to_word`] stored.
#[inline(always)]
pub(crate) fn from_word(word: Word) -> i32 {
    i32::from_ne_bytes(word)
}
