//! The configuration of an app: its keys, limits, features and webhooks.

mod public_key;
mod upgrade;

use std::fmt;
use std::time::Duration;

pub use taut_shard::SlowReader;

use crate::pusher::channel::Kind;

pub(crate) use public_key::{Algorithm, decode_base64url};
pub use public_key::{InvalidKey, PublicKey};
pub use upgrade::{Callback, InvalidUpgradeAuth, Published, TokenAuth, TokenKeys, UnreadableKey, UpgradeAuth};

/// One application that uses this server.
#[derive(Clone, Debug, PartialEq)]
pub struct AppConfig {
    /// Names the app in the paths of the HTTP API.
    pub id: String,
    /// The keys with their secrets, of which there is at least one. All of them are good, so that one can take the place of another without a gap;
    /// the first, the oldest, signs webhooks.
    pub keys: Vec<Key>,
    /// Whether the app is served; it is by default. Clients of one that is not are closed with 4003, and publishers get 403.
    pub enabled: bool,
    /// What the app's clients and publishers may use; `None`: what the configuration says for all apps.
    pub limits: Option<Limits>,
    /// What is switched on.
    pub features: Features,
    /// The origins whose pages may connect, as [patterns](taut_proto::handshake::origin::Pattern) such as `https://example.com`,
    /// `https://*.example.com`, `null` or `file://`; none means all, which is the default.
    pub origins: Vec<String>,
    /// Whom to tell what happens; nobody by default.
    pub webhooks: Vec<Webhook>,
    /// How clients show who they are before their connections are accepted; not at all by default, as stock clients of Pusher expect it.
    pub upgrade: Option<UpgradeAuth>,
}

impl AppConfig {
    /// An app with one key and the defaults in everything else.
    pub fn new(id: impl Into<String>, key: impl Into<String>, secret: impl Into<Secret>) -> Self {
        Self {
            id: id.into(),
            keys: vec![Key { key: key.into(), secret: secret.into() }],
            enabled: true,
            limits: None,
            features: Features::default(),
            origins: Vec::new(),
            webhooks: Vec::new(),
            upgrade: None,
        }
    }

    /// The app for trying things out: id `1`, key `app-key`, secret `app-secret`. Everybody knows its secret.
    ///
    /// The id is digits, because some of Pusher's server libraries take nothing else (Python's `pusher`).
    pub fn development() -> Self {
        Self::new("1", "app-key", "app-secret")
    }

    /// Reads `ID:KEY:SECRET`.
    ///
    /// The error repeats nothing of the text, since a part of it is a secret.
    pub fn parse(text: &str) -> Result<Self, InvalidApp> {
        let parts: Vec<&str> = text.trim().split(':').collect();
        let &[id, key, secret] = parts.as_slice() else {
            return Err(InvalidApp::Parts { found: parts.len() });
        };
        let app = Self::new(id, key, secret);
        app.check()?;
        Ok(app)
    }

    /// Whether id, keys, secrets and what is asked of clients have a form that can be used.
    pub fn check(&self) -> Result<(), InvalidApp> {
        check_name("id", &self.id, b"")?;
        if self.keys.is_empty() {
            return Err(InvalidApp::Empty { name: "key" });
        }
        for Key { key, secret } in &self.keys {
            check_name("key", key, KEY_CHARACTERS)?;
            if secret.reveal().is_empty() {
                return Err(InvalidApp::Empty { name: "secret" });
            }
            if secret.reveal().chars().any(|character| character.is_whitespace() || character.is_control()) {
                return Err(InvalidApp::Space);
            }
        }
        self.upgrade.as_ref().map_or(Ok(()), UpgradeAuth::check).map_err(InvalidApp::Upgrade)
    }

    /// The key that signs for the app where only one can: the oldest.
    pub fn key(&self) -> &Key {
        // `check` has seen to it that there is one; an app without any is nobody's.
        static NONE: Key = Key { key: String::new(), secret: Secret(None) };
        self.keys.first().unwrap_or(&NONE)
    }

    /// The secret that belongs to one of the app's keys.
    pub fn secret(&self, key: &str) -> Option<&Secret> {
        self.keys.iter().find(|known| known.key == key).map(|known| &known.secret)
    }
}

