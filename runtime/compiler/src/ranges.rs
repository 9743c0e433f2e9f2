//! Calibration ranges: what the quantiser needs to know of every activation, and their file.
//!
//! Ranges depend, through tract's f32 kernels, on the machine they were measured on, so they are an artefact of their own:
//! a plan is a pure function of the ONNX file, the ranges and the options.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use vitlet_preprocess::{Interpolation, Preprocess, Resize};

use crate::calibrate::{Calibration, Method, can_fold, used_values};
use crate::error::CompileError;
use crate::ir::{Graph, ValueId};
use crate::model::Normalisation;

const FORMAT: &str = "vitlet-ranges";
/// Version 1 did not say how photos were fitted to the model, nor by which method ranges were chosen (it was `mse`). Such files
/// are read as they are.
const VERSION: u32 = 2;
/// Version 3 has activations of 16 bits. Files without any are of version 2.
const VERSION_WITH_BITS: u32 = 3;
/// The only number of bits that is said: 8 are understood.
const WIDE: u8 = 16;

/// Ranges of every activation of one model.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Ranges {
    format: String,
    version: u32,
    /// Hex SHA-256 of the ONNX file.
    pub(crate) model_sha256: String,
    /// Photos the ranges were measured on.
    pub(crate) images: u32,
    /// Mean that the photos were normalised with.
    pub(crate) mean: [f32; 3],
    /// Standard deviation that the photos were normalised with.
    pub(crate) std: [f32; 3],
    /// How the photos were fitted to the model. From version 2 on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    fitting: Option<Fitting>,
    /// The method that was asked for. From version 2 on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    method: Option<Method>,
    /// One entry per activation, in the order of the lowered model.
    pub(crate) values: Vec<ValueRange>,
}

/// How photos were fitted to the model, in the words of the command line.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Fitting {
    resize: String,
    interpolation: String,
}

impl Fitting {
    fn of(preprocess: &Preprocess) -> Fitting {
        let interpolation = match preprocess.interpolation() {
            Interpolation::Bilinear => "bilinear",
            Interpolation::Bicubic => "bicubic",
        };
        Fitting {
            resize: match preprocess.resize() {
                Resize::Squash => "squash".to_owned(),
                Resize::ShortSide(side) => format!("short-side:{side}"),
            },
            interpolation: interpolation.to_owned(),
        }
    }
}

/// What ranges say of their origin.
#[derive(Debug, Clone)]
pub(crate) struct Header {
    pub(crate) model_sha256: String,
    pub(crate) images: u32,
    pub(crate) calibration: Calibration,
}

/// The range of one activation.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct ValueRange {
    /// The activation's name, to notice ranges of another model.
    pub(crate) name: String,
    /// Smallest and largest value seen.
    pub(crate) seen: [f32; 2],
    /// The range of its 8-bit grid.
    pub(crate) clip: [f32; 2],
    /// The method that chose it. From version 2 on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) method: Option<Method>,
    /// Largest magnitude to be represented per channel: for operands of attention (their scales are per head), and for results of
    /// layer norms whose channels have scales of their own.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(crate) channels: Vec<f32>,
    /// What is added to the bias of the layer that makes the value, per channel. From version 2 on.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(crate) correction: Vec<f32>,
    /// 16, or nothing for 8 bits. From version 3 on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) bits: Option<u8>,
}

impl ValueRange {
    /// Whether the activation is to have 16 bits where it would have 8.
    pub(crate) fn is_16_bit(&self) -> bool {
        self.bits == Some(WIDE)
    }
}

impl Ranges {
    pub(crate) fn new(header: Header, values: Vec<ValueRange>) -> Self {
        let Calibration {
            normalisation: Normalisation { mean, std },
            preprocess,
            method,
            correct_bias: _,
            fold_norms: _,
        } = header.calibration;
        Ranges {
            format: FORMAT.into(),
            version: VERSION,
            model_sha256: header.model_sha256,
            images: header.images,
            mean,
            std,
            fitting: Some(Fitting::of(&preprocess)),
            method: Some(method),
            values,
        }
    }

    /// The method that was asked for; `None` in a file of version 1.
    #[must_use]
    pub fn method(&self) -> Option<Method> {
        self.method
    }

    /// For each method the number of activations whose range it chose.
    #[must_use]
    pub fn chosen(&self) -> BTreeMap<String, usize> {
        let mut chosen = BTreeMap::new();
        for method in self.values.iter().filter_map(|value| value.method) {
            *chosen.entry(method.to_string()).or_insert(0) += 1;
        }
        chosen
    }

    /// The activations that had one value throughout.
    pub fn constants(&self) -> impl Iterator<Item = &str> {
        let constant = |v: &&ValueRange| v.seen[0].to_bits() == v.seen[1].to_bits();
        self.values.iter().filter(constant).map(|v| &*v.name)
    }

