//! A task's last transitions: how many are kept, with their times, and that a crash changes nothing of that.

use std::sync::Arc;

use data_bridge_kv::{Caller, DataDirectory, Engine, ManualClock, Settings};
use data_bridge_kv_model::command::table;
use data_bridge_kv_model::{Arg, ErrorKind, Reply, ReplyBuf, ReplyReader, Value, ValueRef};
use data_bridge_kv_testkit::disk::FaultyDisk;

const START_MS: u64 = 1_800_000_000_000;
const KEPT: usize = 3;

fn open(disk: &FaultyDisk, clock: &Arc<ManualClock>) -> (Engine, Caller) {
    let mut settings = Settings {
        data: Some(DataDirectory::on(Arc::new(disk.clone()), 1 << 26).unwrap()),
        clock: Arc::clone(clock) as Arc<_>,
        background: false,
        ..Settings::default()
    };
    settings.namespaces[1].history = KEPT;
    let engine = Engine::open(settings).unwrap();
    let caller = Caller { namespace: engine.namespace("tasks").unwrap(), ..engine.caller() };
    (engine, caller)
}

fn run(engine: &Engine, caller: &Caller, line: &str) -> Reply {
    let words: Vec<&str> = line.split(' ').collect();
    let args: Vec<Arg<'_>> = words[1..].iter().map(|word| Arg::Untyped(word.as_bytes())).collect();
    let mut out = ReplyBuf::new();
    let call = table::by_name(words[0].as_bytes()).unwrap().call(&args).unwrap();
    let _ = engine.execute(caller, 0, &call, &mut out);
    ReplyReader::new(out.as_bytes()).reply().unwrap()
}

/// States, each with the unix ms when it began.
fn history(engine: &Engine, caller: &Caller) -> Vec<(String, i64)> {
    let Reply::Value(Value::List(steps)) = run(engine, caller, "HGET job history") else {
        panic!("there is no history")
    };
    let step = |step: Value| match step {
        Value::Tuple(parts) => match <[Value; 2]>::try_from(parts) {
            Ok([Value::Bytes(state), Value::Timestamp(moment)]) => {
                assert_eq!(moment.offset_us, Some(0), "it is UTC");
                (String::from_utf8_lossy(&state).into_owned(), moment.local_us / 1000)
            }
            other => panic!("{other:?}"),
        },
        other => panic!("{other:?}"),
    };
    steps.into_iter().map(step).collect()
}

#[test]
fn a_task_keeps_its_last_transitions_across_power_cuts() {
    let (disk, clock) = (FaultyDisk::new(), Arc::new(ManualClock::new(START_MS)));
    let (mut engine, mut caller) = open(&disk, &clock);
    let mut expected: Vec<(String, i64)> = Vec::new();
    for n in 0..8_u32 {
        clock.advance(1500);
        let from = if n == 0 { "MISSING".to_owned() } else { format!("FROM 1 state-{}", n - 1) };
        let line = format!("KV.TRANSITION job status TO state-{n} {from}");
        assert!(matches!(run(&engine, &caller, &line), Reply::Container(..)), "{line}");
        // One that is refused is none.
        assert!(matches!(run(&engine, &caller, &line), Reply::Error(_)), "{line}");
        expected.push((format!("state-{n}"), (START_MS + u64::from(n + 1) * 1500) as i64));
        let last = &expected[expected.len().saturating_sub(KEPT)..];
        assert_eq!(history(&engine, &caller), last);
        if n % 2 == 1 {
            drop(engine);
            disk.crash(u64::from(n));
            (engine, caller) = open(&disk, &clock);
            assert_eq!(history(&engine, &caller), last, "after a power cut");
        } else {
            assert!(engine.checkpoint(), "from the tier it comes back as well");
        }
    }
}

/// Executes a transition to a state of any kind, typed.
fn step_to(engine: &Engine, caller: &Caller, state: &Value, from: &[&str]) -> Reply {
    let mut words = vec!["job".into(), "status".into(), "TO".into(), state.clone()];
    words.extend(from.iter().map(|word| Value::from(*word)));
    transition(engine, caller, &words)
}

/// Executes a transition whose arguments have kinds.
fn transition(engine: &Engine, caller: &Caller, words: &[Value]) -> Reply {
    let words: Vec<Vec<u8>> = words.iter().map(Value::encode).collect();
    let args: Vec<Arg<'_>> = words.iter().map(|word| Arg::Value(ValueRef::decode(word).unwrap())).collect();
    let mut out = ReplyBuf::new();
    let call = table::by_name(b"KV.TRANSITION").unwrap().call(&args).unwrap();
    let _ = engine.execute(caller, 0, &call, &mut out);
    ReplyReader::new(out.as_bytes()).reply().unwrap()
}

/// What the history would make of a hash no value may be: too deep, or too large.
#[test]
fn a_state_that_the_history_has_no_room_for_is_refused() {
    let (disk, clock) = (FaultyDisk::new(), Arc::new(ManualClock::new(START_MS)));
    let (engine, caller) = open(&disk, &clock);
    let nested = |levels: usize| (1..levels).fold(Value::Null, |inner, _| Value::List(vec![inner]));
    for (state, error) in [
        (nested(31), ErrorKind::UnsupportedValue),
        (nested(30), ErrorKind::UnsupportedValue),
        (Value::Text("x".repeat(40 << 20).into()), ErrorKind::Limit),
    ] {
        let Reply::Error(refused) = step_to(&engine, &caller, &state, &["MISSING"]) else {
            panic!("it was taken")
        };
        assert_eq!(refused.kind(), error, "{refused}");
        assert_eq!(run(&engine, &caller, "EXISTS job"), Reply::Integer(0));
    }
    assert!(matches!(step_to(&engine, &caller, &nested(29), &["MISSING"]), Reply::Container(..)));
    assert!(matches!(run(&engine, &caller, "KV.GET job"), Reply::Value(Value::Hash(_))));
    assert!(engine.checkpoint());
    engine.demote_all();
    assert!(matches!(run(&engine, &caller, "KV.GET job"), Reply::Value(Value::Hash(_))), "from disk too");
}

/// The state is what the history records, so nothing else of the step may write over it.
#[test]
fn a_step_whose_state_would_be_written_over_is_refused() {
    let (engine, caller) = open(&FaultyDisk::new(), &Arc::new(ManualClock::new(START_MS)));
    for (field, update) in [
        (Value::Float(0.0), Value::Float(-0.0)),
        (Value::Float(f64::NAN), Value::Float(-f64::NAN)),
        (Value::Tuple(vec!["a".into()]), Value::Tuple(vec![Value::Bytes((*b"a").into())])),
        ("history".into(), "worker".into()),
    ] {
        let step =
            ["TO".into(), "STARTED".into(), "MISSING".into(), "UPDATE".into(), 1.into(), update, 7.into()];
        let reply = transition(&engine, &caller, &[["job".into(), field].as_slice(), &step].concat());
        assert!(
            matches!(&reply, Reply::Error(error) if error.kind() == ErrorKind::InvalidArgument),
            "{reply:?}"
        );
    }
    assert_eq!(run(&engine, &caller, "EXISTS job"), Reply::Integer(0));
}
