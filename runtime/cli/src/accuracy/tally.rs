//! What was counted: fractions, classes, confusion, calibration.

use serde::Serialize;

/// What the plan says of a photo, and what the f32 model says.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub(super) struct Answer {
    /// The best five classes, or as many as there are; best first.
    pub(super) top: Vec<usize>,
    /// The best one's share of the softmax.
    pub(super) score: f32,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) reference: Option<ReferenceAnswer>,
}

#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub(super) struct ReferenceAnswer {
    pub(super) class: usize,
    pub(super) score: f32,
    /// Sum of its squared logits, and of what the plan's differ from them, squared.
    pub(super) signal: f64,
    pub(super) noise: f64,
}

/// Counts over any number of photos. Their order matters to the last digit of sums of scores.
#[derive(Debug, Default)]
pub(super) struct Tally {
    images: usize,
    top1: usize,
    top5: usize,
    /// True class, answer, and whether the f32 model is right: of each photo.
    answers: Vec<(usize, usize, bool)>,
    calibration: Calibration,
    reference: Option<ReferenceTally>,
}

#[derive(Debug, Default)]
struct ReferenceTally {
    top1: usize,
    agreement: usize,
    signal: f64,
    noise: f64,
    calibration: Calibration,
}

/// What `accuracy` says, as a record.
#[derive(Debug, Serialize)]
pub(super) struct Record {
    pub(super) images: usize,
    pub(super) top1: f64,
    pub(super) top5: f64,
    pub(super) ece: f64,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) reference: Option<ReferenceRecord>,
    pub(super) classes: Vec<ClassRecord>,
    /// Rows are true classes, columns are answers.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) confusion: Option<Vec<Vec<usize>>>,
}

#[derive(Debug, Serialize)]
pub(super) struct ReferenceRecord {
    pub(super) top1: f64,
    pub(super) agreement: f64,
    pub(super) ece: f64,
    /// As `compare` has it, over all logits of all photos; null when no logit differs.
    pub(super) sqnr_db: Option<f64>,
}

/// The photos of one class.
#[derive(Debug, Serialize)]
pub(super) struct ClassRecord {
    pub(super) class: usize,
    pub(super) label: String,
    pub(super) images: usize,
    pub(super) top1: f64,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) reference_top1: Option<f64>,
    /// The most frequent wrong answer.
    pub(super) confused_with: Option<Confusion>,
}

#[derive(Debug, Clone, Serialize)]
pub(super) struct Confusion {
    pub(super) class: usize,
    pub(super) label: String,
    pub(super) images: usize,
}

impl Tally {
    /// Counts a photo of class `class`.
    pub(super) fn add(&mut self, class: usize, answer: &Answer) {
        let first = answer.top.first().copied();
        let right = first == Some(class);
        self.images += 1;
        self.top1 += usize::from(right);
        self.top5 += usize::from(answer.top.contains(&class));
        let reference = answer.reference.is_some_and(|answer| answer.class == class);
        if let Some(first) = first {
            self.answers.push((class, first, reference));
        }
        self.calibration.add(answer.score, right);
        if let Some(answer) = answer.reference {
            let reference = self.reference.get_or_insert_default();
            let right = answer.class == class;
            reference.top1 += usize::from(right);
            reference.agreement += usize::from(first == Some(answer.class));
            reference.signal += answer.signal;
            reference.noise += answer.noise;
            reference.calibration.add(answer.score, right);
        }
    }

    pub(super) const fn images(&self) -> usize {
        self.images
    }

    /// `label` names a class; with `confusion` the matrix of so many classes is part of the record.
    pub(super) fn record(
        &self,
        label: &dyn Fn(usize) -> String,
        confusion: Option<usize>,
    ) -> Record {
        let share = |count: usize| fraction(count, self.images);
        let mut answers = self.answers.clone();
        answers.sort_unstable();
        let classes = answers.chunk_by(|a, b| a.0 == b.0);
        Record {
            images: self.images,
            top1: share(self.top1),
            top5: share(self.top5),
            ece: self.calibration.error(),
            reference: self.reference.as_ref().map(|reference| ReferenceRecord {
                top1: share(reference.top1),
                agreement: share(reference.agreement),
                ece: reference.calibration.error(),
                sqnr_db: Some(10.0 * (reference.signal / reference.noise).log10())
                    .filter(|db| db.is_finite()),
            }),
            classes: classes.map(|photos| self.class(photos, label)).collect(),
            confusion: confusion.map(|classes| self.matrix(classes)),
        }
    }

    /// `photos` are those of one class, sorted.
    fn class(
        &self,
        photos: &[(usize, usize, bool)],
        label: &dyn Fn(usize) -> String,
    ) -> ClassRecord {
        let class = photos.first().map_or(0, |photo| photo.0);
        let share = |right: &dyn Fn(&(usize, usize, bool)) -> bool| {
            let right = photos.iter().filter(|photo| right(photo));
            fraction(right.count(), photos.len())
        };
        let answers = photos.chunk_by(|a, b| a.1 == b.1);
        let mut most: Option<(usize, usize)> = None;
        for (answer, images) in answers.map(|photos| (photos[0].1, photos.len())) {
            // Of equals the first.
            if answer != class && most.is_none_or(|most| images > most.1) {
                most = Some((answer, images));
            }
        }
        let reference = self.reference.as_ref();
        ClassRecord {
            class,
            label: label(class),
            images: photos.len(),
            top1: share(&|photo| photo.1 == class),
            reference_top1: reference.map(|_| share(&|photo| photo.2)),
            confused_with: most.map(|(class, images)| Confusion {
                class,
                label: label(class),
                images,
            }),
        }
    }

