//! What `compare --layers` says of every op, as a table and as a record.

use std::fmt;

use serde::Serialize;
use vitlet::Plan;
use vitlet_compiler::{Cause, Deviation, LayerReport};

use crate::output::{Table, decibels, left, right};

/// How many layers are marked.
const WORST: usize = 5;

#[derive(Serialize)]
pub(super) struct Record<'a> {
    pub(super) layers: Vec<Layer<'a>>,
    left_out: usize,
}

#[derive(Serialize)]
pub(super) struct Layer<'a> {
    pub(super) op: usize,
    pub(super) name: &'a str,
    kind: &'static str,
    dtype: &'static str,
    pub(super) sqnr_db: Option<f64>,
    cosine: Option<f64>,
    max_error: Option<f64>,
    saturated: f64,
    pub(super) own_db: Option<f64>,
    inherited_db: Option<f64>,
    pub(super) cause: &'static str,
    detail: String,
    pub(super) worst: bool,
}

pub(super) fn record<'a>(plan: &Plan<'a>, reports: &[LayerReport]) -> Record<'a> {
    let layer = |report: &LayerReport| {
        let op = plan.ops().nth(report.op)?;
        let total = report.total.as_ref();
        Some(Layer {
            op: report.op,
            name: op.name,
            kind: op.kind.name(),
            dtype: plan.tensor(op.output)?.dtype.name(),
            sqnr_db: total.and_then(Deviation::sqnr_db),
            cosine: total.and_then(Deviation::cosine),
            max_error: total.map(Deviation::max_error).filter(|e| e.is_finite()),
            saturated: report.saturated,
            own_db: report.own.sqnr_db(),
            inherited_db: report.inherited.as_ref().and_then(Deviation::sqnr_db),
            cause: report.cause.name(),
            detail: detail(&report.cause),
            worst: false,
        })
    };
    let mut layers: Vec<Layer<'a>> = reports.iter().filter_map(layer).collect();
    mark_worst(&mut layers);
    let left_out = plan.ops().len() - layers.len();
    Record { layers, left_out }
}

/// Marks the layers that add the most: those with the lowest SQNR of their own; of equals the earlier.
fn mark_worst(layers: &mut [Layer<'_>]) {
    let mut order: Vec<(usize, f64)> = layers
        .iter()
        .enumerate()
        .filter_map(|(index, layer)| Some((index, layer.own_db?)))
        .collect();
    order.sort_by(|a, b| a.1.total_cmp(&b.1));
    for (index, _) in order.iter().take(WORST) {
        layers[*index].worst = true;
    }
}

/// What the cause means here, and what helps.
fn detail(cause: &Cause) -> String {
    match cause {
        Cause::Exact => String::new(),
        Cause::Inherited { from: Some(op) } => format!("most of all from op {op}"),
        Cause::Inherited { from: None } => "from its inputs".into(),
        Cause::ClippedRange => {
            "results beyond its range are cut off: calibrate with photos that reach as far".into()
        }
        Cause::OutlierChannel { channel, factor } => {
            format!(
                "channel {channel} makes the range {factor:.1} times wider than the others need"
            )
        }
        Cause::SoftmaxUnderflow => {
            "softmax weights below 1/32768 of the largest count as 0, and many are".into()
        }
        Cause::CoarseScale { rms, peak } => {
            format!(
                "its values have a root mean square of {rms:.1} steps, the largest has {peak:.0}"
            )
        }
        Cause::Weights => "its integer weights are not near enough to the f32 ones".into(),
        Cause::Rounding => "to the range's 8 or 16 bits".into(),
    }
}

pub(super) fn fraction(cosine: Option<f64>) -> String {
    cosine.map_or_else(|| "-".to_owned(), |cosine| format!("{cosine:.6}"))
}

impl Record<'_> {
    fn table(&self) -> Table {
        let mut table = Table::default();
        table.row([
            right("op"),
            left("kind"),
            left("type"),
            right("SQNR"),
            right("own"),
            left(" "),
            right("inherited"),
            right("cosine"),
            right("max error"),
            right("saturated"),
            left("cause"),
            left("name"),
        ]);
        for layer in &self.layers {
            let error = layer.max_error;
            table.row([
                right(layer.op),
                left(layer.kind),
                left(layer.dtype),
                right(decibels(layer.sqnr_db)),
                right(decibels(layer.own_db)),
                left(if layer.worst { "*" } else { " " }),
                right(decibels(layer.inherited_db)),
                right(fraction(layer.cosine)),
                right(error.map_or_else(|| "-".to_owned(), |error| format!("{error:.3}"))),
                right(format_args!("{:.3} %", layer.saturated * 100.0)),
                left(layer.cause),
                left(layer.name),
            ]);
        }
        table
    }

    /// The layers that add the most, the worst first.
    pub(super) fn worst(&self) -> Vec<&Layer<'_>> {
        let mut worst: Vec<&Layer<'_>> = self.layers.iter().filter(|layer| layer.worst).collect();
        let own = |layer: &Layer<'_>| layer.own_db.unwrap_or(f64::INFINITY);
        worst.sort_by(|a, b| own(a).total_cmp(&own(b)));
        worst
    }
}

impl fmt::Display for Record<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{}\n", self.table())?;
        let worst = self.worst();
        write!(
            f,
            "* the {} that add the most, the worst first:",
            worst.len()
        )?;
        for layer in worst {
            let (op, own) = (layer.op, decibels(layer.own_db));
            write!(f, "\n  op {op}, {own}: {}, {}", layer.cause, layer.detail)?;
        }
        if self.left_out > 0 {
            let count = self.left_out;
            write!(
                f,
                "\n{count} ops are left out, for want of an f32 layer of that name, or of a scale"
            )?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn layer(op: usize, own_db: Option<f64>) -> Layer<'static> {
        Layer {
            op,
            name: "",
            kind: "",
            dtype: "",
            sqnr_db: None,
            cosine: None,
            max_error: None,
            saturated: 0.0,
            own_db,
            inherited_db: None,
            cause: "",
            detail: String::new(),
            worst: false,
        }
    }

    #[test]
    fn the_lowest_are_marked() {
        let ratios = [
            Some(9.0),
            None,
            Some(1.0),
            Some(2.0),
            Some(8.0),
            Some(3.0),
            Some(4.0),
            Some(8.0),
        ];
        let layers = ratios.iter().enumerate();
        let mut layers: Vec<Layer<'_>> = layers.map(|(op, own)| layer(op, *own)).collect();
        mark_worst(&mut layers);
        let marked: Vec<usize> = layers.iter().filter(|l| l.worst).map(|l| l.op).collect();
        assert_eq!(marked, [2, 3, 4, 5, 6]);
        let left_out = 0;
        let record = Record { layers, left_out };
        let worst: Vec<usize> = record.worst().iter().map(|layer| layer.op).collect();
        assert_eq!(worst, [2, 3, 5, 6, 4]);
    }
}
