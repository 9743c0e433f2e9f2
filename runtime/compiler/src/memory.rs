//! Where every activation lies in the arena.
//!
//! Greedy by size, as in TensorFlow Lite Micro's planner: largest buffer first, each at the lowest offset where it overlaps
//! no placed buffer that is alive at the same time; ops that run strip by strip are one moment. An op with a residual writes its sum where the residual was, when the
//! residual is not read again; that holds for parts of a concatenation as well, whose whole then takes the old whole's place.

pub(crate) mod parts;
pub(crate) mod strips;

use std::collections::BTreeMap;
use std::ops::Range;

use crate::error::CompileError;
use crate::ir::{Graph, Op, ValueId};
use parts::{Block, Parts, is_structural};
use strips::Schedule;

/// Arena offsets are multiples of this, so that every row of any type is aligned for every kernel.
const ALIGN: usize = 64;

/// Some rows of a block.
#[derive(Debug, Clone)]
struct Piece {
    /// Bytes from the block's first one.
    bytes: Range<usize>,
    /// When it is written and when it is last read.
    alive: [usize; 2],
}

impl Piece {
    /// As `alive`, where the ops of a group that runs strip by strip count as one moment: from its first op to its last.
    fn moments(&self, schedule: &Schedule) -> [usize; 2] {
        let span = |time: usize| {
            time.checked_sub(1)
                .map_or([0; 2], |op| schedule.span(op).map(|op| op + 1))
        };
        [span(self.alive[0])[0], span(self.alive[1])[1]]
    }
}

/// Rows of a block that are in memory at a time.
fn held_rows(block: &Block, schedule: &Schedule) -> usize {
    let held = |(value, _): &(ValueId, Range<usize>)| schedule.held.get(value).copied();
    block.members.iter().find_map(held).unwrap_or(block.rows)
}

/// Blocks that lie in the same place, one after the other in time.
#[derive(Debug, Clone)]
struct Buffer {
    /// Blocks with the byte at which each starts.
    blocks: Vec<(usize, usize)>,
    bytes: usize,
    /// First and last op (by index) at which the buffer holds something needed.
    alive: [usize; 2],
}

/// The arena offset in bytes of every value in `parts`; `row_bytes` is what one row of a value takes.
///
/// # Errors
/// [`CompileError::Quantise`] when two ops would write the same rows of a whole.
pub(crate) fn plan(
    graph: &Graph,
    parts: &Parts,
    schedule: &Schedule,
    row_bytes: &dyn Fn(ValueId) -> usize,
) -> Result<BTreeMap<ValueId, usize>, CompileError> {
    let mut planner = Planner::new(graph, parts, schedule, row_bytes)?;
    planner.merge_residuals();
    let mut offsets = BTreeMap::new();
    for (at, buffer) in planner.place() {
        for (block, start) in &buffer.blocks {
            let row = planner.row_bytes[*block];
            let members = parts.blocks[*block].members.iter();
            offsets.extend(members.map(|(v, rows)| (*v, at + start + rows.start * row)));
        }
    }
    Ok(offsets)
}

struct Planner<'g> {
    graph: &'g Graph,
    parts: &'g Parts,
    schedule: &'g Schedule,
    /// Of each block.
    row_bytes: Vec<usize>,
    /// Of each block.
    pieces: Vec<Vec<Piece>>,
    buffers: Vec<Buffer>,
}

