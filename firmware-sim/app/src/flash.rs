//! What NOR flash can do: be read like memory, be erased a block at a time (every bit 1), and have bits cleared.

use thiserror::Error;

/// Bytes that are erased together. (Of QEMU's `virt`; a board with smaller blocks erases several.)
pub const BLOCK: usize = 256 * 1024;

/// NOR flash that holds the two slots, each one half of it.
///
/// Reading needs `&self` and writing `&mut self`, so no plan can be in use while flash is written: most chips cannot be read then.
pub trait Flash {
    /// All of it. At a multiple of [`BLOCK`] in memory, its length a multiple of 2·[`BLOCK`].
    fn bytes(&self) -> &[u8];

    /// Sets the block that starts at `offset` to 0xFF.
    ///
    /// # Errors
    /// `offset` is not that of a block, or the chip says so.
    fn erase(&mut self, offset: usize) -> Result<(), FlashError>;

    /// Clears the bits that `bytes` has as 0, from `offset` on. Both the offset and the length are multiples of 4.
    ///
    /// # Errors
    /// The bytes do not lie in the flash or are not whole words, or the chip says so.
    fn program(&mut self, offset: usize, bytes: &[u8]) -> Result<(), FlashError>;
}

impl<F: Flash> Flash for &mut F {
    fn bytes(&self) -> &[u8] {
        (**self).bytes()
    }

    fn erase(&mut self, offset: usize) -> Result<(), FlashError> {
        (**self).erase(offset)
    }

    fn program(&mut self, offset: usize, bytes: &[u8]) -> Result<(), FlashError> {
        (**self).program(offset, bytes)
    }
}

/// Why flash was not written.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Error)]
#[non_exhaustive]
pub enum FlashError {
    /// Outside the flash, or not at a block or word.
    #[error("flash offset {offset:#x}, {len} bytes: not in the flash, or not whole words")]
    Range {
        /// First byte.
        offset: usize,
        /// Bytes.
        len: usize,
    },
    /// The chip reports an error: it is worn out or locked.
    #[error("flash offset {offset:#x}: the chip reports status {status:#06x}; replace it")]
    Chip {
        /// Where.
        offset: usize,
        /// The chip's status register.
        status: u32,
    },
    /// The chip does not become ready.
    #[error("flash offset {offset:#x}: the chip does not become ready")]
    Timeout {
        /// Where.
        offset: usize,
    },
    /// There was no power: a simulation's end.
    #[error("power lost")]
    PowerLost,
}
