//! Pusher's HTTP API, as a client.

use std::fs;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde_json::Value;
use taut::tls::rustls;
use taut_pusher::auth::SigningKey;
use taut_pusher::request::Request;
use ureq::tls::{Certificate, PemItem, RootCerts, TlsConfig, parse_pem};
use ureq::{Agent, Proxy, ProxyProtocol, http};

use crate::app::App;
use crate::dial::duration;
use crate::exit::Exit;
use crate::output::{self, printable};

/// The arguments that say how to reach the API, for `#[command(flatten)]`.
#[derive(clap::Args)]
#[allow(clippy::doc_markdown)] // These comments are the help, which is not Markdown.
pub(crate) struct ApiArguments {
    /// Connect through a proxy: http://, https://, socks5:// or socks5h://, with user:password@ if it asks for them;
    /// by default the one that the environment names
    #[arg(long, value_name = "URL", conflicts_with = "no_proxy", help_heading = "Network")]
    proxy: Option<String>,

    /// Connect directly, whatever the environment says
    #[arg(long, help_heading = "Network")]
    no_proxy: bool,

    /// How long a request may take
    #[arg(long, value_name = "DURATION", default_value = "10s", value_parser = duration, help_heading = "Network")]
    timeout: Duration,

    /// Trust the roots in this PEM file instead of the system's
    #[arg(long, value_name = "FILE", conflicts_with = "insecure", help_heading = "TLS")]
    cacert: Option<PathBuf>,

    /// Accept any certificate; anyone on the network path can then read and change everything
    #[arg(short = 'k', long, help_heading = "TLS")]
    insecure: bool,
}

/// The HTTP API of an app.
pub(crate) struct Api {
    agent: Agent,
    app: App,
    key: SigningKey,
    timeout: Duration,
}

/// Why a command did not get what it asked for.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Failure {
    pub(crate) exit: Exit,
    /// For people; what strangers wrote in it is printable.
    pub(crate) reason: String,
}

impl Failure {
    /// Something on the command line is wrong.
    pub(crate) fn usage(reason: impl Into<String>) -> Self {
        Self { exit: Exit::Usage, reason: reason.into() }
    }

    pub(crate) fn new(exit: Exit, reason: impl Into<String>) -> Self {
        Self { exit, reason: reason.into() }
    }

    /// Prints what went wrong, if anything did; gives the exit code.
    pub(crate) fn report(outcome: Result<Exit, Self>) -> Exit {
        outcome.unwrap_or_else(|Self { exit, reason }| {
            output::fail(reason);
            exit
        })
    }
}

impl Api {
    /// # Errors
    /// An argument cannot be used, or the app lacks what requests need.
    pub(crate) fn new(app: App, arguments: &ApiArguments) -> Result<Self, Failure> {
        let key = app.signing_key().map_err(Failure::usage)?;
        app.path("").map_err(Failure::usage)?;
        let proxy = arguments.proxy(&app)?;
        let is_tls = app.is_tls() || proxy.as_ref().is_some_and(|proxy| proxy.protocol() == ProxyProtocol::Https);
        let config = Agent::config_builder()
            .http_status_as_error(false)
            .max_redirects(0)
            .max_redirects_will_error(false)
            .user_agent(concat!("taut/", env!("CARGO_PKG_VERSION")))
            .timeout_global(Some(arguments.timeout))
            .proxy(proxy)
            .tls_config(arguments.tls(is_tls)?);
        Ok(Self { agent: config.build().new_agent(), app, key, timeout: arguments.timeout })
    }

    /// Asks for a resource, such as `channels`.
    ///
    /// # Errors
    /// The server could not be reached, or refused the request.
    pub(crate) fn get(&self, resource: &str, parameters: &[(&str, &str)]) -> Result<Value, Failure> {
        let url = self.signed_url("GET", resource, parameters, b"")?;
        self.answer(self.agent.get(url).call())
    }

    /// Sends JSON to a resource, such as `events`.
    ///
    /// # Errors
    /// As [`get`](Self::get).
    pub(crate) fn post(&self, resource: &str, json: &str) -> Result<Value, Failure> {
        let url = self.signed_url("POST", resource, &[], json.as_bytes())?;
        self.answer(self.agent.post(url).content_type("application/json").send(json)).map_err(|failure| {
            if failure.exit != Exit::TimedOut {
                return failure;
            }
            Failure { reason: format!("{}; the event may have been published", failure.reason), ..failure }
        })
    }

    fn signed_url(
        &self,
        method: &str,
        resource: &str,
        parameters: &[(&str, &str)],
        body: &[u8],
    ) -> Result<String, Failure> {
        let path = self.app.path(resource).map_err(Failure::usage)?;
        let key = self.app.key().map_err(Failure::usage)?;
        let signed = Request { method, path: &path, parameters, body }.sign(key, &self.key, now());
        Ok(format!("{}{path}?{}", self.app.origin(), signed.query))
    }

