//! What may be asked about a channel, beside or without an event for it: `info=user_count,subscription_count,cache`.

use std::future::poll_fn;
use std::task::Poll;

use serde::{Serialize, Serializer};

use super::echo;
use crate::app::Features;
use crate::http::answer::ApiError;
use crate::pusher::channel::Kind;
use crate::query::{CachedEvent, ChannelState, Occupancy};

/// Attributes of a channel.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Info {
    /// The users in a presence channel.
    pub(crate) user_count: bool,
    /// The subscriptions to a channel, if the app has that switched on.
    pub(crate) subscription_count: bool,
    /// The last event of a cache channel.
    pub(crate) cache: bool,
}

impl Info {
    /// Reads the names of attributes.
    pub(crate) fn parse<'a>(names: impl IntoIterator<Item = &'a str>) -> Result<Self, ApiError> {
        let mut info = Self::default();
        for name in names {
            match name.trim() {
                "" => {}
                "user_count" => info.user_count = true,
                "subscription_count" => info.subscription_count = true,
                "cache" => info.cache = true,
                unknown => {
                    return Err(ApiError::bad_request(format!(
                        "There is no attribute {:?} to ask for by info: there are user_count, subscription_count and cache.",
                        echo(unknown)
                    )));
                }
            }
        }
        Ok(info)
    }

    /// Those among them that a channel of this kind has.
    pub(crate) fn applicable(self, kind: Kind, features: &Features) -> Self {
        Self {
            user_count: self.user_count && kind.is_presence(),
            subscription_count: self.subscription_count && features.tells_subscription_count(),
            cache: self.cache && kind.is_cache(),
        }
    }

    /// Refuses what a channel of this kind does not have.
    pub(crate) fn check(self, kind: Kind, features: &Features) -> Result<Self, ApiError> {
        if self.user_count && !kind.is_presence() {
            return Err(ApiError::bad_request("user_count may only be requested for presence channels."));
        }
        if self.subscription_count {
            check_subscription_count(features)?;
        }
        if self.cache && !kind.is_cache() {
            return Err(ApiError::bad_request("cache may only be requested for cache channels."));
        }
        Ok(self)
    }

    /// Refuses what a list of the channels whose names begin so cannot tell.
    pub(crate) fn check_list(self, prefix: &str, features: &Features) -> Result<Self, ApiError> {
        if self.user_count && !Kind::of(prefix).is_presence() {
            return Err(ApiError::bad_request(
                "user_count may only be requested for presence channels: add filter_by_prefix=presence-",
            ));
        }
        if self.subscription_count {
            check_subscription_count(features)?;
        }
        if self.cache {
            return Err(ApiError::bad_request("cache may only be requested for one channel."));
        }
        Ok(self)
    }

    pub(crate) fn is_empty(self) -> bool {
        self == Self::default()
    }
}

fn check_subscription_count(features: &Features) -> Result<(), ApiError> {
    if features.tells_subscription_count() {
        return Ok(());
    }
    Err(ApiError::bad_request(
        "subscription_count is not enabled for this app: its setting subscription-count is true or info.",
    ))
}

/// What was asked about a channel, as an object; one without fields if nothing was.
#[derive(Clone, Copy, Serialize)]
pub(crate) struct Attributes<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    occupied: Option<bool>,
    #[serde(skip_serializing_if = "Option::is_none")]
    user_count: Option<usize>,
    #[serde(skip_serializing_if = "Option::is_none")]
    subscription_count: Option<usize>,
    #[serde(skip_serializing_if = "Option::is_none")]
    cache: Option<Cache<'a>>,
}

/// The last event of a channel that keeps it; `null` if there is none.
#[derive(Clone, Copy, Serialize)]
struct Cache<'a>(Option<LastEvent<'a>>);

#[derive(Clone, Copy, Serialize)]
struct LastEvent<'a> {
    data: &'a str,
    /// Seconds.
    ttl: u64,
}

impl<'a> Attributes<'a> {
    /// Of a channel among others.
    pub(crate) fn of(info: Info, occupancy: Occupancy) -> Self {
        Self {
            occupied: None,
            user_count: info.user_count.then(|| occupancy.users.unwrap_or_default()),
            subscription_count: info.subscription_count.then_some(occupancy.subscriptions),
            cache: info.cache.then_some(Cache(None)),
        }
    }

    /// Of one channel, which may have no subscribers.
    pub(crate) fn of_one(info: Info, state: &'a ChannelState) -> Self {
        let last = |CachedEvent { data, ttl }: &'a CachedEvent| LastEvent { data, ttl: ttl.as_secs() };
        Self {
            occupied: Some(state.occupancy.subscriptions > 0 || state.occupancy.users.is_some_and(|users| users > 0)),
            cache: info.cache.then(|| Cache(state.cached.as_ref().map(last))),
            ..Self::of(info, state.occupancy)
        }
    }
}

