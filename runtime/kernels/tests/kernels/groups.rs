//! Attention in groups: rows by table, constants, slots, bias and mask. Kernels agree, and the reference is near softmax.

use std::ops::Range;

use proptest::prelude::*;
use vitlet_kernels::{
    Attention, AttentionQuantisation, AttentionShape, Bias, Kernel, Operand, Out, ParamError, View,
};

use crate::data::{FILLS, Fill, Form, Source, compare, output};

/// What is added to the logits.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Added {
    Nothing,
    /// A table for every pair of tokens.
    Pairs,
    /// A table by distance in a window of that height and width.
    Window([u32; 2]),
}

/// One of the two constructors.
type New<'a> = fn(
    AttentionShape,
    [Operand<'a>; 4],
    AttentionQuantisation<'a>,
    Option<Bias<'a>>,
    Option<&'a [u8]>,
) -> Result<Attention<'a>, ParamError>;

/// What a test does to arrays that are in order.
type Spoil = fn(&mut Arrays);

#[derive(Clone, Copy, Debug)]
struct Case {
    shape: AttentionShape,
    tables: bool,
    constants: bool,
    added: Added,
    /// Different labels of the tokens of a group.
    labels: Option<u8>,
    /// log2 of the logit scale.
    steepness: i32,
    fill: Fill,
    seed: u64,
}

/// An operand's rows, and where they lie.
struct Storage {
    view: View,
    /// Row of every element.
    rows: Vec<u32>,
    has_table: bool,
    tensor_rows: usize,
    tensor: Vec<i8>,
    constants: Vec<i8>,
}

impl Storage {
    fn new(source: &mut Source, case: &Case, elements: usize) -> Self {
        let AttentionShape {
            heads, head_dim, ..
        } = case.shape;
        let mut up_to = |most: i64| source.range(0, most) as usize;
        let offset = up_to(5);
        let head_stride = head_dim + up_to(3);
        let view = View {
            offset,
            row_stride: offset + heads * head_stride + up_to(4),
            head_stride,
        };
        let total = elements
            + if case.tables {
                up_to(elements as i64)
            } else {
                0
            };
        let tensor_rows = if case.constants {
            up_to(total as i64)
        } else {
            total
        };
        let rows = (0..elements as u32)
            .map(|index| match case.tables {
                true => up_to(total as i64 - 1) as u32,
                false => index,
            })
            .collect();
        let mut tensor: Vec<i8> = source.tensor(total * view.row_stride, -127, 127, case.fill);
        let constants = tensor.split_off(tensor_rows * view.row_stride);
        Self {
            view,
            rows,
            has_table: case.tables,
            tensor_rows,
            tensor,
            constants,
        }
    }

    fn operand(&self) -> Operand<'_> {
        Operand {
            view: self.view,
            rows: self.has_table.then_some(&self.rows[..]),
            tensor_rows: self.tensor_rows,
            constants: &self.constants,
        }
    }

    /// One head of an element.
    fn head(&self, case: &Case, head: usize, element: usize) -> &[i8] {
        let row = self.rows[element] as usize;
        let first = self.view.offset + head * self.view.head_stride;
        let row = if row < self.tensor_rows {
            &self.tensor[row * self.view.row_stride..]
        } else {
            &self.constants[(row - self.tensor_rows) * self.view.row_stride..]
        };
        &row[first..][..case.shape.head_dim]
    }
}

/// The owner of all arrays of a case.
struct Arrays {
    q: Storage,
    k: Storage,
    v: Storage,
    out_view: View,
    out_rows: Vec<u32>,
    out_tensor_rows: usize,
    logit_scale: Vec<f32>,
    out_scale: Vec<f32>,
    zero_point: i8,
    min: i8,
    bias: Vec<i32>,
    labels: Vec<u8>,
}

