//! What can go wrong while compiling, each as one line that names the thing, the place and the remedy.

use std::fmt;
use std::path::PathBuf;

use crate::quantise::planes::Refusal;

/// A node of the model that the recogniser could not lower.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UnsupportedNode {
    /// The node's name in the (decluttered) model.
    pub name: String,
    /// Its operator, in tract's terms (`EinSum`, `Conv`, …).
    pub op: String,
    /// The shapes of its inputs.
    pub input_shapes: Vec<Vec<usize>>,
    /// Why it was refused and what would be supported.
    pub reason: String,
}

impl fmt::Display for UnsupportedNode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} `{}` on {:?}: {}",
            self.op, self.name, self.input_shapes, self.reason
        )
    }
}

/// Why a model could not be compiled.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CompileError {
    /// The file could not be read.
    #[error("cannot read the model {}: {source}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// The system's reason.
        source: std::io::Error,
    },
    /// The file is not an ONNX model that tract can parse and type.
    #[error("{} is not an ONNX model that can be used: {reason}", path.display())]
    NotOnnx {
        /// The file.
        path: PathBuf,
        /// The parser's reason, on one line.
        reason: String,
    },
    /// The model's input is not one image.
    #[error(
        "the model's input must be one RGB image, 1×3×H×W or 1×H×W×3 in f32, but it is {found}; export with a static shape"
    )]
    Input {
        /// What the model has.
        found: String,
    },
    /// The model's output is not one vector of logits.
    #[error(
        "the model's output must be one row of class logits, but it is {found}; vitlet compiles classifiers"
    )]
    Output {
        /// What the model has.
        found: String,
    },
    /// Nodes that cannot be lowered, all of them.
    #[error("{} operation(s) of the model cannot be lowered to int8:{}", nodes.len(), list(nodes))]
    Unsupported {
        /// Every such node.
        nodes: Vec<UnsupportedNode>,
    },
    /// tract failed while running the f32 reference.
    #[error("the f32 reference run failed: {0}")]
    Reference(String),
    /// No photos to calibrate with.
    #[error(
        "no calibration images: give a folder of photos with --calib, or ranges from an earlier run with --ranges"
    )]
    NoCalibration,
    /// The ranges do not belong to this model.
    #[error(
        "the ranges do not fit this model: {0}; make them again with --calib DIR --save-ranges FILE"
    )]
    Ranges(String),
    /// A value of the options or of the model is outside what the int8 path can represent.
    #[error("{what}: {reason}")]
    Quantise {
        /// The layer or option.
        what: String,
        /// The bound it breaks.
        reason: String,
    },
    /// No tensor has such a name.
    #[error(
        "no tensor of the model is named like `{pattern}`; {}",
        near_names(near)
    )]
    NoTensor {
        /// What was looked for.
        pattern: String,
        /// Names that are nearest to it.
        near: Vec<String>,
    },
    /// A tensor cannot have 16 bits.
    #[error("`{name}` cannot be kept in 16 bits: {reason}")]
    Keep16 {
        /// The tensor.
        name: String,
        /// Why, and what would do.
        reason: Refusal,
    },
    /// Too few photos to tell what helps.
    #[error(
        "{found} calibration photos are too few to choose the tensors of 16 bits by; give at least {wanted}, better 64"
    )]
    FewPhotos {
        /// Photos there are.
        found: usize,
        /// The least number.
        wanted: usize,
    },
    /// The plan writer refused the plan; the reader's own checks run on every plan before it is returned.
    #[error("the plan does not pass its own verification: {0}")]
    Plan(String),
}

fn near_names(near: &[String]) -> String {
    let names: Vec<String> = near.iter().map(|name| format!("`{name}`")).collect();
    format!(
        "near names are {}; `vitlet inspect MODEL.onnx` lists all",
        names.join(", ")
    )
}

fn list(nodes: &[UnsupportedNode]) -> String {
    nodes.iter().map(|n| format!(" [{n}]")).collect()
}
