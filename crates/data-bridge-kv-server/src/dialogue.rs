//! What is said on a connection: bytes in, commands carried out, bytes out. No sockets here, so tests and fuzzers
//! drive it like the connection's task does.
//!
//! The first byte decides the protocol. A RESP client's requests are carried out in batches: parse what is there,
//! build the commands, let the engine prefetch and execute them, encode the replies. See `native` for the other one.
#![deny(clippy::unwrap_used, clippy::indexing_slicing, clippy::arithmetic_side_effects)]

use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use data_bridge_kv::{Lookahead, Pin, Progress, Turn, Waits};
use data_bridge_kv_model::command::table::{BLOCKING, CONNECTION, NO_AUTH, STREAM, Spec};
use data_bridge_kv_model::error::{Error, ErrorKind};
use data_bridge_kv_model::frame::{self, PREFACE};
use data_bridge_kv_model::limits::{
    ARGUMENTS, INLINE_BYTES, OUTPUT_BYTES_HARD, REQUEST_BYTES, UNAUTHENTICATED_ARGUMENTS,
    UNAUTHENTICATED_OUTPUT_BYTES, UNAUTHENTICATED_REQUEST_BYTES, VALUE_BYTES,
};
use data_bridge_kv_model::{Arg, Call, Command, ReplyBuf};

use crate::clients::Client;
use crate::commands::{self, Effect};
use crate::mailbox::{Letter, Letters};
use crate::native::Framed;
use crate::pending::Pending;
use crate::recycle::recycle;
use crate::requests::{self, Request, Scratch, Tail};
use crate::resp::encode::{Encoder, Form, form_of, late_form_of, put_error};
use crate::resp::parse::Limits;
use crate::resp::scan::Scan;
use crate::server::Shared;
use crate::session::Session;
use crate::transaction;

mod execute;

/// Output that waits before no further command is carried out: the client has to read first.
pub const ROOM_BYTES: usize = 256 << 10;
/// Reply memory that is kept from one batch to the next.
const KEPT_BYTES: usize = 64 << 10;
/// Most requests in a batch: enough for prefetching, few enough to keep replies in the cache.
const BATCH: usize = 128;

/// How a dialogue goes on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Next {
    /// Everything whole was carried out: more input is needed.
    Input,
    /// The client has to read its replies first; there may be more of the last one.
    Room,
    /// A RESP client waits for an answer that comes later; what it sent meanwhile is held.
    Answer,
    /// Nothing more for this long, then on.
    Pause(Duration),
    /// The next command has to wait for the disk, on with [`Dialogue::feed_slowly`], or for what its caller needs.
    Disk,
    /// The connection ends when the output is sent.
    End(Ending),
}

/// Why a connection ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ending {
    /// Its client, or somebody who may, wants it to; or the server ends.
    Wanted,
    /// It broke a limit.
    Limit,
    /// What it sent is no request.
    Malformed,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Protocol {
    Unknown,
    Resp,
    Native,
}

/// One connection's dialogue.
pub struct Dialogue {
    /// Its state.
    pub session: Session,
    /// Bytes for the client.
    pub out: Vec<u8>,
    protocol: Protocol,
    pub(crate) memory: Memory,
    scan: Option<Scan>,
    /// The answer that is being written: nothing else is carried out before it is done.
    pending: Option<Pending>,
    /// The token of the answer that holds a RESP client, and how to write it.
    awaited: Option<(u64, Form)>,
    last_token: u64,
    /// Output of events and late answers that waits to be taken.
    unasked: usize,
    /// Watches of a native client: number and the request that started it.
    pub(crate) watches: Vec<(u64, u32)>,
}

/// Engine commands that were carried out and not yet counted.
#[derive(Default)]
pub(crate) struct Tally {
    commands: usize,
    last: Option<&'static Spec>,
}

impl Tally {
    #[inline]
    pub(crate) fn add(&mut self, spec: &'static Spec) {
        self.commands = self.commands.saturating_add(1);
        self.last = Some(spec);
    }

    /// Tells the register, before anybody can ask.
    pub(crate) fn report(&mut self, session: &Session) {
        if self.commands > 0 {
            session.client.count(self.commands, self.last);
            *self = Tally::default();
        }
    }
}

