//! What an activation tensor of the source graph is made of: rows of values and constants, seen through a view.
//!
//! A [`View`] lies over a matrix of rows. Mostly that matrix is one value. A concatenation, a cyclic shift or a gather makes a
//! matrix whose rows are listed one by one ([`Rows`]): row 5 of this value, constant row 0, … Nothing is moved for it. Operations that
//! work row by row run once on each part and keep the list, attention takes the list along as its row table, and a list that turns
//! out to be a value's own rows in order becomes that value again.

use std::sync::Arc;

use crate::frontend::Tensor;
use crate::ir::{Source, Value, ValueId};
use crate::view::{Factor, View};

/// A piece of a matrix.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Part {
    /// All rows of a value.
    Value(ValueId),
    /// Rows known at compile time, `[..][channels]`.
    Constant(Arc<[f32]>),
}

/// A matrix whose rows come from several parts, or from one in another order.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Rows {
    pub(super) channels: usize,
    pub(super) parts: Vec<Part>,
    /// Part and row in the part of each row.
    pub(super) index: Vec<(u32, u32)>,
}

/// The matrix a view lies over.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Base {
    Value(ValueId),
    Rows(Arc<Rows>),
}

/// An activation tensor: a view over a matrix.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Seen {
    pub(super) base: Base,
    pub(super) view: View,
}

impl Base {
    /// Elements of a row.
    pub(super) fn channels(&self, values: &[Value]) -> usize {
        match self {
            Base::Value(v) => values[*v].channels,
            Base::Rows(rows) => rows.channels,
        }
    }

    /// Number of rows.
    pub(super) fn len(&self, values: &[Value]) -> usize {
        match self {
            Base::Value(v) => values[*v].rows,
            Base::Rows(rows) => rows.index.len(),
        }
    }

    /// The matrix as a list of rows.
    pub(super) fn rows(&self, values: &[Value]) -> Arc<Rows> {
        match self {
            Base::Rows(rows) => Arc::clone(rows),
            Base::Value(v) => Arc::new(Rows {
                channels: values[*v].channels,
                parts: vec![Part::Value(*v)],
                index: (0..values[*v].rows as u32).map(|r| (0, r)).collect(),
            }),
        }
    }
}

impl Rows {
    /// The simplest matrix with these rows: parts that no row uses are dropped, and a value's own rows in order are that value.
    pub(super) fn into_base(mut self, values: &[Value]) -> Base {
        let mut new = vec![None; self.parts.len()];
        let mut parts = vec![];
        for (part, _) in &mut self.index {
            let slot = &mut new[*part as usize];
            *part = *slot.get_or_insert_with(|| {
                parts.push(self.parts[*part as usize].clone());
                parts.len() as u32 - 1
            });
        }
        self.parts = parts;
        if let [Part::Value(v)] = self.parts.as_slice()
            && values[*v].rows == self.index.len()
            && self
                .index
                .iter()
                .enumerate()
                .all(|(i, (_, r))| *r as usize == i)
        {
            return Base::Value(*v);
        }
        Base::Rows(Arc::new(self))
    }

    /// First and one past the last row used of a part, and whether every row between is used.
    pub(super) fn used(&self, part: usize) -> (usize, usize, bool) {
        let mut rows: Vec<u32> = self
            .index
            .iter()
            .filter(|(p, _)| *p as usize == part)
            .map(|(_, r)| *r)
            .collect();
        rows.sort_unstable();
        rows.dedup();
        let (first, last) = match (rows.first(), rows.last()) {
            (Some(a), Some(b)) => (*a as usize, *b as usize + 1),
            _ => (0, 0),
        };
        (first, last, rows.len() == last - first)
    }

    /// For [`Source::rows`]: the rows of one part that starts at row `first` of the part and has `len` rows. `None` when some row of them
    /// is not in this matrix.
    pub(super) fn source_rows(&self, part: usize, first: usize, len: usize) -> Option<Arc<[u32]>> {
        let mut seen = vec![false; len];
        let rows = self.index.iter().map(|(p, r)| {
            let row = (*r as usize).wrapping_sub(first);
            if *p as usize == part && row < len {
                seen[row] = true;
                row as u32
            } else {
                Source::OTHER
            }
        });
        let rows: Arc<[u32]> = rows.collect();
        seen.iter().all(|s| *s).then_some(rows)
    }
}

