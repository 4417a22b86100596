//! The time of day, in Unix milliseconds. The only place that reads a clock: everything else is handed a [`Clock`], or
//! the time it said, so that tests and simulations turn it themselves.
//!
//! Deadlines are absolute, so time must follow the wall clock; but it must never go back, or what had expired would be
//! there again. See [`SystemClock`] for how both are kept.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

mod ticks;

use ticks::Ticks;

/// A source of the time.
pub trait Clock: Send + Sync {
    /// The time in milliseconds since 1970. Never less than any value returned before, on any thread that knows of it.
    /// Read it once for a batch of commands, not for each.
    fn unix_ms(&self) -> u64;
}

/// How often the wall clock is consulted, in milliseconds.
const CONSULT_MS: u64 = 1000;

/// The clock of the machine.
///
/// It runs on the monotonic clock and looks at the wall clock once a second. If that is ahead (set forward, or the
/// machine slept) this one jumps forward to it; if it is behind (set back), this one runs at half speed, taken over each
/// second, until the wall clock has caught up: it neither goes back nor stands still for long. A reading costs one read
/// of the monotonic clock, and within a millisecond that was read before one of the processor's counter.
#[derive(Debug)]
pub struct SystemClock {
    start: Instant,
    course: Course,
    ticks: Ticks,
}

impl SystemClock {
    /// A clock that starts from the wall clock.
    pub fn new() -> Self {
        let (start, counter) = start();
        Self { start, course: Course::new(wall_ms()), ticks: Ticks::new(counter) }
    }
}

impl Default for SystemClock {
    fn default() -> Self {
        Self::new()
    }
}

impl Clock for SystemClock {
    #[inline]
    fn unix_ms(&self) -> u64 {
        let counter = ticks::counter();
        self.ticks.ms(counter).unwrap_or_else(|| self.read(counter))
    }
}

impl SystemClock {
    /// The time by the monotonic clock. `counter` was read before.
    fn read(&self, counter: u64) -> u64 {
        let elapsed = now().duration_since(self.start);
        let elapsed_ms =
            elapsed.as_secs().saturating_mul(1000).saturating_add(elapsed.subsec_millis().into());
        let ms = self.course.at(elapsed_ms, wall_ms);
        self.ticks.keep(counter, elapsed, ms);
        ms
    }
}

/// The monotonic clock and the counter at the same moment; the counter is 0 where it is not to be used.
fn start() -> (Instant, u64) {
    for _ in 0..100 {
        let (before, counter, start) = (now(), ticks::counter(), now());
        // Not interrupted in between: the counter's rate is measured from here.
        if ticks::is_even() && start.duration_since(before) < Duration::from_micros(20) {
            return (start, counter);
        }
    }
    (now(), 0)
}

/// Measures how long something takes, for figures only.
#[derive(Clone, Copy, Debug)]
pub struct Stopwatch(Instant);

impl Stopwatch {
    /// Starts.
    pub fn start() -> Stopwatch {
        Stopwatch(now())
    }

    /// Microseconds since the start.
    pub fn elapsed_us(self) -> u64 {
        // Under a scheduler the same seed does the same again: nothing may hang on how long it took.
        if cfg!(feature = "interleave") {
            return 0;
        }
        u64::try_from(now().duration_since(self.0).as_micros()).unwrap_or(u64::MAX)
    }
}

#[expect(clippy::disallowed_methods, reason = "this is where time enters")]
fn now() -> Instant {
    Instant::now()
}

#[expect(clippy::disallowed_methods, reason = "this is where time enters")]
fn wall_ms() -> u64 {
    let since_1970 = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since_1970.as_millis()).unwrap_or(u64::MAX)
}

/// How monotonic time maps to the time of day.
#[derive(Debug)]
struct Course {
    /// Time of day less monotonic time.
    offset: AtomicU64,
    /// Monotonic time at which the wall clock was last consulted.
    consulted: AtomicU64,
    /// The latest time said.
    latest: AtomicU64,
}

impl Course {
    fn new(wall_ms: u64) -> Self {
        Self {
            offset: AtomicU64::new(wall_ms),
            consulted: AtomicU64::new(0),
            latest: AtomicU64::new(wall_ms),
        }
    }

    /// The time of day, so many milliseconds after the start.
    fn at(&self, elapsed: u64, wall_ms: impl FnOnce() -> u64) -> u64 {
        let consulted = self.consulted.load(Relaxed);
        let since = elapsed.saturating_sub(consulted);
        if since >= CONSULT_MS
            && self.consulted.compare_exchange(consulted, elapsed, Relaxed, Relaxed).is_ok()
        {
            let offset = self.offset.load(Relaxed);
            let wanted = wall_ms().saturating_sub(elapsed);
            self.offset.store(wanted.max(offset.saturating_sub(since / 2)), Relaxed);
        }
        let time = self.offset.load(Relaxed).saturating_add(elapsed);
        let latest = self.latest.load(Relaxed);
        // One write a millisecond, whoever comes first; all other readings only load.
        if time > latest { self.latest.fetch_max(time, Relaxed).max(time) } else { latest }
    }
}

/// A clock that stands still until it is moved.
#[derive(Debug)]
pub struct ManualClock {
    time: AtomicU64,
}

impl ManualClock {
    /// A clock that shows this time.
    pub fn new(unix_ms: u64) -> Self {
        Self { time: AtomicU64::new(unix_ms) }
    }

    /// Moves on by so many milliseconds.
    pub fn advance(&self, by_ms: u64) {
        self.time.fetch_add(by_ms, Relaxed);
    }

