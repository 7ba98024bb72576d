//! What one client may do, on one shard.

mod answer;
mod asking;
mod delivery;
mod entrance;
mod hosting;
mod starvation;
mod subscription;
mod trigger;
mod user;

use std::cell::Cell;
use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashMap, HashSet};
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Instant;

use taut_proto::handshake::Request;
use taut_proto::{Close, CloseCode, Message, Time};
use taut_shard::{
    Closed, ConnectionId, Connections, Handler, Handover, HandshakeId, Outgoing, Responded, Session, Verdict,
};

use crate::guard::Guard;
use crate::home::{Home, Users};
use crate::interest::Interest;
use crate::journal::{Event, Journal};
use crate::limit::TokenBucket;
use crate::pusher::event::{ClientEvent, ServerEvent};
use crate::pusher::socket_id::SocketId;
use crate::question::{Histogram, Traffic};
use crate::route::{Mail, Routes};
use crate::tenants::{Admission, Apps, Tenant};
use asking::Line;
pub(crate) use entrance::no_such_app;
use subscription::Waiting;
use user::SignedIn;

/// All clients of a shard.
pub(crate) struct Sessions {
    shard: usize,
    apps: Arc<Apps>,
    routes: Arc<Routes>,
    journal: Journal,
    guard: Arc<Guard>,
    clerk: Option<Box<dyn Clerk>>,
    /// What stands before the key in a client's path.
    path: String,
    /// Seconds; what clients are told.
    activity_timeout: u32,
    /// Bytes that may wait for a client that reads too slowly.
    outgoing: usize,
    /// By the index of the app.
    rooms: Vec<Rooms>,
    /// The number of the last question to another shard.
    tickets: u32,
    /// To the other shards, by their numbers.
    lines: Vec<Line>,
    /// Connections that have to sign in or to subscribe to what needs it, by when.
    unauthorized: BinaryHeap<Reverse<(Time, ConnectionId)>>,
    latency: Cell<Histogram>,
    /// Where what is sent gets its text.
    text: String,
    /// Takes the connections whose requests are answered elsewhere.
    depart: Box<dyn Fn(Handover) + Send>,
}

/// Answers requests that are no client's, as far as that can be done at once: on the shard's time.
pub(crate) trait Clerk: Send {
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
    /// It takes part.
    Member(Member),
}

/// A connection that takes part. Most have no extras, and so take little memory.
#[derive(Debug)]
pub(crate) struct Member {
    admission: Admission,
    socket_id: SocketId,
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
}

/// One app on this shard.
#[derive(Debug)]
struct Rooms {
    tenant: Arc<Tenant>,
    /// Who has been told that it is subscribed, and gets what is published.
    members: Interest<ConnectionId>,
    /// Who waits for the owner of a channel.
    waiting: HashMap<Arc<str>, Vec<Waiting>>,
    /// How many wait, those included who have left since.
    waiters: usize,
    /// Of those channels whose home this shard is.
    home: Home,
    /// Of all users, if this shard is their home.
    users: Users,
    /// The connections here that have signed in.
    signed_in: Interest<ConnectionId>,
    /// Users whom connections here watch.
    watched: Interest<ConnectionId>,
    /// Channels whose homes have still to be told how many are subscribed.
    uncounted: HashSet<Arc<str>>,
    traffic: Cell<Traffic>,
}

impl Rooms {
    fn new(tenant: Arc<Tenant>) -> Self {
        Self {
            tenant,
            members: Interest::new(),
            waiting: HashMap::new(),
            waiters: 0,
            home: Home::default(),
            users: Users::default(),
            signed_in: Interest::new(),
            watched: Interest::new(),
            uncounted: HashSet::new(),
            traffic: Cell::default(),
        }
    }

    fn count(&self, count: impl FnOnce(&mut Traffic)) {
        let mut traffic = self.traffic.get();
        count(&mut traffic);
        self.traffic.set(traffic);
    }
}

impl Sessions {
    #[expect(clippy::too_many_arguments, reason = "once, as the server starts")]
    pub(crate) fn new(
        shard: usize,
        apps: Arc<Apps>,
        routes: Arc<Routes>,
        journal: Journal,
        path_prefix: &str,
        activity_timeout: u32,
        outgoing: usize,
        depart: impl Fn(Handover) + Send + 'static,
    ) -> Self {
        let mut sessions = Self {
            shard,
            apps,
            routes,
            journal,
            guard: Arc::new(Guard::alone()),
            clerk: None,
            path: format!("{path_prefix}/app/"),
            activity_timeout,
            outgoing,
            rooms: Vec::new(),
            tickets: 0,
            lines: Vec::new(),
            unauthorized: BinaryHeap::new(),
            latency: Cell::default(),
            text: String::new(),
            depart: Box::new(depart),
        };
        sessions.open_rooms();
        sessions
    }

