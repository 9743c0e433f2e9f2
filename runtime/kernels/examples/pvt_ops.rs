//! Runs the operations of PVTv2-b0 at 224×224 on arbitrary data, to count instructions per kind of operation:
//!
//! ```text
//! pvt_ops <kernel> <operation, or all> <times>
//! ```
//! The count of times = 2 less the count of times = 1 is that of one inference. Operations: conv linear depthwise layernorm attention pool.
use std::error::Error;

use vitlet_kernels::{
    Attention, AttentionQuantisation, AttentionShape, Conv, ConvShape, Depthwise, Gemm, Kernel,
    LayerNorm, Linear, NormOutput, Operand, Out, Output, PoolLinear, Requantise, View, packed_len,
    padded_n,
};

type Outcome = Result<(), Box<dyn Error>>;

/// Channels, tokens per side, heads, spatial reduction, hidden channels of the four stages; each has two blocks.
const STAGES: [[usize; 5]; 4] = [
    [32, 56, 1, 8, 256],
    [64, 28, 2, 4, 512],
    [160, 14, 5, 2, 640],
    [256, 7, 8, 1, 1024],
];
const BLOCKS: usize = 2;

struct Bench {
    kernel: Kernel,
    only: String,
    times: u32,
    macs: u64,
    seconds: f64,
    x: Vec<i8>,
    x16: Vec<i16>,
    scale: Vec<f32>,
    bias: Vec<i32>,
    out8: Vec<i8>,
    out16: Vec<i16>,
    out32: Vec<i32>,
    scratch: Vec<i8>,
}

impl Bench {
    fn new(kernel: Kernel, only: String, times: u32) -> Self {
        let len = 1 << 20;
        Self {
            kernel,
            only,
            times,
            macs: 0,
            seconds: 0.0,
            x: (0..len)
                .map(|i| ((i * 37) % 255) as i8)
                .map(|v| v.max(-127))
                .collect(),
            x16: (0..len).map(|i| ((i * 1237) % 65535) as i16).collect(),
            scale: vec![0.001; 4096],
            bias: vec![1; 4096],
            out8: vec![0; len],
            out16: vec![0; len],
            out32: vec![0; 4096],
            scratch: vec![0; len],
        }
    }

    fn wants(&self, name: &str) -> bool {
        self.only == "all" || self.only == name
    }

