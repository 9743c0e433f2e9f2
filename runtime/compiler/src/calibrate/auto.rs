//! The method that does best, tensor by tensor, on photos that the ranges were not made from.

use super::loss::Loss;
use super::method::Method;
use super::{Parts, merged};
use crate::lower::expr::Expr;

/// What is tried; the first is kept unless another is clearly better.
const CANDIDATES: [Method; 6] = [
    Method::Mse,
    Method::Entropy,
    Method::Percentile(99.9),
    Method::Percentile(99.99),
    Method::Percentile(99.999),
    Method::MinMax,
];

/// The method with the least squared error, where each part of the photos is quantised with the range by the others.
pub(super) fn choose(parts: &Parts, function: Option<&Expr>) -> Method {
    let mut errors = [0.0; CANDIDATES.len()];
    for (held_out, part) in parts.iter().enumerate() {
        let others = parts
            .iter()
            .enumerate()
            .filter(|(index, _)| *index != held_out);
        let others = merged(others.map(|(_, part)| part));
        let loss = Loss::new(part, function);
        for (error, method) in errors.iter_mut().zip(CANDIDATES) {
            *error += loss.of(method.range_of(&others, function));
        }
    }
    let mut best = (f64::INFINITY, CANDIDATES[0]);
    for (error, method) in errors.into_iter().zip(CANDIDATES) {
        if error < best.0 {
            best = (error, method);
        }
    }
    best.1
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::calibrate::histogram::tests::of;

    #[test]
    fn what_is_held_out_decides() {
        let plain: Vec<f32> = (0..100_000u32)
            .map(|i| (i % 1000) as f32 / 1000.0)
            .collect();
        // 3 stands far out on one photo, which cannot pay for three times the step on all others.
        let outlier: Vec<f32> = plain.iter().copied().chain([3.0]).collect();
        let parts = [&plain, &plain, &outlier, &plain].map(|part| of(part));
        assert_ne!(choose(&parts, None), Method::MinMax);
        // A few numbers in a thousand are 3 on every photo.
        let common: Vec<f32> = plain.iter().copied().chain([3.0; 300]).collect();
        let parts = [&common, &common, &common, &common].map(|part| of(part));
        let [_, high] = choose(&parts, None).range_of(&parts[0], None);
        assert!(high >= 3.0);
    }
}
