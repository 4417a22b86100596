//! Values as JSON that a person can read and that loses nothing: what `export` writes and `import` reads.
//!
//! ```text
//! null, true, 5, "text", [list], {"field": value} for a hash whose fields are all text without a leading $
//! 1.0, 1e300        a float: a number with a point or an exponent
//! {"$float": "nan"}, "inf", "-inf", "nan:<bits, 16 hexadecimal digits>"
//! {"$bytes": "text"}, {"$hex": "ff00"} for bytes that are no UTF-8
//! {"$decimal": "1.10"}, $bigint, $timestamp, $date, $time, $duration, $uuid: the text that a Redis client is shown
//! {"$set": [..]}, {"$frozenset": [..]}, {"$tuple": [..]}, {"$hash": [[field, value], ..]}
//! {"$sortedset": [[score, member], ..]}, {"$sortedset_decimal": [["1.10", member], ..]}
//! {"$tagged": [name, value]}, {"$opaque": [codec, hex]}, {"$encoded": hex of the value in the codec}
//! ```

use std::collections::HashSet;
use std::fmt;

use data_bridge_kv_model::show::show;
use data_bridge_kv_model::value::SortedSet;
use data_bridge_kv_model::{Arg, Decimal, Kind, Value, ValueRef};
use serde::de::{Deserialize, Deserializer, Error, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Number, Value as Json};

/// Kinds that are written as the text that a Redis client is shown.
const SHOWN: [Kind; 7] =
    [Kind::Decimal, Kind::BigInt, Kind::Timestamp, Kind::Date, Kind::Time, Kind::Duration, Kind::Uuid];

/// A value as JSON.
pub fn write(value: &Value) -> Json {
    let all = |items: &[Value]| Json::Array(items.iter().map(write).collect());
    match value {
        Value::Null => Json::Null,
        Value::Bool(yes) => Json::Bool(*yes),
        Value::Int(number) => Json::Number((*number).into()),
        Value::Float(number) => float(*number),
        Value::Text(text) => Json::String(text.as_ref().to_owned()),
        Value::Bytes(bytes) => match std::str::from_utf8(bytes) {
            Ok(text) => tagged("$bytes", Json::String(text.to_owned())),
            Err(_) => tagged("$hex", Json::String(hex(bytes))),
        },
        Value::List(items) => all(items),
        Value::Set(members) => tagged("$set", all(members)),
        Value::FrozenSet(members) => tagged("$frozenset", all(members)),
        Value::Tuple(items) => tagged("$tuple", all(items)),
        Value::Hash(fields) => hash(fields),
        Value::SortedSet(SortedSet::Float(members)) => {
            let pair = |(score, member): &(f64, Value)| Json::Array(vec![float(*score), write(member)]);
            tagged("$sortedset", Json::Array(members.iter().map(pair).collect()))
        }
        Value::SortedSet(SortedSet::Decimal(members)) => {
            let pair = |(score, member): &(Decimal, Value)| {
                Json::Array(vec![Json::String(score.to_string()), write(member)])
            };
            tagged("$sortedset_decimal", Json::Array(members.iter().map(pair).collect()))
        }
        Value::Opaque(parts) => {
            let (codec, bytes) = (parts.0.as_ref().to_owned(), hex(&parts.1));
            tagged("$opaque", Json::Array(vec![Json::String(codec), Json::String(bytes)]))
        }
        Value::Tagged(parts) => {
            let name = Json::String(parts.0.as_ref().to_owned());
            tagged("$tagged", Json::Array(vec![name, write(&parts.1)]))
        }
        Value::Decimal(_)
        | Value::BigInt(_)
        | Value::Timestamp(_)
        | Value::Date(_)
        | Value::Time(_)
        | Value::Duration(..)
        | Value::Uuid(_) => shown(value),
    }
}

fn tagged(tag: &str, json: Json) -> Json {
    Json::Object(Map::from_iter([(tag.to_owned(), json)]))
}

