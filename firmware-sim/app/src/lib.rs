//! The firmware's application, without a board: what happens to a plan in flash and to a frame of the camera, on any machine.
//!
//! `no_std`, no heap, no `unsafe`. A board brings three things: its flash ([`Flash`]), its clock and camera ([`Board`]), and a place in
//! memory for [`Buffers`]. `firmware-sim/virt` is the one for QEMU's `virt` machine; docs/porting.md says what another one takes.
//!
//! | module | job |
//! |---|---|
//! | `flash` | [`Flash`]: what NOR flash can do, and what it cannot |
//! | `slots` | two plans in flash, A and B: which one runs, and why not the other |
//! | `update` | a new plan into the slot that does not run; power may fail at any moment |
//! | `power_cut` | power that fails, to test that |
//! | `frame_set` | the simulated camera's film: frames and when they come, in one block of memory |
//! | `queue` | frames that wait; the oldest one gives way |
//! | `classifier` | a frame to logits, their hash and the likeliest class |
//! | `smoothing` | averages over frames, for a display that does not flicker |
//! | `watchdog` | a stage that takes too long |
//! | `faults` | the last things that went wrong |
//! | `application` | [`Application`]: the loop over frames |
//!
//! # Invariants
//!
//! * The logits are those of the Linux engine for the same plan and frame, byte for byte: what is computed in floating point (the display's
//!   confidence and its average) is computed from them and never goes back.
//! * After power failed at any moment of an update, the plan that ran before still runs.
#![no_std]
#![forbid(unsafe_code)]

#[cfg(any(test, feature = "std"))]
extern crate std;

mod application;
mod classifier;
mod faults;
mod flash;
mod frame_set;
mod power_cut;
mod queue;
mod slots;
mod smoothing;
#[cfg(any(test, feature = "std"))]
pub mod testing;
mod update;
mod watchdog;

pub use application::{Application, Board, Event, Summary};
pub use classifier::{Buffers, Classifier, ClassifierError, Outcome};
pub use faults::{Fault, FaultKind, FaultLog};
pub use flash::{BLOCK, Flash, FlashError};
pub use frame_set::{Captured, FrameSet, FrameSetError};
#[cfg(any(test, feature = "std"))]
pub use frame_set::{Shot, write_frame_set};
pub use power_cut::PowerCut;
pub use queue::FrameQueue;
pub use slots::{Opened, Rejected, Slot, TRIALS, boot, open, record_of};
pub use smoothing::{MAX_CLASSES, Smoothed, Smoothing};
pub use update::{CHUNK, UpdateError, install};
pub use watchdog::{Stage, Stall, Watchdog};
