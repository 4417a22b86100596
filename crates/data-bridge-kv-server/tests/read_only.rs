//! The tools that only read: on a directory where nothing may be written, and on one that somebody uses.

use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Mutex, MutexGuard, PoisonError};

use data_bridge_kv::disk::RealDisk;
use data_bridge_kv::{Caller, DataDirectory, Engine, Progress, Settings};
use data_bridge_kv_model::command::table;
use data_bridge_kv_model::{Arg, ReplyBuf};

/// Directories that are removed in the end: what is written, and the same where nothing may be.
struct Rig {
    root: PathBuf,
    is_mounted: bool,
    /// One test at a time: the programs that another starts have this one's files, and its lock, for a moment.
    _turn: MutexGuard<'static, ()>,
}

static TURN: Mutex<()> = Mutex::new(());

impl Rig {
    fn new(name: &str) -> Rig {
        let root = std::env::temp_dir().join(format!("kv-read-only-{name}-{}", std::process::id()));
        std::fs::create_dir_all(root.join("view")).unwrap();
        std::fs::create_dir_all(root.join("here/backups")).unwrap();
        let turn = TURN.lock().unwrap_or_else(PoisonError::into_inner);
        Rig { root, is_mounted: false, _turn: turn }
    }

    fn path(&self, name: &str) -> String {
        self.root.join(name).to_str().unwrap().to_owned()
    }

    /// Lets nothing be written in `view`, which shows what is `here`: whether that can be done. Whoever may everything needs
    /// a mount for it.
    fn protect(&mut self) -> bool {
        let mount =
            |args: &[&str]| Command::new("mount").args(args).output().is_ok_and(|done| done.status.success());
        let (here, view) = (self.path("here"), self.path("view"));
        self.is_mounted = mount(&["--bind", &here, &view]);
        if self.is_mounted {
            return mount(&["-o", "remount,ro,bind", &view]);
        }
        std::fs::remove_dir(&view).unwrap();
        std::os::unix::fs::symlink(&here, &view).unwrap();
        let directories = ["here/backups/one", "here/backups", "here/data", "here"];
        directories.iter().for_each(|name| allow(&self.root.join(name), 0o500));
        std::fs::write(self.root.join("here/data/x"), "").is_err()
    }
}

impl Drop for Rig {
    fn drop(&mut self) {
        if self.is_mounted {
            let unmounted = Command::new("umount").arg(self.path("view")).status().unwrap();
            assert!(unmounted.success(), "what is mounted must not be removed");
        }
        for name in ["here", "here/data", "here/backups", "here/backups/one"] {
            allow(&self.root.join(name), 0o700);
        }
        std::fs::remove_dir_all(&self.root).unwrap();
    }
}

fn allow(path: &Path, mode: u32) {
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).unwrap();
}

/// A store with a key; it is closed when this is dropped.
fn store(path: &str) -> Engine {
    let data = Some(DataDirectory::open(Path::new(path), |_| 1 << 26).unwrap());
    let engine = Engine::open(Settings { data, ..Settings::default() }).unwrap();
    let caller = Caller { namespace: engine.namespace("tasks").unwrap(), ..engine.caller() };
    let args = [Arg::Untyped(b"greeting"), Arg::Untyped(b"hello")];
    let call = table::by_name(b"SET").unwrap().call(&args).unwrap();
    assert_eq!(engine.execute(&caller, 0, &call, &mut ReplyBuf::new()), Progress::Done);
    engine
}

/// Exit code, and all that was said.
fn run(args: &[&str]) -> (Option<i32>, String) {
    let output = Command::new(env!("CARGO_BIN_EXE_data-bridge-kv")).args(args).env_clear().output().unwrap();
    (output.status.code(), String::from_utf8([output.stdout, output.stderr].concat()).unwrap())
}

fn files(path: &str) -> Vec<(String, u64)> {
    let entries = std::fs::read_dir(path).unwrap().map(|entry| entry.unwrap());
    let mut files: Vec<_> = entries
        .map(|entry| (entry.file_name().into_string().unwrap(), entry.metadata().unwrap().len()))
        .collect();
    files.sort();
    files
}

