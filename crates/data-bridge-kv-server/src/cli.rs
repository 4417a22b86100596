//! The command line.

use std::ffi::OsString;
use std::path::PathBuf;

use clap::{Args, Parser, Subcommand};

use crate::config::ConfigError;
use crate::config::keys::KeyName;
use crate::config::layers::{FILE_VARIABLE, Layers};

/// A typed key-value store that speaks RESP2, RESP3 and its own protocol on one port.
#[derive(Debug, Parser)]
#[command(name = "data-bridge-kv", version, arg_required_else_help = true)]
pub struct Cli {
    /// What to do.
    #[command(subcommand)]
    pub action: Action,
}

/// What to do.
#[derive(Debug, Subcommand)]
pub enum Action {
    /// Serve clients until SIGTERM or Ctrl-C
    Serve(ServeArgs),
    /// Ask a running server whether it is alive: exit code 0 if it is, 1 if not (a container's health check)
    Health {
        /// Address of its admin port
        #[arg(long, default_value = "127.0.0.1:9121", env = "KV_ADMIN")]
        admin: String,
        /// Ask whether it is ready instead
        #[arg(long)]
        ready: bool,
    },
    /// Read every byte of a data directory that no server uses, and say what is in it: exit code 0 if all is whole
    Check {
        /// The directory
        directory: PathBuf,
    },
    /// About the log of a data directory that no server uses
    Log {
        /// What to do with it
        #[command(subcommand)]
        action: LogAction,
    },
    /// Snapshots of task namespaces
    Backup {
        /// What to do with them
        #[command(subcommand)]
        action: BackupAction,
    },
    /// Write a namespace as JSON Lines: an object for each key, with the types of its values
    Export(ExportArgs),
    /// Read what `export` wrote into a namespace. (redis://... as the source copies a Redis database: that is done by the
    /// Python package)
    Import(ImportArgs),
    /// About the configuration
    Config {
        /// What to do with it
        #[command(subcommand)]
        action: ConfigAction,
    },
}

/// What is exported.
#[derive(Debug, Args)]
pub struct ExportArgs {
    /// kv://host:port/namespace of a running server, or a data directory that no server uses
    #[arg(value_name = "SOURCE")]
    pub source: String,
    /// A file that is not there yet, or - for standard output
    #[arg(value_name = "FILE")]
    pub file: String,
    /// The task namespace of a data directory, where it has several
    #[arg(long, value_name = "NAME")]
    pub namespace: Option<String>,
}

/// What is imported.
#[derive(Debug, Args)]
pub struct ImportArgs {
    /// A file of JSON Lines, or - for standard input
    #[arg(value_name = "FILE")]
    pub source: String,
    /// kv://host:port/namespace of a running server
    #[arg(value_name = "TARGET")]
    pub target: String,
    /// Overwrite keys that are there
    #[arg(long, conflicts_with = "skip")]
    replace: bool,
    /// Leave keys that are there as they are; otherwise the first such key ends the import
    #[arg(long)]
    skip: bool,
}

/// What an import does with keys that are there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Existing {
    /// It ends.
    Refuse,
    /// It overwrites them.
    Replace,
    /// It leaves them.
    Skip,
}

impl ImportArgs {
    /// What to do with keys that are there.
    pub fn existing(&self) -> Existing {
        match (self.replace, self.skip) {
            (true, _) => Existing::Replace,
            (_, true) => Existing::Skip,
            _ => Existing::Refuse,
        }
    }
}

/// What to do with a log.
#[derive(Debug, Subcommand)]
pub enum LogAction {
    /// Print a line for everything in it, whether its files fit together or not
    Dump {
        /// The directory
        directory: PathBuf,
        /// First record to print
        #[arg(long, value_name = "LSN", default_value_t = 0)]
        from: u64,
        /// Last record to print
        #[arg(long, value_name = "LSN", default_value_t = u64::MAX)]
        to: u64,
    },
    /// Read every byte of it as a start would: exit code 0 if it can be opened, 4 if it is damaged
    Verify {
        /// The directory
        directory: PathBuf,
    },
    /// Let a damaged log end before the damage; what is cut off is kept in files log-cut-*
    Repair {
        /// The directory
        directory: PathBuf,
        /// The last record that is to be left
        #[arg(long, value_name = "LSN")]
        accept_loss_after: u64,
    },
}

