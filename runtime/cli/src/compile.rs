//! `vitlet compile`: an ONNX model to a plan. Every path is checked before the long work, and everything used is printed, defaults too.

mod record;

use std::path::{Path, PathBuf};

use anyhow::Context as _;
use vitlet::{Interpolation, Plan, Preprocess, Preprocessor, Resize};
use vitlet_compiler::{
    Calibration, Calibrator, CompileError, Keep, Method, Mixed, Model, Normalisation, Options,
    Ranges,
};

use crate::args::at_least_one;
use crate::bench::noise;
use crate::calibration_photos::{PhotoCheck, warn_if_few};
use crate::dataset::{Dataset, open_image};
use crate::failure::{OrInvalid as _, Outcome, invalid, warn};
use crate::files::{OutputFile, read_text};
use crate::inspect::{Preprocessing, Summary, labels_line};
use crate::output::{Out, grouped};
use crate::progress::Progress;
use record::{CalibrationRecord, LoweringRecord, MixedRecord, Record, Report, WideRecord};

const EXAMPLES: &str = "\
Examples:
  vitlet compile model.onnx -o model.vitlet --calib calib/
  vitlet compile model.onnx -o model.vitlet --calib calib/ --calib-count 256 \\
      --resize short-side:256 --interpolation bicubic --save-ranges ranges.json
  The same plan again, byte for byte, on any machine
    vitlet compile model.onnx -o model.vitlet --ranges ranges.json \\
        --labels labels.txt
  More accuracy for at most 10 percent more work
    vitlet compile model.onnx -o model.vitlet --calib calib/ --mixed auto
  More bits for what the second block's layers with weights read
    vitlet compile model.onnx -o model.vitlet --calib calib/ \\
        --keep-16 '*blocks.1/*'

The calibration folder has one folder of photos per class; unless --labels
says otherwise, the sorted names of these are the labels. Photos that lie in
the folder itself do as well; then labels come from --labels, or there are
none. Some dozens of typical photos are enough. Give the preprocessing the model was trained with:
it becomes part of the plan. Everything used is printed, defaults too.";

/// Most that a lowered layer, fed the reference's inputs, may differ from the reference, relative to the largest value.
const LOWERING_LIMIT: f64 = 1e-4;

