//! The configuration of a route: a path whose WebSockets are told to a backend, event by event.

use std::path::PathBuf;
use std::time::Duration;

use super::fastcgi;
use super::grip::SharedKey;
use super::pattern::Pattern;
use super::signature::Secret;
use crate::address;
use crate::app;

/// A path whose WebSockets are told to a backend, event by event: an application that answers requests and can hold no connection.
///
/// The backend gets each event as a request, and its answer says what is to be done. The answer to the first one decides
/// whether the client is let in, unless [`RouteConfig::auth`] says otherwise.
#[derive(Clone, Debug, PartialEq)]
pub struct RouteConfig {
    /// Names the route to its backend, in the log and in metrics; its path by default.
    pub name: String,
    /// Which paths are this route's: `/chat/{room}`, or `/files/{path...}` for everything below.
    pub path: String,
    /// The app whose channels, users and limits its connections have, by its id.
    pub app: String,
    /// Who is asked.
    pub backend: Backend,
    /// How it is told; [`Form::Plain`] by default.
    pub form: Form,
    /// Who decides whether a client may connect; [`Auth::Backend`] by default.
    pub auth: Auth,
    /// What requests are signed with; the app's first secret by default. In the plain form as Standard Webhooks have it
    /// (`whsec_…`), otherwise a text or `base64:…`.
    pub secret: Option<app::Secret>,
    /// The headers of a client's request that come with each request to the backend, or `*` for all; by default those of
    /// [`RouteConfig::HEADERS`], and all by WebSocket-over-HTTP.
    pub headers: Vec<String>,
    /// What its connections get of what is published in their channels; [`Frames::Event`] by default, and [`Frames::Raw`]
    /// by WebSocket-over-HTTP.
    pub frames: Frames,
    /// Messages of a connection that may go to the backend in one request; 1 by default, and 64 by WebSocket-over-HTTP.
    pub batch: usize,
    /// What becomes of a connection when its backend fails; [`OnError::Close`] by default.
    pub on_error: OnError,
    /// How long the backend may take for one event, the time included for which that waits for its turn; 10 seconds by default.
    pub timeout: Duration,
    /// Events that the backend has at a time; 64 by default, and 8 over FastCGI: fewer than php-fpm has workers (`pm.max_children`).
    pub concurrency: usize,
}

/// How a backend is told what happens.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Form {
    /// One JSON object for each event.
    #[default]
    Plain,
    /// WebSocket-over-HTTP with GRIP, as Pushpin and Fastly's Fanout speak it.
    WebSocketOverHttp,
}

/// Who decides whether a client may connect.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Auth {
    /// The backend, by its answer to the first event. An empty answer lets nobody in.
    #[default]
    Backend,
    /// The server, by the client's JSON Web Token, as the route's app wants it of its other clients
    /// ([`UpgradeAuth::Token`](crate::app::UpgradeAuth::Token)). The backend can still refuse.
    Jwt,
    /// Nobody: every client comes in that the backend does not refuse.
    None,
}

/// Who is asked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Backend {
    /// An address, `http://` or `https://`, to which requests are posted.
    Http {
        /// Where.
        url: String,
    },
    /// A WebSocket server, to which each client has a connection: messages are passed on in both directions.
    WebSocket {
        /// `ws://` or `wss://`; the client's path and query are appended.
        url: String,
    },
    /// A script that php-fpm runs.
    FastCgi {
        /// `fastcgi:///run/php/php-fpm.sock`, or `fastcgi://127.0.0.1:9000`.
        address: String,
        /// The file that php-fpm runs, as it sees it.
        script: PathBuf,
        /// `DOCUMENT_ROOT`; the script's folder by default.
        root: Option<PathBuf>,
    },
}

/// What connections get of an event in one of their channels.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Frames {
    /// `{"channel":…,"event":…,"data":…}`, with data that is JSON as JSON.
    #[default]
    Event,
    /// The data alone, and nothing that the server itself announces.
    Raw,
}

