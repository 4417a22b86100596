//! What whoever opens an engine decides: memory, shards, and a policy for each namespace.

use std::path::Path;
use std::sync::Arc;

use data_bridge_kv_model::limits::{LOG_RECORD_BYTES, NAMESPACES};
use data_bridge_kv_model::{Error, ErrorKind, Result};

use crate::budget::Resident;
use crate::clock::{Clock, SystemClock};
use crate::disk::{DirectoryLock, Disk, Doubt, RealDisk};
use crate::opening::Opening;

/// What a namespace is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// Values may be evicted when memory is short.
    Cache,
    /// Values stay until they are deleted or expire.
    Task,
}

/// When a write is on disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Durability {
    /// Never: memory only.
    None,
    /// Within a second.
    EverySecond,
    /// Before it is acknowledged.
    Always,
}

impl Durability {
    /// The word for it in configurations.
    pub fn word(self) -> &'static str {
        match self {
            Durability::None => "none",
            Durability::EverySecond => "everysec",
            Durability::Always => "always",
        }
    }

    /// Reads the word.
    pub fn parse(word: &str) -> Result<Durability> {
        let all = [Durability::None, Durability::EverySecond, Durability::Always];
        let unknown = || Error::invalid(format!("unknown durability '{word}': none, everysec or always"));
        all.into_iter().find(|durability| durability.word() == word).ok_or_else(unknown)
    }
}

/// Which keys go when memory is short.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Eviction {
    /// Any key, least recently used first.
    Lru,
    /// Keys with a deadline, least recently used first.
    LruTtl,
    /// Any key, least frequently used first.
    Lfu,
    /// None: writes are refused instead.
    None,
}

impl Eviction {
    /// Whether an entry takes part in eviction.
    pub fn admits(self, has_deadline: bool) -> bool {
        match self {
            Eviction::None => false,
            Eviction::Lru | Eviction::Lfu => true,
            Eviction::LruTtl => has_deadline,
        }
    }

    /// Redis's word for the policy.
    pub fn redis_word(self) -> &'static str {
        match self {
            Eviction::Lru => "allkeys-lru",
            Eviction::LruTtl => "volatile-lru",
            Eviction::Lfu => "allkeys-lfu",
            Eviction::None => "noeviction",
        }
    }

    /// Reads our word (`lru`, `lru-ttl`, `lfu`, `none`) or Redis's.
    pub fn parse(word: &str) -> Result<Eviction> {
        let ours = [
            ("lru", Eviction::Lru),
            ("lru-ttl", Eviction::LruTtl),
            ("lfu", Eviction::Lfu),
            ("none", Eviction::None),
        ];
        ours.into_iter()
            .find(|(name, policy)| *name == word || policy.redis_word() == word)
            .map(|(_, policy)| policy)
            .ok_or_else(|| {
                Error::invalid(format!("unknown eviction policy '{word}': lru, lru-ttl, lfu or none"))
            })
    }
}

/// Most transitions that a task keeps.
pub const MAX_HISTORY: usize = 1000;

/// The policy of one namespace.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NamespaceSettings {
    /// Its name.
    pub name: String,
    /// What it is for.
    pub mode: Mode,
    /// When a write is on disk; `None` = as [`NamespaceSettings::durability_with`] says.
    pub durability: Option<Durability>,
    /// Which keys go when memory is short.
    pub eviction: Eviction,
    /// Time to live of keys that are written without one, in ms.
    pub default_ttl_ms: Option<u64>,
    /// Bytes below which nothing of this namespace is evicted.
    pub floor_bytes: u64,
    /// Which state transitions are allowed; `None` = all.
    pub graph: Option<TransitionGraph>,
    /// How many of its last transitions a task keeps, in the field `history` of its hash; 0 = none.
    pub history: usize,
    /// Whether FLUSHDB may empty it.
    pub allow_flush: bool,
}

