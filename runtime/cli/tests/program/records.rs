//! The records that `--json` promises, and that they say the same as the library does.

use serde_json::{Value, json};
use vitlet_plan::Plan;
use vitlet_plan::testing::{TINY_CLASSES, tiny_plan};

use crate::sandbox::{Sandbox, fields, is_hex};

#[test]
fn classify() {
    let sandbox = Sandbox::new();
    sandbox.photo("photo.png", 1);
    let record = sandbox
        .run("classify -m tiny.vitlet --json photo.png")
        .succeeded()
        .record();
    assert_eq!(
        fields(&record),
        ["kernel", "ms", "output_hash", "path", "top"]
    );
    assert_eq!(record["path"], "photo.png");
    assert!(is_hex(&record["output_hash"], 64));
    assert_eq!(fields(&record["ms"]), ["inference", "preprocess"]);
    assert!(record["ms"]["inference"].as_f64().unwrap() > 0.0);

    let top = record["top"].as_array().unwrap();
    assert_eq!(top.len(), 5);
    let mut sum = 0.0;
    for class in top {
        assert_eq!(fields(class), ["class", "label", "score"]);
        assert_eq!(
            class["label"],
            format!("class {}", class["class"].as_u64().unwrap())
        );
        sum += class["score"].as_f64().unwrap();
    }
    assert!(sum <= 1.0 + 1e-5);
    assert!(top.is_sorted_by(|a, b| a["score"].as_f64() >= b["score"].as_f64()));

    let text = sandbox
        .run("classify -m tiny.vitlet -k 2 photo.png")
        .succeeded()
        .stdout;
    assert!(
        text.starts_with("photo.png  (") && text.lines().count() == 3,
        "{text}"
    );
    assert!(text.contains(&format!(
        "{} ({})",
        top[0]["label"].as_str().unwrap(),
        top[0]["class"]
    )));
}

#[test]
fn classify_finds_photos_in_folders() {
    let sandbox = Sandbox::new();
    for (seed, name) in (1..).zip([
        "photos/b.png",
        "photos/a/z.PNG",
        "photos/a/c.png",
        "single.png",
    ]) {
        sandbox.photo(name, seed);
    }
    sandbox.write("photos/notes.txt", b"not a photo");
    let ran = sandbox
        .run("classify -m tiny.vitlet --json -k 1 single.png photos")
        .succeeded();
    let records = ran.records();
    let paths: Vec<&Value> = records.iter().map(|record| &record["path"]).collect();
    assert_eq!(
        json!(paths),
        json!([
            "single.png",
            "photos/a/c.png",
            "photos/a/z.PNG",
            "photos/b.png"
        ])
    );
    assert!(
        records
            .iter()
            .all(|record| record["top"].as_array().unwrap().len() == 1)
    );
}

#[test]
fn trace_hashes_are_equal_for_every_kernel_and_thread_count() {
    let sandbox = Sandbox::new();
    sandbox.photo("photo.png", 2);
    let classify = "classify -m tiny.vitlet --json --trace-hash photo.png";
    let reference = sandbox
        .run(&format!("{classify} --kernel scalar"))
        .succeeded()
        .record();
    let bytes = tiny_plan(1);
    let plan = Plan::parse(&bytes).unwrap();
    let ops = reference["ops"].as_array().unwrap();
    assert_eq!(ops.len(), plan.ops().len());
    for (op, expected) in ops.iter().zip(plan.ops()) {
        assert_eq!(fields(op), ["hash", "kind", "name"]);
        assert_eq!(op["name"], expected.name);
        assert!(is_hex(&op["hash"], 16));
    }
    let kernels = sandbox.run("cpu --json").succeeded().record();
    for kernel in kernels["kernels"].as_array().unwrap() {
        for threads in [1, 3] {
            let options = format!(
                "{classify} --kernel {} --threads {threads}",
                kernel.as_str().unwrap()
            );
            let record = sandbox.run(&options).succeeded().record();
            assert_eq!(record["ops"], reference["ops"], "{options}");
            assert_eq!(record["output_hash"], reference["output_hash"], "{options}");
        }
    }
    let text = sandbox
        .run("classify -m tiny.vitlet --trace-hash photo.png")
        .succeeded()
        .stdout;
    assert!(text.contains(reference["output_hash"].as_str().unwrap()));
    assert!(text.contains(ops[0]["hash"].as_str().unwrap()));
}

