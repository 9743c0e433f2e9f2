//! What is printed of a camera, and shown on the page: the start, frames, the summary.

use std::io::{self, IsTerminal as _};
use std::time::{Duration, Instant};

use serde::Serialize;
use vitlet_camera::{
    CameraError, CameraFrame, Classified, Description, Milliseconds, Notice, Observer, Percentiles,
    Preview, Readings, Reason, Summary, Top, resident_bytes,
};

use crate::camera::on_change::OnChange;
use crate::failure;
use crate::output::{Out, Table, left, milliseconds, right};

/// Lines for people come at this interval.
const LINE: Duration = Duration::from_secs(1);
/// Damaged frames that are told of one by one; the rest is counted.
const DAMAGED: u64 = 3;

/// What runs.
#[derive(Serialize)]
pub(super) struct Start {
    #[serde(flatten)]
    description: Description,
    model: String,
    kernel: &'static str,
    threads: usize,
}

impl Start {
    pub(super) fn new(
        description: Description,
        model: &str,
        session: &vitlet::Session<'_>,
    ) -> Self {
        Self {
            description,
            model: model.to_owned(),
            kernel: session.kernel().kernel.name(),
            threads: session.threads(),
        }
    }

    pub(super) const fn is_live(&self) -> bool {
        self.description.live
    }

    pub(super) fn model(&self) -> &str {
        &self.model
    }

    pub(super) fn source(&self) -> &str {
        &self.description.source
    }

    /// `YUYV 640x480`.
    pub(super) fn pictures(&self) -> String {
        let Description {
            format,
            width,
            height,
            ..
        } = &self.description;
        match width.zip(*height) {
            Some((width, height)) => format!("{format} {width}x{height}"),
            None => format.clone(),
        }
    }
}

#[derive(Serialize)]
#[serde(tag = "event", rename_all = "lowercase")]
enum Event<'a> {
    Start {
        #[serde(flatten)]
        start: &'a Start,
        preview: Option<&'a str>,
    },
    Frame {
        frame: u64,
        top: &'a [Top<&'a str>],
        output_hash: String,
        age_ms: f64,
        late: bool,
        dropped: u64,
        ms: Milliseconds,
    },
    Lost {
        source: &'a str,
        error: String,
    },
    Found {
        source: &'a str,
    },
    Damaged {
        error: String,
    },
    End {
        reason: &'static str,
        frames: u64,
        captured: u64,
        dropped: u64,
        damaged: u64,
        late: u64,
        per_s: f64,
        rss_bytes: Option<u64>,
        #[serde(flatten)]
        readings: Readings,
        ms: Stages,
    },
}

#[derive(Serialize)]
struct Stages {
    capture: Percentiles,
    preprocess: Percentiles,
    inference: Percentiles,
    end_to_end: Percentiles,
    age: Percentiles,
}

/// Prints and shows.
pub(super) struct Screen<'a> {
    out: &'a mut Out,
    preview: Option<Preview>,
    on_change: Option<OnChange>,
    source: String,
    /// A line a second is wanted.
    lines: bool,
    /// Standard output is a terminal, where a line replaces the one before.
    terminal: bool,
    /// A line stands that the next one replaces.
    unfinished: bool,
    last_line: Option<Instant>,
    since_line: u64,
}

impl<'a> Screen<'a> {
    pub(super) fn new(
        out: &'a mut Out,
        preview: Option<Preview>,
        lines: bool,
        on_change: Option<OnChange>,
    ) -> Self {
        Self {
            out,
            preview,
            on_change,
            source: String::new(),
            lines,
            terminal: io::stdout().is_terminal(),
            unfinished: false,
            last_line: None,
            since_line: 0,
        }
    }

    pub(super) fn start(&mut self, start: &Start) -> anyhow::Result<()> {
        start.source().clone_into(&mut self.source);
        let preview = self.preview.as_ref().map(Preview::url);
        self.out.record(&Event::Start { start, preview })?;
        let rate = start
            .description
            .per_s
            .map_or_else(String::new, |per_s| format!(", {per_s:.1} frames/s"));
        let mut table = Table::default();
        table.entry(
            "source",
            format_args!("{} ({}{rate})", start.source(), start.pictures()),
        );
        table.entry("model", start.model());
        table.entry(
            "kernel",
            format_args!("{}, {} thread(s)", start.kernel, start.threads),
        );
        if let Some(url) = preview {
            table.entry("preview", url);
        }
        self.out.line(table)?;
        self.out.flush()
    }

    pub(super) fn end(&mut self, summary: &Summary) -> anyhow::Result<()> {
        self.finish_line()?;
        let reason = match summary.reason {
            Reason::Frames => "frames",
            Reason::Stopped => "signal",
            Reason::End => "end",
        };
        if let Some(preview) = &self.preview {
            preview.end(reason);
        }
        let meters = &summary.meters;
        let stages = Stages {
            capture: meters.capture.percentiles(),
            preprocess: meters.preprocess.percentiles(),
            inference: meters.inference.percentiles(),
            end_to_end: meters.end_to_end.percentiles(),
            age: meters.age.percentiles(),
        };
        let readings = Readings::now();
        self.out.line(summary_table(summary, &readings))?;
        self.out.record(&Event::End {
            reason,
            frames: summary.frames,
            captured: summary.captured,
            dropped: summary.dropped,
            damaged: summary.damaged,
            late: summary.late,
            per_s: summary.per_s(),
            rss_bytes: resident_bytes(),
            readings,
            ms: stages,
        })
    }

