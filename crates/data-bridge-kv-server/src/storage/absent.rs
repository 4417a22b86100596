//! Object storage where the program was built without it: there is none, and whoever names one is told.

use std::convert::Infallible;
use std::fmt;
use std::io;

use data_bridge_kv::disk::Disk;
use data_bridge_kv_model::{Error, ErrorKind, Result};

/// None.
#[derive(Clone, Debug)]
pub struct Storage(Infallible);

impl Storage {
    /// Refuses.
    ///
    /// # Errors
    /// Always.
    pub fn open(url: &str) -> Result<Storage> {
        let text = "this program was built without object storage; build it with --features object-store";
        Err(Error::new(ErrorKind::Unavailable, format!("{url}: {text}")))
    }

    /// Not to be called.
    #[must_use]
    pub fn below(&self, _: &str) -> Storage {
        match self.0 {}
    }

    /// Not to be called.
    pub fn disk(&self) -> Box<dyn Disk> {
        match self.0 {}
    }

    /// Not to be called.
    pub fn names(&self) -> io::Result<Vec<String>> {
        match self.0 {}
    }

    /// Not to be called.
    pub fn remove(&self, _: &str) -> io::Result<()> {
        match self.0 {}
    }
}

impl fmt::Display for Storage {
    fn fmt(&self, _: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {}
    }
}
