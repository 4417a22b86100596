//! The model of commands on hashes. What is random takes the first fields.

use data_bridge_kv_model::command::HashCommand;
use data_bridge_kv_model::{Arg, Error, Reply, Result, Shape, Value};

use super::matching::{member_of, position, shown, value_of};
use super::set::{is_scanned, picks, scanned};
use super::{Answer, Space, count, flag, maybe};

type Fields = Vec<(Value, Value)>;

fn find(fields: &Fields, field: Arg<'_>) -> Result<Option<usize>> {
    position(fields.iter().map(|(field, _)| field), field)
}

fn held(fields: &Fields, field: Arg<'_>) -> Result<Option<Value>> {
    Ok(find(fields, field)?.map(|at| fields[at].1.clone()))
}

/// Sets a field, which keeps its place and form where it is there; whether it is new.
pub(super) fn put_field(fields: &mut Fields, field: Arg<'_>, value: Value) -> Result<bool> {
    let found = find(fields, field)?;
    match found {
        Some(at) => fields[at].1 = value,
        None => fields.push((member_of(field)?, value)),
    }
    Ok(found.is_none())
}

impl Space {
    /// The fields of a hash; none without a key.
    pub(super) fn fields(&self, key: &str) -> Result<Fields> {
        match self.get(key).map(|entry| &entry.value) {
            None => Ok(Vec::new()),
            Some(Value::Hash(fields)) => Ok(fields.clone()),
            Some(_) => Err(Error::wrong_type()),
        }
    }

    pub(super) fn hash(&mut self, command: &HashCommand<'_>) -> Answer {
        match command {
            HashCommand::Set { key, pairs, status } => {
                let mut fields = self.fields(key.as_str())?;
                let mut added = 0;
                for pair in pairs.chunks_exact(2) {
                    added += usize::from(put_field(&mut fields, pair[0], value_of(pair[1])?)?);
                }
                self.edit(key.as_str(), Value::Hash(fields));
                Ok(if *status { Reply::Ok } else { count(added) })
            }
            HashCommand::SetIfAbsent { key, field, value } => {
                Ok(flag(self.set_if_absent(key.as_str(), *field, *value)?))
            }
            HashCommand::SetDefault { key, field, value } => {
                self.set_if_absent(key.as_str(), *field, *value)?;
                Ok(maybe(held(&self.fields(key.as_str())?, *field)?))
            }
            HashCommand::Get { key, field } => Ok(maybe(held(&self.fields(key.as_str())?, *field)?)),
            HashCommand::MultiGet { key, fields } => {
                let stored = self.fields(key.as_str())?;
                let values = fields.iter().map(|field| Ok(maybe(held(&stored, *field)?)));
                Ok(Reply::Container(Shape::Array, values.collect::<Result<_>>()?))
            }
            HashCommand::Delete { key, fields } => {
                let mut stored = self.fields(key.as_str())?;
                let before = stored.len();
                for field in *fields {
                    if let Some(at) = find(&stored, *field)? {
                        stored.remove(at);
                    }
                }
                let removed = before - stored.len();
                if removed > 0 {
                    self.edit(key.as_str(), Value::Hash(stored));
                }
                Ok(count(removed))
            }
            HashCommand::Pop { key, field } => {
                let mut stored = self.fields(key.as_str())?;
                let Some(at) = find(&stored, *field)? else { return Ok(Reply::Missing) };
                let (_, value) = stored.remove(at);
                self.edit(key.as_str(), Value::Hash(stored));
                Ok(Reply::Value(value))
            }
            HashCommand::Add { key, field, by, style } => {
                let mut fields = self.fields(key.as_str())?;
                let sum = super::number::add(held(&fields, *field)?.as_ref(), *by, false, false, *style)?;
                put_field(&mut fields, *field, sum.clone())?;
                self.edit(key.as_str(), Value::Hash(fields));
                Ok(super::number::answer(&sum, *style))
            }
            HashCommand::All { .. }
            | HashCommand::Fields { .. }
            | HashCommand::Values { .. }
            | HashCommand::Length { .. }
            | HashCommand::Contains { .. }
            | HashCommand::ValueLength { .. }
            | HashCommand::Random { .. }
            | HashCommand::Scan { .. } => self.read_hash(command),
        }
    }

    fn read_hash(&self, command: &HashCommand<'_>) -> Answer {
        let values = |values: Vec<Value>| {
            Reply::Container(Shape::Array, values.into_iter().map(Reply::Value).collect())
        };
        let flat = |(field, value): (Value, Value)| [Reply::Value(field), Reply::Value(value)];
        Ok(match command {
            HashCommand::All { key } => {
                let fields = self.fields(key.as_str())?;
                Reply::Container(Shape::Map, fields.into_iter().flat_map(flat).collect())
            }
            HashCommand::Fields { key } => {
                values(self.fields(key.as_str())?.into_iter().map(|(field, _)| field).collect())
            }
            HashCommand::Values { key } => {
                values(self.fields(key.as_str())?.into_iter().map(|(_, value)| value).collect())
            }
            HashCommand::Length { key } => count(self.fields(key.as_str())?.len()),
            HashCommand::Contains { key, field } => {
                flag(find(&self.fields(key.as_str())?, *field)?.is_some())
            }
            HashCommand::ValueLength { key, field } => {
                let value = held(&self.fields(key.as_str())?, *field)?;
                count(value.and_then(|value| shown(&value)).unwrap_or_default().len())
            }
            HashCommand::Random { key, count, values: with_values } => {
                let fields = self.fields(key.as_str())?;
                let Some(count) = count else {
                    return Ok(maybe(fields.first().map(|(field, _)| field.clone())));
                };
                let picked = picks(fields.len(), *count).into_iter().map(|at| fields[at].clone());
                if *with_values {
                    Reply::Container(Shape::Scored, picked.flat_map(flat).collect())
                } else {
                    values(picked.map(|(field, _)| field).collect())
                }
            }
            HashCommand::Scan { key, options, .. } => {
                let mut items = Vec::new();
                for (field, value) in self.fields(key.as_str())? {
                    if is_scanned(&field, options)? {
                        items.push(Reply::Value(field));
                        items.extend(options.values.then_some(Reply::Value(value)));
                    }
                }
                scanned(if options.values { Shape::Map } else { Shape::Array }, items)
            }
            _ => Reply::Missing,
        })
    }

    fn set_if_absent(&mut self, key: &str, field: Arg<'_>, value: Arg<'_>) -> Result<bool> {
        let mut fields = self.fields(key)?;
        let absent = find(&fields, field)?.is_none();
        if absent {
            put_field(&mut fields, field, value_of(value)?)?;
            self.edit(key, Value::Hash(fields));
        }
        Ok(absent)
    }
}
