//! Subscribing and leaving, on the client's own shard.

use std::sync::Arc;

use taut_shard::{ConnectionId, Connections};

use super::sign_in::SignedIn;
use super::{Client, Extras, LocalApp, PusherHandler, subscriber};
use crate::app::Limits;
use crate::apps::AppSnapshot;
use crate::bus::{Done, Mail, Rejected, RequestId};
use crate::events::Event;
use crate::owner::{LastEvent, PresenceMember, Subscribe, Subscribed};
use crate::pusher::auth::Signature;
use crate::pusher::channel::{Channel, Kind};
use crate::pusher::event::ServerEvent;
use crate::pusher::member::Member as Described;
use crate::pusher::socket_id::SocketId;
use crate::subscriptions::{Joined, Left};

/// A connection that waits for the owner of a channel.
///
/// It stays on the list until the answer has come, also when it leaves before: whether its leaving has anything to undo at the owner is
/// known only then.
#[derive(Debug)]
pub(super) struct Waiting {
    id: ConnectionId,
    /// The number of the question: an answer to an earlier one is not for it.
    request_id: RequestId,
    awaited: Awaited,
    /// It has unsubscribed meanwhile, or has ended.
    has_left: bool,
    /// Dropped when it has left the owner too.
    done: Option<Done>,
}

/// What a connection has asked for that a channel's owner has to do.
#[derive(Clone, Debug)]
pub(super) enum Awaited {
    /// A subscription; in a presence channel as this user.
    Subscription { user_id: Option<Arc<str>> },
    /// To get what is sent to its user, by the user's own channel.
    UserEvents {
        /// What it has signed in with, and is told once they come; `None` if it came in signed in.
        user_data: Option<Box<str>>,
    },
}

