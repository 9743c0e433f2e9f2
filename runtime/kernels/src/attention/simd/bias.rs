//! What the logits of a head and a group are compared with: bias and labels, as vectors can read them.
//!
//! A window's bias of query (y, x) and key (v, u) is `T[y − v + h − 1][x − u + w − 1]`. In the reversed table T' that is
//! `T'[v − y + h − 1][u − x + w − 1]`: for one x and every line of T', the entries u = 0..w are a run of w, and the runs of h consecutive lines are the
//! bias of a query for all keys, in order. So the runs of all lines are copied side by side, for each x: w·(2h − 1)·w entries for a head, where a row for
//! each query would take w·h·w·h. The row of (y, x) begins h − 1 − y runs into those of x.

use super::super::{Attention, AttentionShape};
use super::workspace::Workspace;
use crate::gemm::NR;
use crate::isa::{Isa, Routine};

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

/// The bias of query `query` for all keys; the slice may go on. Zeros if there is none.
#[inline(always)]
pub(super) fn bias_row<'b>(
    op: &Attention<'b>,
    head: usize,
    query: usize,
    expanded: &'b [i32],
) -> &'b [i32] {
    let Some(bias) = &op.bias else {
        return expanded;
    };
    match bias.window {
        None => {
            let AttentionShape { queries, keys, .. } = op.shape;
            &bias.table[(head * queries + query) * keys..]
        }
        Some([height, width]) => {
            let (height, width) = (height as usize, width as usize);
            let (y, x) = (query / width, query % width);
            &expanded[(x * (2 * height - 1) + height - 1 - y) * width..]
        }
    }
}

/// Writes the labels of a group; returns whether they differ, that is, whether anything is masked.
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
