//! Inputs that cannot be used: one line that says what and where, the right exit status, and the rest of the work done.

use vitlet_plan::testing::{reseal, tiny_plan};

use crate::records::npy;
use crate::sandbox::{Sandbox, fields};

/// Every verb that reads a plan, ready for ` -m PLAN`.
const VERBS: [&str; 4] = [
    "classify photo.png",
    "run --input photo.png --output out.npy",
    "accuracy --data .",
    "bench",
];

/// All of them refuse a plan for the same reason.
fn assert_plan_refused(sandbox: &Sandbox, plan: &str, parts: &[&str]) {
    for verb in VERBS {
        sandbox
            .run(&format!("{verb} -m {plan} --json"))
            .failed(2, parts);
    }
    sandbox.run(&format!("inspect {plan}")).failed(2, parts);
    assert!(!sandbox.path("out.npy").exists());
}

#[test]
fn plans_that_are_none() {
    let sandbox = Sandbox::new();
    sandbox.photo("photo.png", 1);
    let plan = tiny_plan(1);
    sandbox.write("cut.vitlet", &plan[..plan.len() - 1]);
    assert_plan_refused(
        &sandbox,
        "cut.vitlet",
        &["cut.vitlet: ", "truncated", "copy it again"],
    );
    sandbox.write("start.vitlet", &plan[..20]);
    assert_plan_refused(&sandbox, "start.vitlet", &["start.vitlet: ", "truncated"]);
    sandbox.write("empty.vitlet", b"");
    assert_plan_refused(
        &sandbox,
        "empty.vitlet",
        &["empty.vitlet: ", "not a .vitlet plan"],
    );
    sandbox.write("text.vitlet", b"a text that is no plan\nwith two lines\n");
    assert_plan_refused(
        &sandbox,
        "text.vitlet",
        &["text.vitlet: ", "not a .vitlet plan"],
    );
    assert_plan_refused(
        &sandbox,
        "none.vitlet",
        &["none.vitlet: cannot be read: No such file"],
    );
    std::fs::create_dir(sandbox.path("folder.vitlet")).unwrap();
    assert_plan_refused(
        &sandbox,
        "folder.vitlet",
        &["folder.vitlet: cannot be read: is a directory"],
    );
    let mut flipped = plan.to_vec();
    flipped[plan.len() / 2] ^= 1;
    sandbox.write("flipped.vitlet", &flipped);
    assert_plan_refused(
        &sandbox,
        "flipped.vitlet",
        &["flipped.vitlet: ", "checksum"],
    );
}

/// Plans with a right checksum and one damaged byte: refused in one line, or harmless.
#[test]
fn plans_that_lie() {
    let sandbox = Sandbox::new();
    let plan = tiny_plan(1);
    for at in (8..plan.len()).step_by(plan.len() / 60) {
        let mut lying = plan.to_vec();
        lying[at] ^= 0x41;
        reseal(&mut lying);
        sandbox.write("lying.vitlet", &lying);
        let ran = sandbox.run("bench -m lying.vitlet --iterations 1 --warmup 0 --json");
        if ran.status == 0 {
            ran.succeeded();
        } else {
            ran.failed(2, &["lying.vitlet: "]);
        }
    }
}

#[test]
fn a_bad_photo_among_many() {
    let sandbox = Sandbox::new();
    for name in ["1.png", "2.png", "4.png"] {
        sandbox.photo(name, 5);
    }
    let whole = std::fs::read(sandbox.path("1.png")).unwrap();
    sandbox.write("3.png", &whole[..whole.len() / 2]);
    let ran = sandbox.run("classify -m tiny.vitlet --json 1.png 2.png 3.png 4.png");
    let ran = ran.failed(1, &["3.png: ", "truncated PNG"]);
    let records = ran.records();
    assert_eq!(records.len(), 4);
    for (index, record) in records.iter().enumerate() {
        if index == 2 {
            assert_eq!(fields(record), ["error", "path"]);
            assert_eq!(record["path"], "3.png");
            assert!(ran.stderr.contains(record["error"].as_str().unwrap()));
        } else {
            assert_eq!(record["output_hash"], records[0]["output_hash"]);
        }
    }
    let text = sandbox
        .run("classify -m tiny.vitlet 3.png 4.png")
        .failed(1, &["3.png: "])
        .stdout;
    assert!(text.starts_with("4.png"), "{text}");
    sandbox
        .run("classify -m tiny.vitlet no.png")
        .failed(1, &["no.png: cannot be read: No such file"]);
    sandbox
        .run("classify -m tiny.vitlet tiny.vitlet")
        .failed(1, &["tiny.vitlet: neither a JPEG nor a PNG"]);
    sandbox
        .run("bench -m tiny.vitlet --input 3.png")
        .failed(2, &["3.png: "]);
    sandbox
        .run("run -m tiny.vitlet --input 3.png --output o.npy")
        .failed(2, &["3.png: "]);
}

