//! From lowered layers and ranges to a plan: types and scales ([`grid`]), integer weights ([`weights`]), the plan's ops
//! ([`emit`]). The numbers follow `docs/numerics.md`; everything here is f64 and deterministic.

mod emit;
mod grid;
mod weights;

pub(crate) use emit::compile;

use std::collections::BTreeMap;

use vitlet_plan::DType;

use crate::error::{CompileError, UnsupportedNode};
use crate::ir::{Graph, Kind, Op, ValueId};

/// The integer type of every value that exists in the plan.
pub(crate) type Types = BTreeMap<ValueId, DType>;

/// Finds a type for every value, by who reads it: matrix products and convolutions read s8, layer norms and residual adds
/// read the s16 stream, logits are s32.
///
/// # Errors
/// [`CompileError::Unsupported`] with every layer for which no type works.
pub(crate) fn check_types(graph: &Graph) -> Result<Types, CompileError> {
    let mut nodes = vec![];
    let mut types = Types::new();
    types.insert(graph.input, DType::S8);
    for op in &graph.ops {
        let read = |v: ValueId| wanted(graph, v);
        match read(op.output) {
            Ok(dtype) if can_write(op, dtype) => {
                types.insert(op.output, dtype);
            }
            Ok(dtype) => nodes.push(refuse(
                graph,
                op,
                &format!(
                    "its result is needed as {}, which it cannot write",
                    dtype.name()
                ),
            )),
            Err(reason) => nodes.push(refuse(graph, op, reason)),
        }
        if let Some(before) = op
            .epilogue()
            .and_then(|e| e.activation.as_ref())
            .map(|a| a.before)
        {
            types.insert(before, DType::S8);
        }
    }
    if nodes.is_empty() {
        Ok(types)
    } else {
        Err(CompileError::Unsupported { nodes })
    }
}

fn refuse(graph: &Graph, op: &Op, reason: &str) -> UnsupportedNode {
    UnsupportedNode {
        name: graph.values[op.output].name.clone(),
        op: op.kind_name().into(),
        input_shapes: op
            .reads()
            .map(|v| vec![graph.values[v].rows, graph.values[v].channels])
            .collect(),
        reason: reason.into(),
    }
}

/// The type the readers of a value ask for.
fn wanted(graph: &Graph, value: ValueId) -> Result<DType, &'static str> {
    let mut wanted = (graph.output == value).then_some(DType::S32);
    for op in &graph.ops {
        let residual = op.epilogue().and_then(|e| e.residual) == Some(value);
        let reads = if residual
            || (op.inputs.contains(&value) && matches!(op.kind, Kind::LayerNorm { .. }))
        {
            DType::S16
        } else if op.inputs.contains(&value) {
            DType::S8
        } else {
            continue;
        };
        if wanted.is_some_and(|w| w != reads) {
            return Err(
                "its result is read both by a matrix product (8 bits) and as a residual stream (16 bits); only one is supported",
            );
        }
        wanted = Some(reads);
    }
    wanted.ok_or("its result is not used")
}

fn can_write(op: &Op, dtype: DType) -> bool {
    match &op.kind {
        Kind::Conv { epilogue, .. } | Kind::Linear { epilogue, .. } => {
            let plain = epilogue.activation.is_none() && epilogue.residual.is_none();
            match dtype {
                DType::S8 => epilogue.residual.is_none(),
                DType::S16 => epilogue.activation.is_none(),
                DType::S32 => plain,
            }
        }
        Kind::Depthwise { epilogue, .. } => match dtype {
            DType::S8 => epilogue.residual.is_none(),
            DType::S16 => epilogue.activation.is_none() && epilogue.residual.is_none(),
            DType::S32 => false,
        },
        Kind::LayerNorm { .. } => dtype != DType::S32,
        Kind::Attention { .. } => dtype == DType::S8,
        Kind::PoolLinear { .. } => dtype == DType::S32,
        Kind::Activate(_) => dtype == DType::S8,
        // On their own, without a layer before that takes them in, these have no int8 kernel yet.
        _ => false,
    }
}
