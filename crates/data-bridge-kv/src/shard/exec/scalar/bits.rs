//! Executors of the commands on bits of a string. The first bit is the highest of the first byte.

use std::borrow::Cow;
use std::ops::Range;

use data_bridge_kv_model::command::{BitRange, Expiry};
use data_bridge_kv_model::{Error, Key, Kind, ReplyBuf, Result, ValueRef, show};

use super::{check_size, deadline, put_text, range_from_first, readable, shown};
use crate::shard::Txn;
use crate::table::EntryRef;

pub(super) fn get(txn: &mut Txn<'_>, key: Key<'_>, offset: usize, out: &mut ReplyBuf) -> Result<()> {
    let place = txn.place(key);
    let is_on = txn.with_value(place, |entry| {
        let bytes = text(entry)?;
        Ok(bytes.get(offset / 8).is_some_and(|byte| byte & mask(offset) != 0))
    })?;
    out.integer(i64::from(is_on));
    Ok(())
}

pub(super) fn set(
    txn: &mut Txn<'_>,
    key: Key<'_>,
    offset: usize,
    on: bool,
    out: &mut ReplyBuf,
) -> Result<()> {
    let place = txn.place(key);
    let (mut bytes, kind, deadline) = match shown(txn, place)? {
        Some(found) => found,
        None => (Vec::new(), Kind::Bytes, deadline(txn, Expiry::Default, None)),
    };
    let at = offset / 8;
    check_size(at + 1)?;
    if bytes.len() <= at {
        bytes.resize(at + 1, 0);
    }
    let was_on = bytes[at] & mask(offset) != 0;
    bytes[at] = if on { bytes[at] | mask(offset) } else { bytes[at] & !mask(offset) };
    put_text(txn, place, kind, &bytes, deadline)?;
    out.integer(i64::from(was_on));
    Ok(())
}

pub(super) fn count(
    txn: &mut Txn<'_>,
    key: Key<'_>,
    within: Option<BitRange>,
    out: &mut ReplyBuf,
) -> Result<()> {
    let place = txn.place(key);
    let ones = txn.with_value(place, |entry| {
        let bytes = text(entry)?;
        let is_crossed = within.is_some_and(BitRange::is_crossed);
        let bits = if is_crossed { 0..0 } else { bits(within, bytes.len()) };
        Ok(ones(&bytes, bits))
    })?;
    out.count(ones);
    Ok(())
}

pub(super) fn find(
    txn: &mut Txn<'_>,
    key: Key<'_>,
    on: bool,
    within: Option<BitRange>,
    out: &mut ReplyBuf,
) -> Result<()> {
    let place = txn.place(key);
    let found = txn.with_value(place, |entry| {
        if entry.is_none() {
            // As if there were zeros without end.
            return Ok((!on).then_some(0));
        }
        let bytes = text(entry)?;
        let bits = bits(within, bytes.len());
        // Without an end to the range, zeros go on behind the last byte.
        let goes_on = !on && !bits.is_empty() && within.is_none_or(|within| within.end.is_none());
        Ok(first(&bytes, bits.clone(), on).or(goes_on.then_some(bits.end)))
    })?;
    match found {
        Some(at) => out.count(at),
        None => out.integer(-1),
    }
    Ok(())
}

