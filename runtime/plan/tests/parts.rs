//! Tensors in parts: who may read what after which writes, and what parts must be.
#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use vitlet_kernels::{
    Conv, ConvShape, Gemm, InType, MaxPool, Output, PoolLinear, Requantise, packed_len, padded_n,
};
use vitlet_plan::format::{HEADER_LEN, MAX_PARTS, TENSOR_LEN};
use vitlet_plan::{
    AlignedBytes, DType, Metadata, Op, OpKind, Plan, PlanBuilder, PlanError, Problem, Provenance,
    Section, Tensor, TensorId, WriteError, testing,
};
use vitlet_preprocess::{Interpolation, Preprocess, Resize};

/// The tensors of the test's plan, in the order of their records.
const IMAGE: usize = 0;
const UPPER: usize = 1;
const LOWER: usize = 2;
const WHOLE: usize = 3;
const FIRST: usize = 4;
const SECOND: usize = 5;
/// In the memory of the second part's first row.
const OTHER: usize = 6;
/// A tensor whose only part is all of it.
const SINGLE: usize = 7;
const ITS_PART: usize = 8;
const LOGITS: usize = 9;
/// Where readers put what they read.
const SUNK_S8: usize = 10;
const SUNK_S16: usize = 11;

/// Rows and channels of what an op reads or writes.
const SIZES: [[usize; 2]; 9] = [
    [256, 3],
    [128, 3],
    [128, 3],
    [8, 5],
    [3, 5],
    [5, 5],
    [1, 5],
    [2, 5],
    [2, 5],
];

fn add_tensors(builder: &mut PlanBuilder) -> Vec<TensorId> {
    let tensor = |name, dtype, shape, offset| Tensor {
        name,
        dtype,
        shape,
        offset,
        scale: 0.5,
        scales: &[],
        zero_point: 0,
        held: 0,
    };
    let half = [1, 8, 16, 3];
    let mut ids = Vec::new();
    let mut add = |tensor: Tensor<'_>, parts: &[(&str, [u32; 4])]| {
        let (whole, parts) = builder.add_tensor_with_parts(&tensor, parts).unwrap();
        ids.push(whole);
        ids.extend(parts);
    };
    add(
        tensor("image", DType::S8, [1, 16, 16, 3], 0),
        &[("upper", half), ("lower", half)],
    );
    add(
        tensor("whole", DType::S16, [1, 1, 8, 5], 768),
        &[("first", [1, 1, 3, 5]), ("second", [1, 5, 1, 5])],
    );
    // Bytes 832 to 842 of the arena; the second part has 798 to 848.
    add(tensor("other", DType::S16, [1, 1, 1, 5], 832), &[]);
    add(
        tensor("single", DType::S16, [1, 1, 2, 5], 1024),
        &[("its part", [1, 1, 2, 5])],
    );
    add(tensor("logits", DType::S32, [1, 1, 1, 10], 2048), &[]);
    add(tensor("sunk s8", DType::S8, [1, 1, 1, 3], 2112), &[]);
    add(tensor("sunk s16", DType::S16, [1, 1, 1, 5], 2176), &[]);
    ids
}

/// What an op of the test does: write to a tensor, or read one (to throw the result away).
#[derive(Clone, Copy, Debug)]
enum Step {
    Write(usize),
    Read(usize),
}
use Step::{Read, Write};

/// Integers of a matrix product with `k` columns and `n` rows, all of weight 1.
fn with_gemm<R>(k: usize, n: usize, output: Output<'_>, then: impl FnOnce(Gemm<'_>) -> R) -> R {
    let mut packed = vec![0; packed_len(n, k).unwrap()];
    vitlet_kernels::pack(n, k, &vec![1; n * k], &mut packed).unwrap();
    let (bias, scale) = (vec![0; padded_n(n)], vec![0.01; padded_n(n)]);
    let requantise = Requantise::new(&bias, &scale, output).unwrap();
    then(Gemm::new(k, n, &packed, requantise).unwrap())
}

/// A convolution of the image to as many rows as the tensor has.
fn add_write(builder: &mut PlanBuilder, ids: &[TensorId], to: usize) {
    let [rows, channels] = SIZES[to];
    let kernel = [17 - rows as u32, 16];
    let shape = ConvShape {
        in_h: 16,
        in_w: 16,
        in_c: 3,
        out_h: rows as u32,
        out_w: 1,
        out_c: channels as u32,
        kernel,
        stride: [1, 1],
        pad: [0; 4],
    };
    let k = (kernel[0] * kernel[1] * 3) as usize;
    with_gemm(k, channels, Output::S16, |gemm| {
        let kind = OpKind::Conv(Conv::new(shape, &[0; 3], gemm).unwrap());
        let inputs = [Some(ids[IMAGE]), None, None];
        let op = Op {
            name: "write",
            kind,
            inputs,
            output: ids[to],
        };
        builder.add_op(&op).unwrap();
    });
}

