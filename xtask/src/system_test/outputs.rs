//! What a scenario left: the files of its folder, and what runs of the program printed into them.

use std::collections::BTreeMap;

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;

/// Frames that are captured and not classified yet, at most: one waiting for preprocessing, one in it.
pub(crate) const UNDER_WAY: usize = 2;

/// The files of a scenario's folder, by name.
#[derive(Default)]
pub(crate) struct Outputs(BTreeMap<String, Vec<u8>>);

impl Outputs {
    pub(crate) fn add(&mut self, name: &str, contents: Vec<u8>) {
        self.0.insert(name.to_owned(), contents);
    }

    pub(crate) fn files(&self) -> impl Iterator<Item = (&String, &Vec<u8>)> {
        self.0.iter()
    }

    pub(crate) fn text(&self, name: &str) -> Result<&str> {
        let contents = self
            .0
            .get(name)
            .with_context(|| format!("no file {name}"))?;
        std::str::from_utf8(contents).with_context(|| format!("{name}: not text"))
    }

    /// A number in a file of its own.
    pub(crate) fn number(&self, name: &str) -> Result<usize> {
        let text = self.text(name)?.trim();
        text.parse().with_context(|| format!("{name}: '{text}'"))
    }

    /// A run that ended with status 0 and no complaint: the objects that it printed.
    pub(crate) fn records(&self, run: &str) -> Result<Vec<Value>> {
        let (_, complaint) = self.ended(run)?;
        ensure!(complaint.is_empty(), "{run}: complained: {complaint}");
        self.records_beside_warnings(run)
    }

    /// The same of a run that had something to say on standard error, too.
    fn records_beside_warnings(&self, run: &str) -> Result<Vec<Value>> {
        let (status, complaint) = self.ended(run)?;
        ensure!(status == 0, "{run}: ended with {status}: {complaint}");
        let name = format!("{run}.out");
        let parse = |line: &str| {
            serde_json::from_str(line).with_context(|| format!("{name}: not JSON: {line}"))
        };
        self.text(&name)?.lines().map(parse).collect()
    }

    /// How a run ended: its status, and what it printed on standard error.
    pub(crate) fn ended(&self, run: &str) -> Result<(usize, &str)> {
        let status = self.number(&format!("{run}.status"))?;
        Ok((status, self.text(&format!("{run}.err"))?))
    }

    /// A run of `vitlet camera` that ended well.
    pub(crate) fn session(&self, run: &str) -> Result<Session> {
        Session::read(self.records(run)?).with_context(|| run.to_owned())
    }

    /// A run of `vitlet camera` that ended well and warned of this.
    pub(crate) fn session_with_warning(&self, run: &str, warning: &str) -> Result<Session> {
        let (_, warned) = self.ended(run)?;
        ensure!(
            warned.contains(warning),
            "{run}: no '{warning}' in: {warned}"
        );
        Session::read(self.records_beside_warnings(run)?).with_context(|| run.to_owned())
    }

    /// A run that was refused with status 2, nothing on standard output, and one line that has all these parts.
    pub(crate) fn refused(&self, run: &str, parts: &[&str]) -> Result<()> {
        let (status, complaint) = self.ended(run)?;
        let printed = self.text(&format!("{run}.out"))?;
        ensure!(
            status == 2 && printed.is_empty() && complaint.lines().count() == 1,
            "{run}: ended with {status}, not 2 and one line: {printed}{complaint}"
        );
        for part in parts {
            ensure!(
                complaint.contains(part),
                "{run}: no '{part}' in: {complaint}"
            );
        }
        Ok(())
    }
}

/// The records of one run of `vitlet camera`.
#[derive(Debug)]
pub(crate) struct Session {
    pub(crate) start: Value,
    pub(crate) frames: Vec<Value>,
    /// All events between the start and the end, by name.
    pub(crate) events: Vec<String>,
    pub(crate) end: Value,
}

