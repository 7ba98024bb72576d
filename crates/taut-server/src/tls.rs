//! The certificate that clients are shown: from files that are followed, or obtained by ACME.

use std::convert::Infallible;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use httpdate::HttpDate;
use rustls::{RootCertStore, ServerConfig};
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject;
use taut_shard::tls::{Certificates, Resolver};
use tokio::runtime::Handle;
use tokio::sync::{Mutex, Notify, watch};
use tokio::task::JoinSet;

use crate::acme::{self, Acme, ExternalAccount};
use crate::certificate::Certificate;
use crate::config::{self, Config, ConfigError, Diagnostic};
use crate::http::client::Client;

/// TLS as the configuration has it, ready to be served.
pub(crate) struct Tls {
    pub(crate) config: Arc<ServerConfig>,
    shown: Shown,
    source: Source,
}

enum Source {
    Files(Certificates),
    Acme(Box<Acme>),
}

impl Tls {
    /// Reads the certificate; `None` where TLS is not spoken. It waits for the disk.
    ///
    /// # Errors
    /// What is wrong with the files or the settings.
    pub(crate) fn read(config: &Config) -> Result<Option<Self>, ConfigError> {
        ConfigError::unless_empty(config::acme_mistakes(config))?;
        if let Some(data_directory) = config.data_directory.as_deref().filter(|_| !config.acme.is_empty()) {
            return Self::by_acme(config, data_directory).map(Some);
        }
        let (Some(certificate), Some(key)) = (&config.tls_certificate, &config.tls_key) else { return Ok(None) };
        let certificates = Certificates::from_pem_files(certificate, key).map_err(|error| {
            let setting = if error.path() == key { "tls-key" } else { "tls-certificate" };
            Diagnostic::new(setting, error.to_string())
        })?;
        let following = certificates.clone();
        let shown = Shown { certificate: Arc::new(move || following.certificate()), acme: None };
        Ok(Some(Self { config: certificates.config(), shown, source: Source::Files(certificates) }))
    }

    fn by_acme(config: &Config, data_directory: &Path) -> Result<Self, ConfigError> {
        let resolver = Resolver::new();
        let settings = acme_settings(config, data_directory)?;
        let acme = Acme::new(settings, resolver.clone())
            .map_err(|error| Diagnostic::new("data-directory", error.to_string()))?;
        let tls = resolver.config().map_err(|error| Diagnostic::new("acme", error.to_string()))?;
        let certificate = Arc::new(move || resolver.certificate());
        let shown = Shown { certificate, acme: Some(acme.statistics()) };
        Ok(Self { config: tls, shown, source: Source::Acme(Box::new(acme)) })
    }

    /// A note for `serve --check`.
    pub(crate) fn note(&self) -> Option<String> {
        let Source::Acme(acme) = &self.source else { return None };
        Some(match acme.expiry() {
            Some(end) if end <= SystemTime::now() => format!(
                "the certificate of ACME that is kept in data-directory ended {}: another one is ordered once the \
                 server has started",
                HttpDate::from(end)
            ),
            Some(end) => {
                format!("the certificate of ACME is kept in data-directory, and ends {}", HttpDate::from(end))
            }
            None => "there is no certificate yet: one is ordered once the server has started".to_owned(),
        })
    }

    /// What the metrics tell.
    pub(crate) fn shown(&self) -> Shown {
        self.shown.clone()
    }

    /// Keeps the certificate up to date, on this runtime. `reloaded` tells that somebody wants it to be looked at now,
    /// and `draining` that the server takes no more connections: nothing is ordered then, as the authority could not
    /// connect.
    pub(crate) fn follow(self, runtime: &Handle, reloaded: Arc<Notify>, draining: watch::Receiver<bool>) {
        match self.source {
            Source::Files(certificates) => drop(runtime.spawn(follow_files(certificates, reloaded))),
            Source::Acme(acme) => drop(runtime.spawn(follow_acme(*acme, reloaded, draining))),
        }
    }
}

/// The certificate that clients are shown, and how it was obtained, for the metrics.
#[derive(Clone)]
pub(crate) struct Shown {
    certificate: Arc<dyn Fn() -> Option<CertificateDer<'static>> + Send + Sync>,
    /// Where it is obtained by ACME.
    pub(crate) acme: Option<Arc<acme::Statistics>>,
}

impl Shown {
    /// When the certificate ends; `None` where there is none yet.
    pub(crate) fn expiry(&self) -> Option<SystemTime> {
        (self.certificate)().as_ref().and_then(Certificate::read).map(|certificate| certificate.lifetime.end)
    }
}

