//! Executors: one file per family of commands, each a function from a command and a running step to reply items.
//! An error means that the command changed nothing.

use data_bridge_kv_model::command::{
    HashCommand, Keys, ListCommand, RangeBy, ScalarCommand, SetCommand, ZSetCommand,
};
use data_bridge_kv_model::limits::VALUE_BYTES;
use data_bridge_kv_model::{Arg, Command, Error, ErrorKind, Key, Kind, ReplyBuf, Result, ValueRef, show};

use super::{Shard, Space, Txn, encoded_len};
use crate::clock::Clock;
use crate::collections::{Collection, Packed};
use crate::hash::KeyHash;
use crate::table::{NewValue, Stored, is_kept_whole};
use crate::wal::Lsn;

/// What an element takes beside its bytes when it is encoded, at most.
const ELEMENT_BYTES: usize = 8;
/// What a reply takes beside its elements.
const REPLY_HEAD: usize = 64;

pub mod hash;
pub mod key;
pub mod list;
pub mod number;
pub mod scalar;
pub mod set;
pub mod state;
pub mod zset;

/// Executes one command whose keys are locked.
#[inline]
pub fn run(txn: &mut Txn<'_>, command: &Command<'_>, out: &mut ReplyBuf) -> Result<()> {
    match command {
        Command::Scalar(command) => scalar::run(txn, command, out),
        Command::Number(command) => number::run(txn, command, out),
        Command::Key(command) => key::run(txn, command, out),
        Command::List(command) => list::run(txn, command, out),
        Command::Set(command) => set::run(txn, command, out),
        Command::Hash(command) => hash::run(txn, command, out),
        Command::ZSet(command) => zset::run(txn, command, out),
        Command::State(command) => state::run(txn, command, out),
        Command::Connection(_) => Err(Error::invalid("a connection's command came to the engine")),
    }
}

/// Executes what is plain of one key's commands on its locked shard, without a step around it, and answers the record that
/// the answer rests on; 0 = none. Answers `None`, having done nothing, where it takes one.
#[inline]
pub fn run_short(
    shard: &mut Shard,
    space: &Space,
    clock: &dyn Clock,
    (command, hash): (&Command<'_>, KeyHash),
    out: &mut ReplyBuf,
) -> Option<Result<Lsn>> {
    match command {
        Command::Scalar(command) => scalar::run_short(shard, space, clock, (command, hash), out),
        Command::Number(command) => number::run_short(shard, space, clock, (command, hash), out),
        Command::List(command) => list::run_short(shard, space, clock, (command, hash), out),
        Command::Set(command) => set::run_short(shard, space, clock, (command, hash), out),
        Command::Hash(command) => hash::run_short(shard, space, clock, (command, hash), out),
        Command::ZSet(command) => zset::run_short(shard, space, clock, (command, hash), out),
        Command::Key(_) | Command::State(_) | Command::Connection(_) => None,
    }
}

/// About how many bytes a reading command answers with about this value, the only one that it reads.
pub fn reply_bytes(command: &Command<'_>, stored: Stored<'_>) -> usize {
    if let Command::Scalar(
        ScalarCommand::GetBit { .. } | ScalarCommand::CountBits { .. } | ScalarCommand::FindBit { .. },
    ) = command
    {
        return REPLY_HEAD;
    }
    let whole = encoded_len(stored);
    let Stored::Collection(collection) = stored else { return whole };
    let length = collection.len();
    let elements = match command {
        Command::List(ListCommand::Range { start, end, .. }) => scalar::range(*start, *end, length).len(),
        Command::ZSet(ZSetCommand::Range { by: RangeBy::Rank { start, end }, .. }) => {
            scalar::range(*start, *end, length).len()
        }
        Command::Hash(HashCommand::MultiGet { fields, .. }) => fields.len(),
        Command::Set(SetCommand::Scan { options, .. })
        | Command::Hash(HashCommand::Scan { options, .. })
        | Command::ZSet(ZSetCommand::Scan { options, .. }) => options.count,
        _ => length,
    };
    // As if all were equally long.
    whole / length.max(1) * elements.min(length) + REPLY_HEAD
}

/// A value that a command brings, in the form that the table stores. Short collections stand as they come, since their
/// members were checked when they were read; others are built here. What is larger than the limit is refused.
#[inline]
pub fn new_value<'a>(value: ValueRef<'a>) -> Result<NewValue<'a>> {
    if value.payload().len() > VALUE_BYTES {
        return Err(Error::new(ErrorKind::Limit, "value is larger than the limit of 64 MiB"));
    }
    if value.kind().is_collection() {
        return new_collection(value);
    }
    Ok(NewValue::Payload { kind: value.kind(), bytes: value.payload() })
}

