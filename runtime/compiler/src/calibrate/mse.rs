//! The range with the least squared error, rounding and clipping together (the OMSE rule of FQ-ViT and others).

use super::descent;
use super::histogram::Histogram;
use super::loss::Loss;
use crate::lower::expr::Expr;

/// Candidates shrink the range that was seen in steps of 2 %.
const STEP: f64 = 0.02;

/// Shrinks both ends, down to 30 %, or to 2 % if a function follows that may flatten what lies there.
pub(super) fn range(histogram: &Histogram, function: Option<&Expr>) -> [f32; 2] {
    let loss = Loss::new(histogram, function);
    let reach = histogram.reach();
    let steps = if function.is_some() { 49 } else { 35 };
    // An end at 0 stays there.
    let last = reach.map(|end| if end == 0.0 { 0 } else { steps });
    let shrunk = |end: usize, by: usize| (f64::from(reach[end]) * (1.0 - STEP * by as f64)) as f32;
    let range = |[low, high]: [usize; 2]| [shrunk(0, low), shrunk(1, high)];
    range(descent::least(last, |by| loss.of(range(by))))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::calibrate::histogram::tests::of;
    use crate::frontend::Binary;

    #[test]
    fn a_lone_outlier_is_clipped_and_a_uniform_range_is_not() {
        let uniform: Vec<f32> = (0..10_000u16).map(|i| f32::from(i) / 10_000.0).collect();
        let [low, high] = range(&of(&uniform), None);
        assert_eq!(low.to_bits(), 0f32.to_bits());
        assert!(high > 0.97, "{high}");
        let mut bell: Vec<f32> = (0..100_000u32)
            .map(|i| ((i % 1000) as f32 / 1000.0 - 0.5) * 2.0)
            .collect();
        bell.push(3.0);
        assert!(range(&of(&bell), None)[1] < 2.9);
    }

    #[test]
    fn two_magnitudes_by_hand() {
        // Bins of whole numbers over 64 are wide, so each of 1 000 numbers about 100 errs by step²/12, and the lone 200 by
        // (200 − end)². Steps of 1/255 of the end: end²·1000/(12·255²) + (200 − end)² is least near 199.7; with 10⁹ numbers
        // it is past the least where nothing else is clipped.
        let mut numbers = vec![100.0; 1000];
        numbers.push(200.0);
        assert_eq!(range(&of(&numbers), None), [0.0, 200.0]);
        let mut h = of(&vec![100.0; 1000]);
        for _ in 0..20 {
            h.merge(&h.clone());
        }
        h.merge(&of(&[200.0]));
        // 1.05·10⁹ numbers: 1345·end² + (200 − end)² falls until the numbers about 100 are clipped, at 100.8.
        assert_eq!(range(&h, None), [0.0, 104.0]);
    }

    #[test]
    fn a_function_s_flat_part_is_cut_off() {
        let relu = Expr::X.binary(Binary::Max, Expr::Const(0.0));
        let both: Vec<f32> = (-1000..1000i16).map(|i| f32::from(i) / 1000.0).collect();
        let [low, high] = range(&of(&both), Some(&relu));
        assert!(low > -0.05 && high > 0.97, "{low} {high}");
    }
}
