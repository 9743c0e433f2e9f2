//! `vitlet accuracy`: how often the plan is right on labelled photos, and how often it agrees with the f32 model.

mod journal;
#[cfg(feature = "compiler")]
mod reference;
mod report;
mod tally;

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

use serde::Serialize;
use vitlet::{MAX_THREADS, Options, Plan, Preprocessor, Session};

use crate::args::{CpuArgs, ModelArgs, at_least_one};
use crate::dataset::{Dataset, open_image};
use crate::failure::{OrInvalid as _, Outcome, invalid};
use crate::output::Out;
use crate::progress::Progress;
use journal::Journal;
#[cfg(feature = "compiler")]
use reference::Reference;
#[cfg(feature = "compiler")]
pub(crate) use reference::best;
use tally::{Answer, ReferenceAnswer, Tally};

const EXAMPLES: &str = "\
Examples:
  vitlet accuracy -m model.vitlet --data val/
  vitlet accuracy -m model.vitlet --data val/ --reference model.onnx --limit 500

  Which classes are taken for which? Can be stopped and called again.
    vitlet accuracy -m model.vitlet --data val/ --confusion --resume val.jsonl

The folder has one folder of photos per class, named as the plan's labels; or
as many folders as there are classes, in their order, under other names. A
photo that cannot be read is reported and left out, and the exit status is 1.

With --reference, SQNR is how near the logits of all photos are to those of f32:
10 log10(sum of f32^2 / sum of (int8 - f32)^2), in dB; 20 dB are a tenth.

ECE, the expected calibration error, is how far scores are from being
probabilities: the mean of |share of right answers - mean score| over 15 bins of
the best class's score, by their photos. 0 is best.

--resume writes a line of JSON per photo to FILE:
  {\"photo\",\"class\",\"top\":[class,..],\"score\",\"reference\":{\"class\",\"score\",
   \"signal\",\"noise\"}}
after a first line with the SHA-256 of plan, photos and reference. If the file is
there, its photos are not looked at again, and the result is that of a whole run;
a file about another plan or other photos is refused.

With --json, fractions of 1:
  {\"images\",\"top1\",\"top5\",\"ece\",\"unreadable\",\"kernel\",
   \"classes\":[{\"class\",\"label\",\"images\",\"top1\",
              \"confused_with\":{\"class\",\"label\",\"images\"} or null}]}
  with --reference also \"reference\":{\"top1\",\"agreement\",\"ece\",\"sqnr_db\"},
  and \"reference_top1\" of each class
  with --confusion also \"confusion\":[[images,..],..], a row for each true class,
  in it a column for each answer";

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
    /// Show the confusion matrix
    #[arg(long)]
    confusion: bool,
    /// Write each photo's result to FILE, and go on where an earlier run with FILE was stopped
    #[arg(long, value_name = "FILE")]
    resume: Option<PathBuf>,
    /// Photos looked at at the same time [default: as many as there are cores]
    #[arg(long, value_name = "N", value_parser = at_least_one())]
    threads: Option<usize>,
    #[command(flatten)]
    cpu: CpuArgs,
}

#[derive(Serialize)]
struct Record {
    #[serde(flatten)]
    tally: tally::Record,
    unreadable: usize,
    kernel: &'static str,
}

/// A photo whose class is known.
struct Photo<'a> {
    class: usize,
    path: &'a Path,
    /// Its path inside the folder.
    name: String,
}

/// What a run is about.
struct Source<'a> {
    /// The plan's bytes.
    plan: &'a [u8],
    /// Of the plan.
    classes: usize,
    photos: &'a [Photo<'a>],
    reference: Option<&'a Path>,
}

pub(crate) fn verb(args: &Args, out: &mut Out) -> anyhow::Result<Outcome> {
    let model = args.model.load()?;
    let plan = model.plan().or_invalid()?;
    // Made here too, so that a wrong kernel is found before the folder is read.
    let kernel = args.cpu.session(&plan, 1)?.kernel().kernel;
    let dataset = Dataset::open(&args.data)?;
    let photos = photos(args, &dataset, &plan)?;
    let reference = Reference::open(args.reference(), &plan)?;
    let classes = plan.output().elements().unwrap_or_default();
    let source = Source {
        plan: model.bytes(),
        classes,
        photos: &photos,
        reference: args.reference(),
    };
    let journal = args.resume.as_deref();
    let journal = journal
        .map(|path| Journal::open(path, &source))
        .transpose()?;
    let (journal, known) = journal.unzip();
    let known = known.unwrap_or_else(|| vec![None; photos.len()]);
    let tally = Work {
        plan: &plan,
        options: args.cpu.options(1),
        photos: &photos,
        progress: Progress::resumed(known.iter().flatten().count(), photos.len(), "accuracy"),
        known,
        journal,
        reference: &reference,
        next: AtomicUsize::new(0),
    }
    .run(args.threads)?;
    anyhow::ensure!(
        tally.images() > 0,
        "{}: none of its photos can be read",
        args.data.display()
    );
    let label = |class: usize| {
        plan.label(class)
            .map_or_else(|| class.to_string(), str::to_owned)
    };
    let record = Record {
        tally: tally.record(&label, args.confusion.then_some(classes)),
        unreadable: photos.len() - tally.images(),
        kernel: kernel.name(),
    };
    out.record(&record)?;
    tell(&record, &label, out)?;
    Ok(Outcome::from_failures(record.unreadable))
}

