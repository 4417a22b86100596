//! What the engine does when memory is spent: evict, refuse, and hold a value to its limit.

use data_bridge_kv::settings::Eviction;
use data_bridge_kv::{Engine, Settings};
use data_bridge_kv_model::{Arg, ErrorKind, Reply};

use super::{Store, bytes, error_kind};

#[test]
fn a_cache_evicts_and_a_task_namespace_refuses() {
    let limit = 1 << 20;
    let store = Store::new(|settings| {
        settings.max_memory = limit;
        settings.namespaces[0].eviction = Eviction::Lru;
    });
    let value = "x".repeat(100);
    for number in 0..20_000 {
        assert_eq!(store.run(&format!("SET key:{number} {value}")), Reply::Ok);
    }
    let stats = store.engine.stats();
    assert!(stats.namespaces[0].evicted > 5_000 && stats.namespaces[0].keys > 3_000, "{stats:?}");
    assert!(stats.namespaces[0].bytes as u64 <= limit + limit / 16, "{stats:?}");

    let mut tasks = Store::new(|settings| settings.max_memory = limit);
    tasks.caller.namespace = tasks.engine.namespace("tasks").unwrap();
    let refused = (0..20_000).find(|number| {
        matches!(tasks.run(&format!("SET key:{number} {value}")), Reply::Error(error) if error.kind() == ErrorKind::OutOfMemory)
    });
    let refused = refused.expect("the budget was never full");
    assert!(refused > 3_000);
    assert_eq!(tasks.run("DEL key:0"), Reply::Integer(1));
    assert_eq!(tasks.run("GET key:1"), bytes(&value));
}

#[test]
fn a_task_namespace_that_evicts_is_refused() {
    for (number, policy, is_refused) in [
        (1, Eviction::None, false),
        (1, Eviction::Lru, true),
        (1, Eviction::LruTtl, true),
        (1, Eviction::Lfu, true),
        (2, Eviction::Lru, false),
    ] {
        let mut settings = Settings { background: false, ..Settings::default() };
        settings.namespaces[number].eviction = policy;
        assert_eq!(Engine::open(settings).is_err(), is_refused, "{policy:?} in namespace {number}");
    }
}

#[test]
fn a_cache_of_small_values_fills_up_without_an_error() {
    let limit = 2 << 20;
    let cache = Store::new(|settings| {
        settings.max_memory = limit;
        settings.shards = Some(16);
        settings.namespaces[0].eviction = Eviction::Lru;
    });
    for number in 0..60_000 {
        assert_eq!(cache.run(&format!("SET key:{number} 1")), Reply::Ok, "{number}");
        // Everything is touched, so that the order must pass over much.
        cache.run(&format!("GET key:{number}"));
    }
    let stats = cache.engine.stats();
    let sum: usize = stats.namespaces.iter().map(|one| one.bytes).sum();
    assert_eq!(stats.used_memory, sum as u64, "what is used is what the namespaces take");
    assert!(stats.used_memory < limit + limit / 20, "{} bytes in use", stats.used_memory);
    assert!(stats.namespaces[0].evicted > 10_000);
}

#[test]
fn entries_of_all_sizes_stay_within_the_budget() {
    let limit = 8 << 20;
    let cache = Store::new(|settings| {
        settings.max_memory = limit;
        settings.shards = Some(8);
        settings.namespaces[0].eviction = Eviction::Lru;
    });
    // Each key has a size of its own between 10 bytes and 100 KiB; half of all requests go to one key in 32.
    let size = |key: u64| (10 << (key * 5 % 14)) + key % 10;
    let mut seed = 7u64;
    let mut random = |below: u64| {
        seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (seed >> 33) % below
    };
    let mut lru = LruOfBytes { room: limit as usize, ..LruOfBytes::default() };
    let (mut hits, mut lru_hits) = (0, 0);
    const REQUESTS: usize = 60_000;
    for _ in 0..REQUESTS {
        let mut range = 8192;
        while range > 2 && random(2) == 0 {
            range /= 32;
        }
        let key = random(range.max(2));
        if store_has(&cache, key) {
            hits += 1;
        } else {
            let value = "x".repeat(size(key) as usize);
            assert_eq!(cache.run(&format!("SET key:{key} {value}")), Reply::Ok);
        }
        let used = cache.engine.stats().used_memory;
        assert!(used <= limit + limit / 16, "{used} bytes in use");
        lru_hits += usize::from(lru.request(key, size(key) as usize + 48));
    }
    assert!(cache.engine.stats().namespaces[0].evicted > 1_000);
    assert!(hits > lru_hits, "{hits} hits, LRU would have {lru_hits} of {REQUESTS}");
}

