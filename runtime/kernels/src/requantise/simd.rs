//! The epilogue for 8 channels at a time, or as many as the instruction set likes, straight from the tile's registers.
//!
//! The table is not applied here: its 16 registers do not fit beside a tile. The caller looks whole rows up afterwards ([`Target::look_up`]).

use core::ops::Range;

pub(crate) use super::lanes::Lanes;
use super::scalar::ROUND_MAX;
use super::{Out, Output};
use crate::SMALL;
use crate::gemm::{GROUP, NR};
use crate::isa::{Isa, Routine, unroll};

/// One of the output's forms, with where the output lies. A type for each form, so that a loop is compiled for it alone.
pub(crate) trait Form: Copy {
    type Element: Copy + Default;
    /// The first element.
    fn y(self) -> *mut Self::Element;
    /// The same form, to elements elsewhere.
    fn at(self, y: *mut Self::Element) -> Self;

    /// Requantises R rows of accumulators (bias included), one in each lane: row r goes to `first + r·pitch`.
    ///
    /// # Safety
    /// Those elements lie in `out`.
    unsafe fn store<L: Lanes, const R: usize>(
        self,
        lanes: L,
        acc: [L::I32; R],
        scale: L::F32,
        first: usize,
        pitch: usize,
    );

    /// As `store` for the pairs of rows of [`Isa::tile_packed`] or [`Isa::tile_joined`]: to `y`, which is left behind the last row.
    ///
    /// # Safety
    /// As `store`, for [`GROUP`] rows.
    unsafe fn store_group<I: Isa>(
        self,
        isa: I,
        acc: [[I::I32; 2]; GROUP / 2],
        scale: [I::F32; 2],
        y: &mut *mut Self::Element,
        pitch: usize,
    );

    /// Puts 8 values, scaled already, to `index`.
    ///
    /// # Safety
    /// Those elements lie in `out`.
    unsafe fn put<I: Isa>(self, isa: I, value: I::F32, index: usize);

    /// As `store` for `count` < 8 columns, row by row through a buffer of 8 that starts as the output's elements.
    ///
    /// # Safety
    /// As `store`.
    #[inline(always)]
    unsafe fn store_part<I: Isa, const R: usize>(
        self,
        isa: I,
        acc: [I::I32; R],
        scale: I::F32,
        first: usize,
        pitch: usize,
        count: usize,
    ) {
        let mut rows = [0; GROUP * NR];
        // SAFETY: the caller's promise, with count < 8; the buffers have 8 elements, for each of R ≤ 12 rows.
        unsafe {
            unroll!(R, r, {
                isa.store_i32(rows.as_mut_ptr().add(r * NR), acc[r]);
            });
            for r in 0..R {
                let y = self.y().add(first + r * pitch);
                let mut buffer = [Self::Element::default(); NR];
                core::ptr::copy_nonoverlapping(y, buffer.as_mut_ptr(), count);
                let acc = isa.load_i32(rows.as_ptr().add(r * NR));
                self.at(buffer.as_mut_ptr()).store(isa, [acc], scale, 0, 0);
                core::ptr::copy_nonoverlapping(buffer.as_ptr(), y, count);
            }
        }
    }
}

/// `scale` times the accumulators of a row.
#[inline(always)]
fn scaled<L: Lanes>(lanes: L, acc: L::I32, scale: L::F32) -> L::F32 {
    lanes.mul_f32(lanes.to_f32(acc), scale)
}

/// [`Output::S8`].
#[derive(Clone, Copy)]
pub(crate) struct ToS8 {
    y: *mut i8,
    zero_point: i16,
    min: i16,
}

/// [`Output::S8`] with min −128, which `sat8` brings about, and a zero point that [`Isa::round_offset`] takes.
#[derive(Clone, Copy)]
pub(crate) struct ToWholeS8 {
    y: *mut i8,
    zero_point: i16,
}

/// As [`ToWholeS8`] for any min.
#[derive(Clone, Copy)]
pub(crate) struct ToClampedS8(ToS8);

/// [`Output::S8`] with min −128 for any zero point, if no value reaches 2¹⁵.
#[derive(Clone, Copy)]
pub(crate) struct ToNearS8 {
    y: *mut i8,
    zero_point: i16,
}

/// [`Output::S16`].
#[derive(Clone, Copy)]
pub(crate) struct ToS16(*mut i16);

/// [`Output::S16`], added to what is there.
#[derive(Clone, Copy)]
pub(crate) struct AddToS16(*mut i16);

/// [`Output::S32`].
#[derive(Clone, Copy)]
pub(crate) struct ToS32(*mut i32);

