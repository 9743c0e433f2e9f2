//! What the camera sees: formats, and the same classes as of the same pixels in a file.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;

use super::super::outputs::{Outputs, label, scores, text};

/// vivid's cameras are listed with what they deliver; its output is no camera.
pub(super) fn list(outputs: &Outputs) -> Result<()> {
    let listed = cameras(&outputs.records("list")?)?;
    let devices: Vec<&str> = listed
        .iter()
        .map(|camera| text(camera, "device"))
        .collect::<Result<_>>()?;
    ensure!(
        devices == ["/dev/video0", "/dev/video1"],
        "listed: {devices:?}"
    );
    let camera = &listed[0];
    ensure!(
        text(camera, "name")? == "vivid-000-vid-cap",
        "a name that is not vivid's: {camera}"
    );
    for format in ["YUYV", "NV12", "RGB3", "BGR3", "GREY"] {
        let offers = camera["formats"].as_array().context("no 'formats'")?;
        let offer = offers.iter().find(|offer| offer["format"] == format);
        let offer = offer.with_context(|| format!("{format} is not offered: {camera}"))?;
        let sizes = offer["sizes"].as_array().context("no 'sizes'")?;
        ensure!(
            offer["usable"] == true && sizes.contains(&"640x480".into()),
            "{format} cannot be used, or not at 640x480: {offer}"
        );
    }
    Ok(())
}

/// One object a camera, or one list of them.
fn cameras(records: &[Value]) -> Result<Vec<Value>> {
    match records {
        [Value::Array(cameras)] => Ok(cameras.clone()),
        records => Ok(records.to_vec()),
    }
}

/// How far a score may be from that of the same picture as RGB: formats with less colour than RGB round.
const ROUNDING: f64 = 0.05;

/// The same picture, whatever the format.
pub(super) fn test_picture(outputs: &Outputs) -> Result<()> {
    let mut hashes = BTreeMap::new();
    let mut shares = BTreeMap::new();
    for format in ["YUYV", "NV12", "RGB3", "BGR3", "GREY"] {
        let session = outputs.session(format)?;
        let start = &session.start;
        ensure!(
            start["format"] == format && start["width"] == 640 && start["height"] == 480,
            "not the format and size that were asked for: {start}"
        );
        ensure!(session.frames.len() == 3, "{format}: not three frames");
        ensure!(
            session.end["reason"] == "frames",
            "{format}: ended for another reason: {}",
            session.end
        );
        let same: BTreeSet<&str> = session.hashes()?.into_iter().collect();
        ensure!(same.len() == 1, "{format}: a still picture gave {same:?}");
        hashes.insert(format, same.into_iter().collect::<String>());
        let frame = session.frames.first().context("a frame")?;
        let by_class: BTreeMap<u64, f64> = scores(frame)?.into_iter().collect();
        shares.insert(format, by_class);
    }
    ensure!(
        hashes["BGR3"] == hashes["RGB3"],
        "the same pixels as RGB3 and BGR3 gave {hashes:?}"
    );
    ensure!(
        hashes["GREY"] != hashes["RGB3"],
        "without its colours the picture is the same"
    );
    for format in ["YUYV", "NV12"] {
        let differs = shares[format].iter().any(|(class, share)| {
            let rgb = shares["RGB3"].get(class);
            rgb.is_none_or(|rgb| (rgb - share).abs() > ROUNDING)
        });
        ensure!(
            !differs,
            "{format} and RGB3 give other shares: {:?} and {:?}",
            shares[format],
            shares["RGB3"]
        );
    }
    Ok(())
}

/// Photos in front of the camera get the label and the very bytes that they get from files.
pub(super) fn photos(outputs: &Outputs) -> Result<()> {
    for format in ["RGB3", "BGR3"] {
        let files = outputs.records(&format!("classify-{format}"))?;
        let mut unseen = BTreeMap::new();
        for file in &files {
            unseen.insert(
                text(file, "output_hash")?,
                (label(file)?, text(file, "path")?),
            );
        }
        let known = unseen.clone();
        ensure!(
            known.len() == files.len() && known.len() >= 6,
            "photos that are not told apart: {files:?}"
        );
        let session = outputs.session(&format!("camera-{format}"))?;
        for frame in &session.frames {
            let hash = text(frame, "output_hash")?;
            let (expected, path) = known.get(hash).with_context(|| {
                format!("{format}: no file gives what this frame gave: {frame}")
            })?;
            ensure!(
                label(frame)? == *expected,
                "{format}: {path} is {expected}, but: {frame}"
            );
            unseen.remove(hash);
        }
        ensure!(
            unseen.is_empty(),
            "{format}: these were shown and never seen: {unseen:?}"
        );
    }
    Ok(())
}
