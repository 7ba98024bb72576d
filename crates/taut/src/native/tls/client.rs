//! What a client trusts and how it shows who it is.

use std::fmt;
use std::sync::{Arc, LazyLock};

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::{WebPkiServerVerifier, verify_server_name};
use rustls::crypto::{CryptoProvider, verify_tls12_signature, verify_tls13_signature};
use rustls::server::ParsedCertificate;
use rustls::sign::CertifiedKey;
use rustls::{ClientConfig, DigitallySignedStruct, KeyLogFile, RootCertStore, SignatureScheme};
use rustls_native_certs::CertificateResult;
use rustls_pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::OnceCell;
use tokio::task::spawn_blocking;
use tokio_rustls::TlsConnector;

use super::{HTTP_1_1, TlsStream, certificates, private_key, provider};
use crate::Error;
use crate::error::Cause;
use crate::error::tls::{Failure, Peer, failed, is_authority, settings};

/// TLS for a client: which certificates it trusts, and which one it shows.
///
/// By default it trusts the roots that the system trusts, and nothing else; there is no way from a `wss://` URL to an
/// unencrypted connection. Cheap to clone; clones share what was built and the sessions to resume.
///
/// ```no_run
/// # async fn run() -> Result<(), Box<dyn std::error::Error>> {
/// use taut::Client;
/// use taut::tls::ClientTls;
///
/// let tls = ClientTls::system().root_pem(&std::fs::read("our-root.pem")?)?;
/// let mut socket = Client::new("wss://inside.example/").tls(tls).connect().await?;
/// # Ok(())
/// # }
/// ```
#[derive(Clone)]
pub struct ClientTls {
    /// `None` when the application made the configuration itself.
    settings: Option<Arc<Settings>>,
    server_name: Option<ServerName<'static>>,
    /// Built when it is first needed.
    config: Arc<OnceCell<Arc<ClientConfig>>>,
}

impl ClientTls {
    /// Trusts the roots of the system, and those of `SSL_CERT_FILE` and `SSL_CERT_DIR` instead if these are set. The
    /// default.
    ///
    /// The roots are read once per process, when the first connection needs them: some milliseconds on a thread of
    /// their own.
    ///
    /// A system without any, such as a container without the package `ca-certificates`, makes connecting fail
    /// ([`is_tls`](Error::is_tls)). Built with the feature `tls-webpki-roots`, Mozilla's roots are used instead, unless
    /// one of the two variables is set: who names roots means these and no others.
    pub fn system() -> Self {
        // One for all, so that each client need not build its own.
        static SYSTEM: LazyLock<ClientTls> = LazyLock::new(|| ClientTls::from(Settings::trusting(Roots::System)));
        SYSTEM.clone()
    }

    /// Trusts Mozilla's roots, which are compiled in, whatever the system trusts: the same on every machine, and as old as
    /// the crate `webpki-roots` that the program was built with.
    #[cfg(feature = "tls-webpki-roots")]
    pub fn webpki_roots() -> Self {
        Self::from(Settings::trusting(Roots::Bundled))
    }

    /// Trusts these roots only: one or more certificates in PEM. A server's own certificate can be one if it is
    /// self-signed, as `openssl req -x509` makes it; its name and dates are checked like those of any other.
    ///
    /// # Errors
    /// [`is_invalid`](Error::is_invalid): there is no certificate in the text, or one cannot be used.
    pub fn only_pem(roots: &[u8]) -> Result<Self, Error> {
        Self::from(Settings::trusting(Roots::Given)).root_pem(roots)
    }

    /// Accepts any certificate: anyone on the network path can read and change everything. For a test against a server
    /// whose certificate is out of reach; [`only_pem`](Self::only_pem) with the server's certificate is as easy, and
    /// safe.
    pub fn dangerously_accept_any_certificate() -> Self {
        Self::from(Settings::trusting(Roots::Any))
    }

    /// Uses a rustls configuration as it is, for everything that has no method here. [`rustls`] is the version to use;
    /// ALPN should be `http/1.1`.
    pub fn with_config(config: Arc<ClientConfig>) -> Self {
        Self { settings: None, server_name: None, config: Arc::new(OnceCell::new_with(Some(config))) }
    }

    /// Trusts these roots as well: one or more certificates in PEM.
    ///
    /// # Errors
    /// [`is_invalid`](Error::is_invalid): there is no certificate in the text, or one cannot be used.
    pub fn root_pem(self, roots: &[u8]) -> Result<Self, Error> {
        let roots = certificates("the text of ClientTls::root_pem", roots)?;
        add(&mut RootCertStore::empty(), &roots)?;
        self.change("root_pem", |settings| settings.more.extend(roots))
    }

