//! The model of commands on keys of any kind.

use data_bridge_kv_model::command::{ExpireCondition, KeyCommand, ScanOptions, TimeUnit};
use data_bridge_kv_model::limits::DEADLINE_MS;
use data_bridge_kv_model::{Error, ErrorKind, Glob, Reply, Result, Shape, Value};

use super::{Answer, Entry, Space, count, flag, flush_refused};

impl Space {
    pub(super) fn key(&mut self, command: &KeyCommand<'_>) -> Answer {
        match command {
            KeyCommand::Delete { keys } => {
                let removed = keys.iter().filter(|key| self.entries.remove(key.as_str()).is_some());
                Ok(count(removed.count()))
            }
            KeyCommand::Exists { keys } | KeyCommand::Touch { keys } => {
                Ok(count(keys.iter().filter(|key| self.get(key.as_str()).is_some()).count()))
            }
            KeyCommand::Expire { key, time, absolute, condition } => {
                self.expire_key(key.as_str(), *time, *absolute, *condition)
            }
            KeyCommand::Ttl { key, unit } => Ok(Reply::Integer(self.time_left(key.as_str(), *unit))),
            KeyCommand::Persist { key } => {
                let persists = self.get(key.as_str()).is_some_and(|entry| entry.deadline.is_some());
                if persists {
                    self.set_deadline(key.as_str(), None);
                }
                Ok(flag(persists))
            }
            KeyCommand::Type { key } => {
                let word = self.get(key.as_str()).map_or("none", |entry| entry.value.kind().redis_type());
                Ok(Reply::Status(word.into()))
            }
            KeyCommand::Kind { key } => Ok(self
                .get(key.as_str())
                .map_or(Reply::Missing, |entry| Reply::Status(entry.value.kind().name().into()))),
            KeyCommand::Rename { from, to, only_if_absent } => {
                self.rename(from.as_str(), to.as_str(), *only_if_absent)
            }
            KeyCommand::Copy { from, to, replace } => self.copy(from.as_str(), to.as_str(), *replace),
            KeyCommand::Scan { options, .. } => self.walked(options),
            KeyCommand::Keys { pattern } => {
                let glob = Glob::new(pattern).map_err(|_| Error::new(ErrorKind::Limit, "pattern"))?;
                let found = self.iter().filter(|(key, _)| glob.matches(key.as_bytes()));
                Ok(Reply::Container(Shape::Array, found.map(|(key, _)| text(key)).collect()))
            }
            KeyCommand::Random => Ok(self.iter().next().map_or(Reply::Missing, |(key, _)| text(key))),
            KeyCommand::Size => Ok(count(self.entries.len())),
            KeyCommand::Sync { redis: false } => Ok(Reply::Ok),
            KeyCommand::Sync { redis: true } => {
                Ok(Reply::Container(Shape::Array, vec![Reply::Integer(0), Reply::Integer(0)]))
            }
            KeyCommand::Flush { .. } => {
                if !self.allow_flush {
                    return Err(flush_refused());
                }
                self.entries.clear();
                Ok(Reply::Ok)
            }
            KeyCommand::Clear { prefix } => {
                let before = self.entries.len();
                self.entries.retain(|key, _| !key.as_bytes().starts_with(prefix));
                Ok(count(before - self.entries.len()))
            }
            KeyCommand::Memory { key } => {
                Ok(self.get(key.as_str()).map_or(Reply::Missing, |_| Reply::Integer(1)))
            }
        }
    }

    fn walked(&self, options: &ScanOptions<'_>) -> Answer {
        let found = self.scan(options)?.into_iter();
        let items = if options.values {
            let shown = |entry: &Entry| {
                let value = Reply::Value(entry.value.clone());
                let deadline = entry.deadline.map_or(-1, u64::cast_signed);
                match options.deadlines {
                    true => Reply::Container(Shape::Array, vec![value, Reply::Integer(deadline)]),
                    false => value,
                }
            };
            let pairs = found.flat_map(|(key, entry)| [text(key), shown(entry)]);
            Reply::Container(Shape::Map, pairs.collect())
        } else {
            Reply::Container(Shape::Array, found.map(|(key, _)| text(key)).collect())
        };
        Ok(Reply::Container(Shape::Array, vec![text("0"), items]))
    }

