//! The variables of other servers of this protocol, so that Taut can take their place where it stands.

use std::collections::HashMap;
use std::net::{Ipv4Addr, Ipv6Addr, ToSocketAddrs};

use super::apps::PartialApp;
use super::diagnostic::Diagnostic;
use super::text::{none_below_zero, truth};
use super::{soketi, text};
use crate::app::AppConfig;

/// What other servers' variables say, and what to tell whoever set them.
#[derive(Debug, Default)]
pub(crate) struct Compat {
    pub(crate) settings: Vec<CompatSetting>,
    /// Where apps come from, if they name any.
    pub(crate) apps: Option<CompatApps>,
    /// What to say about a setting where it comes from here.
    pub(crate) hints: Vec<(&'static str, String)>,
    /// What was to name an app and cannot be used. It must not lead to the development app.
    pub(crate) broken: Vec<Diagnostic>,
    /// Of variables that are not used: which, and why.
    pub(crate) notes: Vec<String>,
    /// Variables that have been dealt with.
    used: Vec<&'static str>,
}

/// A setting of ours that another server's variable gives.
#[derive(Debug)]
pub(crate) struct CompatSetting {
    pub(crate) name: &'static str,
    /// The text, or why there is none.
    pub(crate) value: Result<String, String>,
    /// The variable that it comes from.
    pub(crate) variable: &'static str,
}

/// Apps of another server.
#[derive(Debug)]
pub(crate) struct CompatApps {
    /// `None`: they are in a database, which a [setting](CompatSetting) names.
    pub(crate) app: Option<PartialApp>,
    /// The variables that name them.
    pub(crate) variables: &'static str,
    /// What holds at that server where nothing is said: its name, and settings of ours by name and text.
    pub(crate) server: &'static str,
    pub(crate) defaults: &'static [(&'static str, &'static str)],
}

impl Compat {
    pub(crate) fn read(environment: &HashMap<String, String>) -> Self {
        let mut foreign = Self::default();
        foreign.read_listen(environment);
        foreign.read_metrics(environment);
        for &(variable, setting, convert) in VARIABLES {
            let Some(value) = environment.get(variable) else { continue };
            match convert(value) {
                Ok(text) if foreign.settings.iter().all(|known| known.name != setting) => {
                    foreign.settings.push(CompatSetting { name: setting, value: Ok(text), variable });
                }
                Ok(_) => foreign.notes.push(format!("{variable} is not used: another variable has said it already")),
                Err(reason) => foreign.notes.push(format!("{variable} is not used: {reason}")),
            }
        }
        foreign.read_cluster_of_soketi(environment);
        foreign.read_cluster_of_reverb(environment);
        foreign.read_database(environment);
        for family in FAMILIES {
            foreign.read_app(family, environment);
        }
        foreign.note_the_rest(environment);
        foreign
    }

    fn read_listen(&mut self, environment: &HashMap<String, String>) {
        for (host, port, usual) in
            [("SOKETI_HOST", "SOKETI_PORT", "6001"), ("REVERB_SERVER_HOST", "REVERB_SERVER_PORT", "8080")]
        {
            let variable = if environment.contains_key(port) { port } else { host };
            let given = [environment.get(host), environment.get(port)];
            if given == [None, None] || self.settings.iter().any(|known| known.name == "listen") {
                continue;
            }
            let name = given[0].map_or("0.0.0.0", String::as_str);
            let value = listen(name, given[1].map_or(usual, String::as_str));
            // It is the host that cannot be found, whichever of the two is set.
            let variable = if value.is_err() { host } else { variable };
            self.settings.push(CompatSetting { name: "listen", value, variable });
        }
    }

    fn read_metrics(&mut self, environment: &HashMap<String, String>) {
        let given = |name: &str| environment.get(name).map(String::as_str).filter(|value| !value.is_empty());
        let [enabled, host, port] = METRICS;
        match given(enabled).map_or(Ok(false), truth) {
            Ok(true) => {}
            Ok(false) => return,
            Err(reason) => return self.notes.push(format!("{enabled} is not used: {reason}")),
        }
        let (listen, problems) = soketi::metrics_listen(given(host), given(port));
        for (part, reason) in problems {
            self.notes.push(format!("{} is not used: {reason}", if part == "host" { host } else { port }));
        }
        let value = Ok(listen.to_string());
        self.settings.push(CompatSetting { name: "metrics-listen", value, variable: enabled });
        self.hints.push(("metrics-listen", soketi::who_reads_metrics(listen)));
    }

    /// soketi's nodes may share a Redis server.
    fn read_cluster_of_soketi(&mut self, environment: &HashMap<String, String>) {
        let given = |name: &str| environment.get(name).map(String::as_str).filter(|value| !value.is_empty());
        match given(ADAPTER) {
            Some("redis") => self.used.push(ADAPTER),
            Some("local") => return self.used.push(ADAPTER),
            // Noted with the rest.
            _ => return,
        }
        self.used.extend(SOKETI_REDIS);
        let several =
            SOKETI_REDIS_SEVERAL.iter().filter(|name| given(name).is_some_and(|value| truth(value) != Ok(false)));
        let several: Vec<&str> = several.copied().collect();
        if !several.is_empty() {
            self.used.extend(&several);
            return self.notes.push(format!(
                "{ADAPTER} is not used: {} asks for Sentinel or Redis Cluster. This node is alone until TAUT_CLUSTER names the sentinels \
                 (redis+sentinel://HOST:PORT,HOST:PORT/MASTER), servers of the Redis Cluster (redis://HOST:PORT,HOST:PORT), or one Redis server",
                several.join(" and ")
            ));
        }
        let [host, port, database, user, password, adapter_prefix, key_prefix] = SOKETI_REDIS.map(given);
        self.set_cluster(ADAPTER, &Redis { url: None, host, port, database, user, password });
        if let Some(prefix) = adapter_prefix.or(key_prefix) {
            let variable = if adapter_prefix.is_some() { SOKETI_REDIS[5] } else { SOKETI_REDIS[6] };
            self.settings.push(CompatSetting { name: "cluster-prefix", value: Ok(prefix.to_owned()), variable });
        }
    }

