//! Page tables: every address is what it is physically, and allows what is needed of it and no more.
//!
//! | what | cached | may be |
//! |---|---|---|
//! | instructions | yes | read, executed |
//! | constants, flash, update, camera | yes | read |
//! | statics, stacks | yes | read, written |
//! | interrupt controller, serial port | no (device) | read, written |
//! | pages below the stacks, address 0, all else | – | nothing |

use core::cell::RefCell;
use core::ptr::NonNull;

use aarch64_paging::Mapping;
use aarch64_paging::descriptor::{El1Attributes, PhysicalAddress};
use aarch64_paging::paging::{Constraints, El1And0, MemoryRegion, PageTable, Translation, VaRange};
use critical_section::Mutex;
use static_cell::StaticCell;

use crate::memory_map::{self, Region};

/// Tables there are: one of level 1, two of level 2, and those of level 3 for parts that are no multiples of 2 MB.
pub const TABLES: usize = 16;

type Table = PageTable<El1Attributes>;

/// As aarch64-rt sets MAIR: type 0 is device nGnRE, type 1 normal write-back.
const PRESENT: El1Attributes = El1Attributes::VALID
    .union(El1Attributes::ACCESSED)
    .union(El1Attributes::UXN);
const MEMORY: El1Attributes = PRESENT
    .union(El1Attributes::ATTRIBUTE_INDEX_1)
    .union(El1Attributes::INNER_SHAREABLE);
const CODE: El1Attributes = MEMORY.union(El1Attributes::READ_ONLY);
const DATA: El1Attributes = MEMORY.union(El1Attributes::PXN);
const CONSTANT: El1Attributes = DATA.union(El1Attributes::READ_ONLY);
const DEVICE: El1Attributes = PRESENT
    .union(El1Attributes::ATTRIBUTE_INDEX_0)
    .union(El1Attributes::PXN);

/// Takes tables from the statics, one after the other.
struct Pool {
    tables: &'static mut [[u64; 512]],
}

impl Translation<El1Attributes> for Pool {
    fn allocate_table(&mut self) -> (NonNull<Table>, PhysicalAddress) {
        let all = core::mem::take(&mut self.tables);
        let Some((table, rest)) = all.split_first_mut() else {
            // A fault of the memory map, seen at the first boot after it was changed.
            unreachable!("mmu::TABLES is too small");
        };
        self.tables = rest;
        let table = NonNull::from(table).cast::<Table>();
        (table, PhysicalAddress(table.addr().get()))
    }

    unsafe fn deallocate_table(&mut self, _: NonNull<Table>) {
        // Only an unmapped table comes back; the map is made once.
    }

    fn physical_to_virtual(&self, pa: PhysicalAddress) -> NonNull<Table> {
        let table = core::ptr::with_exposed_provenance_mut(pa.0);
        NonNull::new(table).unwrap_or(NonNull::dangling())
    }
}

// SAFETY: one core; the map is only used in a critical section.
unsafe impl Send for Pool {}

type Map = Mapping<Pool, El1And0>;

static MAP_MEMORY: StaticCell<Map> = StaticCell::new();
/// A reference, because its `None` is 0: nothing in the image has to be initialised.
static MAP: Mutex<RefCell<Option<&'static mut Map>>> = Mutex::new(RefCell::new(None));

/// Replaces the coarse table of the first instructions.
pub fn map(tables: &'static mut [[u64; 512]]) {
    for table in tables.iter() {
        (&raw const *table).expose_provenance();
    }
    let map = Mapping::with_asid_and_va_range(Pool { tables }, 0, 1, El1And0, VaRange::Lower);
    let map = MAP_MEMORY.init(map);
    let regions = [
        (memory_map::text(), CODE),
        (memory_map::constants(), CONSTANT),
        (memory_map::data(), DATA),
        (memory_map::zeroed(), DATA),
        (memory_map::exception_stack(), DATA),
        (memory_map::application_stack(), DATA),
        (memory_map::UPDATE, CONSTANT),
        (memory_map::CAMERA, CONSTANT),
        (memory_map::FLASH, CONSTANT),
        (memory_map::GIC_DISTRIBUTOR, DEVICE),
        (memory_map::GIC_CPU, DEVICE),
        (memory_map::UART, DEVICE),
    ];
    for (region, attributes) in regions {
        set(map, region, attributes);
    }
    // SAFETY: everything the image uses is mapped above, at the addresses it has already.
    unsafe { map.activate() };
    critical_section::with(|cs| MAP.borrow(cs).replace(Some(map)));
}

/// Makes the flash a device, which commands can be written to, or memory again.
pub fn flash_is_device(device: bool) {
    let attributes = if device { DEVICE } else { CONSTANT };
    critical_section::with(|cs| {
        if let Some(map) = MAP.borrow(cs).borrow_mut().as_mut() {
            // First nothing, then the other: an address must not be in the translation buffers as both.
            set(map, memory_map::FLASH, El1Attributes::empty());
            set(map, memory_map::FLASH, attributes);
        }
    });
}

fn set(map: &mut Mapping<Pool, El1And0>, region: Region, attributes: El1Attributes) {
    let pages = MemoryRegion::new(region.start, region.end);
    let physical = PhysicalAddress(region.start);
    let done = map.map_range(&pages, physical, attributes, Constraints::empty());
    if let Err(why) = done {
        unreachable!("memory map: {why}");
    }
}
