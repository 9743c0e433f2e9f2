//! The reference.

use core::ops::Range;

use super::Add;
use crate::isa::Reference;
use crate::requantise::scalar::round;
use crate::{In, Out, SizeError};

impl Reference for Add<'_> {
    type Input<'r> = (In<'r>, Option<In<'r>>);

    fn run_scalar(
        &self,
        rows: Range<usize>,
        (a, b): (In<'_>, Option<In<'_>>),
        out: &mut Out<'_>,
        _: &mut [i8],
    ) -> Result<(), SizeError> {
        let first = rows.start * self.channels;
        for index in first..rows.end * self.channels {
            let c = index % self.channels;
            let mut sum = a.value(index) * self.a.scale[c];
            if let Some((b, scale)) = self.second(b) {
                sum += b.value(index) * scale[c];
            }
            let r = round(sum + self.bias[c]);
            self.output.store(r, out, index - first);
        }
        Ok(())
    }
}