    /// Reverb's nodes may share a Redis server, which Laravel's own variables name.
    fn read_cluster_of_reverb(&mut self, environment: &HashMap<String, String>) {
        let given = |name: &str| environment.get(name).map(String::as_str).filter(|value| is_given(value));
        match given(SCALING).map_or(Ok(false), truth) {
            Ok(true) => self.used.push(SCALING),
            Ok(false) => return,
            Err(reason) => {
                self.used.push(SCALING);
                return self.notes.push(format!("{SCALING} is not used: {reason}"));
            }
        }
        self.used.push(SCALING_CHANNEL);
        if self.settings.iter().any(|known| known.name == "cluster") {
            return self.notes.push(format!("{SCALING} is not used: another variable has said it already"));
        }
        let [url, host, port, database, user, password] = REVERB_REDIS.map(given);
        self.set_cluster(SCALING, &Redis { url, host, port, database, user, password });
        if let Some(prefix) = given(SCALING_CHANNEL) {
            let variable = SCALING_CHANNEL;
            self.settings.push(CompatSetting { name: "cluster-prefix", value: Ok(prefix.to_owned()), variable });
        }
    }

    fn set_cluster(&mut self, variable: &'static str, redis: &Redis<'_>) {
        self.settings.push(CompatSetting { name: "cluster", value: Ok(redis.url()), variable });
    }

    /// soketi's apps may be in a table, of which [`soketi`] knows the columns.
    fn read_database(&mut self, environment: &HashMap<String, String>) {
        let Some(driver) = environment.get(DRIVER) else { return };
        self.used.push(DRIVER);
        let variables = match driver.as_str() {
            "array" => return,
            "mysql" => MYSQL,
            "postgres" => POSTGRES,
            _ => {
                let reason =
                    "apps are named by variables or in a file, or are in a table of SQLite, PostgreSQL or MySQL";
                return self
                    .broken
                    .push(Diagnostic::new(DRIVER, format!("the apps of {driver:?} cannot be read: {reason}")));
            }
        };
        self.used.extend(variables);
        let [host, port, user, password, database, table] =
            variables.map(|variable| environment.get(variable).map(String::as_str));
        let url = soketi::database_url(driver, host, port, user, password, database);
        let mut set = |name, value| self.settings.push(CompatSetting { name, value: Ok(value), variable: DRIVER });
        set("apps-database", url);
        set("apps-table", table.unwrap_or("apps").to_owned());
        let (server, defaults) = ("soketi", soketi::SERVER_DEFAULTS);
        self.apps = Some(CompatApps { app: None, variables: "SOKETI_DB_*", server, defaults });
    }

    fn read_app(&mut self, family: &Family, environment: &HashMap<String, String>) {
        let names = ["ID", "KEY", "SECRET"].map(|part| format!("{}{part}", family.prefix));
        let given = names.each_ref().map(|name| environment.get(name));
        if given == [None; 3] {
            return;
        }
        if family.server == "soketi" && self.broken.iter().any(|broken| broken.place == DRIVER) {
            return self.notes.push(format!("{}* is not used: {DRIVER} names other apps", family.prefix));
        }
        if let Some(first) = &self.apps {
            let first = first.variables;
            return self.notes.push(format!("{}* is not used: {first} names apps already", family.prefix));
        }
        let [Some(id), Some(key), Some(secret)] = given else {
            let of = |is_there: bool| {
                let some = names.iter().zip(given).filter(|(_, value)| value.is_some() == is_there);
                some.map(|(name, _)| name.as_str()).collect::<Vec<_>>().join(" and ")
            };
            let reason = format!("{} would have to be set as well, to name an app", of(false));
            return self.broken.push(Diagnostic::new(of(true), reason));
        };
        let app = AppConfig::new(id.as_str(), key.as_str(), secret.as_str());
        if let Err(invalid) = app.check() {
            return self.broken.push(Diagnostic::new(format!("{}*", family.prefix), invalid.to_string()));
        }
        let mut draft = PartialApp::new(app, 0);
        (family.prepare)(&mut draft);
        for &(variable, apply) in family.more {
            match environment.get(variable).map(|value| apply(&mut draft, value)) {
                None | Some(Ok(None)) => {}
                Some(Ok(Some(note))) => self.notes.push(format!("{variable}: {note}")),
                Some(Err(reason)) => self.notes.push(format!("{variable} is not used: {reason}")),
            }
        }
        let Family { variables, server, defaults, .. } = *family;
        self.apps = Some(CompatApps { app: Some(draft), variables, server, defaults });
    }

