//! Why a plan was refused.

use core::fmt;

use thiserror::Error;
use vitlet_kernels::ParamError;
use vitlet_preprocess::PreprocessError;

use crate::format::{FILE_ALIGN, TARGET_PORTABLE, VERSION};
use crate::tensor::DType;

/// Why a plan was refused: one line that names the thing, the place and, where there is one, the remedy.
#[derive(Clone, Copy, PartialEq, Debug, Error)]
#[non_exhaustive]
pub enum PlanError {
    /// The buffer does not start at a multiple of 16.
    #[error(
        "the plan's bytes are not at a multiple of {FILE_ALIGN} in memory; copy them into an aligned buffer"
    )]
    Misaligned,
    /// The first bytes are not those of a plan.
    #[error(
        "not a .vitlet plan: the file does not start with the plan's magic bytes; make one with `vitlet compile`"
    )]
    NotAPlan,
    /// The file ends early.
    #[error(
        "the plan is truncated: {len} bytes of {needed}; copy it again or recompile with `vitlet compile`"
    )]
    Truncated {
        /// Bytes there are.
        len: usize,
        /// Bytes there should be.
        needed: usize,
    },
    /// The file goes on after its end.
    #[error("{len} bytes given for a plan of {needed}; pass exactly the file's bytes")]
    TrailingBytes {
        /// Bytes there are.
        len: usize,
        /// Bytes there should be.
        needed: usize,
    },
    /// Another version of the format.
    #[error(
        "the plan has format version {found}, this program reads {VERSION}; recompile with this version's `vitlet compile`"
    )]
    Version {
        /// The version in the file.
        found: u32,
    },
    /// The weights are laid out for something else.
    #[error(
        "the plan is laid out for target {found}, this program runs portable plans (target {TARGET_PORTABLE}); \
         recompile with this version's `vitlet compile`"
    )]
    Target {
        /// The target tag in the file.
        found: u32,
    },
    /// The bytes are not those that were written.
    #[error(
        "the plan is damaged: its checksum is {stored:08x}, its bytes give {computed:08x}; copy it again or recompile with `vitlet compile`"
    )]
    Checksum {
        /// The checksum in the file.
        stored: u32,
        /// The checksum of the bytes.
        computed: u32,
    },
    /// A record says something impossible.
    #[error("{place}: {problem}; recompile with `vitlet compile`")]
    Invalid {
        /// Which record.
        place: Place,
        /// What is wrong.
        problem: Problem,
    },
}

/// A record of the file.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Place {
    /// The section.
    pub section: Section,
    /// Index in the section.
    pub index: usize,
    /// The record's name, empty if it has none.
    pub name: ShortName,
    /// First byte of the record in the file.
    pub offset: usize,
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.section {
            Section::Header => write!(f, "plan header")?,
            section => write!(f, "{} {}", section.name(), self.index)?,
        }
        if !self.name.as_str().is_empty() {
            write!(f, " `{}`", self.name.as_str())?;
        }
        write!(f, " (byte {})", self.offset)
    }
}

/// A section of the file.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[allow(missing_docs, reason = "the sections of the format's table")]
pub enum Section {
    Header,
    Tensor,
    Op,
    Strips,
    Blob,
    Label,
}

impl Section {
    fn name(self) -> &'static str {
        match self {
            Section::Header => "header",
            Section::Tensor => "tensor",
            Section::Op => "op",
            Section::Strips => "strips",
            Section::Blob => "blob",
            Section::Label => "label",
        }
    }
}

/// The first 32 bytes of a name: an error owns its text and needs no allocator.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct ShortName {
    bytes: [u8; ShortName::CAPACITY],
    len: u8,
}

impl ShortName {
    const CAPACITY: usize = 32;
    /// No name.
    pub const EMPTY: ShortName = ShortName {
        bytes: [0; ShortName::CAPACITY],
        len: 0,
    };

    /// Cuts `name` at a character boundary.
    pub fn new(name: &str) -> Self {
        let mut short = ShortName::EMPTY;
        let end = name.floor_char_boundary(ShortName::CAPACITY);
        short.bytes[..end].copy_from_slice(&name.as_bytes()[..end]);
        short.len = end as u8;
        short
    }

