//! Where frames come from, as it is written on a command line.

use std::fmt;
use std::path::{Path, PathBuf};

use crate::CameraError;

/// A source of frames by name: the forms of jetson-inference where they exist there.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Uri {
    /// A V4L2 device: `/dev/video0`, `v4l2:///dev/video0`.
    Device(PathBuf),
    /// A file of video: `clip.mjpeg`, `file://clip.y4m`.
    Clip(PathBuf),
    /// A folder of photos, in the order of their names.
    Folder(PathBuf),
    /// `-`: standard input.
    Stdin,
    /// `test:`: a moving test picture.
    Pattern,
}

impl Uri {
    /// The source that `uri` names. Files and folders must exist; devices need not, they may be plugged in later.
    ///
    /// # Errors
    /// [`CameraError::Uri`] if it is no form of a source, [`CameraError::Read`] if there is no such file.
    pub fn parse(uri: &str) -> Result<Self, CameraError> {
        let unknown = || CameraError::Uri {
            uri: uri.to_owned(),
        };
        if uri == "-" {
            return Ok(Self::Stdin);
        }
        if matches!(uri, "test:" | "test://") {
            return Ok(Self::Pattern);
        }
        if let Some(device) = uri.strip_prefix("v4l2://") {
            return if device.starts_with('/') {
                Ok(Self::Device(device.into()))
            } else {
                Err(unknown())
            };
        }
        let path = match uri.split_once("://") {
            Some(("file", path)) => path,
            Some(_) => return Err(unknown()),
            None => uri,
        };
        if path.is_empty() {
            return Err(unknown());
        }
        Self::from_path(Path::new(path))
    }

    fn from_path(path: &Path) -> Result<Self, CameraError> {
        // /dev/v4l/by-id/… are links to devices whose names stay the same when cameras are plugged in another order.
        if path.starts_with("/dev") {
            return Ok(Self::Device(path.to_owned()));
        }
        let metadata = std::fs::metadata(path).map_err(|error| CameraError::Read {
            name: path.display().to_string(),
            error,
        })?;
        Ok(if metadata.is_dir() {
            Self::Folder(path.to_owned())
        } else {
            Self::Clip(path.to_owned())
        })
    }
}

impl fmt::Display for Uri {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Device(path) | Self::Clip(path) | Self::Folder(path) => {
                write!(f, "{}", path.display())
            }
            Self::Stdin => f.write_str("standard input"),
            Self::Pattern => f.write_str("test:"),
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn forms() {
        let device = Uri::Device("/dev/video0".into());
        assert_eq!(Uri::parse("/dev/video0").unwrap(), device);
        assert_eq!(Uri::parse("v4l2:///dev/video0").unwrap(), device);
        assert_eq!(Uri::parse("-").unwrap(), Uri::Stdin);
        assert_eq!(Uri::parse("test:").unwrap(), Uri::Pattern);
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path();
        assert_eq!(
            Uri::parse(&path.display().to_string()).unwrap(),
            Uri::Folder(path.into())
        );
        let clip = path.join("clip.mjpeg");
        std::fs::write(&clip, b"").unwrap();
        let uri = format!("file://{}", clip.display());
        assert_eq!(Uri::parse(&uri).unwrap(), Uri::Clip(clip));
    }

    #[test]
    fn refusals_name_what_was_given() {
        for uri in [
            "rtsp://host/stream",
            "csi://0",
            "",
            "file://",
            "v4l2://video0",
        ] {
            let error = Uri::parse(uri).unwrap_err();
            assert!(matches!(error, CameraError::Uri { .. }), "{uri}: {error}");
            assert!(error.to_string().starts_with(uri));
        }
        let error = Uri::parse("nothing.mjpeg").unwrap_err().to_string();
        assert!(
            error.starts_with("nothing.mjpeg: cannot be read: No such file"),
            "{error}"
        );
    }
}