    /// Asks this one who may come in, where apps want to know.
    pub(crate) fn guarded(mut self, guard: Arc<Guard>) -> Self {
        self.guard = guard;
        self
    }

    /// Asks this one first what requests are answered that are no client's.
    pub(crate) fn assisted(mut self, clerk: impl Clerk + 'static) -> Self {
        self.clerk = Some(Box::new(clerk));
        self
    }

    /// Sees to it that every app has its rooms.
    fn open_rooms(&mut self) {
        let tenants = self.apps.all();
        let opened = self.rooms.len();
        self.rooms.extend(tenants.into_iter().skip(opened).map(Rooms::new));
    }

    fn rooms(&mut self, tenant: usize) -> &mut Rooms {
        if self.rooms.len() <= tenant {
            self.open_rooms();
        }
        &mut self.rooms[tenant]
    }

    /// A connection is greeted, and what is to come of it is noted.
    fn greet(&mut self, session: &mut Session<'_, Client>, tenant: usize, socket_id: SocketId) {
        let id = session.id();
        let event = ServerEvent::ConnectionEstablished { socket_id, activity_timeout: self.activity_timeout };
        self.say(session.connections(), id, &event);
        let tenant = Arc::clone(&self.rooms[tenant].tenant);
        let terms = Arc::clone(&tenant.terms());
        session.set_outgoing(Outgoing { bytes: self.outgoing, slow_reader: terms.limits.slow_reader });
        let timeout = terms.app.features.authorization_timeout;
        if !timeout.is_zero() {
            self.unauthorized.push(Reverse((session.connections().now() + timeout, id)));
        }
        self.note(&tenant, || Event::Connected { socket_id });
    }

    /// Closes a connection from our side. It leaves its channels and its user at once: whether it answers the close, and when, changes nothing for
    /// others.
    fn dismiss(&mut self, connections: &mut Connections<Client>, id: ConnectionId, close: Close) {
        let Some(member) = member(connections, id) else { return };
        let (tenant, extras) = (member.admission.index(), member.extras.take());
        connections.close(id, close);
        self.leave_all(connections, id, tenant, extras);
    }

    /// The same after an event that says why, for clients that do not look at close frames.
    fn dismiss_with_error(&mut self, connections: &mut Connections<Client>, id: ConnectionId, close: Close) {
        let event = ServerEvent::Error { code: Some(close.code().as_u16()), message: close.reason(), channel: None };
        self.say(connections, id, &event);
        self.dismiss(connections, id, close);
    }

    fn malformed(&mut self, session: &mut Session<'_, Client>, reason: &str) {
        let Some(Client::Member(member)) = session.user() else { return };
        member.malformed += 1;
        let enough = member.malformed >= MOST_MALFORMED;
        let id = session.id();
        self.say(session.connections(), id, &ServerEvent::Error { code: None, message: reason, channel: None });
        if enough {
            let reason = "Too many messages in a row that are not the Pusher protocol";
            self.dismiss(session.connections(), id, Close::new(CloseCode::UNSUPPORTED, reason));
        }
    }

