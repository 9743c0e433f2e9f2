//! From an op's words to the kernels' parameters.

use bytemuck::AnyBitPattern;
use vitlet_kernels::{
    Add, Addend, Attention, AttentionQuantisation, AttentionShape, Bias, Conv, ConvShape,
    Depthwise, Factor, Gate, Gather, Gemm, GroupNorm, InType, LayerNorm, Linear, MaxPool, Mul,
    NormOutput, Operand as Rows, Output, PoolLinear, Requantise, Term, View,
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
            code::GROUP_NORM => OpKind::GroupNorm(words.group_norm()?),
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
        let norm = self.norm()?;
        let (segments, input_rows) = (self.take_size(), self.take_size());
        let table = self.optional("gather")?;
        let Norm {
            rows,
            channels,
            eps,
            gamma,
            beta,
            output,
        } = norm;
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

    fn group_norm(&mut self) -> Result<GroupNorm<'a>, Problem> {
        let Norm {
            rows,
            channels,
            eps,
            gamma,
            beta,
            output,
        } = self.norm()?;
        Ok(match self.contents {
            Contents::Verify => GroupNorm::new(rows, channels, eps, gamma, beta, output)?,
            Contents::Verified => {
                GroupNorm::new_verified(rows, channels, eps, gamma, beta, output)?
            }
        })
    }

    fn norm(&mut self) -> Result<Norm<'a>, Problem> {
        Ok(Norm {
            rows: self.take_size(),
            channels: self.take_size(),
            eps: u64::from(self.take()) | u64::from(self.take()) << 32,
            gamma: self.blob("gamma")?,
            beta: self.blob("beta")?,
            output: match self.take() {
                0 => NormOutput::S8,
                1 => NormOutput::S16,
                value => {
                    return Err(Problem::UnknownCode {
                        field: "output",
                        value,
                    });
                }
            },
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

/// What the normalisations have in common.
struct Norm<'a> {
    rows: usize,
    channels: usize,
    eps: u64,
    gamma: &'a [f32],
    beta: &'a [f32],
    output: NormOutput,
}

/// Words that mean nothing are zero, so that a plan has one spelling.
fn zeros(field: &'static str, words: &[usize]) -> Result<(), Problem> {
    match words.iter().all(|&word| word == 0) {
        true => Ok(()),
        false => Err(Problem::NotZero { field }),
    }
}

// Words become sizes without loss, and the longest kind fits a record: attention with 7 words, its shape (6), q, k, v and the output (6
// each), quantisation (4), mask and bias (3).
const _: () = assert!(usize::BITS >= 32 && 7 + 6 + 4 * 6 + 4 + 1 + 3 <= OP_WORDS);
