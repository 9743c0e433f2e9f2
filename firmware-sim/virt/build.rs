//! Tells the linker where things go, and the image how much memory the arena has.

use std::env;

/// Bytes of arena if `VITLET_ARENA` does not say: more than any model of the zoo needs.
const ARENA: usize = 1024 * 1024;

fn main() {
    println!("cargo::rerun-if-changed=link.ld");
    println!("cargo::rerun-if-env-changed=VITLET_ARENA");
    let folder = env::var("CARGO_MANIFEST_DIR").unwrap_or_default();
    println!("cargo::rustc-link-arg-bins=-T{folder}/link.ld");
    println!("cargo::rustc-link-arg-bins=-Tdefmt.x");
    println!("cargo::rustc-link-arg-bins=--no-nmagic");
    // One copy of functions that are compiled to the same instructions, as kernels of several instruction sets are.
    println!("cargo::rustc-link-arg-bins=--icf=all");
    // What defmt's macros leave in; unset, it would be errors alone.
    if env::var_os("DEFMT_LOG").is_none() {
        println!("cargo::rustc-env=DEFMT_LOG=info");
    }
    println!("cargo::rerun-if-env-changed=DEFMT_LOG");
    let arena = env::var("VITLET_ARENA").ok();
    let arena = arena.map_or(Ok(ARENA), |bytes| bytes.parse::<usize>());
    match arena {
        Ok(bytes) if bytes.is_multiple_of(64) => println!("cargo::rustc-env=VITLET_ARENA={bytes}"),
        _ => println!("cargo::error=VITLET_ARENA: give the arena's bytes, a multiple of 64"),
    }
}
