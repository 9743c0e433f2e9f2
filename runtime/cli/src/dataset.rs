//! Folders of photos: found in a fixed order, whatever order the file system gives.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::Context as _;
use vitlet::{Photo, Preprocessor};

use crate::failure::{OrInvalid as _, invalid};

/// A folder with one folder of photos per class.
#[derive(Debug)]
pub(crate) struct Dataset {
    /// Sorted by name.
    pub(crate) classes: Vec<ClassFolder>,
}

/// The photos of one class.
#[derive(Debug)]
pub(crate) struct ClassFolder {
    pub(crate) name: String,
    /// Sorted by path.
    pub(crate) photos: Vec<PathBuf>,
}

impl Dataset {
    /// Finds the class folders of `path` and the photos in them. Hidden files and folders are overlooked.
    pub(crate) fn open(path: &Path) -> anyhow::Result<Self> {
        let mut classes = Vec::new();
        for entry in sorted_entries(path).or_invalid()? {
            // Links to folders are followed here, but not below.
            if entry.is_dir() {
                let name = entry.file_name().unwrap_or_default();
                classes.push(ClassFolder {
                    name: name.to_string_lossy().into_owned(),
                    photos: photos_below(&entry).or_invalid()?,
                });
            }
        }
        if classes.is_empty() {
            return Err(invalid(format_args!(
                "{}: has no class folders; put the photos of each class into a folder of its own",
                path.display()
            )));
        }
        Ok(Self { classes })
    }

    /// As [`Dataset::open`], but photos that lie in the folder itself will do: they are one class without a name.
    #[cfg(feature = "compiler")]
    pub(crate) fn open_photos(path: &Path) -> anyhow::Result<Self> {
        let entries = sorted_entries(path).or_invalid()?;
        if entries.iter().any(|entry| entry.is_dir()) || !entries.iter().any(|e| Photo::has_name(e))
        {
            return Self::open(path);
        }
        Ok(Self {
            classes: vec![ClassFolder {
                name: String::new(),
                photos: photos_below(path).or_invalid()?,
            }],
        })
    }

    /// Whether the classes have names: photos without class folders have none.
    #[cfg(feature = "compiler")]
    pub(crate) fn is_named(&self) -> bool {
        self.classes.iter().all(|class| !class.name.is_empty())
    }

    /// `count` photos with the index of their class, or all if there are fewer: evenly over the classes, and evenly over the sorted
    /// photos of each class. Classes take turns.
    pub(crate) fn spread(&self, count: usize) -> Vec<(usize, &Path)> {
        let sizes: Vec<usize> = self
            .classes
            .iter()
            .map(|class| class.photos.len())
            .collect();
        let shares = shares(&sizes, count);
        let rounds = shares.iter().copied().max().unwrap_or(0);
        let mut spread = Vec::new();
        for round in 0..rounds {
            for (index, class) in self.classes.iter().enumerate() {
                let share = shares[index];
                if round < share {
                    spread.push((index, &*class.photos[round * class.photos.len() / share]));
                }
            }
        }
        spread
    }

    pub(crate) fn len(&self) -> usize {
        self.classes.iter().map(|class| class.photos.len()).sum()
    }
}

/// How many photos each class gives: as even as the sizes allow, earlier classes first.
fn shares(sizes: &[usize], count: usize) -> Vec<usize> {
    let mut shares = vec![0; sizes.len()];
    let mut left = count.min(sizes.iter().sum());
    while left > 0 {
        let open = shares
            .iter()
            .zip(sizes)
            .filter(|(share, size)| share < size)
            .count();
        // At least one class is open, since `left` is no more than what is left in them.
        let each = (left / open.max(1)).max(1);
        for (share, &size) in shares.iter_mut().zip(sizes) {
            let more = each.min(size - *share).min(left);
            *share += more;
            left -= more;
        }
    }
    shares
}

/// The photos of a folder that was named: without any, that is a mistake.
pub(crate) fn photos_in(folder: &Path) -> anyhow::Result<Vec<PathBuf>> {
    let photos = photos_below(folder)?;
    anyhow::ensure!(
        !photos.is_empty(),
        "{}: no .jpg, .jpeg or .png file in this folder",
        folder.display()
    );
    Ok(photos)
}

