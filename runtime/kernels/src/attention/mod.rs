//! Attention: softmax(q·kᵀ)·v per head, q, k, v and the result s8; see "Attention" in `docs/numerics.md`.

mod exp2;
mod scalar;
mod simd;
mod view;

use core::ops::Range;

pub use view::View;

use crate::error::{at_least, exact, length, row_range, rule, size, values};
use crate::gemm::{DIM_MAX, ROWS, padded_k, padded_n};
use crate::isa::dispatch;
use crate::scratch::space;
use crate::{Kernel, Out, ParamError, SizeError};

const HEADS_MAX: usize = 1 << 16;
const HEAD_DIM_MAX: usize = 512;
/// Sums over the keys stay in i32.
const KEYS_MAX: usize = 131_072;

/// Softmax(q·kᵀ)·v for `heads` heads. q, k and v hold −127..=127 (their requantise has `min` −127); they may be one tensor.
#[derive(Clone, Copy, Debug)]
pub struct Attention<'a> {
    pub(crate) heads: usize,
    pub(crate) head_dim: usize,
    pub(crate) queries: usize,
    pub(crate) keys: usize,
    pub(crate) q: View,
    pub(crate) k: View,
    pub(crate) v: View,
    pub(crate) out: View,
    pub(crate) quantisation: AttentionQuantisation<'a>,
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
    /// `views` are those of q, k, v and the output; the output's heads must lie within one `row_stride`.
    ///
    /// # Errors
    /// A size, a view or a scale is outside the contract's bounds.
    pub fn new(
        heads: usize,
        head_dim: usize,
        queries: usize,
        keys: usize,
        [q, k, v, out]: [View; 4],
        quantisation: AttentionQuantisation<'a>,
    ) -> Result<Self, ParamError> {
        size("heads", heads, HEADS_MAX)?;
        size("head size", head_dim, HEAD_DIM_MAX)?;
        size("queries", queries, DIM_MAX)?;
        size("keys", keys, KEYS_MAX)?;
        for (view, rows) in [(q, queries), (k, keys), (v, keys), (out, queries)] {
            rule(
                "a view's elements have addresses",
                view.len(heads, rows, head_dim).is_some(),
            )?;
        }
        let one_row = out.len(heads, 1, head_dim);
        rule(
            "the output's heads lie within one row",
            one_row.is_some_and(|len| len <= out.row_stride),
        )?;
        rule(
            "the output's heads do not overlap",
            heads == 1 || out.head_stride >= head_dim,
        )?;
        rule(
            "the output has an address",
            out.row_stride.checked_mul(queries).is_some(),
        )?;
        quantisation.check(heads)?;
        Ok(Self {
            heads,
            head_dim,
            queries,
            keys,
            q,
            k,
            v,
            out,
            quantisation,
        })
    }

    /// Query rows.
    #[must_use]
    pub fn rows(&self) -> usize {
        self.queries
    }

    /// Number of heads.
    #[must_use]
    pub fn heads(&self) -> usize {
        self.heads
    }

    /// Channels of a head.
    #[must_use]
    pub fn head_dim(&self) -> usize {
        self.head_dim
    }

    /// Key rows.
    #[must_use]
    pub fn keys(&self) -> usize {
        self.keys
    }

    /// The views of q, k, v and the output.
    #[must_use]
    pub fn views(&self) -> [View; 4] {
        [self.q, self.k, self.v, self.out]
    }

    /// Scales and zero point.
    #[must_use]
    pub fn quantisation(&self) -> &AttentionQuantisation<'a> {
        &self.quantisation
    }

    /// The smallest lengths of q, k and v.
    #[must_use]
    pub fn input_lens(&self) -> [usize; 3] {
        let len = |view: View, rows| {
            view.len(self.heads, rows, self.head_dim)
                .unwrap_or(usize::MAX)
        };
        [
            len(self.q, self.queries),
            len(self.k, self.keys),
            len(self.v, self.keys),
        ]
    }

    /// Elements of the output: `row_stride` per query row.
    #[must_use]
    pub fn output_len(&self) -> usize {
        self.queries * self.out.row_stride
    }

    /// Scratch bytes `run` needs: packed keys and values of a head, and the logits and both probability planes of some query rows.
    #[must_use]
    pub fn scratch_len(&self) -> usize {
        let (keys, dim) = (padded_k(self.keys), padded_k(self.head_dim));
        let pieces = [
            space::<i8>(keys * dim),
            space::<i8>(keys * padded_n(self.head_dim)),
            space::<i8>(ROWS * dim),
            space::<i32>(ROWS * keys),
            space::<i8>(ROWS * keys),
            space::<i8>(ROWS * keys),
        ];
        pieces.into_iter().fold(0, usize::saturating_add)
    }

    /// Multiply-accumulates of the whole operation: q·kᵀ and one product with v (the second plane of v is our own affair).
    #[must_use]
    pub fn macs(&self) -> u64 {
        let rows = (self.heads as u64).saturating_mul(self.queries as u64);
        rows.saturating_mul(self.keys as u64)
            .saturating_mul(2 * self.head_dim as u64)
    }

    /// Computes query rows `rows` of all heads into `out`: s8, `row_stride` elements for each of those rows; bytes between heads are left alone.
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
        out: Out<'_>,
        scratch: &mut [i8],
    ) -> Result<(), SizeError> {
        row_range(&rows, self.queries)?;
        let lens = self.input_lens();
        at_least("q", q.len(), lens[0])?;
        at_least("k", k.len(), lens[1])?;
        at_least("v", v.len(), lens[2])?;
        let Out::S8(_) = out else {
            return Err(SizeError::OutType);
        };
        exact("out", out.len(), rows.len() * self.out.row_stride)?;
        at_least("scratch", scratch.len(), self.scratch_len())?;
        dispatch(kernel, self, rows, [q, k, v], out, scratch)
    }
}
