//! 16 channels at a time.
//!
//! A 3×3 window (any stride) reads the image in place: weights, bias and scale of 16 channels stay in registers along a row; rows above and below
//! the image are a row of pad bytes in scratch. Other windows, and pixels whose window crosses the left or right edge, are gathered into scratch first.
//!
//! Products are added in pairs in 16 bits (2·127·128 fits), then widened. Channels past the last multiple of 16 are covered by a last block that
//! overlaps its neighbour; where that is impossible (fewer than 16 channels) or wrong (adding to a residual twice) they run as the reference does.

use core::ops::Range;

use super::Depthwise;
use crate::gemm::NR;
use crate::isa::{Isa, Reference, Routine, Vectorised};
use crate::requantise::simd::Target;
use crate::scratch::carve;
use crate::{Out, SizeError};

/// Channels of a block.
const BLOCK: usize = 16;

/// Where a `run` call reads and writes.
#[derive(Clone, Copy)]
struct Buffers<'r> {
    x: &'r [i8],
    pad_row: &'r [i8],
    target: Target,
}

impl Vectorised for Depthwise<'_> {
    #[inline(always)]
    fn run_simd<I: Isa>(
        &self,
        isa: I,
        rows: Range<usize>,
        x: &[i8],
        out: &mut Out<'_>,
        scratch: &mut [i8],
    ) -> Result<(), SizeError> {
        let channels = self.pad.len();
        if channels < BLOCK {
            return self.run_scalar(rows, x, out, scratch);
        }
        let (pad_row, rest) = carve::<i8>(scratch, self.pad_row_len())?;
        let (patch, _) = carve::<i8>(rest, self.weights.len())?;
        for pixel in pad_row.chunks_exact_mut(channels) {
            pixel.copy_from_slice(self.pad);
        }
        let adds = matches!(out, Out::S16Add(_));
        let blocks = if adds {
            channels / BLOCK
        } else {
            channels.div_ceil(BLOCK)
        };
        let buffers = Buffers {
            x,
            pad_row,
            target: Target::new(&self.requantise, out),
        };
        let row_len = self.shape.out_row_len();
        for (index, oy) in rows.enumerate() {
            // SAFETY: `run` checked that x is the image and that `out` holds `rows`; the blocks lie within the channels.
            unsafe {
                self.row_simd(isa, buffers, oy, blocks, patch, index * row_len);
                buffers
                    .target
                    .look_up(isa, &self.requantise, index * row_len, row_len);
            }
            if blocks * BLOCK < channels {
                self.row_scalar(x, oy, blocks * BLOCK..channels, out, index * row_len);
            }
        }
        Ok(())
    }
}

impl Depthwise<'_> {
    /// One row of output pixels, blocks `0..blocks` of channels, from element `first` of the target on.
    ///
    /// # Safety
    /// `buffers.x` is the whole image, `pad_row` a row of it, `patch` a window; the row lies in the target; blocks of 16 lie in the channels, the last
    /// one moved down if need be.
    #[inline(always)]
    unsafe fn row_simd<I: Isa>(
        &self,
        isa: I,
        buffers: Buffers<'_>,
        oy: usize,
        blocks: usize,
        patch: &mut [i8],
        first: usize,
    ) {
        let channels = self.pad.len();
        let inner = self.inner_columns();
        for block in 0..blocks {
            let c = (block * BLOCK).min(channels - BLOCK);
            self.inner_block(isa, buffers, oy, c, inner.clone(), first);
        }
        for ox in (0..inner.start).chain(inner.end..self.shape.out_w as usize) {
            self.shape.gather(buffers.x, self.pad, oy, ox, patch);
            for block in 0..blocks {
                let c = (block * BLOCK).min(channels - BLOCK);
                // SAFETY: the caller's promises.
                unsafe {
                    self.gathered_block(isa, buffers.target, patch, c, first + ox * channels + c);
                }
            }
        }
    }

    /// Output columns whose 3×3 window lies between the left and the right edge; none for other windows.
    fn inner_columns(&self) -> Range<usize> {
        let (stride, left) = (self.shape.stride[1] as usize, self.shape.pad[1] as usize);
        let room = (self.shape.in_w as usize + left).checked_sub(3);
        match room {
            Some(room) if self.shape.kernel == [3, 3] => {
                let end = (room / stride + 1).min(self.shape.out_w as usize);
                left.div_ceil(stride).min(end)..end
            }
            _ => 0..0,
        }
    }

    /// 16 channels from `c` on, of the pixels `columns` of row `oy`, read in place.
    #[inline(always)]
    fn inner_block<I: Isa>(
        &self,
        isa: I,
        buffers: Buffers<'_>,
        oy: usize,
        c: usize,
        columns: Range<usize>,
        first: usize,
    ) {
        let mut lines = [buffers.pad_row.as_ptr(); 3];
        for (ky, line) in lines.iter_mut().enumerate() {
            if let Some(start) = self.shape.pixel(self.shape.start(0, oy) + ky as isize, 0) {
                *line = buffers.x[start..].as_ptr();
            }
        }
        isa.call(InnerBlock {
            op: self,
            lines,
            target: buffers.target,
            c,
            columns,
            first,
        });
    }

    /// 16 channels from `c` on of one pixel, whose window lies in `patch`, to element `index` of the target.
    ///
    /// # Safety
    /// `c + 16` lies within the channels; 16 elements from `index` on lie in the target.
    #[inline(always)]
    unsafe fn gathered_block<I: Isa>(
        &self,
        isa: I,
        target: Target,
        patch: &[i8],
        c: usize,
        index: usize,
    ) {
        let channels = self.pad.len();
        let taps = self.shape.taps();
        let (x, w) = (patch.as_ptr(), self.weights.as_ptr());
        // SAFETY: patch and weights are `[taps][channels]`.
        unsafe {
            let (mut acc, scale) = self.epilogue(isa, c);
            let mut tap = 0;
            while tap + 2 <= taps {
                let (even, odd) = (tap * channels + c, (tap + 1) * channels + c);
                let weights = [isa.load_taps(w.add(even)), isa.load_taps(w.add(odd))];
                acc = isa.tap_pair(acc, [x.add(even), x.add(odd)], weights);
                tap += 2;
            }
            if tap < taps {
                let last = tap * channels + c;
                acc = isa.tap(acc, x.add(last), isa.load_taps(w.add(last)));
            }
            target.store_whole(isa, [acc[0]], scale[0], index, 0);
            target.store_whole(isa, [acc[1]], scale[1], index + NR, 0);
        }
    }

    /// Bias and scale of 16 channels from `c` on.
    ///
    /// # Safety
    /// `c + 16` lies within the channels.
    #[inline(always)]
    unsafe fn epilogue<I: Isa>(&self, isa: I, c: usize) -> ([I::I32; 2], [I::F32; 2]) {
        // SAFETY: the caller's promise; there is one bias and one scale per channel (`new`).
        unsafe {
            let (bias, scale) = (
                self.requantise.bias.as_ptr().add(c),
                self.requantise.scale.as_ptr().add(c),
            );
            (
                [isa.load_i32(bias), isa.load_i32(bias.add(NR))],
                [isa.load_f32(scale), isa.load_f32(scale.add(NR))],
            )
        }
    }
}

