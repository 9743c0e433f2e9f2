//! The command line: verbs, and the options that several of them share.

use std::path::PathBuf;

use clap::builder::RangedU64ValueParser;
use clap::{Args, Parser, Subcommand};
use vitlet::{Cores, Kernel, MAX_THREADS, Model, Options, Plan, Session};

use crate::failure::{self, OrInvalid as _};
use crate::{accuracy, bench, builtin, camera, classify, inspect, profile, run};

const EXAMPLES: &str = "\
Examples:
  What is on the photo? (The plan inside the program is used.)
    vitlet classify photo.jpg
  Every photo of a folder, one JSON object each
    vitlet classify -m model.vitlet --json photos/
  What does the camera see? Look at it in a browser, too
    vitlet camera /dev/video0 --preview
  From ONNX to a plan; calib/ has one folder of photos per class
    vitlet compile model.onnx -o model.vitlet --calib calib/
  What did int8 cost?
    vitlet accuracy -m model.vitlet --data val/ --reference model.onnx
  Where, layer by layer?
    vitlet compare model.onnx model.vitlet --inputs val/ --limit 5 --layers
  How fast is it here?
    vitlet bench -m model.vitlet --threads 2
  And on the two big cores of a board that has four little ones?
    vitlet bench -m model.vitlet --threads 2 --cores big
  Where does the time go?
    vitlet profile -m model.vitlet

VITLET_KERNEL=scalar|neon|neon-dotprod|neon-i8mm|avx2|avx-vnni|avx512-vnni forces a kernel;
`vitlet cpu` shows which ones this CPU has.

Exit status: 0 done; 1 the work, or a part of it, failed;
2 the command line, or a file it names, cannot be used.";

/// Runs vision transformers as int8 plans: the same bytes on every CPU.
#[derive(Debug, Parser)]
#[command(
    name = "vitlet",
    version,
    after_help = EXAMPLES,
    subcommand_value_name = "VERB",
    subcommand_help_heading = "Verbs"
)]
pub(crate) struct Cli {
    /// Print JSON: one object a line
    #[arg(long, global = true)]
    pub(crate) json: bool,
    #[command(subcommand)]
    pub(crate) verb: Verb,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Verb {
    /// Compile an ONNX model to a plan
    #[cfg(feature = "compiler")]
    Compile(crate::compile::Args),
    /// Not in this program
    #[cfg(not(feature = "compiler"))]
    #[command(hide = true, disable_help_flag = true)]
    Compile {
        /// Whatever it would have been
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        _arguments: Vec<std::ffi::OsString>,
    },
    /// Say what photos show
    Classify(classify::Args),
    /// Say what a camera sees, with a preview page
    Camera(Box<camera::Args>),
    /// Run the network on an array or a photo and write the logits
    Run(run::Args),
    /// Show what is in a plan or in an ONNX model
    Inspect(inspect::Args),
    /// Measure accuracy on a folder of labelled photos
    Accuracy(accuracy::Args),
    /// Compare a plan with the f32 model it was made from
    #[cfg(feature = "compiler")]
    Compare(crate::compare::Args),
    /// Not in this program
    #[cfg(not(feature = "compiler"))]
    #[command(hide = true, disable_help_flag = true)]
    Compare {
        /// Whatever it would have been
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        _arguments: Vec<std::ffi::OsString>,
    },
    /// Measure the time of an inference
    Bench(bench::Args),
    /// Show where the time of an inference goes, op by op
    Profile(profile::Args),
    /// Show which kernels this CPU has, and which one is used
    Cpu,
}

/// Which plan.
#[derive(Debug, Args)]
pub(crate) struct ModelArgs {
    /// The plan; without it the one inside the program is used
    #[arg(short = 'm', long = "model", value_name = "PLAN")]
    path: Option<PathBuf>,
}

impl ModelArgs {
    pub(crate) fn load(&self) -> anyhow::Result<Model> {
        load(self.path.as_deref())
    }
}

/// The plan in a file, or the built-in one.
pub(crate) fn load(path: Option<&std::path::Path>) -> anyhow::Result<Model> {
    match path {
        Some(path) => Model::open(path).or_invalid(),
        None => builtin::model(),
    }
}

/// What to run on.
#[derive(Debug, Args)]
pub(crate) struct CpuArgs {
    /// Force a kernel: scalar, neon, neon-dotprod, neon-i8mm, avx2, avx-vnni or avx512-vnni [default: VITLET_KERNEL, or the fastest this CPU has]
    #[arg(long, value_name = "KERNEL", value_parser = parse_kernel)]
    kernel: Option<Kernel>,
    /// Run on these cores only, as taskset does: numbers (0-3 or 0,2), or the big or the little ones of big.LITTLE [default: any]
    #[arg(long, value_name = "big|little|LIST")]
    cores: Option<Cores>,
}

impl CpuArgs {
    pub(crate) fn options(&self, threads: usize) -> Options {
        Options {
            kernel: self.kernel,
            threads,
            cores: self.cores,
        }
    }

    /// A session, with a word on cores that are not what was asked for.
    pub(crate) fn session<'m>(
        &self,
        plan: &Plan<'m>,
        threads: usize,
    ) -> anyhow::Result<Session<'m>> {
        let session = Session::new(plan, &self.options(threads)).or_invalid()?;
        if let Some(cores) = session.cores().filter(|cores| cores.all_alike) {
            failure::warn(format_args!("--cores big: {cores}"));
        }
        Ok(session)
    }
}

/// How to run one inference at a time.
#[derive(Debug, Args)]
pub(crate) struct SessionArgs {
    #[command(flatten)]
    cpu: CpuArgs,
    /// Threads that one inference is split over; not more than there are cores
    #[arg(long, value_name = "N", default_value = "1", value_parser = threads())]
    threads: usize,
}

impl SessionArgs {
    pub(crate) fn session<'m>(&self, plan: &Plan<'m>) -> anyhow::Result<Session<'m>> {
        self.cpu.session(plan, self.threads)
    }
}

fn parse_kernel(name: &str) -> Result<Kernel, String> {
    Kernel::from_name(name).map_err(|error| error.to_string())
}

fn threads() -> RangedU64ValueParser<usize> {
    RangedU64ValueParser::new().range(1..=MAX_THREADS as u64)
}

/// A count of at least one.
pub(crate) fn at_least_one() -> RangedU64ValueParser<usize> {
    RangedU64ValueParser::new().range(1..=1_000_000_000)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        use clap::CommandFactory as _;
        Cli::command().debug_assert();
    }
}