/// What becomes of a connection when its backend has failed an event.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum OnError {
    /// It is closed with a code that says so.
    #[default]
    Close,
    /// It goes on without the event, which is counted and logged.
    Keep,
}

impl RouteConfig {
    /// The headers that a backend gets by default.
    pub const HEADERS: [&'static str; 5] = ["Cookie", "Authorization", "Origin", "User-Agent", "Accept-Language"];

    /// The most that [`RouteConfig::batch`] may be.
    pub const MOST_BATCH: u32 = 64;

    /// A route with the defaults of the plain form, or of a WebSocket server.
    pub fn new(path: impl Into<String>, app: impl Into<String>, backend: Backend) -> Self {
        let path = path.into();
        let concurrency = if matches!(backend, Backend::FastCgi { .. }) { 8 } else { 64 };
        let is_websocket = matches!(backend, Backend::WebSocket { .. });
        let route = Self {
            name: path.clone(),
            path,
            app: app.into(),
            backend,
            form: Form::Plain,
            auth: Auth::default(),
            secret: None,
            headers: Self::HEADERS.map(str::to_owned).to_vec(),
            frames: Frames::default(),
            batch: 1,
            on_error: OnError::default(),
            timeout: Duration::from_secs(10),
            concurrency,
        };
        if is_websocket { route.passing_on() } else { route }
    }

    /// The same with the defaults of those to whom all messages and headers are passed on.
    fn passing_on(self) -> Self {
        let headers = vec!["*".to_owned()];
        Self { headers, frames: Frames::Raw, batch: Self::MOST_BATCH as usize, ..self }
    }

    /// The same with the defaults of this form.
    #[must_use]
    pub fn in_form(self, form: Form) -> Self {
        match form {
            Form::Plain => Self { form, ..self },
            Form::WebSocketOverHttp => Self { form, ..self.passing_on() },
        }
    }

    /// Whether it can be served, as far as that does not depend on the apps.
    ///
    /// # Errors
    /// What is wrong, in words that repeat no secret.
    pub fn check(&self) -> Result<(), String> {
        Pattern::parse(&self.path).map_err(|error| format!("path: {error}"))?;
        match &self.backend {
            Backend::Http { url } => drop(address::parse(url).map_err(|invalid| format!("backend: {invalid}"))?),
            Backend::WebSocket { url } => self.check_websocket(url)?,
            Backend::FastCgi { address, script, .. } => {
                let address = fastcgi::Address::parse(address).map_err(|invalid| format!("backend: {invalid}"))?;
                if !address.is_local() {
                    return Err("backend: whoever reaches php-fpm can run code there, so it has to be on this machine"
                        .to_owned());
                }
                if !script.is_absolute() {
                    return Err("script: the path of the script begins with /".to_owned());
                }
            }
        }
        match (&self.secret, self.form) {
            (Some(secret), Form::Plain) => {
                Secret::parse(secret.reveal()).map_err(|error| format!("secret: {error}"))?;
            }
            (Some(secret), Form::WebSocketOverHttp) => {
                SharedKey::parse(secret.reveal()).ok_or("secret: it is empty, or not what base64: promises")?;
            }
            (None, _) => {}
        }
        if self.name.is_empty() {
            return Err("name: it is empty".to_owned());
        }
        Ok(())
    }

    fn check_websocket(&self, url: &str) -> Result<(), String> {
        let uri = address::parse_websocket(url).map_err(|invalid| format!("backend: {invalid}"))?;
        if uri.query().is_some() {
            return Err("backend: the query is the client's, so the address has none".to_owned());
        }
        if self.form != Form::Plain {
            return Err(format!("form: {NOT_FOR_WEBSOCKETS}"));
        }
        if self.secret.is_some() {
            return Err(format!("secret: {NOT_FOR_WEBSOCKETS}"));
        }
        Ok(())
    }
}

/// Why a route with a WebSocket server has no such setting.
pub(crate) const NOT_FOR_WEBSOCKETS: &str =
    "a backend with ws:// is sent no requests: messages are passed on to it, and its own to the client";
