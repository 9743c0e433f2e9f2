//! From ONNX: `compile`, `inspect` and `accuracy --reference` on the tiny network of models/tiny.

use std::fs;

use serde_json::json;

use crate::sandbox::{Ran, Sandbox, fields, repository};

/// Classes of the tiny network.
pub(crate) const CLASSES: usize = 10;
const COMPILE: &str = "compile tiny.onnx -o out.vitlet";

/// A sandbox with the model and a folder of two photos per class.
pub(crate) fn sandbox() -> Sandbox {
    let sandbox = Sandbox::new();
    for (name, model) in [
        ("tiny.onnx", "tiny_pvt.onnx"),
        ("unsupported.onnx", "unsupported.onnx"),
    ] {
        sandbox.write(
            name,
            &fs::read(repository("models/tiny").join(model)).unwrap(),
        );
    }
    for class in 0..CLASSES {
        for photo in 0..2 {
            sandbox.photo(
                &format!("calib/class-{class}/{photo}.png"),
                (class * 2 + photo) as u32,
            );
        }
    }
    sandbox
}

/// The compile failed, and nothing was left.
#[track_caller]
fn refused(sandbox: &Sandbox, arguments: &str, status: i32, parts: &[&str]) -> Ran {
    let before = sandbox.names(".");
    let ran = sandbox.run(arguments).failed(status, parts);
    assert_eq!(sandbox.names("."), before, "{arguments}");
    ran
}

#[test]
fn compiled_plans_run_and_agree_with_the_model() {
    let sandbox = sandbox();
    let ran = sandbox
        .run(&format!("{COMPILE} --calib calib --json"))
        .succeeded();
    let record = ran.record();
    for field in [
        "plan",
        "macs",
        "plan_bytes",
        "arena_bytes",
        "labels",
        "preprocess",
        "calibration",
        "lowering",
    ] {
        assert!(fields(&record).contains(&field), "no {field} in {record}");
    }
    assert_eq!(record["labels"][3], "class-3");
    assert_eq!(record["calibration"]["images"], 20);
    assert!(record["lowering"]["worst"].as_f64().unwrap() <= 1e-4);
    assert_eq!(record["float_ops"], 0);

    let inspected = sandbox
        .run("inspect out.vitlet --json")
        .succeeded()
        .record();
    for field in [
        "macs",
        "plan_bytes",
        "arena_bytes",
        "ops",
        "labels",
        "preprocess",
    ] {
        assert_eq!(inspected[field], record[field], "{field}");
    }
    assert_eq!(
        inspected["plan_bytes"],
        fs::metadata(sandbox.path("out.vitlet")).unwrap().len()
    );

    let accuracy = "accuracy -m out.vitlet --data calib --reference tiny.onnx --json";
    let record = sandbox.run(accuracy).succeeded().record();
    let reference = &record["reference"];
    assert_eq!(fields(reference), ["agreement", "ece", "sqnr_db", "top1"]);
    assert_eq!(record["images"], 20);
    // `compare` adds the same numbers up, in another order.
    let compare = "compare tiny.onnx out.vitlet --inputs calib --json";
    let compared = sandbox.run(compare).succeeded().record();
    let ratio = |value: &serde_json::Value| value["sqnr_db"].as_f64().unwrap();
    assert!((ratio(reference) - ratio(&compared["output"])).abs() < 1e-9);
    let text = sandbox.run(&accuracy.replace("--json", "")).succeeded();
    let printed = format!("SQNR       {:.1} dB", ratio(reference));
    assert!(text.stdout.contains(&printed), "{}", text.stdout);
    for class in record["classes"].as_array().unwrap() {
        let top1 = class["reference_top1"].as_f64().unwrap();
        assert!((0.0..=1.0).contains(&top1));
    }
    let alone = sandbox
        .run(&format!("{accuracy} --threads 1"))
        .succeeded()
        .record();
    assert_eq!(alone, record);

    // The first half of a run, and then the whole.
    let resume = format!("{accuracy} --resume seen.jsonl");
    assert_eq!(sandbox.run(&resume).succeeded().record(), record);
    let seen = fs::read_to_string(sandbox.path("seen.jsonl")).unwrap();
    sandbox.write("seen.jsonl", &seen.as_bytes()[..seen.len() / 2]);
    assert_eq!(sandbox.run(&resume).succeeded().record(), record);
    // What SQNR is made of is part of a line.
    sandbox.write(
        "seen.jsonl",
        seen.replacen("\"noise\"", "\"nose\"", 1).as_bytes(),
    );
    let damaged = ["seen.jsonl: line 2 is damaged"];
    sandbox.run(&resume).failed(2, &damaged);
    sandbox.write("seen.jsonl", seen.as_bytes());
    let alone = resume.replace("--reference tiny.onnx", "");
    sandbox.run(&alone).failed(
        2,
        &["seen.jsonl: is about another --reference", "now it is none"],
    );
}

