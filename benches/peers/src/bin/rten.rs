//! rten, with weights packed when the model is loaded.

use std::path::Path;
use std::sync::Arc;

use anyhow::{Context as _, Result};
use rten::{Model, ModelOptions, RunOptions, ThreadPool};
use rten_tensor::prelude::*;
use rten_tensor::{NdTensor, Tensor};
use vitlet_peers::{Engine, Options, planes};

struct Rten {
    model: Model,
    threads: Arc<ThreadPool>,
}

impl Engine for Rten {
    type Image = NdTensor<f32, 4>;

    fn load(options: &Options) -> Result<Self> {
        let model = ModelOptions::with_all_ops()
            .prepack_weights(true)
            .load_file(&options.model)?;
        let threads = Arc::new(ThreadPool::with_num_threads(options.threads));
        Ok(Self { model, threads })
    }

    fn detail(&self) -> String {
        String::new()
    }

    fn image(&self, path: &Path) -> Result<NdTensor<f32, 4>> {
        let (side, values) = planes(path)?;
        Ok(NdTensor::from_data([1, 3, side, side], values))
    }

    fn run(&mut self, image: &NdTensor<f32, 4>) -> Result<Vec<f32>> {
        let options = RunOptions::default().with_thread_pool(Some(self.threads.clone()));
        let output = self.model.run_one(image.view().into(), Some(options))?;
        let logits: Tensor<f32> = output.try_into().ok().context("the output is not f32")?;
        Ok(logits.to_vec())
    }
}

fn main() -> Result<()> {
    vitlet_peers::run::<Rten>()
}
