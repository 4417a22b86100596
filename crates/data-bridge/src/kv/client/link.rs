//! One connection of a synchronous client: a blocking socket of ours, or Python's own where gevent or eventlet
//! replaced it, so that a wait switches to other tasks there.

use std::io::{self, ErrorKind as IoKind, Read, Write};
use std::net::{Shutdown, TcpStream, ToSocketAddrs};
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use data_bridge_kv_client::core::{Responses, put_greeting};
use data_bridge_kv_model::Error;
use pyo3::exceptions::{PyBlockingIOError, PyOSError, PyTimeoutError};
use pyo3::prelude::*;
use pyo3::types::PyBytes;
use socket2::{Domain, SockAddr, Socket, TcpKeepalive, Type};

use super::super::convert::Decoder;
use super::super::{doorway, errors};

/// Room that a read asks for.
const READ_BYTES: usize = 16 << 10;
/// `SHUT_RDWR` of every system.
const BOTH_WAYS: i32 = 2;
/// `MSG_PEEK` of every system.
const PEEK: i32 = 2;
/// `EALREADY` and `EINPROGRESS`: a connection is not made yet.
const UNDER_WAY: [i32; 2] = [114, 115];

/// After how many seconds a silent connection is asked whether its other end is alive, how often then, and how many times;
/// the same as in `_remote.py`, for Python's sockets.
const KEEPALIVE: (u64, u64, u32) = (30, 10, 3);

/// Where and how to connect.
#[derive(Clone, Debug)]
pub struct Address {
    /// What to connect to.
    pub target: Target,
    /// Namespace by name or number; None = 0.
    pub namespace: Option<String>,
    /// Password, if one is wanted.
    pub password: Option<String>,
    /// Longest time to connect.
    pub connect_timeout: Duration,
    /// Whether the socket is Python's.
    pub cooperative: bool,
}

/// The other end: a pair or a text in Python.
#[derive(Clone, Debug, FromPyObject)]
pub enum Target {
    /// Name or address of a host, and a port.
    Tcp(String, u16),
    /// The path of a Unix socket.
    Unix(String),
}

impl std::fmt::Display for Target {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Target::Tcp(host, port) if host.contains(':') => write!(f, "kv://[{host}]:{port}"),
            Target::Tcp(host, port) => write!(f, "kv://{host}:{port}"),
            Target::Unix(path) => write!(f, "unix://{path}"),
        }
    }
}

/// Why a connection is of no use any more.
#[derive(Debug)]
pub enum Lost {
    /// The socket failed, or the other side closed it.
    Socket(io::Error),
    /// The other side does not speak our protocol.
    Protocol(Error),
    /// The time was over.
    Late,
    /// A signal handler, or Python's socket, raised.
    Raised(PyErr),
}

enum Transport {
    Native(Arc<TcpStream>),
    Python(Py<PyAny>),
}

/// The socket of a connection, for whoever ends what somebody else waits for on it.
pub enum Handle {
    /// Ours.
    Native(Weak<TcpStream>),
    /// Python's.
    Python(Py<PyAny>),
}

impl Handle {
    /// Ends the connection, so that whoever waits goes on at once. Not for a forked child: the connection is its parent's too.
    pub fn shut(&self, py: Python<'_>) {
        match self {
            Handle::Native(socket) => drop(socket.upgrade().map(|socket| socket.shutdown(Shutdown::Both))),
            // One that is closed already can't be shut down.
            Handle::Python(socket) => drop(socket.call_method1(py, "shutdown", (BOTH_WAYS,))),
        }
    }
}

/// A connection that was greeted.
pub struct Link {
    transport: Transport,
    /// What came in.
    pub responses: Responses,
    /// When it was used last.
    pub used: Instant,
    /// What its pool knows it by while it is in use.
    pub number: u64,
}

