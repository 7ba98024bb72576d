//! What shards say to each other about channels and users.

use std::borrow::Cow;
use std::sync::Arc;
use std::time::Instant;

use taut_proto::Prepared;

use super::receipt::Receipt;
use crate::pusher::channel::Kind;
use crate::pusher::event::{FRAME_EVENT, ServerEvent};
use crate::pusher::payload::Payload;
use crate::pusher::socket_id::SocketId;

/// To the owner of a channel or of an app's users.
#[derive(Clone, Debug)]
pub(crate) enum Command<C> {
    Publish(Publication),
    /// A connection subscribes, and the owner has to know: it answers with [`Reply::Subscribed`] or [`Reply::Rejected`].
    Subscribe {
        channel: Arc<str>,
        request: RequestId,
        subscribe: Subscribe,
    },
    /// A connection that the owner let in has left: of this user in a presence channel, and the last one of its shard if `is_last`. If the
    /// user `may_return`, the app's `presence-grace` applies.
    Unsubscribe {
        channel: Arc<str>,
        user_id: Option<Arc<str>>,
        is_last: bool,
        may_return: bool,
    },
    /// The sender has this many subscribers.
    Count {
        channel: Arc<str>,
        subscribers: usize,
    },
    /// A connection has signed in.
    SignIn {
        user_id: Arc<str>,
    },
    /// A connection that had signed in has ended. If the user `may_return`, the app's `presence-grace` applies.
    SignOut {
        user_id: Arc<str>,
        may_return: bool,
    },
    /// A connection watches these users: answered with [`Reply::Watched`].
    Watch {
        user_ids: Arc<[Arc<str>]>,
        connection: C,
    },
    /// The sender has no connection left that watches this user.
    Unwatch {
        user_id: Arc<str>,
    },
}

impl<C> Command<C> {
    /// The channel whose owner it is for; `None` if it is for the owner of the app's users.
    pub(crate) fn channel(&self) -> Option<&Arc<str>> {
        match self {
            Self::Publish(Publication { channel, .. })
            | Self::Subscribe { channel, .. }
            | Self::Unsubscribe { channel, .. }
            | Self::Count { channel, .. } => Some(channel),
            Self::SignIn { .. } | Self::SignOut { .. } | Self::Watch { .. } | Self::Unwatch { .. } => None,
        }
    }
}

/// From an owner to the shard that asked.
#[derive(Clone, Debug)]
pub(crate) enum Reply<C> {
    /// Everything that is published from here on comes, too. Names the user that has come to a presence channel by it: the owner takes that back if the reply finds no room.
    Subscribed {
        channel: Arc<str>,
        request: RequestId,
        user_id: Option<Arc<str>>,
        subscribed: Subscribed,
    },
    Rejected {
        channel: Arc<str>,
        request: RequestId,
        why: Rejected,
    },
    /// Which of the users are online, and which are not.
    Watched {
        connection: C,
        online: Vec<Arc<str>>,
        offline: Vec<Arc<str>>,
    },
}

/// From an owner to every shard that is interested.
#[derive(Clone, Debug)]
pub(crate) enum Push {
    Deliver(Delivery),
    /// A delivery found no room in the mailbox: the channel's subscribers there have missed it.
    Missed {
        channel: Arc<str>,
    },
    /// A user who is watched there has come online or gone offline.
    Status {
        user_id: Arc<str>,
        is_online: bool,
    },
}

/// Names a [`Command::Subscribe`], and says how much its answer may weigh.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct RequestId {
    pub(super) number: u32,
    pub(crate) weight: u32,
}

/// An event on its way to its channel's owner. The owner puts it in order, keeps it where it is to be kept, and encodes it.
#[derive(Clone, Debug)]
pub(crate) struct Publication {
    pub(crate) channel: Arc<str>,
    pub(crate) event: Event,
    /// The connection that does not get it.
    pub(crate) excluded: Option<SocketId>,
    /// When it came from its publisher.
    pub(crate) at: Instant,
    /// Of a publisher that waits for the engine of the cluster.
    pub(crate) receipt: Option<Receipt>,
}

#[derive(Clone, Debug)]
pub(crate) enum Event {
    /// From a backend: its name, and then its data as a JSON string. One text, which the channels of one request share.
    Published { text: Arc<str>, name: usize },
    /// From a client. The data is JSON of any kind.
    Client { name: Box<str>, data: Option<Box<str>>, user_id: Option<Arc<str>> },
}

