//! Keys and values of a group to the GEMM's blocked layout, and query rows side by side.

use super::super::operand::Operand;
use super::workspace::Workspace;
use super::{Group, are_whole};
use crate::gemm::simd::Rows;
use crate::gemm::{K_ALIGN, K_STEP, NR, padded_k, padded_n};
use crate::isa::{Gains, Isa, Routine};

/// One head of some of an operand's elements.
#[derive(Clone, Copy)]
struct Source<'o> {
    /// Their rows, if there is a table; else they are those from `first` on.
    rows: Option<&'o [u32]>,
    first: usize,
    count: usize,
    tensor_rows: usize,
    /// The last row, constants included.
    last_row: usize,
    stride: usize,
    /// The head in row 0 of the tensor, and in row 0 of the constants.
    tensor: *const i8,
    constants: *const i8,
}

impl<'o> Source<'o> {
    /// `tensor` holds all rows of the operand (`run` has checked it).
    #[inline(always)]
    pub(super) fn new(
        operand: &Operand<'o>,
        tensor: &[i8],
        head: usize,
        first: usize,
        count: usize,
    ) -> Self {
        let offset = operand.view.at(head, 0);
        Self {
            rows: operand.rows.map(|rows| &rows[first..][..count]),
            first,
            count,
            tensor_rows: operand.tensor_rows,
            last_row: operand.tensor_rows + operand.constant_rows() - 1,
            stride: operand.view.row_stride,
            tensor: tensor.as_ptr().wrapping_add(offset),
            constants: operand.constants.as_ptr().wrapping_add(offset),
        }
    }

    /// Head size bytes that can be read.
    ///
    /// # Safety
    /// `index` < `count`.
    #[inline(always)]
    unsafe fn row(&self, index: usize) -> *const i8 {
        let row = match self.rows {
            None => self.first + index,
            // SAFETY: the table has `count` elements.
            Some(rows) => (unsafe { *rows.get_unchecked(index) } as usize).min(self.last_row),
        };
        if row < self.tensor_rows {
            self.tensor.wrapping_add(row * self.stride)
        } else {
            let row = row - self.tensor_rows;
            self.constants.wrapping_add(row * self.stride)
        }
    }

    /// The rows of 4 elements, of which the last is repeated if there are fewer.
    ///
    /// # Safety
    /// `index` < `count`.
    #[inline(always)]
    unsafe fn four(&self, index: usize) -> [*const i8; 4] {
        let last = self.count - 1;
        // SAFETY: no index is above `last`.
        unsafe {
            if index + 3 <= last {
                return [
                    self.row(index),
                    self.row(index + 1),
                    self.row(index + 2),
                    self.row(index + 3),
                ];
            }
            [
                self.row(index),
                self.row(last.min(index + 1)),
                self.row(last.min(index + 2)),
                self.row(last),
            ]
        }
    }
}

/// Bytes of 4 rows to read 16 at a time, past the last whole 16.
struct Tail([[i8; K_ALIGN]; 4]);

impl Tail {
    /// `count` < 16 bytes of each row.
    ///
    /// # Safety
    /// They can be read.
    #[inline(always)]
    unsafe fn new(rows: [*const i8; 4], count: usize) -> Self {
        let mut tail = [[0; K_ALIGN]; 4];
        for (tail, row) in tail.iter_mut().zip(rows) {
            // SAFETY: the caller's promise.
            unsafe { core::ptr::copy_nonoverlapping(row, tail.as_mut_ptr(), count) };
        }
        Self(tail)
    }

    #[inline(always)]
    fn rows(&self) -> [*const i8; 4] {
        let [a, b, c, d] = &self.0;
        [a.as_ptr(), b.as_ptr(), c.as_ptr(), d.as_ptr()]
    }
}

#[inline(always)]
fn advance(rows: [*const i8; 4], d: usize) -> [*const i8; 4] {
    let [r0, r1, r2, r3] = rows;
    [
        r0.wrapping_add(d),
        r1.wrapping_add(d),
        r2.wrapping_add(d),
        r3.wrapping_add(d),
    ]
}

/// Packs the keys of a group.
pub(super) struct PackKeys<'p> {
    source: Source<'p>,
    head_dim: usize,
    packed: &'p mut [i8],
}

impl<'p> PackKeys<'p> {
    #[inline(always)]
    pub(super) fn new(group: &Group<'_, 'p>, k: &[i8], work: &'p mut Workspace<'_>) -> Self {
        let (shape, head) = (&group.op.shape, group.head.index);
        let first = group.group * shape.keys;
        Self {
            source: Source::new(&group.op.k, k, head, first, shape.keys),
            head_dim: shape.head_dim,
            packed: work.keys,
        }
    }
}

impl Routine for PackKeys<'_> {
    type Output = ();
    const GAINS: Gains = Gains::LAYOUT;

    #[inline(always)]
    fn simd<I: Isa>(self, isa: I) {
        let dim = padded_k(self.head_dim);
        let whole = self.head_dim / K_ALIGN * K_ALIGN;
        let mut j = 0;
        while j < self.source.count {
            // SAFETY: rows have `head_dim` bytes; 4 keys' share of a panel is 16 bytes in every 32, `dim` times 8 in all, and the workspace has a panel
            // for every 8 keys.
            unsafe {
                let rows = self.source.four(j);
                let packed = self
                    .packed
                    .as_mut_ptr()
                    .add(j / NR * NR * dim + j % NR * K_STEP);
                let mut d = 0;
                while d < whole {
                    isa.pack_keys(advance(rows, d), packed.add(d * NR));
                    d += K_ALIGN;
                }
                if d < dim {
                    let tail = Tail::new(advance(rows, d), self.head_dim - d);
                    isa.pack_keys(tail.rows(), packed.add(d * NR));
                }
            }
            j += K_STEP;
        }
        // SAFETY: these are the panels, each of 8 times `dim`, a multiple of 16.
        unsafe { isa.join(self.packed.as_mut_ptr(), padded_n(self.source.count) * dim) };
    }
}

