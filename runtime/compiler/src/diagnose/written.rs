//! What an op can write: the ends of its result's integers, as real numbers.

use vitlet_kernels::Output;
use vitlet_plan::{DType, OpKind, Tensor};

/// The largest s32 that requantisation writes.
const S32_TOP: i32 = (1 << 22) - 1;

/// The form of an op's result, of the ops that requantise.
fn form<'a>(kind: &OpKind<'a>) -> Option<Output<'a>> {
    Some(match kind {
        OpKind::Conv(op) => op.gemm().requantise().output(),
        OpKind::Linear(op) => op.gemm().requantise().output(),
        OpKind::PoolLinear(op) => op.gemm().requantise().output(),
        OpKind::Depthwise(op) => op.requantise().output(),
        OpKind::Add(op) => op.output(),
        OpKind::Mul(op) => op.output(),
        OpKind::Attention(op) => Output::S8 {
            zero_point: op.quantisation().zero_point,
            min: op.quantisation().min,
            table: None,
        },
        OpKind::LayerNorm(_) | OpKind::GroupNorm(_) | OpKind::MaxPool(_) => return None,
    })
}

/// The table of an op's activation function.
pub(super) fn table<'a>(kind: &OpKind<'a>) -> Option<&'a [i8; 256]> {
    match form(kind)? {
        Output::S8 { table, .. } => table,
        Output::S16 | Output::S32 => None,
    }
}

/// The integers at the ends of an op's result; with a table those that the ends of the sums become. `None` for an op that never
/// clips.
fn ends(kind: &OpKind<'_>, dtype: DType) -> Option<[i32; 2]> {
    if let OpKind::MaxPool(_) = kind {
        return None;
    }
    Some(match (form(kind), dtype) {
        (Some(Output::S8 { min, table, .. }), _) => {
            let entry = |q: i8| table.map_or(q, |table| table[usize::from(q as u8)]);
            [entry(min).into(), entry(i8::MAX).into()]
        }
        (_, DType::S8) => [i8::MIN.into(), i8::MAX.into()],
        (_, DType::S16) => [i16::MIN.into(), i16::MAX.into()],
        (_, DType::S32) => [-S32_TOP, S32_TOP],
    })
}

/// A channel of an op's result.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Channel {
    pub(super) step: f32,
    /// The real numbers of the ends; NaN, which equals nothing, for an op that never clips.
    pub(super) ends: [f32; 2],
}

/// Every channel of an op's result; `None` if the plan does not say the scales.
pub(super) fn channels(kind: &OpKind<'_>, tensor: &Tensor<'_>) -> Option<Vec<Channel>> {
    let ends = ends(kind, tensor.dtype);
    let channel = |channel: u32| {
        let step = tensor.scale_of(channel as usize)?;
        // As `dequantised` computes it, to the bit.
        let real = |q: i32| (i64::from(q) - i64::from(tensor.zero_point)) as f32 * step;
        let ends = ends.map_or([f32::NAN; 2], |ends| ends.map(real));
        Some(Channel { step, ends })
    };
    (0..tensor.shape[3]).map(channel).collect()
}