fn acme_settings(config: &Config, data_directory: &Path) -> Result<acme::Settings, ConfigError> {
    let client = match &config.acme_ca_root {
        None => Client::new(),
        Some(file) => read_roots(file)
            .and_then(Client::trusting)
            .map_err(|reason| Diagnostic::new("acme-ca-root", format!("{}: {reason}", file.display())))?,
    };
    let external_account = config.acme_eab_kid.as_deref().zip(config.acme_eab_hmac.as_ref());
    let external_account = external_account.map(|(id, key)| ExternalAccount::new(id, key)).transpose();
    let config::AcmeTerms { names, directory, contact } = config::acme_terms(config)?;
    let directory = directory.parse();
    Ok(acme::Settings {
        names,
        directory: directory.map_err(|_| Diagnostic::new("acme-directory", "it is not a URL"))?,
        contact,
        client,
        external_account: external_account.map_err(|reason| Diagnostic::new("acme-eab-hmac", reason))?,
        data_directory: data_directory.to_owned(),
        port: config.listen.port(),
    })
}

fn read_roots(file: &Path) -> Result<RootCertStore, String> {
    let text = std::fs::read(file).map_err(|error| format!("it cannot be read: {error}"))?;
    let certificates: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&text).collect();
    let mut roots = RootCertStore::empty();
    let (added, ignored) = roots.add_parsable_certificates(certificates.unwrap_or_default());
    if added == 0 || ignored > 0 {
        return Err("it must contain PEM certificates and nothing else".to_owned());
    }
    Ok(roots)
}

/// Renews the certificate until the server drains.
async fn follow_acme(acme: Acme, reloaded: Arc<Notify>, mut draining: watch::Receiver<bool>) {
    let acme = Arc::new(Mutex::new(acme));
    let run = || {
        let (acme, reloaded) = (Arc::clone(&acme), Arc::clone(&reloaded));
        async move { acme.lock().await.run(&reloaded).await }
    };
    tokio::select! {
        _ = draining.wait_for(|&is_draining| is_draining) => {}
        () = restart_after_panics(run) => {}
    }
}

/// Runs a task that has no end, and again some time after it has panicked: only clients would notice that a certificate
/// is never renewed.
///
/// # Cancel safety
/// The task ends with it.
async fn restart_after_panics<F: Future<Output = Infallible> + Send + 'static>(task: impl Fn() -> F) {
    loop {
        let mut running = JoinSet::new();
        running.spawn(task());
        let Some(Err(error)) = running.join_next().await else { return };
        if !error.is_panic() {
            return;
        }
        tracing::error!(%error, "the certificate's renewal has failed by a fault in this program, and starts again");
        tokio::time::sleep(AFTER_PANIC).await;
    }
}

/// Looks for a new certificate from time to time, and when it is told to; with a bad one the old one stays.
async fn follow_files(certificates: Certificates, reloaded: Arc<Notify>) {
    let mut interval = tokio::time::interval(FILES_INTERVAL);
    let mut complaint = String::new();
    loop {
        tokio::select! {
            _ = interval.tick() => {}
            () = reloaded.notified() => complaint.clear(),
        }
        let reloading = certificates.clone();
        // It reads from a disk, which may be slow.
        match tokio::task::spawn_blocking(move || reloading.reload()).await {
            Ok(Ok(true)) => tracing::info!("the certificate has been renewed"),
            Ok(Err(error)) if error.to_string() != complaint => {
                complaint = error.to_string();
                tracing::warn!(%error, "the certificate cannot be renewed: it stays the one it was");
                continue;
            }
            Ok(Err(_)) => continue,
            Ok(Ok(false)) | Err(_) => {}
        }
        complaint.clear();
    }
}

/// Between a panic and the next attempt.
const AFTER_PANIC: Duration = Duration::from_secs(60);

/// How often the files of the certificate are looked at.
const FILES_INTERVAL: Duration = Duration::from_secs(10);

#[cfg(test)]
mod tests {
    use std::fs;
    use std::sync::atomic::{AtomicU32, Ordering};
    use std::time::UNIX_EPOCH;

    use rcgen::{CertificateParams, KeyPair, date_time_ymd};
    use tempfile::TempDir;

    use super::*;

    fn files() -> (TempDir, Config) {
        let folder = tempfile::tempdir().expect("a folder");
        let mut params = CertificateParams::new(["a.example".to_owned()]).expect("a name");
        params.not_after = date_time_ymd(2100, 1, 1);
        let key = KeyPair::generate().expect("a key");
        let [certificate, key_file] = ["certificate.pem", "key.pem"].map(|name| folder.path().join(name));
        fs::write(&certificate, params.self_signed(&key).expect("a certificate").pem()).expect("written");
        fs::write(&key_file, key.serialize_pem()).expect("written");
        let config = Config { tls_certificate: Some(certificate), tls_key: Some(key_file), ..Config::default() };
        (folder, config)
    }

    fn by_acme(config: Config, folder: &TempDir) -> Config {
        let data_directory = Some(folder.path().join("data"));
        Config { acme: vec!["a.example".to_owned()], data_directory, tls_certificate: None, tls_key: None, ..config }
    }

    fn refused(config: &Config) -> String {
        Tls::read(config).err().expect("a mistake").to_string()
    }

