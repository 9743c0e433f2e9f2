//! The two passes over a frame: rows are resized horizontally as they are needed, and kept in a ring until the
//! vertical pass has used them.

use crate::filter::{Axis, HALF, Word, from_word, to_byte, to_word};
use crate::{Frame, MAX_SIDE, Preprocess, PreprocessError, Resize};

/// Bytes the vertical pass works on at a time; rows of the ring are padded to it.
const BLOCK: usize = 32;

/// One pixel of a row on its way into the horizontal pass: red, green, blue, and a byte without meaning that makes it a
/// 32-bit load.
type Pixel = [u8; 4];

impl Preprocess {
    /// Bytes of scratch [`Preprocess::run`] needs for frames of this size, or `None` if the size is not allowed
    /// (a side is zero or above [`MAX_SIDE`]) or the bytes exceed this machine's address space.
    ///
    /// The scratch holds, in this order, with `taps` the input pixels an output pixel is made of along an axis
    /// (about 2 × radius × reduction):
    ///
    /// | bytes | what |
    /// |---|---|
    /// | 4 · input width · (2 + horizontal taps) | window and weights of every output column |
    /// | 4 · vertical taps | weights of the current output row |
    /// | 4 · frame width | the current frame row as RGB |
    /// | (3 · input width, rounded up to 32) · vertical taps | horizontally resized rows the current output row needs |
    ///
    /// A 640×480 frame for a 224×224 bilinear input takes 13 kB, a 4000×3000 photo 65 kB.
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
        let need = (self.width() as usize * 3).checked_mul(self.height() as usize);
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
                resample(&layout, frame, scratch, out);
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
    column_words: usize,
    /// Rows in the ring, also the weights an output row can have.
    ring_rows: usize,
    /// [`BLOCK`]s in a row of the ring.
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
        Some(Self {
            horizontal,
            vertical,
            column_words: 2 + horizontal.max_taps(),
            ring_rows: vertical.max_taps(),
            row_blocks: (horizontal.output as usize * 3).div_ceil(BLOCK),
        })
    }

    fn columns_len(&self) -> Option<usize> {
        (self.horizontal.output as usize)
            .checked_mul(self.column_words)?
            .checked_mul(size_of::<Word>())
    }

    fn weights_len(&self) -> usize {
        self.ring_rows * size_of::<Word>()
    }

    fn line_len(&self) -> usize {
        self.horizontal.input as usize * size_of::<Pixel>()
    }

    fn ring_len(&self) -> Option<usize> {
        (self.row_blocks * BLOCK).checked_mul(self.ring_rows)
    }

    fn len(&self) -> Option<usize> {
        self.columns_len()?
            .checked_add(self.weights_len())?
            .checked_add(self.line_len())?
            .checked_add(self.ring_len()?)
    }
}

/// Runs both passes. `scratch` has exactly the layout's length and `out` the image's.
fn resample(layout: &Layout, frame: &Frame<'_>, scratch: &mut [u8], out: &mut [u8]) {
    // The lengths fit: `Layout::len` added them up.
    let (columns, rest) = scratch.split_at_mut(layout.columns_len().unwrap_or(0));
    let (weights, rest) = rest.split_at_mut(layout.weights_len());
    let (line, ring) = rest.split_at_mut(layout.line_len());
    let columns = columns.as_chunks_mut().0;
    let weights = weights.as_chunks_mut().0;
    let line = line.as_chunks_mut().0;
    let row_len = layout.row_blocks * BLOCK;

    prepare_columns(layout, columns);
    let mut next = layout.vertical.window(0).start;
    for (index, out_row) in
        (0..layout.vertical.output).zip(out.chunks_exact_mut(layout.horizontal.output as usize * 3))
    {
        let window = layout.vertical.window(index);
        // Windows only move down, and the ring has room for the longest, so no row still needed is overwritten.
        next = next.max(window.start);
        while next < window.end {
            let slot = next % layout.ring_rows * row_len;
            frame.write_row(next, line);
            resize_row(
                line,
                columns,
                layout.column_words,
                &mut ring[slot..slot + row_len],
            );
            next += 1;
        }
        layout
            .vertical
            .write_weights(index, window.clone(), weights);
        let rows = window.map(|y| y % layout.ring_rows * layout.row_blocks);
        blend_rows(ring.as_chunks().0, &rows, weights, out_row);
    }
}

/// Fills in the record of every output column: first pixel, number of pixels, weights.
fn prepare_columns(layout: &Layout, columns: &mut [Word]) {
    for (index, column) in
        (0..layout.horizontal.output).zip(columns.chunks_exact_mut(layout.column_words))
    {
        let window = layout.horizontal.window(index);
        if let [start, count, weights @ ..] = column {
            *start = to_word(window.start as i32);
            *count = to_word(window.len() as i32);
            layout.horizontal.write_weights(index, window, weights);
        }
    }
}

/// The horizontal pass for one row.
fn resize_row(line: &[Pixel], columns: &[Word], column_words: usize, out: &mut [u8]) {
    for (column, out) in columns
        .chunks_exact(column_words)
        .zip(out.as_chunks_mut().0)
    {
        let [start, count, weights @ ..] = column else {
            return;
        };
        let pixels = &line[from_word(*start) as usize..];
        *out = weigh_pixels(pixels, &weights[..from_word(*count) as usize]);
    }
}

/// The weighted sum of as many pixels as there are weights.
fn weigh_pixels(pixels: &[Pixel], weights: &[Word]) -> [u8; 3] {
    let mut sums = [HALF; 4];
    for (pixel, weight) in pixels.iter().zip(weights) {
        let weight = from_word(*weight);
        for (sum, &channel) in sums.iter_mut().zip(pixel) {
            *sum += i32::from(channel) * weight;
        }
    }
    [to_byte(sums[0]), to_byte(sums[1]), to_byte(sums[2])]
}

/// The vertical pass for one row; `rows` are the blocks at which the rows to be weighed start.
fn blend_rows(
    ring: &[[u8; BLOCK]],
    rows: &(impl Iterator<Item = usize> + Clone),
    weights: &[Word],
    out: &mut [u8],
) {
    for (block, out) in out.chunks_mut(BLOCK).enumerate() {
        let mut sums = [HALF; BLOCK];
        for (row, weight) in rows.clone().zip(weights) {
            let weight = from_word(*weight);
            for (sum, &byte) in sums.iter_mut().zip(&ring[row + block]) {
                *sum += i32::from(byte) * weight;
            }
        }
        for (out, sum) in out.iter_mut().zip(sums) {
            *out = to_byte(sum);
        }
    }
}
