//! The program: reads the command line, decides, and runs. Its exit codes: 0 stopped in good order, 1 unhealthy or
//! failed, 2 bad configuration, 3 the log failed, 4 the data directory is locked, damaged or of another version.

mod backup;
mod export;
mod log;
mod store;

use std::ffi::OsString;
use std::io::Write;
use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use clap::Parser;
use data_bridge_kv::cold::{self, Class, Verified};
use data_bridge_kv::disk::Disk;
use data_bridge_kv::manifest::{self, Manifest};
use data_bridge_kv::opening::Opening;
use data_bridge_kv::wal;
use data_bridge_kv::{DataDirectory, Engine, Settings};
use data_bridge_kv_model::ErrorKind;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::runtime::{Builder, Runtime};

use crate::cli::{Action, Cli, ConfigAction, ServeArgs};
use crate::config::cgroup::{Host, budget};
use crate::config::size::Size;
use crate::config::{Config, LogFormat};
use crate::disk;
use crate::files::{self, Files};
use crate::process::Process;
use crate::server::{Server, StartError};
use crate::shutdown::{Signals, until_signal};
use crate::startline;

const FAILED: u8 = 1;
const BAD_CONFIGURATION: u8 = 2;
const LOG_FAILED: u8 = 3;
const BAD_DIRECTORY: u8 = 4;
/// How long a health check waits.
const PATIENCE: Duration = Duration::from_secs(3);

/// Runs the program with these arguments, the first of which is its name. Standard output and error are the process's
/// own; the answer is its exit code.
pub fn run<I, T>(args: I) -> ExitCode
where
    I: IntoIterator<Item = T>,
    T: Into<OsString> + Clone,
{
    let cli = match Cli::try_parse_from(args) {
        Ok(cli) => cli,
        Err(error) => {
            // Help and version go to standard output and are no failure.
            let code = if error.use_stderr() { BAD_CONFIGURATION } else { 0 };
            let _ = error.print();
            return ExitCode::from(code);
        }
    };
    let limit = files::raise();
    match cli.action {
        Action::Serve(args) => serve(args, limit),
        Action::Health { admin, ready } => health(&admin, if ready { "/readyz" } else { "/livez" }),
        Action::Check { directory } => check(&directory),
        Action::Log { action } => log::run(&action),
        Action::Backup { action } => backup::run(&action),
        Action::Export(args) => export::export(&args),
        Action::Import(args) => export::import(&args),
        Action::Config { action: ConfigAction::Print { serve, .. } } => print_config(serve),
    }
}

fn serve(args: ServeArgs, limit: Option<u64>) -> ExitCode {
    let mut config = match args.layers(std::env::vars_os()).and_then(|layers| Config::read(&layers)) {
        Ok((config, _)) => config,
        Err(error) => return fail(BAD_CONFIGURATION, &error),
    };
    startline::open_log(&config);
    let format = config.log_format;
    let budget = budget(config.max_memory, config.data.is_some(), &Host::default());
    let data = match overflow(&config) {
        Ok(data) => data,
        Err(error) => return log_failure(format, code_of(&error), &error),
    };
    let files = Files::share(limit, config.max_clients, data.as_ref().map(DataDirectory::max_bytes));
    config.max_clients = files.clients;
    let opening = Arc::new(Opening::default());
    let settings = Settings {
        opening: Arc::clone(&opening),
        max_memory: budget.bytes,
        resident: Some(Arc::new(Process::new())),
        namespaces: config.namespaces.clone(),
        data,
        log_bytes: config.log_bytes,
        blocking: |act| disk::wait(act),
        ..Settings::default()
    };
    let runtime = match runtime(&config) {
        Ok(runtime) => runtime,
        Err(error) => return log_failure(format, FAILED, &error),
    };
    let drain_delay = config.drain_delay;
    let outcome = runtime.block_on(async {
        let mut signals = Signals::listen().map_err(|error| (FAILED, error.to_string()))?;
        let server = tokio::select! {
            server = Server::load(config, opening, move || Engine::open(settings)) => server,
            () = signals.next() => {
                tracing::info!("stopped while the data was being loaded");
                return Ok(());
            }
        };
        let server = server.map_err(|error| match &error {
            StartError::Config(_) => (BAD_CONFIGURATION, error.to_string()),
            StartError::Bind(..) => (FAILED, error.to_string()),
            StartError::Store(cause) => (code_of(cause), error.to_string()),
        })?;
        startline::announce(&server, &budget, &files);
        match until_signal(server, signals, drain_delay).await {
            None => Ok(()),
            Some(failure) => Err((LOG_FAILED, failure)),
        }
    });
    runtime.shutdown_timeout(Duration::from_secs(1));
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err((code, text)) => log_failure(format, code, &text),
    }
}