/// Packs the values of a slot.
pub(super) struct PackValues<'p> {
    source: Source<'p>,
    head_dim: usize,
    packed: &'p mut [i8],
}

impl<'p> PackValues<'p> {
    /// `slot` is counted over all groups.
    #[inline(always)]
    pub(super) fn new(
        group: &Group<'_, 'p>,
        slot: usize,
        v: &[i8],
        work: &'p mut Workspace<'_>,
    ) -> Self {
        let (shape, head) = (&group.op.shape, group.head.index);
        Self {
            source: Source::new(&group.op.v, v, head, slot * shape.keys, shape.keys),
            head_dim: shape.head_dim,
            packed: work.values,
        }
    }
}

impl Routine for PackValues<'_> {
    type Output = ();

    #[inline(always)]
    fn simd<I: Isa>(self, isa: I) {
        let panel = NR * padded_k(self.source.count);
        let whole = self.head_dim / K_ALIGN * K_ALIGN;
        let side_by_side = are_whole::<I>(self.source.count);
        let mut j = 0;
        while j < self.source.count {
            // SAFETY: rows have `head_dim` bytes; the share of 4 keys in a panel is 32 bytes, and the workspace has a panel for every 8 channels.
            unsafe {
                let rows = self.source.four(j);
                let packed = self.packed.as_mut_ptr().add(j * NR);
                let mut d = 0;
                while d < whole {
                    let first = packed.add(d / NR * panel);
                    pack_four(
                        isa,
                        side_by_side,
                        advance(rows, d),
                        [first, first.add(panel)],
                    );
                    d += K_ALIGN;
                }
                if d < self.head_dim {
                    let tail = Tail::new(advance(rows, d), self.head_dim - d);
                    let first = packed.add(d / NR * panel);
                    let mut unused = [0; NR * K_STEP];
                    let second = if d + NR < self.head_dim {
                        first.add(panel)
                    } else {
                        unused.as_mut_ptr()
                    };
                    pack_four(isa, side_by_side, tail.rows(), [first, second]);
                }
            }
            j += K_STEP;
        }
        let panels = self.head_dim.div_ceil(NR);
        // SAFETY: these are the panels, each of 8 times the padded number of keys.
        unsafe { isa.join(self.packed.as_mut_ptr(), panels * panel) };
    }
}

/// [`Isa::pack_values`]; or for [`Isa::weigh`], where 8 channels of a key lie side by side.
///
/// # Safety
/// As [`Isa::pack_values`].
#[inline(always)]
unsafe fn pack_four<I: Isa>(isa: I, side_by_side: bool, rows: [*const i8; 4], to: [*mut i8; 2]) {
    // SAFETY: the caller promises 16 elements of every row, and 32 of both panels.
    unsafe {
        if !side_by_side {
            return isa.pack_values(rows, to);
        }
        for (r, row) in rows.into_iter().enumerate() {
            core::ptr::copy_nonoverlapping(row, to[0].add(r * NR), NR);
            core::ptr::copy_nonoverlapping(row.add(NR), to[1].add(r * NR), NR);
        }
    }
}

/// Query rows of a tile, readable to the padded head size: where they are, or copied side by side. (The padding of the copies is 0 from the start.)
#[inline(never)]
pub(crate) fn query_rows(
    group: &Group<'_, '_>,
    q: &[i8],
    query: usize,
    count: usize,
    work: &mut Workspace<'_>,
) -> Rows {
    let (op, head) = (group.op, group.head.index);
    let head_dim = op.shape.head_dim;
    let dim = padded_k(head_dim);
    let first = group.group * op.shape.queries + query;
    if dim == head_dim && op.q.rows.is_none() && op.q.constants.is_empty() {
        return Rows {
            first: q[op.q.view.at(head, first)..].as_ptr(),
            stride: op.q.view.row_stride,
        };
    }
    let source = Source::new(&op.q, q, head, first, count);
    let mut to = work.queries.as_mut_ptr();
    for index in 0..count {
        // SAFETY: a row has `head_dim` bytes, and there is room for the rows of a tile.
        unsafe {
            let row = source.row(index);
            let mut d = 0;
            while d + 2 * K_ALIGN <= head_dim {
                core::ptr::copy_nonoverlapping(row.add(d), to.add(d), 2 * K_ALIGN);
                d += 2 * K_ALIGN;
            }
            if d < head_dim {
                if d + K_ALIGN <= head_dim {
                    core::ptr::copy_nonoverlapping(row.add(d), to.add(d), K_ALIGN);
                    d += K_ALIGN;
                }
                core::ptr::copy_nonoverlapping(row.add(d), to.add(d), head_dim - d);
            }
            to = to.add(dim);
        }
    }
    Rows {
        first: work.queries.as_ptr(),
        stride: dim,
    }
}
