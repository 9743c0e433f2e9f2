//! Add and Mul: kernels agree, and the reference is near the formula in f64.

use proptest::prelude::*;
use vitlet_kernels::{
    Add, Addend, Factor, Gate, InType, Kernel, Mul, Out, Output, ParamError, SizeError, Term,
};

use crate::data::{Epilogue, FILLS, Fill, Form, Source, Tensor, compare};

const FORMS: [Form; 4] = [Form::S8, Form::S8Table, Form::S16, Form::S32];
const TYPES: [InType; 3] = [InType::S8, InType::S16, InType::S32];

/// The second operand of a sum.
#[derive(Clone, Copy, Debug)]
enum Second {
    None,
    Tensor(InType),
    Constant,
}

fn magnitude(element: InType) -> i32 {
    match element {
        InType::S8 => 7,
        InType::S16 => 15,
        InType::S32 => 22,
    }
}

/// Factors of either sign that bring a type's largest values to about 2^gain; some are 0.
fn factors(source: &mut Source, channels: usize, element: InType, gain: i32) -> Vec<f32> {
    let top = gain - magnitude(element);
    let mut factor = || match source.range(0, 9) {
        0 => 0.0,
        n => source.float(top - 3, top) * if n % 2 == 0 { 1.0 } else { -1.0 },
    };
    (0..channels).map(|_| factor()).collect()
}

#[derive(Clone, Copy, Debug)]
struct Sum {
    rows: usize,
    channels: usize,
    a: InType,
    b: Second,
    form: Form,
    fill: Fill,
    gain: i32,
}

fn add(case: Sum, seed: u64) {
    let (rows, channels) = (case.rows, case.channels);
    let mut source = Source(seed);
    let epilogue = Epilogue::new(&mut source, 1, 1, 1);
    let a = Tensor::new(&mut source, case.a, rows * channels, case.fill);
    let scale_a = factors(&mut source, channels, case.a, case.gain);
    let element = match case.b {
        Second::Tensor(element) => element,
        Second::None | Second::Constant => InType::S16,
    };
    let b = Tensor::new(&mut source, element, rows * channels, case.fill);
    let scale_b = factors(&mut source, channels, element, case.gain);
    let bias = factors(&mut source, channels, InType::S8, case.gain + 7);
    let addend = match (case.b, &b) {
        (Second::Constant, Tensor::S16(values)) => Addend::Constant {
            values,
            scale: &scale_b,
        },
        (Second::Tensor(element), _) => Addend::Tensor(Term {
            element,
            scale: &scale_b,
        }),
        _ => Addend::None,
    };
    let term = Term {
        element: case.a,
        scale: &scale_a,
    };
    let output = epilogue.output(case.form);
    let add = Add::new(rows, channels, term, addend, &bias, output).unwrap();
    let operand = matches!(case.b, Second::Tensor(_)).then(|| b.input());
    let y = compare(
        &format!("add {case:?}"),
        case.form,
        rows,
        channels,
        add.scratch_len(),
        |kernel, rows, out, scratch| add.run(kernel, rows, a.input(), operand, out, scratch),
    );
    for (index, &y) in y.iter().enumerate() {
        let c = index % channels;
        let mut terms = [
            a.at(index) * f64::from(scale_a[c]),
            b.at(index) * f64::from(scale_b[c]),
            f64::from(bias[c]),
        ];
        if matches!(case.b, Second::None) {
            terms[1] = 0.0;
        }
        let error = terms.iter().map(|t| t.abs()).sum::<f64>() * 4e-7;
        is_near(&epilogue, case.form, terms.iter().sum(), error, y);
    }
}

/// Some number that lies near enough gives `y`.
fn is_near(epilogue: &Epilogue, form: Form, exact: f64, error: f64, y: i32) {
    let [low, high] = epilogue.near(form, exact, error);
    assert!(
        (low..=high).any(|q| epilogue.looked_up(form, q) == y),
        "{form:?}: {y} of {exact}, which is {low}..={high}"
    );
}

#[test]
fn sums() {
    for channels in [1, 3, 7, 8, 9, 15, 16, 40, 97] {
        for a in TYPES {
            for b in [
                Second::None,
                Second::Tensor(InType::S8),
                Second::Tensor(InType::S16),
                Second::Tensor(InType::S32),
                Second::Constant,
            ] {
                for form in FORMS {
                    for fill in FILLS {
                        for gain in [-60, 3, 8, 17, 23, 28] {
                            let rows = 5;
                            let case = Sum {
                                rows,
                                channels,
                                a,
                                b,
                                form,
                                fill,
                                gain,
                            };
                            add(case, 1);
                        }
                    }
                }
            }
        }
    }
}