impl Link {
    /// Connects, authenticates and chooses the namespace.
    pub fn connect(py: Python<'_>, address: &Address) -> PyResult<Link> {
        let deadline = Instant::now().checked_add(address.connect_timeout);
        let transport = if address.cooperative {
            let socket = open_python(py, address);
            Transport::Python(socket.map_err(|error| not_open(py, address, error))?.unbind())
        } else {
            Transport::Native(Arc::new(open(py, address)?))
        };
        let mut link = Link { transport, responses: Responses::new(), used: Instant::now(), number: 0 };
        let mut greeting = Vec::new();
        let answers = put_greeting(address.password.as_deref(), address.namespace.as_deref(), &mut greeting);
        let (mut left, mut refused) = (answers, None);
        let greeted = link.exchange(py, &greeting, deadline, |responses| {
            while left > 0 {
                let Some(response) = responses.cut()? else { return Ok(false) };
                if is_error(response.item) {
                    refused = Some(Vec::from(response.item));
                    return Ok(true);
                }
                left -= 1;
            }
            // Without a password or namespace nothing is answered but the preface, with the first response.
            responses.is_whole().map(|_| true)
        });
        greeted.map_err(|lost| match lost {
            Lost::Raised(error) => error,
            Lost::Protocol(error) => cannot_connect(py, address, &error),
            Lost::Socket(error) => cannot_connect(py, address, &error),
            Lost::Late => cannot_connect(py, address, &"the server did not answer in time"),
        })?;
        match refused {
            Some(item) => Decoder::new(py, &item, None, None).reply().map(|_| link),
            None => Ok(link),
        }
    }

    /// Sends bytes and reads until `done` says so. `done` runs without the interpreter lock.
    pub fn exchange(
        &mut self,
        py: Python<'_>,
        request: &[u8],
        deadline: Option<Instant>,
        mut done: impl FnMut(&mut Responses) -> Result<bool, Error> + Send,
    ) -> Result<(), Lost> {
        let Link { transport, responses, used, .. } = self;
        let socket = match transport {
            Transport::Native(socket) => socket,
            Transport::Python(socket) => {
                return cooperative(socket.bind(py), responses, request, deadline, done);
            }
        };
        let mut sent = 0;
        let polled = doorway::wait(py, deadline, |patience| {
            poll(socket, responses, request, &mut sent, patience, &mut done).transpose()
        });
        *used = Instant::now();
        match polled {
            Ok(Some(result)) => result,
            Ok(None) => Err(Lost::Late),
            Err(error) => Err(Lost::Raised(error)),
        }
    }

    /// Its socket, for others.
    pub fn handle(&self, py: Python<'_>) -> Handle {
        match &self.transport {
            Transport::Native(socket) => Handle::Native(Arc::downgrade(socket)),
            Transport::Python(socket) => Handle::Python(socket.clone_ref(py)),
        }
    }

    /// Whether the other side has closed an idle connection. Costs three system calls.
    pub fn is_closed(&self, py: Python<'_>) -> bool {
        let socket = match &self.transport {
            Transport::Native(socket) => socket,
            Transport::Python(socket) => return is_closed_there(socket.bind(py)),
        };
        let peeked = socket.set_nonblocking(true).and_then(|()| socket.peek(&mut [0]));
        let waits = matches!(&peeked, Err(error) if error.kind() == IoKind::WouldBlock);
        socket.set_nonblocking(false).is_err() || !waits
    }
}

/// Closes Python's socket at once: the traceback of what ended a wait may hold it for long.
impl Drop for Link {
    fn drop(&mut self) {
        if let Transport::Python(socket) = &self.transport {
            // Without an interpreter the process is ending; a socket that can't be closed is none.
            Python::try_attach(|py| drop(socket.call_method0(py, "close")));
        }
    }
}

