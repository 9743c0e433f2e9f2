//! The reference.

use core::ops::Range;

use super::Linear;
use crate::isa::Reference;
use crate::{Out, SizeError};

impl Reference for Linear<'_> {
    type Input<'r> = &'r [i8];

    fn run_scalar(
        &self,
        rows: Range<usize>,
        x: &[i8],
        out: &mut Out<'_>,
        _: &mut [i8],
    ) -> Result<(), SizeError> {
        let (k, n) = (self.gemm.k, self.gemm.n);
        for (index, row) in rows.enumerate() {
            self.gemm.row_scalar(&x[row * k..][..k], out, index * n);
        }
        Ok(())
    }
}
