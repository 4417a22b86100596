//! The client for tokio: one connection, all calls pipelined, answers by id.
//!
//! A call appends its request and wakes the connection's task; that task writes what has gathered and hands answers to
//! those who wait. A dropped call drops its answer, and ends its wait at the server if it is one. The task ends with
//! the last clone of the client.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use data_bridge_kv_model::command::table::{self, BLOCKING, opcode};
use data_bridge_kv_model::{Error, ErrorKind, Reply, ReplyReader, Result, Value};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpStream, UnixStream};
use tokio::sync::{Notify, oneshot};
use tokio::task::AbortHandle;

use crate::core::{InFlight, Responses, check_request, put_greeting, put_request};

/// Id of the first request after a greeting.
const FIRST_ID: u32 = 16;
/// Room that a read asks for.
const READ_BYTES: usize = 64 << 10;

/// Who is asked for and as whom.
#[derive(Clone, Debug, Default)]
pub struct Options {
    /// Namespace by name or number; None = 0.
    pub namespace: Option<String>,
    /// Password, if the server wants one.
    pub password: Option<String>,
}

/// A connection to a server. Clones share it.
///
/// It has no timeout of its own: `tokio::time::timeout` around a call ends a wait at the server too. It does not connect
/// anew: once the connection has ended, every call is [`ErrorKind::Closed`], and the program makes another client. What a
/// watch tells (`KV.WATCH`) it drops; `KV.WAIT` waits for a change.
///
/// ```
/// # use std::{sync::Arc, time::Duration};
/// # use data_bridge_kv::{Engine, Settings};
/// # use data_bridge_kv_server::{Server, config::{Config, keys::KeyName, layers::Layers}};
/// use data_bridge_kv_client::Client;
/// use data_bridge_kv_model::{Decimal, Value};
///
/// # tokio::runtime::Runtime::new().unwrap().block_on(async {
/// # let flags = vec![(KeyName::Listen, "127.0.0.1:0".into()), (KeyName::Admin, "off".into())];
/// # let (config, _) = Config::read(&Layers { flags, ..Layers::default() }).unwrap();
/// # let server = Server::start(config, Arc::new(Engine::open(Settings::default()).unwrap())).await.unwrap();
/// # let address = server.addresses()[0].to_string();
/// let client = Client::connect(&address).await?;
/// let price: Decimal = "1.10".parse().unwrap();
/// client.set("price", &Value::from(price)).await?;
/// assert_eq!(client.get("price").await?, Some(Value::from(price)));
/// assert_eq!(client.get("nothing").await?, None);
/// assert!(client.compare_and_set("price", Some(&Value::from(price)), &Value::from(2)).await?);
///
/// let by = Value::from(1);
/// let (first, second) = tokio::join!(client.incr("price", &by), client.incr("price", &by));
/// assert_eq!((first?, second?), (Value::from(3), Value::from(4)));
/// # drop(client);
/// # server.stop(Duration::from_secs(1)).await;
/// # Ok::<(), data_bridge_kv_model::Error>(())
/// # }).unwrap();
/// ```
#[derive(Clone, Debug)]
pub struct Client {
    shared: Arc<Shared>,
    _task: Arc<TaskGuard>,
}

#[derive(Debug)]
struct Shared {
    state: Mutex<State>,
    wake: Notify,
}

#[derive(Debug)]
struct State {
    out: Vec<u8>,
    flight: InFlight<oneshot::Sender<Result<Reply>>>,
    /// Why the connection ended.
    failure: Option<Error>,
}

/// What a connection runs over.
trait Socket: AsyncRead + AsyncWrite + Send + Unpin + 'static {}

impl<S: AsyncRead + AsyncWrite + Send + Unpin + 'static> Socket for S {}

#[derive(Debug)]
struct TaskGuard(AbortHandle);

impl Drop for TaskGuard {
    fn drop(&mut self) {
        self.0.abort();
    }
}

impl Client {
    /// Connects to `host:port` or the Unix socket `unix:/path`, namespace 0. Must run inside a tokio runtime.
    ///
    /// # Errors
    /// [`ErrorKind::Closed`] where nobody answers, [`ErrorKind::InvalidArgument`] for a URL.
    pub async fn connect(address: &str) -> Result<Client> {
        Client::connect_with(address, &Options::default()).await
    }

