//! Bias correction: what 8 bits shift a layer's results by on average goes into its bias (Nagel et al., "Data-free quantization
//! through weight equalization and bias correction", 2019, section 4.2, the variant that measures).
//!
//! The plan runs on the calibration photos, and the mean of every layer's result, channel by channel, is compared with that of
//! the f32 model: rounded weights, clipped activations, functions on them. Each layer answers for what it does not inherit; where
//! a branch joins the stream it answers for the whole branch. Corrections of one layer change what the next ones inherit, so all
//! are measured again after each round. A quarter of the photos is held out: a correction that the
//! others ask for is made only where it brings the means of these nearer, and of all rounds that one is kept whose logits there
//! have the least noise.

use vitlet_engine::Engine;
use vitlet_kernels::Kernel;
use vitlet_plan::{AlignedBytes, DType, Op as PlanOp, Plan};

use super::PARTS;
use super::photos::Photos;
use crate::deviation::Deviation;
use crate::error::CompileError;
use crate::ir::{Graph, Kind, Op, ValueId};
use crate::layers::{matched, plane_makers};
use crate::ranges::Ranges;

/// Measurements, each with the corrections of the one before.
const ROUNDS: usize = 4;
/// The part of the photos that is held out.
const HELD_OUT: usize = PARTS - 1;

/// Sums per channel, over rows and photos.
#[derive(Debug, Clone, Default, PartialEq)]
pub(super) struct Means {
    sums: Vec<f64>,
    rows: f64,
}

impl Means {
    /// Adds rows of so many channels.
    pub(super) fn add<R>(&mut self, rows: impl Iterator<Item = R>, channels: usize)
    where
        R: Iterator<Item = f64>,
    {
        self.sums.resize(channels, 0.0);
        for row in rows {
            self.sums.iter_mut().zip(row).for_each(|(sum, x)| *sum += x);
            self.rows += 1.0;
        }
    }

    fn merge(&mut self, other: &Means) {
        self.sums.resize(other.sums.len().max(self.sums.len()), 0.0);
        let sums = self.sums.iter_mut().zip(&other.sums);
        sums.for_each(|(sum, x)| *sum += x);
        self.rows += other.rows;
    }

    fn mean(&self) -> impl Iterator<Item = f64> + '_ {
        self.sums.iter().map(|sum| sum / self.rows.max(1.0))
    }

    /// How far these means are from others.
    fn shift(&self, from: &Means) -> Vec<f64> {
        self.mean().zip(from.mean()).map(|(a, b)| a - b).collect()
    }
}

/// Means of one value on the photos that corrections are made from, and on those held out.
fn split(parts: &[Means; PARTS]) -> [Means; 2] {
    let mut fit = Means::default();
    parts[..HELD_OUT].iter().for_each(|part| fit.merge(part));
    [fit, parts[HELD_OUT].clone()]
}

/// What is known of a model's values in f32: means per part of the samples, by value.
pub(super) struct Reference<'r> {
    /// Sample i is of part i mod [`PARTS`].
    pub(super) photos: Photos<'r>,
    pub(super) means: &'r dyn Fn(ValueId) -> Option<&'r [Means; PARTS]>,
}

