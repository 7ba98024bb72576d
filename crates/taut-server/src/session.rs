//! What one client may do, on one shard.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::Arc;

use taut_proto::handshake::Request;
use taut_proto::{Close, CloseCode, Message};
use taut_shard::{Closed, ConnectionId, Connections, Departure, Handler, Session, Verdict};

use crate::app::Limits;
use crate::interest::{Interest, Joined, Left};
use crate::pusher::channel::{Channel, Kind};
use crate::pusher::event::{ClientEvent, ServerEvent};
use crate::pusher::socket_id::SocketId;
use crate::route::{Mail, Published, Routes};
use crate::tenants::{Admission, Apps};

/// All clients of a shard.
pub(crate) struct Sessions {
    shard: usize,
    apps: Arc<Apps>,
    routes: Arc<Routes>,
    /// What stands before the key in a client's path.
    path: String,
    /// Seconds; what clients are told.
    activity_timeout: u32,
    /// By the index of the app.
    rooms: Vec<Rooms>,
    /// Where what is sent gets its text.
    text: String,
    /// Takes the sockets whose requests are no WebSocket's.
    depart: Box<dyn Fn(Departure) + Send>,
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
    Member {
        admission: Admission,
        socket_id: SocketId,
        /// Messages in a row that could not be read.
        malformed: u8,
    },
}

/// The channels of one app on this shard.
#[derive(Debug, Default)]
struct Rooms {
    members: Interest<ConnectionId>,
    /// Channels whose home has not yet said that it knows of us, with those who wait for it in order to be told that they are subscribed. What comes
    /// for such a channel belongs to an earlier interest of ours and is nobody's.
    joining: HashMap<Arc<str>, Vec<ConnectionId>>,
    /// Of those channels whose home this shard is: the other shards with members.
    shards: Interest<usize>,
}

impl Sessions {
    pub(crate) fn new(
        shard: usize,
        apps: Arc<Apps>,
        routes: Arc<Routes>,
        path_prefix: &str,
        activity_timeout: u32,
        depart: impl Fn(Departure) + Send + 'static,
    ) -> Self {
        let rooms = apps.all().iter().map(|_| Rooms::default()).collect();
        let path = format!("{path_prefix}/app/");
        Self { shard, apps, routes, path, activity_timeout, rooms, text: String::new(), depart: Box::new(depart) }
    }

    /// Decides who a client is, by path and query.
    fn admit(&self, request: &Request<'_>) -> Result<Client, Close> {
        let Some(key) = request.path().strip_prefix(&self.path).filter(|key| !key.is_empty() && !key.contains('/'))
        else {
            return Err(Close::new(PATH_NOT_FOUND, format!("Path not found: clients connect to {}KEY", self.path)));
        };
        let Some(tenant) = self.apps.by_key(key) else {
            let key: String = key.chars().take(LONGEST_ECHO).collect();
            return Err(Close::new(
                NO_SUCH_APP,
                format!("Application does not exist: there is no app with the key {key}"),
            ));
        };
        if let Some(version) = request.query_value("protocol") {
            match version.parse::<u32>() {
                Ok(5..=7) => {}
                Ok(_) => {
                    return Err(Close::new(
                        UNSUPPORTED_VERSION,
                        "Unsupported protocol version: this server speaks 5 to 7",
                    ));
                }
                Err(_) => {
                    return Err(Close::new(INVALID_VERSION, "Invalid version string format: the protocol is a number"));
                }
            }
        }
        let admission = tenant.admit().ok_or_else(|| Close::new(OVER_QUOTA, "Application is over connection quota"))?;
        let mut random = [0; 16];
        // The operating system gives random bytes or something is badly wrong with it; a client can try again.
        getrandom::fill(&mut random).map_err(|_| Close::new(OVER_CAPACITY, "Over capacity"))?;
        Ok(Client::Member { admission, socket_id: SocketId::from_random(random), malformed: 0 })
    }

