//! The index of one shard's keys on disk: identity to place, deadline and kind, in about 25 bytes a key.
//!
//! A key is cold if its value is only there, and resident if memory has it too, or a newer one: then what the index says of
//! it is kept for later, and neither counted nor shown by walks.
//!
//! A directory leads from the top bits of an identity to a page of at most 128 entries, sorted. A page that is full
//! splits in two, so no operation pauses for the whole; the directory is doubled when a page outgrows it. An entry is
//!
//! ```text
//! identity  12 bytes, big endian, less the whole bytes that the page's place in the directory implies
//! spot      12 bytes: slot 15 bits | resident 1 | offset 26 | size class 6 | deadline 42 (unix ms; 0 none) | kind 5 | touched 1
//! ```
//! so the width of a page's entries is 24 bytes, less one for each eight bits of its depth. Pages grow by quarters of an
//! octave, as allocators do. Walking goes in the order of [`KeyHash`], the order that scans have.

use super::segment::Locator;
use crate::hash::KeyHash;
use crate::hash::stable::KeyId;

/// Entries of a page before it splits.
const PAGE_ENTRIES: usize = 128;
/// Entries of a page in an index that is built at once, at most on average.
const BUILT_ENTRIES: usize = 96;
/// Pages do not split further than this: keys that still meet share a page, however long it gets.
const MAX_DEPTH: u8 = 24;
pub(super) const SPOT_BYTES: usize = 12;
/// An entry in full, as it stands in a base.
pub(super) const ENTRY_BYTES: usize = KeyId::BYTES + SPOT_BYTES;
/// The last deadline that an entry can say, in 2109; a later one is [`Spot::FAR`].
const MAX_DEADLINE: u64 = (1 << 42) - 1;
/// Bytes of the smallest page.
const MIN_PAGE_BYTES: usize = 64;

/// What the index knows of a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Spot {
    /// Where its record stands.
    pub locator: Locator,
    /// Unix ms. [`Spot::FAR`]: there is one, but only the record knows it.
    pub deadline: Option<u64>,
    /// The kind's number.
    pub kind: u8,
    /// Whether it was read since it became cold.
    pub is_touched: bool,
    /// Whether memory has the key too.
    pub is_resident: bool,
}

impl Spot {
    /// A deadline beyond what the index can say.
    pub const FAR: u64 = MAX_DEADLINE;

    /// What the index keeps of an entry with this deadline.
    pub fn new(locator: Locator, deadline: Option<u64>, kind: u8) -> Spot {
        let deadline = deadline.map(|at| at.clamp(1, Spot::FAR));
        Spot { locator, deadline, kind: kind & 0x1f, is_touched: false, is_resident: false }
    }

    /// Whether its deadline has passed.
    pub fn is_expired(self, now: u64) -> bool {
        self.deadline.is_some_and(|deadline| deadline <= now && deadline != Spot::FAR)
    }

    pub(super) fn to_bytes(self) -> [u8; SPOT_BYTES] {
        let Locator { slot, offset, class } = self.locator;
        let bits = u128::from(slot)
            | u128::from(self.is_resident) << 15
            | u128::from(offset) << 16
            | u128::from(class) << 42
            | u128::from(self.deadline.unwrap_or(0)) << 48
            | u128::from(self.kind) << 90
            | u128::from(self.is_touched) << 95;
        let mut bytes = [0; SPOT_BYTES];
        bytes.copy_from_slice(bits.to_le_bytes().first_chunk::<SPOT_BYTES>().unwrap_or(&[0; SPOT_BYTES]));
        bytes
    }