#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Args {
    /// The model
    #[arg(value_name = "MODEL.onnx")]
    model: PathBuf,
    /// The plan to write
    #[arg(short, long, value_name = "OUT.vitlet")]
    output: PathBuf,
    /// Calibrate on photos of this folder, which has one folder per class, or just photos
    #[arg(long, value_name = "DIR", required_unless_present = "ranges")]
    calib: Option<PathBuf>,
    /// Calibrate on N photos, spread evenly over the classes
    #[arg(long, value_name = "N", default_value = "64", value_parser = at_least_one())]
    calib_count: usize,
    /// How 8-bit ranges follow from what calibration sees: minmax (all of it), percentile[:P] (P percent at either end, 99.99),
    /// mse (least squared error), entropy (least information lost, as TensorRT does), auto (of these, what does best for each
    /// tensor on every fourth photo, which is held out); naive also gives up scales per channel and head, to show their worth
    #[arg(
        long,
        value_name = "METHOD",
        default_value = "mse",
        conflicts_with = "ranges"
    )]
    method: Method,
    /// Leave biases as they are. Otherwise what 8 bits shift a layer's results by on average is measured on the first 64 photos and
    /// taken off its bias, wherever that helps on every fourth photo, which is held out
    #[arg(long, conflicts_with = "ranges")]
    no_bias_correction: bool,
    /// Keep one scale for all channels of a layer norm's result. Otherwise each channel has its own, folded into the norm and the next
    /// layer's weights, wherever that brings the next layer nearer to f32 on every fourth photo, which is held out
    #[arg(long, conflicts_with = "ranges")]
    no_norm_folding: bool,
    /// Keep tensors in 16 bits whose names fit: * stands for any characters, ? for one; `inspect MODEL.onnx` and `compare --layers`
    /// print the names. They become two planes of 8 bits each, so every layer with weights that reads one multiplies twice; weights
    /// are stored once. Queries, keys and values of attention and its results stay in 8 bits. May be given several times
    #[arg(long = "keep-16", value_name = "PATTERN")]
    keep_16: Vec<String>,
    /// Choose tensors to keep in 16 bits: each is tried alone on the first 64 calibration photos (at least 16 are needed), and those
    /// that take most noise off the logits per multiply-accumulate are taken while the budget lasts. --save-ranges keeps the choice
    #[arg(long, value_name = "auto")]
    mixed: Option<Choice>,
    /// Multiply-accumulates that tensors of 16 bits may add, in percent of the model's
    #[arg(long, value_name = "PERCENT", default_value = "10", requires = "mixed", value_parser = parse_percent)]
    mixed_budget: f64,
    /// The labels, one a line [default: the sorted folder names of --calib]
    #[arg(long, value_name = "FILE")]
    labels: Option<PathBuf>,
    /// Also write the ranges that calibration found
    #[arg(long, value_name = "FILE", conflicts_with = "ranges")]
    save_ranges: Option<PathBuf>,
    /// Use the ranges of an earlier run instead of calibrating
    #[arg(long, value_name = "FILE")]
    ranges: Option<PathBuf>,
    /// How photos are fitted to the model: squash, or short-side:N and a centre crop
    #[arg(long, value_name = "squash|short-side:N", default_value = "squash", value_parser = parse_resize)]
    resize: Resize,
    /// The side of the centre crop; it must be that of the model's input
    #[arg(long, value_name = "N")]
    crop: Option<usize>,
    /// The resampling filter, with antialias: bilinear or bicubic
    #[arg(long, value_name = "FILTER", default_value = "bilinear", value_parser = parse_interpolation)]
    interpolation: Interpolation,
    /// Mean of R, G, B on the scale 0-1
    #[arg(long, value_name = "R,G,B", default_value = "0.485,0.456,0.406", value_parser = parse_rgb)]
    mean: [f32; 3],
    /// Standard deviation of R, G, B on the scale 0-1
    #[arg(long, value_name = "R,G,B", default_value = "0.229,0.224,0.225", value_parser = parse_rgb)]
    std: [f32; 3],
    /// The model's name in the plan [default: the file's name without .onnx]
    #[arg(long)]
    name: Option<String>,
}

/// Who chooses the tensors of 16 bits.
#[derive(Debug, Clone, Copy, clap::ValueEnum)]
enum Choice {
    Auto,
}

pub(crate) fn verb(args: &Args, out: &mut Out) -> anyhow::Result<Outcome> {
    let files = Files::check(args)?;
    let normalisation = Normalisation::new(args.mean, args.std).or_invalid()?;
    let model = open_model(&args.model)?;
    let [height, width] = model.image_size();
    let preprocess = preprocess(args, height, width)?;
    let labels = files.labels(args, model.classes())?;
    let keep = tensors_to_keep(&args.keep_16, &model)?;
    let preprocessing = Preprocessing::new(&preprocess, args.mean, args.std);
    let mut report = Report { out };
    report.entry(
        "model",
        format_args!("{}: {}", args.model.display(), describe(&model)),
    )?;
    report.entry("preprocessing", &preprocessing)?;
    report.entry(
        "labels",
        if labels.is_empty() {
            "none".to_owned()
        } else {
            labels_line(&labels)
        },
    )?;

    let mut work = Work {
        args,
        model: &model,
        keep: &keep,
        normalisation: &normalisation,
        preprocess,
        preprocessor: Preprocessor::new(preprocess),
    };
    let Calibrated {
        ranges,
        calibration,
        lowering,
        wide,
    } = work.ranges(&files, &mut report)?;
    if let (Some(file), None) = (&files.save_ranges, &files.ranges) {
        file.write(|writer| writer.write_all(ranges.to_json().as_bytes()))?;
        report.entry(
            "ranges",
            format_args!("written to {}", file.path().display()),
        )?;
    }
    let options = Options {
        normalisation,
        preprocess,
        labels: &labels,
        model_name: &model_name(args),
    };
    let bytes = model.compile(&ranges, &options).map_err(compile_error)?;
    let plan = Plan::parse(&bytes)
        .context("the new plan does not verify, which is a bug in vitlet; please report it")?;
    files.output.write(|writer| writer.write_all(&bytes))?;
    let record = Record {
        plan: files.output.path().display().to_string(),
        summary: Summary::of(&plan),
        labels: &labels,
        preprocess: preprocessing,
        calibration,
        lowering,
        wide,
    };
    report.out.record(&record)?;
    report.entry("written", &record.plan)?;
    for (name, value) in record.summary.entries() {
        report.entry(name, value)?;
    }
    Ok(Outcome::Done)
}

