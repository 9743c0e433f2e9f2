//! How a tensor of the source graph lies over a value of the IR.
//!
//! The IR keeps every activation in one canonical layout, `[rows][channels]` with rows in raster order, and reshapes,
//! transposes and slices of the source graph never move data: they only change the *view*. A view has one list of
//! `(size, stride)` factors per dimension, outermost factor first; the element at some index lies at
//! `offset + Σ digit·stride`, where the index of each dimension is written in the mixed radix of its factors. For example
//! `1×C×H×W` over `[H·W][C]` is `[[], [(C, 1)], [(H, W·C)], [(W, C)]]`, and an axis of size 1 has no factor at all.

/// One factor of a dimension.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Factor {
    /// Number of steps, at least 2.
    pub size: usize,
    /// Elements per step in the value.
    pub stride: usize,
}

/// Dimensions of a source tensor, as factors over a value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct View {
    /// First element, in elements from the start of the value.
    pub offset: usize,
    /// Factors per dimension, outermost first, merged as far as they merge.
    pub dims: Vec<Vec<Factor>>,
}

impl View {
    /// A view with these factors per dimension, which are brought to normal form.
    pub fn new(offset: usize, dims: Vec<Vec<Factor>>) -> View {
        let dims = dims.into_iter().map(normal).collect();
        View { offset, dims }
    }

    /// A view with one factor per dimension; sizes of 1 vanish.
    pub fn strided(dims: &[(usize, usize)]) -> View {
        let dims = dims
            .iter()
            .map(|&(size, stride)| normal(vec![Factor { size, stride }]))
            .collect();
        View { offset: 0, dims }
    }

    /// The size of each dimension.
    pub fn shape(&self) -> Vec<usize> {
        self.dims
            .iter()
            .map(|d| d.iter().map(|f| f.size).product())
            .collect()
    }

    /// Replaces the dimensions `from`, which start at axis `at`, by `to`; `None` when a new boundary cuts a factor unevenly.
    pub fn reshape(&self, at: usize, from: usize, to: &[usize]) -> Option<View> {
        let mut factors: Vec<Factor> = normal(self.dims.get(at..at + from)?.concat());
        factors.reverse();
        let mut split = vec![];
        for &size in to {
            split.push(take(&mut factors, size)?);
        }
        if !factors.is_empty() {
            return None;
        }
        let mut dims = self.dims.clone();
        dims.splice(at..at + from, split);
        Some(View {
            offset: self.offset,
            dims,
        })
    }

    /// Moves axis `from` to position `to`.
    pub fn move_axis(&self, from: usize, to: usize) -> Option<View> {
        let mut dims = self.dims.clone();
        if from >= dims.len() || to >= dims.len() {
            return None;
        }
        let dim = dims.remove(from);
        dims.insert(to, dim);
        Some(View {
            offset: self.offset,
            dims,
        })
    }

    /// Inserts an axis of size 1.
    pub fn add_axis(&self, axis: usize) -> Option<View> {
        let mut dims = self.dims.clone();
        (axis <= dims.len()).then(|| dims.insert(axis, vec![]))?;
        Some(View {
            offset: self.offset,
            dims,
        })
    }

    /// Removes an axis of size 1.
    pub fn remove_axis(&self, axis: usize) -> Option<View> {
        let mut dims = self.dims.clone();
        (dims.get(axis)?.is_empty()).then(|| dims.remove(axis))?;
        Some(View {
            offset: self.offset,
            dims,
        })
    }

    /// Keeps `start..end` of an axis that is one factor, or all of any axis.
    pub fn slice(&self, axis: usize, start: usize, end: usize) -> Option<View> {
        let dim = self.dims.get(axis)?;
        if start == 0 && end == dim.iter().map(|f| f.size).product::<usize>() {
            return Some(self.clone());
        }
        let [factor] = dim.as_slice() else {
            return None;
        };
        let mut sliced = self.clone();
        sliced.offset += start * factor.stride;
        sliced.dims[axis] = normal(vec![Factor {
            size: end.checked_sub(start)?,
            stride: factor.stride,
        }]);
        Some(sliced)
    }

    /// Every `stride`-th entry of an axis that is one factor, from entry `first` on.
    pub fn step(&self, axis: usize, first: usize, stride: usize) -> Option<View> {
        let [factor] = self.dims.get(axis)?.as_slice() else {
            return None;
        };
        let mut stepped = self.clone();
        stepped.offset += first * factor.stride;
        stepped.dims[axis] = normal(vec![Factor {
            size: factor.size.checked_sub(first)?.div_ceil(stride),
            stride: factor.stride * stride,
        }]);
        Some(stepped)
    }

    /// The factors of several dimensions together, largest stride first and merged: what these axes cover of the value,
    /// whatever order the source keeps them in.
    pub fn cover(&self, axes: &[usize]) -> Vec<Factor> {
        let mut factors: Vec<Factor> = axes.iter().flat_map(|a| self.dims[*a].clone()).collect();
        factors.sort_by_key(|f| std::cmp::Reverse(f.stride));
        normal(factors)
    }

