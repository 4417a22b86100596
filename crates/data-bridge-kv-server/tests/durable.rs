//! Single writes that are answered only once they are on disk, in a namespace whose answers wait for nothing.

mod served;

use std::sync::Arc;

use data_bridge_kv::{Caller, DataDirectory, Durability, Engine, Settings};
use data_bridge_kv_model::command::table::{self, opcode};
use data_bridge_kv_model::frame::{self, DURABLE, RequestHead};
use data_bridge_kv_model::{Arg, Reply, ReplyBuf, ReplyReader, Value};
use data_bridge_kv_server::Server;
use data_bridge_kv_testkit::disk::FaultyDisk;
use served::{Raw, config, http, start};

fn open(disk: &FaultyDisk, background: bool) -> Engine {
    let data = Some(DataDirectory::on(Arc::new(disk.clone()), 1 << 28).unwrap());
    let mut settings = Settings { data, background, ..Settings::default() };
    settings.namespaces[1].durability = Some(Durability::EverySecond);
    Engine::open(settings).unwrap()
}

async fn serve(disk: &FaultyDisk) -> Server {
    let engine = Arc::new(open(disk, true));
    Server::start(config(&[], &[]), engine).await.unwrap()
}

/// The answer to an inline command, with spaces in place of the ends of its lines.
async fn ask(raw: &mut Raw, line: &str) -> String {
    raw.ask(line).await.trim_end().replace("\r\n", " ")
}

