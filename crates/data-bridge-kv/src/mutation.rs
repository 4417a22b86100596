//! The effects that commands have on entries, and the one function that carries them out: live, and later in
//! recovery, on replicas and in restore. An effect is absolute; applying it asks no clock.

pub mod bytes;
pub mod clear;
pub mod describe;

use data_bridge_kv_model::{Kind, ValueRef};

use crate::collections::{Collection, Inserted, Packed, Score};
use crate::hash::KeyHash;
use crate::table::{EntryMut, NewValue, Table};

/// One effect on one entry.
#[derive(Clone, Debug)]
pub enum Mutation<'a> {
    /// The entry has this value and deadline from now on.
    Put {
        /// The value.
        value: NewValue<'a>,
        /// Unix ms.
        deadline: Option<u64>,
    },
    /// The entry is gone.
    Delete,
    /// The entry has this deadline (unix ms) from now on.
    Deadline(Option<u64>),
    /// An element stands before this index of the list, or at its end.
    ListInsert(usize, Packed),
    /// This element of the list is replaced.
    ListSet(usize, Packed),
    /// This element leaves the list.
    ListRemove(usize),
    /// Only the elements from start to before end stay in the list.
    ListTrim(usize, usize),
    /// A member is in the set.
    SetInsert(ValueRef<'a>),
    /// A member leaves the set.
    SetRemove(ValueRef<'a>),
    /// A field of the hash has this value.
    FieldSet(ValueRef<'a>, ValueRef<'a>),
    /// A field leaves the hash.
    FieldRemove(ValueRef<'a>),
    /// A member of the sorted set has this score.
    ScoreSet(ValueRef<'a>, Score),
    /// A member leaves the sorted set.
    ScoreRemove(ValueRef<'a>),
}

/// How an entry was before an effect and is after it: what expiry and eviction follow.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Applied {
    /// The deadline before; the outer `None` = there was no entry.
    pub before: Option<Option<u64>>,
    /// The deadline after; the outer `None` = there is no entry.
    pub after: Option<Option<u64>>,
    /// Whether a collection was changed and has no element.
    pub leaves_nothing: bool,
}

impl Applied {
    /// Deadlines before and after, where no collection was changed.
    #[inline]
    pub fn new(before: Option<Option<u64>>, after: Option<Option<u64>>) -> Applied {
        Applied { before, after, leaves_nothing: false }
    }
}

impl Mutation<'_> {
    /// Whether it takes elements out of a collection.
    #[inline]
    pub fn shrinks(&self) -> bool {
        match self {
            Mutation::ListRemove(_)
            | Mutation::ListTrim(..)
            | Mutation::SetRemove(_)
            | Mutation::FieldRemove(_)
            | Mutation::ScoreRemove(_) => true,
            Mutation::Put { .. }
            | Mutation::Delete
            | Mutation::Deadline(_)
            | Mutation::ListInsert(..)
            | Mutation::ListSet(..)
            | Mutation::SetInsert(_)
            | Mutation::FieldSet(..)
            | Mutation::ScoreSet(..) => false,
        }
    }
}

/// Carries out one effect and gives the entry its version's sequence number. Answers `None` if nothing changed: an
/// effect on an entry that is not there, or of another kind.
#[inline]
pub fn apply(
    table: &mut Table,
    hash: KeyHash,
    key: &[u8],
    sequence: u64,
    mutation: Mutation<'_>,
) -> Option<Applied> {
    match mutation {
        Mutation::Put { value, deadline } => Some(put(table, (hash, key), sequence, value, deadline)),
        Mutation::Delete => {
            let before = table.remove(hash, key)?;
            Some(Applied::new(Some(before), None))
        }
        Mutation::Deadline(deadline) => {
            let mut entry = table.find_mut(hash, key)?;
            let before = entry.entry().deadline();
            entry.set_deadline(deadline);
            entry.set_sequence(sequence);
            Some(Applied::new(Some(before), Some(deadline)))
        }
        on_collection => {
            let mut entry = table.find_mut(hash, key)?;
            let leaves_nothing = apply_inside(&mut entry, sequence, on_collection)? == 0;
            let deadline = entry.entry().deadline();
            Some(Applied { before: Some(deadline), after: Some(deadline), leaves_nothing })
        }
    }
}

/// Carries out [`Mutation::Put`]: here for a write that is nothing else, since it is cheaper than to build the effect first.
#[inline]
pub fn put(
    table: &mut Table,
    (hash, key): (KeyHash, &[u8]),
    sequence: u64,
    value: NewValue<'_>,
    deadline: Option<u64>,
) -> Applied {
    let before = table.write(hash, key, value, sequence, deadline);
    Applied::new(before, Some(deadline))
}

/// Carries out the effect that `choose` names on the collection of a live entry, which is touched; answers how many elements
/// it had before and has after. `None`, with nothing done, where `choose` answers that, or there is no built collection.
#[inline]
pub fn change_live<'m>(
    table: &mut Table,
    (hash, key): (KeyHash, &[u8]),
    sequence: u64,
    now: impl FnOnce() -> u64,
    choose: impl FnOnce(&Collection) -> Option<Mutation<'m>>,
) -> Option<(usize, usize)> {
    let mut entry = find_live(table, hash, key, now)?;
    let collection = entry.entry().value().collection()?;
    let before = collection.len();
    let mutation = choose(collection)?;
    entry.touch();
    let after = apply_inside(&mut entry, sequence, mutation).unwrap_or(before);
    debug_assert!(after > 0, "a collection without elements is deleted");
    Some((before, after))
}

/// Replaces the Int of a live entry, which is touched, by what `sum` makes of it: a write of that number, carried out in its
/// place. `None`, with nothing done, where `sum` answers that, or there is no Int.
#[inline]
pub fn count_live(
    table: &mut Table,
    (hash, key): (KeyHash, &[u8]),
    sequence: u64,
    now: impl FnOnce() -> u64,
    sum: impl FnOnce(i64) -> Option<i64>,
) -> Option<i64> {
    let mut entry = find_live(table, hash, key, now)?;
    if entry.entry().kind() != Kind::Int {
        return None;
    }
    let payload: &mut [u8; 8] = entry.payload_mut()?.try_into().ok()?;
    let sum = sum(i64::from_le_bytes(*payload))?;
    *payload = sum.to_le_bytes();
    entry.set_sequence(sequence);
    entry.touch();
    Some(sum)
}

#[inline]
fn find_live<'t>(
    table: &'t mut Table,
    hash: KeyHash,
    key: &[u8],
    now: impl FnOnce() -> u64,
) -> Option<EntryMut<'t>> {
    let entry = table.find_mut(hash, key)?;
    let is_over = entry.entry().deadline().is_some_and(|deadline| deadline <= now());
    (!is_over).then_some(entry)
}

