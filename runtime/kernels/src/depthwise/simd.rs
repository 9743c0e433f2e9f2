//! 16 channels at a time.
//!
//! A 3×3 window (any stride) reads the image in place: the weights of 16 channels (8, where two output rows are computed together) stay in registers
//! along a row; rows above and below the image are a row of pad bytes in scratch, columns left and right of it the pad bytes themselves. Other windows
//! are gathered into scratch first.
//!
//! Products are added in pairs in 16 bits (2·127·128 fits), then widened. Channels past the last multiple of 16 are covered by a last block that
//! overlaps its neighbour; where that is impossible (fewer than 16 channels) or wrong (adding to a residual twice) they run as the reference does.

use core::ops::Range;

use super::Depthwise;
use crate::gemm::NR;
use crate::isa::{Gains, Isa, Reference, Routine, Vectorised};
use crate::requantise::simd::{Form, Target, match_form, with_form};
use crate::scratch::carve;
use crate::{Out, SMALL, SizeError};

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
    const GAINS: Gains = Gains::DOT;

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
        let target = Target::new(isa, &self.requantise.output, || self.fits_i16(isa), out);
        let target = target.adding(out);
        let is_line = self.shape.kernel == [3, 3];
        // Small code has loops for what models have.
        if SMALL && (!is_line || matches!(target, Target::S8(_))) {
            return self.run_scalar(rows, x, out, scratch);
        }
        let block = if is_line { BLOCK / I::LINES } else { BLOCK };
        let adds = matches!(target, Target::S16Add(_));
        let blocks = if adds {
            channels / block
        } else {
            channels.div_ceil(block)
        };
        let buffers = Buffers { x, pad_row, target };
        let row_len = self.shape.out_row_len();
        let mut oy = rows.start;
        while oy < rows.end {
            let lines = if is_line {
                self.lines_at_once::<I>().min(rows.end - oy)
            } else {
                1
            };
            let first = (oy - rows.start) * row_len;
            // SAFETY: `run` checked that x is the image and that `out` holds `rows`; the blocks lie within the channels.
            unsafe {
                if is_line || SMALL {
                    self.lines_simd(isa, buffers, oy, lines, blocks, first);
                } else {
                    self.gathered_row(isa, buffers, oy, blocks, patch, first);
                }
                let output = &self.requantise.output;
                buffers.target.look_up(isa, output, first, lines * row_len);
            }
            if blocks * block < channels {
                for line in 0..lines {
                    let rest = blocks * block..channels;
                    self.row_scalar(x, oy + line, rest, out, first + line * row_len);
                }
            }
            oy += lines;
        }
        Ok(())
    }
}

/// Pixels of input and output rows that a block of channels may keep in L1: a cache line of 64 bytes each, 24 kB.
const PIXELS: usize = 384;
/// Output rows of a block at most.
const LINES_MAX: usize = 14;
/// Input rows that these read, and one that is read with the last of them in vain where there are two `LINES`.
type Inputs = [*const i8; LINES_MAX + 3];

