//! Scores of sorted sets: all floats or all decimals in one set.

use std::cmp::Ordering;

use data_bridge_kv_model::{Decimal, Kind, ValueRef};

/// A score.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Score {
    /// A binary64 that is not NaN.
    Float(f64),
    /// An exact decimal.
    Decimal(Decimal),
}

impl Score {
    /// Float or Decimal.
    #[inline]
    pub fn kind(self) -> Kind {
        match self {
            Score::Float(_) => Kind::Float,
            Score::Decimal(_) => Kind::Decimal,
        }
    }

    /// The score in a value of kind Float (not NaN) or Decimal.
    pub fn of(value: ValueRef<'_>) -> Option<Score> {
        match value.as_float() {
            Some(number) => (!number.is_nan()).then_some(Score::Float(number)),
            None => value.as_decimal().map(Score::Decimal),
        }
    }

    /// Appends the codec's payload, without a kind.
    pub fn encode_payload(self, out: &mut Vec<u8>) {
        match self {
            Score::Float(number) => out.extend_from_slice(&number.to_le_bytes()),
            Score::Decimal(number) => out.extend_from_slice(&number.to_payload()),
        }
    }
}

/// The number inside a score; what a sorted set stores of it.
pub(super) trait Number: Copy {
    /// Order as numbers.
    fn order(self, other: Self) -> Ordering;
    /// Whether it comes before another one.
    fn is_below(self, other: Self) -> bool;
    /// Whether both are the same to the bit.
    fn is_exactly(self, other: Self) -> bool;
    /// The number of a score of the right kind.
    fn from_score(score: Score) -> Option<Self>;
    fn into_score(self) -> Score;
    /// Bytes of its payload.
    const ENCODED_BYTES: usize;
}

impl Number for f64 {
    const ENCODED_BYTES: usize = 8;

    #[inline]
    fn order(self, other: f64) -> Ordering {
        // NaN is refused before it gets here.
        self.partial_cmp(&other).unwrap_or(Ordering::Equal)
    }

    #[inline]
    fn is_below(self, other: f64) -> bool {
        self < other
    }

    #[inline]
    fn is_exactly(self, other: f64) -> bool {
        self.to_bits() == other.to_bits()
    }

    #[inline]
    fn from_score(score: Score) -> Option<f64> {
        match score {
            Score::Float(number) => Some(number),
            Score::Decimal(_) => None,
        }
    }

    #[inline]
    fn into_score(self) -> Score {
        Score::Float(self)
    }
}

impl Number for Decimal {
    const ENCODED_BYTES: usize = 18;

    #[inline]
    fn order(self, other: Decimal) -> Ordering {
        self.numeric_cmp(other)
    }

    #[inline]
    fn is_below(self, other: Decimal) -> bool {
        self.numeric_cmp(other) == Ordering::Less
    }

    #[inline]
    fn is_exactly(self, other: Decimal) -> bool {
        self == other
    }

    #[inline]
    fn from_score(score: Score) -> Option<Decimal> {
        match score {
            Score::Float(_) => None,
            Score::Decimal(number) => Some(number),
        }
    }

    #[inline]
    fn into_score(self) -> Score {
        Score::Decimal(self)
    }
}
