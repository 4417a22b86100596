//! Effects as bytes: what a record of the log holds. A record has all effects of one command or atomic step, one behind
//! the other:
//!
//! ```text
//! u8      effect, below
//! varint  bytes of the key, then the key
//! u64 LE  the entry's version from then on
//! body    1 put: deadline u64 LE (unix ms, 0 = none), value      2 delete: nothing      3 deadline: u64 LE
//!         4 insert into a list, 5 replace in it: varint index, value      6 remove from it: varint index
//!         7 trim it: varint first, varint end      8 into a set, 9 out of it: value
//!         10 field of a hash: value of the name, value      11 field away: value of the name
//!         12 member of a sorted set: value, value of the score      13 member away: value
//! ```
//! Values are in the value codec. Numbers are persistent: none is used again, and an unknown one is an error.

use data_bridge_kv_model::codec::{Reader, put_counted, put_varint};
use data_bridge_kv_model::{Error, ErrorKind, Result, ValueRef};

use super::Mutation;
use crate::collections::{Packed, Score};
use crate::table::NewValue;

/// What an effect takes in a record beside the key and an argument, at most.
pub const EFFECT_BYTES: usize = 32;
/// What a put has beside its key and its value's payload, at most: lengths, version, deadline and kind.
const PUT_BESIDE: usize = 48;

const PUT: u8 = 1;
const DELETE: u8 = 2;
const DEADLINE: u8 = 3;
const LIST_INSERT: u8 = 4;
const LIST_SET: u8 = 5;
const LIST_REMOVE: u8 = 6;
const LIST_TRIM: u8 = 7;
const SET_INSERT: u8 = 8;
const SET_REMOVE: u8 = 9;
const FIELD_SET: u8 = 10;
const FIELD_REMOVE: u8 = 11;
const SCORE_SET: u8 = 12;
const SCORE_REMOVE: u8 = 13;

/// One effect of a record.
#[derive(Debug)]
pub struct Effect<'a> {
    /// The key.
    pub key: &'a [u8],
    /// The version that the entry has from then on.
    pub version: u64,
    /// What is done.
    pub mutation: Mutation<'a>,
}

/// Appends one effect.
pub fn encode(key: &[u8], version: u64, mutation: &Mutation<'_>, out: &mut Vec<u8>) {
    if let Mutation::Put { value, deadline } = mutation {
        return encode_put(key, version, value, *deadline, out);
    }
    put_front(number(mutation), key, version, out);
    match mutation {
        Mutation::Put { .. } => {}
        Mutation::Delete => {}
        Mutation::Deadline(deadline) => put_deadline(*deadline, out),
        Mutation::ListInsert(index, element) | Mutation::ListSet(index, element) => {
            put_index(*index, out);
            out.extend_from_slice(element.as_bytes());
        }
        Mutation::ListRemove(index) => put_index(*index, out),
        Mutation::ListTrim(start, end) => {
            put_index(*start, out);
            put_index(*end, out);
        }
        Mutation::SetInsert(member)
        | Mutation::SetRemove(member)
        | Mutation::FieldRemove(member)
        | Mutation::ScoreRemove(member) => member.encode_into(out),
        Mutation::FieldSet(field, value) => {
            field.encode_into(out);
            value.encode_into(out);
        }
        Mutation::ScoreSet(member, score) => {
            member.encode_into(out);
            out.push(score.kind().number());
            score.encode_payload(out);
        }
    }
}

/// Appends a put.
#[inline]
pub fn encode_put(key: &[u8], version: u64, value: &NewValue<'_>, deadline: Option<u64>, out: &mut Vec<u8>) {
    put_key(PUT, key, out);
    let mut numbers = [0; 16];
    numbers[..8].copy_from_slice(&version.to_le_bytes());
    numbers[8..].copy_from_slice(&deadline.unwrap_or(0).to_le_bytes());
    out.extend_from_slice(&numbers);
    put_value(value, out);
}

fn put_front(number: u8, key: &[u8], version: u64, out: &mut Vec<u8>) {
    put_key(number, key, out);
    out.extend_from_slice(&version.to_le_bytes());
}

#[inline]
fn put_key(number: u8, key: &[u8], out: &mut Vec<u8>) {
    match u8::try_from(key.len()) {
        // Its length is one byte.
        Ok(length @ ..0x80) => {
            out.extend_from_slice(&[number, length]);
            out.extend_from_slice(key);
        }
        _ => {
            out.push(number);
            put_counted(key, out);
        }
    }
}

/// The most bytes that a value and its key take as a put, about.
pub fn most_bytes_of_put(key: &[u8], value: &NewValue<'_>) -> usize {
    let length = match value {
        NewValue::Payload { bytes, .. } | NewValue::Whole { bytes, .. } => bytes.len(),
        NewValue::Blob { blob, .. } => blob.len(),
        NewValue::Collection(collection) => collection.encoded_len(),
    };
    key.len() + length + PUT_BESIDE
}

