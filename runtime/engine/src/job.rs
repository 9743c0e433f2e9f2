//! [`Job`]: what one thread does of some work.

use core::ops::Range;

use vitlet_plan::{Op, Strips};

use crate::EngineError;
use crate::call::Call;
use crate::rows::{Beyond, Held, Link, Source, Target, Work};

/// Some rows, and the memory to compute them in.
pub(crate) struct Job<'j, const N: usize> {
    pub(crate) tokens: Range<usize>,
    /// These rows of what the work writes.
    pub(crate) outputs: [&'j mut [u8]; N],
    scratch: &'j mut [u8],
    /// For strips of what ops hand on, and rows around its own.
    own: &'j mut [u8],
    pub(crate) result: Result<(), EngineError>,
}

/// A strip of a job's rows.
#[derive(Clone, Copy)]
struct Turn<'t, 'p> {
    window: &'t Strips<'p>,
    strip: usize,
}

/// What may be read while one op's output is written.
struct Readable<'r, const N: usize> {
    outputs: [&'r [u8]; N],
    /// The job's own memory before the output and after it.
    own: [&'r [u8]; 2],
    /// First byte of what is after it.
    after: usize,
}

impl<'j, const N: usize> Job<'j, N> {
    pub(crate) fn new(tokens: Range<usize>, scratch: &'j mut [u8], own: &'j mut [u8]) -> Self {
        Job {
            tokens,
            outputs: core::array::from_fn(|_| <&mut [u8]>::default()),
            scratch,
            own,
            result: Ok(()),
        }
    }

    /// Runs all ops: one after the other, or strip by strip.
    pub(crate) fn run(&mut self, work: &Work<'_, '_, N>) -> Result<(), EngineError> {
        let Some(strips) = &work.strips else {
            return work
                .links()
                .try_for_each(|link| self.run_rows(work, link, self.tokens.clone(), None));
        };
        let window = strips.window(self.tokens.clone());
        for strip in 0..window.count() {
            let turn = Turn {
                window: &window,
                strip,
            };
            for link in work.links() {
                self.slide(link, turn);
                for rows in self.cut(link, window.rows(link.index, strip)) {
                    self.run_rows(work, link, rows, Some(turn))?;
                }
            }
        }
        Ok(())
    }

    /// Moves the rows that are still needed of a result to where the next strip expects them.
    fn slide(&mut self, link: &Link<'_, '_>, Turn { window, strip }: Turn<'_, '_>) {
        let (Target::Handed(held), Some(before)) = (link.output, strip.checked_sub(1)) else {
            return;
        };
        let kept = window.kept(link.index, strip);
        if let Some(kept) = held.range(&kept, window.base(link.index, before))
            && kept.end <= self.own.len()
        {
            self.own.copy_within(kept, held.at);
        }
    }

    /// Rows before the job's own, among them, and after them: where an op reads what the work writes, those around lie elsewhere.
    fn cut(
        &self,
        link: &Link<'_, '_>,
        rows: Range<usize>,
    ) -> impl Iterator<Item = Range<usize>> + use<N> {
        let own = link
            .inputs
            .iter()
            .any(|source| matches!(source, Source::Own { .. }));
        let Range { start, end } = match own {
            true => self.tokens.clone(),
            false => rows.start..rows.end,
        };
        let at = |row: usize| row.clamp(rows.start, rows.end);
        let parts = [rows.start..at(start), at(start)..at(end), at(end)..rows.end];
        parts.into_iter().filter(|rows| !rows.is_empty())
    }

    /// Some rows of one op.
    fn run_rows(
        &mut self,
        work: &Work<'_, '_, N>,
        link: &Link<'_, '_>,
        rows: Range<usize>,
        turn: Option<Turn<'_, '_>>,
    ) -> Result<(), EngineError> {
        let memory = EngineError::Memory { index: link.index };
        let share = Share::of(link, &rows, work, turn.is_some()).ok_or(memory)?;
        let place = Place {
            work,
            link,
            tokens: &self.tokens,
            turn,
        };
        let (output, readable) = place
            .split(&mut self.outputs, self.own, &rows)
            .ok_or(memory)?;
        if !matches!(link.residual, Source::Nothing) {
            let residual = place.read(link.residual, &rows, &readable).ok_or(memory)?;
            output
                .get_mut(..residual.len())
                .ok_or(memory)?
                .copy_from_slice(residual);
        }
        let [x, y, z] = link.inputs.map(|source| match (source, &share.reads) {
            (Source::Shared(bytes), None) => Some(bytes),
            (source, None) => place.read(source, &rows, &readable),
            (source, Some(reads)) => place.read(source, reads, &readable),
        });
        let call = Call {
            index: link.index,
            op: &share.op,
            kernel: work.kernel,
            rows: share.rows,
            inputs: [x.ok_or(memory)?, y.ok_or(memory)?, z.ok_or(memory)?],
        };
        call.run(output, self.scratch)
    }
}

/// Which op, for whom and when: what decides where rows lie.
struct Place<'l, 'w, 'p, const N: usize> {
    work: &'l Work<'w, 'p, N>,
    link: &'l Link<'w, 'p>,
    tokens: &'l Range<usize>,
    turn: Option<Turn<'l, 'p>>,
}

