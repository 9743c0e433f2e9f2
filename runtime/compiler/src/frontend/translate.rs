//! From tract's decluttered `TypedModel` to [`SourceGraph`].

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use tract_onnx::pb;
use tract_onnx::prelude::*;
use tract_onnx::tract_core::ops::array::{Gather, Slice, TypedConcat};
use tract_onnx::tract_core::ops::binary::TypedBinOp;
use tract_onnx::tract_core::ops::change_axes::AxisOp;
use tract_onnx::tract_core::ops::cnn::{
    Conv, KernelFormat, MaxPool, PaddingSpec, PoolSpec, SumPool,
};
use tract_onnx::tract_core::ops::downsample::Downsample;
use tract_onnx::tract_core::ops::einsum::EinSum;
use tract_onnx::tract_core::ops::element_wise::ElementWiseOp;
use tract_onnx::tract_core::ops::nn::{DataFormat, Reduce, Reducer, RmsNorm, Softmax};
use tract_onnx::tract_hir::internal::{DimLike, Factoid, InOut};

use super::{
    Binary, ConvSpec, NodeId, Reference, SourceGraph, SourceNode, SourceOp, Tensor, Unary,
};
use crate::error::CompileError;

/// Parses `bytes` (an ONNX file read from `path`, which only messages use), types and declutters it.
///
/// Returns the neutral graph and the f32 reference that can compute any node's value.
///
/// # Errors
/// [`CompileError::NotOnnx`] for anything tract cannot parse, [`CompileError::Input`] and [`CompileError::Output`] when the
/// model is not an image classifier.
pub fn load(path: &Path, bytes: &[u8]) -> Result<(SourceGraph, Reference), CompileError> {
    let refuse = |reason: String| CompileError::NotOnnx {
        path: path.to_owned(),
        reason,
    };
    if bytes.is_empty() {
        return Err(refuse("the file is empty".into()));
    }
    let folder = match path.parent() {
        Some(folder) if folder != Path::new("") => folder,
        _ => Path::new("."),
    };
    let model = without_panics(|| parse(folder, bytes)).map_err(refuse)??;
    let graph = translate(&model)?;
    Ok((graph.0, Reference::new(model, graph.1)))
}

/// Runs code of a parser that may panic on hostile input and turns a panic into an error.
///
/// The panic hook is silenced meanwhile: the user gets one line, not a backtrace.
fn without_panics<T>(
    run: impl FnOnce() -> TractResult<T>,
) -> Result<Result<T, CompileError>, String> {
    let hook = std::panic::take_hook();
    std::panic::set_hook(Box::new(|_| {}));
    let result = catch_unwind(AssertUnwindSafe(run));
    std::panic::set_hook(hook);
    match result {
        Ok(Ok(value)) => Ok(Ok(value)),
        Ok(Err(error)) => match error.downcast::<CompileError>() {
            Ok(ours) => Ok(Err(ours)),
            Err(error) => Err(one_line(&error)),
        },
        Err(_) => Err("the parser gave up on a malformed field; export the model again".into()),
    }
}

/// tract's error chain on one line, most specific reason last.
pub(super) fn one_line(error: &TractError) -> String {
    let text = format!("{error:#}");
    let text: String = text.split_whitespace().collect::<Vec<_>>().join(" ");
    match text.char_indices().nth(300) {
        Some((cut, _)) => format!("{}…", &text[..cut]),
        None => text,
    }
}

fn parse(folder: &Path, bytes: &[u8]) -> TractResult<TypedModel> {
    // Shapes that an exporter noted down may hold a symbolic batch; tract finds all shapes itself.
    let onnx = tract_onnx::onnx()
        .with_ignore_value_info(true)
        .with_ignore_output_shapes(true);
    let mut proto = onnx.proto_model_for_read(&mut &bytes[..])?;
    name_default_values(&mut proto);
    let parsed = onnx.parse(&proto, folder.to_str())?;
    if !parsed.unresolved_inputs.is_empty() {
        return Err(TractError::msg(format!(
            "nothing computes {}",
            parsed.unresolved_inputs.join(", ")
        )));
    }
    let mut model = parsed.model;
    if model.input_outlets()?.len() != 1 {
        let found = format!("{} inputs", model.input_outlets()?.len());
        return Err(CompileError::Input { found }.into());
    }
    if model.output_outlets()?.len() != 1 {
        let found = format!("{} outputs", model.output_outlets()?.len());
        return Err(CompileError::Output { found }.into());
    }
    fix_batch_to_one(&mut model)?;
    model.into_typed()?.into_decluttered()
}

