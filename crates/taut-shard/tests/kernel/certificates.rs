//! Certificates that are renewed while a shard serves.

use std::fs;
use std::path::PathBuf;
use std::sync::Arc;

use rustls::client::Resumption;
use rustls::pki_types::ServerName;
use rustls::{ClientConfig, ClientConnection, RootCertStore};
use taut_shard::testing::{Client, Stage};
use taut_shard::tls::Certificates;

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

/// Whether a client with these settings gets a connection.
fn trusts(stage: &mut Stage<Application>, config: &Arc<ClientConfig>) -> bool {
    let name = ServerName::try_from("fake.example").unwrap();
    let mut tls = ClientConnection::new(Arc::clone(config), name).unwrap();
    let remote = stage.network.connect();
    loop {
        let mut bytes = Vec::new();
        while tls.wants_write() {
            tls.write_tls(&mut bytes).unwrap();
        }
        remote.write(&bytes);
        stage.settle();
        if !tls.is_handshaking() {
            return true;
        }
        let bytes = remote.read(usize::MAX);
        assert!(!bytes.is_empty(), "the shard does not go on");
        tls.read_tls(&mut &bytes[..]).unwrap();
        match tls.process_new_packets() {
            Ok(_) => {}
            Err(rustls::Error::InvalidCertificate(_)) => return false,
            Err(error) => panic!("{error}"),
        }
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
        let mut roots = RootCertStore::empty();
        roots.add(cert.into()).unwrap();
        let builder = ClientConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()));
        let builder = builder.with_safe_default_protocol_versions().unwrap();
        let mut config = builder.with_root_certificates(roots).with_no_client_auth();
        // A session that is resumed shows no certificate.
        config.resumption = Resumption::disabled();
        Arc::new(config)
    }
}

impl Drop for Files {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.folder);
    }
}
