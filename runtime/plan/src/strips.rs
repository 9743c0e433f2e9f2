//! [`Strips`]: consecutive ops that run strip by strip, so that what lies between them never exists whole.
//!
//! ```text
//! for each strip:
//!     for each op:
//!         compute the rows of its result that it has not computed yet, up to the strip's end and as many further as it is ahead
//! ```
//! The hidden tensor of a feed-forward network is the largest of a model, but a strip of it is all that is needed at a time ("fused layers" of Alwani et
//! al., Fused-Layer CNN Accelerators, MICRO 2016; here rows above a window are kept, not computed again).

use core::ops::Range;

use crate::error::{PlanError, Problem};
use crate::file::File;
use crate::format::{MAX_STRIP_OPS, align_up};
use crate::op::{Contents, Halo, Op};
use crate::tensor::{Tensor, TensorId, overlap};

/// A group of ops that run strip by strip. Rows are tokens or pixels of their results, of which all have equally many.
#[derive(Clone, Copy, Debug)]
pub struct Strips<'a> {
    first: usize,
    count: usize,
    ends: &'a [u32],
    /// Rows in a line of pixels.
    line: Option<usize>,
    /// The rows that are computed, if not all.
    window: Option<Window>,
    reach: [Reach; MAX_STRIP_OPS],
}

/// Some rows of the last op's result, in strips of equal length.
#[derive(Clone, Copy, Debug)]
struct Window {
    start: usize,
    end: usize,
    step: usize,
}

/// How an op of a group stands to the ends of the strips.
#[derive(Clone, Copy, Debug)]
struct Reach {
    /// Rows past a strip's end that the op computes in it, for the windows of those after it.
    ahead: usize,
    /// First row that ops of the next strip still read of its result, counted from the strip's end. None if none reads it.
    needed: Option<isize>,
    /// Rows before a window that the op computes for the windows of those after it.
    before: usize,
}

/// An op of a group, as far as its strips depend on it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct StripOp {
    /// Rows around its own that the op reads.
    pub halo: Halo,
    /// The ops of the group whose results it reads: bit i for the i-th.
    pub reads: u32,
}

impl<'a> Strips<'a> {
    /// The ops, as indices among [`Plan::ops`](crate::Plan::ops).
    pub fn ops(&self) -> Range<usize> {
        self.first..self.first + self.count
    }

