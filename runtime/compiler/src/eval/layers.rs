//! What each kind of layer computes.

use super::attention::attention;
use crate::ir::{Epilogue, Gather, Geometry, Graph, Kind, Op, ValueId};

/// One layer in f32; `read` gives the values of its operands in canonical layout.
pub fn run_op(graph: &Graph, op: &Op, read: &dyn Fn(ValueId) -> Vec<f32>) -> Vec<f32> {
    let input = |index: usize| op.inputs.get(index).map(|v| read(*v)).unwrap_or_default();
    let channels = op.inputs.first().map_or(1, |v| graph.values[*v].channels);
    let out = &graph.values[op.output];
    let sums = match &op.kind {
        Kind::Conv {
            geometry,
            weights,
            bias,
            ..
        } => conv(geometry, channels, &input(0), weights, bias),
        Kind::Linear { weights, bias, .. } => linear(&input(0), channels, weights, bias),
        Kind::Depthwise {
            geometry,
            weights,
            bias,
            ..
        } => depthwise(geometry, channels, &input(0), weights, bias),
        Kind::LayerNorm {
            eps,
            gamma,
            beta,
            gather,
        } => match gather {
            Some(gather) => layer_norm(&gathered(&input(0), channels, gather), *eps, gamma, beta),
            None => layer_norm(&input(0), *eps, gamma, beta),
        },
        Kind::GroupNorm { eps, gamma, beta } => group_norm(&input(0), *eps, gamma, beta),
        Kind::Attention { .. } => attention(&op.kind, out.rows, 0.0, read),
        Kind::Activate(f) => input(0)
            .iter()
            .map(|x| f.eval(f64::from(*x)) as f32)
            .collect(),
        Kind::Add { factors, .. } => add(*factors, &input(0), &input(1)),
        Kind::AddConstant(constant) => add([1.0, 1.0], &input(0), constant),
        Kind::Mul { column, rows, .. } => {
            let b_channels = op.inputs.get(1).map_or(1, |v| graph.values[*v].channels);
            mul(
                (&input(0), channels),
                (&input(1), b_channels, *column),
                rows,
            )
        }
        Kind::Convert => input(0),
        Kind::MaxPool(geometry) => max_pool(geometry, channels, &input(0)),
        Kind::Slice { start } => {
            let first = start * channels;
            let end = first + out.rows * channels;
            input(0).get(first..end).unwrap_or_default().to_vec()
        }
        Kind::Concat => op.inputs.iter().flat_map(|v| read(*v)).collect(),
        Kind::MeanPool => mean_pool(&input(0), channels),
        Kind::PoolLinear { weights, bias } => {
            linear(&mean_pool(&input(0), channels), channels, weights, bias)
        }
    };
    debug_assert_eq!(sums.len(), out.rows * out.channels, "{}", out.name);
    match op.epilogue() {
        Some(e) => epilogue(e, sums, read),
        None => sums,
    }
}

fn epilogue(e: &Epilogue, mut y: Vec<f32>, read: &dyn Fn(ValueId) -> Vec<f32>) -> Vec<f32> {
    if let Some(a) = &e.activation {
        y.iter_mut()
            .for_each(|y| *y = a.function.eval(f64::from(*y)) as f32);
    }
    if let Some(residual) = e.residual {
        y.iter_mut().zip(read(residual)).for_each(|(y, r)| *y += r);
    }
    y
}

/// Calls `visit(output row, tap, input row)` for every tap that falls inside the image.
fn taps(g: &Geometry, mut visit: impl FnMut(usize, usize, usize)) {
    for oy in 0..g.output[0] {
        for ox in 0..g.output[1] {
            for ky in 0..g.kernel[0] {
                for kx in 0..g.kernel[1] {
                    let y = (oy * g.stride[0] + ky)
                        .checked_sub(g.pad[0])
                        .filter(|y| *y < g.input[0]);
                    let x = (ox * g.stride[1] + kx)
                        .checked_sub(g.pad[1])
                        .filter(|x| *x < g.input[1]);
                    if let (Some(y), Some(x)) = (y, x) {
                        visit(
                            oy * g.output[1] + ox,
                            ky * g.kernel[1] + kx,
                            y * g.input[1] + x,
                        );
                    }
                }
            }
        }
    }
}

fn conv(g: &Geometry, channels: usize, x: &[f32], weights: &[f32], bias: &[f32]) -> Vec<f32> {
    let outputs = bias.len();
    let depth = g.kernel[0] * g.kernel[1] * channels;
    let mut y = vec![0.0; g.output[0] * g.output[1] * outputs];
    y.chunks_mut(outputs.max(1))
        .for_each(|row| row.copy_from_slice(bias));
    taps(g, |out, tap, row| {
        let pixel = &x[row * channels..][..channels];
        for (o, y) in y[out * outputs..][..outputs].iter_mut().enumerate() {
            *y += dot(pixel, &weights[o * depth + tap * channels..][..channels]);
        }
    });
    y
}

