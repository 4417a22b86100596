//! The client side of the native protocol without any I/O: requests become bytes, bytes become responses, and what is
//! in flight is known by its id. The asynchronous client of this crate and the Python clients are shells around it.
//!
//! A connection starts with [`PREFACE`] both ways; the frames stand in `data_bridge_kv_model::frame`.

use std::collections::HashMap;
use std::hash::{BuildHasherDefault, Hasher};

use data_bridge_kv_model::command::table::{self, Spec, opcode};
use data_bridge_kv_model::frame::{self, DURABLE, DURABLY, PREFACE, PUSH, RequestHead};
use data_bridge_kv_model::limits::{INLINE_BYTES, REQUEST_BYTES, VALUE_BYTES_HARD};
use data_bridge_kv_model::{Error, ErrorKind, Result, ValueRef};

/// Largest response that is taken: the largest value an operator can allow and its frame.
const RESPONSE_BYTES: usize = VALUE_BYTES_HARD + 1024;
/// Longest arguments of a request that is sent: the largest value and what stands beside it, less than a server takes.
const ARGUMENT_BYTES: usize = REQUEST_BYTES + INLINE_BYTES / 2;
/// Id of the request of a greeting that other servers answer too.
const PROBE_ID: u32 = u32::MAX;
/// Most bytes of what another server says that are shown.
const SHOWN_BYTES: usize = 80;
/// An input buffer above this gives its memory back once it is empty.
const KEPT_BYTES: usize = 1 << 20;

/// Refuses arguments of so many bytes, encoded, if no server takes them: it would close the connection.
pub fn check_request(bytes: usize) -> Result<()> {
    if bytes <= ARGUMENT_BYTES {
        return Ok(());
    }
    let message =
        format!("the request takes {bytes} bytes, more than the limit of 64 MiB: send less at once");
    Err(Error::new(ErrorKind::Limit, message))
}

/// Appends one request whose arguments are encoded already. With [`DURABLY`] added to its opcode it is answered when it is
/// on disk.
#[inline]
pub fn put_request(id: u32, opcode: u16, args: &[u8], out: &mut Vec<u8>) {
    let flags = if opcode & DURABLY == 0 { 0 } else { DURABLE };
    let at = frame::start_request(RequestHead { id, opcode: opcode & !DURABLY, flags }, out);
    out.extend_from_slice(args);
    frame::finish(at, out);
}

/// Appends what a connection says first: the preface, the probe, and AUTH and SELECT where they are wanted. They get the
/// ids from 0 on; answers how many responses to wait for.
///
/// The probe is a PING whose length, 10, is the end of a line elsewhere: Redis or an HTTP server complains at once about what
/// it takes for a line, where it would wait for the rest of it. Its answer, an error before AUTH, is nobody's.
pub fn put_greeting(password: Option<&str>, namespace: Option<&str>, out: &mut Vec<u8>) -> u32 {
    out.extend_from_slice(&PREFACE);
    let mut message = Vec::new();
    ValueRef::text("?").encode_into(&mut message);
    put_request(PROBE_ID, opcode::PING, &message, out);
    let said = [(opcode::AUTH, password), (opcode::SELECT, namespace)];
    let mut id = 0u32;
    for (opcode, text) in said {
        let Some(text) = text else { continue };
        let mut args = Vec::new();
        ValueRef::text(text).encode_into(&mut args);
        put_request(id, opcode, &args, out);
        id = id.saturating_add(1);
    }
    id
}

/// Whether a request that may have been sent can be sent again: its outcome is the same. A write that answers what it
/// found, or that depends on it, is not, whatever its command.
pub fn is_repeatable(opcode: u16, args: &[u8]) -> bool {
    let Some(spec) = table::by_opcode(opcode & !DURABLY) else { return false };
    spec.is_repeatable() && (spec.has(table::READ) || !has_condition(spec, args))
}

/// Whether a SET-like write carries options that look at what was there.
fn has_condition(spec: &Spec, args: &[u8]) -> bool {
    let is_set = matches!(spec.opcode, opcode::SET | opcode::KV_SET);
    let mut reader = data_bridge_kv_model::Reader::new(args);
    let mut position = 0usize;
    while is_set && !reader.rest().is_empty() {
        let Ok(value) = reader.value() else { return true };
        let word = if position >= 2 { value.content() } else { None };
        let looks = |text: &[u8]| ["NX", "XX", "GET"].iter().any(|w| text.eq_ignore_ascii_case(w.as_bytes()));
        if word.is_some_and(looks) {
            return true;
        }
        position = position.saturating_add(1);
    }
    false
}

/// One response.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Response<'a> {
    /// The request's id; for a push, that of the request that started the watch.
    pub id: u32,
    /// Whether it is an event of a watch, not an answer.
    pub push: bool,
    /// One reply item.
    pub item: &'a [u8],
}

/// Cuts the bytes of a connection into responses.
#[derive(Debug, Default)]
pub struct Responses {
    /// Its length is the room that was made so far; what was read ends at `end`.
    buffer: Vec<u8>,
    taken: usize,
    end: usize,
    greeted: bool,
}

