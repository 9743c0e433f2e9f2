//! What the recogniser knows of each source node while it walks the graph.

use std::sync::Arc;

use super::expr::Expr;
use crate::frontend::Tensor;
use crate::ir::ValueId;
use crate::view::{Factor, View};

/// What one dimension of a score matrix stands for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Role {
    /// Size 1.
    One,
    /// Heads.
    Head,
    /// Rows of the first operand of the product.
    A,
    /// Rows of the second.
    B,
}

#[derive(Debug, Clone, Copy)]
pub(super) struct Operand {
    pub(super) value: ValueId,
    pub(super) offset: usize,
    pub(super) row_stride: usize,
    pub(super) head_stride: usize,
    pub(super) rows: usize,
}

/// The product of two activations over their channels: attention logits before the softmax.
#[derive(Debug, Clone)]
pub(super) struct Scores {
    pub(super) a: Operand,
    pub(super) b: Operand,
    pub(super) heads: usize,
    pub(super) head_dim: usize,
    pub(super) scale: f64,
    pub(super) roles: Vec<Role>,
}

/// The meaning found for a source node's output.
#[derive(Debug, Clone)]
pub(super) enum Known {
    /// A constant.
    Const(Arc<Tensor>),
    /// A value of the IR, seen through a view. `sole`: no other node reads anything between the value's op and here.
    View {
        value: ValueId,
        view: View,
        sole: bool,
    },
    /// A scalar function of such a view, not yet an op.
    Map {
        value: ValueId,
        view: View,
        function: Expr,
    },
    /// Sums of such a view over `cover`.
    Sum {
        value: ValueId,
        view: View,
        cover: Vec<Factor>,
    },
    /// Means of each row over all channels.
    RowMean { value: ValueId, view: View },
    /// The view minus its row means.
    Centered { value: ValueId, view: View },
    /// Attention logits.
    Scores(Scores),
    /// Softmax of attention logits; the keys are on role B.
    Probs(Scores),
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
            Known::Lost => "the result of an unsupported operation",
        }
    }
}
