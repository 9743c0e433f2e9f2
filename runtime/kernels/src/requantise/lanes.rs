//! What the epilogue needs of vectors: 8 lanes on every instruction set; more on one whose registers hold more.

use crate::isa::Isa;

/// Vectors of some number of lanes. The methods do what those of [`Isa`] do.
pub(crate) trait Lanes: Copy {
    /// i16.
    type I16: Copy;
    /// i32.
    type I32: Copy;
    /// f32.
    type F32: Copy;
    /// What `round_offset` adds.
    type Offset: Copy;

    fn opaque(self, v: isize) -> isize;
    fn splat_i16(self, v: i16) -> Self::I16;
    fn splat_f32(self, v: f32) -> Self::F32;
    fn add_sat_i16(self, a: Self::I16, b: Self::I16) -> Self::I16;
    fn max_i16(self, a: Self::I16, b: Self::I16) -> Self::I16;
    fn to_f32(self, a: Self::I32) -> Self::F32;
    fn mul_f32(self, a: Self::F32, b: Self::F32) -> Self::F32;
    fn min_f32(self, a: Self::F32, b: Self::F32) -> Self::F32;
    fn max_f32(self, a: Self::F32, b: Self::F32) -> Self::F32;
    fn round_i32(self, a: Self::F32) -> Self::I32;
    fn round_sat16(self, a: Self::F32) -> Self::I16;
    fn round_near(self, a: Self::F32) -> Self::I16;
    fn offset(self, by: i16) -> Self::Offset;
    fn round_offset(self, a: Self::F32, by: Self::Offset) -> Self::I16;

    /// # Safety
    /// `p` is valid for reading an element for each lane.
    unsafe fn load_i16(self, p: *const i16) -> Self::I16;
    /// # Safety
    /// `p` is valid for writing an element for each lane.
    unsafe fn store_i16(self, p: *mut i16, v: Self::I16);
    /// # Safety
    /// `p` is valid for writing an element for each lane.
    unsafe fn store_i32(self, p: *mut i32, v: Self::I32);
    /// # Safety
    /// `p` is valid for writing an element for each lane.
    unsafe fn store_sat8(self, p: *mut i8, v: Self::I16);
}

/// Methods that are those of [`Isa`].
macro_rules! same {
    ($(fn $name:ident($($arg:ident: $type:ty),*) -> $result:ty;)*) => {
        $(
            #[inline(always)]
            fn $name(self, $($arg: $type),*) -> $result {
                Isa::$name(self, $($arg),*)
            }
        )*
    };
    ($(unsafe fn $name:ident($($arg:ident: $type:ty),*) -> $result:ty;)*) => {
        $(
            #[inline(always)]
            unsafe fn $name(self, $($arg: $type),*) -> $result {
                // SAFETY: the caller's promise, for 8 lanes.
                unsafe { Isa::$name(self, $($arg),*) }
            }
        )*
    };
}

impl<I: Isa> Lanes for I {
    type I16 = I::I16;
    type I32 = I::I32;
    type F32 = I::F32;
    type Offset = I::Offset;

    same! {
        fn opaque(v: isize) -> isize;
        fn splat_i16(v: i16) -> I::I16;
        fn splat_f32(v: f32) -> I::F32;
        fn add_sat_i16(a: I::I16, b: I::I16) -> I::I16;
        fn max_i16(a: I::I16, b: I::I16) -> I::I16;
        fn to_f32(a: I::I32) -> I::F32;
        fn mul_f32(a: I::F32, b: I::F32) -> I::F32;
        fn min_f32(a: I::F32, b: I::F32) -> I::F32;
        fn max_f32(a: I::F32, b: I::F32) -> I::F32;
        fn round_i32(a: I::F32) -> I::I32;
        fn round_sat16(a: I::F32) -> I::I16;
        fn round_near(a: I::F32) -> I::I16;
        fn offset(by: i16) -> I::Offset;
        fn round_offset(a: I::F32, by: I::Offset) -> I::I16;
    }
    same! {
        unsafe fn load_i16(p: *const i16) -> I::I16;
        unsafe fn store_i16(p: *mut i16, v: I::I16) -> ();
        unsafe fn store_i32(p: *mut i32, v: I::I32) -> ();
        unsafe fn store_sat8(p: *mut i8, v: I::I16) -> ();
    }
}
