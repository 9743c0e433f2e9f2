//! [`Session`]: a verified plan, the memory it runs in, and its threads.

use std::time::{Duration, Instant};

use vitlet_engine::{Engine, Threads};
use vitlet_kernels::Kernel;
use vitlet_plan::{AlignedBytes, Op, Plan};
use vitlet_preprocess::Frame;

use crate::classes::{self, Class};
use crate::cores::{CoreChoice, Cores};
use crate::digest::Digest;
use crate::kernel::KernelChoice;
use crate::memory::zeroed;
use crate::preprocess::Preprocessor;
use crate::threads::Pool;
use crate::{Error, Photo};

/// How a session runs.
#[derive(Clone, Copy, Debug)]
pub struct Options {
    /// Force a kernel; without one, `VITLET_KERNEL` decides, and without that the CPU ([`KernelChoice::new`]).
    pub kernel: Option<Kernel>,
    /// Threads one inference is split over, 1 to [`MAX_THREADS`](crate::MAX_THREADS). The result does not depend on it.
    pub threads: usize,
    /// Run on these cores only. The calling thread is restricted to them when the session is made, and stays so (for other
    /// cores take another thread); the session's own threads are like it. Without it the system decides.
    pub cores: Option<Cores>,
}

impl Default for Options {
    /// The fastest kernel, one thread, any core.
    fn default() -> Self {
        Self {
            kernel: None,
            threads: 1,
            cores: None,
        }
    }
}

/// What one photo or frame shows.
#[derive(Clone, Debug)]
pub struct Classification<'m> {
    /// The best classes, best first.
    pub top: Vec<Class<'m>>,
    /// Time from pixels to the model's image.
    pub preprocess: Duration,
    /// Time from the model's image to logits.
    pub inference: Duration,
}

/// The hash of one op's output.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OpTrace<'m> {
    /// The op's name in the plan.
    pub name: &'m str,
    /// What it computes: [`OpKind::name`](crate::OpKind::name).
    pub kind: &'static str,
    /// Of the output's bytes as they lie in the arena.
    pub digest: Digest,
}

/// Runs a plan. All memory is taken when it is made; a run allocates nothing, on several threads neither.
#[derive(Debug)]
pub struct Session<'m> {
    plan: Plan<'m>,
    kernel: KernelChoice,
    cores: Option<CoreChoice>,
    pool: Pool,
    arena: AlignedBytes,
    preprocessor: Preprocessor,
    image: Vec<u8>,
    logits: Vec<i32>,
}

impl<'m> Session<'m> {
    /// A session for a verified plan.
    ///
    /// # Errors
    /// If `VITLET_KERNEL` names a kernel that cannot be had, or the threads or cores cannot be.
    pub fn new(plan: &Plan<'m>, options: &Options) -> Result<Self, Error> {
        let kernel = KernelChoice::new(options.kernel)?;
        // Before the threads are started: they are restricted as the thread that starts them is.
        let cores = options.cores.map(Cores::pin).transpose()?;
        let pool = Pool::new(options.threads)?;
        let preprocessor = Preprocessor::new(plan.preprocess());
        let logits = plan.output().elements().unwrap_or_default();
        Ok(Self {
            plan: *plan,
            kernel,
            cores,
            arena: zeroed(plan.arena_len((&pool).count()), "the arena")?,
            pool,
            image: vec![0; preprocessor.image_len()],
            preprocessor,
            logits: vec![0; logits],
        })
    }

