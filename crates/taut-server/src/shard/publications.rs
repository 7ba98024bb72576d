//! What a route's backend publishes, by the rules of the HTTP API.

use std::time::Instant;

use crate::app::Limits;
use crate::gateway::event::{Publish, Target};
use crate::hub::command::{Event, Publication};
use crate::pusher::channel::Channel;
use crate::pusher::payload::Payload;
use crate::pusher::socket_id::SocketId;

/// One event on its way, or why it cannot go: `own` is the connection that has caused it.
pub(crate) fn publication(
    publish: Publish,
    limits: &Limits,
    own: SocketId,
    at: Instant,
) -> Result<Publication, String> {
    let Publish { to, event, data, is_except_self } = publish;
    if event.is_empty() || event.chars().count() > limits.event_name {
        return Err(format!("the event's name has 1 to {} characters", limits.event_name));
    }
    if RESERVED.iter().any(|prefix| event.starts_with(prefix)) {
        return Err("names that begin with pusher: or pusher_internal: are reserved for the server".to_owned());
    }
    let data = Payload::from(&*data);
    if data.is_longer_than(limits.event_data) {
        return Err(format!("its data is larger than {} bytes", limits.event_data));
    }
    let channel = match to {
        Target::Channel(channel) => {
            Channel::parse(&channel, limits.channel_name).map_err(|invalid| invalid.to_string())?;
            channel.into()
        }
        Target::User(user_id) if user_id.chars().count() <= limits.user_id => Channel::of_user(&user_id).into(),
        Target::User(_) => return Err(format!("the user's id is longer than {} characters", limits.user_id)),
        Target::Connection(id) if SocketId::parse(&id).is_some() => Channel::of_connection(&id).into(),
        Target::Connection(_) => return Err("that is not the id of a connection".to_owned()),
    };
    let excluded = is_except_self.then_some(own);
    Ok(Publication { channel, event: Event::published(&event, &data), excluded, at, receipt: None })
}

/// What the server's own events are called.
const RESERVED: [&str; 2] = ["pusher:", "pusher_internal:"];

#[cfg(test)]
mod tests {
    use super::*;

    fn published(to: Target, event: &str, data: &str) -> Result<Publication, String> {
        let limits = Limits { event_name: 10, event_data: 20, user_id: 5, ..Limits::default() };
        let publish = Publish { to, event: event.into(), data: data.into(), is_except_self: false };
        publication(publish, &limits, SocketId::from_random([1; 16]), Instant::now())
    }

    fn channel(name: &str) -> Target {
        Target::Channel(name.into())
    }

    #[test]
    fn an_event_goes_to_a_channel_or_a_user_and_may_leave_out_its_connection() {
        let sent = published(channel("presence-a"), "said", r#"{"x":1}"#).expect("a publication");
        assert_eq!((&*sent.channel, sent.name(), &*sent.data()), ("presence-a", "said", r#"{"x":1}"#));
        assert_eq!(sent.excluded, None);
        let sent = published(Target::User("ann".into()), "said", "hello").expect("a publication");
        assert_eq!((&*sent.channel, &*sent.data()), ("#server-to-user-ann", "hello"));
        let own = SocketId::from_random([2; 16]);
        let publish = Publish { to: channel("a"), event: "b".into(), data: "c".into(), is_except_self: true };
        let sent = publication(publish, &Limits::default(), own, Instant::now()).expect("a publication");
        assert_eq!(sent.excluded, Some(own));
    }

    #[test]
    fn what_the_http_api_refuses_is_refused_here() {
        for (to, event, data, reason) in [
            (channel("a b"), "said", "", "a b"),
            (channel(""), "said", "", "name"),
            (channel("a"), "", "", "1 to 10"),
            (channel("a"), "12345678901", "", "1 to 10"),
            (channel("a"), "pusher:x", "", "reserved"),
            (channel("a"), "pusher_internal:x", "", "1 to 10"),
            (channel("a"), "said", "123456789012345678901", "20 bytes"),
            (Target::User("sixsix".into()), "said", "", "5 characters"),
            (Target::Connection("seven".into()), "said", "", "not the id"),
        ] {
            let refused = published(to, event, data).expect_err(reason);
            assert!(refused.contains(reason) || reason == "a b" || reason == "name", "{refused}");
        }
        assert!(published(channel("a"), "1234567890", "12345678901234567890").is_ok());
        let long = Limits { event_name: 100, ..Limits::default() };
        let publish =
            |event: &str| Publish { to: channel("a"), event: event.into(), data: "".into(), is_except_self: false };
        let internal =
            publication(publish("pusher_internal:member_added"), &long, SocketId::from_random([1; 16]), Instant::now());
        assert!(internal.expect_err("it is the server's").contains("reserved"));
    }
}
