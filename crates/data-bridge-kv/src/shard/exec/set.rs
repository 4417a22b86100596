//! Executors of the set commands.

use std::sync::Arc;

use data_bridge_kv_model::command::{Expiry, ScanOptions, SetCommand, SetOperation};
use data_bridge_kv_model::{Arg, Error, Glob, Key, Keys, Kind, ReplyBuf, Result, Shape, ValueRef, show};

use super::scalar::deadline;
use super::{check_collection_bytes, check_growth, member, named_by_bytes, plain_member};
use crate::clock::Clock;
use crate::collections::{Collection, Packed, Set};
use crate::hash::KeyHash;
use crate::mutation::Mutation;
use crate::shard::txn::Place;
use crate::shard::{Shard, Space, Txn};
use crate::table::{NewValue, Stored};
use crate::wal::Lsn;

/// Sets whose members are looked up in each other to find their union; more are put together.
const FEW_SETS: usize = 8;
/// From so many bytes on, what members take is made room for at once: what doubles as it grows takes up to twice as much.
pub(super) const MANY_BYTES: usize = 64 << 10;

/// Adds one member to a set that is there. Answers `None`, having done nothing, where it takes more.
#[inline]
pub fn run_short(
    shard: &mut Shard,
    space: &Space,
    clock: &dyn Clock,
    (command, hash): (&SetCommand<'_>, KeyHash),
    out: &mut ReplyBuf,
) -> Option<Result<Lsn>> {
    let SetCommand::Add { key, members: &[named] } = *command else { return None };
    let (member, is_it) = plain_member(named)?;
    let choose = |collection: &Collection| {
        let Collection::Set(set) = collection else { return None };
        check_growth(set.encoded_len(), &[named]).ok()?;
        (is_it || set.contains(member)).then_some(Mutation::SetInsert(member))
    };
    let (before, after) = shard.change_collection(space, hash, key.as_bytes(), || clock.unix_ms(), choose)?;
    out.count(after - before);
    Some(Ok(0))
}

/// Executes a set command.
pub fn run(txn: &mut Txn<'_>, command: &SetCommand<'_>, out: &mut ReplyBuf) -> Result<()> {
    match command {
        SetCommand::Add { key, members } => add(txn, *key, members, out),
        SetCommand::Remove { key, members } => remove(txn, *key, members, out),
        SetCommand::Contains { key, member } => {
            let found = contains(read(txn, *key)?, *member)?;
            out.integer(i64::from(found));
            Ok(())
        }
        SetCommand::ContainsMany { key, members } => {
            let set = read(txn, *key)?;
            let mark = out.len();
            out.container(Shape::Array, members.len());
            for member in *members {
                match contains(set, *member) {
                    Ok(found) => out.integer(i64::from(found)),
                    Err(error) => {
                        out.truncate(mark);
                        return Err(error);
                    }
                }
            }
            Ok(())
        }
        SetCommand::Members { key } => {
            let set = read(txn, *key)?;
            out.container(Shape::Members, set.map_or(0, Set::len));
            set.into_iter().flat_map(Set::iter).for_each(|member| out.value(member.value()));
            Ok(())
        }
        SetCommand::Length { key } => {
            out.count(read(txn, *key)?.map_or(0, Set::len));
            Ok(())
        }
        SetCommand::Pop { key, count } => pop(txn, *key, *count, out),
        SetCommand::Random { key, count } => random(txn, *key, *count, out),
        SetCommand::Move { from, to, member } => move_member(txn, *from, *to, *member, out),
        SetCommand::Combine { operation, store, keys } => combine(txn, *operation, *store, *keys, out),
        SetCommand::CountCommon { keys, limit } => count_common(txn, *keys, *limit, out),
        SetCommand::Scan { key, cursor, options } => {
            let set = read(txn, *key)?;
            let glob = options.pattern.map(Glob::new).transpose()?;
            let mut found = Vec::new();
            let next = set.map_or(0, |set| {
                set.scan(*cursor, options.count, |member| {
                    if matches(member, glob.as_ref(), options) {
                        found.push(member.clone());
                    }
                })
            });
            put_cursor(next, out);
            out.container(Shape::Array, found.len());
            found.iter().for_each(|member| out.value(member.value()));
            Ok(())
        }
    }
}

/// Starts the reply of a scan: Array[cursor as text, …].
pub(super) fn put_cursor(next: u64, out: &mut ReplyBuf) {
    out.container(Shape::Array, 2);
    out.value(ValueRef::text(&next.to_string()));
}

/// Whether a scan shows a member: its shown text matches the pattern.
pub(super) fn matches(member: &Packed, glob: Option<&Glob<'_>>, options: &ScanOptions<'_>) -> bool {
    if glob.is_none() && options.prefix.is_none() {
        return true;
    }
    let mut text = Vec::new();
    show::show(member.value(), &mut text)
        && glob.is_none_or(|glob| glob.matches(&text))
        && options.prefix.is_none_or(|prefix| text.starts_with(prefix))
}

fn read<'t>(txn: &'t mut Txn<'_>, key: Key<'_>) -> Result<Option<&'t Set>> {
    let place = txn.place(key);
    match txn.collection(place, Kind::Set)? {
        Some(Collection::Set(set)) => Ok(Some(set)),
        Some(_) => Err(Error::wrong_type()),
        None => Ok(None),
    }
}

