//! Medians and quartiles of what was measured.

/// The value below which a part (0 to 1) of the values lies, by nearest rank: one that was measured. NaN if there is none.
pub(crate) fn quantile(values: impl IntoIterator<Item = f64>, part: f64) -> f64 {
    let mut values: Vec<f64> = values.into_iter().collect();
    values.sort_by(f64::total_cmp);
    let rank = ((values.len() as f64 * part).ceil() as usize).max(1);
    values.get(rank - 1).copied().unwrap_or(f64::NAN)
}

/// The middle one, or the lower of two.
pub(crate) fn median(values: impl IntoIterator<Item = f64>) -> f64 {
    quantile(values, 0.5)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quartiles_enclose_the_median() {
        assert_eq!(median([3.0, 1.0, 2.0]), 2.0);
        assert!(median([]).is_nan());
        for count in 1..10 {
            let values = || (0..count).map(f64::from);
            let [first, middle, third] = [0.25, 0.5, 0.75].map(|part| quantile(values(), part));
            assert!(first <= middle && middle <= third, "{count} values");
        }
        assert_eq!(quantile([5.0, 1.0, 9.0], 0.0), 1.0);
        assert_eq!(quantile([5.0, 1.0, 9.0], 1.0), 9.0);
    }
}
