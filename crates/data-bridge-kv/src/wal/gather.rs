//! How those who wait share a sync: after one, the log's thread waits a little for whoever waited then to come back with the
//! next record. It goes on when as many came as before, when no more come, or when it was in vain too often.

use std::sync::atomic::Ordering::Acquire;
use std::time::Duration;

use super::Wal;
use super::buffer::Buffer;
use crate::clock::Stopwatch;
use crate::sync::MutexGuard;

/// As long as one more came in so many microseconds, the thread waits on: twice the time that a sync takes, but within these.
const PAUSE_US: (u64, u64) = (200, 1000);
/// The most pauses in a row.
const PAUSES: u64 = 4;
/// So often in vain in a row, and it is tried only once in [`RARELY`] times.
const IN_VAIN: u32 = 3;
const RARELY: u32 = 16;

/// Who waits, as far as the buffer knows.
#[derive(Debug)]
pub(super) struct Crowd {
    /// Records that somebody waits for, since those of the last batch.
    came: usize,
    /// Those of the last batch.
    before: usize,
    /// The thread is woken by the one that makes it so many.
    wanted: usize,
    /// How often in a row less came than were wanted.
    in_vain: u32,
}

impl Default for Crowd {
    fn default() -> Crowd {
        Crowd { came: 0, before: 0, wanted: 1, in_vain: 0 }
    }
}

impl Crowd {
    /// One more waits; whether the thread is to be woken.
    #[inline]
    pub(super) fn come(&mut self) -> bool {
        self.came += 1;
        self.came >= self.wanted
    }

    /// Whether the thread is waiting for more than one.
    #[inline]
    pub(super) fn is_gathering(&self) -> bool {
        self.wanted > 1
    }

    /// Whether anybody waits.
    pub(super) fn is_there(&self) -> bool {
        self.came > 0
    }

    /// They go with a batch.
    pub(super) fn go(&mut self) {
        self.before = std::mem::take(&mut self.came);
    }

    /// How many are worth waiting for, if any are.
    fn expect(&mut self) -> Option<usize> {
        let expected = self.came + self.before;
        if expected < 2 || self.came >= expected {
            return None;
        }
        let may = self.in_vain < IN_VAIN || self.in_vain.is_multiple_of(RARELY);
        if !may {
            self.in_vain += 1;
        }
        may.then_some(expected)
    }
}

impl Wal {
    /// Waits for those who waited for the last sync.
    pub(super) fn gather<'a>(&self, mut buffer: MutexGuard<'a, Buffer>) -> MutexGuard<'a, Buffer> {
        let Some(expected) = buffer.crowd.expect() else { return buffer };
        let (least, most) = PAUSE_US;
        let pause_us = (self.counts.sync_us_mean() * 2).clamp(least, most);
        let (watch, mut seen) = (Stopwatch::start(), buffer.crowd.came);
        buffer.crowd.wanted = expected;
        while buffer.crowd.came < expected && buffer.load.bytes < self.write_bytes() && !self.is_over() {
            let is_over;
            (buffer, is_over) = self.work.wait_for(buffer, Duration::from_micros(pause_us));
            if !is_over {
                continue;
            }
            if buffer.crowd.came == seen || watch.elapsed_us() >= PAUSES * pause_us {
                break;
            }
            seen = buffer.crowd.came;
        }
        let crowd = &mut buffer.crowd;
        crowd.wanted = 1;
        if crowd.came == 0 {
            crowd.before = 0;
        }
        // Most of them are enough.
        crowd.in_vain = if crowd.came * 2 > expected { 0 } else { crowd.in_vain + 1 };
        buffer
    }

    /// Whether nothing will be written any more but what is there.
    fn is_over(&self) -> bool {
        self.failure.get().is_some() || self.state.is_closed.load(Acquire)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whoever_waited_is_expected_back_unless_that_is_in_vain() {
        let mut crowd = Crowd::default();
        assert_eq!(crowd.expect(), None);
        assert!(crowd.come());
        crowd.go();
        assert_eq!(crowd.expect(), None, "one alone is never waited for");
        assert!(crowd.come() && crowd.come());
        crowd.go();
        assert!(crowd.come());
        assert_eq!(crowd.expect(), Some(3));
        crowd.wanted = 3;
        assert!(crowd.is_gathering() && !crowd.come() && crowd.come());
        assert_eq!(crowd.expect(), Some(5));
        crowd.in_vain = IN_VAIN;
        let tried = (0..RARELY * 2).filter(|_| crowd.expect().is_some()).count();
        assert_eq!(tried as u32, RARELY + 3, "until somebody counts how that went");
    }
}
