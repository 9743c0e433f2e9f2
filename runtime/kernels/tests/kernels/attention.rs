//! Attention: kernels agree, and the reference is near softmax.

use proptest::prelude::*;
use vitlet_kernels::{Attention, AttentionQuantisation, AttentionShape, Operand, View};

use crate::data::{FILLS, Fill, Form, Source, compare};

#[derive(Clone, Copy, Debug)]
struct Shape {
    heads: usize,
    head_dim: usize,
    queries: usize,
    keys: usize,
}

/// One s8 tensor `[rows][q | k | v]`, as a joint projection gives; `steepness` is log2 of the logit scale.
fn attention(shape: Shape, steepness: i32, fill: Fill, seed: u64) {
    let Shape {
        heads,
        head_dim,
        queries,
        keys,
    } = shape;
    let mut source = Source(seed);
    let channels = heads * head_dim;
    let x: Vec<i8> = source.tensor(queries.max(keys) * 3 * channels, -127, 127, fill);
    let view = |part: usize| View {
        offset: part * channels,
        row_stride: 3 * channels,
        head_stride: head_dim,
    };
    let out = View {
        offset: 0,
        row_stride: channels,
        head_stride: head_dim,
    };
    let logit_scale: Vec<f32> = (0..heads)
        .map(|_| source.float(steepness - 1, steepness))
        .collect();
    // Those of the second head saturate, some of them beyond 16 bits.
    let out_scale: Vec<f32> = (0..heads)
        .map(|head| match head {
            1 => source.float(7, 9),
            _ => source.float(-2, 3),
        })
        .collect();
    let quantisation = AttentionQuantisation {
        logit_scale: &logit_scale,
        out_scale: &out_scale,
        zero_point: source.range(-128, 127) as i8,
        min: source.range(-128, -127) as i8,
    };
    let operands = [
        Operand::plain(view(0), queries),
        Operand::plain(view(1), keys),
        Operand::plain(view(2), keys),
        Operand::plain(out, queries),
    ];
    let sizes = AttentionShape {
        heads,
        head_dim,
        groups: 1,
        slots: 1,
        queries,
        keys,
    };
    let attention = Attention::new(sizes, operands, quantisation, None, None).unwrap();
    let what = format!("{shape:?} steepness {steepness} {fill:?}");
    let y = compare(
        &what,
        Form::S8,
        queries,
        channels,
        attention.scratch_len(),
        |kernel, rows, out, scratch| attention.run(kernel, rows, &x, &x, &x, out, scratch),
    );
    for (row, y) in y.chunks(channels).enumerate() {
        for head in 0..heads {
            let y = &y[head * head_dim..][..head_dim];
            near(
                &x,
                [0, 1, 2].map(|part| part * channels + head * head_dim),
                row,
                shape,
                quantisation,
                head,
                y,
            );
        }
    }
}

/// Within one unit of softmax in f64.
fn near(
    x: &[i8],
    offsets: [usize; 3],
    row: usize,
    shape: Shape,
    quantisation: AttentionQuantisation<'_>,
    head: usize,
    y: &[i32],
) {
    let stride = 3 * shape.heads * shape.head_dim;
    let part = |part: usize, row: usize| &x[offsets[part] + row * stride..][..shape.head_dim];
    let query = part(0, row);
    let logit = |j: usize| {
        let dot: i32 = query
            .iter()
            .zip(part(1, j))
            .map(|(&q, &k)| i32::from(q) * i32::from(k))
            .sum();
        f64::from(dot) * f64::from(quantisation.logit_scale[head]) / 1024.0
    };
    let logits: Vec<f64> = (0..shape.keys).map(logit).collect();
    let max = logits.iter().copied().fold(f64::MIN, f64::max);
    let weights: Vec<f64> = logits.iter().map(|l| (l - max).exp2()).collect();
    let sum: f64 = weights.iter().sum();
    let scale = f64::from(quantisation.out_scale[head]);
    for (d, &y) in y.iter().enumerate() {
        let mean = weights
            .iter()
            .enumerate()
            .map(|(j, w)| w * f64::from(part(2, j)[d]))
            .sum::<f64>()
            / sum;
        let low = f64::from(quantisation.min);
        let exact = (mean * scale + f64::from(quantisation.zero_point)).clamp(low, 127.0);
        // Half a unit of rounding, and the exponentials' 14 bits: keys below 2^-15 of the maximum are dropped.
        let tolerance = 0.51 + 127.0 * scale * (0.0008 + shape.keys as f64 / 32768.0 / sum);
        assert!(
            (f64::from(y) - exact).abs() <= tolerance,
            "{shape:?} row {row} d {d}: {y}, exactly {exact}"
        );
    }
}

#[test]
fn shapes() {
    for (heads, head_dim, queries, keys) in [
        (1, 1, 1, 1),
        (1, 32, 17, 49),
        (2, 32, 12, 49),
        (1, 16, 25, 9),
        (1, 48, 37, 16),
        (1, 64, 13, 200),
        (1, 256, 12, 20),
        (1, 272, 12, 20),
        (2, 32, 9, 50),
        (3, 24, 5, 7),
        (2, 64, 11, 64),
        (1, 16, 3, 8),
        (2, 13, 6, 65),
        (1, 8, 4, 513),
    ] {
        for steepness in [-20, -6, -2, 1, 6, 21] {
            for fill in FILLS {
                attention(
                    Shape {
                        heads,
                        head_dim,
                        queries,
                        keys,
                    },
                    steepness,
                    fill,
                    1,
                );
            }
        }
    }
}

/// The most keys for which exponentials may stay whole, and one more.
#[test]
fn keys_at_the_limit_of_whole_exponentials() {
    for (head_dim, keys) in [(9, 1023), (16, 1023), (9, 1024), (16, 1024)] {
        for steepness in [-20, 1] {
            for fill in FILLS {
                let shape = Shape {
                    heads: 1,
                    head_dim,
                    queries: 15,
                    keys,
                };
                attention(shape, steepness, fill, 4);
            }
        }
    }
}

/// Dual-ViT's rows.
#[test]
fn many_keys() {
    attention(
        Shape {
            heads: 1,
            head_dim: 32,
            queries: 9,
            keys: 3136,
        },
        -3,
        Fill::Random,
        2,
    );
    attention(
        Shape {
            heads: 1,
            head_dim: 512,
            queries: 2,
            keys: 20,
        },
        1,
        Fill::Extremes,
        3,
    );
}

proptest! {
    #[test]
    fn any(heads in 1_usize..4, head_dim in 1_usize..70, queries in 1_usize..20, keys in 1_usize..100, steepness in -15..10, seed: u64) {
        attention(Shape { heads, head_dim, queries, keys }, steepness, Fill::Random, seed);
    }

    #[test]
    fn whole_vectors(heads in 1_usize..3, vectors in 1_usize..5, queries in 12_usize..40, keys in 1_usize..100, steepness in -15..10, seed: u64) {
        attention(Shape { heads, head_dim: 16 * vectors, queries, keys }, steepness, Fill::Random, seed);
    }
}
