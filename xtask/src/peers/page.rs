//! `docs/performance.md`.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;

use anyhow::{Context as _, Result};

use super::CRATE;
use super::contender::{Contender, Engine};
use super::instructions::{CPUS, Count, Counted};
use super::programs::{DEVICE_ONNX_RUNTIME, Programs};
use super::subject::{CALIBRATION, COMPARED, Subject};
use super::wall::{Measured, Paired, THREADS, Timed, TimedRow};
use crate::insns::millions;
use crate::machine::Machine;
use crate::toolchain::DEVICE;

/// What is known of a model.
pub(super) struct Row<'s> {
    pub(super) subject: &'s Subject,
    pub(super) timed: Option<Timed>,
    pub(super) counted: Counted,
}

impl Row<'_> {
    fn measured(&self, contender: Contender) -> Option<&Measured> {
        match self.timed.as_ref()?.rows.get(&contender.label())? {
            TimedRow::Measured(measured) => Some(measured),
            TimedRow::Failed(_) => None,
        }
    }

    fn count(&self, contender: Contender, cpu: &str) -> Option<&Count> {
        self.counted.get(&contender.label())?.get(cpu)
    }
}

pub(super) fn page(programs: &Programs<'_>, rows: &[Row<'_>]) -> Result<String> {
    let mut page = String::new();
    writeln!(
        page,
        "# Performance\n\nWritten by `cargo xtask peers`; do not edit.\n"
    )?;
    writeln!(
        page,
        "vitlet beside ONNX Runtime, tract and rten: the same ONNX file, the same photo, batch 1, timed by the same code in one run. int8 is, for\n\
         vitlet, a plan by `vitlet compile`; for the others an ONNX file by ONNX Runtime's own `quantize_static` (QDQ, per-channel s8 weights, u8\n\
         activations); both calibrated on the same {CALIBRATION} photos.{}\n",
        links()
    )?;
    page.push_str(&summary(rows)?);
    for row in rows {
        page.push_str(&model(row)?);
    }
    page.push_str(&sizes(programs, rows)?);
    page.push_str(&how_to_read());
    page.push_str(&not_measured());
    page.push_str(&reproduce(programs, rows)?);
    Ok(page)
}

fn links() -> String {
    "\n\nWhere the cycles of the inner loops go: [cost-model.md](cost-model.md). How threads share the work: [threads.md](threads.md). Every\n\
     model's instruction count: [models.md](models.md)."
        .to_owned()
}

