//! Streaming statistics of every activation: memory does not grow with the number of photos.
//!
//! Each photo runs once through tract in f32. Per activation a [`Histogram`] counts what was seen; from it a [`Method`] makes
//! the clipping range of an 8-bit grid. One file per method; all read the same histogram. Photos are dealt to four histograms in
//! turn, so that `auto` can choose between the methods by their error on photos that the ranges were not made from. What else follows
//! from the photos: [`fold`] finds scales for the channels of layer norms, [`mixed`] tensors that are worth 16 bits, and then [`bias`]
//! corrections of biases; [`photos`] measures plans for them.

mod auto;
mod bias;
mod descent;
mod entropy;
mod fold;
mod histogram;
mod loss;
mod method;
mod min_max;
mod mixed;
mod mse;
mod percentile;
mod photos;

use std::ops::Range;

use self::bias::{Means, Reference};
use self::fold::Norm;
use self::histogram::Histogram;
pub use self::method::Method;
use self::mixed::Mixer;
pub use self::mixed::{Chosen, Mixed, Progress};
use self::photos::{Photos, Sample};
use crate::error::CompileError;
use crate::eval::{Expected, before, source_nodes};
use crate::frontend::{NodeId, Probe};
use crate::ir::{Graph, Kind, Op, ValueId};
use crate::keep::Keep;
use crate::lower::expr::Expr;
use crate::model::{Model, Normalisation};
use crate::ranges::{Header, Ranges, ValueRange};

/// Each of so many parts of the photos is held out in turn.
const PARTS: usize = 4;
/// With fewer photos none are held out: `auto` is `mse` then, and biases stay as they are.
const ENOUGH: u32 = 16;
/// So many photos, the first ones, are kept to measure plans with.
const KEPT: usize = 64;

/// How to calibrate.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Calibration {
    /// How pixels were normalised in training.
    pub normalisation: Normalisation,
    /// How the photos become images of the model's size; the ranges are good for this only.
    pub preprocess: vitlet_preprocess::Preprocess,
    /// How ranges are chosen.
    pub method: Method,
    /// Whether what 8 bits shift results by on average is taken into the biases, where that helps.
    pub correct_bias: bool,
    /// Whether what a layer norm hands to matrix products has a scale for each channel, where that helps.
    pub fold_norms: bool,
}

/// Collects statistics photo by photo.
#[derive(Debug)]
pub struct Calibrator<'m> {
    model: &'m Model,
    calibration: Calibration,
    /// Source nodes that the probe hands out.
    nodes: Vec<NodeId>,
    probe: Probe,
    watched: Vec<Watched<'m>>,
    kept: Vec<Sample>,
    images: u32,
}

/// One activation under observation.
#[derive(Debug)]
struct Watched<'m> {
    value: ValueId,
    /// The activation function that follows, if the value is only the index of its table.
    function: Option<&'m Expr>,
    /// Whether the largest magnitude of each channel is wanted.
    per_channel: bool,
    /// Channels that have one scale, because they are one head's.
    heads: Vec<Range<usize>>,
    histogram: Parts,
    /// Largest magnitude per channel; empty unless asked for.
    channels: Vec<f32>,
    /// A histogram per head.
    of_heads: Vec<Parts>,
    /// On the photos that are kept.
    means: [Means; PARTS],
    /// Of a layer norm's result whose channels may have scales of their own.
    norm: Option<Norm>,
}

/// What was seen on each part of the photos.
type Parts = [Histogram; PARTS];

impl<'m> Calibrator<'m> {
    pub(crate) fn new(model: &'m Model, calibration: &Calibration) -> Result<Self, CompileError> {
        let graph = model.graph();
        let values = used_values(graph);
        let nodes = source_nodes(graph, values.clone());
        let probe = model.reference().probe(&nodes)?;
        let per_channel = attention_operands(graph);
        let watched = values.into_iter().map(|value| {
            let mut watched = Watched::new(graph, value, per_channel[value]);
            if calibration.fold_norms && can_fold(graph, value) {
                watched.norm = Some(Norm::default());
            }
            watched
        });
        Ok(Calibrator {
            model,
            calibration: *calibration,
            nodes,
            probe,
            watched: watched.collect(),
            kept: vec![],
            images: 0,
        })
    }

