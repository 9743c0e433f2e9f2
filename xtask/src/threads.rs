//! `cargo xtask threads`: what two threads make of two cores.
//!
//! Two processes of one thread each, run together, are the most that two cores can give: nothing is shared and nobody waits. One
//! process of two threads is compared with them. Both are run in turns, so that what else the machine does meets both, and the ratio
//! is taken pair by pair. It is a report, not a test: no figure of it fails.

use std::process::Command;

use anyhow::{Context as _, Result, ensure};

use crate::dist;
use crate::machine::Machine;
use crate::pairs::{Running, Spread, bench_per_s};
use crate::project::Project;
use crate::quantile::median;

/// Compare one process of two threads with two processes of one thread that run together; prints a table.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// The model under models/zoo
    #[arg(long, value_name = "NAME", default_value = "pvt_v2_b0_trashnet")]
    model: String,
    /// Pairs that are run
    #[arg(long, value_name = "N", default_value_t = 15)]
    pairs: usize,
    /// Timed inferences of each process
    #[arg(long, value_name = "N", default_value_t = 40)]
    iterations: usize,
    /// The program to measure [default: target/release/vitlet, built anew]
    #[arg(long, value_name = "FILE")]
    program: Option<std::path::PathBuf>,
}

/// Inferences a second.
struct Pair {
    /// Of two processes together, each on one thread.
    processes: f64,
    /// Of one process on two threads.
    threads: f64,
}

pub(crate) fn verb(project: &Project, args: &Args) -> Result<()> {
    let zoo = project.zoo()?;
    let model = zoo
        .iter()
        .find(|model| model.name == args.model)
        .with_context(|| format!("models/zoo has no {}", args.model))?;
    ensure!(args.pairs > 0, "--pairs 0: nothing to compare");
    let program = dist::chosen(project, args.program.as_deref())?;
    let bench = |threads: usize| {
        let mut command = Command::new(&program);
        command.args(["bench", "--json", "--warmup", "5"]);
        command.arg("--model").arg(model.plan());
        command.args(["--threads", &threads.to_string()]);
        command.args(["--iterations", &args.iterations.to_string()]);
        command
    };
    let mut pairs = Vec::new();
    for _ in 0..args.pairs {
        let together = [
            Running::start(project, bench(1))?,
            Running::start(project, bench(1))?,
        ];
        let finish = |running: Running| bench_per_s(&running.finish()?);
        let processes = together.into_iter().map(finish).sum::<Result<f64>>()?;
        let threads = finish(Running::start(project, bench(2))?)?;
        println!("{processes:8.1} {threads:8.1} {:6.2}", threads / processes);
        pairs.push(Pair { processes, threads });
    }
    let machine = Machine::this(project)?.now(project)?;
    print!("{}", report(&args.model, &pairs, &machine));
    Ok(())
}

fn report(model: &str, pairs: &[Pair], machine: &str) -> String {
    let of = |figure: fn(&Pair) -> f64| median(pairs.iter().map(figure));
    let ratios = pairs.iter().map(|pair| pair.threads / pair.processes);
    format!(
        "{model}, inferences a second by the median time, medians of {} pairs\n\
         {machine}\n\
         two processes of one thread  {:.1}\n\
         one process of two threads   {:.1}\n\
         ratio, pair by pair          {}\n",
        pairs.len(),
        of(|pair| pair.processes),
        of(|pair| pair.threads),
        Spread::of(ratios),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ratios_are_taken_pair_by_pair() {
        let pairs = [(100.0, 90.0), (10.0, 9.5), (50.0, 40.0)];
        let pairs = pairs.map(|(processes, threads)| Pair { processes, threads });
        let report = report("tiny", &pairs, "a machine");
        assert!(report.contains("two processes of one thread  50.0\n"));
        assert!(report.contains("one process of two threads   40.0\n"));
        assert!(report.contains("median 0.90, quartiles 0.80 to 0.95, all 0.80 to 0.95\n"));
    }
}
