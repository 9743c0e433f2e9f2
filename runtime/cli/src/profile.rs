//! `vitlet profile`: where the time of an inference goes, op by op and kind by kind.
//!
//! The time of an op is what passes between the end of the one before it and its own. Ops that run in turns, a few rows each, add up.

use std::collections::BTreeMap;
use std::fs::{File, OpenOptions};
use std::io::{Seek as _, SeekFrom};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::Context as _;
use serde::Serialize;
use vitlet::{Plan, Session, peak_macs_per_second};

use crate::args::{ModelArgs, SessionArgs};
use crate::bench::{Milliseconds, RunArgs, percentile, summary};
use crate::failure::{OrInvalid as _, Outcome};
use crate::files::OutputFile;
use crate::inspect::typed_shape;
use crate::output::{Cell, Out, Table, grouped, left, microseconds, right};

const EXAMPLES: &str = "\
Examples:
  Every op in the order of the run, then the kinds of ops
    vitlet profile -m model.vitlet
  Only the kinds, of the plan inside the program, on two threads
    vitlet profile --by kind --threads 2
  A timeline, for chrome://tracing or https://ui.perfetto.dev
    vitlet profile -m model.vitlet --iterations 5 --trace trace.json

An op's time is its median over the inferences, and % its share of the sum of
all ops; on a busy machine that sum is less than the median of whole inferences.
The first op's time includes bringing the image into the arena.
GMAC/s are billions of multiply-accumulates a second. % of peak compares them
with what this kernel's own matrix product reaches on this machine now, on data
in the first-level cache; it is measured at the start.
An emulator's times say nothing: count instructions (cargo xtask insns --ops).

