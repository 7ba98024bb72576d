//! The Pusher protocol on one shard: [`PusherHandler`] is the event loop's handler.
//!
//! `connect` lets clients in; `subscribe`, `sign_in` and `client_events` check what they ask for and call the hub;
//! `deliver` sends them the outcome; `query` answers questions of the HTTP side. An app takes memory here only once a
//! client or publisher comes to it.

mod accept_backoff;
mod client_events;
mod client_info;
mod connect;
mod deliver;
mod frames;
mod grip;
mod publications;
mod query;
mod relayed;
mod routed;
mod sign_in;
mod streams;
mod subscribe;
mod visit;

use std::cell::Cell;
use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashMap, VecDeque};
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Instant;

use taut_proto::handshake::Request;
use taut_proto::{Close, CloseCode, Message, Time};
use taut_shard::{
    Closed, ConnectionId, Connections, Handler, Handover, HandshakeId, Outgoing, Responded, Session, Verdict,
};

use crate::apps::{Admission, App, Apps, Granted};
use crate::bus::{BusEnd, Mail, ShardBus};
use crate::close::Reason;
use crate::connect_auth::ConnectAuth;
use crate::events::{Event, EventBus};
use crate::gateway::{Gateway, sse};
use crate::hub::Hub;
use crate::hub::effects::Effects;
use crate::hub::engine::Standing;
use crate::hub::envelope::Envelope;
use crate::hub::members::{Cause, Members};
use crate::limit::TokenBucket;
use crate::place::{AppIndex, ShardIndex};
use crate::pusher::event::{ClientEvent, ServerEvent};
use crate::pusher::socket_id::SocketId;
use crate::query::{Histogram, Traffic};
use crate::refusals::{self, RefusalReason};
use client_info::{ClientInfo, Sdks};
use connect::Applicant;
pub(crate) use connect::{Unwelcome, no_such_app, tell_unwelcome};
use deliver::{ClientOutlet, FollowUp};
use frames::Encoding;
pub(crate) use publications::publication;
use routed::Routed;
pub(crate) use routed::{check_origin, check_subscription};
use sign_in::SignedIn;

/// All clients of a shard.
pub(crate) struct PusherHandler {
    apps: Arc<Apps>,
    bus: Arc<ShardBus>,
    end: BusEnd<ConnectionId>,
    events: EventBus,
    connect_auth: Arc<ConnectAuth>,
    gateway: Arc<Gateway>,
    /// Whether clients come over TLS of this server's.
    is_secure: bool,
    routes: routed::Routes,
    inline: Option<Box<dyn InlineHttp>>,
    /// What stands before the key in a client's path.
    path: String,
    /// Seconds; what clients are told.
    activity_timeout: u32,
    /// Bytes that may wait for a client that reads too slowly.
    outgoing: usize,
    /// By the index of the app; `None` until somebody connects or publishes.
    local_apps: Vec<Option<Box<LocalApp>>>,
    /// The apps for which the next tick has something to do, each once. All others cost a tick nothing.
    due: Vec<AppIndex>,
    /// What the hubs have brought about that calls hubs again.
    follow_ups: VecDeque<FollowUp>,
    /// Connections that have to sign in or to subscribe to what needs it, by when.
    unauthorized: BinaryHeap<Reverse<(Time, ConnectionId)>>,
    /// Clients of whom it is decided elsewhere who they are. Each has its answer in the end, whether the client has waited or not.
    deciding: HashMap<HandshakeId, Applicant>,
    /// Clients for whom there is no place yet, by app, in the order in which they came.
    waiting: HashMap<AppIndex, Vec<Applicant>>,
    sdks: Sdks,
    latency: Cell<Histogram>,
    /// Where what is sent gets its text.
    text: String,
    /// Takes the connections whose requests are answered elsewhere.
    depart: Box<dyn Fn(Handover) + Send>,
}

