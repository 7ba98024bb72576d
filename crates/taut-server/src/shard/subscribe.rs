//! Subscribing and leaving, on the client's own shard.

use std::sync::Arc;

use taut_shard::{ConnectionId, Connections};

use super::sign_in::SignedIn;
use super::{Client, Extras, PusherHandler, subscriber};
use crate::app::Limits;
use crate::apps::AppSnapshot;
use crate::events::Event;
use crate::hub::command::{PresenceMember, Rejected, Subscribe};
use crate::hub::effects::Effects;
use crate::hub::members::{Cause, Intent, Members};
use crate::place::AppIndex;
use crate::pusher::channel::{Channel, Kind};
use crate::pusher::member::Member as Described;
use crate::pusher::socket_id::SocketId;
use crate::refusals::RefusalReason;

/// Why a subscription was refused.
pub(super) struct Refused {
    pub(super) reason: RefusalReason,
    pub(super) kind: &'static str,
    pub(super) error: String,
    pub(super) status: u16,
}

impl PusherHandler {
    pub(super) fn subscribe(
        &mut self,
        connections: &mut Connections<Client>,
        id: ConnectionId,
        name: &str,
        auth: &str,
        channel_data: Option<&str>,
    ) {
        let Some(subscriber) = subscriber(connections, id) else { return };
        let (app, socket_id) = (subscriber.admission.index(), subscriber.socket_id);
        let snapshot = Arc::clone(&subscriber.admission.snapshot());
        let pending = subscriber.extras.as_ref().map_or(&[][..], |extras| &extras.waiting);
        let Some(members) = self.members(app) else { return };
        let is_pending = pending.iter().any(|waiting| **waiting == *name) && members.is_waiting(name, id);
        // The user's own channel came with the sign-in.
        let is_own =
            |user: &SignedIn| user.is_pending || members.subscribed().is_member(&Channel::of_user(&user.id), id);
        let own = usize::from(subscriber.user().is_some_and(is_own));
        let taken = (members.subscribed().subscriptions(id) + pending.len()).saturating_sub(own);
        let user = subscriber
            .user()
            .map(|user| PresenceMember { user_id: Arc::clone(&user.id), user_info: user.info.clone() });
        let checked = authorize(&snapshot, socket_id, name, auth, channel_data, user).and_then(|(kind, member)| {
            let has_room = is_pending.then_some(Ok(()));
            let has_room = has_room.unwrap_or_else(|| check_room(members, id, &snapshot.limits, name, taken));
            has_room.map(|()| (kind, member))
        });
        match checked {
            Ok(_) if is_pending => {} // it will be told once
            Ok((kind, member)) => self.enter(connections, id, app, name, |members, effects| {
                members.subscribe(id, name, member, kind.is_cache(), effects);
            }),
            Err(refused) => {
                self.settle(connections, app, |_, _, _, _, outlet| outlet.refuse(id, name, &refused));
            }
        }
    }

    /// From now on a connection that has signed in gets what is sent to its user, subscribed to the user's channel or not. It is told that it
    /// has signed in as soon as that is so, and not before: whatever is sent from then on reaches it.
    pub(super) fn enter_user_channel(
        &mut self,
        connections: &mut Connections<Client>,
        id: ConnectionId,
        app: AppIndex,
        user_id: &str,
        user_data: Option<&str>,
    ) {
        let intent = Intent::UserEvents { user_data: user_data.map(Box::from) };
        let name = Channel::of_user(user_id);
        self.enter(connections, id, app, &name, |members, effects| {
            members.enter(id, &name, Subscribe::Events, intent, effects);
        });
    }

