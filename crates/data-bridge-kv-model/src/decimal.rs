//! The exact decimal number: what Python's `decimal.Decimal` holds as long as it is finite, in 18 bytes.
//!
//! A number is `(-1)^sign * coefficient * 10^exponent`; the scale is part of it, so `1.10`, `1E+5`, `-0` and `0E-7`
//! stay what they are. Nothing here rounds: an operation is exact or an error. Anybody may use this type; the three
//! files below it hold the text syntax (`parse`), the canonical text (`format`) and the arithmetic (`arith`).
//!
//! ```text
//! byte 0                                                  15 16      17
//!      | u128 LE: bit 127 sign, bits 0..=126 coefficient    | i16 LE: exponent |
//! ```
//! These are also the payload bytes of the kind Decimal in the value codec.

mod arith;
mod format;
mod parse;

pub use format::MAX_TEXT_BYTES;

use std::fmt;
use std::str::FromStr;

/// The most significant digits a coefficient may have. Trailing zeros count, leading zeros do not.
pub const MAX_DIGITS: u32 = 38;

/// The first coefficient that is too large: 10^38.
const COEFFICIENT_END: u128 = 10u128.pow(MAX_DIGITS);

/// The sign bit in the first sixteen bytes.
const SIGN_BIT: u128 = 1 << 127;

const _: () = assert!(size_of::<Decimal>() == 18 && align_of::<Decimal>() == 1);
const _: () = assert!(COEFFICIENT_END < SIGN_BIT, "the coefficient must leave the sign bit free");

/// A finite decimal number with at most 38 digits and an exponent within `i16`, both kept exactly.
///
/// `==` is **exact**: it compares the representation, so `1.0 != 1.00` and `0 != -0` (what compare-and-set needs).
/// Equality as numbers is [`numeric_eq`](Self::numeric_eq), order is [`numeric_cmp`](Self::numeric_cmp), and a value
/// to hash by number is [`normalized`](Self::normalized). There is no `Ord` and no `Hash`, because either would have
/// to disagree with one of the two equalities.
///
/// ```
/// use data_bridge_kv_model::{Decimal, DecimalError};
///
/// let price: Decimal = "1.10".parse()?;
/// assert_eq!(price.to_string(), "1.10");
/// assert_eq!(price.checked_add(Decimal::from(2))?.to_string(), "3.10");
///
/// let shorter: Decimal = "1.1".parse()?;
/// assert_ne!(price, shorter);
/// assert!(price.numeric_eq(shorter));
/// # Ok::<(), DecimalError>(())
/// ```
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Decimal {
    /// Sign and coefficient, little endian. Two arrays instead of one of 18 bytes, so that each is one load.
    word: [u8; 16],
    exponent: [u8; 2],
}

/// Why a text, a payload or a result is not a [`Decimal`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DecimalError {
    /// The text is not a decimal number.
    Syntax,
    /// The text is a NaN or an infinity; only finite numbers are stored.
    NotFinite,
    /// The number has more than [`MAX_DIGITS`] significant digits.
    TooManyDigits,
    /// The exponent, counted from the last digit, is not within -32768..=32767.
    ExponentOutOfRange,
    /// The exact result of an operation is not a [`Decimal`]. Nothing was rounded and nothing was changed.
    Overflow,
}

impl fmt::Display for DecimalError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Syntax => "not a decimal number",
            Self::NotFinite => "not a finite number: NaN and infinities cannot be stored",
            Self::TooManyDigits => "decimal number has more than 38 significant digits",
            Self::ExponentOutOfRange => "decimal exponent is out of range (-32768 to 32767)",
            Self::Overflow => {
                "the exact result does not fit into 38 digits and an exponent of -32768 to 32767"
            }
        })
    }
}

impl std::error::Error for DecimalError {}

/// The three parts of a [`Decimal`] while something is computed from them.
#[derive(Clone, Copy)]
struct Parts {
    negative: bool,
    coefficient: u128,
    exponent: i16,
}

impl Decimal {
    /// Positive zero with exponent 0, the text `0`.
    pub const ZERO: Self = Self { word: [0; 16], exponent: [0; 2] };

    /// Puts a number together from its parts.
    ///
    /// # Errors
    /// [`DecimalError::TooManyDigits`] when the coefficient is 10^38 or more.
    ///
    /// ```
    /// use data_bridge_kv_model::{Decimal, DecimalError};
    /// assert_eq!(Decimal::new(true, 110, -2)?.to_string(), "-1.10");
    /// assert_eq!(Decimal::new(false, 10u128.pow(38), 0), Err(DecimalError::TooManyDigits));
    /// # Ok::<(), DecimalError>(())
    /// ```
    #[inline]
    pub const fn new(negative: bool, coefficient: u128, exponent: i16) -> Result<Self, DecimalError> {
        if coefficient >= COEFFICIENT_END {
            return Err(DecimalError::TooManyDigits);
        }
        Ok(Self::pack(Parts { negative, coefficient, exponent }))
    }

