//! [`Chain`]: neighbouring ops that every thread runs one after the other on its own rows.
//!
//! To hand out an op's rows and to wait for the last of them takes microseconds, as long as some ops do. But a linear layer after a layer
//! norm needs of each row just the same row, which the thread has computed itself: nobody need wait in between. So
//!
//! ```text
//! attention | linear | layernorm | linear | depthwise | linear        six times all threads wait for each other
//! attention   linear   layernorm   linear | depthwise   linear        twice
//! ```
//!
//! and what a thread has just written is still in its cache.

use core::ops::Range;

use vitlet_kernels::Kernel;
use vitlet_plan::format::MAX_STRIP_OPS;

use crate::Threads;
use crate::arena::{Slots, Split};
use crate::piece::Piece;
use crate::rows::{Link, Source, Target, Work, largest_share, parts, unit, work};

/// Ops that several threads run together at most. What counts them is generic over their number, since one thread runs every op alone:
/// room for six on its stack would be wasted, and stacks are small where there is no operating system.
pub(crate) const MAX_LINKS: usize = MAX_STRIP_OPS;

/// Up to N ops, or strips of them, whose rows belong together: a row of each needs, of what others of the chain write, the same row only.
#[derive(Debug)]
pub(crate) struct Chain<'p, const N: usize> {
    links: [Option<Piece<'p>>; N],
    len: usize,
}

/// Bytes that a piece reads or writes.
#[derive(Clone, Debug)]
struct Access {
    bytes: Range<usize>,
    writes: bool,
    /// Whether a row of the result comes from the same row of these bytes, and from no other.
    by_row: bool,
}

impl<'p, const N: usize> Chain<'p, N> {
    /// No ops.
    pub(crate) fn new() -> Self {
        Self {
            links: [const { None }; N],
            len: 0,
        }
    }

    /// The ops, in their order.
    pub(crate) fn pieces(&self) -> impl Iterator<Item = &Piece<'p>> {
        self.links.iter().flatten()
    }

    /// Whether `next` can follow the others without any thread waiting for another.
    pub(crate) fn takes<T: Threads>(&self, next: &Piece<'_>, threads: &T) -> bool {
        let Some(first) = self.pieces().next() else {
            return true;
        };
        self.len < N
            && next.op.kind.is_rowwise()
            && next.tokens == first.tokens
            && self.pieces().all(|piece| is_independent(piece, next))
            && self.is_fair(next, threads)
    }

    /// Adds a piece that it takes.
    pub(crate) fn add(&mut self, piece: Piece<'p>) {
        if let Some(link) = self.links.get_mut(self.len) {
            *link = Some(piece);
            self.len += 1;
        }
    }

    /// Tokens that are not to be torn apart when rows are split in `parts`.
    pub(crate) fn unit(&self, parts: usize) -> usize {
        let units = self.pieces().map(|piece| unit(piece, parts));
        units.max().unwrap_or(1)
    }

    /// Whether `next` can be split as the others must be: what the busiest thread then does more than if `next` were split alone costs
    /// less than handing out its rows.
    fn is_fair<T: Threads>(&self, next: &Piece<'_>, threads: &T) -> bool {
        let parts = threads.count();
        let alone = unit(next, parts);
        let [alone, joined] = [alone, self.unit(parts).max(alone)]
            .map(|unit| largest_share(next.tokens, unit, parts));
        let more = joined.saturating_sub(alone) as u64;
        let cost = work(&next.op, next.rows.len(), next.output.len()) / next.tokens.max(1) as u64;
        cost.saturating_mul(more) <= threads.least_work()
    }

    /// Forgets the ops.
    pub(crate) fn clear(&mut self) {
        self.links.iter_mut().for_each(|link| *link = None);
        self.len = 0;
    }

    /// Brings the ops and their memory together. `None` if that is not in `tensors`, or ops would disturb each other.
    pub(crate) fn work<'w, T: Threads>(
        &'w self,
        kernel: Kernel,
        threads: &T,
        tensors: &'w mut [u8],
    ) -> Option<Work<'w, 'p, N>> {
        let mut slots = Slots::<N>::new();
        for piece in self.pieces() {
            slots.add(piece.output.clone())?;
        }
        let split = Split::<N>::new(tensors, slots.ranges())?;
        let source = |range: &Option<Range<usize>>| match range {
            None => Some(Source::Nothing),
            Some(range) => match slots.find(range) {
                Some(slot) => Some(Source::Own { slot, beyond: 0 }),
                None => split.read(range).map(Source::Shared),
            },
        };
        let mut links = [None; N];
        for (link, piece) in links.iter_mut().zip(self.pieces()) {
            let [a, b, c] = piece.inputs.each_ref().map(source);
            let elsewhere = |range: &Range<usize>| *range != piece.output;
            *link = Some(Link {
                index: piece.index,
                op: &piece.op,
                first_row: piece.rows.start,
                tokens_per_row: piece.tokens_per_row(),
                inputs: [a?, b?, c?],
                residual: source(&piece.residual.clone().filter(elsewhere))?,
                output: Target::Own(slots.find(&piece.output)?),
            });
        }
        let cost = |piece: &Piece<'_>| work(&piece.op, piece.rows.len(), piece.output.len());
        let parts = parts(
            self.pieces().map(cost).fold(0, u64::saturating_add),
            threads,
        );
        Some(Work {
            kernel,
            links,
            strips: None,
            outputs: split.outputs,
            tokens: self.pieces().next()?.tokens,
            unit: self.unit(parts),
            parts,
        })
    }
}

/// Whether a thread may run rows of `next` while others still run rows of `piece`, which comes before it: no byte that one writes is
/// touched by the other, but for those that both use row by row, so that the thread that writes them is the one that needs them.
fn is_independent(piece: &Piece<'_>, next: &Piece<'_>) -> bool {
    accesses(piece).all(|a| {
        accesses(next).all(|b| {
            let apart = a.bytes.start >= b.bytes.end || b.bytes.start >= a.bytes.end;
            let own = a.by_row && b.by_row && a.bytes == b.bytes;
            apart || own || !(a.writes || b.writes)
        })
    })
}

/// All that a piece reads and writes.
fn accesses(piece: &Piece<'_>) -> impl Iterator<Item = Access> {
    let access = |bytes: &Range<usize>, writes, by_row| Access {
        bytes: bytes.clone(),
        writes,
        by_row,
    };
    let inputs = piece.inputs.iter().flatten();
    let inputs = inputs.map(move |bytes| access(bytes, false, piece.op.kind.is_rowwise()));
    let residual = piece
        .residual
        .iter()
        .map(move |bytes| access(bytes, false, true));
    let slide = piece.slide.iter().flat_map(move |slide| {
        let to = slide.to..slide.to + slide.kept.len();
        [access(&slide.kept, true, false), access(&to, true, false)]
    });
    let output = core::iter::once(access(&piece.output, true, true));
    inputs.chain(residual).chain(slide).chain(output)
}
