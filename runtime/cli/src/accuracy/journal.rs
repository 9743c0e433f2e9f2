//! What `--resume` writes down: a line of JSON per photo, so that a run that was stopped need not start again.

use std::fs::{File, OpenOptions, TryLockError};
use std::io::{Read as _, Write as _};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use anyhow::Context as _;
use serde::Serialize;
use vitlet::Digest;

use super::tally::{Answer, ReferenceAnswer};
use super::{Photo, Source};
use crate::failure::{OrInvalid as _, invalid};

/// Of the file's lines.
const VERSION: u32 = 2;

/// The first line: what the others are about.
#[derive(Debug, Serialize)]
struct Header {
    vitlet_accuracy: u32,
    /// SHA-256 of the plan, of the photos with their names and classes, and of the f32 model.
    plan: String,
    photos: String,
    reference: Option<String>,
}

/// How any other line starts; an [`Answer`] goes on.
#[derive(Debug, Serialize)]
struct Entry<'a> {
    photo: &'a str,
    class: usize,
}

impl Entry<'_> {
    /// The start of the line of a photo.
    fn of(photo: &Photo<'_>) -> anyhow::Result<String> {
        let entry = Entry {
            photo: &photo.name,
            class: photo.class,
        };
        let mut text = serde_json::to_string(&entry)?;
        text.pop();
        Ok(text)
    }
}

impl Header {
    /// Reads every photo.
    fn new(source: &Source<'_>) -> anyhow::Result<Self> {
        let mut list = String::new();
        for photo in source.photos {
            // One that cannot be read will be reported when it should be looked at.
            let contents = std::fs::read(photo.path).unwrap_or_default();
            list += &format!("{} {} {}\n", photo.class, Digest::of(&contents), photo.name);
        }
        let reference = source.reference.map(|path| {
            let context = || format!("{}: cannot be read", path.display());
            let bytes = std::fs::read(path).with_context(context).or_invalid()?;
            Ok::<_, anyhow::Error>(Digest::of(&bytes).to_string())
        });
        Ok(Self {
            vitlet_accuracy: VERSION,
            plan: Digest::of(source.plan).to_string(),
            photos: Digest::of(list.as_bytes()).to_string(),
            reference: reference.transpose()?,
        })
    }

    /// Refuses what was written down about something else: `found` is the first line.
    fn check(&self, found: &str, shown: &str) -> anyhow::Result<()> {
        let first = format!("{{\"vitlet_accuracy\":{VERSION},");
        if !found.starts_with(&first) {
            return Err(foreign(shown));
        }
        let short = |digest: Option<&str>| {
            let digest = digest.map(|digest| digest.get(..16).unwrap_or(digest));
            digest.map_or_else(|| "none".to_owned(), |digest| format!("{digest}…"))
        };
        let said = |field: &str| {
            let (_, rest) = found.split_once(&format!("\"{field}\":\""))?;
            rest.split('"').next()
        };
        let (plan, photos) = (Some(&*self.plan), Some(&*self.photos));
        for (field, what, wanted) in [
            ("plan", "another plan", plan),
            ("photos", "other photos, or another --limit", photos),
            (
                "reference",
                "another --reference",
                self.reference.as_deref(),
            ),
        ] {
            let found = said(field);
            if found != wanted {
                let (found, wanted) = (short(found), short(wanted));
                return Err(invalid(format_args!(
                    "{shown}: is about {what} (SHA-256 {found}, now it is {wanted}); name another file for this run, or delete that one"
                )));
            }
        }
        Ok(())
    }
}

fn foreign(shown: &str) -> anyhow::Error {
    invalid(format_args!(
        "{shown}: not a file that --resume of this version made; name another one"
    ))
}

/// The file, open and locked.
pub(super) struct Journal {
    shown: PathBuf,
    file: Mutex<File>,
}