    /// Runs one photo: H×W×3 RGB bytes of the model's size. Returns the class that the f32 model sees.
    ///
    /// # Errors
    /// [`CompileError::Reference`] when the size is wrong or tract fails, [`CompileError::Quantise`] when an activation is
    /// not finite.
    pub fn add(&mut self, image: &[u8]) -> Result<usize, CompileError> {
        let graph = self.model.graph();
        let input = self
            .model
            .normalised(&self.calibration.normalisation, image)?;
        let outputs = self.probe.run(&input)?;
        let expected = Expected::new(graph, &self.nodes, &outputs);
        let part = self.images as usize % PARTS;
        let keep = self.kept.len() < KEPT;
        for w in &mut self.watched {
            let value = &graph.values[w.value];
            let data = expected.read(w.value);
            if keep && self.calibration.correct_bias {
                let rows = data.chunks(value.channels.max(1));
                let rows = rows.map(|row| row.iter().copied().map(f64::from));
                w.means[part].add(rows, value.channels);
            }
            if !w.add(part, &data, value.channels) {
                let reason = "it is infinite or not a number on a calibration photo".to_string();
                return Err(CompileError::Quantise {
                    what: value.name.clone(),
                    reason,
                });
            }
        }
        let logits = expected.read(graph.output);
        let best = (0..logits.len()).max_by(|a, b| logits[*a].total_cmp(&logits[*b]));
        if keep {
            let image = image.to_vec();
            self.kept.push(Sample { image, logits });
        }
        self.images += 1;
        Ok(best.unwrap_or(0))
    }

    /// Photos seen so far.
    #[must_use]
    pub fn images(&self) -> u32 {
        self.images
    }

    /// The ranges.
    ///
    /// # Errors
    /// [`CompileError::NoCalibration`] when no photo was added; as [`Model::compile`] when biases are to be corrected, since plans are
    /// made and run for that.
    pub fn finish(self) -> Result<Ranges, CompileError> {
        self.finish_keeping(&[])
    }

    /// The ranges, with tensors that are kept in 16 bits.
    ///
    /// # Errors
    /// As [`Calibrator::finish`].
    pub fn finish_keeping(self, keep: &[Keep]) -> Result<Ranges, CompileError> {
        let ranges = self.uncorrected(keep)?;
        if !self.calibration.correct_bias {
            return Ok(ranges);
        }
        self.corrected(ranges).map(|(ranges, _)| ranges)
    }

    /// The same, and then tensors are chosen that are worth 16 bits: all that have them add at most `percent` of the model's
    /// multiply-accumulates.
    ///
    /// # Errors
    /// As [`Calibrator::finish`]; [`CompileError::FewPhotos`] when too few photos were added to choose by.
    pub fn finish_mixed(
        self,
        keep: &[Keep],
        percent: f64,
        progress: Progress<'_>,
    ) -> Result<(Ranges, Mixed), CompileError> {
        let narrow = self.uncorrected(keep)?;
        let mixer = Mixer {
            photos: self.photos(),
        };
        let mut wide = narrow.clone();
        let mut mixed = mixer.choose(&mut wide, percent, progress)?;
        let (narrow, before_db) = self.corrected(narrow)?;
        let (wide, after_db) = self.corrected(wide)?;
        // Of equals, and of what cannot be compared, the one that costs less.
        let better = after_db > before_db;
        if !better {
            mixed.chosen.clear();
        }
        mixed.before_db = before_db;
        mixed.after_db = if better { after_db } else { before_db };
        Ok((if better { wide } else { narrow }, mixed))
    }

    /// The ranges with tensors kept in 16 bits, biases left as they are.
    fn uncorrected(&self, keep: &[Keep]) -> Result<Ranges, CompileError> {
        if self.images == 0 {
            return Err(CompileError::NoCalibration);
        }
        let mut ranges = self.better_folded(self.ranges())?;
        keep.iter()
            .for_each(|keep| ranges.keep_16(self.model, keep));
        Ok(ranges)
    }

    /// The ranges, or the same without scales for the channels of layer norms if these do not bring the logits nearer to f32's. Each
    /// brings the next layers nearer, but all together need not.
    fn better_folded(&self, folded: Ranges) -> Result<Ranges, CompileError> {
        let graph = self.model.graph();
        if folded.folded(graph) == 0 {
            return Ok(folded);
        }
        let (photos, plain) = (self.photos(), folded.clone().unfolded(graph));
        let better = photos.deviation(&folded)?.noise() < photos.deviation(&plain)?.noise();
        Ok(if better { folded } else { plain })
    }

