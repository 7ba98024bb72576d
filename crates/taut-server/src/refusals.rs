//! Why clients and requests are refused: every reason once, counted for `/metrics` and told to the log.
//!
//! An operator asks "why can nobody connect?" at the default level, so a refusal is logged as `info`. Strangers cause
//! refusals at will: each reason has a few lines in ten seconds, and one line then says how many more there were. No line
//! holds a token, a signature, a secret or the application's own words.

use std::fmt::{self, Display, Write as _};
use std::net::IpAddr;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use crate::pusher::socket_id::SocketId;

/// Declares the reasons: what is refused, the value of the label `reason`, and when that is so.
macro_rules! reasons {
    ($($variant:ident: $what:literal $reason:literal $help:literal,)*) => {
        /// What was refused, and why. The set is bounded, whatever strangers send.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub(crate) enum RefusalReason {
            $(#[doc = $help] $variant,)*
        }

        impl RefusalReason {
            /// All of them, in their order.
            pub(crate) const ALL: &'static [Self] = &[$(Self::$variant,)*];

            /// What is refused: the label `what`.
            pub(crate) const fn what(self) -> &'static str {
                match self { $(Self::$variant => $what,)* }
            }

            /// The label `reason`.
            pub(crate) const fn name(self) -> &'static str {
                match self { $(Self::$variant => $reason,)* }
            }

            /// When that is so.
            #[cfg(test)]
            pub(crate) const fn help(self) -> &'static str {
                match self { $(Self::$variant => $help,)* }
            }
        }
    };
}

reasons! {
    Handshake: "connection" "handshake" "The request is not a WebSocket handshake, often because a proxy does not pass `Upgrade` on.",
    WrongPath: "connection" "path" "The path is not `/app/KEY`, or the app's clients may not come by HTTP.",
    UnknownKey: "connection" "unknown_key" "No app has the key in the path.",
    AppDisabled: "connection" "app_disabled" "The app is switched off.",
    ProtocolVersion: "connection" "protocol_version" "The client speaks a version of the protocol that the server does not.",
    Origin: "connection" "origin" "The page's origin is not in the app's `origins`.",
    Quota: "connection" "quota" "The app has `max-connections` connections already.",
    Token: "connection" "token" "The token is missing, invalid or has expired.",
    Callback: "connection" "callback" "The application answered that the client may not connect.",
    Unavailable: "connection" "unavailable" "Nobody could say whether the client may connect; it was told to try again.",
    AuthorizationTimeout: "connection" "authorization_timeout" "The client has neither signed in nor subscribed to a private channel in time.",
    SubscriptionSignature: "subscription" "signature" "The signature is missing, or was made for something else or with another secret.",
    ChannelName: "subscription" "channel_name" "The channel's name is not valid.",
    ChannelData: "subscription" "channel_data" "What the member says of itself is missing or not valid.",
    OtherUsersChannel: "subscription" "not_signed_in" "The channel is a user's own, and the client has not signed in as that user.",
    SubscriptionLimit: "subscription" "limit" "A limit on subscriptions, channels or members was reached.",
    SubscriptionBusy: "subscription" "busy" "Too many subscriptions were under way.",
    SignInSignature: "sign_in" "signature" "The signature is missing, or was made for something else or with another secret.",
    UserData: "sign_in" "user_data" "What the user says of itself is not valid, or too long.",
    OtherUser: "sign_in" "other_user" "The connection has signed in as another user already.",
    ClientEventsDisabled: "client_event" "disabled" "The app does not allow client events.",
    ClientEventName: "client_event" "name" "The event's name is not valid.",
    ClientEventChannel: "client_event" "channel" "The channel does not take client events.",
    NotSubscribed: "client_event" "not_subscribed" "The client is not subscribed to the channel.",
    ClientEventSize: "client_event" "size" "The event's name or data is too long.",
    ClientEventRate: "client_event" "rate" "The client has sent too many events in a second.",
    ClientEventBusy: "client_event" "busy" "The server has too much to do.",
    UnknownApp: "request" "unknown_app" "No app has the id in the path.",
    RequestKey: "request" "unknown_key" "The app has no such key.",
    RequestParameter: "request" "parameter" "A parameter of the signature is missing, repeated or malformed.",
    RequestTimestamp: "request" "timestamp" "The request is too old or from the future: a clock is wrong.",
    RequestBody: "request" "body_md5" "`body_md5` is the digest of another body.",
    RequestSignature: "request" "signature" "The signature was made for another request or with another secret.",
    RequestDisabled: "request" "app_disabled" "The app is switched off.",
    RequestRate: "request" "rate" "The app's backends have sent more than `max-requests` in a second.",
}

