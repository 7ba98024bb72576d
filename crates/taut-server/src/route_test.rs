//! Plays one connection of a route against its backend, without a server: for people who write backends.
//!
//! Requests and answers are made, sent and read by the code that serves routes. Nothing is carried out; it is said what
//! would be.

mod relayed;

use std::fmt::{self, Write as _};
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, Instant};

use serde_json::value::RawValue;
use taut::WebSocket;
use taut_proto::handshake::{ClientRequest, HeadLimits, Refusal, Request as Handshake, Version};

use crate::apps::{App, Apps};
use crate::config::{Config, ConfigError, Diagnostic};
use crate::connect_auth::{self, ConnectAuth, Denied};
use crate::gateway::event::{self, Acceptance, Answer, Event, Step, Target};
use crate::gateway::grip::{self, Control};
use crate::gateway::{
    self, Asker, Attempt, Auth, Conversation, Failure, Form, Head, Job, Judged, Kept, Note, OnError, Outcome, Route,
    Routes, Transport, Tried, Whose, kept_of,
};
use crate::http::client::Client as HttpClient;
use crate::place::ShardIndex;
use crate::pusher::hex;
use crate::pusher::socket_id::SocketId;
use crate::shard::{check_origin, check_subscription, publication};

/// The client that is played.
#[derive(Clone, Debug, Default)]
pub struct Client {
    /// The path with its query, percent-encoded.
    pub target: String,
    /// Names and values, beside those of every WebSocket.
    pub headers: Vec<(String, String)>,
    /// The subprotocols that it offers.
    pub protocols: Vec<String>,
}

/// What happens on the connection.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Happening {
    /// A text message.
    Text(String),
    /// A binary message.
    Binary(Vec<u8>),
    /// The backend's timer.
    Timer,
}

/// One connection of a route that is played against its backend.
#[derive(Debug)]
pub struct RouteTest {
    client: HttpClient,
    app: Arc<App>,
    route: Arc<Route>,
    head: Arc<Head>,
    connection: SocketId,
    conversation: Conversation,
    /// The connection to a backend that has WebSockets of its own.
    socket: Option<WebSocket>,
    state: State,
    left_out: Vec<String>,
    refusal: Option<String>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Opening,
    Refused,
    Open,
    /// The server would have closed it, or would tell the backend nothing more.
    Over,
}

/// One event: what the backend was sent, what it answered, and what the server would make of that.
#[derive(Clone, Debug)]
pub struct Exchange {
    /// `open`, `text`, `binary`, `timer` or `close`.
    pub event: &'static str,
    /// What the backend was sent.
    pub request: Request,
    /// What it answered, unless nothing came.
    pub reply: Option<Reply>,
    /// How long that took.
    pub took: Duration,
    /// What a script wrote to its error log.
    pub stderr: String,
    /// What the server makes of it.
    pub verdict: Verdict,
    /// What it would do, in its order.
    pub does: Vec<String>,
    /// What it would leave out, in the words of the log.
    pub left_out: Vec<String>,
    /// Why the answer cannot be carried out, in the words of the log.
    pub why: Option<String>,
    /// The server would send the event again.
    pub again: Option<String>,
}

/// A request to the backend.
#[derive(Clone, Debug)]
pub struct Request {
    /// `POST`, or `GET` for a backend's WebSocket; empty for a message on that, which has a body alone.
    pub method: &'static str,
    /// Where it goes; the query of a configured address is left out.
    pub address: String,
    /// Over FastCGI: the script.
    pub script: Option<String>,
    /// In the order in which they are sent.
    pub headers: Vec<(String, String)>,
    /// The event.
    pub body: Body,
}

/// An answer of the backend.
#[derive(Clone, Debug)]
pub struct Reply {
    /// The status.
    pub status: u16,
    /// All that are text, in the backend's order.
    pub headers: Vec<(String, String)>,
    /// What it says.
    pub body: Body,
}

/// A body, as far as it can be read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Body {
    /// JSON, as it was written.
    Json(String),
    /// WebSocket-over-HTTP: a line for each event, with binary messages as hexadecimal digits.
    Events(Vec<String>),
    /// Text.
    Text(String),
    /// Anything else.
    Binary(Vec<u8>),
}

