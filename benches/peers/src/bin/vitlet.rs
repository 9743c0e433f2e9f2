//! vitlet. Its model is a plan, its image the pixels.

use std::fs;
use std::path::Path;

use anyhow::{Context as _, Result};
use vitlet::{Model, Session};
use vitlet_peers::{Engine, Options};

struct Vitlet(Session<'static>);

impl Engine for Vitlet {
    type Image = Vec<u8>;

    fn load(options: &Options) -> Result<Self> {
        // A session borrows the plan's bytes; they are here until the program ends.
        let model: &'static Model = Box::leak(Box::new(Model::open(&options.model)?));
        let threads = options.threads;
        let options = vitlet::Options {
            threads,
            ..vitlet::Options::default()
        };
        Ok(Self(Session::new(&model.plan()?, &options)?))
    }

    fn detail(&self) -> String {
        self.0.kernel().kernel.name().to_owned()
    }

    fn image(&self, path: &Path) -> Result<Vec<u8>> {
        fs::read(path).context("peer-image writes it")
    }

    fn run(&mut self, image: &Vec<u8>) -> Result<Vec<f32>> {
        self.0.run(image)?;
        Ok(self.0.dequantised())
    }
}

fn main() -> Result<()> {
    vitlet_peers::run::<Vitlet>()
}