/// How often what was refused, of one app or of those who named none.
#[derive(Debug, Default)]
pub(crate) struct Refusals(OnceLock<Box<[AtomicU64; COUNT]>>);

impl Refusals {
    /// Counts one.
    pub(crate) fn count(&self, reason: RefusalReason) {
        // Most apps never refuse anything, and there may be a hundred thousand of them.
        let counts = self.0.get_or_init(|| Box::new([const { AtomicU64::new(0) }; COUNT]));
        counts[reason as usize].fetch_add(1, Ordering::Relaxed);
    }

    /// The reasons that there have been, with how often.
    pub(crate) fn counts(&self) -> impl Iterator<Item = (RefusalReason, u64)> {
        let counts = self.0.get().into_iter().flat_map(|counts| counts.iter());
        let counts = counts.map(|count| count.load(Ordering::Relaxed));
        RefusalReason::ALL.iter().copied().zip(counts).filter(|(_, count)| *count > 0)
    }

    /// What clients were refused; requests of backends are not among it.
    pub(crate) fn of_clients(&self) -> u64 {
        self.counts().filter(|(reason, _)| reason.what() != "request").map(|(_, count)| count).sum()
    }
}

/// Whom something was refused to, as far as it is known.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Client<'a> {
    pub(crate) app: Option<&'a str>,
    pub(crate) address: Option<IpAddr>,
    pub(crate) socket_id: Option<SocketId>,
    pub(crate) channel: Option<&'a str>,
}

/// Tells the log, unless it has had enough of this reason. `why` may repeat what the client sent, but no secret.
pub(crate) fn tell(reason: RefusalReason, client: Client<'_>, why: impl Display) {
    if !tracing::enabled!(tracing::Level::INFO) {
        return;
    }
    let Turn { more, is_told } = LOG[reason as usize].take(now());
    tell_more(reason, more);
    if !is_told {
        return;
    }
    let Client { app, address, socket_id, channel } = client;
    let (address, socket_id) = (address.map(tracing::field::display), socket_id.map(tracing::field::display));
    let channel = channel.map(shortened);
    let (what, reason, why) = (reason.what(), reason.name(), shortened(why));
    tracing::info!(what, reason, app, address, socket_id, channel, why, "refused");
}

/// Tells how many more there were than the log was told of. To be called about once a second.
pub(crate) fn tell_suppressed() {
    let now = now();
    for (reason, window) in RefusalReason::ALL.iter().zip(&LOG) {
        tell_more(*reason, window.end(now));
    }
}

fn tell_more(reason: RefusalReason, more: u64) {
    if more > 0 {
        tracing::info!(what = reason.what(), reason = reason.name(), more, "refused as well, not logged one by one");
    }
}

/// The beginning of a text: a stranger may have made it long.
fn shortened(text: impl Display) -> String {
    struct Shortened(String);

    impl fmt::Write for Shortened {
        fn write_str(&mut self, text: &str) -> fmt::Result {
            let room = LONGEST_TEXT.saturating_sub(self.0.len());
            self.0.extend(
                text.char_indices().take_while(|(at, letter)| at + letter.len_utf8() <= room).map(|(_, letter)| letter),
            );
            if text.len() > room { Err(fmt::Error) } else { Ok(()) }
        }
    }

    let mut shortened = Shortened(String::new());
    if write!(shortened, "{text}").is_err() {
        shortened.0.push('…');
    }
    shortened.0
}

