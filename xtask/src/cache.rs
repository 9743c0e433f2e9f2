//! What need not be made again: a file whose `.key` says that it was made of what its sources are now.

use std::ffi::OsString;
use std::fs::{self, File};
use std::hash::{DefaultHasher, Hasher as _};
use std::io::Read as _;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};

/// The contents of files as a short text. It is the same until a file changes or Rust changes its hasher, which costs one making.
pub(crate) fn key<P: AsRef<Path>>(sources: &[P]) -> Result<String> {
    let mut hasher = DefaultHasher::new();
    let mut buffer = vec![0; 1 << 20];
    for source in sources {
        let source = source.as_ref();
        let shown = || source.display().to_string();
        let mut file = File::open(source).with_context(shown)?;
        let mut len = 0;
        loop {
            let read = file.read(&mut buffer).with_context(shown)?;
            if read == 0 {
                break;
            }
            hasher.write(&buffer[..read]);
            len += read;
        }
        hasher.write_usize(len);
    }
    Ok(format!("{:016x}", hasher.finish()))
}

/// Makes a file or folder unless it was made of these sources already.
pub(crate) fn made(
    path: &Path,
    sources: &[PathBuf],
    make: impl FnOnce() -> Result<()>,
) -> Result<()> {
    let mut key_file = OsString::from(path);
    key_file.push(".key");
    let key = key(sources)?;
    if path.exists() && fs::read_to_string(&key_file).is_ok_and(|of| of == key) {
        return Ok(());
    }
    make()?;
    // Last: a key means that the file is whole.
    Ok(fs::write(key_file, key)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_made_once_until_its_sources_change() -> Result<()> {
        let folder = std::env::temp_dir().join(format!("vitlet-cache-{}", std::process::id()));
        fs::create_dir_all(&folder)?;
        let (source, path) = (folder.join("source"), folder.join("made"));
        let sources = [source.clone()];
        let mut times = 0;
        for content in ["a", "a", "b", "ab"] {
            fs::write(&source, content)?;
            made(&path, &sources, || {
                times += 1;
                Ok(fs::write(&path, content)?)
            })?;
            assert_eq!(fs::read_to_string(&path)?, content);
        }
        assert_eq!(times, 3);
        fs::remove_file(&path)?;
        made(&path, &sources, || {
            times += 1;
            Ok(())
        })?;
        assert_eq!(times, 4, "it was not there");
        fs::remove_file(&source)?;
        assert!(made(&path, &sources, || Ok(())).is_err());
        Ok(fs::remove_dir_all(&folder)?)
    }

    #[test]
    fn a_key_tells_where_a_file_ends() -> Result<()> {
        let folder = std::env::temp_dir().join(format!("vitlet-key-{}", std::process::id()));
        fs::create_dir_all(&folder)?;
        let files = [folder.join("1"), folder.join("2")];
        let key_of = |contents: [&str; 2]| {
            for (file, content) in files.iter().zip(contents) {
                fs::write(file, content)?;
            }
            key(&files)
        };
        assert_ne!(key_of(["ab", "c"])?, key_of(["a", "bc"])?);
        Ok(fs::remove_dir_all(&folder)?)
    }
}
