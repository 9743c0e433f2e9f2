//! A tiny network made from a seed (feature `testing`): every kind of op and every feature of the format, no ONNX file, no compiler.
//!
//! Tests of the reader, the engine and the program, fuzzing and soak loops use it. The same seed gives the same bytes on every
//! machine. What it computes means nothing, but its numbers are spread over their types, so that a wrong one shows in the logits.
//!
//! | op | reads | writes | shows |
//! |---|---|---|---|
//! | stem: conv 3×3, stride 2 | image 16×16×3 | stream, s16 8×8×8 | pad bytes, K = 27 |
//! | norm1: layernorm | stream | s8 | |
//! | qkv: linear 8 → 24 | norm1 | s8, minimum −127 | a scale for each head |
//! | attention, 2 heads of 4 | qkv, three views | s8, in norm1's memory | one tensor for q, k and v |
//! | proj: linear 8 → 8 | attention, stream | stream, in place | residual |
//! | norm2, fc1: linear 8 → 16 | stream | s8 | table; up to fc2 they run in strips of 2 pixel rows |
//! | dwconv: 3×3 | fc1 | s8 | table, pad bytes |
//! | fc2: linear 16 → 8 | dwconv, stream | s16 elsewhere | residual that must be copied |
//! | norm_w, qkv_w, windows: attention | stream2 | s8 | four shifted windows of 4×4: row tables, bias by distance, mask; in strips |
//! | shortcut: add | windows, norm_w | s8 | two s8 tensors |
//! | qkv_t, tokens: attention | shortcut | s8, 68 rows in two parts | a constant token in each window, bias for each pair |
//! | between: linear 8 → 16 | tokens' first part | s8 | a slice |
//! | exchange: attention | between, tokens' second part | s8 | a slice at no multiple of 64; 16 slots: values and results are windows |
//! | gate: attention | qkv_t | s8, one row | queries that are all constants |
//! | gated: mul | exchange, gate | s16 | one row for all |
//! | spread: mul | gated, between | s16 | s16 × s8, a row for each window, some columns |
//! | sum: add | spread, stream2 | s16 | two s16 tensors |
//! | position: add | sum | s16 | a constant |
//! | narrow: add | position | s8 | conversion |
//! | pool: max 3×3, stride 2 | narrow | s8 4×4×8 | |
//! | wide, side: linear 8 → 8 | narrow; pool | a part each | a concatenation |
//! | mix: attention | side, both parts | s8, 16 rows | a part and the whole |
//! | norm3: groupnorm | position | s8 | |
//! | down: conv 2×2, stride 2 | norm3 | s16 4×4×12 | |
//! | merge: layernorm, merged: linear 32 → 12 | sum, down | s16, in place | four rows of 8 gathered to one of 32 |
//! | mixed: linear 8 → 12 | mix, merged | s16, in place | |
//! | level: layernorm | sum | s16 | |
//! | peak: max over all rows, peak8: add, aux: linear | level | 10 logits, s32 | s16, a table after a sum |
//! | norm4, head: pooled linear | mixed | 10 logits, s32 | N and K not multiples of 8 and 16 |
//! | logits: add | head, aux | 10 logits, s32 | two s32 tensors |

#![allow(
    clippy::expect_used,
    reason = "fixtures: these calls succeed for every seed, as a test checks"
)]

mod net;

use alloc::vec::Vec;

use net::{Epilogue, Net, Operand, Random, Second, Seen, shape};

use vitlet_kernels::NormOutput;

use crate::format::{checksum, header};
use crate::{AlignedBytes, DType, OpKind, Plan, TensorId};

/// Height and width of the tiny network's image.
pub const TINY_SIDE: usize = 16;
/// Logits of the tiny network.
pub const TINY_CLASSES: usize = 10;

/// The plan of the tiny network whose parameters come from `seed`.
pub fn tiny_plan(seed: u64) -> AlignedBytes {
    plan(Net::new(seed, true))
}

/// The same network, each of whose ops runs whole.
pub fn tiny_plan_without_strips(seed: u64) -> AlignedBytes {
    plan(Net::new(seed, false))
}

