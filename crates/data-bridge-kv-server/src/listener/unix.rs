//! Unix sockets: the file of one is nobody's but its owner's, replaces a dead one, and goes with the server.

use std::io::{self, ErrorKind};
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};

use rustix::fs::Mode;
use rustix::process::umask;
use tokio::net::UnixListener;

/// Access for its owner only.
const PRIVATE: u32 = 0o600;

/// The file of a bound socket; it is removed with this.
#[derive(Debug)]
pub struct SocketFile {
    path: PathBuf,
    /// Device and number: another server may have replaced the file meanwhile.
    identity: (u64, u64),
}

impl SocketFile {
    /// Where it stands.
    pub fn path(&self) -> &Path {
        &self.path
    }
}

impl Drop for SocketFile {
    fn drop(&mut self) {
        if identity(&self.path).is_ok_and(|found| found == self.identity) {
            // Who removed it before us did the same.
            let _ = std::fs::remove_file(&self.path);
        }
    }
}

/// Binds a socket. A file that an ended server left there is replaced; a socket that somebody answers is in use, and
/// any other file is never touched.
pub fn bind(path: &Path) -> io::Result<(UnixListener, SocketFile)> {
    let listener = match bind_private(path) {
        Err(error) if error.kind() == ErrorKind::AddrInUse && is_dead(path)? => {
            std::fs::remove_file(path)?;
            bind_private(path)
        }
        outcome => outcome,
    }?;
    let file = SocketFile { path: path.to_owned(), identity: identity(path)? };
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(PRIVATE))?;
    Ok((listener, file))
}

/// From its first moment on nobody else may connect: the mask holds for the process, so files that other threads
/// create meanwhile are private too.
fn bind_private(path: &Path) -> io::Result<UnixListener> {
    let before = umask(Mode::RWXG | Mode::RWXO);
    let bound = UnixListener::bind(path);
    umask(before);
    bound
}

/// Whether the file is a socket that nobody answers.
fn is_dead(path: &Path) -> io::Result<bool> {
    if !std::fs::symlink_metadata(path)?.file_type().is_socket() {
        return Err(io::Error::new(ErrorKind::AlreadyExists, "a file that is no socket is there"));
    }
    match std::os::unix::net::UnixStream::connect(path) {
        Err(error) => Ok(error.kind() == ErrorKind::ConnectionRefused),
        Ok(_) => Ok(false),
    }
}

fn identity(path: &Path) -> io::Result<(u64, u64)> {
    std::fs::symlink_metadata(path).map(|found| (found.dev(), found.ino()))
}
