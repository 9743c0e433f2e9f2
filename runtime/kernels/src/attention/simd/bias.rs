//! What the logits of a head and a group are compared with: bias and labels, as vectors can read them.
//!
//! A window's bias of query (y, x) and key (v, u) is `T[y − v + h − 1][x − u + w − 1]`. In the reversed table T' that is
//! `T'[v − y + h − 1][u − x + w − 1]`: for one x and every line of T', the entries u = 0..w are a run of w, and the runs of h consecutive lines are the
//! bias of a query for all keys, in order. So the runs of all lines are copied side by side, for each x: w·(2h − 1)·w entries for a head, where a row for
//! each query would take w·h·w·h. The row of (y, x) begins h − 1 − y runs into those of x.

use super::super::{Attention, AttentionShape};
use super::workspace::Workspace;
use crate::gemm::{NR, padded_n};
use crate::isa::{Gains, Isa, Routine};

/// Expands a window's bias of head `head`.
#[inline(always)]
pub(super) fn expand_bias<I: Isa>(
    isa: I,
    op: &Attention<'_>,
    head: usize,
    work: &mut Workspace<'_>,
) {
    let Some(bias) = &op.bias else { return };
    let Some([height, width]) = bias.window else {
        return;
    };
    let table = bias.head(&op.shape, head);
    for (reversed, &entry) in work.reversed.iter_mut().zip(table.iter().rev()) {
        *reversed = entry;
    }
    isa.call(CopyRuns {
        lines: 2 * height as usize - 1,
        width: width as usize,
        reversed: work.reversed,
        runs: work.bias,
    });
}

/// Copies the runs of every line for every x. Whoever makes one promises: `reversed` has `lines` lines of 2·width − 1, and a vector more; `runs` has
/// `width` times `lines` runs of `width`, and a vector more.
struct CopyRuns<'s> {
    lines: usize,
    width: usize,
    reversed: &'s [i32],
    runs: &'s mut [i32],
}

impl Routine for CopyRuns<'_> {
    type Output = ();
    const GAINS: Gains = Gains::LANES;

    #[inline(always)]
    fn simd<I: Isa>(self, isa: I) {
        let mut to = self.runs.as_mut_ptr();
        for x in 0..self.width {
            // SAFETY: as promised; vectors end less than 8 elements after the run they belong to, and what they overwrite is copied later.
            unsafe {
                let mut from = self.reversed.as_ptr().add(self.width - 1 - x);
                for _ in 0..self.lines {
                    let mut u = 0;
                    while u < self.width {
                        isa.store_i32(to.add(u), isa.load_i32(from.add(u)));
                        u += NR;
                    }
                    to = to.add(self.width);
                    from = from.add(2 * self.width - 1);
                }
            }
        }
    }
}

/// The bias of query after query, as pointers that can be read for the number of keys rounded up to 8. What they give past the last key may be anything.
pub(super) struct BiasRows {
    row: *const i32,
    /// From a query to the next.
    step: usize,
    /// Queries to the end of the window's line; how many a line has, and what it takes back to the next.
    left: usize,
    width: usize,
    back: usize,
    /// Rows behind this one cannot be read past the last key: they are copied to `copy`.
    last: *const i32,
    copy: *mut i32,
    keys: usize,
}

impl BiasRows {
    /// Queries from `query` on.
    #[inline(always)]
    pub(super) fn new(op: &Attention<'_>, head: usize, query: usize, work: &mut [i32]) -> Self {
        let AttentionShape { queries, keys, .. } = op.shape;
        let expanded = work.as_ptr();
        let mut this = Self {
            row: expanded,
            step: 0,
            left: usize::MAX,
            width: 0,
            back: 0,
            last: core::ptr::without_provenance(usize::MAX),
            copy: work.as_mut_ptr(),
            keys,
        };
        let Some(bias) = &op.bias else {
            // Zeros for every query.
            return this;
        };
        if let Some([height, width]) = bias.window {
            let (height, width) = (height as usize, width as usize);
            let (y, x) = (query / width, query % width);
            this.step = (2 * height - 1) * width;
            this.row = expanded.wrapping_add(x * this.step + (height - 1 - y) * width);
            (this.left, this.width) = (width - x, width);
            this.back = width * this.step + width;
        } else {
            let table = bias.table.as_ptr_range();
            this.row = table.start.wrapping_add((head * queries + query) * keys);
            this.step = keys;
            this.last = table.end.wrapping_sub(padded_n(keys));
        }
        this
    }

    /// The row of this query; goes on to the next.
    #[inline(always)]
    pub(super) fn next(&mut self) -> *const i32 {
        let row = self.row;
        self.row = self.row.wrapping_add(self.step);
        self.left -= 1;
        if self.left == 0 {
            self.row = self.row.wrapping_sub(self.back);
            self.left = self.width;
        }
        if row > self.last {
            // SAFETY: the row has `keys` elements, and `copy` as many rounded up to 8 (`Sizes`).
            unsafe { copy_row(row, self.copy, self.keys) };
            return self.copy;
        }
        row
    }
}

/// # Safety
/// `row` is valid for reading `keys` elements, `copy` for writing them.
#[cold]
#[inline(never)]
unsafe fn copy_row(row: *const i32, copy: *mut i32, keys: usize) {
    // SAFETY: the caller's promise.
    unsafe { core::ptr::copy_nonoverlapping(row, copy, keys) };
}

/// Writes the labels of a group; returns whether they differ, that is, whether anything is masked.
#[inline(never)]
pub(super) fn widen_labels(op: &Attention<'_>, group: usize, work: &mut Workspace<'_>) -> bool {
    let Some(mask) = op.mask else { return false };
    let labels = &mask[group * op.shape.keys..][..op.shape.keys];
    let differ = labels
        .iter()
        .fold(0, |differ, label| differ | (label ^ labels[0]));
    if differ == 0 {
        return false;
    }
    for (wide, &label) in work.labels.iter_mut().zip(labels) {
        *wide = i32::from(label);
    }
    true
}