/// Seconds since the first call.
fn now() -> u64 {
    static START: OnceLock<Instant> = OnceLock::new();
    START.get_or_init(Instant::now).elapsed().as_secs()
}

/// Limits the lines of one reason in ten seconds. It has no lock: shards share it, and one line more or less does not matter.
#[derive(Debug)]
struct Window {
    number: AtomicU64,
    count: AtomicU64,
}

/// Whether a line is told, and how many of the window before were not.
#[derive(Debug, PartialEq, Eq)]
struct Turn {
    more: u64,
    is_told: bool,
}

impl Window {
    const fn new() -> Self {
        Self { number: AtomicU64::new(0), count: AtomicU64::new(0) }
    }

    /// Counts one, at a time in seconds.
    fn take(&self, now: u64) -> Turn {
        let more = self.end(now);
        Turn { more, is_told: self.count.fetch_add(1, Ordering::Relaxed) < MOST_LINES }
    }

    /// Begins a new window if it is time; gives how many of the last one were not told.
    fn end(&self, now: u64) -> u64 {
        let (current, number) = (now / WINDOW, self.number.load(Ordering::Relaxed));
        let is_over = current != number
            && self.number.compare_exchange(number, current, Ordering::Relaxed, Ordering::Relaxed).is_ok();
        if is_over { self.count.swap(0, Ordering::Relaxed).saturating_sub(MOST_LINES) } else { 0 }
    }
}

static LOG: [Window; COUNT] = [const { Window::new() }; COUNT];

const COUNT: usize = RefusalReason::ALL.len();

/// Lines of one reason in a window.
const MOST_LINES: u64 = 10;

/// Seconds.
const WINDOW: u64 = 10;

/// Bytes.
const LONGEST_TEXT: usize = 300;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_labels_of_a_reason_are_its_own() {
        let labels: std::collections::BTreeSet<_> =
            RefusalReason::ALL.iter().map(|reason| (reason.what(), reason.name())).collect();
        assert_eq!(labels.len(), COUNT);
        let is_plain =
            |text: &str| text.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'_');
        assert!(labels.iter().all(|(what, reason)| is_plain(what) && is_plain(reason)));
        assert!(RefusalReason::ALL.iter().enumerate().all(|(index, reason)| *reason as usize == index));
    }

    #[test]
    fn refusals_are_counted_by_their_reason() {
        let refusals = Refusals::default();
        assert_eq!((refusals.counts().count(), refusals.of_clients()), (0, 0));
        for reason in [RefusalReason::Origin, RefusalReason::RequestRate, RefusalReason::Origin] {
            refusals.count(reason);
        }
        let counts: Vec<_> = refusals.counts().collect();
        assert_eq!(counts, [(RefusalReason::Origin, 2), (RefusalReason::RequestRate, 1)]);
        assert_eq!(refusals.of_clients(), 2);
    }

    #[test]
    fn a_flood_has_ten_lines_in_ten_seconds_and_then_its_number() {
        let window = Window::new();
        let told = (0..1000).filter(|_| window.take(3).is_told).count();
        assert_eq!((told, window.end(9)), (10, 0));
        assert_eq!(window.take(10), Turn { more: 990, is_told: true });
        assert_eq!((window.end(10), window.end(20), window.end(25)), (0, 0, 0), "one is told and no more is owed");
        for _ in 0..12 {
            window.take(31);
        }
        assert_eq!((window.end(39), window.end(40), window.end(50)), (0, 2, 0), "also if nobody comes after it");
    }

    #[test]
    fn a_long_text_is_cut_between_characters() {
        assert_eq!(shortened("short"), "short");
        assert_eq!(shortened("a".repeat(LONGEST_TEXT)), "a".repeat(LONGEST_TEXT));
        let cut = shortened(format_args!("a{}{}", "é".repeat(200), "b"));
        assert_eq!(cut, format!("a{}…", "é".repeat(149)));
    }
}
