//! What clients and probes are told while the data is being loaded, and that their connections go on afterwards.

mod served;

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::mpsc::{Sender, channel};
use std::time::{Duration, Instant};

use data_bridge_kv::{Engine, Settings};
use data_bridge_kv_model::frame::PREFACE;
use data_bridge_kv_model::{Error, ErrorKind};
use data_bridge_kv_server::Server;
use data_bridge_kv_server::server::StartError;
use served::{Raw, config, http, within};
use socket2::{Domain, Socket, Type};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::task::JoinHandle;

/// A port that nobody else gets while this lives, although the server may bind it.
struct Reserved(Socket);

impl Reserved {
    fn new() -> Reserved {
        let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
        socket.set_reuse_address(true).unwrap();
        socket.bind(&SocketAddr::from(([127, 0, 0, 1], 0)).into()).unwrap();
        Reserved(socket)
    }

    fn address(&self) -> SocketAddr {
        self.0.local_addr().unwrap().as_socket().unwrap()
    }

    /// Connects as soon as the server is there.
    async fn connect(&self) -> TcpStream {
        let connected = async {
            loop {
                match TcpStream::connect(self.address()).await {
                    Ok(stream) => return stream,
                    Err(_) => tokio::task::yield_now().await,
                }
            }
        };
        within(connected).await
    }
}

/// A server whose engine is opened when the test says with what outcome.
struct Loading {
    clients: Reserved,
    admin: Reserved,
    outcome: Sender<Result<(), Error>>,
    server: JoinHandle<Result<Server, StartError>>,
}

impl Loading {
    async fn begin() -> Loading {
        let (clients, admin) = (Reserved::new(), Reserved::new());
        let mut config = config(&[], &[]);
        config.listen = vec![clients.address().into()];
        config.admin = Some(admin.address());
        let (outcome, told) = channel::<Result<(), Error>>();
        let open = move || {
            told.recv().unwrap()?;
            Engine::open(Settings::default())
        };
        let server = tokio::spawn(async move { Server::load(config, Arc::default(), open).await });
        let loading = Loading { clients, admin, outcome, server };
        // The admin port is bound last.
        loading.admin.connect().await;
        loading
    }

    async fn finish(self) -> Server {
        self.outcome.send(Ok(())).unwrap();
        within(self.server).await.unwrap().unwrap()
    }
}

const TOLD: &str = "-LOADING the store is loading its data (beginning: 0 %), try again\r\n";

#[tokio::test]
async fn clients_are_told_and_go_on_afterwards() {
    let loading = Loading::begin().await;
    let address = loading.clients.address();
    let mut client = Raw::connect(address).await;
    assert_eq!(client.ask("GET k").await, TOLD);
    // Empty lines ask for nothing; each request has its answer.
    client.send(b"\r\n*1\r\n$4\r\nPING\r\n*2\r\n$3\r\nGET\r\n$1\r\nk\r\n").await;
    client.expect(TOLD).await;
    client.expect(TOLD).await;
    // What is not whole yet, or not RESP, is the store's.
    client.send(b"*1\r\n$4\r\nPI").await;
    let mut native = loading.clients.connect().await;
    native.write_all(&PREFACE).await.unwrap();
    let mut wrong = Raw::connect(address).await;
    wrong.send(b"*x\r\n").await;
    // Its answer comes behind everything that was read before, from one connection or another.
    assert_eq!(Raw::connect(address).await.ask("PING").await, TOLD);

    let server = loading.finish().await;
    client.send(b"NG\r\n").await;
    client.expect("+PONG\r\n").await;
    assert_eq!(client.ask("SET k v").await, "+OK\r\n");
    let mut answer = [0; PREFACE.len()];
    within(native.read_exact(&mut answer)).await.unwrap();
    assert_eq!(answer, PREFACE);
    assert_eq!(wrong.until_closed().await, "-ERR Protocol error: invalid multibulk length\r\n");
    assert_eq!(Raw::connect(server.addresses()[0]).await.ask("GET k").await, "$1\r\nv\r\n");
    server.stop(Duration::from_secs(5)).await;
}

#[tokio::test]
async fn too_much_input_waits_for_the_store() {
    let loading = Loading::begin().await;
    let mut client = loading.clients.connect().await;
    let value = "v".repeat(1 << 20);
    let set = format!("*3\r\n$3\r\nSET\r\n$1\r\nk\r\n${}\r\n{value}\r\n", value.len());
    let sending = tokio::spawn(async move {
        client.write_all(set.as_bytes()).await.unwrap();
        let mut answer = [0; 5];
        client.read_exact(&mut answer).await.unwrap();
        answer
    });
    assert_eq!(Raw::connect(loading.clients.address()).await.ask("PING").await, TOLD);
    let server = loading.finish().await;
    assert_eq!(&within(sending).await.unwrap(), b"+OK\r\n");
    assert_eq!(Raw::connect(server.addresses()[0]).await.ask("STRLEN k").await, ":1048576\r\n");
}

#[tokio::test]
async fn probes_tell_how_far_it_is() {
    let loading = Loading::begin().await;
    let admin = loading.admin.address();
    assert_eq!(http(admin, "/livez").await.0, "HTTP/1.1 200 OK");
    let (status, body) = http(admin, "/startupz").await;
    assert_eq!(status, "HTTP/1.1 503 Service Unavailable");
    assert_eq!(body, "{\"phase\":\"beginning\",\"bytes_done\":0,\"bytes_total\":0}\n");
    assert_eq!(http(admin, "/readyz").await.0, "HTTP/1.1 503 Service Unavailable");
    assert_eq!(http(admin, "/nothing").await.0, "HTTP/1.1 404 Not Found");
    let server = loading.finish().await;
    for path in ["/livez", "/startupz", "/readyz", "/metrics"] {
        assert_eq!(http(server.admin_address().unwrap(), path).await.0, "HTTP/1.1 200 OK", "{path}");
    }
}

#[tokio::test]
async fn who_says_nothing_on_the_admin_port_keeps_neither_a_probe_nor_the_store_waiting() {
    let loading = Loading::begin().await;
    let admin = loading.admin.address();
    let mut silent = Vec::new();
    for _ in 0..200 {
        silent.push(TcpStream::connect(admin).await.unwrap());
    }
    let asked = Instant::now();
    assert_eq!(http(admin, "/livez").await.0, "HTTP/1.1 200 OK");
    let server = loading.finish().await;
    assert_eq!(http(admin, "/readyz").await.0, "HTTP/1.1 200 OK");
    // How long a health check waits.
    assert!(asked.elapsed() < Duration::from_secs(3), "{:?}", asked.elapsed());
    drop((server, silent));
}

#[tokio::test]
async fn a_store_that_cannot_be_opened_ends_the_connections() {
    let loading = Loading::begin().await;
    let mut client = Raw::connect(loading.clients.address()).await;
    assert_eq!(client.ask("PING").await, TOLD);
    loading.outcome.send(Err(Error::new(ErrorKind::Corruption, "damaged"))).unwrap();
    let failed = within(loading.server).await.unwrap();
    assert!(matches!(failed, Err(StartError::Store(error)) if error.kind() == ErrorKind::Corruption));
    assert_eq!(client.until_closed().await, "");
}
