//! Where every activation lies in the arena.
//!
//! Greedy by size, as in TensorFlow Lite Micro's planner: largest buffer first, each at the lowest offset where it overlaps
//! no placed buffer that is alive at the same time. An op with a residual writes its sum where the residual was, when the
//! residual is not read again.

use std::collections::BTreeMap;

use crate::ir::{Graph, ValueId};

/// Arena offsets are multiples of this, so that every row of any type is aligned for every kernel.
const ALIGN: usize = 64;

/// A buffer: one value, or several that follow each other in the same place.
#[derive(Debug, Clone)]
struct Buffer {
    values: Vec<ValueId>,
    bytes: usize,
    /// First and last op (by index) at which the buffer holds something needed.
    alive: [usize; 2],
}

/// The arena offset in bytes of every value that `bytes` gives a size for.
pub(crate) fn plan(graph: &Graph, bytes: &BTreeMap<ValueId, usize>) -> BTreeMap<ValueId, usize> {
    let mut buffers = buffers(graph, bytes);
    buffers.sort_by_key(|b| (std::cmp::Reverse(b.bytes), b.alive[0]));
    let mut placed: Vec<(usize, &Buffer)> = vec![];
    let mut offsets = BTreeMap::new();
    for buffer in &buffers {
        let offset = lowest_fit(buffer, &placed);
        placed.push((offset, buffer));
        offsets.extend(buffer.values.iter().map(|v| (*v, offset)));
    }
    offsets
}

/// Op 0 stands for the copy of the image, op i + 1 for the i-th op of the graph.
fn buffers(graph: &Graph, bytes: &BTreeMap<ValueId, usize>) -> Vec<Buffer> {
    let mut of: BTreeMap<ValueId, usize> = BTreeMap::new();
    let mut buffers: Vec<Buffer> = vec![];
    let mut add = |buffers: &mut Vec<Buffer>, value: ValueId, at: usize| {
        let bytes = bytes.get(&value).copied().unwrap_or_default();
        of.insert(value, buffers.len());
        buffers.push(Buffer {
            values: vec![value],
            bytes,
            alive: [at, at],
        });
    };
    add(&mut buffers, graph.input, 0);
    for (index, op) in graph.ops.iter().enumerate() {
        add(&mut buffers, op.output, index + 1);
    }
    for (index, op) in graph.ops.iter().enumerate() {
        for value in op.reads() {
            let buffer = &mut buffers[of[&value]];
            buffer.alive[1] = buffer.alive[1].max(index + 1);
        }
    }
    buffers[of[&graph.output]].alive[1] = graph.ops.len() + 1;
    for (index, op) in graph.ops.iter().enumerate() {
        let Some(residual) = op.epilogue().and_then(|e| e.residual) else {
            continue;
        };
        let (from, to) = (of[&residual], of[&op.output]);
        if from != to && buffers[from].alive[1] == index + 1 && !op.inputs.contains(&residual) {
            let merged = buffers[to].clone();
            buffers[from].alive[1] = merged.alive[1];
            for value in merged.values {
                of.insert(value, from);
                buffers[from].values.push(value);
            }
            buffers[to].values.clear();
        }
    }
    buffers.retain(|b| !b.values.is_empty());
    buffers
}

fn lowest_fit(buffer: &Buffer, placed: &[(usize, &Buffer)]) -> usize {
    let together =
        |other: &Buffer| buffer.alive[0] <= other.alive[1] && other.alive[0] <= buffer.alive[1];
    let mut taken: Vec<(usize, usize)> = placed
        .iter()
        .filter(|(_, b)| together(b))
        .map(|(offset, b)| (*offset, offset + b.bytes))
        .collect();
    taken.sort_unstable();
    let mut offset = 0;
    for (start, end) in taken {
        if offset + buffer.bytes <= start {
            break;
        }
        offset = offset.max(end.next_multiple_of(ALIGN));
    }
    offset
}
