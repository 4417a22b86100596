//! Effects in words, for people who look at a log.

use std::fmt::Write;

use data_bridge_kv_model::{Value, ValueRef};

use super::Mutation;
use super::bytes::Effect;
use crate::collections::Collection;
use crate::table::NewValue;

/// Characters of a value that are shown.
const SHOWN_CHARS: usize = 80;

/// Appends one effect: what is done to which key, and the version that it has from then on.
pub fn describe(effect: &Effect<'_>, out: &mut String) {
    let key = String::from_utf8_lossy(effect.key);
    let what = match &effect.mutation {
        Mutation::Put { value, deadline: None } => format!("put {key:?} = {}", new_value(value)),
        Mutation::Put { value, deadline: Some(at) } => {
            format!("put {key:?} = {} until {at}", new_value(value))
        }
        Mutation::Delete => format!("delete {key:?}"),
        Mutation::Deadline(None) => format!("persist {key:?}"),
        Mutation::Deadline(Some(at)) => format!("expire {key:?} at {at}"),
        Mutation::ListInsert(index, element) => {
            format!("list {key:?} insert {index}: {}", value(element.value()))
        }
        Mutation::ListSet(index, element) => format!("list {key:?} set {index}: {}", value(element.value())),
        Mutation::ListRemove(index) => format!("list {key:?} remove {index}"),
        Mutation::ListTrim(start, end) => format!("list {key:?} keep {start}..{end}"),
        Mutation::SetInsert(member) => format!("set {key:?} add {}", value(*member)),
        Mutation::SetRemove(member) => format!("set {key:?} remove {}", value(*member)),
        Mutation::FieldSet(field, to) => {
            format!("hash {key:?} set {} = {}", value(*field), value(*to))
        }
        Mutation::FieldRemove(field) => format!("hash {key:?} remove {}", value(*field)),
        Mutation::ScoreSet(member, score) => format!("zset {key:?} set {} = {score:?}", value(*member)),
        Mutation::ScoreRemove(member) => format!("zset {key:?} remove {}", value(*member)),
    };
    // Writing to a string does not fail.
    let _ = write!(out, "{what} (version {})", effect.version);
}

fn new_value(new: &NewValue<'_>) -> String {
    match new {
        NewValue::Payload { kind, bytes } | NewValue::Whole { kind, bytes } => {
            value(ValueRef::from_parts(*kind, bytes))
        }
        NewValue::Blob { kind, blob } => value(ValueRef::from_parts(*kind, blob)),
        NewValue::Collection(collection) => collection_of(collection),
    }
}

fn collection_of(collection: &Collection) -> String {
    let mut encoded = Vec::new();
    collection.encode_into(&mut encoded);
    ValueRef::decode(&encoded).map_or_else(|error| error.to_string(), value)
}

fn value(value: ValueRef<'_>) -> String {
    let text = format!("{:?}", Value::from_ref(value));
    match text.char_indices().nth(SHOWN_CHARS) {
        Some((end, _)) => format!("{}..", &text[..end]),
        None => text,
    }
}
