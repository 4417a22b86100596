//! How entries were before a step changed them, so that the transaction can take the step back.

use std::collections::HashSet;

use crate::hash::KeyHash;
use crate::table::OwnedEntry;

/// How every entry was before the step changed it first.
#[derive(Default)]
pub struct UndoLog {
    saved: HashSet<Box<str>>,
    images: Vec<Image>,
}

/// How one entry was.
pub struct Image {
    /// The key.
    pub key: Box<str>,
    /// Its hash.
    pub hash: KeyHash,
    /// `None` = there was no entry.
    pub entry: Option<OwnedEntry>,
}

impl UndoLog {
    /// Whether the key has no image yet; from now on it counts as having one.
    pub fn is_new(&mut self, key: &str) -> bool {
        self.saved.insert(key.into())
    }

    /// Adds the image of a key that was new.
    pub fn add(&mut self, key: &str, hash: KeyHash, entry: Option<OwnedEntry>) {
        self.images.push(Image { key: key.into(), hash, entry });
    }

    /// The images, last one first.
    pub fn into_images(self) -> impl Iterator<Item = Image> {
        self.images.into_iter().rev()
    }
}
