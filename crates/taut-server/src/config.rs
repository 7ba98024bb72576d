//! What can be set about a server, and from where.

use std::fmt;
use std::fs;
use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use crate::app::{App, InvalidApp, Limits};
use crate::tenants::{Apps, DuplicateApp};

/// What can be set about a server.
///
/// Each field can also be set by its text: [`SETTINGS`] has the name, the environment variable, the default and the description of each.
#[derive(Clone, Debug)]
pub struct Config {
    /// Where to listen; 127.0.0.1:6001 by default. Port 0 lets the system choose one.
    pub listen: SocketAddr,
    /// The apps that are served. With none, here and in the file, the development app is served, on loopback addresses only.
    pub apps: Vec<App>,
    /// A file with more apps: one `ID:KEY:SECRET` per line, comments after `#`.
    pub apps_file: Option<PathBuf>,
    /// Event loops, each a thread of its own; 0, the default, means one per processor core.
    pub shards: usize,
    /// What precedes `/app` and `/apps` in this server's paths, for instance `/realtime`; empty by default.
    pub path_prefix: String,
    /// What clients are told: the silence after which they ask whether the server is there; 120 seconds by default, never less than one.
    pub activity_timeout: Duration,
    /// Silence after which the server asks whether a client is there, by a WebSocket ping, which browsers answer by themselves; 25 seconds by
    /// default, because common load balancers cut a silent connection after 30 to 60.
    pub ping_interval: Duration,
    /// How long a client may take to answer that ping before its connection is given up; 30 seconds by default.
    pub pong_timeout: Duration,
    /// Bytes of a message from a client; 64 KiB by default. A longer one closes its connection with 1009.
    pub message: usize,
    /// Bytes that may wait for a client that reads too slowly; 1 MiB by default. Beyond them its connection is dropped.
    pub outgoing: usize,
    /// Whether messages are compressed for clients that offer it; they are by default. A broadcast is compressed once, whatever the number of clients.
    pub deflate: bool,
    /// Limits of those apps that have none of their own.
    pub limits: Limits,
    /// How long a shutdown may take; 20 seconds by default. Clients are told to come back, and requests in flight are answered, before it is over.
    pub drain_timeout: Duration,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            listen: SocketAddr::from((Ipv4Addr::LOCALHOST, 6001)),
            apps: Vec::new(),
            apps_file: None,
            shards: 0,
            path_prefix: String::new(),
            activity_timeout: Duration::from_secs(120),
            ping_interval: Duration::from_secs(25),
            pong_timeout: Duration::from_secs(30),
            message: 64 * 1024,
            outgoing: 1024 * 1024,
            deflate: true,
            limits: Limits::default(),
            drain_timeout: Duration::from_secs(20),
        }
    }
}

impl Config {
    /// Sets every field whose environment variable is set; `lookup` is usually `|name| std::env::var(name).ok()`.
    pub fn apply_environment(&mut self, lookup: impl Fn(&str) -> Option<String>) -> Result<(), ConfigError> {
        for setting in SETTINGS {
            if let Some(value) = lookup(setting.environment) {
                let invalid = |reason| ConfigError::Value { place: setting.environment.to_owned(), reason };
                setting.apply(self, &value).map_err(invalid)?;
            }
        }
        Ok(())
    }

    /// Collects the apps from the configuration and from the file.
    ///
    /// With none at all it is the development app, but only where nobody else can reach it, since everybody knows its secret.
    pub fn collect_apps(&self) -> Result<Apps, ConfigError> {
        let mut apps = self.apps.clone();
        if let Some(path) = &self.apps_file {
            let text = fs::read_to_string(path).map_err(|error| ConfigError::File { path: path.clone(), error })?;
            for (number, line) in (1..).zip(text.lines()) {
                let line = line.split_once('#').map_or(line, |(line, _comment)| line).trim();
                if !line.is_empty() {
                    let place = || format!("{}, line {number}", path.display());
                    let invalid = |error: InvalidApp| ConfigError::Value { place: place(), reason: error.to_string() };
                    apps.push(App::parse(line).map_err(invalid)?);
                }
            }
        }
        if apps.is_empty() {
            if !self.listen.ip().to_canonical().is_loopback() {
                return Err(ConfigError::NoApp { listen: self.listen });
            }
            return Ok(Apps::development(&self.limits));
        }
        Apps::new(apps, &self.limits).map_err(ConfigError::Duplicate)
    }
}

/// How one field of [`Config`] is set by a text: from the command line, or from the environment.
#[derive(Clone, Copy, Debug)]
pub struct Setting {
    /// The flag, without its dashes.
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
    apply: fn(&mut Config, &str) -> Result<(), String>,
}

