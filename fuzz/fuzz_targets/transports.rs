//! libFuzzer's way into [`taut_fuzz::transports`].

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| taut_fuzz::transports::run(data));