/// Memory that is used again for every batch.
#[derive(Default)]
pub(crate) struct Memory {
    pub(crate) args: Vec<Arg<'static>>,
    pub(crate) scratch: Scratch,
    pub(crate) requests: Vec<Request>,
    pub(crate) framed: Vec<Framed>,
    pub(crate) replies: ReplyBuf,
    pub(crate) ahead: Lookahead,
    pub(crate) encoder: Encoder,
}

impl Dialogue {
    /// The dialogue of a new connection.
    pub fn new(shared: Arc<Shared>, client: Arc<Client>) -> Dialogue {
        Dialogue {
            session: Session::new(shared, client),
            out: Vec::new(),
            protocol: Protocol::Unknown,
            memory: Memory::default(),
            scan: None,
            pending: None,
            awaited: None,
            last_token: 0,
            unasked: 0,
            watches: Vec::new(),
        }
    }

    /// Carries out what is whole in `input`; answers how many bytes were used up.
    pub fn feed(&mut self, input: &[u8]) -> (usize, Next) {
        if self.is_flooded() {
            return (0, Next::End(Ending::Limit));
        }
        if self.awaited.is_some() {
            return (0, Next::Answer);
        }
        if self.is_answering() {
            self.go_on();
            return (0, Next::Room);
        }
        let mut used: usize = 0;
        loop {
            let rest = input.get(used..).unwrap_or_default();
            if rest.is_empty() {
                return (used, Next::Input);
            }
            if self.is_flooded() {
                return (used, Next::End(Ending::Limit));
            }
            if self.out.len() > ROOM_BYTES {
                return (used, Next::Room);
            }
            let (taken, next) = match self.protocol {
                Protocol::Unknown => self.choose(rest),
                Protocol::Resp => self.resp_batch(rest),
                Protocol::Native => self.native_batch(rest),
            };
            used = used.saturating_add(taken);
            if let Some(next) = next {
                return (used, next);
            }
        }
    }

    /// The same where nobody is held up when commands wait.
    pub fn feed_slowly(&mut self, waits: Waits, input: &[u8]) -> (usize, Next) {
        let before = std::mem::replace(&mut self.session.caller.waits, waits);
        let fed = self.feed(input);
        self.session.caller.waits = before;
        fed
    }

    /// Whether an answer is being written: nothing else may come between.
    pub fn is_answering(&self) -> bool {
        self.pending.is_some()
    }

    /// Goes on with the answer that is being written, as far as there is room; answers whether there is none any more.
    fn go_on(&mut self) -> bool {
        let Some(pending) = &mut self.pending else { return true };
        let is_done = pending.go_on(&mut self.memory.encoder, ROOM_BYTES, &mut self.out);
        if is_done {
            self.pending = None;
        }
        is_done
    }

    /// Ends the wait that holds a RESP client: the server shuts down. Answers false where its answer is on its way: it may be
    /// an element that nobody else has any more.
    pub fn end_wait(&mut self) -> bool {
        let Some((token, _)) = self.awaited else { return true };
        let has_ended = self.session.shared.engine.cancel(&self.session.caller, token);
        if has_ended {
            self.awaited = None;
            put_error(&Error::new(ErrorKind::Closed, "the server is shutting down"), &mut self.out);
        }
        has_ended
    }

    /// Whether more output waits than is kept. One reply may be as large as it is, since no command is begun before it
    /// is taken; what comes without being asked for just now adds up.
    fn is_flooded(&mut self) -> bool {
        self.unasked = self.unasked.min(self.out.len());
        match self.session.authenticated {
            true => self.unasked > OUTPUT_BYTES_HARD,
            false => self.out.len() > UNAUTHENTICATED_OUTPUT_BYTES,
        }
    }

    /// Largest request of this client in bytes.
    pub(crate) fn request_limit(&self) -> usize {
        if self.session.authenticated {
            // A value of the largest size, its key and options beside it.
            return REQUEST_BYTES.saturating_add(INLINE_BYTES);
        }
        UNAUTHENTICATED_REQUEST_BYTES
    }

