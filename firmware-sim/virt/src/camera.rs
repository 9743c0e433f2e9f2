//! The simulated camera and what watches it: everything that happens in the timer's interrupt.
//!
//! Every millisecond the interrupt delivers the frames that are due, as a camera's interrupt would when its DMA is done: the pixels stay where
//! they are, and a description goes into the queue.

use core::cell::RefCell;

use arm_gic::gicv2::GicV2;
use arm_gic::{IntId, InterruptGroup, Trigger};
use critical_section::Mutex;
use vitlet_firmware::{
    Captured, Fault, FaultKind, FaultLog, FrameQueue, FrameSet, FrameSetError, Stage, Watchdog,
};

use crate::exit::{Exit, exit};
use crate::memory_map::{CAMERA, GIC_CPU, GIC_DISTRIBUTOR};
use crate::timer;

/// Frames that may wait; the third one displaces the first.
const WAITING: usize = 2;
/// A camera that misses so many frames in a row has stalled.
const MISSED: u64 = 4;
/// What an image may take to be resized, and a model to run, in microseconds.
const LIMITS_US: [(Stage, u64); 2] = [
    (Stage::Preprocess, 1_000_000),
    (Stage::Inference, 10_000_000),
];
/// The virtual timer's interrupt.
const TIMER: IntId = IntId::ppi(11);

struct Shared {
    gic: Option<GicV2<'static>>,
    film: Option<FrameSet<'static>>,
    next: u32,
    start_us: u64,
    queue: FrameQueue<Captured<'static>, WAITING>,
    faults: FaultLog,
}

static SHARED: Mutex<RefCell<Shared>> = Mutex::new(RefCell::new(Shared {
    gic: None,
    film: None,
    next: 0,
    start_us: 0,
    queue: FrameQueue::new(),
    faults: FaultLog::new(),
}));

/// Stages say there when they begin.
pub static WATCHDOG: Watchdog = Watchdog::new();

fn with<R>(use_it: impl FnOnce(&mut Shared) -> R) -> R {
    critical_section::with(|cs| use_it(&mut SHARED.borrow(cs).borrow_mut()))
}

/// What the host side has put into the camera's memory.
///
/// # Errors
/// Nothing, or more than there is room for.
pub fn film() -> Result<FrameSet<'static>, FrameSetError> {
    let start = core::ptr::with_exposed_provenance(CAMERA.start);
    // SAFETY: mapped, read only, and written by nobody after the machine has started.
    FrameSet::parse(unsafe { core::slice::from_raw_parts(start, CAMERA.len()) })
}

/// Starts the camera and the tick.
pub fn start(film: FrameSet<'static>) {
    for (stage, limit) in LIMITS_US {
        WATCHDOG.set_limit(stage, limit);
    }
    WATCHDOG.set_limit(Stage::Camera, MISSED * film.interval_us());
    let now = timer::now_us();
    WATCHDOG.enter(Stage::Camera, now);
    let [distributor, cpu] = [GIC_DISTRIBUTOR, GIC_CPU]
        .map(|region| core::ptr::with_exposed_provenance_mut::<()>(region.start));
    // SAFETY: the two register blocks of the machine's GICv2, mapped as a device; called once, so this is their only user.
    let mut gic = unsafe { GicV2::new(distributor.cast(), cpu.cast()) };
    gic.setup();
    gic.set_interrupt_priority(TIMER, 0x80);
    gic.set_trigger(TIMER, Trigger::Level);
    let enabled = gic.enable_interrupt(TIMER, true);
    if enabled.is_err() {
        unreachable!("the timer's interrupt exists");
    }
    with(|shared| {
        shared.gic = Some(gic);
        shared.film = Some(film);
        shared.start_us = now;
    });
    timer::next_tick();
    arm_gic::irq_enable();
}

/// Called from the vector, on the exceptions' stack, interrupts masked.
pub extern "C" fn interrupt() {
    with(|shared| {
        let Some(gic) = &mut shared.gic else { return };
        let group = InterruptGroup::Group0;
        let Some(id) = gic.get_and_acknowledge_interrupt(group) else {
            return;
        };
        if id == TIMER {
            timer::next_tick();
        }
        gic.end_interrupt(id, group);
        let now = timer::now_us();
        shared.deliver(now);
        shared.watch(now);
    });
}

impl Shared {
    /// Queues all frames that are due.
    fn deliver(&mut self, now: u64) {
        let Some(film) = self.film else { return };
        let since = now.saturating_sub(self.start_us);
        while let Some(frame) = film.get(self.next).filter(|frame| frame.at_us <= since) {
            self.next += 1;
            WATCHDOG.enter(Stage::Camera, now);
            if let Some(lost) = self.queue.push(frame) {
                self.fault(now, FaultKind::FrameDropped, lost.index);
                defmt::warn!("frame {=u32}: dropped, newer ones wait", lost.index);
            }
        }
        if self.next == film.count() {
            WATCHDOG.leave(Stage::Camera);
        }
    }

    fn watch(&mut self, now: u64) {
        let Some(stall) = WATCHDOG.check(now) else {
            return;
        };
        let ms = u32::try_from(stall.for_us / 1000).unwrap_or(u32::MAX);
        match stall.stage {
            Stage::Camera => {
                self.fault(now, FaultKind::CameraStalled, ms);
                defmt::warn!(
                    "watchdog: the camera has delivered nothing for {=u32} ms",
                    ms
                );
            }
            stage => {
                self.fault(now, FaultKind::StageStalled, ms);
                defmt::error!(
                    "watchdog: {=str} has not ended for {=u32} ms",
                    stage.name(),
                    ms
                );
                self.print_faults();
                exit(Exit::Watchdog);
            }
        }
    }

    fn fault(&mut self, now: u64, kind: FaultKind, detail: u32) {
        let at_ms = u32::try_from(now / 1000).unwrap_or(u32::MAX);
        self.faults.add(at_ms, kind, detail);
    }

    fn print_faults(&self) {
        defmt::info!("faults: {=u32}", self.faults.total());
        for fault in self.faults.kept() {
            let Fault {
                at_ms,
                kind,
                detail,
                times,
            } = *fault;
            defmt::info!(
                "fault at {=u32} ms: {=str}, {=u32}, {=u32} times",
                at_ms,
                kind.name(),
                detail,
                times
            );
        }
    }
}

/// The frame that has waited longest.
pub fn take_frame() -> Option<Captured<'static>> {
    with(|shared| shared.queue.pop())
}

/// Whether the film has been shown.
pub fn is_over() -> bool {
    with(|shared| {
        let shown = shared.film.is_none_or(|film| shared.next == film.count());
        shown && shared.queue.is_empty()
    })
}

/// Frames that were displaced.
pub fn dropped() -> u32 {
    with(|shared| shared.queue.dropped())
}

/// Microseconds since the camera's start.
pub fn since_start() -> u64 {
    with(|shared| timer::now_us().saturating_sub(shared.start_us))
}

/// Notes a fault.
pub fn note(kind: FaultKind, detail: u32) {
    with(|shared| shared.fault(timer::now_us(), kind, detail));
}

/// The fault log, as a technician would read it out.
pub fn print_faults() {
    with(|shared| shared.print_faults());
}
