//! One op's output rows, split over threads.
//!
//! Every job gets some of the rows, their part of the output and a scratch of its own; inputs are shared. Rows do not depend on each
//! other, so the split does not show in the result.

use core::ops::Range;

use bytemuck::{cast_slice, cast_slice_mut, try_cast_slice, try_cast_slice_mut};
use vitlet_kernels::{Addend, In, InType, Kernel, Out};
use vitlet_plan::{DType, Op, OpKind};

use crate::{EngineError, MAX_THREADS, Threads};

/// Token rows of the smallest tile that every kernel is fast with: a share is a multiple of it, so that no tile is torn.
const TOKEN_ROWS: usize = 4;

/// What bringing one output element to memory costs, in multiply-accumulates: LayerNorm does 1600 elements in the time that Linear
/// takes for 40 000 multiply-accumulates.
const ELEMENT_MACS: u64 = 16;

/// Groups of queries per thread from which on attention is split between groups: every thread packs the keys and values of each group it
/// has rows of, and the shares are then at most a fourth apart.
const GROUPS: usize = 4;

/// One op, and what all its jobs share.
pub(crate) struct Work<'w> {
    pub(crate) index: usize,
    pub(crate) op: &'w Op<'w>,
    pub(crate) kernel: Kernel,
    /// The bytes of the op's inputs; empty where there is none, and for the residual, which lies in the output.
    pub(crate) inputs: [&'w [u8]; 3],
}

/// Some rows of an op.
struct Job<'j> {
    rows: Range<usize>,
    output: &'j mut [u8],
    scratch: &'j mut [u8],
    result: Result<(), EngineError>,
}

impl Work<'_> {
    /// Computes `rows` of the op, which are all that `output` holds. `scratch` holds `scratch_len` bytes for each thread.
    pub(crate) fn run<T: Threads>(
        &self,
        threads: &T,
        rows: Range<usize>,
        output: &mut [u8],
        scratch: &mut [u8],
        scratch_len: usize,
    ) -> Result<(), EngineError> {
        let mut jobs = [const { None }; MAX_THREADS];
        let parts = self.parts(threads, rows.len(), output.len());
        let count = self.split(&mut jobs[..parts], rows, output, scratch, scratch_len)?;
        threads.for_each(&mut jobs[..count], |job| {
            if let Some(job) = job {
                job.result = self.run_rows(job);
            }
        });
        jobs.into_iter().flatten().try_for_each(|job| job.result)
    }

    /// Fills `jobs` from the front with shares of the rows; returns how many there are.
    fn split<'j>(
        &self,
        jobs: &mut [Option<Job<'j>>],
        all: Range<usize>,
        mut output: &'j mut [u8],
        mut scratch: &'j mut [u8],
        scratch_len: usize,
    ) -> Result<usize, EngineError> {
        const MEMORY: fn(usize) -> EngineError = |index| EngineError::Memory { index };
        let row_len = output.len().checked_div(all.len());
        let row_len = row_len.ok_or(MEMORY(self.index))?;
        let together = self.rows_together(jobs.len());
        let count = jobs.len().min(all.len().div_ceil(together));
        for (part, index) in jobs.iter_mut().take(count).zip(0..) {
            let rows = share(all.len(), together, index, count);
            let rows = all.start + rows.start..all.start + rows.end;
            let (mine, rest) = output
                .split_at_mut_checked(rows.len() * row_len)
                .ok_or(MEMORY(self.index))?;
            let (own, others) = scratch
                .split_at_mut_checked(scratch_len)
                .ok_or(MEMORY(self.index))?;
            (output, scratch) = (rest, others);
            *part = Some(Job {
                rows,
                output: mine,
                scratch: own,
                result: Ok(()),
            });
        }
        Ok(count)
    }

    /// Over how many of the threads `rows` rows are worth splitting.
    fn parts<T: Threads>(&self, threads: &T, rows: usize, output_len: usize) -> usize {
        let elements = output_len as u64 * ELEMENT_MACS;
        let macs = self.op.kind.macs() / self.op.kind.rows().max(1) as u64;
        let work = macs.saturating_mul(rows as u64).saturating_add(elements);
        let worth = work / threads.least_work().max(1);
        let count = threads.count().clamp(1, MAX_THREADS);
        usize::try_from(worth).unwrap_or(count).clamp(1, count)
    }

    /// Rows that one thread computes together when the op is split in `parts`.
    fn rows_together(&self, parts: usize) -> usize {
        match &self.op.kind {
            OpKind::Attention(op) => {
                let ([.., out], shape) = (op.operands(), op.shape());
                if out.rows.is_none() && shape.groups >= GROUPS * parts {
                    shape.slots * shape.queries
                } else {
                    TOKEN_ROWS
                }
            }
            OpKind::Linear(_) => TOKEN_ROWS,
            OpKind::Conv(_)
            | OpKind::Depthwise(_)
            | OpKind::LayerNorm(_)
            | OpKind::PoolLinear(_)
            | OpKind::Add(_)
            | OpKind::Mul(_)
            | OpKind::MaxPool(_)
            | OpKind::GroupNorm(_) => 1,
        }
    }

    /// Does one job.
    fn run_rows(&self, job: &mut Job<'_>) -> Result<(), EngineError> {
        let (kernel, rows) = (self.kernel, job.rows.clone());
        let scratch = cast_slice_mut(job.scratch);
        let out = self.out(job.output)?;
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

/// The rows of one of `parts` shares, each of whole tiles of `together` rows. Of uneven shares the later are larger, for the last tile
/// may be a part of one.
fn share(rows: usize, together: usize, part: usize, parts: usize) -> Range<usize> {
    let tiles = rows.div_ceil(together);
    let first = |part: usize| rows.min(tiles * part / parts * together);
    first(part)..first(part + 1)
}

#[cfg(test)]
mod tests {
    use super::share;

    #[test]
    fn shares_are_even_and_cover_all_rows_once() {
        assert_eq!([0, 1].map(|part| share(49, 4, part, 2)), [0..24, 24..49]);
        for rows in 1_usize..200 {
            for together in [1, 3, 4, 49] {
                for parts in 1..=16.min(rows.div_ceil(together)) {
                    let mut next = 0;
                    for part in 0..parts {
                        let share = share(rows, together, part, parts);
                        assert_eq!(share.start, next);
                        assert!(!share.is_empty());
                        assert!(share.len() <= rows.div_ceil(together).div_ceil(parts) * together);
                        next = share.end;
                    }
                    assert_eq!(next, rows);
                }
            }
        }
    }
}
