//! Commands over a whole namespace: scans, counts, clearing a prefix. They lock one shard at a time and are not atomic.

use data_bridge_kv_model::command::{KeyCommand, ScanOptions};
use data_bridge_kv_model::limits::KEYS_COMMAND_KEYS;
use data_bridge_kv_model::{Error, ErrorKind, Glob, Key, Kind, ReplyBuf, Shape, ValueRef};

use super::halt::Means;
use super::{Caller, Core, Halt, Step, Waits};
use crate::cold::Part;
use crate::hash::KeyHash;
use crate::shard::{Gaps, Space, is_live};
use crate::table::EntryRef;

/// Bytes of names and values after which a walk answers what it has.
const WALK_BYTES: usize = 1 << 20;
/// Entries looked at in one go while a shard is locked.
const LOOKED_AT_ONCE: usize = 256;
/// Where a walk through a shard begins.
const FIRST: KeyHash = KeyHash::from_bits(0);

impl Core {
    /// Carries out a command over a whole namespace or the store; its answer rests on all of that.
    pub(super) fn run_over_all(
        &self,
        caller: &Caller,
        command: &KeyCommand<'_>,
        out: &mut ReplyBuf,
    ) -> Step<()> {
        if let KeyCommand::Sync { redis } = command {
            self.owe_everything(caller, *redis, out);
            return Ok(());
        }
        self.walk(caller, command, out)?;
        let is_meant = |space: &&Space| {
            matches!(command, KeyCommand::Flush { all: true })
                || std::ptr::eq(*space, self.space(caller.namespace))
        };
        self.spaces.iter().filter(is_meant).for_each(|space| caller.owed.raise(space.last_awaited()));
        Ok(())
    }

    fn walk(&self, caller: &Caller, command: &KeyCommand<'_>, out: &mut ReplyBuf) -> Step<()> {
        let (space, waits) = (self.space(caller.namespace), caller.waits);
        match command {
            KeyCommand::Scan { cursor, options } => self.scan(space, waits, *cursor, options, out),
            KeyCommand::Keys { pattern } => self.keys(space, waits, pattern, out),
            KeyCommand::Random => self.random_key(space, waits, out),
            KeyCommand::Size => {
                self.need_all_indexes(space, waits)?;
                out.count(size(space));
                Ok(())
            }
            // What has begun to delete could not begin again, and much of it takes a while.
            KeyCommand::Flush { .. } | KeyCommand::Clear { .. }
                if waits == Waits::Never && self.spaces.iter().any(has_cold) =>
            {
                Err(Halt::Blocked(0))
            }
            KeyCommand::Flush { all } => self.flush(caller, space, *all, out),
            KeyCommand::Clear { prefix: [] } => {
                out.count(self.clear(caller, &[space])?);
                Ok(())
            }
            KeyCommand::Clear { prefix } => {
                out.count(self.delete_where(space, waits, |key| key.starts_with(prefix))?);
                Ok(())
            }
            _ => Err(Error::invalid("not a walk").into()),
        }
    }

