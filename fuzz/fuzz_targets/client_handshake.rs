//! libFuzzer's way into [`taut_fuzz::client_handshake`].

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| taut_fuzz::client_handshake::run(data));
