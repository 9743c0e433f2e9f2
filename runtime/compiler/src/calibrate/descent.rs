//! The search of the methods that shrink a range from both ends.

/// The pair of candidates with the least cost, by turns: the best of the first for the second found so far, then the other way
/// round, until neither changes: where costs of rounding and clipping add up there is one least. Candidates are numbers up to and with `last`; the search begins at the first ones.
pub(super) fn least(last: [usize; 2], cost: impl Fn([usize; 2]) -> f64) -> [usize; 2] {
    let mut best = ([0, 0], cost([0, 0]));
    loop {
        let before = best.0;
        for end in [0, 1] {
            for candidate in 0..=last[end] {
                let mut pair = best.0;
                pair[end] = candidate;
                let found = cost(pair);
                if found < best.1 {
                    best = (pair, found);
                }
            }
        }
        // The cost falls with every change, so the search ends.
        if best.0 == before {
            return best.0;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_least_of_a_bowl_whose_axes_are_not_ours() {
        let bowl = |[a, b]: [usize; 2]| {
            let (x, y) = (a as f64 - 12.0, b as f64 - 7.0);
            x * x + y * y + x * y / 2.0
        };
        assert_eq!(least([35, 35], bowl), [12, 7]);
        // With y = −7 the least is where 2x − 3.5 = 0: at 1.75, so 14 is nearest.
        assert_eq!(least([35, 0], bowl), [14, 0]);
        assert_eq!(least([0, 0], bowl), [0, 0]);
        assert_eq!(least([9, 9], |_| f64::NAN), [0, 0]);
    }
}
