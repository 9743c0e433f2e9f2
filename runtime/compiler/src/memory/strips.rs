//! Which ops run strip by strip, so that the large values between them never exist whole.
//!
//! A run of consecutive row-by-row ops (norm, linear layers, convolutions of stride 1, sums) up to a residual sum qualifies when what
//! lies between its ops is larger than [`STRIP_BYTES`]. An attention can only come first, for it reads whole values.

use std::collections::BTreeMap;

use vitlet_plan::format::MAX_STRIP_OPS;
use vitlet_plan::{Halo, StripOp, Strips};

use super::parts::{Parts, is_structural};
use crate::ir::{Geometry, Graph, Kind, Op, ValueId};

/// What a strip holds between its ops at most: with the weights it stays in the 512 KB that are the L2 of a Cortex-A76 or a small A53 cluster.
const STRIP_BYTES: usize = 300_000;
/// Longer strips are not worth their memory: what a strip costs (a few thousand instructions) is no longer seen.
const STRIP_ROWS: usize = 448;
/// Rows that kernels compute together, for two threads.
const TILE_ROWS: usize = 16;

/// Consecutive ops that run strip by strip.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Group {
    /// Indices in the graph; only structural ops lie between.
    pub(crate) ops: Vec<usize>,
    /// The same ops, as far as strips depend on them.
    pub(crate) members: Vec<StripOp>,
    /// Rows at which strips end.
    pub(crate) ends: Vec<u32>,
}

/// The groups of a graph.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Schedule {
    /// In the order of their ops.
    pub(crate) groups: Vec<Group>,
    /// Rows in memory at a time, of the values of which that are not all.
    pub(crate) held: BTreeMap<ValueId, usize>,
}

impl Schedule {
    /// Finds the groups; `row_bytes` is what one row of a value takes.
    pub(crate) fn new(graph: &Graph, parts: &Parts, row_bytes: &dyn Fn(ValueId) -> usize) -> Self {
        Self::within(STRIP_BYTES, graph, parts, row_bytes)
    }

    /// As `new`, for strips of `budget` bytes.
    pub(crate) fn within(
        budget: usize,
        graph: &Graph,
        parts: &Parts,
        row_bytes: &dyn Fn(ValueId) -> usize,
    ) -> Self {
        let mut schedule = Schedule::default();
        for run in runs(graph) {
            let run = Run::new(graph, parts, row_bytes, &run, budget);
            if let Some((group, held)) = run.group() {
                schedule.groups.push(group);
                schedule.held.extend(held);
            }
        }
        schedule
    }

    /// First and last op that run in turn with op `op`.
    pub(crate) fn span(&self, op: usize) -> [usize; 2] {
        let group = self.groups.iter().find(|group| group.ops.contains(&op));
        let ends = group.and_then(|group| Some([*group.ops.first()?, *group.ops.last()?]));
        ends.unwrap_or([op; 2])
    }
}

/// Consecutive ops that could run strip by strip.
fn runs(graph: &Graph) -> Vec<Vec<usize>> {
    let mut runs: Vec<Vec<usize>> = vec![];
    let mut open = false;
    for (index, op) in graph.ops.iter().enumerate() {
        if is_structural(op) {
            continue;
        }
        if halo(op).is_none() {
            open = false;
            continue;
        }
        let rows = |index: &usize| graph.values[graph.ops[*index].output].rows;
        let attention = matches!(op.kind, Kind::Attention { .. });
        match runs.last_mut() {
            Some(run)
                if open
                    && !attention
                    && run.len() < MAX_STRIP_OPS
                    && rows(&run[0]) == rows(&index) =>
            {
                run.push(index);
            }
            _ => runs.push(vec![index]),
        }
        open = op.epilogue().is_none_or(|e| e.residual.is_none());
    }
    runs
}

