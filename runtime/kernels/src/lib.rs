//! int8 kernels for vision transformers: `no_std`, no alloc, and the same bytes out of every instruction set.
//!
//! Every operation has a params struct ([`Linear`], [`Conv`], [`Depthwise`], [`LayerNorm`], [`GroupNorm`], [`Attention`], [`Add`], [`Mul`],
//! [`MaxPool`], [`PoolLinear`]) whose constructor checks every bound of `docs/numerics.md`, array contents included. Whoever holds one holds
//! the proof that `run` cannot overflow, convert out of range or read outside its arrays; `run` itself only compares slice lengths.
//!
//! Structs with arrays that grow with the model have a second constructor, `new_verified`, and `check_elements`: together they are `new`. A
//! caller who has checked the same bytes before (the plan, which verifies at load and rebuilds its params for every run) need not do so
//! again. Without it, arrays that were never verified can give wrong sums (or an overflow panic in a debug build), but no access out of bounds.
//!
//! | module | job |
//! |---|---|
//! | `cpu` | which kernels this CPU has: [`Kernel`] and the tokens that prove it |
//! | `isa` | one file per instruction set: the vector primitives and the GEMM tile |
//! | `gemm` | the blocked weight layout and the row driver shared by `linear`, `conv` and `attention` |
//! | `requantise` | i32 accumulators to s8, s16 or s32 |
//! | `input` | operands whose type the params name: [`In`] |
//! | the other folders | one operation each: `mod.rs` the contract, `scalar.rs` the reference, `simd.rs` the same with vectors |
//!
//! `scalar.rs` is the executable form of the numeric contract. `simd.rs` states the algorithm once, over the primitives of `isa`, so that an
//! instruction set is one file and not one per operation.
#![no_std]

#[cfg(any(test, feature = "std"))]
extern crate std;

mod add;
mod attention;
mod conv;
mod cpu;
mod depthwise;
mod error;
mod gemm;
mod group_norm;
mod input;
mod isa;
mod layernorm;
mod linear;
mod max_pool;
mod mul;
mod pool_linear;
mod requantise;
mod scratch;

/// Less code (feature `small`), the same bytes. What models seldom have is slow: rows that fill no tile run one by one, and as the reference runs
/// attention over more than 1023 keys on ARMv8.0, depthwise windows that are not 3×3 or whose values may pass 2¹⁵.
const SMALL: bool = cfg!(feature = "small");

pub use add::{Add, Addend, Term};
pub use attention::{Attention, AttentionQuantisation, AttentionShape, Bias, Operand, View};
pub use conv::{Conv, ConvShape};
#[cfg(target_arch = "x86_64")]
pub use cpu::{Avx2, Avx512Vnni, AvxVnni};
pub use cpu::{Kernel, KernelError};
#[cfg(all(target_arch = "aarch64", target_feature = "neon"))]
pub use cpu::{Neon, NeonDotprod, NeonI8mm};
pub use depthwise::Depthwise;
pub use error::{ParamError, SizeError};
pub use gemm::{Gemm, K_ALIGN, NR, pack, packed_len, padded_k, padded_n};
pub use group_norm::GroupNorm;
pub use input::{In, InType};
pub use layernorm::{Gather, LayerNorm, NormOutput};
pub use linear::Linear;
pub use max_pool::MaxPool;
pub use mul::{Factor, Gate, Mul};
pub use pool_linear::PoolLinear;
pub use requantise::{Out, Output, Requantise};