#[test]
fn a_bad_photo_in_an_accuracy_run() {
    let sandbox = Sandbox::new();
    sandbox.photo("val/class 1/1.png", 1);
    sandbox.photo("val/class 2/1.png", 2);
    sandbox.write("val/class 2/2.jpg", b"\xFF\xD8\xFF and then nothing");
    let ran = sandbox
        .run("accuracy -m tiny.vitlet --data val --json")
        .failed(1, &["class 2/2.jpg: "]);
    let record = ran.record();
    assert_eq!(
        (record["images"].as_u64(), record["unreadable"].as_u64()),
        (Some(2), Some(1))
    );
}

#[test]
fn folders_without_photos() {
    let sandbox = Sandbox::new();
    std::fs::create_dir_all(sandbox.path("empty/class 1")).unwrap();
    sandbox.photo("1.png", 1);
    let ran = sandbox.run("classify -m tiny.vitlet --json empty 1.png");
    let records = ran
        .failed(1, &["empty: no .jpg, .jpeg or .png file"])
        .records();
    assert_eq!(
        (records.len(), &records[1]["path"]),
        (2, &serde_json::json!("1.png"))
    );
    sandbox
        .run("accuracy -m tiny.vitlet --data empty")
        .failed(2, &["empty: no .jpg"]);
    let no_classes = ["empty/class 1: has no class folders", "a folder of its own"];
    std::fs::rename(sandbox.path("empty/class 1"), sandbox.path("bare")).unwrap();
    sandbox
        .run("accuracy -m tiny.vitlet --data bare")
        .failed(2, &["bare: has no class folders", no_classes[1]]);
    sandbox
        .run("accuracy -m tiny.vitlet --data none")
        .failed(2, &["none: cannot be read as a folder: No such file"]);
    sandbox
        .run("accuracy -m tiny.vitlet --data 1.png")
        .failed(2, &["1.png: cannot be read as a folder"]);
}

#[test]
fn without_permission() {
    let sandbox = Sandbox::new();
    sandbox.photo("1.png", 1);
    sandbox.photo("locked.png", 1);
    sandbox.photo("closed/2.png", 1);
    sandbox.write("locked.vitlet", &tiny_plan(1));
    for name in ["locked.png", "locked.vitlet", "closed"] {
        sandbox.restrict(name, 0);
    }
    let denied = "Permission denied";
    let Some(ran) = sandbox.run_restricted("classify -m tiny.vitlet --json locked.png 1.png")
    else {
        return;
    };
    assert_eq!(
        ran.failed(1, &["locked.png: cannot be read", denied])
            .records()
            .len(),
        2
    );
    let run = |arguments: &str| sandbox.run_restricted(arguments).unwrap();
    run("classify -m locked.vitlet 1.png").failed(2, &["locked.vitlet: cannot be read", denied]);
    run("classify -m tiny.vitlet closed")
        .failed(1, &["closed: cannot be read as a folder", denied]);
    run("accuracy -m tiny.vitlet --data closed")
        .failed(2, &["closed: cannot be read as a folder", denied]);
    sandbox.restrict("closed", 0o755);
}

#[test]
fn arrays_that_do_not_fit() {
    let sandbox = Sandbox::new();
    let image = [0; 16 * 16 * 3];
    let takes = "takes f32 [1, 3, 16, 16] or u8 [1, 16, 16, 3]";
    let floats = [f32::NAN; 16 * 16 * 3].map(f32::to_le_bytes).concat();
    let nested = format!("{}1{}", "(".repeat(400), ")".repeat(400));
    for (bytes, parts) in [
        (npy("|u1", "(1, 3, 16, 16)", &image), ["|u1", takes]),
        (npy("<f8", "(1, 3, 16, 16)", &image), ["<f8", takes]),
        (npy("|u1", "(1, 17, 16, 3)", &image), ["17", takes]),
        (npy("|u1", "(768,)", &image), ["768", takes]),
        (npy("|O", "(1, 16, 16, 3)", &image), ["|O", takes]),
        (
            npy("|u1", "(1, 16, 16, 3)", &image[1..]),
            ["truncated", "save it again"],
        ),
        (
            npy("<f4", "(1, 3, 16, 16)", &floats),
            ["element 0 is NaN", "bad.npy"],
        ),
        (npy("|u1", &nested, &image), ["header of", "numpy.save"]),
        (
            npy("|u1", "((((((1))))", &image),
            ["damaged .npy header", "bad.npy"],
        ),
        (
            npy("|u1", "(1, 16, 16, 3)", &image)[..9].to_vec(),
            ["damaged .npy header", "numpy.save"],
        ),
        (
            b"\x93NUMPY\x09\x00abcdefgh".to_vec(),
            ["unknown version", "numpy.save"],
        ),
    ] {
        sandbox.write("bad.npy", &bytes);
        let all = ["bad.npy: ", parts[0], parts[1]];
        sandbox
            .run("run -m tiny.vitlet --input bad.npy --output out.npy")
            .failed(2, &all);
        assert!(!sandbox.path("out.npy").exists());
    }
    let fortran =
        String::from_utf8_lossy(&npy("|u1", "(1, 16, 16, 3)", &[])).replace("False", "True ");
    assert!(fortran.contains("True"));
    let mut bytes = npy("|u1", "(1, 16, 16, 3)", &image);
    let at = bytes
        .windows(5)
        .position(|window| window == b"False")
        .unwrap();
    bytes[at..at + 5].copy_from_slice(b"True ");
    sandbox.write("bad.npy", &bytes);
    sandbox
        .run("run -m tiny.vitlet --input bad.npy --output out.npy")
        .failed(2, &["Fortran order", takes]);
}

