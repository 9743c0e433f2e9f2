//! Every network of `models/tiny`, whoever exported it: its lowering agrees with tract in f32, its plan works on integers in place,
//! int8 follows f32, and every op gives the same bytes on every kernel.
#![allow(clippy::print_stdout)] // a test

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;
use tempfile::TempDir;
use vitlet_compiler::ir::Kind;
use vitlet_compiler::{Model, Normalisation};
use vitlet_tests::exact::every_kernel;
use vitlet_tests::{calibrate, compile, files, image, json_lines, noise, program, samples, spread};

/// max|a − b| ≤ 1e-4 · max|ref| for each layer.
const LOWERING: f64 = 1e-4;
/// The four families: no op of theirs computes in floats or only moves data.
const FAMILIES: [&str; 4] = ["tiny_pvt", "tiny_sepvit", "tiny_swin", "tiny_dualvit"];
/// Networks that the compiler must refuse.
const REFUSED: [&str; 1] = ["unsupported"];
/// Least SQNR in dB of the logits and of the lowest layer, by how a network's name begins; the first that fits counts. These are two
/// to three dB below what was measured: ranges differ a little by machine, because tract's kernels do. Random weights and maps of
/// eight channels are harder than trained networks. One floor for all would be of little use: Swin without its mask still has 18.5 dB
/// at the output, but 5.9 dB in an attention.
const FLOORS: [(&str, f64, f64); 12] = [
    ("tiny_pvt", 28.0, 24.0),
    ("tiny_sepvit", 33.0, 26.0),
    ("tiny_swin", 37.0, 30.0),
    // Its few semantic tokens are means of many pixels: small numbers that a layer norm makes large again, noise included.
    ("tiny_dualvit_no_aux", 15.0, 9.0),
    ("tiny_dualvit", 22.0, 21.0),
    ("tiny_convnext", 19.0, 19.0),
    ("tiny_efficientnet_lite", 33.0, 19.0),
    ("tiny_mobilenetv2", 26.0, 17.0),
    ("tiny_twins", 34.0, 25.0),
    ("tiny_vit", 30.0, 29.0),
    ("tiny_resnet", 23.0, 23.0),
    // SiLU after nearly every layer, all in 8 bits before the first residual stream: it loses about a decibel a layer.
    ("tiny_mobilevitv2", 16.0, 9.0),
];
const CALIBRATED: usize = 16;
const COMPARED: usize = 8;
const TRACED: usize = 2;

/// A network of `models/tiny`.
struct Tiny {
    name: String,
    onnx: PathBuf,
}

impl Tiny {
    fn all() -> Result<Vec<Tiny>> {
        let tiny = |onnx: PathBuf| Tiny {
            name: onnx
                .file_stem()
                .unwrap_or_default()
                .to_string_lossy()
                .into_owned(),
            onnx,
        };
        let mut all: Vec<Tiny> = files("models/tiny", "onnx")?
            .into_iter()
            .map(tiny)
            .collect();
        all.retain(|tiny| !REFUSED.contains(&&*tiny.name));
        for family in FAMILIES {
            ensure!(
                all.iter().any(|tiny| tiny.name.starts_with(family)),
                "models/tiny has no {family}"
            );
        }
        Ok(all)
    }

    fn is_of_the_four(&self) -> bool {
        FAMILIES.iter().any(|family| self.name.starts_with(family))
    }

    /// Compiles with ranges of photos that no test compares on, and writes the plan into `folder`.
    fn plan(&self, folder: &Path) -> Result<(Model, PathBuf)> {
        let model = Model::open(&self.onnx)?;
        let photos = spread(&samples()?, 2 * CALIBRATED);
        let images = photos
            .iter()
            .step_by(2)
            .map(|photo| image(photo, model.image_size()))
            .collect::<Result<Vec<_>>>()?;
        let bytes = compile(&model, &calibrate(&model, &images)?)?;
        let path = folder.join(format!("{}.vitlet", self.name));
        std::fs::write(&path, &*bytes)?;
        Ok((model, path))
    }
}

/// Additions of the means over all rows: they are no multiplications of the network, but the plan takes them as a convolution with
/// weights of one.
fn sums(model: &Model) -> u64 {
    let graph = model.graph();
    let means = graph.ops.iter().filter(|op| op.kind == Kind::MeanPool);
    let rows = means.flat_map(|op| op.inputs.iter().map(|input| &graph.values[*input]));
    rows.map(|value| (value.rows * value.channels) as u64).sum()
}

/// Does something with every network, and reports all that fail.
fn each(what: impl Fn(&Tiny) -> Result<String>) -> Result<()> {
    let mut failed = vec![];
    for tiny in Tiny::all()? {
        match what(&tiny) {
            Ok(line) => println!("{}: {line}", tiny.name),
            Err(error) => {
                println!("{}: FAILED: {error:#}", tiny.name);
                failed.push(tiny.name);
            }
        }
    }
    ensure!(failed.is_empty(), "failed: {}", failed.join(", "));
    Ok(())
}

