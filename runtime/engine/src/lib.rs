//! Executes a verified plan: `no_std`, no allocation, no `unsafe`, no I/O.
//!
//! ```
//! use vitlet_engine::Engine;
//! use vitlet_kernels::Kernel;
//! use vitlet_plan::{AlignedBytes, Plan, testing};
//!
//! let bytes = testing::tiny_plan(1);
//! let plan = Plan::parse(&bytes)?;
//! let mut arena = AlignedBytes::zeroed(plan.arena_len(1));
//! let mut engine = Engine::new(&plan, Kernel::detect());
//! let logits = engine.run(&mut arena, &testing::tiny_image(1))?;
//! assert_eq!(logits.len(), 10);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! The arena belongs to the caller: its first [`Plan::tensors_len`](vitlet_plan::Plan::tensors_len) bytes hold the tensors, where the
//! plan put them; then each thread has a scratch, and room for strips of its own if there are several. Its contents before a run do
//! not matter.
//!
//! | module | job |
//! |---|---|
//! | `engine` | [`Engine`]: the image in, op by op, the logits out |
//! | `piece` | all of an op, or a strip of it: which rows, and where they lie |
//! | `arena` | the arena's parts: what an op reads and what it writes are never the same bytes |
//! | `chain` | neighbouring ops that each thread runs on its own rows without waiting for others |
//! | `window` | strips on several threads: each has some of its own |
//! | `rows` | rows of a chain or of strips, split over threads |
//! | `job` | what one thread does of them |
//! | `call` | one op on some rows; bytes become operands |
//! | `threads` | [`Threads`], implemented by whoever has threads; [`Serial`] has none |
//!
//! # Invariants
//!
//! * The logits, and the bytes out of every op, depend on the plan and the image only: not on the kernel, the number of threads or the
//!   arena's earlier contents.
//! * A plan is verified when it is parsed, so an op cannot fail: an [`EngineError`] in the middle of a run would be a bug here.
#![no_std]
#![forbid(unsafe_code)]

mod arena;
mod call;
mod chain;
mod engine;
mod error;
mod job;
mod piece;
mod rows;
mod threads;
mod window;

pub use engine::{Engine, Observer};
pub use error::EngineError;
pub use threads::{Serial, Threads};
pub use vitlet_plan::MAX_THREADS;
