//! Which tensors are worth 16 bits: those that make the logits better for the work that they add.
//!
//! Each tensor that can have 16 bits is given them alone, and the plan runs on the photos that were kept. What that takes off the
//! logits' noise, per multiply-accumulate that it adds, is the order in which tensors are then taken together, as long as the budget
//! lasts; one that does not make the logits better with those before it is left out again.
//!
//! Biases are corrected afterwards, for the bits that were chosen: a correction for other bits is an error of its own. So nothing has
//! been fitted to the logits yet, and all photos are good to measure on; the more there are, the less is chosen by chance. Whether
//! the choice helps in the end is measured with corrected biases, on the photos that these hold out.

use super::ENOUGH;
use super::photos::Photos;
use crate::deviation::Deviation;
use crate::error::CompileError;
use crate::ir::{Graph, ValueId};
use crate::quantise::planes;
use crate::ranges::Ranges;

/// Which tensors of a model are worth 16 bits, by photos.
pub(super) struct Mixer<'m> {
    pub(super) photos: Photos<'m>,
}

/// Told how many of how many measurements are done.
pub type Progress<'p> = &'p mut dyn FnMut(usize, usize);

/// What a choice of tensors is worth.
#[derive(Debug, Clone, PartialEq)]
pub struct Mixed {
    /// The tensors that were taken, in this order.
    pub chosen: Vec<Chosen>,
    /// Tensors that could have 16 bits.
    pub candidates: usize,
    /// Photos that they were chosen on.
    pub photos: usize,
    /// SQNR of the logits without the choice, in dB, on the photos among them that bias correction holds out; `None` if no logit
    /// differs.
    pub before_db: Option<f64>,
    /// And with the tensors that were taken.
    pub after_db: Option<f64>,
}

/// A tensor that was taken.
#[derive(Debug, Clone, PartialEq)]
pub struct Chosen {
    /// Its name.
    pub name: String,
    /// What it adds to the SQNR of the logits, with those before it, in dB; before biases are corrected.
    pub gain_db: f64,
    /// Multiply-accumulates that it adds.
    pub macs: u64,
}

/// A tensor that can have 16 bits.
struct Candidate {
    value: ValueId,
    macs: u64,
    /// What it takes off the noise alone.
    gain: f64,
}

impl Candidate {
    fn gain_per_mac(&self) -> f64 {
        self.gain / self.macs.max(1) as f64
    }
}

impl Mixer<'_> {
    /// Keeps the tensors in 16 bits that are worth it. All that are kept so in the end, earlier ones included, add at most `percent`
    /// of the model's multiply-accumulates.
    pub(super) fn choose(
        &self,
        ranges: &mut Ranges,
        percent: f64,
        progress: Progress<'_>,
    ) -> Result<Mixed, CompileError> {
        if self.photos.samples.len() < ENOUGH as usize {
            return Err(CompileError::FewPhotos {
                found: self.photos.samples.len(),
                wanted: ENOUGH as usize,
            });
        }
        let graph = self.photos.model.graph();
        let mut deviation = self.photos.deviation(ranges)?;
        let candidates = self.candidates(ranges, deviation.noise(), progress)?;
        let count = candidates.len();
        let mut left = self
            .budget(percent)
            .saturating_sub(self.photos.model.extra_macs(ranges));
        let mut chosen = vec![];
        for candidate in candidates.iter().filter(|c| c.gain > 0.0) {
            if candidate.macs > left {
                continue;
            }
            ranges.set_16_bit(graph, candidate.value, true);
            let with = self.photos.deviation(ranges)?;
            if with.noise() < deviation.noise() {
                left -= candidate.macs;
                chosen.push(self.chosen(candidate, [&deviation, &with]));
                deviation = with;
            } else {
                ranges.set_16_bit(graph, candidate.value, false);
            }
        }
        Ok(Mixed {
            chosen,
            candidates: count,
            photos: self.photos.samples.len(),
            before_db: None,
            after_db: None,
        })
    }

    /// Multiply-accumulates in percent of the model's.
    fn budget(&self, percent: f64) -> u64 {
        (self.photos.model.macs() as f64 * percent / 100.0) as u64
    }

    /// The tensors that can have 16 bits and have not, the most worth first.
    fn candidates(
        &self,
        ranges: &Ranges,
        noise: f64,
        progress: Progress<'_>,
    ) -> Result<Vec<Candidate>, CompileError> {
        let graph = self.photos.model.graph();
        let kept = ranges.kept_values(graph);
        let mut values = raisable(graph);
        values.retain(|value| !kept.contains(value));
        let mut candidates = vec![];
        for (done, value) in values.iter().enumerate() {
            let mut alone = ranges.clone();
            alone.set_16_bit(graph, *value, true);
            candidates.push(Candidate {
                value: *value,
                macs: planes::extra_macs(graph, *value),
                gain: noise - self.photos.deviation(&alone)?.noise(),
            });
            progress(done + 1, values.len());
        }
        candidates.sort_by(|a, b| b.gain_per_mac().total_cmp(&a.gain_per_mac()));
        Ok(candidates)
    }

    fn chosen(&self, candidate: &Candidate, [before, with]: [&Deviation; 2]) -> Chosen {
        Chosen {
            name: self.photos.model.graph().values[candidate.value]
                .name
                .clone(),
            gain_db: 10.0 * (before.noise() / with.noise()).log10(),
            macs: candidate.macs,
        }
    }
}

/// The values of a graph that can have 16 bits where they would have 8.
fn raisable(graph: &Graph) -> Vec<ValueId> {
    let results = graph.ops.iter().map(|op| op.output);
    results
        .filter(|value| planes::refusal(graph, *value).is_none())
        .collect()
}