#[test]
fn command_lines_that_make_no_sense() {
    let sandbox = Sandbox::new();
    sandbox.photo("1.png", 1);
    for (arguments, parts) in [
        ("clasify 1.png", ["clasify", "classify"]),
        ("classify", ["PATH", "--help"]),
        ("classify -k 0 1.png", ["-k", "--help"]),
        ("classify -k many 1.png", ["-k", "many"]),
        ("classify --threads 17 1.png", ["17", "--threads"]),
        ("classify --threads 0 1.png", ["0", "--threads"]),
        ("bench --iterations 0", ["0", "--iterations"]),
        ("bench --cores 3-1", ["'3-1' names no cores", "0-3"]),
        (
            "bench -m tiny.vitlet --cores 1023",
            ["may not run on 1023", "it may run on"],
        ),
        ("bench --frequency 3", ["--frequency", "--help"]),
        (
            "bench --kernel fast",
            ["no kernel has that name", "this CPU has scalar"],
        ),
        ("run -m tiny.vitlet --input 1.png", ["--output", "--help"]),
        ("inspect tiny.vitlet tiny.vitlet", ["tiny.vitlet", "--help"]),
    ] {
        sandbox.run(arguments).failed(2, &parts);
    }
    let none = sandbox.run("");
    assert!(none.status == 2 && none.stdout.is_empty() && none.stderr.contains("Usage: vitlet"));
}

/// The boards' program.
#[test]
#[cfg(not(feature = "compiler"))]
fn what_needs_the_compiler() {
    let sandbox = Sandbox::new();
    sandbox.write("model.onnx", b"\x08\x07 and so on");
    let without = "built without the compiler";
    let ran = sandbox.run("compile model.onnx -o out.vitlet --calib photos");
    ran.failed(2, &[without, "on a workstation"]);
    let ran = sandbox.run("compare model.onnx tiny.vitlet --inputs photos --layers");
    ran.failed(2, &[without, "on a workstation"]);
    let ran = sandbox.run("inspect model.onnx");
    ran.failed(2, &["model.onnx: not a .vitlet plan", without]);
    let ran = sandbox.run("accuracy -m tiny.vitlet --data . --reference model.onnx");
    ran.failed(2, &["--reference"]);
}

#[test]
fn kernels_this_cpu_lacks() {
    let sandbox = Sandbox::new();
    let lacking = if cfg!(target_arch = "aarch64") {
        "avx2"
    } else {
        "neon-dotprod"
    };
    let parts = [
        lacking,
        "instructions this CPU lacks",
        "this CPU has scalar",
    ];
    sandbox
        .run(&format!("bench -m tiny.vitlet --kernel {lacking}"))
        .failed(2, &parts);
    for verb in [
        "bench -m tiny.vitlet",
        "cpu",
        "classify -m tiny.vitlet x.png",
    ] {
        let ran = sandbox.run_with(("VITLET_KERNEL", lacking), verb);
        ran.failed(2, &["VITLET_KERNEL=", parts[0], parts[1], parts[2]]);
    }
    sandbox
        .run_with(("VITLET_KERNEL", "fast"), "cpu")
        .failed(2, &["VITLET_KERNEL=fast: no kernel has that name"]);
}

#[test]
fn help_teaches() {
    let sandbox = Sandbox::new();
    let help = sandbox.run("--help").succeeded().stdout;
    for part in [
        "classify",
        "accuracy",
        "Examples:",
        "VITLET_KERNEL",
        "Exit status",
    ] {
        assert!(help.contains(part), "no {part} in {help}");
    }
    for verb in ["classify", "run", "inspect", "accuracy", "bench"] {
        let help = sandbox.run(&format!("{verb} --help")).succeeded().stdout;
        assert!(
            help.contains("Examples:") && !help.contains('\x1b') && help.contains("--json"),
            "{help}"
        );
    }
    let version = sandbox.run("--version").succeeded().stdout;
    assert_eq!(
        version.trim(),
        concat!("vitlet ", env!("CARGO_PKG_VERSION"))
    );
}
