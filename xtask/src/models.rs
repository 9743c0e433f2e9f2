//! `cargo xtask models`: every network of `models/vitlet_models`, exported, compiled, compared and counted, and the page that says
//! what came out, `docs/models.md`.
//!
//! Each model's figures lie in a file of their own beside its ONNX file and plan, so that a run that was stopped goes on where it was.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, bail, ensure};
use serde::{Deserialize, Serialize};
use xshell::cmd;

use crate::dist;
use crate::insns::Counter;
use crate::project::Project;
use crate::test_models;

const PAGE: &str = "docs/models.md";
/// What the specs count.
const SPECS: &str = "models/macs.toml";
/// Photos that ranges are measured on, and others on which int8 is compared with f32.
const CALIBRATION: &str = "8";
const COMPARED: &str = "4";
const CLASSES: usize = 1000;
/// Most that the compiler's MACs may differ from the spec's.
const MACS_PERCENT: f64 = 1.0;
const CPU: &str = "cortex-a76";

/// Export, compile, compare and count every network of models/vitlet_models, and write docs/models.md.
///
/// Takes most of an hour and five gigabytes of disk; a run that was stopped goes on where it was. Needs PyTorch, which is had as
/// `test-models` has it, and QEMU.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Where ONNX files, plans and figures lie [default: models-zoo under the target folder]
    #[arg(long)]
    dir: Option<PathBuf>,
    /// Only these networks; the page is written if the others have figures already.
    #[arg(long, value_name = "NAME", num_args = 1..)]
    only: Vec<String>,
    /// Make figures anew; ONNX files are kept.
    #[arg(long)]
    force: bool,
}

/// A network, as the Python package lists it.
#[derive(Debug, PartialEq, Eq)]
struct Network {
    name: String,
    family: String,
    parameters: u64,
    input: String,
}

/// What is known of a model once it has been through everything.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Figures {
    compiled: Compiled,
    compared: Compared,
    /// Of one inference.
    instructions: u64,
}

/// Of `vitlet compile --json`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct Compiled {
    macs: u64,
    plan_bytes: u64,
    arena_bytes: u64,
    float_ops: usize,
    copies: usize,
    ops: BTreeMap<String, usize>,
    lowering: Lowering,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct Lowering {
    worst: f64,
    cascade: f64,
}

/// Of `vitlet compare --layers --json`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct Compared {
    output: Output,
    layers: Vec<Layer>,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct Output {
    sqnr_db: Option<f64>,
    cosine: Option<f64>,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct Layer {
    name: String,
    kind: String,
    dtype: String,
    sqnr_db: Option<f64>,
}

pub(crate) fn verb(project: &Project, args: &Args) -> Result<()> {
    let sh = &project.sh;
    let dir = args
        .dir
        .as_ref()
        .map(|dir| std::env::current_dir().unwrap_or_default().join(dir));
    let networks = networks(project)?;
    let specs = Specs::parse(&sh.read_file(SPECS)?)?;
    let chosen = choose(&networks, &args.only)?;
    let work = Work::new(project, dir)?;
    let counter = Counter::new(project)?;
    let mut failed = Vec::new();
    for (index, network) in chosen.iter().enumerate() {
        let name = &network.name;
        println!("== {name} ({} of {})", index + 1, chosen.len());
        if !args.force && work.path(name, "json").is_file() {
            println!("{name}: has figures already (--force makes them anew)");
        } else if let Err(error) = work.run(name, &counter) {
            println!("{name}: FAILED: {error:#}");
            failed.push(format!("{name}: failed"));
        }
    }
    let rows = work.rows(&networks)?;
    let all_known = rows.iter().all(|row| row.figures.is_some());
    if args.only.is_empty() || all_known {
        sh.write_file(project.root.join(PAGE), page(&rows, &specs)?)?;
        println!("{PAGE}: written");
    } else {
        println!(
            "{PAGE}: not written, because some networks have no figures yet; run it without --only"
        );
    }
    failed.extend(rows.iter().flat_map(|row| row.faults(&specs)));
    ensure!(failed.is_empty(), "{}", failed.join("; "));
    Ok(())
}

/// A plan and what it is called.
pub(crate) type Named = (String, PathBuf);

/// Families that the zoo has no model of, as `python -m vitlet_models` names them. Their weights are random: what is executed hardly
/// depends on them, and memory not at all.
const NOT_IN_THE_ZOO: [&str; 2] = ["swin_tiny_w7_224", "dualvit_s"];

/// The plans that budgets are about: the zoo's and, with `all`, one of each other family. What lies under the target folder from the
/// last time is used if it is not older than what it was made from.
pub(crate) fn plans(project: &Project, all: bool) -> Result<Vec<Named>> {
    let zoo = project.zoo()?.into_iter();
    let mut plans: Vec<Named> = zoo
        .map(|model| (model.name.clone(), model.plan()))
        .collect();
    if all {
        let work = Work::new(project, None)?;
        for name in NOT_IN_THE_ZOO {
            let plan = work.fresh_plan(name).with_context(|| name.to_owned())?;
            plans.push((name.to_owned(), plan));
        }
    }
    Ok(plans)
}

/// The networks that were asked for: all, or those named.
fn choose<'n>(networks: &'n [Network], only: &[String]) -> Result<Vec<&'n Network>> {
    if let Some(unknown) = only
        .iter()
        .find(|name| networks.iter().all(|network| network.name != **name))
    {
        let names: Vec<&str> = networks.iter().map(|network| &*network.name).collect();
        bail!("--only {unknown}: there are {}", names.join(", "));
    }
    let wanted = |network: &&Network| only.is_empty() || only.contains(&network.name);
    Ok(networks.iter().filter(wanted).collect())
}

