//! Decimal text of integers beyond 64 bits, and back. Quadratic in the length, which `limits.rs` bounds.
#![cfg_attr(not(test), deny(clippy::indexing_slicing, clippy::unwrap_used, clippy::arithmetic_side_effects))]

use crate::codec::put_counted;
use crate::limits::BIGINT_BYTES;

/// Digits that fit one step of the conversion: 10^9 fits 32 bits.
const STEP_DIGITS: usize = 9;
const STEP: u64 = 1_000_000_000;
/// More digits than the largest magnitude has: a byte has fewer than three.
const DIGITS: usize = BIGINT_BYTES * 3;

/// Reads decimal digits with an optional minus and appends the payload of a BigInt; `None` if the text is no
/// integer, fits 64 bits (that is an Int) or is too long.
pub(crate) fn parse(text: &[u8], out: &mut Vec<u8>) -> Option<()> {
    let (negative, digits) = match text {
        [b'-', digits @ ..] => (true, digits),
        digits => (false, digits),
    };
    if digits.len() < 19 || digits.first() == Some(&b'0') || digits.len() > DIGITS {
        return None;
    }
    let mut limbs: Vec<u32> = Vec::new();
    let (head, steps) = digits.split_at(digits.len() % STEP_DIGITS);
    for step in std::iter::once(head).chain(steps.chunks(STEP_DIGITS)).filter(|step| !step.is_empty()) {
        let number: u32 =
            std::str::from_utf8(step).ok().filter(|s| s.bytes().all(|b| b.is_ascii_digit()))?.parse().ok()?;
        let scale = if step.len() == STEP_DIGITS { STEP } else { 1 };
        multiply_add(&mut limbs, scale, number);
    }
    let mut magnitude: Vec<u8> = limbs.iter().flat_map(|limb| limb.to_le_bytes()).collect();
    while magnitude.last() == Some(&0) {
        magnitude.pop();
    }
    if !is_valid(negative, &magnitude) {
        return None;
    }
    out.push(u8::from(negative));
    put_counted(&magnitude, out);
    Some(())
}

/// Whether sign and little-endian magnitude are those of a BigInt: no leading zero byte, beyond 64 bits, not too long.
pub(crate) fn is_valid(negative: bool, magnitude: &[u8]) -> bool {
    let beyond = match magnitude.first_chunk::<8>() {
        // The first magnitude that is no i64: 2^63, or 2^63 + 1 below zero.
        Some(low) if magnitude.len() == low.len() => {
            u64::from_le_bytes(*low) > i64::MAX.unsigned_abs().saturating_add(u64::from(negative))
        }
        Some(_) => magnitude.len() <= BIGINT_BYTES,
        None => false,
    };
    beyond && magnitude.last() != Some(&0)
}

/// Appends the decimal digits of a sign and little-endian magnitude.
pub(crate) fn show(negative: bool, magnitude: &[u8], out: &mut Vec<u8>) {
    let mut limbs: Vec<u32> = magnitude
        .chunks(4)
        .map(|chunk| chunk.iter().rev().fold(0, |limb, byte| limb << 8 | u32::from(*byte)))
        .collect();
    let mut steps = Vec::new();
    while !limbs.is_empty() {
        steps.push(divide(&mut limbs));
        while limbs.last() == Some(&0) {
            limbs.pop();
        }
    }
    if negative {
        out.push(b'-');
    }
    let mut steps = steps.into_iter().rev();
    out.extend_from_slice(steps.next().unwrap_or(0).to_string().as_bytes());
    for step in steps {
        out.extend_from_slice(format!("{step:09}").as_bytes());
    }
}

/// `limbs = limbs * scale + number`.
fn multiply_add(limbs: &mut Vec<u32>, scale: u64, number: u32) {
    let mut carry = u64::from(number);
    for limb in limbs.iter_mut() {
        let wide = u64::from(*limb).wrapping_mul(scale).wrapping_add(carry);
        *limb = wide as u32;
        carry = wide >> 32;
    }
    if carry > 0 {
        limbs.push(carry as u32);
    }
}

/// `limbs = limbs / 10^9`; answers the remainder.
fn divide(limbs: &mut [u32]) -> u32 {
    let mut remainder: u64 = 0;
    for limb in limbs.iter_mut().rev() {
        let wide = remainder << 32 | u64::from(*limb);
        *limb = (wide / STEP) as u32;
        remainder = wide % STEP;
    }
    remainder as u32
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_comes_back() {
        let powers = (64..200).map(|bits| {
            let mut magnitude = vec![0u8; bits / 8];
            magnitude.push(1 << (bits % 8));
            magnitude
        });
        for magnitude in powers {
            let mut text = Vec::new();
            show(true, &magnitude, &mut text);
            let mut payload = Vec::new();
            parse(&text, &mut payload).unwrap();
            assert_eq!(payload[0], 1);
            assert_eq!(&payload[2..], &magnitude[..], "{}", String::from_utf8_lossy(&text));
        }
    }

    #[test]
    fn known_numbers() {
        let mut text = Vec::new();
        show(false, &[0, 0, 0, 0, 0, 0, 0, 0, 1], &mut text);
        assert_eq!(text, b"18446744073709551616");
        let mut out = Vec::new();
        assert!(parse(b"9223372036854775807", &mut out).is_none());
        assert!(parse(b"-9223372036854775808", &mut out).is_none());
        assert!(parse(b"9223372036854775808", &mut out).is_some());
        assert!(parse(b"1000000000000000000x", &mut out).is_none());
        assert!(parse(b"", &mut out).is_none());
    }
}
