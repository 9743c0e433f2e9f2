//! Sizes of the image's parts.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, ensure};
use object::{Object as _, ObjectSection as _};

/// Print what the image's parts take, and check it against budgets/firmware.toml.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// The image
    #[arg(long, value_name = "FILE")]
    image: PathBuf,
    /// The budget
    #[arg(long, value_name = "FILE")]
    budget: PathBuf,
}

/// `budgets/firmware.toml`.
#[derive(Debug, serde::Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Budget {
    /// Code, constants and initialised data, without the plan.
    pub(crate) image_bytes: u64,
    /// The most that the application may use of its stack.
    pub(crate) stack_bytes: u64,
    /// How far the instructions of an inference may be from those in Linux's user mode, in percent.
    pub(crate) instructions_percent: f64,
    /// Instructions of an inference, by compiler.
    #[serde(default)]
    measured: BTreeMap<String, Counts>,
}

/// Instructions of an inference, by model and CPU.
pub(crate) type Counts = BTreeMap<String, BTreeMap<String, u64>>;

/// More than so many percent over what was measured fails.
const TOLERANCE: f64 = 2.0;

impl Budget {
    pub(crate) fn read(path: &Path) -> Result<Self> {
        let text = fs::read_to_string(path).with_context(|| path.display().to_string())?;
        toml::from_str(&text).with_context(|| path.display().to_string())
    }

    /// None of `counts` is more than before; of another compiler nothing is known.
    pub(crate) fn check_measured(&self, rustc: &str, counts: &Counts) -> Result<()> {
        let Some(measured) = self.measured.get(rustc) else {
            println!(
                "  no instructions measured with Rust {rustc} yet; `cargo xtask firmware test -- --bless` writes them"
            );
            return Ok(());
        };
        for (model, of_cpus) in counts {
            for (cpu, &count) in of_cpus {
                let before = measured.get(model).and_then(|of_cpus| of_cpus.get(cpu));
                let before = *before.with_context(|| {
                    format!("budgets/firmware.toml has no instructions of {model} on {cpu}; --bless writes them")
                })?;
                ensure!(
                    count as f64 <= before as f64 * (1.0 + TOLERANCE / 100.0),
                    "{model} on {cpu}: {count} instructions, {before} before; make it less, or --bless it with a reason"
                );
            }
        }
        Ok(())
    }

    /// Replaces what was measured with this compiler; what is above the tables stays as it is.
    pub(crate) fn bless(mut self, path: &Path, rustc: &str, counts: Counts) -> Result<()> {
        self.measured.insert(rustc.to_owned(), counts);
        let text = fs::read_to_string(path)?;
        let head = text.split("\n[measured.").next().unwrap_or_default();
        let mut text = head.trim_end().to_owned() + "\n";
        for (rustc, models) in &self.measured {
            for (model, of_cpus) in models {
                write!(text, "\n[measured.\"{rustc}\".{model}]\n")?;
                for (cpu, count) in of_cpus {
                    writeln!(text, "{cpu} = {count}")?;
                }
            }
        }
        Ok(fs::write(path, text)?)
    }
}

/// In bytes.
struct Sizes {
    code: u64,
    constants: u64,
    data: u64,
    zeroed: u64,
    stacks: u64,
}

impl Sizes {
    fn read(image: &Path) -> Result<Self> {
        let bytes = fs::read(image).with_context(|| image.display().to_string())?;
        let file = object::File::parse(&*bytes)?;
        let size = |name: &str| {
            file.section_by_name(name)
                .map_or(0, |section| section.size())
        };
        Ok(Self {
            code: size(".text"),
            constants: size(".rodata"),
            data: size(".data"),
            zeroed: size(".bss"),
            stacks: size(".stacks"),
        })
    }

    fn image(&self) -> u64 {
        self.code + self.constants + self.data
    }
}

pub(crate) fn verb(args: &Args) -> Result<()> {
    let sizes = Sizes::read(&args.image)?;
    let limit = Budget::read(&args.budget)?.image_bytes;
    let Sizes {
        code,
        constants,
        data,
        zeroed,
        stacks,
    } = sizes;
    let image = sizes.image();
    println!(
        "image: {image} bytes = code {code} + constants {constants} + data {data} (at most {limit})"
    );
    println!(
        "RAM:   {} bytes = statics {} + stacks and their guards {stacks}; the firmware prints what is in them",
        data + zeroed + stacks,
        data + zeroed
    );
    ensure!(
        image <= limit,
        "the image has {image} bytes, {} more than budgets/firmware.toml allows",
        image - limit
    );
    Ok(())
}
