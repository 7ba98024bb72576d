//! Everything that can be set by a text: by a flag, by a variable, or in a file.

use std::net::SocketAddr;
use std::path::PathBuf;

use super::{Config, LogFormat, acme, cluster, text};
use crate::app::{AppConfig, Limits, Secret};
use Apply::{Limit, Server};

/// How one field of [`Config`] is set by a text: from the command line, from the environment, or from a file.
#[derive(Clone, Copy, Debug)]
pub struct Setting {
    /// The flag, without its dashes; the key in the file.
    pub name: &'static str,
    /// The environment variable.
    pub environment: &'static str,
    /// What the value is, in a word.
    pub value: &'static str,
    /// The value that stands when none is given; empty where that means none.
    pub default: &'static str,
    /// What it is for.
    pub help: &'static str,
    /// Whether it may be given several times; each time adds to the list.
    pub repeatable: bool,
    /// Whether a running server takes on another value; if not, that value holds from the next start.
    pub live: bool,
    /// Whether it is a password or a token: an empty one is a mistake, even in the environment, where an empty variable is otherwise one that is not set.
    pub secret: bool,
    apply: Apply,
}

#[derive(Clone, Copy, Debug)]
enum Apply {
    Server { set: fn(&mut Config, &str) -> Result<(), String>, differs: fn(&Config, &Config) -> bool },
    Limit(fn(&mut Limits, &str) -> Result<(), String>),
}

impl Setting {
    /// Sets the field. The error says what is wrong with the value and what it should be.
    pub fn apply(&self, config: &mut Config, value: &str) -> Result<(), String> {
        match self.apply {
            Server { set, .. } => set(config, value),
            Limit(apply) => apply(&mut config.limits, value),
        }
    }

    /// Whether two configurations differ in the field.
    pub(crate) fn differs(&self, one: &Config, other: &Config) -> bool {
        match self.apply {
            Server { differs, .. } => differs(one, other),
            Limit(_) => one.limits != other.limits,
        }
    }

    /// Where help puts it.
    pub fn heading(&self) -> &'static str {
        let named = HEADINGS.iter().find(|(_, names)| names.contains(&self.name)).map(|(heading, _)| *heading);
        named.or_else(|| self.limit().map(|_| "Limits of an app")).unwrap_or("Options")
    }

    /// Its name in the tables `[limits]` and `[apps.limits]`, if it is one of the limits that each app may have of its own.
    pub fn limit(&self) -> Option<&'static str> {
        matches!(self.apply, Limit(_)).then(|| self.name.strip_prefix("max-").unwrap_or(self.name))
    }

    /// Sets the field of an app's own limits; nothing, if it is no [limit](Self::limit).
    pub(crate) fn apply_limit(&self, limits: &mut Limits, value: &str) -> Result<(), String> {
        match self.apply {
            Server { .. } => Ok(()),
            Limit(apply) => apply(limits, value),
        }
    }

    const fn new(
        name: &'static str,
        environment: &'static str,
        value: &'static str,
        default: &'static str,
        help: &'static str,
        apply: Apply,
    ) -> Self {
        Self { name, environment, value, default, help, repeatable: false, live: true, secret: false, apply }
    }

    const fn repeatable(self) -> Self {
        Self { repeatable: true, ..self }
    }

    const fn secret(self) -> Self {
        Self { secret: true, ..self }
    }

    const fn at_the_next_start(self) -> Self {
        Self { live: false, ..self }
    }
}

