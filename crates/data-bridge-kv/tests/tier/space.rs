//! Space on disk while keys come and go.

use super::*;

const MEMORY: u64 = 3 << 19;
/// So much that segments of the usual size would be larger than all that lives.
const SPACE: u64 = 1 << 30;
/// How long keys live, as parts of the day: a batch of them each as long, and each life as often as the others.
const LIVES: [u64; 4] = [96, 24, 8, 4];
const KEYS: u64 = 32_000;
const BATCH: u64 = 80;
/// Keys that come between two looks of the engine.
const AT_ONCE: u64 = 40;
/// Bytes of a byte that lives, in thousandths, and how many entries may be written again for a thousand that leave memory.
const MOST_SPACE: u64 = 1500;
const MOST_MOVED: u64 = 800;

/// How keys go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum End {
    Expires,
    IsDeleted,
}

/// Lets keys come and go for a day of so many milliseconds: once as many go as come, the disk has no more than its share,
/// with what lives counted by the one who writes: keys and values, in memory and on disk.
fn day(namespace: &str, day: u64, end: End) {
    let store = Store::new(namespace, MEMORY, SPACE);
    let text = "0123456789".repeat(420);
    let (mut most, mut ends): (u64, Vec<(u64, u64, u64)>) = (0, Vec::new());
    let time = |key: u64| key * day / KEYS;
    for n in 0..KEYS {
        let now = time(n / AT_ONCE * AT_ONCE);
        let batch = usize::try_from(n / BATCH).unwrap();
        let (life, length) = (day / LIVES[batch % LIVES.len()], 200 + n * 104_729 % 3800);
        let value = &text[..usize::try_from(length).unwrap()];
        let ttl = if end == End::Expires { format!(" PX {life}") } else { String::new() };
        assert_eq!(store.run(&format!("SET day:{n:012} {value}{ttl}")), Reply::Ok);
        ends.push((now + life, length + 16, n));
        if n % AT_ONCE == AT_ONCE - 1 {
            store.clock.advance(time(n + 1) - now);
            let (left, gone): (Vec<_>, Vec<_>) = ends.into_iter().partition(|(at, ..)| *at > time(n + 1));
            ends = left;
            for (.., key) in gone.iter().filter(|_| end == End::IsDeleted) {
                assert_eq!(store.run(&format!("DEL day:{key:012}")), Reply::Integer(1));
            }
            store.engine.tick();
            if n > KEYS / 4 {
                let live: u64 = ends.iter().map(|(_, bytes, _)| bytes).sum();
                most = most.max(store.tier().bytes * 1000 / live);
            }
        }
    }
    let tier = store.tier();
    let moved = tier.moved * 1000 / tier.demoted;
    assert!(tier.demoted > KEYS / 2 && most > 1000, "{most}, {tier:?}");
    assert!(most <= MOST_SPACE && moved <= MOST_MOVED, "{namespace}, {day} ms: {most}, {moved}, {tier:?}");
}

#[test]
fn a_cache_whose_keys_expire_takes_half_as_much_again_at_most() {
    day("default", 600_000, End::Expires);
}

#[test]
fn a_cache_whose_keys_live_for_hours_does_too() {
    day("default", 86_400_000, End::Expires);
}

#[test]
fn tasks_whose_keys_live_for_hours_do_too() {
    day("tasks", 86_400_000, End::Expires);
}

#[test]
fn tasks_that_are_deleted_do_too() {
    day("tasks", 86_400_000, End::IsDeleted);
}