    fn scan(
        &self,
        space: &Space,
        waits: Waits,
        cursor: u64,
        options: &ScanOptions<'_>,
        out: &mut ReplyBuf,
    ) -> Step<()> {
        let glob = options.pattern.map(Glob::new).transpose().map_err(Error::from)?;
        let is_wanted_kind = |kind: Kind| {
            options.kind.is_none_or(|wanted| kind == wanted)
                && options.redis_type.is_none_or(|word| kind.redis_type().eq_ignore_ascii_case(word))
        };
        let is_wanted_key = |key: &[u8]| {
            options.prefix.is_none_or(|prefix| key.starts_with(prefix))
                && glob.as_ref().is_none_or(|glob| glob.matches(key))
        };
        out.container(Shape::Array, 2);
        let mut next = Cursor::decode(cursor, space.shard_count());
        let mut found = ReplyBuf::new();
        let (mut count, mut left) = (0, options.count);
        while let Some(Cursor { shard, from }) = next.filter(|_| left > 0 && space.is_touched()) {
            let mut gaps = Gaps::default();
            let mut visit = |key: &[u8], entry: Option<EntryRef<'_>>| {
                if is_wanted_key(key) {
                    count += 1;
                    found.value(ValueRef::from_parts(Kind::Text, key));
                    let Some(entry) = entry.filter(|_| options.values) else { return };
                    if options.deadlines {
                        found.container(Shape::Array, 2);
                    }
                    gaps.add(found.len(), entry.to_owned());
                    if options.deadlines {
                        found.integer(entry.deadline().map_or(-1, u64::cast_signed));
                    }
                }
            };
            // With values one at a time, so that an answer is not much larger than its last one.
            let (step, part) = if options.values { (1, Part::Whole) } else { (left, Part::Front) };
            let page = Page { shard, from, limit: step, part, waits };
            let (end, seen) = self.page(space, page, is_wanted_kind, &mut visit)?;
            gaps.fill(&mut found);
            left = left.saturating_sub(seen);
            if found.len() > WALK_BYTES {
                left = 0;
            }
            next = Cursor::after(shard, end, space.shard_count());
        }
        let next = next.filter(|_| space.is_touched());
        out.value(ValueRef::text(&next.map_or(0, |next| next.encode(space.shard_count())).to_string()));
        out.container(if options.values { Shape::Map } else { Shape::Array }, count);
        out.bytes_mut().extend_from_slice(found.as_bytes());
        Ok(())
    }

    /// Visits the live entries of these kinds on a page; answers where to go on and how many entries of any kind and age
    /// that were. Those on disk are read after the lock is gone.
    fn page(
        &self,
        space: &Space,
        page: Page,
        is_wanted: impl Fn(Kind) -> bool,
        visit: &mut dyn FnMut(&[u8], Option<EntryRef<'_>>),
    ) -> Step<(Option<KeyHash>, usize)> {
        let Page { shard, from, limit, part, waits } = page;
        let now = self.clock.unix_ms();
        self.need_index(space, shard, waits)?;
        let (mut seen, mut seen_cold, mut wanted) = (0, 0, Vec::new());
        let mut txn = self.begin_at(space, shard);
        let in_memory = |entry: EntryRef<'_>| {
            seen += 1;
            if is_live(entry, now) && is_wanted(entry.kind()) {
                visit(entry.key(), Some(entry));
            }
        };
        let end = txn.walk(from, limit, in_memory, |spot, one| {
            seen_cold += 1;
            if !spot.is_expired(now) && Kind::from_number(spot.kind).is_some_and(&is_wanted) {
                wanted.push(one);
            }
        });
        txn.finish().send();
        if let (Some(tier), false) = (&self.tier, wanted.is_empty()) {
            match part {
                Part::Front => {
                    let names = tier.names(space, wanted, waits)?;
                    names.iter().for_each(|named| visit(named.key().as_bytes(), None));
                }
                Part::Whole => {
                    for fetched in tier.fetch(space, wanted, Means::all(waits))? {
                        visit(fetched.entry().key(), Some(fetched.entry()));
                    }
                }
            }
        }
        Ok((end, seen + seen_cold))
    }

    /// Visits the names on a page of that many entries; answers where to go on.
    fn names(
        &self,
        space: &Space,
        waits: Waits,
        (shard, from, limit): (usize, KeyHash, usize),
        visit: &mut dyn FnMut(&[u8]),
    ) -> Step<Option<KeyHash>> {
        let page = Page { shard, from, limit, part: Part::Front, waits };
        let (end, _) = self.page(space, page, |_| true, &mut |key, _| visit(key))?;
        Ok(end)
    }

    fn keys(&self, space: &Space, waits: Waits, pattern: &[u8], out: &mut ReplyBuf) -> Step<()> {
        self.need_all_indexes(space, waits)?;
        let keys = size(space);
        if keys > KEYS_COMMAND_KEYS {
            let message = format!("{keys} keys are too many to list at once: use a scan");
            return Err(Error::new(ErrorKind::Limit, message).into());
        }
        let glob = Glob::new(pattern).map_err(Error::from)?;
        let mut names: Vec<Box<[u8]>> = Vec::new();
        for shard in (0..space.shard_count()).filter(|_| space.is_touched()) {
            let mut from = Some(FIRST);
            while let Some(at) = from {
                from =
                    self.names(space, waits, (shard, at, LOOKED_AT_ONCE), &mut |key| names.push(key.into()))?;
            }
        }
        let open = out.open(Shape::Array);
        let mut count = 0;
        for name in names.iter().filter(|name| glob.matches(name)) {
            out.value(ValueRef::from_parts(Kind::Text, name));
            count += 1;
        }
        out.close(open, count);
        Ok(())
    }

    fn random_key(&self, space: &Space, waits: Waits, out: &mut ReplyBuf) -> Step<()> {
        let mut random = space.random();
        let first = random.below(space.shard_count());
        let start = KeyHash::from_bits(random.bits());
        for step in (0..space.shard_count()).filter(|_| space.is_touched()) {
            let shard = (first + step) % space.shard_count();
            for from in [start, FIRST] {
                let mut from = Some(from);
                while let Some(at) = from {
                    let mut found: Option<Box<[u8]>> = None;
                    let mut keep = |key: &[u8]| found = found.take().or_else(|| Some(key.into()));
                    from = self.names(space, waits, (shard, at, 1), &mut keep)?;
                    if let Some(name) = found {
                        out.value(ValueRef::from_parts(Kind::Text, &name));
                        return Ok(());
                    }
                }
            }
        }
        out.missing();
        Ok(())
    }

    /// Empties the namespace, or all; refused as a whole where one of them holds keys and may not be flushed.
    fn flush(&self, caller: &Caller, space: &Space, all: bool, out: &mut ReplyBuf) -> Step<()> {
        let meant = |other: &&Space| all || std::ptr::eq(*other, space);
        self.spaces.iter().filter(meant).try_for_each(|space| self.need_all_indexes(space, caller.waits))?;
        let refuses = |other: &&Space| !other.settings().allow_flush && (!all || size(other) > 0);
        if let Some(other) = self.spaces.iter().filter(meant).find(refuses) {
            let message = format!("namespace '{}' may not be flushed", other.settings().name);
            return Err(Error::new(ErrorKind::Unavailable, message).into());
        }
        self.clear(caller, &self.spaces.iter().filter(meant).collect::<Vec<_>>())?;
        out.ok();
        Ok(())
    }

    /// Deletes the keys that `goes` picks, a few at a time; answers how many.
    fn delete_where(&self, space: &Space, waits: Waits, goes: impl Fn(&[u8]) -> bool) -> Step<usize> {
        let mut deleted = 0;
        for shard in (0..space.shard_count()).filter(|_| space.is_touched()) {
            let mut from = Some(FIRST);
            while let Some(at) = from {
                let mut names: Vec<Box<[u8]>> = Vec::new();
                let mut pick = |key: &[u8]| {
                    if goes(key) {
                        names.push(key.into());
                    }
                };
                from = self.names(space, waits, (shard, at, LOOKED_AT_ONCE), &mut pick)?;
                let bytes = names.iter().map(|name| name.len()).sum();
                let _room = self.room_to_delete(space, waits, (names.len(), bytes))?;
                let mut txn = self.begin_at(space, shard);
                for key in names.iter().filter_map(|name| Key::new(name).ok()) {
                    let place = txn.place(key);
                    txn.warm(place, false);
                    deleted += usize::from(txn.delete(place));
                }
                txn.finish().send();
            }
        }
        Ok(deleted)
    }
}