/// The first block of the tiny network and a head, with the residual of the strips in place: rows around a thread's own are overwritten.
pub fn tiny_block_plan(seed: u64) -> AlignedBytes {
    let mut net = Net::new(seed, true);
    let image = net.tensor("image", DType::S8, [1, 16, 16, 3], 0);
    let stream = global_block(&mut net, image, STREAM);
    let norm = net.tensor("norm", DType::S8, [1, 1, 64, 8], 0);
    net.layer_norm("norm", stream, norm, [64, 8], NormOutput::S8);
    let classes = [1, 1, 1, TINY_CLASSES as u32];
    let head = net.tensor("head", DType::S32, classes, 512);
    net.head("head", norm, head, [64, 8, TINY_CLASSES]);
    net.finish(image, head)
}

/// Where the tiny network's stream lies at first.
const STREAM: usize = 768;

fn plan(mut net: Net) -> AlignedBytes {
    let image = net.tensor("image", DType::S8, [1, 16, 16, 3], 0);
    let stream = global_block(&mut net, image, 1792);
    let shortcut = window_block(&mut net, stream);
    let [sum, position] = token_block(&mut net, shortcut, stream);
    let mix = concatenation(&mut net, position);
    let mixed = merging(&mut net, sum, position, mix);
    let logits = heads(&mut net, sum, mixed);
    net.finish(image, logits)
}

/// As a block of PVT, placed by hand so that memory is used again. Returns the stream, which lies at `end`.
fn global_block(net: &mut Net, image: TensorId, end: usize) -> TensorId {
    let stem = net.tensor("stem", DType::S16, [1, 8, 8, 8], STREAM);
    net.conv("stem", image, stem, shape([16, 16, 3], [8, 8, 8], 3, 2, 1));
    let norm1 = net.tensor("norm1", DType::S8, [1, 1, 64, 8], 1792);
    net.layer_norm("norm1", stem, norm1, [64, 8], NormOutput::S8);
    let qkv = net.per_head("qkv", 2304);
    net.linear("qkv", (norm1, None), qkv, [64, 8, 24], Epilogue::Symmetric);
    let attention = net.tensor("attention", DType::S8, [1, 1, 64, 8], 1792);
    net.attention("attention", [Some(qkv); 3], attention, &Seen::all());
    let stream = net.tensor("stream1", DType::S16, [1, 8, 8, 8], STREAM);
    let sizes = [64, 8, 8];
    net.linear(
        "proj",
        (attention, Some(stem)),
        stream,
        sizes,
        Epilogue::Stream,
    );
    let norm2 = net.held("norm2", [1, 1, 64, 8], 0, 24);
    net.layer_norm("norm2", stream, norm2, [64, 8], NormOutput::S8);
    let fc1 = net.held("fc1", [1, 8, 8, 16], 4352, 32);
    net.linear("fc1", (norm2, None), fc1, [64, 8, 16], Epilogue::Table);
    let dwconv = net.held("dwconv", [1, 8, 8, 16], 3328, 16);
    let pixels = shape([8, 8, 16], [8, 8, 16], 3, 1, 1);
    net.depthwise("dwconv", fc1, dwconv, pixels);
    let moved = net.tensor("stream2", DType::S16, [1, 8, 8, 8], end);
    let sizes = [64, 16, 8];
    net.linear(
        "fc2",
        (dwconv, Some(stream)),
        moved,
        sizes,
        Epilogue::Stream,
    );
    net.end_strips(4, &[16, 32, 48, 64]);
    moved
}

/// As in Swin, with the shortcut of SepViT.
fn window_block(net: &mut Net, stream: TensorId) -> TensorId {
    let norm = net.tensor("norm_w", DType::S8, [1, 1, 64, 8], 0);
    net.layer_norm("norm_w", stream, norm, [64, 8], NormOutput::S8);
    let qkv = net.per_head("qkv_w", 2816);
    net.linear("qkv_w", (norm, None), qkv, [64, 8, 24], Epilogue::Symmetric);
    let windows = net.held("windows", [1, 1, 64, 8], 512, 30);
    net.attention("windows", [Some(qkv); 3], windows, &Seen::shifted_windows());
    let shortcut = net.tensor("shortcut", DType::S8, [1, 1, 64, 8], 1024);
    let terms = (Operand::s8(windows), Second::Tensor(Operand::s8(norm)));
    net.add("shortcut", terms, shortcut, [64, 8], Epilogue::Plain);
    net.end_strips(2, &[13, 43, 64]);
    shortcut
}

