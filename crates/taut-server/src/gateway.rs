//! Routes: paths whose WebSockets and streams are told to a backend, event by event, and do as it answers.
//!
//! A shard holds the connection and its `Conversation`: events in order, one at a time. Each goes as a `Job` to
//! `serve`, on tokio, which asks the backend. The `Outcome` comes back to the shard by mail, which carries it out.

mod auth;
mod backend;
mod breaker;
mod conversation;
pub(crate) mod event;
mod fastcgi;
pub(crate) mod frame;
pub(crate) mod grip;
mod head;
mod merge_patch;
mod over_http;
mod pattern;
mod plain;
pub(crate) mod relay;
mod route;
pub(crate) mod seen;
mod signature;
pub(crate) mod sse;
mod statistics;
mod status;
pub(crate) mod stream;

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use arc_swap::ArcSwap;
use taut_proto::handshake::Refusal;
use taut_shard::{ConnectionId, HandshakeId};
use tokio::sync::mpsc;

use crate::apps::{App, Apps};
use crate::place::ShardIndex;
use crate::pusher::socket_id::SocketId;
pub(crate) use auth::kept_of;
pub(crate) use backend::{Attempt, Dialled, Judged, Note, Opened, RelaySettings, Reply, Routes, Tried, serve};
pub(crate) use conversation::{Conversation, Exchange, Kept};
pub(crate) use head::{Head, Transport};
pub(crate) use pattern::Parameters;
pub(crate) use route::NOT_FOR_WEBSOCKETS;
pub use route::{Auth, Backend, Form, Frames, OnError, RouteConfig};

use self::backend::Route as LiveRoute;
use self::event::{Answer, Response};
use self::relay::Relay;
use self::statistics::RESULTS;
use self::stream::Streams;

/// A route while it is served.
pub(crate) type Route = LiveRoute;

/// What shards know of routes, and the way to their backends.
pub(crate) struct Gateway {
    routes: ArcSwap<Routes>,
    streams: Arc<Streams>,
    jobs: mpsc::UnboundedSender<Job>,
    /// Jobs whose outcomes have not been carried out.
    pending: AtomicUsize,
}

/// What [`serve`] has to do.
pub(crate) struct Jobs(mpsc::UnboundedReceiver<Job>);

/// An event for a backend.
#[derive(Debug)]
pub(crate) struct Job {
    pub(crate) asker: Asker,
    pub(crate) app: Arc<App>,
    pub(crate) route: Arc<Route>,
    pub(crate) head: Arc<Head>,
    pub(crate) connection: SocketId,
    pub(crate) exchange: Exchange,
    /// Where the connection to a backend with WebSockets is, once that has accepted the client.
    pub(crate) relay: Option<Arc<Relay>>,
}

/// Where the outcome belongs.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Asker {
    pub(crate) shard: ShardIndex,
    pub(crate) whose: Whose,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Whose {
    /// A client that waits to be let in.
    Opening(HandshakeId),
    Open(ConnectionId),
    /// A connection that is over, and whose backend is told the rest.
    Parting(ConnectionId),
    /// One that was accepted and never came: nobody waits for what comes of its end.
    Nobody,
}

/// What has come of an event.
#[derive(Debug)]
pub(crate) enum Outcome {
    /// To be carried out.
    Answered(Box<Answer>),
    /// The client is not let in.
    Refused(Refusal),
    /// The client asked for a stream, and gets a whole response of the backend's instead.
    Passed(Box<Response>),
    /// No answer can be carried out.
    Failed(Failure),
}

/// Why no answer can be carried out, as far as the client is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Failure {
    /// The backend fails, or answers nonsense.
    Broken,
    /// It takes too long.
    Late,
    /// It has too much to do, or is away.
    Busy,
    /// It refuses the event.
    Rejected,
}

#[cfg(test)]
impl Jobs {
    /// The next one, if there is one.
    pub(crate) fn next(&mut self) -> Option<Job> {
        self.0.try_recv().ok()
    }
}

impl Outcome {
    /// What metrics and the console call it.
    pub(crate) fn name(&self) -> &'static str {
        RESULTS[statistics::result(self)]
    }
}

impl Gateway {
    pub(crate) fn new(routes: Routes) -> (Arc<Self>, Jobs) {
        // As many jobs as there are connections, and each waits for the one before it: nothing else bounds them.
        let (jobs, receiver) = mpsc::unbounded_channel();
        tell_open(&routes, &Routes::default());
        let routes = ArcSwap::from_pointee(routes);
        let (streams, pending) = (Arc::default(), AtomicUsize::new(0));
        (Arc::new(Self { routes, streams, jobs, pending }), Jobs(receiver))
    }

    /// One without routes.
    pub(crate) fn none() -> Arc<Self> {
        Self::new(Routes::default()).0
    }

    /// Clients that come from here on find these routes. Shards are to be told, for the sake of those that are here. A
    /// route that has not changed goes on as it is, with what is known of its backend.
    pub(crate) fn replace(&self, routes: Routes) {
        let before = self.routes.load();
        tell_open(&routes, &before);
        let routes = routes.keeping(&before);
        self.routes.store(Arc::new(routes));
    }

    /// The routes that are served.
    pub(crate) fn routes(&self) -> Arc<Routes> {
        self.routes.load_full()
    }

    /// The streams that no shard has taken yet.
    pub(crate) fn streams(&self) -> &Arc<Streams> {
        &self.streams
    }

    /// The route of a path, and what its open parts are there.
    pub(crate) fn find(&self, path: &str) -> Option<(Arc<Route>, Parameters)> {
        let routes = self.routes.load();
        if routes.is_empty() { None } else { routes.find(path) }
    }

    /// The keys with which an app's routes vouch for publishers.
    pub(crate) fn publisher_keys(&self, apps: &Apps, app: &App) -> Vec<String> {
        self.routes.load().publisher_keys(apps, app)
    }

    /// Takes an event to its backend.
    pub(crate) fn ask(&self, job: Job) {
        self.pending.fetch_add(1, Ordering::Relaxed);
        // Without `serve` the runtime has ended, and the shards are about to.
        let _ = self.jobs.send(job);
    }

    /// The outcome of a job has been carried out.
    pub(crate) fn settled(&self) {
        self.pending.fetch_sub(1, Ordering::Relaxed);
    }

    /// Whether backends are still to be told something. Once no connection is left it becomes so, and stays.
    pub(crate) fn is_idle(&self) -> bool {
        self.pending.load(Ordering::Relaxed) == 0
    }
}

/// Tells the log which routes let everybody in, and did not before.
fn tell_open(routes: &Routes, before: &Routes) {
    let is_open = |route: &Route| route.auth() == Auth::None;
    let was_open = |route: &Route| before.named(route.name()).is_some_and(|route| is_open(route));
    for route in routes.all().filter(|route| is_open(route) && !was_open(route)) {
        tracing::info!(route = route.name(), "everybody may connect to the route, because its auth is none");
    }
}

impl fmt::Debug for Gateway {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Gateway").finish_non_exhaustive()
    }
}
