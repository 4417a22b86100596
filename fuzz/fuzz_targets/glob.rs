//! libFuzzer on `fuzz::glob` of the test kit.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    data_bridge_kv_testkit::fuzz::glob(bytes);
});
