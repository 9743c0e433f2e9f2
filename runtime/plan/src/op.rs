//! Ops: the words of their records on one side, the kernels' parameter structs on the other.
//!
//! Decoding calls the kernels' constructors, and those are the verification: whoever holds an [`OpKind`] holds parameters that satisfy
//! `docs/numerics.md`. [`Plan::parse`](crate::Plan::parse) decodes with [`Contents::Verify`], which reads every array; after that the same
//! bytes are decoded with [`Contents::Verified`], which costs the same for a large layer as for a small one.

use bytemuck::AnyBitPattern;
use vitlet_kernels::{
    Add, Addend, Attention, AttentionQuantisation, AttentionShape, Bias, Conv, ConvShape,
    Depthwise, Factor, Gate, Gather, Gemm, InType, K_ALIGN, LayerNorm, Linear, MaxPool, Mul, NR,
    NormOutput, Operand as Rows, Output, PoolLinear, Requantise, Term, View, padded_k,
};

use crate::error::Problem;
use crate::file::File;
use crate::format::{NONE, OP_WORDS};
use crate::tensor::{DType, TensorId};

/// What an op computes, with its parameters; arrays are borrowed from the plan's bytes.
#[derive(Clone, Copy, Debug)]
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
    /// The kind's name: `conv`, `linear`, `depthwise`, `layernorm`, `attention`, `pool_linear`, `add`, `mul` or `max_pool`.
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
            | OpKind::MaxPool(_) => None,
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
            (OpKind::LayerNorm(norm), None) if norm.output() == NormOutput::S16 => DType::S16,
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
            | OpKind::MaxPool(_) => Ok(()),
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
            | OpKind::MaxPool(_) => None,
        }
    }

    /// The inputs that are not the residual, in their places.
    pub fn operands(&self) -> [Option<TensorId>; 3] {
        match self.residual() {
            Some(_) => [self.inputs[0], None, None],
            None => self.inputs,
        }
    }

    /// Reads a record whose name has been read.
    pub(crate) fn decode(
        file: &File<'a>,
        name: &'a str,
        record: &[u32; OP_WORDS],
        contents: Contents,
    ) -> Result<Self, Problem> {
        let mut words = Words {
            words: record,
            next: 2,
            file,
            contents,
        };
        let kind = words.take();
        let inputs = [words.take(), words.take(), words.take()];
        let output = file.tensor_id(words.take(), "output")?;
        let kind = match kind {
            code::CONV => OpKind::Conv(words.conv()?),
            code::LINEAR => OpKind::Linear(words.linear()?),
            code::DEPTHWISE => OpKind::Depthwise(words.depthwise()?),
            code::LAYER_NORM => OpKind::LayerNorm(words.layer_norm()?),
            code::ATTENTION => OpKind::Attention(words.attention()?),
            code::POOL_LINEAR => OpKind::PoolLinear(words.pool_linear()?),
            code::ADD => OpKind::Add(words.add()?),
            code::MUL => OpKind::Mul(words.mul()?),
            code::MAX_POOL => OpKind::MaxPool(words.max_pool()?),
            value => {
                return Err(Problem::UnknownCode {
                    field: "kind",
                    value,
                });
            }
        };
        words.finish()?;
        if contents == Contents::Verify {
            kind.check_strict()?;
        }
        Ok(Op {
            name,
            inputs: decode_inputs(file, inputs, &kind)?,
            kind,
            output,
        })
    }
}

/// The inputs that `kind` takes, no more and no fewer.
fn decode_inputs(
    file: &File<'_>,
    words: [u32; 3],
    kind: &OpKind<'_>,
) -> Result<[Option<TensorId>; 3], Problem> {
    let mut inputs = [None; 3];
    for ((input, word), operand) in inputs.iter_mut().zip(words).zip(kind.inputs()) {
        *input = match operand {
            None if word == NONE => None,
            None => {
                return Err(Problem::WrongInputs {
                    expected: "fewer inputs (of a residual, an s16 output to add it to)",
                });
            }
            Some(operand) if operand.residual && word == NONE => None,
            Some(operand) => Some(file.tensor_id(word, operand.field)?),
        };
    }
    Ok(inputs)
}

