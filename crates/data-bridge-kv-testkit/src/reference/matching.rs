//! When two values are the same: as members, and exactly; and which stored values an argument names.

use data_bridge_kv_model::{Arg, Kind, Result, Value, ValueRef, show};

use super::zset::{order, pairs_of, sorted_set};

/// The value of an argument.
pub fn value_of(arg: Arg<'_>) -> Result<Value> {
    let mut scratch = Vec::new();
    arg.value(&mut scratch).map(Value::from_ref)
}

/// What a Redis client is shown of a scalar.
pub fn shown(value: &Value) -> Option<Vec<u8>> {
    let encoded = value.encode();
    let mut text = Vec::new();
    show::show(ValueRef::decode(&encoded).ok()?, &mut text).then_some(text)
}

/// The bytes of Text and Bytes.
pub(super) fn content(value: &Value) -> Option<&[u8]> {
    match value {
        Value::Text(text) => Some(text.as_bytes()),
        Value::Bytes(bytes) => Some(bytes),
        _ => None,
    }
}

/// Whether both are one member of a set or one field.
pub(super) fn same_member(one: &Value, other: &Value) -> bool {
    if let (Some(one), Some(other)) = (content(one), content(other)) {
        return one == other;
    }
    match (one, other) {
        (Value::Float(one), Value::Float(other)) => one == other || one.is_nan() && other.is_nan(),
        (Value::Decimal(one), Value::Decimal(other)) => one.numeric_eq(*other),
        (Value::Tuple(one), Value::Tuple(other)) => {
            one.len() == other.len() && one.iter().zip(other).all(|(one, other)| same_member(one, other))
        }
        (Value::FrozenSet(one), Value::FrozenSet(other)) => {
            one.len() == other.len()
                && one.iter().all(|one| other.iter().any(|other| same_member(one, other)))
        }
        _ => one.encode() == other.encode(),
    }
}

/// Whether both are exactly the same: kind and every bit; the order of sets and hashes does not count.
pub(super) fn exactly(one: &Value, other: &Value) -> bool {
    let same_items = |one: &[Value], other: &[Value]| {
        one.len() == other.len() && one.iter().all(|one| other.iter().any(|other| exactly(one, other)))
    };
    match (one, other) {
        (Value::Set(one), Value::Set(other)) | (Value::FrozenSet(one), Value::FrozenSet(other)) => {
            same_items(one, other)
        }
        (Value::List(one), Value::List(other)) | (Value::Tuple(one), Value::Tuple(other)) => {
            one.len() == other.len() && one.iter().zip(other).all(|(one, other)| exactly(one, other))
        }
        (Value::Hash(one), Value::Hash(other)) => {
            one.len() == other.len()
                && one.iter().all(|(field, value)| {
                    other.iter().any(|(name, held)| exactly(field, name) && exactly(value, held))
                })
        }
        (Value::Tagged(one), Value::Tagged(other)) => one.0 == other.0 && exactly(&one.1, &other.1),
        // Without members there are no scores that could be of another kind.
        (Value::SortedSet(one), Value::SortedSet(other)) if pairs_of(one).1.is_empty() => {
            pairs_of(other).1.is_empty()
        }
        _ => one.encode() == other.encode(),
    }
}

/// Whether an argument of a conditional write is this value.
pub(super) fn expects(arg: Arg<'_>, value: &Value) -> Result<bool> {
    match arg {
        Arg::Untyped(bytes) => Ok(shown(value).is_some_and(|text| text == bytes)),
        typed => Ok(exactly(&value_of(typed)?, value)),
    }
}

/// Whether an argument names this element of a list or this state: exactly, but Text and Bytes alike.
pub(super) fn names(arg: Arg<'_>, value: &Value) -> Result<bool> {
    match arg {
        Arg::Untyped(bytes) => Ok(shown(value).is_some_and(|text| text == bytes)),
        typed => {
            let wanted = value_of(typed)?;
            Ok(match (content(&wanted), content(value)) {
                (Some(wanted), Some(held)) => wanted == held,
                _ => exactly(&wanted, value),
            })
        }
    }
}

/// Which member an argument names. Untyped bytes name the Text or Bytes of the same content, else the first kind
/// below of which a member is shown as these bytes.
pub(super) fn position<'v>(members: impl Iterator<Item = &'v Value>, arg: Arg<'_>) -> Result<Option<usize>> {
    let members: Vec<&Value> = members.collect();
    let Arg::Untyped(bytes) = arg else {
        let wanted = member_of(arg)?;
        return Ok(members.iter().position(|member| same_member(member, &wanted)));
    };
    if let Some(at) = members.iter().position(|member| content(member) == Some(bytes)) {
        return Ok(Some(at));
    }
    let kinds = [Kind::Int, Kind::Float, Kind::Decimal, Kind::Bool, Kind::BigInt, Kind::Uuid];
    Ok(kinds.into_iter().find_map(|kind| {
        let is_shown = |member: &Value| member.kind() == kind && shown(member).as_deref() == Some(bytes);
        members.iter().position(|member| is_shown(member))
    }))
}

/// An argument as a new member or field; an error for what can be none.
pub(super) fn member_of(arg: Arg<'_>) -> Result<Value> {
    let value = value_of(arg)?;
    let encoded = value.encode();
    if ValueRef::decode(&encoded)?.is_member() {
        return Ok(value);
    }
    let message = "a member or field must be a scalar";
    Err(data_bridge_kv_model::Error::new(data_bridge_kv_model::ErrorKind::UnsupportedValue, message))
}

/// A value as it is stored: members and fields once each, sorted sets in order.
pub fn normal(value: Value) -> Value {
    match value {
        Value::Set(items) => {
            let mut members: Vec<Value> = Vec::new();
            for item in items {
                if !members.iter().any(|member| same_member(member, &item)) {
                    members.push(item);
                }
            }
            Value::Set(members)
        }
        Value::Hash(pairs) => {
            let mut fields: Vec<(Value, Value)> = Vec::new();
            for (field, value) in pairs {
                match fields.iter_mut().find(|(name, _)| same_member(name, &field)) {
                    Some((_, held)) => *held = value,
                    None => fields.push((field, value)),
                }
            }
            Value::Hash(fields)
        }
        Value::SortedSet(set) => {
            let (kind, pairs) = pairs_of(&set);
            let mut members: Vec<(Value, Value)> = Vec::new();
            for (score, member) in pairs {
                match members.iter_mut().find(|(_, held)| same_member(held, &member)) {
                    Some((held, _)) => *held = score,
                    None => members.push((score, member)),
                }
            }
            members.sort_by(order);
            sorted_set(kind, members)
        }
        other => other,
    }
}
