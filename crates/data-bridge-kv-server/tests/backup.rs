//! Snapshots of a running server and what `data-bridge-kv backup` does with them.

mod served;

use std::path::PathBuf;
use std::process::Command;
use std::sync::Arc;

use data_bridge_kv::{DataDirectory, Engine, Settings};
use data_bridge_kv_server::Server;
use data_bridge_kv_server::config::Config;
use data_bridge_kv_server::config::keys::KeyName;
use data_bridge_kv_server::config::layers::Layers;
use data_bridge_kv_testkit::directory::Directory;
use served::{Raw, http};

async fn start(data: &Directory, folder: &Directory, every: &str) -> Server {
    let flags = [
        (KeyName::Listen, "127.0.0.1:0"),
        (KeyName::Admin, "127.0.0.1:0"),
        (KeyName::Data, data.text()),
        (KeyName::SnapshotDest, folder.text()),
        (KeyName::SnapshotKeep, "2"),
        (KeyName::SnapshotEvery, every),
    ];
    let flags = flags.iter().map(|(key, value)| (*key, (*value).to_owned())).collect();
    let (config, _) = Config::read(&Layers { flags, environment: Vec::new(), file: None }).unwrap();
    let data = Some(DataDirectory::open(data.path(), |_| 1 << 28).unwrap());
    let engine = Engine::open(Settings { data, ..Settings::default() }).unwrap();
    Server::start(config, Arc::new(engine)).await.unwrap()
}

fn backup(args: &[&str]) -> (Option<i32>, String) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_data-bridge-kv"));
    let output = command.arg("backup").args(args).env_clear().output().unwrap();
    (output.status.code(), String::from_utf8([output.stdout, output.stderr].concat()).unwrap())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_makes_snapshots_that_can_be_verified_and_restored() {
    let (data, folder, back) = (Directory::new("data"), Directory::new("folder"), Directory::new("back"));
    let server = start(&data, &folder, "0").await;
    let mut client = Raw::connect(server.addresses()[0]).await;
    assert_eq!(client.ask("SELECT 1").await, "+OK\r\n");
    let mut last = String::new();
    for round in 0..4 {
        client.ask(&format!("SET round {round}")).await;
        let answer = client.ask("KV.SNAPSHOT").await;
        last = answer.split("\r\n").nth(1).unwrap_or_else(|| panic!("{answer}")).to_owned();
    }
    client.ask("SET round later").await;
    let (_, metrics) = http(server.admin_address().unwrap(), "/metrics").await;
    assert!(metrics.contains("kv_snapshot_failures_total 0"), "{metrics}");
    assert!(metrics.contains("kv_snapshot_age_seconds ") && !metrics.contains("kv_snapshot_age_seconds -1"));
    server.stop(std::time::Duration::ZERO).await;

    let (code, text) = backup(&["list", folder.text()]);
    assert!(code == Some(0) && text.ends_with("2 snapshots\n") && text.contains(&last), "{text}");
    let (code, text) = backup(&["verify", &last]);
    assert!(code == Some(0) && text.contains("state at record "), "{text}");
    let (code, text) = backup(&["restore", &last, "--into", back.text()]);
    assert!(code == Some(0) && text.contains("restored "), "{text}");
    let (code, text) = backup(&["restore", &last, "--into", back.text()]);
    assert!(code == Some(1) && text.contains("not empty"), "{text}");

    let restored = start(&back, &folder, "0").await;
    let mut client = Raw::connect(restored.addresses()[0]).await;
    client.ask("SELECT 1").await;
    assert_eq!(client.ask("GET round").await, "$1\r\n3\r\n");
    restored.stop(std::time::Duration::ZERO).await;

    let offline = Directory::new("offline");
    let (code, text) = backup(&["create", "--data", data.text(), "--to", offline.text()]);
    assert!(code == Some(0) && text.contains("state at record "), "{text}");
    assert_eq!(backup(&["verify", offline.text()]).0, Some(0));
    // It stays as it is: what is served is made of it by `restore`.
    let mut serve = Command::new(env!("CARGO_BIN_EXE_data-bridge-kv"));
    serve.args(["serve", "--listen", "127.0.0.1:0", "--admin", "off", "--data", offline.text()]);
    let refused = serve.env_clear().output().unwrap();
    let text = String::from_utf8(refused.stderr).unwrap();
    assert!(refused.status.code() == Some(4) && text.contains("`data-bridge-kv backup restore`"), "{text}");
    assert_eq!(backup(&["verify", offline.text()]).0, Some(0));
    let manifest = offline.join("manifest");
    let mut bytes = std::fs::read(&manifest).unwrap();
    bytes[30] ^= 1;
    std::fs::write(&manifest, bytes).unwrap();
    let (code, text) = backup(&["verify", offline.text()]);
    assert!(code == Some(4) && text.contains("the file manifest of the snapshot is damaged"), "{text}");
    std::fs::remove_file(&manifest).unwrap();
    let (code, text) = backup(&["restore", offline.text(), "--into", &format!("{}-into", offline.text())]);
    assert!(code == Some(4) && text.contains("the file manifest of the snapshot is missing"), "{text}");
    // What was copied before is gone again.
    std::fs::remove_dir(format!("{}-into", offline.text())).unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn snapshots_are_made_by_themselves() {
    let (data, folder) = (Directory::new("own-data"), Directory::new("own-folder"));
    let server = start(&data, &folder, "1").await;
    served::within(async {
        while server.shared().snapshots.last_ms() == 0 {
            tokio::time::sleep(std::time::Duration::from_millis(5)).await;
        }
    })
    .await;
    assert_eq!(server.shared().snapshots.failures(), 0);
    server.stop(std::time::Duration::ZERO).await;
}

/// The clock was set back since the others were made, or somebody gave one a name: the newest are kept all the same.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_newest_snapshots_are_kept_whatever_others_are_called() {
    let (data, folder) = (Directory::new("named-data"), Directory::new("named-folder"));
    let server = start(&data, &folder, "0").await;
    let mut client = Raw::connect(server.addresses()[0]).await;
    let mut made = Vec::new();
    for name in ["snapshot-9000000000000", "snapshot-of-monday", "", "", ""] {
        let answer = client.ask("KV.SNAPSHOT").await;
        let place = PathBuf::from(answer.split("\r\n").nth(1).unwrap_or_else(|| panic!("{answer}")));
        assert!(place.is_dir(), "{answer}");
        match name {
            "" => made.push(place),
            name => std::fs::rename(place, folder.join(name)).unwrap(),
        }
    }
    let is_there: Vec<bool> = made.iter().map(|place| place.is_dir()).collect();
    assert_eq!(is_there, [false, true, true]);
    let left = ["snapshot-9000000000000", "snapshot-of-monday"].map(|name| folder.join(name).is_dir());
    assert_eq!(left, [false, true], "what has a name is not removed");
    server.stop(std::time::Duration::ZERO).await;
    let (code, text) = backup(&["list", folder.text()]);
    assert!(code == Some(0) && text.ends_with("3 snapshots\n"), "{text}");
}

