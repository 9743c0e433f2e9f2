//! Two places for a plan in flash, so that one is there while the other is written.
//!
//! Each half of the flash is a slot. Its first block is its record, written last when a plan is installed; the plan follows.
//!
//! | byte of the record | what |
//! |---|---|
//! | 0 | `VSLT` |
//! | 4 | version of this layout: 1 |
//! | 8 | sequence: the slot with the larger one is newer |
//! | 12 | bytes of the plan |
//! | 16 | the plan's checksum, as in its header |
//! | 20 | CRC-32 of bytes 0 to 19 |
//! | 64 | word: 0 once the plan has given a result |
//! | 4096 – end | words, one of which is cleared at each boot: the boot counter |
//!
//! Flash can clear bits without erasing, so counting a boot writes one word. A plan that has not given a result in [`TRIALS`] boots is not
//! tried again: whatever it does to the board, the board comes back with the other one.

use heapless::Vec;
use thiserror::Error;
use vitlet_plan::{Plan, PlanError, crc32, format};

use crate::{BLOCK, Flash, FlashError};

/// Boots that a plan has to give its first result.
pub const TRIALS: usize = 3;

const MAGIC: [u8; 4] = *b"VSLT";
const VERSION: u32 = 1;
/// Bytes of a record that are written together.
pub(crate) const RECORD_LEN: usize = 24;
const CONFIRMED: usize = 64;
const BOOTS: usize = 4096;

/// One of the two.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Slot {
    /// The first half of the flash.
    A,
    /// The second.
    B,
}

impl Slot {
    /// Both.
    pub const ALL: [Self; 2] = [Self::A, Self::B];

    /// `A` or `B`.
    pub const fn name(self) -> &'static str {
        match self {
            Self::A => "A",
            Self::B => "B",
        }
    }

    /// The one that this is not.
    #[must_use]
    pub const fn other(self) -> Self {
        match self {
            Self::A => Self::B,
            Self::B => Self::A,
        }
    }

    /// First byte in a flash of `flash_len` bytes: where its record lies. Its plan is [`BLOCK`] bytes further on.
    pub const fn offset(self, flash_len: usize) -> usize {
        match self {
            Self::A => 0,
            Self::B => flash_len / 2,
        }
    }

    /// Bytes of the longest plan it can take.
    pub const fn capacity(flash_len: usize) -> usize {
        (flash_len / 2).saturating_sub(BLOCK)
    }
}

/// Why a slot's plan does not run.
#[derive(Clone, Copy, PartialEq, Debug, Error)]
#[non_exhaustive]
pub enum Rejected {
    /// Nothing was ever written there, or an update was interrupted before its end.
    #[error("no plan was installed completely")]
    Empty,
    /// The record is of another program.
    #[error("its record has version {found}, this firmware reads {VERSION}")]
    RecordVersion {
        /// The version in the record.
        found: u32,
    },
    /// The record is damaged.
    #[error("its record is damaged: checksum {stored:08x}, the bytes give {computed:08x}")]
    RecordChecksum {
        /// The checksum in the record.
        stored: u32,
        /// The checksum of the bytes.
        computed: u32,
    },
    /// The plan would not fit the slot.
    #[error("its record says {len} bytes of plan, the slot has {capacity}")]
    Length {
        /// As the record says.
        len: usize,
        /// Bytes of the slot.
        capacity: usize,
    },
    /// The plan is not the one that the record was written for.
    #[error(
        "its plan is another than the record's: checksum {found:08x} instead of {recorded:08x}"
    )]
    OtherPlan {
        /// In the plan's header.
        found: u32,
        /// In the record.
        recorded: u32,
    },
    /// The plan has had its boots and never gave a result.
    #[error("it gave no result in {TRIALS} boots")]
    Trials,
    /// The plan was refused when it was verified.
    #[error("{0}")]
    Plan(PlanError),
    /// The plan needs more memory than the board has for it.
    #[error("it needs an arena of {needed} bytes, the board has {found}")]
    Arena {
        /// Bytes the plan needs.
        needed: usize,
        /// Bytes there are.
        found: usize,
    },
    /// The plan takes larger images than the board has room for.
    #[error("it takes images of {needed} bytes, the board has room for {found}")]
    Image {
        /// Bytes the plan takes.
        needed: usize,
        /// Bytes there are.
        found: usize,
    },
    /// The boot could not be counted.
    #[error("its boot could not be counted: {0}")]
    Flash(FlashError),
}