impl NamespaceSettings {
    /// The policy that namespace `number` has unless configured: 0 `default` evicts keys with a deadline, 1 `tasks` is
    /// for tasks, 2 `cache` evicts any key, the rest are as 0.
    pub fn preset(number: usize) -> NamespaceSettings {
        let (name, mode, eviction) = match number {
            0 => ("default".to_owned(), Mode::Cache, Eviction::LruTtl),
            1 => ("tasks".to_owned(), Mode::Task, Eviction::None),
            2 => ("cache".to_owned(), Mode::Cache, Eviction::Lru),
            number => (number.to_string(), Mode::Cache, Eviction::LruTtl),
        };
        NamespaceSettings {
            name,
            mode,
            durability: None,
            eviction,
            default_ttl_ms: None,
            floor_bytes: 0,
            graph: None,
            history: 0,
            allow_flush: mode == Mode::Cache,
        }
    }

    /// The number that a name of a namespace is, if it is one.
    pub fn number(name: &str) -> Option<usize> {
        name.parse().ok().filter(|number| *number < NAMESPACES)
    }

    /// The namespace with this name or number, of all 16. A new name takes the first number from 3 on that has none and is
    /// not `kept`, as numbers that are configured themselves.
    ///
    /// ```
    /// use data_bridge_kv::NamespaceSettings;
    /// let mut all: Vec<_> = (0..16).map(NamespaceSettings::preset).collect();
    /// assert_eq!(NamespaceSettings::named(&mut all, "1", &[]).unwrap().name, "tasks");
    /// NamespaceSettings::named(&mut all, "jobs", &[3]).unwrap();
    /// assert_eq!((all[3].name.as_str(), all[4].name.as_str()), ("3", "jobs"));
    /// assert!(NamespaceSettings::named(&mut all, "two words", &[]).is_err());
    /// ```
    pub fn named<'a>(
        all: &'a mut [NamespaceSettings],
        name: &str,
        kept: &[usize],
    ) -> Result<&'a mut NamespaceSettings> {
        let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.');
        if name.is_empty() || name.len() > 64 || !name.bytes().all(is_plain) {
            let rule = "1 to 64 letters, digits, '-', '_', '.'";
            return Err(Error::invalid(format!("'{name}' is no name of a namespace: {rule}")));
        }
        let known =
            all.iter().position(|namespace| namespace.name == name).or(NamespaceSettings::number(name));
        let is_free = |number: usize, one: &NamespaceSettings| {
            number > 2 && one.name == number.to_string() && !kept.contains(&number)
        };
        let free = || all.iter().enumerate().position(|(number, one)| is_free(number, one));
        let found = known.or_else(free).and_then(|number| all.get_mut(number));
        let full = || Error::invalid(format!("no room for namespace '{name}': there are 16"));
        let namespace = found.ok_or_else(full)?;
        if known.is_none() {
            name.clone_into(&mut namespace.name);
        }
        Ok(namespace)
    }

    /// Gives task namespaces the numbers that their directory has for them: a new name takes the first free number, so the
    /// order in which they are configured changes from start to start. Who has such a number takes the one that it
    /// frees, unless it is configured by it.
    pub(crate) fn keep_numbers(all: &mut [NamespaceSettings], tasks: &[(u8, String)]) {
        let may_move = |all: &[NamespaceSettings], number: usize| {
            let is_named = |one: &NamespaceSettings| NamespaceSettings::number(&one.name).is_none();
            let preset = NamespaceSettings::preset(number);
            number > 2 && all.get(number).is_some_and(|one| is_named(one) || *one == preset)
        };
        for (number, name) in tasks {
            let number = usize::from(*number);
            let Some(at) = all.iter().position(|one| one.name == *name) else { continue };
            if at == number || !may_move(all, at) || !may_move(all, number) {
                continue;
            }
            all.swap(at, number);
            if NamespaceSettings::number(&all[at].name).is_some() {
                all[at] = NamespaceSettings::preset(at);
            }
        }
    }

    /// Makes it a namespace of this mode. Another mode resets what depends on it: eviction, and whether it may be flushed.
    pub fn set_mode(&mut self, mode: Mode) {
        if mode != self.mode {
            self.mode = mode;
            self.eviction = if mode == Mode::Task { Eviction::None } else { Eviction::Lru };
            self.allow_flush = mode == Mode::Cache;
        }
    }

    /// When a write is on disk: what was chosen, else never in a cache and without a directory, and always in a task
    /// namespace with one.
    pub fn durability_with(&self, has_directory: bool) -> Durability {
        match (self.durability, self.mode) {
            (Some(chosen), _) => chosen,
            (None, Mode::Task) if has_directory => Durability::Always,
            (None, _) => Durability::None,
        }
    }

    /// Refuses a durability that this mode, with or without a directory, can't have.
    fn check_durability(&self, has_directory: bool) -> Result<()> {
        let name = &self.name;
        let refused = match (self.durability, self.mode, has_directory) {
            (None, _, _) | (Some(Durability::None), _, false) | (Some(Durability::None), Mode::Cache, _) => {
                return Ok(());
            }
            (Some(Durability::None), Mode::Task, true) => {
                format!("task namespace '{name}' is logged in a data directory: everysec or always")
            }
            (Some(_), Mode::Cache, _) => {
                format!("namespace '{name}' is a cache, which is never logged: make it a task namespace")
            }
            (Some(_), Mode::Task, false) => {
                format!("the durability of namespace '{name}' needs a data directory")
            }
            (Some(_), Mode::Task, true) => return Ok(()),
        };
        Err(Error::invalid(refused))
    }
}

