//! What of an op is computed at a time: all of it, or a strip.

use core::ops::Range;

use vitlet_plan::{Op, Plan, Strips, TensorId};

use crate::arena::range_of;

/// An op for some rows of its result, and where in the arena they and what they need lie.
#[derive(Debug)]
pub(crate) struct Piece<'p> {
    /// Index of the op in the plan.
    pub(crate) index: usize,
    /// Computes just these rows, but for an attention, which takes whole tensors.
    pub(crate) op: Op<'p>,
    /// Rows of `op` to compute.
    pub(crate) rows: Range<usize>,
    /// The rows of the result that they are, or the same number if those come one by one: a multiple of it.
    pub(crate) tokens: usize,
    /// Bytes of the result.
    pub(crate) output: Range<usize>,
    /// Bytes of the operands.
    pub(crate) inputs: [Option<Range<usize>>; 3],
    /// Bytes of what is added to.
    pub(crate) residual: Option<Range<usize>>,
    /// What is to be moved before.
    pub(crate) slide: Option<Slide>,
}

/// Rows above a strip that are still needed.
#[derive(Clone, Debug)]
pub(crate) struct Slide {
    /// Their bytes.
    pub(crate) kept: Range<usize>,
    /// Where they go.
    pub(crate) to: usize,
}

impl<'p> Piece<'p> {
    /// All of op `index`. `None` if its tensors are not in the plan.
    pub(crate) fn whole(plan: &Plan<'p>, index: usize, op: &Op<'p>) -> Option<Self> {
        let mut inputs = [const { None }; 3];
        for (input, id) in inputs.iter_mut().zip(op.operands()) {
            *input = id.map(|id| range_of(plan, id));
        }
        let [a, b, c] = inputs.map(all);
        let rows = op.kind.rows();
        Some(Piece {
            index,
            op: *op,
            rows: 0..rows,
            tokens: tokens(rows, plan.tensor(op.output)?.rows()?),
            output: range_of(plan, op.output)?,
            inputs: [a?, b?, c?],
            residual: all(op.residual().map(|id| range_of(plan, id)))?,
            slide: None,
        })
    }

    /// Tokens of one of `rows`.
    pub(crate) fn tokens_per_row(&self) -> usize {
        self.tokens.checked_div(self.rows.len()).unwrap_or(1).max(1)
    }
}

/// [`Piece::tokens`] of so many rows of an op, which are so many rows of its result's tensor.
fn tokens(rows: usize, of_tensor: usize) -> usize {
    if of_tensor.is_multiple_of(rows) {
        of_tensor
    } else {
        rows
    }
}

/// A strip of a group of ops.
#[derive(Debug)]
pub(crate) struct Turn<'g, 'p> {
    pub(crate) plan: &'g Plan<'p>,
    pub(crate) strips: &'g Strips<'p>,
    /// The group's ops.
    pub(crate) ops: &'g [Option<Op<'p>>],
    pub(crate) strip: usize,
}

impl<'p> Turn<'_, 'p> {
    /// The rows of op `index` of the plan in this strip. `None` if they are not where they should be; `Some(None)` if there are none.
    pub(crate) fn piece(&self, index: usize) -> Option<Option<Piece<'p>>> {
        let op = self.op(index)?;
        let rows = self.strips.rows(index, self.strip);
        if rows.is_empty() {
            return Some(None);
        }
        let strip = op.kind.strip(rows.clone())?;
        let mut inputs = [const { None }; 3];
        for (input, id) in inputs.iter_mut().zip(op.operands()) {
            *input = id.map(|id| match &strip.reads {
                Some(rows) => self.range(id, rows.clone()),
                None => range_of(self.plan, id),
            });
        }
        let [a, b, c] = inputs.map(all);
        Some(Some(Piece {
            index,
            op: Op {
                kind: strip.kind,
                ..*op
            },
            tokens: tokens(strip.rows.len(), rows.len()),
            rows: strip.rows,
            slide: self.slide(index),
            inputs: [a?, b?, c?],
            residual: all(op.residual().map(|id| self.range(id, rows.clone())))?,
            output: self.range(op.output, rows)?,
        }))
    }

    /// What is to be moved before op `index` computes its rows. `None` if nothing is.
    pub(crate) fn slide(&self, index: usize) -> Option<Slide> {
        let op = self.op(index)?;
        let tensor = self
            .plan
            .tensor(op.output)
            .filter(|tensor| tensor.held != 0)?;
        let from = self.strips.base(index, self.strip.checked_sub(1)?);
        let kept = self.strips.kept(index, self.strip);
        let moves = from != kept.start;
        let kept = tensor
            .rows_range(from, kept)
            .filter(|bytes| !bytes.is_empty() && moves)?;
        let to = tensor.arena_range()?.start;
        Some(Slide { kept, to })
    }

    /// An op of the group.
    fn op(&self, index: usize) -> Option<&Op<'p>> {
        let place = index.checked_sub(self.strips.ops().start)?;
        self.ops.get(place)?.as_ref()
    }

    /// Bytes of some rows of a tensor.
    fn range(&self, id: TensorId, rows: Range<usize>) -> Option<Range<usize>> {
        let tensor = self.plan.tensor(id)?;
        let base = match tensor.held {
            0 => 0,
            _ => {
                let writes = |op: &Option<Op<'_>>| op.is_some_and(|op| op.output == id);
                let writer = self.strips.ops().start + self.ops.iter().position(writes)?;
                self.strips.base(writer, self.strip)
            }
        };
        tensor.rows_range(base, rows)
    }
}

/// The range, if there is to be one.
fn all(range: Option<Option<Range<usize>>>) -> Option<Option<Range<usize>>> {
    match range {
        None => Some(None),
        Some(range) => Some(Some(range?)),
    }
}