/// What the server makes of an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It can be carried out.
    CarriedOut,
    /// The backend does not let the client in.
    Refused,
    /// There is none that could be carried out.
    Failed,
}

/// Why a connection cannot be played.
#[derive(Debug)]
pub enum RouteTestError {
    /// The configuration cannot be used.
    Config(ConfigError),
    /// No route has this path.
    NoRoute {
        /// The path.
        path: String,
        /// The paths of the routes that there are.
        routes: Vec<String>,
    },
    /// No client could send this.
    Client(String),
}

impl RouteTest {
    /// Prepares a connection of the route whose path the client asks for. The backend is not asked yet; for a route that
    /// wants tokens, published keys are fetched.
    ///
    /// # Errors
    /// When the configuration cannot be used, has no such route, or no client could send this.
    ///
    /// # Cancel safety
    /// Nothing is left behind when it is dropped.
    pub async fn new(config: &Config, client: &Client) -> Result<Self, RouteTestError> {
        let apps = config.collect_apps().map_err(RouteTestError::Config)?;
        let routes = routes(config, &apps).map_err(RouteTestError::Config)?;
        let bytes = handshake(config, client)?;
        let unusable = |refusal: Refusal| RouteTestError::Client(body_of(&refusal));
        let request = Handshake::parse(&bytes, &HeadLimits::default()).map_err(unusable)?;
        let Some((route, params)) = routes.find(request.path()) else {
            let routes = routes.all().map(|route| route.path().to_owned()).collect();
            return Err(RouteTestError::NoRoute { path: request.path().to_owned(), routes });
        };
        let app = route.app(&apps).ok_or_else(|| RouteTestError::Client("the route's app is not served".to_owned()))?;
        let transport = Transport::WebSocket;
        let passes = |name: &str| route.passes(name, transport);
        let (local, is_secure) = (Ipv4Addr::LOCALHOST, config.speaks_tls());
        let head =
            Head::new(&request, SocketAddr::from((local, 0)), local.into(), is_secure, passes, params, transport);
        let is_sent = |name: &str| {
            name.eq_ignore_ascii_case("host") || head.headers.iter().any(|(sent, _)| sent.eq_ignore_ascii_case(name))
        };
        let left_out = client.headers.iter().map(|(name, _)| name).filter(|name| !is_sent(name)).cloned().collect();
        let http = HttpClient::new().offering_http2();
        let (mut conversation, mut state) = (Conversation::new(), State::Opening);
        let mut refusal = check_origin(&route, &app.snapshot().config.origins, &request).err();
        match identify(&http, &app, &route, &request).await {
            Ok(kept) => conversation.keep(kept),
            // There is nothing true that the backend could be told.
            Err(denied) => (refusal, state) = (refusal.or(Some(denied.refusal)), State::Refused),
        }
        let mut random = [0; 16];
        getrandom::fill(&mut random).map_err(|error| RouteTestError::Client(error.to_string()))?;
        Ok(Self {
            client: http,
            app,
            route,
            head: Arc::new(head),
            connection: SocketId::from_random(random),
            conversation,
            socket: None,
            state,
            left_out,
            refusal: refusal.map(|refusal| format!("{}: {}", refusal.status(), body_of(&refusal))),
        })
    }

    /// The route's name.
    pub fn route(&self) -> &str {
        self.route.name()
    }

    /// The client's headers that the route does not pass on.
    pub fn left_out(&self) -> &[String] {
        &self.left_out
    }

    /// The status and the words with which the server would refuse the client before it asks the backend. Without a good
    /// token, where the route wants one, there is nothing to be played.
    pub fn refusal(&self) -> Option<&str> {
        self.refusal.as_deref()
    }

    /// Whether the backend has let the client in.
    pub fn was_let_in(&self) -> bool {
        matches!(self.state, State::Open | State::Over)
    }

    /// Whether the connection is open: the backend has let the client in, and the server would not have closed it.
    pub fn is_open(&self) -> bool {
        self.state == State::Open
    }

