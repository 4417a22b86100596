//! What a connection holds of the memory that all share, and how it waits for it.

use std::future::poll_fn;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::task::Poll;

use data_bridge_kv::Waits;

use super::{Connection, ending, mark};
use crate::allowance::{FREE_BYTES, Grant};
use crate::dialogue::{Ending, Next};
use crate::server::Shared;

/// Smaller buffers do not count one by one.
const COUNTED_BYTES: usize = 512 << 10;

/// Memory of a connection, as the engine was told of it.
pub(super) struct Counted {
    shared: Arc<Shared>,
    bytes: usize,
}

impl Counted {
    pub(super) fn new(shared: Arc<Shared>) -> Counted {
        Counted { shared, bytes: 0 }
    }

    /// Whether there is something that it may have to be told is gone.
    pub(super) fn is_any(&self) -> bool {
        self.bytes > 0
    }

    /// Tells the engine where it matters.
    fn set(&mut self, bytes: usize) {
        // What every connection may have is not told.
        let bytes = if bytes > COUNTED_BYTES { bytes } else { 0 };
        if bytes != self.bytes {
            self.shared.engine.count_beside(self.bytes, bytes);
            self.bytes = bytes;
        }
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.set(0);
    }
}

impl Connection {
    /// Goes on with a command that stopped short: with a part of the allowance, if it needs one, when there is room in
    /// memory, when the disk has answered.
    pub(super) async fn feed_on(&mut self) -> Next {
        self.learn_needs();
        let mut next = Next::Disk;
        if self.needs > 0 {
            // An error is met again by whoever sends the rest.
            let _ = poll_fn(|cx| Poll::Ready(self.poll_send(cx))).await;
            if let Err(ending) = self.get_grant().await {
                return Next::End(ending);
            }
            if self.shared.engine.holds_writers() {
                self.wait_for_room().await;
            }
            next = self.feed();
        }
        // Who only reads does not wait for those who need room.
        if next == Next::Disk
            && self.held.is_none()
            && self.lacks_room()
            && self.shared.engine.holds_writers()
        {
            self.wait_for_room().await;
            next = self.feed();
        }
        if next == Next::Disk && self.held.is_none() {
            next = self.wait_in_turn().await;
        }
        self.dialogue.session.caller.most_bytes = FREE_BYTES;
        next
    }

    /// Goes on with a thread that waits for the disk, or, where that does not suffice, for room in memory or in the log too.
    async fn wait_in_turn(&mut self) -> Next {
        let known = self.needs;
        if !self.lacks_room() {
            let (is_fed, next) = self.feed_slowly(Waits::Disk).await;
            // Only the disk may know them: a fresh beginning, which does not ask it, would forget that.
            self.learn_needs();
            if is_fed || next != Next::Disk || self.held.is_some() || self.needs > known {
                return next;
            }
        }
        let (_, next) = self.feed_slowly(Waits::Alone).await;
        self.learn_needs();
        next
    }

    /// Whether the next command stopped short since there was no room in memory or in the log.
    fn lacks_room(&self) -> bool {
        self.dialogue.session.caller.needs.take_room()
    }

    /// Remembers what the next command needs: each time that it stops short more is known.
    fn learn_needs(&mut self) {
        self.needs = self.needs.max(self.dialogue.session.caller.needs.take());
    }

    /// Waits for the part of the allowance that the next command needs. An error if the connection has to end.
    async fn get_grant(&mut self) -> Result<(), Ending> {
        // Who holds nothing waits for nobody who waits.
        self.grant = None;
        self.count();
        let shared = Arc::clone(&self.shared);
        let grant = self.take_turn(shared.allowance.grant(self.needs)).await?;
        self.dialogue.session.caller.most_bytes = grant.as_ref().map_or(FREE_BYTES, Grant::allows);
        self.grant = grant;
        // Room for what is read, for what that becomes in memory, and for the answer, until it is known what is held.
        let thrice = usize::try_from(self.needs.saturating_mul(3)).unwrap_or(usize::MAX);
        self.counted.set(thrice);
        Ok(())
    }

    /// Waits for its turn to send a large request, once so much of one has come that it is seen to be large. Whoever still
    /// holds answers does not wait: those may be held up by a client that waits for its requests to be taken. An error
    /// if the connection has to end.
    pub(super) async fn get_intake(&mut self) -> Result<(), Ending> {
        let rest = self.input.rest();
        if rest.len() as u64 <= FREE_BYTES || self.intake.is_some() || self.grant.is_some() {
            return Ok(());
        }
        let expected = self.dialogue.expected_bytes(rest) as u64;
        // It is not the client who takes his time.
        self.client.incomplete_since.store(0, Relaxed);
        let shared = Arc::clone(&self.shared);
        self.intake = self.take_turn(shared.intake.grant(expected)).await?;
        self.count();
        Ok(())
    }

    /// Waits for a turn, obeying signals meanwhile; an error if the connection has to end.
    async fn take_turn(
        &mut self,
        turn: impl Future<Output = Option<Grant>>,
    ) -> Result<Option<Grant>, Ending> {
        let mut turn = pin!(turn);
        loop {
            let event = poll_fn(|cx| match turn.as_mut().poll(cx) {
                Poll::Ready(grant) => Poll::Ready(Ok(grant)),
                Poll::Pending => self.client.mailbox.poll(cx).map(Err),
            });
            match event.await {
                Ok(grant) => return Ok(grant),
                Err(signals) => match ending(signals) {
                    Some(ending) => return Err(ending),
                    None => self.obey(signals),
                },
            }
        }
    }

    /// Gives back what the last command does not hold any more of its part, and tells the engine what counts.
    pub(super) fn settle_grant(&mut self) {
        let unsent = self.dialogue.unsent().saturating_sub(self.sent) as u64;
        match &mut self.grant {
            Some(grant) if unsent > FREE_BYTES => grant.keep(unsent),
            Some(_) => {
                self.grant = None;
                self.client.holding_since.store(0, Relaxed);
            }
            None => {}
        }
        self.count();
    }

    /// Lets large buffers count against the memory budget.
    pub(super) fn count(&mut self) {
        let buffers = self.input.bytes.len().saturating_add(self.dialogue.bytes());
        let granted: u64 = self.grant.iter().chain(&self.intake).map(Grant::bytes).sum();
        let bytes = buffers.max(usize::try_from(granted).unwrap_or(usize::MAX));
        self.counted.set(bytes);
    }

    /// Tells the janitor that this connection holds a part of the allowance, and how much the client has taken since.
    pub(super) fn note_holding(&self) {
        if self.grant.is_none() {
            return;
        }
        let taken = self.client.sent.load(Relaxed).wrapping_add(self.sent as u64);
        if self.client.holding_since.load(Relaxed) == 0 {
            self.client.held_from.store(taken, Relaxed);
        }
        mark(&self.client.holding_since, true, self.shared.seconds());
        self.client.taken.store(taken, Relaxed);
    }
}
