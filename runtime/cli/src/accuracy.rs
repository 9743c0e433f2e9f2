//! `vitlet accuracy`: how often the plan is right on labelled photos, and how often it agrees with the f32 model.

use std::cmp::Reverse;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

use serde::Serialize;
use vitlet::{MAX_THREADS, Options, Plan, Preprocessor, Session};

use crate::args::{CpuArgs, ModelArgs, at_least_one};
use crate::dataset::{Dataset, open_image};
use crate::failure::{OrInvalid as _, Outcome, invalid};
use crate::output::{Out, Table};
use crate::progress::Progress;

const EXAMPLES: &str = "\
Examples:
  vitlet accuracy -m model.vitlet --data val/
  vitlet accuracy -m model.vitlet --data val/ --reference model.onnx --limit 500

The folder has one folder of photos per class, named as the plan's labels; or
as many folders as there are classes, in their order, under other names. A
photo that cannot be read is reported and left out, and the exit status is 1.

With --json, fractions of 1:
  {\"images\",\"top1\",\"top5\",\"unreadable\",\"kernel\"}
  with --reference also \"reference\":{\"top1\",\"agreement\"}";

/// Photos are looked at by at most this many threads.
const MAX_WORKERS: usize = 4 * MAX_THREADS;

#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Args {
    #[command(flatten)]
    model: ModelArgs,
    /// The folder with one folder of photos per class
    #[arg(long, value_name = "DIR")]
    data: PathBuf,
    /// The ONNX model the plan was made from, run in f32 on the same pixels
    #[cfg(feature = "compiler")]
    #[arg(long, value_name = "MODEL.onnx")]
    reference: Option<PathBuf>,
    /// Use N photos only, spread evenly over the classes
    #[arg(long, value_name = "N", value_parser = at_least_one())]
    limit: Option<usize>,
    /// Photos looked at at the same time [default: as many as there are cores]
    #[arg(long, value_name = "N", value_parser = at_least_one())]
    threads: Option<usize>,
    #[command(flatten)]
    cpu: CpuArgs,
}

#[derive(Serialize)]
struct Record {
    images: usize,
    top1: f64,
    top5: f64,
    #[serde(skip_serializing_if = "Option::is_none")]
    reference: Option<ReferenceRecord>,
    unreadable: usize,
    kernel: &'static str,
}

#[derive(Serialize)]
struct ReferenceRecord {
    top1: f64,
    agreement: f64,
}

/// What was counted.
#[derive(Clone, Copy, Default)]
struct Counts {
    images: usize,
    top1: usize,
    top5: usize,
    reference_top1: usize,
    agreement: usize,
    unreadable: usize,
}

pub(crate) fn verb(args: &Args, out: &mut Out) -> anyhow::Result<Outcome> {
    let model = args.model.load()?;
    let plan = model.plan().or_invalid()?;
    let options = args.cpu.options(1);
    // Made here too, so that a wrong kernel is found before the folder is read.
    let kernel = args.cpu.session(&plan, 1)?.kernel().kernel;
    let dataset = Dataset::open(&args.data)?;
    let classes = match_classes(&args.data, &dataset, &plan)?;
    let photos = dataset.spread(args.limit.unwrap_or(usize::MAX));
    if dataset.len() == 0 {
        return Err(invalid(format_args!(
            "{}: no .jpg, .jpeg or .png file in its class folders",
            args.data.display()
        )));
    }
    let reference = Reference::open(args, &plan)?;
    let work = Work {
        plan: &plan,
        options,
        photos: photos
            .iter()
            .map(|&(folder, path)| (classes[folder], path))
            .collect(),
        reference: &reference,
        next: AtomicUsize::new(0),
        progress: Progress::new(photos.len(), "accuracy"),
    };
    let workers = args
        .threads
        .unwrap_or_else(|| thread::available_parallelism().map_or(1, usize::from))
        .clamp(1, photos.len().min(MAX_WORKERS));
    let counts = work.run_on(workers)?;
    drop(work);
    anyhow::ensure!(
        counts.images > 0,
        "{}: none of its photos can be read",
        args.data.display()
    );
    let record = counts.record(reference.is_some(), kernel.name());
    out.record(&record)?;
    out.line(table(&record))?;
    Ok(Outcome::from_failures(counts.unreadable))
}

