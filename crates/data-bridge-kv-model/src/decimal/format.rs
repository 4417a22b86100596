//! The canonical text of a [`Decimal`](super::Decimal): to-scientific-string of the General Decimal Arithmetic
//! specification, which is CPython's `str`. Only `Display` and `Decimal::write_to` use it.

use super::{MAX_DIGITS, Parts};

/// The longest canonical text: sign, 38 digits, a point and `E+32804`.
pub const MAX_TEXT_BYTES: usize = 1 + MAX_DIGITS as usize + 1 + 7;

/// The longest run of zeros before the first digit: `0.00000` in front of a number of 10^-6.
const LEADING: &[u8] = b"0.00000";
const _: () = assert!(1 + LEADING.len() + MAX_DIGITS as usize <= MAX_TEXT_BYTES);

/// A number's text on the stack.
pub(super) struct Text {
    bytes: [u8; MAX_TEXT_BYTES],
    len: usize,
}

impl Text {
    /// Writes a number whose coefficient is below 10^38.
    pub(super) fn of(number: Parts) -> Self {
        let mut scratch = [0; MAX_DIGITS as usize];
        let digits = digits_of(number.coefficient, &mut scratch);
        let mut text = Self { bytes: [0; MAX_TEXT_BYTES], len: 0 };
        if number.negative {
            text.push(b"-");
        }
        let exponent = i32::from(number.exponent);
        let whole = digits.len() as i32 + exponent;
        if exponent == 0 {
            text.push(digits);
        } else if exponent < 0 && whole > 0 {
            let (integer, fraction) = digits.split_at(whole as usize);
            text.push(integer);
            text.push(b".");
            text.push(fraction);
        } else if exponent < 0 && whole > -6 {
            text.push(&LEADING[..2 + whole.unsigned_abs() as usize]);
            text.push(digits);
        } else {
            text.push_scientific(digits, whole - 1);
        }
        text
    }

    fn push_scientific(&mut self, digits: &[u8], exponent: i32) {
        let (first, fraction) = digits.split_at(1);
        self.push(first);
        if !fraction.is_empty() {
            self.push(b".");
            self.push(fraction);
        }
        self.push(if exponent < 0 { b"E-" } else { b"E+" });
        let mut scratch = [0; MAX_DIGITS as usize];
        self.push(digits_of(u128::from(exponent.unsigned_abs()), &mut scratch));
    }

    #[inline]
    fn push(&mut self, part: &[u8]) {
        let end = self.len + part.len();
        self.bytes[self.len..end].copy_from_slice(part);
        self.len = end;
    }

    #[inline]
    pub(super) fn as_bytes(&self) -> &[u8] {
        &self.bytes[..self.len]
    }

    #[inline]
    pub(super) fn as_str(&self) -> &str {
        str::from_utf8(self.as_bytes()).expect("the text of a number is ASCII")
    }
}

/// Writes an integer below 10^38 right-aligned and returns its digits, at least one.
#[inline]
fn digits_of(integer: u128, scratch: &mut [u8; MAX_DIGITS as usize]) -> &[u8] {
    const HALF: u64 = 10_000_000_000_000_000_000;
    const HALF_DIGITS: usize = MAX_DIGITS as usize / 2;
    let start = match u64::try_from(integer) {
        Ok(integer) => write_backwards(integer, scratch, scratch.len()),
        Err(_) => {
            // One wide division leaves two halves of at most 19 digits each.
            let high = (integer / u128::from(HALF)) as u64;
            let low = (integer % u128::from(HALF)) as u64;
            let end = HALF_DIGITS;
            scratch[end..].fill(b'0');
            write_backwards(low, scratch, scratch.len());
            write_backwards(high, scratch, end)
        }
    };
    &scratch[start..]
}

/// Writes an integer so that it ends before `end` and returns where it starts.
#[inline]
fn write_backwards(mut integer: u64, scratch: &mut [u8; MAX_DIGITS as usize], mut end: usize) -> usize {
    while integer >= 100 {
        let pair = (integer % 100) as usize;
        integer /= 100;
        end -= 2;
        scratch[end..end + 2].copy_from_slice(&PAIRS[pair]);
    }
    if integer >= 10 {
        end -= 2;
        scratch[end..end + 2].copy_from_slice(&PAIRS[integer as usize]);
    } else {
        end -= 1;
        scratch[end] = b'0' + integer as u8;
    }
    end
}

/// The two digits of every number below a hundred.
const PAIRS: [[u8; 2]; 100] = {
    let mut pairs = [[b'0'; 2]; 100];
    let mut n = 0;
    while n < 100 {
        pairs[n] = [b'0' + n as u8 / 10, b'0' + n as u8 % 10];
        n += 1;
    }
    pairs
};

#[cfg(test)]
mod tests {
    use super::super::Decimal;
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn writes_as_cpython_does() {
        let cases = [
            (false, 0, 0, "0"),
            (true, 0, 0, "-0"),
            (false, 0, -6, "0.000000"),
            (false, 0, -7, "0E-7"),
            (true, 0, 5, "-0E+5"),
            (false, 1, 5, "1E+5"),
            (false, 110, -2, "1.10"),
            (false, 110, -3, "0.110"),
            (false, 123, -5, "0.00123"),
            (false, 5, -6, "0.000005"),
            (false, 5, -7, "5E-7"),
            (false, 50, -7, "0.0000050"),
            (false, 50, -8, "5.0E-7"),
            (true, 123, 10, "-1.23E+12"),
            (false, 1, -32768, "1E-32768"),
            (false, 10_000_000_000_000_000_000, 0, "10000000000000000000"),
            (false, 100_000_000_000_000_000_000, 0, "100000000000000000000"),
            (false, 10u128.pow(37) + 7, -19, "1000000000000000000.0000000000000000007"),
        ];
        for (negative, coefficient, exponent, expected) in cases {
            assert_eq!(Decimal::new(negative, coefficient, exponent).unwrap().to_string(), expected);
        }
    }

    #[test]
    fn the_longest_texts_fit() {
        let longest = Decimal::new(true, 10u128.pow(38) - 1, i16::MAX).unwrap().to_string();
        assert_eq!(longest.len(), MAX_TEXT_BYTES);
        assert!(longest.ends_with("9E+32804"), "{longest}");
        let zeros = Decimal::new(true, 10u128.pow(38) - 1, -43).unwrap().to_string();
        assert_eq!(zeros, format!("-0.00000{}", "9".repeat(38)));
    }

    #[test]
    fn writes_after_what_is_there() {
        let mut out = b"=".to_vec();
        Decimal::new(true, 15, -1).unwrap().write_to(&mut out);
        assert_eq!(out, b"=-1.5");
    }

    proptest! {
        #[test]
        fn text_and_number_round_trip(
            negative: bool, coefficient in 0..10u128.pow(38), dropped in 0u32..38,
            exponent in prop_oneof![any::<i16>(), -45i16..5],
        ) {
            let number = Decimal::new(negative, coefficient / 10u128.pow(dropped), exponent).unwrap();
            let text = number.to_string();
            prop_assert!(text.len() <= MAX_TEXT_BYTES);
            prop_assert_eq!(text.parse(), Ok(number));
        }
    }
}
