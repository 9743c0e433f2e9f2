//! Which kernel a session uses, and why.

use std::env;
use std::fmt;

use vitlet_kernels::Kernel;

use crate::Error;

/// The environment variable that forces a kernel: `VITLET_KERNEL=scalar`.
pub const KERNEL_VARIABLE: &str = "VITLET_KERNEL";

/// A kernel and the reason for it.
#[derive(Clone, Copy, Debug)]
pub struct KernelChoice {
    /// The kernel.
    pub kernel: Kernel,
    /// Why this one.
    pub reason: KernelReason,
}

/// Why a kernel was chosen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KernelReason {
    /// The caller named it.
    Asked,
    /// [`KERNEL_VARIABLE`] names it.
    Environment,
    /// It is the fastest one this CPU has.
    Fastest,
}

impl fmt::Display for KernelReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Asked => f.write_str("asked for"),
            Self::Environment => write!(f, "{KERNEL_VARIABLE} asks for it"),
            Self::Fastest => f.write_str("the fastest this CPU has"),
        }
    }
}

impl KernelChoice {
    /// The kernel asked for; without one, that of [`KERNEL_VARIABLE`]; without that, the fastest of this CPU.
    ///
    /// # Errors
    /// [`Error::KernelVariable`] if the variable names no kernel, or one this CPU lacks. An empty variable counts as none.
    pub fn new(asked: Option<Kernel>) -> Result<Self, Error> {
        if let Some(kernel) = asked {
            let reason = KernelReason::Asked;
            return Ok(Self { kernel, reason });
        }
        let Some(value) = env::var_os(KERNEL_VARIABLE).filter(|value| !value.is_empty()) else {
            return Ok(Self {
                kernel: Kernel::detect(),
                reason: KernelReason::Fastest,
            });
        };
        let value = value.to_string_lossy().into_owned();
        match Kernel::from_name(&value) {
            Ok(kernel) => Ok(Self {
                kernel,
                reason: KernelReason::Environment,
            }),
            Err(error) => Err(Error::KernelVariable { value, error }),
        }
    }
}