#[test]
fn run_writes_the_same_logits_for_a_photo_and_for_arrays() {
    let sandbox = Sandbox::new();
    let pixels: Vec<u8> = (0..16 * 16 * 3).map(|i| (i * 37 % 256) as u8).collect();
    sandbox.write("u8.npy", &npy("|u1", "(1, 16, 16, 3)", &pixels));
    sandbox.write("flat.npy", &npy("|u1", "(16, 16, 3)", &pixels));
    let (mean, std) = ([0.485, 0.456, 0.406], [0.229, 0.224, 0.225]);
    let mut planes = vec![0_f32; pixels.len()];
    for (at, rgb) in pixels.as_chunks::<3>().0.iter().enumerate() {
        for channel in 0..3 {
            planes[channel * 256 + at] =
                (f32::from(rgb[channel]) / 255.0 - mean[channel]) / std[channel];
        }
    }
    let little: Vec<u8> = planes
        .iter()
        .flat_map(|value| value.to_le_bytes())
        .collect();
    let big: Vec<u8> = planes
        .iter()
        .flat_map(|value| value.to_be_bytes())
        .collect();
    sandbox.write("f32.npy", &npy("<f4", "(1, 3, 16, 16)", &little));
    sandbox.write("big.npy", &npy(">f4", "(1, 3, 16, 16)", &big));

    let mut records = Vec::new();
    for input in ["u8", "flat", "f32", "big"] {
        let options =
            format!("run -m tiny.vitlet --json --input {input}.npy --output {input}-out.npy");
        let record = sandbox.run(&options).succeeded().record();
        assert_eq!(
            fields(&record),
            ["dtype", "input", "ms", "output", "output_hash", "shape"]
        );
        assert_eq!(
            (&record["dtype"], &record["shape"]),
            (&json!("int32"), &json!([1, TINY_CLASSES]))
        );
        assert_eq!(
            array(&sandbox, &format!("{input}-out.npy"), "<i4"),
            array(&sandbox, "u8-out.npy", "<i4")
        );
        records.push(record["output_hash"].clone());
    }
    assert!(records.iter().all(|hash| *hash == records[0]));

    sandbox
        .run("run -m tiny.vitlet --input u8.npy --output real.npy --dequantise")
        .succeeded();
    let bytes = tiny_plan(1);
    let scale = Plan::parse(&bytes).unwrap().output().scale;
    let integers = array(&sandbox, "u8-out.npy", "<i4");
    let expected: Vec<u32> = integers
        .iter()
        .map(|&q| (q as i32 as f32 * scale).to_bits())
        .collect();
    assert_eq!(array(&sandbox, "real.npy", "<f4"), expected);

    sandbox.photo("photo.png", 3);
    let classified = sandbox
        .run("classify -m tiny.vitlet --json photo.png")
        .succeeded()
        .record();
    let ran = sandbox
        .run("run -m tiny.vitlet --json --input photo.png --output photo.npy")
        .succeeded()
        .record();
    assert_eq!(ran["output_hash"], classified["output_hash"]);
}

/// An .npy file, version 1.0.
pub(crate) fn npy(dtype: &str, shape: &str, data: &[u8]) -> Vec<u8> {
    let mut header = format!("{{'descr': '{dtype}', 'fortran_order': False, 'shape': {shape}, }}");
    while !(10 + header.len() + 1).is_multiple_of(64) {
        header.push(' ');
    }
    header.push('\n');
    let len = (header.len() as u16).to_le_bytes();
    [b"\x93NUMPY\x01\x00", &len[..], header.as_bytes(), data].concat()
}

