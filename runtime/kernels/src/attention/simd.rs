//! For every head and group, keys and values are packed into the GEMM's blocked layout; then, for up to 8 query rows at a time:
//!
//! 1. logits (`weights`): the tile over the packed keys;
//! 2. exponentials (`weights`): 8 at a time, split into the two planes, which stay 0 past the last key;
//! 3. output (`mix`): the tile over the packed values, once for each plane; or whole exponentials times the values, if there are few keys and the
//!    instruction set is better at that.
//!
//! Instruction sets may have a way of their own for the first queries of a group ([`Isa::attend`]).
//!
//! With several slots, step 3 follows when the planes of the group's query rows are complete: for each slot, values are packed and mixed.
//!
//! Every thread packs for itself, so a group that has no row in the thread's range is skipped. Of the other groups the first to the last query with a
//! row in the range are computed; what falls outside the range goes to a spare row.

mod bias;
pub(crate) mod mix;
pub(crate) mod pack;
pub(crate) mod weights;
pub(crate) mod workspace;

use core::ops::Range;

use self::bias::{expand_bias, widen_labels};
use self::mix::Mix;
use self::pack::{PackKeys, PackValues, query_rows};
use self::weights::{BIASED, Logits, MASKED, PLAIN, Softmax};
use self::workspace::Workspace;
use super::{Attention, AttentionShape};
use crate::gemm::simd::Rows;
use crate::gemm::{NR, ROWS};
use crate::isa::{Isa, Reference as _, Routine, Vectorised};
use crate::{Out, SMALL, SizeError};

/// With so many keys Σ E·v is below 2³¹, and the planes' sums below 2²⁴: f32 holds these, so Σ E·v as f32 is what the planes' sums make (see `mix`).
const WHOLE_KEYS_MAX: usize = 1023;
const _: () =
    assert!(16383 * 128 * WHOLE_KEYS_MAX < 1 << 31 && 127 * 128 * WHOLE_KEYS_MAX < 1 << 24);

/// Below every logit, biased (2²² + 2²⁴) or not (512·2¹⁴), and far enough from overflow.
const PAST_END: i32 = -(1 << 29);

/// One head's constants.
pub(crate) struct Head {
    index: usize,
    pub(crate) logit_scale: f32,
    /// 128 times the output scale, for the planes' sums are joined in units of the upper one.
    pub(crate) out_scale: f32,
    /// Initial logits of the last two vectors of keys, of which the second is partial; 0 where there is a key.
    pub(crate) past_end: [i32; 2 * NR],
    /// Largest biased logits of the last, partial vector of keys: any where there is a key.
    cap: [i32; NR],
    /// All ones where the last vector of keys has a key.
    pub(crate) mask: [i16; NR],
}

impl Head {
    #[inline(never)]
    fn new(op: &Attention<'_>, index: usize) -> Self {
        let (mut past_end, mut cap, mut mask) = ([0; 2 * NR], [i32::MAX; NR], [-1; NR]);
        let rest = op.shape.keys % NR;
        if rest > 0 {
            past_end[NR + rest..].fill(PAST_END);
            cap[rest..].fill(PAST_END);
            mask[rest..].fill(0);
        }
        Self {
            index,
            logit_scale: op.quantisation.logit_scale[index],
            out_scale: op.quantisation.out_scale[index] * 128.0,
            past_end,
            cap,
            mask,
        }
    }
}

/// The part of the output that is asked for.
pub(crate) struct Part<'o> {
    rows: Range<usize>,
    out: &'o mut [i8],
}

impl Vectorised for Attention<'_> {
    #[inline(always)]
    fn run_simd<I: Isa>(
        &self,
        isa: I,
        rows: Range<usize>,
        [q, k, v]: [&[i8]; 3],
        out: &mut Out<'_>,
        scratch: &mut [i8],
    ) -> Result<(), SizeError> {
        // Small code has one kind of mix for an instruction set; the reference does what is left.
        if SMALL && I::WHOLE_KEYS > 0 && !are_whole::<I>(self.shape.keys) {
            return self.run_scalar(rows, [q, k, v], out, scratch);
        }
        let Out::S8(out) = out else {
            return Err(SizeError::OutType);
        };
        let mut part = Part { rows, out };
        let mut work = Workspace::new(self, scratch)?;
        self.find_hulls(&part.rows, work.hulls);
        for index in 0..self.shape.heads {
            let head = Head::new(self, index);
            expand_bias(isa, self, index, &mut work);
            for group in 0..self.shape.groups {
                let queries = self.hull(group, &part.rows, work.hulls);
                if !queries.is_empty() {
                    let group = Group {
                        op: self,
                        head: &head,
                        group,
                        queries,
                    };
                    group.run(isa, [q, k, v], &mut part, &mut work);
                }
            }
        }
        Ok(())
    }
}

