//! Exact arithmetic and numeric comparison of [`Decimal`]. 128-bit integers suffice everywhere: a result that needs
//! more is an `Overflow`, and a comparison first looks at the magnitudes.

use super::{COEFFICIENT_END, Decimal, DecimalError, MAX_DIGITS, Parts};
use std::cmp::Ordering;

/// 10^n for n of 0 to 38.
const POWERS: [u128; MAX_DIGITS as usize + 1] = {
    let mut powers = [1; MAX_DIGITS as usize + 1];
    let mut n = 1;
    while n < powers.len() {
        powers[n] = powers[n - 1] * 10;
        n += 1;
    }
    powers
};

impl Decimal {
    /// The exact sum.
    ///
    /// The exponent of the result is the smaller of the two, as in the General Decimal Arithmetic specification. When
    /// the sum needs more than 38 digits there, as many trailing zeros are dropped as it takes to make it fit. A sum
    /// of zero is `-0` only if both numbers are negative.
    ///
    /// # Errors
    /// [`DecimalError::Overflow`] when the exact sum does not fit even then.
    ///
    /// ```
    /// use data_bridge_kv_model::{Decimal, DecimalError};
    /// let number = |text: &str| text.parse::<Decimal>();
    /// assert_eq!(number("1.10")?.checked_add(number("0.9")?)?.to_string(), "2.00");
    /// assert_eq!(number("1E+40")?.checked_add(number("0")?)?.to_string(), "1.0000000000000000000000000000000000000E+40");
    /// assert_eq!(number("1E+40")?.checked_add(number("1")?), Err(DecimalError::Overflow));
    /// # Ok::<(), DecimalError>(())
    /// ```
    #[inline]
    pub fn checked_add(self, other: Self) -> Result<Self, DecimalError> {
        add(self.unpack(), other.unpack())
    }

    /// The exact difference, under the rules of [`checked_add`](Self::checked_add); `x - x` is a positive zero.
    ///
    /// # Errors
    /// [`DecimalError::Overflow`] when the exact difference does not fit.
    ///
    /// ```
    /// use data_bridge_kv_model::{Decimal, DecimalError};
    /// let number: Decimal = "-1.50".parse()?;
    /// assert_eq!(number.checked_sub(number)?.to_string(), "0.00");
    /// assert_eq!(number.checked_sub(Decimal::from(1))?.to_string(), "-2.50");
    /// # Ok::<(), DecimalError>(())
    /// ```
    #[inline]
    pub fn checked_sub(self, other: Self) -> Result<Self, DecimalError> {
        let other = other.unpack();
        add(self.unpack(), Parts { negative: !other.negative, ..other })
    }

    /// The exact product.
    ///
    /// The exponent of the result is the sum of the two. When the product needs more than 38 digits there, its trailing zeros
    /// are dropped. The sign is that of the rule for signs, for a product of zero too.
    ///
    /// # Errors
    /// [`DecimalError::Overflow`] when the exact product does not fit even then.
    ///
    /// ```
    /// use data_bridge_kv_model::{Decimal, DecimalError};
    /// let number = |text: &str| text.parse::<Decimal>();
    /// assert_eq!(number("1.10")?.checked_mul(number("-3")?)?.to_string(), "-3.30");
    /// assert_eq!(number("1E+30000")?.checked_mul(number("1E+30000")?), Err(DecimalError::Overflow));
    /// # Ok::<(), DecimalError>(())
    /// ```
    pub fn checked_mul(self, other: Self) -> Result<Self, DecimalError> {
        let (a, b) = (self.unpack(), other.unpack());
        let negative = a.negative != b.negative;
        let exponent = i32::from(a.exponent) + i32::from(b.exponent);
        let (coefficient, exponent) = match a.coefficient.checked_mul(b.coefficient) {
            Some(0) => (0, exponent.clamp(i16::MIN.into(), i16::MAX.into())),
            Some(product) if product < COEFFICIENT_END => (product, exponent),
            _ => {
                let (coefficient, tens) = product_without_zeros(a.coefficient, b.coefficient)?;
                (coefficient, exponent + tens)
            }
        };
        let exponent = i16::try_from(exponent).map_err(|_| DecimalError::Overflow)?;
        Self::new(negative, coefficient, exponent).map_err(|_| DecimalError::Overflow)
    }

