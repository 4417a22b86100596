//! Test support: a naive reference model, a seeded workload, a history checker. Development only.
#![forbid(unsafe_code)]

pub mod random;
pub mod reference;
pub mod workload;
