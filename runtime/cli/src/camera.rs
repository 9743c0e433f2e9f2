//! `vitlet camera`: what a camera, a clip or a pipe shows, frame after frame.

mod list;
mod on_change;
mod screen;

use std::env;

use anyhow::Context as _;
use clap::Subcommand;
use vitlet_camera::{
    CameraError, Format, Hello, PipelineOptions, Preview, PreviewAddress, SourceSettings, Stop, Uri,
};

use crate::args::{ModelArgs, SessionArgs, at_least_one};
use crate::camera::on_change::OnChange;
use crate::camera::screen::{Screen, Start};
use crate::failure::{OrInvalid as _, Outcome, invalid};
use crate::output::Out;

/// A token of the user's own, for scripts that must know it in advance.
const TOKEN_VARIABLE: &str = "VITLET_PREVIEW_TOKEN";

const EXAMPLES: &str = "\
Sources:
  /dev/video0, v4l2:///dev/video0   a V4L2 camera (`vitlet camera list`)
  clip.mjpeg, file://clip.y4m       a file: every frame; with --fps as a camera would
  photos/                           a folder of photos, by name
  -                                 standard input: MJPEG or Y4M, or raw video with
                                    --format, --width and --height
  test:                             a moving test picture

Examples:
  vitlet camera /dev/video0 --preview
  A camera that only libcamera knows (Raspberry Pi 5)
    rpicam-vid -t 0 -n --codec mjpeg --width 640 --height 480 -o - | vitlet camera - --preview
  The page for everyone on the network; the address that is printed has a token
    vitlet camera /dev/video0 --preview 0.0.0.0:8080
  Something to be done when the label changes
    vitlet camera /dev/video0 --smoothing 5 --threshold 0.6 --on-change 'echo \"$VITLET_LABEL\" >> log'
  Without a camera
    vitlet camera test: --frames 100 --json

Cameras, pipes and test: are live: only the latest frame is kept, older ones are
dropped and counted. A frame is late if it is older, when its inference begins,
than one inference period and one frame interval. A camera that is unplugged is
waited for. Ctrl-C stops after the inference that runs.

With --json, one object a line, by \"event\":
  start   {\"source\",\"format\",\"width\",\"height\",\"fps\",\"model\",\"kernel\",\"threads\",\"preview\"}
  frame   {\"frame\",\"top\":[{\"class\",\"label\",\"score\"}],\"output_hash\",\"age_ms\",\"late\",
           \"dropped\",\"ms\":{\"capture\",\"preprocess\",\"inference\",\"end_to_end\"}}
  lost, found, damaged
  end     {\"reason\",\"frames\",\"captured\",\"dropped\",\"damaged\",\"late\",\"per_s\",\"rss_bytes\",
           \"temperature_c\",\"clock_mhz\",
           \"ms\":{\"capture\",\"preprocess\",\"inference\",\"end_to_end\",\"age\"}}, each with p50, p90, p99, max

VITLET_PREVIEW_TOKEN sets the preview's token, 16 characters or more.";

#[derive(Debug, clap::Args)]
#[command(
    after_help = EXAMPLES,
    args_conflicts_with_subcommands = true,
    subcommand_negates_reqs = true
)]
pub(crate) struct Args {
    #[command(subcommand)]
    verb: Option<CameraVerb>,
    /// Where the frames come from; see below
    #[arg(required = true, value_name = "URI")]
    uri: Option<String>,
    #[command(flatten)]
    model: ModelArgs,
    #[command(flatten)]
    source: SourceArgs,
    /// Stop after N classified frames
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    frames: Option<u64>,
    /// Show the best N classes
    #[arg(short, value_name = "N", default_value = "5", value_parser = at_least_one())]
    k: usize,
    /// Show classes of at least this score, 0 to 1
    #[arg(long, value_name = "SCORE", default_value = "0", value_parser = score)]
    threshold: f32,
    /// Average the scores over about so many frames
    #[arg(long, value_name = "FRAMES", default_value = "1", value_parser = smoothing)]
    smoothing: f32,
    /// Serve a page with the picture; without HOST:PORT for this machine alone, at port 8080
    #[arg(
        long,
        value_name = "HOST:PORT",
        num_args = 0..=1,
        default_missing_value = "127.0.0.1:8080"
    )]
    preview: Option<PreviewAddress>,
    /// Print the start and the summary, and no line a second
    #[arg(long)]
    headless: bool,
    /// Run a shell command when the best class changes; it finds VITLET_LABEL, VITLET_CLASS and VITLET_SCORE in its environment
    #[arg(long, value_name = "CMD")]
    on_change: Option<String>,
    #[command(flatten)]
    session: SessionArgs,
}

#[derive(Debug, Subcommand)]
enum CameraVerb {
    /// Show the cameras of this machine and their formats
    List,
}

