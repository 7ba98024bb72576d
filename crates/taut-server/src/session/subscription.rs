//! Subscribing and leaving, on the client's own shard.

use std::sync::Arc;

use taut_shard::{ConnectionId, Connections};

use super::user::SignedIn;
use super::{Client, Extras, Rooms, Sessions, member};
use crate::app::Limits;
use crate::home::{LastEvent, Visitor, Welcome, Wish};
use crate::interest::{Joined, Left};
use crate::journal::Event;
use crate::pusher::auth::Signature;
use crate::pusher::channel::{Channel, Kind};
use crate::pusher::event::ServerEvent;
use crate::pusher::member::Member as Described;
use crate::pusher::socket_id::SocketId;
use crate::route::{Done, Mail, Ticket, TurnedAway};
use crate::tenants::Terms;

/// A connection that waits for the owner of a channel.
///
/// It stays on the list until the answer has come, also when it leaves before: whether its leaving has anything to undo at the owner is
/// known only then.
#[derive(Debug)]
pub(super) struct Waiting {
    id: ConnectionId,
    /// The number of the question: an answer to an earlier one is not for it.
    ticket: Ticket,
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

impl Sessions {
    pub(super) fn subscribe(
        &mut self,
        connections: &mut Connections<Client>,
        id: ConnectionId,
        name: &str,
        auth: &str,
        channel_data: Option<&str>,
    ) {
        let Some(member) = member(connections, id) else { return };
        let (tenant, socket_id) = (member.admission.index(), member.socket_id);
        let terms = Arc::clone(&member.admission.terms());
        let pending = member.extras.as_ref().map_or(&[][..], |extras| &extras.waiting);
        let is_pending = pending.iter().any(|waiting| **waiting == *name) && self.rooms[tenant].awaits(name, id);
        // The user's own channel came with the sign-in.
        let is_own =
            |user: &SignedIn| user.is_pending || self.rooms[tenant].members.is_member(&Channel::of_user(&user.id), id);
        let own = usize::from(member.user().is_some_and(is_own));
        let taken = (self.rooms[tenant].members.subscriptions(id) + pending.len()).saturating_sub(own);
        let user = member.user().map(|user| Visitor { user_id: Arc::clone(&user.id), user_info: user.info.clone() });
        let vetted = vet(&terms, socket_id, name, auth, channel_data, user).and_then(|(kind, visitor)| {
            let has_room = is_pending.then_some(Ok(()));
            let has_room = has_room.unwrap_or_else(|| self.check_room(id, tenant, &terms.limits, name, taken));
            has_room.map(|()| (kind, visitor))
        });
        match vetted {
            Ok(_) if is_pending => {} // it will be told once
            Ok((kind, visitor)) => self.subscribe_checked(connections, id, tenant, name, kind, visitor),
            Err(refused) => self.refuse_subscription(connections, id, tenant, name, &refused),
        }
    }

    /// Whether there is room for one more subscription beside those that are `taken`. Those that wait for an answer are among them, or a client that
    /// does not wait for answers would get any number.
    fn check_room(
        &self,
        id: ConnectionId,
        tenant: usize,
        limits: &Limits,
        name: &str,
        taken: usize,
    ) -> Result<(), Refused> {
        let rooms = &self.rooms[tenant];
        if rooms.members.is_member(name, id) {
            return Ok(());
        }
        let most = limits.subscriptions;
        if taken >= most {
            let error = format!("A connection may be subscribed to at most {most} channels.");
            return Err(Refused { kind: "LimitReached", error, status: 409 });
        }
        if rooms.waiters >= MOST_WAITING {
            return Err(Refused::busy());
        }
        Ok(())
    }

