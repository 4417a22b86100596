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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_above_ten_a_second_is_left_out_and_counted() {
        let repeated = Repeated::default();
        for left_out in [0, 3, 0] {
            let written = (0..LINES + left_out).filter(|_| repeated.allows()).count();
            assert_eq!((written, repeated.begin_second()), (10, left_out));
        }
        assert_eq!(repeated.begin_second(), 0, "a second without any");
    }
}
