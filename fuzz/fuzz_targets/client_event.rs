//! libFuzzer's way into [`taut_fuzz::client_event`].

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| taut_fuzz::client_event::run(data));
