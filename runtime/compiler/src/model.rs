//! The compiler's front door: a model that has been parsed and lowered.

use std::collections::BTreeSet;
use std::path::Path;

use sha2::{Digest, Sha256};
use vitlet_plan::AlignedBytes;

use crate::calibrate::{Calibration, Calibrator};
use crate::error::CompileError;
use crate::eval::{LoweringCheck, check_lowering};
use crate::frontend::{self, Probe, Reference};
use crate::ir::{Graph, Kind};
use crate::lower;
use crate::memory::parts::is_structural;
use crate::quantise;
use crate::ranges::Ranges;

/// How u8 pixels become the model's f32 input: `(x/255 − mean)/std` per colour.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Normalisation {
    /// Mean of R, G, B on the scale 0–1.
    pub mean: [f32; 3],
    /// Standard deviation of R, G, B on the scale 0–1.
    pub std: [f32; 3],
}

impl Normalisation {
    /// What almost every public vision model is trained with.
    pub const IMAGENET: Normalisation = Normalisation {
        mean: [0.485, 0.456, 0.406],
        std: [0.229, 0.224, 0.225],
    };

    /// Checks that every number is usable.
    ///
    /// # Errors
    /// [`CompileError::Quantise`] unless means are within −10…10 and deviations within 0.001…1000.
    pub fn new(mean: [f32; 3], std: [f32; 3]) -> Result<Self, CompileError> {
        let refuse = |what: &str, reason: &str| CompileError::Quantise {
            what: what.into(),
            reason: reason.into(),
        };
        if !mean.iter().all(|m| (-10.0..=10.0).contains(m)) {
            return Err(refuse(
                "mean",
                "must be three numbers between -10 and 10, on the scale where white is 1",
            ));
        }
        if !std.iter().all(|s| (0.001..=1000.0).contains(s)) {
            return Err(refuse(
                "std",
                "must be three numbers between 0.001 and 1000, on the scale where white is 1",
            ));
        }
        Ok(Normalisation { mean, std })
    }

    /// Scale and zero point of each colour of the image's integers, u8 − 128: real = (u8/255 − mean)/std is scale · (q − zero point).
    pub(crate) fn integers(&self) -> [[f64; 2]; 3] {
        std::array::from_fn(|colour| {
            let (mean, std) = (f64::from(self.mean[colour]), f64::from(self.std[colour]));
            [1.0 / (255.0 * std), 255.0 * mean - 128.0]
        })
    }

    /// RGB bytes as numbers, in the order of the bytes.
    pub(crate) fn rows(&self, image: &[u8]) -> Vec<f32> {
        let colours = self.mean.iter().zip(&self.std).cycle();
        let pixels = image.iter().zip(colours);
        pixels
            .map(|(x, (mean, std))| (f32::from(*x) / 255.0 - mean) / std)
            .collect()
    }
}

/// One layer of a lowered model, for listings.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Layer {
    /// `conv`, `linear`, `depthwise`, `layernorm`, `attention`, `pool_linear`.
    pub kind: &'static str,
    /// Name of the source node that computes its result.
    pub name: String,
    /// Rows (pixels or tokens) of the result.
    pub rows: usize,
    /// Channels of the result.
    pub channels: usize,
    /// Multiply-accumulates.
    pub macs: u64,
}

/// What goes into a plan besides the model and its ranges.
#[derive(Debug, Clone, Copy)]
pub struct Options<'a> {
    /// How pixels were normalised in training.
    pub normalisation: Normalisation,
    /// How photos become images of the model's size.
    pub preprocess: vitlet_preprocess::Preprocess,
    /// One per class, or none.
    pub labels: &'a [String],
    /// For provenance.
    pub model_name: &'a str,
}

impl Options<'_> {
    /// For plans that are only measured.
    pub(crate) fn unnamed(calibration: &Calibration) -> Self {
        Options {
            normalisation: calibration.normalisation,
            preprocess: calibration.preprocess,
            labels: &[],
            model_name: "calibration",
        }
    }
}

/// An ONNX file, parsed and lowered to whole layers.
#[derive(Debug)]
pub struct Model {
    graph: Graph,
    reference: Reference,
    sha256: [u8; 32],
    /// The image is H×W×3 in the ONNX file, not 3×H×W.
    channels_last: bool,
}

