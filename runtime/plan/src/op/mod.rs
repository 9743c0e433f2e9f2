//! Ops: the words of their records on one side, the kernels' parameter structs on the other.
//!
//! Decoding calls the kernels' constructors, and those are the verification: whoever holds an [`OpKind`] holds parameters that satisfy
//! `docs/numerics.md`. [`Plan::parse`](crate::Plan::parse) decodes with [`Contents::Verify`], which also reads every array (the kernels'
//! `check_elements`); after that the same bytes are decoded with [`Contents::Verified`], which costs the same for a large layer as for a
//! small one.
//!
//! | module | job |
//! |---|---|
//! | here | what an op is, and what it asks of its tensors |
//! | `decode` | from words to parameters |
//! | `encode` | from parameters to words (feature `writer`), in the same order |
//! | `strip` | an op for some rows of its result only |

mod decode;
#[cfg(feature = "writer")]
mod encode;
mod strip;

use vitlet_kernels::{
    Add, Addend, Attention, Conv, Depthwise, Gemm, GroupNorm, InType, K_ALIGN, LayerNorm, Linear,
    MaxPool, Mul, NR, NormOutput, Operand as Rows, Output, ParamError, PoolLinear, Requantise,
    Term, padded_k,
};

pub use strip::{Halo, Strip};

use crate::error::Problem;
use crate::tensor::{DType, TensorId};