    pub(super) fn from_bytes(bytes: &[u8]) -> Spot {
        let low = bytes.first_chunk().map_or(0, |low| u64::from_le_bytes(*low));
        let high = bytes.get(8..).and_then(<[u8]>::first_chunk).map_or(0, |high| u32::from_le_bytes(*high));
        let bits = u128::from(high) << 64 | u128::from(low);
        let part =
            |shift: u32, width: u32| (bits >> shift) as u64 & (u64::MAX >> 64_u32.saturating_sub(width));
        let deadline = part(48, 42);
        Spot {
            locator: Locator {
                slot: part(0, 15) as u16,
                offset: part(16, 26) as u32,
                class: part(42, 6) as u8,
            },
            deadline: (deadline != 0).then_some(deadline),
            kind: part(90, 5) as u8,
            is_touched: part(95, 1) != 0,
            is_resident: part(15, 1) != 0,
        }
    }
}

/// Entries whose identities begin with the same bits.
#[derive(Clone, Default)]
struct Page {
    bytes: Vec<u8>,
    /// How many bits the identities share.
    depth: u8,
    /// No deadline of the page is earlier than this, unix seconds rounded down; `u32::MAX` = there is none.
    earliest: u32,
}

/// Seconds of a deadline as [`Page::earliest`] counts them.
fn seconds(deadline: Option<u64>) -> u32 {
    deadline.map_or(u32::MAX, |at| u32::try_from(at.checked_div(1000).unwrap_or(0)).unwrap_or(u32::MAX))
}

impl Page {
    fn new(depth: u8) -> Page {
        Page { bytes: Vec::new(), depth, earliest: u32::MAX }
    }

    /// Bytes of an identity that the page does not store.
    fn implied(&self) -> usize {
        usize::from(self.depth >> 3)
    }

    fn width(&self) -> usize {
        (KeyId::BYTES + SPOT_BYTES).saturating_sub(self.implied()).max(1)
    }

    fn len(&self) -> usize {
        self.bytes.len().checked_div(self.width()).unwrap_or(0)
    }

    /// The stored part of an identity.
    fn name<'n>(&self, id: &'n [u8; KeyId::BYTES]) -> &'n [u8] {
        id.get(self.implied()..).unwrap_or_default()
    }

    /// The byte range of entry `n`.
    fn range(&self, n: usize) -> std::ops::Range<usize> {
        let start = n.saturating_mul(self.width());
        start..start.saturating_add(self.width())
    }

    fn entry(&self, n: usize) -> &[u8] {
        self.bytes.get(self.range(n)).unwrap_or_default()
    }

    /// Where an identity stands, or would.
    fn search(&self, name: &[u8]) -> Result<usize, usize> {
        let (mut low, mut high) = (0, self.len());
        while low < high {
            let middle = low.midpoint(high);
            let found = self.entry(middle).get(..name.len()).unwrap_or_default();
            match found.cmp(name) {
                std::cmp::Ordering::Less => low = middle.saturating_add(1),
                std::cmp::Ordering::Equal => return Ok(middle),
                std::cmp::Ordering::Greater => high = middle,
            }
        }
        Err(low)
    }

    fn spot(&self, n: usize) -> Spot {
        let entry = self.entry(n);
        Spot::from_bytes(entry.get(entry.len().saturating_sub(SPOT_BYTES)..).unwrap_or_default())
    }

    fn set_spot(&mut self, n: usize, spot: Spot) {
        let end = self.range(n).end;
        if let Some(place) = self.bytes.get_mut(end.saturating_sub(SPOT_BYTES)..end) {
            place.copy_from_slice(&spot.to_bytes());
        }
        self.earliest = self.earliest.min(seconds(spot.deadline));
    }

    fn insert(&mut self, n: usize, name: &[u8], spot: Spot) {
        let wanted = self.bytes.len().saturating_add(self.width());
        if wanted > self.bytes.capacity() {
            self.bytes.reserve_exact(page_bytes(wanted).saturating_sub(self.bytes.len()));
        }
        let start = self.range(n).start;
        self.bytes.splice(start..start, name.iter().copied().chain(spot.to_bytes()));
        self.earliest = self.earliest.min(seconds(spot.deadline));
    }

    /// Adds an entry behind all others; there must be room.
    fn push(&mut self, id: KeyId, spot: Spot) {
        self.bytes.extend(id.to_bytes().into_iter().skip(self.implied()));
        self.bytes.extend_from_slice(&spot.to_bytes());
        self.earliest = self.earliest.min(seconds(spot.deadline));
    }

    fn remove(&mut self, n: usize) {
        self.bytes.drain(self.range(n));
        if page_bytes(self.bytes.len()) < self.bytes.capacity() >> 1 {
            self.bytes.shrink_to(page_bytes(self.bytes.len()));
        }
    }
}

