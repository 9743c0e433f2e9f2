//! Which tensors are worth 16 bits: those that make the logits better for the work that they add.
//!
//! Each tensor that can have 16 bits is given them alone, and the plan runs on the photos that were kept. What that takes off the
//! logits' noise, per multiply-accumulate that it adds, is the order in which tensors are then taken together, as long as the budget
//! lasts; one that does not make the logits better with those before it is left out again.
//!
//! Biases are corrected afterwards, for the bits that were chosen: a correction for other bits is an error of its own. So nothing has
//! been fitted to the logits yet, and all photos are good to measure on; the more there are, the less is chosen by chance. Whether
//! the choice helps in the end is measured with corrected biases, on the photos that these hold out.

use super::bias::Sample;
use super::{Calibration, ENOUGH};
use crate::deviation::Deviation;
use crate::error::CompileError;
use crate::ir::{Graph, ValueId};
use crate::model::{Model, Options};
use crate::quantise::planes;
use crate::ranges::Ranges;

use vitlet_engine::Engine;
use vitlet_kernels::Kernel;
use vitlet_plan::{AlignedBytes, Plan};

/// Photos that tell which tensors are worth 16 bits, with what the f32 model makes of them.
pub(super) struct Mixer<'m> {
    pub(super) model: &'m Model,
    pub(super) calibration: &'m Calibration,
    pub(super) samples: &'m [Sample],
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
        if self.samples.len() < ENOUGH as usize {
            return Err(CompileError::FewPhotos {
                found: self.samples.len(),
                wanted: ENOUGH as usize,
            });
        }
        let graph = self.model.graph();
        let mut deviation = self.measure(ranges)?;
        let candidates = self.candidates(ranges, deviation.noise(), progress)?;
        let count = candidates.len();
        let mut left = self
            .budget(percent)
            .saturating_sub(self.model.extra_macs(ranges));
        let mut chosen = vec![];
        for candidate in candidates.iter().filter(|c| c.gain > 0.0) {
            if candidate.macs > left {
                continue;
            }
            ranges.set_16_bit(graph, candidate.value, true);
            let with = self.measure(ranges)?;
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
            photos: self.samples.len(),
            before_db: None,
            after_db: None,
        })
    }

    /// Multiply-accumulates in percent of the model's.
    fn budget(&self, percent: f64) -> u64 {
        (self.model.macs() as f64 * percent / 100.0) as u64
    }

    /// The tensors that can have 16 bits and have not, the most worth first.
    fn candidates(
        &self,
        ranges: &Ranges,
        noise: f64,
        progress: Progress<'_>,
    ) -> Result<Vec<Candidate>, CompileError> {
        let graph = self.model.graph();
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
                gain: noise - self.measure(&alone)?.noise(),
            });
            progress(done + 1, values.len());
        }
        candidates.sort_by(|a, b| b.gain_per_mac().total_cmp(&a.gain_per_mac()));
        Ok(candidates)
    }

    fn chosen(&self, candidate: &Candidate, [before, with]: [&Deviation; 2]) -> Chosen {
        Chosen {
            name: self.model.graph().values[candidate.value].name.clone(),
            gain_db: 10.0 * (before.noise() / with.noise()).log10(),
            macs: candidate.macs,
        }
    }

    /// How far the logits of the plan that the ranges give are from the f32 model's.
    fn measure(&self, ranges: &Ranges) -> Result<Deviation, CompileError> {
        let options = Options::unnamed(self.calibration);
        let bytes = self.model.compile(ranges, &options)?;
        let failed = |e: String| CompileError::Plan(e);
        let plan = Plan::parse(&bytes).map_err(|e| failed(e.to_string()))?;
        let threads = std::thread::available_parallelism().map_or(1, usize::from);
        let shares = self
            .samples
            .chunks(self.samples.len().div_ceil(threads).max(1));
        let logits: Vec<Result<Vec<Vec<f32>>, String>> = std::thread::scope(|scope| {
            let runs = shares.map(|share| scope.spawn(|| logits(&plan, share)));
            let runs: Vec<_> = runs.collect();
            let lost = |_| Err("a thread that measured it is gone".to_owned());
            let joined = runs.into_iter().map(|run| run.join().unwrap_or_else(lost));
            joined.collect()
        });
        // In the photos' order, so that sums do not depend on the number of threads.
        let mut deviation = Deviation::default();
        let mut samples = self.samples.iter();
        for share in logits {
            for (logits, sample) in share.map_err(failed)?.iter().zip(&mut samples) {
                deviation.add(logits, &sample.logits);
            }
        }
        Ok(deviation)
    }
}

/// What a plan makes of photos.
fn logits(plan: &Plan<'_>, samples: &[Sample]) -> Result<Vec<Vec<f32>>, String> {
    let mut engine = Engine::new(plan, Kernel::detect());
    let mut arena = AlignedBytes::zeroed(engine.arena_len());
    let scale = plan.output().scale;
    let run = |sample: &Sample| {
        let logits = engine.run(&mut arena, &sample.image);
        let logits = logits.map_err(|e| e.to_string())?;
        Ok(logits.iter().map(|x| *x as f32 * scale).collect())
    };
    samples.iter().map(run).collect()
}

/// The values of a graph that can have 16 bits where they would have 8.
fn raisable(graph: &Graph) -> Vec<ValueId> {
    let results = graph.ops.iter().map(|op| op.output);
    results
        .filter(|value| planes::refusal(graph, *value).is_none())
        .collect()
}