fn float(number: f64) -> Json {
    match Number::from_f64(number) {
        Some(number) => Json::Number(number),
        None if number.to_bits() == f64::NAN.to_bits() => tagged("$float", Json::String("nan".to_owned())),
        None if number.is_nan() => tagged("$float", Json::String(format!("nan:{:016x}", number.to_bits()))),
        None => tagged("$float", Json::String(if number > 0.0 { "inf" } else { "-inf" }.to_owned())),
    }
}

fn hash(fields: &[(Value, Value)]) -> Json {
    let plain = |(field, value): &(Value, Value)| match field {
        Value::Text(name) if !name.starts_with('$') => Some((name.as_ref().to_owned(), write(value))),
        _ => None,
    };
    if let Some(fields) = fields.iter().map(plain).collect::<Option<Map<String, Json>>>() {
        return Json::Object(fields);
    }
    let pair = |(field, value): &(Value, Value)| Json::Array(vec![write(field), write(value)]);
    tagged("$hash", Json::Array(fields.iter().map(pair).collect()))
}

/// A scalar as its text, if that reads back as the same value.
fn shown(value: &Value) -> Json {
    let (encoded, mut text) = (value.encode(), Vec::new());
    let is_shown = ValueRef::decode(&encoded).is_ok_and(|value| show(value, &mut text));
    let text = String::from_utf8(text).ok().filter(|_| is_shown);
    match text.filter(|text| scalar(value.kind(), text).as_ref() == Ok(value)) {
        Some(text) => tagged(&format!("${}", value.kind().name()), Json::String(text)),
        None => tagged("$encoded", Json::String(hex(&encoded))),
    }
}

