//! A thread that waits for the engine: the answer of one wait, or the events of one watch.

use std::collections::VecDeque;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use data_bridge_kv::Completions;

/// Most events kept for a watch that nobody reads.
const EVENTS: usize = 10_000;

/// Answers and events for one waiting thread. The engine's threads fill it; they never block on it for long.
#[derive(Default)]
pub struct Mailbox {
    state: Mutex<Mail>,
    filled: Condvar,
}

#[derive(Default)]
struct Mail {
    letters: VecDeque<Box<[u8]>>,
    lost: bool,
    closed: bool,
}

/// What a mailbox gave.
pub enum Letter {
    /// One reply item.
    Item(Box<[u8]>),
    /// Events were dropped: nobody read them in time.
    Lost,
    /// Nothing comes any more.
    Closed,
}

impl Mailbox {
    /// The next letter, waiting for it at most so long.
    pub fn next(&self, patience: Duration) -> Option<Letter> {
        let mut mail = self.lock();
        if mail.letters.is_empty() && !mail.lost && !mail.closed {
            mail = self.filled.wait_timeout(mail, patience).unwrap_or_else(PoisonError::into_inner).0;
        }
        if mail.closed {
            return Some(Letter::Closed);
        }
        if std::mem::take(&mut mail.lost) {
            return Some(Letter::Lost);
        }
        mail.letters.pop_front().map(Letter::Item)
    }

    /// Ends it: whoever waits, and whoever comes, is told.
    pub fn close(&self) {
        self.lock().closed = true;
        self.filled.notify_all();
    }

    fn put(&self, letter: &[u8]) {
        let mut mail = self.lock();
        if mail.letters.len() >= EVENTS {
            mail.letters.clear();
            mail.lost = true;
        } else {
            mail.letters.push_back(letter.into());
        }
        drop(mail);
        self.filled.notify_one();
    }

    fn lock(&self) -> MutexGuard<'_, Mail> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Completions for Mailbox {
    fn complete(&self, _token: u64, reply: &[u8]) {
        self.put(reply);
    }

    fn event(&self, _watch: u64, event: &[u8]) {
        self.put(event);
    }
}
