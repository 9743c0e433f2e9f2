//! Writing a plan (feature `writer`).
//!
//! The builder takes the very structs the reader hands out, so what can be written is what can be read: an [`OpKind`](crate::OpKind)
//! holds kernel parameters that have passed the kernels' checks, and [`PlanBuilder::finish`] runs [`Plan::parse`] on the result. The
//! bytes are a pure function of the calls.

use alloc::collections::BTreeMap;
use alloc::string::String;
use alloc::vec::Vec;
use core::ops::Range;

use thiserror::Error;
use vitlet_preprocess::{Interpolation, Preprocess, Resize};

use crate::aligned::AlignedBytes;
use crate::crc::crc32;
use crate::error::PlanError;
use crate::format::{
    BLOB_LEN, HEADER_LEN, LABEL_LEN, MAGIC, NONE, OP_LEN, OP_WORDS, STRIPS_LEN, TARGET_PORTABLE,
    TENSOR_LEN, VERSION, align_up, checksum, header,
};
use crate::op::Op;
use crate::plan::{Plan, Provenance};
use crate::tensor::{Tensor, TensorId};

/// Why a plan could not be written.
#[derive(Clone, Copy, PartialEq, Debug, Error)]
#[non_exhaustive]
pub enum WriteError {
    /// Something does not fit the format's 32-bit fields.
    #[error("{what} does not fit a plan: its offsets and counts have 32 bits")]
    TooLarge {
        /// What.
        what: &'static str,
    },
    /// The finished file does not verify.
    #[error("the plan would not load: {0}")]
    Invalid(#[from] PlanError),
}

/// What a plan says besides tensors and ops.
#[derive(Clone, Copy, Debug)]
pub struct Metadata<'a> {
    /// The tensor the image goes to.
    pub input: TensorId,
    /// The tensor of the logits.
    pub output: TensorId,
    /// How a picture becomes the image; its size must be the input tensor's.
    pub preprocess: Preprocess,
    /// Mean of R, G, B on the scale 0–1, for the record.
    pub mean: [f32; 3],
    /// Standard deviation of R, G, B on the scale 0–1, for the record.
    pub std: [f32; 3],
    /// None, or one per logit.
    pub labels: &'a [&'a str],
    /// Where the plan comes from.
    pub provenance: Provenance<'a>,
}

const TENSOR_TOO_LARGE: WriteError = WriteError::TooLarge { what: "tensor" };

/// Collects tensors and ops and lays out the file.
///
/// Ops are added in the order of execution; tensors they name have been added before. Identical arrays and strings are stored once.
#[derive(Debug, Default)]
pub struct PlanBuilder {
    tensors: Vec<u8>,
    ops: Vec<u8>,
    strips: Vec<u8>,
    pub(crate) blobs: Blobs,
    strings: Strings,
    arena: usize,
    tensor_count: u32,
}

impl PlanBuilder {
    /// An empty plan.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a tensor. The arena grows to hold it where `tensor.offset` puts it.
    ///
    /// # Errors
    /// [`WriteError::TooLarge`] if it ends past 4 GiB.
    pub fn add_tensor(&mut self, tensor: &Tensor<'_>) -> Result<TensorId, WriteError> {
        let (id, _) = self.add_tensor_with_parts(tensor, &[])?;
        Ok(id)
    }

    /// Adds a tensor and its parts, each given by its name and its shape; the shapes' rows add up to the tensor's. Everything else
    /// about a part follows from the whole. Returns the tensor's id and those of the parts.
    ///
    /// # Errors
    /// [`WriteError::TooLarge`] if something ends past 4 GiB.
    pub fn add_tensor_with_parts(
        &mut self,
        tensor: &Tensor<'_>,
        parts: &[(&str, [u32; 4])],
    ) -> Result<(TensorId, Vec<TensorId>), WriteError> {
        let scales = match tensor.scales {
            [] => NONE,
            scales => self.blobs.add_f32(scales)?,
        };
        let whole = self.tensor_record(tensor, scales, to_word(parts.len(), "parts")?)?;
        let mut part = *tensor;
        let mut ids = Vec::with_capacity(parts.len());
        for &(name, shape) in parts {
            (part.name, part.shape) = (name, shape);
            ids.push(self.tensor_record(&part, scales, 0)?);
            let end = part.arena_range().ok_or(TENSOR_TOO_LARGE)?.end;
            part.offset = to_word(end, "tensor")?;
        }
        Ok((whole, ids))
    }

