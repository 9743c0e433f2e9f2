//! A frame to logits: preprocessing and the engine, in memory that the board gives.

use sha2::{Digest as _, Sha256};
use thiserror::Error;
use vitlet_engine::{Engine, EngineError};
use vitlet_kernels::Kernel;
use vitlet_plan::Plan;
use vitlet_preprocess::{Frame, PreprocessError};

use crate::Rejected;

/// The board's memory for a model. What it holds before does not matter.
#[derive(Debug)]
pub struct Buffers<'m> {
    /// At a multiple of 64 in memory; as large as the largest plan needs.
    pub arena: &'m mut [u8],
    /// The model's image: height · width · 3 bytes at least.
    pub image: &'m mut [u8],
    /// For the resize; see [`Preprocess::scratch_len`](vitlet_preprocess::Preprocess::scratch_len).
    pub scratch: &'m mut [u8],
}

impl Buffers<'_> {
    /// The same memory, for a shorter time.
    pub fn reborrow(&mut self) -> Buffers<'_> {
        Buffers {
            arena: self.arena,
            image: self.image,
            scratch: self.scratch,
        }
    }
}

/// A plan that fits its memory.
#[derive(Debug)]
pub struct Classifier<'p, 'm> {
    plan: &'p Plan<'p>,
    engine: Engine<'p>,
    buffers: Buffers<'m>,
}

/// A frame's result.
#[derive(Clone, Copy, Debug)]
pub struct Outcome<'c> {
    /// One a class; real = scale · logit.
    pub logits: &'c [i32],
    /// The plan's scale of the logits.
    pub scale: f32,
}

impl Outcome<'_> {
    /// The SHA-256 of the logits as little-endian words: what `vitlet classify --json` calls `output_hash`.
    pub fn hash(&self) -> [u8; 32] {
        let mut hasher = Sha256::new();
        for logit in self.logits {
            hasher.update(logit.to_le_bytes());
        }
        hasher.finalize().into()
    }
}

impl<'p, 'm> Classifier<'p, 'm> {
    /// Checks that the buffers are large enough.
    ///
    /// # Errors
    /// One is too small.
    pub fn new(plan: &'p Plan<'p>, kernel: Kernel, buffers: Buffers<'m>) -> Result<Self, Rejected> {
        let engine = Engine::new(plan, kernel);
        let (needed, found) = (engine.arena_len(), buffers.arena.len());
        if needed > found {
            return Err(Rejected::Arena { needed, found });
        }
        let (needed, found) = (image_len(plan), buffers.image.len());
        if needed > found {
            return Err(Rejected::Image { needed, found });
        }
        Ok(Self {
            plan,
            engine,
            buffers,
        })
    }

    /// Makes a frame the model's image.
    ///
    /// # Errors
    /// The frame is larger than the scratch allows.
    pub fn preprocess(&mut self, frame: &Frame<'_>) -> Result<(), PreprocessError> {
        let image_len = image_len(self.plan);
        let Buffers { image, scratch, .. } = &mut self.buffers;
        let image = image.get_mut(..image_len).unwrap_or_default();
        self.plan.preprocess().run(frame, scratch, image)
    }

    /// Runs the model on the image.
    ///
    /// # Errors
    /// None is possible with a verified plan and buffers that were checked.
    pub fn infer(&mut self) -> Result<Outcome<'_>, ClassifierError> {
        let image_len = image_len(self.plan);
        let Buffers { arena, image, .. } = &mut self.buffers;
        let image = image.get(..image_len).unwrap_or_default();
        let logits = self.engine.run(arena, image)?;
        let scale = self.plan.output().scale;
        Ok(Outcome { logits, scale })
    }
}

/// Bytes of a plan's image.
fn image_len(plan: &Plan<'_>) -> usize {
    let (height, width) = plan.input();
    height as usize * width as usize * 3
}

/// Why there is no result.
#[derive(Clone, Copy, PartialEq, Debug, Error)]
#[non_exhaustive]
pub enum ClassifierError {
    /// The engine refused.
    #[error("{0}")]
    Engine(#[from] EngineError),
}

#[cfg(test)]
mod tests {
    use std::vec;

    use vitlet_plan::{AlignedBytes, testing};
    use vitlet_preprocess::PixelFormat;

    use super::*;

    #[test]
    fn the_logits_are_the_engines() {
        let bytes = testing::tiny_plan(5);
        let plan = Plan::parse(&bytes).expect("a plan");
        let pixels = vec![90; 20 * 20 * 3];
        let frame = Frame::new(PixelFormat::Rgb8, 20, 20, 60, &pixels).expect("a frame");
        let mut arena = AlignedBytes::zeroed(plan.arena_len(1));
        let mut image = vec![0; 16 * 16 * 3];
        let mut scratch = vec![0; 100_000];
        let buffers = Buffers {
            arena: &mut arena,
            image: &mut image,
            scratch: &mut scratch,
        };
        let mut classifier = Classifier::new(&plan, Kernel::SCALAR, buffers).expect("large enough");
        classifier.preprocess(&frame).expect("room");
        let outcome = classifier.infer().expect("logits");
        let (logits, hash) = (outcome.logits.to_vec(), outcome.hash());

        let mut image = vec![0; 16 * 16 * 3];
        plan.preprocess()
            .run(&frame, &mut scratch, &mut image)
            .expect("room");
        let mut arena = AlignedBytes::zeroed(plan.arena_len(1));
        let mut engine = Engine::new(&plan, Kernel::SCALAR);
        let expected = engine.run(&mut arena, &image).expect("logits");
        assert_eq!(logits, expected);
        let bytes: vec::Vec<u8> = expected.iter().flat_map(|x| x.to_le_bytes()).collect();
        assert_eq!(hash, <[u8; 32]>::from(Sha256::digest(&bytes)));
    }

    #[test]
    fn memory_that_is_too_small_is_refused() {
        let bytes = testing::tiny_plan(5);
        let plan = Plan::parse(&bytes).expect("a plan");
        let needed = plan.arena_len(1);
        let mut arena = AlignedBytes::zeroed(needed);
        let mut image = [0; 16 * 16 * 3 - 1];
        let small = Buffers {
            arena: &mut arena[..needed - 64],
            image: &mut image,
            scratch: &mut [],
        };
        let found = needed - 64;
        let refused = Classifier::new(&plan, Kernel::SCALAR, small).err();
        assert_eq!(refused, Some(Rejected::Arena { needed, found }));
        let small = Buffers {
            arena: &mut arena,
            image: &mut image,
            scratch: &mut [],
        };
        let refused = Classifier::new(&plan, Kernel::SCALAR, small).err();
        assert_eq!(
            refused,
            Some(Rejected::Image {
                needed: 768,
                found: 767
            })
        );
    }
}
