//! From lowered layers and ranges to a plan: types ([`types`]), scales ([`grid`]), integer weights ([`weights`]), the plan's
//! tensors and ops ([`emit`], with [`attention`] and [`sums`]); [`split`] makes
//! layers small enough for them first, [`planes`] makes two 8-bit values of each that is to have 16 bits, and [`trial`] says what a
//! layer would make of an input's grid. The numbers follow `docs/numerics.md`; everything here is f64 and deterministic.

mod attention;
mod emit;
mod grid;
pub(crate) mod planes;
mod split;
mod sums;
mod trial;
mod types;
mod weights;

pub(crate) use emit::compile;
pub(crate) use grid::{Grid, asymmetric_steps};
pub(crate) use trial::error_of_sums;
pub(crate) use types::prepare;
