//! RESP requests of a batch: parsed, named and ready to be built into commands.
#![deny(clippy::unwrap_used, clippy::indexing_slicing, clippy::arithmetic_side_effects)]

use std::ops::Range;

use data_bridge_kv_model::command::Direct;
use data_bridge_kv_model::command::table::{self, CONNECTION, KeyPositions, READ, Spec, opcode};
use data_bridge_kv_model::error::{Error, ErrorKind};
use data_bridge_kv_model::{Arg, Call, Command, Kind, Load};

use crate::resp::parse::{self, Intake, Limits, Placed, ProtocolError};

/// Memory that is kept from one batch to the next, and as many places.
const KEPT_BYTES: usize = 4096;
/// Longest piece of a client's input that an error repeats.
const QUOTED_BYTES: usize = 128;

/// One request of a batch.
#[derive(Debug)]
pub struct Request {
    /// The command it names, if there is one.
    pub spec: Option<&'static Spec>,
    /// Where its arguments are, without the name.
    args: Range<usize>,
    /// Bytes of the input that it takes.
    pub bytes: Range<usize>,
    /// Whether `KV.DURABLE` stands in front of it.
    pub is_durable: bool,
    /// Why it can't be carried out although its bytes are well-formed.
    fault: Option<Box<Error>>,
}

/// How the input goes on after the last whole request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Tail {
    /// There may be another one.
    More,
    /// It ends within a request, or there is nothing left.
    Cut,
    /// What follows is no request.
    Wrong(ProtocolError),
}

/// Memory that is used again for every batch.
#[derive(Debug, Default)]
pub struct Scratch {
    /// Bytes of arguments that don't stand in the input as they are.
    pub bytes: Vec<u8>,
    /// Which ones.
    pub placed: Vec<Placed>,
    /// Whether a request may say `AS kind`.
    names_kinds: bool,
    /// The command that was named last, perhaps in the batch before: the next one is often the same.
    last: Option<&'static Spec>,
}

impl Scratch {
    /// Forgets the batch and keeps the memory.
    pub fn clear(&mut self) {
        self.bytes.clear();
        self.bytes.shrink_to(KEPT_BYTES);
        self.placed.clear();
        self.placed.shrink_to(KEPT_BYTES);
        self.names_kinds = false;
    }
}

/// Reads up to `most` requests; their arguments are appended to `args`. Call [`complete`] before using them. `ahead` is
/// told the only key of each request, if it has exactly one, and the element that it names, as soon as they are known; of a
/// request that comes alone nothing.
pub fn read<'a>(
    input: &'a [u8],
    limits: &Limits,
    most: usize,
    args: &mut Vec<Arg<'a>>,
    scratch: &mut Scratch,
    requests: &mut Vec<Request>,
    mut ahead: impl FnMut(Option<&'a [u8]>, Option<Arg<'a>>),
) -> Tail {
    let mut rest = input;
    let mut intake = Intake::new(args, &mut scratch.bytes, &mut scratch.placed);
    while requests.len() < most {
        let first = intake.args.len();
        let start = input.len().saturating_sub(rest.len());
        match parse::request(rest, limits, &mut intake) {
            Ok(Some(next)) => rest = next,
            Ok(None) => return Tail::Cut,
            Err(wrong) => return Tail::Wrong(wrong),
        }
        let fault = intake.fault.take().map(Box::new);
        let bytes = start..input.len().saturating_sub(rest.len());
        let args = first.saturating_add(1)..intake.args.len();
        let spec = intake.noted().unwrap_or_else(|| {
            let name = intake.args.get(first).and_then(|name| name.content());
            if scratch.last.map(|spec| spec.name.as_bytes()) != name {
                scratch.last = name.and_then(table::by_name);
            }
            scratch.names_kinds |= scratch.last.is_some_and(names_kind);
            intake.note(scratch.last);
            scratch.last
        });
        let mut request = Request { spec, args, bytes, is_durable: false, fault };
        if spec.is_some_and(|spec| spec.opcode == opcode::KV_DURABLE) {
            request.unwrap_durable(intake.args);
            scratch.names_kinds |= request.spec.is_some_and(names_kind);
        }
        // One that comes alone has nothing to look ahead of.
        if !rest.is_empty() || !requests.is_empty() {
            ahead(request.only_key(intake.args), request.element(intake.args));
        }
        requests.push(request);
    }
    Tail::More
}

/// Puts arguments from the scratch in place and applies `AS kind`.
pub fn complete<'a>(args: &mut [Arg<'a>], scratch: &'a Scratch, requests: &mut [Request]) {
    parse::place(args, &scratch.bytes, &scratch.placed);
    if scratch.names_kinds {
        for request in requests.iter_mut().filter(|request| request.spec.is_some_and(names_kind)) {
            request.read_as_kind(args);
        }
    }
}

/// Whether a command takes `AS kind`.
fn names_kind(spec: &Spec) -> bool {
    spec.name.as_bytes().starts_with(b"KV.")
}

