//! The model of commands on lists.

use std::ops::Range;

use data_bridge_kv_model::command::{End, Keys, ListCommand, Search};
use data_bridge_kv_model::{Arg, Error, ErrorKind, Reply, Result, Shape, Value};

use super::matching::{names, value_of};
use super::{Answer, Space, count, maybe};

/// The indexes from `start` to `end`, both included and negative from the end, that exist.
pub(super) fn range(len: usize, start: i64, end: i64) -> Range<usize> {
    let len = i128::try_from(len).expect("a length fits");
    let place = |index: i64| if index < 0 { (len + i128::from(index)).max(0) } else { i128::from(index) };
    let below = end < 0 && len + i128::from(end) < 0;
    let (start, end) = (place(start), place(end).min(len - 1));
    if below || start > end || len == 0 {
        return 0..0;
    }
    usize::try_from(start).expect("not negative")..usize::try_from(end + 1).expect("not negative")
}

fn index_of(len: usize, index: i64) -> Option<usize> {
    let len = i64::try_from(len).expect("a length fits");
    let place = if index < 0 { len.checked_add(index)? } else { index };
    usize::try_from(place).ok().filter(|_| place < len)
}

fn array(values: impl IntoIterator<Item = Value>) -> Reply {
    Reply::Container(Shape::Array, values.into_iter().map(Reply::Value).collect())
}

fn out_of_range() -> Error {
    Error::out_of_range("index out of range")
}

fn no_such_key() -> Error {
    Error::new(ErrorKind::NotFound, "no such key")
}

impl Space {
    /// The elements of a list; `None` without a key.
    fn elements(&self, key: &str) -> Result<Option<Vec<Value>>> {
        match self.get(key).map(|entry| &entry.value) {
            None => Ok(None),
            Some(Value::List(items)) => Ok(Some(items.clone())),
            Some(_) => Err(Error::wrong_type()),
        }
    }

    /// Writes the list if it is not what it was.
    fn keep(&mut self, key: &str, before: usize, list: Vec<Value>) {
        if list.len() != before {
            self.edit(key, Value::List(list));
        }
    }

    pub(super) fn list(&mut self, command: &ListCommand<'_>) -> Answer {
        match command {
            ListCommand::Push { key, end, values, only_existing } => {
                let Some(list) = self.elements(key.as_str())?.or((!only_existing).then(Vec::new)) else {
                    return Ok(count(0));
                };
                self.push(key.as_str(), list, *end, values)
            }
            ListCommand::Pop { key, end, count } => self.pop(key.as_str(), *end, *count),
            ListCommand::Index { key, index } => {
                let list = self.elements(key.as_str())?.unwrap_or_default();
                Ok(maybe(index_of(list.len(), *index).map(|at| list[at].clone())))
            }
            ListCommand::Range { key, start, end } => {
                let list = self.elements(key.as_str())?.unwrap_or_default();
                Ok(array(list[range(list.len(), *start, *end)].to_vec()))
            }
            ListCommand::Length { key } => Ok(count(self.elements(key.as_str())?.unwrap_or_default().len())),
            ListCommand::Set { key, index, value } => {
                let mut list = self.elements(key.as_str())?.ok_or_else(no_such_key)?;
                let at = index_of(list.len(), *index).ok_or_else(out_of_range)?;
                list[at] = value_of(*value)?;
                self.edit(key.as_str(), Value::List(list));
                Ok(Reply::Ok)
            }
            ListCommand::Remove { key, count, value } => self.remove(key.as_str(), *count, *value),
            ListCommand::Trim { key, start, end } => {
                if let Some(list) = self.elements(key.as_str())? {
                    let kept = list[range(list.len(), *start, *end)].to_vec();
                    self.keep(key.as_str(), list.len(), kept);
                }
                Ok(Reply::Ok)
            }
            ListCommand::Insert { key, before, pivot, value } => {
                let Some(mut list) = self.elements(key.as_str())? else { return Ok(count(0)) };
                let Some(at) = find(&list, *pivot)? else { return Ok(Reply::Integer(-1)) };
                list.insert(if *before { at } else { at + 1 }, value_of(*value)?);
                let length = list.len();
                self.edit(key.as_str(), Value::List(list));
                Ok(count(length))
            }
            ListCommand::InsertAt { key, index, value } => {
                let mut list = self.elements(key.as_str())?.unwrap_or_default();
                let len = i64::try_from(list.len()).expect("a length fits");
                let at = if *index < 0 { (len.saturating_add(*index)).max(0) } else { (*index).min(len) };
                list.insert(usize::try_from(at).expect("not negative"), value_of(*value)?);
                let length = list.len();
                self.edit(key.as_str(), Value::List(list));
                Ok(count(length))
            }
            ListCommand::RemoveAt { key, index } => {
                let mut list = self.elements(key.as_str())?.ok_or_else(no_such_key)?;
                let at = index_of(list.len(), *index).ok_or_else(out_of_range)?;
                let value = list.remove(at);
                self.edit(key.as_str(), Value::List(list));
                Ok(Reply::Value(value))
            }
            ListCommand::PopFirst { keys, end, count, .. } => self.pop_first(*keys, *end, *count),
            ListCommand::Move { from, to, take, put, .. } => {
                self.move_element(from.as_str(), to.as_str(), *take, *put)
            }
            ListCommand::Position { key, value, search } => self.positions(key.as_str(), *value, *search),
        }
    }

