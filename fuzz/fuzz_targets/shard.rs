//! libFuzzer's way into [`taut_fuzz::shard`].

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| taut_fuzz::shard::run(data));