    /// True when the view shows every element of a value of `len` elements exactly once.
    pub fn covers(&self, len: usize) -> bool {
        let all: Vec<usize> = (0..self.dims.len()).collect();
        let cover = self.cover(&all);
        self.offset == 0
            && match cover.as_slice() {
                [] => len == 1,
                [one] => {
                    *one == Factor {
                        size: len,
                        stride: 1,
                    }
                }
                _ => false,
            }
    }

    /// Offsets in the value of every element of the source tensor, in the tensor's row-major order.
    pub fn offsets(&self) -> Vec<usize> {
        let mut offsets = vec![self.offset];
        for factor in self.dims.iter().flatten() {
            let mut next = Vec::with_capacity(offsets.len() * factor.size);
            for base in &offsets {
                next.extend((0..factor.size).map(|i| base + i * factor.stride));
            }
            offsets = next;
        }
        offsets
    }

    /// The source tensor's data, rearranged into the value's canonical layout.
    pub fn gather(&self, data: &[f32]) -> Vec<f32> {
        let mut value = vec![0.0; data.len()];
        for (x, offset) in data.iter().zip(self.offsets()) {
            if let Some(slot) = value.get_mut(offset) {
                *slot = *x;
            }
        }
        value
    }

    /// The value, rearranged into the source tensor's order; the inverse of [`View::gather`].
    pub fn scatter(&self, value: &[f32]) -> Vec<f32> {
        self.offsets()
            .into_iter()
            .filter_map(|o| value.get(o).copied())
            .collect()
    }
}

/// Drops factors of size 1 and merges neighbours that are one run.
fn normal(factors: Vec<Factor>) -> Vec<Factor> {
    let mut out: Vec<Factor> = vec![];
    for f in factors.into_iter().filter(|f| f.size > 1) {
        match out.last_mut() {
            Some(last) if last.stride == f.size * f.stride => {
                last.size *= f.size;
                last.stride = f.stride;
            }
            _ => out.push(f),
        }
    }
    out
}

/// Takes the outermost `size` steps off `factors` (innermost first), splitting a factor where the boundary falls inside it.
fn take(factors: &mut Vec<Factor>, mut size: usize) -> Option<Vec<Factor>> {
    let mut taken = vec![];
    while size > 1 {
        let f = factors.pop()?;
        if size.is_multiple_of(f.size) {
            taken.push(f);
            size /= f.size;
        } else if f.size.is_multiple_of(size) {
            let inner = f.size / size;
            taken.push(Factor {
                size,
                stride: f.stride * inner,
            });
            factors.push(Factor {
                size: inner,
                stride: f.stride,
            });
            size = 1;
        } else {
            return None;
        }
    }
    Some(normal(taken))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `1×C×H×W` over `[H·W][C]`.
    fn nchw(c: usize, h: usize, w: usize) -> View {
        View::strided(&[(1, 0), (c, 1), (h, w * c), (w, c)])
    }

    #[test]
    fn nchw_to_tokens_and_back_is_the_identity() {
        let v = nchw(6, 4, 5);
        let tokens = v.reshape(2, 2, &[20]).and_then(|v| v.move_axis(1, 2));
        assert_eq!(tokens, Some(View::strided(&[(1, 0), (20, 6), (6, 1)])));
        assert!(tokens.clone().is_some_and(|v| v.covers(120)));
        let back = tokens
            .and_then(|v| v.move_axis(1, 2))
            .and_then(|v| v.reshape(2, 1, &[4, 5]));
        assert_eq!(back, Some(v));
    }

    #[test]
    fn heads_split_out_of_channels() {
        let v = View::strided(&[(49, 320), (320, 1)]);
        let split = v.reshape(1, 1, &[2, 5, 32]).expect("2·5·32 = 320");
        assert_eq!(
            split,
            View::strided(&[(49, 320), (2, 160), (5, 32), (32, 1)])
        );
        let values = split.slice(1, 1, 2).expect("one factor");
        assert_eq!(values.offset, 160);
        assert_eq!(values.shape(), [49, 1, 5, 32]);
        assert!(!values.covers(49 * 320));
        assert_eq!(
            values.slice(1, 0, 1),
            Some(values),
            "all of an axis of size 1"
        );
    }

    #[test]
    fn a_boundary_that_cuts_a_factor_unevenly_is_refused() {
        assert_eq!(
            View::strided(&[(6, 4), (4, 1)])
                .reshape(0, 2, &[8, 3])
                .map(|v| v.shape()),
            Some(vec![8, 3])
        );
        assert_eq!(
            View::strided(&[(6, 1), (4, 6)]).reshape(0, 2, &[8, 3]),
            None
        );
    }

    #[test]
    fn gather_undoes_scatter() {
        let v = nchw(3, 2, 2);
        let value: Vec<f32> = (0..12u8).map(f32::from).collect();
        let seen = v.scatter(&value);
        assert_eq!(&seen[..4], [0.0, 3.0, 6.0, 9.0]);
        assert_eq!(v.gather(&seen), value);
    }
}