fn contains(set: Option<&Set>, named: Arg<'_>) -> Result<bool> {
    let mut scratch = Vec::new();
    let member = member(named, &mut scratch)?;
    let Some(set) = set else { return Ok(false) };
    Ok(set.contains(member) || named_by_bytes(named, |value| set.get(value).cloned()).is_some())
}

fn add(txn: &mut Txn<'_>, key: Key<'_>, members: &[Arg<'_>], out: &mut ReplyBuf) -> Result<()> {
    let place = txn.place(key);
    let mut scratch = Vec::new();
    if members.len() > 1 {
        // Whatever is refused is refused before the first write.
        check_growth(read(txn, key)?.map_or(0, Set::encoded_len), members)?;
        for named in members {
            member(*named, &mut scratch)?;
        }
    }
    let mut added = 0;
    for named in members {
        let set = read(txn, key)?;
        let exists = set.is_some();
        check_growth(set.map_or(0, Set::encoded_len), [named])?;
        if contains(set, *named)? {
            continue;
        }
        if !exists {
            ensure(txn, place)?;
        }
        added += usize::from(txn.change(place, Mutation::SetInsert(member(*named, &mut scratch)?)).is_some());
    }
    out.count(added);
    Ok(())
}

/// Makes an empty set where there is none. The caller puts a member in.
fn ensure(txn: &mut Txn<'_>, place: Place<'_>) -> Result<()> {
    let deadline = deadline(txn, Expiry::Default, None);
    txn.put(place, NewValue::Collection(Arc::new(Collection::Set(Set::default()))), deadline)?;
    Ok(())
}

/// Removes the member that an argument names.
fn remove_one(txn: &mut Txn<'_>, place: Place<'_>, key: Key<'_>, named: Arg<'_>) -> Result<bool> {
    let mut scratch = Vec::new();
    let member = member(named, &mut scratch)?;
    if txn.change(place, Mutation::SetRemove(member)).is_some() {
        return Ok(true);
    }
    let Some(set) = read(txn, key)? else { return Ok(false) };
    let Some(found) = named_by_bytes(named, |value| set.get(value).cloned()) else { return Ok(false) };
    Ok(txn.change(place, Mutation::SetRemove(found.value())).is_some())
}

fn remove(txn: &mut Txn<'_>, key: Key<'_>, members: &[Arg<'_>], out: &mut ReplyBuf) -> Result<()> {
    let place = txn.place(key);
    read(txn, key)?;
    let mut scratch = Vec::new();
    for named in members {
        member(*named, &mut scratch)?;
    }
    let mut removed = 0;
    for named in members {
        removed += usize::from(remove_one(txn, place, key, *named)?);
    }
    out.count(removed);
    Ok(())
}

fn pop(txn: &mut Txn<'_>, key: Key<'_>, count: Option<usize>, out: &mut ReplyBuf) -> Result<()> {
    let place = txn.place(key);
    let found = read(txn, key)?.map(|set| (set.len(), set.encoded_len()));
    // A set that was stored empty has no member to answer, as no set has.
    let Some((length, bytes)) = found.filter(|(length, _)| *length > 0) else {
        match count {
            Some(_) => out.container(Shape::Members, 0),
            None => out.missing(),
        }
        return Ok(());
    };
    let taken = count.unwrap_or(1).min(length);
    txn.check_effects(key, taken, bytes)?;
    if count.is_some() {
        out.container(Shape::Members, taken);
    }
    for _ in 0..taken {
        let mut random = txn.random();
        let Some(member) = read(txn, key)?.and_then(|set| set.random(|end| random.below(end))).cloned()
        else {
            break;
        };
        out.value(member.value());
        txn.change(place, Mutation::SetRemove(member.value()));
    }
    Ok(())
}

fn random(txn: &mut Txn<'_>, key: Key<'_>, count: Option<i64>, out: &mut ReplyBuf) -> Result<()> {
    let mut random = txn.random();
    let set = read(txn, key)?;
    let members: Vec<&Packed> = set.into_iter().flat_map(Set::iter).collect();
    let Some(count) = count else {
        match members.get(random.below(members.len())) {
            Some(member) => out.value(member.value()),
            None => out.missing(),
        }
        return Ok(());
    };
    let picks = picks(&mut random, members.len(), count);
    out.container(Shape::Array, picks.len());
    picks.into_iter().filter_map(|index| members.get(index)).for_each(|member| out.value(member.value()));
    Ok(())
}

/// Indexes below `length`: `count` distinct ones, or with repeats if negative.
pub(super) fn picks(random: &mut crate::random::Random, length: usize, count: i64) -> Vec<usize> {
    let wanted = usize::try_from(count.unsigned_abs()).unwrap_or(usize::MAX);
    if length == 0 {
        return Vec::new();
    }
    if count < 0 {
        return (0..wanted).map(|_| random.below(length)).collect();
    }
    let mut indexes: Vec<usize> = (0..length).collect();
    let wanted = wanted.min(length);
    for index in 0..wanted {
        indexes.swap(index, index + random.below(length - index));
    }
    indexes.truncate(wanted);
    indexes
}

fn move_member(
    txn: &mut Txn<'_>,
    from: Key<'_>,
    to: Key<'_>,
    named: Arg<'_>,
    out: &mut ReplyBuf,
) -> Result<()> {
    let (source, target) = (txn.place(from), txn.place(to));
    if read(txn, from)?.is_none() {
        out.integer(0);
        return Ok(());
    }
    let set = read(txn, to)?;
    let target_is_there = set.is_some();
    check_growth(set.map_or(0, Set::encoded_len), &[named])?;
    let mut scratch = Vec::new();
    let wanted = member(named, &mut scratch)?;
    let found = read(txn, from)?.and_then(|set| {
        let named = named_by_bytes(named, |value| set.get(value).cloned());
        set.get(wanted).cloned().or(named)
    });
    let Some(found) = found else {
        out.integer(0);
        return Ok(());
    };
    if from != to {
        txn.check_record(2 * found.as_bytes().len())?;
        if !target_is_there {
            ensure(txn, target)?;
        }
        txn.change(target, Mutation::SetInsert(found.value()));
        txn.change(source, Mutation::SetRemove(found.value()));
    }
    out.integer(1);
    Ok(())
}

fn combine(
    txn: &mut Txn<'_>,
    operation: SetOperation,
    store: Option<Key<'_>>,
    keys: Keys<'_>,
    out: &mut ReplyBuf,
) -> Result<()> {
    let sets = keys.iter().map(|key| shared(txn, key, Kind::Set)).collect::<Result<Vec<_>>>()?;
    if sets.is_empty() {
        return Err(Error::invalid("no sets were named"));
    }
    let sets: Vec<Option<&Set>> = sets.iter().map(|set| set.as_deref().and_then(set_of)).collect();
    let Some(store) = store else {
        if operation == SetOperation::Union && sets.len() > FEW_SETS {
            let all = union(&sets);
            put_members(&all.iter().collect::<Vec<_>>(), out);
        } else {
            put_members(&chosen(operation, &sets), out);
        }
        return Ok(());
    };
    let mut result = Set::default();
    if operation == SetOperation::Union {
        result = union(&sets);
    } else {
        chosen(operation, &sets).into_iter().for_each(|member| {
            result.insert(member.value());
        });
    }
    check_collection_bytes(result.encoded_len())?;
    let place = txn.place(store);
    let length = result.len();
    if length == 0 {
        txn.delete(place);
    } else {
        let deadline = deadline(txn, Expiry::Default, None);
        txn.put(place, NewValue::Collection(Arc::new(Collection::Set(result))), deadline)?;
    }
    out.count(length);
    Ok(())
}

fn count_common(txn: &mut Txn<'_>, keys: Keys<'_>, limit: usize, out: &mut ReplyBuf) -> Result<()> {
    let sets = keys.iter().map(|key| shared(txn, key, Kind::Set)).collect::<Result<Vec<_>>>()?;
    let mut sets: Vec<Option<&Set>> = sets.iter().map(|set| set.as_deref().and_then(set_of)).collect();
    sets.sort_by_key(|set| set.map_or(0, Set::len));
    let (smallest, others) = sets.split_first().map_or((None, &[][..]), |(first, others)| (*first, others));
    let is_common =
        |member: &&Packed| others.iter().all(|set| set.is_some_and(|set| set.contains(member.value())));
    let most = if limit == 0 { usize::MAX } else { limit };
    out.count(smallest.into_iter().flat_map(Set::iter).filter(is_common).take(most).count());
    Ok(())
}

/// A collection as it is now; it stays so as long as it is held.
pub(super) fn shared(txn: &mut Txn<'_>, key: Key<'_>, kind: Kind) -> Result<Option<Arc<Collection>>> {
    let place = txn.place(key);
    txn.collection(place, kind)?;
    Ok(txn.peek(place).and_then(|entry| match entry.value() {
        Stored::Collection(collection) => Some(collection.share()),
        Stored::Inline { .. } | Stored::Blob { .. } | Stored::Whole { .. } => None,
    }))
}

fn set_of(collection: &Collection) -> Option<&Set> {
    match collection {
        Collection::Set(set) => Some(set),
        Collection::List(_) | Collection::Hash(_) | Collection::SortedSet(_) => None,
    }
}

fn union(sets: &[Option<&Set>]) -> Set {
    let mut all = Set::default();
    sets.iter().flatten().flat_map(|set| set.iter()).for_each(|member| {
        all.insert(member.value());
    });
    all
}

/// The members that a combination has, in place: a set of their own would take as much memory again.
fn chosen<'s>(operation: SetOperation, sets: &[Option<&'s Set>]) -> Vec<&'s Packed> {
    let is_in = |set: &Option<&Set>, member: &Packed| set.is_some_and(|set| set.contains(member.value()));
    let (first, others) = sets.split_first().map_or((None, &[][..]), |(first, others)| (*first, others));
    let of_first = first.into_iter().flat_map(Set::iter);
    match operation {
        SetOperation::Union => {
            let of_others = others.iter().enumerate().flat_map(|(at, set)| {
                let is_new = move |member: &&Packed| !sets[..=at].iter().any(|set| is_in(set, member));
                set.iter().flat_map(|set| set.iter()).filter(is_new)
            });
            of_first.chain(of_others).collect()
        }
        SetOperation::Intersection => {
            of_first.filter(|member| others.iter().all(|set| is_in(set, member))).collect()
        }
        SetOperation::Difference => {
            of_first.filter(|member| !others.iter().any(|set| is_in(set, member))).collect()
        }
    }
}

fn put_members(members: &[&Packed], out: &mut ReplyBuf) {
    let bytes: usize = members.iter().map(|member| member.as_bytes().len()).sum();
    if bytes >= MANY_BYTES {
        out.bytes_mut().reserve_exact(bytes + super::REPLY_HEAD);
    }
    out.container(Shape::Members, members.len());
    members.iter().for_each(|member| out.value(member.value()));
}
