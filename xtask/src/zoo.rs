//! `cargo xtask zoo`: the plans under `models/zoo`, each made from the `model.onnx` and `ranges.json` beside it.

use anyhow::{Result, ensure};
use xshell::cmd;

use crate::dist;
use crate::project::Project;

/// Compile the zoo's plans anew from their ONNX files and ranges.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Write nothing; fail if a checked-in plan is not, byte for byte, what the compiler makes today.
    #[arg(long)]
    check: bool,
}

pub(crate) fn verb(project: &Project, args: &Args) -> Result<()> {
    run(project, args.check)
}

/// With `check` the checked-in plans are compared, else replaced.
pub(crate) fn run(project: &Project, check: bool) -> Result<()> {
    let sh = &project.sh;
    let program = dist::native(project)?;
    let mut stale = Vec::new();
    for model in project.zoo()? {
        let (plan, fresh) = (model.plan(), project.scratch()?.join("zoo.vitlet"));
        let (onnx, ranges) = (model.onnx(), model.folder.join("ranges.json"));
        let labels = model.folder.join("labels.txt");
        let labels = labels.is_file().then_some(labels);
        let labels = labels
            .iter()
            .flat_map(|file| ["--labels".as_ref(), file.as_os_str()]);
        let name = &model.name;
        cmd!(
            sh,
            "{program} compile {onnx} --ranges {ranges} {labels...} --name {name} -o {fresh}"
        )
        .run()?;
        let same = plan.is_file() && sh.read_binary_file(&plan)? == sh.read_binary_file(&fresh)?;
        let shown = project.shown(&plan).display();
        if same {
            println!("{shown}: fresh");
        } else if check {
            println!("{shown}: STALE");
            stale.push(shown.to_string());
        } else {
            sh.copy_file(&fresh, &plan)?;
            println!("{shown}: written");
        }
        sh.remove_path(&fresh)?;
    }
    ensure!(
        stale.is_empty(),
        "not what the compiler makes today: {} (if meant: cargo xtask zoo)",
        stale.join(", ")
    );
    Ok(())
}