/// Both stand in URLs: RFC 3986's unreserved characters go through every SDK as they are.
fn check_name(name: &'static str, text: &str, others: &[u8]) -> Result<(), InvalidApp> {
    if text.is_empty() {
        return Err(InvalidApp::Empty { name });
    }
    let is_allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) || others.contains(&byte);
    if !text.bytes().all(is_allowed) {
        return Err(InvalidApp::Character { name });
    }
    Ok(())
}

/// What a segment of a path may hold beside unreserved characters (RFC 3986 §3.3): keys made by `openssl rand -base64` have `+` and `=`. Not `:`,
/// which ends the key in `KEY:SIGNATURE`, and not `/`, which ends the segment.
const KEY_CHARACTERS: &[u8] = b"!$&'()*+,;=@";

/// A key and what signs for it.
#[derive(Clone, Debug, PartialEq)]
pub struct Key {
    /// Names the app to browsers and in signed requests; not secret.
    pub key: String,
    /// Signs for the app.
    pub secret: Secret,
}

/// An app's secret. `Debug` does not show it, and there is no `Display`.
#[derive(Clone, PartialEq)]
pub struct Secret(Option<Box<str>>);

impl Secret {
    /// The secret itself, to sign or verify with.
    pub fn reveal(&self) -> &str {
        self.0.as_deref().unwrap_or_default()
    }
}

impl From<&str> for Secret {
    fn from(text: &str) -> Self {
        Self(Some(text.into()))
    }
}

impl From<String> for Secret {
    fn from(text: String) -> Self {
        Self(Some(text.into()))
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("Secret(…)")
    }
}

/// What is switched on for an app.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(clippy::struct_excessive_bools, reason = "each is a switch of its own")]
pub struct Features {
    /// Whether clients may send events to the other members of private and presence channels; they may by default.
    pub client_events: bool,
    /// Whether subscribers are told how many they are (`subscription_count`), and backends that ask; off by default. It costs a message to every
    /// subscriber for each that comes or goes, at most one every five seconds where there are more than a hundred.
    pub subscription_count: bool,
    /// Whether backends may ask for `subscription_count` though subscribers are not told, as with Soketi and Reverb; off by default. It costs nothing.
    pub subscription_count_in_info: bool,
    /// Whether signed-in users are told when those on their watchlists come and go; off by default.
    pub watchlist: bool,
    /// How long a connection may stay without signing in or subscribing to a private or presence channel; zero, the default, means for ever.
    pub authorization_timeout: Duration,
    /// How long a user who has lost its last connection stays in the lists of presence channels, and online for those who watch it; zero, the
    /// default, means that everybody is told at once, as with Pusher. Whole seconds, 60 at the most. Who unsubscribes, or is closed for good (4000
    /// to 4099), leaves at once.
    pub presence_grace: Duration,
    /// Whether clients that cannot have a WebSocket may come by HTTP, where the server lets them; they may by default.
    pub fallback: bool,
}

impl Default for Features {
    fn default() -> Self {
        Self {
            client_events: true,
            subscription_count: false,
            subscription_count_in_info: false,
            watchlist: false,
            authorization_timeout: Duration::ZERO,
            presence_grace: Duration::ZERO,
            fallback: true,
        }
    }
}

impl Features {
    /// Whether backends may ask how many are subscribed to a channel.
    pub(crate) fn tells_subscription_count(&self) -> bool {
        self.subscription_count || self.subscription_count_in_info
    }

    /// Whether clients and webhooks are told how many are subscribed to a channel of this kind.
    pub(crate) fn announces_count(&self, kind: Kind) -> bool {
        self.subscription_count && kind.is_counted()
    }

    /// Whether the owner of a channel of this kind is to know how many are subscribed. On a node of a cluster it is also where only backends
    /// ask for it: the other nodes answer, too.
    pub(crate) fn counts(&self, kind: Kind, in_cluster: bool) -> bool {
        self.announces_count(kind)
            || in_cluster
                && self.tells_subscription_count()
                && !matches!(kind, Kind::ServerToUser | Kind::ServerToConnection)
    }
}

