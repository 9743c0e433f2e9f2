//! Linear and pooled linear layers.

use proptest::prelude::*;
use vitlet_kernels::{Kernel, Linear, Out, PoolLinear, SizeError};

use crate::data::{Epilogue, FILLS, FORMS, Fill, Form, Matrix, Source, compare};

fn linear(rows: usize, k: usize, n: usize, form: Form, fill: Fill, gain: i32, seed: u64) {
    let mut source = Source(seed);
    let matrix = Matrix::new(&mut source, k, n, fill, gain);
    let x = source.tensor(rows * k, -128, 127, fill);
    let what = format!("linear {rows}x{k}x{n} {form:?} {fill:?} gain {gain}");
    compare_linear(&what, rows, &matrix, form, &x);
}

fn compare_linear(what: &str, rows: usize, matrix: &Matrix, form: Form, x: &[i8]) {
    let linear = Linear::new(rows, matrix.gemm(form)).unwrap();
    let n = matrix.n;
    compare(
        what,
        form,
        rows,
        n,
        linear.scratch_len(),
        |kernel, rows, out, scratch| linear.run(kernel, rows, x, out, scratch),
    );
}

/// Some kernels round and add the zero point in one.
#[test]
fn ties_stay_even_before_the_zero_point() {
    let mut source = Source(6);
    let (rows, k, n) = (29, 16, 16);
    for min in [-128, -127] {
        for zero_point in [-128, -127, -2, -1, 0, 1, 2, 3, 126, 127] {
            let mut matrix = Matrix::new(&mut source, k, n, Fill::Random, 7);
            matrix.packed = source.tensor(n * k, -1, 1, Fill::Random);
            matrix.epilogue = Epilogue::halving(n, zero_point, min);
            let x = source.tensor(rows * k, -128, 127, Fill::Random);
            let what = format!("halves, zero point {zero_point}, minimum {min}");
            compare_linear(&what, rows, &matrix, Form::S8, &x);
        }
    }
}

#[test]
fn edge_shapes() {
    // 8 and 12 are taken together; for 24 and more some kernels rearrange the weights.
    for rows in [1, 2, 3, 4, 5, 7, 8, 9, 15, 17, 41] {
        for (k, n) in [
            (1, 1),
            (3, 7),
            (16, 8),
            (17, 9),
            (32, 32),
            (48, 13),
            (64, 16),
            (147, 33),
            (32, 77),
        ] {
            for form in FORMS {
                linear(rows, k, n, form, Fill::Random, 7, 1);
            }
        }
    }
}

/// Weights too large to be rearranged as a whole, and more groups of 12 rows than are packed at a time.
#[test]
fn many_rows_and_weights() {
    for rows in [23, 24, 49, 133] {
        for (k, n) in [(160, 229), (176, 208), (1040, 40)] {
            for form in FORMS {
                linear(rows, k, n, form, Fill::Random, 7, 8);
            }
        }
    }
}

#[test]
fn extremes() {
    for fill in FILLS {
        for form in FORMS {
            // From all-zero to saturated outputs.
            for gain in [-40, 3, 7, 15, 17, 22, 29] {
                linear(11, 100, 20, form, fill, gain, 2);
                // Two tiles of 32 columns, one of 8, and part of one.
                linear(13, 100, 77, form, fill, gain, 2);
                // Groups of 12, and one row.
                linear(25, 100, 20, form, fill, gain, 2);
            }
        }
    }
}

/// Large enough that 16-bit partial sums or a wrong order of saturations would show.
#[test]
fn long_rows() {
    for fill in FILLS {
        linear(9, 4096, 40, Form::S32, fill, 22, 3);
        for rows in [13, 37] {
            linear(rows, 4096, 8, Form::S32, fill, 22, 3);
        }
    }
}

#[test]
fn wrong_buffers_are_refused() {
    let mut source = Source(4);
    let matrix = Matrix::new(&mut source, 16, 8, Fill::Random, 7);
    let linear = Linear::new(4, matrix.gemm(Form::S8)).unwrap();
    let (x, mut scratch) = ([0; 64], vec![0; linear.scratch_len()]);
    for kernel in Kernel::available() {
        let mut y = [0; 32];
        assert!(
            linear
                .run(kernel, 0..4, &x, Out::S8(&mut y), &mut scratch)
                .is_ok()
        );
        assert!(
            linear
                .run(kernel, 0..4, &x[1..], Out::S8(&mut y), &mut scratch)
                .is_err()
        );
        assert!(
            linear
                .run(kernel, 0..4, &x, Out::S8(&mut y[1..]), &mut scratch)
                .is_err()
        );
        assert!(
            linear
                .run(kernel, 0..4, &x, Out::S8(&mut y), &mut scratch[1..])
                .is_err()
        );
        assert!(
            linear
                .run(kernel, 1..5, &x, Out::S8(&mut y), &mut scratch)
                .is_err()
        );
        let error = linear
            .run(kernel, 0..4, &x, Out::S16(&mut [0; 32]), &mut scratch)
            .unwrap_err();
        assert_eq!(error, SizeError::OutType);
    }
}

#[test]
fn pooled() {
    for (rows, k, n) in [(1, 1, 1), (49, 256, 10), (5, 20, 17)] {
        let mut source = Source(5);
        let matrix = Matrix::new(&mut source, k * rows, n, Fill::Random, 20);
        // Scales that allow k·rows products; weights of k inputs.
        let weights = Matrix::new(&mut source, k, n, Fill::Extremes, 20).packed;
        let gemm = vitlet_kernels::Gemm::new(k, n, &weights, matrix.epilogue.requantise(Form::S32))
            .unwrap();
        let pool = PoolLinear::new(rows, gemm).unwrap();
        let x = source.tensor(rows * k, -128, 127, Fill::Random);
        compare(
            "pool",
            Form::S32,
            1,
            n,
            pool.scratch_len(),
            |kernel, rows, out, scratch| pool.run(kernel, rows, &x, out, scratch),
        );
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]
    #[test]
    fn any(rows in 1_usize..50, k in 1_usize..200, n in 1_usize..80, form in 0..FORMS.len(), fill in 0..FILLS.len(),
           gain in -10..25, seed: u64) {
        linear(rows, k, n, FORMS[form], FILLS[fill], gain, seed);
    }
}
