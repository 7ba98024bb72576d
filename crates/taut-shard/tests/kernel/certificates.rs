//! Certificates that are renewed while a shard serves.

use std::fs;
use std::io::Write;
use std::path::PathBuf;
use std::sync::Arc;

use rustls::client::Resumption;
use rustls::pki_types::{CertificateDer, PrivatePkcs8KeyDer, ServerName};
use rustls::sign::CertifiedKey;
use rustls::{AlertDescription, ClientConfig, ClientConnection, RootCertStore, SupportedProtocolVersion};
use taut_shard::testing::{Client, Remote, Stage};
use taut_shard::tls::{Certificates, Resolver};

use crate::application::{Application, stage_with};

#[test]
fn new_connections_get_the_new_certificate_and_open_ones_go_on() {
    let files = Files::new("renewed");
    let first = files.renew();
    let certificates = Certificates::from_pem_files(&files.certificate, &files.key).unwrap();
    let mut stage = stage_with(|settings| settings.tls = Some(certificates.config()));
    let mut old = connect(&mut stage, &first);
    assert!(old.is_open());
    assert!(!certificates.reload().unwrap(), "nothing has changed");

    let second = files.renew();
    assert!(trusts(&mut stage, &first), "nobody has looked");
    assert!(certificates.clone().reload().unwrap());
    assert!(trusts(&mut stage, &second));
    assert!(!trusts(&mut stage, &first));
    old.send("still here");
    stage.exchange(&mut [&mut old]);
    assert_eq!(old.texts(), ["still here"]);
}

#[test]
fn a_reload_that_fails_names_the_file_and_keeps_the_certificate() {
    let files = Files::new("broken");
    let client = files.renew();
    let certificates = Certificates::from_pem_files(&files.certificate, &files.key).unwrap();
    let mut stage = stage_with(|settings| settings.tls = Some(certificates.config()));
    let whole = [fs::read(&files.certificate).unwrap(), fs::read(&files.key).unwrap()];
    let other = Files::new("of_another");
    other.renew();
    let half = whole[1].len() / 2;
    for (what, certificate, key, expected) in [
        ("no certificate", b"".to_vec(), whole[1].clone(), "certificate.pem holds no certificate that can be read"),
        ("a key for it", whole[1].clone(), whole[1].clone(), "certificate.pem holds no certificate that can be read"),
        ("no key", whole[0].clone(), b"none".to_vec(), "key.pem holds no private key that can be read"),
        ("half a key", whole[0].clone(), whole[1][..half].to_vec(), "key.pem holds no private key that can be read"),
        ("another key", whole[0].clone(), fs::read(&other.key).unwrap(), "key.pem cannot be used together"),
        (
            "text",
            b"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n".to_vec(),
            whole[1].clone(),
            "together",
        ),
    ] {
        fs::write(&files.certificate, certificate).unwrap();
        fs::write(&files.key, key).unwrap();
        let error = certificates.reload().unwrap_err().to_string();
        assert!(error.contains(expected), "{what}: {error}");
        assert!(!error.contains("PRIVATE"), "{error}");
        assert!(trusts(&mut stage, &client), "{what}");
    }
    fs::remove_file(&files.certificate).unwrap();
    let error = certificates.reload().unwrap_err().to_string();
    assert!(error.contains("certificate.pem cannot be read: "), "{error}");
    assert!(trusts(&mut stage, &client));
    let renewed = files.renew();
    assert!(certificates.reload().unwrap());
    assert!(trusts(&mut stage, &renewed));
}

