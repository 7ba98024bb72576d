//! Obtains the server's certificate from a certificate authority, and renews it (ACME, RFC 8555).
//!
//! The authority makes sure that the names lead here by TLS-ALPN-01 (RFC 8737): it connects to port 443, and shards
//! answer with a certificate that [`order`] gives them. [`state`] and [`schedule`] decide when something is done,
//! [`store`] keeps what outlives the process, [`authority`] sends requests, and [`failure`] says what went wrong.

mod authority;
mod failure;
mod order;
mod schedule;
mod state;
mod store;
#[cfg(test)]
mod tests;

use std::convert::Infallible;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use http::Uri;
use httpdate::HttpDate;
use instant_acme::{CertificateIdentifier, RenewalInfo};
use rustls::sign::CertifiedKey;
use taut_shard::tls::Resolver;
use tokio::sync::Notify;
use tokio::time::{sleep, timeout};

use crate::app::Secret;
use crate::certificate::Certificate;
use crate::http::client::Client;
use authority::{Authority, WITHOUT_SUGGESTION};
use failure::Failure;
use schedule::Window;
use state::{Next, Now, State};
use store::Store;

pub(crate) use store::StoreError;
#[cfg(test)]
pub(crate) use tests::keep_certificate;

/// What certificate to obtain, and from whom.
pub(crate) struct Settings {
    /// The names that it is for, in lower case; at least one.
    pub(crate) names: Vec<String>,
    pub(crate) directory: Uri,
    /// A mail address that the authority may write to.
    pub(crate) contact: Option<String>,
    /// What requests to the authority are sent by: it trusts its certificate.
    pub(crate) client: Client,
    pub(crate) external_account: Option<ExternalAccount>,
    pub(crate) data_directory: PathBuf,
    /// The port where the server listens, which the authority has to reach as 443.
    pub(crate) port: u16,
}

/// An account that somebody has with the authority already (RFC 8555 §7.3.4).
#[derive(Clone)]
pub(crate) struct ExternalAccount {
    pub(crate) id: String,
    pub(crate) key: Vec<u8>,
}

impl ExternalAccount {
    /// Reads the key as authorities give it: base64url, with or without padding. The error does not repeat it.
    pub(crate) fn new(id: &str, key: &Secret) -> Result<Self, String> {
        let text = key.reveal().trim_end_matches('=');
        let key = base64::Engine::decode(&base64::engine::general_purpose::URL_SAFE_NO_PAD, text);
        match key {
            Ok(key) if !key.is_empty() => Ok(Self { id: id.to_owned(), key }),
            _ => Err("the key is not in base64url: copy it as the authority shows it".to_owned()),
        }
    }
}

/// What has come of the orders since the start.
#[derive(Debug, Default)]
pub(crate) struct Statistics {
    issued: AtomicU64,
    failed: AtomicU64,
}

impl Statistics {
    /// How many orders had which outcome.
    pub(crate) fn outcomes(&self) -> [(&'static str, u64); 2] {
        [("issued", &self.issued), ("failed", &self.failed)].map(|(name, count)| (name, count.load(Ordering::Relaxed)))
    }
}

/// Obtains and renews one certificate.
pub(crate) struct Acme {
    names: Vec<String>,
    port: u16,
    authority: Authority,
    store: Store,
    resolver: Resolver,
    statistics: Arc<Statistics>,
    state: State,
    /// The certificate that is shown, while it could not be saved.
    unsaved: Option<String>,
}

impl Acme {
    /// Reads what is kept. A certificate that is kept is shown from now on.
    ///
    /// # Errors
    /// What is kept cannot be read.
    pub(crate) fn new(settings: Settings, resolver: Resolver) -> Result<Self, StoreError> {
        let Settings { names, directory, contact, client, external_account, data_directory, port } = settings;
        let store = Store::new(&data_directory, &directory);
        let current = match store.certificate() {
            Ok(kept) => kept.and_then(|kept| show(&resolver, kept)),
            Err(error) if error.is_damage() => {
                tracing::warn!(%error, "the kept certificate is replaced by a new one");
                None
            }
            Err(error) => return Err(error),
        };
        let authority = Authority::new(directory, contact, external_account, client);
        let state = State::new(current, draw(), Now::read());
        Ok(Self { names, port, authority, store, resolver, statistics: Arc::default(), state, unsaved: None })
    }

    /// When the certificate ends that is kept for all of the names; `None` if one is to be ordered first.
    pub(crate) fn expiry(&self) -> Option<SystemTime> {
        let current = self.state.current.as_ref().filter(|current| current.covers(&self.names));
        current.map(|current| current.lifetime.end)
    }

    #[cfg(test)]
    pub(crate) fn names(&self) -> &[String] {
        &self.names
    }

    pub(crate) fn statistics(&self) -> Arc<Statistics> {
        Arc::clone(&self.statistics)
    }

