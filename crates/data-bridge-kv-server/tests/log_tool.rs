//! `data-bridge-kv log` on a directory: what it prints, its exit codes, and a damaged log that opens again.

use std::os::unix::fs::FileExt;
use std::path::Path;
use std::process::Command;
use std::sync::Arc;

use data_bridge_kv::disk::RealDisk;
use data_bridge_kv::wal::{NewRecord, Wal, WalPolicy};
use data_bridge_kv::{Caller, DataDirectory, Engine, Progress, Settings, SystemClock};
use data_bridge_kv_model::command::table;
use data_bridge_kv_model::{Arg, ReplyBuf};
use data_bridge_kv_testkit::directory::Directory;

/// Exit code, standard output and standard error.
fn log(action: &str, path: &Path, flags: &[&str]) -> (Option<i32>, String, String) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_data-bridge-kv"));
    let output = command.args(["log", action]).arg(path).args(flags).env_clear().output().unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    (output.status.code(), text(output.stdout), text(output.stderr))
}

fn open(path: &Path) -> (Wal, Vec<Vec<u8>>) {
    let mut found = Vec::new();
    let disk = Arc::new(RealDisk::open(path).unwrap());
    let policy = WalPolicy { segment_bytes: 4096, ..WalPolicy::default() };
    let (wal, _) = Wal::open(disk, Arc::new(SystemClock::new()), policy, &mut |_, record| {
        found.push(record.payload.to_vec());
        Ok(())
    })
    .unwrap();
    (wal, found)
}

#[test]
fn a_log_is_shown_verified_and_repaired() {
    let directory = Directory::new("log");
    let path = directory.path();
    let (wal, _) = open(path);
    let head = NewRecord { namespace: 1, generation: 2, kind: 9 };
    for n in 1..=50_u8 {
        let lsn = wal.append(head, &[n; 400], true);
        wal.wait_durable(lsn).unwrap();
    }
    wal.close();
    drop(wal);

    let (code, text, _) = log("dump", path, &["--from", "7", "--to", "8"]);
    let shown = format!("record 7, namespace 1, generation 2, kind 9, 400 bytes: {}..\n", "07".repeat(48));
    assert!(code == Some(0) && text.contains(&shown) && text.ends_with("2 records\n"), "{text}");
    assert!(text.starts_with("watermark 50, start 1\nlog-0000000000000001: "), "{text}");
    assert!(text.contains(": closed, 50 was durable\n"), "{text}");
    let (code, text, _) = log("verify", path, &[]);
    assert!(code == Some(0) && text.contains("\nwhole: records 1 to 50 in "), "{text}");
    assert!(text.starts_with("  0 % log-0000000000000001: "), "{text}");
    assert!(text.ends_with("known to be durable up to 50; closed in good order\n"), "{text}");

    let file = std::fs::OpenOptions::new().write(true).open(path.join("log-0000000000000003")).unwrap();
    file.write_all_at(b"damage", 1000).unwrap();
    let (code, _, error) = log("verify", path, &[]);
    assert!(code == Some(4) && error.contains("log-0000000000000003 is damaged at offset "), "{error}");
    let after = error.split("--accept-loss-after ").nth(1).unwrap().split('`').next().unwrap();
    let (code, text, error) = log("repair", path, &["--accept-loss-after", "50"]);
    assert!(code == Some(4) && error.contains(&format!("--accept-loss-after {after}`")), "{text} {error}");
    let (code, text, error) = log("repair", path, &["--accept-loss-after", after]);
    assert!(
        code == Some(0) && text.ends_with(&format!("the log ends with record {after}\n")),
        "{text} {error}"
    );
    assert!(text.contains("are in log-cut-0000000000000003-"), "{text}");
    assert_eq!(log("verify", path, &[]).0, Some(0));
    let kept: u8 = after.parse().unwrap();
    assert_eq!(open(path).1, (1..=kept).map(|n| vec![n; 400]).collect::<Vec<_>>());

    assert_eq!(log("verify", Path::new("no/such/directory"), &[]).0, Some(1));
    let (code, _, error) = log("repair", path, &[]);
    assert!(code == Some(2) && error.contains("--accept-loss-after <LSN>"), "{error}");
}

/// What the engine logged is shown in words.
#[test]
fn effects_are_readable() {
    let directory = Directory::new("effects");
    let path = directory.path();
    let settings =
        Settings { data: Some(DataDirectory::open(path, |_| 1 << 26).unwrap()), ..Settings::default() };
    let engine = Engine::open(settings).unwrap();
    let caller = Caller { namespace: engine.namespace("tasks").unwrap(), ..engine.caller() };
    for line in ["SET greeting hello", "RPUSH queue a", "RPUSH queue b", "PEXPIREAT queue 9000000000000"] {
        let words: Vec<&str> = line.split(' ').collect();
        let args: Vec<Arg<'_>> = words[1..].iter().map(|word| Arg::Untyped(word.as_bytes())).collect();
        let call = table::by_name(words[0].as_bytes()).unwrap().call(&args).unwrap();
        assert_eq!(engine.execute(&caller, 0, &call, &mut ReplyBuf::new()), Progress::Done);
    }
    drop(engine);
    let (code, text, _) = log("dump", path, &[]);
    for effect in [
        "put \"greeting\" = Bytes([104, 101, 108, 108, 111]) (version ",
        "list \"queue\" insert ",
        "expire \"queue\" at 9000000000000 (version ",
    ] {
        assert!(code == Some(0) && text.contains(effect), "{effect}: {text}");
    }
}
