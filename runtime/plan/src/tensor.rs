//! Tensors: what an op reads and writes, and where in the arena.

use core::ops::Range;

use crate::error::Problem;
use crate::format::ALIGN;

/// The element type of a tensor.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u32)]
pub enum DType {
    /// `i8`
    S8 = 0,
    /// `i16`
    S16 = 1,
    /// `i32`
    S32 = 2,
}

impl DType {
    /// Bytes of an element.
    pub const fn size(self) -> usize {
        match self {
            DType::S8 => 1,
            DType::S16 => 2,
            DType::S32 => 4,
        }
    }

    /// Whether elements are floating-point numbers. [`Plan::float_ops`](crate::Plan::float_ops) counts the ops that touch such a
    /// tensor; version 3 of the format has none, so a plan of it cannot compute in floats between ops.
    pub const fn is_float(self) -> bool {
        match self {
            DType::S8 | DType::S16 | DType::S32 => false,
        }
    }

    /// The type's name: `s8`, `s16` or `s32`.
    pub const fn name(self) -> &'static str {
        match self {
            DType::S8 => "s8",
            DType::S16 => "s16",
            DType::S32 => "s32",
        }
    }

    pub(crate) fn from_code(code: u32) -> Result<Self, Problem> {
        match code {
            0 => Ok(DType::S8),
            1 => Ok(DType::S16),
            2 => Ok(DType::S32),
            value => Err(Problem::UnknownCode {
                field: "dtype",
                value,
            }),
        }
    }
}

/// Names a tensor of one plan: its index in the plan's tensor records.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct TensorId(pub(crate) u32);

impl TensorId {
    /// The index among [`Plan::tensors`](crate::Plan::tensors).
    pub const fn index(self) -> usize {
        self.0 as usize
    }
}

/// A tensor's record.
///
/// As the writer's input it may hold anything; one that [`Plan`](crate::Plan) hands out is verified: its offset is a multiple of 64 (of
/// the element's size, if it is a part of another tensor), it lies inside the arena, its shape has no zero, its scale is 0 or a positive
/// normal number, so are its scales, and its zero point fits an `i8` (S8) or is 0 (S16, S32).
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct Tensor<'a> {
    /// For people; need not be unique.
    pub name: &'a str,
    /// Element type.
    pub dtype: DType,
    /// NHWC, or `[1, 1, rows, channels]` for tokens.
    pub shape: [u32; 4],
    /// First byte in the arena.
    pub offset: u32,
    /// real = scale · (q − zero point). 0 when there is more than one scale (one per head or channel).
    pub scale: f32,
    /// The scales of a tensor that has several: equal runs of channels have one each, see [`Tensor::scale_of`]. Empty if there is one
    /// scale, or if the plan does not say.
    pub scales: &'a [f32],
    /// The integer that stands for 0.
    pub zero_point: i32,
    /// Rows in memory at a time, if that is not all of them (0): the tensor lies between ops that run strip by strip, see
    /// [`Strips`](crate::Strips).
    pub held: u32,
}