/// As in SepViT and Dual-ViT: attention with constants, between windows and by a gate. Returns the stream without and with positions.
fn token_block(net: &mut Net, shortcut: TensorId, stream: TensorId) -> [TensorId; 2] {
    let qkv = net.per_head("qkv_t", 2816);
    let sizes = [64, 8, 24];
    net.linear("qkv_t", (shortcut, None), qkv, sizes, Epilogue::Symmetric);
    let parts = [("tokens", [1, 1, 4, 8]), ("pixels", [1, 1, 64, 8])];
    let (all, tokens, pixels) = net.two_parts("tokens and pixels", [1, 1, 68, 8], &parts);
    net.attention("tokens", [Some(qkv); 3], all, &Seen::windows_with_token());
    let between = net.fresh("between", DType::S8, [1, 1, 4, 16]);
    net.linear(
        "between",
        (tokens, None),
        between,
        [4, 8, 16],
        Epilogue::Symmetric,
    );
    let exchange = net.fresh("exchange", DType::S8, [1, 1, 64, 8]);
    let inputs = [Some(between), Some(between), Some(pixels)];
    net.attention("exchange", inputs, exchange, &Seen::between_windows());
    let gate = net.fresh("gate", DType::S8, [1, 1, 1, 8]);
    let inputs = [None, Some(qkv), Some(qkv)];
    net.attention("gate", inputs, gate, &Seen::by_constant());

    let gated = net.fresh("gated", DType::S16, [1, 1, 64, 8]);
    let factors = [Operand::s8(exchange), Operand::s8(gate)];
    net.mul("gated", factors, gated, [1, 8, 0], Epilogue::Stream);
    let spread = net.fresh("spread", DType::S16, [1, 1, 64, 8]);
    let factors = [Operand::s16(gated), Operand::s8(between)];
    net.mul("spread", factors, spread, [4, 16, 8], Epilogue::Stream);
    let sum = net.fresh("sum", DType::S16, [1, 1, 64, 8]);
    let terms = (Operand::s16(spread), Second::Tensor(Operand::s16(stream)));
    net.add("sum", terms, sum, [64, 8], Epilogue::Stream);
    let position = net.fresh("position", DType::S16, [1, 8, 8, 8]);
    let terms = (Operand::s16(sum), Second::Constant);
    net.add("position", terms, position, [64, 8], Epilogue::Stream);
    [sum, position]
}

/// As in Dual-ViT: tokens of two kinds in one tensor.
fn concatenation(net: &mut Net, position: TensorId) -> TensorId {
    let narrow = net.fresh("narrow", DType::S8, [1, 8, 8, 8]);
    let terms = (Operand::s16(position), Second::None);
    net.add("narrow", terms, narrow, [64, 8], Epilogue::Plain);
    let pool = net.fresh("pool", DType::S8, [1, 4, 4, 8]);
    let pixels = shape([8, 8, 8], [4, 4, 8], 3, 2, 1);
    net.max_pool("pool", Operand::s8(narrow), pool, pixels);
    let parts = [("wide", [1, 1, 64, 8]), ("side", [1, 4, 4, 8])];
    let (both, wide, side) = net.two_parts("both", [1, 1, 80, 8], &parts);
    net.linear(
        "wide",
        (narrow, None),
        wide,
        [64, 8, 8],
        Epilogue::Symmetric,
    );
    net.linear("side", (pool, None), side, [16, 8, 8], Epilogue::Symmetric);
    let mix = net.fresh("mix", DType::S8, [1, 1, 16, 8]);
    net.attention(
        "mix",
        [Some(side), Some(both), Some(both)],
        mix,
        &Seen::joint(),
    );
    mix
}

