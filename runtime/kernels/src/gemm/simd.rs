//! Rows in memory times all panels: the tile, then the epilogue.
//!
//! Groups of rows outside, panels inside: 8 rows stay in L1 while the weights stream past. Fewer than 8 rows left run as 4, 2 and 1, not as wasted
//! rows. Where the instruction set asks for it, groups are of 12 rows: some are packed, then each panel meets all of them.

use core::ops::Range;

use super::{GROUP, Gemm, NR, PAIRED, joined_panel_len, padded_k};
use crate::isa::{Isa, Routine, unroll};
use crate::requantise::simd::{Form, Target, match_form, with_form};
use crate::scratch::carve;
use crate::{SMALL, SizeError};

/// Rows of s8, `stride` apart, each readable to the padded K.
#[derive(Clone, Copy)]
pub(crate) struct Rows {
    pub(crate) first: *const i8,
    pub(crate) stride: usize,
}

/// What instruction sets that pack need besides rows and weights.
#[derive(Clone, Copy)]
pub(crate) struct Packing<'s> {
    /// Room for `groups` groups of rows.
    packed: *mut i8,
    groups: usize,
    weights: Weights<'s>,
}

/// How a packed group finds weights, bias and scales.
#[derive(Clone, Copy)]
enum Weights<'s> {
    /// As they lie in the plan; every tile joins them for itself.
    Plain,
    /// All joined: see [`Join`].
    Joined(&'s [i8]),
    /// Joined panel by panel, here.
    ByPanel(*mut i8),
}

impl<'s> Packing<'s> {
    /// Takes room for a group of rows of k, if the instruction set packs them, from `scratch` ([`rows_scratch_len`](super::rows_scratch_len)).
    pub(crate) fn new<I: Isa>(k: usize, scratch: &'s mut [i8]) -> Result<Self, SizeError> {
        let len = if I::PACKED { GROUP * padded_k(k) } else { 0 };
        let (packed, _) = carve::<i8>(scratch, len)?;
        Ok(Self {
            packed: packed.as_mut_ptr(),
            groups: 1,
            weights: Weights::Plain,
        })
    }

    /// Takes room for as many groups as there are in `rows` rows or are worth it, from `scratch` ([`Gemm::packing_len`]), and joins the weights if that
    /// is worth it and they are small enough.
    #[inline(always)]
    pub(crate) fn joining<I: Isa>(
        isa: I,
        gemm: &Gemm<'_>,
        rows: usize,
        scratch: &'s mut [i8],
    ) -> Result<Self, SizeError> {
        if !I::PACKED || rows < JOINED_ROWS {
            return Self::new::<I>(gemm.k, scratch);
        }
        let groups = gemm.groups_at_once(rows);
        let (packed, rest) = carve::<i8>(scratch, groups * GROUP * padded_k(gemm.k))?;
        let weights = if gemm.joined_len() > 0 {
            let (joined, _) = carve::<i8>(rest, gemm.joined_len())?;
            let panels = 0..joined.len() / joined_panel_len(padded_k(gemm.k));
            isa.call(Join {
                gemm,
                panels,
                joined,
            });
            Weights::Joined(joined)
        } else if groups > 1 {
            let (panel, _) = carve::<i8>(rest, joined_panel_len(padded_k(gemm.k)))?;
            Weights::ByPanel(panel.as_mut_ptr())
        } else {
            Weights::Plain
        };
        Ok(Self {
            packed: packed.as_mut_ptr(),
            groups,
            weights,
        })
    }

    /// Rows that are packed at a time.
    pub(crate) fn rows(&self) -> usize {
        self.groups * GROUP
    }
}

/// Rows that are worth joining weights for: two groups save 8 ZIP for the 4 that joining takes, with as many loads and stores.
const JOINED_ROWS: usize = 2 * GROUP;

/// Joins panels: bias in the order of a pair of rows ([`Isa::pair_values`]), weights ([`Isa::join_panel`]), scales as the bias.
struct Join<'g, 'a, 's> {
    gemm: &'g Gemm<'a>,
    panels: Range<usize>,
    /// Room for those panels.
    joined: &'s mut [i8],
}

