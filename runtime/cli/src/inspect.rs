//! `vitlet inspect`: what is in a plan or in an ONNX model.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::Read as _;
use std::path::{Path, PathBuf};

use serde::Serialize;
use vitlet::{Interpolation, Model, Plan, Preprocess, Resize, Tensor};

use crate::args::load;
use crate::failure::{OrInvalid as _, Outcome};
use crate::output::{Out, Table, grouped, left, right};

const EXAMPLES: &str = "\
Examples:
  The plan inside the program
    vitlet inspect
  Memory, preprocessing, labels, provenance, every op and tensor
    vitlet inspect model.vitlet
  The layers it is lowered to, or every operation that has no int8 form
    vitlet inspect model.onnx

With --json, of a plan:
  {\"macs\",\"plan_bytes\",\"arena_bytes\",\"float_ops\",\"copies\",\"ops\":{kind: count},
   \"input\",\"preprocess\",\"labels\",\"provenance\"}
of an ONNX model:
  {\"macs\",\"parameters\",\"input\",\"classes\",\"layers\":[…]}, or
  {\"unsupported\":[{\"name\",\"op\",\"inputs\",\"reason\"}]}";

#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Args {
    /// A .vitlet plan or an .onnx model; without it the plan inside the program
    #[arg(value_name = "PLAN|MODEL.onnx")]
    path: Option<PathBuf>,
}

/// The figures of a plan.
#[derive(Serialize)]
pub(crate) struct Summary {
    macs: u64,
    plan_bytes: usize,
    arena_bytes: usize,
    float_ops: usize,
    copies: usize,
    ops: BTreeMap<&'static str, usize>,
}

#[derive(Serialize)]
struct Record<'a> {
    #[serde(flatten)]
    summary: Summary,
    input: [u32; 2],
    preprocess: Preprocessing,
    labels: Vec<&'a str>,
    provenance: Provenance<'a>,
}

/// Preprocessing in words.
#[derive(Serialize)]
pub(crate) struct Preprocessing {
    pub(crate) width: u32,
    pub(crate) height: u32,
    pub(crate) resize: String,
    pub(crate) interpolation: &'static str,
    pub(crate) mean: [f32; 3],
    pub(crate) std: [f32; 3],
}

#[derive(Serialize)]
struct Provenance<'a> {
    model: &'a str,
    model_sha256: String,
    ranges_sha256: String,
    calibration_images: u32,
    compiler: &'a str,
}

pub(crate) fn verb(args: &Args, out: &mut Out) -> anyhow::Result<Outcome> {
    match &args.path {
        #[cfg(feature = "compiler")]
        Some(path) if !looks_like_plan(path) => onnx::inspect(path, out),
        #[cfg(not(feature = "compiler"))]
        Some(path) if !looks_like_plan(path) => Err(crate::failure::invalid(format_args!(
            "{}: not a .vitlet plan, and this program was built without the compiler; inspect ONNX models on the workstation",
            path.display()
        ))),
        path => plan(&load(path.as_deref())?, out),
    }
}

/// Whether a file is to be read as a plan: it starts as one, is named like one, or cannot be read at all.
fn looks_like_plan(path: &Path) -> bool {
    let mut start = [0; 8];
    let read = File::open(path).and_then(|mut file| file.read_exact(&mut start));
    let named = path
        .extension()
        .is_some_and(|extension| extension == "vitlet");
    match read {
        Ok(()) => named || start == vitlet::PLAN_MAGIC,
        Err(_) => named || !path.is_file(),
    }
}

fn plan(model: &Model, out: &mut Out) -> anyhow::Result<Outcome> {
    let plan = model.plan().or_invalid()?;
    let (height, width) = plan.input();
    let provenance = plan.provenance();
    let record = Record {
        summary: Summary::of(&plan),
        input: [height, width],
        preprocess: Preprocessing::new(&plan.preprocess(), plan.mean(), plan.std()),
        labels: plan.labels().collect(),
        provenance: Provenance {
            model: provenance.model_name,
            model_sha256: hex(&provenance.model_sha256),
            ranges_sha256: hex(&provenance.ranges_sha256),
            calibration_images: provenance.calibration_images,
            compiler: provenance.compiler,
        },
    };
    out.record(&record)?;
    if !out.is_json() {
        out.line(heading(model, &record))?;
        out.line("")?;
        out.line(ops(&plan))?;
        out.line("")?;
        out.line(tensors(&plan))?;
    }
    Ok(Outcome::Done)
}

impl Summary {
    pub(crate) fn of(plan: &Plan<'_>) -> Self {
        let mut ops = BTreeMap::new();
        for op in plan.ops() {
            *ops.entry(op.kind.name()).or_default() += 1;
        }
        Self {
            macs: plan.macs(),
            plan_bytes: plan.file_len(),
            arena_bytes: plan.arena_len(1),
            float_ops: plan.float_ops(),
            copies: plan.copies(),
            ops,
        }
    }