impl Request {
    /// Whether it is an empty line or array, which asks for nothing.
    pub fn is_empty(&self) -> bool {
        self.args.start > self.args.end
    }

    /// Takes `KV.DURABLE` away from in front of a command.
    #[cold]
    fn unwrap_durable(&mut self, args: &[Arg<'_>]) {
        let Some(name) = self.args(args).first() else { return };
        self.spec = name.content().and_then(table::by_name);
        self.args.start = self.args.start.saturating_add(1);
        self.is_durable = true;
    }

    /// Its arguments.
    #[inline]
    pub fn args<'v, 'a>(&self, args: &'v [Arg<'a>]) -> &'v [Arg<'a>] {
        args.get(self.args.clone()).unwrap_or_default()
    }

    /// The bytes of its key, if it has exactly one.
    #[inline]
    pub fn only_key<'a>(&self, args: &[Arg<'a>]) -> Option<&'a [u8]> {
        self.spec?.only_key(args.get(self.args.clone())?)
    }

    /// The element of its key's collection, if it names one.
    #[inline]
    pub fn element<'a>(&self, args: &[Arg<'a>]) -> Option<Arg<'a>> {
        self.spec?.element(args.get(self.args.clone())?)
    }

    /// The bytes of its key, if it has exactly one and only reads.
    pub fn read_key<'a>(&self, args: &[Arg<'a>]) -> Option<&'a [u8]> {
        self.spec.filter(|spec| spec.has(READ)).and_then(|_| self.only_key(args))
    }

    /// Builds its command, to go with its row of the table.
    pub fn call<'a>(&self, args: &'a [Arg<'a>]) -> Result<Call<'a>, Error> {
        match self.spec {
            Some(spec) => {
                Ok(Call { spec, command: self.build(spec, args)?, load: Load::of(self.args(args)) })
            }
            None => Err(self.unknown(args)),
        }
    }

    /// What it comes down to, if it only reads or writes one value; `spec` is its row.
    #[inline]
    pub fn direct<'a>(&self, spec: &Spec, args: &[Arg<'a>]) -> Option<Direct<'a>> {
        if self.fault.is_some() { None } else { spec.direct(self.args(args)) }
    }

    /// Builds its command, whose row is `spec`.
    #[inline]
    pub fn build<'a>(&self, spec: &Spec, args: &'a [Arg<'a>]) -> Result<Command<'a>, Error> {
        match &self.fault {
            None => spec.build(self.args(args)),
            Some(fault) => Err(Error::clone(fault)),
        }
    }

    /// Whether its command exists and has a possible number of arguments: what MULTI checks before it queues.
    pub fn check_arity(&self, args: &[Arg<'_>]) -> Result<&'static Spec, Error> {
        let Some(spec) = self.spec else { return Err(self.unknown(args)) };
        let given = self.args.len();
        if given < spec.min_args || given > spec.max_args {
            let name = spec.name.to_ascii_lowercase();
            return Err(Error::invalid(format!("wrong number of arguments for '{name}' command")));
        }
        Ok(spec)
    }

    /// `… AS kind` at the end of a KV command: its untyped arguments are literals of this kind.
    fn read_as_kind(&mut self, args: &mut [Arg<'_>]) {
        let Some(spec) = self.spec.filter(|spec| !spec.has(CONNECTION) && !takes_only_keys(spec.keys)) else {
            return;
        };
        let Some([rest @ .., word, kind]) = args.get_mut(self.args.clone()) else { return };
        if rest.len() < spec.min_args || !word.is_word("AS") {
            return;
        }
        let Some(kind) = kind.text().ok().and_then(|name| Kind::from_name(&name.to_ascii_lowercase())) else {
            self.fault = Some(Box::new(Error::invalid("AS names no kind of value")));
            return;
        };
        for arg in rest {
            if let Arg::Untyped(text) = *arg {
                *arg = Arg::Literal(kind, text);
            }
        }
        self.args.end = self.args.end.saturating_sub(2);
    }

    #[cold]
    fn unknown(&self, args: &[Arg<'_>]) -> Error {
        let shown = |arg: &Arg<'_>| {
            let bytes = arg.content().unwrap_or_default();
            let bytes = bytes.get(..QUOTED_BYTES).unwrap_or(bytes);
            String::from_utf8_lossy(bytes).escape_debug().to_string()
        };
        let name = self.args.start.checked_sub(1).and_then(|first| args.get(first));
        let mut text =
            format!("unknown command '{}', with args beginning with: ", name.map(shown).unwrap_or_default());
        for arg in self.args(args).iter().take(QUOTED_BYTES) {
            if text.len() > QUOTED_BYTES {
                break;
            }
            text.push_str(&format!("'{}' ", shown(arg)));
        }
        Error::new(ErrorKind::UnknownCommand, text)
    }
}

/// Whether every argument is a key: then a last `AS kind` is two keys.
fn takes_only_keys(keys: KeyPositions) -> bool {
    keys.first == 1 && keys.last == -1 && keys.step == 1
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMITS: Limits = Limits { arguments: 100, bulk_bytes: 1000, inline_bytes: 1000 };

    /// The first request of an inline line, as its arguments and the error of building it.
    fn built(line: &str) -> (Vec<String>, Option<String>) {
        let (mut args, mut scratch, mut requests) = (Vec::new(), Scratch::default(), Vec::new());
        let tail = read(line.as_bytes(), &LIMITS, 10, &mut args, &mut scratch, &mut requests, |_, _| {});
        assert_eq!(tail, Tail::Cut);
        complete(&mut args, &scratch, &mut requests);
        let error = requests[0].call(&args).err().map(|error| error.to_string());
        (requests[0].args(&args).iter().map(|arg| format!("{arg:?}")).collect(), error)
    }

    #[test]
    fn as_turns_untyped_arguments_into_literals() {
        let (args, error) = built("kv.set price 1.10 as decimal\n");
        assert_eq!(args.len(), 2);
        assert!(args[1].starts_with("Literal(Decimal"), "{args:?}");
        assert_eq!(error, None);
        assert_eq!(built("KV.MGET a AS int\n").0.len(), 3);
        assert_eq!(built("KV.SET AS int\n").0.len(), 2);
        assert_eq!(built("KV.SET k 1 AS nothing\n").1.unwrap(), "AS names no kind of value");
        assert_eq!(built("SET k 1 AS int\n").1.unwrap(), "syntax error");
    }

    /// Name, arguments and whether it is durable, for each request of an input; and how the input goes on.
    fn shown(input: &[u8]) -> (Vec<String>, Tail) {
        let (mut args, mut scratch, mut requests) = (Vec::new(), Scratch::default(), Vec::new());
        let mut told = Vec::new();
        let tail = read(input, &LIMITS, 100, &mut args, &mut scratch, &mut requests, |key, _| told.push(key));
        let keys: Vec<_> = requests.iter().map(|one| one.only_key(&args)).collect();
        let is_alone = requests.len() == 1 && requests[0].bytes.end == input.len();
        assert_eq!(told, if is_alone { Vec::new() } else { keys });
        complete(&mut args, &scratch, &mut requests);
        let show = |one: &Request| {
            let name = one.spec.map(|spec| spec.name);
            format!("{name:?} {:?} {:?} {}", one.args(&args), &input[one.bytes.clone()], one.is_durable)
        };
        (requests.iter().map(show).collect(), tail)
    }

    #[test]
    fn requests_of_a_batch_are_read_as_they_are_alone() {
        let pieces: [&[u8]; 14] = [
            b"*2\r\n$3\r\nGET\r\n$1\r\na\r\n",
            b"*2\r\n$3\r\nGET\r\n$1\r\nb\r\n",
            b"PING\r\n",
            b"*2\r\n$3\r\nGET\r\n:5\r\n",
            b"*2\r\n$3\r\nget\r\n$1\r\nc\r\n",
            b"*3\r\n$3\r\nSET\r\n$1\r\na\r\n$2\r\n\r\n\r\n",
            b"*0\r\n",
            b"*3\r\n$3\r\nSET\r\n$1\r\na\r\n*1\r\n:7\r\n",
            b"*3\r\n$3\r\nSET\r\n$1\r\na\r\n*1\r\n:8\r\n",
            b"*4\r\n$10\r\nKV.DURABLE\r\n$3\r\nSET\r\n$1\r\na\r\n$1\r\nb\r\n",
            b"*4\r\n$10\r\nKV.DURABLE\r\n$4\r\nHSET\r\n$1\r\na\r\n$1\r\nb\r\n",
            b"*2\r\n*1\r\n:1\r\n$1\r\na\r\n",
            b"*1\r\n$4\r\nNONE\r\n",
            b"*1\r\n$4\r\nNONE\r\n",
        ];
        let mut triples = 0;
        for first in pieces {
            for second in pieces {
                let both = [first, second].concat();
                for cut in first.len()..both.len() {
                    let cut = &both[..cut];
                    assert_eq!(shown(cut).0, shown(first).0, "{:?}", String::from_utf8_lossy(cut));
                }
                for third in [&b""[..]].into_iter().chain(pieces) {
                    let alone = [first, second, third].map(|piece| shown(piece).0).concat();
                    assert_eq!(shown(&[first, second, third].concat()), (alone, Tail::Cut));
                    triples += 1;
                }
            }
        }
        assert_eq!(triples, 14 * 14 * 15);
    }

    #[test]
    fn unknown_commands_are_told_as_redis_does() {
        let error = built("FOO a \"b\\r\\n\"\n").1.unwrap();
        assert_eq!(error, "unknown command 'FOO', with args beginning with: 'a' 'b\\r\\n' ");
        assert_eq!(built("GET\n").1.unwrap(), "wrong number of arguments for 'get' command");
    }
}
