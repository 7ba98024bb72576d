//! Obtains the server's certificate from a certificate authority, and renews it (ACME, RFC 8555).
//!
//! The authority makes sure that the names lead here by TLS-ALPN-01 (RFC 8737): it connects to port 443, and shards answer
//! with a certificate that [`order`] gives them. [`schedule`] decides when something is done, [`store`] keeps what outlives
//! the process, [`authority`] sends requests, and [`failure`] says what went wrong.

mod authority;
mod failure;
mod order;
mod schedule;
mod store;

use std::convert::Infallible;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use http::Uri;
use httpdate::HttpDate;
use instant_acme::{Account, CertificateIdentifier, RenewalInfo};
use rustls::sign::CertifiedKey;
use taut_shard::tls::Resolver;
use tokio::sync::Notify;
use tokio::time::{sleep, timeout};

use crate::app::Secret;
use crate::certificate::Certificate;
use crate::http::client::Client;
use authority::Authority;
use failure::Failure;
use schedule::{History, Window};
use store::Store;

pub(crate) use store::StoreError;

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
}

/// What is known at the moment.
struct State {
    /// The certificate that is shown.
    current: Option<Certificate>,
    /// When the authority would like it to be renewed.
    window: Option<Window>,
    /// When the authority is asked for that again.
    ask_window_at: SystemTime,
    /// Places the renewal within the time for it.
    drawn: u32,
    /// Orders that have failed in a row.
    failures: u32,
    /// Before that nothing is tried again.
    retry_at: SystemTime,
    history: History,
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
                tracing::warn!(%error, "another certificate takes the place of this one");
                None
            }
            Err(error) => return Err(error),
        };
        let authority = Authority::new(directory, contact, external_account, client);
        Ok(Self { names, port, authority, store, resolver, statistics: Arc::default(), state: State::new(current) })
    }

    /// When the certificate ends that is kept for all of the names; `None` if one is to be ordered first.
    pub(crate) fn expiry(&self) -> Option<HttpDate> {
        let current = self.state.current.as_ref().filter(|current| current.covers(&self.names));
        current.map(|current| HttpDate::from(current.lifetime.end))
    }

    pub(crate) fn statistics(&self) -> Arc<Statistics> {
        Arc::clone(&self.statistics)
    }

    /// Renews the certificate as long as the server runs. `hurry` says that somebody has looked into it: an order that has
    /// failed is tried again, and the authority is asked whether to renew.
    ///
    /// # Cancel safety
    /// What is kept is whole at any moment; an order that was under way is forgotten.
    pub(crate) async fn run(mut self, hurry: Arc<Notify>) -> Infallible {
        self.restore_history().await;
        self.tell_start();
        loop {
            let now = SystemTime::now();
            if self.next_order(now) <= now {
                self.order().await;
            } else if self.next_question(now) <= now {
                self.ask_window().await;
            } else {
                let next = self.next_order(now).min(self.next_question(now));
                // Not all of it at once: the clock may be set, and the machine may have slept.
                let rest = next.duration_since(now).unwrap_or_default().min(LONGEST_SLEEP);
                tokio::select! {
                    () = sleep(rest) => {}
                    () = hurry.notified() => self.hurry(),
                }
            }
        }
    }

    async fn restore_history(&mut self) {
        match self.store.history().await {
            Ok(history) => self.state.history = history.unwrap_or_default(),
            // The first order says so again if it cannot be written either.
            Err(error) => tracing::warn!(%error, "it is not known which orders have failed lately"),
        }
    }

    fn tell_start(&self) {
        let (names, directory, port) = (self.names.join(", "), &self.authority.directory, self.port);
        match self.expiry() {
            Some(expires) => tracing::info!(names, %expires, %directory, "the certificate that is kept is in use"),
            None if self.state.current.is_some() => {
                tracing::warn!(names, %directory, "the certificate that is kept is not for all names: another one is ordered");
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

    /// When the next order may begin.
    fn next_order(&self, now: SystemTime) -> SystemTime {
        let State { current, window, drawn, retry_at, history, .. } = &self.state;
        let wanted = match current {
            Some(current) if current.covers(&self.names) => schedule::renewal(current.lifetime, *window, *drawn),
            _ => UNIX_EPOCH,
        };
        wanted.max(*retry_at).max(history.earliest(now))
    }

    /// When the authority is asked for a window. Not while there is nothing to be renewed.
    fn next_question(&self, now: SystemTime) -> SystemTime {
        if self.state.current.is_some() { self.state.ask_window_at } else { now + LONGEST_SLEEP }
    }

    fn hurry(&mut self) {
        (self.state.failures, self.state.retry_at) = (0, UNIX_EPOCH);
        self.state.ask_window_at = UNIX_EPOCH;
        let now = SystemTime::now();
        let earliest = self.state.history.earliest(now);
        if earliest > now {
            let next = HttpDate::from(earliest);
            let most = schedule::MOST_AN_HOUR;
            tracing::warn!(%next, "no order begins before: {most} have failed within the hour, or the authority named a time");
        }
    }

    /// Tries to obtain a certificate once.
    async fn order(&mut self) {
        let (names, directory) = (self.names.join(", "), self.authority.directory.clone());
        tracing::info!(names, %directory, "a certificate is ordered");
        let obtained = match timeout(LONGEST_ORDER, self.obtain()).await {
            Ok(obtained) => obtained,
            Err(_) => Err(Failure::new("the order took too long", failure::UNREACHABLE)),
        };
        match obtained {
            Ok(certificate) => self.succeed(certificate).await,
            Err(failure) => self.fail(&failure).await,
        }
    }

    async fn obtain(&mut self) -> Result<Arc<CertifiedKey>, Failure> {
        self.state.history.begin(SystemTime::now());
        // What it said of something else.
        self.authority.take_retry_after();
        // First of all: what could not be kept would be ordered again and again.
        self.store.write_history(&self.state.history).await?;
        let account = self.authority.account(&self.store).await?;
        let text = match self.obtain_with(&account).await {
            Err(failure) if failure.is_unknown_account => {
                tracing::warn!(reason = %failure, "the authority does not know the ACME account: another one is made");
                let account = self.authority.new_account(&self.store).await?;
                self.obtain_with(&account).await?
            }
            text => text?,
        };
        let certificate = store::parse_certificate(&text)
            .map_err(|reason| Failure::new(format!("the certificate that was issued cannot be used: {reason}"), ""))?;
        self.check(&certificate)?;
        if let Err(error) = self.store.write_certificate(text).await {
            tracing::error!(%error, "the new certificate is shown, but lost at the next start");
        }
        Ok(certificate)
    }

    async fn obtain_with(&self, account: &Account) -> Result<String, Failure> {
        // RFC 9773 §5: only where the authority has windows, and not again after it has refused that.
        let replaces = self.state.window.filter(|_| self.state.failures == 0).and_then(|_| self.identifier());
        order::obtain(account, &self.resolver, &self.names, replaces).await
    }

    fn identifier(&self) -> Option<CertificateIdentifier<'static>> {
        let certificate = self.resolver.certificate()?;
        CertificateIdentifier::try_from(&certificate).ok().map(CertificateIdentifier::into_owned)
    }

    /// Whether a certificate is what was ordered. One that would be renewed at once would be ordered for ever.
    fn check(&self, certificate: &CertifiedKey) -> Result<(), Failure> {
        let read = certificate.cert.first().and_then(Certificate::read);
        let Some(read) = read.filter(|read| read.covers(&self.names)) else {
            return Err(Failure::new("the certificate that was issued is not for all of the names", ""));
        };
        if schedule::renewal(read.lifetime, None, 0) <= SystemTime::now() {
            let end = HttpDate::from(read.lifetime.end);
            let reason =
                format!("the certificate that was issued ends {end}, which is over or close by this machine's clock");
            return Err(Failure::new(reason, "Set the clock of this machine"));
        }
        Ok(())
    }

    async fn succeed(&mut self, certificate: Arc<CertifiedKey>) {
        self.statistics.issued.fetch_add(1, Ordering::Relaxed);
        self.state.history.succeed();
        let written = self.store.write_history(&self.state.history).await;
        self.state = State { history: self.state.history.clone(), ..State::new(show(&self.resolver, certificate)) };
        if let Err(error) = written {
            tracing::warn!(%error, "the order counts as one that has failed");
        }
        let renewal = HttpDate::from(self.next_order(SystemTime::now()));
        let expires = self.expiry().map(tracing::field::display);
        tracing::info!(names = self.names.join(", "), expires, %renewal, "there is a new certificate");
    }

    async fn fail(&mut self, failure: &Failure) {
        self.statistics.failed.fetch_add(1, Ordering::Relaxed);
        let now = SystemTime::now();
        if let Some(time) = self.authority.take_retry_after() {
            self.state.history.wait_until(time, now);
            // The order itself was written before it began.
            let _ = self.store.write_history(&self.state.history).await;
        }
        self.state.failures += 1;
        self.state.retry_at = now + schedule::backoff(self.state.failures, getrandom::u64().unwrap_or_default());
        let (names, advice) = (self.names.join(", "), failure.advice);
        let next = HttpDate::from(self.next_order(now));
        let current = self.state.current.as_ref();
        let expires = current.map(|current| tracing::field::display(HttpDate::from(current.lifetime.end)));
        if current.is_some_and(|current| !schedule::is_urgent(current.lifetime, now)) {
            tracing::warn!(reason = %failure, advice, names, expires, %next, "the certificate could not be renewed: it stays in use");
        } else {
            tracing::error!(reason = %failure, advice, names, expires, %next, "no certificate could be obtained");
        }
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
        self.state.window = window;
        self.state.ask_window_at = SystemTime::now() + delay;
    }

    async fn renewal_info(&self) -> Option<(RenewalInfo, Duration)> {
        let identifier = self.identifier()?;
        let account = self.authority.account(&self.store).await;
        let account = account.inspect_err(|failure| tracing::debug!(reason = %failure, "no suggestion")).ok()?;
        let info = account.renewal_info(&identifier).await;
        info.inspect_err(|error| tracing::debug!(%error, "no suggestion")).ok()
    }
}

impl State {
    fn new(current: Option<Certificate>) -> Self {
        Self {
            current,
            window: None,
            ask_window_at: UNIX_EPOCH,
            drawn: getrandom::u32().unwrap_or_default(),
            failures: 0,
            retry_at: UNIX_EPOCH,
            history: History::default(),
        }
    }
}

/// Shows a certificate to clients; gives what it says.
fn show(resolver: &Resolver, certificate: Arc<CertifiedKey>) -> Option<Certificate> {
    let read = certificate.cert.first().and_then(Certificate::read);
    resolver.replace(certificate);
    read
}

fn read_window(info: &RenewalInfo) -> Option<Window> {
    let time = |seconds: i64| Some(UNIX_EPOCH + Duration::from_secs(u64::try_from(seconds).ok()?));
    let window = &info.suggested_window;
    Window::new(time(window.start.unix_timestamp())?, time(window.end.unix_timestamp())?)
}

/// Where the authority connects to (RFC 8737 §3).
const HTTPS: u16 = 443;

const LONGEST_SLEEP: Duration = Duration::from_secs(60);

/// When an authority is asked again that made no suggestion: it may learn to.
const WITHOUT_SUGGESTION: Duration = Duration::from_secs(6 * 3600);

/// Authorities take seconds, and ask for minutes at most.
const LONGEST_ORDER: Duration = Duration::from_secs(600);