    /// What there is no counterpart for.
    fn note_the_rest(&mut self, environment: &HashMap<String, String>) {
        let mut names: Vec<&String> = environment.keys().collect();
        names.sort_unstable();
        for name in names {
            let is_read = VARIABLES.iter().any(|(variable, ..)| variable == name)
                || self.used.contains(&name.as_str())
                || LISTEN.contains(&name.as_str())
                || METRICS.contains(&name.as_str())
                || FAMILIES.iter().any(|family| {
                    family.more.iter().any(|(variable, _)| variable == name)
                        || name.strip_prefix(family.prefix).is_some_and(|part| ["ID", "KEY", "SECRET"].contains(&part))
                });
            if is_read {
                continue;
            }
            let reason = UNUSED.iter().find(|(prefix, _)| name.starts_with(prefix)).map(|&(_, reason)| reason);
            self.notes.extend(reason.map(|reason| format!("{name} is not used: {reason}")));
        }
    }
}

/// A Redis server as other servers name it.
pub(super) struct Redis<'v> {
    pub(super) url: Option<&'v str>,
    pub(super) host: Option<&'v str>,
    pub(super) port: Option<&'v str>,
    pub(super) database: Option<&'v str>,
    pub(super) user: Option<&'v str>,
    pub(super) password: Option<&'v str>,
}

impl Redis<'_> {
    /// As [`cluster`](super::cluster) reads it. A whole URL goes before its parts.
    pub(super) fn url(&self) -> String {
        if let Some(url) = self.url {
            // Laravel's other names of the same.
            let (scheme, rest) = url.split_once("://").unwrap_or(("", url));
            return match scheme {
                "tls" => format!("rediss://{rest}"),
                "tcp" => format!("redis://{rest}"),
                _ => url.to_owned(),
            };
        }
        let host = self.host.unwrap_or("127.0.0.1");
        let (scheme, host) = host.strip_prefix("tls://").map_or(("redis", host), |host| ("rediss", host));
        let host = if host.parse::<Ipv6Addr>().is_ok() { format!("[{host}]") } else { host.to_owned() };
        let credentials = match (self.user, self.password) {
            (None, None) => String::new(),
            (user, password) => {
                format!("{}:{}@", soketi::escaped(user.unwrap_or("")), soketi::escaped(password.unwrap_or("")))
            }
        };
        // Kubernetes makes `tcp://10.0.0.1:6379` of a service that is called redis.
        let port = self.port.filter(|port| !port.starts_with("tcp://")).unwrap_or("6379");
        format!("{scheme}://{credentials}{host}:{port}/{}", self.database.unwrap_or("0"))
    }
}

/// Laravel writes `null` for what is not set.
fn is_given(value: &str) -> bool {
    !value.trim().is_empty() && !["null", "(null)", "(empty)"].contains(&value.trim())
}

/// Variables that name an app: `ID`, `KEY` and `SECRET` behind the prefix, and what else they say about it.
struct Family {
    prefix: &'static str,
    variables: &'static str,
    server: &'static str,
    /// What holds for all there where nothing is said: settings of ours, by name and text.
    defaults: &'static [(&'static str, &'static str)],
    /// What holds for an app there where nothing is said.
    prepare: fn(&mut PartialApp),
    more: &'static [(&'static str, ApplyToApp)],
}

/// Gives what to tell of a value that was used.
type ApplyToApp = fn(&mut PartialApp, &str) -> Result<Option<String>, String>;
type Convert = fn(&str) -> Result<String, String>;

const FAMILIES: [&Family; 3] = [
    &Family {
        prefix: "SOKETI_DEFAULT_APP_",
        variables: "SOKETI_DEFAULT_APP_*",
        server: "soketi",
        defaults: soketi::SERVER_DEFAULTS,
        prepare: soketi::prepare,
        more: &[
            ("SOKETI_DEFAULT_APP_MAX_CONNS", |draft, value| {
                done(draft.limit("connections", none_below_zero(value, "0")))
            }),
            ("SOKETI_DEFAULT_APP_MAX_CLIENT_EVENTS_PER_SEC", |draft, value| {
                done(draft.limit("client-events", none_below_zero(value, soketi::NO_LIMIT)))
            }),
            ("SOKETI_DEFAULT_APP_MAX_BACKEND_EVENTS_PER_SEC", |_, value| done(soketi::unlimited_only(value))),
            ("SOKETI_DEFAULT_APP_MAX_READ_REQ_PER_SEC", |_, value| done(soketi::unlimited_only(value))),
            ("SOKETI_DEFAULT_APP_ENABLE_CLIENT_MESSAGES", |draft, value| {
                done(truth(value).map(|on| draft.app.features.client_events = on))
            }),
            ("SOKETI_DEFAULT_APP_ENABLED", |draft, value| done(truth(value).map(|on| draft.app.enabled = on))),
            ("SOKETI_DEFAULT_APP_USER_AUTHENTICATION", |draft, value| {
                done(truth(value).map(|on| draft.app.features.authorization_timeout = soketi::authentication(on)))
            }),
            ("SOKETI_DEFAULT_APP_WEBHOOKS", |draft, value| {
                let soketi::Webhooks { usable, problems, notes } = soketi::webhooks(value);
                draft.app.webhooks = usable;
                if problems.is_empty() {
                    Ok((!notes.is_empty()).then(|| notes.join("; ")))
                } else {
                    Err([problems, notes].concat().join("; "))
                }
            }),
        ],
    },
    &Family {
        prefix: "REVERB_APP_",
        variables: "REVERB_APP_*",
        server: "Reverb",
        defaults: REVERB_DEFAULTS,
        prepare: |draft| {
            // Every one of them is in the lists of a response, and events of clients are not counted.
            draft.app.features.subscription_count_in_info = true;
            for (name, text) in [
                ("client-events", soketi::NO_LIMIT),
                ("presence-members", soketi::NO_LIMIT),
                ("presence-member", "10000"),
            ] {
                let _ = draft.limit(name, text.to_owned());
            }
        },
        more: &[
            ("REVERB_APP_MAX_CONNECTIONS", |draft, value| done(draft.limit("connections", value.to_owned()))),
            ("REVERB_APP_ACCEPT_CLIENT_EVENTS_FROM", |draft, value| match value {
                "none" => {
                    draft.app.features.client_events = false;
                    Ok(None)
                }
                "members" => Ok(None),
                _ => Err("clients may send events to the channels that they are members of".to_owned()),
            }),
        ],
    },
    &Family {
        prefix: "PUSHER_APP_",
        variables: "PUSHER_APP_*",
        server: "Pusher",
        defaults: &[],
        prepare: |_| {},
        more: &[],
    },
];

