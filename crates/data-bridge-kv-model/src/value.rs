//! Owned values for Rust users, clients and tests. The engine itself keeps codec bytes, see `codec.rs`.
#![cfg_attr(not(test), deny(clippy::indexing_slicing, clippy::unwrap_used, clippy::arithmetic_side_effects))]

use crate::Decimal;
use crate::codec::{AWARE, FOLD, Reader, ValueRef, ZONE, put_counted, put_varint};
use crate::error::{Error, Result};
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
    /// Scores and members in score order.
    SortedSet(SortedSet),
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

/// The content of a sorted set: all scores are of one kind.
#[derive(Clone, Debug, PartialEq)]
pub enum SortedSet {
    /// Float scores, none of them NaN.
    Float(Vec<(f64, Value)>),
    /// Decimal scores.
    Decimal(Vec<(Decimal, Value)>),
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
    /// An owned copy of a borrowed value, in one pass. Null if its payload is not one that the codec accepts.
    pub fn from_ref(value: ValueRef<'_>) -> Value {
        match value.kind() {
            Kind::Text => Value::Text(String::from_utf8_lossy(value.payload()).into()),
            Kind::Bytes => Value::Bytes(value.payload().into()),
            kind => read(kind, &mut Reader::new(value.payload())).unwrap_or(Value::Null),
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
            Value::SortedSet(members) => members.encode_into(out),
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

impl From<i32> for Value {
    fn from(number: i32) -> Value {
        Value::Int(number.into())
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

impl From<i128> for Value {
    /// Int where it fits 64 bits, otherwise BigInt.
    ///
    /// ```
    /// use data_bridge_kv_model::{Kind, Value};
    /// assert_eq!(Value::from(5i128), Value::Int(5));
    /// assert_eq!(Value::from(1i128 << 64).kind(), Kind::BigInt);
    /// ```
    fn from(number: i128) -> Value {
        if let Ok(number) = i64::try_from(number) {
            return Value::Int(number);
        }
        let bytes = number.unsigned_abs().to_le_bytes();
        let last = bytes.iter().rposition(|byte| *byte != 0).unwrap_or_default();
        let magnitude = bytes.get(..=last).unwrap_or_default().into();
        Value::BigInt(Box::new(BigInt { negative: number < 0, magnitude }))
    }
}

impl From<String> for Value {
    fn from(text: String) -> Value {
        Value::Text(text.into())
    }
}

impl From<Vec<u8>> for Value {
    fn from(bytes: Vec<u8>) -> Value {
        Value::Bytes(bytes.into())
    }
}

impl From<Vec<Value>> for Value {
    fn from(items: Vec<Value>) -> Value {
        Value::List(items)
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

impl SortedSet {
    fn encode_into(&self, out: &mut Vec<u8>) {
        match self {
            SortedSet::Float(members) => {
                out.push(Kind::Float.number());
                put_varint(members.len(), out);
                for (score, member) in members {
                    out.extend_from_slice(&score.to_le_bytes());
                    member.encode_into(out);
                }
            }
            SortedSet::Decimal(members) => {
                out.push(Kind::Decimal.number());
                put_varint(members.len(), out);
                for (score, member) in members {
                    out.extend_from_slice(&score.to_payload());
                    member.encode_into(out);
                }
            }
        }
    }
}

/// Reads the payload of a kind that stands next in valid bytes.
fn read(kind: Kind, reader: &mut Reader<'_>) -> Result<Value> {
    Ok(match kind {
        Kind::Null => Value::Null,
        Kind::Bool => Value::Bool(reader.byte()? == 1),
        Kind::Int => Value::Int(reader.i64()?),
        Kind::Float => Value::Float(float(reader)?),
        Kind::Decimal => Value::Decimal(decimal(reader)?),
        Kind::Text => Value::Text(text(reader)?),
        Kind::Bytes => Value::Bytes(reader.counted()?.into()),
        Kind::List => Value::List(sequence(reader, next)?),
        Kind::Set => Value::Set(sequence(reader, next)?),
        Kind::Tuple => Value::Tuple(sequence(reader, next)?),
        Kind::FrozenSet => Value::FrozenSet(sequence(reader, next)?),
        Kind::Hash => Value::Hash(sequence(reader, |reader| Ok((next(reader)?, next(reader)?)))?),
        Kind::SortedSet => Value::SortedSet(match Kind::from_number(reader.byte()?) {
            Some(Kind::Decimal) => {
                SortedSet::Decimal(sequence(reader, |reader| Ok((decimal(reader)?, next(reader)?)))?)
            }
            _ => SortedSet::Float(sequence(reader, |reader| Ok((float(reader)?, next(reader)?)))?),
        }),
        Kind::BigInt => {
            let negative = reader.byte()? == 1;
            Value::BigInt(Box::new(BigInt { negative, magnitude: reader.counted()?.into() }))
        }
        Kind::Timestamp => Value::Timestamp(Box::new(moment(reader)?)),
        Kind::Time => Value::Time(Box::new(moment(reader)?)),
        Kind::Date => Value::Date(reader.i32()?),
        Kind::Duration => Value::Duration(reader.i32()?, reader.i64()?),
        Kind::Uuid => Value::Uuid(fixed(reader)?),
        Kind::Opaque => Value::Opaque(Box::new((text(reader)?, reader.counted()?.into()))),
        Kind::Tagged => Value::Tagged(Box::new((text(reader)?, next(reader)?))),
    })
}

fn next(reader: &mut Reader<'_>) -> Result<Value> {
    let kind = Kind::from_number(reader.byte()?).ok_or_else(|| Error::invalid("unknown kind of value"))?;
    read(kind, reader)
}

fn sequence<T>(reader: &mut Reader<'_>, item: impl Fn(&mut Reader<'_>) -> Result<T>) -> Result<Vec<T>> {
    let count = reader.varint()?;
    // Memory is taken as items come, at most what the bytes can hold ahead.
    let mut items = Vec::with_capacity(count.min(reader.rest().len()).min(1024));
    for _ in 0..count {
        items.push(item(reader)?);
    }
    Ok(items)
}

fn float(reader: &mut Reader<'_>) -> Result<f64> {
    Ok(f64::from_le_bytes(fixed(reader)?))
}

fn decimal(reader: &mut Reader<'_>) -> Result<Decimal> {
    Ok(Decimal::from_payload(&fixed(reader)?)?)
}

fn text(reader: &mut Reader<'_>) -> Result<Box<str>> {
    Ok(String::from_utf8_lossy(reader.counted()?).into())
}

fn fixed<const N: usize>(reader: &mut Reader<'_>) -> Result<[u8; N]> {
    reader.take(N)?.try_into().map_err(|_| Error::invalid("value is cut short"))
}

fn moment(reader: &mut Reader<'_>) -> Result<Moment> {
    let flags = reader.byte()?;
    let local_us = reader.i64()?;
    let offset_us = if flags & AWARE != 0 { Some(reader.i64()?) } else { None };
    let zone = if flags & ZONE != 0 { Some(text(reader)?) } else { None };
    Ok(Moment { local_us, offset_us, fold: flags & FOLD != 0, zone })
}
