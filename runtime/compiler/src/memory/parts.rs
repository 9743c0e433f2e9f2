//! Which values lie inside which: [`Kind::Slice`] and [`Kind::Concat`] are no operations of the plan, they only say that one
//! value is rows of another.
//!
//! Values that share memory in this way form a [`Block`]: one value is the whole, every other one is a part of it, and parts
//! do not overlap. A value on its own is a block of one.

use std::collections::BTreeMap;
use std::ops::Range;

use crate::error::CompileError;
use crate::ir::{Graph, Kind, Op, ValueId};

/// Memory that belongs to one value, or to a value and its parts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Block {
    pub(crate) rows: usize,
    /// Values and the rows they lie in; several have the same rows when nothing but slices and concatenations is between them.
    pub(crate) members: Vec<(ValueId, Range<usize>)>,
    /// Cuts all rows into pieces, in order: the parts, and what lies between them. One piece if there are no parts.
    pub(crate) pieces: Vec<Range<usize>>,
}

/// The blocks of a graph. Only values that an operation of the plan touches belong to one.
#[derive(Debug, Clone, Default)]
pub(crate) struct Parts {
    pub(crate) blocks: Vec<Block>,
    of: BTreeMap<ValueId, (usize, Range<usize>)>,
}

impl Parts {
    /// Finds the blocks, in the order in which their first values appear.
    ///
    /// # Errors
    /// [`CompileError::Quantise`] when a value would have to lie in two places.
    pub(crate) fn new(graph: &Graph) -> Result<Parts, CompileError> {
        let mut parts = Parts::default();
        for family in families(graph)? {
            for block in blocks(graph, &family)? {
                let index = parts.blocks.len();
                let members = block.members.iter();
                parts
                    .of
                    .extend(members.map(|(v, rows)| (*v, (index, rows.clone()))));
                parts.blocks.push(block);
            }
        }
        Ok(parts)
    }

    /// The block of a value and the rows of the block that the value is.
    pub(crate) fn find(&self, value: ValueId) -> Option<(usize, Range<usize>)> {
        self.of.get(&value).cloned()
    }

    /// The values that share a value's memory, itself included.
    pub(crate) fn related(&self, value: ValueId) -> impl Iterator<Item = ValueId> + '_ {
        let block = self.of.get(&value).and_then(|(b, _)| self.blocks.get(*b));
        block.into_iter().flat_map(|b| &b.members).map(|(v, _)| *v)
    }
}

/// Whether an op says where a value lies rather than computing it.
pub(crate) fn is_structural(op: &Op) -> bool {
    matches!(op.kind, Kind::Slice { .. } | Kind::Concat)
}

/// The values that operations of the plan read or write, in the order of their first appearance.
pub(crate) fn touched(graph: &Graph) -> Vec<ValueId> {
    let ops = graph.ops.iter().filter(|op| !is_structural(op));
    let values = ops.flat_map(|op| op.reads().chain([op.output]));
    let mut touched = vec![];
    let mut seen = vec![false; graph.values.len()];
    for value in [graph.input]
        .into_iter()
        .chain(values)
        .chain([graph.output])
    {
        if !std::mem::replace(&mut seen[value], true) {
            touched.push(value);
        }
    }
    touched
}

/// Values with the first row of each, counted from a common origin.
type Family = Vec<(ValueId, isize)>;

/// Values that slices and concatenations tie together.
fn families(graph: &Graph) -> Result<Vec<Family>, CompileError> {
    let mut family_of: Vec<usize> = (0..graph.values.len()).collect();
    let mut families: Vec<Family> = family_of.iter().map(|v| vec![(*v, 0)]).collect();
    let mut tie = |inside: ValueId, whole: ValueId, start: usize| {
        let (from, to) = (family_of[inside], family_of[whole]);
        let first = |families: &[Family], family: usize, value: ValueId| {
            let member = families[family].iter().find(|(v, _)| *v == value);
            member.map_or(0, |(_, row)| *row)
        };
        let shift = first(&families, to, whole) + start as isize - first(&families, from, inside);
        if from == to {
            return shift == 0;
        }
        for (value, row) in std::mem::take(&mut families[from]) {
            family_of[value] = to;
            families[to].push((value, row + shift));
        }
        true
    };
    for op in &graph.ops {
        let mut start = 0;
        for input in &op.inputs {
            let tied = match op.kind {
                Kind::Slice { start } => tie(op.output, *input, start),
                Kind::Concat => tie(*input, op.output, start),
                _ => break,
            };
            if !tied {
                return Err(two_places(graph, *input));
            }
            start += graph.values[*input].rows;
        }
    }
    families.retain(|f| !f.is_empty());
    Ok(families)
}

