//! `cargo xtask test`: every check there is, in order, the cheap ones first.
//!
//! Each step is named and timed. The first failure ends the run. A step whose tools cannot be had on this machine is
//! listed as not run, with the reason; in CI that is a failure.

use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use xshell::cmd;

use crate::project::Project;
use crate::setup::{self, Tool};
use crate::toolchain::{BARE_METAL, Core, DEVICE, Toolchain};
use crate::{budgets, dist, firmware, insns, mca, page_test, peers, system_test, zoo};

/// Run everything that CI runs; the set-up is the first step.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Also the long loops (`VITLET_FULL=1`), instructions of the families that the zoo has no model of (which takes PyTorch), the
    /// preview's page in a browser, and half a minute of fuzzing per target.
    #[arg(long)]
    full: bool,
}

/// The crates that run on the boards without an operating system.
const NO_STD: [&str; 4] = [
    "vitlet-kernels",
    "vitlet-plan",
    "vitlet-engine",
    "vitlet-preprocess",
];

/// CPUs of the boards, the kernels that each must have run, and the crates whose tests tell it from the CPUs before.
const CPUS: [Cpu; 3] = [
    Cpu {
        step: "tests, cortex-a53",
        name: "cortex-a53",
        kernels: "scalar,neon",
        packages: &NO_STD,
    },
    Cpu {
        step: "tests, cortex-a76",
        name: "cortex-a76",
        kernels: "scalar,neon,neon-dotprod",
        // Plans are read, and frames resized, by the code that ran on the CPU before.
        packages: &["vitlet-kernels", "vitlet-engine"],
    },
    Cpu {
        step: "tests, max (i8mm)",
        name: "max",
        kernels: "scalar,neon,neon-dotprod,neon-i8mm",
        packages: &["vitlet-kernels"],
    },
];

/// A CPU that QEMU knows.
struct Cpu {
    step: &'static str,
    name: &'static str,
    kernels: &'static str,
    /// With `--full`, all of [`NO_STD`].
    packages: &'static [&'static str],
}

/// What building and running for the boards takes.
const DEVICE_TOOLS: &[Tool] = &[Tool::DeviceLibrary, Tool::DeviceLinker, Tool::Qemu];

pub(crate) fn verb(project: &Project, args: &Args) -> Result<()> {
    let mut steps = Steps {
        project,
        missing: Vec::new(),
        rows: Vec::new(),
    };
    let done = run(&mut steps, args);
    steps.print_summary();
    done
}

fn run(steps: &mut Steps<'_>, args: &Args) -> Result<()> {
    let project = steps.project;
    set_environment(project, args.full);
    let mut missing = Vec::new();
    steps.run("setup", &[], || {
        missing = setup::run(project, args.full)?;
        Ok(Outcome::Passed)
    })?;
    steps.missing = missing;

    steps.run("format", &[Tool::Rustfmt], || format(project))?;
    steps.run("lint", &[Tool::Clippy, Tool::CCompiler], || lint(project))?;
    steps.run("lint, other features", &[Tool::Clippy], || {
        lint_features(project)
    })?;
    steps.run("lint, aarch64", &[Tool::DeviceClippy], || {
        lint_device(project)
    })?;
    let firmware_tools = &[Tool::BareMetal, Tool::BareMetalLinker, Tool::QemuSystem];
    steps.run("lint, firmware", &[Tool::Clippy, Tool::BareMetal], || {
        firmware::lint(project).map(passed)
    })?;
    steps.run("documentation", &[], || documentation(project))?;
    steps.run("no_std", &[Tool::BareMetal], || no_std(project))?;
    steps.run("programs", DEVICE_TOOLS, || {
        dist::verb(project, &dist::Args::default()).map(passed)
    })?;
    steps.run("minimum Rust", &[], || minimum_rust(project))?;
    steps.run("tests", &[], || tests(project))?;
    for cpu in CPUS {
        steps.run(cpu.step, DEVICE_TOOLS, || {
            tests_on(project, &cpu, args.full)
        })?;
    }
    steps.run("tests, small kernels", DEVICE_TOOLS, || {
        small_kernels(project)
    })?;
    steps.run("zoo", &[], || zoo::run(project, true).map(passed))?;
    steps.run("sizes", DEVICE_TOOLS, || {
        budgets::check(project, args.full).map(passed)
    })?;
    steps.run("instructions", DEVICE_TOOLS, || {
        insns::check(project, args.full).map(passed)
    })?;
    steps.run("firmware", firmware_tools, || {
        firmware::check(project, args.full).map(passed)
    })?;
    let system_tools = &[Tool::DeviceLibrary, Tool::DeviceLinker, Tool::QemuSystem];
    steps.run("system test", system_tools, || {
        system_test::check(project, args.full).map(passed)
    })?;
    steps.run("dependencies", &[Tool::CargoDeny], || dependencies(project))?;
    if args.full {
        steps.run("page", &[Tool::Chromium], || {
            page_test::verb(project, &page_test::Args::default()).map(passed)
        })?;
        steps.run("cost model", &[Tool::DeviceLibrary, Tool::LlvmMca], || {
            mca::check(project).map(passed)
        })?;
        steps.run("fuzzing", &[Tool::CargoFuzz], || fuzzing(project))?;
    }
    Ok(())
}