fn table(record: &Record) -> Table {
    let percent = |fraction: f64| format!("{:.2} %", fraction * 100.0);
    let mut table = Table::default();
    table.entry("photos", record.images);
    table.entry("kernel", record.kernel);
    table.entry("top-1", percent(record.top1));
    table.entry("top-5", percent(record.top5));
    if let Some(reference) = &record.reference {
        table.entry("f32 top-1", percent(reference.top1));
        table.entry("agreement", percent(reference.agreement));
    }
    table
}

/// The class of each folder: by name, or by order if no name is a label and the numbers are equal.
fn match_classes(path: &Path, dataset: &Dataset, plan: &Plan<'_>) -> anyhow::Result<Vec<usize>> {
    let labels: Vec<&str> = plan.labels().collect();
    let classes = plan.output().elements().unwrap_or_default();
    let names = || dataset.classes.iter().map(|class| &*class.name);
    let found: Vec<Option<usize>> = names()
        .map(|name| labels.iter().position(|label| *label == name))
        .collect();
    if found.iter().all(Option::is_none) {
        if found.len() == classes {
            return Ok((0..classes).collect());
        }
        return Err(invalid(format_args!(
            "{}: {} class folders, none named as a label, for {classes} classes; name the folders as the plan's labels",
            path.display(),
            found.len()
        )));
    }
    found
        .into_iter()
        .zip(names())
        .map(|(class, name)| {
            class.ok_or_else(|| {
                invalid(format_args!(
                    "{}: folder {name} is not among the plan's labels, others are; rename or remove it",
                    path.display()
                ))
            })
        })
        .collect()
}

/// What all workers share.
struct Work<'a> {
    plan: &'a Plan<'a>,
    options: Options,
    /// Class and path.
    photos: Vec<(usize, &'a Path)>,
    reference: &'a Option<Reference>,
    /// The next photo nobody has taken.
    next: AtomicUsize,
    progress: Progress,
}

impl Work<'_> {
    /// Sums do not depend on who does what.
    fn run_on(&self, workers: usize) -> anyhow::Result<Counts> {
        thread::scope(|scope| {
            let handles: Vec<_> = (0..workers).map(|_| scope.spawn(|| self.run())).collect();
            let mut sum = Counts::default();
            for handle in handles {
                let counts = handle
                    .join()
                    .unwrap_or_else(|panic| std::panic::resume_unwind(panic))?;
                sum.add(&counts);
            }
            Ok(sum)
        })
    }

    fn run(&self) -> anyhow::Result<Counts> {
        let mut session = Session::new(self.plan, &self.options)?;
        let mut preprocessor = Preprocessor::new(self.plan.preprocess());
        let float = self
            .reference
            .as_ref()
            .map(Reference::classifier)
            .transpose()?;
        let mut counts = Counts::default();
        while let Some(&(class, path)) = self.photos.get(self.next.fetch_add(1, Ordering::Relaxed))
        {
            match open_image(path, &mut preprocessor) {
                Ok(image) => {
                    session.run(&image)?;
                    let top: Vec<usize> = session.top(5).iter().map(|class| class.index).collect();
                    counts.count(class, &top);
                    if let Some(float) = &float {
                        counts.count_reference(class, &top, best(&float.logits(&image)?));
                    }
                }
                Err(error) => {
                    counts.unreadable += 1;
                    self.progress.report(&error);
                }
            }
            self.progress.step();
        }
        Ok(counts)
    }
}

/// The index of the largest value; of equals, the smallest index.
pub(crate) fn best(logits: &[f32]) -> Option<usize> {
    (0..logits.len()).max_by(|&a, &b| {
        logits[a]
            .total_cmp(&logits[b])
            .then(Reverse(a).cmp(&Reverse(b)))
    })
}

