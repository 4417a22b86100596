//! One connection: a task that reads what the socket has, lets the dialogue carry it out, and writes the replies in
//! one go. It waits for the socket and its mailbox, never for a lock that is held across a wait.

use std::future::poll_fn;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering::Relaxed};
use std::task::{Context, Poll};
use std::time::Duration;

use data_bridge_kv::Waits;
use data_bridge_kv_model::limits::OUTPUT_BYTES_SOFT;
use tokio::io::{AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::sync::oneshot;

use crate::allowance::Grant;
use crate::clients::Client;
use crate::dialogue::{Dialogue, Ending, Next};
use crate::disk;
use crate::held;
use crate::mailbox::{DRAIN, DURABLE, END, KILL, LETTER, LOST, TRIM};
use crate::server::Shared;
use crate::stream::Stream;

mod turns;

use turns::Counted;

/// Room for one read at first.
const SMALL_READ: usize = 16 << 10;
/// Room for one read of a client that fills it.
const LARGE_READ: usize = 64 << 10;
/// Input that a client may send ahead while it is waiting for an answer.
const AHEAD_BYTES: usize = 1 << 20;
/// Output memory that is kept when everything was sent.
const KEPT_BYTES: usize = 256 << 10;
/// How long a connection that ends waits for its last output to be taken.
const LINGER: Duration = Duration::from_secs(5);

/// Bytes that were received and not used up yet.
#[derive(Default)]
struct Input {
    bytes: Vec<u8>,
    used: usize,
    room: usize,
}

impl Input {
    fn rest(&self) -> &[u8] {
        self.bytes.get(self.used..).unwrap_or_default()
    }

    /// Makes room for a read: unused bytes move to the front, memory grows with what really came.
    fn prepare(&mut self) {
        if self.used == self.bytes.len() {
            self.bytes.clear();
        } else if self.used > 0 {
            self.bytes.drain(..self.used);
        }
        self.used = 0;
        self.room = self.room.clamp(SMALL_READ, LARGE_READ);
        if self.bytes.capacity() > 4 * LARGE_READ && self.bytes.len() < self.bytes.capacity() / 4 {
            self.bytes.shrink_to_fit();
        }
        self.bytes.reserve(self.room);
    }

    /// Learns from a read of `count` bytes.
    fn learn(&mut self, count: usize) {
        if count >= self.room {
            self.room = LARGE_READ;
        } else if count < SMALL_READ / 4 {
            self.room = SMALL_READ;
        }
    }
}

/// Why the task woke.
enum Event {
    /// This many bytes came.
    Read(usize),
    /// All output was sent.
    Sent,
    /// Signals of the mailbox.
    Signals(u8),
    /// The other end is gone.
    Gone,
}

struct Connection {
    stream: Stream,
    shared: Arc<Shared>,
    client: Arc<Client>,
    dialogue: Dialogue,
    input: Input,
    sent: usize,
    /// Output from here on may not be shown yet: it rests on a record that the log does not have on disk.
    held: Option<usize>,
    draining: bool,
    /// There are letters that were not read.
    has_letters: bool,
    /// What the next command is known to need of the allowance.
    needs: u64,
    /// The part of the allowance that the last command holds.
    grant: Option<Grant>,
    /// The part of what there is for requests that the one which is just coming takes.
    intake: Option<Grant>,
    counted: Counted,
}

/// Serves a connection until it ends; `unread` was received before.
pub async fn serve(stream: Stream, unread: Vec<u8>, shared: Arc<Shared>, client: Arc<Client>) {
    let dialogue = Dialogue::new(Arc::clone(&shared), Arc::clone(&client));
    let mut connection = Connection {
        stream,
        shared: Arc::clone(&shared),
        client: Arc::clone(&client),
        dialogue,
        input: Input { bytes: unread, ..Input::default() },
        sent: 0,
        held: None,
        draining: false,
        has_letters: false,
        needs: 0,
        grant: None,
        intake: None,
        counted: Counted::new(Arc::clone(&shared)),
    };
    let ending = connection.run().await;
    let by = match ending {
        Ending::Wanted => None,
        Ending::Limit => Some("a limit"),
        Ending::Malformed => Some("a malformed request"),
    };
    if let Some(by) = by.filter(|_| shared.repeated.allows()) {
        tracing::info!(address = %client.address, id = client.id, "connection ended by {by}");
    }
    shared.engine.disconnect(&connection.dialogue.session.caller);
    shared.clients.remove(&client, ending);
}

impl Connection {
    /// Answers why it ended.
    async fn run(&mut self) -> Ending {
        loop {
            let mut next = self.feed();
            // What rests on the log is shown first: the rest is carried out when it may be.
            if next == Next::Disk && self.held.is_none() {
                next = self.feed_on().await;
            }
            self.read_kept_letters();
            if matches!(next, Next::End(_)) || self.draining {
                self.settle().await;
            }
            if next == Next::Disk && self.held.is_none() {
                continue;
            }
            match next {
                Next::End(ending) => {
                    self.farewell().await;
                    return ending;
                }
                Next::Pause(time) => {
                    tokio::time::sleep(time).await;
                    continue;
                }
                Next::Input | Next::Room | Next::Answer | Next::Disk => {}
            }
            if self.draining && self.may_end(next) {
                self.farewell().await;
                return Ending::Wanted;
            }
            if next == Next::Input
                && let Err(ending) = self.get_intake().await
            {
                return ending;
            }
            match poll_fn(|cx| self.poll(cx, next)).await {
                Event::Read(count) => {
                    self.input.learn(count);
                    let received = self.client.received.load(Relaxed).wrapping_add(count as u64);
                    self.client.received.store(received, Relaxed);
                }
                Event::Sent => {}
                Event::Gone => return Ending::Wanted,
                Event::Signals(signals) => {
                    if let Some(ending) = ending(signals) {
                        return ending;
                    }
                    self.obey(signals);
                    if signals & LOST != 0 {
                        self.farewell().await;
                        return Ending::Wanted;
                    }
                }
            }
        }
    }

    /// Carries out what came, unless earlier answers are held: nothing would be gained by knowing later ones sooner.
    fn feed(&mut self) -> Next {
        if self.held.is_some() {
            return Next::Room;
        }
        let before = self.dialogue.out.len();
        let (used, next) = self.dialogue.feed(self.input.rest());
        self.take_fed(before, used, next);
        next
    }

    /// Reads the letters that came while an answer was being written.
    fn read_kept_letters(&mut self) {
        if self.has_letters && !self.dialogue.is_answering() {
            self.has_letters = false;
            let letters = self.client.mailbox.take();
            self.dialogue.read_letters(&letters);
        }
    }

    /// Waits until entries have left memory: that takes no thread.
    async fn wait_for_room(&mut self) {
        // An error is met again by whoever sends the rest.
        let _ = poll_fn(|cx| Poll::Ready(self.poll_send(cx))).await;
        let (tell, told) = oneshot::channel();
        self.shared.engine.when_room(Box::new(move || {
            // The connection may be gone.
            let _ = tell.send(());
        }));
        // The other end answers, or is gone with the store.
        let _ = told.await;
    }

    /// Goes on with a command that has to wait with a thread, when it is this connection's turn. What was answered before
    /// leaves at once. Answers too whether a command was carried out.
    async fn feed_slowly(&mut self, waits: Waits) -> (bool, Next) {
        // An error is met again by whoever sends the rest.
        let _ = poll_fn(|cx| Poll::Ready(self.poll_send(cx))).await;
        let shared = Arc::clone(&self.shared);
        let turns = if waits == Waits::Alone { &shared.room } else { &shared.disk };
        // It is never closed.
        let _turn = turns.acquire().await;
        let before = self.dialogue.out.len();
        let (used, next) = disk::wait(|| self.dialogue.feed_slowly(waits, self.input.rest()));
        self.take_fed(before, used, next);
        (used > 0, next)
    }

    /// Notes what was carried out, and holds its output from here on if that rests on what the log does not have on disk.
    fn take_fed(&mut self, before: usize, used: usize, next: Next) {
        self.input.used = self.input.used.saturating_add(used);
        if used > 0 {
            // Its memory goes with its turn, also where the answer has to wait.
            if self.intake.take().is_some() {
                self.input.prepare();
            }
            self.needs = 0;
        }
        self.note(used, next);
        // A command that stopped short has what it holds still to come.
        if next != Next::Disk {
            self.settle_grant();
        }
        if let Some(lsn) = self.shared.engine.owed(&self.dialogue.session.caller) {
            self.held = Some(before);
            held::hold(&self.shared, lsn, Arc::clone(&self.client));
        }
    }

    /// Waits until nothing is held: what is shown last must be true, too.
    async fn settle(&mut self) {
        while let Some(from) = self.held {
            let signals = poll_fn(|cx| self.client.mailbox.poll(cx)).await;
            self.obey(signals);
            if ending(signals).is_some() && self.held.is_some() {
                self.dialogue.out.truncate(from);
                self.held = None;
            }
        }
    }

    /// Whether nothing is owed to the client: a wait is not finished, it is ended.
    fn may_end(&mut self, next: Next) -> bool {
        next == Next::Answer && self.dialogue.end_wait()
            || next == Next::Input && self.input.rest().is_empty()
    }

    /// Sends what can be sent, then waits for the first thing that happens.
    fn poll(&mut self, cx: &mut Context<'_>, next: Next) -> Poll<Event> {
        match self.poll_send(cx) {
            Poll::Ready(Ok(true)) if next == Next::Room => return Poll::Ready(Event::Sent),
            Poll::Ready(Err(_)) => return Poll::Ready(Event::Gone),
            Poll::Ready(Ok(_)) | Poll::Pending => {}
        }
        if let Poll::Ready(signals) = self.client.mailbox.poll(cx) {
            return Poll::Ready(Event::Signals(signals));
        }
        // Who does not read its replies, or waits for one, may not send ahead without end.
        let wants = match next {
            _ if self.held.is_some() => false,
            Next::Input => true,
            _ => self.input.rest().len() < AHEAD_BYTES,
        };
        if !wants {
            return Poll::Pending;
        }
        // A trimmed connection takes memory again only when there is something to read.
        if self.input.bytes.capacity() == 0 && self.stream.poll_read_ready(cx).is_pending() {
            return Poll::Pending;
        }
        self.input.prepare();
        if self.counted.is_any() {
            self.count();
        }
        match pin!(self.stream.read_buf(&mut self.input.bytes)).poll(cx) {
            Poll::Ready(Ok(0) | Err(_)) => Poll::Ready(Event::Gone),
            Poll::Ready(Ok(count)) => Poll::Ready(Event::Read(count)),
            Poll::Pending => Poll::Pending,
        }
    }

    /// Writes output; ready with `true` if this call sent the last of it.
    fn poll_send(&mut self, cx: &mut Context<'_>) -> Poll<std::io::Result<bool>> {
        if self.dialogue.out.is_empty() {
            return Poll::Ready(Ok(false));
        }
        let end = self.held.unwrap_or(self.dialogue.out.len());
        while self.sent < end {
            let rest = self.dialogue.out.get(self.sent..end).unwrap_or_default();
            match Pin::new(&mut self.stream).poll_write(cx, rest) {
                Poll::Ready(Ok(count)) => self.sent = self.sent.saturating_add(count),
                Poll::Ready(Err(error)) => return Poll::Ready(Err(error)),
                Poll::Pending => {
                    self.forget_sent();
                    self.note_holding();
                    return Poll::Pending;
                }
            }
        }
        if self.held.is_some() {
            return Poll::Ready(Ok(false));
        }
        self.count_sent();
        self.dialogue.out.clear();
        self.dialogue.out.shrink_to(KEPT_BYTES);
        if self.grant.is_some() {
            self.settle_grant();
        }
        Poll::Ready(Ok(true))
    }

    /// Gives back the memory of large output while it is taken. Moving the rest costs no more than what was sent did.
    fn forget_sent(&mut self) {
        let rest = self.dialogue.out.len().saturating_sub(self.sent);
        if self.sent > KEPT_BYTES && self.sent >= rest {
            self.dialogue.taken(self.sent);
            self.held = self.held.map(|from| from.saturating_sub(self.sent));
            self.count_sent();
            self.note_output();
            self.settle_grant();
        }
    }

    fn count_sent(&mut self) {
        let sent = self.client.sent.load(Relaxed).wrapping_add(self.sent as u64);
        self.client.sent.store(sent, Relaxed);
        self.sent = 0;
    }

    fn obey(&mut self, signals: u8) {
        if signals & LETTER != 0 {
            self.has_letters = true;
            self.read_kept_letters();
        }
        if signals & DRAIN != 0 {
            self.draining = true;
        }
        if signals & DURABLE != 0 {
            self.held = None;
        }
        if signals & LOST != 0
            && let Some(from) = self.held.take()
        {
            self.dialogue.give_up(from);
        }
        if signals & TRIM != 0 {
            self.dialogue.trim();
            if self.input.rest().is_empty() {
                self.input = Input::default();
            }
            self.note_memory();
        }
    }

    /// Tells the register what the janitor and `CLIENT LIST` look at.
    fn note(&self, used: usize, next: Next) {
        let client = &self.client;
        let now = self.shared.seconds();
        client.active_at.store(now, Relaxed);
        // Another request is another beginning.
        let incomplete = used == 0 && next == Next::Input && !self.input.rest().is_empty();
        mark(&client.incomplete_since, incomplete, now);
        self.note_output();
    }

    fn note_output(&self) {
        let unread = self.dialogue.unsent().saturating_sub(self.sent);
        mark(&self.client.full_since, unread > OUTPUT_BYTES_SOFT, self.shared.seconds());
        self.note_memory();
    }

    fn note_memory(&self) {
        let (input, output) = (self.input.bytes.capacity(), self.dialogue.bytes());
        let coming = self.intake.as_ref().map_or(0, |_| input);
        let held = self.grant.as_ref().map_or(0, |_| output);
        self.client.input_bytes.store(input, Relaxed);
        self.client.output_bytes.store(output, Relaxed);
        self.client.allowed_bytes.store(coming.saturating_add(held), Relaxed);
    }

    /// Sends the last output, then closes.
    async fn farewell(&mut self) {
        let rest = self.dialogue.out.get(self.sent..).unwrap_or_default();
        let last = async {
            self.stream.write_all(rest).await?;
            self.stream.shutdown().await
        };
        // Who does not take it in time loses it.
        let _ = tokio::time::timeout(LINGER, last).await;
    }
}

/// Whether signals end a connection at once, and why.
fn ending(signals: u8) -> Option<Ending> {
    match signals {
        _ if signals & KILL != 0 => Some(Ending::Wanted),
        _ if signals & END != 0 => Some(Ending::Limit),
        _ => None,
    }
}

/// Notes since when something holds: a second of the server's life plus one, 0 = it does not.
fn mark(cell: &AtomicU32, on: bool, now: u32) {
    match (on, cell.load(Relaxed)) {
        (true, 0) => cell.store(now.saturating_add(1), Relaxed),
        (false, 1..) => cell.store(0, Relaxed),
        _ => {}
    }
}
