//! Element-wise nodes: per-channel constants, functions of one activation, what meets two activations is in `sum` and `product`.

use std::sync::Arc;

use super::expr::{self, Expr};
use super::seen::{Part, Rows, Seen};
use super::state::Known;
use super::{Lowering, Outcome, as_map, single};
use crate::frontend::{Binary, NodeId, SourceNode, Tensor, Unary};
use crate::ir::{Kind, Source};
use crate::view::View;

impl Lowering<'_> {
    pub(super) fn unary(&mut self, node: &SourceNode, op: Unary) -> Outcome {
        let known = self.input(node, 0)?;
        if let Known::Const(tensor) = known {
            let apply = |x: &f32| Expr::X.unary(op).eval(f64::from(*x)) as f32;
            return Ok(Known::Const(Arc::new(Tensor {
                shape: tensor.shape.clone(),
                data: tensor.data.iter().map(apply).collect(),
            })));
        }
        let what = known.describe();
        let (seen, function) = as_map(known)
            .ok_or_else(|| format!("{op:?} of {what} is not supported, only of an activation"))?;
        Ok(Known::Map {
            seen,
            function: function.unary(op),
        })
    }

    pub(super) fn binary(&mut self, id: NodeId, node: &SourceNode, op: Binary) -> Outcome {
        let (a, b) = (self.input(node, 0)?, self.input(node, 1)?);
        match (a, b) {
            (Known::Const(a), Known::Const(b)) => constants(op, &a, &b, &node.shape),
            (known, Known::Const(c)) => self.with_constant(id, node, op, known, &c, false),
            (Known::Const(c), known) => self.with_constant(id, node, op, known, &c, true),
            (
                Known::View { seen, .. },
                Known::RowMean {
                    seen: of,
                    cover,
                    view: mean,
                },
            ) if op == Binary::Sub => self.centered(seen, &of, cover, &mean),
            (Known::View { seen, .. }, Known::Probs(probs))
            | (Known::Probs(probs), Known::View { seen, .. })
                if op == Binary::Mul =>
            {
                Ok(Known::Weighted {
                    probs,
                    values: seen,
                })
            }
            (a, b) => self.two_activations(id, node, op, a, b),
        }
    }

    /// An operand that is constant: a factor, an addend per channel or per element, or a number inside a scalar function.
    fn with_constant(
        &mut self,
        id: NodeId,
        node: &SourceNode,
        op: Binary,
        known: Known,
        constant: &Tensor,
        constant_first: bool,
    ) -> Outcome {
        let number = uniform(constant);
        match (known, number) {
            (sum @ Known::Sum { .. }, Some(c)) if op == Binary::Mul => self.mean(id, sum, c),
            (sum @ Known::Sum { .. }, Some(c)) if op == Binary::Div && !constant_first => {
                self.mean(id, sum, 1.0 / c)
            }
            (Known::Scores(mut s), Some(c))
                if op == Binary::Mul || (op == Binary::Div && !constant_first) =>
            {
                let c = f64::from(if op == Binary::Mul { c } else { 1.0 / c });
                s.scale *= c;
                for addend in &mut s.addends {
                    addend
                        .data
                        .iter_mut()
                        .for_each(|x| *x = (f64::from(*x) * c) as f32);
                }
                Ok(Known::Scores(s))
            }
            (Known::Scores(s), _) if op == Binary::Add => self.add_to_scores(s, constant),
            (Known::View { seen, sole }, number) => {
                let same_shape = seen.view.shape() == node.shape;
                let vector = channel_constant(op, constant, constant_first)
                    .filter(|_| same_shape)
                    .and_then(|(op, c)| {
                        let channels = seen.base.channels(&self.values);
                        Some((op, per_channel(&seen.view, &c, channels)?))
                    });
                if let Some((op, vector)) = &vector {
                    let own = match (sole, number) {
                        (true, _) => Some(seen.clone()),
                        (false, None) => self.normalised_again(&seen),
                        // A number is more likely a piece of an activation function.
                        (false, Some(_)) => None,
                    };
                    if let Some(seen) = own.and_then(|own| self.fold(id, &own, *op, vector)) {
                        return Ok(Known::View { seen, sole: true });
                    }
                }
                match (number, vector) {
                    (Some(c), _) => map_with(op, seen, Expr::X, c, constant_first),
                    (None, Some((op, vector))) => Ok(Known::View {
                        seen: self.scale(id, &seen, op, &vector)?,
                        sole: true,
                    }),
                    _ => self.constant_rows(id, &seen, op, constant, same_shape),
                }
            }
            (known, Some(c)) => {
                let what = known.describe();
                let (seen, function) = as_map(known)
                    .ok_or_else(|| format!("{op:?} of {what} and a number is not supported"))?;
                map_with(op, seen, function, c, constant_first)
            }
            (Known::Map { .. }, None) => {
                let seen = self.activation(node, usize::from(constant_first))?;
                let view = Known::View { seen, sole: true };
                self.with_constant(id, node, op, view, constant, constant_first)
            }
            (known, None) => Err(format!(
                "{op:?} of {} and a constant of shape {:?} is not supported",
                known.describe(),
                constant.shape
            )),
        }
    }

    /// Adds a constant that differs from row to row (a position embedding), or per channel where no layer before can take it in.
    fn constant_rows(
        &mut self,
        id: NodeId,
        seen: &Seen,
        op: Binary,
        constant: &Tensor,
        same_shape: bool,
    ) -> Outcome {
        let refuse = || {
            format!(
                "{op:?} of an activation and a constant of shape {:?} is supported only per channel, right after a convolution, linear \
                 or layer norm; Add also per element",
                constant.shape
            )
        };
        let sign = match op {
            Binary::Add => 1.0,
            Binary::Sub => -1.0,
            _ => return Err(refuse()),
        };
        let seen = self.compact(seen.clone()).ok_or_else(refuse)?;
        if !same_shape || !seen.is_whole(&self.values) {
            return Err(refuse());
        }
        let full = broadcast(constant, &seen.view.shape()).ok_or_else(refuse)?;
        let channels = seen.base.channels(&self.values);
        let rows = seen.base.rows(&self.values);
        let mut matrix = vec![0.0; rows.index.len() * channels];
        for (x, offset) in full.iter().zip(seen.view.offsets()) {
            matrix[offset] = sign * x;
        }
        let alone = single(&seen.base).is_some();
        let mut parts = vec![];
        for (number, part) in rows.parts.iter().enumerate() {
            let len = match part {
                Part::Constant(data) => data.len() / channels,
                Part::Value(value) => self.values[*value].rows,
            };
            let list = rows.source_rows(number, 0, len).ok_or_else(refuse)?;
            let mut data = vec![0.0; len * channels];
            for ((p, row), addend) in rows.index.iter().zip(matrix.chunks(channels)) {
                if *p as usize == number {
                    data[*row as usize * channels..][..channels].copy_from_slice(addend);
                }
            }
            parts.push(match part {
                Part::Constant(c) => {
                    Part::Constant(c.iter().zip(&data).map(|(a, b)| a + b).collect())
                }
                Part::Value(value) => {
                    let source = Some(Source {
                        node: id,
                        view: seen.view.clone(),
                        rows: (!alone).then_some(list),
                    });
                    let output = self.add_value(id, (len, channels), source);
                    Part::Value(self.push(Kind::AddConstant(data.into()), vec![*value], output))
                }
            });
        }
        let rows = Rows {
            channels,
            parts,
            index: rows.index.clone(),
        };
        Ok(Known::View {
            seen: Seen {
                base: rows.into_base(&self.values),
                view: seen.view,
            },
            sole: true,
        })
    }

    /// Two operands that both depend on the image: one function of one tensor (as in x·Φ(x)), a sum or a product.
    fn two_activations(
        &mut self,
        id: NodeId,
        node: &SourceNode,
        op: Binary,
        a: Known,
        b: Known,
    ) -> Outcome {
        let what = format!("{op:?} of {} and {}", a.describe(), b.describe());
        let (Some((seen_a, fa)), Some((seen_b, fb))) = (as_map(a), as_map(b)) else {
            return Err(format!("{what} is not supported"));
        };
        let one_function =
            seen_a == seen_b && !(fa == Expr::X && fb == Expr::X && op == Binary::Add);
        if one_function {
            return Ok(Known::Map {
                seen: seen_a,
                function: fa.binary(op, fb),
            });
        }
        match op {
            Binary::Add => self.sum_of(id, node, 1.0),
            Binary::Sub => self.sum_of(id, node, -1.0),
            Binary::Mul => self.product_of(id, node),
            _ => Err(format!(
                "{what}, different tensors, is not supported; only sums and products are"
            )),
        }
    }
}