impl Attention<'_> {
    /// For an output with a table: the first query of each group that has a row in `rows`, and one past the last.
    #[inline(never)]
    fn find_hulls(&self, rows: &Range<usize>, hulls: &mut [[u32; 2]]) {
        let AttentionShape { queries, slots, .. } = self.shape;
        let Some(table) = self.out.rows.filter(|_| !self.is_whole(rows)) else {
            return;
        };
        for (hull, table) in hulls.iter_mut().zip(table.chunks_exact(slots * queries)) {
            *hull = [u32::MAX, 0];
            for slot in table.chunks_exact(queries) {
                for (i, &row) in (0..).zip(slot) {
                    if rows.contains(&(row as usize)) {
                        *hull = [hull[0].min(i), hull[1].max(i + 1)];
                    }
                }
            }
        }
    }

    /// The queries of `group` to compute: the first to the last that has a row in `rows`.
    #[inline(never)]
    fn hull(&self, group: usize, rows: &Range<usize>, hulls: &[[u32; 2]]) -> Range<usize> {
        let AttentionShape { queries, slots, .. } = self.shape;
        if self.is_whole(rows) {
            return 0..queries;
        }
        if self.out.rows.is_some() {
            let [start, end] = hulls[group];
            return start as usize..end as usize;
        }
        let first = group * slots * queries;
        let start = rows.start.max(first) - first;
        let end = rows.end.saturating_sub(first).min(slots * queries);
        match slots {
            1 => start..end,
            _ if start < end => 0..queries,
            _ => 0..0,
        }
    }

    fn is_whole(&self, rows: &Range<usize>) -> bool {
        rows.len() == self.out.tensor_rows
    }
}

/// The queries of a group to be computed for a head.
pub(crate) struct Group<'g, 'a> {
    pub(crate) op: &'g Attention<'a>,
    pub(crate) head: &'g Head,
    pub(crate) group: usize,
    pub(crate) queries: Range<usize>,
}

impl Group<'_, '_> {
    #[inline(always)]
    fn run<I: Isa>(
        &self,
        isa: I,
        [q, k, v]: [&[i8]; 3],
        part: &mut Part<'_>,
        work: &mut Workspace<'_>,
    ) {
        let slots = self.op.shape.slots;
        let has_labels = widen_labels(self.op, self.group, work);
        isa.call(PackKeys::new(self, k, work));
        if slots == 1 {
            isa.call(PackValues::new(self, self.group, v, work));
        }
        let mut query = self.queries.start;
        if slots == 1 {
            query += isa.call(Attend {
                group: self,
                q,
                part,
                work,
            });
        }
        while query < self.queries.end {
            let count = block_rows::<I>(self.queries.end - query, self.op.shape.keys);
            let row = if slots == 1 { 0 } else { query };
            let queries = query_rows(self, q, query, count, work);
            self.logits(isa, queries, count, work);
            self.softmax(isa, has_labels, [query, count, row], work);
            if slots == 1 {
                self.mix(isa, self.group, query..query + count, row, part, work);
            }
            query += count;
        }
        if slots > 1 {
            for slot in self.group * slots..(self.group + 1) * slots {
                if self.is_wanted(slot, &part.rows) {
                    isa.call(PackValues::new(self, slot, v, work));
                    let queries = self.queries.clone();
                    self.mix(isa, slot, queries, self.queries.start, part, work);
                }
            }
        }
    }

    /// Whether `slot`, counted over all groups, has a row in `rows`.
    #[inline(never)]
    fn is_wanted(&self, slot: usize, rows: &Range<usize>) -> bool {
        let first = slot * self.op.shape.queries;
        let has_row = |query| rows.contains(&self.op.out.row(first + query));
        self.op.is_whole(rows) || self.queries.clone().any(has_row)
    }

    /// Logits of `count` query rows.
    #[inline(always)]
    fn logits<I: Isa>(&self, isa: I, queries: Rows, count: usize, work: &mut Workspace<'_>) {
        let mut row = 0;
        while row < count {
            // SAFETY: `queries` are `count` rows.
            let queries = unsafe { queries.from(row) };
            row += self.tile_logits(isa, queries, row, count - row, work);
        }
    }