/// Carries out an effect on the collection of an entry that was found, and answers how many elements it has then. `None` as
/// for [`apply`].
#[inline]
fn apply_inside(entry: &mut EntryMut<'_>, sequence: u64, mutation: Mutation<'_>) -> Option<usize> {
    let mut collection = entry.collection_mut()?;
    if !change_collection(&mut collection, mutation) {
        return None;
    }
    let left = collection.len();
    drop(collection);
    entry.set_sequence(sequence);
    Some(left)
}

fn change_collection(collection: &mut Collection, mutation: Mutation<'_>) -> bool {
    match (collection, mutation) {
        (Collection::List(list), Mutation::ListInsert(index, element)) => {
            list.insert(index, element);
            true
        }
        (Collection::List(list), Mutation::ListSet(index, element)) => list.set(index, element).is_some(),
        (Collection::List(list), Mutation::ListRemove(index)) => list.remove(index).is_some(),
        (Collection::List(list), Mutation::ListTrim(start, end)) => {
            let before = list.len();
            list.trim(start, end);
            list.len() != before
        }
        (Collection::Set(set), Mutation::SetInsert(member)) => set.insert(member),
        (Collection::Set(set), Mutation::SetRemove(member)) => set.remove(member).is_some(),
        (Collection::Hash(fields), Mutation::FieldSet(field, value)) => {
            fields.insert(field, value);
            true
        }
        (Collection::Hash(fields), Mutation::FieldRemove(field)) => fields.remove(field).is_some(),
        (Collection::SortedSet(set), Mutation::ScoreSet(member, score)) => {
            matches!(set.insert(score, member), Inserted::Added | Inserted::Changed(_))
        }
        (Collection::SortedSet(set), Mutation::ScoreRemove(member)) => set.remove(member).is_some(),
        _ => false,
    }
}