impl Setting {
    /// Sets the field. The error says what is wrong with the value and what it should be.
    pub fn apply(&self, config: &mut Config, value: &str) -> Result<(), String> {
        (self.apply)(config, value)
    }
}

/// Everything that can be set by a text.
pub const SETTINGS: &[Setting] = &[
    Setting {
        name: "listen",
        environment: "TAUT_LISTEN",
        value: "ADDR",
        default: "127.0.0.1:6001",
        help: "Where to listen: an IP address and a port (port 0: the system chooses)",
        repeatable: false,
        apply: |config, value| parse_address(value).map(|address| config.listen = address),
    },
    Setting {
        name: "app",
        environment: "TAUT_APPS",
        value: "ID:KEY:SECRET",
        default: "",
        help: "An app to serve, or several with commas between them; with none, a development app is served on loopback addresses",
        repeatable: true,
        apply: |config, value| {
            for (number, text) in (1..).zip(value.split(',')) {
                let place = if value.contains(',') { format!("app {number} of the list: ") } else { String::new() };
                config.apps.push(App::parse(text).map_err(|error| format!("{place}{error}"))?);
            }
            Ok(())
        },
    },
    Setting {
        name: "apps-file",
        environment: "TAUT_APPS_FILE",
        value: "FILE",
        default: "",
        help: "A file with apps to serve: one ID:KEY:SECRET per line, comments after #",
        repeatable: false,
        apply: |config, value| {
            config.apps_file = (!value.is_empty()).then(|| PathBuf::from(value));
            Ok(())
        },
    },
    Setting {
        name: "shards",
        environment: "TAUT_SHARDS",
        value: "NUMBER",
        default: "0",
        help: "Event loops, each a thread of its own (0: one per processor core)",
        repeatable: false,
        apply: |config, value| parse_number(value, 0, 1024).map(|number| config.shards = number as usize),
    },
    Setting {
        name: "path-prefix",
        environment: "TAUT_PATH_PREFIX",
        value: "PATH",
        default: "",
        help: "What precedes /app and /apps in this server's paths, for instance /realtime",
        repeatable: false,
        apply: |config, value| parse_prefix(value).map(|prefix| config.path_prefix = prefix),
    },
    Setting {
        name: "activity-timeout",
        environment: "TAUT_ACTIVITY_TIMEOUT",
        value: "SECONDS",
        default: "120",
        help: "Silence after which clients are told to ask whether the server is there",
        repeatable: false,
        apply: |config, value| parse_seconds(value).map(|time| config.activity_timeout = time),
    },
    Setting {
        name: "ping-interval",
        environment: "TAUT_PING_INTERVAL",
        value: "SECONDS",
        default: "25",
        help: "Silence after which the server asks whether a client is there; below what load balancers allow",
        repeatable: false,
        apply: |config, value| parse_seconds(value).map(|time| config.ping_interval = time),
    },
    Setting {
        name: "pong-timeout",
        environment: "TAUT_PONG_TIMEOUT",
        value: "SECONDS",
        default: "30",
        help: "How long a client may take to answer before its connection is given up",
        repeatable: false,
        apply: |config, value| parse_seconds(value).map(|time| config.pong_timeout = time),
    },
    Setting {
        name: "max-message",
        environment: "TAUT_MAX_MESSAGE",
        value: "BYTES",
        default: "64KiB",
        help: "Longest message from a client; a longer one closes its connection",
        repeatable: false,
        apply: |config, value| parse_bytes(value).map(|bytes| config.message = bytes),
    },
    Setting {
        name: "max-outgoing",
        environment: "TAUT_MAX_OUTGOING",
        value: "BYTES",
        default: "1MiB",
        help: "Most that may wait for a client that reads too slowly; beyond it its connection is dropped",
        repeatable: false,
        apply: |config, value| parse_bytes(value).map(|bytes| config.outgoing = bytes),
    },
    Setting {
        name: "deflate",
        environment: "TAUT_DEFLATE",
        value: "on|off",
        default: "on",
        help: "Whether messages are compressed for clients that offer it (permessage-deflate)",
        repeatable: false,
        apply: |config, value| parse_switch(value).map(|on| config.deflate = on),
    },
    Setting {
        name: "max-connections",
        environment: "TAUT_MAX_CONNECTIONS",
        value: "NUMBER",
        default: "0",
        help: "Most connections of one app at a time (0: no limit)",
        repeatable: false,
        apply: |config, value| {
            parse_number(value, 0, u32::MAX).map(|number| config.limits.connections = number as usize)
        },
    },
    Setting {
        name: "max-subscriptions",
        environment: "TAUT_MAX_SUBSCRIPTIONS",
        value: "NUMBER",
        default: "1000",
        help: "Most channels that one connection may be subscribed to",
        repeatable: false,
        apply: |config, value| {
            parse_number(value, 1, 1_000_000).map(|number| config.limits.subscriptions = number as usize)
        },
    },
    Setting {
        name: "max-channel-name",
        environment: "TAUT_MAX_CHANNEL_NAME",
        value: "BYTES",
        default: "200",
        help: "Longest name of a channel",
        repeatable: false,
        apply: |config, value| parse_bytes(value).map(|bytes| config.limits.channel_name = bytes),
    },
    Setting {
        name: "max-event-name",
        environment: "TAUT_MAX_EVENT_NAME",
        value: "NUMBER",
        default: "200",
        help: "Longest name of an event, in characters",
        repeatable: false,
        apply: |config, value| parse_number(value, 1, 65_536).map(|number| config.limits.event_name = number as usize),
    },
    Setting {
        name: "max-event-data",
        environment: "TAUT_MAX_EVENT_DATA",
        value: "BYTES",
        default: "100KiB",
        help: "Most data in one published event",
        repeatable: false,
        apply: |config, value| parse_bytes(value).map(|bytes| config.limits.event_data = bytes),
    },
    Setting {
        name: "max-publish-channels",
        environment: "TAUT_MAX_PUBLISH_CHANNELS",
        value: "NUMBER",
        default: "100",
        help: "Most channels in one publish",
        repeatable: false,
        apply: |config, value| {
            parse_number(value, 1, 10_000).map(|number| config.limits.channels_per_publish = number as usize)
        },
    },
    Setting {
        name: "drain-timeout",
        environment: "TAUT_DRAIN_TIMEOUT",
        value: "SECONDS",
        default: "20",
        help: "How long a shutdown may take: clients are told to come back, requests in flight are answered",
        repeatable: false,
        apply: |config, value| parse_seconds(value).map(|time| config.drain_timeout = time),
    },
];