fn networks(project: &Project) -> Result<Vec<Network>> {
    let python = test_models::environment(project)?;
    let _folder = project.sh.push_dir("models");
    let listed = cmd!(project.sh, "{python} -m vitlet_models list").read()?;
    parse_list(&listed)
}

/// Reads what `python -m vitlet_models list` prints: a heading, then name, family, parameters with commas, input size.
fn parse_list(listed: &str) -> Result<Vec<Network>> {
    let network = |line: &str| -> Option<Network> {
        let mut words = line.split_whitespace().map(str::to_owned);
        let (name, family) = (words.next()?, words.next()?);
        let parameters = words.next()?.replace(',', "").parse().ok()?;
        Some(Network {
            name,
            family,
            parameters,
            input: words.next()?,
        })
    };
    let networks: Vec<Network> = listed.lines().skip(1).map_while(network).collect();
    ensure!(
        !networks.is_empty(),
        "python -m vitlet_models list printed '{listed}'"
    );
    Ok(networks)
}

/// By network, billions of multiply-accumulates.
struct Specs(BTreeMap<String, f64>);

impl Specs {
    fn parse(text: &str) -> Result<Self> {
        let families: BTreeMap<String, BTreeMap<String, f64>> =
            toml::from_str(text).context(SPECS)?;
        Ok(Self(families.into_values().flatten().collect()))
    }

    fn gmacs(&self, name: &str) -> Result<f64> {
        let gmacs = self.0.get(name).copied();
        gmacs.with_context(|| format!("{SPECS} has no {name}"))
    }
}

/// What one model is put through.
struct Work<'a> {
    project: &'a Project,
    dir: PathBuf,
    program: PathBuf,
}

impl<'a> Work<'a> {
    /// In `dir`, or under the target folder.
    fn new(project: &'a Project, dir: Option<PathBuf>) -> Result<Self> {
        let dir = dir.unwrap_or_else(|| project.target.join("models-zoo"));
        project.sh.create_dir(&dir)?;
        let work = Self {
            project,
            dir,
            program: dist::native(project)?,
        };
        work.prepare_photos()?;
        Ok(work)
    }

    fn path(&self, name: &str, extension: &str) -> PathBuf {
        self.dir.join(format!("{name}.{extension}"))
    }

    /// Half of the samples to calibrate on, in one class folder as `vitlet compile` wants them, with labels that are no names; and
    /// the other half to compare on.
    fn prepare_photos(&self) -> Result<()> {
        let sh = &self.project.sh;
        let folders = [
            sh.create_dir(self.dir.join("calibration/samples"))?,
            sh.create_dir(self.dir.join("comparison"))?,
        ];
        let mut photos = sh.read_dir("models/samples")?;
        photos.retain(|path| path.extension().is_some_and(|extension| extension == "jpg"));
        for (photo, folder) in photos.iter().zip(folders.iter().cycle()) {
            sh.copy_file(photo, folder)?;
        }
        let labels: Vec<String> = (0..CLASSES).map(|class| class.to_string()).collect();
        sh.write_file(self.dir.join("labels.txt"), labels.join("\n"))?;
        Ok(())
    }

