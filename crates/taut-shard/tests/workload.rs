//! Arbitrary clients, kernel and handler: what must hold, holds.

#[path = "support/tls.rs"]
mod tls_settings;

use std::sync::{Arc, OnceLock};

use proptest::prelude::*;
use rustls::{ClientConfig, ServerConfig};
use taut_shard::Stats;
use taut_shard::testing::workload;

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn whatever_clients_and_kernel_do_nothing_is_lost_or_left(script in prop::collection::vec(any::<u8>(), 0..900)) {
        workload::run(&script);
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn nor_is_it_by_tls(script in prop::collection::vec(any::<u8>(), 0..600)) {
        let (server, client) = keys();
        workload::run_by_tls(&script, server, client);
    }
}

#[test]
fn a_client_that_ends_within_its_tls_handshake_is_told_so_and_may_still_speak() {
    let (server, client) = keys();
    let settings = [0, 0, 0, 0];
    let (connect, finish, settle, hear, speak) = ([0, 0, 0], [17, 0, 1], [4, 0, 0], [22, 0, 255], [17, 0, 2]);
    let script = [&settings[..], &connect, &finish, &settle, &hear, &speak].concat();
    workload::run_by_tls(&script, server, client);
}

#[test]
fn a_client_whose_close_is_swallowed_by_a_frame_that_it_has_begun_was_told() {
    let settings = [0, 0, 0, 0];
    // 16 frames and the beginning of one, in which a message ends; the rest of that begins another.
    let (connect, begin, speak) = ([0, 0, 0x14], [17, 0, 0x82], [14, 0, 4]);
    workload::run(&[&settings[..], &connect, &begin, &speak].concat());
}

#[test]
fn the_workload_reaches_what_it_is_to_test() {
    let mut seed = 1_u64;
    let mut total = Stats::default();
    for _ in 0..120 {
        let mut script = [0; 900];
        script.fill_with(|| {
            seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (seed >> 56) as u8
        });
        let stats = workload::run(&script);
        total.opened += stats.opened;
        total.refused += stats.refused;
        total.messages += stats.messages;
        total.dropped += stats.dropped;
        total.slow_consumers += stats.slow_consumers;
        total.violations += stats.violations;
    }
    assert!(total.opened > 500 && total.messages > 1000, "{total:?}");
    assert!(
        total.refused > 10 && total.dropped > 10 && total.slow_consumers > 10 && total.violations > 10,
        "{total:?}"
    );
}

fn keys() -> (Arc<ServerConfig>, Arc<ClientConfig>) {
    static KEYS: OnceLock<(Arc<ServerConfig>, Arc<ClientConfig>)> = OnceLock::new();
    KEYS.get_or_init(|| tls_settings::settings("fake.example", rustls::DEFAULT_VERSIONS)).clone()
}
