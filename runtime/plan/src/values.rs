//! What lies in a tensor's memory when an op reads it: walking back through the ops to those that wrote it.

use core::ops::Range;

use crate::error::Problem;
use crate::file::File;
use crate::format::MAX_PARTS;
use crate::tensor::{TensorId, overlap};

/// Checks that before op `reader`, tensor `id` holds what was last written to it: the op that wrote it (or the ops that wrote its
/// parts) must come after any op that wrote something else to the same memory. `writer` is told each of them; `None` is the image.
pub(crate) fn check_value(
    file: &File<'_>,
    input: TensorId,
    id: TensorId,
    reader: usize,
    mut writer: impl FnMut(Option<usize>),
) -> Result<(), Problem> {
    let mut value = Value::new(file, id)?;
    for by in (0..reader).rev() {
        let written = file.op_output(by)?;
        if value.written(written) {
            writer(Some(by));
            if value.missing == 0 {
                return Ok(());
            }
        } else if value.clobbered(&memory(file, written)?) {
            return Err(Problem::Clobbered { tensor: id.0, by });
        }
    }
    if value.written(input) {
        writer(None);
    }
    match value.missing {
        0 => Ok(()),
        _ => Err(Problem::NotWritten { tensor: id.0 }),
    }
}

/// The value of a tensor while its writers are looked for. It has one piece for each part, or one if there are none.
struct Value {
    id: TensorId,
    /// The tensor that this one is a part of.
    whole: Option<TensorId>,
    parts: usize,
    /// Where the pieces start in the arena, and where the last one ends.
    bounds: [usize; MAX_PARTS + 1],
    /// A bit for every piece whose writer is not found yet.
    missing: u32,
}

// `missing` has a bit for every part.
const _: () = assert!(MAX_PARTS <= u32::BITS as usize);

impl Value {
    fn new(file: &File<'_>, id: TensorId) -> Result<Self, Problem> {
        let parts = file.part_count(id.index()).min(MAX_PARTS);
        let whole = memory(file, id)?;
        let mut bounds = [0; MAX_PARTS + 1];
        (bounds[0], bounds[1]) = (whole.start, whole.end);
        for (end, part) in bounds[1..].iter_mut().zip(0..parts) {
            *end = memory(file, TensorId(id.0 + 1 + part as u32))?.end;
        }
        Ok(Value {
            id,
            whole: file
                .whole_of(id.index())
                .map(|whole| TensorId(whole as u32)),
            parts,
            bounds,
            missing: u32::MAX >> (u32::BITS as usize - parts.max(1)),
        })
    }

    /// Takes in that `written` was written, and nothing that is still missing after it. Returns whether it is some of the value.
    fn written(&mut self, written: TensorId) -> bool {
        let before = self.missing;
        let part = written.index().wrapping_sub(self.id.index() + 1);
        if written == self.id || Some(written) == self.whole {
            self.missing = 0;
        } else if part < self.parts {
            self.missing &= !(1 << part);
        }
        self.missing != before
    }

    /// Whether a write to this memory destroys a piece that is still missing.
    fn clobbered(&self, memory: &Range<usize>) -> bool {
        let all = self.bounds[0]..self.bounds[self.parts.max(1)];
        overlap(memory, &all)
            && (0..self.parts.max(1))
                .filter(|piece| self.missing & 1 << piece != 0)
                .any(|piece| overlap(memory, &(self.bounds[piece]..self.bounds[piece + 1])))
    }
}

fn memory(file: &File<'_>, id: TensorId) -> Result<Range<usize>, Problem> {
    let field = "tensor";
    file.bare_tensor(id.index())?
        .arena_range()
        .ok_or(Problem::TooLarge { field })
}
