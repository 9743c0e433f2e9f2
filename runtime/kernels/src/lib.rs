//! kernels.
#![no_std]
