//! Requests of a RESP client: arrays of bulk strings, with typed RESP3 elements accepted as arguments.
//!
//! ```text
//! *3 $6 KV.SET $1 k :5                an integer          ,1.5 a float      #t a bool       _ null
//! =8 dec:1.10  a decimal              =6 txt:hi text      (170141…  an integer of any size
//! *2 … a list     ~2 … a set          %1 … a hash         (as arguments, nested at most 32 deep)
//! ```
//! Scalars are borrowed from the input as they are; a list, set or hash is written in the value codec to the
//! [`Intake`]'s scratch. A declared length is only ever compared with a limit, never allocated.
#![deny(clippy::unwrap_used, clippy::indexing_slicing, clippy::arithmetic_side_effects)]

use data_bridge_kv_model::codec::put_varint;
use data_bridge_kv_model::command::table::Spec;
use data_bridge_kv_model::error::Error;
use data_bridge_kv_model::limits::VALUE_DEPTH;
use data_bridge_kv_model::{Arg, Kind, ValueRef};
use std::ops::Range;

/// Longest head line of an element: a big integer of 32,768 bits has 9,865 digits.
pub const LINE_BYTES: usize = 16 << 10;
/// Codes of verbatim strings (`=len code:text`), both ways.
pub const VERBATIM: [(&[u8; 3], Kind); 7] = [
    (b"txt", Kind::Text),
    (b"dec", Kind::Decimal),
    (b"tsp", Kind::Timestamp),
    (b"dat", Kind::Date),
    (b"tim", Kind::Time),
    (b"dur", Kind::Duration),
    (b"uid", Kind::Uuid),
];

/// What a request may hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Most arguments, the name included.
    pub arguments: usize,
    /// Longest bulk string in bytes.
    pub bulk_bytes: usize,
    /// Longest inline command in bytes.
    pub inline_bytes: usize,
}

/// The client doesn't speak RESP, or beyond its limits: it gets this line and the connection ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ProtocolError(pub &'static str);

/// Where parsed arguments go. The memory is the connection's and used again for every batch.
#[derive(Debug)]
pub struct Intake<'a, 'm> {
    /// The arguments, each request's name first.
    pub args: &'m mut Vec<Arg<'a>>,
    /// Bytes of arguments that don't stand in the input as they are.
    pub scratch: &'m mut Vec<u8>,
    /// Which arguments stand in `scratch`: they are put in place by [`place`] once the batch is parsed.
    pub placed: &'m mut Vec<Placed>,
    /// Why the request just read can't be carried out although it is well-formed.
    pub fault: Option<Error>,
    /// Whether the request just read began as one of those before.
    repeats: bool,
    /// How the request just read began, and the last one that began otherwise: batches often take turns with two commands.
    openings: [Opening<'a>; 2],
}

impl<'a, 'm> Intake<'a, 'm> {
    /// An intake that nothing was read with yet.
    pub fn new(
        args: &'m mut Vec<Arg<'a>>,
        scratch: &'m mut Vec<u8>,
        placed: &'m mut Vec<Placed>,
    ) -> Intake<'a, 'm> {
        Intake { args, scratch, placed, fault: None, repeats: false, openings: [Opening::default(); 2] }
    }

    /// What [`Intake::note`] was told of the request just read, or of one that began as it did.
    #[inline]
    pub fn noted(&self) -> Option<Option<&'static Spec>> {
        self.repeats.then_some(self.openings[0].spec)
    }

    /// Takes down which command the request just read names.
    #[inline]
    pub fn note(&mut self, spec: Option<&'static Spec>) {
        self.openings[0].spec = spec;
    }

    /// Begins a request of which nothing is known yet.
    fn begin(&mut self) {
        (self.repeats, self.openings) = (false, [Opening::default(), self.openings[0]]);
    }

    /// The opening that these bytes begin with, and what follows it.
    #[inline]
    fn recall(&mut self, input: &'a [u8]) -> Option<&'a [u8]> {
        if let Some(rest) = self.openings[0].follow(input) {
            return Some(rest);
        }
        let rest = self.openings[1].follow(input)?;
        self.openings.swap(0, 1);
        Some(rest)
    }
}

/// How an array began: many requests of a batch begin with the same bytes, and those need not be read again.
#[derive(Clone, Copy, Debug, Default)]
struct Opening<'a> {
    /// Its bytes up to the first argument behind the name; empty if nothing is known.
    bytes: &'a [u8],
    name: &'a [u8],
    /// How many arguments follow the name.
    arguments: usize,
    spec: Option<&'static Spec>,
}

