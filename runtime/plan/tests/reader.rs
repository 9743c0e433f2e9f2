//! The reader against damaged, hostile and merely wrong files.
#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used, clippy::panic)]

#[path = "reader/strips.rs"]
mod strips;

use vitlet_plan::format::{BLOB_LEN, HEADER_LEN, OP_LEN, TENSOR_LEN, VERSION, header};
use vitlet_plan::{
    AlignedBytes, DType, Metadata, Plan, PlanBuilder, PlanError, Problem, Section, testing,
};

/// The id of the tiny plan's tensor of this name.
#[track_caller]
fn tensor(name: &str) -> u32 {
    let bytes = testing::tiny_plan(1);
    let plan = Plan::parse(&bytes).unwrap();
    let index = plan.tensors().position(|tensor| tensor.name == name);
    index.expect("a tensor of this name") as u32
}

/// The index of the tiny plan's op of this name.
#[track_caller]
fn op(name: &str) -> usize {
    let bytes = testing::tiny_plan(1);
    let plan = Plan::parse(&bytes).unwrap();
    let index = plan.ops().position(|op| op.name == name);
    index.expect("an op of this name")
}

/// The first byte of a blob.
fn blob_at(plan: &[u8], id: u32) -> usize {
    let blobs = word(plan, header::BLOBS) as usize;
    (word(plan, header::DATA) + word(plan, blobs + id as usize * BLOB_LEN)) as usize
}

fn word(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes(bytes[at..at + 4].try_into().unwrap())
}

/// The byte of a word of a tensor's record.
#[track_caller]
fn tensor_at(name: &str, word: usize) -> usize {
    HEADER_LEN + tensor(name) as usize * TENSOR_LEN + 4 * word
}

/// The byte of a word of an op's record.
#[track_caller]
fn op_at(name: &str, at: usize) -> usize {
    let plan = testing::tiny_plan(1);
    word(&plan, header::OPS) as usize + op(name) * OP_LEN + 4 * at
}

/// The error for the tiny plan with some words changed and the checksum made right.
#[track_caller]
fn refused(changes: &[(usize, u32)]) -> PlanError {
    let mut plan = testing::tiny_plan(1);
    for &(at, value) in changes {
        plan[at..at + 4].copy_from_slice(&value.to_le_bytes());
    }
    testing::reseal(&mut plan);
    let error = Plan::parse(&plan).expect_err("a wrong plan");
    let text = error.to_string();
    assert!(!text.contains('\n') && text.contains("recompile"), "{text}");
    error
}

/// The problem of one changed word, with the record it was found in.
#[track_caller]
fn problem(changes: &[(usize, u32)]) -> (Section, usize, Problem) {
    match refused(changes) {
        PlanError::Invalid { place, problem } => (place.section, place.index, problem),
        other => panic!("{other}"),
    }
}

#[test]
fn what_was_written_is_read() {
    let bytes = testing::tiny_plan(5);
    let plan = Plan::parse(&bytes).unwrap();
    assert_eq!(plan.input(), (16, 16));
    assert_eq!(plan.input_id().index(), 0);
    assert_eq!(plan.output().name, "logits");
    assert_eq!(plan.output().dtype, DType::S32);
    assert_eq!(plan.ops().len(), 39);
    assert_eq!(plan.tensors().len(), 43);
    assert_eq!(plan.tensor(plan.output_id()).unwrap().shape, [1, 1, 1, 10]);
    assert_eq!(plan.labels().collect::<Vec<_>>()[9], "class 9");
    assert_eq!(plan.label(10), None);
    assert_eq!(plan.mean(), [0.485, 0.456, 0.406]);
    assert_eq!(plan.std(), [0.229, 0.224, 0.225]);
    assert_eq!(plan.provenance().model_name, "tiny-5");
    assert_eq!(plan.provenance().ranges_sha256, [0x22; 32]);
    assert_eq!(plan.float_ops(), 0);
    assert_eq!(plan.copies(), 1, "fc2 puts its sum elsewhere");
    assert_eq!(plan.file_len(), bytes.len());
    assert_eq!(plan.tensors_len(), 13312);
    // Rows of 8 bytes but for fc1's and dwconv's 16: a strip of each (norm2 and fc1 with a row of pixels above and one below), and what two
    // ops that are ahead read around their own.
    let [norm2, fc1, dwconv] = [32 * 8, 32 * 16, 16 * 16];
    let around_norm2 = 16 * 8 * 2;
    assert_eq!(plan.window_len(), norm2 + fc1 + dwconv + around_norm2);
    let thread = plan.scratch_len() + plan.window_len();
    assert_eq!(plan.arena_len(1), plan.tensors_len() + plan.scratch_len());
    assert_eq!(plan.arena_len(2), plan.tensors_len() + 2 * thread);
    assert_eq!(plan.arena_len(0), plan.arena_len(1));
    assert_eq!(
        plan.arena_len(1000),
        plan.arena_len(vitlet_plan::MAX_THREADS)
    );
    let sum: u64 = plan.ops().map(|op| op.kind.macs()).sum();
    assert_eq!(plan.macs(), sum);
}

