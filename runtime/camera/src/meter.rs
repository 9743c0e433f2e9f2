//! How long things took: percentiles of any number of times, in a few kilobytes.

use std::time::Duration;

use hdrhistogram::Histogram;
use serde::Serialize;

/// The longest time that is told from longer ones, in microseconds: ten minutes.
const LONGEST: u64 = 600_000_000;

/// Collects times, to 1 %.
#[derive(Debug)]
pub struct Meter {
    /// Microseconds. `None` only if the bounds were refused, and they are constants.
    histogram: Option<Histogram<u64>>,
    total: Duration,
}

/// Percentiles in milliseconds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub struct Percentiles {
    /// Half of the times are at most this.
    pub p50: f64,
    /// Nine of ten are.
    pub p90: f64,
    /// 99 of a hundred are.
    pub p99: f64,
    /// All are.
    pub max: f64,
}

impl Meter {
    /// Without times.
    pub fn new() -> Self {
        Self {
            histogram: Histogram::new_with_bounds(1, LONGEST, 2).ok(),
            total: Duration::ZERO,
        }
    }

    /// Adds a time.
    pub fn add(&mut self, time: Duration) {
        self.total += time;
        if let Some(histogram) = &mut self.histogram {
            let micros = u64::try_from(time.as_micros()).unwrap_or(LONGEST);
            histogram.saturating_record(micros.max(1));
        }
    }

    /// How many times were added.
    pub fn count(&self) -> u64 {
        self.histogram.as_ref().map_or(0, Histogram::len)
    }

    /// Their sum.
    pub const fn total(&self) -> Duration {
        self.total
    }

    /// The percentiles of all times; zeros of none.
    pub fn percentiles(&self) -> Percentiles {
        let at = |quantile| {
            let micros = self
                .histogram
                .as_ref()
                .map_or(0, |histogram| histogram.value_at_quantile(quantile));
            micros as f64 / 1e3
        };
        Percentiles {
            p50: at(0.5),
            p90: at(0.9),
            p99: at(0.99),
            max: at(1.0),
        }
    }
}

impl Default for Meter {
    fn default() -> Self {
        Self::new()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_within_a_hundredth() {
        let mut meter = Meter::new();
        assert_eq!(meter.percentiles(), Percentiles::default());
        for ms in 1..=1000 {
            meter.add(Duration::from_millis(ms));
        }
        let Percentiles { p50, p90, p99, max } = meter.percentiles();
        for (got, want) in [(p50, 500.0), (p90, 900.0), (p99, 990.0), (max, 1000.0)] {
            assert!((got / want - 1.0).abs() < 0.01, "{got} for {want}");
        }
        assert_eq!(meter.count(), 1000);
        assert_eq!(meter.total(), Duration::from_millis(500_500));
        meter.add(Duration::MAX / 4);
        assert_eq!(meter.count(), 1001);
    }
}
