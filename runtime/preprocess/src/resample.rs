//! The two passes over a frame: rows are resized horizontally as they are needed, and kept in a ring until the
//! vertical pass has used them.

use crate::filter::{Axis, HALF, Word, from_word, to_byte, to_word};
use crate::{Frame, MAX_SIDE, Preprocess, PreprocessError, Resize};
use core::ops::Range;

/// Bytes the vertical pass works on at a time; rows of the ring are padded to it.
const BLOCK: usize = 32;

/// Frame rows the horizontal pass works on at a time, so that one weight serves eight pixels.
const ROWS: usize = 8;

/// Columns of the image the horizontal pass works on at a time, so that their pixels become a piece of each row.
const COLUMNS: usize = 8;

/// A frame's pixel on its way into the horizontal pass: red, green, blue and a byte without meaning.
type Pixel = [u8; 4];

/// What both passes add up, byte by byte: pixels of [`ROWS`] frame rows in one column, or of a row of the ring. Thirty-two bytes are two
/// vector registers.
type Block = [u8; BLOCK];

const _: () = assert!(BLOCK == ROWS * size_of::<Pixel>());

impl Preprocess {
    /// Bytes of scratch [`Preprocess::run`] needs for frames of this size, or `None` if the size is not allowed
    /// (a side is zero or above [`MAX_SIDE`]) or the bytes exceed this machine's address space.
    ///
    /// The scratch holds, in this order, with `taps` the input pixels an output pixel is made of along an axis
    /// (about 2 × radius × reduction), and `columns` those of the frame that the crop is made of:
    ///
    /// | bytes | what |
    /// |---|---|
    /// | 4 · input width · (2 + horizontal taps) | window and weights of every output column |
    /// | 4 · vertical taps | weights of the current output row |
    /// | 4 · columns | what the crop needs of a frame row, as RGB |
    /// | 32 · columns | eight such rows, interleaved by pixel |
    /// | (3 · input width rounded up to 8, and 1, rounded up to 32) · (vertical taps + 7) | horizontally resized rows the current output row needs |
    ///
    /// A 640×480 frame for a 224×224 bilinear input takes 39 kB, a 4000×3000 photo 203 kB; with
    /// the usual crop (224 of 256) 29 and 141 kB.
    pub fn scratch_len(&self, frame_width: u32, frame_height: u32) -> Option<usize> {
        Layout::new(self, frame_width, frame_height)?.len()
    }

    /// Makes the model's input image: `out` becomes `height` rows of `width` red, green, blue triples.
    ///
    /// What `scratch` holds before does not matter; longer than needed is allowed.
    ///
    /// # Errors
    /// If `scratch` is shorter than [`Preprocess::scratch_len`] or `out` is not `width * height * 3` bytes long.
    pub fn run(
        &self,
        frame: &Frame<'_>,
        scratch: &mut [u8],
        out: &mut [u8],
    ) -> Result<(), PreprocessError> {
        self.run_rows(frame, 0..self.height(), scratch, out)
    }

    /// Makes `rows` of the model's input image: the same bytes as [`Preprocess::run`] gives these rows.
    ///
    /// So an image can be made by several threads, each with a scratch of its own. Rows of the frame that two parts need are resized
    /// horizontally for both: as many as the vertical filter has taps.
    ///
    /// # Errors
    /// If `rows` are not rows of the image, `scratch` is shorter than [`Preprocess::scratch_len`], or `out` is not
    /// `rows.len() * width * 3` bytes long.
    pub fn run_rows(
        &self,
        frame: &Frame<'_>,
        rows: Range<u32>,
        scratch: &mut [u8],
        out: &mut [u8],
    ) -> Result<(), PreprocessError> {
        let height = self.height();
        let (true, Some(count)) = (rows.end <= height, rows.end.checked_sub(rows.start)) else {
            let Range { start, end } = rows;
            return Err(PreprocessError::Rows { start, end, height });
        };
        let need = (self.width() as usize * 3).checked_mul(count as usize);
        if need != Some(out.len()) {
            return Err(PreprocessError::Output {
                have: out.len(),
                need,
            });
        }
        let have = scratch.len();
        let layout = Layout::new(self, frame.width(), frame.height());
        let need = layout.and_then(|layout| layout.len());
        let scratch = need.and_then(|need| scratch.get_mut(..need));
        match (layout, scratch) {
            (Some(layout), Some(scratch)) => {
                resample(&layout, frame, rows, scratch, out);
                Ok(())
            }
            _ => Err(PreprocessError::Scratch { have, need }),
        }
    }

