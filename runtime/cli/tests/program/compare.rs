//! `compare`, on the tiny network of models/tiny.

use std::fs;

use serde_json::Value;

use crate::compile::{CLASSES, sandbox};
use crate::sandbox::{Sandbox, fields, repository};

const COMPARE: &str = "compare tiny.onnx out.vitlet --inputs calib --json";

/// With the plan of the tiny network in it.
fn compiled() -> Sandbox {
    let sandbox = sandbox();
    sandbox
        .run("compile tiny.onnx -o out.vitlet --calib calib")
        .succeeded();
    sandbox
}

fn ratios(layers: &[&Value], field: &str) -> Vec<f64> {
    let ratio = |layer: &&Value| layer[field].as_f64().unwrap_or(f64::INFINITY);
    layers.iter().map(ratio).collect()
}

#[test]
fn a_plan_is_near_its_model() {
    let sandbox = compiled();
    let record = sandbox.run(COMPARE).succeeded().record();
    assert_eq!(
        fields(&record),
        ["images", "kernel", "output", "unreadable"]
    );
    assert_eq!(
        (&record["images"], &record["unreadable"]),
        (&(2 * CLASSES).into(), &0.into())
    );
    let output = &record["output"];
    assert_eq!(
        fields(output),
        ["agreement", "cosine", "max_error", "max_logit", "sqnr_db"]
    );
    let figure = |name: &str| output[name].as_f64().unwrap();
    // Far from both a broken plan (0 dB) and from one that was compared with itself.
    assert!((20.0..100.0).contains(&figure("sqnr_db")), "{output}");
    assert!((0.99..1.0).contains(&figure("cosine")), "{output}");
    assert!(0.0 < figure("max_error") && figure("max_error") < 0.2 * figure("max_logit"));
    let accuracy = "accuracy -m out.vitlet --data calib --reference tiny.onnx --json";
    let accuracy = sandbox.run(accuracy).succeeded().record();
    assert_eq!(output["agreement"], accuracy["reference"]["agreement"]);

    // The same on every kernel, because the plan's bytes are.
    let scalar = sandbox.run(&format!("{COMPARE} --kernel scalar"));
    assert_eq!(scalar.succeeded().record()["output"], *output);
    let text = sandbox.run(&COMPARE.replace("--json", "")).succeeded();
    assert!(
        text.stdout.contains("agreement") && text.stdout.contains(" dB"),
        "{}",
        text.stdout
    );
}

/// The record of a layer of a sound plan.
fn check_layer(layer: &Value) {
    assert_eq!(
        fields(layer),
        [
            "cause",
            "cosine",
            "detail",
            "dtype",
            "inherited_db",
            "kind",
            "max_error",
            "name",
            "op",
            "own_db",
            "saturated",
            "sqnr_db",
            "worst"
        ]
    );
    assert!((0.0..0.1).contains(&layer["saturated"].as_f64().unwrap()));
    assert!((0.9..=1.0).contains(&layer["cosine"].as_f64().unwrap()));
    let causes = [
        "rounding",
        "weights",
        "inherited",
        "coarse scale",
        "outlier channel",
    ];
    assert!(
        causes.contains(&layer["cause"].as_str().unwrap()),
        "{layer}"
    );
}