impl Responses {
    /// For a new connection.
    pub fn new() -> Responses {
        Responses::default()
    }

    /// Appends what the socket gave.
    #[inline]
    pub fn feed(&mut self, bytes: &[u8]) {
        if let Some(room) = self.room(bytes.len()).get_mut(..bytes.len()) {
            room.copy_from_slice(bytes);
        }
        self.filled(bytes.len());
    }

    /// Room for at least so many bytes to read into; [`Responses::filled`] says how many came.
    pub fn room(&mut self, least: usize) -> &mut [u8] {
        if self.taken == self.end {
            (self.taken, self.end) = (0, 0);
            if self.buffer.len() > KEPT_BYTES {
                self.buffer = Vec::new();
            }
        } else if self.taken > self.buffer.len() / 2 {
            self.buffer.copy_within(self.taken..self.end, 0);
            (self.taken, self.end) = (0, self.end.saturating_sub(self.taken));
        }
        let needed = self.end.saturating_add(least);
        if self.buffer.len() < needed {
            self.buffer.resize(needed.max(self.buffer.len().saturating_mul(2)), 0);
        }
        self.buffer.get_mut(self.end..).unwrap_or_default()
    }

    /// So many bytes were read into the room.
    pub fn filled(&mut self, count: usize) {
        self.end = self.end.saturating_add(count).min(self.buffer.len());
    }

    /// Whether the next response is whole; an error where the bytes can't be one.
    pub fn is_whole(&mut self) -> Result<bool> {
        if !self.greeted && !self.greet()? {
            return Ok(false);
        }
        Ok(frame::split(self.unread(), RESPONSE_BYTES)?.is_some())
    }

    /// The next whole response, if there is one. After an error the connection is of no use.
    #[inline]
    pub fn cut(&mut self) -> Result<Option<Response<'_>>> {
        if !self.greeted && !self.greet()? {
            return Ok(None);
        }
        let rest = self.buffer.get(self.taken..self.end).unwrap_or_default();
        let Some((body, used)) = frame::split(rest, RESPONSE_BYTES)? else { return Ok(None) };
        self.taken = self.taken.saturating_add(used);
        let (id, flags, item) = frame::read_response(body)?;
        Ok(Some(Response { id, push: flags & PUSH != 0, item }))
    }

    fn unread(&self) -> &[u8] {
        self.buffer.get(self.taken..self.end).unwrap_or_default()
    }

    fn greet(&mut self) -> Result<bool> {
        let length = self.unread().len().min(PREFACE.len());
        if self.unread().get(..length) != PREFACE.get(..length) {
            return Err(stranger(self.unread()));
        }
        let rest = self.unread().get(PREFACE.len()..).unwrap_or_default();
        let Some((body, used)) = frame::split(rest, RESPONSE_BYTES)? else { return Ok(false) };
        let probe = if frame::read_response(body)?.0 == PROBE_ID { used } else { 0 };
        (self.greeted, self.taken) = (true, PREFACE.len().saturating_add(probe));
        Ok(true)
    }
}

/// What is told of a server that is not one of ours, by the first line that it says.
#[cold]
fn stranger(said: &[u8]) -> Error {
    let line = said.split(|byte| b"\r\n".contains(byte)).next().unwrap_or_default();
    let shown = line.get(..SHOWN_BYTES).unwrap_or(line).escape_ascii();
    let guess = match said {
        [b'H', b'T', b'T', b'P', ..] | [b'<', ..] => " but HTTP (is it an admin port?)",
        [b'-' | b'+', ..] => " but that of Redis",
        _ => "",
    };
    let message =
        format!("the other side does not speak the native protocol of data-bridge{guess}: it says '{shown}'");
    Error::new(ErrorKind::InvalidArgument, message)
}

/// What waits for a response, by id.
#[derive(Debug)]
pub struct InFlight<T> {
    next: u32,
    waiting: HashMap<u32, T, BuildHasherDefault<IdHasher>>,
}

impl<T> InFlight<T> {
    /// None yet; ids start at `first`, behind those of the greeting.
    pub fn starting_at(first: u32) -> InFlight<T> {
        InFlight { next: first, waiting: HashMap::default() }
    }

    /// Takes a free id for a waiter.
    #[inline]
    pub fn add(&mut self, waiter: T) -> u32 {
        while self.waiting.contains_key(&self.next) {
            self.next = self.next.wrapping_add(1);
        }
        let id = self.next;
        self.next = id.wrapping_add(1);
        self.waiting.insert(id, waiter);
        id
    }

    /// The waiter of an answer; its id is free again.
    #[inline]
    pub fn take(&mut self, id: u32) -> Option<T> {
        self.waiting.remove(&id)
    }

    /// The waiter of a push, which stays.
    pub fn get_mut(&mut self, id: u32) -> Option<&mut T> {
        self.waiting.get_mut(&id)
    }