impl Model {
    /// Reads, parses and lowers an ONNX file.
    ///
    /// # Errors
    /// Everything of [`CompileError`] up to [`CompileError::Unsupported`], which lists all operations without an int8 form.
    pub fn open(path: &Path) -> Result<Model, CompileError> {
        let bytes = std::fs::read(path).map_err(|source| CompileError::Read {
            path: path.to_owned(),
            source,
        })?;
        let (source, reference) = frontend::load(path, &bytes)?;
        let mut graph = lower::lower(&source)?;
        quantise::prepare(&mut graph)?;
        let channels_last = source.nodes[source.input].shape.get(1) != Some(&3);
        Ok(Model {
            graph,
            reference,
            sha256: digest(path, &bytes)?,
            channels_last,
        })
    }

    /// The lowered model.
    #[must_use]
    pub fn graph(&self) -> &Graph {
        &self.graph
    }

    /// The f32 reference that can compute any value of the lowered model.
    #[must_use]
    pub fn reference(&self) -> &Reference {
        &self.reference
    }

    /// Height and width of the image.
    #[must_use]
    pub fn image_size(&self) -> [usize; 2] {
        self.graph.image
    }

    /// Number of logits.
    #[must_use]
    pub fn classes(&self) -> usize {
        self.graph.values[self.graph.output].channels
    }

    /// Multiply-accumulates of one inference.
    #[must_use]
    pub fn macs(&self) -> u64 {
        self.graph.ops.iter().map(|op| self.graph.macs(op)).sum()
    }

    /// Multiply-accumulates that a plan has more by the tensors that ranges keep in 16 bits.
    #[must_use]
    pub fn extra_macs(&self, ranges: &Ranges) -> u64 {
        let kept = ranges.kept_values(&self.graph).into_iter();
        kept.map(|value| quantise::planes::extra_macs(&self.graph, value))
            .sum()
    }

    /// Weights, biases and other constants of the layers; what several layers share (one linear layer over tokens of two kinds, say)
    /// counts once.
    #[must_use]
    pub fn parameters(&self) -> u64 {
        let mut seen = BTreeSet::new();
        let mut count = 0;
        for op in &self.graph.ops {
            let arrays: Vec<&[f32]> = match &op.kind {
                Kind::Conv { weights, bias, .. }
                | Kind::Linear { weights, bias, .. }
                | Kind::Depthwise { weights, bias, .. }
                | Kind::PoolLinear { weights, bias } => vec![weights, bias],
                Kind::LayerNorm { gamma, beta, .. } | Kind::GroupNorm { gamma, beta, .. } => {
                    vec![gamma, beta]
                }
                Kind::Attention { v, bias, .. } => {
                    let table = bias.as_ref().map_or(&[][..], |b| &b.table);
                    vec![&v.constants, table]
                }
                Kind::AddConstant(constant) => vec![constant],
                _ => vec![],
            };
            let numbers = || arrays.iter().copied().flatten();
            let mut hash = Sha256::new();
            numbers().for_each(|x| hash.update(x.to_le_bytes()));
            if seen.insert(<[u8; 32]>::from(hash.finalize())) {
                count += numbers().count() as u64;
            }
        }
        count
    }

    /// Every layer, in execution order.
    #[must_use]
    pub fn layers(&self) -> Vec<Layer> {
        let layer = |op: &crate::ir::Op| {
            let value = &self.graph.values[op.output];
            Layer {
                kind: op.kind_name(),
                name: value.name.clone(),
                rows: value.rows,
                channels: value.channels,
                macs: self.graph.macs(op),
            }
        };
        let ops = self.graph.ops.iter().filter(|op| !is_structural(op));
        ops.map(layer).collect()
    }

    /// Layer norms whose channels have scales of their own, by ranges of this model.
    #[must_use]
    pub fn folded_norms(&self, ranges: &Ranges) -> usize {
        ranges.folded(&self.graph)
    }