    fn malformed(&mut self, session: &mut Session<'_, Client>, reason: &str) {
        let Some(Client::Member { malformed, .. }) = session.user() else {
            return;
        };
        *malformed += 1;
        let enough = *malformed >= MOST_MALFORMED;
        self.answer(session, &ServerEvent::Error { code: None, message: reason });
        if enough {
            session.close(Close::new(
                CloseCode::UNSUPPORTED,
                "Too many messages in a row that are not the Pusher protocol",
            ));
        }
    }

    fn subscribe(&mut self, session: &mut Session<'_, Client>, tenant: usize, limits: &Limits, name: &str) {
        let id = session.id();
        if let Err(refused) = self.check_subscription(id, tenant, limits, name) {
            let Refused { kind, ref error, status } = refused;
            return self.answer(session, &ServerEvent::SubscriptionError { channel: name, kind, error, status });
        }
        let rooms = &mut self.rooms[tenant];
        let joined = rooms.members.join(name, id);
        if let Some(waiting) = rooms.joining.get_mut(name) {
            // Who is in it already waits already, and will be told once.
            if joined != Joined::Already {
                waiting.push(id);
            }
            return;
        }
        let home = self.routes.home(tenant, name);
        if joined == Joined::First && home != self.shard {
            let channel: Arc<str> = name.into();
            rooms.joining.insert(Arc::clone(&channel), vec![id]);
            return self.routes.tell(home, Mail::Join { tenant, channel, shard: self.shard });
        }
        self.answer(session, &ServerEvent::SubscriptionSucceeded { channel: name });
    }

    fn check_subscription(&self, id: ConnectionId, tenant: usize, limits: &Limits, name: &str) -> Result<(), Refused> {
        let invalid = |error: String| Refused { kind: "InvalidChannel", error, status: 400 };
        let channel = Channel::parse(name, limits.channel_name).map_err(|error| invalid(error.to_string()))?;
        if channel.kind() != Kind::Public {
            let error =
                "This server serves public channels only, and the channel's name begins like that of another kind.";
            return Err(Refused { kind: "NotSupported", error: error.to_owned(), status: 403 });
        }
        let rooms = &self.rooms[tenant];
        if rooms.members.subscriptions(id) >= limits.subscriptions && !rooms.members.is_member(name, id) {
            let error = format!("A connection may be subscribed to at most {} channels.", limits.subscriptions);
            return Err(Refused { kind: "LimitReached", error, status: 409 });
        }
        if rooms.joining.len() >= MOST_JOINING {
            let error = "The server is busy: too many channels are being joined. Please try again.";
            return Err(Refused { kind: "ServerError", error: error.to_owned(), status: 503 });
        }
        Ok(())
    }

    fn unsubscribe(&mut self, id: ConnectionId, tenant: usize, name: &str) {
        let rooms = &mut self.rooms[tenant];
        let left = rooms.members.leave(name, id);
        if left == Left::Absent {
            return;
        }
        if let Some(waiting) = rooms.joining.get_mut(name) {
            waiting.retain(|waiting| *waiting != id);
        }
        if left == Left::Last {
            self.vacated(tenant, name.into());
        }
    }

    /// Nobody here wants the channel any more, and its home has to know.
    fn vacated(&self, tenant: usize, channel: Arc<str>) {
        let home = self.routes.home(tenant, &channel);
        // While our `Join` is unanswered nothing else may be said; `joined` will see that nobody is left.
        if home != self.shard && !self.rooms[tenant].joining.contains_key(&channel) {
            self.routes.tell(home, Mail::Leave { tenant, channel, shard: self.shard });
        }
    }

    /// The home knows of our interest: whoever waited is subscribed.
    fn joined(&mut self, connections: &mut Connections<Client>, tenant: usize, channel: &Arc<str>) {
        let rooms = &mut self.rooms[tenant];
        let waiting = rooms.joining.remove(channel).unwrap_or_default();
        if rooms.joining.is_empty() {
            rooms.joining.shrink_to_fit();
        }
        if rooms.members.members(channel).len() == 0 {
            return self.vacated(tenant, Arc::clone(channel));
        }
        for id in waiting {
            // Some may have gone meanwhile.
            if self.rooms[tenant].members.is_member(channel, id) {
                self.say(connections, id, &ServerEvent::SubscriptionSucceeded { channel });
            }
        }
    }