    /// Asks the backend to let the client in.
    ///
    /// # Cancel safety
    /// Dropped midway, the backend may have got the event or not, and the connection is not to be used any more.
    pub async fn open(&mut self) -> Option<Exchange> {
        match self.state {
            State::Opening if self.route.is_relayed() => self.dial().await,
            State::Opening => self.ask().await,
            _ => None,
        }
    }

    /// Tells the backend what happens; nothing, if the connection is not open.
    ///
    /// # Cancel safety
    /// As with [`open`](Self::open).
    pub async fn tell(&mut self, happening: Happening) -> Option<Exchange> {
        if self.state != State::Open {
            return None;
        }
        if self.route.is_relayed() {
            return self.pass_on(happening).await;
        }
        self.conversation.push(match happening {
            Happening::Text(text) => Event::Text(text.into()),
            Happening::Binary(bytes) => Event::Binary(bytes.into()),
            Happening::Timer => Event::Timer,
        });
        self.ask().await
    }

    /// Tells the backend that the connection is over: by the client with this code and reason (1006: it has vanished),
    /// unless the server would have closed it before. Nothing, if the client was not let in.
    ///
    /// # Cancel safety
    /// As with [`open`](Self::open).
    pub async fn end(&mut self, code: u16, reason: &str) -> Option<Exchange> {
        if self.route.is_relayed() {
            return self.hang_up(code, reason).await;
        }
        match self.state {
            State::Opening | State::Refused => return None,
            State::Open => self.close(code, reason),
            State::Over => {}
        }
        self.ask().await
    }

    fn close(&mut self, code: u16, reason: &str) {
        self.conversation.push(Event::Close { code, reason: reason.into(), is_clean: code != VANISHED });
        self.state = State::Over;
    }

    /// The next event for the backend.
    fn job(&mut self) -> Option<Job> {
        let exchange = self.conversation.next(self.route.batch())?;
        let (app, route, head) = (Arc::clone(&self.app), Arc::clone(&self.route), Arc::clone(&self.head));
        let asker = Asker { shard: ShardIndex::new(0), whose: Whose::Nobody };
        Some(Job { asker, app, route, head, connection: self.connection, exchange, relay: None })
    }

    /// Takes the next event to the backend, once.
    async fn ask(&mut self) -> Option<Exchange> {
        let job = self.job()?;
        let event = job.exchange.kind();
        let Tried { shown, replied, stderr, took, judged } = job.try_once(&self.client).await;
        self.conversation.answered();
        let is_events = self.route.form() == Form::WebSocketOverHttp;
        let request = Request {
            method: "POST",
            address: shown.address,
            script: shown.script,
            headers: shown.headers,
            body: Body::of(&shown.body, is_events),
        };
        let reply = replied.ok().map(|reply| Reply::of(&reply, is_events));
        let mut exchange = Exchange {
            event,
            request,
            reply,
            took,
            stderr,
            verdict: Verdict::CarriedOut,
            does: Vec::new(),
            left_out: Vec::new(),
            why: None,
            again: None,
        };
        self.conclude(&mut exchange, judged);
        Some(exchange)
    }

