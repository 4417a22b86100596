//! Where the server listens: both loopbacks unless told otherwise.

mod served;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use data_bridge_kv::{Engine, Settings};
use data_bridge_kv_server::Server;
use data_bridge_kv_server::config::Config;
use data_bridge_kv_server::config::keys::KeyName;
use data_bridge_kv_server::config::layers::Layers;
use data_bridge_kv_server::server::StartError;
use served::{Raw, start};

/// A server that takes these addresses for its defaults.
async fn with_defaults(addresses: &[&str]) -> Result<Server, StartError> {
    let layers = Layers { flags: vec![(KeyName::Admin, "off".to_owned())], ..Layers::default() };
    let (mut config, _) = Config::read(&layers).unwrap();
    assert!(config.listen_is_default);
    config.listen = addresses.iter().map(|text| text.parse().unwrap()).collect();
    Server::start(config, Arc::new(Engine::open(Settings::default()).unwrap())).await
}

fn has_ipv6() -> bool {
    let has = std::net::TcpListener::bind("[::1]:0").is_ok();
    if !has {
        println!("skipped: this machine has no IPv6 loopback");
    }
    has
}

#[tokio::test]
async fn every_address_of_repeated_flags_is_served() {
    let second = if has_ipv6() { "[::1]:0" } else { "127.0.0.1:0" };
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
    if !has_ipv6() {
        return;
    }
    let other = std::net::TcpListener::bind("[::1]:0").unwrap();
    let address: SocketAddr = other.local_addr().unwrap();
    let started = with_defaults(&["127.0.0.1:0", &address.to_string()]).await;
    let error = started.err().unwrap().to_string();
    assert!(error.contains("in use by another process"), "{error}");
    let server = with_defaults(&["127.0.0.1:0", "[::1]:0"]).await.unwrap();
    assert_eq!((server.addresses().len(), server.left_out()), (2, None));
}