    fn tensor_record(
        &mut self,
        tensor: &Tensor<'_>,
        scales: u32,
        parts: u32,
    ) -> Result<TensorId, WriteError> {
        let end = tensor
            .arena_range()
            .and_then(|r| align_up(r.end))
            .ok_or(TENSOR_TOO_LARGE)?;
        self.arena = self.arena.max(end);
        let name = self.strings.add(tensor.name)?;
        let [n, h, w, c] = tensor.shape;
        let (scale, zero_point) = (tensor.scale.to_bits(), tensor.zero_point as u32);
        let dtype = tensor.dtype as u32;
        push_words(
            &mut self.tensors,
            &[
                name[0],
                name[1],
                dtype,
                n,
                h,
                w,
                c,
                tensor.offset,
                scale,
                zero_point,
                scales,
                parts,
                tensor.held,
            ],
        );
        let id = TensorId(self.tensor_count);
        self.tensor_count = self.tensor_count.checked_add(1).ok_or(TENSOR_TOO_LARGE)?;
        Ok(id)
    }

    /// Adds an op; its arrays are copied into the plan.
    ///
    /// # Errors
    /// [`WriteError::TooLarge`] if the arrays do not fit.
    pub fn add_op(&mut self, op: &Op<'_>) -> Result<(), WriteError> {
        let name = self.strings.add(op.name)?;
        let words: [u32; OP_WORDS] = op.encode(name, &mut self.blobs)?;
        push_words(&mut self.ops, &words);
        Ok(())
    }

    /// Lets `ops`, which are or will be added, run strip by strip; `ends` are the rows of the last op's result where strips end, see
    /// [`format`](crate::format). Groups are added in the order of their ops.
    ///
    /// # Errors
    /// [`WriteError::TooLarge`] if they do not fit.
    pub fn add_strips(&mut self, ops: Range<usize>, ends: &[u32]) -> Result<(), WriteError> {
        let (first, count) = (to_word(ops.start, "op")?, to_word(ops.len(), "ops")?);
        let ends = self.blobs.add_u32(ends)?;
        push_words(&mut self.strips, &[first, count, ends]);
        Ok(())
    }

    /// Lays out the file, and reads it back to make sure that it loads.
    ///
    /// # Errors
    /// [`WriteError::Invalid`] with the reader's reason, [`WriteError::TooLarge`] above 4 GiB.
    pub fn finish(mut self, metadata: &Metadata<'_>) -> Result<AlignedBytes, WriteError> {
        let mut labels = Vec::new();
        for label in metadata.labels {
            push_words(&mut labels, &self.strings.add(label)?);
        }
        let mut file = Layout::default();
        file.bytes.resize(HEADER_LEN, 0);
        self.write_metadata(&mut file, metadata)?;
        file.section(header::TENSORS, &self.tensors, TENSOR_LEN)?;
        file.section(header::OPS, &self.ops, OP_LEN)?;
        file.section(header::STRIPS, &self.strips, STRIPS_LEN)?;
        file.section(header::BLOBS, &self.blobs.records, BLOB_LEN)?;
        file.section(header::LABELS, &labels, LABEL_LEN)?;
        file.section(header::STRINGS, self.strings.text.as_bytes(), 1)?;
        file.align()?;
        file.section(header::DATA, &self.blobs.data, 1)?;
        let bytes = file.seal()?;
        Plan::parse(&bytes)?;
        Ok(bytes)
    }

    fn write_metadata(
        &mut self,
        file: &mut Layout,
        metadata: &Metadata<'_>,
    ) -> Result<(), WriteError> {
        file.put(header::MAGIC, &MAGIC);
        file.put_word(header::VERSION, VERSION);
        file.put_word(header::TARGET, TARGET_PORTABLE);
        file.put_word(header::ARENA, to_word(self.arena, "arena")?);
        file.put_word(header::INPUT, metadata.input.0);
        file.put_word(header::OUTPUT, metadata.output.0);
        let (resize, short_side) = match metadata.preprocess.resize() {
            Resize::Squash => (0, 0),
            Resize::ShortSide(pixels) => (1, pixels),
        };
        file.put_word(header::RESIZE, resize);
        file.put_word(header::SHORT_SIDE, short_side);
        let interpolation = match metadata.preprocess.interpolation() {
            Interpolation::Bilinear => 0,
            Interpolation::Bicubic => 1,
        };
        file.put_word(header::INTERPOLATION, interpolation);
        for channel in 0..3 {
            file.put_word(header::MEAN + 4 * channel, metadata.mean[channel].to_bits());
            file.put_word(header::STD + 4 * channel, metadata.std[channel].to_bits());
        }
        let provenance = &metadata.provenance;
        for (at, text) in [
            (header::MODEL_NAME, provenance.model_name),
            (header::COMPILER, provenance.compiler),
        ] {
            let [offset, len] = self.strings.add(text)?;
            file.put_word(at, offset);
            file.put_word(at + 4, len);
        }
        file.put_word(header::CALIBRATION_IMAGES, provenance.calibration_images);
        file.put(header::MODEL_SHA256, &provenance.model_sha256);
        file.put(header::RANGES_SHA256, &provenance.ranges_sha256);
        Ok(())
    }
}

