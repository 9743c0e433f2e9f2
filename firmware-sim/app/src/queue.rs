//! Frames that wait to be classified. A camera does not wait: when there is no room, the oldest frame gives way, so that what is classified
//! is never older than it must be.

use heapless::Deque;

/// At most `N` ≥ 1 frames, in the order of their arrival.
#[derive(Debug)]
pub struct FrameQueue<T, const N: usize> {
    frames: Deque<T, N>,
    dropped: u32,
}

impl<T, const N: usize> FrameQueue<T, N> {
    /// No frames.
    pub const fn new() -> Self {
        Self {
            frames: Deque::new(),
            dropped: 0,
        }
    }

    /// A new frame; returns the one that it has displaced, if any.
    pub fn push(&mut self, frame: T) -> Option<T> {
        let displaced = if self.frames.is_full() {
            self.frames.pop_front()
        } else {
            None
        };
        let refused = self.frames.push_back(frame).err();
        let lost = displaced.or(refused);
        self.dropped += u32::from(lost.is_some());
        lost
    }

    /// The frame that has waited longest.
    pub fn pop(&mut self) -> Option<T> {
        self.frames.pop_front()
    }

    /// Frames that wait.
    pub fn len(&self) -> usize {
        self.frames.len()
    }

    /// Whether none waits.
    pub fn is_empty(&self) -> bool {
        self.frames.is_empty()
    }

    /// Frames that were displaced, so far.
    pub fn dropped(&self) -> u32 {
        self.dropped
    }
}

impl<T, const N: usize> Default for FrameQueue<T, N> {
    fn default() -> Self {
        Self::new()
    }
}

#[cfg(test)]
mod tests {
    use std::collections::VecDeque;
    use std::vec::Vec;

    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn the_newest_frames_are_kept_in_order(turns in proptest::collection::vec(any::<bool>(), 0..200)) {
            let mut queue = FrameQueue::<usize, 3>::new();
            let (mut model, mut dropped) = (VecDeque::new(), Vec::new());
            for (frame, arrives) in turns.into_iter().enumerate() {
                if arrives {
                    model.push_back(frame);
                    let expected = if model.len() > 3 { model.pop_front() } else { None };
                    dropped.extend(expected);
                    prop_assert_eq!(queue.push(frame), expected);
                } else {
                    prop_assert_eq!(queue.pop(), model.pop_front());
                }
                prop_assert_eq!(queue.len(), model.len());
                prop_assert_eq!(queue.dropped() as usize, dropped.len());
            }
        }
    }
}