/// What help groups the settings by; those that each app may have of its own are limits.
const HEADINGS: &[(&str, &[&str])] = &[
    ("Configuration", &["config", "env-file"]),
    ("Apps", &["app", "apps-file", "apps-database", "apps-table", "apps-reload"]),
    ("Listening", &["listen", "shards", "path-prefix", "trusted-proxies", "proxy-protocol", "keep-alive", "fallback"]),
    (
        "TLS",
        &[
            "tls-certificate",
            "tls-key",
            "acme",
            "acme-directory",
            "acme-contact",
            "acme-ca-root",
            "acme-eab-kid",
            "acme-eab-hmac",
        ],
    ),
    (
        "Connections",
        &[
            "activity-timeout",
            "ping-interval",
            "pong-timeout",
            "max-message",
            "message-timeout",
            "max-unfinished",
            "max-outgoing",
            "slow-reader",
            "deflate",
        ],
    ),
    ("Console and metrics", &["console-listen", "console-password", "metrics-listen", "metrics-token"]),
    (
        "Cluster",
        &["cluster", "cluster-prefix", "cluster-lease", "cluster-name", "cluster-ready", "cluster-publish-away"],
    ),
    ("Webhooks", &["data-directory"]),
    ("Log", &["log-level", "log-format"]),
    ("Shutdown", &["drain-notice", "drain-timeout"]),
];

/// A field of [`Config`] that is set to what a text is read as, or as a closure says.
macro_rules! server {
    ($field:ident, $value:ident => $read:expr) => {
        server!($field, |config, $value| {
            config.$field = $read?;
            Ok(())
        })
    };
    ($field:ident, $set:expr) => {
        Server { set: $set, differs: |one, other| one.$field != other.$field }
    };
}

/// A field of [`Limits`].
macro_rules! limit {
    ($field:ident, $value:ident => $read:expr) => {
        Limit(|limits, $value| {
            limits.$field = $read?;
            Ok(())
        })
    };
}

