//! The program as its users and their scripts see it: what it prints, its exit status, and the files it leaves.
//!
//! Plans are tiny and made from a seed, photos are noise, so nothing here needs data or the compiler; what does is in `compile` and `compare`.
#![allow(
    clippy::panic,
    clippy::print_stdout,
    clippy::unwrap_used,
    reason = "tests"
)]

mod accuracy;
#[cfg(unix)]
mod camera;
#[cfg(feature = "compiler")]
mod compare;
#[cfg(feature = "compiler")]
mod compile;
mod files;
mod inputs;
mod profile;
mod records;
mod sandbox;
