//! The connections of a synchronous client. They are handed out one to a call and come back afterwards.
//!
//! Everything is touched under the interpreter lock and never held across its release, so that a fork cannot happen
//! in the middle: a forked child finds a consistent pool, closes its copies of the sockets and starts anew.
//!
//! Whoever finds none free waits in a line. Threads that only call go before it, since a connection that changes threads
//! costs a switch between them, until the first in the line has waited for [`PATIENCE`].

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::{Duration, Instant};

use pyo3::prelude::*;

use super::super::lifetime::Generation;
use super::super::{doorway, errors};
use super::link::{Address, Handle, Link};

/// Idle connections and how many there are in all.
#[pyclass(module = "data_bridge._native")]
pub struct Pool {
    idle: Vec<Link>,
    open: usize,
    most: usize,
    patience: Duration,
    generation: Generation,
    /// Who waits for a connection, the first one first.
    waiting: VecDeque<Arc<Waiter>>,
    closed: bool,
    /// What is in use, by number, where that may be for long: it ends with the pool.
    busy: Option<HashMap<u64, Handle>>,
    /// The last number.
    last: u64,
}

/// How long others may go before whoever waits.
const PATIENCE: Duration = Duration::from_millis(5);

/// Where one thread waits for a connection to come back.
struct Waiter {
    since: Instant,
    called: Mutex<bool>,
    changed: Condvar,
}

impl Waiter {
    fn new() -> Arc<Waiter> {
        Arc::new(Waiter { since: Instant::now(), called: Mutex::default(), changed: Condvar::new() })
    }

    fn call(&self) {
        *self.called.lock().unwrap_or_else(PoisonError::into_inner) = true;
        self.changed.notify_one();
    }

    /// Waits to be called, at most so long; whether it was.
    fn wait(&self, patience: Duration) -> Option<()> {
        let called = self.called.lock().unwrap_or_else(PoisonError::into_inner);
        let waited = self.changed.wait_timeout_while(called, patience, |called| !*called);
        std::mem::take(&mut *waited.unwrap_or_else(PoisonError::into_inner).0).then_some(())
    }
}

/// What a caller may have.
enum Turn {
    Idle(Link),
    New,
}

impl Pool {
    /// At most `most` connections; a caller waits for one at most `patience`.
    pub fn new(most: usize, patience: Duration) -> Pool {
        Pool {
            idle: Vec::new(),
            open: 0,
            most,
            patience,
            generation: Generation::current(),
            waiting: VecDeque::new(),
            closed: false,
            busy: None,
            last: 0,
        }
    }

    /// The same for calls that may take for ever: any number, and they end with the pool.
    pub fn of_waits() -> Pool {
        Pool { busy: Some(HashMap::new()), ..Pool::new(usize::MAX, Duration::ZERO) }
    }

    /// A connection for one call; a new one if none is idle and there may be more.
    pub fn take(this: &Py<Pool>, py: Python<'_>, address: &Address) -> PyResult<Link> {
        let turn = this.borrow_mut(py).turn(py, None)?;
        let turn = match turn {
            Some(turn) => turn,
            None => Pool::wait_in_line(this, py, address)?,
        };
        let link = match turn {
            Turn::Idle(link) => return Ok(link),
            Turn::New => Link::connect(py, address),
        };
        let lent = link.and_then(|link| this.borrow_mut(py).lend(py, link));
        if lent.is_err() {
            Pool::gone(this, py, 0);
        }
        lent
    }

    fn wait_in_line(this: &Py<Pool>, py: Python<'_>, address: &Address) -> PyResult<Turn> {
        let me = Waiter::new();
        let patience = {
            let mut pool = this.borrow_mut(py);
            pool.waiting.push_back(Arc::clone(&me));
            pool.patience
        };
        let turn = Pool::wait_for_turn(this, py, address, &me, me.since.checked_add(patience));
        let mut pool = this.borrow_mut(py);
        pool.waiting.retain(|other| !Arc::ptr_eq(other, &me));
        pool.call();
        turn
    }

    fn wait_for_turn(
        this: &Py<Pool>,
        py: Python<'_>,
        address: &Address,
        me: &Arc<Waiter>,
        deadline: Option<Instant>,
    ) -> PyResult<Turn> {
        loop {
            if deadline.is_some_and(|deadline| Instant::now() >= deadline) {
                let message =
                    "every connection of the pool is busy: raise max_connections, or use fewer threads";
                return Err(errors::named(py, "TimeoutError", message));
            }
            if address.cooperative {
                doorway::yield_once(py)?;
            } else {
                doorway::wait(py, deadline, |patience| me.wait(patience))?;
            }
            if let Some(turn) = this.borrow_mut(py).turn(py, Some(me))? {
                return Ok(turn);
            }
        }
    }