    /// Compares every lowered layer with tract in f32, before any quantisation, on one image (H×W×3 RGB bytes).
    ///
    /// # Errors
    /// [`CompileError::Reference`] when the image has another size or tract fails.
    pub fn check_lowering(
        &self,
        normalisation: &Normalisation,
        image: &[u8],
    ) -> Result<LoweringCheck, CompileError> {
        check_lowering(
            &self.graph,
            &self.reference,
            &self.normalised(normalisation, image)?,
        )
    }

    /// Starts calibration.
    ///
    /// # Errors
    /// [`CompileError::Reference`] when tract cannot optimise the model.
    pub fn calibrator(&self, calibration: &Calibration) -> Result<Calibrator<'_>, CompileError> {
        Calibrator::new(self, calibration)
    }

    /// The model in f32, by tract.
    ///
    /// # Errors
    /// [`CompileError::Reference`] when tract cannot optimise the model.
    pub fn classifier(
        &self,
        normalisation: &Normalisation,
    ) -> Result<Classifier<'_>, CompileError> {
        let logits = &self.graph.values[self.graph.output];
        let Some(source) = &logits.source else {
            let reason = format!("no node of the model holds the logits `{}`", logits.name);
            return Err(CompileError::Reference(reason));
        };
        let probe = self.reference.probe(&[source.node])?;
        Ok(Classifier {
            model: self,
            normalisation: *normalisation,
            probe,
        })
    }

    /// Quantises and writes the plan. The bytes are a pure function of the ONNX file, the ranges and the options.
    ///
    /// # Errors
    /// [`CompileError::Ranges`] when the ranges are of another model or preprocessing, [`CompileError::Quantise`] when
    /// something has no int8 form, [`CompileError::Plan`] when the plan does not pass its own verification.
    pub fn compile(
        &self,
        ranges: &Ranges,
        options: &Options<'_>,
    ) -> Result<AlignedBytes, CompileError> {
        if ranges.model_sha256 != self.sha256_hex() {
            return Err(CompileError::Ranges(
                "they were measured on another ONNX file".into(),
            ));
        }
        quantise::compile(&self.graph, self.sha256, ranges, options)
    }

    pub(crate) fn sha256_hex(&self) -> String {
        self.sha256.iter().map(|b| format!("{b:02x}")).collect()
    }

    /// RGB bytes as the model's f32 input, in its own layout.
    pub(crate) fn normalised(
        &self,
        n: &Normalisation,
        image: &[u8],
    ) -> Result<Vec<f32>, CompileError> {
        let [height, width] = self.graph.image;
        if image.len() != height * width * 3 {
            let found = image.len();
            return Err(CompileError::Reference(format!(
                "an image of {height}×{width}×3 bytes is expected, got {found}"
            )));
        }
        let rows = n.rows(image);
        if self.channels_last {
            return Ok(rows);
        }
        let plane = |c: usize| rows.iter().skip(c).step_by(3).copied();
        Ok((0..3).flat_map(plane).collect())
    }
}

/// SHA-256 of an ONNX file and of the files beside it that hold its weights, if there are any.
fn digest(path: &Path, bytes: &[u8]) -> Result<[u8; 32], CompileError> {
    let mut hash = Sha256::new_with_prefix(bytes);
    for file in frontend::weight_files(path, bytes) {
        let weights = std::fs::read(&file).map_err(|source| CompileError::Read {
            path: file.clone(),
            source,
        })?;
        hash.update(&weights);
    }
    Ok(hash.finalize().into())
}

/// A model in f32, run by tract: what int8 results are compared with.
#[derive(Debug)]
pub struct Classifier<'m> {
    model: &'m Model,
    normalisation: Normalisation,
    probe: Probe,
}

impl Classifier<'_> {
    /// The logits of one image (H×W×3 RGB bytes of the model's size).
    ///
    /// # Errors
    /// [`CompileError::Reference`] when the size is wrong or tract fails.
    pub fn logits(&self, image: &[u8]) -> Result<Vec<f32>, CompileError> {
        let outputs = self
            .probe
            .run(&self.model.normalised(&self.normalisation, image)?)?;
        Ok(outputs
            .into_iter()
            .next()
            .map(|t| t.data)
            .unwrap_or_default())
    }
}
