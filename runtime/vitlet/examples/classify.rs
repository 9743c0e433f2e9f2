//! Classifies photos: `cargo run --release -p vitlet --example classify -- model.vitlet photo.jpg…`

use std::error::Error;
use std::io::Write as _;

use vitlet::{Model, Options, Photo, Session};

fn main() -> Result<(), Box<dyn Error>> {
    let mut arguments = std::env::args_os().skip(1);
    let plan = arguments
        .next()
        .ok_or("usage: classify MODEL.vitlet PHOTO…")?;

    // The file is read, then verified once; everything after that trusts it.
    let model = Model::open(plan)?;
    let mut session = Session::new(&model.plan()?, &Options::default())?;

    let mut out = std::io::stdout();
    for path in arguments {
        let photo = Photo::open(&path)?;
        let classification = session.classify(&photo, 3)?;
        writeln!(out, "{}  ({:?})", path.display(), classification.inference)?;
        for class in classification.top {
            let label = class.label.unwrap_or("no label");
            writeln!(out, "{:6.1} %  {label}", class.score * 100.0)?;
        }
    }
    Ok(())
}