    /// The axis along which `input` frame pixels become `output` pixels; `short` is the frame's short side.
    fn axis(&self, input: u32, short: u32, output: u32) -> Axis {
        let resized = match self.resize() {
            Resize::Squash => output,
            // torchvision: int(size * long / short). At most 2^28, since all three are at most MAX_SIDE.
            Resize::ShortSide(size) => {
                (u64::from(size) * u64::from(input) / u64::from(short)) as u32
            }
        };
        let offset = centre_offset(resized - output);
        Axis {
            interpolation: self.interpolation(),
            input,
            resized,
            offset,
            output,
        }
    }
}

/// Where a centre crop starts, given how many pixels are cut off in all: torchvision's `round(spare / 2.0)`, in which
/// Python rounds halves to even.
fn centre_offset(spare: u32) -> u32 {
    let half = spare / 2;
    half + (spare & half & 1)
}

/// Sizes of the parts of the scratch.
#[derive(Clone, Copy)]
struct Layout {
    horizontal: Axis,
    vertical: Axis,
    /// 32-bit words per output column: first pixel, number of pixels, weights.
    filter_words: usize,
    /// Rows in the ring: the longest vertical window, and those resized ahead with its last row.
    ring_rows: usize,
    /// Columns of the frame that the output is made of, from an even one on.
    first_column: usize,
    columns: usize,
    /// [`BLOCK`]s in a row of the ring, with room for whole [`COLUMNS`] and a byte after the last pixel.
    row_blocks: usize,
}

impl Layout {
    fn new(preprocess: &Preprocess, frame_width: u32, frame_height: u32) -> Option<Self> {
        if !(1..=MAX_SIDE).contains(&frame_width) || !(1..=MAX_SIDE).contains(&frame_height) {
            return None;
        }
        let short = frame_width.min(frame_height);
        let horizontal = preprocess.axis(frame_width, short, preprocess.width());
        let vertical = preprocess.axis(frame_height, short, preprocess.height());
        let first_column = horizontal.window(0).start & !1;
        let end_column = horizontal.window(horizontal.output - 1).end;
        Some(Self {
            horizontal,
            vertical,
            filter_words: 2 + horizontal.max_taps(),
            ring_rows: vertical.max_taps() + ROWS - 1,
            first_column,
            columns: end_column - first_column,
            row_blocks: ((horizontal.output as usize).next_multiple_of(COLUMNS) * 3 + 1)
                .div_ceil(BLOCK),
        })
    }

    fn filters_len(&self) -> Option<usize> {
        (self.horizontal.output as usize)
            .checked_mul(self.filter_words)?
            .checked_mul(size_of::<Word>())
    }

    fn weights_len(&self) -> usize {
        self.vertical.max_taps() * size_of::<Word>()
    }

    fn line_len(&self) -> usize {
        self.columns * size_of::<Pixel>()
    }

    fn ring_len(&self) -> Option<usize> {
        (self.row_blocks * BLOCK).checked_mul(self.ring_rows)
    }

    fn len(&self) -> Option<usize> {
        self.filters_len()?
            .checked_add(self.weights_len())?
            .checked_add(self.line_len() * (1 + ROWS))?
            .checked_add(self.ring_len()?)
    }
}

/// Runs both passes with the widest integer vectors there are. `scratch` has exactly the layout's length and `out` the rows'.
///
/// An x86-64 program is compiled for SSE2, which has no 32-bit vector multiplication; AVX2 has, and so has Advanced SIMD.
fn resample(
    layout: &Layout,
    frame: &Frame<'_>,
    rows: Range<u32>,
    scratch: &mut [u8],
    out: &mut [u8],
) {
    #[cfg(target_arch = "x86_64")]
    if let Some(avx2) = vitlet_kernels::Avx2::new() {
        return avx2.vectorise(
            #[inline(always)]
            || run_passes(layout, frame, rows, scratch, out),
        );
    }
    run_passes(layout, frame, rows, scratch, out);
}

