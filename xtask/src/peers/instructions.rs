//! Instructions of one inference on the boards' CPUs: of a process with three inferences, less those of one with two.

use std::collections::BTreeMap;
use std::ffi::OsString;

use anyhow::{Context as _, Result};
use serde::{Deserialize, Serialize};

use super::contender::{Contender, Engine};
use super::programs::Programs;
use super::subject::Subject;
use crate::cache;

/// With SDOT, without, and with all that QEMU knows.
pub(super) const CPUS: [&str; 3] = ["cortex-a76", "cortex-a72", "max"];

/// By contender, then by CPU.
pub(super) type Counted = BTreeMap<String, BTreeMap<String, Count>>;

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(super) struct Count {
    /// Of the program, its library, the model and the image: counts are exact, so the same files need no second count.
    key: String,
    /// Or why there are none.
    pub(super) instructions: Result<u64, String>,
    /// What the engine says of itself.
    pub(super) detail: String,
}

#[cfg(test)]
impl Count {
    pub(super) const fn new(instructions: Result<u64, String>) -> Self {
        Self {
            key: String::new(),
            instructions,
            detail: String::new(),
        }
    }
}

pub(super) fn measure(
    programs: &Programs<'_>,
    subject: &Subject,
    engines: &[Engine],
    earlier: Counted,
) -> Result<Counted> {
    let mut counted = earlier;
    let mut contenders = Contender::ALL.to_vec();
    contenders.retain(|contender| engines.contains(&contender.engine));
    for contender in contenders {
        let label = contender.label();
        let command = command(programs, subject, contender)?;
        let key = key(programs, subject, contender, &command)?;
        let counts = counted.entry(label.clone()).or_default();
        for cpu in CPUS {
            if counts.get(cpu).is_some_and(|count| count.key == key) {
                continue;
            }
            let (instructions, detail) = match count(programs, cpu, &command) {
                Ok((instructions, detail)) => (Ok(instructions), detail),
                Err(error) => (Err(format!("{error:#}")), String::new()),
            };
            println!("{}: {label}, {cpu}: {instructions:?}", subject.name);
            let key = key.clone();
            let count = Count {
                key,
                instructions,
                detail,
            };
            counts.insert(cpu.to_owned(), count);
        }
    }
    Ok(counted)
}

fn command(
    programs: &Programs<'_>,
    subject: &Subject,
    contender: Contender,
) -> Result<Vec<OsString>> {
    let mut command = programs.device.command(contender, subject);
    let mut images = subject.images(programs.project, contender.engine)?;
    images.truncate(1);
    let image = images.pop().context("there are images")?;
    command.extend(["--image".into(), image.into(), "--iterations".into()]);
    Ok(command)
}

fn key(
    programs: &Programs<'_>,
    subject: &Subject,
    contender: Contender,
    command: &[OsString],
) -> Result<String> {
    let image = command.len() - 2;
    let mut sources = vec![
        programs.device.program(contender.engine),
        subject.model(contender),
        command[image].clone().into(),
    ];
    if contender.engine == Engine::OnnxRuntime {
        sources.push(programs.device.library.clone());
    }
    cache::key(&sources)
}

fn count(programs: &Programs<'_>, cpu: &str, command: &[OsString]) -> Result<(u64, String)> {
    #[derive(Deserialize)]
    struct Report {
        detail: String,
    }
    // Before the timed inferences every image is run once; that one may set things up.
    let run = |iterations: &str| {
        let command = [command, &[iterations.into()]].concat();
        programs.plugin.count(programs.project, cpu, &command)
    };
    let (fewer, more) = (run("1")?, run("2")?);
    let printed = more.printed;
    let report: Report =
        serde_json::from_str(&printed).with_context(|| format!("it printed '{printed}'"))?;
    let instructions = more.instructions.checked_sub(fewer.instructions);
    let instructions = instructions.context("three inferences took fewer instructions than two")?;
    Ok((instructions, report.detail))
}
