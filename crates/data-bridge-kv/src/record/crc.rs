//! CRC32C of a record: most are short, and for those setting out costs more than the sum does. So short ones are summed here, in
//! one go with the place in front of them, where the processor has the instruction; the rest is left to the library.
#![allow(unsafe_code)]

/// Bytes of the place that a record's checksum begins with.
pub(super) const PLACE_BYTES: usize = 20;
/// From here on the library is faster: it sums three parts side by side.
#[cfg(target_arch = "x86_64")]
const LONG_BYTES: usize = 768;

/// The checksum of a place and what stands there.
#[inline]
pub(super) fn of(place: &[u8; PLACE_BYTES], bytes: &[u8]) -> u32 {
    #[cfg(target_arch = "x86_64")]
    if bytes.len() < LONG_BYTES && is_x86_feature_detected!("sse4.2") {
        // SAFETY: the processor has the instructions that the function is compiled for, and that is all it asks for.
        return unsafe { short(place, bytes) };
    }
    crc32c::crc32c_append(crc32c::crc32c(place), bytes)
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "sse4.2")]
fn short(place: &[u8; PLACE_BYTES], bytes: &[u8]) -> u32 {
    !sum(sum(u32::MAX, place), bytes)
}

/// Goes on with a sum that is not inverted.
#[cfg(target_arch = "x86_64")]
#[inline]
#[target_feature(enable = "sse4.2")]
fn sum(before: u32, bytes: &[u8]) -> u32 {
    use std::arch::x86_64::{_mm_crc32_u8, _mm_crc32_u32, _mm_crc32_u64};
    let (words, rest) = bytes.as_chunks::<8>();
    let wide =
        words.iter().fold(u64::from(before), |sum, word| _mm_crc32_u64(sum, u64::from_le_bytes(*word)));
    // The upper half of the result is zero.
    let mut sum = wide as u32;
    let (halves, rest) = rest.as_chunks::<4>();
    for half in halves {
        sum = _mm_crc32_u32(sum, u32::from_le_bytes(*half));
    }
    rest.iter().fold(sum, |sum, byte| _mm_crc32_u8(sum, *byte))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_sum_is_the_library_s_at_every_length_and_alignment() {
        let bytes: Vec<u8> = (0..2000u32).map(|number| ((number * number) >> 3) as u8).collect();
        let place = *bytes[1000..].first_chunk().unwrap();
        for length in (0..300).chain(760..780) {
            for from in 0..9 {
                let part = &bytes[from..from + length];
                let whole = [&place[..], part].concat();
                assert_eq!(of(&place, part), crc32c::crc32c(&whole), "{length} bytes from {from}");
            }
        }
        assert_eq!(crc32c::crc32c(b"123456789"), 0xE306_9283);
    }
}
