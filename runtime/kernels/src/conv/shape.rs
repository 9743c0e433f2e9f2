//! The geometry shared by convolution and depthwise convolution.

use core::ops::Range;

use crate::ParamError;
use crate::error::{rule, size};
use crate::gemm::TENSOR_MAX;

/// Sizes in pixels and channels. Arrays are (vertical, horizontal); pads are top, left, bottom, right.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ConvShape {
    /// Input height.
    pub in_h: u32,
    /// Input width.
    pub in_w: u32,
    /// Input channels.
    pub in_c: u32,
    /// Output height.
    pub out_h: u32,
    /// Output width.
    pub out_w: u32,
    /// Output channels.
    pub out_c: u32,
    /// Window height and width.
    pub kernel: [u32; 2],
    /// Vertical and horizontal step.
    pub stride: [u32; 2],
    /// Padding at the top, left, bottom and right.
    pub pad: [u32; 4],
}

impl ConvShape {
    /// Output size along one axis: `(input + pads − kernel) / stride + 1`, if the window fits.
    #[must_use]
    pub fn output_size(input: u32, kernel: u32, stride: u32, pads: u32) -> Option<u32> {
        let room = input.checked_add(pads)?.checked_sub(kernel)?;
        room.checked_div(stride)?.checked_add(1)
    }

    /// Elements of the input image.
    #[must_use]
    pub fn input_len(&self) -> usize {
        elements(self.in_h, self.in_w, self.in_c)
    }

    /// Elements of the output image.
    #[must_use]
    pub fn output_len(&self) -> usize {
        elements(self.out_h, self.out_w, self.out_c)
    }

    /// Elements of a pixel row of the output.
    pub(crate) fn out_row_len(&self) -> usize {
        elements(1, self.out_w, self.out_c)
    }

    /// Pixels of the window.
    pub(crate) fn taps(&self) -> usize {
        elements(1, self.kernel[0], self.kernel[1])
    }

    /// Everything agrees, and no index can overflow.
    pub(crate) fn check(&self) -> Result<(), ParamError> {
        size("input image", self.input_len(), TENSOR_MAX)?;
        size("output image", self.output_len(), TENSOR_MAX)?;
        size("kernel", self.taps(), TENSOR_MAX)?;
        size(
            "patch",
            self.taps().saturating_mul(self.in_c as usize),
            TENSOR_MAX,
        )?;
        let axes = [
            (self.in_h, self.out_h, 0, self.pad[0], self.pad[2]),
            (self.in_w, self.out_w, 1, self.pad[1], self.pad[3]),
        ];
        for (input, output, axis, before, after) in axes {
            let kernel = self.kernel[axis];
            rule(
                "padding is smaller than the kernel",
                before < kernel && after < kernel,
            )?;
            let expected = Self::output_size(
                input,
                kernel,
                self.stride[axis],
                before.saturating_add(after),
            );
            rule(
                "output = (input + padding - kernel) / stride + 1",
                expected == Some(output),
            )?;
        }
        Ok(())
    }

    /// First input row or column that window `index` of `axis` covers; negative inside the padding.
    pub(crate) fn start(&self, axis: usize, index: usize) -> isize {
        index as isize * self.stride[axis] as isize - self.pad[axis] as isize
    }

    /// Element index of input pixel (y, x), or None outside the image.
    pub(crate) fn pixel(&self, y: isize, x: isize) -> Option<usize> {
        let inside = |v: isize, size: u32| usize::try_from(v).ok().filter(|&v| v < size as usize);
        let (y, x) = (inside(y, self.in_h)?, inside(x, self.in_w)?);
        Some((y * self.in_w as usize + x) * self.in_c as usize)
    }
}

impl ConvShape {
    /// The same convolution for the output's pixel rows `rows` only, and the input's pixel rows it then reads, without those of the
    /// padding. `None` if there are no such rows, or the shape contradicts itself.
    #[must_use]
    pub fn strip(&self, rows: Range<usize>) -> Option<(Self, Range<usize>)> {
        let last = rows.end.checked_sub(1)?;
        if rows.is_empty() || rows.end > self.out_h as usize {
            return None;
        }
        let (top, bottom) = (
            self.start(0, rows.start),
            self.start(0, last) + self.kernel[0] as isize,
        );
        let inside = |row: isize| row.clamp(0, self.in_h as isize);
        let size = |rows: isize| u32::try_from(rows).ok();
        let strip = Self {
            in_h: size(inside(bottom) - inside(top))?,
            out_h: u32::try_from(rows.len()).ok()?,
            pad: [
                size(inside(top) - top)?,
                self.pad[1],
                size(bottom - inside(bottom))?,
                self.pad[3],
            ],
            ..*self
        };
        Some((strip, inside(top) as usize..inside(bottom) as usize))
    }