/// The hash in an entry's identity.
pub(super) fn high_of(entry: &[u8; ENTRY_BYTES]) -> KeyHash {
    KeyHash::from_bits(entry.first_chunk().map_or(0, |high| u64::from_be_bytes(*high)))
}

/// The capacity of a page for so many bytes: a quarter of an octave apart.
fn page_bytes(bytes: usize) -> usize {
    let bytes = bytes.max(MIN_PAGE_BYTES);
    let step = bytes.next_power_of_two() >> 3;
    bytes.next_multiple_of(step.max(1))
}

/// The keys of one shard that are on disk.
pub struct Index {
    pages: Vec<Page>,
    /// For each value of the first `depth` bits of a hash the number of its page.
    directory: Vec<u32>,
    depth: u8,
    /// Keys, resident ones included.
    count: usize,
    residents: usize,
    /// Cold keys with a deadline.
    dated: usize,
    /// Bytes of all pages' capacities.
    page_bytes: usize,
}

impl Default for Index {
    fn default() -> Index {
        Index::new()
    }
}

impl Index {
    /// Without keys; takes next to no memory.
    pub fn new() -> Index {
        Index {
            pages: vec![Page::new(0)],
            directory: vec![0],
            depth: 0,
            count: 0,
            residents: 0,
            dated: 0,
            page_bytes: 0,
        }
    }

    /// Of entries in ascending order, each an identity and a spot as they stand in a base; without those that `keeps` refuses.
    /// Takes about as much memory as inserting them one by one, but much less time.
    pub(super) fn build(entries: &[[u8; ENTRY_BYTES]], mut keeps: impl FnMut(Locator) -> bool) -> Index {
        let mut depth = 0_u8;
        while depth < MAX_DEPTH && entries.len() >> depth > BUILT_ENTRIES {
            depth = depth.saturating_add(1);
        }
        let mut index = Index { pages: Vec::new(), directory: Vec::new(), depth, ..Index::new() };
        index.pages.reserve_exact(1 << depth);
        index.directory.reserve_exact(1 << depth);
        let mut rest = entries;
        for place in 0..1_u32 << depth {
            let is_of_it = |entry: &&[u8; ENTRY_BYTES]| high_of(entry).prefix(depth.into()) == place as usize;
            let count = rest.iter().take_while(is_of_it).count();
            let (of_it, others) = rest.split_at_checked(count).unwrap_or_default();
            rest = others;
            let mut page = Page::new(depth);
            page.bytes.reserve_exact(page_bytes(of_it.len().saturating_mul(page.width())));
            let implied = page.implied();
            for entry in of_it {
                let spot = Spot::from_bytes(entry.get(KeyId::BYTES..).unwrap_or_default());
                if keeps(spot.locator) {
                    page.bytes.extend_from_slice(entry.get(implied..).unwrap_or_default());
                    page.earliest = page.earliest.min(seconds(spot.deadline));
                    index.count_spot(None, Some(spot));
                }
            }
            index.count = index.count.saturating_add(page.len());
            index.page_bytes = index.page_bytes.saturating_add(page.bytes.capacity());
            index.pages.push(page);
            index.directory.push(place);
        }
        index
    }

    /// How many keys are cold.
    pub fn len(&self) -> usize {
        self.count.saturating_sub(self.residents)
    }

