//! How other threads reach a connection: answers that come later, events of watches, and signals (end, kill, drain,
//! trim, and what the log did).
//!
//! The engine calls in from any thread and must not wait, so a letter is copied into a bounded box and the
//! connection's task is woken. Events beyond the bound are dropped; their watch is told once that some were lost.

use std::sync::atomic::{AtomicU8, Ordering};
use std::task::{Context, Poll, Waker};

use data_bridge_kv::sync::real::Mutex;
use data_bridge_kv_model::ReplyBuf;

/// There is a letter.
pub const LETTER: u8 = 1;
/// End at once: a limit was broken.
pub const END: u8 = 2;
/// Finish what was begun, then end.
pub const DRAIN: u8 = 4;
/// Nothing happened for a while: give back memory.
pub const TRIM: u8 = 8;
/// The log has what the held output rests on.
pub const DURABLE: u8 = 16;
/// The log failed: it never will.
pub const LOST: u8 = 32;
/// End at once: somebody who may wants it to.
pub const KILL: u8 = 64;

/// Most bytes of events that wait for a connection.
const EVENT_BYTES: usize = 1 << 20;

/// What a letter is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Letter {
    /// The answer to the request with this token.
    Answer(u64),
    /// An event of this watch.
    Event(u64),
}

/// Letters in order, with their reply items one after the other.
#[derive(Debug, Default)]
pub struct Letters {
    bytes: Vec<u8>,
    list: Vec<(Letter, usize)>,
    lost: Vec<u64>,
}

impl Letters {
    /// The letters with their reply items.
    pub fn iter(&self) -> impl Iterator<Item = (Letter, &[u8])> {
        let mut start = 0;
        self.list.iter().map(move |(letter, end)| {
            let item = self.bytes.get(start..*end).unwrap_or_default();
            start = *end;
            (*letter, item)
        })
    }

    fn push(&mut self, letter: Letter, item: &[u8]) {
        self.bytes.extend_from_slice(item);
        self.list.push((letter, self.bytes.len()));
    }
}

/// The box of one connection.
#[derive(Debug, Default)]
pub struct Mailbox {
    signals: AtomicU8,
    waker: Mutex<Option<Waker>>,
    letters: Mutex<Letters>,
}

impl Mailbox {
    /// Sets signals and wakes the connection.
    pub fn signal(&self, signals: u8) {
        self.signals.fetch_or(signals, Ordering::Release);
        let waker = self.waker.lock().take();
        if let Some(waker) = waker {
            waker.wake();
        }
    }

    /// Delivers a letter.
    pub fn deliver(&self, letter: Letter, item: &[u8]) {
        {
            let mut letters = self.letters.lock();
            match letter {
                Letter::Event(watch) if letters.bytes.len().saturating_add(item.len()) > EVENT_BYTES => {
                    if !letters.lost.contains(&watch) {
                        letters.lost.push(watch);
                    }
                }
                letter => letters.push(letter, item),
            }
        }
        self.signal(LETTER);
    }

    /// Takes the letters; watches that lost events get one that says so.
    pub fn take(&self) -> Letters {
        let mut letters = std::mem::take(&mut *self.letters.lock());
        for watch in std::mem::take(&mut letters.lost) {
            let mut item = ReplyBuf::new();
            item.container(data_bridge_kv_model::Shape::Array, 3);
            item.status("lost");
            item.missing();
            item.integer(0);
            letters.push(Letter::Event(watch), item.as_bytes());
        }
        letters
    }

    /// Takes the signals that were set, or registers to be woken by the next one.
    pub fn poll(&self, cx: &mut Context<'_>) -> Poll<u8> {
        let signals = self.take_signals();
        if signals != 0 {
            return Poll::Ready(signals);
        }
        {
            let mut waker = self.waker.lock();
            match &mut *waker {
                Some(known) => known.clone_from(cx.waker()),
                none => *none = Some(cx.waker().clone()),
            }
        }
        // A signal between the first look and the registration found no waker; the lock lets it be seen here.
        match self.take_signals() {
            0 => Poll::Pending,
            signals => Poll::Ready(signals),
        }
    }

    /// Takes the signals; nearly always there are none, and then nothing is written.
    fn take_signals(&self) -> u8 {
        if self.signals.load(Ordering::Acquire) == 0 {
            return 0;
        }
        self.signals.swap(0, Ordering::Acquire)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn events_beyond_the_bound_are_reported_as_lost_and_answers_never() {
        let mailbox = Mailbox::default();
        let big = vec![0u8; EVENT_BYTES / 2];
        for _ in 0..5 {
            mailbox.deliver(Letter::Event(3), &big);
        }
        mailbox.deliver(Letter::Answer(9), &big);
        let letters = mailbox.take();
        let kinds: Vec<Letter> = letters.iter().map(|(letter, _)| letter).collect();
        assert_eq!(kinds, [Letter::Event(3), Letter::Event(3), Letter::Answer(9), Letter::Event(3)]);
        assert_eq!(letters.iter().nth(2).unwrap().1.len(), big.len());
        assert_eq!(mailbox.take().iter().count(), 0);
    }

    #[test]
    fn a_signal_wakes_once() {
        let mailbox = Mailbox::default();
        let mut cx = Context::from_waker(Waker::noop());
        assert_eq!(mailbox.poll(&mut cx), Poll::Pending);
        mailbox.signal(END);
        mailbox.signal(DRAIN);
        assert_eq!(mailbox.poll(&mut cx), Poll::Ready(END | DRAIN));
        assert_eq!(mailbox.poll(&mut cx), Poll::Pending);
    }
}