    fn matrix(&self, classes: usize) -> Vec<Vec<usize>> {
        let mut matrix = vec![vec![0; classes]; classes];
        for &(class, answer, _) in &self.answers {
            if let Some(cell) = matrix.get_mut(class).and_then(|row| row.get_mut(answer)) {
                *cell += 1;
            }
        }
        matrix
    }
}

fn fraction(count: usize, of: usize) -> f64 {
    count as f64 / of as f64
}

/// Bins of [`Calibration`], as in the paper and in most others.
const BINS: usize = 15;

/// Whether scores are the probabilities they look like: the expected calibration error of Guo et al., "On Calibration of Modern Neural
/// Networks" (arXiv 1706.04599), section 2.
#[derive(Debug, Clone, Copy, Default)]
struct Calibration {
    bins: [Bin; BINS],
}

/// Photos with scores in ((b − 1)/15, b/15].
#[derive(Debug, Clone, Copy, Default)]
struct Bin {
    images: usize,
    right: usize,
    /// Sum.
    score: f64,
}

impl Calibration {
    fn add(&mut self, score: f32, right: bool) {
        let score = f64::from(score);
        let bin = (score * BINS as f64).ceil() as usize;
        let bin = &mut self.bins[bin.clamp(1, BINS) - 1];
        bin.images += 1;
        bin.right += usize::from(right);
        bin.score += score;
    }

    /// Mean of |accuracy − mean score| over the bins, by their photos.
    fn error(&self) -> f64 {
        let images: usize = self.bins.iter().map(|bin| bin.images).sum();
        let gaps = self
            .bins
            .iter()
            .map(|bin| (bin.right as f64 - bin.score).abs());
        gaps.sum::<f64>() / images as f64
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answer(top: &[usize], score: f32, reference: Option<(usize, f32)>) -> Answer {
        Answer {
            top: top.to_vec(),
            score,
            reference: reference.map(|(class, score)| ReferenceAnswer {
                class,
                score,
                signal: 30.0,
                noise: 0.25,
            }),
        }
    }

    fn label(class: usize) -> String {
        format!("c{class}")
    }

    #[test]
    fn fractions_and_classes() {
        let mut tally = Tally::default();
        tally.add(3, &answer(&[3, 1, 2], 0.9, Some((1, 0.6))));
        tally.add(2, &answer(&[3, 1, 2], 0.8, Some((3, 0.7))));
        tally.add(2, &answer(&[1, 0, 2], 0.7, Some((2, 0.8))));
        tally.add(2, &answer(&[3, 1, 0], 0.6, Some((2, 0.9))));
        let record = tally.record(&label, Some(4));
        assert_eq!((record.images, record.top1, record.top5), (4, 0.25, 0.75));
        let reference = record.reference.map(|r| (r.top1, r.agreement, r.sqnr_db));
        // 4 photos, all of the same powers: 120 to 1.
        let sqnr_db = Some(10.0 * 120f64.log10());
        assert_eq!(reference, Some((0.5, 0.25, sqnr_db)));
        let class = |index: usize| {
            let class = &record.classes[index];
            let most = class.confused_with.as_ref();
            let most = most.map(|most| (most.class, most.images));
            (
                class.class,
                class.images,
                class.top1,
                class.reference_top1,
                most,
            )
        };
        assert_eq!(record.classes.len(), 2);
        assert_eq!(class(0), (2, 3, 0.0, Some(2.0 / 3.0), Some((3, 2))));
        assert_eq!(class(1), (3, 1, 1.0, Some(0.0), None));
        assert_eq!(record.classes[0].label, "c2");
        let matrix = record.confusion.into_iter().flatten();
        let matrix: Vec<Vec<usize>> = matrix.collect();
        assert_eq!(
            matrix,
            [[0, 0, 0, 0], [0, 0, 0, 0], [0, 1, 0, 2], [0, 0, 0, 1]]
        );
    }

    #[test]
    fn of_two_wrong_answers_that_are_as_frequent_the_first_class_is_named() {
        let mut tally = Tally::default();
        for wrong in [4, 1, 4, 1, 0] {
            tally.add(2, &answer(&[wrong], 1.0, None));
        }
        let record = tally.record(&label, None);
        let most = record.classes[0].confused_with.as_ref();
        assert_eq!(most.map(|most| (most.class, most.images)), Some((1, 2)));
        assert!(record.confusion.is_none() && record.reference.is_none());
    }

    #[test]
    fn scores_that_are_probabilities_have_no_calibration_error() {
        // Ten photos in the bin of 0.8, eight of them right: no error; ten of 0.5 that are all right: 0.5 off.
        let mut calibration = Calibration::default();
        (0..10).for_each(|photo| calibration.add(0.8, photo < 8));
        assert!(calibration.error() < 1e-7);
        (0..10).for_each(|_| calibration.add(0.5, true));
        assert!((calibration.error() - 0.25).abs() < 1e-7);
        // Errors of opposite signs do not cancel across bins, they do within.
        let mut calibration = Calibration::default();
        calibration.add(0.81, true);
        calibration.add(0.85, false);
        assert!((calibration.error() - 0.33).abs() < 1e-6);
    }

    #[test]
    fn bins_are_fifteenths() {
        let mut calibration = Calibration::default();
        for score in [0.0, 0.066, 0.067, 1.0] {
            calibration.add(score, true);
        }
        let images: Vec<usize> = calibration.bins.iter().map(|bin| bin.images).collect();
        assert_eq!((images[0], images[1], images[14]), (2, 1, 1));
    }
}