    /// Layers whose bias is corrected.
    #[must_use]
    pub fn corrected(&self) -> usize {
        let corrected = self.values.iter().filter(|v| !v.correction.is_empty());
        corrected.count()
    }

    /// Results of layer norms whose channels have scales of their own, of a model whose ranges these are.
    pub(crate) fn folded(&self, graph: &Graph) -> usize {
        let pairs = used_values(graph).into_iter().zip(&self.values);
        let scaled = pairs.filter(|(_, range)| !range.channels.is_empty());
        let folded = scaled.filter(|(value, _)| can_fold(graph, *value));
        folded.count()
    }

    /// The same with one scale for all channels of a layer norm's result.
    pub(crate) fn unfolded(mut self, graph: &Graph) -> Self {
        let values = used_values(graph).into_iter().zip(&mut self.values);
        for (_, range) in values.filter(|(value, _)| can_fold(graph, *value)) {
            range.channels.clear();
        }
        self
    }

    /// The activations that are kept in 16 bits.
    pub fn kept_16(&self) -> impl Iterator<Item = &str> {
        let kept = self.values.iter().filter(|v| v.is_16_bit());
        kept.map(|v| &*v.name)
    }

    /// The values of a graph that are kept in 16 bits.
    pub(crate) fn kept_values(&self, graph: &Graph) -> Vec<ValueId> {
        let values = used_values(graph).into_iter().zip(&self.values);
        let kept = values.filter(|(_, range)| range.is_16_bit());
        kept.map(|(value, _)| value).collect()
    }

    /// Keeps a value in 16 bits, or no longer.
    pub(crate) fn set_16_bit(&mut self, graph: &Graph, value: ValueId, wide: bool) {
        let place = used_values(graph).iter().position(|v| *v == value);
        if let Some(range) = place.and_then(|place| self.values.get_mut(place)) {
            range.bits = wide.then_some(WIDE);
        }
        self.version = if self.values.iter().any(ValueRange::is_16_bit) {
            VERSION_WITH_BITS
        } else {
            self.version.min(VERSION)
        };
    }

    /// Takes a shift off the results of the layer that makes the value.
    pub(crate) fn correct(&mut self, graph: &Graph, value: ValueId, shift: &[f64]) {
        let place = used_values(graph).iter().position(|v| *v == value);
        if let Some(range) = place.and_then(|place| self.values.get_mut(place)) {
            range.correction.resize(shift.len(), 0.0);
            let corrections = range.correction.iter_mut().zip(shift);
            corrections.for_each(|(c, shift)| *c = (f64::from(*c) - shift) as f32);
        }
    }

    /// Checks that photos will become images as those did that the ranges were measured on.
    pub(crate) fn check_preprocessing(
        &self,
        normalisation: &Normalisation,
        preprocess: &Preprocess,
    ) -> Result<(), CompileError> {
        let Normalisation { mean, std } = normalisation;
        if self.mean.map(f32::to_bits) != mean.map(f32::to_bits)
            || self.std.map(f32::to_bits) != std.map(f32::to_bits)
        {
            let (mean, std) = (self.mean, self.std);
            return Err(CompileError::Ranges(format!(
                "they were measured with --mean {mean:?} --std {std:?}"
            )));
        }
        match &self.fitting {
            Some(fitting) if *fitting != Fitting::of(preprocess) => {
                let Fitting {
                    resize,
                    interpolation,
                } = fitting;
                Err(CompileError::Ranges(format!(
                    "they were measured with --resize {resize} --interpolation {interpolation}"
                )))
            }
            _ => Ok(()),
        }
    }

    /// Photos the ranges were measured on.
    #[must_use]
    pub fn images(&self) -> u32 {
        self.images
    }

    /// The file's text: JSON, numbers written so that they read back exactly.
    #[must_use]
    pub fn to_json(&self) -> String {
        // Serialising plain numbers and strings into a String has no way to fail.
        serde_json::to_string_pretty(self).unwrap_or_default()
    }