#[inline(never)]
fn new_collection(value: ValueRef<'_>) -> Result<NewValue<'_>> {
    if is_kept_whole(value.kind(), value.payload().len()) {
        return Ok(NewValue::Whole { kind: value.kind(), bytes: value.payload() });
    }
    let collection = Collection::decode(value).ok_or_else(|| Error::invalid("malformed collection"))?;
    Ok(NewValue::Collection(std::sync::Arc::new(collection)))
}

/// The first of these keys whose collection has an element; none is looked at behind it. An error if one of those that are
/// holds another kind.
pub fn first_filled<'k>(txn: &mut Txn<'_>, keys: Keys<'k>, kind: Kind) -> Result<Option<Key<'k>>> {
    for key in keys.iter() {
        let place = txn.place(key);
        if txn.collection(place, kind)?.is_some_and(|collection| !collection.is_empty()) {
            return Ok(Some(key));
        }
    }
    Ok(None)
}

/// Refuses elements that would let a collection, `encoded` bytes long, outgrow what a value may have, in bytes or in depth;
/// to be called before the first write. Elements that are there already count once more.
pub fn check_growth<'a, 'b: 'a>(
    encoded: usize,
    elements: impl IntoIterator<Item = &'a Arg<'b>>,
) -> Result<()> {
    let mut grown = encoded;
    for element in elements {
        grown += ELEMENT_BYTES;
        match element {
            Arg::Untyped(bytes) | Arg::Literal(_, bytes) => grown += bytes.len(),
            Arg::Value(value) => {
                value.check_part()?;
                grown += value.payload().len();
            }
        }
    }
    check_collection_bytes(grown)
}

/// Refuses a collection that is too long encoded.
pub fn check_collection_bytes(encoded: usize) -> Result<()> {
    if encoded > VALUE_BYTES {
        return Err(Error::new(ErrorKind::Limit, "collection is larger than the limit of 64 MiB"));
    }
    Ok(())
}

/// Whether a stored scalar is what a command expects: untyped bytes match by the shown text, typed values exactly.
pub fn is_expected(stored: ValueRef<'_>, expected: Arg<'_>) -> Result<bool> {
    match expected {
        Arg::Untyped(bytes) => Ok(show::matches_untyped(stored, bytes)),
        Arg::Value(value) => Ok(data_bridge_kv_model::identity::exact_eq(stored, value)),
        Arg::Literal(..) => {
            let mut scratch = Vec::new();
            Ok(data_bridge_kv_model::identity::exact_eq(stored, expected.value(&mut scratch)?))
        }
    }
}

/// The bytes that a byte-string command works with: the content of an argument.
pub fn content<'a>(arg: Arg<'a>) -> Result<&'a [u8]> {
    arg.content().ok_or_else(|| Error::invalid("value must be text or bytes"))
}

/// Text stays Text where it is UTF-8, and becomes Bytes where it is not.
pub fn text_or_bytes(kind: Kind, bytes: &[u8]) -> Kind {
    if kind == Kind::Text && std::str::from_utf8(bytes).is_ok() { Kind::Text } else { Kind::Bytes }
}

/// A member or field that an argument brings.
pub fn member<'a>(arg: Arg<'a>, scratch: &'a mut Vec<u8>) -> Result<ValueRef<'a>> {
    let value = arg.value(scratch)?;
    if !value.is_member() {
        return Err(Error::new(ErrorKind::UnsupportedValue, "a member or field must be a scalar"));
    }
    Ok(value)
}

/// The value that an argument is as it stands; `None` for a literal, which has to be read.
#[inline]
fn plain<'a>(arg: Arg<'a>) -> Option<ValueRef<'a>> {
    match arg {
        Arg::Untyped(bytes) => Some(ValueRef::bytes(bytes)),
        Arg::Value(value) => Some(value),
        Arg::Literal(..) => None,
    }
}

/// The member or field that an argument is as it stands, and whether it is no other: untyped bytes may name a typed one, see
/// [`named_by_bytes`].
#[inline]
fn plain_member<'a>(arg: Arg<'a>) -> Option<(ValueRef<'a>, bool)> {
    let member = plain(arg).filter(|member| member.is_member())?;
    Some((member, !matches!(arg, Arg::Untyped(bytes) if show::may_be_typed(bytes))))
}

/// The stored member that untyped bytes name where none has these bytes: a typed scalar that is shown as them. `None`
/// where there is none, and for typed arguments, which name themselves.
pub fn named_by_bytes(arg: Arg<'_>, stored: impl Fn(ValueRef<'_>) -> Option<Packed>) -> Option<Packed> {
    let Arg::Untyped(bytes) = arg else { return None };
    show::typed_readings(bytes, |value| {
        // Decimals compare by number, but bytes name what is shown as them: `1.10` is not the stored `1.1`.
        stored(value).filter(|found| show::matches_untyped(found.value(), bytes))
    })
}

#[cfg(test)]
mod tests {
    use data_bridge_kv_model::Value;

    use super::*;

    #[test]
    fn a_collection_takes_no_part_that_would_make_it_too_deep() {
        let grown = |levels: usize| {
            let part = (1..levels).fold(Value::Null, |inner, _| Value::List(vec![inner])).encode();
            check_growth(0, &[Arg::Value(ValueRef::decode(&part).unwrap())])
        };
        assert!(grown(31).is_ok());
        assert_eq!(grown(32).unwrap_err().kind(), ErrorKind::UnsupportedValue);
    }
}