/// Reads an op's record word by word.
struct Words<'a, 'r> {
    words: &'r [u32; OP_WORDS],
    next: usize,
    file: &'r File<'a>,
    contents: Contents,
}

impl<'a> Words<'a, '_> {
    /// The next word. No kind has more than there are (`OP_WORDS` is asserted below).
    fn take(&mut self) -> u32 {
        let word = self.words.get(self.next).copied().unwrap_or_default();
        self.next += 1;
        word
    }

    fn take_size(&mut self) -> usize {
        self.take() as usize
    }

    fn take_array<const N: usize>(&mut self) -> [u32; N] {
        core::array::from_fn(|_| self.take())
    }

    fn take_i8(&mut self, field: &'static str) -> Result<i8, Problem> {
        let value = self.take() as i32;
        i8::try_from(value).map_err(|_| Problem::BadZeroPoint { field, value })
    }

    /// The rest of the record is unused.
    fn finish(&self) -> Result<(), Problem> {
        let rest = self.words.get(self.next..).unwrap_or_default();
        if rest.iter().all(|&w| w == 0) {
            Ok(())
        } else {
            Err(Problem::NotZero {
                field: "words after the parameters",
            })
        }
    }

    /// The array whose blob id is next.
    fn blob<T: AnyBitPattern>(&mut self, field: &'static str) -> Result<&'a [T], Problem> {
        self.file.array(self.take(), field)
    }

    fn shape(&mut self) -> ConvShape {
        let [in_h, in_w, in_c, out_h, out_w, out_c] = self.take_array();
        ConvShape {
            in_h,
            in_w,
            in_c,
            out_h,
            out_w,
            out_c,
            kernel: self.take_array(),
            stride: self.take_array(),
            pad: self.take_array(),
        }
    }

    fn requantise(&mut self) -> Result<Requantise<'a>, Problem> {
        let (bias, scale) = (self.blob("bias")?, self.blob("scale")?);
        let output = self.output()?;
        Ok(match self.contents {
            Contents::Verify => Requantise::new(bias, scale, output)?,
            Contents::Verified => Requantise::new_verified(bias, scale, output)?,
        })
    }

    fn output(&mut self) -> Result<Output<'a>, Problem> {
        let kind = self.take();
        let zero_point = self.take_i8("zero point")?;
        let min = self.take_i8("min")?;
        let table = self.table()?;
        let plain = zero_point == 0 && min == 0 && table.is_none();
        match kind {
            0 => Ok(Output::S8 {
                zero_point,
                min,
                table,
            }),
            1 | 2 if !plain => Err(Problem::NotZero {
                field: "s8 parameters of an s16 or s32 output",
            }),
            1 => Ok(Output::S16),
            2 => Ok(Output::S32),
            value => Err(Problem::UnknownCode {
                field: "output",
                value,
            }),
        }
    }

    fn table(&mut self) -> Result<Option<&'a [i8; 256]>, Problem> {
        let field = "table";
        let Some(table) = self.optional::<i8>(field)? else {
            return Ok(None);
        };
        let bytes = table.len();
        let table = table
            .try_into()
            .map_err(|_| Problem::BlobLength { field, bytes })?;
        Ok(Some(table))
    }

    /// The array whose blob id is next, or none.
    fn optional<T: AnyBitPattern>(
        &mut self,
        field: &'static str,
    ) -> Result<Option<&'a [T]>, Problem> {
        match self.take() {
            NONE => Ok(None),
            id => self.file.array(id, field).map(Some),
        }
    }

    fn gemm(&mut self, k: usize, n: usize) -> Result<Gemm<'a>, Problem> {
        let weights = self.blob("weights")?;
        let requantise = self.requantise()?;
        Ok(match self.contents {
            Contents::Verify => Gemm::new(k, n, weights, requantise)?,
            Contents::Verified => Gemm::new_verified(k, n, weights, requantise)?,
        })
    }

    fn conv(&mut self) -> Result<Conv<'a>, Problem> {
        let shape = self.shape();
        let pad = self.blob("pad")?;
        let taps = (shape.kernel[0] as usize).saturating_mul(shape.kernel[1] as usize);
        let k = taps.saturating_mul(shape.in_c as usize);
        Ok(Conv::new(shape, pad, self.gemm(k, shape.out_c as usize)?)?)
    }

    fn linear(&mut self) -> Result<Linear<'a>, Problem> {
        let (rows, k, n) = (self.take_size(), self.take_size(), self.take_size());
        Ok(Linear::new(rows, self.gemm(k, n)?)?)
    }

    fn pool_linear(&mut self) -> Result<PoolLinear<'a>, Problem> {
        let (rows, k, n) = (self.take_size(), self.take_size(), self.take_size());
        let gemm = self.gemm(k, n)?;
        Ok(match self.contents {
            Contents::Verify => PoolLinear::new(rows, gemm)?,
            Contents::Verified => PoolLinear::new_verified(rows, gemm)?,
        })
    }

    fn depthwise(&mut self) -> Result<Depthwise<'a>, Problem> {
        let shape = self.shape();
        let (pad, weights) = (self.blob("pad")?, self.blob("weights")?);
        let requantise = self.requantise()?;
        Ok(match self.contents {
            Contents::Verify => Depthwise::new(shape, weights, pad, requantise)?,
            Contents::Verified => Depthwise::new_verified(shape, weights, pad, requantise)?,
        })
    }

    fn layer_norm(&mut self) -> Result<LayerNorm<'a>, Problem> {
        let (rows, channels) = (self.take_size(), self.take_size());
        let eps = u64::from(self.take()) | u64::from(self.take()) << 32;
        let (gamma, beta) = (self.blob("gamma")?, self.blob("beta")?);
        let output = match self.take() {
            0 => NormOutput::S8,
            1 => NormOutput::S16,
            value => {
                return Err(Problem::UnknownCode {
                    field: "output",
                    value,
                });
            }
        };
        let (segments, input_rows) = (self.take_size(), self.take_size());
        let table = self.optional("gather")?;
        let norm = match self.contents {
            Contents::Verify => LayerNorm::new(rows, channels, eps, gamma, beta, output)?,
            Contents::Verified => {
                LayerNorm::new_verified(rows, channels, eps, gamma, beta, output)?
            }
        };
        let Some(table) = table else {
            zeros(
                "sizes of a layer norm that gathers nothing",
                &[segments, input_rows],
            )?;
            return Ok(norm);
        };
        let gather = Gather {
            table,
            segments,
            input_rows,
        };
        Ok(match self.contents {
            Contents::Verify => norm.with_gather(gather)?,
            Contents::Verified => norm.with_gather_verified(gather)?,
        })
    }

    fn attention(&mut self) -> Result<Attention<'a>, Problem> {
        let shape = AttentionShape {
            heads: self.take_size(),
            head_dim: self.take_size(),
            groups: self.take_size(),
            slots: self.take_size(),
            queries: self.take_size(),
            keys: self.take_size(),
        };
        let rows = [self.rows()?, self.rows()?, self.rows()?, self.rows()?];
        let quantisation = AttentionQuantisation {
            logit_scale: self.blob("logit_scale")?,
            out_scale: self.blob("out_scale")?,
            zero_point: self.take_i8("zero point")?,
            min: self.take_i8("min")?,
        };
        let (bias, mask) = (self.bias()?, self.optional("mask")?);
        Ok(match self.contents {
            Contents::Verify => Attention::new(shape, rows, quantisation, bias, mask)?,
            Contents::Verified => Attention::new_verified(shape, rows, quantisation, bias, mask)?,
        })
    }

    /// Where q, k, v or the output of an attention lies.
    fn rows(&mut self) -> Result<Rows<'a>, Problem> {
        Ok(Rows {
            view: View {
                offset: self.take_size(),
                row_stride: self.take_size(),
                head_stride: self.take_size(),
            },
            rows: self.optional("rows")?,
            tensor_rows: self.take_size(),
            constants: self.optional("constants")?.unwrap_or_default(),
        })
    }

    fn bias(&mut self) -> Result<Option<Bias<'a>>, Problem> {
        let table = self.optional("bias")?;
        let window: [u32; 2] = self.take_array();
        let Some(table) = table else {
            zeros(
                "window of an attention without bias",
                &window.map(|w| w as usize),
            )?;
            return Ok(None);
        };
        let window = (window != [0, 0]).then_some(window);
        Ok(Some(Bias { table, window }))
    }

    fn add(&mut self) -> Result<Add<'a>, Problem> {
        let (rows, channels) = (self.take_size(), self.take_size());
        let a = Term {
            element: self.in_type("type of a")?,
            scale: self.blob("scale of a")?,
        };
        let b = self.addend()?;
        let (bias, output) = (self.blob("bias")?, self.output()?);
        Ok(match self.contents {
            Contents::Verify => Add::new(rows, channels, a, b, bias, output)?,
            Contents::Verified => Add::new_verified(rows, channels, a, b, bias, output)?,
        })
    }

    fn addend(&mut self) -> Result<Addend<'a>, Problem> {
        match self.take() {
            addend::NONE => {
                zeros(
                    "words of b, which there is none",
                    &[self.take_size(), self.take_size()],
                )?;
                Ok(Addend::None)
            }
            addend::TENSOR => Ok(Addend::Tensor(Term {
                element: self.in_type("type of b")?,
                scale: self.blob("scale of b")?,
            })),
            addend::CONSTANT => Ok(Addend::Constant {
                values: self.blob("constant")?,
                scale: self.blob("scale of b")?,
            }),
            value => Err(Problem::UnknownCode { field: "b", value }),
        }
    }

    fn mul(&mut self) -> Result<Mul<'a>, Problem> {
        let (rows, channels) = (self.take_size(), self.take_size());
        let a = Factor {
            element: self.in_type("type of a")?,
            zero_point: self.take_i8("zero point of a")?,
        };
        let b = Gate {
            element: self.in_type("type of b")?,
            zero_point: self.take_i8("zero point of b")?,
            rows: self.take_size(),
            stride: self.take_size(),
            offset: self.take_size(),
            table: self.optional("rows of b")?,
        };
        let (scale, output) = (self.blob("scale")?, self.output()?);
        Ok(match self.contents {
            Contents::Verify => Mul::new(rows, channels, a, b, scale, output)?,
            Contents::Verified => Mul::new_verified(rows, channels, a, b, scale, output)?,
        })
    }

    fn max_pool(&mut self) -> Result<MaxPool, Problem> {
        let shape = self.shape();
        Ok(MaxPool::new(shape, self.in_type("type")?)?)
    }

    /// The type of an operand: coded as that of a tensor.
    fn in_type(&mut self, field: &'static str) -> Result<InType, Problem> {
        match self.take() {
            0 => Ok(InType::S8),
            1 => Ok(InType::S16),
            2 => Ok(InType::S32),
            value => Err(Problem::UnknownCode { field, value }),
        }
    }
}

