//! The model of compare-and-set, versions and transitions. Waiting has no place in a model that runs alone.

use data_bridge_kv_model::command::{Expected, Expiry, StateCommand, Transition};
use data_bridge_kv_model::{Error, ErrorKind, Found, Reply, Result, Shape, Value};

use super::hash::put_field;
use super::matching::{expects, member_of, names, position, same_member, value_of};
use super::{Answer, Space, maybe};

fn version_reply(version: u64) -> Reply {
    Reply::Integer(i64::try_from(version).expect("63 bits"))
}

impl Space {
    pub(super) fn state(&mut self, command: &StateCommand<'_>) -> Answer {
        match command {
            StateCommand::CompareAndSet { key, expected, value, expiry } => {
                let value = value_of(*value)?;
                let holds = self.holds(key.as_str(), *expected)?;
                if holds {
                    let deadline = self.deadline_of(key.as_str(), *expiry);
                    self.put(key.as_str(), value, deadline);
                }
                Ok(Reply::Boolean(holds))
            }
            StateCommand::CompareAndDelete { key, expected } => {
                let holds = self.holds(key.as_str(), *expected)?;
                if holds {
                    self.entries.remove(key.as_str());
                }
                Ok(Reply::Boolean(holds))
            }
            StateCommand::GetVersioned { key } => Ok(match self.get(key.as_str()) {
                None => Reply::Missing,
                Some(entry) => {
                    let items = vec![Reply::Value(entry.value.clone()), version_reply(entry.version)];
                    Reply::Container(Shape::Array, items)
                }
            }),
            StateCommand::SetIfVersion { key, value, version, expiry } => {
                self.check_version(key.as_str(), *version)?;
                let deadline = self.deadline_of(key.as_str(), *expiry);
                Ok(version_reply(self.put(key.as_str(), value_of(*value)?, deadline)))
            }
            StateCommand::DeleteIfVersion { key, version } => {
                self.check_version(key.as_str(), *version)?;
                self.entries.remove(key.as_str());
                Ok(Reply::Ok)
            }
            StateCommand::Transition(step) => self.transition(step),
            StateCommand::Wait { .. } | StateCommand::Watch { .. } | StateCommand::Unwatch { .. } => {
                Err(Error::new(ErrorKind::Unavailable, "the model does not wait"))
            }
        }
    }

    fn holds(&self, key: &str, expected: Expected<'_>) -> Result<bool> {
        match (expected, self.get(key)) {
            (Expected::Missing, entry) => Ok(entry.is_none()),
            (Expected::Value(_), None) => Ok(false),
            (Expected::Value(expected), Some(entry)) => expects(expected, &entry.value),
        }
    }

    fn check_version(&self, key: &str, expected: u64) -> Result<()> {
        let version = self.version(key);
        if version == expected {
            return Ok(());
        }
        let current = self.get(key).map(|entry| entry.value.encode().into());
        Err(Error::conflict("version differs", Found { current, version }))
    }

    fn transition(&mut self, step: &Transition<'_>) -> Answer {
        let key = step.key.as_str();
        let mut fields = self.fields(key)?;
        member_of(step.field)?;
        let at = position(fields.iter().map(|(field, _)| field), step.field)?;
        let previous = at.map(|at| fields[at].1.clone());
        let named = |field| -> Result<Value> {
            let at = position(fields.iter().map(|(field, _)| field), field)?;
            at.map_or_else(|| member_of(field), |at| Ok(fields[at].0.clone()))
        };
        let (to, state) = (value_of(step.to)?, named(step.field)?);
        let updated = step.update.chunks_exact(2).map(|pair| value_of(pair[1]).and_then(|_| named(pair[0])));
        if updated.collect::<Result<Vec<Value>>>()?.iter().any(|field| same_member(field, &state)) {
            return Err(Error::invalid("the update sets the state"));
        }
        let allowed = match &previous {
            None => step.or_missing || step.expect.is_empty(),
            Some(state) => {
                let found = step.expect.iter().map(|expected| names(*expected, state));
                found.collect::<Result<Vec<bool>>>()?.contains(&true)
            }
        };
        let version = self.version(key);
        if !allowed || step.fence.is_some_and(|fence| fence != version) {
            let current = previous.map(|state| state.encode().into());
            return Err(Error::conflict("state or fence differs", Found { current, version }));
        }
        put_field(&mut fields, step.field, to)?;
        for pair in step.update.chunks_exact(2) {
            put_field(&mut fields, pair[0], value_of(pair[1])?)?;
        }
        let is_new = self.get(key).is_none();
        let expiry = if is_new && step.expiry == Expiry::Keep { Expiry::Default } else { step.expiry };
        let deadline = self.deadline_of(key, expiry);
        let version = self.put(key, Value::Hash(fields), deadline);
        Ok(Reply::Container(Shape::Array, vec![maybe(previous), version_reply(version)]))
    }
}