#[test]
fn without_a_certificate_clients_get_an_alert_until_there_is_one() {
    let resolver = Resolver::new();
    let mut stage = stage_with(|settings| settings.tls = Some(resolver.config().unwrap()));
    let (first, client) = certificate("fake.example", &[]);
    let denied = rustls::Error::AlertReceived(AlertDescription::AccessDenied);
    assert_eq!(refused(&mut stage, &client, "fake.example"), denied);
    assert!(resolver.certificate().is_none());
    assert_eq!(format!("{resolver:?}"), "Resolver { has_certificate: false, .. }");

    assert!(resolver.replace(Arc::clone(&first)));
    assert!(trusts(&mut stage, &client));
    let mut open = connect(&mut stage, &client);
    let copy = Arc::new(CertifiedKey::new(first.cert.clone(), Arc::clone(&first.key)));
    let unused = Arc::downgrade(&copy);
    assert!(!resolver.replace(copy), "it is the same one");
    assert!(unused.upgrade().is_none(), "the first one is kept");
    let (second, other) = certificate("fake.example", &[]);
    assert!(resolver.clone().replace(Arc::clone(&second)));
    assert_eq!(resolver.certificate().as_ref(), second.cert.first());
    assert!(trusts(&mut stage, &other) && !trusts(&mut stage, &client));
    open.send("still here");
    stage.exchange(&mut [&mut open]);
    assert_eq!(open.texts(), ["still here"]);
    // Nothing of a key is shown, also where the settings are.
    assert_eq!(format!("{resolver:?}"), "Resolver { has_certificate: true, .. }");
    let settings = format!("{:?}", resolver.config().unwrap());
    assert!(settings.contains("cert_resolver: Current { .. }"), "{settings}");
}

// RFC 8737 §3.
#[test]
fn a_challenge_of_acme_is_answered_by_its_own_certificate_and_the_connection_ends() {
    for version in [&rustls::version::TLS12, &rustls::version::TLS13] {
        challenge_by(version);
    }
}

fn challenge_by(version: &'static SupportedProtocolVersion) {
    let resolver = Resolver::new();
    let mut stage = stage_with(|settings| settings.tls = Some(resolver.config().unwrap()));
    let (served, client) = certificate("fake.example", &[b"http/1.1"]);
    resolver.replace(served);
    let (answer, authority) = certificate_by(&[version], "challenged.example", &[b"acme-tls/1"]);
    let denied = rustls::Error::AlertReceived(AlertDescription::AccessDenied);
    assert_eq!(refused(&mut stage, &authority, "challenged.example"), denied, "nothing is asked yet");

    resolver.set_challenges(vec![("challenged.example".to_owned(), answer)]);
    let (mut tls, remote) = shake_hands(&mut stage, &authority, "CHALLENGED.example").unwrap();
    assert_eq!(tls.alpn_protocol(), Some(&b"acme-tls/1"[..]));
    assert_eq!(tls.protocol_version(), Some(version.version));
    tls.writer().write_all(b"GET / HTTP/1.1\r\nhost: challenged.example\r\n\r\n").unwrap();
    let mut request = Vec::new();
    tls.write_tls(&mut request).unwrap();
    remote.write(&request);
    stage.settle();
    let rest = remote.read(usize::MAX);
    tls.read_tls(&mut &rest[..]).unwrap();
    let heard = tls.process_new_packets().unwrap();
    assert!(heard.peer_has_closed() && heard.plaintext_bytes_to_read() == 0);
    assert!(remote.is_shut());
    assert!(stage.handler().peers.is_empty(), "it is not a request");
    assert_eq!(refused(&mut stage, &authority, "fake.example"), denied, "it asks for another name");

    // Neither a client nor who offers both is an authority that asks.
    assert!(trusts(&mut stage, &client));
    let mut both = (*client).clone();
    both.alpn_protocols = vec![b"acme-tls/1".to_vec(), b"http/1.1".to_vec()];
    let (tls, _) = shake_hands(&mut stage, &Arc::new(both), "fake.example").unwrap();
    assert_eq!(tls.alpn_protocol(), Some(&b"http/1.1"[..]));

    resolver.set_challenges(Vec::new());
    assert_eq!(refused(&mut stage, &authority, "challenged.example"), denied, "the order is done");
}

#[test]
fn a_server_with_a_certificate_from_files_answers_no_challenge() {
    let files = Files::new("unchallenged");
    files.renew();
    let certificates = Certificates::from_pem_files(&files.certificate, &files.key).unwrap();
    let mut stage = stage_with(|settings| settings.tls = Some(certificates.config()));
    let (_, authority) = certificate("fake.example", &[b"acme-tls/1"]);
    let expected = rustls::Error::AlertReceived(AlertDescription::AccessDenied);
    assert_eq!(refused(&mut stage, &authority, "fake.example"), expected);
}

/// Whether a client with these settings gets a connection.
fn trusts(stage: &mut Stage<Application>, config: &Arc<ClientConfig>) -> bool {
    match shake_hands(stage, config, "fake.example") {
        Ok(_) => true,
        Err(rustls::Error::InvalidCertificate(_)) => false,
        Err(error) => panic!("{error}"),
    }
}