/// Parses and lowers a model.
pub(crate) fn open_model(path: &Path) -> anyhow::Result<Model> {
    Model::open(path).map_err(|error| match error {
        CompileError::Read { .. } | CompileError::NotOnnx { .. } => compile_error(error),
        // These do not say which file it is.
        _ => compile_error(error).context(path.display().to_string()),
    })
}

/// An error of the compiler, with the exit status it deserves.
pub(crate) fn compile_error(error: CompileError) -> anyhow::Error {
    match error {
        CompileError::Read { .. }
        | CompileError::NotOnnx { .. }
        | CompileError::Ranges(_)
        | CompileError::NoTensor { .. }
        | CompileError::Keep16 { .. }
        | CompileError::FewPhotos { .. } => invalid(error),
        _ => anyhow::Error::new(error),
    }
}

/// The tensors that --keep-16 names.
fn tensors_to_keep(patterns: &[String], model: &Model) -> anyhow::Result<Vec<Keep>> {
    let keep = |pattern: &String| {
        let keep = model
            .keep_16(pattern)
            .map_err(|error| compile_error(error).context(format!("--keep-16 {pattern}")))?;
        if let Some((name, reason)) = keep.refused.first() {
            warn(format_args!(
                "--keep-16 {pattern}: {} tensors stay as they are, `{name}` is the first: {reason}",
                keep.refused.len()
            ));
        }
        Ok(keep)
    };
    patterns.iter().map(keep).collect()
}

fn model_name(args: &Args) -> String {
    args.name.clone().unwrap_or_else(|| {
        let stem = args.model.file_stem().unwrap_or_default();
        stem.to_string_lossy().into_owned()
    })
}

fn describe(model: &Model) -> String {
    let [height, width] = model.image_size();
    format!(
        "{height}x{width} RGB in, {} classes out, {} layers, {} parameters, {} MACs",
        model.classes(),
        model.layers().len(),
        grouped(model.parameters()),
        grouped(model.macs())
    )
}

fn preprocess(args: &Args, height: usize, width: usize) -> anyhow::Result<Preprocess> {
    if let Some(crop) = args.crop
        && (crop, crop) != (height, width)
    {
        return Err(invalid(format_args!(
            "--crop {crop}: the model takes {height}x{width} pixels, and the crop must have that size; leave --crop away"
        )));
    }
    let side = |side: usize| u32::try_from(side).unwrap_or(u32::MAX);
    Preprocess::new(side(width), side(height), args.resize, args.interpolation).or_invalid()
}

/// What is read and written, checked before anything takes long.
struct Files {
    output: OutputFile,
    save_ranges: Option<OutputFile>,
    ranges: Option<Ranges>,
    /// From --labels.
    labels: Option<Vec<String>>,
    dataset: Option<Dataset>,
}

impl Files {
    fn check(args: &Args) -> anyhow::Result<Self> {
        std::fs::File::open(&args.model)
            .with_context(|| {
                format!(
                    "{}: cannot be read; give an ONNX model",
                    args.model.display()
                )
            })
            .or_invalid()?;
        let output = OutputFile::check(&args.output)?;
        let save_ranges = args
            .save_ranges
            .as_deref()
            .map(OutputFile::check)
            .transpose()?;
        let labels = args.labels.as_deref().map(read_labels).transpose()?;
        let ranges = args.ranges.as_deref().map(read_ranges).transpose()?;
        let dataset = args
            .calib
            .as_deref()
            .map(Dataset::open_photos)
            .transpose()?;
        let files = Self {
            output,
            save_ranges,
            ranges,
            labels,
            dataset,
        };
        files.check_bits(args)?;
        files.check_photos(args)?;
        files.check_outputs(args)?;
        Ok(files)
    }

