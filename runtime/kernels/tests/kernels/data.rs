//! Data from a seed, requantisations, and the comparison of kernels.

use std::ops::Range;

use vitlet_kernels::{
    In, InType, Kernel, Out, Output, Requantise, SizeError, pack, packed_len, padded_n,
};

/// How a tensor is filled.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Fill {
    /// Anything.
    Random,
    /// The extremes of the range only, at random.
    Extremes,
    /// The lowest value everywhere.
    Lowest,
}

pub(crate) const FILLS: [Fill; 3] = [Fill::Random, Fill::Extremes, Fill::Lowest];

/// A small generator (SplitMix64), the same on every target.
pub(crate) struct Source(pub(crate) u64);

impl Source {
    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    pub(crate) fn range(&mut self, low: i64, high: i64) -> i64 {
        low + (self.next() % (high - low + 1) as u64) as i64
    }

    pub(crate) fn tensor<T: TryFrom<i64>>(
        &mut self,
        len: usize,
        low: i64,
        high: i64,
        fill: Fill,
    ) -> Vec<T> {
        let value = |source: &mut Self| match fill {
            Fill::Random => source.range(low, high),
            Fill::Extremes => [low, high][source.range(0, 1) as usize],
            Fill::Lowest => low,
        };
        (0..len)
            .map(|_| T::try_from(value(self)).ok().unwrap())
            .collect()
    }

    /// Between 2^low and 2^high, any mantissa.
    pub(crate) fn float(&mut self, low: i32, high: i32) -> f32 {
        let exponent = self.range(i64::from(low), i64::from(high) - 1) as i32;
        f32::from_bits(((127 + exponent) as u32) << 23 | (self.next() as u32 & 0x7f_ffff))
    }
}

/// An operand of any type.
#[derive(Debug)]
pub(crate) enum Tensor {
    S8(Vec<i8>),
    S16(Vec<i16>),
    S32(Vec<i32>),
}

impl Tensor {
    pub(crate) fn new(source: &mut Source, element: InType, len: usize, fill: Fill) -> Self {
        match element {
            InType::S8 => Self::S8(source.tensor(len, -128, 127, fill)),
            InType::S16 => Self::S16(source.tensor(len, -32768, 32767, fill)),
            InType::S32 => Self::S32(source.tensor(len, -(1 << 22) + 1, (1 << 22) - 1, fill)),
        }
    }

    pub(crate) fn input(&self) -> In<'_> {
        match self {
            Self::S8(x) => In::S8(x),
            Self::S16(x) => In::S16(x),
            Self::S32(x) => In::S32(x),
        }
    }

    pub(crate) fn at(&self, index: usize) -> f64 {
        match self {
            Self::S8(x) => f64::from(x[index]),
            Self::S16(x) => f64::from(x[index]),
            Self::S32(x) => f64::from(x[index]),
        }
    }
}

/// The output forms.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Form {
    S8,
    S8Table,
    S16,
    S16Add,
    S32,
}

pub(crate) const FORMS: [Form; 5] = [Form::S8, Form::S8Table, Form::S16, Form::S16Add, Form::S32];

/// Owner of a requantisation's arrays.
pub(crate) struct Epilogue {
    bias: Vec<i32>,
    scale: Vec<f32>,
    table: [i8; 256],
    zero_point: i8,
    min: i8,
}

impl Epilogue {
    /// For `channels` accumulators of up to `reach`; `gain` is log2 of the largest scaled accumulator.
    pub(crate) fn new(source: &mut Source, channels: usize, reach: i64, gain: i32) -> Self {
        let limit = 31 - (reach * 2).ilog2() as i32 - 1;
        let top = (gain - reach.ilog2() as i32).min(limit);
        let mut table = [0; 256];
        table.copy_from_slice(&source.tensor::<i8>(256, -128, 127, Fill::Random));
        Self {
            bias: (0..channels)
                .map(|_| source.range(-reach, reach) as i32)
                .collect(),
            scale: (0..channels).map(|_| source.float(top - 3, top)).collect(),
            table,
            zero_point: source.range(-128, 127) as i8,
            min: source.range(-128, -127) as i8,
        }
    }

    /// Halves: every other accumulator ends in a tie.
    pub(crate) fn halving(channels: usize, zero_point: i8, min: i8) -> Self {
        Self {
            bias: vec![1; channels],
            scale: vec![0.5; channels],
            table: [0; 256],
            zero_point,
            min,
        }
    }