    /// A plan that this compiler made from today's ONNX file.
    fn fresh_plan(&self, name: &str) -> Result<PathBuf> {
        let (onnx, plan) = (self.path(name, "onnx"), self.path(name, "vitlet"));
        let sources = self.project.sh.read_dir("models/vitlet_models")?;
        if !is_newer(&onnx, &sources)? {
            self.project.sh.remove_path(&onnx)?;
            self.export(name)?;
        }
        if !is_newer(&plan, &[onnx, self.program.clone()])? {
            println!("{name}: compiling");
            self.compile(name)?;
        }
        Ok(plan)
    }

    fn run(&self, name: &str, counter: &Counter<'_>) -> Result<()> {
        self.export(name)?;
        println!("{name}: compiling");
        let compiled = self.compile(name)?;
        println!("{name}: comparing with f32");
        let compared = self.compare(name)?;
        println!("{name}: counting instructions");
        let count = counter.one_inference(&self.path(name, "vitlet"), CPU)?;
        let figures = Figures {
            compiled,
            compared,
            instructions: count.instructions,
        };
        let text = serde_json::to_string_pretty(&figures)?;
        self.whole(&self.path(name, "json"), |part| {
            Ok(self.project.sh.write_file(part, text)?)
        })
    }

    /// A file that is there is whole: it is written under another name first.
    fn whole(&self, path: &Path, write: impl FnOnce(&Path) -> Result<()>) -> Result<()> {
        let part = path.with_extension("part");
        write(&part)?;
        std::fs::rename(&part, path).with_context(|| path.display().to_string())
    }

    fn export(&self, name: &str) -> Result<()> {
        let onnx = self.path(name, "onnx");
        if onnx.is_file() {
            return Ok(());
        }
        println!("{name}: exporting");
        let (sh, python) = (&self.project.sh, test_models::environment(self.project)?);
        let _folder = sh.push_dir("models");
        self.whole(&onnx, |part| {
            Ok(cmd!(sh, "{python} -m vitlet_models export {name} -o {part}").run()?)
        })
    }

    /// The compiler itself checks every layer against f32, and refuses to go on above its limit.
    fn compile(&self, name: &str) -> Result<Compiled> {
        let Self { dir, program, .. } = self;
        let (onnx, plan) = (self.path(name, "onnx"), self.path(name, "vitlet"));
        let (photos, labels) = (dir.join("calibration"), dir.join("labels.txt"));
        let printed = cmd!(
            self.project.sh,
            "{program} compile {onnx} -o {plan} --calib {photos} --calib-count {CALIBRATION} --labels {labels} --name {name} --json"
        )
        .read()?;
        let compiled: Compiled = serde_json::from_str(&printed)
            .with_context(|| format!("vitlet compile --json printed '{printed}'"))?;
        println!(
            "{name}: lowering: worst {:.1e}, in a row {:.1e}; {} ops on floats, {} that copy",
            compiled.lowering.worst, compiled.lowering.cascade, compiled.float_ops, compiled.copies
        );
        Ok(compiled)
    }

    fn compare(&self, name: &str) -> Result<Compared> {
        let Self { dir, program, .. } = self;
        let (onnx, plan) = (self.path(name, "onnx"), self.path(name, "vitlet"));
        let photos = dir.join("comparison");
        let printed = cmd!(
            self.project.sh,
            "{program} compare {onnx} {plan} --inputs {photos} --limit {COMPARED} --layers --json"
        )
        .read()?;
        serde_json::from_str(&printed)
            .with_context(|| format!("vitlet compare --json printed '{printed}'"))
    }

    fn rows<'n>(&self, networks: &'n [Network]) -> Result<Vec<Row<'n>>> {
        let row = |network: &'n Network| -> Result<Row<'n>> {
            let path = self.path(&network.name, "json");
            let figures = if path.is_file() {
                let text = self.project.sh.read_file(&path)?;
                let parsed = serde_json::from_str(&text);
                Some(parsed.with_context(|| {
                    format!(
                        "{}: not the figures of this version; use --force",
                        path.display()
                    )
                })?)
            } else {
                None
            };
            Ok(Row { network, figures })
        };
        networks.iter().map(row).collect()
    }
}

/// Whether a file is there and was written after all of `sources`.
fn is_newer(path: &Path, sources: &[PathBuf]) -> Result<bool> {
    if !path.is_file() {
        return Ok(false);
    }
    let modified = |path: &Path| -> Result<_> {
        let modified = path.metadata().and_then(|data| data.modified());
        modified.with_context(|| path.display().to_string())
    };
    let written = modified(path)?;
    for source in sources {
        if source.is_file() && modified(source)? > written {
            return Ok(false);
        }
    }
    Ok(true)
}

/// A line of the page.
struct Row<'n> {
    network: &'n Network,
    figures: Option<Figures>,
}