/// Why a configuration cannot be used.
#[derive(Debug)]
pub enum ConfigError {
    /// Two apps share an id or a key.
    Duplicate(DuplicateApp),
    /// The file with the apps cannot be read.
    File {
        /// Which file.
        path: PathBuf,
        /// Why.
        error: io::Error,
    },
    /// There is no app, and others than this machine could reach the development app.
    NoApp {
        /// Where the server was to listen.
        listen: SocketAddr,
    },
    /// A value has the wrong form.
    Value {
        /// The environment variable, or the file and the line.
        place: String,
        /// What is wrong and what it should be.
        reason: String,
    },
}

impl fmt::Display for ConfigError {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Duplicate(error) => error.fmt(formatter),
            Self::File { path, error } => {
                write!(formatter, "the file with the apps, {}, cannot be read: {error}", path.display())
            }
            Self::NoApp { listen } => write!(
                formatter,
                "there is no app to serve on {listen}. Everybody knows the development app's secret, so it is served on loopback addresses only: \
                 give an app of your own (--app ID:KEY:SECRET, TAUT_APPS or --apps-file), or listen on 127.0.0.1:{}",
                listen.port()
            ),
            Self::Value { place, reason } => write!(formatter, "{place}: {reason}"),
        }
    }
}

impl std::error::Error for ConfigError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::File { error, .. } => Some(error),
            Self::Duplicate(_) | Self::NoApp { .. } | Self::Value { .. } => None,
        }
    }
}

fn parse_address(text: &str) -> Result<SocketAddr, String> {
    let numeric = text.strip_prefix("localhost:").map_or_else(|| text.to_owned(), |port| format!("127.0.0.1:{port}"));
    numeric
        .parse()
        .map_err(|_| format!("{text:?} is no address to listen on: write an IP address and a port, for instance 0.0.0.0:6001 or [::]:6001"))
}

fn parse_prefix(text: &str) -> Result<String, String> {
    let prefix = text.trim_end_matches('/');
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~/".contains(&byte);
    if !prefix.is_empty() && (!prefix.starts_with('/') || prefix.contains("//") || !prefix.bytes().all(allowed)) {
        return Err(format!(
            "{text:?} cannot precede a path: it must begin with / and may hold letters and digits of ASCII, - . _ ~ and single slashes"
        ));
    }
    Ok(prefix.to_owned())
}

fn parse_switch(text: &str) -> Result<bool, String> {
    match text {
        "on" => Ok(true),
        "off" => Ok(false),
        _ => Err(format!("{text:?} is neither on nor off")),
    }
}

