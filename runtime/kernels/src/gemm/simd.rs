//! Rows in memory times all panels: the tile, then the epilogue.
//!
//! Groups of rows outside, panels inside: 8 rows stay in L1 while the weights stream past. Fewer than 8 rows left run as 4, 2 and 1, not as wasted
//! rows. Where the instruction set asks for it, groups are of 12 rows, packed before the weights stream past.

use super::{GROUP, Gemm, NR, PAIRED, joined_panel_len, padded_k};
use crate::SizeError;
use crate::isa::{Isa, Routine, unroll};
use crate::requantise::simd::{Form, Target, with_form};
use crate::scratch::carve;

/// Rows of s8, `stride` apart, each readable to the padded K.
#[derive(Clone, Copy)]
pub(crate) struct Rows {
    pub(crate) first: *const i8,
    pub(crate) stride: usize,
}

/// What instruction sets that pack need besides rows and weights.
#[derive(Clone, Copy)]
pub(crate) struct Packing<'s> {
    /// Room for a group of rows.
    group: *mut i8,
    /// The panels, joined: see [`Join`].
    joined: Option<&'s [i8]>,
}

impl<'s> Packing<'s> {
    /// Takes room for rows of k, if the instruction set packs them, from `scratch` ([`rows_scratch_len`](super::rows_scratch_len)).
    pub(crate) fn new<I: Isa>(k: usize, scratch: &'s mut [i8]) -> Result<Self, SizeError> {
        let len = if I::PACKED { GROUP * padded_k(k) } else { 0 };
        let (group, _) = carve::<i8>(scratch, len)?;
        Ok(Self {
            group: group.as_mut_ptr(),
            joined: None,
        })
    }

    /// As `new`, and joins the weights for `rows` rows if that is worth it and they are small enough.
    #[inline(always)]
    pub(crate) fn joining<I: Isa>(
        isa: I,
        gemm: &Gemm<'_>,
        rows: usize,
        scratch: &'s mut [i8],
    ) -> Result<Self, SizeError> {
        let len = gemm.joined_len();
        if !I::PACKED || len == 0 || rows < JOINED_ROWS {
            return Self::new::<I>(gemm.k, scratch);
        }
        let (joined, rest) = carve::<i8>(scratch, len)?;
        isa.call(Join { gemm, joined });
        Ok(Self {
            joined: Some(joined),
            ..Self::new::<I>(gemm.k, rest)?
        })
    }
}

/// Rows that are worth joining the weights for: three groups save 12 ZIP for every 4 that joining takes, besides loads and stores.
const JOINED_ROWS: usize = 3 * GROUP;

/// Joins panels: bias and scales in the order of a pair of rows ([`Isa::pair_values`]), then the weights ([`Isa::join`]).
struct Join<'g, 'a, 's> {
    gemm: &'g Gemm<'a>,
    /// [`Gemm::joined_len`] bytes.
    joined: &'s mut [i8],
}

impl Routine for Join<'_, '_, '_> {
    type Output = ();

    #[inline(always)]
    fn simd<I: Isa>(self, isa: I) {
        let k = padded_k(self.gemm.k);
        let panels = self.joined.chunks_exact_mut(joined_panel_len(k));
        let (bias, scale) = (self.gemm.requantise.bias, self.gemm.requantise.scale);
        let values = bias.chunks_exact(NR).zip(scale.chunks_exact(NR));
        let weights = self.gemm.weights.chunks_exact(NR * k);
        for (panel, ((bias, scale), weights)) in panels.zip(values.zip(weights)) {
            let (bias_to, rest) = panel.split_at_mut(PAIRED);
            let (scale_to, weights_to) = rest.split_at_mut(PAIRED);
            weights_to.copy_from_slice(weights);
            // SAFETY: 8 values are read and 16 written, in each of two pieces of that size; 8·K weights, K padded to 16, are a multiple of 128.
            unsafe {
                isa.pair_values(bias.as_ptr(), bias_to.as_mut_ptr().cast());
                isa.pair_values(scale.as_ptr().cast(), scale_to.as_mut_ptr().cast());
                isa.join(weights_to.as_mut_ptr(), weights_to.len());
            }
        }
    }
}

