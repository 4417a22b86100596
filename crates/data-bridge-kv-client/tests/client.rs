//! The client against a real server, where the documentation tests do not reach.

use std::sync::Arc;
use std::time::Duration;

use data_bridge_kv::{Engine, Settings};
use data_bridge_kv_client::{Client, Options};
use data_bridge_kv_model::{ErrorKind, Value};
use data_bridge_kv_server::Server;
use data_bridge_kv_server::config::{Config, keys::KeyName, layers::Layers};

async fn start(listen: String) -> Server {
    let flags = vec![(KeyName::Listen, listen), (KeyName::Admin, "off".to_owned())];
    let (config, _) = Config::read(&Layers { flags, ..Layers::default() }).unwrap();
    Server::start(config, Arc::new(Engine::open(Settings::default()).unwrap())).await.unwrap()
}

#[tokio::test]
async fn a_unix_socket_is_as_good_as_a_port() {
    let path = std::env::temp_dir().join(format!("kv-client-{}.sock", std::process::id()));
    let address = format!("unix:{}", path.display());
    let server = start(address.clone()).await;
    let client = Client::connect(&address).await.unwrap();
    client.set("k", &Value::from(1)).await.unwrap();
    assert_eq!(client.get("k").await.unwrap(), Some(Value::from(1)));
    let options = Options { namespace: Some("tasks".to_owned()), password: None };
    let tasks = Client::connect_with(&address, &options).await.unwrap();
    assert_eq!(tasks.get("k").await.unwrap(), None);
    drop((client, tasks));
    server.stop(Duration::from_secs(5)).await;
    let gone = Client::connect(&address).await.err().unwrap();
    assert_eq!(gone.kind(), ErrorKind::Closed);
}