impl Reference<'_> {
    /// The SQNR of the logits on the photos held out, in dB.
    pub(super) fn sqnr(&self, ranges: &Ranges) -> Result<Option<f64>, CompileError> {
        Ok(self.run(ranges)?.held_out.sqnr_db())
    }

    /// The ranges with the corrections that help, and the SQNR of the logits on the photos held out, in dB.
    pub(super) fn correct(
        &self,
        mut ranges: Ranges,
    ) -> Result<(Ranges, Option<f64>), CompileError> {
        let graph = self.photos.model.graph();
        let mut best: Option<(f64, Ranges)> = None;
        for _ in 0..ROUNDS {
            let run = self.run(&ranges)?;
            let Some(sqnr) = run.held_out.sqnr_db() else {
                break;
            };
            if best.as_ref().is_none_or(|(least, _)| sqnr > *least) {
                best = Some((sqnr, ranges.clone()));
            }
            let shifts = |value: ValueId| -> Option<[Vec<f64>; 2]> {
                let [wanted, found] = [(self.means)(value)?, run.means.get(value)?].map(split);
                let shift = |part: usize| found[part].shift(&wanted[part]);
                (found[0].rows > 0.0).then(|| [shift(0), shift(1)])
            };
            for op in graph.ops.iter().filter(|op| is_corrected(op)) {
                if let Some(shift) = own_shift(graph, op, &shifts) {
                    ranges.correct(graph, op.output, &shift);
                }
            }
        }
        Ok(match best {
            Some((sqnr, ranges)) => (ranges, Some(sqnr)),
            None => (ranges, None),
        })
    }

    /// Runs the plan that the ranges give on all samples.
    fn run(&self, ranges: &Ranges) -> Result<Run, CompileError> {
        let graph = self.photos.model.graph();
        let bytes = self.photos.compile(ranges)?;
        let failed = |e: &dyn std::fmt::Display| CompileError::Plan(e.to_string());
        let plan = Plan::parse(&bytes).map_err(|e| failed(&e))?;
        let results = results(graph, &plan);
        let mut engine = Engine::new(&plan, Kernel::detect());
        let mut arena = AlignedBytes::zeroed(engine.arena_len());
        let mut run = Run {
            means: vec![<[Means; PARTS]>::default(); graph.values.len()],
            held_out: Deviation::default(),
        };
        let scale = plan.output().scale;
        for (index, sample) in self.photos.samples.iter().enumerate() {
            let part = index % PARTS;
            let means = &mut run.means;
            let mut observe = |op: usize, record: &PlanOp<'_>, rows: &[u8]| {
                if let Some(Some(result)) = results.get(op) {
                    add(
                        &mut means[result.value][part],
                        &plan,
                        record,
                        rows,
                        result.part,
                    );
                }
            };
            let logits = engine.run_traced(&mut arena, &sample.image, &mut observe);
            let logits = logits.map_err(|e| failed(&e))?;
            if part == HELD_OUT {
                let logits: Vec<f32> = logits.iter().map(|x| *x as f32 * scale).collect();
                run.held_out.add(&logits, &sample.logits);
            }
        }
        Ok(run)
    }
}

/// What an op of a plan makes.
struct Made {
    value: ValueId,
    /// Whether it is only to be added to another op's result: the low plane of a value.
    part: bool,
}

/// The value that each op of a plan makes, or a plane of.
fn results(graph: &Graph, plan: &Plan<'_>) -> Vec<Option<Made>> {
    let whole = |op: &Op| Made {
        value: op.output,
        part: false,
    };
    let ops = matched(graph, plan).into_iter();
    let mut results: Vec<Option<Made>> = ops.map(|op| op.map(whole)).collect();
    for (value, makers) in plane_makers(graph, plan) {
        let known = results.iter().flatten().any(|made| made.value == value);
        for (maker, part) in makers.into_iter().zip([false, true]).filter(|_| !known) {
            results[maker] = Some(Made { value, part });
        }
    }
    results
}

/// What a plan made of the samples.
struct Run {
    means: Vec<[Means; PARTS]>,
    held_out: Deviation,
}

/// Layers whose bias can take up a shift: it is added to their results as they are.
fn is_corrected(op: &Op) -> bool {
    let plain = op.epilogue().is_none_or(|e| e.activation.is_none());
    let weights = matches!(
        op.kind,
        Kind::Conv { .. } | Kind::Linear { .. } | Kind::Depthwise { .. } | Kind::PoolLinear { .. }
    );
    plain && weights
}

