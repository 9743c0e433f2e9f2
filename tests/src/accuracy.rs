//! What int8 costs: a model in f32 by tract and plans of it by vitlet, on the same photos.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};

use anyhow::{Context as _, Result, ensure};
use rayon::prelude::*;
use vitlet::{Options, Photo, Plan, Preprocessor, Session};
use vitlet_compiler::{Classifier, Deviation, Model, Normalisation};

/// What came out for a plan.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Figures {
    /// Photos that were looked at.
    pub photos: usize,
    /// On how many of them the plan is right, and the model in f32.
    pub hits: usize,
    /// The same of the model in f32.
    pub hits_f32: usize,
    /// On how many both say the same class.
    pub agreeing: usize,
    /// Of the logits of all photos; `None` when none differs.
    pub sqnr_db: Option<f64>,
}

impl Figures {
    /// In percent.
    #[must_use]
    pub fn top1(&self) -> f64 {
        self.percent(self.hits)
    }

    /// In percent.
    #[must_use]
    pub fn top1_f32(&self) -> f64 {
        self.percent(self.hits_f32)
    }

    /// In percent.
    #[must_use]
    pub fn agreement(&self) -> f64 {
        self.percent(self.agreeing)
    }

    /// By how many photos the plan is right less often than the model in f32: those that only f32 has right, less those that only the
    /// plan has right.
    #[must_use]
    pub fn photos_lost(&self) -> i64 {
        self.hits_f32 as i64 - self.hits as i64
    }

    fn percent(&self, photos: usize) -> f64 {
        100.0 * photos as f64 / self.photos as f64
    }
}

/// What a plan makes of one photo.
#[derive(Debug, Clone, Copy)]
struct Seen {
    right: bool,
    right_f32: bool,
    agreeing: bool,
    /// Sum of f32's squared logits, and of the differences, squared.
    signal: f64,
    noise: f64,
}

/// Runs a model in f32 once on each photo, and every plan of it, on all cores. Photos come with the index of their class, their order
/// does not matter; `progress` is told how many are done.
///
/// # Errors
/// When a photo cannot be read, or plans take images of different kinds.
pub fn measure(
    model: &Model,
    plans: &[Plan<'_>],
    photos: &[(usize, PathBuf)],
    progress: &(dyn Fn(usize) + Sync),
) -> Result<Vec<Figures>> {
    let first = plans.first().context("no plan to measure")?;
    let images = |plan: &Plan<'_>| (plan.preprocess(), plan.mean(), plan.std());
    ensure!(
        plans.iter().all(|plan| images(plan) == images(first)),
        "the plans take different images"
    );
    ensure!(!photos.is_empty(), "no photos to measure on");
    let done = AtomicUsize::new(0);
    let chunk = photos.len().div_ceil(rayon::current_num_threads());
    let seen: Vec<Vec<Seen>> = photos
        .par_chunks(chunk)
        .map(|photos| {
            let mut worker = Worker::new(model, plans, first)?;
            let one = |(class, path): &(usize, PathBuf)| {
                let seen = worker.see(*class, path);
                progress(1 + done.fetch_add(1, Ordering::Relaxed));
                seen.with_context(|| path.display().to_string())
            };
            photos.iter().map(one).collect::<Result<Vec<_>>>()
        })
        .collect::<Result<Vec<_>>>()?
        .concat();
    let of_plan = |plan| seen.iter().filter_map(move |seen| seen.get(plan).copied());
    Ok((0..plans.len())
        .map(|plan| figures(&of_plan(plan).collect::<Vec<_>>()))
        .collect())
}

/// Sums up.
fn figures(seen: &[Seen]) -> Figures {
    let count = |what: fn(&Seen) -> bool| seen.iter().filter(|seen| what(seen)).count();
    // In the order of their size: which photo came first must not show in the last digit.
    let sum = |power: fn(&Seen) -> f64| {
        let mut powers: Vec<f64> = seen.iter().map(power).collect();
        powers.sort_by(f64::total_cmp);
        powers.iter().sum::<f64>()
    };
    let (signal, noise) = (sum(|seen| seen.signal), sum(|seen| seen.noise));
    Figures {
        photos: seen.len(),
        hits: count(|seen| seen.right),
        hits_f32: count(|seen| seen.right_f32),
        agreeing: count(|seen| seen.agreeing),
        sqnr_db: Some(10.0 * (signal / noise).log10()).filter(|db| db.is_finite()),
    }
}

/// What each thread has of its own.
struct Worker<'m> {
    preprocessor: Preprocessor,
    float: Classifier<'m>,
    sessions: Vec<Session<'m>>,
}

