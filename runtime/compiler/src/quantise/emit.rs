//! Writes the plan: tensors at their places, ops with their integers.

use std::collections::BTreeMap;

use vitlet_kernels::{
    Conv, ConvShape, Depthwise, Gather, GroupNorm, InType, LayerNorm, Linear, MaxPool, NormOutput,
    Output, ParamError, PoolLinear,
};
use vitlet_plan::{
    AlignedBytes, DType, Metadata, Op as PlanOp, OpKind, PlanBuilder, Provenance, Tensor, TensorId,
};

use super::grid::{Grid, clip_bounds, grids, matched};
use super::planes::Planes;
use super::types::{Types, check_types};
use super::weights::{self, Integers, Matrix, Steps};
use crate::calibrate::Method;
use crate::error::CompileError;
use crate::ir::{self, Activation, Geometry, Graph, Kind, Op, ValueId};
use crate::lower::expr::Expr;
use crate::memory;
use crate::memory::parts::{Block, Parts, is_structural};
use crate::memory::strips::Schedule;
use crate::model::Options;
use crate::ranges::{Ranges, ValueRange};

/// Compiles a lowered model to the bytes of a plan.
pub(crate) fn compile(
    graph: &Graph,
    model_sha256: [u8; 32],
    ranges: &Ranges,
    options: &Options<'_>,
) -> Result<AlignedBytes, CompileError> {
    let n = &options.normalisation;
    ranges.check_preprocessing(n, &options.preprocess)?;
    let mut seen = matched(graph, ranges)?;
    let planes = Planes::new(graph, &seen)?;
    let graph = &*planes.graph;
    seen.extend(planes.ranges());
    let types = check_types(graph)?;
    let parts = Parts::new(graph)?;
    let mut grids = grids(graph, &types, &parts, &seen, n);
    planes.add_grids(&seen, &mut grids);
    let mut writer = Writer {
        graph,
        planes: &planes,
        parts: &parts,
        types: &types,
        grids,
        seen,
        steps: if ranges.method() == Some(Method::Naive) {
            Steps::PerTensor
        } else {
            Steps::PerChannel
        },
        tensors: BTreeMap::new(),
        plan: PlanBuilder::new(),
    };
    let schedule = writer.tensors()?;
    for op in &graph.ops {
        writer.op(op)?;
    }
    writer.strips(&schedule)?;
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

pub(super) struct Writer<'g> {
    pub(super) graph: &'g Graph,
    pub(super) planes: &'g Planes<'g>,
    parts: &'g Parts,
    types: &'g Types,
    pub(super) grids: BTreeMap<ValueId, Grid>,
    seen: BTreeMap<ValueId, &'g ValueRange>,
    steps: Steps,
    tensors: BTreeMap<ValueId, TensorId>,
    plan: PlanBuilder,
}