/// Of `config/reverb.php`. What is not here is as strict there, or has no counterpart; docs/migrating-servers.md has all.
const REVERB_DEFAULTS: &[(&str, &str)] = &[
    ("listen", "0.0.0.0:8080"),
    ("ping-interval", "60"),
    ("activity-timeout", "30"),
    ("max-message", "10000"),
    ("max-event-data", "10000"),
];

fn done(outcome: Result<(), String>) -> Result<Option<String>, String> {
    outcome.map(|()| None)
}

/// An address to listen on. Other servers take names as well, and listen on the address that the name has.
pub(crate) fn listen(host: &str, port: &str) -> Result<String, String> {
    let bare = host.trim_start_matches('[').trim_end_matches(']');
    if let Ok(address) = bare.parse::<Ipv6Addr>() {
        return Ok(format!("[{address}]:{port}"));
    }
    let Ok(number) = port.trim().parse::<u16>() else { return Ok(format!("{host}:{port}")) };
    if bare == "localhost" || bare.parse::<Ipv4Addr>().is_ok() {
        return Ok(format!("{bare}:{number}"));
    }
    let found = (bare, number).to_socket_addrs().map_err(|error| error.to_string());
    found.and_then(|mut found| found.next().ok_or_else(|| "it has no address".to_owned())).map(|address| address.to_string()).map_err(
        |error| format!("{host:?} is a name, and its address is not known ({error}): write an IP address, for instance 0.0.0.0 for all of this machine"),
    )
}

/// Says where soketi has its apps.
const DRIVER: &str = "SOKETI_APP_MANAGER_DRIVER";

/// Host, port, user, password, database and table.
const MYSQL: [&str; 6] = [
    "SOKETI_DB_MYSQL_HOST",
    "SOKETI_DB_MYSQL_PORT",
    "SOKETI_DB_MYSQL_USERNAME",
    "SOKETI_DB_MYSQL_PASSWORD",
    "SOKETI_DB_MYSQL_DATABASE",
    "SOKETI_APP_MANAGER_MYSQL_TABLE",
];

const POSTGRES: [&str; 6] = [
    "SOKETI_DB_POSTGRES_HOST",
    "SOKETI_DB_POSTGRES_PORT",
    "SOKETI_DB_POSTGRES_USERNAME",
    "SOKETI_DB_POSTGRES_PASSWORD",
    "SOKETI_DB_POSTGRES_DATABASE",
    "SOKETI_APP_MANAGER_POSTGRES_TABLE",
];

const LISTEN: [&str; 4] = ["SOKETI_HOST", "SOKETI_PORT", "REVERB_SERVER_HOST", "REVERB_SERVER_PORT"];

/// What soketi's nodes share.
const ADAPTER: &str = "SOKETI_ADAPTER_DRIVER";

/// Host, port, database, user, password, and two beginnings of names.
const SOKETI_REDIS: [&str; 7] = [
    "SOKETI_DB_REDIS_HOST",
    "SOKETI_DB_REDIS_PORT",
    "SOKETI_DB_REDIS_DB",
    "SOKETI_DB_REDIS_USERNAME",
    "SOKETI_DB_REDIS_PASSWORD",
    "SOKETI_ADAPTER_REDIS_PREFIX",
    "SOKETI_DB_REDIS_KEY_PREFIX",
];

/// What names more than one Redis server.
const SOKETI_REDIS_SEVERAL: [&str; 3] =
    ["SOKETI_DB_REDIS_SENTINELS", "SOKETI_DB_REDIS_CLUSTER_NODES", "SOKETI_ADAPTER_REDIS_CLUSTER_MODE"];

/// Whether Reverb's nodes share anything.
const SCALING: &str = "REVERB_SCALING_ENABLED";

const SCALING_CHANNEL: &str = "REVERB_SCALING_CHANNEL";

/// URL, host, port, database, user and password.
const REVERB_REDIS: [&str; 6] =
    ["REDIS_URL", "REDIS_HOST", "REDIS_PORT", "REDIS_DB", "REDIS_USERNAME", "REDIS_PASSWORD"];

