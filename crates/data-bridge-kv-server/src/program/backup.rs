//! `data-bridge-kv backup`: snapshots of a directory that no server uses, and what to do with those that a server made.

use std::path::Path;
use std::process::ExitCode;

use data_bridge_kv::disk::RealDisk;
use data_bridge_kv::snapshot::{Captured, Snapshot};
use data_bridge_kv::wal::{self, Wal};
use data_bridge_kv_model::{Error, ErrorKind, Result};

use super::{BAD_DIRECTORY, FAILED, fail, say, unused_directory};
use crate::cli::BackupAction;
use crate::config::size;
use crate::snapshots;

pub(super) fn run(action: &BackupAction) -> ExitCode {
    let done = match action {
        BackupAction::Create { data, to } => create(data, to),
        BackupAction::List { folder } => return list(folder),
        BackupAction::Verify { snapshot } => {
            on_disk(snapshot).and_then(|disk| Snapshot::verify(&disk, &mut progress("verified")))
        }
        BackupAction::Restore { snapshot, into } => on_disk(snapshot)
            .and_then(|from| Snapshot::restore(&from, &disk(into)?, &mut progress("restored"))),
    };
    match done {
        Ok(snapshot) => say(&format!("{}\n", line_of(&snapshot))),
        Err(error) if error.kind() == ErrorKind::Corruption => fail(BAD_DIRECTORY, &error),
        Err(error) => fail(FAILED, &error),
    }
}

/// Tells of each tenth that is done.
fn progress(what: &'static str) -> impl FnMut(u64, u64) {
    let mut told = 0;
    move |done, all| {
        let tenths = (done * 10).checked_div(all).unwrap_or(10);
        if tenths > told {
            told = tenths;
            say(&format!("{what} {} of {}\n", size::show(done), size::show(all)));
        }
    }
}

fn line_of(snapshot: &Snapshot) -> String {
    format!(
        "state at record {}, made at {} (unix ms), {} files, {}",
        snapshot.lsn,
        snapshot.made_ms,
        snapshot.files(),
        size::show(snapshot.bytes())
    )
}

fn disk(path: &Path) -> Result<RealDisk> {
    RealDisk::open(path)
        .map_err(|error| Error::new(ErrorKind::Unavailable, format!("{}: {error}", path.display())))
}

/// The disk of a directory that must be there.
fn on_disk(path: &Path) -> Result<RealDisk> {
    if !path.is_dir() {
        return Err(Error::new(ErrorKind::NotFound, format!("{}: no such directory", path.display())));
    }
    disk(path)
}

fn create(data: &Path, to: &Path) -> Result<Snapshot> {
    let unavailable = |text: String| Error::new(ErrorKind::Unavailable, text);
    let directory = unused_directory(data).map_err(unavailable)?;
    let source = &**directory.disk();
    let failed = |error: std::io::Error| unavailable(format!("{}: {error}", data.display()));
    let lsn = match Wal::exists(source).map_err(failed)? {
        true => {
            let found = wal::verify(source, |_, _, _| {});
            found.map_err(|error| Error::new(ErrorKind::Corruption, error.to_string()))?.last
        }
        false => 0,
    };
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
    let made_ms = u64::try_from(now.as_millis()).unwrap_or(u64::MAX);
    Captured::open(source).map_err(failed)?.copy_to(&disk(to)?, lsn, made_ms, &mut progress("copied"))
}

fn list(folder: &Path) -> ExitCode {
    let found = match snapshots::list(folder) {
        Ok(found) => found,
        Err(error) => return fail(FAILED, &format!("{}: {error}", folder.display())),
    };
    let mut text = String::new();
    for (path, snapshot) in &found {
        let what = match snapshot {
            Ok(snapshot) => line_of(snapshot),
            Err(error) => error.to_string(),
        };
        text.push_str(&format!("{}: {what}\n", path.display()));
    }
    say(&format!("{text}{} snapshots\n", found.len()))
}
