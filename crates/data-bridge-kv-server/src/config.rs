//! The server's settings: flags over `KV_*` environment over a TOML file over defaults. Unknown keys are errors, and
//! each value remembers where it came from.
//!
//! `keys` lists the settings once; `layers` merges their sources as text; this file reads the text.

pub mod cgroup;
pub mod keys;
pub mod layers;
pub mod namespaces;
pub mod size;

use std::fmt;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use data_bridge_kv::NamespaceSettings;
use keys::KeyName;
use layers::{Layers, Merged, Source};
use size::Size;

use crate::destination::Destination;
use crate::endpoint::Endpoint;

/// Why the server doesn't start: one line that names the setting and the remedy.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConfigError(pub String);

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for ConfigError {}

/// What the log looks like.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogFormat {
    /// Lines for people.
    Text,
    /// One JSON object a line.
    Json,
}

/// Where the password comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PasswordSource {
    /// Nobody has to authenticate.
    None,
    /// The first line of this file.
    File(PathBuf),
    /// The environment: accepted with a warning, because other processes may read it.
    Environment(String),
}

/// Everything that is decided before the server starts.
#[derive(Clone, Debug)]
pub struct Config {
    /// Addresses for clients.
    pub listen: Vec<Endpoint>,
    /// Whether nobody named them: then one of IPv6 is left out where the machine has none.
    pub listen_is_default: bool,
    /// Address of the admin port; `None` = no such port.
    pub admin: Option<SocketAddr>,
    /// The memory budget as asked for.
    pub max_memory: Size,
    /// Worker threads; `None` = as many as the machine or container gives.
    pub threads: Option<usize>,
    /// The policies of the 16 namespaces.
    pub namespaces: Vec<NamespaceSettings>,
    /// The password.
    pub password: PasswordSource,
    /// Whether a public address without a password is meant.
    pub insecure_no_auth: bool,
    /// How long the server goes on serving after SIGTERM, not ready, before it stops to accept.
    pub drain_delay: Duration,
    /// The log's format.
    pub log_format: LogFormat,
    /// The log's level: error, warn, info, debug or trace.
    pub log_level: String,
    /// Most connections.
    pub max_clients: usize,
    /// Most connections of one address.
    pub max_clients_per_address: usize,
    /// Directory that entries overflow to; `None` = none.
    pub data: Option<PathBuf>,
    /// Most bytes to use there, as asked for.
    pub max_disk: Size,
    /// Bytes of the log of task namespaces after which it is cut, by a checkpoint.
    pub log_bytes: u64,
    /// Where snapshots go; `None` = none are made.
    pub snapshot_dest: Option<Destination>,
    /// From one snapshot to the next; zero = only when asked.
    pub snapshot_every: Duration,
    /// How many snapshots stay.
    pub snapshot_keep: usize,
}

/// The least length of the log that may be asked for.
const LOG_BYTES_MIN: u64 = 1 << 20;
/// The least memory budget that may be asked for. Redis's 0, for no budget, is none here.
const MEMORY_BYTES_MIN: u64 = 1 << 20;

impl Config {
    /// Merges the layers and reads every value; also answers the merged text for `config print`.
    pub fn read(layers: &Layers) -> Result<(Config, Merged), ConfigError> {
        let merged = layers.merge()?;
        let config = Config {
            listen: list(&merged, KeyName::Listen, Endpoint::parse)?,
            listen_is_default: *merged.source(KeyName::Listen) == Source::Default,
            admin: one(&merged, KeyName::Admin, |text| match text {
                "off" | "" => Ok(None),
                text => admin_address(text).map(Some),
            })?,
            max_memory: one(&merged, KeyName::MaxMemory, |text| match Size::parse(text)? {
                Size::Bytes(bytes) if bytes < MEMORY_BYTES_MIN => {
                    Err("a size of at least 1MB, or auto".to_owned())
                }
                size => Ok(size),
            })?,
            threads: one(&merged, KeyName::Threads, |text| match text {
                "auto" => Ok(None),
                text => whole(text, 1, 1024).map(Some),
            })?,
            namespaces: namespaces::read(&merged)?,
            password: password(&merged)?,
            insecure_no_auth: one(&merged, KeyName::InsecureNoAuth, truth)?,
            drain_delay: one(&merged, KeyName::DrainDelay, seconds)?,
            log_format: one(&merged, KeyName::LogFormat, |text| match text {
                "text" => Ok(LogFormat::Text),
                "json" => Ok(LogFormat::Json),
                _ => Err("text or json".to_owned()),
            })?,
            log_level: one(&merged, KeyName::LogLevel, |text| {
                let known = ["error", "warn", "info", "debug", "trace"].contains(&text);
                known.then(|| text.to_owned()).ok_or_else(|| "error, warn, info, debug or trace".to_owned())
            })?,
            max_clients: one(&merged, KeyName::MaxClients, |text| whole(text, 1, 1_000_000))?,
            max_clients_per_address: one(&merged, KeyName::MaxClientsPerAddress, |text| {
                whole(text, 1, 1_000_000)
            })?,
            data: data(&merged)?,
            max_disk: one(&merged, KeyName::MaxDisk, Size::parse)?,
            log_bytes: one(&merged, KeyName::LogBytes, |text| match Size::parse(text)? {
                Size::Bytes(bytes) if bytes >= LOG_BYTES_MIN => Ok(bytes),
                _ => Err("a size of at least 1MB".to_owned()),
            })?,
            snapshot_dest: destination(&merged)?,
            snapshot_every: one(&merged, KeyName::SnapshotEvery, |text| {
                whole(text, 0, 31_536_000).map(|seconds| Duration::from_secs(seconds as u64))
            })?,
            snapshot_keep: one(&merged, KeyName::SnapshotKeep, |text| whole(text, 1, 100_000))?,
        };
        config.check()?;
        config.check_disk(&merged)?;
        Ok((config, merged))
    }