/// Whether there are metrics, and where.
const METRICS: [&str; 3] = ["SOKETI_METRICS_ENABLED", "SOKETI_METRICS_HOST", "SOKETI_METRICS_SERVER_PORT"];

/// Variables that are a setting by another name, and how their texts are to be read.
const VARIABLES: &[(&str, &str, Convert)] = &[
    ("SOKETI_PATH_PREFIX", "path-prefix", PATH),
    ("SOKETI_CHANNEL_LIMITS_MAX_NAME_LENGTH", "max-channel-name", SAME),
    ("SOKETI_CHANNEL_CACHE_TTL", "cache-ttl", SAME),
    ("SOKETI_EVENT_MAX_BATCH_SIZE", "max-batch", SAME),
    ("SOKETI_EVENT_MAX_CHANNELS_AT_ONCE", "max-publish-channels", SAME),
    ("SOKETI_EVENT_MAX_NAME_LENGTH", "max-event-name", SAME),
    ("SOKETI_EVENT_MAX_SIZE_IN_KB", "max-event-data", soketi::kilobytes),
    ("SOKETI_PRESENCE_MAX_MEMBERS", "max-presence-members", SAME),
    ("SOKETI_PRESENCE_MAX_MEMBER_SIZE", "max-presence-member", soketi::kilobytes),
    ("SOKETI_SSL_CERT", "tls-certificate", SAME),
    ("SOKETI_SSL_KEY", "tls-key", SAME),
    ("SOKETI_DEBUG", "log-level", |value| truth(value).map(|on| if on { "debug" } else { "info" }.to_owned())),
    ("SOKETI_SHUTDOWN_GRACE_PERIOD", "drain-timeout", |value| {
        text::number(value, 1, 86_400_000).map(|milliseconds| milliseconds.div_ceil(1000).to_string())
    }),
    ("REVERB_SERVER_PATH", "path-prefix", PATH),
    ("REVERB_APP_PING_INTERVAL", "ping-interval", SAME),
    ("REVERB_APP_ACTIVITY_TIMEOUT", "activity-timeout", SAME),
    ("REVERB_APP_MAX_MESSAGE_SIZE", "max-message", SAME),
    ("REVERB_MAX_REQUEST_SIZE", "max-event-data", SAME),
];

/// By how names begin, why they are not used.
const UNUSED: &[(&str, &str)] = &[
    ("SOKETI_ADAPTER_DRIVER", "one process uses all cores, and several share a Redis server: redis is understood"),
    ("SOKETI_ADAPTER_", "it belongs to an adapter that is not in use"),
    ("SOKETI_CLUSTER_", "one process with all cores needs no cluster"),
    ("SOKETI_MODE", "the server is always whole"),
    ("SOKETI_QUEUE_", "webhooks wait in data-directory"),
    ("SOKETI_CACHE_", "cache channels are kept in memory"),
    ("SOKETI_RATE_LIMITER_", "limits are counted in memory"),
    ("SOKETI_APP_MANAGER_CACHE_", "all apps of a database are in memory, and read again every apps-reload seconds"),
    ("SOKETI_APP_MANAGER_", "it belongs to a driver that is not in use"),
    ("SOKETI_DB_REDIS_SENTINEL", "TAUT_CLUSTER names sentinels: redis+sentinel://HOST:PORT,HOST:PORT/MASTER"),
    ("SOKETI_DB_REDIS_INSTANCE_NAME", "TAUT_CLUSTER names sentinels: redis+sentinel://HOST:PORT,HOST:PORT/MASTER"),
    ("SOKETI_DB_REDIS_CLUSTER_", "TAUT_CLUSTER names servers of a Redis Cluster: redis://HOST:PORT,HOST:PORT"),
    ("SOKETI_DB_REDIS_", "Redis is for several nodes that are one server: SOKETI_ADAPTER_DRIVER=redis"),
    ("SOKETI_DB_", "SOKETI_APP_MANAGER_DRIVER names no database"),
    ("SOKETI_METRICS_", "the metrics are for Prometheus, and their names begin with taut_"),
    ("SOKETI_SSL_", "TLS takes a certificate and its key without a passphrase"),
    ("SOKETI_WEBHOOKS_", "each webhook says for itself whether it is batched"),
    ("SOKETI_USER_AUTHENTICATION_TIMEOUT", "each app says it for itself: authorization-timeout"),
    ("SOKETI_", "there is nothing like it here"),
    ("REVERB_SCALING_", "it is for several nodes that are one server: REVERB_SCALING_ENABLED=true"),
    ("REVERB_HOST", "it says where clients connect, not where the server listens: that is REVERB_SERVER_HOST"),
    (
        "REVERB_PORT",
        "it says where clients connect, not where the server listens: that is REVERB_SERVER_PORT, and 8080 without it",
    ),
    ("REVERB_SCHEME", "it says how clients connect"),
    ("REVERB_APP_RATE_LIMIT", "max-client-events bounds what a client may send"),
    ("REVERB_", "there is nothing like it here"),
    ("PUSHER_HOST", "it says where clients connect, not where the server listens"),
    ("PUSHER_PORT", "it says where clients connect, not where the server listens"),
    ("PUSHER_SCHEME", "it says how clients connect"),
    ("PUSHER_APP_CLUSTER", "there are no clusters to choose from"),
];

const SAME: Convert = |value| Ok(value.to_owned());

const PATH: Convert = |value| Ok(if value.starts_with('/') { value.to_owned() } else { format!("/{value}") });