impl Tensor<'_> {
    /// Number of elements; `None` when it does not fit a `usize`.
    pub fn elements(&self) -> Option<usize> {
        self.shape
            .iter()
            .try_fold(1_usize, |n, &d| n.checked_mul(usize::try_from(d).ok()?))
    }

    /// The bytes it occupies in the arena; `None` when they do not fit a `usize`.
    pub fn arena_range(&self) -> Option<Range<usize>> {
        let start = usize::try_from(self.offset).ok()?;
        let rows = match self.held {
            0 => self.rows()?,
            held => usize::try_from(held).ok()?,
        };
        let len = rows.checked_mul(self.row_len()?)?;
        Some(start..start.checked_add(len)?)
    }

    /// The bytes of some of its rows, of which the first in memory is row `base`. `None` if they are not all there.
    pub fn rows_range(&self, base: usize, rows: Range<usize>) -> Option<Range<usize>> {
        let (whole, row) = (self.arena_range()?, self.row_len()?);
        let at = |r: usize| {
            whole
                .start
                .checked_add(r.checked_sub(base)?.checked_mul(row)?)
        };
        let range = at(rows.start)?..at(rows.end)?;
        (range.start <= range.end && range.end <= whole.end).then_some(range)
    }

    /// Bytes of a row.
    pub fn row_len(&self) -> Option<usize> {
        let channels = usize::try_from(self.shape[3]).ok()?;
        channels.checked_mul(self.dtype.size())
    }

    /// Number of rows: the shape without its last axis. `None` when it does not fit a `usize`.
    pub fn rows(&self) -> Option<usize> {
        self.shape[..3]
            .iter()
            .try_fold(1_usize, |n, &d| n.checked_mul(usize::try_from(d).ok()?))
    }

    /// The scale of a channel; `None` if the plan does not say, or has no such channel.
    pub fn scale_of(&self, channel: usize) -> Option<f32> {
        let channels = usize::try_from(self.shape[3]).ok()?;
        if channel >= channels {
            return None;
        }
        if self.scales.is_empty() {
            return Some(self.scale).filter(|&scale| scale > 0.0);
        }
        // Runs of equal length: no product that could overflow.
        let run = channels.checked_div(self.scales.len())?;
        self.scales.get(channel.checked_div(run)?).copied()
    }

    /// Checks what a record states about itself; `arena` is the arena's length. Where it starts is a matter between tensors.
    pub(crate) fn verify(&self, arena: usize) -> Result<(), Problem> {
        if self.shape.contains(&0) {
            return Err(Problem::Zero { field: "shape" });
        }
        let range = self
            .arena_range()
            .ok_or(Problem::TooLarge { field: "shape" })?;
        if range.end > arena {
            return Err(Problem::OutOfRange {
                field: "end in the arena",
                value: range.end as u64,
                limit: arena as u64,
            });
        }
        let rows = self.rows().unwrap_or(usize::MAX);
        if self.held as usize >= rows {
            return Err(Problem::OutOfRange {
                field: "rows in memory at a time",
                value: self.held.into(),
                limit: rows as u64 - 1,
            });
        }
        if self.scale.to_bits() != 0 && !is_scale(self.scale) {
            return Err(Problem::BadFloat { field: "scale" });
        }
        self.verify_scales()?;
        let zero_point_ok = match self.dtype {
            DType::S8 => i8::try_from(self.zero_point).is_ok(),
            DType::S16 | DType::S32 => self.zero_point == 0,
        };
        if !zero_point_ok {
            return Err(Problem::BadZeroPoint {
                field: "zero point",
                value: self.zero_point,
            });
        }
        Ok(())
    }
}

impl Tensor<'_> {
    fn verify_scales(&self) -> Result<(), Problem> {
        if self.scales.is_empty() {
            return Ok(());
        }
        if self.scale.to_bits() != 0 {
            return Err(Problem::NotZero {
                field: "the scale of a tensor with several",
            });
        }
        let channels = self.shape[3] as usize;
        if !channels.is_multiple_of(self.scales.len()) {
            return Err(Problem::NotADivisor {
                field: "number of scales",
                value: self.scales.len(),
                of: channels,
            });
        }
        if !self.scales.iter().all(|&scale| is_scale(scale)) {
            return Err(Problem::BadFloat { field: "scales" });
        }
        Ok(())
    }

    /// Checks where the tensor starts, if it is not a part of another. A part starts after whole rows of elements, and so at a multiple
    /// of an element's size.
    pub(crate) fn verify_offset(&self) -> Result<(), Problem> {
        if (self.offset as usize).is_multiple_of(ALIGN) {
            return Ok(());
        }
        Err(Problem::Unaligned {
            field: "arena offset",
            value: self.offset,
        })
    }
}

/// Whether a number can be a scale.
fn is_scale(scale: f32) -> bool {
    scale.is_normal() && scale > 0.0
}

/// Whether two byte ranges have a byte in common.
pub(crate) fn overlap(a: &Range<usize>, b: &Range<usize>) -> bool {
    a.start < b.end && b.start < a.end
}