    /// The waiters that `goes` picks; their ids are free again, late answers are dropped.
    pub fn take_where(&mut self, mut goes: impl FnMut(&T) -> bool) -> Vec<T> {
        self.waiting.extract_if(|_, waiter| goes(waiter)).map(|(_, waiter)| waiter).collect()
    }

    /// How many wait.
    #[inline]
    pub fn len(&self) -> usize {
        self.waiting.len()
    }

    /// Whether none waits.
    #[inline]
    pub fn is_empty(&self) -> bool {
        self.waiting.is_empty()
    }

    /// All waiters with their ids, when the connection has ended.
    pub fn drain(&mut self) -> impl Iterator<Item = (u32, T)> + '_ {
        self.waiting.drain()
    }

    /// Puts back one of them, whose request is sent again under its id.
    pub fn restore(&mut self, id: u32, waiter: T) {
        self.waiting.insert(id, waiter);
    }
}

/// Spreads our own counters; nobody else chooses them.
#[derive(Default)]
pub struct IdHasher(u64);

impl Hasher for IdHasher {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.0 = (self.0 ^ u64::from(*byte)).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        }
    }

    #[inline]
    fn write_u32(&mut self, id: u32) {
        self.0 = u64::from(id).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answer(id: u32, item: &[u8]) -> Vec<u8> {
        let mut out = Vec::new();
        let at = frame::start_response(id, 0, &mut out);
        out.extend_from_slice(item);
        frame::finish(at, &mut out);
        out
    }

    #[test]
    fn responses_are_cut_wherever_the_bytes_are_split() {
        let stream = [PREFACE.to_vec(), answer(7, b"abc"), answer(8, b""), answer(9, &[1; 300])].concat();
        for step in 1..stream.len() {
            let mut responses = Responses::new();
            let mut seen = Vec::new();
            for piece in stream.chunks(step) {
                responses.feed(piece);
                while let Some(response) = responses.cut().unwrap() {
                    seen.push((response.id, response.item.len()));
                }
            }
            assert_eq!(seen, [(7, 3), (8, 0), (9, 300)], "in pieces of {step}");
        }
    }

    #[test]
    fn another_protocol_is_refused_and_named() {
        for (said, told) in [
            (
                &b"-ERR unknown command 'x'\r\n"[..],
                " but that of Redis: it says '-ERR unknown command \\'x\\''",
            ),
            (
                b"HTTP/1.1 400 Bad Request\r\nX",
                " but HTTP (is it an admin port?): it says 'HTTP/1.1 400 Bad Request'",
            ),
            (b"SSH-2.0-\xff", ": it says 'SSH-2.0-\\xff'"),
        ] {
            let mut responses = Responses::new();
            responses.feed(said);
            let error = responses.cut().unwrap_err();
            let start = "the other side does not speak the native protocol of data-bridge";
            assert_eq!(error.message(), format!("{start}{told}"));
        }
    }

    #[test]
    fn a_greeting_ends_a_line_for_servers_that_read_lines() {
        let mut greeting = Vec::new();
        assert_eq!(put_greeting(Some("secret"), None, &mut greeting), 1);
        assert!(greeting.starts_with(b"\xdbKV\x01\n"));
    }

    #[test]
    fn the_answer_to_the_probe_is_nobodys() {
        let stream = [PREFACE.to_vec(), answer(PROBE_ID, b"pong"), answer(0, b"yes")].concat();
        for step in 1..=stream.len() {
            let mut responses = Responses::new();
            let mut seen = Vec::new();
            for piece in stream.chunks(step) {
                responses.feed(piece);
                while responses.is_whole().unwrap() {
                    seen.push(responses.cut().unwrap().unwrap().item.to_vec());
                }
            }
            assert_eq!(seen, [b"yes"], "in pieces of {step}");
        }
    }

    #[test]
    fn ids_in_flight_differ_and_come_back() {
        let mut flight = InFlight::starting_at(u32::MAX);
        let ids = [flight.add('a'), flight.add('b')];
        assert_eq!(ids, [u32::MAX, 0]);
        assert_eq!((flight.take(0), flight.take(0)), (Some('b'), None));
        assert_eq!(flight.len(), 1);
    }

    #[test]
    fn conditional_writes_are_not_repeated() {
        let args = |words: &[&str]| {
            let mut out = Vec::new();
            words.iter().for_each(|word| ValueRef::text(word).encode_into(&mut out));
            out
        };
        assert!(is_repeatable(opcode::KV_SET, &args(&["k", "NX"])));
        assert!(is_repeatable(opcode::KV_SET, &args(&["k", "v", "PX", "10"])));
        assert!(!is_repeatable(opcode::KV_SET, &args(&["k", "v", "nx"])));
        assert!(!is_repeatable(opcode::SET, &args(&["k", "v", "GET"])));
        assert!(is_repeatable(opcode::KV_GET, &args(&["k"])));
        assert!(!is_repeatable(opcode::KV_INCR, &args(&["k"])));
        assert!(!is_repeatable(u16::MAX, &[]));
    }
}