    fn answer(&self, sent: Result<http::Response<ureq::Body>, ureq::Error>) -> Result<Value, Failure> {
        let mut response = sent.map_err(|error| self.unanswered(&error))?;
        let status = response.status();
        let body = response.body_mut().with_config().limit(LONGEST_ANSWER).read_to_string();
        let body = body.map_err(|error| self.unanswered(&error))?;
        if status.is_success() {
            let no_json = |_| Failure::new(Exit::Failed, format!("{} does not answer with JSON", self.app.origin()));
            return serde_json::from_str(&body).map_err(no_json);
        }
        let location = response.headers().get(http::header::LOCATION).and_then(|value| value.to_str().ok());
        Err(self.refused(status, &body, location))
    }

    fn refused(&self, status: http::StatusCode, body: &str, location: Option<&str>) -> Failure {
        if status.is_redirection() {
            let to = location.map(printable).unwrap_or_default();
            let reason =
                format!("the server answers with a redirect to {to}, which is not followed: give that address");
            return Failure::new(Exit::Failed, reason);
        }
        let said = serde_json::from_str::<Value>(body).ok();
        let said = said.as_ref().and_then(|json| json["error"].as_str()).unwrap_or(body).trim();
        let said: String = printable(said).chars().take(LONGEST_EXPLANATION).collect();
        let key = self.app.key().unwrap_or_default();
        let meaning = match status.as_u16() {
            401 if said.contains("Timestamp expired") => {
                "the clocks of this machine and of the server differ".to_owned()
            }
            401 if said.contains("Unknown auth_key") => format!("the app has no key \"{key}\""),
            401 if said.contains("Invalid signature") => {
                format!("the secret is not that of the key \"{key}\", or a proxy changed the path or the query")
            }
            404 => "the app does not exist, or this server does not speak the Pusher protocol".to_owned(),
            429 => "too many requests".to_owned(),
            _ => String::new(),
        };
        let (exit, verb) = if status.is_client_error() { (Exit::Refused, "refused") } else { (Exit::Failed, "failed") };
        let words: Vec<_> = [meaning, said].into_iter().filter(|words| !words.is_empty()).collect();
        let colon = if words.is_empty() { "" } else { ": " };
        Failure::new(exit, format!("the server {verb} with {}{colon}{}", status.as_u16(), words.join(". It said: ")))
    }

    fn unanswered(&self, error: &ureq::Error) -> Failure {
        use ureq::Error as Cause;
        let origin = self.app.origin();
        let exit = match error {
            Cause::Tls(_) | Cause::Rustls(_) | Cause::Pem(_) => Exit::Tls,
            // TLS over a stream tells of it by an I/O error.
            Cause::Io(error) if is_of_tls(error) => Exit::Tls,
            Cause::ConnectProxyFailed(_) | Cause::InvalidProxyUrl => Exit::Proxy,
            Cause::BadUri(_) | Cause::Http(_) => Exit::Usage,
            Cause::Protocol(_) => Exit::Protocol,
            Cause::BodyExceedsLimit(_) => Exit::TooBig,
            Cause::Timeout(_) => Exit::TimedOut,
            _ => Exit::Unreachable,
        };
        let error = match error {
            Cause::Io(error) => error.to_string(),
            Cause::Timeout(_) => format!("no answer within {} s (--timeout)", self.timeout.as_secs_f64()),
            error => error.to_string(),
        };
        let hint = if error.contains("CaUsedAsEndEntity") { SELF_SIGNED } else { "" };
        Failure::new(exit, printable(&format!("{origin}: {error}{hint}")))
    }
}

impl ApiArguments {
    fn proxy(&self, app: &App) -> Result<Option<Proxy>, Failure> {
        match &self.proxy {
            Some(url) => {
                Proxy::new(url).map(Some).map_err(|_| Failure::usage("--proxy: this is not the URL of a proxy"))
            }
            // As the library does it: what is on this machine is behind no proxy.
            None if self.no_proxy || app.is_local() => Ok(None),
            None => Ok(Proxy::try_from_env()),
        }
    }

    fn tls(&self, is_used: bool) -> Result<TlsConfig, Failure> {
        let roots = match &self.cacert {
            // Reading the system's roots takes time, and not every system has them.
            _ if self.insecure || !is_used => Vec::new(),
            Some(path) => roots_in(path).map_err(|wrong| Failure::usage(format!("--cacert: {wrong}")))?,
            None => {
                let system = rustls_native_certs::load_native_certs().certs;
                system.into_iter().map(|root| Certificate::from_der(&root).to_owned()).collect()
            }
        };
        Ok(TlsConfig::builder()
            .root_certs(RootCerts::new_with_certs(&roots))
            .disable_verification(self.insecure)
            .unversioned_rustls_crypto_provider(Arc::new(rustls::crypto::ring::default_provider()))
            .build())
    }
}