/// What to do with snapshots.
#[derive(Debug, Subcommand)]
pub enum BackupAction {
    /// Copy the task namespaces of a data directory that no server uses (a running server makes snapshots itself: see
    /// --snapshot-dest of serve, and the command KV.SNAPSHOT)
    Create {
        /// The data directory
        #[arg(long, value_name = "DIR")]
        data: PathBuf,
        /// An empty directory, or one to be made; or s3://bucket/prefix, gs://, az://, file://: there the snapshot gets a
        /// name of its own
        #[arg(long, value_name = "DIR")]
        to: String,
        /// How many snapshots stay at such a URL [default: all]
        #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
        keep: Option<u32>,
    },
    /// Say what snapshots are in a folder or at a URL, oldest first
    List {
        /// The folder or URL
        folder: String,
    },
    /// Read every byte of a snapshot and compare it with the checksums: exit code 0 if it is whole, 4 if it is damaged
    Verify {
        /// The snapshot's directory or URL
        snapshot: String,
    },
    /// Copy a snapshot to where `serve --data` finds it
    Restore {
        /// The snapshot's directory or URL
        snapshot: String,
        /// An empty directory, or one to be made
        #[arg(long, value_name = "DIR")]
        into: PathBuf,
    },
}

/// What to do with the configuration.
#[derive(Debug, Subcommand)]
pub enum ConfigAction {
    /// Print it
    Print {
        /// As `serve` with the same flags, environment and file would use it, with each value's source
        #[arg(long, required = true)]
        effective: bool,
        /// The flags of `serve`
        #[command(flatten)]
        serve: ServeArgs,
    },
}

/// Flags of `serve`. Each setting is also read from the environment (KV_LISTEN, KV_MAX_MEMORY, ...) and from a TOML
/// file (listen, max_memory, ...); a flag wins over the environment, and that over the file.
#[derive(Debug, Default, Args)]
pub struct ServeArgs {
    /// Address or unix:/path for clients, may be repeated; port 0 takes a free one [default: 127.0.0.1:7379 and
    /// [::1]:7379]
    #[arg(long, value_name = "ADDRESS")]
    listen: Vec<String>,
    /// Address for probes and metrics, or off [default: 127.0.0.1:9121]
    #[arg(long, value_name = "ADDRESS")]
    admin: Option<String>,
    /// Directory: the log of task namespaces, which outlive the server, and what memory has no room for
    #[arg(long, value_name = "DIR")]
    data: Option<String>,
    /// Most bytes to use there, beside the log: 512MB, 4GiB, 75%, or auto = 75 % of what is free or its own [default: auto]
    #[arg(long, value_name = "SIZE")]
    max_disk: Option<String>,
    /// Bytes of the log of task namespaces from which on it is cut: what it holds is written to the other files first. It
    /// bounds what the next start has to read [default: 256MB]
    #[arg(long, value_name = "SIZE")]
    log_bytes: Option<String>,
    /// Folder for snapshots of the task namespaces, or s3://bucket/prefix, gs://, az://, file:// where the program was built
    /// with object storage
    #[arg(long, value_name = "FOLDER")]
    snapshot_dest: Option<String>,
    /// Seconds from one snapshot to the next; 0 = only when KV.SNAPSHOT asks [default: 0]
    #[arg(long, value_name = "SECONDS")]
    snapshot_every: Option<String>,
    /// How many snapshots stay in the folder [default: 7]
    #[arg(long, value_name = "N")]
    snapshot_keep: Option<String>,
    /// Memory budget: 512MB, 4GiB, 75%, or auto = 75 % of the container's or machine's memory, with --data 60 % [default: auto]
    #[arg(long, value_name = "SIZE")]
    max_memory: Option<String>,
    /// Worker threads [default: the cores this process may use]
    #[arg(long, value_name = "N")]
    threads: Option<String>,
    /// TOML file with settings
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// A namespace's policy, may be repeated: mode cache or task; durability of a task namespace with --data: always (its
    /// default: a reply means that it is on disk) or everysec (a crash may take back the last second)
    #[arg(long, value_name = "NAME:MODE[:DURABILITY]")]
    namespace: Vec<String>,
    /// File whose first line is the password of all clients; KV_PASSWORD is not set beside it
    #[arg(long, value_name = "FILE")]
    password_file: Option<String>,
    /// Serve a public address although nobody has to authenticate
    #[arg(long)]
    insecure_no_auth: bool,
    /// Seconds to serve on, not ready, after SIGTERM [default: 5]
    #[arg(long, value_name = "SECONDS")]
    drain_delay: Option<String>,
    /// Most connections [default: 10000]
    #[arg(long, value_name = "N")]
    max_clients: Option<String>,
    /// Most connections of one address [default: 1000]
    #[arg(long, value_name = "N")]
    max_clients_per_address: Option<String>,
    /// text or json [default: text]
    #[arg(long, value_name = "FORMAT")]
    log_format: Option<String>,
    /// error, warn, info, debug or trace [default: info]
    #[arg(long, value_name = "LEVEL")]
    log_level: Option<String>,
}

