//! Buttons and keys.

use std::fs;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};

use super::results::moves;
use crate::page_test::browser::Browser;
use crate::page_test::page::{Held, Key};
use crate::page_test::{PATIENCE, Stage};

/// The button stops picture and numbers while the program goes on, and lets them go on.
pub(super) fn pause_button(stage: &mut Stage<'_>) -> Result<()> {
    stage.open()?;
    let browser = &mut stage.browser;
    browser.click("pause")?;
    browser.wait_for_state("paused")?;
    let pressed: String = browser.ask("inPage.attribute('pause', 'aria-pressed')")?;
    ensure!(pressed == "true", "paused, aria-pressed is {pressed}");
    stands_still(browser)?;
    stage.picture("paused")?;
    let browser = &mut stage.browser;
    browser.evaluate("inPage.before = inPage.readOut()")?;
    browser.click("pause")?;
    browser.wait_for_state("live")?;
    browser.wait_for(
        "numbers that go on",
        "inPage.readOut() !== inPage.before && !inPage.shows('frozen')",
    )?;
    moves(stage)
}

/// While the program classifies ten frames, nothing of the page changes, and it takes no pictures.
fn stands_still(browser: &mut Browser) -> Result<()> {
    browser.evaluate("inPage.before = inPage.readOut()")?;
    let frozen: bool = browser.ask("inPage.shows('frozen') && inPage.pixels('frozen') !== ''")?;
    ensure!(frozen, "paused, the page shows no picture");
    browser.evaluate("inPage.status().then(({ result }) => { inPage.frame = result.frame; })")?;
    let on = "inPage.status().then(({ result }) => result.frame > inPage.frame + 10)";
    browser.wait_for("the program to go on", on)?;
    browser.evaluate("inPage.sleep(1500)")?;
    let same: bool = browser.ask("inPage.before === inPage.readOut()")?;
    ensure!(same, "paused, the page goes on");
    let streams: bool = browser.ask("document.getElementById('picture').hasAttribute('src')")?;
    ensure!(!streams, "paused, the page takes pictures that nobody sees");
    Ok(())
}

/// Space and P pause and go on, but not in an input, not with another key held, not twice by a button, not when turned off.
pub(super) fn pause_keys(stage: &mut Stage<'_>) -> Result<()> {
    stage.open()?;
    let browser = &mut stage.browser;
    browser.press(Key::SPACE, Held::Nothing)?;
    browser.wait_for_state("paused")?;
    stands_still(browser)?;
    browser.press(Key::P, Held::Nothing)?;
    browser.wait_for_state("live")?;
    for held in [Held::Control, Held::Alt] {
        browser.press(Key::P, held)?;
        stays(browser, "live", "P with Control or Alt")?;
    }
    focus(browser, "keys")?;
    browser.press(Key::P, Held::Nothing)?;
    stays(browser, "live", "P in an input")?;
    // The input is a checkbox, which Space turns off.
    browser.press(Key::SPACE, Held::Nothing)?;
    stays(browser, "live", "Space in an input")?;
    focus(browser, "theme")?;
    browser.press(Key::P, Held::Nothing)?;
    stays(browser, "live", "P when keys are turned off")?;
    focus(browser, "pause")?;
    browser.press(Key::SPACE, Held::Nothing)?;
    browser.wait_for_state("paused")?;
    focus(browser, "keys")?;
    browser.press(Key::SPACE, Held::Nothing)?;
    focus(browser, "pause")?;
    browser.press(Key::SPACE, Held::Nothing)?;
    browser.wait_for_state("live")?;
    stays(
        browser,
        "live",
        "Space on the button, which presses it once,",
    )
}

fn focus(browser: &mut Browser, id: &str) -> Result<()> {
    browser
        .evaluate(&format!("document.getElementById('{id}').focus()"))
        .map(drop)
}

fn stays(browser: &mut Browser, state: &str, what: &str) -> Result<()> {
    let now: String = browser.ask("inPage.sleep(300).then(inPage.state)")?;
    ensure!(now == state, "{what} makes the page {now}");
    Ok(())
}

/// The key saves the program's newest picture, the button while paused the one that is shown; both are JPEGs with names that say what.
pub(super) fn snapshot(stage: &mut Stage<'_>) -> Result<()> {
    stage.open()?;
    let folder = stage.folder.join("saved");
    stage.project.sh.remove_path(&folder)?;
    fs::create_dir_all(&folder)?;
    let browser = &mut stage.browser;
    browser.save_to(&folder)?;
    let snapshots = |requests: &[String]| {
        requests
            .iter()
            .filter(|request| request.contains("/snapshot.jpg"))
            .count()
    };
    browser.heard()?;
    browser.press(Key::S, Held::Nothing)?;
    let live = saved(&folder, &[])?;
    let asked = snapshots(&browser.heard()?.requests);
    ensure!(
        asked == 1,
        "a snapshot of the live picture asked for snapshot.jpg {asked} times"
    );
    browser.press(Key::SPACE, Held::Nothing)?;
    browser.wait_for_state("paused")?;
    // Names tell seconds apart.
    browser.evaluate("inPage.sleep(1100)")?;
    browser.click("snapshot")?;
    let paused = saved(&folder, &[&live])?;
    let asked = snapshots(&browser.heard()?.requests);
    ensure!(
        asked == 0,
        "paused, a snapshot is another picture than the one that is shown"
    );
    for file in [&live, &paused] {
        is_snapshot(file).with_context(|| file.display().to_string())?;
    }
    stage.project.sh.remove_path(&folder)?;
    Ok(())
}

