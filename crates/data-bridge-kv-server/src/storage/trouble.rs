//! What went wrong with object storage, and what to do about it: one line.

use std::fmt;
use std::io;

/// Longest text of a provider that is passed on.
const SAID_CHARACTERS: usize = 300;
/// Where a cloud's machine would find credentials.
const OF_THE_MACHINE: [&str; 3] = ["169.254.169.254", "169.254.170.2", "metadata.google.internal"];
const REFUSED: [&str; 4] =
    ["403 Forbidden", "401 Unauthorized", "SignatureDoesNotMatch", "InvalidAccessKeyId"];
const NO_BUCKET: [&str; 4] =
    ["NoSuchBucket", "ContainerNotFound", "bucket does not exist", "NoSuchContainer"];

const NO_RIGHT: &str = "these credentials are refused, or have no right to do that";

/// Why a request failed.
pub struct Trouble {
    kind: io::ErrorKind,
    advice: &'static str,
    said: String,
}

impl Trouble {
    /// Tells apart what a user does something else about.
    pub fn of(error: &object_store::Error) -> Trouble {
        let text = error.to_string();
        let has = |words: &[&str]| words.iter().any(|word| text.contains(word));
        let (kind, advice) = match error {
            _ if has(&OF_THE_MACHINE) => (
                io::ErrorKind::PermissionDenied,
                "no credentials: give AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, GOOGLE_SERVICE_ACCOUNT or AZURE_STORAGE_*",
            ),
            _ if has(&NO_BUCKET) => (io::ErrorKind::Other, "there is no such bucket"),
            object_store::Error::PermissionDenied { .. } | object_store::Error::Unauthenticated { .. } => {
                (io::ErrorKind::PermissionDenied, NO_RIGHT)
            }
            _ if has(&REFUSED) => (io::ErrorKind::PermissionDenied, NO_RIGHT),
            object_store::Error::NotFound { .. } => (io::ErrorKind::NotFound, "it is not there"),
            _ => (io::ErrorKind::Other, "the storage fails"),
        };
        Trouble { kind, advice, said: in_one_line(&text) }
    }

    /// As an error of this bucket.
    pub fn at(&self, bucket: &str) -> io::Error {
        io::Error::new(self.kind, format!("{bucket}: {self}"))
    }
}

impl fmt::Display for Trouble {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "{} ({})", self.advice, self.said)
    }
}

fn in_one_line(text: &str) -> String {
    let shown = text.chars().take(SAID_CHARACTERS);
    shown.map(|character| if character.is_control() { ' ' } else { character }).collect()
}
