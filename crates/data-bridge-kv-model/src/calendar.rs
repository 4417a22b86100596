//! ISO 8601 text of dates, times and durations, and back: what the RESP door shows and what its literals take.
//!
//! ```text
//! Date       2026-11-22
//! Time       13:05:00[.123456][+01:00][[Europe/Berlin]]
//! Timestamp  2026-11-22T13:05:00[.123456][+01:00][[Europe/Berlin]]
//! Duration   P<days>DT<seconds>[.123456]S          days may be negative, seconds count up from there
//! ```
//! The proleptic Gregorian calendar, years 1 to 9999. A fold is shown as `[fold=1]` after the zone.
#![cfg_attr(not(test), deny(clippy::indexing_slicing, clippy::unwrap_used, clippy::arithmetic_side_effects))]

use std::io::Write;

use crate::codec::{AWARE, DAY_US, DURATION_DAYS, FOLD, Reader, ZONE, put_counted};
use crate::error::Result;
use crate::limits::NAME_BYTES;

const SECOND_US: i64 = 1_000_000;

/// Days since 1970-01-01 of a civil date (H. Hinnant's algorithm `days_from_civil`).
#[expect(clippy::arithmetic_side_effects, reason = "years and days have at most seven digits")]
fn days_of(year: i64, month: i64, day: i64) -> i64 {
    let year = if month <= 2 { year - 1 } else { year };
    let era = year.div_euclid(400);
    let year_of_era = year.rem_euclid(400);
    let day_of_year = (153 * ((month + 9) % 12) + 2) / 5 + day - 1;
    era * 146_097 + year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + day_of_year - 719_468
}

/// Year, month and day of days since 1970-01-01.
#[expect(clippy::arithmetic_side_effects, reason = "an i32 of days leaves i64 room")]
fn civil_of(days: i64) -> (i64, i64, i64) {
    let shifted = days + 719_468;
    let era = shifted.div_euclid(146_097);
    let day_of_era = shifted.rem_euclid(146_097);
    let year_of_era = (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted_month = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * shifted_month + 2) / 5 + 1;
    let month = if shifted_month < 10 { shifted_month + 3 } else { shifted_month - 9 };
    (era * 400 + year_of_era + i64::from(month <= 2), month, day)
}

/// Appends a date.
pub(crate) fn show_date(days: i64, out: &mut Vec<u8>) {
    let (year, month, day) = civil_of(days);
    put(out, format_args!("{year:04}-{month:02}-{day:02}"));
}

/// Appends a Time or Timestamp payload.
pub(crate) fn show_moment(payload: &[u8], with_date: bool, out: &mut Vec<u8>) -> Result<()> {
    let mut reader = Reader::new(payload);
    let flags = reader.byte()?;
    let local = reader.i64()?;
    if with_date {
        show_date(local.div_euclid(DAY_US), out);
        out.push(b'T');
    }
    show_clock(local.rem_euclid(DAY_US), out);
    if flags & AWARE != 0 {
        let offset = reader.i64()?;
        out.push(if offset < 0 { b'-' } else { b'+' });
        let seconds = offset.abs() / SECOND_US;
        put(out, format_args!("{:02}:{:02}", seconds / 3600, seconds / 60 % 60));
        let rest = offset.abs() % (60 * SECOND_US);
        if rest != 0 {
            put(out, format_args!(":{:02}", rest / SECOND_US));
            show_fraction(rest % SECOND_US, out);
        }
    }
    if flags & ZONE != 0 {
        let length = reader.varint()?;
        out.push(b'[');
        out.extend_from_slice(reader.take(length)?);
        out.push(b']');
    }
    if flags & FOLD != 0 {
        out.extend_from_slice(b"[fold=1]");
    }
    Ok(())
}

/// Appends a duration.
pub(crate) fn show_duration(days: i64, micros: i64, out: &mut Vec<u8>) {
    put(out, format_args!("P{days}DT{}", micros / SECOND_US));
    show_fraction(micros % SECOND_US, out);
    out.push(b'S');
}

