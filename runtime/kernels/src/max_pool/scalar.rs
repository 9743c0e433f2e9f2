//! The reference: every tap looked up.

use core::ops::Range;

use super::MaxPool;
use crate::isa::Reference;
use crate::{In, Out, SizeError};

impl Reference for MaxPool {
    type Input<'r> = In<'r>;

    fn run_scalar(
        &self,
        rows: Range<usize>,
        x: In<'_>,
        out: &mut Out<'_>,
        _: &mut [i8],
    ) -> Result<(), SizeError> {
        let (first, width) = (rows.start, self.shape.out_w as usize);
        let channels = self.shape.in_c as usize;
        for (oy, ox) in rows.flat_map(|oy| (0..width).map(move |ox| (oy, ox))) {
            for c in 0..channels {
                let index = ((oy - first) * width + ox) * channels + c;
                let max = self.maximum(x, oy, ox, c);
                match out {
                    Out::S8(y) => y[index] = max as i8,
                    Out::S16(y) => y[index] = max as i16,
                    Out::S16Add(_) | Out::S32(_) => {}
                }
            }
        }
        Ok(())
    }
}

impl MaxPool {
    fn maximum(&self, x: In<'_>, oy: usize, ox: usize, c: usize) -> i32 {
        let (top, left) = (self.shape.start(0, oy), self.shape.start(1, ox));
        let width = self.shape.kernel[1] as usize;
        let taps = (0..self.shape.taps()).filter_map(|tap| {
            self.shape
                .pixel(top + (tap / width) as isize, left + (tap % width) as isize)
        });
        taps.fold(i32::MIN, |max, pixel| max.max(x.at(pixel + c)))
    }
}
