//! vitlet.
mod photo;

pub use photo::{Photo, PhotoError};
