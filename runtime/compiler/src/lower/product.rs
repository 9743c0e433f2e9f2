//! Products of two activations, one of which may be repeated over rows, and the gate of two alternatives that feeds them.

use std::sync::Arc;

use super::expr::Expr;
use super::seen::{Part, Seen, split};
use super::state::Known;
use super::{Lowering, Outcome, single};
use crate::frontend::{NodeId, SourceNode, Unary};
use crate::ir::{Epilogue, Kind, ValueId};
use crate::view::{Factor, View};

impl Lowering<'_> {
    /// A product of a whole tensor and another of the same size or with fewer rows, which are repeated.
    pub(super) fn product_of(&mut self, id: NodeId, node: &SourceNode) -> Outcome {
        let (a, b) = (self.activation(node, 0)?, self.activation(node, 1)?);
        let (full, other) = if a.view.shape() == node.shape {
            (a, b)
        } else {
            (b, a)
        };
        let refuse = || {
            "a product of two activations needs one tensor of the result's shape and one that has the same channels, or the \
             same for several rows"
                .to_string()
        };
        let (value, view) = self.as_whole(full).ok_or_else(refuse)?;
        let (rows, channels) = (self.values[value].rows, self.values[value].channels);
        let meets = self
            .rows_met(&Seen::value(value, view.clone()), &other)
            .ok_or_else(refuse)?;
        let kind = Kind::Mul {
            column: meets.column,
            rows: meets.rows,
            epilogue: Epilogue::default(),
        };
        Ok(self.emit(id, kind, vec![value, meets.value], (rows, channels), view))
    }

    /// For each row of the whole value `full`, the row of `other` that broadcasting puts over it.
    fn rows_met(&self, full: &Seen, other: &Seen) -> Option<Met> {
        let (channels, width) = (
            full.base.channels(&self.values),
            other.base.channels(&self.values),
        );
        if full.view.dims.len() != other.view.dims.len() {
            return None;
        }
        let mut pairs = vec![(0, other.view.offset / width * width)];
        for (f, o) in full.view.dims.iter().zip(&other.view.dims) {
            let ((f_over, f_inside), (o_over, o_inside)) = (split(f, channels), split(o, width));
            let size = |d: &[Factor]| d.iter().map(|f| f.size).product::<usize>();
            if f_inside != o_inside || (!o_over.is_empty() && size(&f_over) != size(&o_over)) {
                return None;
            }
            let offsets = |d: Vec<Factor>| {
                View {
                    offset: 0,
                    dims: vec![d],
                }
                .offsets()
            };
            let (f_offsets, o_offsets) = (offsets(f_over), offsets(o_over));
            let step = |i: usize| o_offsets.get(i).copied().unwrap_or(0);
            pairs = pairs
                .iter()
                .flat_map(|(a, b)| {
                    let step = &step;
                    f_offsets
                        .iter()
                        .enumerate()
                        .map(move |(i, o)| (a + o, b + step(i)))
                })
                .collect();
        }
        let list = other.base.rows(&self.values);
        let mut value = None;
        let mut rows = vec![0; self.values[single(&full.base)?].rows];
        for (a, b) in pairs {
            let (part, row) = *list.index.get(b / width)?;
            let Part::Value(v) = list.parts[part as usize] else {
                return None;
            };
            if *value.get_or_insert(v) != v {
                return None;
            }
            *rows.get_mut(a / channels)? = row;
        }
        Some(Met {
            value: value?,
            column: other.view.offset % width,
            rows: rows.into(),
        })
    }

    /// Softmax over two alternatives, as a gate is written: σ(difference), with the difference taken of the layer's weights.
    pub(super) fn gate(&mut self, node: &SourceNode, axes: &[usize]) -> Outcome {
        let known = self.input(node, 0)?;
        let refuse = || {
            format!(
                "softmax of {} is not supported, only of attention logits, of the model's output, and over two alternatives of a linear layer",
                known.describe()
            )
        };
        let Known::View { seen, sole: true } = &known else {
            return Err(refuse());
        };
        let cover = seen.view.cover(axes);
        let (Some(value), [factor]) = (seen.as_value(), cover.as_slice()) else {
            return Err(refuse());
        };
        let channels = self.values[value].channels;
        let layer = self.ops.iter_mut().rev().find(|op| op.output == value);
        let Some(Kind::Linear {
            weights,
            bias,
            epilogue,
        }) = layer.map(|op| &mut op.kind)
        else {
            return Err(refuse());
        };
        if factor.size != 2 || factor.stride * 2 > channels || *epilogue != Epilogue::default() {
            return Err(refuse());
        }
        let depth = weights.len() / channels;
        let (old_weights, old_bias) = (weights.clone(), bias.clone());
        for c in 0..channels {
            let second = c / factor.stride % 2 == 1;
            let other = if second {
                c - factor.stride
            } else {
                c + factor.stride
            };
            bias[c] -= old_bias[other];
            let row = &old_weights[other * depth..][..depth];
            weights[c * depth..][..depth]
                .iter_mut()
                .zip(row)
                .for_each(|(w, o)| *w -= o);
        }
        self.values[value].source = None;
        Ok(Known::Map {
            seen: seen.clone(),
            function: Expr::X.unary(Unary::Sigmoid),
        })
    }
}

/// Where a broadcast operand of a product lies.
struct Met {
    value: ValueId,
    column: usize,
    rows: Arc<[u32]>,
}