/// What an op computes, with its parameters; arrays are borrowed from the plan's bytes.
#[derive(Clone, Copy, Debug)]
#[expect(
    clippy::large_enum_variant,
    reason = "there is no allocator to box with, and one op at a time"
)]
pub enum OpKind<'a> {
    /// Convolution, groups 1. Inputs: x, and a residual if the output is S16.
    Conv(Conv<'a>),
    /// Matrix product with the rows of a token matrix. Inputs: x, and a residual if the output is S16.
    Linear(Linear<'a>),
    /// Depthwise convolution. Inputs: x, and a residual if the output is S16.
    Depthwise(Depthwise<'a>),
    /// Layer normalisation of S16 rows, which may be put together from rows of the input. Input: x.
    LayerNorm(LayerNorm<'a>),
    /// Multi-head attention. Inputs: q, k, v, which may be one tensor; one whose rows are all constants is missing.
    Attention(Attention<'a>),
    /// Mean over the rows, then a linear layer: the head. Input: x.
    PoolLinear(PoolLinear<'a>),
    /// Element-wise sum, or conversion to another type. Inputs: a, and b unless it is a constant or there is none.
    Add(Add<'a>),
    /// Element-wise product; the second operand may have fewer rows. Inputs: a, b.
    Mul(Mul<'a>),
    /// Maximum under a window. Input: x.
    MaxPool(MaxPool),
    /// Normalisation of a whole S16 map. Input: x.
    GroupNorm(GroupNorm<'a>),
}

/// One step of a plan.
#[derive(Clone, Copy, Debug)]
pub struct Op<'a> {
    /// For people; need not be unique.
    pub name: &'a str,
    /// What it computes.
    pub kind: OpKind<'a>,
    /// Conv, linear, depthwise: x and the residual, if any. Attention: q, k, v. Add, mul: a and b. Otherwise x.
    pub inputs: [Option<TensorId>; 3],
    /// What it writes, completely.
    pub output: TensorId,
}

/// The codes of [`OpKind`] in a record.
mod code {
    pub(super) const CONV: u32 = 0;
    pub(super) const LINEAR: u32 = 1;
    pub(super) const DEPTHWISE: u32 = 2;
    pub(super) const LAYER_NORM: u32 = 3;
    pub(super) const ATTENTION: u32 = 4;
    pub(super) const POOL_LINEAR: u32 = 5;
    pub(super) const ADD: u32 = 6;
    pub(super) const MUL: u32 = 7;
    pub(super) const MAX_POOL: u32 = 8;
    pub(super) const GROUP_NORM: u32 = 9;
}

/// The codes of [`Addend`] in a record.
mod addend {
    pub(super) const NONE: u32 = 0;
    pub(super) const TENSOR: u32 = 1;
    pub(super) const CONSTANT: u32 = 2;
}

/// Whether the contents of arrays are still to be checked.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Contents {
    /// Read every element.
    Verify,
    /// They have been verified before, and the bytes are borrowed since.
    Verified,
}

/// What a tensor must be for an op to use it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Operand {
    pub(crate) field: &'static str,
    pub(crate) dtype: DType,
    pub(crate) size: Size,
    /// The residual: the op may do without, and the output may be written in its place.
    pub(crate) residual: bool,
    /// No element may be −128: the sums of products of attention are sized for ±127.
    pub(crate) symmetric: bool,
}

/// How many elements a tensor must have.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Size {
    Exactly { elements: usize, channels: usize },
    AtLeast(usize),
}

impl Operand {
    fn new(field: &'static str, dtype: DType, elements: usize, channels: usize) -> Self {
        Operand {
            field,
            dtype,
            size: Size::Exactly { elements, channels },
            residual: false,
            symmetric: false,
        }
    }

    fn output(dtype: DType, elements: usize, channels: usize) -> Self {
        Operand::new("output", dtype, elements, channels)
    }

    fn residual(elements: usize, channels: usize) -> Self {
        Operand {
            residual: true,
            ..Operand::new("residual", DType::S16, elements, channels)
        }
    }

    fn viewed(field: &'static str, elements: usize) -> Self {
        Operand {
            field,
            dtype: DType::S8,
            size: Size::AtLeast(elements),
            residual: false,
            symmetric: true,
        }
    }
}

impl<'a> OpKind<'a> {
    /// The kind's name: `conv`, `linear`, `depthwise`, `layernorm`, `attention`, `pool_linear`, `add`, `mul`, `max_pool` or `groupnorm`.
    pub const fn name(&self) -> &'static str {
        match self {
            OpKind::Conv(_) => "conv",
            OpKind::Linear(_) => "linear",
            OpKind::Depthwise(_) => "depthwise",
            OpKind::LayerNorm(_) => "layernorm",
            OpKind::Attention(_) => "attention",
            OpKind::PoolLinear(_) => "pool_linear",
            OpKind::Add(_) => "add",
            OpKind::Mul(_) => "mul",
            OpKind::MaxPool(_) => "max_pool",
            OpKind::GroupNorm(_) => "groupnorm",
        }
    }

    /// Rows the op can be split into: pixel rows of the output, token rows, query rows.
    pub fn rows(&self) -> usize {
        match self {
            OpKind::Conv(op) => op.rows(),
            OpKind::Linear(op) => op.rows(),
            OpKind::Depthwise(op) => op.rows(),
            OpKind::LayerNorm(op) => op.rows(),
            OpKind::Attention(op) => op.rows(),
            OpKind::PoolLinear(op) => op.rows(),
            OpKind::Add(op) => op.rows(),
            OpKind::Mul(op) => op.rows(),
            OpKind::MaxPool(op) => op.rows(),
            OpKind::GroupNorm(op) => op.rows(),
        }
    }

    /// Multiply-accumulates.
    pub fn macs(&self) -> u64 {
        match self {
            OpKind::Conv(op) => op.macs(),
            OpKind::Linear(op) => op.macs(),
            OpKind::Depthwise(op) => op.macs(),
            OpKind::LayerNorm(op) => op.macs(),
            OpKind::Attention(op) => op.macs(),
            OpKind::PoolLinear(op) => op.macs(),
            OpKind::Add(op) => op.macs(),
            OpKind::Mul(op) => op.macs(),
            OpKind::MaxPool(op) => op.macs(),
            OpKind::GroupNorm(op) => op.macs(),
        }
    }

    /// Bytes of scratch that each thread needs.
    pub fn scratch_len(&self) -> usize {
        match self {
            OpKind::Conv(op) => op.scratch_len(),
            OpKind::Linear(op) => op.scratch_len(),
            OpKind::Depthwise(op) => op.scratch_len(),
            OpKind::LayerNorm(op) => op.scratch_len(),
            OpKind::Attention(op) => op.scratch_len(),
            OpKind::PoolLinear(op) => op.scratch_len(),
            OpKind::Add(op) => op.scratch_len(),
            OpKind::Mul(op) => op.scratch_len(),
            OpKind::MaxPool(op) => op.scratch_len(),
            OpKind::GroupNorm(op) => op.scratch_len(),
        }
    }

    /// The epilogue of the kinds that have one.
    pub fn requantise(&self) -> Option<&Requantise<'a>> {
        match self {
            OpKind::Conv(op) => Some(op.gemm().requantise()),
            OpKind::Linear(op) => Some(op.gemm().requantise()),
            OpKind::Depthwise(op) => Some(op.requantise()),
            OpKind::PoolLinear(op) => Some(op.requantise()),
            OpKind::LayerNorm(_)
            | OpKind::Attention(_)
            | OpKind::Add(_)
            | OpKind::Mul(_)
            | OpKind::MaxPool(_)
            | OpKind::GroupNorm(_) => None,
        }
    }

    /// What becomes of the rounded numbers, of the kinds that leave it to their parameters.
    pub fn form(&self) -> Option<Output<'a>> {
        match self {
            OpKind::Add(op) => Some(op.output()),
            OpKind::Mul(op) => Some(op.output()),
            _ => self.requantise().map(Requantise::output),
        }
    }

    /// Type of the output's elements.
    pub fn output_dtype(&self) -> DType {
        match (self, self.form()) {
            (_, Some(Output::S8 { .. })) => DType::S8,
            (_, Some(Output::S16)) => DType::S16,
            (_, Some(Output::S32)) => DType::S32,
            (OpKind::MaxPool(op), None) => dtype_of(op.element()),
            (OpKind::LayerNorm(op), None) => norm_dtype(op.output()),
            (OpKind::GroupNorm(op), None) => norm_dtype(op.output()),
            (_, None) => DType::S8,
        }
    }

    /// What the output tensor must be.
    pub(crate) fn output(&self) -> Operand {
        let dtype = self.output_dtype();
        match self {
            OpKind::Conv(op) => {
                Operand::output(dtype, op.shape().output_len(), op.shape().out_c as usize)
            }
            OpKind::Depthwise(op) => {
                Operand::output(dtype, op.shape().output_len(), op.shape().out_c as usize)
            }
            OpKind::Linear(op) => Operand::output(dtype, op.output_len(), op.gemm().n()),
            OpKind::LayerNorm(op) => {
                Operand::output(dtype, op.rows() * op.channels(), op.channels())
            }
            OpKind::GroupNorm(op) => Operand::output(dtype, op.input_len(), op.channels()),
            OpKind::Attention(op) => {
                let [.., out] = op.operands();
                Operand::output(dtype, op.output_len(), out.view.row_stride)
            }
            OpKind::PoolLinear(op) => Operand::output(dtype, op.gemm().n(), op.gemm().n()),
            OpKind::Add(op) => Operand::output(dtype, op.input_len(), op.channels()),
            OpKind::Mul(op) => Operand::output(dtype, op.input_len(), op.channels()),
            OpKind::MaxPool(op) => {
                Operand::output(dtype, op.shape().output_len(), op.shape().out_c as usize)
            }
        }
    }

    /// What the input tensors must be; `None` where there is none.
    pub(crate) fn inputs(&self) -> [Option<Operand>; 3] {
        let x = |elements, channels| Operand::new("x", DType::S8, elements, channels);
        let x = match self {
            OpKind::Conv(op) => x(op.shape().input_len(), op.shape().in_c as usize),
            OpKind::Depthwise(op) => x(op.shape().input_len(), op.shape().in_c as usize),
            OpKind::Linear(op) => x(op.input_len(), op.gemm().k()),
            OpKind::PoolLinear(op) => x(op.input_len(), op.gemm().k()),
            OpKind::LayerNorm(op) => {
                let segments = op.gather().map_or(1, |gather| gather.segments);
                let channels = op.channels() / segments.max(1);
                Operand::new("x", DType::S16, op.input_len(), channels)
            }
            OpKind::GroupNorm(op) => Operand::new("x", DType::S16, op.input_len(), op.channels()),
            OpKind::MaxPool(op) => Operand {
                dtype: dtype_of(op.element()),
                ..x(op.shape().input_len(), op.shape().in_c as usize)
            },
            OpKind::Attention(op) => return attention_inputs(op),
            OpKind::Add(op) => return add_inputs(op),
            OpKind::Mul(op) => return mul_inputs(op),
        };
        let residual = match (self.output().size, self.form()) {
            (Size::Exactly { elements, channels }, Some(Output::S16)) => {
                Some(Operand::residual(elements, channels))
            }
            _ => None,
        };
        [Some(x), residual, None]
    }

    /// Whether an element of the output can be −128.
    pub(crate) fn may_write_minimum(&self) -> bool {
        match (self, self.form()) {
            (_, Some(Output::S8 { min, table, .. })) => match table {
                Some(table) => table.contains(&i8::MIN),
                None => min == i8::MIN,
            },
            (_, Some(Output::S16 | Output::S32)) => false,
            (OpKind::Attention(op), None) => op.quantisation().min == i8::MIN,
            (_, None) => true,
        }
    }

    /// What the kernels ask of the arrays' elements.
    fn check_elements(&self) -> Result<(), ParamError> {
        match self {
            OpKind::Conv(op) => op.gemm().check_elements(),
            OpKind::Linear(op) => op.gemm().check_elements(),
            OpKind::Depthwise(op) => op.check_elements(),
            OpKind::LayerNorm(op) => op.check_elements(),
            OpKind::Attention(op) => op.check_elements(),
            OpKind::PoolLinear(op) => op.check_elements(),
            OpKind::Add(op) => op.check_elements(),
            OpKind::Mul(op) => op.check_elements(),
            OpKind::MaxPool(_) => Ok(()),
            OpKind::GroupNorm(op) => op.check_elements(),
        }
    }

    /// Rules that the plan adds to the kernels' own: bytes that no result depends on are zero, and outputs are written completely.
    fn check_strict(&self) -> Result<(), Problem> {
        match self {
            OpKind::Conv(op) => check_padding(op.gemm()),
            OpKind::Linear(op) => check_padding(op.gemm()),
            OpKind::PoolLinear(op) => check_padding(op.gemm()),
            OpKind::Attention(op) => {
                // The kernel has checked that heads do not overlap and lie within a row; if they also fill it, nothing of a row is left
                // out. Rows that a table leaves out are filled.
                let filled = op.shape().heads.checked_mul(op.shape().head_dim);
                let [.., out] = op.operands();
                if filled == Some(out.view.row_stride) {
                    Ok(())
                } else {
                    Err(Problem::SparseOutput)
                }
            }
            OpKind::Depthwise(_)
            | OpKind::LayerNorm(_)
            | OpKind::Add(_)
            | OpKind::Mul(_)
            | OpKind::MaxPool(_)
            | OpKind::GroupNorm(_) => Ok(()),
        }
    }
}

/// q, k and v, but for those that are all constants.
fn attention_inputs(op: &Attention<'_>) -> [Option<Operand>; 3] {
    let ([q, k, v], rows) = (op.input_lens(), op.operands());
    let operand =
        |field, rows: &Rows<'_>, len| (rows.tensor_rows != 0).then(|| Operand::viewed(field, len));
    [
        operand("q", &rows[0], q),
        operand("k", &rows[1], k),
        operand("v", &rows[2], v),
    ]
}

fn add_inputs(op: &Add<'_>) -> [Option<Operand>; 3] {
    let operand = |field, term: Term<'_>| {
        let dtype = dtype_of(term.element);
        Some(Operand::new(field, dtype, op.input_len(), op.channels()))
    };
    let b = match op.b() {
        Addend::Tensor(term) => operand("b", term),
        Addend::None | Addend::Constant { .. } => None,
    };
    [operand("a", op.a()), b, None]
}

