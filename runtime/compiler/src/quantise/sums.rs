//! Element-wise sums and products of values: also a value in another type, and an activation function on its own.

use vitlet_kernels::{Add, Addend, Factor, Gate, Mul, Output, Term};
use vitlet_plan::{DType, OpKind};

use super::emit::{Writer, element, normal, operands, output};
use super::grid::{Grid, clip_bounds};
use crate::error::CompileError;
use crate::ir::{Op, ValueId};
use crate::lower::expr::Expr;

/// The smallest factor of the contract.
const SMALLEST: f64 = 7.888_609_052_210_118e-31;

/// One operand of a sum: factors per channel, and what its zero point amounts to.
struct Scaled {
    grid: Grid,
    scale: Vec<f32>,
    /// Taken off the sum.
    zero: Vec<f64>,
}

impl Scaled {
    /// `factor` times the numbers of `grid`, on the grid of the sums.
    fn new(grid: &Grid, factor: f64, sums: &Grid, channels: usize) -> Scaled {
        let ratio = |c: usize| factor * grid.scale(c) / sums.scale(c);
        Scaled {
            scale: (0..channels).map(|c| tiny_is_zero(ratio(c))).collect(),
            zero: (0..channels).map(|c| grid.zero(c) * ratio(c)).collect(),
            grid: grid.clone(),
        }
    }

    fn term(&self) -> Term<'_> {
        Term {
            element: element(&self.grid),
            scale: &self.scale,
        }
    }
}

/// The contract's factors are 0 or at least 2⁻¹⁰⁰.
fn tiny_is_zero(x: f64) -> f32 {
    if x.abs() < SMALLEST { 0.0 } else { normal(x) }
}

impl Writer<'_> {
    pub(super) fn add(&mut self, op: &Op, factors: [f64; 2]) -> Result<(), CompileError> {
        let (sums, table) = self.sums(op)?;
        let term = |index: usize| self.scaled(op.inputs[index], factors[index], &sums);
        let (a, b) = (term(0), term(1));
        let form = output(&sums, table.as_ref());
        self.push_add(op, &a, Addend::Tensor(b.term()), &[&a, &b], form)
    }

    /// Constants have 16 bits of their own in each channel.
    pub(super) fn add_constant(&mut self, op: &Op, constant: &[f32]) -> Result<(), CompileError> {
        let (sums, table) = self.sums(op)?;
        let channels = self.graph.values[op.output].channels.max(1);
        let a = self.scaled(op.inputs[0], 1.0, &sums);
        let mut top = vec![0f32; channels];
        for row in constant.chunks(channels) {
            top.iter_mut()
                .zip(row)
                .for_each(|(t, x)| *t = t.max(x.abs()));
        }
        let step = |c: usize| f64::from(top[c]).max(1e-20) / 32767.0;
        let values: Vec<i16> = constant
            .iter()
            .enumerate()
            .map(|(i, x)| (f64::from(*x) / step(i % channels)).round_ties_even() as i16)
            .collect();
        let scale: Vec<f32> = (0..channels)
            .map(|c| tiny_is_zero(step(c) / sums.scale(c)))
            .collect();
        let b = Addend::Constant {
            values: &values,
            scale: &scale,
        };
        let form = output(&sums, table.as_ref());
        self.push_add(op, &a, b, &[&a], form)
    }

    /// The same numbers on another grid: a sum of one term.
    pub(super) fn convert(&mut self, op: &Op) -> Result<(), CompileError> {
        let to = self.grids[&op.output].clone();
        let a = self.scaled(op.inputs[0], 1.0, &to);
        self.push_add(op, &a, Addend::None, &[&a], output(&to, None))
    }

    /// An activation function on its own: a sum of one term, and the table.
    pub(super) fn activate(&mut self, op: &Op, function: &Expr) -> Result<(), CompileError> {
        let (from, to) = (&self.grids[&op.inputs[0]], &self.grids[&op.output]);
        // (A function that clips has no planes: its result would be the sums' own.)
        if clip_bounds(function).is_some_and(|bounds| to.clips(bounds)) {
            return self.convert(op);
        }
        // s8 integers are the table's index as they are; others are rounded to the grid that is best for them.
        if from.dtype == DType::S8 && from.is_uniform() {
            let same = Grid::plain();
            let table = self.table(op, function, from)?;
            let a = Scaled::new(&same, 1.0, &same, self.graph.values[op.output].channels);
            return self.push_add(op, &a, Addend::None, &[&a], output(&same, Some(&table)));
        }
        let index = from.narrow();
        let table = self.table(op, function, &index)?;
        let a = self.scaled(op.inputs[0], 1.0, &index);
        self.push_add(op, &a, Addend::None, &[&a], output(&index, Some(&table)))
    }

    pub(super) fn mul(&mut self, op: &Op, column: usize, rows: &[u32]) -> Result<(), CompileError> {
        let (sums, table) = self.sums(op)?;
        let [a, b] = [0, 1].map(|index| self.grids[&op.inputs[index]].clone());
        if [&a, &b].iter().any(|g| !g.has_one_zero()) {
            let reason =
                "a product needs one zero point for all channels, but those of the image differ";
            return Err(self.refuse(op, reason.into()));
        }
        let (value, gate) = (
            &self.graph.values[op.output],
            &self.graph.values[op.inputs[1]],
        );
        let scale: Vec<f32> = (0..value.channels)
            .map(|c| (a.scale(c) * b.scale(column + c) / sums.scale(c)).max(SMALLEST) as f32)
            .collect();
        let factor = Factor {
            element: element(&a),
            zero_point: a.zero_point(),
        };
        let in_step = rows.iter().enumerate().all(|(i, r)| i == *r as usize);
        let gate = Gate {
            element: element(&b),
            zero_point: b.zero_point(),
            rows: gate.rows,
            stride: gate.channels,
            offset: column,
            table: (gate.rows != 1 && !(in_step && gate.rows == rows.len())).then_some(rows),
        };
        let form = output(&sums, table.as_ref());
        let kind = Mul::new(value.rows, value.channels, factor, gate, &scale, form);
        self.push(op, operands(op), kind.map(OpKind::Mul))
    }

    fn scaled(&self, value: ValueId, factor: f64, sums: &Grid) -> Scaled {
        let channels = self.graph.values[value].channels;
        Scaled::new(&self.grids[&value], factor, sums, channels)
    }

    fn push_add(
        &mut self,
        op: &Op,
        a: &Scaled,
        b: Addend<'_>,
        terms: &[&Scaled],
        form: Output<'_>,
    ) -> Result<(), CompileError> {
        let value = &self.graph.values[op.output];
        let zeros = |c: usize| -> f64 { terms.iter().map(|t| t.zero[c]).sum() };
        let bias: Vec<f32> = (0..value.channels)
            .map(|c| tiny_is_zero(-zeros(c)))
            .collect();
        let kind = Add::new(value.rows, value.channels, a.term(), b, &bias, form);
        self.push(op, operands(op), kind.map(OpKind::Add))
    }
}
