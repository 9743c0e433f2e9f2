//! The range whose 255 steps lose the least information: TensorRT's rule (Migacz, "8-bit inference with TensorRT", GTC 2017).
//!
//! P is the distribution of what was seen, on a fine linear grid, with all that lies beyond the range at its ends. Q is what 255
//! equal steps leave of the part inside: its mass in each step spread evenly over the cells that hold something. The range with
//! the least Kullback-Leibler divergence of P from Q is taken. TensorRT shrinks a range of magnitudes; here both ends shrink
//! independently, since grids have zero points.

use super::descent;
use super::histogram::Histogram;

/// Cells of the fine grid over the range that was seen.
const CELLS: usize = 2048;
const STEPS: usize = 255;
/// Each end is moved in by so many cells at a time, at most as often as `SHRINKS`.
const SHRINK: usize = CELLS / 50;
const SHRINKS: usize = 35;

pub(super) fn range(histogram: &Histogram) -> [f32; 2] {
    let [low, high] = histogram.reach().map(f64::from);
    let cell = (high - low) / CELLS as f64;
    if cell <= f64::MIN_POSITIVE {
        return histogram.reach();
    }
    let cells = Cells::new(&linear(histogram, low, cell));
    // The cells that the range begins and ends with never pass zero.
    let zero = -low / cell;
    let last = [zero, CELLS as f64 - zero].map(|cells| SHRINKS.min(cells as usize / SHRINK));
    let cut = |[start, end]: [usize; 2]| [start * SHRINK, CELLS - end * SHRINK];
    let best = descent::least(last, |by| cells.divergence(cut(by)));
    cut(best).map(|at| (low + cell * at as f64) as f32)
}

/// The histogram on cells of equal width from `low` on: each bin's numbers are spread evenly over the cells it covers.
fn linear(histogram: &Histogram, low: f64, cell: f64) -> Vec<f64> {
    let mut cells = vec![0.0; CELLS];
    for bin in histogram.bins() {
        let place = |x: f64| ((x - low) / cell).clamp(0.0, CELLS as f64);
        let (a, b) = (place(bin.ends[0]), place(bin.ends[1]));
        let (a, b) = (a.min(b), a.max(b));
        let first = (a as usize).min(CELLS - 1);
        let last = (b.ceil() as usize).clamp(first + 1, CELLS);
        for (sum, index) in cells[first..last].iter_mut().zip(first..) {
            let inside = b.min(index as f64 + 1.0) - a.max(index as f64);
            let share = if b - a > 0.0 { inside / (b - a) } else { 1.0 };
            *sum += bin.count * share;
        }
    }
    cells
}

/// Sums over the first n cells, for every n.
struct Cells {
    counts: Vec<f64>,
    mass: Vec<f64>,
    /// Cells that hold something.
    filled: Vec<f64>,
    /// Σ count·ln count.
    information: Vec<f64>,
}

impl Cells {
    fn new(counts: &[f64]) -> Cells {
        let sums = |of: &dyn Fn(f64) -> f64| -> Vec<f64> {
            let mut sum = 0.0;
            let rest = counts.iter().map(|c| {
                sum += of(*c);
                sum
            });
            std::iter::once(0.0).chain(rest).collect()
        };
        Cells {
            counts: counts.to_vec(),
            mass: sums(&|c| c),
            filled: sums(&|c| f64::from(c > 0.0)),
            information: sums(&n_ln_n),
        }
    }

