//! The native protocol on a connection: frames in, frames out, answers by id. `frame.rs` of the model has the bytes.
#![deny(clippy::unwrap_used, clippy::indexing_slicing, clippy::arithmetic_side_effects)]

use data_bridge_kv::table::Stored;
use data_bridge_kv::{Lookout, Pin, Progress, Turn, Waits};
use data_bridge_kv_model::command::table::{self, NO_AUTH, READ, Spec};
use data_bridge_kv_model::command::{ConnectionCommand, Direct, StateCommand};
use data_bridge_kv_model::error::{Error, ErrorKind};
use data_bridge_kv_model::frame::{self, DURABLE, PUSH, RequestHead, put_response, put_value_response};
use data_bridge_kv_model::limits::{ARGUMENTS, UNAUTHENTICATED_ARGUMENTS};
use data_bridge_kv_model::reply::{MISSING_REPLY, OK_REPLY, integer_reply};
use data_bridge_kv_model::{Arg, Command, Item, Load, ReplyBuf, ReplyReader};

use crate::commands::{self, Effect};
use crate::dialogue::{Dialogue, Ending, Next, ROOM_BYTES, Tally};
use crate::mailbox::Letter;
use crate::recycle::recycle;
use crate::session::Session;
use crate::transaction;

/// Most requests in a batch.
const BATCH: usize = 128;
/// Reply memory that is kept from one batch to the next.
const KEPT_BYTES: usize = 64 << 10;

/// A request of a batch.
pub(crate) struct Framed {
    head: RequestHead,
    spec: Option<&'static Spec>,
    args: std::ops::Range<usize>,
    end: usize,
}

impl Framed {
    #[inline]
    fn args<'v, 'a>(&self, args: &'v [Arg<'a>]) -> &'v [Arg<'a>] {
        args.get(self.args.clone()).unwrap_or_default()
    }
}

impl Dialogue {
    pub(crate) fn native_batch(&mut self, input: &[u8]) -> (usize, Option<Next>) {
        let mut args: Vec<Arg<'_>> = recycle(std::mem::take(&mut self.memory.args));
        let mut framed = std::mem::take(&mut self.memory.framed);
        framed.clear();
        let pin = Pin::new();
        let mut ahead = std::mem::take(&mut self.memory.ahead).begin(&pin);
        let Session { shared, caller, .. } = &self.session;
        let mut lookout = shared.engine.look_ahead(caller, &mut ahead);
        let (stop, fault) = self.read_frames(input, &mut lookout, &mut args, &mut framed);
        lookout.ask();
        let reads = framed.iter().filter(|one| one.spec.is_some_and(|spec| spec.has(READ)));
        let keys = reads.filter_map(|one| one.spec?.only_key(one.args(&args)));
        let on_disk = (caller.waits != Waits::Never).then(|| shared.engine.fetch_ahead(caller, keys));
        let turn = |index| ahead.turn(index);
        let (used, next) = self.take_framed_turns(&framed, &args, fault.as_ref(), turn);
        self.memory.ahead = ahead.end();
        self.memory.args = recycle(args);
        self.memory.framed = framed;
        drop((pin, on_disk));
        (used, next.or(stop))
    }

