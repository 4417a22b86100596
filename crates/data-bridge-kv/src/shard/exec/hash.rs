//! Executors of the hash commands.

use std::sync::Arc;

use data_bridge_kv_model::command::{Expiry, HashCommand, NumberStyle, ScanOptions};
use data_bridge_kv_model::{Arg, Error, Glob, Key, Kind, ReplyBuf, Result, Shape, ValueRef, show};

use super::number::{add as add_number, answer};
use super::scalar::deadline;
use super::set::{matches, picks, put_cursor};
use super::{check_growth, member, named_by_bytes, plain, plain_member};
use crate::clock::Clock;
use crate::collections::{Collection, Fields, Packed};
use crate::hash::KeyHash;
use crate::mutation::Mutation;
use crate::shard::txn::Place;
use crate::shard::{Shard, Space, Txn};
use crate::table::NewValue;
use crate::wal::Lsn;

/// Sets one field of a hash that is there. Answers `None`, having done nothing, where it takes more.
#[inline]
pub fn run_short(
    shard: &mut Shard,
    space: &Space,
    clock: &dyn Clock,
    (command, hash): (&HashCommand<'_>, KeyHash),
    out: &mut ReplyBuf,
) -> Option<Result<Lsn>> {
    let HashCommand::Set { key, pairs: &[field, value], status } = *command else { return None };
    let (name, is_it) = plain_member(field)?;
    let value = plain(value)?;
    let choose = |collection: &Collection| {
        let Collection::Hash(fields) = collection else { return None };
        check_growth(fields.encoded_len(), &[field, Arg::Value(value)]).ok()?;
        (is_it || fields.contains(name)).then_some(Mutation::FieldSet(name, value))
    };
    let (before, after) = shard.change_collection(space, hash, key.as_bytes(), || clock.unix_ms(), choose)?;
    if status {
        out.ok()
    } else {
        out.count(after - before)
    }
    Some(Ok(0))
}

/// Executes a hash command.
pub fn run(txn: &mut Txn<'_>, command: &HashCommand<'_>, out: &mut ReplyBuf) -> Result<()> {
    match command {
        HashCommand::Set { key, pairs, status } => set(txn, *key, pairs, *status, out),
        HashCommand::SetIfAbsent { key, field, value } => {
            let absent = find(read(txn, *key)?, *field)?.is_none();
            if absent {
                write(txn, *key, *field, *value)?;
            }
            out.integer(i64::from(absent));
            Ok(())
        }
        HashCommand::SetDefault { key, field, value } => {
            if find(read(txn, *key)?, *field)?.is_none() {
                write(txn, *key, *field, *value)?;
            }
            put_field(read(txn, *key)?, *field, out)
        }
        HashCommand::Get { key, field } => {
            let fields = read(txn, *key)?;
            put_field(fields, *field, out)
        }
        HashCommand::MultiGet { key, fields } => get_many(read(txn, *key)?, fields, out),
        HashCommand::Delete { key, fields } => delete(txn, *key, fields, out),
        HashCommand::Pop { key, field } => {
            put_field(read(txn, *key)?, *field, out)?;
            remove_one(txn, *key, *field)?;
            Ok(())
        }
        HashCommand::All { key } => list(read(txn, *key)?, Shape::Map, out),
        HashCommand::Fields { key } => list(read(txn, *key)?, Shape::Members, out),
        HashCommand::Values { key } => list(read(txn, *key)?, Shape::Array, out),
        HashCommand::Length { key } => {
            out.count(read(txn, *key)?.map_or(0, Fields::len));
            Ok(())
        }
        HashCommand::Contains { key, field } => {
            out.integer(i64::from(find(read(txn, *key)?, *field)?.is_some()));
            Ok(())
        }
        HashCommand::Add { key, field, by, style } => add(txn, *key, *field, *by, *style, out),
        HashCommand::ValueLength { key, field } => {
            let mut text = Vec::new();
            if let Some((_, value)) = find(read(txn, *key)?, *field)? {
                show::show(value.value(), &mut text);
            }
            out.count(text.len());
            Ok(())
        }
        HashCommand::Random { key, count, values } => random(txn, *key, *count, *values, out),
        HashCommand::Scan { key, cursor, options } => scan(read(txn, *key)?, *cursor, options, out),
    }
}

fn get_many(fields: Option<&Fields>, named: &[Arg<'_>], out: &mut ReplyBuf) -> Result<()> {
    let values: Vec<_> = named.iter().map(|field| find(fields, *field)).collect::<Result<_>>()?;
    out.container(Shape::Array, values.len());
    values.into_iter().for_each(|value| put_or_missing(value.map(|(_, value)| value), out));
    Ok(())
}

/// Answers a whole hash: as a map its fields and values, as an array its values, as members its fields in an array.
fn list(fields: Option<&Fields>, part: Shape, out: &mut ReplyBuf) -> Result<()> {
    let shape = if part == Shape::Map { Shape::Map } else { Shape::Array };
    out.container(shape, fields.map_or(0, Fields::len));
    for (field, value) in fields.into_iter().flat_map(Fields::iter) {
        if part != Shape::Array {
            out.value(field.value());
        }
        if part != Shape::Members {
            out.value(value.value());
        }
    }
    Ok(())
}

fn scan(fields: Option<&Fields>, cursor: u64, options: &ScanOptions<'_>, out: &mut ReplyBuf) -> Result<()> {
    let glob = options.pattern.map(Glob::new).transpose()?;
    let mut found = Vec::new();
    let next = fields.map_or(0, |fields| {
        fields.scan(cursor, options.count, |field, value| {
            if matches(field, glob.as_ref(), options) {
                found.push((field.clone(), value.clone()));
            }
        })
    });
    put_cursor(next, out);
    out.container(if options.values { Shape::Map } else { Shape::Array }, found.len());
    for (field, value) in &found {
        out.value(field.value());
        if options.values {
            out.value(value.value());
        }
    }
    Ok(())
}

pub(super) fn read<'t>(txn: &'t mut Txn<'_>, key: Key<'_>) -> Result<Option<&'t Fields>> {
    let place = txn.place(key);
    match txn.collection(place, Kind::Hash)? {
        Some(Collection::Hash(fields)) => Ok(Some(fields)),
        Some(_) => Err(Error::wrong_type()),
        None => Ok(None),
    }
}

