//! Logits to labels and scores.

use vitlet_plan::Plan;

/// One class of a result.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Class<'m> {
    /// Its index: the logit's, and the label's.
    pub index: usize,
    /// Its name, if the plan has labels.
    pub label: Option<&'m str>,
    /// Its integer logit: equal on every machine.
    pub logit: i32,
    /// Its share of the softmax over all classes, for display: the last digits depend on the machine's `exp`.
    pub score: f32,
}

/// The `k` classes with the largest logits, best first; of equals, the one with the smaller index.
pub(crate) fn top<'m>(plan: &Plan<'m>, logits: &[i32], k: usize) -> Vec<Class<'m>> {
    let scores = softmax(logits, plan.output().scale);
    let mut order: Vec<usize> = (0..logits.len()).collect();
    order.sort_by_key(|&index| std::cmp::Reverse(logits[index]));
    order
        .into_iter()
        .take(k)
        .map(|index| Class {
            index,
            label: plan.label(index),
            logit: logits[index],
            score: scores[index],
        })
        .collect()
}

/// Shares of one, for display.
fn softmax(logits: &[i32], scale: f32) -> Vec<f32> {
    let max = logits.iter().copied().max().unwrap_or_default();
    // Logits are below 2^22 (docs/numerics.md): differences and conversions are exact.
    let exps: Vec<f32> = logits
        .iter()
        .map(|&logit| ((logit - max) as f32 * scale).exp())
        .collect();
    let sum: f32 = exps.iter().sum();
    exps.into_iter().map(|exp| exp / sum).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn softmax_is_a_distribution() {
        let shares = softmax(&[0, 1000, -3_000_000, 1000], 0.001);
        assert!((shares.iter().sum::<f32>() - 1.0).abs() < 1e-6);
        assert_eq!(shares[1], shares[3]);
        assert!((shares[1] / shares[0] - 1.0_f32.exp()).abs() < 1e-5);
        assert_eq!(shares[2], 0.0);
        assert!(softmax(&[], 1.0).is_empty());
    }
}
