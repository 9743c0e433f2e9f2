//! The pieces of scratch, for one head and group at a time.

use super::super::{Attention, AttentionShape};
use super::WHOLE_KEYS_MAX;
use crate::SizeError;
use crate::gemm::{GROUP, K_ALIGN, NR, ROWS, padded_k, padded_n};
use crate::scratch::{carve, space};

pub(crate) struct Workspace<'s> {
    /// Packed keys: N = keys, K = head size. Past the last key, anything.
    pub(crate) keys: &'s mut [i8],
    /// Packed values: N = head size, K = keys. Past the last key, anything, for weights are 0 there.
    pub(crate) values: &'s mut [i8],
    /// Query rows of a tile padded to the packed K, if they cannot be read in place.
    pub(crate) queries: &'s mut [i8],
    /// The same for instruction sets that pack them.
    pub(crate) packed_queries: &'s mut [i8],
    /// `[rows of a tile][padded keys]`.
    pub(crate) logits: &'s mut [i32],
    /// The exponentials' upper 7 bits and lower 7 bits, `[rows][2][padded keys]`; rows of a tile, or with slots of a group.
    pub(crate) planes: &'s mut [i8],
    /// 128 · output scale ÷ sum of the exponentials, for every row of the planes.
    pub(crate) factors: &'s mut [f32],
    /// Where rows go that were not asked for.
    pub(crate) spare: &'s mut [i8],
    /// Queries of each group to be computed, if the output has a table.
    pub(crate) hulls: &'s mut [[u32; 2]],
    /// A window's bias of a head, expanded (see [`super::bias`]); or a row of another bias, or of zeros.
    pub(crate) bias: &'s mut [i32],
    /// A window's bias of a head, in reverse.
    pub(crate) reversed: &'s mut [i32],
    /// Labels of a group, if there is a mask.
    pub(crate) labels: &'s mut [i32],
}

/// Elements of the pieces.
struct Sizes {
    keys: usize,
    values: usize,
    queries: usize,
    logits: usize,
    planes: usize,
    rows: usize,
    spare: usize,
    hulls: usize,
    bias: usize,
    reversed: usize,
    labels: usize,
}

impl Sizes {
    fn new(op: &Attention<'_>) -> Self {
        let AttentionShape {
            head_dim,
            groups,
            slots,
            queries,
            keys,
            ..
        } = op.shape;
        let (pitch, dim) = (padded_k(keys), padded_k(head_dim));
        let tile = if op.has_whole_groups() { GROUP } else { ROWS };
        let rows = if slots > 1 { queries } else { tile };
        let (bias, reversed) = op.bias_sizes();
        Self {
            keys: pitch * dim,
            values: pitch * padded_n(head_dim),
            queries: tile * dim,
            logits: tile * pitch,
            planes: 2 * rows * pitch,
            rows,
            spare: padded_n(head_dim),
            hulls: op.out.rows.map_or(0, |_| groups),
            bias,
            reversed,
            labels: op.mask.map_or(0, |_| padded_n(keys)),
        }
    }
}

impl Attention<'_> {
    /// Whether [`Isa::attend`](crate::isa::Isa::attend) may take groups of 12 queries: K without padding, logits below 2²², and whole exponentials make
    /// the contract's bits.
    pub(crate) fn has_whole_groups(&self) -> bool {
        let shape = &self.shape;
        shape.slots == 1
            && shape.keys <= WHOLE_KEYS_MAX
            && shape.head_dim.is_multiple_of(K_ALIGN)
            && shape.head_dim <= 256
            && !self.is_biased()
    }

    /// Scratch bytes a run needs.
    pub(in super::super) fn workspace_len(&self) -> usize {
        let sizes = Sizes::new(self);
        let pieces = [
            space::<i8>(sizes.keys),
            space::<i8>(sizes.values),
            space::<i8>(sizes.queries),
            space::<i8>(sizes.queries),
            space::<i32>(sizes.logits),
            space::<i8>(sizes.planes),
            space::<f32>(sizes.rows),
            space::<i8>(sizes.spare),
            space::<[u32; 2]>(sizes.hulls),
            space::<i32>(sizes.bias),
            space::<i32>(sizes.reversed),
            space::<i32>(sizes.labels),
        ];
        pieces.into_iter().fold(0, usize::saturating_add)
    }

    /// Elements of the piece `bias`, and of `reversed`.
    fn bias_sizes(&self) -> (usize, usize) {
        let row = padded_n(self.shape.keys);
        match self.bias.as_ref().map(|bias| bias.window) {
            None => (self.mask.map_or(0, |_| row), 0),
            Some(None) => (row, 0),
            Some(Some([height, width])) => {
                let vector = |len: usize| len.saturating_add(NR);
                let (height, width) = (height as usize, width as usize);
                let runs = width.saturating_mul(2 * height - 1);
                let entries = (2 * width - 1).saturating_mul(2 * height - 1);
                (vector(runs.saturating_mul(width)), vector(entries))
            }
        }
    }
}

impl<'s> Workspace<'s> {
    pub(crate) fn new(op: &Attention<'_>, scratch: &'s mut [i8]) -> Result<Self, SizeError> {
        let sizes = Sizes::new(op);
        let (keys, rest) = carve(scratch, sizes.keys)?;
        let (values, rest) = carve(rest, sizes.values)?;
        let (queries, rest) = carve(rest, sizes.queries)?;
        let (packed_queries, rest) = carve(rest, sizes.queries)?;
        let (logits, rest) = carve(rest, sizes.logits)?;
        let (planes, rest) = carve(rest, sizes.planes)?;
        let (factors, rest) = carve(rest, sizes.rows)?;
        let (spare, rest) = carve(rest, sizes.spare)?;
        let (hulls, rest) = carve(rest, sizes.hulls)?;
        let (bias, rest) = carve(rest, sizes.bias)?;
        let (reversed, rest) = carve(rest, sizes.reversed)?;
        let (labels, _) = carve(rest, sizes.labels)?;
        let this = Self {
            keys,
            values,
            queries,
            packed_queries,
            logits,
            planes,
            factors,
            spare,
            hulls,
            bias,
            reversed,
            labels,
        };
        // Paddings of queries and planes: never written again, but by `Isa::attend`, whose instruction set reads planes no further than to a multiple
        // of 8 keys.
        this.queries.fill(0);
        this.planes.fill(0);
        // The bias where there is none.
        this.bias.fill(0);
        Ok(this)
    }
}
