//! CRC-32 as in zlib and PNG (ISO-HDLC: reflected, polynomial 0x04C11DB7).

/// The CRC-32 of `parts`, one after the other.
///
/// With feature `small` by a table of 1 KB, a byte at a time; without it by the CPU's instructions or tables of 16 KB.
pub fn crc32<'a>(parts: impl IntoIterator<Item = &'a [u8]>) -> u32 {
    let mut crc = Hasher::new();
    for part in parts {
        crc.update(part);
    }
    crc.finalize()
}

#[cfg(not(feature = "small"))]
use crc32fast::Hasher;

#[cfg(feature = "small")]
struct Hasher(crc::Digest<'static, u32>);

#[cfg(feature = "small")]
impl Hasher {
    fn new() -> Self {
        static TABLE: crc::Crc<u32> = crc::Crc::<u32>::new(&crc::CRC_32_ISO_HDLC);
        Self(TABLE.digest())
    }

    fn update(&mut self, bytes: &[u8]) {
        self.0.update(bytes);
    }

    fn finalize(self) -> u32 {
        self.0.finalize()
    }
}

#[cfg(test)]
mod tests {
    use super::crc32;

    #[test]
    fn the_check_value_of_the_catalogue() {
        assert_eq!(crc32([b"123456789".as_slice()]), 0xCBF4_3926);
        assert_eq!(crc32([b"1234".as_slice(), b"", b"56789"]), 0xCBF4_3926);
    }
}
