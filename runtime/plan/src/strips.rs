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
use crate::format::MAX_STRIP_OPS;
use crate::op::{Contents, Halo, Op};
use crate::tensor::{Tensor, TensorId, overlap};

/// A group of ops that run strip by strip. Rows are tokens or pixels of their results, of which all have equally many.
#[derive(Clone, Copy, Debug)]
pub struct Strips<'a> {
    first: usize,
    count: usize,
    ends: &'a [u32],
    reach: [Reach; MAX_STRIP_OPS],
}

/// How an op of a group stands to the ends of the strips.
#[derive(Clone, Copy, Debug)]
struct Reach {
    /// Rows past a strip's end that the op computes in it, for the windows of those after it.
    ahead: usize,
    /// First row that ops of the next strip still read of its result, counted from the strip's end. None if none reads it.
    needed: Option<isize>,
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
        self.ends.len()
    }

    /// The rows of its result that op `op` of the plan computes in strip `strip`. They can be none: an op that is ahead is done earlier.
    pub fn rows(&self, op: usize, strip: usize) -> Range<usize> {
        let start = strip
            .checked_sub(1)
            .map_or(0, |before| self.end(op, before));
        start..self.end(op, strip)
    }

    /// The first row of op `op`'s result that must be in memory from the start of strip `strip` on.
    pub fn base(&self, op: usize, strip: usize) -> usize {
        let Some(before) = strip.checked_sub(1) else {
            return 0;
        };
        let written = self.end(op, before);
        match self.reach_of(op).needed {
            Some(offset) => self
                .end_of(before)
                .saturating_add_signed(offset)
                .min(written),
            None => written,
        }
    }

    /// Rows of op `op`'s result that must be in memory at a time.
    pub fn held(&self, op: usize) -> usize {
        let rows = |strip| self.end(op, strip) - self.base(op, strip);
        (0..self.count()).map(rows).max().unwrap_or(0)
    }

    /// The row that op `op` has reached after strip `strip`.
    fn end(&self, op: usize, strip: usize) -> usize {
        let all = self.end_of(self.count().saturating_sub(1));
        self.end_of(strip)
            .saturating_add(self.reach_of(op).ahead)
            .min(all)
    }

    fn end_of(&self, strip: usize) -> usize {
        self.ends.get(strip).map_or(0, |&end| end as usize)
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
                reach.needed = Some(reach.needed.map_or(needed, |known| known.min(needed)));
            }
        }
        Some(Strips {
            first,
            count: ops.len(),
            ends,
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

/// Checks every group. What holds of ops that run one after the other has been checked; this is about those that run in turn.
pub(crate) fn check(file: &File<'_>) -> Result<(), PlanError> {
    let mut next = 0;
    for index in 0..file.strips_count() {
        let ops =
            check_group(file, index, next).map_err(|problem| file.strips_error(index, problem))?;
        next = ops.end;
    }
    Ok(())
}

fn check_group(file: &File<'_>, index: usize, next: usize) -> Result<Range<usize>, Problem> {
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
    for op in ops.clone() {
        let member = Member::new(op, file)?;
        check_rows(file, &strips, &member)?;
        check_memory(file, &strips, &member)?;
    }
    Ok(ops)
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
