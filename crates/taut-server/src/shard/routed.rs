//! Connections of routes: their events go to the route's backend, and what it answers is carried out here.

mod follow;

use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap, HashMap};
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, Instant};

use taut_proto::handshake::origin::same_host;
use taut_proto::handshake::{Refusal, Request, Upgrade};
use taut_proto::{Close, CloseCode, Message, Time};
use taut_shard::{Answer as ShardAnswer, ConnectionId, Connections, HandshakeId, Outgoing, Reason, Session, Verdict};

use super::client_info::ClientInfo;
use super::connect::Applicant;
use super::frames::Encoding;
use super::grip::Grip;
use super::publications::publication;
use super::sign_in::SignedIn;
use super::subscribe::Refused;
use super::visit::{self, Stream, Visit};
use super::{Client, PusherHandler, Subscriber, connect, streams, subscriber};
use crate::app::Limits;
use crate::apps::{Admission, App};
use crate::connect_auth::{Authorization, Requester};
use crate::events::Event as Shown;
use crate::gateway::event::{self, Answer, Event, Publish, Step, Subscription};
use crate::gateway::grip::{Control, ControlMessage, Extension, Kind as MessageKind};
use crate::gateway::relay::Relay;
use crate::gateway::seen::Seen;
use crate::gateway::sse;
use crate::gateway::stream::{Beginning, Teller};
use crate::gateway::{
    Asker, Auth, Conversation, Failure, Form, Frames, Head, Job, Kept, OnError, Outcome, Parameters, Route, Transport,
    Whose,
};
use crate::hub::command::{PresenceMember, Publication};
use crate::origin;
use crate::pusher::channel::{Channel, Kind};
use crate::pusher::event::ServerEvent;
use crate::pusher::socket_id::SocketId;
use crate::refusals::{self, RefusalReason};

/// What a connection of a route has beside its subscriptions.
#[derive(Debug)]
pub(super) struct Routed {
    pub(super) route: Arc<Route>,
    app: Arc<App>,
    head: Arc<Head>,
    conversation: Conversation,
    is_paused: bool,
    grip: Option<Box<Grip>>,
    /// Of a stream of Server-Sent Events: the kept events that its client has seen.
    pub(super) seen: Option<Box<Seen>>,
    /// Its connection to a backend with WebSockets.
    pub(super) relay: Option<Arc<Relay>>,
    /// What its backend was told last.
    asked: &'static str,
    /// When it was last sent something.
    pub(super) heard: Time,
}

/// The connections of routes on this shard that are not open.
#[derive(Debug, Default)]
pub(super) struct Routes {
    /// Those whose backends are asked whether they may come, or have said so and whose clients are still to be told.
    pub(super) opening: HashMap<HandshakeId, Opening>,
    /// Those that have ended, and whose backends are not told everything yet.
    parting: HashMap<ConnectionId, Parting>,
    /// When timers are due: of some, more often than once.
    timers: BinaryHeap<Reverse<(Time, ConnectionId)>>,
    /// More connections have ended than backends could be told of.
    is_overfull: bool,
    /// Those whose routes are gone, and that are still to be closed.
    removed: Vec<ConnectionId>,
}

#[derive(Debug)]
pub(super) struct Opening {
    routed: Routed,
    app: Arc<App>,
    /// Of a stream: how its response begins is told here, once.
    teller: Option<Teller>,
    /// Its place among the app's connections, until it is let in.
    admission: Option<Admission>,
    socket_id: SocketId,
    client: ClientInfo,
    accepted: Option<Accepted>,
}

/// The backend has accepted a connection, and the client is being told so.
#[derive(Debug)]
struct Accepted {
    answer: Box<Answer>,
    at: Time,
}

#[derive(Debug)]
struct Parting {
    routed: Routed,
    app: Arc<App>,
    socket_id: SocketId,
}

impl Routed {
    fn new(Visit { route, head, stream }: Visit, app: Arc<App>, kept: Kept, now: Time) -> (Self, Option<Teller>) {
        let mut conversation = Conversation::new();
        conversation.keep(kept);
        let (teller, seen) = stream.map(|Stream { teller, seen }| (teller, seen)).unzip();
        let mut routed = Self {
            route,
            app,
            head,
            conversation,
            is_paused: false,
            grip: None,
            seen: None,
            relay: None,
            asked: "",
            heard: now,
        };
        if let Encoding::Events(_) = routed.encoding() {
            routed.seen = seen.map(Box::new);
        }
        (routed, teller)
    }

