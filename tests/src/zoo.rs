//! The models of `models/zoo`, the photos each is for, and what its plan may lose against f32.

use std::fmt;
use std::path::PathBuf;

use anyhow::{Context as _, Result, ensure};

use crate::accuracy::Figures;
use crate::{data, in_repository, photos};

/// Photos that models are trained on, and others that they are judged by.
#[derive(Debug, PartialEq)]
pub struct DataSet {
    /// The last part of a model's name.
    pub name: &'static str,
    /// Where it lies in the data beside the repository.
    pub folder: &'static str,
    /// Of the validation set.
    pub photos: usize,
}

/// Every data set.
pub const DATA_SETS: [DataSet; 2] = [
    DataSet {
        name: "imagenette",
        folder: "data/imagenette224",
        photos: 3925,
    },
    DataSet {
        name: "trashnet",
        folder: "data/trashnet256",
        photos: 503,
    },
];

/// What a plan may lose against its model in f32, on all photos of a data set.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Bounds {
    /// Most top-1 hits.
    pub lost: Lost,
    /// Least share of photos on which both say the same, in percent.
    pub agreement: f64,
    /// Least SQNR of the logits.
    pub sqnr_db: Option<f64>,
}

/// How many top-1 hits may be lost.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Lost {
    /// In percent of the photos.
    Points(f64),
    /// So many.
    Photos(f64),
}

/// The bounds, by data set and by how the network's name begins.
const BOUNDS: [(&str, &[&str], Bounds); 3] = [
    (
        "imagenette",
        &["pvt_v2", "sepvit"],
        Bounds {
            lost: Lost::Points(0.3),
            agreement: 99.1,
            sqnr_db: Some(30.0),
        },
    ),
    (
        "imagenette",
        &["swin", "dualvit"],
        Bounds {
            lost: Lost::Points(0.5),
            agreement: 98.5,
            sqnr_db: Some(26.0),
        },
    ),
    // A small set: a point of it is five photos.
    (
        "trashnet",
        &["pvt_v2", "sepvit", "swin", "dualvit"],
        Bounds {
            lost: Lost::Photos(3.0),
            agreement: 98.5,
            sqnr_db: None,
        },
    ),
];

impl Bounds {
    /// On all photos of `set`, of a plan of the model of this name.
    ///
    /// # Errors
    /// When no bounds are known: a new network or data set needs some.
    fn of(name: &str, set: &DataSet) -> Result<Self> {
        let network = |known: &&str| name.starts_with(*known);
        let row = BOUNDS
            .iter()
            .find(|(of, networks, _)| *of == set.name && networks.iter().any(network));
        let (_, _, bounds) = row.with_context(|| format!("{name}: no bounds for this network"))?;
        Ok(*bounds)
    }

    /// Photos that may be lost, of `of`.
    fn photos_lost(&self, of: usize) -> f64 {
        match self.lost {
            Lost::Points(points) => points / 100.0 * of as f64,
            Lost::Photos(photos) => photos,
        }
    }

    /// Most photos lost, and most on which f32 says something else, of a sample of `photos` of the `of` photos of a set.
    ///
    /// All photos are judged by the bounds themselves. A sample of 250 cannot be: 0.3 points of it are less than a photo, and a plan
    /// that is just within all bounds has 0 to 7 of the photos on which it disagrees with f32 in it. So a sample may have what such a
    /// plan would have on average, and three standard deviations more. That makes the short run a guard against what is broken, not a
    /// proof of the bounds; SQNR is about as good on a sample, and its bound is the same.
    fn on_sample(&self, photos: usize, of: usize) -> (f64, f64) {
        let disagreeing = (1.0 - self.agreement / 100.0) * photos as f64;
        if photos == of {
            return (self.photos_lost(of), disagreeing);
        }
        let lost = self.photos_lost(of) * photos as f64 / of as f64;
        // Each photo that disagrees is lost, won or neither: the difference varies no more than their number does.
        let slack = 3.0 * disagreeing.sqrt();
        (lost + slack, disagreeing + slack)
    }