fn number(mutation: &Mutation<'_>) -> u8 {
    match mutation {
        Mutation::Put { .. } => PUT,
        Mutation::Delete => DELETE,
        Mutation::Deadline(_) => DEADLINE,
        Mutation::ListInsert(..) => LIST_INSERT,
        Mutation::ListSet(..) => LIST_SET,
        Mutation::ListRemove(_) => LIST_REMOVE,
        Mutation::ListTrim(..) => LIST_TRIM,
        Mutation::SetInsert(_) => SET_INSERT,
        Mutation::SetRemove(_) => SET_REMOVE,
        Mutation::FieldSet(..) => FIELD_SET,
        Mutation::FieldRemove(_) => FIELD_REMOVE,
        Mutation::ScoreSet(..) => SCORE_SET,
        Mutation::ScoreRemove(_) => SCORE_REMOVE,
    }
}

/// No list is as long as 32 bits say; beyond its end is beyond its end.
fn put_index(index: usize, out: &mut Vec<u8>) {
    put_varint(index.min(u32::MAX as usize), out);
}

fn put_deadline(deadline: Option<u64>, out: &mut Vec<u8>) {
    out.extend_from_slice(&deadline.unwrap_or(0).to_le_bytes());
}

fn put_value(value: &NewValue<'_>, out: &mut Vec<u8>) {
    match value {
        NewValue::Payload { kind, bytes } | NewValue::Whole { kind, bytes } => {
            ValueRef::from_parts(*kind, bytes).encode_into(out);
        }
        NewValue::Blob { kind, blob } => ValueRef::from_parts(*kind, blob).encode_into(out),
        NewValue::Collection(collection) => collection.encode_into(out),
    }
}

/// The effects of a record, in order; after an error there are none. `store` makes of a value what a table takes.
pub fn decode<'a>(
    payload: &'a [u8],
    store: impl Fn(ValueRef<'a>) -> Result<NewValue<'a>>,
) -> impl Iterator<Item = Result<Effect<'a>>> {
    let mut reader = Reader::new(payload);
    let mut failed = false;
    std::iter::from_fn(move || {
        if failed || reader.rest().is_empty() {
            return None;
        }
        let effect = read(&mut reader, &store);
        failed = effect.is_err();
        Some(effect)
    })
}

/// The key and the bytes of each effect of a record, in order; after an error there are none.
pub fn split(payload: &[u8]) -> impl Iterator<Item = Result<(&[u8], &[u8])>> {
    let mut reader = Reader::new(payload);
    let mut failed = false;
    std::iter::from_fn(move || {
        let before = reader.rest();
        if failed || before.is_empty() {
            return None;
        }
        let effect = read(&mut reader, |value| Ok(NewValue::from(value)));
        failed = effect.is_err();
        Some(effect.map(|effect| (effect.key, &before[..before.len() - reader.rest().len()])))
    })
}

fn read<'a>(
    reader: &mut Reader<'a>,
    store: impl Fn(ValueRef<'a>) -> Result<NewValue<'a>>,
) -> Result<Effect<'a>> {
    let number = reader.byte()?;
    let key = reader.counted()?;
    let version = reader.i64()?.cast_unsigned();
    let mutation = match number {
        PUT => {
            let deadline = deadline(reader)?;
            Mutation::Put { value: store(reader.stored_value()?)?, deadline }
        }
        DELETE => Mutation::Delete,
        DEADLINE => Mutation::Deadline(deadline(reader)?),
        LIST_INSERT => Mutation::ListInsert(reader.varint()?, packed(reader)?),
        LIST_SET => Mutation::ListSet(reader.varint()?, packed(reader)?),
        LIST_REMOVE => Mutation::ListRemove(reader.varint()?),
        LIST_TRIM => Mutation::ListTrim(reader.varint()?, reader.varint()?),
        SET_INSERT => Mutation::SetInsert(reader.stored_value()?),
        SET_REMOVE => Mutation::SetRemove(reader.stored_value()?),
        FIELD_SET => Mutation::FieldSet(reader.stored_value()?, reader.stored_value()?),
        FIELD_REMOVE => Mutation::FieldRemove(reader.stored_value()?),
        SCORE_SET => {
            let member = reader.stored_value()?;
            let score = Score::of(reader.stored_value()?).ok_or_else(|| corrupt("a score is no number"))?;
            Mutation::ScoreSet(member, score)
        }
        SCORE_REMOVE => Mutation::ScoreRemove(reader.stored_value()?),
        _ => return Err(corrupt("an effect is unknown: written by a newer version?")),
    };
    Ok(Effect { key, version, mutation })
}

fn deadline(reader: &mut Reader<'_>) -> Result<Option<u64>> {
    let at = reader.i64()?.cast_unsigned();
    Ok((at != 0).then_some(at))
}

fn packed(reader: &mut Reader<'_>) -> Result<Packed> {
    Ok(Packed::from(reader.stored_value()?))
}

