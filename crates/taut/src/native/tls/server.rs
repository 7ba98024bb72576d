//! The certificate of a server, and which clients it accepts.
//!
//! `tls::Certificates` of `taut-shard` follows the same rules and says why each crate has its own code.

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime};

use rustls::server::{ClientHello, ResolvesServerCert, WebPkiClientVerifier};
use rustls::sign::CertifiedKey;
use rustls::{RootCertStore, ServerConfig};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::task::spawn_blocking;
use tokio::time::{Instant, timeout};
use tokio_rustls::TlsAcceptor;

use super::{HTTP_1_1, TlsStream, certificates, private_key, provider};
use crate::Error;
use crate::error::tls::{Peer, failed, settings};

/// TLS for a server: its certificate, and whether clients need one.
///
/// A certificate from files is renewed without a restart: at most once in 30 seconds
/// ([`reload_interval`](Self::reload_interval)), when a connection comes in, it is looked whether the files have
/// changed. If they cannot be used, the certificate stays the one it was, and
/// [`last_reload_error`](Self::last_reload_error) says why.
///
/// Cheap to clone; clones share the certificate.
#[derive(Clone)]
pub struct ServerTls {
    config: Arc<ServerConfig>,
    /// `None` when the application made the configuration itself.
    certificate: Option<Arc<Certificate>>,
    interval: Duration,
}

impl ServerTls {
    /// Reads the certificate chain, the server's own certificate first, and its private key, not encrypted, from PEM
    /// files. It waits for the disk, so it belongs to the program's start.
    ///
    /// # Errors
    /// [`is_invalid`](Error::is_invalid): a file cannot be read, or the two do not belong together.
    pub fn from_pem_files(certificate: impl AsRef<Path>, key: impl AsRef<Path>) -> Result<Self, Error> {
        let files = Files { certificate: certificate.as_ref().to_owned(), key: key.as_ref().to_owned() };
        let seen = files.stamps();
        let key = files.read()?;
        Self::with_certificate(Certificate::new(Some(files), key, seen))
    }

    /// Takes the certificate chain and the private key from PEM text.
    ///
    /// # Errors
    /// [`is_invalid`](Error::is_invalid): one cannot be read, or they do not belong together.
    pub fn from_pem(certificate: &[u8], key: &[u8]) -> Result<Self, Error> {
        let key = certified_key("the server's certificate", certificate, "the server's key", key)?;
        Self::with_certificate(Certificate::new(None, key, Stamps::default()))
    }

    /// Uses a rustls configuration as it is, for everything that has no method here. [`rustls`] is the version to use;
    /// ALPN, if any, must have `http/1.1`.
    pub fn with_config(config: Arc<ServerConfig>) -> Self {
        Self { config, certificate: None, interval: INTERVAL }
    }

    /// Asks clients for a certificate that comes from one of these roots, in PEM (mutual TLS); by default none is asked
    /// for. Unless it is `required`, a client may come without one, but not with a wrong one.
    ///
    /// # Errors
    /// [`is_invalid`](Error::is_invalid): there is no certificate in the text, one cannot be used, or the settings were
    /// made [`with_config`](Self::with_config).
    pub fn client_roots_pem(self, roots: &[u8], required: bool) -> Result<Self, Error> {
        let Some(certificate) = self.certificate else {
            return Err(settings(
                "ServerTls::client_roots_pem: the settings were made by with_config and are complete; change them \
                 there"
                    .to_owned(),
            ));
        };
        let mut store = RootCertStore::empty();
        for root in certificates("the text of ServerTls::client_roots_pem", roots)? {
            store.add(root).map_err(|error| settings(format!("a root for clients cannot be used: {error}")))?;
        }
        let config = config(&certificate, Some((store, required)))?;
        Ok(Self { config, certificate: Some(certificate), ..self })
    }

    /// Sets how often, at most, the files are checked for changes; 30 seconds. A check reads the times of two files on
    /// another thread; the connection that triggers it does not wait for it.
    #[must_use]
    pub fn reload_interval(mut self, interval: Duration) -> Self {
        self.interval = interval;
        self
    }