#[test]
fn ranges_give_the_same_plan_again() {
    let sandbox = sandbox();
    let text = sandbox
        .run(&format!(
            "{COMPILE} --calib calib --calib-count 13 --save-ranges ranges.json"
        ))
        .succeeded()
        .stdout;
    for part in [
        "squash to 32x32, bilinear with antialias, mean 0.485,0.456,0.406",
        "13 of 20 photos",
        "class-9",
        "limit 1e-4",
    ] {
        assert!(text.contains(part), "no '{part}' in {text}");
    }
    let again = "compile tiny.onnx -o again.vitlet --ranges ranges.json";
    sandbox.run(&format!("{again} --calib calib")).succeeded();
    let plan = fs::read(sandbox.path("out.vitlet")).unwrap();
    assert_eq!(fs::read(sandbox.path("again.vitlet")).unwrap(), plan);

    let labels: Vec<String> = (0..CLASSES).map(|class| format!("class-{class}")).collect();
    sandbox.write("labels.txt", labels.join("\n").as_bytes());
    sandbox
        .run(&format!("{again} --labels labels.txt"))
        .succeeded();
    assert_eq!(fs::read(sandbox.path("again.vitlet")).unwrap(), plan);

    let record = sandbox.run(&format!("{again} --json")).succeeded().record();
    assert_eq!(record["labels"], json!([]));
    let other = format!("{again} --resize short-side:40 --interpolation bicubic");
    sandbox.run(&other).failed(
        2,
        &[
            "measured with --resize squash --interpolation bilinear",
            "--save-ranges",
        ],
    );
}

#[test]
fn every_method_says_what_it_did_and_its_ranges_give_the_same_plan() {
    let sandbox = sandbox();
    let mut plans = Vec::new();
    for (method, asked) in [
        ("naive", "naive"),
        ("minmax", "minmax"),
        ("percentile:99.99", "percentile"),
        ("percentile:99.5", "percentile:99.5"),
        ("mse", "mse"),
        ("entropy", "entropy"),
        ("auto", "auto"),
    ] {
        let calibrated = format!(
            "{COMPILE} --calib calib --method {asked} --save-ranges ranges.json --json \
             --resize short-side:40 --interpolation bicubic"
        );
        let record = sandbox.run(&calibrated).succeeded().record();
        assert_eq!(record["preprocess"]["resize"], "short-side:40");
        assert_eq!(record["preprocess"]["interpolation"], "bicubic");
        assert_eq!(record["calibration"]["method"], method);
        let chosen = record["calibration"]["chosen"].as_object().unwrap();
        assert!(method == "auto" || chosen.keys().eq([method]), "{chosen:?}");
        let plan = fs::read(sandbox.path("out.vitlet")).unwrap();
        let again = "compile tiny.onnx -o again.vitlet --ranges ranges.json --calib calib \
                     --resize short-side:40 --interpolation bicubic";
        let text = sandbox.run(again).succeeded().stdout;
        assert!(text.contains(&format!("method         {method}")), "{text}");
        assert_eq!(
            fs::read(sandbox.path("again.vitlet")).unwrap(),
            plan,
            "{method}"
        );
        plans.push(plan);
    }
    for (index, plan) in plans.iter().enumerate() {
        assert!(
            !plans[..index].contains(plan),
            "plan {index} is like one before"
        );
    }
    let wrong = format!("{COMPILE} --calib calib --method percentile:40");
    sandbox
        .run(&wrong)
        .failed(2, &["--method", "percentile:99.99"]);
}

