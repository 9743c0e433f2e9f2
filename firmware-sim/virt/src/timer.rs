//! Time, the tick, and the counter of instructions.

use core::arch::asm;

use aarch64_cpu::registers::{
    CNTFRQ_EL0, CNTV_CTL_EL0, CNTV_CVAL_EL0, CNTVCT_EL0, Readable, Writeable,
};

/// Ticks a second: how finely frames arrive and stages are watched.
const TICKS: u64 = 1000;

/// Microseconds since the machine started.
pub fn now_us() -> u64 {
    // At most 10¹⁰ Hz, for more than half a year.
    CNTVCT_EL0.get() / (CNTFRQ_EL0.get() / 1_000_000).max(1)
}

/// Lets the PMU count retired instructions (event 8), at this exception level. QEMU has that event with `-icount` only; without it,
/// the counter stays 0.
pub fn start_counters() {
    // SAFETY: sets up a counter that only `instructions` reads.
    unsafe {
        asm!(
            "msr pmselr_el0, xzr",
            "isb",
            "msr pmxevtyper_el0, {event}",
            "msr pmcntenset_el0, {first}",
            "mrs {pmcr}, pmcr_el0",
            "orr {pmcr}, {pmcr}, #0b011",
            "msr pmcr_el0, {pmcr}",
            "isb",
            event = in(reg) 8_u64,
            first = in(reg) 1_u64,
            pmcr = out(reg) _,
            options(nomem, nostack),
        );
    }
}

/// Instructions so far; it wraps.
pub fn instructions() -> u32 {
    let count: u64;
    // SAFETY: reads a counter; the barrier keeps instructions on their side of it.
    unsafe { asm!("isb", "mrs {}, pmevcntr0_el0", "isb", out(reg) count, options(nostack)) };
    count as u32
}

/// Asks for the next tick's interrupt: at a multiple of the period, so that late ones do not push the others.
pub fn next_tick() {
    let period = (CNTFRQ_EL0.get() / TICKS).max(1);
    let next = CNTVCT_EL0.get() / period + 1;
    CNTV_CVAL_EL0.set(next * period);
    CNTV_CTL_EL0.write(CNTV_CTL_EL0::ENABLE::SET + CNTV_CTL_EL0::IMASK::CLEAR);
}

/// Sleeps until an interrupt.
pub fn sleep() {
    // SAFETY: waits; interrupts are on.
    unsafe { asm!("wfi", options(nostack)) };
}