    /// Whether figures of a plan on `of` photos, or on a sample of them, are within the bounds.
    ///
    /// # Errors
    /// When they are not: says which.
    pub fn check(&self, figures: &Figures, of: usize) -> Result<()> {
        let (lost, disagreeing) = self.on_sample(figures.photos, of);
        let found = figures.photos - figures.agreeing;
        ensure!(
            figures.photos_lost() as f64 <= lost,
            "{} photos lost, at most {lost:.1} may be",
            figures.photos_lost()
        );
        ensure!(
            found as f64 <= disagreeing,
            "{found} photos of {} on which f32 says something else, at most {disagreeing:.1} may be",
            figures.photos
        );
        // No ratio: no logit differs.
        let ratio = figures.sqnr_db.unwrap_or(f64::INFINITY);
        let least = self.sqnr_db.unwrap_or(f64::NEG_INFINITY);
        ensure!(
            ratio >= least,
            "SQNR {ratio:.1} dB, at least {least} is wanted"
        );
        Ok(())
    }
}

impl fmt::Display for Bounds {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.lost {
            Lost::Points(points) => write!(f, "at most {points} points lost")?,
            Lost::Photos(photos) => write!(f, "at most {photos} photos lost")?,
        }
        write!(f, ", agreement at least {} %", self.agreement)?;
        self.sqnr_db
            .map_or(Ok(()), |db| write!(f, ", SQNR at least {db} dB"))
    }
}

/// A model by its name: what it is judged on, and by.
#[derive(Debug)]
pub struct Subject {
    /// `network_dataset`.
    pub name: String,
    /// The last part of the name.
    pub set: &'static DataSet,
    /// On all photos.
    pub bounds: Bounds,
}

impl Subject {
    /// By the parts of a name.
    ///
    /// # Errors
    /// When its last part is no data set, or there are no bounds for it.
    pub fn named(name: &str) -> Result<Self> {
        let (_, last) = name.rsplit_once('_').unwrap_or_default();
        let set = DATA_SETS.iter().find(|set| set.name == last);
        let set = set.with_context(|| format!("{name}: the name ends in no data set"))?;
        Ok(Self {
            name: name.to_owned(),
            set,
            bounds: Bounds::of(name, set)?,
        })
    }

    /// The photos to judge it by, with their classes; `None` where there is no data (see [`data`]).
    ///
    /// # Errors
    /// When CI has no data, or the set is not complete.
    pub fn photos(&self) -> Result<Option<Vec<(usize, PathBuf)>>> {
        let DataSet {
            folder,
            photos: wanted,
            ..
        } = *self.set;
        let Some(folder) = data(&format!("{folder}/val"), wanted)? else {
            return Ok(None);
        };
        let found = photos(&folder)?;
        ensure!(
            found.len() == wanted,
            "{}: {} photos, {wanted} are expected",
            folder.display(),
            found.len()
        );
        Ok(Some(found))
    }

    /// The folder of photos to calibrate on; `None` where there is no data.
    ///
    /// # Errors
    /// When CI has no data.
    pub fn training_photos(&self) -> Result<Option<PathBuf>> {
        data(&format!("{}/train", self.set.folder), self.set.photos)
    }
}

/// A folder of `models/zoo`.
#[derive(Debug)]
pub struct ZooModel {
    /// By the folder's name.
    pub subject: Subject,
    folder: PathBuf,
}

impl ZooModel {
    /// All of them, sorted by name.
    ///
    /// # Errors
    /// When there is none, or one of a name that says no data set or has no bounds.
    pub fn all() -> Result<Vec<Self>> {
        let mut all = vec![];
        for entry in std::fs::read_dir(in_repository("models/zoo")).context("models/zoo")? {
            let folder = entry?.path();
            if folder.is_dir() {
                let name = folder.file_name().unwrap_or_default().to_string_lossy();
                let subject = Subject::named(&name)?;
                all.push(Self { subject, folder });
            }
        }
        ensure!(!all.is_empty(), "models/zoo is empty");
        all.sort_by(|a, b| a.subject.name.cmp(&b.subject.name));
        Ok(all)
    }

