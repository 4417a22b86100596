//! Owned values for Rust users, clients and tests. The engine itself keeps codec bytes, see `codec.rs`.

use crate::Decimal;
use crate::codec::{AWARE, FOLD, Items, Reader, ValueRef, ZONE, put_varint, tagged_parts};
use crate::error::Result;
use crate::kind::Kind;

/// An owned value. `PartialEq` is structural: floats as Rust compares them, sets and hashes in stored order.
#[derive(Clone, Debug, PartialEq)]
pub enum Value {
    /// Nothing.
    Null,
    /// True or false.
    Bool(bool),
    /// A signed 64-bit integer.
    Int(i64),
    /// A binary64, bit exact.
    Float(f64),
    /// An exact decimal number.
    Decimal(Decimal),
    /// UTF-8 text.
    Text(Box<str>),
    /// Raw bytes.
    Bytes(Box<[u8]>),
    /// A list.
    List(Vec<Value>),
    /// A set of members.
    Set(Vec<Value>),
    /// Fields and values in insertion order.
    Hash(Vec<(Value, Value)>),
    /// Scores (all Float or all Decimal) and members in score order.
    SortedSet(Vec<(Value, Value)>),
    /// An integer beyond 64 bits.
    BigInt(Box<BigInt>),
    /// A date and time of day.
    Timestamp(Box<Moment>),
    /// Days since 1970-01-01.
    Date(i32),
    /// A time of day.
    Time(Box<Moment>),
    /// Days, and microseconds below one day.
    Duration(i32, i64),
    /// A UUID, most significant byte first.
    Uuid([u8; 16]),
    /// An immutable sequence.
    Tuple(Vec<Value>),
    /// An immutable set.
    FrozenSet(Vec<Value>),
    /// Codec name and bytes.
    Opaque(Box<(Box<str>, Box<[u8]>)>),
    /// Name and value.
    Tagged(Box<(Box<str>, Value)>),
}

/// An integer beyond 64 bits.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BigInt {
    /// Whether it is below zero.
    pub negative: bool,
    /// The magnitude, little endian, without leading zeros.
    pub magnitude: Box<[u8]>,
}

/// The content of a Timestamp (microseconds since 1970-01-01T00:00:00 local) or a Time (since midnight).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Moment {
    /// Microseconds on the local clock.
    pub local_us: i64,
    /// Offset from UTC in microseconds, if aware.
    pub offset_us: Option<i64>,
    /// The second of two equal local times.
    pub fold: bool,
    /// Name of the time zone.
    pub zone: Option<Box<str>>,
}

impl Value {
    /// An owned copy of a borrowed value.
    pub fn from_ref(value: ValueRef<'_>) -> Value {
        let payload = value.payload();
        let owned = || Items::of(value).map(Value::from_ref).collect();
        match value.kind() {
            Kind::Null => Value::Null,
            Kind::Bool => Value::Bool(payload == [1]),
            Kind::Int => Value::Int(value.as_int().unwrap_or_default()),
            Kind::Float => Value::Float(value.as_float().unwrap_or_default()),
            Kind::Decimal => value.as_decimal().map_or(Value::Null, Value::Decimal),
            Kind::Text => Value::Text(String::from_utf8_lossy(payload).into()),
            Kind::Bytes => Value::Bytes(payload.into()),
            Kind::List => Value::List(owned()),
            Kind::Set => Value::Set(owned()),
            Kind::Tuple => Value::Tuple(owned()),
            Kind::FrozenSet => Value::FrozenSet(owned()),
            Kind::Hash => Value::Hash(pairs(value)),
            Kind::SortedSet => Value::SortedSet(pairs(value)),
            Kind::BigInt => Value::BigInt(Box::new(big_int(payload))),
            Kind::Timestamp => Value::Timestamp(Box::new(moment(payload).unwrap_or_else(|_| Moment::zero()))),
            Kind::Time => Value::Time(Box::new(moment(payload).unwrap_or_else(|_| Moment::zero()))),
            Kind::Date => Value::Date(i32::from_le_bytes(fixed(payload))),
            Kind::Duration => {
                let (days, micros) = payload.split_at(payload.len().min(4));
                Value::Duration(i32::from_le_bytes(fixed(days)), i64::from_le_bytes(fixed(micros)))
            }
            Kind::Uuid => Value::Uuid(fixed(payload)),
            Kind::Opaque => {
                let (name, bytes) = tagged_parts(value).unwrap_or_default();
                Value::Opaque(Box::new((name.into(), bytes.into())))
            }
            Kind::Tagged => {
                let (name, _) = tagged_parts(value).unwrap_or_default();
                let inner = Items::of(value).next().map_or(Value::Null, Value::from_ref);
                Value::Tagged(Box::new((name.into(), inner)))
            }
        }
    }

