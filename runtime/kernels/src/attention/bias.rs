//! What is added to the logits: a table of its own for every pair of tokens, or one by their distance in a window.

use super::operand::AttentionShape;
use crate::ParamError;
use crate::error::{length, rule, values};

/// Largest magnitude of a bias.
const BIAS_MAX: u32 = 1 << 24;

/// A bias of the logits, in units of 2⁻¹⁰ octave, at most 2²⁴ in magnitude.
#[derive(Clone, Copy, Debug)]
pub struct Bias<'a> {
    /// `[heads][queries][keys]`, or by distance: `[heads][2·height − 1][2·width − 1]`.
    pub table: &'a [i32],
    /// Height and width of the window that queries and keys are the tokens of, row by row. Token (y, x) looks at token (v, u) with the entry
    /// `[y − v + height − 1][x − u + width − 1]`.
    pub window: Option<[u32; 2]>,
}

impl<'a> Bias<'a> {
    /// Everything but elements.
    pub(super) fn check(&self, shape: &AttentionShape) -> Result<(), ParamError> {
        if let Some([height, width]) = self.window {
            let tokens = (height as usize).checked_mul(width as usize);
            rule(
                "queries and keys are the tokens of the bias's window",
                tokens == Some(shape.queries) && shape.queries == shape.keys,
            )?;
        }
        let len = self.head_len(shape).saturating_mul(shape.heads);
        length("bias", self.table.len(), len)
    }

    /// The elements.
    pub(super) fn check_elements(&self) -> Result<(), ParamError> {
        values("bias", "at most 2^24 in magnitude", self.table, |b| {
            b.unsigned_abs() <= BIAS_MAX
        })
    }

    /// Entries of a head. The window's sides are no more than queries, if `check` has been passed.
    fn head_len(&self, shape: &AttentionShape) -> usize {
        match self.window {
            None => shape.queries.saturating_mul(shape.keys),
            Some([height, width]) => {
                let span = |side: u32| (side as usize).saturating_mul(2).saturating_sub(1);
                span(height).saturating_mul(span(width))
            }
        }
    }

    /// The entries of a head.
    #[inline(always)]
    pub(super) fn head(&self, shape: &AttentionShape, head: usize) -> &'a [i32] {
        let len = self.head_len(shape);
        &self.table[head * len..][..len]
    }

    /// Of a head's entries, that of query `i` and key `j`.
    #[inline(always)]
    pub(super) fn index(&self, shape: &AttentionShape, i: usize, j: usize) -> usize {
        match self.window {
            None => i * shape.keys + j,
            Some([height, width]) => {
                let (height, width) = (height as usize, width as usize);
                let (y, x) = (i / width + height - 1, i % width + width - 1);
                (y - j / width) * (2 * width - 1) + (x - j % width)
            }
        }
    }
}
