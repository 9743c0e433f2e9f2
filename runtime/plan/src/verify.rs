//! What must hold between the records of a plan, checked once.
//!
//! The kernels' constructors check an op's own parameters (they *are* that verification); this module checks that tensors and ops
//! fit each other, and that no op can read a byte that is not the value it means to read.

use vitlet_preprocess::{Interpolation, Preprocess, Resize};

use crate::MAX_THREADS;
use crate::error::{PlanError, Problem};
use crate::file::{File, header_error};
use crate::format::{ALIGN, MAX_OPS, MAX_PARTS, align_up, header};
use crate::op::{Contents, Op, Operand, Size};
use crate::strips;
use crate::tensor::{DType, Tensor, TensorId, overlap};
use crate::values::check_value;

/// What verification finds out and the plan keeps.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Facts {
    pub(crate) input: TensorId,
    pub(crate) output: TensorId,
    pub(crate) preprocess: Preprocess,
    pub(crate) mean: [f32; 3],
    pub(crate) std: [f32; 3],
    /// Bytes of all tensors.
    pub(crate) tensors_len: usize,
    /// Bytes of one thread's scratch.
    pub(crate) scratch_len: usize,
    /// Bytes for strips of one of several threads.
    pub(crate) window_len: usize,
    pub(crate) macs: u64,
    pub(crate) float_ops: usize,
    pub(crate) copies: usize,
}

/// Checks every record, and the records against each other.
pub(crate) fn verify(file: &File<'_>) -> Result<Facts, PlanError> {
    check_reserved(file)?;
    let tensors_len = tensors_len(file)?;
    check_tensors(file, tensors_len)?;
    let input = header_tensor(file, header::INPUT, "input")?;
    let output = header_tensor(file, header::OUTPUT, "output")?;
    let (mean, std) = check_normalisation(file)?;
    let mut facts = Facts {
        input,
        output,
        preprocess: check_input(file, input)?,
        mean,
        std,
        tensors_len,
        scratch_len: 0,
        window_len: 0,
        macs: 0,
        float_ops: 0,
        copies: 0,
    };
    check_logits(file, output)?;
    let mut minima = Minima::default();
    for index in 0..file.op_count() {
        let op = file.op(index, Contents::Verify)?;
        check_op(file, &op, index, &mut facts, &mut minima)
            .map_err(|problem| file.op_error(index, problem))?;
    }
    facts.window_len = strips::check(file)?;
    check_value(file, input, output, file.op_count(), |_| ())
        .map_err(|problem| header_error(header::OUTPUT, problem))?;
    check_arena_fits(&facts)?;
    Ok(facts)
}

/// Every tensor's record by itself, then those that are parts with those that they are parts of.
fn check_tensors(file: &File<'_>, arena: usize) -> Result<(), PlanError> {
    for index in 0..file.tensor_count() {
        file.tensor(index)?
            .verify(arena)
            .map_err(|problem| file.tensor_error(index, problem))?;
    }
    let mut index = 0;
    while index < file.tensor_count() {
        file.tensor(index)?
            .verify_offset()
            .and_then(|()| check_parts(file, index))
            .map_err(|problem| file.tensor_error(index, problem))?;
        index += 1 + file.part_count(index);
    }
    Ok(())
}

/// The tensor's parts are the tensor, cut between rows.
fn check_parts(file: &File<'_>, index: usize) -> Result<(), Problem> {
    let count = file.part_count(index);
    let limit = MAX_PARTS.min(file.tensor_count() - 1 - index);
    if count > limit {
        return Err(Problem::OutOfRange {
            field: "number of parts",
            value: count as u64,
            limit: limit as u64,
        });
    }
    if count == 0 {
        return Ok(());
    }
    let whole = file.decode_tensor(index)?;
    held_whole(TensorId(index as u32), &whole)?;
    let end = |of: &Tensor<'_>| of.arena_range().map_or(usize::MAX, |range| range.end);
    let mut next = whole.offset as usize;
    for part in 0..count {
        let bad = |what| Problem::BadPart { part, what };
        let (at, record) = (index + 1 + part, file.decode_tensor(index + 1 + part)?);
        if file.part_count(at) != 0 {
            return Err(bad("has parts itself"));
        }
        let same = record.dtype == whole.dtype
            && record.shape[3] == whole.shape[3]
            && record.zero_point == whole.zero_point
            && record.scale.to_bits() == whole.scale.to_bits()
            && file.scales_word(at) == file.scales_word(index)
            && record.held == 0;
        if !same {
            return Err(bad(
                "differs from it in type, channels, quantisation or rows in memory",
            ));
        }
        if record.offset as usize != next {
            return Err(bad("does not start where the one before ends"));
        }
        next = end(&record);
    }
    if next != end(&whole) {
        let what = "is the last, but does not end where the tensor ends";
        return Err(Problem::BadPart {
            part: count - 1,
            what,
        });
    }
    Ok(())
}

