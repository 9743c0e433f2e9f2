//! A V4L2 video output, fed from this program's own memory.
//!
//! linuxvideo opens it and negotiates the format. Its stream of frames cannot be used: it asks an output for buffers to capture into
//! (0.3.5, `VideoOutputDevice::into_stream`). Neither can `write`: Linux 6.1 queues what was written with a length of 0, which
//! vivid refuses. So the four calls of streaming are made here:
//! <https://docs.kernel.org/userspace-api/media/v4l/userp.html>.

use std::error::Error;
use std::mem::size_of;
use std::os::fd::AsFd as _;
use std::path::Path;

use linuxvideo::format::{Format, PixFormat, PixelFormat};
use linuxvideo::{BufType, Device, VideoOutputDevice};
use rustix::io;
use rustix::ioctl::{self, Opcode, Setter, Updater, opcode};

/// `V4L2_BUF_TYPE_VIDEO_OUTPUT`
const VIDEO_OUTPUT: u32 = 2;
/// `V4L2_MEMORY_USERPTR`: the driver reads the program's memory.
const USER_POINTER: u32 = 2;
/// `V4L2_FIELD_NONE`: whole frames.
const PROGRESSIVE: u32 = 1;
/// One is on the screen, one waits, one is being handed over. vivid keeps showing the last one it has.
const BUFFERS: u32 = 3;

/// `struct v4l2_requestbuffers`
#[repr(C)]
#[derive(Default)]
struct BufferRequest {
    count: u32,
    kind: u32,
    memory: u32,
    capabilities: u32,
    reserved: u32,
}

/// `struct v4l2_buffer` of 64-bit systems.
#[repr(C)]
#[derive(Clone, Copy, Default)]
struct Buffer {
    index: u32,
    kind: u32,
    bytes_used: u32,
    flags: u32,
    field: u32,
    padding: u32,
    time: [i64; 2],
    time_code: [u32; 4],
    sequence: u32,
    memory: u32,
    pointer: u64,
    length: u32,
    reserved: [u32; 2],
    end: u32,
}

const _: () = assert!(size_of::<BufferRequest>() == 20 && size_of::<Buffer>() == 88);

const REQUEST_BUFFERS: Opcode = opcode::read_write::<BufferRequest>(b'V', 8);
const QUEUE: Opcode = opcode::read_write::<Buffer>(b'V', 15);
const DEQUEUE: Opcode = opcode::read_write::<Buffer>(b'V', 17);
const STREAM_ON: Opcode = opcode::write::<u32>(b'V', 18);

/// An output with its format set.
pub(crate) struct Output {
    device: VideoOutputDevice,
}

/// An output that shows frames.
pub(crate) struct Showing {
    // Before the frames: closing it ends the driver's use of their memory.
    device: VideoOutputDevice,
    frames: Vec<Vec<u8>>,
}

impl Output {
    /// Opens it and sets its format, at the size that it has: that of its video timings, so that nothing is scaled.
    pub(crate) fn open(path: &Path, format: &str) -> Result<Self, Box<dyn Error>> {
        let place = |error| format!("{}: {error}", path.display());
        let fourcc: [u8; 4] = format.as_bytes().try_into()?;
        let wanted = PixelFormat::from_fourcc(fourcc);
        let device = Device::open(path).map_err(place)?;
        let Format::VideoOutput(timed) = device.format(BufType::VIDEO_OUTPUT).map_err(place)?
        else {
            return Err(format!("{}: no video output", path.display()).into());
        };
        let wanted_format = PixFormat::new(timed.width(), timed.height(), wanted);
        let device = device.video_output(wanted_format).map_err(place)?;
        let given = device.format();
        let packed = given.width() * 3 == given.bytes_per_line();
        if given.pixel_format() != wanted || !packed {
            return Err(format!("{}: gave {given:?}, not {format}", path.display()).into());
        }
        Ok(Self { device })
    }

    /// Pixels in a row, and rows.
    pub(crate) fn size(&self) -> [usize; 2] {
        let format = self.device.format();
        [format.width() as usize, format.height() as usize]
    }

    /// Starts with the first of the frames.
    pub(crate) fn start(self, frames: Vec<Vec<u8>>) -> io::Result<Showing> {
        let showing = Showing {
            device: self.device,
            frames,
        };
        let mut request = BufferRequest {
            count: BUFFERS,
            kind: VIDEO_OUTPUT,
            memory: USER_POINTER,
            ..BufferRequest::default()
        };
        // SAFETY: the operation takes this structure, whose size is asserted above.
        unsafe {
            let operation = Updater::<REQUEST_BUFFERS, _>::new(&mut request);
            ioctl::ioctl(showing.device.as_fd(), operation)?;
        }
        for index in 0..request.count {
            showing.queue(index, 0)?;
        }
        // SAFETY: the operation reads one 32-bit number.
        unsafe {
            let operation = Setter::<STREAM_ON, u32>::new(VIDEO_OUTPUT);
            ioctl::ioctl(showing.device.as_fd(), operation)?;
        }
        Ok(showing)
    }
}

impl Showing {
    /// Waits until a frame was shown, and queues this one.
    pub(crate) fn show(&mut self, frame: usize) -> io::Result<()> {
        let mut done = Buffer {
            kind: VIDEO_OUTPUT,
            memory: USER_POINTER,
            ..Buffer::default()
        };
        // SAFETY: the operation fills this structure, whose size is asserted above.
        unsafe {
            let operation = Updater::<DEQUEUE, _>::new(&mut done);
            ioctl::ioctl(self.device.as_fd(), operation)?;
        }
        self.queue(done.index, frame)
    }

    fn queue(&self, index: u32, frame: usize) -> io::Result<()> {
        let frame = self.frames.get(frame).ok_or(io::Errno::INVAL)?;
        let length = u32::try_from(frame.len()).map_err(|_| io::Errno::INVAL)?;
        let mut buffer = Buffer {
            index,
            kind: VIDEO_OUTPUT,
            bytes_used: length,
            field: PROGRESSIVE,
            memory: USER_POINTER,
            pointer: frame.as_ptr().addr() as u64,
            length,
            ..Buffer::default()
        };
        // SAFETY: the driver only reads a frame that it outputs; the frames are not changed, and live until the device is closed.
        unsafe {
            let operation = Updater::<QUEUE, _>::new(&mut buffer);
            ioctl::ioctl(self.device.as_fd(), operation)
        }
    }
}
