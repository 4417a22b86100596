//! A disk with a hook, which is told of each operation before it is done and may refuse it.

use std::fmt;
use std::io;
use std::sync::Arc;

use data_bridge_kv::disk::{DirectoryLock, Disk, File};

/// What is about to be done with names, or with the bytes of a file.
#[allow(missing_docs, reason = "they are the calls of `Disk` and `File` that say the same")]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Operation {
    Create,
    Open,
    Rename,
    Remove,
    List,
    SyncNames,
    Read,
    Write,
    SyncData,
    SetSize,
}

type Hook = dyn Fn(Operation, &str) -> io::Result<()> + Send + Sync;

/// The disk; clones are the same.
#[derive(Clone)]
pub struct Hooked {
    disk: Arc<dyn Disk>,
    hook: Arc<Hook>,
}

impl fmt::Debug for Hooked {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Hooked").finish_non_exhaustive()
    }
}

impl Hooked {
    /// `hook` is told of each operation and of its file; of those on all names with an empty one.
    pub fn new(
        disk: Arc<dyn Disk>,
        hook: impl Fn(Operation, &str) -> io::Result<()> + Send + Sync + 'static,
    ) -> Hooked {
        Hooked { disk, hook: Arc::new(hook) }
    }

    fn tell(&self, operation: Operation, name: &str) -> io::Result<&dyn Disk> {
        (self.hook)(operation, name).map(|()| &*self.disk)
    }

    fn file(&self, name: &str, file: Box<dyn File>) -> Box<dyn File> {
        Box::new(HookedFile { name: name.to_owned(), file, hook: Arc::clone(&self.hook) })
    }
}

impl Disk for Hooked {
    fn create(&self, name: &str) -> io::Result<Box<dyn File>> {
        Ok(self.file(name, self.tell(Operation::Create, name)?.create(name)?))
    }

    fn open(&self, name: &str) -> io::Result<Box<dyn File>> {
        Ok(self.file(name, self.tell(Operation::Open, name)?.open(name)?))
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        self.tell(Operation::Rename, from)?.rename(from, to)
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        self.tell(Operation::Remove, name)?.remove(name)
    }

    fn list(&self) -> io::Result<Vec<String>> {
        self.tell(Operation::List, "")?.list()
    }

    fn sync_names(&self) -> io::Result<()> {
        self.tell(Operation::SyncNames, "")?.sync_names()
    }

    fn lock(&self) -> io::Result<DirectoryLock> {
        self.disk.lock()
    }

    fn free_bytes(&self) -> io::Result<u64> {
        self.disk.free_bytes()
    }

    fn writes_once(&self) -> bool {
        self.disk.writes_once()
    }
}

struct HookedFile {
    name: String,
    file: Box<dyn File>,
    hook: Arc<Hook>,
}

impl HookedFile {
    fn tell(&self, operation: Operation) -> io::Result<&dyn File> {
        (self.hook)(operation, &self.name).map(|()| &*self.file)
    }
}

impl File for HookedFile {
    fn read_at(&self, bytes: &mut [u8], offset: u64) -> io::Result<()> {
        self.tell(Operation::Read)?.read_at(bytes, offset)
    }

    fn read_cached_at(&self, bytes: &mut [u8], offset: u64) -> io::Result<bool> {
        self.tell(Operation::Read)?.read_cached_at(bytes, offset)
    }

    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        self.tell(Operation::Write)?.write_at(bytes, offset)
    }

    fn sync_data(&self) -> io::Result<()> {
        self.tell(Operation::SyncData)?.sync_data()
    }

    fn size(&self) -> io::Result<u64> {
        self.file.size()
    }

    fn set_size(&self, size: u64) -> io::Result<()> {
        self.tell(Operation::SetSize)?.set_size(size)
    }
}