    /// The photos that are kept.
    fn photos(&self) -> Photos<'_> {
        Photos {
            model: self.model,
            calibration: &self.calibration,
            samples: &self.kept,
        }
    }

    /// The ranges, biases left as they are.
    fn ranges(&self) -> Ranges {
        // Too few photos to hold some out: the usual method then.
        let few = self.calibration.method == Method::Auto && self.images < ENOUGH;
        let method = if few {
            Method::Mse
        } else {
            self.calibration.method
        };
        let header = Header {
            model_sha256: self.model.sha256_hex(),
            images: self.images,
            calibration: self.calibration,
        };
        let graph = self.model.graph();
        let range = |w: &Watched<'_>| {
            let mut range = w.range(graph.values[w.value].name.clone(), method);
            if let Some(channels) = self.folded(graph, w, method) {
                range.channels = channels;
            }
            range
        };
        Ranges::new(header, self.watched.iter().map(range).collect())
    }

    /// The ranges of a layer norm's channels, if they are to have scales of their own.
    fn folded(&self, graph: &Graph, w: &Watched<'_>, method: Method) -> Option<Vec<f32>> {
        let norm = w.norm.as_ref().filter(|_| self.images >= ENOUGH)?;
        let others = merged(&w.histogram[..PARTS - 1]);
        norm.choose(
            &fold::readers(graph, w.value)?,
            method.range_of(&others, None),
        )
    }

    /// The ranges with what corrections help, if they are wanted and enough photos were kept to tell; and the SQNR of the logits on
    /// the photos held out, in dB.
    fn corrected(&self, ranges: Ranges) -> Result<(Ranges, Option<f64>), CompileError> {
        if self.kept.len() < ENOUGH as usize {
            return Ok((ranges, None));
        }
        let means = |value| Some(&self.watched.iter().find(|w| w.value == value)?.means);
        let reference = Reference {
            photos: self.photos(),
            means: &means,
        };
        if !self.calibration.correct_bias {
            let sqnr = reference.sqnr(&ranges)?;
            return Ok((ranges, sqnr));
        }
        reference.correct(ranges)
    }
}

/// The values that exist in the plan: the image apart, every result and every result before an activation function.
pub(crate) fn used_values(graph: &Graph) -> Vec<ValueId> {
    let mut values = vec![];
    for op in &graph.ops {
        values.extend(before(op));
        values.push(op.output);
    }
    values
}

/// Values that attention reads, and those that share their scales because one lies inside the other or is its maximum.
fn attention_operands(graph: &Graph) -> Vec<bool> {
    let mut wanted = vec![false; graph.values.len()];
    let attention = |op: &&Op| matches!(op.kind, Kind::Attention { .. });
    for op in graph.ops.iter().filter(attention) {
        op.inputs.iter().for_each(|v| wanted[*v] = true);
    }
    let shares = |op: &&Op| {
        matches!(
            op.kind,
            Kind::Slice { .. } | Kind::Concat | Kind::MaxPool(_)
        )
    };
    let mut changed = true;
    while changed {
        changed = false;
        for op in graph.ops.iter().filter(shares) {
            let values = || op.inputs.iter().copied().chain([op.output]);
            if values().any(|v| wanted[v]) {
                changed |= values().any(|v| !std::mem::replace(&mut wanted[v], true));
            }
        }
    }
    wanted
}

/// Whether a value's channels can have scales of their own that a layer norm and the layers after it take.
pub(crate) fn can_fold(graph: &Graph, value: ValueId) -> bool {
    fold::readers(graph, value).is_some()
}

/// The channels of each head, where attention reads a value row by row.
fn heads(graph: &Graph, value: ValueId) -> Vec<Range<usize>> {
    let channels = graph.values[value].channels;
    let mut heads = vec![];
    for op in &graph.ops {
        let Kind::Attention { shape, q, k, v, .. } = &op.kind else {
            continue;
        };
        for operand in [q, k, v] {
            if operand.value == Some(value) && operand.channels == channels {
                let first = |head: usize| operand.column + head * operand.head_stride;
                heads.extend((0..shape.heads).map(|h| first(h)..first(h) + shape.head_dim));
            }
        }
    }
    heads.sort_unstable_by_key(|run| (run.start, run.end));
    heads.dedup();
    heads
}

impl<'m> Watched<'m> {
    fn new(graph: &'m Graph, value: ValueId, per_channel: bool) -> Self {
        let activations = graph
            .ops
            .iter()
            .filter_map(|op| op.epilogue()?.activation.as_ref());
        let function = activations
            .filter(|activation| activation.before == value)
            .map(|activation| &activation.function)
            .next();
        let heads = heads(graph, value);
        Watched {
            value,
            function,
            per_channel,
            of_heads: heads.iter().map(|_| Parts::default()).collect(),
            heads,
            histogram: Parts::default(),
            channels: vec![],
            means: Default::default(),
            norm: None,
        }
    }

    /// Counts a value, `[rows][channels]`; false when a number of it is not finite.
    fn add(&mut self, part: usize, data: &[f32], channels: usize) -> bool {
        if !self.histogram[part].add(data.iter()) {
            return false;
        }
        for (run, histogram) in self.heads.iter().zip(&mut self.of_heads) {
            let rows = data.chunks(channels.max(1));
            histogram[part].add(rows.filter_map(|row| row.get(run.clone())).flatten());
        }
        if let Some(norm) = &mut self.norm {
            norm.add(part, data, channels);
        }
        if self.per_channel {
            self.channels.resize(channels, 0.0);
            for row in data.chunks(channels.max(1)) {
                let tops = self.channels.iter_mut().zip(row);
                tops.for_each(|(top, x)| *top = top.max(x.abs()));
            }
        }
        true
    }

