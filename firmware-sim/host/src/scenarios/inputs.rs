//! What the camera shows, and what is in flash.

use std::path::Path;

use anyhow::Result;
use vitlet_firmware::{Shot, Slot};
use vitlet_plan::{AlignedBytes, testing};
use vitlet_preprocess::PixelFormat;

use super::{NEW, OLD};
use crate::flash::Chip;

/// What the camera shows.
#[derive(Clone, Copy)]
pub(super) enum Film {
    /// Nothing: its memory is empty.
    None,
    /// Three frames, a tenth of a second apart.
    Three,
    /// The second of three is shorter than it says, the third of a format that does not exist.
    WrongSize,
    /// Three frames, then twenty at ten times the rate, five of them at once, which is more than the queue can take, then one.
    Burst,
    /// Two frames, nothing for a second, two frames.
    Gap,
}

/// What is in flash.
#[derive(Clone, Copy)]
pub(super) enum Flash {
    Empty,
    /// A plan in slot A.
    One,
    /// An older plan in A, a newer one in B.
    Two,
    /// The newer plan breaks off in the middle.
    Truncated,
    /// The newer plan is of a later version of the format.
    LaterVersion,
    /// Both plans have a wrong bit.
    BothDamaged,
}

impl Film {
    pub(super) fn shots(self) -> Option<Vec<Shot>> {
        let at = |ms: &[u32]| ms.iter().map(|ms| tiny_shot(*ms)).collect::<Vec<_>>();
        Some(match self {
            Self::None => return None,
            Self::Three => at(&[100, 200, 300]),
            Self::WrongSize => {
                let mut shots = at(&[100, 200, 300]);
                shots[1].data.truncate(1000);
                shots[2].width = 20_000;
                shots
            }
            Self::Burst => {
                let mut shots = at(&[100, 200, 300]);
                // Five at a time, so that what is dropped does not hang on the microsecond in which an inference ends.
                shots.extend((0..20).map(|n| Shot {
                    at_us: 400_000 + n / 5 * 10_000,
                    ..tiny_shot(400 + n)
                }));
                shots.push(tiny_shot(500));
                shots
            }
            Self::Gap => at(&[100, 200, 1200, 1300]),
        })
    }
}

/// A frame with a pattern of its own.
fn tiny_shot(at_ms: u32) -> Shot {
    let (width, height) = (32, 24);
    let pixel = |n: u32| (n.wrapping_mul(at_ms + 7) >> 3) as u8;
    Shot {
        at_us: at_ms * 1000,
        format: PixelFormat::Yuyv,
        width,
        height,
        data: (0..width * height * 2).map(pixel).collect(),
    }
}

impl Flash {
    pub(super) fn chip(self) -> Result<Chip> {
        let [old, new] = [OLD, NEW].map(testing::tiny_plan);
        let two = || Chip::with_plans(&[&old, &new]);
        let at = Chip::plan_offset;
        Ok(match self {
            Self::Empty => Chip::empty(),
            Self::One => Chip::with_plans(&[&old])?,
            Self::Two => two()?,
            Self::Truncated => {
                let mut chip = two()?;
                chip.0
                    .fill(at(Slot::B, new.len() / 2)..at(Slot::B, new.len()), 0xff);
                chip
            }
            Self::LaterVersion => {
                let mut later = AlignedBytes::copy_of(&new);
                later[8] += 1;
                testing::reseal(&mut later);
                // As a later firmware would install it: this one's `install` refuses.
                let mut chip = two()?;
                for (byte, value) in later.iter().enumerate() {
                    chip.0
                        .fill(at(Slot::B, byte)..at(Slot::B, byte + 1), *value);
                }
                chip
            }
            Self::BothDamaged => {
                let mut chip = two()?;
                chip.0.flip(at(Slot::A, 12_345), 3);
                chip.0.flip(at(Slot::B, 400), 5);
                chip
            }
        })
    }
}

/// The block that the firmware looks for a new plan in: its length, then the plan at 64; or none.
pub(super) fn write_update(path: &Path, plan: Option<&[u8]>) -> Result<()> {
    let mut bytes = vec![0; 64];
    if let Some(plan) = plan {
        bytes[..8].copy_from_slice(&(plan.len() as u64).to_le_bytes());
        bytes.extend_from_slice(plan);
    }
    Ok(std::fs::write(path, bytes)?)
}