fn show_clock(micros: i64, out: &mut Vec<u8>) {
    let seconds = micros / SECOND_US;
    put(out, format_args!("{:02}:{:02}:{:02}", seconds / 3600, seconds / 60 % 60, seconds % 60));
    show_fraction(micros % SECOND_US, out);
}

fn show_fraction(micros: i64, out: &mut Vec<u8>) {
    if micros != 0 {
        put(out, format_args!(".{micros:06}"));
    }
}

fn put(out: &mut Vec<u8>, text: std::fmt::Arguments<'_>) {
    // Writing to a vector cannot fail.
    let _ = out.write_fmt(text);
}

/// A cursor over ASCII text.
struct Text<'a>(&'a [u8]);

impl Text<'_> {
    fn eat(&mut self, byte: u8) -> Option<()> {
        self.0 = self.0.strip_prefix(&[byte])?;
        Some(())
    }

    fn digits(&mut self, count: usize) -> Option<i64> {
        let (digits, rest) = self.0.split_at_checked(count)?;
        self.0 = rest;
        digits.iter().try_fold(0i64, |number, byte| {
            let digit = char::from(*byte).to_digit(10)?;
            number.checked_mul(10)?.checked_add(i64::from(digit))
        })
    }

    fn number(&mut self) -> Option<i64> {
        let count = self.0.iter().take_while(|byte| byte.is_ascii_digit()).count();
        if count == 0 || count > 12 { None } else { self.digits(count) }
    }

    fn fraction(&mut self) -> Option<i64> {
        if self.eat(b'.').is_none() {
            return Some(0);
        }
        let count = self.0.iter().take_while(|byte| byte.is_ascii_digit()).count();
        if !(1..=6).contains(&count) {
            return None;
        }
        let scale = 10i64.checked_pow(6u32.checked_sub(count as u32)?)?;
        self.digits(count)?.checked_mul(scale)
    }

    fn date(&mut self) -> Option<i64> {
        let (year, month, day) = (self.digits(4)?, self.after(b'-')?, self.after(b'-')?);
        let days = days_of(year, month, day);
        let exists =
            (1..=9999).contains(&year) && (1..=12).contains(&month) && civil_of(days) == (year, month, day);
        exists.then_some(days)
    }

    fn after(&mut self, separator: u8) -> Option<i64> {
        self.eat(separator)?;
        self.digits(2)
    }

    fn clock(&mut self) -> Option<i64> {
        let (hour, minute) = (self.digits(2)?, self.after(b':')?);
        let second = if self.0.first() == Some(&b':') { self.after(b':')? } else { 0 };
        let fraction = self.fraction()?;
        let seconds = hour.checked_mul(60)?.checked_add(minute)?.checked_mul(60)?.checked_add(second)?;
        let exists = hour < 24 && minute < 60 && second < 60;
        seconds.checked_mul(SECOND_US)?.checked_add(fraction).filter(|_| exists)
    }

    /// The tail of a moment: offset, zone, fold; appends the whole payload.
    fn finish_moment(&mut self, local: i64, out: &mut Vec<u8>) -> Option<()> {
        let mut flags = 0;
        let offset = match self.0.first() {
            Some(b'Z') => {
                self.eat(b'Z')?;
                Some(0)
            }
            Some(sign @ (b'+' | b'-')) => {
                let (west, sign) = (*sign == b'-', *sign);
                self.eat(sign)?;
                let offset = self.clock()?;
                Some(if west { offset.checked_neg()? } else { offset })
            }
            _ => None,
        };
        let zone = match self.0 {
            [b'[', rest @ ..] if !rest.starts_with(b"fold=") => {
                let end = rest.iter().position(|byte| *byte == b']')?;
                let (zone, tail) = rest.split_at_checked(end)?;
                self.0 = tail;
                self.eat(b']')?;
                std::str::from_utf8(zone).ok().filter(|zone| !zone.is_empty() && zone.len() <= NAME_BYTES)
            }
            _ => None,
        };
        if let Some(rest) = self.0.strip_prefix(b"[fold=1]") {
            self.0 = rest;
            flags |= FOLD;
        }
        if !self.0.is_empty() {
            return None;
        }
        flags |= if offset.is_some() { AWARE } else { 0 } | if zone.is_some() { ZONE } else { 0 };
        out.push(flags);
        out.extend_from_slice(&local.to_le_bytes());
        if let Some(offset) = offset {
            out.extend_from_slice(&offset.to_le_bytes());
        }
        if let Some(zone) = zone {
            put_counted(zone.as_bytes(), out);
        }
        Some(())
    }
}

