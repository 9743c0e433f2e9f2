//! The pipeline with a tiny model and sources that are faster, slower, damaged, unplugged or without end.
#![allow(clippy::unwrap_used)]

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use vitlet::{Frame, Model, Options, PixelFormat, Session};
use vitlet_camera::{
    CameraError, CameraFrame, Classified, Description, Layout, Notice, Observer, PipelineOptions,
    Preprocessing, Reason, Source, SourceSettings, Step, Stop, Summary, Uri,
};
use vitlet_plan::testing::tiny_plan;

const SIDE: u32 = 20;

/// What a scripted source does next.
#[derive(Clone, Copy)]
enum Script {
    Frame,
    Damaged,
    Undecodable,
    Lost,
    Found,
    Fail,
}

/// A source that follows a script and then ends.
struct Scripted {
    script: std::vec::IntoIter<Script>,
    live: bool,
    number: u64,
    /// Every frame waits for this, if it is there.
    gate: Option<Arc<Mutex<()>>>,
}

fn scripted(script: impl Into<Vec<Script>>, live: bool) -> Scripted {
    Scripted {
        script: script.into().into_iter(),
        live,
        number: 0,
        gate: None,
    }
}

fn pixels(number: u64) -> Vec<u8> {
    (0..SIDE * SIDE * 3)
        .map(|i| (u64::from(i) * 7 + number * 31) as u8)
        .collect()
}

impl Source for Scripted {
    fn description(&self) -> Description {
        Description {
            source: "script".to_owned(),
            format: "RGB3".to_owned(),
            width: Some(SIDE),
            height: Some(SIDE),
            per_s: None,
            live: self.live,
        }
    }

    fn next(&mut self, frame: &mut CameraFrame) -> Result<Step, CameraError> {
        let Some(step) = self.script.next() else {
            return Ok(Step::End);
        };
        let gone = CameraError::Gone {
            device: "script".into(),
        };
        match step {
            Script::Damaged => return Ok(Step::Damaged),
            Script::Lost => return Ok(Step::Lost(gone)),
            Script::Found => return Ok(Step::Found),
            Script::Fail => return Err(gone),
            Script::Frame | Script::Undecodable => {}
        }
        if let Some(gate) = &self.gate {
            drop(gate.lock().unwrap());
        }
        frame.number = self.number;
        self.number += 1;
        frame.dequeued = Instant::now();
        frame.layout = match step {
            Script::Undecodable => Layout::Encoded,
            _ => Layout::Pixels {
                format: PixelFormat::Rgb8,
                width: SIDE,
                height: SIDE,
                stride: SIDE as usize * 3,
            },
        };
        frame.bytes = pixels(frame.number);
        Ok(Step::Frame)
    }
}

/// Writes everything down.
#[derive(Default)]
struct Log {
    frames: Vec<(u64, String, bool)>,
    notices: Vec<String>,
    /// After so many frames it has had enough.
    enough: Option<usize>,
    slow: Option<Duration>,
}

impl Observer for Log {
    type Error = CameraError;

    fn frame(
        &mut self,
        classified: &Classified<'_>,
        frame: CameraFrame,
    ) -> Result<Option<CameraFrame>, CameraError> {
        assert_eq!(frame.number, classified.number);
        assert!(classified.times.end_to_end >= classified.age);
        self.frames.push((
            classified.number,
            classified.output_hash.to_string(),
            classified.late,
        ));
        if let Some(time) = self.slow {
            thread::sleep(time);
        }
        if self.enough == Some(self.frames.len()) {
            return Err(CameraError::Uri {
                uri: "enough".to_owned(),
            });
        }
        Ok(Some(frame))
    }

    fn notice(&mut self, notice: Notice) -> Result<(), CameraError> {
        self.notices.push(match notice {
            Notice::Lost(error) => format!("lost: {error}"),
            Notice::Found => "found".to_owned(),
            Notice::Damaged(why, before) => format!("damaged after {before}: {why}"),
        });
        Ok(())
    }
}

