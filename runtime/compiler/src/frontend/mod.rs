//! The only module that sees tract: ONNX in, a small neutral graph out, and an f32 reference to run it.
//!
//! tract parses, types and declutters; what is left is a small normal form whatever the exporter wrote (linear layers are
//! `EinSum`, layer normalisation ends in `RmsNorm`, …). [`SourceGraph`] copies that form into plain data so that the
//! recogniser (`crate::lower`) depends on no tract type.

mod reference;
mod translate;

pub use reference::{Probe, Reference};
pub use translate::{load, weight_files};

use std::sync::Arc;

/// Index of a node in [`SourceGraph::nodes`]; a node has one output.
pub type NodeId = usize;

/// A dense f32 tensor, row-major.
#[derive(Debug, Clone, PartialEq)]
pub struct Tensor {
    /// Dimensions, outermost first.
    pub shape: Vec<usize>,
    /// `shape.product()` values.
    pub data: Vec<f32>,
}

/// A two-operand element-wise operator.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Binary {
    /// a + b
    Add,
    /// a − b
    Sub,
    /// a · b
    Mul,
    /// a ÷ b
    Div,
    /// max(a, b)
    Max,
    /// min(a, b)
    Min,
}

/// A one-operand element-wise operator.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unary {
    /// The error function.
    Erf,
    /// x·Φ(x), the exact (erf) form.
    Gelu,
    /// x·sigmoid(x)
    Silu,
    /// 1/(1+e^−x)
    Sigmoid,
    /// Hyperbolic tangent.
    Tanh,
    /// max(0, min(1, x/6 + 1/2))·x
    HardSwish,
    /// e^x
    Exp,
    /// −x
    Neg,
}

/// A two-dimensional convolution over one image, without dilation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConvSpec {
    /// Kernel height and width.
    pub kernel: [usize; 2],
    /// Stride, vertical and horizontal.
    pub stride: [usize; 2],
    /// Zero padding: top, left, bottom, right.
    pub pad: [usize; 4],
    /// Groups.
    pub groups: usize,
    /// Axis of the channels, of the height and of the width in the input and output tensors.
    pub axes: [usize; 3],
}

/// What a node computes.
#[derive(Debug, Clone, PartialEq)]
pub enum SourceOp {
    /// The model's image.
    Input,
    /// A constant.
    Const(Arc<Tensor>),
    /// Convolution: inputs are image, weights in O×I×kh×kw, bias (a constant of O values or one).
    Conv(ConvSpec),
    /// Sum, or mean, of the pixels under a window that slides over each channel.
    SumPool {
        /// The window; as many groups as channels.
        window: ConvSpec,
        /// Divide by the number of pixels under the window, padding included.
        average: bool,
    },
    /// Maximum of the pixels under a window that slides over each channel; pixels outside the image do not count.
    MaxPool(ConvSpec),
    /// Sum of products: one letter per axis of each input and of the output.
    EinSum {
        /// Letters of each input's axes.
        inputs: Vec<Vec<char>>,
        /// Letters of the output's axes.
        output: Vec<char>,
    },
    /// Element-wise with broadcasting between equal ranks.
    Binary(Binary),
    /// Element-wise.
    Unary(Unary),
    /// Sum over axes, which stay with size 1.
    Sum(Vec<usize>),
    /// Maximum over axes, which stay with size 1.
    Max(Vec<usize>),
    /// x / sqrt(mean(x²) + eps) over one axis.
    RmsNorm {
        /// The axis.
        axis: usize,
        /// Added to the mean square.
        eps: f64,
    },
    /// Softmax over axes.
    Softmax(Vec<usize>),
    /// Move one axis.
    MoveAxis {
        /// From this position
        from: usize,
        /// to this.
        to: usize,
    },
    /// Insert an axis of size 1.
    AddAxis(usize),
    /// Remove an axis of size 1.
    RmAxis(usize),
    /// Replace `from` dimensions starting at axis `at` by `to`.
    Reshape {
        /// First axis.
        at: usize,
        /// Sizes before.
        from: Vec<usize>,
        /// Sizes after.
        to: Vec<usize>,
    },
    /// Keep `start..end` of one axis.
    Slice {
        /// The axis.
        axis: usize,
        /// First kept index.
        start: usize,
        /// One past the last kept index.
        end: usize,
    },
    /// Keep one index of one axis, which disappears.
    Select {
        /// The axis.
        axis: usize,
        /// The kept index.
        index: usize,
    },
    /// Keep every `stride`-th index of one axis, from `first` on.
    Step {
        /// The axis.
        axis: usize,
        /// First kept index.
        first: usize,
        /// Distance between kept indices.
        stride: usize,
    },
    /// Keep these indices of one axis, in this order.
    Gather {
        /// The axis.
        axis: usize,
        /// The indices.
        entries: Vec<usize>,
    },
    /// The inputs one after the other along one axis.
    Concat(usize),
    /// Anything else, by tract's name for it.
    Other(String),
}

/// One node: an operator, where its inputs come from, and the shape of its one output.
#[derive(Debug, Clone, PartialEq)]
pub struct SourceNode {
    /// Name in the model, for messages only: nothing is recognised by name.
    pub name: String,
    /// tract's name of the operator, for messages.
    pub op_name: String,
    /// The operator.
    pub op: SourceOp,
    /// Producers of the inputs.
    pub inputs: Vec<NodeId>,
    /// Shape of the output.
    pub shape: Vec<usize>,
    /// How many nodes (and model outputs) read the output.
    pub uses: usize,
}

/// A decluttered model in topological order.
#[derive(Debug, Clone, PartialEq)]
pub struct SourceGraph {
    /// Every node; a node comes after its inputs.
    pub nodes: Vec<SourceNode>,
    /// The image.
    pub input: NodeId,
    /// The logits.
    pub output: NodeId,
}
