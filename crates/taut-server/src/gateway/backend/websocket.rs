//! Backends that have WebSockets of their own: each client has a connection to one, and messages are passed on.

use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use http::Method;
use hyper::body::Bytes;
use taut::{Client, CloseCode, Error, Heartbeat, Message, Receiver, Response, Sender, Settings, WebSocket};
use taut_proto::Close;
use taut_proto::handshake::Refusal;
use taut_shard::ConnectionId;
use tokio::time::{Instant, timeout_at};

use super::carrier::{Reply, Request, Shown};
use super::{Judged, Note, answered, breaker, random};
use crate::gateway::event::{Acceptance, Answer, Event};
use crate::gateway::relay::{Relay, Sent};
use crate::gateway::{Asker, Failure, Job, Outcome, over_http};
use crate::place::ShardIndex;

/// How connections to backends behave.
#[derive(Clone, Debug)]
pub(crate) struct RelaySettings(Settings);

/// What has come of an attempt to connect.
pub(crate) struct Dialled {
    /// What the backend has answered, if it has.
    pub(crate) reply: Option<Reply>,
    pub(crate) opened: Result<Opened, Judged>,
}

/// A connection to a backend, and what the response to the client's upgrade says.
pub(crate) struct Opened {
    pub(crate) socket: WebSocket,
    pub(crate) acceptance: Acceptance,
}

impl RelaySettings {
    /// A silent backend is asked whether it is there as a silent client is.
    pub(crate) fn new(heartbeat: Heartbeat) -> Self {
        let mut settings = Settings::client();
        settings.heartbeat = heartbeat;
        // A backend is not read while its client does not read, and then cannot go on with a message. One that does not
        // go on otherwise is silent, which the heartbeat notices.
        settings.limits.message_timeout = Duration::MAX;
        Self(settings)
    }
}

impl Job {
    /// Connects to the backend for a client that wants to be let in, and passes messages on until the client has gone.
    ///
    /// `tell` is told what comes of each job, and `ring` for whom something has come.
    ///
    /// # Cancel safety
    /// Dropping it drops the backend's connection without a Close frame, and jobs have no outcome.
    pub(super) async fn relay<F, R>(&self, settings: &RelaySettings, tell: &F, ring: &R)
    where
        F: Fn(Asker, Outcome),
        R: Fn(ShardIndex, ConnectionId),
    {
        let statistics = &self.route.statistics;
        let (began, under_way) = (Instant::now(), statistics.under_way());
        let opened = self.open(settings).await;
        drop(under_way);
        let relay = Arc::new(Relay::default());
        let (outcome, socket) = match opened {
            Ok(Opened { socket, acceptance }) => {
                let acceptance = Acceptance { relay: Some(Arc::clone(&relay)), ..acceptance };
                let mut answer = Answer { acceptance, ..Answer::default() };
                self.complete(&mut answer);
                (Outcome::Answered(Box::new(answer)), Some(socket))
            }
            Err(outcome) => (outcome, None),
        };
        statistics.record(&outcome, began.elapsed());
        tell(self.asker, outcome);
        let Some(socket) = socket else { return };
        let (sender, receiver) = socket.split();
        let mut to_client = pin!(self.pass_to_client(receiver, &relay, |id| ring(self.asker.shard, id)));
        let mut to_backend = pin!(pass_to_backend(sender, &relay, tell));
        tokio::select! {
            () = &mut to_backend => {}
            // The client is told that the backend's connection has ended, and then the backend's side of that its end.
            () = &mut to_client => to_backend.await,
        }
    }

    /// Connects when it is this client's turn, unless the backend is left alone.
    async fn open(&self, settings: &RelaySettings) -> Result<Opened, Outcome> {
        let route = &self.route;
        let until = Instant::now() + route.config.timeout;
        let busy = || Outcome::Failed(Failure::Busy);
        let Ok(_turn) = timeout_at(until, route.turns.acquire()).await else { return Err(busy()) };
        let permit = route.breaker().admit(route.began.elapsed()).map_err(|_| busy())?;
        let Dialled { reply, opened } = self.dial(settings, until).await;
        let health = match (&opened, &reply) {
            (Ok(_), _) => breaker::Outcome::Alive,
            (Err(_), Some(reply)) => breaker::Outcome::of_status(reply.status, reply.header("retry-after").is_some()),
            (Err(_), None) => breaker::Outcome::Failed,
        };
        route.breaker().record(&permit, health, route.began.elapsed(), random);
        match opened {
            Ok(opened) => {
                route.note(&Note::Answered(Vec::new()));
                Ok(opened)
            }
            Err(judged) => {
                route.note(&judged.note);
                Err(judged.outcome())
            }
        }
    }

