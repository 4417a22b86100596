//! Sockets: binding, accepting, and who is let in.

mod unix;

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use socket2::{Domain, Protocol, SockRef, Socket, TcpKeepalive, Type};
use tokio::io::AsyncWriteExt;
use tokio::net::{TcpListener, UnixListener};
use tokio::sync::watch;

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

    /// The next connection, its other end and ours.
    async fn accept(&self) -> io::Result<(Stream, Endpoint, Endpoint)> {
        match self {
            Listener::Tcp(listener) => {
                let (stream, address) = listener.accept().await?;
                let keepalive = TcpKeepalive::new().with_time(KEEPALIVE).with_interval(KEEPALIVE / 3);
                // A socket without these options serves as well.
                let _ = SockRef::from(&stream).set_tcp_keepalive(&keepalive);
                let _ = stream.set_nodelay(true);
                let local = stream.local_addr().unwrap_or(address);
                Ok((Stream::Tcp(stream), Endpoint::Tcp(address), Endpoint::Tcp(local)))
            }
            Listener::Unix(listener, _) => {
                let (stream, _) = listener.accept().await?;
                Ok((Stream::Unix(stream), self.endpoint(), self.endpoint()))
            }
        }
    }
}

/// Binds an address of TCP. Must run inside a tokio runtime.
pub fn bind_tcp(address: SocketAddr) -> io::Result<TcpListener> {
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
            accepted = listener.accept() => accepted,
            _ = accepts.wait_for(|accepting| !accepting) => return,
        };
        match accepted {
            Ok((stream, address, local)) => {
                pause = FIRST_PAUSE;
                welcome(stream, address, local, &shared);
            }
            Err(error) => {
                tracing::warn!(%error, pause_ms = pause.as_millis(), "accepting failed");
                tokio::time::sleep(pause).await;
                pause = (pause * 2).min(LONGEST_PAUSE);
            }
        }
    }
}

fn welcome(stream: Stream, address: Endpoint, local: Endpoint, shared: &Arc<Shared>) {
    let open = !shared.gate.is_closed();
    match shared.clients.admit(address, local, open, shared.seconds()) {
        Ok(client) => {
            tokio::spawn(connection::serve(stream, Arc::clone(shared), client));
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
