//! Constants added to attention logits: relative position bias and masks.

use std::sync::Arc;

use super::space::split_space;
use crate::frontend::Tensor;
use crate::ir::{AttentionShape, Bias};
use crate::lower::state::{Addend, Scores};
use crate::view::View;

/// Masks add −100 (Swin) or minus infinity; nothing above this is taken for one.
const MASKED: f32 = -20.0;

/// A constant that broadcasts over the logits, reduced to the dimensions it varies over.
pub(super) fn addend(s: &Scores, constant: &Tensor) -> Option<Addend> {
    if constant.shape.len() != s.view.dims.len() {
        return None;
    }
    let space = s.space();
    let mut varies = [false; 4];
    let mut dims = vec![];
    for (size, dim) in constant.shape.iter().zip(&s.view.dims) {
        let n: usize = dim.iter().map(|f| f.size).product();
        if *size != 1 && *size != n {
            return None;
        }
        if *size == 1 {
            dims.push(vec![]);
            continue;
        }
        for f in split_space(dim, space) {
            varies[f.axis] = true;
        }
        dims.push(dim.clone());
    }
    let sizes: Vec<usize> = (0..4)
        .map(|i| if varies[i] { space[i] } else { 1 })
        .collect();
    if sizes.iter().product::<usize>() != constant.data.len() {
        return None;
    }
    let mut data = vec![0.0; constant.data.len()];
    let place = |offset: usize| -> usize {
        let (mut at, mut below) = (0, 1);
        let mut stride = 1;
        for axis in (0..4).rev() {
            if varies[axis] {
                at += offset / stride % space[axis] * below;
                below *= space[axis];
            }
            stride *= space[axis];
        }
        at
    };
    let view = View { offset: 0, dims };
    for (x, offset) in constant.data.iter().zip(view.offsets()) {
        *data.get_mut(place(offset))? = *x;
    }
    Some(Addend { varies, data })
}

pub(super) type BiasAndMask = (Option<Arc<Bias>>, Option<Arc<[u8]>>);

/// What was added to the logits: constants that do not vary over groups are a bias, the others a mask.
pub(super) fn bias_and_mask(s: &Scores, shape: &AttentionShape) -> Result<BiasAndMask, String> {
    let AttentionShape {
        heads,
        groups,
        queries,
        keys,
        ..
    } = *shape;
    let mut bias = vec![];
    let mut mask = vec![];
    for addend in &s.addends {
        let [over_groups, over_heads, ..] = addend.varies;
        if over_groups && over_heads && heads > 1 {
            return Err("a bias that differs between groups is not supported".into());
        }
        let (target, outer) = if over_groups {
            (&mut mask, groups)
        } else {
            (&mut bias, heads)
        };
        target.resize(outer * queries * keys, 0.0);
        let at = |o: usize, q: usize, k: usize| -> f32 {
            let (a, b) = if s.keys_are_b { (q, k) } else { (k, q) };
            let (g, h) = if over_groups { (o, 0) } else { (0, o) };
            let mut index = 0;
            for (axis, digit) in [g, h, a, b].into_iter().enumerate() {
                if addend.varies[axis] {
                    index = index * s.space()[axis] + digit;
                }
            }
            addend.data[index]
        };
        let cells = target.iter_mut().enumerate();
        cells.for_each(|(i, x)| *x += at(i / (queries * keys), i / keys % queries, i % keys));
    }
    let bias = (!bias.is_empty()).then(|| Arc::new(relative_position(bias, shape)));
    let mask = if mask.is_empty() {
        None
    } else {
        labels(&mask, shape)?
    };
    Ok((bias, mask))
}

/// Swin's table, if the bias depends only on the relative position in a window (specs/swin.md §2.2).
fn relative_position(full: Vec<f32>, shape: &AttentionShape) -> Bias {
    let n = shape.queries;
    let windows = (1..=n).filter(|h| n.is_multiple_of(*h)).map(|h| [h, n / h]);
    let mut windows: Vec<[usize; 2]> = windows.collect();
    windows.sort_by_key(|[h, w]| h.abs_diff(*w));
    for window in windows.into_iter().filter(|_| n == shape.keys && n > 1) {
        if let Some(table) = window_table(&full, shape, window) {
            return Bias {
                table,
                window: Some(window),
            };
        }
    }
    Bias {
        table: full,
        window: None,
    }
}

