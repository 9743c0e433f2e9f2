//! Which kernels this CPU has. A token is the proof: its only constructor checks the CPU, so holding one makes the instructions safe to use.

use core::fmt;

/// A choice of instructions. Choose once, at load; every kernel gives the same bytes.
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub enum Kernel {
    /// The reference, on any CPU.
    Scalar,
    /// ARMv8.0 Advanced SIMD (Cortex-A53, A57, A72).
    #[cfg(all(target_arch = "aarch64", target_feature = "neon"))]
    Neon(Neon),
    /// ARMv8.2 with SDOT (Cortex-A55, A76, A78AE).
    #[cfg(all(target_arch = "aarch64", target_feature = "neon"))]
    NeonDotprod(NeonDotprod),
    /// ARMv8.6 with SMMLA (Cortex-A510, A710, X2, Neoverse V1 and N2).
    #[cfg(all(target_arch = "aarch64", target_feature = "neon"))]
    NeonI8mm(NeonI8mm),
    /// x86-64 with AVX2.
    #[cfg(target_arch = "x86_64")]
    Avx2(Avx2),
    /// x86-64 with AVX2 and the VEX form of VPDPBUSD (Alder Lake, Zen 5 and later).
    #[cfg(target_arch = "x86_64")]
    AvxVnni(AvxVnni),
    /// x86-64 with AVX-512 VNNI and VBMI (Ice Lake, Zen 4 and later).
    #[cfg(target_arch = "x86_64")]
    Avx512Vnni(Avx512Vnni),
}

/// Proof that the CPU has Advanced SIMD.
#[cfg(all(target_arch = "aarch64", target_feature = "neon"))]
#[derive(Clone, Copy, Debug)]
pub struct Neon(());

/// Proof that the CPU has Advanced SIMD with SDOT.
#[cfg(all(target_arch = "aarch64", target_feature = "neon"))]
#[derive(Clone, Copy, Debug)]
pub struct NeonDotprod(());

/// Proof that the CPU has Advanced SIMD with SDOT and SMMLA.
#[cfg(all(target_arch = "aarch64", target_feature = "neon"))]
#[derive(Clone, Copy, Debug)]
pub struct NeonI8mm(NeonDotprod);

#[cfg(all(target_arch = "aarch64", target_feature = "neon"))]
impl Neon {
    /// Always there: the target this crate was built for includes it.
    #[must_use]
    pub fn new() -> Option<Self> {
        Some(Self(()))
    }
}

#[cfg(all(target_arch = "aarch64", target_feature = "neon"))]
impl NeonDotprod {
    /// Asks the CPU (through std, or the ID register on bare metal); elsewhere only what the build was told.
    #[must_use]
    pub fn new() -> Option<Self> {
        dotprod().then_some(Self(()))
    }

    /// The proof of Advanced SIMD that this one includes.
    #[must_use]
    pub fn neon(self) -> Neon {
        Neon(())
    }
}

#[cfg(all(target_arch = "aarch64", target_feature = "neon"))]
impl NeonI8mm {
    /// Asks the CPU as [`NeonDotprod::new`] does, which has to succeed, too.
    #[must_use]
    pub fn new() -> Option<Self> {
        NeonDotprod::new().filter(|_| i8mm()).map(Self)
    }

    /// The proof of SDOT that this one includes.
    #[must_use]
    pub fn dotprod(self) -> NeonDotprod {
        self.0
    }
}

#[cfg(all(target_arch = "aarch64", target_feature = "neon", feature = "std"))]
fn dotprod() -> bool {
    std::arch::is_aarch64_feature_detected!("dotprod")
}

#[cfg(all(target_arch = "aarch64", target_feature = "neon", feature = "std"))]
fn i8mm() -> bool {
    std::arch::is_aarch64_feature_detected!("i8mm")
}

#[cfg(all(
    target_arch = "aarch64",
    target_feature = "neon",
    not(feature = "std"),
    target_os = "none"
))]
fn dotprod() -> bool {
    let isar0: u64;
    // SAFETY: reads an identification register, which firmware (EL1 or above) may always read; no memory, no side effect.
    unsafe {
        core::arch::asm!("mrs {}, ID_AA64ISAR0_EL1", out(reg) isar0, options(pure, nomem, nostack, preserves_flags));
    }
    (isar0 >> 44) & 0xf != 0
}

#[cfg(all(
    target_arch = "aarch64",
    target_feature = "neon",
    not(feature = "std"),
    target_os = "none"
))]
fn i8mm() -> bool {
    let isar1: u64;
    // SAFETY: as in `dotprod`.
    unsafe {
        core::arch::asm!("mrs {}, ID_AA64ISAR1_EL1", out(reg) isar1, options(pure, nomem, nostack, preserves_flags));
    }
    (isar1 >> 52) & 0xf != 0
}

#[cfg(all(
    target_arch = "aarch64",
    target_feature = "neon",
    not(feature = "std"),
    not(target_os = "none")
))]
fn dotprod() -> bool {
    cfg!(target_feature = "dotprod")
}

#[cfg(all(
    target_arch = "aarch64",
    target_feature = "neon",
    not(feature = "std"),
    not(target_os = "none")
))]
fn i8mm() -> bool {
    cfg!(target_feature = "i8mm")
}

