//! From flash to the last frame.

use core::cell::RefCell;

use defmt::Display2Format;
use vitlet_firmware::{
    Application, Board, Buffers, Captured, Classifier, Event, FaultKind, Opened, Rejected, Slot,
    Stage, Summary, boot, install,
};

use crate::boot::{exception_level, stack_high_water};
use crate::exit::Exit;
use crate::flash::NorFlash;
use crate::memory_map::UPDATE;
use crate::options::{self, Options};
use crate::{camera, statics, timer};

/// All of it; returns how it ended.
pub fn run() -> Exit {
    defmt::info!(
        "vitlet firmware {=str} at EL{=u64}",
        env!("CARGO_PKG_VERSION"),
        exception_level()
    );
    let Some(options) = options::read() else {
        return Exit::Options;
    };
    defmt::info!("kernel {=str}", options.kernel.name());
    statics::print();
    let mut flash = NorFlash::take();
    if options.update
        && let Err(exit) = update(&mut flash, &options)
    {
        return exit;
    }
    let buffers = RefCell::new(statics::buffers(options.arena));
    let ended = boot(
        &mut flash,
        |slot, why| {
            if why == Rejected::Empty {
                defmt::info!("slot {=str}: {}", slot.name(), Display2Format(&why));
                return;
            }
            camera::note(FaultKind::PlanRejected, u32::from(slot == Slot::B));
            defmt::warn!("slot {=str}: {}", slot.name(), Display2Format(&why));
        },
        |opened| trial(opened, &options, buffers.borrow_mut().reborrow()),
        |_, opened| classify(&opened, &options, buffers.borrow_mut().reborrow()),
    );
    ended.unwrap_or_else(|| {
        defmt::error!("safe state: neither slot has a plan that runs; install one");
        camera::print_faults();
        Exit::NoPlan
    })
}

/// Installs the plan that the host side has put into memory.
#[inline(never)]
fn update(flash: &mut NorFlash, options: &Options) -> Result<(), Exit> {
    const PLAN: usize = 64;
    let start = core::ptr::with_exposed_provenance(UPDATE.start);
    // SAFETY: mapped, read only, and written by nobody after the machine has started.
    let memory: &[u8] = unsafe { core::slice::from_raw_parts(start, UPDATE.len()) };
    let len = memory
        .first_chunk()
        .map_or(0, |len| u64::from_le_bytes(*len));
    let plan = memory.get(PLAN..).unwrap_or_default();
    let plan = plan.get(..len as usize).unwrap_or_default();
    defmt::info!("update: a plan of {=usize} bytes", plan.len());
    match written(flash, plan, options) {
        Ok(slot) => {
            defmt::info!("update: installed in slot {=str}", slot.name());
            Ok(())
        }
        Err(why) => {
            defmt::error!("update: {}", Display2Format(&why));
            Err(ended(why))
        }
    }
}

#[cfg(not(feature = "inject"))]
fn written(
    flash: &mut NorFlash,
    plan: &[u8],
    _: &Options,
) -> Result<Slot, vitlet_firmware::UpdateError> {
    install(flash, plan)
}

#[cfg(not(feature = "inject"))]
fn ended(_: vitlet_firmware::UpdateError) -> Exit {
    Exit::Update
}

#[cfg(feature = "inject")]
fn written(
    flash: &mut NorFlash,
    plan: &[u8],
    options: &Options,
) -> Result<Slot, vitlet_firmware::UpdateError> {
    use vitlet_firmware::PowerCut;

    use crate::inject::Inject;

    let mut flash = match options.inject {
        Some(Inject::Power { step, amid }) => PowerCut::at(flash, step, amid),
        _ => PowerCut::never(flash),
    };
    let installed = install(&mut flash, plan);
    defmt::info!("update: {=usize} steps", flash.steps());
    installed
}

#[cfg(feature = "inject")]
fn ended(why: vitlet_firmware::UpdateError) -> Exit {
    use vitlet_firmware::{FlashError, UpdateError};
    match why {
        UpdateError::Flash(FlashError::PowerLost) => Exit::PowerLost,
        _ => Exit::Update,
    }
}

/// The first inference of a plan, on whatever the image's memory holds: that it comes back is what counts.
#[inline(never)]
fn trial(opened: &Opened<'_>, options: &Options, buffers: Buffers<'_>) -> Result<(), Rejected> {
    defmt::info!(
        "slot {=str}: first boots, boot {=usize}: trial",
        opened.slot.name(),
        opened.boots
    );
    #[cfg(feature = "inject")]
    if options.inject == Some(crate::inject::Inject::Hang) {
        defmt::info!("inject: the trial hangs, and power goes");
        crate::exit::exit(Exit::PowerLost);
    }
    let mut classifier = Classifier::new(&opened.plan, options.kernel, buffers)?;
    let done = classifier.infer();
    done.map(drop).map_err(|_| Rejected::Trials)
}