    /// The (cut) name.
    pub fn as_str(&self) -> &str {
        core::str::from_utf8(&self.bytes[..usize::from(self.len)]).unwrap_or_default()
    }
}

impl fmt::Debug for ShortName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.as_str().fmt(f)
    }
}

/// What is wrong with a record.
#[derive(Clone, Copy, PartialEq, Debug, Error)]
#[non_exhaustive]
#[allow(
    missing_docs,
    reason = "each variant's message is its documentation; `field` is the name in the format's tables"
)]
pub enum Problem {
    #[error("{field} has the unknown code {value}")]
    UnknownCode { field: &'static str, value: u32 },
    #[error("{field} must be zero")]
    NotZero { field: &'static str },
    #[error("{field} must not be zero")]
    Zero { field: &'static str },
    #[error("{field} is {value}, must be {expected}")]
    Mismatch {
        field: &'static str,
        value: u64,
        expected: u64,
    },
    #[error("{field} is {value}, at most {limit} allowed")]
    OutOfRange {
        field: &'static str,
        value: u64,
        limit: u64,
    },
    #[error("{field} is {value}, which does not divide {of}, the number of channels")]
    NotADivisor {
        field: &'static str,
        value: usize,
        of: usize,
    },
    #[error("part {part} of this tensor {what}")]
    BadPart { part: usize, what: &'static str },
    #[error("{field} is {value}, not a multiple of 64")]
    Unaligned { field: &'static str, value: u32 },
    #[error("{field} does not fit this machine's address space")]
    TooLarge { field: &'static str },
    #[error("{field} must be UTF-8 text without control characters")]
    BadText { field: &'static str },
    #[error("{field} is not text inside the string section")]
    BadString { field: &'static str },
    #[error("{field} must be a finite, normal number in its range")]
    BadFloat { field: &'static str },
    #[error("{field} is {value}, which is not one of its type (s8: -128 to 127, otherwise 0)")]
    BadZeroPoint { field: &'static str, value: i32 },
    #[error("{field} has {bytes} bytes, not a whole array of its type")]
    BlobLength { field: &'static str, bytes: usize },
    #[error(
        "{field} (tensor {tensor}) can hold -128, but attention needs -127 to 127: give the op that writes it the minimum -127"
    )]
    NotSymmetric { field: &'static str, tensor: u32 },
    #[error("{field} names blob {id}, which does not exist")]
    NoSuchBlob { field: &'static str, id: u32 },
    #[error("{field} names tensor {id}, which does not exist")]
    NoSuchTensor { field: &'static str, id: u32 },
    #[error("{field} is {}, must be {}", found.name(), expected.name())]
    WrongDType {
        field: &'static str,
        found: DType,
        expected: DType,
    },
    #[error("{field} has {found} {what}, the op takes {expected}")]
    WrongSize {
        field: &'static str,
        what: &'static str,
        found: usize,
        expected: usize,
    },
    #[error("this kind of op takes {expected}")]
    WrongInputs { expected: &'static str },
    #[error("the output overlaps tensor {tensor}, which the op reads")]
    Overlap { tensor: u32 },
    #[error("tensor {tensor} is read but no op before has written it")]
    NotWritten { tensor: u32 },
    #[error("tensor {tensor} is read, but op {by} has overwritten its memory")]
    Clobbered { tensor: u32, by: usize },
    #[error("{field} must be ascending, from 1 on")]
    Unsorted { field: &'static str },
    #[error("op {op} of the group {what}")]
    BadStrips { op: usize, what: &'static str },
    #[error(
        "tensor {tensor} holds only some rows at a time: only the ops that run strip by strip with the one that writes it may use it"
    )]
    Held { tensor: u32 },
    #[error("the output view must be dense (every element of the tensor written once)")]
    SparseOutput,
    #[error("{0}")]
    Params(#[from] ParamError),
    #[error("{0}")]
    Preprocess(#[from] PreprocessError),
}
