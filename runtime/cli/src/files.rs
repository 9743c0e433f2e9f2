//! Output files: whether they can be written is known before the work starts, and they appear whole or not at all.

use std::ffi::OsString;
use std::fs;
use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};

use anyhow::Context as _;
use tempfile::NamedTempFile;

use crate::failure::{OrInvalid as _, invalid};

/// A place for an output file that has been tried.
#[derive(Debug)]
pub(crate) struct OutputFile {
    /// As the user wrote it.
    shown: PathBuf,
    /// Absolute, links followed.
    target: PathBuf,
    folder: PathBuf,
}

impl OutputFile {
    /// Tries whether a file can be created where `path` is; nothing is left there.
    pub(crate) fn check(path: &Path) -> anyhow::Result<Self> {
        let target = resolve(path)?;
        let folder = target
            .parent()
            .ok_or_else(|| invalid(format_args!("{}: not a file's name", path.display())))?;
        let output = Self {
            shown: path.to_owned(),
            folder: folder.to_owned(),
            target,
        };
        output.create().map(drop).or_invalid()?;
        Ok(output)
    }

    /// As the user wrote it.
    #[cfg(feature = "compiler")]
    pub(crate) fn path(&self) -> &Path {
        &self.shown
    }

    /// Refuses to write over one of the files that are read.
    pub(crate) fn differs_from(&self, input: &Path) -> anyhow::Result<()> {
        if fs::canonicalize(input).is_ok_and(|input| input == self.target) {
            return Err(invalid(format_args!(
                "{}: is also an input and would be overwritten; name another output",
                self.shown.display()
            )));
        }
        Ok(())
    }

    /// Refuses one file for two outputs.
    #[cfg(feature = "compiler")]
    pub(crate) fn differs_from_output(&self, other: &Self) -> anyhow::Result<()> {
        if self.target == other.target {
            return Err(invalid(format_args!(
                "{}: named for two outputs; name another file for one of them",
                self.shown.display()
            )));
        }
        Ok(())
    }

    /// Writes the file under another name beside its place, then renames it. On failure nothing is left.
    pub(crate) fn write(
        &self,
        contents: impl FnOnce(&mut dyn Write) -> io::Result<()>,
    ) -> anyhow::Result<()> {
        let file = self.create()?;
        let failed = || format!("{}: cannot be written", self.shown.display());
        let mut writer = BufWriter::new(file);
        contents(&mut writer).with_context(failed)?;
        let file = writer.into_inner().map_err(io::IntoInnerError::into_error);
        let file = file.with_context(failed)?;
        // Some file systems tell that they are full only now.
        file.as_file().sync_all().with_context(failed)?;
        file.persist(&self.target)
            .map_err(|error| error.error)
            .with_context(failed)?;
        Ok(())
    }

    /// A file beside the target that is removed when it is dropped.
    fn create(&self) -> anyhow::Result<NamedTempFile> {
        let mut prefix = OsString::from(".");
        prefix.push(self.target.file_name().unwrap_or_default());
        prefix.push(".");
        let mut builder = tempfile::Builder::new();
        builder.prefix(&prefix).suffix(".part");
        #[cfg(unix)]
        {
            // The rights of any new file, which the umask restricts, and not the private ones of a temporary file.
            use std::os::unix::fs::PermissionsExt as _;
            builder.permissions(fs::Permissions::from_mode(0o666));
        }
        builder.tempfile_in(&self.folder).map_err(|error| {
            // The error names the temporary file, which means nothing to the user.
            let reason = error
                .raw_os_error()
                .map_or(error, io::Error::from_raw_os_error);
            anyhow::anyhow!(
                "{}: no file can be created in folder {}: {reason}; name another place",
                self.shown.display(),
                self.folder.display()
            )
        })
    }
}

