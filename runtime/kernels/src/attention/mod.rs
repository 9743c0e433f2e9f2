//! Attention: softmax(q·kᵀ)·v per head, q, k, v and the result s8; see "Attention" in `docs/numerics.md`.

mod bias;
mod exp2;
mod operand;
mod scalar;
pub(crate) mod simd;
mod view;

use core::ops::Range;

pub use bias::Bias;
pub use operand::{AttentionShape, Operand};
pub use view::View;

use crate::error::{at_least, exact, length, row_range, rule, size, values};
use crate::gemm::{DIM_MAX, TENSOR_MAX, padded_k};
use crate::isa::dispatch;
use crate::{Kernel, Out, ParamError, SizeError};

const HEADS_MAX: usize = 1 << 16;
const HEAD_DIM_MAX: usize = 512;
/// Sums over the keys stay in i32.
const KEYS_MAX: usize = 131_072;
/// The largest magnitude that `round` is defined for.
const ROUND_MAX: f32 = 4_194_303.0;

/// Softmax(q·kᵀ + bias)·v for every head and group. q, k and v hold −127..=127 (their requantise has `min` −127); they may be one tensor.
#[derive(Clone, Copy, Debug)]
pub struct Attention<'a> {
    pub(crate) shape: AttentionShape,
    pub(crate) q: Operand<'a>,
    pub(crate) k: Operand<'a>,
    pub(crate) v: Operand<'a>,
    pub(crate) out: Operand<'a>,
    pub(crate) quantisation: AttentionQuantisation<'a>,
    pub(crate) bias: Option<Bias<'a>>,
    pub(crate) mask: Option<&'a [u8]>,
}

/// Scales of an attention, one per head, and its output's zero point.
#[derive(Clone, Copy, Debug)]
pub struct AttentionQuantisation<'a> {
    /// `s_q·s_k·softmax scale·log2(e)·1024`.
    pub logit_scale: &'a [f32],
    /// `s_v / s_out`.
    pub out_scale: &'a [f32],
    /// The output's zero point.
    pub zero_point: i8,
    /// The output's minimum, −128 or −127.
    pub min: i8,
}

impl AttentionQuantisation<'_> {
    fn check(&self, heads: usize) -> Result<(), ParamError> {
        let smallest = f32::from_bits((127 - 100) << 23);
        length("logit_scale", self.logit_scale.len(), heads)?;
        values(
            "logit_scale",
            "at least 2^-100 and below 2^22",
            self.logit_scale,
            |s| s >= smallest && s < 4_194_304.0,
        )?;
        length("out_scale", self.out_scale.len(), heads)?;
        values(
            "out_scale",
            "at least 2^-60 and below 2^14",
            self.out_scale,
            |s| s >= f32::from_bits((127 - 60) << 23) && s < 16384.0,
        )?;
        rule("an s8 output's minimum is -128 or -127", self.min <= -127)
    }
}

