//! How far numbers are from what they stand for.

/// The deviation of numbers from their references, summed up over any number of calls of [`Deviation::add`].
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Deviation {
    /// Sum of the squared references.
    signal: f64,
    /// Sum of the squared numbers.
    power: f64,
    /// Sum of the products of number and reference.
    product: f64,
    /// Sum of the squared differences.
    noise: f64,
    max_error: f64,
    max_reference: f64,
}

impl Deviation {
    /// Adds pairs of a number and its reference; what the longer list has more is a difference without bound.
    pub fn add(&mut self, numbers: &[f32], references: &[f32]) {
        if numbers.len() != references.len() {
            (self.noise, self.max_error) = (f64::INFINITY, f64::INFINITY);
        }
        for (number, reference) in numbers.iter().zip(references) {
            let (x, r) = (f64::from(*number), f64::from(*reference));
            let error = (x - r).abs();
            self.signal += r * r;
            self.power += x * x;
            self.product += x * r;
            self.noise += error * error;
            // `max` would ignore a NaN.
            self.max_error = if error.is_nan() {
                f64::INFINITY
            } else {
                self.max_error.max(error)
            };
            self.max_reference = self.max_reference.max(r.abs());
        }
    }

    /// Sum of the squared references.
    #[must_use]
    pub fn signal(&self) -> f64 {
        self.signal
    }

    /// Sum of the squared differences.
    #[must_use]
    pub fn noise(&self) -> f64 {
        self.noise
    }

    /// Sum of the squared differences ÷ sum of the squared references; 0 if there are no differences.
    pub(crate) fn relative_noise(&self) -> f64 {
        if self.noise == 0.0 {
            return 0.0;
        }
        self.noise / self.signal
    }

    /// Signal to quantisation noise ratio in dB: 10·log10(Σ reference² ÷ Σ difference²). `None` when it is no number: nothing was
    /// added, all references are 0, no number differs, or one is not finite.
    #[must_use]
    pub fn sqnr_db(&self) -> Option<f64> {
        Some(10.0 * (self.signal / self.noise).log10()).filter(|db| db.is_finite())
    }

    /// Cosine of the angle between numbers and references, as vectors; `None` when one of them is 0 or not finite.
    #[must_use]
    pub fn cosine(&self) -> Option<f64> {
        Some(self.product / (self.power.sqrt() * self.signal.sqrt())).filter(|c| c.is_finite())
    }

    /// The largest difference.
    #[must_use]
    pub fn max_error(&self) -> f64 {
        self.max_error
    }

    /// The largest magnitude of a reference.
    #[must_use]
    pub fn max_reference(&self) -> f64 {
        self.max_reference
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn figures_of_a_small_case() {
        let mut deviation = Deviation::default();
        // Two calls are one long list.
        deviation.add(&[3.0], &[4.0]);
        deviation.add(&[-2.0, 0.0], &[-2.0, 0.0]);
        assert_eq!((deviation.signal(), deviation.noise()), (20.0, 1.0));
        assert!((deviation.sqnr_db().unwrap() - 10.0 * 20f64.log10()).abs() < 1e-12);
        let cosine = (3.0 * 4.0 + 4.0) / (13f64.sqrt() * 20f64.sqrt());
        assert!((deviation.cosine().unwrap() - cosine).abs() < 1e-12);
        assert_eq!(
            (deviation.max_error(), deviation.max_reference()),
            (1.0, 4.0)
        );
    }

    #[test]
    fn what_is_no_number_is_none() {
        let mut deviation = Deviation::default();
        assert_eq!((deviation.sqnr_db(), deviation.cosine()), (None, None));
        deviation.add(&[1.0, 2.0], &[1.0, 2.0]);
        assert_eq!(deviation.sqnr_db(), None);
        assert!((deviation.cosine().unwrap() - 1.0).abs() < 1e-12);
        for wrong in [&[f32::NAN, 2.0][..], &[1.0], &[1.0, f32::INFINITY]] {
            let mut deviation = Deviation::default();
            deviation.add(wrong, &[1.0, 2.0]);
            assert_eq!(deviation.sqnr_db(), None, "{wrong:?}");
            assert_eq!(deviation.max_error(), f64::INFINITY, "{wrong:?}");
        }
    }
}