/// Everything that can be set by a text.
pub const SETTINGS: &[Setting] = &[
    Setting::new(
        "config",
        "TAUT_CONFIG",
        "FILE",
        "",
        "A file with settings and apps, in TOML; flags and variables go before it. It is read again when it changes, and on SIGHUP",
        server!(file, value => named(value).map(Some)),
    )
    .at_the_next_start(),
    Setting::new(
        "env-file",
        "TAUT_ENV_FILE",
        "FILE",
        "",
        "A file of variables, such as Laravel's .env: each counts as if it were set, where the environment does not set it. It is read again when it changes, and on SIGHUP",
        server!(env_file, value => named(value).map(Some)),
    )
    .at_the_next_start(),
    Setting::new(
        "listen",
        "TAUT_LISTEN",
        "ADDR",
        "127.0.0.1:6001",
        "Where to listen: an IP address or host name and a port; a port alone is on 127.0.0.1 (port 0: the system chooses)",
        server!(listen, value => text::listen_address(value)),
    )
    .at_the_next_start(),
    Setting::new(
        "app",
        "TAUT_APPS",
        "ID:KEY:SECRET",
        "",
        "An app to serve, or several with commas between them; with none, a development app is served on loopback addresses",
        server!(apps, |config, value| {
            for (number, text) in (1..).zip(value.split(',')) {
                let place = if value.contains(',') { format!("app {number} of the list: ") } else { String::new() };
                config.apps.push(AppConfig::parse(text).map_err(|error| format!("{place}{error}"))?);
            }
            Ok(())
        }),
    )
    .repeatable(),
    Setting::new(
        "apps-file",
        "TAUT_APPS_FILE",
        "FILE",
        "",
        "A file with apps to serve: one ID:KEY:SECRET per line, comments after #",
        server!(apps_file, value => named(value).map(Some)),
    ),
    Setting::new(
        "apps-database",
        "TAUT_APPS_DATABASE",
        "URL",
        "",
        "A database with apps in a table: sqlite:FILE, postgres://USER:PASSWORD@HOST/DATABASE or mysql://USER:PASSWORD@HOST/DATABASE. It is only read",
        server!(apps_database, value => super::check_database(value).map(|()| Some(value.into()))),
    ),
    Setting::new(
        "apps-table",
        "TAUT_APPS_TABLE",
        "NAME",
        "apps",
        "The table of that database",
        server!(apps_table, value => {
            if value.is_empty() || !value.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_') {
                return Err(format!("{value:?} is no name of a table: it holds letters and digits of ASCII and _"));
            }
            Ok::<_, String>(value.to_owned())
        }),
    ),
    Setting::new(
        "apps-reload",
        "TAUT_APPS_RELOAD",
        "SECONDS",
        "10",
        "How often the whole table is read: a changed app is served within this time",
        server!(apps_reload, value => text::seconds(value)),
    ),
    Setting::new(
        "shards",
        "TAUT_SHARDS",
        "NUMBER",
        "0",
        "Event loops, each on its own thread (0: one per processor core)",
        server!(shards, value => text::count(value, 0, 1024)),
    )
    .at_the_next_start(),
    Setting::new(
        "path-prefix",
        "TAUT_PATH_PREFIX",
        "PATH",
        "",
        "Prefix of /app and /apps in this server's paths, for instance /realtime",
        server!(path_prefix, value => text::prefix(value)),
    )
    .at_the_next_start(),
    Setting::new(
        "trusted-proxies",
        "TAUT_TRUSTED_PROXIES",
        "NETWORK",
        "",
        "Trust X-Forwarded-For and the PROXY protocol only from these addresses or networks, such as 10.0.0.0/8; separate several with commas",
        server!(trusted_proxies, |config, value| {
            for network in value.split(',').map(str::trim).filter(|network| !network.is_empty()) {
                config.trusted_proxies.push(network.parse().map_err(|error: taut_shard::InvalidNetwork| error.to_string())?);
            }
            Ok(())
        }),
    )
    .repeatable()
    .at_the_next_start(),
    Setting::new(
        "proxy-protocol",
        "TAUT_PROXY_PROTOCOL",
        "on|off",
        "off",
        "Whether trusted proxies put the client's address before each connection (PROXY protocol, versions 1 and 2)",
        server!(proxy_protocol, value => text::switch(value)),
    )
    .at_the_next_start(),
    Setting::new(
        "tls-certificate",
        "TAUT_TLS_CERTIFICATE",
        "FILE",
        "",
        "The server's certificate and those above it, in PEM: with it and its key, TLS is spoken. Read again when it changes, and on SIGHUP",
        server!(tls_certificate, value => path(value)),
    )
    .at_the_next_start(),
    Setting::new(
        "tls-key",
        "TAUT_TLS_KEY",
        "FILE",
        "",
        "The private key of the certificate, in PEM. Read again when it changes, and on SIGHUP",
        server!(tls_key, value => path(value)),
    )
    .at_the_next_start(),
    Setting::new(
        "acme",
        "TAUT_ACME",
        "NAME",
        "",
        "A domain name to obtain a certificate for, from Let's Encrypt or another authority of ACME, and to renew it; separate several with commas. Port 443 of each name must lead to listen, and data-directory keeps the certificate",
        server!(acme, |config, value| acme::add_names(&mut config.acme, value)),
    )
    .repeatable()
    .at_the_next_start(),
    Setting::new(
        "acme-directory",
        "TAUT_ACME_DIRECTORY",
        "URL",
        "production",
        "The authority: production or staging (Let's Encrypt), or the URL of another one's directory",
        server!(acme_directory, value => acme::directory(value)),
    )
    .at_the_next_start(),
    Setting::new(
        "acme-contact",
        "TAUT_ACME_CONTACT",
        "ADDRESS",
        "",
        "A mail address that the authority may write to",
        server!(acme_contact, value => acme::contact(value)),
    )
    .at_the_next_start(),
    Setting::new(
        "acme-ca-root",
        "TAUT_ACME_CA_ROOT",
        "FILE",
        "",
        "Root certificates, in PEM, to trust for the directory's HTTPS; default: the system's",
        server!(acme_ca_root, value => path(value)),
    )
    .at_the_next_start(),
    Setting::new(
        "acme-eab-kid",
        "TAUT_ACME_EAB_KID",
        "ID",
        "",
        "The id of the key for external account binding, where the authority requires that",
        server!(acme_eab_kid, value => Ok::<_, String>(Some(value.trim().to_owned()).filter(|id| !id.is_empty()))),
    )
    .at_the_next_start(),
    Setting::new(
        "acme-eab-hmac",
        "TAUT_ACME_EAB_HMAC",
        "KEY",
        "",
        "The key for external account binding, in base64url as the authority shows it",
        server!(acme_eab_hmac, value => acme::external_key(value).map(Some)),
    )
    .secret()
    .at_the_next_start(),
    Setting::new(
        "activity-timeout",
        "TAUT_ACTIVITY_TIMEOUT",
        "SECONDS",
        "120",
        "Silence after which clients are told to ask whether the server is there",
        server!(activity_timeout, value => text::seconds(value)),
    )
    .at_the_next_start(),
    Setting::new(
        "ping-interval",
        "TAUT_PING_INTERVAL",
        "SECONDS",
        "25",
        "Silence after which the server asks whether a client is there; below what load balancers allow",
        server!(ping_interval, value => text::seconds(value)),
    )
    .at_the_next_start(),
    Setting::new(
        "pong-timeout",
        "TAUT_PONG_TIMEOUT",
        "SECONDS",
        "30",
        "How long a client may take to answer before its connection is given up",
        server!(pong_timeout, value => text::seconds(value)),
    )
    .at_the_next_start(),
    Setting::new(
        "keep-alive",
        "TAUT_KEEP_ALIVE",
        "SECONDS",
        "75",
        "Silence between two requests after which an HTTP connection is closed; above the idle timeout of a load balancer",
        server!(keep_alive, value => text::seconds(value)),
    )
    .at_the_next_start(),
    Setting::new(
        "max-message",
        "TAUT_MAX_MESSAGE",
        "BYTES",
        "64KiB",
        "Longest message from a client; a longer one closes its connection",
        server!(message, value => text::bytes(value)),
    )
    .at_the_next_start(),
    Setting::new(
        "message-timeout",
        "TAUT_MESSAGE_TIMEOUT",
        "SECONDS",
        "60",
        "How long a client may take over 16 KiB of a message that it has begun; a slower one is disconnected",
        server!(message_timeout, value => text::seconds(value)),
    )
    .at_the_next_start(),
    Setting::new(
        "max-unfinished",
        "TAUT_MAX_UNFINISHED",
        "BYTES",
        "64MiB",
        "Most memory that clients' unfinished messages may hold together, beyond 16 KiB each; a client that sends more is disconnected",
        server!(unfinished, value => text::bytes(value)),
    )
    .at_the_next_start(),
    Setting::new(
        "max-outgoing",
        "TAUT_MAX_OUTGOING",
        "BYTES",
        "1MiB",
        "Most bytes that may wait for a slow client; slow-reader says what happens beyond that",
        server!(outgoing, value => text::bytes(value)),
    )
    .at_the_next_start(),
    Setting::new(
        "deflate",
        "TAUT_DEFLATE",
        "on|off",
        "on",
        "Whether messages are compressed for clients that offer it (permessage-deflate)",
        server!(deflate, value => text::switch(value)),
    )
    .at_the_next_start(),
    Setting::new(
        "fallback",
        "TAUT_FALLBACK",
        "on|off",
        "on",
        "Whether clients that cannot have a WebSocket may come by HTTP, below /pusher; an app can be left out by its own fallback",
        server!(fallback, value => text::switch(value)),
    )
    .at_the_next_start(),
    Setting::new(
        "max-connections",
        "TAUT_MAX_CONNECTIONS",
        "NUMBER",
        "0",
        "Most connections of one app at a time, on all nodes of a cluster together (0: no limit)",
        limit!(connections, value => text::count(value, 0, u32::MAX)),
    ),
    Setting::new(
        "max-subscriptions",
        "TAUT_MAX_SUBSCRIPTIONS",
        "NUMBER",
        "1000",
        "Most channels that one connection may be subscribed to",
        limit!(subscriptions, value => text::count(value, 1, 1_000_000)),
    ),
    Setting::new(
        "max-channels",
        "TAUT_MAX_CHANNELS",
        "NUMBER",
        "1000000",
        "Most channels of one app with subscribers at a time, at up to 500 bytes each; a subscription that would open one more is refused (0: no limit)",
        limit!(channels, value => text::count(value, 0, u32::MAX)),
    ),
    Setting::new(
        "max-channel-name",
        "TAUT_MAX_CHANNEL_NAME",
        "BYTES",
        "200",
        "Longest name of a channel",
        limit!(channel_name, value => text::bytes(value)),
    ),
    Setting::new(
        "max-event-name",
        "TAUT_MAX_EVENT_NAME",
        "NUMBER",
        "200",
        "Longest name of an event, in characters",
        limit!(event_name, value => text::count(value, 1, 65_536)),
    ),
    Setting::new(
        "max-event-data",
        "TAUT_MAX_EVENT_DATA",
        "BYTES",
        "100KiB",
        "Most data in one published event",
        limit!(event_data, value => text::bytes(value)),
    ),
    Setting::new(
        "max-publish-channels",
        "TAUT_MAX_PUBLISH_CHANNELS",
        "NUMBER",
        "100",
        "Most channels in one publish",
        limit!(channels_per_publish, value => text::count(value, 1, 10_000)),
    ),
    Setting::new(
        "max-batch",
        "TAUT_MAX_BATCH",
        "NUMBER",
        "10",
        "Most events in one batch",
        limit!(batch, value => text::count(value, 1, 10_000)),
    ),
    Setting::new(
        "max-presence-members",
        "TAUT_MAX_PRESENCE_MEMBERS",
        "NUMBER",
        "100",
        "Most users in one presence channel; every newcomer is sent all of them",
        limit!(presence_members, value => text::count(value, 1, 1_000_000)),
    ),
    Setting::new(
        "max-presence-member",
        "TAUT_MAX_PRESENCE_MEMBER",
        "BYTES",
        "2KiB",
        "Largest user_info of a member of a presence channel",
        limit!(presence_member, value => text::bytes(value)),
    ),
    Setting::new(
        "max-user-id",
        "TAUT_MAX_USER_ID",
        "NUMBER",
        "128",
        "Longest id of a user, in characters",
        limit!(user_id, value => text::count(value, 1, 65_536)),
    ),
    Setting::new(
        "max-client-events",
        "TAUT_MAX_CLIENT_EVENTS",
        "NUMBER",
        "10",
        "Most events that one client may send per second",
        limit!(client_events, value => text::number(value, 1, 1_000_000)),
    ),
    Setting::new(
        "max-requests",
        "TAUT_MAX_REQUESTS",
        "NUMBER",
        "0",
        "Most requests of one app's backends per second (0: no limit)",
        limit!(requests, value => text::number(value, 0, u32::MAX)),
    ),
    Setting::new(
        "max-watchlist",
        "TAUT_MAX_WATCHLIST",
        "NUMBER",
        "100",
        "Most users on one watchlist",
        limit!(watchlist, value => text::count(value, 1, 10_000)),
    ),
    Setting::new(
        "cache-ttl",
        "TAUT_CACHE_TTL",
        "SECONDS",
        "1800",
        "How long a cache channel keeps its last event",
        limit!(cache_ttl, value => text::seconds(value)),
    ),
    Setting::new(
        "max-cache",
        "TAUT_MAX_CACHE",
        "BYTES",
        "64MiB",
        "Most memory for the last events of an app's cache channels, on each event loop; the oldest go first",
        limit!(cache, value => text::bytes(value)),
    ),
    Setting::new(
        "slow-reader",
        "TAUT_SLOW_READER",
        "close|drop",
        "close",
        "What goes when more than max-outgoing waits for a client: its connection, so that it notices, or the message",
        limit!(slow_reader, value => text::slow_reader(value)),
    ),
    Setting::new(
        "cluster-publish-away",
        "TAUT_CLUSTER_PUBLISH_AWAY",
        "refuse|local",
        "refuse",
        "What becomes of an event that a backend publishes while the cluster's engine is away: it is refused with 503, or delivered on this node alone",
        limit!(publish_away, value => cluster::publish_away(value)),
    ),
    Setting::new(
        "metrics-listen",
        "TAUT_METRICS_LISTEN",
        "ADDR",
        "",
        "Where to serve /metrics, /up and /ready on a separate listener, without TLS: a port, which is then on 127.0.0.1, or an IP address or host name and a port",
        server!(metrics_listen, value => operators_address(value)),
    )
    .at_the_next_start(),
    Setting::new(
        "metrics-token",
        "TAUT_METRICS_TOKEN",
        "TOKEN",
        "",
        "Opens /metrics, as a bearer token, on every listener; without one it is served by metrics-listen and console-listen and not where clients connect",
        server!(metrics_token, value => metrics_token(value).map(Some)),
    )
    .secret()
    .at_the_next_start(),
    Setting::new(
        "console-listen",
        "TAUT_CONSOLE_LISTEN",
        "ADDR",
        "",
        "Where to serve the console, /metrics, /up and /ready on a separate listener, without TLS: a port, which is then on 127.0.0.1, or an IP address or host name and a port. An address that is not on loopback requires console-password",
        server!(console_listen, value => operators_address(value)),
    )
    .at_the_next_start(),
    Setting::new(
        "console-password",
        "TAUT_CONSOLE_PASSWORD",
        "PASSWORD",
        "",
        "Opens /console, which shows connections, channels and events, for twelve hours, where clients connect and on console-listen; without one only console-listen has a console, and the development app, with a token that is printed at the start. An address may try five times, and then once every five seconds",
        server!(console_password, value => match value.trim() {
            "" => Err("the password is empty: leave the setting out, or set console-listen to serve the console on this machine without one".to_owned()),
            short if short.len() < SHORTEST_PASSWORD => {
                Err(format!("the password is too short: it takes at least {SHORTEST_PASSWORD} characters"))
            }
            _ => Ok(Some(Secret::from(value))),
        }),
    )
    .secret()
    .at_the_next_start(),
    Setting::new(
        "cluster",
        "TAUT_CLUSTER",
        "URL",
        "",
        "Makes one server of several nodes, on a Redis or NATS server that they share: redis://USER:PASSWORD@HOST:PORT/DATABASE, or rediss:// with TLS; all but the host may be left out. redis://HOST:PORT,HOST:PORT names some servers of a Redis Cluster, and redis+sentinel://HOST:PORT,HOST:PORT/MASTER asks sentinels for the server. nats://USER:PASSWORD@HOST:PORT, or tls:// with TLS, also names several servers, behind commas",
        server!(cluster, value => cluster::url(value).map(|()| Some(Secret::from(value.trim())))),
    )
    .at_the_next_start(),
    Setting::new(
        "cluster-prefix",
        "TAUT_CLUSTER_PREFIX",
        "NAME",
        "taut",
        "How all names begin in Redis or NATS: nodes with the same prefix are one cluster",
        server!(cluster_prefix, value => cluster::prefix(value)),
    )
    .at_the_next_start(),
    Setting::new(
        "cluster-lease",
        "TAUT_CLUSTER_LEASE",
        "SECONDS",
        "10",
        "How long after a node has crashed its users are still shown as present, 2 to 60; the same on all nodes",
        server!(cluster_lease, value => cluster::lease(value)),
    )
    .at_the_next_start(),
    Setting::new(
        "cluster-name",
        "TAUT_CLUSTER_NAME",
        "NAME",
        "",
        "What this node is called in /nodes and in the console; without one, as its host",
        server!(cluster_name, value => cluster::name(value)),
    )
    .at_the_next_start(),
    Setting::new(
        "cluster-ready",
        "TAUT_CLUSTER_READY",
        "on|off",
        "off",
        "Whether /ready returns 503 while the cluster's engine is away: all nodes at once, if it is the engine that fails",
        server!(cluster_ready, value => text::switch(value)),
    )
    .at_the_next_start(),
    Setting::new(
        "data-directory",
        "TAUT_DATA_DIRECTORY",
        "FOLDER",
        "",
        "Where webhooks wait to be delivered, and where the certificate of acme is kept; without one webhooks wait in memory, and those that wait are lost when the server stops",
        server!(data_directory, value => path(value)),
    )
    .at_the_next_start(),
    Setting::new(
        "log-level",
        "TAUT_LOG",
        "LEVEL",
        "info",
        "What is logged: off, error, warn, info, debug or trace, also by part of the program (info,taut_server=debug)",
        server!(log_level, value => text::log_level(value)),
    ),
    Setting::new(
        "log-format",
        "TAUT_LOG_FORMAT",
        "text|json",
        "text",
        "How the log is written, to stderr",
        server!(log_format, value => match value {
            "text" => Ok(LogFormat::Text),
            "json" => Ok(LogFormat::Json),
            _ => Err(format!("{value:?} is neither text nor json")),
        }),
    )
    .at_the_next_start(),
    Setting::new(
        "drain-notice",
        "TAUT_DRAIN_NOTICE",
        "SECONDS",
        "5",
        "How long /ready says 503 before a shutdown begins, while all are served as before: as long as a load balancer takes to notice. Not waited for at Ctrl-C, nor where nobody has asked for /ready within a minute",
        server!(drain_notice, value => text::seconds_or_none(value)),
    ),
    Setting::new(
        "drain-timeout",
        "TAUT_DRAIN_TIMEOUT",
        "SECONDS",
        "20",
        "How long a shutdown may take: clients are told to come back, requests in flight are answered",
        server!(drain_timeout, value => text::seconds(value)),
    ),
];