/// Tells the tests where things are; see the crate `vitlet-tests`.
fn set_environment(project: &Project, full: bool) {
    let sh = &project.sh;
    if full {
        sh.set_var("VITLET_FULL", "1");
    }
    let shared = project.root.join("../shared");
    if sh.var_os("VITLET_DATA").is_none() && shared.is_dir() {
        sh.set_var("VITLET_DATA", shared);
    }
    sh.set_var("VITLET_BIN", project.target.join("release/vitlet"));
    sh.set_var(
        "VITLET_AARCH64_BIN",
        project.target.join(DEVICE).join("release/vitlet"),
    );
}

enum Outcome {
    Passed,
    NotRun(String),
}

fn passed((): ()) -> Outcome {
    Outcome::Passed
}

fn format(project: &Project) -> Result<Outcome> {
    let sh = &project.sh;
    cmd!(sh, "cargo fmt --all --check").run()?;
    cmd!(
        sh,
        "cargo fmt --manifest-path firmware-sim/Cargo.toml --all --check"
    )
    .run()?;
    // Nothing here builds the other engines' workspace; that it parses and is formatted costs nothing to check.
    let manifest = format!("{}/Cargo.toml", peers::CRATE);
    cmd!(sh, "cargo fmt --manifest-path {manifest} --check").run()?;
    cmd!(
        sh,
        "cargo metadata --manifest-path {manifest} --locked --no-deps --format-version 1"
    )
    .ignore_stdout()
    .run()?;
    Ok(Outcome::Passed)
}

fn lint(project: &Project) -> Result<Outcome> {
    // In the release profile, so that build scripts are shared with the programs.
    cmd!(
        project.sh,
        "cargo clippy --locked --release --workspace --all-targets -- --deny warnings"
    )
    .run()?;
    Ok(Outcome::Passed)
}

/// Code that the default features leave out, and code that only they need.
fn lint_features(project: &Project) -> Result<Outcome> {
    let sh = &project.sh;
    let clippy = ["clippy", "--locked", "--release"];
    cmd!(sh, "cargo {clippy...} --package vitlet-cli --no-default-features --all-targets -- --deny warnings").run()?;
    cmd!(
        sh,
        "cargo {clippy...} --package vitlet --all-features -- --deny warnings"
    )
    .run()?;
    for package in NO_STD {
        cmd!(
            sh,
            "cargo {clippy...} --package {package} --no-default-features -- --deny warnings"
        )
        .run()?;
        cmd!(
            sh,
            "cargo {clippy...} --package {package} --all-features -- --deny warnings"
        )
        .run()?;
    }
    Ok(Outcome::Passed)
}

/// The NEON kernels are compiled for aarch64 only, so they are linted there.
fn lint_device(project: &Project) -> Result<Outcome> {
    let toolchain = Toolchain::with_library(&project.sh, DEVICE).context("setup found one")?;
    let plus = toolchain.plus();
    cmd!(
        project.sh,
        "cargo {plus...} clippy --locked --release --package vitlet-kernels --features std --all-targets --target {DEVICE} -- --deny warnings"
    )
    .run()?;
    Ok(Outcome::Passed)
}

fn documentation(project: &Project) -> Result<Outcome> {
    cmd!(
        project.sh,
        "cargo doc --locked --release --workspace --no-deps --document-private-items"
    )
    .env("RUSTDOCFLAGS", "--deny warnings")
    .run()?;
    Ok(Outcome::Passed)
}

