//! `data-bridge-kv export` and `import`: everything comes back as it was, and what can't be read is told by its line.

use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

use data_bridge_kv::{DataDirectory, Engine, Settings};
use data_bridge_kv_client::{Client, Options};
use data_bridge_kv_model::Value;
use data_bridge_kv_model::command::table::opcode;
use data_bridge_kv_server::Server;
use data_bridge_kv_server::config::Config;
use data_bridge_kv_server::config::keys::KeyName;
use data_bridge_kv_server::config::layers::Layers;
use data_bridge_kv_testkit::directory::Directory;
use tokio::io::{AsyncReadExt, copy};
use tokio::net::{TcpListener, TcpStream};

/// Values of every kind, as the codec's tests hold them.
const VALUES: &str = include_str!("../../data-bridge-kv-model/tests/golden/value.hex");
/// In the year 2100.
const FAR_MS: i64 = 4_102_444_800_123;

fn file(directory: &Directory, name: &str) -> String {
    directory.join(name).to_str().unwrap().to_owned()
}

fn program(args: &[&str]) -> (Option<i32>, String, String) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_data-bridge-kv"));
    let output = command.args(args).env_clear().output().unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    (output.status.code(), text(output.stdout), text(output.stderr))
}

async fn start(data: &Path) -> Server {
    let flags = vec![(KeyName::Listen, "127.0.0.1:0".into()), (KeyName::Admin, "off".into())];
    let (config, _) = Config::read(&Layers { flags, ..Layers::default() }).unwrap();
    let data = Some(DataDirectory::open(data, |_| 1 << 28).unwrap());
    let engine = Engine::open(Settings { data, ..Settings::default() }).unwrap();
    Server::start(config, Arc::new(engine)).await.unwrap()
}

async fn connect(server: &Server, namespace: &str) -> Client {
    let options = Options { namespace: Some(namespace.to_owned()), password: None };
    Client::connect_with(&server.addresses()[0].to_string(), &options).await.unwrap()
}

/// Writes every kind of value, keys of every length, deadlines, and more keys than a page has; answers how many keys.
async fn fill(client: &Client) -> usize {
    let mut keys = 0;
    for line in VALUES.lines().filter(|line| !line.starts_with('#')) {
        let (name, hex) = line.split_once(' ').unwrap();
        let byte = |at| u8::from_str_radix(&hex[at..at + 2], 16).unwrap();
        let encoded: Vec<u8> = (0..hex.len()).step_by(2).map(byte).collect();
        client.set(name, &Value::decode(&encoded).unwrap()).await.unwrap();
        keys += 1;
    }
    for n in 0..250 {
        client.set(&format!("many \"{n}\"\n\u{1F600}"), &Value::Int(n)).await.unwrap();
        keys += 1;
    }
    let expiring = [Value::from("until"), Value::Int(1), "PXAT".into(), FAR_MS.into()];
    client.call(opcode::KV_SET, &expiring).await.unwrap();
    keys + 1
}

