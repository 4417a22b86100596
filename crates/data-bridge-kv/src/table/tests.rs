//! The table against a standard map, with good and with colliding hashes.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use data_bridge_kv_model::{Items, Kind, Value, ValueRef};
use proptest::prelude::*;

use super::*;
use crate::collections::{Collection, List, Packed};

/// What the model knows of an entry.
#[derive(Clone, Debug, PartialEq)]
struct Expected {
    value: Content,
    sequence: u64,
    deadline: Option<u64>,
    heat: u8,
}

#[derive(Clone, Debug, PartialEq)]
enum Content {
    Payload(Kind, Vec<u8>),
    /// A list of so many elements that nothing has looked into yet.
    Whole(usize, Vec<u8>),
    List(usize),
}

impl Content {
    fn new_value(&self) -> NewValue<'_> {
        match self {
            Content::Payload(kind, bytes) => NewValue::Payload { kind: *kind, bytes },
            Content::Whole(_, bytes) => NewValue::Whole { kind: Kind::List, bytes },
            Content::List(len) => {
                let mut list = List::default();
                (0..*len).for_each(|_| list.push_back(int(7)));
                NewValue::Collection(Arc::new(Collection::List(list)))
            }
        }
    }

    fn whole(len: usize) -> Content {
        let items = Value::List(vec![Value::Int(7); len]).encode();
        Content::Whole(len, items[1..].to_vec())
    }

    fn of(stored: Stored<'_>) -> Content {
        match stored {
            Stored::Inline { .. } | Stored::Blob { .. } => {
                let value = stored.scalar().expect("a payload");
                Content::Payload(value.kind(), value.payload().to_vec())
            }
            Stored::Whole { kind, payload } => {
                let value = ValueRef::from_parts(kind, payload);
                Content::Whole(Items::of(value).count(), payload.to_vec())
            }
            Stored::Collection(collection) => {
                let Collection::List(list) = collection.get() else { panic!("only lists are stored") };
                Content::List(list.len())
            }
        }
    }
}

impl Expected {
    fn new_entry(&self) -> NewEntry<'_> {
        NewEntry {
            value: self.value.new_value(),
            sequence: self.sequence,
            deadline: self.deadline,
            heat: self.heat,
        }
    }

    fn of(entry: EntryRef<'_>) -> Expected {
        assert_eq!(entry.kind(), entry.value().kind());
        Expected {
            value: Content::of(entry.value()),
            sequence: entry.sequence(),
            deadline: entry.deadline(),
            heat: entry.heat(),
        }
    }
}

fn int(number: i64) -> Packed {
    Packed::from(ValueRef::from_parts(Kind::Int, &number.to_le_bytes()))
}

/// A table beside its model; both see every operation.
struct Pair {
    table: Table,
    model: HashMap<Vec<u8>, Expected>,
}

impl Pair {
    fn new(hasher: KeyHasher) -> Pair {
        Pair { table: Table::new(hasher), model: HashMap::new() }
    }

    fn hash(&self, key: &[u8]) -> KeyHash {
        self.table.hasher().hash(key)
    }

    fn put(&mut self, key: &[u8], new: Expected) {
        let is_new = self.table.put(self.hash(key), key, new.new_entry());
        assert_eq!(is_new, self.model.insert(key.to_vec(), new).is_none());
    }

    fn remove(&mut self, key: &[u8]) {
        let deadline = self.table.remove(self.hash(key), key);
        assert_eq!(deadline, self.model.remove(key).map(|entry| entry.deadline));
    }

    fn check(&self) {
        assert_eq!(self.table.len(), self.model.len());
        for (key, expected) in &self.model {
            let entry = self.table.find(self.hash(key), key).expect("a key of the model is in the table");
            assert_eq!(entry.key(), key);
            assert_eq!(&Expected::of(entry), expected);
        }
        let seen: BTreeSet<&[u8]> = self.table.iter().map(EntryRef::key).collect();
        assert_eq!(seen.len(), self.model.len());
        let entries: usize = self.table.iter().map(EntryRef::memory_bytes).sum();
        assert_eq!(self.table.entry_bytes, entries, "the account is the sum of the entries");
        self.table.directory.check_account();
        let mut in_use = BTreeMap::new();
        for slot in self.table.directory.slots() {
            let bytes = slab::slot_bytes(slot.block().len());
            *in_use.entry(bytes).or_default() += bytes;
        }
        self.table.slab.check(|bytes| in_use.get(&bytes).copied().unwrap_or(0));
    }