impl Session {
    /// Reads and checks them: a start, whole frames in order, an end that counted them.
    fn read(records: Vec<Value>) -> Result<Self> {
        let name = |record: &Value| text(record, "event").map(str::to_owned);
        let mut between = records.into_iter();
        let start = between.next().context("nothing was printed")?;
        let end = between.next_back().context("nothing follows the start")?;
        ensure!(name(&start)? == "start", "the first record is {start}");
        ensure!(name(&end)? == "end", "the last record is {end}");
        let mut session = Self {
            start,
            frames: Vec::new(),
            events: Vec::new(),
            end,
        };
        for record in between {
            let name = name(&record)?;
            match name.as_str() {
                "frame" => session.frames.push(whole_frame(record)?),
                "lost" | "found" => drop(text(&record, "source")?),
                _ => anyhow::bail!("no such event is known: {record}"),
            }
            session.events.push(name);
        }
        session.check_counts()?;
        Ok(session)
    }

    fn check_counts(&self) -> Result<()> {
        let numbers: Vec<f64> = values(&self.frames, |frame| number(frame, "frame"))?;
        ensure!(
            numbers.is_sorted_by(|a, b| a < b),
            "the frames are out of order: {numbers:?}"
        );
        let end = &self.end;
        let frames = number(end, "frames")?;
        ensure!(
            frames == numbers.len() as f64,
            "{} frames were printed, but: {end}",
            numbers.len()
        );
        let gone = frames + number(end, "dropped")? + number(end, "damaged")?;
        ensure!(
            (gone..=gone + UNDER_WAY as f64).contains(&number(end, "captured")?),
            "the frames' fates do not make up the captured ones: {end}"
        );
        let late = self.frames.iter().filter(|frame| frame["late"] == true);
        ensure!(
            number(end, "late")? == late.count() as f64,
            "late frames are not those counted: {end}"
        );
        for part in ["capture", "preprocess", "inference", "end_to_end", "age"] {
            let times = &end["ms"][part];
            let steps = ["p50", "p90", "p99", "max"].map(|step| number(times, step));
            let steps = steps.into_iter().collect::<Result<Vec<_>>>()?;
            ensure!(steps.is_sorted() && steps[0] >= 0.0, "{part}: {times}");
        }
        Ok(())
    }

    /// The hash of every frame.
    pub(crate) fn hashes(&self) -> Result<Vec<&str>> {
        values(&self.frames, |frame| text(frame, "output_hash"))
    }
}

/// Checks that a frame's record has everything.
fn whole_frame(frame: Value) -> Result<Value> {
    let shown = || frame.to_string();
    let hash = text(&frame, "output_hash")?;
    ensure!(
        hash.len() == 64 && hash.bytes().all(|byte| byte.is_ascii_hexdigit()),
        "no hash: {}",
        shown()
    );
    ensure!(frame["late"].is_boolean(), "late or not: {}", shown());
    let scores = scores(&frame)?;
    ensure!(
        !scores.is_empty() && scores.is_sorted_by(|(_, a), (_, b)| a >= b),
        "the best class is not first: {}",
        shown()
    );
    ensure!(
        scores.iter().all(|(_, score)| (0.0..=1.0).contains(score)),
        "no share: {}",
        shown()
    );
    let times = &frame["ms"];
    let parts =
        ["capture", "preprocess", "inference", "end_to_end"].map(|part| number(times, part));
    let parts = parts.into_iter().collect::<Result<Vec<_>>>()?;
    ensure!(
        number(&frame, "age_ms")? >= 0.0 && number(&frame, "dropped")? >= 0.0,
        "negative: {}",
        shown()
    );
    ensure!(
        parts.iter().all(|&part| part >= 0.0 && part <= parts[3]),
        "the whole is less than a part: {}",
        shown()
    );
    Ok(frame)
}

/// Classes and their scores, in the order in which they are printed.
pub(crate) fn scores(record: &Value) -> Result<Vec<(u64, f64)>> {
    let top = record["top"].as_array();
    let top = top.with_context(|| format!("no 'top' in {record}"))?;
    top.iter()
        .map(|class| {
            let index = class["class"].as_u64();
            Ok((
                index.with_context(|| format!("no class in {record}"))?,
                number(class, "score")?,
            ))
        })
        .collect()
}

