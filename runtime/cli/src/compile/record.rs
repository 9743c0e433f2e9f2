//! What `vitlet compile` says of its work: a line for each step, and with `--json` one record of all.

use std::collections::BTreeMap;
use std::fmt;
use std::path::Path;

use serde::Serialize;
use vitlet_compiler::{Mixed, Model, Ranges};

use crate::inspect::{Preprocessing, Summary};
use crate::output::{Out, grouped};

/// Lines as the work goes on.
pub(super) struct Report<'a> {
    pub(super) out: &'a mut Out,
}

impl Report<'_> {
    pub(super) fn entry(&mut self, name: &str, value: impl fmt::Display) -> anyhow::Result<()> {
        self.out.line(format_args!("{name:<13}  {value}"))
    }
}

#[derive(Serialize)]
pub(super) struct Record<'a> {
    pub(super) plan: String,
    #[serde(flatten)]
    pub(super) summary: Summary,
    pub(super) labels: &'a [String],
    pub(super) preprocess: Preprocessing,
    pub(super) calibration: CalibrationRecord,
    pub(super) lowering: LoweringRecord,
    pub(super) wide: WideRecord,
}

/// Tensors of 16 bits that would have 8.
#[derive(Serialize)]
pub(super) struct WideRecord {
    /// Their names.
    pub(super) tensors: Vec<String>,
    /// Multiply-accumulates that they add.
    pub(super) macs: u64,
    /// Null without --mixed.
    pub(super) mixed: Option<MixedRecord>,
}

/// What --mixed auto chose.
#[derive(Serialize)]
pub(super) struct MixedRecord {
    pub(super) candidates: usize,
    pub(super) photos: usize,
    /// SQNR of the logits on every fourth of these photos, without and with the choice.
    pub(super) before_db: Option<f64>,
    pub(super) after_db: Option<f64>,
    pub(super) chosen: Vec<ChosenRecord>,
}

#[derive(Serialize)]
pub(super) struct ChosenRecord {
    pub(super) name: String,
    pub(super) gain_db: f64,
    pub(super) macs: u64,
}

impl MixedRecord {
    pub(super) fn new(mixed: Mixed) -> Self {
        let chosen = mixed.chosen.into_iter().map(|chosen| ChosenRecord {
            name: chosen.name,
            gain_db: chosen.gain_db,
            macs: chosen.macs,
        });
        Self {
            candidates: mixed.candidates,
            photos: mixed.photos,
            before_db: mixed.before_db,
            after_db: mixed.after_db,
            chosen: chosen.collect(),
        }
    }

    pub(super) fn report(&self, report: &mut Report<'_>) -> anyhow::Result<()> {
        let decibels =
            |db: Option<f64>| db.map_or("no noise".to_owned(), |db| format!("{db:.2} dB"));
        report.entry(
            "mixed",
            format_args!(
                "{} of {} tensors chosen on {} photos; SQNR {} instead of {}, on every fourth",
                self.chosen.len(),
                self.candidates,
                self.photos,
                decibels(self.after_db),
                decibels(self.before_db)
            ),
        )?;
        for chosen in &self.chosen {
            report.entry(
                "",
                format_args!(
                    "{:+.2} dB for {} MACs: {}",
                    chosen.gain_db,
                    grouped(chosen.macs),
                    chosen.name
                ),
            )?;
        }
        Ok(())
    }
}

impl WideRecord {
    pub(super) fn report(&self, model: &Model, report: &mut Report<'_>) -> anyhow::Result<()> {
        if let Some(mixed) = &self.mixed {
            mixed.report(report)?;
        }
        if self.tensors.is_empty() {
            return Ok(());
        }
        report.entry(
            "16 bits",
            format_args!(
                "{} tensors; {} MACs more, {:.1} % of the model's",
                self.tensors.len(),
                grouped(self.macs),
                self.macs as f64 / model.macs().max(1) as f64 * 100.0
            ),
        )
    }
}

#[derive(Serialize)]
pub(super) struct CalibrationRecord {
    pub(super) images: u32,
    pub(super) skipped: usize,
    pub(super) ranges: Option<String>,
    /// Null in ranges that do not say.
    pub(super) method: Option<String>,
    /// How many activations have their range by which method.
    pub(super) chosen: BTreeMap<String, usize>,
    /// Layers whose bias is corrected.
    pub(super) corrected: usize,
    /// Layer norms with a scale for each channel.
    pub(super) folded: usize,
}

impl CalibrationRecord {
    pub(super) fn new(model: &Model, ranges: &Ranges, skipped: usize, file: Option<&Path>) -> Self {
        Self {
            images: ranges.images(),
            skipped,
            ranges: file.map(|path| path.display().to_string()),
            method: ranges.method().map(|method| method.to_string()),
            chosen: ranges.chosen(),
            corrected: ranges.corrected(),
            folded: model.folded_norms(ranges),
        }
    }

    pub(super) fn report(&self, report: &mut Report<'_>) -> anyhow::Result<()> {
        report.entry("method", self.method())?;
        report.entry(
            "biases",
            format_args!("of {} layers corrected", self.corrected),
        )?;
        report.entry(
            "layer norms",
            format_args!("{} with a scale for each channel", self.folded),
        )
    }

    /// The method, and what it chose if it chose between others.
    fn method(&self) -> String {
        let Some(method) = &self.method else {
            return "not known, these ranges are of the first version of vitlet".to_owned();
        };
        let chosen: Vec<String> = self
            .chosen
            .iter()
            .filter(|(name, _)| *name != method)
            .map(|(name, count)| format!("{name} {count}"))
            .collect();
        if chosen.is_empty() {
            return method.clone();
        }
        format!(
            "{method}, by the error on each quarter of the photos with ranges by the others: {}",
            chosen.join(", ")
        )
    }
}

#[derive(Serialize)]
pub(super) struct LoweringRecord {
    pub(super) worst: f64,
    pub(super) worst_layer: String,
    pub(super) cascade: f64,
}