/// A piece of a walk: about so many entries of a shard from a hash on, and what is read of those on disk.
struct Page {
    shard: usize,
    from: KeyHash,
    limit: usize,
    part: Part,
    waits: Waits,
}

fn has_cold(space: &Space) -> bool {
    let is_cold = |index| space.lock(index).cold().is_some_and(|cold| !cold.is_empty());
    space.is_touched() && (0..space.shard_count()).any(is_cold)
}

fn size(space: &Space) -> usize {
    (0..space.shard_count()).filter(|_| space.is_touched()).map(|index| space.lock(index).keys()).sum()
}

/// A scan's position: a shard and a hash in it. As a number the shard stands in the low bits, where the hashes of its
/// entries are all alike; 0 is the start and the end.
#[derive(Clone, Copy)]
struct Cursor {
    shard: usize,
    from: KeyHash,
}

impl Cursor {
    fn decode(cursor: u64, shards: usize) -> Option<Cursor> {
        let low = shards as u64 - 1;
        Some(Cursor { shard: (cursor & low) as usize, from: KeyHash::from_bits(cursor & !low) })
    }

    fn encode(self, shards: usize) -> u64 {
        self.from.bits() & !(shards as u64 - 1) | self.shard as u64
    }

    /// Where a scan goes on: in the same shard, or at the start of the next one. Positions are rounded up to where all
    /// bits of the shard index are zero: entries with equal bits above them are visited together.
    fn after(shard: usize, end: Option<KeyHash>, shards: usize) -> Option<Cursor> {
        let low = shards as u64 - 1;
        match end.and_then(|end| end.bits().checked_add(low)) {
            Some(end) => Some(Cursor { shard, from: KeyHash::from_bits(end & !low) }),
            None if shard + 1 < shards => Some(Cursor { shard: shard + 1, from: FIRST }),
            None => None,
        }
    }
}
