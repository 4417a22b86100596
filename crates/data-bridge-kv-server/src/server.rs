//! The running server: what all connections share, and how it starts and ends. Works on the caller's tokio runtime.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU8, AtomicU32, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use data_bridge_kv::Engine;
use data_bridge_kv::opening::Opening;
use tokio::sync::{Semaphore, watch};
use tokio::task::JoinSet;

use crate::admin;
use crate::allowance::Allowance;
use crate::auth::Gate;
use crate::clients::Clients;
use crate::config::{Config, ConfigError};
use crate::disk;
use crate::endpoint::Endpoint;
use crate::held::{self, Held};
use crate::janitor;
use crate::listener::{self, Listener, Newcomer, Ports};
use crate::loading;
use crate::mailbox::{DRAIN, KILL};
use crate::repeated::Repeated;
use crate::snapshots::{self, Snapshots};

/// How long commands in flight may take once the server stopped accepting.
pub const FINISH: Duration = Duration::from_secs(30);

/// Seconds without a turn of the runtime's threads after which the server counts as dead.
const STALE_SECONDS: u32 = 15;

/// Where the server stands in its life.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    /// Ports are bound, nothing is served yet.
    Starting,
    /// Serving.
    Ready,
    /// Serving on, but not ready: SIGTERM came.
    Draining,
}

/// What all connections share.
pub struct Shared {
    /// The store.
    pub engine: Arc<Engine>,
    /// The settings.
    pub config: Config,
    /// The password.
    pub gate: Gate,
    /// Who is connected.
    pub clients: Clients,
    /// What connections have the log say.
    pub(crate) repeated: Repeated,
    /// Connections that wait for the log.
    pub held: Held,
    /// Where snapshots go.
    pub snapshots: Snapshots,
    /// When the server started.
    pub started: Instant,
    /// Tells this run from others.
    pub run_id: String,
    /// Worker threads.
    pub threads: usize,
    /// Memory for what large commands hold.
    pub allowance: Allowance,
    /// Memory for large requests until they were carried out.
    pub intake: Allowance,
    /// One for each connection that may wait for the disk.
    pub disk: Semaphore,
    /// One for each connection that may wait for room in memory with a thread.
    pub room: Semaphore,
    endpoints: OnceLock<Vec<Endpoint>>,
    addresses: OnceLock<Vec<SocketAddr>>,
    phase: AtomicU8,
    rate: AtomicU64,
    beat_at: AtomicU32,
}

impl Shared {
    /// Shares an engine among connections.
    pub fn new(config: Config, engine: Arc<Engine>) -> Result<Shared, ConfigError> {
        let gate = Gate::open(&config.password)?;
        let clients = Clients::new(config.max_clients, config.max_clients_per_address);
        let snapshots = Snapshots::new(config.snapshot_dest.clone(), config.snapshot_keep);
        let max_memory = engine.stats().max_memory;
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        let (for_disk, for_room) = disk::turns(max_memory);
        Ok(Shared {
            threads: config.threads.unwrap_or(cores),
            allowance: Allowance::of(max_memory),
            intake: Allowance::of(max_memory),
            disk: Semaphore::new(for_disk),
            room: Semaphore::new(for_room),
            run_id: run_id(),
            engine,
            config,
            gate,
            clients,
            snapshots,
            repeated: Repeated::default(),
            held: Held::default(),
            started: Instant::now(),
            endpoints: OnceLock::new(),
            addresses: OnceLock::new(),
            phase: AtomicU8::new(0),
            rate: AtomicU64::new(0),
            beat_at: AtomicU32::new(0),
        })
    }

    /// Seconds of the server's life at the last beat, which comes once a second: every batch of every connection asks.
    pub fn seconds(&self) -> u32 {
        self.beat_at.load(Ordering::Relaxed)
    }

    fn elapsed_seconds(&self) -> u32 {
        u32::try_from(self.started.elapsed().as_secs()).unwrap_or(u32::MAX)
    }

    /// Addresses and Unix sockets for clients, as bound.
    pub fn endpoints(&self) -> &[Endpoint] {
        self.endpoints.get().map_or(&[], Vec::as_slice)
    }

    /// Those of TCP.
    pub fn addresses(&self) -> &[SocketAddr] {
        self.addresses.get().map_or(&[], Vec::as_slice)
    }

    /// Where the server stands.
    pub fn phase(&self) -> Phase {
        match self.phase.load(Ordering::Acquire) {
            0 => Phase::Starting,
            1 => Phase::Ready,
            _ => Phase::Draining,
        }
    }

    fn enter(&self, phase: Phase) {
        self.phase.store(phase as u8, Ordering::Release);
    }

    /// Commands a second, measured over the last second.
    pub fn rate(&self) -> u64 {
        self.rate.load(Ordering::Relaxed)
    }

    /// Notes that the runtime's threads take turns.
    pub fn beat(&self) {
        self.beat_at.store(self.elapsed_seconds(), Ordering::Relaxed);
    }

    /// Whether the runtime's threads took a turn lately.
    pub fn is_alive(&self) -> bool {
        self.elapsed_seconds().saturating_sub(self.seconds()) < STALE_SECONDS
    }

    /// Notes the commands of the last second.
    pub fn set_rate(&self, rate: u64) {
        self.rate.store(rate, Ordering::Relaxed);
    }
}

/// Forty hexadecimal digits that differ from run to run.
fn run_id() -> String {
    use std::hash::{BuildHasher, RandomState};
    (0..3).map(|part: u8| format!("{:016x}", RandomState::new().hash_one(part))).collect::<String>()[..40]
        .to_owned()
}

