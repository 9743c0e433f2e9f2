//! Runs the attentions of Swin-T and SepViT-Lite at 224×224 on arbitrary data, to count instructions as `pvt_ops` does:
//!
//! ```text
//! window_ops <kernel> <attention> <times>
//! ```
//! Attentions: swin (windows by tables, bias, half of them shifted and masked), sepvit (windows with a constant token) and psa (SepViT's between windows).
use std::error::Error;

use vitlet_kernels::{
    Attention, AttentionQuantisation, AttentionShape, Bias, Kernel, Operand, Out, View,
};

type Outcome = Result<(), Box<dyn Error>>;

const HEAD_DIM: usize = 32;

/// One attention: windows of `size`² on a map of `side`².
#[derive(Clone, Copy)]
struct Layer {
    side: usize,
    size: usize,
    heads: usize,
    /// Of Swin: the map is moved by that many pixels.
    shift: usize,
    form: Form,
}

#[derive(Clone, Copy, PartialEq)]
enum Form {
    Swin,
    /// A constant token before the window's pixels, if there are several windows.
    Token,
    /// Between windows.
    Windows,
}

fn swin() -> Vec<Layer> {
    let stages = [(56, 3, 1), (28, 6, 1), (14, 12, 3), (7, 24, 1)];
    stages
        .iter()
        .flat_map(|&(side, heads, pairs)| {
            let layer = |shift| Layer {
                side,
                size: 7,
                heads,
                shift,
                form: Form::Swin,
            };
            [layer(0), layer(if side > 7 { 3 } else { 0 })].repeat(pairs)
        })
        .collect()
}

fn sepvit(form: Form) -> Vec<Layer> {
    let layer = |side, size, heads| Layer {
        side,
        size,
        heads,
        shift: 0,
        form,
    };
    let third = [layer(14, 7, 4), layer(14, 14, 4)].repeat(3);
    [layer(56, 7, 1), layer(28, 7, 2), layer(28, 14, 2)]
        .into_iter()
        .chain(third)
        .chain([layer(7, 7, 8); 2])
        .filter(|layer| form != Form::Windows || layer.side > layer.size)
        .collect()
}

impl Layer {
    fn windows(self) -> usize {
        (self.side / self.size) * (self.side / self.size)
    }

    /// Row of a window's pixel.
    fn row(self, window: usize, pixel: usize) -> u32 {
        let across = self.side / self.size;
        let y = window / across * self.size + pixel / self.size + self.shift;
        let x = window % across * self.size + pixel % self.size + self.shift;
        (y % self.side * self.side + x % self.side) as u32
    }

    /// Swin's label of a window's pixel, before the shift.
    fn label(self, window: usize, pixel: usize) -> u8 {
        let across = self.side / self.size;
        let part = |v: usize| match v {
            v if v < self.side - self.size => 0,
            v if v < self.side - self.shift => 1,
            _ => 2,
        };
        let y = part(window / across * self.size + pixel / self.size);
        3 * y + part(window % across * self.size + pixel % self.size)
    }

    fn shape(self) -> AttentionShape {
        let (windows, pixels) = (self.windows(), self.size * self.size);
        let tokens = pixels + usize::from(self.form == Form::Token && windows > 1);
        let (groups, slots, tokens) = match self.form {
            Form::Windows => (1, pixels, windows),
            _ => (windows, 1, tokens),
        };
        AttentionShape {
            heads: self.heads,
            head_dim: HEAD_DIM,
            groups,
            slots,
            queries: tokens,
            keys: tokens,
        }
    }

