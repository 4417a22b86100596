//! A sorted set: members ordered by score, and among equal scores by member (contents bytewise first, then other
//! kinds by their codec bytes).
//!
//! Members and scores stand in a dense vector; an index leads from a member to its place in it, a ranking holds
//! the places in order.

use std::cmp::Ordering;

use data_bridge_kv_model::codec::put_varint;
use data_bridge_kv_model::identity::{identity_hash, same_identity};
use data_bridge_kv_model::{Decimal, Items, Kind, ValueRef};

use super::ask_whole;
use super::index::{LINEAR_MEMBERS, PlaceIndex};
use super::packed::{Account, Packed, count_len};
use super::ranking::{Ranked, Ranking};
use super::score::{Number, Score};
use crate::footprint::block_bytes;

/// A sorted set with scores of one kind.
#[derive(Clone)]
pub struct SortedSet(Scores);

#[derive(Clone)]
enum Scores {
    Float(Box<Scored<f64>>),
    Decimal(Box<Scored<Decimal>>),
}

/// What [`SortedSet::insert`] did.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Inserted {
    /// The member is new.
    Added,
    /// The member was there with this score, which is another one to the bit.
    Changed(Score),
    /// The member was there with this very score.
    Unchanged,
    /// Nothing happened: the score is of the other kind than the set's, or not a number.
    Refused,
}

/// Calls a method of whichever kind of set it is.
macro_rules! either {
    ($set:expr, $scored:ident => $body:expr) => {
        match $set {
            Scores::Float($scored) => $body,
            Scores::Decimal($scored) => $body,
        }
    };
}

impl SortedSet {
    /// An empty set whose scores are of `kind`; `None` unless that is Float or Decimal.
    pub fn new(kind: Kind) -> Option<SortedSet> {
        match kind {
            Kind::Float => Some(SortedSet(Scores::Float(Box::default()))),
            Kind::Decimal => Some(SortedSet(Scores::Decimal(Box::default()))),
            _ => None,
        }
    }

    /// Float or Decimal.
    #[inline]
    pub fn score_kind(&self) -> Kind {
        match &self.0 {
            Scores::Float(_) => Kind::Float,
            Scores::Decimal(_) => Kind::Decimal,
        }
    }

    /// How many members.
    #[inline]
    pub fn len(&self) -> usize {
        either!(&self.0, scored => scored.entries.len())
    }

    /// Whether there is none.
    #[inline]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// What the set takes on the heap.
    #[inline]
    pub fn memory_bytes(&self) -> usize {
        either!(&self.0, scored => scored.memory_bytes())
    }

    /// See [`super::Collection::look_ahead`].
    #[inline]
    pub(super) fn look_ahead(&self, element: u64, step: usize, ask: impl Fn(*const u8)) {
        either!(&self.0, scored => match step {
            0 => ask_whole(&**scored, ask),
            1 => {
                if !scored.index.is_linear() {
                    ask(scored.index.home_address(element));
                }
                scored.ranking.look_ahead(0, ask);
            }
            _ => {
                let likely = (!scored.index.is_linear()).then(|| scored.index.likely(element)).flatten();
                match likely.and_then(|place| scored.entries.get(place as usize)) {
                    Some(entry) => ask_whole(entry, &ask),
                    // A new one comes to the end.
                    None => ask(scored.entries.as_ptr_range().end.cast()),
                }
                scored.ranking.look_ahead(1, ask);
            }
        });
    }

    /// Length of the encoded set.
    #[inline]
    pub fn encoded_len(&self) -> usize {
        2 + count_len(self.len()) + either!(&self.0, scored => scored.encoded_bytes())
    }

    /// Gives a member a score. A member that is there keeps its form.
    pub fn insert(&mut self, score: Score, member: ValueRef<'_>) -> Inserted {
        either!(&mut self.0, scored => scored.insert(score, member))
    }

    /// Takes a member out.
    pub fn remove(&mut self, member: ValueRef<'_>) -> Option<(Packed, Score)> {
        either!(&mut self.0, scored => {
            let place = scored.find(member)?;
            Some(scored.remove_at(place))
        })
    }

    /// Takes out the member at a rank.
    pub fn remove_rank(&mut self, rank: usize) -> Option<(Packed, Score)> {
        either!(&mut self.0, scored => {
            let place = scored.ranking.range(rank, rank.saturating_add(1)).next()?.place;
            Some(scored.remove_at(place as usize))
        })
    }

    /// The score of a member.
    pub fn score(&self, member: ValueRef<'_>) -> Option<Score> {
        self.get(member).map(|(_, score)| score)
    }

