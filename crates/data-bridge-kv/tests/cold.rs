//! The cold tier on a disk that fails and crashes, against a map that says what must be there.

#[path = "cold/flips.rs"]
mod flips;
#[path = "cold/large.rs"]
mod large;
#[path = "cold/model.rs"]
mod model;
#[path = "cold/store.rs"]
mod store;
