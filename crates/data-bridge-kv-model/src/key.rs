//! Keys: UTF-8 text of 1 to 256 characters. One constructor validates; every door uses it.

use crate::error::{Error, ErrorKind, Result};
use crate::limits::{KEY_BYTES, KEY_CHARS};

/// A borrowed key that passed validation: the bytes of its text.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Key<'a>(&'a [u8]);

impl<'a> Key<'a> {
    /// Validates `bytes` as a key: UTF-8, 1..=256 characters counted as Unicode scalar values; every character
    /// is allowed, control characters too. Costs one pass over the bytes.
    ///
    /// ```
    /// use data_bridge_kv_model::Key;
    /// assert!(Key::new("user:1".as_bytes()).is_ok());
    /// assert!(Key::new(b"").is_err());
    /// assert!(Key::new("é".repeat(256).as_bytes()).is_ok());
    /// assert!(Key::new("é".repeat(257).as_bytes()).is_err());
    /// ```
    #[inline]
    pub fn new(bytes: &'a [u8]) -> Result<Key<'a>> {
        // Most keys are short and ASCII, where a byte is a character and is told at a glance.
        if (1..=KEY_CHARS).contains(&bytes.len()) && bytes.is_ascii() {
            return Ok(Key(bytes));
        }
        Key::of_any(bytes)
    }

    fn of_any(bytes: &'a [u8]) -> Result<Key<'a>> {
        if bytes.len() > KEY_BYTES {
            return Err(invalid("key is longer than 256 characters"));
        }
        match std::str::from_utf8(bytes) {
            Ok(text) => Key::of(text),
            Err(_) => Err(invalid("key is not valid UTF-8")),
        }
    }

    /// The same for what is known to be text.
    #[inline]
    pub fn of(text: &'a str) -> Result<Key<'a>> {
        if text.is_empty() {
            return Err(invalid("key is empty"));
        }
        if text.len() > KEY_BYTES || text.len() > KEY_CHARS && text.chars().count() > KEY_CHARS {
            return Err(invalid("key is longer than 256 characters"));
        }
        Ok(Key(text.as_bytes()))
    }

    /// The key's text.
    #[inline]
    pub fn as_str(self) -> &'a str {
        // Validated, so never the empty text.
        std::str::from_utf8(self.0).unwrap_or_default()
    }

    /// The key's UTF-8 bytes, 1..=1024 of them.
    #[inline]
    pub fn as_bytes(self) -> &'a [u8] {
        self.0
    }
}

impl std::fmt::Debug for Key<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Key").field(&self.as_str()).finish()
    }
}

#[cold]
fn invalid(message: &'static str) -> Error {
    Error::new(ErrorKind::InvalidKey, message)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_characters_not_bytes() {
        let widest = "\u{1F600}".repeat(256);
        assert_eq!(widest.len(), KEY_BYTES);
        assert!(Key::new(widest.as_bytes()).is_ok());
        assert!(Key::new("\u{1F600}".repeat(257).as_bytes()).is_err());
        assert!(Key::new("a".repeat(256).as_bytes()).is_ok());
        assert!(Key::new("a".repeat(257).as_bytes()).is_err());
    }

    #[test]
    fn refuses_what_is_not_utf8_and_takes_control_characters() {
        assert!(Key::new(b"\x06\x16\0").is_ok());
        for bad in [&b"\xff"[..], b"a\xc3", b"\xed\xa0\x80", b""] {
            assert_eq!(Key::new(bad).unwrap_err().kind(), ErrorKind::InvalidKey);
        }
    }
}
