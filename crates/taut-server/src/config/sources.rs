//! A configuration put together from flags, variables and a file, as often as that changes.

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use super::compat::{Compat, CompatApps, CompatSetting};
use super::diagnostic::{ConfigError, Diagnostic};
use super::dotenv;
use super::environment::Environment;
use super::file::File;
use super::settings::{RETIRED, SETTINGS, Setting};
use super::{Config, acme_mistakes, apps::PartialApp, operators_listeners, read_apps};
use crate::address::is_loopback;
use crate::app::{AppConfig, Limits};

/// From where a configuration comes: a flag goes before the variable, the variable before the file, and the file before the default. A variable may be
/// set, or stand in the file that `env-file` names; one that is set goes before.
///
/// Lists are taken from one of these as well, except for apps: those of the flag or the variable, of the file and of the file with apps are all
/// served.
#[derive(Clone, Default)]
pub struct Sources {
    flags: Vec<(&'static Setting, String)>,
    environment: HashMap<String, String>,
}

/// What was put together.
#[derive(Clone, Debug)]
pub struct Loaded {
    /// The configuration.
    pub config: Config,
    /// What whoever runs the server should know about it.
    pub notes: Vec<String>,
    /// Where each setting is given, by its name.
    places: HashMap<&'static str, String>,
}

impl Loaded {
    /// Says where a setting is given, in the place of its name, in mistakes that were found when it was used.
    #[must_use]
    pub fn locate(&self, error: ConfigError) -> ConfigError {
        let mut mistakes = error.into_mistakes();
        for mistake in &mut mistakes {
            if let Some(place) = self.places.get(mistake.place.as_str()) {
                place.clone_into(&mut mistake.place);
            }
        }
        ConfigError::of(mistakes)
    }