impl Journal {
    /// Opens or makes the file. Returns what it says of each photo, too.
    pub(super) fn open(
        path: &Path,
        source: &Source<'_>,
    ) -> anyhow::Result<(Self, Vec<Option<Answer>>)> {
        let header = Header::new(source)?;
        let shown = path.display().to_string();
        let context = || format!("{shown}: cannot be read and written");
        let mut options = OpenOptions::new();
        options.read(true).append(true).create(true);
        let mut file = options.open(path).with_context(context).or_invalid()?;
        match file.try_lock() {
            Err(TryLockError::WouldBlock) => {
                return Err(invalid(format_args!(
                    "{shown}: another run is writing it; wait for that, or name another file"
                )));
            }
            // Some file systems have no locks.
            Ok(()) | Err(TryLockError::Error(_)) => {}
        }
        let mut bytes = vec![];
        file.read_to_end(&mut bytes)
            .with_context(context)
            .or_invalid()?;
        let first = serde_json::to_string(&header)? + "\n";
        // A run can be stopped in the middle of a line.
        let whole = bytes
            .iter()
            .rposition(|byte| *byte == b'\n')
            .map_or(0, |end| end + 1);
        let known = if whole == 0 && first.as_bytes().starts_with(&bytes) {
            file.set_len(0).with_context(context)?;
            file.write_all(first.as_bytes()).with_context(context)?;
            vec![None; source.photos.len()]
        } else {
            let known = read(&bytes[..whole], &header, source, &shown)?;
            file.set_len(whole as u64).with_context(context)?;
            known
        };
        let journal = Self {
            shown: path.to_owned(),
            file: Mutex::new(file),
        };
        Ok((journal, known))
    }

    /// Writes down what was said of a photo.
    pub(super) fn append(&self, photo: &Photo<'_>, answer: &Answer) -> anyhow::Result<()> {
        let answer = serde_json::to_string(answer)?;
        let line = format!("{},{}\n", Entry::of(photo)?, answer.trim_start_matches('{'));
        // A thread that panicked has written its line, or not.
        let mut file = self.file.lock().unwrap_or_else(PoisonError::into_inner);
        // One write: whoever stops this run is unlikely to stop it in the middle of a line.
        file.write_all(line.as_bytes())
            .with_context(|| format!("{}: cannot be written", self.shown.display()))
    }
}

/// What whole lines say of each photo.
fn read(
    bytes: &[u8],
    header: &Header,
    source: &Source<'_>,
    shown: &str,
) -> anyhow::Result<Vec<Option<Answer>>> {
    let text = std::str::from_utf8(bytes).map_err(|_| foreign(shown))?;
    let mut lines = text.lines().zip(1..);
    header.check(lines.next().map_or("", |(line, _)| line), shown)?;
    let starts = source.photos.iter().map(Entry::of);
    let starts: Vec<String> = starts.collect::<anyhow::Result<_>>()?;
    let mut next = 0;
    let mut known = vec![None; source.photos.len()];
    for (line, number) in lines {
        let (start, answer) = entry(line, source).unwrap_or_default();
        // Lines are nearly in the photos' order.
        let mut places = (next..starts.len()).chain(0..next);
        let place = places
            .find(|place| starts[*place] == start)
            .ok_or_else(|| {
                invalid(format_args!(
                    "{shown}: line {number} is damaged; delete that line, or the file"
                ))
            })?;
        known[place] = Some(answer);
        next = place + 1;
    }
    Ok(known)
}

/// The start of a photo's line, and what was said of it. Lines are read exactly as [`Journal::append`] writes them: a parser of any
/// JSON would be a large part of the boards' program.
fn entry<'l>(line: &'l str, source: &Source<'_>) -> Option<(&'l str, Answer)> {
    let (start, rest) = line.split_once(",\"top\":[")?;
    let (top, rest) = rest.split_once("],\"score\":")?;
    let rest = rest.strip_suffix('}')?;
    let reference = rest.split_once(",\"reference\":{\"class\":");
    let class = |text: &str| text.parse().ok().filter(|class| *class < source.classes);
    let answer = Answer {
        top: top.split(',').map(class).collect::<Option<_>>()?,
        score: reference.map_or(rest, |(score, _)| score).parse().ok()?,
        reference: match reference {
            None => None,
            Some((_, rest)) => {
                let (of, rest) = rest.strip_suffix('}')?.split_once(",\"score\":")?;
                let (score, rest) = rest.split_once(",\"signal\":")?;
                let (signal, noise) = rest.split_once(",\"noise\":")?;
                Some(ReferenceAnswer {
                    class: class(of)?,
                    score: score.parse().ok()?,
                    signal: signal.parse().ok()?,
                    noise: noise.parse().ok()?,
                })
            }
        },
    };
    let complete = answer.reference.is_some() == source.reference.is_some();
    complete.then_some((start, answer))
}
