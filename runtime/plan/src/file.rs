//! The outer shell of a file: header, sections, strings and blobs, with every offset checked.
//!
//! [`File::open`] makes sure that the sections tile the file; the accessors after it decode one record each and check what that
//! record says. Nothing here knows how records relate to each other: that is [`verify`](crate::verify).

use core::fmt;
use core::ops::Range;

use bytemuck::AnyBitPattern;

use crate::error::{Place, PlanError, Problem, Section, ShortName};
use crate::format::{
    ALIGN, BLOB_LEN, FILE_ALIGN, HEADER_LEN, LABEL_LEN, MAGIC, MAX_OPS, MAX_PARTS, MAX_TENSORS,
    NONE, OP_LEN, OP_OUTPUT_WORD, OP_WORDS, STRIPS_LEN, TARGET_PORTABLE, TENSOR_LEN,
    TENSOR_PARTS_WORD, TENSOR_SCALES_WORD, VERSION, align_up, checksum, header, word,
};
use crate::op::{Contents, Op};
use crate::strips::Strips;
use crate::tensor::{DType, Tensor, TensorId};

/// A file whose sections are known to lie inside it.
#[derive(Clone, Copy)]
pub(crate) struct File<'a> {
    bytes: &'a [u8],
    tensors: Table,
    ops: Table,
    strips: Table,
    blobs: Table,
    labels: Table,
    strings: &'a str,
    data: &'a [u8],
}

impl fmt::Debug for File<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "File({} bytes)", self.bytes.len())
    }
}

/// A section of records of one size.
#[derive(Clone, Copy, Debug)]
struct Table {
    section: Section,
    start: usize,
    count: usize,
    record_len: usize,
}

impl Table {
    /// The record's first byte in the file; in range because `count` records were checked to fit.
    fn at(&self, index: usize) -> usize {
        self.start + index * self.record_len
    }

    fn end(&self) -> usize {
        self.at(self.count)
    }

    fn place(&self, index: usize, name: &str) -> Place {
        Place {
            section: self.section,
            index,
            name: ShortName::new(name),
            offset: self.at(index),
        }
    }
}

impl<'a> File<'a> {
    /// Checks the identity, the checksum and the sections.
    pub(crate) fn open(bytes: &'a [u8]) -> Result<Self, PlanError> {
        check_identity(bytes)?;
        let tensors = table(
            bytes,
            Section::Tensor,
            header::TENSORS,
            HEADER_LEN,
            TENSOR_LEN,
            MAX_TENSORS,
        )?;
        let ops = table(
            bytes,
            Section::Op,
            header::OPS,
            tensors.end(),
            OP_LEN,
            MAX_OPS,
        )?;
        let strips = table(
            bytes,
            Section::Strips,
            header::STRIPS,
            ops.end(),
            STRIPS_LEN,
            MAX_OPS / 2,
        )?;
        let blobs = table(
            bytes,
            Section::Blob,
            header::BLOBS,
            strips.end(),
            BLOB_LEN,
            usize::MAX,
        )?;
        let labels = table(
            bytes,
            Section::Label,
            header::LABELS,
            blobs.end(),
            LABEL_LEN,
            usize::MAX,
        )?;
        let strings = section(bytes, header::STRINGS, labels.end(), "string section")?;
        let data_start = align_up(strings.end).ok_or(header_error(
            header::DATA,
            Problem::TooLarge {
                field: "data section",
            },
        ))?;
        let data = section(bytes, header::DATA, data_start, "data section")?;
        if data.end != bytes.len() {
            let problem = Problem::Mismatch {
                field: "end of the data section",
                value: data.end as u64,
                expected: bytes.len() as u64,
            };
            return Err(header_error(header::DATA, problem));
        }
        if bytes[strings.end..data.start].iter().any(|&b| b != 0) {
            return Err(header_error(
                header::DATA,
                Problem::NotZero {
                    field: "padding before the data section",
                },
            ));
        }
        // No control characters either: names and labels go into one-line messages and tables.
        let strings = core::str::from_utf8(&bytes[strings])
            .ok()
            .filter(|text| !text.chars().any(char::is_control))
            .ok_or_else(|| {
                let field = "string section";
                header_error(header::STRINGS, Problem::BadText { field })
            })?;
        let file = File {
            bytes,
            tensors,
            ops,
            strips,
            blobs,
            labels,
            strings,
            data: &bytes[data],
        };
        file.check_blobs()?;
        Ok(file)
    }

