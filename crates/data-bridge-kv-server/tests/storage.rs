//! Snapshots in object storage: in memory, in a folder, and over HTTP in an S3 server of others (moto, from
//! requirements/storage.txt), with connections that break.

#[path = "storage/s3.rs"]
mod s3;
mod served;

use std::io;
use std::path::PathBuf;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use data_bridge_kv::disk::Disk;
use data_bridge_kv::snapshot::Snapshot;
use data_bridge_kv::{Caller, DataDirectory, Engine, Settings};
use data_bridge_kv_model::command::table;
use data_bridge_kv_model::{Arg, Reply, ReplyBuf, ReplyReader, Value};
use data_bridge_kv_server::Server;
use data_bridge_kv_server::config::keys::KeyName;
use data_bridge_kv_server::destination::Destination;
use data_bridge_kv_server::storage::Storage;
use data_bridge_kv_testkit::directory::Directory;
use data_bridge_kv_testkit::disk::hooked::{Hooked, Operation};
use object_store::memory::InMemory;
use object_store::path::Path;
use served::{Raw, config};

fn in_memory() -> Storage {
    Storage::new(Arc::new(InMemory::new()), "s3://bucket".to_owned(), Path::from("backups/shop")).unwrap()
}

fn engine(data: &Directory) -> Engine {
    let data = Some(DataDirectory::open(data.path(), |_| 1 << 30).unwrap());
    Engine::open(Settings { data, ..Settings::default() }).unwrap()
}

/// What a command on the task namespace answers.
fn run(engine: &Engine, words: &[&str]) -> Reply {
    let caller = Caller { namespace: engine.namespace("tasks").unwrap(), ..engine.caller() };
    let args: Vec<Arg<'_>> = words[1..].iter().map(|word| Arg::Untyped(word.as_bytes())).collect();
    let call = table::by_name(words[0].as_bytes()).unwrap().call(&args).unwrap();
    let mut out = ReplyBuf::new();
    let _ = engine.execute(&caller, 0, &call, &mut out);
    ReplyReader::new(out.as_bytes()).reply().unwrap()
}

async fn start(data: &Directory, place: &str) -> Server {
    let flags = [(KeyName::Data, data.text()), (KeyName::SnapshotDest, place), (KeyName::SnapshotKeep, "2")];
    Server::start(config(&flags, &[]), Arc::new(engine(data))).await.unwrap()
}

/// What `data-bridge-kv backup` says, with these variables.
fn backup(args: &[&str], environment: &[(&str, &str)]) -> (Option<i32>, String) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_data-bridge-kv"));
    command.arg("backup").args(args).env_clear().envs(environment.iter().copied());
    let output = command.output().unwrap();
    (output.status.code(), String::from_utf8([output.stdout, output.stderr].concat()).unwrap())
}

#[test]
fn an_object_is_there_once_it_is_synced_and_read_from_anywhere() {
    let disk = in_memory().disk();
    let bytes: Vec<u8> = (0..40_000_000_u32).map(|number| (number % 251) as u8).collect();
    let file = disk.create("large").unwrap();
    for (number, part) in bytes.chunks(1 << 20).enumerate() {
        file.write_at(part, (number as u64) << 20).unwrap();
    }
    assert!(file.write_at(b"x", 5).is_err(), "written over");
    assert_eq!(disk.list().unwrap(), Vec::<String>::new());
    file.sync_data().unwrap();
    drop(file);
    assert_eq!(disk.list().unwrap(), ["large"]);
    let file = disk.open("large").unwrap();
    assert_eq!(file.size().unwrap(), bytes.len() as u64);
    let mut found = vec![0; 1_000_003];
    for offset in [0, 1, 8_000_000, 38_999_000, 7_999_999, bytes.len() - found.len()] {
        file.read_at(&mut found, offset as u64).unwrap();
        assert!(found == bytes[offset..offset + found.len()], "at {offset}");
    }
    let error = file.read_at(&mut found, bytes.len() as u64 - 5).unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::UnexpectedEof);
    assert_eq!(disk.open("other").map(|_| ()).unwrap_err().kind(), io::ErrorKind::NotFound);

    let given_up = disk.create("given-up").unwrap();
    given_up.write_at(&bytes, 0).unwrap();
    drop(given_up);
    assert_eq!(disk.list().unwrap(), ["large"]);
}