    fn grip(&mut self) -> &mut Grip {
        self.grip.get_or_insert_default()
    }

    /// How it gets what it is sent.
    pub(super) fn encoding(&self) -> Encoding {
        match (self.head.transport, self.route.form()) {
            (Transport::WebSocket, _) => Encoding::Messages(self.route.frames()),
            (Transport::Stream, Form::Plain) => Encoding::Events(self.route.frames()),
            (Transport::Stream, Form::WebSocketOverHttp) => Encoding::Bytes,
        }
    }

    /// Whether its client only listens.
    pub(super) fn is_stream(&self) -> bool {
        self.head.transport == Transport::Stream
    }

    /// Whether its backend hears of it after it was let in. By GRIP a response that is held was the end of its request.
    fn is_told(&self) -> bool {
        self.encoding() != Encoding::Bytes
    }

    /// Tells the backend that the connection is over.
    fn end(&mut self, code: u16, reason: Box<str>, is_clean: bool) {
        if self.is_told() {
            self.conversation.push(Event::Close { code, reason, is_clean });
        }
    }

    /// Whether it leaves out what a publisher has marked so in a channel.
    pub(super) fn skips(
        &self,
        channel: &str,
        meta: &BTreeMap<String, String>,
        is_subscribed: impl Fn(&str) -> bool,
    ) -> bool {
        self.grip.as_ref().is_some_and(|grip| grip.skips(channel, meta, is_subscribed))
    }

    /// What the console shows of an outcome.
    fn told(&self, socket_id: SocketId, outcome: &Outcome) -> Shown {
        let outcome = format!("{}: {}", self.route.name(), outcome.name()).into();
        Shown::Told { socket_id, event: self.asked, outcome }
    }

    /// The next event for the backend, if it is its turn.
    fn next(&mut self, socket_id: SocketId, asker: Asker) -> Option<Job> {
        let exchange = self.conversation.next(self.route.batch())?;
        self.asked = exchange.kind();
        let (app, route, head) = (Arc::clone(&self.app), Arc::clone(&self.route), Arc::clone(&self.head));
        Some(Job { asker, app, route, head, connection: socket_id, exchange, relay: self.relay.clone() })
    }
}