/// Settings that are gone. Each refuses every value, and says what takes its place.
pub const RETIRED: &[Setting] = &[Setting::new(
    "metrics",
    "TAUT_METRICS",
    "off|loopback|on",
    "",
    "Gone: metrics-listen and metrics-token take its place",
    server!(file, |_, _| {
        Err("this setting is gone: metrics-listen serves the metrics on a separate listener (9601: on this machine alone), and metrics-token opens them where clients connect. With neither, nobody can read them".to_owned())
    }),
)
.at_the_next_start()];

/// An address, or none where the text is empty.
fn operators_address(value: &str) -> Result<Option<SocketAddr>, String> {
    if value.trim().is_empty() { Ok(None) } else { text::listen_address(value).map(Some) }
}

/// A file that has to be there. To take an empty name for none would serve without what stands in it.
fn named(value: &str) -> Result<PathBuf, String> {
    path(value)?.ok_or_else(|| "the name is empty: name a file, or leave the setting out".to_owned())
}

#[expect(clippy::unnecessary_wraps, reason = "as what reads other values")]
fn path(value: &str) -> Result<Option<PathBuf>, String> {
    Ok((!value.is_empty()).then(|| PathBuf::from(value)))
}

/// Characters of a password that cannot be tried out in an afternoon.
const SHORTEST_PASSWORD: usize = 12;

/// The error repeats nothing of the token.
fn metrics_token(text: &str) -> Result<Secret, String> {
    if text.len() < 16 || !text.bytes().all(|byte| byte.is_ascii_graphic()) {
        return Err("a token has at least 16 characters of ASCII and no spaces".to_owned());
    }
    Ok(Secret::from(text))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_setting_has_a_place_in_the_help() {
        for setting in SETTINGS {
            assert_ne!(setting.heading(), "Options", "{} is missing in HEADINGS", setting.name);
        }
        for name in HEADINGS.iter().flat_map(|(_, names)| *names) {
            assert!(SETTINGS.iter().any(|setting| setting.name == *name), "there is no setting {name}");
        }
    }
}