/// Builds for a target that has no `std`: a host build would prove nothing.
fn no_std(project: &Project) -> Result<Outcome> {
    let sh = &project.sh;
    let core = Core::find(sh).context("setup found one")?;
    let packages = NO_STD.iter().flat_map(|package| ["--package", package]);
    let build = ["build", "--locked", "--release", "--target", BARE_METAL];
    match core {
        Core::Prebuilt(toolchain) => {
            let plus = toolchain.plus();
            cmd!(sh, "cargo {plus...} {build...} {packages...}").run()?;
        }
        Core::FromSource(toolchain) => {
            let plus = toolchain.plus();
            // -Zbuild-std is unstable; it compiles the toolchain's own library, so the code under test stays stable's.
            cmd!(
                sh,
                "cargo {plus...} {build...} {packages...} -Zbuild-std=core"
            )
            .env("RUSTC_BOOTSTRAP", "1")
            .run()?;
        }
    }
    Ok(Outcome::Passed)
}

/// The workspace builds with the `rust-version` it states.
fn minimum_rust(project: &Project) -> Result<Outcome> {
    let sh = &project.sh;
    let manifest: toml::Table = toml::from_str(&sh.read_file("Cargo.toml")?)?;
    let minimum = ["workspace", "package"]
        .iter()
        .try_fold(&manifest, |table, key| table.get(*key)?.as_table())
        .and_then(|package| package.get("rust-version")?.as_str())
        .context("Cargo.toml: no workspace.package.rust-version")?;
    let used = Toolchain::Default.version(sh)?;
    if used == minimum || used.starts_with(&format!("{minimum}.")) {
        println!("everything here is built by Rust {used}, which is the rust-version itself");
        return Ok(Outcome::Passed);
    }
    if cmd!(sh, "rustup run {minimum} rustc --version")
        .quiet()
        .ignore_stderr()
        .read()
        .is_err()
    {
        return Ok(Outcome::NotRun(format!(
            "this is Rust {used}; rustup toolchain install --profile minimal {minimum}"
        )));
    }
    let plus = format!("+{minimum}");
    cmd!(
        sh,
        "cargo {plus} check --locked --release --workspace --all-targets"
    )
    .run()?;
    Ok(Outcome::Passed)
}

fn tests(project: &Project) -> Result<Outcome> {
    let sh = &project.sh;
    let messages = cmd!(
        sh,
        "cargo test --locked --release --workspace --no-run --message-format json-render-diagnostics"
    )
    .read()?;
    ensure_tract_is_shared(&messages)?;
    let kernels = native_kernels();
    // What tests print (kernels that ran, figures, what could not run) belongs in the log of a passing run too.
    cmd!(
        sh,
        "cargo test --locked --release --workspace -- --show-output"
    )
    .envs(kernels.map(|names| ("VITLET_EXPECT_KERNELS", names)))
    .run()?;
    Ok(Outcome::Passed)
}

/// tract takes minutes: the programs' build of it must serve the tests. It would not if a test's dependency enabled a
/// feature in tract's tree that the programs do without.
fn ensure_tract_is_shared(messages: &str) -> Result<()> {
    for line in messages.lines() {
        let message: serde_json::Value = serde_json::from_str(line)?;
        let package = message
            .get("package_id")
            .and_then(serde_json::Value::as_str)
            .unwrap_or_default();
        let built_again = message.get("fresh").and_then(serde_json::Value::as_bool) == Some(false);
        ensure!(
            !(built_again && package.contains("tract-core@")),
            "the tests built {package} a second time: compare `cargo tree --edges features` for \
             `--package vitlet-cli` and `--workspace`"
        );
    }
    Ok(())
}

/// What this machine's tests must have run, where that is known: by the CPU's features, not by what the library makes of them.
fn native_kernels() -> Option<String> {
    #[cfg(target_arch = "x86_64")]
    {
        use std::arch::is_x86_feature_detected as has;
        let avx2 = has!("avx2");
        let avx512 = has!("avx512f") && has!("avx512bw") && has!("avx512vl");
        let kernels = [
            ("scalar", true),
            ("avx2", avx2),
            ("avx-vnni", avx2 && has!("avxvnni")),
            (
                "avx512-vnni",
                avx2 && avx512 && has!("avx512vnni") && has!("avx512vbmi"),
            ),
        ];
        let names = kernels
            .iter()
            .filter_map(|&(name, there)| there.then_some(name));
        Some(names.collect::<Vec<_>>().join(","))
    }
    #[cfg(not(target_arch = "x86_64"))]
    None
}

/// The crates of the boards, tested for aarch64 on one of its CPUs.
fn tests_on(project: &Project, cpu: &Cpu, full: bool) -> Result<Outcome> {
    let packages = if full { &NO_STD } else { cpu.packages };
    device_tests(project, cpu, packages, "vitlet-kernels/std")
}

