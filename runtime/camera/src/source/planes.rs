//! Chroma planes to the layouts that the resizer reads: U and V side by side, not apart.

/// A plane of bytes.
#[derive(Clone, Copy)]
pub(super) struct Plane<'a> {
    pub(super) bytes: &'a [u8],
    /// Bytes from a row to the next.
    pub(super) stride: usize,
}

impl<'a> Plane<'a> {
    /// The first `len` bytes of every row. Rows that are not there are left out.
    fn rows(self, len: usize) -> impl Iterator<Item = &'a [u8]> {
        self.bytes
            .chunks(self.stride.max(1))
            .filter_map(move |row| row.get(..len))
    }
}

/// YUV 4:2:0 in three planes to NV12 without padding; returns its stride.
pub(super) fn to_nv12(
    (width, height): (u32, u32),
    luma: Plane<'_>,
    [u, v]: [Plane<'_>; 2],
    out: &mut Vec<u8>,
) -> usize {
    let (width, height) = (width as usize, height as usize);
    let pairs = width.div_ceil(2);
    let stride = 2 * pairs;
    out.clear();
    for row in luma.rows(width).take(height) {
        out.extend_from_slice(row);
        // Of an odd width, the row of chroma is a byte longer.
        out.resize(out.len() + stride - width, 0);
    }
    for (u, v) in u.rows(pairs).zip(v.rows(pairs)).take(height.div_ceil(2)) {
        out.extend(u.iter().zip(v).flat_map(|(&u, &v)| [u, v]));
    }
    stride
}

/// YUV 4:2:2 in three planes to YUYV without padding; returns its stride.
pub(super) fn to_yuyv(
    width: u32,
    luma: Plane<'_>,
    [u, v]: [Plane<'_>; 2],
    out: &mut Vec<u8>,
) -> usize {
    let width = width as usize;
    let pairs = width.div_ceil(2);
    out.clear();
    for ((luma, u), v) in luma.rows(width).zip(u.rows(pairs)).zip(v.rows(pairs)) {
        for ((luma, &u), &v) in luma.chunks(2).zip(u).zip(v) {
            let (first, second) = (luma.first(), luma.last());
            let luma = |y: Option<&u8>| y.copied().unwrap_or(0);
            out.extend([luma(first), u, luma(second), v]);
        }
    }
    4 * pairs
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn planes_are_interleaved_without_their_padding() {
        let plane = |bytes, stride| Plane { bytes, stride };
        let luma = [1, 2, 3, 0, 4, 5, 6, 0, 7, 8, 9, 0];
        let (u, v) = ([10, 11, 0, 12, 13, 0], [20, 21, 0, 22, 23, 0]);
        let mut out = vec![];
        let stride = to_nv12(
            (3, 3),
            plane(&luma, 4),
            [plane(&u, 3), plane(&v, 3)],
            &mut out,
        );
        assert_eq!(stride, 4);
        assert_eq!(out[..12], luma);
        assert_eq!(out[12..], [10, 20, 11, 21, 12, 22, 13, 23]);

        let stride = to_yuyv(
            3,
            plane(&luma[..8], 4),
            [plane(&u, 3), plane(&v, 3)],
            &mut out,
        );
        assert_eq!(stride, 8);
        assert_eq!(
            out,
            [1, 10, 2, 20, 3, 11, 3, 21, 4, 12, 5, 22, 6, 13, 6, 23]
        );
    }
}