impl Event {
    pub(crate) fn published(name: &str, data: &Payload<'_>) -> Self {
        let mut text = String::with_capacity(name.len() + data.written_size());
        text.push_str(name);
        data.write(&mut text);
        Self::Published { text: text.into(), name: name.len() }
    }

    /// What is to be done to connections of routes, as its [data](crate::gateway::frame::Frame::data) says.
    pub(crate) fn frame(data: &str) -> Self {
        Self::published(FRAME_EVENT, &Payload::from(data))
    }
}

impl Publication {
    /// Writes the message that subscribers get.
    pub(crate) fn write(&self, out: &mut String) {
        let channel = &*self.channel;
        match &self.event {
            Event::Published { text, name } => {
                let (event, data) = text.split_at(*name);
                out.reserve(text.len() + channel.len() + FRAME);
                ServerEvent::Published { event, channel, data: &Payload::written(data) }.write(out);
            }
            Event::Client { name: event, data, user_id } => {
                let (data, user_id) = (data.as_deref(), user_id.as_deref());
                ServerEvent::Client { event, channel, data, user_id }.write(out);
            }
        }
    }

    pub(crate) fn encoded(&self) -> Prepared {
        let mut text = String::new();
        self.write(&mut text);
        Prepared::new(text.as_str())
    }

    /// The event's name.
    pub(crate) fn name(&self) -> &str {
        match &self.event {
            Event::Published { text, name } => &text[..*name],
            Event::Client { name, .. } => name,
        }
    }

    /// The event's data, as its publisher meant it.
    pub(crate) fn data(&self) -> Cow<'_, str> {
        match &self.event {
            // The text of a borrowed payload is borrowed for as long as the payload.
            Event::Published { text, name } => Payload::written(&text[*name..]).text().into_owned().into(),
            Event::Client { data, .. } => data.as_deref().unwrap_or_default().into(),
        }
    }

    /// Whether its channel keeps it for newcomers: what a backend publishes is for them, and what it wants done to those
    /// who are there is not.
    pub(crate) fn is_kept(&self) -> bool {
        let is_published = matches!(self.event, Event::Published { .. }) && self.name() != FRAME_EVENT;
        is_published && Kind::of(&self.channel).is_cache()
    }

    /// Bytes that it takes in a mailbox.
    pub(crate) fn bytes(&self) -> usize {
        let event = match &self.event {
            Event::Published { text, .. } => text.len(),
            Event::Client { name, data, .. } => name.len() + data.as_ref().map_or(0, |data| data.len()),
        };
        self.channel.len() + event
    }
}

/// An event as its owner encoded it, on its way to subscribers.
#[derive(Clone, Debug)]
pub(crate) struct Delivery {
    pub(crate) channel: Arc<str>,
    pub(crate) message: Prepared,
    /// The connection that does not get it.
    pub(crate) excluded: Option<SocketId>,
    /// When it came from its publisher; `None` for what the server itself announces.
    pub(crate) at: Option<Instant>,
}

impl Delivery {
    pub(crate) fn bytes(&self) -> usize {
        self.channel.len() + self.message.len()
    }
}

/// What a connection wants of a channel.
#[derive(Clone, Debug)]
pub(crate) enum Subscribe {
    /// What is published.
    Events,
    /// The last event as well.
    LastEvent,
    /// To be seen there as this user, and to hear who else is there.
    Presence { member: PresenceMember, last_event: bool },
    /// It is there already, and wants to hear again who else is.
    Members { last_event: bool },
}

impl Subscribe {
    /// Whether the channel's owner has something to say that is not the same for everybody at any time.
    pub(crate) fn needs_owner(&self) -> bool {
        !matches!(self, Self::Events)
    }

    /// The user that is to be seen.
    pub(super) fn into_user_id(self) -> Option<Arc<str>> {
        if let Self::Presence { member, .. } = self { Some(member.user_id) } else { None }
    }

    /// Whether the channel's last event is wanted.
    pub(super) fn wants_last_event(&self) -> bool {
        match *self {
            Self::Events => false,
            Self::LastEvent => true,
            Self::Presence { last_event, .. } | Self::Members { last_event } => last_event,
        }
    }
}

