//! TLS of both roles (RFC 8446, RFC 5246): rustls on ring.
//!
//! Nothing in the process has to be installed first, and what others have installed as rustls' default is not used.
//!
//! This is the only part of the library that names rustls.

mod client;
mod server;
#[cfg(test)]
mod testing;

use std::sync::Arc;

/// The version of rustls for [`ClientTls::with_config`] and [`ServerTls::with_config`].
pub use rustls;
use rustls::crypto::{CryptoProvider, ring};
use rustls::{CommonState, ProtocolVersion};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};

pub use client::ClientTls;
pub use server::ServerTls;

use crate::Error;
use crate::error::tls::settings;

/// TLS over another stream, of either role.
pub(crate) type TlsStream<S> = tokio_rustls::TlsStream<S>;

/// The result of a TLS handshake.
#[derive(Clone, Debug)]
pub struct TlsInfo {
    server_name: Option<Box<str>>,
    peer_certificates: Vec<Vec<u8>>,
    version: Option<TlsVersion>,
    cipher_suite: Option<String>,
    alpn: Option<Vec<u8>>,
}

impl TlsInfo {
    pub(crate) fn of<S>(stream: &TlsStream<S>) -> Self {
        let state: &CommonState = stream.get_ref().1;
        let server_name = match stream {
            TlsStream::Client(_) => None,
            TlsStream::Server(stream) => stream.get_ref().1.server_name().map(Box::from),
        };
        let certificates = state.peer_certificates().unwrap_or_default();
        Self {
            server_name,
            peer_certificates: certificates.iter().map(|certificate| certificate.to_vec()).collect(),
            version: match state.protocol_version() {
                Some(ProtocolVersion::TLSv1_2) => Some(TlsVersion::Tls12),
                Some(ProtocolVersion::TLSv1_3) => Some(TlsVersion::Tls13),
                _ => None,
            },
            // By its registered name: rustls writes TLS13_ for what is TLS_ in RFC 8446 §B.4.
            cipher_suite: state
                .negotiated_cipher_suite()
                .map(|suite| format!("{:?}", suite.suite()).replace("TLS13_", "TLS_")),
            alpn: state.alpn_protocol().map(<[u8]>::to_vec),
        }
    }

    /// On a server: the name that the client wants to reach (SNI, RFC 6066 §3). A client that was given an address
    /// sends none.
    pub fn server_name(&self) -> Option<&str> {
        self.server_name.as_deref()
    }

    /// The peer's certificates in DER, its own first; a server has them only of clients that were asked
    /// ([`ServerTls::client_roots_pem`]). They were verified unless the settings say otherwise.
    pub fn peer_certificates(&self) -> &[Vec<u8>] {
        &self.peer_certificates
    }

    /// The version of TLS; `None` for one that this library has no name for.
    pub fn version(&self) -> Option<TlsVersion> {
        self.version
    }

    /// The negotiated cipher suite by its registered name, such as `TLS_AES_256_GCM_SHA384`.
    pub fn cipher_suite(&self) -> Option<&str> {
        self.cipher_suite.as_deref()
    }

    /// The negotiated protocol (ALPN, RFC 7301), such as `http/1.1`; `None` if one side did not ask.
    pub fn alpn(&self) -> Option<&[u8]> {
        self.alpn.as_deref()
    }
}

/// A version of TLS.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum TlsVersion {
    /// TLS 1.2 (RFC 5246).
    Tls12,
    /// TLS 1.3 (RFC 8446).
    Tls13,
}

/// The library brings its own; whatever is the process's default does not matter.
fn provider() -> Arc<CryptoProvider> {
    Arc::new(ring::default_provider())
}

/// All certificates of a PEM text, of which there must be one.
fn certificates(what: &str, pem: &[u8]) -> Result<Vec<CertificateDer<'static>>, Error> {
    let certificates: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(pem).collect();
    match certificates {
        Ok(certificates) if certificates.is_empty() => {
            Err(settings(format!("{what} holds no certificate; it must be PEM, with -----BEGIN CERTIFICATE-----")))
        }
        Ok(certificates) => Ok(certificates),
        Err(error) => Err(settings(format!("{what} is not valid PEM: {error}"))),
    }
}

/// The first private key of a PEM text: PKCS #8, PKCS #1 or SEC 1.
fn private_key(what: &str, pem: &[u8]) -> Result<PrivateKeyDer<'static>, Error> {
    // The parser's error is not shown: it may quote the text.
    PrivateKeyDer::from_pem_slice(pem).map_err(|_| {
        settings(format!("{what} holds no private key that can be read; it must be PEM, and not encrypted"))
    })
}

