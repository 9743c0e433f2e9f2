//! The reference.

use core::ops::Range;

use super::Linear;
use crate::Out;

impl Linear<'_> {
    pub(super) fn run_scalar(&self, rows: Range<usize>, x: &[i8], out: &mut Out<'_>) {
        let (k, n) = (self.gemm.k, self.gemm.n);
        for (index, row) in rows.enumerate() {
            self.gemm.row_scalar(&x[row * k..][..k], out, index * n);
        }
    }
}