impl<'g> Planner<'g> {
    fn new(
        graph: &'g Graph,
        parts: &'g Parts,
        schedule: &'g Schedule,
        row_bytes: &dyn Fn(ValueId) -> usize,
    ) -> Result<Self, CompileError> {
        let row = |block: &Block| block.members.first().map_or(0, |(v, _)| row_bytes(*v));
        let row_bytes: Vec<usize> = parts.blocks.iter().map(row).collect();
        let mut pieces = vec![];
        for (index, (block, row)) in parts.blocks.iter().zip(&row_bytes).enumerate() {
            let alive = lifetimes(graph, parts, index)?;
            let bytes = block.pieces.iter().map(|r| r.start * row..r.end * row);
            pieces.push(
                bytes
                    .zip(alive)
                    .map(|(bytes, alive)| Piece { bytes, alive })
                    .collect(),
            );
        }
        let buffers = (0..parts.blocks.len()).map(|block| {
            let pieces: &Vec<Piece> = &pieces[block];
            Buffer {
                blocks: vec![(block, 0)],
                bytes: held_rows(&parts.blocks[block], schedule) * row_bytes[block],
                alive: [
                    pieces
                        .iter()
                        .map(|p| p.moments(schedule)[0])
                        .min()
                        .unwrap_or(0),
                    pieces
                        .iter()
                        .map(|p| p.moments(schedule)[1])
                        .max()
                        .unwrap_or(0),
                ],
            }
        });
        Ok(Planner {
            graph,
            parts,
            schedule,
            buffers: buffers.collect(),
            row_bytes,
            pieces,
        })
    }

    /// Puts the result of every op with a residual in the residual's place, where nothing is lost by it.
    fn merge_residuals(&mut self) {
        for op in &self.graph.ops {
            let Some(residual) = op.epilogue().and_then(|e| e.residual) else {
                continue;
            };
            let (Some(from), Some(to)) = (self.position(residual), self.position(op.output)) else {
                continue;
            };
            // The value that lies deeper in its buffer stays; wholes stay aligned.
            let (kept, moved) = if from.1 >= to.1 {
                (from, to)
            } else {
                (to, from)
            };
            let shift = kept.1 - moved.1;
            let fits = kept.0 != moved.0 && shift.is_multiple_of(ALIGN);
            if fits && self.compatible(kept.0, moved.0, shift) {
                self.join(kept.0, moved.0, shift);
            }
        }
    }

    /// The buffer of a value, and the byte of the buffer where it starts.
    fn position(&self, value: ValueId) -> Option<(usize, usize)> {
        let (block, rows) = self.parts.find(value)?;
        self.buffers.iter().enumerate().find_map(|(index, buffer)| {
            let (_, start) = buffer.blocks.iter().find(|(b, _)| *b == block)?;
            Some((index, start + rows.start * self.row_bytes[block]))
        })
    }

    /// Whether buffer `moved` can lie in buffer `kept` from byte `shift` on: no byte is written while the other still needs it.
    fn compatible(&self, kept: usize, moved: usize, shift: usize) -> bool {
        let pieces = |buffer: usize, shift: usize| {
            let blocks = self.buffers[buffer].blocks.iter();
            blocks.flat_map(move |(block, start)| {
                let pieces = self.pieces[*block].iter();
                pieces.map(move |p| (*block, start + shift, p))
            })
        };
        pieces(kept, 0).all(|a| {
            pieces(moved, shift).all(|b| !overlap(a, b) || self.follows(a, b) || self.follows(b, a))
        })
    }

    /// Whether the first piece's last read is over when the second is written: before, or by the op that writes the second over it.
    fn follows(
        &self,
        (a_block, a_start, a): (usize, usize, &Piece),
        (b_block, b_start, b): (usize, usize, &Piece),
    ) -> bool {
        if a.moments(self.schedule)[1] < b.moments(self.schedule)[0] {
            return true;
        }
        if a.alive[1] != b.alive[0] {
            return false;
        }
        let Some(op) = b.alive[0]
            .checked_sub(1)
            .and_then(|i| self.graph.ops.get(i))
        else {
            return false;
        };
        let Some(residual) = op.epilogue().and_then(|e| e.residual) else {
            return false;
        };
        let bytes = |value: ValueId, start: usize| {
            self.parts.find(value).map(|(block, rows)| {
                let row = self.row_bytes[block];
                (block, start + rows.start * row..start + rows.end * row)
            })
        };
        let (from, to) = (bytes(residual, a_start), bytes(op.output, b_start));
        let in_place = from.as_ref().map(|f| &f.1) == to.as_ref().map(|t| &t.1);
        let of_op = from.is_some_and(|f| f.0 == a_block) && to.is_some_and(|t| t.0 == b_block);
        in_place && of_op && !self.reads_otherwise(op, residual)
    }