    /// Connects, whatever the breaker says, and without a turn. The log is told nothing.
    ///
    /// # Cancel safety
    /// Dropping it drops the attempt.
    pub(crate) async fn dial(&self, settings: &RelaySettings, until: Instant) -> Dialled {
        let client = match self.client(settings, until) {
            Ok(client) => client,
            Err(why) => return Dialled { reply: None, opened: Err(Judged::failed(Failure::Broken, why)) },
        };
        match client.connect().await {
            Ok(socket) => {
                let reply = socket.response().map(reply);
                let headers = reply.as_ref().map(Reply::pairs).unwrap_or_default();
                let protocols: Vec<&str> = self.head.protocols.iter().map(|name| &**name).collect();
                let opened = match over_http::acceptance(&headers, &protocols) {
                    Ok(acceptance) => Ok(Opened { socket, acceptance }),
                    Err(why) => Err(Judged::failed(Failure::Broken, why)),
                };
                Dialled { reply, opened }
            }
            Err(error) => {
                let reply = error.response().map(reply);
                let judged = self.judge_refusal(&error, reply.as_ref(), until);
                Dialled { reply, opened: Err(judged) }
            }
        }
    }

    /// The client's request, as the backend gets it.
    ///
    /// No compression is offered: the backend is near, and would spend more on it than it saves.
    fn client(&self, settings: &RelaySettings, until: Instant) -> Result<Client, String> {
        let url = self.route.carrier.url(&self.head).map_err(|unanswered| unanswered.reason)?;
        let left = until.saturating_duration_since(Instant::now());
        let mut client = Client::new(&url).settings(settings.0.clone()).connect_timeout(left).redirects(0).no_proxy();
        for (name, value) in self.relay_request().fields(&self.head) {
            client = if name.eq_ignore_ascii_case("origin") {
                client.origin(&value)
            } else if name.get(..HANDSHAKE.len()).is_some_and(|start| start.eq_ignore_ascii_case(HANDSHAKE)) {
                client
            } else {
                client.header(name, &value)
            };
        }
        for (index, name) in self.head.protocols.iter().enumerate() {
            // RFC 6455 §4.1 (10): each once.
            if !self.head.protocols[..index].contains(name) {
                client = client.subprotocol(name);
            }
        }
        Ok(client)
    }

    /// How the request looks, for a person.
    pub(crate) fn show_relay(&self) -> Shown {
        self.route.carrier.show(&self.head, self.relay_request())
    }

    /// What the backend gets beside the client's own headers: the id by which it can send to the client at any time.
    fn relay_request(&self) -> Request {
        let headers = vec![("Connection-Id".to_owned(), self.connection.to_string())];
        Request { method: Method::GET, body: Bytes::new(), content_type: None, headers, is_for_path: true }
    }

    /// Whether the backend has refused the client or has failed, where there is no connection.
    fn judge_refusal(&self, error: &Error, reply: Option<&Reply>, until: Instant) -> Judged {
        if let (Some(reply), Some(300..)) = (reply, error.status()) {
            return self.read(reply, until);
        }
        if let Some(status) = error.status() {
            return Judged::failed(Failure::Broken, answered(status));
        }
        if error.is_invalid() {
            let refusal = Refusal::with_status(400, "The request cannot be passed on.");
            return Judged { note: Note::Nothing, ..Judged::done(Outcome::Refused(refusal)) };
        }
        let failure = if error.is_timeout() {
            Failure::Late
        } else if error.is_connect() {
            Failure::Busy
        } else {
            Failure::Broken
        };
        Judged::failed(failure, error.to_string())
    }

