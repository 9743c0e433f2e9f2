//! Matrix products: linear layers here, the two products of attention in `attention`.
//!
//! An EinSum names each axis by a letter. What it is follows from where the letters occur, whatever their order: a letter
//! that is not in the output is summed over, one that is in both inputs and the output is a head or a group, one of a single input is
//! a row of that input (or, for a constant, an output channel).

use std::collections::BTreeMap;
use std::sync::Arc;

use super::rowwise::{RowOp, shows_rows};
use super::seen::{Seen, split};
use super::state::Known;
use super::{Lowering, Outcome, channel_axis};
use crate::frontend::{Binary, NodeId, SourceNode, SourceOp, Tensor};
use crate::ir::{Epilogue, Geometry, Kind, ValueId};
use crate::view::{Factor, View};

/// One activation of a product.
pub(super) struct Side {
    pub(super) seen: Seen,
    pub(super) letters: Vec<char>,
    pub(super) factor: f64,
}

impl Side {
    /// The dimension a letter names; empty when it has size 1 or does not occur.
    pub(super) fn dim(&self, letter: char) -> &[Factor] {
        self.letters
            .iter()
            .position(|l| *l == letter)
            .map_or(&[], |i| &self.seen.view.dims[i])
    }

    /// The letters of axes larger than 1.
    pub(super) fn real_letters(&self) -> impl Iterator<Item = char> + '_ {
        self.letters
            .iter()
            .copied()
            .filter(|l| !self.dim(*l).is_empty())
    }
}

impl Lowering<'_> {
    pub(super) fn einsum(
        &mut self,
        id: NodeId,
        node: &SourceNode,
        inputs: &[Vec<char>],
        output: &[char],
    ) -> Outcome {
        let [left, right] = inputs else {
            return Err("a product of two tensors is expected".into());
        };
        match (self.input(node, 0)?, self.input(node, 1)?) {
            (Known::Const(_), Known::Const(_)) => {
                Err("a product of two constants is not supported".into())
            }
            (Known::Const(_), _) | (_, Known::Const(_)) if self.makes_attention(id) => {
                self.scores(node, left, right, output)
            }
            (_, Known::Const(w)) => self.linear(id, node, (0, left), (&w, right), output),
            (Known::Const(w), _) => self.linear(id, node, (1, right), (&w, left), output),
            (Known::Probs(p), _) => self.attention(id, node, &p, left, (1, right), output),
            (_, Known::Probs(p)) => self.attention(id, node, &p, right, (0, left), output),
            _ => self.scores(node, left, right, output),
        }
    }

    /// Whether the product goes, through scale and bias only, to a softmax whose result is multiplied again: then it is attention
    /// logits even when one operand is constant (constant queries).
    fn makes_attention(&self, id: NodeId) -> bool {
        let (mut id, mut softmax) = (id, false);
        while let [reader] = self.readers[id].as_slice() {
            match &self.source.nodes[*reader].op {
                SourceOp::EinSum { .. } => return softmax,
                SourceOp::Softmax(_) => softmax = true,
                SourceOp::Binary(Binary::Mul | Binary::Div | Binary::Add) if !softmax => {}
                SourceOp::MoveAxis { .. }
                | SourceOp::AddAxis(_)
                | SourceOp::RmAxis(_)
                | SourceOp::Reshape { .. } => {}
                _ => return false,
            }
            id = *reader;
        }
        false
    }

    /// x·W: rows are the letters of x that stay, inputs those summed over, outputs the letters only W has.
    fn linear(
        &mut self,
        id: NodeId,
        node: &SourceNode,
        (index, letters): (usize, &[char]),
        (weights, weight_letters): (&Arc<Tensor>, &[char]),
        output: &[char],
    ) -> Outcome {
        let x = Side {
            seen: self.activation(node, index)?,
            letters: letters.to_vec(),
            factor: 1.0,
        };
        let channels = x.seen.base.channels(&self.values);
        let w_size = |l: char| {
            weight_letters
                .iter()
                .position(|w| *w == l)
                .map_or(1, |i| weights.shape[i])
        };
        let summed: Vec<char> = x.real_letters().filter(|l| !output.contains(l)).collect();
        let kept: Vec<char> = x.real_letters().filter(|l| output.contains(l)).collect();
        if kept.iter().any(|l| w_size(*l) > 1) {
            return Err("a different matrix per row or head (a batched product with constants) is not supported".into());
        }
        let cover = |set: &[char]| -> Vec<Factor> {
            let axes = set
                .iter()
                .filter_map(|l| letters.iter().position(|x| x == l));
            x.seen.view.cover(&axes.collect::<Vec<_>>())
        };
        let rows_only = split(&cover(&kept), channels).1.is_empty();
        if cover(&summed) != channel_axis(channels)
            || !rows_only
            || !shows_rows(&x.seen.view, channels)
        {
            return Err("a linear layer must sum over all channels of each row".into());
        }
        let outputs: Vec<char> = output.iter().copied().filter(|l| w_size(*l) > 1).collect();
        if weight_letters
            .iter()
            .any(|l| w_size(*l) > 1 && !outputs.contains(l) && !summed.contains(l))
        {
            return Err("an axis of the weights is summed over without the activation".into());
        }
        let n: usize = outputs.iter().map(|l| w_size(*l)).product();
        let matrix = weight_matrix(weights, weight_letters, &x, &outputs, &summed, channels);
        if let Some((value, geometry)) = self.every_few_pixels(&x.seen) {
            // A strided 1×1 convolution, which the parser has taken apart.
            let kind = Kind::Conv {
                geometry,
                weights: matrix,
                bias: vec![0.0; n],
                epilogue: Epilogue::default(),
            };
            let in_order = x.seen.in_order(&self.values).map(|seen| seen.view);
            let view = in_order.ok_or("rows of a map in an order of their own")?;
            let view = linear_view(&view, letters, output, &outputs, &w_size, (channels, n));
            let rows = geometry.output[0] * geometry.output[1];
            return Ok(self.emit(id, kind, vec![value], (rows, n), view));
        }
        let op = RowOp {
            channels: n,
            kind: &|_| Kind::Linear {
                weights: matrix.clone(),
                bias: vec![0.0; n],
                epilogue: Epilogue::default(),
            },
            constant: &|rows| crate::eval::linear(rows, channels, &matrix, &vec![0.0; n]),
            view: &|view| linear_view(view, letters, output, &outputs, &w_size, (channels, n)),
        };
        let seen = self.row_wise(id, &x.seen, &op)?;
        Ok(Known::View { seen, sole: true })
    }
}

