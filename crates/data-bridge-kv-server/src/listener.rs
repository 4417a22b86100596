//! Sockets: binding, accepting, and who is let in.

mod unix;

use std::future::poll_fn;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use socket2::{Domain, Protocol, SockRef, Socket, TcpKeepalive, Type};
use tokio::io::AsyncWriteExt;
use tokio::net::{TcpListener, UnixListener};
use tokio::sync::watch;

use crate::config::Config;
use crate::connection;
use crate::endpoint::Endpoint;
use crate::server::Shared;
use crate::stream::Stream;
use unix::SocketFile;

/// Connections that may wait to be accepted.
const BACKLOG: i32 = 1024;
/// First pause after accepting failed (no file descriptors, say); doubled up to [`LONGEST_PAUSE`].
const FIRST_PAUSE: Duration = Duration::from_millis(10);
const LONGEST_PAUSE: Duration = Duration::from_secs(1);
/// A silent connection is probed after this long, so that dead ones are noticed.
const KEEPALIVE: Duration = Duration::from_secs(60);

/// Where connections come in.
#[derive(Debug)]
pub enum Listener {
    /// Over TCP.
    Tcp(TcpListener),
    /// Over a Unix socket with its file.
    Unix(UnixListener, SocketFile),
}

impl Listener {
    /// Binds an endpoint. Must run inside a tokio runtime.
    pub fn bind(endpoint: &Endpoint) -> io::Result<Listener> {
        match endpoint {
            Endpoint::Tcp(address) => bind_tcp(*address).map(Listener::Tcp),
            Endpoint::Unix(path) => unix::bind(path).map(|(listener, file)| Listener::Unix(listener, file)),
        }
    }

    /// What it is bound to.
    pub fn endpoint(&self) -> Endpoint {
        match self {
            Listener::Tcp(listener) => {
                let unknown = SocketAddr::from(([0, 0, 0, 0], 0));
                Endpoint::Tcp(listener.local_addr().unwrap_or(unknown))
            }
            Listener::Unix(_, file) => Endpoint::Unix(file.path().to_owned()),
        }
    }

    /// The next connection.
    pub fn poll_accept(&self, context: &mut Context<'_>) -> Poll<io::Result<Newcomer>> {
        let (stream, address, local) = match self {
            Listener::Tcp(listener) => {
                let (stream, address) = ready!(listener.poll_accept(context))?;
                let keepalive = TcpKeepalive::new().with_time(KEEPALIVE).with_interval(KEEPALIVE / 3);
                // A socket without these options serves as well.
                let _ = SockRef::from(&stream).set_tcp_keepalive(&keepalive);
                let _ = stream.set_nodelay(true);
                let local = stream.local_addr().unwrap_or(address);
                (Stream::Tcp(stream), Endpoint::Tcp(address), Endpoint::Tcp(local))
            }
            Listener::Unix(listener, _) => {
                let (stream, _) = ready!(listener.poll_accept(context))?;
                (Stream::Unix(stream), self.endpoint(), self.endpoint())
            }
        };
        Poll::Ready(Ok(Newcomer { stream, address, local, unread: Vec::new() }))
    }
}

/// A connection that nobody serves yet.
pub struct Newcomer {
    /// Its bytes.
    pub stream: Stream,
    /// Its other end.
    pub address: Endpoint,
    /// Ours.
    pub local: Endpoint,
    /// What was read from it and not answered.
    pub unread: Vec<u8>,
}

/// The sockets of a configuration, bound.
pub struct Ports {
    /// For clients.
    pub listeners: Vec<Listener>,
    /// The admin port.
    pub admin: Option<TcpListener>,
    /// The default address that is not served, and why.
    pub left_out: Option<String>,
}

impl Ports {
    /// Binds them all, or answers which one can't be had. Must run inside a tokio runtime.
    pub fn bind(config: &Config) -> Result<Ports, (Endpoint, io::Error)> {
        let (mut listeners, mut left_out) = (Vec::new(), None);
        for endpoint in &config.listen {
            match Listener::bind(endpoint) {
                Ok(listener) => listeners.push(listener),
                Err(error) if config.listen_is_default && has_no_ipv6(endpoint, &error) => {
                    left_out = Some(format!("not on {endpoint}, since this machine has no IPv6 loopback"));
                }
                Err(error) => return Err((endpoint.clone(), error)),
            }
        }
        let admin = config.admin.map(|address| bind_tcp(address).map_err(|error| (address.into(), error)));
        Ok(Ports { listeners, admin: admin.transpose()?, left_out })
    }
}

/// Whether binding failed because the machine has no such IPv6 address, or no IPv6 at all.
fn has_no_ipv6(endpoint: &Endpoint, error: &io::Error) -> bool {
    endpoint.ip().is_ipv6() && error.kind() != io::ErrorKind::AddrInUse
}

/// Binds an address of TCP. Must run inside a tokio runtime.
fn bind_tcp(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    socket.set_reuse_address(true)?;
    if address.is_ipv6() {
        socket.set_only_v6(true)?;
    }
    socket.set_nonblocking(true)?;
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    TcpListener::from_std(socket.into())
}

/// Accepts connections until told not to. An error never ends it: it waits, longer each time, and goes on.
pub async fn accept(listener: Listener, shared: Arc<Shared>, mut accepts: watch::Receiver<bool>) {
    let mut pause = FIRST_PAUSE;
    loop {
        let accepted = tokio::select! {
            accepted = poll_fn(|context| listener.poll_accept(context)) => accepted,
            _ = accepts.wait_for(|accepting| !accepting) => return,
        };
        match accepted {
            Ok(newcomer) => {
                pause = FIRST_PAUSE;
                welcome(newcomer, &shared);
            }
            Err(error) => {
                tracing::warn!(%error, pause_ms = pause.as_millis(), "accepting failed");
                tokio::time::sleep(pause).await;
                pause = (pause * 2).min(LONGEST_PAUSE);
            }
        }
    }
}

/// Serves a connection from now on, or says why not and ends it.
pub fn welcome(newcomer: Newcomer, shared: &Arc<Shared>) {
    let Newcomer { stream, address, local, unread } = newcomer;
    let open = !shared.gate.is_closed();
    match shared.clients.admit(address, local, open, shared.seconds()) {
        Ok(client) => {
            tokio::spawn(connection::serve(stream, unread, Arc::clone(shared), client));
        }
        Err(refusal) => {
            let line = format!("-ERR {}\r\n", refusal.message());
            tokio::spawn(async move {
                let mut stream = stream;
                let farewell = async {
                    stream.write_all(line.as_bytes()).await?;
                    stream.shutdown().await
                };
                // Who does not read it gets nothing.
                let _ = tokio::time::timeout(Duration::from_secs(1), farewell).await;
            });
        }
    }
}
