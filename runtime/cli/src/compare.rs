//! `vitlet compare`: how far a plan is from the f32 model it was made from, at the output and op by op.

use std::collections::{BTreeMap, VecDeque};
use std::path::{Path, PathBuf};

use anyhow::Context as _;
use serde::Serialize;
use vitlet::{Digest, Op, Plan, Preprocessor, Session, dequantised};
use vitlet_compiler::{Classifier, Deviation, LayerProbe, LayerValues, Model, Normalisation};

use crate::accuracy::best;
use crate::args::{SessionArgs, at_least_one, load};
use crate::compile::{compile_error, open_model};
use crate::dataset::{open_image, photos_in};
use crate::failure::{OrInvalid as _, Outcome, invalid};
use crate::output::{Out, Table, left, right};
use crate::progress::Progress;

const EXAMPLES: &str = "\
Examples:
  vitlet compare model.onnx model.vitlet --inputs val/ --limit 50
  Which layer loses the most?
    vitlet compare model.onnx model.vitlet --inputs val/ --limit 5 --layers

Both run on the same pixels. SQNR is the signal to quantisation noise ratio,
10 log10(sum of squares of f32 / sum of squared differences), over all photos;
more is better, 6 dB are a bit. A layer is compared with the f32 layer of the
same name, so its noise includes that of the layers before it.

A photo that cannot be read is reported and left out, and the exit status is 1.

With --json:
  {\"images\",\"unreadable\",\"kernel\",
   \"output\":{\"sqnr_db\",\"cosine\",\"agreement\",\"max_error\",\"max_logit\"}}
  with --layers also \"layers\":[{\"op\",\"name\",\"kind\",\"dtype\",\"sqnr_db\",\"worst\"}]
  and \"left_out\", the number of ops that have no such layer
A ratio that is no number (nothing differs, or all is 0) is null.";

/// How many layers are marked.
const WORST: usize = 5;

#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Args {
    /// The model the plan was made from, run in f32
    #[arg(value_name = "MODEL.onnx")]
    model: PathBuf,
    /// The plan
    #[arg(value_name = "PLAN")]
    plan: PathBuf,
    /// A folder of photos (JPEG, PNG); folders in it are searched, too
    #[arg(long, value_name = "DIR")]
    inputs: PathBuf,
    /// Compare every op's output, too
    #[arg(long)]
    layers: bool,
    /// Use N photos only, evenly spread
    #[arg(long, value_name = "N", value_parser = at_least_one())]
    limit: Option<usize>,
    #[command(flatten)]
    session: SessionArgs,
}

#[derive(Serialize)]
struct Record<'a> {
    images: usize,
    unreadable: usize,
    kernel: &'static str,
    output: OutputRecord,
    #[serde(flatten)]
    layers: Option<LayersRecord<'a>>,
}

#[derive(Serialize)]
struct OutputRecord {
    sqnr_db: Option<f64>,
    cosine: Option<f64>,
    agreement: f64,
    max_error: f64,
    max_logit: f64,
}

#[derive(Serialize)]
struct LayersRecord<'a> {
    layers: Vec<LayerRecord<'a>>,
    left_out: usize,
}

#[derive(Serialize)]
struct LayerRecord<'a> {
    op: usize,
    name: &'a str,
    kind: &'static str,
    dtype: &'static str,
    sqnr_db: Option<f64>,
    worst: bool,
}

pub(crate) fn verb(args: &Args, out: &mut Out) -> anyhow::Result<Outcome> {
    let plan_file = load(Some(&args.plan))?;
    let plan = plan_file.plan().or_invalid()?;
    check_model(args, &plan)?;
    let photos = photos_in(&args.inputs).or_invalid()?;
    let photos = evenly(&photos, args.limit.unwrap_or(usize::MAX));
    let session = args.session.session(&plan)?;
    let model = open_model(&args.model)?;
    let normalisation = Normalisation::new(plan.mean(), plan.std()).map_err(compile_error)?;
    let mut work = Work {
        session,
        preprocessor: Preprocessor::new(plan.preprocess()),
        reference: Reference::new(&model, &normalisation, args.layers)?,
        output: Deviation::default(),
        images: 0,
        agreeing: 0,
        layers: Layers::new(&plan),
    };
    let unreadable = work.run(&photos)?;
    anyhow::ensure!(
        work.images > 0,
        "{}: none of its photos can be read",
        args.inputs.display()
    );
    let record = work.record(unreadable, args.layers);
    out.record(&record)?;
    out.line(output_table(&record))?;
    if let Some(layers) = &record.layers {
        out.line(format_args!("\n{}", layers_table(layers)))?;
    }
    Ok(Outcome::from_failures(unreadable))
}

