//! Sets controls of a video device by name: `set-controls /dev/video0 "OSD Text Mode=2"…`. See `cargo xtask system-test`.

#![allow(clippy::print_stderr, reason = "a command-line program")]

use std::error::Error;
use std::process::ExitCode;

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    match set(&args) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("set-controls: {error}");
            ExitCode::FAILURE
        }
    }
}

#[cfg(target_os = "linux")]
fn set(args: &[String]) -> Result<(), Box<dyn Error>> {
    let [path, settings @ ..] = args else {
        return Err("usage: set-controls DEVICE NAME=VALUE…".into());
    };
    let mut device = linuxvideo::Device::open(path).map_err(|error| format!("{path}: {error}"))?;
    let controls: Vec<_> = device.controls().collect::<Result<_, _>>()?;
    for setting in settings {
        let (name, value) = setting
            .split_once('=')
            .ok_or_else(|| format!("{setting}: not NAME=VALUE"))?;
        let control = controls
            .iter()
            .find(|control| control.name() == name)
            .ok_or_else(|| format!("{path}: no control '{name}'"))?;
        device
            .write_control_raw(control.id(), value.parse()?)
            .map_err(|error| format!("{path}: {setting}: {error}"))?;
    }
    Ok(())
}

#[cfg(not(target_os = "linux"))]
fn set(_args: &[String]) -> Result<(), Box<dyn Error>> {
    Err("video devices are Linux's".into())
}
