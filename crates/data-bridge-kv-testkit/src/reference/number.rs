//! The model of additions.

use data_bridge_kv_model::arg::{decimal, parse_float, parse_int};
use data_bridge_kv_model::command::{NumberCommand, NumberStyle};
use data_bridge_kv_model::{Arg, Decimal, Error, ErrorKind, Reply, Result, Value};

use super::matching::{content, shown, value_of};
use super::{Answer, Space};

/// Below it every integer is a Float of its own.
const FLOAT_INTEGERS: u64 = 1 << 53;

/// A sum and how it is answered.
pub(super) fn answer(sum: &Value, style: NumberStyle) -> Reply {
    match style {
        NumberStyle::RedisInteger => Reply::Integer(integer(sum).unwrap_or_default()),
        NumberStyle::RedisFloat | NumberStyle::Typed => Reply::Value(sum.clone()),
    }
}

/// Adds `by` to a number, or to nothing.
pub(super) fn add(
    current: Option<&Value>,
    by: Arg<'_>,
    negate: bool,
    convert: bool,
    style: NumberStyle,
) -> Result<Value> {
    if current.is_some_and(|value| value.kind().is_container()) {
        return Err(Error::wrong_type());
    }
    match style {
        NumberStyle::RedisInteger => add_integer(current, by, negate),
        NumberStyle::RedisFloat => add_fraction(current, by),
        NumberStyle::Typed => {
            let by = number_of(by)?;
            let zero = match by {
                Value::Float(_) => Value::Float(0.0),
                Value::Decimal(_) => Value::Decimal(Decimal::ZERO),
                _ => Value::Int(0),
            };
            add_typed(current.unwrap_or(&zero), &by, negate, convert)
        }
    }
}

impl Space {
    pub(super) fn number(&mut self, command: &NumberCommand<'_>) -> Answer {
        let NumberCommand::Add {
            key,
            by,
            negate,
            initial,
            minimum,
            maximum,
            expiry,
            refresh,
            convert,
            style,
        } = command;
        let key = key.as_str();
        let current = self.get(key).map(|entry| entry.value.clone());
        let start = match (&current, initial) {
            (None, Some(initial)) => Some(number_of(*initial)?),
            _ => current.clone(),
        };
        let sum = add(start.as_ref(), *by, *negate, *convert, *style)?;
        for (bound, is_beyond) in [(minimum, -1), (maximum, 1)] {
            let Some(bound) = bound else { continue };
            let order = compare(&sum, &number_of(*bound)?);
            if order == is_beyond || order == NO_ORDER {
                return Err(Error::out_of_range("beyond the bound"));
            }
        }
        let deadline = match self.get(key) {
            Some(entry) if !refresh => entry.deadline,
            _ => self.deadline_of(key, *expiry),
        };
        self.put(key, sum.clone(), deadline);
        Ok(answer(&sum, *style))
    }
}

/// The integer that a Redis client sees in a value.
fn integer(value: &Value) -> Option<i64> {
    match value {
        Value::Int(number) => Some(*number),
        Value::Decimal(number) => number.to_i64(),
        Value::Float(number) => {
            (number.fract() == 0.0 && number.abs() < FLOAT_INTEGERS as f64).then_some(*number as i64)
        }
        text => content(text).and_then(parse_int),
    }
}

fn add_integer(current: Option<&Value>, by: Arg<'_>, negate: bool) -> Result<Value> {
    let (start, by) = (current.map_or(Some(0), integer).ok_or_else(Error::not_an_integer)?, by.int()?);
    let sum = if negate { start.checked_sub(by) } else { start.checked_add(by) };
    let sum = sum.ok_or_else(|| Error::out_of_range("increment or decrement would overflow"))?;
    Ok(match current {
        Some(Value::Text(_)) => Value::Text(sum.to_string().into()),
        Some(Value::Bytes(_)) => Value::Bytes(sum.to_string().into_bytes().into()),
        Some(Value::Float(_)) if sum.unsigned_abs() >= FLOAT_INTEGERS => {
            return Err(Error::out_of_range("a Float counts exactly below 2^53 only"));
        }
        Some(Value::Float(_)) => Value::Float(sum as f64),
        Some(Value::Decimal(number)) => {
            let by = Decimal::from(by);
            let sum = if negate { number.checked_sub(by) } else { number.checked_add(by) };
            Value::Decimal(sum.map_err(overflow)?)
        }
        _ => Value::Int(sum),
    })
}

/// Text is added exactly, as decimal numbers, as long as they suffice; numbers by the rules of their kind.
fn add_fraction(current: Option<&Value>, by: Arg<'_>) -> Result<Value> {
    let float_by = by.float()?;
    let sum = |start: f64| {
        let sum = start + float_by;
        let infinite = || Error::invalid("increment would produce NaN or Infinity");
        if sum.is_finite() { Ok(Value::Float(sum)) } else { Err(infinite()) }
    };
    let nothing = Value::Bytes(Box::from(&b"0"[..]));
    match current {
        Some(Value::Int(number)) => sum(*number as f64),
        Some(Value::Float(number)) => sum(*number),
        Some(Value::Decimal(number)) => {
            number.checked_add(decimal(by)?).map(Value::Decimal).map_err(overflow)
        }
        None if by.content().is_none() => sum(0.0),
        None => add_text(&nothing, by, sum),
        Some(text) => add_text(text, by, sum),
    }
}