impl Gemm<'_> {
    /// Computes `count` rows into `target[first..]`, the table included.
    ///
    /// # Safety
    /// The rows are valid for reading to the padded K, `first..first + count·n` lies in the target, and `packing` is for this product.
    #[inline(always)]
    pub(crate) unsafe fn rows_simd<I: Isa>(
        &self,
        isa: I,
        x: Rows,
        count: usize,
        target: Target,
        first: usize,
        packing: Packing<'_>,
    ) {
        // SAFETY: `done` never exceeds `count`.
        unsafe {
            let mut done = 0;
            if I::PACKED {
                done = self.groups::<I, GROUP>(isa, x, count, target, first, packing);
            } else if I::WIDE && self.n.is_multiple_of(2 * NR) {
                // The groups of 4 below.
            } else if I::ROWS == 8 {
                done = self.groups::<I, 8>(isa, x, count, target, first, packing);
            }
            let at = |done: usize| first + done * self.n;
            done += self.groups::<I, 4>(isa, x.from(done), count - done, target, at(done), packing);
            done += self.groups::<I, 2>(isa, x.from(done), count - done, target, at(done), packing);
            self.groups::<I, 1>(isa, x.from(done), count - done, target, at(done), packing);
            target.look_up(isa, &self.requantise.output, first, count * self.n);
        }
    }

    /// As many whole groups of R rows as there are in `count`; returns how many rows that was.
    ///
    /// # Safety
    /// As `rows_simd`.
    #[inline(always)]
    unsafe fn groups<I: Isa, const R: usize>(
        &self,
        isa: I,
        x: Rows,
        count: usize,
        target: Target,
        first: usize,
        packing: Packing<'_>,
    ) -> usize {
        let groups = count / R;
        if groups > 0 {
            let work = Groups::<R> {
                gemm: self,
                x,
                groups,
                target,
                first,
                packing,
            };
            if R == GROUP && packing.joined.is_some() {
                isa.call(WholePanels::<R, true>(work));
            } else {
                isa.call(WholePanels::<R, false>(work));
            }
            if !self.n.is_multiple_of(NR) {
                isa.call(LastPanel(work));
            }
        }
        groups * R
    }
}

/// Groups of R rows. Whoever makes one promises what `rows_simd` asks for, for all their rows.
#[derive(Clone, Copy)]
struct Groups<'g, 'a, const R: usize> {
    gemm: &'g Gemm<'a>,
    x: Rows,
    groups: usize,
    target: Target,
    first: usize,
    packing: Packing<'g>,
}

/// The panels of 8 columns, their weights joined or not.
struct WholePanels<'g, 'a, const R: usize, const JOINED: bool>(Groups<'g, 'a, R>);

/// The panel whose last columns are padding; a function of its own, which does not take registers from the others.
struct LastPanel<'g, 'a, const R: usize>(Groups<'g, 'a, R>);

impl<const R: usize, const JOINED: bool> Routine for WholePanels<'_, '_, R, JOINED> {
    type Output = ();

    /// The form of the output is settled outside the loops.
    #[inline(always)]
    fn simd<I: Isa>(self, isa: I) {
        // SAFETY: as promised.
        unsafe { with_form!(self.0.target, form => self.0.panels::<I, _, JOINED>(isa, form)) };
    }
}

impl<const R: usize> Routine for LastPanel<'_, '_, R> {
    type Output = ();

    #[inline(always)]
    fn simd<I: Isa>(self, isa: I) {
        let work = self.0;
        let columns = work.gemm.n;
        let n = columns / NR * NR;
        for group in 0..work.groups {
            // SAFETY: as promised; `n` is the first column of the last panel.
            unsafe {
                let x = work.rows(isa, group);
                let panels = Panels::new(work.gemm);
                let shifts = panels.shifts(isa, x);
                let (acc, scale) = panels.tile::<I, R>(isa, x, &shifts, n);
                let first = work.first + group * R * columns + n;
                with_form!(work.target, form => form.store_part(isa, acc, scale, first, columns, columns - n));
            }
        }
    }
}