    /// Reads [`Ranges::to_json`]'s text.
    ///
    /// # Errors
    /// [`CompileError::Ranges`] when the text is something else, or holds numbers that are not finite and ordered.
    pub fn from_json(text: &str) -> Result<Ranges, CompileError> {
        let ranges: Ranges = serde_json::from_str(text)
            .map_err(|e| CompileError::Ranges(format!("not a ranges file ({e})")))?;
        if ranges.format != FORMAT || !(1..=VERSION_WITH_BITS).contains(&ranges.version) {
            let found = format!(
                "format `{}` version {}, expected `{FORMAT}` version 1 to {VERSION_WITH_BITS}",
                ranges.format, ranges.version
            );
            return Err(CompileError::Ranges(found));
        }
        if ranges.images == 0 {
            return Err(CompileError::Ranges(
                "they were measured on 0 photos".into(),
            ));
        }
        for value in &ranges.values {
            let ordered =
                |[low, high]: [f32; 2]| low.is_finite() && high.is_finite() && low <= high;
            let channels = value.channels.iter().all(|c| c.is_finite() && *c >= 0.0);
            if value.bits.is_some_and(|bits| bits != WIDE) {
                return Err(CompileError::Ranges(format!(
                    "`{}` has a number of bits other than {WIDE}",
                    value.name
                )));
            }
            if !value.correction.iter().all(|c| c.is_finite()) {
                return Err(CompileError::Ranges(format!(
                    "`{}` has a correction that is not finite",
                    value.name
                )));
            }
            if !ordered(value.seen) || !ordered(value.clip) || !channels {
                return Err(CompileError::Ranges(format!(
                    "`{}` has a range that is not finite and ordered",
                    value.name
                )));
            }
        }
        Ok(ranges)
    }

    /// SHA-256 of [`Ranges::to_json`], for the plan's provenance.
    #[must_use]
    pub fn sha256(&self) -> [u8; 32] {
        Sha256::digest(self.to_json().as_bytes()).into()
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    impl Header {
        /// Of one photo, squashed.
        pub(crate) fn of(normalisation: Normalisation) -> Header {
            let squash = Preprocess::new(8, 8, Resize::Squash, Interpolation::Bilinear);
            Header {
                model_sha256: String::new(),
                images: 1,
                calibration: Calibration {
                    normalisation,
                    preprocess: squash.unwrap(),
                    method: Method::Percentile(99.9),
                    correct_bias: false,
                    fold_norms: false,
                },
            }
        }
    }

    fn ranges() -> Ranges {
        let value = ValueRange {
            name: "x".into(),
            seen: [-1.0 / 3.0, 0.1],
            clip: [-0.3, 1e-20],
            method: Some(Method::Entropy),
            channels: vec![0.7],
            correction: vec![-0.01],
            ..ValueRange::default()
        };
        Ranges::new(Header::of(Normalisation::IMAGENET), vec![value])
    }

    #[test]
    fn files_read_back_exactly_and_old_ones_stay_as_they_are() {
        let text = ranges().to_json();
        assert_eq!(Ranges::from_json(&text).unwrap(), ranges());
        assert!(text.contains(r#""method": "percentile:99.9""#) && text.contains("squash"));
        let first = r#"{"format":"vitlet-ranges","version":1,"model_sha256":"","images":2,"mean":[0,0,0],"std":[1,1,1],
            "values":[{"name":"x","seen":[0,1],"clip":[0,1]}]}"#;
        let read = Ranges::from_json(first).unwrap();
        let again = Ranges::from_json(&read.to_json()).unwrap();
        assert_eq!((again.sha256(), again.method()), (read.sha256(), None));
        assert!(!read.to_json().contains("method") && !read.to_json().contains("null"));
    }

    #[test]
    fn files_that_would_make_a_bad_plan_are_refused() {
        let text = ranges().to_json();
        for (from, to, reason) in [
            (r#""images": 1"#, r#""images": 0"#, "0 photos"),
            (r#""version": 2"#, r#""version": 4"#, "version 4, expected"),
            (
                r#""name": "x""#,
                r#""name": "x", "bits": 12"#,
                "`x` has a number of bits",
            ),
            ("percentile:99.9", "percentile:9", "percentile"),
            ("-0.3", "0.3", "`x` has a range"),
        ] {
            let error = Ranges::from_json(&text.replace(from, to)).unwrap_err();
            assert!(error.to_string().contains(reason), "{error}");
            assert!(error.to_string().contains("--save-ranges"), "{error}");
        }
    }

    #[test]
    fn other_preprocessing_is_refused() {
        let ranges = ranges();
        let n = Normalisation::IMAGENET;
        let with = |resize, interpolation| Preprocess::new(8, 8, resize, interpolation).unwrap();
        let same = with(Resize::Squash, Interpolation::Bilinear);
        assert!(ranges.check_preprocessing(&n, &same).is_ok());
        for other in [
            with(Resize::ShortSide(9), Interpolation::Bilinear),
            with(Resize::Squash, Interpolation::Bicubic),
        ] {
            let error = ranges.check_preprocessing(&n, &other).unwrap_err();
            assert!(
                error
                    .to_string()
                    .contains("--resize squash --interpolation bilinear")
            );
        }
        let other = Normalisation {
            mean: [0.5; 3],
            ..n
        };
        let error = ranges.check_preprocessing(&other, &same).unwrap_err();
        assert!(
            error.to_string().contains("--mean [0.485, 0.456, 0.406]"),
            "{error}"
        );
    }
}