    /// Connects with a password or to another namespace.
    ///
    /// # Errors
    /// [`ErrorKind::Closed`] where nobody answers, and what the server refuses.
    pub async fn connect_with(address: &str, options: &Options) -> Result<Client> {
        if let Some(path) = address.strip_prefix("unix:") {
            let socket = UnixStream::connect(path).await.map_err(|error| closed(&error))?;
            return Client::greet(socket, options).await;
        }
        if address.contains("://") {
            return Err(Error::invalid(
                "an address is host:port or unix:/path, not a URL; a namespace is an option",
            ));
        }
        let socket = TcpStream::connect(address).await.map_err(|error| closed(&error))?;
        socket.set_nodelay(true).map_err(|error| closed(&error))?;
        Client::greet(socket, options).await
    }

    /// Says who we are over a new connection, and starts its task.
    async fn greet<S: Socket>(mut socket: S, options: &Options) -> Result<Client> {
        let mut greeting = Vec::new();
        let answers = put_greeting(options.password.as_deref(), options.namespace.as_deref(), &mut greeting);
        socket.write_all(&greeting).await.map_err(|error| closed(&error))?;
        let mut responses = Responses::new();
        for _ in 0..answers {
            while !responses.is_whole()? {
                fill(&mut socket, &mut responses).await?;
            }
            if let Some(response) = responses.cut()?
                && let Reply::Error(error) = ReplyReader::new(response.item).reply()?
            {
                return Err(error);
            }
        }
        let state = State { out: Vec::new(), flight: InFlight::starting_at(FIRST_ID), failure: None };
        let shared = Arc::new(Shared { state: Mutex::new(state), wake: Notify::new() });
        let task = tokio::spawn(drive(socket, responses, Arc::clone(&shared)));
        Ok(Client { shared, _task: Arc::new(TaskGuard(task.abort_handle())) })
    }

    /// Sends one command of the command table and waits for its answer. An error answer is an error.
    ///
    /// # Errors
    /// What the server answers, and [`ErrorKind::Closed`] where the connection ended: then the command may have been
    /// carried out.
    pub async fn call(&self, opcode: u16, args: &[Value]) -> Result<Reply> {
        let mut encoded = Vec::new();
        args.iter().for_each(|arg| arg.encode_into(&mut encoded));
        let (sender, receiver) = oneshot::channel();
        let id = self.shared.send(opcode, &encoded, sender)?;
        let waits = table::by_opcode(opcode).is_some_and(|spec| spec.has(BLOCKING));
        let cancel = waits.then(|| Cancel { shared: &self.shared, id });
        let gone = |_| Error::new(ErrorKind::Closed, "the connection has ended");
        let answer = receiver.await;
        // Answered, or nobody is left to tell.
        std::mem::forget(cancel);
        match answer.map_err(gone)?? {
            Reply::Error(error) => Err(error),
            reply => Ok(reply),
        }
    }

    /// The value of a key.
    ///
    /// # Errors
    /// As [`Client::call`].
    pub async fn get(&self, key: &str) -> Result<Option<Value>> {
        match self.call(opcode::KV_GET, &[Value::from(key)]).await? {
            Reply::Value(value) => Ok(Some(value)),
            _ => Ok(None),
        }
    }

    /// Writes a value; the key loses its deadline, or gets the namespace's default.
    ///
    /// # Errors
    /// As [`Client::call`].
    pub async fn set(&self, key: &str, value: &Value) -> Result<()> {
        self.call(opcode::KV_SET, &[Value::from(key), value.clone()]).await.map(drop)
    }

    /// Deletes a key; whether there was one.
    ///
    /// # Errors
    /// As [`Client::call`].
    pub async fn delete(&self, key: &str) -> Result<bool> {
        Ok(self.call(opcode::DEL, &[Value::from(key)]).await? == Reply::Integer(1))
    }