fn window_table(full: &[f32], shape: &AttentionShape, [h, w]: [usize; 2]) -> Option<Vec<f32>> {
    let (n, entries) = (shape.queries, (2 * h - 1) * (2 * w - 1));
    let mut table = vec![None; shape.heads * entries];
    for (i, x) in full.iter().enumerate() {
        let (head, q, k) = (i / (n * n), i / n % n, i % n);
        let y = q / w + h - 1 - k / w;
        let column = q % w + w - 1 - k % w;
        let slot: &mut Option<f32> = &mut table[head * entries + y * (2 * w - 1) + column];
        if slot.is_some_and(|s| s.to_bits() != x.to_bits()) {
            return None;
        }
        *slot = Some(*x);
    }
    table.into_iter().collect()
}

/// One label per token such that tokens of the same label see each other: the mask must be 0 within and very negative between.
fn labels(mask: &[f32], shape: &AttentionShape) -> Result<Option<Arc<[u8]>>, String> {
    let refuse = || {
        "a mask on attention logits must separate the tokens of a group into classes that see only each other"
            .to_string()
    };
    let n = shape.queries;
    if n != shape.keys {
        return Err(refuse());
    }
    let mut labels = vec![];
    for group in mask.chunks(n * n) {
        let first = labels.len();
        let mut next = 0u8;
        for i in 0..n {
            let row = &group[i * n..][..n];
            let known = (0..i).find(|j| row[*j] > MASKED).map(|j| labels[first + j]);
            labels.push(match known {
                Some(label) => label,
                None => {
                    next = next.checked_add(1).ok_or_else(refuse)?;
                    next - 1
                }
            });
        }
        for (i, x) in group.iter().enumerate() {
            let same = labels[first + i / n] == labels[first + i % n];
            let fits = if same { *x == 0.0 } else { *x <= MASKED };
            if !fits {
                return Err(refuse());
            }
        }
    }
    Ok(labels.iter().any(|l| *l != 0).then(|| labels.into()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shape(groups: usize, heads: usize, n: usize) -> AttentionShape {
        AttentionShape {
            heads,
            head_dim: 1,
            groups,
            slots: 1,
            queries: n,
            keys: n,
        }
    }

    /// Swin's index of a pair of tokens, as specs/swin.md §2.2 checks it.
    fn index(i: usize, j: usize, m: usize) -> usize {
        (i / m + m - 1 - j / m) * (2 * m - 1) + (i % m + m - 1 - j % m)
    }

    #[test]
    fn a_table_that_was_spread_over_pairs_is_found_again() {
        let (m, heads) = (7, 3);
        let n = m * m;
        assert_eq!(
            [(0, 0), (0, 1), (1, 0), (0, 7), (0, 48), (48, 0)].map(|(i, j)| index(i, j, m)),
            [84, 83, 85, 71, 0, 168]
        );
        let table: Vec<f32> = (0..heads * 169).map(|i| i as f32).collect();
        let pair = |p: usize| table[p / (n * n) * 169 + index(p / n % n, p % n, m)];
        let full: Vec<f32> = (0..heads * n * n).map(pair).collect();
        let found = relative_position(full.clone(), &shape(64, heads, n));
        assert_eq!(found.window, Some([7, 7]));
        assert_eq!(found.table, table);
        let mut other = full;
        other[5] += 1.0;
        let kept = relative_position(other.clone(), &shape(64, heads, n));
        assert_eq!((kept.window, kept.table), (None, other), "one odd entry");
    }

    #[test]
    fn a_mask_of_classes_becomes_labels() {
        let classes = [[0u8, 0, 1, 1], [0, 1, 0, 2], [0, 0, 0, 0]];
        let mask: Vec<f32> = classes
            .iter()
            .flat_map(|c| {
                c.iter()
                    .flat_map(move |a| c.map(|b| if *a == b { 0.0 } else { -100.0 }))
            })
            .collect();
        let found = labels(&mask, &shape(3, 1, 4)).map(|l| l.map(|l| l.to_vec()));
        assert_eq!(found, Ok(Some(classes.concat())));
        let mut odd = mask;
        odd[2] = 0.0;
        assert!(labels(&odd, &shape(3, 1, 4)).is_err(), "not symmetric");
        assert_eq!(labels(&[0.0; 48], &shape(3, 1, 4)), Ok(None));
    }
}