    /// The number with its sign turned; every zero becomes the positive one, as `0 - x` demands.
    ///
    /// # Errors
    /// None today: every number's negative fits. The result has the shape of the other two operations.
    ///
    /// ```
    /// use data_bridge_kv_model::{Decimal, DecimalError};
    /// assert_eq!("1.50".parse::<Decimal>()?.checked_neg()?.to_string(), "-1.50");
    /// assert_eq!("-0.0".parse::<Decimal>()?.checked_neg()?.to_string(), "0.0");
    /// # Ok::<(), DecimalError>(())
    /// ```
    #[inline]
    pub fn checked_neg(self) -> Result<Self, DecimalError> {
        let number = self.unpack();
        Ok(Self::pack(Parts { negative: !number.negative && number.coefficient != 0, ..number }))
    }

    /// The total order of the numbers, blind to scale and to the sign of zero: `1.0` is equal to `1.00`, `-0` to `0`.
    ///
    /// ```
    /// use data_bridge_kv_model::{Decimal, DecimalError};
    /// use std::cmp::Ordering;
    /// let number = |text: &str| text.parse::<Decimal>();
    /// assert_eq!(number("-2")?.numeric_cmp(number("1E-9")?), Ordering::Less);
    /// assert_eq!(number("1E+2")?.numeric_cmp(number("100.0")?), Ordering::Equal);
    /// # Ok::<(), DecimalError>(())
    /// ```
    #[inline]
    pub fn numeric_cmp(self, other: Self) -> Ordering {
        let (a, b) = (self.unpack(), other.unpack());
        match (a.coefficient, b.coefficient) {
            (0, 0) => return Ordering::Equal,
            (0, _) => return if b.negative { Ordering::Greater } else { Ordering::Less },
            (_, 0) => return if a.negative { Ordering::Less } else { Ordering::Greater },
            _ => {}
        }
        match (a.negative, b.negative) {
            (false, true) => Ordering::Greater,
            (true, false) => Ordering::Less,
            (false, false) => cmp_magnitude(a, b),
            (true, true) => cmp_magnitude(b, a),
        }
    }

    /// Whether both are the same number, whatever their scale. `==` is stricter.
    ///
    /// ```
    /// use data_bridge_kv_model::{Decimal, DecimalError};
    /// let (a, b): (Decimal, Decimal) = ("1.0".parse()?, "1.00".parse()?);
    /// assert!(a.numeric_eq(b) && a != b);
    /// # Ok::<(), DecimalError>(())
    /// ```
    #[inline]
    pub fn numeric_eq(self, other: Self) -> bool {
        self.numeric_cmp(other) == Ordering::Equal
    }

    /// Sign, coefficient without trailing zeros, and exponent: the same for all representations of one number, so
    /// this is what to hash when members compare by number. Zero is `(false, 0, 0)`. The exponent may lie up to 37
    /// above the range of `i16`.
    ///
    /// ```
    /// use data_bridge_kv_model::{Decimal, DecimalError};
    /// assert_eq!("-1.500".parse::<Decimal>()?.normalized(), (true, 15, -1));
    /// assert_eq!("-0E+9".parse::<Decimal>()?.normalized(), (false, 0, 0));
    /// # Ok::<(), DecimalError>(())
    /// ```
    #[inline]
    pub fn normalized(self) -> (bool, u128, i32) {
        let number = self.unpack();
        if number.coefficient == 0 {
            return (false, 0, 0);
        }
        let (coefficient, dropped) = drop_zeros(number.coefficient, MAX_DIGITS);
        (number.negative, coefficient, i32::from(number.exponent) + dropped as i32)
    }