fn depthwise(g: &Geometry, channels: usize, x: &[f32], weights: &[f32], bias: &[f32]) -> Vec<f32> {
    let mut y = vec![0.0; g.output[0] * g.output[1] * channels];
    y.chunks_mut(channels.max(1))
        .for_each(|row| row.copy_from_slice(bias));
    taps(g, |out, tap, row| {
        let (pixel, w) = (
            &x[row * channels..][..channels],
            &weights[tap * channels..][..channels],
        );
        for ((y, x), w) in y[out * channels..][..channels].iter_mut().zip(pixel).zip(w) {
            *y += x * w;
        }
    });
    y
}

pub(super) fn dot(a: &[f32], b: &[f32]) -> f32 {
    // Eight partial sums: fast, and closer to the true sum than one.
    let mut partial = [0f32; 8];
    for (a, b) in a.chunks(8).zip(b.chunks(8)) {
        for ((p, a), b) in partial.iter_mut().zip(a).zip(b) {
            *p += a * b;
        }
    }
    partial.iter().sum()
}

pub(crate) fn linear(x: &[f32], channels: usize, weights: &[f32], bias: &[f32]) -> Vec<f32> {
    x.chunks(channels)
        .flat_map(|row| {
            weights
                .chunks(channels)
                .zip(bias)
                .map(move |(w, b)| dot(row, w) + b)
        })
        .collect()
}

/// Input rows put together to the rows that are normalised.
fn gathered(x: &[f32], channels: usize, gather: &Gather) -> Vec<f32> {
    let row = |r: &u32| &x[*r as usize * channels..][..channels];
    gather.rows.iter().flat_map(row).copied().collect()
}

fn layer_norm(x: &[f32], eps: f64, gamma: &[f32], beta: &[f32]) -> Vec<f32> {
    x.chunks(gamma.len().max(1))
        .flat_map(|row| group_norm(row, eps, gamma, beta))
        .collect()
}

/// One mean and variance for all of `x`; gamma and beta repeat every `gamma.len()` elements.
fn group_norm(x: &[f32], eps: f64, gamma: &[f32], beta: &[f32]) -> Vec<f32> {
    let n = x.len() as f64;
    let mean = x.iter().map(|x| f64::from(*x)).sum::<f64>() / n;
    let squares = x.iter().map(|x| (f64::from(*x) - mean).powi(2));
    let inverse = 1.0 / (squares.sum::<f64>() / n + eps).sqrt();
    x.iter()
        .zip(gamma.iter().zip(beta).cycle())
        .map(|(x, (g, b))| {
            ((f64::from(*x) - mean) * inverse * f64::from(*g) + f64::from(*b)) as f32
        })
        .collect()
}

fn add([fa, fb]: [f64; 2], a: &[f32], b: &[f32]) -> Vec<f32> {
    a.iter()
        .zip(b)
        .map(|(a, b)| (fa * f64::from(*a) + fb * f64::from(*b)) as f32)
        .collect()
}

fn mul(
    (a, channels): (&[f32], usize),
    (b, b_channels, column): (&[f32], usize, usize),
    rows: &[u32],
) -> Vec<f32> {
    let products = a.chunks(channels.max(1)).zip(rows).flat_map(|(a, row)| {
        let b = &b[*row as usize * b_channels + column..][..channels];
        a.iter().zip(b).map(|(a, b)| a * b)
    });
    products.collect()
}

fn max_pool(g: &Geometry, channels: usize, x: &[f32]) -> Vec<f32> {
    let mut y = vec![f32::NEG_INFINITY; g.output[0] * g.output[1] * channels];
    taps(g, |out, _, row| {
        let pixel = &x[row * channels..][..channels];
        for (y, x) in y[out * channels..][..channels].iter_mut().zip(pixel) {
            *y = y.max(*x);
        }
    });
    y
}

fn mean_pool(x: &[f32], channels: usize) -> Vec<f32> {
    let rows = x.len() / channels.max(1);
    let mut mean = vec![0f64; channels];
    for row in x.chunks(channels) {
        mean.iter_mut()
            .zip(row)
            .for_each(|(m, x)| *m += f64::from(*x) / rows as f64);
    }
    mean.into_iter().map(|m| m as f32).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::eval::attention::tests::random;

    #[test]
    fn merged_rows_are_normalised_together() {
        let x = random(8 * 3, 8);
        let gather = Gather {
            rows: [5, 0, 7, 2].into(),
            segments: 2,
        };
        let rows = gathered(&x, 3, &gather);
        assert_eq!(rows[..3], x[15..18]);
        assert_eq!(rows[9..], x[6..9]);
        let (gamma, beta) = (vec![1.0; 6], vec![0.5; 6]);
        let y = layer_norm(&rows, 0.0, &gamma, &beta);
        for row in y.chunks(6) {
            let mean: f32 = row.iter().sum::<f32>() / 6.0;
            let variance: f32 = row.iter().map(|x| (x - mean).powi(2)).sum::<f32>() / 6.0;
            assert!((mean - 0.5).abs() < 1e-5 && (variance - 1.0).abs() < 1e-4);
        }
    }
}
