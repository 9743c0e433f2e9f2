//! A tiny network made from a seed (feature `testing`): every kind of op, no ONNX file, no compiler.
//!
//! Tests of the reader, the engine and the program, fuzzing and soak loops use it. The same seed gives the same bytes on every
//! machine. What it computes means nothing, but its numbers are spread over their types, so that a wrong one shows in the logits.
//!
//! | op | reads | writes | shows |
//! |---|---|---|---|
//! | stem: conv 3×3, stride 2 | image 16×16×3 | stream, s16 8×8×8 | pad bytes, K = 27 |
//! | norm1: layernorm | stream | s8 | |
//! | qkv: linear 8 → 24 | norm1 | s8, minimum −127 | |
//! | attention, 2 heads of 4 | qkv, three views | s8, in norm1's memory | one tensor for q, k and v |
//! | proj: linear 8 → 8 | attention, stream | stream, in place | residual |
//! | norm2, fc1: linear 8 → 16 | stream | s8 | table |
//! | dwconv: 3×3 | fc1 | s8 | table, pad bytes |
//! | fc2: linear 16 → 8 | dwconv, stream | s16 elsewhere | residual that must be copied |
//! | norm3, down: conv 2×2, stride 2 | stream | s16 4×4×12 | |
//! | norm4, head: pooled linear | down | 10 logits, s32 | N and K not multiples of 8 and 16 |

#![allow(
    clippy::expect_used,
    reason = "fixtures: these calls succeed for every seed, as a test checks"
)]

use alloc::format;
use alloc::string::String;
use alloc::vec;
use alloc::vec::Vec;

use vitlet_kernels::{
    Attention, AttentionQuantisation, AttentionShape, Conv, ConvShape, Depthwise, Gemm, LayerNorm,
    Linear, NormOutput, Operand, Output, PoolLinear, Requantise, View, pack, packed_len, padded_n,
};
use vitlet_preprocess::{Interpolation, Preprocess, Resize};

use crate::format::{checksum, header};
use crate::{AlignedBytes, DType, Metadata, Op, OpKind, PlanBuilder, Provenance, Tensor, TensorId};

/// Height and width of the tiny network's image.
pub const TINY_SIDE: usize = 16;
/// Logits of the tiny network.
pub const TINY_CLASSES: usize = 10;

/// The plan of the tiny network whose parameters come from `seed`.
pub fn tiny_plan(seed: u64) -> AlignedBytes {
    let mut net = Net::new(seed);
    let image = net.tensor("image", DType::S8, [1, 16, 16, 3], 0);
    let stem = net.tensor("stem", DType::S16, [1, 8, 8, 8], 768);
    net.conv("stem", image, stem, shape([16, 16, 3], [8, 8, 8], 3, 2, 1));
    let norm1 = net.tensor("norm1", DType::S8, [1, 1, 64, 8], 1792);
    net.layer_norm("norm1", stem, norm1, 64, 8);
    let qkv = net.tensor("qkv", DType::S8, [1, 1, 64, 24], 2304);
    net.linear(
        "qkv",
        [Some(norm1), None],
        qkv,
        [64, 8, 24],
        Epilogue::Symmetric,
    );
    let attention = net.tensor("attention", DType::S8, [1, 1, 64, 8], 1792);
    net.attention("attention", qkv, attention);
    let stream = net.tensor("stream1", DType::S16, [1, 8, 8, 8], 768);
    net.linear(
        "proj",
        [Some(attention), Some(stem)],
        stream,
        [64, 8, 8],
        Epilogue::Stream,
    );
    let norm2 = net.tensor("norm2", DType::S8, [1, 1, 64, 8], 0);
    net.layer_norm("norm2", stream, norm2, 64, 8);
    let fc1 = net.tensor("fc1", DType::S8, [1, 8, 8, 16], 2304);
    net.linear(
        "fc1",
        [Some(norm2), None],
        fc1,
        [64, 8, 16],
        Epilogue::Table,
    );
    let dwconv = net.tensor("dwconv", DType::S8, [1, 8, 8, 16], 3328);
    net.depthwise(
        "dwconv",
        fc1,
        dwconv,
        shape([8, 8, 16], [8, 8, 16], 3, 1, 1),
    );
    let moved = net.tensor("stream2", DType::S16, [1, 8, 8, 8], 1792);
    net.linear(
        "fc2",
        [Some(dwconv), Some(stream)],
        moved,
        [64, 16, 8],
        Epilogue::Stream,
    );
    let norm3 = net.tensor("norm3", DType::S8, [1, 8, 8, 8], 0);
    net.layer_norm("norm3", moved, norm3, 64, 8);
    let down = net.tensor("down", DType::S16, [1, 4, 4, 12], 768);
    net.conv("down", norm3, down, shape([8, 8, 8], [4, 4, 12], 2, 2, 0));
    let norm4 = net.tensor("norm4", DType::S8, [1, 1, 16, 12], 0);
    net.layer_norm("norm4", down, norm4, 16, 12);
    let logits = net.tensor("logits", DType::S32, [1, 1, 1, TINY_CLASSES as u32], 2816);
    net.head("head", norm4, logits, [16, 12, TINY_CLASSES]);
    net.finish(image, logits)
}

