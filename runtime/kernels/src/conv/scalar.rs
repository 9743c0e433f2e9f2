//! The reference: no patch matrix, every tap looked up.

use core::ops::Range;

use super::Conv;
use crate::gemm::{packed_index, padded_k};
use crate::isa::Reference;
use crate::{Out, SizeError};

impl Reference for Conv<'_> {
    type Input<'r> = &'r [i8];

    fn run_scalar(
        &self,
        rows: Range<usize>,
        x: &[i8],
        out: &mut Out<'_>,
        _: &mut [i8],
    ) -> Result<(), SizeError> {
        let width = self.shape.out_w as usize;
        for (index, oy) in rows.enumerate() {
            for ox in 0..width {
                for n in 0..self.gemm.n {
                    let acc = self.accumulate(x, oy, ox, n);
                    self.gemm
                        .requantise
                        .store(acc, n, out, (index * width + ox) * self.gemm.n + n);
                }
            }
        }
        Ok(())
    }
}

impl Conv<'_> {
    fn accumulate(&self, x: &[i8], oy: usize, ox: usize, n: usize) -> i32 {
        let channels = self.shape.in_c as usize;
        let (top, left) = (self.shape.start(0, oy), self.shape.start(1, ox));
        let width = self.shape.kernel[1] as usize;
        let mut acc = 0;
        for tap in 0..self.shape.taps() {
            let pixel = self
                .shape
                .pixel(top + (tap / width) as isize, left + (tap % width) as isize);
            let values = pixel.map_or(self.pad, |first| &x[first..][..channels]);
            for (c, &value) in values.iter().enumerate() {
                let weight =
                    self.gemm.weights[packed_index(n, tap * channels + c, padded_k(self.gemm.k))];
                acc += i32::from(value) * i32::from(weight);
            }
        }
        acc
    }
}