#[cfg(test)]
mod tests {
    use super::*;

    fn read(variables: &[(&str, &str)]) -> Compat {
        Compat::read(&variables.iter().map(|&(name, value)| (name.to_owned(), value.to_owned())).collect())
    }

    #[test]
    fn every_variable_that_is_read_gives_what_its_setting_takes() {
        let defaults = [soketi::SERVER_DEFAULTS, REVERB_DEFAULTS].concat();
        let given = VARIABLES.iter().map(|(variable, ..)| {
            let setting = read(&[(variable, "1")]).settings.swap_remove(0);
            (setting.name, setting.value.expect(variable))
        });
        for (name, text) in given.chain(defaults.iter().map(|&(name, text)| (name, text.to_owned()))) {
            let setting = super::super::SETTINGS.iter().find(|known| known.name == name).expect(name);
            setting.apply(&mut super::super::Config::default(), &text).expect(name);
        }
    }

    const SOKETI: [(&str, &str); 3] =
        [("SOKETI_DEFAULT_APP_ID", "1"), ("SOKETI_DEFAULT_APP_KEY", "a"), ("SOKETI_DEFAULT_APP_SECRET", "hunter2")];

    const REVERB: [(&str, &str); 3] =
        [("REVERB_APP_ID", "2"), ("REVERB_APP_KEY", "b"), ("REVERB_APP_SECRET", "hunter2")];

    fn app(variables: &[(&str, &str)]) -> AppConfig {
        let apps = read(variables).apps.expect("apps");
        apps.app.expect("an app").finish(&crate::app::Limits::default())
    }

    #[test]
    fn an_app_of_another_servers_variables_has_its_limits() {
        let variables = [
            ("SOKETI_DEFAULT_APP_MAX_CONNS", "-1"),
            ("SOKETI_DEFAULT_APP_MAX_CLIENT_EVENTS_PER_SEC", "5"),
            ("SOKETI_DEFAULT_APP_ENABLE_CLIENT_MESSAGES", "true"),
            ("SOKETI_DEFAULT_APP_USER_AUTHENTICATION", "true"),
            ("PUSHER_APP_KEY", "c"),
            ("SOKETI_ADAPTER_DRIVER", "cluster"),
        ];
        let variables = [&SOKETI[..], &REVERB, &variables].concat();
        let app = app(&variables);
        assert_eq!(app.id, "1");
        assert!(app.features.client_events);
        assert_eq!(app.features.authorization_timeout.as_secs(), 30);
        let limits = app.limits.expect("its own");
        assert_eq!((limits.connections, limits.client_events), (0, 5));
        let foreign = read(&variables);
        assert!(foreign.broken.is_empty(), "{:?}", foreign.broken);
        let notes = foreign.notes.join("\n");
        for note in [
            "REVERB_APP_* is not used: SOKETI_DEFAULT_APP_* names apps already",
            "PUSHER_APP_* is not used: SOKETI_DEFAULT_APP_* names apps already",
            "SOKETI_ADAPTER_DRIVER is not used: one process uses all cores",
        ] {
            assert!(notes.contains(note), "{note}\n{notes}");
        }
        assert!(!notes.contains("hunter2"), "{notes}");
    }

    #[test]
    fn metrics_that_are_switched_on_are_on_a_listener_of_their_own_on_this_machine() {
        let listen = |foreign: &Compat| {
            let [CompatSetting { name: "metrics-listen", value: Ok(listen), variable: "SOKETI_METRICS_ENABLED" }] =
                &foreign.settings[..]
            else {
                panic!("{:?}", foreign.settings)
            };
            listen.clone()
        };
        let foreign = read(&[("SOKETI_METRICS_ENABLED", "1")]);
        assert_eq!(listen(&foreign), "127.0.0.1:9601");
        assert!(foreign.hints[0].1.contains("TAUT_METRICS_LISTEN=0.0.0.0:9601"), "{:?}", foreign.hints);
        let given = read(&[
            ("SOKETI_METRICS_ENABLED", "true"),
            ("SOKETI_METRICS_HOST", "10.0.0.1"),
            ("SOKETI_METRICS_SERVER_PORT", "9000"),
        ]);
        assert_eq!(listen(&given), "10.0.0.1:9000");
        let link = read(&[("SOKETI_METRICS_ENABLED", "1"), ("SOKETI_METRICS_SERVER_PORT", "tcp://10.0.0.1:9601")]);
        assert_eq!(listen(&link), "127.0.0.1:9601");
        assert!(link.notes[0].starts_with("SOKETI_METRICS_SERVER_PORT is not used: "), "{:?}", link.notes);
        for off in [&[("SOKETI_METRICS_ENABLED", "0")][..], &[("SOKETI_METRICS_SERVER_PORT", "9000")], &[]] {
            assert!(read(off).settings.is_empty(), "{off:?}");
        }
    }