/// Waits for a file that is not among those known.
fn saved(folder: &Path, known: &[&PathBuf]) -> Result<PathBuf> {
    let deadline = Instant::now() + PATIENCE;
    while Instant::now() < deadline {
        for entry in fs::read_dir(folder)? {
            let file = entry?.path();
            // Until it is complete it has another name.
            if file.extension().is_some_and(|extension| extension == "jpg")
                && !known.contains(&&file)
            {
                return Ok(file);
            }
        }
        thread::sleep(Duration::from_millis(50));
    }
    anyhow::bail!("nothing was saved within {PATIENCE:?}")
}

fn is_snapshot(file: &Path) -> Result<()> {
    let bytes = fs::read(file)?;
    ensure!(
        bytes.starts_with(b"\xff\xd8\xff") && bytes.ends_with(b"\xff\xd9"),
        "no JPEG"
    );
    let name = file.file_stem().unwrap_or_default().to_string_lossy();
    // vitlet, a date, a time, and what was seen.
    let parts: Vec<&str> = name.split('-').collect();
    let time = parts.get(1..7).unwrap_or_default();
    ensure!(
        parts.first() == Some(&"vitlet")
            && time.len() == 6
            && time.iter().all(|part| part.parse::<u16>().is_ok())
            && parts.get(7).is_some_and(|label| !label.is_empty()),
        "the name does not say when and what"
    );
    Ok(())
}

/// The system's theme, the other one by the button, remembered, and the system's again.
pub(super) fn theme(stage: &mut Stage<'_>) -> Result<()> {
    stage.open()?;
    let address = stage.program.address();
    let browser = &mut stage.browser;
    browser.prefer(&[("prefers-color-scheme", "dark")])?;
    is_theme(browser, "dark")?;
    browser.prefer(&[("prefers-color-scheme", "light")])?;
    is_theme(browser, "light")?;
    browser.click("theme")?;
    is_theme(browser, "dark")?;
    browser.go(&address)?;
    browser.wait_for_state("live")?;
    is_theme(browser, "dark").context("remembered")?;
    browser.click("theme")?;
    is_theme(browser, "light")?;
    browser.prefer(&[("prefers-color-scheme", "dark")])?;
    is_theme(browser, "dark")
        .context("the button chose what the system has, so the system counts again")
}

/// What is seen, not what the page says of itself.
fn is_theme(browser: &mut Browser, theme: &str) -> Result<()> {
    let dark = "inPage.luminance(getComputedStyle(document.body).backgroundColor) < 0.2";
    let pressed = "inPage.attribute('theme', 'aria-pressed')";
    let wanted = theme == "dark";
    browser.wait_for(
        &format!("the {theme} theme"),
        &format!("({dark}) === {wanted} && {pressed} === '{wanted}'"),
    )
}

/// Tab reaches every control, shows where it is, and leaves again.
pub(super) fn keyboard(stage: &mut Stage<'_>) -> Result<()> {
    #[derive(serde::Deserialize)]
    struct Focus {
        id: String,
        visible: bool,
    }
    stage.open()?;
    let mut reached = Vec::new();
    for _ in 0..6 {
        stage.browser.press(Key::TAB, Held::Nothing)?;
        let focus: Focus = stage.browser.ask("inPage.focus()")?;
        if focus.id.is_empty() {
            break;
        }
        ensure!(
            focus.visible,
            "one cannot see that {} has the keyboard",
            focus.id
        );
        if reached.is_empty() {
            stage.picture("focus")?;
        }
        reached.push(focus.id);
    }
    // After the last, the keyboard is the browser's, or it begins again.
    reached.truncate(4);
    ensure!(
        reached == ["pause", "snapshot", "theme", "keys"],
        "Tab reaches {reached:?}"
    );
    Ok(())
}

/// A tab that nobody sees takes no pictures, and goes on when it is seen.
pub(super) fn hidden_tab(stage: &mut Stage<'_>) -> Result<()> {
    stage.open()?;
    let browser = &mut stage.browser;
    browser.evaluate("inPage.hide(true)")?;
    browser.wait_for(
        "the stream to stop",
        "!document.getElementById('picture').hasAttribute('src')",
    )?;
    browser.evaluate("inPage.hide(false)")?;
    browser.wait_for_state("live")?;
    moves(stage)
}
