//! `accuracy`: fractions, classes, confusion, and runs that are stopped and resumed.

use std::fs;
use std::process::{Command, Stdio};
use std::time::Duration;

use serde_json::Value;
use vitlet_plan::testing::{TINY_CLASSES, tiny_plan};

use crate::sandbox::{PROGRAM, Sandbox, fields};

const ACCURACY: &str = "accuracy -m tiny.vitlet --data photos --json --confusion";
const PER_CLASS: usize = 4;

/// With a folder of photos per class.
fn labelled() -> Sandbox {
    let sandbox = Sandbox::new();
    for class in 0..TINY_CLASSES {
        for photo in 0..PER_CLASS {
            let seed = (class * PER_CLASS + photo) as u32;
            sandbox.photo(&format!("photos/class {class}/{photo}.png"), seed);
        }
    }
    sandbox
}

fn number(value: &Value) -> u64 {
    value.as_u64().unwrap()
}

#[test]
fn fractions_and_folders() {
    let sandbox = Sandbox::new();
    let mut right = 0.0;
    for class in 0..TINY_CLASSES {
        for photo in 0..3 {
            let name = format!("named/class {class}/{photo}.png");
            sandbox.photo(&name, (class * 3 + photo) as u32);
            sandbox.photo(
                &format!("sorted/{class}/{photo}.png"),
                (class * 3 + photo) as u32,
            );
        }
        let folder = format!("sorted/{class}");
        let ran = sandbox
            .run(&format!("classify -m tiny.vitlet --json {folder}"))
            .succeeded();
        right += ran
            .records()
            .iter()
            .filter(|record| record["top"][0]["class"] == class)
            .count() as f64;
    }
    let record = sandbox
        .run("accuracy -m tiny.vitlet --data named --json")
        .succeeded()
        .record();
    assert_eq!(
        fields(&record),
        [
            "classes",
            "ece",
            "images",
            "kernel",
            "top1",
            "top5",
            "unreadable"
        ]
    );
    assert_eq!(record["images"], 30);
    assert_eq!(record["top1"].as_f64().unwrap(), right / 30.0);
    let top5 = record["top5"].as_f64().unwrap();
    assert!((right / 30.0..=1.0).contains(&top5));
    for options in ["--threads 1", "--threads 7", "--kernel scalar --threads 2"] {
        let again = sandbox.run(&format!(
            "accuracy -m tiny.vitlet --data sorted --json {options}"
        ));
        let again = again.succeeded().record();
        assert_eq!(
            (&again["top1"], &again["top5"]),
            (&record["top1"], &record["top5"]),
            "{options}"
        );
    }
    let limited = sandbox
        .run("accuracy -m tiny.vitlet --data named --limit 11 --json")
        .succeeded()
        .record();
    assert_eq!(limited["images"], 11);

    // Some of the labels suffice; a folder that is none among some that are does not, nor do too few without a label.
    std::fs::rename(sandbox.path("named/class 9"), sandbox.path("other")).unwrap();
    assert_eq!(
        sandbox
            .run("accuracy -m tiny.vitlet --data named --json")
            .succeeded()
            .record()["images"],
        27
    );
    std::fs::rename(sandbox.path("other"), sandbox.path("named/other")).unwrap();
    sandbox
        .run("accuracy -m tiny.vitlet --data named")
        .failed(2, &["folder other", "labels"]);
    std::fs::remove_dir_all(sandbox.path("sorted/4")).unwrap();
    sandbox
        .run("accuracy -m tiny.vitlet --data sorted")
        .failed(2, &["9 class folders", "10 classes"]);
}

#[test]
fn classes_and_confusion() {
    let sandbox = labelled();
    // One class has fewer photos.
    fs::remove_file(sandbox.path("photos/class 3/0.png")).unwrap();
    let record = sandbox.run(ACCURACY).succeeded().record();
    let classes = record["classes"].as_array().unwrap();
    let confusion = record["confusion"].as_array().unwrap();
    assert_eq!(
        (classes.len(), confusion.len()),
        (TINY_CLASSES, TINY_CLASSES)
    );
    let mut right = 0;
    for (index, (class, row)) in classes.iter().zip(confusion).enumerate() {
        assert_eq!(
            fields(class),
            ["class", "confused_with", "images", "label", "top1"]
        );
        let row: Vec<u64> = row.as_array().unwrap().iter().map(number).collect();
        let images = PER_CLASS as u64 - u64::from(index == 3);
        // Each row has all photos of its class.
        assert_eq!(
            (row.iter().sum::<u64>(), number(&class["images"])),
            (images, images)
        );
        assert_eq!(class["label"], format!("class {index}"));
        assert_eq!(
            class["top1"].as_f64().unwrap(),
            row[index] as f64 / images as f64
        );
        right += row[index];
        let wrong = (0..TINY_CLASSES).filter(|answer| *answer != index);
        let most = wrong.map(|answer| row[answer]).max().unwrap();
        match &class["confused_with"] {
            Value::Null => assert_eq!(most, 0),
            answer => {
                let class = number(&answer["class"]) as usize;
                assert_eq!((number(&answer["images"]), row[class]), (most, most));
                assert_eq!(answer["label"], format!("class {class}"));
            }
        }
    }
    assert_eq!(
        record["top1"].as_f64().unwrap(),
        right as f64 / number(&record["images"]) as f64
    );
    assert!((0.0..=1.0).contains(&record["ece"].as_f64().unwrap()));

    let text = sandbox
        .run(&ACCURACY.replace("--json", ""))
        .succeeded()
        .stdout;
    for part in ["most confused with", "class 9", "is \\ said to be", "ECE"] {
        assert!(text.contains(part), "no '{part}' in {text}");
    }
}