/// Which states may follow which, in one field of the namespace's hashes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TransitionGraph {
    field: String,
    /// From (empty = not there yet) and to.
    edges: Vec<(String, String)>,
}

impl TransitionGraph {
    /// Reads steps such as `->PENDING, PENDING->STARTED, STARTED->SUCCESS|FAILURE|RETRY, RETRY->STARTED`: a step
    /// from nothing creates. States are separated by `|`, steps by commas.
    ///
    /// ```
    /// use data_bridge_kv::settings::TransitionGraph;
    /// let graph = TransitionGraph::parse("status", "->PENDING, PENDING->STARTED|REVOKED").unwrap();
    /// assert!(graph.allows(None, b"PENDING"));
    /// assert!(graph.allows(Some(b"PENDING"), b"REVOKED"));
    /// assert!(!graph.allows(Some(b"STARTED"), b"PENDING"));
    /// ```
    pub fn parse(field: &str, steps: &str) -> Result<TransitionGraph> {
        let mut edges = Vec::new();
        for step in steps.split(',') {
            let Some((from, to)) = step.split_once("->") else {
                return Err(Error::invalid(format!("'{}' is no step: write FROM->TO", step.trim())));
            };
            for from in from.split('|') {
                edges.extend(to.split('|').map(|to| (from.trim().to_owned(), to.trim().to_owned())));
            }
        }
        if edges.iter().any(|(_, to)| to.is_empty()) {
            return Err(Error::invalid("a step of the transition graph leads nowhere"));
        }
        Ok(TransitionGraph { field: field.to_owned(), edges })
    }

    /// The field that holds the state.
    pub fn field(&self) -> &str {
        &self.field
    }

    /// Whether `to` may follow `from`; no `from` means that there is no state yet.
    pub fn allows(&self, from: Option<&[u8]>, to: &[u8]) -> bool {
        let from = from.unwrap_or_default();
        self.edges.iter().any(|(start, end)| start.as_bytes() == from && end.as_bytes() == to)
    }
}

/// How a caller's thread may block: it runs the act once, after giving away what others wait for.
pub type Blocking = fn(&mut (dyn FnMut() + Send));

/// The directory of the log, and that entries overflow to. It is this process's alone until the last clone is dropped.
#[derive(Clone)]
pub struct DataDirectory {
    disk: Arc<dyn Disk>,
    _lock: Arc<DirectoryLock>,
    max_bytes: u64,
    share: Share,
}

/// Of so many bytes that there are, how many may be used.
type Share = Arc<dyn Fn(u64) -> u64 + Send + Sync>;

/// What an error means for a directory, with the words that name it.
fn unusable(directory: &str, error: &std::io::Error) -> Error {
    if error.kind() == std::io::ErrorKind::WouldBlock {
        let owner = error.get_ref().map_or_else(|| "another process".to_owned(), |who| who.to_string());
        return Error::new(ErrorKind::Locked, format!("{directory} belongs to {owner}"));
    }
    Error::new(ErrorKind::Unavailable, format!("{directory}: {error}"))
}

