//! Matrix product: s8 rows times s8 weights in the plan's blocked layout, then requantise.
//!
//! Weights lie in `[N/8][K/4][8][4]`, N padded to 8 and K padded to 16 with zeros: a panel of 8 columns is contiguous, and 32 bytes of it hold 4 steps
//! of K for all 8 columns, which is what one pair of SDOT instructions reads. Every kernel reads this layout in place, from RAM or flash.

pub(crate) mod scalar;
pub(crate) mod simd;

use crate::error::{length, size, values};
use crate::isa::Isa;
use crate::scratch::space;
use crate::{ParamError, Requantise};

/// Columns of a panel.
pub const NR: usize = 8;
/// K is padded to a multiple of this.
pub const K_ALIGN: usize = 16;
/// Steps of K that lie together.
pub(crate) const K_STEP: usize = 4;
/// Rows computed together.
pub(crate) const ROWS: usize = 8;
/// Rows packed together, where an instruction set packs them.
pub(crate) const GROUP: usize = 12;
/// No dimension of a matrix is larger, so that paddings and small multiples cannot overflow.
pub(crate) const DIM_MAX: usize = 1 << 24;
/// No tensor has more elements, so that every index fits an i32.
pub(crate) const TENSOR_MAX: usize = 1 << 30;

/// K with its padding.
#[must_use]
pub const fn padded_k(k: usize) -> usize {
    k.next_multiple_of(K_ALIGN)
}

/// N with its padding.
#[must_use]
pub const fn padded_n(n: usize) -> usize {
    n.next_multiple_of(NR)
}

/// Bytes of the packed weights, if it can be computed.
#[must_use]
pub fn packed_len(n: usize, k: usize) -> Option<usize> {
    n.checked_next_multiple_of(NR)?
        .checked_mul(k.checked_next_multiple_of(K_ALIGN)?)
}

/// Position of weight (n, k) in the packed weights.
pub(crate) const fn packed_index(n: usize, k: usize, padded_k: usize) -> usize {
    (n / NR) * NR * padded_k + (k / K_STEP) * NR * K_STEP + (n % NR) * K_STEP + k % K_STEP
}

/// Scratch bytes of an operation that reads rows of k: room for a group of rows, zero-padded, and for the same group packed.
pub(crate) fn rows_scratch_len(k: usize) -> usize {
    2 * group_scratch_len(k)
}

/// Scratch for a group of rows of k.
pub(crate) fn group_scratch_len(k: usize) -> usize {
    space::<i8>(GROUP * padded_k(k))
}

/// Largest weights that are joined as a whole: half of a small L1. Of larger ones a panel is joined for some groups of rows at a time.
const JOINED_MAX: usize = 1 << 15;
/// Most bytes of packed rows and joined weights: what a large core's L1 has. (One group of long rows may take more.)
const PACKING_MAX: usize = 50 << 10;
/// Most groups of rows that are packed at a time: their outputs stay near until a table is applied.
const GROUPS_MAX: usize = 8;

/// Bytes of a joined panel: bias in pairs, the weights of 8 columns, scales in pairs.
pub(crate) const fn joined_panel_len(padded_k: usize) -> usize {
    2 * PAIRED + NR * padded_k
}

/// Bytes of 8 values in pairs (`Isa::pair_values`).
pub(crate) const PAIRED: usize = 2 * NR * size_of::<i32>();

/// Packs row-major `[n][k]` weights into the blocked layout.
///
/// # Errors
/// `weights` is not n·k long, or `out` not [`packed_len`].
pub fn pack(n: usize, k: usize, weights: &[i8], out: &mut [i8]) -> Result<(), ParamError> {
    size("n", n, DIM_MAX)?;
    size("k", k, DIM_MAX)?;
    length("weights", weights.len(), n.saturating_mul(k))?;
    length(
        "packed weights",
        out.len(),
        packed_len(n, k).unwrap_or(usize::MAX),
    )?;
    out.fill(0);
    for (column, row) in weights.chunks_exact(k).enumerate() {
        for (step, &weight) in row.iter().enumerate() {
            out[packed_index(column, step, padded_k(k))] = weight;
        }
    }
    Ok(())
}

/// A weight matrix of `n` outputs by `k` inputs, and its requantisation.
#[derive(Clone, Copy, Debug)]
pub struct Gemm<'a> {
    pub(crate) k: usize,
    pub(crate) n: usize,
    pub(crate) weights: &'a [i8],
    pub(crate) requantise: Requantise<'a>,
}

