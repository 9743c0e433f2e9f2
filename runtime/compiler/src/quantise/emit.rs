//! Writes the plan: tensors at their places, ops with their integers.

use std::collections::BTreeMap;

use vitlet_kernels::{
    Attention, AttentionQuantisation, Conv, ConvShape, Depthwise, LayerNorm, Linear, NormOutput,
    Output, ParamError, PoolLinear, Requantise, View,
};
use vitlet_plan::{
    AlignedBytes, DType, Metadata, Op as PlanOp, OpKind, PlanBuilder, Provenance, Tensor, TensorId,
};

use super::grid::{Grid, grids, head_start};
use super::weights::{self, Integers, Matrix};
use super::{Types, check_types};
use crate::error::CompileError;
use crate::ir::{Activation, AttentionShape, Geometry, Graph, Kind, Op, Operand, ValueId};
use crate::lower::expr::Expr;
use crate::memory;
use crate::model::Options;
use crate::ranges::Ranges;

/// Compiles a lowered model to the bytes of a plan.
pub(crate) fn compile(
    graph: &Graph,
    model_sha256: [u8; 32],
    ranges: &Ranges,
    options: &Options<'_>,
) -> Result<AlignedBytes, CompileError> {
    let n = &options.normalisation;
    if ranges.mean.map(f32::to_bits) != n.mean.map(f32::to_bits)
        || ranges.std.map(f32::to_bits) != n.std.map(f32::to_bits)
    {
        let (mean, std) = (ranges.mean, ranges.std);
        return Err(CompileError::Ranges(format!(
            "they were measured with --mean {mean:?} --std {std:?}"
        )));
    }
    let types = check_types(graph)?;
    let grids = grids(graph, &types, ranges, n)?;
    let mut writer = Writer {
        graph,
        grids,
        tensors: BTreeMap::new(),
        plan: PlanBuilder::new(),
    };
    writer.tensors(&types)?;
    for op in &graph.ops {
        writer.op(op)?;
    }
    let labels: Vec<&str> = options.labels.iter().map(String::as_str).collect();
    let metadata = Metadata {
        input: writer.tensors[&graph.input],
        output: writer.tensors[&graph.output],
        preprocess: options.preprocess,
        mean: n.mean,
        std: n.std,
        labels: &labels,
        provenance: Provenance {
            model_name: options.model_name,
            model_sha256,
            ranges_sha256: ranges.sha256(),
            calibration_images: ranges.images,
            compiler: concat!("vitlet ", env!("CARGO_PKG_VERSION")),
        },
    };
    writer
        .plan
        .finish(&metadata)
        .map_err(|e| CompileError::Plan(e.to_string()))
}

struct Writer<'g> {
    graph: &'g Graph,
    grids: BTreeMap<ValueId, Grid>,
    tensors: BTreeMap<ValueId, TensorId>,
    plan: PlanBuilder,
}

