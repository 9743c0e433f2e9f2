//! A file that is the machine's flash: 64 MB, two slots.

use std::fs::File;
use std::io::{Seek as _, SeekFrom, Write as _};
use std::path::Path;

use anyhow::Result;
use vitlet_firmware::testing::MemoryFlash;
use vitlet_firmware::{BLOCK, Flash as _, Slot, install};

/// QEMU's second bank.
pub(crate) const LEN: usize = 64 << 20;

/// Flash in memory, to be prepared and then written to a file.
pub(crate) struct Chip(pub(crate) MemoryFlash);

impl Chip {
    /// Without plans. (The bits of what is not erased do not matter.)
    pub(crate) fn empty() -> Self {
        Self(MemoryFlash::zeroed(LEN))
    }

    /// With plans installed one after the other: the first in slot A, the second in slot B.
    pub(crate) fn with_plans(plans: &[&[u8]]) -> Result<Self> {
        let mut chip = Self::empty();
        for plan in plans {
            install(&mut chip.0, plan)?;
        }
        Ok(chip)
    }

    /// Offset of a byte of a slot's plan.
    pub(crate) fn plan_offset(slot: Slot, byte: usize) -> usize {
        slot.offset(LEN) + BLOCK + byte
    }

    /// Writes the file; zeros take no room in it.
    pub(crate) fn write(&self, path: &Path) -> Result<()> {
        let mut file = File::create(path)?;
        file.set_len(LEN as u64)?;
        for (at, block) in self.0.bytes().chunks(BLOCK).enumerate() {
            if block.iter().any(|byte| *byte != 0) {
                file.seek(SeekFrom::Start((at * BLOCK) as u64))?;
                file.write_all(block)?;
            }
        }
        Ok(())
    }
}
