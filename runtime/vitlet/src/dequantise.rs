//! What a tensor's integers stand for.

use vitlet_plan::{DType, Tensor};

/// The real numbers of a tensor whose bytes are those that [`Session::run_observed`](crate::Session::run_observed) hands out: each
/// integer less the zero point, times the scale (of its channel, where a tensor has several). `None` if `bytes` are not as many as
/// the tensor has, or if the plan does not say the scale.
pub fn dequantised(tensor: &Tensor<'_>, bytes: &[u8]) -> Option<Vec<f32>> {
    // Not the bytes it has in the arena: those are fewer when the tensor lies between ops that run strip by strip.
    if bytes.len() != tensor.elements()?.checked_mul(tensor.dtype.size())? {
        return None;
    }
    let channels = usize::try_from(tensor.shape[3]).ok()?;
    let scales: Vec<f32> = (0..channels)
        .map(|channel| tensor.scale_of(channel))
        .collect::<Option<_>>()?;
    let zero_point = i64::from(tensor.zero_point);
    let number = |(index, integer): (usize, i64)| {
        // At most 33 bits; one rounding to f32, one of the product.
        (integer - zero_point) as f32 * scales[index % channels]
    };
    let integers = bytes
        .chunks_exact(tensor.dtype.size())
        .map(match tensor.dtype {
            DType::S8 => |bytes: &[u8]| i64::from(bytes[0] as i8),
            DType::S16 => |bytes: &[u8]| i64::from(i16::from_ne_bytes([bytes[0], bytes[1]])),
            DType::S32 => |bytes: &[u8]| {
                i64::from(i32::from_ne_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]))
            },
        });
    Some(integers.enumerate().map(number).collect())
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn tensor(dtype: DType, shape: [u32; 4], scale: f32, zero_point: i32) -> Tensor<'static> {
        Tensor {
            name: "t",
            dtype,
            shape,
            offset: 0,
            scale,
            scales: &[],
            zero_point,
            held: 0,
        }
    }

    #[test]
    fn every_type() {
        let s8 = tensor(DType::S8, [1, 1, 2, 2], 0.5, -2);
        assert_eq!(
            dequantised(&s8, &[0, 0x80, 127, 0xfe]).unwrap(),
            [1.0, -63.0, 64.5, 0.0]
        );
        let bytes: Vec<u8> = [-32768i16, 32767]
            .iter()
            .flat_map(|x| x.to_ne_bytes())
            .collect();
        let s16 = tensor(DType::S16, [1, 1, 1, 2], 2.0, 0);
        assert_eq!(dequantised(&s16, &bytes).unwrap(), [-65536.0, 65534.0]);
        let bytes: Vec<u8> = [i32::MIN, 3].iter().flat_map(|x| x.to_ne_bytes()).collect();
        let s32 = tensor(DType::S32, [1, 1, 1, 2], 1.0, 0);
        assert_eq!(dequantised(&s32, &bytes).unwrap(), [-2147483648.0, 3.0]);
    }

    #[test]
    fn a_scale_per_head() {
        let mut heads = tensor(DType::S8, [1, 1, 2, 4], 0.0, 0);
        assert_eq!(dequantised(&heads, &[1; 8]), None);
        heads.scales = &[1.0, 10.0];
        assert_eq!(
            dequantised(&heads, &[1, 2, 3, 4, 5, 6, 7, 8]).unwrap(),
            [1.0, 2.0, 30.0, 40.0, 5.0, 6.0, 70.0, 80.0]
        );
        assert_eq!(dequantised(&heads, &[1; 7]), None);
        // All rows, however few of them are in memory at a time.
        heads.held = 1;
        assert_eq!(dequantised(&heads, &[1; 8]).map(|x| x.len()), Some(8));
        assert_eq!(dequantised(&heads, &[1; 4]), None);
    }
}
