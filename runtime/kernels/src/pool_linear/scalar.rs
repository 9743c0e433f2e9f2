//! The reference, used by every kernel.

use super::PoolLinear;
use crate::gemm::{K_STEP, NR, padded_k};
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
        let panels = self.gemm.weights.chunks_exact(NR * padded_k(self.gemm.k));
        for (panel, weights) in panels.enumerate() {
            // A sum for each place in the block, whose order the compiler can keep in vectors.
            let mut places = [0; NR * K_STEP];
            for (x, block) in sums.chunks(K_STEP).zip(weights.chunks_exact(NR * K_STEP)) {
                // K's padding has weights of 0, but no sums.
                let mut step = [0; K_STEP];
                step[..x.len()].copy_from_slice(x);
                for (place, (sum, &w)) in places.iter_mut().zip(block).enumerate() {
                    *sum += step[place % K_STEP] * i32::from(w);
                }
            }
            let acc = places.chunks_exact(K_STEP).map(|of| of.iter().sum());
            for (n, acc) in (panel * NR..self.gemm.n).zip(acc) {
                self.gemm.requantise.store(acc, n, &mut out, n);
            }
        }
        Ok(())
    }
}