/// ConstantOfShape without a value means f32 zeros (ONNX); tract 0.23.9 takes f64.
fn name_default_values(proto: &mut pb::ModelProto) {
    let nodes = proto.graph.iter_mut().flat_map(|g| &mut g.node);
    for node in nodes.filter(|n| n.op_type == "ConstantOfShape" && n.attribute.is_empty()) {
        let zero = pb::TensorProto {
            dims: vec![1],
            data_type: pb::tensor_proto::DataType::Float as i32,
            float_data: vec![0.0],
            ..Default::default()
        };
        node.attribute.push(pb::AttributeProto {
            name: "value".into(),
            r#type: pb::attribute_proto::AttributeType::Tensor as i32,
            t: Some(zero),
            ..Default::default()
        });
    }
}

/// The files beside an ONNX file that hold its weights (large models keep them apart), in the order of their names.
pub fn weight_files(path: &Path, bytes: &[u8]) -> Vec<PathBuf> {
    let proto = without_panics(|| tract_onnx::onnx().proto_model_for_read(&mut &bytes[..]));
    let Ok(Ok(proto)) = proto else {
        return vec![];
    };
    let tensors = proto.graph.iter().flat_map(|g| &g.initializer);
    let entries = tensors.flat_map(|t| &t.external_data);
    let mut files: Vec<PathBuf> = entries
        .filter(|entry| entry.key == "location")
        .map(|entry| path.with_file_name(&entry.value))
        .collect();
    files.sort();
    files.dedup();
    files
}

/// A symbolic or unknown first dimension of the image is the batch: this runtime's batch is 1.
fn fix_batch_to_one(model: &mut InferenceModel) -> TractResult<()> {
    let fact = model.input_fact(0)?.clone();
    let Some(rank) = fact.shape.rank().concretize() else {
        return Ok(());
    };
    if rank != 4 {
        return Ok(());
    }
    let mut dims: Vec<usize> = vec![];
    for (axis, dim) in fact.shape.dims().enumerate() {
        match dim.concretize().and_then(|d| d.to_usize().ok()) {
            Some(size) => dims.push(size),
            None if axis == 0 => dims.push(1),
            None => {
                return Err(CompileError::Input {
                    found: format!("{fact:?}"),
                }
                .into());
            }
        }
    }
    model.set_input_fact(0, f32::fact(dims).into())
}

/// The neutral graph and, for each of its nodes, the tract node it came from.
fn translate(model: &TypedModel) -> Result<(SourceGraph, Vec<usize>), CompileError> {
    let fail = |e: TractError| CompileError::Reference(one_line(&e));
    let order = model.eval_order().map_err(fail)?;
    let mut ids: Vec<Option<NodeId>> = vec![None; model.nodes().len()];
    let mut nodes: Vec<SourceNode> = vec![];
    let mut origins = vec![];
    for id in order {
        let node = model.node(id);
        let inputs: Vec<NodeId> = node.inputs.iter().filter_map(|o| ids[o.node]).collect();
        let shape = static_shape(node);
        let op = match (&shape, node.outputs.len()) {
            (Some(_), 1) => translate_op(model, node)
                .unwrap_or_else(|| SourceOp::Other(node.op.name().to_string())),
            _ => SourceOp::Other(format!(
                "{} with a shape that is not static",
                node.op.name()
            )),
        };
        for input in &inputs {
            nodes[*input].uses += 1;
        }
        ids[id] = Some(nodes.len());
        origins.push(id);
        nodes.push(SourceNode {
            name: printable(&node.name),
            op_name: node.op.name().to_string(),
            op,
            inputs,
            shape: shape.unwrap_or_default(),
            uses: 0,
        });
    }
    let find = |outlets: TractResult<&[OutletId]>| {
        outlets
            .ok()
            .and_then(|o| o.first().and_then(|o| ids[o.node]))
    };
    let input = find(model.input_outlets()).ok_or(CompileError::Input {
        found: "missing".into(),
    })?;
    let output = find(model.output_outlets()).ok_or(CompileError::Output {
        found: "missing".into(),
    })?;
    nodes[output].uses += 1;
    Ok((
        SourceGraph {
            nodes,
            input,
            output,
        },
        origins,
    ))
}

/// A file may hold any name; messages and plans have one line for it.
fn printable(name: &str) -> String {
    name.replace(char::is_control, "?")
}

fn static_shape(node: &TypedNode) -> Option<Vec<usize>> {
    let fact = &node.outputs.first()?.fact;
    fact.shape.as_concrete().map(<[usize]>::to_vec)
}

fn constant(fact: &TypedFact) -> Option<Tensor> {
    let tensor = fact.konst.as_ref()?.cast_to::<f32>().ok()?;
    let data = tensor.view().as_slice::<f32>().ok()?.to_vec();
    Some(Tensor {
        shape: tensor.shape().to_vec(),
        data,
    })
}

