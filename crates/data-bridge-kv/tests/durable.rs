//! What answers rest on in the log.

use std::sync::Arc;

use data_bridge_kv::{Caller, DataDirectory, Engine, Settings};
use data_bridge_kv_model::command::table;
use data_bridge_kv_model::{Arg, Reply, ReplyBuf, ReplyReader};
use data_bridge_kv_testkit::disk::FaultyDisk;

fn run(engine: &Engine, caller: &Caller, line: &str) -> Reply {
    let words: Vec<&str> = line.split(' ').collect();
    let args: Vec<Arg<'_>> = words[1..].iter().map(|word| Arg::Untyped(word.as_bytes())).collect();
    let call = table::by_name(words[0].as_bytes()).unwrap().call(&args).unwrap();
    let mut out = ReplyBuf::new();
    let _ = engine.execute(caller, 0, &call, &mut out);
    ReplyReader::new(out.as_bytes()).reply().unwrap()
}

/// A flush of all namespaces from one that is not logged is shown no sooner than those that are logged have it.
#[test]
fn a_flush_of_everything_rests_on_every_namespace() {
    let data = DataDirectory::on(Arc::new(FaultyDisk::new()), 1 << 26).unwrap();
    let mut settings =
        Settings { data: Some(data), background: false, shards: Some(2), ..Settings::default() };
    settings.namespaces[1].allow_flush = true;
    let engine = Engine::open(settings).unwrap();
    let tasks = Caller { namespace: engine.namespace("tasks").unwrap(), ..engine.caller() };
    assert_eq!(run(&engine, &tasks, "SET job 1"), Reply::Ok);
    let parking = Caller { parks: true, ..engine.caller() };
    assert_eq!(run(&engine, &parking, "FLUSHALL"), Reply::Ok);
    assert!(engine.owed(&parking).is_some());
    engine.sync().unwrap();
    assert!(engine.owed(&parking).is_none());
    assert_eq!(run(&engine, &tasks, "DBSIZE"), Reply::Integer(0));
}
