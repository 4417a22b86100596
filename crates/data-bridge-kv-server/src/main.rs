//! The binary `data-bridge-kv`.
#![forbid(unsafe_code)]

use std::process::ExitCode;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    data_bridge_kv_server::run(std::env::args_os())
}
