//! The range that leaves out as large a share of the numbers at either end as is asked for (FasterTransformer and RepQ-ViT
//! calibrate Swin so).

use super::histogram::{Bin, Histogram};

/// The range that at least `percent` % of the numbers are not above, and as many not below: whole bins, and zero.
pub(super) fn range(histogram: &Histogram, percent: f64) -> [f32; 2] {
    let [lowest, highest] = histogram.reach();
    let beyond = histogram.total() * (100.0 - percent) / 100.0;
    let ascending: Vec<Bin> = histogram.ascending().collect();
    let ends = |bin: Option<&Bin>| bin.map_or([0.0; 2], |bin| bin.ends);
    let [a, b] = ends(first_past(beyond, ascending.iter()));
    let low = a.min(b);
    let [a, b] = ends(first_past(beyond, ascending.iter().rev()));
    let high = a.max(b);
    [
        (low as f32).clamp(lowest, 0.0),
        (high as f32).clamp(0.0, highest),
    ]
}

/// The first bin, from outside, with which more than a share would be cut off.
fn first_past<'b>(share: f64, bins: impl Iterator<Item = &'b Bin>) -> Option<&'b Bin> {
    let mut sum = 0.0;
    let mut bins = bins;
    bins.find(|bin| {
        sum += bin.count;
        sum > share
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::calibrate::histogram::tests::of;

    #[test]
    fn as_many_are_left_out_at_either_end() {
        // A thousand numbers each of magnitude 1, and ten far out: 10 of 2010 are just under 0.5 %.
        let mut numbers = vec![1.0; 1000];
        numbers.extend(vec![-2.0; 1000]);
        numbers.extend(vec![50.0; 10]);
        let h = of(&numbers);
        // The bin of 1 ends at 1 + 1/64, that of −2 at −(2 + 2/64).
        assert_eq!(range(&h, 99.5), [-2.0, 1.015_625]);
        assert_eq!(range(&h, 99.6), [-2.0, 50.0]);
        assert_eq!(range(&h, 100.0), [-2.0, 50.0]);
        // Half of the numbers and more: what is left always holds zero.
        assert_eq!(range(&h, 49.0), [0.0, 0.0]);
    }
}