    /// The plan it runs.
    pub const fn plan(&self) -> &Plan<'m> {
        &self.plan
    }

    /// The kernel it runs with, and why.
    pub const fn kernel(&self) -> KernelChoice {
        self.kernel
    }

    /// Threads an inference is split over.
    pub fn threads(&self) -> usize {
        (&self.pool).count()
    }

    /// The cores it runs on, if any were asked for.
    pub const fn cores(&self) -> Option<CoreChoice> {
        self.cores
    }

    /// Classifies a photo: the plan's preprocessing, then the network, both split over the threads. `k` classes are returned, or as many
    /// as there are.
    ///
    /// # Errors
    /// If the photo's sides are not within 1 to 16384 pixels.
    pub fn classify(&mut self, photo: &Photo, k: usize) -> Result<Classification<'m>, Error> {
        self.classify_frame(&photo.frame()?, k)
    }

    /// Classifies a camera's frame, as [`classify`](Self::classify) does a photo.
    ///
    /// # Errors
    /// If the frame is too large for this machine's memory.
    pub fn classify_frame(
        &mut self,
        frame: &Frame<'_>,
        k: usize,
    ) -> Result<Classification<'m>, Error> {
        let start = Instant::now();
        self.preprocessor
            .run_on(&&self.pool, frame, &mut self.image)?;
        let preprocess = start.elapsed();
        let start = Instant::now();
        let mut engine = Engine::with_threads(&self.plan, self.kernel.kernel, &self.pool);
        let logits = engine.run(&mut self.arena, &self.image)?;
        let inference = start.elapsed();
        self.logits.copy_from_slice(logits);
        Ok(Classification {
            top: self.top(k),
            preprocess,
            inference,
        })
    }

    /// Runs the network on an image that has the model's size already: RGB, rows from the top, without padding.
    ///
    /// # Errors
    /// If `image` has not height × width × 3 bytes.
    pub fn run(&mut self, image: &[u8]) -> Result<&[i32], Error> {
        self.check_image(image)?;
        let mut engine = Engine::with_threads(&self.plan, self.kernel.kernel, &self.pool);
        let logits = engine.run(&mut self.arena, image)?;
        self.logits.copy_from_slice(logits);
        Ok(&self.logits)
    }

    /// As [`run`](Self::run), and returns the hash of every op's output. Equal hashes on two machines mean equal bytes out of
    /// every op; of two different lists, the first difference names the op to look at.
    ///
    /// # Errors
    /// If `image` has not height × width × 3 bytes.
    pub fn run_traced(&mut self, image: &[u8]) -> Result<Vec<OpTrace<'m>>, Error> {
        let mut traces = Vec::with_capacity(self.plan.ops().len());
        self.run_observed(image, |index, op, output| {
            let (name, kind) = (op.name, op.kind.name());
            let digest = Digest::of(output);
            traces.push((index, OpTrace { name, kind, digest }));
        })?;
        traces.sort_unstable_by_key(|(index, _)| *index);
        let traces = traces.into_iter().map(|(_, trace)| trace).collect();
        Ok(traces)
    }

    /// As [`run`](Self::run); after each op, `observer` is given its index, the op, and its output's bytes as they lie in the
    /// arena (put together, if the op runs strip by strip; such ops need not end in the order of the plan). [`dequantised`](crate::dequantised) makes numbers of them.
    ///
    /// # Errors
    /// If `image` has not height × width × 3 bytes.
    pub fn run_observed(
        &mut self,
        image: &[u8],
        mut observer: impl FnMut(usize, &Op<'m>, &[u8]),
    ) -> Result<&[i32], Error> {
        self.check_image(image)?;
        let ops: Vec<Op<'m>> = self.plan.ops().collect();
        let mut outputs = Outputs::new(&self.plan);
        let mut engine = Engine::with_threads(&self.plan, self.kernel.kernel, &self.pool);
        let logits = engine.run_traced(&mut self.arena, image, &mut |index, _, rows| {
            if let Some(op) = ops.get(index) {
                outputs.add(index, rows, |output| observer(index, op, output));
            }
        })?;
        self.logits.copy_from_slice(logits);
        Ok(&self.logits)
    }

    /// As [`run`](Self::run); `after` is given an op's index whenever the op, or a part of its rows, is done: what passed since the
    /// last call was spent on it. On one thread a profiler sees what a plain run does; several wait for each other after every op here, and
    /// less often there.
    ///
    /// # Errors
    /// If `image` has not height × width × 3 bytes.
    pub fn run_profiled(
        &mut self,
        image: &[u8],
        mut after: impl FnMut(usize),
    ) -> Result<&[i32], Error> {
        self.check_image(image)?;
        let mut engine = Engine::with_threads(&self.plan, self.kernel.kernel, &self.pool);
        let logits = engine.run_traced(&mut self.arena, image, &mut |index, _, _| after(index))?;
        self.logits.copy_from_slice(logits);
        Ok(&self.logits)
    }

    /// The model's image of a photo, for [`run`](Self::run).
    ///
    /// # Errors
    /// If the photo's sides are not within 1 to 16384 pixels.
    pub fn preprocess(&mut self, photo: &Photo) -> Result<Vec<u8>, Error> {
        Ok(self.preprocessor.photo(photo)?)
    }

    /// The integer logits of the last run; zeros before the first.
    pub fn logits(&self) -> &[i32] {
        &self.logits
    }

    /// The logits of the last run as real numbers.
    pub fn dequantised(&self) -> Vec<f32> {
        let scale = self.plan.output().scale;
        self.logits
            .iter()
            .map(|&logit| logit as f32 * scale)
            .collect()
    }

    /// The best `k` classes of the last run, best first; of equal ones, the one with the smaller index.
    pub fn top(&self, k: usize) -> Vec<Class<'m>> {
        classes::top(&self.plan, &self.logits, k)
    }

    /// The hash of the last run's logits, each as four little-endian bytes: equal on every machine.
    pub fn output_hash(&self) -> Digest {
        Digest::of_logits(&self.logits)
    }

    fn check_image(&self, image: &[u8]) -> Result<(), Error> {
        if image.len() == self.image.len() {
            return Ok(());
        }
        let (height, width) = self.plan.input();
        Err(Error::ImageSize {
            len: image.len(),
            height,
            width,
        })
    }
}