    /// D(P‖Q) in nats for the range of the cells `start..end`.
    fn divergence(&self, [start, end]: [usize; 2]) -> f64 {
        let total = self.mass[CELLS];
        let within = self.mass[end] - self.mass[start];
        if within <= 0.0 {
            return f64::INFINITY;
        }
        let outside = [self.mass[start], total - self.mass[end]];
        // The cells at the ends hold what lies beyond them as well.
        let at_end =
            |cell: usize, more: f64| n_ln_n(self.counts[cell] + more) - n_ln_n(self.counts[cell]);
        let mut divergence = self.information[end] - self.information[start]
            + at_end(start, outside[0])
            + at_end(end - 1, outside[1]);
        let edge = |step: usize| start + step * (end - start) / STEPS;
        for step in 0..STEPS {
            let (a, b) = (edge(step), edge(step + 1));
            let mass = self.mass[b] - self.mass[a];
            let more = if step == 0 { outside[0] } else { 0.0 }
                + if step + 1 == STEPS { outside[1] } else { 0.0 };
            if mass + more > 0.0 {
                // Half a number where Q would have nothing, but P has.
                let even = (mass / (self.filled[b] - self.filled[a]).max(1.0)).max(0.5);
                divergence -= (mass + more) * even.ln();
            }
        }
        divergence / total - total.ln() + within.ln()
    }
}

fn n_ln_n(n: f64) -> f64 {
    if n > 0.0 { n * n.ln() } else { 0.0 }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::calibrate::histogram::tests::of;

    /// The definition, cell by cell.
    fn slowly(counts: &[f64], start: usize, end: usize) -> f64 {
        let total: f64 = counts.iter().sum();
        let mut p = counts[start..end].to_vec();
        p[0] += counts[..start].iter().sum::<f64>();
        p[end - start - 1] += counts[end..].iter().sum::<f64>();
        let within: f64 = counts[start..end].iter().sum();
        let mut divergence = 0.0;
        for step in 0..STEPS {
            let edge = |step: usize| step * (end - start) / STEPS;
            let inside = &counts[start..end][edge(step)..edge(step + 1)];
            let filled = inside.iter().filter(|c| **c > 0.0).count().max(1);
            let even = (inside.iter().sum::<f64>() / filled as f64).max(0.5);
            for p in p[edge(step)..edge(step + 1)].iter().filter(|p| **p > 0.0) {
                divergence += p / total * (p / total / (even / within)).ln();
            }
        }
        divergence
    }

    #[test]
    fn sums_give_what_the_definition_gives() {
        let counts: Vec<f64> = (0..CELLS).map(|i| ((i * i) % 97) as f64).collect();
        let cells = Cells::new(&counts);
        for (start, end) in [(0, CELLS), (40, CELLS), (0, 900), (120, 1500)] {
            let (fast, slow) = (cells.divergence([start, end]), slowly(&counts, start, end));
            assert!((fast - slow).abs() < 1e-9, "{start}..{end}: {fast} {slow}");
        }
    }

    #[test]
    fn equal_counts_lose_nothing_and_two_unequal_ones_what_is_computed_by_hand() {
        // All cells alike: spread evenly they are the same again.
        assert!(Cells::new(&vec![3.0; CELLS]).divergence([0, CELLS]).abs() < 1e-12);
        // Two cells of one step, 1 and 3 of 4: Q has 2 and 2. D = ¼·ln(½) + ¾·ln(1½).
        let mut counts = vec![0.0; CELLS];
        (counts[0], counts[1]) = (1.0, 3.0);
        let by_hand = 0.25 * 0.5f64.ln() + 0.75 * 1.5f64.ln();
        assert!((Cells::new(&counts).divergence([0, CELLS]) - by_hand).abs() < 1e-12);
    }

    #[test]
    fn mass_is_kept_on_the_linear_grid_and_a_far_outlier_is_clipped() {
        let mut numbers: Vec<f32> = (0..60_000u32)
            .map(|i| ((i % 2000) as f32 - 1000.0) / 1000.0)
            .collect();
        numbers.push(4.0);
        let h = of(&numbers);
        let [low, high] = h.reach().map(f64::from);
        let cells = linear(&h, low, (high - low) / CELLS as f64);
        assert!((cells.iter().sum::<f64>() - 60_001.0).abs() < 1e-6);
        assert!(range(&h)[1] < 2.0, "{:?}", range(&h));
        assert_eq!(range(&of(&[0.0])), [0.0, 0.0]);
    }
}