    /// The flag, the variable or the line that gives a setting.
    pub(crate) fn place(&self, setting: &str) -> Option<&str> {
        self.places.get(setting).map(String::as_str)
    }
}

impl Sources {
    /// Flags by the names of their settings, in their order, and the environment.
    pub fn new(
        flags: impl IntoIterator<Item = (&'static Setting, String)>,
        environment: impl IntoIterator<Item = (String, String)>,
    ) -> Self {
        Self { flags: flags.into_iter().collect(), environment: environment.into_iter().collect() }
    }

    /// Reads everything, again; either all of it is good, or every mistake is told.
    pub fn load(&self) -> Result<Loaded, ConfigError> {
        let (loaded, mistakes) = self.read();
        ConfigError::unless_empty(mistakes).map(|()| loaded)
    }

    /// Reads everything, again: as much as can be understood, and every mistake. With one, what there is must not be served: a setting that cannot be
    /// understood has its default.
    pub fn read(&self) -> (Loaded, Vec<Diagnostic>) {
        let mut mistakes = Vec::new();
        let environment = self.environment(&mut mistakes);
        let mut config = Config::default();
        let mut file = self.file(&environment).and_then(|path| {
            let read = File::read(&path).map_err(|mistake| mistakes.push(mistake));
            read.ok().map(|(file, wrong)| {
                mistakes.extend(wrong);
                file
            })
        });
        let foreign = Compat::read(environment.values());
        let mut notes = environment.notes.clone();
        let mut places = HashMap::new();
        let named = file.as_ref().is_some_and(|file| file.names_apps)
            || SOURCES_OF_APPS.iter().any(|name| !self.values(setting(name), &environment, file.as_ref()).is_empty());
        let defaults = foreign.apps.as_ref().filter(|_| !named).map_or(&[][..], |apps| apps.defaults);
        let mut taken_over = Vec::new();
        for setting in SETTINGS.iter().chain(RETIRED) {
            let mut values = self.values(setting, &environment, file.as_ref());
            if let Some(CompatSetting { value, variable, .. }) =
                foreign.settings.iter().find(|known| known.name == setting.name)
            {
                if let Some((_, first)) = values.first() {
                    notes.push(format!("{variable} is not used: {first} goes before it"));
                } else if named && ["apps-database", "apps-table"].contains(&setting.name) {
                    notes.push(format!("{variable} is not used: apps are named elsewhere"));
                } else {
                    match value {
                        Ok(value) => {
                            notes.push(format!("{variable} is used, as {}", setting.name));
                            let hints = foreign.hints.iter().filter(|(name, _)| *name == setting.name);
                            notes.extend(hints.map(|(_, hint)| hint.clone()));
                            values.push((value, environment.place(variable)));
                        }
                        Err(reason) => mistakes.push(Diagnostic::new(environment.place(variable), reason.clone())),
                    }
                }
            } else if let Some((name, text)) = defaults.iter().find(|(name, _)| *name == setting.name)
                && values.is_empty()
            {
                taken_over.push(format!("{name} {text}"));
                let server = foreign.apps.as_ref().map_or("", |apps| apps.server);
                values.push((text, format!("{server}'s default")));
            }
            for (value, place) in values {
                if let Err(reason) = setting.apply(&mut config, value) {
                    mistakes.push(Diagnostic::new(place.clone(), reason));
                }
                places.insert(setting.name, place);
            }
        }
        let drafts = file.as_mut().map(|file| std::mem::take(&mut file.apps)).unwrap_or_default();
        config.routes = file.as_mut().map(|file| std::mem::take(&mut file.routes)).unwrap_or_default();
        let is_sound = mistakes.is_empty();
        self.collect_apps(&mut config, file.as_ref(), drafts, &mut mistakes);
        notes.extend(foreign.notes);
        if named || foreign.apps.is_some() {
            notes
                .extend(foreign.broken.iter().map(|broken| format!("{} is not used: {}", broken.place, broken.reason)));
        }
        match (foreign.apps, named) {
            (Some(CompatApps { variables, .. }), true) => {
                notes.push(format!("{variables} is not used: apps are named elsewhere"));
            }
            (Some(CompatApps { app, variables, server, .. }), false) => {
                if let Some(draft) = app {
                    notes.push(format!("{variables} is used, as the only app"));
                    config.apps.push(draft.finish(&config.limits));
                }
                if !taken_over.is_empty() {
                    notes.push(format!("as {server} has it where nothing is said: {}", taken_over.join(", ")));
                }
            }
            // Nothing is served in the place of an app that was meant to be.
            (None, false) => mistakes.extend(foreign.broken.iter().cloned()),
            (None, true) => {}
        }
        check_together(&config, is_sound && mistakes.is_empty(), &mut mistakes);
        if let Some(address) = config.console_listen.filter(|address| !is_loopback(address.ip())) {
            notes.push(format!("the console on {address} is served without TLS: its password can be read on the way"));
        }
        if config.data_directory.is_none() && config.apps.iter().any(|app| !app.webhooks.is_empty()) {
            notes.push(
                "webhooks wait in memory, and those that wait are lost when the server stops: set data-directory to keep them"
                    .to_owned(),
            );
        }
        (Loaded { config, notes, places }, mistakes)
    }

    /// The variables that are set, and those of the file that `env-file` names.
    fn environment(&self, mistakes: &mut Vec<Diagnostic>) -> Environment {
        let set = |name: &str| self.environment.get(name).filter(|value| !value.is_empty());
        let flag = self.flags.iter().rev().find(|(setting, _)| setting.name == ENV_FILE).map(|(_, value)| value);
        let path = flag.or_else(|| set(setting(ENV_FILE).environment)).filter(|path| !path.is_empty());
        let variables = path.map_or_else(Vec::new, |path| {
            dotenv::read(Path::new(path), &self.environment).unwrap_or_else(|wrong| {
                mistakes.extend(wrong);
                Vec::new()
            })
        });
        let environment = Environment::new(&self.environment, variables, path.map_or("", String::as_str));
        mistakes.extend(environment.mistakes.iter().cloned());
        environment
    }

    /// The configuration file, as far as flags and variables name it.
    fn file(&self, environment: &Environment) -> Option<PathBuf> {
        let (path, _) = self.values(setting("config"), environment, None).pop()?;
        (!path.is_empty()).then(|| PathBuf::from(path))
    }

    /// What a setting is given by the first source that names it, with the place of each value.
    fn values<'s>(
        &'s self,
        setting: &'static Setting,
        environment: &'s Environment,
        file: Option<&'s File>,
    ) -> Vec<(&'s str, String)> {
        let flags: Vec<(&str, String)> = self
            .flags
            .iter()
            .filter(|(known, _)| known.name == setting.name)
            .map(|(_, value)| (value.as_str(), format!("--{}", setting.name)))
            .collect();
        if !flags.is_empty() {
            return flags;
        }
        if let Some(value) = environment.get(setting.environment) {
            return vec![(value, environment.place(setting.environment))];
        }
        let Some(file) = file else { return Vec::new() };
        file.values(setting).map(|(value, at)| (value, file.place(at))).collect()
    }

    /// Adds the file's apps to those of flags and variables, and looks for those that are in the way of one another, here and in the file with apps.
    fn collect_apps(
        &self,
        config: &mut Config,
        file: Option<&File>,
        drafts: Vec<PartialApp>,
        mistakes: &mut Vec<Diagnostic>,
    ) {
        let given = if self.flags.iter().any(|(setting, _)| setting.name == "app") { "--app" } else { "TAUT_APPS" };
        let mut placed: Vec<(AppConfig, String)> = config.apps.drain(..).map(|app| (app, given.to_owned())).collect();
        let limits: Limits = config.limits;
        for draft in drafts {
            let place = file.map_or_else(String::new, |file| file.place(draft.at));
            placed.push((draft.finish(&limits), place));
        }
        let own = placed.len();
        if let Some(path) = &config.apps_file {
            match read_apps(path) {
                Ok((apps, wrong)) => {
                    placed.extend(apps);
                    mistakes.extend(wrong);
                }
                Err(mistake) => mistakes.push(mistake),
            }
        }
        check_unique(&placed, mistakes);
        placed.truncate(own);
        config.apps = placed.into_iter().map(|(app, _place)| app).collect();
    }
}

/// The environment holds more than what is ours to show.
impl std::fmt::Debug for Sources {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let flags: Vec<&str> = self.flags.iter().map(|(setting, _)| setting.name).collect();
        formatter.debug_struct("Sources").field("flags", &flags).finish_non_exhaustive()
    }
}

fn setting(name: &str) -> &'static Setting {
    // A name of the list, or a test fails at once.
    SETTINGS.iter().find(|setting| setting.name == name).unwrap_or(&SETTINGS[0])
}

