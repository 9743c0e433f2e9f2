//! ONNX Runtime, from the shared library that `--library` names.

use std::path::Path;

use anyhow::{Context as _, Result};
use ort::environment::Environment;
use ort::session::Session;
use ort::value::Tensor;
use vitlet_peers::{Engine, Options, planes};

struct OnnxRuntime {
    session: Session,
    _environment: Environment,
}

impl Engine for OnnxRuntime {
    type Image = Tensor<f32>;

    fn load(options: &Options) -> Result<Self> {
        let library = options
            .library
            .as_ref()
            .context("--library libonnxruntime.so")?;
        let environment = ort::init_from(library)?.with_telemetry(false).build()?;
        // All graph optimisations are on by default.
        let session = Session::builder(&environment)?
            .with_intra_threads(options.threads)
            .map_err(ort::Error::<()>::from)?
            .commit_from_file(&options.model)?;
        Ok(Self {
            session,
            _environment: environment,
        })
    }

    fn detail(&self) -> String {
        ort::info().to_owned()
    }

    fn image(&self, path: &Path) -> Result<Tensor<f32>> {
        let (side, values) = planes(path)?;
        Ok(Tensor::from_array(([1, 3, side, side], values))?)
    }

    fn run(&mut self, image: &Tensor<f32>) -> Result<Vec<f32>> {
        let outputs = self.session.run(ort::inputs![image])?;
        let (_, logits) = outputs[0].try_extract_tensor::<f32>()?;
        Ok(logits.to_vec())
    }
}

fn main() -> Result<()> {
    vitlet_peers::run::<OnnxRuntime>()
}