#[test]
fn lowering_agrees_with_tract() -> Result<()> {
    each(|tiny| {
        let model = Model::open(&tiny.onnx)?;
        let photo = samples()?.swap_remove(0);
        let mut worst = 0f64;
        let images = [
            image(&photo, model.image_size())?,
            noise(1, model.image_size()),
        ];
        for image in &images {
            let check = model.check_lowering(&Normalisation::IMAGENET, image)?;
            let layer = check.worst().context("a model has layers")?;
            ensure!(
                layer.error <= LOWERING && check.cascade <= LOWERING,
                "{} `{}` is {:.1e} from tract, all in a row {:.1e}",
                layer.kind,
                layer.name,
                layer.error,
                check.cascade
            );
            worst = worst.max(layer.error);
        }
        Ok(format!(
            "{} layers, worst {worst:.1e}",
            model.layers().len()
        ))
    })
}

#[test]
fn plans_are_integers_in_place_and_count_the_same_work() -> Result<()> {
    let folder = TempDir::new()?;
    each(|tiny| {
        let (model, path) = tiny.plan(folder.path())?;
        let inspected = json_lines(
            Command::new(program()?)
                .arg("inspect")
                .arg(&path)
                .arg("--json"),
        )?;
        let inspected = inspected.first().context("inspect prints nothing")?;
        let count = |field: &str| inspected[field].as_u64().context(field.to_owned());
        let (macs, copies) = (count("macs")?, count("copies")?);
        ensure!(
            macs == model.macs() + sums(&model),
            "{macs} MACs in the plan, {} in the model",
            model.macs()
        );
        ensure!(
            count("float_ops")? == 0,
            "{} ops on floats",
            inspected["float_ops"]
        );
        ensure!(
            copies == 0 || !tiny.is_of_the_four(),
            "{copies} ops only move data"
        );
        Ok(format!(
            "{macs} MACs, {copies} copies, {}",
            inspected["ops"]
        ))
    })
}

#[test]
fn spellings_of_a_network_do_the_same_work() -> Result<()> {
    let mut macs: BTreeMap<String, (String, u64)> = BTreeMap::new();
    for tiny in Tiny::all()? {
        let network = ["_spelled", "_dynamo", "_timm"]
            .iter()
            .find_map(|spelling| tiny.name.strip_suffix(spelling))
            .unwrap_or(&tiny.name);
        if network == "tiny_pvt" && tiny.name.ends_with("_dynamo") {
            // A network of its own; the other spellings are not from PyTorch.
            continue;
        }
        let count = Model::open(&tiny.onnx)
            .with_context(|| tiny.name.clone())?
            .macs();
        let (first, wanted) = macs
            .entry(network.to_owned())
            .or_insert((tiny.name.clone(), count));
        ensure!(
            count == *wanted,
            "{}: {count} MACs, but {wanted} in {first}",
            tiny.name
        );
    }
    Ok(())
}

#[test]
fn int8_follows_f32() -> Result<()> {
    let folder = TempDir::new()?;
    let photos = folder.path().join("photos");
    std::fs::create_dir(&photos)?;
    let others = spread(&samples()?, 2 * CALIBRATED);
    for (index, photo) in others.iter().skip(1).step_by(2).take(COMPARED).enumerate() {
        std::fs::copy(photo, photos.join(format!("{index}.jpg")))?;
    }
    each(|tiny| {
        let (_, plan) = tiny.plan(folder.path())?;
        let mut command = Command::new(program()?);
        command
            .args(["compare", "--layers", "--json", "--inputs"])
            .args([&photos, &tiny.onnx, &plan]);
        let compared = json_lines(&mut command)?;
        let compared = compared.first().context("compare prints nothing")?;
        let output = &compared["output"];
        let ratio = |layer: &Value| layer["sqnr_db"].as_f64().unwrap_or(f64::NEG_INFINITY);
        // An op that computes a part of an f32 layer, or several of them, has no ratio but that of its own error.
        let layers = compared["layers"].as_array().context("no layers")?;
        let (layers, alone): (Vec<&Value>, Vec<&Value>) =
            layers.iter().partition(|layer| !layer["sqnr_db"].is_null());
        let lowest = layers.iter().min_by(|a, b| ratio(a).total_cmp(&ratio(b)));
        let lowest = lowest.context("no layers")?;
        let line = format!(
            "{:.1} dB, {} layers, lowest {:.1} dB in {} {}, {} without f32 layer, {} left out",
            ratio(output),
            layers.len(),
            ratio(lowest),
            lowest["kind"],
            lowest["name"],
            alone.len(),
            compared["left_out"]
        );
        let floor = FLOORS.iter().find(|f| tiny.name.starts_with(f.0));
        let (_, floor, layer_floor) = floor.context("FLOORS has no such network")?;
        ensure!(
            ratio(output) >= *floor
                && ratio(lowest) >= *layer_floor
                && alone.len() < layers.len() / 4,
            "{line}; at least {floor} and {layer_floor} dB are wanted"
        );
        Ok(line)
    })
}

#[test]
fn every_op_on_every_kernel() -> Result<()> {
    let folder = TempDir::new()?;
    let photos = spread(&samples()?, TRACED);
    each(|tiny| {
        let (_, plan) = tiny.plan(folder.path())?;
        let equal = every_kernel(Some(&plan), &photos, &[])?;
        Ok(format!("{} ops: {}", equal.ops, equal.kernels.join(" = ")))
    })
}