#[test]
fn loose_photos_calibrate_and_give_no_labels() {
    let sandbox = sandbox();
    for photo in 0..8 {
        sandbox.photo(&format!("loose/{photo}.png"), photo);
    }
    let ran = sandbox.run(&format!("{COMPILE} --calib loose --json"));
    assert_eq!(ran.succeeded().record()["calibration"]["images"], 8);
    let inspected = sandbox.run("inspect out.vitlet --json").succeeded();
    assert_eq!(inspected.record()["labels"], serde_json::json!([]));

    for photo in 0..8 {
        let nearly = |pixel: usize| [pixel as u8, (pixel / 3) as u8, photo];
        sandbox.rgb(&format!("alike/{photo}.png"), 30, nearly);
    }
    let ran = sandbox.run(&format!("{COMPILE} --calib alike"));
    let parts = [
        "alike: the model, in f32, sees class",
        "on 8 of 8",
        "photos of all classes",
    ];
    warned(&ran, &parts);
}

/// The compile succeeded with one warning, which has all these parts.
#[track_caller]
fn warned(ran: &Ran, parts: &[&str]) {
    assert_eq!(ran.status, 0, "{}", ran.stderr);
    assert_eq!(ran.stderr.lines().count(), 1, "{}", ran.stderr);
    assert!(
        ran.stderr.starts_with("vitlet: warning: "),
        "{}",
        ran.stderr
    );
    for part in parts {
        assert!(ran.stderr.contains(part), "no '{part}' in {}", ran.stderr);
    }
}

/// Nine class folders without photos are another warning each: labels from a file make one folder enough.
fn one_folder(photos: u32) -> Sandbox {
    let sandbox = sandbox();
    let labels: Vec<String> = (0..CLASSES).map(|class| format!("class-{class}")).collect();
    sandbox.write("labels.txt", labels.join("\n").as_bytes());
    for photo in 0..photos {
        sandbox.photo(&format!("one/class-0/{photo}.png"), photo);
    }
    sandbox
}

#[test]
fn few_photos_and_photos_of_one_class_are_warned_of() {
    let one = one_folder(1);
    let calib = format!("{COMPILE} --labels labels.txt --calib one --save-ranges ranges.json");
    let ran = one.run(&calib);
    assert_eq!(ran.status, 0, "{}", ran.stderr);
    let lines: Vec<&str> = ran.stderr.lines().collect();
    assert!(
        lines[0].contains("ranges of 1 calibration photo are") && lines[0].contains("better 64")
    );
    assert!(
        lines[1].contains("one: all calibration photos are of one class, and the model has 10")
    );
    assert_eq!(lines.len(), 2, "{lines:?}");
    // The ranges are as poor when they come from a file.
    let again = one.run("compile tiny.onnx -o again.vitlet --ranges ranges.json");
    warned(
        &again,
        &["ranges of 1 calibration photo are", "give at least 8"],
    );

    let ran = one_folder(8).run(&calib);
    warned(
        &ran,
        &[
            "one: all calibration photos are of one class",
            "give photos of all classes",
        ],
    );
}

#[test]
fn plain_grey_and_copied_photos_are_noticed() {
    let sandbox = sandbox();
    for class in 0..CLASSES {
        sandbox.rgb(&format!("plain/class-{class}/0.png"), 30, |_| {
            [119, 120, 121]
        });
        sandbox.rgb(&format!("black/class-{class}/0.png"), 30, |_| [0; 3]);
        let shade = |pixel: usize| [(pixel * (class + 7)) as u8; 3];
        sandbox.rgb(&format!("grey/class-{class}/0.png"), 30, shade);
    }
    let calib = |folder: &str| format!("{COMPILE} --calib {folder}");
    for folder in ["plain", "black"] {
        let said = format!("{folder}: every calibration photo is of one plain colour");
        let parts = [&*said, "as the camera takes them"];
        refused(&sandbox, &calib(folder), 2, &parts);
    }
    warned(
        &sandbox.run(&calib("grey")),
        &["grey: no calibration photo has colours"],
    );

    sandbox.rgb("calib/class-4/0.png", 30, |_| [0; 3]);
    let ran = sandbox.run(&calib("calib"));
    warned(
        &ran,
        &[
            "1 of 20 calibration photos are of one plain colour",
            "class-4/0.png",
        ],
    );
    let photo = fs::read(sandbox.path("calib/class-0/0.png")).unwrap();
    sandbox.write("calib/class-4/0.png", &photo);
    let ran = sandbox.run(&calib("calib"));
    warned(
        &ran,
        &[
            "1 of 20 calibration photos are copies",
            "class-4/0.png of calib/class-0/0.png",
        ],
    );
}

