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

/// Steps over rows of each dimension.
fn counts(view: &View, channels: usize) -> Vec<usize> {
    let over = |d: &Vec<Factor>| size(&split(d, channels).0);
    view.dims.iter().map(over).collect()
}

/// What each dimension steps over inside a row.
fn insides(view: &View, channels: usize) -> Vec<Vec<Factor>> {
    view.dims.iter().map(|d| split(d, channels).1).collect()
}

/// A view whose dimensions step over `counts` rows, in row-major order, and `inside` them as given.
fn in_rows(offset: usize, counts: &[usize], inside: &[Vec<Factor>], channels: usize) -> View {
    let mut stride = channels;
    let mut dims = vec![];
    for (size, inside) in counts.iter().zip(inside).rev() {
        let mut factors = vec![Factor {
            size: *size,
            stride,
        }];
        factors.extend(inside);
        stride *= size;
        dims.insert(0, factors);
    }
    View::new(offset, dims)
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
        let view = in_rows(
            self.view.offset % channels,
            &counts(&self.view, channels),
            &insides(&self.view, channels),
            channels,
        );
        Some(Seen {
            base: base.into_base(values),
            view,
        })
    }

    /// A constant as rows, laid out like `like` inside a row; its shape may differ in the dimensions that step over rows.
    pub(super) fn constant(tensor: &Tensor, like: &View, channels: usize) -> Option<Seen> {
        if tensor.shape.len() != like.dims.len() {
            return None;
        }
        let inside = insides(like, channels);
        let count = |(n, inside): (&usize, &Vec<Factor>)| {
            let inside = size(inside);
            n.is_multiple_of(inside).then(|| n / inside)
        };
        let counts: Option<Vec<usize>> = tensor.shape.iter().zip(&inside).map(count).collect();
        let view = in_rows(0, &counts?, &inside, channels);
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
        let inside = insides(&pieces[0].view, channels);
        let whole_rows = inside.get(axis)?.is_empty()
            || *inside.get(axis)? == View::strided(&[(channels, 1)]).dims.concat();
        let mut total = counts(&pieces[0].view, channels);
        total[axis] = 0;
        for piece in &pieces {
            let mut counts = counts(&piece.view, channels);
            let along = std::mem::take(&mut counts[axis]);
            let mut others = total.clone();
            others[axis] = 0;
            let alike = piece.base.channels(values) == channels
                && piece.view.offset == 0
                && insides(&piece.view, channels) == inside
                && counts == others;
            if !alike || !whole_rows {
                return None;
            }
            total[axis] += along;
        }
        let (parts, lists) = joined_parts(&pieces, values);
        let outer: usize = total[..axis].iter().product();
        let block = |i: usize| {
            lists.iter().flat_map(move |list: &Vec<(u32, u32)>| {
                let len = list.len() / outer;
                list[i * len..][..len].to_vec()
            })
        };
        let rows = Rows {
            channels,
            parts,
            index: (0..outer).flat_map(block).collect(),
        };
        Some(Seen {
            base: rows.into_base(values),
            view: in_rows(0, &total, &inside, channels),
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
        let mut counts = counts(&this.view, channels);
        let outer: usize = counts[..axis].iter().product();
        let inner: usize = counts[axis + 1..].iter().product();
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
        counts[axis] = entries.len();
        let view = in_rows(
            this.view.offset,
            &counts,
            &insides(&this.view, channels),
            channels,
        );
        let rows = Rows {
            channels,
            parts: rows.parts.clone(),
            index,
        };
        Some(Seen {
            base: rows.into_base(values),
            view,
        })
    }
}

/// The parts of several matrices without repeats, and each matrix's rows as rows of those.
fn joined_parts(pieces: &[Seen], values: &[Value]) -> (Vec<Part>, Vec<Vec<(u32, u32)>>) {
    let mut parts: Vec<Part> = vec![];
    let mut lists = vec![];
    for piece in pieces {
        let rows = piece.base.rows(values);
        let number = |part: &Part| {
            let known = parts.iter().position(|p| p == part);
            known.unwrap_or_else(|| {
                parts.push(part.clone());
                parts.len() - 1
            }) as u32
        };
        let numbers: Vec<u32> = rows.parts.iter().map(number).collect();
        let row = |(p, r): &(u32, u32)| (numbers[*p as usize], *r);
        lists.push(rows.index.iter().map(row).collect());
    }
    (parts, lists)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn values(sizes: &[(usize, usize)]) -> Vec<Value> {
        let value = |(rows, channels): &(usize, usize)| Value {
            name: String::new(),
            rows: *rows,
            channels: *channels,
            source: None,
        };
        sizes.iter().map(value).collect()
    }

    /// `1×H×W×C` over a value.
    fn map(value: ValueId, h: usize, w: usize, c: usize) -> Seen {
        Seen::value(value, View::strided(&[(1, 0), (h, w * c), (w, c), (c, 1)]))
    }

    fn slice(seen: &Seen, axis: usize, start: usize, end: usize, values: &[Value]) -> Option<Seen> {
        let seen = seen.in_order(values)?;
        Some(Seen {
            view: seen.view.slice(axis, start, end)?,
            base: seen.base,
        })
    }

    /// torch.roll by −`by` along an axis of `n`.
    fn roll(seen: &Seen, axis: usize, by: usize, n: usize, values: &[Value]) -> Option<Seen> {
        let pieces = [
            slice(seen, axis, by, n, values)?,
            slice(seen, axis, 0, by, values)?,
        ];
        Seen::concat(&pieces, axis, values)
    }

    #[test]
    fn a_roll_lists_rows_and_the_roll_back_is_the_value_again() {
        let values = values(&[(12, 5)]);
        let rolled = roll(&map(0, 3, 4, 5), 1, 1, 3, &values)
            .and_then(|s| roll(&s, 2, 3, 4, &values))
            .expect("slices of whole rows");
        let first: Vec<u32> = rolled.base.rows(&values).index[..4]
            .iter()
            .map(|(_, r)| *r)
            .collect();
        assert_eq!(first, [7, 4, 5, 6], "row 1 of the map, from column 3");
        let back = roll(&rolled, 1, 2, 3, &values).and_then(|s| roll(&s, 2, 1, 4, &values));
        assert_eq!(back, Some(map(0, 3, 4, 5)));
    }

    #[test]
    fn patches_side_by_side_step_over_rows_in_the_channel_axis() {
        let values = values(&[(16, 8)]);
        let map = map(0, 4, 4, 8);
        let corner = |y: usize, x: usize| {
            let view = map.view.step(1, y, 2).and_then(|v| v.step(2, x, 2));
            view.map(|view| Seen {
                base: map.base.clone(),
                view,
            })
        };
        let corners = [(0, 0), (1, 0), (0, 1), (1, 1)].map(|(y, x)| corner(y, x));
        let corners: Vec<Seen> = corners.into_iter().flatten().collect();
        let merged = Seen::concat(&corners, 3, &values).expect("whole channel axes");
        assert_eq!(merged.view.shape(), [1, 2, 2, 32]);
        assert!(merged.view.covers(16 * 8));
        let rows = merged.base.rows(&values);
        let first: Vec<u32> = rows.index[..8].iter().map(|(_, r)| *r).collect();
        assert_eq!(
            first,
            [0, 4, 1, 5, 2, 6, 3, 7],
            "Swin's order (0,0), (1,0), (0,1), (1,1)"
        );
    }

    #[test]
    fn tokens_stay_constant_in_front_of_every_window() -> Result<(), String> {
        let values = values(&[(8, 2)]);
        let windows = Seen::value(0, View::strided(&[(2, 8), (4, 2), (2, 1)]));
        let tokens = Tensor {
            shape: vec![2, 1, 2],
            data: vec![1., 2., 3., 4.],
        };
        let tokens = Seen::constant(&tokens, &windows.view, 2).ok_or("one row per window")?;
        let both = Seen::concat(&[tokens, windows.clone()], 1, &values).ok_or("rows alike")?;
        assert_eq!(both.view.shape(), [2, 5, 2]);
        let rows = both.base.rows(&values);
        assert_eq!(rows.parts[0], Part::Constant([1., 2., 3., 4.].into()));
        assert_eq!(rows.index[5], (0, 1), "the second window's token");
        assert_eq!(rows.index[6], (1, 4), "its first pixel");
        let pixels = slice(&both, 1, 1, 5, &values).and_then(|s| s.in_order(&values));
        assert_eq!(pixels, Some(windows), "without the tokens, the value again");
        Ok(())
    }

    #[test]
    fn rows_of_other_widths_or_cut_columns_do_not_join() {
        let values = values(&[(4, 6), (4, 3)]);
        let whole = |v: ValueId, c: usize| Seen::value(v, View::strided(&[(4, c), (c, 1)]));
        assert_eq!(Seen::concat(&[whole(0, 6), whole(1, 3)], 0, &values), None);
        let half = Seen::value(0, View::strided(&[(4, 6), (3, 1)]));
        assert_eq!(Seen::concat(&[half.clone(), half], 1, &values), None);
    }

    /// Elements of a tensor as (value, row, column), the slow way: what lists of rows must keep.
    fn elements(seen: &Seen, values: &[Value]) -> Vec<(u32, u32, usize)> {
        let channels = seen.base.channels(values);
        let rows = seen.base.rows(values);
        let element = |offset: usize| {
            let (part, row) = rows.index[offset / channels];
            (part, row, offset % channels)
        };
        seen.view.offsets().into_iter().map(element).collect()
    }

    #[test]
    fn listing_rows_in_order_changes_no_element() {
        let values = values(&[(24, 6)]);
        let views = [
            // NCHW; windows of 2×3; heads first; every second column.
            View::strided(&[(1, 0), (6, 1), (4, 36), (6, 6)]),
            View::strided(&[(2, 72), (2, 18), (2, 36), (3, 6), (6, 1)]),
            View::strided(&[(2, 3), (24, 6), (3, 1)]),
            View::strided(&[(4, 36), (3, 12), (6, 1)]),
        ];
        for view in views {
            let seen = Seen::value(0, view);
            let listed = seen.in_order(&values).expect("rows and columns apart");
            assert_eq!(elements(&seen, &values), elements(&listed, &values));
            assert_eq!(listed.in_order(&values), Some(listed.clone()), "{listed:?}");
        }
    }
}