    /// The settings of a cluster that these variables give, and the notes.
    fn cluster(variables: &[(&str, &str)]) -> (Vec<(&'static str, String)>, String) {
        let Compat { settings, notes, .. } = read(variables);
        let settings = settings.into_iter().map(|setting| (setting.name, setting.value.expect("a text"))).collect();
        (settings, notes.join("\n"))
    }

    #[test]
    fn a_redis_server_that_nodes_of_soketi_share_makes_a_cluster() {
        let driver = ("SOKETI_ADAPTER_DRIVER", "redis");
        let url = |url: &str| vec![("cluster", url.to_owned())];
        assert_eq!(cluster(&[driver]), (url("redis://127.0.0.1:6379/0"), String::new()));
        let (settings, notes) = cluster(&[
            driver,
            ("SOKETI_DB_REDIS_HOST", "::1"),
            ("SOKETI_DB_REDIS_PORT", "6380"),
            ("SOKETI_DB_REDIS_DB", "3"),
            ("SOKETI_DB_REDIS_USERNAME", "me"),
            ("SOKETI_DB_REDIS_PASSWORD", "p@ss/word"),
            ("SOKETI_DB_REDIS_KEY_PREFIX", "shop:"),
        ]);
        assert_eq!(settings[0], ("cluster", "redis://me:p%40ss%2Fword@[::1]:6380/3".to_owned()));
        assert_eq!((&settings[1], notes.as_str()), (&("cluster-prefix", "shop:".to_owned()), ""));
        let (settings, _) =
            cluster(&[driver, ("SOKETI_DB_REDIS_KEY_PREFIX", "keys"), ("SOKETI_ADAPTER_REDIS_PREFIX", "adapter")]);
        assert_eq!(settings[1], ("cluster-prefix", "adapter".to_owned()));
        assert_eq!(cluster(&[("SOKETI_ADAPTER_DRIVER", "local")]), (vec![], String::new()));
        let (settings, notes) = cluster(&[("SOKETI_DB_REDIS_HOST", "redis")]);
        assert!(settings.is_empty() && notes.contains("SOKETI_ADAPTER_DRIVER=redis"), "{notes}");
    }

    #[test]
    fn several_redis_servers_are_not_taken_for_one() {
        for variable in SOKETI_REDIS_SEVERAL {
            let value = if variable.ends_with("MODE") { "true" } else { r#"[{"host": "a", "port": 26379}]"# };
            let (settings, notes) = cluster(&[("SOKETI_ADAPTER_DRIVER", "redis"), (variable, value)]);
            assert!(settings.is_empty(), "{settings:?}");
            let told = format!("SOKETI_ADAPTER_DRIVER is not used: {variable} asks for Sentinel or Redis Cluster");
            assert!(notes.starts_with(&told) && notes.contains("TAUT_CLUSTER"), "{notes}");
        }
        let off = ("SOKETI_ADAPTER_REDIS_CLUSTER_MODE", "false");
        assert_eq!(cluster(&[("SOKETI_ADAPTER_DRIVER", "redis"), off]).0.len(), 1);
    }

    #[test]
    fn nodes_of_reverb_that_scale_make_a_cluster_on_laravels_redis() {
        let on = ("REVERB_SCALING_ENABLED", "true");
        let url = |variables: &[(&str, &str)]| {
            let (settings, notes) = cluster(&[&[on], variables].concat());
            assert_eq!(notes, "", "{variables:?}");
            settings[0].1.clone()
        };
        assert_eq!(url(&[]), "redis://127.0.0.1:6379/0");
        let parts = [
            ("REDIS_HOST", "redis"),
            ("REDIS_PORT", "6380"),
            ("REDIS_USERNAME", "me"),
            ("REDIS_PASSWORD", "hunter2"),
            ("REDIS_DB", "2"),
        ];
        assert_eq!(url(&parts), "redis://me:hunter2@redis:6380/2");
        assert_eq!(url(&[("REDIS_USERNAME", "null"), ("REDIS_PASSWORD", "x")]), "redis://:x@127.0.0.1:6379/0");
        assert_eq!(url(&[("REDIS_HOST", "tls://redis"), ("REDIS_PASSWORD", "null")]), "rediss://redis:6379/0");
        assert_eq!(url(&[("REDIS_HOST", "redis"), ("REDIS_PORT", "tcp://10.0.0.1:6379")]), "redis://redis:6379/0");
        assert_eq!(url(&[("REDIS_URL", "tls://me:x@a:1/2"), ("REDIS_HOST", "b")]), "rediss://me:x@a:1/2");
        let (settings, _) = cluster(&[on, ("REVERB_SCALING_CHANNEL", "shop")]);
        assert_eq!(settings[1], ("cluster-prefix", "shop".to_owned()));
        for off in [&[("REDIS_HOST", "redis")][..], &[("REVERB_SCALING_ENABLED", "false"), ("REDIS_HOST", "redis")]] {
            assert!(cluster(off).0.is_empty());
        }
    }

    #[test]
    fn what_other_servers_say_of_redis_is_understood() {
        for (variables, name) in [
            (&[("SOKETI_ADAPTER_DRIVER", "redis"), ("SOKETI_DB_REDIS_PASSWORD", "a b/@#?")][..], "cluster"),
            (&[("REVERB_SCALING_ENABLED", "1"), ("REDIS_PASSWORD", "ü%"), ("REDIS_HOST", "::1")], "cluster"),
        ] {
            let setting = super::super::SETTINGS.iter().find(|known| known.name == name).expect(name);
            let (settings, _) = cluster(variables);
            setting.apply(&mut super::super::Config::default(), &settings[0].1).expect("a good URL");
        }
    }

    #[test]
    fn what_other_servers_are_not_told_is_as_it_is_there() {
        let soketi = app(&SOKETI);
        assert!(!soketi.features.client_events && soketi.features.subscription_count_in_info && soketi.enabled);
        assert_eq!(soketi.limits.expect("its own").client_events, 1_000_000);
        let reverb = app(&REVERB);
        assert!(reverb.features.client_events && reverb.features.subscription_count_in_info);
        let limits = reverb.limits.expect("its own");
        assert_eq!(
            (limits.client_events, limits.presence_members, limits.presence_member),
            (1_000_000, 1_000_000, 10_000)
        );
        assert!(
            !app(&[&REVERB[..], &[("REVERB_APP_ACCEPT_CLIENT_EVENTS_FROM", "none")]].concat()).features.client_events
        );
    }

    #[test]
    fn an_app_that_cannot_be_used_is_a_mistake_with_its_variables() {
        for (variables, told) in [
            (
                &[("REVERB_APP_KEY", "hunter2")][..],
                "REVERB_APP_KEY: REVERB_APP_ID and REVERB_APP_SECRET would have to be set",
            ),
            (
                &[("SOKETI_DEFAULT_APP_ID", "1"), ("SOKETI_DEFAULT_APP_KEY", "a")],
                "SOKETI_DEFAULT_APP_ID and SOKETI_DEFAULT_APP_KEY: ",
            ),
            (
                &[("PUSHER_APP_ID", "1"), ("PUSHER_APP_KEY", "a/b"), ("PUSHER_APP_SECRET", "hunter2")],
                "PUSHER_APP_*: the app's key may hold",
            ),
            (
                &[("SOKETI_APP_MANAGER_DRIVER", "dynamodb")],
                "SOKETI_APP_MANAGER_DRIVER: the apps of \"dynamodb\" cannot be read",
            ),
        ] {
            let foreign = read(variables);
            assert!(foreign.apps.is_none());
            let [mistake] = &foreign.broken[..] else { panic!("{variables:?}: {:?}", foreign.broken) };
            assert!(mistake.to_string().starts_with(told) && !mistake.to_string().contains("hunter2"), "{mistake}");
        }
    }

    #[test]
    fn a_database_of_soketi_is_named_by_its_variables() {
        let foreign = read(&[
            ("SOKETI_APP_MANAGER_DRIVER", "mysql"),
            ("SOKETI_DB_MYSQL_HOST", "db"),
            ("SOKETI_DB_MYSQL_PASSWORD", "a/b@c"),
            ("SOKETI_APP_MANAGER_MYSQL_TABLE", "clients"),
            ("SOKETI_DB_POSTGRES_HOST", "other"),
        ]);
        let text = |name: &str| {
            let setting = foreign.settings.iter().find(|setting| setting.name == name);
            setting.and_then(|setting| setting.value.clone().ok())
        };
        assert_eq!(text("apps-database").as_deref(), Some("mysql://root:a%2Fb%40c@db:3306/main"));
        assert_eq!(text("apps-table").as_deref(), Some("clients"));
        assert!(foreign.apps.expect("a source").app.is_none());
        assert_eq!(foreign.notes, ["SOKETI_DB_POSTGRES_HOST is not used: SOKETI_APP_MANAGER_DRIVER names no database"]);
    }

    #[test]
    fn webhooks_leave_out_the_headers_that_are_set_anyway() {
        let webhooks = r#"[{"url": "https://example.com/", "event_types": ["cache_miss"], "headers": {"X-Pusher-Key": "x", "X-Token": "t"}}]"#;
        let variables = [&SOKETI[..], &[("SOKETI_DEFAULT_APP_WEBHOOKS", webhooks)]].concat();
        let webhook = &app(&variables).webhooks[0];
        assert_eq!(webhook.headers, [("X-Token".to_owned(), "t".to_owned())]);
        let notes = read(&variables).notes.join("\n");
        assert!(notes.contains("SOKETI_DEFAULT_APP_WEBHOOKS: the header X-Pusher-Key is left out"), "{notes}");
    }

    #[test]
    fn host_and_port_are_put_together() {
        for (variables, listen) in [
            (&[("SOKETI_PORT", "7001")][..], "0.0.0.0:7001"),
            (&[("SOKETI_HOST", "::1")], "[::1]:6001"),
            (&[("REVERB_SERVER_HOST", "127.0.0.1")], "127.0.0.1:8080"),
            (&[("REVERB_SERVER_HOST", "localhost")], "localhost:8080"),
            (&[("SOKETI_HOST", "127.0.0.1"), ("REVERB_SERVER_PORT", "1")], "127.0.0.1:6001"),
        ] {
            assert_eq!(read(variables).settings[0].value.as_deref(), Ok(listen));
        }
        assert!(read(&[("REVERB_PORT", "443")]).settings.is_empty());
    }

    #[test]
    fn a_name_is_looked_up_and_one_that_has_no_address_is_told() {
        // A name like any other, but in every list of hosts. The other one is a name in no list and no zone.
        let found = listen("LOCALHOST", "7001").expect("an address");
        assert!(["127.0.0.1:7001", "[::1]:7001"].contains(&found.as_str()), "{found}");
        let unknown = read(&[("SOKETI_HOST", "soketi..local"), ("SOKETI_PORT", "7001")]).settings.swap_remove(0);
        assert_eq!(unknown.variable, "SOKETI_HOST");
        let reason = unknown.value.expect_err("no address");
        assert!(reason.starts_with("\"soketi..local\" is a name, and its address is not known ("), "{reason}");
    }
}