impl Routine for Join<'_, '_, '_> {
    type Output = ();

    #[inline(always)]
    fn simd<I: Isa>(self, isa: I) {
        let k = padded_k(self.gemm.k);
        let (bias, scale) = (self.gemm.requantise.bias, self.gemm.requantise.scale);
        let to = self.joined.chunks_exact_mut(joined_panel_len(k));
        for (panel, to) in self.panels.zip(to) {
            let columns = panel * NR..(panel + 1) * NR;
            let weights = &self.gemm.weights[panel * NR * k..][..NR * k];
            let (bias_to, rest) = to.split_at_mut(PAIRED);
            let (weights_to, scale_to) = rest.split_at_mut(NR * k);
            // SAFETY: 8 values are read and 16 written, in each of two pieces of that size; 8·K weights, K padded to 16, are a multiple of 128.
            unsafe {
                isa.pair_values(bias[columns.clone()].as_ptr(), bias_to.as_mut_ptr().cast());
                isa.join_panel(weights.as_ptr(), weights_to.as_mut_ptr(), NR * k);
                isa.pair_values(scale[columns].as_ptr().cast(), scale_to.as_mut_ptr().cast());
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
                while count - done >= GROUP {
                    let groups = ((count - done) / GROUP).min(packing.groups);
                    self.packed(
                        isa,
                        x.from(done),
                        groups,
                        target,
                        first + done * self.n,
                        packing,
                    );
                    done += groups * GROUP;
                }
            } else if I::WIDE && self.n.is_multiple_of(2 * NR) {
                // The groups of 4 below.
            } else if I::ROWS == 8 && !SMALL {
                done = self.groups::<I, 8>(isa, x, count, target, first);
            }
            let at = |done: usize| first + done * self.n;
            done += self.groups::<I, 4>(isa, x.from(done), count - done, target, at(done));
            if !SMALL {
                done += self.groups::<I, 2>(isa, x.from(done), count - done, target, at(done));
            }
            self.groups::<I, 1>(isa, x.from(done), count - done, target, at(done));
            if SMALL {
                let rows = Groups::<1> {
                    gemm: self,
                    x,
                    groups: count,
                    target,
                    first,
                };
                rows.last_panel(isa);
            }
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
    ) -> usize {
        let groups = count / R;
        if groups > 0 {
            let work = Groups::<R> {
                gemm: self,
                x,
                groups,
                target,
                first,
            };
            isa.call(WholePanels(work));
            if !SMALL {
                work.last_panel(isa);
            }
        }
        groups * R
    }

    /// As many groups of rows, packed first.
    ///
    /// # Safety
    /// As `rows_simd`; `packing` has room for them.
    #[inline(always)]
    unsafe fn packed<I: Isa>(
        &self,
        isa: I,
        x: Rows,
        groups: usize,
        target: Target,
        first: usize,
        packing: Packing<'_>,
    ) {
        let k = padded_k(self.k);
        let rows = x;
        let x = Rows {
            first: packing.packed,
            stride: k,
        };
        isa.call(Pack {
            rows,
            groups,
            k,
            to: packing.packed,
        });
        let work = Groups::<GROUP> {
            gemm: self,
            x,
            groups,
            target,
            first,
        };
        match packing.weights {
            // Joining a panel for one group would cost more than it saves.
            Weights::ByPanel(_) if groups == 1 => {
                isa.call(PackedPanels::<false>(work, Weights::Plain));
            }
            Weights::Plain => isa.call(PackedPanels::<false>(work, Weights::Plain)),
            weights => isa.call(PackedPanels::<true>(work, weights)),
        }
        if !SMALL {
            work.last_panel(isa);
        }
    }
}

/// Packs groups of rows of K, that must exist, `to` where there must be room for them.
struct Pack {
    rows: Rows,
    groups: usize,
    k: usize,
    to: *mut i8,
}

impl Routine for Pack {
    type Output = ();

    #[inline(always)]
    fn simd<I: Isa>(self, isa: I) {
        let mut to = self.to;
        for group in 0..self.groups {
            // SAFETY: as promised.
            unsafe {
                isa.pack_group(
                    self.rows.from(group * GROUP).first,
                    self.rows.stride,
                    self.k,
                    to,
                );
                to = to.add(GROUP * self.k);
            }
        }
    }
}

/// Groups of R rows, packed if R is [`GROUP`]. Whoever makes one promises what `rows_simd` asks for, for all their rows.
#[derive(Clone, Copy)]
struct Groups<'g, 'a, const R: usize> {
    gemm: &'g Gemm<'a>,
    x: Rows,
    groups: usize,
    target: Target,
    first: usize,
}

/// The panels of 8 columns.
struct WholePanels<'g, 'a, const R: usize>(Groups<'g, 'a, R>);