/// vitlet's figures as parts of ONNX Runtime int8's.
fn summary(rows: &[Row<'_>]) -> Result<String> {
    let mut table = String::from(
        "## vitlet as a part of ONNX Runtime int8\n\n| model | time, 1 thread | time, 2 threads |",
    );
    for cpu in CPUS {
        write!(table, " instructions, {cpu} |")?;
    }
    table.push_str(" peak memory | load |\n|---|---:|---:|");
    table.push_str(&"---:|".repeat(CPUS.len() + 2));
    table.push('\n');
    for row in rows {
        write!(table, "| {} |", row.subject.title)?;
        let vitlet = row.measured(Contender::VITLET);
        let reference = row.measured(Contender::REFERENCE);
        for threads in THREADS {
            let ratio = vitlet
                .and_then(|measured| measured.times.get(&threads))
                .map(|paired| paired.ratio[1]);
            write!(table, " {} |", part(ratio))?;
        }
        for cpu in CPUS {
            let count = |contender| row.count(contender, cpu)?.instructions.clone().ok();
            let parts = count(Contender::VITLET).zip(count(Contender::REFERENCE));
            let ratio = parts.map(|(ours, theirs)| millions(ours) / millions(theirs));
            write!(table, " {} |", part(ratio))?;
        }
        let both = vitlet.zip(reference);
        let memory = both.map(|(a, b)| millions(a.vm_hwm_bytes) / millions(b.vm_hwm_bytes));
        let load = both.map(|(a, b)| a.load_ms / b.load_ms);
        writeln!(table, " {} | {} |", part(memory), part(load))?;
    }
    Ok(table)
}

fn part(ratio: Option<f64>) -> String {
    ratio.map_or_else(|| "–".to_owned(), |ratio| format!("{ratio:.2}"))
}

/// A model's two tables.
fn model(row: &Row<'_>) -> Result<String> {
    let Subject {
        name,
        title,
        weights,
        ..
    } = row.subject;
    let mut text = format!("\n## {title}\n\n`{name}`; weights: {weights}.\n\n");
    if let Some(timed) = &row.timed {
        text.push_str("| engine |");
        for threads in THREADS {
            let s = if threads == 1 { "" } else { "s" };
            write!(text, " {threads} thread{s} (ms) | of ONNX Runtime int8 |")?;
        }
        text.push_str(" load (ms) | first (ms) | peak memory (MB) | cosine | top-1 |\n|---|");
        text.push_str(&"---:|".repeat(2 * THREADS.len() + 5));
        text.push('\n');
        for contender in Contender::ALL {
            if let Some(row) = timed.rows.get(&contender.label()) {
                writeln!(text, "| {} |{}", contender.label(), timed_row(row)?)?;
            }
        }
    }
    if !row.counted.is_empty() {
        write!(text, "\n| instructions (M), one thread |")?;
        for cpu in CPUS {
            write!(text, " {cpu} |")?;
        }
        writeln!(text, "\n|---|{}", "---:|".repeat(CPUS.len()))?;
        for contender in Contender::ALL {
            if !row.counted.contains_key(&contender.label()) {
                continue;
            }
            write!(text, "| {} |", contender.label())?;
            for cpu in CPUS {
                match row.count(contender, cpu).map(|count| &count.instructions) {
                    Some(Ok(count)) => write!(text, " {:.1} |", millions(*count))?,
                    Some(Err(_)) => write!(text, " fails |")?,
                    None => write!(text, " – |")?,
                }
            }
            text.push('\n');
        }
    }
    Ok(text)
}

fn timed_row(row: &TimedRow) -> Result<String> {
    let measured = match row {
        TimedRow::Failed(why) => {
            let why = why.replace(['\n', '|'], " ");
            return Ok(format!(
                " fails: {why}{}",
                " |".repeat(2 * THREADS.len() + 5)
            ));
        }
        TimedRow::Measured(measured) => measured,
    };
    let mut text = String::new();
    for threads in THREADS {
        let Some(Paired { ms, ratio, .. }) = measured.times.get(&threads) else {
            write!(text, " – | – |")?;
            continue;
        };
        let [low, middle, high] = ratio;
        write!(text, " {ms:.2} | **{middle:.2}** ({low:.2}–{high:.2}) |")?;
    }
    write!(
        text,
        " {:.1} | {:.1} | {:.1} | {:.4} | {} of {} |",
        measured.load_ms,
        measured.first_ms,
        millions(measured.vm_hwm_bytes),
        measured.cosine,
        measured.top1,
        measured.images
    )?;
    Ok(text)
}

fn sizes(programs: &Programs<'_>, rows: &[Row<'_>]) -> Result<String> {
    let mut text = String::from(
        "\n## Sizes\n\nBytes of a program that loads a model and runs it, stripped, and of the shared library it loads.\n\n\
         | engine | x86-64 program (MB) | library (MB) | aarch64 program (MB) | library (MB) |\n|---|---:|---:|---:|---:|\n",
    )
    .replace("x86-64", std::env::consts::ARCH);
    let size = |path: &std::path::Path| -> String {
        let bytes = path.metadata().map(|data| millions(data.len()));
        bytes.map_or_else(|_| "–".to_owned(), |bytes| format!("{bytes:.1}"))
    };
    for engine in Engine::ALL {
        write!(text, "| {} |", engine.name())?;
        for build in [&programs.native, &programs.device] {
            let library = match engine {
                Engine::OnnxRuntime => size(&build.library),
                _ => String::new(),
            };
            write!(text, " {} | {library} |", size(&build.program(engine)))?;
        }
        text.push('\n');
    }
    text.push_str(
        "\n| model | plan (MB) | int8 ONNX (MB) | f32 ONNX (MB) |\n|---|---:|---:|---:|\n",
    );
    for Row { subject, .. } in rows {
        let [plan, int8, f32] = [Contender::VITLET, Contender::REFERENCE, Contender::TRUTH]
            .map(|contender| size(&subject.model(contender)));
        writeln!(text, "| {} | {plan} | {int8} | {f32} |", subject.title)?;
    }
    Ok(text)
}