    /// Applies one operation to both. Operations on an absent key do nothing in either.
    fn apply(&mut self, op: &Op) {
        match op {
            Op::Put(key, new) => self.put(key, new.clone()),
            Op::Replace(key, new, undo) => {
                let before = self.model.get(key).cloned();
                let hash = self.hash(key);
                let old = self.table.find(hash, key).map(EntryRef::to_owned);
                assert_eq!(old.as_ref().map(|entry| Expected::of(entry.entry())), before);
                self.put(key, new.clone());
                if let Some(old) = old.filter(|_| *undo) {
                    assert_eq!(self.table.restore(hash, old), Some(new.deadline));
                    self.model.insert(key.clone(), before.expect("the old entry was expected"));
                }
            }
            Op::Remove(key) => self.remove(key),
            Op::RemoveAndRestore(key) => {
                let hash = self.hash(key);
                if let Some(old) = self.table.find(hash, key).map(EntryRef::to_owned) {
                    assert!(self.table.remove(hash, key).is_some());
                    assert!(self.table.find(hash, key).is_none());
                    assert!(self.table.restore(hash, old).is_none());
                }
            }
            Op::Deadline(key, deadline) => self.change(key, |entry, expected| {
                entry.set_deadline(*deadline);
                expected.deadline = *deadline;
            }),
            Op::Value(key, value) => self.change(key, |entry, expected| {
                entry.set_value(value.new_value());
                expected.value = value.clone();
            }),
            Op::Touch(key, heat) => self.change(key, |entry, expected| {
                entry.set_heat(*heat);
                entry.set_sequence(expected.sequence + 1);
                expected.heat = *heat;
                expected.sequence += 1;
            }),
            Op::InPlace(key, byte) => self.change(key, |entry, expected| {
                if let (Some(payload), Content::Payload(_, bytes)) =
                    (entry.payload_mut(), &mut expected.value)
                {
                    payload.fill(*byte);
                    bytes.fill(*byte);
                }
            }),
            Op::Push(key) => self.change(key, |entry, expected| {
                let (snapshot, before) = (entry.entry().to_owned(), expected.value.clone());
                let (Content::Whole(len, _) | Content::List(len)) = before else {
                    assert!(entry.collection_mut().is_none());
                    return;
                };
                let mut collection = entry.collection_mut().expect("it is a list");
                let Collection::List(list) = &mut *collection else { panic!("only lists are stored") };
                list.push_back(int(1));
                expected.value = Content::List(len + 1);
                assert_eq!(Content::of(snapshot.entry().value()), before);
            }),
        }
    }

