//! Cameras that cannot be used, or not always.

use anyhow::{Context as _, Result, ensure};

use super::super::outputs::{Outputs, UNDER_WAY};

pub(super) fn missing(outputs: &Outputs) -> Result<()> {
    // It names the cameras that there are.
    outputs.refused("missing", &["/dev/video9", "/dev/video0"])
}

pub(super) fn permission(outputs: &Outputs) -> Result<()> {
    outputs.refused("nobody", &["/dev/video0", "permission", "group video"])
}

/// The second program is refused and told of the first, which goes on.
pub(super) fn busy(outputs: &Outputs) -> Result<()> {
    let process = format!("(process {})", outputs.number("holder.pid")?);
    outputs.refused("second", &["/dev/video0", "busy", "vitlet", &process])?;
    outputs.session("holder")?;
    Ok(())
}

/// One process: frames, no camera, the camera again, frames.
pub(super) fn unplug(outputs: &Outputs) -> Result<()> {
    let session = outputs.session_with_warning("camera", "/dev/video0: unplugged")?;
    let events = &session.events;
    let changes: Vec<&str> = events
        .iter()
        .map(String::as_str)
        .filter(|&event| event != "frame")
        .collect();
    ensure!(
        changes == ["lost", "found"],
        "not lost once and found once: {changes:?}"
    );
    let place = |name: &str| {
        let place = events.iter().position(|event| event == name);
        place.with_context(|| format!("no '{name}'"))
    };
    let (lost, found) = (place("lost")?, place("found")?);
    ensure!(
        lost >= 5 && found <= lost + 1 + UNDER_WAY && events.len() >= found + 5,
        "frames do not surround the camera's absence: {events:?}"
    );
    ensure!(
        session.end["reason"] == "signal",
        "ended by itself: {}",
        session.end
    );
    Ok(())
}