/// The words of an .npy file of shape [1, classes].
fn array(sandbox: &Sandbox, name: &str, dtype: &str) -> Vec<u32> {
    let bytes = std::fs::read(sandbox.path(name)).unwrap();
    let start = 10 + usize::from(u16::from_le_bytes([bytes[8], bytes[9]]));
    let header = std::str::from_utf8(&bytes[10..start]).unwrap();
    assert!(
        header.contains(&format!("'{dtype}'")) && header.contains(&format!("(1, {TINY_CLASSES}")),
        "{header}"
    );
    let words = bytes[start..].as_chunks().0;
    assert_eq!(words.len(), TINY_CLASSES);
    words.iter().map(|&word| u32::from_le_bytes(word)).collect()
}

#[test]
fn values_that_no_pixel_has_are_clamped_with_a_warning() {
    let sandbox = Sandbox::new();
    let planes = [f32::MAX; 16 * 16 * 3].map(f32::to_le_bytes).concat();
    sandbox.write("f32.npy", &npy("<f4", "(1, 3, 16, 16)", &planes));
    sandbox.write("u8.npy", &npy("|u1", "(1, 16, 16, 3)", &[255; 16 * 16 * 3]));
    let clamped = sandbox.run("run -m tiny.vitlet --json --input f32.npy --output out.npy");
    assert_eq!(clamped.status, 0);
    assert!(
        clamped
            .stderr
            .starts_with("vitlet: warning: f32.npy: 768 of 768 values"),
        "{}",
        clamped.stderr
    );
    let white = sandbox
        .run("run -m tiny.vitlet --json --input u8.npy --output out.npy")
        .succeeded();
    assert_eq!(
        clamped.record()["output_hash"],
        white.record()["output_hash"]
    );
}

#[test]
fn bench() {
    let sandbox = Sandbox::new();
    sandbox.photo("photo.png", 4);
    let bench = "bench -m tiny.vitlet --json --iterations 20 --warmup 1";
    let record = sandbox.run(bench).succeeded().record();
    assert_eq!(
        fields(&record),
        ["cores", "kernel", "ms", "output_hash", "per_s", "threads"]
    );
    assert_eq!(
        fields(&record["ms"]),
        ["mean", "median", "min", "p90", "p99"]
    );
    let ms = |name: &str| record["ms"][name].as_f64().unwrap();
    assert!(
        0.0 < ms("min")
            && ms("min") <= ms("median")
            && ms("median") <= ms("p90")
            && ms("p90") <= ms("p99")
    );
    assert_eq!(record["threads"], 1);
    assert!(record["cores"].is_null());
    let per_s = record["per_s"].as_f64().unwrap();
    assert!((per_s * ms("mean") - 1e3).abs() < 1e-6);

    let scalar = sandbox
        .run(&format!("{bench} --kernel scalar --threads 2"))
        .succeeded()
        .record();
    assert_eq!(
        (&scalar["kernel"], &scalar["threads"]),
        (&json!("scalar"), &json!(2))
    );
    assert_eq!(scalar["output_hash"], record["output_hash"]);
    let pinned = sandbox
        .run(&format!("{bench} --threads 2 --cores 0-1023"))
        .succeeded()
        .record();
    assert!(
        pinned["cores"]
            .as_str()
            .is_some_and(|cores| !cores.is_empty())
    );
    assert_eq!(pinned["output_hash"], record["output_hash"]);
    let photo = sandbox
        .run(&format!("{bench} --input photo.png"))
        .succeeded()
        .record();
    let classified = sandbox
        .run("classify -m tiny.vitlet --json photo.png")
        .succeeded()
        .record();
    assert_eq!(photo["output_hash"], classified["output_hash"]);
    assert!(
        sandbox
            .run("bench -m tiny.vitlet")
            .succeeded()
            .stdout
            .contains("median")
    );
}

