//! libFuzzer's way into [`taut_fuzz::deflate`].

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| taut_fuzz::deflate::run(data));