/// The plan, written anew from what was read.
fn rewritten(plan: &Plan<'_>) -> AlignedBytes {
    let mut builder = PlanBuilder::new();
    let mut ids = plan.tensor_ids();
    while let Some(id) = ids.next() {
        let parts: Vec<_> = ids.by_ref().take(plan.parts(id).len()).collect();
        let parts: Vec<_> = parts
            .iter()
            .map(|&part| plan.tensor(part).unwrap())
            .collect();
        let parts: Vec<_> = parts.iter().map(|part| (part.name, part.shape)).collect();
        let whole = plan.tensor(id).unwrap();
        let (found, _) = builder.add_tensor_with_parts(&whole, &parts).unwrap();
        assert_eq!(found, id);
    }
    for op in plan.ops() {
        builder.add_op(&op).unwrap();
    }
    for group in plan.strips() {
        builder.add_strips(group.ops(), group.ends()).unwrap();
    }
    let labels: Vec<_> = plan.labels().collect();
    builder
        .finish(&Metadata {
            input: plan.input_id(),
            output: plan.output_id(),
            preprocess: plan.preprocess(),
            mean: plan.mean(),
            std: plan.std(),
            labels: &labels,
            provenance: plan.provenance(),
        })
        .unwrap()
}

#[test]
fn what_was_read_can_be_written() {
    let bytes = testing::tiny_plan(6);
    let plan = Plan::parse(&bytes).unwrap();
    let again = rewritten(&plan);
    // But for the last array's padding.
    let padded = |bytes: &AlignedBytes| bytes.len().next_multiple_of(64);
    assert_eq!(padded(&again), padded(&bytes));
    // The arrays are in another order, but every word and element of them is shown.
    let reread = Plan::parse(&again).unwrap();
    for (one, other) in plan.ops().zip(reread.ops()) {
        assert_eq!(format!("{one:?}"), format!("{other:?}"));
    }
    assert!(plan.tensors().eq(reread.tensors()));
    let strips = |plan: &Plan<'_>| {
        plan.strips()
            .map(|group| format!("{group:?}"))
            .collect::<Vec<_>>()
    };
    assert_eq!(strips(&plan), strips(&reread));
    assert_eq!(rewritten(&reread)[..], again[..]);
}

#[test]
fn a_file_cut_at_any_length_is_refused() {
    let plan = testing::tiny_plan(1);
    for len in 0..plan.len() {
        match Plan::parse(&plan[..len]) {
            Err(PlanError::NotAPlan) => assert_eq!(len, 0),
            Err(PlanError::Truncated { len: found, .. }) => assert_eq!(found, len),
            other => panic!("{len} bytes: {other:?}"),
        }
    }
}

#[test]
fn a_file_cut_at_any_length_whose_header_admits_it_is_refused() {
    let plan = testing::tiny_plan(1);
    for len in HEADER_LEN..plan.len() {
        let mut cut = AlignedBytes::copy_of(&plan[..len]);
        cut[header::FILE_LEN..header::FILE_LEN + 4].copy_from_slice(&(len as u32).to_le_bytes());
        testing::reseal(&mut cut);
        assert!(
            matches!(Plan::parse(&cut), Err(PlanError::Invalid { .. })),
            "{len}"
        );
    }
}