    fn limits(&self) -> Limits {
        match self.session.authenticated {
            true => Limits { arguments: ARGUMENTS, bulk_bytes: VALUE_BYTES, inline_bytes: INLINE_BYTES },
            false => Limits {
                arguments: UNAUTHENTICATED_ARGUMENTS,
                bulk_bytes: UNAUTHENTICATED_REQUEST_BYTES,
                inline_bytes: UNAUTHENTICATED_REQUEST_BYTES,
            },
        }
    }

    /// Reads the first bytes of a connection.
    fn choose(&mut self, input: &[u8]) -> (usize, Option<Next>) {
        if input.first() != PREFACE.first() {
            self.protocol = Protocol::Resp;
            return (0, None);
        }
        if input.starts_with(&PREFACE) {
            self.protocol = Protocol::Native;
            self.session.native = true;
            self.session.client.protocol.store(0, Relaxed);
            self.out.extend_from_slice(&PREFACE);
            return (PREFACE.len(), None);
        }
        let next = if PREFACE.starts_with(input) { Next::Input } else { Next::End(Ending::Malformed) };
        (0, Some(next))
    }

    fn resp_batch(&mut self, input: &[u8]) -> (usize, Option<Next>) {
        let limits = self.limits();
        if let Some(scan) = &mut self.scan {
            match scan.is_whole(input, &limits) {
                Ok(true) => self.scan = None,
                Ok(false) if input.len() > self.request_limit() => {
                    return (0, Some(Next::End(Ending::Limit)));
                }
                Ok(false) => return (0, Some(Next::Input)),
                Err(wrong) => return self.protocol_error(wrong.0),
            }
        }
        let mut scratch = std::mem::take(&mut self.memory.scratch);
        let mut requests = std::mem::take(&mut self.memory.requests);
        let mut args: Vec<Arg<'_>> = recycle(std::mem::take(&mut self.memory.args));
        scratch.clear();
        requests.clear();
        // Who has not authenticated may do so with the next request, so the limits hold for one only.
        let most = if self.session.authenticated { BATCH } else { 1 };
        let pin = Pin::new();
        let mut ahead = std::mem::take(&mut self.memory.ahead).begin(&pin);
        let Session { shared, caller, .. } = &self.session;
        let mut lookout = shared.engine.look_ahead(caller, &mut ahead);
        let look = |key, element| lookout.tell(key, element);
        let tail = requests::read(input, &limits, most, &mut args, &mut scratch, &mut requests, look);
        lookout.ask();
        requests::complete(&mut args, &scratch, &mut requests);
        let on_disk = (caller.waits != Waits::Never).then(|| {
            shared.engine.fetch_ahead(caller, requests.iter().filter_map(|one| one.read_key(&args)))
        });
        let (used, next) = self.carry_out(input, &requests, &args, |index| ahead.turn(index));
        self.memory.ahead = ahead.end();
        drop((pin, on_disk));
        self.memory.args = recycle(args);
        self.memory.requests = requests;
        self.memory.scratch = scratch;
        if next.is_some() {
            return (used, next);
        }
        match tail {
            Tail::More => (used, None),
            Tail::Cut => {
                let rest = input.get(used..).unwrap_or_default();
                if rest.len() > self.request_limit() {
                    return (used, Some(Next::End(Ending::Limit)));
                }
                // A first look decides how far it is; it was parsed in vain only once.
                let mut scan = Scan::default();
                if !rest.is_empty() && scan.is_whole(rest, &limits) == Ok(false) {
                    self.scan = Some(scan);
                }
                (used, Some(Next::Input))
            }
            Tail::Wrong(wrong) => {
                let (_, next) = self.protocol_error(wrong.0);
                (used, next)
            }
        }
    }

    fn protocol_error(&mut self, text: &'static str) -> (usize, Option<Next>) {
        put_error(&Error::invalid(format!("Protocol error: {text}")), &mut self.out);
        (0, Some(Next::End(Ending::Malformed)))
    }

