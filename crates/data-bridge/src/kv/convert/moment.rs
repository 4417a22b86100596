//! `datetime`, `date`, `time`, `timedelta` and `uuid.UUID`.
//!
//! An aware datetime keeps its wall clock, offset, fold and the key of its `ZoneInfo`; a `time` has no offset in most
//! zones and keeps the key alone. Any other `tzinfo` comes back as the fixed offset it had.

use data_bridge_kv_model::Kind;
use data_bridge_kv_model::codec::{AWARE, DAY_US, FOLD, Reader, ZONE, put_varint};
use data_bridge_kv_model::limits::NAME_BYTES;
use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;
use pyo3::types::{
    PyDate, PyDateAccess, PyDateTime, PyDelta, PyDeltaAccess, PyDict, PyString, PyTime, PyTimeAccess,
    PyTzInfo, PyTzInfoAccess,
};

use super::types::Types;
use super::{Failure, Outcome};

const SECOND_US: i64 = 1_000_000;
/// `date.toordinal()` of 1970-01-01.
const EPOCH_ORDINAL: i64 = 719_163;

/// Appends a date.
pub fn put_date(value: &Bound<'_, PyDate>, out: &mut Vec<u8>) {
    let days = ordinal(value.get_year(), value.get_month(), value.get_day()) - EPOCH_ORDINAL;
    out.push(Kind::Date.number());
    out.extend_from_slice(&(days as i32).to_le_bytes());
}

/// Appends a datetime.
pub fn put_datetime(value: &Bound<'_, PyDateTime>, out: &mut Vec<u8>) -> Outcome<()> {
    let days = ordinal(value.get_year(), value.get_month(), value.get_day()) - EPOCH_ORDINAL;
    out.push(Kind::Timestamp.number());
    put_moment(value, value.get_tzinfo(), days * DAY_US + clock(value), out)
}

/// Appends a time of day.
pub fn put_time(value: &Bound<'_, PyTime>, out: &mut Vec<u8>) -> Outcome<()> {
    out.push(Kind::Time.number());
    put_moment(value, value.get_tzinfo(), clock(value), out)
}

/// Appends a span of time.
pub fn put_duration(value: &Bound<'_, PyDelta>, out: &mut Vec<u8>) {
    out.push(Kind::Duration.number());
    out.extend_from_slice(&value.get_days().to_le_bytes());
    out.extend_from_slice(&below_day(value).to_le_bytes());
}

/// Microseconds of a span below its whole days.
pub fn below_day(value: &Bound<'_, PyDelta>) -> i64 {
    i64::from(value.get_seconds()) * SECOND_US + i64::from(value.get_microseconds())
}

fn clock<T: PyTimeAccess>(value: &T) -> i64 {
    let minutes = i64::from(value.get_hour()) * 60 + i64::from(value.get_minute());
    (minutes * 60 + i64::from(value.get_second())) * SECOND_US + i64::from(value.get_microsecond())
}

fn put_moment<'py, T>(
    value: &Bound<'py, T>,
    tzinfo: Option<Bound<'py, PyTzInfo>>,
    local: i64,
    out: &mut Vec<u8>,
) -> Outcome<()>
where
    Bound<'py, T>: PyTimeAccess,
{
    let fold = if value.get_fold() { FOLD } else { 0 };
    let Some(tzinfo) = tzinfo else {
        out.push(fold);
        out.extend_from_slice(&local.to_le_bytes());
        return Ok(());
    };
    let py = value.py();
    if tzinfo.is(PyTzInfo::utc(py)?) {
        out.push(fold | AWARE);
        out.extend_from_slice(&local.to_le_bytes());
        out.extend_from_slice(&0_i64.to_le_bytes());
        return Ok(());
    }
    let offset = value.as_any().call_method0(pyo3::intern!(py, "utcoffset"))?;
    let offset = offset.cast_into::<PyDelta>().ok();
    let offset = offset.map(|offset| i64::from(offset.get_days()) * DAY_US + below_day(&offset));
    let zone = zone_key(py, &tzinfo)?;
    if offset.is_none() && zone.is_none() {
        return Err(Failure::unsupported(
            "its time zone has neither an offset here nor a name; use a datetime or a fixed offset",
        ));
    }
    let flag = |set: bool, flag: u8| if set { flag } else { 0 };
    out.push(fold | flag(offset.is_some(), AWARE) | flag(zone.is_some(), ZONE));
    out.extend_from_slice(&local.to_le_bytes());
    if let Some(offset) = offset {
        out.extend_from_slice(&offset.to_le_bytes());
    }
    if let Some(zone) = zone {
        let zone = zone.to_str()?;
        put_varint(zone.len(), out);
        out.extend_from_slice(zone.as_bytes());
    }
    Ok(())
}

/// The key of a `ZoneInfo` that has one.
fn zone_key<'py>(py: Python<'py>, tzinfo: &Bound<'py, PyTzInfo>) -> PyResult<Option<Bound<'py, PyString>>> {
    if !tzinfo.get_type().is(&Types::get(py)?.zone) {
        return Ok(None);
    }
    let key = tzinfo.getattr(pyo3::intern!(py, "key"))?.cast_into::<PyString>().ok();
    Ok(key.filter(|key| key.to_str().is_ok_and(|key| !key.is_empty() && key.len() <= NAME_BYTES)))
}

