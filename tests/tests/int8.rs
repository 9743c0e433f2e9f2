//! Int8 against f32 on the tiny models: every kind of layer that the compiler lowers, without any photo.
#![allow(clippy::unwrap_used, clippy::print_stdout)] // a test

use anyhow::{Result, ensure};
use vitlet_compiler::{Model, Normalisation};
use vitlet_engine::Engine;
use vitlet_kernels::Kernel;
use vitlet_plan::{AlignedBytes, Plan};
use vitlet_tests::{calibrate, compile, in_repository, noise};

/// Signal to noise of the logits over some images, in dB. Random weights are harder than trained ones: the bound only has to
/// tell a working layer from a broken one, which is tens of dB away.
const SQNR: f64 = 20.0;

#[test]
fn tiny_models_keep_their_logits() -> Result<()> {
    for name in [
        "tiny_pvt.onnx",
        "tiny_pvt_spelled.onnx",
        "tiny_pvt_linear.onnx",
    ] {
        let model = Model::open(&in_repository("models/tiny").join(name))?;
        let images: Vec<Vec<u8>> = (0..16)
            .map(|seed| noise(seed, model.image_size()))
            .collect();
        let bytes = compile(&model, &calibrate(&model, &images[..8])?)?;
        let plan = Plan::parse(&bytes)?;
        ensure!(plan.float_ops() == 0 && plan.copies() == 0);
        let float = model.classifier(&Normalisation::IMAGENET)?;
        let mut engine = Engine::new(&plan, Kernel::detect());
        let mut arena = AlignedBytes::zeroed(engine.arena_len());
        let scale = f64::from(plan.output().scale);
        let (mut signal, mut noise) = (0.0, 0.0);
        for image in &images[8..] {
            let logits = engine.run(&mut arena, image)?;
            for (int8, float) in logits.iter().zip(float.logits(image)?) {
                signal += f64::from(float).powi(2);
                noise += (f64::from(*int8) * scale - f64::from(float)).powi(2);
            }
        }
        let sqnr = 10.0 * (signal / noise).log10();
        println!("{name}: {sqnr:.1} dB, kernel {}", Kernel::detect().name());
        ensure!(sqnr >= SQNR, "{name}: {sqnr:.1} dB");
    }
    Ok(())
}
