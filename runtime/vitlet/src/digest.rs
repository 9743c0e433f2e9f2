//! Hashes that prove equality: of logits, and of every op's output.

use std::fmt;

use sha2::Sha256;
use sha2::digest::Digest as _;

/// A SHA-256 digest; it is displayed as 64 lower-case hexadecimal digits, with `{:.16}` as the first 16 of them.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Digest(pub [u8; 32]);

impl Digest {
    /// Of bytes.
    pub fn of(bytes: &[u8]) -> Self {
        Self(Sha256::digest(bytes).into())
    }

    /// Of logits: each as four little-endian bytes, whatever this machine's order is.
    pub fn of_logits(logits: &[i32]) -> Self {
        let mut hasher = Sha256::new();
        for logit in logits {
            hasher.update(logit.to_le_bytes());
        }
        Self(hasher.finalize().into())
    }
}

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let digits = f.precision().unwrap_or(64);
        for byte in self.0.iter().take(digits.div_ceil(2)) {
            write!(f, "{byte:02x}")?;
        }
        Ok(())
    }
}

impl fmt::Debug for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn digests() {
        // The SHA-256 of nothing, FIPS 180-4.
        let empty = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";
        assert_eq!(Digest::of(b"").to_string(), empty);
        assert_eq!(format!("{:.16}", Digest::of(b"")), empty[..16]);
        assert_eq!(
            Digest::of_logits(&[1, -2]),
            Digest::of(&[1, 0, 0, 0, 254, 255, 255, 255])
        );
    }
}
