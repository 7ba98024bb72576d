//! What hubs have to say to the connections of this shard, and to those who want to know what happens.

use std::cell::Cell;
use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use taut_proto::{Close, CloseCode};
use taut_shard::{ConnectionId, Connections};

use super::frames::{Encoding, Forms};
use super::subscribe::Refused;
use super::{Client, PusherHandler, encoding, frames, send, streams, subscriber, tell_refused};
use crate::apps::App;
use crate::bus::Outlet;
use crate::close::Reason;
use crate::events::{Event, EventBus};
use crate::gateway::frame::{Action, Frame};
use crate::gateway::sse;
use crate::hub::Hub;
use crate::hub::command::{Delivery, LastEvent, Subscribed};
use crate::hub::effects::Tell;
use crate::place::AppIndex;
use crate::pusher::channel::{Channel, Kind};
use crate::pusher::event::ServerEvent;
use crate::query::{Histogram, Traffic};

/// The connections of one app.
pub(super) struct ClientOutlet<'a> {
    pub(super) app: &'a Arc<App>,
    pub(super) traffic: &'a Cell<Traffic>,
    /// How many of them are of routes.
    pub(super) routed: usize,
    pub(super) connections: &'a mut Connections<Client>,
    pub(super) events: &'a EventBus,
    pub(super) latency: &'a Cell<Histogram>,
    pub(super) text: &'a mut String,
    pub(super) follow_ups: &'a mut VecDeque<FollowUp>,
}

/// What calls a hub again, and so comes after what its last call brings about.
#[derive(Debug)]
pub(super) enum FollowUp {
    /// A connection has signed in with this: it may have a watchlist.
    Watch {
        connection: ConnectionId,
        user_data: Box<str>,
    },
    Missed {
        channel: Arc<str>,
    },
    /// A publisher wants a connection closed.
    Close {
        connection: ConnectionId,
        close: Close,
    },
    /// A publisher wants the backend of a connection asked what is new.
    Refresh {
        connection: ConnectionId,
    },
}

impl Outlet<ConnectionId> for ClientOutlet<'_> {
    fn deliver(&mut self, hub: &Hub<ConnectionId>, delivery: &Delivery) {
        let Delivery { channel, message, excluded, at } = delivery;
        let subscribers = hub.members.subscribed().members(channel);
        if subscribers.len() == 0 {
            return;
        }
        if let Some(frame) = Frame::read(message.payload()) {
            return self.deliver_frame(hub, delivery, &frame);
        }
        let mut delivered = 0;
        let mut forms = Forms::new(message);
        let is_cache = Kind::of(channel).is_cache();
        for id in subscribers {
            if excluded.is_some() && self.connections.user(id).and_then(|client| client.socket_id()) == *excluded {
                continue;
            }
            // Few apps have routes, and the others need not ask each connection.
            let encoding = if self.routed > 0 { encoding(self.connections, id) } else { None };
            if is_cache && streams::send_kept(self.connections, id, channel, encoding, &mut forms) {
                delivered += 1;
                continue;
            }
            let Some(message) = forms.of(encoding) else { continue };
            // A reader that is too slow is closed by the shard, and counted there.
            let _ = self.connections.send_prepared(id, message);
            delivered += 1;
        }
        self.count(|traffic| {
            traffic.delivered += delivered;
            traffic.delivered_bytes += delivered * message.len() as u64;
        });
        if let Some(at) = at {
            let mut latency = self.latency.get();
            latency.record(at.elapsed());
            self.latency.set(latency);
        }
    }

    fn missed(&mut self, channel: Arc<str>) {
        self.follow_ups.push_back(FollowUp::Missed { channel });
    }

    fn tell(&mut self, connection: ConnectionId, tell: Tell) {
        match tell {
            Tell::Answered { channel } => {
                if let Some(subscriber) = subscriber(self.connections, connection) {
                    subscriber.extras().answered(&channel);
                    subscriber.tidy();
                }
            }
            Tell::Subscribed { channel, user_id, subscribed, is_new } => {
                self.subscribed(connection, &channel, user_id, &subscribed, is_new);
            }
            Tell::Rejected { channel, why } => {
                self.refuse(connection, &channel, &Refused::rejected(why));
            }
            Tell::SignedIn { user_data } => self.signed_in(connection, user_data),
            Tell::Watchlist { online, offline } => {
                self.send(connection, &ServerEvent::WatchlistEvents { online: &online, offline: &offline });
            }
        }
    }

    fn happened(&mut self, event: Event, waited: Duration) {
        let kind = event.webhook();
        if kind.is_some_and(|(kind, _)| self.events.wants(&self.app.snapshot(), kind)) {
            self.events.record_late(self.app, event, waited);
        }
    }

    fn shown(&mut self, event: Event) {
        if self.events.is_watched() {
            self.events.show(self.app, event);
        }
    }
}