impl Writer<'_> {
    /// Tensor records, with offsets by the memory planner.
    fn tensors(&mut self, types: &Types) -> Result<(), CompileError> {
        let stored: Vec<ValueId> = [self.graph.input]
            .into_iter()
            .chain(self.graph.ops.iter().map(|op| op.output))
            .collect();
        let bytes = |v: &ValueId| {
            self.graph.values[*v].rows * self.graph.values[*v].channels * types[v].size()
        };
        let offsets = memory::plan(self.graph, &stored.iter().map(|v| (*v, bytes(v))).collect());
        for value in stored {
            let v = &self.graph.values[value];
            let grid = &self.grids[&value];
            let shape = if value == self.graph.input {
                [1, self.graph.image[0], self.graph.image[1], 3]
            } else {
                [1, 1, v.rows, v.channels]
            };
            let tensor = Tensor {
                name: &v.name,
                dtype: types[&value],
                shape: [
                    small(shape[0])?,
                    small(shape[1])?,
                    small(shape[2])?,
                    small(shape[3])?,
                ],
                offset: small(offsets[&value])?,
                scale: grid.record_scale(),
                zero_point: i32::from(grid.zero_point()),
            };
            let id = self
                .plan
                .add_tensor(&tensor)
                .map_err(|e| CompileError::Plan(e.to_string()))?;
            self.tensors.insert(value, id);
        }
        Ok(())
    }

    fn op(&mut self, op: &Op) -> Result<(), CompileError> {
        match &op.kind {
            Kind::Conv {
                geometry,
                weights,
                bias,
                ..
            } => self.conv(op, geometry, weights, bias),
            Kind::Linear { weights, bias, .. } => self.linear(op, weights, bias),
            Kind::Depthwise {
                geometry,
                weights,
                bias,
                ..
            } => self.depthwise(op, geometry, weights, bias),
            Kind::LayerNorm {
                eps,
                gamma,
                beta,
                gather: None,
            } => self.layer_norm(op, *eps, gamma, beta),
            Kind::Attention {
                shape,
                q,
                k,
                v,
                scale,
                bias: None,
                mask: None,
                ..
            } if shape.groups == 1 && shape.slots == 1 => {
                self.attention(op, shape, [q, k, v], *scale)
            }
            Kind::PoolLinear { weights, bias } => self.pool_linear(op, weights, bias),
            Kind::Activate(function) => self.activate(op, function),
            // `check_types` has refused these.
            _ => Err(self.refuse(op, "it has no int8 form".into())),
        }
    }

    fn refuse(&self, op: &Op, reason: String) -> CompileError {
        CompileError::Quantise {
            what: format!("{} `{}`", op.kind_name(), self.name(op)),
            reason,
        }
    }

    fn name(&self, op: &Op) -> &str {
        &self.graph.values[op.output].name
    }

    /// Adds the op to the plan; `kind` is what the kernels' constructor said.
    fn push(
        &mut self,
        op: &Op,
        inputs: &[ValueId],
        kind: Result<OpKind<'_>, ParamError>,
    ) -> Result<(), CompileError> {
        let kind = kind.map_err(|e| self.refuse(op, e.to_string()))?;
        let id = |index: usize| inputs.get(index).map(|v| self.tensors[v]);
        let record = PlanOp {
            name: &self.graph.values[op.output].name,
            kind,
            inputs: [id(0), id(1), id(2)],
            output: self.tensors[&op.output],
        };
        self.plan
            .add_op(&record)
            .map_err(|e| CompileError::Plan(e.to_string()))
    }

    /// The grid of an op's sums, before an activation function if it has one.
    fn sums_grid(&self, op: &Op) -> &Grid {
        let before = op
            .epilogue()
            .and_then(|e| e.activation.as_ref())
            .map(|a| a.before);
        &self.grids[&before.unwrap_or(op.output)]
    }

    /// The table of an op's activation function, if it has one.
    fn table(&self, op: &Op) -> Result<Option<[i8; 256]>, CompileError> {
        let Some(Activation { function, before }) =
            op.epilogue().and_then(|e| e.activation.as_ref())
        else {
            return Ok(None);
        };
        self.table_of(op, function, *before).map(Some)
    }

    /// `function` from the integers of `before` to those of the op's result.
    fn table_of(
        &self,
        op: &Op,
        function: &Expr,
        before: ValueId,
    ) -> Result<[i8; 256], CompileError> {
        let (from, to) = (&self.grids[&before], &self.grids[&op.output]);
        if !from.is_uniform() || !to.is_uniform() {
            let reason = "an activation function needs one scale for all channels, but attention reads one per head";
            return Err(self.refuse(op, reason.into()));
        }
        Ok(std::array::from_fn(|index| {
            let q = f64::from(index as u8 as i8);
            to.quantise(function.eval((q - from.zero(0)) * from.scale(0)))
        }))
    }

    /// An activation function on its own: a depthwise convolution with a 1×1 window of weight 1, which passes every
    /// integer on to the table.
    fn activate(&mut self, op: &Op, function: &Expr) -> Result<(), CompileError> {
        let table = self.table_of(op, function, op.inputs[0])?;
        let value = &self.graph.values[op.output];
        let (rows, channels) = (value.rows, value.channels);
        let geometry = Geometry {
            input: [rows, 1],
            output: [rows, 1],
            kernel: [1, 1],
            stride: [1, 1],
            pad: [0; 4],
        };
        let shape = conv_shape(&geometry, channels, channels)?;
        let (ones, zeros) = (vec![1; channels], vec![0; channels]);
        let output = Output::S8 {
            zero_point: 0,
            min: -128,
            table: Some(&table),
        };
        let (bias, scale) = (vec![0; channels], vec![1.0; channels]);
        let kind = Requantise::new(&bias, &scale, output)
            .and_then(|r| Depthwise::new(shape, &ones, &zeros, r))
            .map(OpKind::Depthwise);
        self.push(op, &op.inputs, kind)
    }

    /// Integer weights of a layer that is a matrix product, over `pooled` summed input rows.
    fn matrix(
        &self,
        op: &Op,
        weights: &[f32],
        bias: &[f32],
        pooled: usize,
    ) -> Result<Integers, CompileError> {
        let matrix = Matrix {
            name: self.name(op),
            weights,
            bias,
            channels: self.graph.values[op.inputs[0]].channels,
            pooled,
        };
        weights::gemm(&matrix, &self.grids[&op.inputs[0]], self.sums_grid(op))
    }

    fn conv(
        &mut self,
        op: &Op,
        geometry: &Geometry,
        weights: &[f32],
        bias: &[f32],
    ) -> Result<(), CompileError> {
        let integers = self.matrix(op, weights, bias, 1)?;
        let table = self.table(op)?;
        let channels = self.graph.values[op.inputs[0]].channels;
        let pad = self.grids[&op.inputs[0]].pad(channels);
        let shape = conv_shape(geometry, channels, bias.len())?;
        let kind = integers
            .gemm(output(self.sums_grid(op), table.as_ref()))
            .and_then(|g| Conv::new(shape, &pad, g))
            .map(OpKind::Conv);
        self.push(op, &op.reads().collect::<Vec<_>>(), kind)
    }

    fn linear(&mut self, op: &Op, weights: &[f32], bias: &[f32]) -> Result<(), CompileError> {
        let integers = self.matrix(op, weights, bias, 1)?;
        let table = self.table(op)?;
        let rows = self.graph.values[op.output].rows;
        let kind = integers
            .gemm(output(self.sums_grid(op), table.as_ref()))
            .and_then(|g| Linear::new(rows, g))
            .map(OpKind::Linear);
        self.push(op, &op.reads().collect::<Vec<_>>(), kind)
    }

    fn pool_linear(&mut self, op: &Op, weights: &[f32], bias: &[f32]) -> Result<(), CompileError> {
        let rows = self.graph.values[op.inputs[0]].rows;
        let integers = self.matrix(op, weights, bias, rows)?;
        let kind = integers
            .gemm(Output::S32)
            .and_then(|g| PoolLinear::new(rows, g))
            .map(OpKind::PoolLinear);
        self.push(op, &op.inputs, kind)
    }

    fn depthwise(
        &mut self,
        op: &Op,
        geometry: &Geometry,
        weights: &[f32],
        bias: &[f32],
    ) -> Result<(), CompileError> {
        let input = &self.grids[&op.inputs[0]];
        let integers =
            weights::depthwise(self.name(op), (weights, bias), input, self.sums_grid(op))?;
        let table = self.table(op)?;
        let pad = input.pad(bias.len());
        let shape = conv_shape(geometry, bias.len(), bias.len())?;
        let output = output(self.sums_grid(op), table.as_ref());
        let kind = integers
            .requantise(output)
            .and_then(|r| Depthwise::new(shape, &integers.weights, &pad, r))
            .map(OpKind::Depthwise);
        self.push(op, &op.reads().collect::<Vec<_>>(), kind)
    }

    fn layer_norm(
        &mut self,
        op: &Op,
        eps: f64,
        gamma: &[f32],
        beta: &[f32],
    ) -> Result<(), CompileError> {
        let (input, output) = (&self.grids[&op.inputs[0]], &self.grids[&op.output]);
        let channels = gamma.len();
        let step = input.scale(0);
        let eps = (eps * (channels as f64 / step).powi(2))
            .round_ties_even()
            .clamp(1.0, (1u64 << 62) as f64) as u64;
        let scaled = |x: &[f32], zero: bool| -> Vec<f32> {
            let offset = |c: usize| if zero { output.zero(c) } else { 0.0 };
            x.iter()
                .enumerate()
                .map(|(c, x)| normal(f64::from(*x) / output.scale(c) + offset(c)))
                .collect()
        };
        let (gamma, beta) = (scaled(gamma, false), scaled(beta, true));
        let rows = self.graph.values[op.output].rows;
        let to = if output.dtype == DType::S8 {
            NormOutput::S8
        } else {
            NormOutput::S16
        };
        let kind = LayerNorm::new(rows, channels, eps, &gamma, &beta, to).map(OpKind::LayerNorm);
        self.push(op, &op.inputs, kind)
    }

    fn attention(
        &mut self,
        op: &Op,
        shape: &AttentionShape,
        [q, k, v]: [&Operand; 3],
        scale: f64,
    ) -> Result<(), CompileError> {
        let output = &self.grids[&op.output];
        let head_scale = |operand: &Operand, head: usize| {
            let value = operand.value.unwrap_or_default();
            let channels = self.graph.values[value].channels;
            self.grids[&value].scale(head_start(operand, head, channels))
        };
        // Logits are counted in units of 2⁻¹⁰ octave: nats times log2(e) times 1024.
        let units = scale * std::f64::consts::LOG2_E * 1024.0;
        let logit_scale: Vec<f32> = (0..shape.heads)
            .map(|h| (head_scale(q, h) * head_scale(k, h) * units) as f32)
            .collect();
        let out_scale: Vec<f32> = (0..shape.heads)
            .map(|h| (head_scale(v, h) / output.scale(0)) as f32)
            .collect();
        let quantisation = AttentionQuantisation {
            logit_scale: &logit_scale,
            out_scale: &out_scale,
            zero_point: output.zero_point(),
            min: output.min,
        };
        let view = |o: &Operand| View {
            offset: o.column,
            row_stride: o.channels,
            head_stride: o.head_stride,
        };
        let to = View {
            offset: 0,
            row_stride: shape.heads * shape.head_dim,
            head_stride: shape.head_dim,
        };
        let views = [view(q), view(k), view(v), to];
        let kind = Attention::new(
            shape.heads,
            shape.head_dim,
            shape.queries,
            shape.keys,
            views,
            quantisation,
        )
        .map(OpKind::Attention);
        self.push(op, &op.inputs, kind)
    }
}