    /// Ranges of an earlier run are good for the bits of that run.
    fn check_bits(&self, args: &Args) -> anyhow::Result<()> {
        let Some(ranges) = &self.ranges else {
            return Ok(());
        };
        if args.mixed.is_some() {
            return Err(invalid(
                "--mixed auto measures on calibration photos, and with --ranges none are read; calibrate with --calib DIR alone, and --save-ranges FILE keeps what is chosen",
            ));
        }
        if !args.keep_16.is_empty() && ranges.corrected() > 0 {
            return Err(invalid(
                "--keep-16: the biases of these --ranges are corrected for other bits, and would be wrong; calibrate with --calib DIR alone, and --save-ranges FILE keeps the bits",
            ));
        }
        Ok(())
    }

    /// Calibration needs photos; a class without any is odd.
    fn check_photos(&self, args: &Args) -> anyhow::Result<()> {
        let (Some(dataset), Some(path), None) = (&self.dataset, &args.calib, &self.ranges) else {
            return Ok(());
        };
        if dataset.len() == 0 {
            return Err(invalid(format_args!(
                "{}: no .jpg, .jpeg or .png file in its class folders; calibration needs photos",
                path.display()
            )));
        }
        for class in dataset
            .classes
            .iter()
            .filter(|class| class.photos.is_empty())
        {
            warn(format_args!(
                "{}: class folder {} has no photos",
                path.display(),
                class.name
            ));
        }
        Ok(())
    }

    /// No output is an input or another output.
    fn check_outputs(&self, args: &Args) -> anyhow::Result<()> {
        let photos = self
            .dataset
            .iter()
            .flat_map(|dataset| &dataset.classes)
            .flat_map(|class| &class.photos);
        let named = [
            Some(&args.model),
            args.labels.as_ref(),
            args.ranges.as_ref(),
        ];
        let inputs: Vec<&Path> = named
            .into_iter()
            .flatten()
            .chain(photos)
            .map(PathBuf::as_path)
            .collect();
        for output in [Some(&self.output), self.save_ranges.as_ref()]
            .into_iter()
            .flatten()
        {
            inputs
                .iter()
                .try_for_each(|input| output.differs_from(input))?;
        }
        match &self.save_ranges {
            Some(save_ranges) => self.output.differs_from_output(save_ranges),
            None => Ok(()),
        }
    }

    /// The labels, one per class, or none if nothing says them.
    fn labels(&self, args: &Args, classes: usize) -> anyhow::Result<Vec<String>> {
        let (labels, place) = match (&self.labels, &self.dataset) {
            (Some(labels), _) => (labels.clone(), args.labels.as_ref()),
            (None, Some(dataset)) if dataset.is_named() => {
                let names = dataset.classes.iter().map(|class| class.name.clone());
                (names.collect(), args.calib.as_ref())
            }
            (None, _) => return Ok(Vec::new()),
        };
        let place = place.map_or_else(String::new, |path| path.display().to_string());
        if let Some(label) = labels.iter().find(|l| l.contains(char::is_control)) {
            return Err(invalid(format_args!(
                "{place}: the label {label:?} has a control character; a label is one line of text"
            )));
        }
        if labels.len() == classes {
            return Ok(labels);
        }
        let what = if self.labels.is_some() {
            "labels"
        } else {
            "class folders"
        };
        Err(invalid(format_args!(
            "{place}: {} {what}, but {} has {classes} classes; give one label per class with --labels FILE",
            labels.len(),
            args.model.display()
        )))
    }
}

/// An activation that no photo moved has no range to speak of.
fn warn_of_constants(ranges: &Ranges) {
    let mut constants = ranges.constants();
    if let Some(first) = constants.next() {
        warn(format_args!(
            "{} activation(s) never changed on the calibration photos, `{first}` is the first; other photos will be clipped there unless it is so by design",
            1 + constants.count()
        ));
    }
}

fn read_ranges(path: &Path) -> anyhow::Result<Ranges> {
    Ranges::from_json(&read_text(path)?)
        .map_err(|error| invalid(format_args!("{}: {error}", path.display())))
}

fn read_labels(path: &Path) -> anyhow::Result<Vec<String>> {
    let text = read_text(path)?;
    let labels: Vec<String> = text
        .trim_end()
        .lines()
        .map(|line| line.trim().to_owned())
        .collect();
    match labels.iter().position(String::is_empty) {
        Some(line) => Err(invalid(format_args!(
            "{}: line {} is empty; write one label a line",
            path.display(),
            line + 1
        ))),
        None => Ok(labels),
    }
}

