//! The model of commands on scalar values.

use data_bridge_kv_model::command::{BitRange, Condition, Expiry, ScalarCommand, SetOptions, SetReply};
use data_bridge_kv_model::limits::VALUE_BYTES;
use data_bridge_kv_model::{Arg, Error, ErrorKind, Kind, Reply, Result, Shape, Value};

use super::matching::{shown, value_of};
use super::{Answer, Space, count, flag, is_string, maybe};

impl Space {
    // long: one arm a command
    pub(super) fn scalar(&mut self, command: &ScalarCommand<'_>) -> Answer {
        match command {
            ScalarCommand::Get { key, any_kind } => Ok(maybe(self.read(key.as_str(), *any_kind)?)),
            ScalarCommand::Set { key, value, options } => self.write(key.as_str(), *value, *options),
            ScalarCommand::MultiGet { keys, any_kind } => {
                let read = |key: &str| self.read(key, *any_kind).unwrap_or(None);
                let values = keys.iter().map(|key| maybe(read(key.as_str()))).collect();
                Ok(Reply::Container(Shape::Array, values))
            }
            ScalarCommand::MultiSet { pairs, only_if_absent, expiry } => {
                if *only_if_absent && pairs.iter().any(|key| self.get(key.as_str()).is_some()) {
                    return Ok(flag(false));
                }
                for (key, value) in pairs.pairs() {
                    let deadline = self.deadline_of(key.as_str(), *expiry);
                    self.put(key.as_str(), value_of(value)?, deadline);
                }
                Ok(if *only_if_absent { flag(true) } else { Reply::Ok })
            }
            ScalarCommand::Pop { key, any_kind } => {
                let value = self.read(key.as_str(), *any_kind)?;
                self.entries.remove(key.as_str());
                Ok(maybe(value))
            }
            ScalarCommand::GetExpire { key, expiry } => self.get_expire(key.as_str(), *expiry),
            ScalarCommand::Append { key, bytes } => {
                let added = content_of(*bytes)?;
                let text = [&self.text(key.as_str())?, added].concat();
                let length = text.len();
                self.put_text(
                    key.as_str(),
                    text,
                    matches!(bytes, Arg::Value(value) if value.kind() == Kind::Text),
                )?;
                Ok(count(length))
            }
            ScalarCommand::Length { key } => Ok(count(self.text(key.as_str())?.len())),
            ScalarCommand::GetRange { key, start, end } => {
                let text = self.text(key.as_str())?;
                Ok(Reply::Value(Value::Bytes(text[byte_range(text.len(), *start, *end)].into())))
            }
            ScalarCommand::SetRange { key, offset, bytes } => {
                let patch = content_of(*bytes)?;
                let mut text = self.text(key.as_str())?;
                if patch.is_empty() {
                    return Ok(count(text.len()));
                }
                let end = offset.saturating_add(patch.len());
                too_long(end)?;
                text.resize(text.len().max(end), 0);
                text[*offset..end].copy_from_slice(patch);
                let length = text.len();
                self.put_text(key.as_str(), text, false)?;
                Ok(count(length))
            }
            ScalarCommand::GetBit { key, offset } => {
                Ok(flag(bits_of(&self.text(key.as_str())?).get(*offset) == Some(&true)))
            }
            ScalarCommand::SetBit { key, offset, on } => {
                let mut text = self.text(key.as_str())?;
                too_long(offset / 8 + 1)?;
                text.resize(text.len().max(offset / 8 + 1), 0);
                let mut bits = bits_of(&text);
                let before = std::mem::replace(&mut bits[*offset], *on);
                let bytes =
                    bits.chunks(8).map(|byte| byte.iter().fold(0, |byte, bit| byte << 1 | u8::from(*bit)));
                self.put_text(key.as_str(), bytes.collect(), false)?;
                Ok(flag(before))
            }
            ScalarCommand::CountBits { key, within } => {
                let bits = bits_of(&self.text(key.as_str())?);
                let is_crossed = within.is_some_and(BitRange::is_crossed);
                let range = if is_crossed { 0..0 } else { bit_range(bits.len(), *within) };
                Ok(count(bits[range].iter().filter(|bit| **bit).count()))
            }
            ScalarCommand::FindBit { key, on, within } => {
                let mut bits = bits_of(&self.text(key.as_str())?);
                let mut range = bit_range(bits.len(), *within);
                if self.get(key.as_str()).is_none() {
                    (bits, range) = (vec![false], 0..1);
                }
                let found = range.clone().find(|at| bits[*at] == *on);
                let goes_on = !on && !range.is_empty() && within.is_none_or(|within| within.end.is_none());
                Ok(found.or(goes_on.then_some(range.end)).map_or(Reply::Integer(-1), count))
            }
        }
    }

