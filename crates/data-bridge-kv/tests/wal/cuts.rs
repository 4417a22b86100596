//! What is left of a log when a part of its files is missing.

use crate::rig::{Rig, policy};

#[test]
fn what_is_durable_is_there_again() {
    let rig = Rig::new();
    rig.fill(100);
    assert!(rig.wal.stats().segments > 3);
    let again = Rig::open(&rig.disk, policy()).expect("it opens");
    assert_eq!((again.recovered.first, again.found), (1, 100));
    assert!(!again.recovered.was_closed && again.recovered.cut.is_none());
    again.fill(50);
    again.wal.close();
    let again = Rig::open(&rig.disk, policy()).expect("it opens");
    assert_eq!((again.recovered.first, again.found), (1, 150));
    assert!(again.recovered.was_closed);
    let again = Rig::open(&rig.disk, policy()).expect("it opens");
    assert_eq!((again.recovered.first, again.found), (1, 150));
}