fn mul_inputs(op: &Mul<'_>) -> [Option<Operand>; 3] {
    let (a, b) = (dtype_of(op.a().element), dtype_of(op.b().element));
    [
        Some(Operand::new("a", a, op.input_len(), op.channels())),
        Some(Operand::new("b", b, op.b_len(), op.b().stride)),
        None,
    ]
}

const fn norm_dtype(output: NormOutput) -> DType {
    match output {
        NormOutput::S8 => DType::S8,
        NormOutput::S16 => DType::S16,
    }
}

/// The type of a tensor for an operand whose type is a parameter.
const fn dtype_of(element: InType) -> DType {
    match element {
        InType::S8 => DType::S8,
        InType::S16 => DType::S16,
        InType::S32 => DType::S32,
    }
}

/// The packed weights outside the `n` × `k` matrix are zero.
fn check_padding(gemm: &Gemm<'_>) -> Result<(), Problem> {
    const STEP: usize = 4;
    let (n, k) = (gemm.n(), gemm.k());
    for (panel, weights) in gemm.weights().chunks_exact(NR * padded_k(k)).enumerate() {
        let whole_columns = (panel + 1) * NR <= n;
        // In a panel of real columns, only the steps from the last, partly filled one on hold padding.
        let first_block = if whole_columns { k / STEP } else { 0 };
        for (block, values) in weights
            .chunks_exact(NR * STEP)
            .enumerate()
            .skip(first_block)
        {
            let padding = |i: usize| panel * NR + i / STEP >= n || block * STEP + i % STEP >= k;
            if values
                .iter()
                .enumerate()
                .any(|(i, &w)| w != 0 && padding(i))
            {
                return Err(Problem::NotZero {
                    field: "padding of the packed weights",
                });
            }
        }
    }
    Ok(())
}