    /// The number as an integer if it is one and fits, whatever its scale: `1E+2` and `100.0` give 100.
    ///
    /// ```
    /// use data_bridge_kv_model::{Decimal, DecimalError};
    /// assert_eq!("-12.00".parse::<Decimal>()?.to_i64(), Some(-12));
    /// assert_eq!("0.5".parse::<Decimal>()?.to_i64(), None);
    /// assert_eq!("1E+19".parse::<Decimal>()?.to_i64(), None);
    /// # Ok::<(), DecimalError>(())
    /// ```
    #[inline]
    pub fn to_i64(self) -> Option<i64> {
        let number = self.unpack();
        let (negative, coefficient, exponent) = match number.exponent {
            0 => (number.negative, number.coefficient, 0),
            _ => self.normalized(),
        };
        let power = POWERS.get(usize::try_from(exponent).ok()?)?;
        let magnitude = u64::try_from(coefficient.checked_mul(*power)?).ok()?;
        if negative { 0i64.checked_sub_unsigned(magnitude) } else { i64::try_from(magnitude).ok() }
    }
}

#[inline]
fn add(a: Parts, b: Parts) -> Result<Decimal, DecimalError> {
    let (high, low) = if a.exponent >= b.exponent { (a, b) } else { (b, a) };
    let distance = exponent_distance(high, low);
    if let Some(aligned) = scale(high.coefficient, distance) {
        let (negative, coefficient) = signed_sum((high.negative, aligned), (low.negative, low.coefficient));
        if coefficient < COEFFICIENT_END {
            return Ok(Decimal::pack(Parts { negative, coefficient, exponent: low.exponent }));
        }
    }
    add_above_ideal(high, low)
}

/// The sum of numbers whose sum has more than 38 digits at the exponent of `low`: finds the smallest exponent above
/// it at which the exact sum fits.
#[cold]
fn add_above_ideal(high: Parts, low: Parts) -> Result<Decimal, DecimalError> {
    let distance = exponent_distance(high, low);
    // Without its trailing zeros the lower number needs no digit below the other one, or it decides the last digit of
    // the sum, and then no higher exponent can hold it.
    let (low_coefficient, dropped) = match low.coefficient {
        0 => (0, distance),
        coefficient => drop_zeros(coefficient, distance),
    };
    let aligned = scale(high.coefficient, distance - dropped).ok_or(DecimalError::Overflow)?;
    let (negative, mut coefficient) = signed_sum((high.negative, aligned), (low.negative, low_coefficient));
    let mut exponent = i32::from(low.exponent) + dropped as i32;
    if coefficient >= COEFFICIENT_END {
        // Below 3 * 10^38, so one zero is all that can be dropped with use.
        if coefficient % 10 != 0 {
            return Err(DecimalError::Overflow);
        }
        coefficient /= 10;
        exponent += 1;
    } else {
        let padding = dropped.min(MAX_DIGITS - digit_count(coefficient));
        coefficient *= POWERS[padding as usize];
        exponent -= padding as i32;
    }
    let exponent = i16::try_from(exponent).map_err(|_| DecimalError::Overflow)?;
    Decimal::new(negative, coefficient, exponent).map_err(|_| DecimalError::Overflow)
}

#[inline]
fn exponent_distance(high: Parts, low: Parts) -> u32 {
    i32::from(high.exponent).abs_diff(i32::from(low.exponent))
}

/// `coefficient * 10^power` when it is below 2 * 10^38, the largest operand of a sum that still fits.
#[inline]
fn scale(coefficient: u128, power: u32) -> Option<u128> {
    if power == 0 || coefficient == 0 {
        return Some(coefficient);
    }
    let scaled = coefficient.checked_mul(*POWERS.get(power as usize)?)?;
    (scaled < 2 * COEFFICIENT_END).then_some(scaled)
}

/// The sum of two signed magnitudes below 2 * 10^38 and 10^38; a zero is negative only if both are.
#[inline]
fn signed_sum(a: (bool, u128), b: (bool, u128)) -> (bool, u128) {
    if a.0 == b.0 {
        return (a.0, a.1 + b.1);
    }
    match a.1.cmp(&b.1) {
        Ordering::Greater => (a.0, a.1 - b.1),
        Ordering::Less => (b.0, b.1 - a.1),
        Ordering::Equal => (false, 0),
    }
}

