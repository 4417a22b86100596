//! Where the server listens: both loopbacks unless told otherwise, and Unix sockets.

mod served;

use std::net::SocketAddr;
use std::os::unix::fs::{FileTypeExt, PermissionsExt};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use data_bridge_kv::{Engine, Settings};
use data_bridge_kv_server::Server;
use data_bridge_kv_server::config::Config;
use data_bridge_kv_server::config::keys::KeyName;
use data_bridge_kv_server::config::layers::Layers;
use data_bridge_kv_server::endpoint::Endpoint;
use data_bridge_kv_server::server::StartError;
use data_bridge_kv_testkit::directory::Directory;
use served::{Raw, start, within};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, UnixStream};

/// A server that takes these addresses for its defaults.
async fn with_defaults(addresses: &[&str]) -> Result<Server, StartError> {
    let layers = Layers { flags: vec![(KeyName::Admin, "off".to_owned())], ..Layers::default() };
    let (mut config, _) = Config::read(&layers).unwrap();
    assert!(config.listen_is_default);
    config.listen = addresses.iter().map(|text| Endpoint::parse(text).unwrap()).collect();
    Server::start(config, Arc::new(Engine::open(Settings::default()).unwrap())).await
}

async fn has_ipv6() -> bool {
    TcpListener::bind("[::1]:0").await.is_ok()
}

#[tokio::test]
async fn every_address_of_repeated_flags_is_served() {
    let second = if has_ipv6().await { "[::1]:0" } else { "127.0.0.1:0" };
    let server = start(&[(KeyName::Listen, second)], &[]).await;
    assert_eq!(server.addresses().len(), 2);
    assert_ne!(server.addresses()[0], server.addresses()[1]);
    for address in server.addresses() {
        assert_eq!(Raw::connect(*address).await.ask("PING").await, "+PONG\r\n");
    }
}

#[tokio::test]
async fn without_ipv6_the_defaults_are_served_where_they_can_be() {
    // An address for documentation: no machine has it.
    let server = with_defaults(&["127.0.0.1:0", "[2001:db8::1]:7379"]).await.unwrap();
    assert_eq!(server.addresses().len(), 1);
    assert_eq!(server.left_out(), Some("not on [2001:db8::1]:7379, since this machine has no IPv6 loopback"));
    assert_eq!(Raw::connect(server.addresses()[0]).await.ask("PING").await, "+PONG\r\n");
    server.stop(Duration::from_secs(1)).await;
    // Asked for by name it must be there.
    let flags = [(KeyName::Listen, "[2001:db8::1]:7379"), (KeyName::InsecureNoAuth, "true")];
    let layers =
        Layers { flags: flags.map(|(key, text)| (key, text.to_owned())).to_vec(), ..Layers::default() };
    let (config, _) = Config::read(&layers).unwrap();
    let started = Server::start(config, Arc::new(Engine::open(Settings::default()).unwrap())).await;
    assert!(matches!(started, Err(StartError::Bind(..))));
}

#[tokio::test]
async fn a_default_address_in_use_is_an_error() {
    if !has_ipv6().await {
        println!("skipped: this machine has no IPv6 loopback");
        return;
    }
    let other = TcpListener::bind("[::1]:0").await.unwrap();
    let address: SocketAddr = other.local_addr().unwrap();
    let started = with_defaults(&["127.0.0.1:0", &address.to_string()]).await;
    let error = started.err().unwrap().to_string();
    assert!(error.contains("in use by another process"), "{error}");
    let server = with_defaults(&["127.0.0.1:0", "[::1]:0"]).await.unwrap();
    assert_eq!((server.addresses().len(), server.left_out()), (2, None));
}

async fn on_socket(path: &Path) -> Result<Server, StartError> {
    let flags = [(KeyName::Listen, format!("unix:{}", path.display())), (KeyName::Admin, "off".to_owned())];
    let (config, _) = Config::read(&Layers { flags: flags.to_vec(), ..Layers::default() }).unwrap();
    Server::start(config, Arc::new(Engine::open(Settings::default()).unwrap())).await
}

async fn ask(path: &Path, line: &str) -> String {
    let mut stream = UnixStream::connect(path).await.unwrap();
    stream.write_all(format!("{line}\r\nQUIT\r\n").as_bytes()).await.unwrap();
    let mut answer = String::new();
    within(stream.read_to_string(&mut answer)).await.unwrap();
    answer
}

#[tokio::test]
async fn a_unix_socket_is_its_owners_and_goes_with_the_server() {
    let folder = Directory::new("listen");
    let path = folder.join("kv.sock");
    let server = on_socket(&path).await.unwrap();
    assert_eq!((server.addresses().len(), server.shared().endpoints().len()), (0, 1));
    let found = std::fs::metadata(&path).unwrap();
    assert!(found.file_type().is_socket());
    assert_eq!(found.permissions().mode() & 0o777, 0o600);
    assert_eq!(ask(&path, "PING").await, "+PONG\r\n+OK\r\n");
    assert!(ask(&path, "CLIENT INFO").await.contains(&format!(" addr=unix:{} ", path.display())));
    assert!(ask(&path, "CONFIG GET unixsocket").await.contains(&path.display().to_string()));
    server.stop(Duration::from_secs(1)).await;
    assert!(!path.exists());
}

#[tokio::test]
async fn a_dead_socket_is_replaced_and_a_live_one_or_another_file_is_not() {
    let folder = Directory::new("listen-dead");
    let path = folder.join("kv.sock");
    // Its listener ended without removing the file, as after SIGKILL.
    drop(std::os::unix::net::UnixListener::bind(&path).unwrap());
    let server = on_socket(&path).await.unwrap();
    let refused = on_socket(&path).await.err().unwrap().to_string();
    assert!(refused.contains("in use by another process"), "{refused}");
    assert_eq!(ask(&path, "PING").await, "+PONG\r\n+OK\r\n");
    // Whoever took the name meanwhile keeps it.
    std::fs::remove_file(&path).unwrap();
    std::fs::write(&path, "mine").unwrap();
    server.stop(Duration::from_secs(1)).await;
    assert_eq!(std::fs::read(&path).unwrap(), b"mine");
    let refused = on_socket(&path).await.err().unwrap().to_string();
    assert!(refused.contains("no socket"), "{refused}");
    assert_eq!(std::fs::read(&path).unwrap(), b"mine");
}
