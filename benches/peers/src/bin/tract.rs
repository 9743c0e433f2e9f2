//! tract, with the optimisations of its `into_optimized`.

use std::path::Path;
use std::sync::Arc;

use anyhow::Result;
use tract_linalg::multithread::{self, Executor};
use tract_onnx::prelude::*;
use vitlet_peers::{Engine, Options, planes};

struct Tract(Arc<TypedRunnableModel>);

impl Engine for Tract {
    type Image = TValue;

    fn load(options: &Options) -> Result<Self> {
        if options.threads > 1 {
            multithread::set_default_executor(Executor::multithread(options.threads));
        }
        let model = tract_onnx::onnx().model_for_path(&options.model)?;
        Ok(Self(model.into_optimized()?.into_runnable()?))
    }

    fn detail(&self) -> String {
        String::new()
    }

    fn image(&self, path: &Path) -> Result<TValue> {
        let (side, values) = planes(path)?;
        Ok(Tensor::from_shape(&[1, 3, side, side], &values)?.into_tvalue())
    }

    fn run(&mut self, image: &TValue) -> Result<Vec<f32>> {
        let outputs = self.0.run(tvec!(image.clone()))?;
        Ok(outputs[0].view().as_slice::<f32>()?.to_vec())
    }
}

fn main() -> Result<()> {
    vitlet_peers::run::<Tract>()
}