    /// Reads exactly one encoded value.
    ///
    /// ```
    /// use data_bridge_kv_model::Value;
    /// let value = Value::List(vec![Value::Int(1), Value::Text("two".into())]);
    /// assert_eq!(Value::decode(&value.encode()).unwrap(), value);
    /// ```
    pub fn decode(encoded: &[u8]) -> Result<Value> {
        ValueRef::decode(encoded).map(Value::from_ref)
    }

    /// The encoded value. It is as the tree says: what breaks a rule of the codec is found when it is read.
    pub fn encode(&self) -> Vec<u8> {
        let mut out = Vec::new();
        self.encode_into(&mut out);
        out
    }

    /// Appends the encoded value.
    pub fn encode_into(&self, out: &mut Vec<u8>) {
        out.push(self.kind().number());
        match self {
            Value::Null => {}
            Value::Bool(yes) => out.push(u8::from(*yes)),
            Value::Int(number) => out.extend_from_slice(&number.to_le_bytes()),
            Value::Float(number) => out.extend_from_slice(&number.to_le_bytes()),
            Value::Decimal(number) => out.extend_from_slice(&number.to_payload()),
            Value::Text(text) => put_counted(text.as_bytes(), out),
            Value::Bytes(bytes) => put_counted(bytes, out),
            Value::List(items) | Value::Set(items) | Value::Tuple(items) | Value::FrozenSet(items) => {
                put_varint(items.len(), out);
                items.iter().for_each(|item| item.encode_into(out));
            }
            Value::Hash(fields) => {
                put_varint(fields.len(), out);
                for (field, value) in fields {
                    field.encode_into(out);
                    value.encode_into(out);
                }
            }
            Value::SortedSet(members) => put_sorted_set(members, out),
            Value::BigInt(number) => {
                out.push(u8::from(number.negative));
                put_counted(&number.magnitude, out);
            }
            Value::Timestamp(moment) | Value::Time(moment) => moment.encode_into(out),
            Value::Date(days) => out.extend_from_slice(&days.to_le_bytes()),
            Value::Duration(days, micros) => {
                out.extend_from_slice(&days.to_le_bytes());
                out.extend_from_slice(&micros.to_le_bytes());
            }
            Value::Uuid(bytes) => out.extend_from_slice(bytes),
            Value::Opaque(parts) => {
                put_counted(parts.0.as_bytes(), out);
                put_counted(&parts.1, out);
            }
            Value::Tagged(parts) => {
                put_counted(parts.0.as_bytes(), out);
                parts.1.encode_into(out);
            }
        }
    }

    /// The kind.
    pub fn kind(&self) -> Kind {
        match self {
            Value::Null => Kind::Null,
            Value::Bool(_) => Kind::Bool,
            Value::Int(_) => Kind::Int,
            Value::Float(_) => Kind::Float,
            Value::Decimal(_) => Kind::Decimal,
            Value::Text(_) => Kind::Text,
            Value::Bytes(_) => Kind::Bytes,
            Value::List(_) => Kind::List,
            Value::Set(_) => Kind::Set,
            Value::Hash(_) => Kind::Hash,
            Value::SortedSet(_) => Kind::SortedSet,
            Value::BigInt(_) => Kind::BigInt,
            Value::Timestamp(_) => Kind::Timestamp,
            Value::Date(_) => Kind::Date,
            Value::Time(_) => Kind::Time,
            Value::Duration(..) => Kind::Duration,
            Value::Uuid(_) => Kind::Uuid,
            Value::Tuple(_) => Kind::Tuple,
            Value::FrozenSet(_) => Kind::FrozenSet,
            Value::Opaque(_) => Kind::Opaque,
            Value::Tagged(_) => Kind::Tagged,
        }
    }
}

