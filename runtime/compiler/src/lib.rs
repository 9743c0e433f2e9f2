//! compiler
pub mod error;
pub mod eval;
pub mod frontend;
pub mod ir;
pub mod lower;
pub mod view;
