//! One directory of files, as log, segments and manifest need it. The only family that touches `std::fs`; whoever stores
//! bytes is handed a [`Disk`], so that a test can hand it one that fails, tears and forgets.
//!
//! What a caller may rely on, and no more:
//! - Bytes are there after a crash only if [`File::sync_data`] returned after they were written; the name of a file (new,
//!   renamed, removed) only if [`Disk::sync_names`] did. Anything later may survive, in part and in any order.
//! - After an error of a sync, what was written since the last good one is in doubt for ever: the next sync may succeed
//!   without it. It must not be retried.
//! - A failed write may have written a part.
//!
//! Calls block. Only syncs of names wait for each other. No shard lock may be held around them.

mod doubt;
mod real;

use std::io;

use rustix::io::Errno;

pub use doubt::Doubt;
pub use real::RealDisk;

/// Held while it lives; dropping it releases the directory.
pub type DirectoryLock = Box<dyn Send + Sync>;

/// A flat directory. Names are 1 to 255 bytes, without `/`, and do not start with a dot; others are refused with
/// `InvalidInput`.
pub trait Disk: Send + Sync {
    /// Makes a new, empty file. `AlreadyExists` if the name is taken.
    fn create(&self, name: &str) -> io::Result<Box<dyn File>>;

    /// Opens a file for reading and writing, or for reading where writing is not allowed. `NotFound` if there is none; an error if
    /// the name is a symbolic link.
    fn open(&self, name: &str) -> io::Result<Box<dyn File>>;

    /// Gives a file another name, in one step also if that name is taken: its file is then removed.
    fn rename(&self, from: &str, to: &str) -> io::Result<()>;

    /// Removes a name. Files that are open stay readable.
    fn remove(&self, name: &str) -> io::Result<()>;

    /// All names, in order.
    fn list(&self) -> io::Result<Vec<String>>;

    /// Makes every create, rename and remove so far last.
    fn sync_names(&self) -> io::Result<()>;

    /// Takes the directory for this process. `WouldBlock` if another holder has it; its text says who, where that is known.
    fn lock(&self) -> io::Result<DirectoryLock>;

    /// Bytes that can still be written here.
    fn free_bytes(&self) -> io::Result<u64>;

    /// Whether a file is written once, from its front to its end, and is there when it was synced: a store of objects. There
    /// nothing is renamed or locked.
    fn writes_once(&self) -> bool {
        false
    }
}

/// An open file. Positions are absolute: readers and writers share nothing but the bytes.
pub trait File: Send + Sync {
    /// Fills `bytes` from `offset` on. `UnexpectedEof` if the file ends before.
    fn read_at(&self, bytes: &mut [u8], offset: u64) -> io::Result<()>;

    /// The same if it can be done without waiting for a device; answers whether it was. Any file may say that it can't.
    fn read_cached_at(&self, _bytes: &mut [u8], _offset: u64) -> io::Result<bool> {
        Ok(false)
    }

    /// Writes all of `bytes` at `offset`, beyond the end too: what lies between reads as zeros.
    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<()>;

    /// Makes everything written so far last, and the length with it.
    fn sync_data(&self) -> io::Result<()>;

    /// Length in bytes.
    fn size(&self) -> io::Result<u64>;

    /// Cuts the file, or lengthens it with zeros that take no space yet.
    fn set_size(&self, size: u64) -> io::Result<()>;

    /// Writes zeros from the end up to `size`, so that writing there later cannot meet a full disk once this is synced.
    /// Does nothing if the file is as long already.
    fn allocate(&self, size: u64) -> io::Result<()> {
        static ZEROS: [u8; 1 << 16] = [0; 1 << 16];
        let mut end = self.size()?;
        while end < size {
            let part = usize::try_from(size - end).map_or(ZEROS.len(), |left| left.min(ZEROS.len()));
            self.write_at(&ZEROS[..part], end)?;
            end += part as u64;
        }
        Ok(())
    }
}

/// Whether an error says that there is no space.
pub fn is_full(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded)
}

/// Whether an error says that the process, or the system, has as many files open as it may.
pub fn is_out_of_files(error: &io::Error) -> bool {
    matches!(Errno::from_io_error(error), Some(Errno::MFILE | Errno::NFILE))
}

/// Checks a name; every disk refuses the same ones.
pub fn check_name(name: &str) -> io::Result<()> {
    let fits = (1..=255).contains(&name.len()) && !name.starts_with('.') && !name.contains(['/', '\0']);
    if fits { Ok(()) } else { Err(io::Error::new(io::ErrorKind::InvalidInput, "not a plain file name")) }
}
