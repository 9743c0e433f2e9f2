//! `vitlet classify`: what photos show.

use std::path::{Path, PathBuf};

use anyhow::Context as _;
use serde::Serialize;
use vitlet::{Classification, Photo, Session};
use vitlet_camera::Top;

use crate::args::{ModelArgs, SessionArgs, at_least_one};
use crate::dataset::photos_in;
use crate::failure::{self, OrInvalid as _, Outcome};
use crate::output::{Out, Table, left, milliseconds, right};

const EXAMPLES: &str = "\
Examples:
  vitlet classify photo.jpg
  vitlet classify -m model.vitlet -k 1 --json photos/ | jq .top[0].label
  Compare two machines: equal hashes mean equal bytes out of every op
    vitlet classify --trace-hash photo.jpg

A photo that cannot be read is reported, the others are classified, and the
exit status is 1.

With --json, per photo:
  {\"path\",\"top\":[{\"class\",\"label\",\"score\"}],\"output_hash\",\"kernel\",
   \"ms\":{\"preprocess\",\"inference\"}}
  with --trace-hash also \"ops\":[{\"name\",\"kind\",\"hash\"}]
  {\"path\",\"error\"} if it cannot be read
output_hash is the SHA-256 of the logits as little-endian 32-bit integers; the
hash of an op is the first 16 digits of the SHA-256 of its output's bytes.";

#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Args {
    #[command(flatten)]
    model: ModelArgs,
    /// Photos (JPEG, PNG), or folders of them
    #[arg(required = true, value_name = "PATH")]
    paths: Vec<PathBuf>,
    /// Show the best N classes
    #[arg(short, value_name = "N", default_value = "5", value_parser = at_least_one())]
    k: usize,
    /// Also print a hash of every op's output
    #[arg(long)]
    trace_hash: bool,
    #[command(flatten)]
    session: SessionArgs,
}

#[derive(Serialize)]
struct Record<'a> {
    path: String,
    top: Vec<Top<&'a str>>,
    output_hash: String,
    kernel: &'static str,
    ms: Milliseconds,
    #[serde(skip_serializing_if = "Option::is_none")]
    ops: Option<Vec<OpHash<'a>>>,
}

#[derive(Serialize)]
struct Milliseconds {
    preprocess: f64,
    inference: f64,
}

#[derive(Serialize)]
struct OpHash<'a> {
    name: &'a str,
    kind: &'static str,
    hash: String,
}

#[derive(Serialize)]
struct Failure {
    path: String,
    error: String,
}

pub(crate) fn verb(args: &Args, out: &mut Out) -> anyhow::Result<Outcome> {
    let model = args.model.load()?;
    let plan = model.plan().or_invalid()?;
    let mut session = args.session.session(&plan)?;
    let mut failures = 0;
    for path in &args.paths {
        let photos = if path.is_dir() {
            photos_in(path)
        } else {
            Ok(vec![path.clone()])
        };
        let photos = match photos {
            Ok(photos) => photos,
            Err(error) => {
                failures += 1;
                report(path, &error, out)?;
                continue;
            }
        };
        for path in photos {
            match classify(&path, &mut session, args) {
                Ok(record) => print(&record, out)?,
                Err(error) => {
                    failures += 1;
                    report(&path, &error, out)?;
                }
            }
        }
    }
    Ok(Outcome::from_failures(failures))
}

fn classify<'m>(path: &Path, session: &mut Session<'m>, args: &Args) -> anyhow::Result<Record<'m>> {
    let photo = Photo::open(path)?;
    let context = || path.display().to_string();
    let Classification {
        top,
        preprocess,
        inference,
    } = session.classify(&photo, args.k).with_context(context)?;
    let ops = if args.trace_hash {
        Some(trace(&photo, session).with_context(context)?)
    } else {
        None
    };
    Ok(Record {
        path: path.display().to_string(),
        top: top.iter().map(Top::from).collect(),
        output_hash: session.output_hash().to_string(),
        kernel: session.kernel().kernel.name(),
        ms: Milliseconds {
            preprocess: milliseconds(preprocess),
            inference: milliseconds(inference),
        },
        ops,
    })
}

/// Runs once more, so that hashing is not in the time of the inference.
fn trace<'m>(photo: &Photo, session: &mut Session<'m>) -> anyhow::Result<Vec<OpHash<'m>>> {
    let image = session.preprocess(photo)?;
    let traces = session.run_traced(&image)?;
    Ok(traces
        .into_iter()
        .map(|trace| OpHash {
            name: trace.name,
            kind: trace.kind,
            hash: format!("{:.16}", trace.digest),
        })
        .collect())
}

fn print(record: &Record<'_>, out: &mut Out) -> anyhow::Result<()> {
    out.record(record)?;
    let Milliseconds {
        preprocess,
        inference,
    } = record.ms;
    out.line(format_args!(
        "{}  ({preprocess:.1} ms + {inference:.1} ms)",
        record.path
    ))?;
    let mut table = Table::default();
    for top in &record.top {
        let percent = format!("{:9.1} %", top.score * 100.0);
        let label = top.label.map_or_else(
            || format!("class {}", top.class),
            |label| format!("{label} ({})", top.class),
        );
        table.row([right(percent), left(label)]);
    }
    out.line(table)?;
    if let Some(ops) = &record.ops {
        out.line(format_args!("  output {}", record.output_hash))?;
        let mut table = Table::default();
        for (index, op) in ops.iter().enumerate() {
            table.row([
                right(format!("{index:5}")),
                left(&op.hash),
                left(op.kind),
                left(op.name),
            ]);
        }
        out.line(table)?;
    }
    Ok(())
}

fn report(path: &Path, error: &anyhow::Error, out: &mut Out) -> anyhow::Result<()> {
    failure::report(error);
    out.record(&Failure {
        path: path.display().to_string(),
        error: failure::one_line(error),
    })
}