/// Runs both passes for some of the image's rows. What is called from here is inlined, so that it is compiled for its caller's
/// instruction set.
#[inline(always)]
fn run_passes(
    layout: &Layout,
    frame: &Frame<'_>,
    rows: Range<u32>,
    scratch: &mut [u8],
    out: &mut [u8],
) {
    // The lengths fit: `Layout::len` added them up.
    let (filters, rest) = scratch.split_at_mut(layout.filters_len().unwrap_or(0));
    let (weights, rest) = rest.split_at_mut(layout.weights_len());
    let (line, rest) = rest.split_at_mut(layout.line_len());
    let (lines, ring) = rest.split_at_mut(layout.line_len() * ROWS);
    let filters = filters.as_chunks_mut().0;
    let weights = weights.as_chunks_mut().0;
    let line: &mut [Pixel] = line.as_chunks_mut().0;
    let lines: &mut [Block] = lines.as_chunks_mut().0;

    prepare_filters(layout, filters);
    let height = layout.vertical.input as usize;
    let mut next = layout.vertical.window(rows.start).start;
    let out_rows = out.chunks_exact_mut(layout.horizontal.output as usize * 3);
    for (index, out_row) in rows.zip(out_rows) {
        let window = layout.vertical.window(index);
        // Windows only move down, and the ring has room for the longest and the rows resized ahead with its last one,
        // so no row still needed is overwritten.
        next = next.max(window.start);
        while next < window.end {
            let rows = next..height.min(next + ROWS);
            for (lane, y) in rows.clone().enumerate() {
                frame.write_row(y, layout.first_column, line);
                put_lane(line, lane, lines);
            }
            resize_rows(lines, filters, layout, rows.clone(), ring);
            next = rows.end;
        }
        layout
            .vertical
            .write_weights(index, window.clone(), weights);
        blend_rows(ring.as_chunks().0, layout, window, weights, out_row);
    }
}

/// Fills in the record of every output column: first pixel, number of pixels, weights.
fn prepare_filters(layout: &Layout, filters: &mut [Word]) {
    for (index, filter) in
        (0..layout.horizontal.output).zip(filters.chunks_exact_mut(layout.filter_words))
    {
        let window = layout.horizontal.window(index);
        if let [start, count, weights @ ..] = filter {
            *start = to_word((window.start - layout.first_column) as i32);
            *count = to_word(window.len() as i32);
            layout.horizontal.write_weights(index, window, weights);
        }
    }
}

/// Puts a row's pixels into one lane, below [`ROWS`], of their columns: several at a time, so that the stores' places are constants.
#[inline(always)]
fn put_lane(line: &[Pixel], lane: usize, lines: &mut [Block]) {
    let (line, line_end) = line.as_chunks::<COLUMNS>();
    let (lines, lines_end) = lines.as_chunks_mut::<COLUMNS>();
    for (columns, pixels) in lines.iter_mut().zip(line) {
        for (column, pixel) in columns.iter_mut().zip(pixels) {
            column.as_chunks_mut().0[lane % ROWS] = *pixel;
        }
    }
    for (column, pixel) in lines_end.iter_mut().zip(line_end) {
        column.as_chunks_mut().0[lane % ROWS] = *pixel;
    }
}

/// The horizontal pass for the frame's `rows`, at most [`ROWS`] of them, into their places in the ring.
#[inline(always)]
fn resize_rows(
    lines: &[Block],
    filters: &[Word],
    layout: &Layout,
    rows: Range<usize>,
    ring: &mut [u8],
) {
    let mut places = [0; ROWS];
    for (place, y) in places.iter_mut().zip(rows.clone()) {
        *place = y % layout.ring_rows * layout.row_blocks * BLOCK;
    }
    let places = &places[..rows.len()];
    let mut columns = [[0; BLOCK]; COLUMNS];
    for (group, filters) in filters.chunks(COLUMNS * layout.filter_words).enumerate() {
        for (column, filter) in columns
            .iter_mut()
            .zip(filters.chunks_exact(layout.filter_words))
        {
            let [start, count, weights @ ..] = filter else {
                return;
            };
            let window = Window {
                first: from_word(*start) as usize,
                end: lines.len(),
                step: 1,
            };
            *column = weigh(lines, window, &weights[..from_word(*count) as usize]);
        }
        for (lane, place) in places.iter().enumerate() {
            // Always as many columns, a number that is known: those after the last one go into the padding.
            let piece = &mut ring[place + 3 * COLUMNS * group..][..3 * COLUMNS + 1];
            for (x, column) in columns.iter().enumerate() {
                // Four bytes are one store; the next pixel overwrites the fourth.
                piece[3 * x..3 * x + 4].copy_from_slice(&column.as_chunks::<4>().0[lane % ROWS]);
            }
        }
    }
}