#[test]
fn what_is_named_is_checked_first() {
    let sandbox = sandbox();
    fs::create_dir_all(sandbox.path("empty/class-0")).unwrap();
    fs::create_dir(sandbox.path("folder")).unwrap();
    sandbox.write("labels.txt", b"one\ntwo\n");
    sandbox.write("holes.txt", b"one\n\ntwo\n");
    sandbox.write("text", b"hello");
    let calib = format!("{COMPILE} --calib calib");
    for (arguments, parts) in [
        (COMPILE.to_owned(), ["--calib", "--help"]),
        (
            format!("{COMPILE} --calib none"),
            ["none: cannot be read as a folder", "No such file"],
        ),
        (
            format!("{COMPILE} --calib empty"),
            ["empty: no .jpg", "calibration needs photos"],
        ),
        (
            format!("{COMPILE} --calib folder"),
            ["folder: has no class folders", "a folder of its own"],
        ),
        (
            "compile none.onnx -o out.vitlet --calib calib".to_owned(),
            ["none.onnx: cannot be read", "No such file"],
        ),
        (
            "compile text -o out.vitlet --calib calib".to_owned(),
            ["text", "ONNX"],
        ),
        (
            "compile tiny.onnx -o none/out.vitlet --calib calib".to_owned(),
            ["none/out.vitlet: ", "create it first"],
        ),
        (
            "compile tiny.onnx -o folder --calib calib".to_owned(),
            ["folder: is a folder", "name a file"],
        ),
        (
            "compile tiny.onnx -o tiny.onnx --calib calib".to_owned(),
            ["tiny.onnx: is also an input", "overwritten"],
        ),
        (
            format!("{calib} --labels labels.txt --save-ranges labels.txt"),
            ["labels.txt: is also an input", "overwritten"],
        ),
        (
            format!("{calib} --save-ranges out.vitlet"),
            ["out.vitlet: named for two outputs", "another"],
        ),
        (
            format!("{calib} --labels labels.txt"),
            ["labels.txt: 2 labels", "10 classes"],
        ),
        (
            format!("{calib} --labels holes.txt"),
            ["holes.txt: line 2 is empty", "one label a line"],
        ),
        (format!("{COMPILE} --ranges text"), ["text: ", "ranges"]),
        (
            format!("{calib} --calib-count 0"),
            ["--calib-count", "0 is not in 1..="],
        ),
        (format!("{calib} --crop 31"), ["--crop 31", "32x32"]),
        (
            format!("{calib} --resize short-side:31"),
            ["short side 31", "32"],
        ),
        (
            format!("{calib} --resize letterbox"),
            ["letterbox", "short-side:N"],
        ),
        (format!("{calib} --mean 1,2"), ["--mean", "three numbers"]),
        (format!("{calib} --std 0.2,0,0.2"), ["std", ""]),
    ] {
        refused(&sandbox, &arguments, 2, &parts);
    }
    fs::remove_dir_all(sandbox.path("calib/class-3")).unwrap();
    refused(
        &sandbox,
        &calib,
        2,
        &["calib: 9 class folders", "10 classes"],
    );
}

/// Layer norms of the tiny network that a linear layer reads, which writes 8 bits.
const NORMS: [&str; 2] = ["n65.*", "n15?.reduced*"];

#[test]
fn tensors_are_kept_in_16_bits() {
    let sandbox = sandbox();
    let calib = format!("{COMPILE} --calib calib --save-ranges ranges.json --json");
    let narrow = sandbox.run(&calib).succeeded().record();
    assert_eq!(
        narrow["wide"],
        json!({"tensors": [], "macs": 0, "mixed": null})
    );
    assert!(
        !fs::read_to_string(sandbox.path("ranges.json"))
            .unwrap()
            .contains("bits")
    );

    let keep = format!("{calib} --keep-16 {} --keep-16 {}", NORMS[0], NORMS[1]);
    let record = sandbox.run(&keep).succeeded().record();
    let tensors = record["wide"]["tensors"].as_array().unwrap();
    let begins = |begin: &str| {
        tensors
            .iter()
            .any(|name| name.as_str().unwrap().starts_with(begin))
    };
    assert!(
        tensors.len() == 2 && begins("n65.") && begins("n150."),
        "{record}"
    );
    let macs = |record: &serde_json::Value| record["macs"].as_u64().unwrap();
    let extra = macs(&record["wide"]);
    assert!(
        extra > 0 && macs(&record) == macs(&narrow) + extra,
        "{record}"
    );

    // The ranges say it, so the plan is the same again.
    let plan = fs::read(sandbox.path("out.vitlet")).unwrap();
    let again = "compile tiny.onnx -o again.vitlet --calib calib --ranges ranges.json";
    let text = sandbox.run(again).succeeded().stdout;
    assert!(
        text.contains("16 bits") && text.contains("% of the model's"),
        "{text}"
    );
    assert_eq!(fs::read(sandbox.path("again.vitlet")).unwrap(), plan);

    // Every op has its f32 layer, or none.
    let compare = "compare tiny.onnx out.vitlet --inputs calib --layers --json";
    let compared = sandbox.run(compare).succeeded().record();
    let layers = compared["layers"].as_array().unwrap();
    let of = |name: &str| layers.iter().find(|layer| layer["name"] == name).unwrap();
    for name in tensors {
        let layer = of(name.as_str().unwrap());
        assert_eq!(layer["dtype"], "s16");
        assert!(layer["own_db"].as_f64().unwrap() > 60.0, "{layer}");
    }
    // Both planes, and both parts of the sums of its reader.
    assert_eq!(compared["left_out"], 4 * tensors.len());
}

