//! The binary `data-bridge-kv`.
#![deny(unsafe_code)]

mod allocator;

use std::process::ExitCode;

#[global_allocator]
static ALLOCATOR: allocator::Allocator = allocator::Allocator;

fn main() -> ExitCode {
    allocator::keep_nothing();
    data_bridge_kv_server::run(std::env::args_os())
}
