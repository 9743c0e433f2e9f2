//! The machine's NOR flash: two 16-bit chips side by side that understand Intel's commands (CFI, JEP137 command set 0001).
//!
//! To be read it is plain memory. To be written it becomes a device: commands are written to addresses in it, and reading gives the
//! chips' status, so the map has it as the one or the other (`mmu::flash_is_device`).

use core::arch::asm;
use core::ptr::with_exposed_provenance_mut;

use vitlet_firmware::{BLOCK, Flash, FlashError};

use crate::memory_map::FLASH;
use crate::mmu;

/// Each command goes to both chips.
const fn both(command: u32) -> u32 {
    command << 16 | command
}

const READ_ARRAY: u32 = both(0xff);
const CLEAR_STATUS: u32 = both(0x50);
const BLOCK_ERASE: u32 = both(0x20);
const WRITE_BUFFER: u32 = both(0xe8);
const CONFIRM: u32 = both(0xd0);
const READY: u32 = both(0x80);
/// Erase, program, voltage and lock errors.
const ERRORS: u32 = both(0x3a);

/// Bytes of the chips' write buffer.
const BUFFER: usize = 2048;
/// A chip is ready after some 100 reads of its status; an erased block takes a second at most.
const PATIENCE: u32 = 10_000_000;

/// The flash, of which there is one.
pub struct NorFlash(());

impl NorFlash {
    /// Call once: whoever has it knows that nobody else writes.
    pub fn take() -> Self {
        Self(())
    }

    /// Runs `write` with the flash as a device, and makes it memory again.
    fn as_device(
        &mut self,
        offset: usize,
        len: usize,
        write: impl FnOnce(&Registers) -> Result<(), FlashError>,
    ) -> Result<(), FlashError> {
        let inside = offset
            .checked_add(len)
            .is_some_and(|end| end <= FLASH.len());
        if !inside || !offset.is_multiple_of(4) || !len.is_multiple_of(4) {
            return Err(FlashError::Range { offset, len });
        }
        mmu::flash_is_device(true);
        let registers = Registers(());
        let done = write(&registers);
        registers.write(offset, CLEAR_STATUS);
        registers.write(offset, READ_ARRAY);
        mmu::flash_is_device(false);
        forget_cached(FLASH.start + offset, len);
        done
    }
}

impl Flash for NorFlash {
    fn bytes(&self) -> &[u8] {
        let start = core::ptr::with_exposed_provenance(FLASH.start);
        // SAFETY: mapped as memory, read only, as long as nobody writes; writing takes `&mut self`, so not while the slice is there.
        unsafe { core::slice::from_raw_parts(start, FLASH.len()) }
    }

    fn erase(&mut self, offset: usize) -> Result<(), FlashError> {
        if !offset.is_multiple_of(BLOCK) {
            let len = BLOCK;
            return Err(FlashError::Range { offset, len });
        }
        self.as_device(offset, BLOCK, |registers| {
            registers.write(offset, BLOCK_ERASE);
            registers.write(offset, CONFIRM);
            registers.wait(offset)
        })
    }

    fn program(&mut self, offset: usize, bytes: &[u8]) -> Result<(), FlashError> {
        self.as_device(offset, bytes.len(), |registers| {
            let (mut offset, mut rest) = (offset, bytes);
            while !rest.is_empty() {
                // A buffer is written to one of the chip's pages of that size.
                let room = BUFFER - offset % BUFFER;
                let (now, later) = rest.split_at(room.min(rest.len()));
                registers.write(offset, WRITE_BUFFER);
                registers.wait(offset)?;
                let (words, _) = now.as_chunks::<4>();
                registers.write(offset, both(words.len() as u32 - 1));
                for (at, word) in (offset..).step_by(4).zip(words) {
                    registers.write(at, u32::from_le_bytes(*word));
                }
                registers.write(offset, CONFIRM);
                registers.wait(offset)?;
                (offset, rest) = (offset + now.len(), later);
            }
            Ok(())
        })
    }
}

/// The chips while they are a device.
struct Registers(());

impl Registers {
    fn write(&self, offset: usize, word: u32) {
        // SAFETY: `as_device` has mapped the flash as a device and checked the range that offsets lie in.
        unsafe { with_exposed_provenance_mut::<u32>(FLASH.start + offset).write_volatile(word) };
    }

    fn read(&self, offset: usize) -> u32 {
        // SAFETY: as `write`.
        unsafe { with_exposed_provenance_mut::<u32>(FLASH.start + offset).read_volatile() }
    }

    /// Waits until both chips are ready. (After a command reading gives the status; another command now would be taken for its operand.)
    fn wait(&self, offset: usize) -> Result<(), FlashError> {
        for _ in 0..PATIENCE {
            let status = self.read(offset);
            if status & READY == READY {
                return if status & ERRORS == 0 {
                    Ok(())
                } else {
                    Err(FlashError::Chip { offset, status })
                };
            }
        }
        Err(FlashError::Timeout { offset })
    }
}

/// Drops what the data cache still has of before. Nothing there can be newer than the flash: it is mapped read only.
fn forget_cached(start: usize, len: usize) {
    const LINE: usize = 64;
    for line in (start / LINE * LINE..start + len).step_by(LINE) {
        // SAFETY: cleaning and invalidating a line of mapped memory changes no value.
        unsafe { asm!("dc civac, {}", in(reg) line, options(nostack)) };
    }
    // SAFETY: a barrier.
    unsafe { asm!("dsb sy", options(nostack)) };
}
