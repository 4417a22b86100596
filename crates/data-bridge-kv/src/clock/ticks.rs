//! The millisecond that is now, by the processor's counter: a reading of the monotonic clock holds until the counter
//! has come near the end of its millisecond. The counter is read in a third of the time, and without the fence that
//! makes the processor finish everything else first. For `clock.rs` alone.
//!
//! A reading is reused only while the counter stands between it and that end: a counter that was set back, or one that
//! another core is far ahead with, leads to a reading of the clock.
#![allow(unsafe_code)]

use std::sync::atomic::Ordering::{Acquire, Relaxed, Release};
use std::sync::atomic::{AtomicBool, AtomicU64};
use std::time::Duration;

/// The counter's rate is known well enough after this time.
const LEARNED: Duration = Duration::from_millis(100);
/// How far the counters of two cores may be apart, and the end of a millisecond is stayed away from.
const APART_NS: f64 = 2000.0;
/// Error of the rate that is allowed for.
const INEXACT: f64 = 0.999;

/// The reading that holds now.
#[derive(Debug)]
pub struct Ticks {
    /// The counter at the start; 0 = there is no counter that runs evenly.
    start: u64,
    /// The counter up to which `ms` holds.
    until: AtomicU64,
    /// For how many ticks it does.
    reach: AtomicU64,
    /// The time that was read.
    ms: AtomicU64,
    /// Somebody is writing the three.
    busy: AtomicBool,
}

impl Ticks {
    /// Nothing was read yet. `start` is the counter when the time that is handed to [`Ticks::keep`] was 0.
    pub fn new(start: u64) -> Ticks {
        Ticks {
            start,
            until: AtomicU64::new(0),
            reach: AtomicU64::new(0),
            ms: AtomicU64::new(0),
            busy: AtomicBool::new(false),
        }
    }

    /// The time, while the last reading holds.
    #[inline]
    pub fn ms(&self, now: u64) -> Option<u64> {
        // First the end, then the time: one that is newer than this end is right as well.
        let until = self.until.load(Acquire);
        let holds = until.wrapping_sub(now).wrapping_sub(1) < self.reach.load(Relaxed);
        holds.then(|| self.ms.load(Relaxed))
    }

    /// Keeps a reading: the counter stood at `now` when `elapsed` had passed since the start and the time was `ms`.
    pub fn keep(&self, now: u64, elapsed: Duration, ms: u64) {
        if self.start == 0 || elapsed < LEARNED || self.busy.swap(true, Acquire) {
            return;
        }
        let nanos = elapsed.as_secs_f64() * 1e9;
        let left = f64::from(1_000_000 - elapsed.subsec_nanos() % 1_000_000);
        let rate = now.saturating_sub(self.start) as f64 / nanos;
        let reach = (left * INEXACT - APART_NS) * rate;
        if reach >= 1.0 && ms >= self.ms.load(Relaxed) {
            self.ms.store(ms, Relaxed);
            self.reach.store(reach as u64, Relaxed);
            self.until.store(now.saturating_add(reach as u64), Release);
        }
        self.busy.store(false, Release);
    }
}

/// The counter.
#[inline]
#[cfg(target_arch = "x86_64")]
pub fn counter() -> u64 {
    // SAFETY: every x86_64 has the instruction, and user code may run it unless the system forbids it to all, which
    // would end the reads of the monotonic clock as well.
    unsafe { std::arch::x86_64::_rdtsc() }
}

/// There is none that is known to run evenly.
#[inline]
#[cfg(not(target_arch = "x86_64"))]
pub fn counter() -> u64 {
    0
}

/// Whether the counter runs at one rate, whatever the processor does.
#[cfg(target_arch = "x86_64")]
pub fn is_even() -> bool {
    const POWER: u32 = 0x8000_0007;
    const INVARIANT: u32 = 1 << 8;
    #[allow(unused_unsafe, reason = "not unsafe in later versions of Rust")]
    // SAFETY: every x86_64 has the instruction.
    let (last, power) = unsafe {
        use std::arch::x86_64::__cpuid;
        (__cpuid(0x8000_0000).eax, __cpuid(POWER).edx)
    };
    last >= POWER && power & INVARIANT != 0
}

/// There is no counter.
#[cfg(not(target_arch = "x86_64"))]
pub fn is_even() -> bool {
    false
}