    /// Passes on what the backend sends, as fast as the client reads, and at last why that has ended.
    async fn pass_to_client(&self, mut receiver: Receiver, relay: &Relay, ring: impl Fn(ConnectionId)) {
        let close = loop {
            relay.room().await;
            match receiver.recv().await {
                Ok(Some(message)) => relay.push(Sent::Message(message)).into_iter().for_each(&ring),
                Ok(None) => break receiver.peer_close().unwrap_or_else(|| CloseCode::NO_STATUS.into()),
                Err(error) => break self.judge_end(&error, receiver.peer_close(), relay),
            }
        };
        relay.push(Sent::Close(close)).into_iter().for_each(&ring);
    }

    /// How a client is closed whose backend's connection has failed.
    fn judge_end(&self, error: &Error, close: Option<Close>, relay: &Relay) -> Close {
        // In the middle of a message, but the backend says why.
        if let (Some(close), true) = (close, error.is_cut_off()) {
            return close;
        }
        if !relay.has_left() {
            self.route.note_failure(&error.to_string());
        }
        // The client learns no more of the failure, as with other backends.
        Close::new(CloseCode::INTERNAL_ERROR, "backend error")
    }
}

/// Passes on what the client sends, until it has gone.
async fn pass_to_backend(sender: Sender, relay: &Relay, tell: &impl Fn(Asker, Outcome)) {
    loop {
        let job = relay.job().await;
        let statistics = &job.route.statistics;
        let (began, under_way) = (Instant::now(), statistics.under_way());
        let mut outcome = Outcome::Answered(Box::default());
        for event in &job.exchange.events {
            if pass(&sender, event).await.is_err() {
                outcome = Outcome::Failed(Failure::Broken);
                break;
            }
        }
        if flush(&sender).await.is_err() && !job.exchange.is_close() {
            outcome = Outcome::Failed(Failure::Broken);
        }
        drop(under_way);
        statistics.record(&outcome, began.elapsed());
        // What has failed is over, and the client is told so behind what the backend has sent before.
        tell(job.asker, Outcome::Answered(Box::default()));
        if job.exchange.is_close() {
            return;
        }
    }
}

async fn pass(sender: &Sender, event: &Event) -> Result<(), Error> {
    match event {
        Event::Text(text) => feed(sender, || (&**text).into()).await,
        Event::Binary(bytes) => feed(sender, || (&**bytes).into()).await,
        Event::Close { code, reason, is_clean: true } => {
            // It may have ended by itself.
            let _ = sender.close(Close::new(CloseCode::new(*code), &**reason)).await;
            Ok(())
        }
        // A client that has vanished says nothing, and neither does its counterpart: see `Job::relay`.
        Event::Close { is_clean: false, .. } | Event::Open | Event::Timer => Ok(()),
    }
}

async fn feed<'m>(sender: &Sender, message: impl Fn() -> Message<'m>) -> Result<(), Error> {
    loop {
        match sender.feed(message()).await {
            Err(error) if is_stalled(sender, &error) => {}
            done => return done,
        }
    }
}

async fn flush(sender: &Sender) -> Result<(), Error> {
    loop {
        match sender.flush().await {
            Err(error) if is_stalled(sender, &error) => {}
            done => return done,
        }
    }
}

/// Whether the backend reads nothing, and is not read because its client does not read either. That may go on.
fn is_stalled(sender: &Sender, error: &Error) -> bool {
    error.is_timeout() && sender.is_open()
}

fn reply(response: &Response) -> Reply {
    // A part of a body says nothing that can be read.
    let is_whole = response.is_complete();
    let is_passed = |name: &str| is_whole || !name.eq_ignore_ascii_case("content-type");
    let text = |(name, value): (&str, &[u8])| Some((name.into(), str::from_utf8(value).ok()?.into()));
    let headers = response.headers().into_iter().filter(|(name, _)| is_passed(name)).filter_map(text);
    let body = if is_whole { Bytes::copy_from_slice(response.body()) } else { Bytes::new() };
    Reply { status: response.status(), headers: headers.collect(), body }
}

/// The prefix of the headers that belong to one handshake (RFC 6455 §11.3): the backend's has its own.
const HANDSHAKE: &str = "Sec-WebSocket-";
