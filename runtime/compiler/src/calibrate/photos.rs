//! The photos that are kept, and how near a plan's logits are to the f32 model's on them.

use vitlet_engine::Engine;
use vitlet_kernels::Kernel;
use vitlet_plan::{AlignedBytes, Plan};

use super::Calibration;
use crate::deviation::Deviation;
use crate::error::CompileError;
use crate::model::{Model, Options};
use crate::ranges::Ranges;

/// A photo, and what the model makes of it in f32.
#[derive(Debug)]
pub(super) struct Sample {
    pub(super) image: Vec<u8>,
    pub(super) logits: Vec<f32>,
}

/// Photos to measure plans of a model with.
#[derive(Clone, Copy)]
pub(super) struct Photos<'m> {
    pub(super) model: &'m Model,
    pub(super) calibration: &'m Calibration,
    pub(super) samples: &'m [Sample],
}

impl Photos<'_> {
    /// The plan that the ranges give.
    pub(super) fn compile(&self, ranges: &Ranges) -> Result<AlignedBytes, CompileError> {
        let options = Options::unnamed(self.calibration);
        self.model.compile(ranges, &options)
    }

    /// How far the logits of the plan that the ranges give are from the f32 model's.
    pub(super) fn deviation(&self, ranges: &Ranges) -> Result<Deviation, CompileError> {
        let bytes = self.compile(ranges)?;
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
