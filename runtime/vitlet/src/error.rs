//! What can go wrong, in one line each: the thing, the place, the remedy.

use std::io;
use std::path::PathBuf;

use vitlet_kernels::KernelError;
use vitlet_plan::{MAX_THREADS, PlanError};
use vitlet_preprocess::PreprocessError;

use crate::{CoresError, PhotoError};

/// Why a model could not be loaded or an image could not be classified. Every message is one line.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The plan file could not be read.
    #[error("{}: cannot be read: {error}; give a .vitlet file made by `vitlet compile`", path.display())]
    Read {
        /// The file asked for.
        path: PathBuf,
        /// What the system said.
        error: io::Error,
    },
    /// The bytes are not a valid plan.
    #[error("{name}: {error}")]
    Plan {
        /// The file, or the name given to [`Model::from_bytes`](crate::Model::from_bytes).
        name: String,
        /// What is wrong with it.
        error: Box<PlanError>,
    },
    /// There is not enough memory to run the plan, or to hold it.
    #[error("{bytes} bytes of memory are needed for {what}, and the system does not give them")]
    Memory {
        /// For what.
        what: &'static str,
        /// How many.
        bytes: usize,
    },
    /// The environment asks for a kernel that cannot be had.
    #[error("{variable}={value}: {error}", variable = crate::KERNEL_VARIABLE)]
    KernelVariable {
        /// The value of the variable.
        value: String,
        /// Why not.
        error: KernelError,
    },
    /// More threads than an inference can be split over, or none.
    #[error("{asked} threads: one inference runs on 1 to {MAX_THREADS}")]
    ThreadCount {
        /// The number asked for.
        asked: usize,
    },
    /// The system gave no threads.
    #[error("{threads} threads cannot be started: {error}; ask for fewer")]
    Threads {
        /// The number asked for.
        threads: usize,
        /// What the system said.
        error: io::Error,
    },
    /// The session cannot run on the cores asked for.
    #[error(transparent)]
    Cores(#[from] CoresError),
    /// The photo could not be read or decoded.
    #[error(transparent)]
    Photo(#[from] PhotoError),
    /// The frame or its buffers do not fit.
    #[error(transparent)]
    Preprocess(#[from] PreprocessError),
    /// The image has not the model's size.
    #[error("the image has {len} bytes; this model takes {height}x{width} RGB pixels, {} bytes", *height as usize * *width as usize * 3)]
    ImageSize {
        /// Bytes given.
        len: usize,
        /// Rows of the model's image.
        height: u32,
        /// Pixels in a row of the model's image.
        width: u32,
    },
    /// The engine refused to run.
    #[error(transparent)]
    Engine(#[from] vitlet_engine::EngineError),
}