#[test]
fn a_directory_that_may_not_be_written_is_read() {
    let mut rig = Rig::new("mount");
    let engine = store(&rig.path("here/data"));
    let copy = RealDisk::open(Path::new(&rig.path("here/backups/one"))).unwrap();
    engine.snapshot(&copy, &mut |_, _| {}).unwrap();
    drop((engine, copy));
    // As if it was copied there: a copy has no lock.
    std::fs::remove_file(rig.path("here/data/.lock")).unwrap();
    let before = (files(&rig.path("here/data")), files(&rig.path("here/backups/one")));
    if !rig.protect() {
        println!("skipped 1 test: whoever may write everywhere may not mount");
        return;
    }
    let (data, one) = (rig.path("view/data"), rig.path("view/backups/one"));
    let (again, back) = (rig.path("again"), rig.path("back"));
    for (args, says) in [
        (vec!["log", "verify", &data], "closed in good order"),
        (vec!["log", "dump", &data], " records\n"),
        (vec!["check", &data], "1 entries, 0 files with trouble"),
        (vec!["backup", "create", "--data", &data, "--to", &again], "state at record "),
        (vec!["backup", "list", &rig.path("view/backups")], "0 snapshots\n"),
        (vec!["backup", "verify", &one], "state at record "),
        (vec!["backup", "restore", &one, "--into", &back], "state at record "),
        (vec!["check", &back], "1 entries, 0 files with trouble"),
    ] {
        let (code, text) = run(&args);
        assert!(code == Some(0) && text.contains(says), "{args:?}: {code:?} {text}");
    }
    let (code, text) = run(&["serve", "--data", &data, "--listen", "127.0.0.1:0", "--admin", "off"]);
    assert!(
        code == Some(4) && text.starts_with(&format!("error: the data directory {data}: ")),
        "{code:?} {text}"
    );
    let after = (files(&rig.path("here/data")), files(&rig.path("here/backups/one")));
    assert_eq!(after, before);
}

/// What is damaged is found, although nothing beside it is.
#[test]
fn a_damaged_manifest_is_found() {
    let rig = Rig::new("damaged");
    let data = rig.path("here/data");
    std::fs::create_dir(rig.root.join("here/backups/one")).unwrap();
    drop(store(&data));
    std::fs::write(rig.root.join("here/data/manifest"), vec![1; 100]).unwrap();
    let (code, text) = run(&["check", &data]);
    assert!(
        code == Some(1) && text.contains("manifest is damaged: ") && text.contains("1 files with trouble"),
        "{text}"
    );
    let copy = rig.path("here/backups/two");
    let (code, text) = run(&["backup", "create", "--data", &data, "--to", &copy]);
    assert!(code == Some(4) && text.contains("manifest is damaged: "), "{text}");
    // A restore that was cut off has all but that.
    std::fs::remove_file(rig.root.join("here/data/manifest")).unwrap();
    let (code, text) = run(&["check", &data]);
    assert!(code == Some(1) && text.contains("manifest is missing, "), "{text}");
    let (code, text) = run(&["backup", "create", "--data", &data, "--to", &copy]);
    assert!(code == Some(4) && text.contains("manifest is missing"), "{text}");
    assert!(!rig.root.join("here/backups/two").exists());
}

#[test]
fn a_directory_that_is_in_use_is_not_read() {
    let rig = Rig::new("used");
    let data = rig.path("here/data");
    std::fs::create_dir(rig.root.join("here/backups/one")).unwrap();
    let engine = store(&data);
    let says = format!(
        "error: the data directory {data} belongs to another process (pid {}): stop that first, or look at a snapshot \
         of it (KV.SNAPSHOT, `backup verify`)\n",
        std::process::id()
    );
    for args in [vec!["log", "verify", &data], vec!["log", "dump", &data], vec!["check", &data]] {
        assert_eq!(run(&args), (Some(1), says.clone()), "{args:?}");
    }
    drop(engine);
    let (code, text) = run(&["check", &data]);
    assert!(code == Some(0) && text.contains("manifest: 1 task namespaces\n"), "{text}");
    let reader = RealDisk::open_to_read(Path::new(&data)).unwrap();
    assert_eq!(run(&["check", &data]).0, Some(0), "readers do not mind each other");
    let (code, text) = run(&["serve", "--data", &data, "--listen", "127.0.0.1:0", "--admin", "off"]);
    let says = format!("error: the data directory {data} belongs to whoever reads it right now\n");
    assert_eq!((code, text), (Some(4), says));
    drop(reader);
}
