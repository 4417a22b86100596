//! `data-bridge-kv export` and `import`: a namespace as JSON Lines, one object a key, for people to look at and to change.
//!
//! ```text
//! {"key": "...", "kind": "hash", "expires": "2026-11-22T13:05:00.000000+00:00", "value": {...}}
//! ```
//! `expires` is left out where a key does not, and is a number, unix ms, where no calendar has it. Values: see `json.rs`.

use std::fs::File;
use std::io::{BufRead, BufReader, BufWriter, IsTerminal, Write};
use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;

use data_bridge_kv_model::command::table::opcode;
use data_bridge_kv_model::limits::DEADLINE_MS;
use data_bridge_kv_model::show::show;
use data_bridge_kv_model::value::Moment;
use data_bridge_kv_model::{Arg, Error, ErrorKind, Key, Kind, Reply, Value, ValueRef};
use serde_json::Value as Json;

use super::store::{PATIENCE, Request, Store};
use super::{BAD_DIRECTORY, FAILED, fail};
use crate::cli::{Existing, ExportArgs, ImportArgs};
use crate::json;

/// Keys of one page of a scan, and keys that are written side by side.
const PAGE: usize = 100;
/// Longest line that is read.
const LINE_BYTES: u64 = 1 << 30;
/// Keys from one word on progress to the next.
const TOLD: u64 = 1000;

/// Why it ended, with the exit code.
struct Failure(u8, String);

impl From<Error> for Failure {
    fn from(error: Error) -> Failure {
        let code = if error.kind() == ErrorKind::Corruption { BAD_DIRECTORY } else { FAILED };
        Failure(code, error.to_string())
    }
}

impl From<String> for Failure {
    fn from(text: String) -> Failure {
        Failure(FAILED, text)
    }
}

fn ended(outcome: Result<String, Failure>) -> ExitCode {
    match outcome {
        Ok(text) => {
            // Nobody may be there to read it.
            let _ = writeln!(std::io::stderr(), "{text}");
            ExitCode::SUCCESS
        }
        Err(Failure(code, text)) => fail(code, &text),
    }
}

/// Tells a terminal how many keys are done.
fn tell(what: &str, keys: u64) {
    if keys.is_multiple_of(TOLD) && std::io::stderr().is_terminal() {
        let _ = write!(std::io::stderr(), "\r{what} {keys} keys ");
    }
}

pub(super) fn export(args: &ExportArgs) -> ExitCode {
    ended(exported(args))
}

fn exported(args: &ExportArgs) -> Result<String, Failure> {
    let store = match args.source.contains("://") {
        true => Store::connect(&args.source)?,
        false => Store::open(Path::new(&args.source), args.namespace.as_deref())?,
    };
    if args.file == "-" {
        let keys = write_all(&store, &mut std::io::stdout().lock())?;
        return Ok(format!("exported {keys} keys"));
    }
    let file = File::create_new(&args.file).map_err(|error| format!("{}: {error}", args.file))?;
    let mut out = BufWriter::new(file);
    let written = write_all(&store, &mut out).and_then(|keys| {
        out.into_inner().map_err(|error| error.to_string())?.sync_all().map_err(|error| error.to_string())?;
        Ok(keys)
    });
    if written.is_err() {
        // A part of a namespace could be taken for the whole.
        let _ = std::fs::remove_file(&args.file);
    }
    Ok(format!("exported {} keys to {}", written?, args.file))
}

fn write_all(store: &Store, out: &mut dyn Write) -> Result<u64, Failure> {
    let (mut cursor, mut keys) = (Value::Text("0".into()), 0);
    loop {
        let words =
            vec![cursor, "COUNT".into(), i64::try_from(PAGE).unwrap_or(i64::MAX).into(), "ENTRIES".into()];
        let page = one(store.ask(&[(opcode::SCAN, words.into())]))?;
        let (next, found) = page_of(page).ok_or_else(|| "a scan was not answered by a page".to_owned())?;
        for (key, value, deadline) in &found {
            let line = line_of(key, value, *deadline).ok_or_else(|| format!("{key:?} is no key"))?;
            writeln!(out, "{line}").map_err(|error| error.to_string())?;
            keys += 1;
            tell("exported", keys);
        }
        if next == Value::Text("0".into()) {
            out.flush().map_err(|error| error.to_string())?;
            return Ok(keys);
        }
        cursor = next;
    }
}