/// A [`Form`] of `$form`: how it is moved, how 8 scaled values `$scaled` become integers `$value` (after `$constants`), and how those go to their place
/// `$place`, or by `$put_rows` if they are of pairs of rows.
macro_rules! form {
    ($form:ty, $element:ty, |$self:ident| $y:expr, |$to:ident| $at:expr,
     |$isa:ident, $scaled:ident| { $($constants:stmt;)* } $round:expr,
     |$value:ident, $place:ident| $store:expr, $put_rows:ident) => {
        impl Form for $form {
            type Element = $element;

            #[inline(always)]
            fn y($self) -> *mut $element {
                $y
            }

            #[inline(always)]
            fn at($self, $to: *mut $element) -> Self {
                $at
            }

            #[inline(always)]
            unsafe fn store<L: Lanes, const R: usize>(
                $self,
                $isa: L,
                acc: [L::I32; R],
                scale: L::F32,
                first: usize,
                pitch: usize,
            ) {
                $($constants)*
                unroll!(R, r, {
                    let $scaled = scaled($isa, acc[r], scale);
                    let $value = $round;
                    // SAFETY: the caller's promise.
                    unsafe {
                        let $place = $self.y().add(first + r * pitch);
                        $store;
                    }
                });
            }

            #[inline(always)]
            unsafe fn store_group<I: Isa>(
                $self,
                $isa: I,
                acc: [[I::I32; 2]; GROUP / 2],
                scale: [I::F32; 2],
                y: &mut *mut $element,
                pitch: usize,
            ) {
                const FOURS: usize = GROUP / 4;
                $($constants)*
                unroll!(FOURS, four, {
                    let [upper, lower] = [acc[2 * four], acc[2 * four + 1]];
                    let $scaled = scaled($isa, upper[0], scale[0]);
                    let upper_left = $round;
                    let $scaled = scaled($isa, upper[1], scale[1]);
                    let upper = [upper_left, $round];
                    let $scaled = scaled($isa, lower[0], scale[0]);
                    let lower_left = $round;
                    let $scaled = scaled($isa, lower[1], scale[1]);
                    let lower = [lower_left, $round];
                    // SAFETY: the caller's promise.
                    unsafe { $isa.$put_rows(y, pitch, [upper, lower]) };
                });
            }

            #[inline(always)]
            unsafe fn put<I: Isa>($self, $isa: I, $scaled: I::F32, index: usize) {
                $($constants)*
                let $value = $round;
                // SAFETY: the caller's promise.
                unsafe {
                    let $place = $self.y().add(index);
                    $store;
                }
            }
        }
    };
}

form!(ToS8, i8, |self| self.y, |y| Self { y, ..self }, |isa, x| {
    let (zero_point, min) = (isa.splat_i16(self.zero_point), isa.splat_i16(self.min));
} quantise8(isa, x, zero_point, min), |q, y| isa.store_sat8(y, q), put_rows_sat8);

form!(ToClampedS8, i8, |self| self.0.y, |y| Self(ToS8 { y, ..self.0 }), |isa, x| {
    let (zero_point, min) = (isa.offset(self.0.zero_point), isa.splat_i16(self.0.min));
} isa.max_i16(isa.round_offset(x, zero_point), min), |q, y| isa.store_sat8(y, q), put_rows_sat8);

form!(ToNearS8, i8, |self| self.y, |y| Self { y, ..self }, |isa, x| {
    let zero_point = isa.splat_i16(self.zero_point);
} isa.add_sat_i16(isa.round_near(x), zero_point), |q, y| isa.store_sat8(y, q), put_rows_sat8);

form!(ToWholeS8, i8, |self| self.y, |y| Self { y, ..self }, |isa, x| {
    let zero_point = isa.offset(self.zero_point);
} isa.round_offset(x, zero_point), |q, y| isa.store_sat8(y, q), put_rows_sat8);

form!(ToS16, i16, |self| self.0, |y| Self(y), |isa, x| {} isa.round_sat16(x), |q, y| isa.store_i16(y, q), put_rows_i16);

form!(AddToS16, i16, |self| self.0, |y| Self(y), |isa, x| {} isa.round_sat16(x),
    |q, y| isa.store_i16(y, isa.add_sat_i16(q, isa.load_i16(y))), add_rows_i16);

// Beyond ROUND_MAX `round` is not defined; only an s32 output can show it.
form!(ToS32, i32, |self| self.0, |y| Self(y), |isa, x| {
    let (low, high) = (isa.splat_f32(-ROUND_MAX), isa.splat_f32(ROUND_MAX));
} isa.round_i32(isa.min_f32(isa.max_f32(x, low), high)), |q, y| isa.store_i32(y, q), put_rows_i32);

/// `out` and the params of its form, without lengths: the operation has checked them (`check_out`).
#[derive(Clone, Copy)]
pub(crate) enum Target {
    S8(ToS8),
    ClampedS8(ToClampedS8),
    NearS8(ToNearS8),
    WholeS8(ToWholeS8),
    S16(ToS16),
    S16Add(AddToS16),
    S32(ToS32),
}