/// The panels of 8 columns for packed rows, their weights joined or not.
struct PackedPanels<'g, 'a, const JOINED: bool>(Groups<'g, 'a, GROUP>, Weights<'g>);

/// The panel whose last columns are padding; a function of its own, which does not take registers from the others.
struct LastPanel<'g, 'a, const R: usize>(Groups<'g, 'a, R>);

impl<const R: usize> Routine for WholePanels<'_, '_, R> {
    type Output = ();

    /// The form of the output is settled outside the loops.
    #[inline(always)]
    fn simd<I: Isa>(self, isa: I) {
        // SAFETY: as promised.
        unsafe { with_form!(self.0.target, form => self.0.panels(isa, form)) };
    }
}

impl<const JOINED: bool> Routine for PackedPanels<'_, '_, JOINED> {
    type Output = ();

    #[inline(always)]
    fn simd<I: Isa>(self, isa: I) {
        let Self(groups, weights) = self;
        // SAFETY: as promised.
        unsafe {
            // Most of a network's work is of this kind.
            if JOINED {
                match_form!(adding groups.target, form => groups.packed_panels::<I, _, JOINED>(isa, form, weights));
            } else {
                with_form!(groups.target, form => groups.packed_panels::<I, _, JOINED>(isa, form, weights));
            }
        }
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
                let x = work.x.from(group * R);
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
    /// The columns past the last whole panel, if there are any.
    #[inline(always)]
    fn last_panel<I: Isa>(self, isa: I) {
        if !self.gemm.n.is_multiple_of(NR) {
            isa.call(LastPanel(self));
        }
    }

    /// # Safety
    /// As promised by whoever made `self`; `form` is that of `self.target`.
    #[inline(always)]
    unsafe fn panels<I: Isa, F: Form>(self, isa: I, form: F) {
        let columns = self.gemm.n;
        let panels = Panels::new(self.gemm);
        for group in 0..self.groups {
            let first = self.first + group * R * columns;
            // SAFETY: there are that many rows, as promised.
            let x = unsafe { self.x.from(group * R) };
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
                        let (acc, scale) = panels.tile_wide(isa, x, n);
                        form.store_wide(isa, acc, scale, first + n, columns);
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
}

impl Groups<'_, '_, GROUP> {
    /// ```text
    /// for each panel of 8 columns:
    ///     join its weights, unless they are joined already
    ///     for each group of 12 rows: the tile, then the epilogue
    /// ```
    /// 1. A panel serves all groups: it stays in L1, and what it takes to join it is shared.
    /// 2. Packed rows follow each other, and so do output rows: a pointer to each moves along with the loads and stores.
    ///
    /// # Safety
    /// As promised by whoever made `self`; `form` is that of `self.target`, and `weights` are joined if JOINED.
    #[inline(always)]
    unsafe fn packed_panels<I: Isa, F: Form, const JOINED: bool>(
        self,
        isa: I,
        form: F,
        weights: Weights<'_>,
    ) {
        let gemm = self.gemm;
        let panels = Panels::new(gemm);
        let len = joined_panel_len(panels.k);
        for panel in 0..gemm.n / NR {
            let n = panel * NR;
            // SAFETY: as promised: there are as many packed rows and joined panels, and room for one where it is joined here; `n` is the first column
            // of a whole panel.
            unsafe {
                let joined = match weights {
                    Weights::Plain => panels.weights,
                    Weights::Joined(all) => all.as_ptr().add(panel * len),
                    Weights::ByPanel(room) => {
                        let joined = core::slice::from_raw_parts_mut(room, len);
                        isa.call(Join {
                            gemm,
                            panels: panel..panel + 1,
                            joined,
                        });
                        room
                    }
                };
                let (mut x, mut y) = (self.x.first, form.cursor(self.first + n));
                for _ in 0..self.groups {
                    let (acc, scale) = if JOINED {
                        isa.tile_joined(&mut x, joined, panels.k)
                    } else {
                        panels.tile_packed(isa, &mut x, n)
                    };
                    form.store_group(isa, acc, scale, &mut y, gemm.n);
                }
            }
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
                let pairs = isa.tile_packed(init, &mut { x.first }, self.k, weights);
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
    /// Accumulators, bias included, and scales of the panel of column `n`, for the pairs of rows of a group, after which `packed` is left.
    ///
    /// # Safety
    /// As `tile`; `packed` is a group.
    #[inline(always)]
    unsafe fn tile_packed<I: Isa>(
        self,
        isa: I,
        packed: &mut *const i8,
        n: usize,
    ) -> ([[I::I32; 2]; GROUP / 2], [I::F32; 2]) {
        // SAFETY: as in `tile`.
        unsafe {
            let weights = self.weights.add(n * self.k);
            let acc = isa.tile_packed(self.bias.add(n), packed, self.k, weights);
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
