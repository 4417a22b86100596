//! The log on a disk that fails, tears and forgets: what was acknowledged is there again, in order and unchanged, or the
//! log refuses to open.

#[path = "wal/commits.rs"]
mod commits;
#[path = "wal/crashes.rs"]
mod crashes;
#[path = "wal/cuts.rs"]
mod cuts;
#[path = "wal/errors.rs"]
mod errors;
#[path = "wal/flips.rs"]
mod flips;
#[path = "wal/openings.rs"]
mod openings;
#[path = "wal/rig.rs"]
mod rig;
#[path = "wal/space.rs"]
mod space;
#[path = "wal/threads.rs"]
mod threads;
#[path = "wal/tools.rs"]
mod tools;
