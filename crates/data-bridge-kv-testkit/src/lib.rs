//! Test support: a naive reference model, a seeded workload, a faulty disk, a history checker. Development only.
#![forbid(unsafe_code)]

pub mod disk;
pub mod random;
pub mod reference;
pub mod workload;