#[test]
fn the_mixed_budget_is_kept_and_printed() {
    let sandbox = sandbox();
    let calib = format!("{COMPILE} --calib calib --mixed auto --mixed-budget");
    let record = sandbox
        .run(&format!("{calib} 20 --json"))
        .succeeded()
        .record();
    let (wide, macs) = (&record["wide"], record["macs"].as_u64().unwrap());
    let extra = wide["macs"].as_u64().unwrap();
    assert!(extra * 100 <= 20 * (macs - extra), "{wide}");
    let mixed = &wide["mixed"];
    assert_eq!(
        fields(mixed),
        ["after_db", "before_db", "candidates", "chosen", "photos"]
    );
    assert_eq!(mixed["photos"], 20);
    assert_eq!(
        mixed["chosen"].as_array().unwrap().len(),
        wide["tensors"].as_array().unwrap().len()
    );
    let text = sandbox.run(&format!("{calib} 0")).succeeded().stdout;
    let line = text
        .lines()
        .find(|line| line.starts_with("mixed "))
        .unwrap();
    assert!(
        line.contains("0 of ") && line.contains("on 20 photos; SQNR"),
        "{line}"
    );
    assert!(!text.contains("16 bits"), "{text}");
}

#[test]
fn bits_that_cannot_be_had_are_explained() {
    let sandbox = sandbox();
    sandbox
        .run(&format!(
            "{COMPILE} --calib calib --save-ranges ranges.json"
        ))
        .succeeded();
    let calib = format!("{COMPILE} --calib calib");
    let attention = sandbox.run("inspect tiny.onnx --json").record()["layers"].clone();
    let attention = attention.as_array().unwrap().iter();
    let attention = attention.filter(|layer| layer["kind"] == "attention");
    let mut attention = attention.map(|layer| layer["name"].as_str().unwrap().to_owned());
    let attention = attention.next_back().unwrap();
    for (arguments, parts) in [
        (
            format!("{calib} --keep-16 n650.*"),
            [
                "no tensor of the model is named like `n650.*`; near names are `",
                "`n65.reduced_sum_dd.rms_norm`",
            ],
        ),
        (
            format!("{calib} --keep-16 {attention}"),
            [&attention, "attention writes 8 bits"],
        ),
        (
            format!("{COMPILE} --ranges ranges.json --mixed auto"),
            ["--mixed auto measures on calibration photos", "--calib DIR"],
        ),
        (
            format!("{COMPILE} --ranges ranges.json --keep-16 n65.*"),
            ["corrected for other bits", "--calib DIR"],
        ),
        (
            format!("{calib} --mixed auto --calib-count 15"),
            ["15 calibration photos are too few", "at least 16"],
        ),
        (format!("{calib} --mixed-budget 5"), ["--mixed", "--help"]),
        (
            format!("{calib} --mixed auto --mixed-budget 5%"),
            ["5%", "number of percent"],
        ),
    ] {
        refused(&sandbox, &arguments, 2, &parts);
    }
}