impl<const R: usize> Groups<'_, '_, R> {
    /// The rows of a group, packed if R is [`GROUP`].
    ///
    /// # Safety
    /// There is such a group, and what whoever made `self` has promised.
    #[inline(always)]
    unsafe fn rows<I: Isa>(self, isa: I, group: usize) -> Rows {
        // SAFETY: the caller's promise.
        let x = unsafe { self.x.from(group * R) };
        if R != GROUP {
            return x;
        }
        let stride = padded_k(self.gemm.k);
        // SAFETY: the rows are readable to the padded K, and `group` has room for GROUP of them.
        unsafe { isa.pack_group(x.first, x.stride, stride, self.packing.group) };
        Rows {
            first: self.packing.group,
            stride,
        }
    }

    /// # Safety
    /// As promised by whoever made `self`; `form` is that of `self.target`.
    #[inline(always)]
    unsafe fn panels<I: Isa, F: Form, const JOINED: bool>(self, isa: I, form: F) {
        let columns = self.gemm.n;
        let panels = Panels::new(self.gemm);
        for group in 0..self.groups {
            let first = self.first + group * R * columns;
            // SAFETY: there are that many rows, as promised.
            let x = unsafe { self.rows(isa, group) };
            if R == GROUP {
                // SAFETY: as promised, and `rows` has packed the group.
                unsafe { self.packed_panels::<I, F, JOINED>(isa, form, panels, first) };
                continue;
            }
            // SAFETY: as promised: `x` are R rows, and R rows of the output begin at `first`.
            let mut n = unsafe { isa.wide_columns::<F, R>(panels, x, columns, form, first) };
            if n == columns {
                continue;
            }
            // SAFETY: as above.
            let shifts = unsafe { panels.shifts(isa, x) };
            if I::WIDE && R == 4 {
                while n + 2 * NR <= columns {
                    // SAFETY: as promised; `n` is the first column of two whole panels.
                    unsafe {
                        let ([left, right], scale) = panels.tile_wide(isa, x, n);
                        // Row by row: neighbours can be stored together.
                        unroll!(R, r, {
                            let y = first + n + r * columns;
                            form.store(isa, [left[r % 4]], scale[0], y, 0);
                            form.store(isa, [right[r % 4]], scale[1], y + NR, 0);
                        });
                    }
                    n += 2 * NR;
                }
            }
            while n + NR <= columns {
                // SAFETY: as promised; `n` is the first column of a whole panel.
                unsafe {
                    let (acc, scale) = panels.tile::<I, R>(isa, x, &shifts, n);
                    form.store(isa, acc, scale, first + n, columns);
                }
                n += NR;
            }
        }
    }

    /// The panels of a packed group, whose first output is `first`.
    ///
    /// # Safety
    /// As `panels`; the group is packed, and the weights are joined if JOINED.
    #[inline(always)]
    unsafe fn packed_panels<I: Isa, F: Form, const JOINED: bool>(
        self,
        isa: I,
        form: F,
        mut panels: Panels,
        first: usize,
    ) {
        let columns = self.gemm.n;
        if let Some(joined) = self.packing.joined.filter(|_| JOINED) {
            panels.weights = joined.as_ptr();
        }
        let mut n = 0;
        while n + NR <= columns {
            // SAFETY: the caller's promise; `n` is the first column of a whole panel.
            unsafe {
                let (acc, scale) = panels.tile_packed::<I, JOINED>(isa, self.packing.group, n);
                form.store_pairs(isa, acc, scale, first + n, columns);
            }
            n += NR;
        }
    }
}

/// The arrays of a [`Gemm`] without their lengths: values, which the compiler need not read again after every store.
#[derive(Clone, Copy)]
pub(crate) struct Panels {
    /// Padded.
    pub(crate) k: usize,
    pub(crate) weights: *const i8,
    pub(crate) bias: *const i32,
    pub(crate) scale: *const f32,
}

impl Panels {
    #[inline(always)]
    fn new(gemm: &Gemm<'_>) -> Self {
        Self {
            k: padded_k(gemm.k),
            weights: gemm.weights.as_ptr(),
            bias: gemm.requantise.bias.as_ptr(),
            scale: gemm.requantise.scale.as_ptr(),
        }
    }

