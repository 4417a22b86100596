//! Executors that add to numbers, and the one function that adds by the rules of `docs/TYPES.md`.

use data_bridge_kv_model::arg::{parse_float, parse_int};
use data_bridge_kv_model::command::{Expiry, NumberCommand, NumberStyle};
use data_bridge_kv_model::{Arg, Decimal, Error, Kind, ReplyBuf, Result, ValueRef, show};

use super::scalar::deadline;
use crate::clock::Clock;
use crate::hash::KeyHash;
use crate::shard::{Shard, Space, Txn, scalar};
use crate::table::{EntryRef, NewValue};
use crate::wal::Lsn;

/// A number in the middle of an addition.
#[derive(Clone, Copy, Debug)]
pub(super) enum Number {
    Int(i64),
    Float(f64),
    Decimal(Decimal),
}

/// A sum as it is stored.
pub(super) enum Sum {
    Int([u8; 8]),
    Float([u8; 8]),
    Decimal([u8; 18]),
    /// A number in the digits of a Text or Bytes.
    Shown(Kind, Vec<u8>),
}

impl Sum {
    /// The sum as a value.
    pub(super) fn value(&self) -> ValueRef<'_> {
        match self {
            Sum::Int(payload) => ValueRef::from_parts(Kind::Int, payload),
            Sum::Float(payload) => ValueRef::from_parts(Kind::Float, payload),
            Sum::Decimal(payload) => ValueRef::from_parts(Kind::Decimal, payload),
            Sum::Shown(kind, text) => ValueRef::from_parts(*kind, text),
        }
    }
}