/// An RGB image for the tiny network.
pub fn tiny_image(seed: u64) -> Vec<u8> {
    let mut random = Random(seed ^ 0x1337);
    (0..TINY_SIDE * TINY_SIDE * 3)
        .map(|_| random.next() as u8)
        .collect()
}

/// Writes the right checksum into an edited plan (shorter files are left alone).
pub fn reseal(plan: &mut [u8]) {
    if let Some(sum) = checksum(plan) {
        plan[header::CHECKSUM..header::CHECKSUM + 4].copy_from_slice(&sum.to_le_bytes());
    }
}

/// What follows a matrix product.
#[derive(Clone, Copy)]
enum Epilogue {
    /// s8 through an activation table.
    Table,
    /// s8 without −128, for attention.
    Symmetric,
    /// s16, with the residual if there is one.
    Stream,
}

/// The network in the making: tensors are placed by hand, parameters drawn as ops are added.
struct Net {
    random: Random,
    seed: u64,
    builder: PlanBuilder,
}

impl Net {
    fn new(seed: u64) -> Self {
        Net {
            random: Random(seed),
            seed,
            builder: PlanBuilder::new(),
        }
    }

    fn tensor(&mut self, name: &str, dtype: DType, shape: [u32; 4], offset: u32) -> TensorId {
        let scale = match dtype {
            DType::S8 => 1.0 / 32.0,
            DType::S16 => 1.0 / 4096.0,
            DType::S32 => 1.0 / 65536.0,
        };
        let tensor = Tensor {
            name,
            dtype,
            shape,
            offset,
            scale,
            scales: &[],
            zero_point: 0,
        };
        self.builder.add_tensor(&tensor).expect("small tensor")
    }

    fn op(
        &mut self,
        name: &str,
        kind: OpKind<'_>,
        inputs: [Option<TensorId>; 3],
        output: TensorId,
    ) {
        self.builder
            .add_op(&Op {
                name,
                kind,
                inputs,
                output,
            })
            .expect("small op");
    }

    fn conv(&mut self, name: &str, x: TensorId, y: TensorId, shape: ConvShape) {
        let (k, n) = (
            shape.kernel.iter().product::<u32>() * shape.in_c,
            shape.out_c,
        );
        let arrays = self.gemm_arrays(k as usize, n as usize, 4000.0);
        let pad = self.random.bytes(shape.in_c as usize);
        let conv = Conv::new(shape, &pad, arrays.gemm(Output::S16)).expect("valid conv");
        self.op(name, OpKind::Conv(conv), [Some(x), None, None], y);
    }

