//! Executors of the list commands.

use std::sync::Arc;

use data_bridge_kv_model::command::{End, Expiry, Keys, ListCommand, Search};
use data_bridge_kv_model::{Arg, Error, ErrorKind, Key, Kind, ReplyBuf, Result, Shape, ValueRef};

use super::scalar::{deadline, range};
use super::{check_growth, first_filled, is_expected, plain};
use crate::clock::Clock;
use crate::collections::{Collection, List, Packed};
use crate::hash::KeyHash;
use crate::mutation::Mutation;
use crate::shard::txn::Place;
use crate::shard::{Shard, Space, Txn};
use crate::table::NewValue;
use crate::wal::Lsn;

/// Adds one element at an end of a list that is there, or takes one of several. Answers `None`, having done nothing, where
/// it takes more.
#[inline]
pub fn run_short(
    shard: &mut Shard,
    space: &Space,
    clock: &dyn Clock,
    (command, hash): (&ListCommand<'_>, KeyHash),
    out: &mut ReplyBuf,
) -> Option<Result<Lsn>> {
    let now = || clock.unix_ms();
    match *command {
        ListCommand::Push { key, end, values: &[value], .. } => {
            let element = plain(value)?;
            let at = if end == End::Head { 0 } else { usize::MAX };
            let choose = |collection: &Collection| {
                let Collection::List(list) = collection else { return None };
                check_growth(list.encoded_len(), &[value]).ok()?;
                Some(Mutation::ListInsert(at, Packed::from(element)))
            };
            let (_, after) = shard.change_collection(space, hash, key.as_bytes(), now, choose)?;
            out.count(after);
        }
        ListCommand::Pop { key, end, count: None } => {
            let choose = |collection: &Collection| {
                let Collection::List(list) = collection else { return None };
                // With its last element a list goes.
                let last = list.len().checked_sub(1).filter(|last| *last > 0)?;
                let index = if end == End::Head { 0 } else { last };
                put_or_missing(list.get(index), out);
                Some(Mutation::ListRemove(index))
            };
            shard.change_collection(space, hash, key.as_bytes(), now, choose)?;
        }
        _ => return None,
    }
    Some(Ok(0))
}

/// Executes a list command.
pub fn run(txn: &mut Txn<'_>, command: &ListCommand<'_>, out: &mut ReplyBuf) -> Result<()> {
    match command {
        ListCommand::Push { key, end, values, only_existing } => {
            push(txn, *key, *end, values, *only_existing, out)
        }
        ListCommand::Pop { key, end, count } => pop(txn, *key, *end, *count, out),
        ListCommand::Index { key, index } => {
            let list = read(txn, *key)?;
            let element = list.and_then(|list| list.get(position(*index, list.len())?));
            put_or_missing(element, out);
            Ok(())
        }
        ListCommand::Range { key, start, end } => {
            let Some(list) = read(txn, *key)? else {
                out.container(Shape::Array, 0);
                return Ok(());
            };
            let range = range(*start, *end, list.len());
            out.container(Shape::Array, range.len());
            list.range(range.start, range.end).for_each(|element| out.value(element.value()));
            Ok(())
        }
        ListCommand::Length { key } => {
            out.count(read(txn, *key)?.map_or(0, List::len));
            Ok(())
        }
        ListCommand::Set { key, index, value } => set(txn, *key, *index, *value, out),
        ListCommand::Remove { key, count, value } => remove(txn, *key, *count, *value, out),
        ListCommand::Trim { key, start, end } => {
            let place = txn.place(*key);
            let length = read(txn, *key)?.map_or(0, List::len);
            let range = range(*start, *end, length);
            txn.change(place, Mutation::ListTrim(range.start, range.end));
            out.ok();
            Ok(())
        }
        ListCommand::Insert { key, before, pivot, value } => insert(txn, *key, *before, *pivot, *value, out),
        ListCommand::InsertAt { key, index, value } => insert_at(txn, *key, *index, *value, out),
        ListCommand::RemoveAt { key, index } => remove_at(txn, *key, *index, out),
        ListCommand::PopFirst { keys, end, count, .. } => pop_first(txn, *keys, *end, *count, out),
        ListCommand::Move { from, to, take, put, .. } => move_element(txn, *from, *to, *take, *put, out),
        ListCommand::Position { key, value, search } => find_all(read(txn, *key)?, *value, *search, out),
    }
}

fn read<'t>(txn: &'t mut Txn<'_>, key: Key<'_>) -> Result<Option<&'t List>> {
    let place = txn.place(key);
    match txn.collection(place, Kind::List)? {
        Some(Collection::List(list)) => Ok(Some(list)),
        Some(_) => Err(Error::wrong_type()),
        None => Ok(None),
    }
}

fn put_or_missing(element: Option<&Packed>, out: &mut ReplyBuf) {
    match element {
        Some(element) => out.value(element.value()),
        None => out.missing(),
    }
}

/// An index from the front; negative ones count from the end.
fn position(index: i64, length: usize) -> Option<usize> {
    let length = i64::try_from(length).ok()?;
    let index = if index < 0 { index.checked_add(length)? } else { index };
    usize::try_from(index).ok()
}

