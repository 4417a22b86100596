//! The disk fills up under load: writes are refused with a clear error and go on by themselves once there is space, reads and
//! deletes work meanwhile, the server lives, and after a restart every acknowledged command is there.
//!
//! A file beside the data directory takes what is free on a small file system of its own. `KV_FULL_DISKS` scales it.

use std::fs::{File, remove_file};
use std::io::Write;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::SeqCst};

use data_bridge_kv_testkit::random::{Random, setting};

use super::{Connection, Reply, Server, Volume, skipped, succeeds};

/// Of the file system; a log's segments and those of the tier are a share of it.
const VOLUME_MIB: u64 = 96;
const WRITERS: usize = 4;
const KEYS: usize = 120;
/// Keys that are deleted while the disk is full.
const DELETED: usize = 30;
const BINARY: &str = env!("CARGO_BIN_EXE_data-bridge-kv");
/// A value is its number and so many bytes more, once in a while some megabytes.
const VALUE_BYTES: usize = 24 << 10;
const LARGE_BYTES: usize = 3 << 20;
const LARGE_EVERY: u64 = 64;

/// What fills the disk, and what happens then.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Moment {
    /// While values are written; the server is killed in the end.
    Write,
    /// Some megabytes are left, so that it fills while segments of the log and of the tier are made.
    Segments,
    /// Before a snapshot, which begins with a checkpoint.
    Snapshot,
    /// Before the server ends in good order, with a checkpoint.
    Close,
    /// Values are overwritten and deleted until the tier has much to give back.
    Reclaim,
}

const MOMENTS: [Moment; 5] =
    [Moment::Write, Moment::Segments, Moment::Snapshot, Moment::Close, Moment::Reclaim];

/// A small file system, in memory or in a file.
enum Place {
    Device(Volume),
    Memory(Volume),
}

impl Place {
    fn new(kind: &str) -> Option<Place> {
        let base = std::env::temp_dir().join(format!("kv-full-{kind}-{}", std::process::id()));
        let volume = Volume { image: base.with_extension("img"), mount: base };
        std::fs::create_dir_all(&volume.mount).unwrap();
        let mount = volume.mount.to_str().unwrap().to_owned();
        if kind.ends_with("tmpfs") {
            let size = format!("size={VOLUME_MIB}m");
            return succeeds("mount", &["-t", "tmpfs", "-o", &size, "tmpfs", &mount])
                .then_some(Place::Memory(volume));
        }
        File::create(&volume.image).unwrap().set_len(VOLUME_MIB << 20).unwrap();
        // Nothing is reserved for root, or the server would find space that it is told is not there.
        let made = succeeds("mkfs.ext4", &["-q", "-m", "0", volume.image.to_str().unwrap()]);
        (made && volume.attach()).then_some(Place::Device(volume))
    }

    fn path(&self) -> &Path {
        let (Place::Device(volume) | Place::Memory(volume)) = self;
        &volume.mount
    }

    /// Takes everything that is free, but for so many bytes.
    fn fill(&self, but: u64) {
        let path = self.path().join("ballast");
        let file = File::options().create(true).append(true).open(path).unwrap();
        let left = self.path().join("left");
        File::create(&left).unwrap().write_all(&vec![1; but as usize]).ok();
        for size in [1 << 20, 64 << 10, 4 << 10, 1] {
            while (&file).write_all(&vec![1; size]).is_ok() {}
        }
        remove_file(left).unwrap();
    }

    fn free(&self) {
        remove_file(self.path().join("ballast")).unwrap();
    }
}

fn start(place: &Place) -> Server {
    let mut command = Command::new(BINARY);
    command.args([
        "serve",
        "--listen",
        "127.0.0.1:0",
        "--admin",
        "off",
        "--max-memory",
        "16mb",
        "--drain-delay",
        "0",
    ]);
    command.arg("--data").arg(place.path().join("data"));
    command.arg("--snapshot-dest").arg(place.path().join("snapshots")).args(["--snapshot-keep", "1"]);
    let child = command.env_clear().stderr(Stdio::piped()).spawn().unwrap();
    Server::listening(child).expect("it starts")
}

/// What one key holds: a number, or nothing.
#[derive(Clone, Copy, Debug, Default)]
struct Slot {
    acknowledged: Option<u64>,
    /// What the command in flight leads to.
    possible: Option<Option<u64>>,
}

/// One writer's keys.
struct Ledger {
    writer: usize,
    slots: Vec<Slot>,
    number: u64,
    random: Random,
}

/// What the writers and the one who fills the disk tell each other.
#[derive(Default)]
struct Shared {
    acknowledged: AtomicU64,
    refused: AtomicU64,
    is_full: AtomicBool,
    stop: AtomicBool,
}

