//! The namespace that `export` and `import` work on: of a running server, or of a directory that no server uses.

use std::cell::RefCell;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use data_bridge_kv::manifest::Manifest;
use data_bridge_kv::{Caller, Engine, Mode, Settings};
use data_bridge_kv_client::{Client, Options};
use data_bridge_kv_model::command::table;
use data_bridge_kv_model::{Arg, Error, ErrorKind, Reply, ReplyBuf, ReplyReader, Result, Value, ValueRef};
use tokio::runtime::{Builder, Runtime};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, timeout};

use super::unused_directory;

/// The port where none is named.
const PORT: u16 = 7379;
/// For how long a server that went away is asked again.
pub(super) const PATIENCE: Duration = Duration::from_secs(60);
/// Before it is asked again: pauses double, so that a restart is noticed soon and an outage costs nothing.
const FIRST_PAUSE: Duration = Duration::from_millis(50);
const LONGEST_PAUSE: Duration = Duration::from_secs(1);

pub(super) enum Store {
    Server(Box<Server>),
    Directory(Box<Engine>, Box<Caller>),
}

pub(super) struct Server {
    runtime: Runtime,
    address: String,
    options: Options,
    /// Of the connection that is there now.
    client: RefCell<Client>,
}

/// A command by its opcode, and its arguments.
pub(super) type Request = (u16, Arc<[Value]>);

/// An answer, and whether an earlier one was lost: the command may have been carried out twice.
pub(super) struct Answer {
    pub(super) reply: Result<Reply>,
    pub(super) is_repeated: bool,
}

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
        let client = runtime.block_on(connected(&address, &options))?;
        Ok(Store::Server(Box::new(Server { runtime, address, options, client: RefCell::new(client) })))
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
    pub(super) fn ask(&self, requests: &[Request]) -> Vec<Result<Reply>> {
        match self {
            Store::Directory(engine, caller) => {
                requests.iter().map(|request| execute(engine, caller, request)).collect()
            }
            Store::Server(server) => server.runtime.block_on(async {
                let mut calls = JoinSet::new();
                for (at, (opcode, args)) in requests.iter().cloned().enumerate() {
                    let client = server.client.borrow().clone();
                    calls.spawn(async move { (at, client.call(opcode, &args).await) });
                }
                let mut answers = calls.join_all().await;
                answers.sort_by_key(|(at, _)| *at);
                answers.into_iter().map(|(_, answer)| answer).collect()
            }),
        }
    }

    /// Executes commands that may be carried out twice: what a connection that broke left without an answer is asked again
    /// over new ones, for that long.
    pub(super) fn ask_patiently(&self, requests: &[Request], patience: Duration) -> Vec<Answer> {
        let answer = |reply| Answer { reply, is_repeated: false };
        let mut answers: Vec<Answer> = self.ask(requests).into_iter().map(answer).collect();
        let Store::Server(server) = self else { return answers };
        let (end, mut pause) = (Instant::now() + patience, FIRST_PAUSE);
        loop {
            let lost = answers.iter_mut().zip(requests).filter(|(answer, _)| answer.is_lost());
            let (mut lost, again): (Vec<&mut Answer>, Vec<Request>) =
                lost.map(|(answer, request)| (answer, request.clone())).unzip();
            if lost.is_empty() || Instant::now() >= end {
                return answers;
            }
            let replies = match server.connect_again(pause, end) {
                Ok(()) => self.ask(&again),
                Err(error) => vec![Err(error); again.len()],
            };
            for (answer, reply) in lost.iter_mut().zip(replies) {
                **answer = Answer { reply, is_repeated: true };
            }
            pause = (pause * 2).min(LONGEST_PAUSE);
        }
    }
}

impl Answer {
    fn is_lost(&self) -> bool {
        self.reply.as_ref().is_err_and(|error| error.kind() == ErrorKind::Closed)
    }
}

impl Server {
    /// Makes another connection, after a pause.
    fn connect_again(&self, pause: Duration, end: Instant) -> Result<()> {
        let late = |_| Error::new(ErrorKind::Closed, format!("{}: no answer", self.address));
        let client = self.runtime.block_on(async {
            sleep(pause).await;
            let left = end.saturating_duration_since(Instant::now()).max(LONGEST_PAUSE);
            timeout(left, connected(&self.address, &self.options)).await.map_err(late)?
        })?;
        self.client.replace(client);
        Ok(())
    }
}

async fn connected(address: &str, options: &Options) -> Result<Client> {
    let named = |error: Error| Error::new(error.kind(), format!("{address}: {}", error.message()));
    Client::connect_with(address, options).await.map_err(named)
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

#[cfg(test)]
mod tests {
    use data_bridge_kv_model::command::table::opcode;
    use data_bridge_kv_model::frame::PREFACE;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpListener;

    use super::*;

    #[test]
    fn a_server_that_stays_away_is_given_up() {
        let outside = Runtime::new().unwrap();
        let listener = outside.block_on(TcpListener::bind("127.0.0.1:0")).unwrap();
        let address = listener.local_addr().unwrap().to_string();
        outside.spawn(async move {
            let (mut socket, _) = listener.accept().await.unwrap();
            let mut request = [0; PREFACE.len() + 1];
            socket.write_all(&PREFACE).await.unwrap();
            socket.read_exact(&mut request).await.unwrap();
        });
        let store = Store::connect(&format!("kv://{address}")).unwrap();
        let mut answers = store.ask_patiently(&[(opcode::DBSIZE, Arc::from([]))], LONGEST_PAUSE / 10);
        let Some(Answer { reply: Err(error), is_repeated: true }) = answers.pop() else {
            panic!("an answer")
        };
        assert_eq!(error.kind(), ErrorKind::Closed);
        assert!(error.message().starts_with(&format!("{address}: ")), "{error}");
    }
}
