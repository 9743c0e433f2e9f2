//! The epilogue for 8 channels at a time, or as many as the instruction set likes, straight from the tile's registers.
//!
//! The table is not applied here: its 16 registers do not fit beside a tile. The caller looks whole rows up afterwards ([`Target::look_up`]).

use core::ops::Range;

pub(crate) use super::lanes::Lanes;
use super::scalar::ROUND_MAX;
use super::{Out, Output, Requantise};
use crate::SMALL;
use crate::gemm::{GROUP, NR};
use crate::isa::{Gains, Isa, Routine, unroll};

/// One of the output's forms, with where the output lies. A type for each form, so that a loop is compiled for it alone.
pub(crate) trait Form: Copy {
    /// A place in the output that moves along with the stores.
    type Cursor: Copy;

    /// At element `index`.
    ///
    /// # Safety
    /// It lies in `out`.
    unsafe fn cursor(self, index: usize) -> Self::Cursor;

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

    /// As `store` for the two panels of [`Isa::tile_wide`].
    ///
    /// # Safety
    /// As `store`, for 16 columns.
    #[inline(always)]
    unsafe fn store_wide<I: Isa>(
        self,
        isa: I,
        [left, right]: [[I::I32; 4]; 2],
        scale: [I::F32; 2],
        first: usize,
        pitch: usize,
    ) {
        const ROWS: usize = 4;
        // Row by row: neighbours can be stored together.
        unroll!(ROWS, r, {
            // SAFETY: the caller's promise.
            unsafe {
                let y = first + r * pitch;
                self.store(isa, [left[r]], scale[0], y, 0);
                self.store(isa, [right[r]], scale[1], y + NR, 0);
            }
        });
    }

    /// As `store` for the pairs of rows of [`Isa::tile_packed`] or [`Isa::tile_joined`]: to `y`, which is left behind the last row.
    ///
    /// # Safety
    /// As `store`, for [`GROUP`] rows.
    unsafe fn store_group<I: Isa>(
        self,
        isa: I,
        acc: [[I::I32; 2]; GROUP / 2],
        scale: [I::F32; 2],
        y: &mut Self::Cursor,
        pitch: usize,
    );

    /// Puts 8 values, scaled already, to `index`.
    ///
    /// # Safety
    /// Those elements lie in `out`.
    unsafe fn put<I: Isa>(self, isa: I, value: I::F32, index: usize);

    /// As `store` for `count` < 8 columns.
    ///
    /// # Safety
    /// As `store`.
    unsafe fn store_part<I: Isa, const R: usize>(
        self,
        isa: I,
        acc: [I::I32; R],
        scale: I::F32,
        first: usize,
        pitch: usize,
        count: usize,
    );
}

/// A form of one type of elements.
trait Typed: Form {
    type Element: Copy + Default;
    /// The first element.
    fn y(self) -> *mut Self::Element;
    /// The same form, to elements elsewhere.
    fn at(self, y: *mut Self::Element) -> Self;
}