    fn linear(
        &mut self,
        name: &str,
        x: [Option<TensorId>; 2],
        y: TensorId,
        size: [usize; 3],
        epilogue: Epilogue,
    ) {
        let [rows, k, n] = size;
        let spread = if matches!(epilogue, Epilogue::Stream) {
            4000.0
        } else {
            40.0
        };
        let arrays = self.gemm_arrays(k, n, spread);
        let table = self.table();
        let output = match epilogue {
            Epilogue::Table => Output::S8 {
                zero_point: 3,
                min: -128,
                table: Some(&table),
            },
            Epilogue::Symmetric => Output::S8 {
                zero_point: 0,
                min: -127,
                table: None,
            },
            Epilogue::Stream => Output::S16,
        };
        let linear = Linear::new(rows, arrays.gemm(output)).expect("valid linear");
        self.op(name, OpKind::Linear(linear), [x[0], x[1], None], y);
    }

    fn depthwise(&mut self, name: &str, x: TensorId, y: TensorId, shape: ConvShape) {
        let channels = shape.in_c as usize;
        let taps = shape.kernel.iter().product::<u32>() as usize;
        let weights = self.random.weights(taps * channels);
        let pad = self.random.bytes(channels);
        let (bias, scale) = self.epilogue(taps, channels, channels, 40.0);
        let table = self.table();
        let output = Output::S8 {
            zero_point: -5,
            min: -128,
            table: Some(&table),
        };
        let requantise = Requantise::new(&bias, &scale, output).expect("valid requantise");
        let depthwise = Depthwise::new(shape, &weights, &pad, requantise).expect("valid depthwise");
        self.op(name, OpKind::Depthwise(depthwise), [Some(x), None, None], y);
    }

    fn layer_norm(&mut self, name: &str, x: TensorId, y: TensorId, rows: usize, channels: usize) {
        let gamma: Vec<f32> = (0..channels)
            .map(|_| 30.0 + self.random.unit() * 20.0)
            .collect();
        let beta: Vec<f32> = (0..channels)
            .map(|_| self.random.unit() * 10.0 - 5.0)
            .collect();
        let norm = LayerNorm::new(rows, channels, 1000, &gamma, &beta, NormOutput::S8)
            .expect("valid layernorm");
        self.op(name, OpKind::LayerNorm(norm), [Some(x), None, None], y);
    }

    /// Two heads of four channels over 64 tokens; rows of qkv hold q, k and v in turn.
    fn attention(&mut self, name: &str, qkv: TensorId, y: TensorId) {
        let view = |offset, row_stride| View {
            offset,
            row_stride,
            head_stride: 4,
        };
        let views = [view(0, 24), view(8, 24), view(16, 24), view(0, 8)];
        let logit_scale: [f32; 2] = core::array::from_fn(|_| 0.2 + self.random.unit());
        let quantisation = AttentionQuantisation {
            logit_scale: &logit_scale,
            out_scale: &[2.0, 1.5],
            zero_point: 1,
            min: -128,
        };
        let shape = AttentionShape {
            heads: 2,
            head_dim: 4,
            groups: 1,
            slots: 1,
            queries: 64,
            keys: 64,
        };
        let rows = views.map(|view| Operand::plain(view, 64));
        let attention =
            Attention::new(shape, rows, quantisation, None, None).expect("valid attention");
        self.op(name, OpKind::Attention(attention), [Some(qkv); 3], y);
    }

    fn head(&mut self, name: &str, x: TensorId, y: TensorId, [rows, k, n]: [usize; 3]) {
        let arrays = self.gemm_arrays(k, n, 40_000.0);
        let head = PoolLinear::new(rows, arrays.gemm(Output::S32)).expect("valid head");
        self.op(name, OpKind::PoolLinear(head), [Some(x), None, None], y);
    }

    fn gemm_arrays(&mut self, k: usize, n: usize, spread: f32) -> GemmArrays {
        let weights = self.random.weights(n * k);
        let mut packed = vec![0; packed_len(n, k).expect("small matrix")];
        pack(n, k, &weights, &mut packed).expect("matching lengths");
        let (bias, scale) = self.epilogue(k, n, padded_n(n), spread);
        GemmArrays {
            k,
            n,
            packed,
            bias,
            scale,
        }
    }