    pub(crate) fn len(&self) -> usize {
        self.bytes.len()
    }

    pub(crate) fn tensor_count(&self) -> usize {
        self.tensors.count
    }

    pub(crate) fn op_count(&self) -> usize {
        self.ops.count
    }

    pub(crate) fn strips_count(&self) -> usize {
        self.strips.count
    }

    /// The words of a strips record.
    pub(crate) fn strips_record(&self, index: usize) -> Option<[u32; 3]> {
        if index >= self.strips.count {
            return None;
        }
        let at = self.strips.at(index);
        Some(core::array::from_fn(|i| {
            word(self.bytes, at + 4 * i).unwrap_or_default()
        }))
    }

    /// A group of ops, its ops having been verified before.
    pub(crate) fn verified_strips(&self, index: usize) -> Result<Strips<'a>, PlanError> {
        Strips::decode(self, index).map_err(|problem| self.strips_error(index, problem))
    }

    pub(crate) fn strips_error(&self, index: usize, problem: Problem) -> PlanError {
        let place = self.strips.place(index.min(self.strips.count), "");
        PlanError::Invalid { place, problem }
    }

    pub(crate) fn label_count(&self) -> usize {
        self.labels.count
    }

    /// A word of the header.
    pub(crate) fn header_word(&self, at: usize) -> u32 {
        // The header is complete: `open` has checked it.
        word(self.bytes, at).unwrap_or_default()
    }

    pub(crate) fn header_bytes<const N: usize>(&self, at: usize) -> [u8; N] {
        self.bytes
            .get(at..at + N)
            .and_then(|b| b.try_into().ok())
            .unwrap_or([0; N])
    }

    pub(crate) fn header_floats(&self, at: usize) -> [f32; 3] {
        core::array::from_fn(|i| f32::from_bits(self.header_word(at + 4 * i)))
    }

    pub(crate) fn header_string(
        &self,
        at: usize,
        field: &'static str,
    ) -> Result<&'a str, PlanError> {
        self.string(at, field)
            .map_err(|problem| header_error(at, problem))
    }

    /// A tensor's record, decoded; what it says is checked by [`Tensor::verify`].
    pub(crate) fn tensor(&self, index: usize) -> Result<Tensor<'a>, PlanError> {
        self.decode_tensor(index)
            .map_err(|problem| self.tensor_error(index, problem))
    }

    /// How many parts tensor `index` says it has: the records that follow its own.
    pub(crate) fn part_count(&self, index: usize) -> usize {
        self.tensor_word(index, TENSOR_PARTS_WORD)
            .unwrap_or_default() as usize
    }

    /// The tensor that tensor `index` is a part of. Parts have been checked: there are few, and none has parts of its own.
    pub(crate) fn whole_of(&self, index: usize) -> Option<usize> {
        let first = index.saturating_sub(MAX_PARTS);
        let before = (first..index).rev().find(|&i| self.part_count(i) != 0)?;
        (index - before <= self.part_count(before)).then_some(before)
    }

    /// The blob of a tensor's scales, or [`NONE`].
    pub(crate) fn scales_word(&self, index: usize) -> Option<u32> {
        self.tensor_word(index, TENSOR_SCALES_WORD)
    }

    fn tensor_word(&self, index: usize, i: usize) -> Option<u32> {
        if index >= self.tensors.count {
            return None;
        }
        word(self.bytes, self.tensors.at(index) + 4 * i)
    }

    /// An op's record, decoded.
    pub(crate) fn op(&self, index: usize, contents: Contents) -> Result<Op<'a>, PlanError> {
        self.decode_op(index, contents)
            .map_err(|problem| self.op_error(index, problem))
    }

    /// An op's record, decoded, its arrays having been verified before.
    pub(crate) fn verified_op(&self, index: usize) -> Result<Op<'a>, PlanError> {
        self.op(index, Contents::Verified)
    }

    /// The tensor an op writes, without decoding the rest.
    pub(crate) fn op_output(&self, index: usize) -> Result<TensorId, Problem> {
        if index >= self.ops.count {
            return Err(no_such(index, self.ops.count));
        }
        let id = word(self.bytes, self.ops.at(index) + 4 * OP_OUTPUT_WORD).unwrap_or(NONE);
        self.tensor_id(id, "output")
    }

    /// A label.
    pub(crate) fn label(&self, index: usize) -> Result<&'a str, PlanError> {
        let place = self.labels.place(index.min(self.labels.count), "");
        if index >= self.labels.count {
            return Err(PlanError::Invalid {
                place,
                problem: no_such(index, self.labels.count),
            });
        }
        self.string(self.labels.at(index), "label")
            .map_err(|problem| PlanError::Invalid { place, problem })
    }

    /// A tensor id that an op's or the header's word gives.
    pub(crate) fn tensor_id(&self, id: u32, field: &'static str) -> Result<TensorId, Problem> {
        let exists = usize::try_from(id).is_ok_and(|i| i < self.tensors.count);
        if exists {
            Ok(TensorId(id))
        } else {
            Err(Problem::NoSuchTensor { field, id })
        }
    }

    /// A blob's bytes. That their number fits is for the user of the blob to check.
    pub(crate) fn blob(&self, id: u32, field: &'static str) -> Result<&'a [u8], Problem> {
        let range = usize::try_from(id)
            .ok()
            .and_then(|index| self.blob_range(index));
        range
            .and_then(|r| self.data.get(r))
            .ok_or(Problem::NoSuchBlob { field, id })
    }

    /// The array in a blob.
    pub(crate) fn array<T: AnyBitPattern>(
        &self,
        id: u32,
        field: &'static str,
    ) -> Result<&'a [T], Problem> {
        let bytes = self.blob(id, field)?;
        // Blobs are 64-aligned in a 16-aligned file: only a length that is not whole elements can fail.
        bytemuck::try_cast_slice(bytes).map_err(|_| Problem::BlobLength {
            field,
            bytes: bytes.len(),
        })
    }

    pub(crate) fn tensor_error(&self, index: usize, problem: Problem) -> PlanError {
        let index = index.min(self.tensors.count);
        let name = self
            .string(self.tensors.at(index), "name")
            .unwrap_or_default();
        PlanError::Invalid {
            place: self.tensors.place(index, name),
            problem,
        }
    }

    pub(crate) fn op_error(&self, index: usize, problem: Problem) -> PlanError {
        let index = index.min(self.ops.count);
        let name = self.string(self.ops.at(index), "name").unwrap_or_default();
        PlanError::Invalid {
            place: self.ops.place(index, name),
            problem,
        }
    }

    pub(crate) fn decode_tensor(&self, index: usize) -> Result<Tensor<'a>, Problem> {
        let tensor = self.bare_tensor(index)?;
        let scales = match self.scales_word(index) {
            None | Some(NONE) => &[],
            Some(id) => self.array(id, "scales")?,
        };
        Ok(Tensor {
            name: self.string(self.tensors.at(index), "name")?,
            scales,
            ..tensor
        })
    }

    /// A tensor's record without its name and scales, which lie elsewhere: the order of writes and reads is checked with many of them.
    pub(crate) fn bare_tensor(&self, index: usize) -> Result<Tensor<'a>, Problem> {
        if index >= self.tensors.count {
            return Err(no_such(index, self.tensors.count));
        }
        let at = self.tensors.at(index);
        let w = |i: usize| word(self.bytes, at + 4 * i).unwrap_or_default();
        Ok(Tensor {
            name: "",
            dtype: DType::from_code(w(2))?,
            shape: [w(3), w(4), w(5), w(6)],
            offset: w(7),
            scale: f32::from_bits(w(8)),
            scales: &[],
            zero_point: w(9) as i32,
            held: w(12),
        })
    }

    pub(crate) fn decode_op(&self, index: usize, contents: Contents) -> Result<Op<'a>, Problem> {
        if index >= self.ops.count {
            return Err(no_such(index, self.ops.count));
        }
        let at = self.ops.at(index);
        let words: [u32; OP_WORDS] =
            core::array::from_fn(|i| word(self.bytes, at + 4 * i).unwrap_or_default());
        Op::decode(self, self.string(at, "name")?, &words, contents)
    }

    /// The string whose reference is at byte `at`.
    fn string(&self, at: usize, field: &'static str) -> Result<&'a str, Problem> {
        let get = || {
            let start = usize::try_from(word(self.bytes, at)?).ok()?;
            let len = usize::try_from(word(self.bytes, at.checked_add(4)?)?).ok()?;
            self.strings.get(start..start.checked_add(len)?)
        };
        get().ok_or(Problem::BadString { field })
    }

    /// A blob's place in the data section, as its record states it.
    fn blob_range(&self, index: usize) -> Option<Range<usize>> {
        if index >= self.blobs.count {
            return None;
        }
        let at = self.blobs.at(index);
        let start = usize::try_from(word(self.bytes, at)?).ok()?;
        let len = usize::try_from(word(self.bytes, at + 4)?).ok()?;
        Some(start..start.checked_add(len)?)
    }

    /// Blobs tile the data section: each starts at the first multiple of 64 after the one before, and zeros lie between.
    fn check_blobs(&self) -> Result<(), PlanError> {
        let mut end = 0;
        for index in 0..self.blobs.count {
            end = self
                .check_blob(index, end)
                .map_err(|problem| PlanError::Invalid {
                    place: self.blobs.place(index, ""),
                    problem,
                })?;
        }
        if end == self.data.len() {
            return Ok(());
        }
        let problem = Problem::Mismatch {
            field: "length of the data section",
            value: self.data.len() as u64,
            expected: end as u64,
        };
        Err(header_error(header::DATA, problem))
    }

    /// Checks one blob, given the end of the one before; returns its end.
    fn check_blob(&self, index: usize, previous_end: usize) -> Result<usize, Problem> {
        let range = self
            .blob_range(index)
            .ok_or(Problem::TooLarge { field: "end" })?;
        let start = align_up(previous_end).ok_or(Problem::TooLarge { field: "offset" })?;
        if range.start != start {
            return Err(Problem::Mismatch {
                field: "offset",
                value: range.start as u64,
                expected: start as u64,
            });
        }
        if range.is_empty() {
            return Err(Problem::Zero { field: "length" });
        }
        if range.end > self.data.len() {
            return Err(Problem::OutOfRange {
                field: "end",
                value: range.end as u64,
                limit: self.data.len() as u64,
            });
        }
        if self.data[previous_end..start].iter().any(|&b| b != 0) {
            return Err(Problem::NotZero {
                field: "padding before the blob",
            });
        }
        Ok(range.end)
    }
}

