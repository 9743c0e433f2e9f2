//! Power that fails during an update.

use std::fs;

use anyhow::{Context as _, Result, bail, ensure};
use rayon::prelude::*;
use vitlet_plan::testing;

use super::{A53, NEW, OLD, inputs};
use crate::flash::Chip;
use crate::machine::{Boot, Machine, exit};
use crate::run::outcomes;
use crate::{equality, film};

/// An update whose power fails before, and amid, each of its steps: the next boot runs a whole plan.
pub(super) fn check(machine: &Machine) -> Result<()> {
    let [old, new] = [OLD, NEW].map(testing::tiny_plan);
    let chip = Chip::with_plans(&[&old])?;
    let shots = inputs::Film::Three.shots().unwrap_or_default();
    let film = machine.file("power-film");
    film::write(&film, 100_000, &shots)?;
    let update = machine.file("power-update");
    inputs::write_update(&update, Some(&new))?;
    let boot = |name: &str, flash: &std::path::Path, options: &[&str]| {
        let options = options.iter().map(|word| (*word).to_owned()).collect();
        let boot = Boot {
            cpu: A53,
            flash: Some(flash),
            film: Some(&film),
            update: Some(&update),
            options,
            at_el2: false,
        };
        machine.boot(name, &boot)
    };
    let flash = machine.file("power-whole");
    chip.write(&flash)?;
    let whole = boot("power-whole", &flash, &["update"])?;
    let steps = whole.log.iter().find_map(|line| {
        line.split_once("update: ")?
            .1
            .strip_suffix(" steps")?
            .parse::<usize>()
            .ok()
    });
    let steps = steps.context("the log does not say how many steps the update has")?;
    let of_plans = [&old, &new].map(|plan| equality::expected(plan, &shots));
    let [of_old, of_new] = of_plans;
    let (of_old, of_new) = (of_old?, of_new?);
    let cut = |(step, word): (usize, &str)| -> Result<bool> {
        let name = format!("{word}-{step}");
        let flash = machine.file(&name);
        chip.write(&flash)?;
        let lost = boot(&name, &flash, &["update", &format!("inject={word}:{step}")])?;
        ensure!(
            lost.code == exit::POWER_LOST,
            "{word} {step}: ended with {}",
            lost.code
        );
        let after = boot(&name, &flash, &[])?;
        fs::remove_file(&flash)?;
        let hashes: Vec<_> = outcomes(&after)?
            .into_iter()
            .map(|outcome| Some(outcome.output_hash))
            .collect();
        if after.code == exit::DONE && hashes == of_old {
            return Ok(false);
        }
        // Only the last step, cut after its last bit was written, may have got through.
        if after.code == exit::DONE && hashes == of_new && step + 1 == steps {
            return Ok(true);
        }
        bail!(
            "{word} {step}: the next boot ended with {}:\n{}",
            after.code,
            after.log.join("\n")
        )
    };
    let cuts: Vec<(usize, &str)> = (0..steps)
        .flat_map(|step| [(step, "power"), (step, "power-amid")])
        .collect();
    let new_ran: Vec<bool> = cuts.into_par_iter().map(cut).collect::<Result<_>>()?;
    println!(
        "  {:<24} {} power cuts in {steps} steps: a whole plan ran after each",
        "power",
        new_ran.len()
    );
    Ok(())
}
