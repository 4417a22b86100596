//! The native protocol's frames. `docs/PROTOCOL.md` is the page to write a client from.
//!
//! ```text
//! preface  := DB 4B 56 01                          client first, the server answers the same four bytes
//! request  := length:u32 id:u32 opcode:u16 flags:u8 value*        length counts the bytes after it
//! response := length:u32 id:u32 flags:u8 item                     one reply item, see reply.rs
//! ```
//! Numbers are little endian. A response carries its request's id; ids of requests in flight must differ.
//! Flag 1 of a request: its answer waits until it is on disk. Flag 1 of a response: a push, its id is that of the request that started the watch.
//! Other flags are refused.
//!
//! ```
//! use data_bridge_kv_model::command::table::opcode;
//! use data_bridge_kv_model::frame::{self, RequestHead};
//! use data_bridge_kv_model::{Arg, ValueRef};
//!
//! let mut out = Vec::new();
//! let head = RequestHead { id: 1, opcode: opcode::KV_GET, flags: 0 };
//! let at = frame::start_request(head, &mut out);
//! frame::put_arg(ValueRef::text("key"), &mut out);
//! frame::finish(at, &mut out);
//!
//! let (body, used) = frame::split(&out, 1 << 20)?.expect("a whole frame");
//! let mut args = Vec::new();
//! assert_eq!(frame::read_request(body, 16, &mut args)?, head);
//! assert_eq!((args, used), (vec![Arg::Value(ValueRef::text("key"))], out.len()));
//! # Ok::<(), data_bridge_kv_model::Error>(())
//! ```
#![cfg_attr(not(test), deny(clippy::indexing_slicing, clippy::unwrap_used, clippy::arithmetic_side_effects))]

use crate::arg::Arg;
use crate::codec::{Reader, ValueRef};
use crate::command::too_many_arguments;
use crate::error::{Error, ErrorKind, Result};

/// First bytes of a native connection, each way: no RESP request starts with 0xDB.
pub const PREFACE: [u8; 4] = [0xDB, b'K', b'V', 1];
/// Bytes of a request before its arguments.
pub const REQUEST_HEAD: usize = 11;
/// Bytes of a response before its item.
pub const RESPONSE_HEAD: usize = 9;
/// Request flag: the answer waits until what the command wrote is on disk, whatever the namespace's durability says.
pub const DURABLE: u8 = 1;
/// Added to an opcode where opcode and flags travel as one number, inside a client: [`DURABLE`].
pub const DURABLY: u16 = 1 << 15;
/// Response flag: a push, not an answer.
pub const PUSH: u8 = 1;

/// A request without its arguments.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RequestHead {
    /// The client's number for it.
    pub id: u32,
    /// Opcode of `command/table.rs`.
    pub opcode: u16,
    /// Flags: 0 or [`DURABLE`].
    pub flags: u8,
}

/// Appends a request head and remembers where its length stands; [`finish`] fills it in.
pub fn start_request(head: RequestHead, out: &mut Vec<u8>) -> usize {
    let at = out.len();
    out.extend_from_slice(&[0; 4]);
    out.extend_from_slice(&head.id.to_le_bytes());
    out.extend_from_slice(&head.opcode.to_le_bytes());
    out.push(head.flags);
    at
}

/// Appends a response head; the item follows, then [`finish`].
#[inline]
pub fn start_response(id: u32, flags: u8, out: &mut Vec<u8>) -> usize {
    let at = out.len();
    let [a, b, c, d] = id.to_le_bytes();
    out.extend_from_slice(&[0, 0, 0, 0, a, b, c, d, flags]);
    at
}

/// Appends a whole response; `item` is exactly one.
#[inline]
pub fn put_response(id: u32, flags: u8, item: &[u8], out: &mut Vec<u8>) {
    put_response_head(id, flags, item.len(), out);
    out.extend_from_slice(item);
}

/// Appends a whole response whose item is a value.
#[inline]
pub fn put_value_response(id: u32, value: ValueRef<'_>, out: &mut Vec<u8>) {
    put_response_head(id, 0, value.encoded_len(), out);
    value.encode_into(out);
}

/// Appends the head of a response whose item will have so many bytes.
#[inline]
fn put_response_head(id: u32, flags: u8, item_bytes: usize, out: &mut Vec<u8>) {
    let length = item_bytes.saturating_add(RESPONSE_HEAD).saturating_sub(4);
    let [k, l, m, n] = u32::try_from(length).unwrap_or(u32::MAX).to_le_bytes();
    let [a, b, c, d] = id.to_le_bytes();
    out.reserve(item_bytes.saturating_add(RESPONSE_HEAD));
    out.extend_from_slice(&[k, l, m, n, a, b, c, d, flags]);
}

/// Fills in the length of the frame that starts at `at`.
pub fn finish(at: usize, out: &mut [u8]) {
    let length = out.len().saturating_sub(at).saturating_sub(4);
    let length = u32::try_from(length).unwrap_or(u32::MAX);
    if let Some(field) = at.checked_add(4).and_then(|end| out.get_mut(at..end)) {
        field.copy_from_slice(&length.to_le_bytes());
    }
}