    /// Reads the files now, whether they have changed or not; waits for the disk. Without files it does nothing.
    ///
    /// # Errors
    /// [`is_invalid`](Error::is_invalid): they cannot be used; the certificate stays the one it was.
    pub fn reload(&self) -> Result<(), Error> {
        self.certificate.as_ref().map_or(Ok(()), |certificate| certificate.reload())
    }

    /// Why the last check could not use the files; `None` if it could.
    pub fn last_reload_error(&self) -> Option<Error> {
        self.certificate.as_ref()?.state().error.clone()
    }

    /// Shakes hands over a stream that was accepted. The deadline is the caller's.
    pub(crate) async fn accept<S>(&self, stream: S) -> Result<TlsStream<S>, Error>
    where
        S: AsyncRead + AsyncWrite + Unpin,
    {
        if let Some(certificate) = &self.certificate
            && certificate.is_due(self.interval)
        {
            let certificate = Arc::clone(certificate);
            // Nobody waits for it: this connection has the certificate that is there.
            drop(spawn_blocking(move || certificate.look()));
        }
        let accepting = TlsAcceptor::from(Arc::clone(&self.config)).accept(stream);
        match accepting.into_fallible().await {
            Ok(stream) => Ok(stream.into()),
            Err((error, stream)) => {
                let error = failed(Peer::Client, error);
                if error.is_tls() {
                    linger(stream).await;
                }
                Err(error)
            }
        }
    }

    fn with_certificate(certificate: Certificate) -> Result<Self, Error> {
        let certificate = Arc::new(certificate);
        Ok(Self { config: config(&certificate, None)?, certificate: Some(certificate), interval: INTERVAL })
    }
}

impl fmt::Debug for ServerTls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let files = self.certificate.as_ref().and_then(|certificate| certificate.files.as_ref());
        f.debug_struct("ServerTls").field("files", &files).finish_non_exhaustive()
    }
}

fn config(certificate: &Arc<Certificate>, clients: Option<(RootCertStore, bool)>) -> Result<Arc<ServerConfig>, Error> {
    let unusable = |error: &dyn fmt::Display| settings(format!("the server's TLS settings cannot be used: {error}"));
    let provider = provider();
    let builder = ServerConfig::builder_with_provider(Arc::clone(&provider))
        .with_safe_default_protocol_versions()
        .map_err(|error| unusable(&error))?;
    let builder = match clients {
        None => builder.with_no_client_auth(),
        Some((roots, required)) => {
            let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider);
            let verifier = if required { verifier } else { verifier.allow_unauthenticated() };
            builder.with_client_cert_verifier(verifier.build().map_err(|error| unusable(&error))?)
        }
    };
    let mut config = builder.with_cert_resolver(Arc::clone(certificate) as Arc<dyn ResolvesServerCert>);
    config.alpn_protocols = vec![HTTP_1_1.to_vec()];
    Ok(Arc::new(config))
}

/// The certificate of the moment.
struct Certificate {
    files: Option<Files>,
    state: Mutex<State>,
}

struct State {
    key: Arc<CertifiedKey>,
    /// How the files were when they were last read.
    seen: Stamps,
    looked: Instant,
    error: Option<Error>,
}

impl Certificate {
    fn new(files: Option<Files>, key: CertifiedKey, seen: Stamps) -> Self {
        let state = State { key: Arc::new(key), seen, looked: Instant::now(), error: None };
        Self { files, state: Mutex::new(state) }
    }

    /// Whether it is time to look at the files; says so once per interval.
    fn is_due(&self, interval: Duration) -> bool {
        let mut state = self.state();
        let is_due = self.files.is_some() && state.looked.elapsed() >= interval;
        if is_due {
            state.looked = Instant::now();
        }
        is_due
    }

    /// Reads the files again if they have changed, or could not be used.
    fn look(&self) {
        let Some(files) = &self.files else { return };
        let stamps = files.stamps();
        let is_new = {
            let state = self.state();
            state.seen != stamps || state.error.is_some()
        };
        if is_new {
            // What is wrong is kept.
            let _ = self.reload();
        }
    }

