//! Group normalisation: kernels agree, and the reference is near the real thing.

use proptest::prelude::*;
use vitlet_kernels::{GroupNorm, Kernel, NormOutput, Out};

use crate::data::{FILLS, Fill, Form, Source, compare};

fn group_norm(
    [rows, channels]: [usize; 2],
    output: NormOutput,
    fill: Fill,
    range: [i64; 2],
    eps: u64,
    seed: u64,
) {
    let mut source = Source(seed);
    let sign = |source: &mut Source| [1.0, -1.0][source.range(0, 1) as usize];
    let gamma: Vec<f32> = (0..channels)
        .map(|_| source.float(-3, 14) * sign(&mut source))
        .collect();
    let beta: Vec<f32> = (0..channels)
        .map(|_| source.float(-3, 20) * sign(&mut source))
        .collect();
    let norm = GroupNorm::new(rows, channels, eps, &gamma, &beta, output).unwrap();
    let x: Vec<i16> = source.tensor(rows * channels, range[0], range[1], fill);
    let form = if output == NormOutput::S8 {
        Form::S8
    } else {
        Form::S16
    };
    let y = compare(
        &format!("groupnorm {rows}x{channels} {output:?} {fill:?} {range:?} eps {eps}"),
        form,
        rows,
        channels,
        norm.scratch_len(),
        |kernel, rows, out, scratch| norm.run(kernel, rows, &x, out, scratch),
    );
    near(&x, &y, eps, &gamma, &beta, output);
}

/// Within half a unit, the mean's 1/512 and f32's rounding of the formula in f64.
fn near(x: &[i16], y: &[i32], eps: u64, gamma: &[f32], beta: &[f32], output: NormOutput) {
    let n = x.len() as f64;
    let mean = x.iter().map(|&v| f64::from(v)).sum::<f64>() / n;
    let squares = x.iter().map(|&v| (f64::from(v) - mean).powi(2));
    let variance = squares.sum::<f64>() / n + eps as f64 / (n * n);
    let limit = if output == NormOutput::S8 {
        128.0
    } else {
        32768.0
    };
    for (i, &y) in y.iter().enumerate() {
        let c = i % gamma.len();
        let rstd = f64::from(gamma[c]) / variance.sqrt();
        let (factor, beta) = ((f64::from(x[i]) - mean) * rstd, f64::from(beta[c]));
        let exact = (factor + beta).clamp(-limit, limit - 1.0);
        let off_mean = if mean.fract() == 0.0 {
            0.0
        } else {
            1.0 / 512.0
        };
        let tolerance = 0.51 + (factor.abs() + beta.abs()) * 1e-6 + rstd.abs() * off_mean;
        assert!(
            (f64::from(y) - exact).abs() <= tolerance,
            "element {i}: {y}, exactly {exact}"
        );
    }
}

#[test]
fn shapes_and_extremes() {
    for size in [
        [1, 1],
        [1, 7],
        [7, 1],
        [3, 8],
        [5, 16],
        [16, 5],
        [49, 33],
        [1, 16384],
        [2, 16383],
        [411, 40],
    ] {
        for output in [NormOutput::S8, NormOutput::S16] {
            for fill in FILLS {
                for range in [[-1, 0], [-100, 99], [-32768, 32767], [32000, 32767]] {
                    for eps in [1, 1 << 40, 1 << 62] {
                        group_norm(size, output, fill, range, eps, 1);
                    }
                }
            }
        }
    }
}

/// The largest map: sums beyond 32 bits, and products of them beyond 64.
#[test]
fn largest_map() {
    let (rows, channels) = (1 << 14, 1 << 10);
    let ones = vec![1.0; channels];
    let norm = GroupNorm::new(rows, channels, 1, &ones, &ones, NormOutput::S16).unwrap();
    assert!(GroupNorm::new(rows + 1, channels, 1, &ones, &ones, NormOutput::S16).is_err());
    // One in 16 is low, the others are high: a mean of 15·32767/16 − 32768/16, and a deviation of 65535·√15/16.
    let x: Vec<i16> = (0..rows * channels)
        .map(|i| if i % 16 == 5 { i16::MIN } else { i16::MAX })
        .collect();
    for kernel in Kernel::available() {
        let mut y = vec![0; channels];
        norm.run(kernel, 9..10, &x, Out::S16(&mut y), &mut [])
            .unwrap();
        // 1/√15 and −√15 more than 1.
        assert_eq!([y[4], y[5], y[channels - 1]], [1, -3, 1]);
    }
}

#[test]
fn wrong_params_are_refused() {
    let ones = [1.0; 8];
    let new = |rows, channels, eps, gamma: &[f32], beta: &[f32]| {
        GroupNorm::new(rows, channels, eps, gamma, beta, NormOutput::S8).map(|norm| norm.rows())
    };
    assert_eq!(new(3, 8, 1, &ones, &ones), Ok(3));
    assert!(new(0, 8, 1, &ones, &ones).is_err());
    assert!(new(1 << 22, 8, 1, &ones, &ones).is_err());
    assert!(new(usize::MAX, 8, 1, &ones, &ones).is_err());
    assert!(new(3, 8, 0, &ones, &ones).is_err());
    assert!(new(3, 8, (1 << 62) + 1, &ones, &ones).is_err());
    assert!(new(3, 8, 1, &ones[1..], &ones).is_err());
    assert!(new(3, 8, 1, &ones, &ones[1..]).is_err());
    for bad in [16385.0, f32::NAN, f32::INFINITY, 1e-40] {
        assert!(new(3, 8, 1, &[bad; 8], &ones).is_err(), "{bad}");
    }
    assert!(new(3, 8, 1, &ones, &[1_048_577.0; 8]).is_err());
}

proptest! {
    #[test]
    fn any(rows in 1_usize..100, channels in 1_usize..300, wide: bool, low in -32768_i64..32767, width in 1_i64..40000, seed: u64) {
        let output = if wide { NormOutput::S16 } else { NormOutput::S8 };
        let range = [low, (low + width).min(32767)];
        group_norm([rows, channels], output, Fill::Random, range, 1 << (seed % 50), seed);
    }
}
