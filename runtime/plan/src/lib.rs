//! plan.
#![no_std]