/// Builds a date from days since 1970-01-01.
pub fn build_date(py: Python<'_>, days: i32) -> PyResult<Bound<'_, PyAny>> {
    let (year, month, day) = civil(i64::from(days));
    Ok(PyDate::new(py, year, month, day)?.into_any())
}

/// Builds a datetime or time from its flags and the bytes after them.
pub fn build_moment<'py>(py: Python<'py>, kind: Kind, reader: &mut Reader<'_>) -> Outcome<Bound<'py, PyAny>> {
    let flags = reader.byte()?;
    let local = reader.i64()?;
    let offset = if flags & AWARE != 0 { Some(reader.i64()?) } else { None };
    let zone = if flags & ZONE != 0 {
        let length = reader.varint()?;
        Some(reader.take(length)?)
    } else {
        None
    };
    let tzinfo = match (zone, offset) {
        (Some(zone), _) => Some(zone_of(py, zone)?),
        (None, Some(offset)) => Some(fixed_zone(py, offset)?),
        (None, None) => None,
    };
    let (fold, tzinfo) = (flags & FOLD != 0, tzinfo.as_ref());
    let clock = local.rem_euclid(DAY_US);
    let (seconds, micro) = (clock / SECOND_US, (clock % SECOND_US) as u32);
    let (hour, minute, second) = ((seconds / 3600) as u8, (seconds / 60 % 60) as u8, (seconds % 60) as u8);
    if kind == Kind::Time {
        return Ok(PyTime::new_with_fold(py, hour, minute, second, micro, tzinfo, fold)?.into_any());
    }
    let (year, month, day) = civil(local.div_euclid(DAY_US));
    let value = PyDateTime::new_with_fold(py, year, month, day, hour, minute, second, micro, tzinfo, fold)?;
    Ok(value.into_any())
}

/// Builds a span of time.
pub fn build_duration(py: Python<'_>, days: i32, micros: i64) -> PyResult<Bound<'_, PyAny>> {
    let (seconds, micros) = (micros.div_euclid(SECOND_US), micros.rem_euclid(SECOND_US));
    Ok(PyDelta::new(py, days, seconds as i32, micros as i32, false)?.into_any())
}

fn fixed_zone(py: Python<'_>, offset: i64) -> PyResult<Bound<'_, PyTzInfo>> {
    if offset == 0 {
        return Ok(PyTzInfo::utc(py)?.to_owned());
    }
    let (days, micros) = (offset.div_euclid(DAY_US), offset.rem_euclid(DAY_US));
    PyTzInfo::fixed_offset(py, build_duration(py, days as i32, micros)?.cast_into::<PyDelta>()?)
}

/// The `ZoneInfo` of a name; kept by name, since `ZoneInfo(name)` costs a call of Python code.
fn zone_of<'py>(py: Python<'py>, name: &[u8]) -> Outcome<Bound<'py, PyTzInfo>> {
    static ZONES: PyOnceLock<Py<PyDict>> = PyOnceLock::new();
    let name = std::str::from_utf8(name).map_err(|_| Failure::unsupported("a zone name is not UTF-8"))?;
    let zones = ZONES.get_or_init(py, || PyDict::new(py).unbind()).bind(py);
    if let Some(zone) = zones.get_item(name)? {
        return Ok(zone.cast_into::<PyTzInfo>().map_err(PyErr::from)?);
    }
    let zone = Types::get(py)?.zone.bind(py).call1((name,)).map_err(|_| {
        Failure::unsupported(format!("time zone {name:?} is not known here: install the package tzdata"))
    })?;
    zones.set_item(name, &zone)?;
    Ok(zone.cast_into::<PyTzInfo>().map_err(PyErr::from)?)
}

/// Appends a UUID.
pub fn put_uuid(value: &Bound<'_, PyAny>, out: &mut Vec<u8>) -> Outcome<()> {
    let number: u128 = value.getattr(pyo3::intern!(value.py(), "int"))?.extract()?;
    out.push(Kind::Uuid.number());
    out.extend_from_slice(&number.to_be_bytes());
    Ok(())
}

/// Proleptic Gregorian day number as `date.toordinal()`.
fn ordinal(year: i32, month: u8, day: u8) -> i64 {
    let (month, day) = (i64::from(month), i64::from(day));
    let year = if month <= 2 { i64::from(year) - 1 } else { i64::from(year) };
    let (era, year_of_era) = (year.div_euclid(400), year.rem_euclid(400));
    let day_of_year = (153 * ((month + 9) % 12) + 2) / 5 + day - 1;
    era * 146_097 + year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + day_of_year - 305
}

/// Year, month and day of days since 1970-01-01.
fn civil(days: i64) -> (i32, u8, u8) {
    let shifted = days + 719_468;
    let (era, day_of_era) = (shifted.div_euclid(146_097), shifted.rem_euclid(146_097));
    let year_of_era = (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted_month = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * shifted_month + 2) / 5 + 1;
    let month = if shifted_month < 10 { shifted_month + 3 } else { shifted_month - 9 };
    ((era * 400 + year_of_era + i64::from(month <= 2)) as i32, month as u8, day as u8)
}
