//! What a params constructor or a `run` call refuses.

use core::fmt;

/// A params constructor refused its arguments; the plan that holds them is damaged or was written by a faulty compiler.
#[derive(Clone, Copy, Debug, PartialEq)]
#[non_exhaustive]
pub enum ParamError {
    /// A size is zero or above the largest the kernels support.
    Size {
        /// The size's name.
        what: &'static str,
        /// The largest allowed value.
        max: usize,
        /// The value found.
        actual: usize,
    },
    /// An array has the wrong length.
    Length {
        /// The array's name.
        what: &'static str,
        /// The length the other params ask for.
        expected: usize,
        /// The length found.
        actual: usize,
    },
    /// A number in an array is outside its bounds.
    Value {
        /// The array's name.
        what: &'static str,
        /// Index of the first offending element.
        index: usize,
        /// The bound, in words.
        bound: &'static str,
    },
    /// The params contradict each other.
    Inconsistent {
        /// The rule that is broken.
        rule: &'static str,
    },
}

impl fmt::Display for ParamError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Self::Size { what, max, actual } => write!(f, "{what} is {actual}, must be 1..={max}"),
            Self::Length {
                what,
                expected,
                actual,
            } => write!(f, "{what} has {actual} elements, must have {expected}"),
            Self::Value { what, index, bound } => write!(f, "{what}[{index}] must be {bound}"),
            Self::Inconsistent { rule } => write!(f, "broken rule: {rule}"),
        }
    }
}

impl core::error::Error for ParamError {}

/// `run` got a buffer that does not fit its params.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum SizeError {
    /// A buffer has the wrong length.
    Length {
        /// The buffer's name.
        what: &'static str,
        /// The (smallest) length that fits.
        expected: usize,
        /// The length found.
        actual: usize,
    },
    /// The row range does not lie in the operation's rows.
    Rows {
        /// First row asked for.
        start: usize,
        /// One past the last row asked for.
        end: usize,
        /// Rows the operation has.
        rows: usize,
    },
    /// The output buffer's type is not the one the params say.
    OutType,
    /// An input buffer's type is not the one the params say.
    InType {
        /// The buffer's name.
        what: &'static str,
    },
}

impl fmt::Display for SizeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Self::Length {
                what,
                expected,
                actual,
            } => {
                write!(
                    f,
                    "buffer `{what}` has {actual} elements; pass {expected}, as the params say"
                )
            }
            Self::Rows { start, end, rows } => {
                write!(
                    f,
                    "rows {start}..{end} asked for; the operation has rows 0..{rows}"
                )
            }
            Self::OutType => f.write_str(
                "the output buffer's type differs from the params' output; pass the matching `Out`",
            ),
            Self::InType { what } => write!(
                f,
                "the type of buffer `{what}` differs from the params'; pass the matching `In`"
            ),
        }
    }
}

impl core::error::Error for SizeError {}

/// A size in `1..=max`.
pub(crate) fn size(what: &'static str, actual: usize, max: usize) -> Result<(), ParamError> {
    if (1..=max).contains(&actual) {
        Ok(())
    } else {
        Err(ParamError::Size { what, max, actual })
    }
}

/// An array of the expected length.
pub(crate) fn length(what: &'static str, actual: usize, expected: usize) -> Result<(), ParamError> {
    if actual == expected {
        Ok(())
    } else {
        Err(ParamError::Length {
            what,
            expected,
            actual,
        })
    }
}

/// Every element satisfies `ok`.
pub(crate) fn values<T: Copy>(
    what: &'static str,
    bound: &'static str,
    array: &[T],
    ok: impl Fn(T) -> bool,
) -> Result<(), ParamError> {
    // All of them without an early exit, which vectorises: weights are megabytes.
    if array.iter().fold(true, |all, &v| all & ok(v)) {
        return Ok(());
    }
    let index = array.iter().position(|&v| !ok(v)).unwrap_or(array.len());
    Err(ParamError::Value { what, index, bound })
}

/// A rule between several params.
pub(crate) fn rule(rule: &'static str, holds: bool) -> Result<(), ParamError> {
    if holds {
        Ok(())
    } else {
        Err(ParamError::Inconsistent { rule })
    }
}

/// A buffer of exactly the expected length.
pub(crate) fn exact(what: &'static str, actual: usize, expected: usize) -> Result<(), SizeError> {
    if actual == expected {
        Ok(())
    } else {
        Err(SizeError::Length {
            what,
            expected,
            actual,
        })
    }
}

/// A buffer of at least the expected length.
pub(crate) fn at_least(
    what: &'static str,
    actual: usize,
    expected: usize,
) -> Result<(), SizeError> {
    if actual >= expected {
        Ok(())
    } else {
        Err(SizeError::Length {
            what,
            expected,
            actual,
        })
    }
}

/// A row range inside `0..rows`.
pub(crate) fn row_range(range: &core::ops::Range<usize>, rows: usize) -> Result<(), SizeError> {
    if range.start <= range.end && range.end <= rows {
        Ok(())
    } else {
        Err(SizeError::Rows {
            start: range.start,
            end: range.end,
            rows,
        })
    }
}