/// What one app's clients and publishers may use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Connections at a time; 0 means no limit, which is the default. The one too many is closed with 4004.
    pub connections: usize,
    /// Channels that one connection may be subscribed to; 1,000 by default. Those count, too, whose answer is still on its way. Each costs some 40
    /// bytes, beside what the channel costs.
    pub subscriptions: usize,
    /// Channels with subscribers, at a time; 1,000,000 by default, 0 means no limit. Each costs some 300 bytes and its name, so whoever has the app's
    /// key can take half a gigabyte by this default. A subscription that would open one more is refused; those to open channels are not. The channels
    /// of signed-in users do not count.
    pub channels: usize,
    /// Bytes of a channel's name; 200 by default, as the SDKs allow (Pusher's own documents say 164).
    pub channel_name: usize,
    /// Characters of an event's name; 200 by default.
    pub event_name: usize,
    /// Bytes of an event's data; 100 KiB by default, as other self-hosted servers allow (Pusher's cloud allows 10 KiB).
    pub event_data: usize,
    /// Channels in one publish; 100 by default, which is also what the SDKs allow.
    pub channels_per_publish: usize,
    /// Events in one batch; 10 by default.
    pub batch: usize,
    /// Users in one presence channel; 100 by default. Further connections of a member are always let in.
    pub presence_members: usize,
    /// Bytes of what a member says of itself (`user_info`); 2 KiB by default. Every newcomer is sent that of all members.
    pub presence_member: usize,
    /// Characters of a user's id; 128 by default.
    pub user_id: usize,
    /// Events that one client may send per second, and at once; 10 by default. One too many is refused with 4301.
    pub client_events: u32,
    /// Requests that an app's backends may make per second, and at once; 0 means no limit, which is the default. One too many is answered with 429.
    pub requests: u32,
    /// Users on one watchlist; 100 by default. Of a longer one the first count, and the client is told with 4302.
    pub watchlist: usize,
    /// How long a cache channel keeps its last event; 30 minutes by default.
    pub cache_ttl: Duration,
    /// Bytes that the last events of an app's cache channels may take on each event loop; 64 MiB by default. The oldest go first.
    pub cache: usize,
    /// What goes when more than may wait for a client does: its connection, which is the default and what it notices, or the message.
    pub slow_reader: SlowReader,
    /// What becomes of an event that a backend publishes while the cluster's engine is away; it is refused by default.
    pub publish_away: PublishAway,
}

/// What becomes of an event that a backend publishes while the engine of the cluster cannot be reached. A node that is alone has no use for it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum PublishAway {
    /// It is refused with 503 and delivered nowhere: the backend tries again.
    #[default]
    Refuse,
    /// It is delivered to the subscribers on the node that was asked. Those on other nodes never get it.
    Local,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            connections: 0,
            subscriptions: 1000,
            channels: 1_000_000,
            channel_name: 200,
            event_name: 200,
            event_data: 100 * 1024,
            channels_per_publish: 100,
            batch: 10,
            presence_members: 100,
            presence_member: 2 * 1024,
            user_id: 128,
            client_events: 10,
            requests: 0,
            watchlist: 100,
            cache_ttl: Duration::from_secs(30 * 60),
            cache: 64 << 20,
            slow_reader: SlowReader::Close,
            publish_away: PublishAway::Refuse,
        }
    }
}

/// Where an app wants to be told what happens, by `POST`, and what. `Debug` shows neither the URL, which may hold a password, nor what the headers say.
#[derive(Clone, PartialEq, Eq)]
pub struct Webhook {
    /// `http://` or `https://`.
    pub url: String,
    /// Which kinds of event; none means all.
    pub events: Vec<WebhookEvent>,
    /// Only of channels whose names begin so; empty means all.
    pub channel_prefix: String,
    /// Only of channels whose names end so; empty means all.
    pub channel_suffix: String,
    /// Further headers of each request.
    pub headers: Vec<(String, String)>,
    /// Whether events that happen at about the same time come in one request; they do not by default.
    pub batching: bool,
}

impl Webhook {
    /// Everything, one event per request, to this address.
    pub fn new(url: impl Into<String>) -> Self {
        Self {
            url: url.into(),
            events: Vec::new(),
            channel_prefix: String::new(),
            channel_suffix: String::new(),
            headers: Vec::new(),
            batching: false,
        }
    }