/// Every photo in a folder and the folders in it, sorted by path.
fn photos_below(folder: &Path) -> anyhow::Result<Vec<PathBuf>> {
    let mut photos = Vec::new();
    // A list of open folders instead of recursion: depth is the file system's affair.
    let mut folders = vec![folder.to_owned()];
    while let Some(folder) = folders.pop() {
        for path in sorted_entries(&folder)? {
            let is_link = path.is_symlink();
            if path.is_dir() {
                // A link may lead back up.
                if !is_link {
                    folders.push(path);
                }
            } else if Photo::has_name(&path) {
                photos.push(path);
            }
        }
    }
    photos.sort();
    Ok(photos)
}

/// What is in a folder, but for hidden names, sorted.
fn sorted_entries(folder: &Path) -> anyhow::Result<Vec<PathBuf>> {
    let context = || format!("{}: cannot be read as a folder", folder.display());
    let mut paths = Vec::new();
    for entry in fs::read_dir(folder).with_context(context)? {
        let entry = entry.with_context(context)?;
        if !entry.file_name().as_encoded_bytes().starts_with(b".") {
            paths.push(entry.path());
        }
    }
    paths.sort();
    Ok(paths)
}

/// Reads a photo as the model's image.
pub(crate) fn open_image(path: &Path, preprocessor: &mut Preprocessor) -> anyhow::Result<Vec<u8>> {
    let photo = Photo::open(path)?;
    preprocessor
        .photo(&photo)
        .with_context(|| path.display().to_string())
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn dataset(sizes: &[usize]) -> Dataset {
        let class = |(class, &size): (usize, &usize)| ClassFolder {
            name: format!("{class}"),
            photos: (0..size)
                .map(|photo| PathBuf::from(format!("{class}/{photo}")))
                .collect(),
        };
        Dataset {
            classes: sizes.iter().enumerate().map(class).collect(),
        }
    }

    fn names(dataset: &Dataset, count: usize) -> Vec<String> {
        let spread = dataset.spread(count);
        spread
            .iter()
            .map(|(_, path)| path.display().to_string())
            .collect()
    }

    #[test]
    fn photos_are_spread_evenly() {
        assert_eq!(shares(&[10, 10, 10], 4), [2, 1, 1]);
        assert_eq!(shares(&[1, 10, 0, 10], 12), [1, 6, 0, 5]);
        assert_eq!(shares(&[2, 3], 100), [2, 3]);
        assert_eq!(shares(&[], 5), [0; 0]);
        assert_eq!(
            names(&dataset(&[4, 8]), 6),
            ["0/0", "1/0", "0/1", "1/2", "0/2", "1/5"]
        );
        assert_eq!(names(&dataset(&[3, 2]), 99).len(), 5);
    }

    #[test]
    fn folders_are_read_in_order() {
        let folder = tempfile::tempdir().unwrap();
        for name in [
            "b/2.PNG",
            "b/1.jpg",
            "a/x/y.jpeg",
            "a/notes.txt",
            ".hidden/3.jpg",
            "c/.4.jpg",
        ] {
            let path = folder.path().join(name);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, b"").unwrap();
        }
        std::os::unix::fs::symlink("..", folder.path().join("b/up")).unwrap();
        let dataset = Dataset::open(folder.path()).unwrap();
        let names: Vec<_> = dataset.classes.iter().map(|class| &*class.name).collect();
        assert_eq!(names, ["a", "b", "c"]);
        assert_eq!(
            dataset.classes[1].photos,
            ["b/1.jpg", "b/2.PNG"].map(|name| folder.path().join(name))
        );
        assert_eq!(
            (dataset.len(), dataset.classes[2].photos.is_empty()),
            (3, true)
        );
        let error = Dataset::open(&folder.path().join("c"))
            .unwrap_err()
            .to_string();
        assert!(error.contains("has no class folders"), "{error}");
    }

    #[cfg(feature = "compiler")]
    #[test]
    fn loose_photos_are_one_class_without_a_name() {
        let folder = tempfile::tempdir().unwrap();
        fs::create_dir(folder.path().join("class")).unwrap();
        for name in ["class/1.jpg", "class/2.png"] {
            fs::write(folder.path().join(name), b"").unwrap();
        }
        let loose = Dataset::open_photos(&folder.path().join("class")).unwrap();
        assert_eq!((loose.len(), loose.is_named()), (2, false));
        assert!(Dataset::open_photos(folder.path()).unwrap().is_named());
    }
}
