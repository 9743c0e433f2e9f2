//! What the program seldom sends: its events are said by the scenario here.

use anyhow::{Result, ensure};

use super::look::nothing_sticks_out;
use crate::page_test::Stage;

const EVENTS: &str = include_str!("../scripted.js");

fn open(stage: &mut Stage<'_>) -> Result<()> {
    stage.browser.open(&stage.program.address(), &[EVENTS])?;
    stage
        .browser
        .wait_for("the page to listen", "window.scripted")?;
    let state: String = stage.browser.ask("inPage.state()")?;
    ensure!(
        state == "connecting",
        "before the first event it is {state}"
    );
    stage.browser.evaluate("scripted.hello()").map(drop)
}

/// A camera that is unplugged, and comes back.
pub(super) fn waiting(stage: &mut Stage<'_>) -> Result<()> {
    open(stage)?;
    let browser = &mut stage.browser;
    browser.evaluate("scripted.result(1, [{ class: 0, label: 'glass', score: 0.9 }])")?;
    browser.wait_for_state("live")?;
    browser.wait_for("the picture", "inPage.pixels('picture') !== ''")?;
    browser.evaluate(
        "scripted.result(1, [{ class: 0, label: 'glass', score: 0.9 }], { state: 'waiting' })",
    )?;
    browser.wait_for_state("waiting")?;
    let text: String = browser.ask("inPage.text('state') + inPage.text('message')")?;
    ensure!(
        text.contains("lost"),
        "a camera is away, and the page says '{text}'"
    );
    browser.wait_for("an age that grows", "parseFloat(inPage.text('age')) > 2500")?;
    browser.size(800, 600)?;
    stage.picture("waiting")?;
    let browser = &mut stage.browser;
    browser.evaluate("scripted.result(2, [{ class: 1, label: 'paper', score: 0.8 }])")?;
    browser.wait_for_state("live")?;
    let text: String = browser.ask("inPage.text('message')")?;
    ensure!(
        text.is_empty(),
        "the camera is back, and the page says '{text}'"
    );
    Ok(())
}

/// A thousand classes, long names, none, and one that is HTML: nothing breaks, and nothing is read as HTML.
pub(super) fn labels(stage: &mut Stage<'_>) -> Result<()> {
    open(stage)?;
    let browser = &mut stage.browser;
    browser.size(360, 800)?;
    browser.evaluate(
        "scripted.label = (i) => [null, `<img src=x onerror=inPage.ran=1> ${i}`, 'unbreakable'.repeat(20) + i, 'many words '.repeat(20) + i][i % 4];
         for (let frame = 0; frame < 200; frame++)
           scripted.result(frame, [1, 2, 3, 4, 5, 6, 7, 8].map((n) => ({ class: frame * 5 + n, label: scripted.label(frame * 5 + n), score: n === 1 ? 0.5 : 0.5 / n / n })));",
    )?;
    nothing_sticks_out(stage)?;
    let browser = &mut stage.browser;
    let rows: Vec<(u64, String, f64)> =
        browser.ask("inPage.rows().map((row) => [row.class, row.label, row.y])")?;
    ensure!(rows.len() == 8, "{} bars of 8 classes", rows.len());
    for (class, label, _) in &rows {
        let wanted: Option<String> = browser.ask(&format!("scripted.label({class})"))?;
        let wanted = wanted.unwrap_or_else(|| format!("class {class}"));
        ensure!(
            *label == wanted,
            "class {class} is '{label}', not '{wanted}'"
        );
    }
    let in_order = rows.is_sorted_by(|(_, _, above), (_, _, below)| below - above > 20.0);
    ensure!(in_order, "the bars stand one over another: {rows:?}");
    let harmless: bool = browser.ask("document.images.length === 1 && !inPage.ran")?;
    ensure!(harmless, "a label was read as HTML");
    stage.picture("labels")
}

/// The class is spoken when it changes, at most every two seconds, and in the end it is the last one.
pub(super) fn announcements(stage: &mut Stage<'_>) -> Result<()> {
    open(stage)?;
    let browser = &mut stage.browser;
    browser.evaluate(
        "inPage.announced = [];
         scripted.tell = async (frame, label) => {
           scripted.result(frame, [{ class: label.length, label, score: 0.9 }]);
           await inPage.sleep(50);
         };
         const place = document.getElementById('announcement');
         new MutationObserver(() => inPage.announced.push([performance.now(), place.textContent])).observe(place, { childList: true, characterData: true, subtree: true });
         if (place.getAttribute('aria-live') !== 'polite') throw new Error('nobody listens');",
    )?;
    // Longer than one silence, the last one is another than the first.
    browser.evaluate(
        "(async () => { for (let frame = 0; frame < 61; frame++) await scripted.tell(frame, frame % 2 ? 'glass' : 'paper'); await scripted.tell(99, 'metal'); })()",
    )?;
    browser.wait_for("the last class", "inPage.announced.at(-1)?.[1] === 'metal'")?;
    // The same again is no news.
    browser.evaluate(
        "scripted.tell(100, 'metal').then(() => inPage.sleep(2500)).then(() => scripted.tell(101, 'metal'))",
    )?;
    let spoken: Vec<(f64, String)> = browser.ask("inPage.announced")?;
    ensure!(
        spoken.first().is_some_and(|(_, label)| label == "paper"),
        "the first class was not spoken: {spoken:?}"
    );
    let seldom = spoken.windows(2).all(|pair| match pair {
        [(before, one), (after, other)] => after - before > 1900.0 && one != other,
        _ => true,
    });
    ensure!(seldom, "spoken too often: {spoken:?}");
    Ok(())
}