    fn change(&mut self, key: &[u8], change: impl FnOnce(&mut EntryMut<'_>, &mut Expected)) {
        let hash = self.hash(key);
        let (entry, expected) = (self.table.find_mut(hash, key), self.model.get_mut(key));
        assert_eq!(entry.is_some(), expected.is_some());
        if let (Some(mut entry), Some(expected)) = (entry, expected) {
            change(&mut entry, expected);
        }
    }
}

#[derive(Clone, Debug)]
enum Op {
    Put(Vec<u8>, Expected),
    Replace(Vec<u8>, Expected, bool),
    Remove(Vec<u8>),
    RemoveAndRestore(Vec<u8>),
    Deadline(Vec<u8>, Option<u64>),
    Value(Vec<u8>, Content),
    Touch(Vec<u8>, u8),
    InPlace(Vec<u8>, u8),
    Push(Vec<u8>),
}

fn key() -> impl Strategy<Value = Vec<u8>> {
    prop_oneof![
        20 => (0u32..300).prop_map(|number| format!("key:{number}").into_bytes()),
        1 => (0u8..4).prop_map(|number| vec![number + b'a'; MAX_KEY_BYTES]),
        1 => (0u8..4).prop_map(|number| vec![number + b'a']),
    ]
}

fn content() -> impl Strategy<Value = Content> {
    let payload = (0usize..120, any::<u8>()).prop_map(|(len, byte)| vec![byte; len]);
    let long = (INLINE_BYTES - 2..INLINE_BYTES + 3, any::<u8>()).prop_map(|(len, byte)| vec![byte; len]);
    prop_oneof![
        6 => any::<i64>().prop_map(|number| Content::Payload(Kind::Int, number.to_le_bytes().to_vec())),
        1 => Just(Content::Payload(Kind::Null, Vec::new())),
        1 => any::<u8>().prop_map(|byte| Content::Payload(Kind::Decimal, vec![byte; 18])),
        1 => any::<u8>().prop_map(|byte| Content::Payload(Kind::Uuid, vec![byte; 16])),
        6 => payload.prop_map(|bytes| Content::Payload(Kind::Bytes, bytes)),
        1 => long.prop_map(|bytes| Content::Payload(Kind::Text, bytes)),
        2 => (0usize..40).prop_map(Content::whole),
        2 => (1usize..40).prop_map(Content::List),
    ]
}

fn expected() -> impl Strategy<Value = Expected> {
    (content(), 0..MAX_SEQUENCE, proptest::option::of(0..=MAX_DEADLINE), 0..=MAX_HEAT)
        .prop_map(|(value, sequence, deadline, heat)| Expected { value, sequence, deadline, heat })
}

fn op() -> impl Strategy<Value = Op> {
    prop_oneof![
        30 => (key(), expected()).prop_map(|(key, new)| Op::Put(key, new)),
        6 => (key(), expected(), any::<bool>()).prop_map(|(key, new, undo)| Op::Replace(key, new, undo)),
        16 => key().prop_map(Op::Remove),
        4 => key().prop_map(Op::RemoveAndRestore),
        6 => (key(), proptest::option::of(0..=MAX_DEADLINE)).prop_map(|(key, at)| Op::Deadline(key, at)),
        6 => (key(), content()).prop_map(|(key, value)| Op::Value(key, value)),
        6 => (key(), 0..=MAX_HEAT).prop_map(|(key, heat)| Op::Touch(key, heat)),
        4 => (key(), any::<u8>()).prop_map(|(key, byte)| Op::InPlace(key, byte)),
        6 => key().prop_map(Op::Push),
    ]
}

/// Which bits of the hash are kept: all, a few on top, a few in the middle, none.
const KEPT: [u64; 6] = [u64::MAX, 0xff << 56, 0xf0f0 << 44, 0xffff << 32, u64::MAX >> 20, 0];

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(if cfg!(miri) { 2 } else { 128 }) })]

    #[test]
    fn behaves_like_a_map(ops in proptest::collection::vec(op(), 1..500), kept in 0..KEPT.len(), seed: u64) {
        let mut pair = Pair::new(KeyHasher::weak(seed, KEPT[kept]));
        for (index, op) in ops.iter().enumerate() {
            pair.apply(op);
            if index % 64 == 0 {
                pair.check();
            }
        }
        pair.check();
    }

    #[test]
    fn a_scan_meets_whatever_stays_exactly_once(
        keys in 0u32..3000,
        churn in proptest::collection::vec((0u32..6000, any::<bool>()), 0..600),
        limit in 1usize..60,
        kept in 0..KEPT.len(),
        seed: u64,
    ) {
        let keys = if cfg!(miri) || KEPT[kept].count_ones() < 9 { keys % 100 } else { keys };
        scan_under_churn(KeyHasher::weak(seed, KEPT[kept]), keys, &churn, limit);
    }
}

/// Scans while keys of the churn come and go between the calls.
fn scan_under_churn(hasher: KeyHasher, keys: u32, churn: &[(u32, bool)], limit: usize) {
    let mut pair = Pair::new(hasher);
    (0..keys).for_each(|number| pair.put(&number.to_be_bytes(), small(i64::from(number))));
    let changed: BTreeSet<u32> = churn.iter().map(|change| change.0).collect();
    let mut seen = BTreeMap::new();
    let mut cursor = Some(KeyHash::from_bits(0));
    let mut churn = churn.iter();
    let mut last = None;
    while let Some(from) = cursor {
        let mut visited = 0;
        cursor = pair.table.scan(from, limit, |hash, entry| {
            assert!(hash >= from && last.is_none_or(|last| last <= hash));
            assert_eq!(hash, pair.table.hasher().hash(entry.key()));
            last = Some(hash);
            *seen.entry(entry.key().to_vec()).or_insert(0) += 1;
            visited += 1;
        });
        assert!(cursor.is_none() || visited >= limit);
        assert!(cursor.is_none_or(|next| next > from), "a scan must come forward");
        for (number, put) in churn.by_ref().take(7) {
            let key = number.to_be_bytes();
            if *put { pair.put(&key, small(1)) } else { pair.remove(&key) }
        }
    }
    for number in (0..keys).filter(|number| !changed.contains(number)) {
        assert_eq!(seen.get(number.to_be_bytes().as_slice()), Some(&1), "key {number}");
    }
    assert!(seen.values().all(|times| *times == 1), "an entry that came and went is met at most once here");
    pair.check();
}

