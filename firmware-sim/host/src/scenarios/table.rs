//! The scenarios, as data.

use super::inputs::{Film, Flash};
use super::{A53, Scenario};
use crate::machine::exit;

const ONCE: &[(&[&str], i32)] = &[(&[], exit::DONE)];

pub(super) const SCENARIOS: &[Scenario] = &[
    Scenario {
        name: "frames",
        cpu: A53,
        flash: Flash::One,
        film: Film::Three,
        boots: ONCE,
    },
    Scenario {
        name: "el2",
        cpu: A53,
        flash: Flash::One,
        film: Film::Three,
        boots: ONCE,
    },
    Scenario {
        name: "boot-counter",
        cpu: A53,
        flash: Flash::Two,
        film: Film::Three,
        boots: &[(&[], exit::DONE), (&[], exit::DONE), (&[], exit::DONE)],
    },
    Scenario {
        name: "no-plan",
        cpu: A53,
        flash: Flash::Empty,
        film: Film::Three,
        boots: &[(&[], exit::NO_PLAN)],
    },
    Scenario {
        name: "no-frames",
        cpu: A53,
        flash: Flash::One,
        film: Film::None,
        boots: &[(&[], exit::CAMERA)],
    },
    Scenario {
        name: "truncated-slot",
        cpu: A53,
        flash: Flash::Truncated,
        film: Film::Three,
        boots: ONCE,
    },
    Scenario {
        name: "later-version",
        cpu: A53,
        flash: Flash::LaterVersion,
        film: Film::Three,
        boots: ONCE,
    },
    Scenario {
        name: "both-damaged",
        cpu: A53,
        flash: Flash::BothDamaged,
        film: Film::Three,
        boots: &[(&[], exit::NO_PLAN)],
    },
    Scenario {
        name: "frame-of-wrong-size",
        cpu: A53,
        flash: Flash::One,
        film: Film::WrongSize,
        boots: ONCE,
    },
    Scenario {
        name: "burst",
        cpu: A53,
        flash: Flash::One,
        film: Film::Burst,
        boots: ONCE,
    },
    Scenario {
        name: "stalled-camera",
        cpu: A53,
        flash: Flash::One,
        film: Film::Gap,
        boots: ONCE,
    },
    Scenario {
        name: "small-arena",
        cpu: A53,
        flash: Flash::One,
        film: Film::Three,
        boots: &[(&["arena=4096"], exit::NO_PLAN)],
    },
    Scenario {
        name: "stack-overflow",
        cpu: A53,
        flash: Flash::One,
        film: Film::Three,
        boots: &[(&["inject=overflow"], exit::EXCEPTION)],
    },
    Scenario {
        name: "undefined-instruction",
        cpu: A53,
        flash: Flash::One,
        film: Film::Three,
        boots: &[(&["inject=udf"], exit::EXCEPTION)],
    },
    Scenario {
        name: "write-to-plan",
        cpu: A53,
        flash: Flash::One,
        film: Film::Three,
        boots: &[(&["inject=write-plan"], exit::EXCEPTION)],
    },
    Scenario {
        name: "stalled-inference",
        cpu: A53,
        flash: Flash::One,
        film: Film::Three,
        boots: &[(&["inject=stall"], exit::WATCHDOG)],
    },
    Scenario {
        name: "missing-kernel",
        cpu: A53,
        flash: Flash::One,
        film: Film::Three,
        boots: &[
            (&["kernel=neon-i8mm"], exit::OPTIONS),
            (&["kernel=avx2"], exit::OPTIONS),
            (&["kernel=neno"], exit::OPTIONS),
        ],
    },
    Scenario {
        name: "unknown-option",
        cpu: A53,
        flash: Flash::One,
        film: Film::Three,
        boots: &[(&["updat"], exit::OPTIONS)],
    },
    Scenario {
        name: "forced-kernel",
        cpu: "max",
        flash: Flash::One,
        film: Film::Three,
        boots: &[
            (&["kernel=scalar"], exit::DONE),
            (&["kernel=neon"], exit::DONE),
            (&["kernel=neon-dotprod"], exit::DONE),
            (&["kernel=neon-i8mm"], exit::DONE),
        ],
    },
    Scenario {
        name: "update",
        cpu: A53,
        flash: Flash::One,
        film: Film::Three,
        boots: &[(&["update"], exit::DONE), (&[], exit::DONE)],
    },
    Scenario {
        name: "update-without-plan",
        cpu: A53,
        flash: Flash::One,
        film: Film::None,
        boots: &[(&["update"], exit::UPDATE)],
    },
    Scenario {
        name: "plan-without-result",
        cpu: A53,
        flash: Flash::One,
        film: Film::Three,
        boots: &[
            (&[], exit::DONE),
            (&["update", "inject=hang"], exit::POWER_LOST),
            (&["inject=hang"], exit::POWER_LOST),
            (&["inject=hang"], exit::POWER_LOST),
            (&[], exit::DONE),
        ],
    },
];