impl Ledger {
    fn key(&self, slot: usize) -> String {
        format!("value:{}:{slot}", self.writer)
    }

    /// Those of even numbers are large.
    fn value(number: u64) -> String {
        let most = match number {
            _ if number.is_multiple_of(LARGE_EVERY) => LARGE_BYTES,
            _ if number.is_multiple_of(2) => VALUE_BYTES,
            _ => 100,
        };
        format!("{number}:{}", "v".repeat((number as usize * 7919) % most))
    }

    /// The number in a value, which is whole.
    fn number_of(reply: Reply) -> Option<u64> {
        match reply {
            Reply::Text(text) => {
                let number = text.split(':').next().unwrap().parse().unwrap();
                assert_eq!(text, Ledger::value(number));
                Some(number)
            }
            Reply::Missing => None,
            other => panic!("{other:?} is no value"),
        }
    }

    /// Writes, deletes and reads until told to stop.
    fn work(&mut self, server: std::net::SocketAddr, shared: &Shared) {
        let Ok(mut connection) = Connection::open(server) else { return };
        while !shared.stop.load(SeqCst) {
            let slot = self.random.below(KEYS);
            let key = self.key(slot);
            let is_full = shared.is_full.load(SeqCst);
            self.number += 1;
            let (next, words) = match self.random.below(10) {
                0 if !is_full => (None, vec!["DEL".to_owned(), key]),
                1 | 2 => {
                    let Ok(found) = connection.ask(&["GET", &key]) else { return };
                    assert_eq!(Ledger::number_of(found), self.slots[slot].acknowledged, "{key}");
                    continue;
                }
                _ => (Some(self.number), vec!["SET".to_owned(), key, Ledger::value(self.number)]),
            };
            self.slots[slot].possible = Some(next);
            let words: Vec<&str> = words.iter().map(String::as_str).collect();
            match connection.ask(&words) {
                Err(_) => return,
                Ok(Reply::Refused(why)) => {
                    assert!(why.starts_with("READONLY the disk is full") || why.starts_with("OOM "), "{why}");
                    assert!(next.is_some() || !is_full, "a delete was refused: {why}");
                    shared.refused.fetch_add(1, SeqCst);
                }
                Ok(_) => {
                    self.slots[slot].acknowledged = next;
                    shared.acknowledged.fetch_add(1, SeqCst);
                }
            }
            self.slots[slot].possible = None;
        }
    }

    /// Every key holds what was acknowledged, or where the command in flight led.
    fn check(&mut self, connection: &mut Connection) {
        for slot in 0..KEYS {
            let key = self.key(slot);
            let found = Ledger::number_of(connection.ask(&["GET", &key]).unwrap());
            let known = &mut self.slots[slot];
            let is_known = found == known.acknowledged || known.possible == Some(found);
            assert!(is_known, "{key}: {found:?} is there, the ledger says {known:?}");
            *known = Slot { acknowledged: found, possible: None };
        }
    }
}

/// Waits until a count has grown by so much, while the server lives.
fn until_more(count: &AtomicU64, by: u64, server: &mut Server, what: &str) {
    let until = count.load(SeqCst) + by;
    while count.load(SeqCst) < until {
        if let Some(status) = server.child.try_wait().unwrap() {
            panic!("the server ended with {status} while waiting for {what}");
        }
        std::thread::yield_now();
    }
}

/// Ends the writers, also where a check fails.
struct Stop<'a>(&'a AtomicBool);

impl Drop for Stop<'_> {
    fn drop(&mut self) {
        self.0.store(true, SeqCst);
    }
}