/// Makes an empty list where there is none. The caller puts an element in.
fn ensure(txn: &mut Txn<'_>, place: Place<'_>) -> Result<()> {
    let deadline = deadline(txn, Expiry::Default, None);
    txn.put(place, NewValue::Collection(Arc::new(Collection::List(List::default()))), deadline)?;
    Ok(())
}

fn push(
    txn: &mut Txn<'_>,
    key: Key<'_>,
    end: End,
    values: &[Arg<'_>],
    only_existing: bool,
    out: &mut ReplyBuf,
) -> Result<()> {
    let place = txn.place(key);
    let list = read(txn, key)?;
    let length = list.map(List::len);
    check_growth(list.map_or(0, List::encoded_len), values)?;
    if length.is_none() && only_existing {
        out.integer(0);
        return Ok(());
    }
    let mut scratch = Vec::new();
    for value in values.iter().filter(|value| matches!(value, Arg::Literal(..))) {
        // Only a literal can be refused, and must be before the first write.
        value.value(&mut scratch)?;
    }
    let at = if end == End::Head { 0 } else { usize::MAX };
    let Some(length) = length else {
        let mut list = List::default();
        for value in values {
            list.insert(at, Packed::from(value.value(&mut scratch)?));
        }
        out.count(list.len());
        let deadline = deadline(txn, Expiry::Default, None);
        return txn.put(place, NewValue::Collection(Arc::new(Collection::List(list))), deadline).map(drop);
    };
    for value in values {
        txn.change(place, Mutation::ListInsert(at, Packed::from(value.value(&mut scratch)?)));
    }
    out.count(length + values.len());
    Ok(())
}

fn pop(txn: &mut Txn<'_>, key: Key<'_>, end: End, count: Option<usize>, out: &mut ReplyBuf) -> Result<()> {
    let place = txn.place(key);
    // A list that was stored empty has no element to answer, as no list has.
    let Some(list) = read(txn, key)?.filter(|list| !list.is_empty() || count.is_some()) else {
        out.missing();
        return Ok(());
    };
    let length = list.len();
    let Some(count) = count else {
        let index = if end == End::Head { 0 } else { length - 1 };
        put_or_missing(list.get(index), out);
        txn.change(place, Mutation::ListRemove(index));
        return Ok(());
    };
    let taken = count.min(length);
    txn.check_effects(key, taken, 0)?;
    out.container(Shape::Array, taken);
    for left in (length - taken + 1..=length).rev() {
        let index = if end == End::Head { 0 } else { left - 1 };
        put_or_missing(read(txn, key)?.and_then(|list| list.get(index)), out);
        txn.change(place, Mutation::ListRemove(index));
    }
    Ok(())
}

fn pop_first(
    txn: &mut Txn<'_>,
    keys: Keys<'_>,
    end: End,
    count: Option<usize>,
    out: &mut ReplyBuf,
) -> Result<()> {
    let Some(key) = first_filled(txn, keys, Kind::List)? else {
        out.missing();
        return Ok(());
    };
    out.container(Shape::Array, 2);
    out.value(ValueRef::text(key.as_str()));
    pop(txn, key, end, count, out)
}

fn set(txn: &mut Txn<'_>, key: Key<'_>, index: i64, value: Arg<'_>, out: &mut ReplyBuf) -> Result<()> {
    let place = txn.place(key);
    let list = read(txn, key)?.ok_or_else(|| Error::new(ErrorKind::NotFound, "no such key"))?;
    let index = position(index, list.len()).filter(|index| *index < list.len());
    let index = index.ok_or_else(|| Error::out_of_range("index out of range"))?;
    check_growth(list.encoded_len(), &[value])?;
    let mut scratch = Vec::new();
    txn.change(place, Mutation::ListSet(index, Packed::from(value.value(&mut scratch)?)));
    out.ok();
    Ok(())
}

/// Whether an element is the one that a command names: exactly, Text and Bytes alike, untyped bytes as shown.
fn is_named(element: &Packed, named: Arg<'_>) -> Result<bool> {
    let mut scratch = Vec::new();
    let typed = match named {
        Arg::Untyped(_) => None,
        typed => typed.value(&mut scratch)?.content(),
    };
    match (element.value().content(), typed) {
        (Some(content), Some(named)) => Ok(content == named),
        _ => is_expected(element.value(), named),
    }
}

fn find(list: Option<&List>, named: Arg<'_>) -> Result<Option<usize>> {
    for (index, element) in list.into_iter().flat_map(List::iter).enumerate() {
        if is_named(element, named)? {
            return Ok(Some(index));
        }
    }
    Ok(None)
}

fn find_all(list: Option<&List>, named: Arg<'_>, search: Search, out: &mut ReplyBuf) -> Result<()> {
    let length = list.map_or(0, List::len);
    let wanted = search.count.unwrap_or(1);
    let mut passed_over = search.rank.unsigned_abs() - 1;
    let mut found = Vec::new();
    for step in 0..length.min(search.longest) {
        let index = if search.rank < 0 { length - 1 - step } else { step };
        let Some(element) = list.and_then(|list| list.get(index)) else { break };
        if is_named(element, named)? {
            match passed_over.checked_sub(1) {
                Some(rest) => passed_over = rest,
                None => found.push(index),
            }
            if found.len() == wanted {
                break;
            }
        }
    }
    match (search.count, found.first()) {
        (Some(_), _) => {
            out.container(Shape::Array, found.len());
            found.into_iter().for_each(|index| out.count(index));
        }
        (None, Some(index)) => out.count(*index),
        (None, None) => out.missing(),
    }
    Ok(())
}

fn remove(txn: &mut Txn<'_>, key: Key<'_>, count: i64, value: Arg<'_>, out: &mut ReplyBuf) -> Result<()> {
    let place = txn.place(key);
    let mut indexes = Vec::new();
    for (index, element) in read(txn, key)?.into_iter().flat_map(List::iter).enumerate() {
        if is_named(element, value)? {
            indexes.push(index);
        }
    }
    let limit = usize::try_from(count.unsigned_abs()).unwrap_or(usize::MAX);
    let limit = if limit == 0 { indexes.len() } else { limit.min(indexes.len()) };
    let chosen = if count < 0 { &indexes[indexes.len() - limit..] } else { &indexes[..limit] };
    txn.check_effects(key, chosen.len(), 0)?;
    for index in chosen.iter().rev() {
        txn.change(place, Mutation::ListRemove(*index));
    }
    out.count(chosen.len());
    Ok(())
}

fn insert(
    txn: &mut Txn<'_>,
    key: Key<'_>,
    before: bool,
    pivot: Arg<'_>,
    value: Arg<'_>,
    out: &mut ReplyBuf,
) -> Result<()> {
    let place = txn.place(key);
    let Some(list) = read(txn, key)? else {
        out.integer(0);
        return Ok(());
    };
    let length = list.len();
    check_growth(list.encoded_len(), &[value])?;
    let Some(index) = find(Some(list), pivot)? else {
        out.integer(-1);
        return Ok(());
    };
    let mut scratch = Vec::new();
    let element = Packed::from(value.value(&mut scratch)?);
    txn.change(place, Mutation::ListInsert(if before { index } else { index + 1 }, element));
    out.count(length + 1);
    Ok(())
}

fn insert_at(txn: &mut Txn<'_>, key: Key<'_>, index: i64, value: Arg<'_>, out: &mut ReplyBuf) -> Result<()> {
    let place = txn.place(key);
    let mut scratch = Vec::new();
    let element = Packed::from(value.value(&mut scratch)?);
    let list = read(txn, key)?;
    check_growth(list.map_or(0, List::encoded_len), &[value])?;
    let length = match list.map(List::len) {
        Some(length) => length,
        None => {
            ensure(txn, place)?;
            0
        }
    };
    let index = position(index, length).unwrap_or(0).min(length);
    txn.change(place, Mutation::ListInsert(index, element));
    out.count(length + 1);
    Ok(())
}

fn remove_at(txn: &mut Txn<'_>, key: Key<'_>, index: i64, out: &mut ReplyBuf) -> Result<()> {
    let place = txn.place(key);
    let list = read(txn, key)?.ok_or_else(|| Error::new(ErrorKind::NotFound, "no such key"))?;
    let found = position(index, list.len()).and_then(|index| Some((index, list.get(index)?)));
    let (index, element) = found.ok_or_else(|| Error::out_of_range("index out of range"))?;
    out.value(element.value());
    txn.change(place, Mutation::ListRemove(index));
    Ok(())
}

fn move_element(
    txn: &mut Txn<'_>,
    from: Key<'_>,
    to: Key<'_>,
    take: End,
    put: End,
    out: &mut ReplyBuf,
) -> Result<()> {
    let (source, target) = (txn.place(from), txn.place(to));
    let Some(list) = read(txn, from)? else {
        out.missing();
        return Ok(());
    };
    let index = if take == End::Head { 0 } else { list.len().saturating_sub(1) };
    let Some(element) = list.get(index).cloned() else {
        out.missing();
        return Ok(());
    };
    let list = read(txn, to)?;
    let target_is_there = list.is_some();
    check_growth(list.map_or(0, List::encoded_len), &[Arg::Value(element.value())])?;
    txn.check_record(element.as_bytes().len())?;
    out.value(ValueRef::from_parts(element.kind(), element.value().payload()));
    let at = if put == End::Head { 0 } else { usize::MAX };
    if from == to {
        // Inserted first, so that a list of one element is not deleted in between.
        txn.change(target, Mutation::ListInsert(at, element));
        txn.change(source, Mutation::ListRemove(if put == End::Head { index + 1 } else { index }));
        return Ok(());
    }
    if !target_is_there {
        ensure(txn, target)?;
    }
    txn.change(target, Mutation::ListInsert(at, element));
    txn.change(source, Mutation::ListRemove(index));
    Ok(())
}
