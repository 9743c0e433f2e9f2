//! A folder of photos, each of them a frame.

use std::fs::File;
use std::io::{self, Read as _};
use std::path::{Path, PathBuf};
use std::time::Instant;

use vitlet::Photo;

use super::{Description, Source, SourceSettings, Step, refuse};
use crate::frame::Layout;
use crate::{CameraError, CameraFrame};

/// Longest file, in bytes: a photo's limit.
const MAX_FILE: u64 = 64_000_000;

/// The photos in a folder, and not in folders below it, by name.
pub(super) struct Folder {
    folder: PathBuf,
    photos: Vec<PathBuf>,
    repeat: bool,
    /// The next one, counted on when the folder begins again.
    number: u64,
}

impl Folder {
    pub(super) fn open(folder: &Path, settings: &SourceSettings) -> Result<Self, CameraError> {
        let name = folder.display().to_string();
        refuse(
            &name,
            "photos say themselves what they are; leave --format, --width and --height out",
            settings.format.is_some() || settings.size.is_some(),
        )?;
        let read = |error| CameraError::Read {
            name: name.clone(),
            error,
        };
        let mut photos = vec![];
        for entry in std::fs::read_dir(folder).map_err(read)? {
            let path = entry.map_err(read)?.path();
            if Photo::has_name(&path) && !is_hidden(&path) && path.is_file() {
                photos.push(path);
            }
        }
        photos.sort();
        if photos.is_empty() {
            return Err(CameraError::EmptyFolder {
                folder: folder.to_owned(),
            });
        }
        Ok(Self {
            folder: folder.to_owned(),
            photos,
            repeat: settings.repeat,
            number: 0,
        })
    }
}

fn is_hidden(path: &Path) -> bool {
    path.file_name()
        .is_some_and(|name| name.as_encoded_bytes().starts_with(b"."))
}

/// A photo's bytes; of a file that is too long for one, as many as make [`Photo::decode`] say so.
fn read(path: &Path, bytes: &mut Vec<u8>) -> io::Result<()> {
    bytes.clear();
    let mut file = File::open(path)?.take(MAX_FILE + 1);
    file.read_to_end(bytes).map(drop)
}

impl Source for Folder {
    fn description(&self) -> Description {
        Description {
            source: self.folder.display().to_string(),
            format: "photos".to_owned(),
            width: None,
            height: None,
            per_s: None,
            live: false,
        }
    }

    fn next(&mut self, frame: &mut CameraFrame) -> Result<Step, CameraError> {
        let count = self.photos.len() as u64;
        if self.number >= count && !self.repeat {
            return Ok(Step::End);
        }
        let Some(path) = self.photos.get((self.number % count) as usize) else {
            return Ok(Step::End);
        };
        let start = Instant::now();
        read(path, &mut frame.bytes).map_err(|error| CameraError::Read {
            name: path.display().to_string(),
            error,
        })?;
        frame.layout = Layout::Encoded;
        frame.stamp(self.number, start);
        self.number += 1;
        Ok(Step::Frame)
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn photos_come_by_name() {
        let folder = tempfile::tempdir().unwrap();
        for name in ["b.PNG", "a.jpg", "c.jpeg", "d.txt", ".e.jpg"] {
            std::fs::write(folder.path().join(name), name).unwrap();
        }
        let settings = SourceSettings::default();
        let mut photos = Folder::open(folder.path(), &settings).unwrap();
        let mut frame = CameraFrame::default();
        for name in ["a.jpg", "b.PNG", "c.jpeg"] {
            assert!(matches!(photos.next(&mut frame).unwrap(), Step::Frame));
            assert_eq!(frame.bytes, name.as_bytes());
        }
        assert!(matches!(photos.next(&mut frame).unwrap(), Step::End));
        let empty = tempfile::tempdir().unwrap();
        let error = Folder::open(empty.path(), &settings)
            .map(|_| ())
            .unwrap_err();
        assert!(error.to_string().contains("has no photos"));
    }
}