/// [`Form::store_part`] row by row through a buffer of 8 that starts as the output's elements.
///
/// # Safety
/// As there.
#[inline(always)]
unsafe fn store_part<I: Isa, F: Typed, const R: usize>(
    isa: I,
    form: F,
    acc: [I::I32; R],
    scale: I::F32,
    (first, pitch): (usize, usize),
    count: usize,
) {
    let mut rows = [0; GROUP * NR];
    // SAFETY: the caller's promise, with count < 8; the buffers have 8 elements, for each of R ≤ 12 rows.
    unsafe {
        unroll!(R, r, {
            isa.store_i32(rows.as_mut_ptr().add(r * NR), acc[r]);
        });
        for r in 0..R {
            let y = form.y().add(first + r * pitch);
            let mut buffer = [F::Element::default(); NR];
            core::ptr::copy_nonoverlapping(y, buffer.as_mut_ptr(), count);
            let acc = isa.load_i32(rows.as_ptr().add(r * NR));
            form.at(buffer.as_mut_ptr()).store(isa, [acc], scale, 0, 0);
            core::ptr::copy_nonoverlapping(buffer.as_ptr(), y, count);
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
        impl Typed for $form {
            type Element = $element;

            #[inline(always)]
            fn y($self) -> *mut $element {
                $y
            }

            #[inline(always)]
            fn at($self, $to: *mut $element) -> Self {
                $at
            }
        }

        impl Form for $form {
            type Cursor = *mut $element;

            #[inline(always)]
            unsafe fn cursor(self, index: usize) -> *mut $element {
                // SAFETY: the caller's promise.
                unsafe { self.y().add(index) }
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
                // SAFETY: the caller's promise.
                unsafe { store_part(isa, self, acc, scale, (first, pitch), count) };
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

/// `$body` with `$form` bound to the target's form: compiled once for each that [`Target::new`] makes; of small code once, for [`AnyForm`].
macro_rules! with_form {
    ($target:expr, $form:ident => $body:expr) => {
        if $crate::SMALL {
            let $form = $crate::requantise::simd::AnyForm($target);
            $body
        } else {
            $crate::requantise::simd::match_form!($target, $form => $body)
        }
    };
}

/// As [`with_form`], of small code, too, once for each of its forms. `own`: for operations whose output is s8 or s16, and no residual. `adding`: for targets
/// that are [`Target::adding`]. `often`: for those, if they are not s32; of small code only for what models have, the operation has another way for the rest.
macro_rules! match_form {
    ($target:expr, $form:ident => $body:expr) => {
        $crate::requantise::simd::match_form!(@ $target, $form => $body, [S8 NearS8 S16 S16Add S32] [])
    };
    (own $target:expr, $form:ident => $body:expr) => {
        $crate::requantise::simd::match_form!(@ $target, $form => $body, [S8 NearS8 S16] [])
    };
    (adding $target:expr, $form:ident => $body:expr) => {
        $crate::requantise::simd::match_form!(@ $target, $form => $body, [S8 NearS8 S16Add S32] [S16])
    };
    (often $target:expr, $form:ident => $body:expr) => {
        $crate::requantise::simd::match_form!(@ $target, $form => $body, [NearS8 S16Add] [S8 S16])
    };
    (@ $target:expr, $form:ident => $body:expr, [$($always:ident)*] [$($large:ident)*]) => {
        match $target {
            $(Target::$always($form) => $body,)*
            $(Target::$large($form) if !$crate::SMALL => $body,)*
            Target::ClampedS8($form) if !$crate::SMALL => $body,
            Target::WholeS8($form) if !$crate::SMALL => $body,
            _ => {}
        }
    };
}
pub(crate) use match_form;
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

    /// Of small code, an s16 output as an addition to zeros: for an operation that has loops for both, and stores nothing twice.
    pub(crate) fn adding(self, out: &mut Out<'_>) -> Self {
        match out {
            Out::S16(y) if SMALL => {
                y.fill(0);
                Self::S16Add(AddToS16(y.as_mut_ptr()))
            }
            _ => self,
        }
    }

    /// The quickest form for an s8 output; of small code the one for most, or the one for all.
    fn to_s8<I: Isa>(any: ToS8, fits: impl FnOnce() -> bool) -> Self {
        let ToS8 { y, zero_point, min } = any;
        let fits = I::ROUNDS_BY_ADDING && fits();
        let offset = !I::ROUNDS_BY_ADDING || fits && zero_point % 2 == 0;
        let whole = min == i16::from(i8::MIN);
        match (whole, offset) {
            (true, true) if !SMALL => Self::WholeS8(ToWholeS8 { y, zero_point }),
            (true, _) if fits => Self::NearS8(ToNearS8 { y, zero_point }),
            _ if SMALL => Self::S8(any),
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

/// Of small code: the target's form, asked for at every store and not outside the loops, so that the loops are compiled once for all forms. That is a few
/// instructions more for a tile.
#[derive(Clone, Copy)]
pub(crate) struct AnyForm(pub(crate) Target);

impl Form for AnyForm {
    type Cursor = usize;

    #[inline(always)]
    unsafe fn cursor(self, index: usize) -> usize {
        index
    }

    #[inline(always)]
    unsafe fn store<L: Lanes, const R: usize>(
        self,
        lanes: L,
        acc: [L::I32; R],
        scale: L::F32,
        first: usize,
        pitch: usize,
    ) {
        // Or every form has pointers of its own, moved along by every store.
        let first = lanes.opaque(first as isize) as usize;
        // SAFETY: the caller's promise.
        match_form!(self.0, form => unsafe { form.store(lanes, acc, scale, first, pitch) });
    }

    #[inline(always)]
    unsafe fn store_wide<I: Isa>(
        self,
        isa: I,
        acc: [[I::I32; 4]; 2],
        scale: [I::F32; 2],
        first: usize,
        pitch: usize,
    ) {
        let first = isa.opaque(first as isize) as usize;
        // SAFETY: the caller's promise.
        match_form!(self.0, form => unsafe { form.store_wide(isa, acc, scale, first, pitch) });
    }

    #[inline(always)]
    unsafe fn store_group<I: Isa>(
        self,
        isa: I,
        acc: [[I::I32; 2]; GROUP / 2],
        scale: [I::F32; 2],
        y: &mut usize,
        pitch: usize,
    ) {
        let first = isa.opaque(*y as isize) as usize;
        // SAFETY: the caller's promise; a group's rows are `pitch` apart.
        match_form!(self.0, form => unsafe {
            form.store_group(isa, acc, scale, &mut form.cursor(first), pitch);
        });
        *y += GROUP * pitch;
    }

    #[inline(always)]
    unsafe fn put<I: Isa>(self, isa: I, value: I::F32, index: usize) {
        let index = isa.opaque(index as isize) as usize;
        // SAFETY: the caller's promise.
        match_form!(self.0, form => unsafe { form.put(isa, value, index) });
    }

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
        // SAFETY: the caller's promise.
        match_form!(self.0, form => unsafe {
            form.store_part(isa, acc, scale, first, pitch, count);
        });
    }
}

impl Requantise<'_> {
    /// Whether no value of the first `channels`, zero point included, reaches 2¹⁵ for accumulators of magnitude up to `reach` plus bias. As in
    /// `check_reach` the largest stand for all.
    #[inline(always)]
    pub(crate) fn fits_i16<I: Isa>(&self, isa: I, reach: u64, channels: usize) -> bool {
        let (bias, scale) = isa.call(Largest {
            bias: &self.bias[..channels],
            scale: &self.scale[..channels],
        });
        let sum = reach.saturating_add(u64::from(bias));
        sum as f32 * scale < f32::from(i16::MAX - 128)
    }
}

/// The largest magnitude of the biases, and the largest scale; there are as many of both.
struct Largest<'r> {
    bias: &'r [i32],
    scale: &'r [f32],
}

impl Routine for Largest<'_> {
    type Output = (u32, f32);
    const GAINS: Gains = Gains::LANES;

    /// Scales are positive, so their order is that of their bits.
    #[inline(always)]
    fn simd<I: Isa>(self, isa: I) -> (u32, f32) {
        let zero = isa.splat_i32(0);
        let (mut low, mut high, mut bits) = (zero, zero, zero);
        let (biases, last_biases) = self.bias.as_chunks::<NR>();
        let (scales, last_scales) = self.scale.as_chunks::<NR>();
        let mut lanes = [[0; NR]; 3];
        // SAFETY: chunks and `lanes` have 8 elements.
        unsafe {
            for (bias, scale) in biases.iter().zip(scales) {
                let bias = isa.load_i32(bias.as_ptr());
                low = isa.min_i32(low, bias);
                high = isa.max_i32(high, bias);
                bits = isa.max_i32(bits, isa.load_i32(scale.as_ptr().cast()));
            }
            // −1 − the lowest, which does not overflow.
            low = isa.splat_max(isa.sub_i32(isa.splat_i32(-1), low));
            isa.store_i32(lanes[0].as_mut_ptr(), low);
            isa.store_i32(lanes[1].as_mut_ptr(), isa.splat_max(high));
            isa.store_i32(lanes[2].as_mut_ptr(), isa.splat_max(bits));
        }
        let [low, high, bits] = lanes.map(|lanes| lanes[0]);
        let mut bias = (!low).unsigned_abs().max(high.unsigned_abs());
        let mut scale = f32::from_bits(bits.unsigned_abs());
        for (last_bias, &last_scale) in last_biases.iter().zip(last_scales) {
            bias = bias.max(last_bias.unsigned_abs());
            scale = scale.max(last_scale);
        }
        (bias, scale)
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
    const GAINS: Gains = Gains::LANES;

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