fn parse_number(text: &str, least: u32, most: u32) -> Result<u32, String> {
    text.trim()
        .parse()
        .ok()
        .filter(|number| (least..=most).contains(number))
        .ok_or_else(|| format!("{text:?} is not a whole number between {least} and {most}"))
}

fn parse_seconds(text: &str) -> Result<Duration, String> {
    let wrong = |_| format!("{text:?} is not a time in whole seconds between 1 and 86400");
    parse_number(text, 1, 86_400).map(|seconds| Duration::from_secs(seconds.into())).map_err(wrong)
}

fn parse_bytes(text: &str) -> Result<usize, String> {
    let trimmed = text.trim();
    let (number, unit) = match trimmed {
        _ if trimmed.ends_with("KiB") => (&trimmed[..trimmed.len() - 3], 1024),
        _ if trimmed.ends_with("MiB") => (&trimmed[..trimmed.len() - 3], 1024 * 1024),
        _ => (trimmed, 1),
    };
    parse_number(number, 1, LARGEST_SIZE / unit).map(|number| (number * unit) as usize).map_err(|_| {
        format!("{text:?} is not a size between 1 and 1024MiB: write bytes, or a number with KiB or MiB behind it")
    })
}

/// 1 GiB.
const LARGEST_SIZE: u32 = 1 << 30;

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashMap;

    fn set(name: &str, value: &str) -> Result<Config, String> {
        let setting = SETTINGS.iter().find(|setting| setting.name == name).expect(name);
        let mut config = Config::default();
        setting.apply(&mut config, value).map(|()| config)
    }

    #[test]
    fn the_default_that_each_setting_states_is_the_real_one() {
        let untouched = format!("{:?}", Config::default());
        for setting in SETTINGS.iter().filter(|setting| !setting.default.is_empty()) {
            // From a configuration in which every field differs, so that a setting that sets nothing is noticed.
            let mut config = different();
            setting.apply(&mut config, setting.default).expect(setting.name);
            assert_ne!(format!("{config:?}"), format!("{:?}", different()), "{} sets nothing", setting.name);
            let mut config = Config::default();
            setting.apply(&mut config, setting.default).expect(setting.name);
            assert_eq!(format!("{config:?}"), untouched, "{}", setting.name);
        }
    }

    fn different() -> Config {
        let one = Duration::from_secs(1);
        Config {
            listen: SocketAddr::from(([10, 0, 0, 1], 1)),
            apps: vec![App::development()],
            apps_file: Some("x".into()),
            shards: 1,
            path_prefix: "/x".to_owned(),
            activity_timeout: one,
            ping_interval: one,
            pong_timeout: one,
            message: 1,
            outgoing: 1,
            deflate: false,
            limits: Limits {
                connections: 1,
                subscriptions: 1,
                channel_name: 1,
                event_name: 1,
                event_data: 1,
                channels_per_publish: 1,
                ..Limits::default()
            },
            drain_timeout: one,
        }
    }

    #[test]
    fn each_setting_has_a_name_and_a_variable_of_its_own() {
        let mut names: Vec<&str> = SETTINGS.iter().flat_map(|setting| [setting.name, setting.environment]).collect();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), 2 * SETTINGS.len());
        assert!(SETTINGS.iter().all(|setting| setting.environment.starts_with("TAUT_")));
    }

    #[test]
    fn the_environment_sets_what_it_names() {
        let environment = HashMap::from([
            ("TAUT_LISTEN", "[::1]:80"),
            ("TAUT_APPS", "1:a:x, 2:b:y"),
            ("TAUT_MAX_EVENT_DATA", "10KiB"),
            ("TAUT_PATH_PREFIX", "/realtime/"),
        ]);
        let mut config = Config::default();
        config.apply_environment(|name| environment.get(name).map(ToString::to_string)).expect("all good");
        assert_eq!(config.listen.to_string(), "[::1]:80");
        assert_eq!(config.apps.iter().map(|app| app.id.as_str()).collect::<Vec<_>>(), ["1", "2"]);
        assert_eq!(config.limits.event_data, 10_240);
        assert_eq!(config.path_prefix, "/realtime");
        assert_eq!(config.activity_timeout, Config::default().activity_timeout);
    }

    #[test]
    fn a_bad_variable_is_named_with_what_it_should_be_and_no_secret() {
        let environment = |name: &str| (name == "TAUT_APPS").then(|| "1:a:x,2:hunter2".to_owned());
        let refused = Config::default().apply_environment(environment).expect_err("two parts").to_string();
        assert!(refused.starts_with("TAUT_APPS: app 2 of the list: an app is written ID:KEY:SECRET"), "{refused}");
        assert!(!refused.contains("hunter2"), "{refused}");
    }

    #[test]
    fn bad_values_are_refused_with_what_would_be_good() {
        for (name, value, reason) in [
            ("listen", "example.com:80", "\"example.com:80\" is no address to listen on"),
            ("listen", "6001", "write an IP address and a port"),
            ("shards", "-1", "between 0 and 1024"),
            ("shards", "1025", "between 0 and 1024"),
            ("activity-timeout", "0", "whole seconds between 1 and 86400"),
            ("activity-timeout", "2m", "whole seconds between 1 and 86400"),
            ("max-message", "64KB", "write bytes, or a number with KiB or MiB"),
            ("max-message", "0", "between 1 and 1024MiB"),
            ("max-message", "1025MiB", "between 1 and 1024MiB"),
            ("max-message", "99999999999999999999", "between 1 and 1024MiB"),
            ("max-subscriptions", "0", "between 1 and 1000000"),
            ("deflate", "yes", "neither on nor off"),
            ("path-prefix", "realtime", "it must begin with /"),
            ("path-prefix", "/a//b", "single slashes"),
            ("path-prefix", "/a?b", "single slashes"),
        ] {
            let refused = set(name, value).expect_err(value);
            assert!(refused.contains(reason), "{name}={value}: {refused}");
        }
    }

    #[test]
    fn sizes_have_units() {
        for (text, bytes) in [("1", 1), ("10240", 10_240), ("64KiB", 65_536), ("1024MiB", 1 << 30), (" 2 MiB", 2 << 20)]
        {
            assert_eq!(set("max-message", text).map(|config| config.message), Ok(bytes), "{text}");
        }
    }

    #[test]
    fn localhost_is_an_address() {
        assert_eq!(set("listen", "localhost:0").map(|config| config.listen.to_string()), Ok("127.0.0.1:0".to_owned()));
    }

    #[test]
    fn without_an_app_a_loopback_address_serves_the_development_app() {
        for listen in ["127.0.0.1:6001", "127.8.9.10:1", "[::1]:6001", "[::ffff:127.0.0.1]:6001"] {
            let apps = set("listen", listen).expect(listen).collect_apps().expect(listen);
            assert_eq!(
                apps.development_app().map(|tenant| tenant.terms().app.key().key.clone()).as_deref(),
                Some("app-key"),
                "{listen}"
            );
            assert!(apps.by_id("app-id").is_some());
        }
    }

    #[test]
    fn without_an_app_any_other_address_is_refused_with_what_to_do() {
        for listen in ["0.0.0.0:7001", "[::]:7001", "192.168.1.1:7001"] {
            let refused = set("listen", listen).expect(listen).collect_apps().expect_err(listen).to_string();
            assert!(refused.starts_with(&format!("there is no app to serve on {listen}.")), "{refused}");
            assert!(refused.contains("--app ID:KEY:SECRET") && refused.ends_with("127.0.0.1:7001"), "{refused}");
        }
    }

    #[test]
    fn an_app_of_ones_own_is_served_anywhere_and_is_no_development_app() {
        let mut config = set("listen", "0.0.0.0:6001").expect("address");
        config.apps.push(App::parse("1:a:x").expect("app"));
        let apps = config.collect_apps().expect("one app");
        assert!(apps.by_key("a").is_some() && apps.by_key("app-key").is_none());
        assert!(apps.development_app().is_none());
        config.apps.push(App::parse("1:b:x").expect("app"));
        assert!(config.collect_apps().expect_err("twice").to_string().contains("two apps have the id"));
    }

    #[test]
    fn the_file_adds_apps_and_its_mistakes_are_found_by_line() {
        let path = std::env::temp_dir().join(format!("taut-apps-{}", std::process::id()));
        let config = Config {
            apps: vec![App::parse("1:a:x").expect("app")],
            apps_file: Some(path.clone()),
            ..Config::default()
        };
        fs::write(&path, "# ours\n\n 2:b:y  # the shop\r\n3:c:z").expect("write");
        let apps = config.collect_apps();
        fs::write(&path, "2:b:y\n# fine\n3:hunter2\n").expect("write");
        let refused = config.collect_apps();
        fs::remove_file(&path).expect("remove");
        let missing = config.collect_apps();
        assert_eq!(apps.expect("three apps").all().len(), 3);
        let refused = refused.expect_err("line 3").to_string();
        assert!(
            refused.contains(", line 3: an app is written ID:KEY:SECRET") && !refused.contains("hunter2"),
            "{refused}"
        );
        assert!(missing.expect_err("no file").to_string().contains("cannot be read"));
    }
}
