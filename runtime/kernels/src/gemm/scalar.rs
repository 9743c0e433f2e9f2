//! The reference: one accumulator at a time.

use super::{Gemm, packed_index, padded_k};
use crate::Out;

impl Gemm<'_> {
    /// One row: `x[0..k]` to `out[first..first + n]`.
    pub(crate) fn row_scalar(&self, x: &[i8], out: &mut Out<'_>, first: usize) {
        let padded = padded_k(self.k);
        for n in 0..self.n {
            let products = x
                .iter()
                .enumerate()
                .map(|(k, &x)| i32::from(x) * i32::from(self.weights[packed_index(n, k, padded)]));
            self.requantise.store(products.sum(), n, out, first + n);
        }
    }
}
