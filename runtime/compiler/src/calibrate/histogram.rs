//! What was seen of one activation, in memory that does not grow with the number of photos.

use std::collections::BTreeMap;

/// Bits of an f32 that do not take part in the bin number: sign, exponent and six bits of the mantissa do, so a bin is about 1 % wide.
const BIN_SHIFT: u32 = 17;
/// Bins of one sign and exponent.
const OCTAVE: usize = 64;

/// Counts of numbers in logarithmic bins, and the smallest and largest number. Only octaves that occur take memory.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Histogram {
    seen: [f32; 2],
    /// By sign and exponent.
    octaves: BTreeMap<u16, [u64; OCTAVE]>,
}

/// The numbers of one bin.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Bin {
    /// The end nearer to 0, and the other.
    pub(super) ends: [f64; 2],
    pub(super) middle: f64,
    pub(super) count: f64,
}

impl Bin {
    fn new(number: u32, count: u64) -> Bin {
        let value = |bits: u32| f64::from(f32::from_bits(bits));
        let first = number << BIN_SHIFT;
        Bin {
            // Bits count magnitudes upwards; past the last bin of an octave begins the next.
            ends: [value(first), value(first + (1 << BIN_SHIFT))],
            middle: value(first | 1 << (BIN_SHIFT - 1)),
            count: count as f64,
        }
    }

    pub(super) fn width(&self) -> f64 {
        (self.ends[1] - self.ends[0]).abs()
    }
}

impl Default for Histogram {
    fn default() -> Self {
        Histogram {
            seen: [f32::INFINITY, f32::NEG_INFINITY],
            octaves: BTreeMap::new(),
        }
    }
}

