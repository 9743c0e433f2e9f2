//! preprocess.
#![no_std]