    /// Logits of as many of `left` query rows as a tile has, to those from `row` on; returns how many these were.
    #[inline(always)]
    fn tile_logits<I: Isa>(
        &self,
        isa: I,
        queries: Rows,
        row: usize,
        left: usize,
        work: &mut Workspace<'_>,
    ) -> usize {
        let group = self;
        macro_rules! logits {
            ($rows:literal) => {
                isa.call(Logits::<$rows> {
                    group,
                    work,
                    queries,
                    row,
                })
            };
        }
        let count = match tile_rows::<I>(left) {
            8 if I::WIDE => 4,
            count => count,
        };
        match count {
            8 => logits!(8),
            4 => logits!(4),
            2 if !SMALL => logits!(2),
            _ => logits!(1),
        }
        count
    }

    /// Planes of `count` query rows from `query` on, to the rows of the planes from `row` on.
    #[inline(always)]
    fn softmax<I: Isa>(
        &self,
        isa: I,
        has_labels: bool,
        [query, count, row]: [usize; 3],
        work: &mut Workspace<'_>,
    ) {
        let group = self;
        macro_rules! softmax {
            ($form:ident) => {
                if are_whole::<I>(self.op.shape.keys) {
                    isa.call(Softmax::<$form, true> {
                        group,
                        work,
                        query,
                        count,
                        row,
                    })
                } else {
                    isa.call(Softmax::<$form, false> {
                        group,
                        work,
                        query,
                        count,
                        row,
                    })
                }
            };
        }
        if has_labels {
            softmax!(MASKED);
        } else if self.op.is_biased() {
            softmax!(BIASED);
        } else {
            softmax!(PLAIN);
        }
    }

    /// Exponentials from `row` of the planes on times the packed values of `slot`, counted over all groups.
    #[inline(always)]
    fn mix<I: Isa>(
        &self,
        isa: I,
        slot: usize,
        mut queries: Range<usize>,
        mut row: usize,
        part: &mut Part<'_>,
        work: &mut Workspace<'_>,
    ) {
        macro_rules! blocks {
            ($rows:literal, $whole:literal) => {{
                let blocks = queries.len() / mix::queries_of($rows, $whole);
                if blocks > 0 {
                    isa.call(Mix::<$rows, $whole> {
                        group: self,
                        work,
                        part,
                        slot,
                        query: queries.start,
                        row,
                        blocks,
                    });
                }
                let count = blocks * mix::queries_of($rows, $whole);
                (queries.start + count..queries.end, row + count)
            }};
        }
        if are_whole::<I>(self.op.shape.keys) {
            (queries, row) = blocks!(8, true);
            if !SMALL {
                (queries, row) = blocks!(4, true);
                (queries, row) = blocks!(2, true);
            }
            blocks!(1, true);
        } else if I::WHOLE_KEYS == 0 || !SMALL {
            let is_wide = I::WIDE && self.op.shape.head_dim.is_multiple_of(2 * NR);
            if I::ROWS == 8 && !is_wide && !(I::WIDE && SMALL) {
                (queries, row) = blocks!(8, false);
            }
            (queries, row) = blocks!(4, false);
            blocks!(2, false);
        }
    }
}

/// See [`Isa::attend`], whose promise whoever makes one gives.
struct Attend<'w, 's, 'g, 'a, 'o> {
    group: &'w Group<'g, 'a>,
    q: &'w [i8],
    part: &'w mut Part<'o>,
    work: &'w mut Workspace<'s>,
}

impl Routine for Attend<'_, '_, '_, '_, '_> {
    type Output = usize;

    #[inline(always)]
    fn simd<I: Isa>(self, isa: I) -> usize {
        // SAFETY: as promised.
        unsafe { isa.attend(self.group, self.q, self.part, self.work) }
    }
}

/// Whether exponentials stay whole for the mix.
#[inline(always)]
fn are_whole<I: Isa>(keys: usize) -> bool {
    const { assert!(I::WHOLE_KEYS <= WHOLE_KEYS_MAX) };
    I::WHOLE_KEYS > 0 && keys <= I::WHOLE_KEYS
}

/// Query rows whose exponentials are taken together.
#[inline(always)]
fn block_rows<I: Isa>(left: usize, keys: usize) -> usize {
    if are_whole::<I>(keys) && left >= ROWS {
        ROWS
    } else {
        tile_rows::<I>(left)
    }
}

/// Rows of the next tile.
#[inline(always)]
fn tile_rows<I: Isa>(left: usize) -> usize {
    match left {
        8.. if I::ROWS == 8 => 8,
        4.. => 4,
        2.. if !SMALL => 2,
        _ => 1,
    }
}
