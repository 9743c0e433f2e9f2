//! The space of attention logits, `[groups][heads][a][b]`, and offsets along strided axes.

use crate::view::Factor;

/// A factor of a view over the space of logits: `size` steps of `step` along one of its four axes.
pub(super) struct SpaceFactor {
    pub(super) axis: usize,
    pub(super) size: usize,
    pub(super) step: usize,
}

/// Factors of a dimension by the axis of `[groups][heads][a][b]` that they step over.
pub(super) fn split_space(dim: &[Factor], space: [usize; 4]) -> Vec<SpaceFactor> {
    let mut out = vec![];
    for f in dim {
        // A merged factor may run over several axes: cut it at their boundaries, innermost first.
        let (mut left, mut stride, mut pieces) = (f.size, f.stride, vec![]);
        for axis in (0..4).rev() {
            let below: usize = space[axis + 1..].iter().product();
            let above = below * space[axis];
            if stride >= above || left == 1 || space[axis] == 1 {
                continue;
            }
            let size = left.min(above / stride);
            pieces.push(SpaceFactor {
                axis,
                size,
                step: stride / below,
            });
            left /= size;
            stride = above;
        }
        out.extend(pieces.into_iter().rev());
    }
    out
}

/// Writes what the entries of a dimension add to the offset (`list`) under the axes they step over; `None` unless the offsets are
/// sums of one share per axis.
pub(super) fn add_steps(
    offsets: &mut [Vec<usize>; 4],
    dim: &[Factor],
    space: [usize; 4],
    list: &[usize],
) -> Option<()> {
    let factors = split_space(dim, space);
    let digits = |mut entry: usize| -> Vec<(usize, usize)> {
        let mut digits = vec![];
        for f in factors.iter().rev() {
            digits.push((f.axis, entry % f.size * f.step));
            entry /= f.size;
        }
        digits
    };
    let mut shares = space.map(|n| vec![None; n]);
    for (entry, offset) in list.iter().enumerate() {
        let digits = digits(entry);
        for (axis, shares) in shares.iter_mut().enumerate() {
            if digits.iter().all(|(a, d)| *a == axis || *d == 0) {
                let along = digits.iter().filter(|(a, _)| *a == axis);
                let at: usize = along.map(|(_, d)| d).sum();
                *shares.get_mut(at)? = Some(*offset);
            }
        }
    }
    for (entry, offset) in list.iter().enumerate() {
        let mut at = [0; 4];
        digits(entry).iter().for_each(|(a, d)| at[*a] += d);
        let sum: usize = (0..4).filter_map(|axis| *shares[axis].get(at[axis])?).sum();
        if sum != *offset {
            return None;
        }
    }
    for (totals, shares) in offsets.iter_mut().zip(&shares) {
        for (total, share) in totals.iter_mut().zip(shares) {
            *total += share.unwrap_or(0);
        }
    }
    Some(())
}

/// Every offset that steps over `factors` reach from each of `from`.
pub(super) fn steps(from: &[usize], factors: &[Factor]) -> Vec<usize> {
    let mut offsets = from.to_vec();
    for f in factors {
        offsets = offsets
            .iter()
            .flat_map(|o| (0..f.size).map(move |i| o + i * f.stride))
            .collect();
    }
    offsets
}

/// The distance between neighbours, if it is always the same; 0 for one entry.
pub(super) fn even_step(offsets: &[usize]) -> Option<usize> {
    let step = match offsets {
        [a, b, ..] => b.checked_sub(*a)?,
        _ => 0,
    };
    let even = offsets
        .iter()
        .enumerate()
        .all(|(i, o)| *o == offsets[0] + i * step);
    even.then_some(step)
}
