//! The kinds of values and their persistent numbers.
//!
//! A number is written to wire, log and disk: it is never reused and never renumbered. `docs/TYPES.md` lists
//! what each kind is in Rust and in Python and what each door shows of it.

/// The kind of a value; the discriminant is its persistent number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[repr(u8)]
pub enum Kind {
    /// Nothing; a stored null is not a missing key.
    Null = 0,
    /// True or false.
    Bool = 1,
    /// A signed 64-bit integer.
    Int = 2,
    /// An IEEE 754 binary64, kept bit by bit.
    Float = 3,
    /// An exact decimal number, see [`crate::Decimal`].
    Decimal = 4,
    /// UTF-8 text.
    Text = 5,
    /// Raw bytes; what an untyped Redis client writes.
    Bytes = 6,
    /// A list of values.
    List = 7,
    /// A set of members.
    Set = 8,
    /// An insertion-ordered map from members to values.
    Hash = 9,
    /// Members ordered by score.
    SortedSet = 10,
    /// An integer beyond 64 bits.
    BigInt = 11,
    /// A date and time of day, naive or with an offset.
    Timestamp = 12,
    /// A calendar date.
    Date = 13,
    /// A time of day.
    Time = 14,
    /// A signed span of time in days and microseconds.
    Duration = 15,
    /// A 128-bit UUID.
    Uuid = 16,
    /// An immutable sequence.
    Tuple = 17,
    /// An immutable set.
    FrozenSet = 18,
    /// Bytes of a named codec that the caller opted in to.
    Opaque = 19,
    /// A value under a name: an enum, dataclass or model.
    Tagged = 20,
}

/// First number kept for later kinds (stream, paged collections, per-field deadlines).
pub const RESERVED_FROM: u8 = 21;
/// Last number kept for later kinds: five bits hold a kind.
pub const RESERVED_TO: u8 = 31;

impl Kind {
    /// All kinds in the order of their numbers.
    pub const ALL: [Kind; 21] = [
        Kind::Null,
        Kind::Bool,
        Kind::Int,
        Kind::Float,
        Kind::Decimal,
        Kind::Text,
        Kind::Bytes,
        Kind::List,
        Kind::Set,
        Kind::Hash,
        Kind::SortedSet,
        Kind::BigInt,
        Kind::Timestamp,
        Kind::Date,
        Kind::Time,
        Kind::Duration,
        Kind::Uuid,
        Kind::Tuple,
        Kind::FrozenSet,
        Kind::Opaque,
        Kind::Tagged,
    ];

    /// The kind with this number; `None` for a reserved or unknown one, which must be refused.
    #[inline]
    pub fn from_number(number: u8) -> Option<Kind> {
        Kind::ALL.get(usize::from(number)).copied()
    }

    /// The persistent number.
    #[inline]
    pub fn number(self) -> u8 {
        self as u8
    }

    /// The name that `KV.KIND`, Python's `kind()` and error texts use.
    pub fn name(self) -> &'static str {
        match self {
            Kind::Null => "null",
            Kind::Bool => "bool",
            Kind::Int => "int",
            Kind::Float => "float",
            Kind::Decimal => "decimal",
            Kind::Text => "text",
            Kind::Bytes => "bytes",
            Kind::List => "list",
            Kind::Set => "set",
            Kind::Hash => "hash",
            Kind::SortedSet => "sortedset",
            Kind::BigInt => "bigint",
            Kind::Timestamp => "timestamp",
            Kind::Date => "date",
            Kind::Time => "time",
            Kind::Duration => "duration",
            Kind::Uuid => "uuid",
            Kind::Tuple => "tuple",
            Kind::FrozenSet => "frozenset",
            Kind::Opaque => "opaque",
            Kind::Tagged => "tagged",
        }
    }

    /// The kind with this name, in any letter case.
    pub fn from_name(name: &str) -> Option<Kind> {
        Kind::ALL.into_iter().find(|kind| kind.name().eq_ignore_ascii_case(name))
    }

    /// What Redis's `TYPE` answers: `string`, `list`, `set`, `hash`, `zset`, or our own word for kinds that
    /// Redis has no reading of.
    pub fn redis_type(self) -> &'static str {
        match self {
            Kind::List => "list",
            Kind::Set => "set",
            Kind::Hash => "hash",
            Kind::SortedSet => "zset",
            Kind::Tuple => "tuple",
            Kind::FrozenSet => "frozenset",
            Kind::Tagged => "tagged",
            _ => "string",
        }
    }

    /// Whether collection commands change it in place.
    #[inline]
    pub fn is_collection(self) -> bool {
        matches!(self, Kind::List | Kind::Set | Kind::Hash | Kind::SortedSet)
    }

    /// Whether a value of this kind can hold other values.
    #[inline]
    pub fn is_container(self) -> bool {
        self.is_collection() || matches!(self, Kind::Tuple | Kind::FrozenSet | Kind::Tagged)
    }

    /// Whether it can be a set member or a hash field (a tuple only of such kinds: the codec checks that).
    #[inline]
    pub fn is_member(self) -> bool {
        !self.is_collection() && !matches!(self, Kind::Opaque | Kind::Tagged)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_positions_and_names_are_unique() {
        for (number, kind) in Kind::ALL.into_iter().enumerate() {
            assert_eq!(usize::from(kind.number()), number);
            assert_eq!(Kind::from_number(kind.number()), Some(kind));
            assert_eq!(Kind::from_name(&kind.name().to_uppercase()), Some(kind));
        }
        for reserved in RESERVED_FROM..=u8::MAX {
            assert_eq!(Kind::from_number(reserved), None);
        }
        assert_eq!(Kind::ALL.len(), usize::from(RESERVED_FROM));
    }
}
