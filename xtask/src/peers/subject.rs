//! A model in the forms that the engines take: ONNX in f32 and int8, and a plan; and the images they are run on.

use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, ensure};
use xshell::cmd;

use super::CRATE;
use super::contender::{Contender, Engine};
use super::programs::Programs;
use crate::cache;
use crate::project::Project;

/// Photos that ranges are measured on, for vitlet's plan and for ONNX Runtime's int8 file alike.
pub(super) const CALIBRATION: usize = 32;
/// Other photos, on which outputs are compared.
pub(super) const COMPARED: usize = 8;
const SAMPLES: &str = "models/samples";

/// Models whose ONNX files `python -m vitlet_models export` writes, with what they are called on the page.
const EXPORTED: [(&str, &str); 3] = [
    ("sepvit_lite", "SepViT-Lite"),
    ("swin_tiny_w7_224", "Swin-T"),
    ("dualvit_s", "Dual-ViT-S"),
];

pub(super) struct Subject {
    pub(super) name: &'static str,
    pub(super) title: &'static str,
    /// What its weights are.
    pub(super) weights: &'static str,
    onnx: PathBuf,
    folder: PathBuf,
}

impl Subject {
    /// The model of the zoo, and those whose files are in `models`.
    pub(super) fn all(project: &Project, root: &Path, models: Option<&Path>) -> Result<Vec<Self>> {
        let subject = |name, title, weights, onnx| Self {
            name,
            title,
            weights,
            onnx,
            folder: root.join("models").join(name),
        };
        let mut subjects = vec![subject(
            "pvt_v2_b0",
            "PVTv2-b0",
            "trained on TrashNet, `models/zoo/pvt_v2_b0_trashnet`",
            project
                .root
                .join("models/zoo/pvt_v2_b0_trashnet/model.onnx"),
        )];
        let Some(models) = models else {
            return Ok(subjects);
        };
        // The root is the shell's folder, but the argument was typed elsewhere, perhaps.
        let models = std::env::current_dir()?.join(models);
        for (name, title) in EXPORTED {
            let onnx = models.join(format!("{name}.onnx"));
            if onnx.is_file() {
                subjects.push(subject(name, title, "random, seed 0", onnx));
            } else {
                println!("{}: not there, not measured", onnx.display());
            }
        }
        Ok(subjects)
    }

    #[cfg(test)]
    pub(super) fn for_tests() -> Self {
        Self {
            name: "a_model",
            title: "A model",
            weights: "random",
            onnx: PathBuf::new(),
            folder: PathBuf::new(),
        }
    }

    pub(super) fn path(&self, file: &str) -> PathBuf {
        self.folder.join(file)
    }

    /// The file that a contender loads.
    pub(super) fn model(&self, contender: Contender) -> PathBuf {
        match (contender.engine, contender.int8) {
            (Engine::Vitlet, _) => self.path("model.vitlet"),
            (_, true) => self.path("int8.onnx"),
            (_, false) => self.onnx.clone(),
        }
    }

    /// The images to compare on, as an engine takes them; the first is timed.
    pub(super) fn images(&self, project: &Project, engine: Engine) -> Result<Vec<PathBuf>> {
        let extension = if engine == Engine::Vitlet {
            "rgb"
        } else {
            "f32"
        };
        files(project, &self.path("comparison"), extension)
    }