fn run(
    source: impl Source + 'static,
    options: &PipelineOptions,
    stop: &Stop,
    log: &mut Log,
) -> Result<Summary, CameraError> {
    let model = Model::from_bytes(&tiny_plan(3), "tiny");
    let plan = model.plan().unwrap();
    let mut session = Session::new(&plan, &Options::default()).unwrap();
    vitlet_camera::run(Box::new(source), &mut session, options, stop, log)
}

/// Frames are preprocessed beside inference, and between two.
fn both() -> [PipelineOptions; 2] {
    [Preprocessing::Beside, Preprocessing::Between].map(|preprocessing| PipelineOptions {
        preprocessing: Some(preprocessing),
        ..PipelineOptions::default()
    })
}

#[test]
fn a_free_cpu_preprocesses() {
    let cpus = thread::available_parallelism().unwrap().get();
    for (threads, expected) in [
        (cpus - 1, Preprocessing::Beside),
        (cpus, Preprocessing::Between),
        (cpus + 1, Preprocessing::Between),
    ] {
        assert_eq!(Preprocessing::for_threads(threads), expected);
    }
}

#[test]
fn every_frame_of_a_file_is_classified_as_without_a_pipeline() {
    for options in both() {
        let mut log = Log::default();
        let source = scripted([Script::Frame; 200], false);
        let summary = run(source, &options, &Stop::new(), &mut log).unwrap();
        assert_eq!(summary.reason, Reason::End);
        assert_eq!((summary.frames, summary.captured), (200, 200));
        assert_eq!((summary.dropped, summary.damaged, summary.late), (0, 0, 0));
        assert_eq!(summary.meters.inference.count(), 200);

        let model = Model::from_bytes(&tiny_plan(3), "tiny");
        let mut session = Session::new(&model.plan().unwrap(), &Options::default()).unwrap();
        for (number, (got, hash, _)) in log.frames.iter().enumerate() {
            assert_eq!(*got, number as u64);
            let pixels = pixels(*got);
            let frame =
                Frame::new(PixelFormat::Rgb8, SIDE, SIDE, SIDE as usize * 3, &pixels).unwrap();
            session.classify_frame(&frame, 1).unwrap();
            assert_eq!(*hash, session.output_hash().to_string());
        }
    }
}

#[test]
fn of_a_live_source_only_the_latest_frame_is_kept() {
    for options in both() {
        let gate = Arc::new(Mutex::new(()));
        let closed = gate.lock().unwrap();
        let mut source = scripted([Script::Frame; 1000], true);
        source.gate = Some(Arc::clone(&gate));
        let mut log = Log {
            slow: Some(Duration::from_millis(1)),
            ..Log::default()
        };
        let stop = Stop::new();
        let summary = thread::scope(|scope| {
            let running = scope.spawn(|| run(source, &options, &stop, &mut log).unwrap());
            drop(closed);
            running.join().unwrap()
        });
        assert_eq!(summary.captured, 1000);
        assert_eq!(summary.frames + summary.dropped, 1000);
        assert!(summary.dropped > 0);
        assert_eq!(summary.late, 0);
        // In order, and the last one that came is the last one that was classified.
        assert!(log.frames.is_sorted_by(|a, b| a.0 < b.0));
        assert_eq!(log.frames.last().unwrap().0, 999);
    }
}

#[test]
fn a_live_source_that_is_faster_is_never_late() {
    for options in both() {
        let uri = Uri::parse("test:").unwrap();
        let settings = SourceSettings {
            size: Some((64, 48)),
            per_s: Some(2000.0),
            ..SourceSettings::default()
        };
        let model = Model::from_bytes(&tiny_plan(3), "tiny");
        let mut session = Session::new(&model.plan().unwrap(), &Options::default()).unwrap();
        let source = vitlet_camera::open(&uri, &settings).unwrap();
        let options = PipelineOptions {
            frames: Some(300),
            ..options
        };
        let mut log = Log::default();
        let summary =
            vitlet_camera::run(source, &mut session, &options, &Stop::new(), &mut log).unwrap();
        assert_eq!((summary.reason, summary.frames), (Reason::Frames, 300));
        assert_eq!(summary.late, 0);
        assert!(log.frames.iter().all(|(_, _, late)| !late));
    }
}