fn map_with(op: Binary, seen: Seen, function: Expr, c: f32, constant_first: bool) -> Outcome {
    let c = Expr::Const(f64::from(c));
    let function = if constant_first {
        c.binary(op, function)
    } else {
        function.binary(op, c)
    };
    Ok(Known::Map { seen, function })
}

/// The operation with a constant, as an addition or a multiplication.
fn channel_constant(
    op: Binary,
    constant: &Tensor,
    constant_first: bool,
) -> Option<(Binary, Tensor)> {
    let mut constant = constant.clone();
    let op = match op {
        Binary::Add | Binary::Mul => op,
        Binary::Sub if !constant_first => {
            constant.data.iter_mut().for_each(|c| *c = -*c);
            Binary::Add
        }
        Binary::Div if !constant_first => {
            constant.data.iter_mut().for_each(|c| *c = 1.0 / *c);
            Binary::Mul
        }
        _ => return None,
    };
    Some((op, constant))
}

/// `Some(c)` when every element is c.
fn uniform(tensor: &Tensor) -> Option<f32> {
    let first = *tensor.data.first()?;
    tensor
        .data
        .iter()
        .all(|x| x.to_bits() == first.to_bits())
        .then_some(first)
}

/// A tensor repeated along its axes of size 1 to `shape`.
fn broadcast(tensor: &Tensor, shape: &[usize]) -> Option<Vec<f32>> {
    if tensor.shape.len() != shape.len() {
        return None;
    }
    let mut at = vec![0];
    for (size, wanted) in tensor.shape.iter().zip(shape) {
        if size != wanted && *size != 1 {
            return None;
        }
        let step = usize::from(size == wanted);
        at = at
            .iter()
            .flat_map(|base| (0..*wanted).map(move |i| base * size + i * step))
            .collect();
    }
    at.into_iter()
        .map(|i| tensor.data.get(i).copied())
        .collect()
}