/// `{"channels":{NAME:ATTRIBUTES,…}}`, in the order of the pairs.
pub(crate) fn by_channel<'a, I>(attributes: I) -> impl Serialize
where
    I: Iterator<Item = (&'a str, Attributes<'a>)> + Clone,
{
    #[derive(Serialize)]
    struct Channels<T> {
        channels: T,
    }
    Channels { channels: Pairs(attributes) }
}

/// Pairs as one object. They are made one after the other: there may be a million of them.
struct Pairs<I>(I);

impl<K: Serialize, V: Serialize, I: Iterator<Item = (K, V)> + Clone> Serialize for Pairs<I> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_map(self.0.clone())
    }
}

/// The answers to several questions that are asked at once, in the order of the questions.
///
/// # Cancel safety
/// Dropping it drops the questions.
pub(crate) async fn all<T>(questions: impl IntoIterator<Item = impl Future<Output = T>>) -> Vec<T> {
    let mut waiting: Vec<_> = questions.into_iter().map(|question| (Box::pin(question), None)).collect();
    poll_fn(|context| {
        let mut answer = Poll::Ready(());
        for (question, answered) in &mut waiting {
            if answered.is_none() {
                match question.as_mut().poll(context) {
                    Poll::Ready(output) => *answered = Some(output),
                    Poll::Pending => answer = Poll::Pending,
                }
            }
        }
        answer
    })
    .await;
    waiting.into_iter().filter_map(|(_, answer)| answer).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Arc;
    use std::time::Duration;
    use tokio::sync::oneshot;

    const OFF: Features = Features {
        client_events: true,
        subscription_count: false,
        subscription_count_in_info: false,
        watchlist: false,
        authorization_timeout: Duration::ZERO,
        presence_grace: Duration::ZERO,
        fallback: true,
    };
    const ON: Features = Features { subscription_count: true, ..OFF };
    const ASKED: Features = Features { subscription_count_in_info: true, ..OFF };

    fn info(text: &str) -> Info {
        Info::parse(text.split(',')).expect(text)
    }

    fn written(attributes: &Attributes<'_>) -> String {
        serde_json::to_string(attributes).expect("JSON")
    }

    #[test]
    fn attributes_are_named_and_unknown_ones_refused() {
        assert!(info("").is_empty() && info(" , ").is_empty());
        assert_eq!(info("user_count, cache"), Info { user_count: true, subscription_count: false, cache: true });
        let unknown = format!("{:?}", Info::parse(["users"]).expect_err("unknown"));
        assert!(unknown.contains("status: 400") && unknown.contains("\\\"users\\\""), "{unknown}");
        let long = format!("{:?}", Info::parse(["x".repeat(100_000).as_str()]).expect_err("unknown"));
        assert!(long.len() < 1000, "{}", long.len());
    }

    #[test]
    fn one_channel_is_asked_only_for_what_its_kind_has() {
        for (asked, kind, features, answer) in [
            ("user_count", Kind::Presence, OFF, Ok(())),
            ("user_count", Kind::PresenceCache, OFF, Ok(())),
            ("user_count", Kind::Private, OFF, Err("only be requested for presence")),
            ("user_count", Kind::Public, ON, Err("only be requested for presence")),
            ("subscription_count", Kind::Public, OFF, Err("is not enabled for this app")),
            ("subscription_count", Kind::Public, ON, Ok(())),
            ("subscription_count", Kind::PrivateEncryptedCache, ON, Ok(())),
            ("subscription_count", Kind::Public, ASKED, Ok(())),
            ("user_count,subscription_count", Kind::Presence, ON, Ok(())),
            ("subscription_count", Kind::PresenceCache, ASKED, Ok(())),
            ("subscription_count", Kind::Presence, OFF, Err("is not enabled for this app")),
            ("cache", Kind::Cache, OFF, Ok(())),
            ("cache", Kind::PrivateCache, OFF, Ok(())),
            ("cache", Kind::PrivateEncryptedCache, OFF, Ok(())),
            ("cache", Kind::PresenceCache, OFF, Ok(())),
            ("cache", Kind::Private, OFF, Err("only be requested for cache")),
            ("user_count,cache", Kind::PresenceCache, OFF, Ok(())),
            ("user_count,cache", Kind::Presence, OFF, Err("only be requested for cache")),
            ("", Kind::Public, OFF, Ok(())),
        ] {
            let found = info(asked).check(kind, &features).map(drop).map_err(|problem| format!("{problem:?}"));
            match answer {
                Ok(()) => assert_eq!(found, Ok(()), "{asked} of {kind:?}"),
                Err(reason) => assert!(found.clone().is_err_and(|error| error.contains(reason)), "{asked}: {found:?}"),
            }
        }
    }

    #[test]
    fn a_list_is_asked_only_for_what_all_in_it_may_have() {
        for (asked, prefix, features, answer) in [
            ("user_count", "presence-", OFF, Ok(())),
            ("user_count", "presence-cache-x", OFF, Ok(())),
            ("user_count", "", OFF, Err("add filter_by_prefix=presence-")),
            ("user_count", "presence", OFF, Err("add filter_by_prefix=presence-")),
            ("user_count", "private-", OFF, Err("add filter_by_prefix=presence-")),
            ("subscription_count", "", ON, Ok(())),
            ("subscription_count", "", ASKED, Ok(())),
            ("subscription_count", "", OFF, Err("is not enabled for this app")),
            ("user_count,subscription_count", "presence-", ON, Ok(())),
            ("cache", "cache-", ON, Err("for one channel")),
        ] {
            let found = info(asked).check_list(prefix, &features).map(drop).map_err(|problem| format!("{problem:?}"));
            match answer {
                Ok(()) => assert_eq!(found, Ok(()), "{asked} of {prefix}"),
                Err(reason) => assert!(found.clone().is_err_and(|error| error.contains(reason)), "{asked}: {found:?}"),
            }
        }
    }

    #[test]
    fn what_a_publish_asks_in_vain_is_left_out() {
        let all = info("user_count,subscription_count,cache");
        assert_eq!(all.applicable(Kind::Public, &OFF), Info::default());
        assert_eq!(all.applicable(Kind::Public, &ON), info("subscription_count"));
        assert_eq!(all.applicable(Kind::Presence, &OFF), info("user_count"));
        assert_eq!(all.applicable(Kind::Presence, &ASKED), info("user_count,subscription_count"));
        assert_eq!(all.applicable(Kind::PresenceCache, &ON), all);
    }

    #[test]
    fn attributes_are_an_object_even_when_there_are_none() {
        let occupancy = Occupancy { subscriptions: 3, users: Some(2) };
        for (asked, object) in [
            ("", "{}"),
            ("user_count", r#"{"user_count":2}"#),
            ("subscription_count", r#"{"subscription_count":3}"#),
            ("user_count,subscription_count", r#"{"user_count":2,"subscription_count":3}"#),
        ] {
            assert_eq!(written(&Attributes::of(info(asked), occupancy)), object);
        }
        assert_eq!(written(&Attributes::of(info("user_count"), Occupancy::default())), r#"{"user_count":0}"#);
    }

    #[test]
    fn one_channel_tells_whether_it_is_occupied_and_what_it_keeps() {
        let vacant = ChannelState::default();
        assert_eq!(written(&Attributes::of_one(info(""), &vacant)), r#"{"occupied":false}"#);
        assert_eq!(written(&Attributes::of_one(info("cache"), &vacant)), r#"{"occupied":false,"cache":null}"#);
        let state = ChannelState {
            occupancy: Occupancy { subscriptions: 1, users: None },
            cached: Some(CachedEvent { data: Arc::from("{\"a\":1}"), ttl: Duration::from_millis(60_900) }),
        };
        assert_eq!(
            written(&Attributes::of_one(info("cache,subscription_count"), &state)),
            r#"{"occupied":true,"subscription_count":1,"cache":{"data":"{\"a\":1}","ttl":60}}"#
        );
    }

    #[test]
    fn channels_are_listed_in_their_order_and_by_any_name() {
        let (one, two) = (Occupancy { subscriptions: 1, users: None }, Occupancy { subscriptions: 2, users: Some(1) });
        let channels = [("z\"\\é", one), ("a", two)];
        let listed = channels.iter().map(|(name, state)| (*name, Attributes::of(info("subscription_count"), *state)));
        assert_eq!(
            serde_json::to_string(&by_channel(listed)).expect("JSON"),
            r#"{"channels":{"z\"\\é":{"subscription_count":1},"a":{"subscription_count":2}}}"#
        );
        assert_eq!(serde_json::to_string(&by_channel(std::iter::empty())).expect("JSON"), r#"{"channels":{}}"#);
    }

    #[tokio::test]
    async fn questions_are_asked_at_once_and_answered_in_order() {
        let (first, one) = oneshot::channel();
        let (second, two) = oneshot::channel();
        let answers = tokio::spawn(all([one, two]));
        second.send(2).expect("waiting");
        first.send(1).expect("waiting");
        assert_eq!(answers.await.expect("no panic"), [Ok(1), Ok(2)]);
        assert!(all(Vec::<std::future::Ready<()>>::new()).await.is_empty());
    }
}