/// What a slot's record says.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Record {
    /// Larger is newer.
    pub sequence: u32,
    /// Bytes of the plan.
    pub plan_len: usize,
    /// The plan's own checksum.
    pub plan_checksum: u32,
}

impl Record {
    fn parse(block: &[u8], capacity: usize) -> Result<Self, Rejected> {
        let word = |at: usize| word(block, at);
        if block.get(..4) != Some(&MAGIC) {
            return Err(Rejected::Empty);
        }
        let stored = word(20);
        let computed = crc32([block.get(..20).unwrap_or_default()]);
        if stored != computed {
            return Err(Rejected::RecordChecksum { stored, computed });
        }
        if word(4) != VERSION {
            return Err(Rejected::RecordVersion { found: word(4) });
        }
        let len = word(12) as usize;
        if len > capacity {
            return Err(Rejected::Length { len, capacity });
        }
        Ok(Self {
            sequence: word(8),
            plan_len: len,
            plan_checksum: word(16),
        })
    }

    pub(crate) fn bytes(&self) -> [u8; RECORD_LEN] {
        let mut bytes = [0; RECORD_LEN];
        let words = [
            u32::from_le_bytes(MAGIC),
            VERSION,
            self.sequence,
            self.plan_len as u32,
            self.plan_checksum,
        ];
        for (to, word) in bytes.chunks_exact_mut(4).zip(words) {
            to.copy_from_slice(&word.to_le_bytes());
        }
        let (said, checksum) = bytes.split_at_mut(20);
        checksum.copy_from_slice(&crc32([&*said]).to_le_bytes());
        bytes
    }
}

/// A slot whose plan was verified.
#[derive(Clone, Copy, Debug)]
pub struct Opened<'f> {
    /// The slot.
    pub slot: Slot,
    /// What its record says.
    pub record: Record,
    /// Boots since the plan was installed, this one included.
    pub boots: usize,
    /// Whether it has given a result in an earlier boot.
    pub confirmed: bool,
    /// The plan, whose bytes stay in flash.
    pub plan: Plan<'f>,
}

/// Bytes of a slot: its record, and what follows.
fn halves(flash: &[u8], slot: Slot) -> (&[u8], &[u8]) {
    let start = slot.offset(flash.len());
    let slot = flash
        .get(start..start + flash.len() / 2)
        .unwrap_or_default();
    slot.split_at_checked(BLOCK).unwrap_or_default()
}

fn word(bytes: &[u8], at: usize) -> u32 {
    let word = bytes.get(at..).and_then(|bytes| bytes.first_chunk());
    word.map_or(u32::MAX, |word| u32::from_le_bytes(*word))
}

/// What a slot's record says, however its plan may be.
///
/// # Errors
/// There is no valid record.
pub fn record_of(flash: &impl Flash, slot: Slot) -> Result<Record, Rejected> {
    let bytes = flash.bytes();
    Record::parse(halves(bytes, slot).0, Slot::capacity(bytes.len()))
}

fn boots_of(block: &[u8]) -> usize {
    let counter = block.get(BOOTS..).unwrap_or_default();
    let (words, _) = counter.as_chunks::<4>();
    words.partition_point(|word| *word == [0; 4])
}

fn is_confirmed(block: &[u8]) -> bool {
    word(block, CONFIRMED) == 0
}