impl PusherHandler {
    /// A client asks for a path of a route, maybe for a stream: its backend decides.
    pub(super) fn connect_to_route<'r>(
        &mut self,
        request: &Request<'_>,
        upgrade: Upgrade<'r>,
        peer: SocketAddr,
        handshake: HandshakeId,
        (route, params): (Arc<Route>, Parameters),
        stream: Option<Stream>,
    ) -> Verdict<'r, Client> {
        let transport = if stream.is_some() { Transport::Stream } else { Transport::WebSocket };
        let address = self.connect_auth.client(request, peer);
        let app = match self.app_of_route(&route, request, address) {
            Ok(app) => app,
            Err(refusal) => return Verdict::Refuse(visit::refused(stream, refusal)),
        };
        let snapshot = Arc::clone(&app.snapshot());
        let asker = Requester { shard: self.end.here(), handshake, address };
        let authorization = match route.auth() {
            Auth::Jwt => self.connect_auth.vet_token(&app, &snapshot, request, asker),
            Auth::Backend | Auth::None => Authorization::Anybody,
        };
        let passes = |name: &str| route.passes(name, transport);
        let head = Arc::new(Head::new(request, peer, address, self.is_secure, passes, params, transport));
        let client = ClientInfo::new(address, self.sdks.of(request));
        let applicant = Applicant::new(asker, client, Some(Box::new(Visit { route, head, stream })));
        self.proceed(upgrade, &app, applicant, authorization)
    }

    /// The app of a route, if it takes clients and nothing but their number and their right can speak against this one.
    fn app_of_route(&self, route: &Route, request: &Request<'_>, address: IpAddr) -> Result<Arc<App>, Refusal> {
        let turned_away = |reason, refusal: Refusal, app: Option<&App>| {
            let counted = app.map_or_else(|| self.apps.refusals(), App::refusals);
            counted.count(reason);
            let client =
                refusals::Client { app: app.map(App::id), address: Some(address), ..refusals::Client::default() };
            refusals::tell(reason, client, &refusal);
            Err(refusal)
        };
        let Some(app) = route.app(&self.apps) else {
            let refusal = Refusal::with_status(503, "The app of this route is not served.");
            return turned_away(RefusalReason::UnknownKey, refusal, None);
        };
        let snapshot = Arc::clone(&app.snapshot());
        if let Err(unwelcome) = connect::check_standing(&snapshot) {
            let refusal = Refusal::forbidden(unwelcome.close.reason().to_owned());
            return turned_away(unwelcome.reason, refusal, Some(&app));
        }
        if let Err(refusal) = check_origin(route, &snapshot.config.origins, request) {
            return turned_away(RefusalReason::Origin, refusal, Some(&app));
        }
        Ok(app)
    }

    /// Asks the backend of a route to let a client in, for which there is a place.
    pub(super) fn ask_to_open(
        &mut self,
        handshake: HandshakeId,
        visit: Visit,
        kept: Kept,
        admission: Admission,
        socket_id: SocketId,
        client: ClientInfo,
    ) {
        let app = Arc::clone(&admission);
        let (mut routed, teller) = Routed::new(visit, Arc::clone(&app), kept, Time::ZERO);
        self.ask(&mut routed, socket_id, Whose::Opening(handshake));
        let (admission, accepted) = (Some(admission), None);
        self.routes.opening.insert(handshake, Opening { routed, app, teller, admission, socket_id, client, accepted });
    }

    /// Takes the next event to the backend, if it is its turn.
    fn ask(&self, routed: &mut Routed, socket_id: SocketId, whose: Whose) {
        if let Some(job) = routed.next(socket_id, Asker { shard: self.end.here(), whose }) {
            self.gateway.ask(job);
        }
    }

    /// A backend has answered, or has not.
    pub(super) fn routed(&mut self, connections: &mut Connections<Client>, whose: Whose, outcome: Outcome) {
        match whose {
            Whose::Opening(handshake) => self.decided(connections, handshake, outcome),
            Whose::Open(id) if routed(connections, id).is_some() => self.answered(connections, id, outcome),
            // It has ended meanwhile.
            Whose::Open(id) | Whose::Parting(id) => self.answered_late(id, outcome),
            Whose::Nobody => {}
        }
        self.gateway.settled();
    }

    fn decided(&mut self, connections: &mut Connections<Client>, handshake: HandshakeId, outcome: Outcome) {
        let Some(Opening { routed, app, teller, admission, client, socket_id, accepted }) =
            self.routes.opening.get_mut(&handshake)
        else {
            return;
        };
        if self.events.is_watched() {
            self.events.record(app, routed.told(*socket_id, &outcome));
        }
        let (reason, refusal) = match outcome {
            Outcome::Answered(mut answer) => {
                let Some(admission) = admission.take() else { return };
                routed.relay = answer.acceptance.relay.take();
                let headers = streams::accept(teller.take(), std::mem::take(&mut answer.acceptance));
                *accepted = Some(Accepted { answer, at: connections.now() });
                let subscriber = Subscriber {
                    admission,
                    socket_id: *socket_id,
                    client: client.clone(),
                    opened: 0,
                    extras: None,
                    malformed: 0,
                    authorized: true,
                };
                let client = Client::Arriving(handshake, Box::new(subscriber));
                return connections.answer(handshake, ShardAnswer::AcceptWith(client, headers));
            }
            Outcome::Refused(refusal) => (RefusalReason::Callback, refusal),
            Outcome::Failed(failure) => (RefusalReason::Unavailable, failure.refusal()),
            Outcome::Passed(response) => {
                if let Some(teller) = teller.take() {
                    teller.tell(Beginning::Complete(*response));
                }
                self.routes.opening.remove(&handshake);
                // The connection was opened for a stream, and nobody sees how it ends.
                return connections.answer(handshake, ShardAnswer::Refuse(Refusal::with_status(500, "")));
            }
        };
        if let Some(teller) = teller.take() {
            teller.tell(Beginning::Refused(refusal.clone()));
        }
        app.refusals().count(reason);
        let who =
            refusals::Client { app: Some(app.id()), address: Some(client.address()), ..refusals::Client::default() };
        // The application's words are for the client alone.
        refusals::tell(reason, who, format_args!("the backend of the route answered with {}", refusal.status()));
        self.routes.opening.remove(&handshake);
        connections.answer(handshake, ShardAnswer::Refuse(refusal));
    }

    /// A connection that was accepted is open.
    pub(super) fn arrived(&mut self, session: &mut Session<'_, Client>, handshake: HandshakeId, mut new: Subscriber) {
        let id = session.id();
        let Some(Opening { mut routed, app, accepted: Some(Accepted { answer, .. }), .. }) =
            self.routes.opening.remove(&handshake)
        else {
            return session.close(Close::new(CloseCode::INTERNAL_ERROR, ""));
        };
        new.opened = super::seconds(session.connections().now());
        let socket_id = new.socket_id;
        let is_served = routed.follow(&self.gateway.routes(), &self.apps);
        routed.route.statistics().began();
        new.extras().routed = Some(Box::new(routed));
        if let Some(client) = session.user() {
            *client = Client::Subscriber(new);
        }
        let slow_reader = app.snapshot().limits.slow_reader;
        session.set_outgoing(Outgoing { bytes: self.outgoing, slow_reader });
        if let Some(local_app) = self.local_app_mut(app.index()) {
            local_app.routed += 1;
        }
        self.note(&app, || Shown::Connected { socket_id });
        let own = Channel::of_connection(&socket_id.to_string());
        self.enter(session.connections(), id, app.index(), &own, |members, effects| {
            members.subscribe(id, &own, None, false, effects);
        });
        self.carried_out(session.connections(), id, Outcome::Answered(answer));
        if is_served {
            self.begin_to_pass_on(session.connections(), id);
        } else {
            self.close_as_removed(session.connections(), id);
        }
    }

    /// A message of a connection of a route has come.
    pub(super) fn routed_message(&mut self, session: &mut Session<'_, Client>, message: &Message<'_>) {
        let event = match message {
            Message::Text(text) => Event::Text((**text).into()),
            Message::Binary(bytes) => Event::Binary((**bytes).into()),
        };
        let id = session.id();
        let Some((socket_id, routed)) = routed(session.connections(), id) else { return };
        if routed.grip.as_ref().is_some_and(|grip| grip.is_detached) {
            return;
        }
        routed.conversation.push(event);
        self.ask(routed, socket_id, Whose::Open(id));
        if routed.conversation.is_full() && !std::mem::replace(&mut routed.is_paused, true) {
            session.pause();
        }
    }

    /// A connection of a route has ended: its backend is told so after what came before.
    pub(super) fn parted(
        &mut self,
        id: ConnectionId,
        reason: &Reason,
        app: Arc<App>,
        socket_id: SocketId,
        mut routed: Routed,
    ) {
        if let Some(local_app) = self.local_app_mut(app.index()) {
            local_app.routed -= 1;
        }
        routed.route.statistics().ended();
        if let Some(relay) = &routed.relay {
            relay.leave();
        }
        let code = reason.code().as_u16();
        let (reason, is_clean) = match reason {
            Reason::Closed(close) | Reason::CutOff(close) => (close.reason().into(), true),
            _ => ("".into(), false),
        };
        routed.end(code, reason, is_clean);
        self.ask(&mut routed, socket_id, Whose::Parting(id));
        if routed.conversation.is_over() || !routed.is_told() {
            return;
        }
        let has_room = self.routes.parting.len() < MOST_PARTING;
        if !has_room && !self.routes.is_overfull {
            let route = routed.route.name();
            tracing::error!(
                route,
                "too many connections have ended that backends are not told of: the next are left out"
            );
        }
        self.routes.is_overfull = !has_room;
        if has_room {
            self.routes.parting.insert(id, Parting { routed, app, socket_id });
        }
    }

    /// What was answered about an event of a connection that is over. It can say nothing to that connection any more, but to others.
    fn answered_late(&mut self, id: ConnectionId, outcome: Outcome) {
        let Some(Parting { mut routed, app, socket_id }) = self.routes.parting.remove(&id) else { return };
        self.note(&app, || routed.told(socket_id, &outcome));
        if let Outcome::Answered(answer) = outcome {
            let Answer { user, meta, publish, .. } = *answer;
            keep(&mut routed.conversation, user, meta, None);
            self.publish_for(&app, &routed.route, socket_id, publish);
        }
        routed.conversation.answered();
        self.ask(&mut routed, socket_id, Whose::Parting(id));
        if !routed.conversation.is_over() {
            self.routes.parting.insert(id, Parting { routed, app, socket_id });
        }
    }

    /// Does what a backend has answered about an event of an open connection, and takes the next event to it.
    fn answered(&mut self, connections: &mut Connections<Client>, id: ConnectionId, outcome: Outcome) {
        if let (true, Some((socket_id, routed))) = (self.events.is_watched(), routed(connections, id)) {
            let told = routed.told(socket_id, &outcome);
            self.events.record(&routed.app, told);
        }
        self.carried_out(connections, id, outcome);
    }

    fn carried_out(&mut self, connections: &mut Connections<Client>, id: ConnectionId, outcome: Outcome) {
        match outcome {
            Outcome::Answered(answer) => self.carry_out(connections, id, *answer),
            Outcome::Refused(_) => self.fail(connections, id, Failure::Rejected),
            // Of the first event alone.
            Outcome::Passed(_) => {}
            Outcome::Failed(failure) => self.fail(connections, id, failure),
        }
        let Some((socket_id, routed)) = routed(connections, id) else { return };
        routed.conversation.answered();
        self.ask(routed, socket_id, Whose::Open(id));
        if !routed.conversation.is_full() && std::mem::take(&mut routed.is_paused) {
            connections.resume(id);
        }
    }

    fn fail(&mut self, connections: &mut Connections<Client>, id: ConnectionId, failure: Failure) {
        let Some((_, routed)) = routed(connections, id) else { return };
        if routed.route.on_error() == OnError::Close {
            self.dismiss(connections, id, failure.close());
        }
    }

    fn carry_out(&mut self, connections: &mut Connections<Client>, id: ConnectionId, answer: Answer) {
        let Some(subscriber) = subscriber(connections, id) else { return };
        let app = Arc::clone(&subscriber.admission);
        let Answer { user, meta, subscribe, send, publish, unsubscribe, timer, close, steps, grip, acceptance: _ } =
            answer;
        let socket_id = subscriber.socket_id;
        if let Some(user) = &user {
            self.set_user(connections, id, &app, user.as_ref());
        }
        let Some((_, routed)) = routed(connections, id) else { return };
        keep(&mut routed.conversation, user, meta, grip);
        let route = Arc::clone(&routed.route);
        for subscription in subscribe {
            self.subscribe_for(connections, id, &app, &subscription);
        }
        for message in send {
            send_to(connections, id, &message);
        }
        let is_published = self.publish_for(&app, &route, socket_id, publish);
        for channel in unsubscribe {
            self.unsubscribe(connections, id, &channel);
        }
        if let Some(every) = timer {
            self.set_timer(connections, id, every);
        }
        if let Some(event::Close { code, reason }) = close {
            self.dismiss(connections, id, Close::new(CloseCode::new(code), &*reason));
        } else if !is_published {
            self.fail(connections, id, Failure::Busy);
        }
        for step in steps {
            self.take_step(connections, id, &app, step);
        }
    }

    fn take_step(&mut self, connections: &mut Connections<Client>, id: ConnectionId, app: &Arc<App>, step: Step) {
        match step {
            Step::Send(message) => send_to(connections, id, &message),
            Step::Close(event::Close { code, reason }) => {
                self.dismiss(connections, id, Close::new(CloseCode::new(code), &*reason));
            }
            Step::Control(control) => self.control(connections, id, app, control),
        }
    }

    /// Does what a backend asks for by GRIP.
    fn control(&mut self, connections: &mut Connections<Client>, id: ConnectionId, app: &Arc<App>, control: Control) {
        let now = connections.now();
        let Some((socket_id, routed)) = routed(connections, id) else { return };
        let due = match control {
            Control::Subscribe { channel, filters } => {
                if !filters.unknown.is_empty() {
                    let (route, filters) = (routed.route.name(), filters.unknown.join(", "));
                    tracing::warn!(
                        app = app.id(),
                        route,
                        channel,
                        filters,
                        "a subscription has filters that are not known"
                    );
                }
                routed.grip().filter(&channel, filters);
                let subscription = Subscription { channel: channel.into(), info: None };
                return self.subscribe_for(connections, id, app, &subscription);
            }
            Control::Unsubscribe { channel } => {
                routed.grip().unsubscribed(&channel);
                return self.unsubscribe(connections, id, &channel);
            }
            Control::Detach => {
                routed.grip().is_detached = true;
                routed.conversation.push(Event::Close { code: NO_CODE, reason: "".into(), is_clean: true });
                return self.ask(routed, socket_id, Whose::Open(id));
            }
            Control::KeepAlive(keep_alive) => routed.grip().keep_alive(keep_alive, now),
            Control::SetMeta { name, value } => {
                if let Err(why) = routed.grip().set_meta(name, value) {
                    tracing::warn!(app = app.id(), route = routed.route.name(), why, "a control message was refused");
                }
                None
            }
            Control::SendDelayed { message, seconds } => {
                let (before, due) = routed.grip().delay(message, seconds, now);
                if let Some(message) = before {
                    send_control(connections, id, &message);
                }
                due
            }
            Control::FlushDelayed => {
                if let Some(message) = routed.grip().flush() {
                    send_control(connections, id, &message);
                }
                None
            }
            // Refreshes go to all connections of a channel; sessions have no other use.
            Control::Session { .. } | Control::Ignored(_) => None,
        };
        if let Some(due) = due {
            self.routes.timers.push(Reverse((due, id)));
        }
    }

    /// Asks the backend of a connection what is new.
    pub(super) fn refresh(&mut self, connections: &mut Connections<Client>, id: ConnectionId) {
        let Some((socket_id, routed)) = routed(connections, id).filter(|(_, routed)| routed.is_told()) else { return };
        routed.conversation.push_timer();
        self.ask(routed, socket_id, Whose::Open(id));
    }

    fn set_user(
        &mut self,
        connections: &mut Connections<Client>,
        id: ConnectionId,
        app: &Arc<App>,
        user: Option<&event::User>,
    ) {
        let Some(subscriber) = subscriber(connections, id) else { return };
        let current = subscriber.user().map(|user| Arc::clone(&user.id));
        if current.as_deref() == user.map(|user| &*user.id) {
            if let (Some(known), Some(user)) =
                (subscriber.extras.as_mut().and_then(|extras| extras.user.as_mut()), user)
            {
                known.info.clone_from(&user.info);
            }
            return;
        }
        let before = subscriber.extras.as_mut().and_then(|extras| extras.user.take());
        subscriber.tidy();
        if let Some(before) = before {
            self.unsubscribe(connections, id, &Channel::of_user(&before.id));
            self.call(connections, app.index(), |hub, effects| {
                hub.members.sign_out(id, &before.id, before.is_shown, false, effects);
            });
        }
        let Some(user) = user else { return };
        let is_shown = app.snapshot().config.features.watchlist;
        let user_id: Arc<str> = (*user.id).into();
        if let Some(subscriber) = super::subscriber(connections, id) {
            let (id, info) = (Arc::clone(&user_id), user.info.clone());
            subscriber.extras().user = Some(SignedIn { id, info, is_shown, has_watchlist: false, is_pending: false });
        }
        self.act_as(connections, id, app.index(), &user_id, is_shown);
        self.enter_user_channel(connections, id, app.index(), &user_id, None);
    }

    /// The backend vouches for its connection: no channel needs a signature.
    fn subscribe_for(
        &mut self,
        connections: &mut Connections<Client>,
        id: ConnectionId,
        app: &Arc<App>,
        subscription: &Subscription,
    ) {
        let Some(subscriber) = subscriber(connections, id) else { return };
        let member = subscriber.user().map(|user| PresenceMember {
            user_id: Arc::clone(&user.id),
            user_info: subscription.info.clone().or_else(|| user.info.clone()),
        });
        let name = &*subscription.channel;
        let limits = app.snapshot().limits;
        let kind = match check_subscription(name, member.is_some(), &limits) {
            Ok(kind) => kind,
            Err(why) => return tell_unsubscribed(connections, id, app, name, &why),
        };
        let member = member.filter(|_| kind.is_presence());
        let Some(members) = self.members(app.index()) else { return };
        let taken = members.subscribed().subscriptions(id);
        if let Err(Refused { error, .. }) = super::subscribe::check_room(members, id, &limits, name, taken) {
            return tell_unsubscribed(connections, id, app, name, &error);
        }
        self.enter(connections, id, app.index(), name, |members, effects| {
            members.subscribe(id, name, member, kind.is_cache(), effects);
        });
    }

    /// Publishes what a backend has answered; whether the server could take it.
    fn publish_for(&self, app: &Arc<App>, route: &Route, socket_id: SocketId, publish: Vec<Publish>) -> bool {
        if publish.is_empty() {
            return true;
        }
        let (now, limits) = (Instant::now(), app.snapshot().limits);
        let mut publications = Vec::with_capacity(publish.len());
        for one in publish {
            match publication(one, &limits, socket_id, now) {
                Ok(publication) => publications.push(publication),
                Err(why) => {
                    tracing::warn!(app = app.id(), route = route.name(), why, "a backend's publish was refused");
                }
            }
        }
        if self.events.is_watched() {
            for publication in &publications {
                let Publication { channel, .. } = publication;
                let shown = Shown::published(channel, publication.name(), publication.data().into());
                self.events.record(app, shown);
            }
        }
        let taken = self.bus.publish(app.index(), publications.into_iter(), Some(self.end.here())).is_ok();
        if !taken {
            let route = route.name();
            tracing::warn!(
                app = app.id(),
                route,
                "the server has too much to do: what a backend has published is lost"
            );
        }
        taken
    }

    fn set_timer(&mut self, connections: &mut Connections<Client>, id: ConnectionId, every: Option<Duration>) {
        let now = connections.now();
        let Some((_, routed)) = routed(connections, id) else { return };
        if let Some(due) = routed.conversation.set_timer(every, now) {
            self.routes.timers.push(Reverse((due, id)));
        }
    }

    /// About once a second.
    pub(super) fn tick_routes(&mut self, connections: &mut Connections<Client>) {
        let now = connections.now();
        while let Some(&Reverse((due, id))) = self.routes.timers.peek() {
            if due > now {
                break;
            }
            self.routes.timers.pop();
            let Some((socket_id, routed)) = routed(connections, id) else { continue };
            if let Some(next) = routed.conversation.tick(due, now) {
                self.routes.timers.push(Reverse((next, id)));
            }
            self.ask(routed, socket_id, Whose::Open(id));
            let heard = routed.heard;
            let Some(grip) = &mut routed.grip else { continue };
            let (messages, next) = grip.tick(due, heard, now);
            self.routes.timers.extend(next.map(|next| Reverse((next, id))));
            for message in messages {
                send_control(connections, id, &message);
            }
        }
        self.forget_lost(now);
        self.close_removed(connections);
    }

    /// Clients that were accepted and had gone by then: their backends believe that they are here.
    fn forget_lost(&mut self, now: Time) {
        let is_lost = |opening: &Opening| opening.accepted.as_ref().is_some_and(|accepted| now > accepted.at + ARRIVAL);
        let lost: Vec<_> = self.routes.opening.iter().filter(|(_, it)| is_lost(it)).map(|(id, _)| *id).collect();
        for handshake in lost {
            let Some(Opening { mut routed, socket_id, accepted, .. }) = self.routes.opening.remove(&handshake) else {
                continue;
            };
            if let Some(Accepted { answer, .. }) = accepted {
                keep(&mut routed.conversation, answer.user, answer.meta, answer.grip);
            }
            routed.conversation.answered();
            routed.end(1006, "".into(), false);
            self.ask(&mut routed, socket_id, Whose::Nobody);
        }
    }
}