impl Arrays {
    fn new(case: &Case) -> Self {
        let AttentionShape {
            heads,
            head_dim,
            groups,
            slots,
            queries,
            keys,
        } = case.shape;
        let source = &mut Source(case.seed);
        let (q, k, v) = (
            Storage::new(source, case, groups * queries),
            Storage::new(source, case, groups * keys),
            Storage::new(source, case, groups * slots * keys),
        );
        let outputs = groups * slots * queries;
        let (out_view, out_rows, out_tensor_rows) = if case.tables {
            Self::output_table(source, case, outputs)
        } else {
            // Without bytes between heads, which a run leaves alone.
            let view = View {
                offset: 0,
                row_stride: heads * head_dim,
                head_stride: head_dim,
            };
            (view, (0..outputs as u32).collect(), outputs)
        };
        let entries = match case.added {
            Added::Nothing => 0,
            Added::Pairs => queries * keys,
            Added::Window([height, width]) => ((2 * height - 1) * (2 * width - 1)) as usize,
        };
        let mut steepness = case.steepness;
        if case.added != Added::Nothing || case.labels.is_some() {
            // Scaled logits stay below 2^22 - 1.
            steepness = steepness.min((4_194_302 / (head_dim * 127 * 127)).ilog2() as i32);
        }
        let reach = (4096 << source.range(0, 12)).min(1 << 24);
        Self {
            q,
            k,
            v,
            out_view,
            out_rows,
            out_tensor_rows,
            logit_scale: (0..heads)
                .map(|_| source.float(steepness - 1, steepness))
                .collect(),
            out_scale: (0..heads).map(|_| source.float(-2, 3)).collect(),
            zero_point: source.range(-128, 127) as i8,
            min: source.range(-128, -127) as i8,
            bias: source.tensor(heads * entries, -reach, reach, case.fill),
            labels: source.tensor(
                groups * queries,
                0,
                i64::from(case.labels.unwrap_or(1)) - 1,
                Fill::Random,
            ),
        }
    }

    /// Every row once, in any order, some elements to the rows of others; some rows to none.
    fn output_table(source: &mut Source, case: &Case, outputs: usize) -> (View, Vec<u32>, usize) {
        let AttentionShape {
            heads, head_dim, ..
        } = case.shape;
        let mut up_to = |most: usize| source.range(0, most as i64) as usize;
        let (offset, head_stride) = (up_to(3), head_dim + up_to(3));
        let view = View {
            offset,
            row_stride: offset + heads * head_stride + up_to(3),
            head_stride,
        };
        let tensor_rows = outputs + up_to(outputs / 2);
        let mut all: Vec<u32> = (0..tensor_rows as u32).collect();
        // In order now and then, so that ranges of rows are ranges of queries.
        if up_to(2) > 0 {
            for index in 0..tensor_rows {
                all.swap(index, up_to(tensor_rows - 1));
            }
            for _ in 0..outputs / 8 {
                let from = up_to(outputs - 1);
                all[up_to(outputs - 1)] = all[from];
            }
        }
        all.truncate(outputs);
        (view, all, tensor_rows)
    }