/// Verifies a slot's record and plan.
///
/// # Errors
/// The first thing that is wrong.
pub fn open(flash: &impl Flash, slot: Slot) -> Result<Opened<'_>, Rejected> {
    let record = record_of(flash, slot)?;
    let (block, plan) = halves(flash.bytes(), slot);
    // The record's length is at most the slot's.
    let plan = plan.get(..record.plan_len).unwrap_or_default();
    let parsed = Plan::parse(plan).map_err(Rejected::Plan)?;
    let found = word(plan, format::header::CHECKSUM);
    if found != record.plan_checksum {
        let recorded = record.plan_checksum;
        return Err(Rejected::OtherPlan { found, recorded });
    }
    Ok(Opened {
        slot,
        record,
        boots: boots_of(block),
        confirmed: is_confirmed(block),
        plan: parsed,
    })
}

/// Slots with a record, the newest first; the others' reasons go to `rejected`.
fn newest_first(
    flash: &impl Flash,
    rejected: &mut impl FnMut(Slot, Rejected),
) -> Vec<(Slot, Record), 2> {
    let mut slots = Vec::new();
    for slot in Slot::ALL {
        match record_of(flash, slot) {
            // There is room for both.
            Ok(record) => drop(slots.push((slot, record))),
            Err(why) => rejected(slot, why),
        }
    }
    slots.sort_unstable_by_key(|(_, record): &(_, Record)| core::cmp::Reverse(record.sequence));
    slots
}

/// Clears one more word of the boot counter; a full counter stays full.
fn count_boot(flash: &mut impl Flash, slot: Slot) -> Result<(), FlashError> {
    let bytes = flash.bytes();
    let block = halves(bytes, slot).0;
    let next = BOOTS + 4 * boots_of(block);
    if next + 4 > block.len() {
        return Ok(());
    }
    let offset = slot.offset(bytes.len()) + next;
    flash.program(offset, &[0; 4])
}

/// Notes that a slot's plan has given a result.
fn confirm(flash: &mut impl Flash, slot: Slot) -> Result<(), FlashError> {
    let offset = slot.offset(flash.bytes().len()) + CONFIRMED;
    flash.program(offset, &[0; 4])
}