/// Whether the page that a client comes from may connect.
pub(crate) fn check_origin(route: &Route, origins: &[String], request: &Request<'_>) -> Result<(), Refusal> {
    // Browsers send cookies whatever page connects, and the backend may go by them.
    let has_cookie = route.passes("cookie", Transport::WebSocket) && request.header("cookie").is_some();
    let is_allowed = if origins.is_empty() && has_cookie {
        same_host(request).is_ok()
    } else {
        origin::is_allowed(origins, request.header("origin"))
    };
    let refusal = || Refusal::forbidden("Pages of this origin may not connect: see the app's origins.");
    if is_allowed { Ok(()) } else { Err(refusal()) }
}

/// Which kind of channel a backend wants its connection to be in, or why that cannot be: with a user, if it `has_user`.
pub(crate) fn check_subscription(name: &str, has_user: bool, limits: &Limits) -> Result<Kind, String> {
    let kind = Channel::parse(name, limits.channel_name).map_err(|error| error.to_string())?.kind();
    if kind.is_presence() && !has_user {
        return Err("a presence channel is for users: answer with user, too".to_owned());
    }
    Ok(kind)
}

impl Failure {
    /// How a connection ends by it. The reasons are fixed: nothing of a backend's is in them.
    pub(crate) fn close(self) -> Close {
        match self {
            Self::Broken | Self::Late => Close::new(CloseCode::INTERNAL_ERROR, "backend error"),
            Self::Busy => Close::new(CloseCode::TRY_AGAIN_LATER, "try again later"),
            Self::Rejected => Close::new(CloseCode::POLICY, "rejected"),
        }
    }