With --json:
  {\"kernel\",\"threads\",\"iterations\",\"output_hash\",
   \"ms\":{\"min\",\"median\",\"mean\",\"p90\",\"p99\"},\"peak_gmacs_per_s\",\"total\":COST,
   \"ops\":[{\"index\",\"name\",\"kind\",\"input\",\"output\",COST}],
   \"kinds\":[{\"kind\",\"ops\",COST}]}
where COST is \"us\",\"percent\",\"macs\",\"gmacs_per_s\",\"percent_of_peak\"; the last
two are null without multiply-accumulates.";

/// Position in the file of `--marks` where an inference starts; that after op `i` is `1 + i` more. No reader of a file gets there.
const MARKS: u64 = 1 << 40;

#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Args {
    #[command(flatten)]
    model: ModelArgs,
    #[command(flatten)]
    runs: RunArgs,
    #[command(flatten)]
    session: SessionArgs,
    /// Print one table only [default: both]
    #[arg(long, value_name = "TABLE")]
    by: Option<By>,
    /// Write a timeline of the timed inferences, in Chrome's trace format
    #[arg(long, value_name = "FILE")]
    trace: Option<PathBuf>,
    /// Run one more inference, and after each op set this file's position: a system call for an emulator's plugin to see
    #[arg(long, value_name = "FILE", hide = true)]
    marks: Option<PathBuf>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
enum By {
    /// Ops, in the order of the run
    Op,
    /// Kinds of ops, the costliest first
    Kind,
}

#[derive(Serialize)]
struct Record {
    kernel: &'static str,
    threads: usize,
    iterations: usize,
    output_hash: String,
    ms: Milliseconds,
    peak_gmacs_per_s: Option<f64>,
    total: Cost,
    ops: Vec<OpRecord>,
    kinds: Vec<KindRecord>,
}

#[derive(Serialize)]
struct OpRecord {
    index: usize,
    name: String,
    kind: &'static str,
    input: String,
    output: String,
    #[serde(flatten)]
    cost: Cost,
}

#[derive(Serialize)]
struct KindRecord {
    kind: &'static str,
    ops: usize,
    #[serde(flatten)]
    cost: Cost,
}

/// What an op, or several, took.
#[derive(Clone, Copy, Default, Serialize)]
struct Cost {
    us: f64,
    percent: f64,
    macs: u64,
    gmacs_per_s: Option<f64>,
    percent_of_peak: Option<f64>,
}

pub(crate) fn verb(args: &Args, out: &mut Out) -> anyhow::Result<Outcome> {
    let model = args.model.load()?;
    let plan = model.plan().or_invalid()?;
    let mut session = args.session.session(&plan)?;
    let trace = args.trace.as_deref().map(OutputFile::check).transpose()?;
    if let Some(trace) = &trace {
        trace.differs_from(Path::new(model.name()))?;
    }
    let peak = peak_macs_per_second(session.kernel().kernel, session.threads());
    let image = args.runs.warm_up(&mut session)?;
    let timeline = Timeline::record(&mut session, &image, args.runs.iterations)?;
    if let Some(path) = &args.marks {
        mark(&mut session, &image, path)?;
    }

    let ops = ops(&plan, &timeline, peak);
    let record = Record {
        kernel: session.kernel().kernel.name(),
        threads: session.threads(),
        iterations: args.runs.iterations,
        output_hash: session.output_hash().to_string(),
        ms: summary(timeline.inferences.iter().map(Inference::time).collect()),
        peak_gmacs_per_s: peak.map(|peak| peak / 1e9),
        total: Cost::sum(ops.iter().map(|op| op.cost), peak),
        kinds: kinds(&ops, peak),
        ops,
    };
    if let Some(trace) = &trace {
        let trace_of = Trace::new(model.name(), &record.ops, &timeline);
        trace.write(|file| Ok(serde_json::to_writer(file, &trace_of)?))?;
    }
    out.record(&record)?;
    if !out.is_json() {
        out.line(heading(model.name(), &session, &args.runs, &record))?;
        if args.by != Some(By::Kind) {
            out.line(format_args!("\n{}", op_table(&record)))?;
        }
        if args.by != Some(By::Op) {
            out.line(format_args!("\n{}", kind_table(&record)))?;
        }
    }
    Ok(Outcome::Done)
}

/// When everything happened, in time since the first inference started.
struct Timeline {
    inferences: Vec<Inference>,
}

struct Inference {
    start: Duration,
    end: Duration,
    /// In order: an op that was done, or some of its rows, and when that was.
    steps: Vec<(usize, Duration)>,
}

impl Timeline {
    fn record(session: &mut Session<'_>, image: &[u8], iterations: usize) -> anyhow::Result<Self> {
        let mut timeline = Self { inferences: vec![] };
        let first = Instant::now();
        for _ in 0..iterations {
            // As many as last time: taking memory is not to be timed.
            let count = timeline.inferences.last().map_or(0, |run| run.steps.len());
            let mut steps = Vec::with_capacity(count);
            let start = first.elapsed();
            session.run_profiled(image, |op| steps.push((op, first.elapsed())))?;
            timeline.inferences.push(Inference {
                start,
                end: first.elapsed(),
                steps,
            });
        }
        Ok(timeline)
    }

    /// The median time of each of `count` ops.
    fn medians(&self, count: usize) -> Vec<Duration> {
        let mut times = vec![Vec::with_capacity(self.inferences.len()); count];
        for inference in &self.inferences {
            times
                .iter_mut()
                .for_each(|times| times.push(Duration::ZERO));
            for (op, start, end) in inference.spans() {
                if let Some(time) = times.get_mut(op).and_then(|times| times.last_mut()) {
                    *time += end - start;
                }
            }
        }
        let median = |mut times: Vec<Duration>| {
            times.sort_unstable();
            percentile(&times, 50)
        };
        times.into_iter().map(median).collect()
    }
}

impl Inference {
    fn time(&self) -> Duration {
        self.end - self.start
    }

    /// Ops, or parts of their rows, with start and end.
    fn spans(&self) -> impl Iterator<Item = (usize, Duration, Duration)> {
        let starts = [self.start]
            .into_iter()
            .chain(self.steps.iter().map(|&(_, end)| end));
        let spans = self.steps.iter().zip(starts);
        spans.map(|(&(op, end), start)| (op, start, end))
    }
}

/// One inference whose ops an emulator can tell apart.
fn mark(session: &mut Session<'_>, image: &[u8], path: &Path) -> anyhow::Result<()> {
    let open = OpenOptions::new().write(true).open(path);
    let mut file: File = open
        .with_context(|| format!("{}: cannot be opened", path.display()))
        .or_invalid()?;
    let mut marked = file.seek(SeekFrom::Start(MARKS));
    session.run_profiled(image, |op| {
        if marked.is_ok() {
            marked = file.seek(SeekFrom::Start(MARKS + 1 + op as u64));
        }
    })?;
    marked.with_context(|| format!("{}: its position cannot be set", path.display()))?;
    Ok(())
}

impl Cost {
    fn new(time: Duration, macs: u64, peak: Option<f64>) -> Self {
        let macs_per_s = macs as f64 / time.as_secs_f64();
        let macs_per_s = (macs > 0 && macs_per_s.is_finite()).then_some(macs_per_s);
        Self {
            us: microseconds(time),
            percent: 0.0,
            macs,
            gmacs_per_s: macs_per_s.map(|rate| rate / 1e9),
            percent_of_peak: macs_per_s.zip(peak).map(|(rate, peak)| 100.0 * rate / peak),
        }
    }

    fn sum(costs: impl Iterator<Item = Self>, peak: Option<f64>) -> Self {
        let (mut us, mut percent, mut macs) = (0.0, 0.0, 0);
        for cost in costs {
            us += cost.us;
            percent += cost.percent;
            macs += cost.macs;
        }
        Self {
            percent,
            ..Self::new(Duration::from_secs_f64(us / 1e6), macs, peak)
        }
    }

    /// Headings of [`Self::cells`].
    fn headings() -> [Cell; 5] {
        ["µs", "%", "MACs", "GMAC/s", "% of peak"].map(right)
    }

    fn cells(&self) -> [Cell; 5] {
        let one_digit =
            |number: Option<f64>| number.map_or_else(String::new, |n| format!("{n:.1}"));
        [
            right(format_args!("{:.1}", self.us)),
            right(format_args!("{:.1}", self.percent)),
            right(grouped(self.macs)),
            right(one_digit(self.gmacs_per_s)),
            right(one_digit(self.percent_of_peak)),
        ]
    }
}

/// What every op took, in the order of the plan.
fn ops(plan: &Plan<'_>, timeline: &Timeline, peak: Option<f64>) -> Vec<OpRecord> {
    let times = timeline.medians(plan.ops().len());
    let total: Duration = times.iter().sum();
    let typed = |id| {
        plan.tensor(id)
            .map_or_else(String::new, |t| typed_shape(&t))
    };
    let record = |(index, (op, time)): (usize, (vitlet::Op<'_>, &Duration))| OpRecord {
        index,
        name: op.name.to_owned(),
        kind: op.kind.name(),
        input: op
            .inputs
            .into_iter()
            .flatten()
            .next()
            .map_or_else(String::new, typed),
        output: typed(op.output),
        cost: Cost {
            percent: 100.0 * time.as_secs_f64() / total.as_secs_f64().max(f64::MIN_POSITIVE),
            ..Cost::new(*time, op.kind.macs(), peak)
        },
    };
    plan.ops().zip(&times).enumerate().map(record).collect()
}

/// The ops of each kind together, the costliest first.
fn kinds(ops: &[OpRecord], peak: Option<f64>) -> Vec<KindRecord> {
    let mut by_kind = BTreeMap::<_, Vec<Cost>>::new();
    for op in ops {
        by_kind.entry(op.kind).or_default().push(op.cost);
    }
    let record = |(kind, costs): (_, Vec<Cost>)| KindRecord {
        kind,
        ops: costs.len(),
        cost: Cost::sum(costs.into_iter(), peak),
    };
    let mut kinds: Vec<_> = by_kind.into_iter().map(record).collect();
    kinds.sort_by(|a, b| b.cost.us.total_cmp(&a.cost.us));
    kinds
}

fn heading(model: &str, session: &Session<'_>, runs: &RunArgs, record: &Record) -> Table {
    let mut table = Table::default();
    table.entry("model", model);
    let reason = session.kernel().reason;
    table.entry("kernel", format_args!("{} ({reason})", record.kernel));
    table.entry("threads", record.threads);
    if let Some(cores) = session.cores() {
        table.entry("cores", cores);
    }
    table.entry("inferences", runs);
    table.entry("ms", &record.ms);
    if let Some(peak) = record.peak_gmacs_per_s {
        let what = "matrix product of this kernel on data in the first-level cache, measured now";
        table.entry("peak", format_args!("{peak:.1} GMAC/s: {what}"));
    }
    table
}

fn op_table(record: &Record) -> Table {
    let mut table = Table::default();
    let row = |op: Cell, kind: &str, cost: [Cell; 5], rest: [&str; 3]| {
        let ends = rest.map(left);
        [op, left(kind)]
            .into_iter()
            .chain(cost)
            .chain(ends)
            .collect::<Vec<_>>()
    };
    table.row(row(
        right("op"),
        "kind",
        Cost::headings(),
        ["input", "output", "name"],
    ));
    for op in &record.ops {
        let rest = [&*op.input, &op.output, &op.name];
        table.row(row(right(op.index), op.kind, op.cost.cells(), rest));
    }
    table.row(row(right(""), "total", record.total.cells(), [""; 3]));
    table
}

fn kind_table(record: &Record) -> Table {
    let mut table = Table::default();
    let row = |kind: &str, ops: Cell, cost: [Cell; 5]| {
        [left(kind), ops]
            .into_iter()
            .chain(cost)
            .collect::<Vec<_>>()
    };
    table.row(row("kind", right("ops"), Cost::headings()));
    for kind in &record.kinds {
        table.row(row(kind.kind, right(kind.ops), kind.cost.cells()));
    }
    table.row(row("total", right(record.ops.len()), record.total.cells()));
    table
}

/// Chrome's trace format: <https://docs.google.com/document/d/1CvAClvFfyA5R-PhYUmn5OOQtYMH4h6I0nSsKchNAySU>.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Trace<'a> {
    display_time_unit: &'static str,
    trace_events: Vec<Event<'a>>,
}

#[derive(Serialize)]
#[serde(tag = "ph")]
enum Event<'a> {
    /// Something that took time.
    #[serde(rename = "X")]
    Complete {
        name: String,
        cat: &'a str,
        /// Microseconds since the first inference started, and how many it took.
        ts: f64,
        dur: f64,
        pid: u32,
        tid: u32,
        args: Details<'a>,
    },
    /// A process's name.
    #[serde(rename = "M")]
    Metadata {
        name: &'static str,
        pid: u32,
        args: ProcessName<'a>,
    },
}

