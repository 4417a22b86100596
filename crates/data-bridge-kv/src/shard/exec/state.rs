//! Executors of compare-and-set, versioned writes and state transitions.

use std::sync::Arc;

use data_bridge_kv_model::command::{Expected, Expiry, StateCommand, Transition};
use data_bridge_kv_model::identity::same_identity;
use data_bridge_kv_model::value::Moment;
use data_bridge_kv_model::{Arg, Error, ErrorKind, Found, Key, ReplyBuf, Result, Shape, Value, ValueRef};

use super::hash::find;
use super::scalar::{deadline, put_or_delete};
use super::{check_growth, is_expected, member, new_value};
use crate::collections::{Collection, Fields, Packed};
use crate::mutation::Mutation;
use crate::shard::txn::{Place, put_versioned};
use crate::shard::{Txn, put_value};
use crate::table::{EntryRef, NewValue, Stored};

/// The field with the last transitions of a task.
const HISTORY: &str = "history";

/// Executes a command on states and versions.
pub fn run(txn: &mut Txn<'_>, command: &StateCommand<'_>, out: &mut ReplyBuf) -> Result<()> {
    match command {
        StateCommand::CompareAndSet { key, expected, value, expiry } => {
            compare_and_set(txn, *key, *expected, *value, *expiry, out)
        }
        StateCommand::CompareAndDelete { key, expected } => {
            let place = txn.place(*key);
            let holds = holds(txn, place, *expected)?;
            if holds {
                txn.delete(place);
            }
            out.boolean(holds);
            Ok(())
        }
        StateCommand::GetVersioned { key } => {
            let (place, space) = (txn.place(*key), txn.space());
            txn.with_value(place, |entry| {
                match entry {
                    Some(entry) => {
                        put_versioned(Some((entry.value(), space.version(entry.sequence()))), 0, out)
                    }
                    None => out.missing(),
                }
                Ok(())
            })
        }
        StateCommand::SetIfVersion { key, value, version, expiry } => {
            let place = txn.place(*key);
            check_version(txn, place, *version)?;
            let mut scratch = Vec::new();
            let value = new_value(value.value(&mut scratch)?)?;
            let current = txn.peek(place).and_then(EntryRef::deadline);
            let deadline = deadline(txn, *expiry, current);
            let version = put_or_delete(txn, place, value, deadline)?;
            out.version(version);
            Ok(())
        }
        StateCommand::DeleteIfVersion { key, version } => {
            let place = txn.place(*key);
            check_version(txn, place, *version)?;
            txn.delete(place);
            out.ok();
            Ok(())
        }
        StateCommand::Transition(step) => transition(txn, step, out),
        StateCommand::Wait { .. } | StateCommand::Watch { .. } | StateCommand::Unwatch { .. } => {
            Err(Error::new(ErrorKind::Unavailable, "waiting can't be part of an atomic step"))
        }
    }
}

/// Whether a key is as expected.
fn holds(txn: &mut Txn<'_>, place: Place<'_>, expected: Expected<'_>) -> Result<bool> {
    let stored = txn.find(place).map(EntryRef::value);
    match (expected, stored) {
        (Expected::Missing, stored) => Ok(stored.is_none()),
        (Expected::Value(_), None) => Ok(false),
        (Expected::Value(expected), Some(stored)) => match super::super::scalar(stored) {
            Some(value) => is_expected(value, expected),
            None => {
                let encoded = encoded(stored);
                let Some(value) = ValueRef::decode(&encoded).ok() else { return Ok(false) };
                is_expected(value, expected)
            }
        },
    }
}

/// A stored value as codec bytes.
fn encoded(stored: Stored<'_>) -> Box<[u8]> {
    let mut out = ReplyBuf::new();
    put_value(stored, &mut out);
    out.as_bytes().into()
}

fn compare_and_set(
    txn: &mut Txn<'_>,
    key: Key<'_>,
    expected: Expected<'_>,
    value: Arg<'_>,
    expiry: Expiry,
    out: &mut ReplyBuf,
) -> Result<()> {
    let place = txn.place(key);
    let mut scratch = Vec::new();
    let value = new_value(value.value(&mut scratch)?)?;
    let holds = holds(txn, place, expected)?;
    if holds {
        let current = txn.peek(place).and_then(EntryRef::deadline);
        let deadline = deadline(txn, expiry, current);
        put_or_delete(txn, place, value, deadline)?;
    }
    out.boolean(holds);
    Ok(())
}

fn check_version(txn: &mut Txn<'_>, place: Place<'_>, expected: u64) -> Result<()> {
    let version = txn.version(place);
    if version == expected {
        return Ok(());
    }
    let current = txn.peek(place).map(|entry| encoded(entry.value()));
    Err(Error::conflict("version differs", Found { current, version }))
}

