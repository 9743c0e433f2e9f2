//! What [`Isa::call`] runs as a function of its own, and for which instruction sets it is compiled.

use super::Isa;

/// The steps of the ARM instruction sets that have a version of their own of a routine. CPUs of another step run that of the step below, so that
/// nothing is compiled more often than it is worth. Other instruction sets have versions of all.
#[cfg_attr(
    not(target_arch = "aarch64"),
    allow(dead_code, reason = "other instruction sets gain at every step")
)]
pub(crate) struct Gains {
    /// SDOT.
    pub(crate) dot: bool,
    /// SMMLA.
    pub(crate) matrix: bool,
}

impl Gains {
    /// Advanced SIMD is all: there are no products to be summed.
    pub(crate) const LANES: Self = Self::new(false, false);
    /// Products are summed by SDOT at best.
    pub(crate) const DOT: Self = Self::new(true, false);
    /// Operands are laid out, for SMMLA in an order of its own.
    pub(crate) const LAYOUT: Self = Self::new(false, true);
    /// Products are summed.
    pub(crate) const ALL: Self = Self::new(true, true);

    const fn new(dot: bool, matrix: bool) -> Self {
        Self { dot, matrix }
    }
}

/// Code over [`Isa`] that can be compiled as a function of its own for each instruction set.
pub(crate) trait Routine {
    type Output;
    /// Which of them are worth it.
    #[cfg_attr(
        not(target_arch = "aarch64"),
        allow(dead_code, reason = "other instruction sets gain at every step")
    )]
    const GAINS: Gains = Gains::ALL;
    /// Must be `#[inline(always)]`.
    fn simd<I: Isa>(self, isa: I) -> Self::Output;
}