/// The tables.
fn tell(record: &Record, label: &dyn Fn(usize) -> String, out: &mut Out) -> anyhow::Result<()> {
    out.line(report::summary(&record.tally, record.kernel))?;
    let (classes, left_out) = report::classes(&record.tally);
    out.line(format_args!("\n{classes}"))?;
    if left_out > 0 {
        out.line(format_args!(
            "{left_out} more classes with a higher top-1; --json has all"
        ))?;
    }
    if let Some(matrix) = &record.tally.confusion {
        let confusion = report::confusion(&record.tally, matrix, label);
        out.line(format_args!("\n{confusion}"))?;
    }
    Ok(())
}

/// The photos to look at.
fn photos<'d>(
    args: &Args,
    dataset: &'d Dataset,
    plan: &Plan<'_>,
) -> anyhow::Result<Vec<Photo<'d>>> {
    let classes = match_classes(&args.data, dataset, plan)?;
    if dataset.len() == 0 {
        return Err(invalid(format_args!(
            "{}: no .jpg, .jpeg or .png file in its class folders",
            args.data.display()
        )));
    }
    let photo = |(folder, path): (usize, &'d Path)| Photo {
        class: classes[folder],
        path,
        name: path
            .strip_prefix(&args.data)
            .unwrap_or(path)
            .to_string_lossy()
            .into_owned(),
    };
    let chosen = dataset.spread(args.limit.unwrap_or(usize::MAX));
    Ok(chosen.into_iter().map(photo).collect())
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
    photos: &'a [Photo<'a>],
    /// What an earlier run found.
    known: Vec<Option<Answer>>,
    journal: Option<Journal>,
    reference: &'a Option<Reference>,
    /// The next photo nobody has taken.
    next: AtomicUsize,
    progress: Progress,
}

impl Work<'_> {
    /// Looks at all photos of which nothing is known, and counts all.
    fn run(&self, threads: Option<usize>) -> anyhow::Result<Tally> {
        let workers = threads
            .unwrap_or_else(|| thread::available_parallelism().map_or(1, usize::from))
            .clamp(1, self.photos.len().min(MAX_WORKERS));
        let mut answers = self.known.clone();
        thread::scope(|scope| {
            let worker = |_| scope.spawn(|| self.work());
            let handles: Vec<_> = (0..workers).map(worker).collect();
            for handle in handles {
                let found = handle.join();
                for (index, answer) in
                    found.unwrap_or_else(|panic| std::panic::resume_unwind(panic))?
                {
                    answers[index] = Some(answer);
                }
            }
            Ok::<_, anyhow::Error>(())
        })?;
        // In the photos' order, whoever looked at them when: sums of scores depend on it.
        let mut tally = Tally::default();
        for (photo, answer) in self.photos.iter().zip(&answers) {
            answer
                .iter()
                .for_each(|answer| tally.add(photo.class, answer));
        }
        Ok(tally)
    }

    /// Photos by index, with what is said of them.
    fn work(&self) -> anyhow::Result<Vec<(usize, Answer)>> {
        let mut session = Session::new(self.plan, &self.options)?;
        let mut preprocessor = Preprocessor::new(self.plan.preprocess());
        let float = self.reference.as_ref().map(Reference::worker).transpose()?;
        let mut answers = vec![];
        loop {
            let index = self.next.fetch_add(1, Ordering::Relaxed);
            let Some((photo, known)) = self.photos.get(index).zip(self.known.get(index)) else {
                return Ok(answers);
            };
            if known.is_some() {
                continue;
            }
            match open_image(photo.path, &mut preprocessor) {
                Ok(image) => {
                    session.run(&image)?;
                    let float = float.as_ref().map(|float| float.answer(&image, &session));
                    let answer = answer(&session, float.transpose()?);
                    if let Some(journal) = &self.journal {
                        journal.append(photo, &answer)?;
                    }
                    answers.push((index, answer));
                }
                Err(error) => self.progress.report(&error),
            }
            self.progress.step();
        }
    }
}

/// What the session says of the photo it ran last, beside what the f32 model says.
fn answer(session: &Session<'_>, reference: Option<ReferenceAnswer>) -> Answer {
    let top = session.top(5);
    Answer {
        score: top.first().map_or(0.0, |class| class.score),
        top: top.iter().map(|class| class.index).collect(),
        reference,
    }
}

impl Args {
    /// The f32 model's file.
    fn reference(&self) -> Option<&Path> {
        #[cfg(feature = "compiler")]
        return self.reference.as_deref();
        #[cfg(not(feature = "compiler"))]
        return None;
    }
}

/// The model in f32: without the compiler there is none.
#[cfg(not(feature = "compiler"))]
enum Reference {}

#[cfg(not(feature = "compiler"))]
impl Reference {
    #[allow(clippy::unnecessary_wraps, reason = "as with the compiler")]
    fn open(_: Option<&Path>, _: &Plan<'_>) -> anyhow::Result<Option<Self>> {
        Ok(None)
    }

    fn worker(&self) -> anyhow::Result<&Self> {
        match *self {}
    }

    fn answer(&self, _: &[u8], _: &Session<'_>) -> anyhow::Result<ReferenceAnswer> {
        match *self {}
    }
}
