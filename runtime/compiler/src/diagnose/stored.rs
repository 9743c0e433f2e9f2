//! A layer's weights as the plan's integers have them, in real numbers.

use vitlet_kernels::{Gemm, Requantise};
use vitlet_plan::{OpKind, Tensor};

use super::written::table;
use crate::ir::{Kind, Op};

/// Scales and zero points of what a layer reads and writes.
pub(super) struct Grids<'a> {
    /// Scale and zero point of each input channel.
    pub(super) input: &'a [[f64; 2]],
    pub(super) output: &'a Tensor<'a>,
}

/// One output channel: its integer weights with the f32 ones, by input channel.
struct Row<'w> {
    weights: Vec<(usize, i8, &'w mut f32)>,
    bias: &'w mut f32,
    integer_bias: i32,
    /// Of the requantisation.
    scale: f64,
    /// Rows of the input that are summed.
    pooled: f64,
}

/// `op` with the weights and biases that the plan has; `None` for an op without any.
pub(super) fn as_stored(op: &Op, stored: &OpKind<'_>, grids: &Grids<'_>) -> Option<Op> {
    let mut op = op.clone();
    let mut rows = match (&mut op.kind, stored) {
        (Kind::Conv { weights, bias, .. }, OpKind::Conv(conv)) => {
            gemm_rows(weights, bias, conv.gemm(), 1, grids)?
        }
        (Kind::Linear { weights, bias, .. }, OpKind::Linear(linear)) => {
            gemm_rows(weights, bias, linear.gemm(), 1, grids)?
        }
        (Kind::PoolLinear { weights, bias }, OpKind::PoolLinear(pool)) => {
            gemm_rows(weights, bias, pool.gemm(), pool.pooled_rows(), grids)?
        }
        (Kind::Depthwise { weights, bias, .. }, OpKind::Depthwise(depthwise)) => {
            let requantise = depthwise.requantise();
            depthwise_rows(weights, bias, depthwise.weights(), requantise)?
        }
        _ => return None,
    };
    let steps = steps(&rows, table(stored).is_some(), grids)?;
    for (row, step) in rows.iter_mut().zip(steps) {
        let mut sum = f64::from(row.integer_bias);
        for (channel, integer, weight) in &mut row.weights {
            let [scale, zero] = grids.input[*channel];
            **weight = (f64::from(*integer) * step * row.pooled / scale) as f32;
            sum += f64::from(*integer) * zero * row.pooled;
        }
        *row.bias = (sum * step) as f32;
    }
    drop(rows);
    Some(op)
}

fn gemm_rows<'w>(
    weights: &'w mut [f32],
    bias: &'w mut [f32],
    gemm: &Gemm<'_>,
    pooled: usize,
    grids: &Grids<'_>,
) -> Option<Vec<Row<'w>>> {
    let requantise = gemm.requantise();
    if gemm.n() != bias.len() || gemm.n() * gemm.k() != weights.len() {
        return None;
    }
    let channels = grids.input.len();
    let rows = weights.chunks_mut(gemm.k()).zip(bias).enumerate();
    rows.map(|(n, (row, bias))| {
        let weights = row.iter_mut().enumerate();
        let weights = weights.map(|(k, w)| Some((k.checked_rem(channels)?, gemm.weight(n, k)?, w)));
        Some(Row {
            weights: weights.collect::<Option<_>>()?,
            bias,
            integer_bias: *requantise.bias().get(n)?,
            scale: f64::from(*requantise.scale().get(n)?),
            pooled: pooled as f64,
        })
    })
    .collect()
}

fn depthwise_rows<'w>(
    weights: &'w mut [f32],
    bias: &'w mut [f32],
    integers: &[i8],
    requantise: &Requantise<'_>,
) -> Option<Vec<Row<'w>>> {
    let channels = bias.len();
    if weights.len() != integers.len() || requantise.bias().len() != channels {
        return None;
    }
    let factors = requantise.bias().iter().zip(requantise.scale());
    let rows = bias.iter_mut().zip(factors);
    let mut rows: Vec<Row<'w>> = rows
        .map(|(bias, (integer_bias, scale))| Row {
            weights: vec![],
            bias,
            integer_bias: *integer_bias,
            scale: f64::from(*scale),
            pooled: 1.0,
        })
        .collect();
    for (index, (weight, integer)) in weights.iter_mut().zip(integers).enumerate() {
        let channel = index % channels;
        rows[channel].weights.push((channel, *integer, weight));
    }
    Some(rows)
}

/// What one unit of each row's accumulator stands for: the requantisation's scale times that of the sums. If a table follows, the plan
/// does not say the latter; it is the one for which the integers fit the f32 weights, in the middle of what the rows say.
fn steps(rows: &[Row<'_>], table: bool, grids: &Grids<'_>) -> Option<Vec<f64>> {
    if !table {
        let step =
            |(n, row): (usize, &Row<'_>)| Some(row.scale * f64::from(grids.output.scale_of(n)?));
        return rows.iter().enumerate().map(step).collect();
    }
    let mut scales: Vec<f64> = rows.iter().filter_map(|row| fitted(row, grids)).collect();
    scales.sort_by(f64::total_cmp);
    let scale = *scales.get(scales.len() / 2)?;
    Some(rows.iter().map(|row| row.scale * scale).collect())
}

/// The scale of the sums for which a row's integers are nearest to its f32 weights; `None` if all its integers are 0.
fn fitted(row: &Row<'_>, grids: &Grids<'_>) -> Option<f64> {
    let (mut product, mut square) = (0.0, 0.0);
    for (channel, integer, weight) in &row.weights {
        let q = f64::from(*integer) * row.pooled;
        product += q * f64::from(**weight) * grids.input[*channel][0];
        square += q * q;
    }
    (square > 0.0).then(|| product / square / row.scale)
}