fn check_reserved(file: &File<'_>) -> Result<(), PlanError> {
    let first = file.header_word(header::RESERVED_0) == 0;
    let rest =
        file.header_bytes::<{ crate::format::HEADER_LEN - header::RESERVED_1 }>(header::RESERVED_1);
    if first && rest.iter().all(|&b| b == 0) {
        return Ok(());
    }
    Err(header_error(
        header::RESERVED_0,
        Problem::NotZero {
            field: "reserved bytes",
        },
    ))
}

fn tensors_len(file: &File<'_>) -> Result<usize, PlanError> {
    let stated = file.header_word(header::ARENA);
    let len = usize::try_from(stated)
        .map_err(|_| header_error(header::ARENA, Problem::TooLarge { field: "arena" }))?;
    if len.is_multiple_of(ALIGN) {
        return Ok(len);
    }
    Err(header_error(
        header::ARENA,
        Problem::Unaligned {
            field: "arena",
            value: stated,
        },
    ))
}

fn header_tensor(file: &File<'_>, at: usize, field: &'static str) -> Result<TensorId, PlanError> {
    file.tensor_id(file.header_word(at), field)
        .map_err(|problem| header_error(at, problem))
}

/// The input is an RGB image of a size that preprocessing can make.
fn check_input(file: &File<'_>, input: TensorId) -> Result<Preprocess, PlanError> {
    let tensor = file.tensor(input.index())?;
    let [n, height, width, channels] = tensor.shape;
    let shape = |field, value: u32, expected: u32| match value == expected {
        true => Ok(()),
        false => Err(Problem::Mismatch {
            field,
            value: value.into(),
            expected: expected.into(),
        }),
    };
    dtype("input", &tensor, DType::S8)
        .and_then(|()| held_whole(input, &tensor))
        .and_then(|()| shape("input batch", n, 1))
        .and_then(|()| shape("input channels", channels, 3))
        .map_err(|problem| header_error(header::INPUT, problem))?;
    let unknown =
        |at, field| move |value| Err(header_error(at, Problem::UnknownCode { field, value }));
    let short_side = file.header_word(header::SHORT_SIDE);
    let resize = match file.header_word(header::RESIZE) {
        0 if short_side == 0 => Resize::Squash,
        0 => {
            return Err(header_error(
                header::SHORT_SIDE,
                Problem::NotZero {
                    field: "short side when squashing",
                },
            ));
        }
        1 => Resize::ShortSide(short_side),
        value => return unknown(header::RESIZE, "resize")(value),
    };
    let interpolation = match file.header_word(header::INTERPOLATION) {
        0 => Interpolation::Bilinear,
        1 => Interpolation::Bicubic,
        value => return unknown(header::INTERPOLATION, "interpolation")(value),
    };
    Preprocess::new(width, height, resize, interpolation)
        .map_err(|e| header_error(header::RESIZE, e.into()))
}

fn check_normalisation(file: &File<'_>) -> Result<([f32; 3], [f32; 3]), PlanError> {
    let mean = file.header_floats(header::MEAN);
    if !mean.iter().all(|m| m.is_finite()) {
        return Err(header_error(
            header::MEAN,
            Problem::BadFloat { field: "mean" },
        ));
    }
    let std = file.header_floats(header::STD);
    if !std.iter().all(|s| s.is_normal() && *s > 0.0) {
        return Err(header_error(
            header::STD,
            Problem::BadFloat { field: "std" },
        ));
    }
    file.header_string(header::MODEL_NAME, "model name")?;
    file.header_string(header::COMPILER, "compiler")?;
    Ok((mean, std))
}

/// The output is a row of S32 logits with a scale, and there is a label for each or none at all.
fn check_logits(file: &File<'_>, output: TensorId) -> Result<(), PlanError> {
    let tensor = file.tensor(output.index())?;
    let check = || {
        dtype("output", &tensor, DType::S32)?;
        held_whole(output, &tensor)?;
        if tensor.scale <= 0.0 {
            return Err(Problem::BadFloat {
                field: "scale of the output",
            });
        }
        let logits = tensor
            .elements()
            .ok_or(Problem::TooLarge { field: "output" })?;
        let labels = file.label_count();
        if labels != 0 && labels != logits {
            return Err(Problem::Mismatch {
                field: "number of labels",
                value: labels as u64,
                expected: logits as u64,
            });
        }
        Ok(())
    };
    check().map_err(|problem| header_error(header::OUTPUT, problem))?;
    (0..file.label_count()).try_for_each(|class| file.label(class).map(|_| ()))
}