    /// What a client is told that wants to connect.
    pub(crate) fn refusal(self) -> Refusal {
        match self {
            Self::Broken => Refusal::with_status(502, "The application cannot answer."),
            Self::Late => Refusal::with_status(504, "The application did not answer in time."),
            Self::Busy => {
                Refusal::with_status(503, "The application is away, or has too much to do.").retry_after(RETRY)
            }
            Self::Rejected => Refusal::forbidden("The application refuses this connection."),
        }
    }
}

/// Tells the log why a connection is not in a channel that its backend wants it to be in.
fn tell_unsubscribed(connections: &mut Connections<Client>, id: ConnectionId, app: &App, channel: &str, why: &str) {
    let Some((socket_id, routed)) = routed(connections, id) else { return };
    let route = routed.route.name();
    tracing::warn!(app = app.id(), route, %socket_id, channel, why, "a backend's subscription was refused");
}

/// Whether a connection of a route hears of what the server has to say. What was refused is for its backend, whose log has it.
pub(super) fn is_told(event: &ServerEvent<'_>, encoding: Encoding) -> bool {
    let is_news = match event {
        ServerEvent::SubscriptionSucceeded { members, .. } => members.is_some(),
        ServerEvent::CacheMiss { .. } | ServerEvent::WatchlistEvents { .. } => true,
        _ => false,
    };
    is_news && matches!(encoding, Encoding::Messages(Frames::Event) | Encoding::Events(Frames::Event))
}

