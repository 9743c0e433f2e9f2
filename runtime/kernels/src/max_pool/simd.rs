//! 16 (s8) or 8 (s16) channels at a time, all taps of a window in one register. The last block overlaps its neighbour; fewer channels than a block
//! are the reference's.

use core::ops::Range;

use super::MaxPool;
use crate::isa::{Gains, Isa, Reference, Vectorised};
use crate::{In, Out, SizeError};

/// A type of input and output.
trait Element: Copy {
    type Vector<I: Isa>: Copy;
    /// Channels of a block.
    const LANES: usize;

    /// # Safety
    /// `p` is valid for reading a block.
    unsafe fn load<I: Isa>(isa: I, p: *const Self) -> Self::Vector<I>;
    /// # Safety
    /// `p` is valid for writing a block.
    unsafe fn store<I: Isa>(isa: I, p: *mut Self, v: Self::Vector<I>);
    fn max<I: Isa>(isa: I, a: Self::Vector<I>, b: Self::Vector<I>) -> Self::Vector<I>;
}

impl Element for i8 {
    type Vector<I: Isa> = I::I8;
    const LANES: usize = 16;

    #[inline(always)]
    unsafe fn load<I: Isa>(isa: I, p: *const Self) -> I::I8 {
        // SAFETY: the caller's promise.
        unsafe { isa.load_i8(p) }
    }
    #[inline(always)]
    unsafe fn store<I: Isa>(isa: I, p: *mut Self, v: I::I8) {
        // SAFETY: the caller's promise.
        unsafe { isa.store_i8(p, v) };
    }
    #[inline(always)]
    fn max<I: Isa>(isa: I, a: I::I8, b: I::I8) -> I::I8 {
        isa.max_i8(a, b)
    }
}

impl Element for i16 {
    type Vector<I: Isa> = I::I16;
    const LANES: usize = 8;

    #[inline(always)]
    unsafe fn load<I: Isa>(isa: I, p: *const Self) -> I::I16 {
        // SAFETY: the caller's promise.
        unsafe { isa.load_i16(p) }
    }
    #[inline(always)]
    unsafe fn store<I: Isa>(isa: I, p: *mut Self, v: I::I16) {
        // SAFETY: the caller's promise.
        unsafe { isa.store_i16(p, v) };
    }
    #[inline(always)]
    fn max<I: Isa>(isa: I, a: I::I16, b: I::I16) -> I::I16 {
        isa.max_i16(a, b)
    }
}

impl Vectorised for MaxPool {
    const GAINS: Gains = Gains::LANES;

    #[inline(always)]
    fn run_simd<I: Isa>(
        &self,
        isa: I,
        rows: Range<usize>,
        x: In<'_>,
        out: &mut Out<'_>,
        scratch: &mut [i8],
    ) -> Result<(), SizeError> {
        let channels = self.shape.in_c as usize;
        // SAFETY: `run` checked that x is the image, and that `out` holds `rows`.
        unsafe {
            match (x, &mut *out) {
                (In::S8(x), Out::S8(y)) if channels >= i8::LANES => {
                    self.rows_simd(isa, rows, x.as_ptr(), y.as_mut_ptr());
                }
                (In::S16(x), Out::S16(y)) if channels >= i16::LANES => {
                    self.rows_simd(isa, rows, x.as_ptr(), y.as_mut_ptr());
                }
                _ => return self.run_scalar(rows, x, out, scratch),
            }
        }
        Ok(())
    }
}

/// Pixels of the image under a window: at least one.
#[derive(Clone, Copy)]
struct Window {
    /// Element index of the first pixel.
    first: usize,
    lines: usize,
    columns: usize,
}

impl MaxPool {
    /// # Safety
    /// `x` is the image, of at least a block of channels, and `y` valid for writing `rows`.
    #[inline(always)]
    unsafe fn rows_simd<I: Isa, E: Element>(
        &self,
        isa: I,
        rows: Range<usize>,
        x: *const E,
        mut y: *mut E,
    ) {
        let channels = self.shape.in_c as usize;
        for oy in rows {
            for ox in 0..self.shape.out_w as usize {
                let window = self.window(oy, ox);
                for block in 0..channels.div_ceil(E::LANES) {
                    let c = (block * E::LANES).min(channels - E::LANES);
                    // SAFETY: the window lies in the image and the block in the channels; y is moved along by a pixel for each pixel of `rows`.
                    unsafe {
                        let max = self.maximum_simd(isa, window, x.add(window.first + c));
                        E::store(isa, y.add(c), max);
                    }
                }
                y = y.wrapping_add(channels);
            }
        }
    }

    /// A block of channels; `x` is their place in the window's first pixel.
    ///
    /// # Safety
    /// The window lies in the image, the block in the channels.
    #[inline(always)]
    unsafe fn maximum_simd<I: Isa, E: Element>(
        &self,
        isa: I,
        window: Window,
        x: *const E,
    ) -> E::Vector<I> {
        let channels = self.shape.in_c as usize;
        let pitch = self.shape.in_w as usize * channels;
        // SAFETY: the caller's promise.
        unsafe {
            let mut max = E::load(isa, x);
            let mut line = x;
            for _ in 0..window.lines {
                let mut tap = line;
                for _ in 0..window.columns {
                    max = E::max(isa, max, E::load(isa, tap));
                    tap = tap.wrapping_add(channels);
                }
                line = line.wrapping_add(pitch);
            }
            max
        }
    }

    /// What lies in the image of the window of output pixel (oy, ox).
    #[inline]
    fn window(&self, oy: usize, ox: usize) -> Window {
        let shape = &self.shape;
        let clip = |start: isize, kernel: u32, size: u32| {
            let end = (start + kernel as isize).min(size as isize);
            (start.max(0) as usize, end as usize)
        };
        let (top, bottom) = clip(shape.start(0, oy), shape.kernel[0], shape.in_h);
        let (left, right) = clip(shape.start(1, ox), shape.kernel[1], shape.in_w);
        Window {
            first: (top * shape.in_w as usize + left) * shape.in_c as usize,
            lines: bottom - top,
            columns: right - left,
        }
    }
}
