//! A directory of the operating system. Only its owner can read what is in it; symbolic links are not followed.

#![expect(clippy::disallowed_methods, clippy::disallowed_types, reason = "this is where files are reached")]

use std::fs::{self, DirBuilder, OpenOptions};
use std::io;
use std::os::unix::fs::{DirBuilderExt, FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use rustix::fs::{FlockOperation, OFlags};
#[cfg(target_os = "linux")]
use rustix::io::ReadWriteFlags;

use super::{DirectoryLock, Disk, File, check_name};

/// Held while the directory is in use; it starts with a dot, so it is no name of a file.
const LOCK_NAME: &str = ".lock";
/// Read and written by the owner, by nobody else.
const FILE_MODE: u32 = 0o600;
const DIRECTORY_MODE: u32 = 0o700;

/// A [`Disk`] on a directory of the operating system.
#[derive(Debug)]
pub struct RealDisk {
    path: PathBuf,
    directory: fs::File,
    /// What keeps others from writing while this one reads.
    _shared: Option<fs::File>,
}

impl RealDisk {
    /// Opens a directory; makes it, and those above it, if it is not there.
    pub fn open(path: &Path) -> io::Result<Self> {
        DirBuilder::new().recursive(true).mode(DIRECTORY_MODE).create(path).map_err(|error| {
            // A file has the name.
            if error.kind() == io::ErrorKind::AlreadyExists {
                io::ErrorKind::NotADirectory.into()
            } else {
                error
            }
        })?;
        Ok(Self { path: path.to_owned(), directory: directory(path)?, _shared: None })
    }

    /// Opens a directory that is there for whoever only reads: it may be one that can't be written, and nothing is made in it.
    /// As long as it is open nobody takes it, but others may read too. `WouldBlock` if somebody has taken it.
    pub fn open_to_read(path: &Path) -> io::Result<Self> {
        let directory = directory(path)?;
        let shared = match options().write(false).open(path.join(LOCK_NAME)) {
            Ok(file) => {
                rustix::fs::flock(&file, FlockOperation::NonBlockingLockShared)
                    .map_err(|error| owned(&file, error.into()))?;
                Some(file)
            }
            // Whoever takes a directory makes it first.
            Err(error) if error.kind() == io::ErrorKind::NotFound => None,
            Err(error) => return Err(error),
        };
        Ok(Self { path: path.to_owned(), directory, _shared: shared })
    }

    fn path_of(&self, name: &str) -> io::Result<PathBuf> {
        check_name(name)?;
        Ok(self.path.join(name))
    }
}

fn directory(path: &Path) -> io::Result<fs::File> {
    let flags = OFlags::NOFOLLOW | OFlags::DIRECTORY;
    OpenOptions::new().read(true).custom_flags(flags.bits() as i32).open(path)
}

/// For reading and writing, private, and never through a symbolic link. (The standard library closes files on exec.)
fn options() -> OpenOptions {
    let mut options = OpenOptions::new();
    options.read(true).write(true).mode(FILE_MODE).custom_flags(OFlags::NOFOLLOW.bits() as i32);
    options
}

/// The error of a lock that others have: it says who, if that can be read.
fn owned(file: &fs::File, error: io::Error) -> io::Error {
    // Readers leave no name.
    if rustix::fs::flock(file, FlockOperation::NonBlockingLockShared).is_ok() {
        return io::Error::new(error.kind(), "whoever reads it right now");
    }
    let mut text = [0; 10];
    let read = file.read_at(&mut text, 0).unwrap_or(0);
    let owner = text.get(..read).and_then(|text| str::from_utf8(text).ok()?.parse::<u32>().ok());
    match owner {
        Some(owner) if error.kind() == io::ErrorKind::WouldBlock => {
            let is_ours = owner == std::process::id();
            let who = if is_ours { "this process already" } else { "another process" };
            io::Error::new(error.kind(), format!("{who} (pid {owner})"))
        }
        _ => error,
    }
}

impl Disk for RealDisk {
    fn create(&self, name: &str) -> io::Result<Box<dyn File>> {
        let file = options().create_new(true).open(self.path_of(name)?)?;
        Ok(Box::new(RealFile(file)))
    }

    fn open(&self, name: &str) -> io::Result<Box<dyn File>> {
        let path = self.path_of(name)?;
        let file = options().open(&path).or_else(|error| {
            // Whoever only reads may: a copy of a directory where nobody writes.
            let refused = [io::ErrorKind::ReadOnlyFilesystem, io::ErrorKind::PermissionDenied];
            if refused.contains(&error.kind()) { options().write(false).open(&path) } else { Err(error) }
        })?;
        Ok(Box::new(RealFile(file)))
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        fs::rename(self.path_of(from)?, self.path_of(to)?)
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        fs::remove_file(self.path_of(name)?)
    }

    fn list(&self) -> io::Result<Vec<String>> {
        let mut names = Vec::new();
        for entry in fs::read_dir(&self.path)? {
            let name = entry?.file_name().into_string();
            names.extend(name.ok().filter(|name| check_name(name).is_ok()));
        }
        names.sort_unstable();
        Ok(names)
    }

    fn sync_names(&self) -> io::Result<()> {
        self.directory.sync_all()
    }

    fn lock(&self) -> io::Result<DirectoryLock> {
        let file = options().create(true).truncate(false).open(self.path.join(LOCK_NAME))?;
        rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive)
            .map_err(|error| owned(&file, error.into()))?;
        // For those who are refused. Without it the lock is one as well.
        let _ =
            file.set_len(0).and_then(|()| file.write_all_at(std::process::id().to_string().as_bytes(), 0));
        Ok(Box::new(file))
    }

    fn free_bytes(&self) -> io::Result<u64> {
        let space = rustix::fs::fstatvfs(&self.directory)?;
        Ok(space.f_bavail.saturating_mul(space.f_frsize))
    }
}

