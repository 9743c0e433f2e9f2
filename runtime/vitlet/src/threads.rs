//! The threads of one inference.

use rayon::iter::{IntoParallelRefMutIterator as _, ParallelIterator as _};
use rayon::{ThreadPool, ThreadPoolBuilder};
use vitlet_engine::Threads;
use vitlet_plan::MAX_THREADS;

use crate::Error;

/// Where an engine's jobs run.
#[derive(Debug)]
pub(crate) enum Pool {
    /// On the calling thread: nothing is started, nothing waits.
    Caller,
    /// On threads of their own.
    Threads(ThreadPool),
}

impl Pool {
    pub(crate) fn new(threads: usize) -> Result<Self, Error> {
        match threads {
            1 => Ok(Self::Caller),
            2..=MAX_THREADS => ThreadPoolBuilder::new()
                .num_threads(threads)
                .thread_name(|index| format!("vitlet-{index}"))
                .build()
                .map(Self::Threads)
                .map_err(|error| Error::Threads { threads, error }),
            asked => Err(Error::ThreadCount { asked }),
        }
    }
}

impl Threads for &Pool {
    fn count(&self) -> usize {
        match self {
            Pool::Caller => 1,
            Pool::Threads(pool) => pool.current_num_threads(),
        }
    }

    fn for_each<J: Send>(&self, jobs: &mut [J], work: impl Fn(&mut J) + Sync) {
        match self {
            Pool::Caller => jobs.iter_mut().for_each(work),
            Pool::Threads(pool) => pool.install(|| jobs.par_iter_mut().for_each(&work)),
        }
    }
}
