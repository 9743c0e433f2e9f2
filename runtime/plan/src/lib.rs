//! The `.vitlet` plan: one file with everything needed to run a model, and nothing that has to be trusted.
//!
//! [`Plan::parse`] verifies a file once, completely, and then only hands out checked views of its bytes: no copy, no allocation, so a
//! plan runs from flash or from a mapped file. The parameters of an op are the kernels' own structs (`vitlet_kernels::Conv` and so
//! on), whose constructors enforce the bounds of `docs/numerics.md`: that crate says what a valid op is, this one what a valid file is.
//!
//! | module | says |
//! |---|---|
//! | [`format`] | where every byte lies: the tables, for readers in other languages too |
//! | `file` | the shell: identity, checksum, sections, strings, blobs |
//! | `op`, `tensor` | records |
//! | `verify` | what must hold between records: types, sizes, memory |
//! | `strips` | [`Strips`]: ops that run strip by strip, so that what lies between them never exists whole |
//! | `values` | the order of writes and reads: that every op finds what it means to read |
//! | `crc` | [`crc32`] |
//! | `plan` | [`Plan`], what a program asks |
//! | `writer` | [`PlanBuilder`] (feature `writer`) |
//! | `testing` | a tiny network made from a seed (feature `testing`) |
//!
//! The crate is `no_std`. Features: `alloc` for [`AlignedBytes`], `writer` (with `alloc`), `testing` (with `writer`), `std` for a faster
//! checksum and the kernels' CPU detection, `small` for less code.
#![no_std]
#![forbid(unsafe_code)]

#[cfg(feature = "alloc")]
extern crate alloc;

#[cfg(feature = "alloc")]
mod aligned;
mod crc;
mod error;
mod file;
pub mod format;
mod op;
mod plan;
mod strips;
mod tensor;
#[cfg(feature = "testing")]
pub mod testing;
mod values;
mod verify;
#[cfg(feature = "writer")]
mod writer;

#[cfg(feature = "alloc")]
pub use aligned::AlignedBytes;
pub use crc::crc32;
pub use error::{Place, PlanError, Problem, Section, ShortName};
pub use op::{Halo, Op, OpKind, Strip};
pub use plan::{Plan, Provenance};
pub use strips::{StripOp, Strips};
pub use tensor::{DType, Tensor, TensorId};
#[cfg(feature = "writer")]
pub use writer::{Metadata, PlanBuilder, WriteError};

/// Most threads one inference can be split over; [`Plan::arena_len`] counts no more.
pub const MAX_THREADS: usize = 16;