/// Compares two numbers that are not zero, without their signs.
#[inline]
fn cmp_magnitude(a: Parts, b: Parts) -> Ordering {
    if a.exponent == b.exponent {
        return a.coefficient.cmp(&b.coefficient);
    }
    let top = |number: Parts| i32::from(number.exponent) + digit_count(number.coefficient) as i32;
    top(a).cmp(&top(b)).then_with(|| {
        // Their first digits have the same weight, so the one with the higher exponent has that many digits fewer
        // and, aligned, still fits into 38 digits.
        let power = POWERS[a.exponent.abs_diff(b.exponent) as usize];
        if a.exponent > b.exponent {
            (a.coefficient * power).cmp(&b.coefficient)
        } else {
            a.coefficient.cmp(&(b.coefficient * power))
        }
    })
}

/// How many decimal digits an integer below 10^38 has; one for zero.
#[inline]
fn digit_count(integer: u128) -> u32 {
    let bits = u128::BITS - (integer | 1).leading_zeros();
    // 1233 / 4096 is log10(2) from below and close enough: the estimate is right or one too few up to 128 bits.
    let estimate = (bits * 1233) >> 12;
    estimate + u32::from((integer | 1) >= POWERS[estimate as usize])
}

/// Divides by ten as long as nothing is lost, at most `limit` times; the integer is not zero. Returns the quotient
/// and how many zeros went.
#[inline]
fn drop_zeros(integer: u128, limit: u32) -> (u128, u32) {
    // 10^n divides an integer only if 2^n does.
    let limit = limit.min(integer.trailing_zeros());
    let (mut quotient, mut dropped) = (integer, 0);
    // Each step is a power of two, so the steps taken spell the number of zeros in binary.
    for step in [32, 16, 8, 4, 2, 1] {
        if dropped + step > limit {
            continue;
        }
        let power = POWERS[step as usize];
        // Most coefficients fit into 64 bits, where a division is several times as fast.
        let (divided, remainder) = match (u64::try_from(quotient), u64::try_from(power)) {
            (Ok(quotient), Ok(power)) => (u128::from(quotient / power), u128::from(quotient % power)),
            _ => (quotient / power, quotient % power),
        };
        if remainder == 0 {
            (quotient, dropped) = (divided, dropped + step);
        }
    }
    (quotient, dropped)
}