impl<'m> Worker<'m> {
    /// `first` is one of the plans.
    fn new(model: &'m Model, plans: &[Plan<'m>], first: &Plan<'m>) -> Result<Self> {
        let normalisation = Normalisation::new(first.mean(), first.std())?;
        let session = |plan| Session::new(plan, &Options::default());
        Ok(Self {
            preprocessor: Preprocessor::new(first.preprocess()),
            float: model.classifier(&normalisation)?,
            sessions: plans.iter().map(session).collect::<Result<_, _>>()?,
        })
    }

    /// What each plan makes of a photo.
    fn see(&mut self, class: usize, photo: &Path) -> Result<Vec<Seen>> {
        let image = self.preprocessor.photo(&Photo::open(photo)?)?;
        let reference = self.float.logits(&image)?;
        let said = best(&reference);
        let one = |session: &mut Session<'_>| {
            session.run(&image)?;
            let logits = session.dequantised();
            let mut deviation = Deviation::default();
            deviation.add(&logits, &reference);
            Ok(Seen {
                right: best(&logits) == class,
                right_f32: said == class,
                agreeing: best(&logits) == said,
                signal: deviation.signal(),
                noise: deviation.noise(),
            })
        };
        self.sessions.iter_mut().map(one).collect()
    }
}

/// The index of the largest value; of equals, the smallest index.
fn best(logits: &[f32]) -> usize {
    let larger =
        |best: (usize, f32), (i, x): (usize, &f32)| if *x > best.1 { (i, *x) } else { best };
    let start = (0, f32::NEG_INFINITY);
    logits.iter().enumerate().fold(start, larger).0
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{calibrate, compile, image, in_repository, samples, spread};

    const SEEN: Seen = Seen {
        right: true,
        right_f32: true,
        agreeing: true,
        signal: 50.0,
        noise: 0.5,
    };

    #[test]
    fn what_only_one_of_both_has_right_is_lost_or_won() {
        let lost = Seen {
            right: false,
            agreeing: false,
            ..SEEN
        };
        let won = Seen {
            right_f32: false,
            agreeing: false,
            ..SEEN
        };
        let both_wrong = Seen {
            right: false,
            right_f32: false,
            ..SEEN
        };
        let figures = figures(&[lost, SEEN, lost, won, both_wrong]);
        assert_eq!((figures.hits, figures.hits_f32), (2, 3));
        assert_eq!((figures.photos_lost(), figures.agreeing), (1, 2));
        assert_eq!((figures.top1(), figures.top1_f32()), (40.0, 60.0));
        assert_eq!((figures.agreement(), figures.sqnr_db), (40.0, Some(20.0)));
    }

    #[test]
    fn of_equals_the_first_is_best() {
        assert_eq!((best(&[1.0, 3.0, 3.0]), best(&[f32::NAN, 1.0])), (1, 1));
    }

    #[test]
    fn neither_order_nor_company_matters() -> Result<()> {
        let model = Model::open(&in_repository("models/tiny/tiny_pvt.onnx"))?;
        let size = model.image_size();
        let samples = spread(&samples()?, 12);
        let images = samples.iter().map(|photo| image(photo, size));
        let images = images.collect::<Result<Vec<_>>>()?;
        let plans =
            [&images[..2], &images[..]].map(|images| compile(&model, &calibrate(&model, images)?));
        let [poor, good] = plans;
        let (poor, good) = (poor?, good?);
        let plans = [Plan::parse(&poor)?, Plan::parse(&good)?];
        let mut photos: Vec<(usize, PathBuf)> = samples.into_iter().map(|p| (3, p)).collect();
        let together = measure(&model, &plans, &photos, &|_| ())?;
        assert_ne!(together[0].sqnr_db, together[1].sqnr_db);
        assert_eq!(together[0].photos, 12);
        photos.reverse();
        assert_eq!(measure(&model, &plans, &photos, &|_| ())?, together);
        let alone = measure(&model, &plans[1..], &photos, &|_| ())?;
        assert_eq!(alone, together[1..]);
        assert!(measure(&model, &plans, &[], &|_| ()).is_err());
        Ok(())
    }
}