    /// Whether none is cold.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// How many keys are resident.
    pub fn residents(&self) -> usize {
        self.residents
    }

    /// How many cold keys have a deadline.
    pub fn dated(&self) -> usize {
        self.dated
    }

    /// What it takes on the heap.
    pub fn memory_bytes(&self) -> usize {
        let pages = self.pages.capacity().saturating_mul(size_of::<Page>());
        self.page_bytes.saturating_add(pages).saturating_add(self.directory.capacity().saturating_mul(4))
    }

    fn place(&self, hash: KeyHash) -> usize {
        usize::try_from(hash.bits().checked_shr(64_u32.saturating_sub(self.depth.into())).unwrap_or(0))
            .unwrap_or(0)
    }

    fn page_number(&self, hash: KeyHash) -> usize {
        self.directory.get(self.place(hash)).map_or(usize::MAX, |page| *page as usize)
    }

    fn find(&self, id: KeyId) -> Option<(&Page, usize)> {
        let page = self.pages.get(self.page_number(id.hash()))?;
        let at = page.search(page.name(&id.to_bytes())).ok()?;
        Some((page, at))
    }

    /// Changes the page of an identity; keeps the account of its memory.
    fn with_page<R>(
        &mut self,
        id: KeyId,
        change: impl FnOnce(&mut Page, Result<usize, usize>) -> R,
    ) -> Option<R> {
        let number = self.page_number(id.hash());
        let page = self.pages.get_mut(number)?;
        let at = page.search(page.name(&id.to_bytes()));
        let before = page.bytes.capacity();
        let result = change(page, at);
        self.page_bytes = self.page_bytes.saturating_sub(before).saturating_add(page.bytes.capacity());
        Some(result)
    }

    /// What is known of a key.
    pub fn get(&self, id: KeyId) -> Option<Spot> {
        self.find(id).map(|(page, at)| page.spot(at))
    }

    /// Lets a key be at a spot; answers where it was.
    pub fn insert(&mut self, id: KeyId, spot: Spot) -> Option<Spot> {
        if let Some((page, Err(_))) = self.page_of(id)
            && page.len() >= PAGE_ENTRIES
            && page.depth < MAX_DEPTH
        {
            self.split(id);
        }
        let name = id.to_bytes();
        let before = self.with_page(id, |page, at| match at {
            Ok(at) => {
                let before = page.spot(at);
                page.set_spot(at, spot);
                Some(before)
            }
            Err(at) => {
                let name = name.get(page.implied()..).unwrap_or_default();
                page.insert(at, name, spot);
                None
            }
        });
        let before = before.flatten();
        self.count = self.count.saturating_add(usize::from(before.is_none()));
        self.count_spot(before, Some(spot));
        before
    }

    fn count_spot(&mut self, before: Option<Spot>, after: Option<Spot>) {
        let resident = |spot: Option<Spot>| usize::from(spot.is_some_and(|spot| spot.is_resident));
        let is_dated = |spot: Spot| spot.deadline.is_some() && !spot.is_resident;
        let dated = |spot: Option<Spot>| usize::from(spot.is_some_and(is_dated));
        self.residents = self.residents.saturating_add(resident(after)).saturating_sub(resident(before));
        self.dated = self.dated.saturating_add(dated(after)).saturating_sub(dated(before));
    }

    /// Notes whether memory has a key of the index too; answers where it is on disk.
    pub fn set_resident(&mut self, id: KeyId, is_resident: bool) -> Option<Spot> {
        let changed = self.with_page(id, |page, at| {
            let at = at.ok()?;
            let before = page.spot(at);
            page.set_spot(at, Spot { is_resident, ..before });
            Some(before)
        });
        let before = changed.flatten()?;
        let after = Spot { is_resident, ..before };
        self.count_spot(Some(before), Some(after));
        Some(after)
    }