impl Counts {
    fn count(&mut self, class: usize, top: &[usize]) {
        self.images += 1;
        self.top1 += usize::from(top.first() == Some(&class));
        self.top5 += usize::from(top.contains(&class));
    }

    fn count_reference(&mut self, class: usize, top: &[usize], best: Option<usize>) {
        self.reference_top1 += usize::from(best == Some(class));
        self.agreement += usize::from(best.is_some() && best == top.first().copied());
    }

    fn add(&mut self, other: &Self) {
        self.images += other.images;
        self.top1 += other.top1;
        self.top5 += other.top5;
        self.reference_top1 += other.reference_top1;
        self.agreement += other.agreement;
        self.unreadable += other.unreadable;
    }

    fn record(&self, with_reference: bool, kernel: &'static str) -> Record {
        let fraction = |count: usize| count as f64 / self.images as f64;
        Record {
            images: self.images,
            top1: fraction(self.top1),
            top5: fraction(self.top5),
            reference: with_reference.then(|| ReferenceRecord {
                top1: fraction(self.reference_top1),
                agreement: fraction(self.agreement),
            }),
            unreadable: self.unreadable,
            kernel,
        }
    }
}

/// The model in f32.
#[cfg(feature = "compiler")]
struct Reference {
    model: vitlet_compiler::Model,
    normalisation: vitlet_compiler::Normalisation,
}

#[cfg(feature = "compiler")]
impl Reference {
    fn open(args: &Args, plan: &Plan<'_>) -> anyhow::Result<Option<Self>> {
        use crate::compile::{compile_error, open_model};
        let Some(path) = &args.reference else {
            return Ok(None);
        };
        let model = open_model(path)?;
        let normalisation = vitlet_compiler::Normalisation::new(plan.mean(), plan.std());
        let (height, width) = plan.input();
        let classes = plan.output().elements().unwrap_or_default();
        if model.image_size() != [height as usize, width as usize] || model.classes() != classes {
            let [h, w] = model.image_size();
            return Err(invalid(format_args!(
                "{}: {h}x{w} pixels in, {} classes out, but the plan has {height}x{width} and {classes}; give the model the plan was made from",
                path.display(),
                model.classes()
            )));
        }
        Ok(Some(Self {
            model,
            normalisation: normalisation.map_err(compile_error)?,
        }))
    }

    fn classifier(&self) -> anyhow::Result<vitlet_compiler::Classifier<'_>> {
        Ok(self.model.classifier(&self.normalisation)?)
    }
}

/// Without the compiler there is none.
#[cfg(not(feature = "compiler"))]
enum Reference {}

#[cfg(not(feature = "compiler"))]
impl Reference {
    #[allow(clippy::unnecessary_wraps, reason = "as with the compiler")]
    fn open(_: &Args, _: &Plan<'_>) -> anyhow::Result<Option<Self>> {
        Ok(None)
    }

    fn classifier(&self) -> anyhow::Result<&Self> {
        match *self {}
    }

    fn logits(&self, _: &[u8]) -> anyhow::Result<Vec<f32>> {
        match *self {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ties_go_to_the_smaller_index() {
        assert_eq!(best(&[1.0, 3.0, 3.0, 2.0]), Some(1));
        assert_eq!(best(&[]), None);
    }

    #[test]
    fn fractions() {
        let mut counts = Counts::default();
        counts.count(3, &[3, 1, 2]);
        counts.count_reference(3, &[3, 1, 2], Some(1));
        counts.count(2, &[3, 1, 2]);
        counts.count_reference(2, &[3, 1, 2], Some(3));
        let record = counts.record(true, "scalar");
        assert_eq!((record.images, record.top1, record.top5), (2, 0.5, 1.0));
        let reference = record
            .reference
            .map(|reference| (reference.top1, reference.agreement));
        assert_eq!(reference, Some((0.0, 0.5)));
    }
}