    /// Whether it wants to know of this.
    pub fn wants(&self, event: WebhookEvent, channel: &str) -> bool {
        (self.events.is_empty() || self.events.contains(&event))
            && channel.starts_with(&self.channel_prefix)
            && channel.ends_with(&self.channel_suffix)
    }
}

impl fmt::Debug for Webhook {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let headers: Vec<&str> = self.headers.iter().map(|(name, _)| name.as_str()).collect();
        formatter
            .debug_struct("Webhook")
            .field("events", &self.events)
            .field("channel_prefix", &self.channel_prefix)
            .field("channel_suffix", &self.channel_suffix)
            .field("headers", &headers)
            .field("batching", &self.batching)
            .finish_non_exhaustive()
    }
}

/// Declares what webhooks can tell. An event is one entry: what it means, its name, and the event that undoes it, if there is one.
macro_rules! webhook_events {
    (@join $first:literal $(, $name:literal)*) => { concat!($first $(, ", ", $name)*) };
    ($($(#[$meta:meta])* $event:ident $name:literal $(opposite $opposite:ident)?,)*) => {
        /// What a webhook can tell.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        pub enum WebhookEvent {
            $($(#[$meta])* $event,)*
        }

        impl WebhookEvent {
            /// All there are.
            pub const ALL: &'static [Self] = &[$(Self::$event),*];

            /// The names of all.
            pub(crate) const NAMES: &'static str = webhook_events!(@join $($name),*);

            pub(crate) const HELP: &'static str =
                concat!("Which kinds of event: ", webhook_events!(@join $($name),*), "; with none, all");

            /// The name in configurations and in requests.
            pub fn name(self) -> &'static str {
                match self {
                    $(Self::$event => $name,)*
                }
            }

            /// The other half of a pair that cancel each other when the second comes soon enough: a webhook that wants one has to
            /// be shown both.
            pub(crate) fn opposite(self) -> Option<Self> {
                match self {
                    $($(Self::$event => Some(Self::$opposite),)?)*
                    _ => None,
                }
            }
        }
    };
}

webhook_events! {
    /// A channel has its first subscriber.
    ChannelOccupied "channel_occupied" opposite ChannelVacated,
    /// A channel has lost its last subscriber.
    ChannelVacated "channel_vacated" opposite ChannelOccupied,
    /// A user has come to a presence channel.
    MemberAdded "member_added" opposite MemberRemoved,
    /// A user has left a presence channel.
    MemberRemoved "member_removed" opposite MemberAdded,
    /// A client has sent an event.
    ClientEvent "client_event",
    /// A subscriber found nothing in a cache channel.
    CacheMiss "cache_miss",
    /// A channel's number of subscribers has changed.
    SubscriptionCount "subscription_count",
}

/// Why a text is no `ID:KEY:SECRET`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum InvalidApp {
    /// There are not three parts.
    Parts {
        /// How many there are.
        found: usize,
    },
    /// A part is empty.
    Empty {
        /// Which one.
        name: &'static str,
    },
    /// The id or the key has a character that cannot stand in a URL's path.
    Character {
        /// Which one.
        name: &'static str,
    },
    /// The secret has a space or a control character in it.
    Space,
    /// What clients are asked for cannot be used.
    Upgrade(InvalidUpgradeAuth),
}

impl fmt::Display for InvalidApp {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Parts { found } => {
                let found_parts = if *found == 1 { "is 1 part".to_owned() } else { format!("are {found} parts") };
                write!(
                    formatter,
                    "an app is written ID:KEY:SECRET, three parts with colons between them; here {found_parts}"
                )
            }
            Self::Empty { name } => write!(formatter, "the app's {name} is empty; an app is written ID:KEY:SECRET"),
            Self::Character { name } => {
                let others = if *name == "key" { " ! $ & ' ( ) * + , ; = @" } else { "" };
                write!(
                    formatter,
                    "the app's {name} may hold only letters and digits of ASCII and - . _ ~{others}, since it stands in URLs"
                )
            }
            Self::Upgrade(invalid) => invalid.fmt(formatter),
            Self::Space => formatter.write_str("the app's secret may hold no spaces and no control characters"),
        }
    }
}