/// Two ways to a map of half the size, and what comes from elsewhere.
fn merging(net: &mut Net, sum: TensorId, position: TensorId, mix: TensorId) -> TensorId {
    let norm3 = net.tensor("norm3", DType::S8, [1, 8, 8, 8], 0);
    net.group_norm("norm3", position, norm3, [64, 8]);
    let down = net.tensor("down", DType::S16, [1, 4, 4, 12], 768);
    net.conv("down", norm3, down, shape([8, 8, 8], [4, 4, 12], 2, 2, 0));
    let merge = net.tensor("merge", DType::S8, [1, 1, 16, 32], 2304);
    net.merging_norm("merge", sum, merge);
    let merged = net.tensor("merged", DType::S16, [1, 1, 16, 12], 768);
    let sizes = [16, 32, 12];
    net.linear(
        "merged",
        (merge, Some(down)),
        merged,
        sizes,
        Epilogue::Stream,
    );
    let mixed = net.tensor("mixed", DType::S16, [1, 1, 16, 12], 768);
    net.linear(
        "mixed",
        (mix, Some(merged)),
        mixed,
        [16, 8, 12],
        Epilogue::Stream,
    );
    mixed
}

/// As in Dual-ViT: two classifiers, whose logits are added.
fn heads(net: &mut Net, sum: TensorId, mixed: TensorId) -> TensorId {
    let classes = [1, 1, 1, TINY_CLASSES as u32];
    let level = net.fresh("level", DType::S16, [1, 1, 64, 8]);
    net.layer_norm("level", sum, level, [64, 8], NormOutput::S16);
    let peak = net.fresh("peak", DType::S16, [1, 1, 1, 8]);
    net.max_pool(
        "peak",
        Operand::s16(level),
        peak,
        shape([64, 1, 8], [1, 1, 8], 64, 1, 0),
    );
    let peak8 = net.fresh("peak8", DType::S8, [1, 1, 1, 8]);
    let terms = (Operand::s16(peak), Second::None);
    net.add("peak8", terms, peak8, [1, 8], Epilogue::Table);
    let aux = net.fresh("aux", DType::S32, classes);
    net.linear(
        "aux",
        (peak8, None),
        aux,
        [1, 8, TINY_CLASSES],
        Epilogue::Logits,
    );
    let norm4 = net.tensor("norm4", DType::S8, [1, 1, 16, 12], 0);
    net.layer_norm("norm4", mixed, norm4, [16, 12], NormOutput::S8);
    let head = net.tensor("head", DType::S32, classes, 2816);
    net.head("head", norm4, head, [16, 12, TINY_CLASSES]);
    let logits = net.tensor("logits", DType::S32, classes, 2880);
    let terms = (Operand::s32(head), Second::Tensor(Operand::s32(aux)));
    net.add("logits", terms, logits, [1, TINY_CLASSES], Epilogue::Logits);
    logits
}

/// An RGB image for the tiny network.
pub fn tiny_image(seed: u64) -> Vec<u8> {
    let mut random = Random(seed ^ 0x1337);
    (0..TINY_SIDE * TINY_SIDE * 3)
        .map(|_| random.next() as u8)
        .collect()
}

/// About how many steps a run of the plan takes, for tests that leave out plans which ask for too much: multiply-accumulates, and the
/// comparisons of pooling, which [`Plan::macs`] does not count.
pub fn work(plan: &Plan<'_>) -> u64 {
    let comparisons = plan.ops().map(|op| match op.kind {
        OpKind::MaxPool(op) => {
            let [taps, outputs] = [
                op.shape()
                    .kernel
                    .map(u64::from)
                    .into_iter()
                    .product::<u64>(),
                op.shape().output_len() as u64,
            ];
            taps.saturating_mul(outputs)
        }
        _ => 0,
    });
    comparisons.fold(plan.macs(), u64::saturating_add)
}

/// Writes the right checksum into an edited plan (shorter files are left alone).
pub fn reseal(plan: &mut [u8]) {
    if let Some(sum) = checksum(plan) {
        plan[header::CHECKSUM..header::CHECKSUM + 4].copy_from_slice(&sum.to_le_bytes());
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