    /// Writes where the value is exactly `expected`, kind included; None = no such key. Whether it was written.
    ///
    /// # Errors
    /// As [`Client::call`].
    pub async fn compare_and_set(&self, key: &str, expected: Option<&Value>, value: &Value) -> Result<bool> {
        let mut args = vec![Value::from(key)];
        match expected {
            Some(expected) => args.extend([Value::from("VALUE"), expected.clone()]),
            None => args.push(Value::from("MISSING")),
        }
        args.extend([Value::from("TO"), value.clone()]);
        Ok(self.call(opcode::KV_CAS, &args).await? == Reply::Boolean(true))
    }

    /// Adds to a number by the rules of its kind; the new number.
    ///
    /// # Errors
    /// As [`Client::call`].
    pub async fn incr(&self, key: &str, by: &Value) -> Result<Value> {
        match self.call(opcode::KV_INCR, &[Value::from(key), by.clone()]).await? {
            Reply::Value(value) => Ok(value),
            Reply::Integer(number) => Ok(Value::from(number)),
            _ => Err(Error::invalid("an addition was not answered by a number")),
        }
    }
}

/// Ends a wait at the server when its call is dropped before the answer.
struct Cancel<'a> {
    shared: &'a Shared,
    id: u32,
}

impl Drop for Cancel<'_> {
    fn drop(&mut self) {
        let mut id = Vec::new();
        Value::from(i64::from(self.id)).encode_into(&mut id);
        // Where the connection has ended, so has the wait; nobody wants the answer.
        let _ = self.shared.send(opcode::KV_CANCEL, &id, oneshot::channel().0);
    }
}

impl Shared {
    /// Queues a request; its id.
    fn send(&self, opcode: u16, args: &[u8], answer: oneshot::Sender<Result<Reply>>) -> Result<u32> {
        check_request(args.len())?;
        let mut state = self.lock();
        if let Some(failure) = &state.failure {
            return Err(failure.clone());
        }
        let id = state.flight.add(answer);
        put_request(id, opcode, args, &mut state.out);
        drop(state);
        self.wake.notify_one();
        Ok(id)
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Hands out the answers that are whole.
    fn answer(&self, responses: &mut Responses) -> Result<()> {
        while let Some(response) = responses.cut()? {
            let waiter = if response.push { None } else { self.lock().flight.take(response.id) };
            if let Some(waiter) = waiter {
                // Nobody may wait any more: the answer is dropped.
                let _ = waiter.send(ReplyReader::new(response.item).reply());
            }
        }
        Ok(())
    }
}

/// Writes requests and reads answers until the connection ends; then everybody who waits is told.
///
/// Both at a time: a server whose answers nobody reads stops reading requests.
async fn drive<S: Socket>(socket: S, mut responses: Responses, shared: Arc<Shared>) {
    let (mut reader, mut writer) = tokio::io::split(socket);
    let (mut out, mut sent) = (Vec::new(), 0);
    let failure = loop {
        if sent == out.len() {
            (out, sent) = (std::mem::take(&mut shared.lock().out), 0);
        }
        let rest = out.get(sent..).unwrap_or_default();
        let step = tokio::select! {
            read = fill(&mut reader, &mut responses) => read.and_then(|()| shared.answer(&mut responses)),
            written = writer.write(rest), if !rest.is_empty() => {
                written.map(|count| sent = sent.saturating_add(count)).map_err(|error| closed(&error))
            }
            () = shared.wake.notified(), if rest.is_empty() => Ok(()),
        };
        if let Err(error) = step {
            break error;
        }
    };
    let mut state = shared.lock();
    for (_, waiter) in state.flight.drain() {
        let _ = waiter.send(Err(failure.clone()));
    }
    state.failure = Some(failure);
}

async fn fill<S: AsyncRead + Unpin>(socket: &mut S, responses: &mut Responses) -> Result<()> {
    match socket.read(responses.room(READ_BYTES)).await {
        Ok(0) => Err(Error::new(ErrorKind::Closed, "the server closed the connection")),
        Ok(count) => {
            responses.filled(count);
            Ok(())
        }
        Err(error) => Err(closed(&error)),
    }
}

fn closed(error: &std::io::Error) -> Error {
    Error::new(ErrorKind::Closed, format!("no connection: {error}"))
}
