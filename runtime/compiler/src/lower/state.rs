//! What the recogniser knows of each source node while it walks the graph.

use std::sync::Arc;

use super::expr::Expr;
use super::seen::{Base, Seen};
use crate::frontend::Tensor;
use crate::view::{Factor, View};

/// One operand of a product of activations: where its groups, rows, heads and channels lie.
#[derive(Debug, Clone)]
pub(super) struct Half {
    pub(super) base: Base,
    /// Row of the matrix, `[groups][len]`.
    pub(super) rows: Vec<u32>,
    pub(super) len: usize,
    pub(super) column: usize,
    pub(super) head_stride: usize,
}

/// A constant that is added to attention logits.
#[derive(Debug, Clone)]
pub(super) struct Addend {
    /// Whether it varies over groups, heads, rows of the first operand, rows of the second.
    pub(super) varies: [bool; 4],
    /// Dense over the dimensions it varies over, in that order.
    pub(super) data: Vec<f32>,
}

/// The product of two activations over their channels: attention logits before the softmax.
#[derive(Debug, Clone)]
pub(super) struct Scores {
    pub(super) a: Half,
    pub(super) b: Half,
    pub(super) groups: usize,
    pub(super) heads: usize,
    pub(super) head_dim: usize,
    pub(super) scale: f64,
    pub(super) addends: Vec<Addend>,
    /// How the tensor lies over the space `[groups][heads][rows of a][rows of b]`.
    pub(super) view: View,
    /// The keys are the rows of the second operand.
    pub(super) keys_are_b: bool,
}

impl Scores {
    /// Sizes of the space that `view` lies over.
    pub(super) fn space(&self) -> [usize; 4] {
        [self.groups, self.heads, self.a.len, self.b.len]
    }
}

/// The meaning found for a source node's output.
#[derive(Debug, Clone)]
pub(super) enum Known {
    /// A constant.
    Const(Arc<Tensor>),
    /// An activation. `sole`: no other node reads anything between the op that computes it and here.
    View { seen: Seen, sole: bool },
    /// A scalar function of an activation, not yet an op.
    Map { seen: Seen, function: Expr },
    /// Sums of `seen` over the elements of `cover`; `view` is that of the result, summed axes having no factors.
    Sum {
        seen: Seen,
        cover: Vec<Factor>,
        view: View,
    },
    /// Means over all channels of a row (or several rows, or all), as `Sum`.
    RowMean {
        seen: Seen,
        cover: Vec<Factor>,
        view: View,
    },
    /// An activation minus its means over `cover`.
    Centered { seen: Seen, cover: Vec<Factor> },
    /// Attention logits.
    Scores(Scores),
    /// Softmax of attention logits over the keys.
    Probs(Scores),
    /// Attention probabilities times values, not yet summed over the keys.
    Weighted { probs: Scores, values: Seen },
    /// Depends on a node that could not be lowered, which has been reported.
    Lost,
}

impl Known {
    /// For messages: what this is, in a user's words.
    pub(super) fn describe(&self) -> &'static str {
        match self {
            Known::Const(_) => "a constant",
            Known::View { .. } => "an activation",
            Known::Map { .. } => "an element-wise function",
            Known::Sum { .. } => "a sum",
            Known::RowMean { .. } => "a mean over channels",
            Known::Centered { .. } => "an activation minus its mean",
            Known::Scores(_) => "attention logits",
            Known::Probs(_) => "attention probabilities",
            Known::Weighted { .. } => "values times attention probabilities",
            Known::Lost => "the result of an unsupported operation",
        }
    }
}