    /// A connection enters a channel. If the owner has been asked, that is noted before the answer can come.
    pub(super) fn enter(
        &mut self,
        connections: &mut Connections<Client>,
        id: ConnectionId,
        app: AppIndex,
        name: &str,
        enter: impl FnOnce(&mut Members<ConnectionId>, &mut Effects<ConnectionId>),
    ) {
        self.settle(connections, app, |hub, end, _, _, outlet| {
            let before = hub.members.waiters();
            enter(&mut hub.members, &mut end.effects);
            if hub.members.waiters() == before {
                return;
            }
            let channel = hub.members.name(name).map_or_else(|| name.into(), Arc::clone);
            if let Some(subscriber) = subscriber(outlet.connections, id) {
                subscriber.extras().waiting.push(channel);
            }
        });
    }

    pub(super) fn unsubscribe(&mut self, connections: &mut Connections<Client>, id: ConnectionId, name: &str) {
        let Some(subscriber) = subscriber(connections, id) else { return };
        let (app, socket_id) = (subscriber.admission.index(), subscriber.socket_id);
        let user_id = subscriber.extras.as_mut().and_then(|extras| extras.forget(name));
        subscriber.tidy();
        let Some(channel) = self.members(app).and_then(|members| members.name(name)).map(Arc::clone) else { return };
        let left = self.call(connections, app, |hub, effects| {
            hub.members.leave(id, &channel, user_id, Cause::Unsubscribed, effects)
        });
        if let (Some(true), Some(local_app)) = (left, self.local_app(app)) {
            self.note(&local_app.app, || Event::Unsubscribed { channel, socket_id });
        }
    }

    /// A connection is gone.
    pub(super) fn leave_all(
        &mut self,
        connections: &mut Connections<Client>,
        id: ConnectionId,
        app: AppIndex,
        extras: Option<Box<Extras>>,
        cause: Cause,
    ) {
        let Extras { user, presences, waiting, .. } = *extras.unwrap_or_default();
        self.call(connections, app, |hub, effects| {
            for (channel, user_id) in presences {
                hub.members.leave(id, &channel, Some(user_id), cause, effects);
            }
            for channel in waiting {
                hub.members.leave(id, &channel, None, cause, effects);
            }
            hub.members.leave_all(id, effects);
            if let Some(user) = user {
                hub.members.sign_out(id, &user.id, user.is_shown, cause == Cause::Lost, effects);
            }
        });
    }
}

/// Whether there is room for one more subscription beside those that are `taken`. Those that wait for an answer are among them, or a client
/// that does not wait for answers would get any number.
pub(super) fn check_room(
    members: &Members<ConnectionId>,
    id: ConnectionId,
    limits: &Limits,
    name: &str,
    taken: usize,
) -> Result<(), Refused> {
    if members.subscribed().is_member(name, id) {
        return Ok(());
    }
    let most = limits.subscriptions;
    if taken >= most {
        let error = format!("A connection may be subscribed to at most {most} channels.");
        return Err(Refused::limit(error, 409));
    }
    if members.waiters() >= MOST_WAITING {
        return Err(Refused::busy());
    }
    Ok(())
}

impl Extras {
    /// One answer about this channel has come.
    pub(super) fn answered(&mut self, channel: &str) {
        if let Some(position) = self.waiting.iter().position(|waiting| **waiting == *channel) {
            self.waiting.swap_remove(position);
        }
        if self.waiting.is_empty() {
            // Of a client that has subscribed to a thousand channels at once nothing is to stay.
            self.waiting = Vec::new();
        }
    }

    /// Forgets a presence channel; gives the user that the connection was there.
    fn forget(&mut self, channel: &str) -> Option<Arc<str>> {
        let position = self.presences.iter().position(|(presence, _)| **presence == *channel)?;
        Some(self.presences.swap_remove(position).1)
    }
}

impl Refused {
    fn unauthorized(error: String) -> Self {
        Self { reason: RefusalReason::SubscriptionSignature, kind: "AuthError", error, status: 401 }
    }

    fn invalid(reason: RefusalReason, error: impl Into<String>) -> Self {
        Self { reason, kind: "InvalidChannel", error: error.into(), status: 400 }
    }

    fn limit(error: String, status: u16) -> Self {
        Self { reason: RefusalReason::SubscriptionLimit, kind: "LimitReached", error, status }
    }