    fn attention<'a>(&'a self, case: &Case) -> Result<Attention<'a>, ParamError> {
        self.make(case, Attention::new)
    }

    fn unverified<'a>(&'a self, case: &Case) -> Result<Attention<'a>, ParamError> {
        self.make(case, Attention::new_verified)
    }

    fn make<'a>(&'a self, case: &Case, new: New<'a>) -> Result<Attention<'a>, ParamError> {
        let out = Operand {
            view: self.out_view,
            rows: case.tables.then_some(&self.out_rows[..]),
            tensor_rows: self.out_tensor_rows,
            constants: &[],
        };
        let operands = [self.q.operand(), self.k.operand(), self.v.operand(), out];
        let quantisation = AttentionQuantisation {
            logit_scale: &self.logit_scale,
            out_scale: &self.out_scale,
            zero_point: self.zero_point,
            min: self.min,
        };
        let window = match case.added {
            Added::Window(window) => Some(window),
            Added::Nothing | Added::Pairs => None,
        };
        let bias = (case.added != Added::Nothing).then_some(Bias {
            table: &self.bias,
            window,
        });
        let mask = case.labels.map(|_| &self.labels[..]);
        new(case.shape, operands, quantisation, bias, mask)
    }

    /// The bias of a query and a key, in octaves.
    fn bias(&self, case: &Case, head: usize, i: usize, j: usize) -> f64 {
        let AttentionShape { queries, keys, .. } = case.shape;
        let entry = match case.added {
            Added::Nothing => return 0.0,
            Added::Pairs => self.bias[(head * queries + i) * keys + j],
            Added::Window([height, width]) => {
                let (height, width) = (height as usize, width as usize);
                let down = i / width + height - 1 - j / width;
                let right = i % width + width - 1 - j % width;
                self.bias[(head * (2 * height - 1) + down) * (2 * width - 1) + right]
            }
        };
        f64::from(entry) / 1024.0
    }

    /// Weights of a query row in f64, and their sum.
    fn weights(&self, case: &Case, head: usize, group: usize, i: usize) -> (Vec<f64>, f64) {
        let AttentionShape { queries, keys, .. } = case.shape;
        let query = self.q.head(case, head, group * queries + i);
        let logit = |j: usize| {
            if case.labels.is_some()
                && self.labels[group * keys + i] != self.labels[group * keys + j]
            {
                return f64::NEG_INFINITY;
            }
            let key = self.k.head(case, head, group * keys + j);
            let products = query
                .iter()
                .zip(key)
                .map(|(&q, &k)| i32::from(q) * i32::from(k));
            let scale = f64::from(self.logit_scale[head]) / 1024.0;
            f64::from(products.sum::<i32>()) * scale + self.bias(case, head, i, j)
        };
        let logits: Vec<f64> = (0..keys).map(logit).collect();
        let max = logits.iter().copied().fold(f64::NEG_INFINITY, f64::max);
        let weights: Vec<f64> = logits.iter().map(|l| (l - max).exp2()).collect();
        let sum = weights.iter().sum();
        (weights, sum)
    }

    /// Every row of the output is within a unit of softmax in f64, or the zero point.
    fn check(&self, case: &Case, y: &[i32]) {
        let AttentionShape {
            heads,
            head_dim,
            groups,
            slots,
            queries,
            keys,
        } = case.shape;
        let mut last = vec![None; self.out_tensor_rows];
        for (element, &row) in self.out_rows.iter().enumerate() {
            last[row as usize] = Some(element);
        }
        let mut elements = 0;
        for (y, element) in y.chunks(self.out_view.row_stride).zip(&last) {
            let Some(element) = *element else {
                let zero = i32::from(self.zero_point.max(self.min));
                assert!(y.iter().all(|&y| y == zero), "{case:?}: {y:?}");
                continue;
            };
            elements += 1;
            let (slot, i) = (element / queries, element % queries);
            for head in 0..heads {
                let (weights, sum) = self.weights(case, head, slot / slots, i);
                let scale = f64::from(self.out_scale[head]);
                let first = self.out_view.offset + head * self.out_view.head_stride;
                for (d, &y) in y[first..][..head_dim].iter().enumerate() {
                    let value = |j: usize| f64::from(self.v.head(case, head, slot * keys + j)[d]);
                    let mean = (0..keys).map(|j| weights[j] * value(j)).sum::<f64>() / sum;
                    let exact = (mean * scale + f64::from(self.zero_point))
                        .clamp(f64::from(self.min), 127.0);
                    // Half a unit of rounding, logits rounded to 2^-10 octave, and the exponentials' 14 bits.
                    let tolerance = 0.51 + 127.0 * scale * (0.0018 + keys as f64 / 32768.0 / sum);
                    assert!(
                        (f64::from(y) - exact).abs() <= tolerance,
                        "{case:?} element {element} head {head} d {d}: {y}, exactly {exact}"
                    );
                }
            }
        }
        assert!(elements > 0 && groups > 0);
    }
}

