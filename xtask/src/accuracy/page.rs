//! `docs/accuracy.md`.

use std::fmt::Write as _;

use anyhow::{Context as _, Result};

use super::{CHECKED_IN, DEFAULT, Figures, METHODS, MIXED, Row, UNCORRECTED, UNFOLDED};

/// A model's name and what is known of it.
type Known<'k> = (&'k str, Figures);

impl Row {
    fn percent(&self, photos: usize) -> f64 {
        100.0 * photos as f64 / self.photos as f64
    }

    /// Photos that only f32 has right, less those that only the plan has right.
    fn photos_lost(&self) -> i64 {
        self.hits_f32 as i64 - self.hits as i64
    }

    fn points_lost(&self) -> f64 {
        100.0 * self.photos_lost() as f64 / self.photos as f64
    }

    fn agreement(&self) -> f64 {
        self.percent(self.agreeing)
    }

    /// No ratio means that no logit differs.
    fn sqnr_db(&self) -> f64 {
        self.sqnr_db.unwrap_or(f64::INFINITY)
    }
}

impl Figures {
    /// By what the row is called.
    fn row(&self, name: &str) -> Result<&Row> {
        let mut names = names();
        let place = names.position(|other| other == name);
        let row = place.and_then(|place| self.rows.get(place));
        row.with_context(|| format!("no row {name}"))
    }
}

/// The rows' names, in their order.
fn names() -> impl Iterator<Item = &'static str> {
    METHODS.iter().map(|method| method.name).chain([CHECKED_IN])
}

