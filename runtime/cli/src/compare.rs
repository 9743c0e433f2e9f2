//! `vitlet compare`: how far a plan is from the f32 model it was made from, at the output and op by op.

mod layers;
mod plot;

use std::path::{Path, PathBuf};

use anyhow::Context as _;
use serde::Serialize;
use vitlet::{Digest, Plan, Preprocessor, Session, dequantised};
use vitlet_compiler::{Classifier, Deviation, Diagnosis, Model, Normalisation};

use crate::accuracy::best;
use crate::args::{SessionArgs, at_least_one, load};
use crate::compile::{compile_error, open_model};
use crate::dataset::{open_image, photos_in};
use crate::failure::{OrInvalid as _, Outcome, invalid};
use crate::files::OutputFile;
use crate::output::{Out, Table, decibels};
use crate::progress::Progress;

const EXAMPLES: &str = "\
Examples:
  vitlet compare model.onnx model.vitlet --inputs val/ --limit 50
  Which layer loses the most?
    vitlet compare model.onnx model.vitlet --inputs val/ --limit 5 --layers

  The same as a drawing
    vitlet compare model.onnx model.vitlet --inputs val/ --limit 5 --plot sqnr.svg

Both run on the same pixels. SQNR is the signal to quantisation noise ratio,
10 log10(sum of squares of f32 / sum of squared differences), over all photos;
more is better, 6 dB are a bit.

With --layers, of every op:
  SQNR       its int8 result against the f32 layer of the same name
  own        against what the f32 layer makes of the same int8 inputs: what the
             op adds by itself; * marks the five lowest
  inherited  what the f32 layer makes of the int8 inputs, against f32: the rest
  saturated  results at an end of their integers (before the activation function,
             if there is one) that are a step off or more
  cause      where most of the error comes from:
    inherited          its inputs bring more than it adds
    clipped range      saturated results
    outlier channel    rounding; without 1 in 64 channels the range would be at
                       most a quarter as wide, and the others are below 30 dB
    coarse scale       rounding below 30 dB, without such channels
    softmax underflow  softmax weights below 1/32768 of the largest in a row
    weights            integer weights and biases instead of f32 ones
    rounding           what 8 bits cost
    exact              nothing is lost

A photo that cannot be read is reported and left out, and the exit status is 1.

With --json:
  {\"images\",\"unreadable\",\"kernel\",
   \"output\":{\"sqnr_db\",\"cosine\",\"agreement\",\"max_error\",\"max_logit\"}}
  with --layers also \"layers\":[{\"op\",\"name\",\"kind\",\"dtype\",\"sqnr_db\",\"cosine\",
   \"max_error\",\"saturated\",\"own_db\",\"inherited_db\",\"cause\",\"detail\",\"worst\"}]
  and \"left_out\", the number of ops that could not be compared
A ratio that is no number (nothing differs, or all is 0) is null.";

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
    /// Draw the SQNR of every op along the network, as SVG; implies --layers
    #[arg(long, value_name = "FILE.svg")]
    plot: Option<PathBuf>,
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
    layers: Option<layers::Record<'a>>,
}

#[derive(Serialize)]
struct OutputRecord {
    sqnr_db: Option<f64>,
    cosine: Option<f64>,
    agreement: f64,
    max_error: f64,
    max_logit: f64,
}

pub(crate) fn verb(args: &Args, out: &mut Out) -> anyhow::Result<Outcome> {
    let plan_file = load(Some(&args.plan))?;
    let plan = plan_file.plan().or_invalid()?;
    check_model(args, &plan)?;
    let plot = args.plot.as_deref().map(OutputFile::check).transpose()?;
    for (plot, input) in plot
        .iter()
        .flat_map(|plot| [(plot, &args.model), (plot, &args.plan)])
    {
        plot.differs_from(input)?;
    }
    let photos = photos_in(&args.inputs).or_invalid()?;
    let photos = evenly(&photos, args.limit.unwrap_or(usize::MAX));
    let session = args.session.session(&plan)?;
    let layers = args.layers || args.plot.is_some();
    let model = open_model(&args.model)?;
    let mut work = Work {
        session,
        preprocessor: Preprocessor::new(plan.preprocess()),
        reference: Reference::new(&model, &plan, layers)?,
        output: Deviation::default(),
        images: 0,
        agreeing: 0,
    };
    let unreadable = work.run(&photos)?;
    anyhow::ensure!(
        work.images > 0,
        "{}: none of its photos can be read",
        args.inputs.display()
    );
    let record = work.record(unreadable);
    out.record(&record)?;
    out.line(output_table(&record))?;
    if let Some(layers) = &record.layers {
        out.line(format_args!("\n{layers}"))?;
        if let Some(plot) = &plot {
            let title = args.plan.display().to_string();
            plot.write(|file| file.write_all(plot::svg(&title, layers).as_bytes()))?;
            out.line(format_args!("\nplot: {}", plot.path().display()))?;
        }
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
    Layers(Box<Diagnosis<'m>>),
}

impl<'m> Reference<'m> {
    fn new(model: &'m Model, plan: &Plan<'m>, layers: bool) -> anyhow::Result<Self> {
        Ok(if layers {
            Self::Layers(Box::new(model.diagnosis(plan)?))
        } else {
            let normalisation = Normalisation::new(plan.mean(), plan.std());
            Self::Logits(model.classifier(&normalisation.map_err(compile_error)?)?)
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
        let logits = match &mut self.reference {
            Reference::Logits(classifier) => {
                self.session.run(image)?;
                classifier.logits(image)?
            }
            Reference::Layers(diagnosis) => {
                let plan = *self.session.plan();
                let mut outputs = vec![vec![]; plan.ops().len()];
                self.session.run_observed(image, |index, _, bytes| {
                    outputs[index] = bytes.to_vec();
                })?;
                let numbers = |op: usize| {
                    let tensor = plan.tensor(plan.ops().nth(op)?.output)?;
                    dequantised(&tensor, outputs.get(op)?)
                };
                diagnosis.add(image, &numbers)?
            }
        };
        self.output.add(&self.session.dequantised(), &logits);
        let top = self.session.top(1).first().map(|class| class.index);
        self.agreeing += usize::from(top.is_some() && top == best(&logits));
        self.images += 1;
        Ok(())
    }

    fn record(&self, unreadable: usize) -> Record<'a> {
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
            layers: match &self.reference {
                Reference::Logits(_) => None,
                Reference::Layers(diagnosis) => {
                    let plan = self.session.plan();
                    Some(layers::record(plan, &diagnosis.layers()))
                }
            },
        }
    }
}

fn output_table(record: &Record<'_>) -> Table {
    let output = &record.output;
    let mut table = Table::default();
    table.entry("photos", record.images);
    table.entry("kernel", record.kernel);
    table.entry("SQNR", decibels(output.sqnr_db));
    table.entry("cosine", layers::fraction(output.cosine));
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
}