    /// Lets a resident key be at another spot, and stay resident; answers where it was, `None` if it is not resident.
    pub fn move_resident(&mut self, id: KeyId, spot: Spot) -> Option<Spot> {
        let moved = self.with_page(id, |page, at| {
            let at = at.ok()?;
            let before = Some(page.spot(at)).filter(|spot| spot.is_resident)?;
            page.set_spot(at, Spot { is_resident: true, ..spot });
            Some(before)
        });
        moved.flatten()
    }

    fn page_of(&self, id: KeyId) -> Option<(&Page, Result<usize, usize>)> {
        let page = self.pages.get(self.page_number(id.hash()))?;
        Some((page, page.search(page.name(&id.to_bytes()))))
    }

    /// Takes a key out; answers where it was.
    pub fn remove(&mut self, id: KeyId) -> Option<Spot> {
        let removed = self.with_page(id, |page, at| {
            let at = at.ok()?;
            let spot = page.spot(at);
            page.remove(at);
            Some(spot)
        });
        let spot = removed.flatten()?;
        self.count = self.count.saturating_sub(1);
        self.count_spot(Some(spot), None);
        if self.count == 0 {
            *self = Index::new();
        }
        Some(spot)
    }

    /// Notes that a key was read; answers whether it had been before.
    pub fn touch(&mut self, id: KeyId) -> bool {
        let touched = self.with_page(id, |page, at| {
            let Ok(at) = at else { return false };
            let spot = page.spot(at);
            page.set_spot(at, Spot { is_touched: true, ..spot });
            spot.is_touched
        });
        touched.unwrap_or(false)
    }

    /// Lets a key be at `to` if it is at `from`; answers whether it was. The touch is forgotten.
    pub fn relocate(&mut self, id: KeyId, from: Locator, to: Locator) -> bool {
        let moved = self.with_page(id, |page, at| {
            let Ok(at) = at else { return false };
            let spot = page.spot(at);
            if spot.locator != from {
                return false;
            }
            page.set_spot(at, Spot { locator: to, is_touched: false, ..spot });
            true
        });
        moved.unwrap_or(false)
    }

    /// The cold keys from this hash on, in the order of hashes.
    pub fn from(&self, start: KeyHash) -> impl Iterator<Item = (KeyId, Spot)> {
        self.all_from(start).filter(|(_, spot)| !spot.is_resident)
    }

    /// The same with the resident ones.
    pub fn all_from(&self, start: KeyHash) -> impl Iterator<Item = (KeyId, Spot)> {
        let mut place = self.place(start);
        let mut at = match self.page_of(KeyId::new(start, 0)) {
            Some((_, Ok(at) | Err(at))) => at,
            None => 0,
        };
        std::iter::from_fn(move || {
            loop {
                let page = self.pages.get(*self.directory.get(place)? as usize)?;
                if at < page.len() {
                    at = at.saturating_add(1);
                    let n = at.saturating_sub(1);
                    return Some((self.identity(place, page, n), page.spot(n)));
                }
                place = self.next_place(place, page);
                at = 0;
            }
        })
    }

    /// The place of the page behind this one.
    fn next_place(&self, place: usize, page: &Page) -> usize {
        let shared = u32::from(self.depth.saturating_sub(page.depth));
        ((place >> shared).saturating_add(1)) << shared
    }

    /// The identity of an entry: what its page stores behind what its place implies.
    fn identity(&self, place: usize, page: &Page, n: usize) -> KeyId {
        let high = (place as u64).checked_shl(64_u32.saturating_sub(self.depth.into())).unwrap_or(0);
        let mut bytes = KeyId::new(KeyHash::from_bits(high), 0).to_bytes();
        let stored = bytes.iter_mut().skip(page.implied());
        stored.zip(page.entry(n)).for_each(|(to, from)| *to = *from);
        KeyId::from_bytes(bytes)
    }

