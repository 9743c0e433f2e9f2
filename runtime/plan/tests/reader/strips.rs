//! Groups of ops that run strip by strip.

use vitlet_plan::format::header;
use vitlet_plan::{Plan, Problem, Section, testing};

use super::*;

/// The byte of a word of the first strips record.
fn strips_at(at: usize) -> usize {
    word(&testing::tiny_plan(1), header::STRIPS) as usize + 4 * at
}

/// The problem of one changed word that shows in a group of strips, and the group.
#[track_caller]
fn in_strips(at: usize, value: u32) -> (usize, Problem) {
    let (section, index, problem) = problem(&[(at, value)]);
    assert_eq!(section, Section::Strips, "{problem}");
    (index, problem)
}

#[test]
fn strips_are_as_long_as_windows_ask() {
    let bytes = testing::tiny_plan(1);
    let plan = Plan::parse(&bytes).unwrap();
    let group = plan.strips().next().unwrap();
    let [norm, fc1, dwconv, fc2] = ["norm2", "fc1", "dwconv", "fc2"].map(op);
    assert_eq!((group.ops(), group.count()), (norm..fc2 + 1, 4));
    // A row of 8 pixels ahead, for the window of 3×3.
    let rows = |op| [0, 1, 2, 3].map(|strip| group.rows(op, strip));
    assert_eq!(rows(norm), [0..24, 24..40, 40..56, 56..64]);
    assert_eq!(rows(fc1), rows(norm));
    assert_eq!(rows(dwconv), [0..16, 16..32, 32..48, 48..64]);
    assert_eq!(rows(fc2), rows(dwconv));
    // The row above the strip is kept, and the one ahead.
    assert_eq!(
        [0, 1, 2, 3].map(|strip| group.base(fc1, strip)),
        [0, 8, 24, 40]
    );
    assert_eq!([norm, fc1, dwconv].map(|op| group.held(op)), [24, 32, 16]);
}

/// Strips of rows 24 to 55 only, as a thread has them: ops that are ahead are also before, and nothing is kept at first.
#[test]
fn a_window_is_computed_with_the_rows_around_it() {
    let bytes = testing::tiny_plan(1);
    let plan = Plan::parse(&bytes).unwrap();
    let group = plan.strips().next().unwrap();
    assert_eq!(group.line(), Some(8));
    let window = group.window(24..56);
    assert_eq!(window.count(), 2);
    let [norm, fc1, dwconv, fc2] = ["norm2", "fc1", "dwconv", "fc2"].map(op);
    let rows = |op| [0, 1].map(|strip| window.rows(op, strip));
    assert_eq!(rows(norm), [16..48, 48..64]);
    assert_eq!(rows(fc1), rows(norm));
    assert_eq!(rows(dwconv), [24..40, 40..56]);
    assert_eq!(rows(fc2), rows(dwconv));
    assert_eq!([0, 1].map(|strip| window.base(fc1, strip)), [16, 32]);
    assert_eq!(window.kept(fc1, 1), 32..48);
    assert_eq!(
        [norm, fc1, dwconv, fc2].map(|op| window.beyond_window(op)),
        [[8, 8], [8, 8], [0, 0], [0, 0]]
    );
    // At the ends of the tensor there is nothing around.
    assert_eq!(group.window(0..32).rows(fc1, 0), 0..24);
    assert_eq!(group.window(32..64).rows(fc1, 1), 56..64);
}

#[test]
fn strips_are_checked() {
    let bad = |what| Problem::BadStrips {
        op: op("dwconv"),
        what,
    };
    for count in [0, 1, 7] {
        let value = u64::from(count);
        let problem = Problem::OutOfRange {
            field: "number of ops",
            value,
            limit: 6,
        };
        // Ops that are no longer in a group may not touch what is only partly there.
        let found = problem_of_count(count);
        assert!(
            found == problem || matches!(found, Problem::Held { .. }),
            "{found}"
        );
    }
    let plan = testing::tiny_plan(1);
    let ends = blob_at(&plan, word(&plan, strips_at(2)));
    let unsorted = Problem::Unsorted { field: "ends" };
    assert_eq!(in_strips(ends, 0), (0, unsorted));
    assert_eq!(in_strips(ends + 8, 32), (0, unsorted));
    assert_eq!(
        problem(&[(ends, 12), (ends + 4, 28), (ends + 8, 44)]).2,
        bad("would compute parts of pixel rows")
    );
    assert!(matches!(
        in_strips(ends + 12, 72).1,
        Problem::BadStrips {
            what: "has not as many rows as the last strip ends with",
            ..
        }
    ));
    // A longer second strip needs more rows at a time than there is room for.
    assert!(matches!(
        in_strips(ends + 4, 40).1,
        Problem::BadStrips {
            what: "needs more rows in memory than its result holds",
            ..
        }
    ));
    assert!(matches!(
        in_strips(strips_at(2), 9999).1,
        Problem::NoSuchBlob { .. }
    ));
    // The second group where the first is, or with an op more, whose operand is not one of its rows.
    for change in [(strips_at(3), op("norm2") as u32), (strips_at(4), 3)] {
        let found = problem(&[change]).2;
        assert!(
            matches!(found, Problem::BadStrips { .. } | Problem::Held { .. }),
            "{found}"
        );
    }
}

/// What is wrong when the first group has another number of ops.
fn problem_of_count(count: u32) -> Problem {
    problem(&[(strips_at(1), count)]).2
}

#[test]
fn what_is_only_partly_in_memory_belongs_to_a_group() {
    let held = |name| tensor_at(name, 12);
    let (section, index, found) = problem(&[(held("fc1"), 64)]);
    assert_eq!((section, index), (Section::Tensor, tensor("fc1") as usize));
    assert!(
        matches!(found, Problem::OutOfRange { .. }),
        "all its rows: {found}"
    );
    assert!(matches!(
        in_strips(held("fc1"), 31).1,
        Problem::BadStrips { .. }
    ));
    for name in ["image", "logits", "tokens and pixels", "qkv", "stream1"] {
        let found = problem(&[(held(name), 1)]).2;
        assert!(
            matches!(found, Problem::Held { .. } | Problem::OutOfRange { .. }),
            "{name}: {found}"
        );
    }
    // shortcut is written in the second group and read after it.
    let (section, index, found) = problem(&[(held("shortcut"), 30)]);
    assert_eq!((section, index), (Section::Op, op("qkv_t")));
    assert_eq!(
        found,
        Problem::Held {
            tensor: tensor("shortcut")
        }
    );
}

/// As if every op ran whole, this would be right: an op overwrites what was read by one before it.
#[test]
fn an_op_of_a_group_does_not_overwrite_what_the_others_still_read() {
    let found = problem(&[(tensor_at("dwconv", 7), 0), (tensor_at("dwconv", 12), 16)]);
    assert_eq!(found.0, Section::Strips);
    assert!(matches!(
        found.2,
        Problem::BadStrips {
            what: "reads rows that another op has overwritten" | "writes where another op writes",
            ..
        }
    ));
}
