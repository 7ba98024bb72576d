//! Events that clients send to each other.

use std::sync::Arc;
use std::time::{Duration, Instant};

use taut_shard::{ConnectionId, Connections};

use super::{Client, LONGEST_ECHO, PusherHandler, subscriber};
use crate::app::WebhookEvent;
use crate::apps::AppSnapshot;
use crate::bus::Busy;
use crate::close::CLIENT_EVENT_REJECTED;
use crate::events::Event;
use crate::hub;
use crate::hub::command::Publication;
use crate::hub::members::Members;
use crate::limit::TokenBucket;
use crate::place::AppIndex;
use crate::pusher::channel::{Channel, Kind};
use crate::pusher::event::ServerEvent;
use crate::refusals::RefusalReason;

/// Why an event was refused.
struct Rejected {
    reason: RefusalReason,
    code: Option<u16>,
    message: String,
}

impl PusherHandler {
    pub(super) fn client_event(
        &mut self,
        connections: &mut Connections<Client>,
        id: ConnectionId,
        event: &str,
        channel: Option<&str>,
        data: Option<&str>,
    ) {
        let Some(subscriber) = subscriber(connections, id) else { return };
        let (app, socket_id) = (subscriber.admission.index(), subscriber.socket_id);
        let snapshot = Arc::clone(&subscriber.admission.snapshot());
        let triggered = check(&snapshot, event, channel, data)
            .and_then(|channel| self.is_in(id, app, channel))
            .and_then(|channel| within_rate(connections, id, snapshot.limits.client_events).map(|()| channel))
            .and_then(|channel| self.pass(connections, id, &snapshot, &channel, event, data));
        if let Err(Rejected { reason, code, message }) = triggered {
            // One that cannot be a channel's name is not repeated: it may be as long as a message.
            let channel = channel.filter(|channel| Channel::parse(channel, snapshot.limits.channel_name).is_ok());
            self.send_event(connections, id, &ServerEvent::Error { code, message: &message, channel });
            self.refused(app, socket_id, reason, &message);
        }
    }

    /// Only who is in a channel may speak there.
    fn is_in(&self, id: ConnectionId, app: AppIndex, channel: &str) -> Result<Arc<str>, Rejected> {
        let subscribed =
            self.members(app).map(Members::subscribed).filter(|subscribed| subscribed.is_member(channel, id));
        subscribed.and_then(|subscribed| subscribed.name(channel)).map(Arc::clone).ok_or_else(|| {
            let channel: String = channel.chars().take(LONGEST_ECHO).collect();
            rejected(
                RefusalReason::NotSubscribed,
                format!("Client event rejected - you are not subscribed to channel {channel}"),
            )
        })
    }

    fn pass(
        &mut self,
        connections: &mut Connections<Client>,
        id: ConnectionId,
        snapshot: &AppSnapshot,
        channel: &Arc<str>,
        event: &str,
        data: Option<&str>,
    ) -> Result<(), Rejected> {
        let Some(subscriber) = subscriber(connections, id) else { return Ok(()) };
        let (app, socket_id) = (subscriber.admission.index(), subscriber.socket_id);
        // Who it is comes from what was verified, never from the message.
        let presences = subscriber.extras.as_ref().map_or(&[][..], |extras| &extras.presences);
        let user_id =
            presences.iter().find(|(presence, _)| presence == channel).map(|(_, user_id)| Arc::clone(user_id));
        let publication = Publication {
            channel: Arc::clone(channel),
            event: hub::command::Event::Client {
                name: event.into(),
                data: data.map(Box::from),
                user_id: user_id.clone(),
            },
            excluded: Some(socket_id),
            at: Instant::now(),
            receipt: None,
        };
        let published = self.settle(connections, app, |hub, end, bus, now, _| end.publish(hub, publication, bus, now));
        if let Some(Err(Busy)) = published {
            let message = "Client event rejected - the server is busy, please try again";
            return Err(rejected(RefusalReason::ClientEventBusy, message));
        }
        let Some(local_app) = self.local_app(app) else { return Ok(()) };
        local_app.count(|traffic| traffic.client_events += 1);
        if self.events.wants(snapshot, WebhookEvent::ClientEvent) {
            let (channel, event) = (Arc::clone(channel), event.into());
            let data = data.map_or_else(Box::default, text_of);
            self.events.record(&local_app.app, Event::ClientEvent { channel, event, data, socket_id, user_id });
        }
        Ok(())
    }
}

/// Whether such an event may be sent at all; gives the channel.
fn check<'a>(
    snapshot: &AppSnapshot,
    event: &str,
    channel: Option<&'a str>,
    data: Option<&str>,
) -> Result<&'a str, Rejected> {
    let limits = &snapshot.limits;
    if !event.starts_with("client-") {
        let message = "Client event rejected - the name of an event from a client begins with client-";
        return Err(rejected(RefusalReason::ClientEventName, message));
    }
    let Some(channel) = channel else {
        return Err(rejected(RefusalReason::ClientEventChannel, "Client event rejected - it names no channel"));
    };
    if !snapshot.config.features.client_events {
        let message = "The app does not have client messaging enabled.".to_owned();
        let reason = RefusalReason::ClientEventsDisabled;
        return Err(Rejected { reason, code: Some(CLIENT_EVENT_REJECTED), message });
    }
    let kind = Channel::parse(channel, limits.channel_name).map_or(Kind::Public, |channel| channel.kind());
    if kind.is_encrypted() {
        let message = "Client event rejected - not supported on encrypted channels";
        return Err(rejected(RefusalReason::ClientEventChannel, message));
    }
    if !kind.takes_client_events() {
        let message = "Client event rejected - only supported on private and presence channels";
        return Err(rejected(RefusalReason::ClientEventChannel, message));
    }
    if event.chars().count() > limits.event_name {
        let message = format!("Event name is too long. Maximum allowed size is {}.", limits.event_name);
        return Err(too_large(message));
    }
    if data.is_some_and(|data| data.len() > limits.event_data) {
        let message = format!("The event data should be less than {} bytes.", limits.event_data);
        return Err(too_large(message));
    }
    Ok(channel)
}

fn within_rate(connections: &mut Connections<Client>, id: ConnectionId, per_second: u32) -> Result<(), Rejected> {
    let Some(subscriber) = subscriber(connections, id) else { return Ok(()) };
    let now = Instant::now();
    let interval = Duration::from_secs(1) / per_second.max(1);
    let new = || TokenBucket::new(per_second, interval, now);
    let bucket = subscriber.extras().triggering.get_or_insert_with(new);
    bucket.take(now).map_err(|_| Rejected {
        reason: RefusalReason::ClientEventRate,
        code: Some(CLIENT_EVENT_REJECTED),
        message: format!("Client event rejected due to rate limit: at most {per_second} per second"),
    })
}

fn rejected(reason: RefusalReason, message: impl Into<String>) -> Rejected {
    Rejected { reason, code: None, message: message.into() }
}

fn too_large(message: String) -> Rejected {
    Rejected { reason: RefusalReason::ClientEventSize, code: Some(CLIENT_EVENT_REJECTED), message }
}

/// What webhooks call the data: always a text.
fn text_of(data: &str) -> Box<str> {
    match serde_json::from_str::<String>(data) {
        Ok(text) => text.into(),
        Err(_) => data.into(),
    }
}