    /// Rows of every window's pixels; before them the token's, if there is one.
    fn tables(self) -> [Vec<u32>; 2] {
        let (windows, pixels) = (self.windows(), self.size * self.size);
        let rows = (self.side * self.side) as u32;
        let window = |w: usize| (0..pixels).map(move |p| self.row(w, p));
        let with = |token: fn(u32, u32) -> u32| {
            let has_token = self.form == Form::Token && windows > 1;
            (0..windows)
                .flat_map(|w| {
                    has_token
                        .then(|| token(rows, w as u32))
                        .into_iter()
                        .chain(window(w))
                })
                .collect()
        };
        match self.form {
            Form::Windows => {
                let slots = (0..pixels).flat_map(|p| (0..windows).map(move |w| self.row(w, p)));
                let slots: Vec<u32> = slots.collect();
                [slots.clone(), slots]
            }
            _ => [with(|rows, _| rows), with(|rows, w| rows + w)],
        }
    }

    fn run(
        self,
        kernel: Kernel,
        times: u32,
        data: &[i8],
        seconds: &mut f64,
    ) -> Result<u64, Box<dyn Error>> {
        let (shape, [inputs, outputs]) = (self.shape(), self.tables());
        let (channels, pixels) = (self.heads * HEAD_DIM, self.side * self.side);
        let operand = |part: usize, rows, tensor_rows, constants| Operand {
            view: View {
                offset: part * channels,
                row_stride: if part == 3 { channels } else { 3 * channels },
                head_stride: HEAD_DIM,
            },
            rows,
            tensor_rows,
            constants,
        };
        let token = &data[..3 * channels];
        let input = |part| operand(part, Some(&inputs[..]), pixels, token);
        let qk = |part| match self.form {
            Form::Windows => operand(part, None, shape.queries, &[]),
            _ => input(part),
        };
        let out_rows = pixels
            + if self.form == Form::Token {
                self.windows()
            } else {
                0
            };
        let mut out = operand(0, Some(&outputs[..]), out_rows, &[]);
        out.view.row_stride = channels;
        let scale = vec![0.01; self.heads];
        let quantisation = AttentionQuantisation {
            logit_scale: &scale,
            out_scale: &scale,
            zero_point: 0,
            min: -128,
        };
        let table: Vec<i32> = (0..169 * self.heads as i32)
            .map(|i| (i * 37) % 4096)
            .collect();
        let bias = (self.form == Form::Swin).then_some(Bias {
            table: &table,
            window: Some([7, 7]),
        });
        let labels: Vec<u8> = (0..shape.groups * shape.queries)
            .map(|i| self.label(i / shape.queries, i % shape.queries))
            .collect();
        let mask = (self.shift > 0).then_some(&labels[..]);
        let operands = [qk(0), qk(1), input(2), out];
        let attention = Attention::new(shape, operands, quantisation, bias, mask)?;
        let mut y = vec![0; attention.output_len()];
        let mut scratch = vec![0; attention.scratch_len()];
        let start = std::time::Instant::now();
        for _ in 0..times {
            let rows = 0..attention.rows();
            attention.run(
                kernel,
                rows,
                data,
                data,
                data,
                Out::S8(&mut y),
                &mut scratch,
            )?;
        }
        *seconds += start.elapsed().as_secs_f64();
        Ok(attention.macs())
    }
}

#[allow(clippy::print_stdout, reason = "a program")]
fn main() -> Outcome {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [kernel, name, times] = &arguments[..] else {
        return Err("usage: window_ops <kernel> <swin, sepvit or psa> <times>".into());
    };
    let times: u32 = times.parse()?;
    let layers = match &name[..] {
        "swin" => swin(),
        "sepvit" => sepvit(Form::Token),
        "psa" => sepvit(Form::Windows),
        _ => return Err("attentions are swin, sepvit and psa".into()),
    };
    let kernel_used = Kernel::from_name(kernel)?;
    let data: Vec<i8> = (0..1 << 20)
        .map(|i| ((i * 37) % 255) as i8)
        .map(|v| v.max(-127))
        .collect();
    let (mut macs, mut seconds) = (0, 0.0);
    for layer in layers {
        macs += layer.run(kernel_used, times, &data, &mut seconds)?;
    }
    let each = f64::from(times.max(1));
    println!(
        "{kernel} {name}: {:.1} MMAC, {:.3} ms",
        macs as f64 / 1e6,
        seconds / each * 1e3
    );
    Ok(())
}
