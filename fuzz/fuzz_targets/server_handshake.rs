//! libFuzzer's way into [`taut_fuzz::server_handshake`].

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| taut_fuzz::server_handshake::run(data));
