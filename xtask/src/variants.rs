//! `cargo xtask variants`: the same networks as other code and other exporters write them, lowered: each layer agrees with f32, and all
//! forms of one network give the same operations.

use std::collections::BTreeMap;
use std::path::PathBuf;

use anyhow::{Context as _, Result, ensure};
use serde::Deserialize;
use xshell::cmd;

use crate::dist;
use crate::project::Project;
use crate::test_models;

/// Export networks in every form that `python -m vitlet_models variants` knows and lower each file.
///
/// Takes an hour and twelve gigabytes of disk if nothing is exported yet; files that are there are kept. Needs PyTorch, timm and
/// torchvision, which are had as `test-models` has them.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Where the ONNX files and their INDEX.tsv lie [default: variants under the target folder]
    #[arg(long)]
    dir: Option<PathBuf>,
    /// Only files whose names contain one of these.
    #[arg(long, value_name = "TEXT", num_args = 1..)]
    only: Vec<String>,
    /// Export nothing: lower the files that are there.
    #[arg(long)]
    no_export: bool,
}

/// The network of a file: what its name begins with, up to the form.
fn network(file: &str) -> &str {
    let stem = file.strip_suffix(".onnx").unwrap_or(file);
    stem.split_once('-').map_or(stem, |(network, _)| network)
}

/// Of `vitlet compile --json`.
#[derive(Debug, Deserialize)]
struct Compiled {
    ops: BTreeMap<String, usize>,
    float_ops: usize,
    copies: usize,
    lowering: Lowering,
}

#[derive(Debug, Deserialize)]
struct Lowering {
    worst: f64,
}

pub(crate) fn verb(project: &Project, args: &Args) -> Result<()> {
    let sh = &project.sh;
    let dir = args.dir.as_ref().map_or_else(
        || project.target.join("variants"),
        |dir| std::env::current_dir().unwrap_or_default().join(dir),
    );
    sh.create_dir(&dir)?;
    if !args.no_export {
        let python = test_models::environment(project)?;
        let _folder = sh.push_dir("models");
        cmd!(sh, "{python} -m vitlet_models variants --out {dir}").run()?;
    }
    let program = dist::native(project)?;
    let index = sh.read_file(dir.join("INDEX.tsv"))?;
    let wanted = |file: &String| args.only.is_empty() || args.only.iter().any(|o| file.contains(o));
    let files: Vec<String> = parse(&index)?.into_iter().filter(wanted).collect();
    let mut forms: BTreeMap<&str, (&str, BTreeMap<String, usize>)> = BTreeMap::new();
    let mut failed = vec![];
    for (number, file) in files.iter().enumerate() {
        print!("{:>3} of {} {file}: ", number + 1, files.len());
        let (onnx, plan) = (dir.join(file), dir.join("variant.vitlet"));
        let output = cmd!(
            sh,
            "{program} compile {onnx} -o {plan} --calib models/samples --calib-count 1 --json"
        )
        .quiet()
        .ignore_status()
        .output()?;
        if !output.status.success() {
            println!("FAILED: {}", String::from_utf8_lossy(&output.stderr).trim());
            failed.push(file.clone());
            continue;
        }
        let compiled: Compiled = serde_json::from_slice(&output.stdout)
            .with_context(|| format!("{file}: what vitlet compile --json printed"))?;
        let (first, ops) = forms
            .entry(network(file))
            .or_insert_with(|| (file, compiled.ops.clone()));
        println!(
            "worst {:.1e}, {} ops, {} on floats, {} that copy",
            compiled.lowering.worst,
            compiled.ops.values().sum::<usize>(),
            compiled.float_ops,
            compiled.copies
        );
        if *ops != compiled.ops {
            println!(
                "  other operations than {first}: {:?}, {ops:?}",
                compiled.ops
            );
            failed.push(file.clone());
        }
        if compiled.float_ops + compiled.copies > 0 {
            failed.push(file.clone());
        }
    }
    ensure!(failed.is_empty(), "failed: {}", failed.join(", "));
    println!(
        "{} files of {} networks lower, each network to the same operations whatever wrote the file",
        files.len(),
        forms.len()
    );
    Ok(())
}

/// Reads the files of INDEX.tsv: a heading, then `file` among the columns.
fn parse(index: &str) -> Result<Vec<String>> {
    let mut lines = index.lines();
    let mut heading = lines.next().unwrap_or_default().split('\t');
    let column = heading.position(|h| h == "file");
    let column = column.context("INDEX.tsv has no column file")?;
    lines
        .map(|line| {
            let file = line.split('\t').nth(column).map(str::to_owned);
            file.with_context(|| format!("INDEX.tsv: '{line}'"))
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_index_is_read_by_its_heading() {
        let index = "source\tfile\nnet\ta_224-dynamo.onnx\nnet\tb.onnx\n";
        let files = parse(index).unwrap();
        assert_eq!(files, ["a_224-dynamo.onnx", "b.onnx"]);
        assert_eq!(network(&files[0]), "a_224");
        assert_eq!(network(&files[1]), "b");
        assert!(parse("source\topset\na\t1\n").is_err());
    }
}