    /// Moves on to this time; one that has passed leaves the clock where it is.
    pub fn set(&self, unix_ms: u64) {
        self.time.fetch_max(unix_ms, Relaxed);
    }
}

impl Clock for ManualClock {
    fn unix_ms(&self) -> u64 {
        self.time.load(Relaxed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const START: u64 = 1_790_000_000_000;

    #[test]
    fn time_follows_the_monotonic_clock_between_looks_at_the_wall_clock() {
        let course = Course::new(START);
        let no_look = || panic!("the wall clock is looked at once a second");
        assert_eq!(course.at(1, no_look), START + 1);
        assert_eq!(course.at(999, no_look), START + 999);
        assert_eq!(course.at(1000, || START + 1000), START + 1000);
        assert_eq!(course.at(1999, no_look), START + 1999);
    }

    #[test]
    fn a_wall_clock_set_forward_is_followed_at_once() {
        let course = Course::new(START);
        assert_eq!(course.at(1000, || START + 3_600_000), START + 3_600_000);
        assert_eq!(course.at(1500, || 0), START + 3_600_500);
    }

    #[test]
    fn a_wall_clock_set_back_is_met_at_half_speed() {
        let course = Course::new(START);
        let (mut last, mut met) = (START, 0);
        // The wall clock is set back by 10 s after a minute.
        for elapsed in (0..120_000).step_by(10) {
            let wall = START + elapsed - if elapsed >= 60_000 { 10_000 } else { 0 };
            let time = course.at(elapsed, || wall);
            assert!(time >= last, "went back by {} ms", last - time);
            assert!(time - last <= 20, "jumped by {} ms", time - last);
            if elapsed % 1000 == 0 && elapsed >= 60_000 && time == wall && met == 0 {
                met = elapsed;
            }
            last = time;
        }
        assert!((75_000..=85_000).contains(&met), "met the wall clock after {met} ms");
    }

    #[test]
    fn a_wall_clock_far_back_does_not_stop_time() {
        let course = Course::new(START);
        let times: Vec<u64> = (0..600).map(|second| course.at(second * 1000, || 0)).collect();
        let passed = times[599] - START;
        assert!((290_000..310_000).contains(&passed), "{passed} ms in ten minutes");
    }

    #[test]
    fn the_clock_of_the_machine_never_goes_back() {
        let clock = SystemClock::new();
        let wall = wall_ms();
        assert!(clock.unix_ms().abs_diff(wall) < 10_000);
        std::thread::scope(|scope| {
            for _ in 0..2 {
                scope.spawn(|| {
                    let mut last = 0;
                    for _ in 0..100_000 {
                        let time = clock.unix_ms();
                        assert!(time >= last);
                        last = time;
                    }
                });
            }
        });
    }

    #[test]
    fn a_reading_is_of_the_millisecond_that_is_now() {
        const READINGS: usize = 10_000;
        let clock = SystemClock::new();
        // The wall clock, which may be set, is not looked at.
        clock.course.consulted.store(u64::MAX, Relaxed);
        let exact = || clock.start.elapsed().as_millis() as u64 + clock.course.offset.load(Relaxed);
        let (mut by_counter, mut by_clock) = (0, 0);
        while by_counter < READINGS && (ticks::is_even() || by_clock < READINGS) {
            assert!(clock.start.elapsed() < Duration::from_secs(60), "{by_counter} readings by the counter");
            let before = exact();
            let counted = clock.ticks.ms(ticks::counter());
            let time = counted.unwrap_or_else(|| clock.unix_ms());
            let after = exact();
            assert!((before..=after).contains(&time), "{before} {time} {after}");
            (by_counter, by_clock) =
                (by_counter + usize::from(counted.is_some()), by_clock + usize::from(counted.is_none()));
        }
    }

    #[test]
    fn a_reading_holds_to_the_end_of_its_millisecond_and_no_longer() {
        let ticks = Ticks::new(1_000_000);
        // Three ticks a nanosecond; 150.25 ms after the start.
        let (elapsed, now) = (Duration::from_micros(150_250), 1_000_000 + 450_750_000);
        ticks.keep(now, elapsed, START);
        assert_eq!(ticks.ms(now + 1), Some(START));
        assert_eq!(ticks.ms(now + 2_200_000), Some(START));
        assert_eq!(ticks.ms(now + 2_250_000), None);
        assert_eq!(ticks.ms(now + u64::from(u32::MAX)), None);
        assert_eq!(ticks.ms(now - 100), None, "a counter that was set back");
        ticks.keep(now - 600_000, elapsed, START - 1);
        assert_eq!(ticks.ms(now + 1), Some(START), "an older reading that comes late");
        let fresh = Ticks::new(1_000_000);
        fresh.keep(now, Duration::from_micros(99_999), START);
        assert_eq!(fresh.ms(now + 1), None, "the rate is not known well enough");
        let near = Ticks::new(1_000_000);
        near.keep(now, Duration::from_nanos(150_999_000), START);
        assert_eq!(near.ms(now + 1), None, "too near the end");
        let none = Ticks::new(0);
        none.keep(now, elapsed, START);
        assert_eq!(none.ms(now + 1), None, "there is no counter");
    }

    #[test]
    fn a_manual_clock_moves_when_told_and_only_forward() {
        let clock = ManualClock::new(START);
        clock.advance(5);
        assert_eq!(clock.unix_ms(), START + 5);
        clock.set(START);
        assert_eq!(clock.unix_ms(), START + 5);
        clock.set(START + 10);
        assert_eq!(clock.unix_ms(), START + 10);
    }
}
