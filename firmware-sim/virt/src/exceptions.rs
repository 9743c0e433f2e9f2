//! Exceptions: a fault of the program ends the run with all that is known about it; the timer's interrupt delivers frames.

use core::arch::naked_asm;

use aarch64_cpu::registers::{ESR_EL1, FAR_EL1, Readable};
use aarch64_rt::{ExceptionHandlers, RegisterStateRef, exception_handlers};

use crate::camera;
use crate::exit::{Exit, exit};
use crate::memory_map::{Region, application_guard};

struct Exceptions;

exception_handlers!(Exceptions);

impl ExceptionHandlers for Exceptions {
    /// aarch64-rt has saved x0 to x18, x29 and x30; a report wants the others, too, as they were.
    #[unsafe(naked)]
    extern "C" fn sync_current(_: RegisterStateRef<'_>) {
        naked_asm!(
            "stp x27, x28, [sp, #-16]!",
            "stp x25, x26, [sp, #-16]!",
            "stp x23, x24, [sp, #-16]!",
            "stp x21, x22, [sp, #-16]!",
            "stp x19, x20, [sp, #-16]!",
            "mov x1, sp",
            "mrs x2, sp_el0",
            "b {report}",
            report = sym report,
        )
    }

    /// aarch64-rt saves no vector registers, and the handler is compiled code that may use them: without this a frame that arrives
    /// during an inference would change the inference's result.
    #[unsafe(naked)]
    extern "C" fn irq_current(_: RegisterStateRef<'_>) {
        naked_asm!(
            "stp x29, x30, [sp, #-16]!",
            "sub sp, sp, #512",
            "stp q0, q1, [sp]",
            "stp q2, q3, [sp, #32]",
            "stp q4, q5, [sp, #64]",
            "stp q6, q7, [sp, #96]",
            "stp q8, q9, [sp, #128]",
            "stp q10, q11, [sp, #160]",
            "stp q12, q13, [sp, #192]",
            "stp q14, q15, [sp, #224]",
            "stp q16, q17, [sp, #256]",
            "stp q18, q19, [sp, #288]",
            "stp q20, q21, [sp, #320]",
            "stp q22, q23, [sp, #352]",
            "stp q24, q25, [sp, #384]",
            "stp q26, q27, [sp, #416]",
            "stp q28, q29, [sp, #448]",
            "stp q30, q31, [sp, #480]",
            "bl {interrupt}",
            "ldp q0, q1, [sp]",
            "ldp q2, q3, [sp, #32]",
            "ldp q4, q5, [sp, #64]",
            "ldp q6, q7, [sp, #96]",
            "ldp q8, q9, [sp, #128]",
            "ldp q10, q11, [sp, #160]",
            "ldp q12, q13, [sp, #192]",
            "ldp q14, q15, [sp, #224]",
            "ldp q16, q17, [sp, #256]",
            "ldp q18, q19, [sp, #288]",
            "ldp q20, q21, [sp, #320]",
            "ldp q22, q23, [sp, #352]",
            "ldp q24, q25, [sp, #384]",
            "ldp q26, q27, [sp, #416]",
            "ldp q28, q29, [sp, #448]",
            "ldp q30, q31, [sp, #480]",
            "add sp, sp, #512",
            "ldp x29, x30, [sp], #16",
            "ret",
            interrupt = sym camera::interrupt,
        )
    }

    extern "C" fn fiq_current(state: RegisterStateRef<'_>) {
        unexpected("FIQ", &state)
    }

    extern "C" fn serror_current(state: RegisterStateRef<'_>) {
        unexpected("SError", &state)
    }
}

fn unexpected(what: &str, state: &RegisterStateRef<'_>) -> ! {
    defmt::error!(
        "exception: {=str} at {=usize:#x}, which nothing here causes",
        what,
        state.elr
    );
    exit(Exit::Exception)
}

/// Prints what is known of a synchronous exception, and ends the run.
extern "C" fn report(state: RegisterStateRef<'_>, saved: &[u64; 10], sp_el0: usize) -> ! {
    let (syndrome, address) = (ESR_EL1.get(), FAR_EL1.get() as usize);
    defmt::error!(
        "exception: {=str} at {=usize:#x}, esr {=u64:#010x}",
        class(syndrome),
        state.elr,
        syndrome
    );
    if is_abort(syndrome) {
        let Region { start, end } = application_guard();
        defmt::error!(
            "address {=usize:#x}: {=str}{=str}",
            address,
            fault(syndrome),
            if (start..end).contains(&address) {
                ", in the guard page: the application's stack has overflowed"
            } else {
                ""
            }
        );
    }
    let low = &state.registers;
    let all = |n: usize| match n {
        0..=18 => low[n],
        19..=28 => saved[n - 19],
        29 => state.fp,
        _ => state.sp,
    };
    for first in (0..28).step_by(4) {
        defmt::error!(
            "x{=usize} {=u64:#018x} {=u64:#018x} {=u64:#018x} {=u64:#018x}",
            first,
            all(first),
            all(first + 1),
            all(first + 2),
            all(first + 3)
        );
    }
    defmt::error!(
        "x28 {=u64:#018x}, fp {=u64:#018x}, lr {=u64:#018x}, sp {=usize:#018x}, spsr {=u64:#x}",
        all(28),
        all(29),
        all(30),
        sp_el0,
        state.spsr
    );
    exit(Exit::Exception)
}

/// ESR_EL1.EC in words (Arm ARM, D19.2.37).
fn class(syndrome: u64) -> &'static str {
    match syndrome >> 26 & 0x3f {
        0x00 => "unknown instruction",
        0x07 => "floating point is off",
        0x0e => "illegal execution state",
        0x15 => "supervisor call",
        0x18 => "system register that may not be used",
        0x20 | 0x21 => "instruction abort",
        0x22 => "program counter is no multiple of 4",
        0x24 | 0x25 => "data abort",
        0x26 => "stack pointer is no multiple of 16",
        0x2c => "floating-point exception",
        0x3c => "breakpoint",
        _ => "exception of another class",
    }
}

fn is_abort(syndrome: u64) -> bool {
    matches!(syndrome >> 26 & 0x3f, 0x20 | 0x21 | 0x24 | 0x25)
}

/// The fault status code of an abort.
fn fault(syndrome: u64) -> &'static str {
    let is_data = matches!(syndrome >> 26 & 0x3f, 0x24 | 0x25);
    let is_write = is_data && syndrome & 1 << 6 != 0;
    match (syndrome & 0x3f, is_write) {
        (0x04..=0x07, true) => "written, but not mapped",
        (0x04..=0x07, false) => "read, but not mapped",
        (0x0c..=0x0f, true) => "written, but read only",
        (0x0c..=0x0f, false) => "not allowed",
        (0x10, _) => "no device or memory there",
        (0x21, _) => "not aligned, as a device asks for",
        _ => "another fault",
    }
}