impl Lowering<'_> {
    /// A value of which only every few pixels in both directions are looked at, in raster order.
    fn every_few_pixels(&self, seen: &Seen) -> Option<(ValueId, Geometry)> {
        let value = seen.as_value()?;
        let (rows, channels) = (self.values[value].rows, self.values[value].channels);
        let dims = seen.view.dims.iter();
        let over: Vec<Factor> = dims.flat_map(|d| split(d, channels).0).collect();
        let [down, across] = over.as_slice() else {
            return None;
        };
        let stride = across.stride / channels;
        let width = down.stride.checked_div(across.stride)?;
        let height = rows.checked_div(width)?;
        let fits = seen.view.offset == 0
            && stride > 1
            && across.stride == stride * channels
            && down.stride == width * across.stride
            && height * width == rows
            && [down.size, across.size] == [height, width].map(|n| n.div_ceil(stride));
        fits.then_some((
            value,
            Geometry {
                input: [height, width],
                output: [down.size, across.size],
                kernel: [1, 1],
                stride: [stride; 2],
                pad: [0; 4],
            },
        ))
    }
}

/// `[n][channels]` weights from a constant in any axis order.
fn weight_matrix(
    weights: &Tensor,
    letters: &[char],
    x: &Side,
    outputs: &[char],
    summed: &[char],
    channels: usize,
) -> Vec<f32> {
    // The constant, seen as a view over the matrix: an output letter steps over rows of the matrix, a summed letter over
    // the channels its axis of x covers.
    let mut row_stride = channels;
    let mut strides = BTreeMap::new();
    for letter in outputs.iter().rev() {
        let size = letters
            .iter()
            .position(|l| l == letter)
            .map_or(1, |i| weights.shape[i]);
        strides.insert(
            *letter,
            vec![Factor {
                size,
                stride: row_stride,
            }],
        );
        row_stride *= size;
    }
    for letter in summed {
        strides.insert(*letter, x.dim(*letter).to_vec());
    }
    let dims = letters
        .iter()
        .map(|l| strides.get(l).cloned().unwrap_or_default())
        .collect();
    View { offset: 0, dims }.gather(&weights.data)
}

/// The result's view over rows of `n` channels, from the operand's over rows of `channels`.
fn linear_view(
    view: &View,
    letters: &[char],
    output: &[char],
    outputs: &[char],
    size: &dyn Fn(char) -> usize,
    (channels, n): (usize, usize),
) -> View {
    let mut strides = BTreeMap::new();
    let mut stride = 1;
    for letter in outputs.iter().rev() {
        let size = size(*letter);
        strides.insert(*letter, vec![Factor { size, stride }]);
        stride *= size;
    }
    let row = |f: &Factor| Factor {
        size: f.size,
        stride: f.stride / channels * n,
    };
    let dim = |l: &char| -> Vec<Factor> {
        let kept = || {
            let axis = letters.iter().position(|x| x == l)?;
            Some(view.dims[axis].iter().map(row).collect())
        };
        strides.get(l).cloned().or_else(kept).unwrap_or_default()
    };
    View::new(view.offset / channels * n, output.iter().map(dim).collect())
}