/// Classifies the camera's frames with a plan.
#[inline(never)]
fn classify(opened: &Opened<'_>, options: &Options, buffers: Buffers<'_>) -> Exit {
    let plan = &opened.plan;
    defmt::info!(
        "slot {=str}: sequence {=u32}, boot {=usize}: plan {=str}, {=usize} bytes, arena {=usize} bytes",
        opened.slot.name(),
        opened.record.sequence,
        opened.boots,
        plan.provenance().model_name,
        plan.file_len(),
        plan.arena_len(1)
    );
    let classifier = match Classifier::new(plan, options.kernel, buffers) {
        Ok(classifier) => classifier,
        Err(why) => {
            defmt::error!("slot {=str}: {}", opened.slot.name(), Display2Format(&why));
            return Exit::NoPlan;
        }
    };
    let film = match camera::film() {
        Ok(film) => film,
        Err(why) => {
            defmt::error!("camera: {}", Display2Format(&why));
            return Exit::Camera;
        }
    };
    camera::start(film);
    let mut board = Virt { opened, options };
    let summary = Application::new(classifier, statics::smoothing()).run(&mut board);
    finish(&summary);
    Exit::Done
}

#[inline(never)]
fn finish(summary: &Summary) {
    let dropped = camera::dropped();
    let Summary {
        classified,
        bad,
        failed,
    } = summary;
    defmt::info!(
        "frames: {=u32} classified, {=u32} dropped, {=u32} bad, {=u32} failed",
        classified,
        dropped,
        bad,
        failed
    );
    camera::print_faults();
    let [used, all] = stack_high_water();
    defmt::info!("stack: {=usize} of {=usize} bytes used", used, all);
}

/// What the application sees of the machine.
struct Virt<'a> {
    opened: &'a Opened<'a>,
    #[cfg_attr(
        not(feature = "inject"),
        allow(dead_code, reason = "faults are injected by it")
    )]
    options: &'a Options,
}

impl Board<'static> for Virt<'_> {
    fn now_us(&mut self) -> u64 {
        camera::since_start()
    }

    fn instructions(&mut self) -> u32 {
        timer::instructions()
    }

    fn take_frame(&mut self) -> Option<Captured<'static>> {
        camera::take_frame()
    }

    fn is_over(&mut self) -> bool {
        camera::is_over()
    }

    fn sleep(&mut self) {
        timer::sleep();
    }

    fn enter(&mut self, stage: Stage) {
        camera::WATCHDOG.enter(stage, timer::now_us());
        #[cfg(feature = "inject")]
        if stage == Stage::Inference
            && let Some(fault) = self.options.inject
        {
            fault.at_inference();
        }
    }

    fn leave(&mut self, stage: Stage) {
        camera::WATCHDOG.leave(stage);
    }

    fn report(&mut self, event: &Event) {
        match event {
            Event::Classified {
                frame,
                output_hash,
                smoothed,
                instructions,
                us: [preprocess, inference, age],
            } => {
                let (class, confidence) = smoothed.frame;
                let (average_class, average) = smoothed.average;
                let plan = &self.opened.plan;
                defmt::info!(
                    "frame {=u32}: class {=usize} {=str} {=f32}, average {=usize} {=str} {=f32}, preprocess {=u64} us, inference {=u64} us, age {=u64} us",
                    frame,
                    class,
                    plan.label(class).unwrap_or_default(),
                    rounded(confidence),
                    average_class,
                    plan.label(average_class).unwrap_or_default(),
                    rounded(average),
                    preprocess,
                    inference,
                    age
                );
                let words: [u64; 4] = core::array::from_fn(|n| {
                    let bytes = output_hash.as_chunks::<8>().0.get(n);
                    bytes.map_or(0, |bytes| u64::from_be_bytes(*bytes))
                });
                defmt::info!(
                    "result {=u32} {=u64:016x}{=u64:016x}{=u64:016x}{=u64:016x} {=usize} {=u32}",
                    frame,
                    words[0],
                    words[1],
                    words[2],
                    words[3],
                    class,
                    instructions
                );
            }
            Event::BadFrame { frame, why } => {
                camera::note(FaultKind::BadFrame, *frame);
                defmt::warn!("frame {=u32}: {}", frame, Display2Format(why));
            }
            Event::Failed {
                frame,
                why: Some(why),
            } => {
                camera::note(FaultKind::Inference, *frame);
                defmt::error!("frame {=u32}: {}", frame, Display2Format(why));
            }
            Event::Failed { frame, why: None } => {
                camera::note(FaultKind::Inference, *frame);
                defmt::error!(
                    "frame {=u32}: the plan has more classes than can be averaged",
                    frame
                );
            }
        }
    }
}

/// Two digits behind the point.
fn rounded(share: f32) -> f32 {
    ((share * 100.0 + 0.5) as u32) as f32 / 100.0
}
