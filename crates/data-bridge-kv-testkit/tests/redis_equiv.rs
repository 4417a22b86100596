//! The reference model against a real Redis server: the same untyped commands, reply by reply. What our store does
//! otherwise on purpose stands in `differences` with its reason, and is counted.

use data_bridge_kv_model::command::table::opcode;
use data_bridge_kv_model::{Reply, Value};
use data_bridge_kv_testkit::random::setting;
use data_bridge_kv_testkit::reference::{Follower, Reference, shown};
use data_bridge_kv_testkit::workload::{Request, Word, Workload};

#[path = "redis_equiv/redis.rs"]
mod redis;

use redis::{Redis, Resp};

/// Deadlines nearer than this would pass while the test runs: milliseconds.
const NEAR: i64 = 50_000;
const COMMANDS_OF_A_SEQUENCE: usize = 60;

fn untyped(word: &Word) -> &[u8] {
    match word {
        Word::Untyped(bytes) => bytes,
        other => panic!("a Redis client can't say {other:?}"),
    }
}

/// Whether the reply depends on how fast the test runs.
fn depends_on_time(request: &Request, now: u64) -> bool {
    let number = |index: usize| -> Option<i64> {
        std::str::from_utf8(untyped(request.words.get(index)?)).ok()?.parse().ok()
    };
    let is_near = |ms: i64| ms > 0 && ms < NEAR;
    let now = now.cast_signed();
    let near = |unit: &[u8], index: usize| {
        let time = number(index).unwrap_or(0);
        match unit {
            b"EX" => is_near(time.saturating_mul(1000)),
            b"PX" => is_near(time),
            // For Redis a key is still there in the millisecond of its deadline.
            b"EXAT" => is_near(time.saturating_mul(1000) - now + 2),
            _ => is_near(time - now + 2),
        }
    };
    match request.opcode {
        opcode::PTTL | opcode::PEXPIRETIME | opcode::TTL | opcode::EXPIRETIME => true,
        opcode::SETEX | opcode::EXPIRE => {
            near(b"EX", 1) || request.words.len() > 2 && request.opcode == opcode::EXPIRE
        }
        opcode::PSETEX | opcode::PEXPIRE => {
            near(b"PX", 1) || request.words.len() > 2 && request.opcode == opcode::PEXPIRE
        }
        opcode::EXPIREAT => near(b"EXAT", 1) || request.words.len() > 2,
        opcode::PEXPIREAT => near(b"PXAT", 1) || request.words.len() > 2,
        _ => request.words.iter().enumerate().any(|(at, word)| {
            let word = untyped(word);
            [&b"EX"[..], b"PX", b"EXAT", b"PXAT"].contains(&word) && near(word, at + 1)
        }),
    }
}

/// Why a reply may differ from Redis's, and whether the two stores differ from then on.
fn difference(request: &Request, expected: &Reply, observed: &Resp) -> Option<(&'static str, bool)> {
    match (request.opcode, expected, observed) {
        (_, Reply::Error(_), Resp::Error(_)) => Some(("two things are wrong, another one is told", false)),
        (opcode::DBSIZE, Reply::Integer(ours), Resp::Integer(theirs)) if ours < theirs => {
            Some(("Redis counts keys that have expired until it meets them", false))
        }
        (opcode::DECRBY, Reply::Integer(_), Resp::Error(text)) if text.contains("would overflow") => {
            Some(("the lowest integer can be subtracted from a negative number", true))
        }
        (
            opcode::INCR | opcode::DECR | opcode::INCRBY | opcode::DECRBY | opcode::HINCRBY,
            Reply::Error(error),
            _,
        ) if error.message().contains("2^53") => {
            Some(("an integer that became a Float counts up to 2^53", true))
        }
        (opcode::INCRBYFLOAT | opcode::HINCRBYFLOAT, Reply::Value(value), Resp::Bulk(theirs)) => {
            let number = |text: &[u8]| std::str::from_utf8(text).ok()?.parse::<f64>().ok();
            let (ours, theirs) = (number(&shown(value)?)?, number(theirs)?);
            let close = (ours - theirs).abs() <= theirs.abs() * 1e-12;
            close.then_some(("a number, or text of more than 38 digits, is added as binary64", true))
        }
        _ => None,
    }
}

