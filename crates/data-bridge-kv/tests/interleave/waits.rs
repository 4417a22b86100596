//! Waits and watches beside those who write, cancel, let time pass and close: each is answered once, by what happened, and not
//! before that is durable.

use std::sync::Arc;

use data_bridge_kv::{Caller, Chore};
use data_bridge_kv_model::{ErrorKind, Reply};
use shuttle::thread;

use crate::rig::{Meeting, Store, Told, number_on, schedules};

/// Callers may give the same number to their waits.
const TOKEN: u64 = 7;

/// Somebody who waits.
#[derive(Clone)]
struct Waiting {
    store: Arc<Store>,
    caller: Caller,
    told: Arc<Told>,
}

impl Waiting {
    fn new(store: &Arc<Store>, namespace: &str, told: Told) -> Waiting {
        let told = Arc::new(told);
        let caller = Caller { completions: Some(told.clone()), ..store.caller(namespace) };
        Waiting { store: Arc::clone(store), caller, told }
    }

    fn say(&self, line: &str) -> Option<Reply> {
        self.store.say(&self.caller, TOKEN, line)
    }

    /// How many answers there were, at once or later.
    fn answers(&self, at_once: &Option<Reply>) -> usize {
        usize::from(at_once.is_some()) + self.told.times(TOKEN)
    }
}

/// Runs all of them at once; what they answered.
fn together<R: Send + 'static>(acts: Vec<Box<dyn FnOnce() -> R + Send>>) -> Vec<R> {
    let threads: Vec<_> = acts.into_iter().map(thread::spawn).collect();
    threads.into_iter().map(|thread| thread.join().expect("no panic")).collect()
}

fn answers() {
    let store = Arc::new(Store::open(None));
    let [patient, fickle, hasty] = [(); 3].map(|()| Waiting::new(&store, "default", Told::default()));
    let wait = |waiting: &Waiting, line: &'static str| -> Box<dyn FnOnce() -> (Option<Reply>, bool) + Send> {
        let waiting = waiting.clone();
        Box::new(move || (waiting.say(line), false))
    };
    let cancelling = fickle.clone();
    let (writer, ticker) = (Arc::clone(&store), Arc::clone(&store));
    let outcomes = together(vec![
        wait(&patient, "KV.WAIT k PRESENT"),
        Box::new(move || {
            let at_once = cancelling.say("KV.WAIT k PRESENT");
            (at_once, cancelling.store.engine.cancel(&cancelling.caller, TOKEN))
        }),
        wait(&hasty, "KV.WAIT k TIMEOUT 50 PRESENT"),
        Box::new(move || (writer.say(&writer.caller("default"), 0, "SET k v"), false)),
        Box::new(move || {
            ticker.clock.advance(60);
            ticker.engine.do_chore(Chore::Expire);
            (None, false)
        }),
    ]);
    let [(patient_answer, _), (fickle_answer, was_cancelled), (hasty_answer, _), ..] = &outcomes[..] else {
        panic!("five of them");
    };
    store.engine.close().unwrap();
    assert_eq!(patient.answers(patient_answer), 1, "what happened ends the wait");
    assert_eq!(fickle.answers(fickle_answer) + usize::from(*was_cancelled), 1, "an answer, or none");
    assert_eq!(hasty.answers(hasty_answer), 1, "what happened, or the time");
    let is_present = |waiting: &Waiting, at_once: &Option<Reply>| {
        let all = waiting.told.all.lock();
        let reply = at_once.as_ref().or(all.first().map(|(_, reply)| reply));
        matches!(reply, Some(Reply::Container(..)))
    };
    assert!(is_present(&patient, patient_answer), "{:?}", patient.told.all.lock());
}

fn closing() {
    let store = Arc::new(Store::open(None));
    let waiting = Waiting::new(&store, "default", Told::default());
    let (asking, closer) = (waiting.clone(), Arc::clone(&store));
    let outcomes = together(vec![
        Box::new(move || asking.say("KV.WAIT never")) as Box<dyn FnOnce() -> _ + Send>,
        Box::new(move || {
            closer.engine.close().unwrap();
            None
        }),
    ]);
    assert_eq!(waiting.answers(&outcomes[0]), 1, "nobody waits for a closed store");
    let all = waiting.told.all.lock();
    let reply = outcomes[0].as_ref().or(all.first().map(|(_, reply)| reply));
    assert!(matches!(reply, Some(Reply::Error(error)) if error.kind() == ErrorKind::Closed), "{reply:?}");
}

fn watching() {
    let store = Arc::new(Store::open(None));
    let watching = Waiting::new(&store, "default", Told::default());
    let versions = {
        let (watching, writer) = (watching.clone(), Arc::clone(&store));
        together(vec![
            Box::new(move || {
                let watch = watching.say("KV.WATCH KEY k");
                (watch, watching.store.number(&watching.caller, "GET k"))
            }) as Box<dyn FnOnce() -> _ + Send>,
            Box::new(move || {
                let caller = writer.caller("default");
                for _ in 0..3 {
                    writer.number(&caller, "INCR k");
                }
                (None, 0)
            }),
        ])
    };
    let (Some(_), seen) = &versions[0] else { panic!("a watch is answered") };
    let events = watching.told.all.lock().len() as i64;
    assert!(events >= 3 - seen && events <= 3, "{events} events of 3, {seen} of which came before");
}

fn durable() {
    let disk = Meeting::new();
    let store = Arc::new(Store::open(Some(disk.disk())));
    store.number(&store.caller("tasks"), "INCR other");
    let waiting = Waiting::new(&store, "tasks", Told::beside(&disk));
    let (asking, writer, reader) = (waiting.clone(), Arc::clone(&store), Arc::clone(&store));
    let (written, shown) = (disk.clone(), disk.clone());
    let outcomes = together(vec![
        Box::new(move || {
            let at_once = asking.say("KV.WAIT k PRESENT");
            asking.told.images.lock().extend(at_once.is_some().then(|| disk.image()));
            at_once
        }) as Box<dyn FnOnce() -> _ + Send>,
        Box::new(move || {
            let caller = writer.caller("tasks");
            for number in 1..=2 {
                assert_eq!(writer.number(&caller, "INCR k"), number);
                assert!(number_on(&written.image(), "k") >= number, "{number} was acknowledged and is lost");
            }
            None
        }),
        Box::new(move || {
            let seen = reader.number(&reader.caller("tasks"), "GET k");
            assert!(number_on(&shown.image(), "k") >= seen, "{seen} was shown and is lost");
            None
        }),
    ]);
    assert_eq!(waiting.answers(&outcomes[0]), 1);
    for image in waiting.told.images.lock().iter() {
        assert!(number_on(image, "k") >= 1, "a waiter was told of what is lost");
    }
}

#[test]
fn each_wait_is_answered_once_and_as_its_own() {
    println!("{}", schedules("waits::each_wait_is_answered_once_and_as_its_own", 10_000, answers));
}

#[test]
fn a_store_that_closes_leaves_nobody_waiting() {
    println!("{}", schedules("waits::a_store_that_closes_leaves_nobody_waiting", 5000, closing));
}

#[test]
fn a_watch_misses_nothing_that_comes_after_it() {
    println!("{}", schedules("waits::a_watch_misses_nothing_that_comes_after_it", 5000, watching));
}

#[test]
fn nobody_is_told_of_what_a_power_cut_takes_back() {
    println!("{}", schedules("waits::nobody_is_told_of_what_a_power_cut_takes_back", 100, durable));
}