/// `$body` with `$form` bound to the target's form: compiled once for each that [`Target::new`] makes.
macro_rules! with_form {
    ($target:expr, $form:ident => $body:expr) => {
        match $target {
            Target::S8($form) => $body,
            Target::ClampedS8($form) => {
                if !$crate::SMALL {
                    $body
                }
            }
            Target::NearS8($form) => {
                if !$crate::SMALL {
                    $body
                }
            }
            Target::WholeS8($form) => {
                if !$crate::SMALL {
                    $body
                }
            }
            Target::S16($form) => $body,
            Target::S16Add($form) => $body,
            Target::S32($form) => $body,
        }
    };
}
pub(crate) use with_form;

impl Target {
    /// `out` has passed `check_out`; `fits` says whether all values, zero point included, are below 2¹⁵.
    pub(crate) fn new<I: Isa>(
        _: I,
        output: &Output<'_>,
        fits: impl FnOnce() -> bool,
        out: &mut Out<'_>,
    ) -> Self {
        let (zero_point, min) = match *output {
            Output::S8 {
                zero_point, min, ..
            } => (i16::from(zero_point), i16::from(min)),
            Output::S16 | Output::S32 => (0, i16::from(i8::MIN)),
        };
        match out {
            Out::S8(y) => {
                let y = y.as_mut_ptr();
                Self::to_s8::<I>(ToS8 { y, zero_point, min }, fits)
            }
            Out::S16(y) => Self::S16(ToS16(y.as_mut_ptr())),
            Out::S16Add(y) => Self::S16Add(AddToS16(y.as_mut_ptr())),
            Out::S32(y) => Self::S32(ToS32(y.as_mut_ptr())),
        }
    }

    /// The quickest form for an s8 output; of small code the one that serves all, a fourth of the code for a few instructions more.
    fn to_s8<I: Isa>(any: ToS8, fits: impl FnOnce() -> bool) -> Self {
        if SMALL {
            return Self::S8(any);
        }
        let ToS8 { y, zero_point, min } = any;
        let fits = I::ROUNDS_BY_ADDING && fits();
        let offset = !I::ROUNDS_BY_ADDING || fits && zero_point % 2 == 0;
        let whole = min == i16::from(i8::MIN);
        match (whole, offset) {
            (true, true) => Self::WholeS8(ToWholeS8 { y, zero_point }),
            (true, false) if fits => Self::NearS8(ToNearS8 { y, zero_point }),
            (false, true) if fits => Self::ClampedS8(ToClampedS8(any)),
            _ => Self::S8(any),
        }
    }

    /// Where an s8 output lies; `None` for others.
    fn s8(self) -> Option<*mut i8> {
        match self {
            Self::S8(ToS8 { y, .. }) => Some(y),
            Self::ClampedS8(ToClampedS8(ToS8 { y, .. }))
            | Self::NearS8(ToNearS8 { y, .. })
            | Self::WholeS8(ToWholeS8 { y, .. }) => Some(y),
            Self::S16(_) | Self::S16Add(_) | Self::S32(_) => None,
        }
    }

    /// Replaces `count` elements from `first` on by their table entries, if the output has a table.
    ///
    /// # Safety
    /// Those elements lie in `out`.
    #[inline(always)]
    pub(crate) unsafe fn look_up<I: Isa>(
        self,
        isa: I,
        output: &Output<'_>,
        first: usize,
        count: usize,
    ) {
        if let (
            Some(y),
            Output::S8 {
                table: Some(table), ..
            },
        ) = (self.s8(), output)
        {
            // SAFETY: the caller's promise.
            let first = unsafe { y.add(first) };
            isa.call(LookUp {
                table,
                first,
                count,
            });
        }
    }
}

/// `rows` rows of `len` elements in groups that stay in L1 from their computation to their look-up.
#[inline(always)]
pub(crate) fn row_groups(rows: usize, len: usize) -> impl Iterator<Item = Range<usize>> {
    const ELEMENTS: usize = 4096;
    let group = (ELEMENTS / len).max(1);
    (0..rows)
        .step_by(group)
        .map(move |first| first..rows.min(first + group))
}

/// Elements that `Target::look_up` promises to exist.
struct LookUp<'t> {
    table: &'t [i8; 256],
    first: *mut i8,
    count: usize,
}

impl Routine for LookUp<'_> {
    type Output = ();

    #[inline(always)]
    fn simd<I: Isa>(self, isa: I) {
        // SAFETY: `Target::look_up`'s caller promises these elements.
        unsafe { isa.look_up(self.table, self.first, self.count) };
    }
}

/// `max(sat16(sat16(round(x)) + zero_point), min)`: `store_sat8` of it is the contract's q, since min ≥ −128.
#[inline(always)]
pub(crate) fn quantise8<L: Lanes>(lanes: L, x: L::F32, zero_point: L::I16, min: L::I16) -> L::I16 {
    lanes.max_i16(lanes.add_sat_i16(lanes.round_sat16(x), zero_point), min)
}
