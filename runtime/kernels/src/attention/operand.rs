//! The tensors of an attention: which of their rows belong to which group.

use super::view::View;
use crate::ParamError;
use crate::error::{length, rule, values};
use crate::gemm::TENSOR_MAX;

/// Sizes of an attention. Every head attends within each of `groups` on its own: windows, for instance.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AttentionShape {
    /// Heads.
    pub heads: usize,
    /// Channels of a head.
    pub head_dim: usize,
    /// Sets of queries and keys that see only each other.
    pub groups: usize,
    /// Values of a key: the weights of a query row serve them all, each gives a row of the output. 1 but for attention between windows.
    pub slots: usize,
    /// Query rows of a group.
    pub queries: usize,
    /// Key rows of a group.
    pub keys: usize,
}

/// One of q, k, v and the output: rows of a tensor, chosen by a table or in order, and constant rows behind them.
///
/// Row `r` below `tensor_rows` lies in the tensor at `r·row_stride`; from `tensor_rows` on it is row `r − tensor_rows` of `constants`, at the same stride.
#[derive(Clone, Copy, Debug)]
pub struct Operand<'a> {
    /// Where a row's heads lie, in the tensor and in `constants`.
    pub view: View,
    /// Row of every element of q `[groups][queries]`, k `[groups][keys]`, v `[groups][slots][keys]` or the output `[groups][slots][queries]`; `None`: 0, 1, 2…
    pub rows: Option<&'a [u32]>,
    /// Rows of the tensor; 0 if all are constants.
    pub tensor_rows: usize,
    /// `[rows][row_stride]`, empty if there are none. Constants hold −127..=127.
    pub constants: &'a [i8],
}

impl<'a> Operand<'a> {
    /// The rows of a tensor in order.
    #[must_use]
    pub const fn plain(view: View, tensor_rows: usize) -> Self {
        Self {
            view,
            rows: None,
            tensor_rows,
            constants: &[],
        }
    }

    /// Rows behind those of the tensor.
    #[must_use]
    pub const fn constant_rows(&self) -> usize {
        match self.view.row_stride {
            0 => 0,
            stride => self.constants.len() / stride,
        }
    }

    /// Elements the tensor must have, if it can be computed.
    #[must_use]
    pub fn tensor_len(&self, heads: usize, head_dim: usize) -> Option<usize> {
        if self.tensor_rows == 0 {
            return Some(0);
        }
        self.view.len(heads, self.tensor_rows, head_dim)
    }

    /// Everything but elements. `used` is the number of rows the operation names.
    pub(super) fn check(
        &self,
        shape: &AttentionShape,
        used: usize,
        table: &'static str,
    ) -> Result<(), ParamError> {
        rule(
            "a view's elements have addresses",
            self.tensor_len(shape.heads, shape.head_dim).is_some(),
        )?;
        if !self.constants.is_empty() {
            let stride = self.view.row_stride;
            rule(
                "constants are whole rows",
                stride > 0 && self.constants.len().is_multiple_of(stride),
            )?;
            rule(
                "the heads of a constant row lie within it",
                self.view
                    .len(shape.heads, 1, shape.head_dim)
                    .is_some_and(|len| len <= stride),
            )?;
        }
        let rows = self.tensor_rows.saturating_add(self.constant_rows());
        rule(
            "an attention's tensor has 1 to 2^30 rows, constants included",
            (1..=TENSOR_MAX).contains(&rows),
        )?;
        match self.rows {
            Some(rows) => length(table, rows.len(), used),
            None => rule(
                "an attention's tensor has a row for every one it names",
                used <= rows,
            ),
        }
    }

    /// The elements of tables and constants.
    pub(super) fn check_elements(
        &self,
        table: &'static str,
        constants: &'static str,
    ) -> Result<(), ParamError> {
        let rows = self.tensor_rows + self.constant_rows();
        values(
            table,
            "a row of the tensor or of the constants",
            self.rows.unwrap_or(&[]),
            |row| (row as usize) < rows,
        )?;
        values(constants, "at least -127", self.constants, |c| c != i8::MIN)
    }

    /// The row of element `index`; one that exists, even if the table was never verified.
    #[inline(always)]
    pub(super) fn row(&self, index: usize) -> usize {
        match self.rows {
            None => index,
            Some(rows) => (rows[index] as usize).min(self.tensor_rows + self.constant_rows() - 1),
        }
    }

    /// One head of element `index`, which lies in `tensor` or in the constants.
    #[inline(always)]
    pub(super) fn head<'r>(
        &self,
        tensor: &'r [i8],
        head: usize,
        index: usize,
        head_dim: usize,
    ) -> &'r [i8]
    where
        'a: 'r,
    {
        let row = self.row(index);
        let (rows, row) = match row.checked_sub(self.tensor_rows) {
            None => (tensor, row),
            Some(row) => (self.constants, row),
        };
        &rows[self.view.at(head, row)..][..head_dim]
    }
}