impl std::error::Error for InvalidApp {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_app_is_id_key_and_secret() {
        let app = AppConfig::parse(" 3:278d425bdf160c739803:7ad3773142a6692b25b8\n").expect("an app");
        assert_eq!((app.id.as_str(), app.key().key.as_str()), ("3", "278d425bdf160c739803"));
        assert_eq!(app.key().secret.reveal(), "7ad3773142a6692b25b8");
    }

    #[test]
    fn a_key_may_be_base64_but_for_its_slash() {
        let app = AppConfig::parse("3:q+Zk1w9R/2o=:x").expect_err("a slash").to_string();
        assert!(
            app.contains("the app's key may hold only letters and digits of ASCII and - . _ ~ ! $ & ' ( ) * + , ; = @"),
            "{app}"
        );
        let app = AppConfig::parse("3:q+Zk1w9R2oXz==:x").expect("an app");
        assert_eq!(app.key().key, "q+Zk1w9R2oXz==");
        for key in ["a:b", "a%2Bb", "a?b", "a#b", "a b", "é", "a\"b"] {
            assert_eq!(AppConfig::new("1", key, "x").check(), Err(InvalidApp::Character { name: "key" }), "{key}");
        }
        assert_eq!(AppConfig::new("1=", "a", "x").check(), Err(InvalidApp::Character { name: "id" }));
    }

    #[test]
    fn what_is_no_app_is_explained_without_repeating_it() {
        for (text, reason) in [
            ("", "here is 1 part"),
            ("hunter2", "here is 1 part"),
            ("1:hunter2", "here are 2 parts"),
            ("1:2:3:hunter2", "here are 4 parts"),
            (":key:hunter2", "the app's id is empty"),
            ("id::hunter2", "the app's key is empty"),
            ("id:key:", "the app's secret is empty"),
            ("i/d:key:hunter2", "the app's id may hold only"),
            ("id:k y:hunter2", "the app's key may hold only"),
            ("id:key:hunter2 x", "the app's secret may hold no spaces"),
        ] {
            let refused = AppConfig::parse(text).expect_err(text).to_string();
            assert!(refused.contains(reason), "{text}: {refused}");
            assert!(!refused.contains("hunter2"), "{refused}");
        }
    }

    #[test]
    fn every_key_has_its_own_secret_and_the_oldest_stands_for_the_app() {
        let mut app = AppConfig::new("1", "old", "x");
        app.keys.push(Key { key: "new".to_owned(), secret: "y".into() });
        assert_eq!(app.secret("new").map(Secret::reveal), Some("y"));
        assert_eq!(app.secret("old").map(Secret::reveal), Some("x"));
        assert_eq!(app.secret("x"), None);
        assert_eq!(app.key().key, "old");
        app.keys.push(Key { key: "b c".to_owned(), secret: "y".into() });
        assert_eq!(app.check(), Err(InvalidApp::Character { name: "key" }));
        app.keys.clear();
        assert_eq!(app.check(), Err(InvalidApp::Empty { name: "key" }));
    }

    #[test]
    fn a_webhook_wants_what_it_names_of_the_channels_it_names() {
        let all = Webhook::new("http://127.0.0.1/");
        assert!(WebhookEvent::ALL.iter().all(|&event| all.wants(event, "any")));
        let some = Webhook {
            events: vec![WebhookEvent::CacheMiss],
            channel_prefix: "cache-".to_owned(),
            channel_suffix: "-x".to_owned(),
            ..all
        };
        assert!(some.wants(WebhookEvent::CacheMiss, "cache-1-x"));
        assert!(!some.wants(WebhookEvent::ClientEvent, "cache-1-x"));
        assert!(!some.wants(WebhookEvent::CacheMiss, "cache-1-y") && !some.wants(WebhookEvent::CacheMiss, "a-x"));
    }

    #[test]
    fn debug_never_shows_the_secret() {
        let shown = format!("{:?}", AppConfig::development());
        assert!(shown.contains("app-key"), "{shown}");
        assert!(!shown.contains("app-secret"), "{shown}");
        let webhook = Webhook {
            headers: vec![("authorization".to_owned(), "hunter2".to_owned())],
            ..Webhook::new("https://me:hunter2@example.com/")
        };
        let shown = format!("{webhook:?}");
        assert!(shown.contains("authorization") && !shown.contains("hunter2"), "{shown}");
    }
}
