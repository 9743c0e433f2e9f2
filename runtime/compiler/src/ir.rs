//! vitlet's own intermediate representation: whole layers over values in one layout.
//!
//! Every value is `[rows][channels]`, rows in raster order of the map they come from; the image is `[H·W][3]`. Weights are
//! row-major f32 in the layout the kernels use: output channel outermost, `(ky, kx, c)` inside.
//!
//! Nothing in this representation moves data: windows, cyclic shifts and patch merging are lists of row numbers beside the
//! operation that reads ([`Operand::rows`], [`Gather`]), and [`Kind::Slice`] and [`Kind::Concat`] only say that one value lies
//! inside another.

use std::sync::Arc;

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
    /// The source node whose tensor holds this value; `None` when no node does (a part of a mean, say): such a value is
    /// computed from the layer's own definition.
    pub source: Option<Source>,
}

/// Where the f32 reference has a value.
#[derive(Debug, Clone, PartialEq)]
pub struct Source {
    /// The node.
    pub node: NodeId,
    /// How its tensor lies over rows of `channels` elements.
    pub view: View,
    /// The value's row for each row that the view steps over; [`Source::OTHER`] for rows that are not of this value. `None`
    /// when they are the value's rows, in order.
    pub rows: Option<Arc<[u32]>>,
}

impl Source {
    /// Marks a row of the tensor that belongs to another value, or is constant.
    pub const OTHER: u32 = u32::MAX;

    /// The value, `[rows][channels]`, from the node's tensor (row-major).
    pub fn gather(&self, data: &[f32], rows: usize, channels: usize) -> Vec<f32> {
        let mut value = vec![0.0; rows * channels];
        for (x, offset) in data.iter().zip(self.view.offsets()) {
            let row = match &self.rows {
                None => offset / channels,
                Some(rows) => match rows.get(offset / channels) {
                    Some(&row) if row != Source::OTHER => row as usize,
                    _ => continue,
                },
            };
            if let Some(slot) = value.get_mut(row * channels + offset % channels) {
                *slot = *x;
            }
        }
        value
    }
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

impl Geometry {
    /// A window of one pixel over so many rows: row by row, channel by channel.
    pub fn per_row(rows: usize) -> Geometry {
        Geometry {
            input: [rows, 1],
            output: [rows, 1],
            kernel: [1, 1],
            stride: [1, 1],
            pad: [0; 4],
        }
    }

    /// One window over so many rows.
    pub fn all_rows(rows: usize) -> Geometry {
        Geometry {
            input: [rows, 1],
            output: [1, 1],
            kernel: [rows, 1],
            stride: [1, 1],
            pad: [0; 4],
        }
    }

    /// True for a window that sees one pixel, the same as its result's.
    pub fn is_per_row(&self) -> bool {
        self.kernel == [1, 1] && self.stride == [1, 1] && self.pad == [0; 4]
    }
}

/// Sizes of an attention.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct AttentionShape {
    /// Number of heads.
    pub heads: usize,
    /// Channels per head.
    pub head_dim: usize,
    /// Groups of queries that see keys of their own (windows); 1 for global attention.
    pub groups: usize,
    /// Value rows per key (1, but for SepViT's pointwise attention, where a key stands for a window of pixels).
    pub slots: usize,
    /// Queries per group.
    pub queries: usize,
    /// Keys per group.
    pub keys: usize,
}

/// Where q, k or v of an attention lies: element (head, d) of a row is at `column + head·head_stride + d`.
#[derive(Debug, Clone, PartialEq)]
pub struct Operand {
    /// The value; `None` when every row is constant.
    pub value: Option<ValueId>,
    /// Elements of a row of the value and of the constants.
    pub channels: usize,
    /// Rows known at compile time, `[..][channels]` (window tokens, say); often none.
    pub constants: Arc<[f32]>,
    /// Column of the first element of head 0.
    pub column: usize,
    /// Columns from one head to the next.
    pub head_stride: usize,
    /// Row numbers: q `[groups][queries]`, k `[groups][keys]`, v `[groups][slots][keys]`. Numbers from the value's row count on
    /// are constants.
    pub rows: Arc<[u32]>,
}

