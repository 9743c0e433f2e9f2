//! What the program sends is what the page shows.

use anyhow::{Context as _, Result, ensure};
use serde::Deserialize;
use serde_json::Value;

use crate::page_test::Stage;

/// The page is live, with a picture.
pub(super) fn live(stage: &mut Stage<'_>) -> Result<()> {
    stage.open()?;
    stage.picture("live")
}

/// The picture moves.
pub(super) fn picture(stage: &mut Stage<'_>) -> Result<()> {
    stage.open()?;
    moves(stage)
}

/// Two read-outs of the picture differ, neither is empty, and nothing covers it.
pub(super) fn moves(stage: &mut Stage<'_>) -> Result<()> {
    let browser = &mut stage.browser;
    browser.wait_for("a picture", "inPage.before = inPage.pixels('picture')")?;
    browser.wait_for(
        "the picture to move",
        "!['', inPage.before].includes(inPage.pixels('picture'))",
    )?;
    let covered: bool = browser.ask("inPage.shows('frozen') || !inPage.shows('picture')")?;
    ensure!(!covered, "the picture moves, and something is before it");
    Ok(())
}

/// The bars and the program's answer, of the same frame.
#[derive(Deserialize)]
struct SameFrame {
    frame: u64,
    top: Vec<Top>,
    rows: Vec<Row>,
}

#[derive(Deserialize)]
struct Top {
    class: u64,
    label: Option<String>,
    score: f64,
}

#[derive(Deserialize)]
struct Row {
    class: u64,
    label: String,
    score: String,
    now: f64,
    name: String,
}

/// The bars are the first classes of `status.json`, with their names and scores; the most likely is on top.
pub(super) fn bars(stage: &mut Stage<'_>) -> Result<()> {
    stage.open()?;
    let pairs: Vec<SameFrame> = stage.browser.ask("inPage.sameFrames(5)")?;
    ensure!(
        pairs.len() == 5,
        "within half a minute, the page showed {} of the frames that status.json told of, not 5",
        pairs.len()
    );
    for pair in &pairs {
        agree(pair).with_context(|| format!("frame {}", pair.frame))?;
    }
    // In motion, bars change places once a second.
    stage.browser.click("pause")?;
    stage.browser.wait_for_state("paused")?;
    let rows: Vec<Row> = stage.browser.ask("inPage.rows()")?;
    // Those that differ by less than half a percent stay where they are.
    let in_order = rows.is_sorted_by(|above, below| below.now <= above.now + 0.6);
    let shown: Vec<&str> = rows.iter().map(|row| row.score.as_str()).collect();
    ensure!(in_order, "paused, the bars are not in order: {shown:?}");
    Ok(())
}

fn agree(SameFrame { top, rows, .. }: &SameFrame) -> Result<()> {
    ensure!(!top.is_empty(), "status.json has no classes");
    ensure!(
        top.len() == rows.len(),
        "{} bars of {} classes",
        rows.len(),
        top.len()
    );
    for row in rows {
        let of = top.iter().find(|top| top.class == row.class);
        let of = of.with_context(|| format!("no class {} in status.json", row.class))?;
        let label = of
            .label
            .clone()
            .unwrap_or_else(|| format!("class {}", of.class));
        let percent = 100.0 * of.score;
        let shown = (row.label.as_str(), row.name.as_str());
        ensure!(shown == (&label, &label), "{label} is called {shown:?}");
        let number = row.score.trim_end_matches("\u{a0}%").parse::<f64>()?;
        for number in [number, row.now] {
            ensure!(
                (number - percent).abs() < 0.06,
                "{label}: {number} for {percent} %"
            );
        }
    }
    let first = (top.first(), rows.first());
    let same = matches!(first, (Some(top), Some(row)) if top.class == row.class);
    ensure!(same, "the first bar is not of the most likely class");
    Ok(())
}

