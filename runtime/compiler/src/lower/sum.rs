//! Sums of two activations: residual adds, and sums of tensors put together from parts.

use super::expr::Expr;
use super::seen::{Part, Rows, Seen};
use super::state::Known;
use super::{Lowering, Outcome, as_map};
use crate::frontend::{Binary, NodeId, SourceNode};
use crate::ir::{Epilogue, Kind, Source, ValueId};

impl Lowering<'_> {
    /// An operand of a sum: an activation times a number.
    fn term(&mut self, node: &SourceNode, index: usize) -> Result<(Seen, f64), String> {
        if let Some((seen, function)) = as_map(self.input(node, index)?)
            && let Some(factor) = function.factor()
        {
            return Ok((seen, factor));
        }
        Ok((self.activation(node, index)?, 1.0))
    }

    pub(super) fn sum_of(&mut self, id: NodeId, node: &SourceNode, sign: f64) -> Outcome {
        let (a, fa) = self.term(node, 0)?;
        let (b, fb) = self.term(node, 1)?;
        let factors = [fa, sign * fb];
        if let (Some(va), Some(vb)) = (a.as_value(), b.as_value())
            && a.view == b.view
            && a.is_whole(&self.values)
            && b.is_whole(&self.values)
        {
            let (rows, channels) = (self.values[va].rows, self.values[va].channels);
            return Ok(self.emit(id, add(factors), vec![va, vb], (rows, channels), a.view));
        }
        self.sum_by_parts(id, &a, &b, factors)
    }

    /// A sum of tensors that are put together from parts: one sum for each run of rows that meet.
    fn sum_by_parts(&mut self, id: NodeId, a: &Seen, b: &Seen, factors: [f64; 2]) -> Outcome {
        let refuse =
            || "a sum needs two tensors of one shape whose rows follow each other".to_string();
        let channels = a.base.channels(&self.values);
        let (a, b) = match (a.in_order(&self.values), b.in_order(&self.values)) {
            (Some(a), Some(b)) => (a, b),
            _ => return Err(refuse()),
        };
        if a.view != b.view
            || channels != b.base.channels(&self.values)
            || !a.view.covers(a.base.len(&self.values) * channels)
            || a.base.len(&self.values) != b.base.len(&self.values)
        {
            return Err(refuse());
        }
        let (rows_a, rows_b) = (a.base.rows(&self.values), b.base.rows(&self.values));
        let meetings = meetings(&rows_a, &rows_b).ok_or_else(refuse)?;
        let mut parts = vec![];
        let mut index = vec![(0, 0); rows_a.index.len()];
        for (number, m) in meetings.iter().enumerate() {
            for (place, row) in m.places.iter().zip(0..) {
                index[*place] = (number as u32, row);
            }
            let mut list = vec![Source::OTHER; index.len()];
            m.places.iter().zip(0..).for_each(|(p, row)| list[*p] = row);
            let source = Source {
                node: id,
                view: a.view.clone(),
                rows: Some(list.into()),
            };
            let pieces = [
                self.run_of(
                    &rows_a.parts[m.parts.0],
                    m.first.0,
                    m.places.len(),
                    channels,
                ),
                self.run_of(
                    &rows_b.parts[m.parts.1],
                    m.first.1,
                    m.places.len(),
                    channels,
                ),
            ];
            parts.push(self.sum_of_runs(id, pieces, factors, source));
        }
        let rows = Rows {
            channels,
            parts,
            index,
        };
        Ok(Known::View {
            seen: Seen {
                base: rows.into_base(&self.values),
                view: a.view,
            },
            sole: true,
        })
    }

    /// Rows `first..first + len` of a part.
    fn run_of(&mut self, part: &Part, first: usize, len: usize, channels: usize) -> Part {
        match part {
            Part::Constant(data) => {
                Part::Constant(data[first * channels..][..len * channels].into())
            }
            Part::Value(v) if first == 0 && len == self.values[*v].rows => Part::Value(*v),
            Part::Value(v) => Part::Value(self.slice(*v, first, len)),
        }
    }

    fn sum_of_runs(
        &mut self,
        id: NodeId,
        pieces: [Part; 2],
        [fa, fb]: [f64; 2],
        source: Source,
    ) -> Part {
        let times = |data: &[f32], f: f64| -> Vec<f32> {
            data.iter().map(|x| (f64::from(*x) * f) as f32).collect()
        };
        let (kind, inputs) = match pieces {
            [Part::Constant(a), Part::Constant(b)] => {
                let (a, b) = (times(&a, fa), times(&b, fb));
                return Part::Constant(a.iter().zip(b).map(|(a, b)| a + b).collect());
            }
            [Part::Value(a), Part::Value(b)] => (add([fa, fb]), vec![a, b]),
            [Part::Value(v), Part::Constant(c)] | [Part::Constant(c), Part::Value(v)]
                if fa == 1.0 && fb == 1.0 =>
            {
                (Kind::AddConstant(c), vec![v])
            }
            [Part::Value(v), Part::Constant(c)] => {
                return self.scaled_sum(id, (v, fa), times(&c, fb), source);
            }
            [Part::Constant(c), Part::Value(v)] => {
                return self.scaled_sum(id, (v, fb), times(&c, fa), source);
            }
        };
        let size = (self.values[inputs[0]].rows, self.values[inputs[0]].channels);
        let output = self.add_value(id, size, Some(source));
        Part::Value(self.push(kind, inputs, output))
    }

    /// f·v + c.
    fn scaled_sum(
        &mut self,
        id: NodeId,
        (value, factor): (ValueId, f64),
        constant: Vec<f32>,
        source: Source,
    ) -> Part {
        let size = (self.values[value].rows, self.values[value].channels);
        let scaled = self.add_value(id, size, None);
        let function = Expr::Const(factor).binary(Binary::Mul, Expr::X);
        self.push(Kind::Activate(function), vec![value], scaled);
        let output = self.add_value(id, size, Some(source));
        Part::Value(self.push(Kind::AddConstant(constant.into()), vec![scaled], output))
    }
}

/// Rows of two matrices that meet in a sum, one part of each.
struct Meeting {
    parts: (usize, usize),
    /// First rows in the parts; the others follow.
    first: (usize, usize),
    /// The rows' places in the tensor, in the order of the parts' rows.
    places: Vec<usize>,
}

/// Sorts rows that meet by the parts they are of; `None` unless they follow each other in both parts.
fn meetings(a: &Rows, b: &Rows) -> Option<Vec<Meeting>> {
    let mut by_parts = std::collections::BTreeMap::<_, Vec<_>>::new();
    for (place, ((pa, ra), (pb, rb))) in a.index.iter().zip(&b.index).enumerate() {
        let rows = by_parts.entry((*pa as usize, *pb as usize)).or_default();
        rows.push((*ra as usize, *rb as usize, place));
    }
    let mut out = vec![];
    for (parts, mut rows) in by_parts {
        rows.sort_unstable();
        let (first_a, first_b, _) = rows[0];
        let in_step = rows
            .iter()
            .enumerate()
            .all(|(i, (ra, rb, _))| (*ra, *rb) == (first_a + i, first_b + i));
        if !in_step {
            return None;
        }
        out.push(Meeting {
            parts,
            first: (first_a, first_b),
            places: rows.iter().map(|(_, _, place)| *place).collect(),
        });
    }
    Some(out)
}

fn add(factors: [f64; 2]) -> Kind {
    Kind::Add {
        factors,
        epilogue: Epilogue::default(),
    }
}
