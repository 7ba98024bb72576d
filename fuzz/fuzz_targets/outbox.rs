//! libFuzzer's way into [`taut_fuzz::outbox`].

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| taut_fuzz::outbox::run(data));