impl Writer<'_> {
    /// Tensor records, with offsets by the memory planner: one for each block of values, and one for each part of it.
    fn tensors(&mut self) -> Result<Schedule, CompileError> {
        let row_bytes = |v: ValueId| self.graph.values[v].channels * self.types[&v].size();
        let schedule = Schedule::new(self.graph, self.parts, &row_bytes);
        let offsets = memory::plan(self.graph, self.parts, &schedule, &row_bytes)?;
        for block in &self.parts.blocks {
            let whole = 0..block.rows;
            let Some((value, _)) = block.members.iter().find(|(_, rows)| *rows == whole) else {
                continue;
            };
            let held = schedule.held.get(value).copied().unwrap_or(0);
            self.block(block, *value, offsets[value], held)?;
        }
        Ok(schedule)
    }

    /// The groups of ops that run strip by strip.
    fn strips(&mut self, schedule: &Schedule) -> Result<(), CompileError> {
        let structural = |op: &&Op| is_structural(op);
        for group in &schedule.groups {
            let Some(first) = group.ops.first() else {
                continue;
            };
            let first = first - self.graph.ops[..*first].iter().filter(structural).count();
            self.plan
                .add_strips(first..first + group.ops.len(), &group.ends)
                .map_err(|e| CompileError::Plan(e.to_string()))?;
        }
        Ok(())
    }

    /// The records of one block, named by `value`, which is all of it; `held` as in the tensor's record.
    fn block(
        &mut self,
        block: &Block,
        value: ValueId,
        offset: usize,
        held: usize,
    ) -> Result<(), CompileError> {
        let (v, grid) = (&self.graph.values[value], &self.grids[&value]);
        let channels = small(v.channels)?;
        let [height, width] = self.graph.image;
        let scales = grid.record_scales();
        let tensor = Tensor {
            name: &v.name,
            dtype: self.types[&value],
            shape: if value == self.graph.input {
                [1, small(height)?, small(width)?, channels]
            } else {
                [1, 1, small(v.rows)?, channels]
            },
            offset: small(offset)?,
            scale: grid.record_scale(),
            scales: &scales,
            zero_point: i32::from(grid.zero_point()),
            held: small(held)?,
        };
        let mut parts = vec![];
        for piece in block.pieces.iter().filter(|p| p.len() < block.rows) {
            let member = block.members.iter().find(|(_, rows)| rows == piece);
            let name = member.map_or(&v.name, |(v, _)| &self.graph.values[*v].name);
            parts.push((name.as_str(), [1, 1, small(piece.len())?, channels]));
        }
        let (whole, ids) = self
            .plan
            .add_tensor_with_parts(&tensor, &parts)
            .map_err(|e| CompileError::Plan(e.to_string()))?;
        for (value, rows) in &block.members {
            let piece = block.pieces.iter().position(|p| p == rows);
            let id = piece.and_then(|p| ids.get(p)).copied();
            self.tensors.insert(*value, id.unwrap_or(whole));
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
                gather,
            } => self.layer_norm(op, *eps, (gamma, beta), gather.as_ref()),
            Kind::Attention { .. } => self.attention(op),
            Kind::PoolLinear { weights, bias } => self.pool_linear(op, weights, bias),
            Kind::MeanPool => self.mean_pool(op),
            Kind::MaxPool(geometry) => self.max_pool(op, geometry),
            Kind::Activate(function) => self.activate(op, function),
            Kind::Add { factors, .. } => self.add(op, *factors),
            Kind::AddConstant(constant) => self.add_constant(op, constant),
            Kind::Convert => self.convert(op),
            Kind::Mul { column, rows, .. } => self.mul(op, *column, rows),
            Kind::Slice { .. } | Kind::Concat => Ok(()),
            Kind::GroupNorm { eps, gamma, beta } => self.group_norm(op, *eps, (gamma, beta)),
        }
    }

    pub(super) fn refuse(&self, op: &Op, reason: String) -> CompileError {
        CompileError::Quantise {
            what: format!("{} `{}`", op.kind_name(), self.name(op)),
            reason,
        }
    }

    fn name(&self, op: &Op) -> &str {
        &self.graph.values[op.output].name
    }

    /// Adds the op to the plan; `kind` is what the kernels' constructor said.
    pub(super) fn push(
        &mut self,
        op: &Op,
        inputs: [Option<ValueId>; 3],
        kind: Result<OpKind<'_>, ParamError>,
    ) -> Result<(), CompileError> {
        let kind = kind.map_err(|e| self.refuse(op, e.to_string()))?;
        let record = PlanOp {
            name: &self.graph.values[op.output].name,
            kind,
            inputs: inputs.map(|v| v.and_then(|v| self.tensors.get(&v).copied())),
            output: self.tensors[&op.output],
        };
        self.plan
            .add_op(&record)
            .map_err(|e| CompileError::Plan(e.to_string()))
    }

    /// The grid of an op's sums and the table of its activation function, if it has one.
    pub(super) fn sums(&self, op: &Op) -> Result<(Grid, Option<[i8; 256]>), CompileError> {
        let result = &self.grids[&op.output];
        let activation = op.epilogue().and_then(|e| e.activation.as_ref());
        let Some(Activation { function, before }) = activation else {
            return Ok((result.clone(), None));
        };
        // The sums saturate where the function clips: no table, and none of the sums' range is lost to what it clips.
        if clip_bounds(function).is_some_and(|bounds| result.clips(bounds)) {
            return Ok((result.clone(), None));
        }
        let sums = &self.grids[before];
        Ok((sums.clone(), Some(self.table(op, function, sums)?)))
    }

    /// `function` from the integers of a grid to those of the op's result.
    pub(super) fn table(
        &self,
        op: &Op,
        function: &Expr,
        from: &Grid,
    ) -> Result<[i8; 256], CompileError> {
        let to = &self.grids[&op.output];
        if !from.is_uniform() || !to.is_uniform() {
            let reason = "an activation function needs one scale for all channels, but attention reads one per head";
            return Err(self.refuse(op, reason.into()));
        }
        // A low plane has what the high one leaves.
        let high = self.planes.high_of(op.output);
        let high = high.and_then(|high| self.grids.get(&high));
        Ok(std::array::from_fn(|index| {
            let real = function.eval(from.real(f64::from(index as u8 as i8), 0));
            let held = high.map_or(0.0, |high| high.real(high.quantise(real).into(), 0));
            to.quantise(real - held)
        }))
    }

    /// The bias of a layer with the correction that calibration found, if any.
    fn corrected(&self, op: &Op, bias: &[f32]) -> Vec<f32> {
        let correction = self.seen.get(&op.output).map_or(&[][..], |r| &r.correction);
        let corrections = correction.iter().copied().chain(std::iter::repeat(0.0));
        bias.iter().zip(corrections).map(|(b, c)| b + c).collect()
    }

    /// Integer weights of a layer that is a matrix product, over `pooled` summed input rows.
    fn matrix(
        &self,
        op: &Op,
        weights: &[f32],
        bias: &[f32],
        pooled: usize,
        sums: &Grid,
    ) -> Result<Integers, CompileError> {
        let matrix = Matrix {
            name: self.name(op),
            weights,
            bias: &self.corrected(op, bias),
            channels: self.graph.values[op.inputs[0]].channels,
            pooled,
            steps: self.steps,
        };
        weights::gemm(&matrix, &self.grids[&op.inputs[0]], sums)
    }

    fn conv(
        &mut self,
        op: &Op,
        geometry: &Geometry,
        weights: &[f32],
        bias: &[f32],
    ) -> Result<(), CompileError> {
        let (sums, table) = self.sums(op)?;
        let integers = self.matrix(op, weights, bias, 1, &sums)?;
        let channels = self.graph.values[op.inputs[0]].channels;
        let pad = self.grids[&op.inputs[0]].pad(channels);
        let shape = conv_shape(geometry, channels, bias.len())?;
        let kind = integers
            .gemm(output(&sums, table.as_ref()))
            .and_then(|g| Conv::new(shape, &pad, g))
            .map(OpKind::Conv);
        self.push(op, with_residual(op), kind)
    }

    fn linear(&mut self, op: &Op, weights: &[f32], bias: &[f32]) -> Result<(), CompileError> {
        let (sums, table) = self.sums(op)?;
        let integers = self.matrix(op, weights, bias, 1, &sums)?;
        let rows = self.graph.values[op.output].rows;
        let kind = integers
            .gemm(output(&sums, table.as_ref()))
            .and_then(|g| Linear::new(rows, g))
            .map(OpKind::Linear);
        self.push(op, with_residual(op), kind)
    }

    fn pool_linear(&mut self, op: &Op, weights: &[f32], bias: &[f32]) -> Result<(), CompileError> {
        let rows = self.graph.values[op.inputs[0]].rows;
        let integers = self.matrix(op, weights, bias, rows, &self.grids[&op.output])?;
        let kind = integers
            .gemm(Output::S32)
            .and_then(|g| PoolLinear::new(rows, g))
            .map(OpKind::PoolLinear);
        self.push(op, operands(op), kind)
    }

    fn depthwise(
        &mut self,
        op: &Op,
        geometry: &Geometry,
        weights: &[f32],
        bias: &[f32],
    ) -> Result<(), CompileError> {
        let input = &self.grids[&op.inputs[0]];
        let (sums, table) = self.sums(op)?;
        let integers = weights::depthwise(
            self.name(op),
            (weights, &self.corrected(op, bias)),
            (input, &sums),
            self.steps,
        )?;
        let pad = input.pad(bias.len());
        let shape = conv_shape(geometry, bias.len(), bias.len())?;
        let output = output(&sums, table.as_ref());
        let kind = integers
            .requantise(output)
            .and_then(|r| Depthwise::new(shape, &integers.weights, &pad, r))
            .map(OpKind::Depthwise);
        self.push(op, with_residual(op), kind)
    }

    /// The mean over all rows is a depthwise convolution with one window.
    fn mean_pool(&mut self, op: &Op) -> Result<(), CompileError> {
        let input = &self.graph.values[op.inputs[0]];
        let (rows, channels) = (input.rows, input.channels);
        let weights = vec![1.0 / rows.max(1) as f32; rows * channels];
        let bias = vec![0.0; channels];
        self.depthwise(op, &Geometry::all_rows(rows), &weights, &bias)
    }

    fn max_pool(&mut self, op: &Op, geometry: &Geometry) -> Result<(), CompileError> {
        let (input, channels) = (op.inputs[0], self.graph.values[op.output].channels);
        let shape = conv_shape(geometry, channels, channels)?;
        let kind = MaxPool::new(shape, element(&self.grids[&input])).map(OpKind::MaxPool);
        self.push(op, operands(op), kind)
    }

    fn layer_norm(
        &mut self,
        op: &Op,
        eps: f64,
        (gamma, beta): (&[f32], &[f32]),
        gather: Option<&ir::Gather>,
    ) -> Result<(), CompileError> {
        let n = self.norm(op, eps, (gamma, beta), gamma.len());
        let rows = self.graph.values[op.output].rows;
        let norm = LayerNorm::new(rows, gamma.len(), n.eps, &n.gamma, &n.beta, n.output);
        let kind = norm.and_then(|norm| match gather {
            None => Ok(norm),
            Some(gather) => norm.with_gather(Gather {
                table: &gather.rows,
                segments: gather.segments,
                input_rows: self.graph.values[op.inputs[0]].rows,
            }),
        });
        self.push(op, operands(op), kind.map(OpKind::LayerNorm))
    }

    fn group_norm(
        &mut self,
        op: &Op,
        eps: f64,
        (gamma, beta): (&[f32], &[f32]),
    ) -> Result<(), CompileError> {
        let (rows, channels) = (self.graph.values[op.output].rows, gamma.len());
        let n = self.norm(op, eps, (gamma, beta), rows * channels);
        let kind = GroupNorm::new(rows, channels, n.eps, &n.gamma, &n.beta, n.output);
        self.push(op, operands(op), kind.map(OpKind::GroupNorm))
    }

    /// Numbers of a normalisation over `count` elements in steps of its input and output.
    fn norm(&self, op: &Op, eps: f64, (gamma, beta): (&[f32], &[f32]), count: usize) -> Norm {
        let (input, output) = (&self.grids[&op.inputs[0]], &self.grids[&op.output]);
        let scaled = |x: &[f32], zero: bool| -> Vec<f32> {
            let offset = |c: usize| if zero { output.zero(c) } else { 0.0 };
            x.iter()
                .enumerate()
                .map(|(c, x)| normal(f64::from(*x) / output.scale(c) + offset(c)))
                .collect()
        };
        Norm {
            eps: (eps * (count as f64 / input.scale(0)).powi(2))
                .round_ties_even()
                .clamp(1.0, (1u64 << 62) as f64) as u64,
            gamma: scaled(gamma, false),
            beta: scaled(beta, true),
            output: match output.dtype {
                DType::S8 => NormOutput::S8,
                DType::S16 | DType::S32 => NormOutput::S16,
            },
        }
    }
}