/// `None` when the operator is not part of the normal form.
fn translate_op(model: &TypedModel, node: &TypedNode) -> Option<SourceOp> {
    if let Some(value) = constant(&node.outputs[0].fact) {
        return Some(SourceOp::Const(Arc::new(value)));
    }
    if model
        .input_outlets()
        .ok()?
        .iter()
        .any(|o| o.node == node.id)
    {
        return Some(SourceOp::Input);
    }
    if let Some(op) = node.op_as::<Conv>() {
        return conv(model, node, op);
    }
    if let Some(op) = node.op_as::<SumPool>() {
        return sum_pool(model, node, op);
    }
    if let Some(op) = node.op_as::<MaxPool>() {
        return max_pool(model, node, op);
    }
    if let Some(op) = node.op_as::<EinSum>() {
        return einsum(op);
    }
    if let Some(op) = node.op_as::<TypedBinOp>() {
        return binary(op.0.name()).map(SourceOp::Binary);
    }
    if let Some(op) = node.op_as::<ElementWiseOp>() {
        return unary(&op.0.name()).map(SourceOp::Unary);
    }
    if let Some(op) = node.op_as::<Reduce>() {
        return match op.reducer {
            Reducer::Sum => Some(SourceOp::Sum(op.axes.to_vec())),
            Reducer::Max => Some(SourceOp::Max(op.axes.to_vec())),
            _ => None,
        };
    }
    if let Some(op) = node.op_as::<RmsNorm>() {
        let eps = f64::from(
            *op.eps
                .cast_to::<f32>()
                .ok()?
                .view()
                .as_slice::<f32>()
                .ok()?
                .first()?,
        );
        return Some(SourceOp::RmsNorm { axis: op.axis, eps });
    }
    if let Some(op) = node.op_as::<Softmax>() {
        return op
            .quant_output_dt
            .is_none()
            .then(|| SourceOp::Softmax(op.axes.to_vec()));
    }
    if let Some(op) = node.op_as::<Slice>() {
        let (start, end) = (op.start.to_usize().ok()?, op.end.to_usize().ok()?);
        return Some(SourceOp::Slice {
            axis: op.axis,
            start,
            end,
        });
    }
    if let Some(op) = node.op_as::<Gather>() {
        return gather(model, node, op.axis);
    }
    if let Some(op) = node.op_as::<TypedConcat>() {
        return Some(SourceOp::Concat(op.axis));
    }
    if let Some(op) = node.op_as::<Downsample>() {
        return Some(SourceOp::Step {
            axis: op.axis,
            first: op.modulo,
            stride: usize::try_from(op.stride).ok()?,
        });
    }
    axis_op(node.op_as::<AxisOp>()?)
}

/// A gather by constant indices: one, as `kv[0]` is exported, or a list; negative ones count from the end.
fn gather(model: &TypedModel, node: &TypedNode, axis: usize) -> Option<SourceOp> {
    let [data, index] = *node.inputs.as_slice() else {
        return None;
    };
    let index = model.outlet_fact(index).ok()?.konst.clone()?;
    let size = *model
        .outlet_fact(data)
        .ok()?
        .shape
        .as_concrete()?
        .get(axis)?;
    let entry = |index: &i64| {
        let index = if *index < 0 {
            index.checked_add(i64::try_from(size).ok()?)?
        } else {
            *index
        };
        usize::try_from(index).ok().filter(|i| *i < size)
    };
    let numbers = index.cast_to::<i64>().ok()?;
    let numbers = numbers.view();
    let entries: Vec<usize> = numbers
        .as_slice::<i64>()
        .ok()?
        .iter()
        .map(entry)
        .collect::<Option<_>>()?;
    match (index.rank(), entries.as_slice()) {
        (0, [index]) => Some(SourceOp::Select {
            axis,
            index: *index,
        }),
        (1, _) => Some(SourceOp::Gather { axis, entries }),
        // Every entry in its place: only the shape changes.
        (_, all) if all.iter().enumerate().all(|(i, e)| i == *e) && all.len() == size => {
            Some(SourceOp::Reshape {
                at: axis,
                from: vec![size],
                to: index.shape().to_vec(),
            })
        }
        _ => None,
    }
}

fn axis_op(op: &AxisOp) -> Option<SourceOp> {
    Some(match op {
        AxisOp::Add(axis) => SourceOp::AddAxis(*axis),
        AxisOp::Rm(axis) => SourceOp::RmAxis(*axis),
        AxisOp::Move(from, to) => SourceOp::MoveAxis {
            from: *from,
            to: *to,
        },
        AxisOp::Reshape(at, from, to) => {
            let sizes = |dims: &[TDim]| {
                dims.iter()
                    .map(|d| d.to_usize().ok())
                    .collect::<Option<Vec<_>>>()
            };
            SourceOp::Reshape {
                at: *at,
                from: sizes(from)?,
                to: sizes(to)?,
            }
        }
    })
}

