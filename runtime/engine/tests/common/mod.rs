//! Shared by the engine's tests.
#![allow(dead_code, reason = "every test file uses its own part")]

use std::cell::Cell;

use vitlet_engine::{Engine, EngineError, Threads};
use vitlet_kernels::Kernel;
use vitlet_plan::{AlignedBytes, Plan};

/// A new thread for every job.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Scoped(pub(crate) usize);

impl Threads for Scoped {
    fn count(&self) -> usize {
        self.0
    }

    /// Every op is split, however small.
    fn least_work(&self) -> u64 {
        1
    }

    fn for_each<J: Send>(&self, jobs: &mut [J], work: impl Fn(&mut J) + Sync) {
        let work = &work;
        std::thread::scope(|scope| {
            for job in jobs {
                scope.spawn(move || work(job));
            }
        });
    }
}

/// No threads, but the jobs of many, last one first.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Backwards(pub(crate) usize);

impl Threads for Backwards {
    fn count(&self) -> usize {
        self.0
    }

    /// Every op is split, however small.
    fn least_work(&self) -> u64 {
        1
    }

    fn for_each<J: Send>(&self, jobs: &mut [J], work: impl Fn(&mut J) + Sync) {
        jobs.iter_mut().rev().for_each(work);
    }
}

/// No threads, but two jobs of every op, counted.
#[derive(Default, Debug)]
pub(crate) struct Counting {
    pub(crate) forks: Cell<usize>,
}

impl Threads for &Counting {
    fn count(&self) -> usize {
        2
    }

    fn least_work(&self) -> u64 {
        1
    }

    fn for_each<J: Send>(&self, jobs: &mut [J], work: impl Fn(&mut J) + Sync) {
        self.forks.set(self.forks.get() + 1);
        jobs.iter_mut().for_each(work);
    }
}

/// The bytes out of every op, in an arena that holds `dirt` before.
pub(crate) fn trace<T: Threads>(
    plan: &Plan<'_>,
    kernel: Kernel,
    threads: T,
    image: &[u8],
    dirt: u8,
) -> Result<Vec<Vec<u8>>, EngineError> {
    let mut engine = Engine::with_threads(plan, kernel, threads);
    let mut arena = AlignedBytes::zeroed(engine.arena_len());
    arena.fill(dirt);
    let mut outputs = vec![Vec::new(); plan.ops().len()];
    engine.run_traced(&mut arena, image, &mut |op, _, bytes| {
        outputs[op].extend_from_slice(bytes);
    })?;
    Ok(outputs)
}

/// The logits, and the bytes of all tensors, after a plain run, in which several ops may run together, in an arena that holds `dirt` before.
/// Where strips of a tensor were, there are zeros: several threads have them elsewhere.
pub(crate) fn tensors_after<T: Threads>(
    plan: &Plan<'_>,
    kernel: Kernel,
    threads: T,
    image: &[u8],
    dirt: u8,
) -> Result<(Vec<i32>, Vec<u8>), EngineError> {
    let mut engine = Engine::with_threads(plan, kernel, threads);
    let mut arena = AlignedBytes::zeroed(engine.arena_len());
    arena.fill(dirt);
    let logits = engine.run(&mut arena, image)?.to_vec();
    let strips = plan.tensors().filter(|tensor| tensor.held != 0);
    for range in strips.filter_map(|tensor| tensor.arena_range()) {
        arena[range].fill(0);
    }
    Ok((logits, arena[..plan.tensors_len()].to_vec()))
}
