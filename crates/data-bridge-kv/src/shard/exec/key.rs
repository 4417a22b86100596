//! Executors of commands on keys of any kind. Those that walk a whole namespace are in `engine.rs`.

use data_bridge_kv_model::command::{ExpireCondition, KeyCommand, TimeUnit};
use data_bridge_kv_model::{Error, ErrorKind, Key, Keys, ReplyBuf, Result};

use crate::mutation::Mutation;
use crate::shard::Txn;
use crate::shard::txn::Place;
use crate::table::{EntryRef, NewValue, OwnedEntry};

/// Executes a command on keys.
pub fn run(txn: &mut Txn<'_>, command: &KeyCommand<'_>, out: &mut ReplyBuf) -> Result<()> {
    match command {
        KeyCommand::Delete { keys } => count(txn, *keys, out, |txn, place| txn.delete(place)),
        KeyCommand::Exists { keys } => count(txn, *keys, out, |txn, place| txn.about(place).is_some()),
        KeyCommand::Touch { keys } => count(txn, *keys, out, touch),
        KeyCommand::Copy { from, to, replace } => copy(txn, *from, *to, *replace, out),
        KeyCommand::Expire { key, time, absolute, condition } => {
            expire(txn, *key, *time, *absolute, *condition, out)
        }
        KeyCommand::Ttl { key, unit } => ttl(txn, *key, *unit, out),
        KeyCommand::Persist { key } => {
            let place = txn.place(*key);
            let has_deadline = txn.peek(place).and_then(EntryRef::deadline).is_some();
            if has_deadline {
                txn.change(place, Mutation::Deadline(None));
            }
            out.integer(i64::from(has_deadline));
            Ok(())
        }
        KeyCommand::Type { key } => {
            let place = txn.place(*key);
            out.status(txn.about(place).map_or("none", |(kind, _)| kind.redis_type()));
            Ok(())
        }
        KeyCommand::Kind { key } => {
            let place = txn.place(*key);
            match txn.about(place) {
                Some((kind, _)) => out.status(kind.name()),
                None => out.missing(),
            }
            Ok(())
        }
        KeyCommand::Rename { from, to, only_if_absent } => rename(txn, *from, *to, *only_if_absent, out),
        KeyCommand::Memory { key } => {
            let place = txn.place(*key);
            match txn.peek(place) {
                Some(entry) => out.count(entry.memory_bytes()),
                None => out.missing(),
            }
            Ok(())
        }
        KeyCommand::Scan { .. }
        | KeyCommand::Keys { .. }
        | KeyCommand::Random
        | KeyCommand::Size
        | KeyCommand::Sync { .. }
        | KeyCommand::Flush { .. }
        | KeyCommand::Clear { .. } => Err(Error::new(
            ErrorKind::Unavailable,
            "a walk over the whole namespace can't be part of an atomic step",
        )),
    }
}

/// Answers for how many of these keys it is so.
fn count(
    txn: &mut Txn<'_>,
    keys: Keys<'_>,
    out: &mut ReplyBuf,
    is_so: impl Fn(&mut Txn<'_>, Place<'_>) -> bool,
) -> Result<()> {
    let mut counted = 0;
    for key in keys.iter() {
        let place = txn.place(key);
        counted += usize::from(is_so(txn, place));
    }
    out.count(counted);
    Ok(())
}

/// Uses a key whose value is in memory; what is on disk stays there. Whether there is such a key.
fn touch(txn: &mut Txn<'_>, place: Place<'_>) -> bool {
    if txn.peek(place).is_some() {
        return txn.find(place).is_some();
    }
    txn.about(place).is_some()
}

fn expire(
    txn: &mut Txn<'_>,
    key: Key<'_>,
    time: i64,
    absolute: bool,
    condition: ExpireCondition,
    out: &mut ReplyBuf,
) -> Result<()> {
    let place = txn.place(key);
    let Some(current) = txn.peek(place).map(EntryRef::deadline) else {
        out.integer(0);
        return Ok(());
    };
    let now = txn.now();
    let deadline = if absolute { u64::try_from(time).unwrap_or(0) } else { now.saturating_add_signed(time) };
    if deadline > data_bridge_kv_model::limits::DEADLINE_MS {
        return Err(Error::invalid("invalid expire time in 'expire' command"));
    }
    let applies = match condition {
        ExpireCondition::Always => true,
        ExpireCondition::IfNone => current.is_none(),
        ExpireCondition::IfSome => current.is_some(),
        ExpireCondition::IfLater => current.is_some_and(|current| deadline > current),
        ExpireCondition::IfEarlier => current.is_none_or(|current| deadline < current),
        ExpireCondition::IfSomeAndEarlier => current.is_some_and(|current| deadline < current),
    };
    if applies && deadline <= now {
        txn.delete(place);
    } else if applies {
        txn.change(place, Mutation::Deadline(Some(deadline)));
    }
    out.integer(i64::from(applies));
    Ok(())
}

fn ttl(txn: &mut Txn<'_>, key: Key<'_>, unit: TimeUnit, out: &mut ReplyBuf) -> Result<()> {
    let place = txn.place(key);
    let Some((_, deadline)) = txn.about(place) else {
        out.integer(-2);
        return Ok(());
    };
    let Some(deadline) = deadline else {
        out.integer(-1);
        return Ok(());
    };
    let left = deadline.saturating_sub(txn.now());
    let answer = match unit {
        TimeUnit::Milliseconds => left,
        TimeUnit::Seconds => left.saturating_add(500) / 1000,
        TimeUnit::UnixMilliseconds => deadline,
        TimeUnit::UnixSeconds => deadline.saturating_add(500) / 1000,
    };
    out.integer(i64::try_from(answer).unwrap_or(i64::MAX));
    Ok(())
}

fn rename(
    txn: &mut Txn<'_>,
    from: Key<'_>,
    to: Key<'_>,
    only_if_absent: bool,
    out: &mut ReplyBuf,
) -> Result<()> {
    let (from, to) = (txn.place(from), txn.place(to));
    if txn.peek(from).is_none() {
        return Err(Error::new(ErrorKind::NotFound, "no such key"));
    }
    let taken = only_if_absent && txn.peek(to).is_some();
    if taken {
        out.integer(0);
        return Ok(());
    }
    if from.key != to.key {
        let Some(entry) = txn.peek(from).map(EntryRef::to_owned) else { return Ok(()) };
        put_as(txn, to, &entry)?;
        txn.delete(from);
    }
    if only_if_absent {
        out.integer(1)
    } else {
        out.ok()
    }
    Ok(())
}

/// Writes an entry under another key, with its deadline.
fn put_as(txn: &mut Txn<'_>, to: Place<'_>, entry: &OwnedEntry) -> Result<()> {
    let entry = entry.entry();
    txn.put(to, NewValue::from(entry.value()), entry.deadline())?;
    Ok(())
}

fn copy(txn: &mut Txn<'_>, from: Key<'_>, to: Key<'_>, replace: bool, out: &mut ReplyBuf) -> Result<()> {
    if from == to {
        return Err(Error::invalid("source and destination objects are the same"));
    }
    let (from, to) = (txn.place(from), txn.place(to));
    let entry = txn.find(from).map(EntryRef::to_owned);
    let Some(entry) = entry.filter(|_| replace || txn.peek(to).is_none()) else {
        out.integer(0);
        return Ok(());
    };
    put_as(txn, to, &entry)?;
    out.integer(1);
    Ok(())
}
