//! [`Work`]: rows split over threads.
//!
//! Every job gets some of the rows, their part of what each op writes, and memory of its own; the rest is shared. Rows do not depend on each
//! other, or only on rows that the job has computed itself, so the split does not show in the result.

use core::ops::Range;

use vitlet_kernels::Kernel;
use vitlet_plan::{Op, OpKind, Strips};

use crate::job::Job;
use crate::piece::Piece;
use crate::{EngineError, MAX_THREADS, Threads};

/// Token rows of the smallest tile that every kernel is fast with: a share is a multiple of it, so that no tile is torn.
pub(crate) const TOKEN_ROWS: usize = 4;

/// What bringing one output element to memory costs, in multiply-accumulates: LayerNorm does 1600 elements in the time that Linear
/// takes for 40 000 multiply-accumulates.
const ELEMENT_MACS: u64 = 16;

/// Groups of queries per thread from which on attention is split between groups: every thread packs the keys and values of each group it
/// has rows of, and the shares are then at most a fourth apart.
const GROUPS: usize = 4;

/// A chain or a group of strips, and what all its jobs share.
pub(crate) struct Work<'w, 'p, const N: usize> {
    pub(crate) kernel: Kernel,
    pub(crate) links: [Option<Link<'w, 'p>>; N],
    /// How a group's ops take turns.
    pub(crate) strips: Option<Strips<'p>>,
    /// What the ops write.
    pub(crate) outputs: [&'w mut [u8]; N],
    /// Rows of every op's result.
    pub(crate) tokens: usize,
    /// Tokens that are not torn apart.
    pub(crate) unit: usize,
    /// Jobs to make.
    pub(crate) parts: usize,
}

/// An op.
#[derive(Clone, Copy)]
pub(crate) struct Link<'w, 'p> {
    pub(crate) index: usize,
    pub(crate) op: &'w Op<'p>,
    /// The first row to compute, of the op's own counting, and tokens of each.
    pub(crate) first_row: usize,
    pub(crate) tokens_per_row: usize,
    pub(crate) inputs: [Source<'w>; 3],
    /// What is copied to the output before, to be added to.
    pub(crate) residual: Source<'w>,
    pub(crate) output: Target,
}

/// Where an operand comes from.
#[derive(Clone, Copy)]
pub(crate) enum Source<'w> {
    /// There is none.
    Nothing,
    /// From what was there before.
    Shared(&'w [u8]),
    /// From one of [`Work::outputs`], of which a job sees its own rows. What it needs of others' rows, as they were before, is copied to
    /// this place of its own memory.
    Own { slot: usize, beyond: usize },
    /// From what an op of the group hands on.
    Handed { op: usize, held: Held },
}

/// Where a result goes.
#[derive(Clone, Copy)]
pub(crate) enum Target {
    /// To one of [`Work::outputs`].
    Own(usize),
    /// To the job's own memory, for ops of the group.
    Handed(Held),
}

/// Rows in a job's own memory.
#[derive(Clone, Copy)]
pub(crate) struct Held {
    /// The first byte.
    pub(crate) at: usize,
    /// Bytes of a row.
    pub(crate) row_len: usize,
}

impl<'p, const N: usize> Work<'_, 'p, N> {
    /// Computes all rows. `memory` holds `memory_len` bytes for each thread: first `scratch_len` of scratch, then what is handed on.
    pub(crate) fn run<T: Threads>(
        &mut self,
        threads: &T,
        memory: &mut [u8],
        lens: [usize; 2],
    ) -> Result<(), EngineError> {
        if self.parts == 1 {
            self.run_jobs::<T, 1>(threads, memory, lens)
        } else {
            self.run_jobs::<T, MAX_THREADS>(threads, memory, lens)
        }
    }

    /// As [`Work::run`], with room for JOBS jobs: a function of its own for one, which needs less of the stack.
    #[inline(never)]
    fn run_jobs<T: Threads, const JOBS: usize>(
        &mut self,
        threads: &T,
        memory: &mut [u8],
        [memory_len, scratch_len]: [usize; 2],
    ) -> Result<(), EngineError> {
        let index = self.links().next().map_or(0, |link| link.index);
        let mut jobs = [const { None }; JOBS];
        let outputs = core::mem::replace(
            &mut self.outputs,
            core::array::from_fn(|_| <&mut [u8]>::default()),
        );
        let this = &*self;
        let count = this
            .split(&mut jobs, outputs, memory, [memory_len, scratch_len])
            .ok_or(EngineError::Memory { index })?;
        let jobs = jobs.get_mut(..count).unwrap_or_default();
        threads.for_each(jobs, |job| {
            if let Some(job) = job {
                job.result = job.run(this);
            }
        });
        jobs.iter().flatten().try_for_each(|job| job.result)
    }

    /// The ops, in their order.
    pub(crate) fn links(&self) -> impl Iterator<Item = &Link<'_, 'p>> {
        self.links.iter().flatten()
    }

