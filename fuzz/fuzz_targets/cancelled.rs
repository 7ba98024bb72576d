//! libFuzzer's way into [`taut_fuzz::cancelled`].

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| taut_fuzz::cancelled::run(data));
