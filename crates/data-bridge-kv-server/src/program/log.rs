//! `data-bridge-kv log`: what is in a log, whether it is sound, and how to give up a part of it.

use std::fmt::Write;
use std::path::Path;
use std::process::ExitCode;

use data_bridge_kv::DataDirectory;
use data_bridge_kv::disk::Disk;
use data_bridge_kv::engine::describe_record;
use data_bridge_kv::record::Record;
use data_bridge_kv::wal::{self, Line, OpenError, Repaired};

use super::{BAD_DIRECTORY, FAILED, fail, readable_directory, say, unused_directory};
use crate::cli::LogAction;

/// Bytes of a payload that are shown.
const SHOWN_BYTES: usize = 48;

pub(super) fn run(action: &LogAction) -> ExitCode {
    match action {
        LogAction::Dump { directory, from, to } => reading(directory, |disk| dump(disk, *from, *to)),
        LogAction::Verify { directory } => reading(directory, verify),
        LogAction::Repair { directory, accept_loss_after } => {
            let repaired = |found: DataDirectory| repair(&**found.disk(), *accept_loss_after);
            ended(directory, unused_directory(directory).map(repaired))
        }
    }
}

fn reading(path: &Path, act: impl FnOnce(&dyn Disk) -> Result<ExitCode, OpenError>) -> ExitCode {
    ended(path, readable_directory(path).map(|disk| act(&*disk)))
}

/// The exit code; what went wrong is told.
fn ended(path: &Path, done: Result<Result<ExitCode, OpenError>, String>) -> ExitCode {
    let done = match done {
        Ok(done) => done,
        Err(text) => return fail(FAILED, &text),
    };
    match done {
        Ok(code) => code,
        Err(error @ (OpenError::Damaged { .. } | OpenError::Unmarked { .. })) => {
            fail(BAD_DIRECTORY, &format!("{}: {error}", path.display()))
        }
        Err(error) => fail(FAILED, &format!("{}: {error}", path.display())),
    }
}

fn dump(disk: &dyn Disk, from: u64, to: u64) -> Result<ExitCode, OpenError> {
    let mut records = 0_u64;
    let mut code = ExitCode::SUCCESS;
    wal::dump(disk, |line| {
        let is_asked_for = match line {
            Line::Record { lsn, .. } => (from..=to).contains(&lsn),
            _ => true,
        };
        if is_asked_for {
            records += u64::from(matches!(line, Line::Record { .. }));
            code = say(&format!("{}\n", line_of(line, shown)));
        }
    })?;
    say(&format!("{records} records\n"));
    Ok(code)
}

/// A line of a dump; `describe` says what a record is.
fn line_of(line: Line<'_>, describe: impl FnOnce(&Record<'_>) -> String) -> String {
    let lsn = |lsn: Option<u64>| lsn.map_or("damaged or missing".to_owned(), |lsn| lsn.to_string());
    match line {
        Line::Marks { watermark, start } => {
            format!("watermark {}, start {}", lsn(watermark), lsn(start))
        }
        Line::Segment { file, bytes, first, after } => {
            format!("{file}: {bytes} bytes, from record {first} on, after segment {after}")
        }
        Line::Claim { offset, durable, is_end: false } => {
            format!("  at {offset}: batch, {durable} was durable")
        }
        Line::Claim { offset, durable, is_end: true } => {
            format!("  at {offset}: closed, {durable} was durable")
        }
        Line::Record { lsn, offset, record } => {
            let head = record.head;
            format!(
                "  at {offset}: record {lsn}, namespace {}, generation {}, kind {}, {} bytes: {}",
                head.namespace,
                head.generation,
                head.kind,
                record.payload.len(),
                describe(&record)
            )
        }
        Line::Rest { file, offset, bytes } => {
            format!("{file}: nothing is whole from offset {offset} on, in {bytes} bytes")
        }
    }
}

/// The effects of a record, one behind the other; of one that has none the first bytes.
fn shown(record: &Record<'_>) -> String {
    if let Some(effects) = describe_record(record) {
        return effects;
    }
    let (shown, rest) = record.payload.split_at(record.payload.len().min(SHOWN_BYTES));
    let mut text = String::new();
    for byte in shown {
        // Writing to a string does not fail.
        let _ = write!(text, "{byte:02x}");
    }
    if !rest.is_empty() {
        text.push_str("..");
    }
    text
}

fn verify(disk: &dyn Disk) -> Result<ExitCode, OpenError> {
    let mut read = 0;
    let found = wal::verify(disk, |file, bytes, all| {
        let percent = (read * 100_u64).checked_div(all).unwrap_or(0);
        read += bytes;
        say(&format!("{percent:>3} % {file}: {bytes} bytes\n"));
    })?;
    let mut text = format!(
        "whole: records {} to {} in {} segments, {} bytes; known to be durable up to {}",
        found.first, found.last, found.segments, found.bytes, found.watermark
    );
    if found.was_closed {
        text.push_str("; closed in good order");
    }
    if found.unfinished > 0 {
        text.push_str(&format!(
            "; {} unfinished bytes behind the end, which were never acknowledged",
            found.unfinished
        ));
    }
    text.push('\n');
    Ok(say(&text))
}

fn repair(disk: &dyn Disk, accept_loss_after: u64) -> Result<ExitCode, OpenError> {
    let Repaired { last, cuts } = wal::repair(disk, accept_loss_after)?;
    for cut in cuts {
        let kept_in = cut.kept_in.unwrap_or_default();
        say(&format!(
            "{}: {} bytes from offset {} on are in {kept_in} now\n",
            cut.file, cut.bytes, cut.offset
        ));
    }
    Ok(say(&format!("the log ends with record {last}\n")))
}