/// A storage that takes so many more files, and then none.
fn failing(storage: Box<dyn Disk>, left: usize) -> Hooked {
    let left = AtomicUsize::new(left);
    Hooked::new(Arc::from(storage), move |operation, _| {
        let take = || left.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| left.checked_sub(1));
        if operation == Operation::Create && take().is_err() {
            return Err(io::Error::other("s3://bucket: the storage fails"));
        }
        Ok(())
    })
}

#[test]
fn what_was_not_finished_is_no_snapshot_and_goes_with_the_next() {
    let data = Directory::new("failing");
    let engine = engine(&data);
    run(&engine, &["SET", "key", "value"]);
    let place = Destination::Storage(in_memory());
    let whole = |place: &Destination| place.list().unwrap().iter().filter(|(_, found)| found.is_ok()).count();
    let (mut files, mut last) = (0, String::new());
    // Names are a millisecond apart.
    let mut next = || loop {
        let next = place.next();
        if next.to_string() != last {
            last = next.to_string();
            break next;
        }
    };
    // One file fewer than it takes, down to none.
    for left in (0..20).rev() {
        let next = next();
        let disk = failing(next.disk().unwrap(), left);
        match engine.snapshot(&disk, &mut |_, _| {}) {
            Ok(snapshot) => {
                files = snapshot.files();
                next.remove().unwrap();
            }
            Err(error) => assert!(error.to_string().contains("the storage fails"), "{error}"),
        }
        assert_eq!(whole(&place), 0);
    }
    assert!((3..19).contains(&files), "{files} files");
    let next = next();
    let made = engine.snapshot(&*next.disk().unwrap(), &mut |_, _| {}).unwrap();
    assert_eq!((whole(&place), made.files()), (1, files));
    place.prune(1).unwrap();
    let left = place.list().unwrap();
    assert_eq!((left.len(), left[0].0.to_string()), (1, next.to_string()));
}