    /// Everything has been checked that can be here.
    fn subscribe_checked(
        &mut self,
        connections: &mut Connections<Client>,
        id: ConnectionId,
        tenant: usize,
        name: &str,
        kind: Kind,
        visitor: Option<Visitor>,
    ) {
        let is_member = self.rooms[tenant].members.is_member(name, id);
        let user_id = visitor.as_ref().map(|visitor| Arc::clone(&visitor.user_id)).filter(|_| !is_member);
        let wish = match visitor {
            Some(_) if is_member => Wish::Members { cached: kind.is_cache() },
            Some(visitor) => Wish::Presence { visitor, cached: kind.is_cache() },
            None if kind.is_cache() => Wish::Cached,
            None => Wish::Interest,
        };
        self.enter(connections, id, tenant, name, wish, Awaited::Subscription { user_id });
    }

    /// From now on a connection that has signed in gets what is sent to its user, subscribed to the user's channel or not. It is told that it has
    /// signed in as soon as that is so, and not before: whatever is sent from then on reaches it.
    pub(super) fn enter_user_channel(
        &mut self,
        connections: &mut Connections<Client>,
        id: ConnectionId,
        tenant: usize,
        user_id: &str,
        user_data: Option<&str>,
    ) {
        let awaited = Awaited::UserEvents { user_data: user_data.map(Box::from) };
        self.enter(connections, id, tenant, &Channel::of_user(user_id), Wish::Interest, awaited);
    }

    /// A connection comes into a channel: at once, if nobody need be asked.
    fn enter(
        &mut self,
        connections: &mut Connections<Client>,
        id: ConnectionId,
        tenant: usize,
        name: &str,
        wish: Wish,
        awaited: Awaited,
    ) {
        let rooms = &self.rooms[tenant];
        if let Wish::Interest = wish {
            if let Some(channel) = rooms.members.name(name).map(Arc::clone) {
                return self.entered_one(connections, id, tenant, &channel, awaited, &Welcome::default());
            }
            let others = rooms.waiting.get_key_value(name);
            let asked = others.and_then(|(name, others)| Some((Arc::clone(name), others.last()?.ticket)));
            if let Some((channel, ticket)) = asked {
                return self.wait(connections, id, tenant, &channel, ticket, awaited);
            }
        }
        let channel: Arc<str> = rooms.members.name(name).map_or_else(|| name.into(), Arc::clone);
        let home = self.routes.home(tenant, name);
        if home == self.shard {
            match self.host_enter(connections, tenant, &channel, self.shard, &wish) {
                Ok(welcome) => self.entered_one(connections, id, tenant, &channel, awaited, &welcome),
                Err(why) => {
                    self.refuse_subscription(connections, id, tenant, name, &Refused::turned_away(why));
                }
            }
            return;
        }
        let ticket = self.ticket(&wish);
        self.wait(connections, id, tenant, &channel, ticket, awaited);
        self.ask_home(home, Mail::Enter { tenant, channel, shard: self.shard, ticket, wish });
    }

    fn wait(
        &mut self,
        connections: &mut Connections<Client>,
        id: ConnectionId,
        tenant: usize,
        channel: &Arc<str>,
        ticket: Ticket,
        awaited: Awaited,
    ) {
        let Some(member) = member(connections, id) else { return };
        member.extras().waiting.push(Arc::clone(channel));
        let rooms = &mut self.rooms[tenant];
        rooms.waiters += 1;
        let waiting = Waiting { id, ticket, awaited, has_left: false, done: None };
        rooms.waiting.entry(Arc::clone(channel)).or_default().push(waiting);
    }

    /// The owner of a channel has let in whoever waits with this ticket. Those who have left meanwhile leave the owner now.
    pub(super) fn entered(
        &mut self,
        connections: &mut Connections<Client>,
        tenant: usize,
        channel: &Arc<str>,
        ticket: Ticket,
        welcome: &Welcome,
    ) {
        self.answered(self.routes.home(tenant, channel), ticket);
        let taken = self.take_waiting(connections, tenant, channel, ticket);
        let (left, stay): (Vec<_>, Vec<_>) =
            taken.into_iter().partition(|waiting| waiting.has_left || member(connections, waiting.id).is_none());
        // First those who stay, so that nobody is taken for the last one here who is not.
        for Waiting { id, awaited, .. } in stay {
            self.entered_one(connections, id, tenant, channel, awaited, welcome);
        }
        for Waiting { awaited, done, .. } in left {
            let user_id = match awaited {
                Awaited::Subscription { user_id } => user_id,
                Awaited::UserEvents { .. } => None,
            };
            self.leave_home(connections, tenant, channel, user_id);
            drop(done);
        }
    }