    /// Whether output pixels are input pixels times a matrix.
    pub(crate) fn is_pointwise(&self) -> bool {
        self.kernel == [1, 1] && self.stride == [1, 1]
    }

    /// Copies the window of output pixel (oy, ox) to `patch`, `[kh][kw][c]`. What is behind it in `patch` may be overwritten.
    #[inline(always)]
    pub(crate) fn gather(&self, x: &[i8], pad: &[i8], oy: usize, ox: usize, patch: &mut [i8]) {
        if !self.copy_inside(x, oy, ox, patch) {
            self.gather_border(x, pad, oy, ox, patch);
        }
    }

    /// [`Self::gather`] of a window that lies in the image, as most do; else, or if moves of [`MOVE`] bytes do not fit, nothing is done.
    ///
    /// A line of at most `MOVE` bytes is one move, which may reach into the next line: that is written later. Longer ones are some moves, of which the
    /// last overlaps the one before.
    #[inline(always)]
    fn copy_inside(&self, x: &[i8], oy: usize, ox: usize, patch: &mut [i8]) -> bool {
        let (top, left) = (self.start(0, oy), self.start(1, ox));
        let (height, channels) = (self.kernel[0] as usize, self.in_c as usize);
        let (width, pitch) = (
            self.kernel[1] as usize * channels,
            self.in_w as usize * channels,
        );
        if top < 0
            || left < 0
            || top + height as isize > self.in_h as isize
            || left + self.kernel[1] as isize > self.in_w as isize
        {
            return false;
        }
        let first = top as usize * pitch + left as usize * channels;
        let (lines, last) = (height - 1, width.max(MOVE));
        let (Some(from), Some(to)) = (
            x.get(first..first + lines * pitch + last),
            patch.get_mut(..lines * width + last),
        ) else {
            return false;
        };
        let (mut from, mut to) = (from.as_ptr(), to.as_mut_ptr());
        for _ in 0..height {
            // SAFETY: `from` holds `lines` times `pitch` elements and `last` more, `to` `lines` times `width` and `last` more; moves end at or before
            // the larger of `width` and `MOVE`.
            unsafe {
                let mut d = 0;
                while d + MOVE < width {
                    copy_move(from.add(d), to.add(d));
                    d += MOVE;
                }
                let rest = width.saturating_sub(MOVE);
                copy_move(from.add(rest), to.add(rest));
            }
            from = from.wrapping_add(pitch);
            to = to.wrapping_add(width);
        }
        true
    }

    /// [`Self::gather`] of any window.
    #[inline(never)]
    fn gather_border(&self, x: &[i8], pad: &[i8], oy: usize, ox: usize, patch: &mut [i8]) {
        let channels = self.in_c as usize;
        let (top, left) = (self.start(0, oy), self.start(1, ox));
        // Columns of the window inside the image: the same in every row.
        let first = left.max(0);
        let end = (left + self.kernel[1] as isize).min(self.in_w as isize);
        let width = self.kernel[1] as usize * channels;
        let before = ((first - left) as usize * channels).min(width);
        let inside = (end - first).max(0) as usize * channels;
        for ky in 0..self.kernel[0] as usize {
            // To the end of the patch, not of the line: later lines are written later.
            let line = &mut patch[ky * width..];
            match self.pixel(top + ky as isize, first) {
                Some(start) if inside > 0 => {
                    fill_pixels(&mut line[..before], pad);
                    copy_short(&x[start..], &mut line[before..], inside);
                    fill_pixels(&mut line[before + inside..width], pad);
                }
                _ => fill_pixels(&mut line[..width], pad),
            }
        }
    }
}

/// Bytes of a move: two registers, or one.
const MOVE: usize = 32;

/// # Safety
/// [`MOVE`] elements of `from` can be read, and of `to` written.
#[inline(always)]
unsafe fn copy_move(from: *const i8, to: *mut i8) {
    // SAFETY: the caller's promise; arrays of bytes have no alignment.
    unsafe {
        to.cast::<[i8; MOVE]>()
            .write(from.cast::<[i8; MOVE]>().read());
    };
}

/// Copies `count` bytes; more, to what is written next, if that is one move of constant size.
fn copy_short(from: &[i8], to: &mut [i8], count: usize) {
    match (from.get(..MOVE), to.get_mut(..MOVE)) {
        (Some(from), Some(to)) if count <= MOVE => to.copy_from_slice(from),
        _ => to[..count].copy_from_slice(&from[..count]),
    }
}

/// Fills whole pixels with the pad bytes.
fn fill_pixels(line: &mut [i8], pad: &[i8]) {
    for pixel in line.chunks_exact_mut(pad.len()) {
        pixel.copy_from_slice(pad);
    }
}

/// a·b·c, saturating.
fn elements(a: u32, b: u32, c: u32) -> usize {
    (a as usize)
        .saturating_mul(b as usize)
        .saturating_mul(c as usize)
}
