//! How a run ends. In the simulation it is QEMU's exit status; a board would restart, or wait for an update.

/// Why.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Exit {
    /// All frames were looked at.
    Done = 0,
    /// Neither slot has a plan that runs: the safe state.
    NoPlan = 10,
    /// An exception that the program should not cause.
    Exception = 11,
    /// A bug that the program has noticed itself.
    Panic = 12,
    /// A stage took too long.
    Watchdog = 13,
    /// The host side asked for something that cannot be had.
    Options = 14,
    /// The update was refused, or flash is at fault.
    Update = 15,
    /// The camera has nothing to deliver.
    Camera = 16,
    /// Power failed (feature `inject`).
    #[cfg(feature = "inject")]
    PowerLost = 17,
}

/// Ends the run.
pub fn exit(why: Exit) -> ! {
    semihosting::process::exit(why as i32)
}