impl ClientOutlet<'_> {
    /// Does to a channel's subscribers what an event cannot say. Pusher's clients can only be sent texts.
    fn deliver_frame(&mut self, hub: &Hub<ConnectionId>, delivery: &Delivery, frame: &Frame) {
        let channel = &*delivery.channel;
        let interest = hub.members.subscribed();
        let pusher = if let Action::Text(text) = &frame.action { Some(frames::message(channel, text)) } else { None };
        let mut forms = pusher.as_ref().map(Forms::new);
        let bytes = frame.action.bytes();
        let is_own = Channel::is_of_connection(channel);
        let now = self.connections.now();
        for id in interest.members(channel) {
            let Some(subscriber) = subscriber(self.connections, id) else { continue };
            let routed = subscriber.extras.as_mut().and_then(|extras| extras.routed.as_deref_mut());
            let encoding = match routed {
                Some(routed) => {
                    let encoding = routed.encoding();
                    let is_for_responses = matches!(frame.action, Action::Stream(_) | Action::EndStream);
                    if !is_own && is_for_responses != (encoding == Encoding::Bytes) {
                        continue;
                    }
                    if routed.skips(channel, &frame.meta, |name| interest.is_member(name, id)) {
                        continue;
                    }
                    routed.heard = now;
                    Some(if is_own { encoding.alone() } else { encoding })
                }
                None => None,
            };
            // A reader that is too slow is closed by the shard, and counted there.
            match (&frame.action, encoding) {
                (Action::Text(text), Some(Encoding::Bytes)) => {
                    let _ = self.connections.send(id, text.as_bytes());
                }
                (Action::Text(_), _) => {
                    if let Some(message) = forms.as_mut().and_then(|forms| forms.of(encoding)) {
                        let _ = self.connections.send_prepared(id, message);
                    }
                }
                (Action::Binary(_) | Action::Stream(_), Some(encoding)) => {
                    let Some(bytes) = &bytes else { continue };
                    let _ = match encoding {
                        Encoding::Events(_) => self.connections.send(id, sse::binary(bytes).as_bytes()),
                        Encoding::Messages(_) | Encoding::Bytes => self.connections.send(id, &**bytes),
                    };
                }
                (Action::Close { code, reason }, Some(_)) => {
                    let close = Close::new(CloseCode::new(*code), &**reason);
                    self.follow_ups.push_back(FollowUp::Close { connection: id, close });
                }
                (Action::EndStream, Some(_)) => {
                    let close = Close::new(CloseCode::NORMAL, "");
                    self.follow_ups.push_back(FollowUp::Close { connection: id, close });
                }
                (Action::Refresh, Some(_)) => self.follow_ups.push_back(FollowUp::Refresh { connection: id }),
                (_, None) => {}
            }
        }
    }

    fn send(&mut self, id: ConnectionId, event: &ServerEvent<'_>) {
        send(self.connections, id, event, self.text);
    }

    fn count(&self, count: impl FnOnce(&mut Traffic)) {
        let mut traffic = self.traffic.get();
        count(&mut traffic);
        self.traffic.set(traffic);
    }

    fn subscribed(
        &mut self,
        id: ConnectionId,
        channel: &Arc<str>,
        user_id: Option<Arc<str>>,
        subscribed: &Subscribed,
        is_new: bool,
    ) {
        let Some(client) = subscriber(self.connections, id) else { return };
        let socket_id = client.socket_id;
        if Kind::of(channel).needs_signature() {
            client.authorized = true;
        }
        if let Some(user_id) = user_id {
            client.extras().presences.push((Arc::clone(channel), user_id));
        }
        let members = subscribed.members.as_deref();
        self.send(id, &ServerEvent::SubscriptionSucceeded { channel, members });
        match &subscribed.last_event {
            LastEvent::Found(message) => {
                let encoding = encoding(self.connections, id);
                let mut forms = Forms::new(message);
                let is_done = streams::has_seen(self.connections, id, channel, &mut forms)
                    || streams::send_kept(self.connections, id, channel, encoding, &mut forms);
                if let (false, Some(message)) = (is_done, forms.of(encoding)) {
                    // A reader that is too slow is closed by the shard, and counted there.
                    let _ = self.connections.send_prepared(id, message);
                }
            }
            LastEvent::Missing => self.send(id, &ServerEvent::CacheMiss { channel }),
            LastEvent::NotKept => {}
        }
        if is_new && self.events.is_watched() {
            self.events.record(self.app, Event::Subscribed { channel: Arc::clone(channel), socket_id });
        }
    }

    fn signed_in(&mut self, connection: ConnectionId, user_data: Box<str>) {
        self.send(connection, &ServerEvent::SigninSuccess { user_data: &user_data });
        let user = subscriber(self.connections, connection).and_then(|one| one.extras.as_mut()?.user.as_mut());
        let is_first = user.is_some_and(|user| {
            user.is_pending = false;
            user.is_shown && !std::mem::replace(&mut user.has_watchlist, true)
        });
        if is_first {
            self.follow_ups.push_back(FollowUp::Watch { connection, user_data });
        }
    }

    pub(super) fn refuse(&mut self, id: ConnectionId, channel: &str, refused: &Refused) {
        let &Refused { reason, kind, ref error, status } = refused;
        self.send(id, &ServerEvent::SubscriptionError { channel, kind, error, status });
        let Some(subscriber) = subscriber(self.connections, id) else { return };
        let socket_id = subscriber.socket_id;
        tell_refused(self.app, socket_id, reason, Some(channel), error);
        if self.events.is_watched() {
            self.events.record(self.app, Event::Refused { socket_id, reason: error.as_str().into() });
        }
    }
}

impl PusherHandler {
    /// Those who have missed something come back and begin anew: a gap that nobody sees would be worse.
    pub(super) fn missed(&mut self, connections: &mut Connections<Client>, app: AppIndex, channel: &Arc<str>) {
        let Some(members) = self.members(app) else { return };
        let subscribers: Vec<ConnectionId> = members.subscribed().members(channel).collect();
        tracing::warn!(
            members = subscribers.len(),
            "mailbox full: closing the subscribers of a channel that missed an event"
        );
        for id in subscribers {
            self.dismiss(connections, id, Reason::OVER_CAPACITY.because("an event was missed, please come back"));
        }
    }
}
