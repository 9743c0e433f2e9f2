//! What a layer makes of its input's grid, before there is a plan.

use super::grid::Grid;
use super::weights::{Matrix, Steps};
use crate::deviation::Deviation;
use crate::ir::{Kind, Op};

/// The noise of a layer's sums, as a part of their power, when its input lies on `grid`: the input is rounded and clipped, and so are the
/// weights that meet it. Windows are taken tap by tap, whose errors add up in the mean. A layer without weights passes the
/// input's own noise on. `rows` are rows of the input; 0 if there is nothing to measure.
pub(crate) fn error_of_sums(op: &Op, grid: &Grid, rows: &[Vec<f32>]) -> f64 {
    let mut deviation = Deviation::default();
    match &op.kind {
        Kind::Conv { weights, bias, .. }
        | Kind::Linear { weights, bias, .. }
        | Kind::PoolLinear { weights, bias } => {
            products(&mut deviation, (weights, bias), grid, rows);
        }
        Kind::Depthwise { weights, .. } => {
            for row in rows {
                let taps = weights.chunks(row.len().max(1));
                taps.for_each(|taps| channels(&mut deviation, taps, row, grid));
            }
        }
        _ => rows.iter().for_each(|row| {
            deviation.add(&on_grid(grid, row), row);
        }),
    }
    deviation.relative_noise()
}

/// What a number becomes on a grid.
fn stored(grid: &Grid, x: f32, channel: usize) -> f64 {
    let q = grid.quantise_channel(f64::from(x), channel);
    grid.real(f64::from(q), channel)
}

/// What a row becomes.
fn on_grid(grid: &Grid, row: &[f32]) -> Vec<f32> {
    let channels = row.iter().enumerate();
    channels.map(|(c, x)| stored(grid, *x, c) as f32).collect()
}

/// A depthwise window's weights are a number for each channel, whose own scale they have: only the input is rounded.
fn channels(deviation: &mut Deviation, taps: &[f32], row: &[f32], grid: &Grid) {
    let times = |row: &[f32]| -> Vec<f32> { taps.iter().zip(row).map(|(w, x)| w * x).collect() };
    deviation.add(&times(&on_grid(grid, row)), &times(row));
}

/// The sums of matrix products, one for each row of weights and tap.
fn products(
    deviation: &mut Deviation,
    (weights, bias): (&[f32], &[f32]),
    grid: &Grid,
    rows: &[Vec<f32>],
) {
    let Some(channels) = rows.first().map(|row| row.len().max(1)) else {
        return;
    };
    let matrix = Matrix {
        name: "",
        weights,
        bias,
        channels,
        pooled: 1,
        steps: Steps::PerChannel,
    };
    let steps: Vec<f64> = (0..channels).map(|c| grid.scale(c)).collect();
    let integers = matrix.integers(grid);
    // In steps of the input, from its zero point.
    let inputs: Vec<Vec<f64>> = rows
        .iter()
        .map(|row| {
            let steps_of = |(c, x): (usize, &f32)| stored(grid, *x, c) / steps[c];
            row.iter().enumerate().map(steps_of).collect()
        })
        .collect();
    let depth = weights.len() / bias.len().max(1);
    let pairs = weights.chunks(depth.max(1)).zip(&integers);
    for (row, (whole, step)) in pairs {
        for (taps, whole) in row.chunks(channels).zip(whole.chunks(channels)) {
            for (x, q) in rows.iter().zip(&inputs) {
                let wanted: f64 = taps
                    .iter()
                    .zip(x)
                    .map(|(w, x)| f64::from(*w) * f64::from(*x))
                    .sum();
                let found: f64 = whole.iter().zip(q).map(|(w, q)| f64::from(*w) * q).sum();
                deviation.add(&[(found * step) as f32], &[wanted as f32]);
            }
        }
    }
}