/// More rows than are looked up together.
#[test]
fn long_sums() {
    for form in FORMS {
        let case = Sum {
            rows: 300,
            channels: 33,
            a: InType::S8,
            b: Second::Tensor(InType::S16),
            form,
            fill: Fill::Random,
            gain: 7,
        };
        add(case, 2);
    }
}

/// One element, worked by hand: 10·0.25 + 3·0.5 + 0.5 = 4.5, a tie, which goes to 4; plus the zero point, 5.
#[test]
fn sum_by_hand() {
    let term = |scale| Term {
        element: InType::S8,
        scale,
    };
    let output = Output::S8 {
        zero_point: 1,
        min: -128,
        table: None,
    };
    let scales = ([0.25; 8], [0.5; 8]);
    let b = Addend::Tensor(term(&scales.1));
    let add = Add::new(1, 8, term(&scales.0), b, &scales.1, output).unwrap();
    for kernel in Kernel::available() {
        let mut y = [0; 8];
        let (a, b) = (Tensor::S8(vec![10; 8]), Tensor::S8(vec![3; 8]));
        add.run(
            kernel,
            0..1,
            a.input(),
            Some(b.input()),
            Out::S8(&mut y),
            &mut [],
        )
        .unwrap();
        assert_eq!(y, [5; 8]);
    }
}

/// An s32 operand beyond its range, which no operation writes, gives the same everywhere.
#[test]
fn logits_out_of_range() {
    let scale = [500.0; 9];
    let term = Term {
        element: InType::S32,
        scale: &scale,
    };
    for (form, output) in [(Form::S16, Output::S16), (Form::S32, Output::S32)] {
        let add = Add::new(1, 9, term, Addend::None, &scale, output).unwrap();
        let x = Tensor::S32(vec![
            i32::MIN,
            i32::MAX,
            1 << 22,
            -(1 << 24),
            0,
            1,
            -1,
            100,
            -100,
        ]);
        compare("logits", form, 1, 9, 0, |kernel, rows, out, scratch| {
            add.run(kernel, rows, x.input(), None, out, scratch)
        });
    }
}

#[test]
fn wrong_sums_are_refused() {
    let ones = [1.0; 8];
    let (zeros, values) = ([0.0; 8], [3; 16]);
    fn s16(scale: &[f32]) -> Term<'_> {
        Term {
            element: InType::S16,
            scale,
        }
    }
    fn tensor(scale: &[f32]) -> Addend<'_> {
        Addend::Tensor(s16(scale))
    }
    fn new<'a>(
        a: &'a [f32],
        b: Addend<'a>,
        bias: &'a [f32],
        output: Output<'a>,
    ) -> Result<usize, ParamError> {
        Add::new(2, 8, s16(a), b, bias, output).map(|add| add.rows())
    }
    assert_eq!(new(&ones, tensor(&ones), &zeros, Output::S16), Ok(2));
    let whole = [65536.0; 8];
    assert_eq!(new(&whole, Addend::None, &zeros, Output::S16), {
        Err(ParamError::Value {
            what: "scale of a",
            index: 0,
            bound: "so small that with b and the bias no sum reaches 2^31",
        })
    });
    // Together, they would reach 2^31.
    let half = [32768.0; 8];
    assert!(new(&half, Addend::None, &zeros, Output::S16).is_ok());
    assert!(new(&half, tensor(&half), &zeros, Output::S16).is_err());
    assert!(new(&ones, tensor(&ones), &[2_147_483_648.0; 8], Output::S16).is_err());
    for bad in [f32::NAN, f32::INFINITY, 1e-40, 1e-31] {
        let mut bad_one = ones;
        bad_one[5] = bad;
        for (a, b, bias) in [
            (&bad_one, &ones, &ones),
            (&ones, &bad_one, &ones),
            (&ones, &ones, &bad_one),
        ] {
            assert!(new(a, tensor(b), bias, Output::S16).is_err(), "{bad}");
        }
    }
    let constant = |values| Addend::Constant {
        values,
        scale: &ones,
    };
    assert!(new(&ones, constant(&values), &ones, Output::S16).is_ok());
    assert!(new(&ones, constant(&values[1..]), &ones, Output::S16).is_err());
    assert!(new(&ones[1..], tensor(&ones), &ones, Output::S16).is_err());
    assert!(new(&ones, tensor(&ones[1..]), &ones, Output::S16).is_err());
    assert!(new(&ones, tensor(&ones), &ones[1..], Output::S16).is_err());
    let output = Output::S8 {
        zero_point: 0,
        min: 0,
        table: None,
    };
    assert!(new(&ones, tensor(&ones), &ones, output).is_err());
}