/// A reader that is too slow is closed by the shard, and counted there.
fn send_to(connections: &mut Connections<Client>, id: ConnectionId, message: &event::Message) {
    let now = connections.now();
    let Some((_, routed)) = routed(connections, id) else { return };
    routed.heard = now;
    let encoding = routed.encoding();
    let _ = match (message, encoding) {
        (event::Message::Text(text), Encoding::Messages(_)) => connections.send(id, &**text),
        (event::Message::Text(text), Encoding::Events(_)) => connections.send(id, sse::message(text).as_bytes()),
        (event::Message::Text(text), Encoding::Bytes) => connections.send(id, text.as_bytes()),
        (event::Message::Binary(bytes), Encoding::Events(_)) => connections.send(id, sse::binary(bytes).as_bytes()),
        (event::Message::Binary(bytes), _) => connections.send(id, &**bytes),
    };
}

/// Sends what GRIP has delayed, or keeps a connection alive with. The server sends pings of its own.
fn send_control(connections: &mut Connections<Client>, id: ConnectionId, message: &ControlMessage) {
    let content = &*message.content;
    let message = match message.kind {
        MessageKind::Text => str::from_utf8(content).ok().map(|text| event::Message::Text(text.into())),
        MessageKind::Binary => Some(event::Message::Binary(content.into())),
        _ => None,
    };
    if let Some(message) = message {
        send_to(connections, id, &message);
    }
}