/// Magic, version, target, length and checksum: whether these bytes are a whole, undamaged plan for this reader.
fn check_identity(bytes: &[u8]) -> Result<(), PlanError> {
    let len = bytes.len();
    let known = len.min(MAGIC.len());
    if bytes[..known] != MAGIC[..known] || len == 0 {
        return Err(PlanError::NotAPlan);
    }
    let field = |at| {
        word(bytes, at).ok_or(PlanError::Truncated {
            len,
            needed: HEADER_LEN,
        })
    };
    let version = field(header::VERSION)?;
    if version != VERSION {
        return Err(PlanError::Version { found: version });
    }
    let target = field(header::TARGET)?;
    if target != TARGET_PORTABLE {
        return Err(PlanError::Target { found: target });
    }
    let needed = usize::try_from(field(header::FILE_LEN)?).unwrap_or(usize::MAX);
    if len < needed.max(HEADER_LEN) {
        return Err(PlanError::Truncated {
            len,
            needed: needed.max(HEADER_LEN),
        });
    }
    if len != needed {
        return Err(PlanError::TrailingBytes { len, needed });
    }
    let stored = field(header::CHECKSUM)?;
    let computed = checksum(bytes).ok_or(PlanError::Truncated {
        len,
        needed: HEADER_LEN,
    })?;
    if stored != computed {
        return Err(PlanError::Checksum { stored, computed });
    }
    // Last, so that a file that is not a plan is called that wherever it lies.
    if !bytes.as_ptr().addr().is_multiple_of(FILE_ALIGN) {
        return Err(PlanError::Misaligned);
    }
    Ok(())
}

