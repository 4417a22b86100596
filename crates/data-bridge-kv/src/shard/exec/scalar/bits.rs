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
        Ok(parts(&bytes, bits, 0).map(|(_, byte)| byte.count_ones() as usize).sum())
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
        let wanted = parts(&bytes, bits.clone(), if on { 0 } else { 0xff }).find(|(_, byte)| *byte != 0);
        // Without an end to the range, zeros go on behind the last byte.
        let goes_on = !on && !bits.is_empty() && within.is_none_or(|within| within.end.is_none());
        let found = wanted.map(|(at, byte)| at * 8 + byte.leading_zeros() as usize);
        Ok(found.or(goes_on.then_some(bits.end)))
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
