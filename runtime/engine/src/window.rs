//! Groups of strips on several threads: each thread runs strips of its own.
//!
//! To split every strip of every op would have all threads wait for each other after each, and hand most rows from one's cache to
//! another's. So a thread gets a window of consecutive rows, and runs the group's strips of it in memory of its own. What a 3×3 window needs
//! beyond that is computed by both neighbours ("overlapped tiling" of Krishnamoorthy et al., Effective Automatic Parallelization of Stencil
//! Computations, PLDI 2007). Of a tensor that the group also writes, such as the residual, those rows are copied before anybody starts.

use vitlet_kernels::Kernel;
use vitlet_plan::format::ALIGN;
use vitlet_plan::{Op, Plan, Strips, Tensor, TensorId};

use crate::Threads;
use crate::arena::{Slots, Split};
use crate::chain::MAX_LINKS;
use crate::rows::{Held, Link, Source, TOKEN_ROWS, Target, Work, parts, work};

/// A group that is being brought to its memory.
struct Layout<'l, 'p> {
    plan: &'l Plan<'p>,
    strips: &'l Strips<'p>,
    slots: Slots<MAX_LINKS>,
    /// Bytes of a job's own memory that are given away.
    used: usize,
}

/// The work of a group on several threads. `None` if it is too little for two, or the group cannot run so: then its ops are split one by one.
pub(crate) fn group_work<'w, 'p, T: Threads>(
    plan: &Plan<'p>,
    strips: &Strips<'p>,
    ops: &'w [Option<Op<'p>>],
    kernel: Kernel,
    threads: &T,
    tensors: &'w mut [u8],
) -> Option<Work<'w, 'p, MAX_LINKS>> {
    let ops = || strips.ops().zip(ops.iter().flatten());
    let (mut cost, mut slots) = (0_u64, Slots::new());
    for (index, op) in ops() {
        let tensor = plan.tensor(op.output)?;
        let bytes = tensor.rows()?.checked_mul(tensor.row_len()?)?;
        cost = cost.saturating_add(work(op, op.kind.rows(), bytes));
        if tensor.held == 0 {
            if strips.beyond_window(index) != [0, 0] {
                return None; // Neighbours would write the same rows.
            }
            slots.add(tensor.arena_range()?)?;
        }
    }
    let parts = parts(cost, threads);
    if parts < 2 {
        return None;
    }
    let split = Split::new(tensors, slots.ranges())?;
    let mut layout = Layout {
        plan,
        strips,
        slots,
        used: 0,
    };
    let mut links = [None; MAX_LINKS];
    for (place, (index, op)) in ops().enumerate() {
        let (before, link) = links.split_at_mut_checked(place)?;
        *link.first_mut()? = Some(layout.link(index, op, before, &split)?);
    }
    let line = strips.line()?;
    Some(Work {
        kernel,
        links,
        strips: Some(*strips),
        outputs: split.outputs,
        tokens: plan.tensor(ops().next()?.1.output)?.rows()?,
        unit: if line == 1 { TOKEN_ROWS } else { line },
        parts,
    })
}

impl<'p> Layout<'_, 'p> {
    /// An op of the group; `before` are those that come before it.
    fn link<'w>(
        &mut self,
        index: usize,
        op: &'w Op<'p>,
        before: &[Option<Link<'w, 'p>>],
        split: &Split<'w, MAX_LINKS>,
    ) -> Option<Link<'w, 'p>> {
        let takes_whole = op.kind.strip(0..op.kind.rows())?.reads.is_none();
        let mut inputs = [Source::Nothing; 3];
        for (input, id) in inputs.iter_mut().zip(op.operands()) {
            let Some(id) = id else { continue };
            *input = self.source(index, id, before, split)?;
            let is_fit = match input {
                Source::Nothing | Source::Shared(_) => true,
                Source::Own { .. } => op.kind.is_rowwise(),
                Source::Handed { .. } => !takes_whole,
            };
            if !is_fit {
                return None;
            }
        }
        let tensor = self.plan.tensor(op.output)?;
        let output = match tensor.held {
            0 => Target::Own(self.slots.find(&tensor.arena_range()?)?),
            _ => {
                let row_len = tensor.row_len()?;
                let at = self.take(row_len.checked_mul(self.strips.held_by_window(index))?)?;
                Target::Handed(Held { at, row_len })
            }
        };
        let residual = match op.residual() {
            Some(id) if !self.is_in_place(id, &tensor) => self.source(index, id, before, split)?,
            _ => Source::Nothing,
        };
        Some(Link {
            index,
            op,
            first_row: 0,
            tokens_per_row: 1,
            inputs,
            residual,
            output,
        })
    }

    /// Where the rows of an operand of op `index` come from.
    fn source<'w>(
        &mut self,
        index: usize,
        id: TensorId,
        before: &[Option<Link<'w, 'p>>],
        split: &Split<'w, MAX_LINKS>,
    ) -> Option<Source<'w>> {
        let tensor = self.plan.tensor(id)?;
        if tensor.held != 0 {
            let mut writers = before.iter().flatten().filter(|link| link.op.output == id);
            let writer = writers.next()?;
            return match writer.output {
                Target::Own(_) => None,
                Target::Handed(held) => Some(Source::Handed {
                    op: writer.index,
                    held,
                }),
            };
        }
        let [above, below] = self.strips.beyond_window(index);
        let rows = above.checked_add(below)?;
        let beyond = self.take(tensor.row_len()?.checked_mul(rows)?)?;
        let range = tensor.arena_range()?;
        match self.slots.find(&range) {
            Some(slot) => Some(Source::Own { slot, beyond }),
            None => split.read(&range).map(Source::Shared),
        }
    }

    /// Whether a residual lies where the sum is to be.
    fn is_in_place(&self, residual: TensorId, output: &Tensor<'_>) -> bool {
        let residual = self
            .plan
            .tensor(residual)
            .and_then(|tensor| tensor.arena_range());
        output.held == 0 && residual.is_some() && residual == output.arena_range()
    }

    /// Sets some bytes of a job's own memory apart; returns the first.
    fn take(&mut self, len: usize) -> Option<usize> {
        let at = self.used;
        self.used = at.checked_add(len.checked_next_multiple_of(ALIGN)?)?;
        Some(at)
    }
}