impl<'a> Gemm<'a> {
    /// `weights` are packed (see [`pack`]).
    ///
    /// # Errors
    /// A length does not fit, a weight is −128, or an accumulator could leave its bounds.
    pub fn new(
        k: usize,
        n: usize,
        weights: &'a [i8],
        requantise: Requantise<'a>,
    ) -> Result<Self, ParamError> {
        let gemm = Self::new_verified(k, n, weights, requantise)?;
        gemm.check_elements()?;
        Ok(gemm)
    }

    /// The part of `new` that reads the arrays' elements, those of the requantisation included.
    ///
    /// # Errors
    /// Those of `new` that are about elements.
    pub fn check_elements(&self) -> Result<(), ParamError> {
        self.requantise.check_elements()?;
        values("weights", "at least -127", self.weights, |w| w != i8::MIN)?;
        self.check_reach(128)
    }

    /// As `new`, for arrays it has accepted before: reads no element (see the crate's documentation).
    ///
    /// # Errors
    /// Those of `new` that are not about elements.
    pub fn new_verified(
        k: usize,
        n: usize,
        weights: &'a [i8],
        requantise: Requantise<'a>,
    ) -> Result<Self, ParamError> {
        size("k", k, DIM_MAX)?;
        size("n", n, DIM_MAX)?;
        length(
            "weights",
            weights.len(),
            packed_len(n, k).unwrap_or(usize::MAX),
        )?;
        length("bias", requantise.bias.len(), padded_n(n))?;
        Ok(Self {
            k,
            n,
            weights,
            requantise,
        })
    }

    /// Accumulators stay in bounds for inputs of magnitude up to `input`.
    pub(crate) fn check_reach(&self, input: u64) -> Result<(), ParamError> {
        self.requantise.check_reach(self.reach(input))
    }

    /// Largest magnitude of an accumulator without bias, for inputs of magnitude up to `input`.
    fn reach(&self, input: u64) -> u64 {
        (self.k as u64).saturating_mul(127).saturating_mul(input)
    }

    /// See [`Requantise::fits_i16`].
    pub(crate) fn fits_i16<I: Isa>(&self, isa: I) -> bool {
        self.requantise.fits_i16(isa, self.reach(128), self.n)
    }

    /// Bytes of the joined panels if an operation may keep them in scratch, else 0.
    pub(crate) fn joined_len(&self) -> usize {
        if self.weights.len() <= JOINED_MAX {
            self.weights.len() / NR * joined_panel_len(padded_k(self.k)) / padded_k(self.k)
        } else {
            0
        }
    }

    /// Groups of rows that are packed at a time, of an operation on `rows`.
    pub(crate) fn groups_at_once(&self, rows: usize) -> usize {
        let joined = self.joined_len().max(joined_panel_len(padded_k(self.k)));
        let fit = PACKING_MAX.saturating_sub(joined) / (GROUP * padded_k(self.k));
        (rows / GROUP).min(fit).clamp(1, GROUPS_MAX)
    }

    /// Scratch bytes for packed rows and joined weights of an operation on `rows`.
    pub(crate) fn packing_len(&self, rows: usize) -> usize {
        let groups = self.groups_at_once(rows);
        let panel = match groups {
            1 => 0,
            _ => joined_panel_len(padded_k(self.k)),
        };
        let packed = groups.saturating_mul(GROUP * padded_k(self.k));
        space::<i8>(packed) + space::<i8>(self.joined_len().max(panel))
    }

    /// Inputs per row.
    #[must_use]
    pub fn k(&self) -> usize {
        self.k
    }

    /// Outputs per row.
    #[must_use]
    pub fn n(&self) -> usize {
        self.n
    }

    /// The weight of output `n` and input `k`; `None` past the last.
    #[must_use]
    pub fn weight(&self, n: usize, k: usize) -> Option<i8> {
        let inside = n < self.n && k < self.k;
        let index = inside.then(|| packed_index(n, k, padded_k(self.k)))?;
        self.weights.get(index).copied()
    }

    /// The packed weights.
    #[must_use]
    pub fn weights(&self) -> &'a [i8] {
        self.weights
    }

    /// The requantisation.
    #[must_use]
    pub fn requantise(&self) -> &Requantise<'a> {
        &self.requantise
    }
}
