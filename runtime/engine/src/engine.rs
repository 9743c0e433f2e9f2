//! [`Engine`]: one inference after another.

use bytemuck::try_cast_slice;
use core::ops::Range;

use vitlet_kernels::Kernel;
use vitlet_plan::format::MAX_STRIP_OPS;
use vitlet_plan::{Op, Plan, Strips};

use crate::arena::{Arena, range_of};
use crate::chain::{Chain, MAX_LINKS};
use crate::piece::{Piece, Slide, Turn};
use crate::window::group_work;
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
        self.run_all(arena, image, None)
    }

    /// As [`Engine::run`]; `observer` is called after every op, or strip of one. So threads wait for each other after every op, which they
    /// do less often in a plain run.
    ///
    /// # Errors
    /// If the image or the arena does not fit the plan.
    pub fn run_traced<'m>(
        &mut self,
        arena: &'m mut [u8],
        image: &[u8],
        observer: &mut Observer<'_>,
    ) -> Result<&'m [i32], EngineError> {
        self.run_all(arena, image, Some(observer))
    }

    fn run_all<'m>(
        &self,
        arena: &'m mut [u8],
        image: &[u8],
        observer: Option<&mut Observer<'_>>,
    ) -> Result<&'m [i32], EngineError> {
        let Arena { tensors, memory } = Arena::new(arena, self.plan, self.thread_count())?;
        self.load_image(tensors, image)?;
        if self.thread_count() == 1 {
            Run::<T, 1>::new(self, tensors, memory, observer).ops()?;
        } else {
            Run::<T, MAX_LINKS>::new(self, tensors, memory, observer).ops()?;
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
        let missing = EngineError::Memory { index };
        let Arena { tensors, memory } = Arena::new(arena, self.plan, self.thread_count())?;
        let mut run = Run::<T, MAX_LINKS>::new(self, tensors, memory, None);
        let mut groups = self.plan.strips();
        let Some(strips) = groups.find(|group| group.ops().contains(&index)) else {
            let op = self.plan.ops().nth(index).ok_or(missing)?;
            run.step(&op, Piece::whole(self.plan, index, &op).ok_or(missing)?)?;
            return run.finish_chain();
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
            if let Some(piece) = turn.piece(index).ok_or(missing)? {
                let op = piece.op;
                run.step(&op, piece)?;
                run.finish_chain()?;
            }
        }
        Ok(())
    }

    /// Bytes of a thread's memory, and of those its scratch.
    fn memory_lens(&self) -> [usize; 2] {
        let plan = self.plan;
        [plan.thread_len(self.thread_count()), plan.scratch_len()]
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
        // 16 at a time, also where the compiler is told to make small code.
        let ((words, rest), (from_words, from_rest)) =
            (tensor.as_chunks_mut::<16>(), image.as_chunks::<16>());
        for (to, from) in words.iter_mut().zip(from_words) {
            *to = (u128::from_ne_bytes(*from) ^ u128::from_ne_bytes([0x80; 16])).to_ne_bytes();
        }
        for (to, from) in rest.iter_mut().zip(from_rest) {
            *to = from ^ 0x80;
        }
        Ok(())
    }
}

/// The ops of a group of strips; those past all ops if there are no more groups. (A function of its own: a group is large.)
#[inline(never)]
fn group_ops(plan: &Plan<'_>, group: usize) -> Range<usize> {
    let strips = plan.strips().nth(group);
    strips.map_or(usize::MAX..usize::MAX, |strips| strips.ops())
}

/// An inference on its way, with chains of up to N ops.
struct Run<'r, 'o, 'p, T, const N: usize> {
    engine: &'r Engine<'p, T>,
    tensors: &'r mut [u8],
    /// Memory of the threads.
    memory: &'r mut [u8],
    /// Ops that are to run together.
    chain: Chain<'p, N>,
    observer: Option<&'r mut Observer<'o>>,
}

impl<'r, 'o, 'p, T: Threads, const N: usize> Run<'r, 'o, 'p, T, N> {
    fn new(
        engine: &'r Engine<'p, T>,
        tensors: &'r mut [u8],
        memory: &'r mut [u8],
        observer: Option<&'r mut Observer<'o>>,
    ) -> Self {
        Run {
            engine,
            tensors,
            memory,
            chain: Chain::new(),
            observer,
        }
    }

