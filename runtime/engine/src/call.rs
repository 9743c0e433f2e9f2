//! [`Call`]: one op on some rows; bytes become the operands' types.

use core::ops::Range;

use bytemuck::{cast_slice, cast_slice_mut, try_cast_slice, try_cast_slice_mut};
use vitlet_kernels::{Addend, In, InType, Kernel, Out};
use vitlet_plan::{DType, Op, OpKind};

use crate::EngineError;

/// An op and what it reads.
pub(crate) struct Call<'c, 'p> {
    pub(crate) index: usize,
    pub(crate) op: &'c Op<'p>,
    pub(crate) kernel: Kernel,
    /// Rows to compute, of the op's own counting.
    pub(crate) rows: Range<usize>,
    /// The bytes of the op's inputs; empty where there is none, and for the residual, which lies in the output.
    pub(crate) inputs: [&'c [u8]; 3],
}

impl Call<'_, '_> {
    /// Computes the rows, which are all that `output` holds.
    pub(crate) fn run(&self, output: &mut [u8], scratch: &mut [u8]) -> Result<(), EngineError> {
        let (kernel, rows) = (self.kernel, self.rows.clone());
        let scratch = cast_slice_mut(scratch);
        let out = self.out(output)?;
        let [x, y, z] = self.inputs.map(cast_slice);
        let result = match &self.op.kind {
            OpKind::Conv(op) => op.run(kernel, rows, x, out, scratch),
            OpKind::Linear(op) => op.run(kernel, rows, x, out, scratch),
            OpKind::Depthwise(op) => op.run(kernel, rows, x, out, scratch),
            OpKind::PoolLinear(op) => op.run(kernel, rows, x, out, scratch),
            OpKind::Attention(op) => op.run(kernel, rows, x, y, z, out, scratch),
            OpKind::LayerNorm(op) => op.run(kernel, rows, self.s16()?, out, scratch),
            OpKind::GroupNorm(op) => op.run(kernel, rows, self.s16()?, out, scratch),
            OpKind::Add(op) => {
                let a = self.input(0, op.a().element)?;
                let b = match op.b() {
                    Addend::Tensor(term) => Some(self.input(1, term.element)?),
                    Addend::None | Addend::Constant { .. } => None,
                };
                op.run(kernel, rows, a, b, out, scratch)
            }
            OpKind::Mul(op) => {
                let a = self.input(0, op.a().element)?;
                let b = self.input(1, op.b().element)?;
                op.run(kernel, rows, a, b, out, scratch)
            }
            OpKind::MaxPool(op) => {
                let x = self.input(0, op.element())?;
                op.run(kernel, rows, x, out, scratch)
            }
        };
        result.map_err(|source| EngineError::Op {
            index: self.index,
            source,
        })
    }

    /// The first input, of an op that reads s16.
    fn s16(&self) -> Result<&[i16], EngineError> {
        try_cast_slice(self.inputs[0]).map_err(|_| EngineError::Memory { index: self.index })
    }

    /// The bytes of an input as an operand of this type.
    fn input(&self, place: usize, element: InType) -> Result<In<'_>, EngineError> {
        let (bytes, memory) = (self.inputs[place], |_| EngineError::Memory {
            index: self.index,
        });
        Ok(match element {
            InType::S8 => In::S8(cast_slice(bytes)),
            InType::S16 => In::S16(try_cast_slice(bytes).map_err(memory)?),
            InType::S32 => In::S32(try_cast_slice(bytes).map_err(memory)?),
        })
    }

    /// Output bytes as the type that the op writes. Casts cannot fail: tensors and their parts start at
    /// multiples of an element, rows are whole elements.
    fn out<'o>(&self, bytes: &'o mut [u8]) -> Result<Out<'o>, EngineError> {
        let memory = |_| EngineError::Memory { index: self.index };
        Ok(match (self.op.kind.output_dtype(), self.op.residual()) {
            (DType::S8, _) => Out::S8(cast_slice_mut(bytes)),
            (DType::S16, Some(_)) => Out::S16Add(try_cast_slice_mut(bytes).map_err(memory)?),
            (DType::S16, None) => Out::S16(try_cast_slice_mut(bytes).map_err(memory)?),
            (DType::S32, _) => Out::S32(try_cast_slice_mut(bytes).map_err(memory)?),
        })
    }
}