    /// Shows the server this certificate if it asks for one (mutual TLS): the chain in PEM, the client's own first,
    /// and its private key in PEM, not encrypted.
    ///
    /// # Errors
    /// [`is_invalid`](Error::is_invalid): one cannot be read, or they do not belong together.
    pub fn client_certificate_pem(self, chain: &[u8], key: &[u8]) -> Result<Self, Error> {
        let chain = certificates("the client's certificate", chain)?;
        let key = private_key("the client's key", key)?;
        CertifiedKey::from_der(chain.clone(), key.clone_key(), &provider())
            .map_err(|error| settings(format!("the client's certificate and key cannot be used: {error}")))?;
        self.change("client_certificate_pem", |settings| settings.certificate = Some((chain, key)))
    }

    /// Expects the server's certificate to be for this name or IP address, and asks the server for it (SNI), instead
    /// of the URL's host: for a server that is reached by another name than it has.
    ///
    /// # Errors
    /// [`is_invalid`](Error::is_invalid): this is neither a name nor an address.
    pub fn server_name(mut self, name: &str) -> Result<Self, Error> {
        let parsed = ServerName::try_from(name.to_owned());
        self.server_name =
            Some(parsed.map_err(|_| settings(format!("ClientTls::server_name: {name:?} is not a name of a server")))?);
        Ok(self)
    }

    /// Writes the secrets of each connection to the file that the environment variable `SSLKEYLOGFILE` names, if it is
    /// set: with them, tools such as Wireshark decrypt a recording of the traffic. For debugging; whoever has the file
    /// can read everything that was sent.
    ///
    /// # Errors
    /// [`is_invalid`](Error::is_invalid): the configuration was given [as a whole](Self::with_config).
    pub fn log_keys(self) -> Result<Self, Error> {
        self.change("log_keys", |settings| settings.logs_keys = true)
    }

    /// Shakes hands over a stream to `host`.
    pub(crate) async fn connect<S>(&self, host: &str, stream: S) -> Result<TlsStream<S>, Error>
    where
        S: AsyncRead + AsyncWrite + Unpin,
    {
        let name = match &self.server_name {
            Some(name) => name.clone(),
            None => server_name(host)?,
        };
        let connector = TlsConnector::from(Arc::clone(self.config().await?));
        let connected = connector.connect(name, stream).await;
        Ok(connected.map_err(|error| failed(Peer::Server, error))?.into())
    }

    /// Drops what is for one server only: its name, and our certificate. Whom it trusts stays.
    pub(crate) fn without_identity(&self) -> Self {
        let mut other = self.clone();
        other.server_name = None;
        if self.settings.as_ref().is_some_and(|settings| settings.certificate.is_some()) {
            other.settings =
                other.settings.map(|settings| Arc::new(Settings { certificate: None, ..(*settings).clone() }));
            other.config = Arc::default();
        }
        other
    }

    async fn config(&self) -> Result<&Arc<ClientConfig>, Error> {
        let build = || async {
            let Some(settings) = &self.settings else { unreachable!("a configuration that was given is there") };
            let roots = match settings.roots {
                Roots::System => system_roots().await?,
                #[cfg(feature = "tls-webpki-roots")]
                Roots::Bundled => Arc::new(bundled_roots()),
                Roots::Given | Roots::Any => Arc::new(RootCertStore::empty()),
            };
            settings.build(roots).map(Arc::new)
        };
        self.config.get_or_try_init(build).await
    }

    fn change(mut self, what: &str, change: impl FnOnce(&mut Settings)) -> Result<Self, Error> {
        let Some(settings) = &mut self.settings else {
            return Err(settings(format!(
                "ClientTls::{what}: the settings were made by with_config and are complete; change them there"
            )));
        };
        change(Arc::make_mut(settings));
        self.config = Arc::default();
        Ok(self)
    }
}

impl Default for ClientTls {
    fn default() -> Self {
        Self::system()
    }
}

impl From<Settings> for ClientTls {
    fn from(settings: Settings) -> Self {
        Self { settings: Some(Arc::new(settings)), server_name: None, config: Arc::default() }
    }
}

impl fmt::Debug for ClientTls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut shown = f.debug_struct("ClientTls");
        if let Some(settings) = &self.settings {
            shown.field("roots", &settings.roots).field("more", &settings.more.len());
            shown.field("client_certificate", &settings.certificate.is_some());
        }
        shown.field("server_name", &self.server_name).finish_non_exhaustive()
    }
}

