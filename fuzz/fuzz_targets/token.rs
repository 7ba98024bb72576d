//! libFuzzer's way into [`taut_fuzz::token`].

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| taut_fuzz::token::run(data));