/// Names a directory of the operating system.
fn named(path: &Path) -> String {
    format!("{DIRECTORY} {}", path.display())
}

/// Names any other.
const DIRECTORY: &str = "the data directory";

impl DataDirectory {
    /// A directory of the operating system, made if need be. `share` tells from the bytes that there are how many may be used at
    /// most. It is asked again when those are used up, and the limit raised if more are there by then.
    pub fn open(path: &Path, share: impl Fn(u64) -> u64 + Send + Sync + 'static) -> Result<DataDirectory> {
        let directory = named(path);
        let disk = RealDisk::open(path).map_err(|error| unusable(&directory, &error))?;
        DataDirectory::sized_as(&directory, Arc::new(disk), share)
    }

    /// Any disk, in the same way. What a store left in the directory counts as free: the next one has it.
    pub fn sized(
        disk: Arc<dyn Disk>,
        share: impl Fn(u64) -> u64 + Send + Sync + 'static,
    ) -> Result<DataDirectory> {
        DataDirectory::sized_as(DIRECTORY, disk, share)
    }

    fn sized_as(
        directory: &str,
        disk: Arc<dyn Disk>,
        share: impl Fn(u64) -> u64 + Send + Sync + 'static,
    ) -> Result<DataDirectory> {
        let free = disk.free_bytes().map_err(|error| unusable(directory, &error))?;
        let names = disk.list().map_err(|error| unusable(directory, &error))?;
        // What can't be opened is no file of a store.
        let sizes = names.iter().filter_map(|name| disk.open(name).and_then(|file| file.size()).ok());
        let there = sizes.fold(free, u64::saturating_add);
        DataDirectory::shared(directory, disk, share(there), Arc::new(share))
    }

    /// Any disk, with a limit that stays.
    pub fn on(disk: Arc<dyn Disk>, max_bytes: u64) -> Result<DataDirectory> {
        DataDirectory::shared(DIRECTORY, disk, max_bytes, Arc::new(move |_| max_bytes))
    }

    fn shared(directory: &str, disk: Arc<dyn Disk>, max_bytes: u64, share: Share) -> Result<DataDirectory> {
        let lock = disk.lock().map_err(|error| unusable(directory, &error))?;
        Ok(DataDirectory { disk: Arc::new(Doubt::over(disk)), _lock: Arc::new(lock), max_bytes, share })
    }

    /// The disk of a directory that is there and that no store uses, for whoever only reads, where nothing may be written too.
    /// No store opens it meanwhile.
    pub fn open_to_read(path: &Path) -> Result<Arc<dyn Disk>> {
        let disk = RealDisk::open_to_read(path).map_err(|error| unusable(&named(path), &error))?;
        Ok(Arc::new(disk))
    }

    /// The disk.
    pub fn disk(&self) -> &Arc<dyn Disk> {
        &self.disk
    }

    /// The most bytes to use, as it was opened.
    pub fn max_bytes(&self) -> u64 {
        self.max_bytes
    }

    /// The same now that a store uses so many.
    pub(crate) fn max_bytes_now(&self, used: u64) -> std::io::Result<u64> {
        Ok((self.share)(self.disk.free_bytes()?.saturating_add(used)))
    }
}