/// A product without its trailing zeros, and how many they were. They come from tens of one factor, or from a two of one and
/// a five of the other.
fn product_without_zeros(a: u128, b: u128) -> Result<(u128, i32), DecimalError> {
    let ((mut a, a_dropped), (mut b, b_dropped)) = (drop_zeros(a, MAX_DIGITS), drop_zeros(b, MAX_DIGITS));
    let mut tens = a_dropped as i32 + b_dropped as i32;
    loop {
        match (a % 2, b % 5, a % 5, b % 2) {
            (0, 0, ..) => (a, b) = (a / 2, b / 5),
            (.., 0, 0) => (a, b) = (a / 5, b / 2),
            _ => break,
        }
        tens += 1;
    }
    Ok((a.checked_mul(b).ok_or(DecimalError::Overflow)?, tens))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn number(text: &str) -> Decimal {
        text.parse().unwrap()
    }

    fn sum(a: &str, b: &str) -> Result<String, DecimalError> {
        number(a).checked_add(number(b)).map(|sum| sum.to_string())
    }

    #[test]
    fn the_product_is_exact_or_refused() {
        for (a, b, expected) in [
            ("1.10", "0.9", "0.990"),
            ("-2", "3E+2", "-6E+2"),
            ("-0", "5", "-0"),
            ("0E+30000", "1E+30000", "0E+32767"),
            ("20000000000000000000", "50000000000000000000", "1E+39"),
            ("1125899906842624", "88817841970012523233890533447265625", "1E+50"),
            ("99999999999999999999999999999999999999", "1", "99999999999999999999999999999999999999"),
        ] {
            let product = |a, b| number(a).checked_mul(number(b)).map(|product| product.to_string());
            assert_eq!(product(a, b).as_deref(), Ok(expected), "{a} * {b}");
            assert_eq!(product(b, a).as_deref(), Ok(expected), "{b} * {a}");
        }
        for (a, b) in [
            ("99999999999999999999999999999999999999", "3"),
            ("12345678901234567890123", "12345678901234567890123"),
            ("1E-30000", "1E-30000"),
        ] {
            assert_eq!(number(a).checked_mul(number(b)), Err(DecimalError::Overflow), "{a} * {b}");
        }
    }

    #[test]
    fn the_sum_has_the_smaller_exponent() {
        for (a, b, expected) in [
            ("1.10", "0.9", "2.00"),
            ("1E+2", "1", "101"),
            ("0E+30000", "1E-30000", "1E-30000"),
            ("1E+37", "-1", "9999999999999999999999999999999999999"),
            ("1E+38", "-1", "99999999999999999999999999999999999999"),
            ("-0", "-0", "-0"),
            ("-0", "0", "0"),
            ("-0.00", "-0E+5", "-0.00"),
            ("-1.5", "1.50", "0.00"),
            ("99999999999999999999999999999999999999", "-99999999999999999999999999999999999999", "0"),
        ] {
            assert_eq!(sum(a, b).as_deref(), Ok(expected), "{a} + {b}");
            assert_eq!(sum(b, a).as_deref(), Ok(expected), "{b} + {a}");
        }
    }

    #[test]
    fn trailing_zeros_go_only_as_far_as_needed() {
        let fifty = "5".to_string() + &"0".repeat(37);
        for (a, b, expected) in [
            ("1E+40", "0", "1.0000000000000000000000000000000000000E+40"),
            ("1E+40", "1000", "1.0000000000000000000000000000000000001E+40"),
            ("1E+40", "-1000", "9.9999999999999999999999999999999999990E+39"),
            (&fifty, &fifty, "1.0000000000000000000000000000000000000E+38"),
            ("1E+38", "0.000", "1.0000000000000000000000000000000000000E+38"),
        ] {
            assert_eq!(sum(a, b).as_deref(), Ok(expected), "{a} + {b}");
            assert_eq!(sum(b, a).as_deref(), Ok(expected), "{b} + {a}");
        }
    }

    #[test]
    fn what_does_not_fit_is_an_overflow() {
        let nines = "9".repeat(38);
        let top = "5".to_string() + &"0".repeat(37) + "E+32767";
        for (a, b) in [
            ("1E+40", "1"),
            ("1E+40", "100"),
            ("1E+39", "-1"),
            (nines.as_str(), "2"),
            (&nines, "0.1"),
            (&nines, &nines),
            ("1E+32767", "1E-32768"),
            (&top, &top),
        ] {
            assert_eq!(sum(a, b), Err(DecimalError::Overflow), "{a} + {b}");
            assert_eq!(sum(b, a), Err(DecimalError::Overflow), "{b} + {a}");
        }
        assert_eq!(sum(&nines, "1").as_deref(), Ok("1.0000000000000000000000000000000000000E+38"));
    }

    #[test]
    fn differences_and_negatives_follow_the_specification_for_zeros() {
        let difference = |a: &str, b: &str| number(a).checked_sub(number(b)).map(|number| number.to_string());
        assert_eq!(difference("-0", "0").as_deref(), Ok("-0"));
        assert_eq!(difference("0", "0").as_deref(), Ok("0"));
        assert_eq!(difference("-0", "-0").as_deref(), Ok("0"));
        assert_eq!(difference("1.3", "1.07").as_deref(), Ok("0.23"));
        for (text, negative) in [("0", "0"), ("-0.0", "0.0"), ("1.50", "-1.50"), ("-1E+5", "1E+5")] {
            assert_eq!(number(text).checked_neg().unwrap().to_string(), negative);
        }
    }

    #[test]
    fn order_is_by_number() {
        let ascending = [
            "-1E+32767",
            "-10",
            "-9.99",
            "-1E-32768",
            "0E+9",
            "1E-32768",
            "0.999",
            "1",
            "1.0000001",
            "99E+1",
            "1E+3",
            "99999999999999999999999999999999999998",
            "99999999999999999999999999999999999999",
            "1E+38",
            "1E+32767",
        ];
        for (i, a) in ascending.iter().enumerate() {
            for (j, b) in ascending.iter().enumerate() {
                assert_eq!(number(a).numeric_cmp(number(b)), i.cmp(&j), "{a} <=> {b}");
            }
        }
        for (a, b) in [
            ("1.0", "1.00"),
            ("-0", "0E+7"),
            ("1E+37", &format!("1{}", "0".repeat(37))),
            ("-5E+3", "-5000.00"),
        ] {
            assert_eq!(number(a).numeric_cmp(number(b)), Ordering::Equal, "{a} <=> {b}");
            assert!(number(a).numeric_eq(number(b)) && number(a) != number(b));
            assert_eq!(number(a).normalized(), number(b).normalized());
        }
    }

    #[test]
    fn integers_come_out_only_if_exact() {
        for integer in [0, 1, -1, 10, i64::MAX, i64::MIN] {
            assert_eq!(Decimal::from(integer).to_i64(), Some(integer));
            assert_eq!(Decimal::from(integer).to_string(), integer.to_string());
        }
        for (text, expected) in [
            ("1.0", Some(1)),
            ("-0", Some(0)),
            ("0E+30000", Some(0)),
            ("1E+18", Some(10i64.pow(18))),
            ("1E+19", None),
            ("0.5", None),
            ("1E-1", None),
            ("9223372036854775808", None),
            ("-9223372036854775808.0", Some(i64::MIN)),
            ("-9223372036854775809", None),
            ("1E+32767", None),
            ("100E-2", Some(1)),
        ] {
            assert_eq!(number(text).to_i64(), expected, "{text}");
        }
    }

    #[test]
    fn digits_are_counted_at_every_power_of_ten() {
        assert_eq!(digit_count(0), 1);
        for n in 0..MAX_DIGITS {
            let power = 10u128.pow(n);
            assert_eq!(digit_count(power), n + 1);
            assert_eq!(digit_count(power * 10 - 1), n + 1);
            assert_eq!(drop_zeros(power, MAX_DIGITS), (1, n));
            assert_eq!(drop_zeros(power, n / 2), (10u128.pow(n - n / 2), n / 2));
        }
    }

    /// Numbers with exponents close enough to meet in 38 digits most of the time.
    fn any_number() -> impl Strategy<Value = Decimal> {
        (any::<bool>(), 0..10u128.pow(38), 0u32..38, -20i16..20).prop_map(
            |(negative, coefficient, dropped, exponent)| {
                Decimal::new(negative, coefficient / 10u128.pow(dropped), exponent).unwrap()
            },
        )
    }

    proptest! {
        #[test]
        fn adding_and_subtracting_undo_each_other(a in any_number(), b in any_number()) {
            prop_assert_eq!(a.checked_add(b), b.checked_add(a));
            if let Ok(sum) = a.checked_add(b) && let Ok(back) = sum.checked_sub(b) {
                prop_assert!(back.numeric_eq(a), "{a} + {b} - {b} = {back}");
            }
        }

        #[test]
        fn order_agrees_with_the_sign_of_the_difference(a in any_number(), b in any_number()) {
            let order = a.numeric_cmp(b);
            prop_assert_eq!(b.numeric_cmp(a), order.reverse());
            prop_assert_eq!(a.normalized() == b.normalized(), order == Ordering::Equal);
            if let Ok(difference) = a.checked_sub(b) {
                prop_assert_eq!(difference.is_zero(), order == Ordering::Equal);
                prop_assert_eq!(difference.is_negative(), order == Ordering::Less);
            }
        }
    }
}