/// Answers requests that are no client's, as far as that can be done at once: on the shard's time.
pub(crate) trait InlineHttp: Send {
    /// How much content belongs to a request, if it may be answered here.
    fn content(&self, request: &Request<'_>) -> Option<usize>;

    /// Does what the request asks for and writes the response; or does nothing, and the request leaves the shard.
    fn answer(&mut self, request: &Request<'_>, content: &[u8], response: &mut Vec<u8>) -> Responded;
}

/// What a connection carries.
#[derive(Debug, Default)]
pub(crate) enum Client {
    /// It is being closed: nothing it says counts.
    #[default]
    Leaving,
    /// It is about to be told why it cannot stay. A browser reads that from a close frame only, so it is let in first.
    Refused(Box<Close>),
    /// The backend of its route has accepted it.
    Arriving(HandshakeId, Box<Subscriber>),
    /// It takes part.
    Subscriber(Subscriber),
}

/// A connection that takes part. Most have no extras, and so take little memory.
#[derive(Debug)]
pub(crate) struct Subscriber {
    admission: Admission,
    socket_id: SocketId,
    client: ClientInfo,
    /// When it was opened: seconds since the shard's start.
    opened: u32,
    extras: Option<Box<Extras>>,
    /// Messages in a row that could not be read.
    malformed: u8,
    /// It has signed in, or has subscribed to what needs a signature, or was known before it was let in.
    authorized: bool,
}

/// What few connections have.
#[derive(Debug, Default)]
struct Extras {
    user: Option<SignedIn>,
    /// Its presence channels, with the user that it is there.
    presences: Vec<(Arc<str>, Arc<str>)>,
    /// The channels whose owners have been asked for it and have not answered yet: once for each question, those included that it has left since.
    waiting: Vec<Arc<str>>,
    /// The rate of its own events.
    triggering: Option<TokenBucket>,
    /// What a connection of a route has; `None`: it speaks Pusher's protocol.
    routed: Option<Box<Routed>>,
}

/// One app on this shard.
#[derive(Debug)]
struct LocalApp {
    app: Arc<App>,
    hub: Hub<ConnectionId>,
    traffic: Cell<Traffic>,
    /// Connections of routes.
    routed: usize,
    /// It is on the list of those that are due.
    is_due: bool,
}

impl LocalApp {
    fn new(app: Arc<App>, standing: Option<Standing>) -> Self {
        Self { hub: Hub::new(Arc::clone(&app), standing), app, traffic: Cell::default(), routed: 0, is_due: false }
    }

    fn count(&self, count: impl FnOnce(&mut Traffic)) {
        let mut traffic = self.traffic.get();
        count(&mut traffic);
        self.traffic.set(traffic);
    }
}

impl PusherHandler {
    #[expect(clippy::too_many_arguments, reason = "once, as the server starts")]
    pub(crate) fn new(
        shard: ShardIndex,
        apps: Arc<Apps>,
        bus: Arc<ShardBus>,
        events: EventBus,
        path_prefix: &str,
        activity_timeout: u32,
        outgoing: usize,
        depart: impl Fn(Handover) + Send + 'static,
    ) -> Self {
        Self {
            end: BusEnd::new(shard, bus.is_clustered().then_some(Standing::Starting)),
            apps,
            bus,
            events,
            connect_auth: Arc::new(ConnectAuth::alone()),
            gateway: Gateway::none(),
            is_secure: false,
            routes: routed::Routes::default(),
            inline: None,
            path: format!("{path_prefix}/app/"),
            activity_timeout,
            outgoing,
            local_apps: Vec::new(),
            due: Vec::new(),
            follow_ups: VecDeque::new(),
            unauthorized: BinaryHeap::new(),
            deciding: HashMap::new(),
            waiting: HashMap::new(),
            sdks: Sdks::default(),
            latency: Cell::default(),
            text: String::new(),
            depart: Box::new(depart),
        }
    }

    /// Asks this one who may come in, where apps want to know.
    pub(crate) fn with_connect_auth(mut self, connect_auth: Arc<ConnectAuth>) -> Self {
        self.connect_auth = connect_auth;
        self
    }

    /// Asks this one for the routes of paths that are no app's; `is_secure` if clients come over TLS of this server's.
    pub(crate) fn with_gateway(mut self, gateway: Arc<Gateway>, is_secure: bool) -> Self {
        (self.gateway, self.is_secure) = (gateway, is_secure);
        self
    }

    /// Asks this one first what requests are answered that are no client's.
    pub(crate) fn with_inline_http(mut self, inline: impl InlineHttp + 'static) -> Self {
        self.inline = Some(Box::new(inline));
        self
    }

    /// An app on this shard, if anybody has come to it yet.
    fn local_app(&self, app: AppIndex) -> Option<&LocalApp> {
        self.local_apps.get(app.get())?.as_deref()
    }

    fn local_app_mut(&mut self, app: AppIndex) -> Option<&mut LocalApp> {
        self.local_apps.get_mut(app.get())?.as_deref_mut()
    }

    /// The connections of an app on this shard, if anybody has come to it yet.
    fn members(&self, app: AppIndex) -> Option<&Members<ConnectionId>> {
        Some(&self.local_app(app)?.hub.members)
    }

    /// Makes room for an app, which is or was configured.
    fn open(&mut self, app: AppIndex) -> Option<()> {
        if self.local_app(app).is_none() {
            let live = self.apps.by_index(app)?;
            if self.local_apps.len() <= app.get() {
                self.local_apps.resize_with(app.get() + 1, || None);
            }
            self.local_apps[app.get()] = Some(Box::new(LocalApp::new(live, self.end.standing())));
        }
        Some(())
    }

    /// Calls the hub of an app, and does what it wants done.
    fn call<T>(
        &mut self,
        connections: &mut Connections<Client>,
        app: AppIndex,
        call: impl FnOnce(&mut Hub<ConnectionId>, &mut Effects<ConnectionId>) -> T,
    ) -> Option<T> {
        self.settle(connections, app, |hub, end, _, _, _| call(hub, &mut end.effects))
    }

    fn settle<T>(
        &mut self,
        connections: &mut Connections<Client>,
        app: AppIndex,
        call: impl FnOnce(&mut Hub<ConnectionId>, &mut BusEnd<ConnectionId>, &ShardBus, Time, &mut ClientOutlet<'_>) -> T,
    ) -> Option<T> {
        self.open(app)?;
        let LocalApp { app: live, hub, traffic, routed, is_due } =
            self.local_apps.get_mut(app.get())?.as_deref_mut()?;
        let now = connections.now();
        let mut outlet = ClientOutlet {
            app: live,
            traffic,
            routed: *routed,
            connections,
            events: &self.events,
            latency: &self.latency,
            text: &mut self.text,
            follow_ups: &mut self.follow_ups,
        };
        let outcome = call(hub, &mut self.end, &self.bus, now, &mut outlet);
        self.end.settle(hub, &*self.bus, now, &mut outlet);
        if !*is_due && hub.is_due() {
            *is_due = true;
            self.due.push(app);
        }
        while let Some(follow_up) = self.follow_ups.pop_front() {
            match follow_up {
                FollowUp::Watch { connection, user_data } => self.watch(connections, connection, app, &user_data),
                FollowUp::Missed { channel } => self.missed(connections, app, &channel),
                FollowUp::Close { connection, close } => self.dismiss(connections, connection, close),
                FollowUp::Refresh { connection } => self.refresh(connections, connection),
            }
        }
        Some(outcome)
    }

    /// A connection is greeted, and what is to come of it is noted.
    fn send_established(&mut self, session: &mut Session<'_, Client>, app: AppIndex, socket_id: SocketId) {
        let id = session.id();
        let event = ServerEvent::ConnectionEstablished { socket_id, activity_timeout: self.activity_timeout };
        self.send_event(session.connections(), id, &event);
        let Some(app) = self.local_app(app).map(|local_app| Arc::clone(&local_app.app)) else { return };
        let snapshot = Arc::clone(&app.snapshot());
        session.set_outgoing(Outgoing { bytes: self.outgoing, slow_reader: snapshot.limits.slow_reader });
        let timeout = snapshot.config.features.authorization_timeout;
        if !timeout.is_zero() {
            self.unauthorized.push(Reverse((session.connections().now() + timeout, id)));
        }
        self.note(&app, || Event::Connected { socket_id });
    }

    /// Closes a connection from our side. It leaves its channels and its user at once: whether it answers the close, and when, changes nothing for
    /// others.
    fn dismiss(&mut self, connections: &mut Connections<Client>, id: ConnectionId, close: Close) {
        let Some(subscriber) = subscriber(connections, id) else { return };
        let (app, extras) = (subscriber.admission.index(), subscriber.take_extras());
        // Pusher's clients come back by themselves, except after these.
        let cause = if (4000..4100).contains(&close.code().as_u16()) { Cause::Dismissed } else { Cause::Lost };
        connections.close(id, close);
        self.leave_all(connections, id, app, extras, cause);
    }

    /// The same after an event that says why, for clients that do not look at close frames.
    fn dismiss_with_error(&mut self, connections: &mut Connections<Client>, id: ConnectionId, close: Close) {
        let event = ServerEvent::Error { code: Some(close.code().as_u16()), message: close.reason(), channel: None };
        self.send_event(connections, id, &event);
        self.dismiss(connections, id, close);
    }

    fn malformed(&mut self, session: &mut Session<'_, Client>, reason: &str) {
        let Some(Client::Subscriber(subscriber)) = session.user() else { return };
        subscriber.malformed += 1;
        let enough = subscriber.malformed >= MOST_MALFORMED;
        let id = session.id();
        self.send_event(session.connections(), id, &ServerEvent::Error { code: None, message: reason, channel: None });
        if enough {
            let reason = "Too many messages in a row that are not the Pusher protocol";
            self.dismiss(session.connections(), id, Close::new(CloseCode::UNSUPPORTED, reason));
        }
    }

    fn handle(&mut self, session: &mut Session<'_, Client>, event: ClientEvent<'_>) {
        let id = session.id();
        let connections = session.connections();
        match event {
            ClientEvent::Ping => self.send_event(connections, id, &ServerEvent::Pong),
            ClientEvent::Subscribe { channel, auth, channel_data } => {
                self.subscribe(connections, id, &channel, &auth, channel_data.as_deref());
            }
            ClientEvent::Unsubscribe { channel } => self.unsubscribe(connections, id, &channel),
            ClientEvent::SignIn { auth, user_data } => self.sign_in(connections, id, &auth, &user_data),
            ClientEvent::Triggered { event, channel, data } => {
                self.client_event(connections, id, &event, channel.as_deref(), data.as_deref());
            }
            // That it came is all there is to a pong, and the heartbeat has noticed.
            ClientEvent::Pong | ClientEvent::Unknown => {}
        }
    }

    /// Closes those who should have shown by now who they are.
    fn expire(&mut self, connections: &mut Connections<Client>) {
        while let Some(&Reverse((deadline, id))) = self.unauthorized.peek() {
            if deadline > connections.now() {
                return;
            }
            self.unauthorized.pop();
            if subscriber(connections, id).is_some_and(|subscriber| !subscriber.authorized) {
                let close = Reason::NOT_AUTHORIZED.close();
                if let Some((app, socket_id)) = whose(connections, id) {
                    self.refused(app, socket_id, RefusalReason::AuthorizationTimeout, close.reason());
                }
                self.dismiss_with_error(connections, id, close);
            }
        }
        if self.unauthorized.is_empty() {
            self.unauthorized.shrink_to_fit();
        }
    }

    /// Closes the connections of apps that are served no more.
    fn dismiss_unserved(&mut self, connections: &mut Connections<Client>) {
        let ids: Vec<ConnectionId> = connections.ids().collect();
        for id in ids {
            let Some(subscriber) = subscriber(connections, id) else { continue };
            let Err(unwelcome) = connect::check_standing(&subscriber.admission.snapshot()) else { continue };
            self.dismiss_with_error(connections, id, unwelcome.close);
        }
    }

    /// The engine of the cluster decides from here on, or cannot.
    fn stand(&mut self, connections: &mut Connections<Client>, standing: Standing) {
        self.end.stand(standing);
        for app in self.waiting.keys().copied().collect::<Vec<_>>() {
            self.granted(connections, app, Granted::All);
        }
        let now = connections.now();
        for app in (0..self.local_apps.len()).map(AppIndex::new) {
            if self.local_app(app).is_some() {
                self.call(connections, app, |hub, effects| hub.stand(standing, now, effects));
            }
        }
    }

    fn tick(&mut self, connections: &mut Connections<Client>) {
        self.bus.has_ticked(self.end.here(), Instant::now());
        self.expire(connections);
        self.tick_routes(connections);
        let now = connections.now();
        for app in std::mem::take(&mut self.due) {
            if let Some(local_app) = self.local_apps.get_mut(app.get()).and_then(Option::as_deref_mut) {
                local_app.is_due = false;
            }
            // What is left for a later tick puts the app back on the list.
            self.call(connections, app, |hub, effects| hub.tick(now, effects));
        }
    }

    fn end_grace(&mut self, connections: &mut Connections<Client>) {
        let now = connections.now();
        for app in (0..self.local_apps.len()).map(AppIndex::new) {
            if self.local_app(app).is_some() {
                self.call(connections, app, |hub, effects| hub.end_grace(now, effects));
            }
        }
    }

    fn send_event(&mut self, connections: &mut Connections<Client>, id: ConnectionId, event: &ServerEvent<'_>) {
        send(connections, id, event, &mut self.text);
    }

    /// Writes something down that only a console shows.
    fn note(&self, app: &Arc<App>, event: impl FnOnce() -> Event) {
        if self.events.is_watched() {
            self.events.record(app, event());
        }
    }

    /// Something was refused to a client, which has been told.
    fn refused(&self, app: AppIndex, socket_id: SocketId, reason: RefusalReason, why: &str) {
        let Some(local_app) = self.local_app(app) else { return };
        tell_refused(&local_app.app, socket_id, reason, None, why);
        self.note(&local_app.app, || Event::Refused { socket_id, reason: why.into() });
    }
}

impl Handler for PusherHandler {
    type User = Client;
    type Mail = Mail;

    fn request<'r>(&mut self, request: &'r Request<'r>, peer: SocketAddr, id: HandshakeId) -> Verdict<'r, Client> {
        if !request.wants_upgrade() {
            let content = self.inline.as_ref().and_then(|inline| inline.content(request));
            return content.map_or(Verdict::HandOver, |content| Verdict::Respond { content });
        }
        match request.upgrade() {
            Ok(upgrade) => {
                if let Some(begun) = self.gateway.streams().take(request) {
                    return self.connect_stream(upgrade, peer, id, begun);
                }
                // A route for everything leaves Pusher's clients where they are.
                match self.gateway.find(request.path()).filter(|_| !self.is_of_app(request.path())) {
                    Some(found) => self.connect_to_route(request, upgrade, peer, id, found, None),
                    None => self.connect(request, upgrade, peer, id),
                }
            }
            Err(refusal) => {
                self.apps.refusals().count(RefusalReason::Handshake);
                let address = Some(self.connect_auth.client(request, peer));
                let client = refusals::Client { address, ..refusals::Client::default() };
                refusals::tell(RefusalReason::Handshake, client, &refusal);
                Verdict::Refuse(refusal)
            }
        }
    }

    fn opened(&mut self, session: &mut Session<'_, Client>) {
        let Some(client) = session.user() else { return };
        if let Client::Arriving(handshake, _) = client {
            let handshake = *handshake;
            if let Client::Arriving(_, subscriber) = std::mem::take(client) {
                self.arrived(session, handshake, *subscriber);
            }
            return;
        }
        if let Client::Subscriber(subscriber) = client {
            let (app, socket_id) = (subscriber.admission.index(), subscriber.socket_id);
            let now = session.connections().now();
            if let Some(Client::Subscriber(subscriber)) = session.user() {
                subscriber.opened = seconds(now);
            }
            self.send_established(session, app, socket_id);
            let id = session.id();
            return self.come_as_user(session.connections(), id);
        }
        if let Client::Refused(close) = std::mem::take(client) {
            let id = session.id();
            let event =
                ServerEvent::Error { code: Some(close.code().as_u16()), message: close.reason(), channel: None };
            self.send_event(session.connections(), id, &event);
            session.close(*close);
        }
    }

    fn message(&mut self, session: &mut Session<'_, Client>, message: Message<'_>) {
        let Some(Client::Subscriber(subscriber)) = session.user() else { return };
        if let Some(local_app) = self.local_app(subscriber.admission.index()) {
            local_app.count(|traffic| {
                traffic.received += 1;
                traffic.received_bytes += message.as_bytes().len() as u64;
            });
        }
        if subscriber.routed().is_some() {
            return self.routed_message(session, &message);
        }
        let parsed = match &message {
            Message::Text(text) => ClientEvent::parse(text).map_err(Some),
            // The protocol knows text only, but some clients send it in binary messages.
            Message::Binary(bytes) => {
                str::from_utf8(bytes).ok().and_then(|text| ClientEvent::parse(text).ok()).ok_or(None)
            }
        };
        match parsed {
            Ok(event) => {
                subscriber.malformed = 0;
                self.handle(session, event);
            }
            Err(Some(malformed)) => self.malformed(session, &malformed.to_string()),
            Err(None) => {
                let id = session.id();
                let reason = "A binary message that is not the Pusher protocol in JSON";
                self.dismiss(session.connections(), id, Close::new(CloseCode::UNSUPPORTED, reason));
            }
        }
    }

    fn closed(&mut self, connections: &mut Connections<Client>, closed: Closed<Client>) {
        let code = closed.reason.code().as_u16();
        tracing::trace!(code, "a connection has ended");
        let Closed { id, user: Client::Subscriber(subscriber), reason } = closed else { return };
        let Subscriber { admission, socket_id, mut extras, .. } = subscriber;
        let routed = extras.as_mut().and_then(|extras| extras.routed.take());
        let app = admission.index();
        self.leave_all(connections, id, app, extras, Cause::Lost);
        if let Some(routed) = routed {
            self.parted(id, &reason, Arc::clone(&admission), socket_id, *routed);
        }
        self.note(&admission, || Event::Disconnected { socket_id, code });
    }

    fn written(&mut self, connections: &mut Connections<Client>, id: ConnectionId) {
        self.pass_on(connections, id);
    }

    fn draining(&mut self, connections: &mut Connections<Client>, id: ConnectionId, close: &Close) -> Close {
        let is_routed = subscriber(connections, id).is_some_and(|subscriber| subscriber.routed().is_some());
        // The codes of Pusher's protocol are for its clients.
        if is_routed { Close::new(CloseCode::SERVICE_RESTART, close.reason().to_owned()) } else { close.clone() }
    }

    fn out_of_descriptors(&mut self, error: &io::Error, turned_away: usize) {
        accept_backoff::tell(error, turned_away);
    }

    fn mail(&mut self, connections: &mut Connections<Client>, mail: Mail) {
        match mail {
            Mail::Hub(Envelope { app, from, content }) => {
                self.settle(connections, app, |hub, end, bus, now, outlet| {
                    end.receive(hub, from, content, bus, now, outlet);
                });
            }
            Mail::Terminate { app, user_id, age, done } => self.terminate(connections, app, &user_id, age, &done),
            Mail::Mark { done } => drop(done),
            Mail::Authorized { asker, app, outcome } => self.authorized(connections, asker, app, *outcome),
            Mail::Routed { whose, outcome } => self.routed(connections, whose, outcome),
            Mail::Relayed { connection } => self.pass_on(connections, connection),
            Mail::Granted { app, granted } => self.granted(connections, app, granted),
            Mail::AppsChanged => {
                self.dismiss_unserved(connections);
                self.follow_routes(connections);
            }
            Mail::Standing(standing) => self.stand(connections, standing),
            Mail::Tick => self.tick(connections),
            Mail::EndGrace => self.end_grace(connections),
            Mail::Query(query) => self.answer(connections, query),
        }
    }

    fn respond(
        &mut self,
        _: &mut Connections<Client>,
        request: &Request<'_>,
        content: &[u8],
        response: &mut Vec<u8>,
    ) -> Responded {
        self.inline.as_mut().map_or(Responded::HandOver, |inline| inline.answer(request, content, response))
    }

    fn hand_over(&mut self, handover: Handover) {
        (self.depart)(handover);
    }
}

impl Client {
    fn socket_id(&self) -> Option<SocketId> {
        match self {
            Self::Subscriber(subscriber) => Some(subscriber.socket_id),
            Self::Leaving | Self::Refused(_) | Self::Arriving(..) => None,
        }
    }
}

impl Subscriber {
    fn extras(&mut self) -> &mut Extras {
        self.extras.get_or_insert_default()
    }

    /// Takes what it has as a subscriber. What it has of a route stays until it has ended.
    fn take_extras(&mut self) -> Option<Box<Extras>> {
        let mut extras = self.extras.take()?;
        if let Some(routed) = extras.routed.take() {
            self.extras().routed = Some(routed);
        }
        Some(extras)
    }

    fn routed(&self) -> Option<&Routed> {
        self.extras.as_ref()?.routed.as_deref()
    }

    /// Gives back what is not needed any more.
    fn tidy(&mut self) {
        self.extras.take_if(|extras| {
            extras.user.is_none()
                && extras.presences.is_empty()
                && extras.waiting.is_empty()
                && extras.triggering.is_none()
                && extras.routed.is_none()
        });
    }

    fn user(&self) -> Option<&SignedIn> {
        self.extras.as_ref()?.user.as_ref()
    }
}

fn send(connections: &mut Connections<Client>, id: ConnectionId, event: &ServerEvent<'_>, text: &mut String) {
    let encoding = encoding(connections, id);
    if encoding.is_some_and(|encoding| !routed::is_told(event, encoding)) {
        return;
    }
    text.clear();
    event.write(text);
    if encoding.is_some() {
        *text = frames::event(text).unwrap_or_default();
    }
    // A reader that is too slow is closed by the shard, and counted there.
    let _ = match encoding {
        Some(Encoding::Events(_)) => connections.send(id, sse::message(text).as_bytes()),
        _ => connections.send(id, text.as_str()),
    };
    text.shrink_to(LARGEST_TEXT_KEPT);
}

/// Counts what was refused to a client, and tells the log.
fn tell_refused(app: &App, socket_id: SocketId, reason: RefusalReason, channel: Option<&str>, why: &str) {
    app.refusals().count(reason);
    let client = refusals::Client { app: Some(app.id()), socket_id: Some(socket_id), channel, address: None };
    refusals::tell(reason, client, why);
}

/// The app of a connection, and what the protocol calls the connection.
fn whose(connections: &mut Connections<Client>, id: ConnectionId) -> Option<(AppIndex, SocketId)> {
    subscriber(connections, id).map(|subscriber| (subscriber.admission.index(), subscriber.socket_id))
}

/// The connection, if it takes part and is not gone.
fn subscriber(connections: &mut Connections<Client>, id: ConnectionId) -> Option<&mut Subscriber> {
    match connections.user(id)? {
        Client::Subscriber(subscriber) => Some(subscriber),
        Client::Leaving | Client::Refused(_) | Client::Arriving(..) => None,
    }
}

/// How a connection gets events if it is of a route; `None`: it speaks Pusher's protocol. It is about to get one.
fn encoding(connections: &mut Connections<Client>, id: ConnectionId) -> Option<Encoding> {
    let now = connections.now();
    let routed = subscriber(connections, id)?.extras.as_mut()?.routed.as_mut()?;
    let encoding = routed.encoding();
    if encoding != Encoding::Bytes {
        routed.heard = now;
    }
    Some(encoding)
}

/// Seconds since the shard's start, for 136 years.
fn seconds(time: Time) -> u32 {
    u32::try_from(time.as_micros() / 1_000_000).unwrap_or(u32::MAX)
}

/// Messages in a row that cannot be read, after which a client is given up.
const MOST_MALFORMED: u8 = 10;

/// Characters of a client's own text that a refusal repeats.
const LONGEST_ECHO: usize = 40;

/// Bytes.
const LARGEST_TEXT_KEPT: usize = 64 * 1024;

#[cfg(test)]
mod tests;
