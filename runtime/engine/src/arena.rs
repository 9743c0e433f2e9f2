//! The arena's parts.

use core::ops::Range;

use vitlet_plan::format::ALIGN;
use vitlet_plan::{Plan, Tensor};

use crate::EngineError;

/// An arena that is known to fit a plan, split in two.
pub(crate) struct Arena<'m> {
    /// Where tensors live.
    pub(crate) tensors: &'m mut [u8],
    /// One scratch per thread, back to back.
    pub(crate) scratch: &'m mut [u8],
}

impl<'m> Arena<'m> {
    pub(crate) fn new(
        memory: &'m mut [u8],
        plan: &Plan<'_>,
        threads: usize,
    ) -> Result<Self, EngineError> {
        let needed = plan.arena_len(threads);
        let found = memory.len();
        if !memory.as_ptr().addr().is_multiple_of(ALIGN) {
            return Err(EngineError::ArenaMisaligned);
        }
        let memory = memory.get_mut(..needed).ok_or(EngineError::ArenaTooSmall {
            found,
            needed,
            threads,
        })?;
        let (tensors, scratch) = memory.split_at_mut(plan.tensors_len());
        Ok(Arena { tensors, scratch })
    }
}

/// The tensors of the arena while an op runs: its output to write, everything else to read.
pub(crate) struct Split<'m> {
    before: &'m [u8],
    pub(crate) output: &'m mut [u8],
    after: &'m [u8],
    /// First byte of `after`.
    end: usize,
}

impl<'m> Split<'m> {
    /// Sets `output` apart. `None` if it does not lie in the arena.
    pub(crate) fn new(tensors: &'m mut [u8], output: Range<usize>) -> Option<Self> {
        let (rest, after) = tensors.split_at_mut_checked(output.end)?;
        let (before, out) = rest.split_at_mut_checked(output.start)?;
        Some(Split {
            before,
            output: out,
            after,
            end: output.end,
        })
    }

    /// A tensor's bytes. `None` if it shares any with the output, or lies outside.
    pub(crate) fn read(&self, range: Range<usize>) -> Option<&'m [u8]> {
        if let Some(start) = range.start.checked_sub(self.end) {
            self.after.get(start..range.end.checked_sub(self.end)?)
        } else {
            self.before.get(range)
        }
    }
}

/// The bytes of a tensor of the plan in the arena.
pub(crate) fn range_of(plan: &Plan<'_>, id: vitlet_plan::TensorId) -> Option<Range<usize>> {
    plan.tensor(id).as_ref().and_then(Tensor::arena_range)
}