    fn reload(&self) -> Result<(), Error> {
        let Some(files) = &self.files else { return Ok(()) };
        // Before they are read: what changes while they are is seen the next time.
        let seen = files.stamps();
        let read = files.read();
        let mut state = self.state();
        state.seen = seen;
        match read {
            Ok(key) => {
                state.key = Arc::new(key);
                state.error = None;
                Ok(())
            }
            Err(error) => {
                state.error = Some(error.clone());
                Err(error)
            }
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // Nothing in between two locks can leave it half changed.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl ResolvesServerCert for Certificate {
    fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(Arc::clone(&self.state().key))
    }
}

impl fmt::Debug for Certificate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Certificate").field("files", &self.files).finish_non_exhaustive()
    }
}

/// Where the certificate comes from.
#[derive(Debug)]
struct Files {
    certificate: PathBuf,
    key: PathBuf,
}

/// Time and length of both files; `None` for one that is not there.
type Stamps = [Option<(SystemTime, u64)>; 2];

impl Files {
    fn stamps(&self) -> Stamps {
        [&self.certificate, &self.key].map(|path| {
            let metadata = path.metadata().ok()?;
            Some((metadata.modified().ok()?, metadata.len()))
        })
    }

    fn read(&self) -> Result<CertifiedKey, Error> {
        let read = |path: &Path| {
            std::fs::read(path).map_err(|error| settings(format!("{} cannot be read: {error}", path.display())))
        };
        let (certificate, key) = (read(&self.certificate)?, read(&self.key)?);
        let names = [&self.certificate, &self.key].map(|path| path.display().to_string());
        certified_key(&names[0], &certificate, &names[1], &key)
    }
}

fn certified_key(what: &str, certificate: &[u8], what_key: &str, key: &[u8]) -> Result<CertifiedKey, Error> {
    let chain = certificates(what, certificate)?;
    let key = private_key(what_key, key)?;
    CertifiedKey::from_der(chain, key, &provider())
        .map_err(|error| settings(format!("{what} and {what_key} cannot be used together: {error}")))
}

/// Lets the client read the alert: to drop a socket with unread bytes would reset it, and the alert with it.
async fn linger<S: AsyncRead + AsyncWrite + Unpin>(mut stream: S) {
    let told = async {
        stream.shutdown().await?;
        tokio::io::copy(&mut stream.take(REFUSED), &mut tokio::io::sink()).await
    };
    // Whether it came through changes nothing: the connection is over either way.
    let _ = timeout(LINGER, told).await;
}

/// Between two looks at the files.
const INTERVAL: Duration = Duration::from_secs(30);

/// How long a refused client may take to read why.
const LINGER: Duration = Duration::from_secs(1);

/// Bytes that are read from a refused client.
const REFUSED: u64 = 64 << 10;

#[cfg(test)]
mod tests {
    use tokio::net::{TcpListener, TcpStream};

    use super::super::testing::Authority;
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn the_files_are_looked_at_once_per_interval() {
        let identity = Authority::new().issue("a.example");
        let (certificate, key) = (identity.certificate.as_bytes(), identity.key.as_bytes());
        let certified = || certified_key("", certificate, "", key).unwrap();
        let files = Files { certificate: PathBuf::new(), key: PathBuf::new() };
        let with_files = Certificate::new(Some(files), certified(), Stamps::default());
        let without = Certificate::new(None, certified(), Stamps::default());
        for (seconds, is_due) in [(0, false), (29, false), (2, true), (0, false), (29, false), (1, true)] {
            tokio::time::sleep(Duration::from_secs(seconds)).await;
            assert_eq!(with_files.is_due(INTERVAL), is_due);
            assert!(!without.is_due(INTERVAL));
        }
    }

    // RFC 8446 §6.2: the alert says why; a reset would take it from the client.
    #[tokio::test]
    async fn a_refused_client_can_read_why() {
        let identity = Authority::new().issue("a.example");
        let server = ServerTls::from_pem(identity.certificate.as_bytes(), identity.key.as_bytes()).unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let mut client = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        client.write_all(&b"GET / HTTP/1.1\r\n".repeat(2_000)).await.unwrap();
        let (stream, _) = listener.accept().await.unwrap();
        let reading = async move {
            let mut read = Vec::new();
            client.read_to_end(&mut read).await.map(|_| read)
        };
        let (accepted, read) = tokio::join!(server.accept(stream), reading);
        assert!(accepted.unwrap_err().is_tls());
        // An alert is of content type 21.
        assert_eq!(read.unwrap().first(), Some(&21));
    }
}