    #[test]
    fn the_end_of_a_certificate_from_files_is_known() {
        let (_folder, config) = files();
        let shown = Tls::read(&config).expect("files").expect("TLS").shown();
        assert_eq!(shown.expiry(), Some(UNIX_EPOCH + Duration::from_secs(4_102_444_800)));
        assert!(shown.acme.is_none());
        assert!(Tls::read(&Config::default()).expect("nothing is wrong").is_none());
    }

    #[test]
    fn a_certificate_of_acme_is_awaited_and_nothing_is_written_before() {
        let (folder, config) = files();
        let config = by_acme(config, &folder);
        let tls = Tls::read(&config).expect("settings").expect("TLS");
        assert!(tls.note().expect("a note").contains("there is no certificate yet"));
        assert_eq!(tls.shown().expiry(), None);
        assert!(tls.shown().acme.expect("orders").outcomes().iter().all(|(_, count)| *count == 0));
        assert!(!folder.path().join("data").exists());
    }

    #[tokio::test]
    async fn an_expired_certificate_is_not_announced_as_in_use() {
        let (folder, config) = files();
        let mut params = CertificateParams::new(["a.example".to_owned()]).expect("a name");
        params.not_after = date_time_ymd(2020, 1, 1);
        let key = KeyPair::generate().expect("a key");
        let text = params.self_signed(&key).expect("a certificate").pem() + &key.serialize_pem();
        let config = by_acme(config, &folder);
        acme::keep_certificate(&config.acme_directory, config.data_directory.as_deref().expect("set"), text).await;
        let note = Tls::read(&config).expect("settings").expect("TLS").note().expect("a note");
        assert!(note.contains("ended Wed, 01 Jan 2020") && note.contains("another one is ordered"), "{note}");
    }

    #[tokio::test(start_paused = true)]
    async fn a_task_that_panics_is_started_again_and_ends_with_the_drain() {
        let starts = Arc::new(AtomicU32::new(0));
        let counted = Arc::clone(&starts);
        let task = move || {
            let start = counted.fetch_add(1, Ordering::Relaxed);
            async move {
                assert!(start > 1, "a fault");
                std::future::pending::<Infallible>().await
            }
        };
        let within = |seconds| tokio::time::timeout(Duration::from_secs(seconds), restart_after_panics(&task));
        assert!(within(59).await.is_err());
        assert_eq!(starts.load(Ordering::Relaxed), 1);
        assert!(within(1000).await.is_err(), "it goes on");
        assert_eq!(starts.load(Ordering::Relaxed), 3);
    }

    #[tokio::test(start_paused = true)]
    async fn nothing_is_ordered_while_the_server_drains() {
        let (folder, config) = files();
        let tls = Tls::read(&by_acme(config, &folder)).expect("settings").expect("TLS");
        let Source::Acme(acme) = tls.source else { panic!("it is by ACME") };
        let (draining, is_draining) = watch::channel(true);
        follow_acme(*acme, Arc::default(), is_draining).await;
        drop(draining);
        assert!(!folder.path().join("data").exists(), "no order was begun");
    }

    #[test]
    fn roots_of_an_authority_must_be_certificates() {
        let (folder, files) = files();
        let config = by_acme(files.clone(), &folder);
        let with = |file| Config { acme_ca_root: file, ..config.clone() };
        assert!(Tls::read(&with(files.tls_certificate.clone())).is_ok());
        assert!(refused(&with(files.tls_key)).contains("acme-ca-root: "), "a key");
        assert!(refused(&with(Some(folder.path().join("none.pem")))).contains("none.pem: it cannot be read"));
    }

    #[test]
    fn settings_that_were_put_together_by_a_program_are_checked_too() {
        let (folder, files) = files();
        let config = by_acme(files.clone(), &folder);
        assert!(refused(&Config { data_directory: None, ..config.clone() }).contains("data-directory is not"));
        assert!(
            refused(&Config { tls_certificate: files.tls_certificate, ..config.clone() })
                .contains("leave one of them out")
        );
        let directory = |url: &str| refused(&Config { acme_directory: url.to_owned(), ..config.clone() });
        let told = directory("no URL");
        assert!(told.contains("acme-directory: ") && told.contains("is not an ACME directory"), "{told}");
        // RFC 8555 §6.1.
        assert!(directory("http://ca.example/directory").contains("begins with https://"));
        assert!(
            refused(&Config { acme: vec!["*.example".to_owned()], ..config.clone() }).contains("acme: \"*.example\"")
        );
        let contact = Config { acme_contact: Some("nobody".to_owned()), ..config.clone() };
        assert!(refused(&contact).contains("acme-contact: "));
        let upper = Config { acme: vec!["A.Example.".to_owned()], acme_directory: "staging".to_owned(), ..config };
        let Source::Acme(acme) = Tls::read(&upper).expect("settings").expect("TLS").source else { panic!("by ACME") };
        assert_eq!(acme.names(), ["a.example"]);
    }
}