fn output<'t>(grid: &Grid, table: Option<&'t [i8; 256]>) -> Output<'t> {
    match grid.dtype {
        DType::S8 => Output::S8 {
            zero_point: grid.zero_point(),
            min: grid.min,
            table,
        },
        DType::S16 => Output::S16,
        DType::S32 => Output::S32,
    }
}

fn conv_shape(g: &Geometry, in_c: usize, out_c: usize) -> Result<ConvShape, CompileError> {
    let pair = |p: [usize; 2]| Ok::<_, CompileError>([small(p[0])?, small(p[1])?]);
    let [in_h, in_w] = pair(g.input)?;
    let [out_h, out_w] = pair(g.output)?;
    let ([top, left], [bottom, right]) = (pair([g.pad[0], g.pad[1]])?, pair([g.pad[2], g.pad[3]])?);
    Ok(ConvShape {
        in_h,
        in_w,
        in_c: small(in_c)?,
        out_h,
        out_w,
        out_c: small(out_c)?,
        kernel: pair(g.kernel)?,
        stride: pair(g.stride)?,
        pad: [top, left, bottom, right],
    })
}

fn small(x: usize) -> Result<u32, CompileError> {
    u32::try_from(x).map_err(|_| CompileError::Plan(format!("a size of {x} does not fit 32 bits")))
}

/// The contract has no subnormal numbers.
fn normal(x: f64) -> f32 {
    let x = x as f32;
    if x.is_subnormal() { 0.0 } else { x }
}
