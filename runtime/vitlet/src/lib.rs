//! vitlet.