/// One full disk.
fn round(place: &Place, ledgers: &mut [Ledger], moment: Moment, random: &mut Random) -> Shared {
    let mut server = start(place);
    let mut connection = Connection::open(server.address).unwrap();
    ledgers.iter_mut().for_each(|ledger| ledger.check(&mut connection));
    for n in 0..DELETED {
        assert_eq!(connection.ask(&["EXISTS", &format!("spare:{n}")]).unwrap(), Reply::Integer(0));
    }
    let shared = Shared::default();
    std::thread::scope(|scope| {
        let _stop = Stop(&shared.stop);
        for ledger in ledgers.iter_mut() {
            let (address, shared) = (server.address, &shared);
            scope.spawn(move || ledger.work(address, shared));
        }
        let before = if moment == Moment::Reclaim { 600 } else { 50 + random.below(200) as u64 };
        until_more(&shared.acknowledged, before, &mut server, "writes");
        let spare = if moment == Moment::Segments { random.below(6 << 20) as u64 } else { 0 };
        for n in 0..DELETED {
            let reply = connection.ask(&["SET", &format!("spare:{n}"), "1"]).unwrap();
            assert_eq!(reply, Reply::Text("OK".to_owned()), "before the disk is full");
        }
        shared.is_full.store(true, SeqCst);
        place.fill(spare);
        until_more(&shared.refused, 20, &mut server, "a refusal");
        if moment == Moment::Snapshot {
            // What the log gives up may just be room for it.
            match connection.ask(&["KV.SNAPSHOT"]).unwrap() {
                Reply::Refused(_) => {}
                Reply::Text(path) => assert!(succeeds(BINARY, &["backup", "verify", &path]), "{path}"),
                other => panic!("{other:?}"),
            }
        }
        for n in 0..DELETED {
            assert_eq!(connection.ask(&["GET", &format!("spare:{n}")]).unwrap(), Reply::Text("1".to_owned()));
            assert_eq!(connection.ask(&["DEL", &format!("spare:{n}")]).unwrap(), Reply::Integer(1));
        }
        if moment != Moment::Close {
            place.free();
            shared.is_full.store(false, SeqCst);
            until_more(&shared.acknowledged, 100, &mut server, "writes to go on");
        }
    });
    if moment == Moment::Close {
        server.end();
        place.free();
    } else {
        server.kill();
    }
    shared
}

/// Full disks of one kind, one after the other; answers what was done.
fn fill_again_and_again(kind: &str) -> Option<String> {
    let Some(place) = Place::new(kind) else {
        skipped(&format!("no {kind} file system could be made and mounted"));
        return None;
    };
    let mut random = Random::new(setting("KV_SEED", 1));
    let ledger = |writer| Ledger {
        writer,
        slots: vec![Slot::default(); KEYS],
        number: 0,
        random: Random::new(random.bits()),
    };
    let mut ledgers: Vec<Ledger> = (0..WRITERS).map(ledger).collect();
    let (mut acknowledged, mut refused) = (0, 0);
    for number in 0..setting("KV_FULL_DISKS", 10).div_ceil(2) {
        let moment = MOMENTS[number as usize % MOMENTS.len()];
        let shared = round(&place, &mut ledgers, moment, &mut random);
        acknowledged += shared.acknowledged.load(SeqCst);
        refused += shared.refused.load(SeqCst);
    }
    let server = start(&place);
    let mut connection = Connection::open(server.address).unwrap();
    ledgers.iter_mut().for_each(|ledger| ledger.check(&mut connection));
    assert!(acknowledged > 0 && refused > 0);
    Some(format!("{kind}: {acknowledged} commands acknowledged, none lost; {refused} refused"))
}

#[test]
fn a_full_disk_refuses_writes_and_loses_nothing() {
    let done = fill_again_and_again("ext4");
    println!("{}", done.unwrap_or_default());
}

#[test]
fn full_memory_for_files_refuses_writes_and_loses_nothing() {
    let done = fill_again_and_again("tmpfs");
    println!("{}", done.unwrap_or_default());
}

/// A server that is killed or ended on a full disk serves there again: reads, what makes space, and writes once there is some.
#[test]
fn a_server_that_ended_on_a_full_disk_starts_there() {
    let (mut disks, mut restarts) = (0, 0);
    for kind in ["ext4", "tmpfs"] {
        let Some(place) = Place::new(&format!("ended-{kind}")) else {
            skipped(&format!("no {kind} file system could be made and mounted"));
            continue;
        };
        let mut server = start(&place);
        let mut connection = Connection::open(server.address).unwrap();
        let value = "v".repeat(VALUE_BYTES);
        let set = |connection: &mut Connection, n| {
            connection.ask(&["SET", &format!("key:{n}"), &value]).unwrap() == Reply::Text("OK".to_owned())
        };
        assert!((0..KEYS).all(|n| set(&mut connection, n)));
        place.fill(0);
        // What the log had left is used up but for what is kept for deletes.
        let keys = (KEYS..).find(|n| !set(&mut connection, *n)).unwrap();
        for n in 0..4 {
            if n % 2 == 0 {
                server.kill()
            } else {
                server.end()
            }
            place.fill(0);
            server = start(&place);
            connection = Connection::open(server.address).unwrap();
            for n in n..keys {
                let reply = connection.ask(&["GET", &format!("key:{n}")]).unwrap();
                assert_eq!(reply, Reply::Text(value.clone()), "{n}");
            }
            assert_eq!(connection.ask(&["DEL", &format!("key:{n}")]).unwrap(), Reply::Integer(1), "{n}");
            restarts += 1;
        }
        place.free();
        while !set(&mut connection, 0) {
            std::thread::yield_now();
        }
        server.kill();
        disks += 1;
    }
    println!("{restarts} restarts on {disks} full disks");
}