    fn publish(&self, connections: &mut Connections<Client>, published: &Published) {
        self.deliver(connections, published);
        for shard in self.rooms[published.tenant].shards.members(&published.channel) {
            self.routes.pass_on(shard, published);
        }
    }

    fn deliver(&self, connections: &mut Connections<Client>, published: &Published) {
        let Published { tenant, channel, message, excluded } = published;
        let rooms = &self.rooms[*tenant];
        if rooms.joining.contains_key(channel) {
            return;
        }
        for id in rooms.members.members(channel) {
            if excluded.is_some() && connections.user(id).and_then(|client| client.socket_id()) == *excluded {
                continue;
            }
            // A reader that is too slow is closed by the shard, and counted there.
            let _ = connections.send_prepared(id, message);
        }
    }

    /// Those who have missed something come back and begin anew: a gap that nobody sees would be worse.
    fn missed(&self, connections: &mut Connections<Client>, tenant: usize, channel: &str) {
        let members = self.rooms[tenant].members.members(channel);
        tracing::warn!(
            members = members.len(),
            "the mailbox was full: closing the members of a channel that missed an event"
        );
        for id in members {
            connections.close(id, Close::new(OVER_CAPACITY, "Over capacity: an event was missed, please come back"));
        }
    }

    fn answer(&mut self, session: &mut Session<'_, Client>, event: &ServerEvent<'_>) {
        let id = session.id();
        self.say(session.connections(), id, event);
    }

    fn say(&mut self, connections: &mut Connections<Client>, id: ConnectionId, event: &ServerEvent<'_>) {
        self.text.clear();
        event.write(&mut self.text);
        // A reader that is too slow is closed by the shard, and counted there.
        let _ = connections.send(id, self.text.as_str());
        self.text.shrink_to(LARGEST_TEXT_KEPT);
    }
}

impl Handler for Sessions {
    type User = Client;
    type Mail = Mail;

    fn request<'r>(&mut self, request: &'r Request<'r>, _peer: SocketAddr) -> Verdict<'r, Client> {
        if !request.wants_upgrade() {
            return Verdict::HandOver;
        }
        // No check of the origin: the pages of every site that knows an app's key may connect.
        match request.upgrade() {
            Ok(upgrade) => {
                let client = self.admit(request).unwrap_or_else(|close| Client::Refused(Box::new(close)));
                Verdict::Accept(upgrade, client)
            }
            Err(refusal) => Verdict::Refuse(refusal),
        }
    }

    fn opened(&mut self, session: &mut Session<'_, Client>) {
        let Some(client) = session.user() else { return };
        if let Client::Member { socket_id, .. } = client {
            let event =
                ServerEvent::ConnectionEstablished { socket_id: *socket_id, activity_timeout: self.activity_timeout };
            return self.answer(session, &event);
        }
        if let Client::Refused(close) = std::mem::take(client) {
            let event = ServerEvent::Error { code: Some(close.code().as_u16()), message: close.reason() };
            self.answer(session, &event);
            session.close(*close);
        }
    }

    fn message(&mut self, session: &mut Session<'_, Client>, message: Message<'_>) {
        let Some(Client::Member { admission, .. }) = session.user() else {
            return;
        };
        let (tenant, limits) = (admission.index(), admission.terms().limits);
        let parsed = match &message {
            Message::Text(text) => ClientEvent::parse(text).map_err(Some),
            // The protocol knows text only, but some clients send it in binary messages.
            Message::Binary(bytes) => {
                str::from_utf8(bytes).ok().and_then(|text| ClientEvent::parse(text).ok()).ok_or(None)
            }
        };
        let event = match parsed {
            Ok(event) => event,
            Err(Some(malformed)) => return self.malformed(session, &malformed.to_string()),
            Err(None) => {
                return session.close(Close::new(
                    CloseCode::UNSUPPORTED,
                    "A binary message that is not the Pusher protocol in JSON",
                ));
            }
        };
        if let Some(Client::Member { malformed, .. }) = session.user() {
            *malformed = 0;
        }
        match event {
            ClientEvent::Ping => self.answer(session, &ServerEvent::Pong),
            ClientEvent::Subscribe { channel } => {
                self.subscribe(session, tenant, &limits, &channel);
            }
            ClientEvent::Unsubscribe { channel } => {
                self.unsubscribe(session.id(), tenant, &channel);
            }
            ClientEvent::Triggered { event, .. } => {
                let message = if event.starts_with("client-") {
                    "Client event rejected - only supported on private and presence channels"
                } else {
                    "Client event rejected - the name of an event from a client begins with client-"
                };
                self.answer(session, &ServerEvent::Error { code: None, message });
            }
            // That it came is all there is to a pong, and the heartbeat has noticed.
            ClientEvent::Pong | ClientEvent::Unknown => {}
        }
    }

