//! Typed, aligned pieces of the caller's scratch bytes.

use bytemuck::Pod;

use crate::SizeError;

/// Pieces start at multiples of this, so that vector loads do not cross cache lines needlessly.
const ALIGN: usize = 64;

/// Scratch bytes that a piece of `len` elements takes, alignment included.
pub(crate) const fn space<T>(len: usize) -> usize {
    len.saturating_mul(size_of::<T>()).saturating_add(ALIGN - 1)
}

/// Splits a piece of `len` elements, contents unspecified, off the front of `bytes`.
pub(crate) fn carve<T: Pod>(
    bytes: &mut [i8],
    len: usize,
) -> Result<(&mut [T], &mut [i8]), SizeError> {
    let short = SizeError::Length {
        what: "scratch",
        expected: space::<T>(len),
        actual: bytes.len(),
    };
    let skip = bytes.as_ptr().align_offset(ALIGN);
    let bytes = bytes.get_mut(skip..).ok_or(short)?;
    let (piece, rest) = bytes
        .split_at_mut_checked(len.saturating_mul(size_of::<T>()))
        .ok_or(short)?;
    Ok((
        bytemuck::try_cast_slice_mut(piece).map_err(|_| short)?,
        rest,
    ))
}
