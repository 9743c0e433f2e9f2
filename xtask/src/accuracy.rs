//! `cargo xtask accuracy`: every model of the zoo, calibrated by every method, beside itself in f32, and the page that says what came
//! out, `docs/accuracy.md`.
//!
//! The program `accuracy-table` of the crate `vitlet-tests` does the work, and knows where photos are and what may be lost. A model's
//! figures lie in a file under `target/accuracy`, so that only what is new is measured.

mod page;

use std::path::PathBuf;

use anyhow::{Context as _, Result, bail, ensure};
use serde::{Deserialize, Serialize};
use xshell::cmd;

use crate::cache;
use crate::machine::Machine;
use crate::project::{Project, ZooModel};

const PAGE: &str = "docs/accuracy.md";

/// Measure what each method of calibration costs on the zoo's models, and write docs/accuracy.md.
///
/// Takes the data sets beside the checkout, or those of VITLET_DATA, and for each model some minutes on two cores. Figures are kept
/// under target/accuracy until the model or the checked-in plan changes.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  cargo xtask accuracy
  cargo xtask accuracy --photos 100                    a quick look; the page says so
  cargo xtask accuracy --models pvt_v2_b0_trashnet --force")]
pub(crate) struct Args {
    /// Measure only these models; the page is written if the others have figures already.
    #[arg(long, value_name = "NAME", num_args = 1..)]
    models: Vec<String>,
    /// Look at N validation photos of each model instead of all.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    photos: Option<u32>,
    /// Measure anew what is known, as after a change of calibration.
    #[arg(long)]
    force: bool,
}

/// A row of the page: a plan that `vitlet compile` makes with these options.
struct Method {
    name: &'static str,
    options: &'static str,
    says: &'static str,
}

/// All of them; the first is what is to be beaten.
const METHODS: [Method; 9] = [
    Method {
        name: "naive",
        options: "--method naive",
        says: "min-max for everything: the range is all that was seen, one scale for all output channels of a layer's weights and for all \
               heads of an attention, biases left as they are",
    },
    Method {
        name: "minmax",
        options: "--method minmax",
        says: "the range is all that was seen; weights have a scale per output channel and attention one per head, as in all rows below",
    },
    Method {
        name: "percentile",
        options: "--method percentile",
        says: "all but 0.01 % of the numbers at either end",
    },
    Method {
        name: "entropy",
        options: "--method entropy",
        says: "the range that loses the least information (Kullback-Leibler divergence), as TensorRT chooses it",
    },
    Method {
        name: "auto",
        options: "--method auto",
        says: "for each tensor the one of the others that does best on photos that are held out",
    },
    Method {
        name: UNCORRECTED,
        options: "--no-bias-correction",
        says: "the default, but for its bias correction",
    },
    Method {
        name: UNFOLDED,
        options: "--no-norm-folding",
        says: "the default, but with one scale for all channels of a layer norm's result",
    },
    Method {
        name: DEFAULT,
        options: "",
        says: "the range with the least squared error; then what the plan shifts each layer's results by on the calibration photos is \
               taken off its bias, where that helps on photos that are held out (as in all rows but naive and the one that says so). The \
               channels of a layer norm's result have scales of their own, where that helps",
    },
    Method {
        name: MIXED,
        options: "--mixed auto",
        says: "the default, and the tensors that gain most in 16 bits have them, for at most 10 % more multiply-accumulates",
    },
];
const DEFAULT: &str = "mse (default)";
const UNCORRECTED: &str = "mse, biases as they are";
const UNFOLDED: &str = "mse, norms with one scale";
const MIXED: &str = "mse, 10 % in 16 bits";
/// The row after those of the methods.
const CHECKED_IN: &str = "checked in";

/// What is known of a model.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Figures {
    /// Of the model, the checked-in plan and what was asked for.
    key: String,
    date: String,
    /// Of vitlet.
    commit: String,
    machine: Machine,
    set: Set,
    /// In the order of [`METHODS`], and [`CHECKED_IN`].
    rows: Vec<Row>,
}

/// What the plans are judged by.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Set {
    /// All there are.
    photos: usize,
    bounds: String,
}

/// What came out for a plan.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Row {
    /// That were looked at.
    photos: usize,
    /// On which the plan is right, and the model in f32.
    hits: usize,
    hits_f32: usize,
    agreeing: usize,
    sqnr_db: Option<f64>,
    /// Why it is not within the bounds.
    fault: Option<String>,
}

pub(crate) fn verb(project: &Project, args: &Args) -> Result<()> {
    let zoo = project.zoo()?;
    check_names(&zoo, &args.models)?;
    let work = Work::new(project, args)?;
    for model in &zoo {
        let name = &model.name;
        let wanted = args.models.is_empty() || args.models.contains(name);
        if wanted && (args.force || work.known(model)?.is_none()) {
            println!("== {name}");
            work.measure(model)?;
        }
    }
    let known = zoo
        .iter()
        .map(|model| Ok((&*model.name, work.known(model)?)));
    let known = known.collect::<Result<Vec<_>>>()?;
    let all: Option<Vec<_>> = known
        .into_iter()
        .map(|(name, figures)| Some((name, figures?)))
        .collect();
    let Some(all) = all else {
        println!(
            "{PAGE}: not written, because some models have no figures yet; run it without --models"
        );
        return Ok(());
    };
    project
        .sh
        .write_file(project.root.join(PAGE), page::page(&all, args.photos)?)?;
    println!("{PAGE}: written");
    let faults: Vec<String> = all.iter().filter_map(fault).collect();
    ensure!(faults.is_empty(), "{}", faults.join("; "));
    Ok(())
}