/// What an op reads around a row of its result, if it can run strip by strip.
fn halo(op: &Op) -> Option<Halo> {
    match &op.kind {
        Kind::Linear { .. }
        | Kind::Attention { .. }
        | Kind::Add { .. }
        | Kind::AddConstant(_)
        | Kind::Convert => Some(Halo::NONE),
        Kind::LayerNorm { gather, .. } => gather.is_none().then_some(Halo::NONE),
        Kind::Conv { geometry, .. } | Kind::Depthwise { geometry, .. } => window(geometry),
        Kind::GroupNorm { .. }
        | Kind::Activate(_)
        | Kind::Mul { .. }
        | Kind::MaxPool(_)
        | Kind::Slice { .. }
        | Kind::Concat
        | Kind::MeanPool
        | Kind::PoolLinear { .. } => None,
    }
}

fn window(geometry: &Geometry) -> Option<Halo> {
    let width = geometry.output[1];
    (geometry.input == geometry.output && geometry.stride == [1, 1]).then_some(Halo {
        width,
        above: geometry.pad[0] * width,
        below: geometry.pad[2] * width,
    })
}

struct Run<'g> {
    graph: &'g Graph,
    row_bytes: &'g dyn Fn(ValueId) -> usize,
    budget: usize,
    ops: Vec<usize>,
    members: Vec<StripOp>,
    /// Places in `ops` of those whose results only later ops of the run read.
    inner: Vec<usize>,
}

impl<'g> Run<'g> {
    fn new(
        graph: &'g Graph,
        parts: &Parts,
        row_bytes: &'g dyn Fn(ValueId) -> usize,
        ops: &[usize],
        budget: usize,
    ) -> Self {
        let outside = |place: usize| {
            let op = &graph.ops[ops[place]];
            let value = op.output;
            // A sum takes the place of what it is added to, all of it.
            let residual = |op: &Op| op.epilogue().and_then(|e| e.residual);
            let in_place =
                residual(op).is_some() || graph.ops.iter().any(|op| residual(op) == Some(value));
            let reads = |index: &usize| graph.ops[*index].reads().any(|v| v == value);
            let mut readers = (0..graph.ops.len()).filter(reads).peekable();
            let shared = parts.related(value).count() > 1;
            value == graph.output
                || shared
                || in_place
                || readers.peek().is_none()
                || readers.any(|reader| !ops.contains(&reader))
        };
        let inner: Vec<usize> = (0..ops.len()).filter(|place| !outside(*place)).collect();
        // From the first op that writes such a value to the last that reads one.
        let first = inner.first().copied().unwrap_or(ops.len());
        let read = |place: &usize| {
            let mut reads = graph.ops[ops[*place]].reads();
            reads.any(|v| inner.iter().any(|inner| graph.ops[ops[*inner]].output == v))
        };
        let end = (0..ops.len())
            .rev()
            .find(read)
            .map_or(first, |last| last + 1);
        let ops = ops[first..end.max(first)].to_vec();
        Run {
            graph,
            row_bytes,
            budget,
            members: ops
                .iter()
                .map(|index| member(graph, &ops, *index))
                .collect(),
            inner: inner.into_iter().map(|place| place - first).collect(),
            ops,
        }
    }

    fn op(&self, place: usize) -> &Op {
        &self.graph.ops[self.ops[place]]
    }

    fn rows(&self) -> usize {
        self.graph.values[self.op(0).output].rows
    }