fn one(mut answers: Vec<data_bridge_kv_model::Result<Reply>>) -> Result<Reply, Failure> {
    Ok(answers.pop().ok_or_else(|| "no answer".to_owned())??)
}

/// A key, its value and its deadline.
type Found = (Value, Value, Option<u64>);

/// The cursor to go on from, and what was found.
fn page_of(reply: Reply) -> Option<(Value, Vec<Found>)> {
    let Reply::Container(_, parts) = reply else { return None };
    let Ok([Reply::Value(next), Reply::Container(_, items)]) = <[Reply; 2]>::try_from(parts) else {
        return None;
    };
    let mut entries = Vec::new();
    let mut items = items.into_iter();
    while let Some(key) = items.next() {
        let (Reply::Value(key), Some(Reply::Container(_, entry))) = (key, items.next()) else { return None };
        let Ok([Reply::Value(value), Reply::Integer(at)]) = <[Reply; 2]>::try_from(entry) else {
            return None;
        };
        entries.push((key, value, u64::try_from(at).ok()));
    }
    Some((next, entries))
}

fn line_of(key: &Value, value: &Value, deadline: Option<u64>) -> Option<String> {
    let Value::Text(key) = key else { return None };
    let (key, kind) = (Json::String(key.as_ref().to_owned()), value.kind().name());
    let expires = deadline.map(|at| format!("\"expires\":{},", expires(at))).unwrap_or_default();
    Some(format!("{{\"key\":{key},\"kind\":\"{kind}\",{expires}\"value\":{}}}", json::write(value)))
}

fn expires(at_ms: u64) -> Json {
    let local_us = i64::try_from(at_ms).unwrap_or(i64::MAX).saturating_mul(1000);
    let moment = Moment { local_us, offset_us: Some(0), fold: false, zone: None };
    let (encoded, mut text) = (Value::Timestamp(Box::new(moment)).encode(), Vec::new());
    let is_shown = ValueRef::decode(&encoded).is_ok_and(|value| show(value, &mut text));
    match String::from_utf8(text).ok().filter(|_| is_shown) {
        Some(text) => Json::String(text),
        None => Json::Number(at_ms.into()),
    }
}

/// A line that was read.
struct Entry {
    line: u64,
    key: String,
    value: Value,
    deadline: Option<u64>,
}

#[derive(Default)]
struct Tally {
    written: u64,
    skipped: u64,
    expired: u64,
}

pub(super) fn import(args: &ImportArgs) -> ExitCode {
    if args.source.starts_with("redis://") || args.source.starts_with("rediss://") {
        let text = "reading Redis is done by the Python package: `python -m data_bridge.kv import redis://... kv://...`";
        return fail(super::BAD_CONFIGURATION, text);
    }
    ended(imported(args))
}

fn imported(args: &ImportArgs) -> Result<String, Failure> {
    let mut input: Box<dyn BufRead> = match args.source.as_str() {
        "-" => Box::new(BufReader::new(std::io::stdin())),
        path => Box::new(BufReader::new(File::open(path).map_err(|error| format!("{path}: {error}"))?)),
    };
    let store = Store::connect(&args.target)?;
    let (mut tally, mut batch) = (Tally::default(), Vec::new());
    for line in 1_u64.. {
        let mut text = String::new();
        let read = std::io::Read::take(&mut input, LINE_BYTES).read_line(&mut text);
        let count = read.map_err(|error| format!("line {line}: {error}"))?;
        if !text.trim().is_empty() {
            let told = |why| format!("line {line}: {why}; {} keys were imported", tally.written);
            batch.push(entry(line, &text).map_err(told)?);
        }
        if batch.len() == PAGE || count == 0 {
            put(&store, std::mem::take(&mut batch), args.existing(), &mut tally)?;
        }
        if count == 0 {
            break;
        }
    }
    let Tally { written, skipped, expired } = tally;
    Ok(format!(
        "imported {written} keys, {skipped} that were there left as they are, {expired} expired since"
    ))
}