    /// Says what the server would do.
    fn conclude(&mut self, exchange: &mut Exchange, Judged { attempt, note }: Judged) {
        match note {
            Note::Nothing => {}
            Note::Failed(why) => exchange.why = Some(why.into()),
            Note::Answered(warnings) => exchange.left_out.extend(warnings.into_iter().map(String::from)),
        }
        let outcome = match attempt {
            Attempt::Done(outcome) => outcome,
            Attempt::Again { after } => {
                let timeout = self.route.timeout().as_secs();
                exchange.again = Some(match after {
                    Some(after) => format!("sends the event again after {} s, as the backend asks", after.as_secs()),
                    None if exchange.event == "close" => "sends the event again, for five minutes".to_owned(),
                    None => format!("sends the event again, for {timeout} s"),
                });
                Outcome::Failed(Failure::Busy)
            }
            Attempt::Unsure => {
                exchange.again = Some("sends the event again, for five minutes".to_owned());
                Outcome::Failed(Failure::Busy)
            }
        };
        match (outcome, exchange.event) {
            (Outcome::Answered(answer), "open") => {
                self.state = State::Open;
                exchange.does.extend(let_in(&answer));
                self.carry_out(exchange, *answer);
            }
            (Outcome::Answered(answer), "close") => self.carry_out_late(exchange, *answer),
            (Outcome::Answered(answer), _) => {
                exchange.does.extend(answer.user.as_ref().map(|user| match user {
                    Some(user) => format!("knows the client as {}", user.id),
                    None => "signs the client out".to_owned(),
                }));
                self.carry_out(exchange, *answer);
            }
            (Outcome::Refused(refusal), _) => {
                (self.state, exchange.verdict) = (State::Refused, Verdict::Refused);
                exchange.does.push(refused(&refusal, exchange.reply.as_ref()));
            }
            (Outcome::Failed(failure), "open") => {
                (self.state, exchange.verdict) = (State::Refused, Verdict::Failed);
                let refusal = failure.refusal();
                exchange.does.push(refused(&refusal, exchange.reply.as_ref()));
            }
            // A response is passed on to a stream alone, and here is a WebSocket.
            (Outcome::Failed(_), "close") | (Outcome::Passed(_), _) => exchange.verdict = Verdict::Failed,
            (Outcome::Failed(failure), _) => {
                exchange.verdict = Verdict::Failed;
                if self.route.on_error() == OnError::Keep {
                    return exchange.does.push("keeps the connection; the event is lost".to_owned());
                }
                let close = failure.close();
                let (code, reason) = (close.code().as_u16(), close.reason());
                let unless = if exchange.again.is_some() { "unless that succeeds, " } else { "" };
                exchange.does.push(format!("{unless}{}", closes(code, reason)));
                self.close(code, reason);
            }
        }
    }

    fn carry_out(&mut self, exchange: &mut Exchange, answer: Answer) {
        let Answer { user, meta, subscribe, send, publish, unsubscribe, timer, close, steps, grip, acceptance: _ } =
            answer;
        self.keep(exchange, user, meta, grip);
        for subscription in subscribe {
            self.subscribe(exchange, &subscription.channel);
        }
        exchange.does.extend(send.iter().map(sends));
        self.publish(exchange, publish);
        exchange.does.extend(unsubscribe.iter().map(|channel| format!("unsubscribes the client from {channel}")));
        exchange.does.extend(timer.map(|timer| match timer {
            Some(every) => format!("sends a timer event every {} s", every.as_secs()),
            None => "sends no timer events".to_owned(),
        }));
        if let Some(event::Close { code, reason }) = close {
            exchange.does.push(closes(code, &reason));
            self.close(code, &reason);
        }
        for step in steps {
            match step {
                Step::Send(message) => exchange.does.push(sends(&message)),
                Step::Close(event::Close { code, reason }) => {
                    exchange.does.push(closes(code, &reason));
                    self.close(code, &reason);
                }
                Step::Control(control) => self.control(exchange, control),
            }
        }
    }

    /// What is answered about the end of a connection can say nothing to that connection.
    fn carry_out_late(&mut self, exchange: &mut Exchange, answer: Answer) {
        let Answer { user, meta, subscribe, send, publish, unsubscribe, timer, close, .. } = answer;
        self.keep(exchange, user, meta, None);
        self.publish(exchange, publish);
        for (field, is_there) in [
            ("subscribe", !subscribe.is_empty()),
            ("send", !send.is_empty()),
            ("unsubscribe", !unsubscribe.is_empty()),
            ("timer", timer.is_some()),
            ("close", close.is_some()),
        ] {
            if is_there {
                exchange.left_out.push(format!("{field}: the connection is over"));
            }
        }
    }

    #[expect(clippy::option_option, reason = "as the answer has it")]
    fn keep(
        &mut self,
        exchange: &mut Exchange,
        user: Option<Option<event::User>>,
        meta: Option<serde_json::Map<String, serde_json::Value>>,
        grip: Option<grip::Extension>,
    ) {
        if let Some(meta) = &meta {
            let json = serde_json::to_string(meta).unwrap_or_default();
            exchange.does.push(format!("keeps meta {}", short(&json)));
        }
        let kept = Kept::clone(self.conversation.kept());
        self.conversation.keep(Kept {
            user: user.unwrap_or(kept.user),
            meta: meta.unwrap_or(kept.meta),
            grip: grip.or(kept.grip),
        });
    }