#[derive(Serialize)]
struct ProcessName<'a> {
    name: &'a str,
}

/// What is shown of an op that is clicked on.
#[derive(Serialize)]
struct Details<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    op: Option<&'a OpRecord>,
}

impl<'a> Trace<'a> {
    /// Inferences, and their ops below them. All on one line: ops follow each other, and all threads work on one.
    fn new(model: &'a str, ops: &'a [OpRecord], timeline: &Timeline) -> Self {
        let span = |name, cat, start, end, op| Event::Complete {
            name,
            cat,
            ts: microseconds(start),
            dur: microseconds(end - start),
            pid: 1,
            tid: 1,
            args: Details { op },
        };
        let mut trace_events = vec![Event::Metadata {
            name: "process_name",
            pid: 1,
            args: ProcessName { name: model },
        }];
        for (number, inference) in timeline.inferences.iter().enumerate() {
            let name = format!("inference {}", number + 1);
            trace_events.push(span(
                name,
                "inference",
                inference.start,
                inference.end,
                None,
            ));
            for (op, start, end) in inference.spans() {
                if let Some(op) = ops.get(op) {
                    let event = span(op.name.clone(), op.kind, start, end, Some(op));
                    trace_events.push(event);
                }
            }
        }
        Self {
            display_time_unit: "ns",
            trace_events,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn us(count: u64) -> Duration {
        Duration::from_micros(count)
    }

    /// Op 0, then two turns of ops 1 and 2, a few rows each.
    fn inference(start: u64) -> Inference {
        let ends = [(0, 10), (1, 11), (2, 13), (1, 16), (2, 20)];
        Inference {
            start: us(start),
            end: us(start + 21),
            steps: ends.map(|(op, end)| (op, us(start + end))).into(),
        }
    }

    #[test]
    fn parts_of_an_op_add_up() {
        let timeline = Timeline {
            inferences: [0, 50, 100].map(inference).into(),
        };
        assert_eq!(timeline.medians(3), [us(10), us(4), us(6)]);
        let spans: Vec<_> = inference(5).spans().collect();
        assert_eq!(spans[0], (0, us(5), us(15)));
        assert_eq!(spans[4], (2, us(21), us(25)));
    }

    #[test]
    fn rates_are_of_ops_with_work() {
        let cost = Cost::new(us(100), 2_000_000, Some(40e9));
        assert_eq!(cost.gmacs_per_s, Some(20.0));
        assert_eq!(cost.percent_of_peak, Some(50.0));
        assert_eq!(Cost::new(us(100), 0, Some(40e9)).gmacs_per_s, None);
        assert_eq!(Cost::new(us(0), 7, Some(40e9)).gmacs_per_s, None);
        assert_eq!(Cost::new(us(1), 7, None).percent_of_peak, None);
    }
}
