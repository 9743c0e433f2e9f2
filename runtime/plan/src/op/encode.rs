//! From the kernels' parameters to an op's words: the inverse of decoding.

use bytemuck::cast_slice;
use vitlet_kernels::{
    Add, Addend, Attention, Conv, ConvShape, Depthwise, Gemm, GroupNorm, LayerNorm, Mul,
    NormOutput, Operand as Rows, Output, Requantise,
};

use super::{Op, OpKind, addend, code, dtype_of};
use crate::format::{NONE, OP_WORDS};
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
            OpKind::GroupNorm(_) => code::GROUP_NORM,
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
            OpKind::GroupNorm(op) => record.group_norm(op),
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
        self.affine(norm.eps(), [norm.gamma(), norm.beta()], norm.output())?;
        let gather = norm.gather();
        self.size(gather.map_or(0, |gather| gather.segments))?;
        self.size(gather.map_or(0, |gather| gather.input_rows))?;
        self.table(gather.map(|gather| gather.table))
    }

    fn group_norm(&mut self, norm: &GroupNorm<'_>) -> Result<(), WriteError> {
        self.size(norm.rows())?;
        self.size(norm.channels())?;
        self.affine(norm.eps(), [norm.gamma(), norm.beta()], norm.output())
    }

    fn affine(
        &mut self,
        eps: u64,
        arrays: [&[f32]; 2],
        output: NormOutput,
    ) -> Result<(), WriteError> {
        self.push(&[eps as u32, (eps >> 32) as u32]);
        for array in arrays {
            self.f32_blob(array)?;
        }
        self.push(&[match output {
            NormOutput::S8 => 0,
            NormOutput::S16 => 1,
        }]);
        Ok(())
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
