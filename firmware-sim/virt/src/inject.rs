//! Faults on demand (feature `inject`), to see that they are noticed.

use core::arch::asm;

/// `inject=…` on the command line.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Inject {
    /// `udf`: an instruction that does not exist, at the first inference.
    Undefined,
    /// `overflow`: calls without end, at the first inference.
    Overflow,
    /// `stall`: an inference that never ends.
    Stall,
    /// `write-plan`: a byte written to the plan in flash.
    WritePlan,
    /// `hang`: the plan's trial stops without a result, as if the board had lost power.
    Hang,
    /// `power:STEP` or `power-amid:STEP`: power fails at that step of the update.
    Power {
        /// Counted from 0.
        step: usize,
        /// Half of the step has been done.
        amid: bool,
    },
}

impl Inject {
    /// Reads what follows `inject=`.
    pub fn parse(text: &str) -> Option<Self> {
        let (name, step) = text.split_once(':').unwrap_or((text, "0"));
        let step = step.parse().ok()?;
        Some(match name {
            "udf" => Self::Undefined,
            "overflow" => Self::Overflow,
            "stall" => Self::Stall,
            "write-plan" => Self::WritePlan,
            "hang" => Self::Hang,
            "power" => Self::Power { step, amid: false },
            "power-amid" => Self::Power { step, amid: true },
            _ => return None,
        })
    }

    /// When an inference begins.
    pub fn at_inference(self) {
        match self {
            // SAFETY: the exception's handler does not return.
            Self::Undefined => unsafe { asm!("udf #0") },
            Self::Overflow => {
                overflow(0);
            }
            Self::Stall => loop {
                core::hint::spin_loop();
            },
            Self::WritePlan => {
                let plan = crate::memory_map::FLASH.start;
                let byte = core::ptr::with_exposed_provenance_mut::<u8>(plan);
                // SAFETY: not mapped for writing, so nothing is written: an exception ends the run.
                unsafe { byte.write_volatile(0) };
            }
            Self::Hang | Self::Power { .. } => {}
        }
    }
}

/// Uses up the stack.
#[inline(never)]
#[allow(unconditional_recursion, reason = "that is what it is for")]
fn overflow(depth: u64) -> u64 {
    let frame = core::hint::black_box([depth; 32]);
    overflow(depth + 1) + frame[0]
}