/// Takes over what a backend says of a connection.
#[expect(clippy::option_option, reason = "as the answer has it")]
fn keep(
    conversation: &mut Conversation,
    user: Option<Option<event::User>>,
    meta: Option<serde_json::Map<String, serde_json::Value>>,
    grip: Option<Extension>,
) {
    if user.is_none() && meta.is_none() && grip.is_none() {
        return;
    }
    let before = conversation.kept();
    let grip = grip.or_else(|| before.grip.clone());
    let user = user.unwrap_or_else(|| before.user.clone());
    let meta = meta.unwrap_or_else(|| before.meta.clone());
    conversation.keep(Kept { user, meta, grip });
}

/// A connection of a route, if it is one and is not gone.
pub(super) fn routed(connections: &mut Connections<Client>, id: ConnectionId) -> Option<(SocketId, &mut Routed)> {
    let subscriber = subscriber(connections, id)?;
    Some((subscriber.socket_id, subscriber.extras.as_mut()?.routed.as_deref_mut()?))
}

/// A Close frame without a code (RFC 6455 §7.4.1).
const NO_CODE: u16 = 1005;

/// Connections of a shard that have ended, and whose backends are not told everything yet.
const MOST_PARTING: usize = 10_000;

/// When a client may come back whose backend is away.
const RETRY: Duration = Duration::from_secs(1);

/// How long a client that was accepted may take to be there: it is there at once, or never.
const ARRIVAL: Duration = Duration::from_secs(2);