fn scalar(kind: Kind, text: &str) -> Result<Value, String> {
    let mut scratch = Vec::new();
    let value = Arg::Literal(kind, text.as_bytes()).value(&mut scratch);
    value.map(Value::from_ref).map_err(|error| format!("{text:?}: {error}"))
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Reads JSON in whose objects no field comes twice.
///
/// # Errors
/// Says what is wrong, in words for whoever wrote the JSON.
pub fn parse(text: &str) -> Result<Json, String> {
    let parsed = serde_json::from_str(text).and_then(|Distinct| serde_json::from_str(text));
    parsed.map_err(|error| error.to_string())
}

/// Any JSON in whose objects no field comes twice: a [`Json`] keeps the last without a word. A number that is no integer of 64
/// bits comes as an object, since all its digits are kept.
struct Distinct;

impl<'de> Deserialize<'de> for Distinct {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Distinct, D::Error> {
        deserializer.deserialize_any(Distinct)
    }
}

impl<'de> Visitor<'de> for Distinct {
    type Value = Distinct;

    fn expecting(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str("JSON")
    }

    fn visit_unit<E>(self) -> Result<Distinct, E> {
        Ok(Distinct)
    }

    fn visit_bool<E>(self, _: bool) -> Result<Distinct, E> {
        Ok(Distinct)
    }

    fn visit_i64<E>(self, _: i64) -> Result<Distinct, E> {
        Ok(Distinct)
    }

    fn visit_u64<E>(self, _: u64) -> Result<Distinct, E> {
        Ok(Distinct)
    }

    fn visit_str<E>(self, _: &str) -> Result<Distinct, E> {
        Ok(Distinct)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Distinct, A::Error> {
        while items.next_element::<Distinct>()?.is_some() {}
        Ok(Distinct)
    }

    fn visit_map<A: MapAccess<'de>>(self, mut fields: A) -> Result<Distinct, A::Error> {
        let mut names = HashSet::new();
        while let Some((name, Distinct)) = fields.next_entry::<String, Distinct>()? {
            if let Some(name) = names.replace(name) {
                return Err(A::Error::custom(format!("{name:?} is given twice")));
            }
        }
        Ok(Distinct)
    }
}

/// Reads a value back.
///
/// # Errors
/// Says what is wrong, in words for whoever wrote the JSON.
pub fn read(json: &Json) -> Result<Value, String> {
    let value = value(json)?;
    // Members that are none, or come twice, and what nests too deep.
    Value::decode(&value.encode()).map_err(|error| error.to_string())
}

fn value(json: &Json) -> Result<Value, String> {
    Ok(match json {
        Json::Null => Value::Null,
        Json::Bool(yes) => Value::Bool(*yes),
        Json::Number(number) => match (number.as_i64(), number.is_f64()) {
            (Some(number), _) => Value::Int(number),
            (None, true) => Value::Float(number.as_f64().ok_or("no number")?),
            (None, false) => {
                return Err(format!("{number} has more than 64 bits: write {{\"$bigint\": \"{number}\"}}"));
            }
        },
        Json::String(text) => Value::Text(text.as_str().into()),
        Json::Array(items) => Value::List(values(items)?),
        Json::Object(fields) => match fields.iter().next() {
            Some((tag, inner)) if tag.starts_with('$') && fields.len() == 1 => untagged(tag, inner)?,
            _ => {
                let field = |(name, inner): (&String, &Json)| match name.starts_with('$') {
                    true => Err(format!(
                        "{name:?} stands beside other fields: write the hash as {{\"$hash\": [[..]]}}"
                    )),
                    false => Ok((Value::Text(name.as_str().into()), value(inner)?)),
                };
                Value::Hash(fields.iter().map(field).collect::<Result<_, String>>()?)
            }
        },
    })
}

fn values(items: &[Json]) -> Result<Vec<Value>, String> {
    items.iter().map(value).collect()
}

fn untagged(tag: &str, json: &Json) -> Result<Value, String> {
    let text = || json.as_str().ok_or_else(|| format!("{tag} needs a string"));
    let items = || json.as_array().map(Vec::as_slice).ok_or_else(|| format!("{tag} needs an array"));
    let all = || values(items()?);
    let pairs =
        || items()?.iter().map(|pair| two(tag, pair)).collect::<Result<Vec<(&Json, &Json)>, String>>();
    Ok(match tag {
        "$float" => Value::Float(special(text()?)?),
        "$bytes" => Value::Bytes(text()?.as_bytes().into()),
        "$hex" => Value::Bytes(unhex(text()?)?.into()),
        "$encoded" => Value::decode(&unhex(text()?)?).map_err(|error| format!("$encoded: {error}"))?,
        "$set" => Value::Set(all()?),
        "$frozenset" => Value::FrozenSet(all()?),
        "$tuple" => Value::Tuple(all()?),
        "$hash" => {
            let field = |(field, inner): (&Json, &Json)| Ok((value(field)?, value(inner)?));
            Value::Hash(pairs()?.into_iter().map(field).collect::<Result<_, String>>()?)
        }
        "$sortedset" => {
            let member = |(score, member): (&Json, &Json)| match value(score)? {
                Value::Float(score) => Ok((score, value(member)?)),
                _ => Err("$sortedset needs scores that are floats: 1.0".to_owned()),
            };
            let members: Vec<_> = pairs()?.into_iter().map(member).collect::<Result<_, String>>()?;
            Value::SortedSet(SortedSet::Float(members))
        }
        "$sortedset_decimal" => {
            let member = |(score, member): (&Json, &Json)| {
                let score = score.as_str().and_then(|text| text.parse::<Decimal>().ok());
                Ok((score.ok_or("$sortedset_decimal needs scores as strings: \"1.10\"")?, value(member)?))
            };
            let members: Vec<_> = pairs()?.into_iter().map(member).collect::<Result<_, String>>()?;
            Value::SortedSet(SortedSet::Decimal(members))
        }
        "$tagged" => {
            let (name, inner) = two(tag, json)?;
            let name = name.as_str().ok_or("$tagged needs a name and a value")?;
            Value::Tagged(Box::new((name.into(), value(inner)?)))
        }
        "$opaque" => {
            let (codec, bytes) = two(tag, json)?;
            let parts =
                codec.as_str().zip(bytes.as_str()).ok_or("$opaque needs a codec and hexadecimal digits")?;
            Value::Opaque(Box::new((parts.0.into(), unhex(parts.1)?.into())))
        }
        _ => {
            let kind = SHOWN.into_iter().find(|kind| tag.strip_prefix('$') == Some(kind.name()));
            scalar(kind.ok_or_else(|| format!("{tag} is no kind of value"))?, text()?)?
        }
    })
}

fn two<'a>(tag: &str, json: &'a Json) -> Result<(&'a Json, &'a Json), String> {
    match json.as_array().map(Vec::as_slice) {
        Some([first, second]) => Ok((first, second)),
        _ => Err(format!("{tag} needs pairs: arrays of two")),
    }
}