fn check(case: Case) {
    let arrays = Arrays::new(&case);
    let attention = arrays.attention(&case).unwrap();
    let (rows, row_len) = (attention.rows(), arrays.out_view.row_stride);
    let run = |kernel: Kernel, rows: Range<usize>, out: Out<'_>, scratch: &mut [i8]| {
        let (q, k, v) = (&arrays.q.tensor, &arrays.k.tensor, &arrays.v.tensor);
        attention.run(kernel, rows, q, k, v, out, scratch)
    };
    let what = format!("{case:?}");
    let y = compare(&what, Form::S8, rows, row_len, attention.scratch_len(), run);
    arrays.check(&case, &y);
    // Ranges that begin and end anywhere.
    let mut source = Source(case.seed ^ 1);
    for kernel in Kernel::available() {
        let start = source.range(0, rows as i64 - 1) as usize;
        let end = source.range(start as i64 + 1, rows as i64) as usize;
        let mut scratch = vec![77; attention.scratch_len()];
        let part = output(Form::S8, (end - start) * row_len, |out| {
            run(kernel, start..end, out, &mut scratch)
        });
        assert!(
            part.unwrap() == y[start * row_len..end * row_len],
            "{what}: {} differs in rows {start}..{end}",
            kernel.name()
        );
    }
}

fn shape([heads, head_dim, groups, slots, queries, keys]: [usize; 6]) -> AttentionShape {
    AttentionShape {
        heads,
        head_dim,
        groups,
        slots,
        queries,
        keys,
    }
}

const PLAIN: Case = Case {
    shape: AttentionShape {
        heads: 1,
        head_dim: 32,
        groups: 1,
        slots: 1,
        queries: 1,
        keys: 1,
    },
    tables: false,
    constants: false,
    added: Added::Nothing,
    labels: None,
    steepness: -3,
    fill: Fill::Random,
    seed: 11,
};

/// Swin's windows, shifted or not, and with a window of another shape.
#[test]
fn windows() {
    for ([height, width], heads, groups) in [
        ([7, 7], 2, 4),
        ([12, 12], 1, 2),
        ([3, 5], 2, 3),
        ([1, 9], 1, 1),
    ] {
        let tokens = (height * width) as usize;
        for labels in [None, Some(1), Some(2), Some(4)] {
            for fill in FILLS {
                check(Case {
                    shape: shape([heads, 32, groups, 1, tokens, tokens]),
                    tables: true,
                    added: Added::Window([height, width]),
                    labels,
                    fill,
                    ..PLAIN
                });
            }
        }
    }
}

/// SepViT's windows with a token that is a constant, then attention between windows.
#[test]
fn window_tokens_and_slots() {
    let case = |sizes, tables, constants, fill| Case {
        shape: shape(sizes),
        tables,
        constants,
        fill,
        ..PLAIN
    };
    for fill in FILLS {
        for (tables, constants) in [(true, true), (true, false), (false, false), (false, true)] {
            check(case([2, 32, 4, 1, 50, 50], tables, constants, fill));
            check(case([1, 24, 2, 3, 16, 16], tables, constants, fill));
        }
    }
    check(case([1, 32, 1, 49, 64, 64], true, false, Fill::Random));
}

/// Numbers of keys in use, queries that are another tensor's, constants only.
#[test]
fn rows_of_keys() {
    for (queries, keys) in [
        (49, 49),
        (50, 50),
        (64, 64),
        (20, 144),
        (12, 197),
        (9, 260),
        (5, 3136),
    ] {
        for added in [Added::Nothing, Added::Pairs] {
            for tables in [false, true] {
                check(Case {
                    shape: shape([1, 32, 1, 1, queries, keys]),
                    tables,
                    constants: true,
                    added,
                    ..PLAIN
                });
            }
        }
    }
}

