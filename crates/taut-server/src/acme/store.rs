//! What outlives the process: the account, the certificate with its key, and which orders have failed lately.
//!
//! Each authority has a folder of its own, so that a certificate of a test is never shown as one of production. Every file
//! is replaced as a whole, and only the server's user may read it.

use std::fmt;
use std::fs;
use std::io::{self, ErrorKind, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use http::Uri;
use instant_acme::AccountCredentials;
use rustls::sign::CertifiedKey;
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use taut_shard::tls::Resolver;
use tempfile::NamedTempFile;
use tokio::task::spawn_blocking;

use super::schedule::History;

/// The folder of one authority.
#[derive(Clone, Debug)]
pub(super) struct Store {
    folder: Arc<Path>,
}

/// An account, and what the authority was told of it.
#[derive(Serialize, Deserialize)]
pub(super) struct StoredAccount {
    pub(super) contact: Option<String>,
    pub(super) credentials: AccountCredentials,
}

impl Store {
    /// The folder for this authority in the data directory. It is made when something is first written.
    pub(super) fn new(data_directory: &Path, directory: &Uri) -> Self {
        let [first, second, third, fourth, ..]: [u8; 32] = Sha256::digest(directory.to_string()).into();
        let host = directory.host().unwrap_or_default();
        let host = host.replace(|c: char| !c.is_ascii_alphanumeric() && c != '.' && c != '-', "_");
        let name = format!("{host}-{first:02x}{second:02x}{third:02x}{fourth:02x}");
        Self { folder: data_directory.join("acme").join(name).into() }
    }

    /// The certificate, if there is one. It waits for the disk.
    pub(super) fn certificate(&self) -> Result<Option<Arc<CertifiedKey>>, StoreError> {
        let Some(text) = self.read_file(CERTIFICATE)? else { return Ok(None) };
        let unusable = |reason: String| self.error(CERTIFICATE, Cause::Unusable(reason));
        parse_certificate(&text).map(Some).map_err(unusable)
    }

    /// Puts a certificate and its key in the place of those before: in one file, since they belong together.
    pub(super) async fn write_certificate(&self, text: String) -> Result<(), StoreError> {
        self.write(CERTIFICATE, text).await
    }

    /// Removes what a process has left that was killed while it wrote: such a file may hold a key.
    ///
    /// # Errors
    /// The folder or a file cannot be read or removed.
    pub(super) async fn remove_unfinished(&self) -> Result<(), StoreError> {
        let store = self.clone();
        let removed = move || remove_unfinished(&store.folder).map_err(|error| store.error("", Cause::Write(error)));
        self.without_blocking("", removed).await
    }

    pub(super) async fn account(&self) -> Result<Option<StoredAccount>, StoreError> {
        self.read(ACCOUNT).await
    }

    pub(super) async fn write_account(&self, account: &StoredAccount) -> Result<(), StoreError> {
        self.write_json(ACCOUNT, account).await
    }

    pub(super) async fn history(&self) -> Result<Option<History>, StoreError> {
        self.read(HISTORY).await
    }

    pub(super) async fn write_history(&self, history: &History) -> Result<(), StoreError> {
        self.write_json(HISTORY, history).await
    }

    async fn read<T: DeserializeOwned>(&self, name: &'static str) -> Result<Option<T>, StoreError> {
        let store = self.clone();
        let text = self.without_blocking(name, move || store.read_file(name)).await?;
        // What the parser says is not shown: it may quote the file, and that holds a key.
        let read = |text: String| {
            serde_json::from_str(&text).map_err(|_| self.error(name, Cause::Unusable("it is damaged".to_owned())))
        };
        text.map(read).transpose()
    }

    async fn write_json(&self, name: &'static str, value: &impl Serialize) -> Result<(), StoreError> {
        let text = serde_json::to_string(value).map_err(|error| self.error(name, Cause::Write(error.into())))?;
        self.write(name, text).await
    }

    async fn write(&self, name: &'static str, text: String) -> Result<(), StoreError> {
        let store = self.clone();
        let written = move || {
            replace(&store.folder, name, text.as_bytes()).map_err(|error| store.error(name, Cause::Write(error)))
        };
        self.without_blocking(name, written).await
    }

    async fn without_blocking<T: Send + 'static>(
        &self,
        name: &'static str,
        work: impl FnOnce() -> Result<T, StoreError> + Send + 'static,
    ) -> Result<T, StoreError> {
        let panicked = |_| Err(self.error(name, Cause::Write(io::Error::other("the disk's thread has panicked"))));
        spawn_blocking(work).await.unwrap_or_else(panicked)
    }

    fn read_file(&self, name: &'static str) -> Result<Option<String>, StoreError> {
        match fs::read_to_string(self.folder.join(name)) {
            Ok(text) => Ok(Some(text)),
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
            Err(error) if error.kind() == ErrorKind::InvalidData => {
                Err(self.error(name, Cause::Unusable("it is not text".to_owned())))
            }
            Err(error) => Err(self.error(name, Cause::Read(error))),
        }
    }

    fn error(&self, name: &'static str, cause: Cause) -> StoreError {
        StoreError { path: self.folder.join(name), cause }
    }
}

