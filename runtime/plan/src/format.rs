//! The bytes of a `.vitlet` file: one place that says where everything lies.
//!
//! Everything is little-endian. A *word* is a `u32`; signed and `f32` fields are the word's bits reinterpreted. The sections follow
//! each other in the order below without gaps (the data section starts at the next multiple of 64; the padding is zero), so a file
//! has no byte whose meaning is open: a field that says otherwise is refused. Reserved words are zero.
//!
//! | section | starts at | entries |
//! |---|---|---|
//! | header | 0 | 256 bytes |
//! | tensors | 256 | records of 13 words |
//! | ops | after the tensors | records of 48 words |
//! | strips | after the ops | records of 3 words |
//! | blobs | after the strips | records of 2 words |
//! | labels | after the blobs | string references of 2 words |
//! | strings | after the labels | UTF-8 text without terminators or control characters |
//! | data | next multiple of 64 | the arrays, each at a multiple of 64 |
//!
//! # Header
//!
//! | byte | field | meaning |
//! |---|---|---|
//! | 0 | magic `[u8; 8]` | `89 56 49 54 4C 0D 0A 1A` (`\x89VITL\r\n\x1a`) |
//! | 8 | version | [`VERSION`] |
//! | 12 | target | layout of the weights: 0 = portable |
//! | 16 | file_len | bytes of the whole file |
//! | 20 | checksum | CRC-32 (IEEE 802.3) of every byte of the file but these four |
//! | 24 | tensors | offset, count |
//! | 32 | ops | offset, count |
//! | 40 | blobs | offset, count |
//! | 48 | labels | offset, count (0, or the number of logits) |
//! | 56 | strings | offset, length in bytes |
//! | 64 | data | offset, length in bytes |
//! | 72 | arena | bytes for all tensors, a multiple of 64 |
//! | 76 | input | tensor the image goes to (S8, `[1, H, W, 3]`) |
//! | 80 | output | tensor of the logits (S32) |
//! | 84 | resize | 0 = squash to H×W, 1 = resize the short side, then crop the centre |
//! | 88 | short_side | pixels, 0 when squashing |
//! | 92 | interpolation | 0 = bilinear, 1 = bicubic (both antialiased, Pillow's definition) |
//! | 96 | mean `[f32; 3]` | of R, G, B on the scale 0–1 (information: folded into the first op) |
//! | 108 | std `[f32; 3]` | same |
//! | 120 | model_name | string reference: offset in the strings, length in bytes |
//! | 128 | compiler | string reference: the compiler's name and version |
//! | 136 | calibration_images | number of images the ranges come from |
//! | 140 | reserved | 0 |
//! | 144 | model_sha256 `[u8; 32]` | of the ONNX file |
//! | 176 | ranges_sha256 `[u8; 32]` | of the calibration ranges |
//! | 208 | strips | offset, count |
//! | 216 | reserved | 0, up to byte 256 |
//!
//! # Tensor record
//!
//! | word | field |
//! |---|---|
//! | 0, 1 | name: string reference |
//! | 2 | dtype: 0 = S8, 1 = S16, 2 = S32 |
//! | 3–6 | shape: NHWC, or `[1, 1, rows, channels]` for tokens |
//! | 7 | offset in the arena, a multiple of 64 unless the tensor is a part |
//! | 8 | scale (f32): real = scale · (q − zero point); 0 when there is more than one (one per head or channel) |
//! | 9 | zero point (i32) |
//! | 10 | scales (f32 blob or [`NONE`]): only if word 8 is 0; their number n divides the channels C, and channel c has scale ⌊c·n/C⌋ |
//! | 11 | number of parts, at most [`MAX_PARTS`] |
//! | 12 | rows in memory at a time, if that is not all of them; otherwise 0 |
//!
//! A tensor with word 12 holds only so many consecutive rows: those that ops of one strip group (below) still need. It has no parts,
//! and only ops of that group write and read it.
//!
//! A tensor's parts are the records right after its own. They are the tensor cut between rows, in order and completely: dtype,
//! channels, scale, zero point and scales are the whole's, their rows add up to its rows, and each starts where the one before ends.
//! A part has no parts. So a concatenation is a tensor whose parts several ops write, and a slice is a part of what one op wrote:
//! reading the whole is valid if it was last written as a whole or in all its parts, reading a part if it or the whole was.
//!
//! # Op record
//!
//! | word | field |
//! |---|---|
//! | 0, 1 | name: string reference |
//! | 2 | kind: 0 = conv, 1 = linear, 2 = depthwise, 3 = layer norm, 4 = attention, 5 = pooled linear, 6 = add, 7 = mul, 8 = max pool, 9 = group norm |
//! | 3–5 | inputs: tensor ids (x, residual; q, k, v; a, b), [`NONE`] where there is none |
//! | 6 | output: tensor id |
//! | 7– | the parameters of the kind, then zeros |
//!
//! *shape* is 14 words: in_h, in_w, in_c, out_h, out_w, out_c, kernel h, w, stride y, x, pad top, left, bottom, right.
//! *type* is coded as a tensor's dtype. *output* is 4 words: type, zero point (i32), min (i32), table (i8 blob of 256 entries or
//! [`NONE`]); the last three are 0, 0, [`NONE`] unless the type is S8. *requantise* is bias (i32 blob), scale (f32 blob), output.
//! *rows*, of an attention, is 6 words: a view (offset, row stride, head stride, in elements), row of each element (u32 blob or
//! [`NONE`]), rows of the tensor (0 if there is none), constants (i8 blob of rows of the same stride, or [`NONE`]).
//!
//! | kind | words from 7 on |
//! |---|---|
//! | conv | shape, pad (i8 blob), weights (i8 blob, packed), requantise |
//! | depthwise | shape, pad (i8 blob), weights (i8 blob, `[kh][kw][c]`), requantise |
//! | linear, pooled linear | rows, k, n, weights (i8 blob, packed), requantise |
//! | layer norm | rows, channels, eps low word, eps high word, gamma (f32 blob), beta (f32 blob), output (0 = S8, 1 = S16), then if rows are gathered: segments, rows of the input, gather (u32 blob `[rows][segments]`); otherwise 0, 0, [`NONE`] |
//! | attention | heads, head_dim, groups, slots, queries, keys, the rows of q, k, v, out, logit_scale (f32 blob), out_scale (f32 blob), zero point (i32), min (i32), bias (i32 blob or [`NONE`]), window h, w (0, 0 if the bias has an entry for each pair), mask (u8 blob or [`NONE`]) |
//! | add | rows, channels, type of a, scale of a (f32 blob), b (0 = none, 1 = a tensor, 2 = a constant), type of b or constant (i16 blob) or 0, scale of b (f32 blob) or 0, bias (f32 blob), output |
//! | mul | rows, channels, type of a, zero point of a (i32), type of b, zero point of b (i32), rows of b, columns of b, column of b that meets the first of a, row of b for each of a (u32 blob or [`NONE`]), scale (f32 blob), output |
//! | max pool | shape, type |
//! | group norm | as layer norm's, up to output |
//!
//! # Strips record
//!
//! | word | field |
//! |---|---|
//! | 0 | first op |
//! | 1 | number of ops, 2 to [`MAX_STRIP_OPS`] |
//! | 2 | where strips end (u32 blob): rows of the last op's result, ascending, the last one all its rows |
//!
//! The ops of a group run in turn on one strip of rows after the other, not one op after the other. Their results have equally many
//! rows; a row of one needs the same rows of what the op reads, and those above and below under its window, if it is a convolution.
//! An op is therefore so many rows ahead that the ops after it find all they need; how far follows from the windows:
//! [`Strips`](crate::Strips) computes it. An attention reads whole tensors, so none that its group writes.
//! Groups are in the order of their ops and share none.
//!
//! # Blob record
//!
//! Word 0 is the offset in the data section, word 1 the length in bytes (at least 1). The first blob is at 0, each next one at the
//! multiple of 64 that follows the one before; the bytes between are zero. Ops may share a blob.

