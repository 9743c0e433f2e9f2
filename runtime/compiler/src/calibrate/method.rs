//! How the 8-bit range of an activation follows from what was seen of it.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use super::histogram::Histogram;
use super::{Parts, auto, entropy, merged, min_max, mse, percentile};
use crate::lower::expr::Expr;

/// A rule for 8-bit ranges.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(into = "String", try_from = "String")]
pub enum Method {
    /// All that was seen; and one scale for all heads of an attention and for all output channels of a layer's weights. To show
    /// what the other methods are worth.
    Naive,
    /// All that was seen.
    MinMax,
    /// So many percent of the numbers at either end.
    Percentile(f64),
    /// The least mean squared error.
    Mse,
    /// The least loss of information (Kullback-Leibler divergence).
    Entropy,
    /// The one of the others that does best for the tensor on photos that are held out.
    Auto,
}

impl Method {
    /// The percentile when none is given.
    const PERCENT: f64 = 99.99;

    /// The range of an activation by all parts of the photos, if `function` follows it, and the method that chose it.
    pub(super) fn range(self, parts: &Parts, function: Option<&Expr>) -> (Method, [f32; 2]) {
        let method = match self {
            Method::Auto => auto::choose(parts, function),
            method => method,
        };
        (method, method.range_of(&merged(parts), function))
    }

    pub(super) fn range_of(self, histogram: &Histogram, function: Option<&Expr>) -> [f32; 2] {
        match self {
            Method::Naive | Method::MinMax => min_max::range(histogram),
            Method::Percentile(percent) => percentile::range(histogram, percent),
            Method::Mse | Method::Auto => mse::range(histogram, function),
            Method::Entropy => entropy::range(histogram),
        }
    }
}

impl fmt::Display for Method {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Method::Naive => f.write_str("naive"),
            Method::MinMax => f.write_str("minmax"),
            Method::Percentile(percent) => write!(f, "percentile:{percent}"),
            Method::Mse => f.write_str("mse"),
            Method::Entropy => f.write_str("entropy"),
            Method::Auto => f.write_str("auto"),
        }
    }
}

impl From<Method> for String {
    fn from(method: Method) -> String {
        method.to_string()
    }
}

impl TryFrom<String> for Method {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        text.parse()
    }
}

impl FromStr for Method {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let percent = text.strip_prefix("percentile:").map(f64::from_str);
        match (text, percent) {
            ("naive", _) => Ok(Method::Naive),
            ("minmax", _) => Ok(Method::MinMax),
            ("percentile", _) => Ok(Method::Percentile(Method::PERCENT)),
            ("mse", _) => Ok(Method::Mse),
            ("entropy", _) => Ok(Method::Entropy),
            ("auto", _) => Ok(Method::Auto),
            (_, Some(Ok(percent))) if percent > 50.0 && percent <= 100.0 => {
                Ok(Method::Percentile(percent))
            }
            (_, Some(_)) => {
                Err("a percentile lies above 50 and at most at 100: percentile:99.99".to_owned())
            }
            _ => Err("write minmax, percentile[:P], mse, entropy, auto or naive".to_owned()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_read_back() {
        for text in [
            "naive",
            "minmax",
            "percentile:99.9",
            "mse",
            "entropy",
            "auto",
        ] {
            let method: Method = text.parse().expect("a method");
            assert_eq!(method.to_string(), text);
        }
        assert_eq!("percentile".parse(), Ok(Method::Percentile(99.99)));
        for wrong in [
            "",
            "Mse",
            "percentile:",
            "percentile:50",
            "percentile:101",
            "percentile:nan",
            "max",
        ] {
            assert!(wrong.parse::<Method>().is_err(), "{wrong}");
        }
    }
}