#[test]
fn wrong_operands_are_refused() {
    let ones = [1.0; 8];
    let term = Term {
        element: InType::S16,
        scale: &ones,
    };
    let (s8, s16) = (Tensor::S8(vec![0; 8]), Tensor::S16(vec![0; 8]));
    let with = |b, operand: Option<&Tensor>, add_to: bool| {
        let add = Add::new(1, 8, term, b, &ones, Output::S16).unwrap();
        let mut y = [0; 8];
        let out = if add_to {
            Out::S16Add(&mut y)
        } else {
            Out::S16(&mut y)
        };
        let b = operand.map(Tensor::input);
        add.run(Kernel::SCALAR, 0..1, s16.input(), b, out, &mut [])
    };
    assert_eq!(with(Addend::Tensor(term), Some(&s16), false), Ok(()));
    let wrong = Err(SizeError::InType { what: "b" });
    assert_eq!(with(Addend::Tensor(term), Some(&s8), false), wrong);
    assert_eq!(with(Addend::Tensor(term), None, false), wrong);
    assert_eq!(with(Addend::None, Some(&s16), false), wrong);
    assert_eq!(
        with(Addend::Tensor(term), Some(&s16), true),
        Err(SizeError::OutType)
    );
}

/// Which rows of b meet those of a.
#[derive(Clone, Copy, Debug)]
enum Rows {
    One,
    Same,
    Table(usize),
}

#[derive(Clone, Copy, Debug)]
struct Product {
    rows: usize,
    channels: usize,
    types: [InType; 2],
    b: Rows,
    form: Form,
    fill: Fill,
    gain: i32,
}

fn mul(case: Product, seed: u64) {
    let (rows, channels) = (case.rows, case.channels);
    let mut source = Source(seed);
    let epilogue = Epilogue::new(&mut source, 1, 1, 1);
    let zero_points = case.types.map(|element| match element {
        InType::S8 => source.range(-128, 127) as i8,
        _ => 0,
    });
    let b_rows = match case.b {
        Rows::One => 1,
        Rows::Same => rows,
        Rows::Table(rows) => rows,
    };
    let table = matches!(case.b, Rows::Table(_))
        .then(|| source.tensor::<u32>(rows, 0, b_rows as i64 - 1, Fill::Random));
    let (offset, after) = (
        source.range(0, 9) as usize,
        [0, source.range(0, 9) as usize][source.range(0, 1) as usize],
    );
    let stride = offset + channels + after;
    let a = Tensor::new(&mut source, case.types[0], rows * channels, case.fill);
    let b = Tensor::new(&mut source, case.types[1], b_rows * stride, case.fill);
    let top = case.gain - magnitude(case.types[0]) - magnitude(case.types[1]) - 2;
    let scale: Vec<f32> = (0..channels).map(|_| source.float(top - 3, top)).collect();
    let factor = Factor {
        element: case.types[0],
        zero_point: zero_points[0],
    };
    let gate = Gate {
        element: case.types[1],
        zero_point: zero_points[1],
        rows: b_rows,
        stride,
        offset,
        table: table.as_deref(),
    };
    let output = epilogue.output(case.form);
    let mul = Mul::new(rows, channels, factor, gate, &scale, output).unwrap();
    let y = compare(
        &format!("mul {case:?}"),
        case.form,
        rows,
        channels,
        mul.scratch_len(),
        |kernel, rows, out, scratch| mul.run(kernel, rows, a.input(), b.input(), out, scratch),
    );
    for (index, &y) in y.iter().enumerate() {
        let (row, c) = (index / channels, index % channels);
        let b_row = match (&table, case.b) {
            (Some(table), _) => table[row] as usize,
            (None, Rows::One) => 0,
            (None, _) => row,
        };
        let exact = (a.at(index) - f64::from(zero_points[0]))
            * (b.at(b_row * stride + offset + c) - f64::from(zero_points[1]))
            * f64::from(scale[c]);
        is_near(&epilogue, case.form, exact, exact.abs() * 2e-7, y);
    }
}

#[test]
fn products() {
    for channels in [1, 7, 8, 9, 16, 40, 97] {
        for types in [
            [InType::S8, InType::S8],
            [InType::S8, InType::S16],
            [InType::S16, InType::S8],
            [InType::S16, InType::S16],
        ] {
            for b in [Rows::One, Rows::Same, Rows::Table(1), Rows::Table(4)] {
                for form in FORMS {
                    for fill in FILLS {
                        for gain in [-40, 7, 16, 23, 30] {
                            let rows = 5;
                            let case = Product {
                                rows,
                                channels,
                                types,
                                b,
                                form,
                                fill,
                                gain,
                            };
                            mul(case, 1);
                        }
                    }
                }
            }
        }
    }
}

