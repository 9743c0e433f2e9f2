//! [`Slot`]: a place for one value between two threads. What is not taken in time is replaced, or waited for.
//!
//! Queues longer than one make old pictures: a camera of 30 frames/s before a network of 10 fills any queue, and from then on
//! every frame is as old as the queue is long (notes of jetson-utils' and CSI-Camera's users say up to 30 s).

use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// A place for one value.
#[derive(Debug)]
pub(crate) struct Slot<T> {
    state: Mutex<State<T>>,
    changed: Condvar,
}

#[derive(Debug)]
struct State<T> {
    value: Option<T>,
    /// Nothing will be put here any more.
    closed: bool,
    /// How many values were taken.
    takes: u64,
    /// When the first value came after the last take, and after the take before it.
    came: [Option<Instant>; 2],
}

/// What a waiting taker got.
#[derive(Debug)]
pub(crate) enum Taken<T> {
    /// A value, the number of its take, from 1, and when it was taken.
    Value(T, u64, Instant),
    /// Nothing so far.
    Nothing,
    /// Nothing, and nothing will come.
    Closed,
}

impl<T> Slot<T> {
    pub(crate) const fn new() -> Self {
        Self {
            state: Mutex::new(State {
                value: None,
                closed: false,
                takes: 0,
                came: [None; 2],
            }),
            changed: Condvar::new(),
        }
    }

    /// Puts a value, at once; returns the one that nobody has taken, or this one if the slot is closed.
    pub(crate) fn replace(&self, value: T) -> Option<T> {
        let mut state = self.lock();
        if state.closed {
            return Some(value);
        }
        let old = state.value.replace(value);
        state.came[0].get_or_insert_with(Instant::now);
        self.changed.notify_all();
        old
    }

    /// Waits until the slot is empty, and puts the value; returns it if the slot is closed.
    pub(crate) fn put(&self, value: T) -> Result<(), T> {
        let mut state = self.lock();
        while state.value.is_some() && !state.closed {
            state = self.wait(state);
        }
        if state.closed {
            return Err(value);
        }
        state.value = Some(value);
        state.came[0].get_or_insert_with(Instant::now);
        self.changed.notify_all();
        Ok(())
    }

    /// Puts a value and waits until it has been taken; returns it if the slot is closed before.
    pub(crate) fn hand_over(&self, value: T) -> Result<(), T> {
        self.put(value)?;
        let mut state = self.lock();
        // One thread hands over: when the value is gone, it was taken.
        while state.value.is_some() && !state.closed {
            state = self.wait(state);
        }
        state.value.take().map_or(Ok(()), Err)
    }

    /// Waits for a value; `None` when the slot is closed and empty. With it comes the number of this take, from 1.
    pub(crate) fn take(&self) -> Option<(T, u64)> {
        let mut state = self.lock();
        loop {
            if let Some(value) = self.take_from(&mut state) {
                return Some((value, state.takes));
            }
            if state.closed {
                return None;
            }
            state = self.wait(state);
        }
    }

    /// Waits for a value, at most so long.
    pub(crate) fn take_within(&self, time: Duration) -> Taken<T> {
        let state = self.lock();
        let waiting = |state: &mut State<T>| state.value.is_none() && !state.closed;
        let (mut state, _) = self
            .changed
            .wait_timeout_while(state, time, waiting)
            .unwrap_or_else(PoisonError::into_inner);
        // Within the lock, so that whoever handed the value over goes on after this time.
        match self.take_from(&mut state) {
            Some(value) => Taken::Value(value, state.takes, Instant::now()),
            None if state.closed => Taken::Closed,
            None => Taken::Nothing,
        }
    }

    /// When the first value came after a take: the last one, or the one before it. `None` if none has come.
    pub(crate) fn came_after(&self, take: u64) -> Option<Instant> {
        let state = self.lock();
        let ago = state.takes.checked_sub(take)?;
        *state.came.get(usize::try_from(ago).ok()?)?
    }

    /// Nothing will be put any more. A value that is there can still be taken.
    pub(crate) fn close(&self) {
        self.lock().closed = true;
        self.changed.notify_all();
    }

    fn take_from(&self, state: &mut State<T>) -> Option<T> {
        let value = state.value.take()?;
        state.takes += 1;
        state.came = [None, state.came[0]];
        self.changed.notify_all();
        Some(value)
    }

    fn wait<'a>(&self, state: MutexGuard<'a, State<T>>) -> MutexGuard<'a, State<T>> {
        self.changed
            .wait(state)
            .unwrap_or_else(PoisonError::into_inner)
    }

    fn lock(&self) -> MutexGuard<'_, State<T>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use std::thread;

    #[test]
    fn the_latest_replaces_what_nobody_took() {
        let slot = Slot::new();
        assert_eq!(slot.replace(1), None);
        assert_eq!(slot.replace(2), Some(1));
        assert_eq!(slot.take(), Some((2, 1)));
        assert!(matches!(slot.take_within(Duration::ZERO), Taken::Nothing));
        slot.replace(3);
        slot.close();
        assert_eq!(slot.replace(4), Some(4));
        assert_eq!(slot.take(), Some((3, 2)));
        assert_eq!(slot.take(), None);
        assert!(matches!(slot.take_within(Duration::ZERO), Taken::Closed));
    }

    #[test]
    fn what_came_after_a_take_is_known_until_the_take_after_the_next() {
        let slot = Slot::new();
        slot.replace(1);
        let (_, first) = slot.take().unwrap();
        assert_eq!(slot.came_after(first), None);
        let before = Instant::now();
        slot.replace(2);
        let came = slot.came_after(first).unwrap();
        assert!(came >= before);
        thread::sleep(Duration::from_millis(1));
        slot.replace(3);
        assert_eq!(
            slot.came_after(first),
            Some(came),
            "the first, not the last"
        );
        let (_, second) = slot.take().unwrap();
        assert_eq!(slot.came_after(first), Some(came));
        assert_eq!(slot.came_after(second), None);
        slot.replace(4);
        assert!(slot.came_after(second).unwrap() > came);
        slot.take();
        assert_eq!(slot.came_after(first), None);
    }

    #[test]
    fn every_value_arrives_when_it_is_waited_for() {
        let slot = Slot::new();
        thread::scope(|scope| {
            scope.spawn(|| {
                for value in 0..1000 {
                    slot.put(value).unwrap();
                }
                slot.close();
            });
            let all: Vec<i32> = std::iter::from_fn(|| Some(slot.take()?.0)).collect();
            assert_eq!(all, (0..1000).collect::<Vec<_>>());
        });
        assert_eq!(slot.put(1), Err(1));
    }

    #[test]
    fn what_is_handed_over_was_taken_before() {
        let slot = Slot::new();
        thread::scope(|scope| {
            let giver = scope.spawn(|| {
                for value in 0..100 {
                    slot.hand_over(value).unwrap();
                    assert!(matches!(slot.take_within(Duration::ZERO), Taken::Nothing));
                }
                slot.close();
            });
            while slot.take().is_some() {}
            giver.join().unwrap();
        });
        let slot = Slot::new();
        thread::scope(|scope| {
            let giver = scope.spawn(|| slot.hand_over(7));
            while !matches!(slot.lock().value, Some(7)) {
                thread::yield_now();
            }
            slot.close();
            assert_eq!(giver.join().unwrap(), Err(7));
        });
    }
}
