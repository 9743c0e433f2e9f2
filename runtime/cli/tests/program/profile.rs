//! `vitlet profile`: its tables, its record and its timeline say the same, and what the plan says.

use serde_json::Value;
use vitlet_plan::Plan;
use vitlet_plan::testing::tiny_plan;

use crate::sandbox::{Sandbox, fields};

const COST: [&str; 5] = ["gmacs_per_s", "macs", "percent", "percent_of_peak", "us"];

fn number(value: &Value) -> f64 {
    value.as_f64().unwrap()
}

fn sum(records: &Value, field: &str) -> f64 {
    let records = records.as_array().unwrap().iter();
    records.map(|record| number(&record[field])).sum()
}

/// All fields of a record that has a cost, sorted.
fn with_cost(others: &[&'static str]) -> Vec<&'static str> {
    let mut fields: Vec<_> = COST.iter().chain(others).copied().collect();
    fields.sort_unstable();
    fields
}

/// Costs that hang together: rates are work by time.
#[track_caller]
fn check_cost(cost: &Value, peak: f64) {
    let (us, macs) = (number(&cost["us"]), number(&cost["macs"]));
    if macs == 0.0 || us == 0.0 {
        assert!(cost["gmacs_per_s"].is_null() && cost["percent_of_peak"].is_null());
        return;
    }
    let rate = number(&cost["gmacs_per_s"]);
    assert!((rate * us * 1e3 / macs - 1.0).abs() < 1e-6, "{cost}");
    let percent = 100.0 * rate / peak;
    assert!(
        (number(&cost["percent_of_peak"]) / percent - 1.0).abs() < 1e-6,
        "{cost}"
    );
}

#[test]
fn the_record_adds_up() {
    let sandbox = Sandbox::new();
    let bytes = tiny_plan(1);
    let plan = Plan::parse(&bytes).unwrap();
    for threads in [1, 2] {
        let options = format!("-m tiny.vitlet --iterations 7 --threads {threads} --json");
        let record = sandbox
            .run(&format!("profile {options}"))
            .succeeded()
            .record();
        let expected = [
            "iterations",
            "kernel",
            "kinds",
            "ms",
            "ops",
            "output_hash",
            "peak_gmacs_per_s",
            "threads",
            "total",
        ];
        assert_eq!(fields(&record), expected);
        assert_eq!(
            (&record["iterations"], &record["threads"]),
            (&7.into(), &threads.into())
        );
        let bench = sandbox
            .run(&format!("bench {options}"))
            .succeeded()
            .record();
        for same in ["kernel", "output_hash", "threads"] {
            assert_eq!(record[same], bench[same]);
        }

        let peak = number(&record["peak_gmacs_per_s"]);
        assert!(peak > 0.0);
        let ops = record["ops"].as_array().unwrap();
        assert_eq!(ops.len(), plan.ops().len());
        for (index, (op, planned)) in ops.iter().zip(plan.ops()).enumerate() {
            assert_eq!(
                fields(op),
                with_cost(&["index", "input", "kind", "name", "output"])
            );
            assert_eq!(
                (&op["index"], &op["name"]),
                (&index.into(), &planned.name.into())
            );
            assert_eq!(
                (&op["kind"], &op["macs"]),
                (&planned.kind.name().into(), &planned.kind.macs().into())
            );
            check_cost(op, peak);
        }
        assert_eq!(ops[0]["input"], "s8 1x16x16x3");

        let total = &record["total"];
        assert_eq!(fields(total), COST);
        check_cost(total, peak);
        assert_eq!(total["macs"], plan.macs());
        for part in ["ops", "kinds"] {
            assert!(
                (sum(&record[part], "us") - number(&total["us"])).abs() < 1.0,
                "{part}"
            );
            assert!(
                (sum(&record[part], "percent") - 100.0).abs() < 1e-6,
                "{part}"
            );
            assert_eq!(sum(&record[part], "macs"), number(&total["macs"]));
        }
        let kinds = record["kinds"].as_array().unwrap();
        assert!(kinds.is_sorted_by(|a, b| number(&a["us"]) >= number(&b["us"])));
        for kind in kinds {
            assert_eq!(fields(kind), with_cost(&["kind", "ops"]));
            check_cost(kind, peak);
            let of_kind = ops.iter().filter(|op| op["kind"] == kind["kind"]);
            assert_eq!(kind["ops"], of_kind.count());
        }
    }
}

#[test]
fn one_table_or_both() {
    let sandbox = Sandbox::new();
    let profile = "profile -m tiny.vitlet --iterations 1 --warmup 0 --kernel scalar";
    let tables = |by: &str| {
        let ran = sandbox.run(&format!("{profile} {by}")).succeeded();
        let mut parts = ran.stdout.split("\n\n");
        let heading = parts.next().unwrap();
        for part in [
            "kernel      scalar (",
            "1 after 0 to warm up",
            "GMAC/s: matrix product",
        ] {
            assert!(heading.contains(part), "no '{part}' in {heading}");
        }
        parts
            .map(|table| table.split_whitespace().next().unwrap().to_owned())
            .collect::<Vec<_>>()
    };
    assert_eq!(tables(""), ["op", "kind"]);
    assert_eq!(tables("--by op"), ["op"]);
    assert_eq!(tables("--by kind"), ["kind"]);
    sandbox
        .run(&format!("{profile} --by name"))
        .failed(2, &["--by", "op", "kind"]);
}

#[test]
fn the_timeline_is_chromes_trace_format() {
    let sandbox = Sandbox::new();
    sandbox.photo("photo.png", 3);
    let record = sandbox
        .run("profile -m tiny.vitlet --iterations 3 --input photo.png --trace trace.json --json")
        .succeeded()
        .record();
    let text = std::fs::read_to_string(sandbox.path("trace.json")).unwrap();
    let trace: Value = serde_json::from_str(&text).unwrap();
    assert_eq!(fields(&trace), ["displayTimeUnit", "traceEvents"]);
    let events = trace["traceEvents"].as_array().unwrap();
    assert_eq!(
        (&events[0]["ph"], &events[0]["args"]["name"]),
        (&"M".into(), &"tiny.vitlet".into())
    );

    let complete: Vec<&Value> = events.iter().filter(|event| event["ph"] == "X").collect();
    for event in &complete {
        assert_eq!(
            fields(event),
            ["args", "cat", "dur", "name", "ph", "pid", "tid", "ts"]
        );
        assert!(number(&event["ts"]) >= 0.0 && number(&event["dur"]) >= 0.0);
    }
    let (inferences, ops): (Vec<&Value>, Vec<&Value>) = complete
        .into_iter()
        .partition(|event| event["cat"] == "inference");
    assert_eq!(inferences.len(), 3);
    let end = |event: &Value| number(&event["ts"]) + number(&event["dur"]);
    for (inference, ops) in inferences.iter().zip(ops.chunks(ops.len() / 3)) {
        assert!(number(&ops[0]["ts"]) >= number(&inference["ts"]));
        assert!(end(ops.last().unwrap()) <= end(inference) + 1e-3);
        assert!(
            ops.windows(2)
                .all(|two| end(two[0]) <= number(&two[1]["ts"]) + 1e-3)
        );
        let seen = |op: &Value| ops.iter().any(|event| event["args"]["op"] == *op);
        assert!(record["ops"].as_array().unwrap().iter().all(seen));
    }
}

#[test]
fn refusals() {
    let sandbox = Sandbox::new();
    let profile = "profile -m tiny.vitlet";
    sandbox
        .run(&format!("{profile} --trace tiny.vitlet"))
        .failed(2, &["tiny.vitlet", "is also an input"]);
    sandbox
        .run(&format!("{profile} --trace none/trace.json"))
        .failed(2, &["none/trace.json"]);
    sandbox
        .run(&format!("{profile} --iterations 0"))
        .failed(2, &["--iterations", "0"]);
    sandbox
        .run(&format!("{profile} --marks none/marks"))
        .failed(2, &["none/marks: cannot be opened"]);
    sandbox
        .run_on_full_disk(&format!("{profile} --trace trace.json"))
        .failed(1, &["trace.json", "cannot be written"]);
    assert_eq!(sandbox.names("."), ["tiny.vitlet"]);
}
