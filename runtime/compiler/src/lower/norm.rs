//! Layer normalisation: Sum ·1/n → Sub → RmsNorm, with gamma and beta folded in when their Mul and Add come by.

use super::rowwise::RowOp;
use super::seen::{Part, Seen, split};
use super::state::Known;
use super::{Lowering, Outcome, channel_axis};
use crate::frontend::{NodeId, SourceNode};
use crate::ir::{Gather, Kind, Source};
use crate::view::{Factor, View};

impl Lowering<'_> {
    /// A tensor minus its own means.
    pub(super) fn centered(
        &self,
        seen: Seen,
        of: &Seen,
        cover: Vec<Factor>,
        mean: &View,
    ) -> Outcome {
        let differ: Vec<usize> = (0..seen.view.dims.len())
            .filter(|d| mean.dims.get(*d).is_some_and(|m| *m != seen.view.dims[*d]))
            .collect();
        let broadcast = seen.view.dims.len() == mean.dims.len()
            && differ.iter().all(|d| mean.dims[*d].is_empty())
            && seen.view.offset == mean.offset
            && seen.view.cover(&differ) == cover;
        if !broadcast || seen.base != of.base {
            return Err("a mean may only be subtracted from the tensor it was taken of".into());
        }
        Ok(Known::Centered { seen, cover })
    }

    /// RmsNorm of centred rows is a layer norm.
    pub(super) fn norm(&mut self, id: NodeId, node: &SourceNode, axis: usize, eps: f64) -> Outcome {
        let Known::Centered { seen, cover } = self.input(node, 0)? else {
            return Err(
                "a normalisation without mean subtraction (RMSNorm) is not supported".into(),
            );
        };
        if seen.view.cover(&[axis]) != cover {
            return Err("the mean and the variance must be taken over the same elements".into());
        }
        let channels = seen.base.channels(&self.values);
        let rows = seen.base.len(&self.values);
        if cover == channel_axis(channels) {
            return self.layer_norm(id, &seen, channels, eps);
        }
        if cover == channel_axis(rows * channels) {
            return self.group_norm(id, &seen, eps);
        }
        self.gathered_norm(id, &seen, axis, eps)
    }

    fn layer_norm(&mut self, id: NodeId, seen: &Seen, channels: usize, eps: f64) -> Outcome {
        let op = RowOp {
            channels,
            kind: &|_| Kind::LayerNorm {
                eps,
                gamma: vec![1.0; channels],
                beta: vec![0.0; channels],
                gather: None,
            },
            constant: &|rows| {
                rows.chunks(channels)
                    .flat_map(|r| normalised(r, eps))
                    .collect()
            },
            view: &View::clone,
        };
        let seen = self.row_wise(id, seen, &op)?;
        Ok(Known::View { seen, sole: true })
    }

    fn group_norm(&mut self, id: NodeId, seen: &Seen, eps: f64) -> Outcome {
        let (value, view) = self
            .as_whole(seen.clone())
            .ok_or("group normalisation must run over a whole tensor")?;
        let (rows, channels) = (self.values[value].rows, self.values[value].channels);
        let kind = Kind::GroupNorm {
            eps,
            gamma: vec![1.0; channels],
            beta: vec![0.0; channels],
        };
        Ok(self.emit(id, kind, vec![value], (rows, channels), view))
    }

    /// Several rows put side by side and normalised together, as patch merging does.
    fn gathered_norm(&mut self, id: NodeId, seen: &Seen, axis: usize, eps: f64) -> Outcome {
        let refuse = || {
            "layer normalisation must run over the channels of each row, or of several whole rows put side by side"
                .to_string()
        };
        let channels = seen.base.channels(&self.values);
        let last = seen.view.dims.len() - 1;
        let (over, inside) = split(seen.view.dims.get(axis).ok_or_else(refuse)?, channels);
        let segments: usize = over.iter().map(|f| f.size).product();
        if inside != channel_axis(channels) {
            return Err(refuse());
        }
        let moved = Seen {
            base: seen.base.clone(),
            view: seen.view.move_axis(axis, last).ok_or_else(refuse)?,
        };
        let moved = moved.in_order(&self.values).ok_or_else(refuse)?;
        let list = moved.base.rows(&self.values);
        let [Part::Value(value)] = list.parts.as_slice() else {
            return Err(refuse());
        };
        let (rows, width) = (list.index.len() / segments, segments * channels);
        // Rows of several parts side by side are rows of the result: the same elements in the same order.
        let view = moved.view.move_axis(last, axis).ok_or_else(refuse)?;
        if !view.covers(rows * width) {
            return Err(refuse());
        }
        let kind = Kind::LayerNorm {
            eps,
            gamma: vec![1.0; width],
            beta: vec![0.0; width],
            gather: Some(Gather {
                rows: list.index.iter().map(|(_, r)| *r).collect(),
                segments,
            }),
        };
        let source = Some(Source {
            node: id,
            view: view.clone(),
            rows: None,
        });
        let output = self.add_value(id, (rows, width), source);
        self.push(kind, vec![*value], output);
        Ok(Known::View {
            seen: Seen::value(output, view),
            sole: true,
        })
    }
}

fn normalised(row: &[f32], eps: f64) -> Vec<f32> {
    let n = row.len() as f64;
    let mean = row.iter().map(|x| f64::from(*x)).sum::<f64>() / n;
    let square = |x: &f32| (f64::from(*x) - mean).powi(2);
    let variance = row.iter().map(square).sum::<f64>() / n;
    let factor = 1.0 / (variance + eps).sqrt();
    row.iter()
        .map(|x| ((f64::from(*x) - mean) * factor) as f32)
        .collect()
}