fn small(number: i64) -> Expected {
    let value = Content::Payload(Kind::Int, number.to_le_bytes().to_vec());
    Expected { value, sequence: 1, deadline: None, heat: 0 }
}

#[test]
fn grows_and_shrinks_through_every_size() {
    let count: u32 = if cfg!(miri) { 500 } else { 30_000 };
    let mut pair = Pair::new(KeyHasher::new(3));
    for number in 0..count {
        pair.put(&number.to_le_bytes(), small(i64::from(number)));
        if number % 997 == 0 {
            pair.check();
        }
    }
    let full = pair.table.directory.memory_bytes();
    assert!(full < count as usize * 12, "{full} bytes of slots for {count} keys");
    for number in 0..count {
        pair.remove(&number.to_le_bytes());
        if number % 997 == 0 {
            pair.check();
        }
    }
    pair.check();
    assert_eq!(pair.table.entry_bytes, 0);
    assert!(pair.table.memory_bytes() < 1024, "{} bytes when emptied", pair.table.memory_bytes());
}

#[test]
fn position_finds_entries_by_half_a_hash() {
    let count: u32 = if cfg!(miri) { 40 } else { 5_000 };
    for kept in [u64::MAX, 0xfff << 30, 0] {
        let mut pair = Pair::new(KeyHasher::weak(11, kept));
        let count = if kept == 0 { 50 } else { count };
        (0..count).for_each(|number| pair.put(&number.to_le_bytes(), small(0)));
        for key in pair.model.keys() {
            let position = pair.hash(key).position();
            let found: Vec<_> = pair.table.at_position(position).collect();
            let expected = if kept == u64::MAX {
                1
            } else {
                pair.model.keys().filter(|other| pair.hash(other).position() == position).count()
            };
            assert_eq!(found.len(), expected);
            assert!(found.iter().any(|(hash, entry)| entry.key() == key && *hash == pair.hash(key)));
        }
        assert_eq!(pair.table.at_position(0x1234_5678).count(), 0);
        for top in pair.model.keys().take(100).map(|key| pair.hash(key).position() >> 8) {
            let expected = pair.model.keys().filter(|other| pair.hash(other).position() >> 8 == top).count();
            assert_eq!(pair.table.under(top, 24).count(), expected);
        }
    }
}

#[test]
fn sifting_meets_every_entry_while_others_come_and_go() {
    let count: u32 = if cfg!(miri) { 60 } else { 8_000 };
    for (kept, limit, enough) in [(u64::MAX, 100, 7), (u64::MAX, 1, 1), (0xfff << 30, 50, 1000), (0, 5, 2)] {
        let mut pair = Pair::new(KeyHasher::weak(5, kept));
        let count = if kept == 0 { 50 } else { count };
        (0..count).for_each(|number| pair.put(&number.to_le_bytes(), small(0)));
        let (mut met, mut at, mut calls) = (BTreeSet::new(), Some(KeyHash::from_bits(0)), 0);
        while let Some(from) = at {
            let (mut visited, mut wanted) = (0, 0);
            at = pair.table.sift(from, limit, |entry| {
                visited += 1;
                wanted += 1;
                met.insert(entry.key().to_vec());
                wanted < enough
            });
            // What shares a tag is visited together.
            let same = if kept == u64::MAX { 20 } else { count as usize };
            assert!(visited <= limit.min(enough) + same, "{visited} in one go");
            calls += 1;
            pair.put(&(count + calls).to_le_bytes(), small(0));
            pair.remove(&(count + calls / 2).to_le_bytes());
        }
        assert!((0..count).all(|number| met.contains(&number.to_le_bytes()[..])));
        for key in pair.model.keys() {
            assert!(pair.table.near(pair.hash(key)).any(|entry| entry.key() == key));
        }
    }
}

#[test]
fn a_same_sized_overwrite_keeps_the_block() {
    let mut pair = Pair::new(KeyHasher::new(1));
    pair.put(b"key", small(1));
    let before = pair.table.find(pair.hash(b"key"), b"key").map(|entry| entry.key().as_ptr());
    pair.put(b"key", small(2));
    let after = pair.table.find(pair.hash(b"key"), b"key").map(|entry| entry.key().as_ptr());
    assert_eq!(before, after);
    pair.check();
}