fn binary(name: &str) -> Option<Binary> {
    Some(match name {
        "Add" => Binary::Add,
        "Sub" => Binary::Sub,
        "Mul" => Binary::Mul,
        "Div" => Binary::Div,
        "Max" => Binary::Max,
        "Min" => Binary::Min,
        _ => return None,
    })
}

fn unary(name: &str) -> Option<Unary> {
    Some(match name {
        "Erf" => Unary::Erf,
        "GeluExact" => Unary::Gelu,
        "Silu" => Unary::Silu,
        "Sigmoid" => Unary::Sigmoid,
        "Tanh" => Unary::Tanh,
        "HardSwish" => Unary::HardSwish,
        "Exp" => Unary::Exp,
        "Neg" => Unary::Neg,
        _ => return None,
    })
}

fn einsum(op: &EinSum) -> Option<SourceOp> {
    if op.q_params.is_some() {
        return None;
    }
    let letters = |io: InOut| op.axes.axes(io).map(|a| a.repr).collect::<Vec<char>>();
    let inputs = (0..op.axes.input_count())
        .map(|i| letters(InOut::In(i)))
        .collect();
    Some(SourceOp::EinSum {
        inputs,
        output: letters(InOut::Out(0)),
    })
}

fn conv(model: &TypedModel, node: &TypedNode, op: &Conv) -> Option<SourceOp> {
    if op.q_params.is_some() || op.kernel_fmt != KernelFormat::OIHW {
        return None;
    }
    window(model, node, &op.pool_spec, op.group).map(SourceOp::Conv)
}

fn sum_pool(model: &TypedModel, node: &TypedNode, op: &SumPool) -> Option<SourceOp> {
    let window = window(model, node, &op.pool_spec, op.pool_spec.input_channels)?;
    // Without padding every window has the same number of pixels, whatever is counted.
    let one_count = op.count_include_pad || window.pad == [0; 4];
    (one_count || !op.normalize).then_some(SourceOp::SumPool {
        window,
        average: op.normalize,
    })
}

fn max_pool(model: &TypedModel, node: &TypedNode, op: &MaxPool) -> Option<SourceOp> {
    if op.with_index_outputs.is_some() {
        return None;
    }
    window(model, node, &op.pool_spec, op.pool_spec.input_channels).map(SourceOp::MaxPool)
}

/// A window over two spatial axes, without dilation.
fn window(
    model: &TypedModel,
    node: &TypedNode,
    spec: &PoolSpec,
    groups: usize,
) -> Option<ConvSpec> {
    let pair = |v: &[usize]| (v.len() == 2).then(|| [v[0], v[1]]);
    let kernel = pair(&spec.kernel_shape)?;
    let stride = spec.strides.as_ref().map_or(Some([1, 1]), |s| pair(s))?;
    let dilation = spec.dilations.as_ref().map_or(Some([1, 1]), |s| pair(s))?;
    let axes = match spec.data_format {
        DataFormat::NCHW => [1, 2, 3],
        DataFormat::CHW => [0, 1, 2],
        DataFormat::NHWC => [3, 1, 2],
        DataFormat::HWC => [2, 0, 1],
    };
    if dilation != [1, 1] {
        return None;
    }
    let fact = model.outlet_fact(node.inputs[0]).ok()?;
    let input = fact.shape.as_concrete()?;
    let size = [*input.get(axes[1])?, *input.get(axes[2])?];
    let pad = padding(&spec.padding, size, kernel, stride)?;
    Some(ConvSpec {
        kernel,
        stride,
        pad,
        groups,
        axes,
    })
}

/// Explicit zero padding (top, left, bottom, right) of any of ONNX's ways to say it.
fn padding(
    spec: &PaddingSpec,
    input: [usize; 2],
    kernel: [usize; 2],
    stride: [usize; 2],
) -> Option<[usize; 4]> {
    let same = |upper: bool| {
        let mut pad = [0; 4];
        for axis in 0..2 {
            let out = input[axis].div_ceil(stride[axis]);
            let total = ((out - 1) * stride[axis] + kernel[axis]).saturating_sub(input[axis]);
            let small = total / 2;
            (pad[axis], pad[axis + 2]) = if upper {
                (small, total - small)
            } else {
                (total - small, small)
            };
        }
        pad
    };
    match spec {
        PaddingSpec::Valid => Some([0; 4]),
        PaddingSpec::SameUpper => Some(same(true)),
        PaddingSpec::SameLower => Some(same(false)),
        PaddingSpec::Explicit(before, after)
        | PaddingSpec::ExplicitOnnxPool(before, after, false)
            if before.len() == 2 && after.len() == 2 =>
        {
            Some([before[0], before[1], after[0], after[1]])
        }
        _ => None,
    }
}