#[test]
fn any_flipped_bit_is_noticed() {
    let mut plan = testing::tiny_plan(1);
    for at in 0..plan.len() {
        for bit in 0..8 {
            plan[at] ^= 1 << bit;
            assert!(Plan::parse(&plan).is_err(), "byte {at} bit {bit}");
            plan[at] ^= 1 << bit;
        }
    }
    Plan::parse(&plan).unwrap();
}

#[test]
fn the_shell_s_errors_say_what_to_do() {
    let plan = testing::tiny_plan(1);
    let with = |at: usize, value: u32| {
        let mut changed = plan.clone();
        changed[at..at + 4].copy_from_slice(&value.to_le_bytes());
        Plan::parse(&changed).unwrap_err()
    };
    assert_eq!(
        Plan::parse(b"not a plan at all").unwrap_err(),
        PlanError::NotAPlan
    );
    assert_eq!(with(header::VERSION, 9), PlanError::Version { found: 9 });
    assert!(
        with(header::VERSION, 9)
            .to_string()
            .contains("`vitlet compile`")
    );
    assert_eq!(with(header::TARGET, 3), PlanError::Target { found: 3 });
    assert!(with(header::TARGET, 3).to_string().contains("target 3"));
    let damaged = with(header::CALIBRATION_IMAGES, 77);
    assert!(matches!(damaged, PlanError::Checksum { .. }), "{damaged}");

    let mut long = AlignedBytes::zeroed(plan.len() + 1);
    long[..plan.len()].copy_from_slice(&plan);
    let needed = plan.len();
    assert_eq!(
        Plan::parse(&long).unwrap_err(),
        PlanError::TrailingBytes {
            len: needed + 1,
            needed
        }
    );

    let mut shifted = AlignedBytes::zeroed(plan.len() + 8);
    shifted[8..].copy_from_slice(&plan);
    assert_eq!(
        Plan::parse(&shifted[8..]).unwrap_err(),
        PlanError::Misaligned
    );
}

#[test]
fn the_version_is_the_one_documented() {
    assert_eq!(word(&testing::tiny_plan(1), header::VERSION), VERSION);
    assert_eq!(
        VERSION, 3,
        "a new version needs the old one's reader or a message that says what to do"
    );
}

#[test]
fn the_header_is_checked() {
    let unknown = |field, value| Problem::UnknownCode { field, value };
    assert_eq!(
        problem(&[(header::INTERPOLATION, 2)]).2,
        unknown("interpolation", 2)
    );
    assert_eq!(problem(&[(header::RESIZE, 2)]).2, unknown("resize", 2));
    assert!(
        matches!(problem(&[(header::RESIZE, 0)]).2, Problem::NotZero { .. }),
        "squash with a short side"
    );
    assert!(
        matches!(
            problem(&[(header::SHORT_SIDE, 3)]).2,
            Problem::Preprocess(_)
        ),
        "smaller than the crop"
    );
    assert_eq!(
        problem(&[(header::MEAN, f32::NAN.to_bits())]).2,
        Problem::BadFloat { field: "mean" }
    );
    assert_eq!(
        problem(&[(header::STD, 0)]).2,
        Problem::BadFloat { field: "std" }
    );
    assert_eq!(
        problem(&[(header::RESERVED_0, 1)]).2,
        Problem::NotZero {
            field: "reserved bytes"
        }
    );
    assert_eq!(
        problem(&[(header::RESERVED_1 + 36, 1)]).2,
        Problem::NotZero {
            field: "reserved bytes"
        }
    );
    assert!(matches!(
        problem(&[(header::INPUT, 99)]).2,
        Problem::NoSuchTensor { id: 99, .. }
    ));
    assert!(matches!(
        problem(&[(header::OUTPUT, tensor("norm4"))]).2,
        Problem::WrongDType { .. }
    ));
    assert!(matches!(
        problem(&[(header::ARENA, 13311)]).2,
        Problem::Unaligned { .. }
    ));
    assert!(matches!(
        problem(&[(header::MODEL_NAME + 4, u32::MAX)]).2,
        Problem::BadString { .. }
    ));
    assert!(matches!(
        problem(&[(header::TENSORS, 0)]).2,
        Problem::Mismatch { .. }
    ));
    assert!(matches!(
        problem(&[(header::OPS + 4, u32::MAX)]).2,
        Problem::OutOfRange { .. }
    ));
    assert!(matches!(
        problem(&[(header::BLOBS + 4, u32::MAX)]).2,
        Problem::TooLarge { .. }
    ));
}