/// 16 channels from `c` on, of the pixels `columns` of an output row that starts at element `first`. Whoever makes one promises: the lines are whole rows
/// of the image or of padding, the window of every column lies between their ends, `c + 16` within the channels, and the row in the target.
struct InnerBlock<'b, 'a> {
    op: &'b Depthwise<'a>,
    lines: [*const i8; 3],
    target: Target,
    c: usize,
    columns: Range<usize>,
    first: usize,
}

impl Routine for InnerBlock<'_, '_> {
    type Output = ();

    /// The form of the output is settled outside the loop.
    #[inline(always)]
    fn simd<I: Isa>(self, isa: I) {
        // SAFETY: as promised.
        unsafe {
            match self.target {
                Target::S8 { y, zero_point, min } => {
                    self.pixels(isa, Target::S8 { y, zero_point, min });
                }
                Target::S8Whole { y, zero_point } => {
                    self.pixels(isa, Target::S8Whole { y, zero_point });
                }
                Target::S16(y) => self.pixels(isa, Target::S16(y)),
                Target::S16Add(y) => self.pixels(isa, Target::S16Add(y)),
                Target::S32(y) => self.pixels(isa, Target::S32(y)),
            }
        }
    }
}

impl InnerBlock<'_, '_> {
    /// # Safety
    /// As promised by whoever made `self`; `target` is `self.target`.
    #[inline(always)]
    unsafe fn pixels<I: Isa>(self, isa: I, target: Target) {
        let Self {
            op,
            lines,
            c,
            columns,
            first,
            ..
        } = self;
        let channels = op.pad.len();
        let left = op.shape.start(1, columns.start);
        // SAFETY: the caller's promise.
        unsafe {
            let mut weights = [isa.load_taps(op.weights.as_ptr().add(c)); 9];
            for (tap, weight) in weights.iter_mut().enumerate() {
                *weight = isa.load_taps(op.weights.as_ptr().add(tap * channels + c));
            }
            let (bias, scale) = op.epilogue(isa, c);
            let mut offset = left * channels as isize + c as isize;
            let mut index = first + columns.start * channels + c;
            for _ in columns {
                // Three addresses and three offsets, not nine addresses to be moved along.
                offset = isa.opaque(offset);
                let at = |ky: usize, kx: usize| lines[ky].offset(offset + (kx * channels) as isize);
                let mut acc = bias;
                acc = isa.tap_pair(acc, [at(0, 0), at(0, 1)], [weights[0], weights[1]]);
                acc = isa.tap_pair(acc, [at(0, 2), at(1, 0)], [weights[2], weights[3]]);
                acc = isa.tap_pair(acc, [at(1, 1), at(1, 2)], [weights[4], weights[5]]);
                acc = isa.tap_pair(acc, [at(2, 0), at(2, 1)], [weights[6], weights[7]]);
                acc = isa.tap(acc, at(2, 2), weights[8]);
                target.store_whole(isa, [acc[0]], scale[0], index, 0);
                target.store_whole(isa, [acc[1]], scale[1], index + NR, 0);
                offset += op.shape.stride[1] as isize * channels as isize;
                index += channels;
            }
        }
    }
}