    /// Where strips end, in rows of the last op's result.
    pub fn ends(&self) -> &'a [u32] {
        self.ends
    }

    /// Number of strips.
    pub fn count(&self) -> usize {
        match &self.window {
            None => self.ends.len(),
            Some(window) => (window.end - window.start).div_ceil(window.step),
        }
    }

    /// The strips of some rows of the last op's result only, as if there were no others: for a thread that computes its share of all ops
    /// on its own. What ops need of rows around it is computed again. Strips are as long as the longest of the plan.
    #[must_use]
    pub fn window(&self, rows: Range<usize>) -> Self {
        let window = Window {
            start: rows.start,
            end: rows.end.max(rows.start),
            step: self.longest().max(1),
        };
        Strips {
            window: Some(window),
            ..*self
        }
    }

    /// Rows of op `op`'s result that a window of `rows` rows needs in memory at a time, at most.
    pub fn held_by_window(&self, op: usize) -> usize {
        let Reach { ahead, before, .. } = self.reach_of(op);
        let rows = self.longest().saturating_add(ahead).saturating_add(before);
        rows.min(self.all())
    }

    /// Rows outside a window that op `op` computes for it: those before it, and those after it.
    pub fn beyond_window(&self, op: usize) -> [usize; 2] {
        let Reach { ahead, before, .. } = self.reach_of(op);
        [before, ahead]
    }

    /// Rows of op `op`'s result that the strip before has left and that this one still needs: as many as lie in memory from there on.
    pub fn kept(&self, op: usize, strip: usize) -> Range<usize> {
        self.base(op, strip)..self.rows(op, strip).start
    }

    /// Rows in a line of pixels, of which windows must have whole ones; 1 if no op has any. `None` if ops do not agree on it: such a group
    /// has no windows.
    pub fn line(&self) -> Option<usize> {
        self.line
    }

    /// Rows of the longest strip.
    fn longest(&self) -> usize {
        let starts = core::iter::once(0).chain(self.ends.iter().copied());
        let lens = self.ends.iter().zip(starts);
        lens.map(|(end, start)| end.saturating_sub(start) as usize)
            .max()
            .unwrap_or(0)
    }

    /// Rows of every op's result.
    fn all(&self) -> usize {
        self.ends.last().map_or(0, |&end| end as usize)
    }

    /// The rows of its result that op `op` of the plan computes in strip `strip`. They can be none: an op that is ahead is done earlier.
    pub fn rows(&self, op: usize, strip: usize) -> Range<usize> {
        let start = match strip.checked_sub(1) {
            None => self.start(op),
            Some(before) => self.end(op, before),
        };
        start..self.end(op, strip)
    }

    /// The first row of op `op`'s result that must be in memory from the start of strip `strip` on.
    pub fn base(&self, op: usize, strip: usize) -> usize {
        let Some(before) = strip.checked_sub(1) else {
            return self.start(op);
        };
        let written = self.end(op, before);
        match self.reach_of(op).needed {
            Some(offset) => self
                .end_of(before)
                .saturating_add_signed(offset)
                .clamp(self.start(op).min(written), written),
            None => written,
        }
    }

    /// Rows of op `op`'s result that must be in memory at a time.
    pub fn held(&self, op: usize) -> usize {
        let rows = |strip| self.end(op, strip) - self.base(op, strip);
        (0..self.count()).map(rows).max().unwrap_or(0)
    }

    /// The first row that op `op` computes.
    fn start(&self, op: usize) -> usize {
        self.window.map_or(0, |window| {
            window.start.saturating_sub(self.reach_of(op).before)
        })
    }

    /// The row that op `op` has reached after strip `strip`.
    fn end(&self, op: usize, strip: usize) -> usize {
        self.end_of(strip)
            .saturating_add(self.reach_of(op).ahead)
            .min(self.all())
    }

    /// The row of the last op's result that strip `strip` ends with.
    fn end_of(&self, strip: usize) -> usize {
        match &self.window {
            None => self.ends.get(strip).map_or(0, |&end| end as usize),
            Some(Window { start, end, step }) => strip
                .saturating_add(1)
                .saturating_mul(*step)
                .saturating_add(*start)
                .min(*end),
        }
    }

    fn reach_of(&self, op: usize) -> Reach {
        let index = op.wrapping_sub(self.first);
        self.reach.get(index).copied().unwrap_or(Reach::LAST)
    }

    /// The strips of ops `first..`; `ends` as in [`format`](crate::format). `None` if there are too few ops or too many.
    pub fn new(first: usize, ops: &[StripOp], ends: &'a [u32]) -> Option<Self> {
        let mut reach = [Reach::LAST; MAX_STRIP_OPS];
        reach.get(1..ops.len())?;
        // Backwards from the last op: each is as far ahead as those that read its result need.
        for index in (0..ops.len()).rev() {
            let later = ops.iter().zip(reach).skip(index + 1);
            let readers = later.filter(|(op, _)| op.reads >> index & 1 != 0);
            for (StripOp { halo, .. }, reader) in readers {
                let needed = (reader.ahead as isize).saturating_sub_unsigned(halo.above);
                let reach = &mut reach[index];
                reach.ahead = reach.ahead.max(reader.ahead.saturating_add(halo.below));
                reach.before = reach.before.max(reader.before.saturating_add(halo.above));
                reach.needed = Some(reach.needed.map_or(needed, |known| known.min(needed)));
            }
        }
        Some(Strips {
            first,
            count: ops.len(),
            ends,
            line: line(ops),
            window: None,
            reach,
        })
    }

    /// Rows past a strip's end that op `op` computes in it, for the windows of those after it.
    pub fn ahead(&self, op: usize) -> usize {
        self.reach_of(op).ahead
    }

    /// Reads a group, whose ops have been verified.
    pub(crate) fn decode(file: &File<'a>, index: usize) -> Result<Self, Problem> {
        let [first, count, ends] = file.strips_record(index).unwrap_or_default();
        let (first, count) = (first as usize, count as usize);
        let bad_count = Problem::OutOfRange {
            field: "number of ops",
            value: count as u64,
            limit: MAX_STRIP_OPS as u64,
        };
        let mut outputs = [None; MAX_STRIP_OPS];
        let mut ops = [StripOp::default(); MAX_STRIP_OPS];
        let ops = ops.get_mut(..count).ok_or(bad_count)?;
        for (place, op) in ops.iter_mut().enumerate() {
            let member = Member::new(first.saturating_add(place), file)?;
            *op = StripOp {
                halo: member.halo,
                reads: (0..)
                    .zip(&outputs[..place])
                    .fold(0, |reads, (bit, output)| {
                        reads | u32::from(output.is_some_and(|id| member.reads(id))) << bit
                    }),
            };
            outputs[place] = Some(member.output);
        }
        Strips::new(first, ops, file.array(ends, "ends")?).ok_or(bad_count)
    }
}