    /// Carries out parsed requests in order; answers how many bytes of the input that used up.
    fn carry_out<'t>(
        &mut self,
        input: &[u8],
        requests: &[Request],
        args: &[Arg<'_>],
        turn: impl Fn(usize) -> Turn<'t>,
    ) -> (usize, Option<Next>) {
        let mut used = 0;
        let mut plain = Tally::default();
        for (index, request) in requests.iter().enumerate() {
            if self.out.len() > ROOM_BYTES {
                plain.report(&self.session);
                return (used, Some(Next::Room));
            }
            let before = std::mem::replace(&mut used, request.bytes.end);
            if let Some(spec) = self.plain(request.spec).filter(|_| !request.is_durable) {
                if self.execute(turn(index), request, spec, args) == Progress::Blocked {
                    plain.report(&self.session);
                    return (before, Some(Next::Disk));
                }
                plain.add(spec);
                if self.is_answering() && !self.go_on() {
                    plain.report(&self.session);
                    return (used, Some(Next::Room));
                }
            } else if !request.is_empty() {
                plain.report(&self.session);
                let next = self.apart(request, args, input);
                if next == Some(Next::Disk) {
                    return (before, next);
                }
                self.session.client.count(1, request.spec);
                if next.is_some() {
                    return (used, next);
                }
            }
        }
        plain.report(&self.session);
        (used, None)
    }