/// Something that reads the tensor: the maximum over all its rows.
fn add_read(builder: &mut PlanBuilder, ids: &[TensorId], from: usize) {
    let [rows, channels] = SIZES[from].map(|size| size as u32);
    let shape = ConvShape {
        in_h: rows,
        in_w: 1,
        in_c: channels,
        out_h: 1,
        out_w: 1,
        out_c: channels,
        kernel: [rows, 1],
        stride: [1, 1],
        pad: [0; 4],
    };
    let (element, output) = if channels == 3 {
        (InType::S8, ids[SUNK_S8])
    } else {
        (InType::S16, ids[SUNK_S16])
    };
    let op = Op {
        name: "read",
        kind: OpKind::MaxPool(MaxPool::new(shape, element).unwrap()),
        inputs: [Some(ids[from]), None, None],
        output,
    };
    builder.add_op(&op).unwrap();
}

fn add_logits(builder: &mut PlanBuilder, ids: &[TensorId]) {
    with_gemm(3, 10, Output::S32, |gemm| {
        let op = Op {
            name: "head",
            kind: OpKind::PoolLinear(PoolLinear::new(256, gemm).unwrap()),
            inputs: [Some(ids[IMAGE]), None, None],
            output: ids[LOGITS],
        };
        builder.add_op(&op).unwrap();
    });
}

fn plan(steps: &[Step]) -> Result<AlignedBytes, WriteError> {
    let mut builder = PlanBuilder::new();
    let ids = add_tensors(&mut builder);
    for step in steps {
        match *step {
            Write(to) => add_write(&mut builder, &ids, to),
            Read(from) => add_read(&mut builder, &ids, from),
        }
    }
    add_logits(&mut builder, &ids);
    builder.finish(&Metadata {
        input: ids[IMAGE],
        output: ids[LOGITS],
        preprocess: Preprocess::new(16, 16, Resize::Squash, Interpolation::Bilinear).unwrap(),
        mean: [0.5; 3],
        std: [0.5; 3],
        labels: &[],
        provenance: Provenance {
            model_name: "parts",
            model_sha256: [0; 32],
            ranges_sha256: [0; 32],
            calibration_images: 1,
            compiler: "test",
        },
    })
}

/// What is wrong with a plan of these steps, and at which of them.
#[track_caller]
fn refused(steps: &[Step]) -> (usize, Problem) {
    match plan(steps).expect_err("a wrong plan") {
        WriteError::Invalid(PlanError::Invalid { place, problem }) => (place.index, problem),
        other => panic!("{other}"),
    }
}

#[test]
fn a_tensor_is_read_after_it_or_all_its_parts_were_written() {
    for steps in [
        &[Write(WHOLE), Read(WHOLE)][..],
        &[Write(FIRST), Write(SECOND), Read(WHOLE)],
        &[Write(SECOND), Write(FIRST), Read(WHOLE), Read(WHOLE)],
        &[Write(WHOLE), Write(SECOND), Read(WHOLE)],
        &[Write(SINGLE), Read(SINGLE)],
        &[Write(ITS_PART), Read(SINGLE)],
        &[Read(IMAGE)],
    ] {
        plan(steps).unwrap_or_else(|e| panic!("{steps:?}: {e}"));
    }
    let missing = |tensor: usize| Problem::NotWritten {
        tensor: tensor as u32,
    };
    assert_eq!(refused(&[Read(WHOLE)]), (0, missing(WHOLE)));
    assert_eq!(refused(&[Write(FIRST), Read(WHOLE)]), (1, missing(WHOLE)));
    assert_eq!(
        refused(&[Write(SECOND), Write(SECOND), Read(WHOLE)]),
        (2, missing(WHOLE))
    );
}

#[test]
fn a_part_is_read_after_it_or_the_whole_was_written() {
    for steps in [
        &[Write(WHOLE), Read(FIRST), Read(SECOND)][..],
        &[Write(SECOND), Write(FIRST), Read(SECOND)],
        &[Write(SECOND), Write(WHOLE), Read(SECOND)],
        &[Write(SINGLE), Read(ITS_PART)],
        &[Read(UPPER), Read(LOWER)],
    ] {
        plan(steps).unwrap_or_else(|e| panic!("{steps:?}: {e}"));
    }
    let missing = |tensor: usize| Problem::NotWritten {
        tensor: tensor as u32,
    };
    assert_eq!(refused(&[Write(FIRST), Read(SECOND)]), (1, missing(SECOND)));
    assert_eq!(refused(&[Write(SECOND), Read(FIRST)]), (1, missing(FIRST)));
}