/// Why a subscription was refused.
struct Refused {
    kind: &'static str,
    error: String,
    status: u16,
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
        let is_pending = pending.iter().any(|waiting| **waiting == *name) && self.local_apps[app].awaits(name, id);
        // The user's own channel came with the sign-in.
        let is_own = |user: &SignedIn| {
            user.is_pending || self.local_apps[app].members.is_member(&Channel::of_user(&user.id), id)
        };
        let own = usize::from(subscriber.user().is_some_and(is_own));
        let taken = (self.local_apps[app].members.subscriptions(id) + pending.len()).saturating_sub(own);
        let user = subscriber
            .user()
            .map(|user| PresenceMember { user_id: Arc::clone(&user.id), user_info: user.info.clone() });
        let authorized = vet(&snapshot, socket_id, name, auth, channel_data, user).and_then(|(kind, member)| {
            let has_room = is_pending.then_some(Ok(()));
            let has_room = has_room.unwrap_or_else(|| self.check_room(id, app, &snapshot.limits, name, taken));
            has_room.map(|()| (kind, member))
        });
        match authorized {
            Ok(_) if is_pending => {} // it will be told once
            Ok((kind, member)) => self.subscribe_checked(connections, id, app, name, kind, member),
            Err(refused) => self.refuse_subscription(connections, id, app, name, &refused),
        }
    }

    /// Whether there is room for one more subscription beside those that are `taken`. Those that wait for an answer are among them, or a client that
    /// does not wait for answers would get any number.
    fn check_room(
        &self,
        id: ConnectionId,
        app: usize,
        limits: &Limits,
        name: &str,
        taken: usize,
    ) -> Result<(), Refused> {
        let local_app = &self.local_apps[app];
        if local_app.members.is_member(name, id) {
            return Ok(());
        }
        let most = limits.subscriptions;
        if taken >= most {
            let error = format!("A connection may be subscribed to at most {most} channels.");
            return Err(Refused { kind: "LimitReached", error, status: 409 });
        }
        if local_app.waiters >= MOST_WAITING {
            return Err(Refused::busy());
        }
        Ok(())
    }

    /// Everything has been checked that can be here.
    fn subscribe_checked(
        &mut self,
        connections: &mut Connections<Client>,
        id: ConnectionId,
        app: usize,
        name: &str,
        kind: Kind,
        member: Option<PresenceMember>,
    ) {
        let is_member = self.local_apps[app].members.is_member(name, id);
        let user_id = member.as_ref().map(|member| Arc::clone(&member.user_id)).filter(|_| !is_member);
        let subscribe = match member {
            Some(_) if is_member => Subscribe::Members { cached: kind.is_cache() },
            Some(member) => Subscribe::Presence { member, cached: kind.is_cache() },
            None if kind.is_cache() => Subscribe::Cached,
            None => Subscribe::Subscriptions,
        };
        self.enter(connections, id, app, name, subscribe, Awaited::Subscription { user_id });
    }

    /// From now on a connection that has signed in gets what is sent to its user, subscribed to the user's channel or not. It is told that it has
    /// signed in as soon as that is so, and not before: whatever is sent from then on reaches it.
    pub(super) fn enter_user_channel(
        &mut self,
        connections: &mut Connections<Client>,
        id: ConnectionId,
        app: usize,
        user_id: &str,
        user_data: Option<&str>,
    ) {
        let awaited = Awaited::UserEvents { user_data: user_data.map(Box::from) };
        self.enter(connections, id, app, &Channel::of_user(user_id), Subscribe::Subscriptions, awaited);
    }

    /// A connection comes into a channel: at once, if nobody need be asked.
    fn enter(
        &mut self,
        connections: &mut Connections<Client>,
        id: ConnectionId,
        app: usize,
        name: &str,
        subscribe: Subscribe,
        awaited: Awaited,
    ) {
        let local_app = &self.local_apps[app];
        if let Subscribe::Subscriptions = subscribe {
            if let Some(channel) = local_app.members.name(name).map(Arc::clone) {
                return self.entered_one(connections, id, app, &channel, awaited, &Subscribed::default());
            }
            let others = local_app.waiting.get_key_value(name);
            let asked = others.and_then(|(name, others)| Some((Arc::clone(name), others.last()?.request_id)));
            if let Some((channel, request_id)) = asked {
                return self.wait(connections, id, app, &channel, request_id, awaited);
            }
        }
        let channel: Arc<str> = local_app.members.name(name).map_or_else(|| name.into(), Arc::clone);
        let owner = self.bus.owner(app, name);
        if owner == self.shard {
            match self.own_subscribe(connections, app, &channel, self.shard, &subscribe) {
                Ok(subscribed) => self.entered_one(connections, id, app, &channel, awaited, &subscribed),
                Err(why) => {
                    self.refuse_subscription(connections, id, app, name, &Refused::turned_away(why));
                }
            }
            return;
        }
        let request_id = self.request_id(&subscribe);
        self.wait(connections, id, app, &channel, request_id, awaited);
        self.ask_owner(owner, Mail::Enter { app, channel, shard: self.shard, request_id, subscribe });
    }

    fn wait(
        &mut self,
        connections: &mut Connections<Client>,
        id: ConnectionId,
        app: usize,
        channel: &Arc<str>,
        request_id: RequestId,
        awaited: Awaited,
    ) {
        let Some(subscriber) = subscriber(connections, id) else { return };
        subscriber.extras().waiting.push(Arc::clone(channel));
        let local_app = &mut self.local_apps[app];
        local_app.waiters += 1;
        let waiting = Waiting { id, request_id, awaited, has_left: false, done: None };
        local_app.waiting.entry(Arc::clone(channel)).or_default().push(waiting);
    }

    /// The owner of a channel has let in whoever waits with this ticket. Those who have left meanwhile leave the owner now.
    pub(super) fn entered(
        &mut self,
        connections: &mut Connections<Client>,
        app: usize,
        channel: &Arc<str>,
        request_id: RequestId,
        subscribed: &Subscribed,
    ) {
        self.answered(self.bus.owner(app, channel), request_id);
        let taken = self.take_waiting(connections, app, channel, request_id);
        let (left, stay): (Vec<_>, Vec<_>) =
            taken.into_iter().partition(|waiting| waiting.has_left || subscriber(connections, waiting.id).is_none());
        // First those who stay, so that nobody is taken for the last one here who is not.
        for Waiting { id, awaited, .. } in stay {
            self.entered_one(connections, id, app, channel, awaited, subscribed);
        }
        for Waiting { awaited, done, .. } in left {
            let user_id = match awaited {
                Awaited::Subscription { user_id } => user_id,
                Awaited::UserEvents { .. } => None,
            };
            self.leave_home(connections, app, channel, user_id);
            drop(done);
        }
    }

    /// Drops a clone of `done` once this connection, which has left, has left the owner of this channel too.
    pub(super) fn report_left(&mut self, app: usize, channel: &Arc<str>, id: ConnectionId, done: &Done) {
        let waiting = self.local_apps[app].waiting.get_mut(channel).into_iter().flatten();
        for waiting in waiting.filter(|waiting| waiting.id == id) {
            waiting.done = Some(done.clone());
        }
    }

    /// The owner of a channel does not let in whoever waits with this ticket: there is nothing to undo for any of them.
    pub(super) fn turned_away(
        &mut self,
        connections: &mut Connections<Client>,
        app: usize,
        channel: &Arc<str>,
        request_id: RequestId,
        why: Rejected,
    ) {
        self.answered(self.bus.owner(app, channel), request_id);
        let waiting = self.take_waiting(connections, app, channel, request_id);
        for Waiting { id, .. } in waiting.iter().filter(|waiting| !waiting.has_left) {
            self.refuse_subscription(connections, *id, app, channel, &Refused::turned_away(why));
        }
        // Somebody else may have left meanwhile and have taken this one for a reason to stay.
        if !waiting.is_empty() {
            self.leave_home(connections, app, channel, None);
        }
    }

    fn take_waiting(
        &mut self,
        connections: &mut Connections<Client>,
        app: usize,
        channel: &Arc<str>,
        request_id: RequestId,
    ) -> Vec<Waiting> {
        let local_app = &mut self.local_apps[app];
        let Some(waiting) = local_app.waiting.get_mut(channel) else { return Vec::new() };
        let (taken, rest) =
            std::mem::take(waiting).into_iter().partition::<Vec<_>, _>(|one| one.request_id == request_id);
        *waiting = rest;
        if waiting.is_empty() {
            local_app.waiting.remove(channel);
            if local_app.waiting.is_empty() {
                local_app.waiting.shrink_to_fit();
            }
        }
        local_app.waiters -= taken.len();
        for Waiting { id, .. } in &taken {
            if let Some(subscriber) = subscriber(connections, *id) {
                subscriber.extras().answered(channel);
                subscriber.tidy();
            }
        }
        taken
    }

    /// A connection is in a channel now.
    fn entered_one(
        &mut self,
        connections: &mut Connections<Client>,
        id: ConnectionId,
        app: usize,
        channel: &Arc<str>,
        awaited: Awaited,
        subscribed: &Subscribed,
    ) {
        match awaited {
            Awaited::Subscription { user_id } => self.subscribed(connections, id, app, channel, user_id, subscribed),
            Awaited::UserEvents { user_data } => {
                self.local_apps[app].members.join(Arc::clone(channel), id);
                if let Some(user_data) = user_data {
                    self.signed_in(connections, id, app, &user_data);
                }
            }
        }
    }

    /// From here on the connection gets what is published, and it is told so.
    fn subscribed(
        &mut self,
        connections: &mut Connections<Client>,
        id: ConnectionId,
        app: usize,
        channel: &Arc<str>,
        user_id: Option<Arc<str>>,
        subscribed: &Subscribed,
    ) {
        let Some(subscriber) = subscriber(connections, id) else { return };
        let socket_id = subscriber.socket_id;
        if Kind::of(channel).needs_signature() {
            subscriber.authorized = true;
        }
        if let Some(user_id) = user_id {
            subscriber.extras().presences.push((Arc::clone(channel), user_id));
        }
        let joined = self.local_apps[app].members.join(Arc::clone(channel), id);
        let members = subscribed.members.as_deref();
        self.send_event(connections, id, &ServerEvent::SubscriptionSucceeded { channel, members });
        match &subscribed.last_event {
            LastEvent::Found(message) => {
                // A reader that is too slow is closed by the shard, and counted there.
                let _ = connections.send_prepared(id, message);
            }
            LastEvent::Missing => self.send_event(connections, id, &ServerEvent::CacheMiss { channel }),
            LastEvent::NotKept => {}
        }
        if joined != Joined::Already {
            let event = || Event::Subscribed { channel: Arc::clone(channel), socket_id };
            self.note(&self.local_apps[app].app, event);
            self.recount(connections, app, channel);
        }
    }

    pub(super) fn unsubscribe(&mut self, connections: &mut Connections<Client>, id: ConnectionId, name: &str) {
        let Some(subscriber) = subscriber(connections, id) else { return };
        let (app, socket_id) = (subscriber.admission.index(), subscriber.socket_id);
        let user_id = subscriber.extras.as_mut().and_then(|extras| extras.forget(name));
        subscriber.tidy();
        let local_app = &self.local_apps[app];
        let channel =
            local_app.members.name(name).or_else(|| local_app.waiting.get_key_value(name).map(|(name, _)| name));
        let Some(channel) = channel.map(Arc::clone) else { return };
        if self.leave(connections, id, app, &channel, user_id, false) {
            self.note(&self.local_apps[app].app, || Event::Unsubscribed { channel, socket_id });
        }
    }

    /// A connection leaves a channel, or does not wait for it any longer; whether it did either. The owner learns of the second once it has
    /// answered.
    fn leave(
        &mut self,
        connections: &mut Connections<Client>,
        id: ConnectionId,
        app: usize,
        channel: &Arc<str>,
        user_id: Option<Arc<str>>,
        has_ended: bool,
    ) -> bool {
        let local_app = &mut self.local_apps[app];
        let waiting = local_app.waiting.get_mut(channel).into_iter().flatten();
        let mut waited = false;
        for waiting in waiting.filter(|waiting| waiting.id == id && !waiting.has_left) {
            // Its user is sent what it is sent, until it ends.
            if has_ended || matches!(waiting.awaited, Awaited::Subscription { .. }) {
                (waiting.has_left, waited) = (true, true);
            }
        }
        let left = local_app.members.leave(channel, id);
        if left == Left::Absent {
            return waited;
        }
        self.leave_home(connections, app, channel, user_id);
        if left == Left::Others {
            self.recount(connections, app, channel);
        }
        true
    }

    /// Tells the owner of a channel that a user's connection, which it has let in, has left; or that nobody here is left, if so. While anybody
    /// waits for the owner, somebody is.
    fn leave_home(
        &mut self,
        connections: &mut Connections<Client>,
        app: usize,
        channel: &Arc<str>,
        user_id: Option<Arc<str>>,
    ) {
        let local_app = &mut self.local_apps[app];
        let is_last = local_app.members.members(channel).len() == 0 && !local_app.waiting.contains_key(channel);
        if user_id.is_none() && !is_last {
            return;
        }
        if is_last {
            local_app.uncounted.remove(channel);
        }
        let owner = self.bus.owner(app, channel);
        if owner == self.shard {
            return self.own_leave(connections, app, channel, self.shard, user_id.as_ref(), is_last);
        }
        let channel = Arc::clone(channel);
        // It may overtake questions that have not been sent yet: the last one here leaves only when none about this channel is open.
        self.bus.tell(owner, Mail::Leave { app, channel, shard: self.shard, user_id, is_last });
    }

    /// A connection is gone.
    pub(super) fn leave_all(
        &mut self,
        connections: &mut Connections<Client>,
        id: ConnectionId,
        app: usize,
        extras: Option<Box<Extras>>,
    ) {
        let Extras { user, presences, waiting, .. } = *extras.unwrap_or_default();
        for (channel, user_id) in presences {
            self.leave(connections, id, app, &channel, Some(user_id), true);
        }
        for channel in waiting {
            self.leave(connections, id, app, &channel, None, true);
        }
        if self.local_apps[app].app.snapshot().config.features.subscription_count {
            let channels: Vec<Arc<str>> = self.local_apps[app].members.channels_of(id).map(Arc::clone).collect();
            for channel in channels {
                self.leave(connections, id, app, &channel, None, true);
            }
        }
        let mut vacated = Vec::new();
        self.local_apps[app].members.leave_all(id, |channel| vacated.push(channel));
        for channel in vacated {
            self.leave_home(connections, app, &channel, None);
        }
        if let Some(user) = user {
            self.sign_out(connections, id, app, &user);
        }
    }

    /// Tells the owner of a channel how many are subscribed here, where members want to know.
    pub(super) fn recount(&mut self, connections: &mut Connections<Client>, app: usize, channel: &Arc<str>) {
        let local_app = &self.local_apps[app];
        if !local_app.app.snapshot().config.features.subscription_count || !Kind::of(channel).is_counted() {
            return;
        }
        let count = local_app.members.members(channel).len();
        if count == 0 {
            return; // the owner learns of that as this shard leaves
        }
        let owner = self.bus.owner(app, channel);
        if owner == self.shard {
            return self.own_count(connections, app, channel, self.shard, count);
        }
        let mail = Mail::Count { app, channel: Arc::clone(channel), shard: self.shard, connections: count };
        if self.bus.ask(owner, mail, channel.len()).is_err() {
            // It is made up for when the mailbox has room again.
            self.local_apps[app].uncounted.insert(Arc::clone(channel));
        }
    }

    fn refuse_subscription(
        &mut self,
        connections: &mut Connections<Client>,
        id: ConnectionId,
        app: usize,
        channel: &str,
        refused: &Refused,
    ) {
        let &Refused { kind, ref error, status } = refused;
        self.send_event(connections, id, &ServerEvent::SubscriptionError { channel, kind, error, status });
        if let Some(subscriber) = subscriber(connections, id) {
            self.refused(app, subscriber.socket_id, error);
        }
    }
}