#[test]
fn a_stopped_run_resumes_to_the_same_result() {
    let sandbox = labelled();
    let whole = sandbox.run(ACCURACY).succeeded().record();
    let resume = format!("{ACCURACY} --resume seen.jsonl");
    assert_eq!(sandbox.run(&resume).succeeded().record(), whole);
    let lines = fs::read_to_string(sandbox.path("seen.jsonl")).unwrap();
    assert_eq!(lines.lines().count(), 1 + TINY_CLASSES * PER_CLASS);
    // Stopped after so many bytes: within the first line, within others, at the end of one, and not at all.
    let ends: Vec<usize> = lines.match_indices('\n').map(|(at, _)| at + 1).collect();
    for cut in [
        0,
        1,
        20,
        ends[0],
        ends[0] + 1,
        ends[1] - 1,
        ends[7],
        ends[9] + 9,
        lines.len(),
    ] {
        sandbox.write("seen.jsonl", &lines.as_bytes()[..cut]);
        assert_eq!(sandbox.run(&resume).succeeded().record(), whole, "{cut}");
        let again = fs::read_to_string(sandbox.path("seen.jsonl")).unwrap();
        let kept = ends.iter().rfind(|end| **end <= cut).copied().unwrap_or(0);
        assert_eq!(again[..kept], lines[..kept], "{cut}");
        assert_eq!(again.lines().count(), lines.lines().count(), "{cut}");
    }
    // A finished run is not repeated: the answers are those of the file, whatever it says.
    let wrong = lines.replace("\"top\":[", "\"top\":[9,");
    sandbox.write("seen.jsonl", wrong.as_bytes());
    let nines = sandbox.run(&resume).succeeded().record();
    assert_eq!(nines["confusion"][0][9], PER_CLASS);
}

#[test]
fn a_killed_run_resumes_to_the_same_result() {
    let sandbox = labelled();
    let whole = sandbox.run(ACCURACY).succeeded().record();
    let resume = format!("{ACCURACY} --resume seen.jsonl --threads 1");
    let mut child = Command::new(PROGRAM)
        .args(resume.split_whitespace())
        .current_dir(sandbox.path("."))
        .stdout(Stdio::null())
        .spawn()
        .unwrap();
    let lines = || {
        let text = fs::read(sandbox.path("seen.jsonl")).unwrap_or_default();
        text.iter().filter(|byte| **byte == b'\n').count()
    };
    while lines() < 5 && child.try_wait().unwrap().is_none() {
        std::thread::sleep(Duration::from_micros(100));
    }
    child.kill().unwrap();
    child.wait().unwrap();
    assert!(lines() >= 5);
    assert_eq!(sandbox.run(&resume).succeeded().record(), whole);
}

#[test]
fn what_is_about_something_else_is_not_resumed() {
    let sandbox = labelled();
    let resume = format!("{ACCURACY} --resume seen.jsonl");
    sandbox.run(&resume).succeeded();
    let lines = fs::read(sandbox.path("seen.jsonl")).unwrap();
    sandbox.write("other.vitlet", &tiny_plan(2));
    let refused = |arguments: &str, parts: &[&str]| {
        sandbox.run(arguments).failed(2, parts);
        assert_eq!(fs::read(sandbox.path("seen.jsonl")).unwrap(), lines);
    };
    let of_plan = resume.replace("tiny.vitlet", "other.vitlet");
    refused(
        &of_plan,
        &["seen.jsonl: is about another plan", "name another file"],
    );
    refused(
        &format!("{resume} --limit 7"),
        &["about other photos, or another --limit"],
    );
    // The same name, another picture.
    let photo = fs::read(sandbox.path("photos/class 0/0.png")).unwrap();
    sandbox.photo("photos/class 0/0.png", 99);
    refused(&resume, &["about other photos"]);
    sandbox.write("photos/class 0/0.png", &photo);
    sandbox.run(&resume).succeeded();

    let bytes = fs::read(sandbox.path("tiny.vitlet")).unwrap();
    sandbox
        .run(&format!("{ACCURACY} --resume tiny.vitlet"))
        .failed(
            2,
            &["tiny.vitlet: not a file that --resume of this version made"],
        );
    assert_eq!(fs::read(sandbox.path("tiny.vitlet")).unwrap(), bytes);
    let text = String::from_utf8(lines).unwrap();
    let old = text.replacen("\"vitlet_accuracy\":2", "\"vitlet_accuracy\":1", 1);
    sandbox.write("seen.jsonl", old.as_bytes());
    sandbox
        .run(&resume)
        .failed(2, &["seen.jsonl: not a file that", "name another one"]);
    for damage in [
        text.replacen("\"top\"", "\"tip\"", 1),
        text.replacen("\"top\":[", "\"top\":[10,", 1),
        text.replacen("class 0/0.png", "class 0/x.png", 1),
        text.replacen(
            "\"score\"",
            "\"reference\":{\"class\":1,\"score\":0.5},\"score\"",
            1,
        ),
    ] {
        sandbox.write("seen.jsonl", damage.as_bytes());
        sandbox
            .run(&resume)
            .failed(2, &["seen.jsonl: line 2 is damaged", "delete"]);
    }
    sandbox
        .run(&format!("{ACCURACY} --resume none/seen.jsonl"))
        .failed(2, &["none/seen.jsonl: cannot be read and written"]);
}