    /// The row of an engine command that is carried out and answered at once.
    #[inline]
    pub(crate) fn plain(&self, spec: Option<&'static Spec>) -> Option<&'static Spec> {
        let now = self.session.authenticated && self.session.transaction.is_none();
        spec.filter(|spec| now && spec.flags & (CONNECTION | BLOCKING | STREAM) == 0)
    }

    /// Carries out a request that is no plain engine command. With [`Next::Disk`] nothing was done.
    fn apart(&mut self, request: &Request, args: &[Arg<'_>], input: &[u8]) -> Option<Next> {
        match request.spec.filter(|_| request.is_durable && self.session.authenticated) {
            Some(spec) => self.carry_out_durably(spec, request, args, input),
            None => self.carry_out_apart(request, args, input),
        }
    }

    /// Carries out what stands behind `KV.DURABLE`.
    fn carry_out_durably(
        &mut self,
        spec: &Spec,
        request: &Request,
        args: &[Arg<'_>],
        input: &[u8],
    ) -> Option<Next> {
        if let Err(error) = self.session.check_durable(spec) {
            put_error(&error, &mut self.out);
            return None;
        }
        let next = self.carry_out_apart(request, args, input);
        if next != Some(Next::Disk) {
            self.session.shared.engine.owe_everything(&self.session.caller);
        }
        next
    }

    fn carry_out_apart(&mut self, request: &Request, args: &[Arg<'_>], input: &[u8]) -> Option<Next> {
        if !self.session.authenticated && !request.spec.is_some_and(|spec| spec.has(NO_AUTH)) {
            put_error(&Error::new(ErrorKind::Auth, "Authentication required."), &mut self.out);
            return None;
        }
        if self.session.transaction.is_some() && !request.spec.is_some_and(commands::steers_transaction) {
            transaction::queue(&mut self.session, request, args, input, &mut self.out);
            return None;
        }
        let call = match request.call(args) {
            Ok(call) => call,
            Err(error) => {
                transaction::refuse(&mut self.session, request, &error, &mut self.out);
                return None;
            }
        };
        match &call.command {
            Command::Connection(command) if commands::is_exec(command) => {
                let limits = self.limits();
                let encoder = &mut self.memory.encoder;
                match transaction::exec(&mut self.session, &limits, encoder, &mut self.out) {
                    Progress::Blocked => Some(Next::Disk),
                    Progress::Done | Progress::Pending => None,
                }
            }
            Command::Connection(command) => {
                let form = commands::form_of(command);
                let effect = commands::carry_out(&mut self.session, command, &mut self.memory.replies);
                if effect != Effect::Disk {
                    self.flush(form);
                }
                effect.next()
            }
            _ => self.wait(&call),
        }
    }

    /// Encodes the one reply that stands in the reply buffer.
    fn flush(&mut self, form: Form) {
        let Memory { replies, encoder, .. } = &mut self.memory;
        encoder.reply(replies.as_bytes(), self.session.skin, form, &mut self.out);
        replies.reset(KEPT_BYTES);
    }

    /// Executes a command whose answer may come later.
    fn wait(&mut self, call: &Call<'_>) -> Option<Next> {
        if call.spec.has(STREAM) && !self.session.skin.resp3 {
            let text = format!("{} needs RESP3: its events are pushes", call.spec.name);
            put_error(&Error::new(ErrorKind::Unavailable, text), &mut self.out);
            return None;
        }
        self.last_token = self.last_token.wrapping_add(1);
        let (session, replies) = (&self.session, &mut self.memory.replies);
        match session.shared.engine.execute(&session.caller, self.last_token, call, replies) {
            Progress::Done => {
                self.flush(form_of(&call.command));
                None
            }
            Progress::Blocked => Some(Next::Disk),
            Progress::Pending => {
                self.awaited = Some((self.last_token, late_form_of(&call.command)));
                Some(Next::Answer)
            }
        }
    }

    /// Writes what came from the engine meanwhile.
    pub fn read_letters(&mut self, letters: &Letters) {
        let (before, mut asked) = (self.out.len(), 0_usize);
        for (letter, item) in letters.iter() {
            if self.protocol == Protocol::Native {
                self.native_letter(letter, item);
                continue;
            }
            let encoder = &mut self.memory.encoder;
            match letter {
                Letter::Answer(token) => {
                    if let Some((_, form)) = self.awaited.take_if(|(awaited, _)| *awaited == token) {
                        let from = self.out.len();
                        encoder.reply(item, self.session.skin, form, &mut self.out);
                        asked = asked.saturating_add(self.out.len().saturating_sub(from));
                    }
                }
                Letter::Event(watch) => encoder.push(watch, item, self.session.skin, &mut self.out),
            }
        }
        let grown = self.out.len().saturating_sub(before).saturating_sub(asked);
        self.unasked = self.unasked.min(before).saturating_add(grown);
    }

    /// Takes output back that nobody may see, because the log failed: a RESP client is told in its place, one of the native
    /// protocol by the end of the connection.
    pub fn give_up(&mut self, from: usize) {
        self.out.truncate(from);
        self.pending = None;
        if self.protocol == Protocol::Resp {
            let text = "the log failed: whether this command lasts is unknown";
            put_error(&Error::new(ErrorKind::Durability, text), &mut self.out);
        }
    }

    /// The client took so many bytes of the output.
    pub fn taken(&mut self, count: usize) {
        self.out.drain(..count.min(self.out.len()));
        self.out.shrink_to(self.out.len());
    }

    /// Gives back memory that an idle connection does not need.
    pub fn trim(&mut self) {
        self.memory = Memory::default();
        if self.out.is_empty() {
            self.out = Vec::new();
        }
    }

    /// How many bytes the request is likely to have that `input` begins with, but does not hold whole.
    pub fn expected_bytes(&self, input: &[u8]) -> usize {
        match (self.protocol, &self.scan) {
            (Protocol::Native, _) => frame::expected_bytes(input),
            (_, Some(scan)) => scan.expected_bytes(input),
            (_, None) => input.len(),
        }
    }

    /// Bytes of answers that were not taken.
    pub fn unsent(&self) -> usize {
        self.out.len().saturating_add(self.pending_bytes())
    }

    fn pending_bytes(&self) -> usize {
        self.pending.as_ref().map_or(0, Pending::bytes)
    }

    /// Memory of everything but the input, in bytes.
    pub fn bytes(&self) -> usize {
        let queued = self.session.transaction.as_ref().map_or(0, |transaction| transaction.bytes());
        self.out.capacity().saturating_add(queued).saturating_add(self.pending_bytes())
    }
}

impl Effect {
    pub(crate) fn next(self) -> Option<Next> {
        match self {
            Effect::None => None,
            Effect::End => Some(Next::End(Ending::Wanted)),
            Effect::Refuse => Some(Next::End(Ending::Limit)),
            Effect::Pause(time) => Some(Next::Pause(time)),
            Effect::Disk => Some(Next::Disk),
        }
    }
}