#[test]
fn text_has_no_control_characters() {
    let plan = testing::tiny_plan(1);
    let at = word(&plan, header::STRINGS) as usize & !3;
    for byte in [b'\n', b'\r', 0x1b, 0] {
        let text = u32::from_le_bytes([b'a', byte, b'b', b'c']);
        assert!(matches!(
            problem(&[(at + 4, text)]).2,
            Problem::BadText { .. }
        ));
    }
}

#[test]
fn labels_are_none_or_one_per_logit() {
    let shape = tensor_at("logits", 6);
    assert!(matches!(
        problem(&[(shape, 9)]).2,
        Problem::Mismatch {
            field: "number of labels",
            value: 10,
            expected: 9
        }
    ));
}

#[test]
fn tensors_are_checked() {
    let at = |word| tensor_at("norm1", word);
    let found = |change| {
        let (section, index, problem) = problem(&[change]);
        assert_eq!(
            (section, index),
            (Section::Tensor, tensor("norm1") as usize)
        );
        problem
    };
    assert!(matches!(found((at(0), 1 << 20)), Problem::BadString { .. }));
    assert!(matches!(
        found((at(2), 3)),
        Problem::UnknownCode {
            field: "dtype",
            value: 3
        }
    ));
    assert!(matches!(found((at(3), 0)), Problem::Zero { .. }));
    assert!(matches!(
        found((at(3), u32::MAX)),
        Problem::OutOfRange { .. } | Problem::TooLarge { .. }
    ));
    assert!(matches!(found((at(7), 1793)), Problem::Unaligned { .. }));
    assert!(matches!(found((at(7), 13312)), Problem::OutOfRange { .. }));
    for scale in [f32::NAN, f32::INFINITY, -1.0, -0.0, 1e-40] {
        assert!(
            matches!(found((at(8), scale.to_bits())), Problem::BadFloat { .. }),
            "{scale}"
        );
    }
    assert!(matches!(
        found((at(9), 128)),
        Problem::BadZeroPoint { value: 128, .. }
    ));
    assert!(matches!(found((at(11), 1)), Problem::BadPart { .. }));
    assert!(matches!(
        found((at(10), 10_000)),
        Problem::NoSuchBlob {
            field: "scales",
            ..
        }
    ));
}

#[test]
fn ops_are_checked() {
    let found = found_in;
    assert!(matches!(
        found("stem", 2, 10),
        Problem::UnknownCode { field: "kind", .. }
    ));
    assert!(matches!(
        found("stem", 3, 43),
        Problem::NoSuchTensor { field: "x", id: 43 }
    ));
    assert!(
        matches!(found("stem", 3, u32::MAX), Problem::NoSuchTensor { .. }),
        "x is not optional"
    );
    assert!(matches!(found("stem", 5, 0), Problem::WrongInputs { .. }));
    assert!(
        matches!(found("qkv", 4, tensor("stem")), Problem::WrongInputs { .. }),
        "no residual to s8"
    );
    assert!(matches!(found("stem", 7, 15), Problem::Params(_)), "in_h");
    assert!(matches!(
        found("stem", 21, 10_000),
        Problem::NoSuchBlob { field: "pad", .. }
    ));
    assert!(
        matches!(found("stem", 26, 1), Problem::NotZero { .. }),
        "zero point of an s16 output"
    );
    assert!(
        matches!(found("stem", 47, 1), Problem::NotZero { .. }),
        "after the parameters"
    );
    assert!(matches!(
        found("proj", 4, tensor("image")),
        Problem::WrongDType {
            field: "residual",
            ..
        }
    ));
    assert!(
        matches!(found("qkv", 7, 63), Problem::WrongSize { .. }),
        "rows"
    );
    assert!(matches!(
        found("qkv", 14, 200),
        Problem::BadZeroPoint { .. }
    ));
    assert!(matches!(
        found("fc1", 16, 0),
        Problem::BlobLength { field: "table", .. }
    ));
}

