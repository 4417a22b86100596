//! Test support: a naive reference model, a seeded workload, a manual clock, a faulty disk, a history checker. Development only.
