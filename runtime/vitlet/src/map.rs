//! Plan files mapped into memory: the one place in this crate with unsafe code.
#![allow(
    unsafe_code,
    reason = "a mapping is sound only while nobody changes the file, which no type can promise"
)]

use std::fs::File;
use std::io;
use std::path::Path;

use memmap2::Mmap;

/// A read-only mapping of a whole file. Mappings start at a page, so they are aligned for plans.
#[derive(Debug)]
pub(crate) struct Map(Mmap);

impl Map {
    /// # Safety
    /// The file's contents must not change while the map exists, neither through this program nor through another one.
    pub(crate) unsafe fn new(path: &Path) -> io::Result<Self> {
        let file = File::open(path)?;
        // SAFETY: the caller promises that the bytes behind the mapping do not change.
        unsafe { Mmap::map(&file) }.map(Self)
    }

    pub(crate) fn bytes(&self) -> &[u8] {
        &self.0
    }
}
