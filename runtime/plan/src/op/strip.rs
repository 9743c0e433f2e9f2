//! An op for some rows of its result only: what a strip of it computes.

use core::ops::Range;

use vitlet_kernels::{Add, Addend, Conv, ConvShape, Depthwise, LayerNorm, Linear};

use super::OpKind;

/// Which rows of its inputs a row of an op's result needs: the same one, and those above and below under a window.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Halo {
    /// Rows come in whole rows of pixels, of so many pixels.
    pub width: usize,
    /// Rows above.
    pub above: usize,
    /// Rows below.
    pub below: usize,
}

impl Halo {
    /// The same row alone.
    pub const NONE: Halo = Halo {
        width: 1,
        above: 0,
        below: 0,
    };

    /// Of a convolution whose result is as large as its input.
    fn of(shape: &ConvShape) -> Option<Halo> {
        let same = (shape.in_h, shape.in_w) == (shape.out_h, shape.out_w);
        let width = shape.out_w as usize;
        let rows = |pad: u32| width.checked_mul(pad as usize);
        (same && shape.stride == [1, 1]).then_some(Halo {
            width,
            above: rows(shape.pad[0])?,
            below: rows(shape.pad[2])?,
        })
    }
}

/// Some rows of an op's result.
#[derive(Clone, Debug)]
pub struct Strip<'a> {
    /// The op that computes them.
    pub kind: OpKind<'a>,
    /// Its rows (as [`OpKind::rows`] counts them) to compute: all, unless `reads` is `None`.
    pub rows: Range<usize>,
    /// The rows of every input that `kind` takes as its whole input; `None` if it takes the whole tensors.
    pub reads: Option<Range<usize>>,
}

impl<'a> OpKind<'a> {
    /// Whether a row of the result (a token, or a pixel) depends on the same row of every input, and on nothing else.
    pub fn is_rowwise(&self) -> bool {
        self.halo() == Some(Halo::NONE) && !self.reads_whole()
    }

    /// What the op needs to run strip by strip; `None` if it cannot.
    pub(crate) fn halo(&self) -> Option<Halo> {
        match self {
            OpKind::Linear(_) | OpKind::Add(_) | OpKind::Attention(_) => Some(Halo::NONE),
            OpKind::LayerNorm(op) => op.gather().is_none().then_some(Halo::NONE),
            OpKind::Conv(op) => Halo::of(op.shape()),
            OpKind::Depthwise(op) => Halo::of(op.shape()),
            OpKind::PoolLinear(_) | OpKind::Mul(_) | OpKind::MaxPool(_) | OpKind::GroupNorm(_) => {
                None
            }
        }
    }

    /// Whether it takes whole tensors, whatever rows of its result are asked for.
    pub(crate) fn reads_whole(&self) -> bool {
        matches!(self, OpKind::Attention(_))
    }

    /// The op for the rows `rows` of its result (tokens, or pixels) only. `None` if it cannot run so, or there are no such rows.
    pub fn strip(&self, rows: Range<usize>) -> Option<Strip<'a>> {
        let count = rows.len();
        let kind = match self {
            OpKind::Attention(_) => {
                return Some(Strip {
                    kind: *self,
                    rows,
                    reads: None,
                });
            }
            OpKind::Linear(op) => OpKind::Linear(Linear::new(count, *op.gemm()).ok()?),
            OpKind::LayerNorm(op) => OpKind::LayerNorm(strip_norm(op, count)?),
            OpKind::Add(op) => OpKind::Add(strip_add(op, rows.clone())?),
            OpKind::Conv(op) => {
                return strip_of(op.shape(), rows, |shape| {
                    Some(OpKind::Conv(Conv::new(shape, op.pad(), *op.gemm()).ok()?))
                });
            }
            OpKind::Depthwise(op) => {
                return strip_of(op.shape(), rows, |shape| {
                    let (weights, requantise) = (op.weights(), *op.requantise());
                    let strip = Depthwise::new_verified(shape, weights, op.pad(), requantise);
                    Some(OpKind::Depthwise(strip.ok()?))
                });
            }
            OpKind::PoolLinear(_) | OpKind::Mul(_) | OpKind::MaxPool(_) | OpKind::GroupNorm(_) => {
                return None;
            }
        };
        Some(Strip {
            kind,
            rows: 0..count,
            reads: Some(rows),
        })
    }
}

fn strip_norm<'a>(op: &LayerNorm<'a>, rows: usize) -> Option<LayerNorm<'a>> {
    if op.gather().is_some() {
        return None;
    }
    let (gamma, beta) = (op.gamma(), op.beta());
    LayerNorm::new_verified(rows, op.channels(), op.eps(), gamma, beta, op.output()).ok()
}

fn strip_add<'a>(op: &Add<'a>, rows: Range<usize>) -> Option<Add<'a>> {
    let channels = op.channels();
    let b = match op.b() {
        Addend::Constant { values, scale } => Addend::Constant {
            values: values.get(rows.start * channels..rows.end * channels)?,
            scale,
        },
        b => b,
    };
    Add::new_verified(rows.len(), channels, op.a(), b, op.bias(), op.output()).ok()
}

/// A convolution's strip: `rows` are pixels, which must be whole rows of them.
fn strip_of<'a>(
    shape: &ConvShape,
    rows: Range<usize>,
    kind: impl Fn(ConvShape) -> Option<OpKind<'a>>,
) -> Option<Strip<'a>> {
    let (out_w, in_w) = (shape.out_w as usize, shape.in_w as usize);
    let lines = rows.start.checked_div(out_w)?..rows.end.checked_div(out_w)?;
    if lines.start * out_w != rows.start || lines.end * out_w != rows.end {
        return None;
    }
    let count = lines.len();
    let (shape, reads) = shape.strip(lines)?;
    Some(Strip {
        kind: kind(shape)?,
        rows: 0..count,
        reads: Some(reads.start * in_w..reads.end * in_w),
    })
}
