//! The arena's parts.

use core::ops::Range;

use vitlet_plan::format::ALIGN;
use vitlet_plan::{Plan, Tensor};

use crate::EngineError;

/// An arena that is known to fit a plan, split in two.
pub(crate) struct Arena<'m> {
    /// Where tensors live.
    pub(crate) tensors: &'m mut [u8],
    /// The threads' own, back to back: for each [`Plan::thread_len`] bytes.
    pub(crate) memory: &'m mut [u8],
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
        let (tensors, memory) = memory.split_at_mut(plan.tensors_len());
        Ok(Arena { tensors, memory })
    }
}

/// The tensors of the arena while a chain of up to N ops runs: what it writes, and everything else to read.
pub(crate) struct Split<'m, const N: usize> {
    /// The outputs, in the order they were given in.
    pub(crate) outputs: [&'m mut [u8]; N],
    /// What lies before each output: its first byte's place, and the bytes.
    gaps: [(usize, &'m [u8]); N],
    /// What lies after the last one.
    last: (usize, &'m [u8]),
}

impl<'m, const N: usize> Split<'m, N> {
    /// Sets `outputs` apart, of which no two share a byte. `None` if they do, or do not lie in the arena.
    pub(crate) fn new(tensors: &'m mut [u8], outputs: &[Range<usize>]) -> Option<Self> {
        let mut split = Split {
            outputs: core::array::from_fn(|_| <&mut [u8]>::default()),
            gaps: [(0, &[]); N],
            last: (0, &[]),
        };
        let mut order: [usize; N] = core::array::from_fn(|slot| slot);
        let order = order.get_mut(..outputs.len())?;
        order.sort_unstable_by_key(|&slot| outputs[slot].start);
        let (mut at, mut rest) = (0, tensors);
        for (gap, &mut slot) in split.gaps.iter_mut().zip(order) {
            let output = &outputs[slot];
            let (before, others) = rest.split_at_mut_checked(output.start.checked_sub(at)?)?;
            let (bytes, others) = others.split_at_mut_checked(output.len())?;
            *gap = (at, before);
            split.outputs[slot] = bytes;
            (at, rest) = (output.end, others);
        }
        split.last = (at, rest);
        Some(split)
    }

    /// A tensor's bytes. `None` if it shares any with an output, or lies outside.
    pub(crate) fn read(&self, range: &Range<usize>) -> Option<&'m [u8]> {
        let gaps = self.gaps.iter().chain([&self.last]);
        gaps.into_iter().find_map(|(at, bytes)| {
            bytes.get(range.start.checked_sub(*at)?..range.end.checked_sub(*at)?)
        })
    }
}

/// The different ranges of bytes that up to N ops write.
pub(crate) struct Slots<const N: usize> {
    ranges: [Range<usize>; N],
    len: usize,
}

impl<const N: usize> Slots<N> {
    pub(crate) fn new() -> Self {
        Self {
            ranges: [const { 0..0 }; N],
            len: 0,
        }
    }

    /// Notes a range. `None` if there is no room for it.
    pub(crate) fn add(&mut self, range: Range<usize>) -> Option<()> {
        if self.find(&range).is_none() {
            *self.ranges.get_mut(self.len)? = range;
            self.len += 1;
        }
        Some(())
    }

    pub(crate) fn ranges(&self) -> &[Range<usize>] {
        &self.ranges[..self.len]
    }

    pub(crate) fn find(&self, range: &Range<usize>) -> Option<usize> {
        self.ranges().iter().position(|slot| slot == range)
    }
}

/// The bytes of a tensor of the plan in the arena.
pub(crate) fn range_of(plan: &Plan<'_>, id: vitlet_plan::TensorId) -> Option<Range<usize>> {
    plan.tensor(id).as_ref().and_then(Tensor::arena_range)
}