struct Settings {
    roots: Roots,
    /// Further roots.
    more: Vec<CertificateDer<'static>>,
    /// The client's own.
    certificate: Option<(Vec<CertificateDer<'static>>, PrivateKeyDer<'static>)>,
    /// Secrets go to `SSLKEYLOGFILE`.
    logs_keys: bool,
}

#[derive(Clone, Copy, Debug)]
enum Roots {
    System,
    /// Mozilla's, compiled in.
    #[cfg(feature = "tls-webpki-roots")]
    Bundled,
    /// None but those that are given.
    Given,
    /// Nothing is checked.
    Any,
}

impl Settings {
    fn trusting(roots: Roots) -> Self {
        Self { roots, more: Vec::new(), certificate: None, logs_keys: false }
    }

    fn build(&self, roots: Arc<RootCertStore>) -> Result<ClientConfig, Error> {
        let unusable = |error: rustls::Error| settings(format!("the client's TLS settings cannot be used: {error}"));
        let provider = provider();
        let builder = ClientConfig::builder_with_provider(Arc::clone(&provider))
            .with_safe_default_protocol_versions()
            .map_err(unusable)?;
        let builder = if let Roots::Any = self.roots {
            builder.dangerous().with_custom_certificate_verifier(Arc::new(AcceptAny(provider)))
        } else {
            let mut roots = roots;
            add(Arc::make_mut(&mut roots), &self.more)?;
            let verifier = WebPkiServerVerifier::builder_with_provider(roots, provider)
                .build()
                .map_err(|error| settings(format!("the roots cannot be used: {error}")))?;
            let verifier = OwnRoots { verifier, roots: self.more.clone() };
            builder.dangerous().with_custom_certificate_verifier(Arc::new(verifier))
        };
        let mut config = match &self.certificate {
            None => builder.with_no_client_auth(),
            Some((chain, key)) => builder.with_client_auth_cert(chain.clone(), key.clone_key()).map_err(unusable)?,
        };
        config.alpn_protocols = vec![HTTP_1_1.to_vec()];
        if self.logs_keys {
            config.key_log = Arc::new(KeyLogFile::new());
        }
        Ok(config)
    }
}

impl Clone for Settings {
    fn clone(&self) -> Self {
        let certificate = self.certificate.as_ref().map(|(chain, key)| (chain.clone(), key.clone_key()));
        Self { roots: self.roots, more: self.more.clone(), certificate, logs_keys: self.logs_keys }
    }
}

/// The system's roots, read once per process; after a failure they are looked for again.
async fn system_roots() -> Result<Arc<RootCertStore>, Error> {
    static ROOTS: OnceCell<Arc<RootCertStore>> = OnceCell::const_new();
    let load = || async {
        // Files are read, and more than a hundred certificates parsed.
        let loaded = spawn_blocking(|| usable(rustls_native_certs::load_native_certs())).await;
        or_bundled(loaded.unwrap_or_else(|error| Err(no_roots(&error))), are_roots_named()).map(Arc::new)
    };
    ROOTS.get_or_try_init(load).await.cloned()
}

/// Whether the environment says which roots to use.
fn are_roots_named() -> bool {
    ["SSL_CERT_FILE", "SSL_CERT_DIR"].iter().any(|name| std::env::var_os(name).is_some())
}

/// The roots that are compiled in, if the system has none and nobody has named any.
#[cfg(feature = "tls-webpki-roots")]
fn or_bundled(found: Result<RootCertStore, Error>, are_named: bool) -> Result<RootCertStore, Error> {
    if are_named { found } else { found.or_else(|_| Ok(bundled_roots())) }
}

#[cfg(not(feature = "tls-webpki-roots"))]
fn or_bundled(found: Result<RootCertStore, Error>, _: bool) -> Result<RootCertStore, Error> {
    found
}

#[cfg(feature = "tls-webpki-roots")]
fn bundled_roots() -> RootCertStore {
    webpki_roots::TLS_SERVER_ROOTS.iter().cloned().collect()
}

/// A certificate or file that cannot be read is the system's affair as long as others can.
fn usable(found: CertificateResult) -> Result<RootCertStore, Error> {
    let mut roots = RootCertStore::empty();
    let (added, ignored) = roots.add_parsable_certificates(found.certs);
    if added > 0 {
        return Ok(roots);
    }
    match found.errors.first() {
        Some(error) => Err(no_roots(error)),
        None if ignored > 0 => Err(no_roots(&format!("none of {ignored} certificates can be used"))),
        None => Err(no_roots(&"none were found")),
    }
}

fn no_roots(reason: &dyn fmt::Display) -> Error {
    Cause::Tls(Failure::NoRoots(reason.to_string())).into()
}

