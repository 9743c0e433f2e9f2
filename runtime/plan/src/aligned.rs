//! [`AlignedBytes`]: a heap buffer that starts at a multiple of 64, for plans and arenas.

use alloc::vec;
use alloc::vec::Vec;
use core::fmt;
use core::ops::{Deref, DerefMut};

use crate::format::ALIGN;

/// Bytes on the heap whose first one is at a multiple of 64 in memory: what [`Plan::parse`](crate::Plan::parse) and the engine's
/// arena ask for.
#[derive(Default)]
pub struct AlignedBytes {
    /// Never grows, so that it stays where it is.
    buffer: Vec<u8>,
    start: usize,
    len: usize,
}

impl AlignedBytes {
    /// `len` zeros.
    pub fn zeroed(len: usize) -> Self {
        let buffer = vec![0; len.saturating_add(ALIGN - 1)];
        let start = buffer.as_ptr().addr().wrapping_neg() % ALIGN;
        AlignedBytes { buffer, start, len }
    }

    /// A copy of `bytes`.
    pub fn copy_of(bytes: &[u8]) -> Self {
        let mut copy = AlignedBytes::zeroed(bytes.len());
        copy.copy_from_slice(bytes);
        copy
    }
}

impl Deref for AlignedBytes {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.buffer[self.start..self.start + self.len]
    }
}

impl DerefMut for AlignedBytes {
    fn deref_mut(&mut self) -> &mut [u8] {
        &mut self.buffer[self.start..self.start + self.len]
    }
}

impl Clone for AlignedBytes {
    fn clone(&self) -> Self {
        AlignedBytes::copy_of(self)
    }
}

impl AsRef<[u8]> for AlignedBytes {
    fn as_ref(&self) -> &[u8] {
        self
    }
}

impl fmt::Debug for AlignedBytes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "AlignedBytes({} bytes)", self.len)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn starts_at_a_multiple_of_64_also_after_a_move_and_in_a_clone() {
        for len in [0, 1, 63, 64, 65, 1000] {
            let bytes = AlignedBytes::zeroed(len);
            let moved = [bytes];
            let clone = moved[0].clone();
            assert!(moved[0].as_ptr().addr().is_multiple_of(ALIGN));
            assert!(clone.as_ptr().addr().is_multiple_of(ALIGN));
            assert_eq!(clone.len(), len);
        }
    }
}