    /// Bytes of a row of each inner value.
    fn inner_bytes(&self) -> impl Iterator<Item = (usize, usize)> + '_ {
        let bytes = |place: &usize| (*place, (self.row_bytes)(self.op(*place).output));
        self.inner.iter().map(bytes)
    }

    /// The group and the rows that it holds of its inner values; `None` if strips would save nothing, or lose a sum in place.
    fn group(&self) -> Option<(Group, BTreeMap<ValueId, usize>)> {
        if self.members.len() < 2 {
            return None;
        }
        let bytes = self.inner_bytes().map(|(_, bytes)| bytes * self.rows());
        if bytes.sum::<usize>() <= self.budget {
            return None;
        }
        let ends = self.ends()?;
        let strips = Strips::new(0, &self.members, &ends)?;
        if ends.len() < 2 || !self.sums_stay_in_place(&strips) {
            return None;
        }
        let held = |place: &usize| (self.op(*place).output, strips.held(*place));
        let held = self.inner.iter().map(held);
        let held = held.filter(|(_, held)| *held < self.rows()).collect();
        let (ops, members) = (self.ops.clone(), self.members.clone());
        Some((Group { ops, members, ends }, held))
    }

    /// Whether every op that reads what a later one adds to is as far ahead as that, its window included.
    fn sums_stay_in_place(&self, strips: &Strips<'_>) -> bool {
        (0..self.ops.len()).all(|later| {
            let residual = self.op(later).epilogue().and_then(|e| e.residual);
            (0..later).all(|place| {
                let reads = self.op(place).reads().any(|v| Some(v) == residual);
                !reads
                    || strips.ahead(place) >= strips.ahead(later) + self.members[place].halo.above
            })
        })
    }

    /// Where strips end: evenly, between whole rows of pixels, or between an attention's windows.
    fn ends(&self) -> Option<Vec<u32>> {
        let width = self.members.iter().map(|m| m.halo.width).max()?;
        if self
            .members
            .iter()
            .any(|m| !width.is_multiple_of(m.halo.width))
        {
            return None;
        }
        let (rows, most) = (self.rows(), self.strip_rows()?);
        let ends: Vec<usize> = match &self.op(0).kind {
            Kind::Attention { out, shape, .. } => {
                fewest_cuts(&windows_cut(out, shape.slots * shape.queries, rows), most)
            }
            _ => {
                let unit = if width == 1 { TILE_ROWS } else { 2 * width };
                let unit = if unit > most { width } else { unit };
                let even = rows.div_ceil(rows.div_ceil(most)).next_multiple_of(unit);
                let ends = (1..).map(|n| n * even);
                ends.take_while(|end| *end < rows).chain([rows]).collect()
            }
        };
        ends.into_iter()
            .map(|end| u32::try_from(end).ok())
            .collect()
    }

    /// How many rows a strip may have.
    fn strip_rows(&self) -> Option<usize> {
        // Rows that are held besides the strip's own do not depend on the strip.
        let end = [u32::try_from(self.rows()).ok()?];
        let strips = Strips::new(0, &self.members, &end)?;
        let (mut per_row, mut besides) = (0, 0);
        for (place, bytes) in self.inner_bytes() {
            let readers = self.members.iter().enumerate();
            let readers = readers.filter(|(_, m)| m.reads >> place & 1 != 0);
            let above =
                readers.map(|(reader, m)| m.halo.above.saturating_sub(strips.ahead(reader)));
            besides += (strips.ahead(place) + above.max().unwrap_or(0)) * bytes;
            per_row += bytes;
        }
        let most = self.budget.saturating_sub(besides) / per_row.max(1);
        Some(most.clamp(1, STRIP_ROWS))
    }
}

/// What strips need to know of an op.
fn member(graph: &Graph, ops: &[usize], index: usize) -> StripOp {
    let op = &graph.ops[index];
    let reads = |other: &usize| op.reads().any(|v| v == graph.ops[*other].output);
    StripOp {
        halo: halo(op).unwrap_or(Halo::NONE),
        reads: (0..).zip(ops).fold(0, |bits, (bit, other)| {
            bits | u32::from(reads(other)) << bit
        }),
    }
}

/// How many windows of an attention have rows on both sides of each row's start; `out` is the row of each query, `size` the rows of a
/// window.
fn windows_cut(out: &[u32], size: usize, rows: usize) -> Vec<usize> {
    let mut cut = vec![0; rows];
    for window in out.chunks(size.max(1)) {
        let (first, last) = (window.iter().min(), window.iter().max());
        if let (Some(first), Some(last)) = (first, last) {
            let between = cut.get_mut(*first as usize + 1..=*last as usize);
            between
                .unwrap_or_default()
                .iter_mut()
                .for_each(|count| *count += 1);
        }
    }
    cut
}

