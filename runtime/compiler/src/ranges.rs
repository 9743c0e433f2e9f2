//! Calibration ranges: what the quantiser needs to know of every activation, and their file.
//!
//! Ranges depend, through tract's f32 kernels, on the machine they were measured on, so they are an artefact of their own:
//! a plan is a pure function of the ONNX file, the ranges and the options.

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::error::CompileError;

const FORMAT: &str = "vitlet-ranges";
const VERSION: u32 = 1;

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
    /// One entry per activation, in the order of the lowered model.
    pub(crate) values: Vec<ValueRange>,
}

/// The range of one activation.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct ValueRange {
    /// The activation's name, to notice ranges of another model.
    pub(crate) name: String,
    /// Smallest and largest value seen.
    pub(crate) seen: [f32; 2],
    /// The range whose 8-bit grid has the least mean squared error on what was seen.
    pub(crate) clip: [f32; 2],
    /// Largest magnitude per channel, for operands of attention (their scales are per head).
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(crate) channels: Vec<f32>,
}

impl Ranges {
    pub(crate) fn new(
        model_sha256: String,
        images: u32,
        mean: [f32; 3],
        std: [f32; 3],
        values: Vec<ValueRange>,
    ) -> Self {
        Ranges {
            format: FORMAT.into(),
            version: VERSION,
            model_sha256,
            images,
            mean,
            std,
            values,
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
        if ranges.format != FORMAT || ranges.version != VERSION {
            let found = format!(
                "format `{}` version {}, expected `{FORMAT}` version {VERSION}",
                ranges.format, ranges.version
            );
            return Err(CompileError::Ranges(found));
        }
        for value in &ranges.values {
            let ordered =
                |[low, high]: [f32; 2]| low.is_finite() && high.is_finite() && low <= high;
            let channels = value.channels.iter().all(|c| c.is_finite() && *c >= 0.0);
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