/// Finds the newest plan that is whole and fits the board, and hands it to `then`; `None` if there is none.
///
/// Every boot is counted before the plan is looked at. A plan that has not yet given a result has to give one first: `trial` runs it
/// once. `rejected` is told why a slot does not run.
pub fn boot<F: Flash, R>(
    flash: &mut F,
    mut rejected: impl FnMut(Slot, Rejected),
    mut trial: impl FnMut(&Opened<'_>) -> Result<(), Rejected>,
    then: impl FnOnce(&F, Opened<'_>) -> R,
) -> Option<R> {
    for (slot, _) in newest_first(flash, &mut rejected) {
        if let Err(why) = try_slot(flash, slot, &mut trial) {
            rejected(slot, why);
            continue;
        }
        match open(flash, slot) {
            Ok(opened) => return Some(then(flash, opened)),
            Err(why) => rejected(slot, why),
        }
    }
    None
}

/// Counts the boot; of a plan that has no result yet, makes sure that it gives one.
fn try_slot(
    flash: &mut impl Flash,
    slot: Slot,
    trial: &mut impl FnMut(&Opened<'_>) -> Result<(), Rejected>,
) -> Result<(), Rejected> {
    let block = halves(flash.bytes(), slot).0;
    let confirmed = is_confirmed(block);
    if !confirmed && boots_of(block) >= TRIALS {
        return Err(Rejected::Trials);
    }
    count_boot(flash, slot).map_err(Rejected::Flash)?;
    if !confirmed {
        trial(&open(flash, slot)?)?;
        confirm(flash, slot).map_err(Rejected::Flash)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::vec::Vec;

    use super::*;
    use crate::install;
    use crate::testing::{MemoryFlash, tiny_plan};

    /// What ran: slot, sequence and boots; and why others did not.
    type Booted = (Option<(Slot, u32, usize)>, Vec<(Slot, Rejected)>);

    fn boot_with(
        flash: &mut MemoryFlash,
        trial: impl FnMut(&Opened<'_>) -> Result<(), Rejected>,
    ) -> Booted {
        let mut reasons = Vec::new();
        let ran = boot(
            flash,
            |slot, why| reasons.push((slot, why)),
            trial,
            |_, opened| (opened.slot, opened.record.sequence, opened.boots),
        );
        (ran, reasons)
    }

    #[test]
    fn an_empty_flash_has_no_plan_and_says_so_of_both_slots() {
        let (ran, reasons) = boot_with(&mut MemoryFlash::erased(), |_| Ok(()));
        assert_eq!(ran, None);
        assert_eq!(
            reasons,
            [(Slot::A, Rejected::Empty), (Slot::B, Rejected::Empty)]
        );
    }

    #[test]
    fn the_newer_plan_runs_and_boots_are_counted() {
        let mut flash = MemoryFlash::erased();
        assert_eq!(install(&mut flash, &tiny_plan(1)), Ok(Slot::A));
        assert_eq!(install(&mut flash, &tiny_plan(2)), Ok(Slot::B));
        for boots in 1..=5 {
            let (ran, reasons) = boot_with(&mut flash, |_| Ok(()));
            assert_eq!(ran, Some((Slot::B, 2, boots)));
            assert_eq!(reasons, []);
        }
        assert_eq!(open(&flash, Slot::A).map(|opened| opened.boots), Ok(0));
    }

    #[test]
    fn a_plan_that_gives_no_result_is_tried_three_times() {
        let mut flash = MemoryFlash::erased();
        assert_eq!(install(&mut flash, &tiny_plan(1)), Ok(Slot::A));
        assert!(boot_with(&mut flash, |_| Ok(())).0.is_some());
        assert_eq!(install(&mut flash, &tiny_plan(2)), Ok(Slot::B));
        let refuse = |opened: &Opened<'_>| match opened.slot {
            Slot::A => Ok(()),
            Slot::B => Err(Rejected::Arena {
                needed: 2,
                found: 1,
            }),
        };
        for _ in 0..TRIALS {
            let (ran, reasons) = boot_with(&mut flash, refuse);
            assert_eq!(ran.map(|ran| ran.0), Some(Slot::A));
            assert_eq!(
                reasons,
                [(
                    Slot::B,
                    Rejected::Arena {
                        needed: 2,
                        found: 1
                    }
                )]
            );
        }
        // From now on nobody asks it, even if it would work.
        let (ran, reasons) = boot_with(&mut flash, |_| Ok(()));
        assert_eq!(ran.map(|ran| ran.0), Some(Slot::A));
        assert_eq!(reasons, [(Slot::B, Rejected::Trials)]);
    }

    #[test]
    fn each_flipped_bit_is_noticed_and_the_other_plan_runs() {
        let mut flash = MemoryFlash::erased();
        assert_eq!(install(&mut flash, &tiny_plan(1)), Ok(Slot::A));
        assert_eq!(install(&mut flash, &tiny_plan(2)), Ok(Slot::B));
        let plan_len = record_of(&flash, Slot::B).map(|record| record.plan_len);
        let plan_len = plan_len.unwrap_or_default();
        let start = Slot::B.offset(flash.bytes().len());
        let places = (0..RECORD_LEN).chain((0..plan_len).step_by(97).map(|at| BLOCK + at));
        for (turn, place) in places.enumerate() {
            let mut flash = flash.clone();
            flash.flip(start + place, turn % 8);
            let (ran, reasons) = boot_with(&mut flash, |_| Ok(()));
            assert_eq!(ran.map(|ran| ran.0), Some(Slot::A), "byte {place}");
            assert_eq!(reasons.first().map(|(slot, _)| *slot), Some(Slot::B));
        }
    }

    #[test]
    fn a_full_boot_counter_stays_full() {
        let mut flash = MemoryFlash::erased();
        assert_eq!(install(&mut flash, &tiny_plan(1)), Ok(Slot::A));
        assert!(boot_with(&mut flash, |_| Ok(())).0.is_some());
        flash.fill(BOOTS..BLOCK, 0);
        let most = (BLOCK - BOOTS) / 4;
        let (ran, reasons) = boot_with(&mut flash, |_| Ok(()));
        assert_eq!(ran, Some((Slot::A, 1, most)));
        assert_eq!(reasons, [(Slot::B, Rejected::Empty)]);
    }
}
