//! Attention: its operands' scales, constants, tables of rows, and its bias.

use vitlet_kernels::{Attention, AttentionQuantisation, AttentionShape, Bias, Operand, View};
use vitlet_plan::OpKind;

use super::emit::Writer;
use super::grid::{Grid, operand_grid};
use crate::error::CompileError;
use crate::ir::{self, Kind, Op};

/// Logits are counted in units of 2⁻¹⁰ octave: nats times log2(e) times 1024.
const UNITS: f64 = std::f64::consts::LOG2_E * 1024.0;

/// An operand in the kernels' terms, before the arrays are borrowed.
struct Rows<'o> {
    grid: Grid,
    view: View,
    tensor_rows: usize,
    rows: Option<&'o [u32]>,
    constants: Vec<i8>,
}

impl Rows<'_> {
    fn operand(&self) -> Operand<'_> {
        Operand {
            view: self.view,
            rows: self.rows,
            tensor_rows: self.tensor_rows,
            constants: &self.constants,
        }
    }

    /// The scale of each head.
    fn scales(&self, heads: usize) -> impl Iterator<Item = f64> + '_ {
        let first = |head: usize| self.view.offset + head * self.view.head_stride;
        (0..heads).map(move |head| self.grid.scale(first(head)))
    }
}

impl Writer<'_> {
    pub(super) fn attention(&mut self, op: &Op) -> Result<(), CompileError> {
        let Kind::Attention {
            shape,
            q,
            k,
            v,
            out,
            scale,
            bias,
            mask,
        } = &op.kind
        else {
            return Ok(());
        };
        let inputs = [q.value, k.value, v.value];
        let [q, k, v] = [self.rows(op, q)?, self.rows(op, k)?, self.rows(op, v)?];
        let output = &self.grids[&op.output];
        let logit_scale: Vec<f32> = q
            .scales(shape.heads)
            .zip(k.scales(shape.heads))
            .map(|(q, k)| (q * k * scale * UNITS) as f32)
            .collect();
        let out_scale: Vec<f32> = v
            .scales(shape.heads)
            .enumerate()
            .map(|(head, v)| (v / output.scale(head * shape.head_dim)) as f32)
            .collect();
        let quantisation = AttentionQuantisation {
            logit_scale: &logit_scale,
            out_scale: &out_scale,
            zero_point: output.zero_point(),
            min: output.min,
        };
        let to = Operand {
            rows: table(out),
            ..Operand::plain(out_view(shape), self.graph.values[op.output].rows)
        };
        let bias = bias.as_ref().map(|b| self.bias(op, b)).transpose()?;
        let bias = bias.as_ref().map(|(table, window)| Bias {
            table,
            window: *window,
        });
        let kind = Attention::new(
            kernel_shape(shape),
            [q.operand(), k.operand(), v.operand(), to],
            quantisation,
            bias,
            mask.as_deref(),
        );
        self.push(op, inputs, kind.map(OpKind::Attention))
    }

    fn rows<'o>(&self, op: &Op, operand: &'o ir::Operand) -> Result<Rows<'o>, CompileError> {
        let grid = operand_grid(&self.grids, op, operand).ok_or_else(|| {
            self.refuse(
                op,
                "the heads of an operand reach past its last column".into(),
            )
        })?;
        let rows = operand.value.map_or(0, |v| {
            let value = &self.graph.values[v];
            value.rows * value.channels / operand.channels.max(1)
        });
        let constants = operand.constants.iter().enumerate().map(|(index, x)| {
            let q = f64::from(*x) / grid.scale(index % operand.channels.max(1));
            q.round_ties_even().clamp(-127.0, 127.0) as i8
        });
        Ok(Rows {
            constants: constants.collect(),
            view: View {
                offset: operand.column,
                row_stride: operand.channels,
                head_stride: operand.head_stride,
            },
            tensor_rows: rows,
            rows: table(&operand.rows),
            grid,
        })
    }

    /// The bias in units of the logits.
    fn bias(&self, op: &Op, bias: &ir::Bias) -> Result<(Vec<i32>, Option<[u32; 2]>), CompileError> {
        const LARGEST: f64 = 16_777_216.0;
        let units = |b: &f32| (f64::from(*b) * UNITS).round_ties_even();
        let fits = |b: &f32| units(b).abs() <= LARGEST;
        if let Some(b) = bias.table.iter().find(|b| !fits(b)) {
            let reason = format!(
                "a position bias of {b} is too large; at most 11000 in magnitude can be represented"
            );
            return Err(self.refuse(op, reason));
        }
        let table = bias.table.iter().map(|b| units(b) as i32).collect();
        Ok((table, bias.window.map(|sides| sides.map(|s| s as u32))))
    }
}

/// Row numbers; none when they only count.
fn table(rows: &[u32]) -> Option<&[u32]> {
    let counts = rows.iter().enumerate().all(|(i, r)| i == *r as usize);
    (!counts).then_some(rows)
}

fn out_view(shape: &ir::AttentionShape) -> View {
    View {
        offset: 0,
        row_stride: shape.heads * shape.head_dim,
        head_stride: shape.head_dim,
    }
}

fn kernel_shape(shape: &ir::AttentionShape) -> AttentionShape {
    AttentionShape {
        heads: shape.heads,
        head_dim: shape.head_dim,
        groups: shape.groups,
        slots: shape.slots,
        queries: shape.queries,
        keys: shape.keys,
    }
}
