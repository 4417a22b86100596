//! The disk as one opening of the store sees it: it can be cut off as with a killed process, and somebody may run commands
//! while the cold tier is being written.

use std::io::{self, ErrorKind};
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::{Arc, Weak};

use data_bridge_kv::disk::{DirectoryLock, Disk, File};
use data_bridge_kv::sync::real::Mutex;
use data_bridge_kv_testkit::disk::FaultyDisk;

/// Who may do something in between.
pub trait Bystander: Send + Sync {
    /// A segment of the cold tier, or its index, is about to be written; no shard is locked.
    fn meanwhile(&self);
}

/// What is done wrong on purpose, so that the simulation can be seen to find it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Plant {
    Nothing,
    /// Answers are shown before what they rest on is durable.
    EarlyAnswer,
    /// Syncs of the log's segments do nothing.
    NoLogSync,
    /// Syncs of the tier's segments do nothing.
    NoTierSync,
    /// Names of files are never synced.
    NoNameSync,
}

/// The disk of one opening; clones are the same.
#[derive(Clone)]
pub struct Wire {
    disk: FaultyDisk,
    bystander: Weak<dyn Bystander>,
    is_cut: Arc<AtomicBool>,
    /// The directory's lock, which goes with the process and not with the last who has the engine.
    lock: Arc<Mutex<Option<DirectoryLock>>>,
    plant: Plant,
}

impl Wire {
    pub fn new(disk: &FaultyDisk, bystander: Weak<dyn Bystander>, plant: Plant) -> Wire {
        Wire { disk: disk.clone(), bystander, is_cut: Arc::default(), lock: Arc::default(), plant }
    }

    /// Nothing reaches the disk any more, which others may have.
    pub fn cut(&self) {
        drop(self.lock.lock().take());
        self.is_cut.store(true, Relaxed);
    }

    fn whole(&self) -> io::Result<&FaultyDisk> {
        if self.is_cut.load(Relaxed) { Err(ErrorKind::BrokenPipe.into()) } else { Ok(&self.disk) }
    }

    fn file(&self, name: &str, file: Box<dyn File>) -> Box<dyn File> {
        Box::new(WireFile {
            wire: self.clone(),
            file,
            is_tier: name.starts_with("cold-task-0"),
            is_index: name.starts_with("cold-task-index"),
            is_log: name.starts_with("log-0"),
        })
    }
}

impl Disk for Wire {
    fn create(&self, name: &str) -> io::Result<Box<dyn File>> {
        Ok(self.file(name, self.whole()?.create(name)?))
    }

    fn open(&self, name: &str) -> io::Result<Box<dyn File>> {
        Ok(self.file(name, self.whole()?.open(name)?))
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        self.whole()?.rename(from, to)
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        self.whole()?.remove(name)
    }

    fn list(&self) -> io::Result<Vec<String>> {
        self.whole()?.list()
    }

    fn sync_names(&self) -> io::Result<()> {
        let disk = self.whole()?;
        if self.plant == Plant::NoNameSync { Ok(()) } else { disk.sync_names() }
    }

    fn lock(&self) -> io::Result<DirectoryLock> {
        *self.lock.lock() = Some(self.whole()?.lock()?);
        Ok(Box::new(()))
    }

    fn free_bytes(&self) -> io::Result<u64> {
        self.whole()?.free_bytes()
    }
}

struct WireFile {
    wire: Wire,
    file: Box<dyn File>,
    is_tier: bool,
    is_index: bool,
    is_log: bool,
}

impl File for WireFile {
    fn read_at(&self, bytes: &mut [u8], offset: u64) -> io::Result<()> {
        self.wire.whole()?;
        self.file.read_at(bytes, offset)
    }

    fn read_cached_at(&self, bytes: &mut [u8], offset: u64) -> io::Result<bool> {
        self.wire.whole()?;
        self.file.read_cached_at(bytes, offset)
    }

    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        self.wire.whole()?;
        if let Some(bystander) = self.wire.bystander.upgrade().filter(|_| self.is_tier || self.is_index) {
            bystander.meanwhile();
        }
        self.file.write_at(bytes, offset)
    }

    fn sync_data(&self) -> io::Result<()> {
        self.wire.whole()?;
        match self.wire.plant {
            Plant::NoLogSync if self.is_log => Ok(()),
            Plant::NoTierSync if self.is_tier => Ok(()),
            _ => self.file.sync_data(),
        }
    }

    fn size(&self) -> io::Result<u64> {
        self.wire.whole()?;
        self.file.size()
    }

    fn set_size(&self, size: u64) -> io::Result<()> {
        self.wire.whole()?;
        self.file.set_size(size)
    }
}
