//! What the model says in f32, and how far the plan's logits are from that.

use std::cmp::Reverse;
use std::path::Path;

use anyhow::Context as _;
use vitlet::{Plan, Session};
use vitlet_compiler::{Classifier, Deviation, Model, Normalisation};

use super::tally::ReferenceAnswer;
use crate::compile::{compile_error, open_model};
use crate::failure::invalid;

/// The model, and how the plan's images are normalised for it.
pub(super) struct Reference {
    model: Model,
    normalisation: Normalisation,
}

/// What each worker has of its own.
pub(super) struct Worker<'m>(Classifier<'m>);

impl Reference {
    /// The model of a file, if one is named; it must be like the plan.
    pub(super) fn open(path: Option<&Path>, plan: &Plan<'_>) -> anyhow::Result<Option<Self>> {
        let Some(path) = path else {
            return Ok(None);
        };
        let model = open_model(path)?;
        let normalisation = Normalisation::new(plan.mean(), plan.std());
        let (height, width) = plan.input();
        let classes = plan.output().elements().unwrap_or_default();
        if model.image_size() != [height as usize, width as usize] || model.classes() != classes {
            let [h, w] = model.image_size();
            return Err(invalid(format_args!(
                "{}: {h}x{w} pixels in, {} classes out, but the plan has {height}x{width} and {classes}; give the model the plan was made from",
                path.display(),
                model.classes()
            )));
        }
        Ok(Some(Self {
            model,
            normalisation: normalisation.map_err(compile_error)?,
        }))
    }

    pub(super) fn worker(&self) -> anyhow::Result<Worker<'_>> {
        Ok(Worker(self.model.classifier(&self.normalisation)?))
    }
}

impl Worker<'_> {
    /// What the model says of an image, beside the session that ran it last.
    pub(super) fn answer(
        &self,
        image: &[u8],
        session: &Session<'_>,
    ) -> anyhow::Result<ReferenceAnswer> {
        let logits = self.0.logits(image)?;
        let class = best(&logits).context("the model has no logits")?;
        let mut deviation = Deviation::default();
        deviation.add(&session.dequantised(), &logits);
        Ok(ReferenceAnswer {
            class,
            score: score(&logits, class),
            signal: deviation.signal(),
            noise: deviation.noise(),
        })
    }
}

/// The index of the largest value; of equals, the smallest index.
pub(crate) fn best(logits: &[f32]) -> Option<usize> {
    (0..logits.len()).max_by(|&a, &b| {
        logits[a]
            .total_cmp(&logits[b])
            .then(Reverse(a).cmp(&Reverse(b)))
    })
}

/// A class's share of the softmax.
fn score(logits: &[f32], class: usize) -> f32 {
    let of_class = f64::from(logits[class]);
    let others = logits
        .iter()
        .map(|logit| (f64::from(*logit) - of_class).exp());
    (1.0 / others.sum::<f64>()) as f32
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ties_go_to_the_smaller_index() {
        assert_eq!(best(&[1.0, 3.0, 3.0, 2.0]), Some(1));
        assert_eq!(best(&[]), None);
    }

    #[test]
    fn scores_are_shares() {
        let logits = [1.0, 3.0, -2.0];
        let total: f32 = (0..3).map(|class| score(&logits, class)).sum();
        assert!((total - 1.0).abs() < 1e-6);
        assert!((score(&logits, 1) / score(&logits, 0) - 2f32.exp()).abs() < 1e-5);
        assert_eq!(score(&[1e9, -1e9], 0), 1.0);
    }
}
