//! Schedules, a disk at whose operations threads meet, and a store whose callers say lines.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use data_bridge_kv::disk::Disk;
use data_bridge_kv::sync::real::Mutex;
use data_bridge_kv::{Caller, Completions, DataDirectory, Engine, ManualClock, Progress, Settings};
use data_bridge_kv_model::command::table;
use data_bridge_kv_model::{Arg, Reply, ReplyBuf, ReplyReader, Value};
use data_bridge_kv_testkit::disk::FaultyDisk;
use data_bridge_kv_testkit::disk::hooked::Hooked;
use data_bridge_kv_testkit::random::setting;
use shuttle::rand::{RngCore, thread_rng};
use shuttle::scheduler::{PctScheduler, RandomScheduler};
use shuttle::sync::atomic::{AtomicBool, Ordering};
use shuttle::{Config, FailurePersistence, MaxSteps, Runner};

pub const START_MS: u64 = 1_790_000_000_000;

/// Schedules of one seed.
const BLOCK: u64 = 50;
/// How often priorities change, at most, where there are priorities.
const CHANGES: usize = 3;
/// More steps than any schedule takes that ends.
const STEPS: usize = 1_000_000;
const STACK_BYTES: usize = 512 << 10;

/// Runs a model under as many schedules as are asked for, `usual` if nobody asks; answers what was run.
pub fn schedules(test: &str, usual: u64, model: fn()) -> String {
    let (first, count) = (setting("KV_SEED", 1), setting("KV_SCHEDULES", usual));
    assert!(count > 0, "nothing is run");
    let (mut seed, mut left) = (first, count);
    while left > 0 {
        let block = left.min(BLOCK);
        // What failed was told when it panicked.
        let outcome = catch_unwind(AssertUnwindSafe(|| run(seed, block as usize, model)));
        assert!(
            outcome.is_ok(),
            "a schedule failed\nreproduce: KV_SEED={seed} KV_SCHEDULES={block} cargo test -p data-bridge-kv \
             --features interleave --test interleave -- --exact {test}"
        );
        (seed, left) = (seed + 1, left - block);
    }
    format!("{count} schedules of {test}")
}

pub fn run(seed: u64, count: usize, model: fn()) {
    let mut config = Config::new();
    config.stack_size = STACK_BYTES;
    config.failure_persistence = FailurePersistence::None;
    config.max_steps = MaxSteps::FailAfter(STEPS);
    config.silence_warnings = true;
    let ran = if seed.is_multiple_of(2) {
        Runner::new(PctScheduler::new_from_seed(seed, CHANGES, count), config).run(model)
    } else {
        Runner::new(RandomScheduler::new_from_seed(seed, count), config).run(model)
    };
    assert_eq!(ran, count);
}

/// A number from the schedule's seed.
pub fn random(below: u64) -> u64 {
    thread_rng().next_u64() % below
}

/// Lets another thread go on, if it is its turn.
fn meet() {
    let _ = AtomicBool::new(false).load(Ordering::SeqCst);
}

/// A disk at each of whose operations threads meet.
#[derive(Clone)]
pub struct Meeting(pub FaultyDisk);

impl Meeting {
    pub fn new() -> Meeting {
        let disk = FaultyDisk::new();
        disk.cache_reads(true);
        Meeting(disk)
    }

    /// What a power cut would leave.
    pub fn image(&self) -> FaultyDisk {
        let image = self.0.crash_image(random(u64::MAX));
        image.cache_reads(true);
        image
    }

    /// The disk at whose operations threads meet.
    pub fn disk(&self) -> Arc<dyn Disk> {
        Arc::new(Hooked::new(Arc::new(self.0.clone()), |_, _| {
            meet();
            Ok(())
        }))
    }
}

/// What a caller was told behind his back.
#[derive(Default)]
pub struct Told {
    pub all: Mutex<Vec<(u64, Reply)>>,
    /// Where it is looked what a power cut would leave at that moment, and what it was.
    disk: Option<Meeting>,
    pub images: Mutex<Vec<FaultyDisk>>,
}

impl Told {
    pub fn beside(disk: &Meeting) -> Told {
        Told { disk: Some(disk.clone()), ..Told::default() }
    }

    /// How often something was told under this number.
    pub fn times(&self, token: u64) -> usize {
        self.all.lock().iter().filter(|(told, _)| *told == token).count()
    }
}

impl Completions for Told {
    fn complete(&self, token: u64, reply: &[u8]) {
        self.all.lock().push((token, ReplyReader::new(reply).reply().unwrap()));
        self.images.lock().extend(self.disk.as_ref().map(Meeting::image));
    }

    fn event(&self, watch: u64, event: &[u8]) {
        self.complete(watch, event);
    }
}

/// A store; without threads of its own unless they are asked for.
pub struct Store {
    pub engine: Engine,
    pub clock: Arc<ManualClock>,
}

impl Store {
    pub fn open(disk: Option<Arc<dyn Disk>>) -> Store {
        Store::open_with(disk, |_| {})
    }

    pub fn open_with(disk: Option<Arc<dyn Disk>>, adjust: impl FnOnce(&mut Settings)) -> Store {
        let clock = Arc::new(ManualClock::new(START_MS));
        let mut settings = Settings {
            shards: Some(1),
            clock: clock.clone(),
            seed: Some(1),
            background: false,
            data: disk.map(|disk| DataDirectory::on(disk, 1 << 30).unwrap()),
            ..Settings::default()
        };
        adjust(&mut settings);
        Store { engine: Engine::open(settings).unwrap(), clock }
    }

    /// Somebody who works on a namespace.
    pub fn caller(&self, namespace: &str) -> Caller {
        Caller { namespace: self.engine.namespace(namespace).unwrap(), ..self.engine.caller() }
    }

    /// Says a line; the answer, unless that comes later.
    pub fn say(&self, caller: &Caller, token: u64, line: &str) -> Option<Reply> {
        let mut words = line.split(' ').map(str::as_bytes);
        let spec = table::by_name(words.next().unwrap()).unwrap();
        let args: Vec<Arg<'_>> = words.map(Arg::Untyped).collect();
        let mut out = ReplyBuf::new();
        match self.engine.execute(caller, token, &spec.call(&args).unwrap(), &mut out) {
            Progress::Done => Some(ReplyReader::new(out.as_bytes()).reply().unwrap()),
            Progress::Pending => None,
            Progress::Blocked => panic!("{line}: nobody here refuses to wait"),
        }
    }

    /// The number that a line is answered with; 0 if there is none.
    pub fn number(&self, caller: &Caller, line: &str) -> i64 {
        match self.say(caller, 0, line) {
            Some(Reply::Missing) => 0,
            Some(Reply::Integer(number)) | Some(Reply::Value(Value::Int(number))) => number,
            other => panic!("{line}: {other:?}"),
        }
    }
}

/// The numbers of keys of `tasks` that a disk has, 0 where there is none.
pub fn numbers_on<const N: usize>(disk: &FaultyDisk, keys: [&str; N]) -> [i64; N] {
    let store = Store::open(Some(Arc::new(disk.clone())));
    let caller = store.caller("tasks");
    keys.map(|key| store.number(&caller, &format!("GET {key}")))
}

/// The same for one.
pub fn number_on(disk: &FaultyDisk, key: &str) -> i64 {
    let [number] = numbers_on(disk, [key]);
    number
}
