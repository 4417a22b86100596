//! A directory of a test's own.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};

/// A directory that is empty in the beginning and removed in the end.
///
/// ```
/// use data_bridge_kv_testkit::directory::Directory;
///
/// let directory = Directory::new("example");
/// std::fs::write(directory.join("file"), "text").unwrap();
/// let path = directory.path().to_owned();
/// drop(directory);
/// assert!(!path.exists());
/// ```
#[derive(Debug)]
pub struct Directory(PathBuf);

impl Directory {
    /// Makes one. Its name is for whoever finds it.
    pub fn new(name: &str) -> Directory {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let path = std::env::temp_dir().join(format!("kv-{name}-{}-{number}", std::process::id()));
        // A process with the same number may have been killed.
        let _ = std::fs::remove_dir_all(&path);
        std::fs::create_dir_all(&path).expect("directories for tests can be made");
        Directory(path)
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.0
    }

    /// The same as text, for arguments of programs.
    pub fn text(&self) -> &str {
        self.0.to_str().expect("directories for tests have plain names")
    }

    /// The path of a file in it.
    pub fn join(&self, name: impl AsRef<Path>) -> PathBuf {
        self.0.join(name)
    }
}

impl Drop for Directory {
    fn drop(&mut self) {
        // A test may have removed it itself.
        let _ = std::fs::remove_dir_all(&self.0);
    }
}
