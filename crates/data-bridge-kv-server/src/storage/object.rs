//! Objects as files: written once, from front to back, and there as a whole when they are synced; read in parts.

use std::io;

use data_bridge_kv::disk::{DirectoryLock, Disk, File, check_name};
use data_bridge_kv::sync::real::Mutex;
use object_store::ObjectStoreExt;
use object_store::buffered::BufWriter;
use object_store::path::Path;
use tokio::io::AsyncWriteExt;

use super::Storage;

/// Bytes of a part that is sent, and how many are on their way at once. (A provider takes 10 000 parts.)
const PART_BYTES: usize = 16 << 20;
const PARTS: usize = 4;
/// Bytes that are fetched at once.
const AHEAD_BYTES: u64 = 8 << 20;

/// The objects right below a prefix.
pub struct Objects {
    storage: Storage,
}

impl Objects {
    /// Those of this storage.
    pub fn new(storage: Storage) -> Objects {
        Objects { storage }
    }

    fn path(&self, name: &str) -> io::Result<Path> {
        check_name(name)?;
        Ok(self.storage.prefix.clone().join(name))
    }
}

impl Disk for Objects {
    fn create(&self, name: &str) -> io::Result<Box<dyn File>> {
        let path = self.path(name)?;
        let store = self.storage.store().clone();
        let writer = BufWriter::with_capacity(store, path, PART_BYTES).with_max_concurrency(PARTS);
        Ok(Box::new(Sent { storage: self.storage.clone(), writing: Mutex::new((Some(writer), 0)) }))
    }

    fn open(&self, name: &str) -> io::Result<Box<dyn File>> {
        let path = self.path(name)?;
        let size = match self.storage.wait(self.storage.store().head(&path)) {
            Ok(found) => found.size,
            // Whether the bucket is there, only a list can say.
            Err(error) if error.kind() == io::ErrorKind::NotFound => return self.list().and(Err(error)),
            Err(error) => return Err(error),
        };
        let storage = self.storage.clone();
        Ok(Box::new(Received { storage, path, size, ahead: Mutex::default() }))
    }

    fn rename(&self, _: &str, _: &str) -> io::Result<()> {
        Err(io::ErrorKind::Unsupported.into())
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        self.storage.wait(self.storage.store().delete(&self.path(name)?))
    }

    fn list(&self) -> io::Result<Vec<String>> {
        let prefix = Some(&self.storage.prefix);
        let found = self.storage.wait(self.storage.store().list_with_delimiter(prefix))?;
        let mut names: Vec<String> =
            found.objects.iter().filter_map(|object| super::last_part(&object.location)).collect();
        names.sort();
        Ok(names)
    }

    fn sync_names(&self) -> io::Result<()> {
        Ok(())
    }

    fn lock(&self) -> io::Result<DirectoryLock> {
        Err(io::ErrorKind::Unsupported.into())
    }

    fn free_bytes(&self) -> io::Result<u64> {
        Ok(u64::MAX)
    }

    fn writes_once(&self) -> bool {
        true
    }
}

/// An object on its way there; it is there once it is synced. One that is dropped before is given up.
struct Sent {
    storage: Storage,
    /// And how many bytes were written.
    writing: Mutex<(Option<BufWriter>, u64)>,
}

impl File for Sent {
    fn read_at(&self, _: &mut [u8], _: u64) -> io::Result<()> {
        Err(io::ErrorKind::Unsupported.into())
    }

    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        let mut writing = self.writing.lock();
        let (Some(writer), written) = &mut *writing else { return Err(io::ErrorKind::InvalidInput.into()) };
        if *written != offset {
            return Err(io::ErrorKind::InvalidInput.into());
        }
        self.storage.wait(async { writer.write_all(bytes).await.map_err(of_io) })?;
        *written += bytes.len() as u64;
        Ok(())
    }

    fn sync_data(&self) -> io::Result<()> {
        let Some(mut writer) = self.writing.lock().0.take() else { return Ok(()) };
        let finish = async { writer.shutdown().await.map_err(of_io) };
        self.storage.wait(finish)
    }

    fn size(&self) -> io::Result<u64> {
        Ok(self.writing.lock().1)
    }

    fn set_size(&self, _: u64) -> io::Result<()> {
        Err(io::ErrorKind::Unsupported.into())
    }
}

impl Drop for Sent {
    fn drop(&mut self) {
        if let Some(mut writer) = self.writing.get_mut().0.take() {
            // Whoever lists unfinished uploads may still find it.
            let _ = self.storage.wait(async { writer.abort().await });
        }
    }
}

/// The error that stands in one of input and output.
fn of_io(error: io::Error) -> object_store::Error {
    match error.downcast::<object_store::Error>() {
        Ok(error) => error,
        Err(error) => object_store::Error::Generic { store: "object", source: Box::new(error) },
    }
}

/// An object that is read.
struct Received {
    storage: Storage,
    path: Path,
    size: u64,
    /// What was fetched last, and where it begins.
    ahead: Mutex<(u64, Vec<u8>)>,
}

impl File for Received {
    fn read_at(&self, bytes: &mut [u8], offset: u64) -> io::Result<()> {
        let mut ahead = self.ahead.lock();
        let (mut at, mut rest) = (offset, bytes);
        while !rest.is_empty() {
            let behind = at.checked_sub(ahead.0).and_then(|skipped| usize::try_from(skipped).ok());
            let found = behind.and_then(|skipped| ahead.1.get(skipped..)).unwrap_or_default();
            if found.is_empty() {
                if at >= self.size {
                    return Err(io::ErrorKind::UnexpectedEof.into());
                }
                let range = at..self.size.min(at.saturating_add(AHEAD_BYTES));
                let fetched = self.storage.wait(self.storage.store().get_range(&self.path, range))?;
                if fetched.is_empty() {
                    return Err(io::ErrorKind::UnexpectedEof.into());
                }
                *ahead = (at, fetched.to_vec());
                continue;
            }
            let count = found.len().min(rest.len());
            let (part, others) = rest.split_at_mut(count);
            part.copy_from_slice(&found[..count]);
            (at, rest) = (at + count as u64, others);
        }
        Ok(())
    }

    fn write_at(&self, _: &[u8], _: u64) -> io::Result<()> {
        Err(io::ErrorKind::Unsupported.into())
    }

    fn sync_data(&self) -> io::Result<()> {
        Err(io::ErrorKind::Unsupported.into())
    }

    fn size(&self) -> io::Result<u64> {
        Ok(self.size)
    }

    fn set_size(&self, _: u64) -> io::Result<()> {
        Err(io::ErrorKind::Unsupported.into())
    }
}