    fn positions(&mut self, key: &str, value: Arg<'_>, search: Search) -> Answer {
        let list = self.elements(key)?.unwrap_or_default();
        let mut indexes: Vec<usize> = (0..list.len()).collect();
        if search.rank < 0 {
            indexes.reverse();
        }
        indexes.truncate(search.longest);
        let mut found = Vec::new();
        for index in indexes {
            if names(value, &list[index])? {
                found.push(index);
            }
        }
        let before = usize::try_from(search.rank.unsigned_abs() - 1).unwrap_or(usize::MAX);
        let mut found = found.into_iter().skip(before).map(count);
        match search.count {
            Some(most) => Ok(Reply::Container(Shape::Array, found.take(most).collect())),
            None => Ok(found.next().unwrap_or(Reply::Missing)),
        }
    }

    fn push(&mut self, key: &str, mut list: Vec<Value>, end: End, values: &[Arg<'_>]) -> Answer {
        for value in values {
            let at = if end == End::Head { 0 } else { list.len() };
            list.insert(at, value_of(*value)?);
        }
        let length = list.len();
        self.edit(key, Value::List(list));
        Ok(count(length))
    }

    fn pop(&mut self, key: &str, end: End, count: Option<usize>) -> Answer {
        let Some(mut list) = self.elements(key)? else { return Ok(Reply::Missing) };
        let (before, mut taken) = (list.len(), Vec::new());
        while taken.len() < count.unwrap_or(1) && !list.is_empty() {
            taken.push(list.remove(if end == End::Head { 0 } else { list.len() - 1 }));
        }
        self.keep(key, before, list);
        Ok(if count.is_some() { array(taken) } else { maybe(taken.pop()) })
    }

    fn pop_first(&mut self, keys: Keys<'_>, end: End, count: Option<usize>) -> Answer {
        for key in keys.iter().map(|key| key.as_str()) {
            if self.elements(key)?.is_some_and(|list| !list.is_empty()) {
                let popped = self.pop(key, end, count)?;
                let key = Reply::Value(Value::Text(key.into()));
                return Ok(Reply::Container(Shape::Array, vec![key, popped]));
            }
        }
        Ok(Reply::Missing)
    }

    fn remove(&mut self, key: &str, limit: i64, value: Arg<'_>) -> Answer {
        let Some(list) = self.elements(key)? else { return Ok(count(0)) };
        let mut equal = Vec::new();
        for (at, element) in list.iter().enumerate() {
            if names(value, element)? {
                equal.push(at);
            }
        }
        let most = if limit == 0 {
            equal.len()
        } else {
            usize::try_from(limit.unsigned_abs()).unwrap_or(usize::MAX)
        };
        if limit < 0 {
            equal.reverse();
        }
        equal.truncate(most);
        let kept = list.iter().enumerate().filter(|(at, _)| !equal.contains(at)).map(|(_, v)| v.clone());
        self.keep(key, list.len(), kept.collect());
        Ok(count(equal.len()))
    }

    fn move_element(&mut self, from: &str, to: &str, take: End, put: End) -> Answer {
        let Some(mut source) = self.elements(from)? else { return Ok(Reply::Missing) };
        if source.is_empty() {
            return Ok(Reply::Missing);
        }
        self.elements(to)?;
        let element = source.remove(if take == End::Head { 0 } else { source.len() - 1 });
        let mut target = if from == to { source.clone() } else { self.elements(to)?.unwrap_or_default() };
        target.insert(if put == End::Head { 0 } else { target.len() }, element.clone());
        if from != to {
            self.edit(from, Value::List(source));
        }
        self.edit(to, Value::List(target));
        Ok(Reply::Value(element))
    }
}

fn find(list: &[Value], wanted: Arg<'_>) -> Result<Option<usize>> {
    for (at, element) in list.iter().enumerate() {
        if names(wanted, element)? {
            return Ok(Some(at));
        }
    }
    Ok(None)
}