/// Counts an Int, or a key that is missing, up or down as INCR and its like do, which leave the deadline alone. Answers `None`, having done nothing,
/// for any other addition.
#[inline]
pub fn run_short(
    shard: &mut Shard,
    space: &Space,
    clock: &dyn Clock,
    (command, hash): (&NumberCommand<'_>, KeyHash),
    out: &mut ReplyBuf,
) -> Option<Result<Lsn>> {
    let NumberCommand::Add {
        key,
        by,
        negate,
        initial: None,
        minimum: None,
        maximum: None,
        expiry: Expiry::Keep,
        refresh: false,
        style: NumberStyle::RedisInteger,
        ..
    } = *command
    else {
        return None;
    };
    if shard.is_watched(space) {
        return None;
    }
    let by = by.int().ok()?;
    let sum = |current: i64| if negate { current.checked_sub(by) } else { current.checked_add(by) };
    if let Some(sum) = shard.change_int(space, hash, key.as_bytes(), || clock.unix_ms(), sum) {
        out.integer(sum);
        return Some(Ok(0));
    }
    let (sum, deadline) = shard.consult(
        hash,
        key.as_bytes(),
        || clock.unix_ms(),
        |entry| match entry {
            Some(entry) => Some((sum(entry.value().scalar()?.as_int()?)?, entry.deadline())),
            None => Some((sum(0)?, None)),
        },
    )?;
    let value = NewValue::Payload { kind: Kind::Int, bytes: &sum.to_le_bytes() };
    let rests_on = shard.write(space, hash, key.as_bytes(), value, deadline)?;
    out.integer(sum);
    Some(Ok(rests_on))
}

/// Executes an addition.
pub fn run(txn: &mut Txn<'_>, command: &NumberCommand<'_>, out: &mut ReplyBuf) -> Result<()> {
    let NumberCommand::Add { key, by, negate, initial, minimum, maximum, expiry, refresh, convert, style } =
        *command;
    let place = txn.place(key);
    let entry = txn.find(place);
    let (exists, current_deadline) = (entry.is_some(), entry.and_then(EntryRef::deadline));
    let stored = match entry.map(EntryRef::value) {
        Some(stored) => Some(scalar(stored).ok_or_else(Error::wrong_type)?),
        None => None,
    };
    let sum = match (stored, initial) {
        (Some(stored), _) => add(Some(stored), by, negate, convert, style)?,
        (None, Some(initial)) => {
            let initial = number_of(initial)?.into_sum();
            add(Some(initial.value()), by, negate, convert, style)?
        }
        (None, None) => add(None, by, negate, convert, style)?,
    };
    if minimum.is_some() || maximum.is_some() {
        check_bounds(&sum, minimum, maximum)?;
    }
    let deadline =
        if exists && !refresh { current_deadline } else { deadline(txn, expiry, current_deadline) };
    txn.put(place, NewValue::from(sum.value()), deadline)?;
    answer(&sum, style, out);
    Ok(())
}

/// Appends the answer that the style asks for.
pub(super) fn answer(sum: &Sum, style: NumberStyle, out: &mut ReplyBuf) {
    match (style, sum) {
        (NumberStyle::RedisInteger, Sum::Int(number)) => out.integer(i64::from_le_bytes(*number)),
        (NumberStyle::RedisInteger, _) => out.integer(integer(sum.value()).unwrap_or_default()),
        (NumberStyle::RedisFloat | NumberStyle::Typed, _) => out.value(sum.value()),
    }
}

/// Adds `by` to a stored number, or to zero of its kind.
pub(super) fn add(
    stored: Option<ValueRef<'_>>,
    by: Arg<'_>,
    negate: bool,
    convert: bool,
    style: NumberStyle,
) -> Result<Sum> {
    match style {
        NumberStyle::RedisInteger => add_integer(stored, by, negate),
        NumberStyle::RedisFloat => add_fraction(stored, by),
        NumberStyle::Typed => add_typed(stored, by, negate, convert),
    }
}

/// Below it every integer is a Float of its own.
const FLOAT_INTEGERS: u64 = 1 << 53;

fn integer(value: ValueRef<'_>) -> Option<i64> {
    match value.kind() {
        Kind::Int => value.as_int(),
        Kind::Text | Kind::Bytes => parse_int(value.payload()),
        Kind::Decimal => value.as_decimal().and_then(|number| number.to_i64()),
        Kind::Float => {
            let number = value.as_float()?;
            (number.fract() == 0.0 && number.abs() < FLOAT_INTEGERS as f64).then_some(number as i64)
        }
        _ => None,
    }
}

/// INCRBY: any number that is an integer, in its own kind.
fn add_integer(stored: Option<ValueRef<'_>>, by: Arg<'_>, negate: bool) -> Result<Sum> {
    let by = by.int()?;
    let current = match stored {
        None => 0,
        Some(value) if value.kind().is_container() => return Err(Error::wrong_type()),
        Some(value) => integer(value).ok_or_else(Error::not_an_integer)?,
    };
    let sum = if negate { current.checked_sub(by) } else { current.checked_add(by) };
    let sum = sum.ok_or_else(|| Error::out_of_range("increment or decrement would overflow"))?;
    match stored.map_or(Kind::Int, ValueRef::kind) {
        kind @ (Kind::Text | Kind::Bytes) => {
            let mut text = Vec::with_capacity(20);
            show::put_int(sum, &mut text);
            Ok(Sum::Shown(kind, text))
        }
        Kind::Decimal => {
            // The scale stays: 5.00 and 1 are 6.00.
            let number = stored.and_then(ValueRef::as_decimal).ok_or_else(Error::not_an_integer)?;
            let by = Decimal::from(by);
            let sum = if negate { number.checked_sub(by) } else { number.checked_add(by) };
            Ok(Sum::Decimal(sum.map_err(overflow)?.to_payload()))
        }
        Kind::Float if sum.unsigned_abs() >= FLOAT_INTEGERS => {
            Err(Error::out_of_range("a Float counts exactly below 2^53 only"))
        }
        Kind::Float => Ok(Sum::Float((sum as f64).to_le_bytes())),
        _ => Ok(Sum::Int(sum.to_le_bytes())),
    }
}

/// INCRBYFLOAT: text is added exactly and stays text, a Decimal stays exact, the rest becomes a Float.
fn add_fraction(stored: Option<ValueRef<'_>>, by: Arg<'_>) -> Result<Sum> {
    let exact = by.content().and_then(|text| Decimal::parse_bytes(text).ok());
    let infinite = || Error::invalid("increment would produce NaN or Infinity");
    let value = match (stored, by.content()) {
        (Some(value), _) => value,
        // What an untyped client writes is Bytes, so that 0.1 and 0.2 are 0.3 for it.
        (None, Some(_)) => ValueRef::bytes(b"0"),
        (None, None) => return float_sum(0.0, by.float()?, infinite),
    };
    match value.kind() {
        Kind::Text | Kind::Bytes => {
            let current = parse_float(value.payload()).ok_or_else(Error::not_a_float)?;
            let decimal = Decimal::parse_bytes(value.payload()).ok();
            if let (Some(current), Some(by)) = (decimal, exact)
                && let Ok(sum) = current.checked_add(by)
            {
                return Ok(Sum::Shown(value.kind(), plain_text(sum)));
            }
            let sum = float_sum(current, by.float()?, infinite)?;
            let mut text = Vec::new();
            show::show(sum.value(), &mut text);
            Ok(Sum::Shown(value.kind(), text))
        }
        Kind::Decimal => {
            let by = match by {
                Arg::Value(_) => data_bridge_kv_model::arg::decimal(by)?,
                Arg::Untyped(_) | Arg::Literal(..) => exact.ok_or_else(Error::not_a_float)?,
            };
            let current = value.as_decimal().ok_or_else(Error::not_a_float)?;
            let sum = current.checked_add(by).map_err(overflow)?;
            Ok(Sum::Decimal(sum.to_payload()))
        }
        Kind::Int => float_sum(value.as_int().unwrap_or_default() as f64, by.float()?, infinite),
        Kind::Float => float_sum(value.as_float().unwrap_or_default(), by.float()?, infinite),
        kind if kind.is_container() => Err(Error::wrong_type()),
        _ => Err(Error::not_a_float()),
    }
}

/// A decimal without exponent and without trailing zeros, as Redis answers INCRBYFLOAT.
fn plain_text(number: Decimal) -> Vec<u8> {
    let (negative, coefficient, exponent) = number.normalized();
    let digits = coefficient.to_string();
    let mut text = Vec::new();
    if negative && coefficient != 0 {
        text.push(b'-');
    }
    if exponent >= 0 {
        text.extend_from_slice(digits.as_bytes());
        text.resize(text.len() + exponent.unsigned_abs() as usize, b'0');
        return text;
    }
    let places = exponent.unsigned_abs() as usize;
    let padded = format!("{digits:0>width$}", width = places + 1);
    let (whole, fraction) = padded.split_at(padded.len() - places);
    text.extend_from_slice(whole.as_bytes());
    text.push(b'.');
    text.extend_from_slice(fraction.as_bytes());
    text
}

fn float_sum(current: f64, by: f64, infinite: impl FnOnce() -> Error) -> Result<Sum> {
    let sum = current + by;
    if !sum.is_finite() {
        return Err(infinite());
    }
    Ok(Sum::Float(sum.to_le_bytes()))
}

/// KV.INCR: kinds do not mix, except an Int into a Decimal, unless the caller asks for conversion.
fn add_typed(stored: Option<ValueRef<'_>>, by: Arg<'_>, negate: bool, convert: bool) -> Result<Sum> {
    let by = number_of(by)?;
    let current = match stored {
        None => by.zero(),
        Some(value) => number(value).ok_or_else(Error::wrong_type)?,
    };
    let mixed = || {
        Error::new(
            data_bridge_kv_model::ErrorKind::WrongType,
            "kinds of number differ: increment by the kind that is stored, or ask for conversion",
        )
    };
    let sum = match (current, by) {
        (Number::Int(current), Number::Int(by)) => {
            let sum = if negate { current.checked_sub(by) } else { current.checked_add(by) };
            Number::Int(sum.ok_or_else(|| Error::out_of_range("increment or decrement would overflow"))?)
        }
        (Number::Float(current), Number::Float(by)) => add_floats(current, by, negate)?,
        (Number::Decimal(current), Number::Decimal(by)) => add_decimals(current, by, negate)?,
        (Number::Decimal(current), Number::Int(by)) => add_decimals(current, Decimal::from(by), negate)?,
        (Number::Int(current), Number::Decimal(by)) if convert => {
            add_decimals(Decimal::from(current), by, negate)?
        }
        (current, by) if convert => add_floats(current.as_float()?, by.as_float()?, negate)?,
        _ => return Err(mixed()),
    };
    Ok(sum.into_sum())
}

fn add_floats(current: f64, by: f64, negate: bool) -> Result<Number> {
    let sum = if negate { current - by } else { current + by };
    if sum.is_finite() { Ok(Number::Float(sum)) } else { Err(Error::out_of_range("the sum is not finite")) }
}

fn add_decimals(current: Decimal, by: Decimal, negate: bool) -> Result<Number> {
    let sum = if negate { current.checked_sub(by) } else { current.checked_add(by) };
    sum.map(Number::Decimal).map_err(overflow)
}

fn overflow(error: data_bridge_kv_model::DecimalError) -> Error {
    Error::out_of_range(error.to_string())
}

fn number(value: ValueRef<'_>) -> Option<Number> {
    match value.kind() {
        Kind::Int => value.as_int().map(Number::Int),
        Kind::Float => value.as_float().map(Number::Float),
        Kind::Decimal => value.as_decimal().map(Number::Decimal),
        _ => None,
    }
}

/// The number of an argument of a typed addition: untyped text is an integer if it can be, else a decimal.
fn number_of(arg: Arg<'_>) -> Result<Number> {
    let found = match arg {
        Arg::Untyped(text) => {
            let decimal = || Decimal::parse_bytes(text).ok().map(Number::Decimal);
            parse_int(text).map(Number::Int).or_else(decimal)
        }
        typed => number(typed.value(&mut Vec::new())?),
    };
    found.ok_or_else(|| {
        Error::invalid("an increment, a bound or a start must be an integer of 64 bits, a float or a decimal")
    })
}

impl Number {
    fn zero(self) -> Number {
        match self {
            Number::Int(_) => Number::Int(0),
            Number::Float(_) => Number::Float(0.0),
            Number::Decimal(_) => Number::Decimal(Decimal::from(0)),
        }
    }

    fn as_float(self) -> Result<f64> {
        match self {
            Number::Int(number) => Ok(number as f64),
            Number::Float(number) => Ok(number),
            Number::Decimal(number) => number.to_string().parse().map_err(|_| Error::not_a_float()),
        }
    }

    fn into_sum(self) -> Sum {
        match self {
            Number::Int(number) => Sum::Int(number.to_le_bytes()),
            Number::Float(number) => Sum::Float(number.to_le_bytes()),
            Number::Decimal(number) => Sum::Decimal(number.to_payload()),
        }
    }

    fn compare(self, other: Number) -> Option<std::cmp::Ordering> {
        match (self, other) {
            (Number::Int(one), Number::Int(other)) => Some(one.cmp(&other)),
            (Number::Decimal(one), Number::Decimal(other)) => Some(one.numeric_cmp(other)),
            (Number::Decimal(one), Number::Int(other)) => Some(one.numeric_cmp(Decimal::from(other))),
            (Number::Int(one), Number::Decimal(other)) => Some(Decimal::from(one).numeric_cmp(other)),
            (one, other) => one.as_float().ok()?.partial_cmp(&other.as_float().ok()?),
        }
    }
}

fn check_bounds(sum: &Sum, minimum: Option<Arg<'_>>, maximum: Option<Arg<'_>>) -> Result<()> {
    let value = number(sum.value()).ok_or_else(Error::wrong_type)?;
    if let Some(minimum) = minimum
        && value.compare(number_of(minimum)?).is_none_or(|order| order.is_lt())
    {
        return Err(Error::out_of_range("the result would be below the minimum"));
    }
    if let Some(maximum) = maximum
        && value.compare(number_of(maximum)?).is_none_or(|order| order.is_gt())
    {
        return Err(Error::out_of_range("the result would be above the maximum"));
    }
    Ok(())
}