    /// Refuses a public address without authentication unless that is meant, and snapshots of nothing or to nowhere.
    fn check(&self) -> Result<(), ConfigError> {
        if !self.snapshot_every.is_zero() && self.snapshot_dest.is_none() {
            return Err(ConfigError("snapshot_every needs --snapshot-dest FOLDER".to_owned()));
        }
        if self.snapshot_dest.is_some() && self.data.is_none() {
            return Err(ConfigError(
                "snapshot_dest needs --data DIR: only task namespaces there have snapshots".to_owned(),
            ));
        }
        let public = self.listen.iter().find(|endpoint| endpoint.is_public());
        match public {
            Some(endpoint) if self.password == PasswordSource::None && !self.insecure_no_auth => {
                Err(ConfigError(format!(
                    "refusing to listen on {endpoint} without authentication: give --password-file FILE, or \
                     --insecure-no-auth if everybody who reaches this address may read and write everything"
                )))
            }
            _ => Ok(()),
        }
    }

    /// Refuses limits of a disk that is not used: whoever gives one believes that something is kept there.
    fn check_disk(&self, merged: &Merged) -> Result<(), ConfigError> {
        let given = |key: &KeyName| *merged.source(*key) != Source::Default;
        match [KeyName::MaxDisk, KeyName::LogBytes].into_iter().find(given) {
            Some(key) if self.data.is_none() => {
                let (name, source) = (key.toml_name(), merged.source(key));
                Err(ConfigError(format!(
                    "{name} (from {source}) needs --data DIR: without it everything is in memory only"
                )))
            }
            _ => Ok(()),
        }
    }
}

/// An empty name would be the working directory.
fn data(merged: &Merged) -> Result<Option<PathBuf>, ConfigError> {
    match merged.text(KeyName::Data) {
        Some("") => Err(wrong(merged, KeyName::Data, "", "a directory")),
        text => Ok(text.map(PathBuf::from)),
    }
}

fn destination(merged: &Merged) -> Result<Option<Destination>, ConfigError> {
    let Some(text) = merged.text(KeyName::SnapshotDest) else { return Ok(None) };
    let place = Destination::parse(text);
    place.map(Some).map_err(|error| ConfigError(format!("snapshot_dest: {error}")))
}

/// Two passwords are none that anybody meant.
fn password(merged: &Merged) -> Result<PasswordSource, ConfigError> {
    match (merged.text(KeyName::PasswordFile), merged.text(KeyName::Password)) {
        (Some(_), Some(_)) => {
            let source = merged.source(KeyName::PasswordFile);
            let text =
                format!("password_file (from {source}) and KV_PASSWORD are two passwords: leave one out");
            Err(ConfigError(text))
        }
        (Some(file), None) => Ok(PasswordSource::File(Path::new(file).to_owned())),
        (None, Some(password)) => Ok(PasswordSource::Environment(password.to_owned())),
        (None, None) => Ok(PasswordSource::None),
    }
}

/// Reads a setting with one value.
fn one<T>(merged: &Merged, key: KeyName, read: impl Fn(&str) -> Result<T, String>) -> Result<T, ConfigError> {
    let text = merged.text(key).unwrap_or_default();
    read(text).map_err(|expected| wrong(merged, key, text, &expected))
}

/// Reads a setting with several values.
fn list<T>(
    merged: &Merged,
    key: KeyName,
    read: impl Fn(&str) -> Result<T, String>,
) -> Result<Vec<T>, ConfigError> {
    let values = merged.values(key);
    values.iter().map(|text| read(text).map_err(|expected| wrong(merged, key, text, &expected))).collect()
}

fn wrong(merged: &Merged, key: KeyName, text: &str, expected: &str) -> ConfigError {
    not_understood(key, text, merged.source(key), expected)
}

fn not_understood(key: KeyName, text: &str, source: &Source, expected: &str) -> ConfigError {
    let name = key.toml_name();
    ConfigError(format!("{name} = '{text}' (from {source}) is not understood: expected {expected}"))
}

fn admin_address(text: &str) -> Result<SocketAddr, String> {
    let tcp = Endpoint::parse(text).ok().and_then(|endpoint| endpoint.tcp());
    tcp.ok_or_else(|| "an IP address and a port, such as 127.0.0.1:9121, or off".to_owned())
}

fn whole(text: &str, low: usize, high: usize) -> Result<usize, String> {
    let number = text.parse().ok().filter(|number| (low..=high).contains(number));
    number.ok_or_else(|| format!("a whole number from {low} to {high}"))
}

fn truth(text: &str) -> Result<bool, String> {
    match text {
        "true" | "1" | "yes" => Ok(true),
        "false" | "0" | "no" => Ok(false),
        _ => Err("true or false".to_owned()),
    }
}

fn seconds(text: &str) -> Result<Duration, String> {
    let number: Option<f64> = text.parse().ok();
    let duration = number.and_then(|number| Duration::try_from_secs_f64(number).ok());
    duration.filter(|duration| duration.as_secs() <= 3600).ok_or_else(|| "seconds from 0 to 3600".to_owned())
}

#[cfg(test)]
#[path = "config/tests.rs"]
mod tests;