/// Numbers of a normalisation, as the kernels take them.
struct Norm {
    eps: u64,
    gamma: Vec<f32>,
    beta: Vec<f32>,
    output: NormOutput,
}

/// The operands that are not a residual.
pub(super) fn operands(op: &Op) -> [Option<ValueId>; 3] {
    std::array::from_fn(|index| op.inputs.get(index).copied())
}

/// The operand and the residual.
fn with_residual(op: &Op) -> [Option<ValueId>; 3] {
    let mut reads = op.reads();
    std::array::from_fn(|_| reads.next())
}

/// The type of an operand.
pub(super) fn element(grid: &Grid) -> InType {
    match grid.dtype {
        DType::S8 => InType::S8,
        DType::S16 => InType::S16,
        DType::S32 => InType::S32,
    }
}

pub(super) fn output<'t>(grid: &Grid, table: Option<&'t [i8; 256]>) -> Output<'t> {
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

pub(super) fn small(x: usize) -> Result<u32, CompileError> {
    u32::try_from(x).map_err(|_| CompileError::Plan(format!("a size of {x} does not fit 32 bits")))
}

/// The contract has no subnormal numbers.
pub(super) fn normal(x: f64) -> f32 {
    let x = x as f32;
    if x.is_subnormal() { 0.0 } else { x }
}