fn entry(line: u64, text: &str) -> Result<Entry, String> {
    let Json::Object(mut fields) = json::parse(text)? else {
        return Err("an object is needed: {\"key\": .., \"value\": ..}".to_owned());
    };
    let Some(Json::String(key)) = fields.shift_remove("key") else { return Err("no key".to_owned()) };
    Key::new(key.as_bytes()).map_err(|error| error.to_string())?;
    let value = json::read(&fields.shift_remove("value").ok_or("no value")?)?;
    if let Some(kind) = fields.shift_remove("kind") {
        let named = kind.as_str().and_then(Kind::from_name);
        if named != Some(value.kind()) {
            return Err(format!("the value is of kind {}, the line says {kind}", value.kind().name()));
        }
    }
    let deadline = fields.shift_remove("expires").map(|at| deadline(&at)).transpose()?;
    match fields.keys().next() {
        Some(unknown) => Err(format!("{unknown:?} is neither key, kind, expires nor value")),
        None => Ok(Entry { line, key, value, deadline }),
    }
}

/// Unix ms.
fn deadline(expires: &Json) -> Result<u64, String> {
    let moment = |text: &str| {
        let mut scratch = Vec::new();
        let read = Arg::Literal(Kind::Timestamp, text.as_bytes()).value(&mut scratch);
        match read.map(Value::from_ref) {
            Ok(Value::Timestamp(moment)) => Some(moment.local_us.checked_sub(moment.offset_us?)? / 1000),
            _ => None,
        }
    };
    let at = match expires {
        Json::String(text) => moment(text).and_then(|at| u64::try_from(at).ok()),
        other => other.as_u64(),
    };
    let told = || format!("expires {expires} is no time: a timestamp with an offset, or unix ms");
    at.filter(|at| *at <= DEADLINE_MS).ok_or_else(told)
}

fn put(store: &Store, entries: Vec<Entry>, existing: Existing, tally: &mut Tally) -> Result<(), Failure> {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
    let now_ms = u64::try_from(now.as_millis()).unwrap_or(u64::MAX);
    let (live, expired): (Vec<Entry>, Vec<Entry>) =
        entries.into_iter().partition(|entry| entry.deadline.is_none_or(|at| at > now_ms));
    tally.expired += expired.len() as u64;
    let lines: Vec<(u64, String, Option<u64>)> =
        live.iter().map(|entry| (entry.line, entry.key.clone(), entry.deadline)).collect();
    let request = |Entry { key, value, deadline, .. }: Entry| -> Request {
        let mut words = vec![Value::from(key.as_str()), value];
        if existing != Existing::Replace {
            words.push("NX".into());
        }
        if let Some(at) = deadline {
            words.extend(["PXAT".into(), i64::try_from(at).unwrap_or(i64::MAX).into()]);
        }
        (opcode::KV_SET, words.into())
    };
    let requests: Vec<Request> = live.into_iter().map(request).collect();
    let answers = store.ask_patiently(&requests, PATIENCE);
    for (((line, key, deadline), request), answer) in lines.into_iter().zip(&requests).zip(answers) {
        match answer.reply {
            Err(error) => {
                let text = format!("line {line}, key {key:?}: {error}; {} keys were imported", tally.written);
                return Err(Failure(FAILED, text));
            }
            Ok(Reply::Ok | Reply::Boolean(true)) => tally.written += 1,
            Ok(_) if answer.is_repeated && is_there(store, request, deadline)? => tally.written += 1,
            Ok(_) if existing == Existing::Skip => tally.skipped += 1,
            Ok(_) => {
                let text = format!(
                    "line {line}: key {key:?} is there already: --replace overwrites such keys, --skip leaves them; \
                     {} keys were imported",
                    tally.written
                );
                return Err(Failure(FAILED, text));
            }
        }
        tell("imported", tally.written);
    }
    Ok(())
}

/// Whether a key is as a write whose first answer was lost wanted it: then that one was carried out.
fn is_there(store: &Store, (_, words): &Request, deadline: Option<u64>) -> Result<bool, Failure> {
    let [key, value, ..] = &words[..] else { return Ok(false) };
    let ask = |opcode| (opcode, Arc::from([key.clone()]));
    let mut answers =
        store.ask_patiently(&[ask(opcode::KV_GET), ask(opcode::PEXPIRETIME)], PATIENCE).into_iter();
    let (Some(found), Some(at)) = (answers.next(), answers.next()) else { return Ok(false) };
    let is_same = matches!(found.reply?, Reply::Value(found) if found.encode() == value.encode());
    Ok(is_same && at.reply? == Reply::Integer(deadline.map_or(-1, u64::cast_signed)))
}
