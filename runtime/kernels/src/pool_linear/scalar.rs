//! The reference, used by every kernel.

use super::PoolLinear;
use crate::gemm::{packed_index, padded_k};
use crate::scratch::carve;
use crate::{Out, SizeError};

impl PoolLinear<'_> {
    pub(super) fn run_scalar(
        &self,
        x: &[i8],
        mut out: Out<'_>,
        scratch: &mut [i8],
    ) -> Result<(), SizeError> {
        let (sums, _) = carve::<i32>(scratch, self.gemm.k)?;
        sums.fill(0);
        for row in x.chunks_exact(self.gemm.k) {
            for (sum, &x) in sums.iter_mut().zip(row) {
                *sum += i32::from(x);
            }
        }
        let padded = padded_k(self.gemm.k);
        for n in 0..self.gemm.n {
            let products = sums
                .iter()
                .enumerate()
                .map(|(k, sum)| sum * i32::from(self.gemm.weights[packed_index(n, k, padded)]));
            self.gemm.requantise.store(products.sum(), n, &mut out, n);
        }
        Ok(())
    }
}