fn transition(txn: &mut Txn<'_>, step: &Transition<'_>, out: &mut ReplyBuf) -> Result<()> {
    let place = txn.place(step.key);
    let (mut field_scratch, mut to_scratch) = (Vec::new(), Vec::new());
    let named = member(step.field, &mut field_scratch)?;
    let to = Packed::from(step.to.value(&mut to_scratch)?);
    let hash = super::hash::read(txn, step.key)?;
    check_growth(hash.map_or(0, Fields::encoded_len), step.update.iter().chain(&[step.field, step.to]))?;
    let update = updates(hash, step.update)?;
    // A field that is there keeps the form in which it is stored.
    let (stored, previous) = find(hash, step.field)?.map(|(f, v)| (f.clone(), v.clone())).unzip();
    let field = stored.as_ref().map_or(named, Packed::value);
    check_update(txn, field, &update)?;
    let version = txn.version(place);
    let allowed = match &previous {
        None => step.or_missing || step.expect.is_empty(),
        Some(state) => {
            let mut any = false;
            for expected in step.expect {
                any |= is_expected_state(state.value(), *expected)?;
            }
            any
        }
    };
    if !allowed || step.fence.is_some_and(|fence| fence != version) {
        let message = if allowed { "fence differs from the version" } else { "state differs" };
        let current = previous.map(|state| state.as_bytes().into());
        return Err(Error::conflict(message, Found { current, version }));
    }
    txn.check_field(place, field, Some(to.value()))?;
    for (field, value) in &update {
        txn.check_field(place, field.value(), Some(value.value()))?;
    }
    let mut update = update;
    update.extend(history(txn, step, &to)?);
    let bytes: usize =
        update.iter().map(|(field, value)| field.as_bytes().len() + value.as_bytes().len()).sum();
    txn.check_effects(step.key, 1 + update.len(), to.as_bytes().len() + bytes)?;
    let version = take_step(txn, place, step.expiry, (field, to), update)?;
    out.container(Shape::Array, 2);
    match &previous {
        Some(state) => out.value(state.value()),
        None => out.missing(),
    }
    out.version(version);
    Ok(())
}

/// Refuses a step whose state would be written over: by an update that names its field in another form, as 0.0 and -0.0 are
/// one, or by the history.
fn check_update(txn: &Txn<'_>, field: ValueRef<'_>, update: &[(Packed, Packed)]) -> Result<()> {
    if update.iter().any(|(named, _)| same_identity(named.value(), field)) {
        return Err(Error::invalid("the state is what TO says: UPDATE can't set its field"));
    }
    if txn.space().settings().history > 0 && same_identity(ValueRef::text(HISTORY), field) {
        return Err(Error::invalid("the namespace keeps a history in this field: the state needs another"));
    }
    Ok(())
}

/// The field of the last transitions, with this one as the newest, where the namespace keeps them: a list of tuples of a
/// state and the time when it began, UTC. Refused where no hash may hold it.
fn history(txn: &mut Txn<'_>, step: &Transition<'_>, to: &Packed) -> Result<Option<(Packed, Packed)>> {
    let kept = txn.space().settings().history;
    if kept == 0 {
        return Ok(None);
    }
    let now = i64::try_from(txn.now()).unwrap_or(i64::MAX);
    let moment = Moment { local_us: now.saturating_mul(1000), offset_us: Some(0), fold: false, zone: None };
    let field = ValueRef::text(HISTORY);
    let fields = super::hash::read(txn, step.key)?;
    let known = fields.and_then(|fields| fields.get(field));
    let others = fields.map_or(0, Fields::encoded_len) - known.map_or(0, |known| known.as_bytes().len());
    let mut steps = match known.map(|known| Value::from_ref(known.value())) {
        Some(Value::List(steps)) => steps,
        // Whatever somebody wrote there is not a history.
        _ => Vec::new(),
    };
    steps.push(Value::Tuple(vec![Value::from_ref(to.value()), Value::Timestamp(Box::new(moment))]));
    steps.drain(..steps.len().saturating_sub(kept));
    let steps = Packed::new(&Value::List(steps).encode());
    // It has each state once more, two levels deeper.
    check_growth(others, step.update.iter().chain(&[step.to, Arg::Value(steps.value())]))?;
    Ok(Some((Packed::from(field), steps)))
}

/// Writes the state, the update and the deadline of a step that was found to be allowed.
fn take_step(
    txn: &mut Txn<'_>,
    place: Place<'_>,
    expiry: Expiry,
    (field, to): (ValueRef<'_>, Packed),
    update: Vec<(Packed, Packed)>,
) -> Result<u64> {
    let Some(current) = txn.peek(place).map(EntryRef::deadline) else {
        let expiry = if expiry == Expiry::Keep { Expiry::Default } else { expiry };
        let deadline = deadline(txn, expiry, None);
        let mut fields = Fields::default();
        fields.insert(field, to.value());
        for (field, value) in update {
            fields.insert(field.value(), value.value());
        }
        let value = NewValue::Collection(Arc::new(Collection::Hash(fields)));
        return put_or_delete(txn, place, value, deadline);
    };
    let deadline = deadline(txn, expiry, current);
    let mut version = txn.change(place, Mutation::FieldSet(field, to.value())).unwrap_or(0);
    for (field, value) in &update {
        version = txn.change(place, Mutation::FieldSet(field.value(), value.value())).unwrap_or(version);
    }
    if current != deadline {
        version = txn.change(place, Mutation::Deadline(deadline)).unwrap_or(version);
    }
    Ok(version)
}

/// Text and Bytes name the same state.
fn is_expected_state(state: ValueRef<'_>, expected: Arg<'_>) -> Result<bool> {
    if let (Arg::Value(_), Some(one), Some(other)) = (expected, state.content(), expected.content()) {
        return Ok(one == other);
    }
    is_expected(state, expected)
}

/// The fields of an update, in the form in which they are stored where they are, with their values.
fn updates(hash: Option<&Fields>, pairs: &[Arg<'_>]) -> Result<Vec<(Packed, Packed)>> {
    let (mut scratch, mut value_scratch) = (Vec::new(), Vec::new());
    let mut update = Vec::with_capacity(pairs.len() / 2);
    for pair in pairs.chunks_exact(2) {
        if let [field, value] = pair {
            let value = Packed::from(value.value(&mut value_scratch)?);
            let field = match find(hash, *field)? {
                Some((stored, _)) => stored.clone(),
                None => Packed::from(member(*field, &mut scratch)?),
            };
            update.push((field, value));
        }
    }
    Ok(update)
}
