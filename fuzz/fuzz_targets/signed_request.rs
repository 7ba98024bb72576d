//! libFuzzer's way into [`taut_fuzz::signed_request`].

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| taut_fuzz::signed_request::run(data));
