//! What is said of a frame in JSON: by `vitlet camera`, `vitlet classify` and the preview's page alike.

use std::time::Duration;

use serde::Serialize;
use vitlet::Class;

use crate::Times;

/// A class and its score. `L` is how the label is held.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Top<L> {
    /// Its index.
    pub class: usize,
    /// Its name, if the plan has labels.
    pub label: Option<L>,
    /// Its share of the softmax, 0 to 1.
    pub score: f32,
}

impl<'m> From<&Class<'m>> for Top<&'m str> {
    fn from(class: &Class<'m>) -> Self {
        Self {
            class: class.index,
            label: class.label,
            score: class.score,
        }
    }
}

impl Top<&str> {
    /// With a label of its own.
    pub(crate) fn into_owned(self) -> Top<String> {
        Top {
            class: self.class,
            label: self.label.map(str::to_owned),
            score: self.score,
        }
    }
}

/// How long a frame took, in milliseconds.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Milliseconds {
    /// Reading it.
    pub capture: f64,
    /// Decoding, cropping and resizing it.
    pub preprocess: f64,
    /// The network.
    pub inference: f64,
    /// From its dequeueing to its classes.
    pub end_to_end: f64,
}

impl From<&Times> for Milliseconds {
    fn from(times: &Times) -> Self {
        Self {
            capture: milliseconds(times.capture),
            preprocess: milliseconds(times.preprocess),
            inference: milliseconds(times.inference),
            end_to_end: milliseconds(times.end_to_end),
        }
    }
}

pub(crate) fn milliseconds(time: Duration) -> f64 {
    time.as_secs_f64() * 1e3
}
