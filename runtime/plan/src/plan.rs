//! [`Plan`]: a file that has been verified, and what can be asked of it.

use vitlet_preprocess::Preprocess;

use crate::MAX_THREADS;
use crate::error::PlanError;
use crate::file::File;
use crate::format::{ALIGN, TENSOR_LEN, header};
use crate::op::Op;
use crate::strips::Strips;
use crate::tensor::{Tensor, TensorId};
use crate::verify::{Facts, verify};

/// A verified plan, borrowing the file's bytes.
///
/// [`Plan::parse`] is the only way to get one, and it checks everything once: after it, every tensor lies in the arena, every op's
/// parameters satisfy the bounds of the numeric contract, and no op reads bytes that another one has overwritten. What the methods
/// return is decoded again from the (immutable) bytes at each call, at a cost that does not depend on the size of the arrays.
#[derive(Clone, Copy, Debug)]
pub struct Plan<'a> {
    file: File<'a>,
    facts: Facts,
}

/// Where a plan comes from.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Provenance<'a> {
    /// The model's name, for people.
    pub model_name: &'a str,
    /// SHA-256 of the ONNX file.
    pub model_sha256: [u8; 32],
    /// SHA-256 of the calibration ranges.
    pub ranges_sha256: [u8; 32],
    /// Number of images the ranges come from.
    pub calibration_images: u32,
    /// The compiler's name and version.
    pub compiler: &'a str,
}

impl<'a> Plan<'a> {
    /// Verifies a whole file. `bytes` must start at a multiple of [`FILE_ALIGN`](crate::format::FILE_ALIGN) in memory.
    ///
    /// Every byte is read once for the checksum, and the arrays of each op once more for the bounds of the numeric contract: a small
    /// multiple of the time it takes to read the file, unless a hostile file lets many of its at most
    /// [`MAX_OPS`](crate::format::MAX_OPS) ops share one large array.
    ///
    /// # Errors
    /// [`PlanError`] names the first thing that is wrong. No input makes it panic or read out of bounds.
    pub fn parse(bytes: &'a [u8]) -> Result<Self, PlanError> {
        let file = File::open(bytes)?;
        let facts = verify(&file)?;
        Ok(Plan { file, facts })
    }

    /// The ops in the order of execution.
    pub fn ops(&self) -> impl ExactSizeIterator<Item = Op<'a>> + use<'a> {
        Ops {
            file: self.file,
            next: 0,
        }
    }

    /// The groups of ops that run strip by strip, in the order of their ops.
    pub fn strips(&self) -> impl ExactSizeIterator<Item = Strips<'a>> + use<'a> {
        StripGroups {
            file: self.file,
            next: 0,
        }
    }

    /// The tensors; a [`TensorId`]'s index is a position in this sequence.
    pub fn tensors(&self) -> impl ExactSizeIterator<Item = Tensor<'a>> + use<'a> {
        Tensors {
            file: self.file,
            next: 0,
        }
    }

    /// The tensors' ids, in the order of [`Plan::tensors`].
    pub fn tensor_ids(&self) -> impl ExactSizeIterator<Item = TensorId> + use<> {
        (0..self.file.tensor_count() as u32).map(TensorId)
    }