    fn closed(&mut self, _connections: &mut Connections<Client>, closed: Closed<Client>) {
        tracing::trace!(code = closed.reason.code().as_u16(), "a connection has ended");
        let Client::Member { admission, .. } = closed.user else {
            return;
        };
        let tenant = admission.index();
        let mut vacated = Vec::new();
        self.rooms[tenant].members.leave_all(closed.id, |channel| vacated.push(channel));
        for channel in vacated {
            self.vacated(tenant, channel);
        }
    }

    fn mail(&mut self, connections: &mut Connections<Client>, mail: Mail) {
        match mail {
            Mail::Publish(published) => self.publish(connections, &published),
            Mail::Deliver(published) => self.deliver(connections, &published),
            Mail::Missed { tenant, channel } => self.missed(connections, tenant, &channel),
            Mail::Join { tenant, channel, shard } => {
                self.rooms[tenant].shards.join(&channel, shard);
                self.routes.tell(shard, Mail::Joined { tenant, channel });
            }
            Mail::Joined { tenant, channel } => self.joined(connections, tenant, &channel),
            Mail::Leave { tenant, channel, shard } => {
                self.rooms[tenant].shards.leave(&channel, shard);
            }
        }
    }

    fn depart(&mut self, departure: Departure) {
        (self.depart)(departure);
    }
}

impl Client {
    fn socket_id(&self) -> Option<SocketId> {
        match self {
            Self::Member { socket_id, .. } => Some(*socket_id),
            Self::Leaving | Self::Refused(_) => None,
        }
    }
}

/// Why a subscription was refused.
struct Refused {
    kind: &'static str,
    error: String,
    status: u16,
}

/// Pusher's close codes. Clients do not come back after 4000 to 4099, come back after a second after 4100 to 4199, and at once after 4200 to 4299.
const NO_SUCH_APP: CloseCode = CloseCode::new(4001);
const OVER_QUOTA: CloseCode = CloseCode::new(4004);
const PATH_NOT_FOUND: CloseCode = CloseCode::new(4005);
const INVALID_VERSION: CloseCode = CloseCode::new(4006);
const UNSUPPORTED_VERSION: CloseCode = CloseCode::new(4007);
pub(crate) const OVER_CAPACITY: CloseCode = CloseCode::new(4100);
/// What clients are told when the server goes down. After 4200 pusher-js comes back in the same instant, finds nobody where there is one server
/// that restarts, and waits out a timer of 15 seconds; after a code of this hundred it comes a second later.
pub(crate) const GOING_DOWN: CloseCode = OVER_CAPACITY;
pub(crate) const PONG_NOT_RECEIVED: CloseCode = CloseCode::new(4201);

/// Messages in a row that cannot be read, after which a client is given up.
const MOST_MALFORMED: u8 = 10;

/// Channels of one app that this shard is joining at a time; what they take is all that a client who joins and leaves in a loop can make us hold.
const MOST_JOINING: usize = 100_000;

/// Characters of a client's own text that a refusal repeats.
const LONGEST_ECHO: usize = 40;

