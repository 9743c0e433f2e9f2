//! Shows photos to a camera that does not exist: vivid, Linux's virtual video driver, has an output whose frames its camera captures.
//!
//! `show-photos OUTPUT FORMAT NEXT FOLDER PHOTO…`: every photo until there is a file NEXT, which is then removed; over and over until it
//! is killed. OUTPUT is a device such as `/dev/video2`, FORMAT is `RGB3` or `BGR3`: a captured frame then has every pixel as it was
//! shown. What is shown is first written into FOLDER as PNGs. Prints `showing` when the first photo can be captured. See
//! `cargo xtask system-test`.

#![allow(
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "a command-line program"
)]

#[cfg(target_os = "linux")]
mod output;
#[cfg(target_os = "linux")]
mod picture;

use std::error::Error;
use std::process::ExitCode;

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    match show(&args) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("show-photos: {error}");
            ExitCode::FAILURE
        }
    }
}

#[cfg(target_os = "linux")]
fn show(args: &[String]) -> Result<(), Box<dyn Error>> {
    use std::fs;
    use std::path::Path;

    let [device, format, next, folder, photos @ ..] = args else {
        return Err("usage: show-photos OUTPUT FORMAT NEXT FOLDER PHOTO…".into());
    };
    if photos.is_empty() {
        return Err("no photo was given".into());
    }
    let order = picture::Order::named(format)?;
    let output = output::Output::open(Path::new(device), format)?;
    let mut frames = Vec::new();
    for photo in photos {
        let picture = picture::Picture::of(Path::new(photo), output.size())?;
        picture.save(Path::new(folder), Path::new(photo))?;
        frames.push(picture.frame(order));
    }
    let mut showing = output.start(frames)?;
    println!("showing");
    for photo in (0..photos.len()).cycle() {
        // However long the camera's side takes.
        while !Path::new(next).exists() {
            showing.show(photo)?;
        }
        fs::remove_file(next)?;
    }
    Ok(())
}

#[cfg(not(target_os = "linux"))]
fn show(_args: &[String]) -> Result<(), Box<dyn Error>> {
    Err("video devices are Linux's".into())
}