    /// See [`Isa::shifts`].
    ///
    /// # Safety
    /// As `tile` for the rows.
    #[inline(always)]
    unsafe fn shifts<I: Isa, const R: usize>(self, isa: I, x: Rows) -> [i32; R] {
        if R == GROUP {
            return [0; R];
        }
        // SAFETY: the caller's promise.
        unsafe { isa.shifts(x.first, x.stride, self.k) }
    }

    /// Accumulators, bias included, and scales of the panel of column `n`. `shifts` are those of the rows.
    ///
    /// # Safety
    /// `x` are R rows readable to the padded K, packed if R is [`GROUP`]; `n` is a multiple of 8 below the number of columns.
    #[inline(always)]
    unsafe fn tile<I: Isa, const R: usize>(
        self,
        isa: I,
        x: Rows,
        shifts: &[i32; R],
        n: usize,
    ) -> ([I::I32; R], I::F32) {
        // SAFETY: weights, bias and scale are padded to whole panels (`Gemm::new`); the rows are promised.
        unsafe {
            let weights = self.weights.add(n * self.k);
            let init = self.bias.add(n);
            let acc = if R == GROUP {
                let pairs = isa.tile_packed::<false>(init, x.first, self.k, weights);
                let mut rows = [isa.splat_i32(0); R];
                unroll!(R, r, {
                    rows[r] = isa.split_i32(pairs[r / 2 % (GROUP / 2)])[r % 2];
                });
                rows
            } else {
                isa.tile_shifted(init, shifts, x.first, x.stride, self.k, weights)
            };
            (acc, isa.load_f32(self.scale.add(n)))
        }
    }
}

impl Panels {
    /// Accumulators, bias included, and scales of the panel of column `n`, for the pairs of rows of a group.
    ///
    /// # Safety
    /// As `tile`; `packed` is a group. If JOINED, `self.weights` are the joined panels.
    #[inline(always)]
    unsafe fn tile_packed<I: Isa, const JOINED: bool>(
        self,
        isa: I,
        packed: *const i8,
        n: usize,
    ) -> ([[I::I32; 2]; GROUP / 2], [I::F32; 2]) {
        // SAFETY: as in `tile`.
        unsafe {
            if JOINED {
                let bias = self.weights.add(n / NR * joined_panel_len(self.k));
                let (scale, weights) = (bias.add(PAIRED).cast::<f32>(), bias.add(2 * PAIRED));
                let acc = isa.tile_packed::<true>(bias.cast(), packed, self.k, weights);
                return (acc, [isa.load_f32(scale), isa.load_f32(scale.add(NR))]);
            }
            let weights = self.weights.add(n * self.k);
            let acc = isa.tile_packed::<false>(self.bias.add(n), packed, self.k, weights);
            (acc, isa.load_f32_pairs(self.scale.add(n)))
        }
    }

    /// As `tile` for 4 rows, and two panels from column `n` on.
    ///
    /// # Safety
    /// As `tile`, and `n + 8` lies below the number of columns.
    #[inline(always)]
    unsafe fn tile_wide<I: Isa>(
        self,
        isa: I,
        x: Rows,
        n: usize,
    ) -> ([[I::I32; 4]; 2], [I::F32; 2]) {
        // SAFETY: as in `tile`.
        unsafe {
            let weights = self.weights.add(n * self.k);
            let acc = isa.tile_wide(
                self.bias.add(n),
                x.first,
                x.stride,
                self.k,
                weights,
                NR * self.k,
            );
            let scale = self.scale.add(n);
            (acc, [isa.load_f32(scale), isa.load_f32(scale.add(NR))])
        }
    }
}

impl Rows {
    /// The rows from row `row` on.
    ///
    /// # Safety
    /// There are that many rows.
    #[inline(always)]
    pub(crate) unsafe fn from(self, row: usize) -> Self {
        // SAFETY: the caller's promise.
        let first = unsafe { self.first.add(row * self.stride) };
        Self {
            first,
            stride: self.stride,
        }
    }
}