    /// Drops a clone of `done` once this connection, which has left, has left the owner of this channel too.
    pub(super) fn report_left(&mut self, tenant: usize, channel: &Arc<str>, id: ConnectionId, done: &Done) {
        let waiting = self.rooms[tenant].waiting.get_mut(channel).into_iter().flatten();
        for waiting in waiting.filter(|waiting| waiting.id == id) {
            waiting.done = Some(done.clone());
        }
    }

    /// The owner of a channel does not let in whoever waits with this ticket: there is nothing to undo for any of them.
    pub(super) fn turned_away(
        &mut self,
        connections: &mut Connections<Client>,
        tenant: usize,
        channel: &Arc<str>,
        ticket: Ticket,
        why: TurnedAway,
    ) {
        self.answered(self.routes.home(tenant, channel), ticket);
        let waiting = self.take_waiting(connections, tenant, channel, ticket);
        for Waiting { id, .. } in waiting.iter().filter(|waiting| !waiting.has_left) {
            self.refuse_subscription(connections, *id, tenant, channel, &Refused::turned_away(why));
        }
        // Somebody else may have left meanwhile and have taken this one for a reason to stay.
        if !waiting.is_empty() {
            self.leave_home(connections, tenant, channel, None);
        }
    }

    fn take_waiting(
        &mut self,
        connections: &mut Connections<Client>,
        tenant: usize,
        channel: &Arc<str>,
        ticket: Ticket,
    ) -> Vec<Waiting> {
        let rooms = &mut self.rooms[tenant];
        let Some(waiting) = rooms.waiting.get_mut(channel) else { return Vec::new() };
        let (taken, rest) = std::mem::take(waiting).into_iter().partition::<Vec<_>, _>(|one| one.ticket == ticket);
        *waiting = rest;
        if waiting.is_empty() {
            rooms.waiting.remove(channel);
            if rooms.waiting.is_empty() {
                rooms.waiting.shrink_to_fit();
            }
        }
        rooms.waiters -= taken.len();
        for Waiting { id, .. } in &taken {
            if let Some(member) = member(connections, *id) {
                member.extras().answered(channel);
                member.tidy();
            }
        }
        taken
    }

    /// A connection is in a channel now.
    fn entered_one(
        &mut self,
        connections: &mut Connections<Client>,
        id: ConnectionId,
        tenant: usize,
        channel: &Arc<str>,
        awaited: Awaited,
        welcome: &Welcome,
    ) {
        match awaited {
            Awaited::Subscription { user_id } => self.welcome(connections, id, tenant, channel, user_id, welcome),
            Awaited::UserEvents { user_data } => {
                self.rooms[tenant].members.join(Arc::clone(channel), id);
                if let Some(user_data) = user_data {
                    self.signed_in(connections, id, tenant, &user_data);
                }
            }
        }
    }