/// Bytes.
const LARGEST_TEXT_KEPT: usize = 64 * 1024;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::app::App;
    use crate::node::{Node, Publication};
    use serde_json::{Value, json};
    use taut_shard::Settings;
    use taut_shard::testing::{Client as Peer, Stage};

    /// Shards that do nothing unless they are told to, so that a test decides what overtakes what.
    fn node(shards: usize) -> (Node, Arc<Routes>, Vec<Stage<Sessions>>) {
        let app = App::parse("1:key:secret").expect("an app");
        let apps = Arc::new(Apps::new([app], &Limits::default()).expect("one app"));
        let routes = Arc::new(Routes::new(shards));
        let stage = |shard| {
            let sessions = Sessions::new(shard, Arc::clone(&apps), Arc::clone(&routes), "", 120, drop);
            Stage::new(sessions, Settings::default())
        };
        let stages: Vec<_> = (0..shards).map(stage).collect();
        routes.connect(stages.iter().map(|stage| stage.shard.mailbox()).collect());
        (Node::new(apps, Arc::clone(&routes)), routes, stages)
    }

    /// A channel whose home is the second of two shards.
    fn far_channel(routes: &Routes) -> String {
        (0..1000).map(|number| format!("channel-{number}")).find(|name| routes.home(0, name) == 1).expect("one of many")
    }

    fn member(stage: &mut Stage<Sessions>) -> Peer {
        let mut peer = Peer::new(&stage.network);
        peer.write(&peer.request("/app/key"));
        stage.settle();
        // The greeting follows the head at once, and is not to be taken for a part of it.
        while !peer.is_open() {
            assert_ne!(peer.remote.waiting(), 0, "the handshake failed");
            peer.read(1);
        }
        assert_eq!(heard(&mut peer), ["pusher:connection_established"]);
        peer
    }

    fn subscribe(peer: &mut Peer, channel: &str) {
        peer.send(json!({ "event": "pusher:subscribe", "data": { "channel": channel } }).to_string());
    }

    fn unsubscribe(peer: &mut Peer, channel: &str) {
        peer.send(json!({ "event": "pusher:unsubscribe", "data": { "channel": channel } }).to_string());
    }

    fn publish(node: &Node, channel: &str, event: &str) {
        let tenant = node.apps().by_id("1").expect("the app");
        node.publish(&tenant, &[channel], &Publication { event, data: "", excluded: None }).expect("room");
    }

    /// The names of the events that have come.
    fn heard(peer: &mut Peer) -> Vec<String> {
        peer.read(usize::MAX);
        let name = |text: String| {
            let event: Value = serde_json::from_str(&text).expect("JSON");
            event["event"].as_str().expect("a name").to_owned()
        };
        peer.texts().into_iter().map(name).collect()
    }

    /// Lets the shards talk until they have nothing more to say.
    fn settle(stages: &mut [Stage<Sessions>]) {
        for _ in 0..4 {
            stages.iter_mut().for_each(Stage::settle);
        }
    }

    const SUBSCRIBED: &str = "pusher_internal:subscription_succeeded";

    #[test]
    fn the_first_member_of_a_shard_is_told_only_when_the_channels_home_knows() {
        let (node, routes, mut stages) = node(2);
        let channel = far_channel(&routes);
        let mut peer = member(&mut stages[0]);
        publish(&node, &channel, "early");
        subscribe(&mut peer, &channel);
        stages[0].settle();
        assert_eq!(heard(&mut peer), [""; 0], "the home does not know yet");
        // It has not even looked, but this comes to it after our interest.
        publish(&node, &channel, "late");
        stages[1].settle();
        stages[0].settle();
        assert_eq!(heard(&mut peer), [SUBSCRIBED, "late"]);
    }

    #[test]
    fn the_second_member_of_a_shard_waits_for_the_same_answer_or_for_none() {
        let (_, routes, mut stages) = node(2);
        let channel = far_channel(&routes);
        let [mut first, mut second, mut third] = [(); 3].map(|()| member(&mut stages[0]));
        subscribe(&mut first, &channel);
        subscribe(&mut second, &channel);
        subscribe(&mut second, &channel);
        stages[0].settle();
        assert_eq!([heard(&mut first), heard(&mut second)], [[""; 0]; 2]);
        settle(&mut stages);
        assert_eq!([heard(&mut first), heard(&mut second)], [[SUBSCRIBED]; 2]);
        subscribe(&mut third, &channel);
        stages[0].settle();
        assert_eq!(heard(&mut third), [SUBSCRIBED]);
    }

    #[test]
    fn at_home_the_answer_comes_at_once() {
        let (node, routes, mut stages) = node(2);
        let channel = far_channel(&routes);
        let mut peer = member(&mut stages[1]);
        subscribe(&mut peer, &channel);
        stages[1].settle();
        assert_eq!(heard(&mut peer), [SUBSCRIBED]);
        publish(&node, &channel, "event");
        stages[1].settle();
        assert_eq!(heard(&mut peer), ["event"]);
    }

    #[test]
    fn what_belongs_to_an_earlier_visit_does_not_come_before_the_new_answer() {
        let (node, routes, mut stages) = node(2);
        let channel = far_channel(&routes);
        let mut peer = member(&mut stages[0]);
        subscribe(&mut peer, &channel);
        settle(&mut stages);
        publish(&node, &channel, "old");
        stages[1].settle();
        // "old" is in the mailbox of the first shard, which reads its sockets first.
        unsubscribe(&mut peer, &channel);
        subscribe(&mut peer, &channel);
        stages[0].settle();
        assert_eq!(heard(&mut peer), [SUBSCRIBED]);
        settle(&mut stages);
        assert_eq!(heard(&mut peer), [SUBSCRIBED]);
        publish(&node, &channel, "new");
        settle(&mut stages);
        assert_eq!(heard(&mut peer), ["new"]);
    }

    #[test]
    fn who_leaves_and_comes_back_before_the_answer_is_subscribed() {
        let (node, routes, mut stages) = node(2);
        let channel = far_channel(&routes);
        let mut peer = member(&mut stages[0]);
        subscribe(&mut peer, &channel);
        unsubscribe(&mut peer, &channel);
        subscribe(&mut peer, &channel);
        settle(&mut stages);
        assert_eq!(heard(&mut peer), [SUBSCRIBED]);
        publish(&node, &channel, "event");
        settle(&mut stages);
        assert_eq!(heard(&mut peer), ["event"]);
    }

    #[test]
    fn the_home_forgets_a_shard_whose_last_member_has_left() {
        let (_, routes, mut stages) = node(2);
        let channel = far_channel(&routes);
        for wait in [true, false] {
            for vanish in [true, false] {
                let mut peer = member(&mut stages[0]);
                subscribe(&mut peer, &channel);
                if wait {
                    settle(&mut stages);
                    assert_eq!(stages[1].handler().rooms[0].shards.members(&channel).collect::<Vec<_>>(), [0]);
                }
                if vanish {
                    peer.finish();
                } else {
                    unsubscribe(&mut peer, &channel);
                }
                settle(&mut stages);
                assert!(stages[1].handler().rooms[0].shards.is_empty(), "{wait} {vanish}");
                let rooms = &stages[0].handler().rooms[0];
                assert!(rooms.members.is_empty() && rooms.joining.is_empty(), "{wait} {vanish}");
            }
        }
    }

    #[test]
    fn members_that_missed_an_event_are_sent_back_to_begin_anew() {
        let (_, routes, mut stages) = node(1);
        let [mut concerned, mut other] = [(); 2].map(|()| member(&mut stages[0]));
        subscribe(&mut concerned, "chat");
        subscribe(&mut other, "news");
        stages[0].settle();
        routes.tell(0, Mail::Missed { tenant: 0, channel: "chat".into() });
        stages[0].settle();
        assert_eq!([heard(&mut concerned), heard(&mut other)], [[SUBSCRIBED]; 2]);
        assert_eq!(concerned.closed().map(Close::code), Some(OVER_CAPACITY));
        assert_eq!(other.closed(), None);
    }

    #[test]
    fn channels_that_wait_for_their_homes_are_bounded() {
        let (_, routes, mut stages) = node(2);
        let joining = &mut stages[0].handler().rooms[0].joining;
        joining.extend((0..MOST_JOINING).map(|number| (number.to_string().into(), Vec::new())));
        let mut peer = member(&mut stages[0]);
        subscribe(&mut peer, &far_channel(&routes));
        stages[0].settle();
        assert_eq!(heard(&mut peer), ["pusher:subscription_error"]);
    }

    #[test]
    fn what_a_connection_carries_is_small() {
        assert!(size_of::<Client>() <= 40, "{}", size_of::<Client>());
    }
}
