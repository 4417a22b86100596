//! The effects that commands have on entries, and the one function that carries them out: live, and later in
//! recovery, on replicas and in restore. An effect is absolute; applying it asks no clock.

use data_bridge_kv_model::ValueRef;

use crate::collections::{Collection, Inserted, Packed, Score};
use crate::hash::KeyHash;
use crate::table::{MAX_HEAT, NewEntry, NewValue, Table};

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
    FieldSet(ValueRef<'a>, Packed),
    /// A field leaves the hash.
    FieldRemove(ValueRef<'a>),
    /// A member of the sorted set has this score.
    ScoreSet(ValueRef<'a>, Score),
    /// A member leaves the sorted set.
    ScoreRemove(ValueRef<'a>),
}

/// Carries out one effect and gives the entry its version's sequence number. Answers whether anything changed: an
/// effect on an entry that is not there, or of another kind, changes nothing.
pub fn apply(table: &mut Table, hash: KeyHash, key: &[u8], sequence: u64, mutation: Mutation<'_>) -> bool {
    match mutation {
        Mutation::Put { value, deadline } => {
            match table.find_mut(hash, key) {
                Some(mut entry) => {
                    let heat = entry.entry().heat().saturating_add(1).min(MAX_HEAT);
                    entry.set(NewEntry { value, sequence, deadline, heat });
                }
                None => {
                    table.put(hash, key, NewEntry { value, sequence, deadline, heat: 0 });
                }
            }
            true
        }
        Mutation::Delete => table.remove(hash, key).is_some(),
        Mutation::Deadline(deadline) => {
            let Some(mut entry) = table.find_mut(hash, key) else { return false };
            entry.set_deadline(deadline);
            entry.set_sequence(sequence);
            true
        }
        on_collection => {
            let Some(mut entry) = table.find_mut(hash, key) else { return false };
            let changed = match entry.collection_mut() {
                Some(mut collection) => change_collection(&mut collection, on_collection),
                None => false,
            };
            if changed {
                entry.set_sequence(sequence);
            }
            changed
        }
    }
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
