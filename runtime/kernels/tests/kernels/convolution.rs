//! Convolution and depthwise convolution.

use proptest::prelude::*;
use vitlet_kernels::{Conv, ConvShape, Depthwise};

use crate::data::{Epilogue, FILLS, FORMS, Fill, Form, Matrix, Source, compare};

pub(crate) fn shape(
    size: [u32; 2],
    channels: [u32; 2],
    kernel: [u32; 2],
    stride: [u32; 2],
    pad: [u32; 4],
) -> Option<ConvShape> {
    Some(ConvShape {
        in_h: size[0],
        in_w: size[1],
        in_c: channels[0],
        out_h: ConvShape::output_size(size[0], kernel[0], stride[0], pad[0] + pad[2])?,
        out_w: ConvShape::output_size(size[1], kernel[1], stride[1], pad[1] + pad[3])?,
        out_c: channels[1],
        kernel,
        stride,
        pad,
    })
}

fn conv(shape: ConvShape, form: Form, fill: Fill, seed: u64) {
    let mut source = Source(seed);
    let k = (shape.kernel[0] * shape.kernel[1] * shape.in_c) as usize;
    let matrix = Matrix::new(&mut source, k, shape.out_c as usize, fill, 8);
    let pad = source.tensor(shape.in_c as usize, -128, 127, Fill::Random);
    let conv = Conv::new(shape, &pad, matrix.gemm(form)).unwrap();
    let x = source.tensor(shape.input_len(), -128, 127, fill);
    let row_len = (shape.out_w * shape.out_c) as usize;
    compare(
        &format!("conv {shape:?} {form:?}"),
        form,
        conv.rows(),
        row_len,
        conv.scratch_len(),
        |kernel, rows, out, scratch| conv.run(kernel, rows, &x, out, scratch),
    );
}

fn depthwise(shape: ConvShape, form: Form, fill: Fill, seed: u64) {
    let mut source = Source(seed);
    let (channels, taps) = (
        shape.in_c as usize,
        (shape.kernel[0] * shape.kernel[1]) as usize,
    );
    let weights = source.tensor(taps * channels, -127, 127, fill);
    let epilogue = Epilogue::new(&mut source, channels, 127 * 128 * taps as i64, 8);
    let pad = source.tensor(channels, -128, 127, Fill::Random);
    let depthwise = Depthwise::new(shape, &weights, &pad, epilogue.requantise(form)).unwrap();
    let x = source.tensor(shape.input_len(), -128, 127, fill);
    let row_len = shape.out_w as usize * channels;
    let what = format!("depthwise {shape:?} {form:?}");
    compare(
        &what,
        form,
        depthwise.rows(),
        row_len,
        depthwise.scratch_len(),
        |kernel, rows, out, scratch| depthwise.run(kernel, rows, &x, out, scratch),
    );
}

/// Patch embedding, overlapping and not; spatial reduction; pointwise; windows wider than the image.
#[test]
fn conv_shapes() {
    let shapes = [
        shape([23, 19], [3, 32], [7, 7], [4, 4], [3; 4]),
        shape([16, 16], [16, 24], [4, 4], [4, 4], [0; 4]),
        shape([9, 7], [32, 9], [3, 3], [2, 2], [1; 4]),
        shape([9, 7], [16, 9], [1, 1], [1, 1], [0; 4]),
        shape([9, 7], [5, 9], [1, 1], [1, 1], [0; 4]),
        shape([9, 7], [16, 9], [1, 1], [1, 1], [0; 4]),
        shape([2, 1], [4, 3], [5, 5], [1, 1], [2, 2, 3, 4]),
        shape([5, 6], [7, 10], [2, 3], [1, 2], [1, 0, 0, 2]),
    ];
    for shape in shapes {
        for form in FORMS {
            for fill in FILLS {
                conv(shape.unwrap(), form, fill, 1);
            }
        }
    }
}

#[test]
fn depthwise_shapes() {
    for channels in [1, 8, 15, 16, 17, 32, 40, 47] {
        let shapes = [
            shape([7, 7], [channels; 2], [3, 3], [1, 1], [1; 4]),
            shape([1, 1], [channels; 2], [3, 3], [1, 1], [1; 4]),
            shape([4, 2], [channels; 2], [3, 3], [1, 1], [2; 4]),
            shape([6, 5], [channels; 2], [3, 3], [2, 2], [1, 1, 1, 1]),
            shape([6, 5], [channels; 2], [3, 3], [2, 3], [0, 0, 1, 2]),
            shape([6, 6], [channels; 2], [5, 5], [1, 1], [2; 4]),
            shape([6, 6], [channels; 2], [1, 2], [1, 1], [0; 4]),
        ];
        for shape in shapes {
            for form in [Form::S8, Form::S8Table, Form::S16, Form::S16Add] {
                for fill in FILLS {
                    depthwise(shape.unwrap(), form, fill, 2);
                }
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(150))]
    #[test]
    fn any(size in [1_u32..12, 1_u32..12], channels in [1_u32..40, 1_u32..20], kernel in [1_u32..6, 1_u32..6],
           stride in [1_u32..4, 1_u32..4], pad in [0_u32..5, 0_u32..5, 0_u32..5, 0_u32..5], form in 0..FORMS.len(), seed: u64) {
        let pad = [0, 1, 2, 3].map(|side| pad[side].min(kernel[side % 2] - 1));
        let Some(full) = shape(size, channels, kernel, stride, pad) else { return Ok(()) };
        conv(full, FORMS[form], Fill::Random, seed);
        let same_channels = ConvShape { out_c: channels[0], ..full };
        depthwise(same_channels, FORMS[form % 4], Fill::Random, seed);
        if let Some(three) = shape(size, [channels[0]; 2], [3, 3], stride, pad.map(|p| p.min(2))) {
            depthwise(three, FORMS[form % 4], Fill::Random, seed);
        }
    }
}
