//! All memory that is not a stack: there is no heap.

use static_cell::ConstStaticCell;
use vitlet_firmware::{Buffers, Smoothing};

use crate::memory_map::{self, Region};
use crate::mmu;

/// Bytes of arena: `VITLET_ARENA` at build time.
pub const ARENA: usize = match usize::from_str_radix(env!("VITLET_ARENA"), 10) {
    Ok(bytes) => bytes,
    Err(_) => 0,
};
/// The largest image a plan may take: 224×224 RGB.
const IMAGE: usize = 224 * 224 * 3;
/// For frames of up to 640×480 and such an image; [`vitlet_preprocess`'s](vitlet_firmware::Buffers) figure is 39 kB with bilinear filters
/// and 56 kB with bicubic ones.
const SCRATCH: usize = 64 * 1024;

#[repr(C, align(64))]
struct Aligned<const N: usize>([u8; N]);

static ARENA_MEMORY: ConstStaticCell<Aligned<ARENA>> = ConstStaticCell::new(Aligned([0; ARENA]));
static IMAGE_MEMORY: ConstStaticCell<[u8; IMAGE]> = ConstStaticCell::new([0; IMAGE]);
static SCRATCH_MEMORY: ConstStaticCell<Aligned<SCRATCH>> =
    ConstStaticCell::new(Aligned([0; SCRATCH]));
static SMOOTHING: ConstStaticCell<Smoothing> = ConstStaticCell::new(Smoothing::new());

#[repr(C, align(4096))]
struct Tables([[u64; 512]; mmu::TABLES]);

static TABLES: ConstStaticCell<Tables> = ConstStaticCell::new(Tables([[0; 512]; mmu::TABLES]));

/// The model's memory, of whose arena only `arena` bytes may be used; the second call panics.
pub fn buffers(arena: usize) -> Buffers<'static> {
    let Aligned(all) = ARENA_MEMORY.take();
    let arena = arena.min(all.len());
    Buffers {
        arena: all.get_mut(..arena).unwrap_or_default(),
        image: IMAGE_MEMORY.take(),
        scratch: &mut SCRATCH_MEMORY.take().0,
    }
}

/// The averages' memory; the second call panics.
pub fn smoothing() -> &'static mut Smoothing {
    SMOOTHING.take()
}

/// The page tables' memory; the second call panics.
pub fn page_tables() -> &'static mut [[u64; 512]] {
    &mut TABLES.take().0
}

/// Says where all RAM goes.
pub fn print() {
    let [code, constants, data, zeroed] = [
        memory_map::text(),
        memory_map::constants(),
        memory_map::data(),
        memory_map::zeroed(),
    ]
    .map(Region::len);
    let stacks = [
        memory_map::application_stack(),
        memory_map::exception_stack(),
    ]
    .map(Region::len);
    defmt::info!(
        "image: {=usize} bytes of code, {=usize} of constants, {=usize} of data",
        code,
        constants,
        data
    );
    let named = ARENA + IMAGE + SCRATCH + size_of::<Tables>() + size_of::<Smoothing>();
    defmt::info!(
        "RAM: {=usize} bytes = arena {=usize} + image {=usize} + scratch {=usize} + page tables {=usize} + averages {=usize} + stacks {=usize} + {=usize} + the rest {=usize}",
        data + zeroed + stacks[0] + stacks[1],
        ARENA,
        IMAGE,
        SCRATCH,
        size_of::<Tables>(),
        size_of::<Smoothing>(),
        stacks[0],
        stacks[1],
        (data + zeroed).saturating_sub(named)
    );
}
