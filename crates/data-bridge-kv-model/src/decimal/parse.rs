//! The text syntax of [`Decimal`]; only `Decimal::parse_bytes` calls it. The input is untrusted and of any length.

#![cfg_attr(not(test), deny(clippy::indexing_slicing, clippy::unwrap_used, clippy::arithmetic_side_effects))]

use super::{Decimal, DecimalError, MAX_DIGITS, Parts};

/// How many digits a `u64` surely holds; two such chunks make up the longest coefficient.
const CHUNK: usize = 19;
const _: () = assert!(2 * CHUNK == MAX_DIGITS as usize);

pub(super) fn parse(text: &[u8]) -> Result<Decimal, DecimalError> {
    let (negative, unsigned) = split_sign(text);
    let mut digits = Digits::default();
    let rest = digits.take(unsigned);
    let mut seen = unsigned.len().saturating_sub(rest.len());
    let mut fraction = 0;
    let rest = match rest {
        [b'.', after @ ..] => {
            let rest = digits.take(after);
            fraction = after.len().saturating_sub(rest.len());
            seen = seen.saturating_add(fraction);
            rest
        }
        _ => rest,
    };
    if seen == 0 {
        return Err(if is_special(unsigned) { DecimalError::NotFinite } else { DecimalError::Syntax });
    }
    let written = match rest {
        [] => 0,
        [b'e' | b'E', after @ ..] => exponent(after)?,
        _ => return Err(DecimalError::Syntax),
    };
    let coefficient = digits.coefficient()?;
    let exponent = written.saturating_sub(i64::try_from(fraction).unwrap_or(i64::MAX));
    let exponent = i16::try_from(exponent).map_err(|_| DecimalError::ExponentOutOfRange)?;
    Ok(Decimal::pack(Parts { negative, coefficient, exponent }))
}

#[inline]
fn split_sign(text: &[u8]) -> (bool, &[u8]) {
    match text {
        [b'-', rest @ ..] => (true, rest),
        [b'+', rest @ ..] => (false, rest),
        _ => (false, text),
    }
}

/// The digits of a coefficient as they come in, in two chunks, so that each step is 64-bit arithmetic.
#[derive(Default)]
struct Digits {
    /// The first [`CHUNK`] significant digits.
    head: u64,
    /// The next [`CHUNK`] digits.
    tail: u64,
    /// All significant digits seen, those too many included.
    significant: usize,
}

impl Digits {
    /// Takes the digits that `text` begins with and returns the rest.
    #[inline]
    fn take<'a>(&mut self, text: &'a [u8]) -> &'a [u8] {
        let mut rest = text;
        while let [byte, after @ ..] = rest {
            let digit = byte.wrapping_sub(b'0');
            if digit > 9 {
                break;
            }
            self.push(u64::from(digit));
            rest = after;
        }
        rest
    }

    #[inline]
    fn push(&mut self, digit: u64) {
        // Nineteen digits stay below 2^64, so neither chunk wraps unless the digits are too many, which is an error.
        if self.significant < CHUNK {
            self.head = self.head.wrapping_mul(10).wrapping_add(digit);
        } else {
            self.tail = self.tail.wrapping_mul(10).wrapping_add(digit);
        }
        // A leading zero leaves the head zero and is not significant.
        self.significant = self.significant.saturating_add(usize::from(self.head != 0));
    }

    #[inline]
    fn coefficient(&self) -> Result<u128, DecimalError> {
        let Some(tail_digits) = self.significant.checked_sub(CHUNK) else { return Ok(u128::from(self.head)) };
        let scale = TAIL_SCALES.get(tail_digits).ok_or(DecimalError::TooManyDigits)?;
        // Both factors are below 2^64, and the sum is below 10^38.
        Ok(u128::from(self.head).wrapping_mul(u128::from(*scale)).wrapping_add(u128::from(self.tail)))
    }
}

/// 10^n for n tail digits.
#[allow(clippy::indexing_slicing, reason = "evaluated by the compiler")]
const TAIL_SCALES: [u64; CHUNK + 1] = {
    let mut powers = [1; CHUNK + 1];
    let mut n: usize = 1;
    while n <= CHUNK {
        powers[n] = 10u64.pow(n as u32);
        n = n.saturating_add(1);
    }
    powers
};

/// What follows the `e`: an optional sign and at least one digit, up to the end of the text. Saturates; no text that
/// fits into memory has the digits to bring such an exponent back into range.
#[inline]
fn exponent(text: &[u8]) -> Result<i64, DecimalError> {
    let (negative, digits) = split_sign(text);
    if digits.is_empty() {
        return Err(DecimalError::Syntax);
    }
    let mut magnitude: i64 = 0;
    for byte in digits {
        let digit = byte.wrapping_sub(b'0');
        if digit > 9 {
            return Err(DecimalError::Syntax);
        }
        magnitude = magnitude.saturating_mul(10).saturating_add(i64::from(digit));
    }
    Ok(if negative { magnitude.wrapping_neg() } else { magnitude })
}

