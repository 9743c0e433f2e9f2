//! Attention: the product of two activations, through scale, bias and mask and a softmax, to a product with a third.
//!
//! Which axis of an operand is what follows from the strides of its view. An axis that occurs in both operands and the result is made of
//! groups (it steps over rows: windows) and heads (it steps over channels); the others are queries, keys, channels and, of the
//! values alone, slots. Rows are collected as row numbers, so that windows, shifts and window tokens cost nothing but a table.

mod bias;
mod space;
mod values;

use std::ops::Range;
use std::sync::Arc;

use bias::{BiasAndMask, addend, bias_and_mask};
use space::{SpaceFactor, even_step, split_space, steps};
use values::ValueSide;

use super::einsum::Side;
use super::seen::{Base, Part, Rows, Seen, refined, split};
use super::state::{Half, Known, Scores};
use super::{Lowering, Outcome, as_map, moved_view};
use crate::frontend::{NodeId, SourceNode, SourceOp, Tensor};
use crate::ir::{AttentionShape, Kind, Operand, Source, ValueId};
use crate::view::{Factor, View};

/// An axis shared by two operands, as runs of groups (over rows) and heads (inside rows), outermost first.
type Batch = Vec<(bool, usize)>;

impl Lowering<'_> {
    fn side(&mut self, node: &SourceNode, index: usize, letters: &[char]) -> Result<Side, String> {
        let known = self.input(node, index)?;
        if let Some((seen, function)) = as_map(known)
            && let Some(factor) = function.factor()
        {
            return Ok(Side {
                seen,
                letters: letters.to_vec(),
                factor,
            });
        }
        Ok(Side {
            seen: self.activation(node, index)?,
            letters: letters.to_vec(),
            factor: 1.0,
        })
    }

    /// An operand of a product; a constant becomes constant rows whose channels are the axes it shares with the other operand.
    fn half_side(
        &mut self,
        node: &SourceNode,
        index: usize,
        letters: &[char],
        other: &[char],
    ) -> Result<Side, String> {
        let Known::Const(tensor) = self.input(node, index)? else {
            return self.side(node, index, letters);
        };
        Ok(Side {
            seen: constant_rows(&tensor, letters, other),
            letters: letters.to_vec(),
            factor: 1.0,
        })
    }

    /// q·kᵀ, not knowing yet which is which: the softmax axis will tell.
    pub(super) fn scores(
        &mut self,
        node: &SourceNode,
        left: &[char],
        right: &[char],
        output: &[char],
    ) -> Outcome {
        let a = self.half_side(node, 0, left, right)?;
        let b = self.half_side(node, 1, right, left)?;
        let both = |l: &char| !a.dim(*l).is_empty() && !b.dim(*l).is_empty();
        let batch: Vec<char> = output.iter().copied().filter(both).collect();
        let summed: Vec<char> = a.real_letters().filter(|l| !output.contains(l)).collect();
        let alone = |x: &Side| -> Vec<char> {
            let letters = output.iter().copied().filter(|l| !batch.contains(l));
            letters.filter(|l| !x.dim(*l).is_empty()).collect()
        };
        if summed.iter().any(|l| b.dim(*l).is_empty())
            || b.real_letters()
                .any(|l| !output.contains(&l) && !summed.contains(&l))
        {
            return Err("a product of activations must sum over an axis of both".into());
        }
        let runs = self.batch_runs(&a, &b, &batch)?;
        let (a_half, dim) = self.half(&a, (&batch, &runs), &summed, &alone(&a))?;
        let (b_half, b_dim) = self.half(&b, (&batch, &runs), &summed, &alone(&b))?;
        if dim != b_dim {
            return Err("queries and keys differ in channels per head".into());
        }
        let count = |over: bool| -> usize {
            runs.iter()
                .flatten()
                .filter(|(o, _)| *o == over)
                .map(|(_, n)| n)
                .product()
        };
        let (groups, heads) = (count(true), count(false));
        let space = [groups, heads, a_half.len, b_half.len];
        let view = score_view(output, (&batch, &runs), &a, &b, space);
        Ok(Known::Scores(Scores {
            scale: a.factor * b.factor,
            a: a_half,
            b: b_half,
            groups,
            heads,
            head_dim: dim,
            addends: vec![],
            view,
            keys_are_b: true,
        }))
    }

    /// How the axes that both operands share are made of groups and heads.
    fn batch_runs(&self, a: &Side, b: &Side, letters: &[char]) -> Result<Vec<Batch>, String> {
        let runs = |side: &Side, letter: char| -> Batch {
            let channels = side.seen.base.channels(&self.values);
            let mut runs: Batch = vec![];
            for f in refined(side.dim(letter), channels) {
                let over = f.stride >= channels;
                match runs.last_mut() {
                    Some((last, n)) if *last == over => *n *= f.size,
                    _ => runs.push((over, f.size)),
                }
            }
            runs
        };
        letters
            .iter()
            .map(|l| {
                let (of_a, of_b) = (runs(a, *l), runs(b, *l));
                (of_a == of_b).then_some(of_a).ok_or_else(|| {
                    "the two operands of attention logits disagree on heads and groups".to_string()
                })
            })
            .collect()
    }

    /// Rows, columns and channels of one operand.
    fn half(
        &self,
        side: &Side,
        (batch, runs): (&[char], &[Batch]),
        summed: &[char],
        alone: &[char],
    ) -> Result<(Half, usize), String> {
        let channels = side.seen.base.channels(&self.values);
        let view = &side.seen.view;
        let (mut groups, mut heads) = (vec![view.offset / channels * channels], vec![0]);
        for (letter, _) in batch.iter().zip(runs) {
            let (over, inside) = split(side.dim(*letter), channels);
            groups = steps(&groups, &over);
            heads = steps(&heads, &inside);
        }
        let (mut rows, mut len) = (vec![], 1);
        for group in groups {
            let mut list = vec![group];
            for letter in alone {
                let (over, inside) = split(side.dim(*letter), channels);
                if !inside.is_empty() {
                    return Err("the rows of an attention operand must be whole rows".into());
                }
                list = steps(&list, &over);
            }
            len = list.len();
            rows.extend(list.iter().map(|offset| (offset / channels) as u32));
        }
        let axes: Vec<usize> = positions(&side.letters, summed);
        let dim = match view.cover(&axes).as_slice() {
            [] => 1,
            [Factor { size, stride: 1 }] => *size,
            _ => return Err("the channels of an attention operand must be contiguous".into()),
        };
        let head_stride =
            even_step(&heads).ok_or("the heads of an attention operand must be evenly spaced")?;
        let half = Half {
            base: side.seen.base.clone(),
            rows,
            len,
            column: view.offset % channels,
            head_stride,
        };
        Ok((half, dim))
    }

    /// Softmax over the keys. A softmax of the logits at the very end does not change their order and is left out.
    pub(super) fn softmax(&mut self, id: NodeId, node: &SourceNode, axes: &[usize]) -> Outcome {
        let known = self.input(node, 0)?;
        let Known::Scores(mut s) = known else {
            if id == self.source.output {
                return Ok(known);
            }
            if let Some(probs) = self.column_softmax(&known, axes) {
                return Ok(Known::Probs(probs));
            }
            return self.gate(node, axes);
        };
        let [_, _, a, b] = s.space();
        let cover = s.view.cover(axes);
        let axis = |size, stride| View::strided(&[(size, stride)]).dims.concat();
        if cover == axis(b, 1) {
            s.keys_are_b = true;
        } else if cover == axis(a, b) {
            s.keys_are_b = false;
        } else {
            return Err("the softmax of attention must run over the keys".into());
        }
        Ok(Known::Probs(s))
    }

    /// Softmax over rows of one channel: attention whose logits are there already (MobileViTv2's separable attention). They are the keys, of
    /// one channel, and the query is the constant 1.
    fn column_softmax(&self, known: &Known, axes: &[usize]) -> Option<Scores> {
        let (seen, function) = as_map(known.clone())?;
        let channels = seen.base.channels(&self.values);
        let dims = &seen.view.dims;
        if dims.iter().any(|d| !split(d, channels).1.is_empty()) {
            return None;
        }
        let (mut groups, mut keys) = (vec![seen.view.offset / channels * channels], vec![0]);
        for (axis, dim) in dims.iter().enumerate() {
            let list = if axes.contains(&axis) {
                &mut keys
            } else {
                &mut groups
            };
            *list = steps(list, dim);
        }
        let rows = groups
            .iter()
            .flat_map(|g| keys.iter().map(move |k| ((g + k) / channels) as u32));
        let (mut group, mut key) = (groups.len(), keys.len());
        let view = dims.iter().enumerate().map(|(axis, dim)| {
            let size = dim.iter().map(|f| f.size).product();
            let left = if axes.contains(&axis) {
                &mut key
            } else {
                &mut group
            };
            *left /= size;
            let below = if axes.contains(&axis) { 1 } else { keys.len() };
            vec![Factor {
                size,
                stride: *left * below,
            }]
        });
        let view = View::new(0, view.collect());
        let one = Rows {
            channels: 1,
            parts: vec![Part::Constant(Arc::from([1.0]))],
            index: vec![(0, 0)],
        };
        Some(Scores {
            a: Half {
                base: Base::Rows(Arc::new(one)),
                rows: vec![0; groups.len()],
                len: 1,
                column: 0,
                head_stride: 0,
            },
            b: Half {
                base: seen.base.clone(),
                rows: rows.collect(),
                len: keys.len(),
                column: seen.view.offset % channels,
                head_stride: 0,
            },
            groups: groups.len(),
            heads: 1,
            head_dim: 1,
            scale: function.factor()?,
            addends: vec![],
            view,
            keys_are_b: true,
        })
    }

    /// The sum over the keys of values times probabilities, written out. Each channel is a head of its own, all with the same logits.
    pub(super) fn weighted_sum(
        &mut self,
        id: NodeId,
        probs: &Scores,
        values: Seen,
        axes: &[usize],
    ) -> Outcome {
        let letters: Vec<char> = (0..values.view.dims.len() as u8)
            .map(|i| char::from(b'a' + i))
            .collect();
        let kept = |(axis, letter): (usize, &char)| {
            if axes.contains(&axis) { '-' } else { *letter }
        };
        let output: Vec<char> = letters.iter().enumerate().map(kept).collect();
        if probs.view.dims.len() != letters.len() || probs.heads * probs.head_dim != 1 {
            return Err(
                "values times attention probabilities are supported as a matrix product, or with logits of one channel".into(),
            );
        }
        let side = Side {
            seen: values,
            letters: letters.clone(),
            factor: 1.0,
        };
        // An axis along which the probabilities are repeated is none of theirs.
        let own = |(axis, letter): (usize, &char)| {
            if probs.view.dims[axis].is_empty() {
                '-'
            } else {
                *letter
            }
        };
        let prob_letters: Vec<char> = letters.iter().enumerate().map(own).collect();
        let mut values = ValueSide::new(self, &side, probs, &prob_letters, &output)?;
        values.half.head_stride = 1;
        let shape = AttentionShape {
            heads: values.dim,
            head_dim: 1,
            groups: probs.groups,
            slots: values.slots,
            queries: 1,
            keys: probs.b.len,
        };
        let operands = [
            self.operand(id, &probs.a)?,
            self.operand(id, &probs.b)?,
            self.operand(id, &values.half)?,
        ];
        let out = (0..(shape.groups * shape.slots) as u32).collect();
        let view = values.output_view(probs, &prob_letters, &output, &shape);
        Ok(self.emit_attention(id, (shape, probs.scale), operands, out, (None, None), view))
    }

    /// Adds a constant to attention logits: a bias per head, or a mask per group.
    pub(super) fn add_to_scores(&self, mut s: Scores, constant: &Tensor) -> Outcome {
        let addend = addend(&s, constant).ok_or_else(|| {
            format!(
                "a constant of shape {:?} does not fit attention logits {:?}",
                constant.shape,
                s.view.shape()
            )
        })?;
        s.addends.push(addend);
        Ok(Known::Scores(s))
    }

    /// softmax(q·kᵀ)·v completes the pattern.
    pub(super) fn attention(
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
        let values = ValueSide::new(self, &v, probs, prob_letters, output)?;
        let (q_half, k_half) = if probs.keys_are_b {
            (&probs.a, &probs.b)
        } else {
            (&probs.b, &probs.a)
        };
        let shape = AttentionShape {
            heads: probs.heads,
            head_dim: probs.head_dim,
            groups: probs.groups,
            slots: values.slots,
            queries: q_half.len,
            keys: k_half.len,
        };
        if values.dim != shape.head_dim {
            return Err("values must have the channels per head of the queries".into());
        }
        let q = self.operand(id, q_half)?;
        let k = self.operand(id, k_half)?;
        let v = self.operand(id, &values.half)?;
        let out = output_rows(&shape, &q, &v);
        let (bias, mask) = bias_and_mask(probs, &shape)?;
        let view = values.output_view(probs, prob_letters, output, &shape);
        Ok(self.emit_attention(id, (shape, probs.scale), [q, k, v], out, (bias, mask), view))
    }

    fn emit_attention(
        &mut self,
        id: NodeId,
        (shape, scale): (AttentionShape, f64),
        [q, k, v]: [Operand; 3],
        out: Arc<[u32]>,
        (bias, mask): BiasAndMask,
        view: View,
    ) -> Known {
        let (rows, channels) = (out.len(), shape.heads * shape.head_dim);
        let source = Some(Source {
            node: id,
            view: view.clone(),
            rows: Some(Arc::clone(&out)),
        });
        let inputs = [q.value, k.value, v.value].into_iter().flatten().collect();
        let output = self.add_value(id, (rows, channels), source);
        let index = out.iter().map(|r| (0, *r)).collect();
        let kind = Kind::Attention {
            shape,
            q,
            k,
            v,
            out,
            scale,
            bias,
            mask,
        };
        self.push(kind, inputs, output);
        let rows = Rows {
            channels,
            parts: vec![Part::Value(output)],
            index,
        };
        let base = rows.into_base(&self.values);
        Known::View {
            seen: Seen { base, view },
            sole: true,
        }
    }

    /// An operand with all its rows in one value, behind which its constant rows follow.
    fn operand(&mut self, id: NodeId, half: &Half) -> Result<Operand, String> {
        let all = half.base.rows(&self.values);
        let index = half
            .rows
            .iter()
            .map(|r| all.index.get(*r as usize).copied());
        let index: Option<Vec<_>> = index.collect();
        let list = Rows {
            channels: all.channels,
            parts: all.parts.clone(),
            index: index.ok_or("an attention operand reads past its rows")?,
        };
        let list = list.into_base(&self.values).rows(&self.values);
        let mut values: Vec<ValueId> = vec![];
        let mut constants: Vec<f32> = vec![];
        for part in &list.parts {
            if let Part::Value(v) = part {
                values.push(*v);
            }
        }
        let value = match values.as_slice() {
            [] => None,
            [one] => Some(*one),
            _ => Some(self.concatenated(id, &values, list.channels)),
        };
        let total = value.map_or(0, |v| self.values[v].rows);
        let (mut next, mut first) = (0, vec![]);
        for part in &list.parts {
            match part {
                Part::Value(v) => {
                    first.push(next);
                    next += self.values[*v].rows;
                }
                Part::Constant(data) => {
                    first.push(total + constants.len() / list.channels);
                    constants.extend_from_slice(data);
                }
            }
        }
        let number = |(part, row): &(u32, u32)| first[*part as usize] as u32 + row;
        Ok(Operand {
            value,
            channels: list.channels,
            constants: constants.into(),
            column: half.column,
            head_stride: half.head_stride,
            rows: list.index.iter().map(number).collect(),
        })
    }

    /// One value that several are parts of.
    fn concatenated(&mut self, id: NodeId, parts: &[ValueId], channels: usize) -> ValueId {
        let known = self
            .ops
            .iter()
            .find(|op| op.kind == Kind::Concat && op.inputs == parts);
        if let Some(op) = known {
            return op.output;
        }
        let rows = parts.iter().map(|v| self.values[*v].rows).sum();
        let output = self.add_value(id, (rows, channels), None);
        self.push(Kind::Concat, parts.to_vec(), output)
    }
}