/// The same for Python's socket, which has the time to wait set anew before each use.
fn is_closed_there(socket: &Bound<'_, PyAny>) -> bool {
    let peeked = socket.call_method1("settimeout", (0,)).and_then(|_| socket.call_method1("recv", (1, PEEK)));
    !peeked.is_err_and(|error| error.is_instance_of::<PyBlockingIOError>(socket.py()))
}

fn open(py: Python<'_>, address: &Address) -> PyResult<TcpStream> {
    let cannot = |error: io::Error| cannot_connect(py, address, &error);
    let places = match &address.target {
        Target::Tcp(host, port) => doorway::outside(py, || (host.as_str(), *port).to_socket_addrs())
            .map(|places| places.map(SockAddr::from).collect()),
        Target::Unix(path) => SockAddr::unix(path).map(|place| vec![place]),
    };
    let mut failure = io::Error::new(IoKind::NotFound, "the host name has no address");
    for place in places.map_err(cannot)? {
        match open_at(py, &place, address.connect_timeout)? {
            Ok(socket) => return Ok(socket),
            Err(error) => failure = error,
        }
    }
    Err(cannot(failure))
}

/// Connects in slices: a blocking socket waits for a connection as long as for a write, and asked again it goes on
/// waiting.
fn open_at(py: Python<'_>, place: &SockAddr, timeout: Duration) -> PyResult<io::Result<TcpStream>> {
    let deadline = Instant::now().checked_add(timeout);
    let socket = match prepared(place) {
        Ok(socket) => socket,
        Err(error) => return Ok(Err(error)),
    };
    let connected = doorway::wait(py, deadline, |patience| {
        let least = patience.max(Duration::from_millis(1));
        match socket.set_write_timeout(Some(least)).and_then(|()| socket.connect(place)) {
            Err(error) if is_pause(&error) || is_under_way(&error) => None,
            done => Some(done),
        }
    })?;
    let connected =
        connected.unwrap_or_else(|| Err(io::Error::new(IoKind::TimedOut, "connection timed out")));
    Ok(connected.and_then(|()| socket.set_write_timeout(Some(doorway::SLICE))).map(|()| socket.into()))
}

fn prepared(place: &SockAddr) -> io::Result<Socket> {
    // A stream socket is read and written alike, whatever its family.
    let socket = Socket::new(place.domain(), Type::STREAM, None)?;
    socket.set_read_timeout(Some(doorway::SLICE))?;
    if place.domain() != Domain::UNIX {
        socket.set_tcp_nodelay(true)?;
        let [after, again] = [KEEPALIVE.0, KEEPALIVE.1].map(Duration::from_secs);
        let keepalive = TcpKeepalive::new().with_time(after).with_interval(again).with_retries(KEEPALIVE.2);
        socket.set_tcp_keepalive(&keepalive)?;
    }
    Ok(socket)
}

/// What Python's socket raised on the way: what it could not do, or what ended the task that waited for it.
fn not_open(py: Python<'_>, address: &Address, error: PyErr) -> PyErr {
    if error.is_instance_of::<PyOSError>(py) { cannot_connect(py, address, &error.value(py)) } else { error }
}

fn open_python<'py>(py: Python<'py>, address: &Address) -> PyResult<Bound<'py, PyAny>> {
    let (module, timeout) = (py.import("socket")?, address.connect_timeout.as_secs_f64());
    match &address.target {
        Target::Tcp(host, port) => {
            let socket = module.call_method1("create_connection", ((host.as_str(), *port), timeout))?;
            py.import("data_bridge.kv._remote")?.call_method1("keep_alive", (&socket,))?;
            Ok(socket)
        }
        Target::Unix(path) => {
            let socket = module.call_method1("socket", (module.getattr("AF_UNIX")?,))?;
            socket.call_method1("settimeout", (timeout,))?;
            socket.call_method1("connect", (path.as_str(),))?;
            Ok(socket)
        }
    }
}