impl Depthwise<'_> {
    /// Output rows that share what is loaded of the weights, a multiple of `I::LINES`: as many as stay in L1 together with the input rows they read, until
    /// the next block of channels has the same cache lines.
    #[inline(always)]
    fn lines_at_once<I: Isa>(&self) -> usize {
        if self.shape.stride[0] != 1 {
            return 1;
        }
        let rows = PIXELS / (self.shape.in_w.max(self.shape.out_w) as usize);
        (rows.saturating_sub(2) / 2).clamp(I::LINES, LINES_MAX) / I::LINES * I::LINES
    }

    /// `lines` rows of output pixels, blocks `0..blocks` of channels, from element `first` of the target on.
    ///
    /// # Safety
    /// The window is 3×3, and its vertical stride 1 if there are several lines; `buffers.x` is the whole image, `pad_row` a row of it; the rows lie in the
    /// target; blocks lie in the channels, the last one moved down if need be.
    #[inline(always)]
    unsafe fn lines_simd<I: Isa>(
        &self,
        isa: I,
        buffers: Buffers<'_>,
        oy: usize,
        lines: usize,
        blocks: usize,
        first: usize,
    ) {
        let mut inputs: Inputs = [buffers.pad_row.as_ptr(); LINES_MAX + 3];
        for (ky, input) in inputs.iter_mut().enumerate().take(2 + lines) {
            if let Some(start) = self.shape.pixel(self.shape.start(0, oy) + ky as isize, 0) {
                *input = buffers.x[start..].as_ptr();
            }
        }
        let block = BLOCK / I::LINES;
        for index in 0..blocks {
            let c = (index * block).min(self.pad.len() - block);
            isa.call(Lines(LineBlock {
                op: self,
                inputs: &inputs,
                target: buffers.target,
                lines,
                c,
                first,
            }));
        }
    }

    /// One row of output pixels, blocks `0..blocks` of 16 channels, from element `first` of the target on.
    ///
    /// # Safety
    /// As `lines_simd`, and `patch` holds a window.
    #[inline(always)]
    unsafe fn gathered_row<I: Isa>(
        &self,
        isa: I,
        buffers: Buffers<'_>,
        oy: usize,
        blocks: usize,
        patch: &mut [i8],
        first: usize,
    ) {
        let channels = self.pad.len();
        for ox in 0..self.shape.out_w as usize {
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
            with_form!(target, form => isa.store_pair(form, acc, scale, index));
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

/// A block of channels from `c` on, of `lines` output rows, of which the first starts at element `first`. Whoever makes one promises: the window is 3×3, and
/// its vertical stride 1 if there are several lines; the inputs are rows of the image or of padding, the block lies within the channels, and the output
/// rows in the target.
#[derive(Clone, Copy)]
struct LineBlock<'b, 'a> {
    op: &'b Depthwise<'a>,
    inputs: &'b Inputs,
    target: Target,
    lines: usize,
    c: usize,
    first: usize,
}

/// The output rows of a block.
struct Lines<'b, 'a>(LineBlock<'b, 'a>);

impl Routine for Lines<'_, '_> {
    type Output = ();

    /// The form of the output is settled outside the loops.
    #[inline(always)]
    fn simd<I: Isa>(self, isa: I) {
        // SAFETY: as promised.
        unsafe { match_form!(often self.0.target, form => self.0.lines::<I, _>(isa, form)) };
    }
}

impl<'b, 'a> LineBlock<'b, 'a> {
    /// All lines, `I::LINES` at a time.
    ///
    /// # Safety
    /// As promised by whoever made `self`; `form` is that of the target.
    #[inline(always)]
    unsafe fn lines<I: Isa, F: Form>(self, isa: I, form: F) {
        let shape = &self.op.shape;
        let requantise = &self.op.requantise;
        // SAFETY: the block lies within the channels.
        let pixel = unsafe {
            let (bias, scale) = (
                requantise.bias.as_ptr().add(self.c),
                requantise.scale.as_ptr().add(self.c),
            );
            Pixel::<I, F> {
                weights: isa.load_window(self.op.weights.as_ptr().add(self.c), self.op.pad.len()),
                bias: [bias, bias.wrapping_byte_offset(isa.opaque(0))],
                scale,
                scales: isa.load_f32(scale),
                form,
                pitch: shape.out_row_len(),
            }
        };
        let mut line = 0;
        while line < self.lines {
            let strip = Strip {
                op: self.op,
                inputs: core::array::from_fn(|ky| self.inputs[line + ky]),
                c: self.c,
                first: self.first + line * pixel.pitch + self.c,
            };
            // SAFETY: the inputs are rows of the image or of padding; there are two lines, or one.
            unsafe {
                if I::LINES == 2 && line + 1 < self.lines {
                    strip.pixels::<I, F, 2>(isa, &pixel);
                } else {
                    strip.pixels::<I, F, 1>(isa, &pixel);
                }
            }
            line += I::LINES;
        }
    }
}

/// A block of channels of one output row, or of two.
struct Strip<'b, 'a> {
    op: &'b Depthwise<'a>,
    inputs: [*const i8; 4],
    c: usize,
    /// The first element of the output.
    first: usize,
}

impl Strip<'_, '_> {
    /// Where the rows of input column `ix` are; left and right of the image, in the padding.
    #[inline(always)]
    fn rows(&self, ix: isize) -> [*const i8; 4] {
        let (shape, pad) = (&self.op.shape, &self.op.pad);
        if 0 <= ix && ix < shape.in_w as isize {
            let offset = ix as usize * pad.len() + self.c;
            self.inputs.map(|row| row.wrapping_add(offset))
        } else {
            [pad[self.c..].as_ptr(); 4]
        }
    }

    /// ```text
    /// a, b = the first two columns of the first window
    /// for each output pixel:
    ///     c = the third column of its window
    ///     store requantised (bias + weights · [a, b, c]), of N rows
    ///     a, b = b, c
    /// ```
    /// 1. With a stride of 1 a column is loaded (for SDOT: interleaved) once for three windows.
    /// 2. Three pixels at a time: the columns change their roles, not their registers.
    /// 3. An address for each input row and one offset, not addresses to be moved along.
    ///
    /// # Safety
    /// The inputs are whole rows of the image or of padding; `pixel` is of the block, which lies in the output in N rows.
    #[inline(always)]
    unsafe fn pixels<I: Isa, F: Form, const N: usize>(self, isa: I, pixel: &Pixel<I, F>) {
        let (shape, channels) = (&self.op.shape, self.op.pad.len());
        let (width, left) = (shape.out_w as usize, shape.start(1, 0));
        // SAFETY: the caller's promise; `rows` are valid for a block of channels from `c` on.
        unsafe {
            let mut index = self.first;
            if shape.stride[1] != 1 {
                for ox in 0..width {
                    let ix = shape.start(1, ox);
                    let columns = [0, 1, 2].map(|kx| self.rows(ix + kx));
                    let columns = [
                        isa.load_column(columns[0]),
                        isa.load_column(columns[1]),
                        isa.load_column(columns[2]),
                    ];
                    pixel.store::<N>(isa, columns, index);
                    index += channels;
                }
                return;
            }
            let mut a = isa.load_column(self.rows(left));
            let mut b = isa.load_column(self.rows(left + 1));
            // Pixels whose third column lies in the image: from the first on, since there is less padding than kernel.
            let inside = (shape.in_w as isize - left - 2).clamp(0, width as isize) as usize;
            let mut offset = (left + 2) * channels as isize + self.c as isize;
            for _ in 0..inside / 3 {
                offset = isa.opaque(offset);
                let c = isa.load_column(self.inputs.map(|row| row.offset(offset)));
                pixel.store::<N>(isa, [a, b, c], index);
                offset = isa.opaque(offset + channels as isize);
                a = isa.load_column(self.inputs.map(|row| row.offset(offset)));
                pixel.store::<N>(isa, [b, c, a], index + channels);
                offset = isa.opaque(offset + channels as isize);
                b = isa.load_column(self.inputs.map(|row| row.offset(offset)));
                pixel.store::<N>(isa, [c, a, b], index + 2 * channels);
                offset += channels as isize;
                index += 3 * channels;
            }
            for ox in inside / 3 * 3..width {
                let c = isa.load_column(self.rows(left + 2 + ox as isize));
                pixel.store::<N>(isa, [a, b, c], index);
                (a, b) = (b, c);
                index += channels;
            }
        }
    }
}

/// What the pixels of a block of channels have in common.
struct Pixel<I: Isa, F: Form> {
    weights: I::Window,
    /// Twice the same address, for all that the optimiser knows two: two loads are better than a load and copies.
    bias: [*const i32; 2],
    scale: *const f32,
    /// The first 8, which stay in registers where two output rows are computed.
    scales: I::F32,
    form: F,
    /// From an output row to the next.
    pitch: usize,
}

impl<I: Isa, F: Form> Pixel<I, F> {
    /// # Safety
    /// `bias` and `scale` are valid for a block of channels; what the columns were loaded from has not changed; the block lies in the output from
    /// `index` on, in N rows.
    #[inline(always)]
    unsafe fn store<const N: usize>(&self, isa: I, columns: [I::Column; 3], index: usize) {
        // SAFETY: the caller's promise.
        unsafe {
            if I::LINES == 2 {
                let bias = [isa.load_i32(self.bias[0]), isa.load_i32(self.bias[1])];
                let acc = isa.window(bias, columns, &self.weights);
                self.form.store(isa, [acc[0]], self.scales, index, 0);
                if N == 2 {
                    (self.form).store(isa, [acc[1]], self.scales, index + self.pitch, 0);
                }
            } else {
                let bias = [
                    isa.load_i32(self.bias[0]),
                    isa.load_i32(self.bias[0].add(NR)),
                ];
                let acc = isa.window(bias, columns, &self.weights);
                let scale = [isa.load_f32(self.scale), isa.load_f32(self.scale.add(NR))];
                isa.store_pair(self.form, acc, scale, index);
            }
        }
    }
}
