//! 2^(−t/1024) in 14 bits: the constants shared by every kernel, and the reference.

/// Beyond 15 octaves the exponential is 0.
pub(crate) const T_MAX: f32 = 15360.0;
/// Coefficients of 16383·2^(−g/2¹⁵): constant, linear, quadratic, cubic. Minimax on [0, 1).
pub(crate) const POLYNOMIAL: [i16; 4] = [16383, -11338, 3811, -666];

/// `(a·b + 2¹⁴) >> 15`: SQRDMULH on ARM, PMULHRSW on x86.
fn mulr(a: i32, b: i32) -> i32 {
    (a * b + (1 << 14)) >> 15
}

/// E(t) for t in 0..=15360.
pub(crate) fn exp2_neg(t: i32) -> i32 {
    let [p0, p1, p2, p3] = POLYNOMIAL.map(i32::from);
    let n = t >> 10;
    let g = (t & 1023) << 5;
    let m = p0 + mulr(p1 + mulr(p2 + mulr(p3, g), g), g);
    (m + ((1 << n) >> 1)) >> n
}
