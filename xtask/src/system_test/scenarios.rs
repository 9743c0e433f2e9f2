//! Every scenario by name: what the machine runs, and what must have come of it.

use std::time::Duration;

use anyhow::Result;

use super::outputs::Outputs;

mod device;
mod picture;
mod preview;
mod running;

/// One thing that a user does.
#[derive(Clone)]
pub(crate) struct Scenario {
    pub(crate) name: &'static str,
    /// What the machine runs: with `guest/lib.sh` before it.
    pub(crate) script: &'static str,
    /// How long the script may take; it is a limit, and no figure.
    pub(crate) limit: Duration,
    /// What this host does when the script says something: `text` and the port that reaches the machine.
    pub(crate) meanwhile: Option<fn(&str, u16) -> Result<()>>,
    /// What must be true of what it left.
    pub(crate) check: fn(&Outputs) -> Result<()>,
}

macro_rules! script {
    ($name:literal) => {
        (
            $name,
            include_str!(concat!("guest/scenarios/", $name, ".sh")),
        )
    };
}

const MINUTES: fn(u64) -> Duration = |minutes| Duration::from_secs(60 * minutes);

/// In the order in which they are run.
pub(crate) fn all() -> Vec<Scenario> {
    vec![
        scenario(script!("list"), 1, picture::list),
        scenario(script!("test-picture"), 5, picture::test_picture),
        scenario(script!("photos"), 15, picture::photos),
        scenario(script!("missing"), 1, device::missing),
        scenario(script!("permission"), 1, device::permission),
        scenario(script!("busy"), 2, device::busy),
        scenario(script!("signal"), 5, running::signal),
        scenario(script!("late"), 3, running::late),
        scenario(script!("rate"), 6, running::rate),
        scenario(script!("soak"), 20, running::soak),
        Scenario {
            meanwhile: Some(preview::visit),
            ..scenario(script!("preview"), 5, preview::ended)
        },
        // Last: it leaves a camera that has been away.
        scenario(script!("unplug"), 4, device::unplug),
    ]
}

fn scenario(
    (name, script): (&'static str, &'static str),
    minutes: u64,
    check: fn(&Outputs) -> Result<()>,
) -> Scenario {
    Scenario {
        name,
        script,
        limit: MINUTES(minutes),
        meanwhile: None,
        check,
    }
}