/// Reads a date as days since 1970-01-01.
pub(crate) fn parse_date(text: &[u8]) -> Option<i32> {
    let mut text = Text(text);
    let days = text.date()?;
    if text.0.is_empty() { i32::try_from(days).ok() } else { None }
}

/// Reads a time of day and appends its payload.
pub(crate) fn parse_time(text: &[u8], out: &mut Vec<u8>) -> Option<()> {
    let mut text = Text(text);
    let local = text.clock()?;
    text.finish_moment(local, out)
}

/// Reads a timestamp (`T` or a space between date and time) and appends its payload.
pub(crate) fn parse_timestamp(text: &[u8], out: &mut Vec<u8>) -> Option<()> {
    let mut text = Text(text);
    let days = text.date()?;
    text.eat(b'T').or_else(|| text.eat(b' '))?;
    let local = days.checked_mul(DAY_US)?.checked_add(text.clock()?)?;
    text.finish_moment(local, out)
}

/// Reads a duration and appends its payload.
pub(crate) fn parse_duration(text: &[u8], out: &mut Vec<u8>) -> Option<()> {
    let mut text = Text(text);
    text.eat(b'P')?;
    let negative = text.eat(b'-').is_some();
    let days = text.number()?.checked_mul(if negative { -1 } else { 1 })?;
    text.eat(b'D')?;
    text.eat(b'T')?;
    let micros = text.number()?.checked_mul(SECOND_US)?.checked_add(text.fraction()?)?;
    text.eat(b'S')?;
    let days = i32::try_from(days).ok().filter(|days| days.abs() <= DURATION_DAYS)?;
    if micros >= DAY_US || !text.0.is_empty() {
        return None;
    }
    out.extend_from_slice(&days.to_le_bytes());
    out.extend_from_slice(&micros.to_le_bytes());
    Some(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_day_of_the_calendar_comes_back() {
        let (first, last) = (days_of(1, 1, 1), days_of(9999, 12, 31));
        assert_eq!((first, last), (-719_162, 2_932_896));
        for days in (first..=last).step_by(13).chain([first, last, 0, -1, 59, 60]) {
            let mut text = Vec::new();
            show_date(days, &mut text);
            assert_eq!(parse_date(&text).map(i64::from), Some(days));
        }
    }

    #[test]
    fn moments_come_back() {
        for text in [
            "2026-11-22T13:05:00",
            "0001-01-01T00:00:00.000001",
            "2026-10-25T02:30:00+01:00[Europe/Berlin][fold=1]",
            "1969-12-31T23:59:59.999999-00:30:15.000001",
        ] {
            let (mut payload, mut shown) = (Vec::new(), Vec::new());
            parse_timestamp(text.as_bytes(), &mut payload).unwrap();
            show_moment(&payload, true, &mut shown).unwrap();
            assert_eq!(String::from_utf8(shown).unwrap(), text);
        }
        for bad in ["2026-02-30T00:00:00", "2026-01-01", "2026-01-01T24:00:00", "2026-01-01T00:00:00x"] {
            assert!(parse_timestamp(bad.as_bytes(), &mut Vec::new()).is_none(), "{bad}");
        }
    }

    #[test]
    fn durations_come_back() {
        for text in ["P0DT0S", "P-1DT86399.999999S", "P999999999DT0.000001S"] {
            let mut payload = Vec::new();
            parse_duration(text.as_bytes(), &mut payload).unwrap();
            let days = i32::from_le_bytes(payload[..4].try_into().unwrap());
            let micros = i64::from_le_bytes(payload[4..].try_into().unwrap());
            let mut shown = Vec::new();
            show_duration(i64::from(days), micros, &mut shown);
            assert_eq!(String::from_utf8(shown).unwrap(), text);
        }
        assert!(parse_duration(b"P1DT86400S", &mut Vec::new()).is_none());
    }
}
