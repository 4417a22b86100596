//! Executors of the scalar commands: read, write, byte strings.

use data_bridge_kv_model::command::{Condition, Expiry, ScalarCommand, SetOptions, SetReply};
use data_bridge_kv_model::limits::{DEADLINE_MS, LOCKED_ENCODE_BYTES, VALUE_BYTES};
use data_bridge_kv_model::{Arg, Error, ErrorKind, Key, Keys, Kind, ReplyBuf, Result, Shape, ValueRef, show};

use super::super::{encoded_len, is_redis_string, put_value};
use super::{content, new_value, text_or_bytes};
use crate::clock::Clock;
use crate::hash::KeyHash;
use crate::mutation::Mutation;
use crate::settings::NamespaceSettings;
use crate::shard::txn::Place;
use crate::shard::{Shard, Space, Txn};
use crate::table::{EntryRef, NewValue, Stored};
use crate::wal::Lsn;

mod bits;

/// Executes a scalar command.
#[inline]
pub fn run(txn: &mut Txn<'_>, command: &ScalarCommand<'_>, out: &mut ReplyBuf) -> Result<()> {
    match command {
        ScalarCommand::Get { key, any_kind } => get(txn, *key, *any_kind, out),
        ScalarCommand::Set { key, value, options } => set(txn, *key, *value, options, out),
        ScalarCommand::MultiGet { keys, any_kind } => multi_get(txn, *keys, *any_kind, out),
        ScalarCommand::MultiSet { pairs, only_if_absent, expiry } => {
            multi_set(txn, *pairs, *only_if_absent, *expiry, out)
        }
        ScalarCommand::Pop { key, any_kind } => pop(txn, *key, *any_kind, out),
        ScalarCommand::GetExpire { key, expiry } => get_expire(txn, *key, *expiry, out),
        ScalarCommand::Append { key, bytes } => append(txn, *key, *bytes, out),
        ScalarCommand::Length { key } => length(txn, *key, out),
        ScalarCommand::GetRange { key, start, end } => get_range(txn, *key, *start, *end, out),
        ScalarCommand::SetRange { key, offset, bytes } => set_range(txn, *key, *offset, *bytes, out),
        ScalarCommand::GetBit { key, offset } => bits::get(txn, *key, *offset, out),
        ScalarCommand::SetBit { key, offset, on } => bits::set(txn, *key, *offset, *on, out),
        ScalarCommand::CountBits { key, within } => bits::count(txn, *key, *within, out),
        ScalarCommand::FindBit { key, on, within } => bits::find(txn, *key, *on, *within, out),
    }
}