    pub(crate) fn output(&self, form: Form) -> Output<'_> {
        match form {
            Form::S8 => Output::S8 {
                zero_point: self.zero_point,
                min: self.min,
                table: None,
            },
            Form::S8Table => Output::S8 {
                zero_point: self.zero_point,
                min: self.min,
                table: Some(&self.table),
            },
            Form::S16 | Form::S16Add => Output::S16,
            Form::S32 => Output::S32,
        }
    }

    pub(crate) fn requantise(&self, form: Form) -> Requantise<'_> {
        Requantise::new(&self.bias, &self.scale, self.output(form)).unwrap()
    }

    /// What becomes of a real number, within half a unit and rounding errors of `error`: the least and the largest of it.
    pub(crate) fn near(&self, form: Form, exact: f64, error: f64) -> [i32; 2] {
        [-0.5 - error, 0.5 + error].map(|off| {
            let r = (exact + off).clamp(-4_194_303.0, 4_194_303.0);
            let r = if off < 0.0 { r.ceil() } else { r.floor() } as i32;
            match form {
                Form::S8 | Form::S8Table => (r.clamp(-32768, 32767) + i32::from(self.zero_point))
                    .clamp(i32::from(self.min), 127),
                Form::S16 | Form::S16Add => r.clamp(-32768, 32767),
                Form::S32 => r,
            }
        })
    }

    /// The output element that comes of `q`.
    pub(crate) fn looked_up(&self, form: Form, q: i32) -> i32 {
        match form {
            Form::S8Table => i32::from(self.table[usize::from(q as i8 as u8)]),
            _ => q,
        }
    }
}

/// A packed weight matrix and its epilogue.
pub(crate) struct Matrix {
    pub(crate) k: usize,
    pub(crate) n: usize,
    pub(crate) packed: Vec<i8>,
    pub(crate) epilogue: Epilogue,
}

impl Matrix {
    pub(crate) fn new(source: &mut Source, k: usize, n: usize, fill: Fill, gain: i32) -> Self {
        let mut packed = vec![0; packed_len(n, k).unwrap()];
        pack(n, k, &source.tensor(n * k, -127, 127, fill), &mut packed).unwrap();
        Self {
            k,
            n,
            packed,
            epilogue: Epilogue::new(source, padded_n(n), 127 * 128 * k as i64, gain),
        }
    }

    pub(crate) fn gemm(&self, form: Form) -> vitlet_kernels::Gemm<'_> {
        vitlet_kernels::Gemm::new(self.k, self.n, &self.packed, self.epilogue.requantise(form))
            .unwrap()
    }
}

/// Guard elements around every output.
const GUARD: usize = 64;

/// An output with guards, as i32 for comparison.
pub(crate) fn output(
    form: Form,
    len: usize,
    run: impl FnOnce(Out<'_>) -> Result<(), SizeError>,
) -> Result<Vec<i32>, SizeError> {
    let range = GUARD..GUARD + len;
    // What S16Add adds to, and what the guards keep.
    let before = Source(7).tensor::<i16>(len + 2 * GUARD, -32768, 32767, Fill::Random);
    let (mut narrow, mut middle) = (
        before.iter().map(|&v| v as i8).collect::<Vec<_>>(),
        before.clone(),
    );
    let mut wide = before.iter().map(|&v| i32::from(v)).collect::<Vec<_>>();
    run(match form {
        Form::S8 | Form::S8Table => Out::S8(&mut narrow[range.clone()]),
        Form::S16 => Out::S16(&mut middle[range.clone()]),
        Form::S16Add => Out::S16Add(&mut middle[range.clone()]),
        Form::S32 => Out::S32(&mut wide[range.clone()]),
    })?;
    for (index, &v) in before
        .iter()
        .enumerate()
        .filter(|(index, _)| !range.contains(index))
    {
        assert_eq!(
            (narrow[index], middle[index], wide[index]),
            (v as i8, v, i32::from(v)),
            "guard {index} overwritten"
        );
    }
    Ok(match form {
        Form::S8 | Form::S8Table => narrow[range].iter().map(|&v| i32::from(v)).collect(),
        Form::S16 | Form::S16Add => middle[range].iter().map(|&v| i32::from(v)).collect(),
        Form::S32 => wide[range].to_vec(),
    })
}

/// Compares every kernel with the reference: all rows at once, then in two parts. `run` gets kernel, rows, output and dirty scratch.
pub(crate) fn compare(
    what: &str,
    form: Form,
    rows: usize,
    row_len: usize,
    scratch_len: usize,
    run: impl Fn(Kernel, Range<usize>, Out<'_>, &mut [i8]) -> Result<(), SizeError>,
) -> Vec<i32> {
    let all = |kernel: Kernel, rows: Range<usize>| {
        // Misaligned on purpose.
        let mut scratch = vec![-77_i8; scratch_len + 1];
        output(form, rows.len() * row_len, |out| {
            run(kernel, rows, out, &mut scratch[1..])
        })
        .unwrap()
    };
    let expected = all(Kernel::SCALAR, 0..rows);
    for kernel in Kernel::available() {
        let name = kernel.name();
        same(what, name, &all(kernel, 0..rows), &expected, row_len);
        if form != Form::S16Add {
            let split = rows.div_ceil(3);
            let parts = [
                all(kernel, 0..split),
                all(kernel, split..split),
                all(kernel, split..rows),
            ]
            .concat();
            same(what, name, &parts, &expected, row_len);
        }
    }
    expected
}

fn same(what: &str, kernel: &str, actual: &[i32], expected: &[i32], row_len: usize) {
    assert_eq!(actual.len(), expected.len());
    if let Some(index) = (0..actual.len()).find(|&index| actual[index] != expected[index]) {
        let (row, column) = (index / row_len, index % row_len);
        panic!(
            "{what}: {kernel} gives {} at row {row}, element {column}; scalar gives {}",
            actual[index], expected[index]
        );
    }
}
