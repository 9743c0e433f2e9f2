//! The epilogue for 8 channels at a time, straight from the tile's registers.
//!
//! The table is not applied here: its 16 registers do not fit beside a tile. The caller looks whole rows up afterwards ([`Target::look_up`]).

use super::{Out, Output, Requantise};
use crate::gemm::NR;
use crate::isa::{Isa, Routine, unroll};

/// 2²²−1, beyond which `round` is not defined; only an s32 output can show it.
const ROUND_MAX: f32 = 4_194_303.0;

/// `out` and the params of its form, without lengths: the operation has checked them (`check_out`).
#[derive(Clone, Copy)]
pub(crate) enum Target {
    S8 {
        y: *mut i8,
        zero_point: i16,
        min: i16,
    },
    /// With min −128, which `sat8` brings about.
    S8Whole {
        y: *mut i8,
        zero_point: i16,
    },
    S16(*mut i16),
    S16Add(*mut i16),
    S32(*mut i32),
}

impl Target {
    /// `out` has passed `requantise.check_out`.
    pub(crate) fn new(requantise: &Requantise<'_>, out: &mut Out<'_>) -> Self {
        let (zero_point, min) = match requantise.output {
            Output::S8 {
                zero_point, min, ..
            } => (i16::from(zero_point), i16::from(min)),
            Output::S16 | Output::S32 => (0, i16::from(i8::MIN)),
        };
        match out {
            Out::S8(y) if min == i16::from(i8::MIN) => Self::S8Whole {
                y: y.as_mut_ptr(),
                zero_point,
            },
            Out::S8(y) => Self::S8 {
                y: y.as_mut_ptr(),
                zero_point,
                min,
            },
            Out::S16(y) => Self::S16(y.as_mut_ptr()),
            Out::S16Add(y) => Self::S16Add(y.as_mut_ptr()),
            Out::S32(y) => Self::S32(y.as_mut_ptr()),
        }
    }

    /// Requantises R rows of 8 accumulators (bias included): row r goes to `first + r·pitch`.
    ///
    /// # Safety
    /// Those elements lie in `out`.
    #[inline(always)]
    pub(crate) unsafe fn store_whole<I: Isa, const R: usize>(
        self,
        isa: I,
        acc: [I::I32; R],
        scale: I::F32,
        first: usize,
        pitch: usize,
    ) {
        // SAFETY: the caller's promise.
        unsafe {
            match self {
                Self::S8 { y, zero_point, min } => {
                    let (zero_point, min) = (isa.splat_i16(zero_point), isa.splat_i16(min));
                    unroll!(R, r, {
                        let scaled = isa.mul_f32(isa.to_f32(acc[r]), scale);
                        isa.store_sat8(
                            y.add(first + r * pitch),
                            quantise8(isa, scaled, zero_point, min),
                        );
                    });
                }
                Self::S8Whole { y, zero_point } => {
                    let zero_point = isa.splat_i16(zero_point);
                    unroll!(R, r, {
                        let scaled = isa.mul_f32(isa.to_f32(acc[r]), scale);
                        let q = isa.add_sat_i16(isa.round_sat16(scaled), zero_point);
                        isa.store_sat8(y.add(first + r * pitch), q);
                    });
                }
                Self::S16(y) => unroll!(R, r, {
                    let scaled = isa.mul_f32(isa.to_f32(acc[r]), scale);
                    isa.store_i16(y.add(first + r * pitch), isa.round_sat16(scaled));
                }),
                Self::S16Add(y) => unroll!(R, r, {
                    let y = y.add(first + r * pitch);
                    let scaled = isa.mul_f32(isa.to_f32(acc[r]), scale);
                    isa.store_i16(y, isa.add_sat_i16(isa.round_sat16(scaled), isa.load_i16(y)));
                }),
                Self::S32(y) => {
                    let (low, high) = (isa.splat_f32(-ROUND_MAX), isa.splat_f32(ROUND_MAX));
                    unroll!(R, r, {
                        let scaled = isa.mul_f32(isa.to_f32(acc[r]), scale);
                        let clamped = isa.min_f32(isa.max_f32(scaled, low), high);
                        isa.store_i32(y.add(first + r * pitch), isa.round_i32(clamped));
                    });
                }
            }
        }
    }

    /// As `store_whole` for `count` < 8 columns, row by row through a buffer of 8.
    ///
    /// # Safety
    /// As `store_whole`.
    #[inline(always)]
    pub(crate) unsafe fn store_part<I: Isa, const R: usize>(
        self,
        isa: I,
        acc: [I::I32; R],
        scale: I::F32,
        first: usize,
        pitch: usize,
        count: usize,
    ) {
        /// Runs `store_whole` on a buffer that starts as the output's elements.
        macro_rules! buffered {
            ($y:expr, $zero:expr, $acc:expr, $form:expr) => {{
                let mut buffer = [$zero; NR];
                core::ptr::copy_nonoverlapping($y, buffer.as_mut_ptr(), count);
                $form(buffer.as_mut_ptr()).store_whole(isa, [$acc], scale, 0, 0);
                core::ptr::copy_nonoverlapping(buffer.as_ptr(), $y, count);
            }};
        }
        let mut rows = [0; NR * NR];
        // SAFETY: the caller's promise, with count < 8; the buffers have 8 elements, for each of R ≤ 8 rows.
        unsafe {
            unroll!(R, r, {
                isa.store_i32(rows.as_mut_ptr().add(r * NR), acc[r]);
            });
            for r in 0..R {
                let (acc, index) = (isa.load_i32(rows.as_ptr().add(r * NR)), first + r * pitch);
                match self {
                    Self::S8 { y, zero_point, min } => {
                        buffered!(y.add(index), 0_i8, acc, |y| Self::S8 { y, zero_point, min });
                    }
                    Self::S8Whole { y, zero_point } => {
                        buffered!(y.add(index), 0_i8, acc, |y| Self::S8Whole { y, zero_point });
                    }
                    Self::S16(y) => buffered!(y.add(index), 0_i16, acc, Self::S16),
                    Self::S16Add(y) => buffered!(y.add(index), 0_i16, acc, Self::S16Add),
                    Self::S32(y) => buffered!(y.add(index), 0_i32, acc, Self::S32),
                }
            }
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
        requantise: &Requantise<'_>,
        first: usize,
        count: usize,
    ) {
        if let (
            Self::S8 { y, .. } | Self::S8Whole { y, .. },
            Output::S8 {
                table: Some(table), ..
            },
        ) = (self, &requantise.output)
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
pub(crate) fn quantise8<I: Isa>(isa: I, x: I::F32, zero_point: I::I16, min: I::I16) -> I::I16 {
    isa.max_i16(isa.add_sat_i16(isa.round_sat16(x), zero_point), min)
}