/// The first whole frame of `buffer`: its body and how many bytes it takes; `None` if it is not whole yet.
/// A length above `limit` is an error before a byte of it is waited for.
#[inline]
pub fn split(buffer: &[u8], limit: usize) -> Result<Option<(&[u8], usize)>> {
    let Some((length, rest)) = buffer.split_first_chunk::<4>() else { return Ok(None) };
    let length = u32::from_le_bytes(*length) as usize;
    if length > limit {
        return Err(Error::new(ErrorKind::Limit, "frame is larger than the limit"));
    }
    Ok(rest.get(..length).map(|body| (body, length.saturating_add(4))))
}

/// How many bytes the frame has that `buffer` begins with, whether it is whole or not.
pub fn expected_bytes(buffer: &[u8]) -> usize {
    let length = buffer.first_chunk::<4>().map_or(0, |length| u32::from_le_bytes(*length) as usize);
    length.saturating_add(4)
}

/// Reads a request's body; its values are appended to `args`, at most `limit` of them.
#[inline]
pub fn read_request<'a>(body: &'a [u8], limit: usize, args: &mut Vec<Arg<'a>>) -> Result<RequestHead> {
    let (head, values) = read_head(body)?;
    let mut reader = Reader::new(values);
    let start = args.len();
    while !reader.rest().is_empty() {
        if args.len().saturating_sub(start) >= limit {
            return Err(too_many_arguments(limit));
        }
        args.push(Arg::Value(reader.value()?));
    }
    Ok(head)
}

/// Reads a request's head and what follows it.
#[inline]
pub fn read_head(body: &[u8]) -> Result<(RequestHead, &[u8])> {
    let short = || Error::invalid("frame is cut short");
    let (id, rest) = body.split_first_chunk::<4>().ok_or_else(short)?;
    let (opcode, rest) = rest.split_first_chunk::<2>().ok_or_else(short)?;
    let (&flags, rest) = rest.split_first().ok_or_else(short)?;
    known(flags, DURABLE)?;
    let head = RequestHead { id: u32::from_le_bytes(*id), opcode: u16::from_le_bytes(*opcode), flags };
    Ok((head, rest))
}

/// Reads a response's body: id, flags, and the bytes of its item.
pub fn read_response(body: &[u8]) -> Result<(u32, u8, &[u8])> {
    let short = || Error::invalid("frame is cut short");
    let (id, rest) = body.split_first_chunk::<4>().ok_or_else(short)?;
    let (&flags, item) = rest.split_first().ok_or_else(short)?;
    known(flags, PUSH)?;
    Ok((u32::from_le_bytes(*id), flags, item))
}

/// Refuses flags that this version does not know: they may change what the frame means.
fn known(flags: u8, all: u8) -> Result<()> {
    if flags & !all == 0 { Ok(()) } else { Err(Error::invalid("unknown flags of a frame")) }
}

/// Appends one argument value.
pub fn put_arg(value: ValueRef<'_>, out: &mut Vec<u8>) {
    value.encode_into(out);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_comes_back() {
        let mut out = Vec::new();
        let head = RequestHead { id: 7, opcode: 0x102, flags: 0 };
        let at = start_request(head, &mut out);
        put_arg(ValueRef::text("key"), &mut out);
        finish(at, &mut out);
        for cut in 0..out.len() {
            assert_eq!(split(&out[..cut], 1024).unwrap(), None);
        }
        let (body, used) = split(&out, 1024).unwrap().unwrap();
        assert_eq!(used, out.len());
        let mut args = Vec::new();
        assert_eq!(read_request(body, 10, &mut args).unwrap(), head);
        assert_eq!(args, [Arg::Value(ValueRef::text("key"))]);
        assert!(split(&out, 3).is_err());
        args.clear();
        assert!(read_request(body, 0, &mut args).is_err());
        let mut unknown = body.to_vec();
        unknown[6] = 2;
        assert!(read_head(&unknown).is_err());
        assert!(read_response(&[1, 0, 0, 0, 2, 0xE1]).is_err());
        assert_eq!(read_response(&[1, 0, 0, 0, PUSH, 0xE1]).unwrap(), (1, PUSH, &[0xE1][..]));
    }

    #[test]
    fn a_response_is_the_same_however_it_is_written() {
        let long = "x".repeat(300);
        for value in [ValueRef::text("short"), ValueRef::bytes(b""), ValueRef::text(&long)] {
            let mut item = Vec::new();
            value.encode_into(&mut item);
            let [mut in_steps, mut at_once, mut of_value] = [const { Vec::new() }; 3];
            let at = start_response(7, 0, &mut in_steps);
            in_steps.extend_from_slice(&item);
            finish(at, &mut in_steps);
            put_response(7, 0, &item, &mut at_once);
            put_value_response(7, value, &mut of_value);
            assert_eq!((&at_once, &of_value), (&in_steps, &in_steps));
            assert_eq!(split(&in_steps, 1024).unwrap().unwrap().1, in_steps.len());
        }
    }
}
