//! TLS settings from files.

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustls::ServerConfig;
use rustls::crypto::ring;
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer, pem};

/// Reads a certificate chain and its key, both PEM, into settings for a server: TLS 1.2 and 1.3, HTTP/1.1.
pub fn server(certificate: &Path, key: &Path) -> Result<Arc<ServerConfig>, TlsError> {
    let read = |path: &Path, error| TlsError { path: path.to_owned(), cause: Cause::Pem(error) };
    let chain: Vec<CertificateDer<'static>> = CertificateDer::pem_file_iter(certificate)
        .and_then(Iterator::collect)
        .map_err(|error| read(certificate, error))?;
    if chain.is_empty() {
        return Err(read(certificate, pem::Error::NoItemsFound));
    }
    let key_der = PrivateKeyDer::from_pem_file(key).map_err(|error| read(key, error))?;
    // The library brings its own provider: nothing in the process has to be installed first.
    let mut config = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .and_then(|builder| builder.with_no_client_auth().with_single_cert(chain, key_der))
        .map_err(|error| TlsError { path: certificate.to_owned(), cause: Cause::Rustls(error) })?;
    // RFC 6455 §4.1: the handshake is HTTP/1.1.
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(Arc::new(config))
}

/// Why TLS settings could not be made of files.
#[derive(Debug)]
pub struct TlsError {
    path: PathBuf,
    cause: Cause,
}

#[derive(Debug)]
enum Cause {
    Pem(pem::Error),
    Rustls(rustls::Error),
}

impl fmt::Display for TlsError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let path = self.path.display();
        match &self.cause {
            Cause::Pem(pem::Error::NoItemsFound) => {
                write!(f, "{path}: holds no PEM item of the kind that is wanted here")
            }
            Cause::Pem(error) => write!(f, "{path}: {error}"),
            Cause::Rustls(error) => write!(f, "{path}: the certificate and its key cannot be used: {error}"),
        }
    }
}

impl std::error::Error for TlsError {}