/// The problem of the tiny plan in which the op of this name may write −128.
#[track_caller]
fn with_minimum(op: &str, at: usize) -> (usize, Problem) {
    let min = op_at(op, at);
    let plan = testing::tiny_plan(1);
    assert_eq!(word(&plan, min) as i32, -127, "the word this test means");
    let (section, index, found) = problem(&[(min, (-128_i32) as u32)]);
    assert_eq!(section, Section::Op);
    (index, found)
}

/// The problem of one changed word of an op's record, which must be found there.
#[track_caller]
fn found_in(name: &str, at: usize, value: u32) -> Problem {
    let (section, index, problem) = problem(&[(op_at(name, at), value)]);
    assert_eq!((section, index), (Section::Op, op(name)));
    problem
}

/// The problem of an op one of whose tables has this element instead of its first.
#[track_caller]
fn with_element(name: &str, at: usize, element: u32) -> Problem {
    let plan = testing::tiny_plan(1);
    let (section, index, problem) =
        problem(&[(blob_at(&plan, word(&plan, op_at(name, at))), element)]);
    assert_eq!(section, Section::Op);
    assert!(
        index <= op(name),
        "the op, or an earlier one with this table"
    );
    problem
}

#[test]
fn attention_s_tables_are_checked() {
    // Words: 7 shape; 13, 19, 25, 31 rows of q, k, v, output; 37 quantisation; 41 bias and window; 44 mask.
    let kernel = |problem: Problem| assert!(matches!(problem, Problem::Params(_)), "{problem}");
    kernel(with_element("windows", 16, 64));
    kernel(with_element("tokens", 34, 68));
    kernel(with_element("tokens", 18, 0x80)); // A constant of −128.
    kernel(with_element("windows", 41, 1 << 25));
    kernel(found_in("windows", 42, 3)); // A window that is not the group.
    kernel(found_in("windows", 9, 3)); // Groups.
    kernel(found_in("exchange", 10, 8)); // Slots.
    assert!(matches!(
        found_in("windows", 41, u32::MAX),
        Problem::NotZero { .. }
    ));
    assert!(matches!(
        found_in("windows", 44, 10_000),
        Problem::NoSuchBlob { field: "mask", .. }
    ));
    assert!(matches!(
        found_in("tokens", 35, 67),
        Problem::Params(_)
            | Problem::WrongSize {
                field: "output",
                ..
            }
    ));
    // More rows than the tensor has.
    assert!(matches!(
        found_in("exchange", 29, 65),
        Problem::WrongSize { field: "v", .. }
    ));
}

#[test]
fn an_attention_s_input_is_missing_if_and_only_if_all_its_rows_are_constants() {
    assert!(matches!(
        found_in("gate", 3, tensor("gated")),
        Problem::WrongInputs { .. }
    ));
    assert!(matches!(
        found_in("tokens", 3, u32::MAX),
        Problem::NoSuchTensor { field: "q", .. }
    ));
}

#[test]
fn gathered_rows_are_checked() {
    let kernel = |problem: Problem| assert!(matches!(problem, Problem::Params(_)), "{problem}");
    kernel(with_element("merge", 16, 64));
    kernel(found_in("merge", 14, 3));
    assert!(matches!(
        found_in("merge", 15, 65),
        Problem::WrongSize { field: "x", .. }
    ));
    assert!(matches!(
        found_in("merge", 16, u32::MAX),
        Problem::NotZero { .. }
    ));
    assert!(matches!(found_in("norm1", 14, 1), Problem::NotZero { .. }));
}

