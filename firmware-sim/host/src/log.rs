//! The firmware's log: defmt frames, decoded by the strings in the image.

use anyhow::{Context as _, Result, ensure};
use defmt_decoder::{DecodeError, Table};

/// The strings of one image.
pub(crate) struct Decoder(Table);

impl Decoder {
    /// Reads them out of the image.
    pub(crate) fn new(image: &[u8]) -> Result<Self> {
        let table = Table::parse(image)?;
        let table = table
            .context("the image has no defmt table; build it by `cargo xtask firmware build`")?;
        Ok(Self(table))
    }

    /// A line for each log frame: level, then message. Timestamps are left out, since every change of the code changes them.
    pub(crate) fn lines(&self, bytes: &[u8]) -> Result<Vec<String>> {
        let mut decoder = self.0.new_stream_decoder();
        decoder.received(bytes);
        let mut lines = Vec::new();
        loop {
            match decoder.decode() {
                Ok(frame) => {
                    let level = frame.level().map_or("", |level| level.as_str());
                    lines.push(format!("{level:<5} {}", frame.display_message()));
                }
                Err(DecodeError::UnexpectedEof) => return Ok(lines),
                Err(DecodeError::Malformed) => {
                    ensure!(
                        lines.len() < bytes.len(),
                        "the log is not of this image: build it anew by `cargo xtask firmware build`"
                    );
                    lines.push("????? a malformed log frame".to_owned());
                }
            }
        }
    }
}
