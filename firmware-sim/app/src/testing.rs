//! For tests and the host side (feature `std`): flash in memory that behaves like flash.

use std::ops::Range;

use vitlet_plan::AlignedBytes;

use crate::{BLOCK, Flash, FlashError};

/// Two slots in memory: erasing sets a block's bits, programming only clears bits.
#[derive(Clone, Debug)]
pub struct MemoryFlash(AlignedBytes);

impl MemoryFlash {
    /// As a new chip is, with room for small plans: each slot has a block for its record and one more.
    pub fn erased() -> Self {
        let mut flash = Self::zeroed(4 * BLOCK);
        flash.0.fill(0xff);
        flash
    }

    /// A chip of `len` bytes, a multiple of 2·[`BLOCK`], all of whose bits are cleared.
    pub fn zeroed(len: usize) -> Self {
        Self(AlignedBytes::zeroed(len))
    }

    /// Flips one bit of a byte.
    pub fn flip(&mut self, offset: usize, bit: usize) {
        if let Some(byte) = self.0.get_mut(offset) {
            *byte ^= 1 << (bit % 8);
        }
    }

    /// Sets bytes, whatever they were.
    pub fn fill(&mut self, range: Range<usize>, value: u8) {
        if let Some(bytes) = self.0.get_mut(range) {
            bytes.fill(value);
        }
    }
}

impl Flash for MemoryFlash {
    fn bytes(&self) -> &[u8] {
        &self.0
    }

    fn erase(&mut self, offset: usize) -> Result<(), FlashError> {
        let len = BLOCK;
        let block = self.0.get_mut(offset..offset + len);
        let block = block.filter(|_| offset.is_multiple_of(BLOCK));
        block.ok_or(FlashError::Range { offset, len })?.fill(0xff);
        Ok(())
    }

    fn program(&mut self, offset: usize, bytes: &[u8]) -> Result<(), FlashError> {
        let len = bytes.len();
        let whole = offset.is_multiple_of(4) && len.is_multiple_of(4);
        let place = self.0.get_mut(offset..offset + len).filter(|_| whole);
        let place = place.ok_or(FlashError::Range { offset, len })?;
        for (to, from) in place.iter_mut().zip(bytes) {
            *to &= from;
        }
        Ok(())
    }
}

/// The tiny network's plan for a seed.
#[cfg(test)]
pub(crate) fn tiny_plan(seed: u64) -> AlignedBytes {
    vitlet_plan::testing::tiny_plan(seed)
}