impl Opening<'_> {
    /// What follows it, if the input begins with it.
    #[inline]
    fn follow<'i>(&self, input: &'i [u8]) -> Option<&'i [u8]> {
        input.strip_prefix(self.bytes).filter(|_| !self.bytes.is_empty())
    }
}

/// An argument that stands in the scratch.
#[derive(Clone, Debug)]
pub struct Placed {
    arg: usize,
    range: Range<usize>,
    encoded: bool,
}

/// Outcome of reading a piece: what follows it, or `None` while it is not whole.
pub type Step<'a, T> = Result<Option<(T, &'a [u8])>, ProtocolError>;

/// Reads the request at the start of `input`, appends its arguments, and answers what follows it. While it is not
/// whole nothing is appended. An empty line or array appends nothing.
#[inline]
pub fn request<'a>(
    input: &'a [u8],
    limits: &Limits,
    intake: &mut Intake<'a, '_>,
) -> Result<Option<&'a [u8]>, ProtocolError> {
    let marks = (intake.args.len(), intake.scratch.len(), intake.placed.len());
    let outcome = match input {
        [] => return Ok(None),
        [b'*', ..] => array(input, limits, intake),
        _ => line(input, limits, intake),
    };
    if matches!(outcome, Ok(None)) {
        intake.args.truncate(marks.0);
        intake.scratch.truncate(marks.1);
        intake.placed.truncate(marks.2);
        intake.fault = None;
    }
    outcome
}

#[inline]
fn array<'a>(
    input: &'a [u8],
    limits: &Limits,
    intake: &mut Intake<'a, '_>,
) -> Result<Option<&'a [u8]>, ProtocolError> {
    let mut rest = match intake.recall(input) {
        Some(rest) => {
            intake.repeats = true;
            intake.args.push(Arg::Untyped(intake.openings[0].name));
            rest
        }
        None => match open(input, limits, intake)? {
            Some(rest) => rest,
            None => return Ok(None),
        },
    };
    for _ in 0..intake.openings[0].arguments {
        let Some(next) = argument(rest, limits, intake)? else { return Ok(None) };
        rest = next;
    }
    Ok(Some(rest))
}

#[inline(never)]
fn line<'a>(
    input: &'a [u8],
    limits: &Limits,
    intake: &mut Intake<'a, '_>,
) -> Result<Option<&'a [u8]>, ProtocolError> {
    intake.begin();
    super::inline::line(input, limits, intake)
}

/// Reads how an array begins, its mark included; answers what follows its name.
#[inline(never)]
fn open<'a>(
    input: &'a [u8],
    limits: &Limits,
    intake: &mut Intake<'a, '_>,
) -> Result<Option<&'a [u8]>, ProtocolError> {
    intake.begin();
    let behind_mark = input.get(1..).unwrap_or_default();
    let Some((count, rest)) = length(behind_mark, "invalid multibulk length")? else { return Ok(None) };
    let Ok(count) = usize::try_from(count) else { return Ok(Some(rest)) };
    if count > limits.arguments {
        return Err(ProtocolError("invalid multibulk length"));
    }
    let Some(arguments) = count.checked_sub(1) else { return Ok(Some(rest)) };
    let placed = intake.placed.len();
    let Some(rest) = argument(rest, limits, intake)? else { return Ok(None) };
    intake.openings[0].arguments = arguments;
    // A name that stands in the scratch is read anew each time.
    if let Some(Arg::Untyped(name)) = intake.args.last()
        && intake.placed.len() == placed
    {
        let bytes = input.get(..input.len().saturating_sub(rest.len())).unwrap_or_default();
        intake.openings[0] = Opening { bytes, name, arguments, spec: None };
    }
    Ok(Some(rest))
}

#[inline]
fn argument<'a>(
    input: &'a [u8],
    limits: &Limits,
    intake: &mut Intake<'a, '_>,
) -> Result<Option<&'a [u8]>, ProtocolError> {
    if let Some((bytes, rest)) = short_bulk(input).filter(|(bytes, _)| bytes.len() <= limits.bulk_bytes) {
        intake.args.push(Arg::Untyped(bytes));
        return Ok(Some(rest));
    }
    any_argument(input, limits, intake)
}

#[inline(never)]
fn any_argument<'a>(
    input: &'a [u8],
    limits: &Limits,
    intake: &mut Intake<'a, '_>,
) -> Result<Option<&'a [u8]>, ProtocolError> {
    if let [b'$', rest @ ..] = input {
        let Some((bytes, rest)) = bulk(rest, limits)? else { return Ok(None) };
        intake.args.push(Arg::Untyped(bytes));
        return Ok(Some(rest));
    }
    typed(input, limits, intake)
}