/// The reply in our shapes; the expected one tells the shape that RESP2 does not.
fn lift(observed: &Resp, expected: &Reply) -> Reply {
    match (observed, expected) {
        (Resp::Simple(text), Reply::Ok) if text == "OK" => Reply::Ok,
        (Resp::Simple(text), _) => Reply::Status(text.as_str().into()),
        (Resp::Error(text), Reply::Error(error)) if text.starts_with(error.kind().resp_prefix()) => {
            expected.clone()
        }
        (Resp::Error(text), _) => Reply::Status(format!("-{text}").into()),
        (Resp::Integer(number), _) => Reply::Integer(*number),
        (Resp::Nil, _) => Reply::Missing,
        (Resp::Bulk(bytes), Reply::Value(Value::Float(_))) => {
            let number = std::str::from_utf8(bytes).ok().and_then(|text| text.parse().ok());
            number.map_or_else(
                || Reply::Value(Value::Bytes(bytes.as_slice().into())),
                |n| Reply::Value(Value::Float(n)),
            )
        }
        (Resp::Bulk(bytes), Reply::Value(Value::Text(_))) => {
            Reply::Value(Value::Text(String::from_utf8_lossy(bytes).into()))
        }
        (Resp::Bulk(bytes), _) => Reply::Value(Value::Bytes(bytes.as_slice().into())),
        (Resp::Array(items), Reply::Container(shape, expected)) => {
            let lifted = items
                .iter()
                .enumerate()
                .map(|(at, item)| lift(item, expected.get(at).unwrap_or(&Reply::Missing)));
            Reply::Container(*shape, lifted.collect())
        }
        (Resp::Array(items), _) => {
            let lifted = items.iter().map(|item| lift(item, &Reply::Missing)).collect();
            Reply::Container(data_bridge_kv_model::Shape::Array, lifted)
        }
    }
}

#[derive(Default)]
struct Counts {
    compared: usize,
    refused: usize,
    timed: usize,
    different: std::collections::BTreeMap<&'static str, usize>,
}

fn sequence(seed: u64, redis: &mut Redis, counts: &mut Counts) -> Result<(), (&'static str, String)> {
    redis.command(&[b"FLUSHALL"]);
    let now = redis.now_ms();
    let mut follower = Follower::new(Reference::new(now));
    follower.untyped = true;
    let mut workload = Workload::redis(seed, now);
    let mut lines = Vec::new();
    for _ in 0..COMMANDS_OF_A_SEQUENCE {
        let request = workload.request();
        if depends_on_time(&request, now) {
            counts.timed += 1;
            continue;
        }
        lines.push(request.line());
        let args = request.args();
        let name = data_bridge_kv_model::command::table::by_opcode(request.opcode).expect("known").name;
        let mut words = vec![name.as_bytes()];
        words.extend(request.words.iter().map(untyped));
        let observed = redis.command(&words);
        let told =
            |why: String| (name, format!("{why}\nRedis says {observed:?} after\n  {}", lines.join("\n  ")));
        let call = match request.call(&args) {
            Ok(call) => call,
            Err(error) => {
                counts.refused += 1;
                match observed {
                    Resp::Error(_) => continue,
                    // Redis looks for the key before it reads the arguments.
                    Resp::Nil if request.opcode == opcode::GETEX => continue,
                    _ => return Err(told(format!("refused: {error}"))),
                }
            }
        };
        let expected = follower.model.clone().execute(0, &call.command);
        // Redis 7.0 shows scores with 17 digits, we the shortest text: they are compared as numbers.
        let is_sum = [opcode::INCRBYFLOAT, opcode::HINCRBYFLOAT].contains(&request.opcode);
        let lifted = lift(&observed, if is_sum { &Reply::Missing } else { &expected });
        if let Err(why) = follower.follow(0, &call.command, &lifted) {
            match difference(&request, &expected, &observed) {
                None => return Err(told(why)),
                Some((reason, diverges)) => {
                    *counts.different.entry(reason).or_default() += 1;
                    if diverges {
                        return Ok(());
                    }
                }
            }
        }
        counts.compared += 1;
    }
    Ok(())
}

#[test]
fn untyped_commands_answer_as_redis_does() {
    let Some(mut redis) = Redis::start() else {
        println!("skipped: 1 test needs redis-server, which is not installed");
        return;
    };
    let (first, sequences) = (setting("KV_SEED", 1), setting("KV_SEQUENCES", 1000));
    let mut counts = Counts::default();
    // The first failure of each command.
    let mut failures = std::collections::BTreeMap::new();
    for seed in first..first + sequences {
        if let Err((command, why)) = sequence(seed, &mut redis, &mut counts) {
            failures.entry(command).or_insert_with(|| {
                format!("{why}\nreproduce: KV_SEED={seed} KV_SEQUENCES=1 cargo test -p data-bridge-kv-testkit --test redis_equiv")
            });
        }
    }
    let report: Vec<&str> = failures.values().map(String::as_str).collect();
    assert!(report.is_empty(), "{}", report.join("\n\n"));
    let Counts { compared, refused, timed, different } = counts;
    println!("{compared} replies compared, {refused} refused by both, {timed} left out for their timing");
    println!("different on purpose: {different:?}");
    assert!(compared > sequences as usize);
}
