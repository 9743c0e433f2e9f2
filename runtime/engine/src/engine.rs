//! [`Engine`]: one inference after another.

use bytemuck::try_cast_slice;
use vitlet_kernels::Kernel;
use vitlet_plan::format::MAX_STRIP_OPS;
use vitlet_plan::{Op, Plan, Strips};

use crate::arena::{Arena, Split, range_of};
use crate::piece::{Piece, Turn};
use crate::rows::Work;
use crate::{EngineError, MAX_THREADS, Serial, Threads};

/// Sees every op's result: its index, the op, and the bytes of its output (little-endian machines: as the numbers lie in memory). Of an
/// op that runs strip by strip it is called for every strip of rows, from the first row to the last; other ops' strips come between.
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

    /// As [`Engine::run`]; `observer` is called after every op, or strip of one.
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
        let mut groups = self.plan.strips().peekable();
        let mut ops = self.plan.ops().enumerate();
        while let Some((index, op)) = ops.next() {
            let Some(strips) = groups.next_if(|group| group.ops().start == index) else {
                let piece = Piece::whole(self.plan, index, &op);
                let piece = piece.ok_or(EngineError::Memory { index })?;
                observer(index, &op, self.run_piece(&piece, tensors, scratch)?);
                continue;
            };
            let mut group = [const { None }; MAX_STRIP_OPS];
            group[0] = Some(op);
            for (slot, _) in group.iter_mut().zip(strips.ops()).skip(1) {
                *slot = ops.next().map(|(_, op)| op);
            }
            self.run_strips(&strips, &group, tensors, scratch, observer)?;
        }
        let end = self.plan.ops().len();
        let logits =
            range_of(self.plan, self.plan.output_id()).and_then(|range| tensors.get(range));
        logits
            .and_then(|bytes| try_cast_slice(bytes).ok())
            .ok_or(EngineError::Memory { index: end })
    }

    /// Runs op `index` of the plan on what the arena holds, to time it on its own. After a whole run that need not be the op's own
    /// inputs, whose place later tensors may have taken; it is bytes all the same.
    ///
    /// # Errors
    /// If the arena does not fit the plan, or the plan has no such op.
    pub fn run_single(&mut self, arena: &mut [u8], index: usize) -> Result<(), EngineError> {
        let memory = EngineError::Memory { index };
        let Arena { tensors, scratch } = Arena::new(arena, self.plan, self.thread_count())?;
        let mut groups = self.plan.strips();
        let Some(strips) = groups.find(|group| group.ops().contains(&index)) else {
            let op = self.plan.ops().nth(index).ok_or(memory)?;
            let piece = Piece::whole(self.plan, index, &op).ok_or(memory)?;
            return self.run_piece(&piece, tensors, scratch).map(drop);
        };
        let mut group = [const { None }; MAX_STRIP_OPS];
        for (slot, op) in group
            .iter_mut()
            .zip(self.plan.ops().skip(strips.ops().start))
        {
            *slot = Some(op);
        }
        for strip in 0..strips.count() {
            let turn = Turn {
                plan: self.plan,
                strips: &strips,
                ops: &group,
                strip,
            };
            if let Some(piece) = turn.piece(index).ok_or(memory)? {
                self.run_piece(&piece, tensors, scratch)?;
            }
        }
        Ok(())
    }

    /// Runs a group of ops strip by strip.
    fn run_strips(
        &self,
        strips: &Strips<'p>,
        ops: &[Option<Op<'p>>],
        tensors: &mut [u8],
        scratch: &mut [u8],
        observer: &mut Observer<'_>,
    ) -> Result<(), EngineError> {
        for strip in 0..strips.count() {
            let turn = Turn {
                plan: self.plan,
                strips,
                ops,
                strip,
            };
            for (index, op) in strips.ops().zip(ops.iter().flatten()) {
                if let Some((kept, to)) = turn.slide(index) {
                    tensors.copy_within(kept, to);
                }
                let piece = turn.piece(index).ok_or(EngineError::Memory { index })?;
                if let Some(piece) = piece {
                    observer(index, op, self.run_piece(&piece, tensors, scratch)?);
                }
            }
        }
        Ok(())
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

    /// Runs an op, or a strip of one; returns its output's bytes.
    fn run_piece<'t>(
        &self,
        piece: &Piece<'_>,
        tensors: &'t mut [u8],
        scratch: &mut [u8],
    ) -> Result<&'t [u8], EngineError> {
        let memory = EngineError::Memory { index: piece.index };
        let mut split = Split::new(tensors, piece.output.clone()).ok_or(memory)?;
        bring_residual(piece, &mut split).ok_or(memory)?;
        let mut inputs: [&[u8]; 3] = [&[]; 3];
        for (bytes, range) in inputs.iter_mut().zip(&piece.inputs) {
            if let Some(range) = range {
                *bytes = split.read(range.clone()).ok_or(memory)?;
            }
        }
        let work = Work {
            index: piece.index,
            op: &piece.op,
            kernel: self.kernel,
            inputs,
        };
        work.run(
            &self.threads,
            piece.rows.clone(),
            split.output,
            scratch,
            self.plan.scratch_len(),
        )?;
        Ok(split.output)
    }
}

/// Copies the residual to where the sum will be, unless it is there already.
fn bring_residual(piece: &Piece<'_>, split: &mut Split<'_>) -> Option<()> {
    match &piece.residual {
        Some(residual) if *residual != piece.output => {
            let from = split.read(residual.clone())?;
            split.output.get_mut(..from.len())?.copy_from_slice(from);
            Some(())
        }
        _ => Some(()),
    }
}