impl Histogram {
    /// Counts numbers; false, and nothing is counted, when one is not finite.
    pub(crate) fn add<'x>(&mut self, numbers: impl Iterator<Item = &'x f32>) -> bool {
        let mut bins = vec![0u32; 1 << (32 - BIN_SHIFT)];
        let mut seen = self.seen;
        for x in numbers {
            bins[(x.to_bits() >> BIN_SHIFT) as usize] += 1;
            seen = [seen[0].min(*x), seen[1].max(*x)];
        }
        // min and max skip NaN, but NaN and infinity have octaves of their own: exponent all ones.
        let counted = |octave: &[u32]| octave.iter().any(|n| *n > 0);
        let octaves = || bins.chunks(OCTAVE).zip(0u16..).filter(|(o, _)| counted(o));
        if octaves().any(|(_, number)| number & 0xff == 0xff) {
            return false;
        }
        for (octave, number) in octaves() {
            let sums = self.octaves.entry(number).or_insert([0; OCTAVE]);
            sums.iter_mut()
                .zip(octave)
                .for_each(|(sum, n)| *sum += u64::from(*n));
        }
        self.seen = seen;
        true
    }

    /// Adds the counts of another histogram.
    pub(crate) fn merge(&mut self, other: &Histogram) {
        for (number, octave) in &other.octaves {
            let sums = self.octaves.entry(*number).or_insert([0; OCTAVE]);
            sums.iter_mut().zip(octave).for_each(|(sum, n)| *sum += n);
        }
        let [low, high] = other.seen;
        self.seen = [self.seen[0].min(low), self.seen[1].max(high)];
    }

    /// The same numbers, each with either sign.
    pub(super) fn mirrored(&self) -> Histogram {
        let mut both = self.clone();
        let sign = |number: &u16| number ^ 0x100;
        both.merge(&Histogram {
            seen: [-self.seen[1], -self.seen[0]],
            octaves: self.octaves.iter().map(|(n, o)| (sign(n), *o)).collect(),
        });
        both
    }

    /// The smallest and the largest number, 0 and 0 if there are none.
    pub(crate) fn seen(&self) -> [f32; 2] {
        if self.octaves.is_empty() {
            return [0.0; 2];
        }
        self.seen
    }

    /// The range from the smallest to the largest number and 0: zero must be representable, since padding and bias rely on it.
    pub(super) fn reach(&self) -> [f32; 2] {
        let [low, high] = self.seen();
        [low.min(0.0), high.max(0.0)]
    }

    /// Numbers counted.
    pub(super) fn total(&self) -> f64 {
        self.bins().map(|bin| bin.count).sum()
    }

    /// The bins that hold something: positive ones from 0 upwards, then negative ones from 0 downwards.
    pub(super) fn bins(&self) -> impl DoubleEndedIterator<Item = Bin> + '_ {
        let octave = |(number, octave): (&u16, &'_ [u64; OCTAVE])| {
            let first = u32::from(*number) * OCTAVE as u32;
            let bins = (first..).zip(*octave);
            bins.filter(|(_, n)| *n > 0)
                .map(|(number, n)| Bin::new(number, n))
                .collect::<Vec<_>>()
        };
        self.octaves.iter().flat_map(octave)
    }

    /// The bins that hold something, from the smallest number to the largest.
    pub(super) fn ascending(&self) -> impl Iterator<Item = Bin> + '_ {
        let negative = |bin: &Bin| bin.middle < 0.0;
        let below = self.bins().rev().filter(negative);
        below.chain(self.bins().filter(move |bin| !negative(bin)))
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    /// A histogram of some numbers.
    pub(in crate::calibrate) fn of(numbers: &[f32]) -> Histogram {
        let mut histogram = Histogram::default();
        assert!(histogram.add(numbers.iter()));
        histogram
    }

    /// Numbers of every sign and size, by a multiplicative congruence.
    fn numbers(seed: u64, count: usize) -> Vec<f32> {
        let mut state = seed;
        let mut next = || {
            state = state
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1_442_695_040_888_963_407);
            f32::from_bits((state >> 32) as u32)
        };
        let finite = std::iter::from_fn(|| Some(next())).filter(|x| x.is_finite());
        finite.take(count).collect()
    }

    #[test]
    fn streamed_in_any_pieces_and_merged_in_any_order_is_the_whole() {
        for seed in 0..20 {
            let all = numbers(seed, 3000);
            let whole = of(&all);
            let mut streamed = Histogram::default();
            let mut parts: Vec<Histogram> = vec![];
            for piece in all.chunks(1 + 37 * (seed as usize + 1)) {
                assert!(streamed.add(piece.iter()));
                parts.push(of(piece));
            }
            assert_eq!(streamed, whole);
            for backwards in [false, true] {
                let mut merged = Histogram::default();
                if backwards {
                    parts.reverse();
                }
                parts.iter().for_each(|part| merged.merge(part));
                assert_eq!(merged, whole);
            }
            assert_eq!(whole.total(), 3000.0);
            let smallest = all.iter().copied().fold(f32::INFINITY, f32::min);
            assert_eq!(whole.seen()[0].to_bits(), smallest.to_bits());
        }
    }

    #[test]
    fn every_number_lies_in_its_bin_and_bins_ascend() {
        for x in numbers(7, 2000)
            .into_iter()
            .chain([0.0, 1.0, -1.0, f32::MAX])
        {
            let h = of(&[x]);
            let bin = h.bins().next().expect("one bin");
            let (x, [near, far]) = (f64::from(x).abs(), bin.ends.map(f64::abs));
            assert!(near <= x && x < far, "{x} in {bin:?}");
        }
        let h = of(&[-2.0, 3.0, -0.5, 0.0, 1.0]);
        let middles: Vec<f64> = h.ascending().map(|bin| bin.middle).collect();
        assert!(middles.is_sorted(), "{middles:?}");
        assert_eq!(middles.len(), 5);
    }

    #[test]
    fn a_mirror_image_is_added() {
        let some = [0.5, -3.0, 1.25];
        assert_eq!(
            of(&some).mirrored(),
            of(&[0.5, -0.5, -3.0, 3.0, 1.25, -1.25])
        );
    }

    #[test]
    fn nan_and_infinity_are_noticed_and_not_counted() {
        for odd in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
            let mut h = of(&[1.0]);
            assert!(!h.add([0.0, odd].iter()));
            assert_eq!(h, of(&[1.0]));
        }
    }
}
