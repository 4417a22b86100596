//! Commands that wait for something to take. Each waits in line at its keys; whoever fills one serves the line: it takes for
//! one after the other, in a step each, as if those had sent their commands just then. So nobody is woken for nothing.

use std::collections::{BTreeSet, VecDeque};
use std::sync::Arc;
use std::sync::atomic::Ordering;

use data_bridge_kv_model::command::Patience;
use data_bridge_kv_model::{Arg, Command, Error, ErrorKind, Key, Kind, Load, ReplyBuf, Result, Spec};

use super::durable::{Room, record_bytes};
use super::halt::Means;
use super::{Caller, Core, NamespaceId, Progress, Step, Waits};
use crate::shard::takers::{TakenFrom, Taker, Taking};
use crate::shard::{Txn, exec};

/// What came of an attempt to serve the first one of a line.
enum Served {
    /// He is gone from the line: the next one may be served.
    Yes,
    /// There is nothing to take.
    No,
}

impl Core {
    /// Lets a command take what there is if nobody came before it. Otherwise it begins to wait.
    pub(super) fn take_or_wait(
        &self,
        caller: &Caller,
        token: u64,
        (spec, command): (&Spec, &Command<'_>),
        room: Room<'_>,
        out: &mut ReplyBuf,
    ) -> Step<Progress> {
        let Some((taking, from, patience)) = Taking::of(command) else {
            return Err(Error::invalid("not a wait").into());
        };
        let (mark, kind, space) = (out.len(), taking.kind(), self.space(caller.namespace));
        let mut txn = self.begin_several(space, (caller.means(), false), command.keys(), command)?;
        // The command itself answers an error.
        let found = first_filled(&mut txn, from, kind);
        let goes_first = match &found {
            Ok(Some(key)) => {
                let place = txn.place(*key);
                txn.first_taker(place, kind).is_none()
            }
            Ok(None) => false,
            Err(_) => true,
        };
        if goes_first {
            if room.is_scarce() {
                txn.keep_undo();
            }
            let result = exec::run(&mut txn, command, out);
            let fits = room.for_record(&txn);
            if result.is_err() || fits.is_err() {
                txn.roll_back();
            }
            self.end(caller, txn, (spec, command), (result, fits, room), (mark, out))?;
            return Ok(Progress::Done);
        }
        let Some(completions) = &caller.completions else {
            caller.send(txn.finish());
            return Err(Error::new(ErrorKind::Unavailable, "this caller can't wait").into());
        };
        let taker = Taker::new((caller.id, token), distinct(from), taking, Arc::clone(completions));
        let taker = Arc::new(taker);
        self.begin_to_wait(caller, &taker, patience, txn);
        drop(room);
        // Those who came before take first.
        self.serve(caller, found?.map_or(Vec::new(), |_| taker.keys.to_vec()));
        Ok(Progress::Pending)
    }

    /// Puts one at the end of the line of each of his keys, which are locked.
    fn begin_to_wait(&self, caller: &Caller, taker: &Arc<Taker>, patience: Patience, mut txn: Txn<'_>) {
        for key in taker.keys.iter().filter_map(|key| Key::new(key.as_bytes()).ok()) {
            let place = txn.place(key);
            txn.add_taker(place, taker);
        }
        let over = caller.pending.keep_taker(caller.namespace, taker);
        if let Patience::Ms(ms) = patience {
            self.end_taker_at(txn.now().saturating_add(ms), caller.namespace, taker);
        }
        caller.send(txn.finish());
        self.leave_lines(&over);
        // A close that ran since the check has missed this one.
        if self.closed.load(Ordering::SeqCst) {
            self.close();
        }
    }

    /// Lets those who wait take what these keys have, who came first first. The caller is the one who filled them.
    #[inline]
    pub(super) fn serve(&self, caller: &Caller, filled: Vec<Box<str>>) {
        if !filled.is_empty() {
            self.serve_lines(caller, filled.into());
        }
    }

    #[cold]
    fn serve_lines(&self, caller: &Caller, mut filled: VecDeque<Box<str>>) {
        // Nobody else goes on with this later.
        let caller = Caller { waits: Waits::Here, completions: None, ..caller.clone() };
        while let Some(key) = filled.pop_front() {
            while let Some(taker) = self.first_taker(caller.namespace, &key) {
                match self.serve_one(&caller, &key, &taker, &mut filled) {
                    Ok(Served::Yes) => {}
                    Ok(Served::No) => break,
                    Err(halt) => self.refuse(caller.namespace, &taker, &halt.into_error()),
                }
            }
        }
    }

    /// Who comes first at a key of those who may take from what it holds.
    fn first_taker(&self, namespace: NamespaceId, key: &str) -> Option<Arc<Taker>> {
        let (space, key) = (self.space(namespace), Key::new(key.as_bytes()).ok()?);
        let mut txn = self.begin_with(space, Means::all(Waits::Here), key).ok()?;
        let place = txn.place(key);
        let kind = txn.peek(place).map(|entry| entry.kind());
        let taker = kind.and_then(|kind| txn.first_taker(place, kind));
        txn.finish().send();
        taker
    }

    /// Takes from a key for the first one of its line, in a step of its own.
    fn serve_one(
        &self,
        caller: &Caller,
        key: &str,
        taker: &Arc<Taker>,
        filled: &mut VecDeque<Box<str>>,
    ) -> Step<Served> {
        let from = [Arg::Untyped(key.as_bytes())];
        let command = taker.taking.command(&from)?;
        let grows = matches!(taker.taking, Taking::Move(..));
        let bytes = || record_bytes(&command, Load::of(&from));
        let (space, room) = self.make_way(caller, false, grows, bytes)?;
        let means = (Means::all(Waits::Here), false);
        let mut txn = self.begin_several(space, means, command.keys(), &command)?;
        let (place, kind) = (txn.place(from[0].key()?), taker.taking.kind());
        let is_first = txn.first_taker(place, kind).is_some_and(|first| Arc::ptr_eq(&first, taker));
        let has_some =
            txn.collection(place, kind).is_ok_and(|found| found.is_some_and(|one| !one.is_empty()));
        if !is_first || !has_some {
            txn.finish().send();
            return Ok(if has_some { Served::Yes } else { Served::No });
        }
        txn.remove_taker(place, taker);
        if !taker.end() {
            txn.finish().send();
            return Ok(Served::Yes);
        }
        if room.is_scarce() {
            txn.keep_undo();
        }
        let mut reply = ReplyBuf::new();
        let result = exec::run(&mut txn, &command, &mut reply);
        let fits = room.for_record(&txn);
        let outcome = result.and(fits.as_ref().map(drop).map_err(Error::clone));
        if outcome.is_err() {
            txn.roll_back();
        }
        let mut notices = txn.finish();
        filled.extend(notices.take_filled());
        if let Err(error) = outcome {
            reply = ReplyBuf::new();
            reply.error(&error);
        }
        notices.complete(Arc::clone(&taker.completions), taker.token, reply);
        notices.send();
        Ok(Served::Yes)
    }

    /// Ends a wait with an error.
    fn refuse(&self, namespace: NamespaceId, taker: &Arc<Taker>, error: &Error) {
        let mut reply = ReplyBuf::new();
        reply.error(error);
        self.end_with(namespace, taker, &reply);
    }

    /// Answers to one whose time has come that there was nothing.
    pub(super) fn end_taker(&self, namespace: NamespaceId, taker: Option<Arc<Taker>>) {
        let mut reply = ReplyBuf::new();
        reply.missing();
        if let Some(taker) = taker {
            self.end_with(namespace, &taker, &reply);
        }
    }

    fn end_with(&self, namespace: NamespaceId, taker: &Arc<Taker>, reply: &ReplyBuf) {
        if taker.end() {
            taker.completions.complete(taker.token, reply.as_bytes());
        }
        self.leave_lines(&[(namespace, Arc::clone(taker))]);
    }
}

fn first_filled<'k>(txn: &mut Txn<'_>, from: TakenFrom<'k>, kind: Kind) -> Result<Option<Key<'k>>> {
    match from {
        TakenFrom::First(keys) => exec::first_filled(txn, keys, kind),
        TakenFrom::Only(key) => {
            let place = txn.place(key);
            let found = txn.collection(place, kind)?;
            Ok(found.is_some_and(|collection| !collection.is_empty()).then_some(key))
        }
    }
}

/// The names of keys, each once.
fn distinct(from: TakenFrom<'_>) -> Box<[Box<str>]> {
    let mut known = BTreeSet::new();
    let keys = from.iter().map(|key| key.as_str());
    keys.filter(|key| known.insert(*key)).map(Box::from).collect()
}
