//! Where the heads of a tensor lie.

/// Element (head, row, d) lies at `offset + head·head_stride + row·row_stride + d`; all in elements.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct View {
    /// The first element.
    pub offset: usize,
    /// From one row to the next.
    pub row_stride: usize,
    /// From one head to the next.
    pub head_stride: usize,
}

impl View {
    /// Elements a tensor must have for this view, if it can be computed.
    #[must_use]
    pub fn len(&self, heads: usize, rows: usize, head_dim: usize) -> Option<usize> {
        let last_head = self.head_stride.checked_mul(heads.checked_sub(1)?)?;
        let last_row = self.row_stride.checked_mul(rows.checked_sub(1)?)?;
        let end = self
            .offset
            .checked_add(last_head)?
            .checked_add(last_row)?
            .checked_add(head_dim)?;
        (end <= isize::MAX as usize).then_some(end)
    }

    /// Index of the first element of (head, row).
    pub(crate) fn at(&self, head: usize, row: usize) -> usize {
        self.offset + head * self.head_stride + row * self.row_stride
    }
}