impl<'w, const N: usize> Place<'_, 'w, '_, N> {
    /// Sets the rows apart that the op is to write. `None` if they are not in the job's memory.
    fn split<'m>(
        &self,
        outputs: &'m mut [&mut [u8]; N],
        own: &'m mut [u8],
        rows: &Range<usize>,
    ) -> Option<(&'m mut [u8], Readable<'m, N>)> {
        let mut readable = Readable {
            outputs: [&[]; N],
            own: [&[]; 2],
            after: 0,
        };
        let mut output = None;
        for (index, (bytes, to)) in outputs.iter_mut().zip(&mut readable.outputs).enumerate() {
            match self.link.output {
                Target::Own(slot) if slot == index => {
                    let range = self.own_range(bytes.len(), rows)?;
                    output = Some(bytes.get_mut(range)?);
                }
                Target::Own(_) | Target::Handed(_) => *to = bytes,
            }
        }
        match self.link.output {
            Target::Own(_) => readable.own = [own, &[]],
            Target::Handed(held) => {
                let range = held.range(rows, self.base(self.link.index)?)?;
                let (rest, after) = own.split_at_mut_checked(range.end)?;
                let (before, bytes) = rest.split_at_mut_checked(range.start)?;
                readable.own = [before, after];
                readable.after = range.end;
                output = Some(bytes);
            }
        }
        Some((output?, readable))
    }

    /// The bytes of rows of an operand. `None` if they are not there.
    fn read<'m>(
        &self,
        source: Source<'w>,
        rows: &Range<usize>,
        from: &Readable<'m, N>,
    ) -> Option<&'m [u8]>
    where
        'w: 'm,
    {
        match source {
            Source::Nothing => Some(&[]),
            Source::Shared(bytes) => {
                let len = bytes.len().checked_div(self.work.tokens)?;
                bytes.get(rows.start * len..rows.end * len)
            }
            Source::Own { slot, beyond } => {
                let bytes = from.outputs.get(slot)?;
                let is_own = self.tokens.start <= rows.start && rows.end <= self.tokens.end;
                if is_own {
                    return bytes.get(self.own_range(bytes.len(), rows)?);
                }
                let strips = self.work.strips.as_ref()?;
                let around = Beyond::of(strips, self.link.index, self.tokens, self.work.tokens);
                let row_len = bytes.len().checked_div(self.tokens.len())?;
                let held = Held {
                    at: beyond,
                    row_len,
                };
                let first = around.place(rows.start)?;
                from.own(held.range(&(first..first + rows.len()), 0)?)
            }
            Source::Handed { op, held } => from.own(held.range(rows, self.base(op)?)?),
        }
    }

    /// Where rows lie among the job's own, which are `len` bytes.
    fn own_range(&self, len: usize, rows: &Range<usize>) -> Option<Range<usize>> {
        let row_len = len.checked_div(self.tokens.len())?;
        let at = |row: usize| Some(row.checked_sub(self.tokens.start)? * row_len);
        Some(at(rows.start)?..at(rows.end)?)
    }

    /// The first row in memory of what op `op` hands on.
    fn base(&self, op: usize) -> Option<usize> {
        self.turn.map(|turn| turn.window.base(op, turn.strip))
    }
}

impl<'r, const N: usize> Readable<'r, N> {
    /// Bytes of the job's own memory. `None` if the output has any of them.
    fn own(&self, range: Range<usize>) -> Option<&'r [u8]> {
        match range.start.checked_sub(self.after) {
            Some(start) if self.after > 0 => {
                self.own[1].get(start..range.end.checked_sub(self.after)?)
            }
            _ => self.own[0].get(range),
        }
    }
}

/// An op for some of its rows.
struct Share<'p> {
    op: Op<'p>,
    rows: Range<usize>,
    /// The rows of its inputs that it takes as the whole of them; `None` if it takes them as they are.
    reads: Option<Range<usize>>,
}

impl<'p> Share<'p> {
    fn of<const N: usize>(
        link: &Link<'_, 'p>,
        rows: &Range<usize>,
        work: &Work<'_, 'p, N>,
        in_strips: bool,
    ) -> Option<Self> {
        let op = *link.op;
        let all = *rows == (0..work.tokens);
        if in_strips || op.kind.is_rowwise() && !all {
            let strip = op.kind.strip(rows.clone())?;
            return Some(Share {
                op: Op {
                    kind: strip.kind,
                    ..op
                },
                rows: strip.rows,
                reads: strip.reads,
            });
        }
        let row = |token: usize| link.first_row + token / link.tokens_per_row;
        Some(Share {
            op,
            rows: row(rows.start)..row(rows.end),
            reads: None,
        })
    }
}