/// The data section in the making.
#[derive(Debug, Default)]
pub(crate) struct Blobs {
    data: Vec<u8>,
    records: Vec<u8>,
    /// Blobs by checksum and length: (id, offset) of those to compare with.
    known: BTreeMap<(u32, usize), Vec<(u32, usize)>>,
    count: u32,
}

impl Blobs {
    /// The id of a blob with these bytes, new or known.
    pub(crate) fn add(&mut self, bytes: &[u8]) -> Result<u32, WriteError> {
        const TOO_LARGE: WriteError = WriteError::TooLarge { what: "array data" };
        let known = self.known.entry((crc32([bytes]), bytes.len())).or_default();
        if let Some(&(id, _)) = known
            .iter()
            .find(|&&(_, at)| self.data[at..at + bytes.len()] == *bytes)
        {
            return Ok(id);
        }
        let at = align_up(self.data.len()).ok_or(TOO_LARGE)?;
        self.data.resize(at, 0);
        self.data.extend_from_slice(bytes);
        push_words(
            &mut self.records,
            &[
                to_word(at, "array data")?,
                to_word(bytes.len(), "array data")?,
            ],
        );
        let id = self.count;
        self.count = self.count.checked_add(1).ok_or(TOO_LARGE)?;
        known.push((id, at));
        Ok(id)
    }

    /// An array of `i16`.
    pub(crate) fn add_i16(&mut self, values: &[i16]) -> Result<u32, WriteError> {
        let bytes: Vec<u8> = values.iter().flat_map(|v| v.to_le_bytes()).collect();
        self.add(&bytes)
    }

    /// An array of `u32`.
    pub(crate) fn add_u32(&mut self, values: &[u32]) -> Result<u32, WriteError> {
        let bytes: Vec<u8> = values.iter().flat_map(|v| v.to_le_bytes()).collect();
        self.add(&bytes)
    }

    /// An array of `i32`.
    pub(crate) fn add_i32(&mut self, values: &[i32]) -> Result<u32, WriteError> {
        let bytes: Vec<u8> = values.iter().flat_map(|v| v.to_le_bytes()).collect();
        self.add(&bytes)
    }

    /// An array of `f32`.
    pub(crate) fn add_f32(&mut self, values: &[f32]) -> Result<u32, WriteError> {
        let bytes: Vec<u8> = values.iter().flat_map(|v| v.to_le_bytes()).collect();
        self.add(&bytes)
    }
}

/// The string section in the making.
#[derive(Debug, Default)]
struct Strings {
    text: String,
    known: BTreeMap<String, [u32; 2]>,
}

impl Strings {
    /// Offset and length of `text` in the section.
    fn add(&mut self, text: &str) -> Result<[u32; 2], WriteError> {
        if let Some(&reference) = self.known.get(text) {
            return Ok(reference);
        }
        let reference = [
            to_word(self.text.len(), "text")?,
            to_word(text.len(), "text")?,
        ];
        self.text.push_str(text);
        self.known.insert(text.into(), reference);
        Ok(reference)
    }
}

/// The file in the making.
#[derive(Default)]
struct Layout {
    bytes: Vec<u8>,
}

impl Layout {
    fn put(&mut self, at: usize, bytes: &[u8]) {
        self.bytes[at..at + bytes.len()].copy_from_slice(bytes);
    }

    fn put_word(&mut self, at: usize, word: u32) {
        self.put(at, &word.to_le_bytes());
    }

    /// Appends a section and notes where it is in the header.
    fn section(
        &mut self,
        header_at: usize,
        bytes: &[u8],
        record_len: usize,
    ) -> Result<(), WriteError> {
        let start = to_word(self.bytes.len(), "file")?;
        self.put_word(header_at, start);
        self.put_word(header_at + 4, to_word(bytes.len() / record_len, "section")?);
        self.bytes.extend_from_slice(bytes);
        Ok(())
    }

    fn align(&mut self) -> Result<(), WriteError> {
        let end = align_up(self.bytes.len()).ok_or(WriteError::TooLarge { what: "file" })?;
        self.bytes.resize(end, 0);
        Ok(())
    }

    /// Length, checksum, and a place in memory where it can be used.
    fn seal(mut self) -> Result<AlignedBytes, WriteError> {
        self.put_word(header::FILE_LEN, to_word(self.bytes.len(), "file")?);
        let checksum = checksum(&self.bytes).ok_or(WriteError::TooLarge { what: "file" })?;
        self.put_word(header::CHECKSUM, checksum);
        Ok(AlignedBytes::copy_of(&self.bytes))
    }
}

fn push_words(out: &mut Vec<u8>, words: &[u32]) {
    out.extend(words.iter().flat_map(|w| w.to_le_bytes()));
}

fn to_word(n: usize, what: &'static str) -> Result<u32, WriteError> {
    u32::try_from(n).map_err(|_| WriteError::TooLarge { what })
}