    /// The keys that a whole walk with these options shows.
    fn scan(&self, options: &ScanOptions<'_>) -> Result<Vec<(&str, &Entry)>> {
        let pattern = options.pattern.unwrap_or(b"*");
        let glob = Glob::new(pattern).map_err(|_| Error::new(ErrorKind::Limit, "pattern"))?;
        let shows = |(key, entry): &(&str, &Entry)| {
            let kind = entry.value.kind();
            glob.matches(key.as_bytes())
                && options.prefix.is_none_or(|prefix| key.as_bytes().starts_with(prefix))
                && options.kind.is_none_or(|wanted| wanted == kind)
                && options.redis_type.is_none_or(|wanted| wanted.eq_ignore_ascii_case(kind.redis_type()))
        };
        Ok(self.iter().filter(shows).collect())
    }

    fn expire_key(&mut self, key: &str, time: i64, absolute: bool, condition: ExpireCondition) -> Answer {
        let Some(entry) = self.get(key) else { return Ok(flag(false)) };
        let deadline =
            if absolute { u64::try_from(time).unwrap_or(0) } else { self.now.saturating_add_signed(time) };
        if deadline > DEADLINE_MS {
            return Err(Error::invalid("invalid expire time"));
        }
        // No deadline counts as one that never comes.
        let current = entry.deadline.unwrap_or(u64::MAX);
        let applies = match condition {
            ExpireCondition::Always => true,
            ExpireCondition::IfNone => entry.deadline.is_none(),
            ExpireCondition::IfSome => entry.deadline.is_some(),
            ExpireCondition::IfLater => deadline > current,
            ExpireCondition::IfEarlier => deadline < current,
            ExpireCondition::IfSomeAndEarlier => entry.deadline.is_some() && deadline < current,
        };
        if applies {
            self.set_deadline(key, Some(deadline));
        }
        Ok(flag(applies))
    }

    fn time_left(&self, key: &str, unit: TimeUnit) -> i64 {
        let Some(entry) = self.get(key) else { return -2 };
        let Some(deadline) = entry.deadline else { return -1 };
        let answer = match unit {
            TimeUnit::Seconds => (deadline - self.now + 500) / 1000,
            TimeUnit::Milliseconds => deadline - self.now,
            TimeUnit::UnixSeconds => (deadline + 500) / 1000,
            TimeUnit::UnixMilliseconds => deadline,
        };
        i64::try_from(answer).expect("48 bits")
    }

    fn copy(&mut self, from: &str, to: &str, replace: bool) -> Answer {
        if from == to {
            return Err(Error::invalid("source and destination objects are the same"));
        }
        let copied = self.get(from).filter(|_| replace || self.get(to).is_none()).cloned();
        let is_copied = copied.is_some();
        if let Some(entry) = copied {
            self.put(to, entry.value, entry.deadline);
        }
        Ok(flag(is_copied))
    }

    fn rename(&mut self, from: &str, to: &str, only_if_absent: bool) -> Answer {
        let Some(entry) = self.get(from).cloned() else {
            return Err(Error::new(ErrorKind::NotFound, "no such key"));
        };
        if only_if_absent && self.get(to).is_some() {
            return Ok(flag(false));
        }
        if from != to {
            self.entries.remove(from);
            self.put(to, entry.value, entry.deadline);
        }
        Ok(if only_if_absent { flag(true) } else { Reply::Ok })
    }
}

fn text(key: &str) -> Reply {
    Reply::Value(Value::Text(key.into()))
}
