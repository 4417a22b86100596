//! A disk whose names stay in doubt once a sync of them failed: each later one fails too.
//!
//! The system tells of such a failure once, to whoever syncs next, and may have lost what others created, renamed or removed;
//! so it is told to all of them, each time. What was synced before is not in doubt, nor is what is written to files.

use std::io;
use std::sync::Arc;

use super::{DirectoryLock, Disk, File};
use crate::sync::Mutex;

/// The disk; whoever shares its names uses the same one.
pub struct Doubt {
    disk: Arc<dyn Disk>,
    has_failed: Mutex<bool>,
}

impl Doubt {
    /// Over this disk, which nobody syncs otherwise.
    pub fn over(disk: Arc<dyn Disk>) -> Doubt {
        Doubt { disk, has_failed: Mutex::new(false) }
    }
}

impl Disk for Doubt {
    fn create(&self, name: &str) -> io::Result<Box<dyn File>> {
        self.disk.create(name)
    }

    fn open(&self, name: &str) -> io::Result<Box<dyn File>> {
        self.disk.open(name)
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        self.disk.rename(from, to)
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        self.disk.remove(name)
    }

    fn list(&self) -> io::Result<Vec<String>> {
        self.disk.list()
    }

    fn sync_names(&self) -> io::Result<()> {
        // One at a time: of two, the other one may be told of what this one was to make last.
        let mut has_failed = self.has_failed.lock();
        if *has_failed {
            return Err(io::Error::other("a sync of the directory failed before"));
        }
        let synced = self.disk.sync_names();
        *has_failed = synced.is_err();
        synced
    }

    fn lock(&self) -> io::Result<DirectoryLock> {
        self.disk.lock()
    }

    fn free_bytes(&self) -> io::Result<u64> {
        self.disk.free_bytes()
    }
}