/// A dimension with each factor either stepping over whole rows of `channels` elements or staying inside one.
pub(super) fn refined(dim: &[Factor], channels: usize) -> Vec<Factor> {
    let crossing = |f: &Factor| {
        f.stride < channels
            && f.stride * f.size > channels
            && channels.is_multiple_of(f.stride)
            && (f.stride * f.size).is_multiple_of(channels)
    };
    let halves = |f: &Factor| {
        let inside = channels / f.stride;
        let over = Factor {
            size: f.size / inside,
            stride: channels,
        };
        let inside = Factor {
            size: inside,
            stride: f.stride,
        };
        [over, inside]
    };
    dim.iter()
        .flat_map(|f| {
            if crossing(f) {
                halves(f).to_vec()
            } else {
                vec![*f]
            }
        })
        .filter(|f| f.size > 1)
        .collect()
}

/// The factors that step over rows of `channels` elements, and those that step inside a row.
pub(super) fn split(dim: &[Factor], channels: usize) -> (Vec<Factor>, Vec<Factor>) {
    refined(dim, channels)
        .iter()
        .partition(|f| f.stride >= channels)
}

fn size(factors: &[Factor]) -> usize {
    factors.iter().map(|f| f.size).product()
}

impl Seen {
    /// A whole value through a view.
    pub(super) fn value(value: ValueId, view: View) -> Seen {
        Seen {
            base: Base::Value(value),
            view,
        }
    }

    /// True when the view shows every element of the matrix exactly once.
    pub(super) fn is_whole(&self, values: &[Value]) -> bool {
        self.view
            .covers(self.base.len(values) * self.base.channels(values))
    }

    /// The value, if the matrix is one.
    pub(super) fn as_value(&self) -> Option<ValueId> {
        match self.base {
            Base::Value(v) => Some(v),
            Base::Rows(_) => None,
        }
    }

    /// The same tensor over a matrix that lists its rows in the tensor's own order: afterwards row strides are those of a row-major
    /// tensor. `None` when a dimension steps over rows inside a step over columns.
    pub(super) fn in_order(&self, values: &[Value]) -> Option<Seen> {
        let channels = self.base.channels(values);
        let rows = self.base.rows(values);
        let mut numbers = vec![self.view.offset / channels];
        for dim in &self.view.dims {
            let (over, inside) = split(dim, channels);
            let outer_first = refined(dim, channels).starts_with(&over);
            if !outer_first
                || over.iter().any(|f| f.stride % channels != 0)
                || inside.iter().any(|f| f.size * f.stride > channels)
            {
                return None;
            }
            for f in over {
                let step = f.stride / channels;
                numbers = numbers
                    .iter()
                    .flat_map(|n| (0..f.size).map(move |i| n + i * step))
                    .collect();
            }
        }
        let index: Option<Vec<(u32, u32)>> = numbers
            .into_iter()
            .map(|n| rows.index.get(n).copied())
            .collect();
        let base = Rows {
            channels,
            parts: rows.parts.clone(),
            index: index?,
        };
        let mut stride = channels;
        let mut dims = vec![];
        for dim in self.view.dims.iter().rev() {
            let (over, mut factors) = split(dim, channels);
            let n = size(&over);
            factors.insert(0, Factor { size: n, stride });
            stride *= n;
            dims.insert(0, factors);
        }
        Some(Seen {
            base: base.into_base(values),
            view: View::new(self.view.offset % channels, dims),
        })
    }

    /// A constant as rows, laid out like `like` inside a row; its shape may differ in the dimensions that step over rows.
    pub(super) fn constant(tensor: &Tensor, like: &View, channels: usize) -> Option<Seen> {
        if tensor.shape.len() != like.dims.len() {
            return None;
        }
        let mut stride = channels;
        let mut dims = vec![];
        for (size_here, dim) in tensor.shape.iter().zip(&like.dims).rev() {
            let (_, mut factors) = split(dim, channels);
            let inside = size(&factors);
            if size_here % inside != 0 {
                return None;
            }
            let n = size_here / inside;
            factors.insert(0, Factor { size: n, stride });
            stride *= n;
            dims.insert(0, factors);
        }
        let view = View::new(0, dims);
        if !view.covers(tensor.data.len()) {
            return None;
        }
        let data: Arc<[f32]> = view.gather(&tensor.data).into();
        let index = (0..(data.len() / channels) as u32)
            .map(|r| (0, r))
            .collect();
        let base = Base::Rows(Arc::new(Rows {
            channels,
            parts: vec![Part::Constant(data)],
            index,
        }));
        Some(Seen { base, view })
    }