    /// Whether an operand other than the residual lies in the same rows.
    fn reads_otherwise(&self, op: &Op, residual: ValueId) -> bool {
        let Some((block, rows)) = self.parts.find(residual) else {
            return false;
        };
        let mut inputs = op.inputs.iter().filter_map(|v| self.parts.find(*v));
        inputs.any(|(b, r)| b == block && r.start < rows.end && rows.start < r.end)
    }

    fn join(&mut self, kept: usize, moved: usize, shift: usize) {
        let at = if moved < kept { kept - 1 } else { kept };
        let moved = self.buffers.remove(moved);
        let kept = &mut self.buffers[at];
        kept.bytes = kept.bytes.max(shift + moved.bytes);
        kept.alive = [
            kept.alive[0].min(moved.alive[0]),
            kept.alive[1].max(moved.alive[1]),
        ];
        kept.blocks
            .extend(moved.blocks.iter().map(|(block, at)| (*block, at + shift)));
    }

    /// Every buffer with its offset in the arena.
    fn place(&self) -> Vec<(usize, &Buffer)> {
        let mut buffers: Vec<&Buffer> = self.buffers.iter().collect();
        buffers.sort_by_key(|b| (std::cmp::Reverse(b.bytes), b.alive[0]));
        let mut placed: Vec<(usize, &Buffer)> = vec![];
        for buffer in buffers {
            placed.push((lowest_fit(buffer, &placed), buffer));
        }
        placed
    }
}

/// When each piece of a block is written and last read. Time 0 is the copy of the image, time i + 1 the i-th op of the graph.
fn lifetimes(graph: &Graph, parts: &Parts, block: usize) -> Result<Vec<[usize; 2]>, CompileError> {
    let pieces = &parts.blocks[block].pieces;
    let mut alive: Vec<Option<[usize; 2]>> = vec![None; pieces.len()];
    let covered = |value: ValueId| {
        let rows = parts.find(value).filter(|(b, _)| *b == block);
        let rows = rows.map_or(0..0, |(_, rows)| rows);
        (0..pieces.len())
            .filter(move |p| pieces[*p].start < rows.end && rows.start < pieces[*p].end)
    };
    covered(graph.input).for_each(|p| alive[p] = Some([0, 0]));
    for (index, op) in real_ops(graph) {
        for piece in covered(op.output) {
            if alive[piece].replace([index + 1; 2]).is_some() {
                return Err(written_twice(graph, op));
            }
        }
    }
    let mut read = |value: ValueId, time: usize| {
        for piece in covered(value) {
            let alive = alive[piece].get_or_insert([0, 0]);
            alive[1] = alive[1].max(time);
        }
    };
    for (index, op) in real_ops(graph) {
        op.reads().for_each(|value| read(value, index + 1));
    }
    read(graph.output, graph.ops.len() + 1);
    Ok(alive.into_iter().map(Option::unwrap_or_default).collect())
}

fn real_ops(graph: &Graph) -> impl Iterator<Item = (usize, &Op)> {
    let ops = graph.ops.iter().enumerate();
    ops.filter(|(_, op)| !is_structural(op))
}

fn written_twice(graph: &Graph, op: &Op) -> CompileError {
    CompileError::Quantise {
        what: format!("{} `{}`", op.kind_name(), graph.values[op.output].name),
        reason:
            "its result would have to share its place in a concatenation with another layer's; \
                 concatenate results of layers, not slices of an earlier concatenation"
                .into(),
    }
}

fn overlap(
    (_, a_start, a): (usize, usize, &Piece),
    (_, b_start, b): (usize, usize, &Piece),
) -> bool {
    a_start + a.bytes.start < b_start + b.bytes.end
        && b_start + b.bytes.start < a_start + a.bytes.end
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

#[cfg(test)]
pub(crate) mod tests;