/// Whether CPython reads the text, its sign taken off, as an infinity or a NaN (quiet or signalling, with or without
/// diagnostic digits).
#[cold]
fn is_special(text: &[u8]) -> bool {
    if text.eq_ignore_ascii_case(b"inf") || text.eq_ignore_ascii_case(b"infinity") {
        return true;
    }
    let quiet = match text {
        [b's' | b'S', rest @ ..] => rest,
        _ => text,
    };
    match quiet {
        [b'n' | b'N', b'a' | b'A', b'n' | b'N', payload @ ..] => payload.iter().all(u8::is_ascii_digit),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn parts(text: &str) -> Result<(bool, u128, i16), DecimalError> {
        text.parse::<Decimal>().map(|number| (number.is_negative(), number.coefficient(), number.exponent()))
    }

    #[test]
    fn accepts_the_syntax_and_keeps_the_scale() {
        let cases = [
            ("0", (false, 0, 0)),
            ("-0", (true, 0, 0)),
            ("0E-7", (false, 0, -7)),
            ("1.10", (false, 110, -2)),
            ("1E+5", (false, 1, 5)),
            ("+.5", (false, 5, -1)),
            ("-1.", (true, 1, 0)),
            ("1.e5", (false, 1, 5)),
            ("000.0010e-3", (false, 10, -7)),
            ("1E-32768", (false, 1, -32768)),
            ("1.5E+32768", (false, 15, 32767)),
            ("1e0000000000000000000000000000007", (false, 1, 7)),
        ];
        for (text, expected) in cases {
            assert_eq!(parts(text), Ok(expected), "{text}");
        }
    }

    #[test]
    fn refuses_other_text() {
        let texts = [
            "",
            "+",
            "-",
            ".",
            "-.",
            "e5",
            ".e5",
            "1e",
            "1e+",
            "1e5.",
            "1e5x",
            "1..2",
            "1.2.3",
            "--1",
            "+-1",
            " 1",
            "1 ",
            "1_000",
            "1\n",
            "0x10",
            "1,5",
            "\u{661}",
            "1e\u{661}",
            "infi",
            "infinityx",
            "nanx",
            "ssnan",
            "sinf",
            "- inf",
            "1inf",
            "1nan",
            "nan-1",
            "1\0",
        ];
        for text in texts {
            assert_eq!(parts(text), Err(DecimalError::Syntax), "{text:?}");
        }
    }

    #[test]
    fn refuses_numbers_that_are_not_finite() {
        for text in ["inf", "-Inf", "+INFINITY", "nan", "-NaN", "NaN123", "sNaN", "-SNAN0", "snan9"] {
            assert_eq!(parts(text), Err(DecimalError::NotFinite), "{text}");
        }
    }

    #[test]
    fn counts_significant_digits() {
        let nines = "9".repeat(38);
        let largest = nines.parse().unwrap();
        assert_eq!(parts(&nines), Ok((false, largest, 0)));
        assert_eq!(parts(&format!("0{nines}")), Ok((false, largest, 0)), "a leading zero does not count");
        assert_eq!(parts(&format!("0.000{nines}")), Ok((false, largest, -41)));
        assert_eq!(parts(&format!("{}.{}", &nines[..20], &nines[20..])), Ok((false, largest, -18)));
        assert_eq!(parts(&format!("{nines}0")), Err(DecimalError::TooManyDigits), "a trailing zero does");
        assert_eq!(parts(&format!("{nines}.0")), Err(DecimalError::TooManyDigits));
        assert_eq!(parts(&"0".repeat(100_000)), Ok((false, 0, 0)));
        assert_eq!(parts(&"7".repeat(100_000)), Err(DecimalError::TooManyDigits));
        assert_eq!(parts(&format!("{nines}9x")), Err(DecimalError::Syntax), "the shape is judged first");
    }

    #[test]
    fn hostile_exponents_do_not_overflow() {
        let huge = "9".repeat(5000);
        for text in
            ["1e999999999999999999", "1e-999999999999999999", "1E-32769", "1E+32768", "1.5E-32768", "0e99999"]
        {
            assert_eq!(parts(text), Err(DecimalError::ExponentOutOfRange), "{text}");
        }
        assert_eq!(parts(&format!("1e{huge}")), Err(DecimalError::ExponentOutOfRange));
        assert_eq!(parts(&format!("1e-{huge}")), Err(DecimalError::ExponentOutOfRange));
        let zeros = "0".repeat(40_000);
        assert_eq!(parts(&format!("0.{zeros}1")), Err(DecimalError::ExponentOutOfRange));
        assert_eq!(
            parts(&format!("0.{zeros}1e40000")),
            Ok((false, 1, -1)),
            "digits may make up for an exponent"
        );
    }

    proptest! {
        #[test]
        fn any_bytes_are_a_number_or_an_error(text in proptest::collection::vec(any::<u8>(), 0..60)) {
            if let Ok(number) = Decimal::parse_bytes(&text) {
                prop_assert_eq!(Decimal::parse_bytes(number.to_string().as_bytes()), Ok(number));
            }
        }

        #[test]
        fn digits_point_and_exponent_mean_what_they_say(
            negative: bool, digits in "[0-9]{1,38}", point in 0usize..=38, written in -33_000i32..=33_000,
        ) {
            let point = point.min(digits.len());
            let text = format!("{}{}.{}e{written}", if negative { "-" } else { "" }, &digits[..point], &digits[point..]);
            let exponent = written - (digits.len() - point) as i32;
            let expected = match i16::try_from(exponent) {
                Ok(exponent) => Ok((negative, digits.parse().unwrap(), exponent)),
                Err(_) => Err(DecimalError::ExponentOutOfRange),
            };
            prop_assert_eq!(parts(&text), expected);
        }
    }
}