#[test]
fn sums_and_products_are_checked() {
    let kernel = |problem: Problem| assert!(matches!(problem, Problem::Params(_)), "{problem}");
    let code = |problem: Problem| {
        assert!(matches!(problem, Problem::UnknownCode { .. }), "{problem}");
    };
    let dtype = |problem: Problem| {
        assert!(matches!(problem, Problem::WrongDType { .. }), "{problem}");
    };
    // Add: 7 sizes, 9 a, 11 b, 14 bias and output.
    dtype(found_in("sum", 9, 0));
    code(found_in("sum", 9, 3));
    code(found_in("sum", 11, 3));
    dtype(found_in("sum", 12, 2));
    kernel(with_element("sum", 10, f32::NAN.to_bits()));
    kernel(with_element("position", 13, 1e-40_f32.to_bits()));
    kernel(found_in("position", 8, 7));
    assert!(matches!(found_in("narrow", 12, 1), Problem::NotZero { .. }));
    assert!(matches!(
        found_in("narrow", 4, tensor("sum")),
        Problem::WrongInputs { .. }
    ));
    assert!(matches!(
        found_in("sum", 4, u32::MAX),
        Problem::NoSuchTensor { field: "b", .. }
    ));
    // Mul: 7 sizes, 9 a, 11 b with its rows, columns, first column and table, 17 scale and output.
    dtype(found_in("spread", 9, 0));
    kernel(found_in("spread", 11, 2));
    kernel(found_in("spread", 10, 1)); // A zero point of an s16.
    kernel(found_in("spread", 15, 9)); // Past the last column.
    kernel(with_element("spread", 16, 4));
    kernel(with_element("spread", 17, 0));
    assert!(matches!(
        found_in("spread", 13, 5),
        Problem::WrongSize { field: "b", .. }
    ));
    assert!(matches!(
        found_in("gated", 12, 128),
        Problem::BadZeroPoint { .. }
    ));
    // Max pooling: 7 shape, 21 type.
    dtype(found_in("pool", 21, 1));
    kernel(found_in("pool", 21, 2));
    kernel(found_in("pool", 12, 4)); // Output channels.
}

#[test]
fn attention_reads_no_minus_128() {
    let not_symmetric = |field, name| Problem::NotSymmetric {
        field,
        tensor: tensor(name),
    };
    assert_eq!(
        with_minimum("qkv", 15),
        (op("attention"), not_symmetric("q", "qkv"))
    );
    // A part, of a tensor that another attention wrote as a whole.
    assert_eq!(
        with_minimum("tokens", 40),
        (op("exchange"), not_symmetric("v", "pixels"))
    );
    // A tensor of which one part is wrong, and a part.
    assert_eq!(
        with_minimum("wide", 15),
        (op("mix"), not_symmetric("k", "both"))
    );
    assert_eq!(
        with_minimum("side", 15),
        (op("mix"), not_symmetric("q", "side"))
    );
}

#[test]
fn several_scales_are_read_by_channel() {
    let bytes = testing::tiny_plan(1);
    let plan = Plan::parse(&bytes).unwrap();
    let qkv = plan.tensors().nth(tensor("qkv") as usize).unwrap();
    assert_eq!((qkv.scale, qkv.scales.len()), (0.0, 6));
    for channel in 0..24 {
        assert_eq!(qkv.scale_of(channel), Some(qkv.scales[channel / 4]));
    }
    assert_eq!(qkv.scale_of(24), None);
    let stem = plan.tensors().nth(tensor("stem") as usize).unwrap();
    assert_eq!(stem.scale_of(7), Some(1.0 / 4096.0));
    assert_eq!(stem.scale_of(8), None);
}

#[test]
fn several_scales_are_checked() {
    let found = |changes: &[(usize, u32)]| {
        let (section, index, problem) = problem(changes);
        assert_eq!((section, index as u32), (Section::Tensor, tensor("qkv")));
        problem
    };
    assert!(matches!(
        found(&[(tensor_at("qkv", 8), 1.0_f32.to_bits())]),
        Problem::NotZero { .. }
    ));
    let shape = tensor_at("qkv", 6);
    assert!(matches!(
        found(&[(shape, 23)]),
        Problem::NotADivisor {
            value: 6,
            of: 23,
            ..
        }
    ));
    let plan = testing::tiny_plan(1);
    let scales = blob_at(&plan, word(&plan, tensor_at("qkv", 10)));
    for scale in [f32::NAN, 0.0, -1.0, 1e-40] {
        assert_eq!(
            found(&[(scales + 20, scale.to_bits())]),
            Problem::BadFloat { field: "scales" },
            "{scale}"
        );
    }
    // Scales that the plan does not say.
    let mut silent = plan;
    let at = tensor_at("qkv", 10);
    silent[at..at + 4].copy_from_slice(&u32::MAX.to_le_bytes());
    testing::reseal(&mut silent);
    let silent = Plan::parse(&silent).unwrap();
    let qkv = silent.tensors().nth(tensor("qkv") as usize).unwrap();
    assert_eq!((qkv.scales, qkv.scale_of(0)), (&[][..], None));
}

