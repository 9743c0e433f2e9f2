//! Every kernel this CPU has gives the same bytes as the reference, for every operation.
//!
//! `VITLET_EXPECT_KERNELS=scalar,neon` makes the suite fail unless exactly those kernels ran: an emulator or a board without the feature must not
//! look like success. The names are printed (`--nocapture`).
#![allow(clippy::unwrap_used, clippy::panic, reason = "tests fail by panicking")]

mod attention;
mod convolution;
mod data;
mod elementwise;
mod group_norm;
mod groups;
mod layernorm;
mod linear;
mod max_pool;

use vitlet_kernels::{Kernel, KernelError};

/// The set that ran is the set the caller expects.
#[test]
#[allow(clippy::print_stdout, reason = "the log must show what was tested")]
fn expected_kernels() {
    let names: Vec<_> = Kernel::available().map(Kernel::name).collect();
    println!(
        "target {}, kernels {}",
        std::env::consts::ARCH,
        names.join(",")
    );
    if let Ok(expected) = std::env::var("VITLET_EXPECT_KERNELS") {
        assert_eq!(names, expected.split(',').collect::<Vec<_>>());
    }
}

#[test]
fn names() {
    for kernel in Kernel::available() {
        assert_eq!(
            Kernel::from_name(kernel.name()).unwrap().name(),
            kernel.name()
        );
    }
    assert_eq!(Kernel::from_name("mmx").unwrap_err(), KernelError::Unknown);
    let foreign = if cfg!(target_arch = "x86_64") {
        "neon"
    } else {
        "avx2"
    };
    let error = Kernel::from_name(foreign).unwrap_err();
    assert!(error.to_string().contains("this CPU has scalar"), "{error}");
}
