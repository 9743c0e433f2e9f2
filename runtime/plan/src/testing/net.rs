//! The tiny network in the making: an op is added with parameters drawn at random.

use alloc::format;
use alloc::string::String;
use alloc::vec;
use alloc::vec::Vec;

use vitlet_kernels::{
    Add, Addend, Attention, AttentionQuantisation, AttentionShape, Bias, Conv, ConvShape,
    Depthwise, Factor, Gate, Gather, Gemm, GroupNorm, InType, LayerNorm, Linear, MaxPool, Mul,
    NormOutput, Operand as Rows, Output, PoolLinear, Requantise, Term, View, pack, packed_len,
    padded_n,
};
use vitlet_preprocess::{Interpolation, Preprocess, Resize};

use super::{TINY_CLASSES, TINY_SIDE};
use crate::format::align_up;
use crate::{AlignedBytes, DType, Metadata, Op, OpKind, PlanBuilder, Provenance, Tensor, TensorId};

/// The first byte of the arena behind those of the tensors placed by hand.
const BY_HAND: usize = 5376;

/// What an op does with its rounded sums.
#[derive(Clone, Copy)]
pub(super) enum Epilogue {
    /// s8 through an activation table.
    Table,
    /// s8 with a zero point.
    Plain,
    /// s8 without −128, for attention.
    Symmetric,
    /// s16; a matrix product's with the residual if there is one.
    Stream,
    /// s32.
    Logits,
}

impl Epilogue {
    /// About the standard deviation that results should have.
    fn spread(self) -> f32 {
        match self {
            Epilogue::Table | Epilogue::Plain | Epilogue::Symmetric => 40.0,
            Epilogue::Stream => 4000.0,
            Epilogue::Logits => 40_000.0,
        }
    }

    fn output(self, table: &[i8; 256]) -> Output<'_> {
        let s8 = |zero_point, min, table| Output::S8 {
            zero_point,
            min,
            table,
        };
        match self {
            Epilogue::Table => s8(3, -128, Some(table)),
            Epilogue::Plain => s8(2, -128, None),
            Epilogue::Symmetric => s8(0, -127, None),
            Epilogue::Stream => Output::S16,
            Epilogue::Logits => Output::S32,
        }
    }
}

/// A tensor and its type, for ops that take several types.
#[derive(Clone, Copy)]
pub(super) struct Operand {
    id: TensorId,
    element: InType,
    /// About the standard deviation of its numbers.
    spread: f32,
}

impl Operand {
    pub(super) fn s8(id: TensorId) -> Self {
        let (element, spread) = (InType::S8, 40.0);
        Operand {
            id,
            element,
            spread,
        }
    }

    pub(super) fn s16(id: TensorId) -> Self {
        let (element, spread) = (InType::S16, 4000.0);
        Operand {
            id,
            element,
            spread,
        }
    }

    pub(super) fn s32(id: TensorId) -> Self {
        let (element, spread) = (InType::S32, 40_000.0);
        Operand {
            id,
            element,
            spread,
        }
    }
}

/// What a sum adds to its first operand.
#[derive(Clone, Copy)]
pub(super) enum Second {
    None,
    Tensor(Operand),
    /// s16.
    Constant,
}

/// What an attention sees: two heads of four channels, over the 8×8 pixels of the map.
pub(super) struct Seen {
    groups: usize,
    slots: usize,
    queries: usize,
    keys: usize,
    /// q, k, v, output.
    rows: [SeenRows; 4],
    bias: SeenBias,
    mask: Option<Vec<u8>>,
    /// The output is the values of another attention.
    symmetric: bool,
}

/// Where one of q, k, v and the output lies.
#[derive(Clone)]
struct SeenRows {
    offset: usize,
    stride: usize,
    table: Option<Vec<u32>>,
    tensor_rows: usize,
    /// Rows.
    constants: usize,
}

enum SeenBias {
    None,
    /// For every query and key.
    Pairs,
    /// By distance in a window of 4×4.
    Window,
}

impl Seen {
    fn new(queries: usize, keys: usize, rows: [SeenRows; 4]) -> Self {
        Seen {
            groups: 1,
            slots: 1,
            queries,
            keys,
            rows,
            bias: SeenBias::None,
            mask: None,
            symmetric: false,
        }
    }

    /// Every pixel all pixels; rows of qkv hold q, k and v in turn.
    pub(super) fn all() -> Self {
        let [q, k, v] = [0, 8, 16].map(|offset| plain(offset, 24, 64));
        Seen::new(64, 64, [q, k, v, plain(0, 8, 64)])
    }