#[test]
fn a_snapshot_taken_while_keys_are_written_is_one_moment() {
    let (data, back) = (Directory::new("moment"), Directory::new("moment-back"));
    let engine = Arc::new(engine(&data));
    let goes_on = Arc::new(AtomicBool::new(true));
    let (writing, its_engine) = (Arc::clone(&goes_on), Arc::clone(&engine));
    let writer = std::thread::spawn(move || {
        let mut round = 0_u32;
        while writing.load(Ordering::Relaxed) {
            round += 1;
            run(&its_engine, &["SET", "first", &round.to_string()]);
            run(&its_engine, &["SET", "second", &round.to_string()]);
        }
        round
    });
    let place = Destination::Storage(in_memory());
    for _ in 0..5 {
        let next = place.next();
        engine.snapshot(&*next.disk().unwrap(), &mut |_, _| {}).unwrap();
        let _ = std::fs::remove_dir_all(back.path());
        let into = Destination::Folder(back.path().to_owned()).disk().unwrap();
        let from = next.existing().unwrap();
        Snapshot::verify(&*from, &mut |_, _| {}).unwrap();
        Snapshot::restore(&*from, &*into, 0, &mut |_, _| {}).unwrap();
        drop(into);
        let restored = self::engine(&back);
        let number = |key| match run(&restored, &["GET", key]) {
            Reply::Value(Value::Bytes(digits)) => String::from_utf8_lossy(&digits).parse::<u32>().unwrap(),
            Reply::Missing => 0,
            other => panic!("{other:?}"),
        };
        let (first, second) = (number("first"), number("second"));
        assert!(first == second || first == second + 1, "{first} and {second}");
    }
    goes_on.store(false, Ordering::Relaxed);
    assert!(writer.join().unwrap() > 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_url_of_a_folder_holds_what_a_server_makes() {
    let (data, folder, back) = (Directory::new("data"), Directory::new("folder"), Directory::new("back"));
    let url = format!("file://{}", folder.text());
    let server = start(&data, &url).await;
    let mut client = Raw::connect(server.addresses()[0]).await;
    client.ask("SELECT 1").await;
    let mut last = String::new();
    for round in 0..4 {
        client.ask(&format!("SET round {round}")).await;
        let answer = client.ask("KV.SNAPSHOT").await;
        last = answer.split("\r\n").nth(1).unwrap_or_else(|| panic!("{answer}")).to_owned();
    }
    server.stop(std::time::Duration::ZERO).await;
    assert!(last.starts_with(&format!("{url}/snapshot-")), "{last}");

    let (code, text) = backup(&["create", "--data", data.text(), "--to", &url, "--keep", "2"], &[]);
    assert!(code == Some(0) && text.contains("state at record "), "{text}");
    let (code, text) = backup(&["list", &url], &[]);
    assert!(code == Some(0) && text.ends_with("2 snapshots\n") && text.contains(&last), "{text}");
    // The same files: a folder is as good.
    let (code, text) = backup(&["list", folder.text()], &[]);
    assert!(code == Some(0) && text.ends_with("2 snapshots\n"), "{text}");
    let (code, text) = backup(&["restore", &last, "--into", back.text()], &[]);
    assert!(code == Some(0) && text.contains("restored "), "{text}");
    let (code, text) = backup(&["restore", &last, "--into", back.text()], &[]);
    assert!(code == Some(1) && text.contains("not empty"), "{text}");
    let restored = start(&back, &url).await;
    let mut client = Raw::connect(restored.addresses()[0]).await;
    client.ask("SELECT 1").await;
    assert_eq!(client.ask("GET round").await, "$1\r\n3\r\n");
    restored.stop(std::time::Duration::ZERO).await;

    let manifest = PathBuf::from(last.strip_prefix("file://").unwrap()).join("manifest");
    let mut bytes = std::fs::read(&manifest).unwrap();
    bytes[30] ^= 1;
    std::fs::write(&manifest, bytes).unwrap();
    let (code, text) = backup(&["verify", &last], &[]);
    assert!(code == Some(4) && text.contains("the file manifest of the snapshot is damaged"), "{text}");
}

#[test]
fn what_a_url_must_be_is_said() {
    for (url, says) in [
        ("ftp://bucket/x", "expected s3://, gs://, az:// or file://"),
        ("s3://", "expected a bucket"),
        ("file://x", "expected an absolute path"),
    ] {
        let (code, text) = backup(&["list", url], &[]);
        assert!(code == Some(1) && text.contains(says), "{text}");
    }
    let (code, text) = backup(&["create", "--data", "x", "--to", "y", "--keep", "1"], &[]);
    assert!(code == Some(1) && text.contains("--keep is for a URL"), "{text}");
}

#[test]
fn s3_keeps_snapshots_through_connections_that_break() {
    let Some(server) = s3::start() else { return };
    let (data, back) = (Directory::new("s3"), Directory::new("s3-back"));
    let engine = engine(&data);
    // More than a part, in one segment.
    for number in 10..34 {
        run(&engine, &["SET", &format!("key:{number}"), &number.to_string().repeat(500_000)]);
    }
    drop(engine);
    let url = "s3://bucket/prefix/shop";
    let create = ["create", "--data", data.text(), "--to", url, "--keep", "1"];
    let (code, text) = backup(&create, &server.environment());
    assert!(code == Some(0) && text.contains("state at record "), "{text}");
    let first = text.lines().find(|line| line.starts_with("s3://")).unwrap().to_owned();

    server.break_after(3_000_000);
    let (code, text) = backup(&create, &server.environment());
    assert!(code == Some(1) && text.contains("s3://bucket: the storage fails"), "{text}");
    server.mend();
    let (code, text) = backup(&["list", url], &server.environment());
    assert!(code == Some(0) && text.contains(&first) && text.ends_with("\n1 snapshots\n"), "{text}");

    let (code, text) = backup(&create, &server.environment());
    assert!(code == Some(0), "{text}");
    let second = text.lines().find(|line| line.starts_with("s3://")).unwrap().to_owned();
    let (_, text) = backup(&["list", url], &server.environment());
    assert!(text.lines().count() == 2 && text.starts_with(&second), "{text}");

    let (code, text) = backup(&["verify", &second], &server.environment());
    assert!(code == Some(0), "{text}");
    let (code, text) = backup(&["restore", &second, "--into", back.text()], &server.environment());
    assert!(code == Some(0), "{text}");
    let restored = self::engine(&back);
    assert_eq!(run(&restored, &["STRLEN", "key:33"]), Reply::Integer(1_000_000));

    for (variable, value, says) in [
        ("AWS_SECRET_ACCESS_KEY", "wrong", "these credentials are refused"),
        ("AWS_ENDPOINT_URL", "http://127.0.0.1:1", "the storage fails"),
    ] {
        let mut environment = server.environment();
        environment.iter_mut().filter(|(name, _)| *name == variable).for_each(|(_, old)| *old = value);
        let (code, text) = backup(&["list", url], &environment);
        assert!(code == Some(1) && text.contains(says), "{text}");
    }
    let (code, text) = backup(&["verify", "s3://other/x"], &server.environment());
    assert!(code == Some(1) && text.contains("there is no such bucket"), "{text}");
}
