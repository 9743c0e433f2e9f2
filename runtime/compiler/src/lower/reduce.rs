//! Sums, means and maxima: halves of a layer norm, and pooling over all rows.

use super::seen::{Part, Seen, split};
use super::state::Known;
use super::{Lowering, Outcome};
use crate::frontend::{NodeId, SourceNode};
use crate::ir::{Epilogue, Geometry, Kind, Source, ValueId};
use crate::view::View;

impl Lowering<'_> {
    /// Sum over axes: of channels (half of a layer norm's mean) or of rows (half of a pooling).
    pub(super) fn sum(&mut self, id: NodeId, node: &SourceNode, axes: &[usize]) -> Outcome {
        if let Known::Weighted { probs, values } = self.input(node, 0)? {
            return self.weighted_sum(id, &probs, values, axes);
        }
        let seen = self.activation(node, 0)?;
        let cover = seen.view.cover(axes);
        let mut view = seen.view.clone();
        axes.iter().for_each(|axis| view.dims[*axis].clear());
        Ok(Known::Sum { seen, cover, view })
    }

    /// A sum times 1/n: the mean of each row, or the mean over all rows.
    pub(super) fn mean(&mut self, id: NodeId, sum: Known, factor: f32) -> Outcome {
        let Known::Sum { seen, cover, view } = sum else {
            return Err("not a sum".into());
        };
        let n: usize = cover.iter().map(|f| f.size).product();
        if (f64::from(factor) * n as f64 - 1.0).abs() > 1e-5 {
            return Err(format!("a sum of {n} times {factor} is not a mean"));
        }
        let channels = seen.base.channels(&self.values);
        if !split(&cover, channels).1.is_empty() {
            return Ok(Known::RowMean { seen, cover, view });
        }
        self.mean_pool(id, &seen, &view)
    }

    /// The mean over all rows of a tensor, whose result is seen through `view`.
    fn mean_pool(&mut self, id: NodeId, seen: &Seen, view: &View) -> Outcome {
        let (parts, view, channels) = self.all_rows(seen, view)?;
        let total: usize = parts.iter().map(|v| self.values[*v].rows).sum();
        let source = Some(Source {
            node: id,
            view: view.clone(),
            rows: None,
        });
        let last = parts.len() - 1;
        let mut sum: Option<(ValueId, f64)> = None;
        for (index, part) in parts.into_iter().enumerate() {
            let rows = self.values[part].rows;
            let mean = if rows == 1 && last > 0 {
                part
            } else {
                let source = source.clone().filter(|_| last == 0);
                let mean = self.add_value(id, (1, channels), source);
                self.push(Kind::MeanPool, vec![part], mean)
            };
            let weight = rows as f64 / total as f64;
            sum = Some(match sum {
                None => (mean, weight),
                Some((before, factor)) => {
                    let source = source.clone().filter(|_| index == last);
                    let output = self.add_value(id, (1, channels), source);
                    let kind = Kind::Add {
                        factors: [factor, weight],
                        epilogue: Epilogue::default(),
                    };
                    (self.push(kind, vec![before, mean], output), 1.0)
                }
            });
        }
        let (output, _) = sum.ok_or("a mean over nothing")?;
        Ok(Known::View {
            seen: Seen::value(output, view),
            sole: true,
        })
    }

    /// The maximum over all rows of each channel.
    pub(super) fn maximum(&mut self, id: NodeId, node: &SourceNode, axes: &[usize]) -> Outcome {
        let seen = self.activation(node, 0)?;
        let mut view = seen.view.clone();
        axes.iter().for_each(|axis| view.dims[*axis].clear());
        let (parts, view, channels) = self.all_rows(&seen, &view)?;
        let [value] = parts.as_slice() else {
            return Err("the maximum over rows of several tensors is not supported".into());
        };
        let rows = self.values[*value].rows;
        let kind = Kind::MaxPool(Geometry {
            input: [rows, 1],
            output: [1, 1],
            kernel: [rows, 1],
            stride: [1, 1],
            pad: [0; 4],
        });
        Ok(self.emit(id, kind, vec![*value], (1, channels), view))
    }

    /// The values that all rows of `seen` make up, the result's view over one row, and the channels; an error unless `view`, the
    /// tensor after the reduction, has no rows left.
    fn all_rows(
        &mut self,
        seen: &Seen,
        view: &View,
    ) -> Result<(Vec<ValueId>, View, usize), String> {
        let refuse = || {
            "only means and maxima over all rows, or means over channels, are supported".to_string()
        };
        let channels = seen.base.channels(&self.values);
        if view.dims.iter().any(|d| !split(d, channels).0.is_empty()) {
            return Err(refuse());
        }
        let seen = self.compact(seen.clone()).ok_or_else(refuse)?;
        if !seen.is_whole(&self.values) {
            return Err(refuse());
        }
        let rows = seen.base.rows(&self.values);
        let mut values = vec![];
        for (number, part) in rows.parts.iter().enumerate() {
            let Part::Value(value) = part else {
                return Err("a mean of constant and computed rows is not supported".into());
            };
            let used = rows
                .index
                .iter()
                .filter(|(p, _)| *p as usize == number)
                .count();
            if rows.used(number) != (0, self.values[*value].rows, true)
                || used != self.values[*value].rows
            {
                return Err(refuse());
            }
            values.push(*value);
        }
        let view = View::new(view.offset % channels, view.dims.clone());
        Ok((values, view, channels))
    }
}
