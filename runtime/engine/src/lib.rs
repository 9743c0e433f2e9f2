//! engine.
#![no_std]
