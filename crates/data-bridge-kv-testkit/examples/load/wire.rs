//! Both protocols, as far as the load generator needs them: commands out, and where a reply ends. Used by `main.rs`.

use data_bridge_kv_model::codec::ValueRef;
use data_bridge_kv_model::command::table;
use data_bridge_kv_model::frame::{self, RequestHead};
use data_bridge_kv_model::kind::Kind;

/// First byte of a native reply's item that is an error (`reply.rs` of the model).
const NATIVE_ERROR: u8 = 0xE8;

/// What the bytes on the connection look like.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Protocol {
    /// Arrays of bulk strings.
    Resp,
    /// Our frames.
    Native,
}

/// A command's name with its opcode looked up once.
#[derive(Clone, Copy)]
pub struct Verb {
    name: &'static str,
    opcode: u16,
}

impl Verb {
    /// The verb of this name; the opcode is 0 for a name that our table does not have.
    pub fn named(name: &'static str) -> Self {
        Self { name, opcode: table::by_name(name.as_bytes()).map_or(0, |spec| spec.opcode) }
    }
}

/// One argument.
#[derive(Clone, Copy)]
pub enum Argument<'a> {
    /// A key, field or member.
    Text(&'a str),
    /// A value.
    Bytes(&'a [u8]),
    /// A number.
    Int(i64),
}

impl Protocol {
    /// What a client sends first.
    pub fn preface(self) -> &'static [u8] {
        match self {
            Self::Resp => b"",
            Self::Native => &frame::PREFACE,
        }
    }

    /// Appends one command.
    pub fn append(self, out: &mut Vec<u8>, verb: Verb, arguments: &[Argument<'_>]) {
        match self {
            Self::Resp => {
                head(out, b'*', arguments.len() + 1);
                bulk(out, verb.name.as_bytes());
                for argument in arguments {
                    match argument {
                        Argument::Text(text) => bulk(out, text.as_bytes()),
                        Argument::Bytes(bytes) => bulk(out, bytes),
                        Argument::Int(number) => bulk(out, number.to_string().as_bytes()),
                    }
                }
            }
            Self::Native => {
                let at = frame::start_request(RequestHead { id: 0, opcode: verb.opcode, flags: 0 }, out);
                for argument in arguments {
                    match argument {
                        Argument::Text(text) => frame::put_arg(ValueRef::text(text), out),
                        Argument::Bytes(bytes) => frame::put_arg(ValueRef::bytes(bytes), out),
                        Argument::Int(number) => {
                            frame::put_arg(ValueRef::from_parts(Kind::Int, &number.to_le_bytes()), out);
                        }
                    }
                }
                frame::finish(at, out);
            }
        }
    }

    /// Bytes of the first reply and whether it is an error, if it is complete.
    pub fn reply(self, bytes: &[u8]) -> Option<(usize, bool)> {
        match self {
            Self::Resp => resp_reply(bytes),
            Self::Native => {
                let (length, rest) = bytes.split_first_chunk::<4>()?;
                let length = u32::from_le_bytes(*length) as usize;
                let body = rest.get(..length)?;
                Some((length + 4, body.get(5) == Some(&NATIVE_ERROR)))
            }
        }
    }
}

/// A line or a bulk string.
fn resp_reply(bytes: &[u8]) -> Option<(usize, bool)> {
    let line = bytes.iter().position(|byte| *byte == b'\n')? + 1;
    if bytes[0] != b'$' || bytes[1] == b'-' {
        return Some((line, bytes[0] == b'-'));
    }
    let length = bytes[1..line - 2].iter().fold(0, |sum, digit| sum * 10 + usize::from(digit - b'0'));
    let whole = line + length + 2;
    (bytes.len() >= whole).then_some((whole, false))
}

fn bulk(out: &mut Vec<u8>, word: &[u8]) {
    head(out, b'$', word.len());
    out.extend_from_slice(word);
    out.extend_from_slice(b"\r\n");
}

fn head(out: &mut Vec<u8>, mark: u8, count: usize) {
    out.push(mark);
    let mut text = [0; 20];
    let mut at = text.len();
    let mut rest = count;
    loop {
        at -= 1;
        text[at] = b'0' + (rest % 10) as u8;
        rest /= 10;
        if rest == 0 {
            break;
        }
    }
    out.extend_from_slice(&text[at..]);
    out.extend_from_slice(b"\r\n");
}