    /// What a caller may have now: one who is in the line, or one who only comes.
    fn turn(&mut self, py: Python<'_>, who: Option<&Arc<Waiter>>) -> PyResult<Option<Turn>> {
        self.check(py)?;
        let before = match (who, self.waiting.front()) {
            (Some(me), _) => self.waiting.iter().take_while(|other| !Arc::ptr_eq(other, me)).count(),
            (None, Some(first)) if first.since.elapsed() > PATIENCE => self.waiting.len(),
            (None, _) => 0,
        };
        if before >= self.free() {
            return Ok(None);
        }
        if let Some(link) = self.idle.pop() {
            return self.lend(py, link).map(|link| Some(Turn::Idle(link)));
        }
        self.open += 1;
        Ok(Some(Turn::New))
    }

    /// How many callers can be served.
    fn free(&self) -> usize {
        self.idle.len().saturating_add(self.most.saturating_sub(self.open))
    }

    /// Tells those in the line who can be served.
    fn call(&self) {
        self.waiting.iter().take(self.free()).for_each(|waiter| waiter.call());
    }

    /// A connection that one caller keeps and nobody gives back: it ends with the pool, or is `gone`.
    pub fn admit(&mut self, py: Python<'_>, link: Link) -> PyResult<Link> {
        self.open += 1;
        self.lend(py, link)
    }

    fn lend(&mut self, py: Python<'_>, mut link: Link) -> PyResult<Link> {
        self.check(py)?;
        if let Some(busy) = &mut self.busy {
            self.last += 1;
            link.number = self.last;
            busy.insert(link.number, link.handle(py));
        }
        Ok(link)
    }

    /// A connection comes back.
    pub fn give(this: &Py<Pool>, py: Python<'_>, link: Link) {
        let mut pool = this.borrow_mut(py);
        let handle = pool.returned(link.number);
        if pool.closed {
            pool.open = pool.open.saturating_sub(1);
        } else {
            pool.idle.push(link);
        }
        pool.call();
        drop((pool, handle));
    }

    /// The connection with this number is of no use any more.
    pub fn gone(this: &Py<Pool>, py: Python<'_>, number: u64) {
        Pool::leave(this.borrow_mut(py), number);
    }

    /// The same from where objects are freed, which may be in the middle of anything: then its handle stays until the end.
    pub fn dropped(this: &Py<Pool>, py: Python<'_>, number: u64) {
        if let Ok(pool) = this.try_borrow_mut(py) {
            Pool::leave(pool, number);
        }
    }

    fn leave(mut pool: PyRefMut<'_, Pool>, number: u64) {
        let handle = pool.returned(number);
        pool.open = pool.open.saturating_sub(1);
        pool.call();
        drop((pool, handle));
    }

    fn returned(&mut self, number: u64) -> Option<Handle> {
        self.busy.as_mut()?.remove(&number)
    }

    /// A connection broke: idle ones may have with it, and are not to be met one by one.
    pub fn look_through(this: &Py<Pool>, py: Python<'_>) {
        // Python code may run meanwhile: the pool is not borrowed.
        let idle = std::mem::take(&mut this.borrow_mut(py).idle);
        let (closed, open): (Vec<Link>, Vec<Link>) = idle.into_iter().partition(|link| link.is_closed(py));
        let mut pool = this.borrow_mut(py);
        pool.open = pool.open.saturating_sub(closed.len());
        if pool.closed {
            pool.open = pool.open.saturating_sub(open.len());
        } else {
            pool.idle.extend(open);
        }
        pool.call();
    }

    /// Closes idle connections, those in use when they come back, and those of waits at once.
    pub fn close(this: &Py<Pool>, py: Python<'_>) {
        let mut pool = this.borrow_mut(py);
        pool.closed = true;
        pool.open = pool.open.saturating_sub(pool.idle.len());
        let idle = std::mem::take(&mut pool.idle);
        pool.waiting.iter().for_each(|waiter| waiter.call());
        let busy = pool.busy.as_mut().map(std::mem::take).filter(|_| pool.generation.is_current());
        drop((pool, idle));
        busy.into_iter().flat_map(HashMap::into_values).for_each(|handle| handle.shut(py));
    }

    /// How many connections there are and how many of them are idle.
    pub fn counts(&self) -> (usize, usize) {
        (self.open, self.idle.len())
    }

    /// Refuses whatever is asked for of a client that was closed; a forked child begins anew.
    pub fn check(&mut self, py: Python<'_>) -> PyResult<()> {
        if !self.generation.is_current() {
            self.generation = Generation::current();
            self.open = 0;
            self.idle.clear();
            self.waiting.clear();
            self.busy = self.busy.take().map(|_| HashMap::new());
        }
        if self.closed {
            return Err(errors::named(py, "ClosedError", "the client is closed"));
        }
        Ok(())
    }
}
