//! Layer normalisation: kernels agree, and the reference is near the real thing.

use proptest::prelude::*;
use vitlet_kernels::{Gather, LayerNorm, NormOutput, ParamError};

use crate::data::{FILLS, Fill, Form, Source, compare};

/// Gamma stays below 2^`largest` in magnitude, beta below 2^6 times that.
fn layernorm(
    rows: usize,
    channels: usize,
    output: NormOutput,
    fill: Fill,
    amplitude: i64,
    largest: i32,
    seed: u64,
) {
    let mut source = Source(seed);
    let gamma: Vec<f32> = (0..channels)
        .map(|_| source.float(-3, largest) * [1.0, -1.0][source.range(0, 1) as usize])
        .collect();
    let beta: Vec<f32> = (0..channels)
        .map(|_| source.float(-3, largest + 6) * [1.0, -1.0][source.range(0, 1) as usize])
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
                    // Results that saturate, and such as surely fit 16 bits.
                    for largest in [14, 6] {
                        layernorm(3, channels, output, fill, amplitude, largest, 1);
                    }
                }
            }
        }
    }
}

/// Rows put together from segments: the same as the norm of the rows when they lie together.
fn gathered(rows: usize, segments: usize, segment: usize, output: NormOutput, seed: u64) {
    let mut source = Source(seed);
    let channels = segments * segment;
    let input_rows = source.range(1, 40) as usize;
    let (gamma, beta) = (vec![20.0; channels], vec![-3.5; channels]);
    let x: Vec<i16> = source.tensor(input_rows * segment, -300, 300, Fill::Random);
    let table: Vec<u32> = source.tensor(
        rows * segments,
        0,
        input_rows as i64 - 1,
        [Fill::Random, Fill::Extremes][seed as usize % 2],
    );
    let joined: Vec<i16> = table
        .iter()
        .flat_map(|&row| &x[row as usize * segment..][..segment])
        .copied()
        .collect();
    let plain = LayerNorm::new(rows, channels, 100, &gamma, &beta, output).unwrap();
    let norm = plain
        .with_gather(Gather {
            table: &table,
            segments,
            input_rows,
        })
        .unwrap();
    let form = if output == NormOutput::S8 {
        Form::S8
    } else {
        Form::S16
    };
    let what = format!("layernorm of {segments} segments of {segment}");
    let [plain, gathered] = [(plain, &joined), (norm, &x)].map(|(norm, x)| {
        compare(
            &what,
            form,
            rows,
            channels,
            norm.scratch_len(),
            |kernel, rows, out, scratch| norm.run(kernel, rows, x, out, scratch),
        )
    });
    assert_eq!(plain, gathered, "{what}");
}

#[test]
fn gathers() {
    for (segments, segment) in [(1, 1), (1, 16), (4, 1), (4, 5), (4, 96), (9, 13), (2, 64)] {
        for output in [NormOutput::S8, NormOutput::S16] {
            for seed in 0..4 {
                gathered(7, segments, segment, output, seed);
            }
        }
    }
}

#[test]
fn wrong_gathers_are_refused() {
    let ones = [1.0; 12];
    let norm = LayerNorm::new(2, 12, 1, &ones, &ones, NormOutput::S8).unwrap();
    let gather = |table, segments, input_rows| Gather {
        table,
        segments,
        input_rows,
    };
    let with = |gather| norm.with_gather(gather).map(|norm| norm.input_len());
    assert_eq!(with(gather(&[0, 1, 2, 3], 2, 4)), Ok(24));
    assert_eq!(
        with(gather(&[0, 1, 4, 3], 2, 4)),
        Err(ParamError::Value {
            what: "gather",
            index: 2,
            bound: "a row of the input"
        })
    );
    assert!(with(gather(&[0, 1, 2], 2, 4)).is_err());
    assert!(with(gather(&[0; 10], 5, 4)).is_err());
    assert!(with(gather(&[], 0, 4)).is_err());
    assert!(with(gather(&[0; 4], 2, 0)).is_err());
    assert!(with(gather(&[0; 4], 2, usize::MAX)).is_err());
}

/// A table that was never verified gives wrong rows, but no access out of bounds.
#[test]
fn unverified_gather_stays_inside() {
    let ones = [1.0; 12];
    let gather = Gather {
        table: &[u32::MAX, 7, 0, 1 << 31],
        segments: 2,
        input_rows: 4,
    };
    let norm = LayerNorm::new_verified(2, 12, 1, &ones, &ones, NormOutput::S8).unwrap();
    let norm = norm.with_gather_verified(gather).unwrap();
    let x = [5; 24];
    compare(
        "unverified",
        Form::S8,
        2,
        12,
        norm.scratch_len(),
        |kernel, rows, out, scratch| norm.run(kernel, rows, &x, out, scratch),
    );
}

proptest! {
    #[test]
    fn any_gather(rows in 1_usize..20, segments in 1_usize..10, segment in 1_usize..40, wide: bool, seed: u64) {
        let output = if wide { NormOutput::S16 } else { NormOutput::S8 };
        gathered(rows, segments, segment, output, seed);
    }

    #[test]
    fn any(rows in 1_usize..20, channels in 1_usize..300, wide: bool, amplitude in 1_i64..=32768, largest in 1..=14, seed: u64) {
        let output = if wide { NormOutput::S16 } else { NormOutput::S8 };
        layernorm(rows, channels, output, Fill::Random, amplitude, largest, seed);
    }
}
