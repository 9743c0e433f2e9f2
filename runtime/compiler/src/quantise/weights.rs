//! Integer weights, biases and requantisation factors.

use vitlet_kernels::{Gemm, Output, ParamError, Requantise, pack, packed_len, padded_n};

use super::grid::Grid;
use crate::error::CompileError;

/// Integers of a layer with weights, in the kernels' layout.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Integers {
    /// Inputs per output.
    depth: usize,
    /// Outputs, without padding.
    outputs: usize,
    pub(super) weights: Vec<i8>,
    pub(super) bias: Vec<i32>,
    pub(super) scale: Vec<f32>,
}

impl Integers {
    /// Bias and scale, as the kernels take them.
    pub(super) fn requantise<'i>(
        &'i self,
        output: Output<'i>,
    ) -> Result<Requantise<'i>, ParamError> {
        Requantise::new(&self.bias, &self.scale, output)
    }

    /// The matrix product, of integers made by [`gemm`].
    pub(super) fn gemm<'i>(&'i self, output: Output<'i>) -> Result<Gemm<'i>, ParamError> {
        Gemm::new(
            self.depth,
            self.outputs,
            &self.weights,
            self.requantise(output)?,
        )
    }
}

/// Rows × inputs of f32 weights with their bias: one row per output channel.
pub(super) struct Matrix<'a> {
    /// For messages.
    pub(super) name: &'a str,
    /// `row(n)` is `weights[n·depth..][..depth]`; input k belongs to input channel k mod channels.
    pub(super) weights: &'a [f32],
    pub(super) bias: &'a [f32],
    /// Input channels.
    pub(super) channels: usize,
    /// How many input rows are summed before the product: more than one for the pooled head.
    pub(super) pooled: usize,
    pub(super) steps: Steps,
}

impl Matrix<'_> {
    /// Each row's weights with the scales of the input in them, and its bias.
    fn folded(&self, input: &Grid) -> Vec<(Vec<f64>, f64)> {
        let depth = self.weights.len() / self.bias.len().max(1);
        let folded = |(row, bias): (&[f32], &f32)| {
            let scaled = |(k, w): (usize, &f32)| f64::from(*w) * input.scale(k % self.channels);
            let row: Vec<f64> = row.iter().enumerate().map(scaled).collect();
            (row, f64::from(*bias) * self.pooled as f64)
        };
        let rows = self.weights.chunks(depth.max(1)).zip(self.bias);
        rows.map(folded).collect()
    }

    /// Each row's integer weights, and what one unit of its accumulator stands for.
    pub(super) fn integers(&self, input: &Grid) -> Vec<(Vec<i8>, f64)> {
        self.steps.quantise(&self.folded(input))
    }
}

/// How many steps the weights of a layer have.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Steps {
    /// One per output channel, each the best for it.
    PerChannel,
    /// One, for the largest weight: naive.
    PerTensor,
}

impl Steps {
    /// Integer weights of rows, each with its bias, and the step of each.
    fn quantise(self, rows: &[(Vec<f64>, f64)]) -> Vec<(Vec<i8>, f64)> {
        let common = rows
            .iter()
            .map(|(row, bias)| top(row).max(127.0 * smallest_step(*bias)));
        let common = common.fold(0.0, f64::max) / 127.0;
        let quantised = |(row, bias): &(Vec<f64>, f64)| {
            let step = match self {
                Steps::PerChannel => best_step(row, *bias),
                Steps::PerTensor => common,
            };
            (on_grid(row, step).map(|q| q as i8).collect(), step)
        };
        rows.iter().map(quantised).collect()
    }
}

/// Quantises a GEMM: s8 weights per output channel, packed, padded.
pub(super) fn gemm(
    matrix: &Matrix<'_>,
    input: &Grid,
    output: &Grid,
) -> Result<Integers, CompileError> {
    let n = matrix.bias.len();
    let depth = matrix.weights.len() / n.max(1);
    let mut row_major = Vec::with_capacity(matrix.weights.len());
    let mut bias = vec![0; padded_n(n)];
    let mut scale = vec![1.0; padded_n(n)];
    let integers = matrix.integers(input).into_iter().zip(matrix.bias);
    for (index, ((row, step), real)) in integers.enumerate() {
        let bias_sum = f64::from(*real) * matrix.pooled as f64;
        // The input's zero points are constants of the sum: Σ w·(q − z) = Σ w·q − Σ w·z.
        let zeros: f64 = row
            .iter()
            .enumerate()
            .map(|(k, w)| f64::from(*w) * input.zero(k % matrix.channels))
            .sum();
        bias[index] = whole(matrix.name, bias_sum / step - zeros * matrix.pooled as f64)?;
        scale[index] = (step / (output.scale(index) * matrix.pooled as f64)) as f32;
        row_major.extend(row);
    }
    let refuse = |reason: String| CompileError::Quantise {
        what: matrix.name.to_string(),
        reason,
    };
    let len = packed_len(n, depth).ok_or_else(|| refuse("its weights are too large".into()))?;
    let mut weights = vec![0; len];
    pack(n, depth, &row_major, &mut weights).map_err(|e| refuse(e.to_string()))?;
    Ok(Integers {
        depth,
        outputs: n,
        weights,
        bias,
        scale,
    })
}

