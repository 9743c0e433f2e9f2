//! `cargo xtask page-test`: the preview's page, served by `vitlet camera` and used in a browser as people use it.
//!
//! | module | does |
//! |---|---|
//! | `program` | runs `vitlet camera` |
//! | `browser` | runs Chromium, and speaks its protocol |
//! | `page` | looks at a page, and uses its mouse and keys |
//! | `scenarios` | what is tried, and what must come of it |
//!
//! `in_page.js` has what the scenarios ask inside of the page, `scripted.js` stands in for the program's events where they are to be
//! ones that the program seldom sends.

use std::env;
use std::path::PathBuf;
use std::process::Child;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};

use crate::dist;
use crate::project::Project;
use crate::scenario::{self, Results};

mod browser;
mod page;
mod program;
mod scenarios;

use browser::Browser;
use program::Program;
use scenarios::Scenario;

/// How long anything is waited for. It is a limit, and no figure: on a busy machine a second may take ten.
const PATIENCE: Duration = Duration::from_secs(60);
/// Only this machine can connect.
const OWN: &str = "127.0.0.1:0";
const PROGRAM: &str = "VITLET_PROGRAM";

/// Open the page of `vitlet camera` in Chromium, and use it as people do.
#[derive(Debug, Default, clap::Args)]
#[command(after_help = "\
Examples:
  cargo xtask page-test
  cargo xtask page-test snapshot theme --screenshots pages

With --json, per scenario: {\"scenario\",\"ok\",\"seconds\"}, and where it failed \"error\".
The environment variable VITLET_PROGRAM names a program to test instead of target/release/vitlet, which is built anew.")]
pub(crate) struct Args {
    /// Only these; see xtask/src/page_test/scenarios.rs
    #[arg(value_name = "SCENARIO")]
    only: Vec<String>,
    /// One JSON object a scenario on standard output
    #[arg(long)]
    json: bool,
    /// Where pictures of the page are left for people to look at [default: target/page-test]
    #[arg(long, value_name = "DIR")]
    screenshots: Option<PathBuf>,
}

pub(crate) fn verb(project: &Project, args: &Args) -> Result<()> {
    let chosen = scenario::chosen(scenarios::ALL, |scenario| scenario.name, &args.only)?;
    let folder = match &args.screenshots {
        Some(folder) => env::current_dir()?.join(folder),
        None => project.target.join("page-test"),
    };
    let folder = project.sh.create_dir(folder)?;
    let path = match env::var_os(PROGRAM) {
        Some(path) => env::current_dir()?.join(path),
        None => dist::native(project)?,
    };
    let mut stage = Stage {
        browser: Browser::start(project)?,
        program: Program::start(&path, OWN)?,
        project,
        path,
        folder,
    };
    let mut results = Results::new(args.json);
    for scenario in &chosen {
        let start = Instant::now();
        let done = stage.play(scenario);
        results.add(scenario.name, start, &done);
    }
    let shown = project.shown(&stage.folder).display();
    if !args.json {
        println!("pictures of the page: {shown}");
    }
    results.check(shown)
}

/// The program and the browser.
struct Stage<'a> {
    project: &'a Project,
    browser: Browser,
    program: Program,
    /// The program's file.
    path: PathBuf,
    /// For pictures of the page.
    folder: PathBuf,
}

impl Stage<'_> {
    /// Plays a scenario, and has a look at what else the page did meanwhile.
    fn play(&mut self, scenario: &Scenario) -> Result<()> {
        // A scenario that failed may have left none.
        if self.program.has_ended()? {
            self.start(OWN)?;
        }
        let played = (scenario.play)(self);
        if played.is_err() {
            // What a person wants to see first. That there may be no page is no error of its own.
            let _ = self.picture(&format!("failed-{}", scenario.name));
        }
        let heard = self.browser.close();
        played?;
        let heard = heard?;
        for problem in &heard.problems {
            let expected = scenario.loads_fail && problem.is_failed_load;
            ensure!(expected, "the browser's console says: {}", problem.text);
        }
        let own = format!("http://127.0.0.1:{}/", self.program.port);
        let inside = ["data:", "blob:", "about:", own.as_str()];
        for request in &heard.requests {
            let known = inside.iter().any(|start| request.starts_with(start));
            ensure!(known, "the page asked for {request}, which is not its own");
        }
        Ok(())
    }

    /// Opens the page anew, with nothing remembered, and waits until it is live.
    fn open(&mut self) -> Result<()> {
        self.browser.open(&self.program.address(), &[])?;
        self.browser.wait_for_state("live")?;
        self.browser.wait_for(
            "a picture in the page",
            "inPage.pixels('picture') !== '' && !inPage.shows('frozen')",
        )
    }

    /// Starts another program, which the page finds at the address of the last one.
    fn restart(&mut self, host: &str) -> Result<()> {
        let address = format!("{host}:{}", self.program.port);
        self.program = Program::start(&self.path, &address)?;
        Ok(())
    }

    /// Starts another program at an address of its own.
    fn start(&mut self, address: &str) -> Result<()> {
        self.program = Program::start(&self.path, address)?;
        Ok(())
    }

    /// Takes a picture of the page.
    fn picture(&mut self, name: &str) -> Result<()> {
        let file = self.folder.join(format!("{name}.png"));
        let png = self.browser.picture(self.project)?;
        std::fs::write(&file, png).with_context(|| file.display().to_string())
    }
}

/// A child that ends with its owner, whatever happens.
struct Process(Child);

impl Drop for Process {
    fn drop(&mut self) {
        // It may have ended by itself, and then there is nothing to do.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}