fn positions(letters: &[char], set: &[char]) -> Vec<usize> {
    set.iter()
        .filter_map(|l| letters.iter().position(|x| x == l))
        .collect()
}

/// A constant operand: one row for each index of the letters it has alone, whose channels are those it shares.
fn constant_rows(tensor: &Tensor, letters: &[char], other: &[char]) -> Seen {
    let shared = |l: &char| other.contains(l);
    let mut stride = 1;
    let mut strides = vec![0; letters.len()];
    for pass in [true, false] {
        for axis in (0..letters.len()).rev() {
            if shared(&letters[axis]) == pass {
                strides[axis] = stride;
                stride *= tensor.shape[axis];
            }
        }
    }
    let channels: usize = letters
        .iter()
        .zip(&tensor.shape)
        .filter(|(l, _)| shared(l))
        .map(|(_, n)| n)
        .product();
    let dims: Vec<(usize, usize)> = tensor.shape.iter().copied().zip(strides).collect();
    let view = View::strided(&dims);
    let data: Arc<[f32]> = view.gather(&tensor.data).into();
    let index = (0..(data.len() / channels.max(1)) as u32)
        .map(|r| (0, r))
        .collect();
    let rows = Rows {
        channels,
        parts: vec![Part::Constant(data)],
        index,
    };
    Seen {
        base: Base::Rows(Arc::new(rows)),
        view,
    }
}

