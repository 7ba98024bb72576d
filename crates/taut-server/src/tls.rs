//! The certificate that clients are shown: from files that are followed, or obtained by ACME.

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use rustls::{RootCertStore, ServerConfig};
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject;
use taut_shard::tls::{Certificates, Resolver};
use tokio::runtime::Handle;
use tokio::sync::Notify;

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

    /// What whoever checks the configuration should know.
    pub(crate) fn note(&self) -> Option<String> {
        let Source::Acme(acme) = &self.source else { return None };
        Some(match acme.expiry() {
            Some(end) => format!("the certificate of ACME is kept in data-directory, and ends {end}"),
            None => "there is no certificate yet: one is ordered once the server has started".to_owned(),
        })
    }

    /// What the metrics tell.
    pub(crate) fn shown(&self) -> Shown {
        self.shown.clone()
    }

    /// Keeps the certificate up to date, on this runtime. `reloaded` tells that somebody wants it to be looked at now.
    pub(crate) fn follow(self, runtime: &Handle, reloaded: Arc<Notify>) {
        match self.source {
            Source::Files(certificates) => drop(runtime.spawn(follow_files(certificates, reloaded))),
            Source::Acme(acme) => drop(runtime.spawn(acme.run(reloaded))),
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
    let directory = config.acme_directory.parse();
    Ok(acme::Settings {
        names: config.acme.clone(),
        directory: directory.map_err(|_| Diagnostic::new("acme-directory", "it is no URL"))?,
        contact: config.acme_contact.clone(),
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
        return Err("it must hold certificates in PEM, and nothing that is none".to_owned());
    }
    Ok(roots)
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

/// How often the files of the certificate are looked at.
const FILES_INTERVAL: Duration = Duration::from_secs(10);

#[cfg(test)]
mod tests {
    use std::fs;
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
        assert!(refused(&Config { acme_directory: "no URL".to_owned(), ..config }).contains("acme-directory"));
    }
}