    /// The value of a key; collections only where `any_kind`.
    fn read(&self, key: &str, any_kind: bool) -> Result<Option<Value>> {
        match self.get(key) {
            Some(entry) if !any_kind && !is_string(entry.value.kind()) => Err(Error::wrong_type()),
            entry => Ok(entry.map(|entry| entry.value.clone())),
        }
    }

    fn write(&mut self, key: &str, value: Arg<'_>, options: SetOptions) -> Answer {
        let there = self.get(key).is_some();
        let old = match options.reply {
            SetReply::Old => self.read(key, options.any_kind)?,
            SetReply::Status | SetReply::Integer | SetReply::Boolean => None,
        };
        let value = value_of(value)?;
        let writes = match options.condition {
            Condition::Always => true,
            Condition::IfAbsent => !there,
            Condition::IfPresent => there,
        };
        if writes {
            let deadline = self.deadline_of(key, options.expiry);
            self.put(key, value, deadline);
        }
        Ok(match options.reply {
            SetReply::Status if writes => Reply::Ok,
            SetReply::Status => Reply::Missing,
            SetReply::Integer => flag(writes),
            SetReply::Old => maybe(old),
            SetReply::Boolean => Reply::Boolean(writes),
        })
    }

    fn get_expire(&mut self, key: &str, expiry: Expiry) -> Answer {
        let value = self.read(key, false)?;
        let deadline = self.deadline_of(key, expiry);
        if self.get(key).is_some_and(|entry| entry.deadline != deadline) {
            self.set_deadline(key, deadline);
        }
        Ok(maybe(value))
    }

    /// What a Redis client is shown of a key: empty where there is none; a null is shown as no string.
    fn text(&self, key: &str) -> Result<Vec<u8>> {
        match self.read(key, false)? {
            None => Ok(Vec::new()),
            Some(value) => shown(&value).ok_or_else(Error::wrong_type),
        }
    }

    /// Writes changed bytes: Text stays Text as long as it is UTF-8, everything else becomes Bytes. `text` tells
    /// whether a new key is Text.
    fn put_text(&mut self, key: &str, content: Vec<u8>, text: bool) -> Result<()> {
        too_long(content.len())?;
        let (was_text, deadline) = match self.get(key) {
            Some(entry) => (matches!(entry.value, Value::Text(_)), entry.deadline),
            None => (text, self.deadline_of(key, Expiry::Default)),
        };
        let value = match String::from_utf8(content) {
            Ok(text) if was_text => Value::Text(text.into()),
            Ok(text) => Value::Bytes(text.into_bytes().into()),
            Err(error) => Value::Bytes(error.into_bytes().into()),
        };
        self.put(key, value, deadline);
        Ok(())
    }
}

/// Redis's range of bytes: as of list elements, but an end before the first byte is the first byte, unless both ends
/// are negative and in the wrong order.
fn byte_range(len: usize, start: i64, end: i64) -> std::ops::Range<usize> {
    if start < 0 && end < 0 && start > end {
        return 0..0;
    }
    ends(len, start, end)
}

fn ends(len: usize, start: i64, end: i64) -> std::ops::Range<usize> {
    let before = end < 0 && end.unsigned_abs() > len as u64;
    super::list::range(len, start, if before { 0 } else { end })
}

fn bits_of(bytes: &[u8]) -> Vec<bool> {
    bytes.iter().flat_map(|byte| (0..8).map(move |bit| byte << bit & 0x80 != 0)).collect()
}

/// The part of so many bits.
fn bit_range(len: usize, within: Option<BitRange>) -> std::ops::Range<usize> {
    let Some(BitRange { start, end, by_bit }) = within else { return 0..len };
    let unit = if by_bit { 1 } else { 8 };
    let range = ends(len / unit, start, end.unwrap_or(-1));
    range.start * unit..range.end * unit
}

fn too_long(bytes: usize) -> Result<()> {
    if bytes > VALUE_BYTES {
        return Err(Error::new(ErrorKind::Limit, "string exceeds maximum allowed size"));
    }
    Ok(())
}

/// The bytes of an argument that is to be part of a string.
fn content_of(arg: Arg<'_>) -> Result<&[u8]> {
    arg.content().ok_or_else(|| Error::invalid("value must be text or bytes"))
}