/// The token of an x86-64 kernel that needs the features named.
#[cfg(target_arch = "x86_64")]
macro_rules! x86_token {
    ($token:ident: $what:literal, $($feature:tt)+) => {
        #[doc = concat!("Proof that the CPU has ", $what, ".")]
        #[derive(Clone, Copy, Debug)]
        pub struct $token(());

        impl $token {
            /// Asks the CPU (feature `std`); without it only what the build was told.
            #[must_use]
            pub fn new() -> Option<Self> {
                #[cfg(feature = "std")]
                let all = $(std::arch::is_x86_feature_detected!($feature))&&+;
                #[cfg(not(feature = "std"))]
                let all = $(cfg!(target_feature = $feature))&&+;
                all.then_some(Self(()))
            }
        }
    };
}

#[cfg(target_arch = "x86_64")]
x86_token!(Avx2: "AVX2", "avx2");
#[cfg(target_arch = "x86_64")]
x86_token!(AvxVnni: "AVX2 and AVX-VNNI", "avx2" "avxvnni");
#[cfg(target_arch = "x86_64")]
x86_token!(Avx512Vnni: "AVX-512 F, BW, VL, VNNI and VBMI", "avx2" "avx512f" "avx512bw" "avx512vl" "avx512vnni" "avx512vbmi");

#[cfg(target_arch = "x86_64")]
impl Avx2 {
    /// Runs portable code that the compiler makes AVX2 instructions of: `code`, and what is inlined in it.
    ///
    /// This is for crates that are to have no unsafe code of their own. The result is the same as without.
    #[inline]
    pub fn vectorise<R>(self, code: impl FnOnce() -> R) -> R {
        #[target_feature(enable = "avx2")]
        fn enabled<R>(code: impl FnOnce() -> R) -> R {
            code()
        }
        // SAFETY: the token proves that the CPU has the instructions that the callee enables.
        unsafe { enabled(code) }
    }
}

impl Kernel {
    /// The reference kernel.
    pub const SCALAR: Self = Self::Scalar;

    /// Every name [`Kernel::from_name`] knows, on any CPU.
    pub const NAMES: &'static [&'static str] = &[
        "scalar",
        "neon",
        "neon-dotprod",
        "neon-i8mm",
        "avx2",
        "avx-vnni",
        "avx512-vnni",
    ];

    /// The fastest kernel this CPU has.
    #[must_use]
    pub fn detect() -> Self {
        Self::available().last().unwrap_or(Self::Scalar)
    }

    /// The kernels this CPU has, slowest first.
    pub fn available() -> impl Iterator<Item = Self> {
        let kernels = [
            Some(Self::Scalar),
            #[cfg(all(target_arch = "aarch64", target_feature = "neon"))]
            Neon::new().map(Self::Neon),
            #[cfg(all(target_arch = "aarch64", target_feature = "neon"))]
            NeonDotprod::new().map(Self::NeonDotprod),
            #[cfg(all(target_arch = "aarch64", target_feature = "neon"))]
            NeonI8mm::new().map(Self::NeonI8mm),
            #[cfg(target_arch = "x86_64")]
            Avx2::new().map(Self::Avx2),
            #[cfg(target_arch = "x86_64")]
            AvxVnni::new().map(Self::AvxVnni),
            #[cfg(target_arch = "x86_64")]
            Avx512Vnni::new().map(Self::Avx512Vnni),
        ];
        kernels.into_iter().flatten()
    }

    /// The name used in logs and in `VITLET_KERNEL`.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Scalar => "scalar",
            #[cfg(all(target_arch = "aarch64", target_feature = "neon"))]
            Self::Neon(_) => "neon",
            #[cfg(all(target_arch = "aarch64", target_feature = "neon"))]
            Self::NeonDotprod(_) => "neon-dotprod",
            #[cfg(all(target_arch = "aarch64", target_feature = "neon"))]
            Self::NeonI8mm(_) => "neon-i8mm",
            #[cfg(target_arch = "x86_64")]
            Self::Avx2(_) => "avx2",
            #[cfg(target_arch = "x86_64")]
            Self::AvxVnni(_) => "avx-vnni",
            #[cfg(target_arch = "x86_64")]
            Self::Avx512Vnni(_) => "avx512-vnni",
        }
    }

    /// The kernel of that name, if this CPU has it.
    ///
    /// # Errors
    /// The name is unknown, or its kernel is not on this CPU.
    pub fn from_name(name: &str) -> Result<Self, KernelError> {
        if let Some(kernel) = Self::available().find(|k| k.name() == name) {
            return Ok(kernel);
        }
        match Self::NAMES.iter().find(|known| **known == name) {
            Some(&name) => Err(KernelError::NotOnThisCpu { name }),
            None => Err(KernelError::Unknown),
        }
    }
}

/// A kernel asked for by name cannot be had.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum KernelError {
    /// No kernel has that name.
    Unknown,
    /// The kernel exists, but not on this CPU.
    NotOnThisCpu {
        /// Its name.
        name: &'static str,
    },
}

impl fmt::Display for KernelError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unknown => {
                f.write_str("no kernel has that name; the names are")?;
                Kernel::NAMES
                    .iter()
                    .try_for_each(|name| write!(f, " {name}"))?;
                f.write_str(";")?;
            }
            Self::NotOnThisCpu { name } => {
                write!(f, "kernel {name} needs instructions this CPU lacks;")?;
            }
        }
        f.write_str(" this CPU has")?;
        Kernel::available().try_for_each(|kernel| write!(f, " {}", kernel.name()))
    }
}

impl core::error::Error for KernelError {}