fn how_to_read() -> String {
    format!(
        "
## How to read this

* **Instructions are exact.** QEMU counts every instruction of the program; a figure is the count of three inferences less that of two,
  and repeats to some tens of instructions (of a program with one thread). They say nothing of stalls, caches or clocks: an instruction of one
  engine is not an instruction of another. They are the figure to compare across versions, and a hint of time across engines.
* **Times are of a shared machine.** The milliseconds are the median of all turns and move with the neighbours' load. The *ratio* does not:
  the two programs wait with the model loaded and take turns of some inferences, A B A B, seconds apart at most; a figure is the median
  over the pairs of turns, and the brackets are its quartiles. ONNX Runtime int8 against itself shows the noise that is left.
* **Two threads want two idle CPUs.** Where others use them too, an engine whose threads wait for each other by spinning loses far more than
  one whose threads sleep, or that uses one thread for most of its work: such a run says little of an idle machine. That two threads are
  slower than one in a row is the sign of it.
* *load*: from opening the model's file, which is in the page cache, to being ready; for ONNX Runtime it includes loading its library and
  optimising the graph. *first*: the inference after that. Both medians of 5 processes.
* *peak memory*: `VmHWM` of the process after loading and some inferences on one thread, program and library included.
* *cosine*, *top-1*: of the logits with ONNX Runtime's in f32, on {COMPARED} photos that no ranges were measured on. f32 must agree to 0.9999,
  or nothing is measured. **An int8 row far below 1 is of an engine that gets the file wrong**: its time compares nothing. Random weights (all models but PVTv2-b0) say that the same network is computed, not how accurate it is.
* vitlet takes the photo's pixels as bytes; the others take normalised f32 numbers, which were made before the clock started.
* Engines run with their defaults, except: the number of threads; rten packs weights when it loads. All were built by the same compiler
  at `opt-level = 3`, apart from ONNX Runtime, which is its publisher's.
"
    )
}

fn not_measured() -> String {
    "
## What is not measured

* Time on a board. QEMU's time is not a board's, so there is none here; `vitlet bench` measures where it runs.
* rten's instructions: its thread pool hangs under QEMU's user mode.
* Instructions with two threads: the counter's sum is exact for one thread only.
* Decoding and resizing the photo, which the other engines leave to the caller.
* Accuracy. See the model's card in `models/zoo` and [my-accuracy-dropped.md](my-accuracy-dropped.md).
* Batches, GPUs and NPUs, TensorFlow Lite and ncnn.
"
    .to_owned()
}