#[test]
fn layers_are_compared_by_name() {
    let sandbox = compiled();
    let record = sandbox
        .run(&format!("{COMPARE} --layers"))
        .succeeded()
        .record();
    let ops: u64 = sandbox.run("inspect out.vitlet --json").record()["ops"]
        .as_object()
        .unwrap()
        .values()
        .map(|count| count.as_u64().unwrap())
        .sum();
    let layers: Vec<&Value> = record["layers"].as_array().unwrap().iter().collect();
    assert_eq!(
        layers.len() as u64 + record["left_out"].as_u64().unwrap(),
        ops
    );
    // The plan says the scales of all its tensors, and tract has the values of all these layers.
    assert_eq!(record["left_out"], 0);
    layers.iter().for_each(|layer| check_layer(layer));
    assert!(layers.is_sorted_by_key(|layer| layer["op"].as_u64()));
    // A layer compared with another one's values, or with wrong scales, would be at 0 dB or below.
    let all = ratios(&layers, "sqnr_db");
    assert!(all.iter().all(|ratio| *ratio > 15.0), "{record}");
    assert!(ratios(&layers, "own_db").iter().all(|own| *own > 20.0));
    // Nothing precedes the first layer but the image.
    assert!(layers[0]["inherited_db"].as_f64().unwrap() > 100.0);
    let (worst, others): (Vec<&Value>, Vec<&Value>) =
        layers.iter().partition(|layer| layer["worst"] == true);
    assert_eq!(worst.len(), 5);
    let highest = ratios(&worst, "own_db")
        .into_iter()
        .fold(f64::MIN, f64::max);
    assert!(
        ratios(&others, "own_db")
            .iter()
            .all(|ratio| *ratio >= highest)
    );
    // The last layer is the output.
    let (last, output) = (all.last().unwrap(), &record["output"]["sqnr_db"]);
    assert!((last - output.as_f64().unwrap()).abs() < 1e-6);
}

#[test]
fn a_table_of_layers() {
    let sandbox = compiled();
    let text = sandbox.run("compare tiny.onnx out.vitlet --inputs calib --limit 3 --layers");
    let text = text.succeeded().stdout;
    assert_eq!(text.matches(" *  ").count(), 5, "{text}");
    for part in ["attention", "s16", "* the 5 that add the most", "inherited"] {
        assert!(text.contains(part), "no '{part}' in {text}");
    }
}

#[test]
fn a_clipped_range_is_named_where_it_is() {
    let sandbox = compiled();
    sandbox
        .run("compile tiny.onnx -o sound.vitlet --calib calib --save-ranges ranges.json")
        .succeeded();
    let mut ranges: Value =
        serde_json::from_slice(&fs::read(sandbox.path("ranges.json")).unwrap()).unwrap();
    let plan = sandbox
        .run(&format!("{COMPARE} --layers"))
        .succeeded()
        .record();
    // The last norm that a matrix product reads, so that it has 8 bits of its own.
    let layers = plan["layers"].as_array().unwrap();
    let norm = |layer: &&Value| layer["kind"] == "layernorm" && layer["dtype"] == "s8";
    let name = layers.iter().rfind(norm).unwrap()["name"].clone();
    let values = ranges["values"].as_array_mut().unwrap();
    let value = values.iter_mut().find(|value| value["name"] == name);
    let clip = value.unwrap()["clip"].as_array_mut().unwrap();
    for end in clip {
        *end = (end.as_f64().unwrap() / 4.0).into();
    }
    sandbox.write("clipped.json", ranges.to_string().as_bytes());
    sandbox
        .run("compile tiny.onnx -o out.vitlet --ranges clipped.json")
        .succeeded();
    let clipped = sandbox
        .run(&format!("{COMPARE} --layers"))
        .succeeded()
        .record();
    for layer in clipped["layers"].as_array().unwrap() {
        let planted = layer["name"] == name;
        assert_eq!(layer["cause"] == "clipped range", planted, "{layer}");
        assert!(!planted || layer["saturated"].as_f64().unwrap() > 0.1);
        assert!(!planted || layer["worst"] == true);
    }
}