struct Work<'a> {
    args: &'a Args,
    model: &'a Model,
    keep: &'a [Keep],
    normalisation: &'a Normalisation,
    preprocess: Preprocess,
    preprocessor: Preprocessor,
}

/// The ranges and where they are from.
struct Calibrated {
    ranges: Ranges,
    calibration: CalibrationRecord,
    lowering: LoweringRecord,
    wide: WideRecord,
}

impl Work<'_> {
    /// The ranges that were given, or those of the photos. The lowering is checked first, before anything is quantised.
    fn ranges(&mut self, files: &Files, report: &mut Report<'_>) -> anyhow::Result<Calibrated> {
        if let (Some(ranges), Some(path)) = (&files.ranges, &self.args.ranges) {
            let image = noise(self.preprocessor.image_len());
            let lowering = self.check_lowering(&image, report)?;
            warn_if_few(ranges.images() as usize);
            warn_of_constants(ranges);
            let record = CalibrationRecord::new(self.model, ranges, 0, Some(path));
            report.entry(
                "calibration",
                format_args!(
                    "ranges of {} images, from {}",
                    record.images,
                    path.display()
                ),
            )?;
            record.report(report)?;
            let mut ranges = ranges.clone();
            let keep = self.keep.iter();
            keep.for_each(|keep| ranges.keep_16(self.model, keep));
            return self.calibrated(ranges, record, lowering, None, report);
        }
        // clap asks for --calib unless there are --ranges.
        let dataset = files.dataset.as_ref().context("no --calib DIR")?;
        self.calibrate(dataset, report)
    }

    fn calibrate(
        &mut self,
        dataset: &Dataset,
        report: &mut Report<'_>,
    ) -> anyhow::Result<Calibrated> {
        let (count, classes) = (self.args.calib_count, dataset.classes.len());
        if count < classes {
            warn(format_args!(
                "--calib-count {count} leaves {} of {classes} classes without a photo; give at least {classes}",
                classes - count
            ));
        }
        let photos = dataset.spread(count);
        let calibration = Calibration {
            normalisation: *self.normalisation,
            preprocess: self.preprocess,
            method: self.args.method,
            correct_bias: !self.args.no_bias_correction && self.args.method != Method::Naive,
            fold_norms: !self.args.no_norm_folding && self.args.method != Method::Naive,
        };
        let mut calibrator = self.model.calibrator(&calibration).map_err(compile_error)?;
        let mut lowering = None;
        let mut skipped = 0;
        let mut check = PhotoCheck::new();
        let progress = Progress::new(photos.len(), "calibration");
        for (folder, path) in &photos {
            match open_image(path, &mut self.preprocessor) {
                Ok(image) => {
                    if lowering.is_none() {
                        lowering = Some(self.check_lowering(&image, report)?);
                    }
                    let class = calibrator.add(&image).map_err(compile_error)?;
                    check.add(path, &image, *folder, class);
                }
                Err(error) => {
                    skipped += 1;
                    progress.warn(format_args!("{error:#}; calibration goes on without it"));
                }
            }
            progress.step();
        }
        drop(progress);
        let folder = self.args.calib.as_deref().unwrap_or(Path::new(""));
        let lowering = lowering.with_context(|| {
            format!(
                "{}: none of the calibration photos can be read; give some that can",
                folder.display()
            )
        })?;
        check.report(folder, dataset.is_named(), self.model.classes())?;
        let (ranges, mixed) = self.finish(calibrator).map_err(compile_error)?;
        warn_of_constants(&ranges);
        let record = CalibrationRecord::new(self.model, &ranges, skipped, None);
        report.entry(
            "calibration",
            format_args!(
                "{} of {} photos, evenly over {} classes{}",
                record.images,
                dataset.len(),
                dataset.classes.len(),
                if skipped == 0 {
                    String::new()
                } else {
                    format!(" ({skipped} could not be read)")
                }
            ),
        )?;
        record.report(report)?;
        self.calibrated(ranges, record, lowering, mixed, report)
    }

    /// The ranges, with 16 bits for the tensors that are named, then for those that are worth it.
    fn finish(&self, calibrator: Calibrator<'_>) -> Result<(Ranges, Option<Mixed>), CompileError> {
        let Some(Choice::Auto) = self.args.mixed else {
            return Ok((calibrator.finish_keeping(self.keep)?, None));
        };
        let mut bar: Option<Progress> = None;
        let mut step = |_: usize, len: usize| {
            bar.get_or_insert_with(|| Progress::new(len, "mixed"))
                .step();
        };
        let (ranges, mixed) =
            calibrator.finish_mixed(self.keep, self.args.mixed_budget, &mut step)?;
        Ok((ranges, Some(mixed)))
    }

    fn calibrated(
        &self,
        ranges: Ranges,
        calibration: CalibrationRecord,
        lowering: LoweringRecord,
        mixed: Option<Mixed>,
        report: &mut Report<'_>,
    ) -> anyhow::Result<Calibrated> {
        let wide = WideRecord {
            tensors: ranges.kept_16().map(str::to_owned).collect(),
            macs: self.model.extra_macs(&ranges),
            mixed: mixed.map(MixedRecord::new),
        };
        wide.report(self.model, report)?;
        Ok(Calibrated {
            ranges,
            calibration,
            lowering,
            wide,
        })
    }

    /// Each layer, fed the reference's inputs, must agree with the reference.
    fn check_lowering(
        &self,
        image: &[u8],
        report: &mut Report<'_>,
    ) -> anyhow::Result<LoweringRecord> {
        let check = self
            .model
            .check_lowering(self.normalisation, image)
            .map_err(compile_error)?;
        let (worst, worst_layer) = check.worst().map_or((0.0, String::new()), |layer| {
            (layer.error, layer.name.clone())
        });
        let record = LoweringRecord {
            worst,
            worst_layer,
            cascade: check.cascade,
        };
        report.entry(
            "lowering",
            format_args!(
                "{} layers against f32: worst {:.1e} ({}), all in a row {:.1e}; limit {LOWERING_LIMIT:.0e}",
                check.layers.len(),
                record.worst,
                record.worst_layer,
                record.cascade
            ),
        )?;
        // Not `>`: a NaN must fail, too.
        let agrees = record.worst <= LOWERING_LIMIT;
        anyhow::ensure!(
            agrees,
            "{}: layer {} differs from the f32 model by {:.1e} of the largest value, the limit is {LOWERING_LIMIT:.0e}; please report the model",
            self.args.model.display(),
            record.worst_layer,
            record.worst
        );
        Ok(record)
    }
}