    /// From here on the connection gets what is published, and it is told so.
    fn welcome(
        &mut self,
        connections: &mut Connections<Client>,
        id: ConnectionId,
        tenant: usize,
        channel: &Arc<str>,
        user_id: Option<Arc<str>>,
        welcome: &Welcome,
    ) {
        let Some(member) = member(connections, id) else { return };
        let socket_id = member.socket_id;
        if Kind::of(channel).needs_signature() {
            member.authorized = true;
        }
        if let Some(user_id) = user_id {
            member.extras().presences.push((Arc::clone(channel), user_id));
        }
        let joined = self.rooms[tenant].members.join(Arc::clone(channel), id);
        let members = welcome.members.as_deref();
        self.say(connections, id, &ServerEvent::SubscriptionSucceeded { channel, members });
        match &welcome.last_event {
            LastEvent::Found(message) => {
                // A reader that is too slow is closed by the shard, and counted there.
                let _ = connections.send_prepared(id, message);
            }
            LastEvent::Missing => self.say(connections, id, &ServerEvent::CacheMiss { channel }),
            LastEvent::NotKept => {}
        }
        if joined != Joined::Already {
            let event = || Event::Subscribed { channel: Arc::clone(channel), socket_id };
            self.note(&self.rooms[tenant].tenant, event);
            self.recount(connections, tenant, channel);
        }
    }

    pub(super) fn unsubscribe(&mut self, connections: &mut Connections<Client>, id: ConnectionId, name: &str) {
        let Some(member) = member(connections, id) else { return };
        let (tenant, socket_id) = (member.admission.index(), member.socket_id);
        let user_id = member.extras.as_mut().and_then(|extras| extras.forget(name));
        member.tidy();
        let rooms = &self.rooms[tenant];
        let channel = rooms.members.name(name).or_else(|| rooms.waiting.get_key_value(name).map(|(name, _)| name));
        let Some(channel) = channel.map(Arc::clone) else { return };
        if self.leave(connections, id, tenant, &channel, user_id, false) {
            self.note(&self.rooms[tenant].tenant, || Event::Unsubscribed { channel, socket_id });
        }
    }

    /// A connection leaves a channel, or does not wait for it any longer; whether it did either. The owner learns of the second once it has
    /// answered.
    fn leave(
        &mut self,
        connections: &mut Connections<Client>,
        id: ConnectionId,
        tenant: usize,
        channel: &Arc<str>,
        user_id: Option<Arc<str>>,
        has_ended: bool,
    ) -> bool {
        let rooms = &mut self.rooms[tenant];
        let waiting = rooms.waiting.get_mut(channel).into_iter().flatten();
        let mut waited = false;
        for waiting in waiting.filter(|waiting| waiting.id == id && !waiting.has_left) {
            // Its user is sent what it is sent, until it ends.
            if has_ended || matches!(waiting.awaited, Awaited::Subscription { .. }) {
                (waiting.has_left, waited) = (true, true);
            }
        }
        let left = rooms.members.leave(channel, id);
        if left == Left::Absent {
            return waited;
        }
        self.leave_home(connections, tenant, channel, user_id);
        if left == Left::Others {
            self.recount(connections, tenant, channel);
        }
        true
    }

    /// Tells the owner of a channel that a user's connection, which it has let in, has left; or that nobody here is left, if so. While anybody
    /// waits for the owner, somebody is.
    fn leave_home(
        &mut self,
        connections: &mut Connections<Client>,
        tenant: usize,
        channel: &Arc<str>,
        user_id: Option<Arc<str>>,
    ) {
        let rooms = &mut self.rooms[tenant];
        let is_last = rooms.members.members(channel).len() == 0 && !rooms.waiting.contains_key(channel);
        if user_id.is_none() && !is_last {
            return;
        }
        if is_last {
            rooms.uncounted.remove(channel);
        }
        let home = self.routes.home(tenant, channel);
        if home == self.shard {
            return self.host_leave(connections, tenant, channel, self.shard, user_id.as_ref(), is_last);
        }
        let channel = Arc::clone(channel);
        // It may overtake questions that have not been sent yet: the last one here leaves only when none about this channel is open.
        self.routes.tell(home, Mail::Leave { tenant, channel, shard: self.shard, user_id, is_last });
    }

