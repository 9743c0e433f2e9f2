//! What the host side asks for: words on QEMU's semihosting command line. A board has its choices compiled in.

use vitlet_kernels::Kernel;

use crate::statics;

/// Bytes of the longest command line.
const LINE: usize = 256;

/// See `firmware-sim/README.md`.
pub struct Options {
    /// `kernel=NAME`; the CPU's best one otherwise.
    pub kernel: Kernel,
    /// `update`: install the plan that lies in memory, then boot.
    pub update: bool,
    /// `arena=BYTES`: as if the arena had no more.
    pub arena: usize,
    /// `inject=FAULT`.
    #[cfg(feature = "inject")]
    pub inject: Option<crate::inject::Inject>,
}

/// Reads them; what is wrong is printed.
pub fn read() -> Option<Options> {
    let mut options = Options {
        kernel: Kernel::detect(),
        update: false,
        arena: statics::ARENA,
        #[cfg(feature = "inject")]
        inject: None,
    };
    let Ok(words) = semihosting::experimental::env::args::<LINE>() else {
        defmt::error!(
            "options: the command line is longer than {=usize} bytes",
            LINE
        );
        return None;
    };
    // The first word is the program's name.
    for word in (&words).into_iter().skip(1) {
        set(&mut options, word.unwrap_or_default())?;
    }
    Some(options)
}

fn set(options: &mut Options, word: &str) -> Option<()> {
    let (name, value) = word.split_once('=').unwrap_or((word, ""));
    match name {
        "update" => options.update = true,
        "kernel" => match Kernel::from_name(value) {
            Ok(kernel) => options.kernel = kernel,
            Err(why) => {
                defmt::error!("kernel={=str}: {}", value, defmt::Display2Format(&why));
                return None;
            }
        },
        "arena" => options.arena = number(word, value)?,
        #[cfg(feature = "inject")]
        "inject" => match crate::inject::Inject::parse(value) {
            Some(fault) => options.inject = Some(fault),
            None => return unknown(word),
        },
        _ => return unknown(word),
    }
    Some(())
}

fn number(word: &str, value: &str) -> Option<usize> {
    let number = value.parse().ok();
    if number.is_none() {
        defmt::error!("option {=str}: not a number", word);
    }
    number
}

fn unknown(word: &str) -> Option<()> {
    defmt::error!(
        "option {=str}: unknown; the options are kernel=NAME, update, arena=BYTES",
        word
    );
    None
}