    /// Reads the whole frames of a batch and tells their keys ahead. Answers how the input goes on, and what is wrong with
    /// the last frame.
    fn read_frames<'a>(
        &self,
        input: &'a [u8],
        lookout: &mut Lookout<'_, 'a>,
        args: &mut Vec<Arg<'a>>,
        framed: &mut Vec<Framed>,
    ) -> (Option<Next>, Option<Error>) {
        let most = if self.session.authenticated { BATCH } else { 1 };
        let arguments = if self.session.authenticated { ARGUMENTS } else { UNAUTHENTICATED_ARGUMENTS };
        let limit = self.request_limit();
        let mut read = 0usize;
        while framed.len() < most {
            let (body, bytes) = match frame::split(input.get(read..).unwrap_or_default(), limit) {
                Ok(Some(whole)) => whole,
                Ok(None) => return (Some(Next::Input), None),
                Err(_) => return (Some(Next::End(Ending::Malformed)), None),
            };
            let first = args.len();
            let (head, spec, fault) = match frame::read_request(body, arguments, args) {
                Ok(head) => (head, table::by_opcode(head.opcode), None),
                // Who can't write values can't be trusted to write frames either: the answer, then the end.
                Err(error) => match frame::read_head(body) {
                    Ok((head, _)) => (head, None, Some(error)),
                    Err(_) => return (Some(Next::End(Ending::Malformed)), None),
                },
            };
            if fault.is_some() {
                args.truncate(first);
            }
            read = read.saturating_add(bytes);
            let one = Framed { head, spec, args: first..args.len(), end: read };
            let (key, element) = spec.map_or((None, None), |spec| {
                let args = one.args(args);
                (spec.only_key(args), spec.element(args))
            });
            lookout.tell(key, element);
            framed.push(one);
            if let Some(error) = &fault {
                // Too many values are values all the same.
                let is_well = self.session.authenticated && error.kind() == ErrorKind::Limit;
                return ((!is_well).then_some(Next::End(Ending::Malformed)), fault);
            }
        }
        (None, None)
    }

    fn take_framed_turns<'t>(
        &mut self,
        framed: &[Framed],
        args: &[Arg<'_>],
        fault: Option<&Error>,
        turn: impl Fn(usize) -> Turn<'t>,
    ) -> (usize, Option<Next>) {
        let mut used = 0;
        let mut plain = Tally::default();
        for (index, one) in framed.iter().enumerate() {
            if self.out.len() > ROOM_BYTES {
                plain.report(&self.session);
                return (used, Some(Next::Room));
            }
            let before = std::mem::replace(&mut used, one.end);
            let faulty = fault.filter(|_| index.saturating_add(1) == framed.len());
            if let Some(spec) = self.plain(one.spec).filter(|_| faulty.is_none() && one.head.flags == 0) {
                if self.execute_frame(turn(index), one, spec, args) == Progress::Blocked {
                    plain.report(&self.session);
                    return (before, Some(Next::Disk));
                }
                plain.add(spec);
                continue;
            }
            plain.report(&self.session);
            let next = match faulty {
                Some(error) => {
                    self.answer_error(one.head.id, error);
                    None
                }
                None => self.native_apart(one.head, one.spec, one.args(args)),
            };
            if next == Some(Next::Disk) {
                return (before, next);
            }
            self.session.client.count(1, one.spec);
            if next.is_some() {
                return (used, next);
            }
        }
        plain.report(&self.session);
        (used, None)
    }

    /// Carries out one engine command and answers its frame.
    #[inline]
    fn execute_frame(
        &mut self,
        turn: Turn<'_>,
        one: &Framed,
        spec: &'static Spec,
        args: &[Arg<'_>],
    ) -> Progress {
        if let Some(direct) = spec.direct(one.args(args))
            && self.answer_directly(turn, one.head.id, direct)
        {
            return Progress::Done;
        }
        self.execute_built_frame(turn, one, spec, args)
    }

    /// Reads, writes or counts up one value where no more is to be done than that; answers whether that was so.
    #[inline]
    fn answer_directly(&mut self, turn: Turn<'_>, id: u32, direct: Direct<'_>) -> bool {
        let Session { shared, caller, .. } = &self.session;
        let out = &mut self.out;
        match direct {
            Direct::Read(key) => {
                let show = |stored: Option<Stored<'_>>| {
                    match stored {
                        None => put_response(id, 0, MISSING_REPLY, out),
                        Some(stored) => {
                            // Not every command may show what is a container.
                            let value = stored.scalar().filter(|value| !value.kind().is_container())?;
                            put_value_response(id, value, out);
                        }
                    }
                    Some(())
                };
                shared.engine.read_ahead(caller, key, turn, show).is_some()
            }
            Direct::Write(key, value) => {
                let is_done = shared.engine.write_ahead(caller, key, value, turn);
                if is_done {
                    put_response(id, 0, OK_REPLY, out);
                }
                is_done
            }
            Direct::Add(key, by) => {
                let sum = shared.engine.add_ahead(caller, key, by, turn);
                sum.map(|sum| put_response(id, 0, &integer_reply(sum), out)).is_some()
            }
        }
    }

    /// Builds a command and executes it.
    fn execute_built_frame(
        &mut self,
        turn: Turn<'_>,
        one: &Framed,
        spec: &'static Spec,
        args: &[Arg<'_>],
    ) -> Progress {
        let before = self.out.len();
        let Session { shared, caller, .. } = &self.session;
        let at = frame::start_response(one.head.id, 0, &mut self.out);
        let mut reply = ReplyBuf::onto(std::mem::take(&mut self.out));
        let args = one.args(args);
        match &spec.build(args) {
            Ok(command) => {
                let row = (spec, Load::of(args));
                if shared.engine.execute_ahead(caller, row, command, turn, &mut reply) == Progress::Blocked {
                    self.out = reply.into_bytes();
                    self.out.truncate(before);
                    return Progress::Blocked;
                }
            }
            Err(error) => reply.error(error),
        }
        self.out = reply.into_bytes();
        frame::finish(at, &mut self.out);
        Progress::Done
    }

    /// Carries out a request that is no plain engine command. With [`Next::Disk`] nothing was done.
    fn native_apart(
        &mut self,
        head: RequestHead,
        spec: Option<&'static Spec>,
        args: &[Arg<'_>],
    ) -> Option<Next> {
        match spec.filter(|_| head.flags & DURABLE != 0 && self.session.authenticated) {
            Some(spec) => self.carry_out_native_durably(head, spec, args),
            None => self.carry_out_native(head, spec, args),
        }
    }

    fn carry_out_native_durably(
        &mut self,
        head: RequestHead,
        spec: &'static Spec,
        args: &[Arg<'_>],
    ) -> Option<Next> {
        if let Err(error) = self.session.check_durable(spec) {
            self.answer_error(head.id, &error);
            return None;
        }
        let next = self.carry_out_native(head, Some(spec), args);
        if next != Some(Next::Disk) {
            self.session.shared.engine.owe_everything(&self.session.caller);
        }
        next
    }

    fn carry_out_native(
        &mut self,
        head: RequestHead,
        spec: Option<&'static Spec>,
        args: &[Arg<'_>],
    ) -> Option<Next> {
        let id = head.id;
        let Some(spec) = spec else {
            self.answer_error(id, &Error::new(ErrorKind::UnknownCommand, "unknown opcode"));
            return None;
        };
        if !self.session.authenticated && !spec.has(NO_AUTH) {
            self.answer_error(id, &Error::new(ErrorKind::Auth, "Authentication required."));
            return None;
        }
        let call = match spec.call(args) {
            Ok(call) => call,
            Err(error) => {
                self.answer_error(id, &error);
                return None;
            }
        };
        match &call.command {
            Command::Connection(ConnectionCommand::Atomic { args }) => self.atomic_step(id, args),
            Command::Connection(ConnectionCommand::Cancel { request }) => {
                let ended = self.session.shared.engine.cancel(&self.session.caller, *request);
                if ended {
                    let error = Error::new(ErrorKind::Timeout, "the wait was cancelled");
                    self.answer_error(u32::try_from(*request).unwrap_or(0), &error);
                }
                self.memory.replies.boolean(ended);
                self.answer(id);
                None
            }
            Command::Connection(command) if commands::is_resp_only(command) => {
                let text =
                    format!("{} is for RESP clients; KV.ATOMIC runs several commands as one", spec.name);
                self.answer_error(id, &Error::new(ErrorKind::Unavailable, text));
                None
            }
            Command::Connection(command) => {
                let effect = commands::carry_out(&mut self.session, command, &mut self.memory.replies);
                if effect != Effect::Disk {
                    self.answer(id);
                }
                effect.next()
            }
            command => {
                let (session, replies) = (&self.session, &mut self.memory.replies);
                let progress = session.shared.engine.execute(&session.caller, u64::from(id), &call, replies);
                if let Command::State(StateCommand::Watch { .. }) = command
                    && let Ok(Item::Integer(watch)) = ReplyReader::new(replies.as_bytes()).item()
                {
                    self.watches.push((watch.cast_unsigned(), id));
                }
                match progress {
                    Progress::Done => self.answer(id),
                    Progress::Pending => {}
                    Progress::Blocked => return Some(Next::Disk),
                }
                None
            }
        }
    }

    fn atomic_step(&mut self, id: u32, args: &[Arg<'_>]) -> Option<Next> {
        let mark = self.memory.replies.len();
        match transaction::atomic(&self.session, args, &mut self.memory.replies) {
            Ok(Progress::Blocked) => return Some(Next::Disk),
            Ok(Progress::Done | Progress::Pending) => {}
            Err(error) => {
                self.memory.replies.truncate(mark);
                self.memory.replies.error(&error);
            }
        }
        self.answer(id);
        None
    }

    /// Sends the one reply that stands in the reply buffer.
    fn answer(&mut self, id: u32) {
        put_response(id, 0, self.memory.replies.as_bytes(), &mut self.out);
        self.memory.replies.reset(KEPT_BYTES);
    }

    fn answer_error(&mut self, id: u32, error: &Error) {
        let mut reply = ReplyBuf::new();
        reply.error(error);
        put_response(id, 0, reply.as_bytes(), &mut self.out);
    }

    /// Writes what came from the engine meanwhile.
    pub(crate) fn native_letter(&mut self, letter: Letter, item: &[u8]) {
        match letter {
            Letter::Answer(token) => put_response(u32::try_from(token).unwrap_or(0), 0, item, &mut self.out),
            Letter::Event(watch) => {
                let known = self.watches.iter().find(|(number, _)| *number == watch);
                if let Some((_, id)) = known {
                    put_response(*id, PUSH, item, &mut self.out);
                }
            }
        }
    }
}