/// Adds an op's result, or some rows of it, to the means of a value; a part of it to what is there.
fn add(means: &mut Means, plan: &Plan<'_>, op: &PlanOp<'_>, rows: &[u8], part: bool) {
    let Some(tensor) = plan.tensor(op.output) else {
        return;
    };
    let channels = tensor.shape[3] as usize;
    let scales: Option<Vec<f64>> = (0..channels)
        .map(|c| tensor.scale_of(c).map(f64::from))
        .collect();
    let Some(scales) = scales.filter(|scales| !scales.is_empty()) else {
        return;
    };
    let zero = f64::from(tensor.zero_point);
    let integer = |bytes: &[u8]| match (tensor.dtype, bytes) {
        (DType::S8, [a]) => f64::from(*a as i8),
        (DType::S16, [a, b]) => f64::from(i16::from_ne_bytes([*a, *b])),
        (DType::S32, [a, b, c, d]) => f64::from(i32::from_ne_bytes([*a, *b, *c, *d])),
        _ => 0.0,
    };
    let number = |(bytes, scale): (&[u8], &f64)| (integer(bytes) - zero) * scale;
    let size = tensor.dtype.size();
    let rows = rows.chunks_exact(size * channels);
    let rows = rows.map(|row| row.chunks_exact(size).zip(&scales).map(number));
    let counted = means.rows;
    means.add(rows, channels);
    if part {
        means.rows = counted;
    }
}

/// The correction of a layer, if it helps on what is held out: the shift of its results less what it inherits and passes on. A
/// layer that adds a residual passes on the residual's, and what the rest of its branch inherits ends here; but if it is its own branch
/// (a position encoding), nothing of that branch is without a bias, and what the residual's shift makes of its sums is passed on, too.
/// Others pass on what their input's shift makes of their sums.
fn own_shift(
    graph: &Graph,
    op: &Op,
    shifts: &dyn Fn(ValueId) -> Option<[Vec<f64>; 2]>,
) -> Option<Vec<f64>> {
    let mut own = shifts(op.output)?;
    let residual = op.epilogue().and_then(|e| e.residual);
    let input = *op.inputs.first()?;
    let mut take_off = |inherited: [Vec<f64>; 2]| {
        for (own, inherited) in own.iter_mut().zip(inherited) {
            own.iter_mut().zip(inherited).for_each(|(a, b)| *a -= b);
        }
    };
    if let Some(residual) = residual {
        take_off(shifts(residual)?);
    }
    let whole_branch = residual.is_none_or(|r| r == input || r == wide_form(graph, input));
    if whole_branch && input != graph.input {
        take_off(shifts(input)?.map(|shift| through(op, &shift)));
    }
    let [fit, held_out] = own;
    helps(&fit, &held_out).then_some(fit)
}

/// What a value was before it was converted to the type that a layer reads.
fn wide_form(graph: &Graph, value: ValueId) -> ValueId {
    let mut ops = graph.ops.iter();
    let made = ops.find(|op| op.output == value && op.kind == Kind::Convert);
    made.and_then(|op| op.inputs.first().copied())
        .unwrap_or(value)
}

/// What a layer's weights make of a shift of its input's channels. (Where the window reaches past the border they make less.)
fn through(op: &Op, shift: &[f64]) -> Vec<f64> {
    match &op.kind {
        Kind::Conv { weights, bias, .. }
        | Kind::Linear { weights, bias, .. }
        | Kind::PoolLinear { weights, bias } => {
            let rows = weights.chunks((weights.len() / bias.len().max(1)).max(1));
            let sum = |row: &[f32]| row.iter().zip(shift.iter().cycle()).map(product).sum();
            rows.map(sum).collect()
        }
        Kind::Depthwise { weights, bias, .. } => {
            let mut sums = vec![0.0; bias.len()];
            for taps in weights.chunks(bias.len().max(1)) {
                let products = taps.iter().zip(shift).map(product);
                sums.iter_mut().zip(products).for_each(|(sum, x)| *sum += x);
            }
            sums
        }
        _ => vec![],
    }
}

fn product((weight, x): (&f32, &f64)) -> f64 {
    f64::from(*weight) * x
}

/// Whether shifts get smaller when others are taken off.
fn helps(correction: &[f64], shifts: &[f64]) -> bool {
    let before: f64 = shifts.iter().map(|x| x * x).sum();
    let after = shifts.iter().zip(correction).map(|(x, c)| (x - c).powi(2));
    after.sum::<f64>() < before
}