struct RealFile(fs::File);

impl File for RealFile {
    fn read_at(&self, bytes: &mut [u8], offset: u64) -> io::Result<()> {
        self.0.read_exact_at(bytes, offset)
    }

    #[cfg(target_os = "linux")]
    fn read_cached_at(&self, bytes: &mut [u8], offset: u64) -> io::Result<bool> {
        let expected = bytes.len();
        let mut parts = [io::IoSliceMut::new(bytes)];
        // Whatever is wrong is told by the read that may wait.
        let read = rustix::io::preadv2(&self.0, &mut parts, offset, ReadWriteFlags::NOWAIT);
        Ok(read == Ok(expected))
    }

    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        self.0.write_all_at(bytes, offset)
    }

    fn sync_data(&self) -> io::Result<()> {
        self.0.sync_data()
    }

    fn size(&self) -> io::Result<u64> {
        Ok(self.0.metadata()?.len())
    }

    fn set_size(&self, size: u64) -> io::Result<()> {
        self.0.set_len(size)
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{PermissionsExt, symlink};

    use data_bridge_kv_testkit::directory::Directory;

    use super::*;

    fn mode(path: &Path) -> u32 {
        fs::metadata(path).expect("there").permissions().mode() & 0o777
    }

    #[test]
    fn what_is_made_is_private() {
        let root = Directory::new("private");
        let path = root.join("a/b");
        let disk = RealDisk::open(&path).expect("directories can be made");
        disk.create("file").expect("a file can be made");
        let _lock = disk.lock().expect("the directory is free");
        let modes = ["a", "a/b", "a/b/file", "a/b/.lock"].map(|name| mode(&root.join(name)));
        assert_eq!(modes, [0o700, 0o700, 0o600, 0o600]);
    }

    #[test]
    fn symbolic_links_are_not_followed() {
        let root = Directory::new("links");
        let disk = RealDisk::open(&root.join("real")).expect("a directory can be made");
        fs::write(root.join("target"), "secret").expect("a file can be written");
        symlink(root.join("target"), root.join("real/link")).expect("a link can be made");
        symlink(root.join("target"), root.join("real/.lock")).expect("a link can be made");
        symlink(root.join("real"), root.join("link")).expect("a link can be made");
        assert!(disk.open("link").is_err() && disk.lock().is_err() && disk.create("link").is_err());
        assert!(RealDisk::open(&root.join("link")).is_err());
    }

    #[test]
    fn what_may_not_be_written_is_read() {
        // Nobody may write there, not even whoever may everything.
        let disk = RealDisk::open(Path::new("/sys/kernel")).expect("it is there");
        let Ok(file) = disk.open("uevent_seqnum") else {
            assert!(!Path::new("/sys/kernel/uevent_seqnum").exists());
            return;
        };
        let mut digit = [0];
        file.read_at(&mut digit, 0).expect("it is read");
        assert!(digit[0].is_ascii_digit());
        assert!(file.write_at(b"1", 0).is_err());
    }

    #[test]
    fn readers_share_a_directory_that_nobody_has_taken() {
        let root = Directory::new("readers");
        let disk = RealDisk::open(root.path()).expect("a directory can be made");
        assert!(RealDisk::open_to_read(&root.join("none")).is_err() && disk.list().is_ok());
        let _without_a_lock = RealDisk::open_to_read(root.path()).expect("nobody has taken it");
        assert!(!root.join(LOCK_NAME).exists(), "whoever reads makes nothing");
        let lock = disk.lock().expect("the directory is free");
        let refused = RealDisk::open_to_read(root.path()).expect_err("it is taken");
        assert_eq!(refused.to_string(), format!("this process already (pid {})", std::process::id()));
        drop(lock);
        let readers = [(); 2].map(|()| RealDisk::open_to_read(root.path()).expect("it is free again"));
        let refused = disk.lock().err().expect("it is read");
        assert_eq!(
            (refused.kind(), &*refused.to_string()),
            (io::ErrorKind::WouldBlock, "whoever reads it right now")
        );
        drop(readers);
        assert!(disk.lock().is_ok());
    }

    #[test]
    fn opening_again_finds_what_was_there() {
        let root = Directory::new("again");
        let disk = RealDisk::open(root.path()).expect("a directory can be made");
        disk.create("file").and_then(|file| file.write_at(b"x", 0)).expect("a file can be made");
        let again = RealDisk::open(root.path()).expect("it is there");
        assert_eq!(again.list().expect("names"), ["file"]);
        let _lock = disk.lock().expect("the directory is free");
        let refused = again.lock().err().expect("the lock holds between openings");
        assert_eq!(refused.kind(), io::ErrorKind::WouldBlock);
        assert_eq!(refused.to_string(), format!("this process already (pid {})", std::process::id()));
    }
}