    /// Every pixel those of its window of 4×4, the map having been shifted by 2; no pixel sees one across the map's edge.
    pub(super) fn shifted_windows() -> Self {
        let table: Vec<u32> = windows()
            .map(|(y, x)| (y + 2) % 8 * 8 + (x + 2) % 8)
            .collect();
        // What is torn from the other edge: after 6 of the shifted rows and columns.
        let label = |(y, x): (u32, u32)| u8::from(y >= 6) * 2 + u8::from(x >= 6);
        let mut seen = Seen::all();
        seen.rows = seen.rows.map(|rows| rows.with_table(&table));
        (seen.groups, seen.queries, seen.keys) = (4, 16, 16);
        seen.bias = SeenBias::Window;
        seen.mask = Some(windows().map(label).collect());
        seen
    }

    /// As well as its pixels, each window has a token, which is constant; in the result, tokens come before pixels.
    pub(super) fn windows_with_token() -> Self {
        let table = |token: u32, pixel: u32| -> Vec<u32> {
            let pixels: Vec<u32> = windows().map(|(y, x)| pixel + y * 8 + x).collect();
            let windows = pixels.chunks_exact(16).zip(token..);
            windows
                .flat_map(|(window, token)| [&[token], window].concat())
                .collect()
        };
        let mut seen = Seen::all();
        let [q, k, v, out] = seen.rows;
        seen.rows = [q, k, v, out.with_table(&table(0, 4))];
        for rows in &mut seen.rows[..3] {
            (rows.table, rows.constants) = (Some(table(64, 0)), 4);
        }
        seen.rows[3].tensor_rows = 68;
        (seen.groups, seen.queries, seen.keys) = (4, 17, 17);
        seen.bias = SeenBias::Pairs;
        seen.symmetric = true;
        seen
    }

    /// Each window's token all tokens; what they exchange is the windows' pixels, one place in the window after the other.
    pub(super) fn between_windows() -> Self {
        let pixels: Vec<u32> = windows().map(|(y, x)| y * 8 + x).collect();
        let slots: Vec<u32> = (0..16)
            .flat_map(|slot| pixels.iter().skip(slot).step_by(16))
            .copied()
            .collect();
        let map = plain(0, 8, 64).with_table(&slots);
        let tokens = [plain(0, 16, 4), plain(8, 16, 4)];
        let [q, k] = tokens;
        let mut seen = Seen::new(4, 4, [q, k, map.clone(), map]);
        seen.slots = 16;
        seen
    }

    /// One query, which is constant, all pixels.
    pub(super) fn by_constant() -> Self {
        let mut q = plain(0, 8, 0);
        q.constants = 1;
        let [k, v] = [8, 16].map(|offset| plain(offset, 24, 64));
        Seen::new(1, 64, [q, k, v, plain(0, 8, 1)])
    }

    /// 16 tokens themselves and 64 others.
    pub(super) fn joint() -> Self {
        let both = plain(0, 8, 80);
        Seen::new(
            16,
            80,
            [plain(0, 8, 16), both.clone(), both, plain(0, 8, 16)],
        )
    }
}

/// The pixels of an 8×8 map, one window of 4×4 after the other: row and column.
fn windows() -> impl Iterator<Item = (u32, u32)> {
    (0..64).map(|i| {
        let (window, token) = (i / 16, i % 16);
        (window / 2 * 4 + token / 4, window % 2 * 4 + token % 4)
    })
}

/// Rows of a tensor in order.
fn plain(offset: usize, stride: usize, rows: usize) -> SeenRows {
    SeenRows {
        offset,
        stride,
        table: None,
        tensor_rows: rows,
        constants: 0,
    }
}

impl SeenRows {
    fn with_table(mut self, table: &[u32]) -> Self {
        self.table = Some(table.to_vec());
        self
    }

    fn rows<'a>(&'a self, constants: &'a [i8]) -> Rows<'a> {
        Rows {
            view: View {
                offset: self.offset,
                row_stride: self.stride,
                head_stride: 4,
            },
            rows: self.table.as_deref(),
            tensor_rows: self.tensor_rows,
            constants: &constants[..self.constants * self.stride],
        }
    }
}

/// The network: tensors are placed, parameters drawn as ops are added.
pub(super) struct Net {
    random: Random,
    seed: u64,
    builder: PlanBuilder,
    /// Where the next tensor goes that is not placed by hand.
    next: usize,
    /// Ops so far.
    ops: usize,
    /// Whether groups of ops run strip by strip.
    strips: bool,
}

impl Net {
    pub(super) fn new(seed: u64, strips: bool) -> Self {
        Net {
            random: Random(seed),
            seed,
            builder: PlanBuilder::new(),
            next: BY_HAND,
            ops: 0,
            strips,
        }
    }