/// What Redis's monitoring looks at.
async fn last_status(client: &mut Raw) -> String {
    let info = client.ask("INFO persistence").await;
    info.lines().find_map(|line| line.strip_prefix("rdb_last_bgsave_status:")).unwrap().to_owned()
}

/// Whoever looks at the metrics or at INFO sees it, and the client that asked is told.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_snapshot_that_can_not_be_made_is_told_and_counted() {
    let (data, folder) = (Directory::new("no-data"), Directory::new("no-folder"));
    let server = start(&data, &folder, "0").await;
    std::fs::remove_dir(folder.path()).unwrap();
    std::fs::write(folder.path(), "this is no folder").unwrap();
    let mut client = Raw::connect(server.addresses()[0]).await;
    for failures in 1..=2 {
        let answer = client.ask("KV.SNAPSHOT").await;
        assert!(answer.starts_with("-ERR ") && answer.contains("no-folder"), "{answer}");
        let (_, metrics) = http(server.admin_address().unwrap(), "/metrics").await;
        assert!(metrics.contains(&format!("kv_snapshot_failures_total {failures}\n")), "{metrics}");
        assert!(metrics.contains("kv_snapshot_age_seconds -1\n"), "{metrics}");
        assert_eq!(last_status(&mut client).await, "err");
    }
    std::fs::remove_file(folder.path()).unwrap();
    let answer = client.ask("KV.SNAPSHOT").await;
    assert!(answer.contains("no-folder"), "it is made once it can be: {answer}");
    assert_eq!(last_status(&mut client).await, "ok");
    server.stop(std::time::Duration::ZERO).await;
}

#[test]
fn snapshots_need_a_directory_and_a_folder() {
    for (flags, says) in [
        (&["--snapshot-dest", "x"][..], "snapshot_dest needs --data"),
        (&["--snapshot-every", "60"], "snapshot_every needs --snapshot-dest"),
        (&["--data", "x", "--snapshot-dest", ""], "snapshot_dest: an empty name is no folder"),
    ] {
        let mut command = Command::new(env!("CARGO_BIN_EXE_data-bridge-kv"));
        let output = command.arg("serve").args(flags).env_clear().output().unwrap();
        let text = String::from_utf8(output.stderr).unwrap();
        assert!(output.status.code() == Some(2) && text.contains(says), "{text}");
    }
}