#[test]
fn inspect() {
    let sandbox = Sandbox::new();
    let record = sandbox
        .run("inspect tiny.vitlet --json")
        .succeeded()
        .record();
    let bytes = tiny_plan(1);
    let plan = Plan::parse(&bytes).unwrap();
    assert_eq!(record["macs"], plan.macs());
    assert_eq!(record["plan_bytes"], bytes.len());
    assert_eq!(record["arena_bytes"], plan.arena_len(1));
    assert_eq!(
        (&record["float_ops"], &record["copies"]),
        (&json!(0), &json!(plan.copies()))
    );
    let ops = json!({
        "conv": 2, "linear": 12, "depthwise": 1, "layernorm": 6, "attention": 6, "pool_linear": 1, "add": 6, "mul": 2,
        "max_pool": 2, "groupnorm": 1
    });
    assert_eq!(record["ops"], ops);
    assert_eq!(record["labels"].as_array().unwrap().len(), TINY_CLASSES);
    assert_eq!(
        (&record["input"], &record["preprocess"]["resize"]),
        (&json!([16, 16]), &json!("short-side:18"))
    );
    assert_eq!(record["provenance"]["model_sha256"], "11".repeat(32));
    let text = sandbox.run("inspect tiny.vitlet").succeeded().stdout;
    for part in [
        "dwconv",
        "logits",
        "class 9",
        "preprocessing  short-side:18 then centre crop to 16x16, bilinear with antialias, mean 0.485,0.456,0.406, std 0.229,0.224,0.225\n",
        "6 scales",
        "tokens (part of ",
    ] {
        assert!(text.contains(part), "no {part} in {text}");
    }
}

#[test]
fn cpu() {
    let sandbox = Sandbox::new();
    let record = sandbox.run("cpu --json").succeeded().record();
    assert_eq!(record["arch"], std::env::consts::ARCH);
    let kernels = record["kernels"].as_array().unwrap();
    assert_eq!(
        (&kernels[0], kernels.last().unwrap()),
        (&json!("scalar"), &record["chosen"])
    );
    let forced = sandbox
        .run_with(("VITLET_KERNEL", "scalar"), "cpu --json")
        .succeeded()
        .record();
    assert_eq!(forced["chosen"], "scalar");
    let forced = sandbox
        .run_with(("VITLET_KERNEL", "scalar"), "bench -m tiny.vitlet --json")
        .succeeded()
        .record();
    assert_eq!(forced["kernel"], "scalar");
    let empty = sandbox
        .run_with(("VITLET_KERNEL", ""), "cpu --json")
        .succeeded()
        .record();
    assert_eq!(empty["chosen"], record["chosen"]);
    assert!(sandbox.run("cpu").succeeded().stdout.contains("chosen"));
}

/// The plan inside the program, if there is one.
#[test]
fn without_a_plan() {
    let sandbox = Sandbox::new();
    sandbox.photo("photo.png", 1);
    for verb in [
        "classify photo.png",
        "inspect",
        "bench --iterations 1 --warmup 0",
    ] {
        let ran = sandbox.run(&format!("{verb} --json"));
        if cfg!(feature = "builtin-plan") {
            ran.succeeded();
        } else {
            ran.failed(2, &["built without a plan inside", "-m PLAN"]);
        }
    }
    if cfg!(feature = "builtin-plan") {
        let record = sandbox.run("inspect --json").succeeded().record();
        let labels = json!(["cardboard", "glass", "metal", "paper", "plastic", "trash"]);
        assert_eq!(
            (&record["labels"], &record["float_ops"]),
            (&labels, &json!(0))
        );
        let record = sandbox
            .run("classify --json photo.png")
            .succeeded()
            .record();
        assert!(
            labels
                .as_array()
                .unwrap()
                .contains(&record["top"][0]["label"])
        );
    }
}