fn special(text: &str) -> Result<f64, String> {
    let bits = || u64::from_str_radix(text.strip_prefix("nan:")?, 16).ok().map(f64::from_bits);
    match text {
        "nan" => Ok(f64::NAN),
        "inf" => Ok(f64::INFINITY),
        "-inf" => Ok(f64::NEG_INFINITY),
        _ => bits().filter(|number| number.is_nan()).ok_or_else(|| format!("{text:?} is no $float")),
    }
}

fn unhex(text: &str) -> Result<Vec<u8>, String> {
    let digits = text.as_bytes().chunks(2).map(|pair| {
        let pair = std::str::from_utf8(pair).ok().filter(|pair| pair.len() == 2)?;
        u8::from_str_radix(pair, 16).ok()
    });
    digits.collect::<Option<_>>().ok_or_else(|| format!("{text:?} is not in pairs of hexadecimal digits"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn people_can_read_it() {
        for (value, text) in [
            (Value::Float(1.0), "1.0"),
            (Value::Float(-0.0), "-0.0"),
            (Value::Float(f64::NAN), r#"{"$float":"nan"}"#),
            (Value::Bytes((*b"ok").into()), r#"{"$bytes":"ok"}"#),
            (Value::Bytes([255, 0].into()), r#"{"$hex":"ff00"}"#),
            (Value::Decimal("1.10".parse().unwrap()), r#"{"$decimal":"1.10"}"#),
            (Value::Date(0), r#"{"$date":"1970-01-01"}"#),
            (Value::Set(vec![Value::Int(1), Value::Text("1".into())]), r#"{"$set":[1,"1"]}"#),
            (Value::Hash(vec![("b".into(), 1.into()), ("a".into(), Value::Null)]), r#"{"b":1,"a":null}"#),
            (Value::Hash(vec![("$set".into(), 1.into())]), r#"{"$hash":[["$set",1]]}"#),
            (Value::Hash(vec![(Value::Int(1), 1.into())]), r#"{"$hash":[[1,1]]}"#),
        ] {
            let json = write(&value);
            assert_eq!(json.to_string(), text);
            assert_eq!(write(&read(&serde_json::from_str(text).unwrap()).unwrap()), json);
        }
    }

    #[test]
    fn what_is_no_value_says_why() {
        for (text, why) in [
            ("99999999999999999999", "$bigint"),
            (r#"{"$set":[[1]]}"#, ""),
            (r#"{"$set":[1,1]}"#, ""),
            (r#"{"$set":1}"#, "$set needs an array"),
            (r#"{"$unknown":1}"#, "$unknown is no kind"),
            (r#"{"$list":"1"}"#, "$list is no kind"),
            (r#"{"$decimal":"x"}"#, "\"x\""),
            (r#"{"$hex":"f"}"#, "hexadecimal"),
            (r#"{"$hash":[[1]]}"#, "pairs"),
            (r#"{"$float":"1"}"#, "no $float"),
            (r#"{"$a":1,"b":2}"#, "$hash"),
            (r#"{"$sortedset":[[1,"a"]]}"#, "floats"),
        ] {
            let error = read(&serde_json::from_str(text).unwrap()).unwrap_err();
            assert!(error.contains(why), "{text}: {error}");
        }
    }

    proptest::proptest! {
        #![proptest_config(proptest::prelude::ProptestConfig { failure_persistence: None, ..Default::default() })]

        #[test]
        fn every_value_comes_back_bit_by_bit(value in data_bridge_kv_testkit::values::value()) {
            let text = write(&value).to_string();
            let back = read(&serde_json::from_str(&text).unwrap()).unwrap();
            proptest::prop_assert_eq!(back.encode(), value.encode(), "{}", text);
        }
    }
}
