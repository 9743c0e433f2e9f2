//! From a [`Kernel`] to an operation's code: the reference, or [`Vectorised`] compiled for the instruction set.

use core::ops::Range;

use super::{Gains, Isa, Routine};
use crate::{Kernel, Out, SizeError};

/// An operation as `scalar.rs` has it: the executable form of the contract.
pub(crate) trait Reference {
    /// The input, or inputs.
    type Input<'r>: Copy;

    /// Computes `rows` of the output, which are all that `out` holds; the operation's `run` has checked every length.
    fn run_scalar(
        &self,
        rows: Range<usize>,
        x: Self::Input<'_>,
        out: &mut Out<'_>,
        scratch: &mut [i8],
    ) -> Result<(), SizeError>;
}

/// An operation as `simd.rs` has it.
pub(crate) trait Vectorised: Reference {
    /// What it gains from.
    const GAINS: Gains = Gains::ALL;

    /// As [`Reference::run_scalar`]. Must be `#[inline(always)]`.
    fn run_simd<I: Isa>(
        &self,
        isa: I,
        rows: Range<usize>,
        x: Self::Input<'_>,
        out: &mut Out<'_>,
        scratch: &mut [i8],
    ) -> Result<(), SizeError>;
}

/// One `run` call of an operation.
struct Run<'r, 'o, O: Vectorised> {
    op: &'r O,
    rows: Range<usize>,
    x: O::Input<'r>,
    out: Out<'o>,
    scratch: &'r mut [i8],
}

impl<O: Vectorised> Routine for Run<'_, '_, O> {
    type Output = Result<(), SizeError>;
    const GAINS: Gains = O::GAINS;

    #[inline(always)]
    fn simd<I: Isa>(mut self, isa: I) -> Self::Output {
        self.op
            .run_simd(isa, self.rows, self.x, &mut self.out, self.scratch)
    }
}

/// Computes `rows` of `op` with `kernel`.
pub(crate) fn dispatch<'r, O: Vectorised>(
    kernel: Kernel,
    op: &'r O,
    rows: Range<usize>,
    x: O::Input<'r>,
    out: Out<'_>,
    scratch: &'r mut [i8],
) -> Result<(), SizeError> {
    let mut run = Run {
        op,
        rows,
        x,
        out,
        scratch,
    };
    match kernel {
        Kernel::Scalar => op.run_scalar(run.rows, x, &mut run.out, run.scratch),
        #[cfg(all(target_arch = "aarch64", target_feature = "neon"))]
        Kernel::Neon(token) => token.call(run),
        #[cfg(all(target_arch = "aarch64", target_feature = "neon"))]
        Kernel::NeonDotprod(token) => token.call(run),
        #[cfg(all(target_arch = "aarch64", target_feature = "neon"))]
        Kernel::NeonI8mm(token) => token.call(run),
        #[cfg(target_arch = "x86_64")]
        Kernel::Avx2(token) => token.call(run),
        #[cfg(target_arch = "x86_64")]
        Kernel::AvxVnni(token) => token.call(run),
        #[cfg(target_arch = "x86_64")]
        Kernel::Avx512Vnni(token) => token.call(run),
    }
}