/// What an engine is opened with.
#[derive(Clone)]
pub struct Settings {
    /// Memory budget in bytes for everything that is stored; `u64::MAX` = none.
    pub max_memory: u64,
    /// What the system counts for the process, where that is to stay within the budget; `None` = the store's own account is.
    pub resident: Option<Arc<dyn Resident>>,
    /// Shards of a namespace, a power of two up to 4096; `None` = eight for each core.
    pub shards: Option<usize>,
    /// One policy for each of the 16 namespaces.
    pub namespaces: Vec<NamespaceSettings>,
    /// Where entries go that memory has no room for; `None` = nowhere.
    pub data: Option<DataDirectory>,
    /// Bytes of the log of task namespaces after which what they hold is written to the cold tier, so that it can be cut.
    pub log_bytes: u64,
    /// Bytes of a segment of the log, for tests that need many; `None` = by what the log may take.
    #[doc(hidden)]
    pub log_segment_bytes: Option<u64>,
    /// Most bytes of a record of the log, which has everything that one command or atomic step changes; 1 MiB to 1 GiB.
    pub record_bytes: usize,
    /// Where others see how far opening the directory is.
    pub opening: Arc<Opening>,
    /// How a caller's thread may block while it reads from there.
    pub blocking: Blocking,
    /// The clock.
    pub clock: Arc<dyn Clock>,
    /// Seed of hashing and random picks; `None` = drawn for this process.
    pub seed: Option<u64>,
    /// Whether a thread expires keys and ends waits on time; without it the owner calls `Engine::tick`.
    pub background: bool,
}

impl Default for Settings {
    fn default() -> Settings {
        Settings {
            max_memory: u64::MAX,
            resident: None,
            shards: None,
            namespaces: (0..NAMESPACES).map(NamespaceSettings::preset).collect(),
            data: None,
            log_bytes: 256 << 20,
            log_segment_bytes: None,
            record_bytes: LOG_RECORD_BYTES,
            opening: Arc::default(),
            blocking: |act| act(),
            clock: Arc::new(SystemClock::default()),
            seed: None,
            background: true,
        }
    }
}

impl Settings {
    /// Refuses what can't be or is not available yet.
    pub fn check(&self) -> Result<()> {
        if self.namespaces.len() != NAMESPACES {
            return Err(Error::invalid("there are always 16 namespaces"));
        }
        if self.shards.is_some_and(|shards| !shards.is_power_of_two() || shards > 4096) {
            return Err(Error::invalid("the number of shards must be a power of two, at most 4096"));
        }
        if !(1 << 20..=LOG_RECORD_BYTES).contains(&self.record_bytes) {
            return Err(Error::invalid("a record of the log has at most 1 MiB to 1 GiB"));
        }
        for (number, namespace) in self.namespaces.iter().enumerate() {
            namespace.check_durability(self.data.is_some())?;
            if self.namespaces.iter().take(number).any(|earlier| earlier.name == namespace.name) {
                return Err(Error::invalid(format!("namespace name '{}' is given twice", namespace.name)));
            }
            if namespace.history > MAX_HISTORY {
                let message =
                    format!("namespace '{}' keeps at most {MAX_HISTORY} transitions", namespace.name);
                return Err(Error::invalid(message));
            }
            if namespace.mode == Mode::Task && namespace.eviction != Eviction::None {
                return Err(Error::invalid(format!("task namespace '{}' must not evict", namespace.name)));
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_durability_needs_a_task_namespace_and_a_directory() {
        let [cache, task] = [0, 1].map(NamespaceSettings::preset);
        let refused = |preset: &NamespaceSettings, durability, has_directory| {
            let settings = NamespaceSettings { durability, ..preset.clone() };
            settings.check_durability(has_directory).is_err()
        };
        for chosen in [Durability::EverySecond, Durability::Always] {
            assert!(!refused(&task, Some(chosen), true) && refused(&task, Some(chosen), false));
            assert!(refused(&cache, Some(chosen), true) && refused(&cache, Some(chosen), false));
        }
        assert!(
            refused(&task, Some(Durability::None), true) && !refused(&task, Some(Durability::None), false)
        );
        assert!(!refused(&cache, Some(Durability::None), true));
        assert!(
            ![&cache, &task].iter().any(|preset| refused(preset, None, true) || refused(preset, None, false))
        );
        assert_eq!(task.durability_with(true), Durability::Always);
        assert_eq!(task.durability_with(false), Durability::None);
        assert_eq!(cache.durability_with(true), Durability::None);
    }

    #[test]
    fn policies_have_two_words() {
        for policy in [Eviction::Lru, Eviction::LruTtl, Eviction::Lfu, Eviction::None] {
            assert_eq!(Eviction::parse(policy.redis_word()).unwrap(), policy);
        }
        assert!(Eviction::parse("random").is_err());
    }
}