    /// The member in its stored form, and its score.
    pub fn get(&self, member: ValueRef<'_>) -> Option<(&Packed, Score)> {
        either!(&self.0, scored => scored.find(member).map(|place| scored.pair(place)))
    }

    /// How many members stand before this one.
    pub fn rank(&self, member: ValueRef<'_>) -> Option<usize> {
        either!(&self.0, scored => {
            let place = scored.find(member)?;
            Some(scored.ranking.rank(scored.entries[place].1, ties(&scored.entries, place)))
        })
    }

    /// How many members have a score below `bound`, or not above it if `including`. `None` if the bound is of
    /// the other kind than the set's scores.
    pub fn rank_of_score(&self, bound: Score, including: bool) -> Option<usize> {
        either!(&self.0, scored => {
            let bound = Number::from_score(bound)?;
            Some(scored.ranking.rank(bound, |_| if including { Ordering::Less } else { Ordering::Equal }))
        })
    }

    /// How many members stand before the one with these bytes, or up to it if `including`, in a set whose scores are all the
    /// same. Members that are neither Text nor Bytes stand behind all that are.
    pub fn rank_of_content(&self, bound: &[u8], including: bool) -> usize {
        let is_before = |member: &Packed| {
            let content = member.value().content();
            content.is_some_and(|content| if including { content <= bound } else { content < bound })
        };
        either!(&self.0, scored => {
            scored.ranking.count_before(|pair| is_before(&scored.entries[pair.place as usize].0))
        })
    }

    /// Members and scores from rank `start` to before rank `end`, in order; `.rev()` for the other direction.
    pub fn range(
        &self,
        start: usize,
        end: usize,
    ) -> Box<dyn DoubleEndedIterator<Item = (&Packed, Score)> + '_> {
        either!(&self.0, scored => {
            Box::new(scored.ranking.range(start, end).map(|pair| scored.pair(pair.place as usize)))
        })
    }

    /// All members and scores in order.
    pub fn iter(&self) -> impl DoubleEndedIterator<Item = (&Packed, Score)> {
        self.range(0, self.len())
    }

    /// A member drawn with `below(n)`, which gives a number below `n`, and its score.
    pub fn random(&self, mut below: impl FnMut(usize) -> usize) -> Option<(&Packed, Score)> {
        let len = self.len();
        (len > 0).then(|| either!(&self.0, scored => scored.pair(below(len))))
    }

    /// Visits about `count` members from `cursor` on (0 at the start) and returns the next cursor, 0 at the end.
    /// Whatever is there during the whole scan is visited at least once; small sets in one call.
    pub fn scan(&self, cursor: u64, count: usize, mut visit: impl FnMut(&Packed, Score)) -> u64 {
        let len = self.len();
        // From the back, because a removal moves the last entry forward into the hole.
        let end = usize::try_from(cursor).ok().filter(|end| (1..len).contains(end)).unwrap_or(len);
        let start = if len <= LINEAR_MEMBERS { 0 } else { end.saturating_sub(count.max(1)) };
        for place in (start..end).rev() {
            let (member, score) = either!(&self.0, scored => scored.pair(place));
            visit(member, score);
        }
        start as u64
    }

    /// Appends the payload of the value codec.
    pub(super) fn encode_payload(&self, out: &mut Vec<u8>) {
        out.push(self.score_kind().number());
        put_varint(self.len(), out);
        for (member, score) in self.iter() {
            score.encode_payload(out);
            out.extend_from_slice(member.as_bytes());
        }
    }

    /// The sorted set of a validated value of kind SortedSet; of a member that comes twice the last score counts.
    pub(super) fn decode(value: ValueRef<'_>) -> Option<SortedSet> {
        let score_kind = value.payload().first().copied().and_then(Kind::from_number)?;
        let mut set = SortedSet::new(score_kind)?;
        let mut items = Items::of(value);
        while let (Some(score), Some(member)) = (items.next(), items.next()) {
            set.insert(Score::of(score)?, member);
        }
        Some(set)
    }
}

/// Members with scores of one type.
#[derive(Clone)]
struct Scored<S> {
    entries: Vec<(Packed, S)>,
    index: PlaceIndex,
    ranking: Ranking<S>,
    account: Account,
}

impl<S> Default for Scored<S> {
    fn default() -> Self {
        Scored {
            entries: Vec::new(),
            index: PlaceIndex::default(),
            ranking: Ranking::default(),
            account: Account::default(),
        }
    }
}

impl<S: Number> Scored<S> {
    fn memory_bytes(&self) -> usize {
        block_bytes(size_of::<Self>())
            + self.account.heap
            + block_bytes(self.entries.capacity() * size_of::<(Packed, S)>())
            + self.index.memory_bytes()
            + self.ranking.memory_bytes()
    }