    /// Reads the 18 payload bytes of the value codec.
    ///
    /// # Errors
    /// [`DecimalError::TooManyDigits`] when the coefficient is 10^38 or more; every other byte string is a number.
    ///
    /// ```
    /// use data_bridge_kv_model::{Decimal, DecimalError};
    /// let number: Decimal = "-0E-7".parse()?;
    /// assert_eq!(Decimal::from_payload(&number.to_payload())?, number);
    /// assert_eq!(Decimal::from_payload(&[0xff; 18]), Err(DecimalError::TooManyDigits));
    /// # Ok::<(), DecimalError>(())
    /// ```
    #[inline]
    pub const fn from_payload(payload: &[u8; 18]) -> Result<Self, DecimalError> {
        let mut number = Self::ZERO;
        let (word, exponent) = payload.split_at(16);
        number.word.copy_from_slice(word);
        number.exponent.copy_from_slice(exponent);
        if number.coefficient() >= COEFFICIENT_END {
            return Err(DecimalError::TooManyDigits);
        }
        Ok(number)
    }

    /// The 18 payload bytes of the value codec; the file's header draws them.
    ///
    /// ```
    /// use data_bridge_kv_model::Decimal;
    /// let payload = Decimal::from(-258).to_payload();
    /// assert_eq!((payload[0], payload[1], payload[15], payload[16]), (2, 1, 0x80, 0));
    /// ```
    #[inline]
    pub const fn to_payload(self) -> [u8; 18] {
        let mut payload = [0; 18];
        let (word, exponent) = payload.split_at_mut(16);
        word.copy_from_slice(&self.word);
        exponent.copy_from_slice(&self.exponent);
        payload
    }

    /// Whether the sign bit is set; also true for `-0`.
    ///
    /// ```
    /// use data_bridge_kv_model::Decimal;
    /// assert!(Decimal::from(-3).is_negative());
    /// assert!("-0.00".parse::<Decimal>()?.is_negative());
    /// # Ok::<(), data_bridge_kv_model::DecimalError>(())
    /// ```
    #[inline]
    pub const fn is_negative(self) -> bool {
        self.unpack().negative
    }

    /// The digits as an integer, below 10^38.
    ///
    /// ```
    /// use data_bridge_kv_model::Decimal;
    /// assert_eq!("-1.10".parse::<Decimal>()?.coefficient(), 110);
    /// # Ok::<(), data_bridge_kv_model::DecimalError>(())
    /// ```
    #[inline]
    pub const fn coefficient(self) -> u128 {
        self.unpack().coefficient
    }

    /// The power of ten of the last digit.
    ///
    /// ```
    /// use data_bridge_kv_model::Decimal;
    /// assert_eq!("-1.10".parse::<Decimal>()?.exponent(), -2);
    /// # Ok::<(), data_bridge_kv_model::DecimalError>(())
    /// ```
    #[inline]
    pub const fn exponent(self) -> i16 {
        self.unpack().exponent
    }

    /// Whether the number is zero, whatever its sign and exponent.
    ///
    /// ```
    /// use data_bridge_kv_model::Decimal;
    /// assert!("-0E-7".parse::<Decimal>()?.is_zero());
    /// # Ok::<(), data_bridge_kv_model::DecimalError>(())
    /// ```
    #[inline]
    pub const fn is_zero(self) -> bool {
        self.unpack().coefficient == 0
    }

    /// Reads a number from ASCII text: an optional sign, digits with at most one point and at least one digit, then
    /// optionally `e` or `E`, an optional sign and digits. All digits and the scale are kept.
    ///
    /// This is CPython's syntax without its leniencies: no surrounding whitespace, no underscores, no digits beyond
    /// ASCII. The time is linear in the length of the text, whatever it says.
    ///
    /// # Errors
    /// [`DecimalError::Syntax`] for text of another shape, [`DecimalError::NotFinite`] for what CPython reads as a
    /// NaN or an infinity, [`DecimalError::TooManyDigits`] for more than 38 digits after the leading zeros, and
    /// [`DecimalError::ExponentOutOfRange`] when the exponent of the last digit leaves `i16`.
    ///
    /// ```
    /// use data_bridge_kv_model::{Decimal, DecimalError};
    /// assert_eq!(Decimal::parse_bytes(b"+0012.50e3")?.to_string(), "1.250E+4");
    /// assert_eq!(Decimal::parse_bytes(b" 1"), Err(DecimalError::Syntax));
    /// assert_eq!(Decimal::parse_bytes(b"-Infinity"), Err(DecimalError::NotFinite));
    /// assert_eq!(Decimal::parse_bytes(b"1e999999999999999999"), Err(DecimalError::ExponentOutOfRange));
    /// # Ok::<(), DecimalError>(())
    /// ```
    #[inline]
    pub fn parse_bytes(text: &[u8]) -> Result<Self, DecimalError> {
        parse::parse(text)
    }

