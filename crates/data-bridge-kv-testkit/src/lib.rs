//! Test support: a naive reference model, a seeded workload, a faulty disk, a history checker, arbitrary values, fuzz
//! bodies. Development only.
#![forbid(unsafe_code)]

pub mod directory;
pub mod disk;
pub mod fuzz;
pub mod history;
pub mod random;
pub mod reference;
pub mod values;
pub mod workload;
