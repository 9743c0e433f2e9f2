//! The reader against damaged, hostile and merely wrong files.
#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use vitlet_plan::format::{BLOB_LEN, HEADER_LEN, OP_LEN, TENSOR_LEN, VERSION, header};
use vitlet_plan::{AlignedBytes, DType, Plan, PlanError, Problem, Section, testing};

/// The tiny plan's ops and tensors by index, as the table of `testing` lists them.
mod tiny {
    pub(crate) const IMAGE: u32 = 0;
    pub(crate) const STEM: u32 = 1;
    pub(crate) const NORM1: u32 = 2;
    pub(crate) const QKV: u32 = 3;
    pub(crate) const STREAM1: u32 = 5;
    pub(crate) const NORM2: u32 = 6;
    pub(crate) const NORM4: u32 = 12;
    pub(crate) const LOGITS: u32 = 13;
    pub(crate) const OP_STEM: usize = 0;
    pub(crate) const OP_QKV: usize = 2;
    pub(crate) const OP_ATTENTION: usize = 3;
    pub(crate) const OP_PROJ: usize = 4;
    pub(crate) const OP_FC1: usize = 6;
    pub(crate) const TENSORS: usize = 14;
}

fn word(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes(bytes[at..at + 4].try_into().unwrap())
}

fn tensor_at(index: u32, word: usize) -> usize {
    HEADER_LEN + index as usize * TENSOR_LEN + 4 * word
}

