//! Max pooling.

use proptest::prelude::*;
use vitlet_kernels::{ConvShape, In, InType, Kernel, MaxPool, Out};

use crate::convolution::shape;
use crate::data::{FILLS, Fill, Form, Source, Tensor, compare};

/// Kernels agree; every output is one of the input's values of its channel, and none less than the pixel that is surely under the window.
fn max_pool(shape: ConvShape, element: InType, fill: Fill, seed: u64) {
    let mut source = Source(seed);
    let x = Tensor::new(&mut source, element, shape.input_len(), fill);
    let pool = MaxPool::new(shape, element).unwrap();
    let form = if element == InType::S8 {
        Form::S8
    } else {
        Form::S16
    };
    let row_len = (shape.out_w * shape.out_c) as usize;
    let y = compare(
        &format!("max pool {shape:?} {element:?}"),
        form,
        pool.rows(),
        row_len,
        pool.scratch_len(),
        |kernel, rows, out, scratch| pool.run(kernel, rows, x.input(), out, scratch),
    );
    for (index, &y) in y.iter().enumerate() {
        assert_eq!(f64::from(y), brute(shape, &x, index), "{shape:?} {index}");
    }
}

/// The other way round: every input pixel asks whether it lies under the window.
fn brute(shape: ConvShape, x: &Tensor, index: usize) -> f64 {
    let channels = shape.in_c as usize;
    let (pixel, c) = (index / channels, index % channels);
    let at = [pixel / shape.out_w as usize, pixel % shape.out_w as usize];
    let under = |axis: usize, v: usize| {
        let v = (v + shape.pad[axis] as usize) as isize;
        let offset = v - (at[axis] * shape.stride[axis] as usize) as isize;
        (0..shape.kernel[axis] as isize).contains(&offset)
    };
    let mut max = f64::NEG_INFINITY;
    for iy in (0..shape.in_h as usize).filter(|&iy| under(0, iy)) {
        for ix in (0..shape.in_w as usize).filter(|&ix| under(1, ix)) {
            max = max.max(x.at((iy * shape.in_w as usize + ix) * channels + c));
        }
    }
    max
}

/// A stem's pooling, the maximum over all rows, windows wider than the image.
#[test]
fn shapes() {
    for channels in [1, 7, 8, 15, 16, 17, 24, 40, 100] {
        let shapes = [
            shape([9, 8], [channels; 2], [3, 3], [2, 2], [1; 4]),
            shape([9, 8], [channels; 2], [2, 2], [2, 2], [0; 4]),
            shape([49, 1], [channels; 2], [49, 1], [1, 1], [0; 4]),
            shape([1, 1], [channels; 2], [1, 1], [1, 1], [0; 4]),
            shape([2, 1], [channels; 2], [5, 5], [1, 1], [2, 2, 3, 4]),
            shape([6, 5], [channels; 2], [2, 3], [3, 1], [0, 2, 1, 0]),
        ];
        for shape in shapes {
            for element in [InType::S8, InType::S16] {
                for fill in FILLS {
                    max_pool(shape.unwrap(), element, fill, 1);
                }
            }
        }
    }
}

#[test]
fn wrong_shapes_are_refused() {
    let good = shape([4, 4], [3; 2], [2, 2], [2, 2], [0; 4]).unwrap();
    assert!(MaxPool::new(good, InType::S8).is_ok());
    assert!(MaxPool::new(good, InType::S32).is_err());
    assert!(MaxPool::new(ConvShape { out_c: 4, ..good }, InType::S8).is_err());
    assert!(MaxPool::new(ConvShape { out_h: 3, ..good }, InType::S8).is_err());
    // A window that may lie outside the image altogether.
    let outside = shape([4, 4], [3; 2], [2, 2], [2, 2], [2, 0, 0, 0]).unwrap();
    assert!(MaxPool::new(outside, InType::S8).is_err());
}

#[test]
fn wrong_buffers_are_refused() {
    let shape = shape([4, 4], [16; 2], [2, 2], [2, 2], [0; 4]).unwrap();
    let pool = MaxPool::new(shape, InType::S8).unwrap();
    let (x, wide) = ([1_i8; 256], [1_i16; 256]);
    for kernel in Kernel::available() {
        let mut y = [0_i8; 64];
        let mut run = |rows, x, out: Option<&mut [i16]>, from: usize| {
            let out = match out {
                Some(out) => Out::S16(out),
                None => Out::S8(&mut y[from..]),
            };
            pool.run(kernel, rows, x, out, &mut [])
        };
        assert!(run(0..2, In::S8(&x), None, 0).is_ok());
        assert!(run(0..3, In::S8(&x), None, 0).is_err());
        assert!(run(0..2, In::S8(&x[1..]), None, 0).is_err());
        assert!(run(0..2, In::S16(&wide), None, 0).is_err());
        assert!(run(0..2, In::S8(&x), Some(&mut [0; 64]), 0).is_err());
        assert!(run(0..2, In::S8(&x), None, 1).is_err());
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(150))]
    #[test]
    fn any(size in [1_u32..12, 1_u32..12], channels in 1_u32..40, kernel in [1_u32..6, 1_u32..6], stride in [1_u32..4, 1_u32..4],
           pad in [0_u32..5, 0_u32..5, 0_u32..5, 0_u32..5], wide: bool, seed: u64) {
        let pad = [0, 1, 2, 3].map(|side| pad[side].min(kernel[side % 2] - 1));
        let Some(shape) = shape(size, [channels; 2], kernel, stride, pad) else { return Ok(()) };
        max_pool(shape, if wide { InType::S16 } else { InType::S8 }, Fill::Random, seed);
    }
}
