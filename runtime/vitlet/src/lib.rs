//! Runs `.vitlet` plans: int8 vision transformers that classify photos and camera frames on the CPU.
//!
//! A [`Model`] holds a plan's bytes, [`Model::plan`] verifies them once, and a [`Session`] runs the verified plan with the fastest
//! [`Kernel`] of this CPU. The same plan and the same pixels give the same logits, bit for bit, on every CPU, with every kernel and on
//! any number of threads.
//!
//! ```no_run
//! use vitlet::{Model, Options, Photo, Session};
//!
//! let model = Model::open("model.vitlet")?;
//! let mut session = Session::new(&model.plan()?, &Options::default())?;
//! let photo = Photo::open("photo.jpg")?;
//! for class in session.classify(&photo, 5)?.top {
//!     println!("{:5.1} %  {}", class.score * 100.0, class.label.unwrap_or("?"));
//! }
//! # Ok::<(), vitlet::Error>(())
//! ```
//!
//! The same without files; `tiny_plan` makes a small network for tests from a seed:
//!
//! ```
//! use vitlet::{Frame, Model, Options, PixelFormat, Session};
//!
//! let model = Model::from_bytes(&vitlet_plan::testing::tiny_plan(1), "tiny");
//! let plan = model.plan()?;
//! let mut session = Session::new(&plan, &Options::default())?;
//!
//! let grey = vec![128; 640 * 480];
//! let frame = Frame::new(PixelFormat::Grey8, 640, 480, 640, &grey)?;
//! let classification = session.classify_frame(&frame, 3)?;
//! assert_eq!(classification.top.len(), 3);
//! assert!(classification.top[0].logit >= classification.top[1].logit);
//! assert_eq!(session.logits().len(), 10);
//! # Ok::<(), vitlet::Error>(())
//! ```
//!
//! | module | says |
//! |---|---|
//! | `model` | [`Model`]: a plan's bytes, wherever they are |
//! | `memory` | buffers whose size a file decides |
//! | `map` | plan files mapped into memory (feature `mmap`), the only unsafe code |
//! | `session` | [`Session`]: the engine, its memory and its threads |
//! | `threads` | where the jobs of an inference run |
//! | `cores` | [`Cores`]: by number, or the big or the little ones |
//! | `kernel` | which kernel is used, and why |
//! | `preprocess` | photos and frames to the model's pixels |
//! | `photo` | JPEG and PNG files |
//! | `classes` | logits to labels and scores |
//! | `dequantise` | what a tensor's integers stand for |
//! | `digest` | hashes that prove equality |
//! | `peak` | what this machine's matrix products can reach |
//!
//! Features: `mmap` adds [`Model::map`](crate::Model#method.map), whose contract the caller must keep.
#![cfg_attr(not(feature = "mmap"), forbid(unsafe_code))]
#![deny(unsafe_code)]

mod classes;
mod cores;
mod dequantise;
mod digest;
mod error;
mod kernel;
#[cfg(feature = "mmap")]
mod map;
mod memory;
mod model;
mod peak;
mod photo;
mod preprocess;
mod session;
mod threads;

pub use classes::Class;
pub use cores::{CoreChoice, Cores, CoresError, CpuList};
pub use dequantise::dequantised;
pub use digest::Digest;
pub use error::Error;
pub use kernel::{KERNEL_VARIABLE, KernelChoice, KernelReason};
pub use model::Model;
pub use peak::peak_macs_per_second;
pub use photo::{Photo, PhotoError};
pub use preprocess::Preprocessor;
pub use session::{Classification, OpTrace, Options, Session};

pub use vitlet_kernels::{Kernel, KernelError};
pub use vitlet_plan::format::MAGIC as PLAN_MAGIC;
pub use vitlet_plan::{
    AlignedBytes, DType, MAX_THREADS, Op, OpKind, Plan, PlanError, Provenance, Tensor, TensorId,
};
pub use vitlet_preprocess::{
    Frame, Interpolation, PixelFormat, Preprocess, PreprocessError, Resize,
};