/// RFC 6455 §4.1: the handshake is HTTP/1.1.
const HTTP_1_1: &[u8] = b"http/1.1";

#[cfg(test)]
mod tests {
    use std::fs;
    use std::path::PathBuf;
    use std::time::Duration;

    use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream, duplex};

    use super::testing::{Authority, Identity};
    use super::*;

    impl Identity {
        fn server(&self) -> ServerTls {
            ServerTls::from_pem(self.certificate.as_bytes(), self.key.as_bytes()).unwrap()
        }
    }

    impl Authority {
        fn client(&self) -> ClientTls {
            ClientTls::only_pem(self.root().as_bytes()).unwrap()
        }
    }

    type Shaken = Result<TlsStream<DuplexStream>, Error>;

    /// Both ends of a handshake; what the server says is read by the client, so that it hears of late refusals.
    async fn shake(client: &ClientTls, host: &str, server: &ServerTls) -> (Shaken, Shaken) {
        let (ours, theirs) = duplex(64 << 10);
        let client = async {
            let mut stream = client.connect(host, ours).await?;
            let mut greeting = [0; 2];
            stream.read_exact(&mut greeting).await.map_err(|error| Error::io(crate::error::Doing::Opening, error))?;
            Ok(stream)
        };
        let server = async {
            let mut stream = server.accept(theirs).await?;
            stream.write_all(b"hi").await.unwrap();
            stream.flush().await.unwrap();
            Ok(stream)
        };
        tokio::join!(client, server)
    }

    // RFC 6066 §3: a name is sent, and compared, without the final dot of a fully qualified one.
    #[tokio::test]
    async fn both_sides_learn_what_was_agreed() {
        let authority = Authority::new();
        let server = authority.issue("a.example").server();
        let (client, server) = shake(&authority.client(), "a.example.", &server).await;
        let (client, server) = (TlsInfo::of(&client.unwrap()), TlsInfo::of(&server.unwrap()));
        assert_eq!((client.server_name(), server.server_name()), (None, Some("a.example")));
        assert_eq!((client.peer_certificates().len(), server.peer_certificates().len()), (1, 0));
        for info in [client, server] {
            assert_eq!((info.version(), info.alpn()), (Some(TlsVersion::Tls13), Some(&b"http/1.1"[..])));
            // RFC 8446 §B.4.
            assert_eq!(info.cipher_suite(), Some("TLS_AES_256_GCM_SHA384"));
        }
    }

    // CVE-2020-11050: a certificate for another name must not be accepted, whoever issued it.
    #[tokio::test]
    async fn a_certificate_for_another_name_is_refused() {
        let authority = Authority::new();
        let server = authority.issue("b.example").server();
        for host in ["a.example", "b.example.evil.example", "x.b.example", "192.0.2.1"] {
            let (client, server) = shake(&authority.client(), host, &server).await;
            let error = client.unwrap_err();
            assert!(error.is_tls() && error.to_string().contains("b.example"), "{error}");
            assert!(error.to_string().contains("server_name"), "{error}");
            let error = server.unwrap_err();
            assert!(error.is_tls() && error.to_string().contains("client"), "{error}");
        }
        let named = authority.client().server_name("b.example").unwrap();
        assert!(shake(&named, "a.example", &server).await.0.is_ok());
        // What was said for one server is not used for another.
        assert!(shake(&named.without_identity(), "a.example", &server).await.0.is_err());
    }

    #[tokio::test]
    async fn an_address_can_have_a_certificate() {
        let authority = Authority::new();
        for host in ["127.0.0.1", "::1"] {
            let (client, server) = shake(&authority.client(), host, &authority.issue(host).server()).await;
            client.unwrap();
            // RFC 6066 §3: addresses are not sent as names.
            assert_eq!(TlsInfo::of(&server.unwrap()).server_name(), None);
        }
        let (client, _) = shake(&authority.client(), "127.0.0.2", &authority.issue("127.0.0.1").server()).await;
        assert!(client.unwrap_err().is_tls());
    }

    #[tokio::test]
    async fn a_certificate_that_cannot_be_trusted_is_refused_with_advice() {
        let authority = Authority::new();
        let expired = authority.issue_expired("a.example").server();
        let error = shake(&authority.client(), "a.example", &expired).await.0.unwrap_err();
        assert!(error.is_tls() && error.to_string().contains("expired 3 days ago"), "{error}");

        let server = authority.issue("a.example").server();
        let (client, server_side) = shake(&Authority::new().client(), "a.example", &server).await;
        let error = client.unwrap_err();
        assert!(error.is_tls() && error.to_string().contains("ClientTls::root_pem"), "{error}");
        let error = server_side.unwrap_err();
        assert!(error.is_tls() && error.to_string().contains("issuer"), "{error}");

        let added = Authority::new().client().root_pem(authority.root().as_bytes()).unwrap();
        assert!(shake(&added, "a.example", &server).await.0.is_ok());
        let anything = ClientTls::dangerously_accept_any_certificate();
        assert!(shake(&anything, "b.example", &expired).await.0.is_ok());
    }

    // `openssl req -x509` says CA:TRUE of every certificate that it makes, and that is how they are made.
    #[tokio::test]
    async fn a_self_signed_certificate_is_trusted_when_it_is_given_and_only_then() {
        let identity = Identity::self_signed("a.example");
        let (server, root) = (identity.server(), identity.certificate.as_bytes());
        let authority = Authority::new();
        let only = ClientTls::only_pem(root).unwrap();
        let also = authority.client().root_pem(root).unwrap();
        for client in [&only, &also] {
            shake(client, "a.example", &server).await.0.unwrap();
            shake(&client.without_identity(), "a.example", &server).await.0.unwrap();
        }

        // Its name counts.
        let error = shake(&only, "b.example", &server).await.0.unwrap_err();
        assert!(error.is_tls() && error.to_string().contains("it is not for b.example but for"), "{error}");
        let named = only.clone().server_name("a.example").unwrap();
        shake(&named, "b.example", &server).await.0.unwrap();
        // So do its dates.
        let expired = Identity::self_signed_and_expired("a.example");
        let trusting = ClientTls::only_pem(expired.certificate.as_bytes()).unwrap();
        let error = shake(&trusting, "a.example", &expired.server()).await.0.unwrap_err();
        assert!(error.is_tls() && error.to_string().contains("expired 3 days ago"), "{error}");
        // And that it is the very one: not another of the same name, nor one that nobody has given.
        let other = Identity::self_signed("a.example");
        for client in [&only, &also, &authority.client()] {
            let error = shake(client, "a.example", &other.server()).await.0.unwrap_err();
            assert!(error.is_tls() && error.to_string().contains("CA:TRUE"), "{error}");
            assert!(error.to_string().contains("ClientTls::root_pem"), "{error}");
        }
        // Nor is it of use to anybody without its key, by either version of TLS.
        for version in [&rustls::version::TLS12, &rustls::version::TLS13] {
            let key =
                provider().key_provider.load_private_key(private_key("key", other.key.as_bytes()).unwrap()).unwrap();
            let stolen = rustls::sign::CertifiedKey::new(certificates("stolen", root).unwrap(), key);
            let config = rustls::ServerConfig::builder_with_provider(provider())
                .with_protocol_versions(&[version])
                .unwrap()
                .with_no_client_auth()
                .with_cert_resolver(Arc::new(rustls::sign::SingleCertAndKey::from(stolen)));
            let error = shake(&only, "a.example", &ServerTls::with_config(Arc::new(config))).await.0.unwrap_err();
            assert!(error.is_tls() && error.to_string().contains("signed"), "{error}");
        }

        // What it has issued is accepted as before, and so are the others that were given beside it.
        let issued = authority.issue("c.example").server();
        shake(&also, "c.example", &issued).await.0.unwrap();
        assert!(shake(&only, "c.example", &issued).await.0.is_err());
    }

    #[tokio::test]
    async fn what_is_wrong_with_a_certificate_is_told_in_words() {
        let authority = Authority::new();
        for (identity, words) in [
            (authority.issue_without_a_name(), "subjectAltName=DNS:a.example"),
            (authority.issue_for_clients("a.example"), "not for servers"),
        ] {
            let error = shake(&authority.client(), "a.example", &identity.server()).await.0.unwrap_err();
            assert!(error.is_tls() && error.to_string().contains(words), "{error}");
        }
        // A client's that is an authority's own.
        let own = Identity::self_signed("me.example");
        let server = authority.issue("a.example").server();
        let server = server.client_roots_pem(own.certificate.as_bytes(), true).unwrap();
        let client = authority.client().client_certificate_pem(own.certificate.as_bytes(), own.key.as_bytes()).unwrap();
        let (_, refused) = shake(&client, "a.example", &server).await;
        let error = refused.unwrap_err();
        assert!(error.is_tls() && error.to_string().contains("CA:TRUE"), "{error}");
        assert!(!error.to_string().contains("OtherError"), "{error}");
    }

    #[tokio::test]
    async fn clients_are_asked_for_a_certificate_when_it_is_wanted() {
        let (authority, clients) = (Authority::new(), Authority::new());
        let server = authority.issue("a.example").server();
        let demanding = server.clone().client_roots_pem(clients.root().as_bytes(), true).unwrap();
        let curious = server.client_roots_pem(clients.root().as_bytes(), false).unwrap();
        let certified = |identity: &Identity| {
            let client = authority.client();
            client.client_certificate_pem(identity.certificate.as_bytes(), identity.key.as_bytes()).unwrap()
        };
        let (good, bad) = (certified(&clients.issue("me.example")), certified(&authority.issue("me.example")));

        let (client, server) = shake(&good, "a.example", &demanding).await;
        client.unwrap();
        assert_eq!(TlsInfo::of(&server.unwrap()).peer_certificates().len(), 1);

        for client in [authority.client(), good.without_identity()] {
            let (client, server) = shake(&client, "a.example", &demanding).await;
            let error = client.unwrap_err();
            assert!(error.is_tls() && error.to_string().contains("client_certificate_pem"), "{error}");
            let error = server.unwrap_err();
            assert!(error.is_tls() && error.to_string().contains("sent no certificate"), "{error}");
        }
        for server in [&demanding, &curious] {
            let (client, server) = shake(&bad, "a.example", server).await;
            let error = client.unwrap_err();
            assert!(error.is_tls() && error.to_string().contains("refused our certificate"), "{error}");
            let error = server.unwrap_err();
            assert!(error.is_tls() && error.to_string().contains("client_roots_pem"), "{error}");
        }
        let (client, server) = shake(&authority.client(), "a.example", &curious).await;
        client.unwrap();
        assert!(TlsInfo::of(&server.unwrap()).peer_certificates().is_empty());
    }

    #[tokio::test]
    async fn whoever_does_not_speak_tls_is_told_so() {
        let authority = Authority::new();
        let (ours, mut theirs) = duplex(1 << 10);
        theirs.write_all(b"HTTP/1.1 400 Bad Request\r\n\r\n").await.unwrap();
        let error = authority.client().connect("a.example", ours).await.unwrap_err();
        assert!(error.is_tls() && error.to_string().contains("ws://"), "{error}");

        let (ours, mut theirs) = duplex(1 << 10);
        theirs.write_all(b"GET / HTTP/1.1\r\nHost: a.example\r\n\r\n").await.unwrap();
        theirs.shutdown().await.unwrap();
        let error = authority.issue("a.example").server().accept(ours).await.unwrap_err();
        assert!(error.is_tls() && error.to_string().contains("does not speak TLS"), "{error}");

        let (ours, theirs) = duplex(1 << 10);
        drop(theirs);
        let error = authority.client().connect("a.example", ours).await.unwrap_err();
        assert!(error.is_io() && error.to_string().contains("TLS handshake"), "{error}");
    }

    #[test]
    fn what_cannot_be_used_is_told_at_once_and_no_key_is_shown() {
        let authority = Authority::new();
        let (one, other) = (authority.issue("a.example"), authority.issue("b.example"));
        let (certificate, key) = (one.certificate.as_bytes(), one.key.as_bytes());
        let broken = b"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n";
        let errors = [
            ClientTls::only_pem(b"").err(),
            ClientTls::only_pem(key).err(),
            ClientTls::only_pem(broken).err(),
            ClientTls::only_pem(b"-----BEGIN CERTIFICATE-----\nA").err(),
            ClientTls::system().client_certificate_pem(certificate, other.key.as_bytes()).err(),
            ClientTls::system().client_certificate_pem(certificate, certificate).err(),
            ClientTls::system().server_name("a b").err(),
            ServerTls::from_pem(certificate, other.key.as_bytes()).err(),
            ServerTls::from_pem(key, key).err(),
            ServerTls::from_pem_files("/nonexistent/a.pem", "/nonexistent/b.pem").err(),
        ];
        for (index, error) in errors.into_iter().enumerate() {
            let error = error.unwrap_or_else(|| panic!("case {index}"));
            assert!(error.is_invalid(), "{error}");
        }
        let client = ClientTls::system().client_certificate_pem(certificate, key).unwrap();
        let shown = format!("{client:?} {:?}", one.server());
        let secret = one.key.lines().nth(1).unwrap();
        assert!(!shown.contains(secret) && shown.contains("client_certificate: true"), "{shown}");
    }

    #[tokio::test]
    async fn settings_of_the_applications_own_are_taken_as_they_are() {
        let authority = Authority::new();
        let server = authority.issue("a.example").server();
        let mut roots = rustls::RootCertStore::empty();
        roots.add(CertificateDer::from_pem_slice(authority.root().as_bytes()).unwrap()).unwrap();
        let config = rustls::ClientConfig::builder_with_provider(provider())
            .with_protocol_versions(&[&rustls::version::TLS12])
            .unwrap()
            .with_root_certificates(roots)
            .with_no_client_auth();
        let client = ClientTls::with_config(Arc::new(config));
        let (shaken, _) = shake(&client, "a.example", &server).await;
        assert_eq!(TlsInfo::of(&shaken.unwrap()).version(), Some(TlsVersion::Tls12));
        assert!(client.root_pem(authority.root().as_bytes()).unwrap_err().is_invalid());
    }

    /// A folder that goes with the test.
    struct Folder(PathBuf);

    impl Folder {
        fn new(name: &str) -> Self {
            let path = std::env::temp_dir().join(format!("taut-{name}-{}", std::process::id()));
            fs::create_dir_all(&path).unwrap();
            Self(path)
        }

        fn write(&self, identity: &Identity) {
            fs::write(self.0.join("certificate.pem"), &identity.certificate).unwrap();
            fs::write(self.0.join("key.pem"), &identity.key).unwrap();
        }

        fn server(&self) -> ServerTls {
            ServerTls::from_pem_files(self.0.join("certificate.pem"), self.0.join("key.pem")).unwrap()
        }
    }

    impl Drop for Folder {
        fn drop(&mut self) {
            let _ = fs::remove_dir_all(&self.0);
        }
    }

    /// Shakes hands until the server is known by the name, or fails to be; a look at the files may be under way.
    async fn until(client: &ClientTls, host: &str, server: &ServerTls, is_wanted: impl Fn() -> bool) {
        for _ in 0..1_000 {
            let is_known = shake(client, host, server).await.0.is_ok();
            if is_known && is_wanted() {
                return;
            }
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        panic!("never known as {host}: {:?}", server.last_reload_error());
    }

    #[tokio::test(start_paused = true)]
    async fn a_renewed_certificate_is_taken_from_its_files_without_a_restart() {
        let (authority, folder) = (Authority::new(), Folder::new("renewed"));
        let client = authority.client();
        folder.write(&authority.issue("old.example"));
        let server = folder.server();
        assert!(shake(&client, "old.example", &server).await.0.is_ok());

        // Within 30 seconds nobody looks.
        folder.write(&authority.issue("renewed.example"));
        tokio::time::sleep(Duration::from_secs(29)).await;
        assert!(shake(&client, "old.example", &server).await.0.is_ok());
        assert!(shake(&client, "old.example", &server).await.0.is_ok());
        tokio::time::sleep(Duration::from_secs(2)).await;
        until(&client, "renewed.example", &server, || true).await;

        // A broken file changes nothing, and is told.
        fs::write(folder.0.join("key.pem"), "nothing").unwrap();
        tokio::time::sleep(Duration::from_secs(31)).await;
        until(&client, "renewed.example", &server, || server.last_reload_error().is_some()).await;
        let error = server.last_reload_error().unwrap();
        assert!(error.is_invalid() && error.to_string().contains("key.pem"), "{error}");
        assert!(server.reload().is_err());

        // Once it is whole it is used.
        folder.write(&authority.issue("whole.example"));
        server.reload().unwrap();
        assert!(server.last_reload_error().is_none());
        assert!(shake(&client, "whole.example", &server).await.0.is_ok());
    }

    #[tokio::test(start_paused = true)]
    async fn clones_and_the_terms_for_clients_share_the_renewed_certificate() {
        let (authority, folder) = (Authority::new(), Folder::new("shared"));
        folder.write(&authority.issue("old.example"));
        let server = folder.server().reload_interval(Duration::ZERO);
        let asking = server.clone().client_roots_pem(authority.root().as_bytes(), false).unwrap();
        folder.write(&authority.issue("a-new-name.example"));
        until(&authority.client(), "a-new-name.example", &server, || true).await;
        assert!(shake(&authority.client(), "a-new-name.example", &asking).await.0.is_ok());
    }
}
