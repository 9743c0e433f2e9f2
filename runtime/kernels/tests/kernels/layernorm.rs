//! Layer normalisation: kernels agree, and the reference is near the real thing.

use proptest::prelude::*;
use vitlet_kernels::{LayerNorm, NormOutput};

use crate::data::{FILLS, Fill, Form, Source, compare};

fn layernorm(
    rows: usize,
    channels: usize,
    output: NormOutput,
    fill: Fill,
    amplitude: i64,
    seed: u64,
) {
    let mut source = Source(seed);
    let gamma: Vec<f32> = (0..channels)
        .map(|_| source.float(-3, 14) * [1.0, -1.0][source.range(0, 1) as usize])
        .collect();
    let beta: Vec<f32> = (0..channels)
        .map(|_| source.float(-3, 20) * [1.0, -1.0][source.range(0, 1) as usize])
        .collect();
    let eps = source.range(1, 1 << 40) as u64;
    let norm = LayerNorm::new(rows, channels, eps, &gamma, &beta, output).unwrap();
    let x: Vec<i16> = source.tensor(rows * channels, -amplitude, amplitude - 1, fill);
    let form = if output == NormOutput::S8 {
        Form::S8
    } else {
        Form::S16
    };
    let what = format!("layernorm {rows}x{channels} {output:?} {fill:?} amplitude {amplitude}");
    let y = compare(
        &what,
        form,
        rows,
        channels,
        norm.scratch_len(),
        |kernel, rows, out, scratch| norm.run(kernel, rows, &x, out, scratch),
    );
    for (x, y) in x.chunks(channels).zip(y.chunks(channels)) {
        near(x, y, eps, &gamma, &beta, output);
    }
}

/// Within half a unit and f32's rounding of the formula in f64.
fn near(x: &[i16], y: &[i32], eps: u64, gamma: &[f32], beta: &[f32], output: NormOutput) {
    let c = x.len() as f64;
    let mean = x.iter().map(|&v| f64::from(v)).sum::<f64>() / c;
    let variance = x
        .iter()
        .map(|&v| (f64::from(v) - mean).powi(2))
        .sum::<f64>()
        / c
        + eps as f64 / (c * c);
    let limit = if output == NormOutput::S8 {
        128.0
    } else {
        32768.0
    };
    for (i, &y) in y.iter().enumerate() {
        let factor = f64::from(gamma[i]) * (f64::from(x[i]) - mean) / variance.sqrt();
        let exact = (factor + f64::from(beta[i])).clamp(-limit, limit - 1.0);
        let tolerance = 0.51 + (factor.abs() + f64::from(beta[i].abs())) * 1e-6;
        assert!(
            (f64::from(y) - exact).abs() <= tolerance,
            "channel {i}: {y}, exactly {exact}"
        );
    }
}

#[test]
fn shapes_and_extremes() {
    for channels in [1, 2, 7, 8, 9, 16, 32, 33, 160, 256, 1000, 16384] {
        for output in [NormOutput::S8, NormOutput::S16] {
            for fill in FILLS {
                for amplitude in [1, 100, 32768] {
                    layernorm(3, channels, output, fill, amplitude, 1);
                }
            }
        }
    }
}

proptest! {
    #[test]
    fn any(rows in 1_usize..20, channels in 1_usize..300, wide: bool, amplitude in 1_i64..=32768, seed: u64) {
        let output = if wide { NormOutput::S16 } else { NormOutput::S8 };
        layernorm(rows, channels, output, Fill::Random, amplitude, seed);
    }
}
