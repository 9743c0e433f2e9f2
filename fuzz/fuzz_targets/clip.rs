//! Any bytes as a pipe: MJPEG, Y4M or raw video, frame after frame to its end; what says it is pixels has as many as it says.
#![no_main]

use std::io::Cursor;

use libfuzzer_sys::fuzz_target;
use vitlet::Frame;
use vitlet_camera::{CameraFrame, Format, Layout, SourceSettings, Step, from_reader};

fuzz_target!(|bytes: &[u8]| {
    let Some((&choice, bytes)) = bytes.split_first() else {
        return;
    };
    // By the first byte: told from the contents, or raw.
    let format = Format::ALL.get(usize::from(choice)).copied();
    let settings = SourceSettings {
        format,
        size: format
            .filter(|format| *format != Format::Mjpg)
            .map(|_| (5, 3)),
        ..SourceSettings::default()
    };
    let input = Box::new(Cursor::new(bytes.to_vec()));
    let Ok(mut source) = from_reader("fuzz", input, &settings) else {
        return;
    };
    let mut frame = CameraFrame::default();
    // Every step but the last takes bytes away.
    for _ in 0..=bytes.len() {
        match source.next(&mut frame) {
            Ok(Step::Frame) => {
                if let Layout::Pixels {
                    format,
                    width,
                    height,
                    stride,
                } = frame.layout
                {
                    Frame::new(format, width, height, stride, &frame.bytes).unwrap();
                }
            }
            Ok(Step::End) | Err(_) => return,
            Ok(_) => {}
        }
    }
    panic!("no end");
});