    fn busy() -> Self {
        let error = "The server is busy: too many subscriptions are under way. Please try again.".to_owned();
        Self { reason: RefusalReason::SubscriptionBusy, kind: "ServerError", error, status: 503 }
    }

    pub(super) fn rejected(why: Rejected) -> Self {
        match why {
            Rejected::Busy => Self::busy(),
            Rejected::Full { most } => {
                let error = format!("The maximum members per presence channel limit was reached: at most {most}.");
                Self::limit(error, 409)
            }
            Rejected::TooManyChannels { most } => {
                let error = format!(
                    "The app has as many channels as it may, {most}, and this would be one more (max-channels)."
                );
                Self::limit(error, 409)
            }
        }
    }
}

/// Checks name, signature and what a member says of itself.
fn authorize(
    snapshot: &AppSnapshot,
    socket_id: SocketId,
    name: &str,
    auth: &str,
    channel_data: Option<&str>,
    user: Option<PresenceMember>,
) -> Result<(Kind, Option<PresenceMember>), Refused> {
    let limits = &snapshot.limits;
    let kind = Channel::parse(name, limits.channel_name)
        .map_err(|error| Refused::invalid(RefusalReason::ChannelName, error.to_string()))?
        .kind();
    if let Some(user_id) = Channel::user_of(name) {
        if user.is_none_or(|user| *user.user_id != *user_id) {
            let error = "Only who has signed in as this user may subscribe to the user's own channel.";
            let reason = RefusalReason::OtherUsersChannel;
            return Err(Refused { reason, kind: "AuthError", error: error.to_owned(), status: 403 });
        }
        return Ok((kind, None));
    }
    if kind.needs_signature() {
        verify(snapshot, socket_id, name, auth, channel_data)?;
    }
    if !kind.is_presence() {
        return Ok((kind, None));
    }
    let Some(channel_data) = channel_data else {
        let error = "A presence channel needs channel_data or a signed-in connection.";
        let refused = Refused { reason: RefusalReason::ChannelData, ..Refused::unauthorized(error.to_owned()) };
        return user.map(|user| (kind, Some(user))).ok_or(refused);
    };
    let invalid = |error: String| Refused::invalid(RefusalReason::ChannelData, error);
    let described = Described::parse(channel_data).map_err(|error| invalid(error.to_string()))?;
    if described.user_id.chars().count() > limits.user_id {
        return Err(invalid(format!(
            "The user_id is too long. Maximum allowed size is {} characters.",
            limits.user_id
        )));
    }
    if described.user_info.as_ref().is_some_and(|info| info.len() > limits.presence_member) {
        let error = format!("The user_info is too large. Maximum allowed size is {} bytes.", limits.presence_member);
        return Err(Refused::limit(error, 413));
    }
    let user_info = described.user_info.as_deref().map(Box::from);
    Ok((kind, Some(PresenceMember { user_id: described.user_id.into(), user_info })))
}

fn verify(
    snapshot: &AppSnapshot,
    socket_id: SocketId,
    name: &str,
    auth: &str,
    channel_data: Option<&str>,
) -> Result<(), Refused> {
    let Some((key, signature)) = auth.split_once(':') else {
        return Err(Refused::unauthorized(
            "The connection is unauthorized: this channel needs an auth of the form KEY:SIGNATURE.".to_owned(),
        ));
    };
    let Some(signing_key) = snapshot.signing_key(key) else {
        return Err(Refused::unauthorized("Invalid key in subscription auth data: it is none of this app.".to_owned()));
    };
    let socket_id = socket_id.to_string();
    if signing_key.sign_subscription(&socket_id, name, channel_data).matches(signature) {
        return Ok(());
    }
    let data = channel_data.map_or("", |_| ":CHANNEL_DATA");
    Err(Refused::unauthorized(format!(
        "Invalid signature: Expected HMAC SHA256 hex digest of {socket_id}:{name}{data}, but got another one."
    )))
}

/// Connections of one app on a shard that wait for the owners of their channels.
pub(super) const MOST_WAITING: usize = 100_000;