/// Reads a certificate chain and its key, both in one text of PEM. The error repeats nothing of it.
pub(super) fn parse_certificate(text: &str) -> Result<Arc<CertifiedKey>, String> {
    let chain: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(text.as_bytes()).collect();
    let chain = chain.map_err(|_| "it holds no certificates that can be read")?;
    let key = PrivateKeyDer::from_pem_slice(text.as_bytes()).map_err(|_| "it holds no key that can be read")?;
    Resolver::read(chain, key).map_err(|error| error.to_string())
}

/// Puts a file in the place of another: whoever reads it sees the one or the other, also after the power has failed.
fn replace(folder: &Path, name: &str, content: &[u8]) -> io::Result<()> {
    create_folder(folder)?;
    // Only its owner may read it, from the beginning.
    let mut file = NamedTempFile::with_prefix_in(UNFINISHED, folder)?;
    file.write_all(content)?;
    file.as_file().sync_all()?;
    file.persist(folder.join(name)).map_err(|error| error.error)?;
    // A file's new name is on the disk when its directory is.
    #[cfg(unix)]
    fs::File::open(folder)?.sync_all()?;
    Ok(())
}

fn remove_unfinished(folder: &Path) -> io::Result<()> {
    let entries = match fs::read_dir(folder) {
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(()),
        entries => entries?,
    };
    for entry in entries {
        let entry = entry?;
        if entry.file_name().to_string_lossy().starts_with(UNFINISHED) {
            fs::remove_file(entry.path())?;
        }
    }
    Ok(())
}

fn create_folder(folder: &Path) -> io::Result<()> {
    #[cfg(unix)]
    let new: Vec<&Path> = folder.ancestors().take_while(|folder| !folder.exists()).collect();
    let mut builder = fs::DirBuilder::new();
    builder.recursive(true);
    #[cfg(unix)]
    std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o700);
    builder.create(folder)?;
    // As with a file, a new folder's name is on the disk when the folder above it is.
    #[cfg(unix)]
    for above in new.iter().filter_map(|folder| folder.parent()) {
        let above = if above.as_os_str().is_empty() { Path::new(".") } else { above };
        fs::File::open(above)?.sync_all()?;
    }
    Ok(())
}

/// Why a file cannot be read or written.
#[derive(Debug)]
pub(crate) struct StoreError {
    path: PathBuf,
    cause: Cause,
}

impl StoreError {
    /// Whether the file is there and can be read, and does not hold what it should: another one may take its place.
    pub(super) fn is_damage(&self) -> bool {
        matches!(self.cause, Cause::Unusable(_))
    }
}

#[derive(Debug)]
enum Cause {
    Read(io::Error),
    Write(io::Error),
    Unusable(String),
}

impl fmt::Display for StoreError {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let path = self.path.display();
        match &self.cause {
            Cause::Read(error) => write!(formatter, "{path} cannot be read: {error}"),
            Cause::Write(error) => write!(formatter, "{path} cannot be written: {error}"),
            Cause::Unusable(reason) => write!(formatter, "{path} cannot be used: {reason}"),
        }
    }
}

/// The chain and the key of the certificate.
const CERTIFICATE: &str = "certificate.pem";
const ACCOUNT: &str = "account.json";
const HISTORY: &str = "orders.json";
/// What the name of a file begins with that is being written.
const UNFINISHED: &str = ".new-";

#[cfg(test)]
mod tests {
    use std::time::{Duration, UNIX_EPOCH};

    use super::*;

    fn store() -> (tempfile::TempDir, Store) {
        let folder = tempfile::tempdir().expect("a folder");
        let store = Store::new(&folder.path().join("data"), &Uri::from_static("https://ca.example:14000/dir"));
        (folder, store)
    }

    fn certificate(name: &str) -> String {
        let made = rcgen::generate_simple_self_signed([name.to_owned()]).expect("a certificate");
        made.cert.pem() + &made.signing_key.serialize_pem()
    }

    #[tokio::test]
    async fn a_certificate_is_there_again_and_the_next_takes_its_place() {
        let (_folder, store) = store();
        assert!(store.certificate().expect("no file").is_none());
        for name in ["first.example", "second.example"] {
            store.write_certificate(certificate(name)).await.expect("written");
            let read = store.certificate().expect("a file").expect("a certificate");
            let read = crate::certificate::Certificate::read(&read.cert[0]).expect("a certificate");
            assert_eq!(read.names, [name]);
        }
    }