/// [`Strips::line`] of these ops.
fn line(ops: &[StripOp]) -> Option<usize> {
    let mut widths = ops
        .iter()
        .map(|op| op.halo.width)
        .filter(|&width| width > 1);
    let first = widths.next().unwrap_or(1);
    widths.all(|width| width == first).then_some(first)
}

/// What is checked of an op of a group.
struct Member {
    op: usize,
    output: TensorId,
    inputs: [Option<TensorId>; 3],
    residual: Option<TensorId>,
    halo: Halo,
    reads_whole: bool,
}

impl Default for StripOp {
    fn default() -> Self {
        StripOp {
            halo: Halo::NONE,
            reads: 0,
        }
    }
}

impl Reach {
    const LAST: Reach = Reach {
        ahead: 0,
        needed: None,
        before: 0,
    };
}

impl Member {
    fn new(index: usize, file: &File<'_>) -> Result<Self, Problem> {
        let op: Op<'_> = file.decode_op(index, Contents::Verified)?;
        let what = "cannot run strip by strip";
        let bad = Problem::BadStrips { op: index, what };
        Ok(Member {
            op: index,
            output: op.output,
            inputs: op.operands(),
            residual: op.residual(),
            halo: op.kind.halo().ok_or(bad)?,
            reads_whole: op.kind.reads_whole(),
        })
    }

    fn reads(&self, id: TensorId) -> bool {
        self.inputs.contains(&Some(id)) || self.residual == Some(id)
    }
}

/// The ops of the group that op `op` belongs to.
pub(crate) fn group_of(file: &File<'_>, op: usize) -> Option<Range<usize>> {
    let groups = (0..file.strips_count()).filter_map(|index| file.strips_record(index));
    let mut ranges = groups.map(|[first, count, _]| {
        let first = first as usize;
        first..first.saturating_add(count as usize)
    });
    ranges.find(|ops| ops.contains(&op))
}

/// Checks every group. What holds of ops that run one after the other has been checked; this is about those that run in turn. Returns the
/// most bytes that a window of one needs.
pub(crate) fn check(file: &File<'_>) -> Result<usize, PlanError> {
    let (mut next, mut len) = (0, 0);
    for index in 0..file.strips_count() {
        let strips =
            check_group(file, index, next).map_err(|problem| file.strips_error(index, problem))?;
        let field = "a thread's own strips";
        let window = window_len(file, &strips)
            .map_err(|problem| file.strips_error(index, problem))?
            .ok_or_else(|| file.strips_error(index, Problem::TooLarge { field }))?;
        (next, len) = (strips.ops().end, len.max(window));
    }
    Ok(len)
}

/// Bytes that a window of a group needs: for what its ops hand on, and for the rows beyond it that others may overwrite.
fn window_len(file: &File<'_>, strips: &Strips<'_>) -> Result<Option<usize>, Problem> {
    let mut len = Some(0_usize);
    for index in strips.ops() {
        let member = Member::new(index, file)?;
        let [before, ahead] = strips.beyond_window(index);
        let beyond = before.saturating_add(ahead);
        let reads = member.inputs.into_iter().flatten();
        let reads = reads.map(|id| (id, beyond, false));
        let writes = [(member.output, strips.held_by_window(index), true)];
        for (id, rows, hands_on) in reads.chain(writes) {
            let tensor = file.bare_tensor(id.index())?;
            if (tensor.held != 0) != hands_on {
                continue;
            }
            let bytes = tensor.row_len().and_then(|row| row.checked_mul(rows));
            let bytes = bytes.and_then(align_up);
            len = len
                .zip(bytes)
                .and_then(|(len, bytes)| len.checked_add(bytes));
        }
    }
    Ok(len)
}