    /// Renews the certificate as long as the server runs. `hurry` says that somebody has looked into it: an order that
    /// has failed is tried again, and the authority is asked whether to renew.
    ///
    /// # Cancel safety
    /// What is kept is whole at any moment; an order that was under way is forgotten.
    pub(crate) async fn run(&mut self, hurry: &Notify) -> Infallible {
        self.restore().await;
        self.tell_start();
        loop {
            self.retry_saving().await;
            match self.state.next(&self.names, Now::read()) {
                Next::Order => self.order().await,
                Next::Ask => self.ask_window().await,
                Next::Rest(rest) => tokio::select! {
                    () = sleep(rest) => {}
                    () = hurry.notified() => self.hurry(),
                },
            }
        }
    }

    async fn restore(&mut self) {
        match self.store.history().await {
            Ok(history) => self.state.history = history.unwrap_or_default(),
            // The first order says so again if it cannot be written either.
            Err(error) => tracing::warn!(%error, "the record of orders cannot be read"),
        }
        if let Err(error) = self.store.remove_unfinished().await {
            tracing::warn!(%error, "files that were not finished cannot be removed");
        }
    }

    fn tell_start(&self) {
        let (names, directory, port) = (self.names.join(", "), &self.authority.directory, self.port);
        let expires = self.expiry().map(HttpDate::from);
        match expires {
            Some(expires) if self.expiry() <= Some(SystemTime::now()) => {
                let what = "the certificate that is kept has expired: a new one is ordered";
                tracing::warn!(names, %expires, %directory, "{what}");
            }
            Some(expires) => tracing::info!(names, %expires, %directory, "the certificate that is kept is in use"),
            None if self.state.current.is_some() => {
                let what = "the certificate that is kept is not for all names: another one is ordered";
                tracing::warn!(names, %directory, "{what}");
            }
            None => tracing::warn!(
                names,
                %directory,
                "there is no certificate yet: one is ordered, and clients get a TLS alert until it is here"
            ),
        }
        if port != HTTPS {
            tracing::info!(port, "the authority connects to port 443 of each name: it must lead to this port, as TCP");
        }
    }

    fn hurry(&mut self) {
        let now = Now::read();
        self.state.hurry(now);
        let earliest = self.state.history.earliest(now.wall);
        if earliest > now.wall {
            let next = HttpDate::from(earliest);
            let most = schedule::MOST_AN_HOUR;
            tracing::warn!(%next, "no order before `next`: {most} within an hour, or the authority asked to wait");
        }
    }

    /// Tries to obtain a certificate once.
    async fn order(&mut self) {
        let (names, directory) = (self.names.join(", "), self.authority.directory.clone());
        tracing::info!(names, %directory, "a certificate is ordered");
        let obtained = match timeout(LONGEST_ORDER, self.obtain()).await {
            Ok(obtained) => obtained,
            Err(_) => Err(Failure::new("the order took too long", failure::ANOTHER_ORDER)),
        };
        match obtained {
            Ok((text, certificate)) => self.succeed(text, certificate).await,
            Err(failure) => self.fail(&failure).await,
        }
    }

    /// Obtains a certificate for the names: its text, and what was read of it.
    async fn obtain(&mut self) -> Result<(String, Arc<CertifiedKey>), Failure> {
        // What it said of something else.
        self.authority.take_retry_after();
        let text = match self.obtain_by_kept_account().await {
            Err(failure) if failure.is_unknown_account => {
                tracing::warn!(reason = %failure, "the authority does not know the ACME account: another one is made");
                let account = self.authority.new_account(&self.store).await?;
                self.begin().await?;
                // The certificate is another account's: the authority would refuse to replace it (RFC 9773 §5).
                order::obtain(&account, &self.resolver, &self.names, None).await?
            }
            text => text?,
        };
        let certificate = store::parse_certificate(&text)
            .map_err(|reason| Failure::new(format!("the certificate that was issued cannot be used: {reason}"), ""))?;
        let read = certificate.cert.first().and_then(Certificate::read);
        if !read.is_some_and(|read| read.covers(&self.names)) {
            return Err(Failure::new("the certificate that was issued is not for all of the names", ""));
        }
        Ok((text, certificate))
    }

    async fn obtain_by_kept_account(&mut self) -> Result<String, Failure> {
        let account = self.authority.account(&self.store).await?;
        self.begin().await?;
        let replaces = if self.state.may_name_replaced() { self.identifier() } else { None };
        order::obtain(&account, &self.resolver, &self.names, replaces).await
    }

    /// Writes down that an order begins, before it is sent: what could not be kept would be ordered again and again.
    async fn begin(&mut self) -> Result<(), StoreError> {
        self.state.history.begin(SystemTime::now());
        let written = self.store.write_history(&self.state.history).await;
        written.inspect_err(|_| self.state.history.take_back())
    }

    fn identifier(&self) -> Option<CertificateIdentifier<'static>> {
        let certificate = self.resolver.certificate()?;
        CertificateIdentifier::try_from(&certificate).ok().map(CertificateIdentifier::into_owned)
    }

