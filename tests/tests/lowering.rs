//! The lowering, before any quantisation: each recognised layer, fed tract's inputs, agrees with tract in f32.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::print_stdout)] // a test

use std::path::Path;

use anyhow::{Result, ensure};
use vitlet_compiler::{CompileError, Model, Normalisation};
use vitlet_tests::{data, image, in_repository, noise, photos, spread};

/// max|a − b| ≤ 1e-4 · max|ref| for each layer.
const BOUND: f64 = 1e-4;

fn check(path: &Path, images: &[Vec<u8>]) -> Result<()> {
    let model = Model::open(path)?;
    for image in images {
        let check = model.check_lowering(&Normalisation::IMAGENET, image)?;
        let worst = check.worst().expect("a model has layers");
        println!(
            "{}: {} layers, worst {} `{}` {:.1e}, cascade {:.1e}",
            path.file_name().unwrap_or_default().display(),
            check.layers.len(),
            worst.kind,
            worst.name,
            worst.error,
            check.cascade
        );
        ensure!(
            check.layers.len() == model.layers().len() && !check.layers.is_empty(),
            "every layer is compared"
        );
        ensure!(
            worst.error <= BOUND,
            "`{}` is {:.1e} from tract",
            worst.name,
            worst.error
        );
    }
    Ok(())
}

#[test]
fn zoo_model() -> Result<()> {
    let photo = in_repository("models/samples/glass102.jpg");
    check(
        &in_repository("models/zoo/pvt_v2_b0_trashnet/model.onnx"),
        &[image(&photo, [224, 224])?],
    )
}

#[test]
fn imagenette_model() -> Result<()> {
    let (Some(model), Some(val)) = (
        data("models/pvt_v2_b0_imagenette.onnx", 2)?,
        data("data/imagenette224/val", 2)?,
    ) else {
        return Ok(());
    };
    let images = spread(&photos(&val)?, 2)
        .iter()
        .map(|(_, p)| image(p, [224, 224]))
        .collect::<Result<Vec<_>>>()?;
    check(&model, &images)
}

#[test]
fn tiny_models_of_both_spellings_lower_to_the_same_layers() -> Result<()> {
    let mut seen = vec![];
    for name in ["tiny_pvt.onnx", "tiny_pvt_spelled.onnx"] {
        let path = in_repository("models/tiny").join(name);
        check(&path, &[noise(1, [32, 32]), noise(2, [32, 32])])?;
        let model = Model::open(&path)?;
        // Slices of kv make tract split that linear layer in two, indices do not: the sum of the work is the same.
        let layers = model.layers().into_iter().filter(|l| l.kind != "linear");
        let layers: Vec<_> = layers
            .map(|l| (l.kind, l.rows, l.channels, l.macs))
            .collect();
        seen.push((layers, model.macs()));
    }
    assert_eq!(seen[0], seen[1]);
    Ok(())
}

#[test]
fn linear_attention_pools_and_activates() -> Result<()> {
    let path = in_repository("models/tiny/tiny_pvt_linear.onnx");
    check(&path, &[noise(1, [32, 32]), noise(2, [32, 32])])?;
    let model = Model::open(&path)?;
    let count = |kind: &str| model.layers().iter().filter(|l| l.kind == kind).count();
    // Two blocks: a pooling and the FFN's convolution are depthwise; GELU after a layer norm stands alone.
    assert_eq!(
        (count("depthwise"), count("activation"), count("attention")),
        (4, 2, 2)
    );
    Ok(())
}

#[test]
fn a_wrong_weight_is_noticed() -> Result<()> {
    // The check must be able to fail: compare the layers of one model with the reference of another.
    let photo = image(&in_repository("models/samples/glass102.jpg"), [32, 32])?;
    let path = in_repository("models/tiny/tiny_pvt.onnx");
    let model = Model::open(&path)?;
    let mut graph = model.graph().clone();
    let layer = graph.ops.iter_mut().find_map(|op| match &mut op.kind {
        vitlet_compiler::ir::Kind::Linear { weights, .. } => Some(weights),
        _ => None,
    });
    layer.expect("a linear layer")[0] += 0.5;
    let pixels: Vec<f32> = (0..3)
        .flat_map(|c| {
            photo
                .iter()
                .skip(c)
                .step_by(3)
                .map(|x| f32::from(*x) / 128.0 - 1.0)
        })
        .collect();
    let check = vitlet_compiler::eval::check_lowering(&graph, model.reference(), &pixels)?;
    let worst = check.worst().expect("a model has layers");
    assert_eq!(worst.kind, "linear");
    assert!(worst.error > BOUND, "{:.1e}", worst.error);
    Ok(())
}

#[test]
fn every_unsupported_operation_is_listed_at_once() {
    let Err(CompileError::Unsupported { nodes }) =
        Model::open(&in_repository("models/tiny/unsupported.onnx"))
    else {
        panic!("Sin and TopK have no int8 form")
    };
    let ops: Vec<&str> = nodes.iter().map(|n| n.op.as_str()).collect();
    assert_eq!(ops, ["Sin", "Topk"]);
    assert_eq!(nodes[0].input_shapes, [[1, 10]]);
    assert!(nodes.iter().all(|n| n.reason.contains("supported")));
}

#[test]
fn macs_are_those_of_the_paper_s_network() -> Result<()> {
    let model = Model::open(&in_repository("models/zoo/pvt_v2_b0_trashnet/model.onnx"))?;
    // specs: 0.566 GMAC without the head's 1000 classes.
    assert!(
        (model.macs() as f64 / 0.566e9 - 1.0).abs() < 0.01,
        "{}",
        model.macs()
    );
    Ok(())
}
