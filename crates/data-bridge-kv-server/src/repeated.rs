//! Lines of the log that whoever reaches the port can cause, authenticated or not: so many a second, so that nobody fills a
//! disk with them.

use std::sync::atomic::{AtomicU32, Ordering};

/// Most of such lines a second.
const LINES: u32 = 10;

/// The lines of this second.
#[derive(Debug, Default)]
pub struct Repeated(AtomicU32);

impl Repeated {
    /// Counts a line; answers whether it may be written.
    pub fn allows(&self) -> bool {
        self.0.fetch_add(1, Ordering::Relaxed) < LINES
    }

    /// Begins a new second; answers how many lines of the last one were left out.
    pub fn begin_second(&self) -> u32 {
        self.0.swap(0, Ordering::Relaxed).saturating_sub(LINES)
    }
}