/// The stored field that an argument names, and its value.
pub(super) fn find<'t>(
    fields: Option<&'t Fields>,
    named: Arg<'_>,
) -> Result<Option<(&'t Packed, &'t Packed)>> {
    let mut scratch = Vec::new();
    let field = member(named, &mut scratch)?;
    let Some(fields) = fields else { return Ok(None) };
    if let Some(pair) = fields.get_pair(field) {
        return Ok(Some(pair));
    }
    Ok(shown_as(fields, named).and_then(|found| fields.get_pair(found.value())))
}

/// The typed field that is shown as an untyped argument, where no field has its bytes.
fn shown_as(fields: &Fields, named: Arg<'_>) -> Option<Packed> {
    named_by_bytes(named, |value| fields.get_pair(value).map(|(field, _)| field.clone()))
}

fn put_field(fields: Option<&Fields>, field: Arg<'_>, out: &mut ReplyBuf) -> Result<()> {
    put_or_missing(find(fields, field)?.map(|(_, value)| value), out);
    Ok(())
}

fn put_or_missing(value: Option<&Packed>, out: &mut ReplyBuf) {
    match value {
        Some(value) => out.value(value.value()),
        None => out.missing(),
    }
}

/// Sets one field; answers whether it is new. The field keeps the form it is stored in.
fn write(txn: &mut Txn<'_>, key: Key<'_>, named: Arg<'_>, value: Arg<'_>) -> Result<bool> {
    let mut scratch = Vec::new();
    write_value(txn, key, named, value.value(&mut scratch)?)
}

fn write_value(txn: &mut Txn<'_>, key: Key<'_>, named: Arg<'_>, value: ValueRef<'_>) -> Result<bool> {
    let place = txn.place(key);
    let mut scratch = Vec::new();
    let fields = read(txn, key)?;
    let given = member(named, &mut scratch)?;
    check_growth(fields.map_or(0, Fields::encoded_len), &[named, Arg::Value(value)])?;
    let exists = fields.is_some();
    let (is_there, shown) = match fields {
        Some(fields) if fields.contains(given) => (true, None),
        Some(fields) => (false, shown_as(fields, named)),
        None => (false, None),
    };
    let field = shown.as_ref().map_or(given, Packed::value);
    txn.check_field(place, field, Some(value))?;
    if !exists {
        ensure(txn, place)?;
    }
    txn.change(place, Mutation::FieldSet(field, value));
    Ok(!is_there && shown.is_none())
}

