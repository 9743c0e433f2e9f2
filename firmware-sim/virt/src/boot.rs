//! From the first instruction to the application.
//!
//! QEMU starts an ELF image at EL1, or at EL2 with `-M virt,virtualization=on`. [`start`] goes on at EL1 in both cases; then aarch64-rt turns
//! the MMU on with a coarse table, clears `.bss`, allows floating point and calls [`main`] on the exceptions' stack. The application has
//! a stack of its own: it runs with SP_EL0, so an exception always finds a good stack in SP_EL1, even if the application's has overflowed.

use core::arch::{asm, naked_asm};

use aarch64_rt::{InitialPagetable, initial_pagetable};

use crate::memory_map::{Region, application_stack};
use crate::{mmu, statics, timer};

/// What every byte of the application's stack holds until it is used.
const PAINT: u8 = 0xa5;

/// Entry: from EL2 to EL1, if it is not there yet.
///
/// # Safety
/// The machine jumps here; nobody else does.
#[unsafe(naked)]
#[unsafe(no_mangle)]
#[unsafe(link_section = ".start")]
unsafe extern "C" fn start() -> ! {
    naked_asm!(
        "mrs x9, CurrentEL",
        "cmp x9, #(2 << 2)",
        "b.ne entry",
        // EL1 is 64-bit.
        "mov x9, #(1 << 31)",
        "msr hcr_el2, x9",
        // EL1 may use counter, timer, floating point and all counters of the PMU.
        "mov x9, #3",
        "msr cnthctl_el2, x9",
        "msr cntvoff_el2, xzr",
        "mov x9, #0x33ff",
        "msr cptr_el2, x9",
        "mrs x9, pmcr_el0",
        "ubfx x9, x9, #11, #5",
        "msr mdcr_el2, x9",
        // The MMU is off, the bits that must be 1 are.
        "ldr x9, =0x30d00800",
        "msr sctlr_el1, x9",
        // EL1 with its own stack pointer, interrupts masked.
        "mov x9, #0x3c5",
        "msr spsr_el2, x9",
        "adr x9, entry",
        "msr elr_el2, x9",
        "isb",
        "eret",
    )
}

// Until `mmu::map` has finer ones: the first GB is devices, the second RAM.
initial_pagetable!({
    // Block, accessed, never executed; memory type 0 of aarch64-rt's MAIR: device.
    const DEVICE: usize = 0b01 | 1 << 10 | 0b11 << 53;
    // Block, accessed, inner shareable; memory type 1: normal, cached.
    const MEMORY: usize = 0b01 | 1 << 2 | 0b11 << 8 | 1 << 10;
    let mut table = [0; 512];
    table[0] = DEVICE;
    table[1] = 0x4000_0000 | MEMORY;
    InitialPagetable(table)
});

/// aarch64-rt calls it by this name, after setting the exception vectors.
#[unsafe(export_name = "__main")]
fn main(_: u64, _: u64, _: u64, _: u64) -> ! {
    // SAFETY: sets rounding to nearest even and traps off, which is what compiled code expects.
    unsafe { asm!("msr fpcr, xzr", options(nomem, nostack)) };
    mmu::map(statics::page_tables());
    timer::start_counters();
    let Region { start, end } = application_stack();
    for at in start..end {
        // SAFETY: the region is the application's stack, mapped and not in use yet.
        unsafe { (at as *mut u8).write_volatile(PAINT) };
    }
    // SAFETY: `end` is the upper end of a mapped stack that nothing uses, a multiple of 16; `application` does not return.
    unsafe {
        asm!(
            "msr SPSel, #0",
            "mov sp, {stack}",
            "mov x29, xzr",
            "mov x30, xzr",
            "b {application}",
            stack = in(reg) end,
            application = sym crate::application,
            options(noreturn),
        )
    }
}

/// The most bytes of its stack that the application has used so far, and all it has.
pub fn stack_high_water() -> [usize; 2] {
    let Region { start, end } = application_stack();
    let untouched = (start..end).take_while(|at| {
        // SAFETY: the region is mapped; bytes below the stack pointer are read, not interpreted.
        unsafe { (*at as *const u8).read_volatile() == PAINT }
    });
    let all = end - start;
    [all - untouched.count(), all]
}

/// The exception level that code runs at: 1, whatever the machine started at.
pub fn exception_level() -> u64 {
    let level: u64;
    // SAFETY: reads a register.
    unsafe { asm!("mrs {}, CurrentEL", out(reg) level, options(nomem, nostack)) };
    level >> 2
}
