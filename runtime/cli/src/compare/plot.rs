//! SQNR along the network as a drawing: an SVG file that needs nothing else.

use std::fmt::Write as _;

use super::layers::{Layer, Record};
use crate::output::decibels;

/// The drawing's size grows with the number of ops, one this many units from the next.
const OP: f64 = 9.0;
const LEFT: f64 = 60.0;
const RIGHT: f64 = 20.0;
const TOP: f64 = 60.0;
const PLOT_WIDTH_MIN: f64 = 640.0;
const PLOT_HEIGHT: f64 = 320.0;
/// From the plot to the axis's label, and from there to the list of the worst.
const X_LABEL: f64 = 40.0;
const LINE: f64 = 20.0;

/// One curve.
struct Series {
    name: &'static str,
    colour: &'static str,
    value: fn(&Layer<'_>) -> Option<f64>,
}

const SERIES: [Series; 2] = [
    Series {
        name: "total: int8 against f32",
        colour: "#1f5fa8",
        value: |layer| layer.sqnr_db,
    },
    Series {
        name: "own: what the op adds by itself",
        colour: "#d2691e",
        value: |layer| layer.own_db,
    },
];

/// Where numbers lie in the drawing.
struct Scales {
    width: f64,
    ops: f64,
    /// Decibels at the bottom and at the top.
    range: [f64; 2],
}

impl Scales {
    fn new(layers: &[Layer<'_>]) -> Self {
        let values = || {
            let of = |layer| {
                SERIES
                    .iter()
                    .filter_map(move |series| (series.value)(layer))
            };
            layers.iter().flat_map(of)
        };
        let ops = layers.last().map_or(1.0, |layer| layer.op as f64).max(1.0);
        let low = values().fold(0.0, f64::min);
        let high = values().fold(10.0, f64::max);
        Self {
            width: (ops * OP).max(PLOT_WIDTH_MIN),
            ops,
            range: [(low / 10.0).floor() * 10.0, (high / 10.0).ceil() * 10.0],
        }
    }

    fn x(&self, op: usize) -> f64 {
        LEFT + op as f64 / self.ops * self.width
    }

    fn y(&self, decibels: f64) -> f64 {
        let [low, high] = self.range;
        TOP + (high - decibels) / (high - low) * PLOT_HEIGHT
    }
}

/// The drawing of a comparison; `title` is what was compared.
pub(super) fn svg(title: &str, record: &Record<'_>) -> String {
    let scales = Scales::new(&record.layers);
    let worst = record.worst();
    let width = LEFT + scales.width + RIGHT;
    let bottom = TOP + PLOT_HEIGHT;
    let height = bottom + X_LABEL + (worst.len() + 2) as f64 * LINE;
    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {width:.0} {height:.0}\" \
         font-family=\"sans-serif\" font-size=\"12\">\n\
         <rect width=\"100%\" height=\"100%\" fill=\"white\"/>\n"
    );
    text(
        &mut svg,
        [LEFT, 20.0],
        "font-size=\"15\"",
        &format!("SQNR along {title}"),
    );
    axes(&mut svg, &scales);
    for (index, series) in SERIES.iter().enumerate() {
        curve(&mut svg, &scales, series, &record.layers);
        legend(&mut svg, series, LEFT + 260.0 * index as f64);
    }
    list(&mut svg, &scales, &worst, bottom + X_LABEL + LINE);
    svg += "</svg>\n";
    svg
}

/// Text at a place; `attributes` as they stand in the tag.
fn text(svg: &mut String, [x, y]: [f64; 2], attributes: &str, text: &str) {
    let text = escaped(text);
    write(
        svg,
        format_args!("<text x=\"{x:.1}\" y=\"{y:.1}\" {attributes}>{text}</text>\n"),
    );
}

/// Text as XML has it.
fn escaped(text: &str) -> String {
    let mut escaped = String::new();
    for c in text.chars() {
        match c {
            '&' => escaped += "&amp;",
            '<' => escaped += "&lt;",
            '>' => escaped += "&gt;",
            // XML has no way to write these.
            c if c.is_control() => escaped.push(' '),
            c => escaped.push(c),
        }
    }
    escaped
}

/// Writing to a string cannot fail.
fn write(svg: &mut String, element: std::fmt::Arguments<'_>) {
    let _ = svg.write_fmt(element);
}

/// Lines every 10 dB, numbers every 10 ops, and what they are.
fn axes(svg: &mut String, scales: &Scales) {
    let (right, bottom) = (LEFT + scales.width, TOP + PLOT_HEIGHT);
    let [low, high] = scales.range;
    for ten in (low / 10.0) as i32..=(high / 10.0) as i32 {
        let decibels = f64::from(ten) * 10.0;
        let y = scales.y(decibels);
        write(
            svg,
            format_args!("<path d=\"M{LEFT} {y:.1}H{right:.1}\" stroke=\"#ddd\"/>\n"),
        );
        text(
            svg,
            [LEFT - 6.0, y + 4.0],
            "text-anchor=\"end\"",
            &format!("{decibels:.0}"),
        );
    }
    for op in (0..=scales.ops as usize).step_by(10) {
        let place = [scales.x(op), bottom + 16.0];
        text(svg, place, "text-anchor=\"middle\"", &op.to_string());
    }
    let middle = [LEFT + scales.width / 2.0, bottom + X_LABEL - 6.0];
    text(
        svg,
        middle,
        "text-anchor=\"middle\"",
        "op of the plan, in order",
    );
    let turned = format!(
        "text-anchor=\"middle\" transform=\"rotate(-90 16 {:.1})\"",
        TOP + PLOT_HEIGHT / 2.0
    );
    text(svg, [16.0, TOP + PLOT_HEIGHT / 2.0], &turned, "SQNR in dB");
}

/// A line through the values, broken where there is none, and a dot for each, with the op's name as its tooltip.
fn curve(svg: &mut String, scales: &Scales, series: &Series, layers: &[Layer<'_>]) {
    let colour = series.colour;
    let mut path = String::new();
    let mut dots = String::new();
    let mut broken = true;
    for layer in layers {
        let Some(value) = (series.value)(layer) else {
            broken = true;
            continue;
        };
        let (x, y) = (scales.x(layer.op), scales.y(value));
        let step = if broken { 'M' } else { 'L' };
        write(&mut path, format_args!("{step}{x:.1} {y:.1}"));
        broken = false;
        let tooltip = format!(
            "op {}: {value:.1} dB, {}, {}",
            layer.op, layer.cause, layer.name
        );
        write(
            &mut dots,
            format_args!(
                "<circle cx=\"{x:.1}\" cy=\"{y:.1}\" r=\"2\" fill=\"{colour}\"><title>{}</title></circle>\n",
                escaped(&tooltip)
            ),
        );
    }
    write(
        svg,
        format_args!(
            "<path d=\"{path}\" fill=\"none\" stroke=\"{colour}\" stroke-width=\"1.5\"/>\n{dots}"
        ),
    );
}

/// A piece of the curve's line with its name, above the plot.
fn legend(svg: &mut String, series: &Series, x: f64) {
    let (y, colour) = (TOP - 18.0, series.colour);
    write(
        svg,
        format_args!("<path d=\"M{x} {y}h20\" stroke=\"{colour}\" stroke-width=\"3\"/>\n"),
    );
    text(svg, [x + 26.0, y + 4.0], "", series.name);
}

/// Numbers the worst layers in the plot, and names them below it.
fn list(svg: &mut String, scales: &Scales, worst: &[&Layer<'_>], top: f64) {
    let heading = "What adds the most, the worst first:";
    text(svg, [LEFT, top], "font-weight=\"bold\"", heading);
    for (index, layer) in worst.iter().enumerate() {
        let Some(own) = layer.own_db else {
            continue;
        };
        let number = (index + 1).to_string();
        // Below both dots.
        let lowest = layer.sqnr_db.map_or(own, |total| total.min(own));
        let place = [scales.x(layer.op), scales.y(lowest) + 16.0];
        let bold = "text-anchor=\"middle\" font-weight=\"bold\"";
        text(svg, place, bold, &number);
        let line = format!(
            "{number}  op {}, {}, {}: {}",
            layer.op,
            decibels(layer.own_db),
            layer.cause,
            layer.name
        );
        text(svg, [LEFT, top + LINE * (index + 1) as f64], "", &line);
    }
}
