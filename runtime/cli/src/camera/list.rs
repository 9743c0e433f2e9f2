//! `vitlet camera list`: the cameras of this machine.

use vitlet_camera::cameras;

use crate::failure::Outcome;
use crate::output::{Out, Table, left};

pub(super) fn verb(out: &mut Out) -> anyhow::Result<Outcome> {
    let cameras = cameras();
    if cameras.is_empty() {
        out.line(
            "No V4L2 camera. Is it plugged in, and does `ls /dev/video*` show it? One on a ribbon cable may need libcamera:\n\
             rpicam-vid -t 0 -n --codec mjpeg -o - | vitlet camera -    (docs/camera.md)",
        )?;
    }
    for camera in &cameras {
        out.record(camera)?;
        out.line(format_args!("{}  {}", camera.device.display(), camera.name))?;
        if let Some(problem) = &camera.problem {
            out.line(format_args!("  cannot be opened: {problem}"))?;
        }
        let mut table = Table::default();
        for offer in &camera.formats {
            let use_ = if offer.usable {
                ""
            } else {
                "(not read by vitlet)"
            };
            table.row([
                left(format_args!("  {}", offer.format)),
                left(offer.sizes.join(" ")),
                left(use_),
            ]);
        }
        if !camera.formats.is_empty() {
            out.line(table)?;
        }
    }
    Ok(Outcome::Done)
}
