//! Element-wise nodes: per-channel constants, functions of one activation, means, residual adds.

use super::expr::{self, Expr};
use super::state::Known;
use super::{Lowering, Outcome, as_map, channel_axis};
use crate::frontend::{Binary, NodeId, SourceNode, Tensor, Unary};
use crate::ir::{Epilogue, Kind, Source, ValueId};
use crate::view::View;

impl Lowering<'_> {
    pub(super) fn unary(&mut self, node: &SourceNode, op: Unary) -> Outcome {
        let known = self.input(node, 0)?;
        let what = known.describe();
        let (value, view, function) = as_map(known)
            .ok_or_else(|| format!("{op:?} of {what} is not supported, only of an activation"))?;
        Ok(Known::Map {
            value,
            view,
            function: function.unary(op),
        })
    }

    pub(super) fn binary(&mut self, id: NodeId, node: &SourceNode, op: Binary) -> Outcome {
        let (a, b) = (self.input(node, 0)?, self.input(node, 1)?);
        match (a, b) {
            (Known::Const(a), Known::Const(b)) => constants(op, &a, &b),
            (known, Known::Const(c)) => self.with_constant(id, node, op, known, &c, false),
            (Known::Const(c), known) => self.with_constant(id, node, op, known, &c, true),
            (
                Known::View { value, view, .. },
                Known::RowMean {
                    value: of,
                    view: mean,
                },
            ) if op == Binary::Sub => self.centered(value, view, of, &mean),
            (a, b) => self.two_activations(id, node, op, a, b),
        }
    }

    /// An operand that is constant: a factor, an addend per channel, or a number inside a scalar function.
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
            (Known::Scores(mut s), Some(c)) if op == Binary::Mul => {
                s.scale *= f64::from(c);
                Ok(Known::Scores(s))
            }
            (Known::Scores(mut s), Some(c)) if op == Binary::Div && !constant_first => {
                s.scale /= f64::from(c);
                Ok(Known::Scores(s))
            }
            (Known::View { value, view, sole }, _)
                if sole
                    && self.fold_vector(id, node, op, value, &view, constant, constant_first) =>
            {
                Ok(Known::View { value, view, sole })
            }
            (known, Some(c)) => {
                let what = known.describe();
                let (value, view, function) = as_map(known)
                    .ok_or_else(|| format!("{op:?} of {what} and a number is not supported"))?;
                let c = Expr::Const(f64::from(c));
                let function = if constant_first {
                    c.binary(op, function)
                } else {
                    function.binary(op, c)
                };
                Ok(Known::Map {
                    value,
                    view,
                    function,
                })
            }
            (known, None) => Err(format!(
                "{op:?} of {} and a constant of shape {:?} is supported only per channel, right after a convolution, linear or \
                 layer norm",
                known.describe(),
                constant.shape
            )),
        }
    }

    /// Folds a per-channel constant into the layer before; false when it does not fit.
    #[allow(clippy::too_many_arguments)] // the pieces of one pattern
    fn fold_vector(
        &mut self,
        id: NodeId,
        node: &SourceNode,
        op: Binary,
        value: ValueId,
        view: &View,
        constant: &Tensor,
        constant_first: bool,
    ) -> bool {
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
            _ => return false,
        };
        let (rows, channels) = (self.values[value].rows, self.values[value].channels);
        let same_shape = view.shape() == node.shape;
        let Some(vector) = per_channel(view, &constant, channels)
            .filter(|_| same_shape && view.covers(rows * channels))
        else {
            return false;
        };
        if !self.fold(value, op, &vector) {
            return false;
        }
        self.values[value].source = Some(Source {
            node: id,
            view: view.clone(),
            rows: None,
        });
        true
    }

    fn centered(&self, value: ValueId, view: View, of: ValueId, mean: &View) -> Outcome {
        let channels = self.values[value].channels;
        let mut expected = view.clone();
        for dim in &mut expected.dims {
            if *dim == channel_axis(channels) {
                dim.clear();
            }
        }
        if value != of || expected != *mean {
            return Err("a mean may only be subtracted from the tensor it was taken of".into());
        }
        Ok(Known::Centered { value, view })
    }

    /// Two operands that both depend on the image: one function of one tensor (as in x·Φ(x)), or a residual add.
    fn two_activations(
        &mut self,
        id: NodeId,
        node: &SourceNode,
        op: Binary,
        a: Known,
        b: Known,
    ) -> Outcome {
        let what = format!("{op:?} of {} and {}", a.describe(), b.describe());
        let (Some((va, view_a, fa)), Some((vb, view_b, fb))) = (as_map(a), as_map(b)) else {
            return Err(format!("{what} is not supported"));
        };
        let one_function =
            va == vb && view_a == view_b && !(fa == Expr::X && fb == Expr::X && op == Binary::Add);
        if one_function {
            return Ok(Known::Map {
                value: va,
                view: view_a,
                function: fa.binary(op, fb),
            });
        }
        if op != Binary::Add {
            return Err(format!(
                "{what}, different tensors, is not supported; only Add is"
            ));
        }
        let (va, view_a) = self.activation(node, 0)?;
        let (vb, view_b) = self.activation(node, 1)?;
        let (rows, channels) = (self.values[va].rows, self.values[va].channels);
        let same = rows == self.values[vb].rows
            && channels == self.values[vb].channels
            && view_a == view_b;
        if !same || !view_a.covers(rows * channels) {
            return Err("a residual add needs two tensors of one shape and layout".into());
        }
        let kind = Kind::Add {
            factors: [1.0; 2],
            epilogue: Epilogue::default(),
        };
        Ok(self.emit(id, kind, vec![va, vb], (rows, channels), view_a))
    }
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

fn constants(op: Binary, a: &Tensor, b: &Tensor) -> Outcome {
    let apply = |x: f32, y: f32| expr::binary(op, f64::from(x), f64::from(y)) as f32;
    let (shape, data) = match (uniform(a), uniform(b)) {
        _ if a.shape == b.shape => (
            a,
            a.data
                .iter()
                .zip(&b.data)
                .map(|(x, y)| apply(*x, *y))
                .collect::<Vec<_>>(),
        ),
        (_, Some(c)) => (a, a.data.iter().map(|x| apply(*x, c)).collect()),
        (Some(c), _) => (b, b.data.iter().map(|y| apply(c, *y)).collect()),
        _ => return Err("broadcasting between two constants is not supported".into()),
    };
    Ok(Known::Const(std::sync::Arc::new(Tensor {
        shape: shape.shape.clone(),
        data,
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
