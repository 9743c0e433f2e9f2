//! Averages of scores over frames, so that a label does not flicker. For display: nothing here goes back into the integers.

use vitlet::Class;

/// An exponential moving average of every class's score.
#[derive(Clone, Debug)]
pub(crate) struct Smoothing {
    /// The weight of a new frame.
    share: f32,
    average: Vec<f32>,
}

impl Smoothing {
    /// Over about `frames` frames (as an average of so many would, its weights' centre is (frames - 1) / 2 frames ago); 1 is none.
    pub(crate) fn new(frames: f32) -> Self {
        Self {
            share: 2.0 / (frames.max(1.0) + 1.0),
            average: Vec::new(),
        }
    }

    /// Replaces the scores by their averages, and orders the classes by them: best first, of equals the smaller index.
    pub(crate) fn smooth(&mut self, classes: &mut [Class<'_>]) {
        if self.share >= 1.0 {
            return;
        }
        if self.average.len() != classes.len() {
            self.average = vec![0.0; classes.len()];
            for class in classes.iter() {
                if let Some(average) = self.average.get_mut(class.index) {
                    *average = class.score;
                }
            }
            return;
        }
        for class in classes.iter_mut() {
            if let Some(average) = self.average.get_mut(class.index) {
                *average += self.share * (class.score - *average);
                class.score = *average;
            }
        }
        classes.sort_by(|a, b| b.score.total_cmp(&a.score).then(a.index.cmp(&b.index)));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn classes(scores: &[f32]) -> Vec<Class<'static>> {
        let classes = scores.iter().enumerate().map(|(index, &score)| Class {
            index,
            label: None,
            logit: 0,
            score,
        });
        classes.collect()
    }

    #[test]
    fn one_frame_that_differs_does_not_change_the_label() {
        let mut smoothing = Smoothing::new(5.0);
        for _ in 0..10 {
            smoothing.smooth(&mut classes(&[0.1, 0.9]));
        }
        let mut odd = classes(&[0.9, 0.1]);
        smoothing.smooth(&mut odd);
        assert_eq!(odd[0].index, 1);
        assert!((odd[0].score - (0.9 - 0.8 / 3.0)).abs() < 1e-6, "{odd:?}");
        for _ in 0..10 {
            odd = classes(&[0.9, 0.1]);
            smoothing.smooth(&mut odd);
        }
        assert_eq!(odd[0].index, 0);
        assert!((odd.iter().map(|class| class.score).sum::<f32>() - 1.0).abs() < 1e-5);
    }

    #[test]
    fn one_is_none() {
        let mut smoothing = Smoothing::new(1.0);
        smoothing.smooth(&mut classes(&[0.1, 0.9]));
        let mut now = classes(&[0.6, 0.4]);
        smoothing.smooth(&mut now);
        assert_eq!(now, classes(&[0.6, 0.4]));
    }
}
