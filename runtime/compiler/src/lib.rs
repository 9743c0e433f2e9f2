//! Compiles an ONNX vision transformer to a `.vitlet` plan.
//!
//! ```text
//! model.onnx ─ frontend (tract: parse, type, declutter) ─▶ SourceGraph
//!            ─ lower    (recognise whole layers, fold, fuse) ─▶ ir::Graph     checked in f32 by eval
//!            ─ calibrate (tract runs photos; streaming statistics) ─▶ Ranges
//!            ─ quantise (types, scales, integer weights) + memory ─▶ plan bytes
//! plan bytes ─ diagnose (layer by layer beside tract) ─▶ where accuracy is lost, and why
//! ```
//!
//! [`Model`] is the front door:
//!
//! ```no_run
//! use vitlet_compiler::{Calibration, Method, Model, Normalisation, Options};
//! use vitlet_preprocess::{Interpolation, Preprocess, Resize};
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! # let photos: Vec<Vec<u8>> = vec![];
//! let model = Model::open("model.onnx".as_ref())?;
//! let normalisation = Normalisation::IMAGENET;
//! let preprocess = Preprocess::new(224, 224, Resize::Squash, Interpolation::Bilinear)?;
//! let calibration = Calibration { normalisation, preprocess, method: Method::Mse, correct_bias: true, fold_norms: true };
//! let mut calibrator = model.calibrator(&calibration)?;
//! for photo in &photos {
//!     calibrator.add(photo)?;
//! }
//! let ranges = calibrator.finish()?;
//! let options = Options { normalisation, preprocess, labels: &[], model_name: "model" };
//! std::fs::write("model.vitlet", &*model.compile(&ranges, &options)?)?;
//! # Ok(())
//! # }
//! ```
#![forbid(unsafe_code)]

mod calibrate;
mod deviation;
mod diagnose;
mod error;
pub mod eval;
pub mod frontend;
pub mod ir;
mod keep;
mod layers;
pub mod lower;
mod memory;
mod model;
mod quantise;
mod ranges;
pub mod view;

pub use calibrate::{Calibration, Calibrator, Chosen, Method, Mixed, Progress};
pub use deviation::Deviation;
pub use diagnose::{Cause, Diagnosis, LayerReport};
pub use error::{CompileError, UnsupportedNode};
pub use eval::{LayerCheck, LoweringCheck};
pub use keep::Keep;
pub use model::{Classifier, Layer, Model, Normalisation, Options};
pub use quantise::planes::Refusal;
pub use ranges::Ranges;
