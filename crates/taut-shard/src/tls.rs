//! TLS settings: from files, which may be read again while shards serve, or with a certificate that the program obtains.
//!
//! `ServerTls` of the library `taut` follows the same rules: the settings ask one place for the current certificate; both
//! files are read, and used only if they belong together; otherwise the certificate stays the one it was. What differs is
//! who looks. A shard must not wait for the disk, so the program calls [`Certificates::reload`] on a thread of its own.
//! The library has a runtime with threads that may wait, and looks when a connection comes in. Neither crate may import
//! the other, and a third one would hold twenty lines: each has its own code.

mod resolver;

/// The version of rustls that the settings and handed over connections are of.
pub use rustls;

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustls::ServerConfig;
use rustls::sign::CertifiedKey;
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer, pem};

pub use resolver::Resolver;
pub(crate) use resolver::has_answered_challenge;

/// Reads a certificate chain and its key, both PEM, into settings for a server: TLS 1.2 and 1.3, HTTP/1.1. See
/// [`Certificates`] for such that can be renewed.
pub fn server(certificate: &Path, key: &Path) -> Result<Arc<ServerConfig>, TlsError> {
    Certificates::from_pem_files(certificate, key).map(|certificates| certificates.config())
}

/// A server's certificate from files, and settings that follow it: after [`reload`](Self::reload) new connections get
/// the new one, on every shard that has the settings; open ones go on.
///
/// Cheap to clone; clones share the certificate.
///
/// ```no_run
/// use taut_shard::{Settings, tls::Certificates};
///
/// # fn main() -> Result<(), taut_shard::tls::TlsError> {
/// let certificates = Certificates::from_pem_files("certificate.pem", "key.pem")?;
/// let mut settings = Settings::default();
/// settings.tls = Some(certificates.config());
/// // … later, on another thread, every now and then or when it is told to:
/// match certificates.reload() {
///     Ok(true) => println!("the certificate has been renewed"),
///     Ok(false) => {}
///     Err(error) => eprintln!("the certificate stays the one it was: {error}"),
/// }
/// # Ok(())
/// # }
/// ```
#[derive(Clone)]
pub struct Certificates {
    files: Arc<Files>,
    resolver: Resolver,
    config: Arc<ServerConfig>,
}

impl Certificates {
    /// Reads the certificate chain, the server's own certificate first, and its private key, not encrypted, from PEM
    /// files. It waits for the disk, so it belongs to the program's start.
    ///
    /// # Errors
    /// One of the files, which is named, cannot be read or used, or they do not belong together.
    pub fn from_pem_files(certificate: impl AsRef<Path>, key: impl AsRef<Path>) -> Result<Self, TlsError> {
        let files = Files { certificate: certificate.as_ref().to_owned(), key: key.as_ref().to_owned() };
        let resolver = Resolver::new();
        resolver.replace(files.read()?);
        let config = resolver.config_with(&[resolver::HTTP1]).map_err(|error| files.unusable(error))?;
        Ok(Self { files: Arc::new(files), resolver, config: Arc::new(config) })
    }

    /// The settings, for [`Settings::tls`](crate::Settings::tls): TLS 1.2 and 1.3, HTTP/1.1.
    pub fn config(&self) -> Arc<ServerConfig> {
        Arc::clone(&self.config)
    }

    /// Reads the files again; whether there was another certificate. It waits for the disk, and so is not for a shard's
    /// thread; no shard waits for it.
    ///
    /// # Errors
    /// As [`from_pem_files`](Self::from_pem_files). The certificate stays the one it was.
    pub fn reload(&self) -> Result<bool, TlsError> {
        self.files.read().map(|certificate| self.resolver.replace(certificate))
    }

    /// The server's own certificate.
    pub fn certificate(&self) -> Option<CertificateDer<'static>> {
        self.resolver.certificate()
    }
}

impl fmt::Debug for Certificates {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Certificates").field("files", &self.files).finish_non_exhaustive()
    }
}

/// Where the certificate comes from.
#[derive(Debug)]
struct Files {
    certificate: PathBuf,
    key: PathBuf,
}

impl Files {
    fn read(&self) -> Result<Arc<CertifiedKey>, TlsError> {
        let chain: Vec<CertificateDer<'static>> = CertificateDer::pem_file_iter(&self.certificate)
            .and_then(Iterator::collect)
            .map_err(|error| Self::unreadable(&self.certificate, "certificate", error))?;
        if chain.is_empty() {
            return Err(Self::unreadable(&self.certificate, "certificate", pem::Error::NoItemsFound));
        }
        let key = PrivateKeyDer::from_pem_file(&self.key)
            .map_err(|error| Self::unreadable(&self.key, "private key", error))?;
        Resolver::read(chain, key).map_err(|error| self.unusable(error))
    }

    fn unreadable(path: &Path, what: &'static str, error: pem::Error) -> TlsError {
        let cause = match error {
            pem::Error::Io(error) => Cause::Read(error),
            // What the parser says is not shown: it may quote the file, and that may be a key.
            _ => Cause::Pem(what),
        };
        TlsError { path: path.to_owned(), cause }
    }

    fn unusable(&self, error: rustls::Error) -> TlsError {
        TlsError { path: self.certificate.clone(), cause: Cause::Together { key: self.key.clone(), error } }
    }
}

/// Why TLS settings could not be made of files.
#[derive(Debug)]
pub struct TlsError {
    path: PathBuf,
    cause: Cause,
}

impl TlsError {
    /// The file that is at fault; the certificate's, where the two do not belong together.
    pub fn path(&self) -> &Path {
        &self.path
    }
}

#[derive(Debug)]
enum Cause {
    Read(io::Error),
    /// It does not hold one of these.
    Pem(&'static str),
    Together {
        key: PathBuf,
        error: rustls::Error,
    },
}

impl fmt::Display for TlsError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let path = self.path.display();
        match &self.cause {
            Cause::Read(error) => write!(f, "{path} cannot be read: {error}"),
            Cause::Pem(what) => {
                write!(f, "{path} holds no {what} that can be read: it must be PEM, whole and not encrypted")
            }
            Cause::Together { key, error } => {
                write!(f, "{path} and {} cannot be used together: {error}", key.display())
            }
        }
    }
}

impl std::error::Error for TlsError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match &self.cause {
            Cause::Read(error) => Some(error),
            Cause::Together { error, .. } => Some(error),
            Cause::Pem(_) => None,
        }
    }
}