/// What is added to the logits of an attention, in nats.
#[derive(Debug, Clone, PartialEq)]
pub struct Bias {
    /// `[heads][queries][keys]`, or `[heads][(2h−1)·(2w−1)]` for a window.
    pub table: Vec<f32>,
    /// Height and width of the window when the bias depends only on the relative position of query and key (queries =
    /// keys = h·w, in raster order): query (y, x) and key (v, u) have entry `(y−v+h−1)·(2w−1) + (x−u+w−1)`.
    pub window: Option<[usize; 2]>,
}

/// Rows of an operation put together from several rows of its input: patch merging.
#[derive(Debug, Clone, PartialEq)]
pub struct Gather {
    /// Input rows, `[rows][segments]`.
    pub rows: Arc<[u32]>,
    /// Input rows per row.
    pub segments: usize,
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
        /// The rows that are normalised together, when they are not the input's own.
        gather: Option<Gather>,
    },
    /// Normalisation of a whole map: mean and variance over all rows and channels, gamma and beta per channel.
    GroupNorm {
        /// Added to the variance.
        eps: f64,
        /// Scale per channel.
        gamma: Vec<f32>,
        /// Offset per channel.
        beta: Vec<f32>,
    },
    /// softmax(scale·q·kᵀ + bias, masked)·v per head and group. The result has one row of `heads·head_dim` channels per number
    /// in `out`.
    Attention {
        /// Sizes.
        shape: AttentionShape,
        /// Queries.
        q: Operand,
        /// Keys.
        k: Operand,
        /// Values.
        v: Operand,
        /// The result's row of each query, `[groups][slots][queries]`; a permutation.
        out: Arc<[u32]>,
        /// Factor of the products, before the bias.
        scale: f64,
        /// Added to the logits.
        bias: Option<Arc<Bias>>,
        /// Label of each token, `[groups][queries]`: keys of another label than the query's are left out.
        mask: Option<Arc<[u8]>>,
    },
    /// Scalar function of one value that no other op could take in.
    Activate(Expr),
    /// Element-wise sum of two values, each times a factor; only an activation may follow.
    Add {
        /// Factors of the two operands.
        factors: [f64; 2],
        /// After the sum.
        epilogue: Epilogue,
    },
    /// Sum of a value and a constant of the same shape, `[rows][channels]`.
    AddConstant(Arc<[f32]>),
    /// Element-wise product of two values; only an activation may follow.
    Mul {
        /// Column of the second operand that meets column 0 of the first.
        column: usize,
        /// The second operand's row for each of the first's.
        rows: Arc<[u32]>,
        /// After the product.
        epilogue: Epilogue,
    },
    /// The same numbers in another integer type: a value that is read both as s8 and as s16 has a second, narrow form.
    Convert,
    /// Maximum under a window; pixels outside the image do not count.
    MaxPool(Geometry),
    /// Rows `start..` of a value, as many as the result has: no operation of the plan, the result is a part of the operand.
    Slice {
        /// First row.
        start: usize,
    },
    /// All rows of each input, one input after the other: no operation of the plan, the inputs are parts of the result.
    Concat,
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
    /// Operands other than a residual: one; two for [`Kind::Add`] and [`Kind::Mul`]; those of q, k, v that are values for
    /// [`Kind::Attention`]; any number for [`Kind::Concat`].
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
            | Kind::Depthwise { epilogue, .. }
            | Kind::Add { epilogue, .. }
            | Kind::Mul { epilogue, .. } => Some(epilogue),
            _ => None,
        }
    }

    /// As [`Op::epilogue`], to change it.
    pub fn epilogue_mut(&mut self) -> Option<&mut Epilogue> {
        match &mut self.kind {
            Kind::Conv { epilogue, .. }
            | Kind::Linear { epilogue, .. }
            | Kind::Depthwise { epilogue, .. }
            | Kind::Add { epilogue, .. }
            | Kind::Mul { epilogue, .. } => Some(epilogue),
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
            Kind::GroupNorm { .. } => "groupnorm",
            Kind::Add { .. } => "add",
            Kind::AddConstant(_) => "add_constant",
            Kind::Mul { .. } => "mul",
            Kind::Convert => "convert",
            Kind::MaxPool(_) => "max_pool",
            Kind::Slice { .. } => "slice",
            Kind::Concat => "concat",
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
            Kind::Attention { shape: s, .. } => {
                let rows = (s.heads * s.groups * s.queries) as u64;
                rows * (s.keys * s.head_dim * (1 + s.slots)) as u64
            }
            _ => 0,
        }
    }
}