/// The absolute path of an output: an existing regular file's, or a new name's in an existing folder.
fn resolve(path: &Path) -> anyhow::Result<PathBuf> {
    let shown = path.display();
    match fs::metadata(path) {
        Ok(metadata) if metadata.is_dir() => {
            return Err(invalid(format_args!(
                "{shown}: is a folder; name a file in it"
            )));
        }
        Ok(metadata) if !metadata.is_file() => {
            return Err(invalid(format_args!(
                "{shown}: is not a regular file; name one"
            )));
        }
        Ok(_) => {
            return fs::canonicalize(path)
                .with_context(|| shown.to_string())
                .or_invalid();
        }
        Err(_) => {}
    }
    let Some(name) = path.file_name() else {
        return Err(invalid(format_args!("{shown}: not a file's name")));
    };
    let folder = match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    };
    let folder = fs::canonicalize(folder)
        .with_context(|| {
            format!(
                "{shown}: its folder {} cannot be used, create it first",
                folder.display()
            )
        })
        .or_invalid()?;
    if !folder.is_dir() {
        return Err(invalid(format_args!(
            "{shown}: {} is not a folder",
            folder.display()
        )));
    }
    Ok(folder.join(name))
}

/// Reads a text file of at most 64 MB.
#[cfg(feature = "compiler")]
pub(crate) fn read_text(path: &Path) -> anyhow::Result<String> {
    const LIMIT: u64 = 64_000_000;
    let text = fs::File::open(path).and_then(|file| {
        let mut text = String::new();
        io::Read::read_to_string(&mut io::Read::take(file, LIMIT + 1), &mut text)?;
        Ok(text)
    });
    let text = text
        .with_context(|| format!("{}: cannot be read as text", path.display()))
        .or_invalid()?;
    if text.len() as u64 > LIMIT {
        return Err(invalid(format_args!(
            "{}: more than 64 MB of text; is it the right file?",
            path.display()
        )));
    }
    Ok(text)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn names(folder: &Path) -> Vec<String> {
        let entries = fs::read_dir(folder).unwrap();
        entries
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect()
    }

    #[test]
    fn nothing_is_left_after_a_check_or_a_failure() {
        let folder = tempfile::tempdir().unwrap();
        let output = OutputFile::check(&folder.path().join("out")).unwrap();
        assert!(names(folder.path()).is_empty());
        let error = output
            .write(|file| {
                file.write_all(&[1; 100_000])?;
                Err(io::ErrorKind::StorageFull.into())
            })
            .unwrap_err();
        assert!(format!("{error:#}").contains("out: cannot be written: no storage space"));
        assert!(names(folder.path()).is_empty());
        output.write(|file| file.write_all(b"whole")).unwrap();
        assert_eq!(names(folder.path()), ["out"]);
    }

    #[test]
    fn inputs_are_not_overwritten() {
        let folder = tempfile::tempdir().unwrap();
        let input = folder.path().join("in");
        fs::write(&input, b"").unwrap();
        let link = folder.path().join("link");
        std::os::unix::fs::symlink(&input, &link).unwrap();
        for path in [
            input.clone(),
            link.clone(),
            folder.path().join("../").join(&input),
        ] {
            let output = OutputFile::check(&path).unwrap();
            assert!(output.differs_from(&input).is_err());
            assert!(output.differs_from(&link).is_err());
        }
    }

    #[test]
    #[cfg(feature = "compiler")]
    fn outputs_differ() {
        let folder = tempfile::tempdir().unwrap();
        let [one, two] =
            ["one", "two"].map(|name| OutputFile::check(&folder.path().join(name)).unwrap());
        one.differs_from_output(&two).unwrap();
        assert!(one.differs_from_output(&one).is_err());
    }

    #[test]
    fn places_that_cannot_be() {
        let folder = tempfile::tempdir().unwrap();
        let message = |path: &Path| OutputFile::check(path).unwrap_err().to_string();
        assert!(message(folder.path()).contains("is a folder"));
        assert!(message(&folder.path().join("none/out")).contains("create it first"));
        assert!(message(Path::new("/dev/null")).contains("not a regular file"));
        assert!(message(Path::new("..")).contains("is a folder"));
        fs::write(folder.path().join("file"), b"").unwrap();
        message(&folder.path().join("file/out"));
    }
}