/// How the product's axes lie over the space `[groups][heads][a][b]`.
fn score_view(
    output: &[char],
    (batch, runs): (&[char], &[Batch]),
    a: &Side,
    b: &Side,
    [groups, heads, a_len, b_len]: [usize; 4],
) -> View {
    let (mut group, mut head) = (groups, heads);
    let (mut a_left, mut b_left) = (a_len, b_len);
    let size = |dim: &[Factor]| dim.iter().map(|f| f.size).product::<usize>();
    let dim = |letter: &char| -> Vec<Factor> {
        if let Some(number) = batch.iter().position(|l| l == letter) {
            let run = |(over, n): &(bool, usize)| {
                let (left, below) = if *over {
                    (&mut group, heads * a_len * b_len)
                } else {
                    (&mut head, a_len * b_len)
                };
                *left /= n;
                Factor {
                    size: *n,
                    stride: *left * below,
                }
            };
            return runs[number].iter().map(run).collect();
        }
        let (side, left, below) = if a.dim(*letter).is_empty() {
            (b, &mut b_left, 1)
        } else {
            (a, &mut a_left, b_len)
        };
        let n = size(side.dim(*letter));
        *left /= n;
        vec![Factor {
            size: n,
            stride: *left * below,
        }]
    };
    View::new(0, output.iter().map(dim).collect())
}