/// A typed element as an argument.
fn typed<'a>(
    input: &'a [u8],
    limits: &Limits,
    intake: &mut Intake<'a, '_>,
) -> Result<Option<&'a [u8]>, ProtocolError> {
    if !matches!(input, [b'*' | b'~' | b'%', ..]) {
        let Some((arg, rest)) = scalar(input, limits)? else { return Ok(None) };
        intake.args.push(arg);
        return Ok(Some(rest));
    }
    let start = intake.scratch.len();
    let Some(rest) = element(input, limits, VALUE_DEPTH, intake)? else { return Ok(None) };
    let range = start..intake.scratch.len();
    let written = intake.scratch.get(range.clone()).unwrap_or_default();
    if intake.fault.is_none() {
        intake.fault = ValueRef::decode(written).err();
    }
    intake.placed.push(Placed { arg: intake.args.len(), range, encoded: true });
    intake.args.push(Arg::Untyped(b""));
    Ok(Some(rest))
}

/// Appends an argument whose bytes end at the end of the scratch and start at `start`.
pub(super) fn push_scratch(start: usize, intake: &mut Intake<'_, '_>) {
    let range = start..intake.scratch.len();
    intake.placed.push(Placed { arg: intake.args.len(), range, encoded: false });
    intake.args.push(Arg::Untyped(b""));
}

/// Puts the arguments that stand in the scratch in their places.
pub fn place<'a>(args: &mut [Arg<'a>], scratch: &'a [u8], placed: &[Placed]) {
    for one in placed {
        let bytes = scratch.get(one.range.clone()).unwrap_or_default();
        let Some(arg) = args.get_mut(one.arg) else { continue };
        if !one.encoded {
            *arg = Arg::Untyped(bytes);
        } else if let Ok(value) = ValueRef::decode(bytes) {
            *arg = Arg::Value(value);
        }
    }
}

/// A scalar element, borrowed.
fn scalar<'a>(input: &'a [u8], limits: &Limits) -> Step<'a, Arg<'a>> {
    let Some((&mark, rest)) = input.split_first() else { return Ok(None) };
    if mark == b'$' {
        return Ok(bulk(rest, limits)?.map(|(bytes, rest)| (Arg::Untyped(bytes), rest)));
    }
    if mark == b'=' {
        let Some((bytes, rest)) = bulk(rest, limits)? else { return Ok(None) };
        return Ok(Some((verbatim(bytes)?, rest)));
    }
    let Some((text, rest)) = text_line(rest)? else { return Ok(None) };
    let arg = match (mark, text) {
        (b':', _) => Arg::Literal(Kind::Int, text),
        (b',', _) => Arg::Literal(Kind::Float, text),
        (b'(', _) => {
            let fits = data_bridge_kv_model::arg::parse_int(text).is_some();
            Arg::Literal(if fits { Kind::Int } else { Kind::BigInt }, text)
        }
        (b'#', b"t") => Arg::Value(ValueRef::from_static(Kind::Bool, &[1])),
        (b'#', b"f") => Arg::Value(ValueRef::from_static(Kind::Bool, &[0])),
        (b'_', b"") => Arg::Value(ValueRef::from_static(Kind::Null, &[])),
        _ => return Err(ProtocolError("expected '$' or a typed element")),
    };
    Ok(Some((arg, rest)))
}

fn verbatim(bytes: &[u8]) -> Result<Arg<'_>, ProtocolError> {
    let unknown = ProtocolError("unknown code of a verbatim string");
    let (code, text) = bytes.split_first_chunk::<3>().ok_or(unknown)?;
    let text = text.strip_prefix(b":").ok_or(unknown)?;
    let kind = VERBATIM.iter().find(|(known, _)| *known == code).map(|(_, kind)| *kind);
    Ok(Arg::Literal(kind.ok_or(unknown)?, text))
}

/// Writes an element to the scratch in the value codec.
fn element<'a>(
    input: &'a [u8],
    limits: &Limits,
    depth: usize,
    intake: &mut Intake<'_, '_>,
) -> Result<Option<&'a [u8]>, ProtocolError> {
    let (kind, width, rest) = match input {
        [b'*', rest @ ..] => (Kind::List, 1usize, rest),
        [b'~', rest @ ..] => (Kind::Set, 1, rest),
        [b'%', rest @ ..] => (Kind::Hash, 2, rest),
        _ => {
            let Some((arg, rest)) = scalar(input, limits)? else { return Ok(None) };
            let mut literal = Vec::new();
            match arg.value(&mut literal) {
                Ok(value) => value.encode_into(intake.scratch),
                Err(error) => intake.fault = Some(error),
            }
            return Ok(Some(rest));
        }
    };
    let inner = depth.checked_sub(1).ok_or(ProtocolError("arguments are nested too deep"))?;
    let Some((count, mut rest)) = length(rest, "invalid length of a collection")? else { return Ok(None) };
    let count = usize::try_from(count).map_err(|_| ProtocolError("invalid length of a collection"))?;
    if count > limits.arguments {
        return Err(ProtocolError("invalid length of a collection"));
    }
    intake.scratch.push(kind.number());
    put_varint(count, intake.scratch);
    for _ in 0..count.saturating_mul(width) {
        let Some(next) = element(rest, limits, inner, intake)? else { return Ok(None) };
        rest = next;
    }
    Ok(Some(rest))
}

