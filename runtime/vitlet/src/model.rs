//! [`Model`]: the bytes of a plan, wherever they are.

use std::fs::File;
use std::io::{self, Read as _, Seek as _};
use std::path::Path;

use vitlet_plan::format::MAGIC;
use vitlet_plan::{AlignedBytes, Plan, PlanError};

use crate::Error;
use crate::memory::zeroed;

/// The bytes of a plan and the name they go by in messages.
///
/// A model owns (or borrows for ever) its bytes; [`Model::plan`] verifies them and hands out the [`Plan`] that
/// [`Session`](crate::Session)s run. Any number of sessions, on any number of threads, can share one plan.
#[derive(Debug)]
pub struct Model {
    name: String,
    bytes: Bytes,
}

#[derive(Debug)]
enum Bytes {
    Owned(AlignedBytes),
    Static(&'static [u8]),
    #[cfg(feature = "mmap")]
    Mapped(crate::map::Map),
}

impl Model {
    /// Reads a plan file into memory.
    ///
    /// # Errors
    /// [`Error::Read`] if it cannot be read; [`Error::Plan`] if its first bytes are not a plan's (the rest of such a file, which
    /// may be huge, is not read).
    pub fn open(path: impl AsRef<Path>) -> Result<Self, Error> {
        let path = path.as_ref();
        let mut file = File::open(path).map_err(|error| read_error(path, error))?;
        let name = path.display().to_string();
        let failed = |error| read_error(path, error);
        let Some(len) = plan_len(&mut file).map_err(failed)? else {
            return Err(Error::Plan {
                name,
                error: Box::new(PlanError::NotAPlan),
            });
        };
        let mut bytes = zeroed(len, "the plan file")?;
        file.rewind()
            .and_then(|()| file.read_exact(&mut bytes))
            .map_err(failed)?;
        Ok(Self {
            name,
            bytes: Bytes::Owned(bytes),
        })
    }

    /// A copy of a plan's bytes; `name` stands for them in messages.
    pub fn from_bytes(bytes: &[u8], name: impl Into<String>) -> Self {
        Self {
            name: name.into(),
            bytes: Bytes::Owned(AlignedBytes::copy_of(bytes)),
        }
    }

    /// A plan that is part of the program. The bytes must start at a multiple of 16: put them into a `#[repr(align(64))]` struct.
    pub fn from_static(bytes: &'static [u8], name: impl Into<String>) -> Self {
        Self {
            name: name.into(),
            bytes: Bytes::Static(bytes),
        }
    }

    /// Maps a plan file into memory instead of reading it: its pages are loaded when they are needed, and shared by all processes
    /// that map the file.
    ///
    /// # Safety
    /// The file's contents must not change while the model exists, neither through this program nor through another one: the plan
    /// is verified once and then trusted. Put the file where nobody writes, and replace plans by renaming a new file over the old
    /// one, as `vitlet compile` does.
    ///
    /// # Errors
    /// [`Error::Read`] if the file cannot be opened or mapped.
    #[cfg(feature = "mmap")]
    #[allow(
        unsafe_code,
        reason = "the contract of mmap is the caller's; see the module `map`"
    )]
    pub unsafe fn map(path: impl AsRef<Path>) -> Result<Self, Error> {
        let path = path.as_ref();
        // SAFETY: the caller promises what `Map::new` asks for, in the same words.
        let map = unsafe { crate::map::Map::new(path) };
        Ok(Self {
            name: path.display().to_string(),
            bytes: Bytes::Mapped(map.map_err(|error| read_error(path, error))?),
        })
    }

    /// What messages call this model: the path it was read from, or the name it was given.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The bytes of the plan.
    pub fn bytes(&self) -> &[u8] {
        match &self.bytes {
            Bytes::Owned(bytes) => bytes,
            Bytes::Static(bytes) => bytes,
            #[cfg(feature = "mmap")]
            Bytes::Mapped(map) => map.bytes(),
        }
    }

    /// Verifies the plan: every byte is read, so call it once and keep the result (it is `Copy`).
    ///
    /// # Errors
    /// [`Error::Plan`] names the model, the place in it, and what is wrong there.
    pub fn plan(&self) -> Result<Plan<'_>, Error> {
        Plan::parse(self.bytes()).map_err(|error| Error::Plan {
            name: self.name.clone(),
            error: Box::new(error),
        })
    }
}

fn read_error(path: &Path, error: io::Error) -> Error {
    Error::Read {
        path: path.to_owned(),
        error,
    }
}

/// How many bytes of the file to read, or `None` if it does not start as a plan does.
fn plan_len(file: &mut File) -> io::Result<Option<usize>> {
    let metadata = file.metadata()?;
    if metadata.is_dir() {
        return Err(io::ErrorKind::IsADirectory.into());
    }
    let mut start = Vec::new();
    file.take(MAGIC.len() as u64).read_to_end(&mut start)?;
    // A plan's offsets have 32 bits: of a longer file, one byte too many is enough for `Plan::parse` to see it.
    let len = metadata.len().min(u64::from(u32::MAX) + 1);
    Ok((start == MAGIC).then(|| usize::try_from(len).unwrap_or(usize::MAX)))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use vitlet_plan::testing::tiny_plan;

    #[test]
    fn opens_what_was_written() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("tiny.vitlet");
        std::fs::write(&path, &tiny_plan(7)[..]).unwrap();
        let model = Model::open(&path).unwrap();
        assert_eq!(model.bytes(), &tiny_plan(7)[..]);
        assert_eq!(
            model.plan().unwrap().ops().len(),
            Plan::parse(&tiny_plan(7)).unwrap().ops().len()
        );
        assert_eq!(model.name(), path.display().to_string());
    }

    #[test]
    #[cfg(feature = "mmap")]
    #[allow(unsafe_code)]
    fn maps_what_was_written() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("tiny.vitlet");
        std::fs::write(&path, &tiny_plan(7)[..]).unwrap();
        // SAFETY: nobody else knows the file.
        let model = unsafe { Model::map(&path) }.unwrap();
        assert_eq!(model.bytes(), &tiny_plan(7)[..]);
        model.plan().unwrap();
    }

    #[test]
    fn refusals_name_the_file_in_one_line() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("bad.vitlet");
        let message = |bytes: &[u8]| {
            std::fs::write(&path, bytes).unwrap();
            let error = Model::open(&path)
                .and_then(|model| model.plan().map(|_| ()))
                .unwrap_err();
            let message = error.to_string();
            assert!(
                message.starts_with(&path.display().to_string()) && !message.contains('\n'),
                "{message}"
            );
            message
        };
        assert!(message(b"").contains("not a .vitlet plan"));
        assert!(message(b"GIF89a, or so").contains("not a .vitlet plan"));
        assert!(message(&tiny_plan(1)[..100]).contains("truncated"));
        let directory = Model::open(folder.path()).unwrap_err().to_string();
        assert!(
            directory.contains("cannot be read: is a directory"),
            "{directory}"
        );
        let missing = Model::open(folder.path().join("none"))
            .unwrap_err()
            .to_string();
        assert!(missing.contains("none: cannot be read: No such file"));
    }
}