    /// The figures in words, each with its name.
    pub(crate) fn entries(&self) -> [(&'static str, String); 4] {
        let kinds: Vec<String> = self
            .ops
            .iter()
            .map(|(kind, count)| format!("{count} {kind}"))
            .collect();
        let ops = format!(
            "{}: {}; {} on floats, {} that copy",
            self.ops.values().sum::<usize>(),
            kinds.join(", "),
            self.float_ops,
            self.copies
        );
        let bytes = |count: usize| format!("{} bytes", grouped(count as u64));
        [
            ("plan", bytes(self.plan_bytes)),
            ("arena", bytes(self.arena_bytes)),
            ("MACs", grouped(self.macs)),
            ("ops", ops),
        ]
    }
}

impl Preprocessing {
    pub(crate) fn new(settings: &Preprocess, mean: [f32; 3], std: [f32; 3]) -> Self {
        Self {
            width: settings.width(),
            height: settings.height(),
            resize: match settings.resize() {
                Resize::Squash => "squash".to_owned(),
                Resize::ShortSide(side) => format!("short-side:{side}"),
            },
            interpolation: match settings.interpolation() {
                Interpolation::Bilinear => "bilinear",
                Interpolation::Bicubic => "bicubic",
            },
            mean,
            std,
        }
    }
}

impl std::fmt::Display for Preprocessing {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let crop = if self.resize == "squash" {
            "to"
        } else {
            "then centre crop to"
        };
        let [mean, std] = [self.mean, self.std].map(|rgb| rgb.map(|c| c.to_string()).join(","));
        write!(
            f,
            "{} {crop} {}x{}, {} with antialias, mean {mean}, std {std}",
            self.resize, self.width, self.height, self.interpolation
        )
    }
}

fn heading(model: &Model, record: &Record<'_>) -> Table {
    let mut table = Table::default();
    table.entry("file", model.name());
    for (name, value) in record.summary.entries() {
        table.entry(name, value);
    }
    table.entry(
        "input",
        format_args!("{}x{} RGB", record.input[0], record.input[1]),
    );
    table.entry("preprocessing", &record.preprocess);
    if record.labels.is_empty() {
        table.entry("labels", "none");
    } else {
        table.entry("labels", labels_line(&record.labels));
    }
    let provenance = &record.provenance;
    table.entry(
        "model",
        format_args!("{} (SHA-256 {})", provenance.model, provenance.model_sha256),
    );
    table.entry(
        "ranges",
        format_args!(
            "from {} images (SHA-256 {})",
            provenance.calibration_images, provenance.ranges_sha256
        ),
    );
    table.entry("compiler", provenance.compiler);
    table
}

/// The number of labels, and the first ones.
pub(crate) fn labels_line(labels: &[impl AsRef<str>]) -> String {
    const SHOWN: usize = 12;
    let mut names: Vec<&str> = labels.iter().take(SHOWN).map(AsRef::as_ref).collect();
    if labels.len() > SHOWN {
        names.push("…");
    }
    format!("{}: {}", labels.len(), names.join(", "))
}

fn ops(plan: &Plan<'_>) -> Table {
    let mut table = Table::default();
    table.row([
        right("op"),
        left("kind"),
        right("MACs"),
        right("strips"),
        left("output"),
        left("name"),
    ]);
    let tensors: Vec<_> = plan.tensors().collect();
    for (index, op) in plan.ops().enumerate() {
        let strips = plan.strips().find(|group| group.ops().contains(&index));
        let output = tensors.get(op.output.index());
        let output = output.map_or_else(String::new, typed_shape);
        table.row([
            right(index),
            left(op.kind.name()),
            right(grouped(op.kind.macs())),
            right(strips.map_or_else(String::new, |group| group.count().to_string())),
            left(output),
            left(op.name),
        ]);
    }
    table
}

fn tensors(plan: &Plan<'_>) -> Table {
    let mut table = Table::default();
    table.row([
        right("tensor"),
        left("type"),
        left("shape"),
        right("rows held"),
        right("offset"),
        right("scale"),
        right("zero"),
        left("name"),
    ]);
    for (index, (id, tensor)) in plan.tensor_ids().zip(plan.tensors()).enumerate() {
        let scale = match (tensor.scale, tensor.scales.len()) {
            (0.0, 0) => "several".to_owned(),
            (0.0, count) => format!("{count} scales"),
            (scale, _) => format!("{scale:.3e}"),
        };
        let held = match tensor.held {
            0 => String::new(),
            rows => rows.to_string(),
        };
        let name = match plan.whole(id) {
            None => tensor.name.to_owned(),
            Some(whole) => format!("{} (part of {})", tensor.name, whole.index()),
        };
        table.row([
            right(index),
            left(tensor.dtype.name()),
            left(shape(&tensor.shape)),
            right(held),
            right(tensor.offset),
            right(scale),
            right(tensor.zero_point),
            left(name),
        ]);
    }
    table
}