    #[cfg(unix)]
    #[tokio::test]
    async fn only_the_servers_user_may_read_the_files_and_nothing_else_is_left_there() {
        use std::os::unix::fs::PermissionsExt;
        let (_folder, store) = store();
        store.write_certificate(certificate("a.example")).await.expect("written");
        store.write_history(&History::default()).await.expect("written");
        let mode = |path: &Path| fs::metadata(path).expect("metadata").permissions().mode() & 0o777;
        assert_eq!(mode(&store.folder), 0o700);
        let mut names: Vec<_> =
            fs::read_dir(&store.folder).expect("a folder").map(|file| file.expect("a file").path()).collect();
        names.sort();
        assert_eq!(names, [store.folder.join(CERTIFICATE), store.folder.join(HISTORY)]);
        for name in names {
            assert_eq!(mode(&name), 0o600, "{name:?}");
        }
    }

    #[tokio::test]
    async fn what_a_killed_process_has_left_is_removed_and_nothing_else() {
        let (_folder, store) = store();
        store.remove_unfinished().await.expect("no folder");
        store.write_certificate(certificate("a.example")).await.expect("written");
        fs::write(store.folder.join(".new-AbCdEf"), "half a key").expect("written");
        store.remove_unfinished().await.expect("removed");
        let names: Vec<_> =
            fs::read_dir(&store.folder).expect("a folder").map(|file| file.expect("a file").path()).collect();
        assert_eq!(names, [store.folder.join(CERTIFICATE)]);
    }

    #[tokio::test]
    async fn what_cannot_be_used_or_written_is_named_without_its_content() {
        let (_folder, store) = store();
        let whole = certificate("a.example");
        let (chain, key) = whole.split_at(whole.find("-----BEGIN PRIVATE").expect("a key"));
        let other = certificate("b.example");
        for damaged in [
            "",
            chain,
            key,
            &format!("{chain}{}", &key[..80]),
            &format!("{chain}{}", other.split_at(other.find("-----BEGIN PRIVATE").expect("a key")).1),
        ] {
            store.write_certificate(damaged.to_owned()).await.expect("written");
            let error = store.certificate().expect_err("damaged");
            assert!(error.is_damage(), "{error}");
            let error = error.to_string();
            assert!(error.contains("certificate.pem cannot be used: ") && !error.contains(&key[40..60]), "{error}");
        }
        store.write(ACCOUNT, "{\"key_pkcs8\": \"c2VjcmV0".to_owned()).await.expect("written");
        let error = store.account().await.err().expect("damaged").to_string();
        assert!(error.ends_with("account.json cannot be used: it is damaged"), "{error}");

        fs::write(store.folder.join(CERTIFICATE), [0xff]).expect("written");
        let error = store.certificate().expect_err("no text");
        assert!(error.is_damage() && error.to_string().ends_with("cannot be used: it is not text"), "{error}");

        let blocked = Store { folder: store.folder.join(CERTIFICATE).into() };
        let error = blocked.write_history(&History::default()).await.expect_err("a file is no folder");
        assert!(!error.is_damage() && error.to_string().contains("orders.json cannot be written: "), "{error}");
        let error = blocked.history().await.expect_err("a file is no folder");
        assert!(!error.is_damage() && error.to_string().contains("orders.json cannot be read: "), "{error}");
    }

    // RFC 8555 §7.3.1: with the same key the authority knows the account again.
    #[tokio::test]
    async fn the_account_is_there_again_with_its_key() {
        let (_folder, store) = store();
        let key = rcgen::KeyPair::generate().expect("a key").serialize_der();
        let key_pkcs8 = base64::Engine::encode(&base64::engine::general_purpose::URL_SAFE_NO_PAD, &key);
        let json = format!(r#"{{"id":"https://ca.example/account/1","key_pkcs8":"{key_pkcs8}","directory":null}}"#);
        let credentials = serde_json::from_str(&json).expect("credentials");
        let account = StoredAccount { contact: Some("admin@example.com".to_owned()), credentials };
        store.write_account(&account).await.expect("written");
        let read = store.account().await.expect("a file").expect("an account");
        assert_eq!(read.contact.as_deref(), Some("admin@example.com"));
        assert_eq!(read.credentials.private_key().secret_pkcs8_der(), key);
    }

    #[tokio::test]
    async fn the_history_is_there_again() {
        let (_folder, store) = store();
        assert_eq!(store.history().await.expect("no file"), None);
        let mut history = History::default();
        history.begin(UNIX_EPOCH + Duration::from_secs(1_790_000_000));
        store.write_history(&history).await.expect("written");
        assert_eq!(store.history().await.expect("a file"), Some(history));
    }

    #[test]
    fn each_authority_has_a_folder_of_its_own() {
        let folder = |directory| Store::new(Path::new("/data"), &Uri::from_static(directory)).folder;
        let production = folder("https://acme-v02.api.letsencrypt.org/directory");
        assert!(production.starts_with("/data/acme"), "{production:?}");
        assert!(production.to_string_lossy().contains("acme-v02.api.letsencrypt.org-"), "{production:?}");
        assert_ne!(production, folder("https://acme-v02.api.letsencrypt.org/other"));
    }
}