/// A plan is compared with the very file it was made from: with another one every figure would be about something else.
fn check_model(args: &Args, plan: &Plan<'_>) -> anyhow::Result<()> {
    let path = args.model.display();
    let bytes = std::fs::read(&args.model)
        .with_context(|| format!("{path}: cannot be read; give an ONNX model"))
        .or_invalid()?;
    let (found, wanted) = (Digest::of(&bytes), Digest(plan.provenance().model_sha256));
    if found == wanted {
        return Ok(());
    }
    Err(invalid(format_args!(
        "{path}: not the model that {} was made from: its SHA-256 is {found:.16}…, that of {} was {wanted:.16}…; give that file, or compile this one",
        args.plan.display(),
        plan.provenance().model_name,
    )))
}

/// `count` of the photos, or all if there are fewer.
fn evenly(photos: &[PathBuf], count: usize) -> Vec<&Path> {
    let count = count.min(photos.len());
    let chosen = (0..count).map(|index| index * photos.len() / count);
    chosen.map(|index| &*photos[index]).collect()
}

/// The model in f32: its logits only, or every layer.
enum Reference<'m> {
    Logits(Classifier<'m>),
    Layers(LayerProbe<'m>),
}

impl<'m> Reference<'m> {
    fn new(model: &'m Model, normalisation: &Normalisation, layers: bool) -> anyhow::Result<Self> {
        Ok(if layers {
            Self::Layers(model.layer_probe(normalisation)?)
        } else {
            Self::Logits(model.classifier(normalisation)?)
        })
    }
}

/// Everything that a photo is run through, and what has been summed up.
struct Work<'a> {
    session: Session<'a>,
    preprocessor: Preprocessor,
    reference: Reference<'a>,
    output: Deviation,
    images: usize,
    /// Photos of which both say the same class.
    agreeing: usize,
    layers: Layers<'a>,
}

impl<'a> Work<'a> {
    /// Returns how many photos could not be read.
    fn run(&mut self, photos: &[&Path]) -> anyhow::Result<usize> {
        let progress = Progress::new(photos.len(), "compare");
        let mut unreadable = 0;
        for path in photos {
            match open_image(path, &mut self.preprocessor) {
                Ok(image) => self.add(&image)?,
                Err(error) => {
                    unreadable += 1;
                    progress.report(&error);
                }
            }
            progress.step();
        }
        Ok(unreadable)
    }

    fn add(&mut self, image: &[u8]) -> anyhow::Result<()> {
        let logits = match &self.reference {
            Reference::Logits(classifier) => {
                self.session.run(image)?;
                classifier.logits(image)?
            }
            Reference::Layers(probe) => {
                let values = probe.run(image)?;
                let layers = &mut self.layers;
                layers.match_names(probe);
                self.session.run_observed(image, |index, op, bytes| {
                    layers.add(index, op, bytes, &values);
                })?;
                values.logits().context("the model's output is a layer")?
            }
        };
        self.output.add(&self.session.dequantised(), &logits);
        let top = self.session.top(1).first().map(|class| class.index);
        self.agreeing += usize::from(top.is_some() && top == best(&logits));
        self.images += 1;
        Ok(())
    }

    fn record(&self, unreadable: usize, layers: bool) -> Record<'a> {
        Record {
            images: self.images,
            unreadable,
            kernel: self.session.kernel().kernel.name(),
            output: OutputRecord {
                sqnr_db: self.output.sqnr_db(),
                cosine: self.output.cosine(),
                agreement: self.agreeing as f64 / self.images as f64,
                max_error: self.output.max_error(),
                max_logit: self.output.max_reference(),
            },
            layers: layers.then(|| self.layers.record()),
        }
    }
}

/// The plan's ops, and how far their outputs are from the layers of the same names.
struct Layers<'a> {
    plan: Plan<'a>,
    /// For each op, the layer's place in the probe.
    places: Option<Vec<Option<usize>>>,
    /// For each op, once it has been compared.
    deviations: Vec<Option<Deviation>>,
}

impl<'a> Layers<'a> {
    fn new(plan: &Plan<'a>) -> Self {
        Self {
            plan: *plan,
            places: None,
            deviations: vec![None; plan.ops().len()],
        }
    }

    /// Finds each op's layer by its name; of several that have the same one, the first op's is the first layer.
    fn match_names(&mut self, probe: &LayerProbe<'_>) {
        if self.places.is_some() {
            return;
        }
        let mut places: BTreeMap<&str, VecDeque<usize>> = BTreeMap::new();
        for (place, name) in probe.names().enumerate() {
            places.entry(name).or_default().push_back(place);
        }
        let place = |op: Op<'_>| places.get_mut(op.name).and_then(VecDeque::pop_front);
        self.places = Some(self.plan.ops().map(place).collect());
    }