    /// Calls `expired` with cold keys whose deadline has passed, starting at the page of `start` and looking at `pages` of them
    /// at most; answers where to go on, or `None` at the end. Pages without such a deadline cost next to nothing.
    pub fn expired(
        &mut self,
        start: KeyHash,
        now: u64,
        pages: usize,
        mut expired: impl FnMut(KeyId, Spot),
    ) -> Option<KeyHash> {
        let mut place = self.place(start);
        let now_seconds = seconds(Some(now));
        for _ in 0..pages {
            let number = *self.directory.get(place)? as usize;
            let page = self.pages.get(number)?;
            if page.earliest <= now_seconds {
                let mut earliest = u32::MAX;
                for n in 0..page.len() {
                    let spot = page.spot(n);
                    if spot.is_resident {
                        continue;
                    }
                    if spot.is_expired(now) {
                        expired(self.identity(place, page, n), spot);
                    } else {
                        earliest = earliest.min(seconds(spot.deadline));
                    }
                }
                if let Some(page) = self.pages.get_mut(number) {
                    page.earliest = earliest;
                }
            }
            place = self.next_place(place, self.pages.get(number)?);
        }
        let high = (place as u64).checked_shl(64_u32.saturating_sub(self.depth.into()))?;
        (place < self.directory.len()).then(|| KeyHash::from_bits(high))
    }

