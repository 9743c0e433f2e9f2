//! The reference: every tap looked up.

use core::ops::Range;

use super::Depthwise;
use crate::isa::Reference;
use crate::{Out, SizeError};

impl Reference for Depthwise<'_> {
    type Input<'r> = &'r [i8];

    fn run_scalar(
        &self,
        rows: Range<usize>,
        x: &[i8],
        out: &mut Out<'_>,
        _: &mut [i8],
    ) -> Result<(), SizeError> {
        for (index, oy) in rows.enumerate() {
            self.row_scalar(
                x,
                oy,
                0..self.pad.len(),
                out,
                index * self.shape.out_row_len(),
            );
        }
        Ok(())
    }
}

impl Depthwise<'_> {
    /// Some channels of a row of output pixels; the row starts at element `first` of `out`.
    pub(super) fn row_scalar(
        &self,
        x: &[i8],
        oy: usize,
        channels: Range<usize>,
        out: &mut Out<'_>,
        first: usize,
    ) {
        for ox in 0..self.shape.out_w as usize {
            for c in channels.clone() {
                let acc = self.accumulate(x, oy, ox, c);
                self.requantise
                    .store(acc, c, out, first + ox * self.pad.len() + c);
            }
        }
    }

    fn accumulate(&self, x: &[i8], oy: usize, ox: usize, c: usize) -> i32 {
        let (top, left) = (self.shape.start(0, oy), self.shape.start(1, ox));
        let width = self.shape.kernel[1] as usize;
        let products = (0..self.shape.taps()).map(|tap| {
            let pixel = self
                .shape
                .pixel(top + (tap / width) as isize, left + (tap % width) as isize);
            let value = pixel.map_or(self.pad[c], |first| x[first + c]);
            i32::from(value) * i32::from(self.weights[tap * self.pad.len() + c])
        });
        products.sum()
    }
}