    /// Appends the canonical text, at most [`MAX_TEXT_BYTES`] bytes, the same that [`Display`](fmt::Display) shows.
    /// Allocates only if `out` has to grow.
    ///
    /// ```
    /// use data_bridge_kv_model::Decimal;
    /// let mut line = b"total=".to_vec();
    /// Decimal::from(42).write_to(&mut line);
    /// assert_eq!(line, b"total=42");
    /// ```
    #[inline]
    pub fn write_to(self, out: &mut Vec<u8>) {
        out.extend_from_slice(format::Text::of(self.unpack()).as_bytes());
    }

    /// Packs parts whose coefficient is known to be below 10^38.
    #[inline]
    const fn pack(parts: Parts) -> Self {
        debug_assert!(parts.coefficient < COEFFICIENT_END);
        let word = parts.coefficient | if parts.negative { SIGN_BIT } else { 0 };
        Self { word: word.to_le_bytes(), exponent: parts.exponent.to_le_bytes() }
    }

    #[inline]
    const fn unpack(self) -> Parts {
        let word = u128::from_le_bytes(self.word);
        Parts {
            negative: word & SIGN_BIT != 0,
            coefficient: word & !SIGN_BIT,
            exponent: i16::from_le_bytes(self.exponent),
        }
    }
}

impl From<i64> for Decimal {
    /// The integer with exponent 0.
    #[inline]
    fn from(integer: i64) -> Self {
        Self::pack(Parts {
            negative: integer < 0,
            coefficient: u128::from(integer.unsigned_abs()),
            exponent: 0,
        })
    }
}

impl FromStr for Decimal {
    type Err = DecimalError;

    /// The same as [`Decimal::parse_bytes`].
    #[inline]
    fn from_str(text: &str) -> Result<Self, DecimalError> {
        Self::parse_bytes(text.as_bytes())
    }
}

impl fmt::Display for Decimal {
    /// The canonical text of the General Decimal Arithmetic specification (to-scientific-string), which is also
    /// CPython's `str`: [`Decimal::parse_bytes`] gives the same number back. Width and precision are ignored,
    /// because a cut number would be another number.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(format::Text::of(self.unpack()).as_str())
    }
}

impl fmt::Debug for Decimal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Decimal({self})")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn payload_bytes_are_golden() {
        let number = Decimal::new(true, 0x0102_0304, -2).unwrap();
        assert_eq!(number.to_payload(), [4, 3, 2, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0x80, 0xfe, 0xff]);
        assert_eq!(Decimal::ZERO.to_payload(), [0; 18]);
    }

    #[test]
    fn the_largest_coefficient_is_accepted_and_the_next_refused() {
        let mut payload = (COEFFICIENT_END - 1).to_le_bytes().to_vec();
        payload.extend(i16::MIN.to_le_bytes());
        let largest = Decimal::from_payload(payload.as_slice().try_into().unwrap()).unwrap();
        assert_eq!(Decimal::new(false, COEFFICIENT_END - 1, i16::MIN), Ok(largest));

        payload[..16].copy_from_slice(&(COEFFICIENT_END | SIGN_BIT).to_le_bytes());
        let refused = Decimal::from_payload(payload.as_slice().try_into().unwrap());
        assert_eq!(refused, Err(DecimalError::TooManyDigits));
        assert_eq!(Decimal::new(true, COEFFICIENT_END, 0), Err(DecimalError::TooManyDigits));
    }

    #[test]
    fn equality_is_of_the_representation() {
        let number = |text: &str| text.parse::<Decimal>().unwrap();
        assert_ne!(number("1.0"), number("1.00"));
        assert_ne!(number("0"), number("-0"));
        assert_eq!(number("1e2"), number("1E+2"));
        assert_eq!(format!("{:?}", number("-1.50")), "Decimal(-1.50)");
    }

    proptest! {
        #[test]
        fn parts_and_payload_round_trip(negative: bool, coefficient in 0..COEFFICIENT_END, exponent: i16) {
            let number = Decimal::new(negative, coefficient, exponent).unwrap();
            prop_assert_eq!(number.is_negative(), negative);
            prop_assert_eq!(number.coefficient(), coefficient);
            prop_assert_eq!(number.exponent(), exponent);
            prop_assert_eq!(number.is_zero(), coefficient == 0);
            prop_assert_eq!(Decimal::from_payload(&number.to_payload()), Ok(number));
        }
    }
}
