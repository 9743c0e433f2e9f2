//! Whether photos are fit to calibrate with: a plan clips what they did not show, and nothing else would say so.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use vitlet::Digest;

use crate::failure::{invalid, warn};

/// Fewer photos than this are no sample.
const FEW: usize = 8;
/// Colours that differ less are one plain colour, as a JPEG of it has them.
const PLAIN: u8 = 8;
/// Colour channels that differ less are grey.
const GREY: u8 = 2;
/// The share of photos that the model may call by one name, if folders do not say what they show.
const ONE_CLASS: f64 = 0.8;

/// What was noticed, photo by photo.
pub(crate) struct PhotoCheck<'p> {
    photos: usize,
    /// Class folders that photos came from.
    folders: BTreeSet<usize>,
    /// How many photos the f32 model calls by each class.
    said: BTreeMap<usize, usize>,
    images: BTreeMap<[u8; 32], &'p Path>,
    /// Photos that are like one before, with that one.
    copies: Vec<[&'p Path; 2]>,
    plain: Vec<&'p Path>,
    grey: usize,
}

impl<'p> PhotoCheck<'p> {
    pub(crate) fn new() -> Self {
        Self {
            photos: 0,
            folders: BTreeSet::new(),
            said: BTreeMap::new(),
            images: BTreeMap::new(),
            copies: Vec::new(),
            plain: Vec::new(),
            grey: 0,
        }
    }

    /// Notes a photo: its file, the image made of it, the number of its class folder and the class that the f32 model sees.
    pub(crate) fn add(&mut self, path: &'p Path, image: &[u8], folder: usize, class: usize) {
        self.photos += 1;
        self.folders.insert(folder);
        *self.said.entry(class).or_default() += 1;
        match self.images.get(&Digest::of(image).0) {
            Some(first) => self.copies.push([path, first]),
            None => drop(self.images.insert(Digest::of(image).0, path)),
        }
        if is_plain(image) {
            self.plain.push(path);
        } else {
            self.grey += usize::from(is_grey(image));
        }
    }

    /// Warns of what is odd; an error if the photos show nothing at all.
    pub(crate) fn report(&self, folder: &Path, named: bool, classes: usize) -> anyhow::Result<()> {
        let (folder, photos) = (folder.display(), self.photos);
        if self.plain.len() == photos {
            return Err(invalid(format_args!(
                "{folder}: every calibration photo is of one plain colour, and ranges of those would clip every real photo; give photos as the camera takes them"
            )));
        }
        warn_if_few(photos);
        if let Some(first) = self.plain.first() {
            warn(format_args!(
                "{folder}: {} of {photos} calibration photos are of one plain colour, the first is {}; leave them out",
                self.plain.len(),
                first.display()
            ));
        }
        if let Some([copy, first]) = self.copies.first() {
            warn(format_args!(
                "{folder}: {} of {photos} calibration photos are copies of others, {} of {}; they count once more without showing more",
                self.copies.len(),
                copy.display(),
                first.display()
            ));
        }
        if self.grey + self.plain.len() == photos {
            warn(format_args!(
                "{folder}: no calibration photo has colours; if those in use have, give some of them, or they will be clipped"
            ));
        }
        self.warn_of_one_class(&folder, named, classes);
        Ok(())
    }

    fn warn_of_one_class(&self, folder: &dyn std::fmt::Display, named: bool, classes: usize) {
        let most = self.said.iter().max_by_key(|(_, count)| **count);
        let (Some((class, count)), true) = (most, classes > 1) else {
            return;
        };
        let remedy = "give photos of all classes, or what sets the others apart may be clipped";
        if named {
            if self.folders.len() == 1 {
                warn(format_args!(
                    "{folder}: all calibration photos are of one class, and the model has {classes}; {remedy}"
                ));
            }
        } else if self.photos >= FEW && *count as f64 >= ONE_CLASS * self.photos as f64 {
            warn(format_args!(
                "{folder}: the model, in f32, sees class {class} on {count} of {} calibration photos; {remedy}",
                self.photos
            ));
        }
    }
}

/// Warns if ranges stand on few photos.
pub(crate) fn warn_if_few(photos: usize) {
    if photos < FEW {
        warn(format_args!(
            "ranges of {photos} calibration photo{} are hardly those of other photos, which will be clipped; give at least {FEW} typical ones, better 64",
            if photos == 1 { "" } else { "s" }
        ));
    }
}

/// Whether each colour channel is nearly the same all over an RGB image.
fn is_plain(image: &[u8]) -> bool {
    (0..3).all(|channel| {
        let values = || image.iter().skip(channel).step_by(3);
        let (low, high) = (values().min(), values().max());
        low.zip(high).is_none_or(|(low, high)| high - low < PLAIN)
    })
}

fn is_grey(image: &[u8]) -> bool {
    let (pixels, _) = image.as_chunks::<3>();
    pixels.iter().all(|[r, g, b]| {
        let (low, high) = (r.min(g).min(b), r.max(g).max(b));
        high - low < GREY
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn plain_and_grey_images() {
        assert!(is_plain(&[10, 200, 30, 12, 203, 37]));
        assert!(!is_plain(&[10, 200, 30, 12, 208, 30]));
        assert!(is_grey(&[10, 10, 11, 200, 200, 200]));
        assert!(!is_grey(&[10, 10, 10, 200, 202, 200]));
    }
}