/// Words that mean nothing are zero, so that a plan has one spelling.
fn zeros(field: &'static str, words: &[usize]) -> Result<(), Problem> {
    match words.iter().all(|&word| word == 0) {
        true => Ok(()),
        false => Err(Problem::NotZero { field }),
    }
}

// Words become sizes without loss, and the longest kind fits a record: attention with 7 words, its shape (6), q, k, v and the output (6
// each), quantisation (4), bias (3) and mask.
const _: () = assert!(usize::BITS >= 32 && 7 + 6 + 4 * 6 + 4 + 3 + 1 <= OP_WORDS);

#[cfg(feature = "writer")]
mod encode {
    //! The inverse of decoding.

    use bytemuck::cast_slice;

    use super::*;
    use crate::writer::{Blobs, WriteError};

    impl Op<'_> {
        /// The op's record; its arrays go to `blobs`.
        pub(crate) fn encode(
            &self,
            name: [u32; 2],
            blobs: &mut Blobs,
        ) -> Result<[u32; OP_WORDS], WriteError> {
            let kind = match self.kind {
                OpKind::Conv(_) => code::CONV,
                OpKind::Linear(_) => code::LINEAR,
                OpKind::Depthwise(_) => code::DEPTHWISE,
                OpKind::LayerNorm(_) => code::LAYER_NORM,
                OpKind::Attention(_) => code::ATTENTION,
                OpKind::PoolLinear(_) => code::POOL_LINEAR,
                OpKind::Add(_) => code::ADD,
                OpKind::Mul(_) => code::MUL,
                OpKind::MaxPool(_) => code::MAX_POOL,
            };
            let mut record = Record {
                words: [0; OP_WORDS],
                next: 0,
                blobs,
            };
            record.push(&name);
            record.push(&[kind]);
            record.push(&self.inputs.map(|id| id.map_or(NONE, |id| id.0)));
            record.push(&[self.output.0]);
            match &self.kind {
                OpKind::Conv(op) => record.conv(op),
                OpKind::Linear(op) => record.linear(op.rows(), op.gemm()),
                OpKind::Depthwise(op) => record.depthwise(op),
                OpKind::LayerNorm(op) => record.layer_norm(op),
                OpKind::Attention(op) => record.attention(op),
                OpKind::PoolLinear(op) => record.linear(op.pooled_rows(), op.gemm()),
                OpKind::Add(op) => record.add(op),
                OpKind::Mul(op) => record.mul(op),
                OpKind::MaxPool(op) => {
                    record.shape(op.shape());
                    record.push(&[dtype_of(op.element()) as u32]);
                    Ok(())
                }
            }?;
            Ok(record.words)
        }
    }

    /// Writes an op's record word by word.
    struct Record<'b> {
        words: [u32; OP_WORDS],
        next: usize,
        blobs: &'b mut Blobs,
    }

    impl Record<'_> {
        fn push(&mut self, words: &[u32]) {
            self.words[self.next..self.next + words.len()].copy_from_slice(words);
            self.next += words.len();
        }

        fn size(&mut self, size: usize) -> Result<(), WriteError> {
            let word = u32::try_from(size).map_err(|_| WriteError::TooLarge {
                what: "size of an op",
            })?;
            self.push(&[word]);
            Ok(())
        }

        fn i8_blob(&mut self, values: &[i8]) -> Result<(), WriteError> {
            let id = self.blobs.add(cast_slice(values))?;
            self.push(&[id]);
            Ok(())
        }

        fn f32_blob(&mut self, values: &[f32]) -> Result<(), WriteError> {
            let id = self.blobs.add_f32(values)?;
            self.push(&[id]);
            Ok(())
        }

        fn shape(&mut self, shape: &ConvShape) {
            self.push(&[
                shape.in_h,
                shape.in_w,
                shape.in_c,
                shape.out_h,
                shape.out_w,
                shape.out_c,
            ]);
            self.push(&shape.kernel);
            self.push(&shape.stride);
            self.push(&shape.pad);
        }

        fn requantise(&mut self, requantise: &Requantise<'_>) -> Result<(), WriteError> {
            let bias = self.blobs.add_i32(requantise.bias())?;
            self.push(&[bias]);
            self.f32_blob(requantise.scale())?;
            self.output(&requantise.output())
        }

        fn output(&mut self, output: &Output<'_>) -> Result<(), WriteError> {
            match *output {
                Output::S8 {
                    zero_point,
                    min,
                    table,
                } => {
                    self.push(&[0, i32::from(zero_point) as u32, i32::from(min) as u32]);
                    self.optional(table.map(|table| cast_slice(table)))?;
                }
                Output::S16 => self.push(&[1, 0, 0, NONE]),
                Output::S32 => self.push(&[2, 0, 0, NONE]),
            }
            Ok(())
        }

        /// A blob of these bytes, if there are any.
        fn optional(&mut self, bytes: Option<&[u8]>) -> Result<(), WriteError> {
            let id = match bytes {
                None => NONE,
                Some(bytes) => self.blobs.add(bytes)?,
            };
            self.push(&[id]);
            Ok(())
        }

        /// A table of rows, if there is one.
        fn table(&mut self, rows: Option<&[u32]>) -> Result<(), WriteError> {
            let id = match rows {
                None => NONE,
                Some(rows) => self.blobs.add_u32(rows)?,
            };
            self.push(&[id]);
            Ok(())
        }

        fn gemm(&mut self, gemm: &Gemm<'_>) -> Result<(), WriteError> {
            self.i8_blob(gemm.weights())?;
            self.requantise(gemm.requantise())
        }

        fn conv(&mut self, conv: &Conv<'_>) -> Result<(), WriteError> {
            self.shape(conv.shape());
            self.i8_blob(conv.pad())?;
            self.gemm(conv.gemm())
        }

        fn linear(&mut self, rows: usize, gemm: &Gemm<'_>) -> Result<(), WriteError> {
            self.size(rows)?;
            self.size(gemm.k())?;
            self.size(gemm.n())?;
            self.gemm(gemm)
        }

        fn depthwise(&mut self, depthwise: &Depthwise<'_>) -> Result<(), WriteError> {
            self.shape(depthwise.shape());
            self.i8_blob(depthwise.pad())?;
            self.i8_blob(depthwise.weights())?;
            self.requantise(depthwise.requantise())
        }

        fn layer_norm(&mut self, norm: &LayerNorm<'_>) -> Result<(), WriteError> {
            self.size(norm.rows())?;
            self.size(norm.channels())?;
            self.push(&[norm.eps() as u32, (norm.eps() >> 32) as u32]);
            self.f32_blob(norm.gamma())?;
            self.f32_blob(norm.beta())?;
            self.push(&[match norm.output() {
                NormOutput::S8 => 0,
                NormOutput::S16 => 1,
            }]);
            let gather = norm.gather();
            self.size(gather.map_or(0, |gather| gather.segments))?;
            self.size(gather.map_or(0, |gather| gather.input_rows))?;
            self.table(gather.map(|gather| gather.table))
        }

        fn attention(&mut self, attention: &Attention<'_>) -> Result<(), WriteError> {
            let shape = attention.shape();
            for size in [
                shape.heads,
                shape.head_dim,
                shape.groups,
                shape.slots,
                shape.queries,
                shape.keys,
            ] {
                self.size(size)?;
            }
            for rows in attention.operands() {
                self.rows(&rows)?;
            }
            let quantisation = attention.quantisation();
            self.f32_blob(quantisation.logit_scale)?;
            self.f32_blob(quantisation.out_scale)?;
            self.push(&[
                i32::from(quantisation.zero_point) as u32,
                i32::from(quantisation.min) as u32,
            ]);
            match attention.bias() {
                None => self.push(&[NONE, 0, 0]),
                Some(bias) => {
                    let id = self.blobs.add_i32(bias.table)?;
                    let [height, width] = bias.window.unwrap_or_default();
                    self.push(&[id, height, width]);
                }
            }
            self.optional(attention.mask())
        }

        fn rows(&mut self, rows: &Rows<'_>) -> Result<(), WriteError> {
            self.size(rows.view.offset)?;
            self.size(rows.view.row_stride)?;
            self.size(rows.view.head_stride)?;
            self.table(rows.rows)?;
            self.size(rows.tensor_rows)?;
            let constants = (!rows.constants.is_empty()).then_some(rows.constants);
            self.optional(constants.map(cast_slice))
        }

        fn add(&mut self, add: &Add<'_>) -> Result<(), WriteError> {
            self.size(add.rows())?;
            self.size(add.channels())?;
            self.push(&[dtype_of(add.a().element) as u32]);
            self.f32_blob(add.a().scale)?;
            match add.b() {
                Addend::None => self.push(&[addend::NONE, 0, 0]),
                Addend::Tensor(term) => {
                    self.push(&[addend::TENSOR, dtype_of(term.element) as u32]);
                    self.f32_blob(term.scale)?;
                }
                Addend::Constant { values, scale } => {
                    let id = self.blobs.add_i16(values)?;
                    self.push(&[addend::CONSTANT, id]);
                    self.f32_blob(scale)?;
                }
            }
            self.f32_blob(add.bias())?;
            self.output(&add.output())
        }

        fn mul(&mut self, mul: &Mul<'_>) -> Result<(), WriteError> {
            self.size(mul.rows())?;
            self.size(mul.channels())?;
            let (a, b) = (mul.a(), mul.b());
            for (element, zero_point) in [(a.element, a.zero_point), (b.element, b.zero_point)] {
                self.push(&[dtype_of(element) as u32, i32::from(zero_point) as u32]);
            }
            self.size(b.rows)?;
            self.size(b.stride)?;
            self.size(b.offset)?;
            self.table(b.table)?;
            self.f32_blob(mul.scale())?;
            self.output(&mul.output())
        }
    }
}