/// One slice of an exchange: `Ok(None)` when the socket had nothing to do for that long.
fn poll(
    mut socket: &TcpStream,
    responses: &mut Responses,
    request: &[u8],
    sent: &mut usize,
    patience: Duration,
    done: &mut impl FnMut(&mut Responses) -> Result<bool, Error>,
) -> Result<Option<()>, Lost> {
    let short = patience < doorway::SLICE;
    if short {
        let least = patience.max(Duration::from_millis(1));
        socket.set_read_timeout(Some(least)).map_err(Lost::Socket)?;
    }
    let outcome = loop {
        let rest = request.get(*sent..).unwrap_or_default();
        if !rest.is_empty() {
            match socket.write(rest) {
                Ok(count) => *sent += count,
                Err(error) if is_pause(&error) => {}
                Err(error) => break Err(Lost::Socket(error)),
            }
            if *sent < request.len() {
                // The other side may be waiting for us to read.
                break Ok(None);
            }
            continue;
        }
        match done(responses) {
            Ok(true) => break Ok(Some(())),
            Ok(false) => {}
            Err(error) => break Err(Lost::Protocol(error)),
        }
        match socket.read(responses.room(READ_BYTES)) {
            Ok(0) => break Err(Lost::Socket(closed())),
            Ok(count) => responses.filled(count),
            Err(error) if is_pause(&error) => break Ok(None),
            Err(error) => break Err(Lost::Socket(error)),
        }
    };
    if short {
        socket.set_read_timeout(Some(doorway::SLICE)).map_err(Lost::Socket)?;
    }
    outcome
}

/// The same over Python's socket, which lets other tasks run while it waits.
fn cooperative(
    socket: &Bound<'_, PyAny>,
    responses: &mut Responses,
    request: &[u8],
    deadline: Option<Instant>,
    mut done: impl FnMut(&mut Responses) -> Result<bool, Error>,
) -> Result<(), Lost> {
    let py = socket.py();
    let limit = || -> Result<(), Lost> {
        let left = deadline.map(|deadline| deadline.saturating_duration_since(Instant::now()).as_secs_f64());
        if left == Some(0.0) {
            return Err(Lost::Late);
        }
        socket.call_method1("settimeout", (left,)).map(drop).map_err(Lost::Raised)
    };
    let failed = |error: PyErr| {
        if error.is_instance_of::<PyTimeoutError>(py) {
            Lost::Late
        } else if error.is_instance_of::<PyOSError>(py) {
            Lost::Socket(io::Error::other(error.to_string()))
        } else {
            Lost::Raised(error)
        }
    };
    limit()?;
    socket.call_method1("sendall", (PyBytes::new(py, request),)).map_err(failed)?;
    while !done(responses).map_err(Lost::Protocol)? {
        limit()?;
        let bytes = socket.call_method1("recv", (READ_BYTES,)).map_err(failed)?;
        let bytes = bytes.cast_into::<PyBytes>().map_err(|error| Lost::Raised(error.into()))?;
        if bytes.as_bytes().is_empty() {
            return Err(Lost::Socket(closed()));
        }
        responses.feed(bytes.as_bytes());
    }
    Ok(())
}

fn is_pause(error: &io::Error) -> bool {
    matches!(error.kind(), IoKind::WouldBlock | IoKind::TimedOut | IoKind::Interrupted)
}

fn is_under_way(error: &io::Error) -> bool {
    error.raw_os_error().is_some_and(|code| UNDER_WAY.contains(&code))
}

fn closed() -> io::Error {
    io::Error::new(IoKind::ConnectionReset, "the server closed the connection")
}

fn is_error(item: &[u8]) -> bool {
    matches!(data_bridge_kv_model::ReplyReader::new(item).item(), Ok(data_bridge_kv_model::Item::Error(_)))
}

#[cold]
fn cannot_connect(py: Python<'_>, address: &Address, why: &dyn std::fmt::Display) -> PyErr {
    let message = format!("can't connect to {}: {why}", address.target);
    errors::named(py, "ConnectionError", &message)
}