/// Puts together the outputs of ops that run strip by strip.
struct Outputs {
    /// Of each op, the bytes its output has and those there are so far.
    parts: Vec<(usize, Vec<u8>)>,
}

impl Outputs {
    fn new(plan: &Plan<'_>) -> Self {
        let len = |op: Op<'_>| {
            let tensor = plan.tensor(op.output)?;
            Some(tensor.elements()? * tensor.dtype.size())
        };
        let parts = plan.ops().map(|op| (len(op).unwrap_or(0), vec![]));
        Self {
            parts: parts.collect(),
        }
    }

    /// Takes in more rows of op `index`'s output; `complete` gets it when these are the last.
    fn add(&mut self, index: usize, rows: &[u8], complete: impl FnOnce(&[u8])) {
        let Some((len, bytes)) = self.parts.get_mut(index) else {
            return;
        };
        if rows.len() == *len {
            return complete(rows);
        }
        bytes.extend_from_slice(rows);
        if bytes.len() == *len {
            complete(&std::mem::take(bytes));
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::{MAX_THREADS, Model, PixelFormat};
    use vitlet_plan::testing::{TINY_CLASSES, tiny_image, tiny_plan};

    fn options(kernel: Kernel, threads: usize) -> Options {
        Options {
            kernel: Some(kernel),
            threads,
            ..Options::default()
        }
    }

    #[test]
    fn every_kernel_and_thread_count_gives_the_same_bytes() {
        let model = Model::from_bytes(&tiny_plan(3), "tiny");
        let plan = model.plan().unwrap();
        let image = tiny_image(3);
        let mut reference = Session::new(&plan, &options(Kernel::SCALAR, 1)).unwrap();
        let traces = reference.run_traced(&image).unwrap();
        assert_eq!(traces.len(), plan.ops().len());
        for kernel in Kernel::available() {
            for threads in [1, 2, 3] {
                let mut session = Session::new(&plan, &options(kernel, threads)).unwrap();
                assert_eq!(session.threads(), threads);
                assert_eq!(session.run(&image).unwrap(), reference.logits());
                assert_eq!(session.output_hash(), reference.output_hash());
                let traced = session.run_traced(&image).unwrap();
                assert_eq!(traced, traces, "{} on {threads} threads", kernel.name());
            }
        }
    }

    #[test]
    fn classifies_a_photo_as_its_preprocessed_image() {
        let model = Model::from_bytes(&tiny_plan(3), "tiny");
        let mut session = Session::new(&model.plan().unwrap(), &Options::default()).unwrap();
        let photo = Photo {
            width: 20,
            height: 30,
            rgb: (0..20 * 30 * 3).map(|i| (i * 7) as u8).collect(),
        };
        let top = session.classify(&photo, 99).unwrap().top;
        assert_eq!(top.len(), TINY_CLASSES);
        assert!(top.is_sorted_by(|a, b| (a.logit, b.index) >= (b.logit, a.index)));
        let hash = session.output_hash();
        let image = session.preprocess(&photo).unwrap();
        session.run(&image).unwrap();
        assert_eq!(session.output_hash(), hash);
        assert_eq!(session.dequantised().len(), TINY_CLASSES);
    }

    #[test]
    fn threads_share_a_frames_preprocessing() {
        let model = Model::from_bytes(&tiny_plan(3), "tiny");
        let plan = model.plan().unwrap();
        let pixels: Vec<u8> = (0..50 * 40 * 2).map(|i| (i * 7) as u8).collect();
        let frame = Frame::new(PixelFormat::Yuyv, 50, 40, 100, &pixels).unwrap();
        let mut image = vec![0; 16 * 16 * 3];
        let mut preprocessor = Preprocessor::new(plan.preprocess());
        preprocessor.run(&frame, &mut image).unwrap();
        for threads in [1, 2, 3, MAX_THREADS] {
            let mut session = Session::new(&plan, &options(Kernel::detect(), threads)).unwrap();
            session.classify_frame(&frame, 1).unwrap();
            assert!(session.image == image, "{threads} threads");
        }
        let error = preprocessor.run(&frame, &mut image[1..]).unwrap_err();
        assert_eq!(
            error.to_string(),
            "output image has 767 bytes, 768 are needed (width*height*3)"
        );
    }

    #[test]
    fn refusals() {
        let model = Model::from_bytes(&tiny_plan(3), "tiny");
        let plan = model.plan().unwrap();
        for threads in [0, 17, usize::MAX] {
            let error = Session::new(&plan, &options(Kernel::SCALAR, threads)).unwrap_err();
            assert!(matches!(error, Error::ThreadCount { asked } if asked == threads));
        }
        let mut session = Session::new(&plan, &Options::default()).unwrap();
        let error = session.run(&[0; 5]).unwrap_err().to_string();
        assert_eq!(
            error,
            "the image has 5 bytes; this model takes 16x16 RGB pixels, 768 bytes"
        );
    }
}