/// Makes an empty hash where there is none. The caller puts a field in.
fn ensure(txn: &mut Txn<'_>, place: Place<'_>) -> Result<()> {
    let deadline = deadline(txn, Expiry::Default, None);
    txn.change(
        place,
        Mutation::Put {
            value: NewValue::Collection(Arc::new(Collection::Hash(Fields::default()))),
            deadline,
        },
    );
    Ok(())
}

fn set(txn: &mut Txn<'_>, key: Key<'_>, pairs: &[Arg<'_>], status: bool, out: &mut ReplyBuf) -> Result<()> {
    if pairs.len() > 2 {
        // Whatever is refused is refused before the first write.
        check_pairs(txn, key, pairs)?;
    }
    let mut added = 0;
    for pair in pairs.chunks_exact(2) {
        added += usize::from(write(txn, key, pair[0], pair[1])?);
    }
    if status {
        out.ok()
    } else {
        out.count(added)
    }
    Ok(())
}

/// Refuses pairs of which one could not be set.
fn check_pairs(txn: &mut Txn<'_>, key: Key<'_>, pairs: &[Arg<'_>]) -> Result<()> {
    let place = txn.place(key);
    let (mut field_scratch, mut scratch) = (Vec::new(), Vec::new());
    check_growth(read(txn, key)?.map_or(0, Fields::encoded_len), pairs)?;
    if txn.space().settings().graph.is_some() {
        // A state that is given twice may be refused at the second one.
        txn.keep_undo();
    }
    for pair in pairs.chunks_exact(2) {
        let value = pair[1].value(&mut scratch)?;
        txn.check_field(place, member(pair[0], &mut field_scratch)?, Some(value))?;
    }
    Ok(())
}

fn remove_one(txn: &mut Txn<'_>, key: Key<'_>, named: Arg<'_>) -> Result<bool> {
    let place = txn.place(key);
    let Some(field) = find(read(txn, key)?, named)?.map(|(field, _)| field.clone()) else { return Ok(false) };
    txn.check_field(place, field.value(), None)?;
    Ok(txn.change(place, Mutation::FieldRemove(field.value())).is_some())
}

fn delete(txn: &mut Txn<'_>, key: Key<'_>, fields: &[Arg<'_>], out: &mut ReplyBuf) -> Result<()> {
    let place = txn.place(key);
    let mut scratch = Vec::new();
    for named in fields {
        txn.check_field(place, member(*named, &mut scratch)?, None)?;
    }
    let mut removed = 0;
    for named in fields {
        removed += usize::from(remove_one(txn, key, *named)?);
    }
    out.count(removed);
    Ok(())
}

fn add(
    txn: &mut Txn<'_>,
    key: Key<'_>,
    field: Arg<'_>,
    by: Arg<'_>,
    style: NumberStyle,
    out: &mut ReplyBuf,
) -> Result<()> {
    let current = find(read(txn, key)?, field)?.map(|(_, value)| value.value());
    let sum = add_number(current, by, false, false, style).map_err(|error| match style {
        NumberStyle::RedisInteger if error == data_bridge_kv_model::Error::not_an_integer() => {
            data_bridge_kv_model::Error::out_of_range("hash value is not an integer")
        }
        NumberStyle::RedisFloat if error == data_bridge_kv_model::Error::not_a_float() => {
            data_bridge_kv_model::Error::invalid("hash value is not a float")
        }
        NumberStyle::RedisInteger | NumberStyle::RedisFloat | NumberStyle::Typed => error,
    })?;
    write_value(txn, key, field, sum.value())?;
    answer(&sum, style, out);
    Ok(())
}

fn random(
    txn: &mut Txn<'_>,
    key: Key<'_>,
    count: Option<i64>,
    values: bool,
    out: &mut ReplyBuf,
) -> Result<()> {
    let mut random = txn.random();
    let fields = read(txn, key)?;
    let pairs: Vec<(&Packed, &Packed)> = fields.into_iter().flat_map(Fields::iter).collect();
    let Some(count) = count else {
        put_or_missing(pairs.get(random.below(pairs.len())).map(|(field, _)| *field), out);
        return Ok(());
    };
    let picks = picks(&mut random, pairs.len(), count);
    out.container(if values { Shape::Scored } else { Shape::Array }, picks.len());
    for (field, value) in picks.into_iter().filter_map(|index| pairs.get(index)) {
        out.value(field.value());
        if values {
            out.value(value.value());
        }
    }
    Ok(())
}