impl ServeArgs {
    /// These flags over the environment over the file that a flag or `KV_CONFIG` names.
    pub fn layers(
        self,
        environment: impl Iterator<Item = (OsString, OsString)>,
    ) -> Result<Layers, ConfigError> {
        let environment = ours(environment)?;
        let named =
            environment.iter().find(|(name, _)| name == FILE_VARIABLE).map(|(_, path)| PathBuf::from(path));
        let file = match self.config.or(named) {
            Some(path) => {
                let text = std::fs::read_to_string(&path).map_err(|error| {
                    ConfigError(format!("can't read the configuration {}: {error}", path.display()))
                })?;
                Some((path.display().to_string(), text))
            }
            None => None,
        };
        let mut flags: Vec<(KeyName, String)> = Vec::new();
        let lists = [(KeyName::Listen, self.listen), (KeyName::Namespace, self.namespace)];
        for (key, values) in lists {
            flags.extend(values.into_iter().map(|value| (key, value)));
        }
        let values = [
            (KeyName::Admin, self.admin),
            (KeyName::Data, self.data),
            (KeyName::MaxDisk, self.max_disk),
            (KeyName::LogBytes, self.log_bytes),
            (KeyName::SnapshotDest, self.snapshot_dest),
            (KeyName::SnapshotEvery, self.snapshot_every),
            (KeyName::SnapshotKeep, self.snapshot_keep),
            (KeyName::MaxMemory, self.max_memory),
            (KeyName::Threads, self.threads),
            (KeyName::PasswordFile, self.password_file),
            (KeyName::InsecureNoAuth, self.insecure_no_auth.then(|| "true".to_owned())),
            (KeyName::DrainDelay, self.drain_delay),
            (KeyName::MaxClients, self.max_clients),
            (KeyName::MaxClientsPerAddress, self.max_clients_per_address),
            (KeyName::LogFormat, self.log_format),
            (KeyName::LogLevel, self.log_level),
        ];
        flags.extend(values.into_iter().filter_map(|(key, value)| Some((key, value?))));
        Ok(Layers { flags, environment, file })
    }
}

/// The variables that may be settings. One that is not UTF-8 is refused: without it the server would do without its data
/// directory or its password, and say nothing.
fn ours(
    environment: impl Iterator<Item = (OsString, OsString)>,
) -> Result<Vec<(String, String)>, ConfigError> {
    let named = environment.filter_map(|(name, value)| Some((name.into_string().ok()?, value)));
    named
        .filter(|(name, _)| name.starts_with("KV_"))
        .map(|(name, value)| match value.into_string() {
            Ok(value) => Ok((name, value)),
            Err(_) => Err(ConfigError(format!("environment variable {name} is not UTF-8"))),
        })
        .collect()
}