/// A tensor's type and shape: `s8 1x56x56x32`.
pub(crate) fn typed_shape(tensor: &Tensor<'_>) -> String {
    format!("{} {}", tensor.dtype.name(), shape(&tensor.shape))
}

fn shape(shape: &[u32]) -> String {
    let sides: Vec<String> = shape.iter().map(u32::to_string).collect();
    sides.join("x")
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// ONNX models: what they are lowered to.
#[cfg(feature = "compiler")]
mod onnx {
    use std::path::Path;

    use serde::Serialize;
    use vitlet_compiler::{CompileError, UnsupportedNode};

    use crate::compile::open_model;
    use crate::failure::{self, Outcome};
    use crate::output::{Out, Table, grouped, left, right};

    #[derive(Serialize)]
    struct Record {
        macs: u64,
        parameters: u64,
        input: [usize; 2],
        classes: usize,
        layers: Vec<Layer>,
    }

    #[derive(Serialize)]
    struct Layer {
        kind: &'static str,
        name: String,
        rows: usize,
        channels: usize,
        macs: u64,
    }

    #[derive(Serialize)]
    struct Refused<'a> {
        unsupported: Vec<Node<'a>>,
    }

    #[derive(Serialize)]
    struct Node<'a> {
        name: &'a str,
        op: &'a str,
        inputs: &'a [Vec<usize>],
        reason: &'a str,
    }

    pub(super) fn inspect(path: &Path, out: &mut Out) -> anyhow::Result<Outcome> {
        let model = match open_model(path) {
            Ok(model) => model,
            Err(error) => {
                return match error.downcast_ref::<CompileError>() {
                    Some(CompileError::Unsupported { nodes }) => refused(path, nodes, out),
                    _ => Err(error),
                };
            }
        };
        let record = Record {
            macs: model.macs(),
            parameters: model.parameters(),
            input: model.image_size(),
            classes: model.classes(),
            layers: model.layers().into_iter().map(Layer::from).collect(),
        };
        out.record(&record)?;
        let mut table = Table::default();
        table.entry("file", path.display());
        table.entry(
            "input",
            format_args!("{}x{} RGB", record.input[0], record.input[1]),
        );
        table.entry("classes", record.classes);
        table.entry("parameters", grouped(record.parameters));
        table.entry("MACs", grouped(record.macs));
        out.line(format_args!("{table}\n"))?;
        let mut table = Table::default();
        table.row([
            right("layer"),
            left("kind"),
            right("MACs"),
            right("rows"),
            right("channels"),
            left("name"),
        ]);
        for (index, layer) in record.layers.iter().enumerate() {
            table.row([
                right(index),
                left(layer.kind),
                right(grouped(layer.macs)),
                right(layer.rows),
                right(layer.channels),
                left(&layer.name),
            ]);
        }
        out.line(table)?;
        Ok(Outcome::Done)
    }

    impl From<vitlet_compiler::Layer> for Layer {
        fn from(layer: vitlet_compiler::Layer) -> Self {
            Self {
                kind: layer.kind,
                name: layer.name,
                rows: layer.rows,
                channels: layer.channels,
                macs: layer.macs,
            }
        }
    }

    /// Every operation without an int8 form.
    fn refused(path: &Path, nodes: &[UnsupportedNode], out: &mut Out) -> anyhow::Result<Outcome> {
        let node = |node: &'_ UnsupportedNode| -> [_; 4] {
            [
                left(&node.op),
                left(&node.name),
                left(format_args!("{:?}", node.input_shapes)),
                left(&node.reason),
            ]
        };
        out.record(&Refused {
            unsupported: nodes
                .iter()
                .map(|node| Node {
                    name: &node.name,
                    op: &node.op,
                    inputs: &node.input_shapes,
                    reason: &node.reason,
                })
                .collect(),
        })?;
        let mut table = Table::default();
        table.row([
            left("operation"),
            left("name"),
            left("inputs"),
            left("why, and what would do"),
        ]);
        nodes.iter().for_each(|n| table.row(node(n)));
        out.line(table)?;
        failure::report(&anyhow::anyhow!(
            "{}: {} operations have no int8 form; change or replace them before the export",
            path.display(),
            nodes.len()
        ));
        Ok(Outcome::SomeFailed)
    }
}