/// Times, rates and counts with their units; what runs as `status.json` has it.
pub(super) fn numbers(stage: &mut Stage<'_>) -> Result<()> {
    const UNITS: [(&str, &str); 8] = [
        ("capture", "ms"),
        ("preprocess", "ms"),
        ("inference", "ms"),
        ("end-to-end", "ms"),
        ("age", "ms"),
        ("camera-rate", "/s"),
        ("classified-rate", "/s"),
        ("dropped", "frame"),
    ];
    stage.open()?;
    let browser = &mut stage.browser;
    browser.wait_for("a rate", "parseFloat(inPage.text('classified-rate')) > 0")?;
    for (id, unit) in UNITS {
        let text: String = browser.ask(&format!("inPage.text('{id}')"))?;
        let (number, shown) = text.split_once('\u{a0}').unwrap_or_default();
        let is_number = number.parse::<f64>().is_ok_and(|number| number >= 0.0);
        let is_unit = shown.trim_end_matches('s') == unit.trim_end_matches('s');
        ensure!(is_number && is_unit, "{id} is '{text}', without {unit}");
    }
    let status: Value = browser.ask("inPage.status()")?;
    let hello = &status["hello"];
    for id in ["model", "kernel", "source", "format", "version"] {
        let text: Value = browser.ask(&format!("inPage.text('{id}')"))?;
        ensure!(
            text == hello[id],
            "{id} is {text}, in status.json {}",
            hello[id]
        );
    }
    for (id, word) in [("threads", "thread"), ("classes", "")] {
        let text: String = browser.ask(&format!("inPage.text('{id}')"))?;
        let wanted = hello[id].to_string();
        ensure!(
            text.starts_with(&wanted) && text.contains(word),
            "{id} is '{text}', in status.json {wanted}"
        );
    }
    for (id, field) in [("temperature", "temperature_c"), ("clock", "clock_mhz")] {
        let shown: bool = browser.ask(&format!("inPage.shows('{id}')"))?;
        let known = !status["result"][field].is_null();
        ensure!(
            shown == known,
            "{id} is shown: {shown}; status.json has it: {known}"
        );
    }
    Ok(())
}

/// The line gets longer; its scale is in ms, and it says in words what it shows.
pub(super) fn latency(stage: &mut Stage<'_>) -> Result<()> {
    stage.open()?;
    let browser = &mut stage.browser;
    browser.evaluate("inPage.before = inPage.points()")?;
    browser.wait_for("a longer line", "inPage.points() > inPage.before + 5")?;
    let scale: String = browser.ask("inPage.text('scale-top')")?;
    let high = scale.strip_suffix("\u{a0}ms").map(str::parse::<f64>);
    ensure!(
        matches!(high, Some(Ok(high)) if high > 0.0),
        "the scale ends at '{scale}'"
    );
    let lowest: f64 = browser
        .ask("Math.min(...[...document.getElementById('latency-line').points].map(({y}) => y))")?;
    ensure!(
        (0.0..0.65).contains(&lowest),
        "the line's highest point is at {lowest} of the chart's height"
    );
    let text: String = browser.ask("inPage.attribute('latency', 'aria-label')")?;
    ensure!(
        text.contains("median") && text.contains("ms"),
        "a screen reader is told '{text}'"
    );
    Ok(())
}

/// However long the page is open, the line has 120 points and the document no more elements.
pub(super) fn bounded(stage: &mut Stage<'_>) -> Result<()> {
    stage.open()?;
    let browser = &mut stage.browser;
    let elements = "document.querySelectorAll('*').length";
    browser.wait_for("a full line", "inPage.points() >= 120")?;
    let before: usize = browser.ask(elements)?;
    browser.evaluate("inPage.before = inPage.text('bars') + inPage.readOut()")?;
    browser.evaluate("inPage.sleep(2000)")?;
    let points: usize = browser.ask("inPage.points()")?;
    ensure!(
        points == 120,
        "two seconds after the 120th point the line has {points}"
    );
    let changed: bool = browser.ask("inPage.before !== inPage.text('bars') + inPage.readOut()")?;
    ensure!(
        changed,
        "the page stands still, so this says nothing of what it keeps"
    );
    let after: usize = browser.ask(elements)?;
    ensure!(after <= before, "{before} elements have become {after}");
    stage.picture("1440-light")
}