impl<'a> Attention<'a> {
    /// `operands` are q, k, v and the output, whose heads must lie within one `row_stride` and whose rows are all in its tensor.
    /// `mask` is a label for each token, `[groups][queries]`: a query sees the keys of its own label only; queries and keys are the same tokens.
    ///
    /// # Errors
    /// A size, a view, a row, a scale or a bias is outside the contract's bounds.
    pub fn new(
        shape: AttentionShape,
        operands: [Operand<'a>; 4],
        quantisation: AttentionQuantisation<'a>,
        bias: Option<Bias<'a>>,
        mask: Option<&'a [u8]>,
    ) -> Result<Self, ParamError> {
        let attention = Self::new_verified(shape, operands, quantisation, bias, mask)?;
        attention.check_elements()?;
        Ok(attention)
    }

    /// The part of `new` that reads the arrays' elements.
    ///
    /// # Errors
    /// Those of `new` that are about elements.
    pub fn check_elements(&self) -> Result<(), ParamError> {
        let Self { q, k, v, out, .. } = self;
        q.check_elements("rows of q", "constants of q")?;
        k.check_elements("rows of k", "constants of k")?;
        v.check_elements("rows of v", "constants of v")?;
        out.check_elements("rows of the output", "constants of the output")?;
        self.bias.map_or(Ok(()), |bias| bias.check_elements())
    }

    /// As `new`, for arrays it has accepted before: reads no element of tables, constants, bias and mask (see the crate's documentation).
    ///
    /// # Errors
    /// Those of `new` that are not about elements.
    pub fn new_verified(
        shape: AttentionShape,
        operands: [Operand<'a>; 4],
        quantisation: AttentionQuantisation<'a>,
        bias: Option<Bias<'a>>,
        mask: Option<&'a [u8]>,
    ) -> Result<Self, ParamError> {
        let [q, k, v, out] = operands;
        let this = Self {
            shape,
            q,
            k,
            v,
            out,
            quantisation,
            bias,
            mask,
        };
        this.check_sizes()?;
        let AttentionShape {
            queries,
            keys,
            groups,
            slots,
            ..
        } = shape;
        q.check(&shape, groups * queries, "rows of q")?;
        k.check(&shape, groups * keys, "rows of k")?;
        v.check(&shape, groups * slots * keys, "rows of v")?;
        this.check_output(groups * slots * queries)?;
        quantisation.check(shape.heads)?;
        this.check_logits()?;
        Ok(this)
    }

    fn check_sizes(&self) -> Result<(), ParamError> {
        let AttentionShape {
            heads,
            head_dim,
            groups,
            slots,
            queries,
            keys,
        } = self.shape;
        size("heads", heads, HEADS_MAX)?;
        size("head size", head_dim, HEAD_DIM_MAX)?;
        size("groups", groups, DIM_MAX)?;
        size("slots", slots, DIM_MAX)?;
        size("queries", queries, DIM_MAX)?;
        size("keys", keys, KEYS_MAX)?;
        let rows = |len: usize| groups.saturating_mul(slots).saturating_mul(len);
        size(
            "query rows of all groups and slots",
            rows(queries),
            TENSOR_MAX,
        )?;
        size("key rows of all groups and slots", rows(keys), TENSOR_MAX)?;
        if slots > 1 {
            // A group's weights are kept until all slots are done.
            size(
                "weights of a group",
                queries.saturating_mul(padded_k(keys)),
                TENSOR_MAX,
            )?;
        }
        Ok(())
    }

    fn check_output(&self, used: usize) -> Result<(), ParamError> {
        let (
            AttentionShape {
                heads, head_dim, ..
            },
            out,
        ) = (self.shape, &self.out);
        out.check(&self.shape, used, "rows of the output")?;
        rule(
            "an attention's output has no constants",
            out.constants.is_empty(),
        )?;
        rule(
            "an output without a table has the rows it is given",
            out.rows.is_some() || out.tensor_rows == used,
        )?;
        let stride = out.view.row_stride;
        rule(
            "the output's heads lie within one row",
            out.view
                .len(heads, 1, head_dim)
                .is_some_and(|len| len <= stride),
        )?;
        rule(
            "the output's heads do not overlap",
            heads == 1 || out.view.head_stride >= head_dim,
        )?;
        rule(
            "the output has an address",
            stride.checked_mul(out.tensor_rows).is_some(),
        )
    }

    /// Bias, mask, and the bound of the logits they are added to.
    fn check_logits(&self) -> Result<(), ParamError> {
        let shape = &self.shape;
        if let Some(bias) = &self.bias {
            bias.check(shape)?;
        }
        if let Some(mask) = self.mask {
            rule(
                "masked queries and keys are the same tokens",
                shape.queries == shape.keys,
            )?;
            length("mask", mask.len(), shape.groups * shape.queries)?;
        }
        if self.bias.is_some() || self.mask.is_some() {
            let reach = (shape.head_dim * 127 * 127) as f32;
            values(
                "logit_scale",
                "below (2^22 - 1) / (head size * 127^2), since there is a bias or a mask",
                self.quantisation.logit_scale,
                |scale| reach * scale < ROUND_MAX,
            )?;
        }
        Ok(())
    }

    /// Rows of the output.
    #[must_use]
    pub fn rows(&self) -> usize {
        self.out.tensor_rows
    }

    /// Sizes.
    #[must_use]
    pub fn shape(&self) -> &AttentionShape {
        &self.shape
    }

    /// q, k, v and the output.
    #[must_use]
    pub fn operands(&self) -> [Operand<'a>; 4] {
        [self.q, self.k, self.v, self.out]
    }

    /// Scales and zero point.
    #[must_use]
    pub fn quantisation(&self) -> &AttentionQuantisation<'a> {
        &self.quantisation
    }

    /// What is added to the logits.
    #[must_use]
    pub fn bias(&self) -> Option<&Bias<'a>> {
        self.bias.as_ref()
    }