    /// Ends a group of `ops` ops, which run strip by strip.
    pub(super) fn end_strips(&mut self, ops: usize, ends: &[u32]) {
        if self.strips {
            self.builder
                .add_strips(self.ops - ops..self.ops, ends)
                .expect("few ops");
        }
    }

    /// As `tensor`; of its rows only `held` are in memory at a time, if there are strips.
    pub(super) fn held(
        &mut self,
        name: &str,
        shape: [u32; 4],
        offset: usize,
        held: u32,
    ) -> TensorId {
        let mut tensor = tensor(name, DType::S8, shape, offset);
        tensor.held = if self.strips { held } else { 0 };
        self.builder.add_tensor(&tensor).expect("small tensor")
    }

    /// A tensor at a place of the caller's choice.
    pub(super) fn tensor(
        &mut self,
        name: &str,
        dtype: DType,
        shape: [u32; 4],
        offset: usize,
    ) -> TensorId {
        self.builder
            .add_tensor(&tensor(name, dtype, shape, offset))
            .expect("small tensor")
    }

    /// A tensor in memory of its own.
    pub(super) fn fresh(&mut self, name: &str, dtype: DType, shape: [u32; 4]) -> TensorId {
        let offset = self.next;
        self.next = end(&tensor(name, dtype, shape, offset));
        self.tensor(name, dtype, shape, offset)
    }

    /// q, k and v of the map's pixels, with a scale for each of their two heads.
    pub(super) fn per_head(&mut self, name: &str, offset: usize) -> TensorId {
        let scales: [f32; 6] = core::array::from_fn(|_| (1.0 + self.random.unit()) / 32.0);
        let mut qkv = tensor(name, DType::S8, [1, 1, 64, 24], offset);
        (qkv.scale, qkv.scales) = (0.0, &scales);
        self.builder.add_tensor(&qkv).expect("small tensor")
    }

    /// An s8 tensor in memory of its own, and its two parts.
    pub(super) fn two_parts(
        &mut self,
        name: &str,
        shape: [u32; 4],
        parts: &[(&str, [u32; 4]); 2],
    ) -> (TensorId, TensorId, TensorId) {
        let whole = tensor(name, DType::S8, shape, self.next);
        self.next = end(&whole);
        let (whole, parts) = self
            .builder
            .add_tensor_with_parts(&whole, parts)
            .expect("small tensor");
        (whole, parts[0], parts[1])
    }

    fn op(
        &mut self,
        name: &str,
        kind: OpKind<'_>,
        inputs: [Option<TensorId>; 3],
        output: TensorId,
    ) {
        self.ops += 1;
        self.builder
            .add_op(&Op {
                name,
                kind,
                inputs,
                output,
            })
            .expect("small op");
    }

    pub(super) fn conv(&mut self, name: &str, x: TensorId, y: TensorId, shape: ConvShape) {
        let (k, n) = (
            shape.kernel.iter().product::<u32>() * shape.in_c,
            shape.out_c,
        );
        let arrays = self.gemm_arrays(k as usize, n as usize, 4000.0);
        let pad = self.random.bytes(shape.in_c as usize);
        let conv = Conv::new(shape, &pad, arrays.gemm(Output::S16)).expect("valid conv");
        self.op(name, OpKind::Conv(conv), [Some(x), None, None], y);
    }

    pub(super) fn linear(
        &mut self,
        name: &str,
        (x, residual): (TensorId, Option<TensorId>),
        y: TensorId,
        [rows, k, n]: [usize; 3],
        epilogue: Epilogue,
    ) {
        let arrays = self.gemm_arrays(k, n, epilogue.spread());
        let table = self.table();
        let gemm = arrays.gemm(epilogue.output(&table));
        let linear = Linear::new(rows, gemm).expect("valid linear");
        self.op(name, OpKind::Linear(linear), [Some(x), residual, None], y);
    }