    fn encoded_bytes(&self) -> usize {
        self.account.encoded + self.entries.len() * S::ENCODED_BYTES
    }

    fn pair(&self, place: usize) -> (&Packed, Score) {
        let (member, score) = &self.entries[place];
        (member, score.into_score())
    }

    fn find(&self, member: ValueRef<'_>) -> Option<usize> {
        self.find_hashed(self.index.hash(member), member)
    }

    fn find_hashed(&self, hash: Option<u64>, member: ValueRef<'_>) -> Option<usize> {
        let is_it = |place: usize| same_identity(self.entries[place].0.value(), member);
        match hash {
            Some(hash) => self.index.find(hash, |place| is_it(place as usize)).map(|place| place as usize),
            None => (0..self.entries.len()).find(|place| is_it(*place)),
        }
    }

    fn insert(&mut self, score: Score, member: ValueRef<'_>) -> Inserted {
        let is_nan = matches!(score, Score::Float(number) if number.is_nan());
        let Some(number) = S::from_score(score).filter(|_| !is_nan) else { return Inserted::Refused };
        let hash = self.index.hash(member);
        let Some(place) = self.find_hashed(hash, member) else {
            self.push(Packed::from(member), hash, number);
            return Inserted::Added;
        };
        let old = self.entries[place].1;
        if old.is_exactly(number) {
            return Inserted::Unchanged;
        }
        self.entries[place].1 = number;
        self.ranking.rescore(old, self.ranked(place), ties(&self.entries, place));
        Inserted::Changed(old.into_score())
    }

    fn push(&mut self, member: Packed, hash: Option<u64>, score: S) {
        self.account.add(&member);
        if self.entries.len() == self.entries.capacity() {
            self.entries.reserve_exact((self.entries.len() / 4).max(4));
        }
        let place = self.entries.len();
        self.entries.push((member, score));
        let hash_of = |place: u32| identity_hash(self.entries[place as usize].0.value());
        match hash {
            Some(hash) => self.index.insert(hash, place as u32, hash_of),
            None if self.entries.len() > LINEAR_MEMBERS => {
                let members = (0..=place as u32).map(|place| (hash_of(place), place));
                self.index.rebuild(members, hash_of);
            }
            None => {}
        }
        self.rank(place);
    }

    fn remove_at(&mut self, place: usize) -> (Packed, Score) {
        self.unrank(place);
        let last = self.entries.len() - 1;
        if place != last {
            self.ranking.set_place(self.entries[last].1, ties(&self.entries, last), place as u32);
        }
        if !self.index.is_linear() {
            let hash_of = |place: u32| identity_hash(self.entries[place as usize].0.value());
            self.index.remove(hash_of(place as u32), place as u32, hash_of);
            if place != last {
                self.index.moved(hash_of(last as u32), last as u32, place as u32);
            }
        }
        let (member, score) = self.entries.swap_remove(place);
        self.account.subtract(&member);
        if self.entries.capacity() > 2 * self.entries.len() + LINEAR_MEMBERS {
            self.entries.shrink_to(self.entries.len() + self.entries.len() / 4);
        }
        (member, score.into_score())
    }

    /// Enters the entry at `place` in the ranking.
    fn rank(&mut self, place: usize) {
        self.ranking.insert(self.ranked(place), ties(&self.entries, place));
    }

    fn ranked(&self, place: usize) -> Ranked<S> {
        Ranked { score: self.entries[place].1, place: place as u32 }
    }

    /// Takes the entry at `place` out of the ranking.
    fn unrank(&mut self, place: usize) {
        self.ranking.remove(self.entries[place].1, ties(&self.entries, place));
    }
}

/// Compares ranked pairs of its score with the entry at `place`.
fn ties<S>(entries: &[(Packed, S)], place: usize) -> impl Fn(&Ranked<S>) -> Ordering + '_ {
    move |pair| {
        if pair.place as usize == place {
            return Ordering::Equal;
        }
        order_members(entries[pair.place as usize].0.value(), entries[place].0.value())
    }
}

/// Order among equal scores: contents of Text and Bytes bytewise, then other kinds by kind and payload.
fn order_members(one: ValueRef<'_>, other: ValueRef<'_>) -> Ordering {
    match (one.content(), other.content()) {
        (Some(one), Some(other)) => one.cmp(other),
        (Some(_), None) => Ordering::Less,
        (None, Some(_)) => Ordering::Greater,
        (None, None) => (one.kind().number(), one.payload()).cmp(&(other.kind().number(), other.payload())),
    }
}
