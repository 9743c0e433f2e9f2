//! Averages over frames, for a display: confidences that do not flicker. Nothing here goes back into the integers.

use heapless::Vec;
use micromath::F32Ext;

/// Classes of the largest model whose confidences are averaged (ImageNet's).
pub const MAX_CLASSES: usize = 1000;

/// The share of a new frame in the average: about the last five frames count.
const SHARE: f32 = 0.3;

/// What a display shows.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct Smoothed {
    /// The likeliest class of this frame alone, and its confidence, 0 to 1.
    pub frame: (usize, f32),
    /// The likeliest class of the average, and its confidence, 0 to 1.
    pub average: (usize, f32),
}

/// An exponential moving average of every class's confidence (softmax of the logits).
#[derive(Debug)]
pub struct Smoothing {
    average: Vec<f32, MAX_CLASSES>,
    /// Of this frame; kept here because it is too long for a stack.
    frame: Vec<f32, MAX_CLASSES>,
}

impl Smoothing {
    /// Before the first frame.
    pub const fn new() -> Self {
        Self {
            average: Vec::new(),
            frame: Vec::new(),
        }
    }

    /// Takes a frame's logits, real = `scale` · logit; `None` if there are none, or more than [`MAX_CLASSES`].
    pub fn add(&mut self, logits: &[i32], scale: f32) -> Option<Smoothed> {
        let largest = *logits.iter().max()?;
        self.frame.clear();
        for logit in logits {
            // micromath's exp is good to some 1e-3, which a display can bear.
            let below = (i64::from(*logit) - i64::from(largest)) as f32 * scale;
            self.frame.push(F32Ext::exp(below.max(-80.0))).ok()?;
        }
        let sum: f32 = self.frame.iter().sum();
        self.frame.iter_mut().for_each(|share| *share /= sum);
        if self.average.len() == self.frame.len() {
            for (average, now) in self.average.iter_mut().zip(&self.frame) {
                *average += SHARE * (now - *average);
            }
        } else {
            self.average.clear();
            self.average.extend_from_slice(&self.frame).ok()?;
        }
        Some(Smoothed {
            frame: likeliest(&self.frame)?,
            average: likeliest(&self.average)?,
        })
    }
}

impl Default for Smoothing {
    fn default() -> Self {
        Self::new()
    }
}

/// The first of the largest.
fn likeliest(shares: &[f32]) -> Option<(usize, f32)> {
    let shares = shares.iter().copied().enumerate();
    shares.reduce(|best, next| if next.1 > best.1 { next } else { best })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn confidences_are_the_softmax() {
        let smoothed = Smoothing::new()
            .add(&[0, 1000, 500], 1e-3)
            .expect("classes");
        let (class, confidence) = smoothed.frame;
        let exact = 1.0 / (1.0 + (-1.0_f32).exp() + (-0.5_f32).exp());
        assert_eq!(class, 1);
        assert!(
            (confidence - exact).abs() < 0.01,
            "{confidence} for {exact}"
        );
        assert_eq!(smoothed.average, smoothed.frame);
    }

    #[test]
    fn one_frame_that_differs_does_not_change_the_average() {
        let mut smoothing = Smoothing::new();
        for _ in 0..10 {
            smoothing.add(&[0, 10_000], 1e-3);
        }
        let other = smoothing.add(&[10_000, 0], 1e-3).expect("classes");
        assert_eq!((other.frame.0, other.average.0), (0, 1));
        assert!((0.6..0.8).contains(&other.average.1), "{:?}", other.average);
    }

    #[test]
    fn the_largest_logits_do_not_overflow() {
        let smoothed = Smoothing::new()
            .add(&[i32::MIN, i32::MAX], 1.0)
            .expect("classes");
        assert_eq!(smoothed.frame, (1, 1.0));
        assert_eq!(Smoothing::new().add(&[], 1.0), None);
    }
}
