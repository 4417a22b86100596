//! Asks the processor for the place of the next record while nobody waits for it: else whoever appends that one waits, with the
//! log's lock, until memory has come that the writer's thread read last.
#![allow(unsafe_code)]

/// Cache lines that a short record reaches into.
#[cfg(target_arch = "x86_64")]
const LINES: usize = 3;
#[cfg(target_arch = "x86_64")]
const LINE_BYTES: usize = 64;

/// Asks for what is behind these bytes, to be written. Does nothing where there is no such instruction.
#[inline]
pub(super) fn ask_behind(bytes: &[u8]) {
    #[cfg(target_arch = "x86_64")]
    for line in 1..=LINES {
        use std::arch::x86_64::{_MM_HINT_ET0, _mm_prefetch};
        let address = bytes.as_ptr_range().end.wrapping_add(line * LINE_BYTES);
        // SAFETY: a prefetch never faults, whatever the address, and every x86_64 has it.
        unsafe { _mm_prefetch::<_MM_HINT_ET0>(address.cast()) };
    }
    #[cfg(not(target_arch = "x86_64"))]
    let _ = bytes;
}