#[test]
fn attention_writes_all_of_its_output() {
    let row_stride = op_at("attention", 7 + 6 + 18 + 1);
    let head_stride = op_at("attention", 7 + 6 + 18 + 2);
    let plan = testing::tiny_plan(1);
    assert_eq!((word(&plan, row_stride), word(&plan, head_stride)), (8, 4));
    // Rows further apart than two heads of four: the space between would keep old bytes.
    assert_eq!(problem(&[(row_stride, 16)]).2, Problem::SparseOutput);
    assert!(
        matches!(problem(&[(head_stride, 3)]).2, Problem::Params(_)),
        "overlapping heads"
    );
}

#[test]
fn an_op_does_not_write_what_it_reads() {
    // norm1 in the stem's memory.
    let found = problem(&[(tensor_at("norm1", 7), 768)]).2;
    assert_eq!(
        found,
        Problem::Overlap {
            tensor: tensor("stem")
        }
    );
    // A residual only half in place.
    let found = problem(&[(tensor_at("stream1", 7), 768 - 64)]).2;
    assert_eq!(
        found,
        Problem::Overlap {
            tensor: tensor("stem")
        }
    );
}

#[test]
fn nothing_is_read_before_it_is_written() {
    let (_, index, found) = problem(&[(op_at("qkv", 3), tensor("norm2"))]);
    assert_eq!(
        (index, found),
        (
            op("qkv"),
            Problem::NotWritten {
                tensor: tensor("norm2")
            }
        )
    );
}

#[test]
fn nothing_is_read_after_its_memory_is_reused() {
    // qkv moves onto the stem's memory, which proj still needs as its residual.
    let (_, index, found) = problem(&[(tensor_at("qkv", 7), 256)]);
    assert_eq!(
        (index, found),
        (
            op("proj"),
            Problem::Clobbered {
                tensor: tensor("stem"),
                by: op("qkv")
            }
        )
    );
}

#[test]
fn weights_are_checked_and_their_padding_is_zero() {
    // The stem is 27 × 8: 27 is padded to 32, so the last step of the last block of four is padding.
    let plan = testing::tiny_plan(1);
    let id = word(&plan, op_at("stem", 22)) as usize;
    let blobs = word(&plan, header::BLOBS) as usize;
    let weights = blob_at(&plan, id as u32);
    assert_eq!(word(&plan, blobs + id * BLOB_LEN + 4), 256);
    let last = weights + 252;
    assert_eq!(word(&plan, last), 0);
    assert_eq!(
        problem(&[(last, 1)]).2,
        Problem::NotZero {
            field: "padding of the packed weights"
        }
    );
    assert!(
        matches!(problem(&[(weights, 0x80)]).2, Problem::Params(_)),
        "a weight of -128"
    );
}

#[test]
fn blobs_tile_the_data_section() {
    let plan = testing::tiny_plan(1);
    let blobs = word(&plan, header::BLOBS) as usize;
    let found = |at, value| {
        let (section, _, problem) = problem(&[(at, value)]);
        assert_eq!(section, Section::Blob);
        problem
    };
    assert!(matches!(found(blobs, 64), Problem::Mismatch { .. }));
    assert!(matches!(found(blobs + 4, 0), Problem::Zero { .. }));
    assert!(matches!(
        found(blobs + 4, u32::MAX),
        Problem::OutOfRange { .. } | Problem::TooLarge { .. }
    ));
    let (len, data) = (
        word(&plan, blobs + 4) as usize,
        word(&plan, header::DATA) as usize,
    );
    assert!(
        !len.is_multiple_of(64),
        "the first blob has padding behind it"
    );
    let padding = (data + len).next_multiple_of(4);
    assert!(matches!(found(padding, 1), Problem::NotZero { .. }));
}

#[test]
fn messages_name_the_op_and_its_byte() {
    let text = refused(&[(op_at("qkv", 7), 63)]).to_string();
    let at = op_at("qkv", 0);
    assert!(
        text.starts_with(&format!("op 2 `qkv` (byte {at}): ")),
        "{text}"
    );
}