/// What a Redis client is shown of a key; nothing where there is none.
fn text(entry: Option<EntryRef<'_>>) -> Result<Cow<'_, [u8]>> {
    let Some(entry) = entry else { return Ok(Cow::Borrowed(&[])) };
    let stored = readable(entry.value(), false)?;
    let payload = stored.payload().ok_or_else(Error::wrong_type)?;
    if matches!(stored.kind(), Kind::Text | Kind::Bytes) {
        return Ok(Cow::Borrowed(payload));
    }
    let mut text = Vec::new();
    let is_shown = show::show(ValueRef::from_parts(stored.kind(), payload), &mut text);
    is_shown.then_some(Cow::Owned(text)).ok_or_else(Error::wrong_type)
}

/// The bit of its byte at an offset.
fn mask(offset: usize) -> u8 {
    0x80 >> (offset % 8)
}

/// The bits of a range of so many bytes.
fn bits(within: Option<BitRange>, length: usize) -> Range<usize> {
    let Some(BitRange { start, end, by_bit }) = within else { return 0..length * 8 };
    let unit = if by_bit { 1 } else { 8 };
    let range = range_from_first(start, end.unwrap_or(-1), length * 8 / unit);
    range.start * unit..range.end * unit
}

/// How many of these bits are on.
fn ones(bytes: &[u8], bits: Range<usize>) -> usize {
    let (start, end) = (bits.start / 8, bits.end.div_ceil(8));
    let (words, rest) = bytes.get(start..end).unwrap_or_default().as_chunks::<8>();
    let of_bytes =
        |bytes: &mut dyn Iterator<Item = u8>| bytes.map(|byte| byte.count_ones() as usize).sum::<usize>();
    let of_words: usize = words.iter().map(|word| u64::from_ne_bytes(*word).count_ones() as usize).sum();
    let outside = parts(bytes, start * 8..bits.start, 0).chain(parts(bytes, bits.end..end * 8, 0));
    of_words + of_bytes(&mut rest.iter().copied()) - of_bytes(&mut outside.map(|(_, byte)| byte))
}

/// The first of these bits that is on, or off.
fn first(bytes: &[u8], bits: Range<usize>, on: bool) -> Option<usize> {
    let blank = [if on { 0 } else { 0xff }; 64];
    let within = bytes.get(bits.start / 8..bits.end.div_ceil(8)).unwrap_or_default();
    let passed = within.chunks(64).take_while(|chunk| **chunk == blank[..chunk.len()]).count() * 64;
    let rest = bits.start.max((bits.start / 8 + passed) * 8)..bits.end;
    let (at, byte) = parts(bytes, rest, blank[0]).find(|(_, byte)| *byte != 0)?;
    Some(at * 8 + byte.leading_zeros() as usize)
}

/// The bytes that these bits are in, with their places: bits outside are zero, those inside are turned where `flip` says.
fn parts(bytes: &[u8], bits: Range<usize>, flip: u8) -> impl Iterator<Item = (usize, u8)> {
    let (first, end) = (bits.start / 8, bits.end.div_ceil(8));
    let within = bytes.get(first..end).unwrap_or_default();
    within.iter().zip(first..).map(move |(byte, at)| {
        let before = if at == first { bits.start % 8 } else { 0 };
        let behind = if at + 1 == end { end * 8 - bits.end } else { 0 };
        (at, (byte ^ flip) & (0xff >> before) & (0xff << behind))
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #![proptest_config(ProptestConfig {
            failure_persistence: None,
            ..ProptestConfig::with_cases(if cfg!(miri) { 4 } else { 512 })
        })]

        #[test]
        fn bits_are_counted_and_found_as_one_by_one(
            head in prop::collection::vec(prop::sample::select(&[0, 0xff, 0x81][..]), 0..4),
            blanks in 0usize..200,
            byte in prop::sample::select(&[0, 0xff][..]),
            tail in prop::collection::vec(any::<u8>(), 0..12),
            ends in (0usize..2000, 0usize..2000),
        ) {
            let bytes = [head, vec![byte; blanks], tail].concat();
            let end = ends.1.min(bytes.len() * 8);
            let bits = ends.0.min(end)..end;
            let is_on = |at: &usize| bytes[at / 8] & mask(*at) != 0;
            prop_assert_eq!(ones(&bytes, bits.clone()), bits.clone().filter(is_on).count());
            for on in [false, true] {
                prop_assert_eq!(first(&bytes, bits.clone(), on), bits.clone().find(|at| is_on(at) == on));
            }
        }
    }
}