fn reproduce(programs: &Programs<'_>, rows: &[Row<'_>]) -> Result<String> {
    let sh = &programs.project.sh;
    let lock: toml::Table = toml::from_str(&sh.read_file(format!("{CRATE}/Cargo.lock"))?)?;
    let requirements = sh.read_file(format!("{CRATE}/requirements.txt"))?;
    let library = requirements
        .lines()
        .find_map(|line| line.strip_prefix("onnxruntime=="))
        .context("requirements.txt pins onnxruntime")?;
    let [tract, rten, ort] = ["tract-onnx", "rten", "ort"].map(|name| locked(&lock, name));
    let mut text = format!(
        "
## How to reproduce

```
cargo xtask peers --models DIR
```

`DIR` holds what `python -m vitlet_models export` wrote (see `models/README.md`); without it only PVTv2-b0 is measured. The programs and the
quantising script are in `{CRATE}`.

* ONNX Runtime {library} on this machine (PyPI), {DEVICE_ONNX_RUNTIME} on aarch64 (npm's onnxruntime-node, the newest that runs under QEMU 7.2), both through
  the crate ort {}; tract {}; rten {}.
",
        ort?, tract?, rten?
    );
    let qemu = xshell::cmd!(sh, "qemu-aarch64 --version").quiet().read()?;
    let qemu = qemu.lines().next().unwrap_or_default();
    writeln!(text, "* Instructions: {qemu}, programs for {DEVICE}.")?;
    for (timed, titles) in by_run(rows) {
        let Machine {
            cpu,
            features,
            cpus,
            rustc,
        } = &timed.machine;
        writeln!(
            text,
            "* Times of {}: {}, vitlet at {}, {cpus} CPUs of {cpu} ({}), {rustc}.",
            titles.join(", "),
            timed.date,
            timed.commit,
            features.join(", ")
        )?;
    }
    for (engine, details) in details(rows) {
        writeln!(text, "* {engine}: {}.", details.join("; "))?;
    }
    Ok(text)
}

/// The models by the run that timed them: one line if it was one.
fn by_run<'r>(rows: &'r [Row<'_>]) -> Vec<(&'r Timed, Vec<&'static str>)> {
    let mut runs: Vec<(&Timed, Vec<&str>)> = Vec::new();
    for row in rows {
        let Some(timed) = &row.timed else { continue };
        let same = |run: &Timed| {
            (&run.date, &run.commit, &run.machine) == (&timed.date, &timed.commit, &timed.machine)
        };
        match runs.iter_mut().find(|(run, _)| same(run)) {
            Some((_, titles)) => titles.push(row.subject.title),
            None => runs.push((timed, vec![row.subject.title])),
        }
    }
    runs
}

/// vitlet's kernels, by where they ran.
fn details(rows: &[Row<'_>]) -> Vec<(&'static str, Vec<String>)> {
    let label = Contender::VITLET.label();
    let mut kernels: BTreeMap<String, BTreeSet<&str>> = BTreeMap::new();
    for row in rows {
        if let Some(measured) = row.measured(Contender::VITLET) {
            let here = kernels.entry("this machine".to_owned()).or_default();
            here.insert(&measured.detail);
        }
        for (cpu, count) in row.counted.get(&label).into_iter().flatten() {
            kernels
                .entry(cpu.clone())
                .or_default()
                .insert(&count.detail);
        }
    }
    let kernels = kernels.into_iter().map(|(place, names)| {
        let names: Vec<&str> = names.into_iter().collect();
        format!("{} on {place}", names.join(" and "))
    });
    vec![("vitlet's kernels", kernels.collect())]
}

/// A package's version in a Cargo.lock.
fn locked(lock: &toml::Table, name: &str) -> Result<String> {
    let packages = lock.get("package").and_then(toml::Value::as_array);
    let package = packages
        .into_iter()
        .flatten()
        .find(|package| package.get("name").and_then(toml::Value::as_str) == Some(name));
    let version = package.and_then(|package| package.get("version")?.as_str());
    Ok(version
        .with_context(|| format!("{CRATE}/Cargo.lock has no {name}"))?
        .to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn measured(ms: f64, ratio: f64) -> TimedRow {
        let paired = Paired {
            ms,
            ratio: [ratio - 0.01, ratio, ratio + 0.01],
            pairs: 5,
        };
        TimedRow::Measured(Measured {
            detail: "avx2".to_owned(),
            load_ms: 1.25,
            first_ms: 2.5,
            vm_hwm_bytes: 7_000_000,
            cosine: 0.999,
            top1: 7,
            images: 8,
            times: BTreeMap::from([(1, paired)]),
        })
    }

    fn row(subject: &Subject) -> Row<'_> {
        let rows = [
            (Contender::VITLET, measured(5.0, 0.25)),
            (Contender::REFERENCE, measured(20.0, 1.0)),
            (Contender::ALL[3], TimedRow::Failed("no | op\nx".to_owned())),
        ];
        let machine = Machine {
            cpu: "a CPU".to_owned(),
            features: vec![],
            cpus: 2,
            rustc: "rustc 1".to_owned(),
        };
        let count = |instructions| BTreeMap::from([(CPUS[0].to_owned(), Count::new(instructions))]);
        Row {
            subject,
            timed: Some(Timed {
                date: "2026-01-01".to_owned(),
                commit: "abc".to_owned(),
                machine,
                rows: rows
                    .into_iter()
                    .map(|(contender, row)| (contender.label(), row))
                    .collect(),
            }),
            counted: BTreeMap::from([
                (Contender::VITLET.label(), count(Ok(50_000_000))),
                (Contender::REFERENCE.label(), count(Ok(200_000_000))),
                (Contender::TRUTH.label(), count(Err("why".to_owned()))),
            ]),
        }
    }

    #[test]
    fn a_model_has_a_row_for_each_engine() -> Result<()> {
        let subject = Subject::for_tests();
        let text = model(&row(&subject))?;
        for part in [
            "## A model\n",
            "| vitlet int8 | 5.00 | **0.25** (0.24–0.26) | – | – | 1.2 | 2.5 | 7.0 | 0.9990 | 7 of 8 |",
            "| tract int8 | fails: no   op x | | | | | | | | |",
            "| vitlet int8 | 50.0 | – | – |",
            "| ONNX Runtime f32 | fails | – | – |",
        ] {
            assert!(text.contains(part), "no '{part}' in {text}");
        }
        let columns = |line: &str| line.matches('|').count();
        let table: Vec<&str> = text.lines().filter(|line| line.starts_with('|')).collect();
        assert!(
            table[..5]
                .iter()
                .all(|line| columns(line) == columns(table[0])),
            "{text}"
        );
        Ok(())
    }

    #[test]
    fn the_summary_divides_by_the_reference() -> Result<()> {
        let subject = Subject::for_tests();
        let text = summary(&[row(&subject)])?;
        assert!(
            text.contains("| A model | 0.25 | – | 0.25 | – | – | 1.00 | 1.00 |"),
            "{text}"
        );
        Ok(())
    }

    #[test]
    fn one_run_has_one_line() {
        let subject = Subject::for_tests();
        let mut rows = [row(&subject), row(&subject), row(&subject)];
        if let Some(timed) = &mut rows[2].timed {
            timed.commit = "def".to_owned();
        }
        let runs = by_run(&rows);
        let titles: Vec<usize> = runs.iter().map(|(_, titles)| titles.len()).collect();
        assert_eq!(titles, [2, 1]);
    }

    #[test]
    fn versions_are_of_the_lock_file() {
        let lock = include_str!("../../../benches/peers/Cargo.lock");
        let lock = toml::from_str(lock).unwrap_or_default();
        for name in ["ort", "rten", "tract-onnx"] {
            assert!(locked(&lock, name).is_ok(), "{name}");
        }
        assert!(locked(&lock, "candle").is_err());
    }
}
