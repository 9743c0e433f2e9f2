//! The reference.

use core::ops::Range;

use super::Mul;
use crate::isa::Reference;
use crate::requantise::scalar::round;
use crate::{In, Out, SizeError};

impl Reference for Mul<'_> {
    type Input<'r> = (In<'r>, In<'r>);

    fn run_scalar(
        &self,
        rows: Range<usize>,
        (a, b): (In<'_>, In<'_>),
        out: &mut Out<'_>,
        _: &mut [i8],
    ) -> Result<(), SizeError> {
        let first = rows.start;
        for row in rows {
            let gate = self.gate_start(row);
            for c in 0..self.channels {
                let a = a.at(row * self.channels + c) - i32::from(self.a.zero_point);
                let b = b.at(gate + c) - i32::from(self.b.zero_point);
                let r = round((a * b) as f32 * self.scale[c]);
                self.output.store(r, out, (row - first) * self.channels + c);
            }
        }
        Ok(())
    }
}