/// What would read or write outside a tensor, or overflow, is refused; what was never verified stays inside.
#[test]
fn bad_elements_are_refused_or_harmless() {
    let case = Case {
        shape: shape([2, 24, 2, 1, 12, 12]),
        tables: true,
        constants: true,
        added: Added::Window([3, 4]),
        labels: Some(2),
        ..PLAIN
    };
    let spoilt: [(&str, Spoil); 7] = [
        ("rows of q", |a| a.q.rows[3] = u32::MAX),
        ("rows of k", |a| {
            a.k.rows[23] = a.k.tensor_rows as u32 + 1000;
        }),
        ("rows of v", |a| a.v.rows[0] = 1 << 31),
        ("rows of the output", |a| {
            a.out_rows[5] = a.out_tensor_rows as u32;
        }),
        ("constants of k", |a| a.k.constants.fill(-128)),
        ("bias", |a| a.bias[7] = i32::MIN),
        ("logit_scale", |a| {
            a.logit_scale[0] = 4_194_303.0 / 16129.0 / 24.0;
        }),
    ];
    for (what, spoil) in spoilt {
        let mut arrays = Arrays::new(&case);
        spoil(&mut arrays);
        let error = arrays.attention(&case).unwrap_err();
        assert!(
            matches!(error, ParamError::Value { what: found, .. } if found == what),
            "{what}: {error}"
        );
        if what == "logit_scale" {
            continue;
        }
        let attention = arrays.unverified(&case).unwrap();
        for kernel in Kernel::available() {
            let mut scratch = vec![0; attention.scratch_len()];
            output(Form::S8, attention.output_len(), |out| {
                let (q, k, v) = (&arrays.q.tensor, &arrays.k.tensor, &arrays.v.tensor);
                attention.run(kernel, 0..attention.rows(), q, k, v, out, &mut scratch)
            })
            .unwrap();
        }
    }
}

/// Lengths and sizes that contradict each other.
#[test]
fn inconsistent_params_are_refused() {
    let case = Case {
        shape: shape([2, 8, 2, 2, 6, 6]),
        tables: true,
        constants: true,
        added: Added::Window([2, 3]),
        labels: Some(2),
        ..PLAIN
    };
    assert!(Arrays::new(&case).attention(&case).is_ok());
    let spoilt: [Spoil; 7] = [
        |a| a.q.rows.truncate(11),
        |a| a.v.rows.push(0),
        |a| a.out_rows.truncate(1),
        |a| a.k.constants.push(0),
        |a| a.bias.truncate(2 * 14),
        |a| a.labels.truncate(6),
        |a| a.out_view.row_stride = 15,
    ];
    for (index, spoil) in spoilt.into_iter().enumerate() {
        let mut arrays = Arrays::new(&case);
        spoil(&mut arrays);
        assert!(arrays.attention(&case).is_err(), "change {index}");
        assert!(arrays.unverified(&case).is_err(), "change {index}");
    }
    let other = Case {
        added: Added::Window([3, 3]),
        ..case
    };
    assert!(Arrays::new(&other).attention(&other).is_err());
    let mut few = Arrays::new(&PLAIN);
    few.q.tensor_rows = 0;
    assert!(few.attention(&PLAIN).is_err());
}

fn added() -> impl Strategy<Value = (Added, usize, usize, Option<u8>)> {
    let window = ([1_u32..6, 1_u32..11], proptest::option::of(1_u8..5)).prop_map(
        |([height, width], labels)| {
            let tokens = (height * width) as usize;
            (Added::Window([height, width]), tokens, tokens, labels)
        },
    );
    let same = (
        prop_oneof![Just(Added::Pairs), Just(Added::Nothing)],
        1_usize..40,
        1_u8..5,
    )
        .prop_map(|(added, tokens, labels)| (added, tokens, tokens, Some(labels)));
    let other = (
        prop_oneof![Just(Added::Pairs), Just(Added::Nothing)],
        1_usize..40,
        1_usize..80,
    )
        .prop_map(|(added, queries, keys)| (added, queries, keys, None));
    prop_oneof![window, same, other]
}

proptest! {
    #[test]
    fn any(
        heads in 1_usize..4, head_dim in 1_usize..50, groups in 1_usize..5, slots in 1_usize..4,
        (added, queries, keys, labels) in added(), tables: bool, constants: bool, steepness in -15..5, seed: u64,
    ) {
        let shape = AttentionShape { heads, head_dim, groups, slots, queries, keys };
        check(Case { shape, tables, constants, added, labels, steepness, fill: Fill::Random, seed });
    }
}
