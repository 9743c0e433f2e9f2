//! Operations that treat every row alike: they run once on each value a matrix is made of, are computed here for its constant rows,
//! and leave the list of rows as it is.

use std::sync::Arc;

use super::expr::Expr;
use super::seen::{Base, Part, Rows, Seen};
use super::{Lowering, channel_axis, single};
use crate::frontend::{Binary, NodeId};
use crate::ir::{Epilogue, Geometry, Kind, Source, ValueId};
use crate::view::View;

/// What is done to every row.
pub(super) struct RowOp<'a> {
    /// Channels of the result.
    pub(super) channels: usize,
    /// The layer, for so many rows.
    pub(super) kind: &'a dyn Fn(usize) -> Kind,
    /// The same on constant rows.
    pub(super) constant: &'a dyn Fn(&[f32]) -> Vec<f32>,
    /// The result's view, from the operand's.
    pub(super) view: &'a dyn Fn(&View) -> View,
}

impl Lowering<'_> {
    /// The same tensor over parts of which every row is used: unused parts are dropped, of values read in part a slice is taken.
    pub(super) fn compact(&mut self, seen: Seen) -> Option<Seen> {
        if seen.as_value().is_some() && seen.is_whole(&self.values) {
            return Some(seen);
        }
        let seen = seen.in_order(&self.values)?;
        let mut rows = Rows::clone(&*seen.base.rows(&self.values));
        for part in 0..rows.parts.len() {
            let Part::Value(value) = rows.parts[part] else {
                continue;
            };
            let (first, last, _) = rows.used(part);
            if (first, last) == (0, self.values[value].rows) {
                continue;
            }
            rows.parts[part] = Part::Value(self.slice(value, first, last - first));
            for (p, row) in &mut rows.index {
                if *p as usize == part {
                    *row -= first as u32;
                }
            }
        }
        Some(Seen {
            base: rows.into_base(&self.values),
            view: seen.view,
        })
    }

    /// Rows `first..first + len` of a value.
    pub(super) fn slice(&mut self, value: ValueId, first: usize, len: usize) -> ValueId {
        let kind = Kind::Slice { start: first };
        let known = self.ops.iter().find(|op| {
            op.kind == kind && op.inputs == [value] && self.values[op.output].rows == len
        });
        if let Some(op) = known {
            return op.output;
        }
        let mut part = self.values[value].clone();
        part.source = part.source.map(|s| {
            let all: Arc<[u32]> = (0..part.rows as u32).collect();
            let cut = |row: &u32| {
                let row = (*row as usize).wrapping_sub(first);
                if row < len { row as u32 } else { Source::OTHER }
            };
            let rows = s.rows.unwrap_or(all).iter().map(cut).collect();
            Source {
                rows: Some(rows),
                ..s
            }
        });
        part.rows = len;
        self.values.push(part);
        let output = self.values.len() - 1;
        self.push(kind, vec![value], output)
    }

    /// Applies an operation to every row of a tensor that shows whole rows.
    pub(super) fn row_wise(
        &mut self,
        id: NodeId,
        seen: &Seen,
        op: &RowOp<'_>,
    ) -> Result<Seen, String> {
        let channels = seen.base.channels(&self.values);
        let seen = self.compact(seen.clone()).ok_or_else(|| {
            "the tensor's rows are cut or interleaved in a way that would have to move data"
                .to_string()
        })?;
        if !seen.is_whole(&self.values) {
            return Err(format!(
                "it works on a part of the {channels} channels of a tensor; only whole rows are supported"
            ));
        }
        let view = (op.view)(&seen.view);
        let rows = seen.base.rows(&self.values);
        let alone = single(&seen.base).is_some();
        let mut parts = vec![];
        for (number, part) in rows.parts.iter().enumerate() {
            parts.push(match part {
                Part::Constant(data) => Part::Constant((op.constant)(data).into()),
                Part::Value(value) => {
                    let len = self.values[*value].rows;
                    let list = rows.source_rows(number, 0, len);
                    let source = list.map(|list| Source {
                        node: id,
                        view: view.clone(),
                        rows: (!alone).then_some(list),
                    });
                    let output = self.add_value(id, (len, op.channels), source);
                    Part::Value(self.push((op.kind)(len), vec![*value], output))
                }
            });
        }
        let rows = Rows {
            channels: op.channels,
            parts,
            index: rows.index.clone(),
        };
        Ok(Seen {
            base: rows.into_base(&self.values),
            view,
        })
    }

    /// A scalar function as an operation of its own.
    pub(super) fn activate(
        &mut self,
        id: NodeId,
        seen: &Seen,
        function: &Expr,
    ) -> Result<Seen, String> {
        if let Some(value) = seen.as_value()
            && !shows_rows(&seen.view, self.values[value].channels)
        {
            return Ok(Seen {
                base: Base::Value(self.activated(id, value, function)),
                view: seen.view.clone(),
            });
        }
        let apply = |x: &f32| function.eval(f64::from(*x)) as f32;
        let op = RowOp {
            channels: seen.base.channels(&self.values),
            kind: &|_| Kind::Activate(function.clone()),
            constant: &|rows| rows.iter().map(apply).collect(),
            view: &View::clone,
        };
        self.row_wise(id, seen, &op)
    }

    /// Undoes a parser's splitting of one operation over slices of its operand (of a cyclic shift, say): parts that the same layer makes of
    /// slices of one value become the rows of that layer on all of the value.
    pub(super) fn united(&mut self, id: NodeId, seen: Seen) -> Seen {
        let mut rows = Rows::clone(&*seen.base.rows(&self.values));
        let origins: Vec<_> = rows.parts.iter().map(|p| self.slice_of_layer(p)).collect();
        for (number, origin) in origins.iter().enumerate() {
            let Some((kind, root, _)) = origin else {
                continue;
            };
            let alike: Vec<usize> = (number..origins.len())
                .filter(|i| matches!(&origins[*i], Some((k, r, _)) if (k, r) == (kind, root)))
                .collect();
            if alike.len() < 2 || rows.parts[..number].contains(&rows.parts[number]) {
                continue;
            }
            let whole = Part::Value(self.on_whole(id, kind, *root));
            for part in alike {
                let first = origins[part].as_ref().map_or(0, |o| o.2);
                rows.parts[part] = whole.clone();
                for (p, row) in &mut rows.index {
                    if *p as usize == part {
                        *p = number as u32;
                        *row += first as u32;
                    }
                }
            }
        }
        let alone = rows.clone().into_base(&self.values);
        for (number, part) in rows.parts.iter().enumerate() {
            let Part::Value(value) = *part else { continue };
            if self.values[value].source.is_none()
                && let Some(list) = rows.source_rows(number, 0, self.values[value].rows)
            {
                self.values[value].source = Some(Source {
                    node: id,
                    view: seen.view.clone(),
                    rows: single(&alone).is_none().then_some(list),
                });
            }
        }
        Seen {
            base: alone,
            view: seen.view,
        }
    }

    /// The layer that makes a part, and the value and first row it makes it of; `None` if the layer does not work row by row.
    fn slice_of_layer(&self, part: &Part) -> Option<(Kind, ValueId, usize)> {
        let Part::Value(value) = part else {
            return None;
        };
        let maker = |v: ValueId| self.ops.iter().rev().find(|op| op.output == v);
        let layer = maker(*value)?;
        let row_wise = match &layer.kind {
            Kind::LayerNorm { gather, .. } => gather.is_none(),
            Kind::Linear { epilogue, .. } => *epilogue == Epilogue::default(),
            _ => false,
        };
        let input = layer.inputs[0];
        let (root, first) = match maker(input) {
            Some(op) => match op.kind {
                Kind::Slice { start } => (op.inputs[0], start),
                _ => (input, 0),
            },
            None => (input, 0),
        };
        row_wise.then(|| (layer.kind.clone(), root, first))
    }

    /// The result of a row-wise layer on all of a value, which may be there already.
    fn on_whole(&mut self, id: NodeId, kind: &Kind, input: ValueId) -> ValueId {
        let known = self
            .ops
            .iter()
            .find(|op| op.kind == *kind && op.inputs == [input]);
        if let Some(op) = known {
            return op.output;
        }
        let channels = match kind {
            Kind::Linear { bias, .. } => bias.len(),
            _ => self.values[input].channels,
        };
        let output = self.add_value(id, (self.values[input].rows, channels), None);
        self.push(kind.clone(), vec![input], output)
    }

    /// A second copy of the layer norms that made `seen`: where two layer norms of one tensor differ only in gamma and beta, the
    /// parser shares the normalised tensor between them.
    pub(super) fn normalised_again(&mut self, seen: &Seen) -> Option<Seen> {
        let mut rows = Rows::clone(&*seen.base.rows(&self.values));
        for part in &mut rows.parts {
            let Part::Value(value) = part else {
                continue;
            };
            let layer = self.ops.iter().rev().find(|op| op.output == *value)?;
            let Kind::LayerNorm { .. } = layer.kind else {
                return None;
            };
            let (kind, inputs) = (layer.kind.clone(), layer.inputs.clone());
            self.values.push(self.values[*value].clone());
            let output = self.values.len() - 1;
            *value = self.push(kind, inputs, output);
        }
        Some(Seen {
            base: rows.into_base(&self.values),
            view: seen.view.clone(),
        })
    }

    /// A factor or addend per channel that no layer before could take in: a depthwise convolution of one pixel.
    pub(super) fn scale(
        &mut self,
        id: NodeId,
        seen: &Seen,
        op: Binary,
        by: &[f32],
    ) -> Result<Seen, String> {
        let (scale, offset) = match op {
            Binary::Add => (vec![1.0; by.len()], by.to_vec()),
            _ => (by.to_vec(), vec![0.0; by.len()]),
        };
        let constant = |rows: &[f32]| {
            let mut rows = rows.to_vec();
            rows.chunks_mut(by.len())
                .for_each(|row| combine(row, op, by));
            rows
        };
        let op = RowOp {
            channels: by.len(),
            kind: &|rows| Kind::Depthwise {
                geometry: Geometry::per_row(rows),
                weights: scale.clone(),
                bias: offset.clone(),
                epilogue: Epilogue::default(),
            },
            constant: &constant,
            view: &View::clone,
        };
        self.row_wise(id, seen, &op)
    }

    /// A function of all of a value, of which only some channels are looked at here; others may be elsewhere.
    fn activated(&mut self, id: NodeId, value: ValueId, function: &Expr) -> ValueId {
        let kind = Kind::Activate(function.clone());
        let known = self
            .ops
            .iter()
            .find(|op| op.kind == kind && op.inputs == [value]);
        if let Some(op) = known {
            return op.output;
        }
        let size = (self.values[value].rows, self.values[value].channels);
        let output = self.add_value(id, size, None);
        self.push(kind, vec![value], output)
    }

    /// Multiplies or adds one number per channel into the layers that made `seen`, if each of them can take it; afterwards node `id`
    /// computes those values.
    pub(super) fn fold(&mut self, id: NodeId, seen: &Seen, op: Binary, by: &[f32]) -> Option<Seen> {
        if !seen.is_whole(&self.values) {
            return None;
        }
        let rows = seen.base.rows(&self.values);
        let able = |part: &Part| match part {
            Part::Constant(_) => true,
            Part::Value(v) => {
                let layer = self.ops.iter().rev().find(|o| o.output == *v);
                layer.is_some_and(|layer| takes_in(&layer.kind))
            }
        };
        if !rows.parts.iter().all(able) {
            return None;
        }
        let mut rows = Rows::clone(&rows);
        let alone = single(&seen.base).is_some();
        for part in 0..rows.parts.len() {
            match &rows.parts[part] {
                Part::Constant(data) => {
                    let mut data = data.to_vec();
                    data.chunks_mut(by.len())
                        .for_each(|row| combine(row, op, by));
                    rows.parts[part] = Part::Constant(data.into());
                }
                Part::Value(value) => {
                    let value = *value;
                    let layer = self.ops.iter_mut().rev().find(|o| o.output == value)?;
                    take_in(&mut layer.kind, op, by);
                    let list = rows.source_rows(part, 0, self.values[value].rows);
                    self.values[value].source = list.map(|list| Source {
                        node: id,
                        view: seen.view.clone(),
                        rows: (!alone).then_some(list),
                    });
                }
            }
        }
        Some(Seen {
            base: match seen.base {
                Base::Value(v) => Base::Value(v),
                Base::Rows(_) => rows.into_base(&self.values),
            },
            view: seen.view.clone(),
        })
    }
}

