//! Commands that wait for something to take, over connections: each element goes to one client, in the order in which they
//! came, and to nobody who is gone.

mod served;

use std::sync::Arc;

use data_bridge_kv::{DataDirectory, Durability, Engine, Settings};
use data_bridge_kv_model::limits::OUTPUT_BYTES_HARD;
use data_bridge_kv_server::Server;
use data_bridge_kv_testkit::disk::FaultyDisk;
use served::{PATIENCE, Raw, config, start, within};

/// Clients that wait at the same key.
const CONSUMERS: usize = 6;

async fn connect(server: &Server) -> Raw {
    Raw::connect(server.addresses()[0]).await
}

/// Sends a command that waits, and returns when it does.
async fn begin(server: &Server, raw: &mut Raw, line: &str) {
    let waiting = server.shared().engine.stats().waiting;
    raw.send(format!("{line}\r\n").as_bytes()).await;
    until(server, waiting + 1).await;
}

/// Returns when so many wait.
async fn until(server: &Server, count: usize) {
    within(async {
        while server.shared().engine.stats().waiting != count {
            tokio::task::yield_now().await;
        }
    })
    .await;
}

fn pair(key: &str, element: &str) -> String {
    format!("*2\r\n${}\r\n{key}\r\n${}\r\n{element}\r\n", key.len(), element.len())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn clients_that_wait_are_served_in_the_order_in_which_they_came() {
    let server = start(&[], &[]).await;
    let mut writer = connect(&server).await;
    let mut waiting = Vec::new();
    for _ in 0..CONSUMERS {
        let mut raw = connect(&server).await;
        begin(&server, &mut raw, "BLPOP other queue 0\r\nPING").await;
        waiting.push(raw);
    }
    for number in 0..CONSUMERS / 2 {
        assert_eq!(writer.ask(&format!("RPUSH queue {number}")).await, ":1\r\n");
    }
    assert_eq!(writer.ask("RPUSH queue 3 4 5 6").await, ":4\r\n");
    for (number, raw) in waiting.iter_mut().enumerate() {
        raw.expect(&pair("queue", &number.to_string())).await;
        raw.expect("+PONG\r\n").await;
    }
    assert_eq!(writer.ask("LRANGE queue 0 -1").await, "*1\r\n$1\r\n6\r\n");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_is_taken_for_a_client_that_was_killed_or_hung_up() {
    let server = start(&[], &[]).await;
    let mut writer = connect(&server).await;
    let (mut killed, mut gone) = (connect(&server).await, connect(&server).await);
    let id = killed.ask("CLIENT ID").await;
    begin(&server, &mut killed, "BLPOP queue 0").await;
    begin(&server, &mut gone, "BZPOPMIN ranks queue 0").await;
    let list = writer.ask("CLIENT LIST").await;
    assert!(list.contains("cmd=blpop") && list.contains("cmd=bzpopmin"), "{list}");
    assert_eq!(writer.ask(&format!("CLIENT KILL ID {}", id[1..].trim_end())).await, ":1\r\n");
    assert_eq!(killed.until_closed().await, "");
    drop(gone);
    until(&server, 0).await;
    assert_eq!(writer.ask("RPUSH queue 1").await, ":1\r\n");
    assert_eq!(writer.ask("LLEN queue").await, ":1\r\n");
    assert_eq!(writer.ask("ZADD ranks 1 a").await, ":1\r\n");
    assert_eq!(writer.ask("ZCARD ranks").await, ":1\r\n");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_element_goes_to_one_of_many_and_in_order_to_one() {
    let server = Arc::new(start(&[], &[]).await);
    let (producers, each) = (3, 400);
    let mut tasks = Vec::new();
    for consumer in 0..CONSUMERS {
        let mut raw = connect(&server).await;
        let command = ["BLPOP a b 0", "BRPOP b a 0", "BLMPOP 0 2 a b LEFT"][consumer % 3];
        tasks.push(tokio::spawn(async move {
            let mut got = Vec::new();
            loop {
                let reply = raw.ask(command).await;
                let element = reply.trim_end().rsplit("\r\n").next().unwrap().to_owned();
                if element == "end" {
                    return got;
                }
                got.push(element);
            }
        }));
    }
    let mut writers = Vec::new();
    for producer in 0..producers {
        let mut raw = connect(&server).await;
        writers.push(tokio::spawn(async move {
            for number in 0..each {
                let key = if number % 2 == 0 { "a" } else { "b" };
                raw.ask(&format!("RPUSH {key} {producer}:{number}")).await;
            }
        }));
    }
    for writer in writers {
        within(writer).await.unwrap();
    }
    let mut raw = connect(&server).await;
    within(async { while raw.ask("EXISTS a b").await != ":0\r\n" {} }).await;
    for _ in 0..CONSUMERS {
        raw.ask("RPUSH a end").await;
    }
    let mut all = Vec::new();
    for task in tasks {
        all.extend(within(task).await.unwrap());
    }
    all.sort_unstable();
    let mut expected: Vec<String> =
        (0..producers).flat_map(|one| (0..each).map(move |number| format!("{one}:{number}"))).collect();
    expected.sort_unstable();
    assert!(all == expected, "{} of {} elements", all.len(), expected.len());

    let mut consumer = connect(&server).await;
    let consume = tokio::spawn(async move {
        for number in 0..each {
            consumer.send(b"BLPOP line 0\r\n").await;
            consumer.expect(&pair("line", &number.to_string())).await;
        }
    });
    for number in 0..each {
        raw.ask(&format!("RPUSH line {number}")).await;
    }
    within(consume).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_shutdown_ends_waits_and_loses_no_element() {
    let server = start(&[], &[]).await;
    let mut waiting = connect(&server).await;
    begin(&server, &mut waiting, "BLPOP queue 0").await;
    server.stop(PATIENCE).await;
    assert_eq!(waiting.until_closed().await, "-CLOSED the server is shutting down\r\n");
}

/// It is larger than what may be kept of answers that nobody asked for.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_answer_of_the_largest_size_reaches_the_one_who_waits() {
    const PUSHED: usize = 650_000;
    let server = start(&[], &[]).await;
    let (mut waiting, mut writer) = (connect(&server).await, connect(&server).await);
    begin(&server, &mut waiting, "BLMPOP 0 1 queue LEFT COUNT 5000000").await;
    let element = format!("$20\r\n{}\r\n", "x".repeat(20));
    let push = format!("*{}\r\n$5\r\nRPUSH\r\n$5\r\nready\r\n{}", PUSHED + 2, element.repeat(PUSHED));
    for round in 1..=4 {
        writer.send(push.as_bytes()).await;
        assert_eq!(writer.reply().await, format!(":{}\r\n", round * PUSHED));
    }
    assert_eq!(writer.ask("RENAME ready queue").await, "+OK\r\n");
    let answer = waiting.reply().await;
    assert!(answer.starts_with("*2\r\n$5\r\nqueue\r\n*2600000\r\n$20\r\nx"));
    assert!(answer.len() > OUTPUT_BYTES_HARD);
    assert_eq!(waiting.ask("PING").await, "+PONG\r\n");
}

/// What is taken for somebody is in the log before he is told.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_taken_is_taken_after_a_crash_too() {
    let disk = FaultyDisk::new();
    let open = |disk: &FaultyDisk| {
        let data = Some(DataDirectory::on(Arc::new(disk.clone()), 1 << 28).unwrap());
        let mut settings = Settings { data, ..Settings::default() };
        settings.namespaces[1].durability = Some(Durability::Always);
        Arc::new(Engine::open(settings).unwrap())
    };
    let server = Server::start(config(&[], &[]), open(&disk)).await.unwrap();
    let (mut waiting, mut moving, mut writer) =
        (connect(&server).await, connect(&server).await, connect(&server).await);
    for raw in [&mut waiting, &mut moving, &mut writer] {
        assert_eq!(raw.ask("SELECT tasks").await, "+OK\r\n");
    }
    for number in 0..10 {
        begin(&server, &mut waiting, "BLPOP queue 0").await;
        begin(&server, &mut moving, "BLMOVE queue taken LEFT RIGHT 0").await;
        assert_eq!(writer.ask(&format!("RPUSH queue {number} moved")).await, ":2\r\n");
        waiting.reply().await;
        moving.reply().await;
        let image = Server::start(config(&[], &[]), open(&disk.crash_image(number))).await.unwrap();
        let mut after = connect(&image).await;
        after.ask("SELECT tasks").await;
        assert_eq!(after.ask("LLEN queue").await, ":0\r\n");
        assert_eq!(after.ask("LLEN taken").await, format!(":{}\r\n", number + 1));
        image.stop(PATIENCE).await;
    }
}

#[tokio::test]
async fn what_may_wait_is_not_asked_for_durably() {
    let server = start(&[], &[]).await;
    let mut raw = connect(&server).await;
    let refused = raw.ask("KV.DURABLE BLPOP queue 0").await;
    assert_eq!(refused, "-ERR BLPOP may have to wait for others\r\n");
}