    /// Compares an op's output, if there is anything to compare it with.
    fn add(&mut self, index: usize, op: &Op<'_>, bytes: &[u8], values: &LayerValues<'_>) {
        let place = self.places.as_ref().and_then(|places| *places.get(index)?);
        let wanted = place.and_then(|place| values.get(place));
        let found = || dequantised(&self.plan.tensor(op.output)?, bytes);
        let (Some(wanted), Some(deviation)) = (wanted, self.deviations.get_mut(index)) else {
            return;
        };
        if let Some(found) = found().filter(|found| found.len() == wanted.len()) {
            deviation.get_or_insert_default().add(&found, &wanted);
        }
    }

    fn record(&self) -> LayersRecord<'a> {
        let mut layers: Vec<LayerRecord<'a>> = Vec::new();
        for (index, (op, deviation)) in self.plan.ops().zip(&self.deviations).enumerate() {
            let tensor = self.plan.tensor(op.output);
            let (Some(deviation), Some(tensor)) = (deviation, tensor) else {
                continue;
            };
            layers.push(LayerRecord {
                op: index,
                name: op.name,
                kind: op.kind.name(),
                dtype: tensor.dtype.name(),
                sqnr_db: deviation.sqnr_db(),
                worst: false,
            });
        }
        mark_worst(&mut layers);
        let left_out = self.deviations.len() - layers.len();
        LayersRecord { layers, left_out }
    }
}

/// Marks the layers with the lowest SQNR; of equals the earlier.
fn mark_worst(layers: &mut [LayerRecord<'_>]) {
    let mut order: Vec<(usize, f64)> = layers
        .iter()
        .enumerate()
        .filter_map(|(index, layer)| Some((index, layer.sqnr_db?)))
        .collect();
    order.sort_by(|a, b| a.1.total_cmp(&b.1));
    for (index, _) in order.iter().take(WORST) {
        layers[*index].worst = true;
    }
}

fn decibels(sqnr_db: Option<f64>) -> String {
    sqnr_db.map_or_else(|| "-".to_owned(), |db| format!("{db:.1} dB"))
}

fn output_table(record: &Record<'_>) -> Table {
    let output = &record.output;
    let mut table = Table::default();
    table.entry("photos", record.images);
    table.entry("kernel", record.kernel);
    table.entry("SQNR", decibels(output.sqnr_db));
    table.entry(
        "cosine",
        output
            .cosine
            .map_or_else(|| "-".to_owned(), |cosine| format!("{cosine:.6}")),
    );
    table.entry(
        "agreement",
        format_args!("{:.2} %", output.agreement * 100.0),
    );
    table.entry(
        "max error",
        format_args!(
            "{:.3}, of logits up to {:.3}",
            output.max_error, output.max_logit
        ),
    );
    table
}

fn layers_table(record: &LayersRecord<'_>) -> String {
    let mut table = Table::default();
    table.row([
        right("op"),
        left("kind"),
        left("type"),
        right("SQNR"),
        left(" "),
        left("name"),
    ]);
    for layer in &record.layers {
        table.row([
            right(layer.op),
            left(layer.kind),
            left(layer.dtype),
            right(decibels(layer.sqnr_db)),
            left(if layer.worst { "*" } else { " " }),
            left(layer.name),
        ]);
    }
    let marked = record.layers.iter().filter(|layer| layer.worst).count();
    let left_out = match record.left_out {
        0 => String::new(),
        count => format!(
            "; {count} ops are left out, for want of an f32 layer of that name, or of a scale"
        ),
    };
    format!("{table}\n* the {marked} lowest{left_out}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn photos_are_spread() {
        let photos: Vec<PathBuf> = (0..10).map(|i| PathBuf::from(i.to_string())).collect();
        let names = |count| -> Vec<String> {
            let chosen = evenly(&photos, count);
            chosen
                .iter()
                .map(|path| path.display().to_string())
                .collect()
        };
        assert_eq!(names(3), ["0", "3", "6"]);
        assert_eq!(names(usize::MAX).len(), 10);
        assert!(evenly(&[], 3).is_empty());
    }

    #[test]
    fn the_lowest_are_marked() {
        let ratios = [
            Some(9.0),
            None,
            Some(1.0),
            Some(2.0),
            Some(8.0),
            Some(3.0),
            Some(4.0),
            Some(8.0),
        ];
        let mut layers: Vec<LayerRecord<'_>> = ratios
            .iter()
            .enumerate()
            .map(|(op, &sqnr_db)| LayerRecord {
                op,
                name: "",
                kind: "",
                dtype: "",
                sqnr_db,
                worst: false,
            })
            .collect();
        mark_worst(&mut layers);
        let marked: Vec<usize> = layers.iter().filter(|l| l.worst).map(|l| l.op).collect();
        assert_eq!(marked, [2, 3, 4, 5, 6]);
    }
}
