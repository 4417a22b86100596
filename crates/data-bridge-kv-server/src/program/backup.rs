//! `data-bridge-kv backup`: snapshots of a directory that no server uses, and what to do with those that a server made.

use std::path::Path;
use std::process::ExitCode;

use data_bridge_kv::disk::Disk;
use data_bridge_kv::manifest::{self, Manifest, ManifestError};
use data_bridge_kv::snapshot::{Captured, Snapshot};
use data_bridge_kv::wal::{self, Wal};
use data_bridge_kv_model::{Error, ErrorKind, Result};

use super::{BAD_DIRECTORY, FAILED, fail, readable_directory, say};
use crate::cli::BackupAction;
use crate::config::size;
use crate::destination::{Destination, unix_ms};

pub(super) fn run(action: &BackupAction) -> ExitCode {
    let done = match action {
        BackupAction::Create { data, to, keep } => create(data, to, *keep),
        BackupAction::List { folder } => return list(folder),
        BackupAction::Verify { snapshot } => {
            existing(snapshot).and_then(|disk| Snapshot::verify(&*disk, &mut progress("verified")))
        }
        BackupAction::Restore { snapshot, into } => existing(snapshot).and_then(|from| {
            let into = Destination::Folder(into.clone()).disk()?;
            Snapshot::restore(&*from, &*into, unix_ms(), &mut progress("restored"))
        }),
    };
    match done {
        Ok(snapshot) => say(&format!("{}\n", line_of(&snapshot))),
        Err(error) if error.kind() == ErrorKind::Corruption => fail(BAD_DIRECTORY, &error),
        Err(error) => fail(FAILED, &format!("{}{error}", place_of(action))),
    }
}

/// What an error that names no place is about.
fn place_of(action: &BackupAction) -> String {
    match action {
        BackupAction::Verify { snapshot } => format!("{snapshot}: "),
        BackupAction::Restore { snapshot, into } => format!("{snapshot} into {}: ", into.display()),
        BackupAction::Create { .. } | BackupAction::List { .. } => String::new(),
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

/// The files of a snapshot that must be there.
fn existing(place: &str) -> Result<Box<dyn Disk>> {
    Destination::parse(place)?.existing()
}

fn create(data: &Path, to: &str, keep: Option<u32>) -> Result<Snapshot> {
    let unavailable = |text: String| Error::new(ErrorKind::Unavailable, text);
    let to = Destination::parse(to)?;
    if keep.is_some() && matches!(to, Destination::Folder(_)) {
        return Err(Error::invalid("--keep is for a URL: a directory gets this one snapshot"));
    }
    let source = &*readable_directory(data).map_err(unavailable)?;
    let failed = |error: std::io::Error| unavailable(format!("{}: {error}", data.display()));
    let damaged = |what: &dyn std::fmt::Display| {
        Error::new(ErrorKind::Corruption, format!("{}: {what}", data.display()))
    };
    // Nothing could be read of a copy without it, although each of its files would be whole.
    match Manifest::read(source) {
        Ok(Some(_)) => {}
        Ok(None) => return Err(damaged(&format_args!("{} is missing", manifest::NAME))),
        Err(ManifestError::Disk(error)) => return Err(failed(error)),
        Err(error) => return Err(damaged(&error)),
    }
    let lsn = match Wal::exists(source).map_err(failed)? {
        true => {
            let found = wal::verify(source, |_, _, _| {});
            found.map_err(|error| Error::new(ErrorKind::Corruption, error.to_string()))?.last
        }
        false => 0,
    };
    let captured = Captured::open(source, Vec::new()).map_err(failed)?;
    let place = match &to {
        Destination::Folder(_) => to.clone(),
        Destination::Storage(_) => to.next(),
    };
    let disk = place.disk()?;
    let copied = captured.copy_to(&*disk, lsn, unix_ms(), &mut progress("copied"));
    if matches!(to, Destination::Storage(_)) {
        match &copied {
            Ok(_) => drop(say(&format!("{place}\n"))),
            Err(_) => drop(place.remove()),
        }
    }
    let snapshot = copied?;
    if let Some(keep) = keep {
        to.prune(keep as usize)?;
    }
    Ok(snapshot)
}

fn list(folder: &str) -> ExitCode {
    let found = match Destination::parse(folder).and_then(|folder| folder.list()) {
        Ok(found) => found,
        Err(error) => return fail(FAILED, &error),
    };
    let (mut text, mut whole) = (String::new(), 0);
    for (place, snapshot) in &found {
        let what = match snapshot {
            Ok(snapshot) => line_of(snapshot),
            Err(error) => error.to_string(),
        };
        whole += usize::from(snapshot.is_ok());
        text.push_str(&format!("{place}: {what}\n"));
    }
    say(&format!("{text}{whole} snapshots\n"))
}