fn check_group<'a>(file: &File<'a>, index: usize, next: usize) -> Result<Strips<'a>, Problem> {
    let strips = Strips::decode(file, index)?;
    let ops = strips.ops();
    if ops.start < next {
        return Err(Problem::BadStrips {
            op: ops.start,
            what: "belongs to the group before, or comes before it",
        });
    }
    let ascending = strips.ends.is_sorted_by(|a, b| a < b);
    if !ascending || strips.ends.first().is_none_or(|&end| end == 0) {
        return Err(Problem::Unsorted { field: "ends" });
    }
    for op in ops {
        let member = Member::new(op, file)?;
        check_rows(file, &strips, &member)?;
        check_memory(file, &strips, &member)?;
    }
    Ok(strips)
}

/// The op's result has the group's rows, strips end between whole rows of pixels, and what must be in memory fits.
fn check_rows(file: &File<'_>, strips: &Strips<'_>, member: &Member) -> Result<(), Problem> {
    let bad = |what| Problem::BadStrips {
        op: member.op,
        what,
    };
    let output = file.bare_tensor(member.output.index())?;
    if output.rows() != Some(strips.end_of(strips.count() - 1)) {
        return Err(bad("has not as many rows as the last strip ends with"));
    }
    let whole = |strip| {
        strips
            .end(member.op, strip)
            .is_multiple_of(member.halo.width.max(1))
    };
    if !(0..strips.count()).all(whole) {
        return Err(bad("would compute parts of pixel rows"));
    }
    if output.held != 0 && strips.held(member.op) > output.held as usize {
        return Err(bad("needs more rows in memory than its result holds"));
    }
    Ok(())
}

/// Nothing that the op reads is overwritten before by an op of the group that comes later but has run on an earlier strip, and nothing
/// that is read is still to be written.
fn check_memory(file: &File<'_>, strips: &Strips<'_>, member: &Member) -> Result<(), Problem> {
    let bad = |what| Problem::BadStrips {
        op: member.op,
        what,
    };
    for other in strips.ops() {
        let other = Member::new(other, file)?;
        let written = file.bare_tensor(other.output.index())?;
        for id in member.inputs.into_iter().chain([member.residual]).flatten() {
            let read = file.bare_tensor(id.index())?;
            if !meet(&read, &written)? {
                continue;
            }
            let is_value = id == other.output && other.op < member.op;
            if is_value && member.reads_whole {
                return Err(bad("reads a whole tensor that the group writes"));
            }
            let in_place = member.op == other.op && Some(id) == member.residual;
            if !is_value && !in_place && !follows(file, strips, member, &other, &read)? {
                return Err(bad("reads rows that another op has overwritten"));
            }
        }
        let output = file.bare_tensor(member.output.index())?;
        if member.op < other.op
            && meet(&output, &written)?
            && !follows(file, strips, member, &other, &output)?
        {
            return Err(bad("writes where another op writes"));
        }
    }
    Ok(())
}

/// Whether `later` adds to the rows of `tensor` in place, and only to those that `member` is done with.
fn follows(
    file: &File<'_>,
    strips: &Strips<'_>,
    member: &Member,
    later: &Member,
    tensor: &Tensor<'_>,
) -> Result<bool, Problem> {
    let Some(residual) = later.residual else {
        return Ok(false);
    };
    let (residual, written) = (
        file.bare_tensor(residual.index())?,
        file.bare_tensor(later.output.index())?,
    );
    let ranges = [tensor, &residual, &written].map(Tensor::arena_range);
    Ok(member.op < later.op
        && ranges[0] == ranges[1]
        && ranges[1] == ranges[2]
        && [tensor, &residual, &written].iter().all(|t| t.held == 0)
        && strips.ahead(member.op) >= strips.ahead(later.op).saturating_add(member.halo.above))
}

fn meet(a: &Tensor<'_>, b: &Tensor<'_>) -> Result<bool, Problem> {
    let range = |tensor: &Tensor<'_>| {
        let field = "tensor";
        tensor.arena_range().ok_or(Problem::TooLarge { field })
    };
    Ok(overlap(&range(a)?, &range(b)?))
}