    /// The trained model.
    #[must_use]
    pub fn onnx(&self) -> PathBuf {
        self.folder.join("model.onnx")
    }

    /// The plan that is checked in.
    #[must_use]
    pub fn plan(&self) -> PathBuf {
        self.folder.join("model.vitlet")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn figures(photos: usize, lost: usize, disagreeing: usize, sqnr_db: f64) -> Figures {
        Figures {
            photos,
            hits: photos / 2 - lost,
            hits_f32: photos / 2,
            agreeing: photos - disagreeing,
            sqnr_db: Some(sqnr_db),
        }
    }

    #[test]
    fn names_say_data_set_and_bounds() -> Result<()> {
        for name in [
            "sepvit_lite_imagenette",
            "sepvit_lite_trashnet",
            "pvt_v2_b0_imagenette",
            "pvt_v2_b0_trashnet",
            "swin_nano_imagenette",
            "dualvit_nano_imagenette",
        ] {
            assert!(name.ends_with(Subject::named(name)?.set.name));
        }
        let bounds = |name| Subject::named(name).map(|subject| subject.bounds.sqnr_db);
        assert_eq!(bounds("pvt_v2_b0_imagenette")?, Some(30.0));
        assert_eq!(bounds("swin_nano_imagenette")?, Some(26.0));
        assert_eq!(bounds("pvt_v2_b0_trashnet")?, None);
        let said = |name| Subject::named(name).map(|subject| subject.bounds.to_string());
        assert_eq!(
            said("swin_nano_imagenette")?,
            "at most 0.5 points lost, agreement at least 98.5 %, SQNR at least 26 dB"
        );
        assert_eq!(
            said("sepvit_lite_trashnet")?,
            "at most 3 photos lost, agreement at least 98.5 %"
        );
        for unknown in ["resnet18_imagenette", "pvt_v2_b0_food101", "imagenette", ""] {
            assert!(Subject::named(unknown).is_err(), "{unknown}");
        }
        Ok(())
    }

    #[test]
    fn all_photos_are_judged_by_the_bounds_themselves() -> Result<()> {
        let set = &DATA_SETS[0];
        let bounds = Bounds::of("pvt_v2_b0_imagenette", set)?;
        // 0.3 points of 3,925 are 11.8 photos; 0.9 % are 35.3.
        let check = |lost, disagreeing, db| {
            let figures = figures(set.photos, lost, disagreeing, db);
            bounds.check(&figures, set.photos).is_ok()
        };
        assert!(check(11, 35, 30.0));
        assert!(!check(12, 35, 30.0) && !check(11, 36, 30.0) && !check(11, 35, 29.9));
        let trashnet = Bounds::of("pvt_v2_b0_trashnet", &DATA_SETS[1])?;
        let check = |lost, disagreeing| {
            let figures = figures(503, lost, disagreeing, 10.0);
            trashnet.check(&figures, 503).is_ok()
        };
        assert!(check(3, 7) && !check(4, 7) && !check(3, 8));
        Ok(())
    }

    #[test]
    fn a_sample_may_have_three_standard_deviations_more() -> Result<()> {
        let set = &DATA_SETS[0];
        let bounds = Bounds::of("pvt_v2_b0_imagenette", set)?;
        // On average 0.75 lost and 2.25 disagreeing; three times the root of that more.
        assert_eq!(bounds.on_sample(250, set.photos).0.floor(), 5.0);
        let check = |lost, disagreeing, db| {
            let figures = figures(250, lost, disagreeing, db);
            bounds.check(&figures, set.photos).is_ok()
        };
        assert!(check(5, 6, 30.0));
        assert!(!check(6, 6, 30.0) && !check(5, 7, 30.0) && !check(5, 6, 29.9));
        Ok(())
    }

    #[test]
    fn every_folder_of_the_zoo_has_a_known_name() -> Result<()> {
        for model in ZooModel::all()? {
            assert!(model.onnx().is_file() && model.plan().is_file());
        }
        Ok(())
    }
}
