//! libFuzzer on `fuzz::dialogue` of the server.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    data_bridge_kv_server::fuzz::dialogue(bytes);
});
