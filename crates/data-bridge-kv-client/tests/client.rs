//! The client against a real server, where the documentation tests do not reach.

use std::sync::Arc;
use std::time::Duration;

use data_bridge_kv::{Engine, Settings};
use data_bridge_kv_client::{Client, Options};
use data_bridge_kv_model::command::table::opcode;
use data_bridge_kv_model::{ErrorKind, Reply, Value};
use data_bridge_kv_server::Server;
use data_bridge_kv_server::config::{Config, keys::KeyName, layers::Layers};

/// Longest wait for anything.
const PATIENCE: Duration = Duration::from_secs(20);

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

#[tokio::test]
async fn a_url_is_no_address() {
    let refused = Client::connect("kv://:secret@127.0.0.1:7379/tasks").await.err().unwrap();
    assert_eq!(refused.kind(), ErrorKind::InvalidArgument);
    assert!(!refused.to_string().contains("secret"), "{refused}");
}

/// Until so many waits are pending at the server.
async fn waiting(server: &Server, count: usize) {
    let reached = async {
        while server.shared().engine.stats().waiting != count {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(PATIENCE, reached).await.expect("waits are as many as expected");
}

#[tokio::test]
async fn a_dropped_wait_ends_at_the_server() {
    let server = start("127.0.0.1:0".to_owned()).await;
    let client = Client::connect(&server.addresses()[0].to_string()).await.unwrap();
    let args = [Value::from("k"), Value::from("PRESENT")];
    let mut other = Box::pin(client.call(opcode::KV_WAIT, &args));
    {
        let mut dropped = Box::pin(client.call(opcode::KV_WAIT, &args));
        tokio::select! {
            biased;
            _ = &mut dropped => unreachable!("nobody has written the key"),
            _ = &mut other => unreachable!("nobody has written the key"),
            () = waiting(&server, 2) => {}
        }
    }
    waiting(&server, 1).await;
    client.set("k", &Value::from(1)).await.unwrap();
    other.await.unwrap();
    // What was answered is not cancelled, and the connection goes on.
    assert_eq!(client.get("k").await.unwrap(), Some(Value::from(1)));
    waiting(&server, 0).await;
}

#[tokio::test]
async fn requests_and_answers_that_fill_the_sockets_both_ways_get_through() {
    let server = start("127.0.0.1:0".to_owned()).await;
    let client = Client::connect(&server.addresses()[0].to_string()).await.unwrap();
    let text = Value::from("x".repeat(100 << 10).as_str());
    let args = [text.clone()];
    let all = async {
        let mut tasks = tokio::task::JoinSet::new();
        for _ in 0..200 {
            let (client, args) = (client.clone(), args.clone());
            tasks.spawn(async move { client.call(opcode::ECHO, &args).await.unwrap() });
        }
        tasks.join_all().await
    };
    let answers = tokio::time::timeout(PATIENCE, all).await.expect("no deadlock");
    assert_eq!(answers.len(), 200);
    assert!(answers.iter().all(|answer| *answer == Reply::Value(text.clone())));
}
