//! The variables of other servers of this protocol, so that Taut can take their place where it stands.

use std::collections::HashMap;

use super::apps::Draft;
use super::{soketi, text};
use crate::app::App;

/// What other servers' variables say, and what to tell whoever set them.
#[derive(Debug, Default)]
pub(crate) struct Foreign {
    /// Settings by their names, each with the variable that it comes from.
    pub(crate) settings: Vec<(&'static str, String, &'static str)>,
    /// An app, with the prefix of its variables.
    pub(crate) app: Option<(Draft, &'static str)>,
    /// What to say about a setting where it comes from here.
    pub(crate) hints: Vec<(&'static str, String)>,
    /// Of variables that are not used: which, and why.
    pub(crate) notes: Vec<String>,
}

impl Foreign {
    pub(crate) fn read(environment: &HashMap<String, String>) -> Self {
        let mut foreign = Self::default();
        foreign.read_listen(environment);
        foreign.read_metrics(environment);
        for &(variable, setting, convert) in VARIABLES {
            let Some(value) = environment.get(variable).filter(|value| !value.is_empty()) else { continue };
            match convert(value) {
                Ok(text) if foreign.settings.iter().all(|(known, ..)| *known != setting) => {
                    foreign.settings.push((setting, text, variable));
                }
                Ok(_) => foreign.notes.push(format!("{variable} is not used: another variable has said it already")),
                Err(reason) => foreign.notes.push(format!("{variable} is not used: {reason}")),
            }
        }
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
            if given == [None, None] || self.settings.iter().any(|(known, ..)| *known == "listen") {
                continue;
            }
            let host = given[0].map_or("0.0.0.0", String::as_str);
            let host = if host.contains(':') && !host.starts_with('[') { format!("[{host}]") } else { host.to_owned() };
            let port = given[1].map_or(usual, String::as_str);
            self.settings.push(("listen", format!("{host}:{port}"), variable));
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
        self.settings.push(("metrics-listen", listen.to_string(), enabled));
        self.hints.push(("metrics-listen", soketi::who_reads_metrics(listen)));
    }

    fn read_app(&mut self, family: &Family, environment: &HashMap<String, String>) {
        let names = ["ID", "KEY", "SECRET"].map(|part| format!("{}{part}", family.prefix));
        let given = names.each_ref().map(|name| environment.get(name).filter(|value| !value.is_empty()));
        let [Some(id), Some(key), Some(secret)] = given else {
            if let Some(name) = names.iter().zip(given).find(|(_, value)| value.is_some()).map(|(name, _)| name) {
                let missing: Vec<&str> = names
                    .iter()
                    .zip(given)
                    .filter(|(_, value)| value.is_none())
                    .map(|(name, _)| name.as_str())
                    .collect();
                self.notes.push(format!("{name} is not used: {} would have to be set as well", missing.join(" and ")));
            }
            return;
        };
        if let Some((_, first)) = &self.app {
            self.notes.push(format!("{}* is not used: {first}* has named an app already", family.prefix));
            return;
        }
        let app = App::new(id.as_str(), key.as_str(), secret.as_str());
        if let Err(invalid) = app.check() {
            self.notes.push(format!("{}* is not used: {invalid}", family.prefix));
            return;
        }
        let mut draft = Draft::new(app, 0);
        for &(variable, apply) in family.more {
            let value = environment.get(variable).filter(|value| !value.is_empty());
            if let Some(Err(reason)) = value.map(|value| apply(&mut draft, value)) {
                self.notes.push(format!("{variable} is not used: {reason}"));
            }
        }
        self.app = Some((draft, family.prefix));
    }

    /// What there is no counterpart for.
    fn note_the_rest(&mut self, environment: &HashMap<String, String>) {
        let mut names: Vec<&String> = environment.keys().collect();
        names.sort_unstable();
        for name in names {
            let is_read = VARIABLES.iter().any(|(variable, ..)| variable == name)
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

/// Variables that name an app: `ID`, `KEY` and `SECRET` behind the prefix, and what else they say about it.
struct Family {
    prefix: &'static str,
    more: &'static [(&'static str, ApplyToApp)],
}

type ApplyToApp = fn(&mut Draft, &str) -> Result<(), String>;
type Convert = fn(&str) -> Result<String, String>;

const FAMILIES: [&Family; 3] = [
    &Family {
        prefix: "SOKETI_DEFAULT_APP_",
        more: &[
            ("SOKETI_DEFAULT_APP_MAX_CONNS", |draft, value| draft.limit("connections", none_below_zero(value, "0"))),
            ("SOKETI_DEFAULT_APP_MAX_CLIENT_EVENTS_PER_SEC", |draft, value| {
                draft.limit("client-events", none_below_zero(value, "1000000"))
            }),
            ("SOKETI_DEFAULT_APP_ENABLE_CLIENT_MESSAGES", |draft, value| {
                truth(value).map(|on| draft.app.features.client_events = on)
            }),
            ("SOKETI_DEFAULT_APP_ENABLED", |draft, value| truth(value).map(|on| draft.app.enabled = on)),
            ("SOKETI_DEFAULT_APP_USER_AUTHENTICATION", |draft, value| {
                truth(value).map(|on| draft.app.features.authorization_timeout = soketi::authentication(on))
            }),
            ("SOKETI_DEFAULT_APP_WEBHOOKS", |draft, value| {
                let (webhooks, problems) = soketi::webhooks(value);
                draft.app.webhooks = webhooks;
                if problems.is_empty() { Ok(()) } else { Err(problems.join("; ")) }
            }),
        ],
    },
    &Family {
        prefix: "REVERB_APP_",
        more: &[
            ("REVERB_APP_MAX_CONNECTIONS", |draft, value| draft.limit("connections", value.to_owned())),
            ("REVERB_APP_ACCEPT_CLIENT_EVENTS_FROM", |draft, value| match value {
                "none" => {
                    draft.app.features.client_events = false;
                    Ok(())
                }
                "members" => Ok(()),
                _ => Err("clients may send events to the channels that they are members of".to_owned()),
            }),
        ],
    },
    &Family { prefix: "PUSHER_APP_", more: &[] },
];

const LISTEN: [&str; 4] = ["SOKETI_HOST", "SOKETI_PORT", "REVERB_SERVER_HOST", "REVERB_SERVER_PORT"];

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
];

/// By how names begin, why they are not used.
const UNUSED: &[(&str, &str)] = &[
    ("SOKETI_ADAPTER_", "one process with all cores needs no adapter"),
    ("SOKETI_CLUSTER_", "one process with all cores needs no cluster"),
    ("SOKETI_MODE", "the server is always whole"),
    ("SOKETI_QUEUE_", "webhooks wait in data-directory"),
    ("SOKETI_CACHE_", "cache channels are kept in memory"),
    ("SOKETI_RATE_LIMITER_", "limits are counted in memory"),
    ("SOKETI_APP_MANAGER_CACHE_", "all apps of a database are in memory, and read again every apps-reload seconds"),
    ("SOKETI_APP_MANAGER_", "name the database in TAUT_APPS_DATABASE"),
    ("SOKETI_DB_REDIS_", "Redis is not needed"),
    ("SOKETI_DB_", "name the database in TAUT_APPS_DATABASE"),
    ("SOKETI_METRICS_", "the metrics are for Prometheus, and their names begin with taut_"),
    ("SOKETI_SSL_", "TLS takes a certificate and its key without a passphrase"),
    ("SOKETI_WEBHOOKS_", "each webhook says for itself whether it is batched"),
    ("SOKETI_USER_AUTHENTICATION_TIMEOUT", "each app says it for itself: authorization-timeout"),
    ("SOKETI_", "there is nothing like it here"),
    ("REVERB_SCALING_", "one process uses all cores"),
    ("REVERB_HOST", "it says where clients connect, not where the server listens"),
    ("REVERB_PORT", "it says where clients connect, not where the server listens"),
    ("REVERB_SCHEME", "it says how clients connect"),
    ("REVERB_MAX_REQUEST_SIZE", "requests may be as large as max-event-data and max-batch allow"),
    ("REVERB_APP_RATE_LIMIT", "max-client-events bounds what a client may send"),
    ("REVERB_", "there is nothing like it here"),
    ("PUSHER_HOST", "it says where clients connect, not where the server listens"),
    ("PUSHER_PORT", "it says where clients connect, not where the server listens"),
    ("PUSHER_SCHEME", "it says how clients connect"),
    ("PUSHER_APP_CLUSTER", "there are no clusters to choose from"),
];

const SAME: Convert = |value| Ok(value.to_owned());

const PATH: Convert = |value| Ok(if value.starts_with('/') { value.to_owned() } else { format!("/{value}") });

pub(crate) fn truth(value: &str) -> Result<bool, String> {
    match value.trim().to_ascii_lowercase().as_str() {
        "1" | "true" | "t" | "on" | "yes" => Ok(true),
        "0" | "false" | "f" | "off" | "no" | "" => Ok(false),
        _ => Err(format!("{value:?} is neither true nor false")),
    }
}

/// Where −1 stands for no limit.
pub(crate) fn none_below_zero(value: &str, none: &str) -> String {
    if value.trim().starts_with('-') { none.to_owned() } else { value.to_owned() }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(variables: &[(&str, &str)]) -> Foreign {
        Foreign::read(&variables.iter().map(|&(name, value)| (name.to_owned(), value.to_owned())).collect())
    }

    #[test]
    fn every_variable_that_is_read_gives_what_its_setting_takes() {
        for (variable, setting, _) in VARIABLES {
            let setting = super::super::SETTINGS.iter().find(|known| known.name == *setting).expect(variable);
            let foreign = read(&[(variable, "1")]);
            let (_, text, _) = foreign.settings.first().expect(variable);
            setting.apply(&mut super::super::Config::default(), text).expect(variable);
        }
    }

    #[test]
    fn an_app_of_another_servers_variables_has_its_limits() {
        let foreign = read(&[
            ("SOKETI_DEFAULT_APP_ID", "1"),
            ("SOKETI_DEFAULT_APP_KEY", "a"),
            ("SOKETI_DEFAULT_APP_SECRET", "hunter2"),
            ("SOKETI_DEFAULT_APP_MAX_CONNS", "-1"),
            ("SOKETI_DEFAULT_APP_MAX_CLIENT_EVENTS_PER_SEC", "5"),
            ("SOKETI_DEFAULT_APP_ENABLE_CLIENT_MESSAGES", "false"),
            ("SOKETI_DEFAULT_APP_USER_AUTHENTICATION", "true"),
            ("REVERB_APP_ID", "2"),
            ("REVERB_APP_KEY", "b"),
            ("REVERB_APP_SECRET", "hunter2"),
            ("PUSHER_APP_KEY", "c"),
            ("SOKETI_ADAPTER_DRIVER", "redis"),
        ]);
        let (draft, prefix) = foreign.app.expect("an app");
        assert_eq!((draft.app.id.as_str(), prefix), ("1", "SOKETI_DEFAULT_APP_"));
        assert!(!draft.app.features.client_events);
        assert_eq!(draft.app.features.authorization_timeout.as_secs(), 30);
        let limits = draft.finish(&crate::app::Limits::default()).limits.expect("its own");
        assert_eq!((limits.connections, limits.client_events), (0, 5));
        let notes = foreign.notes.join("\n");
        for note in [
            "REVERB_APP_* is not used: SOKETI_DEFAULT_APP_* has named an app already",
            "PUSHER_APP_KEY is not used: PUSHER_APP_ID and PUSHER_APP_SECRET would have to be set as well",
            "SOKETI_ADAPTER_DRIVER is not used: one process",
        ] {
            assert!(notes.contains(note), "{note}\n{notes}");
        }
        assert!(!notes.contains("hunter2"), "{notes}");
    }

    #[test]
    fn metrics_that_are_switched_on_are_on_a_listener_of_their_own_on_this_machine() {
        let foreign = read(&[("SOKETI_METRICS_ENABLED", "1")]);
        assert_eq!(foreign.settings, [("metrics-listen", "127.0.0.1:9601".to_owned(), "SOKETI_METRICS_ENABLED")]);
        assert!(foreign.hints[0].1.contains("TAUT_METRICS_LISTEN=0.0.0.0:9601"), "{:?}", foreign.hints);
        let given = read(&[
            ("SOKETI_METRICS_ENABLED", "true"),
            ("SOKETI_METRICS_HOST", "10.0.0.1"),
            ("SOKETI_METRICS_SERVER_PORT", "9000"),
        ]);
        assert_eq!(given.settings[0].1, "10.0.0.1:9000");
        let link = read(&[("SOKETI_METRICS_ENABLED", "1"), ("SOKETI_METRICS_SERVER_PORT", "tcp://10.0.0.1:9601")]);
        assert_eq!(link.settings[0].1, "127.0.0.1:9601");
        assert!(link.notes[0].starts_with("SOKETI_METRICS_SERVER_PORT is not used: "), "{:?}", link.notes);
        for off in [&[("SOKETI_METRICS_ENABLED", "0")][..], &[("SOKETI_METRICS_SERVER_PORT", "9000")], &[]] {
            assert_eq!(read(off).settings, [], "{off:?}");
        }
    }

    #[test]
    fn host_and_port_are_put_together() {
        for (variables, listen) in [
            (&[("SOKETI_PORT", "7001")][..], "0.0.0.0:7001"),
            (&[("SOKETI_HOST", "::1")], "[::1]:6001"),
            (&[("REVERB_SERVER_HOST", "127.0.0.1")], "127.0.0.1:8080"),
            (&[("SOKETI_HOST", "127.0.0.1"), ("REVERB_SERVER_PORT", "1")], "127.0.0.1:6001"),
        ] {
            assert_eq!(read(variables).settings[0].1, listen);
        }
        assert!(read(&[("REVERB_PORT", "443")]).settings.is_empty());
    }
}
