//! What the page looks like, and what screen readers make of it.

use anyhow::{Context as _, Result, ensure};
use serde::Deserialize;
use serde_json::{Value, json};

use crate::page_test::Stage;
use crate::page_test::browser::Browser;

/// On a phone, on a tablet and on a desk, nothing sticks out.
pub(super) fn widths(stage: &mut Stage<'_>) -> Result<()> {
    stage.open()?;
    for (width, height, theme) in [
        (360, 800, "light"),
        (800, 600, "light"),
        (1440, 900, "dark"),
    ] {
        let browser = &mut stage.browser;
        browser.prefer(&[("prefers-color-scheme", theme)])?;
        browser.size(width, height)?;
        nothing_sticks_out(stage).with_context(|| format!("{width} pixels wide"))?;
        let picture: f64 = stage
            .browser
            .ask("document.getElementById('picture').getBoundingClientRect().width")?;
        ensure!(
            picture > 0.5 * f64::from(width),
            "{width} pixels wide, the picture has only {picture}"
        );
        stage.picture(&format!("{width}-{theme}"))?;
    }
    Ok(())
}

pub(super) fn nothing_sticks_out(stage: &mut Stage<'_>) -> Result<()> {
    let browser = &mut stage.browser;
    browser.evaluate("inPage.sleep(500)")?;
    let wider: f64 = browser.ask("inPage.tooWide()")?;
    let outside: Vec<String> = browser.ask("inPage.outside()")?;
    ensure!(
        wider <= 0.0 && outside.is_empty(),
        "the page scrolls sideways by {wider} pixels; outside are {outside:?}"
    );
    Ok(())
}

/// WCAG's AA in both themes: 4.5 : 1 for texts, 3 : 1 for bars and buttons.
pub(super) fn contrast(stage: &mut Stage<'_>) -> Result<()> {
    #[derive(Deserialize)]
    struct Faint {
        seen: usize,
        found: Vec<String>,
    }
    stage.open()?;
    for theme in ["light", "dark"] {
        stage.browser.prefer(&[("prefers-color-scheme", theme)])?;
        stage.browser.evaluate("inPage.sleep(300)")?;
        let faint: Faint = stage.browser.ask("inPage.faint()")?;
        ensure!(faint.seen > 30, "only {} things were looked at", faint.seen);
        ensure!(
            faint.found.is_empty(),
            "hard to see in the {theme} theme: {:?}",
            faint.found
        );
    }
    Ok(())
}

/// Bars move smoothly, unless the system asks for less motion.
pub(super) fn motion(stage: &mut Stage<'_>) -> Result<()> {
    stage.open()?;
    let moving = "[...document.querySelectorAll('#bars li, .fill')]
        .filter((element) => getComputedStyle(element).transitionDuration !== '0s').length";
    let all: usize = stage
        .browser
        .ask("document.querySelectorAll('#bars li, .fill').length")?;
    let before: usize = stage.browser.ask(moving)?;
    ensure!(before == all && all > 0, "{before} of {all} bars move");
    stage
        .browser
        .prefer(&[("prefers-reduced-motion", "reduce")])?;
    let after: usize = stage.browser.ask(moving)?;
    ensure!(after == 0, "asked for less motion, {after} bars move");
    Ok(())
}

/// The accessibility tree: what a screen reader has.
struct Tree(Vec<Value>);

impl Tree {
    fn read(browser: &mut Browser) -> Result<Self> {
        let mut tree = browser.call("Accessibility.getFullAXTree", &json!({}))?;
        let nodes = tree["nodes"].as_array_mut().context("no tree")?;
        Ok(Self(std::mem::take(nodes)))
    }

    fn of(&self, role: &str) -> Vec<&Value> {
        let is = |node: &&Value| node["role"]["value"] == role && node["ignored"] != true;
        self.0.iter().filter(is).collect()
    }

    fn names(&self, role: &str) -> Vec<&str> {
        let nodes = self.of(role).into_iter();
        nodes
            .filter_map(|node| node["name"]["value"].as_str())
            .collect()
    }
}

/// Landmarks, headings, named buttons, meters with values, a picture that says what is seen.
pub(super) fn accessibility(stage: &mut Stage<'_>) -> Result<()> {
    stage.open()?;
    let browser = &mut stage.browser;
    let spoken = "/: .*\\d.%/.test(document.getElementById('picture').alt)";
    browser.wait_for("a picture's text that tells what is seen", spoken)?;
    let tree = Tree::read(browser)?;
    for landmark in ["main", "banner", "contentinfo"] {
        let count = tree.of(landmark).len();
        ensure!(count == 1, "{count} landmarks '{landmark}'");
    }
    let headings = tree.names("heading");
    ensure!(
        headings.contains(&"vitlet camera") && headings.len() >= 5,
        "headings: {headings:?}"
    );
    let mut buttons = tree.names("button");
    buttons.extend(tree.names("ToggleButton"));
    buttons.sort_unstable();
    ensure!(
        buttons == ["Dark theme", "Pause", "Snapshot"],
        "buttons: {buttons:?}"
    );
    images(&tree, "Live picture: ")?;
    // So that the bars are the same when the tree is read.
    browser.click("pause")?;
    browser.wait_for_state("paused")?;
    let shown: Vec<(String, f64)> = browser.ask("inPage.meters()")?;
    let tree = Tree::read(browser)?;
    meters(&tree, &shown)?;
    let top: String = browser.ask("inPage.text('top-label')")?;
    images(&tree, &format!("Last picture: {top}, "))
}

/// Each bar is a meter that says what is seen.
fn meters(tree: &Tree, shown: &[(String, f64)]) -> Result<()> {
    let meters = tree.of("meter");
    ensure!(
        meters.len() == shown.len() && !shown.is_empty(),
        "{} meters of {} bars",
        meters.len(),
        shown.len()
    );
    for (label, percent) in shown {
        let named = |node: &&&Value| node["name"]["value"] == label.as_str();
        let meter = meters.iter().find(named);
        let meter = meter.with_context(|| format!("no meter is named '{label}'"))?;
        let value = &meter["value"]["value"];
        // A number, or a text that begins with one.
        let text = value.to_string();
        let number = text.trim_matches(|c: char| !c.is_ascii_digit()).parse();
        ensure!(
            number.is_ok_and(|number: f64| (number - percent).abs() < 0.01),
            "the meter of {label} says {value}, the page {percent} %"
        );
    }
    Ok(())
}

/// One image is the picture, whose name begins like this, and one is the latency.
fn images(tree: &Tree, start: &str) -> Result<()> {
    let mut images = tree.names("image");
    images.extend(tree.names("img"));
    ensure!(
        images.iter().any(|name| name.starts_with(start)),
        "no image's name begins with '{start}': {images:?}"
    );
    ensure!(
        images.iter().any(|name| name.contains("median")),
        "no image tells of the latency: {images:?}"
    );
    Ok(())
}