#[test]
fn a_drawing() {
    let sandbox = compiled();
    let ran = sandbox.run(&format!("{COMPARE} --plot sqnr.svg"));
    let record = ran.succeeded().record();
    let svg = fs::read_to_string(sandbox.path("sqnr.svg")).unwrap();
    assert!(svg.starts_with("<svg xmlns=") && svg.ends_with("</svg>\n"));
    assert_eq!(svg.matches("<text").count(), svg.matches("</text>").count());
    let layers = record["layers"].as_array().unwrap();
    let dots = |field: &str| {
        layers
            .iter()
            .filter(|layer| !layer[field].is_null())
            .count()
    };
    assert_eq!(
        svg.matches("<circle").count(),
        dots("sqnr_db") + dots("own_db")
    );
    for layer in layers.iter().filter(|layer| layer["worst"] == true) {
        let (op, name) = (&layer["op"], layer["name"].as_str().unwrap());
        let (cause, own) = (layer["cause"].as_str().unwrap(), layer["own_db"].as_f64());
        let line = format!("op {op}, {:.1} dB, {cause}: {name}</text>", own.unwrap());
        assert!(svg.contains(&line), "no '{line}' in {svg}");
    }
    for part in [
        "SQNR in dB",
        "op of the plan",
        "SQNR along out.vitlet",
        "own",
        "total",
    ] {
        assert!(svg.contains(part), "no '{part}'");
    }
    let hidden = [".part", "script"];
    assert!(hidden.iter().all(|part| !svg.contains(part)));
}

#[test]
fn some_of_the_photos() {
    let sandbox = compiled();
    let images = |ran: &Value| ran["images"].as_u64().unwrap();
    let limited = sandbox.run(&format!("{COMPARE} --limit 7")).succeeded();
    assert_eq!(images(&limited.record()), 7);
    sandbox.write("calib/class-0/0.png", b"no photo");
    let ran = sandbox
        .run(COMPARE)
        .failed(1, &["calib/class-0/0.png: neither a JPEG nor a PNG"]);
    assert_eq!(images(&ran.record()), 2 * CLASSES as u64 - 1);
    assert_eq!(ran.record()["unreadable"], 1);
    sandbox.write("bad/1.png", b"no photo");
    let ran = sandbox.run("compare tiny.onnx out.vitlet --inputs bad");
    assert_eq!(ran.status, 1);
    assert!(
        ran.stderr
            .ends_with("vitlet: error: bad: none of its photos can be read\n"),
        "{}",
        ran.stderr
    );
}

#[test]
fn refusals() {
    let sandbox = compiled();
    let other = fs::read(repository("models/tiny/tiny_pvt_spelled.onnx")).unwrap();
    sandbox.write("other.onnx", &other);
    fs::create_dir(sandbox.path("empty")).unwrap();
    for (arguments, parts) in [
        (
            "other.onnx out.vitlet --inputs calib",
            [
                "other.onnx: not the model that out.vitlet was made from",
                "give that file",
            ],
        ),
        (
            "tiny.onnx tiny.vitlet --inputs calib",
            ["tiny.onnx: not the model", "1111111111111111…"],
        ),
        (
            "none.onnx out.vitlet --inputs calib",
            ["none.onnx: cannot be read", "No such file"],
        ),
        (
            "tiny.onnx none.vitlet --inputs calib",
            ["none.vitlet: cannot be read", "No such file"],
        ),
        (
            "out.vitlet tiny.onnx --inputs calib",
            ["tiny.onnx: ", "not a .vitlet plan"],
        ),
        (
            "tiny.onnx out.vitlet --inputs none",
            ["none: cannot be read as a folder", "No such file"],
        ),
        (
            "tiny.onnx out.vitlet --inputs empty",
            ["empty: no .jpg, .jpeg or .png", ""],
        ),
        (
            "tiny.onnx out.vitlet --inputs calib --limit 0",
            ["--limit", "0"],
        ),
        ("tiny.onnx out.vitlet", ["--inputs", "--help"]),
        (
            "tiny.onnx out.vitlet --inputs calib --plot out.vitlet",
            ["out.vitlet: is also an input", "name another output"],
        ),
        (
            "tiny.onnx out.vitlet --inputs calib --plot none/x.svg",
            ["none/x.svg", "none"],
        ),
    ] {
        sandbox
            .run(&format!("compare {arguments}"))
            .failed(2, &parts);
    }
}