/// Numbers the result's rows as the queries' own rows, or for slots as the rows of the values, when those are all rows of something;
/// else in the order of computation. Then a shortcut around the attention is a plain sum.
fn output_rows(shape: &AttentionShape, q: &Operand, v: &Operand) -> Arc<[u32]> {
    let natural = || (0..(shape.groups * shape.slots * shape.queries) as u32).collect();
    let rows = if shape.slots == 1 {
        &q.rows
    } else if shape.queries == shape.keys {
        &v.rows
    } else {
        return natural();
    };
    let mut seen = vec![false; rows.len()];
    for row in rows.iter() {
        match seen.get_mut(*row as usize) {
            Some(slot) if !*slot => *slot = true,
            _ => return natural(),
        }
    }
    Arc::clone(rows)
}

/// Attention logits after an operation on their axes: some of the queries, or another view of all of them.
pub(in crate::lower) fn moved_scores(s: Scores, op: &SourceOp) -> Option<Scores> {
    match op {
        SourceOp::Slice { axis, start, end } => sliced_scores(s, *axis, *start..*end),
        _ => Some(Scores {
            view: moved_view(&s.view, op)?,
            ..s
        }),
    }
}

/// Logits of some rows of one operand.
fn sliced_scores(mut s: Scores, axis: usize, range: Range<usize>) -> Option<Scores> {
    let space = s.space();
    let dims: Vec<Vec<SpaceFactor>> = s.view.dims.iter().map(|d| split_space(d, space)).collect();
    let whole = s.view.shape().get(axis)?.eq(&range.len());
    let cut = match dims.get(axis)?.as_slice() {
        _ if whole => return Some(s),
        [f] if f.axis >= 2 && f.size == space[f.axis] => f.axis,
        _ => return None,
    };
    let half = if cut == 2 { &mut s.a } else { &mut s.b };
    let rows = half
        .rows
        .chunks(half.len)
        .map(|rows| rows.get(range.clone()));
    half.rows = rows.collect::<Option<Vec<_>>>()?.concat();
    half.len = range.len();
    for addend in s.addends.iter_mut().filter(|a| a.varies[cut]) {
        let inner = if cut == 2 && addend.varies[3] {
            space[3]
        } else {
            1
        };
        let blocks = addend.data.chunks(space[cut] * inner);
        addend.data = blocks
            .flat_map(|b| b[range.start * inner..range.end * inner].to_vec())
            .collect();
    }
    let space = s.space();
    let factor = |f: &SpaceFactor| Factor {
        size: if f.axis == cut { range.len() } else { f.size },
        stride: f.step * space[f.axis + 1..].iter().product::<usize>(),
    };
    let dims = dims.iter().map(|d| d.iter().map(factor).collect());
    s.view = View::new(0, dims.collect());
    Some(s)
}
