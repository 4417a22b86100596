//! Inline commands: a plain line typed into a terminal, words split as Redis does it, with "…" and '…' quoting.
#![deny(clippy::unwrap_used, clippy::indexing_slicing, clippy::arithmetic_side_effects)]

use super::parse::{Intake, Limits, ProtocolError, push_scratch};
use data_bridge_kv_model::Arg;

const UNBALANCED: ProtocolError = ProtocolError("unbalanced quotes in request");

/// Reads one line and appends its words. The first words of an HTTP request end the connection: a browser that was
/// tricked into talking to this port must not have its headers carried out.
pub(super) fn line<'a>(
    input: &'a [u8],
    limits: &Limits,
    intake: &mut Intake<'a, '_>,
) -> Result<Option<&'a [u8]>, ProtocolError> {
    let window = input.get(..limits.inline_bytes).unwrap_or(input);
    let Some(end) = window.iter().position(|byte| *byte == b'\n') else {
        let too_long = window.len() >= limits.inline_bytes;
        return if too_long { Err(ProtocolError("too big inline request")) } else { Ok(None) };
    };
    let (line, rest) = input.split_at_checked(end).unwrap_or((input, &[]));
    let mut left = line.strip_suffix(b"\r").unwrap_or(line);
    let before = intake.args.len();
    while let Some(next) = word(left, intake)? {
        left = next;
        if intake.args.len().saturating_sub(before) > limits.arguments {
            return Err(ProtocolError("too many arguments"));
        }
    }
    let first = intake.args.get(before).and_then(|arg| arg.content()).unwrap_or_default();
    if first.eq_ignore_ascii_case(b"post") || first.eq_ignore_ascii_case(b"host:") {
        return Err(ProtocolError("this is not an HTTP server"));
    }
    Ok(Some(rest.get(1..).unwrap_or_default()))
}

/// Appends the first word of `line` and answers what follows it; `None` where no word is left.
fn word<'a>(line: &'a [u8], intake: &mut Intake<'a, '_>) -> Result<Option<&'a [u8]>, ProtocolError> {
    let line = line.trim_ascii_start();
    if line.is_empty() {
        return Ok(None);
    }
    let end = line.iter().position(|byte| byte.is_ascii_whitespace()).unwrap_or(line.len());
    let (plain, rest) = line.split_at_checked(end).unwrap_or((line, &[]));
    if !plain.iter().any(|byte| matches!(byte, b'"' | b'\'')) {
        intake.args.push(Arg::Untyped(plain));
        return Ok(Some(rest));
    }
    let start = intake.scratch.len();
    let rest = quoted(line, intake.scratch)?;
    push_scratch(start, intake);
    Ok(Some(rest))
}

/// Writes a word with quotes in it to `out`.
fn quoted<'a>(word: &'a [u8], out: &mut Vec<u8>) -> Result<&'a [u8], ProtocolError> {
    let mut rest = word;
    loop {
        rest = match rest {
            [] => return Ok(rest),
            [blank, ..] if blank.is_ascii_whitespace() => return Ok(rest),
            [b'"', next @ ..] => closed(double_quoted(next, out)?)?,
            [b'\'', next @ ..] => closed(single_quoted(next, out)?)?,
            [byte, next @ ..] => {
                out.push(*byte);
                next
            }
        };
    }
}

/// After a closing quote only a blank or the end may follow.
fn closed(rest: &[u8]) -> Result<&[u8], ProtocolError> {
    match rest.first() {
        Some(byte) if !byte.is_ascii_whitespace() => Err(UNBALANCED),
        _ => Ok(rest),
    }
}

fn double_quoted<'a>(mut rest: &'a [u8], out: &mut Vec<u8>) -> Result<&'a [u8], ProtocolError> {
    loop {
        rest = match rest {
            [] => return Err(UNBALANCED),
            [b'"', next @ ..] => return Ok(next),
            [b'\\', b'x', high, low, next @ ..] if high.is_ascii_hexdigit() && low.is_ascii_hexdigit() => {
                out.push(hex(*high) << 4 | hex(*low));
                next
            }
            [b'\\', escaped, next @ ..] => {
                out.push(match escaped {
                    b'n' => b'\n',
                    b'r' => b'\r',
                    b't' => b'\t',
                    b'b' => 8,
                    b'a' => 7,
                    other => *other,
                });
                next
            }
            [byte, next @ ..] => {
                out.push(*byte);
                next
            }
        };
    }
}

fn single_quoted<'a>(mut rest: &'a [u8], out: &mut Vec<u8>) -> Result<&'a [u8], ProtocolError> {
    loop {
        rest = match rest {
            [] => return Err(UNBALANCED),
            [b'\'', next @ ..] => return Ok(next),
            [b'\\', b'\'', next @ ..] => {
                out.push(b'\'');
                next
            }
            [byte, next @ ..] => {
                out.push(*byte);
                next
            }
        };
    }
}

fn hex(digit: u8) -> u8 {
    char::from(digit).to_digit(16).and_then(|value| u8::try_from(value).ok()).unwrap_or(0)
}
