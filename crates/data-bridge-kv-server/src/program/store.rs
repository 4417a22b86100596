//! The namespace that `export` and `import` work on: of a running server, or of a directory that no server uses.

use std::path::Path;

use data_bridge_kv::manifest::Manifest;
use data_bridge_kv::{Caller, Engine, Mode, Settings};
use data_bridge_kv_client::{Client, Options};
use data_bridge_kv_model::command::table;
use data_bridge_kv_model::{Arg, Error, ErrorKind, Reply, ReplyBuf, ReplyReader, Result, Value, ValueRef};
use tokio::runtime::{Builder, Runtime};
use tokio::task::JoinSet;

use super::unused_directory;

/// The port where none is named.
const PORT: u16 = 7379;

pub(super) enum Store {
    Server(Runtime, Client),
    Directory(Box<Engine>, Box<Caller>),
}

/// A command by its opcode, and its arguments.
pub(super) type Request = (u16, Vec<Value>);

impl Store {
    /// `kv://[:password@]host:port/namespace`.
    pub(super) fn connect(url: &str) -> Result<Store> {
        let bad = || Error::invalid(format!("{url}: write kv://host:port/namespace"));
        let rest = url.strip_prefix("kv://").ok_or_else(bad)?;
        let (place, namespace) = rest.split_once('/').unwrap_or((rest, ""));
        let (user, place) = place.rsplit_once('@').unwrap_or(("", place));
        let named = |text: &str| (!text.is_empty()).then(|| text.to_owned());
        let password = user.split_once(':').and_then(|(_, password)| named(password));
        if place.is_empty() {
            return Err(bad());
        }
        let has_port = place.rsplit_once(':').is_some_and(|(_, port)| port.parse::<u16>().is_ok());
        let address = if has_port { place.to_owned() } else { format!("{place}:{PORT}") };
        let runtime = Builder::new_current_thread().enable_all().build();
        let runtime = runtime.map_err(|error| Error::new(ErrorKind::Unavailable, error.to_string()))?;
        let options = Options { namespace: named(namespace), password };
        let client = runtime.block_on(Client::connect_with(&address, &options)).map_err(|error| {
            let text = format!("{address}: {}", error.message());
            Error::new(error.kind(), text)
        })?;
        Ok(Store::Server(runtime, client))
    }

    /// A task namespace of a directory; without a name its only one.
    pub(super) fn open(path: &Path, namespace: Option<&str>) -> Result<Store> {
        let unavailable = |text: String| Error::new(ErrorKind::Unavailable, text);
        let directory = unused_directory(path).map_err(unavailable)?;
        let manifest = Manifest::read(&**directory.disk()).map_err(|error| unavailable(error.to_string()))?;
        let none = || unavailable(format!("{}: no store has been here", path.display()));
        let mut settings = Settings { data: Some(directory), background: false, ..Settings::default() };
        let tasks = manifest.ok_or_else(none)?.tasks;
        for space in &mut settings.namespaces {
            space.mode = Mode::Cache;
        }
        for (number, name) in &tasks {
            if let Some(space) = settings.namespaces.get_mut(usize::from(*number)) {
                (space.mode, space.name) = (Mode::Task, name.clone());
                space.eviction = data_bridge_kv::Eviction::None;
            }
        }
        let names: Vec<&str> = tasks.iter().map(|(_, name)| name.as_str()).collect();
        let name = match (namespace, names.as_slice()) {
            (Some(name), names) if names.contains(&name) => name,
            (None, [only]) => only,
            _ => {
                let message =
                    format!("name one of its task namespaces with --namespace: {}", names.join(", "));
                return Err(Error::invalid(message));
            }
        };
        let engine = Engine::open(settings)?;
        let caller = Caller { namespace: engine.namespace(name)?, ..engine.caller() };
        Ok(Store::Directory(Box::new(engine), Box::new(caller)))
    }

    /// Executes commands; a server's side by side.
    pub(super) fn ask(&self, requests: Vec<Request>) -> Vec<Result<Reply>> {
        match self {
            Store::Directory(engine, caller) => {
                requests.into_iter().map(|request| execute(engine, caller, &request)).collect()
            }
            Store::Server(runtime, client) => runtime.block_on(async {
                let mut calls = JoinSet::new();
                for (at, (opcode, args)) in requests.into_iter().enumerate() {
                    let client = client.clone();
                    calls.spawn(async move { (at, client.call(opcode, &args).await) });
                }
                let mut answers = calls.join_all().await;
                answers.sort_by_key(|(at, _)| *at);
                answers.into_iter().map(|(_, answer)| answer).collect()
            }),
        }
    }
}

fn execute(engine: &Engine, caller: &Caller, (opcode, args): &Request) -> Result<Reply> {
    let encoded: Vec<Vec<u8>> = args.iter().map(Value::encode).collect();
    let decoded = encoded.iter().map(|bytes| ValueRef::decode(bytes).map(Arg::Value));
    let args = decoded.collect::<Result<Vec<Arg<'_>>>>()?;
    let spec = table::by_opcode(*opcode).ok_or_else(Error::syntax)?;
    let mut out = ReplyBuf::new();
    let _ = engine.execute(caller, 0, &spec.call(&args)?, &mut out);
    match ReplyReader::new(out.as_bytes()).reply()? {
        Reply::Error(error) => Err(error),
        reply => Ok(reply),
    }
}