    fn subscribe(&self, exchange: &mut Exchange, channel: &str) {
        let has_user = self.conversation.kept().user.is_some();
        match check_subscription(channel, has_user, &self.app.snapshot().limits) {
            Ok(_) => exchange.does.push(format!("subscribes the client to {channel}")),
            Err(why) => exchange.left_out.push(format!("the subscription to {channel:?}: {why}")),
        }
    }

    fn publish(&self, exchange: &mut Exchange, publish: Vec<event::Publish>) {
        for one in publish {
            let to = match &one.to {
                Target::Channel(channel) => format!("the channel {channel}"),
                Target::User(user) => format!("the user {user}"),
                Target::Connection(id) => format!("the connection {id}"),
            };
            let except = if one.is_except_self { ", but not to this connection" } else { "" };
            let done = format!("publishes {} to {to}{except}: {}", one.event, short(&one.data));
            match publication(one, &self.app.snapshot().limits, self.connection, Instant::now()) {
                Ok(_) => exchange.does.push(done),
                Err(why) => exchange.left_out.push(format!("the publish to {to}: {why}")),
            }
        }
    }

    fn control(&mut self, exchange: &mut Exchange, control: Control) {
        let content = |message: &grip::ControlMessage| match str::from_utf8(&message.content) {
            Ok(text) => short(text),
            Err(_) => short(&hex::encode(&message.content)),
        };
        exchange.does.push(match control {
            Control::Subscribe { channel, filters } => {
                if !filters.unknown.is_empty() {
                    let unknown = filters.unknown.join(", ");
                    exchange.left_out.push(format!("filters of {channel} that are not known: {unknown}"));
                }
                return self.subscribe(exchange, &channel);
            }
            Control::Unsubscribe { channel } => format!("unsubscribes the client from {channel}"),
            Control::Detach => {
                self.close(NO_CODE, "");
                "tells the backend nothing more of this connection but its end".to_owned()
            }
            Control::KeepAlive(Some(it)) => {
                format!("keeps the client alive every {} s: {}", it.seconds, content(&it.message))
            }
            Control::KeepAlive(None) => "sends no messages to keep the client alive".to_owned(),
            Control::SetMeta { name, value: Some(value) } => format!("sets {name} to {} for filters", short(&value)),
            Control::SetMeta { name, value: None } => format!("removes {name} for filters"),
            Control::SendDelayed { message, seconds } => format!("sends after {seconds} s: {}", content(&message)),
            Control::FlushDelayed => "sends what is delayed at once".to_owned(),
            Control::Session { .. } | Control::Ignored(_) => return,
        });
    }
}

fn routes(config: &Config, apps: &Apps) -> Result<Routes, ConfigError> {
    let wrong = |reason| ConfigError::from(Diagnostic::new("routes", reason));
    let routes = Routes::new(&config.routes).map_err(wrong)?;
    routes.check_apps(apps).map_err(wrong)?;
    Ok(routes)
}

/// What is kept of the connection from its beginning, where its route wants a token.
async fn identify(client: &HttpClient, app: &App, route: &Route, request: &Handshake<'_>) -> Result<Kept, Denied> {
    if route.auth() != Auth::Jwt {
        return Ok(Kept::default());
    }
    let snapshot = Arc::clone(&app.snapshot());
    let identity = ConnectAuth::alone().identify(client, &snapshot, request).await?;
    kept_of(identity, route.form()).ok_or_else(connect_auth::unspeakable)
}

