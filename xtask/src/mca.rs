//! `cargo xtask mca`: what the kernels' inner loops cost on the boards' cores by LLVM's models of them, so that a claim about speed
//! does not rest on instruction counts alone. Writes `docs/cost-model.md`.
//!
//! The kernels are compiled to assembly. Every function that an instruction set's token guards is searched for its innermost loop with
//! the most multiply-accumulates, which are counted from the instructions themselves; `llvm-mca` says how many cycles a pass takes.
//! Which functions there are, and what they are called, is left to the kernels.

mod assembly;

use std::collections::BTreeMap;
use std::fmt::Write as _;

use anyhow::{Context as _, Result, ensure};
use serde::Deserialize;
use xshell::cmd;

use self::assembly::{Loop, functions};
use crate::project::Project;
use crate::setup;
use crate::toolchain::{DEVICE, Toolchain};

const PAGE: &str = "docs/cost-model.md";
/// Passes that llvm-mca follows.
const PASSES: &str = "500";
/// A loop is bound by what alone would take at least this share of its time.
const BOUND: f64 = 0.9;
/// Folders of the operations whose work is multiply-accumulates.
const OPERATIONS: [&str; 6] = [
    "gemm",
    "linear",
    "conv",
    "depthwise",
    "attention",
    "pool_linear",
];

/// Estimate the cycles of the kernels' inner loops with llvm-mca, and write docs/cost-model.md.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {}

/// An instruction set, and two cores that use it, in order and out of order.
struct Kernel {
    name: &'static str,
    /// What its token's name has, and no other's further down.
    token: &'static str,
    /// Rows of its largest tile. Those for more are compiled, since the code is shared, but never run.
    rows: u32,
    /// Whether it runs [`WHOLE_EXPONENTIALS`], in blocks of its own.
    whole_exponentials: bool,
    cores: [Core; 2],
}

struct Core {
    name: &'static str,
    /// Its name in LLVM.
    model: &'static str,
}

const fn core(name: &'static str, model: &'static str) -> Core {
    Core { name, model }
}

/// Products of 16-bit exponentials, which only kernel neon prefers to two planes.
const WHOLE_EXPONENTIALS: &str = "attention::simd::mix::Mix<_, true>";

const KERNELS: [Kernel; 3] = [
    Kernel {
        name: "neon-i8mm",
        token: "I8mm",
        rows: 12,
        whole_exponentials: false,
        cores: [
            core("Cortex-A510", "cortex-a510"),
            core("Cortex-A710 (as Neoverse N2)", "neoverse-n2"),
        ],
    },
    Kernel {
        name: "neon-dotprod",
        token: "Dotprod",
        rows: 8,
        whole_exponentials: false,
        cores: [
            core("Cortex-A55", "cortex-a55"),
            core("Cortex-A76 (as Neoverse N1)", "neoverse-n1"),
        ],
    },
    Kernel {
        name: "neon",
        token: "Neon",
        rows: 4,
        whole_exponentials: true,
        cores: [
            core("Cortex-A53", "cortex-a53"),
            core("Cortex-A72 (as Cortex-A57)", "cortex-a72"),
        ],
    },
];

pub(crate) fn verb(project: &Project, _args: &Args) -> Result<()> {
    let page = page(project)?;
    print!("{page}");
    project.sh.write_file(PAGE, page)?;
    println!("{PAGE}: written");
    Ok(())
}

/// What `test --full` runs: that there is something to say of every kernel.
pub(crate) fn check(project: &Project) -> Result<()> {
    print!("{}", page(project)?);
    Ok(())
}

/// Compiles the kernels and says what their loops cost.
fn page(project: &Project) -> Result<String> {
    let llvm = setup::llvm(project)
        .context("no llvm-mca of LLVM 17 or newer: run `cargo xtask setup --full`")?;
    let toolchain = Toolchain::with_library(&project.sh, DEVICE)
        .with_context(|| format!("no Rust library of {DEVICE}: run `cargo xtask setup`"))?;
    let rustc = toolchain.version(&project.sh)?;
    let text = assemble(project, toolchain)?;
    let loops = loops(project, &llvm, &text)?;
    let mut page = heading(&rustc, &llvm);
    for kernel in &KERNELS {
        let of_kernel: Vec<_> = loops
            .iter()
            .filter(|(place, _)| place.kernel == kernel.name)
            .collect();
        if of_kernel.is_empty() {
            continue;
        }
        table_heading(&mut page, kernel)?;
        for (place, body) in of_kernel {
            table_row(&mut page, project, &llvm, kernel, &place.function, body)?;
        }
    }
    Ok(page)
}

