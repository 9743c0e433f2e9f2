//! From an op's words to the kernels' parameters.

use bytemuck::AnyBitPattern;
use vitlet_kernels::{
    Add, Addend, Attention, AttentionQuantisation, AttentionShape, Bias, Conv, ConvShape,
    Depthwise, Factor, Gate, Gather, Gemm, GroupNorm, InType, LayerNorm, Linear, MaxPool, Mul,
    NormOutput, Operand as Rows, Output, ParamError, PoolLinear, Requantise, Term, View,
};

use super::{Contents, Op, OpKind, addend, code};
use crate::error::Problem;
use crate::file::File;
use crate::format::{NONE, OP_WORDS};
use crate::tensor::TensorId;

impl<'a> Op<'a> {
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
            problem: None,
        };
        let kind = words.take();
        let inputs = [words.take(), words.take(), words.take()];
        let output = file.tensor_id(words.take(), "output")?;
        let op = words.kind(kind);
        if op.is_some() {
            words.finish();
        }
        let (None, Some(kind)) = (words.problem, op) else {
            return Err(words.problem.unwrap_or(Problem::UnknownCode {
                field: "kind",
                value: kind,
            }));
        };
        if contents == Contents::Verify {
            kind.check_elements()?;
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

/// Reads an op's record word by word. What is wrong with a word is kept, the first of it, and the word read as 0, none or an empty array: whoever decodes
/// asks once, at the end.
struct Words<'a, 'r> {
    words: &'r [u32; OP_WORDS],
    next: usize,
    file: &'r File<'a>,
    problem: Option<Problem>,
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

    /// Keeps the first problem. (Apart, and `Option` where one thinks of `Result`: results as large as an operation, of which an error is a part, are
    /// copied byte by byte at every `?`, and were a third of this crate's code.)
    #[cold]
    #[inline(never)]
    fn note(&mut self, problem: Problem) {
        self.problem.get_or_insert(problem);
    }

    fn made<T>(&mut self, made: Result<T, ParamError>) -> Option<T> {
        made.inspect_err(|&error| self.note(error.into())).ok()
    }

    fn take_i8(&mut self, field: &'static str) -> i8 {
        let value = self.take() as i32;
        i8::try_from(value).unwrap_or_else(|_| {
            self.note(Problem::BadZeroPoint { field, value });
            0
        })
    }

    /// A code that is below `count`.
    fn take_code(&mut self, field: &'static str, count: u32) -> u32 {
        match self.take() {
            code if code < count => code,
            value => {
                self.note(Problem::UnknownCode { field, value });
                0
            }
        }
    }

    /// The rest of the record is unused.
    fn finish(&mut self) {
        let rest = self.words.get(self.next..).unwrap_or_default();
        if rest.iter().any(|&w| w != 0) {
            self.note(Problem::NotZero {
                field: "words after the parameters",
            });
        }
    }

    /// Words that mean nothing are zero, so that a plan has one spelling.
    fn zeros(&mut self, field: &'static str, words: [usize; 2]) {
        if words != [0, 0] {
            self.note(Problem::NotZero { field });
        }
    }

    /// The array whose blob id is next.
    fn blob<T: AnyBitPattern>(&mut self, field: &'static str) -> &'a [T] {
        let id = self.take();
        self.file.array(id, field).unwrap_or_else(|problem| {
            self.note(problem);
            &[]
        })
    }

    /// The array whose blob id is next, or none.
    fn optional<T: AnyBitPattern>(&mut self, field: &'static str) -> Option<&'a [T]> {
        if self.words.get(self.next) == Some(&NONE) {
            self.take();
            return None;
        }
        Some(self.blob(field))
    }

    /// The parameters of an op of that kind; `None` with a problem noted, or if there is no such kind.
    fn kind(&mut self, kind: u32) -> Option<OpKind<'a>> {
        Some(match kind {
            code::CONV => OpKind::Conv(self.conv()?),
            code::LINEAR => OpKind::Linear(self.linear()?),
            code::DEPTHWISE => OpKind::Depthwise(self.depthwise()?),
            code::LAYER_NORM => OpKind::LayerNorm(self.layer_norm()?),
            code::ATTENTION => OpKind::Attention(self.attention()?),
            code::POOL_LINEAR => OpKind::PoolLinear(self.pool_linear()?),
            code::ADD => OpKind::Add(self.add()?),
            code::MUL => OpKind::Mul(self.mul()?),
            code::MAX_POOL => OpKind::MaxPool(self.max_pool()?),
            code::GROUP_NORM => OpKind::GroupNorm(self.group_norm()?),
            _ => return None,
        })
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

    fn requantise(&mut self) -> Option<Requantise<'a>> {
        let (bias, scale) = (self.blob("bias"), self.blob("scale"));
        let output = self.output();
        self.made(Requantise::new_verified(bias, scale, output))
    }

    fn output(&mut self) -> Output<'a> {
        let kind = self.take_code("output", 3);
        let zero_point = self.take_i8("zero point");
        let min = self.take_i8("min");
        let table = self.table();
        let plain = zero_point == 0 && min == 0 && table.is_none();
        if kind != 0 && !plain {
            self.note(Problem::NotZero {
                field: "s8 parameters of an s16 or s32 output",
            });
        }
        match kind {
            0 => Output::S8 {
                zero_point,
                min,
                table,
            },
            1 => Output::S16,
            _ => Output::S32,
        }
    }

    fn table(&mut self) -> Option<&'a [i8; 256]> {
        let field = "table";
        let table = self.optional::<i8>(field)?;
        let bytes = table.len();
        let table = table.try_into();
        if table.is_err() {
            self.note(Problem::BlobLength { field, bytes });
        }
        table.ok()
    }

    fn gemm(&mut self, k: usize, n: usize) -> Option<Gemm<'a>> {
        let weights = self.blob("weights");
        let requantise = self.requantise()?;
        self.made(Gemm::new_verified(k, n, weights, requantise))
    }

    fn conv(&mut self) -> Option<Conv<'a>> {
        let shape = self.shape();
        let pad = self.blob("pad");
        let taps = (shape.kernel[0] as usize).saturating_mul(shape.kernel[1] as usize);
        let k = taps.saturating_mul(shape.in_c as usize);
        let gemm = self.gemm(k, shape.out_c as usize)?;
        self.made(Conv::new(shape, pad, gemm))
    }

    fn linear(&mut self) -> Option<Linear<'a>> {
        let (rows, k, n) = (self.take_size(), self.take_size(), self.take_size());
        let gemm = self.gemm(k, n)?;
        self.made(Linear::new(rows, gemm))
    }

    fn pool_linear(&mut self) -> Option<PoolLinear<'a>> {
        let (rows, k, n) = (self.take_size(), self.take_size(), self.take_size());
        let gemm = self.gemm(k, n)?;
        self.made(PoolLinear::new_verified(rows, gemm))
    }

    fn depthwise(&mut self) -> Option<Depthwise<'a>> {
        let shape = self.shape();
        let (pad, weights) = (self.blob("pad"), self.blob("weights"));
        let requantise = self.requantise()?;
        self.made(Depthwise::new_verified(shape, weights, pad, requantise))
    }

    fn layer_norm(&mut self) -> Option<LayerNorm<'a>> {
        let norm = self.norm();
        let (segments, input_rows) = (self.take_size(), self.take_size());
        let table = self.optional("gather");
        let Norm {
            rows,
            channels,
            eps,
            gamma,
            beta,
            output,
        } = norm;
        let norm = self.made(LayerNorm::new_verified(
            rows, channels, eps, gamma, beta, output,
        ))?;
        let Some(table) = table else {
            let field = "sizes of a layer norm that gathers nothing";
            self.zeros(field, [segments, input_rows]);
            return Some(norm);
        };
        let gather = Gather {
            table,
            segments,
            input_rows,
        };
        self.made(norm.with_gather_verified(gather))
    }

    fn group_norm(&mut self) -> Option<GroupNorm<'a>> {
        let Norm {
            rows,
            channels,
            eps,
            gamma,
            beta,
            output,
        } = self.norm();
        self.made(GroupNorm::new_verified(
            rows, channels, eps, gamma, beta, output,
        ))
    }

    fn norm(&mut self) -> Norm<'a> {
        Norm {
            rows: self.take_size(),
            channels: self.take_size(),
            eps: u64::from(self.take()) | u64::from(self.take()) << 32,
            gamma: self.blob("gamma"),
            beta: self.blob("beta"),
            output: match self.take_code("output", 2) {
                0 => NormOutput::S8,
                _ => NormOutput::S16,
            },
        }
    }

    fn attention(&mut self) -> Option<Attention<'a>> {
        let shape = AttentionShape {
            heads: self.take_size(),
            head_dim: self.take_size(),
            groups: self.take_size(),
            slots: self.take_size(),
            queries: self.take_size(),
            keys: self.take_size(),
        };
        let rows = [self.rows(), self.rows(), self.rows(), self.rows()];
        let quantisation = AttentionQuantisation {
            logit_scale: self.blob("logit_scale"),
            out_scale: self.blob("out_scale"),
            zero_point: self.take_i8("zero point"),
            min: self.take_i8("min"),
        };
        let (bias, mask) = (self.bias(), self.optional("mask"));
        self.made(Attention::new_verified(
            shape,
            rows,
            quantisation,
            bias,
            mask,
        ))
    }

    /// Where q, k, v or the output of an attention lies.
    fn rows(&mut self) -> Rows<'a> {
        Rows {
            view: View {
                offset: self.take_size(),
                row_stride: self.take_size(),
                head_stride: self.take_size(),
            },
            rows: self.optional("rows"),
            tensor_rows: self.take_size(),
            constants: self.optional("constants").unwrap_or_default(),
        }
    }

    fn bias(&mut self) -> Option<Bias<'a>> {
        let table = self.optional("bias");
        let window: [u32; 2] = self.take_array();
        if table.is_none() {
            let field = "window of an attention without bias";
            self.zeros(field, window.map(|side| side as usize));
        }
        let window = (window != [0, 0]).then_some(window);
        table.map(|table| Bias { table, window })
    }

    fn add(&mut self) -> Option<Add<'a>> {
        let (rows, channels) = (self.take_size(), self.take_size());
        let a = Term {
            element: self.in_type("type of a"),
            scale: self.blob("scale of a"),
        };
        let b = self.addend();
        let (bias, output) = (self.blob("bias"), self.output());
        self.made(Add::new_verified(rows, channels, a, b, bias, output))
    }

    fn addend(&mut self) -> Addend<'a> {
        match self.take_code("b", addend::CONSTANT + 1) {
            addend::TENSOR => Addend::Tensor(Term {
                element: self.in_type("type of b"),
                scale: self.blob("scale of b"),
            }),
            addend::NONE => {
                let words = [self.take_size(), self.take_size()];
                self.zeros("words of b, which there is none", words);
                Addend::None
            }
            _ => Addend::Constant {
                values: self.blob("constant"),
                scale: self.blob("scale of b"),
            },
        }
    }

    fn mul(&mut self) -> Option<Mul<'a>> {
        let (rows, channels) = (self.take_size(), self.take_size());
        let a = Factor {
            element: self.in_type("type of a"),
            zero_point: self.take_i8("zero point of a"),
        };
        let b = Gate {
            element: self.in_type("type of b"),
            zero_point: self.take_i8("zero point of b"),
            rows: self.take_size(),
            stride: self.take_size(),
            offset: self.take_size(),
            table: self.optional("rows of b"),
        };
        let (scale, output) = (self.blob("scale"), self.output());
        self.made(Mul::new_verified(rows, channels, a, b, scale, output))
    }

    fn max_pool(&mut self) -> Option<MaxPool> {
        let shape = self.shape();
        let element = self.in_type("type");
        self.made(MaxPool::new(shape, element))
    }

    /// The type of an operand: coded as that of a tensor.
    fn in_type(&mut self, field: &'static str) -> InType {
        match self.take_code(field, 3) {
            0 => InType::S8,
            1 => InType::S16,
            _ => InType::S32,
        }
    }
}

/// What the normalisations have in common.
struct Norm<'a> {
    rows: usize,
    channels: usize,
    eps: u64,
    gamma: &'a [f32],
    beta: &'a [f32],
    output: NormOutput,
}

// Words become sizes without loss, and the longest kind fits a record: attention with 7 words, its shape (6), q, k, v and the output (6
// each), quantisation (4), mask and bias (3).
const _: () = assert!(usize::BITS >= 32 && 7 + 6 + 4 * 6 + 4 + 1 + 3 <= OP_WORDS);