/// Why a model's checked-in plan is not within its bounds.
fn fault((name, figures): &(&str, Figures)) -> Option<String> {
    let fault = figures.rows.last()?.fault.as_ref()?;
    Some(format!("{name}: {fault}"))
}

fn check_names(zoo: &[ZooModel], asked: &[String]) -> Result<()> {
    let known = |name: &&String| zoo.iter().any(|model| model.name == **name);
    if let Some(unknown) = asked.iter().find(|name| !known(name)) {
        let names: Vec<&str> = zoo.iter().map(|model| &*model.name).collect();
        bail!("--models {unknown}: there are {}", names.join(", "));
    }
    Ok(())
}

/// How models are measured in this run.
struct Work<'a> {
    project: &'a Project,
    /// As the program takes it: a number, or `all`.
    photos: String,
    folder: PathBuf,
    program: PathBuf,
    measuring: PathBuf,
}

impl<'a> Work<'a> {
    fn new(project: &'a Project, args: &Args) -> Result<Self> {
        println!("this machine's programs (on a clean checkout tract takes some minutes):");
        // Both packages at once: alone, the tests would have tract built with other features.
        cmd!(
            project.sh,
            "cargo build --locked --release --package vitlet-cli --package vitlet-tests --bin vitlet --bin accuracy-table"
        )
        .run()?;
        let release = project.target.join("release");
        Ok(Self {
            project,
            photos: args
                .photos
                .map_or_else(|| "all".to_owned(), |n| n.to_string()),
            folder: project.sh.create_dir(project.target.join("accuracy"))?,
            program: release.join("vitlet"),
            measuring: release.join("accuracy-table"),
        })
    }

    fn path(&self, model: &ZooModel) -> PathBuf {
        let file = format!("{}-{}.json", model.name, self.photos);
        self.folder.join(file)
    }

    /// What figures are about: they are worth nothing for another model, other photos or other methods.
    fn key(&self, model: &ZooModel) -> Result<String> {
        let files = cache::key(&[model.onnx(), model.plan()])?;
        let options = METHODS.map(|method| method.options).join("; ");
        Ok(format!("{files} {} photos: {options}", self.photos))
    }

    /// A model's figures, if they are about what it is now.
    fn known(&self, model: &ZooModel) -> Result<Option<Figures>> {
        let path = self.path(model);
        if !path.is_file() {
            return Ok(None);
        }
        // Of another version of this program: to be measured anew.
        let figures: Option<Figures> = serde_json::from_str(&self.project.sh.read_file(path)?).ok();
        let key = self.key(model)?;
        Ok(figures.filter(|figures| figures.key == key))
    }

    fn measure(&self, model: &ZooModel) -> Result<()> {
        let Self {
            program,
            measuring,
            photos,
            project,
            ..
        } = self;
        let (name, onnx, plan) = (&model.name, model.onnx(), model.plan());
        let options = METHODS.map(|method| method.options);
        let printed = cmd!(
            project.sh,
            "{measuring} {name} {onnx} {photos} {options...} {plan}"
        )
        .env("VITLET_BIN", program)
        .read()?;
        let (set, rows) = parse(&printed)?;
        let sh = &project.sh;
        let figures = Figures {
            key: self.key(model)?,
            date: cmd!(sh, "date -u +%Y-%m-%d").quiet().read()?,
            commit: cmd!(sh, "git rev-parse --short HEAD").quiet().read()?,
            machine: Machine::this(project)?,
            set,
            rows,
        };
        // Whole or not at all.
        let (path, part) = (self.path(model), self.path(model).with_extension("part"));
        sh.write_file(&part, serde_json::to_string_pretty(&figures)?)?;
        std::fs::rename(&part, &path).with_context(|| path.display().to_string())
    }
}

/// What the measuring program prints: a line about the set, and one per plan.
fn parse(printed: &str) -> Result<(Set, Vec<Row>)> {
    let context = || format!("accuracy-table printed '{printed}'");
    let mut lines = printed.lines();
    let set = serde_json::from_str(lines.next().unwrap_or_default()).with_context(context)?;
    let rows = lines
        .map(serde_json::from_str)
        .collect::<Result<Vec<Row>, _>>();
    let rows = rows.with_context(context)?;
    ensure!(rows.len() == METHODS.len() + 1, "{}", context());
    Ok((set, rows))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_models_of_the_zoo_can_be_asked_for() {
        let zoo = ["a_trashnet", "b_trashnet"].map(|name| ZooModel {
            name: name.to_owned(),
            folder: PathBuf::new(),
        });
        let asked = |names: &[&str]| {
            let names: Vec<String> = names.iter().map(|&name| name.to_owned()).collect();
            check_names(&zoo, &names).map_err(|error| error.to_string())
        };
        assert_eq!(asked(&[]), Ok(()));
        assert_eq!(asked(&["b_trashnet"]), Ok(()));
        let error = "--models c: there are a_trashnet, b_trashnet".to_owned();
        assert_eq!(asked(&["a_trashnet", "c"]), Err(error));
    }

    #[test]
    fn a_plan_that_is_not_there_is_an_error() -> Result<()> {
        let row = r#"{"photos":9,"hits":7,"hits_f32":8,"agreeing":8,"sqnr_db":30.5,"fault":null}"#;
        let lines = |rows: usize| {
            let set = r#"{"photos":503,"bounds":"at most 3 photos lost"}"#;
            parse(&format!("{set}\n{}", format!("{row}\n").repeat(rows)))
        };
        let (set, rows) = lines(METHODS.len() + 1)?;
        assert_eq!(
            (set.photos, rows[0].hits_f32, rows[0].sqnr_db),
            (503, 8, Some(30.5))
        );
        assert!(lines(METHODS.len()).is_err());
        assert!(parse("").is_err());
        Ok(())
    }
}