/// The blocks of a family: values that overlap, directly or through others.
fn blocks(graph: &Graph, family: &Family) -> Result<Vec<Block>, CompileError> {
    let touched = touched_of(graph, family);
    let mut blocks = vec![];
    let mut rest = touched.as_slice();
    while let Some((_, first)) = rest.first() {
        let mut end = first.end;
        let mut len = 0;
        while let Some((_, rows)) = rest.get(len).filter(|(_, rows)| rows.start < end) {
            end = end.max(rows.end);
            len += 1;
        }
        let (members, others) = rest.split_at(len);
        blocks.push(block(graph, members, first.start, end)?);
        rest = others;
    }
    Ok(blocks)
}

/// The values of a family that matter, by first row.
fn touched_of(graph: &Graph, family: &Family) -> Vec<(ValueId, Range<isize>)> {
    let all = touched(graph);
    let mut members: Vec<(ValueId, Range<isize>)> = family
        .iter()
        .filter(|(v, _)| all.contains(v))
        .map(|(v, row)| (*v, *row..*row + graph.values[*v].rows as isize))
        .collect();
    members.sort_by_key(|(v, rows)| (rows.start, std::cmp::Reverse(rows.end), *v));
    members
}

fn block(
    graph: &Graph,
    members: &[(ValueId, Range<isize>)],
    start: isize,
    end: isize,
) -> Result<Block, CompileError> {
    let local = |rows: &Range<isize>| (rows.start - start) as usize..(rows.end - start) as usize;
    let rows = (end - start) as usize;
    let mut pieces: Vec<Range<usize>> = vec![];
    // The whole comes first: members are sorted by start, longest first.
    let mut next = 0;
    for (value, extent) in members {
        let extent = local(extent);
        let is_whole = extent == (0..rows);
        if is_whole || pieces.last() == Some(&extent) {
            continue;
        }
        if extent.start < next || members[0].1 != (start..end) {
            return Err(two_places(graph, *value));
        }
        if extent.start > next {
            pieces.push(next..extent.start);
        }
        next = extent.end;
        pieces.push(extent);
    }
    if next < rows {
        pieces.push(next..rows);
    }
    let members = members.iter().map(|(v, e)| (*v, local(e))).collect();
    Ok(Block {
        rows,
        members,
        pieces,
    })
}

fn two_places(graph: &Graph, value: ValueId) -> CompileError {
    CompileError::Quantise {
        what: format!("`{}`", graph.values[value].name),
        reason: "it would have to be a part of two different tensors at once; concatenate copies, \
                 or rows that do not overlap"
            .into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::memory::tests::{Builder, rows_of};

    #[test]
    fn slices_and_concatenations_of_the_same_rows_are_one_block() {
        let mut b = Builder::new(10);
        let z = b.norm(0);
        let (x, s) = (b.slice(z, 0, 7), b.slice(z, 7, 3));
        let (x, s) = (b.linear(x, Some(x)), b.linear(s, Some(s)));
        let z2 = b.concat(&[x, s]);
        let graph = b.finish(z2);
        let parts = Parts::new(&graph).expect("two wholes with two parts each");
        let (block, rows) = parts.find(s).expect("s is touched");
        assert_eq!(rows, 7..10);
        assert_eq!(parts.blocks[block].pieces, [0..7, 7..10]);
        assert_eq!(rows_of(&parts, z2), Some(0..10));
        assert_ne!(parts.find(z).map(|p| p.0), parts.find(z2).map(|p| p.0));
    }

    #[test]
    fn a_whole_that_nobody_touches_does_not_tie_its_parts() {
        let mut b = Builder::new(10);
        let (x, s) = (b.linear(0, None), b.linear(0, None));
        let z = b.concat(&[x, s]);
        let (x2, s2) = (b.slice(z, 0, 10), b.slice(z, 10, 10));
        let (x2, s2) = (b.linear(x2, None), b.linear(s2, None));
        let end = b.concat(&[x2, s2]);
        let graph = b.finish(end);
        let parts = Parts::new(&graph).expect("valid");
        assert_ne!(parts.find(x).map(|p| p.0), parts.find(s).map(|p| p.0));
        assert_eq!(rows_of(&parts, x), Some(0..10));
        assert_eq!(parts.find(z), None);
    }

    #[test]
    fn a_part_of_two_wholes_is_refused() {
        let mut b = Builder::new(4);
        let (x, y) = (b.linear(0, None), b.linear(0, None));
        let (a, c) = (b.concat(&[x, y]), b.concat(&[y, x]));
        let (a, c) = (b.linear(a, None), b.linear(c, None));
        let end = b.add(a, c);
        let error = Parts::new(&b.finish(end)).map(|_| ()).unwrap_err();
        assert!(error.to_string().contains("two different"), "{error}");
    }
}
