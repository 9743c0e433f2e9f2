//! Why a run did not happen.

use thiserror::Error;
use vitlet_kernels::SizeError;

/// Why a run did not happen.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Error)]
#[non_exhaustive]
pub enum EngineError {
    /// The image has the wrong size.
    #[error("the image has {found} bytes, the plan takes {expected} (height·width·3, RGB)")]
    Image {
        /// Bytes given.
        found: usize,
        /// Bytes the plan takes.
        expected: usize,
    },
    /// The arena is too small.
    #[error("the arena has {found} bytes, {needed} are needed; ask Plan::arena_len({threads})")]
    ArenaTooSmall {
        /// Bytes given.
        found: usize,
        /// Bytes needed.
        needed: usize,
        /// For this number of threads.
        threads: usize,
    },
    /// The arena does not start at a multiple of 64.
    #[error("the arena does not start at a multiple of 64 in memory; allocate it aligned")]
    ArenaMisaligned,
    /// An op was refused by its kernel. A verified plan cannot cause this.
    #[error("op {index}: {source}; this is a bug in vitlet, please report it with the plan")]
    Op {
        /// The op.
        index: usize,
        /// What the kernel says.
        source: SizeError,
    },
    /// An op's memory does not fit the arena. A verified plan cannot cause this.
    #[error(
        "op {index}: its tensors do not lie in the arena; this is a bug in vitlet, please report it with the plan"
    )]
    Memory {
        /// The op.
        index: usize,
    },
}