/// Whether a key of the task namespace would be there after a crash at this moment.
fn outlives(disk: &FaultyDisk, seed: u64, key: &str) -> bool {
    let engine = open(&disk.crash_image(seed), false);
    let caller = Caller { namespace: engine.namespace("tasks").unwrap(), ..engine.caller() };
    let args = [Arg::Untyped(key.as_bytes())];
    let mut out = ReplyBuf::new();
    let _ =
        engine.execute(&caller, 0, &table::by_opcode(opcode::EXISTS).unwrap().call(&args).unwrap(), &mut out);
    ReplyReader::new(out.as_bytes()).reply().unwrap() == Reply::Integer(1)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_write_that_is_asked_for_durably_is_on_disk_when_it_is_answered() {
    let disk = FaultyDisk::new();
    let server = serve(&disk).await;
    let mut raw = Raw::connect(server.addresses()[0]).await;
    assert_eq!(ask(&mut raw, "SELECT tasks").await, "+OK");
    for number in 0..10 {
        assert_eq!(ask(&mut raw, &format!("KV.DURABLE SET key:{number} {number}")).await, "+OK");
        assert!(outlives(&disk, number, &format!("key:{number}")), "key:{number}");
    }
    raw.send(b"SET before 1\r\nkv.durable INCR sum\r\nSET after 1\r\n").await;
    assert_eq!([raw.reply().await, raw.reply().await, raw.reply().await].concat(), "+OK\r\n:1\r\n+OK\r\n");
    assert!(outlives(&disk, 1, "before") && outlives(&disk, 2, "sum"));
    assert_eq!(ask(&mut raw, "KV.DURABLE KV.SET price 1.10 AS decimal").await, "+OK");
    assert!(outlives(&disk, 3, "price"));
    assert_eq!(ask(&mut raw, "GET price").await, "$4 1.10");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_transaction_is_durable_as_a_whole() {
    let disk = FaultyDisk::new();
    let server = serve(&disk).await;
    let mut raw = Raw::connect(server.addresses()[0]).await;
    assert_eq!(ask(&mut raw, "SELECT tasks").await, "+OK");
    assert_eq!(ask(&mut raw, "MULTI").await, "+OK");
    assert_eq!(ask(&mut raw, "SET a 1").await, "+QUEUED");
    assert_eq!(ask(&mut raw, "SET b 1").await, "+QUEUED");
    assert_eq!(ask(&mut raw, "KV.DURABLE EXEC").await, "*2 +OK +OK");
    assert!(outlives(&disk, 1, "a") && outlives(&disk, 2, "b"));
    assert_eq!(ask(&mut raw, "MULTI").await, "+OK");
    let refused = ask(&mut raw, "KV.DURABLE SET a 2").await;
    assert!(refused.contains("send KV.DURABLE EXEC"), "{refused}");
    assert!(ask(&mut raw, "KV.DURABLE EXEC").await.starts_with("-EXECABORT"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_can_not_be_durable_is_refused_and_changes_nothing() {
    let disk = FaultyDisk::new();
    let server = serve(&disk).await;
    let mut raw = Raw::connect(server.addresses()[0]).await;
    let refused = ask(&mut raw, "KV.DURABLE SET key 1").await;
    assert!(refused.starts_with("-ERR namespace 'default' has no log"), "{refused}");
    assert_eq!(ask(&mut raw, "EXISTS key").await, ":0");
    assert_eq!(ask(&mut raw, "SELECT tasks").await, "+OK");
    let refused = ask(&mut raw, "KV.DURABLE GET key").await;
    assert!(refused.starts_with("-ERR GET writes nothing"), "{refused}");
    let unknown = ask(&mut raw, "KV.DURABLE NOTHING key").await;
    assert!(unknown.starts_with("-ERR unknown command 'NOTHING'"), "{unknown}");
    assert!(ask(&mut raw, "KV.DURABLE").await.starts_with("-ERR wrong number of arguments"));
    assert!(
        ask(&mut raw, "KV.DURABLE SET key").await.starts_with("-ERR wrong number of arguments for 'set'")
    );
    assert!(ask(&mut raw, "KV.DURABLE KV.DURABLE SET key 1").await.starts_with("-ERR"));
    assert_eq!(ask(&mut raw, "EXISTS key").await, ":0");

    let stranger = start(&[], &[]).await;
    let mut raw = Raw::connect(stranger.addresses()[0]).await;
    assert_eq!(ask(&mut raw, "SELECT tasks").await, "+OK");
    let refused = ask(&mut raw, "KV.DURABLE SET key 1").await;
    assert!(refused.contains("has no log"), "{refused}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_flag_of_a_native_request_does_the_same() {
    let disk = FaultyDisk::new();
    let server = serve(&disk).await;
    let mut raw = Raw::connect(server.addresses()[0]).await;
    raw.send(&frame::PREFACE).await;
    assert_eq!(raw.read_bytes(4).await, frame::PREFACE);
    let text = |text: &str| Value::Text(text.into());
    let requests = [
        (opcode::SELECT, 0, vec![text("tasks")]),
        (opcode::KV_SET, DURABLE, vec![text("one"), Value::Int(1)]),
        (
            opcode::KV_ATOMIC,
            DURABLE,
            vec![Value::Int(opcode::KV_SET.into()), Value::Int(2), text("two"), Value::Int(2)],
        ),
        (opcode::KV_GET, DURABLE, vec![text("one")]),
    ];
    for (index, (opcode, flags, args)) in requests.into_iter().enumerate() {
        let (id, mut out) = (index as u32, Vec::new());
        let at = frame::start_request(RequestHead { id, opcode, flags }, &mut out);
        args.iter().for_each(|value| out.extend_from_slice(&value.encode()));
        frame::finish(at, &mut out);
        raw.send(&out).await;
        let length = raw.read_bytes(4).await.try_into().map(u32::from_le_bytes).unwrap();
        let body = raw.read_bytes(length as usize).await;
        let (answered, _, item) = frame::read_response(&body).unwrap();
        let reply = ReplyReader::new(item).reply().unwrap();
        assert_eq!(answered, id);
        match index {
            1 => assert!(outlives(&disk, 1, "one"), "{reply:?}"),
            2 => assert!(outlives(&disk, 2, "two"), "{reply:?}"),
            3 => {
                assert!(matches!(&reply, Reply::Error(error) if error.to_string().contains("writes nothing")))
            }
            _ => assert_eq!(reply, Reply::Ok),
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn checkpoints_and_the_length_of_the_log_are_told() {
    let server = serve(&FaultyDisk::new()).await;
    let mut raw = Raw::connect(server.addresses()[0]).await;
    assert_eq!(ask(&mut raw, "SELECT tasks").await, "+OK");
    assert_eq!(ask(&mut raw, "KV.DURABLE SET key value").await, "+OK");
    assert!(server.shared().engine.checkpoint());
    let info = ask(&mut raw, "INFO persistence").await;
    // A quarter of what the directory may hold: less than the setting.
    for figure in ["log_limit_bytes:67108864", "checkpoints:1", "checkpoint_failures:0"] {
        assert!(info.split(' ').any(|line| line == figure), "{figure} in {info}");
    }
    let written = info.split(' ').find_map(|line| line.strip_prefix("checkpoint_written_bytes:"));
    assert!(written.and_then(|bytes| bytes.parse().ok()).is_some_and(|bytes: u64| bytes > 20), "{info}");
    let syncs = info.split(' ').find_map(|line| line.strip_prefix("log_syncs:")?.parse().ok());
    assert!(syncs.is_some_and(|count: u64| count > 0), "a durable write takes a sync: {info}");
    let (_, page) = http(server.admin_address().unwrap(), "/metrics").await;
    let told = page.lines().find_map(|line| line.strip_prefix("kv_log_syncs_total ")?.parse().ok());
    assert!(told >= syncs, "{told:?} syncs, {syncs:?} before: {page}");
    for figure in ["kv_log_limit_bytes 67108864", "kv_checkpoints_total 1", "kv_checkpoint_failures_total 0"]
    {
        assert!(page.lines().any(|line| line == figure), "{figure} in {page}");
    }
}
