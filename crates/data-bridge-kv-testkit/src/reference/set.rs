//! The model of commands on sets. What is random takes the first members.

use data_bridge_kv_model::command::{Expiry, ScanOptions, SetCommand, SetOperation};
use data_bridge_kv_model::{Arg, Error, ErrorKind, Glob, Reply, Result, Shape, Value};

use super::matching::{member_of, position, same_member, shown};
use super::{Answer, Space, count, flag, maybe};

/// How many a random pick takes of `len`: with repeats where `count` is negative.
pub(super) fn picks(len: usize, count: i64) -> Vec<usize> {
    let wanted = usize::try_from(count.unsigned_abs()).expect("a count fits");
    match (len, count < 0) {
        (0, _) => Vec::new(),
        (_, true) => vec![0; wanted],
        (_, false) => (0..wanted.min(len)).collect(),
    }
}

/// Whether a walk shows a member.
pub(super) fn is_scanned(member: &Value, options: &ScanOptions<'_>) -> Result<bool> {
    if options.pattern.is_none() && options.prefix.is_none() {
        return Ok(true);
    }
    let glob =
        Glob::new(options.pattern.unwrap_or(b"*")).map_err(|_| Error::new(ErrorKind::Limit, "pattern"))?;
    let text = shown(member);
    Ok(text.is_some_and(|text| {
        glob.matches(&text) && options.prefix.is_none_or(|prefix| text.starts_with(prefix))
    }))
}

/// The reply of a walk that ends at once.
pub(super) fn scanned(shape: Shape, items: Vec<Reply>) -> Reply {
    let end = Reply::Value(Value::Text("0".into()));
    Reply::Container(Shape::Array, vec![end, Reply::Container(shape, items)])
}

fn values(shape: Shape, members: Vec<Value>) -> Reply {
    Reply::Container(shape, members.into_iter().map(Reply::Value).collect())
}

impl Space {
    fn members(&self, key: &str) -> Result<Option<Vec<Value>>> {
        match self.get(key).map(|entry| &entry.value) {
            None => Ok(None),
            Some(Value::Set(members)) => Ok(Some(members.clone())),
            Some(_) => Err(Error::wrong_type()),
        }
    }

    fn keep_members(&mut self, key: &str, before: usize, members: Vec<Value>) {
        if members.len() != before {
            self.edit(key, Value::Set(members));
        }
    }

    // long: one arm a command
    pub(super) fn set(&mut self, command: &SetCommand<'_>) -> Answer {
        match command {
            SetCommand::Add { key, members } => {
                let mut set = self.members(key.as_str())?.unwrap_or_default();
                let before = set.len();
                for member in *members {
                    if position(set.iter(), *member)?.is_none() {
                        set.push(member_of(*member)?);
                    }
                }
                let added = set.len() - before;
                self.keep_members(key.as_str(), before, set);
                Ok(count(added))
            }
            SetCommand::Remove { key, members } => {
                let mut set = self.members(key.as_str())?.unwrap_or_default();
                let before = set.len();
                for member in *members {
                    if let Some(at) = position(set.iter(), *member)? {
                        set.remove(at);
                    }
                }
                let removed = before - set.len();
                self.keep_members(key.as_str(), before, set);
                Ok(count(removed))
            }
            SetCommand::Contains { key, member } => {
                let set = self.members(key.as_str())?.unwrap_or_default();
                Ok(flag(position(set.iter(), *member)?.is_some()))
            }
            SetCommand::ContainsMany { key, members } => {
                let set = self.members(key.as_str())?.unwrap_or_default();
                let found = members.iter().map(|member| Ok(flag(position(set.iter(), *member)?.is_some())));
                Ok(Reply::Container(Shape::Array, found.collect::<Result<_>>()?))
            }
            SetCommand::Members { key } => {
                Ok(values(Shape::Members, self.members(key.as_str())?.unwrap_or_default()))
            }
            SetCommand::Length { key } => Ok(count(self.members(key.as_str())?.unwrap_or_default().len())),
            SetCommand::Pop { key, count } => {
                let mut set = self.members(key.as_str())?.unwrap_or_default();
                let (before, taken) = (set.len(), count.unwrap_or(1).min(set.len()));
                let mut taken: Vec<Value> = set.drain(..taken).collect();
                self.keep_members(key.as_str(), before, set);
                Ok(if count.is_some() { values(Shape::Members, taken) } else { maybe(taken.pop()) })
            }
            SetCommand::Random { key, count } => {
                let set = self.members(key.as_str())?.unwrap_or_default();
                let Some(count) = count else { return Ok(maybe(set.first().cloned())) };
                let picked = picks(set.len(), *count).into_iter().map(|at| set[at].clone());
                Ok(values(Shape::Array, picked.collect()))
            }
            SetCommand::Move { from, to, member } => self.move_member(from.as_str(), to.as_str(), *member),
            SetCommand::Combine { operation, store, keys } => {
                let sets = keys.iter().map(|key| Ok(self.members(key.as_str())?.unwrap_or_default()));
                let result = combine(*operation, &sets.collect::<Result<Vec<_>>>()?);
                let Some(store) = store else { return Ok(values(Shape::Members, result)) };
                let length = result.len();
                if length == 0 {
                    self.entries.remove(store.as_str());
                } else {
                    let deadline = self.deadline_of(store.as_str(), Expiry::Default);
                    self.put(store.as_str(), Value::Set(result), deadline);
                }
                Ok(count(length))
            }
            SetCommand::CountCommon { keys, limit } => {
                let sets = keys.iter().map(|key| Ok(self.members(key.as_str())?.unwrap_or_default()));
                let common = combine(SetOperation::Intersection, &sets.collect::<Result<Vec<_>>>()?).len();
                Ok(count(if *limit == 0 { common } else { common.min(*limit) }))
            }
            SetCommand::Scan { key, options, .. } => {
                let mut items = Vec::new();
                for member in self.members(key.as_str())?.unwrap_or_default() {
                    if is_scanned(&member, options)? {
                        items.push(Reply::Value(member));
                    }
                }
                Ok(scanned(Shape::Array, items))
            }
        }
    }

    fn move_member(&mut self, from: &str, to: &str, member: Arg<'_>) -> Answer {
        let Some(mut source) = self.members(from)? else { return Ok(flag(false)) };
        let mut target = self.members(to)?.unwrap_or_default();
        let Some(at) = position(source.iter(), member)? else { return Ok(flag(false)) };
        if from != to {
            let member = source.remove(at);
            self.edit(from, Value::Set(source));
            if !target.iter().any(|held| same_member(held, &member)) {
                target.push(member);
                self.edit(to, Value::Set(target));
            }
        }
        Ok(flag(true))
    }
}

fn combine(operation: SetOperation, sets: &[Vec<Value>]) -> Vec<Value> {
    let has = |set: &[Value], member: &Value| set.iter().any(|held| same_member(held, member));
    let Some((first, rest)) = sets.split_first() else { return Vec::new() };
    let mut result = first.clone();
    for set in rest {
        match operation {
            SetOperation::Intersection => result.retain(|member| has(set, member)),
            SetOperation::Difference => result.retain(|member| !has(set, member)),
            SetOperation::Union => {
                for member in set {
                    if !has(&result, member) {
                        result.push(member.clone());
                    }
                }
            }
        }
    }
    result
}
