//! The firmware for QEMU's `virt` machine: no operating system, no heap.
//!
//! The application is `vitlet-firmware`; this is the board: what docs/porting.md says another board has to bring.
//!
//! | module | job |
//! |---|---|
//! | `boot` | the first instructions; from EL2 to EL1; the application's own stack |
//! | `mem` | `memcpy` and its like, by vector registers |
//! | `memory_map` | addresses of the machine, and of what the host side puts into memory |
//! | `mmu` | page tables: what is code, what is data, what is not there |
//! | `exceptions` | what is printed when something is impossible; the way into the timer's interrupt |
//! | `log` | defmt over the serial port |
//! | `timer` | microseconds, the tick, and the counter of instructions |
//! | `flash` | the machine's NOR flash: read in place, written by CFI commands |
//! | `options` | what the host side asks for |
//! | `statics` | all memory that is not a stack |
//! | `camera` | the simulated camera: its interrupt delivers frames |
//! | `run` | from flash to the last frame |
//! | `inject` | faults on demand, for tests (feature `inject`) |
//! | `exit` | how a run ends: a board would restart |
#![no_std]
#![no_main]

mod boot;
mod camera;
mod exceptions;
mod exit;
mod flash;
#[cfg(feature = "inject")]
mod inject;
mod log;
mod mem;
mod memory_map;
mod mmu;
mod options;
mod run;
mod statics;
mod timer;

use core::panic::PanicInfo;

use crate::exit::Exit;

/// On the application's stack, with all of memory mapped and interrupts off.
extern "C" fn application() -> ! {
    exit::exit(run::run())
}

#[panic_handler]
fn panic(info: &PanicInfo<'_>) -> ! {
    defmt::error!("panic: {}", defmt::Display2Format(info));
    exit::exit(Exit::Panic)
}