use crate::crc::crc32;

/// The first eight bytes. The high bit, the line ends and the control character reveal transfers that are not 8-bit clean.
pub const MAGIC: [u8; 8] = *b"\x89VITL\r\n\x1a";
/// The version of this format that the crate reads and writes.
pub const VERSION: u32 = 3;
/// The target tag of plans every kernel reads in place.
pub const TARGET_PORTABLE: u32 = 0;
/// "No tensor", "no table".
pub const NONE: u32 = u32::MAX;
/// Alignment of the data section, of every blob, of every tensor in the arena and of each thread's scratch.
pub const ALIGN: usize = 64;
/// Alignment the plan's bytes must have in memory, so that arrays can be used in place.
pub const FILE_ALIGN: usize = 16;

/// Most ops a plan may have: the liveness check is quadratic, and a reader must not hang on a hostile file.
pub const MAX_OPS: usize = 4096;
/// Most tensors a plan may have.
pub const MAX_TENSORS: usize = 8192;
/// Most ops that may run strip by strip together: a reader keeps them all at hand.
pub const MAX_STRIP_OPS: usize = 6;
/// Most parts a tensor may have.
pub const MAX_PARTS: usize = 32;

/// Bytes of the header.
pub const HEADER_LEN: usize = 256;
/// Bytes of a tensor record.
pub const TENSOR_LEN: usize = 52;
/// The word of a tensor record that names its scales.
pub(crate) const TENSOR_SCALES_WORD: usize = 10;
/// The word of a tensor record that holds the number of parts.
pub(crate) const TENSOR_PARTS_WORD: usize = 11;
/// Bytes of a strips record.
pub const STRIPS_LEN: usize = 12;
/// Bytes of an op record.
pub const OP_LEN: usize = 4 * OP_WORDS;
/// Words of an op record.
pub(crate) const OP_WORDS: usize = 48;
/// The word of an op record that holds the output.
pub(crate) const OP_OUTPUT_WORD: usize = 6;
/// Bytes of a blob record.
pub const BLOB_LEN: usize = 8;
/// Bytes of a label record.
pub const LABEL_LEN: usize = 8;