    /// The range by all photos.
    fn range(&self, name: String, method: Method) -> ValueRange {
        let (chosen, clip) = method.range(&self.histogram, self.function);
        let mut channels = self.channels.clone();
        if method == Method::Naive {
            let largest = channels.iter().copied().fold(0.0, f32::max);
            channels.fill(largest);
        } else {
            for (run, parts) in self.heads.iter().zip(&self.of_heads) {
                // Scales of heads are symmetric: what was seen counts with either sign.
                let (_, [low, high]) =
                    method.range(&parts.each_ref().map(Histogram::mirrored), None);
                if let Some(run) = channels.get_mut(run.clone()) {
                    run.fill(high.max(-low));
                }
            }
        }
        ValueRange {
            name,
            seen: merged(&self.histogram).seen(),
            clip,
            method: Some(chosen),
            channels,
            correction: vec![],
            ..ValueRange::default()
        }
    }
}

fn merged<'h>(parts: impl IntoIterator<Item = &'h Histogram>) -> Histogram {
    let mut all = Histogram::default();
    parts.into_iter().for_each(|part| all.merge(part));
    all
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use vitlet_preprocess::{Interpolation, Preprocess, Resize};

    use super::*;
    use crate::memory::tests::Random;

    fn model() -> Model {
        let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../models/tiny/tiny_pvt.onnx");
        Model::open(&file).expect("a model of the repository")
    }

    /// After as many photos of noise as are enough.
    fn calibrator(model: &Model) -> Calibrator<'_> {
        let squash = Preprocess::new(32, 32, Resize::Squash, Interpolation::Bilinear);
        let mut calibrator = model
            .calibrator(&Calibration {
                normalisation: Normalisation::IMAGENET,
                preprocess: squash.expect("sizes in bounds"),
                method: Method::Mse,
                correct_bias: true,
                fold_norms: true,
            })
            .expect("a probe");
        let mut random = Random(5);
        for _ in 0..ENOUGH {
            let image: Vec<u8> = (0..32 * 32 * 3).map(|_| random.below(256) as u8).collect();
            calibrator
                .add(&image)
                .expect("an image of the model's size");
        }
        calibrator
    }

    #[test]
    fn scales_of_channels_stay_only_if_the_logits_are_better() {
        let model = model();
        let calibrator = calibrator(&model);
        let graph = model.graph();
        let plain = calibrator.ranges().unfolded(graph);
        assert_eq!(plain.folded(graph), 0);
        // Every channel of every layer norm reaches 50 times too far: few steps are left.
        let mut coarse = plain.clone();
        for (value, range) in used_values(graph).into_iter().zip(&mut coarse.values) {
            if can_fold(graph, value) {
                let top = range.seen[1].max(-range.seen[0]);
                range.channels = vec![50.0 * top; graph.values[value].channels];
            }
        }
        assert!(coarse.folded(graph) > 5);
        let kept = calibrator.better_folded(coarse.clone()).expect("it runs");
        assert_eq!(kept, plain);
        // Beside ranges that are as coarse without them, scales that fit are kept.
        let mut fine = coarse;
        for (value, range) in used_values(graph).into_iter().zip(&mut fine.values) {
            if can_fold(graph, value) {
                let top = range.seen[1].max(-range.seen[0]);
                range.clip = [-50.0 * top, 50.0 * top];
                range.channels.fill(top);
            }
        }
        let kept = calibrator.better_folded(fine.clone()).expect("it runs");
        assert_eq!(kept, fine);
    }

    #[test]
    fn a_bias_that_is_off_is_corrected() {
        let model = model();
        let calibrator = calibrator(&model);
        let (graph, mut planted) = (model.graph(), calibrator.ranges());
        let logits = graph.output;
        let place = used_values(graph)
            .iter()
            .position(|v| *v == logits)
            .expect("logits");
        let correction = |ranges: &Ranges| ranges.values[place].correction.clone();
        let largest = planted.values[place]
            .seen
            .iter()
            .fold(0f32, |m, x| m.max(x.abs()));
        // Tenths of the largest logit, one more for each class.
        let shift: Vec<f64> = (0..graph.values[logits].channels)
            .map(|c| 0.1 * c as f64 * f64::from(largest))
            .collect();
        planted.correct(graph, logits, &shift);
        assert!(correction(&planted)[9] < -0.8 * largest);
        let (corrected, _) = calibrator.corrected(planted).expect("it compiles");
        let left = correction(&corrected);
        assert!(
            left.iter().all(|x| x.abs() < 0.05 * largest),
            "{left:?} of {largest}"
        );
    }
}