/// `photos` is set if not all were looked at.
pub(super) fn page(known: &[Known<'_>], photos: Option<u32>) -> Result<String> {
    let mut page = introduction(photos);
    page.push_str(&summary(known)?);
    for (name, figures) in known {
        page.push_str(&model(name, figures)?);
    }
    page.push_str(&methods()?);
    page.push_str(&lessons(known)?);
    page.push_str(&others());
    page.push_str(&reproduce(known, photos)?);
    Ok(page)
}

fn introduction(photos: Option<u32>) -> String {
    let which = photos.map_or_else(
        || "**all** validation photos".to_owned(),
        |photos| format!("**only {photos}** of the validation photos (a quick look)"),
    );
    format!(
        "\
# Accuracy

Written by `cargo xtask accuracy`; do not edit.

What 8 bits cost, and what the methods of calibration are worth: every model of `models/zoo` in f32 (by tract) and as plans of
`vitlet compile`, on the same pixels of {which}.
Plans are calibrated on 64 training photos, spread evenly over the classes.

* *lost*: points of top-1 below f32's, in brackets photos: those that only f32 has right, less those that only int8 has right. Below 0,
  int8 happens to be right more often.
* *agreement*: how often both name the same class.
* *SQNR*: how near the logits are, 10·log10(Σ f32² ÷ Σ (int8 − f32)²) over all photos.

The same plan gives the same bytes on every CPU, so these figures are those of the boards, too (`tests/tests/bit_exact.rs`: hashes of 200
photos on cortex-a53 and cortex-a76).
"
    )
}

/// The default beside naive calibration.
fn summary(known: &[Known<'_>]) -> Result<String> {
    let mut table = String::from(
        "\n## In short\n\nint8 is the plan that is checked in.\n\n\
         | model | photos | f32 top-1 | int8 lost | agreement | SQNR (dB) | naive: lost | agreement | SQNR (dB) |\n\
         |---|---:|---:|---:|---:|---:|---:|---:|---:|\n",
    );
    for (name, figures) in known {
        let row = figures.row(CHECKED_IN)?;
        let f32 = row.percent(row.hits_f32);
        write!(table, "| {name} | {} | {f32:.2} % |", row.photos)?;
        let naive = figures.row(METHODS[0].name)?;
        writeln!(table, "{}{}", cells(row, "**"), cells(naive, ""))?;
    }
    Ok(table)
}

/// Lost, agreement and SQNR.
fn cells(row: &Row, mark: &str) -> String {
    let sqnr = row
        .sqnr_db
        .map_or_else(|| "–".to_owned(), |db| format!("{db:.1}"));
    format!(
        " {mark}{:.2}{mark} ({}) | {mark}{:.2} %{mark} | {mark}{sqnr}{mark} |",
        row.points_lost(),
        row.photos_lost(),
        row.agreement()
    )
}

/// A model's table.
fn model(name: &str, figures: &Figures) -> Result<String> {
    let judged = figures.row(CHECKED_IN)?;
    let all = figures.set.photos;
    let mut text = format!(
        "\n## {name}\n\n{} of {all} validation photos. ",
        judged.photos
    );
    let what = if judged.photos == all {
        "the checked-in plan"
    } else {
        "on this sample, which may lose somewhat more, the checked-in plan"
    };
    let within = judged.fault.as_ref().map_or_else(
        || "within them".to_owned(),
        |fault| format!("**not within them: {fault}**"),
    );
    let bounds = &figures.set.bounds;
    writeln!(text, "Bounds: {bounds}; {what} is {within}.\n")?;
    text.push_str(
        "| calibration | top-1 | lost | agreement | SQNR (dB) |\n|---|---:|---:|---:|---:|\n",
    );
    writeln!(
        text,
        "| f32 | {:.2} % | | | |",
        judged.percent(judged.hits_f32)
    )?;
    for (name, row) in names().zip(&figures.rows) {
        let mark = if name == DEFAULT { "**" } else { "" };
        let top1 = row.percent(row.hits);
        writeln!(
            text,
            "| {mark}{name}{mark} | {top1:.2} % |{}",
            cells(row, "")
        )?;
    }
    Ok(text)
}

fn methods() -> Result<String> {
    let mut text = String::from(
        "\n## The methods\n\n| row | `vitlet compile` | the 8-bit range of an activation |\n|---|---|---|\n",
    );
    for method in &METHODS {
        let options = match method.options {
            "" => String::new(),
            options => format!("`{options}`"),
        };
        writeln!(text, "| {} | {options} | {} |", method.name, method.says)?;
    }
    writeln!(
        text,
        "| {CHECKED_IN} | `--ranges ranges.json` | those that lie in the zoo beside the model, of the compiler and machine they were measured \
         with: the plan that ships, and that the tests hold to the bounds |"
    )?;
    Ok(text)
}

/// What the tables say, in words. Everything here is computed: it stays true when the tables change.
fn lessons(known: &[Known<'_>]) -> Result<String> {
    let naive = METHODS[0].name;
    let gains = |better, worse| -> Result<Vec<f64>> {
        let gain = |(_, figures): &Known<'_>| {
            Ok(figures.row(better)?.sqnr_db() - figures.row(worse)?.sqnr_db())
        };
        known.iter().map(gain).collect()
    };
    let of = |name, figure: fn(&Row) -> f64| -> Result<Vec<f64>> {
        let one = |(_, figures): &Known<'_>| Ok(figure(figures.row(name)?));
        known.iter().map(one).collect()
    };
    let mut text = String::from("\n## What is learned\n\n");
    writeln!(
        text,
        "* The default brings {} dB of SQNR over naive calibration. It loses {} points of top-1, naive {}; it agrees with f32 on \
         {} % of the photos, naive on {} %.",
        range(&gains(DEFAULT, naive)?, 1),
        range(&of(DEFAULT, Row::points_lost)?, 2),
        range(&of(naive, Row::points_lost)?, 2),
        range(&of(DEFAULT, Row::agreement)?, 2),
        range(&of(naive, Row::agreement)?, 2)
    )?;
    writeln!(
        text,
        "* Of that, correcting biases is {} dB, and scales for the channels of layer norms {} dB. 16 bits where they gain most, for a tenth \
         more work, add {} dB.",
        range(&gains(DEFAULT, UNCORRECTED)?, 1),
        range(&gains(DEFAULT, UNFOLDED)?, 1),
        range(&gains(MIXED, DEFAULT)?, 1)
    )?;
    let best = METHODS
        .iter()
        .map(|method| Ok((method.name, wins(known, method.name)?)));
    let best = best.collect::<Result<Vec<_>>>()?.into_iter();
    let best = best.filter(|(_, wins)| *wins > 0);
    let best: Vec<String> = best.map(|(name, wins)| format!("{name} {wins}")).collect();
    writeln!(
        text,
        "* Models on which a method has the highest SQNR: {}. The default is at most {:.1} dB below it.",
        best.join(", "),
        worst_gap(known)?
    )?;
    text.push_str(
        "* Compare methods by SQNR. Top-1 is a count of few photos that flip, in both directions: where two methods are near each other, \
         which one loses fewer is chance. Agreement counts the flips; SQNR sees every logit of every photo.\n",
    );
    Ok(text)
}

/// The smallest and the largest, or the one number that both are.
fn range(values: &[f64], digits: usize) -> String {
    let low = values.iter().copied().fold(f64::INFINITY, f64::min);
    let high = values.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    let [low, high] = [low, high].map(|value| format!("{value:.digits$}"));
    if low == high {
        low
    } else {
        format!("{low} to {high}")
    }
}

/// The highest SQNR that a method has on a model, for no more work.
fn highest(figures: &Figures) -> f64 {
    let rows = METHODS.iter().zip(&figures.rows);
    let equals = rows.filter(|(method, _)| method.name != MIXED);
    let numbers = equals.map(|(_, row)| row.sqnr_db());
    numbers.fold(f64::NEG_INFINITY, f64::max)
}

/// On how many models a method has the highest SQNR; more work is no method.
fn wins(known: &[Known<'_>], name: &str) -> Result<usize> {
    let mut wins = 0;
    if name == MIXED {
        return Ok(wins);
    }
    for (_, figures) in known {
        wins += usize::from(figures.row(name)?.sqnr_db() >= highest(figures));
    }
    Ok(wins)
}

/// How far the default is from the best, where it is farthest.
fn worst_gap(known: &[Known<'_>]) -> Result<f64> {
    let mut worst = 0f64;
    for (_, figures) in known {
        worst = worst.max(highest(figures) - figures.row(DEFAULT)?.sqnr_db());
    }
    Ok(worst)
}

fn others() -> String {
    "
## Beside ONNX Runtime

On another PVTv2-b0 for Imagenette (3,925 validation photos; a model that is not part of this repository), ONNX Runtime 1.31.1 has 78.52 % in f32 and
78.47 % by its own `quantize_static` (QDQ, weights per channel, u8 activations, 32 calibration photos): 0.05 points lost, agreement
99.13 %, SQNR 30.6 dB.
"
    .to_owned()
}

fn reproduce(known: &[Known<'_>], photos: Option<u32>) -> Result<String> {
    let photos = photos.map_or_else(String::new, |photos| format!(" --photos {photos}"));
    let mut text = format!(
        "
## How to reproduce

```
cargo xtask accuracy{photos}
```

wants the photos in `../shared/data` or in `$VITLET_DATA/data`: `imagenette224` and `trashnet256`, each with `train` and `val`.
`cargo xtask test --full` holds the checked-in plans to the bounds. For one model, with a table per class:
`vitlet accuracy -m model.vitlet --data val --reference model.onnx`.

"
    );
    for (name, figures) in known {
        let machine = &figures.machine;
        writeln!(
            text,
            "* {name}: {}, vitlet at {}, {} CPUs of {}, {}.",
            figures.date, figures.commit, machine.cpus, machine.cpu, machine.rustc
        )?;
    }
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::super::Set;
    use super::*;
    use crate::machine::Machine;

    fn row(lost: usize, sqnr_db: f64) -> Row {
        Row {
            photos: 200,
            hits: 150 - lost,
            hits_f32: 150,
            agreeing: 200 - 2 * lost,
            sqnr_db: Some(sqnr_db),
            fault: None,
        }
    }

    /// Better from row to row, up to the default's, and 16 bits; the checked-in plan is not as good.
    fn figures() -> Figures {
        let mut rows: Vec<Row> = (0..7).map(|i| row(7 - i, 20.0 + i as f64)).collect();
        rows.push(row(0, 30.0));
        rows.push(row(0, 32.0));
        rows.push(row(1, 29.5));
        Figures {
            key: String::new(),
            date: "2026-01-01".to_owned(),
            commit: "abc".to_owned(),
            machine: Machine {
                cpu: "a CPU".to_owned(),
                features: vec![],
                cpus: 2,
                rustc: "rustc 1".to_owned(),
            },
            set: Set {
                photos: 503,
                bounds: "at most 3 photos lost".to_owned(),
            },
            rows,
        }
    }

    #[test]
    fn a_model_has_a_row_for_each_method() -> Result<()> {
        let known = [("a_trashnet", figures())];
        let page = page(&known, Some(200))?;
        for part in [
            "**only 200** of the validation photos",
            "| a_trashnet | 200 | 75.00 % | **0.50** (1) | **99.00 %** | **29.5** | 3.50 (7) | 93.00 % | 20.0 |",
            "200 of 503 validation photos. ",
            "| f32 | 75.00 % | | | |",
            "| naive | 71.50 % | 3.50 (7) | 93.00 % | 20.0 |",
            "| **mse (default)** | 75.00 % | 0.00 (0) | 100.00 % | 30.0 |",
            "| checked in | 74.50 % | 0.50 (1) | 99.00 % | 29.5 |",
            "brings 10.0 dB of SQNR over naive",
            "correcting biases is 5.0 dB, and scales for the channels of layer norms 4.0 dB",
            "for a tenth more work, add 2.0 dB",
            "highest SQNR: mse (default) 1. The default is at most 0.0 dB below it.",
            "cargo xtask accuracy --photos 200\n",
            "* a_trashnet: 2026-01-01, vitlet at abc, 2 CPUs of a CPU, rustc 1.",
        ] {
            assert!(page.contains(part), "no '{part}' in {page}");
        }
        for table in page.split("\n\n").filter(|part| part.starts_with('|')) {
            let columns = |line: &str| line.matches('|').count();
            let lines: Vec<&str> = table.lines().collect();
            assert!(
                lines.iter().all(|line| columns(line) == columns(lines[0])),
                "{table}"
            );
        }
        Ok(())
    }

    #[test]
    fn all_photos_and_faults_are_said() -> Result<()> {
        let mut bad = figures();
        bad.rows[9].fault = Some("too low".to_owned());
        bad.rows[2].sqnr_db = Some(31.25);
        let page = page(&[("a", figures()), ("b", bad)], None)?;
        for part in [
            "of **all** validation photos",
            "the checked-in plan is within them.",
            "**not within them: too low**",
            "highest SQNR: percentile 1, mse (default) 1. The default is at most 1.2 dB below it.",
            "cargo xtask accuracy\n",
        ] {
            assert!(page.contains(part), "no '{part}' in {page}");
        }
        Ok(())
    }

    #[test]
    fn ranges_of_one_number_are_that_number() {
        assert_eq!(range(&[1.0, 1.04], 1), "1.0");
        assert_eq!(range(&[2.0, -1.0, 0.5], 1), "-1.0 to 2.0");
    }
}