/// Byte offsets of the header's fields.
pub mod header {
    #![allow(
        missing_docs,
        reason = "the table of the module above is their documentation"
    )]
    pub const MAGIC: usize = 0;
    pub const VERSION: usize = 8;
    pub const TARGET: usize = 12;
    pub const FILE_LEN: usize = 16;
    pub const CHECKSUM: usize = 20;
    pub const TENSORS: usize = 24;
    pub const OPS: usize = 32;
    pub const BLOBS: usize = 40;
    pub const LABELS: usize = 48;
    pub const STRINGS: usize = 56;
    pub const DATA: usize = 64;
    pub const ARENA: usize = 72;
    pub const INPUT: usize = 76;
    pub const OUTPUT: usize = 80;
    pub const RESIZE: usize = 84;
    pub const SHORT_SIDE: usize = 88;
    pub const INTERPOLATION: usize = 92;
    pub const MEAN: usize = 96;
    pub const STD: usize = 108;
    pub const MODEL_NAME: usize = 120;
    pub const COMPILER: usize = 128;
    pub const CALIBRATION_IMAGES: usize = 136;
    pub const RESERVED_0: usize = 140;
    pub const MODEL_SHA256: usize = 144;
    pub const RANGES_SHA256: usize = 176;
    pub const STRIPS: usize = 208;
    pub const RESERVED_1: usize = 216;
}

/// Reads the little-endian word at byte `at`; `None` past the end.
pub(crate) fn word(bytes: &[u8], at: usize) -> Option<u32> {
    let four = bytes.get(at..at.checked_add(4)?)?;
    Some(u32::from_le_bytes(four.try_into().ok()?))
}

/// `n` rounded up to a multiple of [`ALIGN`].
pub(crate) fn align_up(n: usize) -> Option<usize> {
    n.checked_next_multiple_of(ALIGN)
}

/// The checksum of a whole file: CRC-32 of every byte but the checksum field. `None` when `bytes` is shorter than a header.
///
/// Tools that edit a plan (and the tests of the reader) put this into bytes 20 to 23.
pub fn checksum(bytes: &[u8]) -> Option<u32> {
    let before = bytes.get(..header::CHECKSUM)?;
    let after = bytes.get(header::CHECKSUM + 4..)?;
    Some(crc32([before, after]))
}