/// Quantises depthwise weights `[taps][channels]`, one scale per channel.
pub(super) fn depthwise(
    name: &str,
    (weights, bias): (&[f32], &[f32]),
    (input, output): (&Grid, &Grid),
    steps: Steps,
) -> Result<Integers, CompileError> {
    let channels = bias.len();
    let mut integers = Integers {
        depth: weights.len() / channels.max(1),
        outputs: channels,
        weights: vec![0; weights.len()],
        bias: vec![0; channels],
        scale: vec![1.0; channels],
    };
    let folded = |(c, bias): (usize, &f32)| {
        let taps = weights.iter().skip(c).step_by(channels);
        let taps: Vec<f64> = taps.map(|w| f64::from(*w) * input.scale(c)).collect();
        (taps, f64::from(*bias))
    };
    let rows: Vec<(Vec<f64>, f64)> = bias.iter().enumerate().map(folded).collect();
    for (c, (taps, step)) in steps.quantise(&rows).into_iter().enumerate() {
        let bias = rows[c].1;
        let sum: f64 = taps.iter().map(|w| f64::from(*w)).sum();
        integers.bias[c] = whole(name, bias / step - sum * input.zero(c))?;
        integers.scale[c] = (step / output.scale(c)) as f32;
        integers
            .weights
            .iter_mut()
            .skip(c)
            .step_by(channels)
            .zip(taps)
            .for_each(|(slot, w)| *slot = w);
    }
    Ok(integers)
}

/// The step with the least squared error over a few clipping points; never so small that the bias leaves i32.
fn best_step(row: &[f64], bias: f64) -> f64 {
    let (top, smallest) = (top(row), smallest_step(bias));
    let error = |step: f64| -> f64 {
        on_grid(row, step)
            .zip(row)
            .map(|(q, w)| (q * step - w).powi(2))
            .sum()
    };
    let steps = (0..12).map(|i| (top / 127.0 * (1.0 - 0.02 * f64::from(i))).max(smallest));
    steps
        .min_by(|a, b| error(*a).total_cmp(&error(*b)))
        .unwrap_or(smallest)
}

fn top(row: &[f64]) -> f64 {
    row.iter().fold(0f64, |m, w| m.max(w.abs()))
}

fn smallest_step(bias: f64) -> f64 {
    (bias.abs() / f64::from(1 << 29)).max(1e-30)
}

fn on_grid(row: &[f64], step: f64) -> impl Iterator<Item = f64> + '_ {
    row.iter()
        .map(move |w| (w / step).round_ties_even().clamp(-127.0, 127.0))
}

fn whole(name: &str, x: f64) -> Result<i32, CompileError> {
    let rounded = x.round_ties_even();
    if rounded.abs() < f64::from(i32::MAX) {
        return Ok(rounded as i32);
    }
    let reason = format!("a bias of {x:.0} steps does not fit 32 bits");
    Err(CompileError::Quantise {
        what: name.to_string(),
        reason,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn quantised(row: &[f64], bias: f64) -> (Vec<i8>, f64) {
        Steps::PerChannel
            .quantise(&[(row.to_vec(), bias)])
            .remove(0)
    }

    #[test]
    fn one_step_for_all_rows_is_that_of_the_largest_weight() {
        let rows = [(vec![0.25, -0.5], 0.0), (vec![1.27, 0.0], 0.0)];
        let found = Steps::PerTensor.quantise(&rows);
        assert_eq!(found[0].0, [25, -50]);
        assert_eq!(found[1].0, [127, 0]);
        assert!(found.iter().all(|(_, step)| (step - 0.01).abs() < 1e-12));
        // A row's own step would use its own largest weight.
        assert_eq!(quantised(&[0.25, -0.5], 0.0).0[1], -127);
    }

    #[test]
    fn an_outlier_free_row_uses_the_whole_range() {
        let row: Vec<f64> = (0..64).map(|i| f64::from(i - 32) / 32.0).collect();
        let (q, step) = quantised(&row, 0.0);
        assert!(q.iter().any(|q| *q <= -120));
        for (q, w) in q.iter().zip(&row) {
            assert!((f64::from(*q) * step - w).abs() < 0.05);
        }
    }

    #[test]
    fn zero_weights_and_large_biases_stay_representable() {
        let (q, step) = quantised(&[0.0; 8], 3.0);
        assert_eq!(q, [0; 8]);
        assert!(whole("x", 3.0 / step).is_ok());
    }
}
