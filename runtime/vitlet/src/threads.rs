//! The threads of one inference.
//!
//! An inference is a hundred ops of some ten to some hundred microseconds, each split over the threads: what counts is how soon a
//! waiting thread has its next job. These wait in a loop for a while before they sleep, the caller takes a job too, and nothing is
//! allocated (docs/threads.md has the measurements).

use std::fmt;
use std::io;
use std::sync::mpsc::{self, Sender};
use std::thread::{self, JoinHandle};

use micropool::iter::{
    ExactParallelSourceExt as _, IntoExactParallelRefMutSource as _, ParallelIteratorExt as _,
};
use micropool::{ThreadPool, ThreadPoolBuilder};
use vitlet_engine::Threads;
use vitlet_plan::MAX_THREADS;

use crate::Error;

/// Rounds of the loop in which a thread waits for its next job before it sleeps: some hundred microseconds, longer than the ops that
/// are not split, too short to be seen as load when frames are awaited.
const SPINS: usize = 10_000;

/// Where an engine's jobs run.
pub(crate) enum Pool {
    /// On the calling thread: nothing is started, nothing waits.
    Caller,
    /// On the calling thread and on threads of their own.
    Threads(ThreadPool),
}

impl Pool {
    /// `threads` include the caller.
    pub(crate) fn new(threads: usize) -> Result<Self, Error> {
        match threads {
            1 => Ok(Self::Caller),
            2..=MAX_THREADS => start(threads - 1)
                .map(Self::Threads)
                .map_err(|error| Error::Threads { threads, error }),
            asked => Err(Error::ThreadCount { asked }),
        }
    }
}

impl fmt::Debug for Pool {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Pool({} threads)", (&self).count())
    }
}

/// What a thread of the pool does until the pool is dropped.
type Body = Box<dyn FnOnce() + Send>;

/// A pool with so many threads beside the caller.
fn start(workers: usize) -> io::Result<ThreadPool> {
    // The pool has no way to say that a thread cannot be had, so it is given threads that run already.
    let mut idle = (1..=workers)
        .map(idle_thread)
        .collect::<Result<Vec<_>, _>>()?;
    let pool = ThreadPoolBuilder::default()
        .num_threads(workers)
        .idle_spin_cycles(SPINS)
        .spawn_handler(move |_, body| match idle.pop() {
            Some((give, thread)) => {
                // The thread waits for it, so somebody listens.
                let _ = give.send(body);
                thread
            }
            None => thread::spawn(body),
        })
        .build();
    // What a calling thread allocates for its first jobs is allocated now, and not by the first inference.
    fork(&pool, &mut [(); 2], |()| ());
    Ok(pool)
}

/// A thread that waits for what to do, and ends if that never comes.
fn idle_thread(index: usize) -> io::Result<(Sender<Body>, JoinHandle<()>)> {
    let (give, take) = mpsc::channel::<Body>();
    let thread = thread::Builder::new()
        .name(format!("vitlet-{index}"))
        .spawn(move || {
            if let Ok(body) = take.recv() {
                body();
            }
        })?;
    Ok((give, thread))
}

/// Calls `work` once for each job, and returns when all calls have returned.
fn fork<J: Send>(pool: &ThreadPool, jobs: &mut [J], work: impl Fn(&mut J) + Sync) {
    jobs.par_iter_mut()
        .with_thread_pool(pool.split_per_item())
        .for_each(work);
}

impl Threads for &Pool {
    fn count(&self) -> usize {
        match self {
            Pool::Caller => 1,
            Pool::Threads(pool) => pool.num_threads() + 1,
        }
    }

    fn for_each<J: Send>(&self, jobs: &mut [J], work: impl Fn(&mut J) + Sync) {
        match self {
            Pool::Threads(pool) if jobs.len() > 1 => fork(pool, jobs, work),
            Pool::Caller | Pool::Threads(_) => jobs.iter_mut().for_each(work),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Barrier;

    /// Two jobs that each wait for the other: they can only end if they run at the same time.
    #[test]
    #[allow(clippy::unwrap_used)]
    fn jobs_run_at_the_same_time() {
        for threads in [2, 3, MAX_THREADS] {
            let pool = Pool::new(threads).unwrap();
            assert_eq!((&pool).count(), threads);
            let barrier = Barrier::new(threads);
            let mut jobs = vec![0; threads];
            for round in 1..50 {
                (&pool).for_each(&mut jobs, |job| {
                    barrier.wait();
                    *job += 1;
                });
                assert_eq!(jobs, vec![round; threads]);
            }
        }
    }
}