fn store_has(store: &Store, key: u64) -> bool {
    store.run(&format!("GET key:{key}")) != Reply::Missing
}

/// A cache of so many bytes whose least recently used entries go first.
#[derive(Default)]
struct LruOfBytes {
    room: usize,
    clock: u64,
    by_key: std::collections::HashMap<u64, (u64, usize)>,
    by_time: std::collections::BTreeMap<u64, u64>,
}

impl LruOfBytes {
    fn request(&mut self, key: u64, bytes: usize) -> bool {
        self.clock += 1;
        let before = self.by_key.insert(key, (self.clock, bytes));
        self.by_time.insert(self.clock, key);
        if let Some((time, _)) = before {
            self.by_time.remove(&time);
            return true;
        }
        while self.room < bytes {
            let (_, oldest) = self.by_time.pop_first().expect("the new entry alone fits");
            self.room += self.by_key.remove(&oldest).map_or(0, |(_, bytes)| bytes);
        }
        self.room -= bytes;
        false
    }
}

#[test]
fn no_command_grows_a_collection_beyond_the_limit_of_a_value() {
    let store = Store::new(|_| {});
    let big = |byte: u8| vec![byte; 30 << 20];
    let (a, b, c) = (big(b'a'), big(b'b'), big(b'c'));
    let run = |line: &str, parts: &[&[u8]]| {
        let words = line.split(' ').map(str::as_bytes).chain(parts.iter().copied());
        let args: Vec<Arg<'_>> = words.map(Arg::Untyped).collect();
        store.call(std::str::from_utf8(args[0].content().unwrap()).unwrap(), &args[1..], 0).unwrap()
    };
    run("RPUSH list x", &[&a, &b]);
    run("RPUSH other", &[&c]);
    run("SADD set", &[&a, &b]);
    run("SADD rest", &[&c]);
    run("HSET hash f", &[&a, b"g", &b]);
    run("ZADD zset 1", &[&a, b"2", &b]);
    let third: [(&str, Vec<&[u8]>); 15] = [
        ("RPUSH list small", vec![&c]),
        ("LPUSH list", vec![&c]),
        ("LSET list 0", vec![&c]),
        ("LINSERT list BEFORE x", vec![&c]),
        ("LMOVE other list LEFT LEFT", vec![]),
        ("SADD set small", vec![&c]),
        ("SMOVE rest set", vec![&c]),
        ("SUNIONSTORE union set rest", vec![]),
        ("ZUNIONSTORE union 2 zset rest", vec![]),
        ("HSET hash small 1 h", vec![&c]),
        ("HSETNX hash h", vec![&c]),
        ("HSET hash small 1", vec![&c, b"1"]),
        ("ZADD zset 1 small 3", vec![&c]),
        ("ZINCRBY zset 3", vec![&c]),
        ("KV.TRANSITION hash state TO STARTED MISSING UPDATE 1 h", vec![&c]),
    ];
    for (line, parts) in third {
        assert_eq!(error_kind(&run(line, &parts)), ErrorKind::Limit, "{line}");
    }
    for (line, length) in
        [("LLEN list", 3), ("LLEN other", 1), ("SCARD set", 2), ("HLEN hash", 2), ("ZCARD zset", 2)]
    {
        assert_eq!(run(line, &[]), Reply::Integer(length), "{line}");
    }
    assert_eq!(run("HSET hash f 1", &[]), Reply::Integer(0));
    assert_eq!(run("HSET hash h", &[&c]), Reply::Integer(1));
}