/// A section of records: it must start where the one before ends, and its records must lie in the file.
fn table(
    bytes: &[u8],
    section: Section,
    at: usize,
    expected_start: usize,
    record_len: usize,
    max: usize,
) -> Result<Table, PlanError> {
    let name = match section {
        Section::Header => "header",
        Section::Tensor => "tensor section",
        Section::Op => "op section",
        Section::Strips => "strips section",
        Section::Blob => "blob section",
        Section::Label => "label section",
    };
    let (start, count) = start_and_size(bytes, at, expected_start, name)?;
    if count > max {
        return Err(header_error(
            at,
            Problem::OutOfRange {
                field: name,
                value: count as u64,
                limit: max as u64,
            },
        ));
    }
    let end = count
        .checked_mul(record_len)
        .and_then(|n| n.checked_add(start))
        .filter(|&end| end <= bytes.len());
    if end.is_none() {
        return Err(header_error(at, Problem::TooLarge { field: name }));
    }
    Ok(Table {
        section,
        start,
        count,
        record_len,
    })
}

/// A section of bytes.
fn section(
    bytes: &[u8],
    at: usize,
    expected_start: usize,
    name: &'static str,
) -> Result<Range<usize>, PlanError> {
    let (start, len) = start_and_size(bytes, at, expected_start, name)?;
    let end = start.checked_add(len).filter(|&end| end <= bytes.len());
    let end = end.ok_or(header_error(at, Problem::TooLarge { field: name }))?;
    Ok(start..end)
}

fn start_and_size(
    bytes: &[u8],
    at: usize,
    expected_start: usize,
    field: &'static str,
) -> Result<(usize, usize), PlanError> {
    let get = |at| word(bytes, at).and_then(|w| usize::try_from(w).ok());
    let pair = get(at).zip(get(at + 4));
    let (start, size) = pair.ok_or(header_error(at, Problem::TooLarge { field }))?;
    if start != expected_start {
        let problem = Problem::Mismatch {
            field,
            value: start as u64,
            expected: expected_start as u64,
        };
        return Err(header_error(at, problem));
    }
    Ok((start, size))
}

fn no_such(index: usize, count: usize) -> Problem {
    Problem::OutOfRange {
        field: "index",
        value: index as u64,
        limit: count as u64,
    }
}

/// An error in the header, at byte `offset`.
pub(crate) fn header_error(offset: usize, problem: Problem) -> PlanError {
    PlanError::Invalid {
        place: Place {
            section: Section::Header,
            index: 0,
            name: ShortName::EMPTY,
            offset,
        },
        problem,
    }
}

// `NONE` can never be the index of a record: counts are bounded by the file's length, which is a u32.
const _: () = assert!(NONE == u32::MAX && ALIGN >= FILE_ALIGN);