/// The kernels' assembly. Symbols are mangled so that they say for which types a function is.
fn assemble(project: &Project, toolchain: Toolchain) -> Result<String> {
    let sh = &project.sh;
    let plus = toolchain.plus();
    let folder = project.scratch()?.join("mca");
    sh.create_dir(&folder)?;
    let file = folder.join("kernels.s");
    let mut emit = std::ffi::OsString::from("asm=");
    emit.push(&file);
    cmd!(
        sh,
        "cargo {plus...} rustc --locked --release --package vitlet-kernels --lib --features std --target {DEVICE} --target-dir {folder}
         -- --codegen symbol-mangling-version=v0 --emit {emit}"
    )
    .run()?;
    Ok(sh.read_file(&file)?)
}

/// A function for one instruction set.
#[derive(Debug, PartialEq, Eq)]
struct Place {
    kernel: &'static str,
    /// As `gemm::simd::WholePanels<8, false>`.
    function: String,
    /// The same without numbers, which say how many rows it takes together: `gemm::simd::WholePanels<_, false>`.
    family: String,
    rows: u32,
}

/// The hottest loop of each function: of those for other numbers of rows, the one for most.
fn loops<'a>(project: &Project, llvm: &Llvm, assembly: &'a str) -> Result<Vec<(Place, Loop<'a>)>> {
    let functions = functions(assembly);
    let mangled: Vec<&str> = functions.iter().map(|function| function.name).collect();
    let filter = llvm.tool("llvm-cxxfilt");
    let names = cmd!(project.sh, "{filter}")
        .stdin(mangled.join("\n"))
        .quiet()
        .read()?;
    let mut loops = BTreeMap::<_, (Place, Loop<'a>)>::new();
    for (function, name) in functions.iter().zip(names.lines()) {
        let (Some(place), Some(body)) = (Place::of(name), function.hottest()) else {
            continue;
        };
        let key = (place.kernel, place.family.clone());
        let is_wider = |(known, _): &(Place, _)| place.rows > known.rows;
        if loops.get(&key).is_none_or(is_wider) {
            loops.insert(key, (place, body));
        }
    }
    let loops: Vec<_> = loops.into_values().collect();
    for kernel in ["neon", "neon-dotprod"] {
        let is_gemm =
            |place: &Place| place.kernel == kernel && place.function.starts_with("gemm::");
        ensure!(
            loops.iter().any(|(place, _)| is_gemm(place)),
            "no loop of kernel {kernel}'s matrix product was found in the assembly: has the folder gemm another name?"
        );
    }
    Ok(loops)
}

impl Place {
    /// Reads a demangled name
    /// `<vitlet_kernels::cpu::Neon as vitlet_kernels::isa::Isa>::call::enabled::<vitlet_kernels::gemm::simd::WholePanels<8, false>>`.
    fn of(name: &str) -> Option<Self> {
        let (token, rest) = name
            .strip_prefix("<vitlet_kernels::cpu::")?
            .split_once(" as ")?;
        let kernel = KERNELS.iter().find(|kernel| token.contains(kernel.token))?;
        let (_, run) = rest.split_once("::<")?;
        let (path, arguments) = run
            .rsplit_once("vitlet_kernels::")?
            .1
            .split_once(['<', '>'])?;
        if !OPERATIONS.contains(&path.split("::").next()?) {
            return None;
        }
        let arguments = arguments.split('>').next()?;
        let number = |argument: &&str| argument.parse::<u32>().is_ok();
        let arguments: Vec<&str> = arguments.split(", ").filter(|a| !a.is_empty()).collect();
        let with = |arguments: &[&str]| match arguments {
            [] => path.to_owned(),
            _ => format!("{path}<{}>", arguments.join(", ")),
        };
        let hidden: Vec<&str> = arguments
            .iter()
            .map(|argument| if number(argument) { "_" } else { argument })
            .collect();
        let rows = arguments.iter().find_map(|argument| argument.parse().ok());
        let (rows, family) = (rows.unwrap_or(0), with(&hidden));
        let is_run = match family.as_str() {
            WHOLE_EXPONENTIALS => kernel.whole_exponentials,
            _ => rows <= kernel.rows,
        };
        is_run.then(|| Self {
            kernel: kernel.name,
            function: with(&arguments),
            family,
            rows,
        })
    }
}

fn heading(rustc: &str, llvm: &Llvm) -> String {
    format!(
        "\
# What the inner loops cost

Written by `cargo xtask mca`; do not edit. Kernels compiled by Rust {rustc}, cores as LLVM {} models them.

An instruction count says nothing of which unit an instruction waits for. `llvm-mca` follows {PASSES} passes of a loop through LLVM's
model of a core: how many instructions it takes in per cycle, which units can do each, and how long a result takes. Of every kernel
function the innermost loop with the most multiply-accumulates (MACs) is shown (of a function that is compiled for several numbers of
rows, that for most); MACs are counted from the instructions themselves: SDOT 16, SMMLA 32, SMULL and SMLAL on bytes 8.

* *instructions*, *cycles*: for 16 MACs, which is one SDOT's worth.
* *bound*: what takes at least {:.0} % of the cycles on its own. A unit (by LLVM's name; V, W and FPALU are vector units): it is
  always busy. *Issue*: the core takes in no more instructions per cycle. *Latency*: neither; the loop waits for its own results.

The model has no caches and no memory: data is where a first-level hit would find it. It does not know branches that are predicted
wrongly, nor that a loop is left. LLVM has no model of Cortex-A72, A76 and A710 of their own; their nearest relative is named.

To reproduce: `cargo xtask setup --full` (installs llvm-mca), then `cargo xtask mca`.
",
        llvm.version,
        100.0 * BOUND
    )
}

fn table_heading(page: &mut String, kernel: &Kernel) -> Result<()> {
    let [in_order, out_of_order] = kernel.cores.each_ref().map(|core| core.name);
    write!(
        page,
        "
## {}

| loop | MACs per pass | instructions | {in_order}: cycles | bound | {out_of_order}: cycles | bound |
|---|---:|---:|---:|---|---:|---|
",
        kernel.name
    )?;
    Ok(())
}

fn table_row(
    page: &mut String,
    project: &Project,
    llvm: &Llvm,
    kernel: &Kernel,
    function: &str,
    body: &Loop<'_>,
) -> Result<()> {
    let macs = body.macs();
    let per_16 = |count: f64| 16.0 * count / macs as f64;
    let instructions = per_16(body.instructions.len() as f64);
    write!(page, "| `{function}` | {macs} | {instructions:.2} |")?;
    for core in &kernel.cores {
        let estimate = llvm
            .estimate(project, core.model, body)
            .with_context(|| format!("{function} of {} on {}", kernel.name, core.model))?;
        let (cycles, bound) = (per_16(estimate.cycles), estimate.bound());
        write!(page, " {cycles:.2} | {bound} |")?;
    }
    page.push('\n');
    Ok(())
}

/// LLVM's tools.
pub(crate) struct Llvm {
    /// What follows the tools' names, as `-19`.
    pub(crate) suffix: String,
    pub(crate) version: String,
}

impl Llvm {
    fn tool(&self, name: &str) -> String {
        format!("{name}{}", self.suffix)
    }

    /// Follows a loop on a core.
    fn estimate(&self, project: &Project, model: &str, body: &Loop<'_>) -> Result<Estimate> {
        let mca = self.tool("llvm-mca");
        let printed = cmd!(
            project.sh,
            "{mca} -mtriple=aarch64 -mcpu={model} -mattr=+dotprod,+i8mm -iterations={PASSES} -json"
        )
        .stdin(body.text())
        .quiet()
        .read()?;
        let report: Report =
            serde_json::from_str(&printed).context("what llvm-mca -json printed")?;
        report.estimate().context("llvm-mca's report has no region")
    }
}

/// What is read of `llvm-mca -json`.
#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Report {
    code_regions: Vec<Region>,
    target_info: Target,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Region {
    instructions: Vec<String>,
    resource_pressure_view: Pressures,
    summary_view: Summary,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Pressures {
    resource_pressure_info: Vec<Pressure>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Pressure {
    instruction_index: usize,
    resource_index: usize,
    resource_usage: f64,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Summary {
    dispatch_width: f64,
    iterations: f64,
    total_cycles: f64,
    #[serde(rename = "TotaluOps")]
    total_uops: f64,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Target {
    resources: Vec<String>,
}

/// Of one pass, in cycles.
#[derive(Debug, PartialEq)]
struct Estimate {
    cycles: f64,
    /// What taking in the instructions alone would need.
    issue: f64,
    /// The busiest unit, and how long it is busy.
    unit: (String, f64),
}

impl Report {
    fn estimate(&self) -> Option<Estimate> {
        let region = self.code_regions.first()?;
        let Summary {
            dispatch_width,
            iterations,
            total_cycles,
            total_uops,
        } = region.summary_view;
        // The entries after the last instruction's are sums.
        let sums = region.resource_pressure_view.resource_pressure_info.iter();
        let sums = sums.filter(|pressure| pressure.instruction_index == region.instructions.len());
        let busiest = sums.max_by(|a, b| a.resource_usage.total_cmp(&b.resource_usage))?;
        let unit = self.target_info.resources.get(busiest.resource_index)?;
        Some(Estimate {
            cycles: total_cycles / iterations,
            issue: total_uops / iterations / dispatch_width,
            unit: (unit.clone(), busiest.resource_usage),
        })
    }
}

impl Estimate {
    fn bound(&self) -> &str {
        let (unit, busy) = &self.unit;
        let enough = BOUND * self.cycles;
        if *busy >= enough && *busy >= self.issue {
            unit
        } else if self.issue >= enough {
            "issue"
        } else {
            "latency"
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_say_kernel_and_function() {
        let place = |token: &str, run: &str| {
            let call = "vitlet_kernels::isa::Isa>::call::enabled";
            let place = Place::of(&format!("<vitlet_kernels::cpu::{token} as {call}::<{run}>"))?;
            Some((place.kernel, place.function, place.family, place.rows))
        };
        let expected = |kernel, function: &str, family: &str, rows| {
            Some((kernel, function.to_owned(), family.to_owned(), rows))
        };
        assert_eq!(
            place("Neon", "vitlet_kernels::gemm::simd::WholePanels<4, false>"),
            expected(
                "neon",
                "gemm::simd::WholePanels<4, false>",
                "gemm::simd::WholePanels<_, false>",
                4
            )
        );
        let wrapped = "vitlet_kernels::isa::Run<vitlet_kernels::depthwise::Depthwise>";
        let depthwise = "depthwise::Depthwise";
        assert_eq!(
            place("NeonDotprod", wrapped),
            expected("neon-dotprod", depthwise, depthwise, 0)
        );
        let mix = "attention::simd::mix::Mix";
        assert_eq!(
            place("NeonI8mm", &format!("vitlet_kernels::{mix}<4>")),
            expected("neon-i8mm", &format!("{mix}<4>"), &format!("{mix}<_>"), 4)
        );
        assert_eq!(place("Neon", "vitlet_kernels::layernorm::LayerNorm"), None);
        // Compiled, but not run: neon has 4 rows, and only neon keeps exponentials whole.
        let panels = "vitlet_kernels::gemm::simd::WholePanels<8, false>";
        assert_eq!(place("Neon", panels), None);
        let whole = format!("vitlet_kernels::{mix}<8, true>");
        assert!(place("Neon", &whole).is_some());
        assert_eq!(place("NeonDotprod", &whole), None);
        assert_eq!(Place::of("vitlet_kernels::linear::Linear::run"), None);
    }

    /// Three instructions on two units, 100 passes.
    fn estimate(cycles: u32) -> Option<Estimate> {
        let json = serde_json::json!({
            "CodeRegions": [{
                "Instructions": ["a", "b", "c"],
                "ResourcePressureView": {"ResourcePressureInfo": [
                    {"InstructionIndex": 0, "ResourceIndex": 0, "ResourceUsage": 9.0},
                    {"InstructionIndex": 3, "ResourceIndex": 0, "ResourceUsage": 1.0},
                    {"InstructionIndex": 3, "ResourceIndex": 1, "ResourceUsage": 2.0},
                ]},
                "SummaryView": {"DispatchWidth": 2, "Iterations": 100, "TotalCycles": cycles, "TotaluOps": 300},
            }],
            "TargetInfo": {"Resources": ["Load", "Vector"]},
        });
        Report::deserialize(json).ok()?.estimate()
    }

    #[test]
    fn a_loop_is_bound_by_what_takes_its_time() {
        let bound = |cycles| estimate(cycles).map(|estimate| estimate.bound().to_owned());
        assert_eq!(bound(205).as_deref(), Some("Vector"));
        assert_eq!(bound(400).as_deref(), Some("latency"));
        let expected = Estimate {
            cycles: 2.05,
            issue: 1.5,
            unit: ("Vector".to_owned(), 2.0),
        };
        assert_eq!(estimate(205), Some(expected));
        let wide = Estimate {
            cycles: 3.1,
            issue: 3.0,
            unit: ("Vector".to_owned(), 2.0),
        };
        assert_eq!(wide.bound(), "issue");
    }
}