impl Row<'_> {
    /// What must not be.
    fn faults(&self, specs: &Specs) -> Vec<String> {
        let Some(Figures { compiled, .. }) = &self.figures else {
            return Vec::new();
        };
        let name = &self.network.name;
        let mut faults = Vec::new();
        match specs.gmacs(name) {
            Ok(gmacs) => {
                let percent = percent(compiled.macs, gmacs);
                if percent.abs() > MACS_PERCENT {
                    faults.push(format!("{name}: MACs are {percent:+.2} % off the spec's"));
                }
            }
            Err(error) => faults.push(error.to_string()),
        }
        if (compiled.float_ops, compiled.copies) != (0, 0) {
            faults.push(format!(
                "{name}: {} ops on floats, {} that copy",
                compiled.float_ops, compiled.copies
            ));
        }
        faults
    }
}

/// How much more the compiler counts, in percent.
fn percent(macs: u64, spec_gmacs: f64) -> f64 {
    100.0 * (macs as f64 / (spec_gmacs * 1e9) - 1.0)
}

fn page(rows: &[Row<'_>], specs: &Specs) -> Result<String> {
    let mut page = format!(
        "\
# Models

Written by `cargo xtask models`; do not edit.

The four families in every variant that `python -m vitlet_models` exports, through `vitlet compile`. **The weights are random** (seed
0), of sizes that keep activations at usual sizes: file sizes and counts are those of the real networks, but SQNR says only that int8
follows the f32 network, not what accuracy a trained one has. Ranges are of {CALIBRATION} photos of `models/samples`.

* *MACs*: multiply-accumulates of one inference, as the plan has them; *spec* is what the network's description counts
  (`{SPECS}`), and the difference may be at most {MACS_PERCENT} %.
* *plan*, *arena*: bytes of the file, and of all memory of an inference on one thread.
* *SQNR*: of the logits, int8 against f32 on {COMPARED} other photos (`vitlet compare`), and of the median and the lowest layer.
* *instructions*: of one inference on one thread of a {CPU}, counted by QEMU (`cargo xtask insns`).

| model | input | parameters | MACs (M) | spec (M) | plan (MB) | arena (MB) | SQNR (dB) | layers' SQNR (dB) | instructions (M) |
|---|---|---:|---:|---:|---:|---:|---:|---:|---:|
"
    );
    for row in rows {
        size_line(&mut page, row, specs)?;
    }
    page += "
What the plans are made of. Every op works on integers, and no op only moves data: windows, shifts, patch merging and concatenations
are addresses.

| model | ops | kinds | on floats | copies | worst lowering |
|---|---:|---|---:|---:|---:|
";
    for row in rows {
        ops_line(&mut page, row)?;
    }
    page += "
*Worst lowering*: the largest difference of a lowered layer, in f32 and fed the reference's inputs, from tract's result, relative to the
largest value; the compiler refuses more than 1e-4.
";
    Ok(page)
}

fn size_line(page: &mut String, row: &Row<'_>, specs: &Specs) -> Result<()> {
    let Network {
        name,
        parameters,
        input,
        ..
    } = row.network;
    let spec = specs.gmacs(name)?;
    write!(page, "| {name} | {input} | {} |", grouped(*parameters))?;
    let Some(figures) = &row.figures else {
        writeln!(page, " not compiled | {:.0} | | | | | |", spec * 1e3)?;
        return Ok(());
    };
    let Figures {
        compiled, compared, ..
    } = figures;
    let (median, lowest) = layer_ratios(&compared.layers);
    writeln!(
        page,
        " {} | {} ({:+.2} %) | {:.1} | {:.1} | {} | {}, {} | {} |",
        grouped(millions(compiled.macs)),
        grouped((spec * 1e3).round() as u64),
        percent(compiled.macs, spec),
        compiled.plan_bytes as f64 / 1e6,
        compiled.arena_bytes as f64 / 1e6,
        decibels(compared.output.sqnr_db),
        decibels(median),
        decibels(lowest),
        grouped(millions(figures.instructions)),
    )?;
    Ok(())
}

fn ops_line(page: &mut String, row: &Row<'_>) -> Result<()> {
    let Some(Figures { compiled, .. }) = &row.figures else {
        return Ok(());
    };
    let kinds: Vec<String> = compiled
        .ops
        .iter()
        .map(|(kind, count)| format!("{count} {kind}"))
        .collect();
    writeln!(
        page,
        "| {} | {} | {} | {} | {} | {:.1e} |",
        row.network.name,
        compiled.ops.values().sum::<usize>(),
        kinds.join(", "),
        compiled.float_ops,
        compiled.copies,
        compiled.lowering.worst
    )?;
    Ok(())
}

/// The median and the lowest of the layers' SQNR.
fn layer_ratios(layers: &[Layer]) -> (Option<f64>, Option<f64>) {
    let mut ratios: Vec<f64> = layers.iter().filter_map(|layer| layer.sqnr_db).collect();
    ratios.sort_by(f64::total_cmp);
    (
        ratios.get(ratios.len() / 2).copied(),
        ratios.first().copied(),
    )
}

fn decibels(ratio: Option<f64>) -> String {
    ratio.map_or_else(|| "–".to_owned(), |ratio| format!("{ratio:.1}"))
}

fn millions(count: u64) -> u64 {
    (count + 500_000) / 1_000_000
}

/// 566123 as `566 123`.
fn grouped(count: u64) -> String {
    let digits = count.to_string();
    let mut text = String::new();
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            text.push(' ');
        }
        text.push(digit);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIST: &str = "\
name                 family     parameters  input
sepvit_lite          SepViT      3,661,128  224x224
swin_base_w12_384    Swin       87,903,584  384x384
";

    fn figures(macs: u64) -> Figures {
        let layer = |sqnr_db| Layer {
            name: "a".to_owned(),
            kind: "linear".to_owned(),
            dtype: "s8".to_owned(),
            sqnr_db,
        };
        Figures {
            compiled: Compiled {
                macs,
                plan_bytes: 3_700_000,
                arena_bytes: 1_850_000,
                float_ops: 0,
                copies: 0,
                ops: BTreeMap::from([("conv".to_owned(), 3), ("linear".to_owned(), 2)]),
                lowering: Lowering {
                    worst: 2.5e-6,
                    cascade: 1e-5,
                },
            },
            compared: Compared {
                output: Output {
                    sqnr_db: Some(31.25),
                    cosine: Some(0.999),
                },
                layers: [Some(40.0), None, Some(20.0), Some(30.0)].map(layer).into(),
            },
            instructions: 76_400_000,
        }
    }

    #[test]
    fn the_list_is_read() {
        let networks = parse_list(LIST).unwrap_or_default();
        assert_eq!(networks.len(), 2);
        assert_eq!(
            (&*networks[0].name, networks[0].parameters),
            ("sepvit_lite", 3_661_128)
        );
        assert_eq!(
            (&*networks[1].family, &*networks[1].input),
            ("Swin", "384x384")
        );
        assert!(parse_list("error\n").is_err());
        let chosen = |only: &[&str]| {
            let only: Vec<String> = only.iter().map(|&name| name.to_owned()).collect();
            choose(&networks, &only).map(|chosen| chosen.len()).ok()
        };
        assert_eq!(
            (chosen(&[]), chosen(&["sepvit_lite"]), chosen(&["x"])),
            (Some(2), Some(1), None)
        );
    }

    #[test]
    fn the_page_has_every_network() {
        let networks = parse_list(LIST).unwrap_or_default();
        let specs = Specs(BTreeMap::from([
            ("sepvit_lite".to_owned(), 0.568),
            ("swin_base_w12_384".to_owned(), 47.08),
        ]));
        let row = |figures| Row {
            network: &networks[0],
            figures,
        };
        let rows = [
            row(Some(figures(569_136_000))),
            Row {
                network: &networks[1],
                figures: None,
            },
        ];
        let page = page(&rows, &specs).unwrap_or_default();
        for part in [
            "| sepvit_lite | 224x224 | 3 661 128 | 569 | 568 (+0.20 %) | 3.7 | 1.9 | 31.2 | 30.0, 20.0 | 76 |",
            "| sepvit_lite | 5 | 3 conv, 2 linear | 0 | 0 | 2.5e-6 |",
            "| swin_base_w12_384 | 384x384 | 87 903 584 | not compiled | 47080 |",
            "**The weights are random**",
        ] {
            assert!(page.contains(part), "no '{part}' in {page}");
        }
        assert!(rows.iter().all(|row| row.faults(&specs).is_empty()));
        assert_eq!(row(Some(figures(574_000_000))).faults(&specs).len(), 1);
        let mut copying = figures(568_000_000);
        copying.compiled.copies = 2;
        assert_eq!(row(Some(copying)).faults(&specs).len(), 1);
    }

    #[test]
    fn the_specs_table_is_complete() {
        let specs = Specs::parse(include_str!("../../models/macs.toml"));
        let count = specs.map(|specs| specs.0.len()).ok();
        assert_eq!(count, Some(20));
    }
}