    /// A line a second.
    fn line(&mut self, classified: &Classified<'_>) -> anyhow::Result<()> {
        self.since_line += 1;
        if !self.lines || self.out.is_json() {
            return Ok(());
        }
        let now = Instant::now();
        let since = self.last_line.map(|last| now - last);
        if since.is_some_and(|since| since < LINE) {
            return Ok(());
        }
        let rate = since.map_or_else(
            || "   -".to_owned(),
            |since| format!("{:4.1}", self.since_line as f64 / since.as_secs_f64()),
        );
        let best = classified.top.first().map_or_else(
            || "-".to_owned(),
            |class| {
                let label = class
                    .label
                    .map_or_else(|| format!("class {}", class.index), str::to_owned);
                format!("{label} {:.1} %", class.score * 100.0)
            },
        );
        let times = &classified.times;
        let text = format!(
            "{best:<28}  {rate} frames/s  inference {:.1} ms, end to end {:.1} ms, age {:.1} ms  dropped {}",
            milliseconds(times.inference),
            milliseconds(times.end_to_end),
            milliseconds(classified.age),
            classified.dropped
        );
        (self.last_line, self.since_line) = (Some(now), 0);
        if self.terminal {
            self.unfinished = true;
            // Back to the first column, and clear the line.
            self.out.text(format_args!("\r\x1b[K{text}"))?;
        } else {
            self.out.line(text)?;
        }
        self.out.flush()
    }

    fn finish_line(&mut self) -> anyhow::Result<()> {
        if self.unfinished {
            self.unfinished = false;
            self.out.line("")?;
        }
        Ok(())
    }
}

impl Observer for Screen<'_> {
    type Error = anyhow::Error;

    fn frame(
        &mut self,
        classified: &Classified<'_>,
        frame: CameraFrame,
    ) -> anyhow::Result<Option<CameraFrame>> {
        let top: Vec<Top<&str>> = classified.top.iter().map(Top::from).collect();
        if self.out.is_json() {
            self.out.record(&Event::Frame {
                frame: classified.number,
                top: &top,
                output_hash: classified.output_hash.to_string(),
                age_ms: milliseconds(classified.age),
                late: classified.late,
                dropped: classified.dropped,
                ms: Milliseconds::from(&classified.times),
            })?;
            self.out.flush()?;
        }
        self.line(classified)?;
        if let Some(on_change) = &mut self.on_change {
            on_change.best(top.first());
        }
        Ok(match &self.preview {
            Some(preview) => preview.frame(classified, frame),
            None => Some(frame),
        })
    }

    fn notice(&mut self, notice: Notice) -> anyhow::Result<()> {
        if let Some(preview) = &self.preview {
            preview.notice(&notice);
        }
        self.finish_line()?;
        match notice {
            Notice::Lost(error) => {
                failure::warn(format_args!("{error}; waiting for it to come back"));
                self.record_lost(&error)?;
            }
            Notice::Found => {
                self.out.line("the camera is back")?;
                let source = &self.source;
                self.out.record(&Event::Found { source })?;
            }
            Notice::Damaged(error, before) => {
                if before < DAMAGED {
                    failure::warn(format_args!("a frame cannot be used: {error}"));
                }
                self.out.record(&Event::Damaged { error })?;
            }
        }
        self.out.flush()
    }
}

impl Screen<'_> {
    fn record_lost(&mut self, error: &CameraError) -> anyhow::Result<()> {
        let (source, error) = (&self.source, error.to_string());
        self.out.record(&Event::Lost { source, error })
    }
}

fn summary_table(summary: &Summary, readings: &Readings) -> String {
    let mut table = Table::default();
    let header = ["", "p50", "p90", "p99", "max"].map(right);
    table.row(header);
    for (name, meter) in summary.meters.named() {
        let Percentiles { p50, p90, p99, max } = meter.percentiles();
        let name = format!("{} ms", name.replace('_', " "));
        let cells = [p50, p90, p99, max].map(|ms| right(format_args!("{ms:.1}")));
        table.row([left(name)].into_iter().chain(cells));
    }
    let mut counts = Table::default();
    counts.entry(
        "frames",
        format_args!(
            "{} classified ({:.1} a second) of {} captured; {} dropped, {} damaged, {} late",
            summary.frames,
            summary.per_s(),
            summary.captured,
            summary.dropped,
            summary.damaged,
            summary.late
        ),
    );
    if let Some(degrees) = readings.temperature_c {
        counts.entry("temperature", format_args!("{degrees:.1} °C"));
    }
    if let Some(mhz) = readings.clock_mhz {
        counts.entry("clock", format_args!("{mhz:.0} MHz"));
    }
    format!("{table}\n{counts}")
}
