//! The certificate of the moment, and those that answer the challenges of a certificate authority.

use std::fmt;
use std::sync::Arc;

use arc_swap::{ArcSwap, ArcSwapOption};
use rustls::crypto::ring;
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use rustls::{ServerConfig, ServerConnection};
use rustls_pki_types::{CertificateDer, PrivateKeyDer};

/// A server's certificate that the program obtains and replaces by itself, for instance by ACME, and settings that
/// follow it: new connections get the new one, on every shard that has the settings; open ones go on.
///
/// While there is no certificate, clients are refused by a TLS alert. With [`set_challenges`](Self::set_challenges) it
/// answers a certificate authority that asks by TLS-ALPN-01 (RFC 8737); the shard ends such a connection once the
/// handshake is done.
///
/// Cheap to clone; clones share the certificate.
#[derive(Clone)]
pub struct Resolver(Arc<Current>);

impl Resolver {
    /// One that has no certificate yet.
    pub fn new() -> Self {
        Self(Arc::new(Current { certificate: ArcSwapOption::empty(), challenges: ArcSwap::default() }))
    }

    /// Reads a certificate chain, the server's own certificate first, and its key.
    ///
    /// # Errors
    /// They cannot be used, or do not belong together.
    pub fn read(
        chain: Vec<CertificateDer<'static>>,
        key: PrivateKeyDer<'static>,
    ) -> Result<Arc<CertifiedKey>, rustls::Error> {
        CertifiedKey::from_der(chain, key, &ring::default_provider()).map(Arc::new)
    }

    /// The settings, for [`Settings::tls`](crate::Settings::tls): TLS 1.2 and 1.3, HTTP/1.1 and the challenges of ACME.
    ///
    /// # Errors
    /// The library of TLS has no such version.
    pub fn config(&self) -> Result<Arc<ServerConfig>, rustls::Error> {
        // Behind HTTP/1.1: whoever offers both is a client.
        self.config_with(&[HTTP1, CHALLENGE]).map(Arc::new)
    }

    pub(super) fn config_with(&self, protocols: &[&[u8]]) -> Result<ServerConfig, rustls::Error> {
        // The library brings its own provider: nothing in the process has to be installed first.
        let mut config = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
            .with_safe_default_protocol_versions()?
            .with_no_client_auth()
            .with_cert_resolver(Arc::clone(&self.0) as Arc<dyn ResolvesServerCert>);
        config.alpn_protocols = protocols.iter().map(|protocol| protocol.to_vec()).collect();
        Ok(config)
    }

    /// Shows this certificate from now on. Returns whether it is a different one; otherwise nothing changes.
    pub fn replace(&self, certificate: Arc<CertifiedKey>) -> bool {
        let is_other = self.0.certificate.load().as_ref().is_none_or(|former| former.cert != certificate.cert);
        // A program that looks every few seconds gives the same one again and again.
        if is_other {
            self.0.certificate.store(Some(certificate));
        }
        is_other
    }

    /// The server's own certificate, if there is one.
    pub fn certificate(&self) -> Option<CertificateDer<'static>> {
        self.0.certificate.load().as_ref().and_then(|key| key.cert.first().cloned())
    }

    /// Answers challenges for these names, in lower case, each with the certificate beside it, and for no others.
    pub fn set_challenges(&self, challenges: Vec<(String, Arc<CertifiedKey>)>) {
        self.0.challenges.store(Arc::new(challenges));
    }
}

impl Default for Resolver {
    fn default() -> Self {
        Self::new()
    }
}

impl fmt::Debug for Resolver {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Resolver")
            .field("has_certificate", &self.0.certificate.load().is_some())
            .finish_non_exhaustive()
    }
}

/// Whether this connection was a certificate authority's question, and has its answer.
pub(crate) fn has_answered_challenge(tls: &ServerConnection) -> bool {
    tls.alpn_protocol() == Some(CHALLENGE) && !tls.is_handshaking()
}

struct Current {
    certificate: ArcSwapOption<CertifiedKey>,
    challenges: ArcSwap<Vec<(String, Arc<CertifiedKey>)>>,
}

impl Current {
    fn challenge(&self, name: &str) -> Option<Arc<CertifiedKey>> {
        let challenges = self.challenges.load();
        challenges.iter().find(|(challenged, _)| challenged == name).map(|(_, key)| Arc::clone(key))
    }
}

impl ResolvesServerCert for Current {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        // RFC 8737 §3: the authority offers this protocol alone, and names the server.
        if hello.alpn().is_some_and(|protocols| protocols.eq([CHALLENGE])) {
            // rustls gives the name in lower case.
            return hello.server_name().and_then(|name| self.challenge(name));
        }
        self.certificate.load_full()
    }
}

impl fmt::Debug for Current {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Current").finish_non_exhaustive()
    }
}

/// RFC 6455 §4.1: the handshake is HTTP/1.1.
pub(super) const HTTP1: &[u8] = b"http/1.1";

/// RFC 8737 §6.2.
const CHALLENGE: &[u8] = b"acme-tls/1";