fn add_text(text: &Value, by: Arg<'_>, sum: impl Fn(f64) -> Result<Value>) -> Result<Value> {
    let start = content(text).ok_or_else(Error::not_a_float)?;
    let float = parse_float(start).ok_or_else(Error::not_a_float)?;
    let exact =
        Decimal::parse_bytes(start).ok().zip(by.content().and_then(|by| Decimal::parse_bytes(by).ok()));
    let exact = exact.and_then(|(start, by)| start.checked_add(by).ok());
    let shown = match exact {
        Some(number) => plain(number),
        None => shown(&sum(float)?).ok_or_else(Error::not_a_float)?,
    };
    Ok(match text {
        Value::Text(_) => Value::Text(String::from_utf8_lossy(&shown).into()),
        _ => Value::Bytes(shown.into()),
    })
}

/// The number without an exponent and without zeros at the end, as Redis shows it.
fn plain(number: Decimal) -> Vec<u8> {
    let (negative, coefficient, exponent) = number.normalized();
    let mut digits = coefficient.to_string();
    if exponent >= 0 {
        digits.push_str(&"0".repeat(usize::try_from(exponent).expect("not negative")));
    } else {
        let places = usize::try_from(-exponent).expect("not negative");
        digits.insert_str(0, &"0".repeat((places + 1).saturating_sub(digits.len())));
        digits.insert(digits.len() - places, '.');
    }
    if negative {
        digits.insert(0, '-');
    }
    digits.into_bytes()
}

/// The number of an argument of a typed addition; text is an integer if it can, else a decimal.
fn number_of(arg: Arg<'_>) -> Result<Value> {
    let not_a_number = || Error::invalid("must be a number");
    if let Arg::Untyped(text) = arg {
        let decimal = || Decimal::parse_bytes(text).map(Value::Decimal).map_err(|_| not_a_number());
        return parse_int(text).map_or_else(decimal, |number| Ok(Value::Int(number)));
    }
    match value_of(arg)? {
        number @ (Value::Int(_) | Value::Float(_) | Value::Decimal(_)) => Ok(number),
        _ => Err(not_a_number()),
    }
}

fn add_typed(current: &Value, by: &Value, negate: bool, convert: bool) -> Result<Value> {
    let decimals = |one: Decimal, other: Decimal| {
        let sum = if negate { one.checked_sub(other) } else { one.checked_add(other) };
        sum.map(Value::Decimal).map_err(overflow)
    };
    match (current, by) {
        (Value::Int(one), Value::Int(other)) => {
            let sum = if negate { one.checked_sub(*other) } else { one.checked_add(*other) };
            sum.map(Value::Int).ok_or_else(|| Error::out_of_range("overflow"))
        }
        (Value::Decimal(one), Value::Decimal(other)) => decimals(*one, *other),
        (Value::Decimal(one), Value::Int(other)) => decimals(*one, Decimal::from(*other)),
        (Value::Int(one), Value::Decimal(other)) if convert => decimals(Decimal::from(*one), *other),
        (Value::Float(_), Value::Float(_)) | (_, _) if convert || current.kind() == by.kind() => {
            let (Some(one), Some(other)) = (float(current), float(by)) else {
                return Err(Error::wrong_type());
            };
            let sum = if negate { one - other } else { one + other };
            let finite = sum.is_finite().then_some(Value::Float(sum));
            finite.ok_or_else(|| Error::out_of_range("the sum is not finite"))
        }
        _ => Err(Error::wrong_type()),
    }
}

fn float(value: &Value) -> Option<f64> {
    match value {
        Value::Int(number) => Some(*number as f64),
        Value::Float(number) => Some(*number),
        Value::Decimal(number) => number.to_string().parse().ok(),
        _ => None,
    }
}

/// What a NaN answers to a comparison.
const NO_ORDER: i32 = 2;

/// -1, 0 or 1, or [`NO_ORDER`].
fn compare(one: &Value, other: &Value) -> i32 {
    let exact = |value: &Value| match value {
        Value::Int(number) => Some(Decimal::from(*number)),
        Value::Decimal(number) => Some(*number),
        _ => None,
    };
    let order = match (exact(one), exact(other)) {
        (Some(one), Some(other)) => Some(one.numeric_cmp(other)),
        _ => float(one).zip(float(other)).and_then(|(one, other)| one.partial_cmp(&other)),
    };
    order.map_or(NO_ORDER, |order| order as i32)
}

fn overflow(error: data_bridge_kv_model::DecimalError) -> Error {
    Error::new(ErrorKind::OutOfRange, error.to_string())
}