    /// Makes all of it that is not there.
    pub(super) fn prepare(&self, programs: &Programs<'_>) -> Result<()> {
        let Programs { project, .. } = programs;
        let sh = &project.sh;
        sh.create_dir(&self.folder)?;
        let photos = photos(project, &programs.root)?;
        let plan = self.model(Contender::VITLET);
        let (onnx, vitlet) = (&self.onnx, &programs.vitlet);
        let (name, count) = (self.name, CALIBRATION.to_string());
        cache::made(&plan, &[onnx.clone(), vitlet.clone()], || {
            println!("{name}: compiling the plan");
            let calib = &photos[0];
            Ok(cmd!(
                sh,
                "{vitlet} compile {onnx} -o {plan} --calib {calib} --calib-count {count} --name {name} --json"
            )
            .ignore_stdout()
            .run()?)
        })?;
        let image_program = programs.native.image_program();
        for (photos, folder) in photos.iter().zip(["calibration", "comparison"]) {
            let out = self.path(folder);
            cache::made(&out, &[image_program.clone(), plan.clone()], || {
                sh.remove_path(&out)?;
                sh.create_dir(&out)?;
                let photos = files(project, photos, "jpg")?;
                Ok(cmd!(sh, "{image_program} {plan} {photos...} --out {out}")
                    .quiet()
                    .run()?)
            })?;
        }
        self.quantise(programs)
    }

    /// The int8 ONNX file, by ONNX Runtime's tools.
    fn quantise(&self, programs: &Programs<'_>) -> Result<()> {
        let Programs {
            project, python, ..
        } = programs;
        let sh = &project.sh;
        let script = project.root.join(CRATE).join("quantise.py");
        let requirements = project.root.join(CRATE).join("requirements.txt");
        let images = self.path("calibration");
        let mut sources = files(project, &images, "f32")?;
        sources.extend([self.onnx.clone(), script.clone(), requirements]);
        let (onnx, int8) = (&self.onnx, self.model(Contender::REFERENCE));
        cache::made(&int8, &sources, || {
            println!("{}: quantising by ONNX Runtime's tools", self.name);
            cmd!(sh, "{python} {script} {onnx} {int8} {images}")
                .run()
                .context("ONNX Runtime's quantize_static")
        })
    }
}

/// Folders with the photos to calibrate on and with those to compare on, spread over the classes of the samples.
fn photos(project: &Project, root: &Path) -> Result<[PathBuf; 2]> {
    let sh = &project.sh;
    let all = files(project, &project.root.join(SAMPLES), "jpg")?;
    ensure!(
        all.len() >= CALIBRATION + COMPARED,
        "{SAMPLES}: {} photos; {CALIBRATION} and {COMPARED} others are needed",
        all.len()
    );
    let (calibration, compared) = split(all.len());
    let folders = ["calibration", "comparison"].map(|name| root.join("photos").join(name));
    for (folder, indices) in folders.iter().zip([calibration, compared]) {
        sh.remove_path(folder)?;
        sh.create_dir(folder)?;
        for index in indices {
            sh.copy_file(&all[index], folder)?;
        }
    }
    Ok(folders)
}

/// Which of so many photos, in the order of their classes, ranges are measured on, and which outputs are compared on.
fn split(photos: usize) -> (Vec<usize>, Vec<usize>) {
    let chosen = |index: usize| index * CALIBRATION / photos;
    let (calibration, others): (Vec<_>, Vec<_>) =
        (0..photos).partition(|&index| index == 0 || chosen(index) > chosen(index - 1));
    let step = others.len() / COMPARED;
    let compared = others.into_iter().step_by(step).take(COMPARED).collect();
    (calibration, compared)
}

/// The files of a folder with this extension, by name.
fn files(project: &Project, folder: &Path, extension: &str) -> Result<Vec<PathBuf>> {
    let mut files = project.sh.read_dir(folder)?;
    files.retain(|path| path.extension().is_some_and(|e| e == extension));
    files.sort();
    Ok(files)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn photos_are_of_all_classes_and_in_one_half() {
        for photos in [CALIBRATION + COMPARED, 60, 1000] {
            let (calibration, compared) = split(photos);
            assert_eq!((calibration.len(), compared.len()), (CALIBRATION, COMPARED));
            assert!(compared.iter().all(|index| !calibration.contains(index)));
            let spread = calibration.iter().map(|index| index * 4 / photos);
            assert_eq!(spread.max(), Some(3));
        }
    }
}