/// Why a server did not start.
#[derive(Debug)]
pub enum StartError {
    /// The configuration can't be.
    Config(ConfigError),
    /// An address can't be had.
    Bind(Endpoint, std::io::Error),
    /// The store can't be opened.
    Store(data_bridge_kv_model::Error),
}

impl std::fmt::Display for StartError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            StartError::Config(error) => error.fmt(f),
            StartError::Store(error) => error.fmt(f),
            StartError::Bind(endpoint, error) if error.kind() == std::io::ErrorKind::AddrInUse => write!(
                f,
                "{endpoint} is in use by another process: stop it, or choose another address with --listen or --admin"
            ),
            StartError::Bind(endpoint, error) => write!(f, "can't listen on {endpoint}: {error}"),
        }
    }
}

impl std::error::Error for StartError {}

impl From<ConfigError> for StartError {
    fn from(error: ConfigError) -> StartError {
        StartError::Config(error)
    }
}

impl From<(Endpoint, std::io::Error)> for StartError {
    fn from((endpoint, error): (Endpoint, std::io::Error)) -> StartError {
        StartError::Bind(endpoint, error)
    }
}

/// A running server. Dropping it ends its tasks at once; [`Server::stop`] lets them finish.
pub struct Server {
    shared: Arc<Shared>,
    admin: Option<SocketAddr>,
    left_out: Option<String>,
    accepting: watch::Sender<bool>,
    tasks: JoinSet<()>,
}

impl Server {
    /// Binds the addresses of the configuration and serves.
    pub async fn start(config: Config, engine: Arc<Engine>) -> Result<Server, StartError> {
        let ports = Ports::bind(&config)?;
        Server::serve(ports, config, engine, Vec::new())
    }

    /// Binds the addresses of the configuration, opens the engine on a thread that may block, and serves. Until it is open
    /// clients are told that it is loading, and the admin port how far it is, by what `opening` says.
    pub async fn load(
        config: Config,
        opening: Arc<Opening>,
        open: impl FnOnce() -> data_bridge_kv_model::Result<Engine> + Send + 'static,
    ) -> Result<Server, StartError> {
        // A password that can't be read is told before, not after the data was.
        Gate::open(&config.password)?;
        let ports = Ports::bind(&config)?;
        let opened = tokio::task::spawn_blocking(open);
        let (opened, held) = loading::wait(&ports, config.max_clients, &opening, opened).await;
        let engine = match opened {
            Ok(engine) => engine.map_err(StartError::Store)?,
            Err(ended) => std::panic::resume_unwind(ended.into_panic()),
        };
        Server::serve(ports, config, Arc::new(engine), held)
    }

    fn serve(
        ports: Ports,
        config: Config,
        engine: Arc<Engine>,
        held: Vec<Newcomer>,
    ) -> Result<Server, StartError> {
        let Ports { listeners, admin, left_out } = ports;
        let shared = Arc::new(Shared::new(config, engine)?);
        let bound: Vec<Endpoint> = listeners.iter().map(Listener::endpoint).collect();
        // Nothing has set them before.
        let _ = shared.addresses.set(bound.iter().filter_map(Endpoint::tcp).collect());
        let _ = shared.endpoints.set(bound);
        let admin_address = admin.as_ref().and_then(|listener| listener.local_addr().ok());
        let (accepting, accepts) = watch::channel(true);
        let mut tasks = JoinSet::new();
        for newcomer in held {
            listener::welcome(newcomer, &shared);
        }
        for listener in listeners {
            tasks.spawn(listener::accept(listener, Arc::clone(&shared), accepts.clone()));
        }
        if let Some(listener) = admin {
            tasks.spawn(admin::serve(listener, Arc::clone(&shared)));
        }
        tasks.spawn(janitor::look_after(Arc::clone(&shared)));
        tasks.spawn(held::release(Arc::clone(&shared)));
        let every = shared.config.snapshot_every;
        if !every.is_zero() {
            tasks.spawn(snapshots::take_regularly(Arc::clone(&shared), every));
        }
        shared.enter(Phase::Ready);
        Ok(Server { shared, admin: admin_address, left_out, accepting, tasks })
    }

    /// Addresses for clients, as bound; Unix sockets stand in `shared().endpoints()`.
    pub fn addresses(&self) -> &[SocketAddr] {
        self.shared.addresses()
    }

    /// Address of the admin port, as bound.
    pub fn admin_address(&self) -> Option<SocketAddr> {
        self.admin
    }

    /// The default address that it does not serve, and why.
    pub fn left_out(&self) -> Option<&str> {
        self.left_out.as_deref()
    }

    /// What its connections share.
    pub fn shared(&self) -> &Arc<Shared> {
        &self.shared
    }

    /// Not ready from now on, but serving: whoever balances load has time to notice.
    pub fn drain(&self) {
        self.shared.enter(Phase::Draining);
    }

    /// Stops accepting, lets every connection finish what was begun for at most `limit`, then ends the rest and
    /// closes the engine. Answers how many connections had to be ended.
    pub async fn stop(mut self, limit: Duration) -> usize {
        self.drain();
        // The accepting tasks may have ended already.
        let _ = self.accepting.send(false);
        let deadline = Instant::now() + limit;
        while !self.shared.clients.is_empty() && Instant::now() < deadline {
            // Again each time: a connection may have been accepted just before.
            self.shared.clients.list().iter().for_each(|client| client.mailbox.signal(DRAIN));
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        let left = self.shared.clients.list();
        left.iter().for_each(|client| client.mailbox.signal(KILL));
        // Whoever ends the server asks for the failure of the log himself.
        drop(self.shared.engine.close());
        self.tasks.shutdown().await;
        left.len()
    }
}