fn op_at(index: usize, word: usize) -> usize {
    HEADER_LEN + tiny::TENSORS * TENSOR_LEN + index * OP_LEN + 4 * word
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
    assert_eq!(plan.ops().len(), 13);
    assert_eq!(plan.tensors().len(), tiny::TENSORS);
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
    assert_eq!(plan.tensors_len(), 4352);
    assert_eq!(plan.arena_len(2) - plan.arena_len(1), plan.scratch_len());
    assert_eq!(plan.arena_len(0), plan.arena_len(1));
    assert_eq!(
        plan.arena_len(1000),
        plan.arena_len(vitlet_plan::MAX_THREADS)
    );
    let sum: u64 = plan.ops().map(|op| op.kind.macs()).sum();
    assert_eq!(plan.macs(), sum);
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
        VERSION, 2,
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
        problem(&[(header::RESERVED_1 + 44, 1)]).2,
        Problem::NotZero {
            field: "reserved bytes"
        }
    );
    assert!(matches!(
        problem(&[(header::INPUT, 99)]).2,
        Problem::NoSuchTensor { id: 99, .. }
    ));
    assert!(matches!(
        problem(&[(header::OUTPUT, tiny::NORM4)]).2,
        Problem::WrongDType { .. }
    ));
    assert!(matches!(
        problem(&[(header::ARENA, 4351)]).2,
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
    let shape = tensor_at(tiny::LOGITS, 6);
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
    let at = |word| tensor_at(tiny::NORM1, word);
    let found = |change| {
        let (section, index, problem) = problem(&[change]);
        assert_eq!((section, index), (Section::Tensor, tiny::NORM1 as usize));
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
    assert!(matches!(found((at(7), 4352)), Problem::OutOfRange { .. }));
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
}

#[test]
fn ops_are_checked() {
    let found = |op: usize, word: usize, value: u32| {
        let (section, index, problem) = problem(&[(op_at(op, word), value)]);
        assert_eq!((section, index), (Section::Op, op));
        problem
    };
    assert!(matches!(
        found(tiny::OP_STEM, 2, 9),
        Problem::UnknownCode { field: "kind", .. }
    ));
    assert!(matches!(
        found(tiny::OP_STEM, 3, 14),
        Problem::NoSuchTensor { field: "x", id: 14 }
    ));
    assert!(
        matches!(
            found(tiny::OP_STEM, 3, u32::MAX),
            Problem::NoSuchTensor { .. }
        ),
        "x is not optional"
    );
    assert!(matches!(
        found(tiny::OP_STEM, 5, 0),
        Problem::WrongInputs { .. }
    ));
    assert!(
        matches!(
            found(tiny::OP_QKV, 4, tiny::STEM),
            Problem::WrongInputs { .. }
        ),
        "no residual to s8"
    );
    assert!(
        matches!(found(tiny::OP_STEM, 7, 15), Problem::Params(_)),
        "in_h"
    );
    assert!(matches!(
        found(tiny::OP_STEM, 21, 10_000),
        Problem::NoSuchBlob { field: "pad", .. }
    ));
    assert!(
        matches!(found(tiny::OP_STEM, 26, 1), Problem::NotZero { .. }),
        "zero point of an s16 output"
    );
    assert!(
        matches!(found(tiny::OP_STEM, 47, 1), Problem::NotZero { .. }),
        "after the parameters"
    );
    assert!(matches!(
        found(tiny::OP_PROJ, 4, tiny::IMAGE),
        Problem::WrongDType {
            field: "residual",
            ..
        }
    ));
    assert!(
        matches!(found(tiny::OP_QKV, 7, 63), Problem::WrongSize { .. }),
        "rows"
    );
    assert!(matches!(
        found(tiny::OP_QKV, 14, 200),
        Problem::BadZeroPoint { .. }
    ));
    assert!(matches!(
        found(tiny::OP_FC1, 16, 0),
        Problem::BlobLength { field: "table", .. }
    ));
}

#[test]
fn attention_reads_no_minus_128() {
    let min = op_at(tiny::OP_QKV, 15);
    let plan = testing::tiny_plan(1);
    assert_eq!(word(&plan, min) as i32, -127, "the word this test means");
    let (section, index, found) = problem(&[(min, (-128_i32) as u32)]);
    assert_eq!((section, index), (Section::Op, tiny::OP_ATTENTION));
    assert!(
        matches!(
            found,
            Problem::NotSymmetric {
                tensor: tiny::QKV,
                ..
            }
        ),
        "{found}"
    );
}

#[test]
fn attention_writes_all_of_its_output() {
    let row_stride = op_at(tiny::OP_ATTENTION, 7 + 6 + 18 + 1);
    let head_stride = op_at(tiny::OP_ATTENTION, 7 + 6 + 18 + 2);
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
    let found = problem(&[(tensor_at(tiny::NORM1, 7), 768)]).2;
    assert_eq!(found, Problem::Overlap { tensor: tiny::STEM });
    // A residual only half in place.
    let found = problem(&[(tensor_at(tiny::STREAM1, 7), 768 - 64)]).2;
    assert_eq!(found, Problem::Overlap { tensor: tiny::STEM });
}

#[test]
fn nothing_is_read_before_it_is_written() {
    let (_, index, found) = problem(&[(op_at(tiny::OP_QKV, 3), tiny::NORM2)]);
    assert_eq!(
        (index, found),
        (
            tiny::OP_QKV,
            Problem::NotWritten {
                tensor: tiny::NORM2
            }
        )
    );
}

#[test]
fn nothing_is_read_after_its_memory_is_reused() {
    // qkv moves onto the stem's memory, which proj still needs as its residual.
    let (_, index, found) = problem(&[(tensor_at(tiny::QKV, 7), 256)]);
    assert_eq!(
        (index, found),
        (
            tiny::OP_PROJ,
            Problem::Clobbered {
                tensor: tiny::STEM,
                by: tiny::OP_QKV
            }
        )
    );
}

#[test]
fn weights_are_checked_and_their_padding_is_zero() {
    // The stem is 27 × 8: 27 is padded to 32, so the last step of the last block of four is padding.
    let plan = testing::tiny_plan(1);
    let id = word(&plan, op_at(tiny::OP_STEM, 22)) as usize;
    let blobs = word(&plan, header::BLOBS) as usize;
    let data = word(&plan, header::DATA) as usize;
    let weights = data + word(&plan, blobs + id * BLOB_LEN) as usize;
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
    let text = refused(&[(op_at(tiny::OP_QKV, 7), 63)]).to_string();
    let at = op_at(tiny::OP_QKV, 0);
    assert!(
        text.starts_with(&format!("op 2 `qkv` (byte {at}): ")),
        "{text}"
    );
}
