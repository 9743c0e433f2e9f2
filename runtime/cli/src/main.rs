//! `vitlet`.
fn main() {}