#[cfg(test)]
mod tests {
    use super::*;

    fn add(means: &mut Means, numbers: &[f64]) {
        means.add(numbers.chunks(2).map(|row| row.iter().copied()), 2);
    }

    #[test]
    fn a_shift_goes_through_the_weights_of_its_channel() {
        let mut b = crate::memory::tests::Builder::new(4);
        let end = b.linear(0, None);
        let mut op = b.finish(end).ops.remove(0);
        op.kind = Kind::Linear {
            weights: vec![1.0, 2.0, 3.0, 4.0],
            bias: vec![0.0; 2],
            epilogue: crate::ir::Epilogue::default(),
        };
        assert_eq!(through(&op, &[1.0, -1.0]), [-1.0, -1.0]);
        // Two taps of two channels.
        op.kind = Kind::Depthwise {
            geometry: crate::ir::Geometry::per_row(1),
            weights: vec![1.0, 2.0, 3.0, 4.0],
            bias: vec![0.0; 2],
            epilogue: crate::ir::Epilogue::default(),
        };
        assert_eq!(through(&op, &[1.0, -1.0]), [4.0, -6.0]);
    }

    #[test]
    fn a_layer_that_is_its_own_branch_answers_for_itself_alone() {
        let mut b = crate::memory::tests::Builder::new(4);
        let x = b.linear(0, None);
        let narrow = b.op(Kind::Convert, &[x], 4);
        let position = b.linear(narrow, Some(x));
        let other = b.linear(0, None);
        let branch = b.linear(other, Some(x));
        let end = b.linear(branch, None);
        let mut graph = b.finish(end);
        for op in &mut graph.ops {
            if let Kind::Linear { weights, bias, .. } = &mut op.kind {
                (*weights, *bias) = (vec![3.0, 0.0, 0.0, 3.0], vec![0.0; 2]);
            }
        }
        // The stream is off by 1 and −2, and the layer that reads it makes 3 and −6 of that, and adds a tenth.
        let shifts = |value: ValueId| {
            let shift = if value == x || value == narrow {
                vec![1.0, -2.0]
            } else if value == position || value == branch {
                vec![4.1, -7.9]
            } else {
                vec![0.0; 2]
            };
            Some([shift.clone(), shift])
        };
        let own = |value: ValueId| {
            let op = graph.ops.iter().find(|op| op.output == value);
            own_shift(&graph, op.expect("an op makes it"), &shifts).expect("it helps")
        };
        let near = |found: Vec<f64>, wanted: [f64; 2]| {
            let pairs = found.iter().zip(wanted);
            assert!(
                pairs.fold(0.0, |m, (a, b)| f64::max(m, (a - b).abs())) < 1e-9,
                "{found:?}"
            );
        };
        near(own(position), [0.1, 0.1]);
        // Another branch has more layers, which inherited what they brought.
        near(own(branch), [3.1, -5.9]);
    }

    #[test]
    fn means_are_per_channel_and_over_all_pieces() {
        let mut whole = Means::default();
        add(&mut whole, &[1.0, 10.0, 3.0, 20.0, 5.0, 60.0]);
        assert!(whole.mean().eq([3.0, 30.0]));
        let mut pieces = Means::default();
        add(&mut pieces, &[1.0, 10.0]);
        let mut rest = Means::default();
        add(&mut rest, &[3.0, 20.0, 5.0, 60.0]);
        pieces.merge(&rest);
        assert_eq!(pieces, whole);
        let mut other = Means::default();
        add(&mut other, &[2.5, 31.0]);
        assert_eq!(whole.shift(&other), [0.5, -1.0]);
    }

    #[test]
    fn only_what_helps_on_other_photos_is_corrected() {
        assert!(helps(&[1.0, 0.5], &[0.8, 0.7]));
        // Twice the shift makes it no smaller, and a shift of the other sign is worse.
        assert!(!helps(&[2.0], &[1.0]));
        assert!(!helps(&[-0.1], &[1.0]));
    }
}