/// The label of the best class.
pub(crate) fn label(record: &Value) -> Result<&str> {
    text(&record["top"][0], "label")
}

pub(crate) fn text<'a>(record: &'a Value, field: &str) -> Result<&'a str> {
    let value = record[field].as_str();
    value.with_context(|| format!("no text '{field}' in {record}"))
}

pub(crate) fn number(record: &Value, field: &str) -> Result<f64> {
    let value = record[field].as_f64();
    value.with_context(|| format!("no number '{field}' in {record}"))
}

fn values<'a, T>(records: &'a [Value], value: impl Fn(&'a Value) -> Result<T>) -> Result<Vec<T>> {
    records.iter().map(value).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn frame(number: u32) -> Value {
        json!({"event": "frame", "frame": number, "top": [{"class": 3, "label": "plastic", "score": 0.9}, {"class": 0, "label": "paper", "score": 0.1}],
            "output_hash": "0f".repeat(32), "age_ms": 3.0, "late": false, "dropped": 1,
            "ms": {"capture": 0.1, "preprocess": 1.0, "inference": 10.0, "end_to_end": 12.0}})
    }

    fn session() -> Vec<Value> {
        let times = json!({"p50": 1.0, "p90": 2.0, "p99": 2.5, "max": 3.0});
        let ms = json!({"capture": times, "preprocess": times, "inference": times, "end_to_end": times, "age": times});
        vec![
            json!({"event": "start"}),
            frame(1),
            json!({"event": "lost", "source": "/dev/video0"}),
            frame(4),
            json!({"event": "end", "frames": 2, "captured": 5, "dropped": 2, "damaged": 1, "late": 0, "ms": ms}),
        ]
    }

    #[test]
    fn a_session_is_read() -> Result<()> {
        let read = Session::read(session())?;
        assert_eq!(read.events, ["frame", "lost", "frame"]);
        assert_eq!(read.hashes()?, ["0f".repeat(32), "0f".repeat(32)]);
        assert_eq!(label(&read.frames[0])?, "plastic");
        Ok(())
    }

    #[test]
    fn a_session_with_anything_wrong_is_refused() {
        let change = |record: usize, field: &'static str, value: Value| {
            move |records: &mut Vec<Value>| records[record][field] = value.clone()
        };
        type Spoil = Box<dyn Fn(&mut Vec<Value>)>;
        let breaks: [(&str, Spoil); 10] = [
            ("nothing", Box::new(Vec::clear)),
            ("no end", Box::new(|records| drop(records.pop()))),
            ("no start", Box::new(|records| drop(records.remove(0)))),
            ("order", Box::new(change(3, "frame", json!(1)))),
            ("hash", Box::new(change(1, "output_hash", json!("0f")))),
            ("count", Box::new(change(4, "frames", json!(3)))),
            ("more gone", Box::new(change(4, "dropped", json!(3)))),
            ("unknown fate", Box::new(change(4, "captured", json!(8)))),
            ("late", Box::new(change(1, "late", json!(true)))),
            ("times", Box::new(change(1, "ms", json!({"capture": 1.0})))),
        ];
        for (what, spoil) in breaks {
            let mut records = session();
            spoil(&mut records);
            assert!(Session::read(records).is_err(), "{what}");
        }
    }

    #[test]
    fn a_run_must_have_ended_as_expected() {
        let mut outputs = Outputs::default();
        for (name, text) in [("a.status", "2\n"), ("a.out", ""), ("a.err", "busy\n")] {
            outputs.add(name, text.as_bytes().to_vec());
        }
        assert!(outputs.refused("a", &["busy"]).is_ok());
        assert!(outputs.refused("a", &["missing"]).is_err());
        assert!(outputs.records("a").is_err());
        assert!(outputs.records("b").is_err());
        outputs.add("a.status", b"0\n".to_vec());
        assert!(outputs.refused("a", &["busy"]).is_err());
        assert!(outputs.records("a").is_err(), "it complained");
        assert!(outputs.records_beside_warnings("a").is_ok());
    }
}