/// More rows than are looked up together.
#[test]
fn long_products() {
    for b in [Rows::One, Rows::Same, Rows::Table(5)] {
        for form in FORMS {
            let case = Product {
                rows: 300,
                channels: 33,
                types: [InType::S16, InType::S8],
                b,
                form,
                fill: Fill::Random,
                gain: 8,
            };
            mul(case, 3);
        }
    }
}

#[test]
fn wrong_products_are_refused() {
    let factor = Factor {
        element: InType::S16,
        zero_point: 0,
    };
    let gate = Gate {
        element: InType::S8,
        zero_point: 5,
        rows: 3,
        stride: 12,
        offset: 4,
        table: Some(&[0, 2, 1, 0]),
    };
    let new = |factor, gate, scale: &[f32]| {
        Mul::new(4, 8, factor, gate, scale, Output::S16).map(|mul| mul.b_len())
    };
    let ones = [1.0; 8];
    assert_eq!(new(factor, gate, &ones), Ok(36));
    assert_eq!(
        new(
            factor,
            Gate {
                table: Some(&[0, 2, 3, 0]),
                ..gate
            },
            &ones
        ),
        Err(ParamError::Value {
            what: "rows of b",
            index: 2,
            bound: "a row of the second operand"
        })
    );
    for wrong in [
        Gate {
            table: Some(&[0, 2, 1]),
            ..gate
        },
        Gate {
            table: None,
            ..gate
        },
        Gate { offset: 5, ..gate },
        Gate {
            offset: usize::MAX,
            ..gate
        },
        Gate { rows: 0, ..gate },
        Gate {
            element: InType::S16,
            ..gate
        },
        Gate {
            element: InType::S32,
            zero_point: 0,
            ..gate
        },
    ] {
        assert!(new(factor, wrong, &ones).is_err(), "{wrong:?}");
    }
    let shifted = Factor {
        zero_point: 1,
        ..factor
    };
    assert!(new(shifted, gate, &ones).is_err());
    // 32768·133·scale reaches 2^31.
    for bad in [492.8, -1.0, 0.0, f32::NAN, 1e-31] {
        assert!(new(factor, gate, &[bad; 8]).is_err(), "{bad}");
    }
    assert!(new(factor, gate, &[492.7; 8]).is_ok());
    assert!(new(factor, gate, &ones[1..]).is_err());
}

/// A table that was never verified gives wrong rows, but no access out of bounds.
#[test]
fn unverified_table_stays_inside() {
    let factor = Factor {
        element: InType::S8,
        zero_point: -128,
    };
    let gate = Gate {
        element: InType::S8,
        zero_point: 127,
        rows: 2,
        stride: 8,
        offset: 0,
        table: Some(&[7, u32::MAX, 1 << 31]),
    };
    let ones = [1.0; 8];
    let mul = Mul::new_verified(3, 8, factor, gate, &ones, Output::S16).unwrap();
    let (a, b) = (Tensor::S8(vec![3; 24]), Tensor::S8(vec![-4; 16]));
    compare(
        "unverified",
        Form::S16,
        3,
        8,
        0,
        |kernel, rows, out, scratch| mul.run(kernel, rows, a.input(), b.input(), out, scratch),
    );
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]
    #[test]
    fn any_sum(rows in 1_usize..40, channels in 1_usize..70, a in 0..TYPES.len(), b in 0..5_usize, form in 0..FORMS.len(),
               fill in 0..FILLS.len(), gain in -10..28, seed: u64) {
        let b = match b {
            0 => Second::None,
            1 => Second::Constant,
            n => Second::Tensor(TYPES[n - 2]),
        };
        add(Sum { rows, channels, a: TYPES[a], b, form: FORMS[form], fill: FILLS[fill], gain }, seed);
    }

    #[test]
    fn any_product(rows in 1_usize..40, channels in 1_usize..70, a in 0..2_usize, b in 0..2_usize, shape in 0..10_usize,
                   form in 0..FORMS.len(), fill in 0..FILLS.len(), gain in -10..30, seed: u64) {
        let shape = [Rows::One, Rows::Same].get(shape).copied().unwrap_or(Rows::Table(shape));
        mul(Product { rows, channels, types: [TYPES[a], TYPES[b]], b: shape, form: FORMS[form], fill: FILLS[fill], gain }, seed);
    }
}