    /// Cuts the page of an identity in two by the next bit.
    fn split(&mut self, id: KeyId) {
        let number = self.page_number(id.hash());
        let Some(page) = self.pages.get(number) else { return };
        if page.depth == self.depth {
            self.directory = self.directory.iter().flat_map(|page| [*page, *page]).collect();
            self.depth = self.depth.saturating_add(1);
        }
        let Ok(new_number) = u32::try_from(self.pages.len()) else { return };
        let place = self.place(id.hash());
        let shared = u32::from(self.depth.saturating_sub(page.depth));
        let first = place >> shared << shared;
        let half = 1_usize << shared >> 1;
        let mut halves = [Page::new(page.depth.saturating_add(1)), Page::new(page.depth.saturating_add(1))];
        let bit = 63_u32.saturating_sub(page.depth.into());
        let ids: Vec<(KeyId, Spot)> =
            (0..page.len()).map(|n| (self.identity(place, page, n), page.spot(n))).collect();
        let before = page.bytes.capacity();
        let upper = |(id, _): &(KeyId, Spot)| id.hash().bits() >> bit & 1 == 1;
        let cut = ids.iter().position(upper).unwrap_or(ids.len());
        let (low, high) = ids.split_at_checked(cut).unwrap_or_default();
        for (half, ids) in halves.iter_mut().zip([low, high]) {
            half.bytes.reserve_exact(page_bytes(ids.len().saturating_mul(half.width())));
            ids.iter().for_each(|(id, spot)| half.push(*id, *spot));
        }
        let [low, high] = halves;
        let after = low.bytes.capacity().saturating_add(high.bytes.capacity());
        self.page_bytes = self.page_bytes.saturating_sub(before).saturating_add(after);
        if let Some(page) = self.pages.get_mut(number) {
            *page = low;
        }
        self.pages.push(high);
        self.directory
            .iter_mut()
            .skip(first.saturating_add(half))
            .take(half)
            .for_each(|page| *page = new_number);
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::random::Random;

    fn spot(random: &mut Random) -> Spot {
        let bits = random.bits();
        let locator = Locator {
            slot: bits as u16 & 0x7fff,
            offset: (bits >> 16) as u32 & 0x3ff_ffff,
            class: (bits >> 42) as u8 & 63,
        };
        let deadline = (bits & 1 == 0).then_some(random.bits() & Spot::FAR);
        let is_resident = random.bits() & 1 == 0;
        Spot { is_touched: bits & 2 == 0, is_resident, ..Spot::new(locator, deadline, (bits >> 58) as u8) }
    }

    fn id(random: &mut Random) -> KeyId {
        KeyId::new(KeyHash::from_bits(random.bits()), random.bits() as u32)
    }

    #[test]
    fn spots_fit_their_bytes() {
        let mut random = Random::new(1);
        for _ in 0..1000 {
            let spot = spot(&mut random);
            assert_eq!(Spot::from_bytes(&spot.to_bytes()), spot);
        }
    }

    /// The index against a map, with few identities so that they are met again, and of few and of many first bits.
    #[test]
    fn it_does_what_a_map_does() {
        for (seed, keys, kept) in
            [(1, 40, u64::MAX), (2, 30_000, u64::MAX), (3, 3000, 0xff), (4, 3000, 0xf << 60)]
        {
            let mut random = Random::new(seed);
            let ids: Vec<KeyId> = (0..keys)
                .map(|_| KeyId::new(KeyHash::from_bits(random.bits() & kept), random.bits() as u32))
                .collect();
            let (mut index, mut map) = (Index::new(), BTreeMap::new());
            for step in 0..keys * 6 {
                let id = ids[random.below(keys)];
                match random.below(if step < keys * 3 { 8 } else { 5 }) {
                    0 => assert_eq!(index.remove(id), map.remove(&id)),
                    1 => {
                        let new = spot(&mut random).locator;
                        let old = map.get(&id).map(|spot: &Spot| spot.locator);
                        let from = if random.below(2) == 0 { new } else { old.unwrap_or(new) };
                        assert_eq!(index.relocate(id, from, new), old == Some(from));
                        if old == Some(from) {
                            map.entry(id).and_modify(|spot| (spot.locator, spot.is_touched) = (new, false));
                        }
                    }
                    2 => {
                        let touched =
                            map.get_mut(&id).map(|spot| std::mem::replace(&mut spot.is_touched, true));
                        assert_eq!(index.touch(id), touched.unwrap_or(false));
                    }
                    3 => {
                        let is_resident = random.below(2) == 0;
                        let changed = map.get_mut(&id).map(|spot| {
                            spot.is_resident = is_resident;
                            *spot
                        });
                        assert_eq!(index.set_resident(id, is_resident), changed);
                    }
                    4 => {
                        let to = Spot { is_resident: true, ..spot(&mut random) };
                        let resident = map.get_mut(&id).filter(|spot| spot.is_resident);
                        let before = resident.map(|spot| std::mem::replace(spot, to));
                        assert_eq!(index.move_resident(id, to), before);
                    }
                    _ => {
                        let spot = spot(&mut random);
                        assert_eq!(index.insert(id, spot), map.insert(id, spot));
                    }
                }
                assert_eq!(index.get(id), map.get(&id).copied());
                assert_eq!(index.len() + index.residents(), map.len());
            }
            assert!(index.all_from(KeyHash::from_bits(0)).eq(map.iter().map(|(id, spot)| (*id, *spot))));
            let cold = map.iter().filter(|(_, spot)| !spot.is_resident).map(|(id, spot)| (*id, *spot));
            assert!(index.from(KeyHash::from_bits(0)).eq(cold.clone()));
            assert_eq!(index.len(), cold.clone().count());
            assert_eq!(index.dated(), cold.clone().filter(|(_, spot)| spot.deadline.is_some()).count());
            let middle = ids[0].hash();
            assert!(index.from(middle).eq(cold.filter(|(id, _)| id.hash() >= middle)));
            let capacities: usize = index.pages.iter().map(|page| page.bytes.capacity()).sum();
            assert_eq!(index.page_bytes, capacities);
            for id in map.keys() {
                index.remove(*id);
            }
            assert_eq!((index.count, index.residents, index.dated(), index.pages.len()), (0, 0, 0, 1));
        }
    }

    #[test]
    fn built_at_once_it_is_as_if_inserted_one_by_one() {
        for (keys, kept) in [(0, u64::MAX), (1, u64::MAX), (96, u64::MAX), (20_000, u64::MAX), (3000, 0xff)] {
            let mut random = Random::new(keys);
            let all: BTreeMap<KeyId, Spot> = (0..keys)
                .map(|_| {
                    (
                        KeyId::new(KeyHash::from_bits(random.bits() & kept), random.bits() as u32),
                        spot(&mut random),
                    )
                })
                .collect();
            let entry = |(id, spot): (&KeyId, &Spot)| {
                let bytes = [&id.to_bytes()[..], &spot.to_bytes()].concat();
                <[u8; ENTRY_BYTES]>::try_from(bytes).unwrap()
            };
            let entries: Vec<[u8; ENTRY_BYTES]> = all.iter().map(entry).collect();
            let is_kept = |locator: Locator| !locator.slot.is_multiple_of(3);
            let (built, mut inserted) = (Index::build(&entries, is_kept), Index::new());
            let kept: Vec<(KeyId, Spot)> =
                all.into_iter().filter(|(_, spot)| is_kept(spot.locator)).collect();
            for (id, spot) in &kept {
                inserted.insert(*id, *spot);
            }
            assert!(built.all_from(KeyHash::from_bits(0)).eq(kept.iter().copied()), "{keys} keys");
            assert!(kept.iter().all(|(id, spot)| built.get(*id) == Some(*spot)));
            let counts = |index: &Index| (index.len(), index.residents(), index.dated());
            assert_eq!(counts(&built), counts(&inserted));
            assert_eq!(built.page_bytes, built.pages.iter().map(|page| page.bytes.capacity()).sum::<usize>());
            let earliest = |index: &Index| index.pages.iter().map(|page| page.earliest).min();
            assert_eq!(earliest(&built), earliest(&inserted));
        }
    }

    #[test]
    fn a_key_takes_less_than_28_bytes_at_any_count() {
        for keys in [100_000, 220_000, 260_000, 300_000, 345_000, 437_000] {
            let (mut index, mut random) = (Index::new(), Random::new(keys));
            for _ in 0..keys {
                index.insert(id(&mut random), spot(&mut random));
            }
            let bytes = index.memory_bytes() as f64 / keys as f64;
            println!("{keys} keys: {bytes:.1} bytes a key");
            assert!(bytes < 28.0, "{bytes} bytes a key");
        }
    }

    #[test]
    fn a_sweep_finds_what_has_expired_and_nothing_else() {
        let (mut index, mut random) = (Index::new(), Random::new(9));
        let mut due = Vec::new();
        for n in 0..10_000_u64 {
            let id = id(&mut random);
            let deadline = (n % 3 != 0).then_some(1 + n * 1000);
            let spot = Spot { deadline, ..spot(&mut random) };
            index.insert(id, spot);
            due.extend(deadline.filter(|at| *at <= 5_000_000 && !spot.is_resident).map(|_| id));
        }
        let (mut found, mut start, mut calls) = (Vec::new(), Some(KeyHash::from_bits(0)), 0);
        while let Some(from) = start {
            start = index.expired(from, 5_000_000, 7, |id, _| found.push(id));
            calls += 1;
        }
        due.sort_unstable();
        assert!(calls > 10 && found == due);
        for id in &found {
            index.remove(*id);
        }
        let mut again = 0;
        assert_eq!(index.expired(KeyHash::from_bits(0), 5_000_000, usize::MAX, |_, _| again += 1), None);
        assert_eq!(again, 0);
        // What was resident is found once it is not any more.
        let kept: Vec<KeyId> = index.all_from(KeyHash::from_bits(0)).map(|(id, _)| id).collect();
        for id in kept {
            index.set_resident(id, false);
        }
        index.expired(KeyHash::from_bits(0), 5_000_000, usize::MAX, |_, _| again += 1);
        assert!((3000..4000).contains(&(again + found.len())) && again > 1000, "{again}");
    }
}
