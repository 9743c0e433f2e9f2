//! defmt's way out: the serial port. The host side decodes it with the image's own table of strings.

use core::cell::{Cell, UnsafeCell};
use core::ptr::NonNull;

use arm_pl011_uart::Uart;
use critical_section::{RawRestoreState, RestoreState};
use safe_mmio::UniqueMmioPointer;

use crate::memory_map::UART;
use crate::timer;

struct OneCore;

critical_section::set_impl!(OneCore);

// SAFETY: there is one core, so masking its interrupts excludes everything else.
unsafe impl critical_section::Impl for OneCore {
    unsafe fn acquire() -> RawRestoreState {
        let before: u64;
        // SAFETY: reads the interrupt masks and sets them; code that relies on interrupts waits.
        unsafe {
            core::arch::asm!("mrs {}, daif", "msr daifset, #0b0010", out(reg) before, options(nostack));
        }
        before
    }

    unsafe fn release(before: RawRestoreState) {
        // SAFETY: `before` are the masks that `acquire` found.
        unsafe { core::arch::asm!("msr daif, {}", in(reg) before, options(nostack)) };
    }
}

#[defmt::global_logger]
struct Serial;

struct State {
    encoder: UnsafeCell<defmt::Encoder>,
    masks: Cell<RestoreState>,
}

// SAFETY: used between `acquire` and `release` only, with interrupts masked on the only core.
unsafe impl Sync for State {}

static STATE: State = State {
    encoder: UnsafeCell::new(defmt::Encoder::new()),
    masks: Cell::new(RestoreState::invalid()),
};

impl State {
    fn encode(&self, with: impl FnOnce(&mut defmt::Encoder)) {
        // SAFETY: interrupts are masked and `with` does not log, so this is the only reference.
        with(unsafe { &mut *self.encoder.get() });
    }
}

// SAFETY: interrupts are masked from `acquire` to `release`, so frames of an interrupt do not fall between those of the application.
unsafe impl defmt::Logger for Serial {
    fn acquire() {
        // SAFETY: `release` gives the masks back.
        STATE.masks.set(unsafe { critical_section::acquire() });
        STATE.encode(|encoder| encoder.start_frame(send));
    }

    unsafe fn flush() {}

    unsafe fn release() {
        STATE.encode(|encoder| encoder.end_frame(send));
        // SAFETY: as `acquire` has found them.
        unsafe { critical_section::release(STATE.masks.get()) };
    }

    unsafe fn write(bytes: &[u8]) {
        STATE.encode(|encoder| encoder.write(bytes, send));
    }
}

/// Every byte as soon as there is room. (QEMU's port needs no baud rate.)
fn send(bytes: &[u8]) {
    // SAFETY: the port's registers, mapped as a device; nothing else in the image uses them, and calls do not overlap.
    let mut port = unsafe {
        let registers = NonNull::new_unchecked(core::ptr::with_exposed_provenance_mut(UART.start));
        Uart::new(UniqueMmioPointer::new(registers))
    };
    for byte in bytes {
        while port.is_tx_fifo_full() {}
        port.write_word(*byte);
    }
}

defmt::timestamp!("{=u64:us}", timer::now_us());