/// One op: its arrays, its operands' types and sizes, where its output lies, and the values it reads.
fn check_op(
    file: &File<'_>,
    op: &Op<'_>,
    index: usize,
    facts: &mut Facts,
    minima: &mut Minima,
) -> Result<(), Problem> {
    let output = file.decode_tensor(op.output.index())?;
    check_operand(&op.kind.output(), &output)?;
    let out_range = output
        .arena_range()
        .ok_or(Problem::TooLarge { field: "output" })?;
    let group = strips::group_of(file, index);
    if output.held != 0 && group.is_none() {
        return Err(Problem::Held {
            tensor: op.output.0,
        });
    }
    let mut floats = output.dtype.is_float();
    for (id, operand) in op.reads() {
        let read = file.decode_tensor(id.index())?;
        check_operand(&operand, &read)?;
        floats |= read.dtype.is_float();
        let (mut minimum, mut held) = (false, true);
        check_value(file, facts.input, id, index, |writer| {
            minimum |= operand.symmetric && minima.may_be_written(writer);
            held &= group
                .as_ref()
                .zip(writer)
                .is_some_and(|(ops, op)| ops.contains(&op));
        })?;
        if read.held != 0 && !held {
            return Err(Problem::Held { tensor: id.0 });
        }
        if minimum {
            return Err(Problem::NotSymmetric {
                field: operand.field,
                tensor: id.0,
            });
        }
        let range = read
            .arena_range()
            .ok_or(Problem::TooLarge { field: "input" })?;
        let in_place = operand.residual && range == out_range;
        if !in_place && overlap(&range, &out_range) {
            return Err(Problem::Overlap { tensor: id.0 });
        }
        facts.copies += usize::from(operand.residual && !in_place);
    }
    minima.note(index, op.kind.may_write_minimum());
    facts.float_ops += usize::from(floats);
    facts.macs = facts.macs.saturating_add(op.kind.macs());
    let scratch = align_up(op.kind.scratch_len()).ok_or(Problem::TooLarge { field: "scratch" })?;
    facts.scratch_len = facts.scratch_len.max(scratch);
    Ok(())
}

/// A tensor that is used outside a group of strips has all its rows in memory.
fn held_whole(id: TensorId, tensor: &Tensor<'_>) -> Result<(), Problem> {
    match tensor.held {
        0 => Ok(()),
        _ => Err(Problem::Held { tensor: id.0 }),
    }
}

fn dtype(field: &'static str, tensor: &Tensor<'_>, expected: DType) -> Result<(), Problem> {
    if tensor.dtype == expected {
        return Ok(());
    }
    Err(Problem::WrongDType {
        field,
        found: tensor.dtype,
        expected,
    })
}

fn check_operand(operand: &Operand, tensor: &Tensor<'_>) -> Result<(), Problem> {
    let field = operand.field;
    dtype(field, tensor, operand.dtype)?;
    let tensor_elements = tensor.elements().ok_or(Problem::TooLarge { field })?;
    match operand.size {
        Size::Exactly {
            elements: expected,
            channels,
        } => {
            let (elements, last) = (tensor_elements, tensor.shape[3] as usize);
            if last != channels {
                return Err(Problem::WrongSize {
                    field,
                    what: "channels",
                    found: last,
                    expected: channels,
                });
            }
            if elements != expected {
                return Err(Problem::WrongSize {
                    field,
                    what: "elements",
                    found: elements,
                    expected,
                });
            }
        }
        Size::AtLeast(needed) if needed > tensor_elements => {
            return Err(Problem::WrongSize {
                field,
                what: "elements for its view",
                found: tensor_elements,
                expected: needed,
            });
        }
        Size::AtLeast(_) => {}
    }
    Ok(())
}

/// Which ops can write −128: a bit for each.
struct Minima([u64; MAX_OPS.div_ceil(64)]);

impl Default for Minima {
    fn default() -> Self {
        Minima([0; MAX_OPS.div_ceil(64)])
    }
}

impl Minima {
    fn note(&mut self, op: usize, may_write: bool) {
        if let Some(bits) = self.0.get_mut(op / 64) {
            *bits |= u64::from(may_write) << (op % 64);
        }
    }

    /// Whether this op can write −128, or the image, if it is none, hold it.
    fn may_be_written(&self, writer: Option<usize>) -> bool {
        let bits = writer.and_then(|op| Some((self.0.get(op / 64)?, op % 64)));
        bits.is_none_or(|(bits, bit)| bits >> bit & 1 != 0)
    }
}

/// [`Plan::arena_len`](crate::Plan::arena_len) fits an allocation for any number of threads.
fn check_arena_fits(facts: &Facts) -> Result<(), PlanError> {
    let total = facts
        .scratch_len
        .checked_add(facts.window_len)
        .and_then(|n| n.checked_mul(MAX_THREADS))
        .and_then(|n| n.checked_add(facts.tensors_len));
    match total.is_some_and(|n| isize::try_from(n).is_ok()) {
        true => Ok(()),
        false => Err(header_error(
            header::ARENA,
            Problem::TooLarge {
                field: "arena with scratch for all threads",
            },
        )),
    }
}
