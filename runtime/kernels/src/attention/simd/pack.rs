//! Keys and values of a group to the GEMM's blocked layout, and query rows side by side.

use super::super::operand::Operand;
use super::Group;
use super::workspace::Workspace;
use crate::gemm::{K_ALIGN, K_STEP, NR, padded_k};
use crate::isa::{Isa, Routine};

/// One head of an operand's rows.
#[derive(Clone, Copy)]
struct Source<'o> {
    rows: Option<&'o [u32]>,
    /// Index of the first element.
    first: usize,
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
    fn new(operand: &Operand<'o>, tensor: &[i8], head: usize, first: usize) -> Self {
        let offset = operand.view.at(head, 0);
        Self {
            rows: operand.rows,
            first,
            tensor_rows: operand.tensor_rows,
            last_row: operand.tensor_rows + operand.constant_rows() - 1,
            stride: operand.view.row_stride,
            tensor: tensor.as_ptr().wrapping_add(offset),
            constants: operand.constants.as_ptr().wrapping_add(offset),
        }
    }

    /// Row of element `first + index`: head size bytes that can be read. (Computed without claims on the allocation; see the callers.)
    #[inline(always)]
    fn row(&self, index: usize) -> *const i8 {
        let row = match self.rows {
            None => self.first + index,
            Some(rows) => (rows[self.first + index] as usize).min(self.last_row),
        };
        match row.checked_sub(self.tensor_rows) {
            None => self.tensor.wrapping_add(row * self.stride),
            Some(row) => self.constants.wrapping_add(row * self.stride),
        }
    }

    /// The rows of 4 elements, of which the last is repeated from `count` on.
    #[inline(always)]
    fn four(&self, index: usize, count: usize) -> [*const i8; 4] {
        if index + K_STEP <= count {
            return [
                self.row(index),
                self.row(index + 1),
                self.row(index + 2),
                self.row(index + 3),
            ];
        }
        let last = count - 1;
        [
            self.row(index),
            self.row(last.min(index + 1)),
            self.row(last.min(index + 2)),
            self.row(last.min(index + 3)),
        ]
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
    count: usize,
    head_dim: usize,
    packed: &'p mut [i8],
}

impl<'p> PackKeys<'p> {
    pub(super) fn new(group: &Group<'_, 'p>, k: &[i8], work: &'p mut Workspace<'_>) -> Self {
        let shape = &group.op.shape;
        Self {
            source: Source::new(&group.op.k, k, group.head.index, group.group * shape.keys),
            count: shape.keys,
            head_dim: shape.head_dim,
            packed: work.keys,
        }
    }
}

impl Routine for PackKeys<'_> {
    type Output = ();

    #[inline(always)]
    fn simd<I: Isa>(self, isa: I) {
        let dim = padded_k(self.head_dim);
        let whole = self.head_dim / K_ALIGN * K_ALIGN;
        let mut j = 0;
        while j < self.count {
            let rows = self.source.four(j, self.count);
            // SAFETY: rows have `head_dim` bytes; 4 keys' share of a panel is 16 bytes in every 32, `dim` times 8 in all, and the workspace has a panel
            // for every 8 keys.
            unsafe {
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
    }
}

/// Packs the values of a slot.
pub(super) struct PackValues<'p> {
    source: Source<'p>,
    count: usize,
    head_dim: usize,
    packed: &'p mut [i8],
}

impl<'p> PackValues<'p> {
    /// `slot` is counted over all groups.
    pub(super) fn new(
        group: &Group<'_, 'p>,
        slot: usize,
        v: &[i8],
        work: &'p mut Workspace<'_>,
    ) -> Self {
        let shape = &group.op.shape;
        Self {
            source: Source::new(&group.op.v, v, group.head.index, slot * shape.keys),
            count: shape.keys,
            head_dim: shape.head_dim,
            packed: work.values,
        }
    }
}

impl Routine for PackValues<'_> {
    type Output = ();

    #[inline(always)]
    fn simd<I: Isa>(self, isa: I) {
        let panel = NR * padded_k(self.count);
        let whole = self.head_dim / K_ALIGN * K_ALIGN;
        let mut j = 0;
        while j < self.count {
            let rows = self.source.four(j, self.count);
            // SAFETY: rows have `head_dim` bytes; the share of 4 keys in a panel is 32 bytes, and the workspace has a panel for every 8 channels.
            unsafe {
                let packed = self.packed.as_mut_ptr().add(j * NR);
                let mut d = 0;
                while d < whole {
                    let first = packed.add(d / NR * panel);
                    isa.pack_values(advance(rows, d), [first, first.add(panel)]);
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
                    isa.pack_values(tail.rows(), [first, second]);
                }
            }
            j += K_STEP;
        }
    }
}

/// Copies query rows `query`.. of a group side by side, as many as `to` has room for, padded to `padded_k`. The padding is left alone.
#[inline(always)]
pub(super) fn gather_queries(group: &Group<'_, '_>, q: &[i8], query: usize, to: &mut [i8]) {
    let shape = &group.op.shape;
    let first = group.group * shape.queries + query;
    let source = Source::new(&group.op.q, q, group.head.index, first);
    let whole = shape.head_dim / K_ALIGN * K_ALIGN;
    for (index, to) in to.chunks_exact_mut(padded_k(shape.head_dim)).enumerate() {
        let row = source.row(index);
        // SAFETY: the row has `head_dim` bytes, and `to` at least as many.
        unsafe {
            let to = to.as_mut_ptr();
            let mut d = 0;
            while d < whole {
                core::ptr::copy_nonoverlapping(row.add(d), to.add(d), K_ALIGN);
                d += K_ALIGN;
            }
            core::ptr::copy_nonoverlapping(row.add(d), to.add(d), shape.head_dim - d);
        }
    }
}

/// Whether query rows can be read where they are.
#[inline(always)]
pub(super) fn in_place(group: &Group<'_, '_>) -> bool {
    let q = &group.op.q;
    let head_dim = group.op.shape.head_dim;
    q.rows.is_none() && q.constants.is_empty() && padded_k(head_dim) == head_dim
}
