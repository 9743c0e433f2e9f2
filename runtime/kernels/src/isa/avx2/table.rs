//! A 256-entry table, which an activation function becomes.

/// See [`Isa::look_up`](crate::isa::Isa::look_up).
#[inline(always)]
pub(in crate::isa) unsafe fn look_up(table: &[i8; 256], p: *mut i8, n: usize) {
    // SAFETY: i stays below n, and the caller promises n elements.
    unsafe {
        let mut i = 0;
        while i < n {
            *p.add(i) = table[usize::from(*p.add(i) as u8)];
            i += 1;
        }
    }
}