impl LocalApp {
    /// Whether the connection has subscribed to the channel, and waits for the answer.
    fn awaits(&self, channel: &str, id: ConnectionId) -> bool {
        let mut waiting = self.waiting.get(channel).into_iter().flatten();
        waiting.any(|waiting| {
            waiting.id == id && !waiting.has_left && matches!(waiting.awaited, Awaited::Subscription { .. })
        })
    }
}

impl Extras {
    /// One answer about this channel has come.
    fn answered(&mut self, channel: &str) {
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
        Self { kind: "AuthError", error, status: 401 }
    }

    fn invalid(error: impl Into<String>) -> Self {
        Self { kind: "InvalidChannel", error: error.into(), status: 400 }
    }

    fn busy() -> Self {
        let error = "The server is busy: too many subscriptions are under way. Please try again.".to_owned();
        Self { kind: "ServerError", error, status: 503 }
    }

    fn turned_away(why: Rejected) -> Self {
        match why {
            Rejected::Busy => Self::busy(),
            Rejected::Full(full) => {
                let error =
                    format!("The maximum members per presence channel limit was reached: at most {}.", full.most);
                Self { kind: "LimitReached", error, status: 409 }
            }
            Rejected::TooManyChannels { most } => {
                let error = format!(
                    "The app has as many channels as it may, {most}, and this would be one more (max-channels)."
                );
                Self { kind: "LimitReached", error, status: 409 }
            }
        }
    }
}