    fn handle(&mut self, session: &mut Session<'_, Client>, event: ClientEvent<'_>) {
        let id = session.id();
        let connections = session.connections();
        match event {
            ClientEvent::Ping => self.say(connections, id, &ServerEvent::Pong),
            ClientEvent::Subscribe { channel, auth, channel_data } => {
                self.subscribe(connections, id, &channel, &auth, channel_data.as_deref());
            }
            ClientEvent::Unsubscribe { channel } => self.unsubscribe(connections, id, &channel),
            ClientEvent::SignIn { auth, user_data } => self.sign_in(connections, id, &auth, &user_data),
            ClientEvent::Triggered { event, channel, data } => {
                self.trigger(connections, id, &event, channel.as_deref(), data.as_deref());
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
            if member(connections, id).is_some_and(|member| !member.authorized) {
                let close = Close::new(UNAUTHORIZED, "Connection not authorized within timeout");
                self.dismiss_with_error(connections, id, close);
            }
        }
        if self.unauthorized.is_empty() {
            self.unauthorized.shrink_to_fit();
        }
    }

    /// Closes the connections of apps that are served no more.
    fn dismiss_unserved(&mut self, connections: &mut Connections<Client>) {
        self.open_rooms();
        let ids: Vec<ConnectionId> = connections.ids().collect();
        for id in ids {
            let Some(member) = member(connections, id) else { continue };
            let close = match &**member.admission.terms() {
                terms if !terms.known => Close::new(NO_SUCH_APP, "Application does not exist: it was removed"),
                terms if !terms.app.enabled => Close::new(APP_DISABLED, "Application disabled"),
                _ => continue,
            };
            self.dismiss_with_error(connections, id, close);
        }
    }

    fn tick(&mut self, connections: &mut Connections<Client>) {
        self.routes.has_ticked(self.shard, Instant::now());
        self.expire(connections);
        for tenant in 0..self.rooms.len() {
            self.rooms[tenant].home.sweep(connections.now());
            for channel in std::mem::take(&mut self.rooms[tenant].uncounted) {
                self.recount(connections, tenant, &channel);
            }
            for (channel, count) in self.rooms[tenant].home.late_counts(connections.now()) {
                self.announce_count(connections, tenant, &channel, count);
            }
        }
    }

    fn say(&mut self, connections: &mut Connections<Client>, id: ConnectionId, event: &ServerEvent<'_>) {
        self.text.clear();
        event.write(&mut self.text);
        // A reader that is too slow is closed by the shard, and counted there.
        let _ = connections.send(id, self.text.as_str());
        self.text.shrink_to(LARGEST_TEXT_KEPT);
    }

    /// Writes something down that only a console shows.
    fn note(&self, tenant: &Arc<Tenant>, event: impl FnOnce() -> Event) {
        if self.journal.is_watched() {
            self.journal.record(tenant, event());
        }
    }

    /// Something was refused to a client, which has been told.
    fn refused(&self, tenant: usize, socket_id: SocketId, reason: &str) {
        let rooms = &self.rooms[tenant];
        rooms.count(|traffic| traffic.refused += 1);
        self.note(&rooms.tenant, || Event::Refused { socket_id, reason: reason.into() });
    }
}

impl Handler for Sessions {
    type User = Client;
    type Mail = Mail;

    fn handshake<'r>(&mut self, request: &'r Request<'r>, peer: SocketAddr, id: HandshakeId) -> Verdict<'r, Client> {
        if !request.wants_upgrade() {
            let content = self.clerk.as_ref().and_then(|clerk| clerk.content(request));
            return content.map_or(Verdict::HandOver, |content| Verdict::Respond { content });
        }
        match request.upgrade() {
            Ok(upgrade) => self.receive(request, upgrade, peer, id),
            Err(refusal) => Verdict::Refuse(refusal),
        }
    }

    fn opened(&mut self, session: &mut Session<'_, Client>) {
        let Some(client) = session.user() else { return };
        if let Client::Member(member) = client {
            let (tenant, socket_id) = (member.admission.index(), member.socket_id);
            self.greet(session, tenant, socket_id);
            let id = session.id();
            return self.come_as_user(session.connections(), id);
        }
        if let Client::Refused(close) = std::mem::take(client) {
            let id = session.id();
            let event =
                ServerEvent::Error { code: Some(close.code().as_u16()), message: close.reason(), channel: None };
            self.say(session.connections(), id, &event);
            session.close(*close);
        }
    }