    fn requantise<'a>(
        &'a self,
        channels: usize,
        output: Output<'a>,
    ) -> Result<Requantise<'a>, Box<dyn Error>> {
        Ok(Requantise::new(
            &self.bias[..channels],
            &self.scale[..channels],
            output,
        )?)
    }

    fn linear(&mut self, rows: usize, k: usize, n: usize, wide: bool) -> Outcome {
        if !self.wants("linear") {
            return Ok(());
        }
        let weights = vec![3; packed_len(n, k).ok_or("too large")?];
        let (mut out8, mut out16, mut scratch) = self.buffers();
        let output = if wide { Output::S16 } else { S8 };
        let linear = Linear::new(
            rows,
            Gemm::new(k, n, &weights, self.requantise(padded_n(n), output)?)?,
        )?;
        let start = std::time::Instant::now();
        for _ in 0..self.times {
            let out = if wide {
                Out::S16Add(&mut out16[..rows * n])
            } else {
                Out::S8(&mut out8[..rows * n])
            };
            linear.run(self.kernel, 0..rows, &self.x[..rows * k], out, &mut scratch)?;
        }
        let (macs, seconds) = (linear.macs(), start.elapsed().as_secs_f64());
        self.finish(macs, seconds, out8, out16, scratch);
        Ok(())
    }

    fn conv(&mut self, [size, in_c, out_c, kernel, stride, pad]: [u32; 6]) -> Outcome {
        if !self.wants("conv") {
            return Ok(());
        }
        let out_size = ConvShape::output_size(size, kernel, stride, 2 * pad).ok_or("no output")?;
        let shape = shape(size, out_size, [in_c, out_c], kernel, stride, pad);
        let (k, n) = ((kernel * kernel * in_c) as usize, out_c as usize);
        let weights = vec![3; packed_len(n, k).ok_or("too large")?];
        let (out8, mut out16, mut scratch) = self.buffers();
        let gemm = Gemm::new(k, n, &weights, self.requantise(padded_n(n), Output::S16)?)?;
        let conv = Conv::new(shape, &self.x[..in_c as usize], gemm)?;
        let start = std::time::Instant::now();
        for _ in 0..self.times {
            let out = Out::S16(&mut out16[..shape.output_len()]);
            conv.run(
                self.kernel,
                0..conv.rows(),
                &self.x[..shape.input_len()],
                out,
                &mut scratch,
            )?;
        }
        let (macs, seconds) = (conv.macs(), start.elapsed().as_secs_f64());
        self.finish(macs, seconds, out8, out16, scratch);
        Ok(())
    }

    fn depthwise(&mut self, size: usize, channels: usize) -> Outcome {
        if !self.wants("depthwise") {
            return Ok(());
        }
        let shape = shape(size as u32, size as u32, [channels as u32; 2], 3, 1, 1);
        let table = [5; 256];
        let (mut out8, out16, mut scratch) = self.buffers();
        let weights = vec![3; 9 * channels];
        let output = Output::S8 {
            zero_point: 3,
            min: -128,
            table: Some(&table),
        };
        let depthwise = Depthwise::new(
            shape,
            &weights,
            &self.x[..channels],
            self.requantise(channels, output)?,
        )?;
        let start = std::time::Instant::now();
        for _ in 0..self.times {
            let out = Out::S8(&mut out8[..shape.output_len()]);
            depthwise.run(
                self.kernel,
                0..size,
                &self.x[..shape.input_len()],
                out,
                &mut scratch,
            )?;
        }
        let (macs, seconds) = (depthwise.macs(), start.elapsed().as_secs_f64());
        self.finish(macs, seconds, out8, out16, scratch);
        Ok(())
    }

    fn layernorm(&mut self, rows: usize, channels: usize) -> Outcome {
        if !self.wants("layernorm") {
            return Ok(());
        }
        let (mut out8, out16, mut scratch) = self.buffers();
        let (gamma, beta) = (&self.scale[..channels], &self.scale[..channels]);
        let norm = LayerNorm::new(rows, channels, 1000, gamma, beta, NormOutput::S8)?;
        let start = std::time::Instant::now();
        for _ in 0..self.times {
            let out = Out::S8(&mut out8[..rows * channels]);
            norm.run(
                self.kernel,
                0..rows,
                &self.x16[..rows * channels],
                out,
                &mut scratch,
            )?;
        }
        let seconds = start.elapsed().as_secs_f64();
        self.finish(0, seconds, out8, out16, scratch);
        Ok(())
    }

    fn attention(&mut self, heads: usize, channels: usize, queries: usize, keys: usize) -> Outcome {
        if !self.wants("attention") {
            return Ok(());
        }
        let (mut out8, out16, mut scratch) = self.buffers();
        let head_stride = channels / heads;
        let view = |offset, row_stride| View {
            offset,
            row_stride,
            head_stride,
        };
        let operands = [
            Operand::plain(view(0, channels), queries),
            Operand::plain(view(0, 2 * channels), keys),
            Operand::plain(view(channels, 2 * channels), keys),
            Operand::plain(view(0, channels), queries),
        ];
        let shape = AttentionShape {
            heads,
            head_dim: head_stride,
            groups: 1,
            slots: 1,
            queries,
            keys,
        };
        let quantisation = AttentionQuantisation {
            logit_scale: &self.scale[..heads],
            out_scale: &self.scale[..heads],
            zero_point: 0,
            min: -128,
        };
        let attention = Attention::new(shape, operands, quantisation, None, None)?;
        let start = std::time::Instant::now();
        for _ in 0..self.times {
            let out = Out::S8(&mut out8[..queries * channels]);
            attention.run(
                self.kernel,
                0..queries,
                &self.x,
                &self.x,
                &self.x,
                out,
                &mut scratch,
            )?;
        }
        let (macs, seconds) = (attention.macs(), start.elapsed().as_secs_f64());
        self.finish(macs, seconds, out8, out16, scratch);
        Ok(())
    }

    fn pool(&mut self) -> Outcome {
        if !self.wants("pool") {
            return Ok(());
        }
        let weights = vec![3; packed_len(1000, 256).ok_or("too large")?];
        let (out8, out16, mut scratch) = self.buffers();
        let mut out32 = std::mem::take(&mut self.out32);
        let gemm = Gemm::new(256, 1000, &weights, self.requantise(1000, Output::S32)?)?;
        let pool = PoolLinear::new(49, gemm)?;
        let start = std::time::Instant::now();
        for _ in 0..self.times {
            pool.run(
                self.kernel,
                0..1,
                &self.x[..49 * 256],
                Out::S32(&mut out32[..1000]),
                &mut scratch,
            )?;
        }
        let (macs, seconds) = (pool.macs(), start.elapsed().as_secs_f64());
        self.out32 = out32;
        self.finish(macs, seconds, out8, out16, scratch);
        Ok(())
    }

    fn buffers(&mut self) -> (Vec<i8>, Vec<i16>, Vec<i8>) {
        let take = std::mem::take::<Vec<i8>>;
        (
            take(&mut self.out8),
            std::mem::take(&mut self.out16),
            take(&mut self.scratch),
        )
    }

    fn finish(
        &mut self,
        macs: u64,
        seconds: f64,
        out8: Vec<i8>,
        out16: Vec<i16>,
        scratch: Vec<i8>,
    ) {
        self.macs += macs;
        self.seconds += seconds;
        (self.out8, self.out16, self.scratch) = (out8, out16, scratch);
    }

    fn inference(&mut self) -> Outcome {
        let (mut in_c, mut in_size) = (3, 224);
        for [channels, size, heads, reduction, hidden] in STAGES {
            let (tokens, wide) = (size * size, channels as u32);
            let (kernel, stride) = if in_c == 3 { (7, 4) } else { (3, 2) };
            self.conv([
                in_size as u32,
                in_c as u32,
                wide,
                kernel,
                stride,
                kernel / 2,
            ])?;
            self.layernorm(tokens, channels)?;
            for _ in 0..BLOCKS {
                self.layernorm(tokens, channels)?;
                self.linear(tokens, channels, channels, false)?;
                if reduction > 1 {
                    self.conv([
                        size as u32,
                        wide,
                        wide,
                        reduction as u32,
                        reduction as u32,
                        0,
                    ])?;
                    self.layernorm(49, channels)?;
                }
                self.linear(49, channels, 2 * channels, false)?;
                self.attention(heads, channels, tokens, 49)?;
                self.linear(tokens, channels, channels, true)?;
                self.layernorm(tokens, channels)?;
                self.linear(tokens, channels, hidden, false)?;
                self.depthwise(size, hidden)?;
                self.linear(tokens, hidden, channels, true)?;
            }
            self.layernorm(tokens, channels)?;
            (in_c, in_size) = (channels, size);
        }
        self.pool()
    }
}

const S8: Output<'static> = Output::S8 {
    zero_point: 3,
    min: -128,
    table: None,
};

fn shape(size: u32, out: u32, channels: [u32; 2], kernel: u32, stride: u32, pad: u32) -> ConvShape {
    ConvShape {
        in_h: size,
        in_w: size,
        in_c: channels[0],
        out_h: out,
        out_w: out,
        out_c: channels[1],
        kernel: [kernel; 2],
        stride: [stride; 2],
        pad: [pad; 4],
    }
}

#[allow(clippy::print_stdout, reason = "a program")]
fn main() -> Outcome {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [kernel, only, times] = &arguments[..] else {
        return Err("usage: pvt_ops <kernel> <operation, or all> <times>".into());
    };
    let times: u32 = times.parse()?;
    let mut bench = Bench::new(Kernel::from_name(kernel)?, only.clone(), times);
    bench.inference()?;
    let each = f64::from(times.max(1));
    println!(
        "{kernel} {only}: {:.1} MMAC, {:.3} ms",
        bench.macs as f64 / 1e6,
        bench.seconds / each * 1e3
    );
    Ok(())
}