/// A user who comes to a presence channel.
#[derive(Clone, Debug)]
pub(crate) struct PresenceMember {
    pub(crate) user_id: Arc<str>,
    /// JSON text.
    pub(crate) user_info: Option<Box<str>>,
}

/// What a connection hears once it is subscribed.
#[derive(Clone, Debug, Default)]
pub(crate) struct Subscribed {
    /// Who is in a presence channel: see [`Roster::members`](super::presence::Roster::members).
    pub(crate) members: Option<Box<str>>,
    pub(crate) last_event: LastEvent,
}

impl Subscribed {
    /// Whether there is more to say than that one is subscribed.
    pub(crate) fn is_long(&self) -> bool {
        self.members.is_some() || !matches!(self.last_event, LastEvent::NotKept)
    }

    pub(crate) fn bytes(&self) -> usize {
        let last_event = match &self.last_event {
            LastEvent::Found(message) => message.len(),
            LastEvent::NotKept | LastEvent::Missing => 0,
        };
        last_event + self.members.as_ref().map_or(0, |members| members.len())
    }
}

/// What a cache channel has for a new subscriber.
#[derive(Clone, Debug, Default)]
pub(crate) enum LastEvent {
    /// It is not a cache channel.
    #[default]
    NotKept,
    /// There is none.
    Missing,
    Found(Prepared),
}

/// Why a channel's owner rejects a subscription.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Rejected {
    /// The presence channel has this many users, its limit.
    Full { most: usize },
    /// The app has this many channels, its limit, and this would be a new one.
    TooManyChannels { most: usize },
    /// There is no room for the answer.
    Busy,
}

/// Bytes of an event beside its name, its channel and its data, a few escapes included.
const FRAME: usize = 64;

#[cfg(test)]
mod tests {
    use super::*;

    fn publication(event: Event) -> Publication {
        Publication { channel: "chat".into(), event, excluded: None, at: Instant::now(), receipt: None }
    }

    #[test]
    fn an_event_keeps_its_name_and_its_data_as_the_publisher_meant_them() {
        let published = publication(Event::published("event", &Payload::from("a \"b\"")));
        assert_eq!((published.name(), published.data().as_ref()), ("event", "a \"b\""));
        assert_eq!(published.bytes(), "chat".len() + "event".len() + r#""a \"b\"""#.len());
        let name = || "client-event".into();
        let from_client = publication(Event::Client { name: name(), data: Some("[1]".into()), user_id: None });
        assert_eq!((from_client.name(), from_client.data().as_ref()), ("client-event", "[1]"));
        assert_eq!(from_client.bytes(), "chat".len() + "client-event".len() + "[1]".len());
        let empty = publication(Event::Client { name: name(), data: None, user_id: None });
        assert_eq!((empty.data().as_ref(), empty.bytes()), ("", "chat".len() + "client-event".len()));
    }

    #[test]
    fn what_subscribers_get_is_written_the_same_way_by_whoever_writes_it() {
        let published = publication(Event::published("event", &Payload::from("x")));
        let mut text = String::new();
        published.write(&mut text);
        assert_eq!(text, r#"{"event":"event","channel":"chat","data":"x"}"#);
        assert_eq!(text.capacity(), r#"event"x""#.len() + "chat".len() + FRAME, "in one piece");
        assert_eq!(published.encoded().payload(), text.as_bytes());
        let delivery = Delivery { channel: "chat".into(), message: published.encoded(), excluded: None, at: None };
        assert_eq!(delivery.bytes(), "chat".len() + published.encoded().len());
    }

    #[test]
    fn a_reply_is_long_if_it_has_a_list_or_says_anything_of_a_last_event() {
        let message = || Prepared::new("last");
        let members = || Some("list".into());
        for (members, last_event, is_long, bytes) in [
            (None, LastEvent::NotKept, false, 0),
            (None, LastEvent::Missing, true, 0),
            (None, LastEvent::Found(message()), true, message().len()),
            (members(), LastEvent::NotKept, true, 4),
            (members(), LastEvent::Found(message()), true, message().len() + 4),
        ] {
            let subscribed = Subscribed { members, last_event };
            assert_eq!((subscribed.is_long(), subscribed.bytes()), (is_long, bytes), "{subscribed:?}");
        }
    }
}