    /// Fills `jobs` from the front with shares of the rows; returns how many there are. `None` if the memory is too small.
    fn split<'j>(
        &self,
        jobs: &mut [Option<Job<'j, N>>],
        mut outputs: [&'j mut [u8]; N],
        mut memory: &'j mut [u8],
        [memory_len, scratch_len]: [usize; 2],
    ) -> Option<usize> {
        let count = self.parts.min(self.tokens.div_ceil(self.unit)).max(1);
        let jobs = jobs.get_mut(..count)?;
        for (job, index) in jobs.iter_mut().zip(0..) {
            let tokens = share(self.tokens, self.unit, index, count);
            let (mine, others) = memory.split_at_mut_checked(memory_len)?;
            let (scratch, own) = mine.split_at_mut_checked(scratch_len)?;
            memory = others;
            self.copy_beyond(&tokens, &outputs, own)?;
            *job = Some(Job::new(tokens, scratch, own));
        }
        let row_lens = outputs
            .each_ref()
            .map(|output| output.len().checked_div(self.tokens).unwrap_or(0));
        for job in jobs.iter_mut().flatten() {
            for ((own, rest), len) in job.outputs.iter_mut().zip(&mut outputs).zip(row_lens) {
                let rows = core::mem::take(rest);
                (*own, *rest) = rows.split_at_mut_checked(job.tokens.len() * len)?;
            }
        }
        Some(count)
    }

    /// Copies what a job reads of rows that other jobs overwrite.
    fn copy_beyond(
        &self,
        tokens: &Range<usize>,
        outputs: &[&mut [u8]; N],
        own: &mut [u8],
    ) -> Option<()> {
        let Some(strips) = &self.strips else {
            return Some(());
        };
        for link in self.links() {
            let around = Beyond::of(strips, link.index, tokens, self.tokens);
            for source in link.inputs {
                let Source::Own { slot, beyond } = source else {
                    continue;
                };
                let from = outputs.get(slot)?;
                let row_len = from.len().checked_div(self.tokens)?;
                let mut to = own.get_mut(beyond..)?;
                for rows in around.rows() {
                    let rows = from.get(rows.start * row_len..rows.end * row_len)?;
                    let (here, rest) = to.split_at_mut_checked(rows.len())?;
                    here.copy_from_slice(rows);
                    to = rest;
                }
            }
        }
        Some(())
    }
}

/// The rows around a job's own that an op of a group computes for it.
#[derive(Debug)]
pub(crate) struct Beyond {
    before: Range<usize>,
    after: Range<usize>,
}

impl Beyond {
    pub(crate) fn of(strips: &Strips<'_>, op: usize, own: &Range<usize>, all: usize) -> Self {
        let [before, after] = strips.beyond_window(op);
        Beyond {
            before: own.start.saturating_sub(before)..own.start,
            after: own.end..own.end.saturating_add(after).min(all),
        }
    }

    fn rows(&self) -> [Range<usize>; 2] {
        [self.before.clone(), self.after.clone()]
    }

    /// Where one of the rows lies among their copies; `None` if it is none of them.
    pub(crate) fn place(&self, row: usize) -> Option<usize> {
        if self.before.contains(&row) {
            return Some(row - self.before.start);
        }
        let after = self.after.contains(&row);
        after.then(|| self.before.len() + (row - self.after.start))
    }
}

impl Held {
    /// The bytes of some rows, of which `base` is the first in memory.
    pub(crate) fn range(&self, rows: &Range<usize>, base: usize) -> Option<Range<usize>> {
        let at = |row: usize| {
            row.checked_sub(base)?
                .checked_mul(self.row_len)?
                .checked_add(self.at)
        };
        Some(at(rows.start)?..at(rows.end)?)
    }
}

/// Over how many of the threads `work`, in multiply-accumulates, is worth splitting.
pub(crate) fn parts<T: Threads>(work: u64, threads: &T) -> usize {
    let worth = work / threads.least_work().max(1);
    let count = threads.count().clamp(1, MAX_THREADS);
    usize::try_from(worth).unwrap_or(count).clamp(1, count)
}

/// What some rows of an op cost, in multiply-accumulates, if they make `output_len` bytes.
pub(crate) fn work(op: &Op<'_>, rows: usize, output_len: usize) -> u64 {
    let macs = op.kind.macs() / op.kind.rows().max(1) as u64;
    macs.saturating_mul(rows as u64)
        .saturating_add(output_len as u64 * ELEMENT_MACS)
}

/// Tokens of a piece that one thread computes together when it is split in `parts`.
pub(crate) fn unit(piece: &Piece<'_>, parts: usize) -> usize {
    let rows = match &piece.op.kind {
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
    };
    rows * piece.tokens_per_row()
}

/// Tokens in the largest of `parts` shares.
pub(crate) fn largest_share(tokens: usize, unit: usize, parts: usize) -> usize {
    let units = tokens.div_ceil(unit.max(1)).div_ceil(parts.max(1));
    units.saturating_mul(unit).min(tokens)
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