/// Executes a plain read or write of one key on its locked shard, without a step around it, and answers the record that the
/// answer rests on. Answers `None`, having done nothing, where it takes one.
#[inline]
pub fn run_short(
    shard: &mut Shard,
    space: &Space,
    clock: &dyn Clock,
    (command, hash): (&ScalarCommand<'_>, KeyHash),
    out: &mut ReplyBuf,
) -> Option<Result<Lsn>> {
    match *command {
        ScalarCommand::Get { key, any_kind } => shard
            .read(
                space,
                hash,
                key.as_bytes(),
                || clock.unix_ms(),
                |entry| {
                    let stored = entry.map(|entry| readable(entry.value(), any_kind)).transpose();
                    Some(stored.map(|stored| match stored {
                        Some(stored) => put_value(stored, out),
                        None => out.missing(),
                    }))
                },
            )
            .map(|answered: Result<()>| answered.map(|()| 0)),
        ScalarCommand::Set { key, value, options }
            if options.condition == Condition::Always
                && options.reply == SetReply::Status
                && is_from_now(options.expiry) =>
        {
            let value = match value {
                Arg::Untyped(bytes) => ValueRef::bytes(bytes),
                Arg::Value(value) => value,
                Arg::Literal(..) => return None,
            };
            if value.payload().len() > LOCKED_ENCODE_BYTES {
                return None;
            }
            let value = match new_value(value) {
                Ok(value) => value,
                Err(refused) => return Some(Err(refused)),
            };
            let deadline = deadline_at(space.settings(), options.expiry, None, || clock.unix_ms());
            let rests_on = shard.write(space, hash, key.as_bytes(), value, deadline)?;
            out.ok();
            Some(Ok(rests_on))
        }
        _ => None,
    }
}

/// The deadline that a write leaves, unix ms; `current` is the one that was there.
pub(super) fn deadline(txn: &Txn<'_>, expiry: Expiry, current: Option<u64>) -> Option<u64> {
    deadline_at(txn.space().settings(), expiry, current, || txn.now())
}

/// Whether an expiry leaves a deadline that needs no look at the entry and has not passed yet, or none.
#[inline]
pub fn is_from_now(expiry: Expiry) -> bool {
    matches!(expiry, Expiry::Default | Expiry::Never | Expiry::In(1..))
}

/// The same without a step; `now` is asked only if it matters.
#[inline]
pub fn deadline_at(
    settings: &NamespaceSettings,
    expiry: Expiry,
    current: Option<u64>,
    now: impl FnOnce() -> u64,
) -> Option<u64> {
    let after = |ms: u64| Some(now().saturating_add(ms).min(DEADLINE_MS));
    match expiry {
        Expiry::Default => settings.default_ttl_ms.and_then(after),
        Expiry::Keep => current,
        Expiry::Never => None,
        Expiry::In(ms) => after(ms),
        Expiry::At(ms) => Some(ms),
    }
}

#[inline]
fn readable(stored: Stored<'_>, any_kind: bool) -> Result<Stored<'_>> {
    if any_kind || is_redis_string(stored.kind()) { Ok(stored) } else { Err(Error::wrong_type()) }
}

#[inline]
fn get(txn: &mut Txn<'_>, key: Key<'_>, any_kind: bool, out: &mut ReplyBuf) -> Result<()> {
    let place = txn.place(key);
    txn.with_value(place, |entry| {
        match entry {
            Some(entry) => put_value(readable(entry.value(), any_kind)?, out),
            None => out.missing(),
        }
        Ok(())
    })
}

#[inline]
fn set(
    txn: &mut Txn<'_>,
    key: Key<'_>,
    value: Arg<'_>,
    options: &SetOptions,
    out: &mut ReplyBuf,
) -> Result<()> {
    let place = txn.place(key);
    let mut scratch = Vec::new();
    let value = value.value(&mut scratch)?;
    if options.condition == Condition::Always && options.reply == SetReply::Status {
        overwrite(txn, key, value, options.expiry)?;
        out.ok();
        return Ok(());
    }
    let value = new_value(value)?;
    let old = txn.peek(place);
    let (exists, current) = (old.is_some(), old.and_then(EntryRef::deadline));
    let mark = out.len();
    if options.reply == SetReply::Old {
        match old {
            Some(entry) => put_value(readable(entry.value(), options.any_kind)?, out),
            None => out.missing(),
        }
    }
    let takes_place = match options.condition {
        Condition::Always => true,
        Condition::IfAbsent => !exists,
        Condition::IfPresent => exists,
    };
    if takes_place {
        let deadline = deadline(txn, options.expiry, current);
        if let Err(error) = put_or_delete(txn, place, value, deadline) {
            out.truncate(mark);
            return Err(error);
        }
    }
    match options.reply {
        SetReply::Status if takes_place => out.ok(),
        SetReply::Status => out.missing(),
        SetReply::Integer => out.integer(i64::from(takes_place)),
        SetReply::Boolean => out.boolean(takes_place),
        SetReply::Old => {}
    }
    Ok(())
}

/// Writes a value whatever is there.
#[inline]
fn overwrite(txn: &mut Txn<'_>, key: Key<'_>, value: ValueRef<'_>, expiry: Expiry) -> Result<()> {
    let place = txn.place(key);
    let value = new_value(value)?;
    let current = match expiry {
        Expiry::Keep => txn.peek(place).and_then(EntryRef::deadline),
        Expiry::Default | Expiry::Never | Expiry::In(_) | Expiry::At(_) => None,
    };
    let deadline = deadline(txn, expiry, current);
    put_or_delete(txn, place, value, deadline).map(drop)
}

/// Writes, unless the deadline has passed already: then the key is gone.
pub(super) fn put_or_delete(
    txn: &mut Txn<'_>,
    place: Place<'_>,
    value: NewValue<'_>,
    deadline: Option<u64>,
) -> Result<u64> {
    let version = txn.put(place, value, deadline)?;
    if deadline.is_some_and(|deadline| deadline <= txn.now()) {
        txn.remove(place, crate::shard::notice::Change::Expire);
    }
    Ok(version)
}

fn multi_get(txn: &mut Txn<'_>, keys: Keys<'_>, any_kind: bool, out: &mut ReplyBuf) -> Result<()> {
    out.container(Shape::Array, keys.len());
    let start = out.len();
    for key in keys.iter() {
        let place = txn.place(key);
        // All shards stay locked: no more than this is encoded until they are free again.
        let room = (start + LOCKED_ENCODE_BYTES).saturating_sub(out.len());
        let found = txn.find(place).and_then(|entry| Some((entry, readable(entry.value(), any_kind).ok()?)));
        match found {
            Some((entry, stored))
                if encoded_len(stored) > room
                    && !matches!(stored, Stored::Inline { .. } | Stored::Whole { .. }) =>
            {
                let entry = entry.to_owned();
                txn.leave_out(out.len(), entry);
            }
            Some((_, stored)) => put_value(stored, out),
            None => out.missing(),
        }
    }
    txn.check_reply(out)
}

fn multi_set(
    txn: &mut Txn<'_>,
    pairs: Keys<'_>,
    only_if_absent: bool,
    expiry: Expiry,
    out: &mut ReplyBuf,
) -> Result<()> {
    if only_if_absent {
        for key in pairs.iter() {
            let place = txn.place(key);
            if txn.peek(place).is_some() {
                out.integer(0);
                return Ok(());
            }
        }
    }
    let mut scratch = Vec::new();
    for (_, value) in pairs.pairs() {
        // Whatever is refused is refused before the first write.
        new_value(value.value(&mut scratch)?)?;
    }
    let has_graph = txn.space().settings().graph.is_some();
    if has_graph {
        txn.keep_undo();
    }
    for (key, value) in pairs.pairs() {
        let place = txn.place(key);
        let value = new_value(value.value(&mut scratch)?)?;
        let deadline = deadline(txn, expiry, None);
        txn.put(place, value, deadline)?;
    }
    if only_if_absent {
        out.integer(1)
    } else {
        out.ok()
    }
    Ok(())
}

fn pop(txn: &mut Txn<'_>, key: Key<'_>, any_kind: bool, out: &mut ReplyBuf) -> Result<()> {
    let place = txn.place(key);
    match txn.peek(place) {
        Some(entry) => put_value(readable(entry.value(), any_kind)?, out),
        None => {
            out.missing();
            return Ok(());
        }
    }
    txn.delete(place);
    Ok(())
}

fn get_expire(txn: &mut Txn<'_>, key: Key<'_>, expiry: Expiry, out: &mut ReplyBuf) -> Result<()> {
    let place = txn.place(key);
    let Some(entry) = txn.find(place) else {
        out.missing();
        return Ok(());
    };
    let current = entry.deadline();
    put_value(readable(entry.value(), false)?, out);
    let deadline = deadline(txn, expiry, current);
    if deadline.is_some_and(|deadline| deadline <= txn.now()) {
        txn.delete(place);
    } else if deadline != current {
        txn.change(place, Mutation::Deadline(deadline));
    }
    Ok(())
}

/// What a byte-string command sees of a key: the text that a Redis client is shown, its kind, and its deadline.
type Shown = (Vec<u8>, Kind, Option<u64>);

fn shown(txn: &mut Txn<'_>, place: Place<'_>) -> Result<Option<Shown>> {
    let Some(entry) = txn.find(place) else { return Ok(None) };
    let mut bytes = Vec::new();
    let stored = readable(entry.value(), false)?;
    match stored.payload() {
        Some(payload) if show::show(ValueRef::from_parts(stored.kind(), payload), &mut bytes) => {
            Ok(Some((bytes, stored.kind(), entry.deadline())))
        }
        _ => Err(Error::wrong_type()),
    }
}

fn write_back(
    txn: &mut Txn<'_>,
    place: Place<'_>,
    kind: Kind,
    bytes: &[u8],
    deadline: Option<u64>,
    out: &mut ReplyBuf,
) -> Result<()> {
    put_text(txn, place, kind, bytes, deadline)?;
    out.count(bytes.len());
    Ok(())
}

/// Writes changed bytes of a value of this kind.
fn put_text(
    txn: &mut Txn<'_>,
    place: Place<'_>,
    kind: Kind,
    bytes: &[u8],
    deadline: Option<u64>,
) -> Result<()> {
    let kind = text_or_bytes(kind, bytes);
    txn.put(place, NewValue::Payload { kind, bytes }, deadline).map(drop)
}

fn append(txn: &mut Txn<'_>, key: Key<'_>, bytes: Arg<'_>, out: &mut ReplyBuf) -> Result<()> {
    let place = txn.place(key);
    let added = content(bytes)?;
    let new_kind = match bytes {
        Arg::Value(value) => value.kind(),
        Arg::Untyped(_) | Arg::Literal(..) => Kind::Bytes,
    };
    let (mut whole, kind, deadline) = match shown(txn, place)? {
        Some(found) => found,
        None => (Vec::new(), new_kind, deadline(txn, Expiry::Default, None)),
    };
    check_size(whole.len().saturating_add(added.len()))?;
    whole.extend_from_slice(added);
    write_back(txn, place, kind, &whole, deadline, out)
}

fn length(txn: &mut Txn<'_>, key: Key<'_>, out: &mut ReplyBuf) -> Result<()> {
    let place = txn.place(key);
    if let Some(content) = txn.peek(place).and_then(|entry| {
        let stored = entry.value();
        let payload = stored.payload()?;
        matches!(stored.kind(), Kind::Text | Kind::Bytes).then_some(payload)
    }) {
        out.count(content.len());
        return Ok(());
    }
    out.count(shown(txn, place)?.map_or(0, |(bytes, ..)| bytes.len()));
    Ok(())
}

/// The part of `length` bytes or elements from `start` to `end`, both included, negative from the end.
pub(super) fn range(start: i64, end: i64, length: usize) -> std::ops::Range<usize> {
    let length = i64::try_from(length).unwrap_or(i64::MAX);
    let from_end = |index: i64| if index < 0 { index.saturating_add(length) } else { index };
    let (start, end) = (from_end(start).max(0), from_end(end).min(length - 1));
    if start > end {
        return 0..0;
    }
    let index = |index: i64| usize::try_from(index).unwrap_or(0);
    index(start)..index(end + 1)
}

/// The same as Redis reads it for strings: an end before the first byte is the first byte.
fn range_from_first(start: i64, end: i64, length: usize) -> std::ops::Range<usize> {
    let before = end < 0 && usize::try_from(end.unsigned_abs()).is_ok_and(|end| end > length);
    range(start, if before { 0 } else { end }, length)
}

fn get_range(txn: &mut Txn<'_>, key: Key<'_>, start: i64, end: i64, out: &mut ReplyBuf) -> Result<()> {
    let place = txn.place(key);
    let (bytes, ..) = shown(txn, place)?.unwrap_or((Vec::new(), Kind::Bytes, None));
    let crossed = start < 0 && end < 0 && start > end;
    let range = if crossed { 0..0 } else { range_from_first(start, end, bytes.len()) };
    out.value(ValueRef::bytes(bytes.get(range).unwrap_or_default()));
    Ok(())
}

fn set_range(
    txn: &mut Txn<'_>,
    key: Key<'_>,
    offset: usize,
    bytes: Arg<'_>,
    out: &mut ReplyBuf,
) -> Result<()> {
    let place = txn.place(key);
    let bytes = content(bytes)?;
    let found = shown(txn, place)?;
    if bytes.is_empty() {
        out.count(found.map_or(0, |(whole, ..)| whole.len()));
        return Ok(());
    }
    let end = offset.saturating_add(bytes.len());
    check_size(end)?;
    let (mut whole, kind, deadline) =
        found.unwrap_or_else(|| (Vec::new(), Kind::Bytes, deadline(txn, Expiry::Default, None)));
    if whole.len() < end {
        whole.resize(end, 0);
    }
    whole[offset..end].copy_from_slice(bytes);
    write_back(txn, place, kind, &whole, deadline, out)
}

fn check_size(bytes: usize) -> Result<()> {
    if bytes > VALUE_BYTES {
        return Err(Error::new(ErrorKind::Limit, "string exceeds maximum allowed size (64 MiB)"));
    }
    Ok(())
}
