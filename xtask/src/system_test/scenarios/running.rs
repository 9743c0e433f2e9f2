//! A program that runs for long: memory, signals, delay, rate.

use anyhow::{Context as _, Result, bail, ensure};

use super::super::outputs::{Outputs, number};

/// What the allocator may move, in KB.
const NOISE: usize = 64;

/// Memory is what it was after the first hundred frames.
pub(super) fn soak(outputs: &Outputs) -> Result<()> {
    let (early, late) = (resident(outputs, "early")?, resident(outputs, "late")?);
    ensure!(
        late <= early + NOISE,
        "memory grew from {early} KB after 100 frames to {late} KB"
    );
    let session = outputs.session("camera")?;
    ensure!(session.frames.len() >= 300, "not 300 frames");
    // From counters that each CPU has a share of.
    let said = number(&session.end, "rss_bytes")? / 1024.0;
    let ratio = said / late as f64;
    ensure!(
        (0.75..1.33).contains(&ratio),
        "the end says {said} KB, where there were {late} KB before"
    );
    Ok(())
}

/// The memory in a copy of `/proc/PID/smaps_rollup`, in KB. That is counted page by page, unlike what `status` there says.
fn resident(outputs: &Outputs, name: &str) -> Result<usize> {
    let line = outputs
        .text(name)?
        .lines()
        .find_map(|line| line.strip_prefix("Rss:"));
    let value = line.and_then(|line| line.split_whitespace().next()?.parse().ok());
    value.with_context(|| format!("{name}: no Rss"))
}

/// A signal ends it well, after at most the inference that was going on.
pub(super) fn signal(outputs: &Outputs) -> Result<()> {
    for signal in ["INT", "TERM"] {
        let session = outputs.session(signal)?;
        let before = outputs.number(&format!("{signal}.before"))?;
        let after = session.frames.len();
        ensure!(before >= 2, "SIG{signal} came before the second frame");
        ensure!(
            after <= before + 1,
            "{before} frames before SIG{signal}, {after} in all"
        );
        ensure!(
            session.end["reason"] == "signal",
            "SIG{signal}, but: {}",
            session.end
        );
    }
    Ok(())
}

/// What is classified is what the camera sees now: a fast network, on one CPU and on all, and a slow one. Where the host let the
/// machine wait in the middle of a frame, the script tries again; what counts is its last try.
pub(super) fn late(outputs: &Outputs) -> Result<()> {
    for (run, frames) in [("tiny", 100), ("between", 100), ("real", 8)] {
        let session = outputs.session(run)?;
        ensure!(session.frames.len() == frames, "{run}: not {frames} frames");
        let late = session.frames.iter().find(|frame| frame["late"] != false);
        if let Some(frame) = late {
            bail!("{run}: late: {frame}");
        }
    }
    Ok(())
}

/// The part of the time that inferences must fill.
const BUSY: f64 = 0.9;

/// Where the camera is faster than the network, it waits for nothing but the network. The script tries again, too.
pub(super) fn rate(outputs: &Outputs) -> Result<()> {
    let bench = outputs.records("bench")?;
    let bench = bench.first().context("bench printed nothing")?;
    let possible = 1e3 / number(&bench["ms"], "median")?;
    let session = outputs.session("camera")?;
    ensure!(
        session.start["threads"] == bench["threads"],
        "other threads: {} and {bench}",
        session.start
    );
    let fps = number(&session.start, "fps")?;
    ensure!(
        fps > 2.0 * possible,
        "a camera of {fps} frames a second is no test of {possible} inferences a second"
    );
    let reached = number(&session.end, "per_s")?;
    ensure!(
        reached >= BUSY * possible,
        "{reached:.3} frames a second, where the benchmark reaches {possible:.3}"
    );
    Ok(())
}