#[test]
fn damaged_frames_and_lost_cameras_are_told_of_and_cost_nothing_else() {
    for options in both() {
        use Script::{Damaged, Found, Frame, Lost, Undecodable};
        let script = [Frame, Damaged, Lost, Found, Undecodable, Frame];
        let mut log = Log::default();
        let summary = run(scripted(script, false), &options, &Stop::new(), &mut log).unwrap();
        assert_eq!((summary.frames, summary.damaged), (2, 2));
        assert_eq!(log.notices.len(), 4, "{:?}", log.notices);
        assert!(
            log.notices
                .iter()
                .any(|told| told == "lost: script: unplugged")
        );
        assert!(log.notices.iter().any(|told| told == "found"));
        assert!(
            log.notices
                .iter()
                .any(|told| told.contains("neither a JPEG nor a PNG"))
        );
    }
}

#[test]
fn errors_end_it_after_what_came_before() {
    for options in both() {
        let mut log = Log::default();
        let script = [Script::Frame, Script::Frame, Script::Fail];
        let error = run(scripted(script, false), &options, &Stop::new(), &mut log).unwrap_err();
        assert!(matches!(error, CameraError::Gone { .. }));

        let mut log = Log {
            enough: Some(3),
            ..Log::default()
        };
        let source = scripted([Script::Frame; 50], false);
        let error = run(source, &options, &Stop::new(), &mut log).unwrap_err();
        assert!(error.to_string().starts_with("enough"));
        assert_eq!(log.frames.len(), 3);
    }
}

/// A pipe whose writer has stopped.
struct Silent(Arc<AtomicBool>);

impl Source for Silent {
    fn description(&self) -> Description {
        scripted([], true).description()
    }

    fn next(&mut self, _: &mut CameraFrame) -> Result<Step, CameraError> {
        self.0.store(true, Ordering::Relaxed);
        loop {
            thread::park();
        }
    }
}

#[test]
fn it_stops_though_its_source_never_returns() {
    for options in both() {
        let stop = Stop::new();
        let waiting = Arc::new(AtomicBool::new(false));
        let source = Silent(Arc::clone(&waiting));
        let summary = thread::scope(|scope| {
            let running =
                scope.spawn(|| run(source, &options, &stop, &mut Log::default()).unwrap());
            while !waiting.load(Ordering::Relaxed) {
                thread::yield_now();
            }
            stop.request();
            running.join().unwrap()
        });
        assert_eq!((summary.reason, summary.frames), (Reason::Stopped, 0));
    }
}

/// A source that panics.
struct Broken;

impl Source for Broken {
    fn description(&self) -> Description {
        scripted([], true).description()
    }

    fn next(&mut self, _: &mut CameraFrame) -> Result<Step, CameraError> {
        std::panic::resume_unwind(Box::new("on purpose"))
    }
}

#[test]
fn a_source_that_panics_does_not_hang_it() {
    for options in both() {
        let summary = run(Broken, &options, &Stop::new(), &mut Log::default()).unwrap();
        assert_eq!(summary.frames, 0);
    }
}

#[test]
fn scores_below_the_threshold_are_not_reported() {
    struct Most(usize);
    impl Observer for Most {
        type Error = CameraError;
        fn frame(
            &mut self,
            classified: &Classified<'_>,
            frame: CameraFrame,
        ) -> Result<Option<CameraFrame>, CameraError> {
            self.0 = self.0.max(classified.top.len());
            Ok(Some(frame))
        }
        fn notice(&mut self, _: Notice) -> Result<(), CameraError> {
            Ok(())
        }
    }
    let most = |options: PipelineOptions| {
        let model = Model::from_bytes(&tiny_plan(3), "tiny");
        let mut session = Session::new(&model.plan().unwrap(), &Options::default()).unwrap();
        let source = Box::new(scripted([Script::Frame; 5], false));
        let mut most = Most(0);
        vitlet_camera::run(source, &mut session, &options, &Stop::new(), &mut most).unwrap();
        most.0
    };
    for options in both() {
        assert_eq!(most(options), 5);
        assert_eq!(most(PipelineOptions { k: 2, ..options }), 2);
        let threshold = 1.0;
        assert_eq!(
            most(PipelineOptions {
                threshold,
                ..options
            }),
            0
        );
    }
}