/// The settings that say which apps there are.
const SOURCES_OF_APPS: [&str; 3] = ["app", "apps-file", "apps-database"];

const ENV_FILE: &str = "env-file";

fn check_unique(apps: &[(AppConfig, String)], mistakes: &mut Vec<Diagnostic>) {
    let mut ids: HashMap<&str, &str> = HashMap::new();
    let mut keys: HashMap<&str, &str> = HashMap::new();
    for (app, place) in apps {
        let first = ids.insert(&app.id, place);
        if let Some(first) = first {
            mistakes.push(Diagnostic::new(place, format!("another app has the id {:?}: {first}", app.id)));
        }
        for key in &app.keys {
            if let Some(first) = keys.insert(&key.key, place) {
                mistakes.push(Diagnostic::new(place, format!("another app has the key {:?}: {first}", key.key)));
            }
        }
    }
}

/// What no setting shows by itself.
fn check_together(config: &Config, is_sound: bool, mistakes: &mut Vec<Diagnostic>) {
    if config.tls_certificate.is_some() != config.tls_key.is_some() {
        let (given, missing) =
            if config.tls_key.is_none() { ("tls-certificate", "tls-key") } else { ("tls-key", "tls-certificate") };
        mistakes.push(Diagnostic::new("", format!("{given} is set and {missing} is not: TLS needs both")));
    }
    mistakes.extend(acme_mistakes(config));
    if config.proxy_protocol && config.trusted_proxies.is_empty() {
        mistakes.push(Diagnostic::new(
            "",
            "proxy-protocol is on and trusted-proxies names nobody whose word on addresses would be taken: name your proxies there",
        ));
    }
    mistakes.extend(operators_listeners(config));
    // Where there are mistakes already, the apps may be what could not be read.
    mistakes.extend(config.missing_apps().filter(|_| is_sound));
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::time::Duration;

    use super::*;
    use crate::app::{PublishAway, Secret, SlowReader, WebhookEvent};

    /// A file that goes with the test.
    struct Temporary(PathBuf);

    impl Temporary {
        fn new(text: &str) -> Self {
            static NUMBER: AtomicUsize = AtomicUsize::new(0);
            let number = NUMBER.fetch_add(1, Ordering::Relaxed);
            let path = std::env::temp_dir().join(format!("taut-{}-{number}.toml", std::process::id()));
            std::fs::write(&path, text).expect("a file");
            Self(path)
        }

        fn path(&self) -> &str {
            self.0.to_str().expect("a plain path")
        }
    }

    impl Drop for Temporary {
        fn drop(&mut self) {
            let _ = std::fs::remove_file(&self.0);
        }
    }

    fn sources(flags: &[(&str, &str)], environment: &[(&str, &str)]) -> Sources {
        let setting = |name: &str| SETTINGS.iter().find(|setting| setting.name == name).expect("a setting");
        Sources::new(
            flags.iter().map(|&(name, value)| (setting(name), value.to_owned())),
            environment.iter().map(|&(name, value)| (name.to_owned(), value.to_owned())),
        )
    }

    fn load(text: &str) -> Result<Config, ConfigError> {
        let file = Temporary::new(text);
        sources(&[("config", file.path())], &[]).load().map(|loaded| loaded.config)
    }

    /// The mistakes, with the file's name left out of their places.
    fn mistakes(text: &str) -> Vec<String> {
        let file = Temporary::new(text);
        let refused = sources(&[("config", file.path())], &[]).load().expect_err(text);
        refused
            .mistakes()
            .iter()
            .map(|mistake| mistake.to_string().replace(&format!("{}, ", file.path()), ""))
            .collect()
    }

    #[test]
    fn metrics_that_soketi_opens_to_everybody_are_for_this_machine_until_somebody_says_otherwise() {
        let loaded = |environment: &[(&str, &str)]| sources(&[], environment).load().expect("good");
        let Loaded { config, notes, .. } = loaded(&[("SOKETI_METRICS_ENABLED", "1")]);
        assert_eq!(config.metrics_listen.map(|address| address.to_string()).as_deref(), Some("127.0.0.1:9601"));
        assert!(config.metrics_token.is_none() && config.console_listen.is_none());
        let notes = notes.join("\n");
        assert!(notes.contains("SOKETI_METRICS_ENABLED is used, as metrics-listen"), "{notes}");
        assert!(notes.contains("TAUT_METRICS_LISTEN=0.0.0.0:9601 opens them to others"), "{notes}");
        let Loaded { config, notes, .. } =
            loaded(&[("SOKETI_METRICS_ENABLED", "1"), ("TAUT_METRICS_LISTEN", "0.0.0.0:9601")]);
        assert_eq!(config.metrics_listen.map(|address| address.to_string()).as_deref(), Some("0.0.0.0:9601"));
        assert_eq!(notes, ["SOKETI_METRICS_ENABLED is not used: TAUT_METRICS_LISTEN goes before it"]);
    }

    #[test]
    fn the_setting_metrics_is_refused_wherever_it_stands() {
        for mistake in [
            mistakes("metrics = true").join("\n"),
            sources(&[], &[("TAUT_METRICS", "loopback")]).load().expect_err("gone").to_string(),
        ] {
            assert!(mistake.contains("metrics-listen serves the metrics on a separate listener"), "{mistake}");
        }
        assert!(mistakes("metrc-token = 1")[0].contains("did you mean metrics-token?"));
    }

    #[test]
    fn operators_listeners_are_looked_at_together() {
        let wrong = mistakes(
            "listen = \"0.0.0.0:6001\"\napp = \"1:a:x\"\nconsole-listen = \"[::]:6001\"\nmetrics-listen = 6001",
        );
        assert_eq!(wrong.len(), 3, "{wrong:#?}");
        assert!(
            wrong[0].starts_with("console-listen: the console on [::]:6001 would be open to everybody"),
            "{wrong:#?}"
        );
        let flags =
            [("console-listen", "0.0.0.0:7000"), ("console-password", "correct horse battery"), ("app", "1:a:x")];
        let notes = sources(&flags, &[]).load().expect("locked").notes;
        assert_eq!(notes, ["the console on 0.0.0.0:7000 is served without TLS: its password can be read on the way"]);
        load("console-listen = 7000\nmetrics_listen = \":9601\"").expect("both on loopback");
    }

    #[test]
    fn a_cluster_has_a_table_in_the_file_or_a_line() {
        let whole = "cluster.url = \"rediss://me:hunter2@redis:6380/1\"\n[limits]\nbatch = 3\n";
        let config = load(whole).expect("a url");
        assert_eq!(config.cluster.as_ref().map(Secret::reveal), Some("rediss://me:hunter2@redis:6380/1"));
        let table = "[cluster]\nurl = \"redis://redis\"\nprefix = \"shop\"\nlease = 5\nname = \"a\"\nready = true\npublish_away = \"local\"\n";
        let config = load(table).expect("all of it");
        assert_eq!(config.cluster.as_ref().map(Secret::reveal), Some("redis://redis"));
        assert_eq!((config.cluster_prefix.as_str(), config.cluster_name.as_str()), ("shop", "a"));
        assert_eq!((config.cluster_lease, config.cluster_ready), (Duration::from_secs(5), true));
        assert_eq!(config.limits.publish_away, PublishAway::Local);
        assert!(load("cluster = \"redis://redis\"\ncluster-lease = 5").expect("lines").cluster.is_some());
        for (wrong, told) in [
            ("[cluster]\nurl = \"nats://me:hunter2@a:0\"", "line 2: cluster: the port is a number"),
            ("[cluster]\nleese = 5", "line 2: there is no setting of the cluster \"leese\"; did you mean lease?"),
            ("cluster = 5", "line 1: cluster: Understood are redis://HOST"),
        ] {
            let mistakes = mistakes(wrong);
            assert!(mistakes[0].starts_with(told) && !mistakes[0].contains("hunter2"), "{mistakes:?}");
        }
    }

    #[test]
    fn an_app_says_for_itself_what_becomes_of_publishes_while_the_engine_is_away() {
        let file = Temporary::new(
            "[[apps]]\nid = '1'\nkey = 'a'\nsecret = 'x'\n[apps.limits]\ncluster-publish-away = 'local'\n",
        );
        let config = sources(&[("config", file.path())], &[]).load().expect("all good").config;
        assert_eq!(config.limits.publish_away, PublishAway::Refuse);
        assert_eq!(config.apps[0].limits.expect("its own").publish_away, PublishAway::Local);
    }

    #[test]
    fn every_setting_of_a_cluster_has_a_variable() {
        let variables = [
            ("TAUT_CLUSTER", "redis://redis"),
            ("TAUT_CLUSTER_PREFIX", "shop"),
            ("TAUT_CLUSTER_LEASE", "3s"),
            ("TAUT_CLUSTER_NAME", "a"),
            ("TAUT_CLUSTER_READY", "on"),
            ("TAUT_CLUSTER_PUBLISH_AWAY", "local"),
        ];
        let Loaded { config, notes, .. } = sources(&[], &variables).load().expect("all good");
        assert!(notes.is_empty(), "{notes:?}");
        assert!(config.cluster.is_some() && config.cluster_ready);
        assert_eq!((config.cluster_prefix.as_str(), config.cluster_name.as_str()), ("shop", "a"));
        assert_eq!(config.cluster_lease, Duration::from_secs(3));
        assert_eq!(config.limits.publish_away, PublishAway::Local);
        assert!(!format!("{config:?}").contains("redis://"), "what may hold a password is not shown");
    }

    #[test]
    fn another_servers_redis_makes_way_for_a_setting_and_its_password_is_not_told() {
        let soketi = [("SOKETI_ADAPTER_DRIVER", "redis"), ("SOKETI_DB_REDIS_PASSWORD", "hunter2")];
        let Loaded { config, notes, .. } = sources(&[], &soketi).load().expect("good");
        assert_eq!(config.cluster.as_ref().map(Secret::reveal), Some("redis://:hunter2@127.0.0.1:6379/0"));
        assert_eq!(notes, ["SOKETI_ADAPTER_DRIVER is used, as cluster"]);
        let Loaded { config, notes, .. } =
            sources(&[("cluster", "redis://other")], &soketi).load().expect("the flag goes before");
        assert_eq!(config.cluster.as_ref().map(Secret::reveal), Some("redis://other"));
        assert_eq!(notes, ["SOKETI_ADAPTER_DRIVER is not used: --cluster goes before it"]);
    }

    const WHOLE: &str = r#"
        listen = "127.0.0.1:7001"
        shards = 0x3
        deflate = false
        ping_interval = 1_0
        max-message = "1MiB"
        trusted-proxies = ["10.0.0.0/8", "::1"]
        log-level = "warn"

        [limits]
        event-data = "50KiB"
        connections = 500

        [[apps]]
        id = "shop"
        key = "shop-key"
        secret = "x"

        [[apps]]
        id = "forum"
        keys = [{ key = "old", secret = "y" }, { key = "new", secret = "z" }]
        enabled = false
        client_events = false
        subscription_count = true
        watchlist = true
        authorization_timeout = 30
        presence_grace = "3s"
        fallback = false
        origins = ["https://example.com", "https://*.example.com:8443"]

        [apps.limits]
        connections = 5
        slow-reader = "drop"
        cache_ttl = 60

        [[apps.webhooks]]
        url = "https://example.com/hook"
        events = ["channel_occupied", "cache_miss"]
        channel_prefix = "private-"
        channel_suffix = "-x"
        batching = true
        headers = { X_Token = "t", Authorization = "Bearer u" }
    "#;

    #[test]
    fn a_file_says_everything() {
        let config = load(WHOLE).expect("all good");
        assert_eq!(config.listen.to_string(), "127.0.0.1:7001");
        assert_eq!((config.shards, config.deflate, config.message), (3, false, 1 << 20));
        assert_eq!((config.ping_interval, config.log_level.as_str()), (Duration::from_secs(10), "warn"));
        assert_eq!(config.trusted_proxies.len(), 2);
        assert_eq!((config.limits.event_data, config.limits.connections), (50 << 10, 500));
        let [shop, forum] = config.apps.as_slice() else { panic!("{:?}", config.apps) };
        assert_eq!((shop.id.as_str(), shop.limits, shop.enabled), ("shop", None, true));
        assert_eq!(forum.keys.iter().map(|key| key.key.as_str()).collect::<Vec<_>>(), ["old", "new"]);
        assert!(!forum.enabled && !forum.features.client_events);
        assert!(forum.features.subscription_count && forum.features.watchlist && !forum.features.fallback);
        assert_eq!(forum.features.authorization_timeout, Duration::from_secs(30));
        assert_eq!(forum.features.presence_grace, Duration::from_secs(3));
        assert_eq!(forum.origins, ["https://example.com", "https://*.example.com:8443"]);
        let limits = forum.limits.expect("its own");
        assert_eq!((limits.connections, limits.event_data, limits.slow_reader), (5, 50 << 10, SlowReader::Drop));
        assert_eq!(limits.cache_ttl, Duration::from_secs(60));
        let [webhook] = forum.webhooks.as_slice() else { panic!("{:?}", forum.webhooks) };
        assert_eq!(webhook.url, "https://example.com/hook");
        assert_eq!(webhook.events, [WebhookEvent::ChannelOccupied, WebhookEvent::CacheMiss]);
        assert_eq!((webhook.channel_prefix.as_str(), webhook.channel_suffix.as_str()), ("private-", "-x"));
        assert!(webhook.batching);
        let header = |name: &str, value: &str| (name.to_owned(), value.to_owned());
        assert_eq!(webhook.headers, [header("X_Token", "t"), header("Authorization", "Bearer u")]);
        assert_eq!(config.collect_apps().expect("two apps").all().len(), 2);
    }

    #[test]
    fn the_number_of_subscriptions_is_told_to_everybody_to_backends_or_to_nobody() {
        let app = |setting: &str| format!("[[apps]]\nid = \"1\"\nkey = \"k\"\nsecret = \"s\"\n{setting}");
        for (setting, told, in_info) in [
            ("", false, false),
            ("subscription-count = false", false, false),
            ("subscription-count = true", true, false),
            ("subscription_count = \"info\"", false, true),
        ] {
            let features = load(&app(setting)).expect(setting).apps[0].features;
            assert_eq!(
                (features.subscription_count, features.subscription_count_in_info),
                (told, in_info),
                "{setting}"
            );
        }
        let wrong = mistakes(&app("subscription-count = \"maybe\""));
        assert!(wrong[0].ends_with("\"maybe\" is neither true, false nor info"), "{wrong:?}");
    }

    #[test]
    fn a_flag_goes_before_a_variable_and_that_before_the_file() {
        let file = Temporary::new("shards = 1\nping-interval = 1\npong-timeout = 1\n[limits]\nwatchlist = 1\n");
        let environment = [
            ("TAUT_CONFIG", file.path()),
            ("TAUT_SHARDS", "2"),
            ("TAUT_PING_INTERVAL", "2"),
            ("TAUT_MAX_WATCHLIST", "2"),
        ];
        let config = sources(&[("shards", "3")], &environment).load().expect("all good").config;
        assert_eq!((config.shards, config.limits.watchlist), (3, 2));
        assert_eq!((config.ping_interval.as_secs(), config.pong_timeout.as_secs()), (2, 1));
    }

    #[test]
    fn an_apps_own_limits_lie_over_those_of_a_flag() {
        let file = Temporary::new(
            "[limits]\nbatch = 2\n[[apps]]\nid = '1'\nkey = 'a'\nsecret = 'x'\nlimits.connections = 7\n",
        );
        let config = sources(&[("config", file.path()), ("max-batch", "3")], &[]).load().expect("all good").config;
        let limits = config.apps[0].limits.expect("its own");
        assert_eq!((limits.connections, limits.batch), (7, 3));
    }

    #[test]
    fn every_mistake_is_told_with_its_line_and_what_would_be_right() {
        let found = mistakes(
            r#"lisen = "127.0.0.1:7001"
shards = "many"
deflate = [true]
config = "other.toml"
max-batch = 4
colour = 1
ping-interval = 1979-05-27
[limits]
batch = 5
max-event-data = 1
[[apps]]
key = "a"
secret = 5
[[apps]]
id = 7
key = "b"
secret = ""
client-evnts = true
enabled = "maybe"
origins = ["*", "https://example.com/path"]
webhooks = [{ events = ["channel_gone"], headers = { "a b" = "x", ok = "a\nb" } }, { url = "ftp://me:pw@host" }, { url = "https://host/", headers = { X-Pusher-Key = "x" } }]
[[apps]]
id = "9"
key = "c"
keys = [{ key = "d", secret = "z", colour = "red" }, { key = "e" }]
secret = "z"
limits = { connection = 5, watchlist = 0 }
"#,
        );
        let expected = [
            "line 1: there is no setting \"lisen\"; did you mean listen?",
            "line 2: shards: \"many\" is not a whole number between 0 and 1024",
            "line 3: deflate: it takes a single value, and this is a list",
            "line 4: there is no setting \"config\"; there are: ",
            "line 6: there is no setting \"colour\"; there are: listen, app, ",
            "line 7: ping-interval: it takes no date",
            "line 9: max-batch was already set at line 5",
            "line 10: there is no limit \"max-event-data\"; did you mean event-data?",
            "line 13: secret is a text: put it into quotes, secret = \"…\"",
            "line 11: this app has no id: write id = \"…\"",
            "line 15: id is a text: put it into quotes, id = \"7\"",
            "line 17: secret is empty",
            "line 18: there is no setting of an app \"client-evnts\"; did you mean client-events?",
            "line 19: enabled: \"maybe\" is neither on nor off",
            "line 20: \"*\" is not an origin: write a scheme and a host",
            "line 20: \"https://example.com/path\" is not an origin",
            "line 21: there is no event \"channel_gone\" for webhooks; there are: channel_occupied, ",
            "line 21: \"a b\" is no name of a header",
            "line 21: the header ok takes a text of one line",
            "line 21: this webhook has no url",
            "line 21: url: the address must begin with http:// or https://",
            "line 21: the webhook's header \"X-Pusher-Key\" is set by the protocol",
            "line 24: key and keys cannot both be given",
            "line 25: there is no part of a key \"colour\"",
            "line 25: there is no secret here",
            "line 27: there is no limit \"connection\"; did you mean connections?",
            "line 27: watchlist: \"0\" is not a whole number between 1 and 10000",
        ];
        for expected in expected {
            assert!(
                found.iter().any(|mistake| mistake.starts_with(expected)),
                "{expected}\nis not among\n{}",
                found.join("\n")
            );
        }
        assert!(!found.iter().any(|mistake| mistake.contains("pw@")), "{found:?}");
    }

    #[test]
    fn what_is_no_toml_is_told_without_repeating_the_line() {
        let found = mistakes("[[apps]]\nsecret = \"hunter2\nid = \"1\"\n");
        assert!(found[0].starts_with("line 2: this is no TOML: "), "{found:?}");
        assert!(!found.iter().any(|mistake| mistake.contains("hunter2")), "{found:?}");
        assert!(mistakes("shards = 1\nshards = 2\n")[0].starts_with("line 2: "));
    }

    #[test]
    fn apps_that_are_in_the_way_of_one_another_are_found_across_sources() {
        let file = Temporary::new(
            "[[apps]]\nid = '1'\nkey = 'a'\nsecret = 'x'\n[[apps]]\nid = '2'\nkey = 'b'\nsecret = 'x'\n",
        );
        let more = Temporary::new("3:c:z\n4:b:z\n");
        let flags = [("config", file.path()), ("apps-file", more.path()), ("app", "1:d:z")];
        let refused = sources(&flags, &[]).load().expect_err("twice").to_string();
        assert!(
            refused.contains(&format!("{}, line 1: another app has the id \"1\": --app", file.path())),
            "{refused}"
        );
        let second = format!("{}, line 2: another app has the key \"b\": {}, line 5", more.path(), file.path());
        assert!(refused.contains(&second), "{refused}");
    }

    #[test]
    fn what_does_not_go_together_is_told() {
        let refused = mistakes("tls-key = '/nowhere/key.pem'\nproxy-protocol = true\n").join("\n");
        assert!(refused.contains("tls-key is set and tls-certificate is not"), "{refused}");
        assert!(refused.contains("trusted-proxies names nobody"), "{refused}");
        assert!(mistakes("listen = '0.0.0.0:1'")[0].starts_with("there is no app to serve on 0.0.0.0:1."));
        let missing = sources(&[("config", "/nowhere/taut.toml")], &[]).load().expect_err("no file").to_string();
        assert!(missing.starts_with("/nowhere/taut.toml: the configuration file cannot be read: "), "{missing}");
        let short = sources(&[("console-password", "hunter2")], &[]).load().expect_err("short").to_string();
        assert!(short.contains("at least 12 characters") && !short.contains("hunter2"), "{short}");
    }

    #[test]
    fn other_servers_variables_are_used_where_taut_was_told_nothing() {
        let foreign = [
            ("REVERB_APP_ID", "1"),
            ("REVERB_APP_KEY", "a"),
            ("REVERB_APP_SECRET", "hunter2"),
            ("REVERB_SERVER_PORT", "7001"),
            ("REVERB_APP_PING_INTERVAL", "60"),
            ("REVERB_HOST", "example.com"),
        ];
        let loaded = sources(&[], &foreign).load().expect("all good");
        assert_eq!((loaded.config.listen.to_string().as_str(), loaded.config.apps.len()), ("0.0.0.0:7001", 1));
        assert_eq!(loaded.config.ping_interval.as_secs(), 60);
        let notes = loaded.notes.join("\n");
        assert!(notes.contains("REVERB_SERVER_PORT is used, as listen"), "{notes}");
        assert!(notes.contains("REVERB_APP_* is used, as the only app"), "{notes}");
        assert!(notes.contains("REVERB_HOST is not used: it says where clients connect"), "{notes}");
        let file = Temporary::new("ping-interval = 5\n[[apps]]\nid = '2'\nkey = 'b'\nsecret = 'x'\n");
        let loaded = sources(&[("listen", "127.0.0.1:0"), ("config", file.path())], &foreign).load().expect("all good");
        assert_eq!((loaded.config.listen.port(), loaded.config.ping_interval.as_secs()), (0, 5));
        assert_eq!(loaded.config.apps.iter().map(|app| app.id.as_str()).collect::<Vec<_>>(), ["2"]);
        let notes = loaded.notes.join("\n");
        assert!(notes.contains("REVERB_SERVER_PORT is not used: --listen goes before it"), "{notes}");
        assert!(notes.contains("REVERB_APP_* is not used: apps are named elsewhere"), "{notes}");
        assert_eq!(loaded.config.message, Config::default().message, "who has moved has Taut's own defaults");
    }

    const LARAVEL: &str = "\
APP_NAME=Laravel
APP_URL=http://localhost

BROADCAST_CONNECTION=reverb
REDIS_PASSWORD=null

REVERB_APP_ID=256980
REVERB_APP_KEY=f4l2tmwqf6eg0f6jz0mw
REVERB_APP_SECRET=zioqeto9xrytlnlg7sj6
REVERB_HOST=\"localhost\"
REVERB_PORT=8080
REVERB_SCHEME=http

VITE_REVERB_APP_KEY=\"${REVERB_APP_KEY}\"
VITE_REVERB_HOST=\"${REVERB_HOST}\"
";

    #[test]
    fn a_stock_env_of_laravel_is_enough() {
        let file = Temporary::new(LARAVEL);
        let loaded = sources(&[("env-file", file.path())], &[]).load().expect("all good");
        let config = &loaded.config;
        assert_eq!((config.listen.to_string().as_str(), config.apps[0].id.as_str()), ("0.0.0.0:8080", "256980"));
        assert_eq!(config.apps[0].key().secret.reveal(), "zioqeto9xrytlnlg7sj6");
        assert_eq!(
            (config.ping_interval.as_secs(), config.activity_timeout.as_secs(), config.message),
            (60, 30, 10_000)
        );
        assert_eq!(config.env_file.as_deref(), Some(Path::new(file.path())));
        let notes = loaded.notes.join("\n");
        assert!(notes.contains("REVERB_PORT is not used: it says where clients connect"), "{notes}");
        assert!(
            notes.contains(
                "as Reverb has it where nothing is said: listen 0.0.0.0:8080, activity-timeout 30, ping-interval 60"
            ),
            "{notes}"
        );
        assert!(!notes.contains("zioqeto"), "{notes}");
    }

    #[test]
    fn a_flag_and_a_variable_that_is_set_go_before_the_file_of_variables() {
        let file = Temporary::new(&format!("{LARAVEL}TAUT_SHARDS=2\nTAUT_MAX_BATCH=2\nTAUT_MAX_WATCHLIST=2\n"));
        let environment = [
            ("TAUT_ENV_FILE", file.path()),
            ("TAUT_SHARDS", "3"),
            ("REVERB_SERVER_PORT", "9000"),
            ("TAUT_MAX_WATCHLIST", ""),
        ];
        let config = sources(&[("max-batch", "4")], &environment).load().expect("all good").config;
        assert_eq!((config.shards, config.limits.batch, config.limits.watchlist), (3, 4, 2));
        assert_eq!(config.listen.to_string(), "0.0.0.0:9000");
        let broken = Temporary::new("TAUT_SHARDS=many\nTAUT_LISTN=x\nTAUT_APPS=1:a:hunter2 x\n");
        let refused = sources(&[("env-file", broken.path())], &[]).load().expect_err("three mistakes").to_string();
        assert!(refused.contains(&format!("{}, line 3: there is more after the value", broken.path())), "{refused}");
        let broken = Temporary::new("TAUT_SHARDS=many\nTAUT_LISTN=x\n");
        let refused = sources(&[("env-file", broken.path())], &[]).load().expect_err("two mistakes").to_string();
        assert!(refused.contains(&format!("{}, line 1: TAUT_SHARDS: \"many\" is not", broken.path())), "{refused}");
        assert!(
            refused.contains(&format!(
                "{}, line 2: TAUT_LISTN: there is no such variable; did you mean TAUT_LISTEN?",
                broken.path()
            )),
            "{refused}"
        );
        for missing in ["/nowhere/.env", ""] {
            sources(&[("env-file", missing)], &[]).load().expect_err(missing);
        }
    }

    #[test]
    fn what_was_to_name_an_app_and_does_not_never_leads_to_the_development_app() {
        let empty = Temporary::new("apps = []\n");
        for (flags, environment, told) in [
            (
                &[][..],
                &[("REVERB_APP_ID", "1"), ("REVERB_APP_KEY", "a/b"), ("REVERB_APP_SECRET", "x")][..],
                "REVERB_APP_*: the app's key may hold",
            ),
            (
                &[],
                &[("PUSHER_APP_ID", "1")],
                "PUSHER_APP_ID: PUSHER_APP_KEY and PUSHER_APP_SECRET would have to be set",
            ),
            (&[], &[("SOKETI_APP_MANAGER_DRIVER", "dynamodb")], "SOKETI_APP_MANAGER_DRIVER: the apps of"),
            (&[], &[("TAUT_APPS", "1:a b:x")], "TAUT_APPS: the app's key may hold"),
            (&[], &[("TAUT_APP", "1:a:x")], "TAUT_APP: there is no such variable; did you mean TAUT_APPS?"),
            (&[("config", empty.path())], &[], "line 1: apps is empty"),
            (&[("config", "")], &[], "--config: the name is empty"),
            (&[("apps-file", "")], &[], "--apps-file: the name is empty"),
            (&[("apps-database", "")], &[], "--apps-database: "),
            (&[("env-file", "")], &[], "--env-file: the name is empty"),
        ] {
            let refused = sources(flags, environment).load().expect_err(told).to_string();
            assert!(refused.contains(told), "{told}\n{refused}");
        }
        // Beside an app that can be served, it is a note.
        let environment =
            [("REVERB_APP_ID", "1"), ("REVERB_APP_KEY", "a"), ("REVERB_APP_SECRET", "x"), ("PUSHER_APP_ID", "1")];
        let loaded = sources(&[("listen", "127.0.0.1:0")], &environment).load().expect("Reverb's app");
        assert!(loaded.config.collect_apps().expect("one app").development_app().is_none());
        let loaded = sources(&[("app", "2:b:y")], &[("PUSHER_APP_ID", "1")]).load().expect("an app");
        assert!(
            loaded.notes.iter().any(|note| note.starts_with("PUSHER_APP_ID is not used: PUSHER_APP_KEY and")),
            "{:?}",
            loaded.notes
        );
    }

    #[test]
    fn variables_as_compose_writes_them_are_as_if_they_were_not_set() {
        let empty: Vec<(&str, &str)> =
            SETTINGS.iter().filter(|setting| !setting.secret).map(|setting| (setting.environment, "")).collect();
        assert!(empty.len() > 30);
        assert_eq!(sources(&[], &empty).load().expect("all unset").config, Config::default());
        for secret in SETTINGS.iter().filter(|setting| setting.secret) {
            let refused = sources(&[], &[(secret.environment, "")]).load().expect_err(secret.environment).to_string();
            assert!(refused.starts_with(secret.environment), "{refused}");
        }
    }

    #[test]
    fn an_app_of_another_server_listens_where_that_did() {
        let soketi =
            [("SOKETI_DEFAULT_APP_ID", "1"), ("SOKETI_DEFAULT_APP_KEY", "a"), ("SOKETI_DEFAULT_APP_SECRET", "x")];
        let listen = |flags: &[(&str, &str)], more: &[(&str, &str)]| {
            sources(flags, &[&soketi[..], more].concat()).load().expect("all good").config.listen.to_string()
        };
        assert_eq!(listen(&[], &[]), "0.0.0.0:6001");
        assert_eq!(listen(&[], &[("SOKETI_PORT", "tcp://10.0.0.1:6001")]), "0.0.0.0:6001");
        assert_eq!(listen(&[], &[("SOKETI_PORT", "7001"), ("SOKETI_HOST", "")]), "0.0.0.0:7001");
        assert_eq!(listen(&[("listen", "127.0.0.1:1")], &[("SOKETI_HOST", "soketi..local")]), "127.0.0.1:1");
        let refused =
            sources(&[], &[&soketi[..], &[("SOKETI_HOST", "soketi..local")]].concat()).load().expect_err("a name");
        assert!(refused.to_string().starts_with("SOKETI_HOST: \"soketi..local\" is a name"), "{refused}");
    }

    #[test]
    fn webhooks_that_would_be_lost_are_noted() {
        let file =
            Temporary::new("[[apps]]\nid = '1'\nkey = 'a'\nsecret = 'x'\nwebhooks = [{ url = 'http://127.0.0.1/' }]\n");
        let loaded = |flags: &[(&str, &str)]| sources(flags, &[]).load().expect("all good").notes;
        assert!(loaded(&[("config", file.path())])[0].contains("data-directory"));
        assert!(loaded(&[("config", file.path()), ("data-directory", "queue")]).is_empty());
    }
}