#[test]
fn writing_over_a_part_destroys_it_and_the_whole_but_not_its_sibling() {
    let clobbered = |tensor: usize, by| Problem::Clobbered {
        tensor: tensor as u32,
        by,
    };
    let over = [Write(WHOLE), Write(OTHER)];
    assert_eq!(
        refused(&[&over[..], &[Read(WHOLE)]].concat()),
        (2, clobbered(WHOLE, 1))
    );
    assert_eq!(
        refused(&[&over[..], &[Read(SECOND)]].concat()),
        (2, clobbered(SECOND, 1))
    );
    for reading in [
        &[Read(FIRST), Read(OTHER)][..],
        &[Write(SECOND), Read(WHOLE), Read(FIRST), Read(SECOND)],
        &[Write(WHOLE), Read(SECOND)],
    ] {
        let steps = [&over[..], reading].concat();
        plan(&steps).unwrap_or_else(|e| panic!("{steps:?}: {e}"));
    }
    // And the parts destroy what lies in their memory.
    for part in [WHOLE, SECOND] {
        assert_eq!(
            refused(&[Write(OTHER), Write(part), Read(OTHER)]),
            (2, clobbered(OTHER, 1))
        );
    }
    plan(&[Write(OTHER), Write(FIRST), Read(OTHER)]).unwrap();
    // All parts but one are found before the one that was destroyed.
    assert_eq!(
        refused(&[Write(SECOND), Write(OTHER), Write(FIRST), Read(WHOLE)]),
        (3, clobbered(WHOLE, 1))
    );
}

#[test]
fn a_plan_names_its_parts() {
    let bytes = plan(&[]).unwrap();
    let plan = Plan::parse(&bytes).unwrap();
    let id = |name| {
        let index = plan.tensors().position(|tensor| tensor.name == name);
        let index = index.expect("a tensor of this name");
        plan.tensor_ids().nth(index).unwrap()
    };
    let parts: Vec<TensorId> = plan.parts(id("whole")).collect();
    assert_eq!(parts, [id("first"), id("second")]);
    assert_eq!(plan.whole(id("second")), Some(id("whole")));
    assert_eq!(plan.whole(id("lower")), Some(plan.input_id()));
    assert_eq!(plan.whole(id("other")), None);
    assert_eq!(plan.whole(id("whole")), None);
    assert_eq!(plan.parts(id("second")).len(), 0);
    let second = plan.tensor(id("second")).unwrap();
    assert_eq!(second.rows(), Some(5));
    assert_eq!(second.arena_range(), Some(768 + 30..768 + 80));
    assert_eq!(plan.parts(plan.output_id()).len(), 0);
}

/// The problem of a plan with one word of a tensor's record changed.
#[track_caller]
fn edited(tensor: usize, word: usize, value: u32) -> (usize, Problem) {
    let mut bytes = plan(&[]).unwrap();
    let at = HEADER_LEN + tensor * TENSOR_LEN + 4 * word;
    bytes[at..at + 4].copy_from_slice(&value.to_le_bytes());
    testing::reseal(&mut bytes);
    match Plan::parse(&bytes).expect_err("a wrong plan") {
        PlanError::Invalid { place, problem } => {
            assert_eq!(place.section, Section::Tensor);
            (place.index, problem)
        }
        other => panic!("{other}"),
    }
}

#[test]
fn parts_are_the_tensor_cut_between_rows() {
    let bad = |tensor, word, value: u32| match edited(tensor, word, value) {
        (WHOLE, Problem::BadPart { part, what }) => (part, what),
        (IMAGE, Problem::BadPart { part, what }) => (10 + part, what),
        other => panic!("{other:?}"),
    };
    assert!(bad(FIRST, 2, 0).1.contains("type"));
    assert!(bad(FIRST, 6, 4).1.contains("channels"));
    assert!(bad(SECOND, 8, 1.0_f32.to_bits()).1.contains("quantisation"));
    assert_eq!(bad(LOWER, 9, 1).0, 11);
    assert_eq!(
        bad(FIRST, 5, 2),
        (1, "does not start where the one before ends")
    );
    assert_eq!(
        bad(SECOND, 7, 768),
        (1, "does not start where the one before ends")
    );
    assert!(bad(SECOND, 4, 4).1.contains("ends"));
    assert_eq!(bad(FIRST, 11, 1), (0, "has parts itself"));
    // The wrong number of them.
    assert!(bad(WHOLE, 11, 1).1.contains("ends"));
    assert!(bad(WHOLE, 11, 3).1.contains("differs") || bad(WHOLE, 11, 3).1.contains("start"));
    assert!(matches!(
        edited(WHOLE, 11, MAX_PARTS as u32 + 1),
        (WHOLE, Problem::OutOfRange { .. })
    ));
    assert!(matches!(
        edited(LOGITS, 11, 5),
        (LOGITS, Problem::OutOfRange { .. })
    ));
    // What is no part starts at a multiple of 64.
    assert!(matches!(
        edited(WHOLE, 11, 0),
        (FIRST | SECOND, Problem::Unaligned { .. })
    ));
}
