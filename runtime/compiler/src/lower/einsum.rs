//! Matrix products: linear layers and the two products of attention.
//!
//! An EinSum names each axis by a letter. What it is follows from where the letters occur, whatever their order: a letter
//! that is not in the output is summed over, one that is in both inputs and the output is a head, one of a single input is
//! a row of that input (or, for a constant, an output channel).

use std::sync::Arc;

use super::state::{Known, Operand, Role, Scores};
use super::{Lowering, Outcome, as_map, channel_axis};
use crate::frontend::{NodeId, SourceNode, Tensor};
use crate::ir::{AttentionShape, Epilogue, Kind, Op, ValueId};
use crate::view::{Factor, View};

/// One activation of a product of activations.
struct Side {
    value: ValueId,
    view: View,
    letters: Vec<char>,
    factor: f64,
}

impl Side {
    /// The dimension a letter names; empty when it has size 1 or does not occur.
    fn dim(&self, letter: char) -> &[Factor] {
        self.letters
            .iter()
            .position(|l| *l == letter)
            .map_or(&[], |i| &self.view.dims[i])
    }

    /// The letters of axes larger than 1.
    fn real_letters(&self) -> impl Iterator<Item = char> + '_ {
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
            (_, Known::Const(w)) => self.linear(id, node, (0, left), (&w, right), output),
            (Known::Const(w), _) => self.linear(id, node, (1, right), (&w, left), output),
            (Known::Probs(p), _) => self.attention(id, node, &p, left, (1, right), output),
            (_, Known::Probs(p)) => self.attention(id, node, &p, right, (0, left), output),
            _ => self.scores(node, left, right, output),
        }
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
        let (value, view) = self.activation(node, index)?;
        let (rows, channels) = (self.values[value].rows, self.values[value].channels);
        let x = Side {
            value,
            view,
            letters: letters.to_vec(),
            factor: 1.0,
        };
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
        let positions = |set: &[char]| -> Vec<usize> {
            set.iter()
                .filter_map(|l| x.letters.iter().position(|x| x == l))
                .collect()
        };
        let row_cover = View::strided(&[(rows, channels)]).dims.concat();
        if x.view.cover(&positions(&summed)) != channel_axis(channels)
            || x.view.cover(&positions(&kept)) != row_cover
            || !x.view.covers(rows * channels)
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
        let kind = Kind::Linear {
            weights: matrix,
            bias: vec![0.0; n],
            epilogue: Epilogue::default(),
        };
        let dims = linear_dims(output, &x, &outputs, &w_size, channels, n);
        Ok(self.emit(id, kind, vec![value], (rows, n), View { offset: 0, dims }))
    }

    fn side(&mut self, node: &SourceNode, index: usize, letters: &[char]) -> Result<Side, String> {
        let known = self.input(node, index)?;
        if let Some((value, view, function)) = as_map(known)
            && let Some(factor) = function.factor()
        {
            return Ok(Side {
                value,
                view,
                letters: letters.to_vec(),
                factor,
            });
        }
        let (value, view) = self.activation(node, index)?;
        Ok(Side {
            value,
            view,
            letters: letters.to_vec(),
            factor: 1.0,
        })
    }

    /// q·kᵀ, not knowing yet which is which: the softmax axis will tell.
    fn scores(
        &mut self,
        node: &SourceNode,
        left: &[char],
        right: &[char],
        output: &[char],
    ) -> Outcome {
        let (a, b) = (self.side(node, 0, left)?, self.side(node, 1, right)?);
        let both = |l: &char| !a.dim(*l).is_empty() && !b.dim(*l).is_empty();
        let heads: Vec<char> = output.iter().copied().filter(both).collect();
        let summed: Vec<char> = a.real_letters().filter(|l| !output.contains(l)).collect();
        if summed.iter().any(|l| b.dim(*l).is_empty())
            || b.real_letters()
                .any(|l| !output.contains(&l) && !summed.contains(&l))
        {
            return Err("a product of activations must sum over an axis of both".into());
        }
        let (a_op, heads_n, dim) = operand(&a, &heads, &summed, output)?;
        let (b_op, b_heads, b_dim) = operand(&b, &heads, &summed, output)?;
        if (heads_n, dim) != (b_heads, b_dim) {
            return Err("queries and keys differ in heads or in channels per head".into());
        }
        let roles = output
            .iter()
            .map(|l| match (a.dim(*l).is_empty(), b.dim(*l).is_empty()) {
                (false, false) => Role::Head,
                (false, true) => Role::A,
                (true, false) => Role::B,
                (true, true) => Role::One,
            });
        let scale = a.factor * b.factor;
        Ok(Known::Scores(Scores {
            a: a_op,
            b: b_op,
            heads: heads_n,
            head_dim: dim,
            scale,
            roles: roles.collect(),
        }))
    }

    /// Softmax over the keys.
    pub(super) fn softmax(&mut self, node: &SourceNode, axes: &[usize]) -> Outcome {
        let known = self.input(node, 0)?;
        let Known::Scores(mut s) = known else {
            return Err(format!(
                "softmax of {} is not supported, only of attention logits",
                known.describe()
            ));
        };
        let roles: Vec<Role> = axes
            .iter()
            .filter_map(|a| s.roles.get(*a).copied())
            .filter(|r| *r != Role::One)
            .collect();
        match roles.as_slice() {
            [Role::B] => {}
            [Role::A] => {
                std::mem::swap(&mut s.a, &mut s.b);
                for role in &mut s.roles {
                    *role = match *role {
                        Role::A => Role::B,
                        Role::B => Role::A,
                        other => other,
                    };
                }
            }
            _ => return Err("the softmax of attention must run over the keys".into()),
        }
        Ok(Known::Probs(s))
    }

    /// softmax(q·kᵀ)·v completes the pattern.
    fn attention(
        &mut self,
        id: NodeId,
        node: &SourceNode,
        probs: &Scores,
        prob_letters: &[char],
        (index, v_letters): (usize, &[char]),
        output: &[char],
    ) -> Outcome {
        let v = self.side(node, index, v_letters)?;
        if v.factor.to_bits() != 1f64.to_bits() {
            return Err(
                "a scaled value operand is not supported; scale the projection instead".into(),
            );
        }
        let letters = |role: Role| -> Vec<char> {
            probs
                .roles
                .iter()
                .zip(prob_letters)
                .filter(|(r, _)| **r == role)
                .map(|(_, l)| *l)
                .collect()
        };
        let (heads, keys, queries) = (letters(Role::Head), letters(Role::B), letters(Role::A));
        let channels: Vec<char> = v
            .real_letters()
            .filter(|l| !heads.contains(l) && !keys.contains(l))
            .collect();
        if channels.iter().any(|l| !output.contains(l)) || keys.iter().any(|l| output.contains(l)) {
            return Err("the probabilities must be summed with the values over the keys".into());
        }
        // For `operand`, the keys are v's rows and its channels are the axis of stride 1.
        let (v_op, v_heads, v_dim) = operand(&v, &heads, &channels, &keys)?;
        if v_heads != probs.heads || v_op.rows != probs.b.rows || v_dim != probs.head_dim {
            return Err(
                "values must have the heads and rows of the keys and the channels of the queries"
                    .into(),
            );
        }
        let (h, d, rows) = (probs.heads, probs.head_dim, probs.a.rows);
        let dims = output.iter().map(|l| {
            let (size, stride) = if heads.contains(l) {
                (h, d)
            } else if queries.contains(l) {
                (rows, h * d)
            } else if channels.contains(l) {
                (d, 1)
            } else {
                (1, 0)
            };
            (size, stride)
        });
        let view = View::strided(&dims.collect::<Vec<_>>());
        let (q, k) = (probs.a, probs.b);
        let operand = |o: &Operand| {
            let channels = self.values[o.value].channels;
            let first = o.offset / channels;
            let step = o.row_stride / channels;
            crate::ir::Operand {
                value: Some(o.value),
                channels,
                constants: Arc::from([]),
                column: o.offset % channels,
                head_stride: o.head_stride,
                rows: (0..o.rows).map(|r| (first + r * step) as u32).collect(),
            }
        };
        let kind = Kind::Attention {
            shape: AttentionShape {
                heads: h,
                head_dim: d,
                groups: 1,
                slots: 1,
                queries: rows,
                keys: k.rows,
            },
            q: operand(&q),
            k: operand(&k),
            v: operand(&v_op),
            out: (0..rows as u32).collect(),
            scale: probs.scale,
            bias: None,
            mask: None,
        };
        let output = self.add_value(id, rows, h * d, view.clone());
        self.ops.push(Op {
            kind,
            inputs: vec![q.value, k.value, v_op.value],
            output,
        });
        Ok(Known::View {
            value: output,
            view,
            sole: true,
        })
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
    let mut strides = std::collections::BTreeMap::new();
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

/// The result's dimensions over `[rows][n]`.
fn linear_dims(
    output: &[char],
    x: &Side,
    outputs: &[char],
    size: &impl Fn(char) -> usize,
    channels: usize,
    n: usize,
) -> Vec<Vec<Factor>> {
    let mut strides = std::collections::BTreeMap::new();
    let mut stride = 1;
    for letter in outputs.iter().rev() {
        strides.insert(
            *letter,
            vec![Factor {
                size: size(*letter),
                stride,
            }],
        );
        stride *= size(*letter);
    }
    let row = |f: &Factor| Factor {
        size: f.size,
        stride: f.stride / channels * n,
    };
    output
        .iter()
        .map(|l| {
            strides
                .get(l)
                .cloned()
                .unwrap_or_else(|| x.dim(*l).iter().map(row).collect())
        })
        .collect()
}

/// The strides of heads, rows and channels of one operand of attention; also the number of heads and channels per head.
fn operand(
    side: &Side,
    heads: &[char],
    summed: &[char],
    rows: &[char],
) -> Result<(Operand, usize, usize), String> {
    let axis = |keep: &dyn Fn(char) -> bool, what: &str| -> Result<Option<Factor>, String> {
        let axes: Vec<usize> = side
            .letters
            .iter()
            .enumerate()
            .filter(|(_, l)| keep(**l))
            .map(|(i, _)| i)
            .collect();
        match side.view.cover(&axes).as_slice() {
            [] => Ok(None),
            [one] => Ok(Some(*one)),
            _ => Err(format!(
                "the {what} of an attention operand must be evenly spaced"
            )),
        }
    };
    let head = axis(&|l| heads.contains(&l), "heads")?;
    let dim = axis(&|l| summed.contains(&l), "channels")?;
    let row = axis(&|l| rows.contains(&l) && !heads.contains(&l), "rows")?;
    if dim.is_some_and(|d| d.stride != 1) {
        return Err("the channels of an attention operand must be contiguous".into());
    }
    let operand = Operand {
        value: side.value,
        offset: side.view.offset,
        row_stride: row.map_or(0, |f| f.stride),
        head_stride: head.map_or(0, |f| f.stride),
        rows: row.map_or(1, |f| f.size),
    };
    Ok((
        operand,
        head.map_or(1, |f| f.size),
        dim.map_or(1, |f| f.size),
    ))
}