    fn message(&mut self, session: &mut Session<'_, Client>, message: Message<'_>) {
        let Some(Client::Member(member)) = session.user() else { return };
        self.rooms[member.admission.index()].count(|traffic| {
            traffic.received += 1;
            traffic.received_bytes += message.as_bytes().len() as u64;
        });
        let parsed = match &message {
            Message::Text(text) => ClientEvent::parse(text).map_err(Some),
            // The protocol knows text only, but some clients send it in binary messages.
            Message::Binary(bytes) => {
                str::from_utf8(bytes).ok().and_then(|text| ClientEvent::parse(text).ok()).ok_or(None)
            }
        };
        match parsed {
            Ok(event) => {
                member.malformed = 0;
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
        let Client::Member(Member { admission, socket_id, extras, .. }) = closed.user else { return };
        let tenant = admission.index();
        self.leave_all(connections, closed.id, tenant, extras);
        self.note(&admission, || Event::Disconnected { socket_id, code });
    }

    fn starved(&mut self, error: &io::Error, turned_away: usize) {
        starvation::tell(error, turned_away);
    }

    fn mail(&mut self, connections: &mut Connections<Client>, mail: Mail) {
        match mail {
            Mail::Publish(published) => self.publish(connections, &published),
            Mail::Deliver(published) => self.deliver(connections, &published),
            Mail::Missed { tenant, channel } => self.missed(connections, tenant, &channel),
            Mail::Enter { tenant, channel, shard, ticket, wish } => {
                self.answer_entry(connections, tenant, &channel, shard, ticket, &wish);
            }
            Mail::Entered { tenant, channel, ticket, welcome } => {
                self.entered(connections, tenant, &channel, ticket, &welcome);
            }
            Mail::TurnedAway { tenant, channel, ticket, why } => {
                self.turned_away(connections, tenant, &channel, ticket, why);
            }
            Mail::Leave { tenant, channel, shard, user_id, is_last } => {
                self.host_leave(connections, tenant, &channel, shard, user_id.as_ref(), is_last);
            }
            Mail::Count { tenant, channel, shard, connections: count } => {
                self.host_count(connections, tenant, &channel, shard, count);
            }
            Mail::Online { tenant, user_id, is_online } => self.host_online(connections, tenant, &user_id, is_online),
            Mail::Watch { tenant, user_ids, shard, connection } => {
                self.host_watch(connections, tenant, &user_ids, shard, connection);
            }
            Mail::Watched { connection, online, offline } => {
                self.say(connections, connection, &ServerEvent::WatchlistEvents { online: &online, offline: &offline });
            }
            Mail::Unwatch { tenant, user_id, shard } => self.rooms(tenant).users.unwatch(&user_id, shard),
            Mail::Status { tenant, user_id, is_online } => self.status(connections, tenant, &user_id, is_online),
            Mail::Terminate { tenant, user_id, done } => self.terminate(connections, tenant, &user_id, &done),
            Mail::Mark { done } => drop(done),
            Mail::Vetted { handshake, tenant, outcome } => self.vetted(connections, handshake, tenant, *outcome),
            Mail::AppsChanged => self.dismiss_unserved(connections),
            Mail::Tick => self.tick(connections),
            Mail::Ask(question) => self.answer(connections, question),
        }
    }

    fn respond(
        &mut self,
        _: &mut Connections<Client>,
        request: &Request<'_>,
        content: &[u8],
        response: &mut Vec<u8>,
    ) -> Responded {
        self.clerk.as_mut().map_or(Responded::HandOver, |clerk| clerk.answer(request, content, response))
    }

    fn hand_over(&mut self, handover: Handover) {
        (self.depart)(handover);
    }
}

impl Client {
    fn socket_id(&self) -> Option<SocketId> {
        match self {
            Self::Member(member) => Some(member.socket_id),
            Self::Leaving | Self::Refused(_) => None,
        }
    }
}

impl Member {
    fn extras(&mut self) -> &mut Extras {
        self.extras.get_or_insert_default()
    }

    /// Gives back what is not needed any more.
    fn tidy(&mut self) {
        self.extras.take_if(|extras| {
            extras.user.is_none()
                && extras.presences.is_empty()
                && extras.waiting.is_empty()
                && extras.triggering.is_none()
        });
    }

    fn user(&self) -> Option<&SignedIn> {
        self.extras.as_ref()?.user.as_ref()
    }
}

/// The connection, if it takes part and is not gone.
fn member(connections: &mut Connections<Client>, id: ConnectionId) -> Option<&mut Member> {
    match connections.user(id)? {
        Client::Member(member) => Some(member),
        Client::Leaving | Client::Refused(_) => None,
    }
}

/// Pusher's close codes. Clients do not come back after 4000 to 4099, come back after a second after 4100 to 4199, and at once after 4200 to 4299.
const NO_SUCH_APP: CloseCode = CloseCode::new(4001);
const APP_DISABLED: CloseCode = CloseCode::new(4003);
const OVER_QUOTA: CloseCode = CloseCode::new(4004);
pub(crate) const PATH_NOT_FOUND: CloseCode = CloseCode::new(4005);
const INVALID_VERSION: CloseCode = CloseCode::new(4006);
const UNSUPPORTED_VERSION: CloseCode = CloseCode::new(4007);
const UNAUTHORIZED: CloseCode = CloseCode::new(4009);
pub(crate) const OVER_CAPACITY: CloseCode = CloseCode::new(4100);
/// What clients are told when the server goes down. After 4200 pusher-js comes back in the same instant, finds nobody where there is one server
/// that restarts, and waits out a timer of 15 seconds; after a code of this hundred it comes a second later.
pub(crate) const GOING_DOWN: CloseCode = OVER_CAPACITY;
pub(crate) const PONG_NOT_RECEIVED: CloseCode = CloseCode::new(4201);

/// Messages in a row that cannot be read, after which a client is given up.
const MOST_MALFORMED: u8 = 10;

/// Characters of a client's own text that a refusal repeats.
const LONGEST_ECHO: usize = 40;

/// Bytes.
const LARGEST_TEXT_KEPT: usize = 64 * 1024;

#[cfg(test)]
mod tests;