/// The client's request as it would come over its connection.
fn handshake(config: &Config, client: &Client) -> Result<Vec<u8>, RouteTestError> {
    let build = || {
        let port = config.listen.port();
        let mut request = ClientRequest::new(&format!("localhost:{port}"), &client.target)?;
        for (name, value) in &client.headers {
            request = match name.to_ascii_lowercase().as_str() {
                "host" => request.host(value)?,
                "origin" => request.origin(value)?,
                _ => request.header(name, value)?,
            };
        }
        for name in &client.protocols {
            request = request.subprotocol(name)?;
        }
        let mut bytes = Vec::new();
        request.write([0; 16], &mut bytes);
        Ok(bytes)
    };
    build().map_err(|error: taut_proto::handshake::InvalidRequest| RouteTestError::Client(error.to_string()))
}

fn let_in(answer: &Answer) -> Vec<String> {
    let Acceptance { subprotocol, headers, .. } = &answer.acceptance;
    let mut text = "lets the client in".to_owned();
    if let Some(Some(user)) = &answer.user {
        let _ = write!(text, " as {}", user.id);
    }
    if let Some(name) = subprotocol {
        let _ = write!(text, ", with the subprotocol {name}");
    }
    let headers = headers.iter().map(|(name, value)| format!("answers the client with {name}: {value}"));
    [text].into_iter().chain(headers).collect()
}

fn refused(refusal: &Refusal, reply: Option<&Reply>) -> String {
    let response = refusal.response(Version::Http11);
    let (status, body) = (response.status(), response.body());
    let is_same = reply.is_some_and(|reply| match &reply.body {
        Body::Json(text) | Body::Text(text) => text == body,
        Body::Events(_) | Body::Binary(_) => false,
    });
    match body {
        "" => format!("refuses the client with {status}"),
        _ if is_same => format!("refuses the client with {status} and this body"),
        body => format!("refuses the client with {status}: {}", short(body.trim())),
    }
}

fn body_of(refusal: &Refusal) -> String {
    refusal.response(Version::Http11).body().trim().to_owned()
}

fn closes(code: u16, reason: &str) -> String {
    if reason.is_empty() {
        format!("closes the connection with {code}")
    } else {
        format!("closes the connection with {code} ({reason})")
    }
}

fn sends(message: &event::Message) -> String {
    match message {
        event::Message::Text(text) if text.is_empty() => "sends an empty message".to_owned(),
        event::Message::Text(text) => format!("sends {}", short(text)),
        event::Message::Binary(bytes) => format!("sends binary {}", short(&hex::encode(bytes))),
    }
}

/// The beginning of a text. All of it is in the answer.
fn short(text: &str) -> String {
    let mut beginning: String = text.chars().take(LONGEST).collect();
    if beginning.len() < text.len() {
        beginning.push('…');
    }
    beginning
}

impl Reply {
    fn of(reply: &gateway::Reply, is_events: bool) -> Self {
        Self {
            status: reply.status,
            headers: reply.headers.iter().map(|(name, value)| (name.to_string(), value.to_string())).collect(),
            body: Body::of(&reply.body, is_events),
        }
    }
}

impl Body {
    fn of(bytes: &[u8], is_events: bool) -> Self {
        if is_events && let Ok(lines) = grip::lines(bytes) {
            return Self::Events(lines);
        }
        let Ok(text) = str::from_utf8(bytes) else { return Self::Binary(bytes.into()) };
        let is_json = serde_json::from_str::<&RawValue>(text).is_ok();
        if is_json { Self::Json(text.to_owned()) } else { Self::Text(text.to_owned()) }
    }
}

impl fmt::Display for RouteTestError {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Config(error) => error.fmt(formatter),
            Self::NoRoute { path, routes } if routes.is_empty() => {
                write!(formatter, "no route has the path {path}: the configuration has no [[routes]]")
            }
            Self::NoRoute { path, routes } => {
                write!(formatter, "no route has the path {path}; there are:")?;
                routes.iter().try_for_each(|route| write!(formatter, "\n  {route}"))
            }
            Self::Client(why) => formatter.write_str(why),
        }
    }
}

impl std::error::Error for RouteTestError {}

/// A Close frame without a code, and none at all (RFC 6455 §7.4.1).
const NO_CODE: u16 = 1005;
const VANISHED: u16 = 1006;

/// Characters of a message in a sentence.
const LONGEST: usize = 200;