#[test]
fn sizes_are_those_of_the_layout() {
    let mut table = Table::new(KeyHasher::new(1));
    let key = [b'k'; 16];
    let hash = table.hasher().hash(&key);
    let sizes = [
        (Kind::Int, 8, None, 32),
        (Kind::Int, 8, Some(9), 40),
        (Kind::Bytes, 32, None, 64),
        (Kind::Bytes, 32, Some(9), 64),
        (Kind::Text, 100, None, 128),
        (Kind::Text, 100, Some(9), 136),
    ];
    for (kind, len, deadline, bytes) in sizes {
        let value = NewValue::Payload { kind, bytes: &[1; 100][..len] };
        table.put(hash, &key, NewEntry { value, sequence: 1, deadline, heat: 0 });
        assert_eq!(table.entry_bytes, bytes);
    }
}

#[test]
fn shared_parts_outlive_the_entry() {
    let mut table = Table::new(KeyHasher::new(1));
    let hash = table.hasher().hash(b"big");
    let value = NewValue::Payload { kind: Kind::Bytes, bytes: &[7; 9000] };
    table.put(hash, b"big", NewEntry { value, sequence: 1, deadline: None, heat: 0 });
    let entry = table.find(hash, b"big").expect("it was put");
    let Stored::Blob { kind: Kind::Bytes, blob } = entry.value() else { panic!("9,000 bytes stand outside") };
    let kept = blob.share();
    let copy = entry.to_owned();
    assert_eq!(table.remove(hash, b"big"), Some(None));
    drop(table);
    assert_eq!(kept[..], [7; 9000]);
    assert_eq!(copy.entry().value().payload().map(<[u8]>::len), Some(9000));
}

fn bytes_of_len(len: usize) -> Expected {
    Expected {
        value: Content::Payload(Kind::Bytes, vec![len as u8; len]),
        sequence: 1,
        deadline: None,
        heat: 0,
    }
}

#[test]
fn pages_go_back_in_whatever_order_entries_leave() {
    let mut pair = Pair::new(KeyHasher::new(9));
    let keys: Vec<[u8; 4]> = (0..20_000u32).map(u32::to_le_bytes).collect();
    for (number, key) in keys.iter().enumerate() {
        pair.put(key, bytes_of_len(number % 600));
    }
    pair.check();
    let full = pair.table.memory_bytes();
    // Every tenth key stays; a hash puts the others in an order that is none of insertion.
    let mut leaving: Vec<&[u8; 4]> =
        keys.iter().enumerate().filter(|(at, _)| at % 10 != 0).map(|(_, key)| key).collect();
    leaving.sort_by_key(|key| pair.hash(&key[..]));
    for key in leaving {
        pair.remove(key);
    }
    pair.check();
    assert!(pair.table.memory_bytes() < full / 8, "{} of {full} bytes", pair.table.memory_bytes());
    assert!(pair.table.slab.page_bytes() < full / 8, "{} bytes in pages", pair.table.slab.page_bytes());
    for key in &keys {
        pair.remove(key);
    }
    pair.check();
    assert!(pair.table.slab.page_bytes() < 64 << 10, "{} bytes in pages", pair.table.slab.page_bytes());
}

#[test]
fn entries_that_grow_and_shrink_leave_few_holes() {
    let mut pair = Pair::new(KeyHasher::new(10));
    for round in 0..6u32 {
        for number in 0..3000u32 {
            pair.put(&number.to_le_bytes(), bytes_of_len((number * 7 + round * 131) as usize % 500));
        }
        pair.check();
    }
    let (pages, account) = (pair.table.slab.page_bytes(), pair.table.memory_bytes());
    assert!(pages < account, "{pages} bytes in pages for an account of {account}");
}

#[test]
fn a_wrong_hash_loses_an_entry_and_nothing_else() {
    let mut table = Table::new(KeyHasher::new(11));
    let hash = table.hasher().hash(b"key");
    let wrong = KeyHash::from_bits(!hash.bits());
    let others: Vec<[u8; 3]> = (0..100u8).map(|number| [number, 1, 2]).collect();
    for key in &others {
        table.put(table.hasher().hash(key), key, small(1).new_entry());
    }
    let twice = [(hash, small(2)), (wrong, small(3))];
    for (hash, entry) in &twice {
        assert!(table.put(*hash, b"key", entry.new_entry()));
    }
    for key in &others {
        assert!(table.remove(table.hasher().hash(key), key).is_some());
        for (hash, entry) in &twice {
            assert_eq!(table.find(*hash, b"key").map(Expected::of).as_ref(), Some(entry));
        }
    }
}