    /// Tensors one after the other along `axis`. Along the axis of the channels, rows are put side by side: the result's channel axis
    /// steps over several rows of the matrix.
    pub(super) fn concat(pieces: &[Seen], axis: usize, values: &[Value]) -> Option<Seen> {
        let channels = pieces.first()?.base.channels(values);
        let pieces: Option<Vec<Seen>> = pieces.iter().map(|p| p.in_order(values)).collect();
        let pieces = pieces?;
        let inside = |p: &Seen| -> Vec<Vec<Factor>> {
            p.view.dims.iter().map(|d| split(d, channels).1).collect()
        };
        let over = |p: &Seen, d: usize| size(&split(&p.view.dims[d], channels).0);
        let template = inside(&pieces[0]);
        let whole_row = template.get(axis)?.is_empty()
            || *template.get(axis)? == View::strided(&[(channels, 1)]).dims.concat();
        let alike = pieces.iter().all(|p| {
            p.base.channels(values) == channels
                && p.view.offset == 0
                && inside(p) == template
                && (0..template.len()).all(|d| d == axis || over(p, d) == over(&pieces[0], d))
        });
        if !alike || !whole_row {
            return None;
        }
        let mut parts: Vec<Part> = vec![];
        let mut lists: Vec<Vec<(u32, u32)>> = vec![];
        for piece in &pieces {
            let rows = piece.base.rows(values);
            let number: Vec<u32> = rows
                .parts
                .iter()
                .map(|part| {
                    let known = parts.iter().position(|p| p == part);
                    known.unwrap_or_else(|| {
                        parts.push(part.clone());
                        parts.len() - 1
                    }) as u32
                })
                .collect();
            // The view starts at 0 and lists rows in order, so its rows are the matrix's first ones.
            let len: usize = (0..template.len()).map(|d| over(piece, d)).product();
            let index = rows.index.get(..len)?;
            lists.push(
                index
                    .iter()
                    .map(|(p, r)| (number[*p as usize], *r))
                    .collect(),
            );
        }
        let outer: usize = (0..axis).map(|d| over(&pieces[0], d)).product();
        let mut index = vec![];
        for block in 0..outer {
            for list in &lists {
                let len = list.len() / outer;
                index.extend_from_slice(&list[block * len..][..len]);
            }
        }
        let total: usize = pieces.iter().map(|p| over(p, axis)).sum();
        let mut stride = channels;
        let mut dims = vec![];
        for (d, mut factors) in template.into_iter().enumerate().rev() {
            let n = if d == axis {
                total
            } else {
                over(&pieces[0], d)
            };
            factors.insert(0, Factor { size: n, stride });
            stride *= n;
            dims.insert(0, factors);
        }
        let rows = Rows {
            channels,
            parts,
            index,
        };
        Some(Seen {
            base: rows.into_base(values),
            view: View::new(0, dims),
        })
    }

    /// Entries of `axis` by number, in place of the axis.
    pub(super) fn gather(&self, axis: usize, entries: &[usize], values: &[Value]) -> Option<Seen> {
        let channels = self.base.channels(values);
        let this = self.in_order(values)?;
        let (over, inside) = split(this.view.dims.get(axis)?, channels);
        if !inside.is_empty() {
            return None;
        }
        let n = size(&over);
        let all: Vec<usize> = this
            .view
            .dims
            .iter()
            .map(|d| size(&split(d, channels).0))
            .collect();
        let outer: usize = all[..axis].iter().product();
        let inner: usize = all[axis + 1..].iter().product();
        let rows = this.base.rows(values);
        let mut index = vec![];
        for block in 0..outer {
            for entry in entries {
                if *entry >= n {
                    return None;
                }
                index.extend_from_slice(
                    rows.index
                        .get((block * n + entry) * inner..)?
                        .get(..inner)?,
                );
            }
        }
        let mut stride = channels;
        let mut dims = vec![];
        for (d, dim) in this.view.dims.iter().enumerate().rev() {
            let mut factors = split(dim, channels).1;
            let n = if d == axis { entries.len() } else { all[d] };
            factors.insert(0, Factor { size: n, stride });
            stride *= n;
            dims.insert(0, factors);
        }
        let rows = Rows {
            channels,
            parts: rows.parts.clone(),
            index,
        };
        Some(Seen {
            base: rows.into_base(values),
            view: View::new(this.view.offset, dims),
        })
    }
}
