//! Large replies: whoever reads them gets them, whoever does not is noticed.

mod served;

use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

use data_bridge_kv::{Engine, Settings};
use data_bridge_kv_model::command::table::opcode;
use data_bridge_kv_model::frame::{self, RequestHead};
use data_bridge_kv_model::limits::{OUTPUT_BYTES_HARD, OUTPUT_BYTES_SOFT};
use data_bridge_kv_model::{Reply, ReplyReader, Value};
use data_bridge_kv_server::Server;
use data_bridge_kv_server::clients::Client;
use served::{Raw, config, start, within};

const MIB: usize = 1 << 20;

/// A connection and how the server knows it.
async fn connect(server: &Server) -> (Raw, Arc<Client>) {
    let mut raw = Raw::connect(server.addresses()[0]).await;
    let answer = raw.ask("CLIENT ID").await;
    let id = answer[1..].trim().parse().unwrap();
    (raw, server.shared().clients.get(id).unwrap())
}

async fn set(raw: &mut Raw, key: &str, size: usize) {
    let value = key.repeat(size / key.len());
    raw.send(
        format!("*3\r\n$3\r\nSET\r\n${}\r\n{key}\r\n${}\r\n{value}\r\n", key.len(), value.len()).as_bytes(),
    )
    .await;
    raw.expect("+OK\r\n").await;
}

async fn until(condition: impl Fn() -> bool) {
    within(async {
        while !condition() {
            tokio::task::yield_now().await;
        }
    })
    .await;
}

#[tokio::test]
async fn a_reply_above_every_limit_of_output_reaches_a_client_that_reads() {
    let server = start(&[], &[]).await;
    let (mut raw, client) = connect(&server).await;
    let keys: Vec<String> = (10..30).map(|number| format!("k{number}xxxxx")).collect();
    for key in &keys {
        set(&mut raw, key, 10 * MIB).await;
    }
    raw.send(format!("MGET {}\r\nPING\r\n", keys.join(" ")).as_bytes()).await;
    until(|| client.full_since.load(Relaxed) > 0).await;
    raw.expect("*20\r\n").await;
    for (index, key) in keys.iter().enumerate() {
        raw.expect(&format!("${}\r\n", 10 * MIB)).await;
        let value = raw.read_bytes(10 * MIB + 2).await;
        assert!(value.starts_with(key.as_bytes()) && value.ends_with(b"x\r\n"), "{key}");
        if index == 18 {
            // Almost all was taken: its memory is back, and nothing is held against the client.
            until(|| client.output_bytes.load(Relaxed) < 2 * OUTPUT_BYTES_SOFT).await;
            until(|| client.full_since.load(Relaxed) == 0).await;
        }
    }
    raw.expect("+PONG\r\n").await;
}

/// A request or an answer may be larger than all that connections may have of a small budget: then it is alone.
#[tokio::test]
async fn a_large_value_comes_and_goes_slowly_under_a_small_budget() {
    let engine = Engine::open(Settings { max_memory: 256 << 20, ..Settings::default() }).unwrap();
    let server = Server::start(config(&[], &[]), Arc::new(engine)).await.unwrap();
    let (mut raw, client) = connect(&server).await;
    // After the second beat who looks after connections has seen the first one's.
    let beats = || async {
        let since = server.shared().seconds();
        until(|| server.shared().seconds() >= since + 2).await;
    };
    let value = "x".repeat(64 * MIB);
    let request = format!("*3\r\n$3\r\nSET\r\n$1\r\nk\r\n${}\r\n{value}\r\n", value.len());
    let (most, rest) = request.as_bytes().split_at(request.len() - 10);
    raw.send(most).await;
    beats().await;
    raw.send(rest).await;
    raw.expect("+OK\r\n").await;
    assert!(client.input_bytes.load(Relaxed) < MIB, "what has been carried out is given back");
    beats().await;
    raw.send(b"GET k\r\n").await;
    raw.expect(&format!("${}\r\n", value.len())).await;
    beats().await;
    assert_eq!(raw.read_bytes(value.len()).await, value.as_bytes());
    raw.expect("\r\n").await;
    assert_eq!(raw.ask("PING").await, "+PONG\r\n");
}

#[tokio::test]
async fn one_large_collection_in_many_small_elements_is_shown_whole() {
    let server = start(&[], &[]).await;
    let (mut raw, _) = connect(&server).await;
    let (elements, pushes) = (10_000, 1000);
    let push = format!("*{}\r\n$5\r\nRPUSH\r\n$1\r\nl\r\n{}", elements + 2, "$1\r\nx\r\n".repeat(elements));
    for number in 1..=pushes {
        raw.send(push.as_bytes()).await;
        raw.expect(&format!(":{}\r\n", number * elements)).await;
    }
    assert!(7 * elements * pushes > OUTPUT_BYTES_HARD);
    raw.send(b"LRANGE l 0 -1\r\n").await;
    raw.expect(&format!("*{}\r\n", elements * pushes)).await;
    let shown = raw.read_bytes(7 * elements * pushes).await;
    assert!(shown.chunks(7).all(|element| element == b"$1\r\nx\r\n"));
}

#[tokio::test]
async fn answers_that_nobody_takes_end_the_connection_once_they_are_too_many() {
    let server = start(&[], &[]).await;
    let (mut writer, _) = connect(&server).await;
    let mut waiter = Raw::connect(server.addresses()[0]).await;
    let mut requests = frame::PREFACE.to_vec();
    let waits = u32::try_from(OUTPUT_BYTES_HARD / MIB * 2).unwrap();
    for id in 0..waits {
        let head = RequestHead { id, opcode: opcode::KV_WAIT, flags: 0 };
        let at = frame::start_request(head, &mut requests);
        for word in ["k", "PRESENT"] {
            Value::Text(word.into()).encode_into(&mut requests);
        }
        frame::finish(at, &mut requests);
    }
    waiter.send(&requests).await;
    until(|| server.shared().engine.stats().waiting == waits as usize).await;
    set(&mut writer, "k", MIB).await;
    until(|| server.shared().clients.totals().ended == 1).await;
    assert_eq!(writer.ask("PING").await, "+PONG\r\n");
}

#[tokio::test]
async fn a_native_reply_above_the_limit_of_output_arrives_whole() {
    let server = start(&[], &[]).await;
    let (mut writer, _) = connect(&server).await;
    set(&mut writer, "k", 40 * MIB).await;
    let mut raw = Raw::connect(server.addresses()[0]).await;
    let mut request = frame::PREFACE.to_vec();
    let at = frame::start_request(RequestHead { id: 7, opcode: opcode::MGET, flags: 0 }, &mut request);
    for _ in 0..3 {
        Value::Text("k".into()).encode_into(&mut request);
    }
    frame::finish(at, &mut request);
    raw.send(&request).await;
    assert_eq!(raw.read_bytes(4).await, frame::PREFACE);
    let length = u32::from_le_bytes(raw.read_bytes(4).await.try_into().unwrap());
    let body = raw.read_bytes(length as usize).await;
    let (id, _, item) = frame::read_response(&body).unwrap();
    let Reply::Container(_, values) = ReplyReader::new(item).reply().unwrap() else { panic!() };
    assert_eq!((id, values.len()), (7, 3));
    assert!(
        values
            .iter()
            .all(|value| matches!(value, Reply::Value(Value::Bytes(bytes)) if bytes.len() == 40 * MIB))
    );
}