fn is_of_tls(error: &io::Error) -> bool {
    matches!(error.get_ref(), Some(source) if source.is::<rustls::Error>())
}

fn roots_in(path: &PathBuf) -> Result<Vec<Certificate<'static>>, String> {
    let pem = fs::read(path).map_err(|error| format!("{} cannot be read: {error}", path.display()))?;
    let items: Result<Vec<_>, _> = parse_pem(&pem).collect();
    let items = items.map_err(|error| format!("{}: {error}", path.display()))?;
    let roots: Vec<_> = items
        .into_iter()
        .filter_map(|item| match item {
            PemItem::Certificate(root) => Some(root),
            _ => None,
        })
        .collect();
    if roots.is_empty() { Err(format!("there is no certificate in {}", path.display())) } else { Ok(roots) }
}

/// Seconds since 1970.
pub(crate) fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs()
}

const SELF_SIGNED: &str =
    "; this certificate has issued itself: requests need one that an authority has issued, or --insecure";

/// Bytes; the members of a very large presence channel.
const LONGEST_ANSWER: u64 = 16 << 20;

/// Characters of what a server says.
const LONGEST_EXPLANATION: usize = 600;

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;
    use crate::app::AppArguments;

    #[derive(Parser)]
    struct Line {
        #[command(flatten)]
        app: AppArguments,
        #[command(flatten)]
        api: ApiArguments,
    }

    fn api(more: &[&str]) -> Api {
        let line = ["api", "--app", "7:the-key:the-secret", "--timeout", "1.5s"];
        let Line { app, api } = Line::try_parse_from([&line[..], more].concat()).expect("a good line");
        Api::new(app.resolve().expect("an app"), &api).expect("good arguments")
    }

    fn refused(status: u16, body: &str) -> String {
        let status = http::StatusCode::from_u16(status).expect("a status");
        api(&[]).refused(status, body, Some("https://b.example/\u{1b}")).reason
    }

    #[test]
    fn a_refusal_blames_the_secret_only_if_the_server_does() {
        let wrong = refused(401, r#"{"error":"Invalid signature: you should have"}"#);
        assert_eq!(
            wrong,
            "the server refused with 401: the secret is not that of the key \"the-key\", or a proxy changed the path or \
             the query. It said: Invalid signature: you should have"
        );
        for (status, body, words) in [
            (
                401,
                r#"{"error":"Missing query parameter: body_md5"}"#,
                "refused with 401: Missing query parameter: body_md5",
            ),
            (
                401,
                r#"{"error":"Unknown auth_key"}"#,
                "refused with 401: the app has no key \"the-key\". It said: Unknown",
            ),
            (401, "", "refused with 401"),
            (400, "no\u{1b}", "refused with 400: no\\e"),
            (429, "", "refused with 429: too many requests"),
            (500, "oh", "failed with 500: oh"),
            (502, " ", "failed with 502"),
            (301, "", "answers with a redirect to https://b.example/\\e, which is not followed"),
        ] {
            let told = refused(status, body);
            assert!(told.starts_with(&format!("the server {words}")), "{told}");
            assert!(!told.ends_with(": ") && !told.contains("the secret"), "{told}");
        }
    }

    #[test]
    fn what_brought_no_answer_is_told_with_its_exit_code() {
        use ureq::Error;
        let unanswered = |error| {
            let Failure { exit, reason } = api(&[]).unanswered(&error);
            (exit, reason)
        };
        let told = |words: &str| format!("http://127.0.0.1:6001: {words}");
        let late = Error::Timeout(ureq::Timeout::Global);
        assert_eq!(unanswered(late), (Exit::TimedOut, told("no answer within 1.5 s (--timeout)")));
        let gone = Error::Io(io::Error::new(io::ErrorKind::ConnectionRefused, "nobody listens"));
        assert_eq!(unanswered(gone), (Exit::Unreachable, told("nobody listens")));
    }

    #[test]
    fn a_proxy_is_one_of_those_that_the_help_names() {
        for scheme in ["http", "https", "socks5", "socks5h"] {
            api(&["--insecure", "--proxy", &format!("{scheme}://me:pw@127.0.0.1:1")]);
        }
        let line = Line::try_parse_from(["api", "--proxy", "ftp://me:pw@127.0.0.1:1"]).expect("a good line");
        let wrong = line.api.proxy(&line.app.resolve().expect("an app")).expect_err("no proxy");
        assert!(wrong.reason.starts_with("--proxy: ") && !wrong.reason.contains("pw"), "{}", wrong.reason);
    }
}