fn combine(row: &mut [f32], op: Binary, by: &[f32]) {
    for (x, c) in row.iter_mut().zip(by) {
        if op == Binary::Add { *x += c } else { *x *= c }
    }
}

/// Whether a factor and an addend per channel can become part of the layer.
fn takes_in(kind: &Kind) -> bool {
    match kind {
        Kind::Conv { epilogue, .. }
        | Kind::Linear { epilogue, .. }
        | Kind::Depthwise { epilogue, .. } => *epilogue == Epilogue::default(),
        Kind::LayerNorm { .. } | Kind::GroupNorm { .. } => true,
        _ => false,
    }
}

fn take_in(kind: &mut Kind, op: Binary, by: &[f32]) {
    match kind {
        Kind::Conv { weights, bias, .. } | Kind::Linear { weights, bias, .. } => {
            if op == Binary::Mul {
                let depth = weights.len() / by.len().max(1);
                weights
                    .chunks_mut(depth.max(1))
                    .zip(by)
                    .for_each(|(row, c)| row.iter_mut().for_each(|w| *w *= c));
            }
            combine(bias, op, by);
        }
        Kind::Depthwise { weights, bias, .. } => {
            if op == Binary::Mul {
                weights
                    .chunks_mut(by.len())
                    .for_each(|tap| combine(tap, op, by));
            }
            combine(bias, op, by);
        }
        Kind::LayerNorm { gamma, beta, .. } | Kind::GroupNorm { gamma, beta, .. } => {
            if op == Binary::Mul {
                combine(gamma, op, by);
            }
            combine(beta, op, by);
        }
        _ => {}
    }
}

/// True when `view` shows whole rows, whatever the order of its dimensions.
pub(super) fn shows_rows(view: &View, channels: usize) -> bool {
    let inside: Vec<_> = view
        .dims
        .iter()
        .flat_map(|d| super::seen::split(d, channels).1)
        .collect();
    let inside = View::new(0, vec![inside]).cover(&[0]);
    inside == channel_axis(channels)
}
