//! Where the work is done: an abstraction over thread pools, so that this crate needs none.

/// Something that can do several jobs at once.
///
/// An implementation decides only *where* a job runs; which rows are in it, and so every result, is the same for all.
pub trait Threads {
    /// How many jobs can run at once: at least 1. The engine uses at most [`MAX_THREADS`](crate::MAX_THREADS) of them.
    fn count(&self) -> usize;

    /// Least work worth giving to one more thread, in multiply-accumulates: what costs more to hand over than to do is not split.
    ///
    /// Some 65 000 of them take one and a half microseconds on x86 with AVX2, and so does handing over a job to a thread that waits
    /// for it in a loop (docs/threads.md).
    fn least_work(&self) -> u64 {
        65_536
    }

    /// Calls `work` once for each job, in any order, and returns when all calls have returned.
    fn for_each<J: Send>(&self, jobs: &mut [J], work: impl Fn(&mut J) + Sync);
}

/// The calling thread alone.
#[derive(Clone, Copy, Default, Debug)]
pub struct Serial;

impl Threads for Serial {
    fn count(&self) -> usize {
        1
    }

    fn for_each<J: Send>(&self, jobs: &mut [J], work: impl Fn(&mut J) + Sync) {
        jobs.iter_mut().for_each(work);
    }
}