/// Why a client gets no connection.
fn refused(stage: &mut Stage<Application>, config: &Arc<ClientConfig>, name: &'static str) -> rustls::Error {
    match shake_hands(stage, config, name) {
        Ok(_) => panic!("it gets one"),
        Err(error) => error,
    }
}

/// A client's handshake with a server of this name.
fn shake_hands(
    stage: &mut Stage<Application>,
    config: &Arc<ClientConfig>,
    name: &'static str,
) -> Result<(ClientConnection, Remote), rustls::Error> {
    let mut tls = ClientConnection::new(Arc::clone(config), ServerName::try_from(name).unwrap()).unwrap();
    let remote = stage.network.connect();
    loop {
        let mut bytes = Vec::new();
        while tls.wants_write() {
            tls.write_tls(&mut bytes).unwrap();
        }
        remote.write(&bytes);
        stage.settle();
        if !tls.is_handshaking() {
            return Ok((tls, remote));
        }
        let bytes = remote.read(usize::MAX);
        assert!(!bytes.is_empty(), "the shard does not go on");
        tls.read_tls(&mut &bytes[..]).unwrap();
        tls.process_new_packets()?;
    }
}

fn connect(stage: &mut Stage<Application>, config: &Arc<ClientConfig>) -> Client {
    let name = ServerName::try_from("fake.example").unwrap();
    let tls = ClientConnection::new(Arc::clone(config), name).unwrap();
    let mut client = Client::new(&stage.network).with_tls(tls);
    client.write(&client.request("/"));
    stage.exchange(&mut [&mut client]);
    client
}

/// A certificate in memory, and settings for a client that trusts it alone and offers these protocols.
fn certificate(name: &str, protocols: &[&[u8]]) -> (Arc<CertifiedKey>, Arc<ClientConfig>) {
    certificate_by(rustls::DEFAULT_VERSIONS, name, protocols)
}

/// The same for a client that speaks these versions only.
fn certificate_by(
    versions: &[&'static SupportedProtocolVersion],
    name: &str,
    protocols: &[&[u8]],
) -> (Arc<CertifiedKey>, Arc<ClientConfig>) {
    let made = rcgen::generate_simple_self_signed([name.to_owned()]).unwrap();
    let key = PrivatePkcs8KeyDer::from(made.signing_key.serialize_der());
    let client = trusting(versions, made.cert.der().clone(), protocols);
    (Resolver::read(vec![made.cert.into()], key.into()).unwrap(), client)
}

fn trusting(
    versions: &[&'static SupportedProtocolVersion],
    root: CertificateDer<'static>,
    protocols: &[&[u8]],
) -> Arc<ClientConfig> {
    let mut roots = RootCertStore::empty();
    roots.add(root).unwrap();
    let builder = ClientConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()));
    let builder = builder.with_protocol_versions(versions).unwrap();
    let mut config = builder.with_root_certificates(roots).with_no_client_auth();
    // A session that is resumed shows no certificate.
    config.resumption = Resumption::disabled();
    config.alpn_protocols = protocols.iter().map(|protocol| protocol.to_vec()).collect();
    Arc::new(config)
}

/// Files of one test, in a folder that the build has for such; of one process, as two may run the tests at a time.
struct Files {
    folder: PathBuf,
    certificate: PathBuf,
    key: PathBuf,
}

impl Files {
    fn new(test: &str) -> Self {
        let folder = PathBuf::from(env!("CARGO_TARGET_TMPDIR"))
            .join("certificates")
            .join(format!("{test}-{}", std::process::id()));
        fs::create_dir_all(&folder).unwrap();
        Self { certificate: folder.join("certificate.pem"), key: folder.join("key.pem"), folder }
    }

    /// Writes a new certificate; gives settings for a client that trusts it alone.
    fn renew(&self) -> Arc<ClientConfig> {
        let rcgen::CertifiedKey { cert, signing_key } =
            rcgen::generate_simple_self_signed(["fake.example".to_owned()]).unwrap();
        fs::write(&self.certificate, cert.pem()).unwrap();
        fs::write(&self.key, signing_key.serialize_pem()).unwrap();
        trusting(rustls::DEFAULT_VERSIONS, cert.into(), &[])
    }
}

impl Drop for Files {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.folder);
    }
}