/// How frames are captured.
#[derive(Debug, clap::Args)]
struct SourceArgs {
    /// Pixels in a row; a camera takes the nearest it has [default: 640]
    #[arg(long, value_name = "PIXELS", value_parser = clap::value_parser!(u32).range(1..=16384), requires = "height")]
    width: Option<u32>,
    /// Rows [default: 480]
    #[arg(long, value_name = "PIXELS", value_parser = clap::value_parser!(u32).range(1..=16384), requires = "width")]
    height: Option<u32>,
    /// Frames per second that a camera is asked for, or that a file is played at
    #[arg(long, value_name = "RATE", value_parser = rate)]
    fps: Option<f64>,
    /// Pixel format by its four characters: YUYV, NV12, YU12, RGB3, BGR3, GREY or MJPG [default: the camera's first that is fast enough]
    #[arg(long, value_name = "FOURCC")]
    format: Option<Format>,
    /// Begin again at the end of a file or folder
    #[arg(long = "loop")]
    repeat: bool,
}

impl SourceArgs {
    fn settings(&self) -> SourceSettings {
        SourceSettings {
            size: self.width.zip(self.height),
            per_s: self.fps,
            format: self.format,
            repeat: self.repeat,
        }
    }
}

pub(crate) fn verb(args: &Args, out: &mut Out) -> anyhow::Result<Outcome> {
    match (&args.verb, &args.uri) {
        (Some(CameraVerb::List), _) => list::verb(out),
        (None, Some(uri)) => watch(uri, args, out),
        (None, None) => Err(invalid("camera: name a source, as /dev/video0")),
    }
}

fn watch(uri: &str, args: &Args, out: &mut Out) -> anyhow::Result<Outcome> {
    let uri = Uri::parse(uri).or_invalid()?;
    let model = args.model.load()?;
    let plan = model.plan().or_invalid()?;
    let mut session = args.session.session(&plan)?;
    let source = vitlet_camera::open(&uri, &args.source.settings()).or_invalid()?;
    // From here on, Ctrl-C does not end the program at once.
    let stop = stop_at_signals()?;
    let description = source.description();
    let start = Start::new(description, model.name(), &session);
    let preview = match &args.preview {
        Some(address) => Some(preview(address, &start, &session)?),
        None => None,
    };
    let live = start.is_live();
    let mut screen = Screen::new(
        out,
        preview,
        !args.headless,
        args.on_change.as_deref().map(OnChange::new),
    );
    screen.start(&start)?;
    let options = PipelineOptions {
        k: args.k,
        threshold: args.threshold,
        smoothing: args.smoothing,
        frames: args.frames,
        preprocessing: None,
    };
    let summary = vitlet_camera::run(source, &mut session, &options, &stop, &mut screen)?;
    screen.end(&summary)?;
    // A camera delivers a damaged frame now and then; a file should not.
    let failures = if live { 0 } else { summary.damaged };
    Ok(Outcome::from_failures(failures as usize))
}

fn preview(
    address: &PreviewAddress,
    start: &Start,
    session: &vitlet::Session<'_>,
) -> anyhow::Result<Preview> {
    let token = match env::var(TOKEN_VARIABLE) {
        Ok(token) => Some(token),
        Err(env::VarError::NotPresent) => None,
        Err(error) => return Err(invalid(format_args!("{TOKEN_VARIABLE}: {error}"))),
    };
    let hello = Hello {
        model: start.model().to_owned(),
        kernel: session.kernel().kernel.name().to_owned(),
        threads: session.threads(),
        classes: session.logits().len(),
        input: session.plan().input(),
        source: start.source().to_owned(),
        format: start.pictures(),
        version: env!("CARGO_PKG_VERSION").to_owned(),
    };
    Preview::start(address, token.as_deref(), hello).map_err(|error| match error {
        // The user's to set right; the others are the system's.
        CameraError::Address { .. } | CameraError::Token { .. } => invalid(error),
        error => error.into(),
    })
}

/// SIGINT and SIGTERM ask to stop; the second one ends the program at once.
#[cfg(unix)]
fn stop_at_signals() -> anyhow::Result<Stop> {
    use signal_hook::consts::{SIGINT, SIGTERM};
    use signal_hook::flag;
    let stop = Stop::new();
    for signal in [SIGINT, SIGTERM] {
        flag::register_conditional_shutdown(signal, 128 + signal, stop.flag())
            .and_then(|_| flag::register(signal, stop.flag()))
            .context("signals cannot be caught")?;
    }
    Ok(stop)
}

#[cfg(not(unix))]
fn stop_at_signals() -> anyhow::Result<Stop> {
    Ok(Stop::new())
}

fn score(text: &str) -> Result<f32, String> {
    number(text, 0.0..=1.0, "a score is 0 to 1")
}

fn smoothing(text: &str) -> Result<f32, String> {
    number(text, 1.0..=1e4, "1 (none) to 10000 frames")
}

fn rate(text: &str) -> Result<f64, String> {
    number(text, 0.1..=1e5, "0.1 to 100000 frames per second")
}

fn number<N: std::str::FromStr + PartialOrd>(
    text: &str,
    range: std::ops::RangeInclusive<N>,
    expected: &str,
) -> Result<N, String> {
    let value = text.parse().ok().filter(|value| range.contains(value));
    value.ok_or_else(|| expected.to_owned())
}
