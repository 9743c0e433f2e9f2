//! `vitlet cpu`: which kernels this CPU has, and which one is used.

use std::env::consts::ARCH;
use std::thread::available_parallelism;

use serde::Serialize;
use vitlet::{Kernel, KernelChoice};

use crate::failure::{OrInvalid as _, Outcome};
use crate::output::{Out, Table};

#[derive(Serialize)]
struct Record {
    arch: &'static str,
    kernels: Vec<&'static str>,
    chosen: &'static str,
    reason: String,
    features: Vec<&'static str>,
    cpus: usize,
}

pub(crate) fn verb(out: &mut Out) -> anyhow::Result<Outcome> {
    let choice = KernelChoice::new(None).or_invalid()?;
    let record = Record {
        arch: ARCH,
        kernels: Kernel::available().map(Kernel::name).collect(),
        chosen: choice.kernel.name(),
        reason: choice.reason.to_string(),
        features: features(),
        cpus: available_parallelism().map_or(1, usize::from),
    };
    out.record(&record)?;
    let mut table = Table::default();
    table.entry("architecture", record.arch);
    table.entry("features", or_none(&record.features));
    table.entry("cpus", record.cpus);
    table.entry("kernels", or_none(&record.kernels));
    table.entry(
        "chosen",
        format_args!("{} ({})", record.chosen, record.reason),
    );
    out.line(table)?;
    Ok(Outcome::Done)
}

fn or_none(names: &[&str]) -> String {
    if names.is_empty() {
        "none that matter here".to_owned()
    } else {
        names.join(" ")
    }
}

/// Of the instruction sets that int8 kernels can use, those this CPU has.
fn features() -> Vec<&'static str> {
    macro_rules! features {
        ($detected:ident: $($name:tt)*) => {
            [$(($name, std::arch::$detected!($name))),*]
        };
    }
    #[cfg(target_arch = "x86_64")]
    let all = features!(is_x86_feature_detected: "ssse3" "sse4.1" "avx" "avx2" "fma" "avxvnni" "avx512f" "avx512bw" "avx512vl" "avx512vnni" "avx512vbmi");
    #[cfg(target_arch = "aarch64")]
    let all =
        features!(is_aarch64_feature_detected: "neon" "dotprod" "i8mm" "fp16" "bf16" "sve" "sve2");
    #[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
    let all: [(&str, bool); 0] = [];
    all.into_iter()
        .filter_map(|(name, has)| has.then_some(name))
        .collect()
}