fn sorted(path: &str) -> Vec<String> {
    let text = std::fs::read_to_string(path).unwrap();
    let mut lines: Vec<String> = text.lines().map(str::to_owned).collect();
    lines.sort();
    lines
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn everything_comes_back_as_it_was() {
    let (home, data) = (Directory::new("home"), Directory::new("data"));
    let server = start(data.path()).await;
    let keys = fill(&connect(&server, "tasks").await).await;
    let url = |namespace: &str| format!("kv://{}/{namespace}", server.addresses()[0]);
    let (first, again) = (file(&home, "first"), file(&home, "again"));
    let (code, _, told) = program(&["export", &url("tasks"), &first]);
    assert!(code == Some(0) && told.contains(&format!("exported {keys} keys")), "{told}");
    let lines = sorted(&first);
    assert_eq!(lines.len(), keys);
    let until = lines.iter().find(|line| line.contains("\"until\"")).unwrap();
    assert!(
        until.contains(r#""kind":"int","expires":"2100-01-01T00:00:00.123000+00:00","value":1}"#),
        "{until}"
    );
    let (code, _, told) = program(&["import", &first, &url("5")]);
    assert!(code == Some(0) && told.contains(&format!("imported {keys} keys, 0 that")), "{told}");
    assert_eq!(program(&["export", &url("5"), &again]).0, Some(0));
    assert_eq!(sorted(&again), lines);
    // Versions apart, the namespaces are the same, value by value.
    let (ours, theirs) = (connect(&server, "tasks").await, connect(&server, "5").await);
    for line in VALUES.lines().filter(|line| !line.starts_with('#')) {
        let key = line.split(' ').next().unwrap();
        let [one, other] = [ours.get(key).await.unwrap(), theirs.get(key).await.unwrap()];
        assert_eq!(one.map(|value| value.encode()), other.map(|value| value.encode()), "{key}");
    }
    let (_, out, _) = program(&["export", &url("5"), "-"]);
    assert_eq!(out.lines().count(), keys);
    server.stop(std::time::Duration::from_secs(5)).await;
    // A directory that no server uses gives the same.
    let closed = file(&home, "closed");
    let (code, _, told) = program(&["export", data.text(), &closed]);
    assert_eq!(code, Some(0), "{told}");
    assert_eq!(sorted(&closed), lines);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_there_already_is_overwritten_only_if_asked() {
    let (home, data) = (Directory::new("there"), Directory::new("there-data"));
    let server = start(data.path()).await;
    let client = connect(&server, "5").await;
    client.set("b", &Value::Int(1)).await.unwrap();
    let file = file(&home, "lines");
    let lines = "{\"key\":\"a\",\"value\":2}\n\n{\"key\":\"b\",\"value\":2}\n{\"key\":\"c\",\"value\":2,\"expires\":1000}\n";
    std::fs::write(&file, lines).unwrap();
    let url = format!("kv://{}/5", server.addresses()[0]);
    let (code, _, told) = program(&["import", &file, &url]);
    assert!(code == Some(1) && told.contains("line 3: key \"b\" is there already: --replace"), "{told}");
    let (code, _, told) = program(&["import", &file, &url, "--skip"]);
    assert!(
        code == Some(0) && told.contains("imported 0 keys, 2 that were there left as they are, 1 expired"),
        "{told}"
    );
    assert_eq!(client.get("b").await.unwrap(), Some(Value::Int(1)));
    let (code, _, told) = program(&["import", &file, &url, "--replace"]);
    assert!(code == Some(0) && told.contains("imported 2 keys"), "{told}");
    assert_eq!(client.get("b").await.unwrap(), Some(Value::Int(2)));
    assert_eq!(client.get("c").await.unwrap(), None);
    for (line, why) in [
        ("{\"key\":\"d\"", "line 1: "),
        ("[1]", "line 1: an object is needed"),
        ("{\"value\":1}", "line 1: no key"),
        ("{\"key\":\"d\"}", "line 1: no value"),
        ("{\"key\":\"\",\"value\":1}", "line 1: "),
        ("{\"key\":\"d\",\"value\":{\"$set\":1}}", "line 1: $set needs an array"),
        ("{\"key\":\"d\",\"kind\":\"text\",\"value\":1}", "line 1: the value is of kind int"),
        ("{\"key\":\"d\",\"value\":1,\"expires\":\"soon\"}", "line 1: expires"),
        ("{\"key\":\"d\",\"value\":1,\"ttl\":1}", "line 1: \"ttl\" is neither"),
        ("{\"key\":\"d\",\"value\":1,\"value\":2}", "line 1: \"value\" is given twice"),
        ("{\"key\":\"d\",\"expires\":1,\"value\":1,\"expires\":2}", "line 1: \"expires\" is given twice"),
        ("{\"key\":\"d\",\"value\":[{\"a\":1,\"b\":2,\"a\":1}]}", "line 1: \"a\" is given twice"),
    ] {
        std::fs::write(&file, line).unwrap();
        let (code, _, told) = program(&["import", &file, &url]);
        assert!(code == Some(1) && told.contains(why), "{line}: {told}");
        assert!(told.contains("; 0 keys were imported"), "{line}: {told}");
    }
    assert_eq!(client.get("d").await.unwrap(), None);
    let (code, _, told) = program(&["export", &url, &file]);
    assert!(code == Some(1) && told.contains("exists"), "{told}");
    let (code, _, told) = program(&["export", "http://x", &file]);
    assert!(code == Some(1) && told.contains("write kv://host:port/namespace"), "{told}");
    server.stop(std::time::Duration::from_secs(5)).await;
}

#[test]
fn a_missing_file_is_told_before_a_server_is_asked() {
    // Nobody listens there.
    let (code, _, text) = program(&["import", "no/such/file", "kv://127.0.0.1:1/jobs"]);
    assert_eq!(
        (code, text.as_str()),
        (Some(1), "error: no/such/file: No such file or directory (os error 2)\n")
    );
}

/// Some keys that are written while they are exported: each is "brief" with a deadline, or "lasting" without.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_value_is_exported_with_the_deadline_that_it_had() {
    let data = Directory::new("changing");
    let server = start(data.path()).await;
    let client = connect(&server, "5").await;
    let write = |round: i64, key: i64| {
        let (client, key) = (client.clone(), Value::from(format!("key:{key}").as_str()));
        let mut words = vec![key, if round % 2 == 0 { "lasting" } else { "brief" }.into()];
        if round % 2 == 1 {
            words.extend(["PXAT".into(), FAR_MS.into()]);
        }
        async move { client.call(opcode::KV_SET, &words).await.unwrap() }
    };
    for key in 0..100 {
        write(0, key).await;
    }
    let url = format!("kv://{}/5", server.addresses()[0]);
    let exporting = tokio::task::spawn_blocking(move || program(&["export", &url, "-"]));
    let mut round = 0;
    while !exporting.is_finished() {
        round += 1;
        for key in 0..100 {
            write(round, key).await;
        }
    }
    let (code, out, told) = exporting.await.unwrap();
    assert!(code == Some(0) && out.lines().count() == 100, "{told}");
    for line in out.lines() {
        assert_eq!(line.contains("\"expires\""), line.contains("\"brief\""), "{line}");
    }
    server.stop(Duration::from_secs(5)).await;
}

/// A way to a server that breaks once: the first connection ends behind 300 bytes of answers, when its commands were carried out.
async fn breaking_way(server: &Server, namespace: &str, keys: i64) -> String {
    let (to, client) = (server.addresses()[0].to_string(), connect(server, namespace).await);
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("kv://{}/{namespace}", listener.local_addr().unwrap());
    tokio::spawn(async move {
        for breaks in [true, false] {
            let (near, _) = listener.accept().await.unwrap();
            let ((mut asks, mut hears), far) = (near.into_split(), TcpStream::connect(&to).await.unwrap());
            let (mut answers, mut asked) = far.into_split();
            let forward = tokio::spawn(async move { copy(&mut asks, &mut asked).await });
            if breaks {
                copy(&mut answers.take(300), &mut hears).await.unwrap();
                let size = || client.call(opcode::DBSIZE, &[]);
                while size().await.unwrap() != data_bridge_kv_model::Reply::Integer(keys) {}
                forward.abort();
            } else {
                copy(&mut answers, &mut hears).await.unwrap();
            }
        }
    });
    url
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_import_goes_on_over_a_connection_that_broke() {
    let (home, data) = (Directory::new("broken"), Directory::new("broken-data"));
    let server = start(data.path()).await;
    let file = file(&home, "lines");
    let lines: String =
        (0..250).map(|n| format!("{{\"key\":\"key:{n}\",\"value\":{n},\"expires\":{FAR_MS}}}\n")).collect();
    std::fs::write(&file, lines).unwrap();
    for (namespace, option) in [("5", None), ("6", Some("--skip")), ("7", Some("--replace"))] {
        let url = breaking_way(&server, namespace, 100).await;
        let args: Vec<String> =
            ["import", &file, &url].into_iter().chain(option).map(str::to_owned).collect();
        let run = move || program(&args.iter().map(String::as_str).collect::<Vec<_>>());
        let (code, _, told) = tokio::task::spawn_blocking(run).await.unwrap();
        assert!(code == Some(0) && told.contains("imported 250 keys, 0 that were there"), "{told}");
        let client = connect(&server, namespace).await;
        assert_eq!(client.get("key:249").await.unwrap(), Some(Value::Int(249)));
    }
    // What somebody else wrote meanwhile is still another's.
    let client = connect(&server, "8").await;
    client.set("key:50", &Value::Int(-1)).await.unwrap();
    let url = breaking_way(&server, "8", 100).await;
    let run = move || program(&["import", &file, &url]);
    let (code, _, told) = tokio::task::spawn_blocking(run).await.unwrap();
    assert!(code == Some(1) && told.contains("line 51: key \"key:50\" is there already"), "{told}");
    server.stop(Duration::from_secs(5)).await;
}
