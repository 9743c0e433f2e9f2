//! What `--resume` writes down: a line of JSON per photo, so that a run that was stopped need not start again.

use std::collections::BTreeMap;
use std::fs::{File, OpenOptions, TryLockError};
use std::io::{Read as _, Write as _};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use anyhow::Context as _;
use serde::{Deserialize, Serialize};
use vitlet::Digest;

use super::tally::Answer;
use super::{Photo, Source};
use crate::failure::{OrInvalid as _, invalid};

/// Of the file's lines.
const VERSION: u32 = 1;

/// The first line: what the others are about.
#[derive(Debug, PartialEq, Serialize, Deserialize)]
struct Header {
    vitlet_accuracy: u32,
    /// SHA-256 of the plan, of the photos with their names and classes, and of the f32 model.
    plan: String,
    photos: String,
    reference: Option<String>,
}

/// Any other line.
#[derive(Debug, Serialize, Deserialize)]
struct Entry {
    photo: String,
    class: usize,
    #[serde(flatten)]
    answer: Answer,
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

    /// Refuses what was written down about something else.
    fn check(&self, found: &Self, shown: &str) -> anyhow::Result<()> {
        let short = |digest: &Option<String>| {
            let digest = digest
                .as_deref()
                .map(|digest| digest.get(..16).unwrap_or(digest));
            digest.map_or_else(|| "none".to_owned(), |digest| format!("{digest}…"))
        };
        let same = |what: &str, found: Option<String>, wanted: Option<String>| {
            if found == wanted {
                return Ok(());
            }
            let (found, wanted) = (short(&found), short(&wanted));
            Err(invalid(format_args!(
                "{shown}: is about {what} (SHA-256 {found}, now it is {wanted}); name another file for this run, or delete that one"
            )))
        };
        let some = |digest: &String| Some(digest.clone());
        same("another plan", some(&found.plan), some(&self.plan))?;
        same(
            "other photos, or another --limit",
            some(&found.photos),
            some(&self.photos),
        )?;
        same(
            "another --reference",
            found.reference.clone(),
            self.reference.clone(),
        )
    }
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
        let entry = Entry {
            photo: photo.name.clone(),
            class: photo.class,
            answer: answer.clone(),
        };
        let line = serde_json::to_string(&entry)? + "\n";
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
    let foreign = || {
        invalid(format_args!(
            "{shown}: not a file that --resume made; name another one"
        ))
    };
    let text = std::str::from_utf8(bytes).map_err(|_| foreign())?;
    let mut lines = text.lines().zip(1..);
    let first = lines
        .next()
        .and_then(|(line, _)| serde_json::from_str::<Header>(line).ok());
    let first = first.filter(|first| first.vitlet_accuracy == VERSION);
    header.check(&first.ok_or_else(foreign)?, shown)?;
    let names = source.photos.iter().map(|photo| &*photo.name);
    let places: BTreeMap<&str, usize> = names.zip(0..).collect();
    let mut known = vec![None; source.photos.len()];
    for (line, number) in lines {
        let (place, answer) = entry(line, source, &places).ok_or_else(|| {
            invalid(format_args!(
                "{shown}: line {number} is damaged; delete that line, or the file"
            ))
        })?;
        known[place] = Some(answer);
    }
    Ok(known)
}

/// The photo's place, and what was said of it.
fn entry(
    line: &str,
    source: &Source<'_>,
    places: &BTreeMap<&str, usize>,
) -> Option<(usize, Answer)> {
    let Entry { photo, answer, .. } = serde_json::from_str(line).ok()?;
    let place = *places.get(&*photo)?;
    let reference = answer.reference.map(|reference| reference.class);
    let mut classes = answer.top.iter().copied().chain(reference);
    let known = classes.all(|class| class < source.classes);
    let complete = !answer.top.is_empty() && reference.is_some() == source.reference.is_some();
    (known && complete).then_some((place, answer))
}