    async fn succeed(&mut self, text: String, certificate: Arc<CertifiedKey>) {
        self.statistics.issued.fetch_add(1, Ordering::Relaxed);
        let now = Now::read();
        let can_be_renewed = self.state.issued(show(&self.resolver, certificate), draw(), now);
        self.save(text).await;
        self.state.history.succeed();
        if let Err(error) = self.store.write_history(&self.state.history).await {
            tracing::warn!(%error, "the record of orders could not be saved");
        }
        let names = self.names.join(", ");
        let expires = self.expiry().map(|end| tracing::field::display(HttpDate::from(end)));
        let renewal = HttpDate::from(now.wall + self.state.until_order(&self.names, now));
        if can_be_renewed {
            tracing::info!(names, expires, %renewal, "there is a new certificate");
        } else {
            let advice = "Set the clock of this machine";
            tracing::error!(
                advice,
                names,
                expires,
                %renewal,
                "there is a new certificate, which is over or close to its end by this machine's clock"
            );
        }
    }

    async fn save(&mut self, text: String) {
        if let Err(error) = self.store.write_certificate(text.clone()).await {
            tracing::error!(%error, "the new certificate is in use but could not be saved");
            self.unsaved = Some(text);
        } else {
            self.unsaved = None;
        }
    }

    /// Saves what could not be saved before: lost at a restart, it would have to be ordered again.
    async fn retry_saving(&mut self) {
        let Some(text) = &self.unsaved else { return };
        match self.store.write_certificate(text.clone()).await {
            Ok(()) => {
                self.unsaved = None;
                tracing::info!("the certificate has been saved");
            }
            Err(error) => tracing::debug!(%error, "the certificate could not be saved yet"),
        }
    }

    async fn fail(&mut self, failure: &Failure) {
        self.statistics.failed.fetch_add(1, Ordering::Relaxed);
        let now = Now::read();
        if let Some(time) = self.authority.take_retry_after().max(failure.not_before) {
            self.state.history.wait_until(time, now.wall);
            // The order itself was written before it began.
            let _ = self.store.write_history(&self.state.history).await;
        }
        self.state.failed(getrandom::u64().unwrap_or_default(), now);
        self.tell_failure(failure, now);
    }

    fn tell_failure(&self, failure: &Failure, now: Now) {
        let (names, advice) = (self.names.join(", "), failure.advice);
        let next = HttpDate::from(now.wall + self.state.until_order(&self.names, now));
        let lifetime = self.state.current.as_ref().map(|current| current.lifetime);
        let expires = lifetime.map(|lifetime| tracing::field::display(HttpDate::from(lifetime.end)));
        let what = match lifetime {
            Some(lifetime) if !schedule::is_urgent(lifetime, now.wall) => {
                let what = "the certificate could not be renewed: it stays in use";
                return tracing::warn!(reason = %failure, advice, names, expires, %next, "{what}");
            }
            Some(lifetime) if lifetime.end > now.wall => "the certificate could not be renewed, and expires soon",
            Some(_) => "the certificate could not be renewed, and has expired",
            None => "no certificate could be obtained",
        };
        tracing::error!(reason = %failure, advice, names, expires, %next, "{what}");
    }

    /// Asks the authority when it would like the certificate to be renewed (RFC 9773).
    async fn ask_window(&mut self) {
        let (window, delay) = match timeout(LONGEST_ORDER, self.renewal_info()).await {
            Ok(Some((info, delay))) => (read_window(&info), schedule::ask_again(delay)),
            Ok(None) | Err(_) => (self.state.window, WITHOUT_SUGGESTION),
        };
        if window != self.state.window {
            tracing::debug!(?window, "the authority suggests when to renew the certificate");
        }
        self.state.answered(window, delay, Now::read());
    }

    async fn renewal_info(&self) -> Option<(RenewalInfo, Duration)> {
        let identifier = self.identifier()?;
        // No account is made or changed for a question that needs none (RFC 9773 §4.1).
        let account = self.authority.kept_account(&self.store).await;
        let account = account.inspect_err(|failure| tracing::debug!(reason = %failure, "no suggestion")).ok()??;
        let info = account.renewal_info(&identifier).await;
        info.inspect_err(|error| tracing::debug!(%error, "no suggestion")).ok()
    }
}

/// Shows a certificate to clients; gives what it says.
fn show(resolver: &Resolver, certificate: Arc<CertifiedKey>) -> Option<Certificate> {
    let read = certificate.cert.first().and_then(Certificate::read);
    resolver.replace(certificate);
    read
}

fn draw() -> u32 {
    getrandom::u32().unwrap_or_default()
}

fn read_window(info: &RenewalInfo) -> Option<Window> {
    let time = |seconds: i64| Some(UNIX_EPOCH + Duration::from_secs(u64::try_from(seconds).ok()?));
    let window = &info.suggested_window;
    Window::new(time(window.start.unix_timestamp())?, time(window.end.unix_timestamp())?)
}

/// Where the authority connects to (RFC 8737 §3).
const HTTPS: u16 = 443;

/// Authorities take seconds, and ask for minutes at most.
const LONGEST_ORDER: Duration = Duration::from_secs(600);