/// The kernels as the firmware has them: less code, the same bytes. One CPU that has every kernel.
fn small_kernels(project: &Project) -> Result<Outcome> {
    let [.., cpu] = CPUS;
    let features = "vitlet-kernels/std,vitlet-kernels/small";
    device_tests(project, &cpu, &["vitlet-kernels"], features)
}

fn device_tests(
    project: &Project,
    cpu: &Cpu,
    packages: &[&str],
    features: &str,
) -> Result<Outcome> {
    let sh = &project.sh;
    let toolchain = Toolchain::with_library(sh, DEVICE).context("setup found one")?;
    let plus = toolchain.plus();
    let packages = packages.iter().flat_map(|package| ["--package", package]);
    cmd!(
        sh,
        "cargo {plus...} test --locked --release --target {DEVICE} {packages...} --features {features} --lib --tests"
    )
    .env("VITLET_QEMU_CPU", cpu.name)
    .env("VITLET_EXPECT_KERNELS", cpu.kernels)
    .run()?;
    Ok(Outcome::Passed)
}

fn dependencies(project: &Project) -> Result<Outcome> {
    cmd!(
        project.sh,
        "cargo deny --locked check bans licenses sources"
    )
    .run()?;
    Ok(Outcome::Passed)
}

fn fuzzing(project: &Project) -> Result<Outcome> {
    let sh = &project.sh;
    // Sanitizers are unstable; the targets themselves are stable code.
    let fuzz = |args: &[&str]| {
        cmd!(sh, "cargo fuzz {args...}")
            .env("RUSTC_BOOTSTRAP", "1")
            .env("CARGO_TARGET_DIR", project.target.join("fuzz"))
    };
    let targets = fuzz(&["list", "--fuzz-dir", "fuzz"]).read()?;
    ensure!(
        !targets.trim().is_empty(),
        "fuzz/Cargo.toml lists no target"
    );
    for target in targets.lines() {
        fuzz(&[
            "run",
            "--fuzz-dir",
            "fuzz",
            target,
            "--",
            "-max_total_time=30",
        ])
        .run()?;
    }
    Ok(Outcome::Passed)
}

/// The steps so far.
struct Steps<'a> {
    project: &'a Project,
    /// What setup could not install.
    missing: Vec<Tool>,
    rows: Vec<Row>,
}

struct Row {
    name: &'static str,
    result: Passing,
    time: Duration,
}

enum Passing {
    Passed,
    Failed,
    NotRun(String),
}

impl Steps<'_> {
    /// Runs one step unless a tool it needs is missing.
    fn run(
        &mut self,
        name: &'static str,
        needs: &[Tool],
        step: impl FnOnce() -> Result<Outcome>,
    ) -> Result<()> {
        println!("\n== {name}");
        let start = Instant::now();
        let missing = needs.iter().find(|tool| self.missing.contains(tool));
        let outcome = match missing {
            Some(tool) => Ok(Outcome::NotRun(format!("no {}", tool.name()))),
            None => step(),
        };
        let (result, done) = match outcome {
            Ok(Outcome::Passed) => (Passing::Passed, Ok(())),
            Ok(Outcome::NotRun(why)) if self.project.ci => (
                Passing::Failed,
                Err(anyhow::anyhow!("not run ({why}), which is a failure in CI")),
            ),
            Ok(Outcome::NotRun(why)) => (Passing::NotRun(why), Ok(())),
            Err(error) => (Passing::Failed, Err(error)),
        };
        self.rows.push(Row {
            name,
            result,
            time: start.elapsed(),
        });
        done.with_context(|| format!("step '{name}'"))
    }

    fn print_summary(&self) {
        let (mut passed, mut failed, mut not_run) = (0, 0, 0);
        println!("\n{:<24} {:>8}  result", "step", "seconds");
        for Row { name, result, time } in &self.rows {
            let result = match result {
                Passing::Passed => {
                    passed += 1;
                    "passed".to_owned()
                }
                Passing::Failed => {
                    failed += 1;
                    "FAILED; the steps after it were not run".to_owned()
                }
                Passing::NotRun(why) => {
                    not_run += 1;
                    format!("not run: {why}")
                }
            };
            println!("{name:<24} {:>8.1}  {result}", time.as_secs_f64());
        }
        println!("steps: {passed} passed, {failed} failed, {not_run} skipped");
    }
}
