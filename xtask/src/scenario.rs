//! Named scenarios: chosen on a command line, told of one by one.

use std::time::Instant;

use anyhow::{Result, bail, ensure};
use serde_json::json;

/// Those of `all` that are named, in their own order; all of them if none is.
pub(crate) fn chosen<S: Clone>(all: &[S], name: fn(&S) -> &str, only: &[String]) -> Result<Vec<S>> {
    for wanted in only {
        if !all.iter().any(|scenario| name(scenario) == wanted) {
            let names: Vec<&str> = all.iter().map(name).collect();
            bail!("no scenario '{wanted}'; there are {}", names.join(", "));
        }
    }
    let chosen = all
        .iter()
        .filter(|scenario| only.is_empty() || only.iter().any(|wanted| wanted == name(scenario)));
    Ok(chosen.cloned().collect())
}

/// What came of scenarios.
pub(crate) struct Results {
    json: bool,
    count: usize,
    failed: Vec<String>,
}

impl Results {
    /// They are told of as JSON objects, or as lines.
    pub(crate) const fn new(json: bool) -> Self {
        Self {
            json,
            count: 0,
            failed: Vec::new(),
        }
    }

    /// Tells what came of one that began at `start`.
    pub(crate) fn add(&mut self, name: &str, start: Instant, done: &Result<()>) {
        let seconds = start.elapsed().as_secs_f64();
        self.count += 1;
        if done.is_err() {
            self.failed.push(name.to_owned());
        }
        if self.json {
            let mut record = json!({"scenario": name, "ok": done.is_ok(), "seconds": seconds});
            if let Err(error) = done {
                record["error"] = format!("{error:#}").into();
            }
            println!("{record}");
            return;
        }
        match done {
            Ok(()) => println!("ok {name} ({seconds:.1} s)"),
            Err(error) => println!("FAILED {name} ({seconds:.1} s): {error:#}"),
        }
    }

    /// An error if any failed; `see` says where to look.
    pub(crate) fn check(&self, see: impl std::fmt::Display) -> Result<()> {
        let Self { failed, count, .. } = self;
        ensure!(
            failed.is_empty(),
            "{} of {count} scenarios failed: {}; see {see}",
            failed.len(),
            failed.join(", ")
        );
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scenarios_are_chosen_by_name_and_counted() -> Result<()> {
        let all = ["list", "photos", "unplug"];
        let names = |only: &[&str]| {
            let only: Vec<String> = only.iter().map(|&name| name.to_owned()).collect();
            chosen(&all, |name| name, &only)
        };
        assert_eq!(names(&["unplug", "list"])?, ["list", "unplug"]);
        assert_eq!(names(&[])?, all);
        let unknown = names(&["unplugged"]).err().map(|error| error.to_string());
        assert!(unknown.is_some_and(|error| error.contains("list, photos, unplug")));
        let mut results = Results::new(true);
        results.add("list", Instant::now(), &Ok(()));
        results.check("there")?;
        results.add("photos", Instant::now(), &Err(anyhow::anyhow!("no")));
        assert!(results.check("there").is_err());
        Ok(())
    }
}