fn parse_resize(text: &str) -> Result<Resize, String> {
    let side = text.strip_prefix("short-side:").map(str::parse);
    match (text, side) {
        ("squash", _) => Ok(Resize::Squash),
        (_, Some(Ok(side))) => Ok(Resize::ShortSide(side)),
        _ => Err("write squash or short-side:N with a number of pixels".to_owned()),
    }
}

fn parse_percent(text: &str) -> Result<f64, String> {
    text.parse()
        .ok()
        .filter(|percent| (0.0..=1000.0).contains(percent))
        .ok_or_else(|| "write a number of percent from 0 to 1000, without a sign: 10".to_owned())
}

fn parse_interpolation(text: &str) -> Result<Interpolation, String> {
    match text {
        "bilinear" => Ok(Interpolation::Bilinear),
        "bicubic" => Ok(Interpolation::Bicubic),
        _ => Err("write bilinear or bicubic".to_owned()),
    }
}

fn parse_rgb(text: &str) -> Result<[f32; 3], String> {
    let values: Result<Vec<f32>, _> = text.split(',').map(|value| value.trim().parse()).collect();
    values
        .ok()
        .and_then(|values| <[f32; 3]>::try_from(values).ok())
        .filter(|values| values.iter().all(|value| value.is_finite()))
        .ok_or_else(|| "write three numbers, for R, G and B: 0.485,0.456,0.406".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn options_are_parsed() {
        assert_eq!(parse_resize("squash"), Ok(Resize::Squash));
        assert_eq!(parse_resize("short-side:256"), Ok(Resize::ShortSide(256)));
        for wrong in ["", "short-side", "short-side:", "short-side:-1", "crop"] {
            assert!(parse_resize(wrong).is_err(), "{wrong}");
        }
        assert_eq!(parse_rgb("0.5, 1,2"), Ok([0.5, 1.0, 2.0]));
        for wrong in ["", "1,2", "1,2,3,4", "1,2,x", "1,2,nan", "1,2,inf"] {
            assert!(parse_rgb(wrong).is_err(), "{wrong}");
        }
    }
}