    /// Runs all ops.
    fn ops(&mut self) -> Result<(), EngineError> {
        let plan = self.engine.plan;
        let (mut next, mut group) = (0, 0);
        let mut of_group = group_ops(plan, group);
        while next < plan.ops().len() {
            if of_group.start == next {
                self.group(group)?;
                next = of_group.end;
                group += 1;
                of_group = group_ops(plan, group);
            } else {
                self.whole(next)?;
                next += 1;
            }
        }
        self.finish_chain()
    }

    /// Runs all of an op.
    #[inline(never)]
    fn whole(&mut self, index: usize) -> Result<(), EngineError> {
        let missing = EngineError::Memory { index };
        let plan = self.engine.plan;
        let op = plan.ops().nth(index).ok_or(missing)?;
        let piece = Piece::whole(plan, index, &op).ok_or(missing)?;
        self.step(&op, piece)
    }

    /// Runs a group of ops strip by strip. (A function of its own, as `whole` is: what it keeps is not on the stack of the others.)
    #[inline(never)]
    fn group(&mut self, group: usize) -> Result<(), EngineError> {
        let plan = self.engine.plan;
        let Some(strips) = plan.strips().nth(group) else {
            return Ok(());
        };
        let mut ops = [const { None }; MAX_STRIP_OPS];
        for (slot, index) in ops.iter_mut().zip(strips.ops()) {
            *slot = plan.ops().nth(index);
        }
        self.strips(&strips, &ops)
    }

    /// As `group`, with its ops.
    fn strips(&mut self, strips: &Strips<'p>, ops: &[Option<Op<'p>>]) -> Result<(), EngineError> {
        if self.runs_together() {
            self.finish_chain()?;
            let Engine {
                plan,
                kernel,
                threads,
            } = self.engine;
            let work = group_work(plan, strips, ops, *kernel, threads, self.tensors);
            if let Some(mut work) = work {
                return work.run(threads, self.memory, self.engine.memory_lens());
            }
        }
        for strip in 0..strips.count() {
            let turn = Turn {
                plan: self.engine.plan,
                strips,
                ops,
                strip,
            };
            for (index, op) in strips.ops().zip(ops.iter().flatten()) {
                let piece = turn.piece(index).ok_or(EngineError::Memory { index })?;
                match piece {
                    Some(piece) => self.step(op, piece)?,
                    None => {
                        self.finish_chain()?;
                        self.slide(turn.slide(index).as_ref());
                    }
                }
            }
        }
        Ok(())
    }

    /// Runs `op`, or the part of it that `piece` is, now or together with the next ones.
    fn step(&mut self, op: &Op<'p>, piece: Piece<'p>) -> Result<(), EngineError> {
        if !self.chain.takes(&piece, &self.engine.threads) {
            self.finish_chain()?;
        }
        self.slide(piece.slide.as_ref());
        let (index, output) = (piece.index, piece.output.clone());
        self.chain.add(piece);
        if !self.runs_together() {
            self.finish_chain()?;
        }
        if let Some(observer) = &mut self.observer {
            let output = self.tensors.get(output);
            observer(index, op, output.ok_or(EngineError::Memory { index })?);
        }
        Ok(())
    }

    /// Whether threads may run several ops before they wait for each other.
    fn runs_together(&self) -> bool {
        self.observer.is_none() && self.engine.thread_count() > 1
    }

    /// Moves what is still needed of rows above a strip.
    fn slide(&mut self, slide: Option<&Slide>) {
        if let Some(Slide { kept, to }) = slide {
            self.tensors.copy_within(kept.clone(), *to);
        }
    }

    /// Runs what has not run yet.
    fn finish_chain(&mut self) -> Result<(), EngineError> {
        let Some(index) = self.chain.pieces().next().map(|piece| piece.index) else {
            return Ok(());
        };
        let Engine {
            kernel, threads, ..
        } = self.engine;
        let mut work = self.chain.work(*kernel, threads, self.tensors);
        let work = work.as_mut().ok_or(EngineError::Memory { index })?;
        work.run(threads, self.memory, self.engine.memory_lens())?;
        self.chain.clear();
        Ok(())
    }
}