// `check_padding` walks whole blocks of NR columns × 4 steps.
const _: () = assert!(K_ALIGN.is_multiple_of(4) && NR == 8);

impl<'a> Op<'a> {
    /// The tensors it reads, with what they must be.
    pub(crate) fn reads(&self) -> impl Iterator<Item = (TensorId, Operand)> + use<> {
        let operands = self.kind.inputs();
        self.inputs
            .into_iter()
            .zip(operands)
            .filter_map(|(id, operand)| id.zip(operand))
    }

    /// The residual that is added to the result, if any: the second input of a conv, a linear or a depthwise.
    pub fn residual(&self) -> Option<TensorId> {
        match self.kind {
            OpKind::Conv(_) | OpKind::Linear(_) | OpKind::Depthwise(_) => self.inputs[1],
            OpKind::LayerNorm(_)
            | OpKind::Attention(_)
            | OpKind::PoolLinear(_)
            | OpKind::Add(_)
            | OpKind::Mul(_)
            | OpKind::MaxPool(_)
            | OpKind::GroupNorm(_) => None,
        }
    }

    /// The inputs that are not the residual, in their places.
    pub fn operands(&self) -> [Option<TensorId>; 3] {
        match self.residual() {
            Some(_) => [self.inputs[0], None, None],
            None => self.inputs,
        }
    }
}