    /// A connection is gone.
    pub(super) fn leave_all(
        &mut self,
        connections: &mut Connections<Client>,
        id: ConnectionId,
        tenant: usize,
        extras: Option<Box<Extras>>,
    ) {
        let Extras { user, presences, waiting, .. } = *extras.unwrap_or_default();
        for (channel, user_id) in presences {
            self.leave(connections, id, tenant, &channel, Some(user_id), true);
        }
        for channel in waiting {
            self.leave(connections, id, tenant, &channel, None, true);
        }
        if self.rooms[tenant].tenant.terms().app.features.subscription_count {
            let channels: Vec<Arc<str>> = self.rooms[tenant].members.channels_of(id).map(Arc::clone).collect();
            for channel in channels {
                self.leave(connections, id, tenant, &channel, None, true);
            }
        }
        let mut vacated = Vec::new();
        self.rooms[tenant].members.leave_all(id, |channel| vacated.push(channel));
        for channel in vacated {
            self.leave_home(connections, tenant, &channel, None);
        }
        if let Some(user) = user {
            self.sign_out(connections, id, tenant, &user);
        }
    }

    /// Tells the home of a channel how many are subscribed here, where members want to know.
    pub(super) fn recount(&mut self, connections: &mut Connections<Client>, tenant: usize, channel: &Arc<str>) {
        let rooms = &self.rooms[tenant];
        if !rooms.tenant.terms().app.features.subscription_count || !Kind::of(channel).is_counted() {
            return;
        }
        let count = rooms.members.members(channel).len();
        if count == 0 {
            return; // the home learns of that as this shard leaves
        }
        let home = self.routes.home(tenant, channel);
        if home == self.shard {
            return self.host_count(connections, tenant, channel, self.shard, count);
        }
        let mail = Mail::Count { tenant, channel: Arc::clone(channel), shard: self.shard, connections: count };
        if self.routes.ask(home, mail, channel.len()).is_err() {
            // It is made up for when the mailbox has room again.
            self.rooms[tenant].uncounted.insert(Arc::clone(channel));
        }
    }

    fn refuse_subscription(
        &mut self,
        connections: &mut Connections<Client>,
        id: ConnectionId,
        tenant: usize,
        channel: &str,
        refused: &Refused,
    ) {
        let &Refused { kind, ref error, status } = refused;
        self.say(connections, id, &ServerEvent::SubscriptionError { channel, kind, error, status });
        if let Some(member) = member(connections, id) {
            self.refused(tenant, member.socket_id, error);
        }
    }
}

impl Rooms {
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

    fn turned_away(why: TurnedAway) -> Self {
        match why {
            TurnedAway::Busy => Self::busy(),
            TurnedAway::Full(full) => {
                let error =
                    format!("The maximum members per presence channel limit was reached: at most {}.", full.most);
                Self { kind: "LimitReached", error, status: 409 }
            }
            TurnedAway::TooManyChannels { most } => {
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
    terms: &Terms,
    socket_id: SocketId,
    name: &str,
    auth: &str,
    channel_data: Option<&str>,
    user: Option<Visitor>,
) -> Result<(Kind, Option<Visitor>), Refused> {
    let limits = &terms.limits;
    let kind = Channel::parse(name, limits.channel_name).map_err(|error| Refused::invalid(error.to_string()))?.kind();
    if let Some(user_id) = Channel::user_of(name) {
        if user.is_none_or(|user| *user.user_id != *user_id) {
            let error = "Only who has signed in as this user may subscribe to the user's own channel.";
            return Err(Refused { kind: "AuthError", error: error.to_owned(), status: 403 });
        }
        return Ok((kind, None));
    }
    if kind.needs_signature() {
        verify(terms, socket_id, name, auth, channel_data)?;
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
    Ok((kind, Some(Visitor { user_id: described.user_id.into(), user_info })))
}

fn verify(
    terms: &Terms,
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
    let Some(secret) = terms.app.secret(key) else {
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

/// Connections of one app on a shard that wait for the homes of their channels.
pub(super) const MOST_WAITING: usize = 100_000;
