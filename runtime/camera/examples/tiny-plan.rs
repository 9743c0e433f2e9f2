//! Writes a plan of a tiny network, made from a seed: `tiny-plan FILE`. It classifies hundreds of frames a second where a real one
//! takes a second for each, as in the emulated machine of `cargo xtask system-test`.

use std::error::Error;
use std::fs;

fn main() -> Result<(), Box<dyn Error>> {
    let path = std::env::args_os().nth(1).ok_or("usage: tiny-plan FILE")?;
    fs::write(path, &*vitlet_plan::testing::tiny_plan(1))?;
    Ok(())
}
