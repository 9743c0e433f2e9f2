//! Power that fails during an update, for tests on the host and on the board.

use crate::{Flash, FlashError};

/// Bytes of a block whose erasure is cut short, in which every other word stays as if it had been written.
const LEFT: usize = 4096;

/// Flash whose power fails at a given step: an erasure or a programming, counted from 0.
#[derive(Debug)]
pub struct PowerCut<F> {
    flash: F,
    step: usize,
    /// The step at which power fails, and whether half of the step has been done by then.
    cut: Option<(usize, bool)>,
}

impl<F: Flash> PowerCut<F> {
    /// Power that does not fail.
    pub fn never(flash: F) -> Self {
        Self {
            flash,
            step: 0,
            cut: None,
        }
    }

    /// Power that fails at a step: before it, or amid it.
    pub fn at(flash: F, step: usize, amid: bool) -> Self {
        Self {
            flash,
            step: 0,
            cut: Some((step, amid)),
        }
    }

    /// Steps so far.
    pub fn steps(&self) -> usize {
        self.step
    }

    /// What is in the flash.
    pub fn into_flash(self) -> F {
        self.flash
    }
}

impl<F: Flash> Flash for PowerCut<F> {
    fn bytes(&self) -> &[u8] {
        self.flash.bytes()
    }

    fn erase(&mut self, offset: usize) -> Result<(), FlashError> {
        if let Some((step, amid)) = self.cut
            && step == self.step
        {
            // An erasure that is cut short leaves some bits as they were, and others set.
            if amid {
                self.flash.erase(offset)?;
                for word in (0..LEFT).step_by(8) {
                    self.flash.program(offset + word, &[0; 4])?;
                }
            }
            return Err(FlashError::PowerLost);
        }
        self.step += 1;
        self.flash.erase(offset)
    }

    fn program(&mut self, offset: usize, bytes: &[u8]) -> Result<(), FlashError> {
        if let Some((step, amid)) = self.cut
            && step == self.step
        {
            if amid {
                let half = bytes.len() / 8 * 4;
                self.flash
                    .program(offset, bytes.get(..half).unwrap_or_default())?;
            }
            return Err(FlashError::PowerLost);
        }
        self.step += 1;
        self.flash.program(offset, bytes)
    }
}
