//! vitlet's own intermediate representation: whole layers over values in one layout.
//!
//! Every value is `[rows][channels]`, rows in raster order of the map they come from; the image is `[H·W][3]`. Weights are
//! row-major f32 in the layout the kernels use: output channel outermost, `(ky, kx, c)` inside.

use crate::frontend::NodeId;
use crate::lower::expr::Expr;
use crate::view::View;

/// Index of a value in [`Graph::values`].
pub type ValueId = usize;

/// An activation tensor.
#[derive(Debug, Clone, PartialEq)]
pub struct Value {
    /// For messages and for the ranges file: the source node's name.
    pub name: String,
    /// Rows (pixels or tokens).
    pub rows: usize,
    /// Channels.
    pub channels: usize,
    /// The source node that computes this value, and how its tensor lies over the value.
    pub source: (NodeId, View),
}

/// Geometry of a convolution over a map in raster order; zero padding.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Geometry {
    /// Input height and width.
    pub input: [usize; 2],
    /// Output height and width.
    pub output: [usize; 2],
    /// Kernel height and width.
    pub kernel: [usize; 2],
    /// Stride, vertical and horizontal.
    pub stride: [usize; 2],
    /// Zero padding: top, left, bottom, right.
    pub pad: [usize; 4],
}

/// Where q, k or v of an attention lies: element (head, row, d) of the value is at
/// `offset + head·head_stride + row·row_stride + d`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Operand {
    /// The value.
    pub value: ValueId,
    /// First element.
    pub offset: usize,
    /// Elements from one row to the next.
    pub row_stride: usize,
    /// Elements from one head to the next.
    pub head_stride: usize,
    /// Rows: queries or keys.
    pub rows: usize,
}

/// A scalar function applied to an op's result, and the value it is applied to (whose range it needs).
#[derive(Debug, Clone, PartialEq)]
pub struct Activation {
    /// The function.
    pub function: Expr,
    /// The result before the function.
    pub before: ValueId,
}

/// What follows an op's accumulators.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Epilogue {
    /// A scalar function.
    pub activation: Option<Activation>,
    /// A value of the same shape that is added.
    pub residual: Option<ValueId>,
}

/// A layer.
#[derive(Debug, Clone, PartialEq)]
pub enum Kind {
    /// Dense convolution; weights `[out][kh][kw][in]`.
    Conv {
        /// Sizes, strides, padding.
        geometry: Geometry,
        /// Weights.
        weights: Vec<f32>,
        /// One per output channel.
        bias: Vec<f32>,
        /// After the sum.
        epilogue: Epilogue,
    },
    /// Matrix product with constant weights `[out][in]`, row by row.
    Linear {
        /// Weights.
        weights: Vec<f32>,
        /// One per output channel.
        bias: Vec<f32>,
        /// After the sum.
        epilogue: Epilogue,
    },
    /// Convolution channel by channel; weights `[kh][kw][channels]`.
    Depthwise {
        /// Sizes, strides, padding.
        geometry: Geometry,
        /// Weights.
        weights: Vec<f32>,
        /// One per channel.
        bias: Vec<f32>,
        /// After the sum.
        epilogue: Epilogue,
    },
    /// Layer normalisation over the channels of each row.
    LayerNorm {
        /// Added to the variance.
        eps: f64,
        /// Scale per channel.
        gamma: Vec<f32>,
        /// Offset per channel.
        beta: Vec<f32>,
    },
    /// softmax(scale·q·kᵀ)·v per head; result `[queries][heads·head_dim]`.
    Attention {
        /// Number of heads.
        heads: usize,
        /// Channels per head.
        head_dim: usize,
        /// Queries.
        q: Operand,
        /// Keys.
        k: Operand,
        /// Values.
        v: Operand,
        /// Factor of the logits.
        scale: f64,
    },
    /// Scalar function of one value that no other op could take in.
    Activate(Expr),
    /// Element-wise sum of two values that no other op could take in.
    Add,
    /// Mean over the rows: one row.
    MeanPool,
    /// Mean over the rows, then [`Kind::Linear`]: the usual classification head.
    PoolLinear {
        /// Weights `[out][in]`.
        weights: Vec<f32>,
        /// One per output channel.
        bias: Vec<f32>,
    },
}

/// A layer with its operands.
#[derive(Debug, Clone, PartialEq)]
pub struct Op {
    /// What it computes.
    pub kind: Kind,
    /// Operands other than a residual: one; two for [`Kind::Add`]; q, k, v for [`Kind::Attention`].
    pub inputs: Vec<ValueId>,
    /// Result.
    pub output: ValueId,
}

impl Op {
    /// Every value the op reads, the residual included.
    pub fn reads(&self) -> impl Iterator<Item = ValueId> + '_ {
        self.inputs
            .iter()
            .copied()
            .chain(self.epilogue().and_then(|e| e.residual))
    }

    /// The epilogue of the kinds that have one.
    pub fn epilogue(&self) -> Option<&Epilogue> {
        match &self.kind {
            Kind::Conv { epilogue, .. }
            | Kind::Linear { epilogue, .. }
            | Kind::Depthwise { epilogue, .. } => Some(epilogue),
            _ => None,
        }
    }

    /// As [`Op::epilogue`], to change it.
    pub fn epilogue_mut(&mut self) -> Option<&mut Epilogue> {
        match &mut self.kind {
            Kind::Conv { epilogue, .. }
            | Kind::Linear { epilogue, .. }
            | Kind::Depthwise { epilogue, .. } => Some(epilogue),
            _ => None,
        }
    }

    /// The kind's name in listings and messages.
    pub fn kind_name(&self) -> &'static str {
        match self.kind {
            Kind::Conv { .. } => "conv",
            Kind::Linear { .. } => "linear",
            Kind::Depthwise { .. } => "depthwise",
            Kind::LayerNorm { .. } => "layernorm",
            Kind::Attention { .. } => "attention",
            Kind::Activate(_) => "activation",
            Kind::Add => "add",
            Kind::MeanPool => "mean_pool",
            Kind::PoolLinear { .. } => "pool_linear",
        }
    }
}

/// A model: layers in an order in which they can run.
#[derive(Debug, Clone, PartialEq)]
pub struct Graph {
    /// Activations.
    pub values: Vec<Value>,
    /// Layers, in execution order.
    pub ops: Vec<Op>,
    /// The image, `[H·W][3]`, normalised.
    pub input: ValueId,
    /// Height and width of the image.
    pub image: [usize; 2],
    /// The logits, one row.
    pub output: ValueId,
}

impl Graph {
    /// Multiply-accumulates of one op.
    pub fn macs(&self, op: &Op) -> u64 {
        let out = &self.values[op.output];
        let outputs = (out.rows * out.channels) as u64;
        let depth = |k: usize| outputs * k as u64;
        let channels = |index: usize| op.inputs.get(index).map_or(0, |v| self.values[*v].channels);
        match &op.kind {
            Kind::Conv { geometry: g, .. } => depth(g.kernel[0] * g.kernel[1] * channels(0)),
            Kind::Linear { .. } | Kind::PoolLinear { .. } => depth(channels(0)),
            Kind::Depthwise { geometry: g, .. } => depth(g.kernel[0] * g.kernel[1]),
            Kind::Attention { k, .. } => 2 * depth(k.rows),
            _ => 0,
        }
    }
}
