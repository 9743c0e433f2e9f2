//! The machine's files, as an archive that the kernel unpacks into memory.
//!
//! It is cpio's "newc" format: for each file a header of hexadecimal numbers, its name and its contents
//! (<https://docs.kernel.org/driver-api/early-userspace/buffer-format.html>).

use anyhow::{Context as _, Result};

const FOLDER: u32 = 0o040_755;
const FILE: u32 = 0o100_644;
const PROGRAM: u32 = 0o100_755;
const END: &str = "TRAILER!!!";

/// Files for a machine that has no disk.
#[derive(Default)]
pub(crate) struct Initramfs {
    bytes: Vec<u8>,
    entries: u32,
}

impl Initramfs {
    /// A folder comes before what is in it.
    pub(crate) fn folder(&mut self, path: &str) -> Result<()> {
        self.entry(path, FOLDER, &[])
    }

    pub(crate) fn file(&mut self, path: &str, contents: &[u8]) -> Result<()> {
        self.entry(path, FILE, contents)
    }

    pub(crate) fn program(&mut self, path: &str, contents: &[u8]) -> Result<()> {
        self.entry(path, PROGRAM, contents)
    }

    pub(crate) fn finish(mut self) -> Result<Vec<u8>> {
        self.entry(END, 0, &[])?;
        Ok(self.bytes)
    }

    fn entry(&mut self, path: &str, mode: u32, contents: &[u8]) -> Result<()> {
        self.entries += 1;
        let length = u32::try_from(contents.len()).with_context(|| format!("{path}: too long"))?;
        let name = u32::try_from(path.len() + 1)?;
        let (user, group, links, time, device, check) = (0, 0, 1, 0, 0, 0);
        let fields = [
            self.entries,
            mode,
            user,
            group,
            links,
            time,
            length,
            device,
            device,
            device,
            device,
            name,
            check,
        ];
        self.bytes.extend(b"070701");
        for field in fields {
            self.bytes.extend(format!("{field:08X}").bytes());
        }
        self.bytes.extend(path.bytes());
        self.bytes.push(0);
        self.align();
        self.bytes.extend(contents);
        self.align();
        Ok(())
    }

    fn align(&mut self) {
        self.bytes.resize(self.bytes.len().next_multiple_of(4), 0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn entries_are_aligned_and_the_last_says_so() -> Result<()> {
        let mut archive = Initramfs::default();
        archive.folder("bin")?;
        archive.program("bin/a", b"12345")?;
        let bytes = archive.finish()?;
        assert_eq!(bytes.len() % 4, 0);
        let starts: Vec<usize> = (0..bytes.len())
            .filter(|&at| bytes[at..].starts_with(b"070701"))
            .collect();
        assert_eq!(starts, [0, 116, 116 + 116 + 8]);
        let program = &bytes[116..];
        assert_eq!(&program[14..22], b"000081ED", "its mode");
        assert_eq!(&program[54..62], b"00000005", "its length");
        assert_eq!(&program[110..116], b"bin/a\0");
        assert_eq!(&program[116..124], b"12345\0\0\0");
        Ok(())
    }
}
