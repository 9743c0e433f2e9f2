//! Cameras for vitlet: frames from V4L2 devices, files, folders and pipes; capture, preprocessing and inference side by side; a preview
//! page for a browser.
//!
//! ```no_run
//! use vitlet::{Model, Options, Session};
//! use vitlet_camera::{
//!     CameraError, CameraFrame, Classified, Notice, Observer, PipelineOptions, SourceSettings, Stop, Uri,
//! };
//!
//! struct Print;
//!
//! impl Observer for Print {
//!     type Error = CameraError;
//!
//!     fn frame(&mut self, seen: &Classified<'_>, frame: CameraFrame) -> Result<Option<CameraFrame>, CameraError> {
//!         let best = seen.top.first().and_then(|class| class.label);
//!         println!("{} ms old: {}", seen.age.as_millis(), best.unwrap_or("nothing"));
//!         Ok(Some(frame))
//!     }
//!
//!     fn notice(&mut self, notice: Notice) -> Result<(), CameraError> {
//!         println!("{notice:?}");
//!         Ok(())
//!     }
//! }
//!
//! let model = Model::open("model.vitlet")?;
//! let mut session = Session::new(&model.plan()?, &Options::default())?;
//! let source = vitlet_camera::open(&Uri::parse("/dev/video0")?, &SourceSettings::default())?;
//! vitlet_camera::run(source, &mut session, &PipelineOptions::default(), &Stop::new(), &mut Print)?;
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! | module | says |
//! |---|---|
//! | `uri` | [`Uri`]: a source by name |
//! | `source` | [`open`]: devices, files, folders, pipes, the test picture |
//! | `devices` | [`cameras`]: those of this machine, and who uses them |
//! | `format` | [`Format`]: four-character codes |
//! | `frame` | [`CameraFrame`]: a captured frame |
//! | `latest` | the place for one frame between two threads |
//! | `pipeline` | [`run`]: the threads, and how old a frame gets |
//! | `smoothing` | averages of scores over frames |
//! | `meter` | percentiles of times |
//! | `sensors` | temperature, clock, memory |
//! | `record` | what is said of a frame in JSON |
//! | `preview` | [`Preview`]: the page, and who may see it |
//! | `error` | [`CameraError`]: the thing, the place, the remedy |
#![forbid(unsafe_code)]

mod devices;
mod error;
mod format;
mod frame;
mod latest;
mod meter;
mod pipeline;
mod preview;
mod record;
mod sensors;
mod smoothing;
mod source;
mod uri;

pub use devices::{Camera, Holder, Offer, cameras};
pub use error::CameraError;
pub use format::Format;
pub use frame::{CameraFrame, Layout};
pub use meter::{Meter, Percentiles};
pub use pipeline::{
    Classified, Meters, Notice, Observer, PipelineOptions, Preprocessing, Reason, Stop, Summary,
    Times, run,
};
pub use preview::{Hello, Preview, PreviewAddress};
pub use record::{Milliseconds, Top};
pub use sensors::{Readings, resident_bytes};
pub use source::{Description, Source, SourceSettings, Step, from_reader, open};
pub use uri::Uri;