fn add(roots: &mut RootCertStore, more: &[CertificateDer<'static>]) -> Result<(), Error> {
    for (index, root) in more.iter().enumerate() {
        let number = index + 1;
        let unusable = |error| settings(format!("root certificate {number} cannot be used: {error}"));
        roots.add(root.clone()).map_err(unusable)?;
    }
    Ok(())
}

/// What the certificate has to be for.
fn server_name(host: &str) -> Result<ServerName<'static>, Error> {
    ServerName::try_from(host.to_owned())
        .map_err(|_| Cause::Url("the URL's host is neither a name nor an address that a certificate can be for").into())
}

/// What rustls accepts, and a server's own certificate that was given as a root, also if it says that it is an
/// authority's.
///
/// `openssl req -x509` says so of every certificate that it makes (`CA:TRUE`), and rustls takes none like that for a
/// server's. To accept the very certificate that the caller trusts gives nobody anything: whoever has its key can issue
/// others.
#[derive(Debug)]
struct OwnRoots {
    verifier: Arc<WebPkiServerVerifier>,
    /// Those that the caller gave, not the system's.
    roots: Vec<CertificateDer<'static>>,
}

impl ServerCertVerifier for OwnRoots {
    fn verify_server_cert(
        &self,
        certificate: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        name: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        let verified = self.verifier.verify_server_cert(certificate, intermediates, name, ocsp_response, now);
        match verified {
            // Its dates were checked before this (RFC 5280 §6.1.3), and its key's signature of the handshake will be.
            Err(rustls::Error::InvalidCertificate(bad)) if is_authority(&bad) && self.roots.contains(certificate) => {
                verify_server_name(&ParsedCertificate::try_from(certificate)?, name)?;
                Ok(ServerCertVerified::assertion())
            }
            verified => verified,
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.verifier.verify_tls12_signature(message, certificate, signature)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.verifier.verify_tls13_signature(message, certificate, signature)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.verifier.supported_verify_schemes()
    }
}

/// Takes any certificate for any name. That the server has its key is checked all the same.
#[derive(Debug)]
struct AcceptAny(Arc<CryptoProvider>);

impl ServerCertVerifier for AcceptAny {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls12_signature(message, certificate, signature, &self.0.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls13_signature(message, certificate, signature, &self.0.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::Authority;
    use super::*;

    #[test]
    fn a_system_without_roots_is_told_how_to_get_them() {
        let error = usable(CertificateResult::default()).unwrap_err();
        let text = error.to_string();
        assert!(error.is_tls() && text.contains("ca-certificates") && text.contains("tls-webpki-roots"), "{error}");
        let mut odd = CertificateResult::default();
        odd.certs.push(CertificateDer::from(vec![1, 2, 3]));
        let error = usable(odd).unwrap_err();
        assert!(error.to_string().contains("none of 1"), "{error}");
    }

    #[test]
    fn one_odd_root_of_the_system_does_not_spoil_the_others() {
        let mut found = CertificateResult::default();
        found.certs.push(CertificateDer::from(vec![1, 2, 3]));
        found.certs.extend(certificates("root", Authority::new().root().as_bytes()).unwrap());
        assert_eq!(usable(found).unwrap().len(), 1);
    }

    #[cfg(feature = "tls-webpki-roots")]
    #[test]
    fn roots_that_are_compiled_in_stand_in_for_a_system_without_any_but_not_for_those_that_were_named() {
        let none = || usable(CertificateResult::default());
        assert!(or_bundled(none(), false).unwrap().len() > 50);
        assert!(or_bundled(none(), true).unwrap_err().is_tls());
        let mut found = CertificateResult::default();
        found.certs.extend(certificates("root", Authority::new().root().as_bytes()).unwrap());
        assert_eq!(or_bundled(usable(found), false).unwrap().len(), 1);
    }

    #[cfg(feature = "tls-webpki-roots")]
    #[tokio::test]
    async fn the_roots_that_are_compiled_in_can_be_asked_for() {
        let client = ClientTls::webpki_roots().root_pem(Authority::new().root().as_bytes()).unwrap();
        client.config().await.unwrap();
        assert!(format!("{client:?}").contains("Bundled"), "{client:?}");
    }

    #[test]
    fn clients_by_default_share_what_is_built() {
        assert!(Arc::ptr_eq(&ClientTls::system().config, &ClientTls::default().config));
        let changed = ClientTls::system().root_pem(Authority::new().root().as_bytes()).unwrap();
        assert!(!Arc::ptr_eq(&ClientTls::system().config, &changed.config));
        let named = ClientTls::system().server_name("a.example").unwrap();
        assert!(Arc::ptr_eq(&named.without_identity().config, &ClientTls::system().config));
    }
}