/// A whole bulk string of less than a hundred bytes, as most arguments are. Anything else is for [`bulk`] to read.
#[inline]
fn short_bulk(input: &[u8]) -> Option<(&[u8], &[u8])> {
    let (count, start) = match *input.first_chunk::<5>()? {
        [b'$', a @ b'0'..=b'9', b'\r', b'\n', _] => (a & 15, 4),
        [b'$', a @ b'0'..=b'9', b @ b'0'..=b'9', b'\r', b'\n'] => {
            ((a & 15).saturating_mul(10).saturating_add(b & 15), 5)
        }
        _ => return None,
    };
    let (bytes, rest) = input.get(start..)?.split_at_checked(usize::from(count))?;
    let (end, rest) = rest.split_first_chunk::<2>()?;
    (end == b"\r\n").then_some((bytes, rest))
}

/// A bulk string after its mark.
fn bulk<'a>(input: &'a [u8], limits: &Limits) -> Step<'a, &'a [u8]> {
    let Some((count, rest)) = length(input, "invalid bulk length")? else { return Ok(None) };
    let count = usize::try_from(count).map_err(|_| ProtocolError("invalid bulk length"))?;
    if count > limits.bulk_bytes {
        return Err(ProtocolError("invalid bulk length"));
    }
    let Some((bytes, rest)) = rest.split_at_checked(count) else { return Ok(None) };
    match rest {
        [b'\r', b'\n', rest @ ..] => Ok(Some((bytes, rest))),
        [] | [b'\r'] => Ok(None),
        _ => Err(ProtocolError("expected CRLF after a bulk string")),
    }
}

/// A length line: digits, perhaps with a minus, and CRLF.
#[inline]
pub(super) fn length<'a>(input: &'a [u8], wrong: &'static str) -> Step<'a, i64> {
    match input {
        [a @ b'0'..=b'9', b'\r', b'\n', rest @ ..] => return Ok(Some((i64::from(a & 15), rest))),
        [a @ b'0'..=b'9', b @ b'0'..=b'9', b'\r', b'\n', rest @ ..] => {
            let tens = i64::from(a & 15).saturating_mul(10);
            return Ok(Some((tens.saturating_add(i64::from(b & 15)), rest)));
        }
        _ => {}
    }
    let (negative, digits) = match input {
        [b'-', rest @ ..] => (true, rest),
        _ => (false, input),
    };
    let mut number: i64 = 0;
    let mut rest = digits;
    loop {
        match rest {
            [digit @ b'0'..=b'9', next @ ..] => {
                let grown = number.checked_mul(10).and_then(|ten| ten.checked_add(i64::from(digit & 15)));
                number = grown.ok_or(ProtocolError(wrong))?;
                rest = next;
            }
            [b'\r', b'\n', next @ ..] if rest.len() < digits.len() => {
                return Ok(Some((if negative { number.saturating_neg() } else { number }, next)));
            }
            [] => return Ok(None),
            [b'\r'] if rest.len() < digits.len() => return Ok(None),
            _ => return Err(ProtocolError(wrong)),
        }
    }
}

/// A line of text up to CRLF.
pub(super) fn text_line(input: &[u8]) -> Step<'_, &[u8]> {
    let window = input.get(..LINE_BYTES).unwrap_or(input);
    let Some(end) = window.iter().position(|byte| *byte == b'\r') else {
        let too_long = window.len() >= LINE_BYTES;
        return if too_long { Err(ProtocolError("too long a line")) } else { Ok(None) };
    };
    let (text, rest) = input.split_at_checked(end).unwrap_or((input, &[]));
    match rest {
        [b'\r', b'\n', rest @ ..] => Ok(Some((text, rest))),
        [b'\r'] => Ok(None),
        _ => Err(ProtocolError("expected CRLF")),
    }
}

#[cfg(test)]
#[path = "parse_tests.rs"]
mod tests;