/// The last word of a server whose log is open: a line of it, where a program reads that.
fn log_failure(format: LogFormat, code: u8, error: &dyn std::fmt::Display) -> ExitCode {
    match format {
        LogFormat::Text => fail(code, error),
        LogFormat::Json => {
            tracing::error!(exit_code = code, "{error}");
            ExitCode::from(code)
        }
    }
}

/// The exit code that tells why the store could not be opened.
fn code_of(error: &data_bridge_kv_model::Error) -> u8 {
    let of_the_directory = [ErrorKind::Locked, ErrorKind::Corruption, ErrorKind::Unavailable];
    if of_the_directory.contains(&error.kind()) { BAD_DIRECTORY } else { BAD_CONFIGURATION }
}

/// The directory of the store, and how much of it may be used.
fn overflow(config: &Config) -> data_bridge_kv_model::Result<Option<DataDirectory>> {
    let Some(path) = &config.data else { return Ok(None) };
    let most = config.max_disk;
    DataDirectory::open(path, move |free| match most {
        Size::Auto => free / 4 * 3,
        Size::Percent(percent) => (free as f64 * percent / 100.0) as u64,
        Size::Bytes(bytes) => bytes,
    })
    .map(Some)
}

fn runtime(config: &Config) -> std::io::Result<Runtime> {
    let mut builder = Builder::new_multi_thread();
    if let Some(threads) = config.threads {
        builder.worker_threads(threads);
    }
    builder
        .max_blocking_threads(disk::THREADS)
        .thread_keep_alive(disk::IDLE)
        .enable_all()
        .thread_name("kv-worker")
        .build()
}

fn print_config(args: ServeArgs) -> ExitCode {
    match args.layers(std::env::vars_os()).and_then(|layers| Config::read(&layers)) {
        Ok((_, merged)) => say(&merged.report()),
        Err(error) => fail(BAD_CONFIGURATION, &error),
    }
}

fn health(address: &str, path: &str) -> ExitCode {
    if address == "off" {
        return fail(FAILED, "there is no admin port to ask: --admin, or KV_ADMIN, is off");
    }
    let runtime = match Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => return fail(FAILED, &error),
    };
    let asked = runtime.block_on(async { tokio::time::timeout(PATIENCE, ask(address, path)).await });
    match asked {
        Ok(Ok(answer)) if answer.starts_with("HTTP/1.1 200") => say("ok\n"),
        Ok(Ok(answer)) => fail(FAILED, &answer.lines().next_back().unwrap_or("no answer").to_owned()),
        Ok(Err(error)) => fail(FAILED, &format!("{address}: {error}")),
        Err(_) => fail(FAILED, &format!("{address}: no answer within {} s", PATIENCE.as_secs())),
    }
}

