use std::fs;

use rcgen::{CertificateParams, KeyPair};
use tempfile::TempDir;

use super::*;

const DAY: Duration = Duration::from_secs(86_400);

/// Keeps a certificate with its key, as if it had been obtained.
pub(crate) async fn keep_certificate(directory: &str, data_directory: &std::path::Path, text: String) {
    let store = Store::new(data_directory, &directory.parse().expect("a URL"));
    store.write_certificate(text).await.expect("written");
}

/// With a data directory that does not exist yet, and an authority that nobody asks.
fn acme() -> (TempDir, Acme) {
    let folder = tempfile::tempdir().expect("a folder");
    let settings = Settings {
        names: vec!["a.example".to_owned()],
        directory: Uri::from_static("https://ca.example/directory"),
        contact: None,
        client: Client::new(),
        external_account: None,
        data_directory: folder.path().join("data"),
        port: HTTPS,
    };
    let acme = Acme::new(settings, Resolver::new()).expect("nothing is kept");
    (folder, acme)
}

/// A certificate that began so long ago, for 90 days.
fn certificate(age: Duration) -> (String, Arc<CertifiedKey>) {
    let mut params = CertificateParams::new(["a.example".to_owned()]).expect("a name");
    let start = SystemTime::now() - age;
    (params.not_before, params.not_after) = (start.into(), (start + 90 * DAY).into());
    let key = KeyPair::generate().expect("a key");
    let text = params.self_signed(&key).expect("a certificate").pem() + &key.serialize_pem();
    let read = store::parse_certificate(&text).expect("a certificate");
    (text, read)
}

#[tokio::test]
async fn a_certificate_that_is_over_by_this_machines_clock_is_kept_and_shown_and_not_ordered_again_soon() {
    let (_folder, mut acme) = acme();
    let (text, certificate) = certificate(100 * DAY);
    acme.succeed(text, Arc::clone(&certificate)).await;
    assert_eq!(acme.resolver.certificate().as_ref(), certificate.cert.first());
    assert_eq!(acme.store.certificate().expect("a file").expect("a certificate").cert, certificate.cert);
    assert!(acme.state.until_order(&acme.names, Now::read()) > DAY);
    assert_eq!(acme.statistics.outcomes(), [("issued", 1), ("failed", 0)]);
}

#[tokio::test]
async fn a_certificate_that_could_not_be_saved_is_shown_and_saved_when_that_is_possible() {
    let (folder, mut acme) = acme();
    fs::write(folder.path().join("data"), "in the way").expect("written");
    let (text, certificate) = certificate(DAY);
    acme.succeed(text, Arc::clone(&certificate)).await;
    assert_eq!(acme.resolver.certificate().as_ref(), certificate.cert.first());
    acme.retry_saving().await;
    assert!(acme.unsaved.is_some());
    fs::remove_file(folder.path().join("data")).expect("removed");
    acme.retry_saving().await;
    assert!(acme.unsaved.is_none());
    assert_eq!(acme.store.certificate().expect("a file").expect("a certificate").cert, certificate.cert);
}

#[tokio::test]
async fn an_order_that_cannot_be_written_down_is_not_sent_and_does_not_count() {
    let (folder, mut acme) = acme();
    fs::write(folder.path().join("data"), "in the way").expect("written");
    for _ in 0..=schedule::MOST_AN_HOUR {
        assert!(acme.begin().await.is_err());
    }
    let now = SystemTime::now();
    assert!(acme.state.history.earliest(now) <= now);
    fs::remove_file(folder.path().join("data")).expect("removed");
    for _ in 0..schedule::MOST_AN_HOUR {
        acme.begin().await.expect("written");
    }
    assert!(acme.state.history.earliest(now) > now);
}

#[tokio::test]
async fn a_pause_that_an_order_has_asked_for_is_kept() {
    let (_folder, mut acme) = acme();
    let mut failure = Failure::new("not yet", "");
    failure.not_before = Some(SystemTime::now() + DAY);
    acme.fail(&failure).await;
    let pause = acme.state.until_order(&acme.names, Now::read());
    assert!(pause > DAY.mul_f64(0.99) && pause <= DAY, "{pause:?}");
    assert_eq!(acme.store.history().await.expect("a file").as_ref(), Some(&acme.state.history));
}