/// The vertical pass for one row, from the rows of `window`.
#[inline(always)]
fn blend_rows(
    ring: &[Block],
    layout: &Layout,
    window: Range<usize>,
    weights: &[Word],
    out: &mut [u8],
) {
    let weights = &weights[..window.len()];
    let window = Window {
        first: window.start % layout.ring_rows,
        end: layout.ring_rows,
        step: layout.row_blocks,
    };
    let (blocks, rest) = out.as_chunks_mut::<BLOCK>();
    for (block, out) in blocks.iter_mut().enumerate() {
        *out = weigh(&ring[block..], window, weights);
    }
    if !rest.is_empty() {
        rest.copy_from_slice(&weigh(&ring[blocks.len()..], window, weights)[..rest.len()]);
    }
}

/// Which blocks a sum is made of: every `step`-th, from number `first` of these on, and from number 0 on after number `end` - 1.
#[derive(Clone, Copy)]
struct Window {
    first: usize,
    end: usize,
    step: usize,
}

/// The weighted sum of as many blocks as there are weights.
///
/// That the next block's place depends on a comparison keeps LLVM from vectorising over blocks instead of bytes, which took twice the time
/// for the cubic's eight.
#[inline(always)]
fn weigh(blocks: &[Block], window: Window, weights: &[Word]) -> Block {
    let mut sums = [HALF; BLOCK];
    let mut next = window.first;
    for weight in weights {
        add_weighted(&mut sums, &blocks[next * window.step], *weight);
        next += 1;
        if next == window.end {
            next = 0;
        }
    }
    to_bytes(&sums)
}

/// Adds `weight` times every byte to its sum.
#[inline(always)]
fn add_weighted(sums: &mut [i32; BLOCK], bytes: &Block, weight: Word) {
    let weight = from_word(weight);
    for (sum, &byte) in sums.iter_mut().zip(bytes) {
        *sum += i32::from(byte) * weight;
    }
}

/// A loop, since `map` of a long array is not always inlined.
#[inline(always)]
fn to_bytes(sums: &[i32; BLOCK]) -> Block {
    let mut bytes = [0; BLOCK];
    for (byte, &sum) in bytes.iter_mut().zip(sums) {
        *byte = to_byte(sum);
    }
    bytes
}

/// Other targets have one form of the code.
#[cfg(all(test, target_arch = "x86_64"))]
#[allow(clippy::print_stdout)]
mod tests {
    extern crate std;

    use super::*;
    use crate::{Interpolation, PixelFormat};
    use std::{println, vec};

    #[test]
    fn wider_vectors_give_the_same_bytes() -> Result<(), PreprocessError> {
        let avx2 = vitlet_kernels::Avx2::new().is_some();
        println!("without AVX2; with it: {avx2}");
        if let Ok(expected) = std::env::var("VITLET_EXPECT_KERNELS") {
            assert_eq!(avx2, expected.split(',').any(|name| name == "avx2"));
        }
        let data: std::vec::Vec<u8> = (0..640_u32 * 480 * 4)
            .map(|index| (index.wrapping_mul(2_654_435_761) >> 24) as u8)
            .collect();
        for (format, width, height) in [
            (PixelFormat::Rgb8, 639, 123),
            (PixelFormat::Yuyv, 97, 211),
            (PixelFormat::Nv12, 640, 480),
        ] {
            for interpolation in [Interpolation::Bilinear, Interpolation::Bicubic] {
                let preprocess = Preprocess::new(61, 47, Resize::ShortSide(73), interpolation)?;
                let stride = format.row_len(width);
                let frame = Frame::new(format, width, height, stride, &data)?;
                let len = preprocess.scratch_len(width, height).unwrap_or(0);
                let (mut scratch, mut out) = (vec![1; len], vec![2; 61 * 47 * 3]);
                preprocess.run(&frame, &mut scratch, &mut out)?;

                let (mut scratch, mut plain) = (vec![3; len], vec![4; 61 * 47 * 3]);
                let layout = Layout::new(&preprocess, width, height);
                let layout = layout.ok_or(PreprocessError::FrameSize { width, height })?;
                run_passes(&layout, &frame, 0..47, &mut scratch, &mut plain);
                assert!(
                    out == plain,
                    "{format:?} {width}x{height} {interpolation:?}"
                );
            }
        }
        Ok(())
    }
}