impl From<i64> for Value {
    fn from(number: i64) -> Value {
        Value::Int(number)
    }
}

impl From<f64> for Value {
    fn from(number: f64) -> Value {
        Value::Float(number)
    }
}

impl From<bool> for Value {
    fn from(yes: bool) -> Value {
        Value::Bool(yes)
    }
}

impl From<Decimal> for Value {
    fn from(number: Decimal) -> Value {
        Value::Decimal(number)
    }
}

impl From<&str> for Value {
    fn from(text: &str) -> Value {
        Value::Text(text.into())
    }
}

impl From<&[u8]> for Value {
    fn from(bytes: &[u8]) -> Value {
        Value::Bytes(bytes.into())
    }
}

impl Moment {
    fn zero() -> Moment {
        Moment { local_us: 0, offset_us: None, fold: false, zone: None }
    }

    fn encode_into(&self, out: &mut Vec<u8>) {
        let flag = |set: bool, bit: u8| if set { bit } else { 0 };
        out.push(
            flag(self.offset_us.is_some(), AWARE) | flag(self.fold, FOLD) | flag(self.zone.is_some(), ZONE),
        );
        out.extend_from_slice(&self.local_us.to_le_bytes());
        if let Some(offset) = self.offset_us {
            out.extend_from_slice(&offset.to_le_bytes());
        }
        if let Some(zone) = &self.zone {
            put_counted(zone.as_bytes(), out);
        }
    }
}

fn put_counted(bytes: &[u8], out: &mut Vec<u8>) {
    put_varint(bytes.len(), out);
    out.extend_from_slice(bytes);
}

fn put_sorted_set(members: &[(Value, Value)], out: &mut Vec<u8>) {
    let kind = members.first().map_or(Kind::Float, |(score, _)| score.kind());
    out.push(kind.number());
    put_varint(members.len(), out);
    for (score, member) in members {
        match score {
            Value::Decimal(score) => out.extend_from_slice(&score.to_payload()),
            Value::Float(score) => out.extend_from_slice(&score.to_le_bytes()),
            _ => {}
        }
        member.encode_into(out);
    }
}

fn pairs(value: ValueRef<'_>) -> Vec<(Value, Value)> {
    let mut items = Items::of(value);
    let mut pairs = Vec::new();
    while let (Some(first), Some(second)) = (items.next(), items.next()) {
        pairs.push((Value::from_ref(first), Value::from_ref(second)));
    }
    pairs
}

fn big_int(payload: &[u8]) -> BigInt {
    let mut reader = Reader::new(payload);
    let negative = reader.byte().is_ok_and(|sign| sign == 1);
    let length = reader.varint().unwrap_or(0);
    BigInt { negative, magnitude: reader.take(length).unwrap_or_default().into() }
}

fn moment(payload: &[u8]) -> Result<Moment> {
    let mut reader = Reader::new(payload);
    let flags = reader.byte()?;
    let local_us = reader.i64()?;
    let offset_us = if flags & AWARE != 0 { Some(reader.i64()?) } else { None };
    let zone = if flags & ZONE != 0 {
        let length = reader.varint()?;
        Some(String::from_utf8_lossy(reader.take(length)?).into())
    } else {
        None
    };
    Ok(Moment { local_us, offset_us, fold: flags & FOLD != 0, zone })
}

/// The payload of a fixed-width kind, zero-filled if it were short.
fn fixed<const N: usize>(payload: &[u8]) -> [u8; N] {
    payload.try_into().unwrap_or([0; N])
}