#[test]
fn photos_that_cannot_be_read() {
    let sandbox = sandbox();
    sandbox.write("calib/class-0/0.png", b"no photo");
    let ran = sandbox.run(&format!("{COMPILE} --calib calib --json"));
    assert_eq!(ran.status, 0, "{}", ran.stderr);
    assert!(
        ran.stderr
            .starts_with("vitlet: warning: calib/class-0/0.png: neither a JPEG nor a PNG"),
        "{}",
        ran.stderr
    );
    let calibration = &ran.record()["calibration"];
    assert_eq!(
        (&calibration["images"], &calibration["skipped"]),
        (&json!(19), &json!(1))
    );
    assert_eq!(calibration["ranges"], json!(null));

    let none = Sandbox::new();
    none.write("tiny.onnx", &fs::read(sandbox.path("tiny.onnx")).unwrap());
    for class in 0..CLASSES {
        none.write(&format!("calib/{class}/0.png"), b"no photo");
    }
    let ran = none.run(&format!("{COMPILE} --calib calib"));
    assert_eq!(ran.status, 1);
    assert!(
        ran.stderr.ends_with(
            "vitlet: error: calib: none of the calibration photos can be read; give some that can\n"
        ),
        "{}",
        ran.stderr
    );
    assert!(!none.path("out.vitlet").exists());
}

#[test]
fn a_class_folder_without_photos_is_warned_of() {
    let sandbox = sandbox();
    for photo in 0..2 {
        fs::remove_file(sandbox.path(&format!("calib/class-3/{photo}.png"))).unwrap();
    }
    let ran = sandbox.run(&format!("{COMPILE} --calib calib"));
    warned(&ran, &["calib: class folder class-3 has no photos"]);
}

#[test]
fn classes_without_a_calibration_photo_are_named() {
    let ran = sandbox().run(&format!("{COMPILE} --calib calib --calib-count 8"));
    let warning = "--calib-count 8 leaves 2 of 10 classes without a photo; give at least 10";
    warned(&ran, &[warning]);
}

#[test]
fn a_full_disk_leaves_nothing() {
    let sandbox = sandbox();
    let before = sandbox.names(".");
    let ran = sandbox.run_on_full_disk(&format!("{COMPILE} --calib calib --calib-count 10"));
    ran.failed(1, &["out.vitlet: cannot be written: File too large"]);
    assert_eq!(sandbox.names("."), before);
}

#[test]
fn models_that_cannot_be_compiled() {
    let sandbox = sandbox();
    let unsupported = "compile unsupported.onnx -o out.vitlet --calib calib";
    refused(
        &sandbox,
        unsupported,
        1,
        &["unsupported.onnx: ", "Sin", "topk"],
    );
    let ran = sandbox
        .run("inspect unsupported.onnx --json")
        .failed(1, &["unsupported.onnx: 2 operations"]);
    let nodes = ran.record()["unsupported"].clone();
    assert_eq!(nodes.as_array().unwrap().len(), 2);
    assert_eq!(fields(&nodes[0]), ["inputs", "name", "op", "reason"]);

    let whole = fs::read(sandbox.path("tiny.onnx")).unwrap();
    for (name, bytes) in [
        ("cut.onnx", &whole[..whole.len() / 2]),
        ("empty.onnx", &[]),
        ("photo.onnx", b"\x89PNG"),
    ] {
        sandbox.write(name, bytes);
        refused(
            &sandbox,
            &format!("compile {name} -o out.vitlet --calib calib"),
            2,
            &[name],
        );
        sandbox.run(&format!("inspect {name}")).failed(2, &[name]);
    }
}

#[test]
fn inspect_shows_the_layers() {
    let sandbox = sandbox();
    let record = sandbox.run("inspect tiny.onnx --json").succeeded().record();
    assert_eq!(
        fields(&record),
        ["classes", "input", "layers", "macs", "parameters"]
    );
    assert_eq!(
        (&record["input"], &record["classes"]),
        (&json!([32, 32]), &json!(CLASSES))
    );
    let layers = record["layers"].as_array().unwrap();
    assert!(layers.iter().any(|layer| layer["kind"] == "attention"));
    let text = sandbox.run("inspect tiny.onnx").succeeded().stdout;
    assert!(
        text.contains("attention") && text.contains("parameters"),
        "{text}"
    );
}

#[test]
fn the_reference_must_be_the_plans_model() {
    let sandbox = sandbox();
    let accuracy = "accuracy -m tiny.vitlet --data calib --reference tiny.onnx";
    sandbox
        .run(accuracy)
        .failed(2, &["tiny.onnx: 32x32", "16x16"]);
    let missing = "accuracy -m tiny.vitlet --data calib --reference none.onnx";
    sandbox
        .run(missing)
        .failed(2, &["none.onnx", "No such file"]);
}
