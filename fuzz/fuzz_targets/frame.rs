//! libFuzzer on `fuzz::frame` of the test kit.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    data_bridge_kv_testkit::fuzz::frame(bytes);
});