/// Ends of strips of at most `most` rows that cut the fewest windows: every window that is cut packs its keys and values twice.
fn fewest_cuts(windows_cut: &[usize], most: usize) -> Vec<usize> {
    let rows = windows_cut.len();
    // For each end, what the cuts up to it cost, and the end before.
    let mut best = vec![(0, 0); rows + 1];
    for end in 1..=rows {
        let cost = windows_cut.get(end).map_or(0, |count| count + 1);
        let starts = end.saturating_sub(most.max(1))..end;
        let start = starts.min_by_key(|start| best[*start].0).unwrap_or(0);
        best[end] = (best[start].0 + cost, start);
    }
    let mut ends = vec![];
    let mut end = rows;
    while end > 0 {
        ends.push(end);
        end = best[end].1;
    }
    ends.reverse();
    ends
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::memory::tests::Builder;

    #[test]
    fn windows_are_cut_where_the_fewest_are() {
        // Windows of 2×2 in a map of 4×6, shifted by one row: the last one goes around the edge.
        let window =
            |y: u32, x: u32| [(0, 0), (0, 1), (1, 0), (1, 1)].map(|(v, u)| (y + v) % 6 * 4 + x + u);
        let out: Vec<u32> = [1, 3, 5]
            .into_iter()
            .flat_map(|y| [window(y, 0), window(y, 2)].concat())
            .collect();
        let cut = windows_cut(&out, 4, 24);
        assert_eq!([cut[4], cut[8], cut[12], cut[20]], [2, 4, 2, 2], "{cut:?}");
        assert_eq!(fewest_cuts(&cut, 8), [4, 12, 20, 24]);
        assert_eq!(fewest_cuts(&[0; 10], 4), [2, 6, 10]);
        assert_eq!(fewest_cuts(&[0; 10], 100), [10]);
    }

    /// As a block of Swin: norm, linear, linear with a sum.
    #[test]
    fn a_run_ends_with_its_sum_and_holds_what_lies_between() {
        let mut b = Builder::new(64);
        let x = b.linear(0, None);
        let (norm, hidden, sum) = {
            let norm = b.norm(x);
            let hidden = b.linear(norm, None);
            (norm, hidden, b.linear(hidden, Some(x)))
        };
        let end = b.linear(sum, None);
        let graph = b.finish(end);
        let parts = Parts::new(&graph).expect("no parts");
        let schedule = Schedule::within(1000, &graph, &parts, &|_| 24);
        // 1000 bytes are 20 rows of both values: a tile of 16 is the most.
        let [group] = &schedule.groups[..] else {
            panic!("{:?}", schedule.groups)
        };
        assert_eq!(
            (&group.ops[..], &group.ends[..]),
            (&[0, 1, 2, 3][1..], &[16, 32, 48, 64][..])
        );
        assert_eq!(schedule.held, BTreeMap::from([(norm, 16), (hidden, 16)]));
        assert_eq!(schedule.span(2), [1, 3]);
        assert_eq!(schedule.span(4), [4, 4]);
        assert!(
            Schedule::within(4000, &graph, &parts, &|_| 24)
                .groups
                .is_empty()
        );
    }

    #[test]
    fn a_window_needs_rows_around() {
        let mut b = Builder::new(64);
        let x = b.linear(0, None);
        let hidden = b.linear(x, None);
        let around = b.window(hidden);
        let sum = b.linear(around, Some(x));
        let end = b.linear(sum, None);
        let graph = b.finish(end);
        let parts = Parts::new(&graph).expect("no parts");
        let schedule = Schedule::within(1000, &graph, &parts, &|_| 24);
        assert_eq!(schedule.held, BTreeMap::from([(hidden, 18), (around, 16)]));
    }
}
