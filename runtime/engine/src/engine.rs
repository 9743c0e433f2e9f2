//! [`Engine`]: one inference after another.

use core::ops::Range;

use bytemuck::try_cast_slice;
use vitlet_kernels::Kernel;
use vitlet_plan::{Op, Plan};

use crate::arena::{Arena, Split, range_of};
use crate::rows::Work;
use crate::{EngineError, MAX_THREADS, Serial, Threads};

/// Sees every op's result: its index, the op, and the bytes of its output (little-endian machines: as the numbers lie in memory).
pub type Observer<'o> = dyn FnMut(usize, &Op<'_>, &[u8]) + 'o;

/// Runs a plan with one kernel on given threads. Cheap to make: it holds references only.
#[derive(Clone, Copy, Debug)]
pub struct Engine<'p, T = Serial> {
    plan: &'p Plan<'p>,
    kernel: Kernel,
    threads: T,
}

impl<'p> Engine<'p> {
    /// An engine that runs on the calling thread.
    pub fn new(plan: &'p Plan<'p>, kernel: Kernel) -> Self {
        Engine {
            plan,
            kernel,
            threads: Serial,
        }
    }
}

impl<'p, T: Threads> Engine<'p, T> {
    /// An engine that splits every op over `threads`.
    pub fn with_threads(plan: &'p Plan<'p>, kernel: Kernel, threads: T) -> Self {
        Engine {
            plan,
            kernel,
            threads,
        }
    }

    /// The plan.
    pub fn plan(&self) -> &'p Plan<'p> {
        self.plan
    }

    /// The kernel.
    pub fn kernel(&self) -> Kernel {
        self.kernel
    }

    /// Bytes of arena a run needs; they must start at a multiple of 64.
    pub fn arena_len(&self) -> usize {
        self.plan.arena_len(self.thread_count())
    }

    /// One inference: an RGB image of the plan's size (rows top to bottom, no gaps) to logits, which lie in the arena.
    ///
    /// # Errors
    /// If the image or the arena does not fit the plan.
    pub fn run<'m>(&mut self, arena: &'m mut [u8], image: &[u8]) -> Result<&'m [i32], EngineError> {
        self.run_traced(arena, image, &mut |_, _, _| {})
    }

    /// As [`Engine::run`]; `observer` is called after every op.
    ///
    /// # Errors
    /// If the image or the arena does not fit the plan.
    pub fn run_traced<'m>(
        &mut self,
        arena: &'m mut [u8],
        image: &[u8],
        observer: &mut Observer<'_>,
    ) -> Result<&'m [i32], EngineError> {
        let Arena { tensors, scratch } = Arena::new(arena, self.plan, self.thread_count())?;
        self.load_image(tensors, image)?;
        for (index, op) in self.plan.ops().enumerate() {
            let output = self.run_op(index, &op, tensors, scratch)?;
            observer(index, &op, output);
        }
        let end = self.plan.ops().len();
        let logits =
            range_of(self.plan, self.plan.output_id()).and_then(|range| tensors.get(range));
        logits
            .and_then(|bytes| try_cast_slice(bytes).ok())
            .ok_or(EngineError::Memory { index: end })
    }

    /// Runs one op of the plan on what the arena holds, to time it on its own. After a whole run that need not be the op's own
    /// inputs, whose place later tensors may have taken; it is bytes all the same.
    ///
    /// # Errors
    /// If the arena does not fit the plan, or the op is not the plan's.
    pub fn run_single(&mut self, arena: &mut [u8], op: &Op<'_>) -> Result<(), EngineError> {
        let Arena { tensors, scratch } = Arena::new(arena, self.plan, self.thread_count())?;
        self.run_op(0, op, tensors, scratch).map(drop)
    }

    fn thread_count(&self) -> usize {
        self.threads.count().clamp(1, MAX_THREADS)
    }

    /// The image becomes a tensor: bytes 0 to 255 to −128 to 127.
    fn load_image(&self, tensors: &mut [u8], image: &[u8]) -> Result<(), EngineError> {
        let range =
            range_of(self.plan, self.plan.input_id()).ok_or(EngineError::Memory { index: 0 })?;
        if image.len() != range.len() {
            return Err(EngineError::Image {
                found: image.len(),
                expected: range.len(),
            });
        }
        let tensor = tensors
            .get_mut(range)
            .ok_or(EngineError::Memory { index: 0 })?;
        for (to, from) in tensor.iter_mut().zip(image) {
            *to = from ^ 0x80;
        }
        Ok(())
    }

    /// Runs one op; returns its output's bytes.
    fn run_op<'t>(
        &self,
        index: usize,
        op: &Op<'_>,
        tensors: &'t mut [u8],
        scratch: &mut [u8],
    ) -> Result<&'t [u8], EngineError> {
        let memory = EngineError::Memory { index };
        let output = range_of(self.plan, op.output).ok_or(memory)?;
        let mut split = Split::new(tensors, output.clone()).ok_or(memory)?;
        self.bring_residual(op, &output, &mut split).ok_or(memory)?;
        let inputs = self.inputs(op, &split).ok_or(memory)?;
        let work = Work {
            index,
            op,
            kernel: self.kernel,
            inputs,
        };
        work.run(
            &self.threads,
            split.output,
            scratch,
            self.plan.scratch_len(),
        )?;
        Ok(split.output)
    }

    /// Copies the residual to where the sum will be, unless it is there already.
    fn bring_residual(
        &self,
        op: &Op<'_>,
        output: &Range<usize>,
        split: &mut Split<'_>,
    ) -> Option<()> {
        let Some(residual) = op.residual() else {
            return Some(());
        };
        let residual = range_of(self.plan, residual)?;
        if residual != *output {
            let from = split.read(residual)?;
            split.output.get_mut(..from.len())?.copy_from_slice(from);
        }
        Some(())
    }

    /// The bytes an op reads, but for the residual.
    fn inputs<'m>(&self, op: &Op<'_>, split: &Split<'m>) -> Option<[&'m [u8]; 3]> {
        let mut inputs: [&[u8]; 3] = [&[]; 3];
        for (bytes, id) in inputs.iter_mut().zip(op.operands()) {
            if let Some(id) = id {
                *bytes = split.read(range_of(self.plan, id)?)?;
            }
        }
        Some(inputs)
    }
}
