//! A new plan into the slot that does not run.
//!
//! The order is what makes it safe: the plan is verified before anything is written; the record of the slot that is given up is erased
//! first; the record of the new plan is written last, after the plan was read back. A record without its plan never exists, and the other
//! slot is not touched.

use thiserror::Error;
use vitlet_plan::{Plan, PlanError, format};

use crate::slots::{self, Record, Slot};
use crate::{BLOCK, Flash, FlashError};

/// Bytes that are programmed at a time.
pub const CHUNK: usize = 4096;

/// Why an update did not happen. The plan that ran before still does.
#[derive(Clone, Copy, PartialEq, Debug, Error)]
#[non_exhaustive]
pub enum UpdateError {
    /// The new plan is no good; nothing was written.
    #[error("the new plan was refused: {0}")]
    Plan(PlanError),
    /// The new plan is too long; nothing was written.
    #[error("the new plan has {len} bytes, a slot has room for {capacity}")]
    TooLong {
        /// Bytes of the plan.
        len: usize,
        /// Bytes of a slot.
        capacity: usize,
    },
    /// Flash could not be written.
    #[error("{0}")]
    Flash(#[from] FlashError),
    /// What was read back is not what was written.
    #[error("byte {at} of the plan was written wrongly; the flash is worn out")]
    Verify {
        /// First byte that differs.
        at: usize,
    },
}

/// Installs `plan` beside the newest one that is whole; returns where. The next boot tries it.
///
/// # Errors
/// The plan is refused, or the flash is at fault.
pub fn install(flash: &mut impl Flash, plan: &[u8]) -> Result<Slot, UpdateError> {
    Plan::parse(plan).map_err(UpdateError::Plan)?;
    let flash_len = flash.bytes().len();
    let capacity = Slot::capacity(flash_len);
    if plan.len() > capacity {
        let len = plan.len();
        return Err(UpdateError::TooLong { len, capacity });
    }
    let (slot, sequence) = place(flash);
    let record = slot.offset(flash_len);
    let start = record + BLOCK;

    flash.erase(record)?;
    for block in (start..start + plan.len()).step_by(BLOCK) {
        flash.erase(block)?;
    }
    for (offset, chunk) in (start..).step_by(CHUNK).zip(plan.chunks(CHUNK)) {
        program(flash, offset, chunk)?;
    }
    let written = flash.bytes().get(start..start + plan.len());
    let pairs = written.unwrap_or_default().iter().zip(plan);
    if let Some(at) = pairs
        .into_iter()
        .position(|(written, byte)| written != byte)
    {
        return Err(UpdateError::Verify { at });
    }
    let checksum = plan.get(format::header::CHECKSUM..);
    let checksum = checksum.and_then(|bytes| bytes.first_chunk());
    let said = Record {
        sequence,
        plan_len: plan.len(),
        plan_checksum: checksum.map_or(0, |bytes| u32::from_le_bytes(*bytes)),
    };
    flash.program(record, &said.bytes())?;
    Ok(slot)
}

/// The slot to give up, and the sequence of what comes there: not that of the newest plan that is whole.
fn place(flash: &impl Flash) -> (Slot, u32) {
    let [a, b] = Slot::ALL.map(|slot| slots::open(flash, slot).ok());
    let sequence = |opened: &Option<slots::Opened<'_>>| {
        opened.as_ref().map_or(0, |opened| opened.record.sequence)
    };
    let [a, b] = [sequence(&a), sequence(&b)];
    let slot = if a > b { Slot::B } else { Slot::A };
    (slot, a.max(b).saturating_add(1))
}

/// Programs whole words: bytes that are not there stay erased.
fn program(flash: &mut impl Flash, offset: usize, bytes: &[u8]) -> Result<(), FlashError> {
    let (words, rest) = bytes.split_at(bytes.len() / 4 * 4);
    if !words.is_empty() {
        flash.program(offset, words)?;
    }
    if !rest.is_empty() {
        let mut last = [0xff; 4];
        for (to, from) in last.iter_mut().zip(rest) {
            *to = *from;
        }
        flash.program(offset + words.len(), &last)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::vec::Vec;

    use super::*;
    use crate::testing::{MemoryFlash, tiny_plan};
    use crate::{PowerCut, boot};

    fn running(flash: &mut MemoryFlash) -> Option<(Slot, Vec<u8>)> {
        boot(
            flash,
            |_, _| {},
            |_| Ok(()),
            |flash, opened| {
                let start = opened.slot.offset(flash.bytes().len()) + BLOCK;
                let plan = &flash.bytes()[start..start + opened.record.plan_len];
                (opened.slot, plan.to_vec())
            },
        )
    }

    #[test]
    fn power_may_fail_before_or_amid_any_step_of_an_update() {
        let [old, new] = [1, 2].map(tiny_plan);
        let mut before = MemoryFlash::erased();
        assert_eq!(install(&mut before, &old), Ok(Slot::A));
        assert_eq!(
            running(&mut before).map(|ran| ran.1).as_deref(),
            Some(&old[..])
        );

        let mut whole = PowerCut::never(before.clone());
        assert_eq!(install(&mut whole, &new), Ok(Slot::B));
        let steps = whole.steps();
        assert!(steps >= 5, "{steps} steps");
        for step in 0..steps {
            for amid in [false, true] {
                let mut flash = PowerCut::at(before.clone(), step, amid);
                let lost = install(&mut flash, &new);
                assert_eq!(lost, Err(UpdateError::Flash(FlashError::PowerLost)));
                let mut flash = flash.into_flash();
                let (slot, plan) = running(&mut flash).expect("a plan runs");
                // The very last step may have got through: then the new one runs.
                let expected = if slot == Slot::A { &old } else { &new };
                assert_eq!(plan[..], expected[..], "step {step}");
                assert!(slot == Slot::A || step + 1 == steps, "step {step}");
                // And the update can be made again.
                assert!(install(&mut flash, &new).is_ok());
                assert_eq!(
                    running(&mut flash).map(|ran| ran.1).as_deref(),
                    Some(&new[..])
                );
            }
        }
    }

    #[test]
    fn a_damaged_download_changes_nothing() {
        let mut flash = MemoryFlash::erased();
        assert_eq!(install(&mut flash, &tiny_plan(1)), Ok(Slot::A));
        let before = flash.clone();
        let mut damaged = tiny_plan(2);
        let last = damaged.len() - 1;
        damaged[last] ^= 1;
        assert!(matches!(
            install(&mut flash, &damaged),
            Err(UpdateError::Plan(PlanError::Checksum { .. }))
        ));
        assert_eq!(flash.bytes(), before.bytes());
    }

    #[test]
    fn a_slot_that_is_damaged_is_given_up_before_one_that_is_whole() {
        let mut flash = MemoryFlash::erased();
        assert_eq!(install(&mut flash, &tiny_plan(1)), Ok(Slot::A));
        assert_eq!(install(&mut flash, &tiny_plan(2)), Ok(Slot::B));
        flash.flip(Slot::B.offset(flash.bytes().len()) + BLOCK + 300, 3);
        assert_eq!(install(&mut flash, &tiny_plan(3)), Ok(Slot::B));
        let sequences = Slot::ALL.map(|slot| slots::record_of(&flash, slot));
        assert_eq!(
            sequences.map(|record| record.map(|r| r.sequence)),
            [Ok(1), Ok(2)]
        );
    }
}
