//! Large buffers whose size a file decides: an error instead of an abort when the system has no such memory.

use vitlet_plan::AlignedBytes;

use crate::Error;

/// `len` zeros for `what`.
pub(crate) fn zeroed(len: usize, what: &'static str) -> Result<AlignedBytes, Error> {
    // AlignedBytes adds less than 64 bytes. The trial is freed at once, so the allocation that follows it succeeds, too.
    let mut trial = Vec::<u8>::new();
    trial
        .try_reserve_exact(len.saturating_add(64))
        .map_err(|_| Error::Memory { what, bytes: len })?;
    drop(trial);
    Ok(AlignedBytes::zeroed(len))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn too_much_is_an_error() {
        let error = zeroed(usize::MAX / 2, "the arena").unwrap_err().to_string();
        assert!(
            error.ends_with(
                "bytes of memory are needed for the arena, and the system does not give them"
            ),
            "{error}"
        );
        assert_eq!(zeroed(100, "the arena").unwrap().len(), 100);
    }
}
