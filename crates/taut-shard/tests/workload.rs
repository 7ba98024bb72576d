//! Arbitrary clients, kernel and handler: what must hold, holds.

use std::sync::{Arc, OnceLock};

use proptest::prelude::*;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{ClientConfig, RootCertStore, ServerConfig};
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
fn the_workload_reaches_what_it_is_to_test() {
    let mut seed = 1_u64;
    let mut total = Stats::default();
    for _ in 0..60 {
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
        total.kicked += stats.kicked;
        total.violations += stats.violations;
    }
    assert!(total.opened > 500 && total.messages > 1000, "{total:?}");
    assert!(total.refused > 10 && total.dropped > 10 && total.kicked > 10 && total.violations > 10, "{total:?}");
}

fn keys() -> (Arc<ServerConfig>, Arc<ClientConfig>) {
    static KEYS: OnceLock<(Arc<ServerConfig>, Arc<ClientConfig>)> = OnceLock::new();
    KEYS.get_or_init(|| {
        let rcgen::CertifiedKey { cert, signing_key } =
            rcgen::generate_simple_self_signed(["fake.example".to_owned()]).unwrap();
        let certificate = CertificateDer::from(cert);
        let key = PrivateKeyDer::try_from(signing_key.serialize_der()).unwrap();
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let server = ServerConfig::builder_with_provider(Arc::clone(&provider))
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(vec![certificate.clone()], key)
            .unwrap();
        let mut roots = RootCertStore::empty();
        roots.add(certificate).unwrap();
        let client = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(roots)
            .with_no_client_auth();
        (Arc::new(server), Arc::new(client))
    })
    .clone()
}
