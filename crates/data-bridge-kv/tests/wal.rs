//! The log on a disk that fails, tears and forgets: what was acknowledged is there again, in order and unchanged, or the
//! log refuses to open.

#[path = "wal/cuts.rs"]
mod cuts;
#[path = "wal/rig.rs"]
mod rig;