    /// One tensor; `None` when the id belongs to another plan.
    pub fn tensor(&self, id: TensorId) -> Option<Tensor<'a>> {
        self.file.tensor(id.index()).ok()
    }

    /// The parts of a tensor, in order, if it has any: it was cut between rows, see [`format`](crate::format).
    pub fn parts(&self, id: TensorId) -> impl ExactSizeIterator<Item = TensorId> + use<> {
        let count = self.file.part_count(id.index()) as u32;
        (0..count).map(move |part| TensorId(id.0 + 1 + part))
    }

    /// The tensor that a tensor is a part of, if it is one.
    pub fn whole(&self, id: TensorId) -> Option<TensorId> {
        let whole = self.file.whole_of(id.index())?;
        Some(TensorId(whole as u32))
    }

    /// Height and width of the image the plan takes.
    pub fn input(&self) -> (u32, u32) {
        (
            self.facts.preprocess.height(),
            self.facts.preprocess.width(),
        )
    }

    /// The tensor the image is written to: S8, `[1, H, W, 3]`, each byte of the image xor 0x80.
    pub fn input_id(&self) -> TensorId {
        self.facts.input
    }

    /// The logits: S32, one scale.
    pub fn output(&self) -> Tensor<'a> {
        self.facts_tensor(self.facts.output)
    }

    /// The tensor of the logits.
    pub fn output_id(&self) -> TensorId {
        self.facts.output
    }

    /// How a picture becomes the image the plan takes.
    pub fn preprocess(&self) -> Preprocess {
        self.facts.preprocess
    }

    /// Mean of R, G, B on the scale 0–1. Information: it is folded into the first op.
    pub fn mean(&self) -> [f32; 3] {
        self.facts.mean
    }

    /// Standard deviation of R, G, B on the scale 0–1. Information: it is folded into the first op.
    pub fn std(&self) -> [f32; 3] {
        self.facts.std
    }

    /// The classes' names: none, or one per logit.
    pub fn labels(&self) -> impl ExactSizeIterator<Item = &'a str> + use<'a> {
        Labels {
            file: self.file,
            next: 0,
        }
    }

    /// One class's name; `None` if the plan has no labels or fewer classes.
    pub fn label(&self, class: usize) -> Option<&'a str> {
        self.file.label(class).ok()
    }

    /// Where the plan comes from.
    pub fn provenance(&self) -> Provenance<'a> {
        let file = &self.file;
        // Both strings were read by `verify`.
        Provenance {
            model_name: file
                .header_string(header::MODEL_NAME, "model name")
                .unwrap_or_default(),
            model_sha256: file.header_bytes(header::MODEL_SHA256),
            ranges_sha256: file.header_bytes(header::RANGES_SHA256),
            calibration_images: file.header_word(header::CALIBRATION_IMAGES),
            compiler: file
                .header_string(header::COMPILER, "compiler")
                .unwrap_or_default(),
        }
    }

    /// Bytes of the file.
    pub fn file_len(&self) -> usize {
        self.file.len()
    }

    /// Bytes of the arena that tensors use: its first part. A multiple of 64.
    pub fn tensors_len(&self) -> usize {
        self.facts.tensors_len
    }

    /// Bytes of scratch that each thread needs. A multiple of 64.
    pub fn scratch_len(&self) -> usize {
        self.facts.scratch_len
    }

    /// Bytes that each of several threads needs for strips of its own (see [`Strips::window`]). A multiple of 64.
    pub fn window_len(&self) -> usize {
        self.facts.window_len
    }

    /// Bytes that each of so many threads needs for itself: its scratch and, if it is not alone, strips of its own. A multiple of 64.
    pub fn thread_len(&self, threads: usize) -> usize {
        let window_len = if threads > 1 { self.window_len() } else { 0 };
        self.scratch_len() + window_len
    }

    /// Bytes of the arena for an engine with that many threads (counted as 1 to [`MAX_THREADS`]): the tensors, then
    /// [`Plan::thread_len`] for each of them. A multiple of 64; the buffer must also start at one.
    pub fn arena_len(&self, threads: usize) -> usize {
        // Does not overflow: `verify` has computed it for MAX_THREADS.
        let threads = threads.clamp(1, MAX_THREADS);
        self.tensors_len() + threads * self.thread_len(threads)
    }

    /// Multiply-accumulates of one inference.
    pub fn macs(&self) -> u64 {
        self.facts.macs
    }

    /// Ops that have a float tensor among their operands or results.
    pub fn float_ops(&self) -> usize {
        self.facts.float_ops
    }

    /// Ops for which the engine must first copy the residual, because the result is not put in its place.
    pub fn copies(&self) -> usize {
        self.facts.copies
    }

    fn facts_tensor(&self, id: TensorId) -> Tensor<'a> {
        const EMPTY: Tensor<'static> = Tensor {
            name: "",
            dtype: crate::DType::S32,
            shape: [0; 4],
            offset: 0,
            scale: 0.0,
            scales: &[],
            zero_point: 0,
            held: 0,
        };
        // `verify` has read the tensor, so the default is never taken.
        self.file.tensor(id.index()).unwrap_or(EMPTY)
    }
}

/// An iterator over records that `verify` has decoded before: `get` cannot fail below `count`.
macro_rules! records {
    ($name:ident, $item:ty, $count:ident, $get:ident) => {
        struct $name<'a> {
            file: File<'a>,
            next: usize,
        }

        impl<'a> Iterator for $name<'a> {
            type Item = $item;

            fn next(&mut self) -> Option<Self::Item> {
                let item = self.file.$get(self.next).ok()?;
                self.next += 1;
                Some(item)
            }

            /// Without decoding what is skipped.
            fn nth(&mut self, n: usize) -> Option<Self::Item> {
                self.next = self.next.saturating_add(n);
                self.next()
            }

            fn size_hint(&self) -> (usize, Option<usize>) {
                let left = self.file.$count().saturating_sub(self.next);
                (left, Some(left))
            }
        }

        impl ExactSizeIterator for $name<'_> {}
    };
}

records!(Ops, Op<'a>, op_count, verified_op);
records!(StripGroups, Strips<'a>, strips_count, verified_strips);
records!(Tensors, Tensor<'a>, tensor_count, tensor);
records!(Labels, &'a str, label_count, label);

// The arena's parts stay aligned whatever the number of threads, and a tensor's record is a whole number of words.
const _: () = assert!(ALIGN.is_power_of_two() && TENSOR_LEN.is_multiple_of(4));
