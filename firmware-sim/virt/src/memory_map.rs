//! Addresses: of QEMU's `virt` machine (`hw/arm/virt.c`), of the image (`link.ld`), and of what the host side puts into memory.

/// Addresses from `start` to before `end`.
#[derive(Clone, Copy)]
pub struct Region {
    /// First.
    pub start: usize,
    /// After the last.
    pub end: usize,
}

impl Region {
    const fn new(start: usize, len: usize) -> Self {
        Self {
            start,
            end: start + len,
        }
    }

    /// Bytes.
    pub const fn len(self) -> usize {
        self.end - self.start
    }
}

/// The second bank of flash: `-drive if=pflash,index=1`.
pub const FLASH: Region = Region::new(0x0400_0000, 64 << 20);
/// Interrupt controller, GICv2: distributor, then CPU interface.
pub const GIC_DISTRIBUTOR: Region = Region::new(0x0800_0000, 0x1_0000);
/// See [`GIC_DISTRIBUTOR`].
pub const GIC_CPU: Region = Region::new(0x0801_0000, 0x1_0000);
/// Serial port, PL011.
pub const UART: Region = Region::new(0x0900_0000, 0x1000);
/// A new plan for the update: its length as a 64-bit word, then 56 bytes of nothing, then the plan.
pub const UPDATE: Region = Region::new(0x4400_0000, 32 << 20);
/// The camera's film.
pub const CAMERA: Region = Region::new(0x4800_0000, 128 << 20);

unsafe extern "C" {
    safe static text_begin: u8;
    safe static text_end: u8;
    safe static rodata_begin: u8;
    safe static rodata_end: u8;
    safe static data_begin: u8;
    safe static bss_begin: u8;
    safe static bss_end: u8;
    safe static exception_stack_begin: u8;
    safe static boot_stack_end: u8;
    safe static guard_application: u8;
    safe static application_stack_begin: u8;
    safe static application_stack_end: u8;
}

fn between(start: &'static u8, end: &'static u8) -> Region {
    Region {
        start: (&raw const *start).addr(),
        end: (&raw const *end).addr(),
    }
}

/// Instructions.
pub fn text() -> Region {
    between(&text_begin, &text_end)
}

/// Constants.
pub fn constants() -> Region {
    between(&rodata_begin, &rodata_end)
}

/// Statics that start as something.
pub fn data() -> Region {
    between(&data_begin, &bss_begin)
}

/// Statics that start as zeros.
pub fn zeroed() -> Region {
    between(&bss_begin, &bss_end)
}

/// Where exceptions and interrupts run.
pub fn exception_stack() -> Region {
    between(&exception_stack_begin, &boot_stack_end)
}

/// Where the application runs.
pub fn application_stack() -> Region {
    between(&application_stack_begin, &application_stack_end)
}

/// The page below the application's stack.
pub fn application_guard() -> Region {
    between(&guard_application, &application_stack_begin)
}
