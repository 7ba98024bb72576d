//! libFuzzer's way into [`taut_fuzz::publish`].

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| taut_fuzz::publish::run(data));
