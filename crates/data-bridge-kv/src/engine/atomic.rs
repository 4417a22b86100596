//! Atomic steps: several commands as one, of which nobody sees a part.

use data_bridge_kv_model::command::KeyCommand;
use data_bridge_kv_model::command::table::{GROWS, READ};
use data_bridge_kv_model::{Call, Command, Error, ErrorKind, Key, ReplyBuf, Result, Shape};

use super::durable::record_bytes;
use super::halt::Step;
use super::warm::looks_at_values;
use super::{Caller, Core, Engine, Progress};
use crate::router::lock_calls;
use crate::shard::{Space, Txn, exec};

/// What an atomic step does when one of its commands fails.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OnError {
    /// Takes everything back and answers the error alone.
    Abort,
    /// Goes on: the error is that command's answer, as in Redis's EXEC.
    Continue,
}

impl Engine {
    /// Executes commands as one step that nobody sees half done: one Array of their answers, or one error. `watched`
    /// keys must still have these versions (0 = missing), or nothing runs and the error is `Aborted`. Never pending.
    pub fn execute_atomic(
        &self,
        caller: &Caller,
        calls: &[Call<'_>],
        on_error: OnError,
        watched: &[(Key<'_>, u64)],
        out: &mut ReplyBuf,
    ) -> Progress {
        let mark = out.len();
        let result = self.core.run_atomic(caller, calls, on_error, watched, out);
        self.core.show(caller, result).map_or_else(|halt| halt.answer(caller, mark, out), |()| Progress::Done)
    }
}

impl Core {
    fn run_atomic(
        &self,
        caller: &Caller,
        calls: &[Call<'_>],
        on_error: OnError,
        watched: &[(Key<'_>, u64)],
        out: &mut ReplyBuf,
    ) -> Step<()> {
        let has = |flag| move |call: &Call<'_>| call.spec.has(flag);
        let mark = out.len();
        let (reads, grows) = (calls.iter().all(has(READ)), calls.iter().any(has(GROWS)));
        let bytes = || calls.iter().map(|call| record_bytes(&call.command, call.load)).sum();
        let (space, room) = self.make_way(caller, reads, grows, bytes)?;
        let watched_shards = || watched.iter().map(|(key, _)| space.shard_of(space.hash(key.as_bytes())));
        let lock = || lock_calls(space, calls, watched_shards());
        // Whose parts are taken back one by one can't be taken back as a whole.
        let is_whole = on_error == OnError::Abort || space.settings().graph.is_none();
        let is_blind = |call: &Call<'_>| is_blind(space, &call.command);
        // What may be taken back, or runs on copies, needs each of its keys.
        let needs_all = self.tier.is_none()
            || !reads && (on_error == OnError::Abort || room.is_scarce())
            || reads && !(watched.is_empty() && calls.iter().all(is_blind));
        let is_blind = |call: &&Call<'_>| !needs_all && is_blind(call);
        if !needs_all {
            let all = |visit: &mut dyn FnMut(Key<'_>)| visit_keys(calls.iter(), visit);
            self.need_indexes(space, caller.waits, all)?;
        }
        let mut txn = self.begin_warm(space, (caller.means(), reads), lock, |visit| {
            watched.iter().for_each(|(key, _)| visit(*key));
            visit_keys(calls.iter().filter(|call| !is_blind(call)), visit);
        })?;
        visit_keys(calls.iter().filter(is_blind), &mut |key| {
            let place = txn.place(key);
            txn.warm(place, false);
        });
        if room.is_scarce() && is_whole {
            txn.keep_undo();
        }
        let result = run_calls(&mut txn, calls, on_error, watched, out);
        let fits = if is_whole { room.for_record(&txn) } else { Ok(None) };
        if result.is_err() || fits.is_err() {
            txn.roll_back();
        }
        let gaps = txn.take_gaps();
        let mut notices = txn.finish();
        let filled = notices.take_filled();
        caller.send(notices);
        result?;
        if reads {
            // Whoever shows the answers holds them twice for a moment. What was written can't begin again.
            caller.means().check(2 * gaps.bytes_after(mark, out))?;
        } else {
            fits?;
        }
        gaps.fill(out);
        drop(room);
        self.serve(caller, filled);
        Ok(())
    }
}

fn visit_keys<'c>(calls: impl Iterator<Item = &'c Call<'c>>, visit: &mut dyn FnMut(Key<'_>)) {
    calls.for_each(|call| call.command.keys().for_each(&mut *visit));
}

/// Whether a command needs nothing of what its keys have on disk but that they are there.
fn is_blind(space: &Space, command: &Command<'_>) -> bool {
    !looks_at_values(space, command) && !matches!(command, Command::Key(KeyCommand::Ttl { .. }))
}

/// Runs the commands of an atomic step.
fn run_calls(
    txn: &mut Txn<'_>,
    calls: &[Call<'_>],
    on_error: OnError,
    watched: &[(Key<'_>, u64)],
    out: &mut ReplyBuf,
) -> Result<()> {
    for (key, version) in watched {
        let place = txn.place(*key);
        if txn.version(place) != *version {
            return Err(Error::new(ErrorKind::Aborted, "a watched key has changed"));
        }
    }
    if on_error == OnError::Abort {
        txn.keep_undo();
    }
    out.container(Shape::Array, calls.len());
    // Elsewhere a command that fails has changed nothing.
    let takes_back = on_error == OnError::Continue && txn.space().settings().graph.is_some();
    for call in calls {
        if takes_back {
            txn.begin_part();
        }
        let (mark, gaps) = (out.len(), txn.gap_count());
        let fits = txn.check_record(record_bytes(&call.command, call.load));
        let result =
            fits.and_then(|()| exec::run(txn, &call.command, out)).and_then(|()| txn.check_reply(out));
        if let Err(error) = result {
            if on_error == OnError::Abort {
                return Err(error);
            }
            if takes_back {
                txn.roll_back();
            }
            out.truncate(mark);
            txn.keep_gaps(gaps);
            out.error(&error);
        }
    }
    Ok(())
}
