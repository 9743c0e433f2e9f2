//! The range of all that was seen: nothing is clipped, and one outlier sets the step of all.

use super::histogram::Histogram;

pub(super) fn range(histogram: &Histogram) -> [f32; 2] {
    histogram.reach()
}