fn constants(op: Binary, a: &Tensor, b: &Tensor, shape: &[usize]) -> Outcome {
    let (Some(x), Some(y)) = (broadcast(a, shape), broadcast(b, shape)) else {
        return Err("the shapes of two constants do not fit".into());
    };
    let apply = |(x, y): (&f32, &f32)| expr::binary(op, f64::from(*x), f64::from(*y)) as f32;
    Ok(Known::Const(Arc::new(Tensor {
        shape: shape.to_vec(),
        data: x.iter().zip(&y).map(apply).collect(),
    })))
}

/// A constant that broadcasts over a view, as one number per channel; `None` when it varies over rows.
fn per_channel(view: &View, constant: &Tensor, channels: usize) -> Option<Vec<f32>> {
    if constant.shape.len() != view.dims.len() {
        return None;
    }
    // (channel offset, index into the constant), extended one dimension at a time.
    let mut cells = vec![(0usize, 0usize)];
    for (dim, size) in view.dims.iter().zip(&constant.shape) {
        let (inner, outer): (Vec<_>, Vec<_>) =
            dim.iter().copied().partition(|f| f.stride < channels);
        if *size > 1 && !outer.is_empty() {
            return None;
        }
        let offsets = View {
            offset: 0,
            dims: vec![inner],
        }
        .offsets();
        if *size > 1 && offsets.len() != *size {
            return None;
        }
        let step = |i: usize| if *size > 1 { i } else { 0 };
        cells = cells
            .iter()
            .flat_map(|(c, k)| {
                offsets
                    .iter()
                    .enumerate()
                    .map(move |(i, o)| (c + o, k * size + step(i)))
            })
            .collect();
    }
    let mut vector = vec![None; channels];
    for (channel, index) in cells {
        *vector.get_mut(channel)? = Some(*constant.data.get(index)?);
    }
    vector.into_iter().collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn per_channel_reads_constants_in_either_layout() {
        let constant = |shape: &[usize], data: &[f32]| Tensor {
            shape: shape.to_vec(),
            data: data.to_vec(),
        };
        let nchw = View::strided(&[(1, 0), (3, 1), (4, 3)]);
        assert_eq!(
            per_channel(&nchw, &constant(&[1, 3, 1], &[1., 2., 3.]), 3),
            Some(vec![1., 2., 3.])
        );
        assert_eq!(
            per_channel(&nchw, &constant(&[1, 1, 4], &[1., 2., 3., 4.]), 3),
            None,
            "varies over rows"
        );
        let heads = View::strided(&[(4, 6), (2, 3), (3, 1)]);
        assert_eq!(
            per_channel(&heads, &constant(&[1, 2, 1], &[1., 2.]), 6),
            Some(vec![1., 1., 1., 2., 2., 2.])
        );
        assert_eq!(
            per_channel(&heads, &constant(&[1, 1, 1], &[5.]), 6),
            Some(vec![5.; 6])
        );
    }
}