/// Checks name, signature and what a member says of itself.
fn vet(
    snapshot: &AppSnapshot,
    socket_id: SocketId,
    name: &str,
    auth: &str,
    channel_data: Option<&str>,
    user: Option<PresenceMember>,
) -> Result<(Kind, Option<PresenceMember>), Refused> {
    let limits = &snapshot.limits;
    let kind = Channel::parse(name, limits.channel_name).map_err(|error| Refused::invalid(error.to_string()))?.kind();
    if let Some(user_id) = Channel::user_of(name) {
        if user.is_none_or(|user| *user.user_id != *user_id) {
            let error = "Only who has signed in as this user may subscribe to the user's own channel.";
            return Err(Refused { kind: "AuthError", error: error.to_owned(), status: 403 });
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
        let error = "A presence channel needs channel_data, or a connection that has signed in.";
        return user.map(|user| (kind, Some(user))).ok_or_else(|| Refused::unauthorized(error.to_owned()));
    };
    let described = Described::parse(channel_data).map_err(|error| Refused::invalid(error.to_string()))?;
    if described.user_id.chars().count() > limits.user_id {
        return Err(Refused::invalid(format!(
            "The user_id is too long. Maximum allowed size is {} characters.",
            limits.user_id
        )));
    }
    if described.user_info.as_ref().is_some_and(|info| info.len() > limits.presence_member) {
        let error = format!("The user_info is too large. Maximum allowed size is {} bytes.", limits.presence_member);
        return Err(Refused { kind: "LimitReached", error, status: 413 });
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
    let Some(secret) = snapshot.config.secret(key) else {
        return Err(Refused::unauthorized("Invalid key in subscription auth data: it is none of this app.".to_owned()));
    };
    let socket_id = socket_id.to_string();
    if Signature::of_subscription(secret.reveal(), &socket_id, name, channel_data).matches(signature) {
        return Ok(());
    }
    let data = channel_data.map_or("", |_| ":CHANNEL_DATA");
    Err(Refused::unauthorized(format!(
        "Invalid signature: Expected HMAC SHA256 hex digest of {socket_id}:{name}{data}, but got another one."
    )))
}

/// Connections of one app on a shard that wait for the owners of their channels.
pub(super) const MOST_WAITING: usize = 100_000;