    /// Labels `[groups][tokens]`.
    #[must_use]
    pub fn mask(&self) -> Option<&'a [u8]> {
        self.mask
    }

    /// The smallest lengths of q, k and v.
    #[must_use]
    pub fn input_lens(&self) -> [usize; 3] {
        let AttentionShape {
            heads, head_dim, ..
        } = self.shape;
        [&self.q, &self.k, &self.v]
            .map(|operand| operand.tensor_len(heads, head_dim).unwrap_or(usize::MAX))
    }

    /// Elements of the output: `row_stride` per row.
    #[must_use]
    pub fn output_len(&self) -> usize {
        self.out.tensor_rows * self.out.view.row_stride
    }

    /// Scratch bytes `run` needs: packed keys and values of a head and group, and the logits and both probability planes of some query rows (with several
    /// slots, of all of a group).
    #[must_use]
    pub fn scratch_len(&self) -> usize {
        self.workspace_len()
    }

    /// Multiply-accumulates of the whole operation: q·kᵀ and one product with each slot of v (the second plane of v is our own affair).
    #[must_use]
    pub fn macs(&self) -> u64 {
        let AttentionShape {
            heads,
            head_dim,
            groups,
            slots,
            queries,
            keys,
        } = self.shape;
        [heads, groups, queries, keys, head_dim, 1 + slots]
            .into_iter()
            .fold(1, |macs, factor| macs.saturating_mul(factor as u64))
    }

    /// Computes the output's rows `rows` of all heads into `out`: s8, `row_stride` elements for each of those rows.
    ///
    /// If the output has a table, `out` is filled with its zero point first, and a row the table names more than once gets the last result; else
    /// bytes between heads are left alone.
    ///
    /// # Errors
    /// A buffer or the row range does not fit; nothing was written.
    #[expect(clippy::too_many_arguments, reason = "three inputs")]
    pub fn run(
        &self,
        kernel: Kernel,
        rows: Range<usize>,
        q: &[i8],
        k: &[i8],
        v: &[i8],
        mut out: Out<'_>,
        scratch: &mut [i8],
    ) -> Result<(), SizeError> {
        row_range(&rows, self.rows())?;
        let lens = self.input_lens();
        at_least("q", q.len(), lens[0])?;
        at_least("k", k.len(), lens[1])?;
        at_least("v", v.len(), lens[2])?;
        let Out::S8(y) = &mut out else {
            return Err(SizeError::OutType);
        };
        exact("out", y.len(), rows.len() * self.out.view.row_stride)?;
        at_least("scratch", scratch.len(), self.scratch_len())?;
        if self.out.rows.is_some() {
            let AttentionQuantisation {
                zero_point, min, ..
            } = self.quantisation;
            y.fill(zero_point.max(min));
        }
        dispatch(kernel, self, rows, [q, k, v], out, scratch)
    }

    /// Whether logits are rounded and summed with a bias (0 if there is none) before the maximum is taken.
    pub(crate) fn is_biased(&self) -> bool {
        self.bias.is_some() || self.mask.is_some()
    }
}