    /// Bias and scale for sums of `k` products, so that results have about the standard deviation `spread`; padding has bias 0, scale 1/K.
    fn epilogue(&mut self, k: usize, n: usize, padded: usize, spread: f32) -> (Vec<i32>, Vec<f32>) {
        // Weights have standard deviation 73, inputs about 40.
        let sum = 73.0 * 40.0 * k.isqrt() as f32;
        let mut bias: Vec<i32> = (0..n)
            .map(|_| ((self.random.unit() - 0.5) * sum) as i32)
            .collect();
        let mut scale: Vec<f32> = (0..n)
            .map(|_| (0.75 + 0.5 * self.random.unit()) * spread / sum)
            .collect();
        bias.resize(padded, 0);
        scale.resize(padded, 1.0 / k as f32);
        (bias, scale)
    }

    /// Something like a ReLU with a bend.
    fn table(&mut self) -> [i8; 256] {
        let knee = self.random.unit() * 40.0;
        core::array::from_fn(|i| {
            let x = f32::from(i as u8 as i8);
            if x < knee { (x * 0.125) as i8 } else { x as i8 }
        })
    }

    fn finish(self, input: TensorId, output: TensorId) -> AlignedBytes {
        let labels: Vec<String> = (0..TINY_CLASSES)
            .map(|class| format!("class {class}"))
            .collect();
        let labels: Vec<&str> = labels.iter().map(String::as_str).collect();
        let side = TINY_SIDE as u32;
        let preprocess = Preprocess::new(
            side,
            side,
            Resize::ShortSide(side + 2),
            Interpolation::Bilinear,
        );
        let metadata = Metadata {
            input,
            output,
            preprocess: preprocess.expect("valid preprocessing"),
            mean: [0.485, 0.456, 0.406],
            std: [0.229, 0.224, 0.225],
            labels: &labels,
            provenance: Provenance {
                model_name: &format!("tiny-{}", self.seed),
                model_sha256: [0x11; 32],
                ranges_sha256: [0x22; 32],
                calibration_images: 1,
                compiler: concat!("vitlet-plan testing ", env!("CARGO_PKG_VERSION")),
            },
        };
        self.builder
            .finish(&metadata)
            .expect("the tiny plan verifies")
    }
}

/// The arrays of a matrix product.
struct GemmArrays {
    k: usize,
    n: usize,
    packed: Vec<i8>,
    bias: Vec<i32>,
    scale: Vec<f32>,
}

impl GemmArrays {
    fn gemm<'a>(&'a self, output: Output<'a>) -> Gemm<'a> {
        let requantise =
            Requantise::new(&self.bias, &self.scale, output).expect("valid requantise");
        Gemm::new(self.k, self.n, &self.packed, requantise).expect("valid gemm")
    }
}

fn shape(input: [u32; 3], output: [u32; 3], kernel: u32, stride: u32, pad: u32) -> ConvShape {
    let ([in_h, in_w, in_c], [out_h, out_w, out_c]) = (input, output);
    // An even kernel with stride 2 needs no padding at the far side; an odd one with stride 2 on an even image neither.
    let far = if stride == 2 { 0 } else { pad };
    let (kernel, stride) = ([kernel; 2], [stride; 2]);
    ConvShape {
        in_h,
        in_w,
        in_c,
        out_h,
        out_w,
        out_c,
        kernel,
        stride,
        pad: [pad, pad, far, far],
    }
}

/// SplitMix64 (Steele, Lea, Flood: Fast splittable pseudorandom number generators, 2014).
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }

    /// In [0, 1).
    fn unit(&mut self) -> f32 {
        (self.next() >> 40) as f32 / 16_777_216.0
    }

    fn bytes(&mut self, len: usize) -> Vec<i8> {
        (0..len).map(|_| self.next() as i8).collect()
    }

    /// In −127 to 127.
    fn weights(&mut self, len: usize) -> Vec<i8> {
        self.bytes(len).into_iter().map(|w| w.max(-127)).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn any_seed_gives_a_valid_plan_and_the_same_bytes_again() {
        for seed in [0, 1, 2, 1000, u64::MAX] {
            assert_eq!(tiny_plan(seed)[..], tiny_plan(seed)[..]);
        }
        assert_ne!(tiny_plan(1)[..], tiny_plan(2)[..]);
    }
}
