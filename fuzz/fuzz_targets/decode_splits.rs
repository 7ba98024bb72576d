//! libFuzzer's way into [`taut_fuzz::decode_splits`].

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| taut_fuzz::decode_splits::run(data));