/// Verifies a directory, telling of each file as it is read.
fn check(path: &Path) -> ExitCode {
    let disk = match readable_directory(path) {
        Ok(disk) => disk,
        Err(text) => return fail(FAILED, &text),
    };
    let (mut files, mut entries, mut troubles) = (0_u64, 0_u64, 0_u64);
    let read = cold::verify(&*disk, |found| {
        let Verified { file, bytes, entries: whole, tombstones, damaged_entries, unknown_from, is_foreign } =
            &found;
        let mut text = format!("{file}: {bytes} bytes, {whole} entries, {tombstones} tombstones");
        if *is_foreign {
            text.push_str(", no segment of this version");
        }
        for offset in damaged_entries {
            text.push_str(&format!(", damaged entry at offset {offset}"));
        }
        if let Some(offset) = unknown_from {
            text.push_str(&format!(
                ", ends at offset {offset} in something that was not finished or is damaged"
            ));
        }
        say(&format!("{text}\n"));
        (files, entries) = (files + 1, entries + whole);
        troubles += u64::from(!found.is_whole() || unknown_from.is_some());
    });
    if let Err(error) = read {
        return fail(FAILED, &format!("{}: {error:?}", path.display()));
    }
    match Manifest::verify(&*disk) {
        // What a restore leaves that was cut off.
        Ok(None) => {
            troubles += 1;
            say(&format!("{} is missing, without which nothing here can be read\n", manifest::NAME));
        }
        Ok(Some((manifest, damaged))) => {
            (files, troubles) = (files + 1, troubles + u64::from(!damaged.is_empty()));
            let mut text = format!("{}: {} task namespaces", manifest::NAME, manifest.tasks.len());
            for offset in damaged {
                text.push_str(&format!(
                    ", damaged copy at offset {offset}, which the next start writes anew"
                ));
            }
            say(&format!("{text}\n"));
        }
        Err(error) => {
            (files, troubles) = (files + 1, troubles + 1);
            say(&format!("{error}\n"));
        }
    }
    say(&format!("{files} files, {entries} entries, {troubles} files with trouble\n"));
    if troubles == 0 { ExitCode::SUCCESS } else { ExitCode::from(FAILED) }
}

/// A directory that is there, and that no server uses.
fn unused_directory(path: &Path) -> Result<DataDirectory, String> {
    store_in(path, |path| DataDirectory::open(path, |_| 0), |directory| &**directory.disk())
}

/// The same for whoever only reads: it need not be one that can be written.
fn readable_directory(path: &Path) -> Result<Arc<dyn Disk>, String> {
    store_in(path, DataDirectory::open_to_read, |disk| &**disk)
}

/// Opens a directory and refuses one where no store has been: nothing would be found wrong with it, and a backup of it
/// would be empty.
fn store_in<T>(
    path: &Path,
    open: impl FnOnce(&Path) -> data_bridge_kv_model::Result<T>,
    disk: impl FnOnce(&T) -> &dyn Disk,
) -> Result<T, String> {
    let told = |what: &dyn std::fmt::Display| format!("{}: {what}", path.display());
    if !path.is_dir() {
        return Err(told(&"no such directory"));
    }
    let found = open(path).map_err(|error| format!("{error}{}", advice(&error)))?;
    let names = disk(&found).list().map_err(|error| told(&error))?;
    let is_tier = |name: &String| [Class::Cache, Class::Task].iter().any(|class| class.owns(name));
    let is_ours = |name: &String| name == manifest::NAME || wal::is_segment(name) || is_tier(name);
    if names.iter().any(is_ours) { Ok(found) } else { Err(told(&"no store has been here")) }
}

/// What to do about a directory that is in use.
fn advice(error: &data_bridge_kv_model::Error) -> &'static str {
    match error.kind() {
        ErrorKind::Locked => ": stop that first, or look at a snapshot of it (KV.SNAPSHOT, `backup verify`)",
        _ => "",
    }
}

async fn ask(address: &str, path: &str) -> std::io::Result<String> {
    let mut stream = TcpStream::connect(address).await?;
    let request = format!("GET {path} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await?;
    let mut answer = String::new();
    stream.take(64 << 10).read_to_string(&mut answer).await?;
    Ok(answer)
}

fn say(text: &str) -> ExitCode {
    match std::io::stdout().write_all(text.as_bytes()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(_) => ExitCode::from(FAILED),
    }
}

fn fail<E: std::fmt::Display + ?Sized>(code: u8, error: &E) -> ExitCode {
    // Nobody may be there to read it.
    let _ = writeln!(std::io::stderr(), "error: {error}");
    ExitCode::from(code)
}