    pub(super) fn depthwise(&mut self, name: &str, x: TensorId, y: TensorId, shape: ConvShape) {
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

    pub(super) fn layer_norm(
        &mut self,
        name: &str,
        x: TensorId,
        y: TensorId,
        [rows, channels]: [usize; 2],
        output: NormOutput,
    ) {
        let (gamma, beta) = self.affine(channels, output);
        let norm =
            LayerNorm::new(rows, channels, 1000, &gamma, &beta, output).expect("valid layernorm");
        self.op(name, OpKind::LayerNorm(norm), [Some(x), None, None], y);
    }

    pub(super) fn group_norm(
        &mut self,
        name: &str,
        x: TensorId,
        y: TensorId,
        [rows, channels]: [usize; 2],
    ) {
        let (gamma, beta) = self.affine(channels, NormOutput::S8);
        let norm = GroupNorm::new(rows, channels, 1000, &gamma, &beta, NormOutput::S8)
            .expect("valid groupnorm");
        self.op(name, OpKind::GroupNorm(norm), [Some(x), None, None], y);
    }

    /// Layer norm of the 16 blocks of 2×2 pixels of an 8×8 map, each in the order of Swin's patch merging: columns outermost.
    pub(super) fn merging_norm(&mut self, name: &str, x: TensorId, y: TensorId) {
        let block = |i: u32| {
            [(0, 0), (1, 0), (0, 1), (1, 1)].map(|(v, u)| {
                let (row, column) = (i / 4 * 2 + v, i % 4 * 2 + u);
                row * 8 + column
            })
        };
        let table: Vec<u32> = (0..16).flat_map(block).collect();
        let (gamma, beta) = self.affine(32, NormOutput::S8);
        let norm = LayerNorm::new(16, 32, 1000, &gamma, &beta, NormOutput::S8)
            .and_then(|norm| {
                norm.with_gather(Gather {
                    table: &table,
                    segments: 4,
                    input_rows: 64,
                })
            })
            .expect("valid layernorm");
        self.op(name, OpKind::LayerNorm(norm), [Some(x), None, None], y);
    }

    /// Gamma and beta.
    fn affine(&mut self, channels: usize, output: NormOutput) -> (Vec<f32>, Vec<f32>) {
        let unit = match output {
            NormOutput::S8 => 1.0,
            NormOutput::S16 => 100.0,
        };
        let mut numbers = |from: f32, span: f32| {
            (0..channels)
                .map(|_| (from + self.random.unit() * span) * unit)
                .collect()
        };
        (numbers(30.0, 20.0), numbers(-5.0, 10.0))
    }

    pub(super) fn attention(
        &mut self,
        name: &str,
        inputs: [Option<TensorId>; 3],
        y: TensorId,
        seen: &Seen,
    ) {
        let shape = AttentionShape {
            heads: 2,
            head_dim: 4,
            groups: seen.groups,
            slots: seen.slots,
            queries: seen.queries,
            keys: seen.keys,
        };
        let constants: [Vec<i8>; 4] = core::array::from_fn(|i| {
            self.random
                .weights(seen.rows[i].constants * seen.rows[i].stride)
        });
        let rows = core::array::from_fn(|i| seen.rows[i].rows(&constants[i]));
        let logit_scale: [f32; 2] = core::array::from_fn(|_| 1.0 + 2.0 * self.random.unit());
        let quantisation = AttentionQuantisation {
            logit_scale: &logit_scale,
            out_scale: &[1.0, 0.75],
            zero_point: if seen.symmetric { 0 } else { 1 },
            min: if seen.symmetric { -127 } else { -128 },
        };
        let window = matches!(seen.bias, SeenBias::Window).then_some([4, 4]);
        let entries = match seen.bias {
            SeenBias::None => 0,
            SeenBias::Pairs => seen.queries * seen.keys,
            SeenBias::Window => 7 * 7,
        };
        // Up to two octaves each way.
        let table: Vec<i32> = (0..2 * entries)
            .map(|_| (self.random.unit() * 4096.0) as i32 - 2048)
            .collect();
        let table = &table[..];
        let bias = (entries != 0).then_some(Bias { table, window });
        let mask = seen.mask.as_deref();
        let attention =
            Attention::new(shape, rows, quantisation, bias, mask).expect("valid attention");
        self.op(name, OpKind::Attention(attention), inputs, y);
    }

    pub(super) fn head(&mut self, name: &str, x: TensorId, y: TensorId, [rows, k, n]: [usize; 3]) {
        let arrays = self.gemm_arrays(k, n, 40_000.0);
        let head = PoolLinear::new(rows, arrays.gemm(Output::S32)).expect("valid head");
        self.op(name, OpKind::PoolLinear(head), [Some(x), None, None], y);
    }

    pub(super) fn add(
        &mut self,
        name: &str,
        (a, b): (Operand, Second),
        y: TensorId,
        [rows, channels]: [usize; 2],
        epilogue: Epilogue,
    ) {
        let spread = epilogue.spread();
        // Two terms and the bias stay within the type.
        let scale_a = self.scales(channels, 0.5 * spread / a.spread);
        let (scale_b, constant) = match b {
            Second::None => (Vec::new(), Vec::new()),
            Second::Tensor(b) => (self.scales(channels, 0.5 * spread / b.spread), Vec::new()),
            Second::Constant => (
                self.scales(channels, 0.5 * spread / 19_000.0),
                self.random.words(rows * channels),
            ),
        };
        let bias: Vec<f32> = (0..channels)
            .map(|_| (self.random.unit() - 0.5) * spread)
            .collect();
        let table = self.table();
        let term = |operand: Operand, scale| Term {
            element: operand.element,
            scale,
        };
        let addend = match b {
            Second::None => Addend::None,
            Second::Tensor(b) => Addend::Tensor(term(b, &scale_b)),
            Second::Constant => Addend::Constant {
                values: &constant,
                scale: &scale_b,
            },
        };
        let output = epilogue.output(&table);
        let add =
            Add::new(rows, channels, term(a, &scale_a), addend, &bias, output).expect("valid add");
        let second = match b {
            Second::Tensor(b) => Some(b.id),
            Second::None | Second::Constant => None,
        };
        self.op(name, OpKind::Add(add), [Some(a.id), second, None], y);
    }

    /// The product of a map's pixels with `rows` rows of `stride` columns, from column `offset` on; four rows are those of the windows.
    pub(super) fn mul(
        &mut self,
        name: &str,
        [a, b]: [Operand; 2],
        y: TensorId,
        [rows, stride, offset]: [usize; 3],
        epilogue: Epilogue,
    ) {
        let scale = self.scales(8, 0.5 * epilogue.spread() / (a.spread * b.spread));
        let windows: Vec<u32> = (0..64).map(|i| i / 32 * 2 + i % 8 / 4).collect();
        let zero_point = |operand: Operand, z| {
            if matches!(operand.element, InType::S8) {
                z
            } else {
                0
            }
        };
        let table = self.table();
        let mul = Mul::new(
            64,
            8,
            Factor {
                element: a.element,
                zero_point: zero_point(a, 5),
            },
            Gate {
                element: b.element,
                zero_point: zero_point(b, -3),
                rows,
                stride,
                offset,
                table: (rows == 4).then_some(&windows),
            },
            &scale,
            epilogue.output(&table),
        );
        let kind = OpKind::Mul(mul.expect("valid mul"));
        self.op(name, kind, [Some(a.id), Some(b.id), None], y);
    }

    pub(super) fn max_pool(&mut self, name: &str, x: Operand, y: TensorId, shape: ConvShape) {
        let pool = MaxPool::new(shape, x.element).expect("valid max pool");
        self.op(name, OpKind::MaxPool(pool), [Some(x.id), None, None], y);
    }

    /// Between 0.75 and 1.25 times `about`.
    fn scales(&mut self, len: usize, about: f32) -> Vec<f32> {
        (0..len)
            .map(|_| (0.75 + 0.5 * self.random.unit()) * about)
            .collect()
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
        let mut scale = self.scales(n, spread / sum);
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

    pub(super) fn finish(self, input: TensorId, output: TensorId) -> AlignedBytes {
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

/// A tensor of the type's usual scale.
fn tensor(name: &str, dtype: DType, shape: [u32; 4], offset: usize) -> Tensor<'_> {
    Tensor {
        name,
        dtype,
        shape,
        offset: offset as u32,
        scale: match dtype {
            DType::S8 => 1.0 / 32.0,
            DType::S16 => 1.0 / 4096.0,
            DType::S32 => 1.0 / 65536.0,
        },
        scales: &[],
        zero_point: 0,
        held: 0,
    }
}

/// Where the next tensor may start.
fn end(tensor: &Tensor<'_>) -> usize {
    let range = tensor.arena_range().expect("small tensor");
    align_up(range.end).expect("small tensor")
}

pub(super) fn shape(
    input: [u32; 3],
    output: [u32; 3],
    kernel: u32,
    stride: u32,
    pad: u32,
) -> ConvShape {
    let ([in_h, in_w, in_c], [out_h, out_w, out_c]) = (input, output);
    // An even kernel with stride 2 needs no padding at the far side; an odd one with stride 2 on an even image neither.
    let far = if stride == 2 { 0 } else { pad };
    // A column of pixels has a column of taps.
    let (kernel, stride) = ([kernel, kernel.min(in_w + 2 * pad)], [stride; 2]);
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
pub(super) struct Random(pub(super) u64);

impl Random {
    pub(super) fn next(&mut self) -> u64 {
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

    fn words(&mut self, len: usize) -> Vec<i16> {
        (0..len).map(|_| self.next() as i16).collect()
    }

    /// In −127 to 127.
    fn weights(&mut self, len: usize) -> Vec<i8> {
        self.bytes(len).into_iter().map(|w| w.max(-127)).collect()
    }
}