fn corrupt(text: &'static str) -> Error {
    Error::new(ErrorKind::Corruption, text)
}

#[cfg(test)]
mod tests {
    use data_bridge_kv_model::{Decimal, Kind, Value};

    use super::*;

    fn store(value: ValueRef<'_>) -> Result<NewValue<'_>> {
        Ok(NewValue::from(value))
    }

    fn samples() -> Vec<Mutation<'static>> {
        let (text, number) = (ValueRef::text("a member"), ValueRef::from_parts(Kind::Bool, &[1]));
        vec![
            Mutation::Put { value: NewValue::from(text), deadline: None },
            Mutation::Put { value: NewValue::from(number), deadline: Some(1_700_000_000_123) },
            Mutation::Delete,
            Mutation::Deadline(Some(77)),
            Mutation::Deadline(None),
            Mutation::ListInsert(300, Packed::from(text)),
            Mutation::ListInsert(u32::MAX as usize, Packed::from(text)),
            Mutation::ListSet(0, Packed::from(number)),
            Mutation::ListRemove(7),
            Mutation::ListTrim(2, 900),
            Mutation::SetInsert(text),
            Mutation::SetRemove(text),
            Mutation::FieldSet(text, number),
            Mutation::FieldRemove(text),
            Mutation::ScoreSet(text, Score::Float(-0.5)),
            Mutation::ScoreSet(text, Score::Decimal("1.10".parse::<Decimal>().unwrap())),
            Mutation::ScoreRemove(text),
        ]
    }

    #[test]
    fn every_effect_comes_back_in_order() {
        let mut bytes = Vec::new();
        for (at, mutation) in samples().iter().enumerate() {
            encode(format!("key {at}").as_bytes(), at as u64 + 1, mutation, &mut bytes);
        }
        let back: Vec<Effect<'_>> = decode(&bytes, store).map(|effect| effect.unwrap()).collect();
        assert_eq!(back.len(), samples().len());
        for (at, (effect, mutation)) in back.iter().zip(samples()).enumerate() {
            assert_eq!(effect.key, format!("key {at}").as_bytes());
            assert_eq!(effect.version, at as u64 + 1);
            assert_eq!(format!("{:?}", effect.mutation), format!("{mutation:?}"));
        }
    }

    #[test]
    fn what_is_deeper_than_a_value_that_is_written_whole_comes_back() {
        let deep = (1..34).fold(Value::Null, |inner, _| Value::List(vec![inner])).encode();
        let value = ValueRef::decode_stored(&deep).unwrap();
        let mut bytes = Vec::new();
        encode(b"key", 1, &Mutation::Put { value: NewValue::from(value), deadline: None }, &mut bytes);
        encode(b"key", 2, &Mutation::FieldSet(ValueRef::text("history"), value), &mut bytes);
        assert_eq!(decode(&bytes, store).filter(Result::is_ok).count(), 2);
    }

    #[test]
    fn a_record_falls_into_its_effects() {
        let (mut bytes, mut parts) = (Vec::new(), Vec::new());
        for (at, mutation) in samples().iter().enumerate() {
            let mut part = Vec::new();
            encode(format!("key {at}").as_bytes(), at as u64 + 1, mutation, &mut part);
            bytes.extend_from_slice(&part);
            parts.push((format!("key {at}").into_bytes(), part));
        }
        let owned = |(key, part): (&[u8], &[u8])| (key.to_vec(), part.to_vec());
        let back: Result<Vec<_>> = split(&bytes).map(|effect| effect.map(owned)).collect();
        assert_eq!(back.unwrap(), parts);
        bytes.push(200);
        assert_eq!(split(&bytes).filter(Result::is_ok).count(), parts.len());
        assert!(split(&bytes).last().unwrap().is_err());
    }

    #[test]
    fn the_bytes_are_golden() {
        let mut bytes = Vec::new();
        let put = Mutation::Put { value: NewValue::from(ValueRef::bytes(b"v")), deadline: Some(9) };
        encode(b"k", 258, &put, &mut bytes);
        encode(b"k", 259, &Mutation::Delete, &mut bytes);
        let text: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
        assert_eq!(text, "01016b0201000000000000090000000000000006017602016b0301000000000000");
    }

    #[test]
    fn every_cut_and_every_unknown_number_is_an_error_or_fewer_effects() {
        let mut bytes = Vec::new();
        samples().iter().for_each(|mutation| encode(b"key", 1, mutation, &mut bytes));
        for end in 0..bytes.len() {
            let effects: Vec<_> = decode(&bytes[..end], store).collect();
            assert!(effects.len() <= samples().len(), "cut at {end}");
        }
        bytes[0] = 200;
        let effects: Vec<_> = decode(&bytes, store).collect();
        assert!(matches!(effects.as_slice(), [Err(error)] if error.kind() == ErrorKind::Corruption));
    }
}
